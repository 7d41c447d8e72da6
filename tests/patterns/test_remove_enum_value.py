"""RemoveEnumValue: its text, its life, its locks and its messages."""

from dataclasses import replace

import psycopg
import pytest
from locks import holding, taken

from migrator.change import Change
from migrator.errors import Failed, LockBudgetError, Refused
from migrator.facts import Column, Facts, Table
from migrator.names import TableName
from migrator.patterns import RemoveEnumValue
from migrator.plan import Autocommit, ChunkedUpdate, Lock, Phase, State, Transaction
from migrator.runner import Runner

REMOVE = RemoveEnumValue("orders", "state", "lost", instead="new")
CHANGE = Change(revision="e1", pattern=REMOVE)
NOTHING = "\nNothing was changed.\nNext: "
TITLE = 'take value "lost" of the enum of column "state" of table "orders" out of use'
CHECKS = (
    "SELECT conname, convalidated FROM pg_constraint WHERE contype = 'c'"
    " AND connamespace = 'public'::regnamespace"
)


@pytest.fixture(autouse=True)
def _orders(sql: psycopg.Connection) -> None:
    sql.execute(
        "CREATE TYPE state AS ENUM ('new', 'paid', 'lost');"
        "CREATE TABLE orders (id int PRIMARY KEY, state state);"
        "INSERT INTO orders VALUES (1, 'new'), (2, 'lost'), (3, NULL)"
    )


def states(sql: psycopg.Connection) -> list[object]:
    """Return the value of each row."""
    rows = sql.execute("SELECT state FROM orders ORDER BY id").fetchall()
    return [state for (state,) in rows]


def verified(runner: Runner, change: Change = CHANGE) -> None:
    """Carry the change to verified, where nothing is done."""
    assert runner.expand(change) is State.VERIFIED


def retire(runner: Runner) -> None:
    """Carry the change to retired, after the old release."""
    assert runner.retire("e1", old_release_gone="test") is State.RETIRED


# -- text --------------------------------------------------------------------


@pytest.mark.parametrize(("instead", "text"), [(":x", "':x'"), (None, "NULL")])
def test_text_with_hostile_names(instead: str | None, text: str) -> None:
    """Names and values are quoted; the check's name is cut to 63 bytes."""
    values = ("o'k%s", ":x")
    column = Column(name='st "ate', type='"my sch"."%s"', values=values)
    table = Table(name=TableName('my "sch', "é" * 30), oid=1, columns=(column,))
    facts = Facts(server_version=180000, tag="0123456789", table=table)
    pattern = RemoveEnumValue("é" * 30, 'st "ate', "o'k%s", instead=instead)
    move, add, validate = pattern.retire(facts)
    name = f'"my ""sch"."{"é" * 30}"'
    assert isinstance(move.work, ChunkedUpdate)
    assert move.work.statement == (
        f'UPDATE {name} SET "st ""ate" = {text} WHERE ctid >= $1::pg_catalog.tid AND'
        ' ctid < $2::pg_catalog.tid AND ("st ""ate" OPERATOR(pg_catalog.=)'
        " 'o''k%s')"
    )
    assert isinstance(add.work, Transaction)
    check = f'"{"é" * 30}_st"'
    assert add.work.statements[1] == (
        f'ALTER TABLE {name} ADD CONSTRAINT {check} CHECK ("st ""ate"'
        " OPERATOR(pg_catalog.<>) 'o''k%s') NOT VALID"
    )
    assert isinstance(validate.work, Autocommit)
    assert validate.work.statement == f"ALTER TABLE {name} VALIDATE CONSTRAINT {check}"


# -- life cycle --------------------------------------------------------------


def test_life_cycle(runner: Runner, sql: psycopg.Connection) -> None:
    """The old release writes the value until retire, and nobody afterwards."""

    def old() -> None:
        sql.execute("UPDATE orders SET state = 'lost' WHERE id = 2")

    def new() -> None:
        sql.execute("UPDATE orders SET state = 'paid' WHERE id = 1")

    verified(runner)
    old()
    assert runner.rollback("e1") is State.PLANNED
    old()
    verified(runner)
    old()
    new()
    retire(runner)
    assert runner.change("e1").finished
    assert states(sql) == ["paid", "new", None]
    assert sql.execute(CHECKS).fetchall() == [("orders_state_not_lost", True)]
    new()
    with pytest.raises(psycopg.errors.CheckViolation):
        old()
    assert runner.rollback("e1") is State.VERIFIED
    assert states(sql) == ["paid", "new", None]
    old()
    retire(runner)
    assert states(sql) == ["paid", "new", None]
    runner.rebuild(CHANGE)
    assert sql.execute(CHECKS).fetchall() == []
    old()
    assert runner.complete(CHANGE) is State.RETIRED
    assert states(sql) == ["paid", "new", None]


