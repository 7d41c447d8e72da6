"""Progress on standard error: bars on a terminal, plain lines elsewhere."""

import sys
import time
from collections import deque
from typing import Any

import click
from tqdm import tqdm

from migrator.words import counted, duration

# Seconds after which a wait is told again, and progress where there is no bar.
AGAIN_S = 30.0
# Seconds over which the rate that is shown is measured.
RATE_S = 10.0
# Rows out of step that are told one by one; the ledger has more of them.
TOLD = 20


class Bars:
    """One step after the other; every line that stays is a whole sentence."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._name, self._compares, self._word = "", False, "done"
        self._waits = ("", 0.0)
        self._start(None)

    def _start(self, total: int | None) -> None:
        self._total, self._done, self._rows = total, 0.0, 0
        #: Of the rows, those of this process.
        self._own, self._stood = 0, False
        self._busy, self._waited, self._mismatches = 0.0, 0.0, 0
        self._began = self._told = time.monotonic()
        self._recent = deque([(self._began, 0, 0.0)])

    def phase(self, change: str, phase: str) -> None:
        """Name the phase."""
        self._close()
        self._word = "taken back" if phase == "rollback" else "done"
        click.secho(f"{phase} {change}", bold=True, err=True)

    def step(self, name: str, total: int | None, *, compares: bool = False) -> None:
        """Open a bar where the step goes in chunks."""
        self._close()
        self._name, self._compares = name, compares
        self._start(total)
        if total:
            self._bar = tqdm(
                total=total,
                desc=f"  {name}",
                bar_format="{desc}: {percentage:3.0f}%|{bar:20}|{postfix}",
                disable=None,
                leave=False,
            )

    def advance(self, done: float, rows: int, seconds: float) -> None:
        """Move the bar by a chunk."""
        self._done, self._rows = self._done + done, self._rows + rows
        self._own += rows
        self._busy += seconds
        now = time.monotonic()
        self._recent.append((now, self._rows, self._done))
        while now - self._recent[0][0] > RATE_S and len(self._recent) > 2:
            self._recent.popleft()
        if self._bar is not None and not self._bar.disable:
            self._bar.set_postfix_str(self._figures(), refresh=False)
            self._move(self._bar)
        elif self._total and now - self._told > AGAIN_S:
            self._told = now
            share = min(self._done / self._total, 1.0)
            click.echo(f"  {self._name}: {share:.0%}, {self._figures()}", err=True)

    def stands(self, done: float, rows: int) -> None:
        """Take over what all processes have done by now."""
        self._done, self._rows = done, rows
        if not self._stood:
            # What was there before is no part of the rate.
            self._recent = deque([(time.monotonic(), rows, done)])
        self._stood = True
        if self._bar is not None and not self._bar.disable:
            self._move(self._bar)

    def _move(self, bar: "tqdm[Any]") -> None:
        bar.update(min(self._done, self._total or 0) - bar.n)

    def _figures(self) -> str:
        """Return rows, rate, time left and the share of time that it waited."""
        first, last = self._recent[0], self._recent[-1]
        took = max(last[0] - first[0], 1e-3)
        rate, speed = (last[1] - first[1]) / took, (last[2] - first[2]) / took
        parts = [self._counted]
        if not self._compares:
            parts.append(f"{counted(rate)}/s")
        if speed > 0 and self._total:
            left = max(self._total - self._done, 0) / speed
            parts.append(f"{duration(left)} left")
        return ", ".join([*parts, *self._throttled()])

    @property
    def _counted(self) -> str:
        return counted(self._rows) + (" out of step" if self._compares else "")

    def _throttled(self) -> list[str]:
        share = self._waited / max(self._busy + self._waited, 1e-3)
        return [f"waited {share:.0%} of the time"] if share >= 0.01 else []

    def waiting(self, reason: str, seconds: float = 0.0) -> None:
        """Say why it waits; as a line only where it is news."""
        self._waited += seconds
        if self._bar is not None and not self._bar.disable:
            self._bar.set_postfix_str(f"{self._counted}, waiting: {reason}")
            return
        what, now = reason.partition(" is ")[0], time.monotonic()
        if what != self._waits[0] or now - self._waits[1] > AGAIN_S:
            self._waits = (what, now)
            name = f"{self._name}: " if self._name else ""
            click.echo(f"  {name}waiting: {reason}", err=True)

    def mismatch(
        self, key: str, given: str | None, *, repaired: bool, wrong: str = ""
    ) -> None:
        """Name a row that was out of step."""
        self._mismatches += 1
        if self._mismatches > TOLD:
            return
        what = f"is {wrong}" if wrong else "stays out of step"
        if repaired:
            what = f"was {wrong or 'out of step'} and is repaired"
        values = f" (it was {given})" if given else ""
        more = " Further rows are counted." if self._mismatches == TOLD else ""
        with tqdm.external_write_mode(file=sys.stderr):
            click.secho(f"  row {key} {what}{values}.{more}", fg="yellow", err=True)

    def done(self, name: str) -> None:
        """Close the step with a line."""
        chunked = self._total is not None
        self._close()
        figures = ""
        if chunked:
            shared = 0 < self._rows != self._own and not self._compares
            mine = f", {self._own:,} of them by this run," if shared else ""
            figures = f", {self._counted}{mine}{self._took()}"
        click.echo(f"  {name}: {self._word}{figures}", err=True)
        self._start(None)

    def kept(self, name: str, why: str) -> None:
        """Close a step that has no way back, with the reason."""
        self._close()
        click.echo(f"  {name}: nothing is taken back; {why}", err=True)
        self._start(None)

    def helped(self, name: str) -> None:
        """Close the step with what this process did of it."""
        self._close()
        what = f"helped with {counted(self._own)}{self._took()}"
        left = what if self._own else "nothing is left to take"
        click.echo(f"  {name}: {left}", err=True)
        self._start(None)

    def _took(self) -> str:
        """Return how long this process was at it, its rate, and how long it waited."""
        took = time.monotonic() - self._began
        moved = self._own > 0 and not self._compares
        rate = f" ({counted(self._own / took)}/s)" if moved else ""
        return ", ".join([f" in {took:.1f} s{rate}", *self._throttled()])

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
