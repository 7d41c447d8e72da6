"""Rows of a table that share what its columns tell with a row of another table.

A BEFORE trigger of the table finds or creates the row that its columns tell, or reads
them from the row that it refers to; an AFTER trigger of the other one carries changed
values to all rows that refer to it. The first never updates a row of the other table.

Source: PostgreSQL manual, INSERT, ON CONFLICT Clause; sections 13.2.1 (each statement
of a function sees what was committed before it), 13.3.2 (FOR KEY SHARE) and 43.11.2
(plans that are made for the values).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from psycopg import sql

from migrator import names
from migrator.kernels import direct
from migrator.kernels.mirror_columns.base import distinct, new_value, old_value
from migrator.kernels.rows import Update
from migrator.names import TableName
from migrator.plan import Transaction, render, type_name

# The new table's row in statements: no table's name.
_ROW = sql.Identifier("_migrator_row")
# Its key in the function.
_ID = sql.Identifier("_migrator_id")
# A row that is found taken, and then is not there, was removed or changed meanwhile.
_TRIES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """
    The dual write of columns and of the row that they are in another table.

    Args:
        table: the table whose rows refer to the other one's.
        into: the other table.
        tag: the change's.
        key: the other table's key.
        reference: the column of `table` that refers to it.
        columns: the columns of `table`, each with its name in the other table.
        equal: the `=` of each column's type, as SQL.
        order: columns of `table` in whose order rows are locked.
        retired: whether only the reference is written.
        path: schemas in which names are looked up.
        owner: as whom triggers write; None for the role of the connection.
    """

    table: TableName
    into: TableName
    tag: str
    key: str
    reference: str
    columns: Mapping[str, str]
    equal: Mapping[str, str]
    order: tuple[str, ...]
    retired: bool = False
    path: tuple[str, ...] = ()
    owner: str | None = None

    # -- the dual write --------------------------------------------------

    def on(self) -> tuple[sql.Composable, ...]:
        """Return the statements that put the dual write on, both ways."""
        up, down = map(sql.Identifier, self._triggers)
        changed = sql.SQL(" OR ").join(
            distinct(old_value(n), new_value(n), image_equal=True)
            for n in self.columns.values()
        )
        table, into = self.table.identifier, self.into.identifier
        return (
            *self.define(),
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

    def define(self) -> tuple[sql.Composable, ...]:
        """
        Return the statements that make the functions, or make them anew.

        They have the owner's rights: the old release has none on the new table, and
        the new one need have none on the columns.

        Source: PostgreSQL manual, CREATE FUNCTION, Writing SECURITY DEFINER Functions
        Safely.
        """
        path = direct.pinned_path(self.path, self.table.schema)
        bodies = (self._follow() if self.retired else self._up(), self._down())
        made = (
            sql.SQL(
                "CREATE OR REPLACE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql"
                " SECURITY DEFINER SET search_path = {}, pg_temp AS {}"
            ).format(function, path, sql.Literal(render(body)))
            for function, body in zip(self._functions, bodies, strict=True)
        )
        if self.owner is None:
            return tuple(made)
        owned = (
            sql.SQL("ALTER FUNCTION {}() OWNER TO {}").format(
                function, sql.Identifier(self.owner)
            )
            for function in self._functions
        )
        return (*made, *owned)

    def off(self, *which: int) -> tuple[sql.Composable, ...]:
        """Return what takes triggers off: 0 of the table, 1 of the other one."""
        tables = (self.table, self.into)
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
            direct.triggers_are_on(self.table, up),
            direct.triggers_are_on(self.into, down).removeprefix("SELECT "),
        )
        return " AND ".join(both)

    def needs_on(self, work: Transaction) -> Transaction:
        """Return the transaction, refused where the dual write is off."""
        why = (
            f"a dual-write trigger on {self.table} or {self.into} is missing or"
            " not enabled ALWAYS, so that one side may have missed writes"
        )
        return direct.needs(work, self.is_on(), why)

    @property
    def _triggers(self) -> tuple[str, str]:
        return names.trigger(self.tag), names.trigger(f"{self.tag}_down")

    @property
    def _functions(self) -> tuple[sql.Identifier, sql.Identifier]:
        return names.function(self.tag), names.function(f"{self.tag}_down")

    def _up(self) -> sql.Composable:
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
            written=self._written(),
            read=self._read(),
            in_step=self._in_step(
                new_value(self.reference), {c: new_value(c) for c in self.columns}
            ),
            some=sql.SQL(" OR ").join(
                sql.SQL("{} IS NOT NULL").format(new_value(c)) for c in self.columns
            ),
            find=sql.Literal(render(self._find())),
            values=sql.SQL(", ").join(new_value(c) for c in self.columns),
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
                    equal=type_name(self.equal[c]),
                )
                for number, (c, name) in enumerate(self.columns.items(), 1)
            ),
        )

    def _follow(self) -> sql.Composable:
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
            written=self._written(),
            read=self._read(),
        )

    def _read(self) -> sql.Composable:
        """Return the statement that reads the columns from where the row refers to."""
        # Locked as the foreign key will: who changes it has to carry it here.
        return sql.SQL(
            "SELECT {values} INTO {columns} FROM {into} AS {row}"
            " WHERE {row}.{key} = {reference} FOR KEY SHARE;"
        ).format(
            values=_of_row(self.columns.values()),
            columns=sql.SQL(", ").join(new_value(c) for c in self.columns),
            into=self.into.identifier,
            row=_ROW,
            key=sql.Identifier(self.key),
            reference=new_value(self.reference),
        )

    def _written(self) -> sql.Composable:
        return sql.SQL(" OR ").join(
            distinct(new_value(c), old_value(c), image_equal=True) for c in self.columns
        )

    def _down(self) -> sql.Composable:
        """
        Return the text of the new table's trigger.

        It reads the row as it is by then: another trigger may have updated it again.
        Rows are locked in the order of their key, as most who lock several do.
        """
        table = sql.Identifier(self.table.name)
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
            t=self.table.identifier,
            alias=table,
            r=sql.Identifier(self.reference),
            key=sql.Identifier(self.key),
            order=sql.SQL(", ").join(
                sql.SQL("{}.{}").format(table, sql.Identifier(c)) for c in self.order
            ),
            assigned=sql.SQL(", ").join(
                sql.SQL("{} = {}.{}").format(
                    sql.Identifier(c), _ROW, sql.Identifier(name)
                )
                for c, name in self.columns.items()
            ),
            into=self.into.identifier,
            row=_ROW,
            apart=sql.SQL(" OR ").join(
                distinct(
                    sql.SQL("{}.{}").format(table, sql.Identifier(c)),
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

    # -- rows ------------------------------------------------------------

    def repair(self) -> Update:
        """Return what gives rows out of step their reference."""
        # Written as it is, so that the trigger sees a row out of step that nobody
        # changed: NULL would look like what the new release writes.
        reference = sql.Identifier(self.table.name, self.reference)
        return Update(
            values={self.reference: reference},
            rows=self.apart(),
            guard=self.is_on(),
            guard_tables=(self.table, self.into),
        )

    def apart(self) -> sql.Composable:
        """Return the condition of rows that do not refer to what their columns tell."""
        name = self.table.name
        return sql.SQL("NOT {}").format(
            self._in_step(
                sql.Identifier(name, self.reference),
                {c: sql.Identifier(name, c) for c in self.columns},
            )
        )


def _list(columns: Iterable[str]) -> sql.Composable:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def _of_row(columns: Iterable[str]) -> sql.Composable:
    return sql.SQL(", ").join(
        sql.SQL("{}.{}").format(_ROW, sql.Identifier(c)) for c in columns
    )
