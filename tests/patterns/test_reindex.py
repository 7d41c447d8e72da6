"""Reindex: its text, its life, what a crash leaves, and its messages."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psycopg
import pytest
from psycopg.sql import Identifier

from migrator.change import Change
from migrator.errors import LockBudgetError, MigratorError, Refused
from migrator.facts import Facts, Index, Table
from migrator.names import TableName
from migrator.patterns import Reindex
from migrator.plan import Autocommit, Lock, Phase, State
from migrator.runner import Runner
from migrator.settings import Settings

INDEX = Index(name="by_name", method="btree", keys=(), oid=7)
USERS = Table(name=TableName("public", "users"), oid=1, columns=(), indexes=(INDEX,))
ONE = Reindex("users", "by_name")
SETUP = (
    "CREATE TABLE users (id int PRIMARY KEY, name text);"
    " CREATE INDEX by_name ON users (name); INSERT INTO users VALUES (1, 'x')"
)
OIDS = (
    "SELECT relname, oid::bigint FROM pg_class"
    " WHERE relnamespace = 'public'::regnamespace AND relkind = 'i'"
)
NOTHING = "\nNothing was changed.\nNext: "


def facts(table: Table = USERS) -> Facts:
    """Return facts about a table."""
    return Facts(server_version=180000, tag="0123456789", table=table)


def oids(sql: psycopg.Connection) -> dict[str, int]:
    """Return the OIDs of all indexes."""
    return dict(sql.execute(OIDS.encode()).fetchall())


# -- text --------------------------------------------------------------------


def test_text_with_hostile_names() -> None:
    """Every name is quoted."""
    index = replace(INDEX, name='i "é%')
    left = replace(INDEX, name='i "é%_ccold3', valid=False)
    table = replace(USERS, name=TableName('my "sch', "or der"), indexes=(index, left))
    gone, anew, old = Reindex("or der", 'i "é%').expand(facts(table))
    for step, statement in (
        (gone, 'DROP INDEX CONCURRENTLY IF EXISTS "my ""sch"."i ""é%_ccold3"'),
        (anew, 'REINDEX INDEX CONCURRENTLY "my ""sch"."i ""é%"'),
        (old, 'DROP INDEX CONCURRENTLY IF EXISTS "my ""sch"."i ""é%_ccold"'),
    ):
        assert isinstance(step.work, Autocommit)
        assert step.work.statement == statement
        assert step.work.lock is Lock.SHARE_UPDATE_EXCLUSIVE
    assert isinstance(anew.work, Autocommit)
    assert anew.work.remove == (
        'DROP INDEX CONCURRENTLY IF EXISTS "my ""sch"."i ""é%_ccnew"'
    )
    assert "indexrelid <> 7" in (anew.work.done or "")


# -- life cycle --------------------------------------------------------------


def test_life_cycle(runner: Runner, sql: psycopg.Connection) -> None:
    """The index is another one of the same name; nothing is to be taken back."""
    sql.execute(SETUP.encode())
    before = oids(sql)
    change = Change(revision="a1", pattern=ONE)
    assert runner.expand(change) is State.VERIFIED
    assert runner.change("a1").finished
    after = oids(sql)
    assert after["by_name"] != before["by_name"]
    assert after["users_pkey"] == before["users_pkey"]
    # A resume finds it done.
    assert runner.expand(change) is State.VERIFIED
    assert oids(sql) == after
    assert runner.rollback("a1") is State.PLANNED
    assert oids(sql) == after
    assert runner.expand(change) is State.VERIFIED
    assert oids(sql)["by_name"] != after["by_name"]
    assert set(oids(sql)) == {"by_name", "users_pkey"}


def test_all_indexes_but_those_of_exclusion_constraints(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Keys are built anew as well, and keep their constraints."""
    sql.execute(SETUP.encode())
    sql.execute("ALTER TABLE users ADD CONSTRAINT apart EXCLUDE (name WITH =)")
    sql.execute(
        "CREATE TABLE orders (id int REFERENCES users); INSERT INTO orders VALUES (1)"
    )
    before = oids(sql)
    plan = runner.plan(Change(revision="a1", pattern=Reindex("users")))
    assert plan.notices[1].text == (
        "Left out, since PostgreSQL does not build those of exclusion constraints anew"
        ' concurrently: "apart".'
    )
    runner.expand(Change(revision="a1", pattern=Reindex("users")))
    after = oids(sql)
    assert {n for n in before if before[n] != after[n]} == {"by_name", "users_pkey"}
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        sql.execute("DELETE FROM users")


def test_of_a_partitioned_table(runner: Runner, sql: psycopg.Connection) -> None:
    """The parts on all leaves are built anew, and stay parts."""
    sql.execute(
        "CREATE TABLE users (id int, name text) PARTITION BY RANGE (id);"
        " CREATE TABLE a PARTITION OF users FOR VALUES FROM (0) TO (9);"
        " CREATE TABLE b PARTITION OF users FOR VALUES FROM (9) TO (20)"
        " PARTITION BY RANGE (id);"
        " CREATE TABLE b1 PARTITION OF b DEFAULT; CREATE INDEX b1_own ON b1 (id);"
        " CREATE INDEX by_name ON users (name)"
    )
    before = oids(sql)
    runner.expand(Change(revision="a1", pattern=ONE))
    after = oids(sql)
    assert {n for n in before if before[n] != after[n]} == {"a_name_idx", "b1_name_idx"}
    attached = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'by_name'::regclass"
    assert sql.execute(attached.encode()).fetchall() == [(True,)]


