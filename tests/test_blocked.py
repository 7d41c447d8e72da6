"""Locks that others hold: our step gives up in time and names them."""

import re
import threading
import time
from dataclasses import replace

import psycopg
import pytest

from migrator.change import Change
from migrator.errors import LockBudgetError
from migrator.pattern import Pattern
from migrator.patterns import (
    AddEnumValue,
    AddForeignKey,
    CreateIndex,
    DropIndex,
    Reindex,
    RenameColumn,
)
from migrator.plan import State
from migrator.progress import Silent
from migrator.runner import Runner
from migrator.settings import Settings

CHANGE = Change(revision="b1", pattern=RenameColumn("t", "name", "full_name"))
# What a statement may wait behind our step, over its lock budget: a loaded
# machine of two cores.
SLACK_MS = 300


@pytest.fixture(autouse=True)
def table(sql: psycopg.Connection) -> None:
    """Make a small table."""
    sql.execute("CREATE TABLE t (id int PRIMARY KEY, name text)")
    sql.execute("INSERT INTO t SELECT g, 'n' || g FROM generate_series(1, 1000) g")


def columns(sql: psycopg.Connection) -> set[str]:
    """Return the columns of the table."""
    rows = sql.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = 't'::regclass"
        " AND attnum > 0 AND NOT attisdropped"
    )
    return {name for (name,) in rows}


