"""Where a change stands, for a person and as data."""

from dataclasses import asdict
from typing import Any

import click

from migrator.cli import output
from migrator.cli.app import App
from migrator.ledger.control import Mode
from migrator.ledger.store import ChangeRow
from migrator.plan import Phase, State

# The form of every `--json` output; grows when a key changes its meaning.
JSON_SCHEMA = 1


def said(app: App, change: str, json: bool) -> None:
    """Tell where a change stands after a command."""
    row = app.runner().change(change)
    if json:
        output.as_json({"schema": JSON_SCHEMA, **status_of(app, row)})
    else:
        said_to = app.runner().said(row.id)
        if said_to.mode is Mode.RUN:
            click.echo(f"{row.id} is {row.state}. Next: {next_step(row)}")
        else:
            click.echo(
                f"{row.id} is {row.state}, {said_to.said}. Next: migrator resume"
                f" {row.id}"
            )


def next_step(row: ChangeRow) -> str:
    """Return the command that carries a change on."""
    if row.finished:
        return "nothing, it is finished."
    return {
        State.PLANNED: f"migrator expand {row.id}",
        State.EXPANDED: f"migrator backfill {row.id}",
        State.BACKFILLED: f"migrator verify {row.id}",
        State.VERIFIED: "deploy the new release everywhere, then"
        f' migrator contract {row.id} --old-release-gone "reason"',
        State.RETIRED: f"after the hold, migrator contract {row.id} --drop",
        State.DROPPED: "nothing, it is finished.",
    }[row.state]


def status_of(app: App, row: ChangeRow) -> dict[str, Any]:
    """Return a change's state, its steps and what comes next, as plain data."""
    data = asdict(row)
    data.pop("parameters")
    data["in_flight"] = row.in_flight
    said_to = app.runner().said(row.id)
    data["control"] = {**asdict(said_to.limits), "mode": said_to.mode}
    data["control"]["reason"] = said_to.reason
    data["next"] = next_step(row)
    data["steps"] = [
        {
            "phase": s.phase,
            "name": s.step.name,
            "status": s.status,
            "rows": s.rows,
            "mismatches": s.mismatches,
            "done_share": (
                round(s.done_blocks / s.end_block, 3) if s.end_block else None
            ),
        }
        for s in app.runner().steps(row.id)
    ]
    return data


def detail(app: App, row: ChangeRow) -> None:
    """Print a change's steps, with their progress."""
    click.echo()
    click.secho(row.id, bold=True)
    shown = [
        (phase, s)
        for phase in Phase
        for s in app.runner().steps(row.id)
        if s.phase is phase
    ]
    for phase, step in shown:
        progress = ""
        if step.end_block:
            share = 100 * step.done_blocks / step.end_block
            progress = f", {share:.0f} %, {step.rows:,} rows"
        click.echo(f"  {phase:<9} {step.step.name}: {step.status}{progress}")
    if any(s.status == "running" for _, s in shown):
        verdicts = [e for e in app.runner().events(row.id) if e["kind"] == "guard"]
        if verdicts and verdicts[-1]["detail"]["action"] != "go":
            click.secho(f"  Signals: {verdicts[-1]['detail']['reason']}", fg="yellow")
    said_to = app.runner().said(row.id)
    if said_to.mode is not Mode.RUN:
        click.secho(f"  Held: {said_to.said}.", fg="yellow")
        click.echo(f"  Next: migrator resume {row.id}")
        return
    limits = {k: v for k, v in asdict(said_to.limits).items() if v is not None}
    if limits and not row.finished:
        listed = ", ".join(f"{k.replace('_', '-')} {v:g}" for k, v in limits.items())
        click.echo(f"  Throttled: {listed}")
    click.echo(f"  Next: {next_step(row)}")
