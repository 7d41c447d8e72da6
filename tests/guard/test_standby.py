"""A real streaming standby: its lag pauses a backfill, and lets it go on."""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from backfill.live import AfterRows, running, wait_for

from migrator.backfill import order
from migrator.change import Change
from migrator.errors import ConnectionLost, OutcomeUnknown, Refused
from migrator.guard import Policy, Thresholds
from migrator.guard.signal import Subject, UnavailableError
from migrator.guard.signals import replication_lag
from migrator.guard.signals.replication_lag import ReplicationLag
from migrator.guard.signals.slot_retention import SlotRetention
from migrator.ledger.control import Limits, Mode
from migrator.names import TableName
from migrator.patterns import AddColumn
from migrator.plan import State
from migrator.postgres.connection import Connection, Target, connect
from migrator.postgres.embedded import Server
from migrator.runner import Runner
from migrator.settings import Settings

CHANGE = Change(revision="c", pattern=AddColumn("t", "n", "int", computed="id * 2"))
ROWS = 60_000
SUBJECT = Subject(table=TableName("public", "t"))


@dataclass
class Standby:
    """A standby's process."""

    process: subprocess.Popen[bytes]

    def tell(self, sign: int) -> None:
        """Signal the standby and its children, each a group of its own."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        for pid in [self.process.pid, *map(int, children.read_text().split())]:
            with suppress(ProcessLookupError):
                os.kill(pid, sign)


@contextmanager
def streaming(
    primary: Server, name: str, port: int, *settings: str
) -> Iterator[Standby]:
    """Give a standby with a slot, made by pg_basebackup; both have its name."""
    program = primary.bindir / "pg_basebackup"
    if not program.exists():
        pytest.skip(f"{program} does not exist: the server comes without it")
    folder = primary.folder / name
    user = primary._user
    env = {**os.environ, "HOME": str(primary.folder)}
    subprocess.run(
        [
            program,
            *("-D", folder, "-d", primary.url(), "-R", "-X", "stream"),
            *("-C", "-S", name, "--checkpoint=fast", "--no-sync"),
        ],
        check=True,
        capture_output=True,
        env=env,
        **user,
    )
    process = subprocess.Popen(
        [
            primary.bindir / "postgres",
            *("-D", folder, "-c", f"port={port}", "-c", "listen_addresses="),
            *("-c", f"unix_socket_directories={primary.folder}"),
            # No fewer than the primary's, or it does not start.
            *("-c", f"cluster_name={name}", "-c", "max_connections=200"),
            *("-c", "max_prepared_transactions=4"),
            *(word for setting in settings for word in ("-c", setting)),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=env,
        **user,
    )
    made = Standby(process)
    try:
        with psycopg.connect(primary.url(), autocommit=True) as conn:
            for _ in range(200):
                # Until there is something to replay, it may not say how far it is.
                conn.execute("SELECT pg_create_restore_point('start')")
                row = conn.execute(
                    "SELECT count(*) FROM pg_stat_replication r"
                    " JOIN pg_replication_slots s ON s.active_pid = r.pid"
                    " WHERE state = 'streaming' AND replay_lsn IS NOT NULL"
                    " AND slot_name = %s",
                    [name],
                ).fetchone()
                if row == (1,):
                    break
                time.sleep(0.05)
            else:
                pytest.fail("the standby does not stream")
        yield made
    finally:
        if process.poll() is None:
            made.tell(signal.SIGCONT)
            process.send_signal(signal.SIGQUIT)
        process.wait(20)
        shutil.rmtree(Path(folder), ignore_errors=True)


@pytest.fixture
def standby(private_server: Server) -> Iterator[Standby]:
    """Give a standby."""
    with streaming(private_server, "far", 1) as made:
        yield made


def _behind(sql: psycopg.Connection) -> int:
    """Return how many bytes of WAL the standby has not replayed."""
    row = sql.execute(
        "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::bigint"
        " FROM pg_stat_replication"
    ).fetchone()
    return 1 if row is None or row[0] is None else int(row[0])


def test_a_standby_that_stops_pauses_the_backfill(
    private_server: Server, standby: Standby
) -> None:
    """Its lag grows, the backfill slows down and pauses; it catches up, and it ends."""
    url = private_server.url()
    bounds = Thresholds(throttle=300_000, pause=3_000_000)
    policy = Policy(thresholds={"replication-lag": bounds}, interval_s=0.05)
    runner = Runner(Target.from_url(url), Settings(target_ms=5, hold_s=0), guard=policy)
    with psycopg.connect(url, autocommit=True) as sql:
        sql.execute(
            "CREATE TABLE t (id int PRIMARY KEY, pad text);"
            "INSERT INTO t SELECT g, repeat('x', 100)"
            f" FROM generate_series(1, {ROWS}) g"
        )

        def filled() -> int:
            row = sql.execute("SELECT count(*) FROM t WHERE n IS NOT NULL").fetchone()
            assert row is not None
            return int(row[0])

        runner.expand(CHANGE)
        # As slow as a large table would be: some 2 MB of WAL a second.
        runner.limit("c", Limits(max_rows_per_s=10_000))
        # Else it lags by what came before.
        wait_for("the standby to have it all", lambda: _behind(sql) == 0)
        standby.tell(signal.SIGSTOP)
        thread = threading.Thread(target=runner.backfill, args=("c",))
        thread.start()

        def paused() -> bool:
            told = [e["detail"] for e in runner.events("c") if e["kind"] == "guard"]
            return bool(told) and told[-1]["action"] == "pause"

        for _ in range(600):
            if paused():
                break
            time.sleep(0.05)
        # The chunk under way comes to its end.
        time.sleep(0.5)
        before = filled()
        time.sleep(0.5)
        assert filled() == before
        assert before < ROWS
        standby.tell(signal.SIGCONT)
        runner.limit("c", None)
        thread.join(timeout=60)
        assert not thread.is_alive()
        assert filled() == ROWS
    told = [e["detail"] for e in runner.events("c") if e["kind"] == "guard"]
    assert [d["action"] for d in told[:2]] == ["throttle", "pause"]
    assert told[2]["action"] in ("throttle", "go")
    assert any(d["action"] == "pause" and "standby far" in d["reason"] for d in told)


def test_the_worst_of_two_standbys_counts(private_server: Server) -> None:
    """Whichever it is; one that keeps up does not hide the other."""
    with (
        streaming(private_server, "far", 1) as far,
        streaming(private_server, "near", 2) as near,
        connect(Target.from_url(private_server.url()), "migrator:guard") as conn,
    ):
        lag, slots = ReplicationLag(), SlotRetention()
        lag.read(conn, SUBJECT)
        conn.execute("CREATE TABLE t (id int, pad text)")

        def is_worst(name: str) -> None:
            wait_for(name, lambda: lag.read(conn, SUBJECT)[1] == f"standby {name}")

        for name, stopped in (("far", far), ("near", near)):
            stopped.tell(signal.SIGSTOP)
            conn.execute(
                "INSERT INTO t SELECT g, repeat('x', 90)"
                " FROM generate_series(1, 9999) g"
            )
            # The other one catches up meanwhile; this one does not.
            is_worst(name)
            assert lag.read(conn, SUBJECT)[0] > 1_000_000
            assert slots.read(conn, SUBJECT)[1] == f"slot {name}"
            stopped.tell(signal.SIGCONT)
            wait_for("both", lambda: lag.read(conn, SUBJECT)[0] < 100_000)


def test_a_standby_that_vanishes_is_not_readable(
    private_server: Server, standby: Standby
) -> None:
    """Neither its lag nor its absence is taken for none; its slot keeps WAL."""
    lag, slots = ReplicationLag(), SlotRetention()
    with connect(Target.from_url(private_server.url()), "migrator:guard") as conn:
        figure, behind = lag.read(conn, SUBJECT)
        assert behind == "standby far"
        assert figure >= 0
        standby.process.send_signal(signal.SIGQUIT)
        standby.process.wait(20)
        for _ in range(100):
            rows = conn.execute("SELECT FROM pg_stat_replication").fetchall()
            if not rows:
                break
            time.sleep(0.05)
        with pytest.raises(UnavailableError, match="standby far is not connected"):
            lag.read(conn, SUBJECT)
        conn.execute("CREATE TABLE t AS SELECT g FROM generate_series(1, 20000) g")
        kept, behind = slots.read(conn, SUBJECT)
        assert behind == "slot far"
        assert kept > 500_000


def senders(conn: Connection, condition: str) -> int:
    """Return how many connections of standbys and the like there are."""
    query = f"SELECT count(*) AS n FROM pg_stat_replication WHERE {condition}"
    row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return int(row["n"])


def test_one_of_two_standbys_of_a_name_vanishes(private_server: Server) -> None:
    """They are counted: who is left does not hide who is gone, nor a short doubling."""
    named = "cluster_name=walreceiver"
    lag, later = ReplicationLag(), ReplicationLag()
    with (
        connect(Target.from_url(private_server.url()), "migrator:guard") as conn,
        streaming(private_server, "far", 1, named) as far,
    ):
        assert later.read(conn, SUBJECT)[1] == "standby walreceiver"
        with streaming(private_server, "near", 2, named):
            lag.read(conn, SUBJECT)
            # May be the same one, connected again.
            later.read(conn, SUBJECT)
            far.process.send_signal(signal.SIGQUIT)
            far.process.wait(20)
            wait_for("its end", lambda: senders(conn, "true") == 1)
            why = "1 of 2 standbys walreceiver is not connected"
            with pytest.raises(UnavailableError, match=why):
                lag.read(conn, SUBJECT)
            assert later.read(conn, SUBJECT)[1] == "standby walreceiver"


def test_a_further_standby_of_a_name_counts_once_it_stays(
    private_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at once, or a standby that connects again would be missed later."""
    named = "cluster_name=walreceiver"
    lag = ReplicationLag()
    with (
        connect(Target.from_url(private_server.url()), "migrator:guard") as conn,
        streaming(private_server, "far", 1, named),
    ):
        lag.read(conn, SUBJECT)
        with streaming(private_server, "near", 2, named):
            lag.read(conn, SUBJECT)
            monkeypatch.setattr(replication_lag, "SETTLED_S", 0.0)
            lag.read(conn, SUBJECT)
        wait_for("its end", lambda: senders(conn, "true") == 1)
        with pytest.raises(UnavailableError, match="1 of 2 standbys walreceiver"):
            lag.read(conn, SUBJECT)


