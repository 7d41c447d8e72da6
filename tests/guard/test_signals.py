"""Each signal sees what it is there for, on a real server."""

import contextlib
import http.server
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import sql as words

from migrator.change import Change
from migrator.errors import Failed
from migrator.guard import Policy
from migrator.guard.signal import Signal, Subject, UnavailableError
from migrator.guard.signals import SIGNALS, latency
from migrator.guard.signals.archive_backlog import ArchiveBacklog
from migrator.guard.signals.connections import Connections
from migrator.guard.signals.dead_tuples import DeadTuples
from migrator.guard.signals.latency import Latency
from migrator.guard.signals.lock_waiters import LockWaiters
from migrator.guard.signals.oldest_snapshot import OldestSnapshot
from migrator.guard.signals.prometheus import Prometheus
from migrator.guard.signals.query import Query
from migrator.guard.signals.replication_lag import ReplicationLag
from migrator.guard.signals.rollbacks import Rollbacks
from migrator.guard.signals.slot_retention import SlotRetention
from migrator.guard.signals.wal_rate import WalRate
from migrator.names import TableName
from migrator.patterns import AddColumn
from migrator.postgres.connection import Connection, Target, connect
from migrator.postgres.embedded import Server
from migrator.runner import Runner
from migrator.settings import Settings

SUBJECT = Subject(table=TableName("public", "t"))


@pytest.fixture
def conn(database: str, sql: psycopg.Connection) -> Iterator[Connection]:
    """Give the guard's connection, and a table."""
    sql.execute("CREATE TABLE t (id int PRIMARY KEY, n int)")
    made = connect(Target.from_url(database), "migrator:guard")
    yield made
    made.close()


def value(signal: Signal, conn: Connection) -> float:
    """Return a signal's figure."""
    return signal.read(conn, SUBJECT)[0]


@pytest.mark.parametrize("cls", SIGNALS, ids=lambda c: c.name)
def test_each_can_be_read_or_says_why_not(cls: type[Signal], conn: Connection) -> None:
    """On a quiet server no figure alarms."""
    signal = cls()
    if isinstance(signal, Latency):
        with pytest.raises(UnavailableError, match="pg_stat_statements"):
            signal.read(conn, SUBJECT)
        return
    assert value(signal, conn) >= 0
    assert value(signal, conn) >= 0


@pytest.mark.parametrize("cls", [OldestSnapshot, LockWaiters, Latency])
def test_what_is_hidden_is_not_taken_for_nothing(
    cls: type[Signal], conn: Connection, sql: psycopg.Connection
) -> None:
    """A role that does not see other sessions cannot read the figure."""
    role = f"plain_{secrets.token_hex(4)}"
    sql.execute(f"CREATE ROLE {role}".encode())
    try:
        conn.execute(f"SET ROLE {role}".encode())
        with pytest.raises(UnavailableError, match="pg_monitor"):
            cls().read(conn, SUBJECT)
        sql.execute(f"GRANT pg_read_all_stats TO {role}".encode())
        if cls is not Latency:
            assert value(cls(), conn) == 0
    finally:
        conn.execute("RESET ROLE")
        sql.execute(f"DROP ROLE {role}".encode())


@pytest.fixture
def measured(start_server: Callable[..., Server]) -> Iterator[str]:
    """Give a server that counts statements, with the extension in a schema."""
    try:
        made = start_server(shared_preload_libraries="pg_stat_statements")
    except Failed as error:
        pytest.skip(f"no pg_stat_statements: {error}")
    with made, psycopg.connect(made.url(), autocommit=True) as sql:
        sql.execute(
            "CREATE SCHEMA extensions;"
            "CREATE EXTENSION pg_stat_statements SCHEMA extensions;"
            "CREATE TABLE t (id int PRIMARY KEY, n int);"
            "CREATE TABLE speed (ms float8); INSERT INTO speed VALUES (2)"
        )
        yield made.url()


