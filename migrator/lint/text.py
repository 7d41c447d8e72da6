"""SQL as text, for a person who pastes it into a revision."""

import re
from typing import Any

from sqlalchemy.dialects import postgresql

from migrator.lint.source import block
from migrator.lint.statements import Ref

_make: Any = postgresql.dialect
_QUOTES: Any = _make().identifier_preparer

# What SQLAlchemy's text() takes for a parameter; a cast has two colons.
_PARAMETER = re.compile(r"(?<!:):(?=\w)")


def name(given: Ref | str) -> str:
    """Return a name as SQL, in quotes where it needs them, with its schema."""
    if isinstance(given, str):
        return str(_QUOTES.quote(given))
    return ".".join(name(part) for part in (given.schema, given.name) if part)


def literal(given: str) -> str:
    """Return a string in quotes."""
    return "'" + given.replace("'", "''") + "'"


def execute(*statements: str) -> str:
    """Return what runs statements in a revision, one after the other."""
    plain = (_PARAMETER.sub(r"\\:", statement) for statement in statements)
    return "\n".join(f"op.execute({block(statement)})" for statement in plain)


def execute_alone(statement: str) -> str:
    """Return what runs a statement outside of the revision's transaction."""
    return f"with op.get_context().autocommit_block():\n    {execute(statement)}"
