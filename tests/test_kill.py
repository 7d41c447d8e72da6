"""The process killed, the server restarted, the connection cut: then run again."""

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest

from migrator import execution as module
from migrator.change import Change
from migrator.errors import ConnectionLost, Held, MigratorError, OutcomeUnknown
from migrator.patterns import RenameColumn
from migrator.plan import State
from migrator.postgres import connection
from migrator.postgres.connection import Target
from migrator.postgres.embedded import Server
from migrator.runner import Runner
from migrator.settings import Settings

ROWS = 20_000
SETUP = (
    "CREATE TABLE t (id int PRIMARY KEY, name text NOT NULL);"
    "CREATE INDEX t_name ON t (name);"
    f"INSERT INTO t SELECT g, 'n' || g FROM generate_series(1, {ROWS}) g"
)
CHANGE = Change(revision="k1", pattern=RenameColumn("t", "name", "full_name"))

# The whole life, with SIGKILL at the N-th entry of the ledger's bookkeeping: in
# the middle of the transaction that it belongs to, or right after the commit.
LIFE = """
import os, signal, sys
from migrator import runner as r
from migrator.change import Change
from migrator.ledger import store, windows
from migrator.patterns import RenameColumn
from migrator.postgres import connection
from migrator.postgres.connection import Target
from migrator.settings import Settings

url, at, when = sys.argv[1], int(sys.argv[2]), sys.argv[3]
count = 0


def dying(real):
    def call(*args, **kwargs):
        global count
        count += 1
        if count == at and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        done = real(*args, **kwargs)
        if count == at and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    return call


store.set_status = dying(store.set_status)
windows.advance = dying(windows.advance)
windows.finish = dying(windows.finish)
store.set_state = dying(store.set_state)
store.add_steps = dying(store.add_steps)
engine = r.Runner(Target.from_url(url), Settings(hold_s=0, target_ms=20))
change = Change(revision="k1", pattern=RenameColumn("t", "name", "full_name"))
engine.expand(change)
engine.backfill(change.id)
engine.verify(change.id)
engine.retire(change.id, old_release_gone="test")
engine.drop(change.id)
print("bookkeeping entries:", count)
"""


