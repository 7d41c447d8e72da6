"""Standbys that fall behind."""

from dataclasses import dataclass, field

from migrator.guard.signal import Signal, Subject, UnavailableError, Unit
from migrator.postgres.connection import Connection, execute_stored


@dataclass
class ReplicationLag(Signal):
    """
    WAL that the worst standby has not replayed yet.

    Bytes, not seconds: a standby that hangs reports no time any more. One that
    was there and is gone counts as not readable.

    Source: PostgreSQL manual, section 27.2.4 (pg_stat_replication).
    """

    name = "replication-lag"
    unit = Unit.BYTES
    _seen: set[str] = field(default_factory=set[str])

    def read(self, conn: Connection, subject: Subject) -> tuple[float, str]:
        """Return the lag, and which standby's it is."""
        rows = execute_stored(
            conn,
            "SELECT COALESCE(nullif(application_name, ''), 'pid ' || pid) AS name,"
            " pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(),"
            " replay_lsn)::float8 AS behind, state FROM pg_catalog.pg_stat_replication"
            " WHERE application_name <> 'pg_basebackup' ORDER BY 2 DESC NULLS FIRST",
        ).fetchall()
        here = {str(row["name"]) for row in rows}
        if gone := self._seen - here:
            raise UnavailableError(
                f"standby {', '.join(sorted(gone))} is not connected"
            )
        streaming = [row for row in rows if row["behind"] is not None]
        if rows and not streaming:
            raise UnavailableError("the role lacks pg_monitor, or they do not stream")
        self._seen |= here
        if not streaming:
            return 0.0, ""
        return float(streaming[0]["behind"]), f"standby {streaming[0]['name']}"
