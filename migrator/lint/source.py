"""Patterns as Python code that a person pastes into a revision."""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from migrator.pattern import Pattern

# Columns of a line of code, as the formatters of most projects have it.
WIDTH = 88
INDENT = "    "


def call(pattern: Pattern, name: str = "change") -> str:
    """
    Return the assignment of a pattern to a name.

    Args:
        pattern: whose fields become arguments, without those left at their default.
        name: to which it is bound at the top level of the revision.
    """
    return f"{name} = {_value(pattern, len(name) + 3)}"


def revision(pattern: Pattern) -> str:
    """Return all that a revision needs to carry a pattern."""
    extra = sorted(_extra(pattern))
    kernel = "".join(f"from {module} import {name}\n" for module, name in extra)
    return (
        "from migrator import alembic as zd\n"
        f"{kernel}"
        f"from migrator.patterns import {type(pattern).__name__}\n\n"
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


def _value(value: Any, column: int) -> str:
    """Return a value as code that begins at a column of its line."""
    short = _text(value)
    if column + len(short) <= WIDTH or not is_dataclass(value):
        return short
    inner = "".join(f"{INDENT}{argument},\n" for argument in _arguments(value))
    return f"{type(value).__name__}(\n{inner})"


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
            return f"{type(value).__name__}({', '.join(_arguments(value))})"
        case _:
            return repr(value)


def _arguments(value: Any) -> list[str]:
    found: list[str] = []
    for item in fields(value):
        given = getattr(value, item.name)
        default = item.default
        if default is MISSING and item.default_factory is not MISSING:
            default = item.default_factory()
        if default is MISSING and not item.kw_only:
            found.append(_text(given))
        elif given != default and not (not given and not default):
            found.append(f"{item.name}={_text(given)}")
    return found


def quoted(text: str) -> str:
    """Return a string as formatters write it: in double quotes, if these are few."""
    plain = repr(text)
    if plain.startswith("'") and '"' not in text:
        return '"' + plain[1:-1].replace("\\'", "'") + '"'
    return plain