def life(url: str, at: int, when: str = "before") -> subprocess.Popen[str]:
    """Start the life in a process that kills itself at an entry."""
    return subprocess.Popen(
        [sys.executable, "-c", LIFE, url, str(at), when],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def go_on(runner: Runner) -> None:
    """Run the same commands again, to the end."""
    runner.expand(CHANGE)
    runner.backfill(CHANGE.id)
    if runner.change(CHANGE.id).state.rank < State.RETIRED.rank:
        with contextlib.suppress(MigratorError):
            runner.verify(CHANGE.id)
    runner.retire(CHANGE.id, old_release_gone="test")
    assert runner.drop(CHANGE.id) is State.DROPPED


def assert_whole(sql: psycopg.Connection, runner: Runner) -> None:
    """Each row is right, one valid index is left, no step was done twice."""
    assert sql.execute(
        "SELECT count(*), count(*) FILTER (WHERE full_name = 'n' || id) FROM t"
    ).fetchone() == (ROWS, ROWS)
    assert sql.execute(
        "SELECT array_agg(indexrelid::regclass::text"
        " ORDER BY indexrelid::regclass::text), bool_and(indisvalid)"
        " FROM pg_index WHERE indrelid = 't'::regclass"
    ).fetchone() == (["t_name", "t_pkey"], True)
    done = [
        (s.phase, s.step.name)
        for s in runner.steps(CHANGE.id)
        if s.status == "done" and s.phase != "verify"
    ]
    assert len(done) == len(set(done))
    events = [
        e["detail"]["step"]
        for e in runner.events(CHANGE.id)
        if e["kind"] == "step" and e["detail"]["status"] == "done"
    ]
    for name in ("mirror_column", "copy_rows", "copy_index_1", "exchange_names"):
        assert events.count(name) == 1
    # A backend goes away a moment after its client.
    for _ in range(100):
        left = sql.execute(
            "SELECT array_agg(application_name) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE 'migrator:%'"
        ).fetchone()
        if left == (None,):
            return
        time.sleep(0.05)
    pytest.fail(f"sessions are left: {left}")


@pytest.mark.parametrize("when", ["before", "after"])
def test_sigkill_at_every_boundary(
    when: str, database: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """Killed at each entry of the ledger in turn, the life ends as it should."""
    sql.execute(SETUP.encode())
    at = 1
    while True:
        process = life(database, at, when)
        out, err = process.communicate(timeout=60)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, err
        go_on(runner)
        assert_whole(sql, runner)
        sql.execute("DROP TABLE t; DROP SCHEMA migrator CASCADE")
        sql.execute(SETUP.encode())
        # Every boundary of the first phases, then in larger strides through
        # the chunks, of which there are many alike.
        at += 1 if at < 8 else 4
    assert "bookkeeping entries" in out
    assert at > 8


@pytest.mark.parametrize("complete", [False, True])
def test_sigkill_in_a_chunk(
    database: str, runner: Runner, sql: psycopg.Connection, *, complete: bool
) -> None:
    """Nothing of that chunk stays; nothing goes on to contract without the rest."""
    sql.execute(SETUP.encode())
    runner.expand(CHANGE)
    with psycopg.connect(database) as other:
        other.execute("SELECT FROM t WHERE id = 5000 FOR UPDATE")
        process = life(database, 10_000)
        _wait(sql, "wait_event_type = 'Lock' AND query LIKE 'UPDATE%'")
        process.kill()
        process.communicate()
    with pytest.raises(Held, match="is expanded"):
        runner.retire(CHANGE.id, old_release_gone="test")
    if complete:
        assert runner.complete(CHANGE) is State.DROPPED
    else:
        go_on(runner)
    assert_whole(sql, runner)


def test_sigkill_while_an_index_build_waits(
    database: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """A build that waits for an old snapshot is ended, dropped and built again."""
    sql.execute(SETUP.encode())
    with psycopg.connect(database) as other:
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT 1")
        process = life(database, 10_000)
        _wait(sql, "wait_event_type = 'Lock' AND query LIKE 'CREATE INDEX%'")
        process.kill()
        process.communicate()
        assert sql.execute(
            "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
        ).fetchone() == (1,)
    go_on(runner)
    assert_whole(sql, runner)


def _wait(sql: psycopg.Connection, condition: str) -> None:
    """Wait until a session of the engine is seen in a state."""
    for _ in range(200):
        row = sql.execute(
            b"SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE"
            b" 'migrator:%' AND " + condition.encode()
        ).fetchone()
        if row != (0,):
            return
        time.sleep(0.05)
    pytest.fail(f"no session was seen with {condition}")


def test_server_restart_in_a_backfill(private_server: Server) -> None:
    """An immediate shutdown in mid-backfill: the same command goes on."""
    url = private_server.url()
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("ALTER SYSTEM SET synchronous_commit = on")
        conn.execute("SELECT pg_reload_conf()")
        conn.execute(SETUP.encode())
        conn.execute("CHECKPOINT")
    runner = Runner(Target.from_url(url), Settings(hold_s=0, lease_s=3))
    runner.expand(CHANGE)
    other = psycopg.connect(url)
    other.execute("SELECT FROM t WHERE id = 15000 FOR UPDATE")
    process = life(url, 10_000)
    with psycopg.connect(url, autocommit=True) as look:
        _wait(look, "wait_event_type = 'Lock' AND query LIKE 'UPDATE%'")
    private_server.restart(immediate=True)
    other.close()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "ConnectionLost" in err or "OutcomeUnknown" in err
    go_on(runner)
    with psycopg.connect(url, autocommit=True) as conn:
        assert_whole(conn, runner)


class Cutter:
    """A TCP proxy that cuts the line right after it passed on a COMMIT."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.armed = False
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def own(self) -> int:
        """The port that clients connect to."""
        return int(self.listener.getsockname()[1])

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                server = socket.create_connection(("127.0.0.1", self.port))
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
                if self.armed and b"COMMIT\0" in data:
                    self.armed = False
                    # The server gets to commit; its answer is never passed on.
                    source.shutdown(socket.SHUT_RDWR)
                    time.sleep(0.3)
                    break
        for end in (source, sink):
            end.close()


@pytest.fixture
def cutter(server: Server) -> Iterator[Cutter]:
    """Give a proxy in front of the shared server."""
    made = Cutter(server.port)
    yield made
    made.listener.close()


def _expand_and_backfill(runner: Runner) -> None:
    runner.expand(CHANGE)
    runner.backfill(CHANGE.id)


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5])
def test_connection_cut_at_commit(
    at: int, database: str, runner: Runner, sql: psycopg.Connection, cutter: Cutter
) -> None:
    """A lost answer to COMMIT is told as such, and the next run reads the state."""
    sql.execute(SETUP.encode())
    target = Target.from_url(database.replace(f":{cutter.port}/", f":{cutter.own}/"))
    through = replace(runner, target=target)
    runner.changes()
    real, count = connection.transaction, 0

    @contextlib.contextmanager
    def arming(*args: object, **kwargs: object) -> Iterator[None]:
        nonlocal count
        count += 1
        with real(*args, **kwargs):  # type: ignore[arg-type]
            yield
            cutter.armed = count == at

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "transaction", arming)
        with pytest.raises((OutcomeUnknown, ConnectionLost)):
            _expand_and_backfill(through)
    go_on(runner)
    assert_whole(sql, runner)
