"""How long a chunk may take, so that no request is ended for its sake."""

from dataclasses import dataclass

# Times the target after which a chunk is ended by the server and split.
LATE = 4.0
# Share of deadlock_timeout after which a chunk is ended whatever its target. A request
# that has waited for the whole of it looks for a deadlock, and is ended where it finds
# one (manual, section 19.12): by then a chunk is gone, with its bookkeeping.
OF_DEADLOCK = 0.8
# Below this, in ms, nothing could be done in a chunk: where deadlock_timeout is shorter
# than 125 ms, it is kept no longer.
LEAST_MS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """
    How long a chunk may take, in ms.

    Args:
        target_ms: wanted length of its transaction.
        lock_ms: its longest wait for a lock.
        statement_ms: its longest statement, waits for locks included.
        at_most: whether no other target would give it more.
    """

    target_ms: float
    lock_ms: int
    statement_ms: int
    at_most: bool


def bounds(target_ms: float, lock_ms: int, deadlock_ms: int) -> Bounds:
    """
    Return what a chunk may take.

    Args:
        target_ms: wanted length of a chunk, in ms.
        lock_ms: longest wanted wait for a lock, in ms.
        deadlock_ms: the server's `deadlock_timeout`, in ms.
    """
    most = max(int(deadlock_ms * OF_DEADLOCK), LEAST_MS)
    lock_ms = min(lock_ms, most // 3)
    rest = most - lock_ms
    return Bounds(
        # Half of what is left: a chunk that takes twice as long is not ended yet.
        target_ms=min(target_ms, rest / 2),
        lock_ms=lock_ms,
        statement_ms=lock_ms + min(int(target_ms * LATE), rest),
        at_most=target_ms * LATE >= rest,
    )
