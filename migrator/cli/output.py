"""Data on standard output, for a person or as JSON."""

import json
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import click

from migrator.facts import Kind
from migrator.names import TableName
from migrator.plan import (
    Autocommit,
    ChunkedCheck,
    ChunkedUpdate,
    Lock,
    Phase,
    Plan,
    Step,
    Transaction,
    Upkeep,
    Work,
)
from migrator.words import counted

# Columns of a line at most: longer ones are hard to read.
LINE = 88


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


def wrapped(text: str, indent: str = "") -> str:
    """Return a text in lines that a terminal shows whole."""
    return textwrap.fill(
        text,
        width=min(shutil.get_terminal_size().columns, LINE),
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def duration(seconds: float) -> str:
    """Return a time for a person."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours < 48 else f"{hours / 24:.1f} days"


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
        chunks = [*([keyset.bound] if keyset else []), *strided, work.statement]
        return [*chunks, *(_upkeep(work.upkeep) if work.upkeep else [])]
    repair = [f"-- where that finds rows\n{work.repair}"] if work.repair else []
    return [work.count, *repair]


def _upkeep(upkeep: Upkeep) -> list[str]:
    vacuum = upkeep.vacuum and f"after each {upkeep.every:.0%} of the rows"
    return [
        f"-- where it was never analysed, before\n{upkeep.statistics}",
        *([f"-- {vacuum}\n{upkeep.vacuum}"] if vacuum else []),
        f"-- after the last chunk\n{upkeep.analyze}",
    ]


def _estimate(plan: Plan, work: Work) -> str:
    rows = f"about {counted(plan.rows)}"
    whole = f" ({size(plan.size_bytes)})"
    if work.table != plan.table and getattr(work, "root", None) is None:
        # A further table, of whose size the plan says nothing.
        rows, whole = "all its rows", ""
    if isinstance(work, ChunkedUpdate | ChunkedCheck):
        return f"{rows} in chunks{whole}"
    if isinstance(work, Autocommit) and work.scans:
        return f"reads {rows}{whole}"
    return "catalogue only, no scan"


def _locks(work: Work) -> str:
    if work.table is None:
        return work.lock.value
    if isinstance(work, ChunkedCheck) and work.repair:
        return f"{work.lock} on {work.table}; {Lock.ROW_EXCLUSIVE} for a repair"
    also = work.also if isinstance(work, Transaction | Autocommit) else ()
    held = ((work.lock, work.table), *((a.lock, a.table) for a in also))
    return ", ".join(f"{lock} on {table}" for lock, table in held)


def _reverse(step: Step) -> str:
    if step.reverse:
        kept = ", values parked" if step.parked else ""
        return f"yes{kept}"
    return f"no: {step.no_reverse}" if step.loses else f"not needed: {step.no_reverse}"


def _subject(plan: Plan) -> str:
    kind = Kind(plan.kind)
    shown = kind.shown(plan.table)
    text = shown[0].upper() + shown[1:]
    # Of what has no file there are no rows.
    if kind in (Kind.TABLE, Kind.NEW_TABLE) or plan.size_bytes:
        text += f", about {counted(plan.rows)}, {size(plan.size_bytes)}"
    return f"{text}."


def plan(found: Plan) -> None:
    """Print a plan for a reviewer."""
    click.secho(f"{found.change}: {found.title}", bold=True)
    click.echo(_subject(found))
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
            kind = {
                Transaction: "one transaction",
                Autocommit: "one statement, outside a transaction",
                ChunkedUpdate: "many short transactions",
                ChunkedCheck: "many short transactions",
            }[type(step.work)]
            click.echo(f"  {step.name}: {kind}")
            click.echo(f"    lock        {_locks(step.work)}")
            click.echo(f"    size        {_estimate(found, step.work)}")
            if isinstance(step.work, ChunkedUpdate):
                click.echo(f"    chunking    {step.work.chunking.reason}")
            click.echo(f"    reversible  {_reverse(step)}")
            for statement in _sql(step.work):
                first, *rest = statement.strip().split("\n")
                click.secho(f"    | {first}", dim=True)
                for line in rest:
                    click.secho(f"    | {line}", dim=True)
