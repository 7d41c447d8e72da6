"""Every kind of value that a real table has, through a whole life."""

from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest

from migrator import names
from migrator.change import Change
from migrator.names import TableName
from migrator.patterns import RenameColumn
from migrator.plan import State
from migrator.runner import Runner

CHANGE = Change(revision="v", pattern=RenameColumn("t", "old", "new", assured="tried"))
TAG = CHANGE.tag(TableName("public", "t"))
# Sessions of the releases write and read in other forms than the engine's.
OLD_SESSION = "SET timezone = 'Asia/Tokyo'; SET datestyle = 'German'"
NEW_SESSION = "SET timezone = 'America/New_York'; SET extra_float_digits = 0"
ICU = (
    "CREATE COLLATION alike"
    " (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
)
PAIR = "CREATE TYPE pair AS (a numeric, b text)"
MOOD = "CREATE TYPE mood AS ENUM ('sad', 'ok', 'not so sad')"
LONG = "(SELECT string_agg(md5(g::text), '') FROM generate_series(1, 400) g)"


@dataclass(frozen=True)
class Kind:
    """A column's type, values as SQL, and a change of a value's image alone."""

    type: str
    values: tuple[str, ...]
    before: str
    after: str
    setup: str = ""
    #: The type under a domain, in which images can be compared.
    base: str = ""

    def image(self, value: str) -> str:
        """Return a value in the form in which images are compared."""
        return f"ROW({value}::{self.base or self.type})::record"


KINDS = (
    Kind("bpchar", ("'b '", "''"), "'a'", "'a  '"),
    Kind("varchar(5)", ("'NULL'", "' x '"), "''", "' '"),
    Kind('text COLLATE "C"', ("'é'", "E'a\\\\b'"), "'bob'", "'Bob'"),
    Kind("text", (LONG, "repeat('ab', 90000)"), f"{LONG} || 'a'", f"{LONG} || 'A'"),
    Kind("bytea", ("''", "'\\x00ff'", f"{LONG}::bytea"), "'\\x00'", "'\\x0000'"),
    Kind("float4", ("'NaN'", "'-Infinity'"), "0", "'-0'"),
    Kind("numeric", ("'NaN'", "'Infinity'", "1e-40"), "0", "0.000"),
    Kind("int[]", ("'{{1,2},{3,4}}'", "'{1,NULL}'"), "'{1,2}'", "'[3:4]={1,2}'"),
    Kind("numeric[]", ("'{}'", "'{NULL}'", "'{NaN}'"), "'{1.0}'", "'{1.00}'"),
    Kind("pair", ("'(1,)'", "'(,)'"), "'(1.0,x)'", "'(1.00,x)'", PAIR),
    Kind("pair[]", ("'{NULL,\"(,)\"}'",), "'{\"(1.0,)\"}'", "'{\"(1.00,)\"}'", PAIR),
    Kind("numrange", ("'empty'", "'(,)'"), "'[1.0,2)'", "'[1.00,2)'"),
    Kind("nummultirange", ("'{}'",), "'{[1.0,2)}'", "'{[1.00,2)}'"),
    Kind("mood", ("'ok'",), "'sad'", "'not so sad'", MOOD),
    Kind("xml", ("'<a/>'", "'text'"), "'<a></a>'", "'<a ></a>'"),
    Kind("jsonb", ("'null'", "'[]'"), """'{"a": 1.0}'""", """'{"a": 1.00}'"""),
    Kind("date", ("'infinity'", "'0044-03-15 BC'"), "'epoch'", "'-infinity'"),
    Kind("timestamp", ("'infinity'", "'0044-03-15 BC'"), "'epoch'", "'-infinity'"),
    Kind(
        "timestamptz",
        ("'infinity'", "'0044-03-15 12:00+00 BC'"),
        "'epoch'",
        "'-infinity'",
    ),
    Kind("timetz", ("'24:00+01'",), "'10:00+01'", "'09:00+00'"),
    Kind("interval", ("'-1 mon +1 day'",), "'24:00'", "'1 day'"),
    Kind("bit(3)", ("B'000'",), "B'101'", "B'100'"),
    Kind("varbit", ("B''",), "B'1'", "B'10'"),
    Kind("inet", ("'::1'",), "'10.0.0.1'", "'10.0.0.1/8'"),
    Kind("cidr", ("'::1'",), "'10.0.0.0/8'", "'10.0.0.0/9'"),
    Kind("money", ("'-5'",), "'1.00'", "'1.01'"),
    Kind("tsvector", ("''",), "'a b'", "'a:1A b'"),
    Kind('"char"', ("''",), "'a'", "'A'"),
    Kind("name", ("''",), "'a'", "'A'"),
    Kind(
        "hstore",
        ("'a=>NULL'", "''"),
        "'a=>1'",
        "'a=>\"1 \"'",
        "CREATE EXTENSION hstore",
    ),
    Kind("plain", ("''",), "'a'", "'A'", "CREATE DOMAIN plain AS text", "text"),
    Kind(
        "checked",
        ("'NaN'",),
        "1.0",
        "1.00",
        "CREATE DOMAIN over_zero AS numeric"
        " CHECK (value > 0); CREATE DOMAIN checked AS over_zero CHECK (value <> 7)",
        "numeric",
    ),
    Kind(
        "given",
        ("''",),
        "'a'",
        "'A'",
        "CREATE DOMAIN given AS text DEFAULT 'd'",
        "text",
    ),
    Kind(
        "folded",
        ("'x'",),
        "'bob'",
        "'Bob'",
        f'{ICU}; CREATE DOMAIN folded AS varchar(9) COLLATE "alike"',
        'varchar(9) COLLATE "alike"',
    ),
)


