"""Indexes of partitioned tables: built leaf by leaf, dropped by one transaction.

The index of the partitioned table comes first, on itself alone: from then on each
partition that is made or attached gets one from the server. Those that were there
before are built concurrently, and attached from the leaves upwards, so that no
attachment reaches further than one level (`validatePartitionedIndex` would lock
the tables above).

Source: PostgreSQL manual, section 5.12.2.2; ALTER INDEX, ATTACH PARTITION.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Facts, Index, Table
from migrator.kernels import direct, indexes, same_index
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

#: What a reviewer should know of the drop of an index of a partitioned table.
DROP_NOTICE = Notice(
    text="The drop locks the table and all partitions (ACCESS EXCLUSIVE) in one"
    " transaction, for an instant. Going back builds the index again, leaf by leaf."
)
#: What a reviewer should know of a key of a partitioned table.
KEY_NOTICE = Notice(
    text="The constraint is made on the partitioned table first; a partition that is"
    " made or attached behind that gets its own from the server, which builds it while"
    " it is attached. Going back, and the end of the index that finds duplicates, lock"
    " the table and all partitions for an instant."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One table of the tree, and its index."""

    table: Table
    index: str
    #: What DDL says behind the table's name.
    definition: sql.Composable
    #: The one that is made again; None for a new one.
    like: Index | None = None

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
        _again(table, own)
        for table in facts.table.partitions
        for own in table.indexes
        if own.root == index.name
    ]
    return (_again(facts.table, index), *parts)


def _again(table: Table, index: Index) -> Part:
    definition = type_name(index.definition)
    return Part(table=table, index=index.name, definition=definition, like=index)


def part_name(table: TableName, name: str) -> str:
    """Return the name of an index's part on a partition."""
    if name.startswith(names.OWNED):
        # Told by how it begins, and known by that.
        return names.fitted(name, f"_{names.tag(table.schema, table.name, name)}")
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


def probes(title: str, parts: Sequence[Part], *, unique: bool) -> tuple[Probe, ...]:
    """
    Return the trials that an index of a partitioned table can be made.

    Args:
        title: the change's, for messages.
        parts: of the index.
        unique: whether it is unique, which no partition tells of whose rows an
            expression decides (manual, section 5.12.2.3).
    """
    whole = parts[0].table.name
    plain = sql.SQL(
        "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_partitioned_table"
        " WHERE partexprs IS NOT NULL AND partrelid IN ({}))"
    ).format(direct.members(whole))
    decided = Probe(
        statements=(),
        question=render(plain),
        otherwise=f"{title}: an expression decides on the partition of a row, so that"
        " PostgreSQL holds nothing unique across partitions.",
        next="partition the table by columns.",
    )
    free = tuple(_free(part) for part in parts if part.name.schema != whole.schema)
    return (decided, *free) if unique and parts[0].table.kind == "p" else free


def _free(part: Part) -> Probe:
    """Return the trial that a name in another schema than the whole's is free."""
    free = sql.SQL(
        "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_class c"
        " LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid"
        " WHERE c.oid = pg_catalog.to_regclass({}) AND (i.indisvalid"
        " OR i.indrelid IS DISTINCT FROM pg_catalog.to_regclass({})))"
    ).format(sql.Literal(str(part.name)), sql.Literal(str(part.table.name)))
    return Probe(
        statements=(),
        question=render(free),
        otherwise=f'Schema "{part.name.schema}" has a relation "{part.index}" already.',
        next="choose another name, or drop it first.",
    )


def notices(facts: Facts) -> tuple[Notice, ...]:
    """Return what a reviewer should know of an index of a partitioned table."""
    return (
        Notice(
            text="The index is made on the partitioned table first; a partition that"
            " is made or attached meanwhile gets its own from the server, which"
            " builds it while it is attached. Leaves follow one another:"
            f" {len(facts.leaves)}. Going back drops all of them in one transaction,"
            " which locks the table and all partitions for an instant."
        ),
    )


