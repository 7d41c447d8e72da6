"""All that hangs on a table is there after a change, and after its way back.

The end of each change is held against plain DDL, run on the same table and taken back.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

import hanging_tables
import psycopg
import pytest
from hanging import (
    BY_NAME,
    BY_NUMBER,
    Shape,
    clear,
    make,
    refuses,
    roles,
    stays,
)
from snapshots import same, snapshot

from migrator.change import Change
from migrator.patterns import (
    CATALOGUE,
    AddCheck,
    AddColumn,
    AddExclusion,
    AddForeignKey,
    AddPrimaryKey,
    AddUnique,
    ChangeColumnType,
    ChangePrimaryKey,
    CreateIndex,
    Custom,
    DropColumn,
    DropConstraint,
    DropDefault,
    DropIndex,
    DropNotNull,
    EvolveJson,
    Key,
    MergeColumns,
    PartitionTable,
    Reindex,
    RenameColumn,
    RenameConstraint,
    ReplaceCheck,
    ReplaceForeignKey,
    ReplaceIndex,
    SetDefault,
    SetNotNull,
    SplitColumn,
    Sql,
    TransformColumn,
)
from migrator.runner import Runner

SHAPES: tuple[Shape, ...] = (
    *hanging_tables.SHAPES,
    Shape(
        name="rename",
        pattern=RenameColumn("people", "name", "full_name", assured="tried"),
        column="name",
        plain="ALTER TABLE people RENAME name TO full_name",
        refused=BY_NAME,
    ),
    Shape(
        name="rename_key",
        pattern=RenameColumn("people", "id", "person", assured="tried"),
        column="id",
        plain="ALTER TABLE people RENAME id TO person",
        refused=BY_NAME,
        without=("publication of columns",),
    ),
    Shape(
        name="rename_reference",
        pattern=RenameColumn("people", "boss", "lead", assured="tried"),
        column="boss",
        plain="ALTER TABLE people RENAME boss TO lead",
        refused=BY_NAME,
        without=("statistics",),
    ),
    Shape(
        name="type",
        pattern=ChangeColumnType("people", "name", "varchar(99)", assured="tried"),
        column="name",
        # Plain DDL would take storage and compression from the new type.
        plain="ALTER TABLE people ALTER name TYPE varchar(99), ALTER name SET DEFAULT"
        " ('nobody'::text)::varchar; ALTER TABLE people ALTER name SET STORAGE"
        " EXTERNAL, ALTER name SET COMPRESSION pglz",
        refused=BY_NAME | BY_NUMBER,
    ),
    Shape(
        name="wider_key",
        pattern=ChangePrimaryKey("people", "id", assured="tried"),
        column="id",
        plain="ALTER TABLE people ALTER id TYPE bigint, ALTER boss TYPE bigint;"
        " ALTER TABLE orders ALTER person TYPE bigint;"
        " ALTER TABLE notes ALTER person TYPE bigint",
        refused=BY_NAME
        | BY_NUMBER
        | {"replica identity": "is the table's replica identity"},
        without=("publication of columns",),
    ),
    Shape(
        name="add",
        pattern=AddColumn("people", "more", "text", default="'x'", assured="tried"),
        column="name",
        plain="ALTER TABLE people ADD more text DEFAULT 'x'",
        refused={},
    ),
    Shape(
        name="drop",
        pattern=DropColumn("people", "select", assured="tried"),
        column='"select"',
        plain='ALTER TABLE people DROP "select"',
        refused=BY_NAME | BY_NUMBER,
    ),
    Shape(
        name="set_not_null",
        pattern=SetNotNull("people", "town", fill="1", assured="tried"),
        column="town",
        plain="ALTER TABLE people ALTER town SET NOT NULL",
        refused={},
    ),
    Shape(
        name="drop_not_null",
        pattern=DropNotNull("people", "name", assured="tried"),
        column="name",
        plain="ALTER TABLE people ALTER name DROP NOT NULL",
        refused={},
    ),
    Shape(
        name="default",
        pattern=SetDefault("people", "name", "'x'", assured="tried"),
        column="name",
        plain="ALTER TABLE people ALTER name SET DEFAULT 'x'",
        refused={},
    ),
    Shape(
        name="check",
        pattern=AddCheck("people", "lasting", "name <> 'x'", assured="tried"),
        column="name",
        plain="ALTER TABLE people ADD CONSTRAINT lasting CHECK (name <> 'x')",
        refused={},
    ),
    Shape(
        name="foreign_key",
        pattern=AddForeignKey(
            "people",
            ["select"],
            "towns",
            ["id"],
            "chosen",
            index=False,
            on_delete="cascade",
            deferrable="deferred",
            assured="tried",
        ),
        column='"select"',
        plain='ALTER TABLE people ADD CONSTRAINT chosen FOREIGN KEY ("select")'
        " REFERENCES towns (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED",
        refused={},
    ),
    Shape(
        name="index",
        pattern=CreateIndex("people", ["town"], "people_town", assured="tried"),
        column="name",
        plain="CREATE INDEX people_town ON people (town)",
        refused={},
    ),
    Shape(
        name="split_column",
        pattern=SplitColumn(
            "people",
            "name",
            {"head": ("text", "left(name, 1)"), "rest": ("text", "substr(name, 2)")},
            "head || rest",
            assured="tried",
        ),
        column="name",
        plain="ALTER TABLE people ADD head text, ADD rest text, DROP name;"
        " GRANT SELECT (head, rest), UPDATE (head, rest) ON people TO {r}",
        refused=BY_NAME | BY_NUMBER,
    ),
    Shape(
        name="transform",
        pattern=TransformColumn(
            "people",
            "name",
            "loud_name",
            "text",
            "upper(name)",
            "lower(loud_name)",
            default="'NOBODY'",
            assured="tried",
        ),
        column="name",
        plain="ALTER TABLE people RENAME name TO loud_name; ALTER TABLE people"
        " ALTER loud_name SET DEFAULT 'NOBODY', DROP CONSTRAINT named, DROP CONSTRAINT"
        " called; CREATE INDEX called ON people (loud_name, number) WITH"
        " (fillfactor = 61) TABLESPACE {r}_space",
        refused=BY_NAME | BY_NUMBER,
    ),
    Shape(
        name="transform_kept",
        pattern=TransformColumn(
            "people",
            "name",
            "loud_name",
            "text",
            "upper(name)",
            "lower(loud_name)",
            keep=["called", "named"],
            default="'NOBODY'",
            assured="tried",
        ),
        column="name",
        plain="ALTER TABLE people RENAME name TO loud_name;"
        " ALTER TABLE people ALTER loud_name SET DEFAULT 'NOBODY'",
        refused={},
        without=(*BY_NAME, *BY_NUMBER),
    ),
    Shape(
        name="unique",
        pattern=AddUnique("people", ["number"], "numbered", assured="tried"),
        column="name",
        plain="ALTER TABLE people ADD CONSTRAINT numbered UNIQUE (number)",
        refused={},
    ),
    Shape(
        name="drop_reference",
        pattern=DropConstraint("people", "home", assured="tried"),
        column="name",
        plain="ALTER TABLE people DROP CONSTRAINT home",
        refused={},
    ),
    Shape(
        name="drop_unique",
        pattern=DropConstraint("people", "called", assured="tried"),
        column="name",
        plain="ALTER TABLE people DROP CONSTRAINT called",
        refused={},
    ),
    Shape(
        name="rename_constraint",
        pattern=RenameConstraint("people", "called", "named_once", assured="tried"),
        column="name",
        plain="ALTER TABLE people RENAME CONSTRAINT called TO named_once",
        refused={},
    ),
    Shape(
        name="replace_foreign_key",
        pattern=ReplaceForeignKey(
            "people",
            ["town"],
            "towns",
            ["id"],
            "home",
            on_delete="cascade",
            assured="tried",
        ),
        column="name",
        plain="ALTER TABLE people DROP CONSTRAINT home, ADD CONSTRAINT home FOREIGN KEY"
        " (town) REFERENCES towns ON DELETE CASCADE;"
        " COMMENT ON CONSTRAINT home ON people IS 'where'",
        refused={},
    ),
    Shape(
        name="replace_check",
        pattern=ReplaceCheck("people", "aged", "id < 1000000", assured="tried"),
        column="name",
        plain="ALTER TABLE people DROP CONSTRAINT aged,"
        " ADD CONSTRAINT aged CHECK (id < 1000000)",
        refused={},
        before="ALTER TABLE people ADD CONSTRAINT aged CHECK (id < 2000000)",
    ),
    Shape(
        name="drop_index",
        pattern=DropIndex("people", "people_name", assured="tried"),
        column="name",
        plain="DROP INDEX people_name",
        refused={},
    ),
    Shape(
        name="reindex",
        pattern=Reindex("people", "people_name", assured="tried"),
        column="name",
        plain="",
        refused={},
    ),
    Shape(
        name="drop_default",
        pattern=DropDefault("people", "name", assured="tried"),
        column="name",
        plain="ALTER TABLE people ALTER name DROP DEFAULT",
        refused={},
    ),
    Shape(
        name="primary_key",
        pattern=AddPrimaryKey("people", ["id"], "people_key", assured="tried"),
        column="name",
        plain="ALTER TABLE people ADD CONSTRAINT people_key PRIMARY KEY (id)",
        refused={},
        before="ALTER TABLE people DROP CONSTRAINT one CASCADE, ADD CONSTRAINT one"
        " UNIQUE (id); ALTER TABLE people ADD CONSTRAINT chain FOREIGN KEY (boss)"
        " REFERENCES people (id) DEFERRABLE; ALTER TABLE orders ADD CONSTRAINT whose"
        " FOREIGN KEY (person) REFERENCES people (id)",
    ),
    Shape(
        name="exclusion",
        pattern=AddExclusion(
            "people",
            [(Key(expression="int4range(id, id + 1)"), "&&")],
            "apart",
            assured="tried",
        ),
        column="name",
        plain="ALTER TABLE people ADD CONSTRAINT apart EXCLUDE USING gist"
        " (int4range(id, id + 1) WITH &&)",
        refused={},
    ),
    Shape(
        name="replace_index",
        pattern=ReplaceIndex(
            "people", "people_name", ["name", "town"], assured="tried"
        ),
        column="name",
        plain="DROP INDEX people_name; CREATE INDEX people_name ON people (name, town)"
        " TABLESPACE {r}_space; COMMENT ON INDEX people_name IS 'by name';"
        " ALTER TABLE people CLUSTER ON people_name",
        refused={},
        before="CREATE INDEX people_name ON people (name) TABLESPACE {r}_space;"
        " COMMENT ON INDEX people_name IS 'by name';"
        " ALTER TABLE people CLUSTER ON people_name",
        without=("index", "cluster"),
    ),
    Shape(
        name="merge_columns",
        pattern=MergeColumns(
            "people",
            ["name", "select"],
            "whole",
            "text",
            "name || '/' || coalesce(\"select\"::text, '')",
            {
                "name": "split_part(whole, '/', 1)",
                "select": "nullif(split_part(whole, '/', 2), '')::int",
            },
            assured="tried",
        ),
        column="name",
        plain='ALTER TABLE people ADD whole text, DROP name, DROP "select"',
        refused=BY_NAME | BY_NUMBER,
    ),
    Shape(
        name="documents",
        pattern=EvolveJson(
            "people",
            "doc",
            "doc_2",
            rename={"a": "b"},
            add={"c": "1"},
            default='\'{"b": 1, "c": 1}\'',
            assured="tried",
        ),
        column="doc",
        plain="ALTER TABLE people RENAME doc TO doc_2;"
        ' ALTER TABLE people ALTER doc_2 SET DEFAULT \'{"b": 1, "c": 1}\';'
        " ALTER TABLE people DROP CONSTRAINT called; CREATE INDEX called ON people"
        " (doc_2, number) WITH (fillfactor = 61) TABLESPACE {r}_space",
        refused=BY_NAME | BY_NUMBER,
        before="ALTER TABLE people ADD doc jsonb NOT NULL DEFAULT '{\"a\": 1}'",
    ),
    Shape(
        name="custom",
        pattern=Custom(
            "people",
            "pages with room",
            at_expand=[
                Sql(
                    "ALTER TABLE people SET (parallel_workers = 2)",
                    reverse="ALTER TABLE people RESET (parallel_workers)",
                    lock="SHARE UPDATE EXCLUSIVE",
                )
            ],
        ),
        column="name",
        plain="ALTER TABLE people SET (parallel_workers = 2)",
        refused={},
    ),
)


@pytest.fixture(scope="module")
def role(shared_database: str) -> Iterator[str]:
    """Give a role; the one that owns the table is called after it."""
    with roles(shared_database) as name:
        yield name


@pytest.fixture
def database(shared_database: str) -> str:
    """Give the module's database, as if new."""
    with psycopg.connect(shared_database, autocommit=True) as sql:
        clear(sql)
    return shared_database


