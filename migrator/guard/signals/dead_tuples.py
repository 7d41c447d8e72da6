"""Dead rows of the table."""

from migrator.guard.signal import Signal, Subject, UnavailableError, Unit
from migrator.postgres.connection import Connection, ask


class DeadTuples(Signal):
    """
    Dead rows against live ones, as the statistics know them.

    Source: PostgreSQL manual, section 27.2.20 (pg_stat_all_tables).
    """

    name = "dead-tuples"
    unit = Unit.SHARE

    def read(self, conn: Connection, subject: Subject) -> tuple[float, str]:
        """Return the share."""
        share = ask(
            conn,
            "SELECT n_dead_tup::float8 / greatest(n_live_tup, 1)"
            " FROM pg_catalog.pg_stat_all_tables"
            " WHERE relid = pg_catalog.to_regclass($1)",
            [str(subject.table)],
        )
        if share is None:
            raise UnavailableError("the table has no statistics")
        return float(share), ""
