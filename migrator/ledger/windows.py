"""Windows of a chunked step: who works on which part, and what is done.

A window belongs to a lease's token. Its row is changed in each chunk's
transaction, so that a worker whose window was given to another cannot commit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql

from migrator.ledger import samples
from migrator.postgres.connection import Connection

#: A row's key, as text; the empty one stands before all.
Key = list[str]
#: Cuts a window from a key (not included) up to another: its end, and its rows.
Cut = Callable[[Key, Key], tuple[Key, int]]


# Condition of a window `w` whose holder is gone, or gave it back.
_FREE = (
    "NOT EXISTS (SELECT FROM migrator.leases l WHERE l.token = w.token"
    " AND l.expires_at > clock_timestamp())"
)
# Condition of a step `s` of which a part was never given out.
_LEFT = (
    "CASE WHEN s.end_key IS NULL THEN s.next_block < s.end_block"
    " ELSE s.next_key <> s.end_key END"
)
# No lease has this token.
_NOBODY = 0

#: Query of how many connections work on a step; `$3` is its id.
AT_WORK = (
    "SELECT count(*) FROM migrator.windows"
    f" WHERE step = $3::bigint AND token <> {_NOBODY}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """
    A part of a step, held by a token.

    Blocks `start` to `stop` (not included); or, where there are keys, the rows
    after `after` up to `upto`, counted from `start` to `stop`.
    """

    step: int
    start: int
    stop: int
    token: int
    after: Key | None = None
    upto: Key | None = None


def begin(
    conn: Connection, step: int, end: int, file_node: int, end_key: Key | None = None
) -> None:
    """
    Enter the fixed end of a pass, before its first chunk.

    Args:
        conn: in a transaction.
        step: the chunked step.
        end: blocks of the table; with keys, how many rows are expected.
        file_node: a number of the table's file; blocks mean nothing in another one.
        end_key: the last key, where it goes by keys.
    """
    for table in ("windows", "samples", "mismatches"):
        conn.execute(
            sql.SQL("DELETE FROM migrator.{} WHERE step = %s").format(
                sql.Identifier(table)
            ),
            (step,),
        )
    conn.execute(
        "UPDATE migrator.steps SET next_block = 0, end_block = %s, file_node = %s,"
        " next_key = %s::text[], end_key = %s::text[],"
        " rows = 0, mismatches = 0, busy_ms = 0, waited_ms = 0, status = 'running'"
        " WHERE id = %s",
        (end, file_node, None if end_key is None else [], end_key, step),
    )
    samples.take(conn, step)


def claim(
    conn: Connection, step: int, size: int, token: int, cut: Cut | None = None
) -> Window | None:
    """
    Take over a window whose holder is gone, or the next one.

    Args:
        conn: in a transaction.
        step: the chunked step.
        size: of a new window, in blocks or rows.
        token: of the lease under which it is worked on.
        cut: finds the end of a new window, where the step goes by keys.

    Returns:
        None where nothing is left to be given out.
    """
    # Rows that were left out of step are found, and counted, once more.
    row = conn.execute(
        "UPDATE migrator.windows SET token = %(token)s, done = 0, waiting = '',"
        " rows = rows - mismatches, mismatches = 0"
        " WHERE (step, start_block) = ("
        "SELECT w.step, w.start_block FROM migrator.windows w WHERE w.step = %(step)s"
        f" AND {_FREE} ORDER BY w.start_block LIMIT 1 FOR UPDATE SKIP LOCKED)"
        " RETURNING start_block, stop_block, start_key, stop_key",
        {"step": step, "token": token},
    ).fetchone()
    if row is not None:
        return Window(
            step=step,
            start=int(row["start_block"]),
            stop=int(row["stop_block"]),
            token=token,
            after=row["start_key"],
            upto=row["stop_key"],
        )
    given = conn.execute(
        "SELECT next_block, end_block, next_key, end_key FROM migrator.steps"
        " WHERE id = %s FOR UPDATE",
        (step,),
    ).fetchone()
    if given is None:
        return None
    start, end = int(given["next_block"]), int(given["end_block"])
    after: Key | None = given["next_key"]
    upto: Key | None = None
    if cut is None or after is None:
        stop = min(start + size, end)
        empty = stop <= start
    else:
        upto, rows = cut(after, given["end_key"])
        # A window's start tells it from others, also where its rows are gone.
        stop = start + max(rows, 1)
        empty = after == given["end_key"]
    if empty:
        return None
    conn.execute(
        "UPDATE migrator.steps SET next_block = %s, next_key = %s::text[],"
        " end_block = greatest(end_block, %s) WHERE id = %s",
        (stop, upto, stop, step),
    )
    conn.execute(
        "INSERT INTO migrator.windows"
        " (step, start_block, stop_block, token, start_key, stop_key)"
        " VALUES (%s, %s, %s, %s, %s::text[], %s::text[])",
        (step, start, stop, token, after, upto),
    )
    return Window(
        step=step, start=start, stop=stop, token=token, after=after, upto=upto
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """
    What one chunk adds to its window.

    Args:
        rows: changed, or found out of step.
        mismatches: rows left out of step.
        done: of the window, in blocks or rows: a share of them where it is gone
            over several times.
        busy_ms: that the worker worked since its last advance.
        waited_ms: that it waited since then.
        size: of the next chunk, in blocks or rows.
    """

    rows: int = 0
    mismatches: int = 0
    done: float = 0.0
    busy_ms: float = 0.0
    waited_ms: float = 0.0
    size: int | None = None


def advance(conn: Connection, window: Window, by: Advance) -> int | None:
    """
    Enter a chunk in the transaction of its data.

    Returns:
        The server's WAL position in bytes; None where the window is not the token's
        any more.
    """
    row = conn.execute(
        "UPDATE migrator.windows SET rows = rows + %s, mismatches = mismatches + %s,"
        " done = done + %s, busy_ms = busy_ms + %s, waited_ms = waited_ms + %s,"
        " waiting = '' WHERE step = %s AND start_block = %s AND token = %s"
        " RETURNING (pg_catalog.pg_current_wal_insert_lsn() - '0/0')::bigint AS wal",
        (
            by.rows,
            by.mismatches,
            by.done,
            by.busy_ms,
            by.waited_ms,
            window.step,
            window.start,
            window.token,
        ),
    ).fetchone()
    return None if row is None else int(row["wal"])


def waits(conn: Connection, window: Window, reason: str) -> None:
    """Enter why a window's worker waits; its next advance takes that back."""
    conn.execute(
        "UPDATE migrator.windows SET waiting = %s"
        " WHERE step = %s AND start_block = %s AND token = %s",
        (reason, window.step, window.start, window.token),
    )


