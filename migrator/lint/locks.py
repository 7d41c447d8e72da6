"""Which locks a statement takes, on which tables: the one place that says so.

Source: PostgreSQL manual, section 13.3.1 and the pages of the statements; each line is
held against pg_locks by a test.
"""

from collections.abc import Callable, Iterable, Iterator

from migrator.facts import Table
from migrator.lint import statements as st
from migrator.lint.statements import Ref, Statement, ref_of
from migrator.names import TableName
from migrator.plan import Lock

#: The weakest lock for which requests wait: it keeps writers out.
STRONG = Lock.SHARE

# What a foreign key that goes takes of either table.
_GOING = Lock.ACCESS_EXCLUSIVE

# What a trigger takes that comes, or is enabled or disabled, is weaker than what one
# takes that goes or is renamed.
_TRIGGER_GOES = ("DROP", "ALTER", "RENAME")

# Actions of ALTER TABLE that let requests go on; of its options, those that do not.
_WEAK = ("CLUSTER ON", "SET WITHOUT CLUSTER", "SET STATISTICS")
_STRONG_OPTIONS = frozenset(
    {"check_option", "security_barrier", "security_invoker", "user_catalog_table"}
)


def is_strong(lock: Lock) -> bool:
    """Tell whether requests wait for a lock."""
    return lock.rank >= STRONG.rank


def lock_of(
    statement: Statement, read: Callable[[Ref], Table | None] | None = None
) -> dict[Ref, Lock]:
    """
    Return the strongest lock that a statement takes on each relation.

    Locks on what the statement itself makes are left out. An index that goes or is
    built anew stands by its own name where its table is not known: queries on the table
    lock its indexes as well.

    Args:
        statement: one that `operations.statements` or SQL text became.
        read: reads facts of tables; without them, tables at the other end of foreign
            keys are named only where the statement names them.

    A view that CREATE OR REPLACE names counts as one that is there. What makes or fills
    a view locks what it reads as weakly as a query does.

    Returns:
        Nothing for statements that are not known, and for those whose relations are
        not (a DO block, REINDEX SCHEMA, a domain's check on all tables of the domain).
    """
    found: dict[Ref, Lock] = {}
    for ref, lock in _locks(statement, read or (lambda _: None)):
        if lock.rank > found.get(ref, Lock.NONE).rank:
            found[ref] = lock
    return found


def _locks(
    statement: Statement, read: Callable[[Ref], Table | None]
) -> Iterator[tuple[Ref, Lock]]:
    match statement:
        case st.CreateTable():
            yield from _create_table(statement)
        case st.DropTable(table=table):
            yield table, Lock.ACCESS_EXCLUSIVE
            yield from _ends(read(table), cascade=statement.cascade)
        case st.Truncate(tables=tables, cascade=cascade):
            yield from _truncate(tables, read if cascade else None)
        case st.AttachPartition(table=table, partition=partition):
            yield table, Lock.SHARE_UPDATE_EXCLUSIVE
            yield partition, Lock.ACCESS_EXCLUSIVE
        case st.DetachPartition(table=table, partition=partition):
            weak = statement.concurrently or statement.finalize
            lock = Lock.SHARE_UPDATE_EXCLUSIVE if weak else Lock.ACCESS_EXCLUSIVE
            yield table, lock
            yield partition, Lock.ACCESS_EXCLUSIVE
        case st.ChangeTrigger(table=table, how=how):
            goes = how.upper().startswith(_TRIGGER_GOES)
            yield table, Lock.ACCESS_EXCLUSIVE if goes else Lock.SHARE_ROW_EXCLUSIVE
        case st.AddColumn(table=table, column=column):
            yield table, Lock.ACCESS_EXCLUSIVE
            yield from _parents(column.constraints)
        case st.DropColumn(table=table, column=name):
            yield table, Lock.ACCESS_EXCLUSIVE
            yield from _ends(read(table), column=name)
        case st.AddConstraint(table=table, constraint=constraint):
            weaker = constraint.kind == "f"
            yield table, Lock.SHARE_ROW_EXCLUSIVE if weaker else Lock.ACCESS_EXCLUSIVE
            yield from _parents([constraint])
        case st.ValidateConstraint(table=table, name=name):
            yield table, Lock.SHARE_UPDATE_EXCLUSIVE
            yield from _validated(read(table), name)
        case st.DropConstraint(table=table, name=name):
            yield table, Lock.ACCESS_EXCLUSIVE
            yield from _ends(read(table), constraint=name, cascade=statement.cascade)
        case st.CreateIndex(table=table, concurrently=concurrently):
            yield table, Lock.SHARE_UPDATE_EXCLUSIVE if concurrently else Lock.SHARE
        case st.DropIndex(name=name, concurrently=concurrently):
            lock = (
                Lock.SHARE_UPDATE_EXCLUSIVE if concurrently else Lock.ACCESS_EXCLUSIVE
            )
            yield statement.table or _table_of(read, name) or name, lock
        case st.Reindex():
            yield from _reindex(statement, read)
        case st.RenameIndex(name=name):
            yield name, Lock.SHARE_UPDATE_EXCLUSIVE
        case st.CreateView(view=view, replaces=True):
            yield view, Lock.ACCESS_EXCLUSIVE
        case st.DropObject(of="VIEW" | "MATERIALIZED VIEW" | "SEQUENCE", name=name):
            yield name, Lock.ACCESS_EXCLUSIVE
        case st.AlterTable(table=table):
            yield table, _altered(statement)
        case st.RefreshView(view=view, concurrently=concurrently):
            yield view, Lock.EXCLUSIVE if concurrently else Lock.ACCESS_EXCLUSIVE
        case st.ChangeRows(table=table):
            yield table, Lock.ROW_EXCLUSIVE
        case st.LockTable(tables=tables, mode=mode):
            for table in tables:
                yield table, Lock(mode.upper())
        case st.OnTable(table=table):
            # Renaming, moving, rewriting, row security, and all that is done to a
            # column that is there.
            yield table, Lock.ACCESS_EXCLUSIVE
        case _:
            pass


