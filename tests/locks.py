"""What a step locks, and what it does where it gets no lock."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from migrator.plan import Action, Autocommit, Lock

# Lock modes as pg_locks spells them.
MODES = {
    f"{''.join(w.capitalize() for w in lock.value.split())}Lock": lock for lock in Lock
}
# Steps declare the next stronger one instead.
MODES["ShareLock"] = Lock.SHARE_ROW_EXCLUSIVE


def taken(conn: psycopg.Connection, action: Action, *tables: str) -> dict[str, Lock]:
    """
    Run an action's statements, and take them back.

    Returns:
        The strongest lock on each table of those that are asked for.
    """
    found: dict[str, Lock] = {}
    statements = (
        [action.statement] if isinstance(action, Autocommit) else action.statements
    )
    with conn.transaction(force_rollback=True):
        for statement in statements:
            conn.execute(statement.encode())
        # Statements may have left another one.
        conn.execute("SET LOCAL search_path TO DEFAULT")
        for table in tables:
            rows = conn.execute(
                "SELECT mode FROM pg_locks WHERE pid = pg_backend_pid()"
                " AND relation = %s::regclass",
                [table],
            ).fetchall()
            found[table] = max(
                (MODES[mode] for (mode,) in rows),
                key=lambda lock: lock.rank,
                default=Lock.NONE,
            )
    return found


@contextmanager
def holding(url: str, table: str, mode: str) -> Iterator[None]:
    """Hold a lock on a table in a session of an application."""
    with psycopg.connect(url, application_name="billing") as other:
        other.execute(f"LOCK TABLE {table} IN {mode} MODE".encode())
        yield
