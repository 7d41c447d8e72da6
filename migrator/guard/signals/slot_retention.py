"""Replication slots that keep WAL back."""

from migrator.guard.signal import Signal, Subject, Unit
from migrator.postgres.connection import Connection, execute_stored


class SlotRetention(Signal):
    """
    WAL that the slot furthest behind keeps from being removed.

    Source: PostgreSQL manual, section 52.20 (pg_replication_slots).
    """

    name = "slot-retention"
    unit = Unit.BYTES

    def read(self, conn: Connection, subject: Subject) -> tuple[float, str]:
        """Return the bytes, and which slot's they are."""
        row = execute_stored(
            conn,
            "SELECT slot_name, pg_catalog.pg_wal_lsn_diff("
            "pg_catalog.pg_current_wal_insert_lsn(), restart_lsn)::float8 AS kept"
            " FROM pg_catalog.pg_replication_slots WHERE restart_lsn IS NOT NULL"
            " ORDER BY restart_lsn LIMIT 1",
        ).fetchone()
        if row is None:
            return 0.0, ""
        return float(row["kept"]), f"slot {row['slot_name']}"
