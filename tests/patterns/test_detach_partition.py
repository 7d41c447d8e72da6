"""DetachPartition: its text, its life, what it waits for, its messages."""

import threading
from dataclasses import replace

import psycopg
import pytest

from migrator.change import Change
from migrator.errors import LockBudgetError, Refused
from migrator.facts import Facts, Table
from migrator.names import TableName
from migrator.patterns import DetachPartition
from migrator.plan import Autocommit, Phase, State, Transaction
from migrator.runner import Runner
from migrator.settings import Settings

DETACH = DetachPartition("events", "first")
CHANGE = Change(revision="a1", pattern=DETACH)
NOTHING = "\nNothing was changed.\nNext: "
SETUP = (
    "CREATE TABLE users (id int PRIMARY KEY); INSERT INTO users VALUES (1);"
    " CREATE TABLE events (id int PRIMARY KEY, by_user int REFERENCES users, n int)"
    " PARTITION BY RANGE (id); CREATE INDEX ON events (n);"
    " CREATE TABLE first PARTITION OF events FOR VALUES FROM (0) TO (10);"
    " CREATE TABLE second PARTITION OF events FOR VALUES FROM (10) TO (20);"
    " INSERT INTO events SELECT g, 1, g FROM generate_series(0, 19) g;"
)


# -- text --------------------------------------------------------------------


def test_text_with_hostile_names() -> None:
    """One statement, what finishes it, and the bounds as the server spells them."""
    table, part = TableName("my sch", 'p "%s'), TableName("my sch", 'c "%s:x')
    given = Facts(
        server_version=180000,
        tag="0123456789",
        table=Table(name=table, oid=1, columns=(), kind="p"),
        others=(Table(name=part, oid=2, columns=(), bounds="FOR VALUES IN ('%s:x')"),),
    )
    child, parent = '"my sch"."c ""%s:x"', '"my sch"."p ""%s"'
    (step,) = DetachPartition(table.name, part.name).retire(given)
    assert isinstance(step.work, Autocommit)
    text = f"ALTER TABLE {parent} DETACH PARTITION {child}"
    assert step.work.statement == f"{text} CONCURRENTLY"
    assert step.work.remove == f"{text} FINALIZE"
    finished, attached = step.reverse
    assert isinstance(finished, Autocommit)
    assert isinstance(attached, Transaction)
    assert finished.statement == f"{text} FINALIZE"
    assert attached.statements == (
        f"LOCK TABLE {child} IN ACCESS EXCLUSIVE MODE",
        f"LOCK TABLE ONLY {parent} IN SHARE UPDATE EXCLUSIVE MODE",
        f"ALTER TABLE {parent} ATTACH PARTITION {child} FOR VALUES IN ('%s:x')",
    )


# -- life cycle --------------------------------------------------------------


def count(sql: psycopg.Connection, table: str = "events") -> int:
    """Return how many rows a table has."""
    row = sql.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    assert row is not None
    return int(row[0])


def is_pending(sql: psycopg.Connection) -> bool:
    """Tell whether a detach was cut off half-way."""
    text = "SELECT bool_or(inhdetachpending) FROM pg_inherits"
    return sql.execute(text.encode()).fetchone() == (True,)


def test_life_cycle(runner: Runner, sql: psycopg.Connection) -> None:
    """The old release reads it up to retire; going back attaches it with its rows."""
    sql.execute(SETUP)
    assert runner.expand(CHANGE) is State.VERIFIED
    assert count(sql) == 20
    for _ in range(2):
        assert runner.retire("a1", old_release_gone="test") is State.RETIRED
        assert runner.change("a1").finished
        assert (count(sql), count(sql, "first")) == (10, 10)
        sql.execute("INSERT INTO first VALUES (-0, 1, 5) ON CONFLICT DO NOTHING")
        # What it is held to is what lets it come back without a scan.
        with pytest.raises(psycopg.errors.CheckViolation):
            sql.execute("INSERT INTO first VALUES (11, 1, 1)")
        assert runner.rollback("a1") is State.VERIFIED
        assert count(sql) == 20
    assert runner.rollback("a1") is State.PLANNED
    sql.execute("UPDATE events SET n = 7 WHERE id = 1")
    indexes = "SELECT count(*) FROM pg_index WHERE indrelid = 'first'::regclass"
    assert sql.execute(indexes.encode()).fetchone() == (2,)


