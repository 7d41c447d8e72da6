"""Move a column to the table whose rows belong to those of its own.

phase     statement                               lock on the table
expand    ADD COLUMN, triggers, the other table   ACCESS EXCLUSIVE, no scan
          dual-write triggers                     SHARE ROW EXCLUSIVE, no scan
backfill  UPDATE in chunks, the other table       ROW EXCLUSIVE, per chunk
          CREATE INDEX CONCURRENTLY, other table  SHARE UPDATE EXCLUSIVE
verify    both tables compared                    ACCESS SHARE
retire    RENAME COLUMN, functions swapped, both  ACCESS EXCLUSIVE, no scan
          ADD CHECK NOT VALID, the other table    ACCESS EXCLUSIVE, no scan
          VALIDATE CONSTRAINT, the other table    SHARE UPDATE EXCLUSIVE, full scan
          SET NOT NULL, the other table           ACCESS EXCLUSIVE, no scan (12+)
drop      DROP COLUMN, triggers of both           ACCESS EXCLUSIVE, no scan

Both releases write both tables by their own names, so that no view can stand for one
of them: each is mirrored in the other, row by row. A request takes the lock of its own
row before any trigger runs, and waits for the other's there. Two that write the column
of one row from either side in the same instant deadlock; the server ends one of them,
or another that waits for the row.
Triggers fire where the column's image changes, and write where the other side differs.

Source: PostgreSQL manual, sections 13.3.4 (deadlocks) and 39.1.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import ClassVar

from migrator import names
from migrator.errors import Refused
from migrator.facts import Column, Facts, Table
from migrator.kernels import (
    along,
    dropping,
    mentions,
    requirements,
    row_types,
    trigger_arguments,
)
from migrator.kernels.column_definition import constant_default
from migrator.kernels.mirror_table import Moved, require_pair
from migrator.pattern import Pattern
from migrator.plan import Footprint, Notice, Probe, Reach, Steps


@dataclass(frozen=True, slots=True)
class MoveColumn(Pattern):
    """
    Move `column` of `table` to the table `to`, whose rows belong to its rows.

    Example:
        change = MoveColumn(
            "users", "bio", to="profiles", key={"id": "user_id"}, assured="we retry"
        )

    Args:
        table: the table's name, without its schema.
        column: the column that goes.
        to: the table that it goes to, of the same schema; each of its rows refers to
            a row of `table`, no two to the same.
        key: the columns that `to` refers to, each with the one that refers to it.
        name: the column's name there; None means the same.
        indexes: new names of indexes that go along, old to new.
        schema: the tables' schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    compares_before_drop: ClassVar[bool] = True

    table: str
    column: str
    _: KW_ONLY
    to: str
    key: Mapping[str, str]
    name: str | None = None
    indexes: Mapping[str, str] = field(default_factory=dict[str, str])
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return f'move column "{self.column}" of table "{self.table}" to "{self.to}"'

    @property
    def _name(self) -> str:
        return self.name or self.column

    def columns(self) -> frozenset[str]:
        """Return the column, and the key."""
        return frozenset({self.column, *self.key})

    def beside(self) -> tuple[Reach, ...]:
        """Return the columns of the other table."""
        there = frozenset({self._name, *self.key.values()})
        return (Reach(table=self.to, schema=self.schema, columns=there),)

    def footprints(self, facts: Facts) -> tuple[Footprint, ...]:
        """Return the columns on both ends."""
        there = frozenset({self._name, *self.key.values()})
        child = Footprint(table=facts.others[0].name, columns=there)
        return (*Pattern.footprints(self, facts), child)

    def others(self, known: tuple[Table, ...]) -> tuple[tuple[str, str | None], ...]:
        """Return the table that it goes to."""
        return ((self.to, known[0].name.schema),)

    def readings(self, facts: Facts) -> Mapping[str, Probe]:
        """Return the question which functions read the column."""
        return mentions.functions_that_read(facts.known_as, [self.column])

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse tables whose rows do not belong together, and columns that cannot."""
        child = facts.of(facts.others[0])
        names.checked(self._name, "column")
        for one in (facts, child):
            requirements.require_table(one)
            requirements.require_mirrored(one)
        require_pair(facts, facts.others[0], self.key)
        requirements.require_free_column(child, self._name)
        column = facts.table.require(self.column)
        self._check_column(facts, column)
        going = [i.name for i in self._moved(facts).carried()]
        for index, new in self.indexes.items():
            names.checked(new, "index")
            if index not in going:
                known = ", ".join(going) or "none"
                raise Refused(
                    f'{self.title}: index "{index}" does not go along.',
                    next=f"correct `indexes`; there go {known}.",
                )
            if new in facts.relation_names:
                raise Refused(
                    f'The name "{new}" is taken in schema "{facts.table.name.schema}".',
                    next="choose another name for the index.",
                )
        return self.assure(
            (
                *requirements.publication_notices(facts),
                *requirements.publication_notices(child),
                *row_types.comes(child),
                *row_types.goes(facts),
                Notice(
                    text=f"Two requests that write the column of one row, one in"
                    f' "{self.table}" and one in "{self.to}", in the same instant may'
                    " deadlock: the server ends one, or another that waits for the row,"
                    " with an error (40P01); it has to be tried again. A transaction"
                    f' that writes "{self.to}" before "{self.table}" does so more'
                    " often.",
                    needs_assurance=True,
                ),
                Notice(
                    text=f'A row of "{self.table}" without one in "{self.to}" keeps its'
                    " value, which holds the change at verify, unless it is NULL or"
                    f' the default. So does what is left when a row of "{self.to}" is'
                    " deleted before retire; the next one takes that value."
                ),
                Notice(
                    text=f'A row of "{self.to}" that is inserted with NULL takes the'
                    f' value of "{self.table}" until retire.'
                ),
                *(
                    Notice(text=f'Index "{i.name}" goes with the column at the drop.')
                    for i in facts.table.indexes
                    if self.column in i.columns and i.name not in going
                ),
                *self._grant_notices(facts),
                *mentions.trigger_notices(facts, self.column),
                *mentions.function_notices(facts, [self.column]),
                *requirements.backfill_notices(child, self._name),
            )
        )

    def _grant_notices(self, facts: Facts) -> tuple[Notice, ...]:
        granted = facts.table.require(self.column).grants
        if not granted:
            return ()
        roles = ", ".join(dict.fromkeys(role for _, role, _ in granted))
        return (
            Notice(
                text="Privileges on the column go along. What else finds a row of"
                f' "{self.to}" ({", ".join(self.key.values())}) has to be granted to'
                f" {roles} by the new release.",
            ),
        )

    def _check_column(self, facts: Facts, column: Column) -> None:
        requirements.require_plain(facts, column)
        dropping.require_droppable(facts, column)
        dropping.require_no_identity(facts, column)
        where = f'Column "{column.name}" of table {facts.table.name}'
        if column.name in self.key:
            raise Refused(f"{where} is in the key.", next="move another column.")
        if column.base is not None:
            raise Refused(
                f"{where} is of domain {column.type}, whose default and checks would"
                " hold for a row that was not filled yet.",
                next=f"change its type to {column.base} first.",
            )
        for c in facts.table.constraints:
            if column.name in c.columns and c.kind != "n":
                raise Refused(
                    f'{where} is in constraint "{c.name}", which cannot go along.',
                    next="drop it by a change of its own first, and add it to"
                    f' "{self.to}" afterwards.',
                )
        if requirements.given_by_insert(column):
            raise Refused(
                f"{where} is NOT NULL and has no default: the new release inserts rows"
                " without it.",
                next="give it a default by a change of its own first, or lift its NOT"
                " NULL.",
            )

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return the trial that the default is the same in each row."""
        column = facts.table.require(self.column)
        if column.default is None:
            return ()
        return (constant_default(facts.table, column),)

    def expand(self, facts: Facts) -> Steps:
        """Return the column there, and the dual write on either side."""
        moved = self._moved(facts)
        return trigger_arguments.all_held_back(
            moved.expand(), moved.child.name, *moved.columns.values()
        )

    def backfill(self, facts: Facts) -> Steps:
        """Return the copy of the values."""
        return self._moved(facts).backfill()

    def verify(self, facts: Facts) -> Steps:
        """Return the comparison of both tables."""
        return self._moved(facts).verify()

    def retire(self, facts: Facts) -> Steps:
        """Return the rename of the column, out of the old release's sight."""
        dropping.require_unread(facts, self.column)
        steps, table = self._moved(facts).retire(), facts.table.name
        steps = along.kept(steps, facts, self.column)
        return trigger_arguments.held(steps, table, self.column, assured=self.assured)

    def drop(self, facts: Facts) -> Steps:
        """Return the drop of the column."""
        dropping.require_unread(facts, self.column)
        steps, table = self._moved(facts).drop(), facts.table.name
        return trigger_arguments.held(
            steps, table, self.column, late=True, assured=self.assured
        )

    def rebuild(self, facts: Facts) -> Steps:
        """Return the column, filled from the other table."""
        return self._moved(facts).rebuild()

    def _moved(self, facts: Facts) -> Moved:
        return Moved(
            facts=facts,
            child=facts.others[0],
            key=self.key,
            columns={self.column: self._name},
            indexes=self.indexes,
        )
