"""What the engine tells while it works; the command line draws it."""

from typing import Protocol


class Progress(Protocol):
    """Receives what happens; every call returns at once."""

    def phase(self, change: str, phase: str) -> None:
        """A phase starts."""

    def step(self, name: str, total_blocks: int | None) -> None:
        """A step starts; `total_blocks` is given where it goes in chunks."""

    def advance(self, blocks: int, rows: int) -> None:
        """A chunk is committed."""

    def waiting(self, reason: str) -> None:
        """The step waits, and why."""

    def done(self, name: str) -> None:
        """The step is done."""


class Silent:
    """A progress that tells nothing."""

    def phase(self, change: str, phase: str) -> None:
        """Ignore it."""

    def step(self, name: str, total_blocks: int | None) -> None:
        """Ignore it."""

    def advance(self, blocks: int, rows: int) -> None:
        """Ignore it."""

    def waiting(self, reason: str) -> None:
        """Ignore it."""

    def done(self, name: str) -> None:
        """Ignore it."""
