"""What a table must be like for a change, and what a reviewer should know of it."""

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Column, Facts, Table, Trigger
from migrator.kernels import unproved
from migrator.names import TableName
from migrator.plan import Notice

#: Among a column's dependents, what goes along with it (queries/columns.sql).
COLUMN_GRANTS = "grants on the column"


def require_table(facts: Facts) -> None:
    """
    Refuse a table that the change cannot be made on.

    A partitioned table is fine: columns, checks and row triggers of the parent
    reach every partition, also those that come later (manual, section 5.12.2.3).

    Raises:
        Refused: not a table, or one of a kind that is not supported.
    """
    table = facts.table
    if table.root is not None:
        raise Refused(
            f"Table {table.name} is a partition of table {table.root}; its columns"
            " and triggers are those of all partitions.",
            next=f'name the parent: "{table.root.name}", schema="{table.root.schema}".',
        )
    if table.kind not in ("r", "p"):
        raise Refused(f"{table.name} is not a table.", next="name the table behind it.")
    if table.is_child or table.has_children:
        raise Refused(
            f"Table {table.name} takes part in inheritance; a trigger or column on"
            " one member does not reach the others.",
            next="detach it first, or make the change with plain SQL.",
        )
    if table.is_temporary:
        raise Refused(
            f"Table {table.name} is temporary: no other session sees it.",
            next="use plain SQL.",
        )
    for part in (table, *table.partitions):
        if not part.owned:
            raise Refused(
                f"The role of this connection does not own table {part.name}.",
                next="connect as the owner, or as a member of the owner's role.",
            )
    # Refuses leaves that are elsewhere.
    _ = facts.leaves


def require_no_member(table: Table) -> None:
    """
    Refuse a table of an extension, which the server does not drop.

    Raises:
        Refused: names the extension.
    """
    if table.extension is not None:
        raise Refused(
            f'Table {table.name} belongs to extension "{table.extension}", and can only'
            " be dropped with that.",
            next=f"ALTER EXTENSION {sql.Identifier(table.extension).as_string()} DROP"
            f" TABLE {table.name}, where it is not the extension's own work.",
        )


def require_not_key(facts: Facts, column: Column) -> None:
    """
    Refuse a column that decides on a row's partition, and that would be written.

    Raises:
        Refused: a BEFORE trigger cannot send a row to another partition (manual,
            section 5.12.2.3).
    """
    if column.partition_key:
        raise Refused(
            f'Column "{column.name}" is in the partition key of table'
            f" {facts.table.name} or of a partition of it: a trigger cannot write it,"
            " since the row's partition is chosen before.",
            next="leave it as it is, or move the rows to a new table.",
        )


def require_all_rows_visible(facts: Facts) -> None:
    """
    Refuse a table whose rows are partly hidden from this role.

    Raises:
        Refused: row-level security applies to the role of the connection, so
            that a backfill or a verification would miss rows.
    """
    for part in (facts.table, *facts.table.partitions):
        if part.row_security:
            raise Refused(
                f"Row-level security applies to this role on table {part.name}:"
                " backfill and verification would miss the rows it hides.",
                next="connect as a role with BYPASSRLS.",
            )


def require_mirrored(facts: Facts) -> None:
    """
    Refuse a table whose rows no other table could follow.

    Raises:
        Refused: it is partitioned, policies decide who sees its rows, or a rule what
            becomes of an UPDATE.
    """
    table = facts.table
    if table.kind == "p":
        raise Refused(
            f"Table {table.name} is partitioned: TRUNCATE of a partition would not"
            " reach the table that follows.",
            next="make the change with plain SQL, in a maintenance window.",
        )
    if table.policies:
        raise Refused(
            f"Table {table.name} has row-level security: its policies would not"
            " hold for the table that follows.",
            next="make the change with plain SQL, in a maintenance window.",
        )
    require_unruled(facts)


def require_logged(facts: Facts) -> None:
    """
    Refuse a table that a crash empties: one that is made of it would be permanent.

    Source: PostgreSQL manual, CREATE TABLE (UNLOGGED); a permanent table refers to
    permanent ones only.
    """
    if facts.table.is_unlogged:
        raise Refused(
            f"Table {facts.table.name} is unlogged: a crash would empty it, and leave"
            " the table that is made of it.",
            next="make the change with plain SQL, in a maintenance window.",
        )


def require_unruled(facts: Facts) -> None:
    """
    Refuse a table with a rule for UPDATE, where triggers of another one write it.

    Such a rule is part of each UPDATE that names the table, also within a trigger's
    function: it could keep the two sides apart, or fail what a release sends.

    Source: PostgreSQL manual, section 41.4 (Rules on INSERT, UPDATE, and DELETE).
    """
    table = facts.table
    for rule in table.rules:
        if rule.on_update:
            raise Refused(
                f"Table {table.name} is used by {rule.described}, which runs for the"
                " updates that keep two tables in step as well.",
                next="make a trigger of it, or drop it until the change is through.",
            )


def require_free_column(facts: Facts, name: str) -> None:
    """Refuse a column name that the table has already."""
    if facts.table.column(name) is not None:
        raise Refused(
            f'Table {facts.table.name} has a column "{name}" already.',
            next="choose another name, or drop that column first.",
        )


