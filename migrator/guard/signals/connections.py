"""Connections in use."""

from migrator.guard.signal import Signal, Subject, Unit
from migrator.postgres.connection import Connection, ask


class Connections(Signal):
    """Clients' connections, as a share of `max_connections`."""

    name = "connections"
    unit = Unit.SHARE

    def read(self, conn: Connection, subject: Subject) -> tuple[float, str]:
        """Return the share."""
        share = ask(
            conn,
            "SELECT sum(numbackends)::float8 / current_setting('max_connections')::int"
            " FROM pg_catalog.pg_stat_database",
        )
        return float(share), ""
