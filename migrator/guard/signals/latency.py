"""How slow the application's statements are, against what is usual."""

from dataclasses import dataclass, field
from math import sqrt

from psycopg import sql

from migrator.guard.signal import (
    Signal,
    Subject,
    UnavailableError,
    Unit,
    require_all_statistics,
)
from migrator.postgres.connection import Connection, ask

# Calls between two looks below which a mean says nothing.
ENOUGH = 20
# Standard deviations up to which a sum of times is as usual: chance goes beyond them
# once in some hundred looks.
DEVIATIONS = 3.0

_SCHEMA = (
    "SELECT n.nspname::text FROM pg_catalog.pg_extension e"
    " JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace"
    " WHERE e.extname = 'pg_stat_statements'"
)
# What begins, commits, locks or sets is none of the application's work, and short: it
# would stand for calls that say something. So only what reads and writes rows, be there
# a comment or a bracket before it.
_ROWS = (
    r"^(\s|\(|--[^\n]*\n|/\*([^*]|\*+[^*/])*\*+/)*"
    r"(select|insert|update|delete|merge|with|values|table|copy|call)\M"
)
# Not the engine's own, which name its schema or the server's, blocks or keys. Entries
# of several roles, or within functions, are added up.
_READ = sql.SQL(
    "SELECT queryid, sum(calls)::bigint AS calls, sum(total_exec_time)::float8 AS ms,"
    " sum(calls * stddev_exec_time ^ 2)::float8 AS squares FROM {}.pg_stat_statements"
    " WHERE queryid IS NOT NULL AND query NOT LIKE '%migrator%'"
    " AND query NOT LIKE '%pg_catalog.%'"
    " AND query NOT LIKE '%ctid >= $%' AND query NOT LIKE '%::text[])[%'"
    " AND query ~* {} AND dbid = (SELECT oid FROM"
    " pg_catalog.pg_database WHERE datname = current_database()) GROUP BY 1"
)


def question(schema: str) -> sql.Composed:
    """Return what asks for the application's statements; the extension's schema."""
    return _READ.format(sql.Identifier(schema), sql.Literal(_ROWS))


@dataclass(frozen=True, slots=True)
class _Seen:
    """One statement, as far as it was counted: calls, ms, and squares of ms."""

    calls: int
    ms: float
    squares: float


@dataclass
class Latency(Signal):
    """
    Mean time of the database's statements against their own mean before the run.

    Each statement is compared with itself, weighted by its calls since the last
    look, so that another mix of statements is no alarm. 1 is as usual, and stands for
    all that the statements' deviation before the run explains.

    Source: PostgreSQL manual, section F.32 (pg_stat_statements).
    """

    name = "latency"
    unit = Unit.SHARE
    #: What it keeps: statements when the run began, and at the last look.
    _before: dict[int, _Seen] = field(default_factory=dict[int, _Seen])
    _last: dict[int, _Seen] | None = None

    def read(self, conn: Connection, subject: Subject) -> tuple[float, str]:
        """Return the ratio; 1 where there were few calls."""
        require_all_statistics(conn)
        schema = ask(conn, _SCHEMA)
        if schema is None:
            raise UnavailableError("the extension pg_stat_statements is not installed")
        rows = conn.execute(question(schema))
        now = {
            int(r["queryid"]): _Seen(int(r["calls"]), r["ms"], r["squares"])
            for r in rows
        }
        last, self._last = self._last, now
        if last is None:
            self._before = now
            return 1.0, ""
        calls, taken, usual, squares = 0, 0.0, 0.0, 0.0
        for query, seen in now.items():
            known = self._before.get(query)
            since = last.get(query, _Seen(0, 0.0, 0.0))
            more = seen.calls - since.calls
            if known is None or not known.calls or more <= 0:
                continue
            calls += more
            taken += seen.ms - since.ms
            usual += more * known.ms / known.calls
            squares += more * known.squares / known.calls
        if calls < ENOUGH or taken <= usual + DEVIATIONS * sqrt(squares):
            return 1.0, ""
        return taken / usual if usual > 0 else 1.0, f"{calls} calls"
