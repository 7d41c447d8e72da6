"""How long a worker tries again after it got no lock."""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from migrator.errors import LockBudgetError

# Seconds between two tries, doubled up to the second; each is drawn at random
# below its bound, so that two workers do not meet again.
FIRST_PAUSE_S = 0.02
LAST_PAUSE_S = 2.0


@dataclass(slots=True)
class Patience:
    """
    Tries of one thing: a chunk, a claim, the start of a pass.

    Args:
        step: its name.
        budget_s: how long they may go on.
        tell: told that it waits, and for how many seconds now.
        stop: ends a pause.
    """

    step: str
    budget_s: float
    tell: Callable[[str, float], None]
    stop: threading.Event
    _pause_s: float = FIRST_PAUSE_S
    _since: float = field(default_factory=time.monotonic)

    def pause(self, error: Exception, where: str) -> None:
        """
        Wait before the next try.

        Args:
            error: after which it is tried again.
            where: on which part of the table, for the message.

        Raises:
            LockBudgetError: the budget is used up.
        """
        if time.monotonic() - self._since > self.budget_s:
            raise LockBudgetError(
                f"Step '{self.step}' found rows locked for {self.budget_s:.0f} s:"
                f" {where}.",
                state="Earlier chunks are committed; it goes on from here.",
                next="end the transaction that holds them (pg_prepared_xacts has those"
                " without a session), then run the same command again.",
            ) from error
        wait_s = random.uniform(0, self._pause_s)
        self.tell("rows are locked, or it took too long", wait_s)
        self.stop.wait(wait_s)
        self._pause_s = min(self._pause_s * 2, LAST_PAUSE_S)
