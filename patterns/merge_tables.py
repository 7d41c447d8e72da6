"""Merge a table into the one that its rows belong to, one to one.

phase     statement                               lock on the table
expand    ADD COLUMN, the other table             ACCESS EXCLUSIVE, no scan
          dual-write triggers                     SHARE ROW EXCLUSIVE, no scan
backfill  UPDATE in chunks, the other table       ROW EXCLUSIVE, per chunk
          CREATE INDEX CONCURRENTLY, other table  SHARE UPDATE EXCLUSIVE
verify    both tables compared                    ACCESS SHARE
          RENAME TABLE, CREATE VIEW, triggers     ACCESS EXCLUSIVE on both, no scan
retire    DROP VIEW, DROP CONSTRAINT (a check)    ACCESS EXCLUSIVE on both, no scan
          ADD CONSTRAINT … NOT VALID              ACCESS EXCLUSIVE, no scan
          VALIDATE CONSTRAINT                     SHARE UPDATE EXCLUSIVE, full scan
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

from migrator.facts import Facts, Table
from migrator.kernels import (
    constraints,
    mentions,
    requirements,
    row_types,
    trigger_arguments,
)
from migrator.kernels.mirror_table import (
    Merge,
    require_mergeable,
    require_pair,
    require_still_mergeable,
)
from migrator.pattern import Pattern
from migrator.plan import Footprint, Notice, Probe, Reach, Steps


@dataclass(frozen=True, slots=True)
class MergeTables(Pattern):
    """
    Merge `table` into the table `into`, to whose rows its rows belong.

    Example:
        change = MergeTables(
            "profiles",
            "users",
            ["bio", "age"],
            key={"user_id": "id"},
            assured="no upsert into profiles",
        )

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

    def beside(self) -> tuple[Reach, ...]:
        """Return the columns of the other table."""
        there = frozenset({*self._columns.values(), *self.key.values()})
        return (Reach(table=self.into, schema=self.schema, columns=there),)

    def footprints(self, facts: Facts) -> tuple[Footprint, ...]:
        """Return the table, and the columns of the other one."""
        there = frozenset({*self._columns.values(), *self.key.values()})
        into = Footprint(table=facts.others[0].name, columns=there)
        return (*Pattern.footprints(self, facts), into)

    def others(self, known: tuple[Table, ...]) -> tuple[tuple[str, str | None], ...]:
        """Return the table that it goes into."""
        return ((self.into, known[0].name.schema),)

    def readings(self, facts: Facts) -> Mapping[str, Probe]:
        """Return the question which functions read the table that goes."""
        return mentions.functions_that_read(facts.known_as)

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
        require_mergeable(self._merge(facts), self.title)
        notices = requirements.backfill_notices(into, *self._columns.values())
        notices += mentions.function_notices(facts)
        notices += (*requirements.publication_notices(into), *row_types.comes(into))
        return self.assure((*self._notices(facts), *notices))

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
                else f'A row of "{self.into}" has one of "{self.table}" where it ever'
                " had a value in one of the columns, or the old release inserted one,"
                " until that one deletes it."
            ),
            Notice(
                text="Defaults and NOT NULL do not go along, since there are rows of"
                f' "{self.into}" without one of "{self.table}".'
            ),
            *(
                Notice(
                    text=f'"{here}" looks as "{there}" of "{self.into}" does from'
                    " verify on, where the two are equal and look different."
                )
                for here, there in self.key.items()
                if not facts.table.require(here).image_equal
            ),
            Notice(
                text=f'Rights to the columns are those to "{self.into}"; grants on'
                f' "{self.table}" hold for the old release until retire.'
            ),
            *(
                [
                    Notice(
                        text="Privileges on columns go along, but for those on the key:"
                        f' what finds a row of "{self.into}" has to be granted by the'
                        " new release."
                    )
                ]
                if any(c.grants for c in facts.table.columns)
                else ()
            ),
            *(
                Notice(text=f'Index "{i.name}" goes with the table at the drop.')
                for i in facts.table.indexes
                if i.name not in going
            ),
        )

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return the trials that checks hold for rows that have nothing."""
        return self._merge(facts).probes()

    def expand(self, facts: Facts) -> Steps:
        """Return the columns of the other table, and their dual write."""
        merge = self._merge(facts)
        return trigger_arguments.all_held_back(
            merge.expand(), merge.into.name, *merge.columns.values()
        )

    def backfill(self, facts: Facts) -> Steps:
        """Return the copy of the values."""
        return self._merge(facts).backfill()

    def verify(self, facts: Facts) -> Steps:
        """Return the comparison of both tables, and the exchange for a view."""
        require_still_mergeable(self._merge(facts), self.title)
        return self._merge(facts).verify()

    def retire(self, facts: Facts) -> Steps:
        """Return the drop of the view, out of the old release's sight."""
        require_still_mergeable(self._merge(facts), self.title)
        return self._merge(facts).retire()

    def drop(self, facts: Facts) -> Steps:
        """Return the drop of the table."""
        require_still_mergeable(self._merge(facts), self.title)
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
