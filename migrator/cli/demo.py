"""`migrator demo`: the demo's server, and its closing table."""

import signal
from typing import Any

import click

from migrator.cli import output
from migrator.demo.scenario import play
from migrator.postgres.connection import Target
from migrator.postgres.embedded import Server
from migrator.progress import Progress


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def run(rows: int, url: str | None, progress: Progress) -> dict[str, Any]:
    """
    Run the demo on the user's server, or on one that lives as long as it.

    Args:
        rows: of the table.
        url: the user's database; None starts an embedded server.
        progress: told what happens.
    """
    # A polite kill, or a terminal that is closed, cleans up as Ctrl-C does.
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    if url is not None:
        Target.from_url(url)
        scheme, _, rest = url.partition("://")
        return play(f"{scheme.partition('+')[0]}://{rest}", rows, progress)
    click.echo("starting a PostgreSQL server in a temporary folder ...", err=True)
    server = Server.start()
    try:
        click.echo(f"making a table of {rows:,} rows ...", err=True)
        return play(server.url(), rows, progress)
    finally:
        # A second Ctrl-C must not leave the server behind.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        server.remove()
        signal.signal(signal.SIGINT, signal.default_int_handler)


def show(result: dict[str, Any]) -> None:
    """Print the closing table."""
    click.echo()
    output.table(
        ("phase", "seconds"),
        [(p["name"], f"{p['seconds']:.2f}") for p in result["phases"]],
    )
    click.echo()
    output.table(
        ("measure", "value"),
        [
            ("rows in the table", f"{result['rows']:,}"),
            ("requests of the old release", f"{result['old_requests']:,}"),
            ("requests of the new release", f"{result['new_requests']:,}"),
            ("failed requests", result["failed_requests"]),
            ("longest stall", f"{result['max_stall_ms']} ms"),
            ("p99 before", f"{result['p99_ms_before']} ms"),
            ("p99 during", f"{result['p99_ms_during']} ms"),
            ("backfill", f"{result['backfill_rows_per_s']:,} rows/s"),
            ("mismatched rows", result["mismatched_rows"]),
            ("lock waits", result["lock_waits"]),
        ],
    )
    for failure in result["failures"]:
        click.secho(f"failed: {failure}", fg="red")
