"""What autogenerate found, each thing for itself.

Alembic's comparison has one operation for a column that changes in several ways, and
for one that comes with all that it has. A pattern does one thing.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from alembic.operations import ops
from sqlalchemy import Column


def leaves(operations: Iterable[ops.MigrateOperation]) -> Iterator[Any]:
    """Return operations out of their containers, in their order."""
    for operation in operations:
        if isinstance(operation, ops.OpContainer):
            yield from leaves(operation.ops)
        else:
            yield operation


def normal(
    operations: Iterable[ops.MigrateOperation],
) -> Iterator[ops.MigrateOperation]:
    """Return operations that do one thing each, with the names that they will have."""
    for operation in leaves(operations):
        match operation:
            case ops.AddColumnOp():
                yield ops.AddColumnOp(
                    operation.table_name,
                    bare(operation.column),
                    schema=operation.schema,
                    if_not_exists=operation.if_not_exists,
                )
            case ops.AlterColumnOp():
                yield from _altered(operation)
            case ops.CreateForeignKeyOp():
                if operation.constraint_name is None:
                    columns = "_".join(operation.local_cols)
                    operation.constraint_name = _fitted(
                        f"{operation.source_table}_{columns}", "_fkey"
                    )
                yield operation
            case ops.CreateUniqueConstraintOp():
                if operation.constraint_name is None:
                    columns = "_".join(operation.columns)
                    operation.constraint_name = _fitted(
                        f"{operation.table_name}_{columns}", "_key"
                    )
                yield operation
            case _:
                yield operation


def _fitted(stem: str, suffix: str) -> str:
    """Return the name that the server would give, nearly: short enough for it."""
    room = 63 - len(suffix)
    return stem.encode()[:room].decode(errors="ignore") + suffix


def bare(column: "Column[Any]") -> "Column[Any]":
    """
    Return a column without what the comparison finds for itself.

    Indexes, unique constraints and foreign keys are operations of their own there,
    though the model has them on the column.
    """
    copied: Column[Any] = column._copy()
    copied.index = copied.unique = None
    copied.primary_key = False
    copied.constraints = set()
    copied.foreign_keys = set()
    return copied


def _altered(operation: ops.AlterColumnOp) -> Iterator[ops.MigrateOperation]:
    """Return one operation for each thing that changes, in an order that works."""
    existing: dict[str, Any] = {
        "existing_type": operation.existing_type,
        "existing_server_default": operation.existing_server_default,
        "existing_nullable": operation.existing_nullable,
        "existing_comment": operation.existing_comment,
    }
    changes: list[tuple[str, Any, str]] = []
    if operation.modify_type is not None:
        changes.append(("modify_type", operation.modify_type, "existing_type"))
    if operation.modify_server_default is not False:
        changes.append(
            (
                "modify_server_default",
                operation.modify_server_default,
                "existing_server_default",
            )
        )
    if operation.modify_nullable is not None:
        changes.append(
            ("modify_nullable", operation.modify_nullable, "existing_nullable")
        )
    if operation.modify_comment is not False:
        changes.append(("modify_comment", operation.modify_comment, "existing_comment"))
    for number, (name, value, before) in enumerate(changes):
        last = number == len(changes) - 1
        given: dict[str, Any] = {name: value, **existing}
        if operation.modify_name is not None and last:
            given["modify_name"] = operation.modify_name
        keep = operation.kw if name == "modify_type" else {}
        yield ops.AlterColumnOp(
            operation.table_name,
            operation.column_name,
            schema=operation.schema,
            **given,
            **keep,
        )
        existing[before] = value
    if not changes:
        yield operation