def test_latency(measured: str) -> None:
    """Statements are measured against themselves; their usual spread is no alarm."""
    with (
        psycopg.connect(measured, autocommit=True) as app,
        connect(Target.from_url(measured), "migrator:guard") as conn,
    ):

        def used(*times_ms: float) -> float:
            for ms in times_ms:
                app.execute("UPDATE speed SET ms = %s", [ms])
                app.execute("SELECT pg_sleep(ms / 1000) FROM speed")
            figure, behind = signal.read(conn, SUBJECT)
            calls.append(behind)
            return figure

        signal, calls = Latency(), list[str]()
        assert used(*[2.0, 2.5] * 20) == 1
        assert used(*[2.0, 2.5] * 20) == 1
        slow = used(*[12.0] * 20)
        assert 3 < slow < 10
        assert calls[-1] == "40 calls"
        # Few calls say nothing, and new statements have no past.
        assert used(*[12.0] * 5) == 1
        for _ in range(30):
            app.execute("SELECT pg_sleep(0.01), 1")
        assert value(signal, conn) == 1
    with (
        psycopg.connect(measured, autocommit=True) as app,
        connect(Target.from_url(measured), "migrator:guard") as conn,
    ):
        # Of one that takes now 1 ms, now 30, a few slow calls more are chance.
        app.execute("SELECT extensions.pg_stat_statements_reset()")
        signal = Latency()
        assert used(*[1.0] * 25, *[30.0] * 5) == 1
        assert used(*[1.0] * 20, *[30.0] * 7) == 1


def test_the_backfill_is_not_the_application(measured: str) -> None:
    """What the engine runs itself counts in none of its orders."""
    change = Change(revision="c", pattern=AddColumn("t", "m", "int", computed="n"))
    with (
        psycopg.connect(measured, autocommit=True) as sql,
        connect(Target.from_url(measured), "migrator:guard") as conn,
    ):
        # Not even the key's operators are the server's own.
        sql.execute(
            "CREATE EXTENSION citext SCHEMA extensions;"
            "ALTER TABLE t ALTER COLUMN id TYPE extensions.citext;"
            "INSERT INTO t SELECT g::text, g FROM generate_series(1, 5000) g"
        )
        sql.execute("SELECT extensions.pg_stat_statements_reset()")
        for way in ("blocks", "strides", "keys"):
            engine = Runner(
                Target.from_url(measured),
                Settings(chunking=way, hold_s=0, target_ms=10),
                guard=Policy(thresholds={}),
            )
            engine.expand(change)
            engine.settle("c")
            engine.rollback("c")
            engine.drop_parked("c")
        statement = latency._READ.format(words.Identifier("extensions"))
        counted = [row["queryid"] for row in conn.execute(statement)]
        found = sql.execute(
            "SELECT query FROM extensions.pg_stat_statements"
            " WHERE queryid = ANY (%s) AND calls > 3 AND query ~ '\"t\"'"
            " AND query !~ '^LOCK'",
            [counted],
        ).fetchall()
        assert found == []


def test_archive_backlog(start_server: Callable[..., Server]) -> None:
    """WAL that the archive does not take piles up, and is gone when it does."""
    with (
        start_server(archive_mode="on", archive_command="false") as made,
        psycopg.connect(made.url(), autocommit=True) as sql,
        connect(Target.from_url(made.url()), "migrator:guard") as conn,
    ):
        sql.execute("CREATE TABLE t (id int PRIMARY KEY, n int)")
        signal = ArchiveBacklog()
        assert value(signal, conn) == 0
        for number in range(3):
            sql.execute("INSERT INTO t VALUES (%s, 1)", [number])
            sql.execute("SELECT pg_switch_wal()")
        assert value(signal, conn) == 3


def test_oldest_snapshot(conn: Connection, database: str) -> None:
    """An open transaction with a snapshot counts from its start."""
    with psycopg.connect(database, application_name="report") as other:
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT count(*) FROM t")
        time.sleep(0.3)
        figure, behind = OldestSnapshot().read(conn, SUBJECT)
    assert figure >= 0.3
    assert "report" in behind


