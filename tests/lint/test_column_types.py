"""What a change of type does, as it is said and as the server does it."""

import psycopg
import pytest

from migrator.lint.rule import Work
from migrator.lint.types import Effect, SqlType, effect, in_dialect, loses, parsed
from tests.lint import trials

SPELT = {
    "INT4": SqlType("integer"),
    "character varying(10)": SqlType("varchar", ("10",)),
    'varchar (10) COLLATE "C"': SqlType("varchar", ("10",)),
    "char": SqlType("char", ("1",)),
    "bpchar": SqlType("bpchar"),
    "bpchar(5)": SqlType("char", ("5",)),
    "numeric(8)": SqlType("numeric", ("8", "0")),
    "Decimal(8, 2)": SqlType("numeric", ("8", "2")),
    "timestamp(3) with time zone": SqlType("timestamptz", ("3",)),
    "timestamp": SqlType("timestamp", ("6",)),
    "FLOAT(24)": SqlType("float4"),
    "double precision": SqlType("float8"),
    "interval day to second(3)": SqlType("interval", ("day to second", "3")),
    "integer ARRAY": SqlType("integer", array=True),
    "text[][3]": SqlType("text", array=True),
    "pg_catalog.int8": SqlType("bigint"),
    "BIGSERIAL": SqlType("bigint"),
    'app."Mood"': SqlType('app."Mood"', known=False),
    "mood": SqlType("mood", known=False),
}


@pytest.mark.parametrize("text", SPELT)
def test_a_type_is_known_under_each_name(text: str) -> None:
    """Aliases, limits, arrays and collations are taken apart."""
    assert parsed(text) == SPELT[text]


IN_DIALECT = {
    "int4": "INTEGER",
    "pg_catalog.int8": "BIGINT",
    "serial4": "SERIAL",
    "character varying(10)": "VARCHAR(10)",
    "decimal(8,2)": "NUMERIC(8, 2)",
    "timestamptz(3)": "TIMESTAMP(3) WITH TIME ZONE",
    "time": "TIME WITHOUT TIME ZONE",
    "float": "DOUBLE PRECISION",
    "float(24)": "float(24)",
    "text ARRAY[3]": "TEXT[]",
    "macaddr": "MACADDR",
    "citext": "CITEXT",
    "char": "CHAR",
    "bpchar": "BPCHAR",
    "bpchar(5)": "CHAR(5)",
    "mood": "mood",
}


@pytest.mark.parametrize("text", IN_DIALECT)
def test_a_type_is_spelt_as_sqlalchemy_does(text: str) -> None:
    """Rules meet one word for each type, whether SQL or an operation names it."""
    assert in_dialect(text) == IN_DIALECT[text]


#: From and to; what the server does is not said here, but seen.
CASTS = """
smallint > integer
integer > bigint
integer > numeric
integer > text
bigint > integer
integer > oid
varchar(10) > varchar(20)
varchar(20) > varchar(10)
varchar(10) > varchar
varchar > varchar(20)
varchar(10) > text
char(10) > bpchar
bpchar(10) > char(10)
bpchar > char(10)
bpchar > char
bpchar > varchar
bpchar > text
text > bpchar
varchar(10) > bpchar
text > varchar
text > varchar(20)
varchar(10) > char(10)
char(10) > char(20)
char(10) > varchar(10)
char(10) > text
numeric(8, 2) > numeric(10, 2)
numeric(10, 2) > numeric(8, 2)
numeric(8, 2) > numeric(10, 3)
numeric(8, 2) > numeric
numeric > numeric(8, 2)
numeric(8) > numeric(10)
timestamp(3) > timestamp(6)
timestamp(3) > timestamp
timestamp > timestamp(3)
timestamp > timestamptz
timestamp(3) > timestamptz
timestamp > timestamptz(3)
timestamptz > timestamp
timestamptz > date
date > timestamp
time(3) > time
time > time(3)
time > timetz
interval(3) > interval
interval > interval(3)
interval day > interval hour
interval hour > interval day
interval day to second(3) > interval
interval > interval second(3)
interval year to month > interval day
bit(8) > bit(16)
bit(8) > varbit
bit(8) > varbit(16)
bit(8) > varbit(4)
varbit(8) > varbit(16)
varbit(16) > varbit(8)
varbit > varbit(8)
cidr > inet
inet > cidr
json > jsonb
jsonb > json
json > text
uuid > text
real > double precision
text[] > varchar[]
varchar(10)[] > varchar(20)[]
varchar(10)[] > text[]
boolean > integer
boolean > text
name > text
""".strip().splitlines()

#: Values that both types of a pair have.
VALUES = {
    "bit": "'10101010'",
    "boolean": "true",
    "cidr": "'10.0.0.0/8'",
    "date": "'2026-01-01'",
    "inet": "'10.0.0.0/8'",
    "interval": "'1 day'",
    "json": "'{}'",
    "jsonb": "'{}'",
    "time": "'10:00'",
    "timestamp": "'2026-01-01 10:00'",
    "timestamptz": "'2026-01-01 10:00+00'",
    "uuid": "'00000000-0000-0000-0000-000000000000'",
    "varbit": "'1010'",
    "text[]": "'{1}'",
    "varchar[]": "'{1}'",
}


def _seen(sql: psycopg.Connection, old: str, new: str) -> Effect:
    """Return what the server does to rows and an index."""
    known = parsed(old)
    value = VALUES.get(known.name + "[]" * known.array, "'1'")
    sql.execute("DROP TABLE IF EXISTS c")
    sql.execute(f"CREATE TABLE c (v {old})".encode())
    sql.execute(f"INSERT INTO c SELECT {value} FROM generate_series(1, 9)".encode())
    if "json" not in (known.name, parsed(new).name):
        sql.execute("CREATE INDEX ON c (v)")
    done = trials.run(sql, f"ALTER TABLE c ALTER v TYPE {new} USING v::{new}", "c").work
    return {
        Work.CATALOGUE: Effect.NONE,
        Work.BUILD: Effect.INDEXES,
        Work.REWRITE: Effect.REWRITE,
    }[done]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Paris"])
def test_the_server_agrees_on_each_cast(sql: psycopg.Connection, zone: str) -> None:
    """What is said of a pair of types is what the server does to a table."""
    sql.execute(f"SET timezone = '{zone}'".encode())
    said, seen = {}, {}
    for line in CASTS:
        old, _, new = line.partition(" > ")
        said[line] = effect(parsed(old), parsed(new), utc=zone == "UTC")
        seen[line] = _seen(sql, old, new)
    assert said == seen


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("integer > bigint", False),
        ("bigint > integer", True),
        ("varchar(10) > text", False),
        ("varchar(10) > varchar(5)", True),
        ("text > integer", True),
        ("numeric(8, 2) > numeric(8, 1)", True),
        ("integer > text", False),
        ("text > varchar(5)", True),
        ("mood > text", False),
        ("text > mood", True),
        ("char(5) > bpchar", False),
        ("bpchar > char", True),
        ("text > bpchar", True),
        ("integer[] > integer", True),
    ],
)
def test_a_cast_that_may_lose_is_known(line: str, expected: bool) -> None:
    """Values that the new type may refuse or change are a person's business."""
    old, _, new = line.partition(" > ")
    assert loses(parsed(old), parsed(new)) is expected
