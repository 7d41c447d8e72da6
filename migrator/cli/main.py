"""The commands."""

import sys
import tomllib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
from alembic import command as alembic_command
from alembic.util import CommandError

from migrator import __version__
from migrator.alembic import revision as alembic_revision
from migrator.alembic.project import Project
from migrator.change import DEFAULT_VERSION_TABLE, Change
from migrator.cli import demo as demo_command
from migrator.cli import init as init_command
from migrator.cli import output
from migrator.errors import (
    Held,
    LockBudgetError,
    MigratorError,
    MismatchError,
    UsageError,
)
from migrator.kernels.chunking import KINDS
from migrator.ledger.store import ChangeRow
from migrator.plan import Phase, State, plan_to_dict
from migrator.postgres.connection import Target
from migrator.runner import Runner
from migrator.settings import Settings

# Exit codes, as in the README. A class stands before its base.
EXITS: tuple[tuple[type[MigratorError], int], ...] = (
    (UsageError, 2),
    (Held, 3),
    (MismatchError, 4),
    (LockBudgetError, 5),
    (MigratorError, 1),
)
# The form of every `--json` output; grows when a key changes its meaning.
JSON_SCHEMA = 1


@dataclass(slots=True)
class App:
    """What the group's options say; commands take from it what they need."""

    config: str
    url: str | None
    x: tuple[str, ...]
    settings: Settings
    _target: Target | None = None
    _version_table: str = DEFAULT_VERSION_TABLE
    _heads: tuple[str, ...] = ()
    _known: bool = False

    def project(self) -> Project:
        """Return the Alembic project."""
        return Project.load(self.config, url=self.url, x=self.x)

    def _look(self) -> None:
        if self._known:
            return
        if Path(self.config).is_file():
            found = self.project().database()
            self._target, self._version_table, self._heads = found
        if self.url is not None:
            self._target = Target.from_url(self.url)
        self._known = True

    def runner(self) -> Runner:
        """Return an engine on the database."""
        self._look()
        if self._target is None:
            raise UsageError(
                "No database is given.",
                next="set MIGRATOR_DATABASE_URL, give --database-url, or run this"
                " where alembic.ini is.",
            )
        return Runner(self._target, settings=self.settings, progress=output.Bars())

    def changes(self) -> list[Change]:
        """Return the changes of the project's revisions."""
        self._look()
        return self.project().changes(self._version_table)

    def heads(self) -> tuple[str, ...]:
        """Return the revisions that the database is at."""
        self._look()
        return self._heads

    def one(self, name: str | None) -> Change:
        """
        Return a change of the revisions, by its id or the beginning of it.

        Raises:
            UsageError: none or several match.
        """
        known = self.changes()
        if name is None:
            ledger = {c.id: c for c in self.runner().changes()}
            found = [
                c
                for c in known
                if c.id not in ledger or ledger[c.id].state is State.PLANNED
            ]
        else:
            found = [c for c in known if c.id == name] or [
                c for c in known if c.id.startswith(name)
            ]
        if len(found) == 1:
            return found[0]
        listed = ", ".join(c.id for c in found or known) or "none"
        what = f'"{name}" names' if name else "There are"
        raise UsageError(
            f"{what} {len(found)} changes to choose from: {listed}.",
            next="give the id of one; it is its revision's.",
        )

    def only(self, name: str | None) -> str:
        """
        Return the id of a change in the ledger; the one in flight by default.

        Raises:
            UsageError: no name is given and not just one is in flight.
        """
        if name is not None:
            return self.runner().change(name).id
        flying = [c.id for c in self.runner().changes() if c.in_flight]
        if len(flying) == 1:
            return flying[0]
        raise UsageError(
            f"{len(flying)} changes are in flight: {', '.join(flying) or 'none'}.",
            next="give the id of one.",
        )


def _pyproject() -> dict[str, Any]:
    """Return `[tool.migrator]` of the project's pyproject.toml."""
    path = Path("pyproject.toml")
    if not path.is_file():
        return {}
    found = tomllib.loads(path.read_text()).get("tool", {}).get("migrator", {})
    if any("url" in key for key in found):
        raise UsageError(
            "pyproject.toml holds a database URL under [tool.migrator].",
            next="keep it in MIGRATOR_DATABASE_URL: passwords do not belong there.",
        )
    return {key.replace("-", "_"): value for key, value in found.items()}


UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Seconds(click.ParamType[float]):
    """A time such as 90s, 15m, 12h or 7d."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Return seconds."""
        if isinstance(value, int | float):
            return float(value)
        number, unit = value[:-1], value[-1:]
        if unit in UNITS and number.replace(".", "", 1).isdigit():
            return float(number) * UNITS[unit]
        self.fail(f"{value!r} is not a time; write 90s, 15m, 12h or 7d", param, ctx)


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
@click.option("--database-url", help="Instead of the database that env.py connects to.")
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
    database_url: str | None,
    x: tuple[str, ...],
    lock_timeout_ms: int,
    step_budget: float,
    build_budget: float,
    target_ms: float,
    hold: float,
) -> None:
    """Change a live PostgreSQL while two releases of an application use it."""
    settings = Settings(
        lock_timeout_ms=lock_timeout_ms,
        step_budget_s=step_budget,
        build_budget_s=build_budget,
        target_ms=target_ms,
        hold_s=hold,
    )
    ctx.obj = App(config, database_url, x, settings)
    alembic_revision.settings = settings
    alembic_revision.progress = output.Bars()


def _example(line: str) -> dict[str, Any]:
    return {"epilog": f"Example: {line}"}


