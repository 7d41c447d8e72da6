"""VACUUM and ANALYZE beside a backfill."""

import threading
import time

import psycopg
import pytest

from migrator.backfill import keeper, order, worker
from migrator.change import Change
from migrator.errors import Held
from migrator.ledger.control import Mode
from migrator.patterns import AddColumn
from migrator.runner import Runner
from migrator.settings import Settings

CHANGE = Change(revision="c", pattern=AddColumn("t", "n", "int", computed="id * 2"))


@pytest.fixture
def expanded(
    runner: Runner, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> Runner:
    """Give an engine with an expanded change on a table of many windows."""
    monkeypatch.setattr(order, "WINDOW_BLOCKS", 64)
    sql.execute(
        "CREATE TABLE t (id int PRIMARY KEY, pad text)"
        " WITH (autovacuum_enabled = false);"
        "INSERT INTO t SELECT g, repeat('x', 90) FROM generate_series(1, 40000) g"
    )
    runner.settings = Settings(chunking="blocks", target_ms=20)
    runner.expand(CHANGE)
    return runner


def vacuums(runner: Runner) -> list[dict[str, object]]:
    """Return what the log has of them."""
    return [e["detail"] for e in runner.events("c") if e["kind"] == "vacuum"]


def size(sql: psycopg.Connection) -> int:
    """Return the table's blocks."""
    row = sql.execute("SELECT pg_relation_size('t') / 8192").fetchone()
    assert row is not None
    return int(row[0])


def test_vacuum_makes_room_for_what_follows(
    expanded: Runner, sql: psycopg.Connection
) -> None:
    """After each tenth of the table; one pass over it does not double it."""
    before = size(sql)
    expanded.backfill("c")
    assert 8 <= len(vacuums(expanded)) <= 10
    assert all("seconds" in found for found in vacuums(expanded))
    assert size(sql) < 1.35 * before


def test_pages_with_room_need_no_vacuum(
    runner: Runner, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New versions stay in their pages: the table stays as large as it was."""
    monkeypatch.setattr(order, "WINDOW_BLOCKS", 64)
    sql.execute(
        "CREATE TABLE t (id int PRIMARY KEY, pad text)"
        " WITH (autovacuum_enabled = false, fillfactor = 45);"
        "INSERT INTO t SELECT g, repeat('x', 90) FROM generate_series(1, 40000) g"
    )
    runner.expand(CHANGE)
    before = size(sql)
    runner.backfill("c")
    assert vacuums(runner) == []
    assert size(sql) < 1.05 * before


def test_strides_need_no_vacuum(expanded: Runner, sql: psycopg.Connection) -> None:
    """What one pass leaves dead, the next one prunes."""
    expanded.settings = Settings(chunking="strides", target_ms=20)
    before = size(sql)
    expanded.backfill("c")
    assert vacuums(expanded) == []
    assert size(sql) < 1.35 * before


def test_vacuum_that_would_wait_for_a_snapshot_is_left_out(
    expanded: Runner, sql: psycopg.Connection, database: str
) -> None:
    """The log names who holds it."""
    with psycopg.connect(database, application_name="report") as old:
        old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT count(*) FROM t")
        expanded.backfill("c")
    skipped = [str(found.get("skipped")) for found in vacuums(expanded)]
    assert skipped
    assert all('(application "report", idle in transaction)' in s for s in skipped)
    left = sql.execute("SELECT count(*) FROM t WHERE n IS DISTINCT FROM id * 2")
    assert left.fetchone() == (0,)


def test_a_word_ends_a_vacuum(
    expanded: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that would take hours does not keep an abort waiting."""
    monkeypatch.setattr(keeper, "COST_DELAY", "100ms")
    monkeypatch.setattr(keeper, "COST_LIMIT", "1")
    failed: list[Held] = []

    def run() -> None:
        try:
            expanded.backfill("c")
        except Held as error:
            failed.append(error)

    other = Runner(expanded.target)
    thread = threading.Thread(target=run)
    thread.start()
    with psycopg.connect(
        **expanded.target.params, autocommit=True, application_name="test"
    ) as conn:
        for _ in range(500):
            at_work = conn.execute("SELECT FROM pg_stat_progress_vacuum").fetchone()
            if at_work is not None:
                break
            time.sleep(0.01)
    assert at_work is not None
    other.say("c", Mode.ABORT, "enough")
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert "enough" in str(failed[0])
    assert "canceling statement" in str(vacuums(expanded)[-1]["skipped"])


def test_statistics_before_and_after(expanded: Runner, sql: psycopg.Connection) -> None:
    """A table that was never analysed is, and so is the column that was filled."""
    known = (
        "SELECT array_agg(attname::text ORDER BY attname) FROM pg_stats"
        " WHERE tablename = 't'"
    )
    assert sql.execute(known.encode()).fetchone() == (None,)
    expanded.backfill("c")
    assert sql.execute(known.encode()).fetchone() == (["id", "n", "pad"],)
    nulls = "SELECT null_frac FROM pg_stats WHERE tablename = 't' AND attname = 'n'"
    assert sql.execute(nulls.encode()).fetchone() == (0,)


def test_one_pass_while_a_snapshot_is_held(
    expanded: Runner,
    sql: psycopg.Connection,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Strides make no room behind it, and come back when it is gone."""
    monkeypatch.setattr(worker, "HELD_S", 0.0)
    expanded.settings = Settings(chunking="strides", target_ms=20)
    passes: list[int] = []
    decided = worker.Worker._strides

    with psycopg.connect(database) as old:

        def strides(self: worker.Worker) -> range:
            found = decided(self)
            passes.append(len(found))
            if len(passes) == 2:
                old.rollback()
            return found

        monkeypatch.setattr(worker.Worker, "_strides", strides)
        old.execute("SELECT pg_current_xact_id()")
        expanded.backfill("c")
    assert passes[:2] == [1, 1]
    assert passes[-1] == 8
    left = sql.execute("SELECT count(*) FROM t WHERE n IS DISTINCT FROM id * 2")
    assert left.fetchone() == (0,)
