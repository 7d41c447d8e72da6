"""What became of a table, or its columns, between the look at it and the lock on it."""

import json
from collections.abc import Collection

from psycopg import sql

from migrator.facts import Table
from migrator.plan import Refusal, render

# Columns as they were known beside those of now; another table may have the same ones.
_ALTERED = (
    " FROM (SELECT pg_catalog.format('column %s of %s', pg_catalog.to_json(name),"
    " {table}::text) FROM pg_catalog.jsonb_to_recordset({known}) AS k (name text,"
    " type oid, modifier int, generated bool) FULL JOIN (SELECT attname::text AS name,"
    " atttypid AS type, atttypmod AS modifier, attgenerated <> '' AS"
    " generated FROM pg_catalog.pg_attribute"
    " WHERE attrelid = {table}::pg_catalog.regclass AND attnum > 0"
    " AND NOT attisdropped) AS a USING (name, type, modifier, generated)"
    " WHERE (k.name IS NULL OR a.name IS NULL) AND {wanted}"
    " UNION ALL SELECT pg_catalog.format('another table in the place of %s',"
    " {table}::text) WHERE {table}::pg_catalog.regclass <> {oid}::pg_catalog.oid"
    ") AS found (what)"
)


def altered(table: Table, columns: Collection[str] | None = None) -> Refusal:
    """
    Refuse a table that is no longer the one that a mirror was rendered of.

    Nor one whose columns are others by now.

    Args:
        table: as it was then.
        columns: those that the mirror has or reads; None for all.
    """
    known = [
        {
            "name": c.name,
            "type": c.type_oid,
            "modifier": c.modifier,
            "generated": c.generated,
        }
        for c in table.columns
    ]
    rows = sql.SQL(_ALTERED).format(
        known=sql.SQL("{}::jsonb").format(sql.Literal(json.dumps(known))),
        table=sql.Literal(str(table.name)),
        oid=sql.Literal(table.oid),
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
        why="{listed} came, went or was changed since the step was written",
        next="run the same command again, which writes it anew; where steps before it"
        " ran, roll the change back to planned first.",
    )
