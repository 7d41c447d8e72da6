"""Columns of a wider integer type behind others, in whose place they come."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql

from migrator import names
from migrator.facts import Column, Table
from migrator.kernels.column_definition import granted, looks
from migrator.kernels.direct import catalogue_step
from migrator.kernels.indexes import build_index
from migrator.kernels.mirror_columns.base import Mirror, distinct, new_value
from migrator.kernels.mirror_columns.marks import MOST_COUNTED, few_of
from migrator.plan import Refusal, Step, render, type_name

# Each holds what those before it do; by the name that the catalogue gives.
BITS = {"smallint": 16, "integer": 32, "bigint": 64}


def holds(type: str) -> tuple[int, int]:
    """Return the least and the greatest value of an integer type."""
    half = 1 << (BITS[type] - 1)
    return -half, half - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Widening:
    """
    One column, and the wider one that takes its name at retire.

    Args:
        column: as it is before, by the name that both releases use.
        shadow: the wider column's name until retire.
        retired: the former column's name from then on.
        type: the wider type.
    """

    column: Column
    shadow: str
    retired: str
    type: str

    @property
    def name(self) -> str:
        """The name that both releases use."""
        return self.column.name

    def narrowed(self, value: sql.Composable) -> sql.Composable:
        """Return a value as the former column holds it: NULL where it cannot."""
        least, greatest = map(sql.Literal, holds(self.column.type))
        return sql.SQL("CASE WHEN {} BETWEEN {} AND {} THEN {} END").format(
            value, least, greatest, value
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Widened(Mirror):
    """
    Columns behind others, which no release sees before they take their names.

    Until retire what either release writes goes to the wider column; afterwards it
    goes back to the former one, which holds NULL where a value does not fit. Nothing
    is refused for that, and an index finds such rows.
    """

    columns: tuple[Widening, ...]

    @property
    def marks(self) -> str:
        """The name of the index of rows that do not fit."""
        return names.owned("marks", self.table.name, self.tag)

    def on(self, *, retired: bool) -> tuple[sql.Composable, ...]:
        """
        Return the statements that put the dual write on.

        Args:
            retired: whether the wider columns bear the releases' names.
        """
        given = {
            (c.retired if retired else c.shadow): (
                c.narrowed(new_value(c.name)) if retired else new_value(c.name)
            )
            for c in self.columns
        }
        body = sql.SQL("\nBEGIN\n{}  RETURN NEW;\nEND\n").format(
            sql.SQL("").join(
                sql.SQL("  {} := {};\n").format(new_value(name), value)
                for name, value in given.items()
            )
        )
        apart = sql.SQL(" OR ").join(
            distinct(new_value(name), value, image_equal=True)
            for name, value in given.items()
        )
        return self.create(body, apart)

    def expand(self, step: str) -> Step:
        """Return the step that adds the wider columns and puts the dual write on."""
        return Step(
            name=step,
            work=catalogue_step(
                self.table,
                *(s for c in self.columns for s in self._added(c)),
                *self.on(retired=False),
            ),
            reverse=(
                catalogue_step(
                    self.table,
                    *self.remove(),
                    *(
                        self.alter("DROP COLUMN IF EXISTS {}", c.shadow)
                        for c in self.columns
                    ),
                ),
            ),
        )

    def _added(self, one: Widening) -> tuple[sql.Composable, ...]:
        """Return the column with what binds nobody; the rest comes at retire."""
        return (
            self.alter("ADD COLUMN {} ", one.shadow) + type_name(one.type),
            *looks(self.table.identifier, one.shadow, one.column),
            *granted(self.table, one.shadow, one.column),
        )

    def alter(self, text: LiteralString, column: str) -> sql.Composable:
        """Return an ALTER TABLE of one column, whose place in `text` is {}."""
        return sql.SQL("ALTER TABLE {} " + text).format(
            self.table.identifier, sql.Identifier(column)
        )

    def values(self) -> Mapping[str, sql.Composable]:
        """Return the column itself, as the wider one's value."""
        return {c.shadow: sql.Identifier(c.name) for c in self.columns}

    def rows(self) -> sql.Composable:
        """Return the condition of rows that are out of step."""
        return sql.SQL(" OR ").join(
            distinct(sql.Identifier(c.name), sql.Identifier(c.shadow), image_equal=True)
            for c in self.columns
        )

    def shown(self) -> tuple[str, ...]:
        """Return both columns of each."""
        return tuple(n for c in self.columns for n in (c.name, c.shadow))

    def index_marks(self, table: Table, step: str) -> Step:
        """Return the build of the index of rows that will not fit; it is empty."""
        first = self.columns[0].name
        return build_index(
            step,
            table,
            self.marks,
            method="btree",
            keys=sql.Identifier(first),
            where=render(self._unfit(retired=False)),
        )

    def _unfit(self, *, retired: bool) -> sql.Composable:
        """Return the condition of rows that hold what the former column cannot."""

        def lacks(one: Widening) -> sql.Composable:
            former, wider = (
                (one.retired, one.name) if retired else (one.name, one.shadow)
            )
            lacking = sql.SQL("{} IS NULL").format(sql.Identifier(former))
            if one.column.not_null:
                return lacking
            return sql.SQL("({} AND {} IS NOT NULL)").format(
                lacking, sql.Identifier(wider)
            )

        return sql.SQL(" OR ").join(map(lacks, self.columns))

    def fits(self) -> Refusal:
        """Return the condition under which there is no way back."""
        known = ", ".join(f'"{c.retired}"' for c in self.columns)
        return Refusal(
            count=few_of(self.table, self._unfit(retired=True)),
            most=MOST_COUNTED,
            why="{count:row holds a value|rows hold values}"
            f" in table {self.table} that"
            f" {', '.join(dict.fromkeys(c.column.type for c in self.columns))} cannot"
            " hold",
            next=f"give these rows values that fit ({known} IS NULL finds them), then"
            " run it again; or keep the new type.",
        )

    def drop(self, step: str) -> Step:
        """Return the drop of the former columns, with their indexes."""
        return Step(
            name=step,
            work=catalogue_step(
                self.table,
                *self.remove(),
                *(self.alter("DROP COLUMN {}", c.retired) for c in self.columns),
            ),
            no_reverse="the former columns are gone",
            loses=True,
        )
