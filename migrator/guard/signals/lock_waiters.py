"""Sessions that wait for us."""

from migrator.guard.signal import Signal, Subject, Unit, require_all_statistics
from migrator.postgres.connection import Connection, ask


class LockWaiters(Signal):
    """Sessions of others that wait for a lock that the engine holds."""

    name = "lock-waiters"
    unit = Unit.COUNT

    def read(self, conn: Connection, subject: Subject) -> tuple[float, str]:
        """Return the number."""
        require_all_statistics(conn)
        waiting = ask(
            conn,
            "SELECT count(*) FROM pg_catalog.pg_stat_activity w"
            " WHERE w.wait_event_type = 'Lock'"
            " AND w.application_name NOT LIKE 'migrator:%'"
            " AND EXISTS (SELECT FROM pg_catalog.unnest("
            " pg_catalog.pg_blocking_pids(w.pid)) AS b (pid)"
            " JOIN pg_catalog.pg_stat_activity e USING (pid)"
            " WHERE e.application_name LIKE 'migrator:%')",
        )
        return float(waiting), ""
