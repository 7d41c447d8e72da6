"""What old columns are held to, and new ones only where the pattern says so."""

import psycopg
import pytest
from snapshots import same, snapshot
from test_interleavings import CrashError, crash_at, fresh, go

from migrator.change import Change
from migrator.errors import Failed, NotThere, Refused
from migrator.pattern import Pattern
from migrator.patterns import MergeColumns, SplitColumn, TransformColumn
from migrator.plan import State
from migrator.runner import Runner

FORWARD = ("expand", "backfill", "verify", "retire")
SETUP = """
CREATE TABLE towns (name text PRIMARY KEY);
INSERT INTO towns SELECT 'n' || g || ' x' FROM generate_series(1, 200) g;
INSERT INTO towns VALUES ('name');
CREATE TABLE t (
  id int PRIMARY KEY, name text NOT NULL, rest text, n int,
  CONSTRAINT once UNIQUE (name) DEFERRABLE,
  CONSTRAINT both_ UNIQUE NULLS NOT DISTINCT (rest, name),
  CONSTRAINT named CHECK (name <> 'name' AND name <> coalesce(rest, '')),
  CONSTRAINT late CHECK (name <> 'late') NOT VALID,
  CONSTRAINT home FOREIGN KEY (name) REFERENCES towns
    ON UPDATE CASCADE ON DELETE CASCADE
);
CREATE UNIQUE INDEX loud ON t (upper(name), n) WHERE n > 0;
CREATE INDEX plain ON t (name, n);
COMMENT ON CONSTRAINT once ON t IS 'once';
COMMENT ON CONSTRAINT named ON t IS 'named';
COMMENT ON INDEX loud IS 'loud';
INSERT INTO t SELECT g, 'n' || g || ' x', 'r' || g, g FROM generate_series(1, 99) g;
"""
#: One of each pattern that makes values of old columns anew.
PATTERNS: tuple[Pattern, ...] = (
    SplitColumn(
        "t",
        "name",
        {"a": ("text", "split_part(name, ' ', 1)"), "b": ("text", "substr(name, 4)")},
        "a || ' x'",
        assured="tried",
    ),
    MergeColumns(
        "t",
        ["name", "rest"],
        "whole",
        "text",
        "name || '/' || coalesce(rest, '')",
        {
            "name": "split_part(whole, '/', 1)",
            "rest": "nullif(split_part(whole, '/', 2), '')",
        },
        assured="tried",
    ),
    TransformColumn(
        "t", "name", "m", "text", "upper(name)", "lower(m)", assured="tried"
    ),
)
TRANSFORM = PATTERNS[-1]
#: Statements that each of what the old columns are held to refuses.
REFUSED = (
    ("name = 'name'", psycopg.errors.CheckViolation),
    ("name = 'late'", psycopg.errors.CheckViolation),
    ("name = 'n8 x'", psycopg.errors.UniqueViolation),
    ("name = 'n999 x'", psycopg.errors.ForeignKeyViolation),
)


def change(pattern: Pattern) -> Change:
    """Return the change."""
    return Change(revision="a1", pattern=pattern)


def carry(url: str, given: Change, *steps: str) -> None:
    """Run commands one after the other."""
    for step in steps:
        go(url, given, step)


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda p: type(p).__name__)
def test_it_binds_until_retire_and_comes_back(
    database: str, sql: psycopg.Connection, pattern: Pattern
) -> None:
    """In each state up to retire, and by the way back as it was."""
    sql.execute(SETUP.encode())
    before = snapshot(sql)
    given = change(pattern)
    for number in range(1, len(FORWARD) + 1):
        carry(database, given, *FORWARD[:number])
        if number == len(FORWARD):
            go(database, given, "rollback")
        for value, error in REFUSED:
            with pytest.raises(error):
                sql.execute(f"UPDATE t SET {value} WHERE id = 7".encode())
        sql.execute("UPDATE towns SET name = 'n900 x' WHERE name = 'n9 x'")
        sql.execute("UPDATE towns SET name = 'n9 x' WHERE name = 'n900 x'")
        fresh(database).rollback("a1", to=State.PLANNED)
        fresh(database).drop_parked("a1", at_once=True)
        same(snapshot(sql), before)


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda p: type(p).__name__)
def test_crashes_at_every_status(
    database: str, sql: psycopg.Connection, pattern: Pattern
) -> None:
    """Retire and its way back are taken up where they died."""
    sql.execute(SETUP.encode())
    before = snapshot(sql)
    given = change(pattern)
    carry(database, given, *FORWARD[:3])
    for step in ("retire", "rollback"):
        crashes = 0
        while True:
            try:
                # One further each time, in case a status is what is gone back to.
                with crash_at("set_status", crashes):
                    go(database, given, step)
                break
            except CrashError:
                crashes += 1
        assert crashes > 1
    fresh(database).rollback("a1", to=State.PLANNED)
    fresh(database).drop_parked("a1", at_once=True)
    same(snapshot(sql), before)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("(500, 'NAME')", 'violates the constraint "named"'),
        ("(500, 'NOWHERE X')", 'violates the constraint "home"'),
        ("(500, 'N7 X')", "rows have the same key"),
    ],
)
def test_rows_that_violate_it_hold_the_way_back(
    database: str, sql: psycopg.Connection, rows: str, words: str
) -> None:
    """From retire on the new release may store them; the change can go on."""
    sql.execute(SETUP.encode())
    given = change(TRANSFORM)
    carry(database, given, *FORWARD)
    sql.execute(f"INSERT INTO t (id, m) VALUES {rows}".encode())
    with pytest.raises((Refused, Failed), match=words):
        go(database, given, "rollback")
    assert fresh(database).change("a1").going_back is None
    assert "_like_" not in "".join(snapshot(sql))
    sql.execute("DELETE FROM t WHERE id = 500")
    go(database, given, "rollback")
    with pytest.raises(psycopg.errors.IntegrityError):
        sql.execute(f"INSERT INTO t (id, m) VALUES {rows}".encode())


