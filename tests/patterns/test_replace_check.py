"""ReplaceCheck: its text, its life, its locks and its messages."""

from dataclasses import replace

import psycopg
import pytest
from locks import holding, taken

from migrator import names
from migrator.change import Change
from migrator.errors import LockBudgetError, MigratorError, MismatchError, Refused
from migrator.facts import Column, Constraint, Facts, Table
from migrator.names import TableName
from migrator.patterns import ReplaceCheck
from migrator.plan import Autocommit, Lock, Phase, State, Transaction
from migrator.runner import Runner

FACTS = Facts(
    server_version=180000,
    tag="0123456789",
    table=Table(
        name=TableName("public", "orders"),
        oid=1,
        columns=(Column(name="price", type="int"),),
        constraints=(
            Constraint(
                name="priced",
                kind="c",
                definition="CHECK ((price > 0))",
                condition="(price > 0)",
                comment="it's so",
            ),
            Constraint(name="taken", kind="u"),
        ),
    ),
)
PLAIN = ReplaceCheck("orders", "priced", "price >= 0 AND price < 100")
CHECKS = (
    "SELECT conname, pg_get_expr(conbin, conrelid), convalidated,"
    " obj_description(oid, 'pg_constraint') FROM pg_constraint"
    " WHERE conrelid = 'orders'::regclass AND contype = 'c' ORDER BY 1"
)
EITHER = [
    (
        "priced",
        "((price > 0) OR ((price >= 0) AND (price < 100)))",
        False,
        "kept",
    )
]
OLD = [("priced", "(price > 0)", True, "kept")]
NEW = [("priced", "((price >= 0) AND (price < 100))", True, "kept")]
SETUP = (
    "CREATE TABLE orders (id int, price int CONSTRAINT priced CHECK (price > 0));"
    "COMMENT ON CONSTRAINT priced ON orders IS 'kept';"
    "INSERT INTO orders VALUES (1, 1), (2, NULL)"
)


# -- text --------------------------------------------------------------------


def test_text_with_hostile_names() -> None:
    """Every name is quoted, the conditions stand as they were written."""
    long = "é" * 31
    (priced, _) = FACTS.table.constraints
    table = replace(
        FACTS.table,
        name=TableName('my "sch', "or der"),
        constraints=(
            replace(
                priced,
                name=long,
                definition='CHECK (("%s" > 0))',
                condition='("%s" > 0)',
            ),
        ),
    )
    pattern = ReplaceCheck("or der", long, "\":x\" LIKE 'a%'")
    given = replace(FACTS, table=table)
    lock = 'LOCK TABLE "my ""sch"."or der" IN ACCESS EXCLUSIVE MODE'
    alter = 'ALTER TABLE "my ""sch"."or der"'
    comment = f'COMMENT ON CONSTRAINT "{long}" ON "my ""sch"."or der" IS \'it\'\'s so\''
    either = (
        f'{alter} ADD CONSTRAINT "{long}" CHECK ((("%s" > 0)) OR (":x" LIKE \'a%\'))'
        " NOT VALID"
    )
    (allow,) = pattern.expand(given)
    assert isinstance(allow.work, Transaction)
    assert allow.work.statements == (
        lock,
        f'{alter} DROP CONSTRAINT "{long}"',
        either,
        comment,
    )
    _, again, proof, back = allow.reverse
    assert isinstance(again, Transaction)
    old = again.statements[1].split('"')[7]
    assert old.startswith("_migrator_again_é")
    assert len(old.encode()) <= 63
    assert again.statements == (
        lock,
        f'{alter} ADD CONSTRAINT "{old}" CHECK (("%s" > 0)) NOT VALID',
    )
    assert isinstance(proof, Autocommit)
    assert proof.statement == f'{alter} VALIDATE CONSTRAINT "{old}"'
    assert isinstance(back, Transaction)
    assert back.statements == (
        lock,
        f'{alter} DROP CONSTRAINT "{long}"',
        f'{alter} RENAME CONSTRAINT "{old}" TO "{long}"',
        comment,
    )

    add, validate, exchange = pattern.retire(given)
    assert isinstance(add.work, Transaction)
    made = add.work.statements[1].split('"')[7]
    assert made.startswith("_migrator_check_é")
    assert add.work.statements == (
        lock,
        f'{alter} ADD CONSTRAINT "{made}" CHECK (":x" LIKE \'a%\') NOT VALID',
    )
    assert isinstance(validate.work, Autocommit)
    assert validate.work.statement == f'{alter} VALIDATE CONSTRAINT "{made}"'
    assert isinstance(exchange.work, Transaction)
    assert exchange.work.statements == (
        lock,
        f'{alter} DROP CONSTRAINT "{long}"',
        f'{alter} RENAME CONSTRAINT "{made}" TO "{long}"',
        comment,
        f'{alter} DROP CONSTRAINT IF EXISTS "{old}"',
    )
    (away,) = exchange.reverse
    assert isinstance(away, Transaction)
    assert away.statements == (
        lock,
        f'{alter} RENAME CONSTRAINT "{long}" TO "{made}"',
        either,
        comment,
    )


