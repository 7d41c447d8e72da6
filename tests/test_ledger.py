"""The making of the ledger, and its upgrades."""

from importlib.resources import files

import psycopg
import pytest

from migrator.change import Change
from migrator.errors import Refused
from migrator.ledger import installation
from migrator.ledger.lease import held
from migrator.patterns import RenameColumn
from migrator.plan import State
from migrator.postgres.connection import Connection, Target, connect
from migrator.runner import Runner

SQL = files("migrator.ledger") / "sql"

#: All that the catalogue knows of the schema, but for oids and gaps between columns.
CATALOGUE = """
SELECT 'schema' AS kind, nspname::text AS name, to_jsonb(n) - '{oid}'::text[] AS what,
  obj_description(n.oid, 'pg_namespace') AS comment
FROM pg_namespace n WHERE nspname = 'migrator'
UNION ALL
SELECT 'relation', relname, jsonb_build_object('kind', relkind, 'owner', relowner,
  'persistence', relpersistence, 'identity', relreplident, 'options', reloptions,
  'access', relacl, 'rls', relrowsecurity, 'forced', relforcerowsecurity,
  'space', reltablespace, 'sequence', to_jsonb(s) - '{seqrelid}'::text[]),
  obj_description(c.oid, 'pg_class')
FROM pg_class c LEFT JOIN pg_sequence s ON s.seqrelid = c.oid
WHERE relnamespace = 'migrator'::regnamespace
UNION ALL
SELECT 'column', attrelid::regclass || '.' || attname, to_jsonb(a)
  - '{attrelid,attnum,attcacheoff,atthasmissing,attmissingval}'::text[]
  || jsonb_build_object('default', pg_get_expr(adbin, adrelid), 'place',
    row_number() OVER (PARTITION BY attrelid ORDER BY attnum)),
  col_description(attrelid, attnum)
FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid AND relkind IN ('r', 'S')
LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE relnamespace = 'migrator'::regnamespace AND NOT attisdropped AND attnum > 0
UNION ALL
SELECT 'constraint', conrelid::regclass || '.' || conname,
  to_jsonb(pg_get_constraintdef(oid)) || to_jsonb(convalidated),
  obj_description(oid, 'pg_constraint')
FROM pg_constraint WHERE connamespace = 'migrator'::regnamespace
UNION ALL
SELECT 'index', indexrelid::regclass::text, to_jsonb(pg_get_indexdef(indexrelid))
  || to_jsonb(indisprimary) || to_jsonb(indisreplident), NULL
FROM pg_index JOIN pg_class c ON c.oid = indexrelid
WHERE relnamespace = 'migrator'::regnamespace
UNION ALL
SELECT 'trigger', tgrelid::regclass || '.' || tgname,
  to_jsonb(pg_get_triggerdef(t.oid)) || to_jsonb(tgenabled),
  obj_description(t.oid, 'pg_trigger')
FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid
WHERE relnamespace = 'migrator'::regnamespace AND NOT tgisinternal
UNION ALL
SELECT 'function', p.oid::regprocedure::text,
  to_jsonb(p) - '{oid,pronamespace}'::text[], obj_description(p.oid, 'pg_proc')
FROM pg_proc p WHERE pronamespace = 'migrator'::regnamespace
ORDER BY 1, 2
"""


def by_steps(conn: Connection) -> None:
    """Make the ledger as one that was made by the first release and upgraded."""
    conn.execute("CREATE SCHEMA migrator")
    for version in installation.VERSIONS:
        conn.execute((SQL / f"{version:03}.sql").read_bytes())


def after_a_lease(conn: Connection) -> None:
    """Make it where the lease of a command without changes is there."""
    installation.install_lease(conn)
    installation.install(conn)


def test_each_way_makes_the_same_ledger(database: str) -> None:
    """A new one, one that was upgraded, and one that began as a lease are one."""
    found = []
    with connect(Target.from_url(database), "test") as conn:
        for make in (by_steps, installation.install, after_a_lease):
            make(conn)
            found.append(conn.execute(CATALOGUE).fetchall())
            conn.execute("DROP SCHEMA migrator CASCADE")
    upgraded, new, begun = found
    assert len(upgraded) > 100
    assert new == upgraded
    assert begun == upgraded


def test_a_lease_stays_held_when_the_ledger_is_made(database: str) -> None:
    """A command that holds one comes to its first change, or another one does."""
    target = Target.from_url(database)
    with connect(target, "test") as conn:
        installation.install_lease(conn)
        with held(target, conn, "a", seconds=10, wait_s=0) as lease:
            assert not installation.exists(conn)
            installation.install(conn)
            lease.check(conn)
            with (
                connect(target, "other") as other,
                held(target, other, "b", seconds=10, wait_s=0) as second,
            ):
                assert second.token > lease.token


def test_an_older_ledger_is_upgraded(runner: Runner, sql: psycopg.Connection) -> None:
    """One of the first form is brought to today's, with what it holds."""
    sql.execute("CREATE SCHEMA migrator")
    sql.execute((SQL / "001.sql").read_bytes())
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
    sql.execute("TRUNCATE migrator.changes CASCADE")
    other = Change(revision="d", pattern=RenameColumn("t", "id", "key"))
    # Of revisions that ran, and of a person's word, the log alone knows.
    with pytest.raises(Refused, match=r"migrator\.events of the ledger has rows"):
        runner.expand(other)
    sql.execute("ALTER TABLE migrator.events DISABLE TRIGGER ALL")
    for table in installation.TABLES:
        sql.execute(f"TRUNCATE migrator.{table} CASCADE".encode())
    assert runner.expand(other) is State.EXPANDED
