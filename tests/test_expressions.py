"""SQL of a person that cannot work is found before anything is changed.

It is planned against the live schema; what makes values is tried on a sample of rows.
"""

from collections.abc import Callable
from dataclasses import dataclass

import psycopg
import pytest
from test_bad_input import catalogue

from migrator.change import Change
from migrator.errors import Refused
from migrator.pattern import Pattern
from migrator.patterns import (
    AddCheck,
    AddColumn,
    AddExclusion,
    AttachPartition,
    ChangeColumnType,
    ChangeDomain,
    CreateIndex,
    CreateTable,
    Custom,
    DropColumn,
    EvolveJson,
    Key,
    MergeColumns,
    PartitionTable,
    RebuildTable,
    ReplaceCheck,
    ReplaceFunction,
    ReplaceIndex,
    ReplaceView,
    SetDefault,
    SetNotNull,
    SetParameter,
    SplitColumn,
    Sql,
    TransformColumn,
)
from migrator.runner import Runner

# In row 3 `n` is 0.
SETUP = """
CREATE DOMAIN total AS int;
CREATE TABLE t (id int PRIMARY KEY, name text NOT NULL, n int, empty text,
  word varchar(3), doc jsonb NOT NULL, amount total, d int DEFAULT 0,
  settings jsonb DEFAULT '{}',
  CONSTRAINT held CHECK (id > 0));
INSERT INTO t SELECT g, 'n' || g, g - 3, NULL, NULL, '{"a": 1}', g, 0, '{}'
  FROM generate_series(1, 9) g;
CREATE INDEX t_name ON t (name);
CREATE TABLE parted (LIKE t) PARTITION BY RANGE (id);
CREATE TABLE part (LIKE t);
CREATE TABLE read (id int, name text, n int);
INSERT INTO read VALUES (1, 'a', 0);
CREATE VIEW v AS SELECT id, name FROM read;
CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT $1';
"""
FUNCTION = "CREATE OR REPLACE FUNCTION f(int) RETURNS int LANGUAGE sql AS '{}'"
TYPES = ("nope", "int +", "varchar(", "int; DROP TABLE t")
EXPRESSIONS = ("1 +", "nope", "nope(1)", "'a", "(SELECT 1", "1; DROP TABLE t")


@dataclass(frozen=True)
class Place:
    """A place for SQL in a pattern: what can stand there, and what cannot."""

    name: str
    make: Callable[[str], Pattern]
    good: str
    #: Of another type, or an error for a row of the table.
    wrong: tuple[str, ...] = ()
    #: What is no SQL, or names nothing.
    broken: tuple[str, ...] = EXPRESSIONS
    #: The first server version that has it.
    since: int = 0


def typed(up: str = "length(name)", down: str = "x::text") -> Pattern:
    """Return a change of type."""
    return ChangeColumnType("t", "name", "int", to="x", up=up, down=down)


def split(made: str = "name", back: str = "x") -> Pattern:
    """Return a split."""
    return SplitColumn("t", "name", {"x": ("varchar(5)", made)}, back)


def merged(whole: str = "name || n", name: str = "x", n: str = "0") -> Pattern:
    """Return a merge."""
    return MergeColumns(
        "t", ["name", "n"], "x", "varchar(9)", whole, {"name": name, "n": n}
    )


def transformed(up: str = "n * 2", down: str = "x / 2") -> Pattern:
    """Return a transformation."""
    return TransformColumn("t", "n", "x", "int", up, down)


