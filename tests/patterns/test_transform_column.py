"""TransformColumn: an expression each way, what hangs on the column, its messages."""

from dataclasses import replace

import psycopg
import pytest

from migrator.change import Change
from migrator.errors import LockBudgetError, Refused
from migrator.facts import Column, Facts, Table
from migrator.names import TableName
from migrator.patterns import TransformColumn
from migrator.plan import ChunkedUpdate, State
from migrator.runner import Runner

CENTS = TransformColumn(
    "bills", "price", "cents", "bigint", "price * 100", "cents / 100", default="0"
)
CHANGE = Change(revision="t1", pattern=CENTS)
MARK = f"_migrator_mark_no_counterpart_{CHANGE.tag(TableName('public', 'bills'))}"


@pytest.fixture(autouse=True)
def _bills(sql: psycopg.Connection) -> None:
    sql.execute(
        "CREATE TABLE bills (id int PRIMARY KEY, n int, price int NOT NULL DEFAULT 0);"
        "CREATE INDEX by_price ON bills (price);"
        "INSERT INTO bills (id, price) VALUES (1, 5), (2, 6)"
    )


def rows(sql: psycopg.Connection, columns: str) -> list[tuple[object, ...]]:
    """Return columns of all rows."""
    return sql.execute(f"SELECT {columns} FROM bills ORDER BY id".encode()).fetchall()


def test_text_with_hostile_names() -> None:
    """Names are quoted, expressions stand as they were given."""
    table = TableName('my "sch', "or%der")
    column = Column(name='a "b', type="text")
    given = Facts(
        server_version=180000,
        tag="0123456789",
        table=Table(name=table, oid=1, columns=(column,)),
    )
    pattern = TransformColumn(
        "or%der", 'a "b', ":x é", "text", 'lower("a ""b")', '":x é"', schema='my "sch'
    )
    (fill,) = pattern.backfill(given)
    assert isinstance(fill.work, ChunkedUpdate)
    apart = (
        'NOT (NOT (pg_catalog.record_image_ne(ROW(":x é")::pg_catalog.record,'
        ' ROW((lower("a ""b"))::text)::pg_catalog.record)))'
    )
    assert fill.work.statement == (
        'UPDATE "my ""sch"."or%der" SET ":x é" = (lower("a ""b"))'
        " WHERE ctid >= $1::pg_catalog.tid AND ctid < $2::pg_catalog.tid AND (CASE WHEN"
        ' "a ""b" IS NOT DISTINCT FROM NULL AND ":x é" IS NOT DISTINCT FROM NULL'
        f" THEN {apart} ELSE CASE WHEN"
        ' NOT ("a ""b" IS DISTINCT FROM (":x é")::text) THEN false'
        f" ELSE {apart} END END)"
    )


def test_life_cycle(runner: Runner, sql: psycopg.Connection) -> None:
    """Either side keeps what the other cannot tell, on every way."""

    def verified() -> None:
        runner.expand(CHANGE)
        runner.backfill("t1")
        assert runner.verify("t1") is State.VERIFIED

    verified()
    sql.execute("UPDATE bills SET cents = 512 WHERE id = 1; UPDATE bills SET n = 1")
    sql.execute("INSERT INTO bills (id, price) VALUES (3, 7)")
    assert rows(sql, "price, cents") == [(5, 512), (6, 600), (7, 700)]
    sql.execute("UPDATE bills SET price = 5; UPDATE bills SET n = 2")
    assert rows(sql, "price, cents") == [(5, 512), (5, 500), (5, 500)]
    runner.rollback("t1")
    sql.execute("UPDATE bills SET price = 8 WHERE id = 2")
    verified()
    assert rows(sql, "price, cents") == [(5, 512), (8, 800), (5, 500)]
    runner.retire("t1", old_release_gone="test")
    sql.execute("UPDATE bills SET cents = 900000000000 WHERE id = 2")
    sql.execute("INSERT INTO bills (id) VALUES (4)")
    with pytest.raises(psycopg.errors.NotNullViolation):
        sql.execute("UPDATE bills SET cents = NULL WHERE id = 1")
    assert rows(sql, f'cents, "{MARK}"')[1] == (900000000000, True)
    with pytest.raises(Refused, match="1 row holds values of the new release"):
        runner.rollback("t1")
    sql.execute("UPDATE bills SET cents = 900 WHERE id = 2")
    assert runner.rollback("t1") is State.VERIFIED
    assert rows(sql, "price") == [(5,), (9,), (5,), (0,)]
    runner.retire("t1", old_release_gone="test")
    assert runner.drop("t1") is State.DROPPED
    index = sql.execute("SELECT pg_get_indexdef('by_price'::regclass)").fetchone()
    assert index == ("CREATE INDEX by_price ON public.bills USING btree (cents)",)