#: What is no table's, each with the tests that compare what it leaves.
APART = {
    "CreateTable": "tests/patterns/test_create_table.py",
    "RefreshMaterializedView": "tests/patterns/test_refresh_materialized_view.py",
    "ReplaceFunction": "tests/patterns/test_replace_function.py",
    "ReplaceView": "tests/patterns/test_replace_view.py",
    "SetParameter": "tests/patterns/test_set_parameter.py",
}


def test_every_pattern_is_compared() -> None:
    """A pattern that is added to the catalogue has a shape, or another test."""
    found = {type(s.pattern).__name__ for s in SHAPES}
    assert found.isdisjoint(APART)
    assert found | {*APART} == {p.__name__ for p in CATALOGUE}


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.name)
def test_what_hangs_on_a_table_stays(
    shape: Shape, runner: Runner, sql: psycopg.Connection, role: str
) -> None:
    """The way back from retired leaves what was there, the end is that of plain DDL."""
    stays(shape, runner, sql, role)


@pytest.mark.parametrize(
    "shape", [s for s in SHAPES if s.refused], ids=lambda s: s.name
)
def test_what_cannot_stay_is_named(
    shape: Shape, runner: Runner, sql: psycopg.Connection, role: str
) -> None:
    """What a change could not keep is refused by its name, before anything is done."""
    refuses(shape, runner, sql, role)


