"""DropNotNull: its text, its life, its locks and its messages."""

import time
from dataclasses import replace
from threading import Thread

import psycopg
import pytest

from migrator.change import Change
from migrator.errors import LockBudgetError, Refused
from migrator.facts import Column, Facts, Index, Table
from migrator.names import TableName
from migrator.patterns import DropDefault, DropNotNull
from migrator.plan import Autocommit, State, Transaction
from migrator.runner import Runner
from migrator.settings import Settings

NAME = Column(name="name", type="text", not_null=True)
LIFT = DropNotNull("users", "name")
EARLY = replace(LIFT, early=True, assured="the old release copes")
NOTHING = "\nNothing was changed.\nNext: "


def facts(column: Column, *indexes: Index, name: TableName | None = None) -> Facts:
    """Return facts about a table with one column."""
    table = Table(
        name=name or TableName("public", "users"),
        oid=1,
        columns=(column,),
        indexes=indexes,
    )
    return Facts(server_version=180000, tag="0123456789", table=table)


# -- text --------------------------------------------------------------------


@pytest.mark.parametrize("early", [False, True])
def test_text_with_hostile_names(*, early: bool) -> None:
    """It is lifted in one phase alone, and comes back by a check."""
    pattern = DropNotNull("or der", "a %s:x", early=early)
    given = facts(replace(NAME, name="a %s:x"), name=TableName('s "', "or der"))
    here, there = pattern.retire(given), pattern.expand(given)
    if early:
        here, there = there, here
    assert there == ()
    (step,) = here
    table, check = '"s """."or der"', '"_migrator_check_a %s:x_0123456789"'
    lock = f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"
    assert isinstance(step.work, Transaction)
    assert step.work.statements == (
        lock,
        f'ALTER TABLE {table} ALTER COLUMN "a %s:x" DROP NOT NULL',
    )
    add, validate, again = step.reverse
    assert isinstance(add, Autocommit)
    assert isinstance(validate, Autocommit)
    assert isinstance(again, Transaction)
    assert [add.statement, validate.statement, *again.statements] == [
        f"ALTER TABLE {table} ADD CONSTRAINT {check}"
        ' CHECK ("a %s:x" IS DISTINCT FROM NULL) NOT VALID',
        f"ALTER TABLE {table} VALIDATE CONSTRAINT {check}",
        lock,
        f'ALTER TABLE {table} ALTER COLUMN "a %s:x" SET NOT NULL',
        f"ALTER TABLE {table} DROP CONSTRAINT {check}",
    ]


# -- life cycle --------------------------------------------------------------


def test_life_cycle(runner: Runner, sql: psycopg.Connection) -> None:
    """NULL is refused up to retire; going back is refused while there is one."""
    sql.execute("CREATE TABLE users (name text NOT NULL)")
    change = Change(revision="a1", pattern=LIFT)

    def old() -> None:
        sql.execute("INSERT INTO users VALUES ('x')")

    def new() -> None:
        sql.execute("INSERT INTO users VALUES (NULL)")

    assert runner.expand(change) is State.VERIFIED
    old()
    with pytest.raises(psycopg.errors.NotNullViolation):
        new()
    assert runner.rollback("a1") is State.PLANNED
    assert runner.expand(change) is State.VERIFIED
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert runner.change("a1").finished
    new()
    new()
    with pytest.raises(Refused) as caught:
        runner.rollback("a1")
    assert str(caught.value) == (
        'Step \'lift_not_null\' on table "public"."users" is refused: 2 rows hold NULL'
        ' in "name", written since it was lifted.'
        f'{NOTHING}give them a value (UPDATE … WHERE "name" IS NULL), then run the'
        " same command again; or keep the new release."
    )
    new()
    sql.execute("UPDATE users SET name = '' WHERE name IS NULL")
    assert runner.rollback("a1") is State.VERIFIED
    old()
    with pytest.raises(psycopg.errors.NotNullViolation):
        new()
    left = "SELECT count(*) FROM pg_constraint WHERE conname LIKE '%migrator%'"
    assert sql.execute(left.encode()).fetchone() == (0,)


