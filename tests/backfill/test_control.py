"""Pause, resume, abort and throttle work on a backfill that runs elsewhere."""

import time
from math import inf, nan

import psycopg
import pytest

from backfill.live import running, wait_for
from migrator.backfill import order
from migrator.change import Change
from migrator.errors import Held, UsageError
from migrator.guard import Policy
from migrator.ledger.control import Limits, Mode
from migrator.patterns import AddColumn
from migrator.plan import State
from migrator.progress import Silent
from migrator.runner import Runner
from migrator.settings import Settings

CHANGE = Change(revision="c", pattern=AddColumn("t", "n", "int", computed="id * 2"))
ROWS = 40_000


@pytest.fixture
def other(runner: Runner, sql: psycopg.Connection) -> Runner:
    """Give the engine of another machine; the change is expanded."""
    sql.execute(
        "CREATE TABLE t (id int PRIMARY KEY, pad text);"
        f"INSERT INTO t SELECT g, repeat('x', 400) FROM generate_series(1, {ROWS}) g"
    )
    runner.settings = Settings(target_ms=10)
    # People alone hold it here; a busy machine would as well.
    runner.guard = Policy(observe=True)
    runner.expand(CHANGE)
    return Runner(runner.target, Settings())


def filled(sql: psycopg.Connection) -> int:
    """Return how many rows are filled."""
    row = sql.execute("SELECT count(*) FROM t WHERE n = id * 2").fetchone()
    assert row is not None
    return int(row[0])


def at_work(sql: psycopg.Connection) -> None:
    """Wait until some rows are filled."""
    for _ in range(200):
        if filled(sql):
            return
        time.sleep(0.02)
    pytest.fail("nothing was filled")


def test_pause_and_resume(
    runner: Runner, other: Runner, sql: psycopg.Connection
) -> None:
    """Paused within a chunk, the same process goes on when resumed."""
    other.limit("c", Limits(max_rows_per_s=20_000))
    with running(runner) as run:
        at_work(sql)
        other.say("c", Mode.PAUSE, "closing")
        time.sleep(0.3)
        before = filled(sql)
        time.sleep(0.7)
        assert filled(sql) == before < ROWS
        assert other.said("c").said == 'paused by postgres: "closing"'
        with pytest.raises(Held, match="c is held: paused by postgres"):
            other.settle("c")
        other.limit("c", None)
        other.say("c", Mode.RUN, "")
    assert run.error is None
    assert filled(sql) == ROWS
    kinds = [e["kind"] for e in runner.events("c")]
    assert [k for k in kinds if k in ("throttle", "pause", "run")] == [
        "throttle",
        "pause",
        "throttle",
        "run",
    ]


def test_abort_ends_it_and_holds_it(
    runner: Runner, other: Runner, sql: psycopg.Connection
) -> None:
    """What was committed stays; it goes on after resume."""
    other.limit("c", Limits(max_rows_per_s=20_000))
    with running(runner) as run:
        at_work(sql)
        other.say("c", Mode.ABORT, "wrong")
    assert isinstance(run.error, Held)
    assert 'c was aborted by postgres: "wrong"' in str(run.error)
    assert 0 < filled(sql) < ROWS
    with pytest.raises(Held, match="migrator resume c"):
        runner.backfill("c")
    other.say("c", Mode.RUN, "")
    other.limit("c", None)
    assert runner.backfill("c") is State.BACKFILLED
    assert filled(sql) == ROWS


def test_abort_then_rollback(
    runner: Runner, other: Runner, sql: psycopg.Connection
) -> None:
    """An aborted change can be taken back, and begins anew unheld."""
    other.say("c", Mode.ABORT, "wrong")
    assert runner.rollback("c") is State.PLANNED
    (resumed,) = [e for e in runner.events("c") if e["kind"] == "run"]
    assert resumed["detail"] == {"reason": "rolled back"}
    runner.expand(CHANGE)
    assert runner.settle("c") is State.VERIFIED


@pytest.mark.parametrize("workers", [1, 3])
def test_rows_per_second_are_kept(
    runner: Runner, other: Runner, sql: psycopg.Connection, workers: int
) -> None:
    """By all workers together, and until the limit is taken back."""
    runner.settings = Settings(target_ms=10, workers=workers)
    other.limit("c", Limits(max_rows_per_s=8_000))
    with running(runner):
        at_work(sql)
        before, began = filled(sql), time.monotonic()
        time.sleep(1.5)
        rate = (filled(sql) - before) / (time.monotonic() - began)
        other.limit("c", None)
    # A chunk more or less of those that are under way when it is read.
    assert 1_000 < rate < 12_000
    assert filled(sql) == ROWS


