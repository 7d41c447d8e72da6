"""Two shapes that lose detail each way: neither side overwrites the other's."""

from dataclasses import replace

import psycopg
import pytest
from snapshots import held, snapshot

from migrator.change import Change
from migrator.errors import Failed, Refused
from migrator.names import TableName
from migrator.patterns import SplitColumn
from migrator.plan import State
from migrator.runner import Runner

SPLIT = SplitColumn(
    "people",
    "name",
    into={
        "first": ("text", "split_part(name, ' ', 1)"),
        "last": ("varchar(12)", "substr(name, strpos(name, ' ') + 1)"),
    },
    back="first || ' ' || last",
    type="text",
)
CHANGE = Change(revision="s1", pattern=SPLIT)
RETIRED = f"_migrator_retired_name_{CHANGE.tag(TableName('public', 'people'))}"
MARK = f"_migrator_mark_no_counterpart_{CHANGE.tag(TableName('public', 'people'))}"


@pytest.fixture(autouse=True)
def _people(sql: psycopg.Connection) -> None:
    sql.execute(
        "CREATE TABLE people (id int PRIMARY KEY, n int DEFAULT 0, name text NOT NULL);"
        "INSERT INTO people VALUES (1, 0, 'Anna Maria Smith'), (2, 0, 'Bob Jones')"
    )


def verified(runner: Runner) -> None:
    """Carry the change to where both releases work."""
    runner.expand(CHANGE)
    runner.backfill("s1")
    assert runner.verify("s1") is State.VERIFIED


def row(sql: psycopg.Connection, key: int = 1) -> tuple[str, str, str]:
    """Return both shapes of a row."""
    found = sql.execute(
        "SELECT name, first, last FROM people WHERE id = %s", [key]
    ).fetchone()
    assert found is not None
    return found


