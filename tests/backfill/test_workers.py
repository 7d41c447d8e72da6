"""Several workers on one backfill: each window is done by one, and done."""

import threading
import time
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from backfill.live import AfterRows, fill_step, running, wait_for
from migrator.change import Change
from migrator.errors import Failed, LockBudgetError
from migrator.ledger import windows
from migrator.ledger.control import Limits
from migrator.ledger.lease import held
from migrator.ledger.windows import Advance
from migrator.patterns import AddColumn
from migrator.plan import State
from migrator.postgres.connection import Target, connect
from migrator.progress import Silent
from migrator.runner import Runner
from migrator.settings import Settings

CHANGE = Change(revision="c", pattern=AddColumn("t", "n", "int", computed="id * 2"))
ROWS = 60_000


@pytest.fixture
def expanded(runner: Runner, sql: psycopg.Connection) -> Runner:
    """Give an engine of three workers, and a change that is expanded."""
    sql.execute(
        "CREATE TABLE t (id int PRIMARY KEY, pad text);"
        f"INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(1, {ROWS}) g"
    )
    runner.settings = Settings(workers=3, target_ms=20, step_budget_s=2)
    runner.expand(CHANGE)
    return runner


def filled(sql: psycopg.Connection) -> int:
    """Return how many rows are filled as they should be."""
    row = sql.execute("SELECT count(*) FROM t WHERE n = id * 2").fetchone()
    assert row is not None
    return int(row[0])


