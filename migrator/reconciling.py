"""Brings the ledger up to what the schema shows, where that was made without it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from migrator.change import Change
from migrator.errors import Held, Refused, UsageError
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
    """

    change: Change
    row: ChangeRow | None
    applied: bool
    differences: tuple[str, ...] = ()
    untold: str = ""
    refused: str = ""
    left_over: tuple[str, ...] = ()
    superseded: str = ""

    @property
    def known(self) -> bool:
        """Whether the ledger knows what was done of it."""
        return self.row is not None and (self.row.begun or self.row.finished)

    @property
    def shape(self) -> str:
        """Which shape the schema has, in one word."""
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

        Args:
            change: one that the ledger does not know.
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
            ):
                seen = self.look(change, later, applied=applied)
                require(seen, state, assured)
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


def require(seen: Seen, state: State, assured: str) -> None:
    """
    Refuse to enter what the schema does not show.

    Raises:
        Refused: it shows something else.
        Held: it does not show all of it, and nobody gives a word.
    """
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
