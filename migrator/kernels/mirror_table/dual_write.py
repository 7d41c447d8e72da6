"""Triggers that write another table, as their functions are made and taken away."""

from collections.abc import Iterable

from psycopg import sql

from migrator.kernels import direct
from migrator.kernels.mirror_columns.base import SETTINGS
from migrator.names import TableName
from migrator.plan import render


def trigger_function(
    function: sql.Identifier,
    body: sql.Composable,
    *,
    path: tuple[str, ...],
    schema: str,
    owner: str | None,
) -> tuple[sql.Composable, ...]:
    """
    Return the statements that make a trigger's function, or make it anew.

    It has the owner's rights, since the application has none on what it writes.

    Args:
        function: its name.
        body: its text.
        path: schemas in which expressions in it were tried out.
        schema: the table's.
        owner: as whom it writes; None for the role of the connection.

    Source: PostgreSQL manual, CREATE FUNCTION, Writing SECURITY DEFINER Functions
    Safely.
    """
    pinned = sql.SQL("").join(sql.SQL(f" SET {name} FROM CURRENT") for name in SETTINGS)
    made = sql.SQL(
        "CREATE OR REPLACE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql"
        " SECURITY DEFINER SET search_path = {}, pg_temp{} AS {}"
    ).format(
        function, direct.pinned_path(path, schema), pinned, sql.Literal(render(body))
    )
    if owner is None:
        return (made,)
    owned = sql.SQL("ALTER FUNCTION {}() OWNER TO {}").format(
        function, sql.Identifier(owner)
    )
    return made, owned


def triggers_off(
    table: TableName, triggers: Iterable[str], *functions: sql.Identifier
) -> tuple[sql.Composable, ...]:
    """Return the statements that take triggers off a table, and their functions."""
    return (
        *(
            sql.SQL("DROP TRIGGER IF EXISTS {} ON {}").format(
                sql.Identifier(trigger), table.identifier
            )
            for trigger in triggers
        ),
        *(sql.SQL("DROP FUNCTION IF EXISTS {}()").format(f) for f in functions),
    )
