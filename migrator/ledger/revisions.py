"""Revisions that ran on the database, as the event log has them.

Alembic's version table names the last ones alone: a project that does not hold those
could not tell which of its own have run.

Apart from the rest of the log: a command of plain revisions does without plans.
"""

import json
from collections.abc import Collection, Iterable

from migrator.ledger.installation import exists
from migrator.postgres.connection import Connection

#: The kind of their events; of several, the last one that names a revision counts.
KIND = "revisions"


def ran(conn: Connection, version_table: str) -> set[str]:
    """
    Return the revisions that are known to have run, and were not taken back.

    Args:
        conn: the connection.
        version_table: Alembic's, with its schema if it has one.
    """
    if not exists(conn):
        return set()
    found: set[str] = set()
    for row in conn.execute(
        "SELECT detail FROM migrator.events WHERE kind = %s"
        " AND detail->>'version_table' = %s ORDER BY id",
        (KIND, version_table),
    ):
        found |= set(row["detail"].get("ran", ()))
        found -= set(row["detail"].get("taken_back", ()))
    return found


def note(
    conn: Connection,
    version_table: str,
    there: Iterable[str],
    gone: Collection[str] = (),
    *,
    reason: str = "",
) -> None:
    """
    Enter what the log does not have yet.

    Args:
        conn: outside a transaction, of a database with a ledger.
        version_table: Alembic's, with its schema if it has one.
        there: revisions that have run.
        gone: revisions that have not, or were taken back.
        reason: a person's word for it; "" where the version table tells it.
    """
    known = ran(conn, version_table)
    told = {
        "ran": sorted(set(there) - known),
        "taken_back": sorted(known.intersection(gone)),
    }
    if not any(told.values()):
        return
    detail = {name: found for name, found in told.items() if found}
    said = {"reason": reason} if reason else {}
    conn.execute(
        "INSERT INTO migrator.events (change, kind, detail) VALUES ('', %s, %s)",
        (KIND, json.dumps({"version_table": version_table, **detail, **said})),
    )
