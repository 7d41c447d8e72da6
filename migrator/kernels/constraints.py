"""Constraints added, proved and dropped without a scan under a strong lock.

A constraint that the old release could violate is none before retire: its violating
rows are counted in chunks, by the condition that is built here. Then it is added
`NOT VALID` or over an index that was built concurrently, and proved by a statement
of its own.

Source: PostgreSQL manual, ALTER TABLE, Notes.
"""

from collections.abc import Mapping, Sequence
from itertools import product

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Constraint, Facts, Index, Table
from migrator.kernels import direct, indexes, partitioned_index
from migrator.kernels.partitioned_index import Part
from migrator.names import TableName
from migrator.plan import (
    Action,
    Autocommit,
    Lock,
    Step,
    TableLock,
    Transaction,
    missing,
    present,
    render,
    type_name,
)

# Of a key with NULLS NOT DISTINCT: each more doubles the question for duplicates.
MOST_NULLABLE = 4

_DEFERRABLE = {
    None: sql.SQL(""),
    "immediate": sql.SQL(" DEFERRABLE INITIALLY IMMEDIATE"),
    "deferred": sql.SQL(" DEFERRABLE INITIALLY DEFERRED"),
}


def deferrable(title: str, given: str | None) -> sql.Composable:
    """
    Return the clause that says when a constraint is checked.

    Args:
        title: the change's, for the message.
        given: "immediate" or "deferred"; None where it is not deferrable.

    Raises:
        Refused: it is neither.
    """
    if given not in _DEFERRABLE:
        raise Refused(
            f"{title}: deferrable is {given!r}.",
            next='write "immediate" or "deferred", which is what it is initially.',
        )
    return _DEFERRABLE[given]


def timing(found: Constraint) -> sql.Composable:
    """Return the clause that says when a constraint that is there is checked."""
    when = "deferred" if found.deferred else "immediate"
    return _DEFERRABLE[when if found.deferrable else None]


def require_lists(title: str, given: Mapping[str, object]) -> None:
    """
    Refuse parameters that are not lists of columns.

    Args:
        title: the change's, for the message.
        given: the parameters by name.
    """
    for name, value in given.items():
        if not value or not isinstance(value, list | tuple):
            raise Refused(
                f"{title}: `{name}` must be a list of one column or more.",
                next=f'write {name}=["column"].',
            )


def require_free_name(facts: Facts, name: str, *, indexed: bool = False) -> None:
    """
    Refuse a constraint's name that is taken.

    Args:
        facts: of the table.
        name: the constraint's.
        indexed: whether an index bears it as well.
    """
    names.checked(name, "constraint")
    for part in (facts.table, *facts.table.partitions):
        if part.constraint(name) is not None:
            raise Refused(
                f'Table {part.name} has a constraint "{name}" already.',
                next="choose another name, or drop it first.",
            )
    if indexed:
        require_free_index(facts, name)


def require_free_index(facts: Facts, name: str) -> None:
    """Refuse an index's name that is taken, but by what a failed build left."""
    names.checked(name, "index")
    mine = facts.table.index(name)
    if name in facts.relation_names and (mine is None or mine.valid):
        raise Refused(
            f'Schema "{facts.table.name.schema}" has a relation "{name}" already.',
            next="choose another name, or drop it first.",
        )


def require(facts: Facts, name: str) -> Constraint:
    """
    Return the constraint of that name.

    Raises:
        Refused: the table has no such constraint.
    """
    found = facts.table.constraint(name)
    if found is None:
        known = ", ".join(f'"{c.name}"' for c in facts.table.constraints)
        raise Refused(
            f'Table {facts.table.name} has no constraint "{name}".',
            next=f"correct the name; the table has {known or 'none'}.",
        )
    return found


