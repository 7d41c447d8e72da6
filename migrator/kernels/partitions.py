"""Partitions attached and detached while their table is in use.

A table is attached without a scan where a CHECK implies its bounds and each index and
foreign key of the parent has its like on it; the partition for all other rows, where
there is one, needs a CHECK that it holds none of those (manual, section 5.12.2.2).
"""

from dataclasses import replace

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Constraint, Facts, Index, Table
from migrator.kernels import constraints, direct, indexes, unique_key
from migrator.names import TableName
from migrator.plan import (
    Autocommit,
    Lock,
    Probe,
    Step,
    TableLock,
    Transaction,
    render,
    type_name,
)


def require_partitioned(facts: Facts) -> None:
    """
    Refuse a table that has no partitions of its own to speak of.

    Raises:
        Refused: it is not partitioned, is a partition itself, or of another owner.
    """
    table = facts.table
    if table.kind != "p":
        raise Refused(
            f"Table {table.name} is not partitioned.", next="name one that is."
        )
    if table.root is not None:
        raise Refused(
            f"Table {table.name} is a partition itself, of {table.root}: what its"
            " partitions take follows from more than its own bounds.",
            next="use plain SQL, with a CHECK over the bounds of all levels.",
        )
    if not table.owned:
        raise Refused(
            f"The role of this connection does not own table {table.name}.",
            next="connect as the owner, or as a member of the owner's role.",
        )


def require_not_referred(facts: Facts) -> None:
    """
    Refuse a table that foreign keys refer to.

    Raises:
        Refused: at each DETACH the server reads the tables that have these keys, under
            ACCESS EXCLUSIVE on them.
    """
    members = {facts.table.name, *(p.name for p in facts.table.partitions)}
    for key in facts.table.foreign_keys:
        if key.to in members:
            raise Refused(
                f'Foreign key "{key.name}" of table {key.table} refers to {key.to}: to'
                " detach a partition the server looks up all rows of that table, and"
                " stops whoever uses it.",
                next="drop that foreign key first, by a change of its own.",
            )


def require_attachable(facts: Facts, part: Table) -> None:
    """
    Refuse a table that is none to attach, or not without a scan.

    Args:
        facts: of the parent.
        part: the table.
    """
    where = f"Table {part.name}"
    if part.root is not None:
        raise Refused(
            f"{where} is a partition of {part.root} already.",
            next="name another table, or detach it first.",
        )
    if part.kind != "r" or part.is_child or part.has_children or part.is_temporary:
        raise Refused(
            f"{where} is partitioned, foreign, temporary, a view, or takes part in"
            " inheritance.",
            next="attach it with plain SQL, in a maintenance window.",
        )
    if not part.owned:
        raise Refused(
            f"The role of this connection does not own table {part.name}.",
            next="connect as the owner, or as a member of the owner's role.",
        )
    if facts.table.partition_by.startswith("HASH"):
        raise Refused(
            f"Table {facts.table.name} is partitioned by hash: a CHECK that"
            " implies the bounds of one names the parent by its number.",
            next="attach it with plain SQL, in a maintenance window.",
        )
    if part.of_type is not None:
        raise Refused(
            f"{where} is a typed one, of {part.of_type}, which no partition is.",
            next="free it of the type: ALTER TABLE … NOT OF.",
        )
    strict = {c.name for c in facts.table.columns if c.not_null and not c.unproved}
    for mine in part.constraints:
        named = facts.table.constraint(mine.name)
        kept = named is not None and named.validated and named.kind == mine.kind == "c"
        if mine.kind == "n":
            kept = not strict.isdisjoint(mine.columns)
        if kept and not mine.validated and not _unenforced(mine):
            raise Refused(
                f'{where} has "{mine.name}" NOT VALID, where its parent has the same:'
                " PostgreSQL attaches none that is not proved.",
                next=f'ALTER TABLE {part.name} VALIDATE CONSTRAINT "{mine.name}"'
                " first, which keeps nobody waiting.",
            )
    parents = {t.name for t in facts.table.triggers}
    for trigger in part.triggers:
        if " REFERENCING " in trigger.definition and _FOR_ROW in trigger.definition:
            raise Refused(
                f'{where} has a trigger "{trigger.name}" for each row with a transition'
                " table, which no partition has.",
                next="make it FOR EACH STATEMENT, or drop it first.",
            )
        if trigger.name in parents:
            raise Refused(
                f'{where} has a trigger "{trigger.name}" of its own; that of the'
                " parent would take its name.",
                next="drop it first: rows of a partition fire the parent's.",
            )
    for key in missing_foreign_keys(facts.table, part):
        raise Refused(
            f"{where} has not the foreign key of its parent"
            f' "{key.name}" ({key.definition}): the server would look up all rows'
            " under ACCESS EXCLUSIVE.",
            next="add it to the table first, by AddForeignKey.",
        )
    for index in missing_indexes(facts.table, part):
        found = key_of(facts.table, index)
        if found is not None and found.kind == "x":
            raise Refused(
                f"{where} has not the exclusion constraint of its parent"
                f' "{index.name}", which no index makes that is built'
                " concurrently.",
                next="make it on the table in a maintenance window.",
            )