# -- life cycle --------------------------------------------------------------


def test_life_cycle(runner: Runner, sql: psycopg.Connection) -> None:
    """Either condition will do until retire, the new one from there, and back."""
    sql.execute(SETUP)
    change = Change(revision="a1", pattern=PLAIN)
    runner.expand(change)
    assert sql.execute(CHECKS).fetchall() == EITHER
    assert runner.rollback("a1") is State.PLANNED
    assert sql.execute(CHECKS).fetchall() == OLD
    runner.expand(change)
    # The old release, the new one, and neither.
    sql.execute("INSERT INTO orders VALUES (3, 200), (4, 0)")
    with pytest.raises(psycopg.errors.CheckViolation, match='"priced"'):
        sql.execute("INSERT INTO orders VALUES (5, -1)")
    with pytest.raises(MismatchError, match="found 1 row"):
        runner.verify("a1")
    sql.execute("UPDATE orders SET price = 2 WHERE id = 3")
    runner.verify("a1")
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert runner.change("a1").finished
    assert sql.execute(CHECKS).fetchall() == NEW
    with pytest.raises(psycopg.errors.CheckViolation):
        sql.execute("INSERT INTO orders VALUES (5, 200)")
    assert runner.rollback("a1") is State.VERIFIED
    ((_, both, proved, _),) = sql.execute(CHECKS).fetchall()
    assert (both.count("price > 0"), proved) == (1, False)
    sql.execute("INSERT INTO orders VALUES (5, 200)")
    with pytest.raises(MigratorError, match='1 row violates the constraint "priced"'):
        runner.rollback("a1")
    sql.execute("DELETE FROM orders WHERE id IN (4, 5)")
    assert runner.rollback("a1") is State.PLANNED
    assert sql.execute(CHECKS).fetchall() == OLD
    assert runner.complete(change) is State.RETIRED
    assert sql.execute(CHECKS).fetchall() == NEW


def test_a_way_back_that_is_cut_off(runner: Runner, sql: psycopg.Connection) -> None:
    """Going on to retire from there leaves the new condition, and it alone."""
    sql.execute(SETUP)
    runner.expand(Change(revision="a1", pattern=PLAIN))
    runner.verify("a1")
    # As a way back leaves it that ends before its exchange.
    again = names.owned("again", "priced", runner.change("a1").tag)
    sql.execute(f"ALTER TABLE orders ADD CONSTRAINT {again} CHECK (price > 0)".encode())
    # What a person proves meanwhile is no sign that anything is done.
    sql.execute("ALTER TABLE orders VALIDATE CONSTRAINT priced")
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert sql.execute(CHECKS).fetchall() == NEW


def test_a_check_that_was_never_proved(runner: Runner, sql: psycopg.Connection) -> None:
    """It comes back as it was, whatever rows are there."""
    sql.execute(SETUP)
    sql.execute(
        "ALTER TABLE orders DROP CONSTRAINT priced;"
        "INSERT INTO orders VALUES (3, -1);"
        "ALTER TABLE orders ADD CONSTRAINT priced CHECK (price > 0) NOT VALID"
    )
    before = sql.execute(CHECKS).fetchall()
    runner.expand(Change(revision="a1", pattern=PLAIN))
    assert runner.rollback("a1") is State.PLANNED
    assert sql.execute(CHECKS).fetchall() == before


