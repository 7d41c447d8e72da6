"""The two-release harness: two clients, each in its window, and a probe.

A pattern joins by a `Scenario`: how its table is made, the change, and what its
releases write and read. Clients own nothing and connect as a role of their own.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg

from migrator.change import Change
from migrator.ledger import installation
from migrator.pattern import Pattern
from migrator.plan import State
from migrator.postgres.connection import Target, connect
from migrator.runner import Runner
from migrator.settings import Settings

ROWS = 20_000
# Rows that one client writes; they are its own, so that it knows what they hold.
OWN_ROWS = 200
CLIENTS = 2
# Pause between two requests of the probe.
PROBE_S = 0.01
# The lock budget of a step, and what a loaded machine of two cores adds: the
# step's own statements, a checkpoint, a thread that waits for its turn.
LOCK_MS = 200
SLACK_MS = 500
# The states to go back from, and the traffic at each.
STOPS = (State.EXPANDED, State.BACKFILLED, State.VERIFIED, State.RETIRED)
STOP_S = 0.3

APP = "migrator_test_app"
MAKE_APP = (
    f"DO $$ BEGIN IF to_regrole('{APP}') IS NULL THEN CREATE ROLE {APP}; END IF; END $$"
)


@dataclass(frozen=True)
class Release:
    """What a release sends; `%(id)s` and `%(value)s` are its parameters."""

    update: str
    select: str
    insert: str
    #: What a row holds, by the release's own names, after a write of a value.
    reads: Callable[[str], object] = str


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A pattern with its table and its two releases."""

    name: str
    setup: str
    pattern: Pattern
    old: Release
    new: Release
    #: Counts rows that are out of step while both sides are there.
    apart: str | None = None
    #: The state that expand reaches: those before it have no steps of their own, so
    #: that going back from them is going back from it.
    expands_to: State = State.EXPANDED

    @property
    def stops(self) -> tuple[State, ...]:
        """The states to go back from."""
        return tuple(s for s in STOPS if s.rank >= self.expands_to.rank)

    def make_small(self, sql: psycopg.Connection) -> None:
        """Make the tables with few rows, where no client is at work."""
        sql.execute(MAKE_APP.encode())
        sql.execute(self.setup.replace(str(ROWS), "300").encode())


@dataclass
class Client:
    """One connection of a release, at work in a thread."""

    url: str
    release: Release
    first: int
    written: dict[int, object] = field(default_factory=dict[int, object])
    failures: list[str] = field(default_factory=list[str])
    slowest_ms: float = 0.0
    #: Of each request: when it began, by time.perf_counter, and how long it took.
    took: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    requests: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Send requests until stopped."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the request under way."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as conn:
            conn.execute(f"SET ROLE {APP}".encode())
            while not self._stop.wait(PROBE_S):
                began = time.perf_counter()
                try:
                    self._request(conn)
                except psycopg.Error as error:
                    self.failures.append(str(error).split("\n")[0])
                ms = (time.perf_counter() - began) * 1000
                self.slowest_ms = max(self.slowest_ms, ms)
                self.took.append((began, ms))

    def _request(self, conn: psycopg.Connection) -> None:
        self.requests += 1
        value = str(self.first + self.requests)
        key = self.first + self.requests % OWN_ROWS
        if self.requests % 5 == 0:
            row = conn.execute(
                self.release.insert.encode(), {"value": value}, prepare=True
            ).fetchone()
            assert row is not None
            self.written[row[0]] = self.release.reads(value)
            return
        args = {"id": key, "value": value}
        conn.execute(self.release.update.encode(), args, prepare=True)
        self.written[key] = self.release.reads(value)
        self._read(conn, key)

    def _read(self, conn: psycopg.Connection, key: int) -> None:
        found = conn.execute(
            self.release.select.encode(), {"id": key}, prepare=True
        ).fetchone()
        wanted = self.written[key]
        if found != (wanted,):
            self.failures.append(f"row {key} holds {found}, written was {wanted!r}")

    def check(self, conn: psycopg.Connection) -> None:
        """Read all that was written once more."""
        for key in self.written:
            self._read(conn, key)


