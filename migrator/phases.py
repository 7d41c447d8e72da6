"""One phase of a change: its steps entered, run, compared; its state."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from migrator import waiting, way_back
from migrator.errors import (
    Held,
    MismatchError,
    Refused,
)
from migrator.events import EventKind
from migrator.execution import Run
from migrator.facts import Facts, Kind
from migrator.inspection import Inspection
from migrator.ledger import control, store
from migrator.ledger.control import Mode
from migrator.ledger.store import ChangeRow, StepRow
from migrator.pattern import Pattern
from migrator.plan import (
    GONE,
    ChunkedCheck,
    ChunkedUpdate,
    Phase,
    State,
    Step,
)
from migrator.postgres.connection import Connection
from migrator.way_back import WayBack
from migrator.words import counted

NEXT = {
    Phase.BACKFILL: ("backfill", State.EXPANDED),
    Phase.VERIFY: ("verify", State.BACKFILLED),
    Phase.RETIRE: ("contract", State.VERIFIED),
    Phase.DROP: ("contract --drop", State.RETIRED),
}


# Comparisons that found rows, and are kept with their keys once another was made;
# those that found none are not. `verify --watch` makes one after another for weeks.
KEPT_ROUNDS = 10

# Asked once a phase, before the first of its steps.
_ASKED = {
    Phase.EXPAND: EventKind.BEFORE_EXPAND,
    Phase.RETIRE: EventKind.BEFORE_RETIRE,
    Phase.DROP: EventKind.BEFORE_DROP,
}


@dataclass(slots=True)
class Phases(Inspection):
    """Carries a change through one phase, under its lease."""

    def way_back(self, change: str) -> WayBack:
        """Tell whether a change can be taken back just now, and what is in the way."""
        with self._connected("migrator:status") as conn:
            return way_back.asked(conn, store.get(conn, change))

    def _require(self, row: ChangeRow, phase: Phase) -> None:
        command, state = NEXT[phase]
        if row.state.rank < state.rank:
            first = ""
            if row.state is State.BACKFILLED and any(
                not one.repaired for one in self.mismatches(row.id, last=True)
            ):
                first = f"correct the rows that `migrator status {row.id}` lists, then "
            raise Held(
                f"{row.id} is {row.state}; `migrator {command}` needs it {state}.",
                next=f"{first}`{waiting.command(row)}`, then the same command again.",
            )

    def _require_settled(self, conn: Connection, row: ChangeRow) -> None:
        """Refuse to compare while a retire is cut off half-way."""
        if row.state.rank < State.RETIRED.rank and any(
            s.phase is Phase.RETIRE for s in store.steps(conn, row.id)
        ):
            raise Held(
                f"{row.id} was cut off while it was retired; a comparison would work on"
                " half of it.",
                next="run the command that was cut off again: `migrator contract"
                f' {row.id} --old-release-gone "reason"`; or `migrator rollback'
                f" {row.id}`.",
            )

    def _phase(
        self, run: Run, phase: Phase, pattern: Pattern, facts: Facts | None = None
    ) -> None:
        """
        Run a phase: entered whole before its first step, resumed from there.

        `facts` are those of just now, where they are known.
        """
        change = run.change
        if change.state.rank >= phase.reaches.rank:
            return
        if phase is Phase.VERIFY:
            self._compare_anew(run)
        entered = self._steps_of(run, phase)
        if phase in _ASKED and all(s.status == "pending" for s in entered):
            self._ask(_ASKED[phase], change)
            if phase is Phase.DROP:
                way_back.keep_unfit(run.conn, change)
        self._tell(EventKind.PHASE, change, {"phase": phase.value})
        if not entered:
            facts = facts or self._facts_of(run.conn, change)
            steps = pattern.steps(phase, facts)
            if phase is Phase.BACKFILL:
                self._require_chunking(change.id, steps)
            with self._execution.short(run, f"{phase} of {change.id}"):
                self._require_first(run)
                if phase is Phase.EXPAND:
                    # The trials took time since the look that it passed.
                    pattern.check(facts)
                store.add_steps(run.conn, change.id, phase, steps)
        self._run_steps(run, phase, pattern)
        if phase is Phase.EXPAND:
            self._unpark(run)
        # Facts are as they were where there was nothing to do.
        known = None if self._steps_of(run, phase) else facts
        done = phase is Phase.DROP or (
            phase.reaches.rank >= State.VERIFIED.rank
            and not self._is_more(run, phase, pattern, known)
        )
        self._set_state(run, phase.reaches, finished=done)

    def _unpark(self, run: Run) -> None:
        """Enter that what an earlier rollback parked came back with the expand."""
        change = run.change.id
        if parked := store.steps(run.conn, change, ("parked",)):
            with self._execution.short(run, f"expand of {change}"):
                for old in parked:
                    store.set_status(run.conn, change, old, "reversed")

    def _require_first(self, run: Run) -> None:
        """
        Refuse to enter the first steps of a change where another one was faster.

        Both may have looked when neither was in flight.

        Raises:
            Overlaps: names what touches the same.
        """
        change = run.change
        if store.steps(run.conn, change.id):
            return
        known = store.locked_changes(run.conn)
        if others := waiting.in_the_way(known, change.id, change.footprints):
            raise waiting.overlaps(change.id, others, self.settings.hold_s)

    def _is_more(
        self, run: Run, phase: Phase, pattern: Pattern, facts: Facts | None
    ) -> bool:
        """Tell whether there is anything to do behind a phase; `facts` as above."""
        rest = [p for p in Phase if p.reaches.rank > phase.reaches.rank]
        facts = facts or self._facts_of(run.conn, run.change)
        try:
            return any(pattern.steps(p, facts) for p in rest)
        except Refused:
            # What is in the way of a later phase is told when it is called for.
            return True

    def _require_chunking(
        self, change: str, steps: Iterable[Step], *, begun: bool = False
    ) -> None:
        """
        Refuse a way over the table that none of the steps goes.

        Args:
            change: its id.
            steps: that are to run, or did.
            begun: whether the ledger has them already.

        Raises:
            Refused: names the way in force, and what leads to another one.
        """
        asked = self.settings.chunking
        named = {
            step.name: step.work
            for step in steps
            if isinstance(step.work, ChunkedUpdate)
        }
        kinds = [work.chunking.kind for work in named.values()]
        # A step beside one that goes so may have no other way.
        if asked is None or not kinds or asked in kinds:
            return
        name, work = next(iter(named.items()))
        what = f"Step '{name}' goes over table {work.table} by {kinds[0]}"
        if not begun:
            raise Refused(
                f"{what}, and not by {asked}: {work.chunking.reason}.",
                next="leave --chunking out.",
            )
        raise Refused(
            f"{what}, as it was begun ({work.chunking.reason}); --chunking {asked}"
            " comes too late.",
            next="leave --chunking out to go on so. For another way `migrator rollback"
            f" {change} --to planned`, `migrator expand {change}` and `migrator"
            f" backfill {change} --chunking {asked}`.",
        )

    def _late(self, run: Run, phase: Phase, pattern: Pattern) -> list[StepRow]:
        """Enter steps for partitions that were attached while a phase ran."""
        if phase not in (Phase.BACKFILL, Phase.VERIFY):
            return []
        works = [s.step.work for s in self._steps_of(run, phase)]
        chunked = [w for w in works if isinstance(w, ChunkedUpdate | ChunkedCheck)]
        # A domain's tables are several too.
        if pattern.kind is Kind.TABLE and all(w.root is None for w in chunked):
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
        rank = run.change.state.rank
        ahead = [p for p in (Phase.BACKFILL, Phase.VERIFY) if p.reaches.rank > rank]
        facts = self._facts_of(run.conn, run.change) if ahead else None
        for phase in ahead:
            if facts and pattern.steps(phase, facts):
                break
            self._phase(run, phase, pattern, facts)
        return run.change.state

    def _steps_of(self, run: Run, phase: Phase) -> list[StepRow]:
        return [s for s in store.steps(run.conn, run.change.id) if s.phase is phase]

    def _run_steps(self, run: Run, phase: Phase, pattern: Pattern) -> None:
        """Run what is left of a phase's steps; what they compared is in step."""
        mine = self._steps_of(run, phase)
        if mine:
            self.progress.phase(run.change.id, phase.value)
        while mine:
            for row in mine:
                if row.status == "done":
                    continue
                if not isinstance(row.step.work, ChunkedCheck):
                    # It may rest on what was compared before.
                    self._require_in_step(run, phase)
                self._execution.forward(run, row)
            mine = self._late(run, phase, pattern)
        self._require_in_step(run, phase)

    def _require_in_step(self, run: Run, phase: Phase) -> None:
        mine = self._steps_of(run, phase)
        compared = [s for s in mine if isinstance(s.step.work, ChunkedCheck)]
        left = sum(s.mismatches for s in compared)
        if left:
            raise self._out_of_step(run, compared, left)

    def _compare_anew(self, run: Run) -> None:
        """
        Begin a verification again that was cut off behind its comparisons.

        What follows them rests on them, and a dual write may have been off since. Once
        it has begun, it goes on.
        """
        mine = self._steps_of(run, Phase.VERIFY)
        left = [s.step.work for s in mine if s.status != "done"]
        begun = any(s.step.reverse for s in mine if s.status == "done")
        if begun or not left or any(isinstance(w, ChunkedCheck) for w in left):
            return
        with self._execution.short(run, f"verification of {run.change.id} again"):
            for row in mine:
                store.set_status(run.conn, run.change.id, row, "reversed")

    def _verify_again(self, run: Run, pattern: Pattern) -> None:
        """Compare once more; a change that is in step stays verified meanwhile."""
        change = run.change.id
        steps = pattern.steps(Phase.VERIFY, self._facts_of(run.conn, run.change))
        with self._execution.short(run, "verification again"):
            # What has a reverse stays, to be taken back.
            before = [
                s for s in self._steps_of(run, Phase.VERIFY) if not s.step.reverse
            ]
            clean = [s for s in before if s.status == "done" and not s.rows]
            for row in before:
                if row not in clean:
                    store.set_status(run.conn, change, row, "reversed")
            store.forget_steps(run.conn, [*clean, *self._old_rounds(run)])
            store.add_steps(run.conn, change, Phase.VERIFY, steps, told=not run.repeats)
        self._run_steps(run, Phase.VERIFY, pattern)

    def _old_rounds(self, run: Run) -> list[StepRow]:
        """Return comparisons that found rows, but for the last ones of each step."""
        found: dict[str, list[StepRow]] = {}
        for row in store.steps(run.conn, run.change.id, ("reversed",)):
            if isinstance(row.step.work, ChunkedCheck) and not row.step.reverse:
                found.setdefault(row.step.name, []).append(row)
        return [row for rows in found.values() for row in rows[:-KEPT_ROUNDS]]

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
            if run.change.state is State.VERIFIED:
                store.set_state(run.conn, change, State.BACKFILLED, finished=False)
        why = ""
        if repairs:
            why = f"{counted(left, 'row stays', 'rows stay')} out of step after repair"
            control.say(run.conn, change, Mode.PAUSE, why)
        run.change = store.get(run.conn, change)
        self._tell(EventKind.STATE, run.change, _where(run.change))
        if repairs:
            self._tell(EventKind.PAUSE, run.change, {"reason": why})
        works = [s.step.work for s in compared if s.mismatches]
        # Of a partition, the table that the change is made on is named.
        found = dict.fromkeys(
            str(w.root or w.table) for w in works if isinstance(w, ChunkedCheck)
        )
        tables = "table" if len(found) == 1 else "tables"
        wrong = {w.wrong: None for w in works if isinstance(w, ChunkedCheck)}
        said = "not in step and could not be repaired"
        if all(wrong):
            said = f"to be corrected first: {', '.join(wrong)}"
        return MismatchError(
            f"Verification of {change} found {counted(left)} of {tables}"
            f" {', '.join(found)} that {'is' if left == 1 else 'are'} {said}.",
            state=f"The change is {run.change.state}; both releases go on.",
            next=f"look at these rows (`migrator status {change}` lists them), then"
            f" {resumed}`migrator verify {change}`.",
        )

    def _set_state(
        self, run: Run, state: State, *, finished: bool, back: Iterable[StepRow] = ()
    ) -> None:
        """Enter the state, and steps as taken back that it is left by together."""
        with self._execution.short(run, f"{run.change.id} to {state}"):
            for row in back:
                store.set_status(run.conn, run.change.id, row, "reversed")
            store.set_state(run.conn, run.change.id, state, finished=finished)
        run.change = store.get(run.conn, run.change.id)
        self._tell(EventKind.STATE, run.change, _where(run.change))
        if finished:
            self._tell(EventKind.FINISHED, run.change, _where(run.change))


def _where(row: ChangeRow) -> dict[str, Any]:
    return {"state": row.state.value, "finished": row.finished}