def test_nothing_is_scanned_on_the_way_back(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """The server says itself that the CHECK implies the bounds."""
    sql.execute(SETUP)
    runner.expand(CHANGE)
    (step,) = runner.plan(CHANGE).phases[Phase.RETIRE]
    runner.retire("a1", old_release_gone="test")
    words: list[str] = []
    sql.add_notice_handler(lambda told: words.append(told.message_primary or ""))
    back = step.reverse[-1]
    assert isinstance(back, Transaction)
    with sql.transaction():
        sql.execute("SET LOCAL client_min_messages = debug1")
        for statement in back.statements:
            sql.execute(statement.encode())
    assert (
        'partition constraint for table "first" is implied by existing constraints'
        in words
    )
    assert not [w for w in words if w.startswith(("verifying", "building", "valid"))]


# -- what it waits for -------------------------------------------------------


@pytest.mark.parametrize("back", [False, True])
def test_a_reader_makes_it_wait(
    back: bool, runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """Cut off half-way it is finished by the next try, or taken back."""
    sql.execute(SETUP)
    runner.expand(CHANGE)
    runner.settings = Settings(lock_timeout_ms=50, build_budget_s=0.5, step_budget_s=5)
    with psycopg.connect(database, application_name="billing") as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT count(*) FROM events")
        with pytest.raises(LockBudgetError, match='application "billing"'):
            runner.retire("a1", old_release_gone="test")
        assert is_pending(sql)
        # Requests go on; new ones do not see it.
        assert count(sql) == 10
        sql.execute("UPDATE events SET n = 7 WHERE id = 11")
        assert reader.execute("SELECT count(*) FROM events").fetchone() == (20,)
    if back:
        assert runner.rollback("a1", to=State.PLANNED) is State.PLANNED
        assert count(sql) == 20
    else:
        assert runner.retire("a1", old_release_gone="test") is State.RETIRED
        assert (count(sql), count(sql, "first")) == (10, 10)
    assert not is_pending(sql)


def test_a_reader_of_the_partition_stops_nobody(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """Who names the partition waits no longer than a lock may take."""
    sql.execute(SETUP)
    runner.expand(CHANGE)
    runner.settings = Settings(lock_timeout_ms=50, build_budget_s=2)
    failed: list[str] = []

    def retire() -> None:
        try:
            runner.retire("a1", old_release_gone="test")
        except LockBudgetError as error:
            failed.append(str(error))

    sql.execute("SET statement_timeout = 500")
    with psycopg.connect(database) as reader:
        reader.execute("SELECT count(*) FROM first")
        thread = threading.Thread(target=retire)
        thread.start()
        while thread.is_alive():
            assert count(sql, "first") == 10
            thread.join(0.01)
    assert len(failed) == 1
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED


# -- messages ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "pattern", "message"),
    [
        (
            "CREATE TABLE rest PARTITION OF events DEFAULT",
            DETACH,
            'Table "public"."events" has a DEFAULT partition, "public"."rest": then'
            " PostgreSQL detaches none concurrently, and rows within the bounds would"
            f" go there.{NOTHING}detach it with plain SQL, in a maintenance window.",
        ),
        (
            "SELECT 1",
            replace(DETACH, partition="users"),
            'Table "public"."users" is no partition of table "public"."events".'
            f'{NOTHING}correct the name; there are "public"."first",'
            ' "public"."second".',
        ),
        (
            "CREATE TABLE items (event int REFERENCES events)",
            DETACH,
            'Foreign key "items_event_fkey" of table "public"."items" refers to'
            ' "public"."events": to detach a partition the server looks up all rows of'
            f" that table, and stops whoever uses it.{NOTHING}drop that foreign key"
            " first, by a change of its own.",
        ),
        (
            "SELECT 1",
            replace(DETACH, table="first"),
            f'Table "public"."first" is not partitioned.{NOTHING}name one that is.',
        ),
    ],
)
def test_message(
    made: str,
    pattern: DetachPartition,
    message: str,
    runner: Runner,
    sql: psycopg.Connection,
) -> None:
    """What the server does not detach concurrently is refused with the way out."""
    sql.execute(SETUP)
    sql.execute(made.encode())
    with pytest.raises(Refused) as caught:
        runner.expand(Change(revision="a1", pattern=pattern))
    assert str(caught.value) == message


def test_message_of_a_detach_by_hand(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """One that somebody began and left is theirs to finish."""
    sql.execute(SETUP)
    with psycopg.connect(database) as reader:
        reader.execute("SELECT count(*) FROM events")
        sql.execute("SET lock_timeout = 50")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            sql.execute("ALTER TABLE events DETACH PARTITION first CONCURRENTLY")
    with pytest.raises(Refused) as caught:
        runner.expand(CHANGE)
    assert str(caught.value) == (
        'Partition "public"."first" is being detached from table "public"."events".'
        f'{NOTHING}finish that: ALTER TABLE "public"."events" DETACH PARTITION'
        ' "public"."first" FINALIZE.'
    )


def test_notices() -> None:
    """A reviewer reads where the rows are, and what stays."""
    part = Table(
        name=TableName("public", "first"),
        oid=2,
        columns=(),
        parent=TableName("public", "events"),
    )
    table = Table(
        name=TableName("public", "events"),
        oid=1,
        columns=(),
        kind="p",
        partitions=(part,),
    )
    given = Facts(server_version=180000, tag="t", table=table, others=(part,))
    assert [n.text for n in DETACH.check(given)] == [
        'Rows of "public"."first" are out of sight of "public"."events" from retire on,'
        " and rows within its bounds are refused.",
        "It stays as a table with a CHECK of its bounds, also where it is attached"
        " again; dropping it is a change of its own.",
    ]
