"""`migrator lint`: what is dangerous in revisions, and what to write instead."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from migrator.cli import output
from migrator.cli.app import App, example, json_option, pass_app, pyproject
from migrator.cli.report import JSON_SCHEMA
from migrator.errors import UsageError
from migrator.lint import Linter, Placed, Safe, Severity
from migrator.lint.database import domain_reader, reader
from migrator.lint.source import call
from migrator.plan import Lock
from migrator.postgres.connection import connect
from migrator.words import counted

#: Its command stands beside those of `migrator.cli.main`.
group = click.Group()

COLOURS = {
    Severity.ERROR: "red",
    Severity.WARNING: "yellow",
    Severity.NOTE: "cyan",
}


@group.command(**example("migrator lint migrations/versions/3f2a1b_add_email.py"))
@click.argument("what", nargs=-1)
@click.option("--offline", is_flag=True, help="Ask no database.")
@click.option(
    "--start-after",
    metavar="REVISION",
    help="Leave out this revision and all before it.",
)
@json_option
@pass_app
def lint(
    app: App, what: tuple[str, ...], offline: bool, start_after: str | None, json: bool
) -> None:
    """
    Look for hazards in revisions, each with its safe form.

    WHAT are revisions, ranges (a1b2:c3d4) or files; without any, those that the
    database does not have yet, or all with --offline.
    """
    project = app.project()
    heads = () if offline else app.heads()
    wanted = project.revisions(what, after=start_after, applied=heads)
    allow = _allowed()
    with ExitStack() as stack:
        linter = Linter(allow=allow, short_s=app.settings.lock_timeout_ms / 1000)
        if not offline:
            conn = connect(app.target(), "migrator:lint")
            stack.callback(conn.close)
            linter.read = reader(conn)
            linter.read_domain = domain_reader(conn)
            linter.time_zone = conn.info.parameter_status("TimeZone")
            linter.server_version = conn.info.server_version
        found = [place for r in wanted for place in linter.lint(r.revision, r.module)]
    if json:
        output.as_json(
            {
                "schema": JSON_SCHEMA,
                "revisions": len(wanted),
                "findings": [_plain(place) for place in found],
            }
        )
    else:
        _show(found, len(wanted))
    if any(_counts(p) and p.finding.severity is Severity.ERROR for p in found):
        sys.exit(1)


def _allowed() -> dict[str, str]:
    """Return codes that the project silences, with their reasons."""
    given = pyproject().get("lint", {}).get("allow", {})
    if not isinstance(given, dict) or not all(
        isinstance(v, str) and v.strip() for v in given.values()
    ):
        raise UsageError(
            "[tool.migrator.lint] allow is not a table of codes with their reasons.",
            next='write allow = { ZD301 = "every table is small" }.',
        )
    return given


def _counts(place: Placed) -> bool:
    return not place.allowed


def _plain(place: Placed) -> dict[str, Any]:
    """Return a finding as JSON has it."""
    f = place.finding
    return {
        "code": f.code,
        "severity": f.severity.value,
        "revision": place.revision,
        "file": None if place.file is None else _near(place.file),
        "line": place.line,
        "what": f.what,
        "why": f.why,
        "table": None if f.table is None else asdict(f.table),
        "lock": None if f.lock is Lock.NONE else f.lock.value,
        "seconds": f.seconds,
        "allowed": place.allowed or None,
        "safe": None if f.safe is None else _safe(f.safe),
    }


def _safe(safe: Safe) -> dict[str, Any]:
    return {
        "why": safe.why,
        "decide": safe.decide or None,
        "code": [*map(call, safe.patterns), *([safe.code] if safe.code else [])],
        "then": [call(p) for p in safe.then],
    }


def _near(file: Path) -> str:
    """Return a path as a person would type it here."""
    try:
        return str(file.relative_to(Path.cwd()))
    except ValueError:
        return str(file)


def _show(found: Sequence[Placed], revisions: int) -> None:
    for place in filter(_counts, found):
        _show_one(place)
    counts = {
        s: sum(_counts(p) and p.finding.severity is s for p in found) for s in Severity
    }
    silenced = sum(not _counts(p) for p in found)
    words = [counted(n, s.value) for s, n in counts.items() if n]
    if silenced:
        words.append(f"{silenced} allowed")
    said = ", ".join(words) or "nothing found"
    click.echo(f"{said} in {counted(revisions, 'revision')}.")


def _show_one(place: Placed) -> None:
    f = place.finding
    where = f"{_near(place.file)}:{place.line}" if place.file else place.revision
    click.secho(where, bold=True, nl=False)
    click.echo("  ", nl=False)
    click.secho(f.severity.value, fg=COLOURS[f.severity], bold=True, nl=False)
    click.echo(f"  {f.code}")
    click.echo(output.wrapped(f"{f.what} {f.why}", "  "))
    if f.lock is not Lock.NONE:
        click.echo(f"  Lock: {f.lock} on {f.table}{_held(f.seconds)}")
    if f.safe is not None:
        click.echo(output.wrapped(f"Safe: {f.safe.why}", "  "))
        if f.safe.decide:
            click.echo(output.wrapped(f"Decide: {f.safe.decide}", "  "))
        for pattern in f.safe.patterns:
            click.secho(_indented(call(pattern)), fg="green")
        if f.safe.code:
            click.secho(_indented(f.safe.code), fg="green")
        if f.safe.then:
            click.echo("  Then, each in a revision of its own:")
        for pattern in f.safe.then:
            click.secho(_indented(call(pattern)), fg="green")
    click.echo()


def _indented(code: str) -> str:
    return "\n".join(f"      {line}" for line in code.splitlines())


def _held(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 0.001:
        return ", for a moment"
    shown = f"{seconds * 1000:.0f} ms" if seconds < 1 else output.duration(seconds)
    return f", for about {shown}"
