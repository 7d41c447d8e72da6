"""The steps of two shapes: how the new one comes, and the old one goes."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import LiteralString

from psycopg import sql

from migrator import names
from migrator.facts import Facts
from migrator.kernels.came import none_came
from migrator.kernels.column_definition import granted_on_parts, looks
from migrator.kernels.constraints import counted
from migrator.kernels.direct import catalogue_step, has_columns
from migrator.kernels.index_copies import (
    copied,
    copies,
    copy_name,
    of_column,
)
from migrator.kernels.indexes import index_looks
from migrator.kernels.mirror_columns.carried import (
    Carried,
    CarriedIndex,
    leaving_nothing,
)
from migrator.kernels.mirror_columns.shapes import Shapes
from migrator.kernels.not_null import not_null_again, not_null_by_check, set_not_null
from migrator.kernels.row_types import compiled_anew
from migrator.plan import (
    Refusal,
    Step,
    Steps,
    Transaction,
    expression,
    present,
    type_name,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair(Shapes):
    """
    Columns of the old release and columns of the new one, from expand to drop.

    Args:
        over: what the old ones are held to until retire, by facts from before it.
    """

    over: tuple[Carried, ...] = ()

    def _rename(self, given: str, wanted: str) -> sql.Composable:
        return sql.SQL("ALTER TABLE {} RENAME COLUMN {} TO {}").format(
            self.table.identifier, sql.Identifier(given), sql.Identifier(wanted)
        )

    def _alter(self, text: LiteralString, column: str) -> sql.Composable:
        return sql.SQL("ALTER TABLE {} " + text).format(
            self.table.identifier, sql.Identifier(column)
        )

    def _parked_drop(self) -> Transaction:
        return catalogue_step(
            self.table,
            *(self._alter("DROP COLUMN IF EXISTS {}", s.retired) for s in self.new),
        )

    def expand(self, facts: Facts) -> Step:
        """Return the step that adds the new side and puts the dual write on."""
        make = [
            self._rename(s.retired, s.name)
            # What an earlier rollback parked comes back with its detail.
            if facts.table.column(s.retired) is not None
            else sql.SQL("ALTER TABLE {} ADD COLUMN {} {}").format(
                self.table.identifier, sql.Identifier(s.name), s.ddl
            )
            for s in self.new
        ]
        return Step(
            name="add_new_side",
            work=catalogue_step(
                self.table, *make, *self._inherited(facts), *self._on_in_window()
            ),
            reverse=(
                catalogue_step(
                    self.table,
                    *self.remove(),
                    *(self._rename(s.name, s.retired) for s in self.new),
                ),
            ),
            parked=self._parked_drop(),
        )

    def _inherited(self, facts: Facts) -> Iterable[sql.Composable]:
        """Return what new columns get at once; the rest would bind the old release."""
        for s in self.new:
            if s.heir_of is not None:
                yield from looks(self.table.identifier, s.name, s.heir_of)
                yield from granted_on_parts(facts.table, s.name, s.heir_of.name)
            else:
                yield from granted_on_parts(facts.table, s.name, *s.privileges_of)

    def copy_indexes(self, facts: Facts) -> Steps:
        """Return the builds of an heir's indexes, behind the rows: for HOT updates."""
        return tuple(
            step
            for s in self.new
            if s.heir_of is not None
            # Values of the old release may be apart where those made of them are not.
            for step in copied(facts, s.heir_of.name, s.name, unique=False)
        )

    def retire(self, facts: Facts) -> Steps:
        """
        Return the steps that take the old side out of sight, and back.

        The old side's NOT NULL is lifted; on the way back it is proven by a
        check first, so that no scan runs under a strong lock.
        """
        marks = self._marks
        why = (
            f"the dual-write trigger on {self.table} is missing or not enabled"
            " ALWAYS, so that one side may have missed writes"
        )
        strict = [s for s in self.old if s.not_null]
        checks = {s.name: names.owned("check", s.name, self.tag) for s in strict}
        proven = [s for s in self.new if s.not_null]
        given = [s for s in self.new if s.default is not None]
        for s in proven:
            checks[s.name] = names.owned("check", s.name, self.tag)
        over = self.over
        also = tuple(t for c in over for t in c.also)
        retyped = any(s.takes for s in self.new)
        compiled = (compiled_anew(self.table),) if retyped else ()
        forward = catalogue_step(
            self.table,
            *self.remove(),
            *(statement for c in over for statement in c.freed()),
            *(self._alter("ALTER COLUMN {} DROP NOT NULL", s.name) for s in strict),
            *(self._rename(s.name, s.retired) for s in self.old),
            *(self._rename(s.name, s.takes) for s in self.new if s.takes),
            # By now under its final name, of which the server makes others.
            *(
                statement
                for s in proven
                for statement in set_not_null(
                    self.table,
                    s.final,
                    checks[s.name],
                    facts.table.not_null(s.heir_of.name) if s.heir_of else None,
                )
            ),
            *(
                self._alter("ALTER COLUMN {} SET DEFAULT ", s.final)
                + expression(s.default or "NULL")
                for s in given
            ),
            *(statement for c in over for statement in c.exchanged()),
            *self._on_after_retire(),
            *compiled,
            also=also,
        )
        unproved = (refusal for c in over for refusal in c.unproved())
        forward = replace(forward, refusals=(self._came(facts), *unproved))
        back = catalogue_step(
            self.table,
            *self.remove(),
            *(statement for c in over for statement in c.freed_again()),
            *(self._rename(s.takes, s.name) for s in self.new if s.takes),
            *(self._rename(s.retired, s.name) for s in self.old),
            # Also what somebody gave it: the old release would be held to it.
            *(self._alter("ALTER COLUMN {} DROP DEFAULT", s.name) for s in self.new),
            *(self._alter("ALTER COLUMN {} DROP NOT NULL", s.name) for s in self.new),
            *self._on_in_window(),
            *(
                sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} CHECK ({}) NOT VALID").format(
                    self.table.identifier,
                    sql.Identifier(checks[s.name]),
                    present(sql.Identifier(s.name)),
                )
                for s in strict
            ),
            *(statement for c in over for statement in c.given_back()),
            *compiled,
            also=also,
        )
        is_back = has_columns(self.table, *(s.name for s in (*self.old, *self.new)))
        came = self._came_back()
        back = replace(back, refusals=(marks.none(), came), done=is_back)
        # Before anything is built, and once more under the lock.
        looked = [counted(self.table, came, done=is_back)] if over else []
        until_back = (
            *looked,
            *(a for c in over for a in c.before_back(is_back, marks.none())),
            self.needs_on(back, why),
        )
        proofs = tuple(
            action
            for s in strict
            for action in not_null_again(
                self.table, s.name, checks[s.name], facts.table.not_null(s.name)
            )
        )
        return (
            *self._later_indexes(facts),
            marks.add(facts.table),
            *map(marks.index, facts.table.leaves),
            *(
                step
                for s in proven
                for step in not_null_by_check(self.table, s.name, checks[s.name])[:2]
            ),
            *(step for c in over for step in c.prepared()),
            Step(
                name="exchange_shapes",
                work=self.needs_compared(self.needs_on(forward, why)),
                reverse=(
                    *(leaving_nothing(action, over) for action in until_back),
                    *proofs,
                    *(a for c in over for a in c.after_back()),
                ),
            ),
        )

    def _came(self, facts: Facts) -> Refusal:
        """Refuse the exchange behind what came onto the old side since."""
        parts = (facts.table, *facts.table.partitions)
        return none_came(
            self.table,
            [s.name for s in self.old],
            constraints=_constraints(self.over),
            indexes=_indexes(self.over),
            others=[i.name for part in parts for i in part.indexes],
            goes=True,
            nullable=[s.name for s in self.old if not s.not_null],
        )

    def _came_back(self) -> Refusal:
        """Refuse the way back behind what came onto the new side since."""
        kept = [c for c in self.over if c.kept]
        lifted = [c for c in self.over if not c.kept]
        copied = [c for c in lifted if isinstance(c, CarriedIndex) and c.forth]
        # Under a name of its own what a column is given is parked with it.
        gone = [s for s in self.new if s.takes is not None]
        return none_came(
            self.table,
            [s.final for s in self.new],
            constraints=_constraints(kept),
            indexes=_indexes(kept),
            plain=_indexes(copied),
            lifted=_constraints(lifted),
            bare=set(_indexes(lifted)).difference(_indexes(copied)),
            goes=bool(gone),
            nullable=[s.final for s in gone if not s.not_null],
        )

    def _later_indexes(self, facts: Facts) -> Steps:
        """Return the builds of copies of indexes that came since the backfill."""
        there = {i.name for leaf in facts.table.leaves for i in leaf.indexes}
        came = [
            i.name
            for s in self.new
            if s.heir_of is not None and facts.table.column(s.name) is not None
            for leaf in facts.table.leaves
            for i in of_column(leaf, s.heir_of.name, bare=s.bare_of_expressions)
            if copy_name(leaf, i, self.tag) not in there
        ]
        return self.copy_indexes(facts) if came else ()

    def drop(self, facts: Facts) -> Step:
        """Return the drop of the retired side, whose indexes leave their names."""
        gone = [*(s.retired for s in self.old), self._marks.column]
        heirs = [(s.heir_of, s.final) for s in self.new if s.heir_of is not None]
        freed = [
            found
            for s in self.new
            if s.heir_of is not None
            for found in copies(
                facts, s.heir_of.name, s.final, bare=s.bare_of_expressions
            )
        ]
        indexes = (
            sql.SQL("ALTER INDEX IF EXISTS {} RENAME TO {}").format(
                sql.Identifier(table.name.schema, copy), sql.Identifier(index.name)
            )
            for table, index, copy in freed
        )
        remarks = (
            statement
            for table, index, _ in freed
            for statement in index_looks(table.name, index.name, index)
        )
        sequences = (
            sql.SQL("ALTER SEQUENCE {} OWNED BY {}.{}").format(
                type_name(sequence), self.table.identifier, sql.Identifier(name)
            )
            for column, name in heirs
            for sequence in column.sequences
        )
        # Those of unique indexes, in whose place others stand by now.
        surplus = (
            sql.SQL("DROP INDEX IF EXISTS {}").format(
                sql.Identifier(leaf.name.schema, copy_name(leaf, index, self.tag))
            )
            for _, name in heirs
            for leaf in facts.table.leaves
            for index in of_column(leaf, name)
            if index.unique
        )
        return Step(
            name="drop_retired_side",
            work=catalogue_step(
                self.table,
                *self.remove(),
                *sequences,
                *surplus,
                *(self._alter("DROP COLUMN {}", name) for name in gone),
                *indexes,
                *remarks,
            ),
            no_reverse="the retired columns and their indexes are gone",
            loses=True,
        )


def _constraints(over: Iterable[Carried]) -> list[str]:
    """Return the names of constraints, keys and parts on partitions among them."""
    found = (c for c in over if not isinstance(c, CarriedIndex) or c.key)
    return [name for c in found for name in sorted(c.names)]


def _indexes(over: Iterable[Carried]) -> list[str]:
    """Return the names of indexes, those of keys among them."""
    return [c.name for c in over if isinstance(c, CarriedIndex)]
