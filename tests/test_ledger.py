"""The ledger's own upgrades."""

from importlib.resources import files

import psycopg
import pytest

from migrator.change import Change
from migrator.errors import Refused
from migrator.ledger import installation
from migrator.patterns import RenameColumn
from migrator.plan import State
from migrator.runner import Runner


def test_an_older_ledger_is_upgraded(runner: Runner, sql: psycopg.Connection) -> None:
    """One of the first form is brought to today's, with what it holds."""
    sql.execute("CREATE SCHEMA migrator")
    first = files("migrator.ledger") / "sql" / "001.sql"
    sql.execute(first.read_bytes())
    sql.execute("INSERT INTO migrator.upgrades (version) VALUES (1)")
    sql.execute(
        "INSERT INTO migrator.events (change, kind) VALUES ('before', 'planned')"
    )
    sql.execute("CREATE TABLE t (id int, old text); INSERT INTO t VALUES (1, 'a')")
    change = Change(revision="c", pattern=RenameColumn("t", "old", "new"))
    runner.expand(change)
    assert runner.backfill("c") is State.BACKFILLED
    versions = sql.execute("SELECT version FROM migrator.upgrades ORDER BY 1")
    assert [v for (v,) in versions] == list(installation.VERSIONS)
    assert runner.events(None)[0]["change"] == "before"


def test_a_ledger_copied_without_rows_is_made_again(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """A schema alone says nothing of changes; one with changes is not touched."""
    sql.execute("CREATE TABLE t (id int, old text)")
    change = Change(revision="c", pattern=RenameColumn("t", "old", "new"))
    runner.expand(change)
    made = sql.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'migrator'::regnamespace"
        " AND relkind = 'r'"
    ).fetchall()
    assert {name for (name,) in made} == set(installation.TABLES)
    sql.execute("TRUNCATE migrator.upgrades")
    with pytest.raises(Refused, match="does not say of which form"):
        runner.expand(change)
    sql.execute("ALTER TABLE migrator.events DISABLE TRIGGER ALL")
    for table in installation.TABLES:
        sql.execute(f"TRUNCATE migrator.{table} CASCADE".encode())
    other = Change(revision="d", pattern=RenameColumn("t", "id", "key"))
    assert runner.expand(other) is State.EXPANDED
