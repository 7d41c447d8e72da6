"""Transactions that fail."""

from dataclasses import dataclass

from migrator.guard.signal import Signal, Subject, Unit
from migrator.postgres.connection import Connection, execute_stored

# Transactions between two looks below which a share says nothing.
ENOUGH = 20


@dataclass
class Rollbacks(Signal):
    """
    Rolled-back transactions of the database since the last look, as a share.

    It keeps the counts of the last look.

    Source: PostgreSQL manual, section 27.2.18 (pg_stat_database).
    """

    name = "rollbacks"
    unit = Unit.SHARE
    _last: tuple[int, int] | None = None

    def read(self, conn: Connection, subject: Subject) -> tuple[float, str]:
        """Return the share; 0 where there were few transactions."""
        row = execute_stored(
            conn,
            "SELECT xact_commit AS done, xact_rollback AS undone"
            " FROM pg_catalog.pg_stat_database WHERE datname = current_database()",
        ).fetchone()
        assert row is not None
        last, self._last = self._last, (int(row["done"]), int(row["undone"]))
        if last is None:
            return 0.0, ""
        done, undone = self._last[0] - last[0], self._last[1] - last[1]
        if done + undone < ENOUGH:
            return 0.0, ""
        return undone / (done + undone), ""
