"""What the engine tells while it works; the command line draws it."""

from typing import Protocol


class Progress(Protocol):
    """Receives what happens; every call returns at once."""

    def phase(self, change: str, phase: str) -> None:
        """A phase starts."""

    def step(self, name: str, total: int | None, *, compares: bool = False) -> None:
        """
        A step starts; `total` is given where it goes in chunks.

        Rows of a step that compares are those out of step.
        """

    def advance(self, done: float, rows: int, seconds: float) -> None:
        """A chunk is committed: so much of the total, its rows, and its time."""

    def stands(self, done: float, rows: int) -> None:
        """The step's progress by all processes: so much of the total, and rows."""

    def waiting(self, reason: str, seconds: float = 0.0) -> None:
        """The step waits, why, and for how long now."""

    def mismatch(
        self, key: str, given: str | None, *, repaired: bool, wrong: str = ""
    ) -> None:
        """A row was out of step, or `wrong`: its key; values where they may be told."""

    def done(self, name: str) -> None:
        """The step is done."""

    def kept(self, name: str, why: str) -> None:
        """Going back leaves what the step did, and why."""

    def helped(self, name: str) -> None:
        """Nothing of the step is left to take; others are still at it, or were."""


class Silent:
    """A progress that tells nothing."""

    def phase(self, change: str, phase: str) -> None:
        """Ignore it."""

    def step(self, name: str, total: int | None, *, compares: bool = False) -> None:
        """Ignore it."""

    def advance(self, done: float, rows: int, seconds: float) -> None:
        """Ignore it."""

    def stands(self, done: float, rows: int) -> None:
        """Ignore it."""

    def waiting(self, reason: str, seconds: float = 0.0) -> None:
        """Ignore it."""

    def mismatch(
        self, key: str, given: str | None, *, repaired: bool, wrong: str = ""
    ) -> None:
        """Ignore it."""

    def done(self, name: str) -> None:
        """Ignore it."""

    def kept(self, name: str, why: str) -> None:
        """Ignore it."""

    def helped(self, name: str) -> None:
        """Ignore it."""