def finish(
    conn: Connection, window: Window, last: Advance | None = None
) -> tuple[int, int] | None:
    """
    Enter a window's end, in a transaction with its last chunk or after it.

    Args:
        conn: in a transaction.
        window: all of it is done.
        last: what is still to be added, but rows.

    Returns:
        The step's rows before and after, in which no two windows overlap; None
        where the window is not the token's any more.
    """
    row = conn.execute(
        "DELETE FROM migrator.windows WHERE step = %s AND start_block = %s"
        " AND token = %s RETURNING rows, mismatches, busy_ms, waited_ms",
        (window.step, window.start, window.token),
    ).fetchone()
    last = last or Advance()
    if row is None:
        return None
    total = conn.execute(
        "UPDATE migrator.steps SET rows = rows + %(rows)s,"
        " mismatches = mismatches + %(mismatches)s,"
        " busy_ms = busy_ms + %(busy_ms)s, waited_ms = waited_ms + %(waited_ms)s,"
        " chunk = COALESCE(%(size)s, chunk) WHERE id = %(step)s RETURNING rows",
        {
            **row,
            "busy_ms": row["busy_ms"] + last.busy_ms,
            "waited_ms": row["waited_ms"] + last.waited_ms,
            "size": last.size,
            "step": window.step,
        },
    ).fetchone()
    assert total is not None
    return int(total["rows"]) - int(row["rows"]), int(total["rows"])


def give_back(conn: Connection, window: Window) -> None:
    """Leave a window to whoever claims it next, and goes over all of it again."""
    conn.execute(
        "UPDATE migrator.windows SET token = %s, done = 0, waiting = ''"
        " WHERE step = %s AND start_block = %s AND token = %s",
        (_NOBODY, window.step, window.start, window.token),
    )


def is_open(conn: Connection, step: int) -> bool:
    """Tell whether windows of a step are still held, or to be given out."""
    return _is(conn, step, "")


def is_claimable(conn: Connection, step: int) -> bool:
    """Tell whether a window of a step could be claimed just now."""
    return _is(conn, step, f" AND {_FREE}")


def _is(conn: Connection, step: int, such: LiteralString) -> bool:
    row = conn.execute(
        f"SELECT {_LEFT} OR EXISTS (SELECT FROM migrator.windows w"
        f" WHERE w.step = s.id{such}) AS so FROM migrator.steps s WHERE s.id = %s",
        (step,),
    ).fetchone()
    return bool(row and row["so"])
