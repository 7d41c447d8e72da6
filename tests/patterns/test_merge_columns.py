"""MergeColumns: one column of several, and several of one again."""

from dataclasses import replace

import psycopg
import pytest

from migrator.change import Change
from migrator.errors import LockBudgetError, Refused
from migrator.facts import Column, Facts, Table
from migrator.names import TableName
from migrator.patterns import MergeColumns
from migrator.plan import State, Transaction
from migrator.runner import Runner

MERGE = MergeColumns(
    "people",
    ["first", "last"],
    "name",
    "text",
    "first || coalesce(' ' || last, '')",
    {
        "first": "split_part(name, ' ', 1)",
        "last": "nullif(substr(name, length(split_part(name, ' ', 1)) + 2), '')",
    },
    types={"first": "text", "last": "character varying(12)"},
)
CHANGE = Change(revision="m1", pattern=MERGE)
MARK = f"_migrator_mark_no_counterpart_{CHANGE.tag(TableName('public', 'people'))}"


@pytest.fixture(autouse=True)
def _people(sql: psycopg.Connection) -> None:
    sql.execute(
        "CREATE TABLE people (id int PRIMARY KEY, n int DEFAULT 0,"
        " first text NOT NULL, last varchar(12));"
        "INSERT INTO people VALUES (1, 0, 'Anna Maria', 'Smith'), (2, 0, 'Bob', NULL)"
    )


def rows(sql: psycopg.Connection, columns: str) -> list[tuple[object, ...]]:
    """Return columns of all rows."""
    return sql.execute(f"SELECT {columns} FROM people ORDER BY id".encode()).fetchall()


def verified(runner: Runner) -> None:
    """Carry the change to where both releases work."""
    runner.expand(CHANGE)
    runner.backfill("m1")
    assert runner.verify("m1") is State.VERIFIED


def test_text_with_hostile_names() -> None:
    """All old columns are renamed at retire, and come back together."""
    given = Facts(
        server_version=180000,
        tag="0123456789",
        table=Table(
            name=TableName('my "sch', "or%der"),
            oid=1,
            columns=(Column(name='a "b', type="text"), Column(name=":y", type="int")),
        ),
    )
    pattern = MergeColumns(
        "or%der",
        ['a "b', ":y"],
        "é",
        "text",
        '"a ""b" || ":y"',
        {'a "b': "é", ":y": "1"},
        schema='my "sch',
    )
    *_, exchange = pattern.retire(given)
    (back,) = exchange.reverse
    assert isinstance(exchange.work, Transaction)
    assert isinstance(back, Transaction)
    rename = 'ALTER TABLE "my ""sch"."or%der" RENAME COLUMN'
    assert [s for s in exchange.work.statements if "RENAME" in s] == [
        f'{rename} "a ""b" TO "_migrator_retired_a ""b_0123456789"',
        f'{rename} ":y" TO "_migrator_retired_:y_0123456789"',
    ]
    assert [s for s in back.statements if "RENAME" in s] == [
        f'{rename} "_migrator_retired_a ""b_0123456789" TO "a ""b"',
        f'{rename} "_migrator_retired_:y_0123456789" TO ":y"',
    ]


def test_life_cycle(runner: Runner, sql: psycopg.Connection) -> None:
    """The old columns keep what the new one cannot tell apart, until it is written."""
    sql.execute("INSERT INTO people (id, first, last) VALUES (3, 'Cy', 'Day')")
    verified(runner)
    sql.execute("UPDATE people SET n = n + 1; UPDATE people SET name = name")
    both = [
        ("Anna Maria", "Smith", "Anna Maria Smith"),
        ("Bob", None, "Bob"),
        ("Cy", "Day", "Cy Day"),
    ]
    assert rows(sql, "first, last, name") == both
    sql.execute("UPDATE people SET last = 'Low' WHERE id = 2")
    sql.execute("UPDATE people SET name = 'Eve Ray' WHERE id = 3")
    sql.execute("INSERT INTO people (id, name) VALUES (4, 'Di')")
    both[1:] = [
        ("Bob", "Low", "Bob Low"),
        ("Eve", "Ray", "Eve Ray"),
        ("Di", None, "Di"),
    ]
    assert rows(sql, "first, last, name") == both
    with pytest.raises(psycopg.errors.StringDataRightTruncation):
        sql.execute("UPDATE people SET name = 'Al Toolongforthis' WHERE id = 4")
    runner.retire("m1", old_release_gone="test")
    sql.execute("UPDATE people SET name = 'Al Toolongforthis' WHERE id = 4")
    sql.execute("INSERT INTO people (id) VALUES (5); UPDATE people SET n = n + 1")
    assert rows(sql, f'"{MARK}"') == [(None,), (None,), (None,), (True,), (True,)]
    with pytest.raises(Refused, match="2 rows hold values of the new release"):
        runner.rollback("m1")
    sql.execute("UPDATE people SET name = 'Al Short' WHERE id > 3")
    assert runner.rollback("m1") is State.VERIFIED
    both[3:] = [("Al", "Short", "Al Short")] * 2
    assert rows(sql, "first, last, name") == both
    with pytest.raises(psycopg.errors.NotNullViolation):
        sql.execute("UPDATE people SET first = NULL WHERE id = 1")
    runner.rollback("m1", to=State.PLANNED)
    sql.execute("UPDATE people SET first = 'Bo' WHERE id = 2")
    verified(runner)
    both[1] = ("Bo", "Low", "Bo Low")
    assert rows(sql, "first, last, name") == both
    runner.retire("m1", old_release_gone="test")
    assert runner.drop("m1") is State.DROPPED
    runner.rebuild(CHANGE)
    assert rows(sql, "first, last")[:2] == [("Anna", "Maria Smith"), ("Bo", "Low")]


