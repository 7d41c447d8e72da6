"""Carries a change through its phases; the only place that executes a plan."""

import logging
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from migrator.change import Change
from migrator.errors import (
    Held,
    LockBudgetError,
    MigratorError,
    MismatchError,
    Refused,
    UsageError,
)
from migrator.execution import AGAIN, Execution, Run
from migrator.facts import Facts
from migrator.guard import Policy
from migrator.guard.signal import Subject
from migrator.guard.watch import unavailable
from migrator.ledger import control, lease, mismatches, samples, store
from migrator.ledger.control import Control, Limits, Mode
from migrator.ledger.mismatches import Mismatch
from migrator.ledger.samples import Speed
from migrator.ledger.store import ChangeRow, StepRow
from migrator.names import TableName
from migrator.pattern import Pattern
from migrator.patterns import CATALOGUE
from migrator.plan import (
    GONE,
    ChunkedCheck,
    ChunkedUpdate,
    Notice,
    Phase,
    Plan,
    State,
)
from migrator.postgres import catalog
from migrator.postgres.connection import (
    RETRIED,
    Connection,
    Target,
    ask,
    connect,
    require_primary,
    said,
    translated,
)
from migrator.progress import Progress, Silent
from migrator.settings import Settings

log = logging.getLogger(__name__)

# How long a command waits for another process that changes the same thing.
LEASE_WAIT_S = 30.0
# Seconds between looks whether another process has begun its next step.
LOOK_S = 0.2

NEXT = {
    Phase.BACKFILL: ("backfill", State.EXPANDED),
    Phase.VERIFY: ("verify", State.BACKFILLED),
    Phase.RETIRE: ("contract", State.VERIFIED),
    Phase.DROP: ("contract --drop", State.RETIRED),
}


