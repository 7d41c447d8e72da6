"""DropConstraint: its text, its life, its locks and its messages."""

from dataclasses import replace

import psycopg
import pytest
from locks import holding, taken

from migrator.change import Change
from migrator.errors import LockBudgetError, Refused
from migrator.facts import (
    Column,
    Constraint,
    Facts,
    ForeignKey,
    Index,
    IndexColumn,
    Table,
)
from migrator.names import TableName
from migrator.patterns import DropConstraint
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
            Constraint(name="positive", kind="c", definition="CHECK ((price > 0))"),
        ),
    ),
)
PLAIN = DropConstraint("orders", "positive")
TABLES = (
    "CREATE TABLE users (id int PRIMARY KEY); INSERT INTO users VALUES (1);"
    "CREATE TABLE orders (id int CONSTRAINT key PRIMARY KEY,"
    " price int CONSTRAINT positive CHECK (price > 0),"
    " code int, CONSTRAINT one UNIQUE NULLS NOT DISTINCT (code) INCLUDE (price)"
    "  DEFERRABLE INITIALLY DEFERRED,"
    " user_id int CONSTRAINT owned REFERENCES users ON DELETE CASCADE"
    "  DEFERRABLE INITIALLY DEFERRED);"
    "INSERT INTO orders VALUES (1, 1, 1, 1)"
)
SHAPE = (
    "SELECT conname, pg_get_constraintdef(oid), convalidated FROM pg_constraint"
    " WHERE conrelid = 'orders'::regclass UNION ALL"
    " SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid), indisvalid"
    " FROM pg_index WHERE indrelid = 'orders'::regclass ORDER BY 1, 2"
)
VIOLATIONS = {
    "key": "INSERT INTO orders VALUES (1, 1, 2, 1)",
    "positive": "INSERT INTO orders VALUES (2, 0, 2, 1)",
    "one": "INSERT INTO orders VALUES (2, 1, 1, 1)",
    "owned": "INSERT INTO orders VALUES (2, 1, 2, 7)",
}


# -- text --------------------------------------------------------------------


def test_text_with_hostile_names() -> None:
    """Both tables of a foreign key are locked, there and back."""
    long = "é" * 31
    child, parent = TableName('my "sch', "or der"), TableName("%s", ":p'")
    text = """FOREIGN KEY ("a %s") REFERENCES "%s".":p'"(":x")"""
    key = Constraint(name=long, kind="f", definition=text, references=parent)
    ends = ForeignKey(
        name=long, table=child, columns=("price",), to=parent, to_columns=(":x",)
    )
    table = replace(FACTS.table, name=child, constraints=(key,), foreign_keys=(ends,))
    (step,) = DropConstraint("or der", long).retire(replace(FACTS, table=table))
    both = '"%s".":p\'", "my ""sch"."or der"'
    assert isinstance(step.work, Transaction)
    assert step.work.statements == (
        f"LOCK TABLE {both} IN ACCESS EXCLUSIVE MODE",
        f'ALTER TABLE "my ""sch"."or der" DROP CONSTRAINT IF EXISTS "{long}"',
    )
    name, count, add, validate = step.reverse
    assert isinstance(name, Autocommit)
    (other,) = name.refusals
    assert other.count.endswith(
        f" AND conname = '{long}' AND convalidated AND NOT (contype = 'f' AND"
        """ confrelid = '"%s".":p''"'::pg_catalog.regclass)"""
    )
    # One statement, so that locks on partitions of both share one budget.
    assert isinstance(add, Transaction)
    assert add.statements == (
        f"LOCK TABLE {both} IN SHARE ROW EXCLUSIVE MODE",
        f'ALTER TABLE "my ""sch"."or der" ADD CONSTRAINT "{long}" {text} NOT VALID',
    )
    assert [(a.table, a.lock) for a in add.also] == [(parent, add.lock)]
    assert isinstance(count, Autocommit)
    assert count.lock is Lock.NONE
    (orphans,) = count.refusals
    assert orphans.count == (
        'SELECT count(*) FROM "my ""sch"."or der" AS "or der" WHERE "or der"."price" IS'
        ' DISTINCT FROM NULL AND NOT EXISTS (SELECT FROM "%s".":p\'" AS'
        ' "other" WHERE "other".":x"'
        ' OPERATOR(pg_catalog.=) "or der"."price")'
    )
    assert isinstance(validate, Autocommit)
    assert validate.refusals == count.refusals
    assert validate.statement == (
        f'ALTER TABLE "my ""sch"."or der" VALIDATE CONSTRAINT "{long}"'
    )


