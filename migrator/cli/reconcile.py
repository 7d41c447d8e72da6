"""`migrator reconcile`: the ledger, where the schema was made without it."""

import sys
import textwrap
from typing import Any

import click

from migrator import edits
from migrator.cli import output
from migrator.cli.app import App, change_argument, example, json_option, pass_app
from migrator.cli.report import JSON_SCHEMA, exit_code, failed
from migrator.edits import Edit
from migrator.errors import Refused
from migrator.lint.source import call
from migrator.plan import State
from migrator.reconciling import Reconciler, Seen

#: Its command stands beside those of `migrator.cli.main`.
group = click.Group()


@group.command(**example("migrator reconcile 3f2a1b --as dropped"))
@change_argument
@click.option(
    "--as",
    "state",
    type=click.Choice([State.DROPPED.value, State.PLANNED.value]),
    help="Enter it: its final shape is in place, or its old one.",
)
@click.option("--assured", default="", help="Why, where the schema does not tell all.")
@json_option
@pass_app
def reconcile(
    app: App, change: str | None, state: str | None, assured: str, json: bool
) -> None:
    """
    Show what the schema has of changes; enter it into the ledger.

    Of a database that was made by create_all and stamped, or copied without the ledger.
    """
    reconciler = app.reconciler()
    left = app.left()
    every = app.changes()
    ids = [c.id for c in (every if change is None else app.named(change))]

    def look() -> list[Seen]:
        return [
            reconciler.look(c, every[n + 1 :], applied=c.revision not in left)
            for n, c in enumerate(every)
            if c.id in ids
        ]

    seen = look()
    refused: list[Refused] = []
    if state is not None:
        # The latest first: what came before it is superseded then.
        for one in reversed(seen):
            if change is None and not one.open:
                continue
            try:
                reconciler.enter(
                    one.change,
                    every[every.index(one.change) + 1 :],
                    State(state),
                    applied=one.applied,
                    assured=assured,
                )
            except Refused as error:
                refused.append(error)
        seen = look()
    if refused and len(ids) == 1:
        raise refused[0]
    if json:
        output.as_json({"schema": JSON_SCHEMA, "changes": [_plain(s) for s in seen]})
    else:
        _show(reconciler, seen)
    for why in refused:
        failed(why, exit_code(why), json=False)
    if refused:
        sys.exit(max(map(exit_code, refused)))


def _edit(seen: Seen) -> Edit | None:
    """Return what the ledger has otherwise than the file, also of what is finished."""
    if seen.row is None or not seen.known:
        return None
    return edits.compared(seen.change, seen.row)


def _ledger(seen: Seen) -> str:
    if seen.row is None:
        return "nothing"
    return f"{seen.row.state}{', another pattern' if _edit(seen) else ''}"


def _show_edit(reconciler: Reconciler, edit: Edit) -> None:
    """Show what runs and what the file says, each as the file would have it."""
    click.echo()
    click.secho(edit.row.id, bold=True)
    for head, pattern in (
        (
            f"In the ledger, which goes by it ({edit.row.state})",
            reconciler.pattern(edit.row),
        ),
        ("In the file", edit.change.pattern),
    ):
        click.echo(f"  {head}:")
        click.echo(textwrap.indent(call(pattern), "      "))
    click.echo(output.wrapped(f"Next: {edit.way_out()}", "  "))


def _show(reconciler: Reconciler, seen: list[Seen]) -> None:
    if not seen:
        click.echo("The revisions hold no changes.")
        return
    output.table(
        ("change", "what its file says", "ledger", "schema"),
        [
            (
                s.change.id,
                s.change.pattern.title,
                _ledger(s),
                s.shape if s.open else "-",
            )
            for s in seen
        ],
    )
    for edit in filter(None, map(_edit, seen)):
        _show_edit(reconciler, edit)
    for one in (s for s in seen if s.open):
        click.echo()
        click.secho(one.change.id, bold=True)
        for line in _why(one):
            click.echo(output.wrapped(line, "  "))
        click.echo(output.wrapped(f"Next: {_next(one)}", "  "))
    if not any(s.open for s in seen) and not any(map(_edit, seen)):
        click.echo("Nothing to reconcile.")


def _why(seen: Seen) -> list[str]:
    """Return what the schema shows, line by line."""
    lines: list[str] = []
    if seen.gone:
        assert seen.row is not None
        lines.append(f"Table {seen.row.table} is gone.")
        if seen.left_over:
            lines.append(f"There are still {', '.join(seen.left_over)}.")
    elif seen.left_over:
        lines.append(f"It was under way: {', '.join(seen.left_over)}.")
    if seen.superseded:
        lines.append(f"{seen.superseded}, which came after it, is finished.")
    elif seen.differences:
        lines.append(f"Not its final shape: {'; '.join(seen.differences)}.")
    if seen.untold:
        lines.append(f"The catalogue does not tell {seen.untold}.")
    if seen.refused:
        lines.append(f"Not its old shape: {seen.refused}")
    return lines


def _next(seen: Seen) -> str:
    enter = f"`migrator reconcile {seen.change.id} --as"
    match seen.shape:
        case "gone" if seen.left_over:
            return "drop what is left, and look again"
        case "gone":
            return (
                f"put the table back; or, where it is gone for good, {enter} dropped"
                ' --assured "reason"`'
            )
        case "final":
            return f"{enter} dropped`"
        case "untold":
            return f'look at it, then {enter} dropped --assured "reason"`'
        case "old" if seen.untold and not seen.differences:
            return (
                f"{enter} planned`, then `migrator expand {seen.change.id}`; or, where"
                f' it is done, {enter} dropped --assured "reason"`'
            )
        case "old":
            return f"{enter} planned`, then `migrator expand {seen.change.id}`"
        case "between":
            return (
                "copy the schema `migrator` with its rows as well; or take these away"
                " by hand, and look again"
            )
        case _:
            return "bring the schema into the old or the final shape by hand"


def _plain(seen: Seen) -> dict[str, Any]:
    edit = _edit(seen)
    return {
        "change": seen.change.id,
        "title": seen.change.pattern.title,
        "ledger": seen.row.state if seen.row is not None else None,
        "ledger_title": seen.row.title if seen.row is not None else None,
        "edited": None if edit is None else {"ledger": edit.then, "file": edit.now},
        "revision_applied": seen.applied,
        "shape": seen.shape if seen.open else None,
        "differences": list(seen.differences),
        "untold": seen.untold or None,
        "refused": seen.refused or None,
        "superseded_by": seen.superseded or None,
        "left_over": list(seen.left_over),
        "next": _next(seen) if seen.open else edit and edit.next,
    }
