"""CREATE TABLE and ALTER TABLE."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from migrator.lint import statements as st
from migrator.lint.sql.columns import column, constraint, is_constraint
from migrator.lint.sql.cursor import Cursor, UnreadError
from migrator.lint.statements import NewColumn, NewConstraint, Ref, Statement
from migrator.lint.types import in_dialect

# What may follow the elements of a new table.
_AFTER_ELEMENTS = ("INHERITS (", "AS")
# Actions of which nothing but the lock matters.
_PLAIN = ("OWNER TO", "REPLICA IDENTITY", "CLUSTER ON", "SET WITHOUT CLUSTER")
_PLAIN_COLUMN = (
    "SET STATISTICS",
    "SET STORAGE",
    "SET COMPRESSION",
    "DROP EXPRESSION",
)


def create_table(c: Cursor, *, temporary: bool = False) -> st.CreateTable:
    """
    Read what follows CREATE … TABLE.

    Args:
        c: stands behind TABLE.
        temporary: whether the session alone sees it.

    Raises:
        UnreadError: something in it is not known.
    """
    if_not_exists = bool(c.take("IF NOT EXISTS"))
    table = c.ref()
    parent = None
    inherits: tuple[Ref, ...] = ()
    columns: tuple[NewColumn, ...] = ()
    constraints: tuple[NewConstraint, ...] = ()
    copies = False
    if c.take("PARTITION OF"):
        parent = c.ref()
        if c.sees("("):
            columns, constraints = _elements(c.group().items(), typed=False)
    elif c.take("OF"):
        c.ref()
        if c.sees("("):
            columns, constraints = _elements(c.group().items(), typed=False)
    elif c.sees("(") and not _only_names(c):
        elements = c.group().items()
        copies = any(item.sees("LIKE") for item in elements)
        columns, constraints = _elements(elements)
    partitioned = c.passes("PARTITION BY")
    c.upto_words(*_AFTER_ELEMENTS)
    if c.take("INHERITS"):
        inherits = tuple(item.ref() for item in c.group().items())
    return st.CreateTable(
        table=table,
        columns=columns,
        constraints=constraints,
        partition_of=parent,
        inherits=inherits,
        copies=copies,
        partitioned=partitioned,
        temporary=temporary,
        if_not_exists=if_not_exists,
    )


def _only_names(c: Cursor) -> bool:
    """Tell whether CREATE TABLE … (a, b) AS has names there, not columns."""
    before = c.at
    items = c.group().items()
    c.at = before
    return bool(items) and all(len(item.tokens) == 1 for item in items)


def _elements(
    items: Sequence[Cursor], *, typed: bool = True
) -> tuple[tuple[NewColumn, ...], tuple[NewConstraint, ...]]:
    """Read columns and constraints; those of columns come to the table's."""
    columns: list[NewColumn] = []
    constraints: list[NewConstraint] = []
    for item in items:
        if item.sees("LIKE"):
            continue
        if is_constraint(item):
            constraints.append(constraint(item))
            continue
        one = column(item, typed=typed)
        constraints += one.constraints
        columns.append(replace(one, constraints=()))
    keys = {n for one in constraints if one.kind in "pn" for n in one.columns}
    return (
        tuple(replace(o, not_null=o.not_null or o.name in keys) for o in columns),
        tuple(constraints),
    )


def alter_table(c: Cursor, head: Callable[[], str]) -> Iterator[Statement]:
    """
    Read what follows ALTER TABLE, a statement for each action.

    Args:
        c: stands behind TABLE, or behind VIEW and the like.
        head: returns the text from its beginning up to the actions.

    Raises:
        UnreadError: it is about no table.
    """
    if c.take("ALL IN TABLESPACE"):
        raise UnreadError
    c.take("IF EXISTS")
    c.take("ONLY")
    table = c.ref()
    c.take("*")
    before = head()
    for item in c.items():
        text = f"{before} {item.text()}"
        try:
            found = _action(item, table)
        except UnreadError:
            found = st.Other()
        yield replace(found, sql=text)


def _action(c: Cursor, table: Ref) -> Statement:
    match c.take(
        *_PLAIN,
        "ADD",
        "DROP",
        "ALTER",
        "VALIDATE CONSTRAINT",
        "RENAME",
        "SET",
        "ATTACH PARTITION",
        "DETACH PARTITION",
        "ENABLE",
        "DISABLE",
        "FORCE",
        "NO FORCE",
        "RESET",
    ):
        case "ADD":
            return _add(c, table)
        case "DROP":
            return _drop(c, table)
        case "ALTER":
            return _alter_column(c, table)
        case "VALIDATE CONSTRAINT":
            return st.ValidateConstraint(table=table, name=c.name())
        case "RENAME":
            return _rename(c, table)
        case "SET":
            return _set(c, table)
        case "ATTACH PARTITION":
            return st.AttachPartition(table=table, partition=c.ref(), bounds=c.rest())
        case "DETACH PARTITION":
            return st.DetachPartition(
                table=table,
                partition=c.ref(),
                concurrently=bool(c.take("CONCURRENTLY")),
                finalize=bool(c.take("FINALIZE")),
            )
        case "ENABLE" | "DISABLE" | "FORCE" | "NO FORCE" as how:
            return _switch(c, table, how)
        case "RESET":
            return _options(c, table, "RESET")
        case how if how in _PLAIN:
            return st.AlterTable(table=table, how=how)
        case _:
            raise UnreadError


