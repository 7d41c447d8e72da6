"""Bring a materialized view up to date while it is read.

phase     statement                                lock on the view
expand    REFRESH MATERIALIZED VIEW CONCURRENTLY   EXCLUSIVE, reads pass

The query runs into a temporary table, is compared with the view by a unique index, and
the rows that differ are exchanged, in one transaction. What it reads is locked ACCESS
SHARE all the while, and its snapshot keeps dead rows from being removed.

The catalogue does not tell that it ran: after a kill it runs again, which changes
nothing that is up to date. The one of the killed process is ended first.

Source: PostgreSQL manual, REFRESH MATERIALIZED VIEW.
"""

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from psycopg import sql

from migrator.errors import Refused
from migrator.facts import Facts, Kind
from migrator.pattern import Pattern
from migrator.plan import (
    Autocommit,
    Lock,
    Notice,
    Probe,
    State,
    Step,
    Steps,
    render,
)


@dataclass(frozen=True, slots=True)
class RefreshMaterializedView(Pattern):
    """
    Refresh `view`.

    Example:
        change = RefreshMaterializedView("sales_by_month")

    Args:
        view: the view's name, without its schema.
        schema: the view's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    reversible: ClassVar[str] = "never, the rows before are gone"
    kind: ClassVar[Kind] = Kind.VIEW

    view: str
    _: KW_ONLY
    schema: str | None = None
    assured: str = ""

    @property
    def subject(self) -> tuple[str, str | None]:
        """The view."""
        return self.view, self.schema

    @property
    def title(self) -> str:
        """One line that names the change."""
        return f'refresh materialized view "{self.view}"'

    @property
    def admission(self) -> State:
        """From expanded, which refreshes it."""
        return State.EXPANDED

    def columns(self) -> None:
        """Return None: all of it."""
        return

    def questions(self, facts: Facts) -> dict[str, Probe]:
        """Return whether it holds rows, and whether they can be told apart."""
        view = sql.Literal(str(facts.table.name))
        filled = sql.SQL(
            "SELECT relispopulated FROM pg_catalog.pg_class"
            " WHERE oid = pg_catalog.to_regclass({})"
        ).format(view)
        # What the server asks for: section REFRESH MATERIALIZED VIEW, CONCURRENTLY.
        unique = sql.SQL(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_index"
            " WHERE indrelid = pg_catalog.to_regclass({}) AND indisunique"
            " AND indimmediate AND indisvalid AND indpred IS NULL"
            " AND 0 <> ALL (indkey::int2[]))"
        ).format(view)
        return {
            "filled": Probe(statements=(), question=render(filled), otherwise="no"),
            "unique": Probe(statements=(), question=render(unique), otherwise="no"),
        }

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse a view that can only be refreshed while nobody reads it."""
        table = facts.table
        if table.kind != "m":
            raise Refused(
                f"{table.name} is no materialized view: there is nothing to refresh.",
                next="name one.",
            )
        if not table.owned:
            raise Refused(
                f"The role of this connection does not own view {table.name}.",
                next="connect as the owner, or as a member of the owner's role.",
            )
        if not facts.answers.get("filled", True):
            raise Refused(
                f"View {table.name} was never filled: nobody can read it, and the"
                " first time it cannot be refreshed beside readers.",
                next=f"run it once: REFRESH MATERIALIZED VIEW {table.name}.",
            )
        if not facts.answers.get("unique", True):
            raise Refused(
                f"View {table.name} has no unique index over columns alone, without"
                " WHERE: a refresh would lock out its readers.",
                next="make one first: CREATE UNIQUE INDEX CONCURRENTLY … ON"
                f" {table.name} (…).",
            )
        reads = (
            "What it reads cannot be altered while it runs, and what dies there"
            " meanwhile stays until its end: about as long as its query takes."
        )
        return (Notice(text=reads),)

    def expand(self, facts: Facts) -> Steps:
        """Return the refresh."""
        view = facts.table.name
        return (
            Step(
                name="refresh_view",
                work=Autocommit(
                    statement=render(
                        sql.SQL("REFRESH MATERIALIZED VIEW CONCURRENTLY {}").format(
                            view.identifier
                        )
                    ),
                    lock=Lock.EXCLUSIVE,
                    table=view,
                    scans=True,
                ),
                no_reverse="the rows that it replaced came from tables that have"
                " changed since; refreshed again, it is up to date",
                loses=True,
            ),
        )
