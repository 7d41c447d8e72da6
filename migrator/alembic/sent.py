"""What the guard has to know of statements before a revision sends them."""

from collections.abc import Sequence
from dataclasses import replace

from migrator.lint.statements import (
    ChangeRows,
    CreateIndex,
    DropIndex,
    Other,
    Reindex,
    Statement,
    Transaction,
)


def ends(found: Sequence[Statement]) -> bool:
    """Tell whether statements end the transaction by themselves."""
    return any(isinstance(s, Transaction) and s.how != "BEGIN" for s in found)


def is_of_rows(statement: Statement) -> bool:
    """Tell whether a statement reads or writes rows, and changes no table."""
    return isinstance(statement, ChangeRows) or (
        isinstance(statement, Other) and statement.sql.lstrip()[:6].upper() == "SELECT"
    )


def kind_of(statement: Statement) -> Statement:
    """Return a statement without the values that it writes."""
    return (
        replace(statement, sql="") if isinstance(statement, ChangeRows) else statement
    )


def is_patient(statement: Statement) -> bool:
    """Tell whether a statement may wait long: nobody queues behind it."""
    match statement:
        case CreateIndex() | DropIndex() | Reindex():
            return statement.concurrently
        case _:
            return False
