"""Where a change stands, for a person and as data."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from json import loads
from typing import Any

import click
from click.core import ParameterSource

from migrator import waiting
from migrator.cli import output
from migrator.cli.app import App
from migrator.edits import Edit
from migrator.errors import (
    Held,
    LockBudgetError,
    MigratorError,
    MismatchError,
    UsageError,
)
from migrator.ledger.control import Limits, Mode
from migrator.ledger.store import ChangeRow, StepRow
from migrator.plan import ChunkedCheck, Phase, State
from migrator.words import counted, duration, moment, several

# The form of every `--json` output; grows when a key changes its meaning.
JSON_SCHEMA = 1
# Exit codes, as in the README. A class stands before its base.
EXITS: tuple[tuple[type[MigratorError], int], ...] = (
    (UsageError, 2),
    (Held, 3),
    (MismatchError, 4),
    (LockBudgetError, 5),
    (MigratorError, 1),
)
# Rows out of step that are listed for a person.
LISTED = 10


# Commands that run a phase, or what is left of it.
_COMMANDS = {
    Phase.EXPAND: "expand",
    Phase.BACKFILL: "backfill",
    Phase.VERIFY: "verify",
    Phase.RETIRE: "contract",
    Phase.DROP: "contract --drop",
}
# Of a verdict, what is told.
_GUARD = ("mode", "action", "reason")
# Events whose figures say nothing without their names.
_NAMED = ("vacuum", "revisions")


def event(kind: str, detail: Mapping[str, Any]) -> str:
    """Return one event of the log for a person."""
    if kind == "throttle":
        return (
            f"throttle: {limited(Limits(**detail)) if 'off' not in detail else 'off'}"
        )
    if kind == "unwatched":
        return f"unwatched: {detail['signal']}, {detail['why']}"
    if kind == "guard":
        return f"guard: {', '.join(filter(None, map(detail.get, _GUARD)))}"
    if kind == "revisions":
        detail = {
            name: several(value) if isinstance(value, list) else value
            for name, value in detail.items()
            if name != "version_table"
        }
    # As the command is called.
    words = ["resume" if kind == Mode.RUN else kind]
    for key, value in detail.items():
        if value in ("", None, []):
            continue
        shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        name = f"{key.replace('_', '-')} " if kind in _NAMED else ""
        words.append(f"{name}{shown}")
    return f"{words[0]}: {', '.join(words[1:])}" if words[1:] else words[0]


def exit_code(error: MigratorError) -> int:
    """Return the exit code of an error."""
    return next(code for kind, code in EXITS if isinstance(error, kind))


def told(error: MigratorError) -> dict[str, Any]:
    """Return an error as plain data."""
    return {
        "kind": type(error).__name__,
        "what": error.what,
        "state": error.state or None,
        "next": error.next or None,
    }


def failed(error: MigratorError, code: int, *, json: bool) -> None:
    """Tell an error: on standard error, or as the answer that was asked for."""
    if json:
        output.as_json({"schema": JSON_SCHEMA, "error": told(error), "exit_code": code})
    else:
        head = "Error: "
        click.secho(head, fg="red", bold=True, nl=False, err=True)
        click.echo(output.prose(str(error), begun=len(head), err=True), err=True)


def note(edit: Edit, then: str = "") -> None:
    """
    Tell beside what a command does that a change was edited.

    Args:
        edit: the change.
        then: what follows from it; the way out by default.
    """
    head = "Note: "
    text = f"{edit.what}\n{then or f'Next: {edit.next}'}"
    click.secho(head, fg="yellow", bold=True, nl=False, err=True)
    click.echo(output.prose(text, begun=len(head), err=True), err=True)


def note_return(app: App, change: str) -> None:
    """Tell before a change is expanded who rolled it back, and when."""
    back = [e for e in app.runner().events(change) if e["kind"] == "rollback"]
    if back and app.runner().change(change).going_back is None:
        last = back[-1]
        click.echo(
            f"{change} was rolled back on {moment(last['at'])} by {last['actor']}; it"
            " is expanded again.",
            err=True,
        )


def note_edits(app: App) -> None:
    """Tell of changes that run otherwise than their files say."""
    for edit in app.edits():
        note(edit)


def said(app: App, change: str, json: bool) -> None:
    """Tell where a change stands after a command."""
    row = app.runner().change(change)
    if json:
        output.as_json({"schema": JSON_SCHEMA, **status_of(app, row)})
    else:
        said_to = app.runner().said(row.id)
        state = f"{row.id} is {row.stands}"
        if not _in_step(app, row):
            state += ", but not compared since it was retired"
        if row.finished:
            click.echo(f"{state}; nothing is left to do.")
        elif said_to.mode is Mode.RUN or row.going_back:
            click.echo(f"{state}. Next: {next_step(app, row)}")
        else:
            click.echo(f"{state}, and {said_to.said}. Next: migrator resume {row.id}")


def said_of(app: App, changes: Sequence[str]) -> None:
    """Tell where changes stand as one JSON document; of one, its object is that."""
    found = [status_of(app, app.runner().change(change)) for change in changes]
    told = found[0] if len(found) == 1 else {"changes": found}
    output.as_json({"schema": JSON_SCHEMA, **told})


def _in_step(app: App, row: ChangeRow) -> bool:
    """Tell whether nothing speaks against what a change's state says."""
    return (
        row.state is not State.VERIFIED or app.runner().is_compared(row.id) is not False
    )


