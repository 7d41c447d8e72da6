"""Columns that go from a table to one whose rows belong to its rows."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Column, Facts, Index, Table
from migrator.kernels import direct, indexes, not_null
from migrator.kernels.altered import altered
from migrator.kernels.column_definition import (
    carried,
    definition,
    granted,
    looks,
)
from migrator.kernels.mirror_table.both_ways import BothWays
from migrator.kernels.mirror_table.columns import KeyColumn, Shown
from migrator.kernels.mirror_table.related import Related
from migrator.kernels.rows import updates
from migrator.plan import Lock, Step, Steps, Transaction, expression


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """
    The phases of the move.

    Args:
        facts: of the table, in any phase.
        child: the table to which the columns go.
        key: columns of the table's key, each with the child's that refers to it.
        columns: the columns that go, each with its name in the child.
        indexes: new names of indexes that go along.
    """

    facts: Facts
    child: Table
    key: Mapping[str, str]
    columns: Mapping[str, str]
    indexes: Mapping[str, str]

    # -- what it is made of ----------------------------------------------

    @property
    def table(self) -> Table:
        """The table from which the columns go."""
        return self.facts.table

    def hidden(self, column: str) -> str:
        """Return the name of a column of the old release after retire."""
        return names.owned("retired", column, self.facts.tag)

    @property
    def is_retired(self) -> bool:
        """Whether the columns bear the names that they have after retire."""
        return all(self.table.column(self.hidden(c)) for c in self.columns)

    def found(self) -> dict[str, Column]:
        """Return the columns that go, by their names in the child."""
        return {
            name: self.table.column(self.hidden(c)) or self.table.require(c)
            for c, name in self.columns.items()
        }

    def mirror(self, *, retired: bool | None = None) -> BothWays:
        """Return the dual write; `retired` as the names of columns are, or will be."""
        retired = self.is_retired if retired is None else retired
        found = self.found()
        return BothWays(
            parent=self.table.name,
            child=self.child.name,
            tag=self.facts.tag,
            key={
                name: KeyColumn.of(self.table.require(c))
                for c, name in self.key.items()
            },
            columns={
                name: Shown(
                    column=self.hidden(c) if retired else c,
                    type=found[name].type,
                    rest=found[name].default,
                )
                for c, name in self.columns.items()
            },
            retired=retired,
            path=self.facts.path,
            owner=self.table.owner if self.facts.superuser else None,
        )

    def carried(self) -> tuple[Index, ...]:
        """Return the indexes that go along: those that a column that goes is in."""
        return carried(self.table, (c.name for c in self.found().values()), self.key)

    # -- phases ----------------------------------------------------------

    def expand(self) -> Steps:
        """Return the columns in the child, and the dual write on either side."""
        mirror, child, parent = self.mirror(), self.child.name, self.table.name
        added = (
            sql.SQL("ALTER TABLE {} ADD COLUMN {}").format(
                child.identifier,
                definition(replace(c, default=None, not_null=False), name),
            )
            for name, c in self.found().items()
        )
        dropped = (
            sql.SQL("ALTER TABLE {} DROP COLUMN IF EXISTS {}").format(
                child.identifier, sql.Identifier(name)
            )
            for name in self.columns.values()
        )
        return (
            Step(
                name="add_column",
                work=replace(
                    direct.catalogue_step(
                        child,
                        self._path(),
                        *added,
                        *(
                            statement
                            for name, c in self.found().items()
                            for statement in (
                                *looks(child.identifier, name, c),
                                *granted(child, name, c),
                            )
                        ),
                        *mirror.on_child(),
                    ),
                    # Its triggers read the one and write the other.
                    refusals=(altered(self.child), altered(self.table)),
                ),
                reverse=(direct.catalogue_step(child, *mirror.off_child(), *dropped),),
            ),
            Step(
                name="mirror_column",
                work=replace(
                    direct.catalogue_step(
                        parent, *mirror.on_parent(), lock=Lock.SHARE_ROW_EXCLUSIVE
                    ),
                    refusals=(altered(self.table),),
                ),
                reverse=(direct.catalogue_step(parent, *mirror.off_parent()),),
            ),
        )

    def backfill(self) -> Steps:
        """Return the copy of values, then of indexes: so that updates stay HOT."""
        there = {c.name: name for name, c in self.found().items()} | dict(self.key)
        return (
            *self.mirror().fill(self.facts.of(self.child), "copy_values"),
            *(
                indexes.build_like(
                    f"copy_index_{number}", self.child, index, self._copy(index), there
                )
                for number, index in enumerate(self.carried(), 1)
            ),
        )

    def verify(self) -> Steps:
        """Return the comparison of both tables."""
        return self.mirror().verify(self.facts, self.facts.of(self.child))

    def retire(self) -> Steps:
        """
        Return the renames of the columns, out of the old release's sight.

        NOT NULL comes behind them: an INSERT that leaves the column out is filled by
        its trigger until then, and by the default afterwards.
        """
        return (
            Step(
                name="rename_column",
                work=self._exchange(retired=True),
                reverse=(self._exchange(retired=False),),
            ),
            *(
                step
                for name, c in self.found().items()
                if c.not_null
                for step in self._required(name)
            ),
        )

    def drop(self) -> Steps:
        """Return the drop of the columns and of the dual write."""
        mirror, table = self.mirror(retired=True), self.table.name
        return (
            Step(
                name="drop_column",
                work=mirror.needs_on(
                    direct.catalogue_step(
                        table,
                        *mirror.off_parent(),
                        *mirror.off_child(),
                        *(
                            sql.SQL("ALTER TABLE {} DROP COLUMN {}").format(
                                table.identifier, sql.Identifier(self.hidden(c))
                            )
                            for c in self.columns
                        ),
                        *(
                            statement
                            for index in self.carried()
                            for statement in indexes.named(
                                table.schema,
                                self._copy(index),
                                index,
                                self.indexes.get(index.name, index.name),
                            )
                        ),
                        also=(self.child.name,),
                    )
                ),
                no_reverse="the column is gone from the table",
                loses=True,
            ),
        )

    def rebuild(self) -> Steps:
        """Return the columns, filled from the child, where no release runs."""
        table, child = self.table.name, self.child.name
        there = {c: self.child.require(name) for c, name in self.columns.items()}
        related = Related(
            parent=table,
            child=child,
            key={
                name: KeyColumn.of(self.table.require(c))
                for c, name in self.key.items()
            },
            columns={},
        )
        return (
            Step(
                name="add_column_again",
                work=direct.catalogue_step(
                    table,
                    self._path(),
                    *(
                        sql.SQL("ALTER TABLE {} ADD COLUMN {}").format(
                            table.identifier,
                            # Rows without a child have the default, or nothing.
                            definition(
                                replace(
                                    c, not_null=c.not_null and c.default is not None
                                ),
                                column,
                            ),
                        )
                        for column, c in there.items()
                    ),
                ),
                no_reverse="upgrade again",
            ),
            *updates(
                self.facts,
                "copy_values_back",
                {c: related.from_child(name) for c, name in self.columns.items()},
                related.has_child(),
                no_reverse="upgrade again",
            ),
            Step(
                name="drop_column",
                work=direct.catalogue_step(
                    child,
                    *(
                        sql.SQL("ALTER TABLE {} DROP COLUMN {}").format(
                            child.identifier, sql.Identifier(name)
                        )
                        for name in self.columns.values()
                    ),
                ),
                no_reverse="upgrade again",
                loses=True,
            ),
        )

    # -- parts -----------------------------------------------------------

    def _copy(self, index: Index) -> str:
        return names.owned("index", index.name, self.facts.tag)

    def _path(self) -> sql.Composable:
        """Return the path under which defaults were written."""
        return sql.SQL("SET LOCAL search_path = {}").format(
            direct.pinned_path(self.facts.path, self.table.name.schema)
        )

    def _exchange(self, *, retired: bool) -> Transaction:
        """Return the rename of the columns, and of what triggers do, there or back."""
        parent, child = self.table.name, self.child.name
        mirror = self.mirror(retired=retired)
        renames = (
            sql.SQL("ALTER TABLE {} RENAME COLUMN {} TO {}").format(
                parent.identifier,
                *map(
                    sql.Identifier,
                    (c, self.hidden(c)) if retired else (self.hidden(c), c),
                ),
            )
            for c in self.columns
        )
        defaults = (
            sql.SQL("ALTER TABLE {} ALTER COLUMN {} {}").format(
                child.identifier,
                sql.Identifier(name),
                sql.SQL("SET DEFAULT {}").format(expression(c.default))
                if retired
                else sql.SQL("DROP DEFAULT"),
            )
            for name, c in self.found().items()
            if c.default is not None
        )
        return mirror.needs_on(
            direct.catalogue_step(
                parent,
                self._path(),
                *renames,
                *defaults,
                *mirror.define("child", "parent"),
                also=(child,),
            )
        )

    def _required(self, name: str) -> Steps:
        """Return the steps that make a column of the child NOT NULL."""
        child = self.child.name
        check = names.owned("check", name, self.facts.tag)
        add, validate, proven = not_null.not_null_by_check(child, name, check)
        lifted = sql.SQL("ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL").format(
            child.identifier, sql.Identifier(name)
        )
        return (
            add,
            validate,
            Step(
                name="set_not_null",
                work=proven,
                reverse=(direct.catalogue_step(child, lifted),),
            ),
        )


def require_pair(facts: Facts, child: Table, key: Mapping[str, str]) -> None:
    """
    Refuse tables of which one row may belong to several of the other, or to none.

    Args:
        facts: of the table that is referred to.
        child: the table that refers to it.
        key: the referenced columns, each with the one that refers to it.

    Raises:
        Refused: no unique key, no foreign key that holds at once, or another owner.
    """
    table = facts.table
    if child.name == table.name:
        raise Refused(
            f"Table {table.name} is named twice.", next="name the other table in `to`."
        )
    for one, columns in ((table, key), (child, key.values())):
        found = [one.require(c) for c in columns]
        unique = any(
            i.unique and i.valid and i.plain and set(i.columns) == set(columns)
            for i in one.indexes
        )
        if not found or not unique or not all(c.not_null for c in found):
            raise Refused(
                f"The columns ({', '.join(columns)}) of table {one.name} are no unique"
                " key of NOT NULL columns: two rows could claim one value.",
                next="correct `key`, or make them one by a change of its own first.",
            )
    holding = {
        c.name
        for c in child.constraints
        if c.kind == "f" and c.validated and not c.deferrable
    }
    if not any(
        k.name in holding
        and k.table == child.name
        and k.to == table.name
        and dict(zip(k.to_columns, k.columns, strict=True)) == dict(key)
        for k in child.foreign_keys
    ):
        raise Refused(
            f"Table {child.name} has no foreign key of ({', '.join(key.values())}) to"
            f" ({', '.join(key)}) of table {table.name} that is valid and not"
            " deferrable: a row could be without the one that it belongs to.",
            next="add one by AddForeignKey first.",
        )
    if child.owner != table.owner:
        raise Refused(
            f"Table {table.name} belongs to {table.owner}, table {child.name} to"
            f" {child.owner}: a trigger with the rights of one could not write the"
            " other.",
            next="give both to one owner first.",
        )
