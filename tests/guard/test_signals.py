"""Each signal sees what it is there for, on a real server."""

import base64
import contextlib
import http.server
import json
import secrets
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

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


@pytest.mark.parametrize("cls", [OldestSnapshot, LockWaiters, ReplicationLag, Latency])
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
        statement = latency.question("extensions")
        counted = [row["queryid"] for row in conn.execute(statement)]
        found = sql.execute(
            "SELECT query FROM extensions.pg_stat_statements"
            " WHERE queryid = ANY (%s) AND calls > 3",
            [counted],
        ).fetchall()
        assert found == []


def test_one_slow_call_says_nothing_beside_others_commits(measured: str) -> None:
    """What begins and commits is no call; what reads or writes rows is one."""
    with (
        # A prepared BEGIN is counted once.
        psycopg.connect(measured, autocommit=True, prepare_threshold=None) as app,
        connect(Target.from_url(measured), "migrator:guard") as conn,
    ):

        def begin_and_commit(times: int) -> None:
            for _ in range(times):
                app.execute("BEGIN")
                app.execute("SET LOCAL lock_timeout = '1s'")
                app.execute("COMMIT")

        app.execute("SELECT pg_sleep(0.002)")
        begin_and_commit(3)
        signal = Latency()
        assert value(signal, conn) == 1
        app.execute("SELECT pg_sleep(0.06)")
        begin_and_commit(100)
        assert value(signal, conn) == 1
        forms = (
            "/* a */ -- b\n (SELECT 1)",
            "with a AS (SELECT 2) SELECT * FROM a",
            "INSERT INTO t VALUES (1)",
            "  DELETE FROM t",
        )
        app.execute("SELECT extensions.pg_stat_statements_reset()")
        for form in forms:
            app.execute(form.encode())
        seen = conn.execute(latency.question("extensions")).fetchall()
        # The reset itself comes before its count.
        assert sum(row["calls"] for row in seen) in (len(forms), len(forms) + 1)


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


def test_a_partition_that_is_gone_has_no_dead_rows(
    conn: Connection, sql: psycopg.Connection
) -> None:
    """A backfill passes over it; no signal lets it wait there for ever."""
    signal = DeadTuples()
    assert value(signal, conn) == 0
    sql.execute("DROP TABLE t")
    assert signal.read(conn, SUBJECT) == (0.0, "the table is gone")


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
    """The user's number, whatever its type."""
    assert value(Query("jobs", "SELECT 42"), conn) == 42
    assert value(Query("jobs", "SELECT 4.5::numeric"), conn) == 4.5


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("SELECT NULL", "the query returns nothing"),
        ("SELECT 1 WHERE false", "the query returns nothing"),
        ("SELECT 'many'", "what the query returns is no number"),
        ("SELECT now()", "what the query returns is no number"),
        ("SELECT 'NaN'::numeric", "what the query returns is nan, no finite number"),
        ("SELECT 'infinity'::float8", "what the query returns is inf, no finite"),
    ],
)
def test_what_is_no_number_is_no_figure(query: str, why: str, conn: Connection) -> None:
    """Neither text nor NaN is below a bound; what was read is not repeated."""
    with pytest.raises(UnavailableError, match=why):
        Query("jobs", query).read(conn, SUBJECT)


def test_no_standby_is_no_lag(conn: Connection) -> None:
    """A server without standbys is never behind."""
    assert value(ReplicationLag(), conn) == 0


@dataclass
class Answers:
    """A server that answers what it is told to, and keeps what it was asked."""

    port: int = 0
    body: bytes = b""
    length: int | None = None
    redirect: str = ""
    status: int = 200
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def say(self, kind: str, *samples: str) -> None:
        """Answer with samples."""
        result: Any = [{"value": [0, s]} for s in samples]
        if kind == "scalar":
            result = [0, samples[0]]
        answer = {"data": {"resultType": kind, "result": result}}
        self.body = json.dumps(answer).encode()


