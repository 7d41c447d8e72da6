"""Locks, settings of the role and deadlocks in mid-backfill."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import psycopg
import pytest

from backfill.live import (
    CHANGE,
    ROWS,
    SETUP,
    AfterRows,
    assert_whole,
    number,
    running,
    wait_for,
)
from migrator.errors import LockBudgetError
from migrator.runner import Runner
from migrator.settings import Settings

WAYS = ["blocks", "strides", "keys"]
SETTINGS = Settings(target_ms=5, step_budget_s=15, hold_s=0)


def expanded(runner: Runner, sql: psycopg.Connection, way: str) -> Runner:
    """Return the engine, with its change expanded and a way over the table."""
    sql.execute(SETUP.encode())
    runner.settings = replace(SETTINGS, chunking=way)
    runner.expand(CHANGE)
    return runner


@contextmanager
def open_at_last(gate: threading.Event) -> Iterator[None]:
    """Open a gate after the block, whatever happened."""
    try:
        yield
    finally:
        gate.set()


@contextmanager
def queued(
    sql: psycopg.Connection, database: str, held: str
) -> Iterator[psycopg.Connection]:
    """Hold the table in an application's transaction, with a waiter behind it."""
    with (
        psycopg.connect(database, application_name="billing") as holder,
        psycopg.connect(database, application_name="other ddl") as waiter,
    ):
        holder.execute(held.encode())
        thread = threading.Thread(
            target=waiter.execute, args=(b"LOCK TABLE t IN ACCESS EXCLUSIVE MODE",)
        )
        thread.start()
        seen = (
            "SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass"
            " AND mode = 'AccessExclusiveLock' AND NOT granted"
        )
        wait_for("a waiter", lambda: number(sql, seen) == 1)
        try:
            yield holder
        finally:
            holder.rollback()
            thread.join()
            waiter.rollback()


@contextmanager
def behind(database: str, sql: psycopg.Connection) -> Iterator[None]:
    """Let a statement of the application stand in the queue, at its end."""
    with psycopg.connect(database, autocommit=True) as app:
        pid = app.info.backend_pid
        thread = threading.Thread(target=canceled, args=(app,))
        thread.start()
        waits = (
            "SELECT count(*) FROM pg_stat_activity"
            f" WHERE wait_event_type = 'Lock' AND pid = {pid}"
        )
        try:
            wait_for("the application's wait", lambda: number(sql, waits) == 1)
            yield
        finally:
            app.cancel_safe()
            thread.join()


def canceled(app: psycopg.Connection) -> None:
    """Run a statement that is to be canceled."""
    with suppress(psycopg.errors.QueryCanceled):
        app.execute("SELECT FROM t LIMIT 1")