def test_what_is_no_standby_may_come_and_go(
    private_server: Server, standby: Standby
) -> None:
    """What fills a subscription's new table, and what stores WAL, end by themselves."""
    lag = ReplicationLag()
    archive = private_server.folder / "archive"
    archive.mkdir(mode=0o777)
    archive.chmod(0o777)
    with connect(Target.from_url(private_server.url()), "migrator:guard") as conn:
        with streaming(
            private_server, "fills", 2, "cluster_name=pg_16390_sync_16385_7"
        ):
            url = f"{private_server.url()}&application_name=other_backup"
            storing = subprocess.Popen(
                [private_server.bindir / "pg_receivewal", "-D", archive, "-d", url]
            )
            try:
                others = "state = 'streaming' AND application_name <> 'far'"
                wait_for("both", lambda: senders(conn, others) == 2)
                assert lag.read(conn, SUBJECT)[1] == "standby far"
            finally:
                storing.kill()
                storing.wait()
        wait_for("their end", lambda: senders(conn, "true") == 1)
        assert lag.read(conn, SUBJECT)[1] == "standby far"
    assert standby.process.poll() is None


def test_resume_goes_on_without_a_standby(private_server: Server) -> None:
    """One that was taken away for good pauses until it is back, or a person says so."""
    url = private_server.url()
    policy = Policy(thresholds={"replication-lag": Thresholds(pause=1e12)})
    settings = Settings(target_ms=5, hold_s=0)
    runner = Runner(
        Target.from_url(url), settings, guard=replace(policy, interval_s=0.1)
    )
    why = (
        "replication-lag could be read and no longer can: standby far is not connected"
        " (waits until it can, or until `migrator resume c`)"
    )
    with psycopg.connect(url, autocommit=True) as sql:
        sql.execute(
            "CREATE TABLE t (id int PRIMARY KEY, pad text);"
            "INSERT INTO t SELECT g, repeat('x', 100)"
            f" FROM generate_series(1, {ROWS}) g"
        )
        runner.expand(CHANGE)
        runner.limit("c", Limits(max_rows_per_s=10_000))
        # What was said before is no answer to it.
        runner.say("c", Mode.RUN, "")
        with ExitStack() as stack:
            far = stack.enter_context(streaming(private_server, "far", 1))
            run = stack.enter_context(running(runner))
            filled = "SELECT count(*) FROM t WHERE n IS NOT NULL"
            wait_for("some rows", lambda: sql.execute(filled).fetchone() != (0,))
            far.process.send_signal(signal.SIGQUIT)
            wait_for(
                "the pause", lambda: any(s.waiting == why for s in runner.steps("c"))
            )
            before = sql.execute(filled).fetchone()
            time.sleep(0.5)
            assert sql.execute(filled).fetchone() == before
            runner.limit("c", None)
            runner.say("c", Mode.RUN, "it is gone for good")
        assert run.error is None
        assert sql.execute(filled).fetchone() == (ROWS,)
    told = [e["detail"]["action"] for e in runner.events("c") if e["kind"] == "guard"]
    assert told == ["pause", "go"]


