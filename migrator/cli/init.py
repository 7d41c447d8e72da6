"""`migrator init`: the options in an existing project's env.py."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import click

from migrator.alembic.project import Project

IMPORT = "from migrator import alembic as zd"
# Arguments of `context.configure` that the options take over; the last one they set.
_TAKEN = ("include_object", "process_revision_directives")
_SET = "transaction_per_migration"


def run(project: Project) -> None:
    """
    Add the options to env.py where that is plain, else say what to add.

    Args:
        project: its script folder holds env.py.
    """
    env = Path(project.script().dir) / "env.py"
    text = env.read_text()
    changed = with_options(text)
    if changed is None:
        click.echo(f"{env} passes the options already.")
    elif changed == text:
        own = [name for name in (*_TAKEN, _SET) if name in _given(text)]
        why = (
            f"its context.configure(…) has {' and '.join(own)}, which the options take"
            " over"
            if own
            else "it does not call context.configure(…) with target_metadata=… by name"
        )
        takes = "".join(f", {name}={name}" for name in _TAKEN if name in own)
        click.echo(
            f"{env} was left as it is: {why}. Add\n\n"
            f"    {IMPORT}\n\nand in each context.configure(…), in place of"
            f" {', '.join(f'{name}=…' for name in ('target_metadata', *own))},\n\n"
            f"    **zd.options(target_metadata=target_metadata{takes}),"
        )
    else:
        env.write_text(changed)
        click.echo(
            f"{env} now passes zd.options(…) to Alembic. Look at it with git diff.\n"
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


def _given(text: str) -> set[str]:
    """Return the names of the arguments of these calls."""
    calls = _calls(ast.parse(text))
    return {k.arg for call in calls for k in call.keywords if k.arg is not None}


def with_options(text: str) -> str | None:
    """
    Return env.py with the options in every `context.configure` call.

    The source is edited at the positions that Python's parser gives, so that
    nothing but the argument and one import changes.

    Args:
        text: the file.

    Returns:
        The new text; the same text where nothing could be done; None where the
        options are there already.
    """
    tree = ast.parse(text)
    lines = text.splitlines(keepends=True)
    edits: list[tuple[int, int, int, int, str]] = []
    for node in _calls(tree):
        for keyword in node.keywords:
            if keyword.arg is None and "zd.options" in ast.unparse(keyword.value):
                return None
            own = {k.arg for k in node.keywords}
            if keyword.arg == "target_metadata" and own.isdisjoint({*_TAKEN, _SET}):
                assert keyword.end_lineno is not None
                assert keyword.end_col_offset is not None
                value = ast.unparse(keyword.value)
                edits.append(
                    (
                        keyword.lineno,
                        keyword.col_offset,
                        keyword.end_lineno,
                        keyword.end_col_offset,
                        f"**zd.options(target_metadata={value})",
                    )
                )
    if not edits:
        return text
    for line, start, last, end, new in sorted(edits, reverse=True):
        before = lines[line - 1].encode()[:start].decode()
        after = lines[last - 1].encode()[end:].decode()
        lines[line - 1 : last] = [before + new + after]
    imports = [
        n.end_lineno or n.lineno
        for n in tree.body
        if isinstance(n, ast.Import | ast.ImportFrom)
    ]
    lines.insert(max(imports, default=0), f"\n{IMPORT}\n")
    return "".join(lines)
