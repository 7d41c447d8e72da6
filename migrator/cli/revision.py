"""`migrator revision`: changes that autogenerate cannot see, as revisions."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import click
from alembic import command as alembic_command
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError, rev_id

from migrator.alembic import writing
from migrator.alembic.project import patterns_of
from migrator.alembic.requiring import Requiring
from migrator.alembic.writing import Way, Written
from migrator.cli import output
from migrator.cli.app import App, example, json_option, pass_app
from migrator.cli.findings import near
from migrator.cli.report import JSON_SCHEMA
from migrator.errors import MigratorError, UsageError
from migrator.pattern import Undecided
from migrator.patterns import RenameColumn, RenameTable, SplitColumn

#: Its command stands beside those of `migrator.cli.main`.
group = click.Group()


@group.command(
    **example('migrator revision -m "full names" --rename users.name:full_name')
)
@click.option("-m", "--message", help="What the revision is about; as in Alembic.")
@click.option(
    "--rename",
    multiple=True,
    metavar="TABLE.COLUMN:NEW",
    help="A column that gets another name.",
)
@click.option(
    "--rename-table",
    multiple=True,
    metavar="TABLE:NEW",
    help="A table that gets another name.",
)
@click.option(
    "--split",
    multiple=True,
    metavar="TABLE.COLUMN:A,B",
    help="A column that becomes several.",
)
@click.option(
    "--autogenerate",
    is_flag=True,
    help="Compare the models with the database, as alembic revision does.",
)
@click.option("--head", default="head", help="The revision that it comes after.")
@json_option
@pass_app
def revision(
    app: App,
    message: str | None,
    rename: tuple[str, ...],
    rename_table: tuple[str, ...],
    split: tuple[str, ...],
    autogenerate: bool,
    head: str,
    json: bool,
) -> None:
    """
    Write revisions for changes, each one in a file of its own.

    What is renamed or split no comparison can see. A table may be given with its
    schema: app.users.name.
    """
    changes = [
        *map(_renamed_table, rename_table),
        *map(_renamed, rename),
        *map(_split, split),
    ]
    if bool(changes) == autogenerate:
        raise UsageError(
            "Either --autogenerate or changes are asked for.",
            next="give --rename, --rename-table or --split, or --autogenerate alone.",
        )
    if autogenerate:
        # What is wrong with env.py is told as by every other command.
        app.heads()
    config = app.project().config
    # What Alembic tells is for a person; on standard output are the paths.
    config.stdout = sys.stderr
    try:
        with redirect_stdout(sys.stderr):
            if autogenerate:
                done = alembic_command.revision(
                    config, message, autogenerate=True, head=head
                )
                scripts = done if isinstance(done, list) else [done]
            else:
                script = ScriptDirectory.from_config(config)
                scripts = writing.write(
                    script,
                    list(_named(script, message, changes, head)),
                    head=head,
                    config=config,
                )
    except CommandError as error:
        if isinstance(error.__cause__, MigratorError):
            raise error.__cause__ from None
        raise UsageError(f"Alembic: {error}") from error
    _show([_Made.of(s) for s in scripts if s is not None], json)


def _named(
    script: ScriptDirectory, message: str | None, changes: Sequence[Written], head: str
) -> Iterator[tuple[str, str, Written]]:
    """Return the id and message of each revision, and its change with what it needs."""
    requiring = Requiring(script)
    for change in changes:
        revision = rev_id()
        written = requiring.add(revision, head, change)
        assert written is not None
        yield revision, _message(message, change, len(changes) > 1), written
        head = revision


def _message(given: str | None, change: Written, several: bool) -> str:
    if given and several:
        return f"{given}: {change.title}"
    return given or change.title


# -- what is asked for


def _renamed(text: str) -> Written:
    """Return the rename of a column."""
    schema, table, column, to = _column(text, "--rename", "users.name:full_name")
    pattern = RenameColumn(table, column, to, schema=schema)
    return Written(title=pattern.title, ways=(Way((pattern,)),))


def _renamed_table(text: str) -> Written:
    """Return the rename of a table."""
    name, colon, to = text.partition(":")
    schema, dot, table = name.rpartition(".")
    if not (colon and to and table) or (dot and not schema) or "." in to:
        raise UsageError(
            f'"{text}" says no rename of a table.',
            next="write --rename-table users:accounts, with a schema before the first"
            " name where it needs one.",
        )
    pattern = RenameTable(table, to, schema=schema or None)
    return Written(title=pattern.title, ways=(Way((pattern,)),))


def _split(text: str) -> Written:
    """Return the split of a column, whose expressions are a sketch."""
    schema, table, column, parts = _column(text, "--split", "users.name:first,last")
    into = [part.strip() for part in parts.split(",")]
    if len(into) < 2 or not all(into):
        raise UsageError(
            f'"{text}" splits a column into fewer than two.',
            next="write --split users.name:first,last.",
        )
    old = _identifier(column)
    pattern = SplitColumn(
        table,
        column,
        into={
            name: ("text", f"split_part({old}, ' ', {number})")
            for number, name in enumerate(into, 1)
        },
        back=" || ' ' || ".join(map(_identifier, into)),
        schema=schema,
    )
    return Written(
        title=pattern.title,
        ways=(Way((pattern,), "This cuts at spaces, and joins with them."),),
        choice="which expressions make the new columns, and the old one from them",
    )


def _identifier(name: str) -> str:
    """Return a name as SQL, plain where that is enough."""
    if name.isidentifier() and name.islower() and name.isascii():
        return name
    return '"' + name.replace('"', '""') + '"'


def _column(text: str, option: str, shown: str) -> tuple[str | None, str, str, str]:
    """Return schema, table and column, and what stands behind the colon."""
    name, colon, to = text.partition(":")
    parts = name.split(".")
    if not (colon and to) or len(parts) not in (2, 3) or not all(parts):
        raise UsageError(
            f'"{text}" does not name a column and what it becomes.',
            next=f"write {option} {shown}, with a schema before the table where it"
            " needs one.",
        )
    schema = parts[0] if len(parts) == 3 else None
    return schema, parts[-2], parts[-1], to


# -- what was written


@dataclass(frozen=True, slots=True)
class _Made:
    """A revision that was written."""

    revision: str
    file: Path
    message: str
    choices: tuple[str, ...]

    @classmethod
    def of(cls, script: Script) -> "_Made":
        """Return what a person wants to know of one."""
        return cls(
            script.revision,
            Path(script.path),
            script.doc,
            tuple(choices_of(script)),
        )


def choices_of(script: Script) -> Iterator[str]:
    """Return what has to be decided in a revision."""
    for pattern in patterns_of(script.module):
        if isinstance(pattern, Undecided):
            yield pattern.choice


def _show(made: Sequence[_Made], json: bool) -> None:
    if json:
        output.as_json(
            {
                "schema": JSON_SCHEMA,
                "revisions": [
                    {
                        "revision": m.revision,
                        "file": near(m.file),
                        "message": m.message,
                        "undecided": list(m.choices),
                    }
                    for m in made
                ],
            }
        )
        return
    for one in made:
        click.echo(near(one.file))
        for choice in one.choices:
            click.secho(output.wrapped(f"Decide {choice}.", "  "), fg="yellow")
    if made:
        click.echo("Next: review, then run `migrator plan`.")
