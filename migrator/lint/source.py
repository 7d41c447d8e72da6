"""Patterns as Python code that a person pastes into a revision."""

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from migrator import patterns
from migrator.pattern import Pattern

# Columns of a line of code, as the formatters of most projects have it.
WIDTH = 88
INDENT = "    "


def call(change: Pattern | Sequence[Pattern], name: str = "change") -> str:
    """
    Return the assignment of a pattern to a name.

    Args:
        change: whose fields become arguments, without those left at their default;
            several become a list.
        name: to which it is bound at the top level of the revision.
    """
    value = change if isinstance(change, Pattern) else list(change)
    return f"{name} = {_value(value, len(name) + 3)}"


def assignment(requires: Sequence[str]) -> str:
    """Return the line by which a revision requires changes, by their names."""
    value = requires[0] if len(requires) == 1 else tuple(requires)
    return f"requires = {_value(value, len('requires = '))}"


def imports(change: Pattern | Sequence[Pattern]) -> list[str]:
    """Return the lines that import what the code of a change is made of."""
    changes = (change,) if isinstance(change, Pattern) else change
    extra = sorted(_extra(changes))
    names = {type(pattern).__name__ for pattern in changes}
    names |= {name for _, name in extra if name in patterns.__all__}
    return [
        *(f"from {m} import {name}" for m, name in extra if name not in names),
        f"from migrator.patterns import {', '.join(sorted(names))}",
    ]


def literal(text: str, indent: int | None = None) -> str:
    """
    Return a text as code.

    Args:
        text: what is quoted.
        indent: of the lines that it may take; None keeps it on one.
    """
    return quoted(text) if indent is None else _value(text, indent, indent)


def revision(pattern: Pattern) -> str:
    """Return all that a revision needs to carry a pattern."""
    lines = "\n".join(["from migrator import alembic as zd", *imports(pattern)])
    return (
        f"{lines}\n\n"
        f"{call(pattern)}\n\n\n"
        "def upgrade() -> None:\n    zd.upgrade(change)\n\n\n"
        "def downgrade() -> None:\n    zd.downgrade(change)\n"
    )


def _extra(value: Any) -> set[tuple[str, str]]:
    """Return the further classes that a pattern's arguments are made of."""
    found: set[tuple[str, str]] = set()
    if isinstance(value, list | tuple):
        for item in value:
            found |= _extra(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            found |= _extra(item)
    elif is_dataclass(value):
        if not isinstance(value, Pattern):
            found.add((type(value).__module__, type(value).__name__))
        for item in fields(value):
            found |= _extra(getattr(value, item.name))
    return found


def _value(value: Any, column: int, indent: int = 0, after: int = 0) -> str:
    """
    Return a value as code.

    Args:
        value: what is written.
        column: of its line, where it begins.
        indent: of that line.
        after: columns that are needed behind it, for a comma.
    """
    short = _text(value)
    if "\n" not in short and column + len(short) + after <= WIDTH:
        return short
    if isinstance(value, str):
        return _long(value, indent)
    match value:
        case list():
            opened, closed, parts = "[", "]", [("", v) for v in value]
        case tuple():
            opened, closed, parts = "(", ")", [("", v) for v in value]
        case Mapping():
            opened, closed = "{", "}"
            parts = [(f"{_text(k)}: ", v) for k, v in value.items()]
        case _ if is_dataclass(value):
            opened, closed = f"{type(value).__name__}(", ")"
            parts = _arguments(value)
        case _:
            return short
    inner = indent + len(INDENT)
    lines = "".join(
        f"{' ' * inner}{label}{_value(v, inner + len(label), inner, 1)},\n"
        for label, v in parts
    )
    return f"{opened}\n{lines}{' ' * indent}{closed}"


def _long(text: str, indent: int) -> str:
    """Return a string that takes several lines: by its own ends, or cut at spaces."""
    if "\n" in text:
        return block(text)
    pieces: list[str] = []
    for word in re.findall(r" *[^ ]+ *$| *[^ ]+", text):
        grown = pieces[-1] + word if pieces else word
        # A comma may follow the last piece.
        if pieces and indent + len(quoted(grown)) + 1 > WIDTH:
            pieces.append(word)
        elif pieces:
            pieces[-1] = grown
        else:
            pieces.append(word)
    return f"\n{' ' * indent}".join(map(quoted, pieces))


def _text(value: Any) -> str:
    match value:
        case str():
            return quoted(value)
        case list():
            return f"[{', '.join(map(_text, value))}]"
        case tuple():
            inner = ", ".join(map(_text, value))
            return f"({inner},)" if len(value) == 1 else f"({inner})"
        case Mapping():
            pairs = (f"{_text(k)}: {_text(v)}" for k, v in value.items())
            return f"{{{', '.join(pairs)}}}"
        case _ if is_dataclass(value):
            given = ", ".join(label + _text(v) for label, v in _arguments(value))
            return f"{type(value).__name__}({given})"
        case _:
            return repr(value)


def _arguments(value: Any) -> list[tuple[str, Any]]:
    """Return what a call names, as `name=` or nothing, with the values."""
    found: list[tuple[str, Any]] = []
    for item in fields(value):
        given = getattr(value, item.name)
        default = item.default
        if default is MISSING and item.default_factory is not MISSING:
            default = item.default_factory()
        if default is MISSING and not item.kw_only:
            found.append(("", given))
        elif given != default and not (not given and not default):
            found.append((f"{item.name}=", given))
    return found


def quoted(text: str) -> str:
    """Return a string as formatters write it: in double quotes, if these are few."""
    plain = repr(text)
    if plain.startswith("'") and '"' not in text:
        return '"' + plain[1:-1].replace("\\'", "'") + '"'
    return plain


def block(text: str) -> str:
    """Return a string with the ends of its lines as they are, where that can be."""
    plain = all(c.isprintable() for c in text if c not in "\n\t")
    if "\n" in text and plain:
        for quotes in ('"""', "'''"):
            if quotes not in text and not text.endswith(quotes[0]):
                return quotes + text.replace("\\", "\\\\") + quotes
    return quoted(text)


def indented(code: str, width: int) -> str:
    """Return code at another place, whose strings say the same as before."""
    within = {
        line
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for line in range(node.lineno + 1, (node.end_lineno or node.lineno) + 1)
    }
    return "".join(
        line if number in within or not line.strip() else " " * width + line
        for number, line in enumerate(code.splitlines(keepends=True), 1)
    )