# -- what a crash leaves ------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "left"),
    [("by_name", "by_name_ccnew"), ('i "' + "é" * 30, 'i "' + "é" * 27 + "_ccnew")],
)
def test_what_a_cut_off_build_left_is_dropped(
    name: str, left: str, runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """Behind a writer it gives up; the second index goes before the next try."""
    quoted = Identifier(name).as_string()
    sql.execute(SETUP.replace("by_name", quoted).encode())
    before = oids(sql)
    change = Change(revision="a1", pattern=Reindex("users", name))
    runner.settings = Settings(lock_timeout_ms=50, build_budget_s=0.3)
    with psycopg.connect(database) as other:
        other.execute("INSERT INTO users VALUES (2, 'y')")
        with pytest.raises(LockBudgetError):
            runner.expand(change)
    assert oids(sql)[name] == before[name]
    assert left in oids(sql)
    runner.settings = Settings(hold_s=0)
    assert runner.expand(change) is State.VERIFIED
    assert oids(sql)[name] != before[name]
    assert set(oids(sql)) == {name, "users_pkey"}


def test_a_session_that_is_ended_is_resumed(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """Whatever it left is looked for; the index is built anew once."""
    sql.execute(SETUP.encode())
    before = oids(sql)
    change = Change(revision="a1", pattern=ONE)
    with ThreadPoolExecutor() as pool, psycopg.connect(database) as other:
        other.execute("INSERT INTO users VALUES (2, 'y')")
        going = pool.submit(runner.expand, change)
        ended: list[tuple[object, ...]] = []
        while not ended:
            ended = sql.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE query LIKE 'REINDEX%' AND wait_event_type = 'Lock'"
            ).fetchall()
        with pytest.raises(MigratorError):
            going.result()
    assert "by_name_ccnew" in oids(sql)
    assert runner.expand(change) is State.VERIFIED
    assert oids(sql)["by_name"] != before["by_name"]
    assert set(oids(sql)) == {"by_name", "users_pkey"}


def test_what_others_left_is_dropped(runner: Runner, sql: psycopg.Connection) -> None:
    """Invalid ones of the server's names go; a valid one of such a name stays."""
    sql.execute(SETUP.encode())
    for name in ("by_name_ccnew", "by_name_ccnew1", "by_name_ccold", "other_ccnew"):
        sql.execute(f"CREATE INDEX {name} ON users (name)".encode())
    sql.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid IN"
        " ('by_name_ccnew'::regclass, 'by_name_ccnew1'::regclass,"
        " 'other_ccnew'::regclass)"
    )
    runner.expand(Change(revision="a1", pattern=ONE))
    kept = {"by_name", "users_pkey", "by_name_ccold", "other_ccnew"}
    assert set(oids(sql)) == kept


def test_a_build_that_was_cut_off_after_the_exchange_is_done(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """It is not begun anew, and the first index is dropped."""
    sql.execute(SETUP.encode())
    change = Change(revision="a1", pattern=ONE)
    anew, old = (step.work for step in runner.plan(change).steps(Phase.EXPAND))
    assert isinstance(anew, Autocommit)
    assert isinstance(old, Autocommit)
    assert _asked(sql, anew.done) is False
    assert _asked(sql, old.done) is True
    sql.execute("REINDEX INDEX CONCURRENTLY by_name")
    sql.execute("CREATE INDEX by_name_ccold ON users (name)")
    assert _asked(sql, old.done) is True
    sql.execute(
        "UPDATE pg_index SET indisvalid = false"
        " WHERE indexrelid = 'by_name_ccold'::regclass"
    )
    assert _asked(sql, anew.done) is True
    assert _asked(sql, old.done) is False
    sql.execute(old.statement.encode())
    assert _asked(sql, old.done) is True


def _asked(sql: psycopg.Connection, question: str | None) -> bool:
    assert question is not None
    row = sql.execute(question.encode()).fetchone()
    assert row is not None
    return bool(row[0])


# -- messages ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "table", "message"),
    [
        (
            replace(ONE, name="other"),
            USERS,
            'Table "public"."users" has no index "other".'
            f'{NOTHING}correct the name; the table has "by_name".',
        ),
        (
            ONE,
            replace(USERS, indexes=(replace(INDEX, exclusion=True),)),
            'Index "by_name" of table "public"."users" is that of an exclusion'
            " constraint: PostgreSQL does not build it anew concurrently."
            f"{NOTHING}REINDEX it in a maintenance window.",
        ),
        (
            Reindex("users"),
            replace(USERS, indexes=()),
            'Table "public"."users" has no index that can be built anew.'
            f"{NOTHING}correct the name.",
        ),
    ],
)
def test_message(pattern: Reindex, table: Table, message: str) -> None:
    """What cannot be built anew is refused, with a way out."""
    with pytest.raises(Refused) as caught:
        pattern.check(facts(table))
    assert str(caught.value) == message


def test_notice() -> None:
    """A reviewer reads how much is built."""
    (notice,) = ONE.check(facts())
    assert notice.text == (
        "Indexes that are built anew, one after another: 1. Each needs as much room"
        " again until it is done; a build that is cut off begins anew."
    )
