"""Guarded catalogue steps with reverses; no rows are moved."""

from dataclasses import replace

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Column, Facts, ForeignKey, Index, Table, Trigger
from migrator.names import TableName
from migrator.plan import (
    Action,
    Autocommit,
    Lock,
    Notice,
    Probe,
    Refusal,
    Step,
    TableLock,
    Transaction,
    expression,
    missing,
    present,
    render,
    type_name,
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


def require_free_column(facts: Facts, name: str) -> None:
    """Refuse a column name that the table has already."""
    if facts.table.column(name) is not None:
        raise Refused(
            f'Table {facts.table.name} has a column "{name}" already.',
            next="choose another name, or drop that column first.",
        )


def backfill_notices(facts: Facts, *written: str) -> tuple[Notice, ...]:
    """
    Return a note on each trigger of the application that a backfill fires.

    Args:
        facts: of the table.
        written: the columns that the backfill writes.

    Source: PostgreSQL manual, CREATE TRIGGER (UPDATE OF).
    """
    return tuple(
        Notice(
            text=f'Trigger "{t.name}" fires for the rows that the backfill updates:'
            " what it writes or sends (updated_at, an audit, NOTIFY) it does for all"
            " rows.",
            needs_assurance=True,
        )
        for t in triggers(facts.table)
        if t.on_update
        and not t.name.startswith(names.TRIGGER_PREFIX)
        and (not t.update_of or not set(written).isdisjoint(t.update_of))
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


def is_part(leaf: Table) -> sql.Composable:
    """Return the condition that a leaf still belongs to its partitioned table."""
    assert leaf.root is not None
    return belongs(sql.Literal(str(leaf.name)), leaf.root)


def belongs(leaf: sql.Composable, root: TableName) -> sql.Composable:
    """
    Return the condition that a table belongs to a partitioned one.

    Args:
        leaf: its name as SQL text; it may be gone.
        root: the partitioned table.
    """
    # Neither locks, nor counts what is being detached.
    return sql.SQL(
        "EXISTS (SELECT FROM pg_catalog.pg_partition_ancestors("
        "pg_catalog.to_regclass({})) AS part WHERE part.relid ="
        " {}::pg_catalog.regclass)"
    ).format(leaf, sql.Literal(str(root)))


def members(table: TableName) -> sql.Composable:
    """Return the query of the OIDs of a table and its partitions on all levels."""
    # pg_partition_tree would lock them all until the transaction's end.
    return sql.SQL(
        "WITH RECURSIVE part (oid) AS (SELECT {}::pg_catalog.regclass::oid UNION ALL"
        " SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN part"
        " ON part.oid = i.inhparent WHERE NOT i.inhdetachpending)"
        " SELECT oid FROM part"
    ).format(sql.Literal(str(table)))


def locked(table: TableName, mode: Lock, *also: TableName) -> str:
    """
    Return the statement that takes a step's strongest lock first.

    Several tables are locked in the order of their names, so that two changes that
    share them cannot deadlock.
    """
    tables = (t.identifier for t in sorted({table, *also}))
    return render(
        sql.SQL("LOCK TABLE {} IN {} MODE").format(
            sql.SQL(", ").join(tables), sql.SQL(mode.value)
        )
    )


def catalogue_step(
    table: TableName,
    *statements: sql.Composable,
    lock: Lock = Lock.ACCESS_EXCLUSIVE,
    also: tuple[TableName, ...] = (),
) -> Transaction:
    """
    Return a transaction that takes its lock first and changes catalogues only.

    Args:
        table: the table.
        statements: what is changed.
        lock: the strongest that they take.
        also: further tables that they lock as strongly.

    Source: PostgreSQL manual, LOCK; section 13.3.1.
    """
    others = tuple(sorted({*also} - {table}))
    return Transaction(
        statements=(locked(table, lock, *others), *(render(s) for s in statements)),
        lock=lock,
        table=table,
        also=tuple(TableLock(table=t, lock=lock) for t in others),
    )


def index_exists(schema: str, name: str, *, valid: bool) -> str:
    """Return the question whether a valid, or an invalid, index is there."""
    return render(
        sql.SQL(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_index i"
            " JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid"
            " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = {} AND c.relname = {} AND i.indisvalid = {})"
        ).format(sql.Literal(schema), sql.Literal(name), sql.Literal(valid))
    )


def drop_index(schema: str, name: str, table: TableName) -> Autocommit:
    """Return the concurrent drop of an index, harmless where it is gone."""
    return Autocommit(
        statement=render(
            sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(
                sql.Identifier(schema, name)
            )
        ),
        lock=Lock.SHARE_UPDATE_EXCLUSIVE,
        table=table,
    )


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
) -> Step:
    """
    Return the concurrent build of an index, with its drop as the reverse.

    A failed build leaves an invalid index, which `IF NOT EXISTS` would accept:
    the left-over is looked for and dropped first. The build on a leaf is done where
    the leaf is no longer part of its partitioned table.

    Source: PostgreSQL manual, CREATE INDEX, Building Indexes Concurrently.
    """
    text = sql.SQL("CREATE {unique}INDEX CONCURRENTLY {name} ON {table} USING").format(
        unique=sql.SQL("UNIQUE " if unique else ""),
        name=sql.Identifier(name),
        table=table.name.identifier,
    ) + sql.SQL(" {method} ({keys})").format(method=sql.Identifier(method), keys=keys)
    if include:
        text += sql.SQL(" INCLUDE ({})").format(
            sql.SQL(", ").join(map(sql.Identifier, include))
        )
    if nulls_not_distinct:
        text += sql.SQL(" NULLS NOT DISTINCT")
    if where is not None:
        text += sql.SQL(" WHERE ") + expression(where)
    drop = drop_index(table.name.schema, name, table.name)
    return Step(
        name=table.step(step), work=_build(table, name, text, drop), reverse=(drop,)
    )


def _build(table: Table, name: str, text: sql.Composable, drop: Autocommit) -> Action:
    schema = table.name.schema
    done = index_exists(schema, name, valid=True)
    if table.root is not None:
        done += render(sql.SQL(" OR NOT {}").format(is_part(table)))
    return Autocommit(
        statement=render(text),
        lock=Lock.SHARE_UPDATE_EXCLUSIVE,
        table=table.name,
        done=done,
        leftover=index_exists(schema, name, valid=False),
        remove=drop.statement,
        scans=True,
    )


def drop_index_step(table: Table, index: Index, *refusals: Refusal) -> Step:
    """
    Return the concurrent drop of an index; its reverse builds it again.

    The build is that of the catalogue's definition: keys, classes, predicate and
    storage parameters, but for tablespace and comment.

    Args:
        table: the table.
        index: with its definition.
        refusals: conditions read before the drop.
    """
    drop = drop_index(table.name.schema, index.name, table.name)
    text = sql.SQL("CREATE {unique}INDEX CONCURRENTLY {name} ON {table} {rest}").format(
        unique=sql.SQL("UNIQUE " if index.unique else ""),
        name=sql.Identifier(index.name),
        table=table.name.identifier,
        rest=type_name(index.definition),
    )
    return Step(
        name="drop_index",
        work=replace(drop, refusals=refusals),
        reverse=(_build(table, index.name, text, drop),),
    )


def copy_indexes(facts: Facts, old: str, new: str) -> tuple[Step, ...]:
    """
    Return the builds of copies of all plain indexes, over another column.

    Each leaf of a partitioned table gets its own: an index of the parent cannot be
    built concurrently, and queries use those of the leaves.
    """
    return tuple(
        build_index(
            f"copy_index_{number}",
            leaf.table,
            index_copy(leaf.table, index, facts.tag),
            method=index.method,
            keys=index_keys(index, old, new),
            unique=index.unique,
            include=tuple(new if c == old else c for c in index.include),
        )
        for leaf in facts.leaves
        for number, index in enumerate(plain_indexes(leaf.table, old), 1)
    )


def plain_indexes(table: Table, column: str) -> tuple[Index, ...]:
    """Return the indexes of a table, over a column, that can be copied."""
    return tuple(
        i
        for i in table.indexes
        if i.plain and i.valid and column in {*(k.name for k in i.keys), *i.include}
    )


def index_copy(table: Table, index: Index, tag: str) -> str:
    """Return the name of the copy of an index."""
    return names.owned("index", index.name, table_tag(table, tag, index.name))


def index_keys(index: Index, old: str, new: str) -> sql.Composable:
    """Return an index's keys with one column in another's place."""
    return sql.SQL(", ").join(
        sql.Identifier(new if key.name == old else key.name)
        + index_options(key.options)
        for key in index.keys
    )


def table_tag(table: Table, change_tag: str, *parts: str) -> str:
    """Return a tag for an object on a leaf, whose name is long and like others."""
    if table.root is None:
        return change_tag
    return names.tag(change_tag, table.name.schema, table.name.name, *parts)


def index_options(options: str) -> sql.Composable:
    """Return an index column's options, as the catalogue spells them."""
    return type_name(f" {options}" if options else "")


def not_null_by_check(
    table: TableName, column: str, check: str, final: tuple[sql.Composable, ...] = ()
) -> tuple[Step, Step, Transaction]:
    """
    Return the steps that prove NOT NULL without a scan under a strong lock.

    A CHECK is added `NOT VALID`, validated under SHARE UPDATE EXCLUSIVE, and
    then lets SET NOT NULL skip its scan.

    Returns:
        The step that adds the check, the one that validates it, and the
        transaction that sets NOT NULL and runs `final`; its reverse is the
        caller's.

    Source: PostgreSQL manual, ALTER TABLE, SET NOT NULL (12+).
    """
    ident = sql.Identifier(check)
    drop: tuple[Action, ...] = (
        catalogue_step(
            table,
            sql.SQL("ALTER TABLE {} DROP CONSTRAINT IF EXISTS {}").format(
                table.identifier, ident
            ),
        ),
    )
    add = Step(
        name="add_check",
        work=catalogue_step(
            table,
            sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} CHECK ({}) NOT VALID").format(
                table.identifier, ident, present(sql.Identifier(column))
            ),
        ),
        reverse=drop,
    )
    validate = Step(
        name="validate_check",
        work=Autocommit(
            statement=render(
                sql.SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}").format(
                    table.identifier, ident
                )
            ),
            lock=Lock.SHARE_UPDATE_EXCLUSIVE,
            table=table,
            scans=True,
        ),
        no_reverse="the proof goes with the check",
    )
    proven = catalogue_step(table, *set_not_null(table, column, check), *final)
    return add, validate, proven


