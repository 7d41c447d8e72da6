"""Waits for sessions that keep a lock, with nothing held or queued."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from migrator.facts import Blocker
from migrator.lint.locks import is_strong
from migrator.names import TableName
from migrator.plan import Lock
from migrator.postgres.blocking import blockers_of, held_by, move_aside
from migrator.postgres.connection import Connection
from migrator.progress import Progress, Silent
from migrator.settings import Settings

log = logging.getLogger("migrator.alembic")

# Seconds between two looks at a session that keeps its lock. A look is one query, and
# holds nothing.
LOOK_S = 0.2

#: Locks that a statement waits for: the strongest on each table.
Wanted = Mapping[TableName, Lock]


@dataclass(slots=True, kw_only=True)
class LockWaits:
    """
    What a revision waits for, and for how long it still may.

    Args:
        conn: the guard's own, in autocommit.
        settings: timeouts and budgets.
        progress: told what is waited for.
        revision: its identifier, for the log.
    """

    conn: Connection
    settings: Settings
    progress: Progress
    revision: str
    #: The revision's own backend, which is not in its way.
    pid: int = 0
    #: What it asked for last.
    wanted: Wanted = field(default_factory=dict[TableName, Lock])
    #: When nothing is waited for any longer; None before anything was.
    _until: float | None = None

    def is_late(self, pause_s: float = 0.0) -> bool:
        """
        Tell whether the budget is used up, which counts from the first wait.

        Args:
            pause_s: seconds that are to pass first.
        """
        now = time.monotonic()
        if self._until is None:
            self._until = now + self.settings.within(self.settings.step_budget_s)
        return now + pause_s > self._until

    def in_the_way(self) -> list[Blocker]:
        """Return who holds what conflicts with locks that are wanted."""
        return self._blockers(self.wanted)

    def keeping(self, wanted: Wanted) -> list[Blocker]:
        """Return who has held a strong lock for longer than one would queue for it."""
        strong = {table: lock for table, lock in wanted.items() if is_strong(lock)}
        limit_s = self.settings.lock_timeout_ms / 1000
        return [
            blocker
            for blocker in self._blockers(strong)
            if blocker.autovacuum or blocker.seconds > limit_s
        ]

    def _blockers(self, wanted: Wanted) -> list[Blocker]:
        found = {
            (blocker.pid, blocker.prepared): blocker
            for table, lock in wanted.items()
            for blocker in blockers_of(self.conn, table, lock)
            if blocker.pid != self.pid
        }
        return list(found.values())

    def wait(
        self, wanted: Wanted, late: Callable[[Sequence[Blocker]], Exception]
    ) -> None:
        """
        Wait until nobody keeps a lock that is wanted.

        Args:
            wanted: the locks.
            late: makes the error of who keeps one beyond the budget, which is raised.
        """
        told: list[str] = []
        while kept := self.keeping(wanted):
            if self.is_late():
                raise late(kept)
            if told != (told := [b.prepared or str(b.pid) for b in kept]):
                self.tell("it does not queue for a lock that is kept", kept)
            if not move_aside(self.conn, kept):
                time.sleep(LOOK_S)

    def tell(self, what: str, held: Sequence[Blocker]) -> None:
        """Say that the revision waits, why, and for whom."""
        said = " ".join(filter(None, (f"{what}.", self.held_by(held))))
        # On a console both would be the same line twice.
        level = logging.WARNING if isinstance(self.progress, Silent) else logging.INFO
        log.log(level, "Revision %s waits: %s", self.revision, said)
        self.progress.waiting(said)

    def held_by(self, held: Sequence[Blocker]) -> str:
        """Say who is in the way; "" where it is not known of what."""
        return held_by(held) if self.wanted else ""
