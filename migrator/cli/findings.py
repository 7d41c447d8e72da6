"""What lint found: for a person, as data, and as annotations of a pull request."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import click

from migrator.cli import output
from migrator.cli.report import JSON_SCHEMA
from migrator.lint import Placed, Safe, Severity
from migrator.lint.source import call
from migrator.plan import Lock
from migrator.words import counted, duration

COLOURS = {
    Severity.ERROR: "red",
    Severity.WARNING: "yellow",
    Severity.NOTE: "cyan",
}
#: GitHub's words for severities.
COMMANDS = {
    Severity.ERROR: "error",
    Severity.WARNING: "warning",
    Severity.NOTE: "notice",
}


def counts(place: Placed) -> bool:
    """Tell whether nobody has allowed a finding."""
    return not place.allowed


@cache
def near(file: Path) -> str:
    """Return a path as a person would type it here."""
    try:
        return file.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return file.as_posix()


# -- for a person


def as_text(found: Sequence[Placed], revisions: int) -> None:
    """Print findings, each with its safe form."""
    for place in filter(counts, found):
        _show(place)
    numbers = {
        s: sum(counts(p) and p.finding.severity is s for p in found) for s in Severity
    }
    silenced = sum(not counts(p) for p in found)
    words = [counted(n, s.value) for s, n in numbers.items() if n]
    if silenced:
        words.append(f"{silenced} allowed")
    said = f"Found {', '.join(words)}" if words else "Nothing was found"
    click.echo(f"{said} in {counted(revisions, 'revision')}.")


def _show(place: Placed) -> None:
    f = place.finding
    where = f"{near(place.file)}:{place.line}" if place.file else place.revision
    click.secho(where, bold=True, nl=False)
    click.echo("  ", nl=False)
    click.secho(f.severity.value, fg=COLOURS[f.severity], bold=True, nl=False)
    click.echo(f"  {f.code}")
    click.echo(output.wrapped(f"{f.what} {f.why}".strip(), "  "))
    if f.lock is not Lock.NONE:
        click.echo(f"  {_lock(place)}")
    if f.safe is not None:
        click.echo(output.wrapped(f"Safe: {f.safe.why}", "  "))
        if f.safe.decide:
            click.echo(output.wrapped(f"Decide: {f.safe.decide}", "  "))
        for code in _code(f.safe):
            click.secho(_indented(code), fg="green")
        if f.safe.then:
            click.echo("  Then, each in a revision of its own:")
        for pattern in f.safe.then:
            click.secho(_indented(call(pattern)), fg="green")
    click.echo()


def _lock(place: Placed) -> str:
    f = place.finding
    return f"Lock: {f.lock} on {f.table}{_held(f.seconds)}{_waiting(place)}"


def _waiting(place: Placed) -> str:
    """Return what would wait meanwhile, by the traffic of this moment."""
    per_s, seconds = place.traffic_per_s, place.finding.seconds
    if not per_s or not seconds:
        return ""
    everybody = place.finding.lock is Lock.ACCESS_EXCLUSIVE
    one, many = (
        ("scan or insert", "scans and inserts")
        if everybody
        else ("row written", "rows written")
    )
    number = max(round(per_s * seconds), 1)
    return f"; by the traffic of now {counted(number, one, many)} would wait"


def _indented(code: str) -> str:
    return "\n".join(f"      {line}" for line in code.splitlines())


def _held(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 0.001:
        return ", for a moment"
    shown = f"{seconds * 1000:.0f} ms" if seconds < 1 else duration(seconds)
    return f", for about {shown}"


def _code(safe: Safe) -> list[str]:
    """Return what is written instead; where there are several, one is chosen."""
    return [*map(call, safe.patterns), *([safe.code] if safe.code else [])]


# -- as data


def as_json(found: Sequence[Placed], revisions: int) -> None:
    """Print findings as JSON."""
    output.as_json(
        {
            "schema": JSON_SCHEMA,
            "revisions": revisions,
            "findings": [_plain(place) for place in found],
        }
    )


def _plain(place: Placed) -> dict[str, Any]:
    f = place.finding
    return {
        "code": f.code,
        "severity": f.severity.value,
        "revision": place.revision,
        "file": None if place.file is None else near(place.file),
        "line": place.line,
        "what": f.what,
        "why": f.why,
        "table": None if f.table is None else asdict(f.table),
        "lock": None if f.lock is Lock.NONE else f.lock.value,
        "seconds": f.seconds,
        "traffic_per_s": place.traffic_per_s,
        "allowed": place.allowed or None,
        "safe": None if f.safe is None else _safe(f.safe),
    }


def _safe(safe: Safe) -> dict[str, Any]:
    return {
        "why": safe.why,
        "decide": safe.decide or None,
        "code": _code(safe),
        "then": [call(p) for p in safe.then],
    }


# -- beside the code


def message(place: Placed) -> str:
    """Return a finding with its safe form as plain text of several lines."""
    f = place.finding
    lines = [f"{f.what} {f.why}".strip()]
    if f.lock is not Lock.NONE:
        lines.append(_lock(place))
    if f.safe is not None:
        lines.append(f"Safe: {f.safe.why}")
        if f.safe.decide:
            lines.append(f"Decide: {f.safe.decide}")
        lines += _code(f.safe)
    return "\n".join(lines)


def as_annotations(found: Sequence[Placed]) -> None:
    """Print findings as commands to GitHub, which shows them beside the lines."""
    for place in filter(counts, found):
        f = place.finding
        given = {"title": f"{f.code} in revision {place.revision}"}
        if place.file is not None:
            given = {"file": near(place.file), "line": str(max(place.line, 1))} | given
        shown = ",".join(f"{key}={_property(value)}" for key, value in given.items())
        click.echo(f"::{COMMANDS[f.severity]} {shown}::{_data(message(place))}")


def _data(text: str) -> str:
    """Return a text as GitHub's runner reads it back from one line."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
