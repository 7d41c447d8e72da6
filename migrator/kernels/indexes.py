"""Indexes built, copied and dropped without blocking reads or writes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from psycopg import sql

from migrator import names
from migrator.errors import NotThere, Refused
from migrator.facts import Facts, Index, Table
from migrator.kernels.direct import (
    catalogue_step,
    name_taken,
    no_plain_index,
    no_plain_table,
    or_no_part,
)
from migrator.kernels.same_index import again, is_on
from migrator.names import TableName
from migrator.plan import (
    Autocommit,
    Lock,
    Refusal,
    Step,
    TableLock,
    expression,
    render,
    type_name,
)

NO_STORAGE: Mapping[str, Any] = MappingProxyType({})


def require(facts: Facts, name: str) -> Index:
    """
    Return the index of that name.

    Raises:
        NotThere: the table has no such index.
    """
    found = facts.table.index(name)
    if found is None:
        known = ", ".join(f'"{i.name}"' for i in facts.table.indexes) or "none"
        raise NotThere(
            f'Table {facts.table.name} has no index "{name}".',
            next=f"correct the name; the table has {known}.",
            name=name,
            known=(i.name for i in facts.table.indexes),
        )
    return found


def require_unused(facts: Facts, index: Index) -> None:
    """
    Refuse an index on which something rests, or on a part of it.

    Raises:
        Refused: a constraint, a foreign key, or the replica identity.
    """
    parts = [(facts.table, index)]
    for table in facts.table.partitions:
        parts += [(table, own) for own in table.indexes if own.root == index.name]
    for table, part in parts:
        where = f'Index "{part.name}" of table {table.name}'
        if part.constraints:
            raise Refused(
                f'{where} carries constraint "{part.constraints[0]}".',
                next="drop the constraint first; the index of a primary key or unique"
                " constraint goes with it.",
            )
        require_no_identity(table, part)


def require_no_identity(table: Table, index: Index) -> None:
    """Refuse an index that was chosen as its table's replica identity."""
    if index.replica_identity:
        raise Refused(
            f'Index "{index.name}" of table {table.name} is the table\'s replica'
            " identity: without it its updates cannot be replicated.",
            next="give the table another one first (ALTER TABLE … REPLICA IDENTITY).",
        )


def drop_index(schema: str, name: str, table: TableName) -> Autocommit:
    """
    Return the concurrent drop of an index, harmless where it is gone.

    It waits for whoever has used the table in a transaction that is open.

    Source: PostgreSQL manual, DROP INDEX, CONCURRENTLY.
    """
    whole = TableName(schema, name)
    return Autocommit(
        statement=render(
            sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(whole.identifier)
        ),
        refusals=(no_plain_index(whole),),
        lock=Lock.SHARE_UPDATE_EXCLUSIVE,
        table=table,
        outlives=(TableLock(table=table, lock=Lock.ACCESS_EXCLUSIVE),),
    )


def build(
    step: str,
    table: Table,
    name: str,
    definition: sql.Composable,
    *,
    unique: bool = False,
) -> Step:
    """
    Return the concurrent build of an index, with its drop as the reverse.

    A failed build leaves an invalid index, which `IF NOT EXISTS` would accept:
    the left-over is looked for and dropped first. The build on a leaf is done where
    the leaf is no longer part of its partitioned table.

    Args:
        step: the step's name.
        table: the table.
        name: the index's.
        definition: what follows the table's name.
        unique: whether the index is unique.

    Source: PostgreSQL manual, CREATE INDEX, Building Indexes Concurrently.
    """
    drop = drop_index(table.name.schema, name, table.name)
    work = _build(table, name, definition, drop, unique=unique)
    if not name.startswith(names.OWNED):
        work = replace(work, at_first=(not_given_away(table.name, name),))
    return Step(name=table.step(step), work=work, reverse=(drop,))


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
    """Return the concurrent build of an index, told by its parts; see `build`."""
    text = definition(
        method=method,
        keys=keys,
        include=include,
        nulls_not_distinct=nulls_not_distinct,
        storage=dict(option.split("=", 1) for option in storage),
        tablespace=tablespace,
        where=where,
    )
    return build(step, table, name, text, unique=unique)


