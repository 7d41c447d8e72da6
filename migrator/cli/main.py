"""The commands."""

import sys
from collections.abc import Sequence
from dataclasses import replace

import click

from migrator import __version__
from migrator.alembic import revision as alembic_revision
from migrator.cli import control, hook, lint, output, patterns, reconcile, server
from migrator.cli import demo as demo_command
from migrator.cli import init as init_command
from migrator.cli import revision as revision_command
from migrator.cli.app import (
    App,
    Seconds,
    change_argument,
    example,
    json_option,
    pass_app,
)
from migrator.cli.bars import Bars
from migrator.cli.report import (
    JSON_SCHEMA,
    detail,
    event,
    exit_code,
    failed,
    not_compared,
    note,
    said,
    said_of,
    status_of,
)
from migrator.configuration import pyproject
from migrator.errors import MigratorError, Refused, UsageError
from migrator.guard.policy import policy
from migrator.kernels.chunking import KINDS
from migrator.plan import State, plan_to_dict
from migrator.settings import Settings


@click.group(
    context_settings={
        "auto_envvar_prefix": "MIGRATOR",
        "help_option_names": ["-h", "--help"],
        "max_content_width": 88,
    },
    epilog="Example: migrator plan && migrator expand && migrator backfill",
)
@click.version_option(__version__)
@click.option(
    "-c",
    "--config",
    envvar=["MIGRATOR_CONFIG", "ALEMBIC_CONFIG"],
    default="alembic.ini",
    show_default=True,
    help="The project's Alembic configuration.",
)
@click.option(
    "-n",
    "--name",
    default="alembic",
    show_default=True,
    help="The section of that configuration, as Alembic's -n.",
)
@click.option(
    "--database-url",
    help="In place of sqlalchemy.url, for migrator; alembic itself goes by env.py.",
)
@click.option("-x", "x", multiple=True, help="Passed on to env.py, as Alembic's -x.")
@click.option(
    "--lock-timeout-ms",
    type=click.IntRange(1, 10_000),
    default=Settings().lock_timeout_ms,
    show_default=True,
    help="Longest wait of a step for a lock.",
)
@click.option(
    "--step-budget",
    type=Seconds(),
    default="60s",
    show_default=True,
    help="How long a step is tried again before it gives up.",
)
@click.option(
    "--build-budget",
    type=Seconds(),
    default="10m",
    show_default=True,
    help="How long an index build may wait for old snapshots.",
)
@click.option(
    "--guard-rows",
    type=click.IntRange(0),
    default=Settings().guard_rows,
    show_default=True,
    help="Rows from which on a table counts as in use.",
)
@click.option(
    "--target-ms",
    type=click.FloatRange(1, 500),
    default=Settings().target_ms,
    show_default=True,
    help="Wanted length of a chunk's transaction.",
)
@click.option(
    "--hold",
    type=Seconds(),
    default="7d",
    show_default=True,
    help="How long what was retired or parked is kept.",
)
@click.pass_context
def cli(
    ctx: click.Context,
    config: str,
    name: str,
    database_url: str | None,
    x: tuple[str, ...],
    lock_timeout_ms: int,
    step_budget: float,
    build_budget: float,
    guard_rows: int,
    target_ms: float,
    hold: float,
) -> None:
    """Change a live PostgreSQL while two releases of an application use it."""
    settings = Settings(
        lock_timeout_ms=lock_timeout_ms,
        step_budget_s=step_budget,
        build_budget_s=build_budget,
        guard_rows=guard_rows,
        target_ms=target_ms,
        hold_s=hold,
    )
    guard = policy(pyproject().get("guard", {}))
    ctx.obj = App(config, database_url, x, settings, guard, name)
    alembic_revision.settings = settings
    alembic_revision.guard = guard
    alembic_revision.progress = Bars()


@cli.command(**example("migrator init"))
@pass_app
def init(app: App) -> None:
    """Add the options to env.py, or say exactly what to add."""
    init_command.run(app.project())


@cli.command(**example("migrator plan 3f2a1b --json"))
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
        _note_edits(app)
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


def _note_edits(app: App) -> None:
    """Tell of changes that run otherwise than their files say."""
    for edit in app.edits():
        note(edit)


@cli.command(**example("migrator expand 3f2a1b"))
@change_argument
@json_option
@pass_app
def expand(app: App, change: str | None, json: bool) -> None:
    """Run the Alembic revisions up to a change: its new shape beside the old."""
    wanted = app.named(change)
    if change is None:
        _note_edits(app)
    if not wanted:
        _nothing("expand", json)
    known = {c.id: c for c in app.runner().changes()}
    refused: list[Refused] = []
    for one in wanted:
        if one.id in known and one.revision not in app.left():
            # Its revision is applied already: rolled back.
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
    if json and wanted:
        said_of(app, [one.id for one in wanted])


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


@cli.command(**example("migrator backfill 3f2a1b --workers 2"))
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


@cli.command(**example("migrator verify 3f2a1b"))
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
    """Compare both sides, repair what is out of step and name it by its key."""
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


@cli.command(
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
    """Take the old shape out of sight; with --drop, drop it after the hold."""
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


@cli.command(**example("migrator rollback 3f2a1b --to planned"))
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


@cli.command(**example("migrator status --json"))
@change_argument
@json_option
@pass_app
def status(app: App, change: str | None, json: bool) -> None:
    """Show where changes stand and what comes next."""
    runner = app.runner()
    rows = [runner.change(change)] if change else runner.changes()
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
                f"{r.state}{', finished' if r.finished else ''}",
                f"{r.state_at:%Y-%m-%d %H:%M:%S}",
            )
            for r in rows
        ],
    )
    for row in rows:
        if row.in_flight or change:
            detail(app, row)


@cli.command(**example("migrator log 3f2a1b"))
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


@cli.command(**example("migrator demo --rows 100000 --json"))
@click.option(
    "--rows",
    type=click.IntRange(1_000, 50_000_000),
    default=500_000,
    show_default=True,
    help="Rows of the demo's table.",
)
@json_option
@pass_app
def demo(app: App, rows: int, json: bool) -> None:
    """Rename a column of a table under live traffic, there and back."""
    progress = Bars()
    result = demo_command.run(rows, app.url, progress)
    if json:
        output.as_json(result)
    else:
        demo_command.show(result)
    if result["failed_requests"] or result["mismatched_rows"]:
        sys.exit(1)


for group in (
    control.group,
    lint.group,
    patterns.group,
    reconcile.group,
    revision_command.group,
    server.group,
):
    for command in group.commands.values():
        cli.add_command(command)
cli.add_command(hook.group)


_STOPPED = "Stopped; what was committed stays. Run the same command again to go on."


def main() -> None:
    """Run the command line, and turn errors into exit codes."""
    try:
        defaults = pyproject()
        known = {p.name for p in cli.params} | {"guard", "events", "start_after"}
        known |= set(cli.commands)
        if unknown := sorted(set(defaults) - known):
            raise UsageError(
                f"[tool.migrator] has a setting {unknown[0]!r} that there is not.",
                next="see `migrator --help`; the name is that of the flag.",
            )
        # Commands' own options are looked up under the command's name.
        cli.main(default_map=defaults, standalone_mode=False)
    except click.Abort:
        click.echo(_STOPPED, err=True)
        sys.exit(130)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except MigratorError as error:
        code = exit_code(error)
        wanted = {"--json", "--format=json"} & set(sys.argv)
        failed(error, code, json=bool(wanted))
        sys.exit(code)
    except KeyboardInterrupt:
        click.echo(_STOPPED, err=True)
        sys.exit(130)
