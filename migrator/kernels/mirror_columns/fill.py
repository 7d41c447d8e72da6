"""One column filled from an expression over its row, where it is NULL."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, LiteralString

from psycopg import sql

from migrator.kernels.direct import catalogue_step
from migrator.kernels.mirror_columns.base import (
    NO_COUNTERPART,
    SETTINGS,
    Mirror,
    distinct,
    new_value,
    old_value,
)
from migrator.plan import (
    Lock,
    Transaction,
    expression,
    missing,
    present,
    type_name,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill(Mirror):
    """
    One column filled from an SQL expression over its row, where it is NULL.

    With `follow`, a value that came from the expression is computed again when
    the row changes; a value that a release chose itself stays.
    """

    column: str
    expression: str
    image_equal: bool
    type: str
    follow: bool = False

    settings: ClassVar[tuple[LiteralString, ...]] = SETTINGS

    def _value(self, record: str) -> sql.Composable:
        # The row as a sub-select under the table's own name: the expression
        # can name columns as it would in a query, and no text is edited.
        return sql.SQL("(SELECT {} FROM (SELECT {}.*) AS {})").format(
            expression(self.expression),
            sql.SQL("NEW") if record == "NEW" else sql.SQL("OLD"),
            sql.Identifier(self.table.name),
        )

    def on(self) -> tuple[sql.Composable, ...]:
        """
        Return the statements that put the fill on.

        A row for which the expression fails is stored, with NULL: the old release may
        not know the column. It holds the change at its backfill or verification.
        """
        column = new_value(self.column)
        fill = sql.SQL(
            """\
  IF {none} THEN
    BEGIN
      {column} := {value};
    EXCEPTION WHEN {no_counterpart} THEN
      NULL;
    END;
  END IF;
"""
        ).format(
            none=missing(column),
            column=column,
            value=self._value("NEW"),
            no_counterpart=NO_COUNTERPART,
        )
        if not self.follow:
            body = sql.SQL(
                "\n#variable_conflict use_column\nBEGIN\n{}  RETURN NEW;\nEND\n"
            ).format(fill)
            return self.create(body, missing(column))
        body = sql.SQL(
            """
#variable_conflict use_column
DECLARE
  derived_before {type};
BEGIN
  IF TG_OP = 'UPDATE' AND {given} AND NOT ({written}) THEN
    BEGIN
      derived_before := {before};
      IF NOT ({chosen}) THEN
        {column} := NULL;
      END IF;
    EXCEPTION WHEN {no_counterpart} THEN
      NULL;
    END;
  END IF;
{fill}  RETURN NEW;
END
"""
        ).format(
            type=type_name(self.type),
            column=column,
            given=present(column),
            written=distinct(
                column, old_value(self.column), image_equal=self.image_equal
            ),
            before=self._value("OLD"),
            chosen=distinct(
                old_value(self.column),
                sql.Identifier("derived_before"),
                image_equal=self.image_equal,
            ),
            no_counterpart=NO_COUNTERPART,
            fill=fill,
        )
        return self.create(body, None)

    def rows(self) -> sql.Composable:
        """Return the condition of rows that are out of step."""
        return sql.SQL("{} AND {}").format(
            missing(sql.Identifier(self.column)), present(expression(self.expression))
        )

    def shown(self) -> tuple[str, ...]:
        """Return the filled column; what it is made of is in the expression."""
        return (self.column,)

    def values(self) -> Mapping[str, sql.Composable]:
        """Return the expression."""
        return {self.column: expression(self.expression)}

    def off(self, *before: sql.Composable) -> Transaction:
        """Return the transaction that takes the fill off."""
        return catalogue_step(self.table, *before, *self.remove())

    def back_on(self, *before: sql.Composable) -> Transaction:
        """Return the transaction that puts the fill on."""
        # ALTER … DROP NOT NULL needs ACCESS EXCLUSIVE; a trigger alone does not.
        lock = Lock.ACCESS_EXCLUSIVE if before else Lock.SHARE_ROW_EXCLUSIVE
        return catalogue_step(self.table, *before, *self.on(), lock=lock)
