"""SetNotNull: its text, its life and its messages."""

from dataclasses import replace

import psycopg
import pytest

from migrator.change import Change
from migrator.errors import Failed, MismatchError, Refused
from migrator.facts import Column, Facts, Table
from migrator.names import TableName
from migrator.patterns import SetNotNull
from migrator.plan import Autocommit, ChunkedCheck, State, Transaction
from migrator.runner import Runner

NAME = Column(name="name", type="text")


def facts(column: Column, table: TableName | None = None) -> Facts:
    """Return facts about a plain table with one column."""
    return Facts(
        server_version=180000,
        tag="0123456789",
        table=Table(
            name=table or TableName("public", "users"), oid=1, columns=(column,)
        ),
    )


# -- text --------------------------------------------------------------------


def test_text_of_retire_with_hostile_names() -> None:
    """NOT NULL is proved by a check under a weak lock, then set without a scan."""
    pattern = SetNotNull("or der", "a %s:x", fill="'é'")
    given = facts(Column(name="a %s:x", type="text"), TableName('my "sch', "or der"))
    add, validate, last = pattern.retire(given)
    table = '"my ""sch"."or der"'
    lock = f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"
    check = '"_migrator_check_a %s:x_0123456789"'
    assert isinstance(add.work, Transaction)
    assert add.work.statements == (
        lock,
        f"ALTER TABLE {table} ADD CONSTRAINT {check}"
        ' CHECK ("a %s:x" IS DISTINCT FROM NULL) NOT VALID',
    )
    assert isinstance(validate.work, Autocommit)
    assert validate.work.statement == (
        f"ALTER TABLE {table} VALIDATE CONSTRAINT {check}"
    )
    assert isinstance(last.work, Transaction)
    assert last.work.statements == (
        lock,
        f'ALTER TABLE {table} ALTER COLUMN "a %s:x" SET NOT NULL',
        f"ALTER TABLE {table} DROP CONSTRAINT {check}",
        f'DROP TRIGGER IF EXISTS "zzz_migrator_0123456789" ON {table}',
        'DROP FUNCTION IF EXISTS "migrator"."mirror_0123456789"()',
    )


def test_text_of_the_fill() -> None:
    """A NULL that the old release writes is filled, under a weak lock."""
    (step,) = SetNotNull("users", "name", fill="'?'").expand(facts(NAME))
    assert isinstance(step.work, Transaction)
    assert step.work.statements[0] == (
        'LOCK TABLE "public"."users" IN SHARE ROW EXCLUSIVE MODE'
    )
    assert step.work.statements[1] == (
        'CREATE FUNCTION "migrator"."mirror_0123456789"() RETURNS trigger'
        ' LANGUAGE plpgsql SET search_path = "pg_catalog", "public", pg_temp'
        " SET datestyle FROM CURRENT SET intervalstyle FROM CURRENT"
        " SET extra_float_digits FROM CURRENT SET timezone FROM CURRENT AS '"
        """
#variable_conflict use_column
BEGIN
  IF NEW."name" IS NOT DISTINCT FROM NULL THEN
    BEGIN
      NEW."name" := (SELECT (''?'') FROM (SELECT NEW.*) AS "users");
    EXCEPTION WHEN data_exception OR integrity_constraint_violation OR raise_exception\
 OR program_limit_exceeded OR syntax_error OR undefined_object OR undefined_table OR\
 undefined_function OR ambiguous_function OR invalid_name OR feature_not_supported THEN
      NULL;
    END;
  END IF;
  RETURN NEW;
END
'"""
    )


def test_text_without_a_fill() -> None:
    """NULLs are counted and not repaired; nothing is added before."""
    pattern = SetNotNull("users", "name")
    assert pattern.expand(facts(NAME)) == ()
    assert pattern.backfill(facts(NAME)) == ()
    (step,) = pattern.verify(facts(NAME))
    assert isinstance(step.work, ChunkedCheck)
    assert step.work.repair is None
    assert step.work.guard is None


# -- life cycle --------------------------------------------------------------


def test_life_cycle(runner: Runner, sql: psycopg.Connection) -> None:
    """The old release may write NULL until retire, and reads the fill."""
    sql.execute("CREATE TABLE users (id int, name text)")
    sql.execute("INSERT INTO users SELECT i, NULL FROM generate_series(1, 9) i")
    change = Change(
        revision="a1", pattern=SetNotNull("users", "name", fill="'user ' || id")
    )
    last = 100

    def old() -> str | None:
        nonlocal last
        last += 1
        sql.execute("INSERT INTO users VALUES (%s, 'x')", [last])
        row = sql.execute(
            "UPDATE users SET name = NULL WHERE id = %s RETURNING name", [last]
        ).fetchone()
        assert row is not None
        return row[0]

    def new() -> None:
        sql.execute("INSERT INTO users VALUES (0, 'new')")

    def nulls() -> int:
        row = sql.execute("SELECT count(*) FROM users WHERE name IS NULL").fetchone()
        assert row is not None
        return row[0]

    assert old() is None
    assert runner.expand(change) is State.EXPANDED
    assert old() == "user 102"
    assert runner.rollback("a1") is State.PLANNED
    assert old() is None
    assert runner.expand(change) is State.EXPANDED
    assert nulls() == 11
    assert runner.backfill("a1") is State.BACKFILLED
    assert nulls() == 0
    assert old() == "user 104"
    assert runner.verify("a1") is State.VERIFIED
    assert old() == "user 105"
    new()
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert runner.change("a1").finished
    with pytest.raises(psycopg.errors.NotNullViolation):
        old()
    new()
    assert runner.rollback("a1") is State.VERIFIED
    assert old() == "user 107"
    new()
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert runner.drop("a1") is State.RETIRED
    with pytest.raises(psycopg.errors.NotNullViolation):
        old()
    left = sql.execute(
        "SELECT (SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal"
        "         AND tgrelid = 'users'::regclass),"
        " (SELECT count(*) FROM pg_constraint WHERE conrelid = 'users'::regclass"
        "   AND contype = 'c')"
    ).fetchone()
    assert left == (0, 0)


