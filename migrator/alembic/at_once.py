"""Columns that no change brings as the model has them: a choice for a person.

What is computed or numbered by the server, or tested by a domain, is written into every
row at once. A change brings the same values beside the traffic, in a column that the
model has to say otherwise.
"""

from collections.abc import Iterator
from typing import Any

from alembic.operations import ops

from migrator.alembic.writing import Way, Written
from migrator.lint import operations, text
from migrator.lint import statements as st
from migrator.lint.rule import Finding, Safe
from migrator.lint.rules.column_domain import ColumnDomain
from migrator.lint.rules.column_generated import VIRTUAL, ColumnGenerated
from migrator.lint.rules.column_serial import ColumnSerial
from migrator.lint.scene import Scene
from migrator.lint.statements import Ref
from migrator.patterns import AddColumn, Custom, Sql

_WHOLE = (
    "{what}: every row is written while nobody can use the table. Where that takes"
    " longer than a second it is given up, and nothing is changed."
)


def choice(
    operation: ops.AddColumnOp, statement: st.AddColumn, found: Finding, scene: Scene
) -> Written | None:
    """
    Return the choice between a change and the column as it is.

    Args:
        operation: that brings the column.
        statement: the same, as rules see it.
        found: what a rule says of it.
        scene: the database.

    Returns:
        None where it says nothing that leads to another column.
    """
    column, table, safe = statement.column, statement.table, found.safe
    if safe is None:
        return None
    if found.code == ColumnGenerated.code:
        ways = tuple(_generated(operation, statement, safe, scene))
        asked = f'how column "{column.name}" of table "{table.name}" is computed'
    elif found.code == ColumnSerial.code:
        ways = (_whole(operation, "Numbered, as the model says"),)
        asked = (
            f'whether table "{table.name}" is small enough to be written anew;'
            " `migrator lint --explain ZD103` has the steps for one that is not"
        )
    elif found.code == ColumnDomain.code:
        ways = (
            Way(
                (*safe.patterns, *safe.then),
                "Of the type under the domain, its condition a check of the table: so"
                " says the model then.",
            ),
            _whole(operation, "Of the domain, as the model says"),
        )
        asked = f'how column "{column.name}" of table "{table.name}" is tested'
    else:
        return None
    return Written(
        title=f"add column {column.name} to table {table.name}", ways=ways, choice=asked
    )


def _generated(
    operation: ops.AddColumnOp, statement: st.AddColumn, safe: Safe, scene: Scene
) -> Iterator[Way]:
    column = statement.column
    yield Way(
        safe.patterns,
        "By a trigger until contract, then by the application: the model has an"
        " ordinary column.",
    )
    if scene.server_version is None or scene.server_version >= VIRTUAL:
        virtual = AddColumn(
            operation.table_name,
            column.name,
            column.type,
            virtual=column.computed,
            schema=operation.schema,
        )
        yield Way(
            (virtual,),
            "When it is read, so that nothing is written: the model says"
            " persisted=False.",
        )
    model = "the model says persisted=True" if column.generated == "virtual" else ""
    yield _whole(operation, f"When a row is stored, {model or 'as the model says'}")


def _whole(operation: ops.AddColumnOp, what: str) -> Way:
    return Way((_custom(operation),), _WHOLE.format(what=what))


def _custom(operation: ops.AddColumnOp) -> Custom:
    """Return what adds a column in one statement."""
    column: Any = operation.column._copy()
    if column.computed is not None:
        column.computed.persisted = True
    name, schema = operation.table_name, operation.schema
    on = text.name(Ref(name, schema))
    return Custom(
        name,
        f"add column {column.name}",
        at_expand=[
            Sql(
                f"ALTER TABLE {on} ADD COLUMN {operations.column_sql(column)}",
                reverse=f"ALTER TABLE {on} DROP COLUMN {text.name(column.name)}",
            )
        ],
        touches=[column.name],
        schema=schema,
    )
