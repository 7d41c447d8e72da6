"""An index that comes back, told from another one that got its name."""

from dataclasses import replace

from psycopg import sql

from migrator.facts import Index, Table
from migrator.kernels.direct import name_taken, or_no_part
from migrator.names import TableName
from migrator.plan import Autocommit, Refusal, render


def again(work: Autocommit, table: Table, index: Index) -> Autocommit:
    """
    Return the build of an index that went, refused where its name was given away.

    Args:
        work: the build.
        table: the table.
        index: as it was.
    """
    name = TableName(table.name.schema, index.name)
    mine = sql.SQL("i.indisvalid AND {}").format(is_like(index))
    left = is_on(name, table.name, sql.SQL("NOT i.indisvalid"))
    done = sql.SQL("SELECT {}").format(is_on(name, table.name, mine))
    return replace(
        work,
        done=render(done) + or_no_part(table),
        leftover=render(sql.SQL("SELECT {}").format(left)),
        refusals=(taken(name, table.name, index), *work.refusals),
    )


def taken(name: TableName, table: TableName, index: Index) -> Refusal:
    """
    Return the condition that the name of an index was not given away.

    Args:
        name: the name.
        table: the index's table.
        index: as it was.
    """
    # What a failed build left is removed.
    known = sql.SQL("(NOT i.indisvalid OR {})").format(is_like(index))
    return name_taken(name, but=is_on(name, table, known))


def is_on(name: TableName, table: TableName, which: sql.Composable) -> sql.Composable:
    """
    Return the condition that an index is there, on its table.

    Args:
        name: the index's.
        table: the table.
        which: a condition on it, as `i` of the catalogue.
    """
    return sql.SQL(
        "EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indexrelid ="
        " pg_catalog.to_regclass({}) AND i.indrelid = pg_catalog.to_regclass({})"
        " AND {})"
    ).format(sql.Literal(str(name)), sql.Literal(str(table)), which)


def is_like(index: Index) -> sql.Composable:
    """
    Return the condition that an index, `i` of the catalogue, is defined as another.

    Args:
        index: the other one, which may be gone.
    """
    # Spelt as facts have it: each name with its schema, and the tablespace.
    return sql.SQL(
        "i.indisunique = {unique} AND (WITH path AS MATERIALIZED (SELECT"
        " pg_catalog.set_config('search_path', 'pg_catalog', true))"
        " SELECT pg_catalog.right("
        "pg_catalog.left({whole}, pg_catalog.length({whole})"
        " - pg_catalog.length({predicate})) || COALESCE((SELECT ' TABLESPACE '"
        " || pg_catalog.quote_ident(s.spcname) FROM pg_catalog.pg_class x"
        " JOIN pg_catalog.pg_tablespace s ON s.oid = x.reltablespace"
        " WHERE x.oid = i.indexrelid), '') || {predicate}, {length}) = {definition}"
        " FROM path)"
    ).format(
        unique=sql.Literal(index.unique),
        whole=sql.SQL("pg_catalog.pg_get_indexdef(i.indexrelid)"),
        predicate=sql.SQL(
            "COALESCE(' WHERE ' || pg_catalog.pg_get_expr(i.indpred, i.indrelid), '')"
        ),
        length=sql.Literal(len(index.definition)),
        definition=sql.Literal(index.definition),
    )
