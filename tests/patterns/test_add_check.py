"""AddCheck: its text, its life, its locks and its messages."""

from dataclasses import replace

import psycopg
import pytest
from locks import holding, taken

from migrator.change import Change
from migrator.errors import LockBudgetError, MismatchError, Refused
from migrator.facts import Column, Constraint, Facts, Table
from migrator.names import TableName
from migrator.patterns import AddCheck
from migrator.plan import (
    Autocommit,
    ChunkedCheck,
    Lock,
    Phase,
    State,
    Transaction,
)
from migrator.runner import Runner

FACTS = Facts(
    server_version=180000,
    tag="0123456789",
    table=Table(
        name=TableName("public", "orders"),
        oid=1,
        columns=(Column(name="price", type="int"),),
        constraints=(Constraint(name="taken", kind="u"),),
    ),
)
PLAIN = AddCheck("orders", "price_positive", "price > 0")
EARLY = replace(PLAIN, enforce_early=True, assured="the old release never did")
CHECKS = (
    "SELECT convalidated FROM pg_constraint WHERE conrelid = 'orders'::regclass"
    " AND conname = 'price_positive'"
)


# -- text --------------------------------------------------------------------


def test_text_with_hostile_names() -> None:
    """Every name is quoted, the condition stands as it was written."""
    long = "é" * 31
    table = replace(FACTS.table, name=TableName('my "sch', "or der"))
    pattern = AddCheck("or der", long, '":x" LIKE \'a%\' AND "%s" > 0')
    given = replace(FACTS, table=table)
    assert pattern.expand(given) == ()
    add, validate = pattern.retire(given)
    lock = 'LOCK TABLE "my ""sch"."or der" IN ACCESS EXCLUSIVE MODE'
    assert isinstance(add.work, Transaction)
    assert add.work.statements == (
        lock,
        f'ALTER TABLE "my ""sch"."or der" ADD CONSTRAINT "{long}"'
        ' CHECK (":x" LIKE \'a%\' AND "%s" > 0) NOT VALID',
    )
    (back,) = add.reverse
    assert isinstance(back, Transaction)
    assert back.statements == (
        lock,
        f'ALTER TABLE "my ""sch"."or der" DROP CONSTRAINT IF EXISTS "{long}"',
    )
    assert isinstance(validate.work, Autocommit)
    assert validate.work.statement == (
        f'ALTER TABLE "my ""sch"."or der" VALIDATE CONSTRAINT "{long}"'
    )
    (count,) = pattern.verify(given)
    assert isinstance(count.work, ChunkedCheck)
    assert count.work.count == (
        'SELECT count(*) FROM "my ""sch"."or der" WHERE ctid >= $1::pg_catalog.tid'
        " AND ctid < $2::pg_catalog.tid AND"
        ' (NOT (":x" LIKE \'a%\' AND "%s" > 0))'
    )


def test_text_where_it_is_enforced_early() -> None:
    """It is added at expand, and proved at retire."""
    assert [s.name for s in EARLY.expand(FACTS)] == ["add_constraint"]
    assert [s.name for s in EARLY.retire(FACTS)] == ["validate_constraint"]


# -- life cycle --------------------------------------------------------------


def test_life_cycle(runner: Runner, sql: psycopg.Connection) -> None:
    """The old release may violate it until retire, and never afterwards."""
    sql.execute("CREATE TABLE orders (id int PRIMARY KEY, price int)")
    sql.execute("INSERT INTO orders VALUES (1, 1), (2, NULL)")
    change = Change(revision="a1", pattern=PLAIN)

    def violate() -> None:
        sql.execute("INSERT INTO orders VALUES (3, 0)")
        sql.execute("UPDATE orders SET price = -1 WHERE id = 3")
        sql.execute("DELETE FROM orders WHERE id = 3")

    violate()
    assert runner.expand(change) is State.BACKFILLED
    violate()
    assert runner.rollback("a1") is State.PLANNED
    violate()
    assert runner.expand(change) is State.BACKFILLED
    sql.execute("INSERT INTO orders VALUES (4, 0), (5, -1)")
    with pytest.raises(MismatchError):
        runner.verify("a1")
    keys = {m.key for m in runner.mismatches("a1")}
    assert keys == {'{"id" : "4"}', '{"id" : "5"}'}
    sql.execute("DELETE FROM orders WHERE price < 1")
    assert runner.verify("a1") is State.VERIFIED
    violate()
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert runner.change("a1").finished
    assert sql.execute(CHECKS).fetchall() == [(True,)]
    with pytest.raises(psycopg.errors.CheckViolation):
        violate()
    assert runner.rollback("a1") is State.VERIFIED
    violate()
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    runner.rebuild(change)
    assert sql.execute(CHECKS).fetchall() == []
    violate()
    assert runner.complete(change) is State.RETIRED
    assert sql.execute(CHECKS).fetchall() == [(True,)]


