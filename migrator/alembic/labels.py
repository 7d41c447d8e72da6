"""Values of enums, as models and database have them.

Alembic compares a type by its name alone. Where the package alembic-postgresql-enum is
loaded, it compares them, and this does not.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import sqlalchemy as sa
from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import ops
from sqlalchemy.dialects import postgresql

from migrator.alembic import enums
from migrator.alembic.underway import target_of, told
from migrator.lint import text
from migrator.lint.statements import Ref
from migrator.postgres.connection import connect
from migrator.postgres.queries import query

log = logging.getLogger(__name__)


class Use(NamedTuple):
    """A column whose type is an enum."""

    table_name: str
    column_name: str
    table_schema: str | None


class EnumValuesOp(ops.MigrateOperation):
    """
    An enum gets other values.

    Args:
        schema: the type's; None where the search path finds it.
        name: the type's.
        old_values: those of the database, in order.
        new_values: those of the models, in order.
        affected_columns: the columns that both have; none where there are arrays alone.
    """

    def __init__(
        self,
        schema: str | None,
        name: str,
        old_values: Sequence[str],
        new_values: Sequence[str],
        affected_columns: Sequence[Use],
    ) -> None:
        self.schema = schema
        self.name = name
        self.old_values = list(old_values)
        self.new_values = list(new_values)
        self.affected_columns = list(affected_columns)

    def reverse(self) -> "EnumValuesOp":
        """Return the other direction, as far as there is one."""
        return EnumValuesOp(
            self.schema,
            self.name,
            self.new_values,
            self.old_values,
            self.affected_columns,
        )

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return what `alembic check` shows of it."""
        return ("change_enum_values", self.name, self.old_values, self.new_values)


@renderers.dispatch_for(EnumValuesOp)
def _render(context: AutogenContext, operation: EnumValuesOp) -> list[str]:
    """Write values that come to an enum of which no table has a column of its own."""
    type_name = text.name(Ref(operation.name, operation.schema))
    lines: list[str] = []
    places = enums.places(operation.old_values, operation.new_values)
    for value, (before, after) in places.items():
        place = f" BEFORE {text.literal(before)}" if before is not None else ""
        place = f" AFTER {text.literal(after)}" if after is not None else place
        lines.append(
            text.execute(
                f"ALTER TYPE {type_name} ADD VALUE IF NOT EXISTS"
                f" {text.literal(value)}{place}"
            )
        )
    return lines or ["pass  # PostgreSQL drops no value of an enum."]


@dataclass(slots=True)
class _Wanted:
    """An enum of the models, with the columns that are of it."""

    values: tuple[str, ...]
    columns: list["sa.Column[Any]"] = field(default_factory=list["sa.Column[Any]"])
    #: Whether another column has other values for it.
    is_torn: bool = False


def compare(
    context: AutogenContext, upgrade: ops.UpgradeOps, schemas: Sequence[str | None]
) -> None:
    """Add what has to be done about enums; arguments as Alembic gives them."""
    wanted = _wanted(context)
    if not wanted:
        return
    assert context.connection is not None
    with told(), connect(target_of(context.connection), "migrator:alembic") as conn:
        rows = conn.execute(query("enums")).fetchall()
    for (schema, name), one in sorted(wanted.items(), key=_by_name):
        row = next(
            (
                r
                for r in rows
                if r["name"] == name
                and (r["schema"] == schema if schema else r["visible"])
            ),
            None,
        )
        # What is not there yet comes with its table or column.
        if row is None or row["values"] == list(one.values):
            continue
        shown = [c for c in one.columns if _is_shown(c, context, schemas)]
        found = _compared(schema, name, one, row, shown)
        if found is not None:
            upgrade.ops.append(found)


def _by_name(item: tuple[tuple[str | None, str], _Wanted]) -> tuple[str, str]:
    (schema, name), _ = item
    return schema or "", name


def _wanted(context: AutogenContext) -> dict[tuple[str | None, str], _Wanted]:
    """Return the enums of the models by schema and name."""
    found: dict[tuple[str | None, str], _Wanted] = {}
    for table in context.sorted_tables:
        for column in table.columns:
            enum = _enum_of(column, context)
            if enum is None:
                continue
            values = tuple(enum.enums)
            one = found.setdefault((enum.schema, str(enum.name)), _Wanted(values))
            one.columns.append(column)
            one.is_torn |= one.values != values
    return found


def _enum_of(column: "sa.Column[Any]", context: AutogenContext) -> Any:
    """Return the enum that a column is of, or an array of; None where it is of none."""
    kind: Any = column.type._unwrapped_dialect_impl(context.dialect)
    if isinstance(kind, sa.ARRAY):
        kind = kind.item_type._unwrapped_dialect_impl(context.dialect)
    is_named = isinstance(kind, postgresql.ENUM) and kind.name
    return kind if is_named else None


def _is_shown(
    column: "sa.Column[Any]", context: AutogenContext, schemas: Sequence[str | None]
) -> bool:
    """Tell whether a column takes part in the comparison."""
    table: Any = column.table
    default = context.dialect.default_schema_name
    schema = None if table.schema == default else table.schema
    return (
        schema in schemas
        and context.run_name_filters(table.name, "table", {"schema_name": schema})
        and context.run_object_filters(table, table.name, "table", False, None)
        and context.run_object_filters(column, column.name, "column", False, None)
    )


def _compared(
    schema: str | None,
    name: str,
    wanted: _Wanted,
    row: Any,
    shown: Sequence["sa.Column[Any]"],
) -> EnumValuesOp | None:
    """Return what has to be done about an enum that both sides have, if anything."""
    if not shown:
        return None
    if wanted.is_torn:
        log.warning(
            'Enum "%s" has not the same values in all columns of the models: it is not'
            " compared. Let them share one type.",
            name,
        )
        return None
    old: list[str] = row["values"]
    values = list(wanted.values)
    if [v for v in old if v in values] != [v for v in values if v in old]:
        log.warning(
            'Enum "%s" has its values in another order in the models: %s. PostgreSQL'
            " moves none, and compares and sorts by its own: %s. Nothing is written.",
            name,
            ", ".join(values),
            ", ".join(old),
        )
    gone = [v for v in old if v not in values]
    uses = [u for u in map(_use, shown) if _is_among(u, row["columns"])]
    if gone and not uses:
        log.warning(
            'Enum "%s" has values that the models have no more: %s. No table of both'
            " has a column of that very type, from which a change could keep them out;"
            " they stay.",
            name,
            ", ".join(gone),
        )
        values += gone
    if set(values) == set(old):
        return None
    return EnumValuesOp(schema, name, old, values, uses)


def _use(column: "sa.Column[Any]") -> Use:
    table: Any = column.table
    return Use(table.name, column.name, table.schema)


def _is_among(use: Use, columns: Sequence[Any]) -> bool:
    """Tell whether a column of the models is of the enum itself in the database."""
    return any(
        (table, column) == (use.table_name, use.column_name)
        and (schema == use.table_schema if use.table_schema else visible)
        and not is_array
        for schema, table, column, visible, is_array in columns
    )
