"""Views and functions whose definition changes, as alembic-utils compares them.

What it would run itself drops a view that cannot take its new definition, in the same
statement, from whoever reads it.
"""

from typing import Any

from migrator.alembic.author import Author
from migrator.alembic.writing import Written
from migrator.errors import NotThere, Refused
from migrator.lint.operations import text_of
from migrator.patterns import ReplaceFunction, ReplaceView


def change(operation: Any, author: Author) -> Written | None:
    """Return the change in place of an operation; None where it is about others."""
    # The plugin's classes are known by name: it need not be installed.
    if type(operation).__name__ != "ReplaceOp":
        return None
    target = operation.target
    match type(target).__name__:
        case "PGView":
            view = ReplaceView(
                target.signature, text_of(target.definition), schema=target.schema
            )
            return author.decided(view)
        case "PGFunction":
            definition = text_of(
                f"CREATE OR REPLACE FUNCTION {target.literal_schema}."
                f"{target.literal_signature} {target.definition}"
            )
            function = ReplaceFunction(
                target.signature, definition, schema=target.schema
            )
            return author.decided(function) if _is_found(function, author) else None
        case _:
            return None


def _is_found(function: ReplaceFunction, author: Author) -> bool:
    """Tell whether its signature is one of types alone, by which it is found."""
    try:
        author.try_out(function)
    except NotThere:
        return False
    except Refused:
        return True
    return True