def test_text_of_a_constraint_that_was_never_proved() -> None:
    """It comes back as it was."""
    text = "CHECK ((price > 0)) NOT VALID"
    late = replace(FACTS.table.constraints[0], definition=text, validated=False)
    table = replace(FACTS.table, constraints=(late,))
    (step,) = PLAIN.retire(replace(FACTS, table=table))
    _, add = step.reverse
    assert isinstance(add, Transaction)
    assert add.statements[1] == (
        f'ALTER TABLE "public"."orders" ADD CONSTRAINT "positive" {text}'
    )


def test_text_of_a_key() -> None:
    """Its index comes back first, concurrently."""
    key = Constraint(name="one", kind="u", index="one", deferrable=True)
    index = Index(
        name="one",
        method="btree",
        keys=(IndexColumn(name="price"),),
        unique=True,
        include=("code",),
        nulls_not_distinct=True,
    )
    table = replace(FACTS.table, constraints=(key,), indexes=(index,))
    (step,) = DropConstraint("orders", "one").retire(replace(FACTS, table=table))
    build, attach = step.reverse
    assert isinstance(build, Autocommit)
    assert build.statement == (
        'CREATE UNIQUE INDEX CONCURRENTLY "one" ON "public"."orders" USING "btree"'
        ' ("price") INCLUDE ("code") NULLS NOT DISTINCT'
    )
    assert isinstance(attach, Transaction)
    assert attach.statements[1] == (
        'ALTER TABLE "public"."orders" ADD CONSTRAINT "one" UNIQUE USING INDEX "one"'
        " DEFERRABLE INITIALLY IMMEDIATE"
    )


# -- life cycle --------------------------------------------------------------


@pytest.mark.parametrize("name", VIOLATIONS)
def test_life_cycle(name: str, runner: Runner, sql: psycopg.Connection) -> None:
    """It holds until retire, and comes back as it was."""
    sql.execute(TABLES)
    before = sql.execute(SHAPE).fetchall()
    pattern = DropConstraint("orders", name, assured="nobody relies on it")
    change = Change(revision="a1", pattern=pattern)

    def violate() -> None:
        sql.execute(VIOLATIONS[name].encode())
        sql.execute("DELETE FROM orders WHERE ctid <> (SELECT min(ctid) FROM orders)")

    with pytest.raises(psycopg.errors.IntegrityError):
        violate()
    assert runner.expand(change) is State.VERIFIED
    with pytest.raises(psycopg.errors.IntegrityError):
        violate()
    assert runner.rollback("a1") is State.PLANNED
    assert runner.expand(change) is State.VERIFIED
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert runner.change("a1").finished
    violate()
    assert runner.rollback("a1") is State.VERIFIED
    assert sql.execute(SHAPE).fetchall() == before
    with pytest.raises(psycopg.errors.IntegrityError):
        violate()
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert runner.rollback("a1", to=State.PLANNED) is State.PLANNED
    assert sql.execute(SHAPE).fetchall() == before