_FOR_ROW = " FOR EACH ROW "


def _unenforced(found: Constraint) -> bool:
    """Tell whether it holds no row at all (18+), which the trial refuses."""
    return found.definition.endswith("NOT ENFORCED")


def default_of(table: Table) -> Table | None:
    """Return the partition that takes all other rows, None where there is none."""
    return next((p for p in _own(table) if p.bounds == "DEFAULT"), None)


def own(table: Table, name: TableName) -> Table | None:
    """Return the partition of that name, on the first level."""
    return next((p for p in _own(table) if p.name == name), None)


def _own(table: Table) -> tuple[Table, ...]:
    return tuple(p for p in table.partitions if p.parent == table.name)


def trial(facts: Facts, part: Table, bounds: sql.Composable) -> tuple[str, ...]:
    """
    Return the statements that attach an empty copy of a table to one of the parent.

    Args:
        facts: of the parent.
        part: the table.
        bounds: behind FOR VALUES; the copies of the other partitions have theirs.
    """
    parent, child = (sql.Identifier("pg_temp", n) for n in (_PARENT, _PART))
    copy = sql.SQL(
        "CREATE TEMP TABLE {} (LIKE {} INCLUDING CONSTRAINTS INCLUDING GENERATED"
        " INCLUDING IDENTITY INCLUDING INDEXES)"
    )
    others = (p for p in _own(facts.table) if p.name != part.name)
    return tuple(
        render(statement)
        for statement in (
            copy.format(sql.Identifier(_PARENT), facts.table.name.identifier)
            + sql.SQL(" PARTITION BY {}").format(type_name(facts.table.partition_by)),
            *(
                sql.SQL("CREATE TEMP TABLE {} PARTITION OF {} {}").format(
                    sql.Identifier(f"migrator_other_{number}"),
                    parent,
                    type_name(other.bounds),
                )
                for number, other in enumerate(others)
            ),
            copy.format(sql.Identifier(_PART), part.name.identifier),
            sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES {}").format(
                parent, child, bounds
            ),
        )
    )


_PARENT, _PART = "migrator_parent", "migrator_part"


def condition(facts: Facts, part: Table, bounds: sql.Composable) -> Probe:
    """Return the reading of what the server holds a partition's rows to."""
    return Probe(
        statements=trial(facts, part, bounds),
        question="SELECT pg_catalog.pg_get_partition_constraintdef("
        f"'pg_temp.{_PART}'::pg_catalog.regclass)",
        otherwise="",
    )


def missing_indexes(parent: Table, part: Table) -> tuple[Index, ...]:
    """
    Return the parent's indexes that have no like on a table.

    The server would build each of them under ACCESS EXCLUSIVE (manual, ALTER TABLE,
    ATTACH PARTITION). One behind a key needs another behind a key of the same kind.
    """
    return tuple(
        i
        for i in parent.indexes
        if not any(
            j.valid
            and j.unique == i.unique
            and j.definition == i.definition
            and _key(parent, i) in ("", _key(part, j))
            for j in part.indexes
        )
    )


def missing_foreign_keys(parent: Table, part: Table) -> tuple[Constraint, ...]:
    """Return the parent's foreign keys that have no proved like on a table."""
    return tuple(
        k
        for k in parent.constraints
        if k.kind == "f"
        and not any(
            j.kind == "f" and j.validated and j.definition == k.definition
            for j in part.constraints
        )
    )


def key_of(table: Table, index: Index) -> Constraint | None:
    """Return the key that stands on an index, None where there is none."""
    return next(
        (k for k in table.constraints if k.index == index.name and k.kind in "pux"),
        None,
    )


def _key(table: Table, index: Index) -> str:
    found = key_of(table, index)
    return "" if found is None else found.kind


def like(facts: Facts, part: Table, index: Index, number: int) -> tuple[Step, ...]:
    """
    Return the build of an index that is like one of the parent, and its key.

    Args:
        facts: of the parent.
        part: the table that gets it.
        index: the parent's.
        number: tells the steps of several apart.
    """
    stem = f"{part.name.name}_{'_'.join(index.columns)}"
    name = names.fitted(stem, f"_{number}_{facts.tag}")
    build = indexes.build_as(f"build_index_{number}", part, name, index)
    key = key_of(facts.table, index)
    if key is None:
        return (build,)
    when = constraints.timing(key)
    attach = Step(
        name=f"add_key_{number}",
        work=constraints.add(
            part.name, name, unique_key.over_index(key.kind, name, when)
        ),
        reverse=(constraints.drop(part.name, name),),
    )
    return (build, attach)