def backfill_notices(facts: Facts, *written: str) -> tuple[Notice, ...]:
    """
    Return a note on each trigger or rule of the application that a backfill sets off.

    Args:
        facts: of the table.
        written: the columns that the backfill writes.

    Raises:
        Refused: a rule does something else in the place of an UPDATE, or a NOT NULL
            was never proved.

    Source: PostgreSQL manual, CREATE TRIGGER (UPDATE OF); section 41.4 (Rules on
    INSERT, UPDATE, and DELETE).
    """
    unproved.require_not_null(facts)
    fired = tuple(
        Notice(
            text=f'Trigger "{t.name}" fires for the rows that the backfill updates:'
            " what it writes or sends (updated_at, an audit, NOTIFY) it does for all"
            " rows.",
            needs_assurance=True,
        )
        for t in triggers(facts.table)
        if t.on_update
        and not t.name.startswith(names.TRIGGER_PREFIXES)
        and (not t.update_of or not set(written).isdisjoint(t.update_of))
    )
    return (*fired, *_rule_notices(facts), *unproved.notices(facts))


def _rule_notices(facts: Facts) -> tuple[Notice, ...]:
    # Rows are written where they are: rules of a partitioned table itself, which are
    # part of what names it, see nothing of that.
    ruled = [
        (leaf, rule)
        for leaf in facts.table.leaves
        for rule in leaf.rules
        if rule.on_update
    ]
    for leaf, rule in ruled:
        if rule.instead:
            raise Refused(
                f"Table {leaf.name} is used by {rule.described}, which does something"
                " else in the place of an UPDATE: the backfill would leave rows as"
                " they are.",
                next="make a trigger of it, or drop it until the change is through.",
            )
    return tuple(
        Notice(
            text=f'Rule "{rule.name}" of table {leaf.name} runs for the rows that the'
            " backfill updates: what it does besides (an audit, NOTIFY) it does for all"
            " rows.",
            needs_assurance=True,
        )
        for leaf, rule in ruled
    )


def triggers(table: Table) -> tuple[Trigger, ...]:
    """Return the triggers of a table and of its partitions, clones once."""
    parts = (table, *table.partitions)
    return tuple(dict.fromkeys(t for part in parts for t in part.triggers))


def partition_notices(facts: Facts) -> tuple[Notice, ...]:
    """Return what a reviewer should know of a partitioned table."""
    if facts.table.kind != "p":
        return ()
    return (
        Notice(
            text="A table that is attached as a partition meanwhile needs the columns"
            " of the change first. Its rows are compared by the next `migrator"
            " verify`, and before retire; after retire both sides of them must be"
            " filled before it is attached."
        ),
    )


def publication_notices(facts: Facts, *made: TableName) -> tuple[Notice, ...]:
    """
    Return what a reviewer should know of a table whose columns are replicated.

    Args:
        facts: of the table.
        made: tables of its schema that the change makes.

    Source: PostgreSQL manual, section 29.3 (Schema Definition Must Match).
    """
    parts = (facts.table, *facts.table.partitions)
    found = dict.fromkeys(p for part in parts for p in part.publications)
    if not found:
        return ()
    known = ", ".join(f'"{name}"' for name in found)
    whole = [p.name for p in facts.table.published if p.whole]
    return (
        *(
            Notice(
                text=f'Publication "{name}" has all tables, of the database or of the'
                f" schema, and so {', '.join(map(str, made))}: a subscriber stops at"
                " the first row of one that it does not have. Make it there first.",
                needs_assurance=True,
            )
            for name in whole
            if made
        ),
        Notice(
            text=f"Table {facts.table.name} is published by {known}: a subscriber stops"
            " at the first row with a column that its own table lacks. It has to have"
            " each column first: those that expand adds, and before retire those that"
            " retire renames, by their names in the plan.",
            needs_assurance=True,
        ),
    )


def given_by_insert(column: Column) -> bool:
    """Tell whether an INSERT that leaves the column out is refused."""
    made = column.default is not None or column.generated or column.identity
    return column.not_null and not made


def require_plain(facts: Facts, column: Column) -> None:
    """Refuse a column whose values the server makes: it has no default to change."""
    if column.generated or column.identity:
        kind = "generated" if column.generated else "an identity column"
        raise Refused(
            f'Column "{column.name}" of table {facts.table.name} is {kind}: the'
            " server makes its values.",
            next="use plain SQL, in a maintenance window.",
        )


def require_stored(facts: Facts, *columns: str) -> None:
    """
    Refuse columns that are computed when they are read: no index holds them.

    Source: PostgreSQL manual, section 5.4 (Generated Columns).
    """
    for name in columns:
        if facts.table.require(name).virtual:
            raise Refused(
                f'Column "{name}" of table {facts.table.name} is generated and not'
                " stored: PostgreSQL has no index on such a one.",
                next="use what it is computed from: Key(expression=…) of CreateIndex.",
            )


def default_notices(facts: Facts, column: Column) -> tuple[Notice, ...]:
    """Return a note on each partition that has a default of its own."""
    return tuple(
        Notice(
            text=f"Partition {part.name} has a default of its own, which is replaced;"
            " going back brings it back."
        )
        for part in facts.table.partitions
        if part.require(column.name).default not in (None, column.default)
    )


def require_mirror_first(facts: Facts, title: str) -> None:
    """
    Refuse triggers that may write a row again before a mirror has it as it is.

    Raises:
        Refused: with the name under which it fires behind the mirror's.
    """
    table = facts.table
    if sum(i.unique or i.exclusion for i in table.indexes) < 2:
        # By its only key a row is written over.
        return
    for trigger in table.triggers:
        if not trigger.early:
            continue
        both = (trigger.name, f"z_{trigger.name}")
        was, to = (sql.Identifier(name).as_string(None) for name in both)
        raise Refused(
            f'{title}: trigger "{trigger.name}" of table {table.name} comes before the'
            f" mirror's ({names.AFTER_TRIGGER_PREFIX}…) by its name. What it writes to"
            " the table would meet the row in the other table as it was: a unique key"
            " refuses it there.",
            next="rename it, so that it fires behind that one: ALTER TRIGGER"
            f" {was} ON {table.name} RENAME TO {to}.",
        )
