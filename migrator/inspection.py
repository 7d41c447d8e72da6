"""Looking at changes, and speaking to them while they run."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from psycopg import sql

from migrator import waiting
from migrator.backfill.bounds import bounds
from migrator.change import Change
from migrator.engine import Engine
from migrator.errors import MigratorError, NotThere, Overlaps, Refused, UsageError
from migrator.events import EventKind
from migrator.facts import Facts
from migrator.guard import Entry, record
from migrator.guard.signal import Subject
from migrator.guard.watch import unavailable
from migrator.ledger import control, installation, lease, mismatches, samples, store
from migrator.ledger.control import Control, Limits, Mode
from migrator.ledger.mismatches import Mismatch
from migrator.ledger.samples import Speed
from migrator.ledger.store import ChangeRow, StepRow
from migrator.plan import (
    ChunkedCheck,
    ChunkedUpdate,
    Notice,
    Phase,
    Plan,
    State,
    Step,
    render,
)
from migrator.postgres import blocking
from migrator.postgres.connection import Connection, ask

_SAID = {
    Mode.RUN: EventKind.RESUME,
    Mode.PAUSE: EventKind.PAUSE,
    Mode.ABORT: EventKind.ABORT,
}
_ANY_ROW = sql.SQL("SELECT EXISTS (SELECT FROM {})")


_ALL_TABLES = (
    "SELECT pg_catalog.string_agg(pg_catalog.quote_ident(pubname), ', ')"
    " FROM pg_catalog.pg_publication WHERE puballtables"
)


def _published(conn: Connection) -> tuple[Notice, ...]:
    """Return a note where a publication has all tables, those of the record too."""
    found = ask(conn, _ALL_TABLES)
    if found is None:
        return ()
    return (
        Notice(
            text=f"Publication {found} has all tables, and so those of the record in"
            ' schema "migrator" and each that a change makes. A subscriber stops that'
            " lacks them: make them there first (pg_dump --schema-only"
            " --schema=migrator), or let the publication name its tables."
        ),
    )


@dataclass(slots=True)
class Inspection(Engine):
    """What takes no lease, and moves nothing."""

    def plan(self, change: Change) -> Plan:
        """
        Return all phases of a change, from today's facts; nothing is written.

        Raises:
            Refused: the change cannot work on this database.
        """
        with self._connected("migrator:plan") as conn:
            row = store.find(conn, change.id)
            if row is not None and row.in_flight:
                self._require_unedited(change, row)
                return self._plan_in_flight(conn, change, row)
            known = store.changes(conn)
            missing = waiting.unfinished(known, change.requires, change.version_table)
            try:
                facts = self._facts(conn, change)
                notices = self._checked(conn, change.pattern, facts)
                phases = {p: change.pattern.steps(p, facts) for p in Phase}
            except Refused as error:
                if not missing:
                    raise
                # It is written for what the others leave.
                raise waiting.error(
                    f"{change.id} ({change.pattern.title}) cannot be planned yet"
                    f" ({error.what.rstrip('.')}): it",
                    missing,
                    self.settings.hold_s,
                ) from error
            if missing:
                text = f"It waits until {waiting.told(missing)}."
                notices += (Notice(text=text),)
            elif others := waiting.in_the_way(
                known, change.id, change.pattern.footprints(facts)
            ):
                held = waiting.overlaps(change.id, others, self.settings.hold_s)
                notices += (Notice(text=f"{held.what} Next: {held.next}"),)
            steps = [step for phase in phases.values() for step in phase]
            notices += self._unwatched(conn, facts, steps)
            notices += _published(conn)
            return Plan(
                change=change.id,
                title=change.pattern.title,
                table=facts.table.name,
                rows=facts.table.rows,
                size_bytes=facts.table.size_bytes,
                admission=change.pattern.admission,
                kind=change.pattern.kind.value,
                notices=notices,
                others={t.name: t.rows for t in facts.others},
                phases=phases,
            )

    def held_by(self, change: Change) -> Overlaps | None:
        """
        Return what keeps a change from being expanded that has not begun.

        Raises:
            Refused: it cannot work on this database, or not yet.
        """
        with self._connected("migrator:plan") as conn:
            known = store.changes(conn)
            if not any(row.in_flight for row in known):
                return None
            footprints = change.pattern.footprints(self._facts(conn, change))
            others = waiting.in_the_way(known, change.id, footprints)
            if not others:
                return None
            return waiting.overlaps(change.id, others, self.settings.hold_s)

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
        left = [
            step
            for phase, steps in phases.items()
            if phase.reaches.rank > row.state.rank
            for step in steps
        ]
        return Plan(
            change=row.id,
            title=row.title,
            table=row.table,
            rows=facts.table.rows,
            size_bytes=facts.table.size_bytes,
            admission=change.pattern.admission,
            kind=change.pattern.kind.value,
            notices=self._unwatched(conn, facts, left),
            others={t.name: t.rows for t in facts.others},
            phases=phases,
        )

    def refusal(self, change: Change) -> Refused | None:
        """
        Return why a change cannot work here, by the facts of today alone.

        What it names and the database does not have comes first. Nothing is tried out,
        and no privilege is asked for: who only reads the catalogue can tell it.

        Returns:
            None where nothing is wrong, and where it cannot be told.
        """
        try:
            with self._connected("migrator:lint") as conn:
                facts = self._facts(conn, change, whole=False)
        except NotThere as error:
            return error
        except MigratorError:
            # What a role may not see, or a lock keeps, is the plan's to say.
            return None
        try:
            change.pattern.check(facts)
            for phase in Phase:
                change.pattern.steps(phase, facts)
        except Refused as error:
            return error
        except MigratorError:
            return None
        return None

    def is_filled(self, change: Change) -> bool:
        """Tell whether a table that has columns of a change's domain has rows."""
        with self._connected("migrator:look") as conn:
            facts = self._facts(conn, change)
            return any(
                ask(conn, render(_ANY_ROW.format(table.name.identifier)))
                for table in facts.others
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

    def is_compared(self, change: str) -> bool | None:
        """
        Tell whether a verified change was compared since it last became so.

        Returns:
            False where it was taken back from retired since, or is not verified;
            None where it has nothing to compare.
        """
        with self._connected("migrator:status") as conn:
            row = store.get(conn, change)
            rows = store.steps(conn, row.id, ("done", "reversed", "parked"))
        if row.state is not State.VERIFIED:
            return False
        checks = [
            s.status_at
            for s in rows
            if s.status == "done" and isinstance(s.step.work, ChunkedCheck)
        ]
        back = [
            s.status_at for s in rows if s.status != "done" and s.phase is Phase.RETIRE
        ]
        return all(max(checks) > at for at in back) if checks else None

    def is_at_work(self, change: str) -> bool:
        """Tell whether a process, on any machine, works on a change just now."""
        with self._connected("migrator:status") as conn:
            return lease.is_at_work(conn, store.get(conn, change).id)

    def speed(self, step: StepRow) -> Speed | None:
        """Return how fast a chunked step goes, None where that is not known yet."""
        with self._connected("migrator:status") as conn:
            installation.install(conn)
            return samples.speed(conn, step.id)

    def mismatches(self, change: str, *, last: bool = False) -> list[Mismatch]:
        """
        Return the rows that verifications found out of step, the latest first.

        Args:
            change: its id, or the beginning of it.
            last: whether to leave out what an earlier comparison found.
        """
        with self._connected("migrator:status") as conn:
            return mismatches.of(conn, self._current(conn, change).id, last=last)

    def events(self, change: str | None) -> list[dict[str, Any]]:
        """Return the event log."""
        with self._connected("migrator:log") as conn:
            if change is None:
                return store.events(conn, None)
            # What a plain revision was allowed stands under its own id.
            return store.events(conn, change) or store.events(
                conn, store.get(conn, change).id
            )

    def verdict(self, change: str) -> Entry | None:
        """
        Return what signals say to a change whose rows are gone over just now.

        Returns:
            The last verdict; None where no process is at it.
        """
        with self._connected("migrator:status") as conn:
            row = store.get(conn, change)
            running = store.steps(conn, row.id, ("running",))
            if not any(
                isinstance(s.step.work, ChunkedUpdate | ChunkedCheck) for s in running
            ) or not lease.is_at_work(conn, row.id):
                return None
            return record.last(conn, row.id)

    def _unwatched(
        self, conn: Connection, facts: Facts, steps: Sequence[Step]
    ) -> tuple[Notice, ...]:
        """Return a note on each signal that cannot be read while rows are moved."""
        if not any(isinstance(s.work, ChunkedUpdate | ChunkedCheck) for s in steps):
            return ()
        subject = Subject(table=facts.table.leaves[0].name)
        return tuple(
            Notice(text=f'Signal "{name}" is not watched: {why}.')
            for name, why in unavailable(conn, self.guard, subject)
        )

    # -- live control ----------------------------------------------------

    def say(self, change: str, mode: Mode, reason: str) -> ChangeRow:
        """
        Pause, abort or resume a change's chunks, wherever they run.

        Args:
            change: its id, or the beginning of it.
            mode: what its workers are to do from the next chunk on.
            reason: recorded, and shown by who waits.

        Returns:
            The change; nothing is entered where it is finished, since nothing runs.
        """
        with self._connected("migrator:control") as conn:
            row = self._current(conn, change)
            if row.finished and mode is not Mode.RUN:
                return row
            control.say(conn, row.id, mode, reason)
            detail = {"by": control.read(conn, row.id).actor, "reason": reason}
            self._tell(_SAID[mode], row, detail)
            return row

    def limit(self, change: str, limits: Limits | None) -> ChangeRow:
        """
        Limit a change's backfill from the next chunk on.

        Args:
            change: its id, or the beginning of it.
            limits: those that are None stay; None takes all of them back.

        Returns:
            The change; nothing is entered where it is finished, since nothing runs.

        Raises:
            UsageError: chunks as long as that would be cut on this server.
        """
        with self._connected("migrator:control") as conn:
            row = self._current(conn, change)
            if limits is None:
                control.unlimited(conn, row.id)
            elif row.finished:
                return row
            else:
                self._require_effect(conn, limits)
                control.limit(conn, row.id, limits)
            said = control.read(conn, row.id)
            detail = {"by": said.actor, "off": limits is None, **asdict(said.limits)}
            self._tell(EventKind.THROTTLE, row, detail)
            return row

    def _require_effect(self, conn: Connection, limits: Limits) -> None:
        """Refuse a length of chunks that a worker would not take over."""
        wanted = limits.target_ms
        if wanted is None:
            return
        deadlock_ms = blocking.deadlock_timeout_ms(conn)
        may = bounds(wanted, self.settings.lock_timeout_ms, deadlock_ms)
        if may.target_ms < wanted:
            raise UsageError(
                f"Chunks of {wanted:g} ms would be cut to {may.target_ms:g} ms: this"
                f" server's deadlock_timeout is {deadlock_ms} ms, and a request could"
                " be ended for a longer one.",
                next=f"give --target-ms {int(may.target_ms)} or less.",
            )

    def said(self, change: str) -> Control:
        """Return what was said to a change."""
        with self._connected("migrator:status") as conn:
            installation.install(conn)
            return control.read(conn, change)