def test_lock_waiters(conn: Connection, database: str, sql: psycopg.Connection) -> None:
    """Only those who wait for us count."""
    assert value(LockWaiters(), conn) == 0
    sql.execute("INSERT INTO t VALUES (1, 1)")
    with (
        psycopg.connect(database, application_name="migrator:x:1") as ours,
        psycopg.connect(database, autocommit=True) as other,
    ):
        ours.execute("UPDATE t SET n = 2")
        waiter = threading.Thread(target=lambda: other.execute("UPDATE t SET n = 3"))
        waiter.start()
        for _ in range(100):
            if seen := value(LockWaiters(), conn):
                break
            time.sleep(0.02)
        ours.rollback()
        waiter.join()
    assert seen == 1


def test_slot_retention(conn: Connection, sql: psycopg.Connection) -> None:
    """A slot that nobody reads keeps WAL back."""
    level = sql.execute("SHOW wal_level").fetchone()
    assert level == ("replica",)
    sql.execute("SELECT pg_create_physical_replication_slot('kept', true)")
    try:
        sql.execute("INSERT INTO t SELECT g, g FROM generate_series(1, 20000) g")
        figure, behind = SlotRetention().read(conn, SUBJECT)
    finally:
        sql.execute("SELECT pg_drop_replication_slot('kept')")
    assert figure > 500_000
    assert behind == "slot kept"


def test_wal_rate(conn: Connection, sql: psycopg.Connection) -> None:
    """What is written between two looks counts."""
    signal = WalRate()
    assert value(signal, conn) == 0
    sql.execute("INSERT INTO t SELECT g, g FROM generate_series(1, 20000) g")
    assert value(signal, conn) > 100_000


def test_dead_tuples(conn: Connection, sql: psycopg.Connection) -> None:
    """Rows that were deleted and not vacuumed count."""
    sql.execute("INSERT INTO t SELECT g, g FROM generate_series(1, 1000) g")
    sql.execute("DELETE FROM t WHERE id <= 400")
    sql.execute("SELECT pg_stat_force_next_flush()")
    sql.execute("SELECT 1")
    assert value(DeadTuples(), conn) == pytest.approx(400 / 600)
    assert DeadTuples().read(conn, SUBJECT)[1] == "never vacuumed"
    sql.execute("VACUUM t")
    sql.execute("SELECT pg_stat_force_next_flush()")
    sql.execute("SELECT 1")
    share, behind = DeadTuples().read(conn, SUBJECT)
    assert share == 0
    assert behind.startswith("last VACUUM at ")


def test_rollbacks(conn: Connection, sql: psycopg.Connection) -> None:
    """The share of transactions that fail between two looks."""
    signal = Rollbacks()
    value(signal, conn)
    for _ in range(100):
        with contextlib.suppress(psycopg.Error):
            sql.execute("SELECT 1 / 0")
    sql.execute("SELECT pg_stat_force_next_flush()")
    sql.execute("SELECT 1")
    assert value(signal, conn) > 0.5


def test_connections(conn: Connection) -> None:
    """A share of what the server allows."""
    assert 0 < value(Connections(), conn) < 0.5


def test_query(conn: Connection) -> None:
    """The user's number; NULL is none."""
    assert value(Query("jobs", "SELECT 42"), conn) == 42
    with pytest.raises(UnavailableError):
        Query("jobs", "SELECT NULL").read(conn, SUBJECT)


def test_no_standby_is_no_lag(conn: Connection) -> None:
    """A server without standbys is never behind."""
    assert value(ReplicationLag(), conn) == 0


def test_prometheus(conn: Connection) -> None:
    """The largest sample; anything else is not readable."""
    answers = iter(
        [
            {
                "resultType": "vector",
                "result": [{"value": [0, "3.5"]}, {"value": [0, "7"]}],
            },
            {"resultType": "scalar", "result": [0, "2"]},
            {"resultType": "vector", "result": []},
        ]
    )

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"data": next(answers)}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Be quiet."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        signal = Prometheus("errors", f"http://127.0.0.1:{server.server_port}", "x")
        assert value(signal, conn) == 7
        assert value(signal, conn) == 2
        with pytest.raises(UnavailableError, match="no number"):
            signal.read(conn, SUBJECT)
        server.shutdown()
        thread.join()
    with pytest.raises(UnavailableError, match="no number"):
        signal.read(conn, SUBJECT)