def covering(table: Table, columns: tuple[str, ...], but: str = "") -> Index | None:
    """
    Return an index in which rows of equal columns stand together.

    Args:
        table: the table.
        columns: its columns.
        but: an index that does not count.
    """
    return next(
        (
            i
            for i in table.indexes
            if i.valid
            and i.plain
            and i.method == "btree"
            and i.name != but
            and {k.name for k in i.keys[: len(columns)]} == set(columns)
        ),
        None,
    )


def is_there(table: TableName, name: str, *, validated: bool = False) -> str:
    """Return the question whether a constraint is there, or validated as well."""
    return render(
        sql.SQL(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint"
            " WHERE conrelid = {}::pg_catalog.regclass AND conname = {}{})"
        ).format(
            sql.Literal(str(table)),
            sql.Literal(name),
            sql.SQL(" AND convalidated" if validated else ""),
        )
    )


def add(
    table: TableName,
    name: str,
    definition: sql.Composable,
    *,
    lock: Lock = Lock.ACCESS_EXCLUSIVE,
    also: TableName | None = None,
) -> Transaction:
    """
    Return the transaction that adds a constraint, once.

    Args:
        table: the table.
        name: the constraint's.
        definition: what follows the name; nothing in it may scan the table.
        lock: the strongest that is taken.
        also: a further table that is locked as strongly.
    """
    added = direct.catalogue_step(
        table,
        sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {}").format(
            table.identifier, sql.Identifier(name), definition
        ),
        lock=lock,
        also=(also,) if also else (),
    )
    return Transaction(
        statements=added.statements,
        lock=added.lock,
        table=added.table,
        also=added.also,
        done=is_there(table, name),
    )


def add_check(table: TableName, name: str, condition: sql.Composable) -> Step:
    """
    Return the step that adds a check and proves nothing; its reverse drops it.

    Args:
        table: the table.
        name: the constraint's.
        condition: in parentheses.
    """
    definition = sql.SQL("CHECK {} NOT VALID").format(condition)
    return Step(
        name="add_constraint",
        work=add(table, name, definition),
        reverse=(drop(table, name),),
    )


def drop_check(table: TableName, name: str) -> Step:
    """Return the step that drops a check where no release runs."""
    gone = drop(table, name)
    return Step(name="drop_constraint", work=gone, no_reverse="upgrade again")


def validated(table: TableName, name: str, also: TableName | None = None) -> Autocommit:
    """
    Return the statement that proves a constraint; writers go on.

    Args:
        table: the table.
        name: the constraint's.
        also: the table that a foreign key refers to.

    Source: PostgreSQL manual, ALTER TABLE, VALIDATE CONSTRAINT.
    """
    others = () if also in (None, table) else (also,)
    return Autocommit(
        statement=render(
            sql.SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}").format(
                table.identifier, sql.Identifier(name)
            )
        ),
        lock=Lock.SHARE_UPDATE_EXCLUSIVE,
        table=table,
        done=is_there(table, name, validated=True),
        scans=True,
        also=tuple(TableLock(table=t, lock=Lock.ROW_SHARE) for t in others),
    )


def validate(table: TableName, name: str, also: TableName | None = None) -> Step:
    """Return the step that proves a constraint; arguments as of `validated`."""
    return Step(
        name="validate_constraint",
        work=validated(table, name, also),
        no_reverse="the proof goes with the constraint",
    )


def drop(table: TableName, name: str, also: TableName | None = None) -> Transaction:
    """Return the transaction that drops a constraint, harmless where it is gone."""
    return direct.catalogue_step(
        table,
        sql.SQL("ALTER TABLE {} DROP CONSTRAINT IF EXISTS {}").format(
            table.identifier, sql.Identifier(name)
        ),
        also=(also,) if also else (),
    )


