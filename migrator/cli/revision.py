"""`migrator revision`: changes that autogenerate cannot see, as revisions."""

import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path

import click
from alembic import command as alembic_command
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError, rev_id, to_tuple

from migrator.alembic import writing
from migrator.alembic.project import patterns_of
from migrator.alembic.requiring import Requiring
from migrator.alembic.writing import Way, Written
from migrator.cli import absent, output
from migrator.cli.app import App, example, json_option, pass_app
from migrator.cli.findings import near
from migrator.cli.report import JSON_SCHEMA
from migrator.errors import MigratorError, UsageError
from migrator.kernels.mirror_table.linkable import named_after
from migrator.lint import text as sql_text
from migrator.lint.database import reader
from migrator.lint.scene import Reader
from migrator.lint.statements import Ref
from migrator.names import TableName
from migrator.pattern import Pattern, Undecided
from migrator.patterns import (
    ExtractTable,
    MergeColumns,
    MoveColumn,
    RenameColumn,
    RenameTable,
    SplitColumn,
)
from migrator.postgres.connection import connect

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
    "--merge",
    multiple=True,
    metavar="TABLE.A,B:NEW",
    help="Columns that become one.",
)
@click.option(
    "--move",
    multiple=True,
    metavar="TABLE.COLUMN:OTHER",
    help="A column that goes to another table; OTHER.NEW gives it another name there.",
)
@click.option(
    "--extract",
    multiple=True,
    metavar="TABLE.A,B:NEW",
    help="Columns whose values become rows of a new table.",
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
    merge: tuple[str, ...],
    move: tuple[str, ...],
    extract: tuple[str, ...],
    autogenerate: bool,
    head: str,
    json: bool,
) -> None:
    """
    Write revisions for changes, each one in a file of its own.

    What is renamed, split, merged, moved or extracted no comparison can see. A table
    may be given with its schema: app.users.name.
    """
    changes = [
        *map(_renamed_table, rename_table),
        *map(_renamed, rename),
        *map(_split, split),
        *map(_merged, merge),
        *map(_moved, move),
        *map(_extracted, extract),
    ]
    if bool(changes) == autogenerate:
        raise UsageError(
            "Either --autogenerate or changes are asked for.",
            next="give --rename, --rename-table, --split, --merge, --move or --extract,"
            " or --autogenerate alone.",
        )
    if autogenerate:
        # What is wrong with env.py is told as by every other command.
        app.heads()
    project = app.project()
    if changes:
        _require_columns(app, [c.ways[0].patterns[0] for c in changes])
        changes = _with_types(app, changes)
    config = project.config
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
                script = project.script()
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
    written = [s for s in scripts if s is not None]
    ids = [s.revision for s in written]
    _show([_Made.of(s, ids) for s in written], json)


def _require_columns(app: App, patterns: Sequence[Pattern]) -> None:
    """
    Refuse a column that a table does not have, nor gets by a revision before.

    Raises:
        NotThere: names the nearest one.
    """
    try:
        ahead = app.project().revisions(applied=app.heads())
        runner = absent.quick(app)
    except MigratorError:
        # Without a database at hand a revision is written all the same.
        return
    if error := absent.columns(runner, ahead, patterns):
        raise error


def _with_types(app: App, changes: list[Written]) -> list[Written]:
    """Return changes with the types that a downgrade after the drop has to know."""
    try:
        conn = connect(app.target(), "migrator:revision")
    except MigratorError:
        return changes
    with closing(conn):
        read = reader(conn)
        return [
            replace(
                change,
                ways=tuple(
                    replace(w, patterns=tuple(_typed(p, read) for p in w.patterns))
                    for w in change.ways
                ),
            )
            for change in changes
        ]


def _typed(pattern: Pattern, read: Reader) -> Pattern:
    """Return a pattern with the types of the columns that go."""
    if not isinstance(pattern, SplitColumn | MergeColumns):
        return pattern
    table = read(Ref(pattern.table, pattern.schema))
    if table is None:
        return pattern
    if isinstance(pattern, SplitColumn):
        column = table.column(pattern.column)
        return pattern if column is None else replace(pattern, type=column.type)
    found = {c.name: c.type for c in table.columns if c.name in pattern.merged}
    return replace(pattern, types={n: found[n] for n in pattern.merged if n in found})


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
    into = _listed(parts)
    if len(into) < 2:
        raise UsageError(
            f'"{text}" splits a column into fewer than two.',
            next="write --split users.name:first,last.",
        )
    old = sql_text.name(column)
    back = " || ' ' || ".join(map(sql_text.name, into))
    when = "This cuts at spaces, the rest to the last column, and joins with them."
    pattern = SplitColumn(
        table,
        column,
        into={
            name: ("text", _word(old, number, len(into)))
            for number, name in enumerate(into, 1)
        },
        back=f"rtrim({back})",
        schema=schema,
    )
    return Written(
        title=pattern.title,
        ways=(Way((pattern,), when),),
        choice="which expressions make the new columns, and the old one from them",
    )


