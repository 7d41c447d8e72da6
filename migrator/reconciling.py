"""Brings the ledger up to what the schema shows, where that was made without it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from psycopg import sql

from migrator.change import Change
from migrator.errors import Held, Refused, UsageError
from migrator.execution import Run
from migrator.facts import Kind, Table
from migrator.final import Final
from migrator.history import shared
from migrator.ledger import installation, lease, store
from migrator.ledger.store import ChangeRow
from migrator.names import TableName
from migrator.pattern import Undecided
from migrator.plan import State
from migrator.postgres import catalog, subjects
from migrator.postgres.connection import Connection, ask, require_primary
from migrator.runner import Runner

# Of a pattern that says nothing of its end.
UNTOLD = Final(untold="whether it was done")
# Stands for the ledger's own clock until the row is there.
_NEVER = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """
    What the ledger says of a change, and what the schema shows.

    Args:
        change: the change.
        row: what the ledger has of it; None where it has nothing.
        applied: whether its revision is applied.
        differences: what is otherwise than at its end.
        untold: what of its end the catalogue does not tell; "" where it tells all.
        refused: why it cannot begin on this schema; "" where it can.
        left_over: what it owned for a while, and is still there.
        superseded: a later change of the same, finished by the ledger: then this one
            was finished before it, and its shape is gone; "" where there is none.
        gone: whether the ledger has it in flight while its table is not there.
    """

    change: Change
    row: ChangeRow | None
    applied: bool
    differences: tuple[str, ...] = ()
    untold: str = ""
    refused: str = ""
    left_over: tuple[str, ...] = ()
    superseded: str = ""
    gone: bool = False

    @property
    def open(self) -> bool:
        """Whether there is something to enter."""
        return self.gone or (self.applied and not self.known)

    @property
    def known(self) -> bool:
        """Whether the ledger knows what was done of it."""
        return self.row is not None and (self.row.begun or self.row.finished)

    @property
    def shape(self) -> str:
        """Which shape the schema has, in one word."""
        if self.gone:
            return "gone"
        if self.left_over:
            return "between"
        if self.superseded or (not self.differences and not self.untold):
            return "final"
        if not self.refused and (self.differences or self.untold == UNTOLD.untold):
            return "old"
        return "neither" if self.differences else "untold"


@dataclass(slots=True)
class Reconciler(Runner):
    """A runner that enters what it has not run."""

    def look(self, change: Change, later: Sequence[Change], *, applied: bool) -> Seen:
        """
        Return what the ledger says of a change, and what the schema shows.

        Args:
            change: the change.
            later: changes that come after it in the history.
            applied: whether its revision is applied.
        """
        with self._connected("migrator:reconcile") as conn:
            rows = {row.id: row for row in store.changes(conn)}
            seen = Seen(change=change, row=rows.get(change.id), applied=applied)
            if seen.row is not None and self._is_gone(conn, seen.row):
                left = catalog.left_over(conn, seen.row.tag)
                return replace(seen, gone=True, left_over=tuple(left))
            if seen.known or not applied:
                return seen
            if isinstance(change.pattern, Undecided):
                refused = change.pattern.refusal().what
                return replace(seen, untold=UNTOLD.untold, refused=refused)
            finished = (c for c in later if c.id in rows and rows[c.id].finished)
            over = next((c.id for c in finished if shared(change, c)), "")
            name, table = self._table(conn, change)
            left = catalog.left_over(conn, change.tag(name))
        final = change.pattern.final() or UNTOLD
        refused = ""
        try:
            self.plan(replace(change, requires=()))
        except Refused as error:
            refused = error.what
        return replace(
            seen,
            differences=tuple(final.differences(table)) if final != UNTOLD else (),
            untold=final.untold,
            refused=refused,
            left_over=tuple(left),
            superseded=over,
        )

    def _is_gone(self, conn: Connection, row: ChangeRow) -> bool:
        """Tell whether a change is in flight and none of its tables is there."""
        pattern = self.pattern(row)
        if not row.in_flight or pattern.kind is not Kind.TABLE:
            return False
        places = (
            row.table,
            *pattern.places(row.table, row.tag),
            *pattern.makes(row.table, row.tag),
        )
        return not any(subjects.exists(conn, place) for place in places)

    def _table(
        self, conn: Connection, change: Change
    ) -> tuple[TableName, Table | None]:
        """Return the whole name of a change's table, and the table if it is there."""
        pattern = change.pattern
        name, schema = pattern.subject
        try:
            found = subjects.named(conn, pattern.kind, name, schema)
        except Refused:
            first = schema or ask(conn, "SELECT pg_catalog.current_schema()")
            return TableName(first or "public", name), None
        if pattern.kind is not Kind.TABLE or not subjects.exists(conn, found):
            return found, None
        return found, catalog.table_facts(conn, found)

    def enter(
        self,
        change: Change,
        later: Sequence[Change],
        state: State,
        *,
        applied: bool,
        assured: str = "",
    ) -> ChangeRow:
        """
        Enter a change that was not run here, once the schema is seen to have its shape.

        One that was, and whose table is gone for good, ends as dropped.

        Args:
            change: one that the ledger does not know, or whose table is gone.
            later: changes that come after it in the history.
            state: dropped, where the final shape is in place; planned, where the old
                one is.
            applied: whether its revision is applied.
            assured: why what the catalogue does not tell is so.

        Raises:
            Refused: the schema has another shape.
            Held: another process is at it.
        """
        if state not in (State.DROPPED, State.PLANNED):
            raise UsageError(
                f"A change is entered as dropped or planned, not as {state}.",
                next="give --as dropped or --as planned.",
            )
        change.pattern.require_plain()
        with self._connected("migrator:reconcile") as conn:
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
                seen = self.look(change, later, applied=applied)
                require(seen, state, assured)
                if seen.gone and seen.row is not None:
                    self._end(Run(self.target, conn, mine, seen.row), assured)
                    return store.get(conn, change.id)
                name, _ = self._table(conn, change)
                pattern = change.pattern
                row = ChangeRow(
                    id=change.id,
                    tag=change.tag(name),
                    table=name,
                    # Nothing of it is in flight; where it begins, facts tell.
                    footprints=(),
                    title=pattern.title,
                    pattern=type(pattern).__name__,
                    parameters=pattern.parameters(),
                    digest=pattern.digest(),
                    state=State.PLANNED,
                    state_at=_NEVER,
                    finished=False,
                )
                with conn.transaction():
                    store.add(conn, row)
                    store.event(
                        conn,
                        change.id,
                        "reconciled",
                        state=state.value,
                        assured=assured,
                        superseded=seen.superseded,
                    )
                    if state is State.DROPPED:
                        store.set_state(conn, change.id, state, finished=True)
            return store.get(conn, change.id)

    def _end(self, run: Run, assured: str) -> None:
        """End a change whose table is gone, and drop its trigger's functions."""
        ended, dropped = run.change.id, State.DROPPED
        with self._execution.short(run, f"The end of {ended}"):
            for function in catalog.functions(run.conn, run.change.tag):
                run.conn.execute(sql.SQL("DROP FUNCTION {}()").format(function))
            for step in store.steps(run.conn, ended):
                store.set_status(run.conn, ended, step, "reversed", told=False)
            store.event(
                run.conn,
                ended,
                "reconciled",
                state=State.DROPPED.value,
                assured=assured,
            )
            store.set_state(run.conn, ended, dropped, finished=True)


