"""Commands that speak to a backfill while it runs, from any machine."""

from typing import Any

import click

from migrator.cli.app import (
    App,
    Finite,
    change_argument,
    example,
    json_option,
    pass_app,
)
from migrator.cli.report import limited, said
from migrator.errors import UsageError
from migrator.ledger.control import Limits, Mode

#: Its commands stand beside those of `migrator.cli.main`.
group = click.Group()
reason_option = click.option("--reason", default="", help="Recorded and shown.")


def _say(app: App, change: str | None, mode: Mode, reason: str, json: bool) -> None:
    row = app.runner().say(app.only(change), mode, reason)
    said(app, row.id, json)


@group.command(**example('migrator pause 3f2a1b --reason "month-end closing"'))
@change_argument
@reason_option
@json_option
@pass_app
def pause(app: App, change: str | None, reason: str, json: bool) -> None:
    """Let a backfill wait after its chunk, wherever it runs."""
    _say(app, change, Mode.PAUSE, reason, json)


@group.command(**example("migrator resume 3f2a1b"))
@change_argument
@reason_option
@json_option
@pass_app
def resume(app: App, change: str | None, reason: str, json: bool) -> None:
    """Let a paused or aborted change run again."""
    _say(app, change, Mode.RUN, reason, json)


@group.command(**example('migrator abort 3f2a1b --reason "wrong expression"'))
@change_argument
@reason_option
@json_option
@pass_app
def abort(app: App, change: str | None, reason: str, json: bool) -> None:
    """End a backfill after its chunk; resume or roll back goes on."""
    _say(app, change, Mode.ABORT, reason, json)


UNITS = {"kB": 1e3, "MB": 1e6, "GB": 1e9}


class Bytes(click.ParamType[float]):
    """A number of bytes such as 500kB, 20MB or 1GB (powers of 1000)."""

    name = "size"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Return bytes."""
        if isinstance(value, int | float):
            return float(value)
        number, unit = value[:-2], value[-2:]
        if unit in UNITS and number.replace(".", "", 1).isdecimal():
            size = float(number) * UNITS[unit]
            if size > 0:
                return size
            self.fail("with no WAL at all it could not go on; pause it", param, ctx)
        self.fail(f"{value!r} is not a size; write 500kB, 20MB or 1GB", param, ctx)


@group.command(**example("migrator throttle 3f2a1b --max-rows-per-s 5000"))
@change_argument
@click.option(
    "--max-rows-per-s",
    type=Finite(min=0, min_open=True),
    help="Rows changed in a second, by all workers.",
)
@click.option(
    "--max-wal",
    type=Bytes(),
    help="WAL that the server may write in a second, by anyone, e.g. 20MB.",
)
@click.option(
    "--target-ms",
    type=Finite(1, 500),
    help="Wanted length of a chunk's transaction.",
)
@click.option("--workers", type=click.IntRange(1, 64), help="In each process.")
@click.option("--off", is_flag=True, help="Take all limits back.")
@json_option
@pass_app
def throttle(
    app: App,
    change: str | None,
    max_rows_per_s: float | None,
    max_wal: float | None,
    target_ms: float | None,
    workers: int | None,
    off: bool,
    json: bool,
) -> None:
    """Limit a backfill from its next chunk on; limits not named stay."""
    limits = Limits(
        max_rows_per_s=max_rows_per_s,
        max_wal_bytes_per_s=max_wal,
        target_ms=target_ms,
        workers=workers,
    )
    if off == (limits != Limits()):
        raise UsageError(
            "Either limits are given, or --off.",
            next="see `migrator throttle --help`; `migrator status` shows those that"
            " are in force.",
        )
    runner = app.runner()
    row = runner.limit(app.only(change), None if off else limits)
    if not json and not row.finished:
        now = limited(runner.said(row.id).limits) or "none"
        click.echo(f"Limits of {row.id}, from its next chunk on: {now}.")
        return
    said(app, row.id, json)
