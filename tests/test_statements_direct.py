"""Every form of a statement, from both releases, where both write the same table."""

from typing import Any

import pytest
import test_statements
from statements import BESIDE, NULL, Shape, Side, carry, placed, prepare

from migrator.pattern import Pattern
from migrator.patterns import (
    CATALOGUE,
    AddCheck,
    AddEnumValue,
    AddExclusion,
    AddForeignKey,
    AddPrimaryKey,
    AddUnique,
    AttachPartition,
    ChangeDomain,
    CreateIndex,
    CreateTable,
    Custom,
    DetachPartition,
    DropConstraint,
    DropDefault,
    DropIndex,
    DropNotNull,
    DropTable,
    Key,
    RefreshMaterializedView,
    Reindex,
    RenameConstraint,
    ReplaceCheck,
    ReplaceForeignKey,
    ReplaceFunction,
    ReplaceIndex,
    ReplaceView,
    SetDefault,
    SetParameter,
    Sql,
)
from migrator.plan import State

V = Side("t", "v")
MOOD = "CREATE TYPE mood AS ENUM ('low', 'high')"
#: A release that leaves `v` to its default.
DEFAULTED = Side(
    "t",
    "m",
    ("m", "v"),
    value=BESIDE["m"],
    also={"c": BESIDE["c"], "j": BESIDE["j"]},
)
COLUMNS = "c citext, j json, m numeric"
TABLE = (
    "id int PRIMARY KEY, p_id int DEFAULT 3 REFERENCES p ON UPDATE CASCADE ON DELETE"
    f" CASCADE, v text, other int, {COLUMNS}"
)
HIGH = 10_000
PARTED = (
    f"DROP TABLE t; CREATE TABLE t ({TABLE}) PARTITION BY RANGE (id);"
    f" CREATE TABLE low PARTITION OF t FOR VALUES FROM (MINVALUE) TO ({HIGH});"
    " CREATE TABLE high (LIKE t INCLUDING ALL, FOREIGN KEY (p_id) REFERENCES p"
    " ON UPDATE CASCADE ON DELETE CASCADE);"
)
ATTACH = f"ALTER TABLE t ATTACH PARTITION high FOR VALUES FROM ({HIGH}) TO (MAXVALUE)"
HELD = "CHECK (c <> 'x' AND j::text <> '' AND m >= 0)"


def shape(
    name: str,
    pattern: Pattern,
    plain: str = "",
    *,
    old: Side = V,
    new: Side = V,
    at: State = State.EXPANDED,
    **more: Any,
) -> Shape:
    """Return a shape that has one side for both releases, if no other is given."""
    return Shape(name, pattern, old, new, plain, plain_at=at, **more)


