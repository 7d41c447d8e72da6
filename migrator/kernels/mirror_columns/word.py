"""One word for a value in the place of another, whichever is written."""

from collections.abc import Mapping
from dataclasses import dataclass

from psycopg import sql

from migrator.kernels.direct import catalogue_step
from migrator.kernels.enums import is_value
from migrator.kernels.mirror_columns.base import Mirror, new_value
from migrator.plan import Lock, Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Word(Mirror):
    """
    A value of an enum that is stored as another one.

    Args:
        column: of that type.
        written: the value that no row keeps; there need not be such a one yet.
        stored: the value that it becomes.
    """

    column: str
    written: str
    stored: str

    def on(self) -> tuple[sql.Composable, ...]:
        """Return the statements that put the translation on."""
        column = new_value(self.column)
        body = sql.SQL("\nBEGIN\n  {} := {};\n  RETURN NEW;\nEND\n").format(
            column, sql.Literal(self.stored)
        )
        return self.create(body, is_value(column, self.written))

    def rows(self) -> sql.Composable:
        """Return the condition of rows that hold the value."""
        return is_value(sql.Identifier(self.column), self.written)

    def shown(self) -> tuple[str, ...]:
        """Return the column."""
        return (self.column,)

    def values(self) -> Mapping[str, sql.Composable]:
        """Return the value that is stored."""
        return {self.column: sql.Literal(self.stored)}

    def put_on(self) -> Transaction:
        """Return the transaction that puts the translation on."""
        return catalogue_step(self.table, *self.on(), lock=Lock.SHARE_ROW_EXCLUSIVE)

    def off(self) -> Transaction:
        """Return the transaction that takes the translation off."""
        return catalogue_step(self.table, *self.remove())
