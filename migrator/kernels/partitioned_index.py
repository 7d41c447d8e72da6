"""Indexes of partitioned tables: built leaf by leaf, dropped by one transaction.

The index of the partitioned table comes first, on itself alone: from then on each
partition that is made or attached gets one from the server. Those that were there
before are built concurrently, and attached from the leaves upwards, so that no
attachment reaches further than one level (`validatePartitionedIndex` would lock
the tables above).

Source: PostgreSQL manual, section 5.12.2.2; ALTER INDEX, ATTACH PARTITION.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Facts, Index, Table
from migrator.kernels import direct, indexes
from migrator.names import TableName
from migrator.plan import (
    Action,
    Autocommit,
    Lock,
    Notice,
    Probe,
    Refusal,
    Step,
    Steps,
    Transaction,
    render,
    type_name,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One table of the tree, and its index."""

    table: Table
    index: str
    #: What DDL says behind the table's name.
    definition: sql.Composable

    @property
    def name(self) -> TableName:
        """The index with its schema, which is the table's."""
        return TableName(self.table.name.schema, self.index)


def declared(facts: Facts, name: str, definition: sql.Composable) -> tuple[Part, ...]:
    """Return the parts of an index that is to be built, the whole table first."""
    return tuple(
        Part(
            table=table,
            index=name if table.root is None else part_name(table.name, name),
            definition=definition,
        )
        for table in (facts.table, *facts.table.partitions)
    )


def found(facts: Facts, index: Index) -> tuple[Part, ...]:
    """Return the parts of an index that is there, the whole table first."""
    parts = [
        Part(table=table, index=own.name, definition=type_name(own.definition))
        for table in facts.table.partitions
        for own in table.indexes
        if own.root == index.name
    ]
    whole = type_name(index.definition)
    return (Part(table=facts.table, index=index.name, definition=whole), *parts)


def part_name(table: TableName, name: str) -> str:
    """Return the name of an index's part on a partition."""
    whole = f"{table.name}_{name}"
    if len(whole.encode()) <= names.MAX_NAME_BYTES:
        return whole
    return names.fitted(whole, f"_{names.tag(table.schema, whole)}")


def require_free(facts: Facts, parts: Sequence[Part]) -> None:
    """
    Refuse an index of which a part has a name that is taken.

    What a failed build on a leaf left is no reason: it is dropped.
    """
    schema = facts.table.name.schema
    for part in parts:
        mine = part.table.index(part.index)
        left = part.table.kind != "p" and mine is not None and not mine.valid
        taken = part.name.schema == schema and part.index in facts.relation_names
        if (taken or mine is not None) and not left:
            raise Refused(
                f'Schema "{part.name.schema}" has a relation "{part.index}" already.',
                next="choose another name, or drop it first.",
            )


def probes(facts: Facts, parts: Sequence[Part]) -> tuple[Probe, ...]:
    """Return the trials that names in the schemas of other partitions are free."""
    return tuple(
        Probe(
            statements=(),
            question=render(
                sql.SQL(
                    "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_class c"
                    " LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid"
                    " WHERE c.oid = pg_catalog.to_regclass({}) AND (i.indisvalid"
                    " OR i.indrelid IS DISTINCT FROM pg_catalog.to_regclass({})))"
                ).format(sql.Literal(str(part.name)), sql.Literal(str(part.table.name)))
            ),
            otherwise=f'Schema "{part.name.schema}" has a relation "{part.index}"'
            " already.",
            next="choose another name, or drop it first.",
        )
        for part in parts
        if part.name.schema != facts.table.name.schema
    )


def notices(facts: Facts) -> tuple[Notice, ...]:
    """Return what a reviewer should know of an index of a partitioned table."""
    return (
        Notice(
            text="The index is made on the partitioned table first; a partition that"
            " is made or attached meanwhile gets its own from the server, which"
            f" builds it while it is attached. {len(facts.leaves)} leaves follow one"
            " another. Going back drops all of them in one transaction, which locks"
            " the table and all partitions for an instant."
        ),
    )


def build(facts: Facts, parts: Sequence[Part], *, unique: bool) -> Steps:
    """
    Return the steps that build an index of a partitioned table.

    Args:
        facts: of the table.
        parts: of the index, the whole table's first, each before those below it.
        unique: whether it is unique.
    """
    whole = parts[0]
    by_table = {part.table.name: part for part in parts}
    above = {
        part.table.name: by_table[part.table.parent]
        for part in parts[1:]
        if part.table.parent is not None
    }
    made = [_alone(p, above, unique=unique) for p in parts if p.table.kind == "p"]
    leaves = [
        step
        for part in parts
        if part.table.kind != "p"
        for step in (
            _leaf(part, above[part.table.name], unique=unique),
            _attach(part, above[part.table.name]),
        )
    ]
    between = [
        _attach(part, above[part.table.name])
        for part in reversed(parts[1:])
        if part.table.kind == "p"
    ]
    return (*made, *leaves, *between, _complete(whole))


def drop(facts: Facts, index: Index, *refusals: Refusal) -> Step:
    """
    Return the drop of an index of a partitioned table, and of all its parts.

    PostgreSQL drops no such index concurrently, nor one of its parts: it takes one
    transaction that locks all of them, and changes catalogues only. Its reverse
    builds it again as it was.

    Args:
        facts: of the table.
        index: the partitioned table's.
        refusals: conditions read under the lock.
    """
    parts = found(facts, index)
    again: list[Action] = []
    for step in build(facts, parts, unique=index.unique):
        assert isinstance(step.work, Transaction | Autocommit)
        again.append(step.work)
    return Step(
        name="drop_index",
        work=replace(gone(parts[0]), refusals=refusals),
        reverse=tuple(again),
    )


