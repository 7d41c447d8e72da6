"""From one state of a change to the next, forward and back, by its steps."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

from migrator import waiting, way_back
from migrator.change import Change
from migrator.errors import Held, Refused, UsageError
from migrator.events import EventKind
from migrator.execution import Run
from migrator.ledger import control, installation, lease, store
from migrator.ledger.control import Mode
from migrator.ledger.store import ChangeRow, StepRow
from migrator.pattern import Pattern
from migrator.phases import NEXT, Phases
from migrator.plan import Phase, State, Step, Transaction
from migrator.postgres.connection import Connection, ask, require_primary
from migrator.words import duration, moment

# What stays where a way back is refused behind steps that are taken back already.
_TAKEN_BACK = "This step changed nothing; what was taken back before stays so."


@dataclass(slots=True)
class Transitions(Phases):
    """A change carried forward or back by one phase, or held before it."""

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
            installation.install(conn)
            with lease.held(
                self.target,
                conn,
                change.id,
                seconds=self.settings.lease_s,
                wait_s=self._lease_wait_s,
                tell=self.progress.waiting,
            ) as mine:
                row = self._entered(conn, change)
                run = self._run(conn, mine, row)
                with self._recorded(conn, row):
                    waiting.require_forward(row)
                    # With facts from behind the trials and listeners, which take time.
                    self._phase(run, Phase.EXPAND, change.pattern)
                    return self._pass_empty(run, change.pattern)

    def backfill(self, change: str) -> State:
        """Bring existing rows across, from where an earlier run stopped."""
        return self._advance(change, Phase.BACKFILL)

    def verify(self, change: str) -> State:
        """
        Compare both sides and repair; again, where it is verified already.

        Raises:
            MismatchError: rows are left that repair did not bring into step.
        """
        return self._verified(change)

    def _verified(self, change: str, *, repeats: bool = False) -> State:
        with self._forward(change) as run:
            run.repeats = repeats
            self._require_settled(run.conn, run.change)
            self._require(run.change, Phase.VERIFY)
            if run.change.finished or run.change.state.rank > State.VERIFIED.rank:
                return run.change.state
            control.require_running(run.conn, run.change.id)
            pattern = self.pattern(run.change)
            if run.change.state is State.VERIFIED:
                self._verify_again(run, pattern)
            else:
                self._phase(run, Phase.VERIFY, pattern)
            return run.change.state

    def retire(self, change: str, *, old_release_gone: str) -> State:
        """
        Take the old shape out of sight, after a last comparison.

        Args:
            change: its id.
            old_release_gone: why no reader of the old shape is left; recorded.

        Raises:
            Held: no reason is given.
        """
        with self._forward(change) as run:
            pattern = self.pattern(run.change)
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
            stored = self._steps_of(run, Phase.RETIRE)
            if all(s.status == "pending" for s in stored):
                with self._execution.short(run, f"retire of {run.change.id}"):
                    # None has run: what came onto the table since goes along.
                    store.forget_steps(run.conn, stored)
                self._outlive_copies(run, pattern)
                self._verify_again(run, pattern)
            store.event(
                run.conn, run.change.id, "gate", old_release_gone=old_release_gone
            )
            self._phase(run, Phase.RETIRE, pattern)
            return run.change.state

    def _outlive_copies(self, run: Run, pattern: Pattern) -> None:
        """
        Wait for who could take back a row past its copy, before the last comparison.

        To a snapshot from before the copy it is not there: a DELETE leaves it.

        Raises:
            LockBudgetError: names who has one when the budget is used up.
        """
        steps = pattern.steps(Phase.RETIRE, self._facts_of(run.conn, run.change))
        for step in steps:
            if isinstance(step.work, Transaction) and step.work.shows_copies:
                self._execution.outlive_snapshots(run, f"Step '{step.name}'")

    def drop(self, change: str) -> State:
        """
        Drop what was retired, after the hold. There is no way back.

        Raises:
            Held: the hold is not over.
        """
        with self._forward(change) as run:
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
        waiting.require_forward(row)
        self._require(row, Phase.DROP)
        self._require_hold(
            conn, row.state_at, f"{row.id} retired", f"contract {row.id} --drop"
        )

    # -- going back ------------------------------------------------------

    def rollback(self, change: str, *, to: State | None = None) -> State:
        """
        Take back what ran, last first, from what the ledger says.

        Args:
            change: its id.
            to: planned or verified; None means where a way back leads that was cut
                off, else verified from retired, and planned from anywhere before. A
                pause or an abort ends with planned; limits stay.

        Raises:
            Refused: it is dropped.
            Held: a way back that was cut off leads further.
            Overlaps: another change in flight touches the same.
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
                rebuilt = "`alembic downgrade` finishes that, where no release runs."
                raise Refused(
                    f"{run.change.id} is dropped, or its drop has begun: there is no"
                    " way back.",
                    next=rebuilt
                    if run.change.going_back
                    else "restore from a backup, or make a new change.",
                )
            retiring = run.change.state is State.RETIRED or any(
                s.phase is Phase.RETIRE for s in active
            )
            begun = run.change.going_back
            goal = to or begun or (State.VERIFIED if retiring else State.PLANNED)
            if goal not in (State.PLANNED, State.VERIFIED):
                raise UsageError(
                    f"A change is rolled back to planned or verified, not to {goal}.",
                    next="give --to planned or --to verified.",
                )
            if begun and begun.rank < goal.rank:
                waiting.require_forward(run.change)
            # A comparison before the drop is entered behind the steps of retire.
            back = sorted(
                (s for s in active if s.phase.reaches.rank > goal.rank),
                key=lambda s: (s.phase.reaches.rank, s.id),
                reverse=True,
            )
            if goal.rank >= run.change.state.rank and not back and not begun:
                return run.change.state
            if run.change.finished:
                waiting.require_alone(run.change, store.changes(run.conn))
                # While it was in flight nothing that it made got another name.
                self._require_names(run)
            run.back_to = goal
            self.progress.phase(run.change.id, "rollback")
            store.event(run.conn, run.change.id, "rollback", to=goal.value)
            self._tell(EventKind.ROLLBACK, run.change, {"to": goal.value})
            ran = False
            for phase, rows in groupby(back, key=lambda s: s.phase):
                for row in rows:
                    self.progress.step(row.step.name, None)
                    self._reverse(run, row, behind=ran)
                    ran |= bool(row.step.reverse) and row.status != "pending"
                    if row.step.no_reverse and row.status != "pending":
                        self.progress.kept(row.step.name, row.step.no_reverse)
                    else:
                        self.progress.done(row.step.name)
                self._pass_back(run, phase)
            # What was said to the run that is taken back does not hold the next one.
            held = control.read(run.conn, run.change.id).mode is not Mode.RUN
            if goal is State.PLANNED and held:
                control.say(run.conn, run.change.id, Mode.RUN, "rolled back")
                self._tell(EventKind.RESUME, run.change, {"reason": "rolled back"})
            self._set_state(run, goal, finished=False)
            return goal

    def _reverse(self, run: Run, row: StepRow, *, behind: bool) -> None:
        """Take a step back; `behind` others, what refuses it says that these stay."""
        try:
            self._execution.reverse(run, row)
        except Refused as error:
            if not behind:
                raise
            raise error.staying(_TAKEN_BACK) from error

    def _require_names(self, run: Run) -> None:
        """Refuse a way back that would look in vain for what another one renamed."""
        known = {cls.__name__ for cls in self.catalogue}
        others = (
            (other, self.pattern(other).renames())
            for other in store.changes(run.conn)
            if other.pattern in known
        )
        if run.change.pattern in known:
            final = self.pattern(run.change).final()
            made = [] if final is None else [k.name for k in final.keys]
            made += [] if final is None else final.besides
            way_back.require_names(run.conn, run.change, made, others)

    def _pass_back(self, run: Run, phase: Phase) -> None:
        """Enter that a phase is taken back whole: one that ends here holds nothing."""
        if phase is Phase.EXPAND:
            return
        change, (_, before) = run.change, NEXT[phase]
        state = min(change.state, before, key=lambda s: s.rank)
        with self._execution.short(run, f"{change.id} back to {state}"):
            store.set_state(run.conn, change.id, state, finished=False, told=False)
        run.change = store.get(run.conn, change.id)

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

        Raises:
            Held: the hold is not over, or another change in flight touches the same.
        """
        with self._held(change) as run:
            rows = store.steps(run.conn, run.change.id, ("parked",))
            if rows:
                self._require_unmirrored(run.conn, run.change)
            if not at_once:
                self._require_parked_due(run.conn, run.change.id, rows)
            for row in rows:
                self._execution.clear_parked(run, row)
            return len(rows)

    def require_parked_due(self, change: str) -> bool:
        """
        Tell whether anything is parked, before anybody is asked.

        Raises:
            Held: the hold is not over, or another change in flight touches the same.
        """
        with self._connected("migrator:status") as conn:
            row = self._current(conn, change)
            rows = store.steps(conn, row.id, ("parked",))
            with self._recorded(conn, row):
                if rows:
                    self._require_unmirrored(conn, row)
                self._require_parked_due(conn, row.id, rows)
            return bool(rows)

    def _require_unmirrored(self, conn: Connection, row: ChangeRow) -> None:
        """Hold the drop of what was parked while another change touches the same."""
        for other in waiting.in_the_way(store.changes(conn), row.id, row.footprints):
            raise Held(
                f"What the rollback of {row.id} parked may be part of what {other.id}"
                f" ({other.title}) is changing; that one is {other.stands}.",
                next=f"finish or roll back {other.id} first:"
                f" {waiting.road(other, self.settings.hold_s)}; then run the same"
                " command again.",
            )

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

    def rebuild(self, change: Change) -> None:
        """
        Bring the old shape back after the drop, where no release runs.

        It goes on where an earlier run stopped.

        Raises:
            Overlaps: another change in flight touches the same.
        """
        with self._held(change.id) as run:
            if run.change.finished:
                waiting.require_alone(run.change, store.changes(run.conn))
            # One that was cut off goes on with the steps that it entered.
            if run.change.going_back is None:
                self._begin_rebuild(run, change.pattern)
            for row in store.steps(run.conn, run.change.id):
                if row.status in ("pending", "running"):
                    self._execution.forward(run, row)
            back = store.steps(run.conn, run.change.id)
            self._set_state(run, State.PLANNED, finished=False, back=back)

    def _begin_rebuild(self, run: Run, pattern: Pattern) -> None:
        """Enter the steps that bring the old shape back, by facts from before them."""
        facts, change = self._facts_of(run.conn, run.change, missing=True), run.change
        again = [
            Step(name=f"{row.step.name}_{n}", work=work, no_reverse="upgrade again")
            for row in store.steps(run.conn, change.id)
            for n, work in enumerate(row.step.along, 1)
        ]
        steps = (*pattern.rebuild(facts), *again)
        with self._execution.short(run, f"rebuild of {change.id}"):
            if change.finished:
                waiting.require_alone(change, store.locked_changes(run.conn))
            store.add_steps(run.conn, change.id, Phase.DROP, steps)
            store.set_going_back(run.conn, change.id, State.PLANNED)
        run.change = store.get(run.conn, change.id)

    def _advance(self, change: str, phase: Phase) -> State:
        with self._forward(change) as run:
            if run.change.state.rank < phase.reaches.rank:
                control.require_running(run.conn, run.change.id)
                self._require(run.change, phase)
                self._phase(run, phase, self.pattern(run.change))
            return run.change.state

    @contextmanager
    def _forward(self, change: str) -> Iterator[Run]:
        """Hold a change that is carried on."""
        with self._held(change) as run:
            waiting.require_forward(run.change)
            yield run

    def _entered(self, conn: Connection, change: Change) -> ChangeRow:
        """Enter a change, or return what the ledger has of it."""
        pattern = change.pattern
        row = store.find(conn, change.id)
        stored = store.steps(conn, change.id)
        if row is not None and (row.begun or row.finished):
            self._require_unedited(change, row)
            has_run = not stored or any(s.status != "pending" for s in stored)
            held = row.going_back is not None or row.state is not State.PLANNED
            if has_run or held:
                return row
        # None has run: what came onto the table since goes along.
        known = store.changes(conn)
        missing = waiting.unfinished(known, change.requires, change.version_table)
        if missing:
            who = f"{change.id} ({pattern.title})"
            raise waiting.error(who, missing, self.settings.hold_s)
        facts = self._facts(conn, change)
        footprints = pattern.footprints(facts)
        others = waiting.in_the_way(known, change.id, footprints)
        if others:
            raise waiting.overlaps(change.id, others, self.settings.hold_s)
        self._checked(conn, pattern, facts)
        fresh = ChangeRow(
            id=change.id,
            tag=facts.tag,
            table=facts.table.name,
            footprints=footprints,
            title=pattern.title,
            pattern=type(pattern).__name__,
            parameters=pattern.parameters(),
            digest=pattern.digest(),
            state=State.PLANNED,
            state_at=_NEVER,
            finished=False,
        )
        with conn.transaction():
            store.forget_steps(conn, stored)
            store.add(conn, fresh)
            store.event(conn, change.id, "planned", title=pattern.title)
        return store.get(conn, change.id)

    def _require_hold(
        self, conn: Connection, since: datetime, what: str, command: str
    ) -> None:
        left = ask(
            conn,
            "SELECT $1::float8 - extract(epoch FROM clock_timestamp()"
            " - $2::timestamptz)::float8",
            [self.settings.hold_s, since],
        )
        if left > 0:
            until = since + timedelta(seconds=self.settings.hold_s)
            raise Held(
                f"What {what} is held until {moment(until)}, {duration(left)} left.",
                next="run the same command again then; a shorter hold is `migrator"
                f" --hold 1h {command}`.",
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


# Stands for the ledger's own clock until the row is there.
_NEVER = datetime.fromtimestamp(0, UTC)