def not_compared(row: ChangeRow) -> str:
    """Return what to say of a verification that had nothing to do."""
    if row.finished or row.state.rank > State.VERIFIED.rank:
        state = "finished" if row.finished else row.state.value
        why = f"{row.id} is {state}; both sides are compared until contract"
    else:
        why = f"{row.id} ({row.title}) has no two sides"
    return f"Nothing was compared: {why}."


def next_step(app: App, row: ChangeRow) -> str:
    """Return the command that carries a change on."""
    if row.finished:
        return "nothing, it is finished."
    if row.going_back is not None:
        return waiting.command(row)
    if app.runner().said(row.id).mode is not Mode.RUN:
        return f"migrator resume {row.id}"
    if edit := app.edit_of(row):
        return edit.next
    if not _in_step(app, row):
        return f"migrator verify {row.id}"
    first = ""
    if row.state is State.VERIFIED:
        first = "deploy the new release everywhere, then "
    elif row.state is State.RETIRED:
        until = waiting.held_until(row, app.settings.hold_s)
        first = f"after the hold (until {until}), " if until else ""
    command = waiting.command(row)
    if row.state is State.RETIRED and (given := _given_hold(app)):
        command = command.replace("migrator", f"migrator --hold {given}", 1)
    return first + command


def _given_hold(app: App) -> str:
    """Return the hold as it was given to this call, which nothing remembers."""
    root = click.get_current_context().find_root()
    if root.get_parameter_source("hold") is not ParameterSource.COMMANDLINE:
        return ""
    hold_s = app.settings.hold_s
    units = {"d": 86400, "h": 3600, "m": 60, "s": 1}
    unit = next((u for u, size in units.items() if hold_s % size == 0), "s")
    return f"{hold_s / units[unit]:g}{unit}" if hold_s else "0"


def status_of(app: App, row: ChangeRow) -> dict[str, Any]:
    """Return a change's state, its steps and what comes next, as plain data."""
    data = asdict(row)
    data.pop("parameters")
    data["in_flight"] = row.in_flight
    said_to = app.runner().said(row.id)
    data["control"] = {**asdict(said_to.limits), "mode": said_to.mode}
    data["control"]["reason"] = said_to.reason
    data["control"]["actor"] = said_to.actor or None
    data["at_work"] = app.runner().is_at_work(row.id)
    data["verdict"] = _verdict(app, row)
    data["compared"] = app.runner().is_compared(row.id)
    back = app.runner().way_back(row.id)
    data["reversible"] = back.open
    data["held_back"] = list(back.reasons)
    data["unfit"] = list(back.unfit)
    edit = app.edit_of(row)
    data["edited"] = edit and {"ledger": edit.then, "file": edit.now}
    data["next"] = next_step(app, row)
    data["steps"] = [
        {
            "phase": s.phase,
            "name": s.step.name,
            "status": s.status,
            "rows": s.rows,
            "mismatches": s.mismatches,
            "done_share": None if s.done_share is None else round(s.done_share, 3),
            "waited_share": round(s.waited_share, 3),
            "waiting": s.waiting or None,
            **_speed(app, s, held=said_to.mode is not Mode.RUN),
        }
        for s in app.runner().steps(row.id)
    ]
    data["out_of_step"] = [
        {"key": loads(m.key), "repaired": m.repaired, "at": m.at}
        for m in app.runner().mismatches(row.id, last=True)
    ]
    return data


def _verdict(app: App, row: ChangeRow) -> dict[str, Any] | None:
    """Return what signals say now, None where no process goes over rows."""
    found = app.runner().verdict(row.id)
    if found is None:
        return None
    return {
        "action": found.verdict.action,
        "signal": found.verdict.signal or None,
        "reason": found.verdict.reason or None,
        "observed": found.verdict.observed,
        "since": found.at,
    }