def require(seen: Seen, state: State, assured: str) -> None:
    """
    Refuse to enter what the schema does not show.

    Raises:
        Refused: it shows something else.
        Held: it does not show all of it, and nobody gives a word.
    """
    if seen.gone:
        _require_ended(seen, state, assured)
        return
    if seen.known:
        assert seen.row is not None
        # What was run, which the file may tell otherwise by now.
        raise Refused(
            f"{seen.row.id} ({seen.row.title}) is {seen.row.state} by the ledger, which"
            " ran it.",
            next=f"`migrator status {seen.row.id}` names the next step.",
        )
    who = f"{seen.change.id} ({seen.change.pattern.title})"
    if not seen.applied:
        raise Refused(
            f"{who} is not entered: its revision is not applied.",
            next="run it: `migrator expand`; or `alembic stamp` it first, where the"
            " schema has its shape already.",
        )
    if seen.left_over:
        raise Refused(
            f"{who} was under way when this schema was copied: it left"
            f" {', '.join(seen.left_over)}.",
            next="copy the schema `migrator` with its rows as well, and go on; or take"
            " these away by hand, so that the old or the final shape is left.",
        )
    if state is State.PLANNED:
        if seen.refused:
            raise Refused(
                f"{who} is not entered as planned: {seen.refused}",
                next="where its final shape is in place, give --as dropped.",
            )
        if seen.shape == "final":
            raise Refused(
                f"{who} is not entered as planned: its final shape is in place.",
                next="give --as dropped.",
            )
        return
    if seen.superseded:
        return
    if seen.differences:
        raise Refused(
            f"{who} is not entered as dropped: {'; '.join(seen.differences)}.",
            next="give --as planned, where the old shape is in place, and expand it;"
            " else bring the schema into one of the two shapes by hand.",
        )
    if seen.untold and not assured:
        raise Held(
            f"{who} is not entered as dropped: the catalogue does not tell"
            f" {seen.untold}.",
            next='look at it, and give --assured "reason"; it is kept in the log.',
        )


def _require_ended(seen: Seen, state: State, assured: str) -> None:
    """Refuse to end a change whose table is gone; errors as in `require`."""
    assert seen.row is not None
    what = (
        f"{seen.row.id} ({seen.row.title}) is {seen.row.state} by the ledger, and table"
        f" {seen.row.table} is gone"
    )
    if seen.left_over:
        raise Refused(
            f"{what}, but not {', '.join(seen.left_over)}.",
            next="drop what is left, then run the same command again.",
        )
    if state is not State.DROPPED:
        raise Refused(f"{what}.", next="give --as dropped.")
    if not assured:
        raise Held(
            f"{what}.",
            next="put it back; or, where it is gone for good, give --assured"
            ' "reason": the change ends then, and the reason is kept in the log.',
        )
