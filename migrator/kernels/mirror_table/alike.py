"""What came onto one of two tables since the other one was made like it.

Plain DDL on a table that another one is to take the place of, or has, reaches the one
that has the name, and would be gone with it.
"""

from collections.abc import Sequence
from typing import LiteralString

from psycopg import sql

from migrator import names
from migrator.names import TableName
from migrator.plan import Refusal, render

# Columns, checks and foreign keys of two tables. What is generated nobody writes, and
# keys to the tables themselves go over.
_PARTS = (
    "SELECT a.attrelid AS of, pg_catalog.format('column %s',"
    " pg_catalog.to_json(a.attname)) AS what, ROW(pg_catalog.format_type(a.atttypid,"
    " a.atttypmod), a.attnotnull, CASE WHEN {strictly} THEN ROW(a.attcollation,"
    " a.attidentity, pg_catalog.pg_get_expr(d.adbin, d.adrelid))::text END)::text"
    " AS shape"
    " FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_attrdef d"
    " ON d.adrelid = a.attrelid AND d.adnum = a.attnum WHERE a.attrelid IN"
    " ({table}::pg_catalog.regclass, {other}::pg_catalog.regclass)"
    " AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''"
    " UNION ALL SELECT k.conrelid, pg_catalog.format('constraint %s',"
    " pg_catalog.to_json(k.conname)), pg_catalog.pg_get_constraintdef(k.oid)"
    " FROM pg_catalog.pg_constraint k WHERE k.conrelid IN"
    " ({table}::pg_catalog.regclass, {other}::pg_catalog.regclass)"
    " AND (k.contype = 'c' OR k.contype = 'f' AND k.conparentid = 0 AND k.confrelid"
    " NOT IN ({table}::pg_catalog.regclass, {other}::pg_catalog.regclass)"
    " AND NOT (k.conrelid = {table}::pg_catalog.regclass"
    " AND k.conname = ANY ({moved}::text[])))"
)
_UNLIKE = (
    f" FROM (SELECT DISTINCT what FROM (WITH part AS ({_PARTS}) SELECT p.what"
    " FROM part p WHERE NOT EXISTS (SELECT FROM part q WHERE q.of <> p.of"
    " AND q.what = p.what AND q.shape = p.shape)) AS u) AS found"
)
# Of the table that has the name: columns that the other one lacks, or has of another
# type, and what acts on rows.
_CAME = (
    " FROM (SELECT pg_catalog.format('column %s', pg_catalog.to_json(a.attname))"
    " FROM pg_catalog.pg_attribute a WHERE a.attrelid = {table}::pg_catalog.regclass"
    " AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''"
    " AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute b"
    " WHERE b.attrelid = {other}::pg_catalog.regclass AND b.attname = a.attname"
    " AND (b.atttypid, b.atttypmod) = (a.atttypid, a.atttypmod))"
    " UNION ALL SELECT pg_catalog.format('trigger %s', pg_catalog.to_json(t.tgname))"
    " FROM pg_catalog.pg_trigger t WHERE t.tgrelid = {table}::pg_catalog.regclass"
    " AND NOT t.tgisinternal"
    " AND NOT t.tgname::text OPERATOR(pg_catalog.^@) ANY ({own})"
    " AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger o WHERE o.tgname = t.tgname"
    " AND o.tgrelid = {other}::pg_catalog.regclass)"
    " UNION ALL SELECT pg_catalog.format('policy %s', pg_catalog.to_json(p.polname))"
    " FROM pg_catalog.pg_policy p WHERE p.polrelid = {table}::pg_catalog.regclass"
    " AND NOT EXISTS (SELECT FROM pg_catalog.pg_policy o WHERE o.polname = p.polname"
    " AND o.polrelid = {other}::pg_catalog.regclass)) AS found (what)"
)


def unlike(
    table: TableName, other: TableName, *, moved: Sequence[str], altered: bool
) -> Refusal:
    """
    Refuse a table whose columns, checks or foreign keys the one that follows lacks.

    Args:
        table: the one that has the name.
        other: the one that is to have it.
        moved: foreign keys of `table` that `other` gets in the exchange.
        altered: whether `other` was given collations or defaults of its own.
    """
    return _refused(
        _UNLIKE,
        table,
        other,
        why=f"{{listed}} of {table} is not alike in the table that is to take its"
        " place: it came, went or was changed since that one was made",
        next="put it back as it was, or roll the change back to planned and expand it"
        " again.",
        moved=moved,
        strictly=not altered,
    )


def came(table: TableName, other: TableName) -> Refusal:
    """
    Refuse what came onto a table and would be gone with it.

    Args:
        table: the one that has the name.
        other: the former one, which is to have it again.
    """
    return _refused(
        _CAME,
        table,
        other,
        why=f"{{listed}} came onto {table} since retire, and would be gone with it,"
        " values too",
        next="drop it, run the same command again, and make it again afterwards. Of a"
        " column keep the values elsewhere first.",
    )


def _refused(
    found: LiteralString,
    table: TableName,
    other: TableName,
    *,
    why: str,
    next: str,
    moved: Sequence[str] = (),
    strictly: bool = True,
) -> Refusal:
    rows = sql.SQL(found).format(
        table=sql.Literal(str(table)),
        other=sql.Literal(str(other)),
        own=sql.Literal(list(names.TRIGGER_PREFIXES)),
        moved=sql.Literal(list(moved)),
        strictly=sql.Literal(strictly),
    )
    listed = sql.SQL("SELECT pg_catalog.string_agg(what, ', ' ORDER BY what)")
    return Refusal(
        count=render(sql.SQL("SELECT count(*)") + rows),
        listed=render(listed + rows),
        why=why,
        next=next,
    )
