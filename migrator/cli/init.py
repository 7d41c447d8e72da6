"""`migrator init`: the options in an existing project's env.py."""

import ast
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from migrator.alembic.project import Project

IMPORT = "from migrator import alembic as zd"
# Arguments of `context.configure` that the options take over; the last one they set.
_TAKEN = ("include_object", "process_revision_directives")
_SET = "transaction_per_migration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """
    A call of `context.configure` that is for env.py's author to change.

    Args:
        line: where it begins.
        why: why it was left as it is.
        write: what to write.
    """

    line: int
    why: str
    write: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """
    env.py with the options, as far as that is plain.

    Args:
        text: the file.
        left: calls that do not pass the options yet.
    """

    text: str
    left: tuple[Left, ...] = ()


def run(project: Project) -> None:
    """
    Add the options to env.py where that is plain, else say what to add.

    Exits with 1 where a call is left without them.

    Args:
        project: its script folder holds env.py.
    """
    env = Path(project.script().dir) / "env.py"
    text = env.read_text()
    found = with_options(text)
    if found.text != text:
        env.write_text(found.text)
        some = ", but for what follows" if found.left else ""
        click.echo(
            f"{env} now passes zd.options(…) to Alembic{some}. Look at it with git"
            " diff."
        )
    elif not found.left:
        click.echo(f"{env} passes the options already.")
        return
    if found.left:
        _tell_left(env, found)
        sys.exit(1)
    click.echo(
        "Next: edit the models, then run `migrator revision --autogenerate -m …`."
    )
    heads = project.heads()
    if heads:
        shown = json.dumps(heads[0] if len(heads) == 1 else heads)
        click.echo(
            "Where the revisions that are there are to run as they always did, and"
            " lint is to pass over them, pyproject.toml says so:\n\n"
            f"    [tool.migrator]\n    start-after = {shown}"
        )


def _tell_left(env: Path, found: Found) -> None:
    """Say of each call that was left as it is what to write."""
    if IMPORT not in found.text:
        click.echo(f"{env}: add\n\n    {IMPORT}\n")
    for left in found.left:
        where = f"{env}, line {left.line}" if left.line else f"{env}"
        click.echo(f"{where} was left as it is: {left.why}. {left.write}")
    click.echo("Then run `migrator init` again, which says whether all is there.")


def _calls(tree: ast.Module) -> Iterator[ast.Call]:
    """Yield the calls of `context.configure`."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "configure"
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "context"
        ):
            yield node


def _passes(call: ast.Call) -> bool:
    """Tell whether a call passes the options."""
    return any(
        k.arg is None and "zd.options" in ast.unparse(k.value) for k in call.keywords
    )


def _options(call: ast.Call) -> str:
    """Return the options that a call is to pass."""
    given = {k.arg: ast.unparse(k.value) for k in call.keywords if k.arg is not None}
    given.setdefault("target_metadata", "target_metadata")
    names = [name for name in ("target_metadata", *_TAKEN) if name in given]
    return f"**zd.options({', '.join(f'{name}={given[name]}' for name in names)})"


def _left(call: ast.Call) -> Left | None:
    """Return why a call has to be changed by hand; None where it has not."""
    given = {k.arg: k.value for k in call.keywords}
    why = ""
    write = f"Write {_options(call)} in it"
    replaced = [n for n in ("target_metadata", *_TAKEN, _SET) if n in given]
    if replaced:
        write += f", in place of {', '.join(f'{name}=…' for name in replaced)}"
    taken = given.get(_SET)
    if None in given:
        more = ast.unparse(next(k.value for k in call.keywords if k.arg is None))
        why = f"what **{more} holds is not seen here"
        write += f"; of {', '.join((*_TAKEN, _SET))} nothing may be left in {more}"
    elif "target_metadata" not in given:
        why = "it has no target_metadata=…"
    elif taken is not None and ast.unparse(taken) != "True":
        why = f"it has {_SET}={ast.unparse(taken)}, and a change needs True"
    return Left(line=call.lineno, why=why, write=f"{write}.") if why else None


def with_options(text: str) -> Found:
    """
    Return env.py with the options in each `context.configure` call where it is plain.

    The source is edited at the positions that Python's parser gives, so that
    nothing but the arguments and one import changes.

    Args:
        text: the file.
    """
    calls = list(_calls(ast.parse(text)))
    if not calls:
        why = "it does not call context.configure(…) by that name"
        write = (
            "Pass **zd.options(target_metadata=target_metadata) to it wherever that is"
            " done."
        )
        return Found(text=text, left=(Left(line=0, why=why, write=write),))
    changed = text
    for number, call in enumerate(calls):
        if _passes(call) or _left(call) is not None:
            continue
        for name in (*_TAKEN, _SET):
            changed = _without(changed, number, name)
        changed = _replaced(changed, number, _options(call))
    if changed != text:
        changed = _imported(changed)
    calls = [call for call in _calls(ast.parse(changed)) if not _passes(call)]
    return Found(text=changed, left=tuple(filter(None, map(_left, calls))))


def _span(text: str, number: int, name: str) -> tuple[int, int] | None:
    """Return where an argument of a call stands, None where it has none such."""
    call = list(_calls(ast.parse(text)))[number]
    found = next((k for k in call.keywords if k.arg == name), None)
    if found is None:
        return None
    assert found.end_lineno is not None
    assert found.end_col_offset is not None
    lines = text.splitlines(keepends=True)

    def at(line: int, column: int) -> int:
        # Columns of the parser are bytes.
        before = lines[line - 1].encode()[:column].decode()
        return sum(map(len, lines[: line - 1])) + len(before)

    return (
        at(found.lineno, found.col_offset),
        at(found.end_lineno, found.end_col_offset),
    )


def _replaced(text: str, number: int, options: str) -> str:
    """Put the options where a call has target_metadata."""
    span = _span(text, number, "target_metadata")
    assert span is not None
    return text[: span[0]] + options + text[span[1] :]


def _without(text: str, number: int, name: str) -> str:
    """Take an argument out of a call, with its comma, and its line if it is alone."""
    span = _span(text, number, name)
    if span is None:
        return text
    before, after = text[: span[0]], text[span[1] :]
    comma = re.match(r"\s*,[ \t]*", after)
    if comma is None:
        # The last one: the comma before it goes.
        return re.sub(r",[ \t]*$", "", before) + after
    after = after[comma.end() :]
    if after.startswith("\n") and not before.rpartition("\n")[2].strip():
        return before.rpartition("\n")[0] + after
    return before + after


def _imported(text: str) -> str:
    """Return a file with the import, where it has not."""
    if IMPORT in text:
        return text
    lines = text.splitlines(keepends=True)
    imports = [
        n.end_lineno or n.lineno
        for n in ast.parse(text).body
        if isinstance(n, ast.Import | ast.ImportFrom)
    ]
    lines.insert(max(imports, default=0), f"\n{IMPORT}\n")
    return "".join(lines)
