"""Values that are equal and yet not the same: no write of one is lost."""

from dataclasses import dataclass

import psycopg
import pytest

from migrator.change import Change
from migrator.names import TableName
from migrator.patterns import RenameColumn
from migrator.plan import State
from migrator.postgres import catalog
from migrator.postgres.connection import Target, connect
from migrator.runner import Runner

CHANGE = Change(revision="a1", pattern=RenameColumn("t", "old", "new"))


@dataclass(frozen=True)
class Kind:
    """A type, and values of it that are equal but of another image."""

    type: str
    first: str
    second: str
    third: str
    setup: str = ""


KINDS = (
    Kind("citext", "bob", "Bob", "BOB", "CREATE EXTENSION citext"),
    Kind("numeric", "1.0", "1.00", "1"),
    Kind("interval", "1 mon", "30 days", "720:00:00"),
    Kind("json", '{"a":1}', '{"a": 1}', '{"a":  1}'),
    Kind("float8", "0", "-0", "NaN"),
    Kind("point", "(0,0)", "(-0,0)", "(0,-0)"),
    Kind(
        'text COLLATE "alike"',
        "bob",
        "Bob",
        "BOB",
        "CREATE COLLATION alike"
        " (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
    ),
    # `=` compares images here; the same has to hold.
    Kind("text", "bob", "Bob", "BOB"),
    Kind("bpchar(3)", "a", "b", "c"),
)


def made(sql: psycopg.Connection, kind: Kind) -> None:
    """Create the table, or skip where the server cannot."""
    if kind.setup:
        try:
            sql.execute(kind.setup.encode())
        except psycopg.errors.FeatureNotSupported as error:
            pytest.skip(f"the server says: {error}")
    sql.execute(f"CREATE TABLE t (id int, n int DEFAULT 0, old {kind.type})".encode())
    sql.execute("INSERT INTO t (id, old) VALUES (1, %s), (2, NULL)", [kind.first])


def pair(sql: psycopg.Connection, left: str, right: str) -> tuple[str, str]:
    """Return both images of the first row."""
    row = sql.execute(
        f'SELECT {left}::text, "{right}"::text FROM t WHERE id = 1'.encode()
    ).fetchone()
    assert row is not None
    return row[0], row[1]


def image(sql: psycopg.Connection, kind: Kind, value: str) -> str:
    """Return a value as the type prints it."""
    text = f"SELECT (%s::{kind.type})::text"
    row = sql.execute(text.encode(), [value]).fetchone()
    assert row is not None
    return row[0]


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.type)
def test_writes_of_another_image_arrive(
    runner: Runner, sql: psycopg.Connection, kind: Kind
) -> None:
    """An update to an equal value of another image reaches the other side."""
    made(sql, kind)
    first, second, third = (
        image(sql, kind, v) for v in (kind.first, kind.second, kind.third)
    )
    assert len({first, second, third}) == 3
    runner.expand(CHANGE)
    runner.backfill("a1")
    assert pair(sql, "old", "new") == (first, first)
    runner.verify("a1")
    sql.execute("UPDATE t SET old = %s WHERE id = 1", [kind.second])
    assert pair(sql, "old", "new") == (second, second)
    sql.execute("UPDATE t SET new = %s WHERE id = 1", [kind.first])
    assert pair(sql, "old", "new") == (first, first)
    sql.execute("UPDATE t SET new = %s WHERE id = 1", [kind.third])
    assert pair(sql, "old", "new") == (third, third)
    sql.execute("UPDATE t SET new = NULL WHERE id = 1")
    assert pair(sql, "old", "new") == (None, None)
    sql.execute("UPDATE t SET new = %s WHERE id = 1", [kind.first])
    sql.execute("UPDATE t SET n = n + 1")
    assert pair(sql, "old", "new") == (first, first)
    runner.retire("a1", old_release_gone="test")
    tag = CHANGE.tag(TableName("public", "t"))
    retired = f"_migrator_retired_old_{tag}"
    assert pair(sql, "new", retired) == (first, first)
    sql.execute("UPDATE t SET new = %s WHERE id = 1", [kind.second])
    assert pair(sql, "new", retired) == (second, second)
    sql.execute("UPDATE t SET new = NULL WHERE id = 1")
    assert pair(sql, "new", retired) == (None, None)
    sql.execute("UPDATE t SET new = %s WHERE id = 1", [kind.third])
    runner.rollback("a1")
    assert pair(sql, "old", "new") == (third, third)


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.type)
def test_verification_sees_another_image(
    runner: Runner, sql: psycopg.Connection, kind: Kind
) -> None:
    """Sides that are equal but of another image are found and repaired."""
    made(sql, kind)
    runner.expand(CHANGE)
    runner.backfill("a1")
    sql.execute("ALTER TABLE t DISABLE TRIGGER USER")
    sql.execute("UPDATE t SET old = %s WHERE id = 1", [kind.second])
    trigger = sql.execute(
        "SELECT tgname FROM pg_trigger WHERE tgrelid = 't'::regclass"
    ).fetchone()
    assert trigger is not None
    sql.execute(f'ALTER TABLE t ENABLE ALWAYS TRIGGER "{trigger[0]}"'.encode())
    assert pair(sql, "old", "new") != (image(sql, kind, kind.second),) * 2
    assert runner.verify("a1") is State.VERIFIED
    assert pair(sql, "old", "new") == (image(sql, kind, kind.second),) * 2
    (row,) = (s for s in runner.steps("a1") if s.step.name == "compare_rows")
    assert (row.rows, row.mismatches) == (1, 0)


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.type)
def test_an_update_of_another_column_touches_neither(
    runner: Runner, sql: psycopg.Connection, kind: Kind
) -> None:
    """A row in step does not even call the function."""
    made(sql, kind)
    runner.expand(CHANGE)
    runner.backfill("a1")
    runner.verify("a1")
    before = sql.execute("SELECT id, old::text, new::text FROM t").fetchall()
    # The function is the only place that could write; a row that calls it fails.
    function = sql.execute(
        "SELECT tgfoid::regproc::text FROM pg_trigger WHERE tgrelid = 't'::regclass"
    ).fetchone()
    assert function is not None
    sql.execute(
        f"CREATE OR REPLACE FUNCTION {function[0]}() RETURNS trigger LANGUAGE plpgsql"
        " AS 'BEGIN RAISE EXCEPTION ''called''; END'".encode()
    )
    sql.execute("UPDATE t SET n = n + 1")
    after = sql.execute("SELECT id, old::text, new::text FROM t").fetchall()
    assert after == before
    with pytest.raises(psycopg.errors.RaiseException, match="called"):
        sql.execute("UPDATE t SET new = %s WHERE id = 1", [kind.second])


