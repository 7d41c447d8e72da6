"""What came onto columns since facts were read, and an exchange would lose or bind."""

from collections.abc import Collection, Iterable

from psycopg import sql

from migrator import names
from migrator.kernels.direct import members
from migrator.names import TableName
from migrator.plan import Refusal, render

# Whether an index `i` has column `a`, also by an expression or a predicate.
_HAS = (
    "(a.attnum = ANY (i.indkey) OR EXISTS (SELECT FROM pg_catalog.pg_depend d"
    " WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass"
    " AND d.objid = i.indexrelid AND d.refobjid = i.indrelid"
    " AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass"
    " AND d.refobjsubid = a.attnum))"
)
_CAME = (
    "WITH part AS (SELECT a.* FROM pg_catalog.pg_attribute a"
    " WHERE a.attrelid IN ({members}) AND a.attname = ANY ({columns})"
    " AND NOT a.attisdropped)"
    " SELECT k.conname AS name FROM part a JOIN pg_catalog.pg_constraint k"
    " ON k.conrelid = a.attrelid AND a.attnum = ANY (k.conkey)"
    " WHERE k.contype IN ('c', 'f', 'u', 'x') AND k.conname <> ALL ({constraints})"
    # A partition's part of what goes over bears a name of its own.
    " AND NOT EXISTS (WITH RECURSIVE up (of, name, parent) AS ("
    " SELECT k.conrelid, k.conname, k.conparentid"
    " UNION ALL SELECT p.conrelid, p.conname, p.conparentid FROM up"
    " JOIN pg_catalog.pg_constraint p ON p.oid = up.parent)"
    " SELECT FROM up WHERE up.of = {table}::pg_catalog.regclass"
    " AND up.name = ANY ({constraints}))"
    " UNION SELECT k.conname FROM part a JOIN pg_catalog.pg_constraint k"
    " ON k.confrelid = a.attrelid AND a.attnum = ANY (k.confkey)"
    " WHERE k.conname <> ALL ({referring})"
    " UNION SELECT c.relname FROM part a JOIN pg_catalog.pg_index i"
    f" ON i.indrelid = a.attrelid AND {_HAS}"
    " JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid"
    " WHERE (i.indisunique OR {goes} AND c.relname <> ALL ({plain}))"
    " AND c.relname <> ALL ({known})"
    " AND NOT pg_catalog.starts_with(c.relname, {owned})"
    " UNION SELECT 'NOT NULL' FROM part a"
    " WHERE a.attnotnull AND a.attname = ANY ({nullable})"
    # What has a name that is known, and is not of the columns.
    " UNION SELECT k.conname FROM pg_catalog.pg_constraint k"
    " WHERE k.conrelid = {table}::pg_catalog.regclass AND (k.conname = ANY ({lifted})"
    " OR k.conname = ANY ({constraints}) AND NOT EXISTS (SELECT FROM part a"
    " LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = k.conindid"
    " AND i.indrelid = k.conrelid"
    f" WHERE a.attrelid = k.conrelid AND (a.attnum = ANY (k.conkey) OR {_HAS})))"
    " UNION SELECT c.relname FROM pg_catalog.pg_class t"
    " JOIN pg_catalog.pg_class c ON c.relnamespace = t.relnamespace"
    " WHERE t.oid = {table}::pg_catalog.regclass AND (c.relname = ANY ({bare})"
    " OR c.relname = ANY ({named}) AND NOT EXISTS (SELECT FROM part a"
    f" JOIN pg_catalog.pg_index i ON i.indrelid = a.attrelid AND {_HAS}"
    " WHERE i.indexrelid = c.oid AND i.indrelid = t.oid))"
)


def none_came(
    table: TableName,
    columns: Collection[str],
    *,
    constraints: Iterable[str],
    indexes: Collection[str],
    others: Iterable[str] = (),
    referring: Iterable[str] = (),
    plain: Collection[str] = (),
    lifted: Iterable[str] = (),
    bare: Iterable[str] = (),
    goes: bool,
    nullable: Iterable[str],
) -> Refusal:
    """
    Refuse an exchange behind something that came onto the columns that it hides.

    Or that took the name of what goes over, and would be dropped in its place, or be in
    its way.

    Args:
        table: the table.
        columns: their names until then.
        constraints: those of the columns that go over.
        indexes: likewise.
        others: further indexes of them that are known.
        referring: foreign keys to them that are known.
        plain: indexes of them that are there and hold nobody to anything.
        lifted: names that no constraint of the table may have, since one comes back.
        bare: names that no relation may have, since an index comes back.
        goes: whether their names go to other columns, with every index on them; else
            those count that hidden columns would be held to.
        nullable: those of which NOT NULL would have come as well.
    """
    found = sql.SQL(_CAME).format(
        members=members(table),
        table=sql.Literal(str(table)),
        columns=_names(columns),
        constraints=_names(constraints),
        named=_names((*indexes, *plain)),
        plain=_names(plain),
        known=_names((*indexes, *others)),
        referring=_names(referring),
        lifted=_names(lifted),
        bare=_names(bare),
        owned=sql.Literal(names.OWNED),
        goes=sql.Literal(goes),
        nullable=_names(nullable),
    )
    count = sql.SQL("SELECT count(*) FROM ({}) came").format(found)
    listed = sql.SQL(
        "SELECT pg_catalog.string_agg(pg_catalog.quote_ident(came.name), ', ')"
        " FROM ({}) came"
    ).format(found)
    named = ", ".join(f'"{name}"' for name in columns)
    onto = "column" if len(columns) == 1 else "columns"
    return Refusal(
        count=render(count),
        listed=render(listed),
        why=f"{{count:constraint or index|constraints and indexes}} came onto {onto}"
        f" {named} of table {table}, or took a name that goes over, since retire"
        " began: {listed}",
        next="drop what came, or rename what took a name; then run the same command"
        " again, and add it afterwards.",
    )


def _names(given: Iterable[str]) -> sql.Composable:
    return sql.SQL("ARRAY[{}]::pg_catalog.name[]").format(
        sql.SQL(", ").join(map(sql.Literal, given))
    )
