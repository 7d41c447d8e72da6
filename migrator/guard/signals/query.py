"""A query of the user's."""

from dataclasses import dataclass
from typing import Any

from migrator.guard.signal import Signal, Subject, UnavailableError, Unit, finite
from migrator.postgres.connection import Connection, ask


@dataclass
class Query(Signal):
    """
    The one number that an SQL query of the user's returns.

    Args:
        name: the user's name for it.
        sql: the query; it runs on the change's database.
    """

    name: str
    sql: str
    unit = Unit.COUNT

    def read(self, conn: Connection, subject: Subject) -> tuple[float, str]:
        """Return the number."""
        with conn.transaction():
            # What it writes it would write each second.
            conn.execute("SET TRANSACTION READ ONLY")
            found: Any = ask(conn, self.sql)
        if found is None:
            raise UnavailableError("the query returns nothing")
        return finite(found, "what the query returns"), ""
