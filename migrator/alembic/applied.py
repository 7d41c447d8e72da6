"""What has run on a database, and what was there before anything did."""

from collections.abc import Iterable, Sequence

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg import sql
from sqlalchemy import MetaData

from migrator.errors import Refused
from migrator.ledger import revisions
from migrator.ledger.installation import exists
from migrator.names import TableName
from migrator.postgres.connection import Connection


def behind(script: ScriptDirectory, heads: Iterable[str]) -> set[str]:
    """
    Return revisions and all that come before them or that they depend on.

    Args:
        script: holds them; what it does not hold is left out.
        heads: whole ids.
    """
    down = {r.revision: r._all_down_revisions for r in script.walk_revisions()}
    left, found = list(heads), set[str]()
    while left:
        one = left.pop()
        if one in down and one not in found:
            found.add(one)
            left += down[one]
    return found


def unknown(script: ScriptDirectory, heads: Iterable[str]) -> list[str]:
    """Return the revisions that a project does not hold."""
    known = {r.revision for r in script.walk_revisions()}
    return [head for head in heads if head not in known]


def not_held(script: ScriptDirectory, heads: Iterable[str]) -> Refused:
    """
    Return what says that another release was here, with a way on.

    Args:
        script: the project's.
        heads: revisions at which the database is, and which it does not hold.
    """
    last = " ".join(script.get_heads()) or "REVISION"
    return Refused(
        f"Can't locate revision {', '.join(heads)}, at which the database is:"
        " this project does not hold it.",
        next="run this from the release that holds it. Where its file is gone for"
        f" good, as after a squash, `alembic stamp --purge {last}` says that the"
        " database has the schema of that one.",
    )


def in_line(script: ScriptDirectory, heads: Sequence[str]) -> Refused:
    """
    Return what says that branches which ran were put in line afterwards.

    Args:
        script: the project's.
        heads: revisions at which the database is, one of which is behind another.
    """
    before = {head: behind(script, [head]) - {head} for head in heads}
    last = [head for head in heads if not any(head in b for b in before.values())]
    return Refused(
        f"The database is at revisions {', '.join(heads)}, one of which now comes"
        " before another one: a branch was put in line after it ran.",
        next=f"`alembic stamp --purge {' '.join(last)}` says so; nothing is run by it.",
    )


def note(
    conn: Connection, ctx: MigrationContext, version_table: str, heads: Iterable[str]
) -> None:
    """
    Enter into the log what a database at some revisions has behind it.

    Where a command of plain revisions made no log, the next one enters it.

    What is behind a revision of another release is not known here: then none of this
    one's counts as taken back.

    Args:
        conn: outside a transaction.
        ctx: of the command under way.
        version_table: Alembic's, with its schema if it has one.
        heads: where the database is.
    """
    assert ctx.script is not None
    if not exists(conn):
        # A walk over some hundred revisions takes longer than the question.
        return
    at = list(heads)
    there = behind(ctx.script, at)
    every = {r.revision for r in ctx.script.walk_revisions()}
    gone = set[str]() if set(at) - every else every - there
    revisions.note(conn, version_table, there, gone)


def filled(conn: Connection, ctx: MigrationContext) -> frozenset[TableName]:
    """
    Return the tables with rows in the schemas of the models and of the search path.

    Those of an extension are left out; partitioned tables have the rows of their
    partitions. One whose rows this role may not see counts by its size.
    """
    given = ctx.opts.get("target_metadata") or ()
    models: Sequence[MetaData] = (
        (given,) if isinstance(given, MetaData) else tuple(given)
    )
    schemas = {t.schema for one in models for t in one.tables.values() if t.schema}
    found: set[TableName] = set()
    for row in conn.execute(
        "SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relrowsecurity"
        " OR NOT pg_catalog.has_table_privilege(c.oid, 'SELECT') AS hidden"
        " FROM pg_catalog.pg_class c"
        " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind = 'r' AND (n.nspname = ANY (%s)"
        " OR n.nspname = ANY (pg_catalog.current_schemas(false)))"
        " AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.objid = c.oid"
        " AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass"
        " AND d.deptype = 'e') AND pg_catalog.pg_relation_size(c.oid) > 0",
        (list(schemas),),
    ).fetchall():
        table = TableName(row["schema"], row["name"])
        if row["hidden"] or _has_rows(conn, table):
            found |= {table, *_above(conn, row["oid"])}
    return frozenset(found)


def _has_rows(conn: Connection, table: TableName) -> bool:
    asked = sql.SQL("SELECT EXISTS (SELECT FROM {}) AS found").format(table.identifier)
    row = conn.execute(asked).fetchone()
    return bool(row and row["found"])


def _above(conn: Connection, oid: int) -> list[TableName]:
    """Return the tables of which one is a partition."""
    rows = conn.execute(
        "SELECT n.nspname AS schema, c.relname AS name"
        " FROM pg_catalog.pg_partition_ancestors(%s::oid::pg_catalog.regclass) a"
        " JOIN pg_catalog.pg_class c ON c.oid = a.relid"
        " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace",
        (oid,),
    )
    return [TableName(row["schema"], row["name"]) for row in rows]
