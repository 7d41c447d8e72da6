"""Standbys that fall behind."""

import time
from collections import Counter
from dataclasses import dataclass, field

from migrator.guard.signal import (
    Signal,
    Subject,
    UnavailableError,
    Unit,
    require_all_statistics,
)
from migrator.postgres.connection import Connection, execute_stored

# Seconds after which a further standby of a name counts as one more: until then it
# may be the same one, connected again before the server noticed that its first
# connection is dead (wal_sender_timeout, 60 s).
SETTLED_S = 120.0

# A base backup and pg_receivewal replay nothing; what fills a subscription's new table
# ends by itself (manual, section 29.2.1).
_STANDBYS = (
    "SELECT COALESCE(nullif(application_name, ''), 'without a name') AS name,"
    " pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(),"
    " replay_lsn)::float8 AS behind FROM pg_catalog.pg_stat_replication"
    " WHERE state IN ('catchup', 'streaming') AND replay_lsn IS NOT NULL"
    " AND application_name !~ '^pg_[0-9]+_sync_[0-9]+_[0-9]+$' ORDER BY 2 DESC"
)


@dataclass
class ReplicationLag(Signal):
    """
    WAL that the worst standby has not replayed yet.

    Bytes, not seconds: a standby that hangs reports no time any more. It keeps how
    many standbys of each name there were; one that is gone counts as not readable.

    Source: PostgreSQL manual, section 27.2.4 (pg_stat_replication).
    """

    name = "replication-lag"
    unit = Unit.BYTES
    _expected: dict[str, int] = field(default_factory=dict[str, int])
    #: Since when there are more of a name, on the monotonic clock.
    _more: dict[str, float] = field(default_factory=dict[str, float])

    def read(self, conn: Connection, subject: Subject) -> tuple[float, str]:
        """Return the lag, and which standby's it is."""
        require_all_statistics(conn)
        rows = execute_stored(conn, _STANDBYS).fetchall()
        here = Counter(str(row["name"]) for row in rows)
        gone = [
            f"standby {name}"
            if number == 1
            else f"{number - here[name]} of {number} standbys {name}"
            for name, number in sorted(self._expected.items())
            if here[name] < number
        ]
        if gone:
            raise UnavailableError(f"{', '.join(gone)} is not connected")
        self._expect(here)
        if not rows:
            return 0.0, ""
        return float(rows[0]["behind"]), f"standby {rows[0]['name']}"

    def _expect(self, here: Counter[str]) -> None:
        """Note who is there."""
        now = time.monotonic()
        for name, number in here.items():
            if name not in self._expected:
                self._expected[name] = number
            elif number == self._expected[name]:
                self._more.pop(name, None)
            elif now - self._more.setdefault(name, now) >= SETTLED_S:
                self._expected[name] = number
