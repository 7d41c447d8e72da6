"""Every form of a statement, from both releases, on each way of having two sides."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import psycopg
import pytest

from migrator.change import Change
from migrator.pattern import Pattern
from migrator.patterns import (
    AddColumn,
    ChangeColumnType,
    ChangePrimaryKey,
    DropColumn,
    EvolveJson,
    ExtractTable,
    MergeColumns,
    MergeTables,
    MoveColumn,
    MoveToSchema,
    PartitionTable,
    RebuildTable,
    RemoveEnumValue,
    RenameColumn,
    RenameEnumValue,
    RenameTable,
    SetNotNull,
    SplitColumn,
    SplitTable,
    TransformColumn,
)
from migrator.plan import State
from migrator.runner import Runner


@dataclass(frozen=True)
class Side:
    """Where a release has the value: a table or view, its key, and the column."""

    table: str
    column: str
    #: What a row holds, comparable with the other side's; the column by default.
    shown: str = ""
    #: Whether it is a view in the window: what a view cannot take is left out.
    view: bool = False
    #: Whether rows come and go with those of another table.
    owned: bool = False
    #: What is read, where it is not the table.
    read: str = ""
    #: The n-th value, where it is not the shape's.
    value: str = ""
    #: Forms that it cannot take.
    without: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Shape:
    """A pattern on table `t (id, p_id, v)`, where each release has `v`."""

    name: str
    pattern: Pattern
    old: Side
    new: Side
    #: What runs behind the table; {type} is the type of `v`.
    setup: str = ""
    #: What the type needs, before the table.
    needs: str = ""
    type: str = "text"
    #: The n-th value, as SQL.
    value: str = "'v' || {n}"
    #: What a release sends with each statement.
    after: str = ""


V = Side("t", "v")
SET = "(SELECT array_agg(DISTINCT e ORDER BY e) FROM unnest(v) e)"
LINKED = "(SELECT array_agg(n.v ORDER BY n.v) FROM l JOIN n ON n.id = l.w"
NULL = frozenset({"update to null"})
MOOD = "CREATE TYPE mood AS ENUM ('low', 'high')"
# The new release finds or makes a value before it links it.
GOT = (
    "CREATE FUNCTION got(text) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN"
    " INSERT INTO n (v) VALUES ($1) ON CONFLICT (v) DO NOTHING;"
    " RETURN (SELECT id FROM n WHERE v = $1); END $$ SET search_path = public"
)
SHAPES = [
    Shape("rename", RenameColumn("t", "v", "w"), V, Side("t", "w")),
    Shape(
        "rename_citext",
        RenameColumn("t", "v", "w"),
        V,
        Side("t", "w"),
        needs="CREATE EXTENSION citext",
        type="citext",
        value="CASE {n} % 2 WHEN 0 THEN 'Bob' ELSE 'bob' END",
    ),
    Shape(
        "rename_json",
        RenameColumn("t", "v", "w"),
        V,
        Side("t", "w"),
        type="json",
        value="json_build_object('n', {n})",
    ),
    Shape(
        "rename_numeric",
        RenameColumn("t", "v", "w"),
        V,
        Side("t", "w"),
        type="numeric",
        value="CASE {n} % 2 WHEN 0 THEN 1.0 ELSE 1.00 END",
    ),
    Shape(
        "rename_reference",
        RenameColumn("t", "p_id", "parent_id"),
        Side("t", "p_id"),
        Side("t", "parent_id"),
        value="1 + {n} % 2",
    ),
    Shape("computed", AddColumn("t", "w", "text", computed="v"), V, V),
    Shape(
        "type",
        ChangeColumnType("t", "v", "bigint", to="w"),
        V,
        Side("t", "w"),
        type="int",
        value="{n}",
    ),
    Shape(
        "scale",
        ChangeColumnType("t", "v", "numeric(12, 4)", to="w"),
        V,
        Side("t", "w", "w::numeric(12, 2)"),
        type="numeric(12, 2)",
        value="{n} + 0.5",
    ),
    Shape(
        "transform",
        TransformColumn("t", "v", "w", "bigint", "v::bigint * 100", "(w / 100)::int"),
        V,
        # Finer than the old release can tell.
        Side("t", "w", "w / 100", value="{n} * 100 + 7"),
        type="int",
        value="{n}",
    ),
    Shape(
        "split",
        SplitColumn(
            "t",
            "v",
            {"head": ("text", "left(v, 2)"), "rest": ("text", "substr(v, 3)")},
            "head || coalesce(rest, '')",
        ),
        V,
        Side("t", "head", "head || coalesce(rest, '')"),
    ),
    Shape(
        "merge",
        MergeColumns(
            "t",
            ["v", "x"],
            "w",
            "text",
            "v || coalesce('/' || x, '')",
            {"v": "split_part(w, '/', 1)", "x": "nullif(split_part(w, '/', 2), '')"},
        ),
        Side("t", "v", "v || coalesce('/' || x, '')"),
        Side("t", "w"),
        setup="ALTER TABLE t ADD x text",
    ),
    Shape(
        "rename_table",
        RenameTable("t", "u", assured="no function is meant"),
        V,
        Side("u", "v", view=True),
    ),
    Shape(
        "move_to_schema",
        MoveToSchema("t", "other", assured="no function is meant"),
        V,
        Side("other.t", "v", view=True),
        setup="CREATE SCHEMA other",
    ),
    Shape(
        "rebuild",
        RebuildTable("t", alter=["SET (fillfactor = 70)"], assured="a test"),
        V,
        V,
    ),
    Shape(
        "rebuild_json",
        RebuildTable("t", alter=["SET (fillfactor = 70)"], assured="a test"),
        V,
        V,
        type="json",
        value="json_build_object('n', {n})",
    ),
    Shape(
        "partition",
        PartitionTable(
            "t",
            "RANGE",
            ["id"],
            {"t_low": "FROM (0) TO (50)"},
            rest="t_rest",
            key=["id"],
            assured="a test",
        ),
        V,
        V,
    ),
    Shape(
        "wider_key",
        ChangePrimaryKey("t", "id", assured="reads by name"),
        V,
        V,
    ),
    Shape(
        "split_table",
        SplitTable("t", "n", ["v"], key=["id"], assured="no ON CONFLICT"),
        V,
        Side("n", "v", view=True, owned=True),
    ),
    Shape(
        "extract_many",
        ExtractTable(
            "t",
            "n",
            ["v"],
            through="l",
            reference="w",
            back_reference="id",
            assured="one request at a time",
        ),
        Side("t", "v", shown=SET),
        Side(
            "l",
            "w",
            shown=f"{LINKED} WHERE l.id = t.id)",
            owned=True,
            read="t",
            value="got('v' || {n})",
            without=NULL,
        ),
        setup=GOT,
        type="text[]",
        value="ARRAY['v' || {n}]",
    ),
    Shape(
        "move_column",
        MoveColumn("t", "v", to="n", key={"id": "id"}, assured="one request at a time"),
        V,
        Side("n", "v", owned=True),
        setup="CREATE TABLE n (id int PRIMARY KEY REFERENCES t ON UPDATE CASCADE ON"
        " DELETE CASCADE, note text); INSERT INTO n SELECT id FROM t",
        after="INSERT INTO n (id) SELECT id FROM t ON CONFLICT DO NOTHING",
    ),
    Shape(
        "merge_tables",
        MergeTables("n", "t", ["w"], key={"id": "id"}, assured="no ON CONFLICT"),
        Side("n", "w", view=True, owned=True),
        Side("t", "w"),
        setup="CREATE TABLE n (w {type}, id int PRIMARY KEY REFERENCES t ON UPDATE"
        " CASCADE ON DELETE CASCADE); INSERT INTO n SELECT v, id FROM t",
    ),
    Shape(
        "extract",
        ExtractTable("t", "n", ["v"], reference="n_id", assured="one request"),
        V,
        Side(
            "t",
            "n_id",
            shown="(SELECT n.v FROM n WHERE n.id = t.n_id)",
            value="got('v' || {n})",
        ),
        setup=GOT,
    ),
    Shape(
        "json_documents",
        EvolveJson("t", "v", "w", rename={"a": "b"}, add={"c": "1"}),
        Side("t", "v", "v ->> 'a'"),
        Side("t", "w", "w ->> 'b'", value="jsonb_build_object('b', {n}, 'c', 7)"),
        type="jsonb",
        value="jsonb_build_object('a', {n})",
    ),
    Shape(
        "not_null",
        SetNotNull("t", "v", fill="'none'"),
        # What it would see without the fill.
        Side("t", "v", "coalesce(v, 'none')"),
        Side("t", "v", without=NULL),
    ),
    Shape(
        "drop_column",
        DropColumn("t", "v", fill="'gone'", assured="no function is meant"),
        Side("t", "v", "v IS NOT NULL", without=NULL),
        Side("t", "x", "true"),
        setup="ALTER TABLE t ALTER v SET NOT NULL; ALTER TABLE t ADD x text",
    ),
    Shape(
        "rename_value",
        RenameEnumValue("t", "v", "low", "sad"),
        Side("t", "v", "v::text"),
        Side(
            "t",
            "v",
            # Until retire it reads the old word, and from then on its own.
            "replace(v::text, 'sad', 'low')",
            value="(CASE {n} % 2 WHEN 0 THEN 'sad' ELSE 'high' END)::mood",
        ),
        needs=MOOD,
        type="mood",
        value="(CASE {n} % 2 WHEN 0 THEN 'low' ELSE 'high' END)::mood",
    ),
    Shape(
        "remove_value",
        RemoveEnumValue("t", "v", "low", instead="high", assured="tried"),
        V,
        Side("t", "v", value="'high'::mood"),
        needs=MOOD,
        type="mood",
        value="(CASE {n} % 2 WHEN 0 THEN 'low' ELSE 'high' END)::mood",
    ),
    Shape(
        "same_name",
        ChangeColumnType("t", "v", "bigint", assured="reads text"),
        V,
        V,
        type="int",
        value="{n}",
    ),
    Shape(
        "constant",
        AddColumn("t", "w", "text", default="'x'", not_null=True),
        Side("t", "v", "w IS NOT NULL"),
        Side("t", "w", "true", without=NULL),
    ),
    Shape(
        "drawn",
        AddColumn("t", "w", "text", default="md5(random()::text)", not_null=True),
        Side("t", "v", "w IS NOT NULL"),
        Side("t", "w", "true", without=NULL),
    ),
    Shape(
        "counted",
        AddColumn("t", "w", "bigint", identity="by default"),
        Side("t", "v", "w IS NOT NULL"),
        Side("t", "v", "true"),
    ),
]
#: Types whose values are equal and look different, or have no `=` at all, on each way
#: of having two tables, or another one in the place of the first.
BETWEEN = {
    "rename_table",
    "partition",
    "wider_key",
    "split_table",
    "move_column",
    "merge_tables",
}
TYPES = {
    "citext": (
        "CREATE EXTENSION citext",
        "CASE {n} % 2 WHEN 0 THEN 'Bob' ELSE 'bob' END",
    ),
    "json": ("", "json_build_object('n', {n})"),
    "numeric": ("", "CASE {n} % 2 WHEN 0 THEN 1.0 ELSE 1.00 END"),
}
SHAPES += [
    replace(s, name=f"{s.name}_{kind}", type=kind, needs=needs, value=value)
    for s in SHAPES
    if s.name in BETWEEN
    for kind, (needs, value) in TYPES.items()
]

#: Rows 1 to 9 are there; {a} and {b} are keys of new ones, {v} and {w} values.
#: Those in which rows come are for a side that has rows of its own.
COME = {
    "several rows": "INSERT INTO {t} (id, {c}) VALUES ({a}, {v}), ({b}, {w})",
    "from a query": "INSERT INTO {t} (id, {c}) SELECT g, {v} FROM"
    " generate_series({a}, {b}) g",
    "returning": "INSERT INTO {t} (id, {c}) VALUES ({a}, {v}) RETURNING {c}",
    "a common table expression": "WITH made AS (INSERT INTO {t} (id, {c}) VALUES"
    " ({a}, {v}) RETURNING id) UPDATE {t} SET {c} = {w} WHERE id = 1"
    " AND EXISTS (SELECT FROM made)",
    "on conflict update": "INSERT INTO {t} (id, {c}) VALUES (2, {v}), ({a}, {w})"
    " ON CONFLICT (id) DO UPDATE SET {c} = EXCLUDED.{c}",
    "on conflict nothing": "INSERT INTO {t} (id, {c}) VALUES (2, {v}), ({a}, {w})"
    " ON CONFLICT (id) DO NOTHING",
    "merge": "MERGE INTO {t} AS m USING (VALUES (3), ({a})) AS s (id) ON m.id = s.id"
    " WHEN MATCHED THEN UPDATE SET {c} = {v}"
    " WHEN NOT MATCHED THEN INSERT (id, {c}) VALUES (s.id, {w})",
    "copy": "COPY {t} (id, {c}) FROM STDIN",
}
CHANGE = {
    "update returning": "UPDATE {t} SET {c} = {v} WHERE id = 4 RETURNING {c}",
    "update from": "UPDATE {t} SET {c} = {v} FROM (VALUES (5), (6)) AS s (id)"
    " WHERE {t}.id = s.id",
    "update to null": "UPDATE {t} SET {c} = NULL WHERE id = 7",
    "of an own key": "UPDATE {t} SET id = {a} WHERE id = 8",
    "of a referenced key": "UPDATE p SET id = {a} WHERE id = 1",
    "delete using": "DELETE FROM {t} USING (VALUES ({b}), (9)) AS s (id)"
    " WHERE {t}.id = s.id",
    "delete that cascades": "DELETE FROM p WHERE id = 2",
}
#: What PostgreSQL refuses on a view, and up to which version.
NOT_ON_A_VIEW = {"copy": 99, "merge": 16}
#: The keys of a moved or split row belong to the other table.
NOT_ON_OWNED = {"of an own key", "delete using"}


# What a session of an application may have: operators that hide the server's and know
# no two values to be alike, and other forms of text.
HOSTILE = """
CREATE SCHEMA hostile;
CREATE FUNCTION hostile.no(text, text) RETURNS bool LANGUAGE sql AS 'SELECT false';
CREATE FUNCTION hostile.no(text[], text[]) RETURNS bool LANGUAGE sql AS 'SELECT false';
CREATE FUNCTION hostile.no(jsonb, jsonb) RETURNS bool LANGUAGE sql AS 'SELECT false';
CREATE FUNCTION hostile.no(numeric, numeric) RETURNS bool LANGUAGE sql
  AS 'SELECT false';
