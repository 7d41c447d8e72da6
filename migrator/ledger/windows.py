"""Windows of a chunked step: who works on which blocks, and what is done.

A window belongs to a lease's token. Its row is changed in each chunk's
transaction, so that a worker whose window was given to another cannot commit.
"""

from dataclasses import dataclass

from migrator.postgres.connection import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Blocks `start` to `stop` (not included) of a step, held by a token."""

    step: int
    start: int
    stop: int
    token: int


def begin(conn: Connection, step: int, end_block: int, file_node: int) -> None:
    """Enter the fixed end of a pass, before its first chunk."""
    conn.execute("DELETE FROM migrator.windows WHERE step = %s", (step,))
    conn.execute(
        "UPDATE migrator.steps SET next_block = 0, end_block = %s, file_node = %s,"
        " rows = 0, mismatches = 0, status = 'running' WHERE id = %s",
        (end_block, file_node, step),
    )


def claim(conn: Connection, step: int, blocks: int, token: int) -> Window | None:
    """
    Take over a window whose holder is gone, or the next one.

    Args:
        conn: in a transaction.
        step: the chunked step.
        blocks: length of a new window.
        token: of the lease under which it is worked on.

    Returns:
        None where nothing is left to be given out.
    """
    row = conn.execute(
        "UPDATE migrator.windows SET token = %(token)s WHERE (step, start_block) = ("
        "SELECT w.step, w.start_block FROM migrator.windows w WHERE w.step = %(step)s"
        " AND NOT EXISTS (SELECT FROM migrator.leases l WHERE l.token = w.token"
        " AND l.expires_at > clock_timestamp())"
        " ORDER BY w.start_block LIMIT 1 FOR UPDATE SKIP LOCKED)"
        " RETURNING start_block, stop_block",
        {"step": step, "token": token},
    ).fetchone()
    if row is not None:
        start, stop = int(row["start_block"]), int(row["stop_block"])
        return Window(step=step, start=start, stop=stop, token=token)
    given = conn.execute(
        "SELECT next_block, end_block FROM migrator.steps WHERE id = %s FOR UPDATE",
        (step,),
    ).fetchone()
    if given is None or given["next_block"] >= given["end_block"]:
        return None
    start = int(given["next_block"])
    stop = min(start + blocks, int(given["end_block"]))
    conn.execute(
        "UPDATE migrator.steps SET next_block = %s WHERE id = %s", (stop, step)
    )
    conn.execute(
        "INSERT INTO migrator.windows (step, start_block, stop_block, token)"
        " VALUES (%s, %s, %s, %s)",
        (step, start, stop, token),
    )
    return Window(step=step, start=start, stop=stop, token=token)


def advance(conn: Connection, window: Window, rows: int, mismatches: int) -> bool:
    """
    Enter a chunk in the transaction of its data.

    Returns:
        False where the window is not the token's any more.
    """
    done = conn.execute(
        "UPDATE migrator.windows SET rows = rows + %s, mismatches = mismatches + %s"
        " WHERE step = %s AND start_block = %s AND token = %s",
        (rows, mismatches, window.step, window.start, window.token),
    )
    return done.rowcount == 1


def finish(conn: Connection, window: Window) -> bool:
    """
    Enter a window's end, in a transaction with its last chunk or after it.

    Returns:
        False where the window is not the token's any more.
    """
    row = conn.execute(
        "DELETE FROM migrator.windows WHERE step = %s AND start_block = %s"
        " AND token = %s RETURNING rows, mismatches",
        (window.step, window.start, window.token),
    ).fetchone()
    if row is None:
        return False
    conn.execute(
        "UPDATE migrator.steps SET rows = rows + %s, mismatches = mismatches + %s"
        " WHERE id = %s",
        (row["rows"], row["mismatches"], window.step),
    )
    return True


def is_open(conn: Connection, step: int) -> bool:
    """Tell whether windows of a step are still held, or to be given out."""
    row = conn.execute(
        "SELECT s.next_block < s.end_block OR EXISTS"
        " (SELECT FROM migrator.windows w WHERE w.step = s.id) AS open"
        " FROM migrator.steps s WHERE s.id = %s",
        (step,),
    ).fetchone()
    return bool(row and row["open"])