def test_a_query_on_a_standby_keeps_vacuum_away(
    private_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the standby reports its snapshot, VACUUM would remove nothing behind it."""
    monkeypatch.setattr(order, "WINDOW_BLOCKS", 64)
    url = private_server.url()
    settings = Settings(chunking="blocks", target_ms=20, hold_s=0)
    runner = Runner(Target.from_url(url), settings)
    reports = ("hot_standby_feedback=on", "wal_receiver_status_interval=1s")
    report = f"postgresql://postgres@/postgres?host={private_server.folder}&port=1"

    def vacuums() -> list[Any]:
        return [e["detail"] for e in runner.events("c") if e["kind"] == "vacuum"]

    with (
        psycopg.connect(url, autocommit=True) as sql,
        streaming(private_server, "far", 1, *reports),
    ):
        sql.execute(
            "CREATE TABLE t (id int PRIMARY KEY, pad text)"
            " WITH (autovacuum_enabled = off);"
            "INSERT INTO t SELECT g, repeat('x', 90) FROM generate_series(1, 40000) g"
        )
        lsn = sql.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
        assert lsn is not None

        def replayed() -> bool:
            with suppress(psycopg.Error), psycopg.connect(report) as far:
                done = far.execute(
                    "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", lsn
                ).fetchone()
                return done == (True,)
            return False

        wait_for("the table there", replayed)
        with psycopg.connect(report) as far:
            far.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            far.execute("SELECT count(*) FROM t")
            reported = "SELECT xmin IS NOT NULL FROM pg_replication_slots"
            wait_for(
                "its snapshot", lambda: sql.execute(reported).fetchone() == (True,)
            )
            runner.expand(CHANGE)
            runner.backfill("c")
        why = 'replication slot "far" holds a snapshot (hot_standby_feedback)'
        assert vacuums()
        assert {found.get("skipped") for found in vacuums()} == {why}


def test_a_standby_takes_no_change(private_server: Server, standby: Standby) -> None:
    """The engine refuses it, whatever command comes."""
    assert standby.process.poll() is None
    folder = private_server.folder
    url = f"postgresql://postgres@/postgres?host={folder}&port=1"
    for _ in range(100):
        try:
            psycopg.connect(url).close()
            break
        except psycopg.OperationalError:
            time.sleep(0.05)
    with pytest.raises(Refused, match="it is a standby"):
        Runner(Target.from_url(url)).expand(CHANGE)


def test_a_promoted_standby_goes_on(private_server: Server, standby: Standby) -> None:
    """The primary dies in mid-backfill; the same command ends it on the standby."""
    settings = Settings(chunking="blocks", target_ms=5, lease_s=2, hold_s=0)
    lost = Runner(Target.from_url(private_server.url()), settings)
    with psycopg.connect(private_server.url(), autocommit=True) as sql:
        sql.execute(
            "CREATE TABLE t (id int PRIMARY KEY, pad text);"
            "INSERT INTO t SELECT g, repeat('x', 100)"
            f" FROM generate_series(1, {ROWS}) g"
        )
    lost.expand(CHANGE)
    lost.progress = AfterRows(ROWS // 4, lambda: private_server.stop(immediate=True))
    with pytest.raises((ConnectionLost, OutcomeUnknown)):
        lost.backfill("c")
    url = f"postgresql://postgres@/postgres?host={private_server.folder}&port=1"
    with psycopg.connect(url, autocommit=True) as sql:
        sql.execute("SELECT pg_promote()")
        row = sql.execute("SELECT count(n) FROM t").fetchone()
        assert row is not None
        assert 0 < row[0] < ROWS
        runner = Runner(Target.from_url(url), settings)
        assert runner.settle("c") is State.VERIFIED
        row = sql.execute("SELECT count(*) FROM t WHERE n = id * 2").fetchone()
        assert row == (ROWS,)
    (step,) = (s for s in runner.steps("c") if s.step.name == "fill_rows")
    assert step.rows == ROWS