def foreign_key(
    suffix: str,
    table: TableName,
    name: str,
    definition: sql.Composable,
    parent: TableName,
) -> tuple[Step, Step]:
    """
    Return the steps that add a foreign key and prove it, both tables in use.

    Args:
        suffix: of the steps' names.
        table: the table that refers.
        name: the constraint's.
        definition: what follows the name, without NOT VALID.
        parent: the table that is referred to, or `table` itself.
    """
    also = None if parent == table else parent
    return (
        Step(
            name=f"add_foreign_key{suffix}",
            work=add(
                table,
                name,
                definition + sql.SQL(" NOT VALID"),
                lock=Lock.SHARE_ROW_EXCLUSIVE,
                also=also,
            ),
            reverse=(drop(table, name, also),),
        ),
        Step(
            name=f"validate_foreign_key{suffix}",
            work=validated(table, name, also),
            no_reverse="the proof goes with the foreign key",
        ),
    )


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


def key(
    facts: Facts,
    kind: str,
    name: str,
    keys: sql.Composable,
    when: sql.Composable,
    *,
    include: tuple[str, ...] = (),
    nulls_not_distinct: bool = False,
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
    )
    table = facts.table.name
    attach = Step(
        name="add_constraint",
        work=add(table, name, over_index(kind, name, when)),
        reverse=(drop(table, name),),
    )
    return build, attach


def key_again(facts: Facts, found: Constraint) -> tuple[Action, ...]:
    """
    Return the actions that make a dropped key again, as it was.

    Args:
        facts: of the table, while the key was there.
        found: the key.
    """
    index = facts.table.index(found.index or "")
    assert index is not None
    build, attach = key(
        facts,
        found.kind,
        found.name,
        sql.SQL(", ").join(
            sql.Identifier(k.name) + indexes.index_options(k.options)
            for k in index.keys
        ),
        timing(found),
        include=index.include,
        nulls_not_distinct=index.nulls_not_distinct,
    )
    assert isinstance(build.work, Autocommit)
    assert isinstance(attach.work, Transaction)
    return build.work, attach.work


def require_whole(facts: Facts) -> None:
    """Refuse a partitioned table, on which nothing unique is built concurrently."""
    if facts.table.kind == "p":
        raise Refused(
            f"Table {facts.table.name} is partitioned: PostgreSQL builds no index"
            " concurrently on all partitions, and none of them alone tells what is"
            " unique.",
            next="make the change in a maintenance window.",
        )


def lookup(facts: Facts, columns: tuple[str, ...], name: str) -> tuple[Step, ...]:
    """
    Return the build of an index that finds rows of equal columns; none if there is.

    Args:
        facts: of the table.
        columns: its columns.
        name: the index's.
    """
    if covering(facts.table, columns, but=name) is not None:
        return ()
    if facts.table.kind == "p":
        parts = _lookup_parts(facts, columns, name)
        return partitioned_index.build(parts, unique=False)
    return (_lookup(facts, columns, name),)


def lookup_gone(facts: Facts, columns: tuple[str, ...], name: str) -> tuple[Step, ...]:
    """Return the drop of what `lookup` built; taking it back builds it again."""
    if not lookup(facts, columns, name) and facts.table.index(name) is None:
        return ()
    if facts.table.kind == "p":
        parts = _lookup_parts(facts, columns, name)
        return (partitioned_index.drop_parts(parts, unique=False),)
    step = _lookup(facts, columns, name)
    assert isinstance(step.work, Autocommit)
    (gone,) = step.reverse
    return (Step(name="drop_index", work=gone, reverse=(step.work,)),)


def _lookup_parts(
    facts: Facts, columns: tuple[str, ...], name: str
) -> tuple[Part, ...]:
    keys = sql.SQL(", ").join(map(sql.Identifier, columns))
    text = indexes.definition(method="btree", keys=keys)
    return partitioned_index.declared(facts, name, text)


def _lookup(facts: Facts, columns: tuple[str, ...], name: str) -> Step:
    return indexes.build_index(
        "create_index",
        facts.table,
        name,
        method="btree",
        keys=sql.SQL(", ").join(map(sql.Identifier, columns)),
    )


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
    return [c for c in columns if not table.require(c).not_null]


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
