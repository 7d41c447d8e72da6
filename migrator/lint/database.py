"""What a database tells of the tables that a revision is about."""

from dataclasses import replace

from psycopg import sql

from migrator.errors import Refused
from migrator.facts import Domain, Kind, Table
from migrator.lint.scene import DomainReader, Reader
from migrator.lint.statements import Ref
from migrator.names import checked
from migrator.postgres import catalog, subjects
from migrator.postgres.connection import Connection

# Bytes up to which a table may be empty: indexes have a page each then, and a table
# that was emptied has the pages that are left. Whether it is, one row tells.
MAYBE_EMPTY_BYTES = 10_000_000


def reader(conn: Connection) -> Reader:
    """
    Return what reads facts of tables; by an index's name, those of its table.

    Args:
        conn: in autocommit; its search path counts where no schema is given.
    """

    def read(ref: Ref) -> Table | None:
        try:
            checked(ref.name, "table")
            name = subjects.table_of_index(conn, ref.name, ref.schema)
            name = name or subjects.resolve(conn, ref.name, ref.schema)
            found = catalog.table_facts(conn, name)
        except Refused:
            # A revision before this one makes it, or a name that there cannot be.
            return None
        if found.size_bytes <= MAYBE_EMPTY_BYTES and found.kind in "rp":
            filled = conn.execute(
                sql.SQL("SELECT EXISTS (SELECT FROM {}) AS filled").format(
                    name.identifier
                )
            ).fetchone()
            if filled is not None and not filled["filled"]:
                return replace(found, rows=0, size_bytes=0)
        return found

    return read


def domain_reader(conn: Connection) -> DomainReader:
    """
    Return what reads facts of domains.

    Args:
        conn: in autocommit; its search path counts where no schema is given.
    """

    def read(ref: Ref) -> Domain | None:
        try:
            name = subjects.named(conn, Kind.DOMAIN, ref.name, ref.schema)
        except Refused:
            # A type of another kind, or one that an earlier revision makes.
            return None
        return subjects.domain_facts(conn, name)

    return read
