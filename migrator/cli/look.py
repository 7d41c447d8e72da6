"""Commands that look at changes: plan, status and log."""

import sys

import click

from migrator.cli import output
from migrator.cli.app import App, change_argument, example, json_option, pass_app
from migrator.cli.report import (
    JSON_SCHEMA,
    detail,
    event,
    note_edits,
    status_of,
)
from migrator.errors import Refused
from migrator.stored import plan_to_dict

#: Its commands stand beside those of `migrator.cli.main`.
group = click.Group()


@group.command(**example("migrator plan 3f2a1b --json"))
@change_argument
@json_option
@pass_app
def plan(app: App, change: str | None, json: bool) -> None:
    """Show a change's steps: SQL, lock, way back and size. Changes nothing."""
    # That there is no database comes before what it lacks.
    app.target()
    wanted = app.named(change)
    if json:
        # One change as an object, as long as one is asked for or waits.
        plans = [plan_to_dict(app.plan(c)) for c in wanted]
        output.as_json(plans[0] if len(plans) == 1 else plans)
        return
    if not wanted:
        _nothing_to_plan(app)
    refused = False
    for number, one in enumerate(wanted):
        if number:
            click.echo()
        try:
            output.plan(app.plan(one))
        except Refused as error:
            if len(wanted) == 1:
                raise
            # One that cannot work does not hide the others.
            refused = True
            click.secho(f"{one.id} cannot work:", fg="red", bold=True)
            click.echo(str(error))
    if change is None:
        note_edits(app)
    if refused:
        sys.exit(1)


def _nothing_to_plan(app: App) -> None:
    """Say why there is no plan to show, and what may come next."""
    changes = app.changes()
    known = {row.id for row in app.runner().changes()}
    if not changes:
        click.echo(
            "Nothing to plan: the revisions hold no changes. Next: edit the models,"
            " then `migrator revision --autogenerate -m …`"
        )
    elif known.issuperset(c.id for c in changes):
        click.echo(
            "Nothing to plan: every change of the revisions has begun. Next: `migrator"
            " status`"
        )
    else:
        # Made by create_all, copied, or of a squash.
        click.echo(
            "Nothing to plan: every change of the revisions has begun, or is applied"
            " without having been run here. Next: `migrator reconcile`"
        )


@group.command(**example("migrator status --json"))
@change_argument
@json_option
@pass_app
def status(app: App, change: str | None, json: bool) -> None:
    """Show where changes stand and what comes next."""
    runner = app.runner()
    rows = [app.row(change)] if change else runner.changes()
    if json:
        output.as_json(
            {"schema": JSON_SCHEMA, "changes": [status_of(app, r) for r in rows]}
        )
        return
    if not rows:
        click.echo(
            "No change has begun yet. `migrator plan` shows those of the revisions."
        )
        return
    output.table(
        ("change", "what", "state", "since (UTC)"),
        [
            (
                r.id,
                r.title,
                f"{r.stands}{', finished' if r.finished else ''}",
                f"{r.state_at:%Y-%m-%d %H:%M:%S}",
            )
            for r in rows
        ],
    )
    for row in rows:
        if row.in_flight or change:
            detail(app, row)


@group.command(**example("migrator log 3f2a1b"))
@change_argument
@json_option
@pass_app
def log(app: App, change: str | None, json: bool) -> None:
    """Show the record of all that was done, by whom and when."""
    events = app.runner().events(change)
    if json:
        output.as_json({"schema": JSON_SCHEMA, "events": events})
        return
    output.table(
        ("at (UTC)", "change", "who", "what"),
        [
            (
                f"{e['at']:%Y-%m-%d %H:%M:%S}",
                e["change"],
                e["actor"],
                event(e["kind"], e["detail"]),
            )
            for e in events
        ],
    )
