"""What every command of the engine shares: connections, leases, facts, patterns."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg

from migrator.change import Change
from migrator.errors import (
    LockBudgetError,
    MigratorError,
    Refused,
)
from migrator.execution import AGAIN, Execution, Run
from migrator.facts import Facts
from migrator.guard import Policy
from migrator.ledger import lease, store
from migrator.ledger.store import ChangeRow
from migrator.names import TableName
from migrator.pattern import Pattern
from migrator.patterns import CATALOGUE
from migrator.plan import (
    Notice,
)
from migrator.postgres import catalog
from migrator.postgres.connection import (
    RETRIED,
    Connection,
    Target,
    connect,
    require_primary,
    said,
    translated,
)
from migrator.progress import Progress, Silent
from migrator.settings import Settings

# How long a command waits for another process that changes the same thing.
LEASE_WAIT_S = 30.0


@dataclass(slots=True)
class Engine:
    """
    A database, and how it is worked on.

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

    def _current(self, conn: Connection, change: str) -> ChangeRow:
        row = store.get(conn, change)
        store.install(conn)
        return row

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

    def _require_unedited(self, change: Change, row: ChangeRow) -> None:
        """Refuse a pattern that is not the one the ledger works on."""
        if row.digest != change.pattern.digest():
            raise Refused(
                f"The pattern of {change.id} was edited while it is {row.state}.",
                next=f"put it back as it was, or `migrator rollback {row.id}` first.",
            )

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


def _thawed(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return a pattern's parameters as its constructor takes them."""
    return {k: v for k, v in parameters.items() if k != "_"}
