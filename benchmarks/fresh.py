"""
What the guard costs a fresh install: `python -m benchmarks.fresh`.

A project of 200 plain revisions is run from nothing to head, by Alembic's own command,
with the options of `env.py` and without, by turns. Told are the revisions themselves,
from the first to the last, and the whole command: with the options it also loads the
toolkit, makes and takes the lease, however many revisions there are. Its processor time
is told as well, which other work on the machine changes little.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import click
import psycopg

from migrator.postgres.embedded import Server

ENV = """
import os, time
from alembic import context
from sqlalchemy import create_engine

applied = []
options = {"transaction_per_migration": True}
if os.environ["OPTIONS"]:
    from migrator import alembic as zd
    options = zd.options()
with create_engine(os.environ["URL"]).connect() as connection:
    context.configure(
        connection=connection,
        on_version_apply=lambda **_: applied.append(time.monotonic()),
        **options,
    )
    with context.begin_transaction():
        context.run_migrations()
print(applied[-1] - applied[0])
"""

HEAD = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = {revision!r}, {before!r}


def upgrade():
"""

# By turns: a table, and three revisions that change it.
KINDS = (
    'op.create_table("t{table}", sa.Column("id", sa.BigInteger, primary_key=True),'
    ' sa.Column("name", sa.Text), sa.Column("at", sa.DateTime))',
    'op.add_column("t{table}", sa.Column("size", sa.Integer, nullable=True))',
    'op.create_index("ix_t{table}", "t{table}", ["name"])',
    'op.alter_column("t{table}", "name", nullable=False)',
)


def write(folder: Path, revisions: int) -> None:
    """Write a project."""
    versions = folder / "migrations" / "versions"
    versions.mkdir(parents=True)
    (folder / "alembic.ini").write_text("[alembic]\nscript_location = migrations\n")
    (folder / "migrations" / "script.py.mako").touch()
    (folder / "migrations" / "env.py").write_text(ENV)
    for number in range(revisions):
        name, before = f"r{number:04}", f"r{number - 1:04}" if number else None
        kind = KINDS[number % len(KINDS)].format(table=number // len(KINDS))
        text = HEAD.format(revision=name, before=before) + f"    {kind}\n"
        (versions / f"{name}.py").write_text(text)


def seconds(
    server: Server, folder: Path, database: str, *, options: bool
) -> tuple[float, float, float]:
    """
    Return how long a run takes, on a database of its own.

    Returns:
        Seconds of the revisions, of the command, and of the command's processor time.
    """
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {database}".encode())
        # The next run pays for no checkpoint of this one.
        admin.execute("CHECKPOINT")
    url = server.url(database).replace("postgresql:", "postgresql+psycopg:")
    before = _processor()
    begun = time.monotonic()
    done = subprocess.run(
        [Path(sys.executable).parent / "alembic", "upgrade", "head"],
        cwd=folder,
        env={**_environment(), "URL": url, "OPTIONS": "yes" if options else ""},
        check=True,
        capture_output=True,
        text=True,
    )
    taken, worked = time.monotonic() - begun, _processor() - before
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute(f"DROP DATABASE {database} WITH (FORCE)".encode())
    return float(done.stdout.split()[-1]), taken, worked


def _environment() -> dict[str, str]:
    """
    Return the environment of the command, which may write compiled files.

    Those of an installed package are compiled; of a checkout they would otherwise be
    compiled in each run.
    """
    unwanted = "PYTHONDONTWRITEBYTECODE"
    return {name: value for name, value in os.environ.items() if name != unwanted}


def _processor() -> float:
    """Return seconds of processor time of all commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@click.command()
@click.option("--revisions", default=200, show_default=True)
@click.option("--runs", default=7, show_default=True)
def main(revisions: int, runs: int) -> None:
    """Print the medians of several runs with the options and without, by turns."""
    with tempfile.TemporaryDirectory() as made, Server.start() as server:
        folder = Path(made)
        write(folder, revisions)
        found: dict[bool, list[tuple[float, float, float]]] = {False: [], True: []}
        # The first of each writes compiled files, and does not count.
        for run in range(runs + 1):
            for options in (False, True) if run % 2 else (True, False):
                name = f"fresh_{run}_{int(options)}"
                taken = seconds(server, folder, name, options=options)
                if run:
                    found[options].append(taken)
    measures = ("revisions themselves", "whole command", "its processor time")
    for number, what in enumerate(measures):
        plain, guarded = (
            median(taken[number] for taken in found[options])
            for options in (False, True)
        )
        click.echo(
            f"{what}: {plain:.2f} s without options, {guarded:.2f} s with"
            f" ({guarded / plain - 1:+.1%})"
        )
        for options, times in found.items():
            shown = ", ".join(f"{one:.2f}" for one in sorted(t[number] for t in times))
            click.echo(f"    {'with' if options else 'without'}: {shown}")


if __name__ == "__main__":
    main()