def set_not_null(
    table: TableName, column: str, check: str
) -> tuple[sql.Composable, sql.Composable]:
    """Return the statements that set NOT NULL by a check that proves it."""
    return (
        sql.SQL("ALTER TABLE {} ALTER COLUMN {} SET NOT NULL").format(
            table.identifier, sql.Identifier(column)
        ),
        sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(
            table.identifier, sql.Identifier(check)
        ),
    )


def not_null_again(
    table: TableName, column: str, check: str
) -> tuple[Autocommit, Transaction]:
    """
    Return the actions that turn a `NOT VALID` check into NOT NULL again.

    Args:
        table: the table.
        column: the column that the check holds to NOT NULL.
        check: the check's name; it is dropped.

    Source: PostgreSQL manual, ALTER TABLE, SET NOT NULL (12+).
    """
    ident = sql.Identifier(check)
    validate = Autocommit(
        statement=render(
            sql.SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}").format(
                table.identifier, ident
            )
        ),
        lock=Lock.SHARE_UPDATE_EXCLUSIVE,
        table=table,
        done=render(
            sql.SQL(
                "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_constraint"
                " WHERE conrelid = {}::pg_catalog.regclass AND conname = {}"
                " AND NOT convalidated)"
            ).format(sql.Literal(str(table)), sql.Literal(check))
        ),
        scans=True,
    )
    again = catalogue_step(table, *set_not_null(table, column, check))
    done = render(
        sql.SQL(
            "SELECT attnotnull FROM pg_catalog.pg_attribute"
            " WHERE attrelid = {}::pg_catalog.regclass AND attname = {}"
        ).format(sql.Literal(str(table)), sql.Literal(column))
    )
    return validate, replace(again, done=done)


