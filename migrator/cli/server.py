"""`migrator server`: a PostgreSQL for a project that has none at hand."""

import signal
from pathlib import Path

import click

from migrator.cli import output
from migrator.cli.app import example, json_option
from migrator.cli.report import JSON_SCHEMA
from migrator.errors import Failed
from migrator.postgres.embedded import Server

#: Its command stands beside those of `migrator.cli.main`.
group = click.Group()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@group.command(**example("migrator server .postgres --port 5433"))
@click.argument(
    "folder", required=False, type=click.Path(file_okay=False, path_type=Path)
)
@click.option("--port", type=click.IntRange(1, 65535), help="By default a free one.")
@json_option
def server(folder: Path | None, port: int | None, json: bool) -> None:
    """
    Run a PostgreSQL until Ctrl-C, for development; print its URL.

    FOLDER keeps its data; without one they go when it ends. It listens on 127.0.0.1,
    and asks for no password. The extra `embedded` brings it.
    """
    # A polite kill, or a terminal that is closed, ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    with Server.start(folder=folder, port=port or 0) as made:
        # With a driver that is installed, so that it may stand in alembic.ini.
        url = made.url().replace("postgresql:", "postgresql+psycopg:")
        if json:
            output.as_json({"schema": JSON_SCHEMA, "url": url})
        else:
            click.echo(url)
        kept = f"{folder} keeps its data" if folder else "its data go with it"
        click.echo(f"Ctrl-C stops it; {kept}.", err=True)
        try:
            made.wait()
        except KeyboardInterrupt:
            return
        raise Failed(
            f"The server has ended:\n{made.said()}",
            state="Its folder stays." if folder else "Its folder was removed.",
            next="read the log; run this again.",
        )
