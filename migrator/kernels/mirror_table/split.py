"""Columns of a table that become a table of their own.

While both releases run, and until the drop, there is one place where the columns are
written: the table. The new release sees them through a facade under the new table's
name, and a shadow follows, which takes the facade's place at the drop. So no request
of either release waits for the other side, going back loses nothing, and there is
nothing to bring back.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from psycopg import sql

from migrator import names
from migrator.facts import Column, Constraint, Facts, Index, Table
from migrator.kernels import (
    constraints,
    direct,
    foreign_key,
    indexes,
    not_null,
    requirements,
)
from migrator.kernels.altered import altered
from migrator.kernels.column_definition import carried, definition, looks
from migrator.kernels.column_definition import granted as column_granted
from migrator.kernels.mirror_table.columns import KeyColumn, Shown, Value, matched
from migrator.kernels.mirror_table.facade import Facade, granted, viewed
from migrator.kernels.mirror_table.shadow import Shadow, shadow_of
from migrator.kernels.privileges import nothing_by_default
from migrator.kernels.rows import updates
from migrator.names import TableName
from migrator.plan import (
    Lock,
    Step,
    Steps,
    TableLock,
    Transaction,
    present,
    render,
    type_name,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """
    A table, and what of it goes into a new one.

    Args:
        facts: of the table, in any phase.
        into: the new table.
        key: columns that name a row, each with its name in the new table.
        columns: columns that go, each with its name in the new table.
        indexes: new names of indexes that go along.
    """

    facts: Facts
    into: TableName
    key: Mapping[str, str]
    columns: Mapping[str, str]
    indexes: Mapping[str, str]

    # -- what it is made of ----------------------------------------------

    @property
    def table(self) -> Table:
        """The table that is split."""
        return self.facts.table

    @property
    def shadow_name(self) -> TableName:
        """The name of the new table until it takes its place."""
        return shadow_of(self.into, self.facts.tag)

    def retired(self, column: str) -> str:
        """Return the name of a column of the old release after retire."""
        return names.owned("retired", column, self.facts.tag)

    def _columns(self, *, retired: bool | None = None) -> dict[str, Column]:
        """
        Return the columns that go, by their names in the new table.

        Args:
            retired: whether under the names that they have after retire; None for
                those that they have now.
        """
        found: dict[str, Column] = {}
        for column, name in self.columns.items():
            now = self.table.column(self.retired(column)) or self.table.require(column)
            then = self.retired(column) if retired else column
            found[name] = now if retired is None else replace(now, name=then)
        return found

    def _key(self) -> dict[str, KeyColumn]:
        return {n: KeyColumn.of(self.table.require(c)) for c, n in self.key.items()}

    def _required(self) -> frozenset[str]:
        """Return columns of the new table without which it has no row."""
        made = self.facts.made.get(self.shadow_name)
        columns = self._columns() if made is None else {c.name: c for c in made.columns}
        return frozenset(
            name
            for name in self.columns.values()
            if requirements.given_by_insert(columns[name])
        )

    def _given(self, *, retired: bool | None) -> sql.Composable | None:
        """Return the condition of rows that have one in the new table; None for all."""
        found = [
            present(sql.Identifier(self.table.name.name, c.name))
            for name, c in self._columns(retired=retired).items()
            if name in self._required()
        ]
        return sql.SQL(" AND ").join(found) if found else None

    def shadow(self, *, retired: bool | None = None) -> Shadow:
        """Return the shadow; `retired` as the names of columns are."""
        return Shadow(
            source=self.table.name,
            target=self.shadow_name,
            tag=self.facts.tag,
            key=self._key(),
            values={
                name: Value(
                    expression=sql.Identifier(self.table.name.name, c.name),
                    type=c.type,
                )
                for name, c in self._columns(retired=retired).items()
            },
            rows=self._given(retired=retired),
            path=self.facts.path,
            owner=self.table.owner if self.facts.superuser else None,
        )

    def facade(self, *, retired: bool | None = None) -> Facade:
        """Return the facade; `retired` as the names of columns are."""
        return Facade(
            table=self.table.name,
            view=self.into,
            tag=self.facts.tag,
            key=self._key(),
            columns={
                name: Shown(column=c.name, type=c.type, rest=c.default)
                for name, c in self._columns(retired=retired).items()
            },
            rows=self._given(retired=retired),
            required=tuple(sorted(self._required())),
            path=self.facts.path,
            grants=viewed(self.table.grants),
            default_grantees=self.facts.default_grantees,
            owner=self.table.owner,
        )

    # -- phases ----------------------------------------------------------

    def expand(self) -> Steps:
        """Return the new table, its dual write, and the facade in its place."""
        name, shadow, facade = self.table.name, self.shadow(), self.facade()
        lifted = (
            not_null.nullable(
                self.facts,
                c.name,
                names.owned("check", c.name, self.facts.tag),
                "from the new release",
            )
            for c in self._columns().values()
            if requirements.given_by_insert(c)
        )
        # Defaults are read under the path under which they were written.
        path = sql.SQL("SET LOCAL search_path = {}").format(
            direct.pinned_path(self.facts.path, name.schema)
        )
        drop = sql.SQL("DROP TABLE IF EXISTS {}").format(self.shadow_name.identifier)
        return (
            *(
                replace(step, name=f"{step.name}_{number}")
                for number, step in enumerate(lifted, 1)
            ),
            Step(
                name="create_shadow",
                work=replace(
                    direct.catalogue_step(
                        name,
                        path,
                        *self._create(),
                        *shadow.on(),
                        lock=Lock.SHARE_ROW_EXCLUSIVE,
                    ),
                    refusals=(altered(self.table),),
                ),
                reverse=(direct.catalogue_step(name, *shadow.off(), drop),),
            ),
            Step(
                name="create_view",
                work=direct.catalogue_step(
                    name,
                    path,
                    *facade.create(),
                    *self._column_grants(),
                    lock=Lock.ACCESS_SHARE,
                ),
                # Whoever reads the view is in the way, and is named.
                reverse=(
                    Transaction(
                        statements=tuple(map(render, facade.remove())),
                        lock=Lock.ACCESS_EXCLUSIVE,
                        table=self.into,
                    ),
                ),
            ),
        )

    def backfill(self) -> Steps:
        """Return the copy of the rows, then what is cheaper behind them."""
        return (
            *self.shadow().copy(self.facts, name="copy_rows"),
            *self._indexes(),
            *self._foreign_keys(),
        )

    def verify(self) -> Steps:
        """Return the comparison of both tables."""
        shadow = self.shadow()
        target = self.facts.made.get(self.shadow_name, shadow.bare())
        return shadow.verify(self.facts, target)

    def retire(self) -> Steps:
        """
        Return the renames of the columns that went: the old release is gone.

        Before them comes the foreign key: with one, TRUNCATE needs CASCADE.
        """
        name = self.table.name

        def renamed(*, retired: bool) -> Transaction:
            shadow = self.shadow(retired=retired)
            return shadow.needs_on(
                direct.catalogue_step(
                    name,
                    *(
                        sql.SQL("ALTER TABLE {} RENAME COLUMN {} TO {}").format(
                            name.identifier,
                            *map(
                                sql.Identifier,
                                (c, self.retired(c))
                                if retired
                                else (self.retired(c), c),
                            ),
                        )
                        for c in self.columns
                    ),
                    *shadow.define(),
                    *self.facade(retired=retired).define(),
                )
            )

        return (
            *self._reference(),
            Step(
                name="rename_columns",
                work=renamed(retired=True),
                reverse=(renamed(retired=False),),
            ),
        )

    def drop(self) -> Steps:
        """Return the exchange of facade and shadow, and the drop of the columns."""
        table, shadow = self.table.name, self.shadow_name
        # A statement on the view locks it first, and the table behind it next.
        lock = sql.SQL("LOCK TABLE {}, {}, {} IN ACCESS EXCLUSIVE MODE").format(
            self.into.identifier, table.identifier, shadow.identifier
        )
        statements = (
            lock,
            *self.facade().remove(),
            *self.shadow().off(),
            *(
                sql.SQL("ALTER TABLE {} DROP COLUMN {}").format(
                    table.identifier, sql.Identifier(c.name)
                )
                for c in self._columns(retired=True).values()
            ),
            sql.SQL("ALTER TABLE {} RENAME TO {}").format(
                shadow.identifier, sql.Identifier(self.into.name)
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
            *granted(self.into, self.table.owner, viewed(self.table.grants)),
            *self._column_grants(),
        )
        exchange = Transaction(
            statements=tuple(map(render, statements)),
            lock=Lock.ACCESS_EXCLUSIVE,
            table=table,
            also=tuple(
                TableLock(table=t, lock=Lock.ACCESS_EXCLUSIVE)
                for t in (self.into, shadow)
            ),
            refusals=(self.facade().unused("makes way for the table"),),
        )
        return (
            Step(
                name="exchange_tables",
                work=self.shadow().needs_on(exchange),
                no_reverse="the columns are gone from the table",
                loses=True,
            ),
        )

    def rebuild(self) -> Steps:
        """Return the way back from the new table, where no release runs."""
        made = self.facts.made[self.into]
        table = self.table.name
        behind = matched(
            self.into.identifier,
            table.identifier,
            ((name, k.equal, k.column) for name, k in self._key().items()),
        )
        return (
            Step(
                name="add_columns",
                work=direct.catalogue_step(
                    table,
                    *(
                        sql.SQL("ALTER TABLE {} ADD COLUMN {}").format(
                            table.identifier,
                            definition(made.require(name), column),
                        )
                        for column, name in self.columns.items()
                    ),
                ),
                no_reverse="upgrade again",
            ),
            *updates(
                self.facts,
                "copy_rows_back",
                {
                    column: sql.SQL("(SELECT {} FROM {} WHERE {})").format(
                        sql.Identifier(*_path(self.into), name),
                        self.into.identifier,
                        behind,
                    )
                    for column, name in self.columns.items()
                },
                sql.SQL("EXISTS (SELECT FROM {} WHERE {})").format(
                    self.into.identifier, behind
                ),
                no_reverse="upgrade again",
            ),
            Step(
                name="drop_table",
                work=direct.catalogue_step(
                    self.into,
                    sql.SQL("DROP TABLE {}").format(self.into.identifier),
                    also=(table,),
                ),
                no_reverse="upgrade again",
                loses=True,
            ),
        )

    # -- parts -----------------------------------------------------------

    def _create(self) -> tuple[sql.Composable, ...]:
        """Return the new table, with what hangs on the columns."""
        table = self.shadow_name.identifier
        made = {
            name: replace(self.table.require(c), default=None)
            for c, name in self.key.items()
        } | self._columns()
        required = {
            name: not_null.elsewhere(self.table, c.name, self.into, name)
            for name, c in made.items()
        }
        columns = [
            definition(c, name, required=one.name if one else None)
            for name, c in made.items()
            for one in (required[name],)
        ]
        primary = sql.SQL("CONSTRAINT {} PRIMARY KEY ({})").format(
            sql.Identifier(names.fitted(self.into.name, "_pkey")),
            _list(self.key.values()),
        )
        checks = (
            sql.SQL("CONSTRAINT {} {}").format(
                sql.Identifier(c.name), type_name(c.definition)
            )
            for c in self._constraints("c")
        )
        return (
            sql.SQL("CREATE TABLE {} ({})").format(
                table, sql.SQL(", ").join((*columns, primary, *checks))
            ),
            *(
                statement
                for one in required.values()
                if one is not None
                for statement in constraints.comments(self.shadow_name, one)
            ),
            *(
                constraints.comment(self.shadow_name, c)
                for c in self._constraints("c")
                if c.comment is not None
            ),
            *nothing_by_default(self.facts.default_grantees, self.shadow_name),
            sql.SQL("ALTER TABLE {} OWNER TO {}").format(
                table, sql.Identifier(self.table.owner)
            ),
            *(
                statement
                for name, c in self._columns().items()
                for statement in looks(table, name, c)
            ),
        )

    def _column_grants(self) -> tuple[sql.Composable, ...]:
        """Return the privileges on single columns, also those on the key's."""
        keys = {name: self.table.require(c) for c, name in self.key.items()}
        return tuple(
            statement
            for name, column in (keys | self._columns()).items()
            for statement in column_granted(self.into, name, column)
        )

    def _constraints(self, kind: str) -> tuple[Constraint, ...]:
        """Return constraints of a kind whose columns all go."""
        gone = {*self.columns, *map(self.retired, self.columns)}
        return tuple(
            c
            for c in self.table.constraints
            if c.kind == kind and c.columns and gone.issuperset(c.columns)
        )

    def carried(self) -> tuple[Index, ...]:
        """Return the indexes that go along: those that a column that goes is in."""
        now = (c.name for c in self._columns().values())
        return carried(self.table, now, self.key)

    def _copy(self, index: Index) -> str:
        return names.owned("index", index.name, self.facts.tag)

    def _indexes(self) -> Steps:
        named = {c.name: name for name, c in self._columns().items()} | dict(self.key)
        target = self.shadow().bare()
        return tuple(
            indexes.build_like(
                f"copy_index_{number}", target, index, self._copy(index), named
            )
            for number, index in enumerate(self.carried(), 1)
        )

    def _reference(self) -> Steps:
        """Return the foreign key to the table."""
        text = sql.SQL(
            "FOREIGN KEY ({}) REFERENCES {} ({}) ON UPDATE CASCADE ON DELETE CASCADE"
        ).format(_list(self.key.values()), self.table.name.identifier, _list(self.key))
        first = next(iter(self.key.values()))
        name = names.fitted(f"{self.into.name}_{first}", "_fkey")
        return foreign_key.steps("", self.shadow_name, name, text, self.table.name)

    def _foreign_keys(self) -> Steps:
        """Return the foreign keys of columns that go."""
        return tuple(
            step
            for number, key in enumerate(self._constraints("f"), 1)
            for step in foreign_key.steps(
                f"_{number}",
                self.shadow_name,
                key.name,
                type_name(key.definition),
                key.references or self.table.name,
                comment=key.comment,
            )
        )


def _path(table: TableName) -> tuple[str, str]:
    return table.schema, table.name


def _list(columns: Iterable[str]) -> sql.Composable:
    return sql.SQL(", ").join(map(sql.Identifier, columns))
