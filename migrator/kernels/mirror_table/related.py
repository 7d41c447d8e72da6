"""A table, one whose rows belong to its rows, and columns that stand in both."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from psycopg import sql

from migrator.kernels import images
from migrator.kernels.mirror_table.columns import (
    KeyColumn,
    Shown,
    changed,
    joined,
    same,
    values_of,
)
from migrator.names import TableName

# Names in statements: no table's, so that a column that is qualified by its table's
# name is never taken for one of the other table.
_PARENT = sql.Identifier("_migrator_parent")
_CHILD = sql.Identifier("_migrator_child")


@dataclass(frozen=True, slots=True, kw_only=True)
class Related:
    """
    What statements over both tables are made of.

    Args:
        parent: the table whose key the other one refers to.
        child: the other table; each of its rows has a parent.
        key: the child's columns that name its parent.
        columns: the columns that stand in both, by their names in the child, each with
            the parent's column and what that holds where nobody wrote it.
    """

    parent: TableName
    child: TableName
    key: Mapping[str, KeyColumn]
    columns: Mapping[str, Shown]

    # -- statements --------------------------------------------------------

    def down(self, rows: sql.Composable) -> sql.Composable:
        """Return the statement that takes values from parents to their children."""
        return sql.SQL(
            "UPDATE {} AS {} SET {} FROM {} AS {} WHERE {} AND {} AND {}"
        ).format(
            self.child.identifier,
            _CHILD,
            sql.SQL(", ").join(
                sql.SQL("{} = {}.{}").format(
                    sql.Identifier(name), _PARENT, sql.Identifier(s.column)
                )
                for name, s in self.columns.items()
            ),
            self.parent.identifier,
            _PARENT,
            rows,
            joined(_PARENT, _CHILD, self.key),
            self.apart(),
        )

    def up(self, rows: sql.Composable) -> sql.Composable:
        """Return the statement that takes values from children to their parents."""
        return sql.SQL(
            "UPDATE {} AS {} SET {} FROM {} AS {} WHERE {} AND {} AND {}"
        ).format(
            self.parent.identifier,
            _PARENT,
            self._assigned(
                {
                    n: sql.SQL("{}.{}").format(_CHILD, sql.Identifier(n))
                    for n in self.columns
                }
            ),
            self.child.identifier,
            _CHILD,
            rows,
            joined(_PARENT, _CHILD, self.key),
            self.apart(),
        )

    def rested(self) -> sql.Composable:
        """Return the statement that puts parents without a child to rest."""
        return sql.SQL("UPDATE {} AS {} SET {} WHERE {} AND {}").format(
            self.parent.identifier,
            _PARENT,
            self._assigned({n: s.at_rest for n, s in self.columns.items()}),
            self.orphaned(_PARENT),
            images.DIFFER.format(self.of_parent(_PARENT), self.rest()),
        )

    def held(self, rows: sql.Composable) -> sql.Composable:
        """Return the statement, in a trigger, that locks parents."""
        return sql.SQL("PERFORM 1 FROM {} AS {} WHERE {} FOR NO KEY UPDATE").format(
            self.parent.identifier, _PARENT, rows
        )

    def _assigned(self, values: Mapping[str, sql.Composable]) -> sql.Composable:
        return sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(s.column), values[name])
            for name, s in self.columns.items()
        )

    # -- conditions --------------------------------------------------------

    def apart(self) -> sql.Composable:
        """Return the condition that a parent and its child hold other values."""
        return images.DIFFER.format(self.of_parent(_PARENT), self.of_child(_CHILD))

    def of_parent(self, row: sql.Composable) -> sql.Composable:
        """Return the mirrored values of the parent's row, as one."""
        return image(row, [s.column for s in self.columns.values()])

    def of_child(self, row: sql.Composable) -> sql.Composable:
        """Return the mirrored values of the child's row, as one."""
        return image(row, self.columns)

    def rest(self, *, known: bool = True) -> sql.Composable:
        """Return what columns hold that nobody wrote; NULLs where no default is."""
        values = (
            s.at_rest if known else Shown(column=s.column, type=s.type).at_rest
            for s in self.columns.values()
        )
        return images.record(sql.SQL(", ").join(values))

    def is_rest(self, given: sql.Composable) -> sql.Composable:
        """Return the condition that an image of the parent's holds no one's values."""
        return sql.SQL(" OR ").join(
            (
                images.SAME.format(given, self.rest()),
                images.SAME.format(given, self.rest(known=False)),
            )
        )

    def moved(self) -> sql.Composable:
        """Return the condition that an UPDATE gave a child another parent."""
        return sql.SQL("TG_OP = 'UPDATE' AND ({})").format(
            changed((name, k.equal) for name, k in self.key.items())
        )

    def owner_of(self, row: str) -> sql.Composable:
        """Return the condition of the parent of a row of the child."""
        return joined(_PARENT, sql.Identifier(row), self.key)

    def same_parent(self, row: str) -> sql.Composable:
        """Return the condition of the row that a trigger of the parent was given."""
        return same(_PARENT, sql.Identifier(row), self.key)

    def orphaned(self, parent: sql.Composable) -> sql.Composable:
        """Return the condition that a parent has no child."""
        return sql.SQL("NOT EXISTS (SELECT FROM {} AS {} WHERE {})").format(
            self.child.identifier, _CHILD, joined(parent, _CHILD, self.key)
        )

    def child_apart(self) -> sql.Composable:
        """Return the condition of a child's row that its parent is not in step with."""
        # The child's columns stand outside of the sub-select: in it, a bare one would
        # be the parent's.
        return sql.SQL("({}) IS TRUE").format(
            images.DIFFER.format(
                self.parent_image(images.RECORD),
                self.of_child(sql.Identifier(self.child.name)),
            )
        )

    def parent_apart(self) -> sql.Composable:
        """
        Return the condition of a parent's row that is not in step with its child.

        Without one it is in step where it is at rest.
        """
        here = sql.Identifier(self.parent.name)
        return sql.SQL("CASE WHEN {} THEN NOT ({}) ELSE {} END").format(
            self.orphaned(here),
            self.is_rest(self.of_parent(here)),
            images.DIFFER.format(self.child_image(images.RECORD), self.of_parent(here)),
        )

    def parent_image(self, form: sql.SQL) -> sql.Composable:
        """Return the parent's values of the child's row, in the form of one value."""
        columns = values_of(_PARENT, [s.column for s in self.columns.values()])
        return self._of_the_parent(form.format(columns))

    def child_image(self, form: sql.SQL) -> sql.Composable:
        """Return the child's values of the parent's row, in the form of one value."""
        return self._of_the_child(form.format(values_of(_CHILD, self.columns)))

    def from_parent(self, column: str, *, hold: bool = False) -> sql.Composable:
        """
        Return a column of the parent as a value of the child's row.

        Args:
            column: the parent's.
            hold: whether the parent is locked, and so read as it is by then.
        """
        value = sql.SQL("{}.{}").format(_PARENT, sql.Identifier(column))
        return self._of_the_parent(value, hold=hold)

    def from_child(self, name: str, *, hold: bool = False) -> sql.Composable:
        """
        Return a column of the child as a value of the parent's row.

        Args:
            name: the child's.
            hold: whether the child is locked, and so read as it is by then.
        """
        value = sql.SQL("{}.{}").format(_CHILD, sql.Identifier(name))
        return self._of_the_child(value, hold=hold)

    def _of_the_parent(
        self, value: sql.Composable, *, hold: bool = False
    ) -> sql.Composable:
        return sql.SQL("(SELECT {} FROM {} AS {} WHERE {}{})").format(
            value,
            self.parent.identifier,
            _PARENT,
            self.owner_of(self.child.name),
            sql.SQL(" FOR NO KEY UPDATE" if hold else ""),
        )

    def _of_the_child(
        self, value: sql.Composable, *, hold: bool = False
    ) -> sql.Composable:
        return sql.SQL("(SELECT {} FROM {} AS {} WHERE {}{})").format(
            value,
            self.child.identifier,
            _CHILD,
            joined(sql.Identifier(self.parent.name), _CHILD, self.key),
            sql.SQL(" FOR NO KEY UPDATE" if hold else ""),
        )

    def has_child(self) -> sql.Composable:
        """Return the condition of a parent's row that has a child."""
        return sql.SQL("NOT ({})").format(
            self.orphaned(sql.Identifier(self.parent.name))
        )


def image(row: sql.Composable, columns: Iterable[str]) -> sql.Composable:
    """Return columns of a row as one value, which is compared by their images."""
    return images.record(values_of(row, columns))
