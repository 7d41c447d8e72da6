"""Merge a table into the one that its rows belong to, one to one.

phase     statement                               lock on the table
expand    ADD COLUMN, the other table             ACCESS EXCLUSIVE, no scan
          dual-write triggers                     SHARE ROW EXCLUSIVE, no scan
backfill  UPDATE in chunks, the other table       ROW EXCLUSIVE, per chunk
          CREATE INDEX CONCURRENTLY, other table  SHARE UPDATE EXCLUSIVE
verify    both tables compared                    ACCESS SHARE
          RENAME TABLE, CREATE VIEW, triggers     ACCESS EXCLUSIVE on both, no scan
retire    DROP VIEW, DROP CONSTRAINT (a check)    ACCESS EXCLUSIVE on both, no scan
drop      DROP TABLE, triggers                    ACCESS EXCLUSIVE on both, no scan

Before the new release comes in, a view over the other table takes the place of this
one: so there is one place where both releases write the columns. Two tables that are
both written, each mirrored in the other, would let their requests deadlock. The table
itself follows out of sight until the drop.

Source: PostgreSQL manual, CREATE VIEW, Updatable Views; section 13.3.4 (deadlocks).
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import ClassVar

from migrator import names
from migrator.errors import Refused
from migrator.facts import Column, Facts, Table
from migrator.kernels import constraints, requirements
from migrator.kernels.mirror_table import Merge, require_pair
from migrator.pattern import Pattern
from migrator.plan import Footprint, Notice, Steps


@dataclass(frozen=True, slots=True)
class MergeTables(Pattern):
    """
    Merge `table` into the table `into`, to whose rows its rows belong.

    Example:
        change = MergeTables("profiles", "users", ["bio", "age"], key={"user_id": "id"})

    Args:
        table: the table that goes, without its schema.
        into: the table that its columns go to, of the same schema; each row of `table`
            refers to one of it, no two to the same.
        move: the columns of `table`, but for the key; a mapping gives them other names
            there.
        key: the columns of `table` that refer to `into`, each with the one referred to.
        indexes: new names of indexes that go along, old to new.
        schema: the tables' schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    compares_before_drop: ClassVar[bool] = True

    table: str
    into: str
    move: Mapping[str, str] | Sequence[str]
    _: KW_ONLY
    key: Mapping[str, str]
    indexes: Mapping[str, str] = field(default_factory=dict[str, str])
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return f'merge table "{self.table}" into "{self.into}"'

    @property
    def _columns(self) -> Mapping[str, str]:
        move = self.move
        return move if isinstance(move, Mapping) else {name: name for name in move}

    def columns(self) -> None:
        """Return None: all of it."""
        return

    def footprints(self, facts: Facts) -> tuple[Footprint, ...]:
        """Return the table, and the columns of the other one."""
        there = frozenset({*self._columns.values(), *self.key.values()})
        into = Footprint(table=facts.others[0].name, columns=there)
        return (*Pattern.footprints(self, facts), into)

    def others(self, known: tuple[Table, ...]) -> tuple[tuple[str, str | None], ...]:
        """Return the table that it goes into."""
        return ((self.into, known[0].name.schema),)

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse tables whose rows do not belong together, and what cannot go along."""
        constraints.require_lists(
            self.title, {"move": list(self._columns), "key": list(self.key)}
        )
        into = facts.of(facts.others[0])
        for one in (facts, into):
            requirements.require_table(one)
            requirements.require_mirrored(one)
        pair = {there: here for here, there in self.key.items()}
        require_pair(into, facts.table, pair)
        self._check_keys(facts, into.table)
        for column, name in self._columns.items():
            names.checked(name, "column")
            requirements.require_free_column(into, name)
            self._check_column(facts, facts.table.require(column))
        self._check_whole(facts)
        self._check_used(facts)
        self._check_indexes(facts)
        return self.assure((*self._notices(facts), *self._trigger_notices(into)))

    def _check_keys(self, facts: Facts, into: Table) -> None:
        for here, there in self.key.items():
            mine, other = facts.table.require(here).type, into.require(there).type
            if mine != other:
                raise Refused(
                    f'Column "{here}" of table {facts.table.name} is of type {mine},'
                    f' column "{there}" of table {into.name} of type {other}.',
                    next="give both one type by a change of its own first.",
                )
        for c in self._merge(facts).references():
            # What follows the columns that it refers to.
            acts = c.definition.rpartition(")")[2]
            if "RESTRICT" in acts or " SET " in acts:
                raise Refused(
                    f'Foreign key "{c.name}" of table {facts.table.name} says'
                    f"{acts}: the new release could not delete a row of"
                    f' "{self.into}".',
                    next="make it ON DELETE CASCADE, or NO ACTION, by a change of its"
                    " own first.",
                )

    def _check_column(self, facts: Facts, column: Column) -> None:
        requirements.require_plain(facts, column)
        where = f'Column "{column.name}" of table {facts.table.name}'
        if column.base is not None:
            raise Refused(
                f"{where} is of domain {column.type}, whose default and checks would"
                f' hold for rows of "{self.into}" that have none.',
                next=f"change its type to {column.base} first.",
            )
        if column.name in self.key:
            raise Refused(
                f"{where} both goes and is in the key.", next="leave it out of `move`."
            )

    def _check_whole(self, facts: Facts) -> None:
        """Refuse columns that are left out, and what hangs on any."""
        table = facts.table
        for column in table.columns:
            where = f'Column "{column.name}" of table {table.name}'
            if column.name not in {*self._columns, *self.key}:
                raise Refused(
                    f"{where} is neither in `move` nor in `key`: it would be lost.",
                    next="name it, or drop it by a change of its own first.",
                )
            requirements.require_droppable(facts, column)
            if requirements.COLUMN_GRANTS in column.dependents:
                raise Refused(
                    f"{where} has grants of its own.",
                    next="grant the whole table instead, and take these back.",
                )
        names_there = list(self._columns.values())
        for name in names_there:
            if names_there.count(name) > 1:
                raise Refused(
                    f'{self.title}: two columns would be named "{name}".',
                    next="give them different names in `move`.",
                )

    def _check_used(self, facts: Facts) -> None:
        table = facts.table
        own = {c.name for c in self._merge(facts).references()}
        for c in table.constraints:
            keyed = c.kind in ("p", "u") and {*c.columns} == {*self.key}
            if not (keyed or c.kind == "n" or c.name in own):
                raise Refused(
                    f'Constraint "{c.name}" of table {table.name} cannot go along.',
                    next="drop it by a change of its own first, and add it to"
                    f' "{self.into}" afterwards.',
                )
        used = [*table.dependents, *(f"publication {p}" for p in table.publications)]
        if used:
            raise Refused(
                f"Table {table.name} is used by {'; '.join(used)}.",
                next="drop what depends on it first, and make it again over"
                f' "{self.into}" afterwards.',
            )
        for t in requirements.triggers(table):
            raise Refused(
                f'Table {table.name} has a trigger "{t.name}", which a view would not'
                " fire.",
                next=f'drop it first, or let a trigger of "{self.into}" do its work.',
            )

    def _check_indexes(self, facts: Facts) -> None:
        table = facts.table
        going = [i.name for i in self._merge(facts).carried()]
        for i in table.indexes:
            if i.unique and i.name not in going and {*i.columns} != {*self.key}:
                raise Refused(
                    f'Unique index "{i.name}" of table {table.name} cannot go along.',
                    next="drop it by a change of its own first, and create it on"
                    f' "{self.into}" afterwards.',
                )
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
                    f'The name "{new}" is taken in schema "{table.name.schema}".',
                    next="choose another name for the index.",
                )

    def _notices(self, facts: Facts) -> tuple[Notice, ...]:
        merge = self._merge(facts)
        keys = ", ".join(self.key)
        needed = ", ".join(merge.required)
        going = [i.name for i in merge.carried()]
        return (
            Notice(
                text=f'From verify until retire "{self.table}" is a view: INSERT … ON'
                " CONFLICT, MERGE, COPY … TO, TRUNCATE, and an UPDATE that sets"
                f" {keys}, fail on it. Until retire no request of the old release may"
                " do so.",
                needs_assurance=True,
            ),
            Notice(
                text=f'A row of "{self.into}" has one of "{self.table}" where it has'
                f" {needed}. Until retire the new release is refused what writes other"
                f" columns of it and not these."
                if needed
                else f'A row of "{self.into}" has one of "{self.table}" where it has a'
                " value in one of the columns, or the old release inserted one."
            ),
            Notice(
                text="Defaults and NOT NULL do not go along, since there are rows of"
                f' "{self.into}" without one of "{self.table}".'
            ),
            Notice(
                text=f'Rights to the columns are those to "{self.into}"; grants on'
                f' "{self.table}" hold for the old release until retire.'
            ),
            *(
                Notice(text=f'Index "{i.name}" goes with the table at the drop.')
                for i in facts.table.indexes
                if i.name not in going
            ),
        )

    def _trigger_notices(self, into: Facts) -> tuple[Notice, ...]:
        return requirements.backfill_notices(into, *self._columns.values())

    def expand(self, facts: Facts) -> Steps:
        """Return the columns of the other table, and their dual write."""
        return self._merge(facts).expand()

    def backfill(self, facts: Facts) -> Steps:
        """Return the copy of the values."""
        return self._merge(facts).backfill()

    def verify(self, facts: Facts) -> Steps:
        """Return the comparison of both tables, and the exchange for a view."""
        return self._merge(facts).verify()

    def retire(self, facts: Facts) -> Steps:
        """Return the drop of the view, out of the old release's sight."""
        return self._merge(facts).retire()

    def drop(self, facts: Facts) -> Steps:
        """Return the drop of the table."""
        return self._merge(facts).drop()

    def rebuild(self, facts: Facts) -> Steps:
        """Return the table, filled from the other one."""
        return self._merge(facts).rebuild()

    def _merge(self, facts: Facts) -> Merge:
        return Merge(
            facts=facts,
            into=facts.others[0],
            key=self.key,
            columns=self._columns,
            indexes=self.indexes,
        )
