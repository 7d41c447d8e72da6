"""Data on standard output, for a person or as JSON."""

import json
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import zip_longest
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
from migrator.words import counted, size

# Columns of a line at most: longer ones are hard to read.
LINE = 88
# Columns up to which a cell of a table is left whole, if another one can be cut.
SHORT = 22
# Between two columns of a table.
GAP = "  "


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


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], indent: str = "") -> None:
    """
    Print rows in columns as wide as their widest value.

    On a terminal that is too narrow for it, the widest columns take several lines.
    Where nobody looks, a row stays one line, for other programs.
    """
    cells = [list(head), *([str(v) for v in row] for row in rows)]
    columns = list(zip(*cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    if sys.stdout.isatty():
        room = shutil.get_terminal_size().columns - len(indent)
        widths = _narrowed(widths, list(map(_longest, columns)), room)
    for number, row in enumerate(cells):
        parts = [_lines(v, w) for v, w in zip(row, widths, strict=True)]
        for line in zip_longest(*parts, fillvalue=""):
            text = GAP.join(v.ljust(w) for v, w in zip(line, widths, strict=True))
            click.secho(f"{indent}{text}".rstrip(), bold=number == 0)


def _longest(column: Iterable[str]) -> int:
    """Return how wide the longest word of a column is."""
    # What goes on is indented.
    return max((len(word) + 2 for v in column for word in v.split()), default=0)


def _narrowed(widths: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """
    Return the widths of columns that have to share the room of a line.

    Args:
        widths: those that they would like.
        least: the narrowest that each may become.
        room: columns of the line.
    """
    found = list(widths)
    while sum(found) + len(GAP) * (len(found) - 1) > room:
        wide = [i for i, width in enumerate(found) if width > least[i]]
        # A date or a name stays whole as long as longer texts can give.
        wide = [i for i in wide if found[i] > SHORT] or wide
        if not wide:
            break
        # Each gives its share, so that none becomes much taller than the others.
        found[max(wide, key=lambda i: found[i] / widths[i])] -= 1
    return found


def _lines(text: str, width: int) -> list[str]:
    if len(text) <= width:
        return [text]
    return textwrap.wrap(
        text,
        max(width, 3),
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


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


# What is copied as a whole: a command or SQL, a name.
_WHOLE = re.compile(r"`[^`\n]+`|\"[^\"\n]{1,63}\"")
# A space that does not end a line; no text of ours has it.
_FIXED = "\x1f"


def prose(text: str, indent: str = "", *, begun: int = 0, err: bool = False) -> str:
    """
    Return a text of paragraphs for a terminal's width, or as it is for a program.

    Commands, SQL and names in quotes stay on one line; a line that is indented is code.

    Args:
        text: its paragraphs are lines.
        indent: stands before each line but the first, which is begun.
        begun: columns that are taken of the first line.
        err: whether it is for standard error.
    """
    if not (sys.stderr if err else sys.stdout).isatty():
        return text
    lines: list[str] = []
    for number, line in enumerate(text.split("\n")):
        if line[:1].isspace():
            lines.append(line)
            continue
        fixed = _WHOLE.sub(lambda found: found[0].replace(" ", _FIXED), line)
        # What is there already takes its room of the first line.
        taken = "" if number else "x" * begun
        filled = textwrap.fill(
            taken + fixed,
            width=min(shutil.get_terminal_size().columns, LINE),
            initial_indent=indent if number else "",
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        lines.append(filled[len(taken) :].replace(_FIXED, " "))
    return "\n".join(lines)


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
        # A further table, which the change may have to make yet.
        known = plan.others.get(work.table, 0) if work.table else 0
        rows, whole = f"about {counted(known)}" if known > 0 else "all its rows", ""
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
        click.secho(prose(f"Note: {notice.text}"), fg="yellow")
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
