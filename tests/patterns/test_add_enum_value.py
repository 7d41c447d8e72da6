"""AddEnumValue: its text, its life and its messages."""

from dataclasses import replace

import psycopg
import pytest

from migrator.change import Change
from migrator.cli.bars import Bars
from migrator.errors import Refused
from migrator.facts import Column, Facts, Table
from migrator.names import TableName
from migrator.patterns import AddEnumValue
from migrator.plan import Autocommit, State
from migrator.runner import Runner

STATE = Column(name="state", type='"my sch"."st ate"', values=("new", "paid"))
ADD = AddEnumValue("orders", "state", "refunded", after="new")
NOTHING = "\nNothing was changed.\nNext: "
VALUES = "SELECT enum_range(NULL::state)::text[]"


def facts(column: Column = STATE) -> Facts:
    """Return facts about a table with one column."""
    table = Table(name=TableName("public", "orders"), oid=1, columns=(column,))
    return Facts(server_version=180000, tag="0123456789", table=table)


# -- text --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "text"),
    [({}, ""), ({"before": "o'k"}, " BEFORE 'o''k'"), ({"after": "é%"}, " AFTER 'é%'")],
)
def test_text_with_hostile_names(place: dict[str, str], text: str) -> None:
    """The type stands as the catalogue spells it, values are quoted."""
    (step,) = AddEnumValue("orders", "state", "a'%s:x", **place).expand(facts())
    assert isinstance(step.work, Autocommit)
    kind = '"my sch"."st ate"'
    assert step.work.statement == f"ALTER TYPE {kind} ADD VALUE 'a''%s:x'{text}"
    assert step.work.done == (
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_enum WHERE enumtypid ="
        f" '{kind}'::pg_catalog.regtype AND enumlabel = 'a''%s:x')"
    )
    assert step.no_reverse == "PostgreSQL drops no value of an enum; unused, it stays"
    assert step.loses


# -- life cycle --------------------------------------------------------------


def test_life_cycle(
    runner: Runner,
    sql: psycopg.Connection,
    database: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It comes beside open requests, and stays after a rollback, which says so."""
    runner.progress = Bars()
    sql.execute("CREATE TYPE state AS ENUM ('new', 'paid')")
    sql.execute("CREATE TABLE orders (state state)")
    change = Change(revision="a1", pattern=ADD)

    def old() -> None:
        sql.execute("INSERT INTO orders VALUES ('paid')")

    def new() -> None:
        sql.execute("INSERT INTO orders VALUES ('refunded')")

    old()
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        new()
    with psycopg.connect(database) as writer:
        writer.execute("INSERT INTO orders VALUES ('new')")
        assert runner.expand(change) is State.VERIFIED
    assert runner.change("a1").finished
    assert sql.execute(VALUES).fetchone() == (["new", "refunded", "paid"],)
    old()
    new()
    assert runner.rollback("a1") is State.PLANNED
    kept = "  add_value: nothing is taken back; PostgreSQL drops no value of an enum"
    assert kept in capsys.readouterr().err
    assert sql.execute(VALUES).fetchone() == (["new", "refunded", "paid"],)
    old()
    assert runner.expand(change) is State.VERIFIED
    assert sql.execute(VALUES).fetchone() == (["new", "refunded", "paid"],)
    new()


# -- messages ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "column", "message"),
    [
        (
            ADD,
            replace(STATE, type="text", values=()),
            'Column "state" of table "public"."orders" is of type text, which is no'
            f" enum with values.{NOTHING}name a column whose type is the enum itself.",
        ),
        (
            replace(ADD, before="paid"),
            STATE,
            'add value "refunded" to the enum of column "state" of table "orders": both'
            f" `before` and `after` are given.{NOTHING}give one of them.",
        ),
        (
            replace(ADD, after="old"),
            STATE,
            'Column "state" of table "public"."orders" has no value "old" in its enum.'
            f'{NOTHING}correct it; there are "new", "paid".',
        ),
        (
            replace(ADD, value=""),
            STATE,
            'add value "" to the enum of column "state" of table "orders": the value'
            f" has 0 bytes.{NOTHING}give one of 1 to 63 bytes.",
        ),
    ],
)
def test_message(pattern: AddEnumValue, column: Column, message: str) -> None:
    """What cannot work is refused with the reason and a way out."""
    with pytest.raises(Refused) as caught:
        pattern.check(facts(column))
    assert str(caught.value) == message


def test_notice() -> None:
    """A reviewer reads who meets the value."""
    (notice,) = ADD.check(facts())
    assert notice.text == (
        "The old release may meet the value as soon as the new one writes it: where it"
        " reads it into an enum of its own, write it from retire on only."
    )