CREATE OPERATOR hostile.= (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.no);
CREATE OPERATOR hostile.= (LEFTARG = text[], RIGHTARG = text[], FUNCTION = hostile.no);
CREATE OPERATOR hostile.= (LEFTARG = jsonb, RIGHTARG = jsonb, FUNCTION = hostile.no);
CREATE OPERATOR hostile.= (LEFTARG = numeric, RIGHTARG = numeric,
  FUNCTION = hostile.no);
CREATE FUNCTION hostile.upper(text) RETURNS text LANGUAGE sql AS 'SELECT NULL::text';
CREATE FUNCTION hostile.substr(text, int) RETURNS text LANGUAGE sql
  AS 'SELECT NULL::text';
SET search_path = hostile, pg_catalog, public;
SET datestyle = 'German, DMY';
SET intervalstyle = 'sql_standard';
SET extra_float_digits = 0;
SET timezone = 'Asia/Kolkata';
"""


@dataclass
class Sender:
    """Sends statements of a release, and compares both sides after each."""

    sql: psycopg.Connection
    shape: Shape
    _next: int = 100

    def forms(self, side: Side) -> Iterator[tuple[str, str]]:
        """Return the forms that a release's side can take."""
        for name, form in {**({} if side.owned else COME), **CHANGE}.items():
            version = self.sql.info.server_version // 10_000
            if side.view and version <= NOT_ON_A_VIEW.get(name, 0):
                continue
            if (side.owned and name in NOT_ON_OWNED) or name in side.without:
                continue
            yield name, form

    def send(self, side: Side, form: str) -> None:
        """Send one statement."""
        self._next += 10
        n = self._next
        value = side.value or self.shape.value
        words = {
            "t": side.table,
            "c": side.column,
            "a": n,
            "b": n + 1,
            "v": value.format(n=n),
            "w": value.format(n=n + 1),
        }
        text = form.format(**words)
        if form.startswith("COPY"):
            row = self.sql.execute(f"SELECT ({words['v']})::text".encode()).fetchone()
            assert row is not None
            with self.sql.cursor().copy(text.encode()) as copy:
                copy.write_row((n, row[0]))
        else:
            self.sql.execute(text.encode())
        if self.shape.after:
            self.sql.execute(self.shape.after.encode())

    def rows(self, side: Side) -> list[tuple[object, ...]]:
        """Return what a release sees."""
        shown = side.shown or side.column
        return self.sql.execute(
            f"SELECT id, ({shown})::text FROM {side.read or side.table}"
            " ORDER BY id".encode()
        ).fetchall()

    def raw(self) -> list[object]:
        """Return all that is in the tables of both sides, but for one column."""
        tables = dict.fromkeys(("t", self.shape.old.table, self.shape.new.table))
        return [
            self.sql.execute(
                f"SELECT to_jsonb(_r) - 'other' FROM {t} _r ORDER BY id".encode()
            ).fetchall()
            for t in tables
        ]

    def check(self, name: str) -> None:
        """Compare both sides."""
        assert self.rows(self.shape.old) == self.rows(self.shape.new), name


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.name)
def test_every_form_of_a_statement(
    shape: Shape, runner: Runner, sql: psycopg.Connection
) -> None:
    """What one release sends is what the other sees, and survives the way back."""
    sql.execute(
        "CREATE TABLE p (id int PRIMARY KEY); INSERT INTO p VALUES (1), (2), (3);"
        "CREATE TABLE t (id int PRIMARY KEY, p_id int DEFAULT 3 REFERENCES p"
        " ON UPDATE CASCADE ON DELETE CASCADE, v text, other int);"
    )
    if shape.needs:
        sql.execute(shape.needs.encode())
    first = shape.value.format(n="g")
    sql.execute(
        f"ALTER TABLE t DROP v, ADD v {shape.type};"
        f"INSERT INTO t (id, p_id, v) SELECT g, 1 + g % 3, {first}"
        " FROM generate_series(1, 9) g; CREATE INDEX t_p ON t (p_id)".encode()
    )
    if shape.setup:
        sql.execute(shape.setup.replace("{type}", shape.type).encode())
    runner.expand(Change(revision="a1", pattern=shape.pattern))
    assert runner.settle("a1") is State.VERIFIED
    sql.execute(HOSTILE.encode())
    sender = Sender(sql, shape)
    # A plan with results that change their type is what no tool can save.
    sql.prepare_threshold = None
    for side in dict.fromkeys((shape.old, shape.new)):
        for name, form in sender.forms(side):
            sql.execute("INSERT INTO p VALUES (1), (2) ON CONFLICT DO NOTHING")
            sender.send(side, form)
            sender.check(f"{name}, {side}")
        before = sender.raw()
        sql.execute("UPDATE t SET other = 1")
        assert sender.raw() == before
    assert runner.verify("a1") is State.VERIFIED
    assert not runner.mismatches("a1")
    runner.retire("a1", old_release_gone="test")
    for name, form in sender.forms(shape.new):
        if "cascades" not in name:
            sql.execute("INSERT INTO p VALUES (1), (2) ON CONFLICT DO NOTHING")
            sender.send(shape.new, form)
    told = sender.rows(shape.new)
    runner.rollback("a1", to=State.VERIFIED)
    assert sender.rows(shape.new) == told
    sender.check("the way back")
