"""A database whose tables are replicated: the engine works in it."""

import psycopg
import pytest

from migrator.change import Change
from migrator.errors import Refused
from migrator.pattern import Pattern
from migrator.patterns import (
    AddColumn,
    ChangeColumnType,
    DropColumn,
    DropConstraint,
    ExtractTable,
    MoveColumn,
    RebuildTable,
    RenameColumn,
    SplitColumn,
    SplitTable,
)
from migrator.plan import State
from migrator.runner import Runner

TABLE = (
    "CREATE TABLE t (id int PRIMARY KEY, name text, n int);"
    "INSERT INTO t SELECT g, 'n', g FROM generate_series(1, 99) g"
)
PUBLICATIONS = {
    "table": "FOR TABLE t",
    "schema": "FOR TABLES IN SCHEMA public",
    "all": "FOR ALL TABLES",
}
PATTERNS = (
    AddColumn("t", "more", "int"),
    RenameColumn("t", "name", "label"),
    DropColumn("t", "name"),
    ChangeColumnType("t", "n", "bigint", "total"),
    SplitColumn("t", "name", {"a": ("text", "name")}, "a"),
)


@pytest.mark.parametrize("scope", PUBLICATIONS)
def test_a_life_in_a_database_that_is_published(
    scope: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """Every table of the record can be written, whatever is published."""
    sql.execute(f"{TABLE}; CREATE PUBLICATION pub {PUBLICATIONS[scope]}".encode())
    change = Change(
        revision="a1",
        pattern=RenameColumn("t", "name", "label", assured="nobody hears"),
    )
    told = [n.text for n in runner.plan(change).notices]
    assert any("has all tables" in text for text in told) is (scope == "all")
    assert runner.expand(change) is State.EXPANDED
    # A pass that begins anew deletes what the first one noted.
    runner.settle("a1")
    runner.rollback("a1", to=State.PLANNED)
    runner.expand(change)
    assert runner.settle("a1") is State.VERIFIED
    runner.retire("a1", old_release_gone="test")
    assert runner.drop("a1") is State.DROPPED
    lacking = sql.execute(
        "SELECT relname FROM pg_class c WHERE relkind = 'r' AND relnamespace ="
        " 'migrator'::regnamespace AND relreplident = 'd' AND NOT EXISTS (SELECT FROM"
        " pg_index WHERE indrelid = c.oid AND indisprimary)"
    )
    assert lacking.fetchall() == []


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda p: type(p).__name__)
def test_subscribers_are_asked_for(
    pattern: Pattern, runner: Runner, sql: psycopg.Connection
) -> None:
    """A subscriber that lacks a column stops: somebody has to say that none does."""
    sql.execute(f"{TABLE}; CREATE PUBLICATION pub FOR ALL TABLES".encode())
    with pytest.raises(Refused) as caught:
        runner.expand(Change(revision="a1", pattern=pattern))
    assert 'Table "public"."t" is published by "pub": a subscriber' in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "made"),
    [
        (SplitTable("t", "m", ["name"], key=["id"]), r'"public"."m", "public"."_migr'),
        (ExtractTable("t", "m", ["name"], reference="m_id"), r'"public"."m": a sub'),
        (
            ExtractTable("t", "m", ["words"], through="l"),
            r'"public"."m", "public"."l": a sub',
        ),
    ],
    ids=repr,
)
def test_a_table_that_is_made_is_published_with_all(
    pattern: Pattern, made: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """A subscriber would stop at its first row; one with some tables would not."""
    sql.execute(f"{TABLE}; ALTER TABLE t ADD words text[]".encode())
    sql.execute("CREATE PUBLICATION one FOR TABLE t")
    change = Change(revision="a1", pattern=pattern)
    with pytest.raises(Refused, match=r'published by "one": a subscriber') as caught:
        runner.plan(change)
    assert "has all tables" not in str(caught.value)
    sql.execute("CREATE PUBLICATION pub FOR ALL TABLES")
    with pytest.raises(Refused, match=f'Publication "pub" has all .* so {made}'):
        runner.plan(change)


@pytest.mark.parametrize(
    "pattern",
    [
        DropColumn("t", "n", assured="tried"),
        SplitTable("t", "m", ["n"], key=["id"], assured="tried"),
        MoveColumn("t", "n", to="u", key={"id": "id"}, assured="tried"),
    ],
    ids=lambda p: type(p).__name__,
)
def test_what_tells_a_subscriber_its_rows_is_not_dropped(
    pattern: Pattern, runner: Runner, sql: psycopg.Connection
) -> None:
    """Without a replica identity the server refuses each UPDATE of the table."""
    sql.execute(
        f"{TABLE}; ALTER TABLE t ALTER n SET NOT NULL, ALTER n SET DEFAULT 0;"
        "CREATE TABLE u (id int PRIMARY KEY REFERENCES t);"
        "CREATE UNIQUE INDEX told ON t (id, n); CREATE PUBLICATION pub FOR TABLE t"
        "".encode()
    )
    runner.plan(Change(revision="a1", pattern=pattern))
    sql.execute("ALTER TABLE t REPLICA IDENTITY USING INDEX told")
    with pytest.raises(Refused, match='is in index "told", the replica identity of'):
        runner.plan(Change(revision="a1", pattern=pattern))


def test_a_key_that_tells_a_subscriber_its_rows_is_not_dropped(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """It is the replica identity where no other one was chosen."""
    sql.execute(f"{TABLE}; CREATE TABLE u (id int PRIMARY KEY, a int)".encode())
    key = Change(revision="a1", pattern=DropColumn("t", "id", fill="0", assured="-"))
    runner.plan(key)
    sql.execute("CREATE PUBLICATION pub FOR TABLE t")
    with pytest.raises(Refused, match='"t_pkey", the replica identity of table'):
        runner.plan(key)
    sql.execute("ALTER TABLE t REPLICA IDENTITY FULL")
    runner.plan(key)


@pytest.mark.parametrize("key", ["PRIMARY KEY", "UNIQUE"])
def test_a_constraint_that_tells_a_subscriber_its_rows_is_not_dropped(
    key: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """Its index was chosen as the replica identity, of a partition maybe."""
    sql.execute(
        "CREATE TABLE t (id int NOT NULL) PARTITION BY LIST (id);"
        "CREATE TABLE t_1 PARTITION OF t FOR VALUES IN (1);"
        f"ALTER TABLE t ADD CONSTRAINT k {key} (id)".encode()
    )
    drop = Change(revision="a1", pattern=DropConstraint("t", "k", assured="-"))
    runner.plan(drop)
    (made,) = sql.execute(
        "SELECT indexrelid::regclass FROM pg_index WHERE indrelid = 't_1'::regclass"
    ).fetchall()
    sql.execute(f"ALTER TABLE t_1 REPLICA IDENTITY USING INDEX {made[0]}".encode())
    runner.plan(drop)
    sql.execute("CREATE PUBLICATION pub FOR TABLE t_1")
    with pytest.raises(
        Refused, match=r'"public"."t_1" is the table\'s replica identity'
    ):
        runner.plan(drop)


def test_a_table_that_would_be_another_one_is_refused(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """The one that is to take its place would be published as soon as it is there."""
    sql.execute(f"{TABLE}; CREATE PUBLICATION pub FOR ALL TABLES".encode())
    pattern = RebuildTable("t", assured="tried")
    with pytest.raises(Refused, match='publication "pub" has all tables'):
        runner.expand(Change(revision="a1", pattern=pattern))
