"""Triggers of the application that a backfill would fire are asked about."""

import psycopg
import pytest

from migrator.change import Change
from migrator.errors import Refused
from migrator.pattern import Pattern
from migrator.patterns import (
    AddColumn,
    DropColumn,
    RenameColumn,
    SetNotNull,
    SplitColumn,
)
from migrator.plan import State
from migrator.runner import Runner

PATTERNS: tuple[Pattern, ...] = (
    RenameColumn("t", "name", "label"),
    AddColumn("t", "upper", "text", computed="upper(name)"),
    SetNotNull("t", "name", fill="'none'"),
    SplitColumn("t", "name", {"a": ("text", "name")}, "a"),
)


@pytest.fixture(autouse=True)
def _table(sql: psycopg.Connection) -> None:
    sql.execute(
        "CREATE TABLE t (id int, name text, other int, updated_at timestamptz);"
        "INSERT INTO t VALUES (1, 'a', 1, 'epoch');"
        "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN NEW.updated_at := now(); RETURN NEW; END'"
    )


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda p: type(p).__name__)
def test_a_trigger_on_every_update_needs_a_word(
    runner: Runner, sql: psycopg.Connection, pattern: Pattern
) -> None:
    """It would change `updated_at` of all rows."""
    sql.execute(
        "CREATE TRIGGER touch BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touch()"
    )
    with pytest.raises(Refused, match='Trigger "touch" fires for the rows'):
        runner.plan(Change(revision="a", pattern=pattern))


@pytest.mark.parametrize(
    "trigger",
    [
        "TRIGGER app AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION audit()",
        "TRIGGER app AFTER UPDATE ON t REFERENCING NEW TABLE AS new"
        " FOR EACH STATEMENT EXECUTE FUNCTION audit()",
        "TRIGGER app BEFORE UPDATE ON t EXECUTE FUNCTION audit()",
        "TRIGGER app AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW"
        " WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION audit()",
        "CONSTRAINT TRIGGER app AFTER UPDATE ON t DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION audit()",
        "TRIGGER app AFTER UPDATE OF name ON t FOR EACH ROW EXECUTE FUNCTION audit();"
        " ALTER TABLE t ENABLE ALWAYS TRIGGER app",
    ],
)
def test_one_that_a_backfill_fires_needs_a_word(
    runner: Runner, sql: psycopg.Connection, trigger: str
) -> None:
    """Audits and NOTIFY too, of rows or statements, of the column that is written."""
    sql.execute(
        "CREATE TABLE log (at timestamptz DEFAULT now());"
        "CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN INSERT INTO log DEFAULT VALUES; NOTIFY t; RETURN NEW; END';"
        "UPDATE t SET name = NULL"
    )
    sql.execute(f"CREATE {trigger}".encode())
    change = Change(revision="a", pattern=SetNotNull("t", "name", fill="'none'"))
    with pytest.raises(Refused, match='Trigger "app" fires for the rows'):
        runner.expand(change)
    # It would indeed: what is asked about is what happens with a word.
    sql.execute("TRUNCATE log")
    sure = SetNotNull("t", "name", fill="'none'", assured="the audit may have them")
    runner.expand(Change(revision="b", pattern=sure))
    runner.backfill("b")
    row = sql.execute("SELECT count(*) FROM log").fetchone()
    assert row is not None
    assert row[0] > 0


@pytest.mark.parametrize(
    "trigger",
    [
        "BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION touch()",
        "BEFORE UPDATE OF other ON t FOR EACH ROW EXECUTE FUNCTION touch()",
        "BEFORE UPDATE OF name ON t FOR EACH ROW EXECUTE FUNCTION touch()",
        "AFTER DELETE ON t EXECUTE FUNCTION touch()",
        "BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touch();"
        " ALTER TABLE t DISABLE TRIGGER app",
    ],
)
def test_one_that_a_backfill_does_not_fire_is_no_matter(
    runner: Runner, sql: psycopg.Connection, trigger: str
) -> None:
    """No word is asked for, and nothing of the row's other columns changes."""
    sql.execute(f"CREATE TRIGGER app {trigger}".encode())
    change = Change(
        revision="a", pattern=AddColumn("t", "upper", "text", computed="upper(name)")
    )
    runner.expand(change)
    assert runner.backfill("a") is State.BACKFILLED
    row = sql.execute("SELECT upper, updated_at = 'epoch' FROM t").fetchone()
    assert row == ("A", True)


def test_with_a_word_it_runs(runner: Runner, sql: psycopg.Connection) -> None:
    """The word is in the pattern, and so in the record."""
    sql.execute(
        "CREATE TRIGGER touch BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touch()"
    )
    pattern = AddColumn(
        "t", "upper", "text", computed="upper(name)", assured="updated_at may move"
    )
    runner.expand(Change(revision="a", pattern=pattern))
    assert runner.backfill("a") is State.BACKFILLED


def test_a_function_that_reads_a_column_that_is_split_needs_a_word(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """It would fail from retire on."""
    sql.execute(
        "CREATE FUNCTION reads() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN NEW.other := length(NEW.name); RETURN NEW; END';"
        "CREATE TRIGGER reads BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION reads()"
    )
    pattern = SplitColumn("t", "name", {"a": ("text", "name")}, "a")
    with pytest.raises(Refused, match='"reads" has the word "name" in it'):
        runner.plan(Change(revision="a", pattern=pattern))


@pytest.mark.parametrize(
    "pattern",
    [
        RenameColumn("t", "name", "label"),
        DropColumn("t", "name"),
        SplitColumn("t", "name", {"a": ("text", "name")}, "a"),
    ],
    ids=lambda p: type(p).__name__,
)
def test_a_function_that_may_read_the_column_needs_a_word(
    runner: Runner, sql: psycopg.Connection, pattern: Pattern
) -> None:
    """Its text has both words; one that names another table, or a number, does not."""
    sql.execute(
        "CREATE FUNCTION reads(int) RETURNS text LANGUAGE sql AS"
        " 'SELECT name FROM t WHERE id = $1';"
        "CREATE FUNCTION others() RETURNS text LANGUAGE sql AS"
        " 'SELECT tables.name FROM (VALUES (1)) AS tables (name)';"
        "CREATE FUNCTION numbered() RETURNS int BEGIN ATOMIC SELECT id FROM t; END"
    )
    with pytest.raises(Refused) as caught:
        runner.plan(Change(revision="a", pattern=pattern))
    assert 'The text of reads(integer) has the words "t" and "name" in it' in str(
        caught.value
    )
    sql.execute("DROP FUNCTION reads(int)")
    runner.plan(Change(revision="a", pattern=pattern))
