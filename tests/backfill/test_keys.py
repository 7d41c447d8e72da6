"""The order of keys: of every type, in every form, under every name."""

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from migrator.backfill import order
from migrator.change import Change
from migrator.errors import Refused
from migrator.patterns import RenameColumn, SplitColumn
from migrator.plan import ChunkedUpdate, Phase, State
from migrator.runner import Runner
from migrator.settings import Settings

CHANGE = Change(revision="v", pattern=RenameColumn("t", "old", "new"))
LONG = "(SELECT left(string_agg(md5(g::text), ''), 2600) FROM generate_series(1, 99) g)"

KEYS = {
    "text": (
        "id text",
        "('a,b'), ('{}'), (''), ('NULL'), ('null'), ('\"q\"'), ('b\\\\c'), ('é'),"
        " (' x '), (E'a\\nb'), ('%s'), ('$1'), ('{\"a\"}'), ('Z')",
    ),
    "C": ('id text COLLATE "C"', "('b'), ('B'), ('é'), ('_'), ('a'), ('')"),
    "alike": ('id text COLLATE "alike"', "('bob'), ('BOBA'), ('é'), ('_'), ('')"),
    "citext": ("id ext.citext", "('bob'), ('Carl'), ('ann'), ('Bea'), ('ZOE'), ('')"),
    "hstore": ("id ext.hstore", "('a=>1'), ('a=>NULL'), (''), ('b=>\"x,y\"')"),
    "long": (
        "id text",
        f"({LONG} || 'b'), (repeat('x', 9000)), ({LONG})",
    ),
    "char(3)": ("id char(3)", "('a'), (''), ('ab'), ('abc')"),
    "bpchar": ("id bpchar", "('a'), (''), ('ab  '), ('abc')"),
    "identity": ("id int GENERATED ALWAYS AS IDENTITY", "(3), (1), (-2)"),
    "float8": (
        "id float8",
        "('NaN'), ('-Infinity'), ('-0'), (0.3), (0.1::float8 + 0.2), ('Infinity')",
    ),
    "numeric": ("id numeric", "('NaN'), (1.00), (-1.5), ('Infinity'), (1e100)"),
    "bytea": ("id bytea", "(''), ('\\x00'), ('\\xff'), ('\\x5c27')"),
    "bit(3)": ("id bit(3)", "(B'101'), (B'000'), (B'111')"),
    "mood": ("id mood", "('sad'), ('ok'), ('not so sad')"),
    "domain": ("id dom", "('z'), ('a'), ('m x')"),
    "range": ("id int4range", "('[1,2]'), ('empty'), ('(,)'), ('(,3)')"),
    "array": ("id text[]", "('{a,NULL}'), ('{}'), ('{{a,b}}'), ('[3:4]={a,b}')"),
    "composite": ("id pair", "('(1,x)'), ('(2,\"a,b\")'), ('(1,)'), ('(,)')"),
    "inet": ("id inet", "('10.0.0.1'), ('10.0.0.1/8'), ('::1')"),
    "interval": (
        "id interval",
        "('1 mon'), ('-1 mon +1 day'), ('1 day -00:00:01'), ('-1 year -04:05:06')",
    ),
    "timestamptz": (
        "id timestamptz",
        "('infinity'), ('-infinity'), ('0044-03-15 BC'), ('2026-10-25 02:30+02'),"
        " ('2026-10-25 02:30+01'), ('2026-02-01'), ('2026-01-02')",
    ),
    "jsonb": ("id jsonb", "('{\"a\": 1}'), ('[]'), ('null'), ('\"x\"')"),
    "several": (
        '"a ""%s" text, ":x {}" float8, PRIMARY KEY ("a ""%s", ":x {}")',
        "('a', 1), ('a', 'NaN'), ('', '-0'), ('NULL', 2)",
    ),
}
ICU = (
    "CREATE COLLATION alike"
    " (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
)
KEY_TYPES = (
    "CREATE SCHEMA ext; CREATE EXTENSION citext SCHEMA ext;"
    "CREATE EXTENSION hstore SCHEMA ext; CREATE TYPE pair AS (a numeric, b text);"
    "CREATE TYPE mood AS ENUM ('sad', 'ok', 'not so sad');"
    "CREATE DOMAIN dom AS varchar(5) CHECK (value <> 'no')"
)


