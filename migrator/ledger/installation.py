"""Making the ledger's tables, or bringing them to this release's form.

Apart from what reads and writes them: an Alembic command of plain revisions does
without plans and facts.
"""

from importlib.resources import files

from psycopg import sql

from migrator.errors import Refused
from migrator.postgres.connection import Connection, ask, execute_stored

# Key of the transaction-level lock under which the ledger is made or upgraded:
# the letters "migr". Held for milliseconds and never while anything waits for a
# concurrent build.
INSTALL_KEY = 0x6D696772

VERSIONS = (1, 2, 3, 4, 5, 6, 7, 8)

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
        Refused: it was made by a newer release.
    """
    if exists(conn) and _version(conn) == VERSIONS[-1]:
        return
    with conn.transaction():
        conn.execute("SELECT pg_catalog.pg_advisory_xact_lock(%s)", (INSTALL_KEY,))
        there = _version(conn) if exists(conn) else 0
        if not there:
            _clear_empty(conn)
        if there > VERSIONS[-1]:
            raise Refused(
                f"The ledger has form {there}; this release knows up to"
                f" {VERSIONS[-1]}.",
                next="use the release that made it, or a newer one.",
            )
        _make_schema(conn)
        for version in VERSIONS:
            if version > there:
                name = f"{version:03}.sql"
                text = (files("migrator.ledger") / "sql" / name).read_text()
                execute_stored(conn, text)
                conn.execute(
                    "INSERT INTO migrator.upgrades (version) VALUES (%s)", (version,)
                )


def _make_schema(conn: Connection) -> None:
    """
    Make the ledger's schema, unless a person with more rights has.

    Raises:
        Refused: this role may not.
    """
    # IF NOT EXISTS asks for the privilege also where it is there.
    there = "SELECT pg_catalog.to_regnamespace('migrator') IS NOT NULL"
    may = (
        "SELECT pg_catalog.has_database_privilege("
        "pg_catalog.current_database(), 'CREATE')"
    )
    if ask(conn, there):
        return
    if not ask(conn, may):
        who = sql.Identifier(ask(conn, "SELECT current_user::text")).as_string(None)
        raise Refused(
            'The ledger is a schema "migrator" of the database, which this role may'
            " not create.",
            next=f"have CREATE SCHEMA migrator AUTHORIZATION {who} run once by the"
            " database's owner, or grant this role CREATE on the database.",
        )
    conn.execute("CREATE SCHEMA migrator")


def _clear_empty(conn: Connection) -> None:
    """
    Drop tables that were copied without their rows: of which form is not known.

    Raises:
        Refused: there are rows in them.
    """
    if exists(conn, "changes") and ask(
        conn, "SELECT EXISTS (SELECT FROM migrator.changes)"
    ):
        raise Refused(
            "The ledger holds changes, but table migrator.upgrades does not say of"
            " which form it is.",
            next="restore that table as well.",
        )
    owned = sql.SQL(", ").join(sql.Identifier("migrator", t) for t in TABLES)
    conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(owned))
    conn.execute("DROP SEQUENCE IF EXISTS migrator.tokens")
    conn.execute("DROP FUNCTION IF EXISTS migrator.refuse_edit()")


def _version(conn: Connection) -> int:
    row = conn.execute(
        "SELECT COALESCE(max(version), 0) AS v FROM migrator.upgrades"
    ).fetchone()
    assert row is not None
    return int(row["v"])
