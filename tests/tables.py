"""What tests of patterns that move rows between tables share."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import psycopg
from backfill.live import wait_for

from migrator.facts import Facts, Index, IndexColumn
from migrator.pattern import Pattern
from migrator.plan import Phase
from migrator.progress import Silent
from migrator.runner import Runner

# ms that a chunk may wait, so that the one that waits is the one that goes on.
PATIENT_MS = 20_000


def rows(sql: psycopg.Connection, query: str) -> list[tuple[object, ...]]:
    """Return what a query gives."""
    return sql.execute(query.encode()).fetchall()


def waits(sql: psycopg.Connection) -> bool:
    """Tell whether a session waits for a lock."""
    return rows(
        sql,
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND datname = current_database())",
    ) == [(True,)]


def backfill_behind(
    runner: Runner,
    url: str,
    change: str,
    statement: str,
    *,
    meets: bool = True,
    go: Callable[[str], object] | None = None,
) -> None:
    """
    Backfill while a session has written a row, and commits once that is waited for.

    Args:
        runner: the engine.
        url: of the database.
        change: its id.
        statement: what the session writes.
        meets: whether a chunk comes to wait for it.
        go: what is done in place of the backfill.
    """
    runner.settings = replace(runner.settings, lock_timeout_ms=PATIENT_MS)
    failed: list[BaseException] = []

    def fill() -> None:
        try:
            (go or runner.backfill)(change)
        except BaseException as error:
            failed.append(error)

    with (
        psycopg.connect(url) as other,
        psycopg.connect(url, autocommit=True) as looking,
    ):
        other.execute(statement.encode())
        filling = threading.Thread(target=fill)
        filling.start()
        if meets:
            wait_for("a chunk that waits", lambda: waits(looking))
        other.commit()
        filling.join()
    assert not failed


@dataclass
class Requests:
    """
    Sessions of an application, each of which sends one statement again and again.

    Args:
        url: of the database.
        enough: how often each has to come through.
        deadlock_timeout: when one that waits looks for a deadlock; below the engine's
            lock_timeout, so that none is resolved by it.
    """

    url: str
    enough: int
    deadlock_timeout: str = "50ms"
    #: How often each statement came through.
    counted: list[int] = field(default_factory=list[int])
    failed: list[psycopg.Error] = field(default_factory=list[psycopg.Error])
    _threads: list[threading.Thread] = field(default_factory=list[threading.Thread])
    _stop: threading.Event = field(default_factory=threading.Event)

    def begin(self, *statements: str) -> None:
        """Begin to send statements; `{0}` in one is a key of 1 to 3."""
        for statement in statements:
            self.counted.append(0)
            given = (len(self.counted) - 1, statement)
            thread = threading.Thread(target=self._send, args=given)
            self._threads.append(thread)
            thread.start()

    def _send(self, place: int, statement: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as conn:
            conn.execute(f"SET deadlock_timeout = '{self.deadlock_timeout}'".encode())
            number = 0
            while not self._stop.is_set():
                number += 1
                try:
                    conn.execute(statement.format(number % 3 + 1).encode())
                    self.counted[place] += 1
                except psycopg.Error as error:
                    self.failed.append(error)

    def meet(self) -> None:
        """Wait until each statement came through often enough from now on."""
        seen = list(self.counted)
        wait_for(
            "requests of each",
            lambda: (
                min(c - s for c, s in zip(self.counted, seen, strict=True))
                >= self.enough
            ),
        )

    def end(self) -> None:
        """Send nothing any more."""
        self._stop.set()
        for thread in self._threads:
            thread.join()


@dataclass
class Between(Silent):
    """Does something when steps are done; the engine works on meanwhile."""

    then: dict[str, Callable[[], object]]

    def done(self, what: str) -> None:
        """Do it once."""
        self.then.pop(what, int)()


def unique_index(name: str, column: str) -> Index:
    """Return a unique index on a column."""
    return Index(
        name=name,
        method="btree",
        keys=(IndexColumn(name=column),),
        unique=True,
        columns=(column,),
    )


def texts_of(pattern: Pattern, facts: Facts) -> list[str]:
    """Return the statements of all transactions of a pattern."""
    return [
        statement
        for phase in Phase
        for step in pattern.steps(phase, facts)
        for statement in getattr(step.work, "statements", ())
    ]