def build(parts: Sequence[Part], *, unique: bool) -> Steps:
    """
    Return the steps that build an index of a partitioned table.

    Args:
        parts: of the index, the whole table's first, each before those below it.
        unique: whether it is unique.
    """
    above = _parents(parts)

    def alone(part: Part) -> Step:
        text = sql.SQL("CREATE {unique}INDEX {name} ON ONLY {table} {rest}").format(
            unique=sql.SQL("UNIQUE " if unique else ""),
            name=sql.Identifier(part.index),
            table=part.table.name.identifier,
            rest=part.definition,
        )
        # It takes SHARE itself, on this table alone.
        work = _only(part.table.name, Lock.SHARE_ROW_EXCLUSIVE, text)
        return _alone(part, above, work, gone(part))

    def leaf(part: Part) -> Steps:
        up = above[part.table.name]
        return _leaf(part, up, unique=unique), _attach(part, up)

    return _tree(parts, alone, leaf, "CREATE INDEX CONCURRENTLY")


def build_key(
    parts: Sequence[Part],
    definition: sql.Composable,
    over_index: Callable[[str], sql.Composable],
) -> Steps:
    """
    Return the steps that make a key of a partitioned table.

    Each leaf's index is built concurrently; its constraint is added over it and
    attached in one transaction.

    Args:
        parts: of the index, the whole table's first, each before those below it.
        definition: the constraint's, where it makes its own index.
        over_index: the same over an index that is there.
    """
    above = _parents(parts)

    def alone(part: Part) -> Step:
        table = part.table.name
        text = sql.SQL("ALTER TABLE ONLY {} ADD CONSTRAINT {} {}").format(
            table.identifier, sql.Identifier(part.index), definition
        )
        work = _only(table, Lock.ACCESS_EXCLUSIVE, text)
        return _alone(part, above, work, key_gone(part))

    def leaf(part: Part) -> Steps:
        up = above[part.table.name]
        text = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {}").format(
            part.table.name.identifier,
            sql.Identifier(part.index),
            over_index(part.index),
        )
        return _leaf(part, up, unique=True), _attach(part, up, text)

    missing = "CREATE UNIQUE INDEX CONCURRENTLY, ADD CONSTRAINT … USING INDEX"
    return _tree(parts, alone, leaf, missing)


def _parents(parts: Sequence[Part]) -> dict[TableName, Part]:
    """Return for each table but the whole the part above its own."""
    by_table = {part.table.name: part for part in parts}
    return {
        part.table.name: by_table[part.table.parent]
        for part in parts[1:]
        if part.table.parent is not None
    }


def _tree(
    parts: Sequence[Part],
    alone: Callable[[Part], Step],
    leaf: Callable[[Part], Steps],
    missing: str,
) -> Steps:
    """Return the steps of a tree: from the top, leaf by leaf, up from below."""
    above = _parents(parts)
    between = [p for p in parts if p.table.kind == "p"]
    return (
        *(alone(part) for part in between),
        *(s for part in parts if part.table.kind != "p" for s in leaf(part)),
        *(_attach(part, above[part.table.name]) for part in reversed(between[1:])),
        _complete(parts[0], missing),
    )


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
    step = drop_parts(found(facts, index), unique=index.unique)
    assert isinstance(step.work, Transaction)
    return replace(step, work=replace(step.work, refusals=refusals))


def drop_parts(parts: Sequence[Part], *, unique: bool) -> Step:
    """Return the drop of an index that is told by its parts, as `drop` does."""
    again: list[Action] = []
    for step in build(parts, unique=unique):
        assert isinstance(step.work, Transaction | Autocommit)
        again.append(step.work)
    return Step(
        name="drop_index",
        work=gone(parts[0]),
        # The question whether each partition has its part comes last.
        reverse=(*again[:-1], *looks(parts), again[-1]),
    )


def looks(parts: Sequence[Part]) -> tuple[Transaction, ...]:
    """Return what gives parts that are made again what no definition says."""
    found: list[Transaction] = []
    for part in parts:
        table, like = part.table.name, part.like
        if like is None:
            continue
        if texts := tuple(indexes.index_looks(table, part.index, like)):
            # A partition may be gone by then, and its part with it.
            gone = render(sql.SQL("SELECT NOT {}").format(_is_there(part)))
            lock = Lock.SHARE_UPDATE_EXCLUSIVE
            if like.replica_identity:
                lock = Lock.ACCESS_EXCLUSIVE
            found.append(replace(_only(table, lock, *texts), done=gone))
    return tuple(found)