def _options(c: Cursor, table: Ref, how: str) -> Statement:
    """Read the options of a table or view that are set or reset."""
    names = tuple(item.name().lower() for item in c.group().items())
    return st.AlterTable(table=table, how=how, options=names)


def _add(c: Cursor, table: Ref) -> Statement:
    if is_constraint(c):
        return st.AddConstraint(table=table, constraint=constraint(c))
    c.take("COLUMN")
    exists = bool(c.take("IF NOT EXISTS"))
    return st.AddColumn(table=table, column=column(c), if_not_exists=exists)


def _drop(c: Cursor, table: Ref) -> Statement:
    if c.take("CONSTRAINT"):
        c.take("IF EXISTS")
        return st.DropConstraint(
            table=table, name=c.name(), cascade=bool(c.take("CASCADE"))
        )
    c.take("COLUMN")
    c.take("IF EXISTS")
    return st.DropColumn(table=table, column=c.name(), cascade=bool(c.take("CASCADE")))


def _alter_column(c: Cursor, table: Ref) -> Statement:
    if c.sees("CONSTRAINT"):
        raise UnreadError
    c.take("COLUMN")
    name = c.name()
    taken = c.take(
        "SET DATA TYPE",
        "TYPE",
        "SET DEFAULT",
        "DROP DEFAULT",
        "SET NOT NULL",
        "DROP NOT NULL",
        "SET EXPRESSION AS",
        "ADD GENERATED",
        "SET GENERATED ALWAYS",
        "SET GENERATED BY DEFAULT",
        "DROP IDENTITY",
        *_PLAIN_COLUMN,
    )
    match taken:
        case "SET DATA TYPE" | "TYPE":
            type_ = in_dialect(c.upto_words("COLLATE", "USING"))
            if not type_:
                raise UnreadError
            return st.ChangeType(
                table=table,
                column=name,
                type=type_,
                collation=c.ref().name if c.take("COLLATE") else None,
                using=c.rest() if c.take("USING") else None,
            )
        case "SET DEFAULT":
            return st.SetDefault(table=table, column=name, default=c.rest())
        case "DROP DEFAULT":
            return st.DropDefault(table=table, column=name)
        case "SET NOT NULL":
            return st.SetNotNull(table=table, column=name)
        case "DROP NOT NULL":
            return st.DropNotNull(table=table, column=name)
        case "SET EXPRESSION AS":
            return st.SetExpression(
                table=table, column=name, expression=c.group().text()
            )
        case "ADD GENERATED":
            always = c.take("ALWAYS", "BY DEFAULT") == "ALWAYS"
            c.expect("AS IDENTITY")
            return st.AddIdentity(
                table=table,
                column=name,
                always=always,
                options=c.group().text() if c.sees("(") else "",
            )
        case "DROP IDENTITY":
            return st.DropIdentity(table=table, column=name)
        case how if how in _PLAIN_COLUMN:
            return st.AlterTable(table=table, how=how)
        case "SET GENERATED ALWAYS" | "SET GENERATED BY DEFAULT":
            always = taken.endswith("ALWAYS")
            return st.SetGenerated(table=table, column=name, always=always)
        case _:
            raise UnreadError


def _rename(c: Cursor, table: Ref) -> Statement:
    if c.take("TO"):
        return st.RenameTable(table=table, to=c.name())
    if c.take("CONSTRAINT"):
        name = c.name()
        c.expect("TO")
        return st.RenameConstraint(table=table, name=name, to=c.name())
    c.take("COLUMN")
    name = c.name()
    c.expect("TO")
    return st.RenameColumn(table=table, column=name, to=c.name())


def _set(c: Cursor, table: Ref) -> Statement:
    if c.sees("("):
        return _options(c, table, "SET")
    match c.take("SCHEMA", "LOGGED", "UNLOGGED", "TABLESPACE", "ACCESS METHOD"):
        case "SCHEMA":
            return st.MoveTable(table=table, to=c.name())
        case "LOGGED" | "UNLOGGED" as how:
            return st.Rewrite(table=table, how=f"SET {how}")
        case "TABLESPACE" | "ACCESS METHOD" as how:
            return st.Rewrite(table=table, how=f"SET {how}", to=c.name())
        case _:
            raise UnreadError


def _switch(c: Cursor, table: Ref, how: str) -> Statement:
    """Read what is enabled or disabled."""
    if c.take("ROW LEVEL SECURITY"):
        return st.ChangePolicy(table=table, how=how)
    c.take("ALWAYS", "REPLICA")
    c.expect("TRIGGER")
    return st.ChangeTrigger(table=table, how=how, name=c.name())
