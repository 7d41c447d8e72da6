"""AddColumn: its text, its life and its messages."""

from dataclasses import replace
from uuid import uuid4

import psycopg
import pytest

from migrator.change import Change
from migrator.errors import Failed, Refused
from migrator.facts import Column, Facts, Table
from migrator.ledger.control import Mode
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


@pytest.mark.parametrize("strict", [False, True])
def test_life_with_a_default_of_each_row(
    runner: Runner, sql: psycopg.Connection, *, strict: bool
) -> None:
    """Each row gets a value of its own, in chunks; NOT NULL comes at retire."""
    sql.execute(
        "CREATE TABLE users (id int PRIMARY KEY) PARTITION BY RANGE (id);"
        "CREATE TABLE low PARTITION OF users FOR VALUES FROM (0) TO (500);"
        "CREATE TABLE high PARTITION OF users FOR VALUES FROM (500) TO (2000);"
        "INSERT INTO users SELECT generate_series(1, 1000)"
    )
    files = "SELECT pg_relation_filenode('low'), pg_relation_filenode('high')"
    before = sql.execute(files).fetchone()
    pattern = AddColumn(
        "users", "token", "uuid", default="gen_random_uuid()", not_null=strict
    )
    change = Change(revision="a1", pattern=pattern)
    assert runner.expand(change) is State.EXPANDED
    sql.execute("INSERT INTO users (id) VALUES (1001)")
    count = "SELECT count(*), count(token), count(DISTINCT token) FROM users"
    assert sql.execute(count).fetchone() == (1001, 1, 1)
    runner.backfill("a1")
    assert runner.verify("a1") is State.VERIFIED
    assert sql.execute(count).fetchone() == (1001, 1001, 1001)
    if strict:
        assert runner.retire("a1", old_release_gone=True) is State.RETIRED
        with pytest.raises(psycopg.errors.NotNullViolation):
            sql.execute("UPDATE users SET token = NULL WHERE id = 1")
        runner.rollback("a1", to=State.VERIFIED)
    sql.execute("UPDATE users SET token = NULL WHERE id = 1")
    kept = sql.execute("SELECT id, token FROM users ORDER BY id").fetchall()
    assert runner.rollback("a1") is State.PLANNED
    sql.execute("INSERT INTO users (id) VALUES (1002)")
    runner.expand(change)
    rows = sql.execute("SELECT id, token FROM users ORDER BY id").fetchall()
    assert rows[:-1] == kept
    assert rows[-1][1] is not None
    assert sql.execute(files).fetchone() == before


