"""Guarded catalogue steps with reverses; no rows are moved."""

from dataclasses import replace

from psycopg import sql

from migrator import names
from migrator.facts import Column, Facts, ForeignKey, Table
from migrator.names import TableName
from migrator.plan import (
    Lock,
    Refusal,
    Step,
    TableLock,
    Transaction,
    expression,
    render,
)

#: Of a drop, by whether somebody else may have dropped it.
IF_EXISTS = {False: sql.SQL(""), True: sql.SQL("IF EXISTS ")}


def is_part(leaf: Table) -> sql.Composable:
    """Return the condition that a leaf still belongs to its partitioned table."""
    assert leaf.root is not None
    return belongs(sql.Literal(str(leaf.name)), leaf.root)


def or_no_part(table: Table) -> str:
    """Return by what a question is answered for a leaf that is detached."""
    if table.root is None:
        return ""
    return render(sql.SQL(" OR NOT {}").format(is_part(table)))


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


def pinned_path(path: tuple[str, ...], schema: str) -> sql.Composable:
    """
    Return the search path of a function that means the same in every session.

    Args:
        path: schemas in which the expressions were tried out.
        schema: the table's.
    """
    return sql.SQL(", ").join(
        map(sql.Identifier, dict.fromkeys(("pg_catalog", *path, schema)))
    )


def triggers_are_on(
    table: TableName, name: str, *, on_top: tuple[str, ...] = ()
) -> str:
    """
    Return the question whether triggers of a table fire for every session.

    Args:
        table: the table.
        name: of a row trigger; it has to be on every partition: what fires is its
            clone there.
        on_top: of statement triggers, which have no clones.
    """

    def there(of: sql.Composable, trigger: str) -> sql.Composable:
        return sql.SQL(
            "EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = {}"
            " AND tgname = {} AND tgenabled = 'A')"
        ).format(of, sql.Literal(trigger))

    everywhere = sql.SQL("SELECT NOT EXISTS ({} WHERE NOT {})").format(
        members(table), there(sql.SQL("part.oid"), name)
    )
    regclass = sql.SQL("{}::pg_catalog.regclass").format(sql.Literal(str(table)))
    return render(
        sql.SQL(" AND ").join((everywhere, *(there(regclass, t) for t in on_top)))
    )


def needs(work: Transaction, question: str, why: str) -> Transaction:
    """
    Return the transaction, refused where the dual write is off.

    Args:
        work: the transaction.
        question: whether it is on.
        why: what may be lost, for the message.
    """
    off = Refusal(
        count=f"SELECT CASE WHEN {question.removeprefix('SELECT ')} THEN 0 ELSE 1 END",
        why=why,
        next="run `migrator verify`, or roll the change back.",
    )
    return replace(work, refusals=(off, *work.refusals))


def locked(
    table: TableName,
    mode: Lock,
    *also: TableName,
    through: TableName | None = None,
    turned: bool = False,
) -> str:
    """
    Return the statement that takes a step's strongest lock first.

    Several tables are locked in the order of their names, so that two changes that
    share them do not meet; `through` before them, as its users lock them; `turned` is
    the other order, for another try. What a change made comes last in both: requests
    come to it through a trigger of another one.
    """
    first = () if through is None else (through,)
    ordered = sorted({table, *also}, reverse=turned)
    ordered.sort(key=lambda t: t.name.startswith(names.OWNED))
    tables = (t.identifier for t in (*first, *ordered))
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
    through: TableName | None = None,
    beside: tuple[TableLock, ...] = (),
) -> Transaction:
    """
    Return a transaction that takes its lock first and changes catalogues only.

    Args:
        table: the table.
        statements: what is changed.
        lock: the strongest that they take.
        also: further tables that they lock as strongly.
        through: a view over the table, or a table whose trigger writes it, that they
            lock as strongly.
        beside: weaker locks on further tables, without their partitions; those that
            come first are waited for before the strongest.

    Source: PostgreSQL manual, LOCK; section 13.3.1.
    """
    others = tuple(sorted({*also} - {table}))
    strongest = locked(table, lock, *others, through=through)
    before = () if through is None else (through,)

    def weaker(*, first: bool) -> tuple[str, ...]:
        return tuple(
            render(
                sql.SQL("LOCK TABLE ONLY {} IN {} MODE").format(
                    b.table.identifier, sql.SQL(b.lock.value)
                )
            )
            for b in beside
            if b.first is first
        )

    return Transaction(
        statements=(
            *weaker(first=True),
            strongest,
            *weaker(first=False),
            *(render(s) for s in statements),
        ),
        lock=lock,
        table=table,
        also=(
            *(TableLock(table=t, lock=lock) for t in (*before, *others)),
            *beside,
        ),
    )