@dataclass
class Harness:
    """A scenario on a database, with its engine and its clients."""

    scenario: Scenario
    url: str
    runner: Runner
    old: list[Client] = field(default_factory=list[Client])
    new: list[Client] = field(default_factory=list[Client])

    @classmethod
    def make(
        cls, scenario: Scenario, url: str, runner: Runner | None = None
    ) -> "Harness":
        """Make the table, the role and the clients."""
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute(scenario.setup.encode())
            conn.execute(MAKE_APP.encode())
            conn.execute(
                "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public"
                f" TO {APP}".encode()
            )
        made = cls(
            scenario,
            url,
            runner
            or Runner(
                Target.from_url(url),
                Settings(hold_s=0, lock_timeout_ms=LOCK_MS, step_budget_s=20),
            ),
        )
        for number in range(CLIENTS):
            made.old.append(Client(url, scenario.old, 1 + number * OWN_ROWS))
            first = 1 + (CLIENTS + number) * OWN_ROWS
            made.new.append(Client(url, scenario.new, first))
        return made

    @contextmanager
    def at_work(self, clients: list[Client]) -> Iterator[None]:
        """Let clients work, a while longer than what is done meanwhile."""
        for client in clients:
            client.start()
        try:
            time.sleep(STOP_S)
            yield
            time.sleep(STOP_S)
        finally:
            for client in clients:
                client.stop()

    def check(self, clients: list[Client]) -> None:
        """Assert that no request of clients failed, stalled or was lost."""
        with psycopg.connect(self.url, autocommit=True) as conn:
            for client in clients:
                client.check(conn)
                assert client.failures == [], client.failures
                assert client.requests > 0
                assert client.slowest_ms < LOCK_MS + SLACK_MS

    def side_by_side(self) -> None:
        """Let both releases work, in step from the beginning to the end."""
        self.in_step()
        with self.at_work(self.old + self.new):
            pass
        self.check(self.old + self.new)
        self.in_step()

    def in_step(self) -> None:
        """Assert that both sides are equal."""
        if self.scenario.apart is not None:
            with psycopg.connect(self.url) as conn:
                row = conn.execute(self.scenario.apart.encode()).fetchone()
            assert row == (0,)

    def shape(self) -> list[tuple[object, ...]]:
        """Return columns, indexes, constraints and triggers of the table."""
        with psycopg.connect(self.url) as conn:
            return conn.execute(
                "SELECT 'c', attname, format_type(atttypid, atttypmod),"
                " attnotnull::text, pg_get_expr(adbin, adrelid) FROM pg_attribute"
                " LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum"
                " WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped"
                " UNION ALL SELECT 'i', indexrelid::regclass::text,"
                " pg_get_indexdef(indexrelid), indisvalid::text, NULL FROM pg_index"
                " WHERE indrelid = 't'::regclass"
                " UNION ALL SELECT 'k', conname, pg_get_constraintdef(oid),"
                " convalidated::text, NULL"
                " FROM pg_constraint WHERE conrelid = 't'::regclass"
                # A foreign key's bear its number, which is another one each time.
                " UNION ALL SELECT 't', tgname, pg_get_triggerdef(oid), NULL, NULL"
                " FROM pg_trigger WHERE tgrelid = 't'::regclass AND NOT tgisinternal"
                " UNION ALL SELECT 'f', proname, NULL, NULL, NULL FROM pg_proc"
                " WHERE pronamespace = 'migrator'::regnamespace"
                " AND proname LIKE 'mirror%' ORDER BY 1, 2"
            ).fetchall()


def live(harness: Harness, back_from: State) -> None:
    """
    Carry a change to a state, under traffic, and take it back from there.

    Args:
        harness: fresh.
        back_from: expanded to retired. From retired it goes back to verified, where
            both releases work again, and then all the way forward.

    Raises:
        AssertionError: a request failed, stalled or was lost, the sides differ,
            or the shape after the rollback is not that before.
    """
    runner, pattern = harness.runner, harness.scenario.pattern
    old, new = harness.old, harness.new
    change = Change(revision="two", pattern=pattern)
    with connect(runner.target, "migrator:test") as conn:
        installation.install(conn)
    before = harness.shape()
    state = State.PLANNED
    with harness.at_work(old):
        for wanted, go in (
            (State.EXPANDED, lambda: runner.expand(change)),
            (State.BACKFILLED, lambda: runner.backfill(change.id)),
            (State.VERIFIED, lambda: runner.verify(change.id)),
        ):
            if state.rank < wanted.rank:
                state = go()
            if wanted is State.EXPANDED:
                assert state is harness.scenario.expands_to
            if back_from is wanted:
                break
    harness.check(old)
    if back_from.rank >= State.VERIFIED.rank:
        harness.side_by_side()
    if back_from is State.RETIRED:
        for go in (
            lambda: runner.retire(change.id, old_release_gone="stopped"),
            lambda: runner.rollback(change.id, to=State.VERIFIED),
        ):
            with harness.at_work(new):
                go()
            harness.check(new)
        harness.side_by_side()
        with harness.at_work(new):
            runner.retire(change.id, old_release_gone="stopped")
            runner.drop(change.id)
        harness.check(new)
        return
    with harness.at_work(old):
        runner.rollback(change.id, to=State.PLANNED)
    runner.drop_parked(change.id)
    harness.check(old)
    assert harness.shape() == before
