"""How much tables are used just now: who would wait for a lock that lasts."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from migrator.errors import Refused
from migrator.lint.linter import Placed
from migrator.lint.statements import Ref
from migrator.names import TableName
from migrator.plan import Lock
from migrator.postgres import subjects
from migrator.postgres.connection import Connection

# Seconds between two looks at the counters. Sessions at work report theirs once a
# second (manual, The Cumulative Statistics System).
OVER_S = 2.0
# Seconds from which on a lock is one that requests notice.
NOTICED_S = 0.001

# What waits for a lock against everybody, and for one against writers. An UPDATE or a
# DELETE is among the scans already.
_COUNTED = """
SELECT COALESCE(pg_catalog.sum(
         COALESCE(s.seq_scan, 0) + COALESCE(s.idx_scan, 0) + s.n_tup_ins), 0)
         AS requests,
       COALESCE(pg_catalog.sum(s.n_tup_ins + s.n_tup_upd + s.n_tup_del), 0) AS writes
  FROM pg_catalog.pg_stat_all_tables s
 WHERE s.relid = %(table)s::pg_catalog.regclass
    OR s.relid IN (
       SELECT p.relid
         FROM pg_catalog.pg_partition_tree(%(table)s::pg_catalog.regclass) p)
"""


def measured(conn: Connection, found: Sequence[Placed]) -> list[Placed]:
    """
    Return findings, those whose lock lasts with the traffic that would wait for it.

    Takes two seconds where there is one, else no time.

    Args:
        conn: in autocommit; its search path counts where no schema is given.
        found: of revisions that were looked at with this database.
    """
    refs = {ref for ref in map(_lasting, found) if ref is not None}
    names = {ref: name for ref in refs if (name := _name(conn, ref)) is not None}
    if not names:
        return list(found)
    before, began = _counted(conn, names), time.monotonic()
    time.sleep(OVER_S)
    after, seconds = _counted(conn, names), time.monotonic() - began
    return [
        replace(
            place,
            # Counters that were reset meanwhile tell nothing.
            traffic_per_s=max(after[of] - before[of], 0) / seconds,
        )
        if (of := (_lasting(place), _kind(place))) in before
        else place
        for place in found
    ]


def _lasting(place: Placed) -> Ref | None:
    """Return the table that a finding locks for longer than a moment."""
    finding = place.finding
    lasts = finding.seconds is not None and finding.seconds >= NOTICED_S
    return finding.table if lasts and finding.lock.rank >= Lock.SHARE.rank else None


def _kind(place: Placed) -> str:
    """Return the column of what waits for a finding's lock."""
    everybody = place.finding.lock is Lock.ACCESS_EXCLUSIVE
    return "requests" if everybody else "writes"


def _name(conn: Connection, ref: Ref) -> TableName | None:
    try:
        name = subjects.table_of_index(conn, ref.name, ref.schema)
        return name or subjects.resolve(conn, ref.name, ref.schema)
    except Refused:
        return None


def _counted(
    conn: Connection, names: Mapping[Ref, TableName]
) -> dict[tuple[Ref | None, str], int]:
    """Return what was counted on each table so far, of each kind."""
    found: dict[tuple[Ref | None, str], int] = {}
    for ref, name in names.items():
        row = conn.execute(_COUNTED, {"table": str(name)}).fetchone()
        assert row is not None
        found |= {(ref, kind): int(count) for kind, count in row.items()}
    return found
