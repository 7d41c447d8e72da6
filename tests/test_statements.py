"""Every form of a statement, from both releases, on each way of having two sides."""

from dataclasses import replace

import pytest
from statements import BESIDE, NULL, TYPES, Shape, Side, carry, placed, prepare

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

V = Side("t", "v")
W = Side("t", "w")
SET = "(SELECT array_agg(DISTINCT e ORDER BY e) FROM unnest(v) e)"
LINKED = "(SELECT array_agg(n.v ORDER BY n.v) FROM l JOIN n ON n.id = l.w"
MOOD = "CREATE TYPE mood AS ENUM ('low', 'high')"
WORDS = "(CASE {n} % 2 WHEN 0 THEN 'low' ELSE 'high' END)::mood"
# A row of the other table for each.
OWNED = "INSERT INTO n (id) SELECT id FROM t WHERE id NOT IN (SELECT id FROM n)"
REFERS = "id int PRIMARY KEY REFERENCES t ON UPDATE CASCADE ON DELETE CASCADE"
# The new release finds or makes a value before it links it.
GOT = (
    "CREATE FUNCTION got(text) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN"
    " INSERT INTO n (v) VALUES ($1) ON CONFLICT (v) DO NOTHING;"
    " RETURN (SELECT id FROM n WHERE v = $1); END $$ SET search_path FROM CURRENT"
)
NUMBERED = "CREATE TABLE n (id bigserial PRIMARY KEY, v text UNIQUE NULLS NOT DISTINCT)"
RENAMED = "ALTER TABLE t RENAME v TO w"
ALL_THREE = "json_build_object('c', {c}, 'j', {j}, 'm', {m})"
PARTS = ("{} ->> 'c'", "{} -> 'j'", "{} ->> 'm'")
SHAPES = [
    Shape("rename", RenameColumn("t", "v", "w"), V, W, RENAMED),
    Shape(
        "rename_reference",
        RenameColumn("t", "p_id", "parent_id"),
        Side("t", "p_id"),
        Side("t", "parent_id", parent="parent_id"),
        "ALTER TABLE t RENAME p_id TO parent_id",
        value="1 + {n} % 2",
    ),
    Shape(
        "computed",
        AddColumn("t", "w", "text", computed="v || c || j::text || m"),
        V,
        V,
        "",
        # Not by the session's own `=`.
        holds="coalesce(w, '') OPERATOR(pg_catalog.=)"
        " coalesce(v || c || j::text || m, '')",
    ),
    Shape(
        "type",
        ChangeColumnType("t", "v", "bigint", to="w"),
        V,
        W,
        f"{RENAMED}; ALTER TABLE t ALTER w TYPE bigint",
        type="int",
        value="{n}",
    ),
    Shape(
        "scale",
        ChangeColumnType("t", "v", "numeric(12, 4)", to="w"),
        V,
        Side("t", "w", ("w::numeric(12, 2)",)),
        f"{RENAMED}; ALTER TABLE t ALTER w TYPE numeric(12, 4)",
        type="numeric(12, 2)",
        value="{n} + 0.5",
    ),
    Shape(
        "document",
        ChangeColumnType("t", "v", "jsonb", to="w"),
        Side("t", "v", ("v::jsonb",)),
        W,
        f"{RENAMED}; ALTER TABLE t ALTER w TYPE jsonb",
        type="json",
        value=TYPES["json"],
    ),
    Shape(
        "case",
        ChangeColumnType("t", "v", "text", to="w"),
        V,
        W,
        f"{RENAMED}; ALTER TABLE t ALTER w TYPE text",
        type="citext",
        value=TYPES["citext"],
    ),
    Shape(
        "transform",
        TransformColumn("t", "v", "w", "numeric", "v * 100", "round(w / 100, 2)"),
        V,
        # Finer than the old release can tell.
        Side("t", "w", ("round(w / 100, 2)",), value="{n} * 100 + 0.30"),
        f"{RENAMED}; ALTER TABLE t ALTER w TYPE numeric",
        type="numeric(12, 2)",
        value="{n} + 0.5",
    ),
    Shape(
        "transform_citext",
        TransformColumn(
            "t",
            "v",
            "w",
            "json",
            "CASE WHEN v IS NOT NULL THEN json_build_object('v', v) END",
            "(w ->> 'v')::citext",
        ),
        V,
        Side("t", "w", ("w ->> 'v'",), value="json_build_object('u', 1, 'v', {n})"),
        "ALTER TABLE t DROP v, ADD w json",
        type="citext",
        value=TYPES["citext"],
    ),
    Shape(
        "split",
        SplitColumn(
            "t",
            "v",
            {
                "c2": ("citext", "(v ->> 'c')::citext"),
                "j2": ("json", "v -> 'j'"),
                "m2": ("numeric", "(v ->> 'm')::numeric"),
            },
            "CASE WHEN num_nonnulls(c2, j2, m2) > 0 THEN"
            f" {ALL_THREE.format(c='c2', j='j2', m='m2')} END",
        ),
        Side("t", "v", tuple(p.format("v") for p in PARTS), also={}),
        Side("t", "c2", value=BESIDE["c"], also={"j2": BESIDE["j"], "m2": BESIDE["m"]}),
        "ALTER TABLE t DROP v, ADD c2 citext, ADD j2 json, ADD m2 numeric",
        type="json",
        value=ALL_THREE.format(**BESIDE),
    ),
    Shape(
        "merge",
        MergeColumns(
            "t",
            ["c", "j", "m"],
            "w",
            "json",
            "CASE WHEN num_nonnulls(c, j, m) > 0 THEN"
            f" {ALL_THREE.format(c='c', j='j', m='m')} END",
            {
                "c": "(w ->> 'c')::citext",
                "j": "w -> 'j'",
                "m": "(w ->> 'm')::numeric",
            },
        ),
        Side("t", "c", value=BESIDE["c"], also={"j": BESIDE["j"], "m": BESIDE["m"]}),
        Side(
            "t",
            "w",
            tuple(p.format("w") for p in PARTS),
            value=ALL_THREE.format(**BESIDE),
            also={},
        ),
        "ALTER TABLE t DROP c, DROP j, DROP m, ADD w json",
    ),
    Shape(
        "rename_table",
        RenameTable("t", "u", assured="no function is meant"),
        V,
        Side("u", "v", view=True),
        "ALTER TABLE t RENAME TO u",
    ),
    Shape(
        "move_to_schema",
        MoveToSchema("t", "other", assured="no function is meant"),
        V,
        Side("other.t", "v", view=True, twin="t"),
        "",
        setup="CREATE SCHEMA IF NOT EXISTS other",
    ),
    Shape(
        "rebuild",
        RebuildTable("t", alter=["SET (fillfactor = 70)"], assured="a test"),
        V,
        V,
        "",
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
        "",
    ),
    Shape("wider_key", ChangePrimaryKey("t", "id", assured="reads by name"), V, V, ""),
    Shape(
        "split_table",
        SplitTable("t", "n", ["v", *BESIDE], key=["id"], assured="no ON CONFLICT"),
        V,
        Side("n", "v", view=True, owned=True, also=BESIDE, after=OWNED),
        f"CREATE TABLE n ({REFERS}, v text, c citext, j json, m numeric); {OWNED};"
        " ALTER TABLE t DROP v, DROP c, DROP j, DROP m",
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
        Side("t", "v", (SET,), also={}),
        Side(
            "l",
            "w",
            (f"{LINKED} WHERE l.id = t.id)",),
            owned=True,
            read="t",
            value="got('v' || {n})",
            after="INSERT INTO l (id, w) SELECT id, got('v' || id) FROM t"
            " WHERE id NOT IN (SELECT id FROM l)",
            without=NULL,
        ),
        f"{NUMBERED}; ALTER TABLE t DROP v; CREATE TABLE l (id int REFERENCES t"
        " ON UPDATE CASCADE ON DELETE CASCADE, w bigint REFERENCES n)",
        setup=GOT,
        type="text[]",
        value="ARRAY['v' || {n}]",
    ),
    Shape(
        "move_column",
        MoveColumn("t", "v", to="n", key={"id": "id"}, assured="one request at a time"),
        Side("t", "v", also={}, after=OWNED),
        Side("n", "v", owned=True, after=OWNED),
        "ALTER TABLE t DROP v; ALTER TABLE n ADD v text",
        setup=f"CREATE TABLE n ({REFERS}, note text); INSERT INTO n SELECT id FROM t",
    ),
    Shape(
        "merge_tables",
        MergeTables(
            "n",
            "t",
            {"w": "w", "c": "c2", "j": "j2", "m": "m2"},
            key={"id": "id"},
            assured="no ON CONFLICT",
        ),
        Side("n", "w", view=True, owned=True, also=BESIDE, after=OWNED),
        Side(
            "t",
            "w",
            also={f"{c}2": value for c, value in BESIDE.items()},
            # A row of NULLs is none to the old release.
            without=NULL,
        ),
        "DROP TABLE n; ALTER TABLE t ADD w text, ADD c2 citext, ADD j2 json,"
        " ADD m2 numeric",
        setup=f"CREATE TABLE n (w text, c citext, j json, m numeric, {REFERS});"
        " INSERT INTO n SELECT v, c, j, m, id FROM t",
    ),
    Shape(
        "extract",
        ExtractTable("t", "n", ["v"], reference="n_id", assured="one request"),
        V,
        Side(
            "t",
            "n_id",
            ("(SELECT n.v FROM n WHERE n.id = t.n_id)",),
            value="got('v' || {n})",
        ),
        f"{NUMBERED}; ALTER TABLE t DROP v, ADD n_id bigint REFERENCES n",
        setup=GOT,
    ),
    Shape(
        "json_documents",
        EvolveJson("t", "v", "w", rename={"a": "b"}, add={"c": "1"}),
        Side("t", "v", ("v ->> 'a'",)),
        Side("t", "w", ("w ->> 'b'",), value="jsonb_build_object('b', {n}, 'c', 7)"),
        RENAMED,
        type="jsonb",
        value="jsonb_build_object('a', {n})",
    ),
    Shape(
        "not_null",
        SetNotNull("t", "v", fill="'none'"),
        # What it would see without the fill.
        Side("t", "v", ("coalesce(v, 'none')",)),
        Side("t", "v", without=NULL),
        "UPDATE t SET v = 'none' WHERE v IS NULL; ALTER TABLE t ALTER v SET NOT NULL,"
        " ALTER v SET DEFAULT 'none'",
    ),
    Shape(
        "drop_column",
        DropColumn("t", "v", fill="'gone'", assured="no function is meant"),
        Side("t", "v", without=NULL),
        Side("t", "x"),
        "ALTER TABLE t DROP v",
        setup="UPDATE t SET v = 'none'; ALTER TABLE t ALTER v SET NOT NULL, ADD x text",
        holds="v IS NOT NULL",
    ),
    Shape(
        "rename_value",
        RenameEnumValue("t", "v", "low", "sad"),
        V,
        Side(
            "t",
            "v",
            # Until retire it reads the old word, and from then on its own.
            ("replace(v::text, 'sad', 'low')",),
            value=WORDS.replace("low", "sad"),
        ),
        "ALTER TYPE mood RENAME VALUE 'low' TO 'sad'",
        needs=MOOD,
        type="mood",
        value=WORDS,
    ),
    Shape(
        "remove_value",
        RemoveEnumValue("t", "v", "low", instead="high", assured="tried"),
        V,
        # What holds the value is moved at retire.
        Side("t", "v", ("replace(v::text, 'low', 'high')",), value="'high'::mood"),
        "",
        holds="v IS NULL OR v::text <> ''",
        needs=MOOD,
        type="mood",
        value=WORDS,
    ),
    Shape(
        "same_name",
        ChangeColumnType("t", "v", "bigint", assured="reads text"),
        V,
        V,
        "ALTER TABLE t ALTER v TYPE bigint",
        type="int",
        value="{n}",
    ),
    Shape(
        "constant",
        AddColumn("t", "w", "text", default="'x'", not_null=True),
        V,
        Side("t", "w", without=NULL),
        "ALTER TABLE t ADD w text DEFAULT 'x' NOT NULL",
        holds="w IS NOT NULL",
    ),
    Shape(
        "drawn",
        AddColumn("t", "w", "text", default="md5(random()::text)", not_null=True),
        V,
        Side("t", "w", without=NULL),
        "ALTER TABLE t ADD w text DEFAULT 'x' NOT NULL",
        holds="w IS NOT NULL",
    ),
    Shape(
        "counted",
        AddColumn("t", "w", "bigint", identity="by default"),
        V,
        V,
        "ALTER TABLE t ADD w bigint GENERATED BY DEFAULT AS IDENTITY",
        holds="w IS NOT NULL",
    ),
]
#: Those that take one column: with each type whose values are equal and look different,
#: or have no `=` at all. Others have all of them beside.
EACH = {"rename", "move_column", "not_null", "drop_column"}