json_option = click.option("--json", "json", is_flag=True, help="Print JSON.")
change_argument = click.argument("change", required=False)
pass_app: Callable[..., Any] = click.pass_obj


def _said(app: App, change: str, json: bool) -> None:
    """Tell where a change stands after a command."""
    row = app.runner().change(change)
    if json:
        output.as_json({"schema": JSON_SCHEMA, **_status_of(app, row)})
    else:
        click.echo(f"{row.id} is {row.state}. Next: {_next_step(row)}")


def _next_step(row: ChangeRow) -> str:
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


def _status_of(app: App, row: ChangeRow) -> dict[str, Any]:
    data = asdict(row)
    data.pop("parameters")
    data["in_flight"] = row.in_flight
    data["next"] = _next_step(row)
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


@cli.command(**_example("migrator init"))
@pass_app
def init(app: App) -> None:
    """Add the options to env.py, or say exactly what to add."""
    init_command.run(app.project())


@cli.command(**_example("migrator plan 3f2a1b --json"))
@change_argument
@json_option
@pass_app
def plan(app: App, change: str | None, json: bool) -> None:
    """Show a change's steps: SQL, lock, way back and size. Changes nothing."""
    found = app.runner().plan(app.one(change))
    if json:
        output.as_json(plan_to_dict(found))
    else:
        output.plan(found)


@cli.command(**_example("migrator expand 3f2a1b"))
@change_argument
@json_option
@pass_app
def expand(app: App, change: str | None, json: bool) -> None:
    """Run the Alembic revisions up to a change: its new shape beside the old."""
    wanted = app.one(change)
    known = {c.id: c for c in app.runner().changes()}
    if wanted.id in known:
        # Its revision may be applied already: rolled back, or cut off.
        app.runner().expand(wanted)
    try:
        alembic_command.upgrade(app.project().config, wanted.revision)
    except CommandError as error:
        if isinstance(error.__cause__, MigratorError):
            raise error.__cause__ from None
        raise UsageError(f"Alembic: {error}") from error
    _said(app, wanted.id, json)


@cli.command(**_example("migrator backfill 3f2a1b --workers 2"))
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
    wanted = app.only(change)
    runner = app.runner()
    runner.settings = replace(runner.settings, workers=workers, chunking=chunking)
    if runner.backfill(wanted).rank < State.VERIFIED.rank:
        runner.verify(wanted)
    _said(app, wanted, json)


@cli.command(**_example("migrator verify 3f2a1b"))
@change_argument
@json_option
@pass_app
def verify(app: App, change: str | None, json: bool) -> None:
    """Compare both sides, repair what is out of step."""
    wanted = app.only(change)
    app.runner().verify(wanted)
    _said(app, wanted, json)


@cli.command(
    **_example('migrator contract 3f2a1b --old-release-gone "v41 is scaled to 0"')
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
    wanted = app.only(change)
    runner = app.runner()
    if drop:
        row = runner.change(wanted)
        if row.state is State.RETIRED and not row.finished and not yes:
            click.confirm(
                f"Drop what {row.id} ({row.title}) retired? There is no way back.",
                abort=True,
                err=True,
            )
        runner.drop(wanted)
    else:
        runner.retire(wanted, old_release_gone=old_release_gone)
    _said(app, wanted, json)


@cli.command(**_example("migrator rollback 3f2a1b --to planned"))
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
        if not yes:
            click.confirm(
                f"Drop what {wanted} parked? There is no way back.",
                abort=True,
                err=True,
            )
        runner.drop_parked(wanted)
    else:
        runner.rollback(wanted, to=State(to) if to else None)
    _said(app, wanted, json)


@cli.command(**_example("migrator status --json"))
@change_argument
@json_option
@pass_app
def status(app: App, change: str | None, json: bool) -> None:
    """Show where changes stand and what comes next."""
    runner = app.runner()
    rows = [runner.change(change)] if change else runner.changes()
    if json:
        output.as_json(
            {"schema": JSON_SCHEMA, "changes": [_status_of(app, r) for r in rows]}
        )
        return
    if not rows:
        click.echo("No changes yet. Next: migrator plan")
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
            _detail(app, row)


def _detail(app: App, row: ChangeRow) -> None:
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
    click.echo(f"  Next: {_next_step(row)}")


@cli.command(**_example("migrator log 3f2a1b"))
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
                " ".join([e["kind"], *(str(v) for v in e["detail"].values())]),
            )
            for e in events
        ],
    )


@cli.command(**_example("migrator demo --rows 100000 --json"))
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
    progress = output.Bars()
    result = demo_command.run(rows, app.url, progress)
    if json:
        output.as_json(result)
    else:
        demo_command.show(result)
    if result["failed_requests"] or result["mismatched_rows"]:
        sys.exit(1)


def main() -> None:
    """Run the command line, and turn errors into exit codes."""
    try:
        defaults = _pyproject()
        # Commands' own options are looked up under the command's name.
        cli.main(default_map=defaults, standalone_mode=False)
    except click.Abort:
        click.echo(
            "Stopped; what was committed stays, run it again to go on.", err=True
        )
        sys.exit(130)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except MigratorError as error:
        click.secho("Error: ", fg="red", bold=True, nl=False, err=True)
        click.echo(str(error), err=True)
        sys.exit(next(code for kind, code in EXITS if isinstance(error, kind)))
    except KeyboardInterrupt:
        click.echo(
            "Stopped; what was committed stays, run it again to go on.", err=True
        )
        sys.exit(130)