def test_the_side_with_more_detail_keeps_it(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """An echo of the other side never overwrites a split that a person chose."""
    verified(runner)
    assert row(sql) == ("Anna Maria Smith", "Anna", "Maria Smith")
    sql.execute("UPDATE people SET first = 'Anna Maria', last = 'Smith' WHERE id = 1")
    assert row(sql) == ("Anna Maria Smith", "Anna Maria", "Smith")
    sql.execute("UPDATE people SET n = n + 1")
    sql.execute("UPDATE people SET name = name")
    runner.verify("s1")
    assert row(sql) == ("Anna Maria Smith", "Anna Maria", "Smith")
    sql.execute("UPDATE people SET name = 'Anna Lee' WHERE id = 1")
    assert row(sql) == ("Anna Lee", "Anna", "Lee")


def test_the_plan_says_what_goes_along(runner: Runner, sql: psycopg.Connection) -> None:
    """An index over a column that stays would go unnoticed with the one that goes."""
    sql.execute("CREATE INDEX counted ON people (n, name)")
    told = [notice.text for notice in runner.plan(CHANGE).notices]
    assert 'With column "name" go, at the drop: index "counted".' in told


def test_the_plan_says_what_does_not_come_back(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Rows of a sample that lose detail there and back are told in a note."""
    lost = "Taken there and back, 1 of 3 rows of a sample lost detail."
    sql.execute("INSERT INTO people VALUES (3, 0, 'Maria de la Cruz')")
    assert not any("lost" in n.text for n in runner.plan(CHANGE).notices)
    into = {**SPLIT.into, "last": ("text", "split_part(name, ' ', 3)")}
    cut = replace(SPLIT, into=into, back="concat_ws(' ', first, nullif(last, ''))")
    sql.execute("UPDATE people SET name = 'Anna' WHERE id < 3")
    told = runner.plan(Change(revision="s1", pattern=cut)).notices
    assert any(n.text.startswith(lost) for n in told)


def test_retire_and_back_keep_detail_of_both(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """After retire the old side follows writes, and stays where there are none."""
    sql.execute("INSERT INTO people (id, name) VALUES (3, 'Eve  Gap')")
    verified(runner)
    runner.retire("s1", old_release_gone="test")
    sql.execute("UPDATE people SET n = n + 1")
    sql.execute("UPDATE people SET first = 'Rob' WHERE id = 2")
    sql.execute("INSERT INTO people (id, first, last) VALUES (4, 'Di', 'New')")
    runner.rollback("s1")
    names = sql.execute("SELECT name FROM people ORDER BY id").fetchall()
    assert names == [
        ("Anna Maria Smith",),
        ("Rob Jones",),
        ("Eve  Gap",),
        ("Di New",),
    ]
    null = sql.execute(
        "SELECT attnotnull, (SELECT count(*) FROM pg_constraint"
        " WHERE conrelid = attrelid AND contype = 'c') FROM pg_attribute"
        " WHERE attrelid = 'people'::regclass AND attname = 'name'"
    ).fetchone()
    assert null == (True, 0)
    with pytest.raises(psycopg.errors.NotNullViolation):
        sql.execute("UPDATE people SET name = NULL WHERE id = 1")


def test_no_counterpart_is_refused_before_retire_and_marked_after(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Un-retire counts the rows that do not fit, and refuses until there are none."""
    verified(runner)
    with pytest.raises(psycopg.errors.NotNullViolation):
        sql.execute("UPDATE people SET last = NULL WHERE id = 1")
    runner.retire("s1", old_release_gone="test")
    sql.execute("UPDATE people SET last = NULL WHERE id = 1")
    sql.execute("INSERT INTO people (id, first) VALUES (5, 'Solo'), (6, 'Duo')")
    with pytest.raises(Refused, match="3 rows hold values"):
        runner.rollback("s1")
    assert runner.change("s1").state is State.RETIRED
    marked = sql.execute(f'SELECT id FROM people WHERE "{MARK}" ORDER BY 1'.encode())
    assert marked.fetchall() == [(1,), (5,), (6,)]
    sql.execute("UPDATE people SET last = 'Fixed' WHERE last IS NULL")
    assert runner.rollback("s1") is State.VERIFIED
    assert row(sql) == ("Anna Fixed", "Anna", "Fixed")


def test_an_old_value_that_fails_is_stored_and_holds_the_change(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """The old release never fails by the new side's type; the change does."""
    runner.expand(CHANGE)
    sql.execute("UPDATE people SET name = 'Too Longforthecolumn' WHERE id = 2")
    assert row(sql, 2) == ("Too Longforthecolumn", None, None)
    with pytest.raises(Failed, match="too long"):
        runner.backfill("s1")
    assert runner.change("s1").state is State.EXPANDED
    sql.execute("UPDATE people SET name = 'Tim Short' WHERE id = 2")
    runner.backfill("s1")
    assert row(sql, 2) == ("Tim Short", "Tim", "Short")


def test_rollback_parks_the_detail_and_expand_brings_it_back(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """A split that a person chose survives a way back and forth."""
    verified(runner)
    sql.execute("UPDATE people SET first = 'Anna Maria', last = 'Smith' WHERE id = 1")
    runner.rollback("s1", to=State.PLANNED)
    sql.execute("UPDATE people SET name = 'Bo Jones' WHERE id = 2")
    verified(runner)
    assert row(sql) == ("Anna Maria Smith", "Anna Maria", "Smith")
    assert row(sql, 2) == ("Bo Jones", "Bo", "Jones")


def test_to_the_end_and_rebuilt(runner: Runner, sql: psycopg.Connection) -> None:
    """Drop takes the old side and its marks; complete's downgrade makes it anew."""
    verified(runner)
    runner.retire("s1", old_release_gone="test")
    sql.execute("UPDATE people SET last = NULL WHERE id = 1")
    runner.drop("s1")
    columns = sql.execute(
        "SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute"
        " WHERE attrelid = 'people'::regclass AND attnum > 0 AND NOT attisdropped"
    ).fetchone()
    assert columns == (["id", "n", "first", "last"],)
    runner.rebuild(CHANGE)
    left = sql.execute("SELECT * FROM people ORDER BY id").fetchall()
    assert left == [(1, 0, None), (2, 0, "Bob Jones")]


def test_what_the_column_was_held_to_is_rebuilt(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Its indexes and constraints come back for the revisions that made them."""
    sql.execute(
        "ALTER TABLE people ADD CONSTRAINT long CHECK (length(name) > 1);"
        "CREATE INDEX by_name ON people (n, lower(name)) WHERE name <> 'x';"
        "ALTER TABLE people ADD CONSTRAINT once UNIQUE (id, name)"
    )
    before = snapshot(sql)
    change = Change(revision="s1", pattern=replace(SPLIT, assured="a test"))
    assert runner.complete(change) is State.DROPPED
    runner.rebuild(change)
    after = snapshot(sql)
    assert after.keys() == before.keys()
    assert len(held(before)) > 3
    assert held(after) == held(before)


def test_privileges_on_the_column_are_those_on_its_parts(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Who may read or write the one may do so with the others, at once."""
    role = f"few_{sql.info.dbname}"
    sql.execute(
        f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA public TO {role}; GRANT SELECT"
        f" (id, name), UPDATE (name) ON people TO {role} WITH GRANT OPTION".encode()
    )
    granted = (
        "SELECT column_name, privilege_type FROM information_schema.column_privileges"
        f" WHERE grantee = '{role}' AND is_grantable = 'YES' AND column_name <> 'id'"
        " ORDER BY 1, 2"
    )
    before = sql.execute(granted.encode()).fetchall()
    parts = [(c, p) for c in ("first", "last") for p in ("SELECT", "UPDATE")]
    try:
        verified(runner)
        assert sql.execute(granted.encode()).fetchall() == [*parts, *before]
        with sql.transaction():
            sql.execute(f"SET LOCAL ROLE {role}".encode())
            sql.execute("UPDATE people SET last = 'Miller' WHERE id = 2")
        assert row(sql, 2) == ("Bob Miller", "Bob", "Miller")
        runner.retire("s1", old_release_gone="test")
        runner.drop("s1")
        assert sql.execute(granted.encode()).fetchall() == parts
    finally:
        sql.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}".encode())


def test_verification_repairs_rows_of_neither(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Rows that missed the trigger are found; the old side counts."""
    verified(runner)
    sql.execute("SET session_replication_role = replica")
    sql.execute("ALTER TABLE people DISABLE TRIGGER USER")
    sql.execute("UPDATE people SET name = 'Zoe Quinn' WHERE id = 1")
    trigger = sql.execute(
        "SELECT tgname FROM pg_trigger WHERE tgrelid = 'people'::regclass"
    ).fetchone()
    assert trigger is not None
    sql.execute(f'ALTER TABLE people ENABLE ALWAYS TRIGGER "{trigger[0]}"'.encode())
    runner.verify("s1")
    assert row(sql) == ("Zoe Quinn", "Zoe", "Quinn")


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (SplitColumn("people", "name", {}, "''"), "names no column"),
        (SplitColumn("people", "nope", {"a": ("text", "name")}, "a"), "no column"),
        (SplitColumn("people", "name", {"n": ("text", "name")}, "n"), "already"),
        (SplitColumn("people", "name", {"a": ("text", "nam")}, "a"), '"nam"'),
        (SplitColumn("people", "name", {"a": ("text", "name")}, "name"), '"name"'),
        (SplitColumn("people", "name", {"a": ("serial", "1")}, "a"), "brings a"),
        (SplitColumn("people", "name", {"a": ("int", "name")}, "a"), "type integer"),
        (
            SplitColumn("people", "name", {"a": ("text", "name")}, "a", type="int"),
            "write text there",
        ),
        (SplitColumn("people", "id", {"a": ("int", "id")}, "a", type="integer"), "id"),
    ],
    ids=lambda p: p if isinstance(p, str) else "",
)
def test_refused(
    runner: Runner, sql: psycopg.Connection, pattern: SplitColumn, message: str
) -> None:
    """Bad input gets a clear error and changes nothing."""
    with pytest.raises(Refused, match=message):
        runner.expand(Change(revision="s2", pattern=pattern))
    assert runner.changes() == []
    left = sql.execute("SELECT * FROM people ORDER BY id").fetchall()
    assert left == [(1, 0, "Anna Maria Smith"), (2, 0, "Bob Jones")]


@pytest.mark.parametrize(
    "held",
    [
        "CREATE UNIQUE INDEX one ON people (lower(name))",
        "CREATE UNIQUE INDEX one ON people (id) WHERE name <> 'name'",
        "ALTER TABLE people ADD CONSTRAINT one CHECK (length(name) < 99)",
        "ALTER TABLE people ADD CONSTRAINT one UNIQUE (name, n)",
    ],
)
def test_what_the_column_is_held_to_needs_a_word(
    runner: Runner, sql: psycopg.Connection, held: str
) -> None:
    """Retire lifts it, since nothing holds values made of the new columns to it."""
    sql.execute(held.encode())
    with pytest.raises(Refused, match=r'is held to \("one"\) binds both releases'):
        runner.plan(CHANGE)
