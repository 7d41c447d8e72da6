"""The way over a table is chosen from facts, stored and told."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from test_cli import run

from migrator.backfill.order import PhysicalOrder
from migrator.change import Change
from migrator.cli import output
from migrator.errors import Refused, UsageError
from migrator.facts import Column, Facts, Index, IndexColumn, Snapshot, Table
from migrator.kernels.chunking import chosen
from migrator.names import TableName
from migrator.patterns import AddColumn, RebuildTable, SetNotNull
from migrator.plan import ChunkedUpdate, Phase, State
from migrator.postgres.connection import Target
from migrator.postgres.embedded import Server
from migrator.progress import Silent
from migrator.runner import Runner
from migrator.settings import Settings


def facts(
    *indexed: str,
    fillfactor: int = 100,
    filled: float | None = None,
    chunking: str | None = None,
    held: Snapshot | None = None,
    size: int = 0,
    cache: int | None = None,
    keys: dict[str, float] | None = None,
) -> Facts:
    """Return facts of a table with indexes on columns."""
    table = Table(
        name=TableName("public", "t"),
        oid=1,
        columns=(
            Column(name="new", type="text"),
            *(Column(name=k, type="int", not_null=True) for k in keys or {}),
        ),
        indexes=tuple(
            Index(
                name=f"i{n}",
                method="btree",
                keys=(IndexColumn(name=column),),
                columns=(column,),
            )
            for n, column in enumerate(indexed)
        )
        + tuple(
            Index(
                name=f"by_{column}",
                method="btree",
                keys=(IndexColumn(name=column),),
                columns=(column,),
                unique=True,
                correlation=correlation,
            )
            for column, correlation in (keys or {}).items()
        ),
        size_bytes=size,
        fillfactor=fillfactor,
        filled=filled,
    )
    return Facts(
        server_version=180000,
        table=table,
        tag="t",
        chunking=chunking,
        oldest_snapshot=held,
        cache_bytes=cache,
    )


@pytest.mark.parametrize(
    ("given", "stride", "reason"),
    [
        (facts(), 8, "the table stays small"),
        (facts("id"), 8, "1 index stays untouched"),
        (facts(*"abcde"), 16, "5 indexes stay untouched"),
        (facts("id", "new"), 1, 'index "i1" holds the written column'),
        (facts(fillfactor=50), 1, "filled to 50 % and have room"),
        (facts(filled=0.4), 1, "filled to 40 % and have room"),
        (
            facts(held=Snapshot(held_s=1.0, holder="pid 7")),
            8,
            "one pass while a snapshot is held",
        ),
        (
            facts(held=Snapshot(held_s=9.0, holder="pid 7")),
            8,
            "is held, as now by pid 7",
        ),
        (facts("new", chunking="strides"), 8, "as asked for"),
        (facts(chunking="blocks"), 1, "as asked for"),
    ],
)
def test_choice(given: Facts, stride: int, reason: str) -> None:
    """Each fact that decides has its reason."""
    found = chosen(given, frozenset({"new"}))
    assert found.stride == stride
    assert reason in found.reason


MB = 1024 * 1024


@pytest.mark.parametrize(
    ("size", "cache", "window", "shared", "reason"),
    [
        # The whole table stays in the cache, or the window as it always was.
        (20 * MB, 100 * MB, 2048, 8192, "window (cached whole: table 20 MB, shared"),
        (900 * MB, 64 * MB, 2048, 1024, "window of 16 MB, which stays cached"),
        (900 * MB, 8 * MB, 256, 128, "window of 2 MB, which stays cached"),
        (900 * MB, 8 * MB, 256, 128, "(table 900 MB, shared_buffers 8 MB)"),
        (900 * MB, MB // 8, 32, 32, "window of 256 kB"),
        (900 * MB, None, 2048, 8192, "each window:"),
    ],
)
def test_windows_stay_cached(
    size: int, cache: int | None, window: int, shared: int, reason: str
) -> None:
    """Those of all workers together take a quarter of the server's cache at most."""
    found = chosen(facts(size=size, cache=cache), frozenset({"new"}))
    assert reason in found.reason
    asked = chosen(facts(size=size, cache=cache, chunking="strides"), frozenset())
    assert asked.room_blocks == found.room_blocks
    for workers, blocks in ((1, window), (2, shared)):
        order = PhysicalOrder(
            table=TableName("public", "t"),
            strides=8,
            workers=workers,
            room_blocks=found.room_blocks,
        )
        assert order.window(1_000_000) == blocks
        assert order.most <= blocks