def test_a_worker_that_fails_ends_the_others_and_the_next_run_goes_on(
    expanded: Runner, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first error is told; windows that were held are done by the next run."""
    advance, calls = windows.advance, iter(range(1000))
    threads = threading.active_count()

    def failing(*args: Any) -> int | None:
        if next(calls) == 5:
            raise Failed("disk is full")
        return advance(*args)

    with monkeypatch.context() as patch:
        patch.setattr(windows, "advance", failing)
        with pytest.raises(Failed, match="disk is full"):
            expanded.backfill("c")
    assert threading.active_count() == threads
    assert filled(sql) < ROWS
    assert expanded.backfill("c") is State.BACKFILLED
    assert filled(sql) == ROWS


def test_locked_rows_end_all_workers_with_their_blocks(
    expanded: Runner, sql: psycopg.Connection, database: str
) -> None:
    """The error names the blocks; what others did stays."""
    with psycopg.connect(database) as other:
        other.execute("SELECT FROM t WHERE id = 300 FOR UPDATE")
        with pytest.raises(LockBudgetError, match=r"rows locked for .* s: blocks"):
            expanded.backfill("c")
    expanded.backfill("c")
    assert filled(sql) == ROWS


def begun(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return the step of a backfill whose first chunk failed."""

    def failing(*_: Any) -> bool:
        raise Failed("at once")

    with monkeypatch.context() as patch:
        patch.setattr(windows, "advance", failing)
        with pytest.raises(Failed, match="at once"):
            runner.backfill("c")
    return next(s.id for s in runner.steps("c") if s.step.name == "fill_rows")


def test_a_window_goes_to_one_worker(
    expanded: Runner, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two claims get different windows; a dead holder's is given to another."""
    step = begun(expanded, monkeypatch)
    target = Target.from_url(database)
    with (
        connect(target, "one") as one,
        connect(target, "two") as two,
        held(target, one, "a", seconds=5, wait_s=0) as first,
        held(target, two, "b", seconds=5, wait_s=0) as second,
    ):
        windows.begin(one, step, 100, 0)
        with one.transaction():
            a = windows.claim(one, step, 10, first.token)
        with two.transaction():
            b = windows.claim(two, step, 10, second.token)
        assert a is not None
        assert b is not None
        assert (a.start, a.stop, b.start) == (0, 10, 10)
        # The first one dies: its lease runs out.
        one.execute(
            "UPDATE migrator.leases SET expires_at = '-infinity' WHERE token = %s",
            (first.token,),
        )
        with two.transaction():
            again = windows.claim(two, step, 10, second.token)
        assert again is not None
        assert (again.start, again.stop) == (0, 10)
        # It was only slow: what it does now does not count.
        assert not windows.advance(one, a, Advance(rows=1))
        assert not windows.finish(one, a)
        assert windows.advance(two, again, Advance(rows=1))


def test_a_window_that_is_left_late_is_done_with_fewer_workers(
    expanded: Runner, sql: psycopg.Connection, database: str
) -> None:
    """A process on another machine dies when all else is done or given out."""
    target = Target.from_url(database)
    expanded.settings = replace(expanded.settings, workers=2)
    expanded.limit("c", Limits(workers=1))
    with (
        connect(target, "helper") as conn,
        held(target, conn, "c helper 1", seconds=60, wait_s=0) as lease,
    ):

        def take() -> None:
            step = fill_step(expanded).id
            with conn.transaction():
                assert windows.claim(conn, step, 100, lease.token)

        expanded.progress = AfterRows(0, take)
        with running(expanded) as run:
            held_by = "SELECT array_agg(token) FROM migrator.windows"
            wait_for(
                "only its window is left",
                lambda: (
                    filled(sql) > ROWS * 3 // 4
                    and sql.execute(held_by).fetchone() == ([lease.token],)
                ),
            )
            assert not run.ended
            conn.execute(
                "UPDATE migrator.leases SET expires_at = '-infinity' WHERE token = %s",
                (lease.token,),
            )
    assert run.error is None
    assert filled(sql) == ROWS


class Counted(Silent):
    """A progress that counts rows."""

    rows = 0

    def advance(self, done: float, rows: int, seconds: float) -> None:
        """Count a chunk's rows."""
        self.rows += rows


def test_another_process_joins(expanded: Runner, sql: psycopg.Connection) -> None:
    """Both work on windows of their own; each row is done once."""
    sql.execute(
        "INSERT INTO t SELECT g, repeat('x', 900) FROM generate_series(%s, %s) g",
        [ROWS + 1, 2 * ROWS],
    )
    first = replace(expanded, progress=Counted(), settings=Settings(target_ms=10))
    second = replace(expanded, progress=Counted(), settings=Settings(target_ms=10))
    assert not second.join("c")
    expanded.limit("c", Limits(max_rows_per_s=60_000))
    thread = threading.Thread(target=first.backfill, args=("c",))
    thread.start()
    for _ in range(100):
        # Later rows were filled as they came, by the trigger.
        if filled(sql) > ROWS:
            break
        time.sleep(0.02)
    assert second.join("c")
    thread.join(timeout=60)
    assert filled(sql) == 2 * ROWS
    (step,) = (s for s in expanded.steps("c") if s.step.name == "fill_rows")
    assert isinstance(first.progress, Counted)
    assert isinstance(second.progress, Counted)
    assert first.progress.rows + second.progress.rows == step.rows == ROWS
    assert second.progress.rows > 0
    leases = sql.execute("SELECT scope FROM migrator.leases").fetchall()
    assert leases == [("c",)]


@pytest.mark.parametrize("dies", [False, True])
def test_whoever_comes_ends_with_a_verified_change(
    expanded: Runner, sql: psycopg.Connection, dies: bool
) -> None:
    """It waits for what it cannot help with, and goes on where the other one died."""

    class Dying(Silent):
        rows = 0

        def advance(self, done: float, rows: int, seconds: float) -> None:
            self.rows += rows
            if dies and self.rows > ROWS / 4:
                raise Failed("killed")

    first = replace(expanded, progress=Dying(), settings=Settings(target_ms=10))
    expanded.limit("c", Limits(max_rows_per_s=20_000))
    errors: list[Failed] = []

    def run() -> None:
        try:
            first.settle("c")
        except Failed as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    for _ in range(200):
        if filled(sql):
            break
        time.sleep(0.02)
    second = replace(expanded, progress=Counted(), settings=Settings(target_ms=10))
    assert second.settle("c") is State.VERIFIED
    thread.join(timeout=60)
    assert bool(errors) is dies
    assert filled(sql) == ROWS