def given_by_insert(column: Column) -> bool:
    """Tell whether an INSERT that leaves the column out is refused."""
    made = column.default is not None or column.generated or column.identity
    return column.not_null and not made


def nullable(table: TableName, column: str, check: str, why: str) -> Step:
    """
    Return the step that lifts NOT NULL; its reverse proves it again by a check.

    Args:
        table: the table.
        column: the column.
        check: name for the check of the reverse.
        why: what left NULLs, for the message, e.g. "from the new release".

    Source: PostgreSQL manual, ALTER TABLE, SET NOT NULL (12+).
    """
    ident, name = sql.Identifier(column), sql.Identifier(check)
    nulls = Refusal(
        count=render(
            sql.SQL("SELECT count(*) FROM {} WHERE {}").format(
                table.identifier, missing(ident)
            )
        ),
        why=f'{{count}} rows hold NULL in "{column}", {why}',
        next=f'give them a value (UPDATE … WHERE "{column}" IS NULL), then run the'
        " same command again; or keep the new release.",
    )
    add = Autocommit(
        statement=render(
            sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} CHECK ({}) NOT VALID").format(
                table.identifier, name, present(ident)
            )
        ),
        lock=Lock.ACCESS_EXCLUSIVE,
        table=table,
        done=render(
            sql.SQL(
                "SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint"
                " WHERE conrelid = {}::pg_catalog.regclass AND conname = {})"
            ).format(sql.Literal(str(table)), sql.Literal(check))
        ),
        refusals=(nulls,),
    )
    validate, again = not_null_again(table, column, check)
    return Step(
        name="lift_not_null",
        work=catalogue_step(
            table,
            sql.SQL("ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL").format(
                table.identifier, ident
            ),
        ),
        # NULLs that came between the count and the check are counted once more.
        reverse=(add, replace(validate, refusals=(nulls,)), again),
    )