def definition(
    *,
    method: str,
    keys: sql.Composable,
    include: Sequence[str] = (),
    nulls_not_distinct: bool = False,
    storage: Mapping[str, Any] = NO_STORAGE,
    tablespace: str | None = None,
    where: str | None = None,
) -> sql.Composable:
    """
    Return what DDL says of an index behind the table's name.

    Args:
        method: the access method.
        keys: columns and expressions with their options.
        include: further columns of the index.
        nulls_not_distinct: whether NULL is a value like others.
        storage: parameters by their names.
        tablespace: None for that of the table's database.
        where: an SQL condition of rows; None for all.
    """
    text: sql.Composable = sql.SQL("USING {} ({})").format(sql.Identifier(method), keys)
    if include:
        text += sql.SQL(" INCLUDE ({})").format(
            sql.SQL(", ").join(map(sql.Identifier, include))
        )
    if nulls_not_distinct:
        text += sql.SQL(" NULLS NOT DISTINCT")
    if storage:
        text += sql.SQL(" WITH ({})").format(
            sql.SQL(", ").join(
                sql.SQL("{} = {}").format(
                    sql.Identifier(name), sql.Literal(_option(value))
                )
                for name, value in storage.items()
            )
        )
    if tablespace is not None:
        text += sql.SQL(" TABLESPACE {}").format(sql.Identifier(tablespace))
    if where is not None:
        text += sql.SQL(" WHERE ") + expression(where)
    return text


