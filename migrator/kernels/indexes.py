"""Indexes built, copied and dropped without blocking reads or writes."""

from collections.abc import Mapping
from dataclasses import replace

from psycopg import sql

from migrator import names
from migrator.facts import Facts, Index, Table
from migrator.kernels.direct import is_part
from migrator.names import TableName
from migrator.plan import (
    Action,
    Autocommit,
    Lock,
    Refusal,
    Step,
    expression,
    render,
    type_name,
)


def index_exists(schema: str, name: str, *, valid: bool) -> str:
    """Return the question whether a valid, or an invalid, index is there."""
    return render(
        sql.SQL(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_index i"
            " JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid"
            " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = {} AND c.relname = {} AND i.indisvalid = {})"
        ).format(sql.Literal(schema), sql.Literal(name), sql.Literal(valid))
    )


def drop_index(schema: str, name: str, table: TableName) -> Autocommit:
    """Return the concurrent drop of an index, harmless where it is gone."""
    return Autocommit(
        statement=render(
            sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(
                sql.Identifier(schema, name)
            )
        ),
        lock=Lock.SHARE_UPDATE_EXCLUSIVE,
        table=table,
    )


def build_index(
    step: str,
    table: Table,
    name: str,
    *,
    method: str,
    keys: sql.Composable,
    unique: bool = False,
    include: tuple[str, ...] = (),
    nulls_not_distinct: bool = False,
    where: str | None = None,
    storage: tuple[str, ...] = (),
    tablespace: str | None = None,
) -> Step:
    """
    Return the concurrent build of an index, with its drop as the reverse.

    A failed build leaves an invalid index, which `IF NOT EXISTS` would accept:
    the left-over is looked for and dropped first. The build on a leaf is done where
    the leaf is no longer part of its partitioned table.

    Source: PostgreSQL manual, CREATE INDEX, Building Indexes Concurrently.
    """
    text = sql.SQL("CREATE {unique}INDEX CONCURRENTLY {name} ON {table} USING").format(
        unique=sql.SQL("UNIQUE " if unique else ""),
        name=sql.Identifier(name),
        table=table.name.identifier,
    ) + sql.SQL(" {method} ({keys})").format(method=sql.Identifier(method), keys=keys)
    if include:
        text += sql.SQL(" INCLUDE ({})").format(
            sql.SQL(", ").join(map(sql.Identifier, include))
        )
    if nulls_not_distinct:
        text += sql.SQL(" NULLS NOT DISTINCT")
    if storage:
        text += sql.SQL(" WITH ({})").format(
            sql.SQL(", ").join(
                sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(value))
                for name, _, value in (option.partition("=") for option in storage)
            )
        )
    if tablespace is not None:
        text += sql.SQL(" TABLESPACE {}").format(sql.Identifier(tablespace))
    if where is not None:
        text += sql.SQL(" WHERE ") + expression(where)
    drop = drop_index(table.name.schema, name, table.name)
    return Step(
        name=table.step(step), work=_build(table, name, text, drop), reverse=(drop,)
    )


def _build(table: Table, name: str, text: sql.Composable, drop: Autocommit) -> Action:
    schema = table.name.schema
    done = index_exists(schema, name, valid=True)
    if table.root is not None:
        done += render(sql.SQL(" OR NOT {}").format(is_part(table)))
    return Autocommit(
        statement=render(text),
        lock=Lock.SHARE_UPDATE_EXCLUSIVE,
        table=table.name,
        done=done,
        leftover=index_exists(schema, name, valid=False),
        remove=drop.statement,
        scans=True,
    )


def drop_index_step(table: Table, index: Index, *refusals: Refusal) -> Step:
    """
    Return the concurrent drop of an index; its reverse builds it again.

    The build is that of the catalogue's definition: keys, classes, predicate and
    storage parameters, but for tablespace and comment.

    Args:
        table: the table.
        index: with its definition.
        refusals: conditions read before the drop.
    """
    drop = drop_index(table.name.schema, index.name, table.name)
    text = sql.SQL("CREATE {unique}INDEX CONCURRENTLY {name} ON {table} {rest}").format(
        unique=sql.SQL("UNIQUE " if index.unique else ""),
        name=sql.Identifier(index.name),
        table=table.name.identifier,
        rest=type_name(index.definition),
    )
    return Step(
        name="drop_index",
        work=replace(drop, refusals=refusals),
        reverse=(_build(table, index.name, text, drop),),
    )


def copy_indexes(facts: Facts, old: str, new: str) -> tuple[Step, ...]:
    """
    Return the builds of copies of all plain indexes, over another column.

    Each leaf of a partitioned table gets its own: an index of the parent cannot be
    built concurrently, and queries use those of the leaves.
    """
    return tuple(
        build_index(
            f"copy_index_{number}",
            leaf.table,
            index_copy(leaf.table, index, facts.tag),
            method=index.method,
            keys=index_keys(index, old, new),
            unique=index.unique,
            include=tuple(new if c == old else c for c in index.include),
        )
        for leaf in facts.leaves
        for number, index in enumerate(plain_indexes(leaf.table, old), 1)
    )


def plain_indexes(table: Table, column: str) -> tuple[Index, ...]:
    """Return the indexes of a table, over a column, that can be copied."""
    return tuple(
        i
        for i in table.indexes
        if i.plain and i.valid and column in {*(k.name for k in i.keys), *i.include}
    )


def index_copy(table: Table, index: Index, tag: str) -> str:
    """Return the name of the copy of an index."""
    return names.owned("index", index.name, table_tag(table, tag, index.name))


def index_keys(index: Index, old: str, new: str) -> sql.Composable:
    """Return an index's keys with one column in another's place."""
    return sql.SQL(", ").join(
        sql.Identifier(new if key.name == old else key.name)
        + index_options(key.options)
        for key in index.keys
    )


def build_like(
    step: str, table: Table, index: Index, name: str, columns: Mapping[str, str]
) -> Step:
    """
    Return the build of an index like another one, over other columns.

    Args:
        step: the step's name.
        table: the table.
        index: one without expressions, whose predicate reads none of these columns.
        name: the new index's.
        columns: for each column that is replaced, the one in its place.
    """
    return build_index(
        step,
        table,
        name,
        method=index.method,
        keys=sql.SQL(", ").join(
            sql.Identifier(columns.get(key.name, key.name)) + index_options(key.options)
            for key in index.keys
        ),
        unique=index.unique,
        include=tuple(columns.get(c, c) for c in index.include),
        where=index.predicate,
        storage=index.storage,
        tablespace=index.tablespace,
    )


def table_tag(table: Table, change_tag: str, *parts: str) -> str:
    """Return a tag for an object on a leaf, whose name is long and like others."""
    if table.root is None:
        return change_tag
    return names.tag(change_tag, table.name.schema, table.name.name, *parts)


def index_options(options: str) -> sql.Composable:
    """Return an index column's options, as the catalogue spells them."""
    return type_name(f" {options}" if options else "")