def set_default(facts: Facts, column: Column, text: str | None) -> Step:
    """
    Return the step that sets a default, or drops it; rows that are there stay.

    The reverse puts back the former one, also on a partition that has its own.

    Args:
        facts: of the table.
        column: the column, with its former default.
        text: SQL expression; None for no default.

    Source: PostgreSQL manual, ALTER TABLE, SET DEFAULT.
    """

    def to(table: TableName, given: str | None) -> sql.Composable:
        what = (
            sql.SQL("DROP DEFAULT")
            if given is None
            else sql.SQL("SET DEFAULT ") + expression(given)
        )
        return sql.SQL("ALTER TABLE {} ALTER COLUMN {} {}").format(
            table.identifier, sql.Identifier(column.name), what
        )

    table = facts.table.name
    # Both texts are read under the path under which they were written.
    path = sql.SQL("SET LOCAL search_path = {}").format(
        sql.SQL(", ").join(map(sql.Identifier, ("pg_catalog", *facts.path)))
    )
    own = [
        to(part.name, part.require(column.name).default)
        for part in facts.table.partitions
        if part.require(column.name).default != column.default
    ]
    return Step(
        name="drop_default" if text is None else "set_default",
        work=catalogue_step(table, path, to(table, text)),
        reverse=(catalogue_step(table, path, to(table, column.default), *own),),
    )