def has_columns(table: TableName, *columns: str) -> str:
    """Return the question whether a table has all these columns."""
    return render(
        sql.SQL(
            "SELECT count(*) = {} FROM pg_catalog.pg_attribute"
            " WHERE attrelid = {}::pg_catalog.regclass AND NOT attisdropped"
            " AND attname IN ({})"
        ).format(
            sql.Literal(len(columns)),
            sql.Literal(str(table)),
            sql.SQL(", ").join(map(sql.Literal, columns)),
        )
    )


def name_taken(name: TableName, *, but: sql.Composable | None = None) -> Refusal:
    """
    Return the condition that a name was not given away after retire.

    Args:
        name: of a relation.
        but: the condition that what has it does not count; None where all does.
    """
    return Refusal(
        count=render(
            sql.SQL(
                "SELECT count(*) FROM pg_catalog.pg_class c"
                " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
                " WHERE n.nspname = {} AND c.relname = {} AND NOT {}"
            ).format(
                sql.Literal(name.schema),
                sql.Literal(name.name),
                sql.SQL("false") if but is None else but,
            )
        ),
        why=f"the name {name} was given to another relation meanwhile",
        next="rename that one, then run the same command again.",
    )


def partitioned(name: TableName) -> sql.Composable:
    """Return the condition that a table or an index is partitioned by now."""
    return sql.SQL(
        "EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid ="
        " pg_catalog.to_regclass({}) AND relkind IN ('p', 'I'))"
    ).format(sql.Literal(str(name)))


def no_plain_index(index: TableName) -> Refusal:
    """Return the condition that an index did not become one of a partitioned table."""
    return _partitioned_since(
        index,
        f"index {index} is one of a partitioned table by now, which PostgreSQL does not"
        " drop concurrently",
        f"run SET lock_timeout = '1s'; DROP INDEX {index}; until it succeeds (it locks"
        " the table and all partitions, for an instant); then the same command again.",
    )


def no_plain_table(table: TableName, index: str) -> Refusal:
    """Return the condition that a table that gets an index was not partitioned."""
    return _partitioned_since(
        table,
        f"table {table} is partitioned by now, of which PostgreSQL builds no index"
        " concurrently",
        f'make index "{index}", or the key of that name, leaf by leaf (ON ONLY the'
        " table, CONCURRENTLY on each partition, ALTER INDEX … ATTACH PARTITION); then"
        " run the same command again, which finds it.",
    )


def _partitioned_since(name: TableName, why: str, next: str) -> Refusal:
    count = sql.SQL("SELECT ({})::int").format(partitioned(name))
    return Refusal(count=render(count), why=why, next=next)


def moved(table: Table, index: TableName) -> Refusal:
    """
    Return the condition that an index did not move to another schema with its table.

    Its drop, which is harmless where it is gone, would leave it there.
    """
    # Another schema may have a table and an index of these names.
    found = sql.SQL(
        " FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid"
        " WHERE i.indrelid = {} AND x.relname = {} AND NOT EXISTS (SELECT"
        " FROM pg_catalog.pg_namespace n WHERE n.oid = x.relnamespace"
        " AND n.nspname = {})"
    ).format(*map(sql.Literal, (table.oid, index.name, index.schema)))
    return Refusal(
        count=render(sql.SQL("SELECT count(*)") + found),
        listed=render(
            sql.SQL("SELECT x.relnamespace::pg_catalog.regnamespace::text") + found
        ),
        why=f"table {table.name} moved to another schema, and its index {index} along:"
        " {listed}",
        next="take back the change that moved them, or move them back; then run the"
        " same command again.",
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


def rename_column(table: TableName, given: str, wanted: str) -> Transaction:
    """Return the rename of a column; what hangs on it goes along."""
    return catalogue_step(
        table,
        sql.SQL("ALTER TABLE {} RENAME COLUMN {} TO {}").format(
            table.identifier, sql.Identifier(given), sql.Identifier(wanted)
        ),
    )


def rename_table(given: TableName, wanted: TableName) -> Transaction:
    """Return the rename of a table within its schema; what hangs on it goes along."""
    return catalogue_step(
        given,
        sql.SQL("ALTER TABLE {} RENAME TO {}").format(
            given.identifier, sql.Identifier(wanted.name)
        ),
    )


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