def _word(text: str, number: int, count: int) -> str:
    """Return the n-th of so many words; the last one takes all that is left."""
    if number < count:
        return f"split_part({text}, ' ', {number})"
    words = "[^ ]* ?" if count == 2 else f"([^ ]* ?){{{number - 1}}}"
    return f"regexp_replace({text}, '^{words}', '')"


def _merged(text: str) -> Written:
    """Return the merge of columns, whose expressions are a sketch."""
    shown = "people.first,last:name"
    schema, table, columns, into = _column(text, "--merge", shown)
    merged = _listed(columns)
    if len(merged) < 2 or "." in into:
        raise UsageError(
            f'"{text}" merges fewer than two columns, or into none of the table.',
            next=f"write --merge {shown}.",
        )
    new = sql_text.name(into)
    back = {
        name: _word(new, number, len(merged)) for number, name in enumerate(merged, 1)
    }
    pattern = MergeColumns(
        table,
        merged,
        into,
        "text",
        " || ' ' || ".join(map(sql_text.name, merged)),
        back=back,
        schema=schema,
    )
    when = "This joins with spaces, and cuts at them; NULL needs a coalesce(…)."
    return Written(
        title=pattern.title,
        ways=(Way((pattern,), when),),
        choice="which expressions make the new column, and the old ones from it",
    )


def _moved(text: str) -> Written:
    """Return the move of a column, whose key is a guess."""
    schema, table, column, to = _column(text, "--move", "users.bio:profiles")
    other, dot, name = to.partition(".")
    if not other or "," in column or "." in name or (dot and not name):
        raise UsageError(
            f'"{text}" does not name a column and the table that it goes to.',
            next="write --move users.bio:profiles, or users.bio:profiles.about.",
        )
    pattern = MoveColumn(
        table,
        column,
        to=other,
        key={"id": _reference(table)},
        name=name if name not in ("", column) else None,
        schema=schema,
        assured="…",
    )
    return Written(
        title=pattern.title,
        ways=(Way((pattern,)),),
        choice=f'by what rows of "{other}" refer to those of "{table}" (`key`), and why'
        " a deadlock of two requests that write both does no harm (`assured`)",
    )


def _extracted(text: str) -> Written:
    """Return the extraction of columns; of one, as a value or as an array."""
    shown = "orders.customer_name,customer_email:customers"
    schema, table, columns, into = _column(text, "--extract", shown)
    going = _listed(columns)
    if not going or "." in into:
        raise UsageError(
            f'"{text}" does not name columns and the new table for them.',
            next=f"write --extract {shown}; the table comes into the same schema.",
        )
    reference = _reference(into)
    one = reference.removesuffix("_id")
    # A table of customers has names, not names of customers.
    move = {
        name: "name" if name in (one, into) else name.removeprefix(f"{one}_") or name
        for name in going
    }
    values = ExtractTable(
        table, into, move, reference=reference, schema=schema, assured="…"
    )
    ways = [Way((values,))]
    which = "how each column"
    if len(going) == 1:
        through = f"{_reference(table).removesuffix('_id')}_{into}"
        elements = ExtractTable(
            table, into, move, through=through, schema=schema, assured="…"
        )
        linked = "each element becomes a row, and a third table links them (N:M)."
        ways = [
            Way((values,), "It holds a value: each one becomes a row, referred to."),
            Way((elements,), f"It holds an array: {linked}"),
        ]
        which = f'whether column "{going[0]}" holds a value or an array, how it'
    return Written(
        title=values.title,
        ways=tuple(ways),
        choice=f'{which} is called in "{into}", and why the deadlocks that `migrator'
        " patterns ExtractTable` lists do no harm (`assured`)",
    )


def _listed(text: str) -> list[str]:
    """Return names between commas; none where one of them is missing."""
    names = [name.strip() for name in text.split(",")]
    return names if all(names) else []


def _reference(table: str) -> str:
    """Return how a column that refers to a table is called, as far as one can guess."""
    return named_after(TableName("", table), "id")


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
    #: Those of the same run that have to be finished before it.
    waits: tuple[str, ...]

    @classmethod
    def of(cls, script: Script, written: Collection[str]) -> "_Made":
        """Return what a person wants to know of one, among the ids of all."""
        names = to_tuple(getattr(script.module, "requires", None), default=())
        return cls(
            script.revision,
            Path(script.path),
            script.doc,
            tuple(choices_of(script)),
            tuple(n for n in names if n in written),
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
                        "waits_for": list(m.waits),
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
        if one.waits:
            text = (
                f"It waits, with all behind it, until {' and '.join(one.waits)}"
                f" {'is' if len(one.waits) == 1 else 'are'} finished: unless that is at"
                " expand, it belongs into a later release."
            )
            click.secho(output.wrapped(text, "  "), fg="yellow")
    if made:
        click.echo("Next: review, then run `migrator plan`.")
