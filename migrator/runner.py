"""Carries a change over several transitions, alone or beside other processes."""

import time
import uuid
from dataclasses import dataclass, replace

from migrator import waiting
from migrator.change import Change
from migrator.errors import Busy, Held
from migrator.ledger import control, lease, store, windows
from migrator.ledger.control import Mode
from migrator.ledger.store import ChangeRow, StepRow
from migrator.plan import ChunkedUpdate, Phase, State
from migrator.postgres.connection import Connection, require_primary
from migrator.transitions import Transitions

# Seconds between looks whether another process has begun its next step.
LOOK_S = 0.2
# Seconds between looks at a change that another process carries on.
POLL_S = 1.0


@dataclass(slots=True)
class Runner(Transitions):
    """The engine, whole: what commands, hooks and revisions call."""

    def settle(self, change: str) -> State:
        """
        Bring existing rows across and verify them, alone or beside others.

        A process that comes while another one is at it helps, waits for the rest,
        and goes on where the other one died.

        Args:
            change: its id, or the beginning of it.

        Returns:
            The state: verified, or further.

        Raises:
            Refused: the table is gone over in another way than the one asked for.
            Held: it cannot go on, or somebody stopped it.
            MismatchError: rows are left that repair did not bring into step.
        """
        known = self.change(change)
        waiting.require_forward(known)
        if not known.finished:
            steps = self.steps(known.id)
            stored = (s.step for s in steps if s.phase is Phase.BACKFILL)
            self._require_chunking(known.id, stored, begun=True)
        if not known.finished and known.state.rank < State.VERIFIED.rank:
            # One that is at it waits for a word; a further one tells who said so.
            with self._connected("migrator:join") as conn:
                control.require_running(conn, known.id)
        # What vanishes between the backfill and its verification is known as lost.
        return replace(self, watches={})._settled(known.id)

    def _settled(self, change: str) -> State:
        while True:
            row = self.change(change)
            if row.finished or row.state.rank >= State.VERIFIED.rank:
                return row.state
            self.settings.require_time(f"{row.id} is {row.state}")
            try:
                if not self.join(row.id) and not self._is_busy(row.id):
                    if row.state.rank < State.BACKFILLED.rank:
                        self.backfill(row.id)
                    return self.verify(row.id)
            except Busy:
                # Both came at the same instant; the other one was first.
                continue
            self.progress.waiting("for the process that carries it on")
            time.sleep(self.settings.within(POLL_S))

    def _is_busy(self, change: str) -> bool:
        with self._connected("migrator:join") as conn:
            return lease.is_held(conn, change)

    def join(self, change: str) -> bool:
        """
        Share the backfill of a process that runs on any machine, to its end.

        Args:
            change: its id, or the beginning of it.

        Returns:
            False at once where no other process is at it, or nothing is left to be
            given out.

        Raises:
            Failed: the dual write is off, or the server refused a chunk.
            Held: somebody aborted the change.
        """
        with self._connected("migrator:join") as conn:
            require_primary(conn)
            row = self._current(conn, change)
            step = self._shared(conn, row)
            if step is None:
                return False
            scope = lease.helper(row.id, uuid.uuid4().hex)
            seconds = self.settings.lease_s
            with lease.held(
                self.target, conn, scope, seconds=seconds, wait_s=0
            ) as mine:
                run = self._run(conn, mine, row)
                self.progress.phase(row.id, "help with the backfill of")
                while step is not None:
                    self._execution.help(run, step)
                    self.progress.helped(step.step.name)
                    step = self._shared(conn, row, after=step.id)
            lease.forget(conn, scope)
            return True

    def _shared(
        self, conn: Connection, row: ChangeRow, after: int = 0
    ) -> StepRow | None:
        """Return the chunked update, behind a step, that others leave a part of."""
        while lease.is_held(conn, row.id):
            ahead = [
                s
                for s in store.steps(conn, row.id, ("pending", "running"))
                if isinstance(s.step.work, ChunkedUpdate) and s.id > after
            ]
            for step in ahead:
                if windows.is_claimable(conn, step.id):
                    return step
            if not ahead or not after:
                return None
            # The other process has come to the end of one leaf, and begins the next.
            time.sleep(LOOK_S)
        return None

    def watch(self, change: str, *, every_s: float) -> State:
        """
        Compare both sides again and again until the change is retired.

        The ledger keeps the last comparison, and those that found rows; the log has the
        first one, and those. It waits while the change is paused, or in the hands of
        another process.

        Args:
            change: its id.
            every_s: rest between two comparisons, in which others may have the
                change's lease.

        Raises:
            MismatchError: rows are left that repair did not bring into step.
            Held: somebody aborted the change.
        """
        repeats = False
        while True:
            rest_s = POLL_S
            try:
                state = self._verified(change, repeats=repeats)
                repeats = True
                if state is not State.VERIFIED or self.change(change).finished:
                    return state
                rest_s = every_s
            except Busy:
                self.progress.waiting("for the process that carries it on")
            except Held:
                waiting.require_forward(self.change(change))
                said = self.said(change)
                if said.mode is not Mode.PAUSE:
                    raise
                self.progress.waiting(said.said)
            time.sleep(rest_s)

    def complete(self, change: Change) -> State:
        """Carry a change through all phases, where no other release runs."""
        self.expand(change)
        return self.finish(change.id)

    def finish(self, change: str) -> State:
        """Carry an expanded change through the rest, where no other release runs."""
        state = self.backfill(change)
        if state.rank < State.VERIFIED.rank:
            state = self.verify(change)
        self.retire(change, old_release_gone="mode = complete: no other release")
        quick = Runner(
            self.target,
            # No other release runs, so that nothing is to be waited for.
            settings=replace(self.settings, hold_s=0),
            progress=self.progress,
            catalogue=self.catalogue,
            guard=self.guard,
            listeners=self.listeners,
        )
        return quick.drop(change)
