"""Rules of the application that the engine's updates would run are asked about."""

import psycopg
import pytest

from migrator.change import Change
from migrator.errors import Refused
from migrator.pattern import Pattern
from migrator.patterns import (
    AddColumn,
    ChangeColumnType,
    ChangePrimaryKey,
    EvolveJson,
    ExtractTable,
    MergeColumns,
    MergeTables,
    MoveColumn,
    RemoveEnumValue,
    RenameColumn,
    SetNotNull,
    SplitColumn,
    SplitTable,
    TransformColumn,
)
from migrator.plan import State
from migrator.runner import Runner

#: Those that write rows where they are.
IN_ROWS: tuple[Pattern, ...] = (
    RenameColumn("t", "name", "label", assured="tried"),
    AddColumn("t", "upper", "text", computed="upper(name)", assured="tried"),
    AddColumn("t", "drawn", "float8", default="random()", assured="tried"),
    AddColumn("t", "number", "bigserial", assured="tried"),
    SetNotNull("t", "empty", fill="'none'", assured="tried"),
    SplitColumn("t", "name", {"a": ("text", "name")}, "a", assured="tried"),
    MergeColumns(
        "t", ["name"], "whole", "text", "name", {"name": "whole"}, assured="tried"
    ),
    TransformColumn("t", "name", "loud", "text", "name", "loud", assured="tried"),
    ChangeColumnType("t", "n", "bigint", to="wide", assured="tried"),
    ChangePrimaryKey("t", "id", assured="tried"),
    EvolveJson("t", "doc", "doc_2", rename={"a": "b"}, assured="tried"),
    RemoveEnumValue("t", "mood", "low", instead="high", assured="tried"),
)
#: Those whose triggers write a table while another one is written; which table.
BETWEEN: tuple[tuple[Pattern, str], ...] = (
    (SplitTable("t", "names", ["name"], key=["id"], assured="tried"), "t"),
    (ExtractTable("t", "names", ["name"], reference="of", assured="tried"), "t"),
    (ExtractTable("t", "tags", {"tags": "tag"}, through="l", assured="tried"), "t"),
    (MoveColumn("t", "name", to="c", key={"id": "t_id"}, assured="tried"), "t"),
    (MoveColumn("t", "name", to="c", key={"id": "t_id"}, assured="tried"), "c"),
    (MergeTables("c", "t", ["note"], key={"t_id": "id"}, assured="tried"), "t"),
    (MergeTables("c", "t", ["note"], key={"t_id": "id"}, assured="tried"), "c"),
)
ALSO = "CREATE RULE noted AS ON UPDATE TO {} DO ALSO INSERT INTO log VALUES (1)"


@pytest.fixture(autouse=True)
def _tables(sql: psycopg.Connection) -> None:
    sql.execute(
        "CREATE TYPE mood AS ENUM ('low', 'high');"
        "CREATE TABLE t (id int PRIMARY KEY, name text, n int, empty text, doc jsonb,"
        " mood mood, tags text[]);"
        "INSERT INTO t SELECT g, 'a', g, NULL, '{\"a\": 1}', 'low', '{x}'"
        " FROM generate_series(1, 3) g;"
        "CREATE TABLE c (t_id int PRIMARY KEY REFERENCES t, note text);"
        "CREATE TABLE log (what int)"
    )


def named(pattern: Pattern) -> str:
    """Return a test's name."""
    return type(pattern).__name__


def without_a_word(pattern: Pattern) -> Pattern:
    """Return the same without a person's word."""
    return type(pattern)(**{**pattern.parameters(), "assured": ""})


@pytest.mark.parametrize("pattern", IN_ROWS, ids=named)
def test_one_beside_an_update_needs_a_word(
    runner: Runner, sql: psycopg.Connection, pattern: Pattern
) -> None:
    """It runs for all rows, as with a word it does; and all are written."""
    sql.execute(ALSO.format("t").encode())
    with pytest.raises(Refused) as caught:
        runner.plan(Change(revision="a", pattern=without_a_word(pattern)))
    assert (
        'Rule "noted" of table "public"."t" runs for the rows that the backfill updates'
    ) in str(caught.value)
    runner.expand(Change(revision="a", pattern=pattern))
    assert runner.settle("a") is State.VERIFIED
    runner.retire("a", old_release_gone="test")
    row = sql.execute("SELECT count(*) FROM log").fetchone()
    assert row is not None
    assert row[0] >= 3
    if not isinstance(pattern, RemoveEnumValue):
        assert runner.rollback("a", to=State.VERIFIED) is State.VERIFIED


