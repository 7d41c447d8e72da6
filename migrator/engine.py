"""What every command of the engine shares: connections, leases, facts, patterns."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import psycopg

from migrator import edits
from migrator.change import Change
from migrator.errors import (
    Held,
    LockBudgetError,
    MigratorError,
    Refused,
    TimeIsUp,
)
from migrator.events import Event, EventKind, Listeners
from migrator.execution import AGAIN, Execution, Run
from migrator.facts import Domain, Facts, Kind, Table
from migrator.guard import Policy, Watch
from migrator.kernels import reading, typed
from migrator.kernels.privileges import require_create
from migrator.ledger import installation, lease, store
from migrator.ledger.store import ChangeRow
from migrator.names import TableName
from migrator.pattern import Pattern
from migrator.patterns import CATALOGUE
from migrator.plan import (
    Lock,
    Notice,
    Phase,
)
from migrator.postgres import catalog, subjects, trials
from migrator.postgres.blocking import advice, blockers_of
from migrator.postgres.connection import (
    RETRIED,
    Connection,
    Target,
    connect,
    require_primary,
    said,
    transaction,
    translated,
)
from migrator.progress import Progress, Silent
from migrator.settings import Settings

# How long a command waits for another process that changes the same thing.
LEASE_WAIT_S = 30.0
# Seconds between two tries to read a table that is locked; each waits for the lock
# already.
PAUSE_S = 0.2

Read = TypeVar("Read")


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
        listeners: who is told what happens; by default whom pyproject.toml names.
        watches: what is watched of each change, where a command has several runs; None
            where each has its own.
    """

    target: Target
    settings: Settings = field(default_factory=Settings)
    progress: Progress = field(default_factory=Silent)
    catalogue: tuple[type[Pattern], ...] = CATALOGUE
    guard: Policy = field(default_factory=Policy)
    listeners: Listeners = field(default_factory=Listeners.of_project)
    watches: dict[str, Watch] | None = None

    @property
    def _execution(self) -> Execution:
        return Execution(
            self.settings,
            self.progress,
            self.guard,
            self._tell,
            self.listeners.progress_every_s,
        )

    def _tell(self, kind: EventKind, row: ChangeRow, detail: Mapping[str, Any]) -> None:
        """Tell what happened to a change, once it is committed."""
        event = _event(kind, row, detail)
        self.listeners.tell(event, self._untold)

    def _ask(self, kind: EventKind, row: ChangeRow) -> None:
        """
        Ask before a phase begins whether it may.

        Raises:
            Held: a listener says no.
        """
        event = _event(kind, row, {})
        why = self.listeners.ask(event, self._untold)
        if why is not None:
            raise Held(
                f"{row.id} is held by a listener, asked {kind}: {why}",
                next="do what it asks for, then run the same command again.",
            )

    def _untold(self, event: Event, why: str) -> None:
        """Enter into the log that a listener failed."""
        conn = connect(self.target, "migrator:events")
        try:
            store.event(conn, event.change, "listener", event=event.kind, error=why)
        finally:
            conn.close()

    @property
    def _lease_wait_s(self) -> float:
        return self.settings.within(LEASE_WAIT_S)

    def _current(self, conn: Connection, change: str) -> ChangeRow:
        row = store.get(conn, change)
        installation.install(conn)
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

    def _facts(self, conn: Connection, change: Change, *, whole: bool = True) -> Facts:
        """Return a change's facts; `whole` refuses one with values to be given."""
        if whole:
            change.pattern.require_plain()
        pattern = change.pattern
        table = subjects.named(conn, pattern.kind, *pattern.subject)
        return self._read(conn, table, change.tag(table), change.pattern)

    def _facts_of(
        self, conn: Connection, row: ChangeRow, *, missing: bool = False
    ) -> Facts:
        """Return today's facts of a change; `missing` lets the table be gone."""
        pattern = self.pattern(row)
        # A change may give its table another name.
        places = pattern.places(row.table, row.tag)
        there = (
            place for place in places if subjects.stands(conn, pattern.kind, place)
        )
        table = next(there, None)
        if table is None and not missing and pattern.kind is Kind.TABLE:
            raise Refused(
                f"Table {row.table} of {row.id} is gone.",
                next="put it back under its name; where it is gone for good,"
                f" `migrator reconcile {row.id}` tells how the change ends.",
            )
        table = table or row.table
        return self._read(
            conn, table, row.tag, pattern, origin=row.table, missing=missing
        )

    def _read(
        self,
        conn: Connection,
        table: TableName,
        tag: str,
        pattern: Pattern,
        *,
        origin: TableName | None = None,
        missing: bool = False,
    ) -> Facts:
        missing = missing or pattern.kind is not Kind.TABLE
        bare = pattern.kind in (Kind.DOMAIN, Kind.FUNCTION, Kind.SETTING)

        def facts() -> Facts:
            with transaction(
                conn,
                lock_timeout_ms=self.settings.lock_timeout_ms,
                statement_timeout_ms=int(self.settings.step_budget_s * 1000),
                what=f"Facts of table {table}",
            ):
                domain = None
                if pattern.kind is Kind.DOMAIN:
                    domain = subjects.domain_facts(conn, table)
                first = (
                    Table(name=table, oid=0, columns=())
                    if bare or (missing and not subjects.exists(conn, table))
                    else catalog.table_facts(conn, table)
                )
                return Facts(
                    server_version=conn.info.server_version,
                    table=first,
                    others=_others(conn, pattern, first, domain),
                    domain=domain,
                    made={
                        made: catalog.table_facts(conn, made)
                        for made in pattern.makes(table, tag)
                        if subjects.exists(conn, made)
                    },
                    superuser=catalog.is_superuser(conn),
                    may_create=catalog.may_create(conn, table.schema),
                    default_grantees=catalog.default_grantees(conn, table.schema),
                    tag=tag,
                    origin=origin,
                    relation_names=catalog.relation_names(conn, table.schema),
                    chunking=self.settings.chunking,
                    oldest_snapshot=catalog.oldest_snapshot(conn),
                    cache_bytes=catalog.cache_bytes(conn),
                    path=catalog.search_path(conn),
                    definition=subjects.definition(conn, pattern.kind, table),
                    attached=subjects.attached(conn, pattern.kind, table),
                )

        found = self._patiently(conn, table, facts)
        lock_ms = self.settings.lock_timeout_ms
        answers = {
            name: self._patiently(
                conn,
                table,
                partial(trials.holds, conn, question, lock_timeout_ms=lock_ms),
            )
            for name, question in pattern.questions(found).items()
        }
        texts = {
            name: self._patiently(
                conn,
                table,
                partial(trials.reads, conn, reading, lock_timeout_ms=lock_ms),
            )
            for name, reading in pattern.readings(found).items()
        }
        spelt = {name: text for name, text in texts.items() if text is not None}
        return replace(found, answers=answers, texts=spelt)

    def _checked(
        self, conn: Connection, pattern: Pattern, facts: Facts
    ) -> tuple[Notice, ...]:
        notices = pattern.check(facts)
        reading.require_callable(pattern.title, facts)
        if not facts.may_create or typed.tables(facts):
            steps = [s for p in Phase for s in pattern.steps(p, facts)]
            require_create(pattern.title, pattern.kind, facts, steps)
            typed.require_untyped(pattern.title, facts, steps)
        lock_ms = self.settings.lock_timeout_ms
        given = pattern.parameters()
        for probe in pattern.probes(facts):
            trial: Callable[[], Any] = partial(
                trials.try_out, conn, probe, lock_timeout_ms=lock_ms, given=given
            )
            if probe.notice:
                trial = partial(trials.reads, conn, probe, lock_timeout_ms=lock_ms)
            found = self._patiently(conn, facts.table.name, trial)
            if probe.notice and found:
                notices += (Notice(text=probe.notice.replace("{found}", found)),)
        return notices

    def _patiently(
        self, conn: Connection, table: TableName, read: Callable[[], Read]
    ) -> Read:
        """
        Return what a query of a table reads, tried again while the table is locked.

        Its size, and a trial of an expression, wait for ACCESS EXCLUSIVE.

        Raises:
            LockBudgetError: it stays locked; names who holds it.
        """
        deadline = time.monotonic() + self.settings.step_budget_s
        while True:
            try:
                return read()
            except RETRIED as error:
                found = blockers_of(conn, table, Lock.ACCESS_SHARE)
                names = dict.fromkeys(map(str, found))
                held = f"held by {'; '.join(names)}" if names else "locked"
                if time.monotonic() > deadline:
                    raise LockBudgetError(
                        f"Table {table} could not be read within"
                        f" {self.settings.step_budget_s:.0f} s: {held}.",
                        state="Nothing was changed.",
                        next=advice(found),
                    ) from error
                self.progress.waiting(f"table {table} is {held}")
                time.sleep(PAUSE_S)

    def _require_unedited(self, change: Change, row: ChangeRow) -> None:
        """Refuse a pattern that is not the one the ledger works on."""
        if found := edits.compared(change, row):
            raise found.refusal()

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
                    wait_s=self._lease_wait_s,
                    tell=self.progress.waiting,
                ) as mine,
                self._recorded(conn, row),
            ):
                yield self._run(conn, mine, store.get(conn, row.id))

    def _run(self, conn: Connection, mine: lease.Lease, row: ChangeRow) -> Run:
        watches = {} if self.watches is None else self.watches
        return Run(self.target, conn, mine, row, watches)

    @contextmanager
    def _recorded(self, conn: Connection, row: ChangeRow) -> Iterator[None]:
        """Enter into the log what a command failed of, where that is possible."""
        try:
            yield
        except TimeIsUp:
            raise
        except MigratorError as error:
            kind = EventKind.HELD if isinstance(error, Held) else EventKind.FAILED
            with suppress(psycopg.Error):
                store.event(conn, row.id, kind, error=error.what)
            self._tell(kind, row, {"error": error.what})
            raise


def _event(kind: EventKind, row: ChangeRow, detail: Mapping[str, Any]) -> Event:
    return Event(
        kind=kind,
        change=row.id,
        title=row.title,
        table=(row.table.schema, row.table.name),
        detail=detail,
    )


def _others(
    conn: Connection, pattern: Pattern, first: Table, domain: Domain | None
) -> tuple[Table, ...]:
    """Return the facts of the further tables, asked for until there are no more."""
    if domain is not None:
        used = dict.fromkeys(table for table, _ in domain.columns)
        return tuple(catalog.table_facts(conn, table) for table in used)
    read = {first.name: first}
    others: tuple[Table, ...] = ()
    while True:
        wanted = [subjects.resolve(conn, *o) for o in pattern.others((first, *others))]
        fresh = [name for name in wanted if name not in read]
        read |= {name: catalog.table_facts(conn, name) for name in fresh}
        others = tuple(read[name] for name in wanted)
        if not fresh:
            return others


def _thawed(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return a pattern's parameters as its constructor takes them."""
    return {k: v for k, v in parameters.items() if k != "_"}
