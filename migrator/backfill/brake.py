"""How long a worker waits after a chunk, and why."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from migrator.errors import Held
from migrator.guard import Action, Verdict
from migrator.ledger.control import Control, Limits, Mode
from migrator.words import counted

# Seconds between looks at a change that is paused, or that waits for its limit.
LOOK_S = 0.5
# A throttled worker rests as long as its chunk took, then twice as long after each
# chunk while the signal stays, up to this many times: 1/17 of its speed.
STRONGEST = 16.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """
    What a worker reads with each chunk.

    Args:
        control: what people say.
        workers: connections at work on the step, of all processes.
        wal_bytes: WAL position of the server.
        at_s: when it was read, on the monotonic clock.
    """

    control: Control = field(default_factory=Control)
    workers: int = 1
    wal_bytes: int = 0
    at_s: float = 0.0


@dataclass(slots=True)
class Brake:
    """
    Keeps one worker to its limits.

    Args:
        change: its id.
        stop: ends every wait.
        tell: told why it waits, and for how many seconds now.
        verdict: of the live signals.
    """

    change: str
    stop: threading.Event
    tell: Callable[[str, float], None]
    verdict: Callable[[], Verdict] = Verdict
    _strength: float = 1.0
    _last: Reading | None = field(default=None)

    def after(
        self, rows: int, seconds: float, reading: Reading, look: Callable[[], Reading]
    ) -> Reading:
        """
        Wait after a chunk for as long as limits and people ask for.

        Args:
            rows: of the chunk.
            seconds: that it took.
            reading: of the chunk.
            look: reads again; called while it waits.

        Returns:
            The last reading.

        Raises:
            Held: somebody aborted the change.
        """
        began = time.monotonic() - seconds
        while not self.stop.is_set():
            reason, wait_s = self._wanted(rows, began, seconds, reading)
            if wait_s <= 0:
                break
            wait_s = min(wait_s, LOOK_S)
            self.tell(reason, wait_s)
            self.stop.wait(wait_s)
            reading = look()
        self._last = reading
        throttled = self.verdict().action is Action.THROTTLE
        self._strength = min(self._strength * 2, STRONGEST) if throttled else 1.0
        return reading

    def _wanted(
        self, rows: int, began: float, seconds: float, reading: Reading
    ) -> tuple[str, float]:
        control = reading.control
        if control.mode is Mode.ABORT:
            raise Held(
                f"{self.change} was {control.said}.",
                state="What was committed stays; both releases go on.",
                next=f"`migrator resume {self.change}`, then go on; or roll it back.",
            )
        if control.mode is Mode.PAUSE:
            return control.said, LOOK_S
        verdict = self.verdict()
        if verdict.action.rank >= Action.PAUSE.rank:
            return verdict.reason, LOOK_S
        if verdict.action is Action.THROTTLE:
            left = began + seconds * (1 + self._strength) - time.monotonic()
            if left > 0:
                return verdict.reason, left
        limits = control.limits
        if limits.max_rows_per_s is not None:
            share = limits.max_rows_per_s / max(reading.workers, 1)
            left = began + rows / share - time.monotonic()
            if left > 0:
                return f"limit of {counted(limits.max_rows_per_s)}/s", left
        return self._wal_wanted(limits, reading)

    def _wal_wanted(self, limits: Limits, reading: Reading) -> tuple[str, float]:
        if limits.max_wal_bytes_per_s is None or self._last is None:
            return "", 0.0
        written = reading.wal_bytes - self._last.wal_bytes
        due = self._last.at_s + written / limits.max_wal_bytes_per_s
        megabytes = limits.max_wal_bytes_per_s / 1e6
        return f"limit of {megabytes:,.1f} MB/s of WAL", due - time.monotonic()