def made(sql: psycopg.Connection, *statements: str) -> None:
    """Run statements, or skip where the server was built without their feature."""
    for statement in filter(None, statements):
        try:
            sql.execute(statement.encode())
        except psycopg.errors.FeatureNotSupported as error:
            pytest.skip(f"the server says: {error}")


def one(sql: psycopg.Connection, query: str) -> object:
    """Return a query's one value."""
    row = sql.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def compared(runner: Runner) -> tuple[int, int]:
    """Verify, and return how many rows were out of step, and how many stayed so."""
    runner.verify("v")
    (row,) = (s for s in runner.steps("v") if s.step.name == "compare_rows")
    return row.rows, row.mismatches


@pytest.fixture
def releases(database: str) -> Iterator[tuple[psycopg.Connection, psycopg.Connection]]:
    """Give a session of the old release and one of the new."""
    with (
        psycopg.connect(database, autocommit=True) as old,
        psycopg.connect(database, autocommit=True) as new,
    ):
        old.execute(OLD_SESSION.encode())
        new.execute(NEW_SESSION.encode())
        yield old, new


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.type)
def test_values_keep_their_image(
    runner: Runner,
    sql: psycopg.Connection,
    releases: tuple[psycopg.Connection, psycopg.Connection],
    kind: Kind,
) -> None:
    """At every stop both names hold the same image, whoever wrote what of it."""
    old, new = releases

    def written(conn: psycopg.Connection, column: str, value: str) -> None:
        conn.execute(f"UPDATE t SET {column} = {value} WHERE id = 1".encode())

    def inserted(conn: psycopg.Connection, column: str) -> None:
        for value in (kind.after, *kind.values):
            insert = f"INSERT INTO t (id, {column}) VALUES (0, {value})"
            conn.execute(insert.encode())
            same(value, row=0)
            conn.execute(b"UPDATE t SET id = -1 WHERE id = 0")

    def same(value: str, left: str = "old", right: str = "new", row: int = 1) -> None:
        both = f"{kind.image(left)} OPERATOR(pg_catalog.*=) {kind.image(right)}"
        this = f"{kind.image(left)} OPERATOR(pg_catalog.*=) {kind.image(value)}"
        assert one(sql, f"SELECT {both} AND {this} FROM t WHERE id = {row}")

    def none_apart() -> None:
        apart = f"{kind.image('old')} OPERATOR(pg_catalog.*<>) {kind.image('new')}"
        assert one(sql, f"SELECT count(*) FROM t WHERE {apart}") == 0

    made(sql, kind.setup)
    made(sql, f"CREATE TABLE t (id int, n int DEFAULT 0, old {kind.type})")
    for number, value in enumerate((kind.before, *kind.values, "NULL"), 1):
        made(sql, f"INSERT INTO t (id, old) VALUES ({number}, {value})")
    file = one(sql, "SELECT pg_relation_filenode('t')")
    runner.expand(CHANGE)
    assert one(sql, "SELECT pg_relation_filenode('t')") == file
    inserted(old, "old")
    runner.backfill("v")
    none_apart()
    assert compared(runner) == (0, 0)
    inserted(new, "new")
    for conn, column in ((old, "old"), (new, "new")):
        for value in (kind.after, "NULL", kind.before, kind.after, *kind.values):
            written(conn, column, value)
            same(value)
            conn.execute(b"UPDATE t SET n = n + 1")
            same(value)
    # Two sessions at odds: what the engine itself never lets happen.
    written(old, "old", kind.before)
    sql.execute("ALTER TABLE t DISABLE TRIGGER USER")
    written(old, "old", kind.after)
    sql.execute(f"ALTER TABLE t ENABLE ALWAYS TRIGGER {names.trigger(TAG)}".encode())
    assert compared(runner) == (1, 0)
    same(kind.after)
    none_apart()
    runner.retire("v", old_release_gone="test")
    retired = names.owned("retired", "old", TAG)
    for value in (kind.before, "NULL", kind.after):
        written(new, "new", value)
        same(value, "new", retired)
    assert runner.rollback("v") is State.VERIFIED
    same(kind.after)
    written(old, "old", kind.before)
    same(kind.before)
    assert runner.rollback("v") is State.PLANNED
    same(kind.before, right="old")