@pytest.fixture
def answers() -> Iterator[Answers]:
    """Give a server in the place of Prometheus."""
    told = Answers()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.asked.append((self.path, self.headers["Authorization"]))
            if told.redirect and "moved" not in self.path:
                self.send_response(302)
                self.send_header("Location", told.redirect)
            else:
                self.send_response(told.status)
            length = len(told.body) if told.length is None else told.length
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(told.body)

        def log_message(self, format: str, *args: object) -> None:
            """Be quiet."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        told.port = server.server_port
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield told
        server.shutdown()
        thread.join()


def test_prometheus(conn: Connection, answers: Answers) -> None:
    """The largest sample of what the query asks for."""
    signal = Prometheus("errors", f"http://127.0.0.1:{answers.port}/p/", "a + b")
    answers.say("vector", "3.5", "7")
    assert value(signal, conn) == 7
    assert answers.asked == [("/p/api/v1/query?query=a+%2B+b", None)]
    answers.say("scalar", "2")
    assert value(signal, conn) == 2


@pytest.mark.parametrize(
    ("samples", "why"),
    [
        ([], "no sample"),
        (["NaN"], "a sample of the query is nan, no finite number"),
        (["NaN", "100"], "a sample of the query is nan, no finite number"),
        (["100", "NaN"], "a sample of the query is nan, no finite number"),
        (["+Inf"], "a sample of the query is inf, no finite number"),
        (["many"], "a sample of the query is no number"),
    ],
)
def test_prometheus_has_no_number(
    samples: list[str], why: str, conn: Connection, answers: Answers
) -> None:
    """Nothing by nothing is NaN there; it is not below a bound, and hides none."""
    answers.say("vector", *samples)
    signal = Prometheus("errors", f"http://127.0.0.1:{answers.port}", "x")
    with pytest.raises(UnavailableError, match=why):
        signal.read(conn, SUBJECT)


def test_prometheus_answers_badly(conn: Connection, answers: Answers) -> None:
    """An answer that is cut off, or is something else, is no figure."""
    signal = Prometheus("errors", f"http://127.0.0.1:{answers.port}", "x")
    answers.body, answers.length = b"{", 500
    with pytest.raises(UnavailableError, match="from Prometheus: IncompleteRead"):
        signal.read(conn, SUBJECT)
    answers.length = None
    for body in (b"", b"{", b"[]", b"{}", b'{"data": {"resultType": "vector"}}'):
        answers.body = body
        with pytest.raises(UnavailableError, match="no number from Prometheus"):
            signal.read(conn, SUBJECT)
    nowhere = Prometheus("errors", "http://127.0.0.1:1", "x")
    with pytest.raises(UnavailableError, match="no number from Prometheus"):
        nowhere.read(conn, SUBJECT)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (
            '{"status": "error", "error": "1:5: parse error:\\n unexpected <eof>"}',
            ": 1:5: parse error: unexpected <eof>",
        ),
        (json.dumps({"error": "x" * 300}), f": {'x' * 200}"),
        ('{"error": "no user me:s@cret"}', ""),
        ('{"error": "http://127.0.0.1/api/v1/query?query=x"}', ""),
        ('{"error": 1}', ""),
        ("[]", ""),
        ("<html>", ""),
    ],
)
def test_prometheus_says_why(
    body: str, why: str, conn: Connection, answers: Answers
) -> None:
    """Its own word on a bad query is told; nothing of the URL is."""
    answers.status, answers.body = 400, body.encode()
    url = f"http://me:s%40cret@127.0.0.1:{answers.port}"
    with pytest.raises(UnavailableError) as caught:
        Prometheus("errors", url, "sum(").read(conn, SUBJECT)
    assert str(caught.value) == (
        f"no number from Prometheus: HTTP Error 400: Bad Request{why}"
    )


def test_prometheus_with_a_password(conn: Connection, answers: Answers) -> None:
    """It reaches its server alone: neither an error, nor where that sends us."""
    url = f"http://me:s%40cret@127.0.0.1:{answers.port}"
    signal = Prometheus("errors", url, "x")
    answers.say("scalar", "2")
    assert value(signal, conn) == 2
    answers.redirect = f"http://127.0.0.1:{answers.port}/moved"
    assert value(signal, conn) == 2
    sent = f"Basic {base64.b64encode(b'me:s@cret').decode()}"
    assert [words for _, words in answers.asked] == [sent, sent, None]
    answers.redirect, answers.body = "", b"{"
    for bad in (url, "http://me:s%40cret@127.0.0.1:1", "http://me:s3cret/@host"):
        with pytest.raises(UnavailableError) as caught:
            Prometheus("errors", bad, "x").read(conn, SUBJECT)
        shown = "".join(traceback.format_exception(caught.value))
        told = [line for line in shown.split("\n") if not line.startswith("    ")]
        assert "cret" not in "".join(told)
