"""RenameConstraint: its text, its life, its locks and its messages."""

from dataclasses import replace

import psycopg
import pytest
from locks import holding, taken

from migrator.change import Change
from migrator.errors import LockBudgetError, Refused
from migrator.facts import Column, Constraint, Facts, Table
from migrator.names import TableName
from migrator.patterns import RenameConstraint
from migrator.plan import Lock, Phase, State, Transaction
from migrator.runner import Runner

FACTS = Facts(
    server_version=180000,
    tag="0123456789",
    table=Table(
        name=TableName("public", "orders"),
        oid=1,
        columns=(Column(name="price", type="int"),),
        constraints=(
            Constraint(name="old", kind="c"),
            Constraint(name="key", kind="u"),
        ),
    ),
    relation_names=frozenset({"orders", "users"}),
)
PLAIN = RenameConstraint("orders", "old", "new")
NAMES = (
    "SELECT conname FROM pg_constraint WHERE conrelid = 'orders'::regclass"
    " AND contype <> 'n' UNION ALL SELECT indexrelid::regclass::text FROM pg_index"
    " WHERE indrelid = 'orders'::regclass ORDER BY 1"
)


# -- text --------------------------------------------------------------------


def test_text_with_hostile_names() -> None:
    """Every name is quoted, there and back."""
    long = "é" * 31
    table = replace(FACTS.table, name=TableName('my "sch', "or der"))
    pattern = RenameConstraint("or der", '%s "x', long)
    (step,) = pattern.expand(replace(FACTS, table=table))
    lock = 'LOCK TABLE "my ""sch"."or der" IN ACCESS EXCLUSIVE MODE'
    text = 'ALTER TABLE "my ""sch"."or der" RENAME CONSTRAINT {} TO {}'
    assert isinstance(step.work, Transaction)
    assert step.work.statements == (lock, text.format('"%s ""x"', f'"{long}"'))
    (back,) = step.reverse
    assert isinstance(back, Transaction)
    assert back.statements == (lock, text.format(f'"{long}"', '"%s ""x"'))


# -- life cycle --------------------------------------------------------------


@pytest.mark.parametrize(
    ("definition", "names"),
    [
        ("CHECK (n > 0)", ["new"]),
        ("UNIQUE (n)", ["new", "new"]),
        ("FOREIGN KEY (n) REFERENCES orders (k)", ["k", "k", "new"]),
    ],
)
def test_life_cycle(
    definition: str, names: list[str], runner: Runner, sql: psycopg.Connection
) -> None:
    """The name changes, and comes back, with that of a key's index."""
    key = ", k int CONSTRAINT k UNIQUE" if "k" in names else ""
    sql.execute(f"CREATE TABLE orders (n int{key})".encode())
    sql.execute(f"ALTER TABLE orders ADD CONSTRAINT old {definition}".encode())
    before = sql.execute(NAMES).fetchall()
    change = Change(revision="a1", pattern=replace(PLAIN, assured="nobody names it"))
    assert runner.expand(change) is State.VERIFIED
    assert runner.change("a1").finished
    assert [name for (name,) in sql.execute(NAMES)] == names
    assert runner.rollback("a1") is State.PLANNED
    assert sql.execute(NAMES).fetchall() == before
    assert runner.complete(change) is State.VERIFIED
    runner.rebuild(change)
    assert sql.execute(NAMES).fetchall() == before


def test_a_partitioned_table(runner: Runner, sql: psycopg.Connection) -> None:
    """The partitions' checks bear the name as well."""
    sql.execute(
        "CREATE TABLE orders (n int CONSTRAINT old CHECK (n > 0))"
        " PARTITION BY LIST (n);"
        "CREATE TABLE one PARTITION OF orders DEFAULT"
    )
    runner.expand(Change(revision="a1", pattern=PLAIN))
    with pytest.raises(psycopg.errors.CheckViolation, match='constraint "new"'):
        sql.execute("INSERT INTO orders VALUES (0)")


# -- locks -------------------------------------------------------------------


def test_no_step_locks_more_than_it_claims(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """It gives up on time, names the holder and leaves nothing."""
    sql.execute("CREATE TABLE orders (n int CONSTRAINT old CHECK (n > 0))")
    change = Change(revision="a1", pattern=PLAIN)
    (step,) = runner.plan(change).steps(Phase.EXPAND)
    assert isinstance(step.work, Transaction)
    assert taken(sql, step.work, "orders") == {"orders": Lock.ACCESS_EXCLUSIVE}
    with (
        holding(database, "orders", "ACCESS SHARE"),
        pytest.raises(LockBudgetError) as caught,
    ):
        runner.expand(change)
    assert str(caught.value).startswith(
        'Step \'rename_constraint\' on table "public"."orders" got no lock within'
        " 200 ms"
    )
    assert [name for (name,) in sql.execute(NAMES)] == ["old"]
    assert runner.expand(change) is State.VERIFIED


# -- messages ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            replace(PLAIN, name="gone"),
            'Table "public"."orders" has no constraint "gone".\nNothing was changed.\n'
            'Next: correct the name; the table has "old", "key".',
        ),
        (
            replace(PLAIN, to="key"),
            'Table "public"."orders" has a constraint "key" already.\n'
            "Nothing was changed.\nNext: choose another name, or drop it first.",
        ),
        (
            replace(PLAIN, name="key", to="users"),
            'Schema "public" has a relation "users" already.\n'
            "Nothing was changed.\nNext: choose another name, or drop it first.",
        ),
        (
            replace(PLAIN, name="key"),
            'rename constraint "key" of table "orders" to "new": From expand on, ON'
            ' CONFLICT ON CONSTRAINT finds "new" alone, and errors bear that name: a'
            " release that says the old one fails.\nNothing was changed.\nNext: look"
            ' into it, then write assured="why it is safe here" into the pattern.',
        ),
    ],
    ids=repr,
)
def test_message(pattern: RenameConstraint, message: str) -> None:
    """What cannot work is refused with the reason and a way out."""
    with pytest.raises(Refused) as caught:
        pattern.check(FACTS)
    assert str(caught.value) == message


def test_notices() -> None:
    """A check may bear the name of a relation, and errors tell the new one."""
    (notice,) = replace(PLAIN, to="users").check(FACTS)
    assert notice.text == (
        "A release that tells errors apart by the constraint's name sees the new one"
        " from expand on."
    )
