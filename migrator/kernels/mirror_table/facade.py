"""A view that gives some columns of a table as a table of their own."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import LiteralString

from psycopg import sql

from migrator import names
from migrator.facts import Grant
from migrator.kernels import images
from migrator.kernels.direct import pinned_path
from migrator.kernels.mirror_table.columns import KeyColumn, Shown, joined
from migrator.kernels.privileges import nothing_by_default
from migrator.names import TableName
from migrator.plan import Refusal, missing, render, type_name

# What a view and a table both take.
_PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facade:
    """
    The view, and what makes INSERT and DELETE of it updates of the table.

    UPDATE is the server's own (manual, CREATE VIEW, Updatable Views): two requests that
    add to the same value both count, as they do on a table. The view's check option
    refuses one that would take its row out of sight: it holds for UPDATE also where
    INSERT and DELETE are triggers', as a test shows on each version. A row that is
    inserted is one of the table that was at rest; where it was not, the key is taken.

    Args:
        table: the table.
        view: the view's name.
        tag: the change's.
        key: columns of the view that name a row, each with the table's column.
        columns: the other columns of the view.
        rows: the condition of rows that it shows; None for all.
        required: columns of the view without which there is no row.
        path: schemas in which defaults are looked up.
        grants: what other roles may do with it.
        default_grantees: as in the facts: they may not what is not granted.
        owner: the owner of the table, who is to own the view.
    """

    table: TableName
    view: TableName
    tag: str
    key: Mapping[str, KeyColumn]
    columns: Mapping[str, Shown]
    rows: sql.Composable | None = None
    required: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    grants: tuple[Grant, ...] = ()
    default_grantees: tuple[str | None, ...] = ()
    owner: str

    def create(self) -> tuple[sql.Composable, ...]:
        """Return the statements that make the view."""
        view = self.view.identifier
        return (
            sql.SQL("CREATE VIEW {}{} AS SELECT {} FROM {}{}").format(
                view,
                self._rights(),
                self._shown(),
                self.table.identifier,
                sql.SQL(" WHERE {} WITH LOCAL CHECK OPTION").format(self.rows)
                if self.rows
                else sql.SQL(""),
            ),
            *(
                sql.SQL("ALTER VIEW {} ALTER COLUMN {} SET DEFAULT {}").format(
                    view, sql.Identifier(name), s.at_rest
                )
                for name, s in self.columns.items()
                if s.rest is not None
            ),
            *self.define(),
            *(
                sql.SQL(
                    "CREATE TRIGGER {} INSTEAD OF {} ON {} FOR EACH ROW"
                    " EXECUTE FUNCTION {}()"
                ).format(
                    sql.Identifier(names.trigger(f"{self.tag}_{event.lower()}")),
                    sql.SQL(event),
                    view,
                    self._function(event),
                )
                for event in ("INSERT", "DELETE")
            ),
            *nothing_by_default(self.default_grantees, self.view),
            *granted(self.view, self.owner, self.grants),
        )

    def define(self) -> tuple[sql.Composable, ...]:
        """Return the statements that make the functions, or make them anew."""
        return tuple(
            sql.SQL(
                "CREATE OR REPLACE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql{}"
                " SET search_path = {}, pg_temp AS {}"
            ).format(
                self._function(event),
                self._secured(),
                pinned_path(self.path, self.table.schema),
                sql.Literal(render(body)),
            )
            for event, body in (("INSERT", self._insert()), ("DELETE", self._delete()))
        )

    def remove(self) -> tuple[sql.Composable, ...]:
        """Return the statements that take the view away."""
        return (
            sql.SQL("DROP VIEW IF EXISTS {}").format(self.view.identifier),
            *(
                sql.SQL("DROP FUNCTION IF EXISTS {}()").format(self._function(event))
                for event in ("INSERT", "DELETE")
            ),
        )

    def unused(self, what: str) -> Refusal:
        """
        Return the condition that nobody built anything on the view.

        Args:
            what: what becomes of the view, for the message.
        """
        return Refusal(
            count=render(
                sql.SQL(
                    "SELECT count(DISTINCT d.objid) FROM pg_catalog.pg_depend d"
                    " JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid"
                    " WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass"
                    " AND d.refobjid = pg_catalog.to_regclass({view})"
                    " AND r.ev_class <> d.refobjid"
                ).format(view=sql.Literal(str(self.view)))
            ),
            why=f"{{count:view depends|views depend}} on the view {self.view},"
            f" which {what}",
            next="drop them, and make them again after it.",
        )

    # -- what another facade does otherwise --------------------------------

    def _rights(self) -> sql.Composable:
        """Return the options of the view: it runs with the caller's rights."""
        return sql.SQL(" WITH (security_invoker = true)")

    def _shown(self) -> sql.Composable:
        """Return the columns of the view."""
        return sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(sql.Identifier(column), sql.Identifier(name))
            for name, column in (
                *((name, k.column) for name, k in self.key.items()),
                *((name, s.column) for name, s in self.columns.items()),
            )
        )

    def _secured(self) -> sql.Composable:
        """Return with whose rights the functions run: the caller's."""
        return sql.SQL("")

    def _free(self) -> sql.Composable:
        """Return the condition that a row of the view may be inserted: at rest."""
        return sql.SQL(" AND ").join(
            images.SAME.format(
                images.record(sql.SQL("_row.{}").format(sql.Identifier(s.column))),
                images.record(s.at_rest),
            )
            for s in self.columns.values()
        )

    def _given(self) -> dict[str, sql.Composable]:
        """Return what an INSERT gives to columns of the table."""
        return {
            s.column: sql.SQL("new.{}").format(sql.Identifier(name))
            for name, s in self.columns.items()
        }

    def _rest(self) -> dict[str, sql.Composable]:
        """Return what a DELETE leaves in columns of the table."""
        return {s.column: s.at_rest for s in self.columns.values()}

    # -- functions -----------------------------------------------------------

    def _function(self, event: str) -> sql.Identifier:
        return names.function(f"{self.tag}_{event.lower()}")

    def _keyed(self, row: LiteralString) -> sql.Composable:
        return joined(sql.SQL("_row"), sql.SQL(row), self.key)

    def _insert(self) -> sql.Composable:
        shown = ", ".join(self.key)
        key = f"{self.view.name}_pkey"
        return sql.SQL(
            """
BEGIN{required}
  UPDATE {table} AS _row SET {assigned} WHERE {keyed} AND {free};
  IF NOT FOUND THEN
    IF EXISTS (SELECT FROM {table} AS _row WHERE {keyed}) THEN
      RAISE unique_violation USING
        MESSAGE = {taken}, DETAIL = {detail}, TABLE = {name}, SCHEMA = {schema};
    END IF;
    RAISE foreign_key_violation USING
      MESSAGE = {orphan}, TABLE = {name}, SCHEMA = {schema};
  END IF;
  RETURN NEW;
END
"""
        ).format(
            required=self._refused_nulls(),
            table=self.table.identifier,
            assigned=_assigned(self._given()),
            keyed=self._keyed("new"),
            free=self._free(),
            taken=sql.Literal(
                f'duplicate key value violates unique constraint "{key}"'
            ),
            detail=sql.Literal(f"Key ({shown}) already exists."),
            name=sql.Literal(self.view.name),
            schema=sql.Literal(self.view.schema),
            orphan=sql.Literal(
                f'insert on table "{self.view.name}" violates the foreign key to table'
                f' "{self.table.name}"'
            ),
        )

    def _refused_nulls(self) -> sql.Composable:
        """Return what refuses an INSERT as NOT NULL of a table would."""
        return sql.SQL("").join(
            sql.SQL(
                """
  IF {} THEN
    RAISE not_null_violation USING
      MESSAGE = {}, COLUMN = {}, TABLE = {}, SCHEMA = {};
  END IF;"""
            ).format(
                missing(sql.SQL("new.{}").format(sql.Identifier(name))),
                sql.Literal(
                    f'null value in column "{name}" of relation "{self.view.name}"'
                    " violates not-null constraint"
                ),
                sql.Literal(name),
                sql.Literal(self.view.name),
                sql.Literal(self.view.schema),
            )
            for name in self.required
        )

    def _delete(self) -> sql.Composable:
        return sql.SQL(
            """
BEGIN
  UPDATE {} AS _row SET {} WHERE {};
  RETURN OLD;
END
"""
        ).format(self.table.identifier, _assigned(self._rest()), self._keyed("old"))


