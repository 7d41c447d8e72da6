"""Old transactions, behind which nothing can be pruned."""

from migrator.guard.signal import Signal, Subject, Unit
from migrator.postgres.connection import Connection, execute_stored


class OldestSnapshot(Signal):
    """
    Age of the oldest transaction that holds a snapshot, of any database.

    What backfills leave dead stays until it ends (manual, section 24.1.2).
    """

    name = "oldest-snapshot"
    unit = Unit.SECONDS

    def read(self, conn: Connection, subject: Subject) -> tuple[float, str]:
        """Return the age, and whose it is."""
        row = execute_stored(
            conn,
            "SELECT extract(epoch FROM clock_timestamp() - xact_start)::float8 AS s,"
            " pid, application_name FROM pg_catalog.pg_stat_activity"
            " WHERE backend_xmin IS NOT NULL AND xact_start IS NOT NULL"
            " AND backend_type = 'client backend'"
            " AND application_name NOT LIKE 'migrator:%'"
            " AND pid <> pg_catalog.pg_backend_pid() ORDER BY xact_start LIMIT 1",
        ).fetchone()
        if row is None:
            return 0.0, ""
        return float(row["s"]), f"pid {row['pid']}, {row['application_name'] or '-'}"
