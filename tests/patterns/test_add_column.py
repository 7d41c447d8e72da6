"""AddColumn: its text, its life and its messages."""

import psycopg
import pytest

from migrator.change import Change
from migrator.errors import Refused
from migrator.facts import Column, Facts, Table
from migrator.names import TableName
from migrator.patterns import AddColumn
from migrator.plan import ChunkedUpdate, State, Transaction
from migrator.runner import Runner

USERS = TableName("public", "users")


def facts(*columns: str, table: TableName = USERS, kind: str = "r") -> Facts:
    """Return facts about a table with these text columns."""
    made = tuple(Column(name=c, type="text") for c in columns)
    return Facts(
        server_version=180000,
        tag="0123456789",
        table=Table(name=table, oid=1, columns=made, kind=kind),
    )


# -- text --------------------------------------------------------------------


def test_text_with_a_default() -> None:
    """A constant default goes into ADD COLUMN; the way back parks the column."""
    pattern = AddColumn("users", "nick", "varchar(9)", default="'50% :x'")
    (step,) = pattern.expand(facts("name"))
    lock = 'LOCK TABLE "public"."users" IN ACCESS EXCLUSIVE MODE'
    (back,) = step.reverse
    assert isinstance(step.work, Transaction)
    assert isinstance(back, Transaction)
    assert isinstance(step.parked, Transaction)
    assert step.work.statements == (
        lock,
        'ALTER TABLE "public"."users" ADD COLUMN "nick" varchar(9)'
        " DEFAULT ('50% :x')",
    )
    assert back.statements == (
        lock,
        'ALTER TABLE "public"."users" RENAME COLUMN "nick" TO'
        ' "_migrator_parked_nick_0123456789"',
    )
    assert step.parked.statements == (
        lock,
        'ALTER TABLE "public"."users" DROP COLUMN IF EXISTS'
        ' "_migrator_parked_nick_0123456789"',
    )
    assert pattern.backfill(facts("name")) == ()
    assert pattern.verify(facts("name")) == ()
    assert pattern.retire(facts("name")) == ()


def test_text_of_the_way_back_from_where_it_was_parked() -> None:
    """A column that a rollback parked is not made again."""
    (step,) = AddColumn("users", "nick", "text").expand(
        facts("name", "_migrator_parked_nick_0123456789")
    )
    assert isinstance(step.work, Transaction)
    assert step.work.statements[1] == (
        'ALTER TABLE "public"."users" RENAME COLUMN'
        ' "_migrator_parked_nick_0123456789" TO "nick"'
    )


def test_text_with_hostile_names() -> None:
    """Names are quoted; the user's expression stands as it was written."""
    table = TableName('my "sch', "select")
    pattern = AddColumn("select", 'é "b%', "text", computed="\"a :x\" || '%s'")
    given = facts("a :x", table=table)
    (step,) = pattern.expand(given)
    (fill,) = pattern.backfill(given)
    assert isinstance(step.work, Transaction)
    assert step.work.statements[1] == (
        'ALTER TABLE "my ""sch"."select" ADD COLUMN "é ""b%" text'
    )
    assert (
        'NEW."é ""b%" := (SELECT ("a :x" || \'\'%s\'\') FROM (SELECT NEW.*)'
        ' AS "select");'
    ) in step.work.statements[2]
    assert isinstance(fill.work, ChunkedUpdate)
    assert fill.work.statement == (
        'UPDATE "my ""sch"."select" SET "é ""b%" = ("a :x" || \'%s\')'
        " WHERE ctid >= $1::pg_catalog.tid AND ctid < $2::pg_catalog.tid"
        ' AND ("é ""b%" IS NOT DISTINCT FROM NULL AND ("a :x" || \'%s\')'
        " IS DISTINCT FROM NULL)"
    )


def test_admission() -> None:
    """The new release waits for the rows only where it reads computed values."""
    assert AddColumn("users", "nick", "text").admission is State.EXPANDED
    computed = AddColumn("users", "nick", "text", computed="upper(name)")
    assert computed.admission is State.VERIFIED


# -- life cycle --------------------------------------------------------------


def test_life_cycle_with_a_default(runner: Runner, sql: psycopg.Connection) -> None:
    """What the new release wrote is there again when the column comes back."""
    sql.execute("CREATE TABLE users (id int, name text)")
    sql.execute("INSERT INTO users VALUES (1, 'a')")
    change = Change(
        revision="a1", pattern=AddColumn("users", "nick", "text", default="'none'")
    )
    # There are no rows to move and nothing to retire.
    assert runner.expand(change) is State.VERIFIED
    assert runner.change("a1").finished
    sql.execute("INSERT INTO users VALUES (2, 'b', 'bee')")
    sql.execute("UPDATE users SET name = 'A' WHERE id = 1")
    rows = [(1, "A", "none"), (2, "b", "bee")]
    read = "SELECT id, name, nick FROM users ORDER BY id"
    assert sql.execute(read).fetchall() == rows
    assert runner.rollback("a1") is State.PLANNED
    sql.execute("INSERT INTO users (id, name) VALUES (3, 'c')")
    with pytest.raises(psycopg.errors.UndefinedColumn):
        sql.execute(read)
    assert runner.expand(change) is State.VERIFIED
    assert sql.execute(read).fetchall() == [*rows, (3, "c", "none")]
    runner.rollback("a1")
    assert runner.drop_parked("a1") == 1
    columns = sql.execute(
        "SELECT count(*) FROM pg_attribute WHERE attrelid = 'users'::regclass"
        " AND attnum > 0 AND NOT attisdropped"
    ).fetchone()
    assert columns == (2,)
    assert runner.expand(change) is State.VERIFIED
    assert {n for _, _, n in sql.execute(read)} == {"none"}


