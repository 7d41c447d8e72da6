"""A view that stands for a table whose columns went to another one."""

from collections.abc import Mapping
from dataclasses import dataclass

from psycopg import sql

from migrator.facts import Column
from migrator.kernels.column_definition import granted
from migrator.kernels.mirror_table.facade import Facade
from migrator.plan import type_name


@dataclass(frozen=True, slots=True, kw_only=True)
class StandIn(Facade):
    """
    The facade of a table that was there before it, for those who still use that one.

    So it has that table's columns in their order, and its grants: who has them needs
    none on the table behind. A key column cannot be updated: that would not give the
    row to another one of the table, but change that table's key.

    Args:
        order: the names of all columns.
        given: the condition of rows of `_row`, the table, that it shows.
        mark: the column that is true in a row that was inserted; None for none.
        granted: columns that have privileges of their own.
        definer: with whose rights functions run; None for the role of the connection.
    """

    order: tuple[str, ...]
    given: sql.Composable
    mark: str | None
    granted: Mapping[str, Column]
    definer: str | None

    def create(self) -> tuple[sql.Composable, ...]:
        """Return the statements that make the view."""
        return (
            *Facade.create(self),
            *(
                statement
                for name, column in self.granted.items()
                for statement in granted(self.view, name, column)
            ),
        )

    def define(self) -> tuple[sql.Composable, ...]:
        """Return the statements that make the functions, or make them anew."""
        made = Facade.define(self)
        if self.definer is None:
            return made
        return (
            *made,
            *(
                sql.SQL("ALTER FUNCTION {}() OWNER TO {}").format(
                    self._function(event), sql.Identifier(self.definer)
                )
                for event in ("INSERT", "DELETE")
            ),
        )

    def _rights(self) -> sql.Composable:
        """Return the options of the view: it runs with its owner's rights."""
        return sql.SQL("")

    def _secured(self) -> sql.Composable:
        """Return with whose rights the functions run: the owner's."""
        return sql.SQL(" SECURITY DEFINER")

    def _shown(self) -> sql.Composable:
        """Return the columns of the view, as the table had them."""
        return sql.SQL(", ").join(map(self._column, self.order))

    def _column(self, name: str) -> sql.Composable:
        if name in self.columns:
            at: sql.Composable = sql.Identifier(self.columns[name].column)
        else:
            # The server takes it for an expression, which is not to be updated, and
            # folds it before it looks for an index. The second arm keeps its modifier.
            at = sql.SQL("CASE WHEN true THEN {c} ELSE {c} END").format(
                c=sql.Identifier(self.key[name].column)
            )
        return sql.SQL("{} AS {}").format(at, sql.Identifier(name))

    def _free(self) -> sql.Composable:
        """Return the condition that a row may be inserted: there is none."""
        return sql.SQL("({}) IS NOT TRUE").format(self.given)

    def _given(self) -> dict[str, sql.Composable]:
        """Return what an INSERT gives to columns of the table."""
        mark = {} if self.mark is None else {self.mark: sql.SQL("true")}
        return Facade._given(self) | mark

    def _rest(self) -> dict[str, sql.Composable]:
        """Return what a DELETE leaves in columns of the table: nothing."""
        columns = {s.column: s.type for s in self.columns.values()}
        if self.mark is not None:
            columns[self.mark] = "boolean"
        return {
            column: sql.SQL("NULL::{}").format(type_name(kind))
            for column, kind in columns.items()
        }