def test_a_row_for_which_the_fill_fails(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """The old release goes on writing NULL, which holds the change."""
    sql.execute("CREATE TABLE users (id int, name varchar(5))")
    sql.execute("INSERT INTO users VALUES (1, NULL)")
    pattern = SetNotNull("users", "name", fill="'no ' || id")
    runner.expand(Change(revision="a1", pattern=pattern))
    sql.execute("INSERT INTO users VALUES (1000, NULL), (20, NULL), (3000, 'x')")
    sql.execute("UPDATE users SET name = NULL WHERE id = 3000")
    names = "SELECT name FROM users ORDER BY id"
    assert sql.execute(names).fetchall() == [(None,), ("no 20",), (None,), (None,)]
    with pytest.raises(Failed, match="value too long"):
        runner.settle("a1")
    sql.execute("UPDATE users SET name = 'new' WHERE id >= 1000")
    assert runner.settle("a1") is State.VERIFIED
    assert sql.execute(names).fetchall() == [("no 1",), ("no 20",), ("new",), ("new",)]


def test_life_without_a_fill(runner: Runner, sql: psycopg.Connection) -> None:
    """A NULL that came after verification holds retire, and stays possible."""
    sql.execute("CREATE TABLE users (name text); INSERT INTO users VALUES (NULL)")
    change = Change(revision="a1", pattern=SetNotNull("users", "name"))
    assert runner.expand(change) is State.BACKFILLED
    with pytest.raises(MismatchError) as caught:
        runner.verify("a1")
    assert str(caught.value) == (
        'Verification of a1 found 1 row of table "public"."users" that is to be'
        ' corrected first: NULL in "name".\n'
        "The change is backfilled; both releases go on.\n"
        "Next: look at these rows (`migrator status a1` lists them), then"
        " `migrator verify a1`."
    )
    sql.execute("UPDATE users SET name = 'x'")
    assert runner.verify("a1") is State.VERIFIED
    sql.execute("INSERT INTO users VALUES (NULL)")
    with pytest.raises(MismatchError):
        runner.retire("a1", old_release_gone="test")
    sql.execute("INSERT INTO users VALUES (NULL)")
    sql.execute("UPDATE users SET name = 'x'")
    assert runner.verify("a1") is State.VERIFIED
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    with pytest.raises(psycopg.errors.NotNullViolation):
        sql.execute("INSERT INTO users VALUES (NULL)")
    assert runner.rollback("a1", to=State.PLANNED) is State.PLANNED
    sql.execute("INSERT INTO users VALUES (NULL)")


# -- messages ----------------------------------------------------------------


def test_message_about_a_column_that_is_not_null() -> None:
    """There is nothing to do."""
    with pytest.raises(Refused) as caught:
        SetNotNull("users", "name").check(facts(replace(NAME, not_null=True)))
    assert str(caught.value) == (
        'Column "name" of table "public"."users" is NOT NULL already.\n'
        "Nothing was changed.\nNext: remove the change from the revision."
    )


def test_message_about_a_generated_column() -> None:
    """A generated column cannot be filled, but can be NOT NULL."""
    column = replace(NAME, generated=True)
    SetNotNull("users", "name").check(facts(column))
    with pytest.raises(Refused) as caught:
        SetNotNull("users", "name", fill="''").check(facts(column))
    assert str(caught.value) == (
        'Column "name" of table "public"."users" is generated: it cannot be'
        " filled.\nNothing was changed.\nNext: change its expression instead."
    )


def test_message_about_a_fill_that_the_server_refuses(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """The server's own words tell what is wrong with the fill."""
    sql.execute("CREATE TABLE users (n int)")
    with pytest.raises(Refused) as caught:
        runner.expand(
            Change(revision="a1", pattern=SetNotNull("users", "n", fill="now()"))
        )
    assert str(caught.value) == (
        'The server refuses an expression of the pattern: column "trial" is of type'
        " integer but expression is of type timestamp with time zone.\n"
        "Nothing was changed.\n"
        "Next: correct it in the revision; it is SQL, in which"
        " a text stands in quotes: \"'text'\", and a function or type of"
        " another schema with it."
    )


def test_notices() -> None:
    """A reviewer reads what becomes of NULLs."""
    (without,) = SetNotNull("users", "name").check(facts(NAME))
    (with_fill,) = SetNotNull("users", "name", fill="''").check(facts(NAME))
    assert without.text == (
        "There is no fill: rows that are NULL hold the change at verify, and writes"
        " of NULL stay possible until retire."
    )
    assert with_fill.text == (
        "From expand on, a NULL that the old release writes is stored as the fill;"
        " rows that are filled keep the value after a rollback. A row for which the"
        " fill fails is stored, and holds the change until it is corrected."
    )
