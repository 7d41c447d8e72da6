"""Chunks that take too long are ended by the server, split, and tried again."""

import re
from dataclasses import replace

import psycopg
import pytest

from migrator.change import Change
from migrator.errors import Failed
from migrator.patterns import AddColumn
from migrator.plan import State
from migrator.progress import Silent
from migrator.runner import Runner
from migrator.settings import Settings

ROWS = 400
CHANGE = Change(revision="c", pattern=AddColumn("t", "n", "int", computed="slow(id)"))


@pytest.fixture
def table(sql: psycopg.Connection) -> None:
    """Make a table of some 10 blocks, and a function that takes its time."""
    sql.execute(
        "CREATE TABLE rest (s float8);"
        "CREATE FUNCTION slow(id int) RETURNS int LANGUAGE plpgsql STABLE AS"
        " 'BEGIN PERFORM pg_sleep(s) FROM rest; RETURN id * 2; END';"
        "CREATE TABLE t (id int PRIMARY KEY, pad text);"
        "INSERT INTO t SELECT g, repeat('x', 150)"
        f" FROM generate_series(1, {ROWS}) g".encode()
    )


class Chunks(Silent):
    """A progress that counts chunks that were committed."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def advance(self, done: float, rows: int, seconds: float) -> None:
        """Count a chunk's rows."""
        if rows:
            self.rows.append(rows)


@pytest.mark.parametrize("way", ["blocks", "keys"])
@pytest.mark.usefixtures("table")
def test_a_chunk_that_takes_too_long_is_split(
    runner: Runner, sql: psycopg.Connection, way: str
) -> None:
    """Nothing of it is kept, smaller ones go through, and each row is done once."""
    sql.execute("INSERT INTO rest VALUES (0.002)")
    runner.progress = chunks = Chunks()
    runner.settings = Settings(chunking=way, target_ms=25, hold_s=0)
    runner.expand(CHANGE)
    assert runner.backfill("c") is State.BACKFILLED
    done = sql.execute("SELECT count(*) FROM t WHERE n = id * 2").fetchone()
    assert done == (ROWS,)
    assert sum(chunks.rows) == ROWS
    # 300 ms at most, of which 4 ms and more go into a row.
    assert max(chunks.rows) < 80
    failed = sql.execute("SELECT DISTINCT reason FROM migrator.failures").fetchall()
    assert ("canceling statement due to statement timeout",) in failed


@pytest.mark.parametrize(
    ("target_ms", "message"),
    [
        (
            5,
            'Step \'fill_rows\': a single block of table "public"."t" takes longer'
            " than the 220 ms that a chunk may.\nEarlier chunks are committed; it goes"
            " on from here.\nNext: give more time with --target-ms, or look at what the"
            " step's expression and the table's triggers do.",
        ),
        (
            500,
            'Step \'fill_rows\': a single block of table "public"."t" takes longer'
            " than the 800 ms that a chunk may.\nEarlier chunks are committed; it goes"
            " on from here.\nNext: a server whose deadlock_timeout is 1000 ms leaves a"
            " chunk no more time, or a request could be ended for it; look at what the"
            " step's expression and the table's triggers do.",
        ),
    ],
)
@pytest.mark.usefixtures("table")
def test_a_block_that_takes_too_long_ends_the_run(
    runner: Runner, sql: psycopg.Connection, target_ms: float, message: str
) -> None:
    """The error says how long it may take, and what decides that."""
    sql.execute("INSERT INTO rest VALUES (0.03)")
    runner.settings = Settings(chunking="blocks", target_ms=target_ms, hold_s=0)
    runner.expand(CHANGE)
    with pytest.raises(Failed) as caught:
        runner.backfill("c")
    assert str(caught.value) == message
    # Quick again, the same command ends it.
    sql.execute("UPDATE rest SET s = 0")
    assert runner.backfill("c") is State.BACKFILLED


def test_a_failed_chunk_is_told_without_values(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """The error does not repeat what a row has."""
    sql.execute("CREATE TABLE t (id int PRIMARY KEY, w text)")
    sql.execute("INSERT INTO t VALUES (1, E'a\\nhidden\" 4711')")
    made = "CREATE OR REPLACE FUNCTION read(w text) RETURNS int LANGUAGE SQL AS {}"
    sql.execute(made.format("'SELECT 1'").encode())
    change = replace(CHANGE, pattern=AddColumn("t", "n", "int", computed="read(w)"))
    runner.expand(change)
    sql.execute(made.format("'SELECT w::int'").encode())
    with pytest.raises(Failed, match='type integer: "…"') as caught:
        runner.backfill("c")
    assert not re.search("hidden|4711", str(caught.value))
