"""The engine's own sessions on the server."""

from migrator.postgres.connection import Connection
from migrator.postgres.queries import query


def end_sessions(conn: Connection, prefix: str, below: int) -> list[int]:
    """
    End the engine's sessions of older tokens; return those still there.

    Args:
        conn: not itself one of them.
        prefix: what the names of a scope's sessions begin with.
        below: the token from which on sessions stay.
    """
    rows = conn.execute(query("end_sessions"), {"prefix": prefix, "below": below})
    return [row["pid"] for row in rows]