def _option(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _build(
    table: Table,
    name: str,
    definition: sql.Composable,
    drop: Autocommit,
    *,
    unique: bool,
) -> Autocommit:
    text = sql.SQL("CREATE {unique}INDEX CONCURRENTLY {name} ON {table} {rest}").format(
        unique=sql.SQL("UNIQUE " if unique else ""),
        name=sql.Identifier(name),
        table=table.name.identifier,
        rest=definition,
    )
    whole = TableName(table.name.schema, name)
    done, left = (
        sql.SQL("SELECT {}").format(is_on(whole, table.name, sql.SQL(which)))
        for which in ("i.indisvalid", "NOT i.indisvalid")
    )
    return Autocommit(
        statement=render(text),
        lock=Lock.SHARE_UPDATE_EXCLUSIVE,
        table=table.name,
        refusals=(no_plain_table(table.name, name),),
        done=render(done) + or_no_part(table),
        leftover=render(left),
        remove=drop.statement,
        scans=True,
        outlives=(TableLock(table=table.name, lock=Lock.SHARE),),
    )


def not_given_away(table: TableName, name: str) -> Refusal:
    """
    Return the condition that nobody took the name of an index that is to be built.

    The other one would count as the build's own, and go with its way back.

    Args:
        table: the one that gets it.
        name: the index's.
    """
    whole = TableName(table.schema, name)
    # What a failed build left is removed.
    return name_taken(whole, but=is_on(whole, table, sql.SQL("NOT i.indisvalid")))


def created_as(table: TableName, name: str, index: Index) -> sql.Composable:
    """Return the statement that makes an index as the catalogue defines one."""
    return sql.SQL("CREATE {unique}INDEX {name} ON {table} {rest}").format(
        unique=sql.SQL("UNIQUE " if index.unique else ""),
        name=sql.Identifier(name),
        table=table.identifier,
        rest=type_name(index.definition),
    )


def drop_index_step(
    table: Table, index: Index, *refusals: Refusal, name: str = ""
) -> Step:
    """
    Return the concurrent drop of an index; its reverse builds it again.

    What the catalogue's definition does not say comes behind the build.

    Args:
        table: the table.
        index: with its definition.
        refusals: conditions read before the drop.
        name: what it is called by then, where that is not as in `index`.
    """
    name = name or index.name
    drop = drop_index(table.name.schema, name, table.name)
    built = type_name(index.definition)
    looks = tuple(index_looks(table.name, name, index))
    given = catalogue_step(table.name, *looks, lock=Lock.SHARE_UPDATE_EXCLUSIVE)
    return Step(
        name="drop_index",
        work=replace(drop, refusals=refusals),
        reverse=(
            again(
                _build(table, name, built, drop, unique=index.unique),
                table,
                replace(index, name=name),
            ),
            *([given] if looks else []),
        ),
    )


def build_as(step: str, table: Table, name: str, index: Index) -> Step:
    """
    Return the concurrent build of an index by the catalogue's definition of another.

    Args:
        step: the step's name.
        table: the table that gets it.
        name: its name.
        index: the other one, on whichever table.
    """
    definition = type_name(index.definition)
    return build(step, table, name, definition, unique=index.unique)


def renamed(index: Index, columns: Mapping[str, str]) -> Index:
    """
    Return an index as it is over other columns.

    Args:
        index: one without expressions, whose predicate reads none of these columns.
        columns: for each column that is replaced, the one in its place.
    """
    keys = sql.SQL(", ").join(
        sql.Identifier(columns.get(key.name, key.name)) + index_options(key.options)
        for key in index.keys
    )
    text = definition(
        method=index.method,
        keys=keys,
        include=tuple(columns.get(c, c) for c in index.include),
        nulls_not_distinct=index.nulls_not_distinct,
        storage=dict(option.split("=", 1) for option in index.storage),
    )
    return replace(index, spelt=render(text))


def build_like(
    step: str, table: Table, index: Index, name: str, columns: Mapping[str, str]
) -> Step:
    """
    Return the build of an index like another one, over other columns.

    Args:
        step: the step's name.
        table: the table.
        index: see `renamed`, as for `columns`.
        name: the new index's.
        columns: for each column that is replaced, the one in its place.
    """
    return build_as(step, table, name, renamed(index, columns))


def index_looks(table: TableName, name: str, index: Index) -> Iterator[sql.Composable]:
    """
    Yield what an index has that its definition does not say.

    Args:
        table: the one that has it.
        name: the name of what is like it.
        index: the one that it is like; of a partitioned one there is none of CLUSTER.
    """
    at = sql.Identifier(table.schema, name)
    if index.comment is not None:
        yield sql.SQL("COMMENT ON INDEX {} IS {}").format(
            at, sql.Literal(index.comment)
        )
    yield from targets(table.schema, name, index)
    if index.replica_identity:
        yield sql.SQL("ALTER TABLE {} REPLICA IDENTITY USING INDEX {}").format(
            table.identifier, sql.Identifier(name)
        )
    if index.clustered:
        yield sql.SQL("ALTER TABLE {} CLUSTER ON {}").format(
            table.identifier, sql.Identifier(name)
        )


def targets(schema: str, name: str, index: Index) -> Iterator[sql.Composable]:
    """Yield what gives expressions of an index like another one its targets."""
    for column, target in index.targets:
        yield sql.SQL("ALTER INDEX {} ALTER COLUMN {} SET STATISTICS {}").format(
            sql.Identifier(schema, name), sql.Literal(column), sql.Literal(target)
        )


def analyzed(
    table: TableName,
    copies: Iterable[tuple[str, Index]],
    *,
    named: Callable[[str], str] = str,
    no_reverse: str,
) -> tuple[Step, ...]:
    """
    Return what the planner needs of expressions of indexes, once these are built.

    Their statistics are the index's own: those of a column come by themselves.

    Args:
        table: that has them.
        copies: for each index its name, and what it is like.
        named: makes the steps' names.
        no_reverse: why nothing takes them back.

    Source: PostgreSQL manual, ALTER INDEX (SET STATISTICS); section 14.2.1.
    """
    by_expression = [c for c in copies if not all(k.name for k in c[1].keys)]
    if not by_expression:
        return ()
    weak = Lock.SHARE_UPDATE_EXCLUSIVE
    wanted = [s for c in by_expression for s in targets(table.schema, *c)]
    first = Step(
        name=named("set_statistics"),
        work=catalogue_step(table, *wanted, lock=weak),
        no_reverse=no_reverse,
    )
    analyze = Autocommit(
        statement=render(sql.SQL("ANALYZE {}").format(table.identifier)),
        lock=weak,
        table=table,
    )
    last = Step(name=named("analyze_expressions"), work=analyze, no_reverse=no_reverse)
    return (first, last) if wanted else (last,)


def named(
    schema: str, copy: str, index: Index, name: str
) -> tuple[sql.Composable, ...]:
    """Return what gives the copy of an index its name, and the index's comment."""
    rename = sql.SQL("ALTER INDEX {} RENAME TO {}").format(
        sql.Identifier(schema, copy), sql.Identifier(name)
    )
    if index.comment is None:
        return (rename,)
    comment = sql.SQL("COMMENT ON INDEX {} IS {}").format(
        sql.Identifier(schema, name), sql.Literal(index.comment)
    )
    return (rename, comment)


def table_tag(table: Table, change_tag: str, *parts: str) -> str:
    """Return a tag for an object on a leaf, whose name is long and like others."""
    if table.root is None:
        return change_tag
    return names.tag(change_tag, table.name.schema, table.name.name, *parts)


def index_options(options: str) -> sql.Composable:
    """Return an index column's options, as the catalogue spells them."""
    return type_name(f" {options}" if options else "")
