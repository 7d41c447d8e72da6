"""Faults of the server, the disk and the table in mid-backfill; then run again."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg import sql as words

from backfill.live import (
    CHANGE,
    ROWS,
    SETUP,
    AfterRows,
    assert_whole,
    fill_step,
    filled,
    number,
)
from migrator.backfill import order
from migrator.backfill.order import PhysicalOrder
from migrator.errors import (
    ConnectionLost,
    Failed,
    MigratorError,
    OutcomeUnknown,
    Refused,
)
from migrator.plan import State
from migrator.postgres.connection import Target
from migrator.postgres.embedded import NOBODY, Server
from migrator.progress import Silent
from migrator.runner import Runner
from migrator.settings import Settings

# Short chunks, so that there are many; a lease that a dead run soon loses.
SETTINGS = Settings(chunking="blocks", target_ms=5, lease_s=2, step_budget_s=10)


@pytest.fixture
def expanded(runner: Runner, sql: psycopg.Connection) -> Runner:
    """Give an engine whose change is expanded."""
    sql.execute(SETUP.encode())
    runner.settings = SETTINGS
    runner.expand(CHANGE)
    return runner


@pytest.mark.parametrize("workers", [1, 2])
def test_immediate_shutdown(private_server: Server, workers: int) -> None:
    """What a crash of the server takes back it takes back with its count."""
    url = private_server.url()
    with psycopg.connect(url, autocommit=True) as conn:
        # The set-up shall survive; chunks do not wait for the disk by themselves.
        conn.execute("ALTER SYSTEM SET synchronous_commit = on")
        conn.execute("SELECT pg_reload_conf()")
        conn.execute(SETUP.encode())
        conn.execute("CHECKPOINT")
    crash = AfterRows(ROWS // 4, lambda: private_server.restart(immediate=True))
    settings = Settings(chunking="blocks", target_ms=5, lease_s=2, workers=workers)
    runner = Runner(Target.from_url(url), settings, progress=crash)
    runner.expand(CHANGE)
    with pytest.raises((ConnectionLost, OutcomeUnknown)):
        runner.backfill("c")
    assert crash.acted
    runner.progress = Silent()
    with psycopg.connect(url, autocommit=True) as conn:
        assert filled(conn) == fill_step(runner).rows < ROWS
        assert_whole(runner, conn)


@pytest.fixture
def small_disk(private_server: Server) -> Iterator[Path]:
    """Give the folder of a tablespace `small`, on a disk of 6 MB."""
    folder = private_server.folder / "small"
    folder.mkdir()
    done = subprocess.run(
        [
            *("mount", "-t", "tmpfs", "-o", f"size=6m,uid={NOBODY},mode=700"),
            *("migrator-test", folder),
        ],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"no disk to fill up: {done.stderr.strip()}")
    try:
        with psycopg.connect(private_server.url(), autocommit=True) as conn:
            conn.execute(f"CREATE TABLESPACE small LOCATION '{folder}'".encode())
        yield folder
    finally:
        private_server.stop(immediate=True)
        subprocess.run(["umount", folder], check=True)


def test_disk_full(private_server: Server, small_disk: Path) -> None:
    """The error says so, both releases go on reading, and with room it ends."""
    url = private_server.url()
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("SET default_tablespace = small")
        conn.execute(SETUP.encode())
        runner = Runner(Target.from_url(url), SETTINGS)
        runner.expand(CHANGE)
        with pytest.raises(Failed, match="No space left on device") as caught:
            runner.backfill("c")
        # Nobody's connection was lost, and the message does not say so.
        assert not isinstance(caught.value, ConnectionLost)
        assert "Earlier chunks are committed." in str(caught.value)
        done = filled(conn)
        assert 0 < done == fill_step(runner).rows < ROWS
        assert runner.change("c").state is State.EXPANDED
        old = "SELECT count(*) FROM t WHERE pad = repeat('x', 120) AND id > 0"
        assert number(conn, old) == ROWS
        room = ["mount", "-o", "remount,size=60m", small_disk]
        subprocess.run(room, check=True, capture_output=True)
        assert_whole(runner, conn)


@pytest.mark.parametrize("way", ["blocks", "strides", "keys"])
def test_held_snapshot(
    expanded: Runner, sql: psycopg.Connection, database: str, way: str
) -> None:
    """A report that reads one snapshot all along sees its rows, others see ours."""
    expanded.rollback("c")
    expanded.settings = Settings(chunking=way, target_ms=5, hold_s=0)
    expanded.expand(CHANGE)
    with psycopg.connect(database) as report:
        report.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        unfilled = "SELECT count(*) FROM t WHERE n IS NULL"
        assert number(report, unfilled) == ROWS
        assert_whole(expanded, sql)
        assert number(report, unfilled) == ROWS


@pytest.mark.parametrize("way", ["blocks", "strides"])
@pytest.mark.parametrize(
    ("statement", "rows"),
    [("CLUSTER t USING backwards", ROWS), ("VACUUM FULL t", ROWS), ("TRUNCATE t", 0)],
)
def test_the_file_is_exchanged(
    runner: Runner, sql: psycopg.Connection, statement: str, rows: int, way: str
) -> None:
    """The pass begins anew in the new file; rows that come meanwhile are filled."""
    sql.execute(SETUP.encode())
    sql.execute("CREATE INDEX backwards ON t ((-id))")
    files: list[int | None] = []

    def exchange() -> None:
        files.append(fill_step(runner).file_node)
        sql.execute(statement.encode())
        sql.execute("INSERT INTO t VALUES (0, 'new'), (-1, 'new')")

    runner.settings = Settings(chunking=way, target_ms=5, hold_s=0)
    runner.expand(CHANGE)
    progress = AfterRows(ROWS // 4, exchange)
    runner.progress = progress
    runner.backfill("c")
    assert progress.acted
    assert fill_step(runner).file_node not in files
    assert_whole(runner, sql, rows=rows + 2, counted=None)


def test_a_copy_of_the_ledger_knows_no_file(sql: psycopg.Connection) -> None:
    """Where a dump is restored its blocks count for no file, whatever its number."""
    sql.execute("CREATE TABLE t (id int)")
    question = PhysicalOrder.number.replace("$1", "'t'")
    found = []
    for _ in range(2):
        sql.execute("CREATE SCHEMA migrator; CREATE TABLE migrator.steps (id bigint)")
        found.append(number(sql, f"SELECT {question}"))
        assert number(sql, f"SELECT {question}") == found[-1]
        sql.execute("DROP SCHEMA migrator CASCADE")
    assert found[0] != found[1]


def test_another_table_takes_the_place(runner: Runner, sql: psycopg.Connection) -> None:
    """It has no dual write, be it empty: nothing is entered as done."""
    sql.execute(SETUP.encode())
    runner.settings = Settings(target_ms=5, hold_s=0)
    runner.expand(CHANGE)
    progress = AfterRows(
        ROWS // 4,
        lambda: sql.execute(
            "ALTER TABLE t RENAME TO former; CREATE TABLE t (LIKE former INCLUDING ALL)"
        ),
    )
    runner.progress = progress
    for _ in range(2):
        with pytest.raises(Failed, match="dual-write trigger on table"):
            runner.settle("c")
    assert runner.change("c").state is State.EXPANDED
    sql.execute("DROP TABLE t; ALTER TABLE former RENAME TO t")
    assert_whole(runner, sql, counted=None)


def test_the_index_of_the_keys_is_gone(
    runner: Runner, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No chunk reads the whole table; made again, the same command ends it."""
    monkeypatch.setattr(order, "WINDOW_ROWS", ROWS // 8)
    sql.execute(SETUP.encode())
    runner.settings = Settings(chunking="keys", target_ms=5, hold_s=0)
    runner.expand(CHANGE)
    lost = "ALTER TABLE t DROP CONSTRAINT t_pkey"
    runner.progress = AfterRows(ROWS // 4, lambda: sql.execute(lost.encode()))
    for _ in range(2):
        with pytest.raises(Failed, match="by its keys would read the whole table"):
            runner.backfill("c")
    assert 0 < filled(sql) < ROWS
    sql.execute("ALTER TABLE t ADD CONSTRAINT t_pkey PRIMARY KEY (id)")
    assert_whole(runner, sql)


@pytest.mark.parametrize("way", ["blocks", "keys"])
def test_the_table_is_dropped(
    runner: Runner, sql: psycopg.Connection, way: str
) -> None:
    """The error names the table, each time; nothing else is touched."""
    sql.execute(SETUP.encode())
    runner.settings = Settings(chunking=way, target_ms=5, hold_s=0)
    runner.expand(CHANGE)
    progress = AfterRows(ROWS // 4, lambda: sql.execute("DROP TABLE t"))
    runner.progress = progress
    for _ in range(2):
        with pytest.raises(
            Failed, match=r'relation "public\.t" does not exist'
        ) as failed:
            runner.backfill("c")
        assert "Next: put back what was dropped or renamed, then run" in str(
            failed.value
        )
    assert progress.acted
    assert runner.change("c").state is State.EXPANDED


@pytest.fixture
def owner(database: str, sql: psycopg.Connection) -> Iterator[str]:
    """Give the URL of a role that owns its tables and is no superuser."""
    base = database.rsplit("/", 1)[1]
    role = words.Identifier(f"owner_{base}")
    sql.execute(words.SQL("CREATE ROLE {} LOGIN").format(role))
    sql.execute(
        words.SQL("GRANT ALL ON DATABASE {} TO {}").format(words.Identifier(base), role)
    )
    sql.execute(words.SQL("GRANT ALL ON SCHEMA public TO {}").format(role))
    yield database.replace("//postgres@", f"//owner_{base}@")
    sql.execute(words.SQL("DROP OWNED BY {} CASCADE").format(role))
    sql.execute(words.SQL("DROP ROLE {}").format(role))


def test_a_server_without_room_for_one_more(
    owner: str, sql: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """Workers that get no connection are left out; the others go on."""
    role = words.Identifier(owner.split("//")[1].partition("@")[0])
    with psycopg.connect(owner, autocommit=True) as own:
        own.execute(SETUP.encode())
    runner = Runner(Target.from_url(owner), SETTINGS)
    runner.expand(CHANGE)
    # The run's own, its heartbeat's, the guard's, and those of two workers.
    sql.execute(words.SQL("ALTER ROLE {} CONNECTION LIMIT 5").format(role))
    runner.settings = replace(SETTINGS, workers=4)
    assert runner.settle("c") is State.VERIFIED
    assert filled(sql) == ROWS
    assert "one worker less: No connection to" in caplog.text


@pytest.mark.parametrize(
    ("taken", "given_back"),
    [
        ("REVOKE UPDATE ON t FROM {}", "GRANT UPDATE ON t TO {}"),
        ("ALTER TABLE t OWNER TO postgres", "ALTER TABLE t OWNER TO {}"),
    ],
)
def test_a_privilege_is_lost(
    owner: str, sql: psycopg.Connection, taken: str, given_back: str
) -> None:
    """The error says what is missing; given back, the same command ends it."""
    role = words.Identifier(owner.split("//")[1].partition("@")[0])
    with psycopg.connect(owner, autocommit=True) as own:
        own.execute(SETUP.encode())
    lost = AfterRows(
        ROWS // 4,
        lambda: sql.execute(words.SQL(taken).format(role)),  # type: ignore[arg-type]
    )
    runner = Runner(Target.from_url(owner), SETTINGS, progress=lost)
    runner.expand(CHANGE)
    for _ in range(2):
        with pytest.raises(MigratorError, match="permission denied for table t") as e:
            runner.backfill("c")
        assert isinstance(e.value, Refused)
        assert "Earlier chunks are committed." in str(e.value)
        assert "Next: grant the privilege" in str(e.value)
    assert lost.acted
    assert 0 < filled(sql) == fill_step(runner).rows < ROWS
    sql.execute(words.SQL(given_back).format(role))  # type: ignore[arg-type]
    assert_whole(runner, sql)