@pytest.fixture
def by_keys(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """Give an engine that goes by keys, one row a chunk and three a window."""
    monkeypatch.setattr(order.KeyOrder, "first", 1)
    monkeypatch.setattr(order, "MOST_ROWS", 1)
    monkeypatch.setattr(order, "WINDOW_ROWS", 3)
    runner.settings = Settings(hold_s=0, chunking="keys")
    return runner


def keyed(sql: psycopg.Connection, column: str, rows: str) -> None:
    """Create the table with its rows, the key's columns first."""
    key = "" if "PRIMARY KEY" in column else " PRIMARY KEY"
    sql.execute(f"CREATE TABLE t ({column}{key}, old text DEFAULT 'x')".encode())
    sql.execute(f"INSERT INTO t OVERRIDING SYSTEM VALUE VALUES {rows}".encode())


def one(sql: psycopg.Connection, query: str) -> object:
    """Return a query's one value."""
    row = sql.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def gone_over(runner: Runner, sql: psycopg.Connection) -> None:
    """Carry the rename through and back; the backfill does each row, and once."""
    runner.expand(CHANGE)
    runner.backfill("v")
    rows = {s.step.name: s.rows for s in runner.steps("v")}
    assert one(sql, "SELECT count(*) FROM t") == rows["copy_rows"]
    assert one(sql, "SELECT count(*) FROM t WHERE old = new") == rows["copy_rows"]
    runner.verify("v")
    rows = {s.step.name: s.rows for s in runner.steps("v")}
    assert rows["compare_rows"] == 0
    sql.execute("UPDATE t SET new = 'y'")
    runner.retire("v", old_release_gone="test")
    runner.rollback("v", to=State.PLANNED)
    assert one(sql, "SELECT count(*) FROM t WHERE old <> 'y'") == 0


@pytest.mark.parametrize("key", list(KEYS))
def test_keys_of_every_kind(by_keys: Runner, sql: psycopg.Connection, key: str) -> None:
    """Keys travel as text and come back as they were, at every chunk's end."""
    sql.execute(KEY_TYPES.encode())
    if key == "alike":
        try:
            sql.execute(ICU.encode())
        except psycopg.errors.FeatureNotSupported as error:
            pytest.skip(f"the server says: {error}")
    keyed(sql, *KEYS[key])
    gone_over(by_keys, sql)


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("extra_float_digits = 0", "float8"),
        ("datestyle = 'SQL, DMY'", "timestamptz"),
        ("datestyle = 'German'", "timestamptz"),
        ("timezone = 'Europe/Berlin'", "timestamptz"),
        ("intervalstyle = 'sql_standard'", "interval"),
        ("bytea_output = 'escape'", "bytea"),
    ],
)
def test_keys_whatever_the_database_has_set(
    by_keys: Runner, sql: psycopg.Connection, setting: str, key: str
) -> None:
    """How a session writes values as text moves no chunk's end."""
    sql.execute(f"ALTER DATABASE {sql.info.dbname} SET {setting}".encode())
    keyed(sql, *KEYS[key])
    gone_over(by_keys, sql)


UNFIT = {
    "descending": "CREATE UNIQUE INDEX k ON t (id DESC)",
    "NULLs elsewhere": "CREATE UNIQUE INDEX k ON t (id NULLS FIRST)",
    "operator class": "CREATE UNIQUE INDEX k ON t (name text_pattern_ops)",
    "collation": 'CREATE UNIQUE INDEX k ON t (name COLLATE "POSIX")',
    "partial": "CREATE UNIQUE INDEX k ON t (id) WHERE id > 0",
    "expression": "CREATE UNIQUE INDEX k ON t (lower(name))",
    "nullable": "CREATE UNIQUE INDEX k ON t (maybe)",
    "not unique": "CREATE INDEX k ON t (id)",
    "orders of two kinds": "CREATE UNIQUE INDEX k ON t (id, bag)",
}


@pytest.mark.parametrize("why", list(UNFIT))
def test_an_unfit_index_is_not_chosen(
    by_keys: Runner, sql: psycopg.Connection, why: str
) -> None:
    """Alone it is refused; beside a fit one, the fit one is taken."""
    sql.execute(
        "CREATE EXTENSION hstore; CREATE TABLE t (id int NOT NULL, maybe int,"
        ' name text COLLATE "C" NOT NULL, bag hstore NOT NULL, old text)'
    )
    sql.execute(UNFIT[why].encode())
    with pytest.raises(Refused, match="no unique btree index"):
        by_keys.plan(CHANGE)
    sql.execute("CREATE UNIQUE INDEX zzz ON t (name, id) INCLUDE (maybe)")
    fill, *_ = by_keys.plan(CHANGE).steps(Phase.BACKFILL)
    assert isinstance(fill.work, ChunkedUpdate)
    assert fill.work.chunking.reason.startswith('keys of index "zzz": as asked for')


@pytest.mark.parametrize(
    "name",
    ["a b", 'a"b', "it's", "50%s", ":x", "$1", "{}", "a\\b", "é" * 31 + "x", "new"],
)
def test_hostile_names(by_keys: Runner, sql: psycopg.Connection, name: str) -> None:
    """A table, its key and its columns may have any name, up to 63 bytes."""
    table, key, old = Identifier(name), Identifier(name), Identifier(f"{name[:30]}o")
    sql.execute(
        SQL("CREATE TABLE {} ({} text PRIMARY KEY, {} text)").format(table, key, old)
    )
    rows = [("a,b", "x y"), ("", "x "), ("NULL", None), ("{}", " y")]
    for row in rows:
        sql.execute(SQL("INSERT INTO {} VALUES ({}, {})").format(table, *row))
    quoted = old.as_string(sql)
    first, last = f"{name[:30]}1", f"{name[:30]}2"
    into = {
        first: ("text", f"split_part({quoted}, ' ', 1)"),
        last: ("text", f"split_part({quoted}, ' ', 2)"),
    }
    parts = [Identifier(n).as_string(sql) for n in (first, last)]
    pattern = SplitColumn(name, f"{name[:30]}o", into, " || ' ' || ".join(parts))
    by_keys.expand(Change(revision="v", pattern=pattern))
    by_keys.backfill("v")
    by_keys.verify("v")
    steps = {s.step.name: s.rows for s in by_keys.steps("v")}
    assert (steps["compute_rows"], steps["compare_rows"]) == (3, 0)
    read = SQL("SELECT {} || '/' || {} FROM {} WHERE {} = 'a,b'").format(
        Identifier(first), Identifier(last), table, key
    )
    assert sql.execute(read).fetchone() == ("x/y",)
    by_keys.retire("v", old_release_gone="test")
    sql.execute(SQL("UPDATE {} SET {} = 'z'").format(table, Identifier(first)))
    by_keys.rollback("v", to=State.PLANNED)
    read = SQL("SELECT {} FROM {} WHERE {} = 'a,b'").format(old, table, key)
    assert sql.execute(read).fetchone() == ("z y",)
