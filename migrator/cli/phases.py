"""Commands that carry a change forward and back, phase by phase."""

import sys
from collections.abc import Sequence
from dataclasses import replace

import click

from migrator.change import Change
from migrator.cli import output
from migrator.cli.app import (
    App,
    Seconds,
    change_argument,
    example,
    json_option,
    pass_app,
)
from migrator.cli.report import (
    JSON_SCHEMA,
    failed,
    not_compared,
    note,
    note_edits,
    note_return,
    said,
    said_of,
)
from migrator.errors import MigratorError, Refused, UsageError
from migrator.kernels.chunking import KINDS
from migrator.plan import State

#: Its commands stand beside those of `migrator.cli.main`.
group = click.Group()


@group.command(**example("migrator expand 3f2a1b"))
@change_argument
@json_option
@pass_app
def expand(app: App, change: str | None, json: bool) -> None:
    """Put the new shape beside the old: run revisions up to a change."""
    wanted = app.named(change)
    if change is None:
        note_edits(app)
    if not wanted:
        _nothing("expand", json)
    with app.told_apart():
        _expand(app, wanted, json)
    if json and wanted:
        said_of(app, [one.id for one in wanted])


def _expand(app: App, wanted: Sequence[Change], json: bool) -> None:
    """Expand changes one after the other, as far as they go."""
    known = {c.id: c for c in app.runner().changes()}
    refused: list[Refused] = []
    for one in wanted:
        if one.id in known and one.revision not in app.left():
            # Its revision is applied already: rolled back.
            if known[one.id].state is State.PLANNED:
                note_return(app, one.id)
            try:
                app.runner().expand(one)
            except Refused as error:
                # The others do not wait for what this one needs.
                refused.append(
                    type(error)(
                        f"{one.id} cannot be expanded: {error.what}",
                        state=error.state,
                        next=error.next,
                    )
                )
                continue
        elif one.revision not in app.left():
            raise Refused(
                f"The database is at revision {one.revision} or further, but"
                f" {one.id} was never run on it: it was stamped, or made at once.",
                next=f"`migrator reconcile {one.id}` shows what the schema has of it,"
                " and enters it into the ledger.",
            )
        try:
            app.upgrade(one.revision)
        except MigratorError as error:
            _all_but_last([*refused, error])
            raise
        if not json:
            said(app, one.id, json)
    if refused:
        _all_but_last(refused)
        raise refused[-1]


def _all_but_last(errors: Sequence[MigratorError]) -> None:
    """Tell errors of changes that did not keep others from being tried."""
    for error in errors[:-1]:
        failed(error, 1, json=False)


def _nothing(what: str, json: bool) -> None:
    """Say that a command found nothing to do, which is no error."""
    if json:
        output.as_json({"schema": JSON_SCHEMA, "changes": []})
    else:
        click.echo(f"Nothing to {what}. `migrator status` lists the changes.")


@group.command(**example("migrator backfill 3f2a1b --workers 2"))
@change_argument
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Connections that share the work.",
)
@click.option(
    "--chunking",
    type=click.Choice(KINDS),
    help="How to go over the table; by default the plan's choice.",
)
@json_option
@pass_app
def backfill(
    app: App, change: str | None, workers: int, chunking: str | None, json: bool
) -> None:
    """Bring existing rows across in chunks, then verify."""
    wanted = app.in_flight(change, State.EXPANDED, State.BACKFILLED)
    if not wanted:
        _nothing("backfill", json)
    app.require_unedited(*wanted)
    runner = app.runner()
    runner.settings = replace(runner.settings, workers=workers, chunking=chunking)
    for one in wanted:
        runner.settle(one)
        if not json:
            said(app, one, json)
    if json and wanted:
        said_of(app, wanted)


