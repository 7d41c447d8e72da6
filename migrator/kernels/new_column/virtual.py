"""A new column that is computed when it is read.

Source: PostgreSQL manual, section 5.4 (from PostgreSQL 18 on).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import sql

from migrator.kernels import direct
from migrator.kernels.new_column.base import NewColumn
from migrator.plan import Probe, Step, Steps, expression, render, type_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Virtual(NewColumn):
    """
    A column that is computed when it is read: it holds nothing, and is not parked.

    Args:
        virtual: SQL expression over the row's other columns.
    """

    virtual: str

    def probes(self, title: str) -> Iterator[Probe]:
        """Yield trials of the type, the expression and the column."""
        yield from NewColumn.probes(self, title)
        yield from self._computes(title, self.virtual)
        like = sql.SQL("CREATE TEMP TABLE migrator_trial (LIKE {})").format(
            self.table.identifier
        )
        add = sql.SQL("ALTER TABLE migrator_trial ADD COLUMN {} {}").format(
            self.ident, self.definition()
        )
        yield Probe(
            statements=(render(like), render(add)),
            question="SELECT true",
            otherwise="",
        )

    def definition(self) -> sql.Composable:
        """Return the type and the expression."""
        return sql.SQL("{} GENERATED ALWAYS AS {} VIRTUAL").format(
            type_name(self.type), expression(self.virtual)
        )

    def expand(self) -> Steps:
        """Return the column."""
        table = self.table
        add = self.alter("ADD COLUMN {} ") + self.definition()
        drop = self.alter("DROP COLUMN {}")
        return (
            Step(
                name="add_column",
                work=direct.catalogue_step(table, add),
                reverse=(direct.catalogue_step(table, drop),),
            ),
        )