def _alone(part: Part, above: dict[TableName, Part], *, unique: bool) -> Step:
    """Return the index of a partitioned table itself, which holds no rows."""
    table = part.table
    text = sql.SQL("CREATE {unique}INDEX {name} ON ONLY {table} {rest}").format(
        unique=sql.SQL("UNIQUE " if unique else ""),
        name=sql.Identifier(part.index),
        table=table.name.identifier,
        rest=part.definition,
    )
    # It takes SHARE itself, on this table alone.
    work = _only(table.name, Lock.SHARE_ROW_EXCLUSIVE, text)
    done = render(sql.SQL("SELECT {}").format(_is_there(part)))
    back = gone(part)
    if table.root is not None:
        done += render(sql.SQL(" OR NOT {}").format(direct.is_part(table)))
        mine = _attached(part.table.name, above[table.name])
        assert back.done is not None
        back = replace(back, done=back.done + render(sql.SQL(" OR {}").format(mine)))
    return Step(
        name=table.step("create_parent"),
        work=replace(work, done=done),
        reverse=(back,),
    )


def gone(part: Part) -> Transaction:
    """Return the transaction that drops an index with all that is attached to it."""
    # Its lock is on all partitions, as the drop's is.
    work = direct.catalogue_step(
        part.table.name,
        sql.SQL("DROP INDEX IF EXISTS {}").format(part.name.identifier),
    )
    return replace(work, done=render(sql.SQL("SELECT NOT {}").format(_is_there(part))))


def _leaf(part: Part, above: Part, *, unique: bool) -> Step:
    step = indexes.build(
        "create_index", part.table, part.index, part.definition, unique=unique
    )
    work, (back,) = step.work, step.reverse
    assert isinstance(work, Autocommit)
    assert isinstance(back, Autocommit)
    attached = _attached(part.table.name, above)
    done = sql.SQL("SELECT {} OR {} OR NOT {}").format(
        _is_there(part, "AND i.indisvalid"), attached, direct.is_part(part.table)
    )
    left = sql.SQL("SELECT {}").format(_is_there(part, "AND NOT i.indisvalid"))
    # What is attached goes with the index above, and with it alone.
    away = sql.SQL("SELECT NOT {} OR {}").format(_is_there(part), attached)
    return replace(
        step,
        work=replace(work, done=render(done), leftover=render(left)),
        reverse=(replace(back, done=render(away)),),
    )


def _attach(part: Part, above: Part) -> Step:
    """Return the step that makes an index a part of the one above it."""
    table = part.table
    text = sql.SQL("ALTER INDEX {} ATTACH PARTITION {}").format(
        above.name.identifier, part.name.identifier
    )
    # It locks the index, which is as much for whoever queries the table.
    work = _only(table.name, Lock.ACCESS_EXCLUSIVE, text)
    done = sql.SQL("SELECT {} OR NOT {}").format(
        _attached(table.name, above), direct.is_part(table)
    )
    return Step(
        name=table.step("attach_index"),
        work=replace(work, done=render(done)),
        no_reverse="it goes with the index of the partitioned table",
    )


def _only(table: TableName, lock: Lock, text: sql.Composable) -> Transaction:
    """Return a transaction that locks a table without its partitions."""
    first = sql.SQL("LOCK TABLE ONLY {} IN {} MODE").format(
        table.identifier, sql.SQL(lock.value)
    )
    return Transaction(statements=(render(first), render(text)), lock=lock, table=table)


def _complete(whole: Part) -> Step:
    """Return the question whether each partition has its part."""
    invalid = sql.SQL(
        "SELECT pg_catalog.count(*) FROM pg_catalog.pg_index WHERE indexrelid ="
        " pg_catalog.to_regclass({}) AND NOT indisvalid"
    ).format(sql.Literal(str(whole.name)))
    return Step(
        name="check_index",
        work=Transaction(
            statements=(render(sql.SQL("SELECT {}").format(_is_there(whole))),),
            table=whole.table.name,
            refusals=(
                Refusal(
                    count=render(invalid),
                    why=f'index "{whole.index}" is not valid, since a partition of'
                    " the table has none: it was attached before the index was"
                    " made, and not known yet",
                    next="build it there (CREATE INDEX CONCURRENTLY, then ALTER INDEX"
                    " … ATTACH PARTITION) and run the same command again; or `migrator"
                    " rollback`, and start anew.",
                ),
            ),
        ),
        no_reverse="nothing is changed",
    )


def _is_there(part: Part, which: str = "") -> sql.Composable:
    """Return the condition that a part is there, on its table."""
    return sql.SQL(
        "EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indexrelid ="
        " pg_catalog.to_regclass({}) AND i.indrelid = pg_catalog.to_regclass({}){})"
    ).format(
        sql.Literal(str(part.name)),
        sql.Literal(str(part.table.name)),
        type_name(f" {which}" if which else ""),
    )


def _attached(table: TableName, above: Part) -> sql.Composable:
    """Return the condition that a table has a part of the index above."""
    return sql.SQL(
        "EXISTS (SELECT FROM pg_catalog.pg_inherits h JOIN pg_catalog.pg_index i"
        " ON i.indexrelid = h.inhrelid WHERE h.inhparent ="
        " pg_catalog.to_regclass({}) AND i.indrelid = pg_catalog.to_regclass({}))"
    ).format(sql.Literal(str(above.name)), sql.Literal(str(table)))
