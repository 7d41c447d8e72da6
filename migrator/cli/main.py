"""The commands."""

import sys

import click

from migrator import __version__
from migrator.alembic import revision as alembic_revision
from migrator.cli import (
    control,
    hook,
    lint,
    look,
    output,
    patterns,
    phases,
    reconcile,
    server,
)
from migrator.cli import demo as demo_command
from migrator.cli import init as init_command
from migrator.cli import revision as revision_command
from migrator.cli.app import App, Finite, Seconds, example, json_option, pass_app
from migrator.cli.bars import Bars
from migrator.cli.report import exit_code, failed
from migrator.cli.sections import Sections
from migrator.configuration import pyproject
from migrator.errors import MigratorError, UsageError
from migrator.guard.policy import policy
from migrator.settings import Settings


@click.group(
    cls=Sections,
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
    type=Finite(1, 500),
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
    """Change a live PostgreSQL schema while two releases of an application use it."""
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
    look.group,
    patterns.group,
    phases.group,
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
