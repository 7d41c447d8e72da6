"""Settings of the engine, each with its unit and the reason for its default."""

import time
from dataclasses import dataclass

from migrator.errors import TimeIsUp


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    What a run may be told.

    Args:
        lock_timeout_ms: longest wait of a step for a lock, and so longest wait
            of an application's statement that queues behind it. 200 ms is below
            what a person notices and far below usual request limits.
        step_budget_s: how long a step is tried again before it gives up.
        build_budget_s: how long a concurrent build may wait for old snapshots, and a
            concurrent drop for those who have used the table;
            it blocks nobody meanwhile, so that it gets a budget of its own.
        target_ms: longest wanted time of a chunk's transaction; a backfill that is
            over in seconds makes shorter ones. A request that meets a locked row
            waits one chunk at most. Both are cut where a chunk would else outlast
            four fifths of the server's deadlock_timeout (`backfill/bounds.py`).
        hold_s: how long retired and parked objects are kept, 7 days.
        lease_s: how long a lease lives without a heartbeat.
        workers: connections of this process that share a backfill.
        show_values: whether verification tells the values of rows out of step.
        chunking: `strides`, `blocks` or `keys`; None chooses from facts.
        guard_rows: rows from which on a table counts as in use, so that a plain
            revision that is a hazard to it is refused. Below 1,000 are the tables of
            a developer's own database and of fixtures, where a refusal would only
            teach to switch the guard off.
        until_s: on the monotonic clock, after which no further step or chunk is
            begun; None sets no limit.
    """

    lock_timeout_ms: int = 200
    step_budget_s: float = 60.0
    build_budget_s: float = 600.0
    target_ms: float = 100.0
    hold_s: float = 7 * 24 * 3600.0
    lease_s: float = 15.0
    workers: int = 1
    show_values: bool = False
    chunking: str | None = None
    guard_rows: int = 1000
    until_s: float | None = None

    @property
    def left_s(self) -> float | None:
        """Seconds until the time limit, at least 0; None where there is none."""
        return None if self.until_s is None else max(self.until_s - time.monotonic(), 0)

    def within(self, seconds: float) -> float:
        """Return a wait in seconds, cut where the time limit comes first."""
        return seconds if self.left_s is None else min(seconds, self.left_s)

    def require_time(self, what: str) -> None:
        """
        Go no further once the time limit is reached.

        Args:
            what: what it was about to do, or did.

        Raises:
            TimeIsUp: it is reached.
        """
        if self.left_s == 0:
            raise TimeIsUp(
                f"The time limit was reached: {what}.",
                state="What was committed stays.",
                next="run the same command again; it goes on from there.",
            )