def _alone(
    part: Part, above: dict[TableName, Part], work: Transaction, back: Transaction
) -> Step:
    """Return the index of a partitioned table itself, which holds no rows."""
    table = part.table
    done = render(sql.SQL("SELECT {}").format(_is_mine(part)))
    if table.root is not None:
        done += render(sql.SQL(" OR NOT {}").format(direct.is_part(table)))
        mine = _attached(part.table.name, above[table.name])
        assert back.done is not None
        back = replace(back, done=back.done + render(sql.SQL(" OR {}").format(mine)))
    return Step(
        name=table.step("create_parent"),
        work=replace(
            work,
            done=done,
            refusals=_taken(part),
            at_first=(direct.name_taken(part.name),),
        ),
        reverse=(back,),
    )


def key_gone(part: Part) -> Transaction:
    """Return the transaction that drops a key with all that is attached to it."""
    work = direct.catalogue_step(
        part.table.name,
        sql.SQL("ALTER TABLE {} DROP CONSTRAINT IF EXISTS {}").format(
            part.table.name.identifier, sql.Identifier(part.index)
        ),
    )
    return replace(work, done=render(sql.SQL("SELECT NOT {}").format(_is_there(part))))


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
        _is_mine(part, "i.indisvalid"), attached, direct.is_part(part.table)
    )
    left = sql.SQL("SELECT {}").format(_is_there(part, "NOT i.indisvalid"))
    # What is attached goes with the index above, and with it alone.
    away = sql.SQL("SELECT NOT {} OR {}").format(_is_there(part), attached)
    return replace(
        step,
        work=replace(
            work, done=render(done), leftover=render(left), refusals=_taken(part)
        ),
        reverse=(replace(back, done=render(away)),),
    )


def _attach(part: Part, above: Part, *first: sql.Composable) -> Step:
    """Return the step that makes an index a part of the one above it."""
    table = part.table
    text = sql.SQL("ALTER INDEX {} ATTACH PARTITION {}").format(
        above.name.identifier, part.name.identifier
    )
    # It locks the index, which is as much for whoever queries the table.
    work = _only(table.name, Lock.ACCESS_EXCLUSIVE, *first, text)
    done = sql.SQL("SELECT {} OR NOT {}").format(
        _attached(table.name, above), direct.is_part(table)
    )
    return Step(
        name=table.step("attach_index"),
        work=replace(work, done=render(done)),
        no_reverse="it goes with the index of the partitioned table",
    )


def _only(table: TableName, lock: Lock, *texts: sql.Composable) -> Transaction:
    """Return a transaction that locks a table without its partitions."""
    first = sql.SQL("LOCK TABLE ONLY {} IN {} MODE").format(
        table.identifier, sql.SQL(lock.value)
    )
    return Transaction(
        statements=(render(first), *map(render, texts)), lock=lock, table=table
    )


def _complete(whole: Part, missing: str) -> Step:
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
                    " made, and not known yet. Or the last one that lacked it was"
                    " detached or dropped, which the server does not look at",
                    next=f"build it there ({missing}, then ALTER INDEX … ATTACH"
                    " PARTITION) and run the same command again. Where none lacks"
                    " it, `migrator rollback`, and start anew.",
                ),
            ),
        ),
        no_reverse="nothing is changed",
    )


def _is_there(part: Part, which: str = "true") -> sql.Composable:
    """Return the condition that a part is there, on its table."""
    return same_index.is_on(part.name, part.table.name, type_name(which))


def _is_mine(part: Part, which: str = "true") -> sql.Composable:
    """Return the same; of one that is made again, that it is like it."""
    like = sql.SQL("true") if part.like is None else same_index.is_like(part.like)
    both = sql.SQL("{} AND {}").format(type_name(which), like)
    return same_index.is_on(part.name, part.table.name, both)


def _taken(part: Part) -> tuple[Refusal, ...]:
    """Return the condition that the name of one that is made again is free."""
    if part.like is None:
        return ()
    return (same_index.taken(part.name, part.table.name, part.like),)


def _attached(table: TableName, above: Part) -> sql.Composable:
    """Return the condition that a table has a part of the index above."""
    return sql.SQL(
        "EXISTS (SELECT FROM pg_catalog.pg_inherits h JOIN pg_catalog.pg_index i"
        " ON i.indexrelid = h.inhrelid WHERE h.inhparent ="
        " pg_catalog.to_regclass({}) AND i.indrelid = pg_catalog.to_regclass({}))"
    ).format(sql.Literal(str(above.name)), sql.Literal(str(table)))
