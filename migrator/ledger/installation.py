"""Making the ledger's tables, or bringing them to this release's form.

Apart from what reads and writes them: an Alembic command of plain revisions does
without plans and facts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files

from psycopg import sql

from migrator.errors import Refused
from migrator.postgres.connection import Connection, ask, execute_stored

# Key of the transaction-level lock under which the ledger is made or upgraded:
# the letters "migr". Held for milliseconds and never while anything waits for a
# concurrent build.
INSTALL_KEY = 0x6D696772

VERSIONS = (1, 2, 3, 4, 5, 6, 7, 8, 9)

#: The ledger's tables, of all forms.
TABLES = (
    "upgrades",
    "changes",
    "steps",
    "leases",
    "events",
    "windows",
    "control",
    "samples",
    "mismatches",
    "failures",
    "deployments",
)

#: Those that have rows where any other has, but for the lease's.
ASKED = ("changes", "events", "deployments")


def exists(conn: Connection, table: str = "upgrades") -> bool:
    """Tell whether the database has a ledger, with a table of a later form."""
    # A query of the catalogue's tables: to_regclass answers from a cache, which a
    # transaction that waited for another's install may find outdated.
    row = conn.execute(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c"
        " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = 'migrator' AND c.relname = %s) AS there",
        (table,),
    ).fetchone()
    return bool(row and row["there"])


def install(conn: Connection) -> None:
    """
    Make the ledger on first use, or bring it to this release's form.

    Raises:
        Refused: it was made by a newer release, or this role may not make it.
    """
    if exists(conn) and _version(conn) == VERSIONS[-1]:
        return
    with _alone(conn):
        there = _version(conn) if exists(conn) else 0
        if there > VERSIONS[-1]:
            raise Refused(
                f"The ledger has form {there}; this release knows up to"
                f" {VERSIONS[-1]}.",
                next="use the release that made it, or a newer one.",
            )
        if not there:
            if not _make_schema(conn):
                _clear_empty(conn)
            _run(conn, "lease.sql")
            _run(conn, "ledger.sql")
        for version in VERSIONS:
            if there and version > there:
                _run(conn, f"{version:03}.sql")
        conn.execute(
            "INSERT INTO migrator.upgrades (version)"
            " SELECT pg_catalog.generate_series(%s::int, %s::int)",
            (there + 1, VERSIONS[-1]),
        )


def install_lease(conn: Connection) -> None:
    """
    Make the part of the ledger that a command without changes needs.

    The rest has most of its tables, which a new database that is made by plain
    revisions alone would wait for.

    Raises:
        Refused: this role may not make it, or a newer release made a ledger.
    """
    if exists(conn):
        install(conn)
    if exists(conn, "leases"):
        return
    with _alone(conn):
        _make_schema(conn)
        _run(conn, "lease.sql")


@contextmanager
def _alone(conn: Connection) -> Iterator[None]:
    """Run a transaction in which no other process makes or upgrades the ledger."""
    with conn.transaction():
        # What follows is of use to nobody before a lease is taken or a change entered,
        # and those commits wait for the disk for this one as well.
        conn.execute(
            "SELECT pg_catalog.set_config('synchronous_commit', 'off', true),"
            " pg_catalog.pg_advisory_xact_lock(%s)",
            (INSTALL_KEY,),
        )
        yield


def _run(conn: Connection, name: str) -> None:
    execute_stored(conn, (files("migrator.ledger") / "sql" / name).read_text())


def _make_schema(conn: Connection) -> bool:
    """
    Make the ledger's schema, unless a person with more rights has; tell which.

    Raises:
        Refused: this role may not, or may make nothing in it.
    """
    # IF NOT EXISTS asks for the privilege also where it is there.
    found = conn.execute(
        "SELECT current_user::text AS who,"
        " pg_catalog.has_database_privilege("
        "pg_catalog.current_database(), 'CREATE') AS may_make,"
        " (SELECT pg_catalog.has_schema_privilege(oid, 'CREATE')"
        " FROM pg_catalog.pg_namespace WHERE nspname = 'migrator') AS may_fill,"
        " (SELECT pg_catalog.pg_get_userbyid(nspowner)"
        " FROM pg_catalog.pg_namespace WHERE nspname = 'migrator') AS owner"
    ).fetchone()
    assert found is not None
    if found["may_fill"]:
        return False
    if found["owner"] is not None:
        owner = sql.Identifier(found["owner"]).as_string(None)
        raise Refused(
            'The ledger is a schema "migrator" of the database, in which this role may'
            " not create tables.",
            next=f"connect as the role that owns it, {owner}.",
        )
    if not found["may_make"]:
        who = sql.Identifier(found["who"]).as_string(None)
        raise Refused(
            'The ledger is a schema "migrator" of the database, which this role may'
            " not create.",
            next=f"have CREATE SCHEMA migrator AUTHORIZATION {who} run once by the"
            " database's owner, or grant this role CREATE on the database.",
        )
    conn.execute("CREATE SCHEMA migrator")
    return True


def _clear_empty(conn: Connection) -> None:
    """
    Drop tables that were copied without their rows: of which form is not known.

    The lease's stay: a process may hold one before the ledger is made.

    Raises:
        Refused: there are rows in them.
    """
    for table in ASKED:
        question = sql.SQL("SELECT EXISTS (SELECT FROM {})").format(
            sql.Identifier("migrator", table)
        )
        if exists(conn, table) and ask(conn, question.as_string(None)):
            raise Refused(
                f"Table migrator.{table} of the ledger has rows, but table"
                " migrator.upgrades does not say of which form they are.",
                next="restore that table as well.",
            )
    owned = sql.SQL(", ").join(
        sql.Identifier("migrator", table) for table in TABLES if table != "leases"
    )
    conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(owned))
    conn.execute("DROP FUNCTION IF EXISTS migrator.refuse_edit()")


def _version(conn: Connection) -> int:
    row = conn.execute(
        "SELECT COALESCE(max(version), 0) AS v FROM migrator.upgrades"
    ).fetchone()
    assert row is not None
    return int(row["v"])