@dataclass(slots=True)
class Runner:
    """
    The engine.

    Args:
        target: the database.
        settings: timeouts, budgets and holds.
        progress: told what happens.
        catalogue: the patterns that the ledger may name.
        guard: what is watched while rows are moved.
    """

    target: Target
    settings: Settings = field(default_factory=Settings)
    progress: Progress = field(default_factory=Silent)
    catalogue: tuple[type[Pattern], ...] = CATALOGUE
    guard: Policy = field(default_factory=Policy)

    @property
    def _execution(self) -> Execution:
        return Execution(self.settings, self.progress, self.guard)

    # -- looking ---------------------------------------------------------

    def plan(self, change: Change) -> Plan:
        """
        Return all phases of a change, from today's facts; nothing is written.

        Raises:
            Refused: the change cannot work on this database.
        """
        with self._connected("migrator:plan") as conn:
            facts = self._facts(conn, change)
            row = store.find(conn, change.id)
            if row is not None and row.in_flight:
                self._require_unedited(change, row)
                return self._plan_in_flight(conn, change, row)
            notices = self._checked(conn, change.pattern, facts)
            phases = {p: change.pattern.steps(p, facts) for p in Phase}
            if any(isinstance(s.work, ChunkedUpdate) for s in phases[Phase.BACKFILL]):
                notices += self._unwatched(conn, facts)
            return Plan(
                change=change.id,
                title=change.pattern.title,
                table=facts.table.name,
                rows=facts.table.rows,
                size_bytes=facts.table.size_bytes,
                admission=change.pattern.admission,
                notices=notices,
                phases=phases,
            )

    def _plan_in_flight(self, conn: Connection, change: Change, row: ChangeRow) -> Plan:
        """Return the stored steps of phases that began, fresh ones for the rest."""
        stored = store.steps(conn, row.id)
        facts = self._facts_of(conn, row)
        phases = {
            p: tuple(s.step for s in stored if s.phase is p)
            or change.pattern.steps(p, facts)
            for p in Phase
            if p.reaches.rank > row.state.rank or any(s.phase is p for s in stored)
        }
        return Plan(
            change=row.id,
            title=row.title,
            table=row.table,
            rows=facts.table.rows,
            size_bytes=facts.table.size_bytes,
            admission=change.pattern.admission,
            phases=phases,
        )

    def changes(self) -> list[ChangeRow]:
        """Return all changes of the ledger."""
        with self._connected("migrator:status") as conn:
            return store.changes(conn)

    def change(self, change: str) -> ChangeRow:
        """Return one change, by its id or the beginning of it."""
        with self._connected("migrator:status") as conn:
            return store.get(conn, change)

    def steps(self, change: str) -> list[StepRow]:
        """Return a change's steps that count."""
        with self._connected("migrator:status") as conn:
            return store.steps(conn, change, (*store.ACTIVE, "parked"))

    def speed(self, step: StepRow) -> Speed | None:
        """Return how fast a chunked step goes, None where that is not known yet."""
        with self._connected("migrator:status") as conn:
            store.install(conn)
            return samples.speed(conn, step.id)

    def mismatches(self, change: str) -> list[Mismatch]:
        """Return the rows that verifications found out of step, the latest first."""
        with self._connected("migrator:status") as conn:
            return mismatches.of(conn, self._current(conn, change).id)

    def events(self, change: str | None) -> list[dict[str, Any]]:
        """Return the event log."""
        with self._connected("migrator:log") as conn:
            whole = None if change is None else store.get(conn, change).id
            return store.events(conn, whole)

    # -- going forward ---------------------------------------------------

    def expand(self, change: Change) -> State:
        """
        Carry a change to expanded; go on where an earlier run stopped.

        Returns:
            The state: further than expanded where nothing is to be moved.

        Raises:
            Refused: it cannot work, and nothing was changed.
            Held: another change in flight touches the same columns.
            LockBudgetError: no lock within the budget.
        """
        with self._connected("migrator:expand") as conn:
            require_primary(conn)
            store.install(conn)
            with lease.held(
                self.target,
                conn,
                change.id,
                seconds=self.settings.lease_s,
                wait_s=LEASE_WAIT_S,
            ) as mine:
                row = self._entered(conn, change)
                run = Run(self.target, conn, mine, row)
                self._phase(run, Phase.EXPAND, change.pattern)
                return self._pass_empty(run, change.pattern)

    def backfill(self, change: str) -> State:
        """Bring existing rows across, from where an earlier run stopped."""
        return self._advance(change, Phase.BACKFILL)

    def join(self, change: str) -> bool:
        """
        Share the backfill of a process that runs on any machine, to its end.

        Args:
            change: its id, or the beginning of it.

        Returns:
            False at once where no other process is at it.

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
            scope = f"{row.id} helper {uuid.uuid4().hex}"
            seconds = self.settings.lease_s
            with lease.held(
                self.target, conn, scope, seconds=seconds, wait_s=0
            ) as mine:
                run = Run(self.target, conn, mine, row)
                self.progress.phase(row.id, "join")
                while step is not None:
                    self._execution.help(run, step)
                    self.progress.done(step.step.name)
                    step = self._shared(conn, row, after=step.id)
            lease.forget(conn, scope)
            return True

    def _shared(
        self, conn: Connection, row: ChangeRow, after: int = 0
    ) -> StepRow | None:
        """Return the chunked update behind a step that another process runs."""
        while lease.is_held(conn, row.id):
            ahead = [
                s
                for s in store.steps(conn, row.id, ("pending", "running"))
                if isinstance(s.step.work, ChunkedUpdate) and s.id > after
            ]
            for step in ahead:
                if step.status == "running" and step.next_block is not None:
                    return step
            if not ahead or not after:
                return None
            # The other process has come to the end of one leaf, and begins the next.
            time.sleep(LOOK_S)
        return None

    def verify(self, change: str) -> State:
        """
        Compare both sides and repair; again, where it is verified already.

        Raises:
            MismatchError: rows are left that repair did not bring into step.
        """
        with self._held(change) as run:
            self._require_settled(run, Phase.VERIFY)
            self._require(run, Phase.VERIFY)
            if run.change.finished or run.change.state.rank > State.VERIFIED.rank:
                return run.change.state
            control.require_running(run.conn, run.change.id)
            pattern = self.pattern(run.change)
            if run.change.state is State.VERIFIED:
                self._verify_again(run, pattern)
            else:
                self._phase(run, Phase.VERIFY, pattern)
            return run.change.state

    def watch(self, change: str, *, every_s: float) -> State:
        """
        Compare both sides again and again until the change is retired.

        Args:
            change: its id.
            every_s: rest between two comparisons, in which others may have the
                change's lease.

        Raises:
            MismatchError: rows are left that repair did not bring into step.
        """
        while (state := self.verify(change)) is State.VERIFIED:
            if self.change(change).finished:
                break
            time.sleep(every_s)
        return state

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
            if run.change.finished or run.change.state.rank >= State.RETIRED.rank:
                return run.change.state
            self._require(run, Phase.RETIRE)
            if not old_release_gone:
                raise Held(self._sessions_before(run), next=_GONE)
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
            self._require(run, Phase.DROP)
            self._require_settled(run, Phase.DROP)
            self._require_hold(run.conn, run.change.state_at, "retired")
            self._phase(run, Phase.DROP, self.pattern(run.change))
            return run.change.state

    # -- going back ------------------------------------------------------

    def rollback(self, change: str, *, to: State | None = None) -> State:
        """
        Take back what ran, last first, from what the ledger says.

        Args:
            change: its id.
            to: planned or verified; None means verified from retired, and
                planned from anywhere before.

        Raises:
            Refused: it is dropped.
        """
        with self._held(change) as run:
            active = store.steps(run.conn, run.change.id)
            if any(s.phase is Phase.DROP for s in active):
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
            for row in reversed(back):
                self.progress.step(row.step.name, None)
                self._execution.reverse(run, row)
                self.progress.done(row.step.name)
            self._set_state(run, goal, finished=False)
            return goal

    def drop_parked(self, change: str) -> int:
        """
        Drop for good what a rollback parked, after the hold.

        Returns:
            How many steps had parked something.
        """
        with self._held(change) as run:
            rows = store.steps(run.conn, run.change.id, ("parked",))
            for row in rows:
                self._require_hold(run.conn, row.status_at, "parked")
            for row in rows:
                self._execution.clear_parked(run, row)
            return len(rows)

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
        )
        return quick.drop(change.id)

    def rebuild(self, change: Change) -> None:
        """Bring the old shape back after the drop, where no release runs."""
        with self._held(change.id) as run:
            facts = self._facts_of(run.conn, run.change)
            store.add_steps(
                run.conn, run.change.id, Phase.DROP, change.pattern.rebuild(facts)
            )
            for row in store.steps(run.conn, run.change.id):
                if row.status == "pending":
                    self._execution.forward(run, row)
            for row in store.steps(run.conn, run.change.id):
                store.set_status(run.conn, run.change.id, row, "reversed")
            self._set_state(run, State.PLANNED, finished=False)

    # -- live control ----------------------------------------------------

    def say(self, change: str, mode: Mode, reason: str) -> ChangeRow:
        """
        Pause, abort or resume a change's chunks, wherever they run.

        Args:
            change: its id, or the beginning of it.
            mode: what its workers are to do from the next chunk on.
            reason: recorded, and shown by who waits.
        """
        with self._connected("migrator:control") as conn:
            row = self._current(conn, change)
            control.say(conn, row.id, mode, reason)
            return row

    def limit(self, change: str, limits: Limits | None) -> ChangeRow:
        """
        Limit a change's backfill from the next chunk on.

        Args:
            change: its id, or the beginning of it.
            limits: those that are None stay; None takes all of them back.
        """
        with self._connected("migrator:control") as conn:
            row = self._current(conn, change)
            if limits is None:
                control.unlimited(conn, row.id)
            else:
                control.limit(conn, row.id, limits)
            return row

    def said(self, change: str) -> Control:
        """Return what was said to a change."""
        with self._connected("migrator:status") as conn:
            store.install(conn)
            return control.read(conn, change)

    def _current(self, conn: Connection, change: str) -> ChangeRow:
        row = store.get(conn, change)
        store.install(conn)
        return row

    # -- phases ----------------------------------------------------------

    def _advance(self, change: str, phase: Phase) -> State:
        with self._held(change) as run:
            if run.change.state.rank < phase.reaches.rank:
                control.require_running(run.conn, run.change.id)
                self._require(run, phase)
                self._phase(run, phase, self.pattern(run.change))
            return run.change.state

    def _require(self, run: Run, phase: Phase) -> None:
        command, state = NEXT[phase]
        if run.change.state.rank < state.rank:
            raise Held(
                f"{run.change.id} is {run.change.state}; `migrator {command}` needs it"
                f" {state}.",
                next="run the phases before it first; `migrator status` names the"
                " next one.",
            )

    def _require_settled(self, run: Run, phase: Phase) -> None:
        """Refuse a phase while a retire, or its way back, is cut off half-way."""
        retired = run.change.state.rank >= State.RETIRED.rank
        half = [
            s
            for s in store.steps(
                run.conn, run.change.id, ("pending", "running", "done")
            )
            if s.phase is Phase.RETIRE and (s.status != "done" or not retired)
        ]
        gone = retired and self._rolling_back(run)
        if half or gone:
            raise Held(
                f"{run.change.id} was cut off while it was retired or taken back;"
                f" {phase} would work on half of it.",
                next="run the command that was cut off again: `migrator contract` or"
                " `migrator rollback`.",
            )

    def _rolling_back(self, run: Run) -> bool:
        """Tell whether a step of a retired change was taken back since."""
        return any(
            s.phase is Phase.RETIRE and s.status_at > run.change.state_at
            for s in store.steps(run.conn, run.change.id, ("reversed", "parked"))
        )

    def _phase(self, run: Run, phase: Phase, pattern: Pattern) -> None:
        """Run a phase: entered whole before its first step, resumed from there."""
        change = run.change
        if change.state.rank >= phase.reaches.rank:
            return
        if not self._steps_of(run, phase):
            steps = pattern.steps(phase, self._facts_of(run.conn, change))
            with self._execution.short(run, f"{phase} of {change.id}"):
                store.add_steps(run.conn, change.id, phase, steps)
                if phase is Phase.EXPAND:
                    # What an earlier rollback parked comes back with the expand.
                    for old in store.steps(run.conn, change.id, ("parked",)):
                        store.set_status(run.conn, change.id, old, "reversed")
        self._run_steps(run, phase, pattern)
        rest = [p for p in Phase if p.reaches.rank > phase.reaches.rank]
        done = phase.reaches.rank >= State.VERIFIED.rank and not any(
            pattern.steps(p, self._facts_of(run.conn, change)) for p in rest
        )
        self._set_state(run, phase.reaches, finished=done or phase is Phase.DROP)

    def _late(self, run: Run, phase: Phase, pattern: Pattern) -> list[StepRow]:
        """Enter steps for partitions that were attached while a phase ran."""
        if phase not in (Phase.BACKFILL, Phase.VERIFY):
            return []
        steps = pattern.steps(phase, self._facts_of(run.conn, run.change))
        done = {s.step.name for s in self._steps_of(run, phase) if s.file_node != GONE}
        late = tuple(
            s
            for s in steps
            if isinstance(s.work, ChunkedUpdate | ChunkedCheck) and s.name not in done
        )
        if late:
            with self._execution.short(run, f"{phase} of {run.change.id}"):
                store.add_steps(run.conn, run.change.id, phase, late)
        return [s for s in self._steps_of(run, phase) if s.status == "pending"]

    def _pass_empty(self, run: Run, pattern: Pattern) -> State:
        """Pass phases in which there is nothing to do, up to verified."""
        for phase in (Phase.BACKFILL, Phase.VERIFY):
            passed = run.change.state.rank >= phase.reaches.rank
            if not passed:
                facts = self._facts_of(run.conn, run.change)
                if pattern.steps(phase, facts):
                    break
                self._phase(run, phase, pattern)
        return run.change.state

    def _steps_of(self, run: Run, phase: Phase) -> list[StepRow]:
        return [s for s in store.steps(run.conn, run.change.id) if s.phase is phase]

    def _run_steps(self, run: Run, phase: Phase, pattern: Pattern) -> None:
        """Run what is left of a phase's steps; what they compared is in step."""
        self.progress.phase(run.change.id, phase.value)
        mine = self._steps_of(run, phase)
        while mine:
            for row in mine:
                if row.status != "done":
                    self._execution.forward(run, row)
            mine = self._late(run, phase, pattern)
        compared = [
            s
            for s in self._steps_of(run, phase)
            if isinstance(s.step.work, ChunkedCheck)
        ]
        left = sum(s.mismatches for s in compared)
        if left:
            raise self._out_of_step(run, compared, left)

    def _verify_again(self, run: Run, pattern: Pattern) -> None:
        """Compare once more; a change that is in step stays verified meanwhile."""
        steps = pattern.steps(Phase.VERIFY, self._facts_of(run.conn, run.change))
        with self._execution.short(run, "verification again"):
            for row in self._steps_of(run, Phase.VERIFY):
                store.set_status(run.conn, run.change.id, row, "reversed")
            store.add_steps(run.conn, run.change.id, Phase.VERIFY, steps)
        self._run_steps(run, Phase.VERIFY, pattern)

    def _out_of_step(
        self, run: Run, compared: list[StepRow], left: int
    ) -> MismatchError:
        """Take the verification back; pause where repair should have helped."""
        change = run.change.id
        repairs = any(
            isinstance(s.step.work, ChunkedCheck) and s.step.work.repair
            for s in compared
        )
        resumed = f"`migrator resume {change}` and " if repairs else ""
        with self._execution.short(run, f"{change} back to backfilled"):
            for row in compared:
                store.set_status(run.conn, change, row, "reversed")
            if run.change.state.rank > State.BACKFILLED.rank:
                store.set_state(run.conn, change, State.BACKFILLED, finished=False)
        if repairs:
            why = f"{left} rows stay out of step after their repair"
            control.say(run.conn, change, Mode.PAUSE, why)
        run.change = store.get(run.conn, change)
        return MismatchError(
            f"Verification of {change} found {left} rows of table"
            f" {run.change.table} that are not in step and could not be repaired.",
            state=f"The change is {run.change.state}; both releases go on.",
            next=f"look at these rows (`migrator status {change}` lists them), then"
            f" {resumed}`migrator verify {change}`.",
        )

    def _set_state(self, run: Run, state: State, *, finished: bool) -> None:
        with self._execution.short(run, f"{run.change.id} to {state}"):
            store.set_state(run.conn, run.change.id, state, finished=finished)
        run.change = store.get(run.conn, run.change.id)

    # -- facts and the ledger --------------------------------------------

    def pattern(self, row: ChangeRow) -> Pattern:
        """Return the pattern that the ledger names."""
        for cls in self.catalogue:
            if cls.__name__ == row.pattern:
                return cls(**_thawed(row.parameters))
        raise Refused(
            f"{row.id} is an instance of {row.pattern}, which this release does not"
            " know.",
            next="use the release that started it.",
        )

    def _facts(self, conn: Connection, change: Change) -> Facts:
        table = catalog.resolve(conn, change.pattern.table, change.pattern.schema)
        return self._read(conn, table, change.tag(table))

    def _facts_of(self, conn: Connection, row: ChangeRow) -> Facts:
        return self._read(conn, row.table, row.tag)

    def _read(self, conn: Connection, table: TableName, tag: str) -> Facts:
        return Facts(
            server_version=conn.info.server_version,
            table=catalog.table_facts(conn, table),
            tag=tag,
            relation_names=catalog.relation_names(conn, table.schema),
            chunking=self.settings.chunking,
            oldest_snapshot=catalog.oldest_snapshot(conn),
            path=catalog.search_path(conn),
        )

    def _checked(
        self, conn: Connection, pattern: Pattern, facts: Facts
    ) -> tuple[Notice, ...]:
        notices = pattern.check(facts)
        for probe in pattern.probes(facts):
            catalog.try_out(conn, probe)
        return notices

    def _unwatched(self, conn: Connection, facts: Facts) -> tuple[Notice, ...]:
        """Return a note on each signal that cannot be read here."""
        subject = Subject(table=facts.table.leaves[0].name)
        return tuple(
            Notice(text=f'Signal "{name}" is not watched: {why}.')
            for name, why in unavailable(conn, self.guard, subject)
        )

    def _require_unedited(self, change: Change, row: ChangeRow) -> None:
        """Refuse a pattern that is not the one the ledger works on."""
        if row.digest != change.pattern.digest():
            raise Refused(
                f"The pattern of {change.id} was edited while it is {row.state}.",
                next=f"put it back as it was, or `migrator rollback {row.id}` first.",
            )

    def _entered(self, conn: Connection, change: Change) -> ChangeRow:
        """Enter a change, or return what the ledger has of it."""
        pattern = change.pattern
        row = store.find(conn, change.id)
        if row is not None and (row.begun or row.finished):
            self._require_unedited(change, row)
            return row
        facts = self._facts(conn, change)
        footprint = pattern.footprint(facts.table.name)
        for other in store.changes(conn):
            if (
                other.id != change.id
                and other.in_flight
                and other.footprint.overlaps(footprint)
            ):
                raise Held(
                    f"{change.id} touches what {other.id} ({other.title}) is changing;"
                    f" that one is {other.state}.",
                    next=f"finish or roll back {other.id} first.",
                )
        self._checked(conn, pattern, facts)
        fresh = ChangeRow(
            id=change.id,
            tag=facts.tag,
            table=facts.table.name,
            columns=pattern.columns(),
            title=pattern.title,
            pattern=type(pattern).__name__,
            parameters=pattern.parameters(),
            digest=pattern.digest(),
            state=State.PLANNED,
            state_at=_NEVER,
            finished=False,
        )
        with conn.transaction():
            store.add(conn, fresh)
            store.event(conn, change.id, "planned", title=pattern.title)
        return store.get(conn, change.id)

    def _require_hold(self, conn: Connection, since: Any, what: str) -> None:
        left = ask(
            conn,
            "SELECT $1::float8 - extract(epoch FROM clock_timestamp()"
            " - $2::timestamptz)::float8",
            [self.settings.hold_s, since],
        )
        if left > 0:
            until = datetime.now().astimezone() + timedelta(seconds=left)
            raise Held(
                f"What was {what} is held for another {left / 3600:.1f} h.",
                next=f"wait until {until:%Y-%m-%d %H:%M}, or set a shorter hold"
                " (`migrator --hold 1h …`).",
            )

    def _sessions_before(self, run: Run) -> str:
        rows = run.conn.execute(
            "SELECT application_name AS name, count(*) AS n"
            " FROM pg_catalog.pg_stat_activity WHERE datname = current_database()"
            " AND backend_type = 'client backend' AND backend_start < %s"
            " AND pid <> pg_catalog.pg_backend_pid() GROUP BY 1 ORDER BY 2 DESC",
            (run.change.state_at,),
        ).fetchall()
        who = ", ".join(f'{r["n"]} of "{r["name"]}"' for r in rows)
        seen = f" Sessions older than its verification: {who}." if who else ""
        return (
            f"{run.change.id} is ready to retire, but nothing says that the old"
            f" release is gone.{seen}"
        )

    # -- connections -----------------------------------------------------

    @contextmanager
    def _connected(self, name: str) -> Iterator[Connection]:
        conn = connect(self.target, name)
        try:
            with translated(
                f"Work on {self.target}",
                "What was committed before stays.",
                AGAIN,
            ):
                yield conn
        except RETRIED as error:
            # Of a statement that nobody tries again.
            raise LockBudgetError(
                f"Work on {self.target} got no lock: {said(error)}.",
                state="What was committed before stays.",
                next=AGAIN,
            ) from error
        finally:
            conn.close()

    @contextmanager
    def _held(self, change: str) -> Iterator[Run]:
        with self._connected("migrator:run") as conn:
            require_primary(conn)
            row = self._current(conn, change)
            with (
                lease.held(
                    self.target,
                    conn,
                    row.id,
                    seconds=self.settings.lease_s,
                    wait_s=LEASE_WAIT_S,
                ) as mine,
                self._recorded(conn, row.id),
            ):
                yield Run(self.target, conn, mine, store.get(conn, row.id))

    @contextmanager
    def _recorded(self, conn: Connection, change: str) -> Iterator[None]:
        """Enter into the log what a command failed of, where that is possible."""
        try:
            yield
        except MigratorError as error:
            with suppress(psycopg.Error):
                store.event(conn, change, "failed", error=error.what)
            raise


_GONE = (
    'once it is, give --old-release-gone "reason" (the reason is recorded); the'
    " change can be taken back afterwards."
)


def _thawed(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return a pattern's parameters as its constructor takes them."""
    return {k: v for k, v in parameters.items() if k != "_"}


# Stands for the ledger's own clock until the row is there.
_NEVER = datetime.fromtimestamp(0, UTC)
