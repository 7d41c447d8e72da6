"""ChangeDomain: its text, its life, its locks and its messages."""

from dataclasses import replace

import psycopg
import pytest
from locks import holding

from migrator.change import Change
from migrator.errors import Held, MismatchError, Refused
from migrator.facts import Column, Domain, Facts, Table
from migrator.names import TableName
from migrator.patterns import AddCheck, ChangeDomain, RenameColumn
from migrator.plan import Autocommit, ChunkedCheck, State, Transaction
from migrator.runner import Runner

ADD = ChangeDomain("price", add_check="VALUE > 0", name="price_positive")
CHANGE = Change(revision="d1", pattern=ADD)
NOTHING = "\nNothing was changed.\nNext: "
CHECKS = (
    "SELECT conname, convalidated FROM pg_constraint"
    " WHERE contypid = 'price'::regtype AND contype = 'c'"
)


@pytest.fixture(autouse=True)
def _price(sql: psycopg.Connection) -> None:
    sql.execute(
        "CREATE DOMAIN price AS int; CREATE DOMAIN fee AS price;"
        "CREATE TABLE bills (id int PRIMARY KEY, price price, n int);"
        "CREATE TABLE parts (id int, fee fee) PARTITION BY LIST (id);"
        "CREATE TABLE one PARTITION OF parts FOR VALUES IN (1);"
        "INSERT INTO bills VALUES (1, 5), (2, NULL); INSERT INTO parts VALUES (1, 7)"
    )


def retired(runner: Runner, pattern: ChangeDomain) -> None:
    """Carry a change that compares nothing to retired."""
    assert runner.expand(Change(revision="d1", pattern=pattern)) is State.VERIFIED
    assert runner.retire("d1", old_release_gone="test") is State.RETIRED


def insert(sql: psycopg.Connection, value: str = "0") -> None:
    """Write a value as a release does, and take it away again."""
    sql.execute(f"INSERT INTO bills VALUES (9, {value})".encode())
    sql.execute("DELETE FROM bills WHERE id = 9")


# -- text --------------------------------------------------------------------


def test_text_with_hostile_names() -> None:
    """Every name is quoted, the condition stands as it was written."""
    table = TableName('t "1', "or%der")
    facts = Facts(
        server_version=180000,
        tag="0123456789",
        table=Table(name=TableName('my "sch', ":x"), oid=0, columns=()),
        others=(Table(name=table, oid=1, columns=(Column(name="é'", type="d"),)),),
        domain=Domain(type="int", columns=((table, "é'"),)),
    )
    pattern = ChangeDomain(":x", add_check="VALUE % 2 > ':y'", name='k "%s')
    (count,) = pattern.verify(facts)
    assert count.name == 'count_violations "t ""1"."or%der"."é\'"'
    assert isinstance(count.work, ChunkedCheck)
    assert count.work.count == (
        'SELECT count(*) FROM "t ""1"."or%der" WHERE ctid >= $1::pg_catalog.tid AND'
        " ctid < $2::pg_catalog.tid AND (NOT (SELECT (VALUE % 2 > ':y') FROM"
        ' (SELECT "é\'" AS "value") AS ":x"))'
    )
    (add,) = pattern.retire(facts)
    assert isinstance(add.work, Transaction)
    assert add.work.statements == (
        'ALTER DOMAIN "my ""sch".":x" ADD CONSTRAINT "k ""%s"'
        " CHECK (VALUE % 2 > ':y') NOT VALID",
    )
    (back,) = add.reverse
    assert isinstance(back, Transaction)
    assert back.statements == (
        'ALTER DOMAIN "my ""sch".":x" DROP CONSTRAINT IF EXISTS "k ""%s"',
    )


# -- life cycle --------------------------------------------------------------