def test_null_on_a_partitioned_table(runner: Runner, sql: psycopg.Connection) -> None:
    """Each partition's rows are moved, and the parent's check holds them all."""
    sql.execute(
        "DROP TABLE orders;"
        "CREATE TABLE orders (id int, state state) PARTITION BY LIST (id);"
        "CREATE TABLE one PARTITION OF orders FOR VALUES IN (1);"
        "CREATE TABLE rest PARTITION OF orders DEFAULT;"
        "INSERT INTO orders VALUES (1, 'lost'), (2, 'lost'), (3, 'paid')"
    )
    pattern = replace(REMOVE, instead=None, name="kept")
    verified(runner, Change(revision="e1", pattern=pattern))
    retire(runner)
    assert states(sql) == [None, None, "paid"]
    with pytest.raises(psycopg.errors.CheckViolation):
        sql.execute("INSERT INTO rest VALUES (2, 'lost')")
    assert sql.execute(f"{CHECKS} AND NOT conislocal").fetchall() == [
        ("kept", True),
        ("kept", True),
    ]


def test_a_straggler_between_the_move_and_the_check(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """The proof fails and says so; back and again, the row is moved."""
    sql.execute(
        "CREATE FUNCTION late() RETURNS event_trigger LANGUAGE plpgsql AS"
        " 'BEGIN IF NOT EXISTS (SELECT FROM pg_constraint WHERE conname ="
        " ''orders_state_not_lost'') THEN UPDATE public.orders SET state = ''lost''"
        " WHERE id = 1; END IF; END';"
        "CREATE EVENT TRIGGER late ON ddl_command_start WHEN TAG IN ('ALTER TABLE')"
        " EXECUTE FUNCTION late()"
    )
    verified(runner)
    with pytest.raises(Failed, match="is violated by some row"):
        runner.retire("e1", old_release_gone="test")
    sql.execute("DROP EVENT TRIGGER late")
    assert runner.rollback("e1") is State.VERIFIED
    retire(runner)
    assert states(sql) == ["new", "new", None]


# -- locks -------------------------------------------------------------------


def test_locks(runner: Runner, sql: psycopg.Connection, database: str) -> None:
    """Steps take what they say; one that gets no lock leaves rows moved, no check."""
    plan = runner.plan(CHANGE)
    _, add, validate = plan.steps(Phase.RETIRE)
    assert isinstance(add.work, Transaction)
    assert isinstance(validate.work, Autocommit)
    assert taken(sql, add.work, "orders") == {"orders": Lock.ACCESS_EXCLUSIVE}
    verified(runner)
    with (
        holding(database, "orders", "ACCESS SHARE"),
        pytest.raises(LockBudgetError) as caught,
    ):
        runner.retire("e1", old_release_gone="test")
    assert str(caught.value).startswith(
        'Step \'add_constraint\' on table "public"."orders" got no lock within 200 ms'
    )
    assert states(sql) == ["new", "new", None]
    assert sql.execute(CHECKS).fetchall() == []
    retire(runner)
    assert taken(sql, validate.work, "orders") == {"orders": validate.work.lock}


# -- messages ----------------------------------------------------------------

CORRECT = 'correct it; there are "new", "paid", "lost".'


@pytest.mark.parametrize(
    ("setup", "pattern", "message"),
    [
        (
            "",
            replace(REMOVE, value="gone"),
            'Column "state" of table "public"."orders" has no value "gone" in its'
            f" enum.{NOTHING}{CORRECT}",
        ),
        (
            "",
            replace(REMOVE, instead="gone"),
            'Column "state" of table "public"."orders" has no value "gone" in its'
            f" enum.{NOTHING}{CORRECT}",
        ),
        (
            "",
            replace(REMOVE, instead="lost"),
            f"{TITLE}: its rows would keep it.{NOTHING}give another value as"
            " `instead`.",
        ),
        (
            "DELETE FROM orders WHERE state IS NULL; ALTER TABLE orders"
            " ALTER state SET NOT NULL",
            replace(REMOVE, instead=None),
            f'Column "state" of table "public"."orders" is NOT NULL.{NOTHING}give the'
            " value that the rows get as `instead`.",
        ),
        (
            "ALTER TABLE orders ALTER state SET DEFAULT 'lost'",
            REMOVE,
            f"{TITLE}: it is the column's default, which the check would refuse."
            f"{NOTHING}give the column another default first (SetDefault).",
        ),
        (
            "CREATE UNIQUE INDEX one ON orders (id) WHERE state = 'new'",
            REMOVE,
            f'{TITLE}: Unique index "one" may refuse a moved row, which cuts retire'
            f" off.{NOTHING}look into it, then write"
            ' assured="why it is safe here" into the pattern.',
        ),
        (
            "ALTER TABLE orders ADD CONSTRAINT orders_state_not_lost CHECK (id > 0)",
            REMOVE,
            'Table "public"."orders" has a constraint "orders_state_not_lost" already.'
            f"{NOTHING}choose another name, or drop it first.",
        ),
    ],
)
def test_messages(
    runner: Runner,
    sql: psycopg.Connection,
    setup: str,
    pattern: RemoveEnumValue,
    message: str,
) -> None:
    """What rows cannot leave is refused before anything is changed."""
    sql.execute(setup.encode())
    with pytest.raises(Refused) as caught:
        runner.expand(Change(revision="e1", pattern=pattern))
    assert str(caught.value) == message
    assert runner.changes() == []
