"""Dual write within a row: one column kept in step with others.

One BEFORE ROW trigger per change, on INSERT and UPDATE, enabled ALWAYS. It
fires on every row that is out of step, not only `UPDATE OF` the columns:
another trigger may change a column, and a row that moves to an earlier page
must not escape a backfill in physical order. A WHEN condition keeps rows that
are in step free of a function call.

Two kinds of mirror:

- `Twin`: two columns with the same values, written by either release (rename).
- `Fill`: one column filled from an expression where it is NULL, written by the
  new release only (a computed column, a fill before NOT NULL).

Source: PostgreSQL manual, sections 39.1 (order of triggers) and 41.10.
"""

from dataclasses import dataclass

from psycopg import sql

from migrator import names
from migrator.facts import Facts
from migrator.kernels.direct import catalogue_step
from migrator.names import TableName
from migrator.plan import (
    ChunkedCheck,
    ChunkedUpdate,
    Lock,
    Step,
    Transaction,
    expression,
    render,
    type_name,
)

# Both compare NULLs as values. The second compares images: `=` calls citext
# 'bob' and 'Bob', numeric 1.0 and 1.00 equal, and json has no `=` at all
# (manual, section 9.25.6, Composite Type Comparison).
_DISTINCT = sql.SQL("{} IS DISTINCT FROM {}")
_IMAGE_DISTINCT = sql.SQL(
    "ROW({})::pg_catalog.record OPERATOR(pg_catalog.*<>) ROW({})::pg_catalog.record"
)


def distinct(
    left: sql.Composable, right: sql.Composable, *, image_equal: bool
) -> sql.Composable:
    """
    Return the condition that two values differ in their image.

    Args:
        left: the one value.
        right: the other, of the same type.
        image_equal: whether `=` of the type compares images already.
    """
    form = _DISTINCT if image_equal else _IMAGE_DISTINCT
    return form.format(left, right)


def _new(column: str) -> sql.Composable:
    return sql.SQL("NEW.{}").format(sql.Identifier(column))