def test_a_null_that_comes_between_the_count_and_the_check(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """What is withdrawn is no way back that has begun: it goes forward as before."""
    sql.execute("CREATE TABLE users (name text NOT NULL)")
    runner.expand(Change(revision="a1", pattern=LIFT))
    runner.retire("a1", old_release_gone="test")
    waits = "SELECT FROM pg_locks WHERE NOT granted"
    failed: list[Refused] = []

    def back() -> None:
        try:
            runner.rollback("a1")
        except Refused as error:
            failed.append(error)

    runner.settings = replace(runner.settings, lock_timeout_ms=2000)
    with psycopg.connect(database) as new:
        new.execute("INSERT INTO users VALUES (NULL)")
        thread = Thread(target=back)
        thread.start()
        # The check waits, behind its count.
        while not sql.execute(waits).fetchall() and thread.is_alive():
            time.sleep(0.01)
        new.commit()
        thread.join()
    assert [e.next.endswith("or keep the new release.") for e in failed] == [True]
    change = runner.change("a1")
    assert (change.state, change.finished) == (State.RETIRED, True)
    assert change.going_back is None
    sql.execute("INSERT INTO users VALUES (NULL)")
    other = DropDefault("users", "name", assured="tried")
    sql.execute("ALTER TABLE users ALTER name SET DEFAULT ''")
    runner.expand(Change(revision="b2", pattern=other))
    runner.rollback("b2", to=State.PLANNED)
    sql.execute("DELETE FROM users")
    assert runner.rollback("a1") is State.VERIFIED


def test_life_of_an_early_lift(runner: Runner, sql: psycopg.Connection) -> None:
    """With a person's word both releases write NULL from expand on."""
    sql.execute("CREATE TABLE users (name text NOT NULL)")
    change = Change(revision="a1", pattern=EARLY)
    assert runner.expand(change) is State.VERIFIED
    assert runner.change("a1").finished
    sql.execute("INSERT INTO users VALUES (NULL)")
    sql.execute("TRUNCATE users")
    assert runner.rollback("a1") is State.PLANNED
    with pytest.raises(psycopg.errors.NotNullViolation):
        sql.execute("INSERT INTO users VALUES (NULL)")


# -- locks -------------------------------------------------------------------


def test_a_reader_makes_retire_give_up(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """Behind a lock that is not given, the step ends in time and leaves nothing."""
    sql.execute("CREATE TABLE users (name text NOT NULL)")
    runner.expand(Change(revision="a1", pattern=LIFT))
    runner.settings = Settings(lock_timeout_ms=50, step_budget_s=0.2)
    with psycopg.connect(database) as reader:
        reader.execute("SELECT * FROM users")
        with pytest.raises(LockBudgetError):
            runner.retire("a1", old_release_gone="test")
    with pytest.raises(psycopg.errors.NotNullViolation):
        sql.execute("INSERT INTO users VALUES (NULL)")


# -- messages ----------------------------------------------------------------


def test_message_about_a_column_that_may_hold_null() -> None:
    """There is nothing to do."""
    with pytest.raises(Refused) as caught:
        LIFT.check(facts(replace(NAME, not_null=False)))
    assert str(caught.value) == (
        'Column "name" of table "public"."users" may hold NULL already.'
        f"{NOTHING}remove the change from the revision."
    )


def test_message_about_the_primary_key() -> None:
    """Its columns hold no NULL."""
    index = Index(name="p", method="btree", keys=(), columns=("name",), primary=True)
    with pytest.raises(Refused) as caught:
        LIFT.check(facts(NAME, index))
    assert str(caught.value) == (
        'Column "name" of table "public"."users" is in the primary key "p": its NOT'
        f" NULL cannot be lifted.{NOTHING}make another primary key first."
    )


def test_message_about_an_early_lift_without_a_word() -> None:
    """Someone has to say that the old release copes."""
    with pytest.raises(Refused) as caught:
        replace(EARLY, assured="").check(facts(NAME))
    assert str(caught.value) == (
        'let column "name" of table "users" hold NULL: From expand on the old release'
        f" may read NULL in this column.{NOTHING}look into it, then write"
        ' assured="why it is safe here" into the pattern.'
    )


def test_notice() -> None:
    """A reviewer reads from when on NULL is taken."""
    (notice,) = LIFT.check(facts(NAME))
    assert notice.text == (
        "Until retire a NULL is refused, also one of the new release. With early=True"
        " it is lifted at expand."
    )