def test_wal_per_second_is_kept(
    runner: Runner, other: Runner, sql: psycopg.Connection
) -> None:
    """Above the limit the backfill waits, and says why."""
    other.limit("c", Limits(max_wal_bytes_per_s=1_000_000))
    with running(runner):
        at_work(sql)
        lsn = sql.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
        assert lsn is not None
        time.sleep(2)
        wal = sql.execute(
            "SELECT pg_current_wal_insert_lsn() - %s::pg_lsn", [lsn[0]]
        ).fetchone()
        other.limit("c", None)
    assert wal is not None
    assert wal[0] < 6_000_000
    assert filled(sql) == ROWS


def test_workers_are_added_and_taken_away(
    runner: Runner,
    other: Runner,
    sql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From the next chunk on, however large a window is; what they leave is done."""
    # One for each of them: about 25 s at this rate.
    monkeypatch.setattr(order, "WINDOW_BLOCKS", 800)
    other.limit("c", Limits(max_rows_per_s=1_600, workers=3))
    windows = "SELECT count(*) FROM migrator.windows WHERE token <> 0"

    def held() -> int:
        row = sql.execute(windows.encode()).fetchone()
        assert row is not None
        return int(row[0])

    with running(runner) as run:
        wait_for("three at work", lambda: held() == 3 or run.ended)
        other.limit("c", Limits(workers=1))
        told = time.monotonic()
        wait_for("one at work", lambda: held() == 1 or run.ended)
        assert time.monotonic() - told < 5
        for _ in range(10):
            assert held() <= 1
            time.sleep(0.05)
        assert not run.ended
        assert filled(sql) < ROWS
        other.limit("c", Limits(workers=2))
        wait_for("two at work", lambda: held() == 2 or run.ended)
        assert not run.ended
        other.limit("c", None)
    assert run.error is None
    assert filled(sql) == ROWS


@pytest.mark.parametrize("name", ["max_rows_per_s", "max_wal_bytes_per_s", "workers"])
def test_a_limit_of_nothing_is_refused(name: str) -> None:
    """Under it nothing could go on: that is what a pause is for."""
    for value, shown in ((0, "0"), (nan, "nan"), (inf, "inf")):
        with pytest.raises(UsageError, match=f"{name} is {shown}"):
            Limits(**{name: value})


def test_nothing_is_said_to_what_is_finished(runner: Runner, other: Runner) -> None:
    """No run of it is held by a word, so that status names none."""
    runner.settings = Settings(hold_s=0)
    runner.settle("c")
    runner.retire("c", old_release_gone="test")
    runner.drop("c")
    assert other.change("c").finished
    other.say("c", Mode.ABORT, "too late")
    other.limit("c", Limits(workers=2))
    assert (other.said("c").mode, other.said("c").limits) == (Mode.RUN, Limits())


class Sizes(Silent):
    """A progress that keeps the sizes of chunks, in blocks of one pass."""

    def __init__(self) -> None:
        self.blocks: list[float] = []

    def advance(self, done: float, rows: int, seconds: float) -> None:
        """Keep it."""
        self.blocks.append(done)


def test_a_length_that_would_not_take_effect_is_refused(
    runner: Runner, other: Runner
) -> None:
    """A request could be ended for such chunks; the limits stay as they were."""
    other.limit("c", Limits(target_ms=300, workers=2))
    with pytest.raises(UsageError) as refused:
        other.limit("c", Limits(target_ms=500, workers=3))
    assert str(refused.value) == (
        "Chunks of 500 ms would be cut to 300 ms: this server's deadlock_timeout is"
        " 1000 ms, and a request could be ended for a longer one.\nNothing was changed."
        "\nNext: give --target-ms 300 or less."
    )
    assert other.said("c").limits == Limits(target_ms=300, workers=2)


def test_chunks_are_fitted_to_the_wal_limit(runner: Runner, other: Runner) -> None:
    """One is not larger than what may be written in a second."""
    runner.progress = sizes = Sizes()
    runner.settings = Settings(target_ms=200, chunking="blocks")
    # 40,000 rows of 430 bytes: about 9 kB of WAL a block.
    other.limit("c", Limits(max_wal_bytes_per_s=400_000))
    with running(runner):
        time.sleep(4)
        few = list(sizes.blocks)
        other.limit("c", Limits(max_wal_bytes_per_s=1e9, target_ms=200))
    assert len(few) >= 4
    # Each chunk is at most twice the one before it.
    assert max(few) <= 90
    assert max(sizes.blocks) > 100


def test_a_run_begins_where_the_last_one_was(
    runner: Runner, other: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first chunk is half of the last run's, not the smallest one."""
    monkeypatch.setattr(order, "WINDOW_BLOCKS", 512)
    runner.progress = sizes = Sizes()
    runner.settings = Settings(target_ms=200, chunking="blocks")
    other.limit("c", Limits(max_rows_per_s=20_000, target_ms=200))
    with running(runner):
        while sum(sizes.blocks) < 520:
            time.sleep(0.02)
        other.say("c", Mode.ABORT, "enough")
    other.say("c", Mode.RUN, "")
    other.limit("c", None)
    sizes.blocks.clear()
    runner.backfill("c")
    assert sizes.blocks[0] > order.FIRST_BLOCKS