def _altered(statement: st.AlterTable) -> Lock:
    if statement.how in _WEAK:
        return Lock.SHARE_UPDATE_EXCLUSIVE
    if statement.options and _STRONG_OPTIONS.isdisjoint(statement.options):
        return Lock.SHARE_UPDATE_EXCLUSIVE
    return Lock.ACCESS_EXCLUSIVE


def _create_table(statement: st.CreateTable) -> Iterator[tuple[Ref, Lock]]:
    if statement.partition_of is not None:
        yield statement.partition_of, Lock.ACCESS_EXCLUSIVE
    for parent in statement.inherits:
        yield parent, Lock.SHARE_UPDATE_EXCLUSIVE
    inline = [c for column in statement.columns for c in column.constraints]
    for ref, lock in _parents([*statement.constraints, *inline]):
        if ref != statement.table:
            yield ref, lock


def _parents(constraints: Iterable[st.NewConstraint]) -> Iterator[tuple[Ref, Lock]]:
    """Give the tables that new foreign keys refer to: each gets triggers."""
    for constraint in constraints:
        if constraint.to is not None:
            yield constraint.to.table, Lock.SHARE_ROW_EXCLUSIVE


def _ends(
    table: Table | None,
    *,
    column: str | None = None,
    constraint: str | None = None,
    cascade: bool = False,
) -> Iterator[tuple[Ref, Lock]]:
    """
    Give the tables at the other end of foreign keys that go: they lose triggers.

    Args:
        table: what goes, or what loses a column or a constraint; None: nothing known.
        column: goes with the foreign keys that it is part of.
        constraint: goes, and with CASCADE the foreign keys that rest on it.
        cascade: whether foreign keys of other tables go too.
    """
    if table is None:
        return
    for key in table.foreign_keys:
        if key.table == key.to:
            continue
        if key.table != table.name:
            gone = cascade and (column is None or column in key.to_columns)
        elif column is not None:
            gone = column in key.columns
        else:
            gone = constraint in {None, key.name}
        if gone:
            yield ref_of(key.to if key.table == table.name else key.table), _GOING


def _validated(table: Table | None, name: str) -> Iterator[tuple[Ref, Lock]]:
    for key in table.foreign_keys if table is not None else ():
        if key.name == name and key.table != key.to:
            yield ref_of(key.to), Lock.ROW_SHARE


def _truncate(
    tables: Iterable[Ref], read: Callable[[Ref], Table | None] | None
) -> Iterator[tuple[Ref, Lock]]:
    """Give the tables, and with CASCADE all that refer to them, on any level."""
    todo = list(tables)
    seen: set[TableName] = set()
    # The list grows while it is gone over.
    for ref in todo:
        known = read(ref) if read is not None else None
        if known is not None:
            if known.name in seen:
                continue
            seen.add(known.name)
            todo += [ref_of(k.table) for k in known.foreign_keys if k.to == known.name]
        yield ref, Lock.ACCESS_EXCLUSIVE


def _reindex(
    statement: st.Reindex, read: Callable[[Ref], Table | None]
) -> Iterator[tuple[Ref, Lock]]:
    of, name = statement.of.upper(), statement.name
    if of not in {"INDEX", "TABLE"}:
        return
    if statement.concurrently:
        table = name if of == "TABLE" else _table_of(read, name)
        yield table or name, Lock.SHARE_UPDATE_EXCLUSIVE
    elif of == "TABLE":
        yield name, Lock.SHARE
    else:
        yield name, Lock.ACCESS_EXCLUSIVE
        table = _table_of(read, name)
        if table is not None:
            yield table, Lock.SHARE


def _table_of(read: Callable[[Ref], Table | None], index: Ref) -> Ref | None:
    """Return the table of an index, of which facts tell by the index's name too."""
    known = read(index)
    return None if known is None else ref_of(known.name)
