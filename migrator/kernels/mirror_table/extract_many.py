"""An array of a table that becomes rows of a new one, linked to by a third.

Three tables are written while both releases run (`Links`). The array stays as it is,
with its order, until the drop; from retire on it follows the links alone.

Source: PostgreSQL manual, ALTER TABLE, Notes.
"""

from dataclasses import dataclass, replace

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Column
from migrator.kernels import direct, foreign_key
from migrator.kernels.altered import altered
from migrator.kernels.column_definition import definition, looks
from migrator.kernels.mirror_table.columns import KeyColumn
from migrator.kernels.mirror_table.extraction import Extraction, renamed
from migrator.kernels.mirror_table.facade import granted
from migrator.kernels.mirror_table.links import Links
from migrator.kernels.privileges import nothing_by_default
from migrator.kernels.rows import updates
from migrator.names import TableName
from migrator.plan import (
    Lock,
    Step,
    Steps,
    TableLock,
    Transaction,
    expression,
    render,
)

_EMPTY = "'{}'"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractMany(Extraction):
    """
    A table with an array, the table of its values, and the one that links both.

    Args:
        through: the table that links.
        referring: its columns that refer to the table, each with a column of the
            table's primary key.
        reference: its column that refers to the new table.
        given_index: the name of the index on it; None leaves it open.
    """

    through: TableName
    referring: tuple[tuple[str, str], ...]
    reference: str
    given_index: str | None = None

    # -- names -----------------------------------------------------------

    @property
    def array(self) -> str:
        """The array's name before retire."""
        return next(iter(self.columns))

    @property
    def value(self) -> str:
        """The column of the new table that holds a value."""
        return self.columns[self.array]

    @property
    def primary(self) -> str:
        """The name of the primary key of the table that links."""
        return names.fitted(self.through.name, "_pkey")

    @property
    def foreign_key(self) -> str:
        """The name of its foreign key to the table."""
        columns = "_".join(name for name, _ in self.referring)
        return names.fitted(f"{self.through.name}_{columns}", "_fkey")

    @property
    def index(self) -> str:
        """The name of its index on the reference."""
        stem = f"{self.through.name}_{self.reference}"
        return self.given_index or names.fitted(stem, "_idx")

    @property
    def parked_links(self) -> TableName:
        """The name of the table that links after a rollback."""
        stem = f"{names.tag(self.reference, *dict(self.referring))}_{self.through.name}"
        name = names.owned("parked", stem, self.facts.tag)
        return replace(self.through, name=name)

    @property
    def links_back(self) -> bool:
        """Whether a rollback parked the table that links."""
        return self.parked_links.name in self.facts.relation_names

    @property
    def column(self) -> Column:
        """The array, under the name that it has now."""
        return self.moved()[self.array]

    def new_columns(self) -> dict[str, Column]:
        """Return the column of the values: of the elements' type, and never NULL."""
        element = self.column.element
        if element is None:
            raise Refused(
                f'Column "{self.array}" of table {self.table.name} is no array: of'
                " several links, one value could keep one.",
                next="leave `through` out: rows refer to the new table then, by"
                " `reference`.",
            )
        return {
            self.value: Column(
                name=self.value,
                type=element,
                not_null=True,
                collation=self.column.collation,
                comment=self.column.comment,
            )
        }

    def links(self, *, retired: bool = False) -> Links:
        """Return the dual write; `retired` as the array's name is."""
        made = self.facts.made.get(self.into)
        values = made.require(self.value) if made else self.new_columns()[self.value]
        keys = ((name, self.table.require(column)) for name, column in self.referring)
        return Links(
            table=self.table.name,
            links=self.through,
            values=self.into,
            tag=self.facts.tag,
            key={
                name: KeyColumn(column=c.name, type=c.type, equal=c.equal)
                for name, c in keys
            },
            array=self.retired(self.array) if retired else self.array,
            element=values.type,
            reference=self.reference,
            number=self.key,
            value=self.value,
            foreign_key=self.foreign_key,
            retired=retired,
            path=self.facts.path,
            owner=self.table.owner if self.facts.superuser else None,
        )

    # -- phases ----------------------------------------------------------

    def expand(self) -> Steps:
        """
        Return both new tables and the dual write.

        An array that is NOT NULL has a default from then on, or the new release, which
        does not know it, could insert no row.
        """
        table, column = self.table.name, self.column
        links = self.links()
        here = (
            *((self.parked,) if self.comes_back else ()),
            *((self.parked_links,) if self.links_back else ()),
        )
        given = column.not_null and column.default is None
        undo = direct.catalogue_step(
            self.into,
            *links.off_array(),
            *links.off_links(),
            renamed(self.through, self.parked_links),
            renamed(self.into, self.parked),
            also=(self.through,),
            through=table,
        )
        gone = sql.SQL("DROP TABLE {}, {}").format(
            self.parked_links.identifier, self.parked.identifier
        )
        return (
            *((direct.set_default(self.facts, column, _EMPTY),) if given else ()),
            Step(
                name="add_tables",
                work=replace(
                    direct.catalogue_step(
                        table,
                        self.path(),
                        *self.create(),
                        *self._create_links(),
                        *links.on(),
                        lock=(
                            Lock.ACCESS_EXCLUSIVE if here else Lock.SHARE_ROW_EXCLUSIVE
                        ),
                        also=here,
                    ),
                    refusals=(altered(self.table),),
                ),
                reverse=(undo,),
                parked=direct.catalogue_step(
                    self.parked, gone, also=(self.parked_links,)
                ),
            ),
        )

    def _create_links(self) -> tuple[sql.Composable, ...]:
        """
        Return the table that links, empty.

        Arrays tell what was in one that a rollback parked, and may have changed since.
        The foreign key to the values comes behind the links, which it would check one
        by one; that to the table at retire: with it, TRUNCATE needs CASCADE.
        """
        table = self.through.identifier
        key = [(name, self.table.require(column)) for name, column in self.referring]
        reference = sql.Identifier(self.reference)
        parked = sql.SQL("DROP TABLE {}").format(self.parked_links.identifier)
        return (
            *((parked,) if self.links_back else ()),
            sql.SQL(
                "CREATE TABLE {} ({}, {} bigint NOT NULL, CONSTRAINT {} PRIMARY KEY"
                " ({}, {}))"
            ).format(
                table,
                sql.SQL(", ").join(
                    definition(replace(c, default=None, not_null=True), name)
                    for name, c in key
                ),
                reference,
                sql.Identifier(self.primary),
                sql.SQL(", ").join(sql.Identifier(name) for name, _ in key),
                reference,
            ),
            sql.SQL("CREATE INDEX {} ON {} ({})").format(
                sql.Identifier(self.index), table, reference
            ),
            *nothing_by_default(self.facts.default_grantees, self.through),
            *granted(self.through, self.table.owner, self.table.grants),
        )

    def backfill(self) -> Steps:
        """Return the links of the rows that are there, and their foreign key."""
        name = names.fitted(f"{self.through.name}_{self.reference}", "_fkey")
        columns = ((self.reference, self.key),)
        return (
            *self.links().fill(self.facts),
            *foreign_key.steps(
                "", self.through, name, _referring(columns, self.into), self.into
            ),
        )

    def verify(self) -> Steps:
        """Return the comparison of arrays and links, and the count of what is lost."""
        return self.links().verify(self.facts)

    def retire(self) -> Steps:
        """
        Return the foreign key, and the array's rename: the old release is gone.

        Who writes links or values would carry them to an array that has another name by
        then, so that those tables are locked as well: before the table, which their
        triggers lock behind them. Otherwise a request that has begun would wait for
        this, and this for it.
        """
        table, column = self.table.name, self.column
        retired = self.retired(self.array)
        rest = _EMPTY if column.not_null else None

        def exchanged(*, back: bool) -> Transaction:
            given, wanted = (retired, self.array) if back else (self.array, retired)
            default = column.default if back else rest
            links = self.links(retired=not back)
            order = (self.into, self.through, table)
            statements = (
                sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(
                    sql.SQL(", ").join(t.identifier for t in order)
                ),
                self.path(),
                self.alter(
                    sql.SQL("RENAME COLUMN {} TO {}").format(
                        sql.Identifier(given), sql.Identifier(wanted)
                    )
                ),
                self.alter(
                    sql.SQL("ALTER COLUMN {} {}").format(
                        sql.Identifier(wanted),
                        sql.SQL("DROP DEFAULT")
                        if default is None
                        else sql.SQL("SET DEFAULT ") + expression(default),
                    )
                ),
                *(links.on_array() if back else links.off_array()),
                *links.define(),
            )
            work = Transaction(
                statements=tuple(map(render, statements)),
                lock=Lock.ACCESS_EXCLUSIVE,
                table=table,
                also=tuple(
                    TableLock(table=t, lock=Lock.ACCESS_EXCLUSIVE) for t in order[:-1]
                ),
            )
            return self.links(retired=back).needs_on(work)

        return (
            *foreign_key.steps(
                "",
                self.through,
                self.foreign_key,
                _referring(self.referring, table),
                table,
            ),
            Step(
                name="rename_column",
                work=exchanged(back=False),
                reverse=(exchanged(back=True),),
            ),
        )

    def drop(self) -> Steps:
        """Return the end of the dual write, then the drop of the array."""
        why = "the array is gone from the table, or no longer follows"
        links = self.links(retired=True)
        return (
            Step(
                name="drop_triggers",
                work=links.needs_on(
                    direct.catalogue_step(
                        self.through, *links.off_links(), also=(self.into,)
                    )
                ),
                no_reverse=why,
                loses=True,
            ),
            Step(
                name="drop_column",
                work=direct.catalogue_step(
                    self.table.name,
                    self.alter(
                        sql.SQL("DROP COLUMN {}").format(
                            sql.Identifier(self.retired(self.array))
                        )
                    ),
                ),
                no_reverse=why,
                loses=True,
            ),
        )

    def rebuild(self) -> Steps:
        """Return the array, made of the links, where no release runs."""
        made = self.facts.made[self.into].require(self.value)
        column = replace(made, type=f"{made.type}[]", not_null=False, default=None)
        why = "upgrade again"
        return (
            Step(
                name="add_column",
                work=direct.catalogue_step(
                    self.table.name,
                    self.alter(
                        sql.SQL("ADD COLUMN {}").format(definition(column, self.array))
                    ),
                    *looks(self.table.name.identifier, self.array, column),
                ),
                no_reverse=why,
            ),
            *updates(
                self.facts,
                "fill_arrays",
                {self.array: self.links().elements()},
                sql.SQL("true"),
                no_reverse=why,
            ),
            Step(
                name="drop_tables",
                work=direct.catalogue_step(
                    self.table.name,
                    sql.SQL("DROP TABLE {}, {}").format(
                        self.through.identifier, self.into.identifier
                    ),
                    also=(self.through, self.into),
                ),
                no_reverse=why,
                loses=True,
            ),
        )


def _referring(
    columns: tuple[tuple[str, str], ...], table: TableName
) -> sql.Composable:
    """Return a foreign key of columns, each with the one of a table."""
    return sql.SQL(
        "FOREIGN KEY ({}) REFERENCES {} ({}) ON UPDATE CASCADE ON DELETE CASCADE"
    ).format(
        sql.SQL(", ").join(sql.Identifier(name) for name, _ in columns),
        table.identifier,
        sql.SQL(", ").join(sql.Identifier(column) for _, column in columns),
    )