SHAPES = [
    shape(
        "check",
        AddCheck("t", "held", "c <> 'x' AND j::text <> '' AND m >= 0"),
        f"ALTER TABLE t ADD CONSTRAINT held {HELD}",
        at=State.RETIRED,
    ),
    shape(
        "enum_value",
        AddEnumValue("t", "v", "new"),
        "ALTER TYPE mood ADD VALUE 'new'",
        new=Side("t", "v", value="'new'::mood"),
        needs=MOOD,
        type="mood",
        value="(CASE {n} % 2 WHEN 0 THEN 'low' ELSE 'high' END)::mood",
    ),
    shape(
        "exclusion",
        AddExclusion(
            "t",
            [(Key(expression="int4range(id, id + 1)"), "&&")],
            "apart",
            assured="small",
        ),
        "ALTER TABLE t ADD CONSTRAINT apart EXCLUDE USING gist"
        " (int4range(id, id + 1) WITH &&)",
        at=State.RETIRED,
    ),
    shape(
        "foreign_key",
        AddForeignKey(
            "t", ["v"], "p", ["id"], "leads", on_delete="cascade", on_update="cascade"
        ),
        "ALTER TABLE t ADD CONSTRAINT leads FOREIGN KEY (v) REFERENCES p"
        " ON UPDATE CASCADE ON DELETE CASCADE",
        # No orphan, whatever becomes of other parents before it is there.
        type="int",
        value="3",
        at=State.RETIRED,
        later=Side("t", "v", value="1 + {n} % 3"),
    ),
    shape(
        "primary_key",
        AddPrimaryKey("t", ["id"], "t_key"),
        "ALTER TABLE t ADD CONSTRAINT t_key PRIMARY KEY (id)",
        setup="ALTER TABLE t DROP CONSTRAINT t_pkey;"
        " CREATE UNIQUE INDEX t_id ON t (id)",
        at=State.RETIRED,
    ),
    shape(
        "unique",
        AddUnique("t", ["id", "c", "m"], "once"),
        "ALTER TABLE t ADD CONSTRAINT once UNIQUE (id, c, m)",
        at=State.RETIRED,
    ),
    shape(
        "attach",
        AttachPartition("t", "high", f"FROM ({HIGH}) TO (MAXVALUE)"),
        ATTACH,
        new=Side("t", "v", keys_from=HIGH),
        setup=PARTED,
    ),
    shape(
        "detach",
        DetachPartition("t", "high"),
        "ALTER TABLE t DETACH PARTITION high",
        old=Side("t", "v", keys_from=HIGH),
        new=Side("t", "v", read="low"),
        setup=f"{PARTED}; {ATTACH}",
        at=State.RETIRED,
    ),
    shape(
        "domain",
        ChangeDomain("word", add_check="VALUE <> 'x'", name="held"),
        "ALTER DOMAIN word ADD CONSTRAINT held CHECK (VALUE <> 'x')",
        needs="CREATE DOMAIN word AS citext",
        type="word",
        value=BESIDE["c"],
        at=State.RETIRED,
    ),
    shape(
        "index",
        CreateIndex("t", ["c", Key(expression="j ->> 'n'"), "m"], "found"),
        "CREATE INDEX found ON t (c, (j ->> 'n'), m)",
    ),
    shape(
        "create_table",
        CreateTable(
            "u", TABLE, references=["p"], assured="the old release deletes no parent"
        ),
        f"CREATE TABLE u ({TABLE})",
        new=Side("u", "v"),
    ),
    shape(
        "custom",
        Custom(
            "t",
            "pages with room",
            at_expand=[
                Sql(
                    "ALTER TABLE t SET (fillfactor = 70)",
                    reverse="ALTER TABLE t RESET (fillfactor)",
                    lock="SHARE UPDATE EXCLUSIVE",
                )
            ],
        ),
    ),
    shape(
        "drop_constraint",
        DropConstraint("t", "held"),
        "ALTER TABLE t DROP CONSTRAINT held",
        setup=f"ALTER TABLE t ADD CONSTRAINT held {HELD}",
        later=Side("t", "v", also=BESIDE | {"m": "-1.0"}),
        at=State.RETIRED,
    ),
    shape(
        "drop_default",
        DropDefault("t", "v"),
        "ALTER TABLE t ALTER v DROP DEFAULT",
        # What it leaves to the default.
        old=DEFAULTED,
        setup="ALTER TABLE t ALTER v SET DEFAULT 'd'",
        at=State.RETIRED,
    ),
    shape(
        "drop_index",
        DropIndex("t", "found"),
        "DROP INDEX found",
        setup="CREATE INDEX found ON t (c, m)",
        at=State.RETIRED,
    ),
    shape(
        "drop_not_null",
        DropNotNull("t", "v"),
        "ALTER TABLE t ALTER v DROP NOT NULL",
        old=Side("t", "v", without=NULL),
        new=Side("t", "v", without=NULL),
        later=V,
        setup="ALTER TABLE t ALTER v SET NOT NULL",
        at=State.RETIRED,
    ),
    shape(
        "drop_table",
        DropTable("gone", assured="the new release deletes no parent"),
        "DROP TABLE gone",
        old=Side("gone", "v"),
        setup=f"CREATE TABLE gone ({TABLE})",
        at=State.RETIRED,
    ),
    shape(
        "refresh",
        RefreshMaterializedView("seen"),
        "REFRESH MATERIALIZED VIEW seen",
        setup="CREATE MATERIALIZED VIEW seen AS SELECT id, c, m FROM t;"
        " CREATE UNIQUE INDEX ON seen (id)",
    ),
    shape("reindex", Reindex("t"), "REINDEX TABLE t"),
    shape(
        "rename_constraint",
        RenameConstraint("t", "t_pkey", "t_key", assured="no ON CONFLICT names it"),
        "ALTER TABLE t RENAME CONSTRAINT t_pkey TO t_key",
        at=State.RETIRED,
    ),
    shape(
        "replace_foreign_key",
        ReplaceForeignKey(
            "t",
            ["p_id"],
            "p",
            ["id"],
            "t_p_id_fkey",
            on_delete="cascade",
            on_update="cascade",
            deferrable="immediate",
        ),
        "ALTER TABLE t ALTER CONSTRAINT t_p_id_fkey DEFERRABLE",
        at=State.RETIRED,
    ),
    shape(
        "replace_check",
        ReplaceCheck("t", "short", "length(c) < 90"),
        "ALTER TABLE t DROP CONSTRAINT short,"
        " ADD CONSTRAINT short CHECK (length(c) < 90)",
        at=State.RETIRED,
        setup="ALTER TABLE t ADD CONSTRAINT short CHECK (length(c) < 99)",
    ),
    shape(
        "replace_function",
        ReplaceFunction(
            "told(citext)",
            "CREATE OR REPLACE FUNCTION told(citext) RETURNS citext LANGUAGE plpgsql"
            " AS 'BEGIN RETURN concat($1); END'",
        ),
        "CREATE OR REPLACE FUNCTION told(citext) RETURNS citext LANGUAGE plpgsql"
        " AS 'BEGIN RETURN concat($1); END'",
        needs="CREATE FUNCTION told(citext) RETURNS citext LANGUAGE plpgsql"
        " AS 'BEGIN RETURN $1; END'",
        type="citext",
        value="told(('v' || {n})::citext)",
    ),
    shape(
        "replace_index",
        ReplaceIndex("t", "found", ["c", "m"]),
        "DROP INDEX found; CREATE INDEX found ON t (c, m)",
        setup="CREATE INDEX found ON t (c)",
    ),
    shape(
        "replace_view",
        ReplaceView("seen", "SELECT id, p_id, v, c, j, m FROM t"),
        "CREATE OR REPLACE VIEW seen AS SELECT id, p_id, v, c, j, m FROM t",
        old=Side("seen", "v", view=True, also={}),
        new=Side("seen", "v", view=True),
        setup="CREATE VIEW seen AS SELECT id, p_id, v FROM t",
    ),
    shape(
        "set_default",
        SetDefault("t", "v", "'d'"),
        "ALTER TABLE t ALTER v SET DEFAULT 'd'",
        new=DEFAULTED,
    ),
    shape("parameter", SetParameter("work_mem", "8MB")),
]


@pytest.fixture(scope="module")
def place(shared_database: str) -> str:
    """Give a database that all shapes share, each in a schema of its own."""
    prepare(shared_database)
    return shared_database


def test_every_pattern_is_tried() -> None:
    """A pattern that is added to the catalogue has a shape here or there."""
    shapes = [*SHAPES, *test_statements.SHAPES]
    assert {type(s.pattern) for s in shapes} == set(CATALOGUE)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.name)
def test_every_form_of_a_statement(shape: Shape, place: str) -> None:
    """None fails, and what is there is what it is without the change."""
    with placed(place, shape) as sender:
        carry(sender)
