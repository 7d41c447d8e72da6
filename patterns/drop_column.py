"""Drop a column that the new release does not know.

phase     statement                           lock on the table
expand    SET DEFAULT, or DROP NOT NULL       ACCESS EXCLUSIVE, no scan
retire    RENAME COLUMN, out of sight         ACCESS EXCLUSIVE, no scan
drop      DROP CONSTRAINT, each foreign key   ACCESS EXCLUSIVE on both tables, no scan
          DROP COLUMN                         ACCESS EXCLUSIVE, no scan

Expand has a step only where an INSERT without the column would be refused. What
hangs on the column (indexes, checks, foreign keys, its default) goes along with
the renames and stays in force until the drop.

Source: PostgreSQL manual, ALTER TABLE, Notes.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Column, Facts, ForeignKey
from migrator.final import Final
from migrator.kernels import (
    along,
    direct,
    dropping,
    mentions,
    not_null,
    requirements,
    row_types,
    trials,
    trigger_arguments,
    unproved,
)
from migrator.pattern import Pattern
from migrator.plan import Notice, Probe, State, Step, Steps, expression, type_name


@dataclass(frozen=True, slots=True)
class DropColumn(Pattern):
    """
    Drop `column` of `table`.

    Example:
        change = DropColumn("users", "nickname")

    Args:
        table: the table's name, without its schema.
        column: the column, which the new release neither reads nor writes.
        fill: SQL expression without columns, for rows of the new release, where
            the column is NOT NULL without a default; it becomes the default.
        type: the column's type; only a downgrade after the drop needs it.
        schema: the table's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    table: str
    column: str
    _: KW_ONLY
    fill: str | None = None
    type: str | None = None
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return f'drop column "{self.column}" of table "{self.table}"'

    @property
    def admission(self) -> State:
        """From expanded: the new release reads nothing of it."""
        return State.EXPANDED

    def columns(self) -> frozenset[str]:
        """Return the column."""
        return frozenset({self.column})

    def final(self) -> Final:
        """Return that it is gone."""
        return Final(gone=(self.column,))

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse what depends on the column and would not go with it."""
        requirements.require_table(facts)
        column = facts.table.require(self.column)
        dropping.require_droppable(facts, column)
        dropping.require_no_identity(facts, column)
        if self.fill is not None and column.default is not None:
            raise Refused(
                f"{self.title}: it has a default already, {column.default}.",
                next="remove `fill`.",
            )
        if requirements.given_by_insert(column) and self.fill is None:
            # Going back proves it again; where inserts have a value, it stays as it is.
            unproved.require_not_null(facts, self.column)
            requirements.require_all_rows_visible(facts)
            way = 'give fill="…", or make another primary key first.'
            dropping.require_not_primary(facts, column, way)
        return self.assure(
            (
                *requirements.publication_notices(facts),
                *row_types.goes(facts),
                *dropping.goes_along(facts, column),
                *self._held_to(facts, column),
            )
        )

    def readings(self, facts: Facts) -> Mapping[str, Probe]:
        """Return the question which functions read the column."""
        return mentions.functions_that_read(facts.table.name, [self.column])

    def _held_to(self, facts: Facts, column: Column) -> tuple[Notice, ...]:
        """Return what the column still asks of releases that do not know it."""
        found: list[str] = []
        if requirements.given_by_insert(column) and self.fill is None:
            found.append(
                f'Column "{self.column}" is NOT NULL without a default. Expand lifts'
                " that for the new release, so that the old one may read NULL; with"
                ' fill="…" it would read a value, and NOT NULL would stay.'
            )
        found += [
            f'Unique index "{name}" goes with the column, and with it what it says of'
            " other columns; ON CONFLICT on it fails from retire on."
            for name in column.unique_indexes
        ]
        found += [
            f'Constraint "{name}" reads the column: rows of the new release are held'
            " to it until the drop."
            for name in column.checks
        ]
        found += [
            f'Foreign key "{key.name}" to table {key.to} stays in force until the drop:'
            " rows that the column refers to are not deleted past it."
            for key in self._foreign_keys(facts, self.column)
        ]
        return (
            *(Notice(text=text, needs_assurance=True) for text in found),
            *mentions.trigger_notices(facts, self.column),
            *mentions.function_notices(facts, [self.column]),
        )

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return the trial of the fill, or that the type takes NULL."""
        column = facts.table.require(self.column)
        if self.fill is not None:
            return (trials.default_gives_value(self.title, column, self.fill),)
        if column.default is None and not (column.generated or column.identity):
            return trials.takes_null(facts, self.column)
        return ()

    def expand(self, facts: Facts) -> Steps:
        """Return what lets the new release insert without the column."""
        column = facts.table.require(self.column)
        if self.fill is not None:
            return (direct.set_default(facts, column, self.fill),)
        if not requirements.given_by_insert(column):
            return ()
        check = names.owned("check", self.column, facts.tag)
        why = "from the new release"
        return (not_null.nullable(facts, self.column, check, why),)

    def retire(self, facts: Facts) -> Steps:
        """
        Return the rename out of sight.

        Raises:
            Refused: something came to read the column since.
        """
        dropping.require_unread(facts, self.column)
        table, retired = facts.table.name, self._retired(facts)
        step = Step(
            name="retire_column",
            work=direct.rename_column(table, self.column, retired),
            reverse=(direct.rename_column(table, retired, self.column),),
            along=along.made_again(facts, self.column, filled=self.fill is not None),
        )
        return trigger_arguments.held((step,), table, self.column, assured=self.assured)

    def drop(self, facts: Facts) -> Steps:
        """
        Return the drop of foreign keys one by one, then of the column.

        Raises:
            Refused: something came to read the column since.
        """
        dropping.require_unread(facts, self.column)
        table, retired = facts.table.name, self._retired(facts)
        held = retired if facts.table.column(retired) else self.column
        last = Step(
            name="drop_column",
            work=direct.catalogue_step(
                table,
                sql.SQL("ALTER TABLE {} DROP COLUMN {}").format(
                    table.identifier, sql.Identifier(retired)
                ),
            ),
            no_reverse="the column's values are gone",
            loses=True,
        )
        keys = enumerate(self._foreign_keys(facts, held), 1)
        steps = (
            *(direct.drop_foreign_key(k, f"drop_foreign_key_{n}") for n, k in keys),
            last,
        )
        return trigger_arguments.held(
            steps, table, self.column, late=True, assured=self.assured
        )

    def rebuild(self, facts: Facts) -> Steps:
        """Return an empty column of that type, or one that holds the fill.

        What went along with it, the ledger knows.
        """
        if self.type is None:
            raise Refused(
                f"{self.title}: the type of the dropped column is not known.",
                next="write type=… into the pattern.",
            )
        table, ident = facts.table.name, sql.Identifier(self.column)
        add = sql.SQL("ALTER TABLE {} ADD COLUMN {} {}").format(
            table.identifier, ident, type_name(self.type)
        )
        made: tuple[sql.Composable, ...] = (add,)
        if self.fill is not None:
            made = (
                add + sql.SQL(" NOT NULL DEFAULT ") + expression(self.fill),
                sql.SQL("ALTER TABLE {} ALTER COLUMN {} DROP DEFAULT").format(
                    table.identifier, ident
                ),
            )
        return (
            Step(
                name="add_column",
                work=direct.catalogue_step(table, *made),
                no_reverse="upgrade again",
            ),
        )

    def _retired(self, facts: Facts) -> str:
        return names.owned("retired", self.column, facts.tag)

    def _foreign_keys(self, facts: Facts, column: str) -> tuple[ForeignKey, ...]:
        members = {facts.table.name, *(p.name for p in facts.table.partitions)}
        return tuple(
            k
            for k in facts.table.foreign_keys
            if k.table in members and column in k.columns
        )
