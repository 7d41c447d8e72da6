"""`lock_timeout` of the connection on which a revision runs."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from alembic.runtime.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from migrator.postgres.connection import LOOK_MS
from migrator.settings import Settings

# The session's own timeout counts where it is shorter, and the one that the revision
# has set itself in any case. As in the engine's transactions, a deadlock is looked for
# soon, where the role may ask for that: the application is not its victim then.
_BEGIN = text(
    "SELECT now.lock AS session, now.path, now.pid,"
    " CASE WHEN now.lock = COALESCE(given.known, now.lock)"
    "   AND NOT now.lock::interval BETWEEN '1 ms' AND given.lock::interval"
    " THEN pg_catalog.set_config('lock_timeout', given.lock, true) END,"
    " CASE WHEN pg_catalog.has_parameter_privilege('deadlock_timeout', 'SET')"
    "   AND now.deadlock::interval > given.deadlock::interval"
    " THEN pg_catalog.set_config('deadlock_timeout', given.deadlock, true) END"
    " FROM (SELECT CAST(:known AS text) AS known, CAST(:limit AS text) AS lock,"
    "   CAST(:look AS text) AS deadlock) AS given,"
    " (SELECT pg_catalog.current_setting('lock_timeout') AS lock,"
    "   pg_catalog.current_setting('deadlock_timeout') AS deadlock,"
    "   pg_catalog.current_setting('search_path') AS path,"
    "   pg_catalog.pg_backend_pid() AS pid) AS now"
)
_SESSION = text(
    "SELECT pg_catalog.set_config('lock_timeout', CAST(:limit AS text), false)"
    " WHERE pg_catalog.current_setting('lock_timeout') = CAST(:known AS text)"
)


@dataclass(slots=True, kw_only=True)
class Timeouts:
    """
    The guard's `lock_timeout`, where neither session nor revision has one of its own.

    Args:
        ctx: Alembic's.
        settings: how long is waited for a lock.
    """

    ctx: MigrationContext
    settings: Settings
    #: The backend's process id; 0 before the first transaction.
    pid: int = 0
    #: Whether the guard itself sends SQL.
    asking: bool = False
    #: Of the session before the revision; None before it is known.
    _session: str | None = None
    #: As it was set in an autocommit block; None where the revision has set its own.
    _set: str | None = None

    def begin(self) -> str:
        """Set what holds until the end of the transaction; return its search path."""
        row = self._ask(
            _BEGIN,
            known=self._session,
            limit=f"{self.settings.lock_timeout_ms}ms",
            look=f"{LOOK_MS}ms",
        )
        self.pid = row.pid
        if self._session is None:
            self._session = row.session
        return str(row.path)

    @contextmanager
    def by_itself(self) -> Iterator[None]:
        """Set the session's timeout, while each statement is a transaction."""
        self._set = self._session
        self.limit(self.settings.lock_timeout_ms)
        try:
            yield
        finally:
            if self._set is not None and self._session is not None:
                # A lost connection has no settings.
                with suppress(SQLAlchemyError):
                    self._ask(_SESSION, limit=self._session, known=self._set)

    def limit(self, lock_ms: float) -> None:
        """
        Set it for what comes next in an autocommit block, unless the revision has.

        Args:
            lock_ms: longest wait for a lock.
        """
        if self._set is not None:
            row = self._ask(_SESSION, limit=f"{lock_ms:.0f}ms", known=self._set)
            self._set = None if row is None else row[0]

    def _ask(self, query: Any, **values: Any) -> Any:
        assert self.ctx.connection is not None
        asking, self.asking = self.asking, True
        try:
            return self.ctx.connection.execute(query, values).fetchone()
        finally:
            self.asking = asking