def test_what_is_made_of_nothing(runner: Runner, sql: psycopg.Connection) -> None:
    """Where both sides are NULL the old release's row has what `up` makes of NULL."""
    sql.execute("ALTER TABLE bills ADD note text")
    pattern = TransformColumn(
        "bills", "note", "said", "text", "coalesce(note, '-')", "nullif(said, '-')"
    )
    runner.expand(Change(revision="t1", pattern=pattern))
    sql.execute("INSERT INTO bills (id) VALUES (3)")
    runner.settle("t1")
    sql.execute("INSERT INTO bills (id) VALUES (4)")
    assert rows(sql, "note, said") == [(None, "-")] * 4
    # What the new release writes stays, whoever writes another column.
    sql.execute("UPDATE bills SET said = NULL WHERE id = 1; UPDATE bills SET n = 1")
    runner.verify("t1")
    assert rows(sql, "note, said") == [(None, None)] + [(None, "-")] * 3


def test_no_lock(runner: Runner, sql: psycopg.Connection, database: str) -> None:
    """A reader keeps expand out; it gives up within its budget and leaves nothing."""
    runner = replace(runner, settings=replace(runner.settings, step_budget_s=0.3))
    with psycopg.connect(database) as reader:
        reader.execute("SELECT FROM bills")
        with pytest.raises(LockBudgetError) as caught:
            runner.expand(CHANGE)
    said = str(caught.value)
    assert said.startswith(
        'Step \'add_new_side\' on table "public"."bills" got no lock within 200 ms'
    )
    assert rows(sql, "*") == [(1, None, 5), (2, None, 6)]


CORRECT = (
    "Next: correct it in the revision; it is SQL, in which a text stands in quotes:"
    " \"'text'\", and a function or type of another schema with it."
)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            replace(CENTS, default=None),
            'Column "price" of table "public"."bills" has the default 0, which an'
            " expression of the change does not translate.\nNothing was changed.\n"
            'Next: write default="…" for the new column; default="NULL" for none.',
        ),
        (
            replace(CENTS, column="id", default="0"),
            'Column "id" of table "public"."bills" is under "bills_pkey", which values'
            " made from the new columns could violate.\nNothing was changed.\n"
            "Next: drop it first, and put its like on the new columns afterwards.",
        ),
        (
            replace(CENTS, down="cents / 0"),
            "The server refuses an expression of the pattern (`down`): division by"
            " zero.\nNothing was changed.\nNext: correct it in the revision: a value"
            " does not suit it.",
        ),
        (
            replace(CENTS, up="prize"),
            'The server refuses an expression of the pattern: column "prize" does not'
            f" exist.\nNothing was changed.\n{CORRECT}",
        ),
        (
            replace(
                CENTS,
                type="json",
                up="to_json(price)",
                down="cents::text::int",
                default="'0'",
            ),
            'transform column "price" of table "bills" into "cents": the server refuses'
            ' the like of index "by_price" on a column of type json: data type'
            ' json has no default operator class for access method "btree".\nNothing'
            " was changed.\nNext: drop it first (DropIndex), and build one that suits"
            " the new column afterwards (CreateIndex).",
        ),
    ],
    ids=["default", "unique", "row", "expression", "index"],
)
def test_messages(
    runner: Runner, sql: psycopg.Connection, pattern: TransformColumn, message: str
) -> None:
    """What cannot be carried over is refused before anything is changed."""
    with pytest.raises(Refused) as caught:
        runner.expand(Change(revision="t1", pattern=pattern))
    assert str(caught.value) == message
    assert runner.changes() == []
    assert rows(sql, "*") == [(1, None, 5), (2, None, 6)]


def test_indexes_of_partitioned_tables_are_named(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """No heir gets them: those of a partitioned partition alone go as well."""
    sql.execute(
        "CREATE TABLE logs (id int PRIMARY KEY, name text) PARTITION BY RANGE (id);"
        "CREATE TABLE logs_1 PARTITION OF logs DEFAULT PARTITION BY RANGE (id);"
        "CREATE TABLE logs_1_1 PARTITION OF logs_1 DEFAULT;"
        "CREATE INDEX by_name ON logs (name);"
        "CREATE INDEX backwards ON logs_1 (reverse(name))"
    )
    pattern = TransformColumn("logs", "name", "big", "text", "upper(name)", "big")
    with pytest.raises(Refused) as caught:
        runner.plan(Change(revision="t1", pattern=pattern))
    for index, table in (("by_name", "logs"), ("backwards", "logs_1")):
        told = (
            f'Index "{index}" of table "public"."{table}" is copied on each partition'
        )
        assert str(caught.value).count(told) == 1
    assert str(caught.value).count("is copied on each partition") == 2
