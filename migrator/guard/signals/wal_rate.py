"""How fast the server writes WAL."""

import time
from dataclasses import dataclass

from migrator.guard.signal import Signal, Subject, Unit
from migrator.postgres.connection import Connection, ask


@dataclass
class WalRate(Signal):
    """
    WAL written since the last look, by anyone, in a second.

    It keeps the time and the position of the last look.
    """

    name = "wal-rate"
    unit = Unit.BYTES_PER_S
    _last: tuple[float, float] | None = None

    def read(self, conn: Connection, subject: Subject) -> tuple[float, str]:
        """Return the rate; 0 at the first look."""
        now = time.monotonic()
        written = float(ask(conn, "SELECT pg_current_wal_insert_lsn() - '0/0'"))
        last, self._last = self._last, (now, written)
        if last is None or now <= last[0]:
            return 0.0, ""
        return (written - last[1]) / (now - last[0]), ""
