"""The error budget: how many chunks may fail before a person has to look.

Each failed chunk was rolled back and is tried again; many of them mean that the
backfill and the application are in each other's way.
"""

from migrator.ledger import control
from migrator.ledger.control import Mode
from migrator.postgres.connection import Connection
from migrator.words import counted

# Minutes over which failures are counted: so that a backfill of days is not stopped
# by a few of them every night.
OVER_MIN = 10


def note(conn: Connection, change: str, reason: str, budget: int | None) -> str | None:
    """
    Enter a failed chunk; pause the change where its budget is used up.

    Args:
        conn: outside a transaction.
        change: its id.
        reason: what the chunk failed of.
        budget: chunks that may fail within ten minutes; None sets no bound.

    Returns:
        Why the change is paused, None where it goes on.
    """
    with conn.transaction():
        conn.execute(
            "INSERT INTO migrator.failures (change, reason) VALUES (%s, %s)",
            (change, reason),
        )
        # What failed before a person said `resume` is forgiven.
        row = conn.execute(
            "SELECT count(*) AS failed FROM migrator.failures WHERE change = %(change)s"
            " AND at > clock_timestamp() - make_interval(mins => %(mins)s)"
            " AND at > COALESCE((SELECT at FROM migrator.control"
            " WHERE change = %(change)s AND mode = 'run'), '-infinity')",
            {"change": change, "mins": OVER_MIN},
        ).fetchone()
        assert row is not None
        if budget is None or row["failed"] < budget:
            return None
        why = (
            f"{counted(row['failed'], 'chunk')} failed within {OVER_MIN} minutes,"
            f" the last one of: {reason}"
        )
        control.say(conn, change, Mode.PAUSE, why)
    return why