def test_life_cycle_computed(runner: Runner, sql: psycopg.Connection) -> None:
    """Rows of the old release are computed, values of the new one stay."""
    sql.execute("CREATE TABLE users (id int, name text)")
    sql.execute("INSERT INTO users SELECT i, 'n' || i FROM generate_series(1, 9) i")
    change = Change(
        revision="a1",
        pattern=AddColumn("users", "nick", "text", computed="upper(name)"),
    )

    def nick(id: int) -> str | None:
        row = sql.execute("SELECT nick FROM users WHERE id = %s", [id]).fetchone()
        assert row is not None
        return row[0]

    assert runner.expand(change) is State.EXPANDED
    sql.execute("INSERT INTO users (id, name) VALUES (10, 'old')")
    assert nick(10) == "OLD"
    assert nick(1) is None
    assert runner.rollback("a1") is State.PLANNED
    sql.execute("UPDATE users SET name = 'later' WHERE id = 10")
    assert runner.expand(change) is State.EXPANDED
    assert runner.backfill("a1") is State.BACKFILLED
    assert nick(1) == "N1"
    assert runner.verify("a1") is State.VERIFIED
    sql.execute("UPDATE users SET name = 'followed' WHERE id = 1")
    assert nick(1) == "FOLLOWED"
    sql.execute("UPDATE users SET nick = 'own' WHERE id = 2")
    sql.execute("UPDATE users SET name = 'other' WHERE id = 2")
    assert nick(2) == "own"
    sql.execute("INSERT INTO users VALUES (11, 'new', 'mine')")
    assert nick(11) == "mine"
    sql.execute("UPDATE users SET nick = NULL WHERE id = 3")
    assert nick(3) == "N3"
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert runner.change("a1").finished
    sql.execute("UPDATE users SET nick = NULL WHERE id = 3")
    assert nick(3) is None
    assert runner.rollback("a1") is State.VERIFIED
    sql.execute("INSERT INTO users (id, name) VALUES (12, 'back')")
    assert nick(12) == "BACK"
    assert runner.rollback("a1") is State.PLANNED
    sql.execute("INSERT INTO users (id, name) VALUES (13, 'parked')")
    runner.expand(change)
    runner.backfill("a1")
    runner.verify("a1")
    assert (nick(2), nick(11), nick(13)) == ("own", "mine", "PARKED")
    runner.retire("a1", old_release_gone="test")
    assert runner.drop("a1") is State.RETIRED
    left = sql.execute(
        "SELECT (SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal"
        "         AND tgrelid = 'users'::regclass),"
        " (SELECT count(*) FROM pg_proc WHERE proname LIKE 'mirror%')"
    ).fetchone()
    assert left == (0, 0)


def test_life_on_a_partitioned_table(runner: Runner, sql: psycopg.Connection) -> None:
    """A column without an expression reaches every partition."""
    sql.execute(
        "CREATE TABLE users (id int) PARTITION BY LIST (id);"
        "CREATE TABLE users_1 PARTITION OF users FOR VALUES IN (1);"
        "INSERT INTO users VALUES (1)"
    )
    change = Change(
        revision="a1", pattern=AddColumn("users", "nick", "text", default="'x'")
    )
    assert runner.expand(change) is State.VERIFIED
    assert sql.execute("SELECT nick FROM users_1").fetchall() == [("x",)]


# -- messages ----------------------------------------------------------------


def test_message_about_a_default_beside_an_expression() -> None:
    """A default would keep rows from being computed."""
    with pytest.raises(Refused) as caught:
        AddColumn("users", "nick", "text", default="'x'", computed="name").check(
            facts("name")
        )
    assert str(caught.value) == (
        'add column "nick" text to table "users": both a default and an expression'
        " are given; the default would keep rows from being computed.\n"
        "Nothing was changed.\nNext: give one of them."
    )


def test_message_about_a_name_that_is_taken() -> None:
    """The name has to be free."""
    with pytest.raises(Refused) as caught:
        AddColumn("users", "name", "text").check(facts("name"))
    assert str(caught.value) == (
        'Table "public"."users" has a column "name" already.\nNothing was changed.\n'
        "Next: choose another name, or drop that column first."
    )


def test_message_about_a_default_that_is_not_constant(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """A volatile default means a rewrite of the table."""
    sql.execute("CREATE TABLE users (name text)")
    pattern = AddColumn("users", "r", "float8", default="random()")
    with pytest.raises(Refused) as caught:
        runner.expand(Change(revision="a1", pattern=pattern))
    assert str(caught.value) == (
        'add column "r" float8 to table "users": the default random() is not'
        " constant; PostgreSQL would rewrite the table under ACCESS EXCLUSIVE.\n"
        "Nothing was changed.\nNext: use computed=… instead of default=…."
    )


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (AddColumn("users", "n", "txet"), 'type "txet" does not exist'),
        (
            AddColumn("users", "n", "int", default="'x'"),
            'invalid input syntax for type integer: "x"',
        ),
        (
            AddColumn("users", "n", "text", computed="nmae"),
            'column "nmae" does not exist',
        ),
    ],
    ids=repr,
)
def test_message_about_sql_that_the_server_refuses(
    runner: Runner, sql: psycopg.Connection, pattern: AddColumn, words: str
) -> None:
    """The server's own words tell what is wrong with the user's SQL."""
    sql.execute("CREATE TABLE users (name text)")
    with pytest.raises(Refused) as caught:
        runner.plan(Change(revision="a1", pattern=pattern))
    assert str(caught.value) == (
        f"The server refuses an expression of the pattern: {words}.\n"
        "Nothing was changed.\nNext: correct it in the revision; it is SQL, in which"
        " a text stands in quotes: \"'text'\", and a function or type of"
        " another schema with it."
    )