def test_a_partitioned_table(runner: Runner, sql: psycopg.Connection) -> None:
    """The partitions' checks go and come along, under the name of the table's."""
    sql.execute(
        "CREATE TABLE orders (id int, price int CONSTRAINT priced CHECK (price > 0))"
        " PARTITION BY LIST (id);"
        "CREATE TABLE one PARTITION OF orders FOR VALUES IN (1);"
        "COMMENT ON CONSTRAINT priced ON orders IS 'kept'"
    )
    runner.expand(Change(revision="a1", pattern=PLAIN))
    runner.verify("a1")
    runner.retire("a1", old_release_gone="test")
    assert sql.execute(CHECKS).fetchall() == NEW
    of_part = CHECKS.replace("'orders'", "'one'")
    assert [row[:2] for row in sql.execute(of_part.encode())] == [NEW[0][:2]]
    runner.rollback("a1", to=State.PLANNED)
    assert sql.execute(CHECKS).fetchall() == OLD
    assert [row[:2] for row in sql.execute(of_part.encode())] == [OLD[0][:2]]


# -- locks -------------------------------------------------------------------


def test_locks(runner: Runner, sql: psycopg.Connection, database: str) -> None:
    """What pg_locks shows is what the plan says; a step that waits gives up on time."""
    sql.execute(SETUP)
    change = Change(revision="a1", pattern=PLAIN)
    (allow,) = runner.plan(change).steps(Phase.EXPAND)
    assert isinstance(allow.work, Transaction)
    assert taken(sql, allow.work, "orders") == {"orders": Lock.ACCESS_EXCLUSIVE}
    add, _, exchange = runner.plan(change).steps(Phase.RETIRE)
    assert isinstance(add.work, Transaction)
    assert taken(sql, add.work, "orders") == {"orders": Lock.ACCESS_EXCLUSIVE}
    runner.expand(change)
    runner.verify("a1")
    with (
        holding(database, "orders", "ROW SHARE"),
        pytest.raises(LockBudgetError, match="Step 'add_constraint' on table"),
    ):
        runner.retire("a1", old_release_gone="test")
    assert sql.execute(CHECKS).fetchall() == EITHER
    assert isinstance(exchange.work, Transaction)
    assert exchange.work.lock is Lock.ACCESS_EXCLUSIVE
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED


# -- messages ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "taken",
            'Constraint "taken" of table "public"."orders" is no check.\n'
            "Nothing was changed.\nNext: name a check.",
        ),
        (
            "none",
            'Table "public"."orders" has no constraint "none".\nNothing was changed.\n'
            'Next: correct the name; the table has "priced", "taken".',
        ),
    ],
)
def test_message(name: str, message: str) -> None:
    """Only a check that is there can be replaced."""
    with pytest.raises(Refused) as caught:
        replace(PLAIN, name=name).check(FACTS)
    assert str(caught.value) == message


def test_a_check_that_holds_fewer_rows() -> None:
    """One that is not enforced or not inherited would be by the one for both."""
    (priced, _) = FACTS.table.constraints
    loose = replace(priced, definition="CHECK ((price > 0)) NO INHERIT NOT VALID")
    table = replace(FACTS.table, constraints=(loose,))
    with pytest.raises(Refused) as caught:
        PLAIN.check(replace(FACTS, table=table))
    assert str(caught.value) == (
        'Check "priced" of table "public"."orders" is NO INHERIT: a condition that'
        " either release meets would hold more rows to it.\nNothing was changed.\n"
        "Next: drop it by DropConstraint, and add the new one by AddCheck."
    )


def test_notice() -> None:
    """A reviewer reads how long which condition holds."""
    (notice,) = PLAIN.check(FACTS)
    assert notice.text == (
        "Between expand and retire a row passes that meets the old or the new"
        " condition; rows that violate the new one hold the change at verify. Going"
        " back to planned counts rows that violate the old one, and is refused while"
        " there are any."
    )