class Heard(Silent):
    """A progress that keeps why it waits."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def waiting(self, reason: str, seconds: float = 0.0) -> None:
        """Keep it."""
        self.reasons.append(reason)


@pytest.mark.parametrize(
    "held", ["SELECT FROM t LIMIT 1", "UPDATE t SET name = 'x' WHERE id = 1"]
)
def test_step_gives_up_and_names_the_blocker(
    held: str, database: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """An open transaction on the table ends the step, which leaves nothing."""
    slowest: list[float] = []
    stop = threading.Event()

    def probe() -> None:
        with psycopg.connect(database, autocommit=True) as conn:
            while not stop.wait(0.01):
                began = time.perf_counter()
                conn.execute("SELECT name FROM t WHERE id = 7")
                slowest.append((time.perf_counter() - began) * 1000)

    thread = threading.Thread(target=probe)
    with psycopg.connect(database, application_name="billing") as other:
        other.execute(held.encode())
        pid = other.info.backend_pid
        thread.start()
        with pytest.raises(LockBudgetError) as caught:
            runner.expand(CHANGE)
        stop.set()
        thread.join()
    text = str(caught.value)
    assert 'Step \'mirror_column\' on table "public"."t" got no lock' in text
    assert f'pid {pid} (application "billing", idle in transaction' in text
    assert "run the same command again" in text
    assert columns(sql) == {"id", "name"}
    assert max(slowest) < runner.settings.lock_timeout_ms + SLACK_MS
    assert runner.expand(CHANGE) is State.EXPANDED


def test_the_removal_of_what_a_build_left_tells_whom_it_waits_for(
    database: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """A drop waits for readers as well, which no build does."""
    sql.execute("CREATE INDEX by_name ON t (name)")
    runner.complete(Change(revision="b1", pattern=DropIndex("t", "by_name")))
    sql.execute("UPDATE t SET name = 'same' WHERE id < 3")
    with pytest.raises(psycopg.errors.UniqueViolation):
        sql.execute("CREATE UNIQUE INDEX CONCURRENTLY by_name ON t (name)")
    heard = Heard()
    slow = replace(runner, progress=heard)
    with psycopg.connect(database, application_name="report") as other:
        other.execute("SELECT FROM t LIMIT 1")
        timer = threading.Timer(1.0, other.commit)
        timer.start()
        assert slow.rollback("b1", to=State.PLANNED) is State.PLANNED
        timer.join()
    assert "through: pid" in heard.reasons[0]
    assert 'application "report"' in heard.reasons[0]


@pytest.mark.parametrize("held", ["UPDATE t SET name = 'x'", "LOCK TABLE t"])
def test_a_prepared_transaction_is_named(
    held: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """It has no process: its identifier tells what ends it, of a plan or a step."""
    quick = replace(runner, settings=Settings(step_budget_s=1.0))
    sql.execute(f"BEGIN; {held}; PREPARE TRANSACTION 'it''s'".encode())
    try:
        with pytest.raises(LockBudgetError) as caught:
            quick.expand(CHANGE)
    finally:
        sql.execute("ROLLBACK PREPARED 'it''s'")
    assert 'prepared transaction "it\'s" for' in str(caught.value)
    assert "COMMIT PREPARED 'it''s' or ROLLBACK PREPARED 'it''s'" in str(caught.value)
    assert quick.expand(CHANGE) is State.EXPANDED


def test_build_waits_for_an_old_snapshot_within_its_own_budget(
    database: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """A concurrent build gives up in its budget and leaves no index to be used."""
    quick = replace(runner, settings=Settings(build_budget_s=1.0))
    change = Change(revision="b2", pattern=CreateIndex("t", ["name"], "t_name"))
    with psycopg.connect(database, application_name="report") as other:
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT 1")
        with pytest.raises(LockBudgetError, match='application "report"'):
            quick.expand(change)
        # Nothing is left that each write would have to maintain.
        assert sql.execute("SELECT to_regclass('t_name')").fetchone() == (None,)
    assert quick.expand(change) is State.VERIFIED
    assert sql.execute(
        "SELECT count(*), bool_and(indisvalid) FROM pg_index"
        " WHERE indrelid = 't'::regclass"
    ).fetchone() == (2, True)


@pytest.mark.parametrize(
    ("pattern", "held"),
    [
        (DropIndex("t", "ix"), "SELECT FROM t LIMIT 1"),
        (Reindex("t", "ix"), "SELECT FROM t LIMIT 1"),
        (CreateIndex("t", ["id"], "t_id"), "UPDATE t SET name = 'x' WHERE id = 1"),
    ],
)
def test_who_has_used_the_table_is_named(
    pattern: Pattern,
    held: str,
    database: str,
    runner: Runner,
    sql: psycopg.Connection,
) -> None:
    """It holds no lock that conflicts with ours, and is waited for all the same."""
    sql.execute("CREATE INDEX ix ON t (name)")
    quick = replace(
        runner, settings=Settings(build_budget_s=0.6, hold_s=0, step_budget_s=0.1)
    )
    quick.progress = heard = Heard()
    change = Change(revision="b5", pattern=pattern)
    drops = isinstance(pattern, DropIndex)
    if drops:
        quick.expand(change)
        quick.retire("b5", old_release_gone="test")

    def run() -> State:
        return quick.drop("b5") if drops else quick.expand(change)

    with psycopg.connect(database, application_name="report") as other:
        other.execute(held.encode())
        pid = other.info.backend_pid
        with pytest.raises(LockBudgetError) as caught:
            run()
    who = f'pid {pid} (application "report", idle in transaction'
    text = str(caught.value)
    assert " waited 0.6 s for transactions that began before it." in text
    assert "This step is half done" in text
    assert f"Held by {who}" in text
    assert any(f"until those before it are through: {who}" in r for r in heard.reasons)
    run()
    assert sql.execute("SELECT bool_and(indisvalid) FROM pg_index").fetchone() == (
        True,
    )


def test_row_lock_delays_a_chunk_and_names_the_rows(
    database: str, runner: Runner
) -> None:
    """A row locked for the whole budget ends the backfill, which goes on later."""
    runner.expand(CHANGE)
    with psycopg.connect(database) as other:
        other.execute("SELECT FROM t WHERE id = 500 FOR UPDATE")
        with pytest.raises(LockBudgetError, match=r"rows locked for .* s: blocks"):
            runner.backfill(CHANGE.id)
    assert runner.backfill(CHANGE.id) is State.BACKFILLED


def test_a_step_without_a_lock_on_a_table_waits_for_a_lock(
    database: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """What it waits for is no table's: the words name none."""
    sql.execute("CREATE TYPE mood AS ENUM ('a'); ALTER TABLE t ADD COLUMN m mood")
    runner.progress = heard = Heard()
    change = Change(revision="b3", pattern=AddEnumValue("t", "m", "b"))
    with psycopg.connect(database) as other:
        other.execute("ALTER TYPE mood ADD VALUE 'c'")
        with pytest.raises(LockBudgetError):
            runner.expand(change)
    assert set(heard.reasons) == {"for a lock"}