def test_a_window_is_as_large_as_the_cache_allows(
    start_server: Callable[..., Server],
) -> None:
    """The cache is the server's own; what the ledger stores of it is what runs."""
    with start_server(shared_buffers="2MB") as server:
        runner = Runner(Target.from_url(server.url("postgres")), Settings())
        with psycopg.connect(server.url("postgres"), autocommit=True) as sql:
            sql.execute(
                "CREATE TABLE t (id int PRIMARY KEY, pad text);"
                "INSERT INTO t SELECT g, repeat('x', 500) FROM"
                " generate_series(1, 4000) g; ANALYZE t"
            )
        runner.expand(
            Change(revision="c", pattern=AddColumn("t", "n", "int", computed="id"))
        )
        runner.backfill("c")
        (step,) = (s for s in runner.steps("c") if s.step.name == "fill_rows")
        assert isinstance(step.step.work, ChunkedUpdate)
        assert step.step.work.chunking.room_blocks == 64
        assert "shared_buffers 2 MB" in step.step.work.chunking.reason
        assert step.rows == 4000


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (facts(keys={"id": 0.1}), '(correlation 0.10) of index "by_id"'),
        (
            facts(keys={"id": 0.1}, chunking="keys", size=900 * MB, cache=MB),
            'keys of index "by_id": as asked for; rows do not stand in the order'
            " (correlation 0.10), each may read another page; table 900 MB,"
            " shared_buffers 1 MB",
        ),
        (
            facts(keys={"a": 0.1, "b": -1.0}, chunking="keys"),
            'keys of index "by_b": as asked for; rows stand in the order'
            " (correlation -1.00)",
        ),
    ],
)
def test_the_order_of_keys_against_that_of_rows(given: Facts, reason: str) -> None:
    """Where keys would visit a page for each row, the plan says so, and blocks win."""
    assert reason in chosen(given, frozenset({"new"})).reason
    in_order = chosen(facts(keys={"id": 1.0}), frozenset({"new"}))
    assert "correlation" not in in_order.reason


def test_an_unknown_way_is_refused() -> None:
    """The message lists the ways there are."""
    with pytest.raises(UsageError, match="strides, blocks, keys"):
        chosen(facts(chunking="zigzag"), frozenset())