@pytest.mark.parametrize("pattern", IN_ROWS, ids=named)
@pytest.mark.parametrize(
    "rule",
    ["DO INSTEAD NOTHING", "WHERE OLD.ctid IS NULL DO INSTEAD DELETE FROM log"],
)
def test_one_in_the_place_of_an_update_is_refused(
    runner: Runner, sql: psycopg.Connection, pattern: Pattern, rule: str
) -> None:
    """A word does not help: rows would stay as they are."""
    sql.execute(f"CREATE RULE kept AS ON UPDATE TO t {rule}".encode())
    with pytest.raises(Refused) as caught:
        runner.expand(Change(revision="a", pattern=pattern))
    assert str(caught.value) == (
        'Table "public"."t" is used by rule kept on table t, which does something else'
        " in the place of an UPDATE: the backfill would leave rows as they are.\n"
        "Nothing was changed.\n"
        "Next: make a trigger of it, or drop it until the change is through."
    )


@pytest.mark.parametrize(("pattern", "table"), BETWEEN, ids=str)
def test_none_for_update_is_taken_where_two_tables_are_kept_in_step(
    runner: Runner, sql: psycopg.Connection, pattern: Pattern, table: str
) -> None:
    """It is part of what triggers write: their updates are not all rewritten."""
    runner.plan(Change(revision="a", pattern=pattern))
    sql.execute(ALSO.format(table).encode())
    with pytest.raises(Refused) as caught:
        runner.expand(Change(revision="a", pattern=pattern))
    assert f'"{table}" is used by rule noted on table {table}' in str(caught.value)
    assert "until the change is through" in caught.value.next


@pytest.mark.parametrize(
    "rule",
    [
        "ON INSERT TO t DO ALSO INSERT INTO log VALUES (1)",
        "ON DELETE TO t WHERE OLD.n < 0 DO INSTEAD NOTHING",
        "ON UPDATE TO t DO INSTEAD NOTHING; ALTER TABLE t DISABLE RULE app",
        "ON UPDATE TO t DO INSTEAD NOTHING; ALTER TABLE t ENABLE REPLICA RULE app",
    ],
)
def test_others_are_no_matter(
    runner: Runner, sql: psycopg.Connection, rule: str
) -> None:
    """No word is asked for, and nothing is left to verification."""
    sql.execute(f"CREATE RULE app AS {rule}".encode())
    pattern = AddColumn("t", "upper", "text", computed="upper(name)")
    runner.expand(Change(revision="a", pattern=pattern))
    assert runner.settle("a") is State.VERIFIED
    assert not runner.mismatches("a")
    assert sql.execute("SELECT FROM log").fetchall() == []


def test_those_of_partitions_count(runner: Runner, sql: psycopg.Connection) -> None:
    """Rows are written partition by partition: the parent's rule sees nothing of it."""
    sql.execute(
        "CREATE TABLE p (id int, name text) PARTITION BY RANGE (id);"
        "CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (9);"
        "INSERT INTO p VALUES (1, 'a'), (2, 'b');"
        "CREATE RULE kept AS ON UPDATE TO p DO INSTEAD NOTHING"
    )
    pattern = AddColumn("p", "upper", "text", computed="upper(name)")
    change = Change(revision="a", pattern=pattern)
    runner.plan(change)
    sql.execute("CREATE RULE noted AS ON UPDATE TO p_1 DO INSTEAD NOTHING")
    with pytest.raises(Refused, match='"p_1" is used by rule noted on table p_1'):
        runner.expand(change)
    sql.execute("DROP RULE noted ON p_1")
    runner.expand(change)
    assert runner.settle("a") is State.VERIFIED
    rows = sql.execute("SELECT upper FROM p ORDER BY id").fetchall()
    assert rows == [("A",), ("B",)]
