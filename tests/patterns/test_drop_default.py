"""DropDefault: its text, its life, its locks and its messages."""

from dataclasses import replace

import psycopg
import pytest

from migrator.change import Change
from migrator.errors import LockBudgetError, Refused
from migrator.facts import Column, Facts, Table
from migrator.names import TableName
from migrator.patterns import DropDefault
from migrator.plan import State, Transaction
from migrator.runner import Runner
from migrator.settings import Settings

STATE = Column(name="state", type="text", default="'old'::text")
DROP = DropDefault("orders", "state")


def facts(column: Column, name: TableName | None = None) -> Facts:
    """Return facts about a table with one column."""
    table = Table(name=name or TableName("public", "orders"), oid=1, columns=(column,))
    return Facts(server_version=180000, tag="0123456789", table=table, path=("public",))


# -- text --------------------------------------------------------------------


def test_text_with_hostile_names() -> None:
    """Nothing at expand; at retire the default goes, and comes back as it was."""
    given = facts(replace(STATE, name="a %s:x"), TableName('s "', "or der"))
    pattern = DropDefault("or der", "a %s:x")
    assert pattern.expand(given) == ()
    (step,) = pattern.retire(given)
    table = '"s """."or der"'
    head = (
        f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE",
        'SET LOCAL search_path = "pg_catalog", "public"',
    )
    column = f'ALTER TABLE {table} ALTER COLUMN "a %s:x"'
    assert isinstance(step.work, Transaction)
    assert step.work.statements == (*head, f"{column} DROP DEFAULT")
    (back,) = step.reverse
    assert isinstance(back, Transaction)
    assert back.statements == (*head, f"{column} SET DEFAULT ('old'::text)")


# -- life cycle --------------------------------------------------------------


def test_life_cycle(runner: Runner, sql: psycopg.Connection) -> None:
    """The old release relies on the default up to retire, and again afterwards."""
    sql.execute("CREATE TABLE orders (id int, state text NOT NULL DEFAULT 'x')")
    change = Change(revision="a1", pattern=DROP)

    def old() -> None:
        row = sql.execute("INSERT INTO orders VALUES (1) RETURNING state").fetchone()
        assert row == ("x",)

    def new() -> None:
        sql.execute("INSERT INTO orders VALUES (1, 'given')")

    assert runner.expand(change) is State.VERIFIED
    old()
    new()
    assert runner.rollback("a1") is State.PLANNED
    old()
    assert runner.expand(change) is State.VERIFIED
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert runner.change("a1").finished
    new()
    with pytest.raises(psycopg.errors.NotNullViolation):
        old()
    assert runner.rollback("a1") is State.VERIFIED
    old()
    new()
    assert runner.complete(change) is State.RETIRED
    assert runner.rollback("a1", to=State.PLANNED) is State.PLANNED
    old()


# -- locks -------------------------------------------------------------------


def test_a_reader_makes_retire_give_up(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """Behind a lock that is not given, the step ends in time and leaves nothing."""
    sql.execute("CREATE TABLE orders (id int, state text DEFAULT 'x')")
    runner.expand(Change(revision="a1", pattern=DROP))
    runner.settings = Settings(lock_timeout_ms=50, step_budget_s=0.2)
    with psycopg.connect(database) as reader:
        reader.execute("SELECT * FROM orders")
        with pytest.raises(LockBudgetError):
            runner.retire("a1", old_release_gone="test")
    row = sql.execute("INSERT INTO orders VALUES (1) RETURNING state").fetchone()
    assert row == ("x",)


# -- messages ----------------------------------------------------------------


def test_message_about_a_column_without_a_default() -> None:
    """There is nothing to do."""
    with pytest.raises(Refused) as caught:
        DROP.check(facts(replace(STATE, default=None)))
    assert str(caught.value) == (
        'Column "state" of table "public"."orders" has no default.\n'
        "Nothing was changed.\nNext: remove the change from the revision."
    )


@pytest.mark.parametrize(
    ("not_null", "after"), [(False, "stores NULL"), (True, "is refused")]
)
def test_notice(after: str, *, not_null: bool) -> None:
    """A reviewer reads what an INSERT without the column does afterwards."""
    (notice,) = DROP.check(facts(replace(STATE, not_null=not_null)))
    assert notice.text == (
        f"From retire on an INSERT that leaves the column out {after} instead of"
        " storing 'old'::text."
    )
