"""Settings of the engine, each with its unit and the reason for its default."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    What a run may be told.

    Args:
        lock_timeout_ms: longest wait of a step for a lock, and so longest wait
            of an application's statement that queues behind it. 200 ms is below
            what a person notices and far below usual request limits.
        step_budget_s: how long a step is tried again before it gives up.
        build_budget_s: how long a concurrent build may wait for old snapshots;
            it blocks nobody meanwhile, so that it gets a budget of its own.
        target_ms: longest wanted time of a chunk's transaction; a backfill that is
            over in seconds makes shorter ones. A request that meets a locked row
            waits one chunk at most; with `lock_timeout_ms` it stays well under
            deadlock_timeout (1,000 ms unless configured).
        hold_s: how long retired and parked objects are kept, 7 days.
        lease_s: how long a lease lives without a heartbeat.
        workers: connections of this process that share a backfill.
        show_values: whether verification tells the values of rows out of step.
        chunking: `strides`, `blocks` or `keys`; None chooses from facts.
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
