"""A new column: what gives it values in rows that are there, and in new ones.

A row that nobody has given a value holds NULL until the change is retired; by then the
backfill has been, and NOT NULL is proved without a scan under a strong lock.

Source: PostgreSQL manual, ALTER TABLE, ADD COLUMN and Notes (a default that is the same
in each row is stored once).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql

from migrator import names
from migrator.facts import Column, Facts
from migrator.kernels import direct, trials
from migrator.kernels.not_null import not_null_by_check
from migrator.kernels.rows import Update, comparisons, writes
from migrator.names import TableName
from migrator.plan import Probe, Step, Steps, expression, missing, type_name


@dataclass(frozen=True, slots=True, kw_only=True)
class NewColumn:
    """
    A column that is empty, or has the same default in each row.

    Args:
        facts: of the table, in any phase.
        column: its name.
        type: its type in SQL.
        not_null: whether it ends as NOT NULL.
        default: SQL expression that is the same in each row.
    """

    facts: Facts
    column: str
    type: str
    not_null: bool = False
    default: str | None = None

    @property
    def table(self) -> TableName:
        """The table."""
        return self.facts.table.name

    @property
    def ident(self) -> sql.Identifier:
        """The column's name as SQL."""
        return sql.Identifier(self.column)

    @property
    def parked(self) -> str:
        """The column's name after a rollback."""
        return names.owned("parked", self.column, self.facts.tag)

    def definition(self) -> sql.Composable:
        """Return what ADD COLUMN says after the name."""
        text = type_name(self.type)
        if self.default is None:
            return text
        # The server knows that no row holds NULL, and does not look.
        return sql.SQL("{} DEFAULT {}{}").format(
            text,
            expression(self.default),
            sql.SQL(" NOT NULL" if self.not_null else ""),
        )

    def probes(self, title: str) -> Iterator[Probe]:
        """
        Yield trials of the type, and of what the values are made by.

        Args:
            title: the change's, for messages.
        """
        yield trials.bare_type(title, self.type)
        if self.default is not None:
            yield trials.bare_type(title, self.type, self.default)
            if self.not_null:
                yield self._gives_value(title, self.default)

    def _gives_value(self, title: str, default: str) -> Probe:
        column = Column(name=self.column, type=self.type)
        return trials.default_gives_value(title, column, default)

    def _computes(self, title: str, text: str) -> Iterator[Probe]:
        """Yield trials of an expression over the row, on some rows that are there."""
        rows = sql.SQL("{} LIMIT 100").format(self.table.identifier)
        yield trials.computes(self.type, text, rows)
        yield from trials.reads_no_generated(title, self.facts, text)

    def given(self) -> Iterable[sql.Composable]:
        """Return what gives new rows their values, once the column is there."""
        return ()

    def again(self) -> Iterable[sql.Composable]:
        """Return what of it a rollback took away."""
        return ()

    def lifted(self) -> Iterable[sql.Composable]:
        """Return the statements that take that away."""
        return ()

    def repair(self) -> Update | None:
        """Return what fills rows that hold no value."""
        return None

    def final(self) -> Iterable[sql.Composable]:
        """Return what follows NOT NULL, once the old release is gone."""
        return ()

    def unfinished(self) -> Iterable[sql.Composable]:
        """Return the way back from `final`."""
        return ()

    def expand(self) -> Steps:
        """Return the column, or its return from where a rollback parked it."""
        table = self.table
        if self.facts.table.column(self.parked) is not None:
            make = (_renamed(table, self.parked, self.column), *self.again())
        else:
            add = self.alter("ADD COLUMN {} ") + self.definition()
            make = (add, *self.given())
        park = (*self.lifted(), _renamed(table, self.column, self.parked))
        gone = sql.SQL("ALTER TABLE {} DROP COLUMN IF EXISTS {}").format(
            table.identifier, sql.Identifier(self.parked)
        )
        return (
            Step(
                name="add_column",
                work=direct.catalogue_step(table, *make),
                reverse=(direct.catalogue_step(table, *park),),
                parked=direct.catalogue_step(table, gone),
            ),
        )

    def backfill(self) -> Steps:
        """Return the fill of rows that are there."""
        repair = self.repair()
        if repair is None:
            return ()
        why = "the values are parked with the column"
        return writes(self.facts, "fill_rows", repair, no_reverse=why)

    def verify(self) -> Steps:
        """Return the count of rows that hold no value."""
        repair = self.repair()
        if repair is None:
            return ()
        return comparisons(
            self.facts,
            "count_nulls",
            missing(self.ident),
            shown=(self.column,),
            repair=repair,
            no_reverse="nothing but NULLs is changed",
        )

    def retire(self) -> Steps:
        """Return NOT NULL, proved by a check, and what follows it."""
        if not self.not_null or self.repair() is None:
            return ()
        check = names.owned("check", self.column, self.facts.tag)
        add, validate, last = not_null_by_check(
            self.table, self.column, check, tuple(self.final())
        )
        back = direct.catalogue_step(
            self.table,
            *self.unfinished(),
            self.alter("ALTER COLUMN {} DROP NOT NULL"),
        )
        return (add, validate, Step(name="set_not_null", work=last, reverse=(back,)))

    def alter(self, text: LiteralString) -> sql.Composable:
        """Return an ALTER TABLE of the column, whose place in `text` is {}."""
        return sql.SQL("ALTER TABLE {} " + text).format(
            self.table.identifier, self.ident
        )


def _renamed(table: TableName, name: str, to: str) -> sql.Composable:
    return sql.SQL("ALTER TABLE {} RENAME COLUMN {} TO {}").format(
        table.identifier, sql.Identifier(name), sql.Identifier(to)
    )
