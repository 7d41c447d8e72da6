"""SetDefault: its text, its life, its locks and its messages."""

from dataclasses import replace

import psycopg
import pytest

from migrator.change import Change
from migrator.errors import LockBudgetError, Refused
from migrator.facts import Column, Facts, Table
from migrator.names import TableName
from migrator.patterns import SetDefault
from migrator.plan import State, Transaction
from migrator.runner import Runner
from migrator.settings import Settings

STATE = Column(name="state", type="text", default="'old'::text")
SET = SetDefault("orders", "state", "'new'")
DEFAULT = (
    "SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef"
    " WHERE adrelid = 'orders'::regclass"
)
NOTHING = "\nNothing was changed.\nNext: "


def facts(column: Column, name: TableName | None = None) -> Facts:
    """Return facts about a table with one column."""
    table = Table(name=name or TableName("public", "orders"), oid=1, columns=(column,))
    return Facts(
        server_version=180000, tag="0123456789", table=table, path=("my sch", "public")
    )


# -- text --------------------------------------------------------------------


def test_text_with_hostile_names() -> None:
    """The expression stands as it was written, under the path it was tried in."""
    given = facts(replace(STATE, name="a %s:x"), TableName('s "', "or der"))
    (step,) = SetDefault("or der", "a %s:x", "'a%b:c'").expand(given)
    table = '"s """."or der"'
    head = (
        f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE",
        'SET LOCAL search_path = "pg_catalog", "my sch", "public"',
    )
    column = f'ALTER TABLE {table} ALTER COLUMN "a %s:x"'
    assert isinstance(step.work, Transaction)
    assert step.work.statements == (*head, f"{column} SET DEFAULT ('a%b:c')")
    (back,) = step.reverse
    assert isinstance(back, Transaction)
    assert back.statements == (*head, f"{column} SET DEFAULT ('old'::text)")


# -- life cycle --------------------------------------------------------------


def test_life_cycle(runner: Runner, sql: psycopg.Connection) -> None:
    """Both releases write with and without the column, and the former comes back."""
    sql.execute(
        "CREATE FUNCTION word() RETURNS text LANGUAGE sql AS $$ SELECT 'w' $$;"
        " CREATE TABLE orders (id int, state text DEFAULT word() || 'ord')"
    )
    before = sql.execute(DEFAULT.encode()).fetchall()
    change = Change(revision="a1", pattern=SET)
    insert = "INSERT INTO orders (id) VALUES (1) RETURNING state"

    def stored() -> str:
        sql.execute("INSERT INTO orders VALUES (1, 'given')")
        row = sql.execute(insert.encode()).fetchone()
        assert row is not None
        return str(row[0])

    assert stored() == "word"
    assert runner.expand(change) is State.VERIFIED
    assert runner.change("a1").finished
    assert stored() == "new"
    assert runner.rollback("a1") is State.PLANNED
    assert sql.execute(DEFAULT.encode()).fetchall() == before
    assert stored() == "word"
    assert runner.complete(change) is State.VERIFIED
    assert stored() == "new"


def test_the_former_default_is_read_as_it_was_written(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """The way back finds a function of the path, not another of the same name."""
    sql.execute(
        "CREATE SCHEMA one; CREATE SCHEMA two;"
        " CREATE FUNCTION one.word() RETURNS text LANGUAGE sql AS $$ SELECT '1' $$;"
        " CREATE FUNCTION two.word() RETURNS text LANGUAGE sql AS $$ SELECT '2' $$;"
        " CREATE TABLE orders (id int, state text DEFAULT one.word())"
    )
    role = "SELECT format('ALTER DATABASE %I SET search_path = ', current_database())"
    row = sql.execute(role.encode()).fetchone()
    assert row is not None
    sql.execute(f"{row[0]}one, public".encode())
    runner.expand(Change(revision="a1", pattern=SET))
    sql.execute(f"{row[0]}two, public".encode())
    assert runner.rollback("a1") is State.PLANNED
    sql.execute("INSERT INTO orders (id) VALUES (1)")
    assert sql.execute("SELECT state FROM orders").fetchall() == [("1",)]


def test_partitions_get_their_own_back(runner: Runner, sql: psycopg.Connection) -> None:
    """Each default of before is there again after a rollback."""
    sql.execute(
        "CREATE TABLE orders (id int, state text) PARTITION BY RANGE (id);"
        " CREATE TABLE a PARTITION OF orders FOR VALUES FROM (0) TO (9);"
        " CREATE TABLE b PARTITION OF orders FOR VALUES FROM (9) TO (99);"
        " ALTER TABLE b ALTER state SET DEFAULT 'own'"
    )
    runner.expand(Change(revision="a1", pattern=SET))
    sql.execute("INSERT INTO b (id) VALUES (10)")
    runner.rollback("a1")
    sql.execute("INSERT INTO b (id) VALUES (11)")
    sql.execute("INSERT INTO a (id) VALUES (1)")
    found = sql.execute("SELECT state FROM orders ORDER BY id").fetchall()
    assert found == [(None,), ("new",), ("own",)]


# -- locks -------------------------------------------------------------------


def test_a_reader_makes_it_give_up(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """Behind a lock that is not given, the step ends in time and leaves nothing."""
    sql.execute("CREATE TABLE orders (id int, state text)")
    runner.settings = Settings(lock_timeout_ms=50, step_budget_s=0.2)
    with psycopg.connect(database) as reader:
        reader.execute("SELECT * FROM orders")
        with pytest.raises(LockBudgetError):
            runner.expand(Change(revision="a1", pattern=SET))
    assert sql.execute(DEFAULT.encode()).fetchall() == []


# -- messages ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (replace(STATE, generated=True), "generated"),
        (replace(STATE, identity=True), "an identity column"),
    ],
)
def test_message_about_a_column_without_defaults(column: Column, kind: str) -> None:
    """The server makes its values."""
    with pytest.raises(Refused) as caught:
        SET.check(facts(column))
    assert str(caught.value) == (
        f'Column "state" of table "public"."orders" is {kind}: the server makes its'
        f" values.{NOTHING}use plain SQL, in a maintenance window."
    )


@pytest.mark.parametrize(
    ("default", "message"),
    [
        (
            "NULL",
            'set the default of column "state" of table "orders" to NULL: NULL is'
            f" NULL.{NOTHING}give an expression that is not.",
        ),
        (
            "id",
            "The server refuses an expression of the pattern: cannot use column"
            f" reference in DEFAULT expression.{NOTHING}correct it in the revision; it"
            " is SQL, in which a text stands in quotes: \"'text'\", and a function or"
            " type of another schema with it.",
        ),
    ],
)
def test_message_about_a_default(
    default: str, message: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """It is tried out on a table of its own before anything is changed."""
    sql.execute("CREATE TABLE orders (id int, state text)")
    pattern = SetDefault("orders", "state", default)
    with pytest.raises(Refused) as caught:
        runner.expand(Change(revision="a1", pattern=pattern))
    assert str(caught.value) == message


def test_notices() -> None:
    """A reviewer reads who uses the default, and who does not."""
    given = facts(STATE)
    part = Table(
        name=TableName("public", "b"),
        oid=2,
        columns=(replace(STATE, default="'own'::text"),),
    )
    given = replace(given, table=replace(given.table, partitions=(part,)))
    assert [n.text for n in SET.check(given)] == [
        "From expand on an INSERT that leaves the column out, also one of the old"
        " release, stores 'new' instead of 'old'::text.",
        "ORMs that insert every column do not use it: give the model the same default.",
        'Partition "public"."b" has a default of its own, which is replaced; going back'
        " brings it back.",
    ]