def _old(column: str) -> sql.Composable:
    return sql.SQL("OLD.{}").format(sql.Identifier(column))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """What both kinds share: a trigger on a table, owned by a change."""

    table: TableName
    tag: str

    @property
    def trigger(self) -> sql.Identifier:
        """The trigger's name."""
        return sql.Identifier(names.trigger(self.tag))

    def create(
        self, body: sql.Composable, when: sql.Composable | None
    ) -> tuple[sql.Composable, ...]:
        """Return the statements that put the dual write on."""
        function = names.function(self.tag)
        # A pinned search_path: the body means the same in every session.
        path = sql.SQL(", ").join(
            [sql.Identifier("pg_catalog"), sql.Identifier(self.table.schema)]
        )
        condition = sql.SQL(" WHEN ({})").format(when) if when else sql.SQL("")
        return (
            sql.SQL(
                "CREATE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql"
                " SET search_path = {}, pg_temp AS {}"
            ).format(function, path, sql.Literal(render(body))),
            sql.SQL(
                "CREATE TRIGGER {} BEFORE INSERT OR UPDATE ON {} FOR EACH ROW"
                "{} EXECUTE FUNCTION {}()"
            ).format(self.trigger, self.table.identifier, condition, function),
            sql.SQL("ALTER TABLE {} ENABLE ALWAYS TRIGGER {}").format(
                self.table.identifier, self.trigger
            ),
        )

    def remove(self) -> tuple[sql.Composable, ...]:
        """Return the statements that take the dual write off."""
        return (
            sql.SQL("DROP TRIGGER IF EXISTS {} ON {}").format(
                self.trigger, self.table.identifier
            ),
            sql.SQL("DROP FUNCTION IF EXISTS {}()").format(names.function(self.tag)),
        )

    def is_on(self) -> str:
        """Return the question whether the dual write is on, for every session."""
        return render(
            sql.SQL(
                "SELECT EXISTS (SELECT FROM pg_catalog.pg_trigger"
                " WHERE tgrelid = {}::pg_catalog.regclass AND tgname = {}"
                " AND tgenabled = 'A')"
            ).format(sql.Literal(str(self.table)), sql.Literal(names.trigger(self.tag)))
        )

    def needs_on(self, work: Transaction, why: str) -> Transaction:
        """Return the transaction, refused where the dual write is off."""
        question = self.is_on().removeprefix("SELECT ")
        return Transaction(
            statements=work.statements,
            lock=work.lock,
            table=work.table,
            refuse_if=f"SELECT CASE WHEN {question} THEN 0 ELSE 1 END",
            refuse_why=why,
        )

    def chunked(self, assignment: sql.Composable, rows: sql.Composable) -> str:
        """Return the statement that brings a chunk of blocks into step."""
        return render(
            sql.SQL(
                "UPDATE {} SET {} WHERE ctid >= $1::pg_catalog.tid"
                " AND ctid < $2::pg_catalog.tid AND ({})"
            ).format(self.table.identifier, assignment, rows)
        )

    def counted(self, rows: sql.Composable) -> str:
        """Return the question how many rows of a chunk are out of step."""
        return render(
            sql.SQL(
                "SELECT count(*) FROM {} WHERE ctid >= $1::pg_catalog.tid"
                " AND ctid < $2::pg_catalog.tid AND ({})"
            ).format(self.table.identifier, rows)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin(Mirror):
    """
    Two columns with the same values.

    The original column, with all that hangs on it (indexes, constraints,
    defaults, grants, comments), is never replaced: at retire the copy takes
    the retired name and the original takes the new one, in one transaction.
    """

    old: str
    new: str
    #: Type of both, with modifiers and collation.
    type: str
    collation: str | None
    image_equal: bool

    @classmethod
    def of(cls, facts: Facts, old: str, new: str) -> "Twin":
        """Return the mirror, whatever phase the facts are of."""
        # Before retire the original bears the old name, afterwards the new.
        column = facts.table.column(old) or facts.table.require(new)
        return cls(
            table=facts.table.name,
            tag=facts.tag,
            old=old,
            new=new,
            type=column.type,
            collation=column.collation,
            image_equal=column.image_equal,
        )

    @property
    def retired(self) -> str:
        """The copy's name after retire."""
        return names.owned("retired", self.old, self.tag)

    def _on_in_window(self) -> tuple[sql.Composable, ...]:
        """Return the statements for the window: either release may write."""
        body = sql.SQL(
            """
BEGIN
  IF TG_OP = 'INSERT' THEN
    IF {new} IS NULL THEN
      {new} := {old};
    ELSE
      {old} := {new};
    END IF;
  ELSIF {new_was_written} THEN
    {old} := {new};
  ELSE
    {new} := {old};
  END IF;
  RETURN NEW;
END
"""
        ).format(
            new=_new(self.new),
            old=_new(self.old),
            new_was_written=distinct(
                _new(self.new), _old(self.new), image_equal=self.image_equal
            ),
        )
        return self.create(body, self._out_of_step(self.old, self.new))

    def _on_after_retire(self) -> tuple[sql.Composable, ...]:
        """Return the statements for after retire: new side to retired copy."""
        body = sql.SQL("\nBEGIN\n  {} := {};\n  RETURN NEW;\nEND\n").format(
            _new(self.retired), _new(self.new)
        )
        return self.create(body, self._out_of_step(self.new, self.retired))

    def _out_of_step(self, left: str, right: str) -> sql.Composable:
        return distinct(_new(left), _new(right), image_equal=self.image_equal)

    def _rows(self) -> sql.Composable:
        return distinct(
            sql.Identifier(self.new),
            sql.Identifier(self.old),
            image_equal=self.image_equal,
        )

    def expand(self) -> Step:
        """Return the step that makes the copy and puts the dual write on."""
        collate = type_name(f" COLLATE {self.collation}" if self.collation else "")
        column = sql.Identifier(self.new)
        return Step(
            name="mirror_column",
            work=catalogue_step(
                self.table,
                sql.SQL("ALTER TABLE {} ADD COLUMN {} {}{}").format(
                    self.table.identifier, column, type_name(self.type), collate
                ),
                *self._on_in_window(),
            ),
            reverse=(
                catalogue_step(
                    self.table,
                    *self.remove(),
                    sql.SQL("ALTER TABLE {} DROP COLUMN IF EXISTS {}").format(
                        self.table.identifier, column
                    ),
                ),
            ),
        )

    def backfill(self) -> Step:
        """Return the chunked copy of existing rows."""
        return Step(
            name="copy_rows",
            work=ChunkedUpdate(
                statement=self.chunked(
                    sql.SQL("{} = {}").format(
                        sql.Identifier(self.new), sql.Identifier(self.old)
                    ),
                    self._rows(),
                ),
                table=self.table,
                guard=self.is_on(),
            ),
            no_reverse="the copied values go with the copy",
        )

    def verify(self) -> Step:
        """Return the comparison of both sides, with its repair."""
        fill = self.backfill().work
        assert isinstance(fill, ChunkedUpdate)
        return Step(
            name="compare_rows",
            work=ChunkedCheck(
                count=self.counted(self._rows()),
                repair=fill.statement,
                table=self.table,
                guard=self.is_on(),
            ),
            no_reverse="nothing but rows out of step is changed",
        )

    def _rename(self, given: str, wanted: str) -> sql.Composable:
        return sql.SQL("ALTER TABLE {} RENAME COLUMN {} TO {}").format(
            self.table.identifier, sql.Identifier(given), sql.Identifier(wanted)
        )

    def retire(self) -> Step:
        """Return the exchange of names, with the exchange back."""
        forward = catalogue_step(
            self.table,
            *self.remove(),
            self._rename(self.new, self.retired),
            self._rename(self.old, self.new),
            *self._on_after_retire(),
        )
        back = catalogue_step(
            self.table,
            *self.remove(),
            self._rename(self.new, self.old),
            self._rename(self.retired, self.new),
            *self._on_in_window(),
        )
        why = (
            f"the dual-write trigger on {self.table} is missing or not enabled"
            " ALWAYS, so that one side may have missed writes"
        )
        return Step(
            name="exchange_names",
            work=self.needs_on(forward, why),
            reverse=(self.needs_on(back, why),),
        )

    def drop(self) -> Step:
        """Return the drop of the retired copy."""
        return Step(
            name="drop_retired_column",
            work=catalogue_step(
                self.table,
                *self.remove(),
                sql.SQL("ALTER TABLE {} DROP COLUMN {}").format(
                    self.table.identifier, sql.Identifier(self.retired)
                ),
            ),
            no_reverse="the retired column and its indexes are gone",
            loses=True,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill(Mirror):
    """
    One column filled from an SQL expression over its row, where it is NULL.

    With `follow`, a value that came from the expression is computed again when
    the row changes; a value that a release chose itself stays.
    """

    column: str
    expression: str
    image_equal: bool
    type: str
    follow: bool = False

    def _value(self, record: str) -> sql.Composable:
        # The row as a sub-select under the table's own name: the expression
        # can name columns as it would in a query, and no text is edited.
        return sql.SQL("(SELECT {} FROM (SELECT {}.*) AS {})").format(
            expression(self.expression),
            sql.SQL("NEW") if record == "NEW" else sql.SQL("OLD"),
            sql.Identifier(self.table.name),
        )

    def on(self) -> tuple[sql.Composable, ...]:
        """Return the statements that put the fill on."""
        column = _new(self.column)
        fill = sql.SQL("  IF {c} IS NULL THEN\n    {c} := {v};\n  END IF;\n").format(
            c=column, v=self._value("NEW")
        )
        if not self.follow:
            body = sql.SQL(
                "\n#variable_conflict use_column\nBEGIN\n{}  RETURN NEW;\nEND\n"
            ).format(fill)
            return self.create(body, sql.SQL("{} IS NULL").format(column))
        body = sql.SQL(
            """
#variable_conflict use_column
DECLARE
  derived_before {type};
BEGIN
  IF TG_OP = 'UPDATE' AND {column} IS NOT NULL AND NOT ({written}) THEN
    derived_before := {before};
    IF NOT ({chosen}) THEN
      {column} := {value};
    END IF;
  END IF;
{fill}  RETURN NEW;
END
"""
        ).format(
            type=type_name(self.type),
            column=column,
            written=distinct(column, _old(self.column), image_equal=self.image_equal),
            before=self._value("OLD"),
            chosen=distinct(
                _old(self.column),
                sql.Identifier("derived_before"),
                image_equal=self.image_equal,
            ),
            value=self._value("NEW"),
            fill=fill,
        )
        return self.create(body, None)

    def _rows(self) -> sql.Composable:
        return sql.SQL("{} IS NULL AND {} IS NOT NULL").format(
            sql.Identifier(self.column), expression(self.expression)
        )

    def backfill(self, no_reverse: str) -> Step:
        """Return the chunked fill of existing rows."""
        return Step(
            name="fill_rows",
            work=ChunkedUpdate(
                statement=self.chunked(
                    sql.SQL("{} = {}").format(
                        sql.Identifier(self.column), expression(self.expression)
                    ),
                    self._rows(),
                ),
                table=self.table,
                guard=self.is_on(),
            ),
            no_reverse=no_reverse,
        )

    def verify(self) -> Step:
        """Return the count of rows that are still to be filled."""
        fill = self.backfill("-").work
        assert isinstance(fill, ChunkedUpdate)
        return Step(
            name="compare_rows",
            work=ChunkedCheck(
                count=self.counted(self._rows()),
                repair=fill.statement,
                table=self.table,
                guard=self.is_on(),
            ),
            no_reverse="nothing but rows out of step is changed",
        )

    def off(self, *before: sql.Composable) -> Transaction:
        """Return the transaction that takes the fill off."""
        return catalogue_step(self.table, *before, *self.remove())

    def back_on(self, *before: sql.Composable) -> Transaction:
        """Return the transaction that puts the fill on."""
        # ALTER … DROP NOT NULL needs ACCESS EXCLUSIVE; a trigger alone does not.
        lock = Lock.ACCESS_EXCLUSIVE if before else Lock.SHARE_ROW_EXCLUSIVE
        return catalogue_step(self.table, *before, *self.on(), lock=lock)
