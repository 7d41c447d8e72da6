"""What one chunk does to its rows: brings them across, or compares and repairs them."""

from dataclasses import dataclass, field
from typing import Any

from psycopg import RawCursor

from migrator.errors import Failed
from migrator.ledger.mismatches import Mismatch
from migrator.plan import ChunkedCheck, ChunkedUpdate
from migrator.postgres.connection import Connection, Row, ask, execute_stored

# Rows of a chunk that are listed by their keys; the others are counted.
LISTED = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """
    What a chunk's statements did.

    Args:
        rows: changed, or found out of step.
        found: those out of step that are listed.
        left: how many are left out of step.
    """

    rows: int = 0
    found: list[Mismatch] = field(default_factory=list[Mismatch])
    left: int = 0


def run(
    conn: Connection,
    work: ChunkedUpdate | ChunkedCheck,
    given: list[Any],
    *,
    stride: int,
    values: bool,
) -> Outcome:
    """
    Run a chunk's statements.

    Args:
        conn: in the chunk's transaction.
        work: what is done.
        given: where the chunk begins and ends.
        stride: the pass over its window, counted from 0.
        values: whether rows out of step are listed with what they hold.
    """
    if isinstance(work, ChunkedUpdate):
        if stride == work.chunking.stride - 1:
            done = execute_stored(conn, work.statement, given)
        else:
            done = execute_stored(conn, work.strided, [*given, stride])
        return Outcome(rows=done.rowcount)
    found = int(ask(conn, work.count, given))
    if not found:
        return Outcome()
    listed = _listed(conn, work, given, values=values)
    left, still = found, {key for key, _ in listed}
    moved: list[str] = []
    if work.repair is not None:
        moved = _apart(execute_stored(conn, work.repair, given))
        left = int(ask(conn, work.count, given))
        # All of them: repair may have brought them into another order.
        still = {k for k, _ in _listed(conn, work, given, most=left)} | set(moved)
        left += len(moved)
    rows = [
        Mismatch(key=key, repaired=key not in still, given=held) for key, held in listed
    ]
    # Without a key a row is named by its place, which is another one now.
    known = {key for key, _ in listed}
    rows += [
        Mismatch(key=key, repaired=False) for key in moved[:LISTED] if key not in known
    ]
    return Outcome(rows=found, found=rows, left=left)


def _apart(repaired: RawCursor[Row]) -> list[str]:
    """Return the keys of rows that a repair moved, and left out of step."""
    told = [column.name for column in repaired.description or ()]
    # Repairs of another table move no row of this one, and tell nothing.
    if told != ["apart"]:
        return []
    return [row["apart"] for row in repaired if row["apart"] is not None]


def _listed(
    conn: Connection,
    work: ChunkedCheck,
    given: list[Any],
    *,
    values: bool = False,
    most: int = LISTED,
) -> list[tuple[str, str | None]]:
    rows = execute_stored(conn, work.listing, [*given, most, values])
    return [(row["key"], row["given"]) for row in rows]


def unguarded(conn: Connection, work: ChunkedUpdate | ChunkedCheck) -> Failed:
    """
    Return the error of a chunk without its dual write.

    Raises:
        psycopg.Error: the table is gone.
    """
    # Dropped since the question was planned: then the server says so.
    ask(conn, "SELECT $1::text::regclass", [str(work.table)])
    tables = work.guard_tables or (work.root or work.table,)
    where = " or on ".join(f"table {table}" for table in tables)
    if work.root in tables:
        where += " or on one of its partitions"
    return Failed(
        f"The dual-write trigger on {where} is missing or not enabled ALWAYS:"
        " writes may be lost between the two sides.",
        state="Earlier chunks are committed; nothing runs on.",
        next="roll the change back, then expand again.",
    )
