"""What keeps a column, or goes with it, when it is dropped."""

from collections.abc import Collection, Iterable

from migrator import names
from migrator.errors import Refused
from migrator.facts import Column, Facts
from migrator.kernels.requirements import COLUMN_GRANTS, given_by_insert
from migrator.names import TableName
from migrator.plan import Notice


def meanwhile(used: Iterable[str]) -> str:
    """Return how readers go on without a materialized view; "" where none is used."""
    if not any("materialized view" in what for what in used):
        return ""
    return (
        " Readers of a materialized view go on where a table takes its name, with its"
        " rows and privileges: CREATE TABLE … AS TABLE …; then, in one transaction,"
        " DROP MATERIALIZED VIEW and ALTER TABLE … RENAME TO. Afterwards likewise back."
    )


def require_droppable(facts: Facts, column: Column) -> None:
    """
    Refuse a column whose drop would need CASCADE, or cannot be.

    Raises:
        Refused: something else depends on it.
    """
    where = f'Column "{column.name}" of table {facts.table.name}'
    used = blocks_drop(column)
    if used:
        raise Refused(
            f"{where} is used by {'; '.join(used)}.",
            next="drop what depends on it first, or make it again without the column."
            + meanwhile(used),
        )
    if column.feeds:
        raise Refused(
            f'{where} is read by generated column "{column.feeds[0]}".',
            next="drop that column first.",
        )
    if column.partition_key:
        raise Refused(
            f"{where} is in the partition key of the table or of a partition of it.",
            next="move the rows to a new table.",
        )
    members = {facts.table.name, *(p.name for p in facts.table.partitions)}
    for key in facts.table.foreign_keys:
        if key.to in members and column.name in key.to_columns:
            raise Refused(
                f'{where} is referred to by foreign key "{key.name}" of table'
                f" {key.table}.",
                next="drop that foreign key first, by a change of its own.",
            )
    for part in facts.table.partitions:
        if given_by_insert(part.require(column.name)) and not column.not_null:
            raise Refused(
                f"{where} is NOT NULL on partition {part.name} alone.",
                next="make it NOT NULL on the parent, or lift it on the partition.",
            )


def require_no_identity(facts: Facts, column: Column) -> None:
    """
    Refuse a column whose drop would take the replica identity of a table along.

    Raises:
        Refused: the server would refuse each UPDATE and DELETE of a published table
            from then on.

    Source: PostgreSQL manual, section 29.1 (Replica Identity).
    """
    for part in (facts.table, *facts.table.partitions):
        by_key = part.publications and part.replica_identity == "DEFAULT"
        for index in part.indexes:
            told_by = index.replica_identity or (by_key and index.primary)
            if told_by and column.name in index.columns:
                raise Refused(
                    f'Column "{column.name}" is in index "{index.name}", the replica'
                    f" identity of table {part.name}, which would go with it: no row"
                    " of a published table is updated or deleted without one.",
                    next="give the table another one first (ALTER TABLE … REPLICA"
                    " IDENTITY).",
                )


def blocks_drop(column: Column) -> list[str]:
    """Return what keeps a column: triggers of changes in flight go with them."""
    return [
        d
        for d in column.dependents
        if d != COLUMN_GRANTS and not any(p in d for p in names.TRIGGER_PREFIXES)
    ]


def require_unread(facts: Facts, *columns: str, view: TableName | None = None) -> None:
    """
    Refuse to go on with columns that something came to depend on in the meantime.

    The server's own refusal would come with the drop, behind steps that have no way
    back, and long after the readers are known.

    Args:
        facts: of the table.
        columns: by the names before retire; those that are not there are left out.
        view: what the change has made to read them.

    Raises:
        Refused: a view, rule, function, policy, publication, trigger or generated
            column holds one of them.
    """
    own = {d for v in facts.table.views if v.name == view for d in v.described}
    for name in columns:
        retired = names.owned("retired", name, facts.tag)
        column = facts.table.column(retired) or facts.table.column(name)
        if column is None:
            continue
        used = [
            *(d for d in blocks_drop(column) if d not in own),
            *(f'generated column "{feed}"' for feed in column.feeds),
        ]
        if used:
            raise Refused(
                f'Column "{name}" of table {facts.table.name} is used by'
                f" {'; '.join(used)}.",
                next="drop these, or make them again without the column; then run the"
                " same command again.",
            )


def require_not_primary(facts: Facts, column: Column, next: str) -> None:
    """Refuse a column of the primary key, of which NOT NULL cannot be lifted."""
    for part in (facts.table, *facts.table.partitions):
        for index in part.indexes:
            if index.primary and column.name in index.columns:
                raise Refused(
                    f'Column "{column.name}" of table {facts.table.name} is in the'
                    f' primary key "{index.name}": its NOT NULL cannot be lifted.',
                    next=next,
                )


def goes_along(
    facts: Facts,
    column: Column,
    *,
    granted: bool = False,
    lifted: Collection[str] = (),
) -> tuple[Notice, ...]:
    """
    Return a note on what a column's drop takes along.

    Args:
        facts: of the table.
        column: of it.
        granted: whether what stands for it gets its privileges.
        lifted: constraints and indexes that go before it does.
    """
    parts = (facts.table, *facts.table.partitions)
    found = [
        *(
            f'index "{i.name}"'
            for part in parts
            for i in part.indexes
            if column.name in i.columns and i.name not in lifted
        ),
        *(f'constraint "{name}"' for name in column.checks if name not in lifted),
        *(
            ["grants on it"]
            if COLUMN_GRANTS in column.dependents and not granted
            else []
        ),
        *([f"its default {column.default}"] if column.default is not None else []),
        *(["its identity's sequence"] if column.identity else []),
    ]
    if not found:
        return ()
    what = ", ".join(found)
    return (Notice(text=f'With column "{column.name}" go, at the drop: {what}.'),)