PLACES = (
    Place(
        "type",
        lambda e: AddColumn("t", "x", e),
        "int",
        broken=TYPES,
    ),
    Place(
        "computed",
        lambda e: AddColumn("t", "x", "int", computed=e),
        "n + 1",
        ("now()", "1 / n", "ARRAY[n]", "name::int"),
    ),
    Place(
        "default",
        lambda e: AddColumn("t", "x", "int", default=e),
        "7",
        ("now()", "n", "1 / 0", "'x'"),
    ),
    Place(
        "virtual",
        lambda e: AddColumn("t", "x", "int", virtual=e),
        "n + 1",
        ("now()", "1 / n", "random()"),
        since=180000,
    ),
    Place(
        "fill",
        lambda e: SetNotNull("t", "empty", fill=e),
        "name",
        ("(1 / n)::text", "(SELECT name, n)"),
    ),
    Place(
        "fill with a length",
        lambda e: SetNotNull("t", "word", fill=e),
        "'abc'",
        ("'abcd'", "name || name", "now()"),
    ),
    Place(
        "set default", lambda e: SetDefault("t", "n", e), "7", ("now()", "n", "NULL")
    ),
    Place(
        "fill of a dropped column",
        lambda e: DropColumn("t", "name", fill=e),
        "'x'",
        ("name", "NULL"),
    ),
    Place(
        "type up",
        lambda e: typed(up=e),
        "length(name)",
        ("now()", "1 / n", "name::int"),
    ),
    Place(
        "type down",
        lambda e: typed(down=e),
        "x::text",
        ("(1 / (x - 2))::text", "name"),
    ),
    Place("split", lambda e: split(e), "name", ("name || name || name", "(1/n)::text")),
    Place(
        "split back",
        lambda e: split(back=e),
        "x",
        ("substr(x, 2)::int / 0 || ''", "name"),
    ),
    Place("merge", lambda e: merged(e), "name || n", ("repeat(name, 9)", "1 / n")),
    Place("merge back", lambda e: merged(n=e), "0", ("now()", "x::int", "n")),
    Place(
        "transform up", lambda e: transformed(e), "n * 2", ("now()", "8 / n", "name")
    ),
    Place("transform down", lambda e: transformed(down=e), "x / 2", ("now()", "8 / x")),
    Place(
        "json add",
        lambda e: EvolveJson("t", "doc", "x", add={"k": e}),
        "n",
        ("1 / n",),
    ),
    Place(
        "json remove",
        lambda e: EvolveJson("t", "doc", "x", remove={"a": e}),
        "1",
        ("1 / n", "2"),
    ),
    Place(
        "json up",
        lambda e: EvolveJson("t", "doc", "x", up=e, down="x"),
        "doc",
        ("1 / n", "now()", "doc - 'a'"),
    ),
    Place(
        "json down",
        lambda e: EvolveJson("t", "doc", "x", up="doc", down=e),
        "x",
        ("doc", "x - 'a'"),
    ),
    Place(
        "check",
        lambda e: AddCheck("t", "c", e),
        "n > 0",
        ("name", "n", "now() > 'today'", "(SELECT true)", "1 / n = 0"),
    ),
    Place(
        "index",
        lambda e: CreateIndex("t", [Key(expression=e)], "i"),
        "upper(name)",
        ("now()", "random()", "(SELECT 1)", "1 / n", "repeat(md5(name), id * 9999)"),
    ),
    Place(
        "index where",
        lambda e: CreateIndex("t", ["name"], "i", where=e),
        "n > 0",
        ("name", "now() > 'today'", "1 / n = 0"),
    ),
    Place(
        "other index where",
        lambda e: ReplaceIndex("t", "t_name", ["name"], where=e),
        "n > 0",
        ("name", "now() > 'today'", "1 / n = 0"),
    ),
    Place(
        "exclusion where",
        lambda e: AddExclusion(
            "t", [("id", "=")], "x", method="btree", where=e, assured="small"
        ),
        "n > 0",
        ("name", "now() > 'today'", "1 / n = 0"),
    ),
    Place(
        "exclusion element",
        lambda e: AddExclusion(
            "t", [(Key(expression=e), "=")], "x", method="btree", assured="small"
        ),
        "n % 2",
        ("now()", "1 / n"),
    ),
    Place(
        "check of a domain",
        lambda e: ChangeDomain("total", add_check=e, name="c"),
        "VALUE > 0",
        ("VALUE", "VALUE > random()", "VALUE > 'a'", "1 / (VALUE - 3) = 0"),
    ),
    Place(
        "default of a domain",
        lambda e: ChangeDomain("total", default=e),
        "7",
        ("now()", "'a'", "NULL"),
    ),
    Place(
        "bounds of a new partition",
        lambda e: PartitionTable(
            "t", "RANGE", ["id"], {"t_1": e}, key=["id"], rest="t_2", assured="tried"
        ),
        "FROM (0) TO (99)",
        ("IN (1)", "FROM ('a') TO ('b')", "FROM (9) TO (1)"),
        broken=("FROM (0) TO", "nope", "FROM (nope) TO (1)", "FROM (0) TO (1"),
    ),
    Place(
        "bounds",
        lambda e: AttachPartition("parted", "part", e),
        "FROM (0) TO (99)",
        ("IN (1)", "FROM ('a') TO ('b')", "FROM (9) TO (1)"),
        broken=("FROM (0) TO", "nope", "FROM (nope) TO (1)", "FROM (0) TO (1"),
    ),
    Place(
        "clause",
        lambda e: RebuildTable("t", alter=[e], assured="tried"),
        "SET (fillfactor = 70)",
        ("ALTER n TYPE text", "DROP n", "SET (fillfactor = 7)"),
        broken=("SET (nope = 1)", "SET (", "nope", "ALTER nope SET NOT NULL"),
    ),
    Place(
        "definition of a table",
        lambda e: CreateTable("made", e),
        "id int",
        ("id nope", "id int DEFAULT 'a'", "id int REFERENCES nope"),
        broken=("id int,", "id", "id int) INHERITS (t", "id int); DROP TABLE t; --"),
    ),
    Place(
        "definition of a view",
        lambda e: ReplaceView("v", e),
        "SELECT id, name FROM read WHERE n > 0",
        (
            "SELECT id / 'a' AS id, name FROM read",
            "SELECT id / n AS id, name FROM read",
        ),
        broken=(
            "SELECT",
            "SELECT nope FROM read",
            "SELECT 1 FROM nope",
            "DELETE FROM read",
        ),
    ),
    Place(
        "definition of a function",
        lambda e: ReplaceFunction("f(integer)", FUNCTION.format(e)),
        "SELECT $1 + 1",
        ("SELECT now()", "SELECT ''a''::text"),
        broken=("SELECT", "SELECT nope", "SELECT nope($1)", "SELECT $2"),
    ),
    Place(
        "value of a parameter",
        lambda e: SetParameter("work_mem", e),
        "8MB",
        ("1", "999999999 TB"),
        broken=("nope", "8 nope", ""),
    ),
    Place(
        "done",
        lambda e: Custom(
            "t",
            "own",
            at_expand=[
                Sql(
                    "ALTER TABLE t SET (fillfactor = 90)",
                    reverse="ALTER TABLE t RESET (fillfactor)",
                    done=e,
                )
            ],
        ),
        "SELECT false",
        ("SELECT NULL::bool",),
        broken=("SELECT", "nope", "SELECT nope", "SELECT true; DROP TABLE t"),
    ),
    Place(
        "type of a column",
        lambda e: ChangeColumnType("t", "n", e, to="x"),
        "bigint",
        ("date", "bit(3)"),
        broken=TYPES,
    ),
    Place(
        "type default",
        lambda e: ChangeColumnType("t", "d", "bigint", to="x", default=e),
        "7",
        ("now()", "n", "'a'"),
    ),
    Place(
        "type collation",
        lambda e: ChangeColumnType("t", "name", "text", to="x", up="name", collation=e),
        '"C"',
        broken=("nope", '"C" +', '"C"; DROP TABLE t'),
    ),
    Place(
        "json default",
        lambda e: EvolveJson(
            "t", "settings", "x", add={"k": "1"}, default=e, assured="tried"
        ),
        "'{\"k\": 1}'",
        ("now()", "doc", "'{'"),
    ),
    Place(
        "other check",
        lambda e: ReplaceCheck("t", "held", e),
        "n > 0",
        ("name", "n", "now() > 'today'", "(SELECT true)", "1 / n = 0"),
    ),
    Place(
        "other index",
        lambda e: ReplaceIndex("t", "t_name", [Key(expression=e)]),
        "upper(name)",
        ("now()", "random()", "(SELECT 1)", "1 / n"),
    ),
    Place(
        "operator class",
        lambda e: CreateIndex("t", [Key("name", operators=e)], "i"),
        "text_pattern_ops",
        ("int4_ops",),
        broken=("nope", "text_pattern_ops +", "text_pattern_ops); DROP TABLE t"),
    ),
    Place(
        "operator",
        lambda e: AddExclusion("t", [("id", e)], "x", method="btree", assured="small"),
        "=",
        ("<", "&&"),
        broken=("nope", "= +", "=); DROP TABLE t; --"),
    ),
    Place(
        "options of a table",
        lambda e: CreateTable("made", "id int", options=e),
        "PARTITION BY RANGE (id)",
        ("PARTITION BY RANGE (nope)", "WITH (fillfactor = 7)"),
        broken=("PARTITION BY", "nope", "WITH (nope = 1); DROP TABLE t"),
    ),
)


def state(sql: psycopg.Connection) -> list[object]:
    """Return what a change could leave behind, and the rows."""
    rows = sql.execute("SELECT * FROM t ORDER BY id").fetchall()
    return [*catalogue(sql), *rows]


@pytest.mark.parametrize("place", PLACES, ids=lambda p: p.name)
def test_it_is_found_before_anything_is_changed(
    place: Place, runner: Runner, sql: psycopg.Connection
) -> None:
    """The error says that nothing was changed, nothing was, and nothing is entered."""
    if sql.info.server_version < place.since:
        pytest.skip("the server has no such columns")
    sql.execute(SETUP.encode())
    runner.plan(Change(revision="good", pattern=place.make(place.good)))
    before = state(sql)
    for text in (*place.broken, *place.wrong):
        with pytest.raises(Refused) as caught:
            runner.expand(Change(revision="a1", pattern=place.make(text)))
        assert caught.value.state == "Nothing was changed.", text
        assert caught.value.next, text
        assert state(sql) == before, text
    assert runner.changes() == []
