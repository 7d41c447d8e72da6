"""Columns of a table that stand in another one, and conditions over rows of both."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from psycopg import sql

from migrator.facts import Column
from migrator.plan import type_name


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyColumn:
    """
    A column that names the row of another table.

    Args:
        column: the other table's column.
        type: its type.
        equal: the `=` of the type, as SQL spells it.
        image_equal: whether that `=` means "the same image".
    """

    column: str
    type: str
    equal: str
    image_equal: bool = True

    @classmethod
    def of(cls, column: Column) -> "KeyColumn":
        """Return a column of the other table as part of its key."""
        return cls(
            column=column.name,
            type=column.type,
            equal=column.equal,
            image_equal=column.image_equal,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """What another column of a shadow holds: an expression over the row, its type."""

    expression: sql.Composable
    type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """
    A column of another table, as one table or view shows it.

    Args:
        column: the other table's column.
        type: its type.
        rest: the SQL expression of its default; None for NULL.
    """

    column: str
    type: str
    rest: str | None = None

    @property
    def at_rest(self) -> sql.Composable:
        """What the column holds in a row of which nobody wrote it."""
        return sql.SQL("({})::{}").format(
            type_name(self.rest or "NULL"), type_name(self.type)
        )


def matched(
    left: sql.Composable,
    right: sql.Composable,
    columns: Iterable[tuple[str, str, str]],
) -> sql.Composable:
    """
    Return the condition that two rows agree.

    Args:
        left: what the one row is called.
        right: what the other is called.
        columns: a column of `left`, the `=` of its type, and a column of `right`, each.
    """
    return sql.SQL(" AND ").join(
        sql.SQL("{}.{} {} {}.{}").format(
            left, sql.Identifier(mine), type_name(equal), right, sql.Identifier(theirs)
        )
        for mine, equal, theirs in columns
    )


def joined(
    theirs: sql.Composable, ours: sql.Composable, key: Mapping[str, KeyColumn]
) -> sql.Composable:
    """
    Return the condition that a row of the other table is the one that ours names.

    Args:
        theirs: what the other table's row is called.
        ours: what our row is called.
        key: our columns, each with the other table's.
    """
    columns = ((k.column, k.equal, name) for name, k in key.items())
    return matched(theirs, ours, columns)


def same(
    left: sql.Composable, right: sql.Composable, key: Mapping[str, KeyColumn]
) -> sql.Composable:
    """
    Return the condition that two rows have the other table's key in common.

    Args:
        left: what the one row is called.
        right: what the other is called; both have the other table's columns.
        key: our columns, each with the other table's.
    """
    return matched(left, right, ((k.column, k.equal, k.column) for k in key.values()))


def changed(columns: Iterable[tuple[str, str]]) -> sql.Composable:
    """
    Return the condition, in a trigger, that an UPDATE changed one of some columns.

    Args:
        columns: each with the `=` of its type.
    """
    return sql.SQL(" OR ").join(
        sql.SQL("NOT (old.{c} {equal} new.{c})").format(
            c=sql.Identifier(column), equal=type_name(equal)
        )
        for column, equal in columns
    )


def values_of(row: sql.Composable, columns: Iterable[str]) -> sql.Composable:
    """Return columns of a row that has a name, as a list."""
    return sql.SQL(", ").join(
        sql.SQL("{}.{}").format(row, sql.Identifier(column)) for column in columns
    )
