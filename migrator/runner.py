"""Carries a change over several transitions, alone or beside other processes."""

import time
import uuid
from dataclasses import dataclass, replace

from migrator import waiting, way_back
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
                said = self.said(change)
                if said.mode is not Mode.PAUSE:
                    raise
                self.progress.waiting(said.said)
            time.sleep(rest_s)

    def retire(self, change: str, *, old_release_gone: str) -> State:
        """
        Take the old shape out of sight, after a last comparison.

        Args:
            change: its id.
            old_release_gone: why no reader of the old shape is left; recorded.

        Raises:
            Held: no reason is given.
        """
        with self._held(change) as run:
            pattern = self.pattern(run.change)
            if run.change.state is State.RETIRED:
                self._require_settled(run.conn, run.change, Phase.RETIRE)
            if run.change.finished or run.change.state.rank >= State.RETIRED.rank:
                return run.change.state
            self._require(run.change, Phase.RETIRE)
            if not old_release_gone:
                raise Held(
                    self._sessions_before(run),
                    next=f"once it is, `{waiting.command(run.change)}`; the reason is"
                    " recorded, and the change can be taken back afterwards.",
                )
            control.require_running(run.conn, run.change.id)
            stored = store.steps(run.conn, run.change.id)
            if not any(s.phase is Phase.RETIRE for s in stored):
                self._verify_again(run, pattern)
            store.event(
                run.conn, run.change.id, "gate", old_release_gone=old_release_gone
            )
            self._phase(run, Phase.RETIRE, pattern)
            return run.change.state

    def drop(self, change: str) -> State:
        """
        Drop what was retired, after the hold. There is no way back.

        Raises:
            Held: the hold is not over.
        """
        with self._held(change) as run:
            if run.change.state is State.DROPPED or run.change.finished:
                return run.change.state
            self._require_due(run.conn, run.change)
            pattern = self.pattern(run.change)
            begun = any(
                s.phase is Phase.DROP for s in store.steps(run.conn, run.change.id)
            )
            if pattern.compares_before_drop and not begun:
                self._verify_again(run, pattern)
            self._phase(run, Phase.DROP, pattern)
            return run.change.state

    def require_due(self, change: str) -> None:
        """
        Tell whether a change may be dropped, before anybody is asked.

        Raises:
            Held: it is not retired, or the hold is not over.
        """
        with self._connected("migrator:status") as conn:
            row = self._current(conn, change)
            with self._recorded(conn, row):
                self._require_due(conn, row)

    def _require_due(self, conn: Connection, row: ChangeRow) -> None:
        self._require(row, Phase.DROP)
        self._require_settled(conn, row, Phase.DROP)
        self._require_hold(
            conn, row.state_at, f"{row.id} retired", f"contract {row.id} --drop"
        )

    # -- going back ------------------------------------------------------

    def rollback(self, change: str, *, to: State | None = None) -> State:
        """
        Take back what ran, last first, from what the ledger says.

        Args:
            change: its id.
            to: planned or verified; None means verified from retired, and
                planned from anywhere before. A pause or an abort ends with planned;
                limits stay.

        Raises:
            Refused: it is dropped.
        """
        with self._held(change) as run:
            active = store.steps(run.conn, run.change.id)
            if run.change.state is State.DROPPED and not active:
                raise Refused(
                    f"{run.change.id} was not run here, but entered as dropped: what"
                    " would take it back is not known.",
                    next="make a new change.",
                )
            if any(
                # One that is pending has not committed anything.
                s.phase is Phase.DROP and s.step.loses and s.status != "pending"
                for s in active
            ):
                raise Refused(
                    f"{run.change.id} is dropped, or its drop has begun: there is no"
                    " way back.",
                    next="restore from a backup, or make a new change.",
                )
            retiring = run.change.state is State.RETIRED or any(
                s.phase is Phase.RETIRE for s in active
            )
            goal = to or (State.VERIFIED if retiring else State.PLANNED)
            if goal not in (State.PLANNED, State.VERIFIED):
                raise UsageError(
                    f"A change is rolled back to planned or verified, not to {goal}.",
                    next="give --to planned or --to verified.",
                )
            back = [s for s in active if s.phase.reaches.rank > goal.rank]
            if goal.rank >= run.change.state.rank and not back:
                return run.change.state
            self.progress.phase(run.change.id, "rollback")
            store.event(run.conn, run.change.id, "rollback", to=goal.value)
            self._tell(EventKind.ROLLBACK, run.change, {"to": goal.value})
            for row in reversed(back):
                self.progress.step(row.step.name, None)
                self._execution.reverse(run, row)
                if row.step.no_reverse and row.status != "pending":
                    self.progress.kept(row.step.name, row.step.no_reverse)
                else:
                    self.progress.done(row.step.name)
            # What was said to the run that is taken back does not hold the next one.
            held = control.read(run.conn, run.change.id).mode is not Mode.RUN
            if goal is State.PLANNED and held:
                control.say(run.conn, run.change.id, Mode.RUN, "rolled back")
                self._tell(EventKind.RESUME, run.change, {"reason": "rolled back"})
            self._set_state(run, goal, finished=False)
            return goal

    def is_lost(self, change: str) -> bool:
        """Tell whether a change is dropped, and what it dropped is gone for good."""
        row = self.change(change)
        return way_back.is_lost(row, self.steps(row.id))

    def drop_parked(self, change: str, *, at_once: bool = False) -> int:
        """
        Drop for good what a rollback parked, after the hold.

        Args:
            change: its id.
            at_once: without the hold, where nobody uses what was parked.

        Returns:
            How many steps had parked something.
        """
        with self._held(change) as run:
            rows = store.steps(run.conn, run.change.id, ("parked",))
            if not at_once:
                self._require_parked_due(run.conn, run.change.id, rows)
            for row in rows:
                self._execution.clear_parked(run, row)
            return len(rows)

    def require_parked_due(self, change: str) -> bool:
        """
        Tell whether anything is parked, before anybody is asked.

        Raises:
            Held: the hold is not over.
        """
        with self._connected("migrator:status") as conn:
            row = self._current(conn, change)
            rows = store.steps(conn, row.id, ("parked",))
            with self._recorded(conn, row):
                self._require_parked_due(conn, row.id, rows)
            return bool(rows)

    def _require_parked_due(
        self, conn: Connection, change: str, rows: Sequence[StepRow]
    ) -> None:
        for row in rows:
            self._require_hold(
                conn,
                row.status_at,
                f"the rollback of {change} parked",
                f"rollback {change} --drop",
            )

    def complete(self, change: Change) -> State:
        """Carry a change through all phases, where no other release runs."""
        self.expand(change)
        state = self.backfill(change.id)
        if state.rank < State.VERIFIED.rank:
            state = self.verify(change.id)
        self.retire(change.id, old_release_gone="mode = complete: no other release")
        quick = Runner(
            self.target,
            # No other release runs, so that nothing is to be waited for.
            settings=replace(self.settings, hold_s=0),
            progress=self.progress,
            catalogue=self.catalogue,
            guard=self.guard,
            listeners=self.listeners,
        )
        return quick.drop(change.id)