def test_an_explicit_null_arrives(runner: Runner, sql: psycopg.Connection) -> None:
    """An insert of NULL by either name is NULL by both."""
    sql.execute("CREATE TABLE t (id int, old text)")
    runner.expand(CHANGE)
    sql.execute("INSERT INTO t (id, old) VALUES (1, NULL)")
    sql.execute("INSERT INTO t (id, new) VALUES (2, NULL)")
    sql.execute("INSERT INTO t (id, new) VALUES (3, 'x')")
    sql.execute("UPDATE t SET new = NULL WHERE id = 3")
    rows = sql.execute("SELECT old, new FROM t").fetchall()
    assert rows == [(None, None)] * 3


def test_an_explicit_null_loses_to_a_default(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """The one case that the plan announces: it cannot be told from an old insert."""
    sql.execute("CREATE TABLE t (id int, old text DEFAULT 'd')")
    notices = [n.text for n in runner.plan(CHANGE).notices]
    assert any("an explicit NULL inserted by the new release" in n for n in notices)
    runner.expand(CHANGE)
    sql.execute("INSERT INTO t (id, new) VALUES (1, NULL)")
    assert sql.execute("SELECT old, new FROM t").fetchall() == [("d", "d")]


IMAGES = {
    "bigint": True,
    "bool": True,
    "bpchar(3)": True,
    # Without a length blanks at the end are kept, and passed over by `=`.
    "bpchar": False,
    "date": True,
    "int": True,
    "mood": True,
    "text": True,
    'text COLLATE "C"': True,
    "timestamptz": True,
    "uuid": True,
    "varchar(9)": True,
    "citext": False,
    "float4": False,
    "float8": False,
    "interval": False,
    "json": False,
    "jsonb": False,
    "numeric": False,
    "numeric(9, 2)": False,
    "point": False,
    "positive": False,
    "word": True,
    "numeric[]": False,
}


def test_image_equal_is_read_from_the_operator_class(
    database: str, sql: psycopg.Connection
) -> None:
    """What PostgreSQL does not vouch for is compared by its image."""
    wanted = dict(IMAGES)
    try:
        sql.execute("CREATE EXTENSION citext")
    except psycopg.errors.FeatureNotSupported:
        # A server that is packed without its extensions.
        del wanted["citext"]
    sql.execute(
        "CREATE TYPE mood AS ENUM ('good', 'bad');"
        "CREATE DOMAIN positive AS numeric CHECK (value > 0);"
        "CREATE DOMAIN word AS varchar(9)"
    )
    columns = ", ".join(f"c{i} {kind}" for i, kind in enumerate(wanted))
    sql.execute(f"CREATE TABLE t ({columns})".encode())
    with connect(Target.from_url(database), "test") as conn:
        table = catalog.table_facts(conn, TableName("public", "t"))
    found = dict(zip(wanted, (c.image_equal for c in table.columns), strict=True))
    assert found == wanted


def test_elements_of_an_array(sql: psycopg.Connection, database: str) -> None:
    """Their type is told with its length, and whether its `=` compares images."""
    sql.execute(
        "CREATE TYPE mood AS ENUM ('low'); CREATE DOMAIN word AS text;"
        "CREATE TABLE t (plain text, a text[], b varchar(9)[], c mood[], d int[][],"
        " e numeric(5, 2)[], f json[], g bpchar(3)[], h int2vector, i word[],"
        ' j text[] COLLATE "C", k bpchar[])'
    )
    with connect(Target.from_url(database), "migrator:test") as conn:
        found = catalog.table_facts(conn, TableName("public", "t")).columns
    assert [(c.name, c.element) for c in found if not c.element_image_equal] == [
        ("plain", None),
        ("e", "numeric(5,2)"),
        ("f", "json"),
        ("h", None),
        ("i", "public.word"),
        ("k", "bpchar"),
    ]
    assert [(c.name, c.element) for c in found if c.element_image_equal] == [
        ("a", "text"),
        ("b", "character varying(9)"),
        ("c", "public.mood"),
        ("d", "integer"),
        ("g", "character(3)"),
        ("j", "text"),
    ]
