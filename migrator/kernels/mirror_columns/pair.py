"""Two shapes of the same data, one made from the other by an expression.

`up` makes the new side from the old one, `down` the old side from the new one.
They may lose detail: a row is in step where new = up(old) *or* old = down(new),
so that the side with more detail is never overwritten by its own echo. Trigger,
backfill, verification and repair share this one condition. Where both sides are NULL,
`down` would say of every row that the new side need not be made: the backfill, and the
trigger of an INSERT, ask `up` there.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, LiteralString

from psycopg import sql

from migrator import names
from migrator.facts import Facts
from migrator.kernels.column_definition import granted_on_parts, looks
from migrator.kernels.direct import catalogue_step, has_columns
from migrator.kernels.indexes import (
    copy_indexes,
    index_copy,
    index_looks,
    plain_indexes,
)
from migrator.kernels.mirror_columns.base import (
    NO_COUNTERPART,
    SETTINGS,
    Mirror,
    new_value,
    old_value,
)
from migrator.kernels.mirror_columns.carried import Carried, found, none_came
from migrator.kernels.mirror_columns.marks import Marks
from migrator.kernels.mirror_columns.side import Side, read_as
from migrator.kernels.not_null import not_null_again, not_null_by_check, set_not_null
from migrator.kernels.row_types import compiled_anew
from migrator.kernels.rows import Update
from migrator.plan import (
    Step,
    Steps,
    Transaction,
    expression,
    missing,
    present,
    render,
    type_name,
)


def _joined(word: LiteralString, parts: Iterable[sql.Composable]) -> sql.Composable:
    return sql.SQL(f" {word} ").join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair(Mirror):
    """
    Columns of the old release and columns of the new one, kept in step.

    Before retire, a value of the new release that has no old counterpart is
    refused by the server, as its type or NOT NULL would; a value of the old
    release that has no new counterpart is stored, with NULL on the new side,
    and holds the change at its backfill or verification. After retire nothing
    is refused: the retired side becomes NULL and the row is marked.
    """

    old: tuple[Side, ...]
    new: tuple[Side, ...]

    settings: ClassVar[tuple[LiteralString, ...]] = SETTINGS

    # -- the condition ---------------------------------------------------

    def _in_step(self, sides: tuple[Side, ...]) -> sql.Composable:
        """Return the condition that a side is what its expressions make."""
        return _joined(
            "AND",
            (
                sql.SQL("NOT ({})").format(
                    s.differs(
                        sql.Identifier(s.name),
                        sql.SQL("{}::{}").format(
                            self._value(s), type_name(s.compared_as)
                        ),
                    )
                )
                for s in sides
            ),
        )

    @property
    def _may_be_empty(self) -> bool:
        return not any(s.not_null for s in self.old)

    def _empty(self, value: Callable[[str], sql.Composable]) -> sql.Composable:
        """Return the condition that nothing is on either side."""
        return _joined("AND", (missing(value(s.name)) for s in (*self.old, *self.new)))

    def rows(self) -> sql.Composable:
        """Return the condition of rows that satisfy neither direction."""
        # CASE keeps the order: up need not be defined for a value that the new
        # release chose, once down says that it is in step.
        apart = sql.SQL("CASE WHEN {} THEN false ELSE NOT ({}) END").format(
            self._in_step(self.old), self._in_step(self.new)
        )
        # Held here, and not by the proof of NOT NULL in mid-retire.
        nulls = (missing(sql.Identifier(s.name)) for s in self.new if s.not_null)
        return _joined("OR", (apart, *nulls))

    def unmade(self) -> Update:
        """Return the backfill's: of NULL on both sides `up` is asked alone."""
        if not self._may_be_empty:
            return self.repair()
        rows = sql.SQL("CASE WHEN {} THEN NOT ({}) ELSE {} END").format(
            self._empty(sql.Identifier), self._in_step(self.new), self.rows()
        )
        return replace(self.repair(), rows=rows)

    def _value(self, side: Side) -> sql.Composable:
        """Return what makes a column, from those of the row in the window."""
        other = self.new if side in self.old else ()
        known = {s.takes: sql.Identifier(s.name) for s in other if s.takes}
        return read_as(side.value, known, self.table)

    # -- the trigger -----------------------------------------------------

    def _declared(self, sides: tuple[Side, ...]) -> sql.Composable:
        return sql.SQL("").join(
            sql.SQL("  {} {};\n").format(_variable(s), type_name(s.type)) for s in sides
        )

    def _made(self, sides: tuple[Side, ...], *also: sql.Composable) -> sql.Composable:
        """Return the statements that make a side from the row, and more columns."""
        # The row as a sub-select under the table's own name: expressions name
        # columns as in a query, and no text is edited. An assignment raises where
        # a value does not fit, instead of cutting it; and where INTO would take a
        # row as values for a composite variable's fields, it assigns the row.
        row = sql.SQL(", ").join((sql.SQL("NEW.*"), *also))
        return sql.SQL(" ").join(
            sql.SQL("{} := (SELECT {} FROM (SELECT {}) AS {});").format(
                _variable(s), self._value(s), row, sql.Identifier(self.table.name)
            )
            for s in sides
        )

    def _stored(self, sides: tuple[Side, ...], *, retired: bool) -> sql.Composable:
        return sql.SQL(" ").join(
            sql.SQL("{} := {};").format(
                new_value(s.retired if retired else s.name), _variable(s)
            )
            for s in sides
        )

    def _same(self, sides: tuple[Side, ...]) -> sql.Composable:
        return _joined(
            "AND",
            (
                sql.SQL("NOT ({})").format(s.differs(new_value(s.name), _variable(s)))
                for s in sides
            ),
        )

    def _written(self) -> sql.Composable:
        """Return the condition that an update changed the new side."""
        return _joined(
            "OR", (s.differs(new_value(s.name), old_value(s.name)) for s in self.new)
        )

    def _on_in_window(self) -> tuple[sql.Composable, ...]:
        old_decides = self._same(self.old)
        if self._may_be_empty:
            old_decides += sql.SQL(" AND NOT (TG_OP = 'INSERT' AND {})").format(
                self._empty(new_value)
            )
        body = sql.SQL(
            """
#variable_conflict use_column
DECLARE
{declared}BEGIN
  IF (CASE TG_OP WHEN 'INSERT' THEN {given} ELSE {written} END) THEN
    BEGIN
      {made_new}
      IF {new_same} THEN
        RETURN NEW;
      END IF;
    EXCEPTION WHEN {no_counterpart} THEN
      NULL;
    END;
    {made_old}
    {store_old}
    RETURN NEW;
  END IF;
  BEGIN
    {made_old}
    IF {old_decides} THEN
      RETURN NEW;
    END IF;
  EXCEPTION WHEN {no_counterpart} THEN
    NULL;
  END;
  BEGIN
    {made_new}
  EXCEPTION WHEN {no_counterpart} THEN
    {no_new}
  END;
  {store_new}
  RETURN NEW;
END
"""
        ).format(
            declared=self._declared((*self.old, *self.new)),
            given=_joined(
                "OR",
                (present(new_value(s.name)) for s in self.new),
            ),
            written=self._written(),
            made_old=self._made(self.old),
            made_new=self._made(self.new),
            old_decides=old_decides,
            new_same=self._same(self.new),
            store_old=self._stored(self.old, retired=False),
            store_new=self._stored(self.new, retired=False),
            no_new=_none(self.new),
            no_counterpart=NO_COUNTERPART,
        )
        return self.create(body, None)

    @property
    def _marks(self) -> Marks:
        return Marks(table=self.table, tag=self.tag)

    def _on_after_retire(self) -> tuple[sql.Composable, ...]:
        return replace(
            self, new=tuple(replace(s, name=s.final, takes=None) for s in self.new)
        )._on_final_names()

    def _made_of_retired(self) -> sql.Composable:
        """Return the statements that make the new side from the retired one."""
        given = {s.name: new_value(s.retired) for s in self.old}
        if given.keys().isdisjoint(s.name for s in self.new):
            return self._made(
                self.new,
                *(
                    sql.SQL("{} AS {}").format(value, sql.Identifier(name))
                    for name, value in given.items()
                ),
            )
        # The row has a column of that name, which is another one.
        return self._made(
            tuple(
                replace(s, value=render(read_as(s.value, given, self.table)))
                for s in self.new
            )
        )

    def _on_final_names(self) -> tuple[sql.Composable, ...]:
        lacking = [missing(_variable(s)) for s in self.old if s.not_null]
        complete = [
            sql.SQL("NOT {}").format(missing(new_value(s.retired)))
            for s in self.old
            if s.not_null
        ]
        # A row that moves to another partition comes there as an INSERT that has
        # its old side; where that makes the new one, it may hold more than the new
        # one does. `up` reads the old columns by their old names.
        body = sql.SQL(
            """
#variable_conflict use_column
DECLARE
{declared}BEGIN
  IF TG_OP = 'INSERT' AND {complete} THEN
    BEGIN
      {made_new}
      IF {new_same} THEN
        RETURN NEW;
      END IF;
    EXCEPTION WHEN {no_counterpart} OR ambiguous_column THEN
      NULL;
    END;
  END IF;
  IF (CASE TG_OP WHEN 'INSERT' THEN true ELSE {written} END) THEN
    {mark} := NULL;
    BEGIN
      {made_old}
      IF {lacking} THEN
        {mark} := true;
      END IF;
    EXCEPTION WHEN {no_counterpart} THEN
      {no_old}
      {mark} := true;
    END;
    {store_old}
  END IF;
  RETURN NEW;
END
"""
        ).format(
            declared=self._declared((*self.old, *self.new)),
            complete=_joined("AND", complete) if complete else sql.SQL("true"),
            made_new=self._made_of_retired(),
            new_same=self._same(self.new),
            written=self._written(),
            mark=new_value(self._marks.column),
            made_old=self._made(self.old),
            lacking=_joined("OR", lacking) if lacking else sql.SQL("false"),
            no_old=_none(self.old),
            store_old=self._stored(self.old, retired=True),
            no_counterpart=NO_COUNTERPART,
        )
        return self.create(body, None)

    # -- the steps -------------------------------------------------------

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
            for step in copy_indexes(facts, s.heir_of.name, s.name, unique=False)
        )

    def shown(self) -> tuple[str, ...]:
        """Return the columns of both sides."""
        return tuple(s.name for s in (*self.old, *self.new))

    def values(self) -> Mapping[str, sql.Composable]:
        """Return what makes the new side."""
        return {s.name: expression(s.value) for s in self.new}

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
        over = self._going_over(facts)
        also = tuple(t for c in over for t in c.also)
        retyped = any(s.takes for s in self.new)
        compiled = (compiled_anew(self.table),) if retyped else ()
        forward = catalogue_step(
            self.table,
            *self.remove(),
            *(c.freed() for c in over),
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
        came = tuple(none_came(self.table, s.name, over) for s in self.old)
        forward = replace(forward, refusals=came)
        back = catalogue_step(
            self.table,
            *self.remove(),
            *(c.freed() for c in over),
            *(self._rename(s.takes, s.name) for s in self.new if s.takes),
            *(self._rename(s.retired, s.name) for s in self.old),
            *(self._alter("ALTER COLUMN {} DROP DEFAULT", s.name) for s in given),
            *(self._alter("ALTER COLUMN {} DROP NOT NULL", s.name) for s in proven),
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
        back = replace(back, refusals=(marks.none(),), done=is_back)
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
                    *(a for c in over for a in c.before_back(is_back, marks.none())),
                    self.needs_on(back, why),
                    *proofs,
                    *(a for c in over for a in c.after_back()),
                ),
            ),
        )

    def _going_over(self, facts: Facts) -> tuple[Carried, ...]:
        """Return the constraints and unique indexes that heirs get at retire."""
        return tuple(
            one
            for s in self.new
            if s.heir_of is not None and s.keeps_constraints
            for one in found(facts.table, self.tag, s.heir_of, heir=s.name, type=s.type)
        )

    def _later_indexes(self, facts: Facts) -> Steps:
        """Return the builds of copies of indexes that came since the backfill."""
        there = {i.name for leaf in facts.table.leaves for i in leaf.indexes}
        came = [
            i.name
            for s in self.new
            if s.heir_of is not None and facts.table.column(s.name) is not None
            for leaf in facts.table.leaves
            for i in plain_indexes(leaf, s.heir_of.name)
            if index_copy(leaf, i, self.tag) not in there
        ]
        return self.copy_indexes(facts) if came else ()

    def drop(self, facts: Facts) -> Step:
        """Return the drop of the retired side, whose indexes leave their names."""
        gone = [*(s.retired for s in self.old), self._marks.column]
        heirs = [(s.heir_of, s.final) for s in self.new if s.heir_of is not None]
        indexes = (
            sql.SQL("ALTER INDEX IF EXISTS {} RENAME TO {}").format(
                sql.Identifier(leaf.name.schema, index_copy(leaf, index, self.tag)),
                sql.Identifier(index.name),
            )
            for column, _ in heirs
            for leaf in facts.table.leaves
            for index in plain_indexes(leaf, column.name)
        )
        remarks = (
            statement
            for column, _ in heirs
            for leaf in facts.table.leaves
            for index in plain_indexes(leaf, column.name)
            for statement in index_looks(leaf.name, index.name, index)
        )
        sequences = (
            sql.SQL("ALTER SEQUENCE {} OWNED BY {}.{}").format(
                type_name(sequence), self.table.identifier, sql.Identifier(name)
            )
            for column, name in heirs
            for sequence in column.sequences
        )
        # Those of unique indexes, in whose place others stand by now.
        copies = (
            sql.SQL("DROP INDEX IF EXISTS {}").format(
                sql.Identifier(leaf.name.schema, index_copy(leaf, index, self.tag))
            )
            for _, name in heirs
            for leaf in facts.table.leaves
            for index in plain_indexes(leaf, name)
            if index.unique
        )
        return Step(
            name="drop_retired_side",
            work=catalogue_step(
                self.table,
                *self.remove(),
                *sequences,
                *copies,
                *(self._alter("DROP COLUMN {}", name) for name in gone),
                *indexes,
                *remarks,
            ),
            no_reverse="the retired columns and their indexes are gone",
            loses=True,
        )


def _variable(side: Side) -> sql.Composable:
    # Made up, so that no expression names a column like it; of two sides that bear
    # one name, one after the other, each has its own.
    return sql.Identifier(f"migrator_{names.tag(side.retired)}")


def _none(sides: tuple[Side, ...]) -> sql.Composable:
    return sql.SQL(" ").join(sql.SQL("{} := NULL;").format(_variable(s)) for s in sides)