def typed(shape: Shape, kind: str) -> Shape:
    """Return a shape whose column is of another type."""
    value = TYPES[kind]
    made = replace(shape, name=f"{shape.name}_{kind}", type=kind, value=value)
    return replace(made, plain=made.plain.replace("ADD v text", f"ADD v {kind}"))


#: The way in which NULL is filled, of each type.
NONE = {"citext": "'None'", "json": "'{}'", "numeric": "0.00"}


def filled(shape: Shape, kind: str) -> Shape:
    """Return a shape that fills NULL."""
    pattern = shape.pattern
    if isinstance(pattern, SetNotNull | DropColumn):
        none = NONE[kind]
        word = str(pattern.fill)
        made = typed(shape, kind)
        return replace(
            made,
            pattern=replace(pattern, fill=none),
            old=replace(
                made.old, shown=tuple(s.replace(word, none) for s in made.old.shown)
            ),
            plain=made.plain.replace(word, none),
            setup=made.setup.replace(word, none).replace("'none'", none),
        )
    return typed(shape, kind)


SHAPES += [filled(s, kind) for s in SHAPES if s.name in EACH for kind in TYPES]
SHAPES = [s for s in SHAPES if s.name not in EACH]


@pytest.fixture(scope="module")
def place(shared_database: str) -> str:
    """Give a database that all shapes share, each in a schema of its own."""
    prepare(shared_database)
    return shared_database


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.name)
def test_every_form_of_a_statement(shape: Shape, place: str) -> None:
    """What one release sends is what the other sees, and survives the way back."""
    with placed(place, shape) as sender:
        carry(sender)
