"""New columns of which each row gets a value of its own: computed, or by a default."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from psycopg import sql

from migrator.kernels.mirror_columns import Fill
from migrator.kernels.new_column.base import NewColumn
from migrator.kernels.rows import Update
from migrator.plan import Probe, Step, Steps, expression, missing, type_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived(NewColumn):
    """
    A column that a trigger computes from its row until the change is retired.

    Args:
        computed: SQL expression over the row's other columns.
    """

    computed: str

    def probes(self, title: str) -> Iterator[Probe]:
        """Yield trials of the type and the expression."""
        yield from NewColumn.probes(self, title)
        yield from self._computes(title, self.computed)

    @property
    def _fill(self) -> Fill:
        column = self.facts.table.column(self.column)
        return Fill(
            table=self.table,
            tag=self.facts.tag,
            column=self.column,
            expression=self.computed,
            # Before the column exists its type is not known: images are the
            # comparison that is right for every type.
            image_equal=column.image_equal if column else False,
            type=self.type,
            path=self.facts.path,
            follow=True,
        )

    def given(self) -> Iterable[sql.Composable]:
        """Return the trigger."""
        return self._fill.on()

    again = unfinished = given

    def lifted(self) -> Iterable[sql.Composable]:
        """Return the end of the trigger."""
        return self._fill.remove()

    final = lifted

    def repair(self) -> Update:
        """Return the expression, for rows that are NULL where it is not."""
        return self._fill.repair()

    def verify(self) -> Steps:
        """Return the count of rows that the expression would fill."""
        if self.not_null:
            return NewColumn.verify(self)
        return self._fill.verify(self.facts)

    def retire(self) -> Steps:
        """Return the end of the fill: the new release writes the column itself."""
        if self.not_null:
            return NewColumn.retire(self)
        fill = self._fill
        return (Step(name="drop_fill", work=fill.off(), reverse=(fill.back_on(),)),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn(NewColumn):
    """
    A column with a default that differs from row to row.

    Args:
        each: SQL expression of the default.
    """

    each: str

    def probes(self, title: str) -> Iterator[Probe]:
        """Yield trials of the type and the default."""
        yield from NewColumn.probes(self, title)
        yield self._gives_value(title, self.each)

    def definition(self) -> sql.Composable:
        """Return the type alone: a default of this kind would rewrite the table."""
        return type_name(self.type)

    def given(self) -> Iterable[sql.Composable]:
        """Return the default: from here on no row is without a value."""
        yield self.alter("ALTER COLUMN {} SET DEFAULT ") + expression(self.each)

    def repair(self) -> Update:
        """Return the default, for rows that were there before it."""
        return Update(
            values={self.column: expression(self.each)}, rows=missing(self.ident)
        )