#: What an owner may do with a table: MAINTAIN came with 17, as did this test.
ALL = "arwdDxtm"


def test_what_hangs_on_a_table_is_on_the_partitioned_one(
    runner: Runner, sql: psycopg.Connection, role: str
) -> None:
    """It is there, but for what a table without rows cannot have; and so back again."""
    (shape,) = (s for s in SHAPES if s.name == "partition")
    make(sql, shape, role)

    def whole() -> dict[str, str]:
        return {
            name: like.replace(" ON ONLY ", " ON ")
            for name, like in snapshot(sql).items()
            if not {"people_low", "people_rest"} & {*re.split(r"\W", name)}
            # The parts' indexes have names of the server's.
            and not re.match(r"(index|partition) public\.people_(low|rest)_", name)
        }

    before = whole()
    # Of an index of a partitioned table there is no such mark.
    order = before["index public.people_order"]
    before["index public.people_order"] = order.replace("True, None", "False, None")
    assert isinstance(shape.pattern, PartitionTable)
    pattern = replace(shape.pattern, old_key=["id"])
    runner.complete(Change(revision="a1", pattern=pattern))
    after = whole()
    kind, *like = after["relation public.people"].split(", ")
    # Its parts have the storage options.
    assert (kind, *like[3:5]) == ("p", "None", "None")
    like[3:5] = [f"{role}_method", "['fillfactor=80', 'autovacuum_enabled=off']"]
    after["relation public.people"] = ", ".join(("r", *like))
    same(after, before)
    parts = sql.execute(
        "SELECT relname, pg_get_userbyid(relowner), reloptions, spcname, amname,"
        " relacl::text[] FROM pg_class c JOIN pg_tablespace s ON s.oid = reltablespace"
        " JOIN pg_am m ON m.oid = relam"
        " WHERE relispartition AND relkind = 'r' ORDER BY 1"
    ).fetchall()
    options = ["fillfactor=80", "autovacuum_enabled=off"]
    owner = f"{role}_owner"
    like = [
        owner,
        options,
        f"{role}_space",
        f"{role}_method",
        [f"{owner}={ALL}/{owner}"],
    ]
    assert parts == [(name, *like) for name in ("people_low", "people_rest")]
    runner.rebuild(Change(revision="a1", pattern=pattern))
    same(whole(), before)
