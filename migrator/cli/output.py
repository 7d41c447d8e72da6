"""What a person sees: progress on standard error, data on standard output."""

import json
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import click
from tqdm import tqdm

from migrator.names import TableName
from migrator.plan import (
    Autocommit,
    ChunkedCheck,
    ChunkedUpdate,
    Phase,
    Plan,
    Step,
    Transaction,
    Work,
)

# Seconds after which a wait is told again where there is no bar.
AGAIN_S = 30.0


class Bars:
    """Progress as bars on a terminal, and as plain lines elsewhere."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._name = ""
        self._rows = 0
        self._waits = ("", 0.0)

    def phase(self, change: str, phase: str) -> None:
        """Name the phase."""
        self._close()
        click.secho(f"{phase} {change}", bold=True, err=True)

    def step(self, name: str, total_blocks: int | None) -> None:
        """Open a bar where the step goes in chunks."""
        self._close()
        self._name, self._rows = name, 0
        if total_blocks:
            self._bar = tqdm(
                total=total_blocks,
                desc=f"  {name}",
                unit=" blocks",
                disable=None,
                leave=False,
            )

    def advance(self, blocks: int, rows: int) -> None:
        """Move the bar by a chunk."""
        self._rows += rows
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self._rows:,} rows", refresh=False)
            self._bar.update(blocks)

    def waiting(self, reason: str) -> None:
        """Say why it waits; as a line only where it is news."""
        if self._bar is not None and not self._bar.disable:
            self._bar.set_postfix_str(f"waiting: {reason}")
            return
        what, now = reason.partition(" is ")[0], time.monotonic()
        if what != self._waits[0] or now - self._waits[1] > AGAIN_S:
            self._waits = (what, now)
            click.echo(f"  {self._name}: waiting: {reason}", err=True)

    def done(self, name: str) -> None:
        """Close the step with a line."""
        chunked = self._bar is not None
        self._close()
        rows = f", {self._rows:,} rows" if chunked else ""
        click.echo(f"  {name}: done{rows}", err=True)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def as_json(data: Any) -> None:
    """Print data as one JSON document."""

    def plain(value: Any) -> Any:
        if isinstance(value, datetime):
            return value.isoformat()
        if isinstance(value, frozenset | set):
            return sorted(value)
        if isinstance(value, TableName):
            return {"schema": value.schema, "name": value.name}
        raise TypeError(f"{type(value).__name__} has no JSON form")

    click.echo(json.dumps(data, indent=2, default=plain))


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows in columns as wide as their widest value."""
    cells = [[str(v) for v in row] for row in rows]
    widths = [max(len(r[i]) for r in [list(head), *cells]) for i in range(len(head))]
    for number, row in enumerate([list(head), *cells]):
        line = "  ".join(v.ljust(w) for v, w in zip(row, widths, strict=True))
        click.secho(line.rstrip(), bold=number == 0)


def size(count: int) -> str:
    """Return a number of bytes for a person."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} TB"


def _sql(work: Work) -> list[str]:
    if isinstance(work, Transaction):
        return list(work.statements)
    if isinstance(work, Autocommit):
        return [work.statement]
    if isinstance(work, ChunkedUpdate):
        strided = [work.strided] if work.chunking.stride > 1 else []
        keyset = work.chunking.keyset
        return [*([keyset.bound] if keyset else []), *strided, work.statement]
    return [work.count]


def _estimate(plan: Plan, work: Work) -> str:
    if isinstance(work, ChunkedUpdate | ChunkedCheck):
        return f"about {plan.rows:,} rows in chunks ({size(plan.size_bytes)})"
    if isinstance(work, Autocommit) and work.scans:
        return f"reads about {plan.rows:,} rows ({size(plan.size_bytes)})"
    return "catalogue only, no scan"


def _reverse(step: Step) -> str:
    if step.reverse:
        kept = ", values parked" if step.parked else ""
        return f"yes{kept}"
    return f"no: {step.no_reverse}" if step.loses else f"not needed: {step.no_reverse}"


def plan(found: Plan) -> None:
    """Print a plan for a reviewer."""
    click.secho(f"{found.change}: {found.title}", bold=True)
    click.echo(
        f"Table {found.table}, about {found.rows:,} rows, {size(found.size_bytes)}."
    )
    click.echo(f"The new release may be let in from: {found.admission}.")
    for notice in found.notices:
        click.secho(f"Note: {notice.text}", fg="yellow")
    for phase in Phase:
        steps = found.steps(phase)
        if not steps:
            continue
        click.echo()
        click.secho(phase.value, bold=True)
        for step in steps:
            lock = step.work.lock
            kind = {
                Transaction: "one transaction",
                Autocommit: "one statement, outside a transaction",
                ChunkedUpdate: "many short transactions",
                ChunkedCheck: "many short transactions",
            }[type(step.work)]
            click.echo(f"  {step.name}: {kind}")
            click.echo(f"    lock        {lock} on {step.work.table}")
            click.echo(f"    size        {_estimate(found, step.work)}")
            if isinstance(step.work, ChunkedUpdate):
                click.echo(f"    chunking    {step.work.chunking.reason}")
            click.echo(f"    reversible  {_reverse(step)}")
            for statement in _sql(step.work):
                first, *rest = statement.strip().split("\n")
                click.secho(f"    | {first}", dim=True)
                for line in rest:
                    click.secho(f"    | {line}", dim=True)
