"""Dead rows of the table."""

from migrator.guard.signal import Signal, Subject, UnavailableError, Unit
from migrator.postgres.connection import Connection, ask, execute_stored


class DeadTuples(Signal):
    """
    Dead rows against live ones, as the statistics know them.

    Source: PostgreSQL manual, sections 27.2.20 (pg_stat_all_tables) and 27.4.5
    (pg_stat_progress_vacuum).
    """

    name = "dead-tuples"
    unit = Unit.SHARE

    def read(self, conn: Connection, subject: Subject) -> tuple[float, str]:
        """Return the share, and what VACUUM does about it."""
        row = execute_stored(
            conn,
            "SELECT n_dead_tup::float8 / greatest(n_live_tup, 1) AS share,"
            " EXISTS (SELECT FROM pg_catalog.pg_stat_progress_vacuum v"
            " WHERE v.relid = s.relid) AS at_work,"
            " greatest(last_vacuum, last_autovacuum) AS last"
            " FROM pg_catalog.pg_stat_all_tables s"
            " WHERE relid = pg_catalog.to_regclass($1)",
            [str(subject.table)],
        ).fetchone()
        if row is None:
            there = "SELECT pg_catalog.to_regclass($1) IS NOT NULL"
            if ask(conn, there, [str(subject.table)]):
                raise UnavailableError("the table has no statistics")
            # A partition that was dropped since has no dead rows either.
            return 0.0, "the table is gone"
        if row["at_work"]:
            behind = "VACUUM is at work"
        elif row["last"] is None:
            behind = "never vacuumed"
        else:
            behind = f"last VACUUM at {row['last']:%H:%M:%S}"
        return float(row["share"]), behind
