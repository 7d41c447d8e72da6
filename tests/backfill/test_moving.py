"""Rows that move, appear and vanish while a table is gone over by its blocks."""

import psycopg
import pytest

from backfill.live import (
    CHANGE,
    ROWS,
    SETUP,
    AfterRows,
    assert_whole,
    filled,
    number,
    running,
    wait_for,
)
from migrator.backfill import order
from migrator.plan import State
from migrator.progress import Silent
from migrator.runner import Runner
from migrator.settings import Settings

# Blocks of a window, so that the pass has some behind it and some before it.
WINDOW_BLOCKS = 64


@pytest.fixture(params=["blocks", "strides"])
def expanded(
    request: pytest.FixtureRequest,
    runner: Runner,
    sql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> Runner:
    """Give an engine whose change is expanded, on a table with room at its start."""
    monkeypatch.setattr(order, "WINDOW_BLOCKS", WINDOW_BLOCKS)
    sql.execute(SETUP.encode())
    sql.execute("ALTER TABLE t SET (autovacuum_enabled = off)")
    # Free pages where the pass has been first: rows move there.
    sql.execute(f"DELETE FROM t WHERE id <= {ROWS // 10}".encode())
    sql.execute("VACUUM t")
    runner.settings = Settings(chunking=request.param, target_ms=5, hold_s=0)
    runner.expand(CHANGE)
    return runner


def block(sql: psycopg.Connection, key: int) -> int:
    """Return the block in which a row is."""
    return number(sql, f"SELECT (ctid::text::point)[0]::int FROM t WHERE id = {key}")


def test_rows_move_behind_the_pass(expanded: Runner, sql: psycopg.Connection) -> None:
    """From pages that are still to come to pages that are done, and past the end."""
    moved: list[tuple[int, int]] = []
    # The first tenth is gone, the next quarter is done when they move.
    done = block(sql, ROWS // 10 + ROWS // 4)

    def act() -> None:
        # What one page has no room for goes to the first page that has.
        for key in range(ROWS - 400, ROWS, 4):
            before = block(sql, key)
            sql.execute("UPDATE t SET pad = repeat('y', 900) WHERE id = %s", [key])
            moved.append((before, block(sql, key)))
        # Rows that appear in the first pages, and behind the last; some that vanish.
        sql.execute(
            "INSERT INTO t SELECT g, repeat('z', 120)"
            f" FROM generate_series({ROWS + 1}, {ROWS + 3000}) g".encode()
        )
        sql.execute(f"DELETE FROM t WHERE id % 10 = 3 AND id > {ROWS // 2}".encode())

    progress = AfterRows(ROWS // 4, act)
    expanded.progress = progress
    assert expanded.backfill("c") is State.BACKFILLED
    assert progress.acted
    step = next(s for s in expanded.steps("c") if s.step.name == "fill_rows")
    assert step.end_block is not None
    # It is seen that rows went where the pass does not come any more.
    assert sum(to < done < at for at, to in moved) > 5
    assert number(sql, "SELECT pg_relation_size('t') / 8192") > step.end_block
    # Before any comparison: nothing is left for a repair.
    whole = number(sql, "SELECT count(*) FROM t")
    assert filled(sql) == whole
    assert_whole(expanded, sql, rows=whole, counted=None)


def test_a_row_leaves_the_page_that_a_chunk_waits_for(
    expanded: Runner, sql: psycopg.Connection, database: str
) -> None:
    """Its new version is outside of the chunk that waited for the old one."""
    key = ROWS // 2
    at = block(sql, key)
    waits = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND application_name LIKE 'migrator:%' AND datname = current_database()"
    )
    expanded.progress = Silent()
    with psycopg.connect(database) as other:
        other.execute("UPDATE t SET pad = repeat('y', 2000) WHERE id = %s", [key])
        with running(expanded) as run:
            wait_for("a chunk that waits", lambda: number(sql, waits) > 0 or run.ended)
            assert not run.ended
            other.commit()
    assert run.error is None
    assert block(sql, key) != at
    whole = number(sql, "SELECT count(*) FROM t")
    assert filled(sql) == whole
    assert_whole(expanded, sql, rows=whole, counted=None)


def test_rows_are_moved_all_the_while(
    expanded: Runner, sql: psycopg.Connection
) -> None:
    """With each chunk some rows go to other pages, be they done or not."""

    class Moving(Silent):
        chunks = 0

        def advance(self, done: float, rows: int, seconds: float) -> None:
            self.chunks += 1
            sql.execute(
                "UPDATE t SET pad = pad || repeat('y', 200)"
                " WHERE mod(id, 97) = %s AND mod(id, 3) = 0",
                [self.chunks % 97],
            )

    expanded.progress = moving = Moving()
    assert expanded.backfill("c") is State.BACKFILLED
    assert moving.chunks > 10
    whole = number(sql, "SELECT count(*) FROM t")
    assert filled(sql) == whole
    assert_whole(expanded, sql, rows=whole, counted=None)