@pytest.mark.parametrize(
    ("pattern", "taken", "name"),
    [
        (TRANSFORM, "ALTER TABLE t ADD CONSTRAINT named CHECK (m <> 'NAME')", "named"),
        (TRANSFORM, "ALTER TABLE t ADD CONSTRAINT once CHECK (id > 0)", "once"),
        (TRANSFORM, "DROP INDEX once; CREATE UNIQUE INDEX once ON t (m)", "once"),
        (TRANSFORM, "DROP INDEX once; CREATE INDEX once ON towns (name)", "once"),
        (PATTERNS[0], "CREATE INDEX loud ON t (a)", "loud"),
        (PATTERNS[1], "ALTER TABLE t ADD CONSTRAINT home CHECK (id > 0)", "home"),
    ],
)
def test_what_takes_its_name_meanwhile(
    database: str, sql: psycopg.Connection, pattern: Pattern, taken: str, name: str
) -> None:
    """It holds the way back by its name, and is not taken for what was lifted."""
    sql.execute(SETUP.encode())
    given = change(pattern)
    carry(database, given, *FORWARD)
    sql.execute(taken.encode())
    with pytest.raises(Refused, match=f"since retire began: {name}\\."):
        go(database, given, "rollback")
    assert fresh(database).change("a1").going_back is None
    go(database, given, "drop")


def test_a_plain_index_is_left(database: str, sql: psycopg.Connection) -> None:
    """Queries of the heir go on finding one; nothing holds a row to it."""
    sql.execute(SETUP.encode())
    carry(database, change(TRANSFORM), *FORWARD, "drop")
    found = sql.execute(
        "SELECT relname::text, indisunique FROM pg_index JOIN pg_class ON"
        " pg_class.oid = indexrelid WHERE indrelid = 't'::regclass ORDER BY 1"
    ).fetchall()
    assert found == [
        ("both_", False),
        ("loud", False),
        ("once", False),
        ("plain", False),
        ("t_pkey", True),
    ]


def test_what_is_kept(database: str, sql: psycopg.Connection) -> None:
    """It binds the new column from retire on, and is proved before."""
    sql.execute(SETUP.encode())
    pattern = TransformColumn(
        "t",
        "name",
        "m",
        "text",
        "upper(name)",
        "lower(m)",
        keep=["once", "named", "loud"],
        assured="tried",
    )
    given = change(pattern)
    carry(database, given, *FORWARD[:3])
    sql.execute(
        "INSERT INTO towns VALUES ('N7 x');"
        "INSERT INTO t (id, name) VALUES (7000, 'N7 x')"
    )
    with pytest.raises(Failed, match="rows have the same key"):
        go(database, given, "retire")
    sql.execute("DELETE FROM t WHERE id = 7000")
    carry(database, given, "retire", "drop")
    for value, error in (
        ("'N8 X'", psycopg.errors.UniqueViolation),
        ("'name'", psycopg.errors.CheckViolation),
    ):
        with pytest.raises(error):
            sql.execute(f"UPDATE t SET m = {value} WHERE id = 7".encode())
    sql.execute("UPDATE t SET m = 'late' WHERE id = 7")


def test_what_is_kept_has_to_be_there(runner: Runner, sql: psycopg.Connection) -> None:
    """A name that the column is not in is a mistake."""
    sql.execute(SETUP.encode())
    pattern = TransformColumn(
        "t", "name", "m", "text", "name", "m", keep=["t_pkey"], assured="tried"
    )
    with pytest.raises(NotThere, match='unique index "t_pkey"'):
        runner.plan(change(pattern))