@pytest.mark.parametrize(
    ("name", "text", "again"),
    [
        (
            "positive",
            '1 row violates the constraint "positive"',
            "UPDATE orders SET price = 1",
        ),
        (
            "owned",
            '1 row violates the constraint "owned"',
            "UPDATE orders SET user_id = 1",
        ),
        (
            "one",
            '1 key of "one" is held by several rows',
            "UPDATE orders SET code = id",
        ),
    ],
)
def test_going_back_over_violating_rows(
    name: str, text: str, again: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """They are counted, for status as well; it goes on once they are corrected."""
    sql.execute(TABLES)
    before = sql.execute(SHAPE).fetchall()
    pattern = DropConstraint("orders", name, assured="nobody relies on it")
    runner.complete(Change(revision="a1", pattern=pattern))
    sql.execute(VIOLATIONS[name].encode())
    why = f"{text}, written since it was dropped"
    assert runner.way_back("a1").open is False
    assert why in runner.way_back("a1").reasons[0]
    with pytest.raises(Refused) as caught:
        runner.rollback("a1")
    assert str(caught.value) == (
        f'Step \'drop_constraint\' on table "public"."orders" is refused: {why}.\n'
        "Nothing was changed.\nNext: correct these rows, then run the same command"
        " again; or keep the new release."
    )
    sql.execute(again.encode())
    assert runner.rollback("a1") is State.VERIFIED
    assert sql.execute(SHAPE).fetchall() == before


def test_another_search_path(runner: Runner, sql: psycopg.Connection) -> None:
    """A definition means the same when it comes back under another one."""
    sql.execute("CREATE SCHEMA one; CREATE TABLE one.users (id int PRIMARY KEY)")
    sql.execute("CREATE FUNCTION one.ok(int) RETURNS bool IMMUTABLE RETURN $1 > 0")
    name = sql.info.dbname
    sql.execute(f"ALTER DATABASE {name} SET search_path = one".encode())
    sql.execute("SET search_path = one")
    sql.execute(
        "CREATE TABLE orders (n int CONSTRAINT owned REFERENCES users,"
        " CONSTRAINT fine CHECK (ok(n)))"
    )
    for revision, constraint in (("a1", "owned"), ("b2", "fine")):
        pattern = DropConstraint("orders", constraint)
        runner.complete(Change(revision=revision, pattern=pattern))
    sql.execute(f"ALTER DATABASE {name} RESET search_path".encode())
    for revision in ("a1", "b2"):
        assert runner.rollback(revision, to=State.PLANNED) is State.PLANNED
    sql.execute("SET search_path = public")
    assert sql.execute(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conrelid = 'one.orders'::regclass ORDER BY 1"
    ).fetchall() == [
        ("CHECK (one.ok(n))",),
        ("FOREIGN KEY (n) REFERENCES one.users(id)",),
    ]


# -- locks -------------------------------------------------------------------


@pytest.mark.parametrize("name", VIOLATIONS)
def test_no_step_locks_more_than_it_claims(
    name: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """What pg_locks shows is what the plan says, on both tables, there and back."""
    sql.execute(TABLES)
    pattern = DropConstraint("orders", name, assured="nobody relies on it")
    plan = runner.plan(Change(revision="a1", pattern=pattern))
    (step,) = plan.steps(Phase.RETIRE)
    also = "users" if name == "owned" else "orders"
    assert isinstance(step.work, Transaction)
    assert taken(sql, step.work, "orders", also) == dict.fromkeys(
        ("orders", also), Lock.ACCESS_EXCLUSIVE
    )
    with sql.transaction():
        for statement in step.work.statements:
            sql.execute(statement.encode())
    first, *added, last = step.reverse
    assert isinstance(first, Autocommit)
    if name in ("key", "one"):
        assert first.lock is Lock.SHARE_UPDATE_EXCLUSIVE
        return
    _, add = added
    assert isinstance(add, Transaction)
    assert taken(sql, add, "orders", also) == dict.fromkeys(("orders", also), add.lock)
    assert last.lock is Lock.SHARE_UPDATE_EXCLUSIVE


@pytest.mark.parametrize("table", ["orders", "users"])
def test_a_lock_on_either_table(
    table: str, runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """The step gives up on time, names the holder and leaves nothing."""
    sql.execute(TABLES)
    before = sql.execute(SHAPE).fetchall()
    runner.expand(Change(revision="a1", pattern=DropConstraint("orders", "owned")))
    with (
        holding(database, table, "ACCESS SHARE"),
        pytest.raises(LockBudgetError) as caught,
    ):
        runner.retire("a1", old_release_gone="test")
    assert str(caught.value).startswith(
        'Step \'drop_constraint\' on table "public"."orders" got no lock within 200 ms'
    )
    assert '(application "billing"' in str(caught.value)
    assert sql.execute(SHAPE).fetchall() == before
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED


# -- messages ----------------------------------------------------------------


def refused(constraint: Constraint, **facts: object) -> str:
    """Return what a change says that drops the constraint."""
    table = replace(FACTS.table, constraints=(constraint,), kind=facts.pop("kind", "r"))
    given = replace(FACTS, table=table, **facts)  # type: ignore[arg-type]
    with pytest.raises(Refused) as caught:
        DropConstraint("orders", "it").check(given)
    return str(caught.value)


def test_message_about_a_constraint_that_is_not_there() -> None:
    """Those that are there are named."""
    assert refused(FACTS.table.constraints[0]) == (
        'Table "public"."orders" has no constraint "it".\nNothing was changed.\n'
        'Next: correct the name; the table has "positive".'
    )


def test_message_about_a_kind_that_cannot_come_back() -> None:
    """An exclusion constraint's index is not built concurrently."""
    assert refused(Constraint(name="it", kind="x")) == (
        'Constraint "it" of table "public"."orders" is none of check, foreign key,'
        " primary key, unique: it could come back only by a scan or build under a lock"
        " that stops writers.\nNothing was changed.\n"
        "Next: drop it with plain SQL, or use the pattern for NOT NULL."
    )


def test_message_about_partitioned_tables() -> None:
    """Before 18 a foreign key does not come back without stopping them."""
    key = Constraint(name="it", kind="f", references=FACTS.table.name)
    assert refused(key, kind="p", server_version=170000) == (
        'Constraint "it" of table "public"."orders" is a foreign key of a partitioned'
        " table: before PostgreSQL 18 it cannot come back NOT VALID, but by a scan"
        " while writers of both tables wait.\nNothing was changed.\n"
        "Next: drop it with plain SQL in a maintenance window."
    )


def test_message_about_a_key_that_is_referred_to(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Foreign keys, and views that group by it, are named."""
    sql.execute(TABLES)
    sql.execute("CREATE VIEW v AS SELECT orders.* FROM orders GROUP BY orders.id")
    sql.execute("CREATE TABLE items (n int CONSTRAINT part_of REFERENCES orders)")
    pattern = DropConstraint("orders", "key", assured="nobody relies on it")
    with pytest.raises(Refused) as caught:
        runner.expand(Change(revision="a1", pattern=pattern))
    assert str(caught.value) == (
        'Constraint "key" of table "public"."orders" is needed by constraint part_of on'
        " table public.items; rule _RETURN on view public.v.\nNothing was changed.\n"
        "Next: drop what depends on it first, by changes of their own."
    )


def test_notices() -> None:
    """A reviewer reads what going back costs."""

    def told(kind: str) -> list[str]:
        key = Constraint(name="it", kind=kind, references=FACTS.table.name)
        table = replace(FACTS.table, constraints=(key,))
        pattern = DropConstraint("orders", "it", assured="why")
        return [n.text for n in pattern.check(replace(FACTS, table=table))]

    until = (
        "Until retire the constraint holds for the new release as well; from then on"
        " for none. Going back counts the rows that violate it, and is refused while"
        " there are any."
    )
    index = (
        "Going back builds its index again, concurrently: two scans of the table. From"
        " retire on, ON CONFLICT cannot name its columns"
    )
    assert told("c") == [
        "Going back reads the whole table once, while it is written.",
        until,
    ]
    assert told("f") == [
        "Going back reads the whole table once, while both are written. Without the"
        " foreign key nothing cascades, and orphans may be written.",
        until,
    ]
    assert told("u") == [f"{index}.", until]
    assert told("p") == [
        f"{index}, and where the table is published, UPDATE and DELETE fail without"
        " another replica identity.",
        until,
    ]