def _assigned(values: Mapping[str, sql.Composable]) -> sql.Composable:
    return sql.SQL(", ").join(
        sql.SQL("{} = {}").format(sql.Identifier(column), value)
        for column, value in values.items()
    )


def granted(
    relation: TableName, owner: str, grants: tuple[Grant, ...]
) -> tuple[sql.Composable, ...]:
    """Return the statements that give a new relation its owner and privileges."""
    return (
        sql.SQL("ALTER TABLE {} OWNER TO {}").format(
            relation.identifier, sql.Identifier(owner)
        ),
        *(
            sql.SQL("GRANT {} ON {} TO {}{}").format(
                sql.SQL(", ").join(map(type_name, words)),
                relation.identifier,
                sql.SQL("PUBLIC") if g.role is None else sql.Identifier(g.role),
                type_name(option),
            )
            for g in grants
            for words, option in (
                ([p for p in g.privileges if p not in g.passed_on], ""),
                ([p for p in g.privileges if p in g.passed_on], " WITH GRANT OPTION"),
            )
            if words
        ),
    )


def viewed(grants: tuple[Grant, ...]) -> tuple[Grant, ...]:
    """Return what of a table's grants a view takes."""
    kept = (
        replace(g, privileges=tuple(p for p in g.privileges if p in _PRIVILEGES))
        for g in grants
    )
    return tuple(g for g in kept if g.privileges)