def checked(
    table: TableName, name: str, text: sql.Composable, step: str
) -> tuple[Step, Step]:
    """
    Return the steps that hold a table to a condition, and prove it.

    Args:
        table: the table.
        name: the check's.
        text: the condition.
        step: what the steps are named after.
    """
    add = Step(
        name=f"add_{step}",
        work=constraints.add(table, name, sql.SQL("CHECK ({}) NOT VALID").format(text)),
        reverse=(constraints.drop(table, name),),
    )
    proof = Step(
        name=f"validate_{step}",
        work=constraints.validated(table, name),
        no_reverse="the proof goes with the check",
    )
    return add, proof


def attach(
    parent: Table,
    part: TableName,
    bounds: sql.Composable,
    *after: sql.Composable,
    also: tuple[TableName, ...] = (),
) -> Transaction:
    """
    Return the transaction that attaches a table whose rows are proved to fit.

    Args:
        parent: the partitioned table.
        part: the table.
        bounds: as DDL spells them, with FOR VALUES.
        after: further statements, on tables that are locked.
        also: the partition for all other rows.

    Source: PostgreSQL manual, ALTER TABLE, ATTACH PARTITION.
    """
    text = sql.SQL("ALTER TABLE {} ATTACH PARTITION {} {}").format(
        parent.name.identifier, part.identifier, bounds
    )
    beside = TableLock(table=parent.name, lock=Lock.SHARE_UPDATE_EXCLUSIVE)
    return replace(
        direct.catalogue_step(
            part,
            text,
            *after,
            # Triggers of the table's own keys go from what they refer to.
            also=(*also, *_referred(parent)),
            beside=(beside,),
        ),
        done=_is_attached(parent.name, part),
    )


def _referred(parent: Table) -> tuple[TableName, ...]:
    """Return the tables that foreign keys of a partitioned table refer to."""
    own = {parent.name, *(p.name for p in parent.partitions)}
    return tuple(sorted({key.to for key in parent.foreign_keys} - own))


def _weaker(parent: Table) -> tuple[TableLock, ...]:
    """Return what a DETACH locks where foreign keys refer to."""
    lock = Lock.SHARE_ROW_EXCLUSIVE
    return tuple(TableLock(table=table, lock=lock) for table in _referred(parent))


def detach(parent: Table, part: TableName) -> Transaction:
    """Return the transaction that detaches a partition, whatever the others are."""
    return direct.catalogue_step(
        parent.name,
        sql.SQL("ALTER TABLE {} DETACH PARTITION {}").format(
            parent.name.identifier, part.identifier
        ),
        beside=_weaker(parent),
    )


def detach_concurrently(parent: Table, part: TableName) -> Autocommit:
    """
    Return the statement that detaches a partition while the others are in use.

    It marks the partition, waits for all who may still see it, and detaches it with a
    CHECK of its bounds. Cut off in between it is finished by the next try.

    Source: PostgreSQL manual, ALTER TABLE, DETACH PARTITION.
    """
    text = sql.SQL("ALTER TABLE {} DETACH PARTITION {} {}")
    named = (parent.name.identifier, part.identifier)
    return Autocommit(
        statement=render(text.format(*named, sql.SQL("CONCURRENTLY"))),
        lock=Lock.ACCESS_EXCLUSIVE,
        table=part,
        done=render(sql.SQL("SELECT NOT ({})").format(_inherits(parent.name, part))),
        leftover=_is_pending(parent.name, part),
        remove=render(text.format(*named, sql.SQL("FINALIZE"))),
        also=(
            TableLock(table=parent.name, lock=Lock.SHARE_UPDATE_EXCLUSIVE),
            *_weaker(parent),
        ),
        outlives=(TableLock(table=parent.name, lock=Lock.ACCESS_EXCLUSIVE),),
    )


def finished(parent: Table, part: TableName) -> Autocommit:
    """Return the end of a detach that was cut off; done where there is none."""
    begun = detach_concurrently(parent, part)
    assert begun.remove is not None
    return replace(
        begun,
        statement=begun.remove,
        done=render(
            sql.SQL("SELECT NOT ({})").format(
                _inherits(parent.name, part, pending=True)
            )
        ),
        leftover=None,
        remove=None,
    )


def _inherits(
    parent: TableName, part: TableName, *, pending: bool | None = None
) -> sql.Composable:
    state = (
        sql.SQL("")
        if pending is None
        else sql.SQL(" AND inhdetachpending = {}").format(sql.Literal(pending))
    )
    return sql.SQL(
        "EXISTS (SELECT FROM pg_catalog.pg_inherits"
        " WHERE inhparent = pg_catalog.to_regclass({})"
        " AND inhrelid = pg_catalog.to_regclass({}){})"
    ).format(sql.Literal(str(parent)), sql.Literal(str(part)), state)


def _is_attached(parent: TableName, part: TableName) -> str:
    return render(sql.SQL("SELECT {}").format(_inherits(parent, part, pending=False)))


def _is_pending(parent: TableName, part: TableName) -> str:
    return render(sql.SQL("SELECT {}").format(_inherits(parent, part, pending=True)))
