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
from migrator.kernels.mirror_columns.base import (
    NO_COUNTERPART,
    SETTINGS,
    Mirror,
    new_value,
    old_value,
)
from migrator.kernels.mirror_columns.marks import Marks
from migrator.kernels.mirror_columns.side import Side, read_as
from migrator.kernels.rows import Update
from migrator.plan import expression, missing, present, render, type_name


def _joined(word: LiteralString, parts: Iterable[sql.Composable]) -> sql.Composable:
    return sql.SQL(f" {word} ").join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapes(Mirror):
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

    def shown(self) -> tuple[str, ...]:
        """Return the columns of both sides."""
        return tuple(s.name for s in (*self.old, *self.new))

    def values(self) -> Mapping[str, sql.Composable]:
        """Return what makes the new side."""
        return {s.name: expression(s.value) for s in self.new}


def _variable(side: Side) -> sql.Composable:
    # Made up, so that no expression names a column like it; of two sides that bear
    # one name, one after the other, each has its own.
    return sql.Identifier(f"migrator_{names.tag(side.retired)}")


def _none(sides: tuple[Side, ...]) -> sql.Composable:
    return sql.SQL(" ").join(sql.SQL("{} := NULL;").format(_variable(s)) for s in sides)