@group.command(**example("migrator verify 3f2a1b"))
@change_argument
@click.option(
    "--values", is_flag=True, help="Tell the values of rows out of step, not only keys."
)
@click.option("--watch", is_flag=True, help="Compare again and again until contract.")
@click.option(
    "--every",
    type=Seconds(),
    default="1m",
    show_default=True,
    help="Rest between two comparisons of --watch.",
)
@json_option
@pass_app
def verify(
    app: App, change: str | None, values: bool, watch: bool, every: float, json: bool
) -> None:
    """Compare both sides; repair and list rows that are out of step."""
    wanted = app.only(change)
    app.require_unedited(wanted)
    runner = app.runner()
    runner.settings = replace(runner.settings, show_values=values)
    row = runner.change(wanted)
    passed = row.finished or row.state.rank > State.VERIFIED.rank
    if watch:
        runner.watch(wanted, every_s=every)
    else:
        runner.verify(wanted)
    if not json and (passed or runner.is_compared(wanted) is None):
        click.echo(not_compared(row))
    said(app, wanted, json)


def _confirm(question: str) -> None:
    """Ask before a drop; without a terminal there is nobody to ask."""
    if not sys.stdin.isatty():
        raise UsageError(
            f"{question} There is no way back, and no terminal to ask on.",
            next="give --yes.",
        )
    if not click.confirm(f"{question} There is no way back.", err=True):
        click.echo("Nothing was dropped.", err=True)
        sys.exit(1)


@group.command(
    **example('migrator contract 3f2a1b --old-release-gone "v41 is scaled to 0"')
)
@change_argument
@click.option("--old-release-gone", default="", help="Why no old release is left.")
@click.option("--drop", is_flag=True, help="Drop what was retired, for good.")
@click.option("--yes", is_flag=True, help="Do not ask before the drop.")
@json_option
@pass_app
def contract(
    app: App,
    change: str | None,
    old_release_gone: str,
    drop: bool,
    yes: bool,
    json: bool,
) -> None:
    """Take the old shape out of sight, or with --drop away for good."""
    if change is None and not app.in_flight(None, *State):
        _nothing("contract", json)
        return
    wanted = app.only(change)
    app.require_unedited(wanted)
    runner = app.runner()
    if drop:
        row = runner.change(wanted)
        if not row.finished and not yes:
            runner.require_due(wanted)
            _confirm(f"Drop what {row.id} ({row.title}) retired?")
        runner.drop(wanted)
    else:
        runner.retire(wanted, old_release_gone=old_release_gone)
    said(app, wanted, json)


@group.command(**example("migrator rollback 3f2a1b --to planned"))
@change_argument
@click.option(
    "--to",
    type=click.Choice([State.PLANNED.value, State.VERIFIED.value]),
    help="How far; from retired to verified, else to planned, by default.",
)
@click.option("--drop", is_flag=True, help="Drop what an earlier rollback parked.")
@click.option("--yes", is_flag=True, help="Do not ask before the drop.")
@json_option
@pass_app
def rollback(
    app: App, change: str | None, to: str | None, drop: bool, yes: bool, json: bool
) -> None:
    """Take back what ran, last step first; no write is lost."""
    if drop and change is None:
        raise UsageError("--drop needs a change.", next="give its id.")
    wanted = app.only(change)
    runner = app.runner()
    if drop:
        if not yes and runner.require_parked_due(wanted):
            _confirm(f"Drop what {wanted} parked?")
        dropped = runner.drop_parked(wanted)
        if not dropped and not json:
            click.echo(f"Nothing of {wanted} is parked.")
    else:
        if edit := app.edit_of(runner.change(wanted)):
            note(edit, "What the ledger ran is taken back.")
        runner.rollback(wanted, to=State(to) if to else None)
    said(app, wanted, json)
    if not json and runner.change(wanted).state is State.PLANNED:
        click.echo(
            "Alembic's version stays where it is; `migrator expand` brings the change"
            " back, `alembic downgrade` takes its revision back as well."
        )
        if any(s.status == "parked" for s in runner.steps(wanted)):
            click.echo(
                f"Values of the new release are parked until `migrator rollback"
                f" {wanted} --drop`."
            )