def test_life_where_it_is_enforced_early(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """New rows are held to it from expand on, old ones counted and proved."""
    sql.execute("CREATE TABLE orders (price int); INSERT INTO orders VALUES (0)")
    change = Change(revision="a1", pattern=EARLY)
    runner.expand(change)
    assert sql.execute(CHECKS).fetchall() == [(False,)]
    with pytest.raises(psycopg.errors.CheckViolation):
        sql.execute("INSERT INTO orders VALUES (0)")
    with pytest.raises(MismatchError):
        runner.verify("a1")
    sql.execute("UPDATE orders SET price = 1")
    runner.verify("a1")
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert sql.execute(CHECKS).fetchall() == [(True,)]
    assert runner.rollback("a1", to=State.PLANNED) is State.PLANNED
    sql.execute("INSERT INTO orders VALUES (0)")


def test_a_partitioned_table(runner: Runner, sql: psycopg.Connection) -> None:
    """Each partition is counted, and held to the parent's check."""
    sql.execute(
        "CREATE TABLE orders (id int, price int) PARTITION BY LIST (id);"
        "CREATE TABLE one PARTITION OF orders FOR VALUES IN (1);"
        "CREATE TABLE rest PARTITION OF orders DEFAULT;"
        "INSERT INTO orders VALUES (1, 0), (2, 0)"
    )
    # PostgreSQL reads the condition anew for each partition.
    named = replace(PLAIN, expression="orders.price > 0")
    with pytest.raises(Refused, match="missing FROM-clause entry"):
        runner.expand(Change(revision="a1", pattern=named))
    runner.expand(Change(revision="a1", pattern=PLAIN))
    with pytest.raises(MismatchError, match="found 2 rows"):
        runner.verify("a1")
    sql.execute("UPDATE orders SET price = 1")
    runner.verify("a1")
    runner.retire("a1", old_release_gone="test")
    with pytest.raises(psycopg.errors.CheckViolation):
        sql.execute("INSERT INTO rest VALUES (2, 0)")
    runner.rollback("a1", to=State.PLANNED)
    sql.execute("INSERT INTO rest VALUES (2, 0)")


# -- locks -------------------------------------------------------------------


def test_no_step_locks_more_than_it_claims(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """What pg_locks shows is what the plan says."""
    sql.execute("CREATE TABLE orders (price int)")
    plan = runner.plan(Change(revision="a1", pattern=PLAIN))
    add, validate = plan.steps(Phase.RETIRE)
    assert isinstance(add.work, Transaction)
    assert isinstance(validate.work, Autocommit)
    assert taken(sql, add.work, "orders") == {"orders": Lock.ACCESS_EXCLUSIVE}
    sql.execute(
        "ALTER TABLE orders ADD CONSTRAINT price_positive CHECK (price > 0) NOT VALID"
    )
    assert taken(sql, validate.work, "orders") == {"orders": validate.work.lock}
    assert validate.work.lock is Lock.SHARE_UPDATE_EXCLUSIVE


def test_a_lock_on_the_table(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """The step gives up on time, names the holder and leaves nothing."""
    sql.execute("CREATE TABLE orders (price int)")
    runner.expand(Change(revision="a1", pattern=PLAIN))
    runner.verify("a1")
    with (
        holding(database, "orders", "ROW SHARE"),
        pytest.raises(LockBudgetError) as caught,
    ):
        runner.retire("a1", old_release_gone="test")
    assert str(caught.value).startswith(
        'Step \'add_constraint\' on table "public"."orders" got no lock within 200 ms'
    )
    assert '(application "billing"' in str(caught.value)
    assert sql.execute(CHECKS).fetchall() == []
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED


# -- messages ----------------------------------------------------------------


def test_message_about_a_name_that_is_taken() -> None:
    """On the table, or on one of its partitions."""
    pattern = replace(PLAIN, name="taken")
    with pytest.raises(Refused) as caught:
        pattern.check(FACTS)
    assert str(caught.value) == (
        'Table "public"."orders" has a constraint "taken" already.\n'
        "Nothing was changed.\nNext: choose another name, or drop it first."
    )
    whole = replace(FACTS.table, kind="p", partitions=(FACTS.table,), constraints=())
    with pytest.raises(Refused, match='has a constraint "taken" already'):
        pattern.check(replace(FACTS, table=whole))


WRONG = (
    "Next: correct it in the revision; it is SQL, in which a text stands in quotes:"
    " \"'text'\", and a function or type of another schema with it."
)
MORE = (
    'add check "price_positive" to table "orders": the condition depends on more than'
    " the row, so that a stored row may come to violate it unnoticed: functions in"
    " index predicate must be marked IMMUTABLE.\nNothing was changed.\n"
    "Next: leave out functions such as now() and random(); a function of yours that"
    " depends on its arguments alone can be IMMUTABLE."
)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (
            "prise > 0",
            'The server refuses an expression of the pattern: column "prise" does not'
            f" exist.\nNothing was changed.\n{WRONG}",
        ),
        (
            "price > (SELECT 0)",
            "The server refuses an expression of the pattern: cannot use subquery in"
            f" check constraint.\nNothing was changed.\n{WRONG}",
        ),
        ("price > random()", MORE),
        ("now() > 'epoch'", MORE),
    ],
)
def test_message_about_an_expression(
    expression: str, message: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """The server's own words tell what is wrong with it."""
    sql.execute("CREATE TABLE orders (price int)")
    pattern = replace(PLAIN, expression=expression)
    with pytest.raises(Refused) as caught:
        runner.expand(Change(revision="a1", pattern=pattern))
    assert str(caught.value) == message


def test_message_about_early_enforcement() -> None:
    """It needs a person's word."""
    with pytest.raises(Refused) as caught:
        replace(EARLY, assured="").check(FACTS)
    assert str(caught.value) == (
        'add check "price_positive" to table "orders": From expand on, each write of'
        " the old release to a row that violates the check is refused, also one that"
        " leaves the violation as it was.\nNothing was changed.\n"
        'Next: look into it, then write assured="why it is safe here" into the'
        " pattern."
    )


def test_notices() -> None:
    """A reviewer reads when it is enforced."""
    (notice,) = PLAIN.check(FACTS)
    assert notice.text == (
        "Nothing is enforced before retire: violating rows that either release writes"
        " hold the change at verify."
    )