def limited(limits: Limits) -> str:
    """Return the limits of a backfill for a person, "" where there are none."""
    shown: list[str] = []
    if limits.max_rows_per_s:
        shown.append(f"{counted(limits.max_rows_per_s)}/s")
    if limits.max_wal_bytes_per_s:
        shown.append(f"{limits.max_wal_bytes_per_s / 1e6:,.1f} MB/s of WAL")
    if limits.target_ms:
        shown.append(f"chunks of {limits.target_ms:g} ms")
    if limits.workers:
        shown.append(f"{counted(limits.workers, 'worker')} in each process")
    return ", ".join(shown)


def _speed(app: App, step: StepRow, *, held: bool) -> dict[str, Any]:
    """Return a step's rate and the seconds that are left, while it runs."""
    goes_on = step.status == "running" and not held
    found = app.runner().speed(step) if goes_on else None
    left = None if found is None else found.left_s
    return {
        "rows_per_s": None if found is None else round(found.rows_per_s),
        "left_s": None if left is None else round(left),
    }


def _told(app: App, change: str, step: StepRow, *, held: bool) -> list[str]:
    """Return what is to be told of a step, the figures of its progress behind it."""
    at_work = step.status != "running" or app.runner().is_at_work(change)
    parts = [f"{step.step.name}: {step.status if at_work else 'stopped'}"]
    if step.done_share is not None:
        compares = isinstance(step.step.work, ChunkedCheck)
        rows = counted(step.rows) + (" out of step" if compares else "")
        parts += [f"{step.done_share:.0%}", rows]
    if step.status == "running" and at_work:
        speed = _speed(app, step, held=held)
        if speed["rows_per_s"] is not None:
            parts.append(f"{counted(speed['rows_per_s'])}/s")
        if speed["left_s"] is not None:
            parts.append(f"{duration(speed['left_s'])} left")
    if step.waited_share >= 0.01:
        parts.append(f"waited {step.waited_share:.0%} of the time")
    if at_work and step.waiting:
        parts.append(f"waits now: {step.waiting}")
    elif not at_work and not held:
        parts.append(f"`migrator {_COMMANDS[step.phase]} {change}` goes on from here")
    return parts


def detail(app: App, row: ChangeRow) -> None:
    """Print a change's steps, with their progress."""
    click.echo()
    click.secho(row.id, bold=True)
    said_to = app.runner().said(row.id)
    held = said_to.mode is not Mode.RUN
    shown = [
        (phase, s)
        for phase in Phase
        for s in app.runner().steps(row.id)
        if s.phase is phase
    ]
    for phase, step in shown:
        told = ", ".join(_told(app, row.id, step, held=held))
        click.echo(f"  {phase:<9} {told}")
    if not shown:
        click.echo(f"  {row.state}; nothing had to run so far")
    if (entry := app.runner().verdict(row.id)) and entry.verdict.reason:
        only = " (only observed)" if entry.verdict.observed else ""
        click.secho(f"  Signals{only}: {entry.verdict.reason}", fg="yellow")
    found = app.runner().mismatches(row.id, last=True)
    for one in found[:LISTED]:
        what = "repaired" if one.repaired else "stays " + (one.wrong or "out of step")
        title = "To be corrected" if one.wrong else "Out of step"
        click.secho(f"  {title}: row {one.key}, {what}", fg="yellow")
    if len(found) > LISTED:
        click.echo(f"  ... and {len(found) - LISTED} more, in --json")
    if (edit := app.edit_of(row)) is not None:
        click.secho(output.wrapped(f"Edited: {edit.reason}.", "  "), fg="yellow")
    back = app.runner().way_back(row.id)
    answer = "not known" if back.open is None else "no"
    for why in back.reasons:
        click.secho(f"  Reversible: {answer}, since {why}.", fg="yellow")
    for why in back.unfit:
        click.secho(f"  At its drop: {why}.", fg="yellow")
    if held:
        click.secho(f"  Held: {said_to.said}.", fg="yellow")
        click.echo(f"  Next: migrator resume {row.id}")
        return
    if (limits := limited(said_to.limits)) and not row.finished:
        click.echo(f"  Limits: {limits}")
    if any(s.status == "running" for _, s in shown) and app.runner().is_at_work(row.id):
        click.echo(
            "  Next: wait until it is through; another process may help: "
            + next_step(app, row)
        )
    elif edit is not None:
        click.echo(output.wrapped(f"Next: {edit.next}", "  "))
    else:
        click.echo(f"  Next: {next_step(app, row)}")
