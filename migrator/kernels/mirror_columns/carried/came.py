"""What came since retire began, and would go with an exchange or be bound by it."""

from collections.abc import Iterable, Sequence

from psycopg import sql

from migrator.kernels.direct import members
from migrator.kernels.mirror_columns.carried.base import Carried
from migrator.kernels.mirror_columns.carried.index import CarriedIndex
from migrator.names import TableName
from migrator.plan import Refusal, render

# Whether a column `a` is in an index `i`, also by an expression or a predicate.
_IN_INDEX = (
    "(a.attnum = ANY (i.indkey) OR EXISTS (SELECT FROM pg_catalog.pg_depend d"
    " WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass"
    " AND d.objid = i.indexrelid AND d.refobjid = i.indrelid"
    " AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass"
    " AND d.refobjsubid = a.attnum))"
)


def none_came(
    table: TableName,
    columns: Sequence[str],
    over: Iterable[Carried],
    *,
    back: bool = False,
) -> Refusal:
    """
    Refuse an exchange where something came that hidden columns would be held to.

    Or that has the name of what goes over, and would be dropped in its place, or be in
    its way.

    Args:
        table: the table.
        columns: those that are taken out of sight, by their names until then.
        over: what goes over.
        back: whether it is that of the way back, which finds what is kept alone.
    """
    found = tuple(over)
    there = [one for one in found if one.kept or not back]
    lifted = [one for one in found if one not in there]
    copied = [
        one for one in lifted if isinstance(one, CarriedIndex) and one.forth is not None
    ]
    indexes = [one for one in found if isinstance(one, CarriedIndex)]
    came = sql.SQL(
        " FROM (SELECT found.name FROM pg_catalog.pg_attribute a CROSS JOIN LATERAL ("
        "SELECT k.conname AS name FROM pg_catalog.pg_constraint k"
        " WHERE k.conrelid = a.attrelid AND a.attnum = ANY (k.conkey)"
        " AND k.contype IN ('c', 'f', 'u', 'x')"
        " UNION SELECT k.conname FROM pg_catalog.pg_constraint k"
        " WHERE k.confrelid = a.attrelid AND a.attnum = ANY (k.confkey)"
        " UNION SELECT c.relname FROM pg_catalog.pg_index i"
        " JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid"
        f" WHERE i.indrelid = a.attrelid AND i.indisunique AND {_IN_INDEX}) found"
        " WHERE a.attrelid IN ({members}) AND a.attname = ANY ({columns})"
        " AND NOT a.attisdropped AND found.name <> ALL ({there})"
        " UNION SELECT k.conname FROM pg_catalog.pg_constraint k"
        " WHERE k.conrelid = {table}::pg_catalog.regclass"
        " AND (k.conname = ANY ({lifted}) OR k.conname = ANY ({there}) AND NOT EXISTS ("
        "SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = k.conrelid"
        " AND a.attname = ANY ({columns}) AND (a.attnum = ANY (k.conkey)"
        " OR EXISTS (SELECT FROM pg_catalog.pg_index i"
        f" WHERE i.indexrelid = k.conindid AND {_IN_INDEX}))))"
        " UNION SELECT c.relname FROM pg_catalog.pg_class t"
        " JOIN pg_catalog.pg_class c ON c.relnamespace = t.relnamespace"
        " WHERE t.oid = {table}::pg_catalog.regclass"
        " AND c.relname = ANY ({indexes}) AND (c.relname = ANY ({bare}) OR NOT EXISTS ("
        "SELECT FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a"
        f" ON a.attrelid = i.indrelid AND {_IN_INDEX}"
        " WHERE i.indexrelid = c.oid AND i.indrelid = t.oid"
        " AND a.attname = ANY ({columns})))) came"
    ).format(
        members=members(table),
        table=sql.Literal(str(table)),
        columns=_names(columns),
        there=_names(one.name for one in there),
        lifted=_names(one.name for one in lifted),
        indexes=_names(one.name for one in indexes),
        bare=_names(one.name for one in lifted if one not in copied),
    )
    listed = "SELECT pg_catalog.string_agg(pg_catalog.quote_ident(came.name), ', ')"
    named = ", ".join(f'"{name}"' for name in columns)
    onto = "column" if len(columns) == 1 else "columns"
    return Refusal(
        count=render(sql.SQL("SELECT count(*)") + came),
        listed=render(sql.SQL(listed) + came),
        why=f"{{count:constraint or index|constraints and indexes}} came onto {onto}"
        f" {named}, or took a name that goes over, since retire began: {{listed}}",
        next="drop or rename what came, then run the same command again; add it"
        " afterwards.",
    )


def _names(given: Iterable[str]) -> sql.Composable:
    return sql.SQL("ARRAY[{}]::pg_catalog.name[]").format(
        sql.SQL(", ").join(map(sql.Literal, given))
    )