def test_the_plan_tells_it_and_the_run_may_be_told_otherwise(
    runner: Runner,
    sql: psycopg.Connection,
    database: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The reason stands in the plan; `--chunking` decides what is entered and run."""
    sql.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    change = Change(revision="c", pattern=AddColumn("t", "n", "int", computed="id"))
    output.plan(runner.plan(change))
    assert re.search(
        r"    chunking    8 passes over each window \(cached whole: table \d+ kB,"
        r" shared_buffers \d+ MB\): new",
        capsys.readouterr().out,
    )
    runner.expand(change)
    done = run(
        *("backfill", "c", "--chunking", "keys"),
        cwd=tmp_path,
        env={"MIGRATOR_DATABASE_URL": database},
    )
    assert done.returncode == 0, done.stderr
    (step,) = (s for s in runner.steps("c") if s.step.name == "fill_rows")
    assert isinstance(step.step.work, ChunkedUpdate)
    assert step.step.work.chunking.reason == 'keys of index "t_pkey": as asked for'
    assert step.rows == 1
    # Once it is begun, what is asked for is in force, or refused.
    again = ("backfill", "c", "--chunking")
    env = {"MIGRATOR_DATABASE_URL": database}
    assert run(*again, "keys", cwd=tmp_path, env=env).returncode == 0
    late = run(*again, "blocks", cwd=tmp_path, env=env)
    assert late.returncode == 1
    assert (
        'Step \'fill_rows\' goes over table "public"."t" by keys, as it was begun'
        ' (keys of index "t_pkey": as asked for); --chunking blocks comes too late.\n'
        "Nothing was changed.\nNext: leave --chunking out to go on so. For another way"
        " `migrator rollback c --to planned`, `migrator expand c` and `migrator"
        " backfill c --chunking blocks`.\n"
    ) in late.stderr


def test_a_way_that_is_not_for_the_step_is_refused(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """A copy into another table has no strides; nothing is begun."""
    sql.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    runner.settings = Settings(chunking="strides")
    pattern = RebuildTable("t", alter=["SET (fillfactor = 90)"], assured="test")
    runner.expand(Change(revision="c", pattern=pattern))
    with pytest.raises(Refused, match="by blocks, and not by strides: one pass"):
        runner.settle("c")
    assert all(s.phase is Phase.EXPAND for s in runner.steps("c"))
    runner.settings = Settings(chunking="keys")
    assert runner.settle("c") is State.VERIFIED


def test_a_table_that_is_no_heap_goes_by_keys() -> None:
    """Its blocks are its own matter."""
    given = facts()
    other = replace(given, table=replace(given.table, method="columnar"))
    with pytest.raises(Refused, match="no unique btree index"):
        chosen(other, frozenset({"new"}))


def test_an_index_that_mentions_the_column_is_seen(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """In a predicate or an expression it keeps updates from staying in the page."""
    sql.execute(
        "CREATE TABLE t (id int PRIMARY KEY, a text, b text);"
        "CREATE INDEX by_a ON t (lower(a)); CREATE INDEX by_b ON t (id) WHERE b = 'x'"
    )
    for column, index in (("a", "by_a"), ("b", "by_b")):
        change = Change(revision=column, pattern=SetNotNull("t", column, fill="''"))
        (step,) = runner.plan(change).steps(Phase.BACKFILL)
        assert isinstance(step.work, ChunkedUpdate)
        assert f'index "{index}"' in step.work.chunking.reason


@pytest.mark.parametrize("way", ["strides", "blocks"])
@pytest.mark.parametrize("workers", [1, 3])
def test_every_row_is_brought_across(
    runner: Runner, sql: psycopg.Connection, way: str, workers: int
) -> None:
    """Also rows at the edges of chunks, in pages half empty, and behind gaps."""
    sql.execute(
        "CREATE TABLE t (id int, pad text);"
        "INSERT INTO t SELECT g, repeat('x', g % 300) FROM generate_series(1, 60000) g;"
        "DELETE FROM t WHERE id % 7 = 0 OR id BETWEEN 20000 AND 30000"
    )
    sql.execute("VACUUM t")
    runner.settings = Settings(workers=workers, chunking=way, target_ms=20)
    change = Change(revision="c", pattern=AddColumn("t", "n", "int", computed="id * 2"))
    runner.expand(change)
    runner.backfill("c")
    left = sql.execute("SELECT count(*) FROM t WHERE n IS DISTINCT FROM id * 2")
    assert left.fetchone() == (0,)
    (step,) = (s for s in runner.steps("c") if s.step.name == "fill_rows")
    assert sql.execute("SELECT count(*) FROM t").fetchone() == (step.rows,)
    assert sql.execute("SELECT count(*) FROM migrator.windows").fetchone() == (0,)


KEYED = {
    "serial": ("id int PRIMARY KEY", "g"),
    "uuid": ("id uuid PRIMARY KEY", "md5(g::text)::uuid"),
    "text": ("id text PRIMARY KEY", "'k' || g % 100 || '-' || g"),
    "time": (
        "id timestamptz PRIMARY KEY",
        "'2026-01-01'::timestamptz + g * '1s'::interval",
    ),
    "composite": ('a text, "b c" bigint, PRIMARY KEY (a, "b c")', "'t' || g % 7, g"),
}


@pytest.mark.parametrize("key", list(KEYED))
@pytest.mark.parametrize("workers", [1, 3])
def test_every_row_is_brought_across_by_keys(
    runner: Runner, sql: psycopg.Connection, key: str, workers: int
) -> None:
    """Keys of any type and number; none is done twice, none is left out."""
    columns, values = KEYED[key]
    sql.execute(
        f"CREATE TABLE t ({columns}, src int);"
        f"INSERT INTO t SELECT {values}, g FROM generate_series(1, 100000) g"
    )
    sql.execute("DELETE FROM t WHERE src BETWEEN 30000 AND 40000")
    sql.execute("VACUUM ANALYZE t")
    runner.settings = Settings(workers=workers, chunking="keys", target_ms=20)
    change = Change(
        revision="c", pattern=AddColumn("t", "n", "int", computed="src * 2")
    )
    runner.expand(change)
    (plan,) = runner.plan(change).steps(Phase.BACKFILL)
    assert isinstance(plan.work, ChunkedUpdate)
    told = plan.work.chunking.reason
    assert told.startswith('keys of index "t_pkey": as asked for; rows ')
    # Their md5, and text, are in another order than they came.
    assert (", each may read another page" in told) == (
        key in ("uuid", "text", "composite")
    )
    runner.backfill("c")
    left = sql.execute("SELECT count(*) FROM t WHERE n IS DISTINCT FROM src * 2")
    assert left.fetchone() == (0,)
    (step,) = (s for s in runner.steps("c") if s.step.name == "fill_rows")
    assert step.rows == 89_999
    assert sql.execute("SELECT count(*) FROM migrator.windows").fetchone() == (0,)


def test_keys_outlive_a_rewrite(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """CLUSTER in the middle moves every row; the pass goes on where it was."""
    sql.execute(
        "CREATE TABLE t (id int PRIMARY KEY, src int);"
        "INSERT INTO t SELECT g, -g FROM generate_series(1, 100000) g;"
        "CREATE INDEX backwards ON t (src)"
    )
    runner.settings = Settings(chunking="keys", target_ms=5)
    change = Change(revision="c", pattern=AddColumn("t", "n", "int", computed="src"))
    runner.expand(change)

    class Clustering(Silent):
        rows = 0
        clustered = False

        def advance(self, done: float, rows: int, seconds: float) -> None:
            self.rows += rows
            if self.rows > 20_000 and not self.clustered:
                self.clustered = True
                sql.execute("CLUSTER t USING backwards")

    runner.progress = Clustering()
    runner.backfill("c")
    left = sql.execute("SELECT count(*) FROM t WHERE n IS DISTINCT FROM src")
    assert left.fetchone() == (0,)
    assert isinstance(runner.progress, Clustering)
    assert runner.progress.clustered
    assert runner.progress.rows == 100_000


def test_keys_that_come_and_go(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """Rows whose keys move behind the pass, vanish or appear are not missed."""
    sql.execute(
        "CREATE TABLE t (id int PRIMARY KEY, src int);"
        "INSERT INTO t SELECT g * 2, g FROM generate_series(1, 50000) g"
    )
    runner.settings = Settings(chunking="keys", target_ms=5)
    change = Change(revision="c", pattern=AddColumn("t", "n", "int", computed="src"))
    runner.expand(change)

    class Moving(Silent):
        at = 0

        def advance(self, done: float, rows: int, seconds: float) -> None:
            self.at += 1
            # From before the pass to behind it; one away; one behind the last key.
            sql.execute(
                "UPDATE t SET id = %s WHERE id = %s",
                [2 * self.at + 1, 100_000 - self.at * 2],
            )
            sql.execute("DELETE FROM t WHERE id = %s", [50_000 - self.at * 2])
            sql.execute("INSERT INTO t VALUES (%s, 1)", [200_000 + self.at])

    moving = Moving()
    runner.progress = moving
    runner.backfill("c")
    left = sql.execute("SELECT count(*) FROM t WHERE n IS DISTINCT FROM src")
    assert left.fetchone() == (0,)
    assert moving.at > 5


def test_without_a_usable_key_keys_are_refused() -> None:
    """A nullable or partial unique index would leave rows out."""
    with pytest.raises(Refused, match="no unique btree index"):
        chosen(facts("id", chunking="keys"), frozenset({"new"}))


def test_strides_stay_in_their_pages(runner: Runner, sql: psycopg.Connection) -> None:
    """Full pages take the new versions in: the table hardly grows."""
    sql.execute(
        "CREATE TABLE t (id int PRIMARY KEY, name text)"
        " WITH (autovacuum_enabled = off);"
        "INSERT INTO t SELECT g, 'name ' || g FROM generate_series(1, 100000) g"
    )
    sql.execute("VACUUM ANALYZE t")
    before = sql.execute("SELECT pg_relation_size('t')").fetchone()
    change = Change(revision="c", pattern=AddColumn("t", "n", "int", computed="id"))
    runner.expand(change)
    runner.backfill("c")
    after = sql.execute("SELECT pg_relation_size('t')").fetchone()
    assert before is not None
    assert after is not None
    # One pass over full pages would have to double it.
    assert after[0] < before[0] * 1.75
