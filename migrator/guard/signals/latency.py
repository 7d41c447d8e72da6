"""How slow the application's statements are, against what is usual."""

from dataclasses import dataclass, field

from migrator.guard.signal import (
    Signal,
    Subject,
    UnavailableError,
    Unit,
    require_all_statistics,
)
from migrator.postgres.connection import Connection, ask, execute_stored

# Calls between two looks below which a mean says nothing.
ENOUGH = 20


@dataclass
class Latency(Signal):
    """
    Mean time of the database's statements against their own mean before the run.

    Each statement is compared with itself, weighted by its calls since the last
    look, so that another mix of statements is no alarm. 1 is as usual.

    Source: PostgreSQL manual, section F.32 (pg_stat_statements).
    """

    name = "latency"
    unit = Unit.SHARE
    #: Statement to (calls, total ms), when the run began and at the last look.
    _before: dict[int, tuple[int, float]] = field(
        default_factory=dict[int, tuple[int, float]]
    )
    _last: dict[int, tuple[int, float]] | None = None

    def read(self, conn: Connection, subject: Subject) -> tuple[float, str]:
        """Return the ratio; 1 where there were few calls."""
        require_all_statistics(conn)
        if not ask(conn, "SELECT pg_catalog.to_regclass('pg_stat_statements')"):
            raise UnavailableError("the extension pg_stat_statements is not installed")
        rows = execute_stored(
            conn,
            "SELECT queryid, sum(calls)::bigint AS calls,"
            " sum(total_exec_time)::float8 AS ms FROM pg_stat_statements"
            " WHERE queryid IS NOT NULL AND query NOT LIKE '%migrator%'"
            " AND query NOT LIKE '%ctid >= $%' AND dbid = (SELECT oid FROM"
            " pg_catalog.pg_database WHERE datname = current_database()) GROUP BY 1",
        )
        now = {int(r["queryid"]): (int(r["calls"]), float(r["ms"])) for r in rows}
        last, self._last = self._last, now
        if last is None:
            self._before = now
            return 1.0, ""
        calls, taken, usual = 0, 0.0, 0.0
        for query, (count, ms) in now.items():
            known, since = self._before.get(query), last.get(query, (0, 0.0))
            if known is None or not known[0] or count <= since[0]:
                continue
            calls += count - since[0]
            taken += ms - since[1]
            usual += (count - since[0]) * known[1] / known[0]
        if calls < ENOUGH or usual <= 0:
            return 1.0, ""
        return taken / usual, f"{calls} calls"