def test_a_constant_default_is_not_null_at_once(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """The old release cannot violate what it does not write; no row is read."""
    sql.execute("CREATE TABLE users (id int); INSERT INTO users VALUES (1)")
    pattern = AddColumn("users", "n", "int", default="7", not_null=True)
    assert runner.expand(Change(revision="a1", pattern=pattern)) is State.VERIFIED
    assert sql.execute("INSERT INTO users VALUES (2) RETURNING n").fetchone() == (7,)
    with pytest.raises(psycopg.errors.NotNullViolation):
        sql.execute("UPDATE users SET n = NULL")
    runner.rollback("a1")
    sql.execute("INSERT INTO users VALUES (3)")


def test_beside_stored_rows_a_constant_default_is_filled(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """A column of the table's row type keeps the server from storing it once."""
    sql.execute(
        "CREATE TABLE users (id int); INSERT INTO users VALUES (1);"
        "CREATE TYPE pair AS (one users[], other int);"
        "CREATE TABLE kept (rows pair); INSERT INTO kept VALUES (NULL)"
    )
    pattern = AddColumn("users", "n", "int", default="7", not_null=True)
    assert runner.expand(Change(revision="a1", pattern=pattern)) is State.EXPANDED
    assert runner.settle("a1") is State.VERIFIED
    assert sql.execute("SELECT n FROM users").fetchall() == [(7,)]
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED


def test_life_of_a_computed_column_that_is_not_null(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Rows for which the expression is NULL hold the change at its verification."""
    sql.execute("CREATE TABLE users (id int, name text)")
    sql.execute("INSERT INTO users VALUES (1, 'a'), (2, NULL)")
    pattern = AddColumn("users", "n", "text", computed="upper(name)", not_null=True)
    runner.expand(Change(revision="a1", pattern=pattern))
    runner.backfill("a1")
    with pytest.raises(Failed) as caught:
        runner.verify("a1")
    assert "1 row" in str(caught.value)
    sql.execute("UPDATE users SET name = 'b' WHERE id = 2")
    runner.say("a1", Mode.RUN, "given a name")
    assert runner.verify("a1") is State.VERIFIED
    assert runner.retire("a1", old_release_gone=True) is State.RETIRED
    with pytest.raises(psycopg.errors.NotNullViolation):
        sql.execute("INSERT INTO users VALUES (3, 'c')")
    runner.rollback("a1", to=State.VERIFIED)
    written = sql.execute("INSERT INTO users VALUES (3, 'c') RETURNING n")
    assert written.fetchone() == ("C",)


def test_a_row_for_which_the_expression_fails(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """No release is refused it; it holds the change until it is corrected."""
    sql.execute("CREATE TABLE users (id int, n int)")
    sql.execute("INSERT INTO users VALUES (1, 1), (2, 2)")

    def rows() -> list[tuple[object, ...]]:
        return sql.execute("SELECT id, n, per FROM users ORDER BY id").fetchall()

    pattern = AddColumn("users", "per", "int", computed="100 / n")
    runner.expand(Change(revision="a1", pattern=pattern))
    sql.execute("INSERT INTO users VALUES (3, 0)")
    sql.execute("UPDATE users SET n = 0 WHERE id = 1")
    assert rows() == [(1, 0, None), (2, 2, None), (3, 0, None)]
    with pytest.raises(Failed) as failed:
        runner.settle("a1")
    assert str(failed.value) == (
        'Blocks 0 to 1 of table "public"."users": division by zero\n'
        "Earlier chunks are committed.\nNext: correct the rows, or what refuses them,"
        " then run the same command again; it goes on from there."
    )
    sql.execute("UPDATE users SET n = 4 WHERE n = 0")
    assert runner.settle("a1") is State.VERIFIED
    assert rows() == [(1, 4, 25), (2, 2, 50), (3, 4, 25)]
    # A value of the expression goes with what it was made of, another one stays.
    sql.execute("UPDATE users SET n = 0 WHERE id = 1")
    sql.execute("UPDATE users SET per = 7 WHERE id = 3")
    sql.execute("UPDATE users SET n = 0 WHERE id = 3")
    sql.execute("UPDATE users SET n = 5 WHERE id = 3")
    assert rows() == [(1, 0, None), (2, 2, 50), (3, 5, 7)]
    with pytest.raises(Failed, match="division by zero"):
        runner.retire("a1", old_release_gone="test")
    sql.execute("UPDATE users SET n = 10 WHERE id = 1")
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert rows() == [(1, 10, 10), (2, 2, 50), (3, 5, 7)]


@pytest.mark.parametrize(
    ("pattern", "ends"),
    [
        (AddColumn("users", "n", "bigserial"), ""),
        (AddColumn("users", "n", "int", identity="by default"), "d"),
        (AddColumn("users", "n", "smallint", identity="always"), "a"),
    ],
    ids=repr,
)
def test_life_of_a_counted_column(
    runner: Runner, sql: psycopg.Connection, pattern: AddColumn, ends: str
) -> None:
    """A role that may insert goes on doing so, and no number comes twice."""
    sql.execute("CREATE TABLE users (id int)")
    sql.execute("INSERT INTO users SELECT generate_series(1, 100)")
    role = f"app_{uuid4().hex[:8]}"
    sql.execute(f"CREATE ROLE {role}; GRANT INSERT, SELECT ON users TO {role}".encode())

    def insert() -> int:
        with sql.transaction():
            sql.execute(f"SET LOCAL ROLE {role}".encode())
            row = sql.execute("INSERT INTO users (id) VALUES (0) RETURNING n")
            (number,) = row.fetchone() or (0,)
        return int(number)

    def kind() -> tuple[object, ...] | None:
        return sql.execute(
            "SELECT attidentity, attnotnull, pg_get_serial_sequence('users', 'n')"
            " FROM pg_attribute WHERE attrelid = 'users'::regclass AND attname = 'n'"
        ).fetchone()

    sequence = "public.users_n_seq"
    change = Change(revision="a1", pattern=pattern)
    runner.expand(change)
    assert insert() == 1
    runner.backfill("a1")
    runner.verify("a1")
    assert runner.retire("a1", old_release_gone=True) is State.RETIRED
    assert kind() == (ends, True, sequence)
    assert insert() == 102
    runner.rollback("a1", to=State.VERIFIED)
    assert kind() == ("", False, sequence)
    assert insert() == 103
    runner.rollback("a1")
    sql.execute("INSERT INTO users VALUES (0)")
    runner.expand(change)
    assert insert() == 105
    unlike = "SELECT count(n) - count(DISTINCT n), count(*) FROM users"
    assert sql.execute(unlike).fetchone() == (0, 105)
    runner.rollback("a1")
    runner.drop_parked("a1")
    left = "SELECT to_regclass('public.users_n_seq')"
    assert sql.execute(left).fetchone() == (None,)


def test_life_of_a_virtual_column(runner: Runner, sql: psycopg.Connection) -> None:
    """It is computed when it is read, from the first moment; nothing is parked."""
    if sql.info.server_version < 180000:
        pytest.skip("virtual columns came with PostgreSQL 18")
    sql.execute("CREATE TABLE users (id int, cents int)")
    sql.execute("INSERT INTO users VALUES (1, 250)")
    file = "SELECT pg_relation_filenode('users')"
    before = sql.execute(file).fetchone()
    pattern = AddColumn("users", "euro", "numeric", virtual="cents / 100.0")
    change = Change(revision="a1", pattern=pattern)
    assert runner.expand(change) is State.VERIFIED
    sql.execute("UPDATE users SET cents = 300")
    assert sql.execute("SELECT euro FROM users").fetchone() == (3,)
    assert sql.execute(file).fetchone() == before
    assert runner.rollback("a1") is State.PLANNED
    columns = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'users'::regclass"
    assert sql.execute(columns + " AND attnum > 0 AND NOT attisdropped").fetchone() == (
        2,
    )
    assert runner.expand(change) is State.VERIFIED


# -- messages ----------------------------------------------------------------


def test_message_about_a_default_beside_an_expression() -> None:
    """A default would keep rows from being computed."""
    with pytest.raises(Refused) as caught:
        AddColumn("users", "nick", "text", default="'x'", computed="name").check(
            facts("name")
        )
    assert str(caught.value) == (
        'add column "nick" text to table "users": default and computed are given;'
        " values would come from more than one place.\n"
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


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (
            AddColumn("users", "n", "int", not_null=True),
            "nothing keeps rows from being NULL.",
        ),
        (
            AddColumn("users", "n", "bigserial", identity="always"),
            "identity and type bigserial are given; values would come from more than"
            " one place.",
        ),
        (
            AddColumn("users", "n", "int", identity="sometimes"),
            'identity is "sometimes".',
        ),
        (
            AddColumn("users", "n", "int", identity="always"),
            'table "public"."users" is partitioned; an identity does not reach'
            " partitions on every server.",
        ),
    ],
    ids=repr,
)
def test_messages_about_arguments(pattern: AddColumn, words: str) -> None:
    """What cannot be is said before a server is asked."""
    with pytest.raises(Refused) as caught:
        pattern.check(facts("name", kind="p"))
    assert words in str(caught.value)


def test_message_about_an_older_server() -> None:
    """Virtual columns came with PostgreSQL 18."""
    old = replace(facts("name"), server_version=170000)
    with pytest.raises(Refused) as caught:
        AddColumn("users", "n", "text", virtual="upper(name)").check(old)
    assert str(caught.value) == (
        'add column "n" text to table "users": the server is older than PostgreSQL 18,'
        " and has no virtual columns.\nNothing was changed.\n"
        "Next: use computed=… for a column of its own, or a view."
    )


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (
            AddColumn("users", "n", "int", default="NULL", not_null=True),
            'add column "n" int to table "users": NULL is NULL.',
        ),
        (
            AddColumn("users", "n", "text", identity="always"),
            "identity column type must be smallint, integer, or bigint",
        ),
        (
            AddColumn("users", "n", "int", default="'x'"),
            '(`default`): invalid input syntax for type integer: "x"',
        ),
        (
            AddColumn("users", "n", "bigserial"),
            'its sequence is to be "public"."users_n_seq", and that name is taken.',
        ),
    ],
    ids=repr,
)
def test_message_of_a_trial(
    runner: Runner, sql: psycopg.Connection, pattern: AddColumn, words: str
) -> None:
    """A default, a type and a name are tried before anything is changed."""
    sql.execute("CREATE TABLE users (name text); CREATE TABLE users_n_seq ()")
    with pytest.raises(Refused) as caught:
        runner.plan(Change(revision="a1", pattern=pattern))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (AddColumn("users", "n", "txet"), 'type "txet" does not exist'),
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