def test_two_processes_make_one_change(database: str, runner: Runner) -> None:
    """Two that expand at once: one works, the other waits and finds it done."""
    found: list[State] = []
    threads = [
        threading.Thread(target=lambda: found.append(runner.expand(CHANGE)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [State.EXPANDED] * 2
    done = [e for e in runner.events(CHANGE.id) if e["detail"].get("status") == "done"]
    assert len(done) == 1


@pytest.mark.parametrize("edit", ["DELETE FROM", "UPDATE", "TRUNCATE"])
def test_event_log_is_append_only(
    edit: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """Events can be neither changed nor removed, by the owner either."""
    runner.expand(CHANGE)
    tail = " SET kind = 'x'" if edit == "UPDATE" else ""
    with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
        sql.execute(f"{edit} migrator.events{tail}".encode())


def test_disabled_trigger_stops_the_backfill(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """A dual write that somebody switched off is seen before the next chunk."""
    runner.expand(CHANGE)
    sql.execute("ALTER TABLE t DISABLE TRIGGER USER")
    with pytest.raises(Exception, match="missing or not enabled ALWAYS"):
        runner.backfill(CHANGE.id)


@pytest.mark.parametrize("what", ["plan", "expand"])
def test_a_locked_table_is_not_waited_for_without_end(
    what: str, database: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """Its facts cannot be read; who holds it is named."""
    runner.settings = replace(runner.settings, step_budget_s=1.0)
    with psycopg.connect(database, application_name="nightly") as other:
        other.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        pid = other.info.backend_pid
        with pytest.raises(LockBudgetError) as caught:
            getattr(runner, what)(CHANGE)
    assert re.fullmatch(
        r'Table "public"\."t" could not be read within 1 s: held by'
        rf' pid {pid} \(application "nightly", idle in transaction for \d+ s\)\.\n'
        r"Nothing was changed\.\n"
        r"Next: end that session, then run the same command again\.",
        str(caught.value),
    )
    assert columns(sql) == {"id", "name"}
    assert runner.expand(CHANGE) is State.EXPANDED


def test_two_tables_are_tried_in_either_order(
    database: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """A transaction that takes the tables the other way round can go on and end."""
    sql.execute("CREATE TABLE u (id int PRIMARY KEY); INSERT INTO u VALUES (1)")
    sql.execute("ALTER TABLE t ADD ref int DEFAULT 1")
    pattern = AddForeignKey("t", ["ref"], "u", ["id"], "t_ref")
    change = Change(revision="f", pattern=pattern)
    runner.expand(change)
    runner.backfill(change.id)
    runner.verify(change.id)
    waits_without_the_other = (
        "SELECT FROM pg_locks w WHERE NOT granted AND relation = 'u'::regclass"
        " AND NOT EXISTS (SELECT FROM pg_locks h WHERE h.pid = w.pid"
        " AND h.relation = 't'::regclass AND h.mode = 'ShareRowExclusiveLock')"
    )
    with psycopg.connect(database) as other:
        other.execute("UPDATE u SET id = 1")
        step = threading.Thread(
            target=runner.retire, args=[change.id], kwargs={"old_release_gone": "-"}
        )
        step.start()
        deadline = time.monotonic() + 2.5
        while sql.execute(waits_without_the_other).fetchone() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        other.execute("INSERT INTO t (id) VALUES (0)")
    step.join()
    assert runner.change(change.id).state is State.RETIRED
