"""Constraints added, proved and dropped without a scan under a strong lock.

A constraint that the old release could violate is none before retire: its violating
rows are counted in chunks. Then it is added `NOT VALID` or over an index that was built
concurrently, and proved by a statement of its own. Here is what all kinds share;
`unique_key`, `foreign_key` and `exclusion` have what is theirs.

Source: PostgreSQL manual, ALTER TABLE, Notes.
"""

from collections.abc import Mapping
from dataclasses import replace

from psycopg import sql

from migrator import names
from migrator.errors import Misdeclared, NotThere, Refused
from migrator.facts import Constraint, Facts, Index, Table
from migrator.kernels import direct, indexes, partitioned_index
from migrator.kernels.partitioned_index import Part
from migrator.names import TableName
from migrator.plan import (
    Autocommit,
    Lock,
    Refusal,
    Step,
    TableLock,
    Transaction,
    render,
    type_name,
)

#: What is to be done about what got a name since expand.
RENAME_OR_DROP = "rename that one, or drop it; then run the same command again."
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
    wanted = given and str(given).lower()
    if wanted not in _DEFERRABLE:
        raise Misdeclared(
            f"{title}: deferrable is {given!r}.",
            next='write "immediate" or "deferred", which is what it is initially.',
        )
    return _DEFERRABLE[wanted]


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
            raise Misdeclared(
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


def require_none_since(facts: Facts, name: str, *, indexed: bool = False) -> None:
    """
    Refuse retire where somebody gave away the name that a constraint is to get.

    The other one would count as made by the change, and go with its way back.

    Args:
        facts: of the table, before the constraint is added.
        name: the constraint's.
        indexed: whether an index bears it as well.
    """
    try:
        require_free_name(facts, name, indexed=indexed)
    except Refused as error:
        raise Refused(error.what, next=RENAME_OR_DROP) from None


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
        NotThere: the table has no such constraint.
    """
    found = facts.table.constraint(name)
    if found is None:
        known = ", ".join(f'"{c.name}"' for c in facts.table.constraints)
        raise NotThere(
            f'Table {facts.table.name} has no constraint "{name}".',
            next=f"correct the name; the table has {known or 'none'}.",
            name=name,
            known=(c.name for c in facts.table.constraints),
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


def with_comment(work: Transaction, table: TableName, found: Constraint) -> Transaction:
    """Return the transaction that makes a constraint again, with its comment."""
    if found.comment is None:
        return work
    return replace(work, statements=(*work.statements, render(comment(table, found))))


def comment(table: TableName, found: Constraint) -> sql.Composable:
    """Return what gives a constraint of a table the comment that it has."""
    return sql.SQL("COMMENT ON CONSTRAINT {} ON {} IS {}").format(
        sql.Identifier(found.name), table.identifier, sql.Literal(found.comment)
    )


def comments(table: TableName, found: Constraint) -> tuple[sql.Composable, ...]:
    """Return the same where it has one, else nothing."""
    return () if found.comment is None else (comment(table, found),)


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


def violated(facts: Facts, name: str, rows: sql.Composable, *, since: str) -> Refusal:
    """
    Return the refusal of a constraint's way back while rows violate it.

    Args:
        facts: of the table.
        name: the constraint's.
        rows: the condition of such rows; the row has the table's name.
        since: since when they may have been written.
    """
    refusal = refused_by_rows(facts.table.name, name, rows, f", written since {since}")
    return replace(
        refusal, next=f"{refusal.next.removesuffix('.')}; or keep the new release."
    )


def refused_by_rows(
    table: TableName, name: str, rows: sql.Composable, which: str
) -> Refusal:
    """
    Return the refusal of what rows stand against, that violate a constraint.

    Args:
        table: the table.
        name: the constraint's.
        rows: the condition of such rows; the row has the table's name.
        which: which rows these are, behind the constraint's name.
    """
    return Refusal(
        count=render(
            sql.SQL("SELECT count(*) FROM {} AS {} WHERE {}").format(
                table.identifier, sql.Identifier(table.name), rows
            )
        ),
        why=f'{{count:row violates|rows violate}} the constraint "{name}"{which}',
        next="correct these rows, then run the same command again.",
    )


def counted(table: TableName, refusal: Refusal, *, done: str) -> Autocommit:
    """Return the count of rows that refuse what follows, with nothing locked."""
    return Autocommit(
        statement="SELECT true",
        lock=Lock.NONE,
        table=table,
        done=done,
        refusals=(refusal,),
    )


def drop(table: TableName, name: str, also: TableName | None = None) -> Transaction:
    """
    Return the transaction that drops a constraint, harmless where it is gone.

    Args:
        table: the table.
        name: the constraint's.
        also: the table that a foreign key refers to.
    """
    return direct.catalogue_step(
        table,
        sql.SQL("ALTER TABLE {} DROP CONSTRAINT IF EXISTS {}").format(
            table.identifier, sql.Identifier(name)
        ),
        also=(also,) if also else (),
    )


def withdrawn(table: TableName, name: str) -> str:
    """Return the drop of a constraint that came back, and that rows violate by then."""
    return render(
        sql.SQL("ALTER TABLE {} DROP CONSTRAINT IF EXISTS {}").format(
            table.identifier, sql.Identifier(name)
        )
    )


def renamed(table: TableName, name: str, to: str) -> sql.Composable:
    """Return what gives a constraint another name."""
    return sql.SQL("ALTER TABLE {} RENAME CONSTRAINT {} TO {}").format(
        table.identifier, sql.Identifier(name), sql.Identifier(to)
    )


def exchanged(
    table: TableName,
    old: Constraint,
    made: str,
    *,
    done: str,
    also: TableName | None = None,
) -> Transaction:
    """
    Return the transaction by which one constraint takes another's place and name.

    Args:
        table: the table.
        old: the constraint that goes; its comment goes over.
        made: the other one's name until then.
        done: the question whether it has.
        also: the table that the old one refers to.
    """
    gone = sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(
        table.identifier, sql.Identifier(old.name)
    )
    work = direct.catalogue_step(
        table,
        gone,
        renamed(table, made, old.name),
        *comments(table, old),
        also=() if also is None else (also,),
    )
    return replace(work, done=done)


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
    reverse = (helps(step.work, facts.table.name, *columns),)
    return (Step(name="drop_index", work=gone, reverse=reverse),)


def helps(build: Autocommit, table: TableName, *columns: str) -> Autocommit:
    """
    Return the build of an index that helps to compare rows, on a way back.

    Where a later change has made the table another one, that goes on without.

    Args:
        build: the build.
        table: the table.
        columns: those that the index is on.
    """
    other = sql.SQL(" OR {}").format(direct.partitioned(table))
    if columns:
        there = type_name(direct.has_columns(table, *columns))
        other += sql.SQL(" OR NOT ({})").format(there)
    return replace(build, done=(build.done or "") + render(other))


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
