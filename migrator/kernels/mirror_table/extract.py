"""Columns of a table that become rows of another one, which it refers to.

Two tables are written while both releases run. A BEFORE trigger of the first finds or
creates the row that its columns tell, or reads them from the row that it refers to; an
AFTER trigger of the second carries changed values to all rows that refer to it. The
first never updates a row of the second, so that a request on each side waits for the
other only where both are about the same combination of values.

Source: PostgreSQL manual, INSERT, ON CONFLICT Clause; sections 13.2.1 (each statement
of a function sees what was committed before it), 13.3.2 (FOR KEY SHARE) and 43.11.2
(plans that are made for the values).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from psycopg import sql

from migrator import names
from migrator.facts import Column, Facts, Table
from migrator.kernels import constraints, direct
from migrator.kernels.chunking import unique_index
from migrator.kernels.column_definition import definition, looks
from migrator.kernels.mirror_columns.base import distinct, new_value, old_value
from migrator.kernels.mirror_table.facade import granted
from migrator.kernels.not_null import not_null_by_check, set_not_null
from migrator.kernels.rows import Update, comparisons, updates, writes
from migrator.names import TableName
from migrator.plan import (
    Lock,
    Step,
    Steps,
    TableLock,
    Transaction,
    expression,
    render,
    type_name,
)

# The new table's row in statements: no table's name.
_ROW = sql.Identifier("_migrator_row")
# Its key in the function.
_ID = sql.Identifier("_migrator_id")
# A row that is found taken, and then is not there, was removed or changed meanwhile.
_TRIES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Extract:
    """
    A table, and what of it goes into the table that it is to refer to.

    Args:
        facts: of the table, in any phase.
        into: the new table.
        columns: columns that go, each with its name in the new table.
        key: the new table's key.
        reference: the table's new column.
        given_index: the name of the index on it; None leaves it open.
    """

    facts: Facts
    into: TableName
    columns: Mapping[str, str]
    key: str
    reference: str
    given_index: str | None = None

    # -- names -----------------------------------------------------------

    @property
    def table(self) -> Table:
        """The table that the columns go from."""
        return self.facts.table

    @property
    def parked(self) -> TableName:
        """The new table's name after a rollback: one for each definition."""
        made_by = names.tag(self.key, *(f"{a}\0{b}" for a, b in self.columns.items()))
        stem = f"{made_by}_{self.into.name}"
        return replace(self.into, name=names.owned("parked", stem, self.facts.tag))

    @property
    def foreign_key(self) -> str:
        """The foreign key's name."""
        return names.fitted(f"{self.table.name.name}_{self.reference}", "_fkey")

    @property
    def index(self) -> str:
        """The name of the index on the new column."""
        stem = f"{self.table.name.name}_{self.reference}"
        return self.given_index or names.fitted(stem, "_idx")

    @property
    def keys(self) -> tuple[str, str]:
        """The names of the new table's primary key and of its unique one."""
        name = self.into.name
        return names.fitted(name, "_pkey"), names.fitted(name, "_key")

    def retired(self, column: str) -> str:
        """Return the name of a column of the old release after retire."""
        return names.owned("retired", column, self.facts.tag)

    def moved(self) -> dict[str, Column]:
        """Return the columns that go, by their names before retire."""
        return {
            c: self.table.column(self.retired(c)) or self.table.require(c)
            for c in self.columns
        }

    @property
    def required(self) -> bool:
        """Whether each row has to refer to one of the new table."""
        return any(c.not_null for c in self.moved().values())

    # -- the dual write --------------------------------------------------

    def on(self) -> tuple[sql.Composable, ...]:
        """Return the statements that put the dual write on, both ways."""
        up, down = map(sql.Identifier, self._triggers)
        changed = sql.SQL(" OR ").join(
            distinct(old_value(n), new_value(n), image_equal=True)
            for n in self.columns.values()
        )
        table, into = self.table.name.identifier, self.into.identifier
        return (
            *self.define(retired=False),
            sql.SQL(
                "CREATE TRIGGER {} BEFORE INSERT OR UPDATE ON {} FOR EACH ROW"
                " EXECUTE FUNCTION {}()"
            ).format(up, table, self._functions[0]),
            sql.SQL(
                "CREATE TRIGGER {} AFTER UPDATE ON {} FOR EACH ROW WHEN ({})"
                " EXECUTE FUNCTION {}()"
            ).format(down, into, changed, self._functions[1]),
            *(
                sql.SQL("ALTER TABLE {} ENABLE ALWAYS TRIGGER {}").format(t, trigger)
                for t, trigger in ((table, up), (into, down))
            ),
        )

    def define(self, *, retired: bool) -> tuple[sql.Composable, ...]:
        """
        Return the statements that make the functions, or make them anew.

        They have the owner's rights: the old release has none on the new table, and
        the new one need have none on the columns.

        Args:
            retired: whether the columns have their retired names.

        Source: PostgreSQL manual, CREATE FUNCTION, Writing SECURITY DEFINER Functions
        Safely.
        """
        path = direct.pinned_path(self.facts.path, self.table.name.schema)
        at = {c: self.retired(c) if retired else c for c in self.columns}
        bodies = (self._follow(at) if retired else self._up(at), self._down(at))
        made = (
            sql.SQL(
                "CREATE OR REPLACE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql"
                " SECURITY DEFINER SET search_path = {}, pg_temp AS {}"
            ).format(function, path, sql.Literal(render(body)))
            for function, body in zip(self._functions, bodies, strict=True)
        )
        if not self.facts.superuser:
            return tuple(made)
        owned = (
            sql.SQL("ALTER FUNCTION {}() OWNER TO {}").format(
                function, sql.Identifier(self.table.owner)
            )
            for function in self._functions
        )
        return (*made, *owned)

    def _off(self, *which: int) -> tuple[sql.Composable, ...]:
        tables = (self.table.name, self.into)
        return tuple(
            statement
            for n in which
            for statement in (
                sql.SQL("DROP TRIGGER IF EXISTS {} ON {}").format(
                    sql.Identifier(self._triggers[n]), tables[n].identifier
                ),
                sql.SQL("DROP FUNCTION IF EXISTS {}()").format(self._functions[n]),
            )
        )

    def is_on(self) -> str:
        """Return the question whether the dual write is on, for every session."""
        up, down = self._triggers
        both = (
            direct.triggers_are_on(self.table.name, up),
            direct.triggers_are_on(self.into, down).removeprefix("SELECT "),
        )
        return " AND ".join(both)

    def _needs_on(self, work: Transaction) -> Transaction:
        why = (
            f"a dual-write trigger on {self.table.name} or {self.into} is missing or"
            " not enabled ALWAYS, so that one side may have missed writes"
        )
        return direct.needs(work, self.is_on(), why)

    @property
    def _triggers(self) -> tuple[str, str]:
        tag = self.facts.tag
        return names.trigger(tag), names.trigger(f"{tag}_down")

    @property
    def _functions(self) -> tuple[sql.Identifier, sql.Identifier]:
        tag = self.facts.tag
        return names.function(tag), names.function(f"{tag}_down")

    def _up(self, at: Mapping[str, str]) -> sql.Composable:
        """Return the text of the table's trigger while both releases run."""
        reference = sql.Identifier(self.reference)
        into = self.into.identifier
        listed = _list(self.columns.values())
        return sql.SQL(
            """
#variable_conflict use_column
DECLARE
  {id} bigint;
BEGIN
  IF (CASE TG_OP WHEN 'INSERT' THEN NEW.{r} IS NOT NULL
      ELSE NEW.{r} IS DISTINCT FROM OLD.{r} AND NOT ({written}) END) THEN
    {read}
    RETURN NEW;
  END IF;
  IF {in_step} THEN
    RETURN NEW;
  END IF;
  IF {some} THEN
    FOR _ IN 1..{tries} LOOP
      -- What is renamed or removed just now is waited for.
      EXECUTE {find} INTO {id} USING {values};
      EXIT WHEN {id} IS NOT NULL;
      BEGIN
        INSERT INTO {into} ({names}) VALUES ({values})
          ON CONFLICT ({names}) DO NOTHING RETURNING {key} INTO {id};
        EXIT WHEN {id} IS NOT NULL;
      EXCEPTION WHEN program_limit_exceeded THEN
        -- Longer than an index takes: kept here, and out of step.
        EXIT;
      END;
    END LOOP;
  END IF;
  NEW.{r} := {id};
  RETURN NEW;
END
"""
        ).format(
            id=_ID,
            r=reference,
            key=sql.Identifier(self.key),
            into=into,
            names=listed,
            tries=sql.Literal(_TRIES),
            written=self._written(at.values()),
            read=self._read(at),
            in_step=self._in_step(new_value(self.reference), _new(at)),
            some=sql.SQL(" OR ").join(
                sql.SQL("{} IS NOT NULL").format(new_value(c)) for c in at.values()
            ),
            find=sql.Literal(render(self._find())),
            values=sql.SQL(", ").join(new_value(c) for c in at.values()),
        )

    def _find(self) -> sql.Composable:
        """
        Return the query of the row of a combination, `$1` and so on.

        It is planned for the values: only then is `a IS NULL AND $1 IS NULL` nothing
        or all, and the rest looked up in the index.
        """
        return sql.SQL(
            "SELECT {row}.{key} FROM {into} AS {row} WHERE {same} FOR KEY SHARE"
        ).format(
            row=_ROW,
            key=sql.Identifier(self.key),
            into=self.into.identifier,
            same=sql.SQL(" AND ").join(
                sql.SQL("({n} {equal} {v} OR ({n} IS NULL AND {v} IS NULL))").format(
                    n=sql.SQL("{}.{}").format(_ROW, sql.Identifier(name)),
                    v=type_name(f"${number}"),
                    equal=type_name(self.moved()[c].equal),
                )
                for number, (c, name) in enumerate(self.columns.items(), 1)
            ),
        )

    def _follow(self, at: Mapping[str, str]) -> sql.Composable:
        """Return the text of the table's trigger once the old release is gone."""
        return sql.SQL(
            """
#variable_conflict use_column
BEGIN
  IF (CASE TG_OP WHEN 'INSERT' THEN true
      ELSE NEW.{r} IS DISTINCT FROM OLD.{r} OR {written} END) THEN
    {read}
  END IF;
  RETURN NEW;
END
"""
        ).format(
            r=sql.Identifier(self.reference),
            written=self._written(at.values()),
            read=self._read(at),
        )

    def _read(self, at: Mapping[str, str]) -> sql.Composable:
        """Return the statement that reads the columns from where the row refers to."""
        # Locked as the foreign key will: who changes it has to carry it here.
        return sql.SQL(
            "SELECT {values} INTO {columns} FROM {into} AS {row}"
            " WHERE {row}.{key} = {reference} FOR KEY SHARE;"
        ).format(
            values=_of_row(self.columns.values()),
            columns=sql.SQL(", ").join(new_value(c) for c in at.values()),
            into=self.into.identifier,
            row=_ROW,
            key=sql.Identifier(self.key),
            reference=new_value(self.reference),
        )

    def _written(self, columns: Iterable[str]) -> sql.Composable:
        return sql.SQL(" OR ").join(
            distinct(new_value(c), old_value(c), image_equal=True) for c in columns
        )

    def _down(self, at: Mapping[str, str]) -> sql.Composable:
        """
        Return the text of the new table's trigger.

        It reads the row as it is by then: another trigger may have updated it again.
        Rows are locked in the order of their key, as most who lock several do.
        """
        table = sql.Identifier(self.table.name.name)
        index = unique_index(self.facts)
        order = [k.name for k in index.keys] if index else ["ctid"]
        return sql.SQL(
            """
#variable_conflict use_column
BEGIN
  PERFORM FROM {t} AS {alias} WHERE {alias}.{r} = NEW.{key}
    ORDER BY {order} FOR NO KEY UPDATE;
  UPDATE {t} AS {alias} SET {assigned} FROM {into} AS {row}
   WHERE {row}.{key} = NEW.{key} AND {alias}.{r} = {row}.{key} AND ({apart});
  RETURN NULL;
END
"""
        ).format(
            t=self.table.name.identifier,
            alias=table,
            r=sql.Identifier(self.reference),
            key=sql.Identifier(self.key),
            order=sql.SQL(", ").join(
                sql.SQL("{}.{}").format(table, sql.Identifier(c)) for c in order
            ),
            assigned=sql.SQL(", ").join(
                sql.SQL("{} = {}.{}").format(
                    sql.Identifier(at[c]), _ROW, sql.Identifier(name)
                )
                for c, name in self.columns.items()
            ),
            into=self.into.identifier,
            row=_ROW,
            apart=sql.SQL(" OR ").join(
                distinct(
                    sql.SQL("{}.{}").format(table, sql.Identifier(at[c])),
                    sql.SQL("{}.{}").format(_ROW, sql.Identifier(name)),
                    image_equal=True,
                )
                for c, name in self.columns.items()
            ),
        )

    def _in_step(
        self, reference: sql.Composable, values: Mapping[str, sql.Composable]
    ) -> sql.Composable:
        """Return the condition that a row refers to what its columns tell."""
        return sql.SQL(
            "(CASE WHEN {r} IS NULL THEN {none} ELSE EXISTS (SELECT FROM {into} AS"
            " {row} WHERE {row}.{key} = {r} AND {same}) END)"
        ).format(
            r=reference,
            none=sql.SQL(" AND ").join(
                sql.SQL("{} IS NULL").format(v) for v in values.values()
            ),
            into=self.into.identifier,
            row=_ROW,
            key=sql.Identifier(self.key),
            same=sql.SQL(" AND ").join(
                sql.SQL("{}.{} IS NOT DISTINCT FROM {}").format(
                    _ROW, sql.Identifier(self.columns[c]), v
                )
                for c, v in values.items()
            ),
        )

    # -- phases ----------------------------------------------------------

    def expand(self) -> Steps:
        """Return the new table, the column that refers to it, and the dual write."""
        table, parked = self.table.name, self.parked
        back = parked.name in self.facts.relation_names
        made = (_rename(parked, self.into),) if back else self._create()
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
            *self._off(0, 1),
            sql.SQL("ALTER TABLE {} DROP COLUMN {}").format(
                table.identifier, sql.Identifier(self.reference)
            ),
            _rename(self.into, parked),
            through=table,
        )
        gone = sql.SQL("DROP TABLE {}").format(parked.identifier)
        return (
            Step(
                name="add_table",
                work=direct.catalogue_step(
                    table,
                    self._path(),
                    *made,
                    *added,
                    *self.on(),
                    also=(parked,) if back else (),
                ),
                reverse=(undo,),
                parked=direct.catalogue_step(parked, gone),
            ),
        )

    def _path(self) -> sql.Composable:
        # Defaults are read under the path under which they were written.
        return sql.SQL("SET LOCAL search_path = {}").format(
            direct.pinned_path(self.facts.path, self.table.name.schema)
        )

    def _create(self) -> tuple[sql.Composable, ...]:
        table = self.into.identifier
        primary, unique = map(sql.Identifier, self.keys)
        columns = {self.columns[c]: column for c, column in self.moved().items()}
        key = sql.Identifier(self.key)
        return (
            sql.SQL(
                "CREATE TABLE {} ({} bigint GENERATED BY DEFAULT AS IDENTITY, {},"
                " CONSTRAINT {} PRIMARY KEY ({}),"
                " CONSTRAINT {} UNIQUE NULLS NOT DISTINCT ({}))"
            ).format(
                table,
                key,
                sql.SQL(", ").join(definition(c, name) for name, c in columns.items()),
                primary,
                key,
                unique,
                _list(columns),
            ),
            *(
                statement
                for name, c in columns.items()
                for statement in looks(table, name, c)
            ),
            *granted(self.into, self.table.owner, self.table.grants),
        )

    def backfill(self) -> Steps:
        """Return the references, then what is cheaper behind them."""
        reference = (self.reference,)
        validated = constraints.validated(self.table.name, self.foreign_key, self.into)
        return (
            *writes(
                self.facts,
                "fill_references",
                self._repair(),
                no_reverse="the references go with their column",
            ),
            *constraints.lookup(self.facts, reference, self.index),
            Step(
                name="validate_foreign_key",
                work=validated,
                no_reverse="the proof goes with the foreign key",
            ),
        )

    def _repair(self) -> Update:
        # Written as it is, so that the trigger sees a row out of step that nobody
        # changed: NULL would look like what the new release writes.
        reference = sql.Identifier(self.table.name.name, self.reference)
        return Update(
            values={self.reference: reference}, rows=self.apart(), guard=self.is_on()
        )

    def apart(self) -> sql.Composable:
        """Return the condition of rows that do not refer to what their columns tell."""
        name = self.table.name.name
        return sql.SQL("NOT {}").format(
            self._in_step(
                sql.Identifier(name, self.reference),
                {c: sql.Identifier(name, c) for c in self.columns},
            )
        )

    def verify(self) -> Steps:
        """Return the comparison of the columns with what the rows refer to."""
        return comparisons(
            self.facts,
            "compare_rows",
            self.apart(),
            shown=(*self.columns, self.reference),
            repair=self._repair(),
            no_reverse="nothing but rows out of step is changed",
        )

    def retire(self) -> Steps:
        """
        Return the renames of the columns that went: the old release is gone.

        The new table is locked against writers as well: one that was at work would
        carry its values to columns that have another name by then.
        """
        table = self.table.name
        check = names.owned("check", self.reference, self.facts.tag)
        required = self.required

        def alter(text: sql.Composable) -> sql.Composable:
            return sql.SQL("ALTER TABLE {} {}").format(table.identifier, text)

        def renamed(*, retired: bool) -> Transaction:
            pairs = [(c, self.retired(c)) for c in self.columns]
            optional = alter(
                sql.SQL("ALTER COLUMN {} DROP NOT NULL").format(
                    sql.Identifier(self.reference)
                )
            )
            proven = set_not_null(table, self.reference, check) if retired else ()
            return self._needs_on(
                direct.catalogue_step(
                    table,
                    *(
                        alter(
                            sql.SQL("RENAME COLUMN {} TO {}").format(
                                *map(sql.Identifier, pair if retired else pair[::-1])
                            )
                        )
                        for pair in pairs
                    ),
                    *((proven or (optional,)) if required else ()),
                    *self.define(retired=retired),
                    beside=(TableLock(table=self.into, lock=Lock.SHARE_ROW_EXCLUSIVE),),
                )
            )

        return (
            *(not_null_by_check(table, self.reference, check)[:2] if required else ()),
            Step(
                name="rename_columns",
                work=renamed(retired=True),
                reverse=(renamed(retired=False),),
            ),
        )

    def drop(self) -> Steps:
        """Return the end of the dual write, then the drop of the columns."""
        why = "the columns are gone from the table, or no longer follow"
        return (
            Step(
                name="drop_trigger",
                work=self._needs_on(direct.catalogue_step(self.into, *self._off(1))),
                no_reverse=why,
                loses=True,
            ),
            Step(
                name="drop_columns",
                work=direct.catalogue_step(
                    self.table.name,
                    *self._off(0),
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
            return sql.SQL("ALTER TABLE {} ").format(table.identifier) + text.format(
                column
            )

        return (
            Step(
                name="add_columns",
                work=direct.catalogue_step(
                    table,
                    self._path(),
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
                    c: sql.SQL("(SELECT {} FROM {} AS {} WHERE {})").format(
                        _of_row([name]), self.into.identifier, _ROW, behind
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
                    self._path(),
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


def _list(columns: Iterable[str]) -> sql.Composable:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def _of_row(columns: Iterable[str]) -> sql.Composable:
    return sql.SQL(", ").join(
        sql.SQL("{}.{}").format(_ROW, sql.Identifier(c)) for c in columns
    )


def _new(at: Mapping[str, str]) -> dict[str, sql.Composable]:
    return {c: new_value(name) for c, name in at.items()}


def _rename(given: TableName, wanted: TableName) -> sql.Composable:
    return sql.SQL("ALTER TABLE {} RENAME TO {}").format(
        given.identifier, sql.Identifier(wanted.name)
    )
