"""A primary or unique key: the rows that it would refuse, and how it comes.

Source: PostgreSQL manual, ALTER TABLE, Notes; section 11.6 (Unique Indexes).
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

from psycopg import sql

from migrator.facts import Constraint, Facts, Index, Table
from migrator.kernels import constraints, indexes, partitioned_index, same_index
from migrator.plan import (
    Action,
    Autocommit,
    Refusal,
    Step,
    Transaction,
    missing,
    present,
    render,
    type_name,
)

# Of a key with NULLS NOT DISTINCT: each more doubles the question for duplicates.
MOST_NULLABLE = 4


def duplicates(
    facts: Facts, columns: tuple[str, ...], *, nulls_not_distinct: bool = False
) -> sql.Composable:
    """
    Return the condition of rows whose columns are those of another row.

    Args:
        facts: of a table that holds the rows, which are told apart by their `ctid`.
        columns: the key's.
        nulls_not_distinct: whether NULL is a value like others.

    Source: PostgreSQL manual, section 11.6, Unique Indexes.
    """
    table = facts.table
    nullable = may_be_null(table, columns) if nulls_not_distinct else []
    # Apart, each kind is answered by the index; an OR within would go over all
    # NULLs for each row.
    return sql.SQL(" OR ").join(
        _like(table, columns, frozenset(c for c, is_null in kinds if is_null), nullable)
        for kinds in product(*(((c, False), (c, True)) for c in nullable))
    )


def may_be_null(table: Table, columns: Sequence[str]) -> list[str]:
    """Return those of the columns that may hold NULL."""
    found = map(table.require, columns)
    return [c.name for c in found if not c.not_null or c.unproved]


def _like(
    table: Table,
    columns: tuple[str, ...],
    nulls: frozenset[str],
    nullable: list[str],
) -> sql.Composable:
    """Return that another row is like this one, whose `nulls` are NULL."""
    # A leaf's rows go by the name of the whole.
    called = (table.root or table.name).name
    row = sql.Identifier(called)
    other = sql.Identifier(other_row(called))
    mine = [(missing if c in nulls else present)(value_of(row, c)) for c in nullable]
    same = [
        sql.SQL("{} IS NULL").format(value_of(other, c))
        if c in nulls
        else sql.SQL("{} {} {}").format(
            value_of(other, c), type_name(table.require(c).equal), value_of(row, c)
        )
        for c in columns
    ]
    # OFFSET keeps it a look into the index for each row of the chunk; as a join
    # the planner may read the whole table for each chunk.
    found = sql.SQL("EXISTS (SELECT FROM {} AS {} WHERE {} OFFSET 0)").format(
        table.name.identifier,
        other,
        sql.SQL(" AND ").join(
            [*same, sql.SQL("{}.ctid <> {}.ctid").format(other, row)]
        ),
    )
    return sql.SQL("({})").format(sql.SQL(" AND ").join([*mine, found]))


def other_row(name: str) -> str:
    """Return what the other row is called, beside a table of a name."""
    return "other" if name != "other" else "another"


def value_of(row: sql.Composable, column: str) -> sql.Composable:
    """Return a column of a row that has a name."""
    return sql.SQL("{}.{}").format(row, sql.Identifier(column))


def over_index(kind: str, index: str, when: sql.Composable) -> sql.Composable:
    """
    Return the definition of a key over an index that is there.

    Args:
        kind: as in `Constraint.kind`: p or u.
        index: the index's name; the constraint's, so that nothing is renamed.
        when: the clause that says when it is checked.

    Source: PostgreSQL manual, ALTER TABLE, ADD table_constraint_using_index.
    """
    return sql.SQL("{} USING INDEX {}{}").format(
        sql.SQL("PRIMARY KEY" if kind == "p" else "UNIQUE"),
        sql.Identifier(index),
        when,
    )


def steps(
    facts: Facts,
    kind: str,
    name: str,
    keys: sql.Composable,
    when: sql.Composable,
    *,
    include: tuple[str, ...] = (),
    nulls_not_distinct: bool = False,
    storage: tuple[str, ...] = (),
    tablespace: str | None = None,
) -> tuple[Step, Step]:
    """
    Return the steps that make a key: its index, built concurrently, and its name.

    Args:
        facts: of a table that is not partitioned.
        kind: as in `Constraint.kind`: p or u.
        name: the constraint's, and its index's.
        keys: its columns with their options.
        when: the clause that says when it is checked.
        include: further columns of the index.
        nulls_not_distinct: whether NULL is a value like others.
        storage: storage parameters of the index, each as name=value.
        tablespace: the index's; None for that of the table's database.
    """
    build = indexes.build_index(
        "build_index",
        facts.table,
        name,
        method="btree",
        keys=keys,
        unique=True,
        include=include,
        nulls_not_distinct=nulls_not_distinct,
        storage=storage,
        tablespace=tablespace,
    )
    table = facts.table.name
    attach = Step(
        name="add_constraint",
        work=constraints.add(table, name, over_index(kind, name, when)),
        reverse=(constraints.drop(table, name),),
    )
    return build, attach


def again(facts: Facts, found: Constraint) -> tuple[Action, ...]:
    """
    Return the actions that make a dropped key again, as it was.

    Args:
        facts: of the table, while the key was there; of a partitioned one with its
            partitions.
        found: the key.
    """
    index = facts.table.index(found.index or "")
    assert index is not None
    if facts.table.kind == "p":
        return _parts_again(facts, found, index)
    build, attach = steps(
        facts,
        found.kind,
        found.name,
        sql.SQL(", ").join(
            sql.Identifier(k.name) + indexes.index_options(k.options)
            for k in index.keys
        ),
        constraints.timing(found),
        include=index.include,
        nulls_not_distinct=index.nulls_not_distinct,
        storage=index.storage,
        tablespace=index.tablespace,
    )
    assert isinstance(build.work, Autocommit)
    assert isinstance(attach.work, Transaction)
    table = facts.table.name
    attached = constraints.with_comment(attach.work, table, found)
    looks = map(render, indexes.index_looks(table, index.name, index))
    twice = _held_twice(facts, found, index)
    built = replace(build.work, refusals=(*build.work.refusals, twice))
    return (
        same_index.again(built, facts.table, index),
        replace(attached, statements=(*attached.statements, *looks)),
    )


def _parts_again(facts: Facts, found: Constraint, index: Index) -> tuple[Action, ...]:
    """Return the same of a partitioned table: leaf by leaf, then what joins them."""
    actions: list[Autocommit | Transaction] = []
    when = constraints.timing(found)
    parts = partitioned_index.found(facts, index)
    for step in partitioned_index.build_key(
        parts,
        type_name(found.definition),
        lambda part: over_index(found.kind, part, when),
    ):
        assert isinstance(step.work, Autocommit | Transaction)
        actions.append(step.work)
    first, *others, last = actions
    assert isinstance(last, Transaction)
    return (
        replace(first, refusals=(*first.refusals, _held_twice(facts, found, index))),
        *others,
        *partitioned_index.looks(parts),
        constraints.with_comment(last, facts.table.name, found),
    )


def _held_twice(facts: Facts, found: Constraint, index: Index) -> Refusal:
    """Refuse the way back over keys that came twice meanwhile."""
    columns = [sql.Identifier(k.name) for k in index.keys]
    given = sql.SQL(" AND ").join(
        [sql.SQL("true")] if index.nulls_not_distinct else map(present, columns)
    )
    return Refusal(
        count=render(
            sql.SQL(
                "SELECT count(*) FROM (SELECT FROM {} WHERE {} GROUP BY {}"
                " HAVING count(*) > 1) AS twice"
            ).format(facts.table.name.identifier, given, sql.SQL(", ").join(columns))
        ),
        why=f'{{count:key of "{found.name}" is|keys of "{found.name}" are}} held by'
        " several rows, written since it was dropped",
        next="correct these rows, then run the same command again; or keep the new"
        " release.",
    )
