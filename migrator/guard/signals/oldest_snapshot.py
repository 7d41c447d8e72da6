"""Old transactions, behind which nothing can be pruned."""

from migrator.guard.signal import Signal, Subject, Unit, require_all_statistics
from migrator.postgres import catalog
from migrator.postgres.connection import Connection


class OldestSnapshot(Signal):
    """
    Age of the oldest transaction that keeps dead rows from being pruned.

    What backfills leave dead stays until it ends (manual, section 24.1.2).
    """

    name = "oldest-snapshot"
    unit = Unit.SECONDS

    def read(self, conn: Connection, subject: Subject) -> tuple[float, str]:
        """Return the age, and whose it is."""
        require_all_statistics(conn)
        found = catalog.oldest_snapshot(conn)
        return (found.held_s, found.holder) if found else (0.0, "")
