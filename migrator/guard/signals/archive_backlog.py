"""WAL files that wait to be archived."""

from migrator.guard.signal import Signal, Subject, Unit
from migrator.postgres.connection import Connection, ask


class ArchiveBacklog(Signal):
    """
    Number of WAL files that are ready and not archived yet.

    Source: PostgreSQL manual, sections 25.3 and 9.28.8.
    """

    name = "archive-backlog"
    unit = Unit.COUNT

    def read(self, conn: Connection, subject: Subject) -> tuple[float, str]:
        """Return the number; 0 where nothing is archived."""
        if ask(conn, "SELECT current_setting('archive_mode')") == "off":
            return 0.0, ""
        waiting = ask(
            conn,
            "SELECT count(*) FROM pg_catalog.pg_ls_archive_statusdir()"
            " WHERE name LIKE '%.ready'",
        )
        return float(waiting), ""
