"""What reads a shape that goes, and hangs on nothing of it, is named before it goes."""

import psycopg
import pytest

from migrator.change import Change
from migrator.errors import Failed, Refused
from migrator.pattern import Pattern
from migrator.patterns import (
    ChangeColumnType,
    DropColumn,
    DropTable,
    EvolveJson,
    ExtractTable,
    MergeColumns,
    MergeTables,
    MoveColumn,
    RenameColumn,
    SplitColumn,
    SplitTable,
    TransformColumn,
)
from migrator.plan import State
from migrator.runner import Runner

SURE = "tried"
#: Each with the table and the column that go; no column where all of it does.
GOING: tuple[tuple[Pattern, str, str], ...] = (
    (RenameColumn("people", "name", "label"), "people", "name"),
    (DropColumn("people", "name"), "people", "name"),
    (SplitColumn("people", "name", {"a": ("text", "name")}, "a"), "people", "name"),
    (
        MergeColumns("people", ["name"], "a", "text", "name", {"name": "a"}),
        "people",
        "name",
    ),
    (
        TransformColumn("people", "name", "a", "text", "name", "a"),
        "people",
        "name",
    ),
    (ChangeColumnType("people", "name", "varchar(9)", to="a"), "people", "name"),
    (EvolveJson("people", "doc", "doc_2", rename={"a": "b"}), "people", "doc"),
    (
        MoveColumn("people", "name", to="notes", key={"id": "person"}, assured=SURE),
        "people",
        "name",
    ),
    (
        SplitTable("people", "labels", ["name"], key=["id"], assured=SURE),
        "people",
        "name",
    ),
    (
        ExtractTable("people", "labels", ["name"], reference="of", assured=SURE),
        "people",
        "name",
    ),
    (
        ExtractTable("people", "labels", {"tags": "tag"}, through="l", assured=SURE),
        "people",
        "tags",
    ),
    (
        MergeTables("notes", "people", ["note"], key={"person": "id"}, assured=SURE),
        "notes",
        "",
    ),
    (DropTable("notes", assured=SURE), "notes", ""),
)


@pytest.fixture(autouse=True)
def _tables(sql: psycopg.Connection) -> None:
    sql.execute(
        "CREATE TABLE people (id int PRIMARY KEY, name text, doc jsonb, tags text[]);"
        "INSERT INTO people VALUES (1, 'a', '{\"a\": 1}', '{}');"
        "CREATE TABLE notes (person int PRIMARY KEY REFERENCES people, note text);"
        "INSERT INTO notes VALUES (1, 'n');"
        "CREATE TABLE log (what text)"
    )


def told(runner: Runner, pattern: Pattern) -> str:
    """Return what a reviewer is told."""
    try:
        plan = runner.plan(Change(revision="a", pattern=pattern))
    except Refused as error:
        return str(error)
    return " ".join(notice.text for notice in plan.notices)


each = pytest.mark.parametrize(
    ("pattern", "table", "column"),
    GOING,
    ids=lambda p: type(p).__name__ if isinstance(p, Pattern) else p,
)


@each
def test_functions_are_named(
    runner: Runner,
    sql: psycopg.Connection,
    pattern: Pattern,
    table: str,
    column: str,
) -> None:
    """Also a trigger's of another table; not one with another table or column in it."""
    read = column or "person"
    sql.execute(
        f"CREATE FUNCTION others() RETURNS text LANGUAGE sql AS 'SELECT {read}s.x FROM"
        f" (VALUES (1)) AS {read}s (x), log';"
        "CREATE FUNCTION numbered() RETURNS bigint BEGIN ATOMIC SELECT count(*) FROM"
        " log; END".encode()
    )
    assert "The text of" not in told(runner, pattern)
    sql.execute(
        "CREATE FUNCTION reads(int) RETURNS text LANGUAGE plpgsql AS"
        f" 'BEGIN RETURN (SELECT min({read}::text) FROM {table}); END';"
        "CREATE FUNCTION fires() RETURNS trigger LANGUAGE plpgsql AS"
        f" 'BEGIN NEW.what := (SELECT min({read}::text) FROM {table}); RETURN NEW; END'"
        "; CREATE TRIGGER fires BEFORE INSERT ON log FOR EACH ROW EXECUTE FUNCTION"
        " fires()".encode()
    )
    words = (
        f'words "{table}" and "{column}" in it'
        if column
        else f'word "{table}" in it: where that is this table, it fails'
    )
    assert f"The text of fires(), reads(integer) has the {words}" in told(
        runner, pattern
    )


@each
def test_what_was_built_on_the_retired_shape_is_named(
    runner: Runner,
    sql: psycopg.Connection,
    pattern: Pattern,
    table: str,
    column: str,
) -> None:
    """By us or by the server, it holds the drop, which goes on once it is gone."""
    runner.expand(Change(revision="a", pattern=pattern))
    runner.settle("a")
    runner.retire("a", old_release_gone="test")
    # Out of sight by a name of ours.
    row = sql.execute(
        "SELECT format('SELECT %%I FROM %%I', a.attname, c.relname) FROM pg_class c"
        " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0"
        " WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace"
        " AND NOT attisdropped AND starts_with(CASE WHEN %(whole)s THEN c.relname"
        " ELSE a.attname END, '_migrator_') AND a.attname NOT LIKE '%%mark%%'"
        " ORDER BY a.attnum LIMIT 1",
        {"whole": not column},
    ).fetchone()
    assert row is not None
    sql.execute(f"CREATE VIEW late AS {row[0]}".encode())
    with pytest.raises((Failed, Refused), match="view late"):
        runner.drop("a")
    assert runner.change("a").state is State.RETIRED
    sql.execute("DROP VIEW late")
    assert runner.drop("a") is State.DROPPED