def test_life_of_an_added_check(runner: Runner, sql: psycopg.Connection) -> None:
    """The old release may violate it until retire; then nobody, on any table."""
    assert runner.expand(CHANGE) is State.BACKFILLED
    insert(sql)
    assert runner.rollback("d1") is State.PLANNED
    insert(sql)
    runner.expand(CHANGE)
    sql.execute("INSERT INTO bills VALUES (3, 0); UPDATE parts SET fee = -1")
    with pytest.raises(MismatchError) as caught:
        runner.verify("d1")
    assert str(caught.value).startswith(
        'Verification of d1 found 2 rows of tables "public"."bills", "public"."parts"'
        " that are to be corrected first: a violation of the check."
    )
    sql.execute("DELETE FROM bills WHERE id = 3; UPDATE parts SET fee = 1")
    assert runner.verify("d1") is State.VERIFIED
    sql.execute("PREPARE put AS INSERT INTO bills VALUES (9, $1)")
    assert runner.retire("d1", old_release_gone="test") is State.RETIRED
    assert runner.change("d1").finished
    assert sql.execute(CHECKS).fetchall() == [("price_positive", False)]
    for text in ("EXECUTE put(0)", "INSERT INTO parts VALUES (1, 0)"):
        with pytest.raises(psycopg.errors.CheckViolation):
            sql.execute(text.encode())
    insert(sql, "NULL")
    assert runner.rollback("d1") is State.VERIFIED
    insert(sql)
    runner.retire("d1", old_release_gone="test")
    runner.rebuild(CHANGE)
    insert(sql)
    assert runner.complete(CHANGE) is State.RETIRED