def test_the_plan_says_what_does_not_come_back(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Names with spaces, and NULLs that an expression makes one with the rest."""
    for first, last, lost in (
        ("Bob", "de la Cruz", False),
        ("Anna Maria", "Smith", True),
        ("", "Smith", False),
        ("Bob", "", True),
        ("Bob", None, False),
    ):
        sql.execute("UPDATE people SET first = %s, last = %s", (first, last))
        told = [n.text for n in runner.plan(CHANGE).notices if "there and" in n.text]
        assert len(told) == lost
        assert all("2 of 2 rows of a sample lost detail" in text for text in told)


def test_on_a_partitioned_table(runner: Runner, sql: psycopg.Connection) -> None:
    """A row that moves after retire keeps what only the old columns tell."""
    sql.execute(
        "DROP TABLE people; CREATE TABLE people (id int, k int, first text NOT NULL,"
        " last varchar(12)) PARTITION BY LIST (k);"
        "CREATE TABLE one PARTITION OF people FOR VALUES IN (1);"
        "CREATE TABLE two PARTITION OF people FOR VALUES IN (2);"
        "INSERT INTO people VALUES (1, 1, 'Anna Maria', 'Smith'), (2, 2, 'Bob', NULL)"
    )
    verified(runner)
    runner.retire("m1", old_release_gone="test")
    sql.execute("UPDATE people SET k = 3 - k")
    assert runner.rollback("m1") is State.VERIFIED
    assert rows(sql, "k, first, last") == [(2, "Anna Maria", "Smith"), (1, "Bob", None)]


def test_no_lock(runner: Runner, sql: psycopg.Connection, database: str) -> None:
    """A reader keeps retire out; it gives up within its budget, and can go on."""
    verified(runner)
    short = replace(runner, settings=replace(runner.settings, step_budget_s=0.3))
    with psycopg.connect(database) as reader:
        reader.execute("SELECT FROM people")
        with pytest.raises(LockBudgetError, match="'add_mark' on table"):
            short.retire("m1", old_release_gone="test")
    assert rows(sql, "first") == [("Anna Maria",), ("Bob",)]
    assert runner.retire("m1", old_release_gone="test") is State.RETIRED


TITLE = 'merge columns "first", "last" of table "people" into "name"'


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            replace(MERGE, merged=[], back={}),
            'merge columns  of table "people" into "name": the merged columns must be'
            " a list of one or more.\nNothing was changed.\n"
            'Next: write ["first", "last"].',
        ),
        (
            replace(MERGE, back={"first": "name"}),
            f'{TITLE}: `back` must make each merged column once; "last" stands on one'
            " side alone, or twice.\nNothing was changed.\n"
            "Next: give one expression for each column.",
        ),
        (
            replace(MERGE, into="n"),
            'Table "public"."people" has a column "n" already.\nNothing was changed.\n'
            "Next: choose another name, or drop that column first.",
        ),
        (
            replace(MERGE, types={"last": "text"}),
            'Column "last" of table "public"."people" is of type character varying(12),'
            " the change says text.\nNothing was changed.\n"
            "Next: write character varying(12) there.",
        ),
    ],
    ids=["none", "back", "taken", "type"],
)
def test_messages(runner: Runner, pattern: MergeColumns, message: str) -> None:
    """Bad input gets a clear error and changes nothing."""
    with pytest.raises(Refused) as caught:
        runner.expand(Change(revision="m1", pattern=pattern))
    assert str(caught.value) == message
    assert runner.changes() == []
