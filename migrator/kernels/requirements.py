"""What a table must be like for a change, and what a reviewer should know of it."""

from collections.abc import Collection, Iterable, Mapping

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Column, Facts, Table, Trigger
from migrator.kernels import trigger_arguments, unproved
from migrator.names import TableName
from migrator.plan import Notice, Probe, render

# The key of what functions may read a column.
_FUNCTIONS = "functions"

# That a function lists no columns of a table's rows, which it returns.
_LISTED = sql.SQL(
    " AND (p.prosrc ~* '(\\mselect\\s+|\\.\\s*)\\*' OR p.prorettype IS DISTINCT FROM"
    " (SELECT c.reltype FROM pg_catalog.pg_class c"
    " WHERE c.oid = pg_catalog.to_regclass({})))"
)

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


def mention_notices(
    facts: Facts, *columns: str, to: str | None = None
) -> tuple[Notice, ...]:
    """
    Return a note on each trigger that may read columns that go.

    Args:
        facts: of the table.
        columns: those that go at retire.
        to: the name that the one column has from then on; None where it has none.
    """
    way = "Change the function first."
    if to is not None:
        way = f'Let it read "{to}" between verified and retire.'
    read = tuple(
        Notice(
            text=f'The function of trigger "{t.name}" has the word "{column}" in it:'
            " where that is this column, every write fails from retire on."
            f" {way}",
            needs_assurance=True,
        )
        for t in triggers(facts.table)
        for column in columns
        if column in t.mentions and not t.name.startswith(names.TRIGGER_PREFIXES)
    )
    return (*read, *trigger_arguments.notices(facts, *columns, to=to))


def functions_that_read(
    table: TableName, columns: Collection[str] = (), *, comes: bool = False
) -> Mapping[str, Probe]:
    """
    Return the question which functions may read what goes, by their texts.

    Those of the table's own triggers are known from it. One whose body is in SQL's own
    form holds columns by their numbers.

    Args:
        table: whose name has to be in the text.
        columns: of which one has to be there as well; none where the table goes.
        comes: whether the table gets a column before. Then functions that return its
            rows by a list of columns are left out: they break there, as
            `row_types.breaks` says.
    """
    words = sql.SQL(" OR ").join(map(_has_word, columns))
    question = sql.SQL(
        "SELECT pg_catalog.string_agg(p.oid::pg_catalog.regprocedure::text, ', '"
        " ORDER BY p.oid::pg_catalog.regprocedure::text) FROM pg_catalog.pg_proc p"
        " JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace"
        " WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', {})"
        " AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgfoid = p.oid"
        " AND t.tgrelid = pg_catalog.to_regclass({}))"
        " AND p.prosqlbody IS NULL AND {} AND ({}){}"
    ).format(
        sql.Literal(names.LEDGER_SCHEMA),
        sql.Literal(str(table)),
        _has_word(table.name),
        words if columns else sql.SQL("true"),
        _LISTED.format(sql.Literal(str(table))) if comes else sql.SQL(""),
    )
    return {
        _FUNCTIONS: Probe(statements=(), question=render(question), otherwise="none")
    }


def _has_word(name: str) -> sql.Composable:
    return sql.SQL(
        "p.prosrc ~* ('(^|[^[:alnum:]_])' || pg_catalog.regexp_replace("
        "{}, '([^[:alnum:]_])', '\\\\\\1', 'g') || '([^[:alnum:]_]|$)')"
    ).format(sql.Literal(name))


def function_notices(facts: Facts, columns: Collection[str] = ()) -> tuple[Notice, ...]:
    """Return a note on the functions that `functions_that_read` found."""
    if _FUNCTIONS not in facts.texts:
        return ()
    found, word = facts.texts[_FUNCTIONS], f'"{facts.known_as.name}"'
    known = " or ".join(f'"{column}"' for column in columns)
    text = (
        f"The text of {found} has the words {word} and {known} in it: where that is"
        " this column, it fails from retire on. Let it read the new shape between"
        " verified and retire."
        if known
        else f"The text of {found} has the word {word} in it: where that is this table,"
        " it fails from retire on. Let it do without before."
    )
    return (Notice(text=text, needs_assurance=True),)


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
    facts: Facts, column: Column, *, granted: bool = False
) -> tuple[Notice, ...]:
    """
    Return a note on what a column's drop takes along.

    Args:
        facts: of the table.
        column: of it.
        granted: whether what stands for it gets its privileges.
    """
    parts = (facts.table, *facts.table.partitions)
    found = [
        *(
            f'index "{i.name}"'
            for part in parts
            for i in part.indexes
            if column.name in i.columns
        ),
        *(f'constraint "{name}"' for name in column.checks),
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
    return (Notice(text=f"With the column go, at the drop: {', '.join(found)}."),)