def test_a_row_that_violates_a_check_can_be_updated(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """What slipped in while the check was added stops nobody."""
    sql.execute("INSERT INTO bills VALUES (3, 0)")
    sql.execute("ALTER DOMAIN price ADD CONSTRAINT k CHECK (VALUE > 0) NOT VALID")
    sql.execute("UPDATE bills SET n = 1")
    assert sql.execute("SELECT price FROM bills WHERE id = 3").fetchone() == (0,)


def test_life_of_a_dropped_check(runner: Runner, sql: psycopg.Connection) -> None:
    """It comes back NOT VALID once no value violates it."""
    sql.execute(
        "CREATE FUNCTION least_of() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';"
        "ALTER DOMAIN price ADD CONSTRAINT least CHECK (VALUE >= least_of())"
    )
    retired(runner, ChangeDomain("price", drop_check="least"))
    sql.execute("INSERT INTO bills VALUES (3, 0)")
    with pytest.raises(Refused) as caught:
        runner.rollback("d1")
    assert str(caught.value) == (
        "Step 'drop_check' is refused: 1 row holds a value in \"price\" of table"
        ' "public"."bills" that the check "least" would not allow.\n'
        "Nothing was changed.\nNext: give them another value, then run the same"
        " command again; or keep the new release."
    )
    sql.execute("DELETE FROM bills WHERE id = 3")
    assert runner.rollback("d1") is State.VERIFIED
    assert sql.execute(CHECKS).fetchall() == [("least", False)]
    with pytest.raises(psycopg.errors.CheckViolation):
        insert(sql)


def test_life_of_not_null(runner: Runner, sql: psycopg.Connection) -> None:
    """Going back adds a check, since NOT NULL would stop all writers."""
    sql.execute("UPDATE bills SET price = 1; ALTER DOMAIN price SET NOT NULL")
    retired(runner, ChangeDomain("price", drop_not_null=True))
    sql.execute("INSERT INTO bills VALUES (3, NULL)")
    with pytest.raises(Refused, match='1 row holds a value in "price"'):
        runner.rollback("d1")
    sql.execute("DELETE FROM bills WHERE id = 3")
    assert runner.rollback("d1", to=State.PLANNED) is State.PLANNED
    assert sql.execute(CHECKS).fetchall() == [("price_not_null", False)]
    with pytest.raises(psycopg.errors.CheckViolation):
        insert(sql, "NULL")
    # The same change goes over that check, there and back.
    retired(runner, ChangeDomain("price", drop_not_null=True))
    assert sql.execute(CHECKS).fetchall() == []
    assert runner.rollback("d1") is State.VERIFIED
    assert sql.execute(CHECKS).fetchall() == [("price_not_null", False)]


def test_life_of_a_default(runner: Runner, sql: psycopg.Connection) -> None:
    """One that comes is there from expand on, one that goes until retire."""

    def given() -> object:
        row = sql.execute("INSERT INTO bills (id) VALUES (9) RETURNING price")
        value = row.fetchone()
        sql.execute("DELETE FROM bills WHERE id = 9")
        assert value is not None
        return value[0]

    pattern = ChangeDomain("price", default="3 + 1")
    assert runner.expand(Change(revision="d1", pattern=pattern)) is State.VERIFIED
    assert given() == 4
    assert runner.rollback("d1") is State.PLANNED
    assert given() is None
    sql.execute("ALTER DOMAIN price SET DEFAULT 5")
    retired(runner, ChangeDomain("price", drop_default=True))
    assert given() is None
    runner.rollback("d1")
    assert given() == 5


def test_overlaps(runner: Runner, sql: psycopg.Connection) -> None:
    """Another change of the domain, or of a column of it, has to wait."""
    runner.expand(CHANGE)
    dropped = ChangeDomain("price", default="1")
    renamed = RenameColumn("bills", "price", "cost")
    for pattern in (dropped, renamed):
        with pytest.raises(Held, match="d2 touches what d1"):
            runner.expand(Change(revision="d2", pattern=pattern))
    other = RenameColumn("bills", "n", "m")
    assert runner.expand(Change(revision="d3", pattern=other)) is State.EXPANDED
    assert sql.execute("SELECT m FROM bills").rowcount == 2


def test_whether_tables_have_rows(runner: Runner, sql: psycopg.Connection) -> None:
    """A fresh database is told from one in use by the tables of the domain."""
    assert runner.is_filled(CHANGE)
    sql.execute("DELETE FROM bills; DELETE FROM parts")
    assert not runner.is_filled(CHANGE)


# -- locks -------------------------------------------------------------------


def locked(sql: psycopg.Connection, statement: str) -> dict[str, str]:
    """Return the modes in which a statement locks the tables."""
    with sql.transaction(force_rollback=True):
        sql.execute(statement.encode())
        rows = sql.execute(
            "SELECT relation::regclass::text, mode FROM pg_locks"
            " WHERE pid = pg_backend_pid() AND locktype = 'relation' AND relation IN"
            " ('bills'::regclass, 'parts'::regclass, 'one'::regclass)"
        ).fetchall()
    return dict(rows)


def test_no_step_locks_a_table(runner: Runner, sql: psycopg.Connection) -> None:
    """Forward and back; what validates would lock them all."""
    sql.execute("ALTER DOMAIN price SET DEFAULT 5")
    sql.execute("ALTER DOMAIN price ADD CONSTRAINT least CHECK (VALUE > -1) NOT VALID")
    for pattern in (
        ADD,
        ChangeDomain("price", drop_check="least"),
        ChangeDomain("price", default="4"),
        ChangeDomain("price", drop_default=True),
    ):
        plan = runner.plan(Change(revision="d1", pattern=pattern))
        for steps in plan.phases.values():
            for step in steps:
                if isinstance(step.work, Transaction):
                    (forward,) = step.work.statements
                    assert locked(sql, forward) == {}
                for back in step.reverse:
                    text = (
                        back.statement
                        if isinstance(back, Autocommit)
                        else back.statements[0]
                    )
                    also = "ALTER DOMAIN price DROP CONSTRAINT least; "
                    assert locked(sql, (also if "least" in text else "") + text) == {}
    share = {"bills": "ShareLock", "one": "ShareLock"}
    found = locked(sql, "ALTER DOMAIN price VALIDATE CONSTRAINT least")
    # The partitioned parent holds no rows.
    if sql.info.server_version < 190000:
        assert found == share
    assert locked(sql, "ALTER DOMAIN price ADD CHECK (VALUE > -1)") == share


def test_writers_go_on(runner: Runner, sql: psycopg.Connection, database: str) -> None:
    """A check comes beside a transaction that has written, and nobody waits."""
    runner.expand(CHANGE)
    runner.verify("d1")
    with psycopg.connect(database) as writer:
        writer.execute("INSERT INTO bills VALUES (9, 1)")
        with holding(database, "parts", "ROW EXCLUSIVE"):
            runner.retire("d1", old_release_gone="test")
        # It was begun before, but its next statement is held to the check.
        with pytest.raises(psycopg.errors.CheckViolation):
            writer.execute("INSERT INTO bills VALUES (10, 0)")


# -- messages ----------------------------------------------------------------

ONE = (
    "give one of add_check= with name=, drop_check=, default=, drop_default= and"
    " drop_not_null=."
)


@pytest.mark.parametrize(
    ("setup", "pattern", "message"),
    [
        (
            "",
            replace(ADD, table="prize"),
            f'There is no domain "prize" in the search path.{NOTHING}correct the name,'
            " or give its schema.",
        ),
        (
            "",
            replace(ADD, table="bills", schema="public"),
            f'There is no domain "bills" in schema "public".{NOTHING}correct the name,'
            " or give its schema.",
        ),
        (
            "",
            replace(ADD, drop_default=True),
            f'A change of domain "price" says 2 things.{NOTHING}{ONE}',
        ),
        (
            "",
            replace(ADD, name=None),
            f'A change of domain "price" says 1 things.{NOTHING}{ONE}',
        ),
        (
            "ALTER DOMAIN price ADD CONSTRAINT price_positive CHECK (VALUE > 0)",
            ADD,
            'Domain "public"."price" has a check "price_positive" already.'
            f"{NOTHING}choose another name, or drop it first.",
        ),
        (
            "ALTER DOMAIN price ADD CONSTRAINT least CHECK (VALUE > 0)",
            ChangeDomain("price", drop_check="last"),
            f'Domain "public"."price" has no check "last".{NOTHING}correct the name;'
            ' it has "least".',
        ),
        (
            "",
            ChangeDomain("price", drop_default=True),
            f'Domain "public"."price" has no default.{NOTHING}remove the change from'
            " the revision.",
        ),
        (
            "",
            ChangeDomain("price", drop_not_null=True),
            f'Domain "public"."price" allows NULL already.{NOTHING}remove the change'
            " from the revision.",
        ),
        (
            "CREATE TYPE pair AS (a fee); CREATE TABLE lists (a price[])",
            ADD,
            'add check "price_positive" to domain "price": Values in column a of'
            " composite type public.pair; column a of table public.lists are not"
            " counted: arrays, composite types and foreign tables are not looked into."
            f'{NOTHING}look into it, then write assured="why it is safe here" into'
            " the pattern.",
        ),
        (
            "",
            replace(ADD, add_check="VALUE > random()"),
            'add check "price_positive" to domain "price": the condition depends on'
            " more than the row, so that a stored row may come to violate it unnoticed:"
            f" functions in index predicate must be marked IMMUTABLE.{NOTHING}leave out"
            " functions such as now() and random(); a function of yours that depends on"
            " its arguments alone can be IMMUTABLE.",
        ),
        (
            "",
            replace(ADD, add_check="price > 0"),
            'The server refuses an expression of the pattern: column "price" does not'
            f" exist.{NOTHING}correct it in the revision; it is SQL, in which a text"
            " stands in quotes: \"'text'\", and a function or type of another schema"
            " with it.",
        ),
        (
            "ALTER DOMAIN price ADD CONSTRAINT least CHECK (VALUE > 0)",
            ChangeDomain("price", default="0"),
            "The server refuses an expression of the pattern: value for domain price"
            f' violates check constraint "least".{NOTHING}correct it in the revision:'
            " a value does not suit it.",
        ),
    ],
)
def test_messages(
    runner: Runner,
    sql: psycopg.Connection,
    setup: str,
    pattern: ChangeDomain,
    message: str,
) -> None:
    """What is no change of a domain, or cannot work, is refused."""
    sql.execute(setup.encode())
    with pytest.raises(Refused) as caught:
        runner.expand(Change(revision="d1", pattern=pattern))
    assert str(caught.value) == message
    assert runner.changes() == []


def test_a_check_of_a_table_says_nothing_of_domains(runner: Runner) -> None:
    """A change of a table has facts of no domain."""
    pattern = AddCheck("bills", "k", "n > 0")
    assert runner.plan(Change(revision="c1", pattern=pattern)).notices
