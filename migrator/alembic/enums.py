"""Values of enums, as the plugin alembic-postgresql-enum compares them.

Alembic itself sees no value of a named enum. PostgreSQL drops none: what is taken out
of use stays in the type, so that a comparison finds it ever after.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from alembic.operations import ops

from migrator.alembic.author import OPEN, Author
from migrator.alembic.writing import Way, Written
from migrator.lint.statements import Ref
from migrator.patterns import AddEnumValue, RemoveEnumValue, RenameEnumValue

#: The plugin's classes, known by name: it need not be installed.
_CLASSES = ("AddEnumValuesOp", "SyncEnumValuesOp")

#: Patterns after which the type still has a value that the model has not.
TAKE_OUT = (RemoveEnumValue.__name__, RenameEnumValue.__name__)


def is_of_values(operation: Any) -> bool:
    """Tell whether an operation is about values of an enum."""
    return type(operation).__name__ in _CLASSES


def changes(operation: Any, author: Author) -> Iterator[Written]:
    """Return the changes in place of an operation; none where it is about others."""
    if not is_of_values(operation):
        return
    before, after = list(operation.old_values), list(operation.new_values)
    gone = [v for v in before if v not in after]
    new = [v for v in after if v not in before]
    uses = _uses(operation)
    if not uses:
        return
    if len(gone) == 1 and len(new) == 1:
        yield _exchanged(uses[0], gone[0], new[0], after)
        return
    for value in new:
        yield author.decided(_added(uses[0], value, after))
    for value in gone:
        for use in uses:
            yield author.decided(
                _removed(use, value),
                f'what rows get that hold "{value}": `instead`, another value, or None'
                " for NULL",
            )


def _exchanged(use: "_Use", gone: str, new: str, after: Sequence[str]) -> Written:
    renamed = RenameEnumValue(use.table, use.column, gone, new, schema=use.schema)
    comes, goes = _added(use, new, after), _removed(use, gone)
    return Written(
        title=renamed.title,
        ways=(
            Way((renamed,), "It is the same value by another word."),
            Way((comes, goes), "It is not: one comes, the other is used no more."),
        ),
        choice=f'whether "{new}" is "{gone}" by another word',
    )


def _added(use: "_Use", value: str, values: Sequence[str]) -> AddEnumValue:
    """Return a value that comes, in the model's place for it."""
    at = values.index(value)
    return AddEnumValue(
        use.table,
        use.column,
        value,
        after=values[at - 1] if 0 < at < len(values) - 1 else None,
        before=values[1] if at == 0 and len(values) > 1 else None,
        schema=use.schema,
    )


def _removed(use: "_Use", value: str) -> RemoveEnumValue:
    return RemoveEnumValue(
        use.table, use.column, value, instead=OPEN, schema=use.schema
    )


class _Use:
    """A column of the type; `schema` is None where the search path finds it."""

    def __init__(self, given: Any) -> None:
        self.table: str = given.table_name
        self.column: str = given.column_name
        named = given.table_schema
        self.schema = named if isinstance(named, str) and named != "public" else None


def _uses(operation: Any) -> list[_Use]:
    return [_Use(given) for given in operation.affected_columns]


def may_be_settled(operation: Any) -> bool:
    """Tell whether an operation is of a kind that a change may have settled."""
    if isinstance(operation, ops.DropConstraintOp):
        return operation.constraint_type == "check"
    return is_of_values(operation)


def settled(operation: Any, author: Author) -> bool:
    """
    Tell whether an operation asks for what a change has done, or is doing.

    Also the check that keeps a value out has not to go, though no model has it.
    """
    if isinstance(operation, ops.DropConstraintOp):
        return _keeps_out(operation, author)
    if type(operation).__name__ != "SyncEnumValuesOp":
        return False
    old, new = operation.old_values, operation.new_values
    gone = [v for v in old if v not in new]
    return list(new) == [v for v in old if v not in gone] and all(
        _is_kept_out(use, value, author) for use in _uses(operation) for value in gone
    )


def _is_kept_out(use: _Use, value: str, author: Author) -> bool:
    if (use.table, use.column, value) in author.words:
        return True
    table = author.scene.table(Ref(use.table, use.schema))
    if table is None:
        return False
    check = table.constraint(_removed(use, value).check_name)
    return check is not None and check.validated


def _keeps_out(operation: ops.DropConstraintOp, author: Author) -> bool:
    table = author.scene.table(Ref(operation.table_name, operation.schema))
    names = {
        RemoveEnumValue(operation.table_name, c.name, value, instead=None).check_name
        for c in (table.columns if table else ())
        for value in c.values
    }
    return operation.constraint_name in names