def require_plain(facts: Facts, column: Column) -> None:
    """Refuse a column whose values the server makes: it has no default to change."""
    if column.generated or column.identity:
        kind = "generated" if column.generated else "an identity column"
        raise Refused(
            f'Column "{column.name}" of table {facts.table.name} is {kind}: the'
            " server makes its values.",
            next="use plain SQL, in a maintenance window.",
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


def default_gives_value(title: str, column: Column, text: str) -> Probe:
    """Return the trial that an expression is a default of a column's, and no NULL."""
    trial = sql.SQL("CREATE TEMP TABLE migrator_trial (trial {} DEFAULT {})").format(
        type_name(column.type), expression(text)
    )
    return Probe(
        statements=(render(trial), "INSERT INTO migrator_trial DEFAULT VALUES"),
        question=render(
            sql.SQL("SELECT {} FROM migrator_trial").format(
                present(sql.Identifier("trial"))
            )
        ),
        otherwise=f"{title}: {text} is NULL.",
        next="give an expression that is not.",
    )


def rename_column(table: TableName, given: str, wanted: str) -> Transaction:
    """Return the rename of a column; what hangs on it goes along."""
    return catalogue_step(
        table,
        sql.SQL("ALTER TABLE {} RENAME COLUMN {} TO {}").format(
            table.identifier, sql.Identifier(given), sql.Identifier(wanted)
        ),
    )


def require_droppable(facts: Facts, column: Column) -> None:
    """
    Refuse a column whose drop would need CASCADE, or cannot be.

    Raises:
        Refused: something else depends on it.
    """
    where = f'Column "{column.name}" of table {facts.table.name}'
    used = [d for d in column.dependents if d != COLUMN_GRANTS]
    if used:
        raise Refused(
            f"{where} is used by {'; '.join(used)}.",
            next="drop what depends on it first, or make it again without the column.",
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


def goes_along(facts: Facts, column: Column) -> tuple[Notice, ...]:
    """Return a note on what a column's drop takes along."""
    parts = (facts.table, *facts.table.partitions)
    found = [
        *(
            f'index "{i.name}"'
            for part in parts
            for i in part.indexes
            if column.name in i.columns
        ),
        *(f'constraint "{name}"' for name in column.checks),
        *(["grants on it"] if COLUMN_GRANTS in column.dependents else []),
        *([f"its default {column.default}"] if column.default is not None else []),
        *(["its identity's sequence"] if column.identity else []),
    ]
    if not found:
        return ()
    return (Notice(text=f"With the column go, at the drop: {', '.join(found)}."),)


def drop_foreign_key(key: ForeignKey, step: str) -> Step:
    """
    Return the drop of a foreign key in a transaction of its own.

    It locks both tables (manual, ALTER TABLE, Notes; its triggers stand on both).
    """
    return Step(
        name=step,
        work=catalogue_step(
            key.table,
            sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(
                key.table.identifier, sql.Identifier(key.name)
            ),
            also=(key.to,) if key.to != key.table else (),
        ),
        no_reverse="rows that it would refuse may have come since",
        loses=True,
    )


def reads_no_generated(
    title: str, facts: Facts, *texts: str, trial: tuple[str, ...] = ()
) -> tuple[Probe, ...]:
    """
    Return the trial that expressions read no generated column.

    A BEFORE trigger has no value of those yet: they are computed after it
    (manual, section 5.4).

    Args:
        title: the change's, for the message.
        facts: of the table.
        texts: SQL expressions over the row.
        trial: statements that make a temporary table of the same name with the
            columns that the expressions read; none where the table has them.
    """
    generated = [c.name for c in facts.table.columns if c.generated]
    if not generated:
        return ()
    table = facts.table.name
    read = sql.SQL(", ").join(
        sql.SQL("{} IS NULL AS {}").format(expression(text), sql.Identifier(f"c{n}"))
        for n, text in enumerate(texts)
    )
    view = sql.SQL("CREATE TEMP VIEW migrator_reads AS SELECT {} FROM {}").format(
        read, sql.Identifier("pg_temp" if trial else table.schema, table.name)
    )
    question = sql.SQL(
        "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_depend d"
        " JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid"
        " JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid"
        " AND a.attnum = d.refobjsubid"
        " WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass"
        " AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass"
        " AND w.ev_class = 'pg_temp.migrator_reads'::pg_catalog.regclass"
        " AND a.attname IN ({}))"
    ).format(sql.SQL(", ").join(map(sql.Literal, generated)))
    known = ", ".join(f'"{name}"' for name in generated)
    return (
        Probe(
            statements=(*trial, render(view)),
            question=render(question),
            otherwise=f"{title}: an expression reads a generated column ({known});"
            " the trigger that computes it for new rows runs before those have a"
            " value.",
            next="write out what the column is generated from.",
        ),
    )


def takes_null(facts: Facts, name: str) -> tuple[Probe, ...]:
    """
    Return the trial that a column's type takes NULL.

    The new release inserts without the old column, and a domain is checked before
    any trigger fires (manual, CREATE DOMAIN, Notes).
    """
    column = facts.table.require(name)
    if column.base is None:
        return ()
    null = sql.SQL("NULL::{}").format(type_name(column.type))
    return (
        Probe(
            statements=(),
            question=render(sql.SQL("SELECT {}").format(missing(null))),
            otherwise="",
            next=f"take the domain off first: ALTER COLUMN … TYPE {column.base}"
            " rewrites nothing.",
            failed=f'Column "{name}" of table {facts.table.name} cannot be left out of'
            " an INSERT by the new release",
        ),
    )


def bare_type(title: str, type: str, default: str = "", otherwise: str = "") -> Probe:
    """
    Return the trial that a column of a type is added without a scan or rewrite.

    Args:
        title: the change's, for the message.
        type: the type's name, with modifiers.
        default: SQL expression; empty for none.
        otherwise: what to say of a default that rewrites the table.
    """
    given = sql.SQL(" DEFAULT ") + expression(default) if default else sql.SQL("")
    return Probe(
        statements=(
            "CREATE TEMP TABLE migrator_trial (first int)",
            "INSERT INTO migrator_trial VALUES (1)",
            "SELECT pg_catalog.set_config('migrator.file',"
            " pg_catalog.pg_relation_filenode('pg_temp.migrator_trial')::text,"
            " true)",
            render(
                sql.SQL("ALTER TABLE migrator_trial ADD COLUMN trial {}{}").format(
                    type_name(type), given
                )
            ),
        ),
        question="SELECT pg_catalog.current_setting('migrator.file')"
        " = pg_catalog.pg_relation_filenode(a.attrelid)::text"
        " AND NOT a.attnotnull AND NOT EXISTS (SELECT FROM pg_catalog.pg_index"
        " WHERE indrelid = a.attrelid) AND NOT EXISTS"
        " (SELECT FROM pg_catalog.pg_constraint WHERE conrelid = a.attrelid)"
        + (
            ""
            if default
            # It would pass for a value that the new release gave.
            else " AND (SELECT typdefault FROM pg_catalog.pg_type"
            " WHERE oid = a.atttypid) IS NULL"
        )
        + " FROM pg_catalog.pg_attribute a"
        " WHERE a.attrelid = 'pg_temp.migrator_trial'::regclass"
        " AND a.attname = 'trial'",
        otherwise=otherwise
        or f"{title}: the type {type} brings a constraint, a default or an index of"
        " its own; PostgreSQL would scan or rewrite the table under ACCESS"
        " EXCLUSIVE, or take the default for a value that a release wrote.",
        next="use computed=… instead of default=…."
        if default
        else "use its base type, and add the rest by changes of their own.",
    )