BLOCKED_BY_US = (
    "SELECT count(*) FROM pg_stat_activity a, unnest(pg_blocking_pids(a.pid)) b"
    " JOIN pg_stat_activity e ON e.pid = b"
    " WHERE e.application_name LIKE 'migrator:%'"
    " AND a.application_name NOT LIKE 'migrator:%'"
)
OUR_WAITS = (
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    " AND application_name LIKE 'migrator:%' AND datname = current_database()"
)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("before", ["a window", "a chunk", "a pass"])
def test_a_lock_queue(
    runner: Runner, sql: psycopg.Connection, database: str, way: str, before: str
) -> None:
    """Behind an ACCESS EXCLUSIVE waiter it tries again, and nobody waits for it."""
    engine = expanded(runner, sql, way)
    arrived, queue = threading.Event(), threading.Event()

    def stand() -> None:
        if before == "a pass":
            # In the order of blocks a pass begins anew in another file.
            sql.execute("VACUUM FULL t")
        arrived.set()
        queue.wait()

    engine.progress = AfterRows(0 if before == "a window" else ROWS // 4, stand)
    with running(engine) as run, open_at_last(queue):
        arrived.wait()
        with queued(sql, database, "SELECT FROM t LIMIT 1"):
            queue.set()
            # Twice at least it stands in the queue, and leaves it.
            for _ in range(2):
                wait_for("a try", lambda: number(sql, OUR_WAITS) > 0 or run.ended)
                with behind(database, sql):
                    assert number(sql, BLOCKED_BY_US) == 0
                wait_for("the end of a try", lambda: number(sql, OUR_WAITS) == 0)
            assert not run.ended
    assert run.error is None
    counted = None if before == "a pass" else ROWS
    assert_whole(engine, sql, counted=counted)


@pytest.mark.parametrize("way", WAYS)
def test_a_lock_held_for_the_whole_budget(
    runner: Runner, sql: psycopg.Connection, database: str, way: str
) -> None:
    """It gives up with the place it stands at, and goes on from there."""
    engine = expanded(runner, sql, way)
    engine.settings = replace(engine.settings, step_budget_s=1)
    with psycopg.connect(database) as other:
        engine.progress = AfterRows(ROWS // 4, lambda: other.execute("LOCK TABLE t"))
        with running(engine) as run:
            run.thread.join(timeout=20)
            alive = run.thread.is_alive()
            other.rollback()
    assert not alive
    assert isinstance(run.error, LockBudgetError)
    assert "rows locked for 1 s" in str(run.error)
    assert_whole(engine, sql)


class Application:
    """Transactions that update rows from the last to the first."""

    TURNS, KEYS = 100, 8

    def __init__(self, database: str, seed: int) -> None:
        self.errors: list[str] = []
        self.database, self.seed = database, seed
        self.thread = threading.Thread(target=self._work)
        self.thread.start()

    def _work(self) -> None:
        with psycopg.connect(self.database) as conn:
            for turn in range(self.TURNS):
                last = ROWS - (self.seed + turn * 197) % 1000
                try:
                    for number in range(self.KEYS):
                        update(conn, last - number * 2500)
                    conn.commit()
                except psycopg.Error as error:
                    self.errors.append(str(error))
                    conn.rollback()


def update(conn: psycopg.Connection, key: int) -> None:
    """Update a row as the application does."""
    conn.execute("UPDATE t SET pad = pad || 'y' WHERE id = %s", [key])


@pytest.mark.parametrize(
    ("way", "looks", "lock_timeout_ms"),
    [
        *((way, "1s", 200) for way in WAYS),
        # Where requests look sooner, or a person lets chunks wait for longer.
        ("blocks", "200ms", 200),
        ("blocks", "1s", 5000),
    ],
)
def test_rows_updated_in_the_opposite_order(
    runner: Runner,
    sql: psycopg.Connection,
    database: str,
    way: str,
    looks: str,
    lock_timeout_ms: int,
) -> None:
    """The application is never the victim of a deadlock, and gets no other error."""
    engine = expanded(runner, sql, way)
    engine.settings = replace(
        engine.settings,
        target_ms=100,
        step_budget_s=60,
        lock_timeout_ms=lock_timeout_ms,
    )
    name = sql.info.dbname
    sql.execute(f"ALTER DATABASE {name} SET deadlock_timeout = '{looks}'".encode())
    with (
        psycopg.connect(database) as first,
        psycopg.connect(database) as second,
    ):
        # The chunk holds row 1 and waits for `first`; `second` waits for row 1.
        # Then `first` is gone, and the chunk comes to wait for `second`.
        update(first, 300)
        update(second, 450)
        failed: list[str] = []

        def go_on() -> None:
            try:
                update(second, 1)
                second.commit()
            except psycopg.Error as error:
                failed.append(str(error))

        with running(engine) as run:
            wait_for("a chunk that waits", lambda: number(sql, OUR_WAITS) > 0)
            waiter = threading.Thread(target=go_on)
            waiter.start()
            apps = [Application(database, seed) for seed in (0, 500)]
            wait_for(
                "the application behind it",
                lambda: number(sql, BLOCKED_BY_US) > 0 or not waiter.is_alive(),
            )
            first.commit()
            for thread in (waiter, *(app.thread for app in apps)):
                thread.join(timeout=60)
    assert failed == []
    assert [app.errors for app in apps] == [[], []]
    assert run.error is None
    # Not one of its writes is lost.
    wrote = number(sql, "SELECT sum(length(pad) - 120) FROM t")
    assert wrote == 3 + 2 * Application.TURNS * Application.KEYS
    assert_whole(engine, sql, counted=None)
