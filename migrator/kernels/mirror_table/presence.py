"""A column that tells that a row of a table is there which went into another one."""

from collections.abc import Iterable
from dataclasses import dataclass

from psycopg import sql

from migrator import names
from migrator.kernels.mirror_table.dual_write import triggers_off
from migrator.names import TableName
from migrator.plan import missing, present, render


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """
    The column, and the trigger that sets it with the first value that a row is given.

    Whichever release gives the value. Without it an UPDATE of the other release that
    leaves nothing but NULLs would take the row out of sight.

    Args:
        table: the table.
        column: the column that is true in a row that is there.
        values: the columns of the table that went into it.
        tag: the change's.
        owner: who is to own the function; None for the role of the connection.
    """

    table: TableName
    column: str
    values: Iterable[str]
    tag: str
    owner: str | None = None

    def add(self) -> sql.Composable:
        """Return the statement that adds the column."""
        return sql.SQL("ALTER TABLE {} ADD COLUMN {} boolean").format(
            self.table.identifier, sql.Identifier(self.column)
        )

    def remove(self) -> sql.Composable:
        """Return the statement that drops the column."""
        return sql.SQL("ALTER TABLE {} DROP COLUMN IF EXISTS {}").format(
            self.table.identifier, sql.Identifier(self.column)
        )

    def on(self) -> tuple[sql.Composable, ...]:
        """Return the statements that put the trigger on."""
        table, trigger = self.table.identifier, sql.Identifier(self._trigger)
        column = sql.SQL("new.{}").format(sql.Identifier(self.column))
        given = sql.SQL(" OR ").join(
            present(sql.SQL("new.{}").format(sql.Identifier(c))) for c in self.values
        )
        body = sql.SQL("BEGIN {} := true; RETURN new; END").format(column)
        return (
            sql.SQL(
                "CREATE OR REPLACE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql AS {}"
            ).format(self._function, sql.Literal(render(body))),
            *(
                ()
                if self.owner is None
                else (
                    sql.SQL("ALTER FUNCTION {}() OWNER TO {}").format(
                        self._function, sql.Identifier(self.owner)
                    ),
                )
            ),
            # By its name behind the application's own, which may give values as well.
            sql.SQL(
                "CREATE TRIGGER {} BEFORE INSERT OR UPDATE ON {} FOR EACH ROW"
                " WHEN ({} AND ({})) EXECUTE FUNCTION {}()"
            ).format(trigger, table, missing(column), given, self._function),
            sql.SQL("ALTER TABLE {} ENABLE ALWAYS TRIGGER {}").format(table, trigger),
        )

    def off(self) -> tuple[sql.Composable, ...]:
        """Return the statements that take the trigger off."""
        return triggers_off(self.table, (self._trigger,), self._function)

    @property
    def _trigger(self) -> str:
        return names.trigger(f"{self.tag}_present")

    @property
    def _function(self) -> sql.Identifier:
        return names.function(f"{self.tag}_present")
