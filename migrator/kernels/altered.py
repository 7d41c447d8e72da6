"""Columns that were changed between the look at a table and the lock on it."""

import json
from collections.abc import Collection

from psycopg import sql

from migrator.facts import Table
from migrator.plan import Refusal, render

# Columns as they were known beside those of now; types as the session spells them.
_ALTERED = (
    " FROM pg_catalog.jsonb_to_recordset({known}) AS k (name text, type text,"
    " generated bool) FULL JOIN (SELECT attname::text AS name,"
    " pg_catalog.format_type(atttypid, atttypmod) AS type, attgenerated <> '' AS"
    " generated FROM pg_catalog.pg_attribute"
    " WHERE attrelid = {table}::pg_catalog.regclass AND attnum > 0"
    " AND NOT attisdropped) AS a USING (name, type, generated)"
    " CROSS JOIN LATERAL (VALUES (pg_catalog.format('column %s',"
    " pg_catalog.to_json(name)))) AS found (what)"
    " WHERE (k.name IS NULL OR a.name IS NULL) AND {wanted}"
)


def altered(table: Table, columns: Collection[str] | None = None) -> Refusal:
    """
    Refuse a table whose columns are no longer those that a mirror was rendered of.

    Args:
        table: as it was then.
        columns: those that the mirror has or reads; None for all.
    """
    known = [
        {"name": c.name, "type": c.type, "generated": c.generated}
        for c in table.columns
    ]
    rows = sql.SQL(_ALTERED).format(
        known=sql.SQL("{}::jsonb").format(sql.Literal(json.dumps(known))),
        table=sql.Literal(str(table.name)),
        wanted=sql.SQL("true")
        if columns is None
        else sql.SQL("name = ANY (ARRAY[{}]::text[])").format(
            sql.SQL(", ").join(map(sql.Literal, sorted(columns)))
        ),
    )
    listed = sql.SQL("SELECT pg_catalog.string_agg(DISTINCT what, ', ')")
    return Refusal(
        count=render(sql.SQL("SELECT count(*)") + rows),
        listed=render(listed + rows),
        why=f"{{listed}} of {table.name} came, went or was changed since the step was"
        " written",
        next="run the same command again, which writes it anew; where steps before it"
        " ran, roll the change back to planned first.",
    )
