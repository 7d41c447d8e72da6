"""Columns of a table that become rows of another one, which it refers to.

Two tables are written while both releases run (`Sharing`). The first never updates a
row of the second, so that a request on each side waits for the other only where both
are about the same combination of values.

Source: PostgreSQL manual, ALTER TABLE, Notes.
"""

from dataclasses import dataclass, replace

from psycopg import sql

from migrator import names
from migrator.facts import Column
from migrator.kernels import constraints, direct
from migrator.kernels.altered import altered
from migrator.kernels.chunking import unique_index
from migrator.kernels.column_definition import definition, granted, in_common
from migrator.kernels.mirror_table.extraction import Extraction, renamed
from migrator.kernels.mirror_table.sharing import Sharing
from migrator.kernels.not_null import not_null_by_check, set_not_null
from migrator.kernels.rows import comparisons, updates, writes
from migrator.plan import (
    Lock,
    Step,
    Steps,
    TableLock,
    Transaction,
    expression,
)

# The new table's row in statements: no table's name.
_ROW = sql.Identifier("_migrator_row")


@dataclass(frozen=True, slots=True, kw_only=True)
class Extract(Extraction):
    """
    A table, and what of it goes into the table that it is to refer to.

    Args:
        reference: the table's new column.
        given_index: the name of the index on it; None leaves it open.
    """

    reference: str
    given_index: str | None = None

    @property
    def foreign_key(self) -> str:
        """The foreign key's name."""
        return names.fitted(f"{self.table.name.name}_{self.reference}", "_fkey")

    @property
    def index(self) -> str:
        """The name of the index on the new column."""
        stem = f"{self.table.name.name}_{self.reference}"
        return self.given_index or names.fitted(stem, "_idx")

    def sharing(self, *, retired: bool = False) -> Sharing:
        """Return the dual write; `retired` as the columns' names are."""
        index = unique_index(self.facts)
        at = {c: self.retired(c) if retired else c for c in self.columns}
        return Sharing(
            table=self.table.name,
            into=self.into,
            tag=self.facts.tag,
            key=self.key,
            reference=self.reference,
            columns={at[c]: name for c, name in self.columns.items()},
            equal={at[c]: column.equal for c, column in self.moved().items()},
            order=tuple(k.name for k in index.keys) if index else ("ctid",),
            retired=retired,
            path=self.facts.path,
            owner=self.table.owner if self.facts.superuser else None,
        )

    @property
    def required(self) -> bool:
        """Whether each row has to refer to one of the new table."""
        return any(c.not_null for c in self.moved().values())

    def _granted(self) -> Column:
        """Return the reference: who may use all that goes may use it as well."""
        common = in_common([*self.moved().values()])
        return Column(name=self.reference, type="bigint", grants=common)

    # -- phases ----------------------------------------------------------

    def expand(self) -> Steps:
        """Return the new table, the column that refers to it, and the dual write."""
        table, parked = self.table.name, self.parked
        added = (
            sql.SQL("ALTER TABLE {} ADD COLUMN {} bigint").format(
                table.identifier, sql.Identifier(self.reference)
            ),
            sql.SQL(
                "ALTER TABLE {} ADD CONSTRAINT {} FOREIGN KEY ({}) REFERENCES {} ({})"
                " NOT VALID"
            ).format(
                table.identifier,
                sql.Identifier(self.foreign_key),
                sql.Identifier(self.reference),
                self.into.identifier,
                sql.Identifier(self.key),
            ),
        )
        undo = direct.catalogue_step(
            self.into,
            *self.sharing().off(0, 1),
            sql.SQL("ALTER TABLE {} DROP COLUMN {}").format(
                table.identifier, sql.Identifier(self.reference)
            ),
            renamed(self.into, parked),
            through=table,
        )
        gone = sql.SQL("DROP TABLE {}").format(parked.identifier)
        return (
            Step(
                name="add_table",
                work=replace(
                    direct.catalogue_step(
                        table,
                        self.path(),
                        *self.create(),
                        *added,
                        *granted(table, self.reference, self._granted()),
                        *self.sharing().on(),
                        also=(parked,) if self.comes_back else (),
                    ),
                    refusals=(altered(self.table),),
                ),
                reverse=(undo,),
                parked=direct.catalogue_step(parked, gone),
            ),
        )

    def backfill(self) -> Steps:
        """Return the references, then what is cheaper behind them."""
        reference = (self.reference,)
        validated = constraints.validated(self.table.name, self.foreign_key, self.into)
        return (
            *writes(
                self.facts,
                "fill_references",
                self.sharing().repair(),
                no_reverse="the references go with their column",
            ),
            *constraints.lookup(self.facts, reference, self.index),
            Step(
                name="validate_foreign_key",
                work=validated,
                no_reverse="the proof goes with the foreign key",
            ),
        )

    def verify(self) -> Steps:
        """Return the comparison of the columns with what the rows refer to."""
        return comparisons(
            self.facts,
            "compare_rows",
            self.sharing().apart(),
            shown=(*self.columns, self.reference),
            repair=self.sharing().repair(),
            no_reverse="nothing but rows out of step is changed",
        )

    def retire(self) -> Steps:
        """
        Return the renames of the columns that went: the old release is gone.

        The new table is locked against writers as well: one that was at work would
        carry its values to columns that have another name by then. Its trigger takes
        the table behind it, and so does this: else there is always one that this waits
        for, and that waits for this. Who writes the table only reads the new one, which
        passes this lock.
        """
        table = self.table.name
        check = names.owned("check", self.reference, self.facts.tag)
        required = self.required

        def exchanged(*, retired: bool) -> Transaction:
            pairs = [(c, self.retired(c)) for c in self.columns]
            optional = self.alter(
                sql.SQL("ALTER COLUMN {} DROP NOT NULL").format(
                    sql.Identifier(self.reference)
                )
            )
            proven = set_not_null(table, self.reference, check) if retired else ()
            return self.sharing().needs_on(
                direct.catalogue_step(
                    table,
                    *(
                        self.alter(
                            sql.SQL("RENAME COLUMN {} TO {}").format(
                                *map(sql.Identifier, pair if retired else pair[::-1])
                            )
                        )
                        for pair in pairs
                    ),
                    *((proven or (optional,)) if required else ()),
                    *self.sharing(retired=retired).define(),
                    beside=(
                        TableLock(
                            table=self.into, lock=Lock.SHARE_ROW_EXCLUSIVE, first=True
                        ),
                    ),
                )
            )

        return (
            *(not_null_by_check(table, self.reference, check)[:2] if required else ()),
            Step(
                name="rename_columns",
                work=exchanged(retired=True),
                reverse=(exchanged(retired=False),),
            ),
        )

    def drop(self) -> Steps:
        """Return the end of the dual write, then the drop of the columns."""
        why = "the columns are gone from the table, or no longer follow"
        return (
            Step(
                name="drop_trigger",
                work=self.sharing().needs_on(
                    direct.catalogue_step(self.into, *self.sharing().off(1))
                ),
                no_reverse=why,
                loses=True,
            ),
            Step(
                name="drop_columns",
                work=direct.catalogue_step(
                    self.table.name,
                    *self.sharing().off(0),
                    *(
                        sql.SQL("ALTER TABLE {} DROP COLUMN {}").format(
                            self.table.name.identifier,
                            sql.Identifier(self.retired(c)),
                        )
                        for c in self.columns
                    ),
                ),
                no_reverse=why,
                loses=True,
            ),
        )

    def rebuild(self) -> Steps:
        """Return the way back from the new table, where no release runs."""
        made = self.facts.made[self.into]
        table = self.table.name
        behind = sql.SQL("{}.{} = {}").format(
            _ROW,
            sql.Identifier(self.key),
            sql.Identifier(table.name, self.reference),
        )
        columns = {c: made.require(name) for c, name in self.columns.items()}
        why = "upgrade again"

        def alter(text: sql.SQL, column: sql.Composable) -> sql.Composable:
            return self.alter(text.format(column))

        return (
            Step(
                name="add_columns",
                work=direct.catalogue_step(
                    table,
                    self.path(),
                    *(
                        alter(
                            sql.SQL("ADD COLUMN {}"),
                            # A default would stand where nothing is referred to.
                            definition(
                                replace(column, not_null=False, default=None), c
                            ),
                        )
                        for c, column in columns.items()
                    ),
                ),
                no_reverse=why,
            ),
            *updates(
                self.facts,
                "fill_columns",
                {
                    c: sql.SQL("(SELECT {}.{} FROM {} AS {} WHERE {})").format(
                        _ROW,
                        sql.Identifier(name),
                        self.into.identifier,
                        _ROW,
                        behind,
                    )
                    for c, name in self.columns.items()
                },
                sql.SQL("{} IS NOT NULL").format(
                    sql.Identifier(table.name, self.reference)
                ),
                no_reverse=why,
            ),
            Step(
                name="drop_table",
                work=direct.catalogue_step(
                    table,
                    self.path(),
                    *(
                        alter(
                            sql.SQL("ALTER COLUMN {} SET DEFAULT "),
                            sql.Identifier(c),
                        )
                        + expression(column.default)
                        for c, column in columns.items()
                        if column.default is not None
                    ),
                    *(
                        alter(
                            sql.SQL("ALTER COLUMN {} SET NOT NULL"), sql.Identifier(c)
                        )
                        for c, column in columns.items()
                        if column.not_null
                    ),
                    alter(sql.SQL("DROP COLUMN {}"), sql.Identifier(self.reference)),
                    sql.SQL("DROP TABLE {}").format(self.into.identifier),
                    also=(self.into,),
                ),
                no_reverse=why,
                loses=True,
            ),
        )
