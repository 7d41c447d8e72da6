"""Facts of a table as statements leave them, without a look at it.

A sketch begins with the statement that makes the table, or with a database's facts. It
has no size: whoever asks knows that the table was made of late, or does not know.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from migrator import names
from migrator.facts import Column, Constraint, ForeignKey, Index, IndexColumn, Table
from migrator.final import Final, Key
from migrator.lint import statements as st
from migrator.lint import text, types
from migrator.lint.statements import ForeignTo, NewColumn, NewConstraint, Ref
from migrator.names import TableName
from migrator.pattern import Pattern
from migrator.patterns import AddCheck, AddForeignKey, ReplaceCheck, ReplaceForeignKey
from migrator.plan import render

# What the server puts behind a table and its columns where a constraint has no name.
_SUFFIX = {
    "p": "_pkey",
    "u": "_key",
    "f": "_fkey",
    "c": "_check",
    "x": "_excl",
    "n": "_not_null",
}


def named(ref: Ref) -> TableName:
    """Return a table's name for facts; no schema stands for the search path's."""
    return TableName(ref.schema or "", ref.name)


def created(statement: st.CreateTable) -> Table | None:
    """Return a new table; None where the statement does not tell its columns."""
    elsewhere = statement.copies or statement.inherits or statement.partition_of
    if not statement.columns or elsewhere or statement.temporary:
        return None
    table = Table(
        name=named(statement.table),
        oid=0,
        columns=tuple(_column(c) for c in statement.columns),
        kind="p" if statement.partitioned else "r",
    )
    inline = (c for column in statement.columns for c in column.constraints)
    for constraint in (*statement.constraints, *inline):
        table = _constrained(table, constraint)
    return table


def changed(table: Table, statement: st.Statement) -> Table:
    """Return a table after a statement on it, or on an index of it."""
    match statement:
        case st.AddColumn(column=new):
            if table.column(new.name) is not None:
                return table
            table = replace(table, columns=(*table.columns, _column(new)))
            for constraint in new.constraints:
                table = _constrained(table, constraint)
        case st.DropColumn(column=name):
            return _without_column(table, name)
        case st.RenameColumn(column=name, to=to):
            return _renamed(table, name, to)
        case st.ChangeType(column=name):
            type_, collation = types.uncollated(statement.type), statement.collation
            return _with(
                table,
                (name,),
                lambda c: replace(c, type=type_, base=None, collation=collation),
            )
        case st.SetNotNull(column=name):
            return _proved(table, (name,), not_null=True)
        case st.DropNotNull(column=name):
            return _proved(table, (name,), not_null=False)
        case st.SetDefault(column=name, default=default):
            return _with(table, (name,), lambda c: replace(c, default=default))
        case st.DropDefault(column=name):
            return _with(table, (name,), lambda c: replace(c, default=None))
        case st.AddIdentity(column=name):
            return _with(table, (name,), lambda c: replace(c, identity=True))
        case st.DropIdentity(column=name):
            return _with(table, (name,), lambda c: replace(c, identity=False))
        case st.AddConstraint(constraint=constraint):
            return _constrained(table, constraint)
        case st.ValidateConstraint(name=name):
            constraints = tuple(
                replace(c, validated=True) if c.name == name else c
                for c in table.constraints
            )
            return replace(table, constraints=constraints)
        case st.DropConstraint(name=name):
            return without(table, name)
        case st.RenameConstraint(name=name, to=to):
            return _key_renamed(table, name, to)
        case st.RenameIndex(name=ref, to=to):
            return _key_renamed(table, ref.name, to)
        case st.CreateIndex():
            if statement.name and table.index(statement.name) is not None:
                return table
            return replace(table, indexes=(*table.indexes, _index(table, statement)))
        case st.DropIndex(name=ref):
            indexes = tuple(i for i in table.indexes if i.name != ref.name)
            return replace(table, indexes=indexes)
        case _:
            pass
    return table


def finished(table: Table, pattern: Pattern, final: Final) -> Table:
    """
    Return a table after a change that the toolkit carries.

    Args:
        table: as it was.
        pattern: the change.
        final: what it leaves behind.
    """
    table = _proved(table, final.not_null, not_null=True)
    table = _proved(table, final.nullable, not_null=False)
    table = _with(table, final.no_default, lambda c: replace(c, default=None))
    for name in final.gone:
        table = without(_without_column(table, name), name)
    for key in final.keys:
        # What takes the place of another one has its name.
        table = without(table, key.name)
        if key.kind == "i":
            index = _plain(key.name, key.columns or (), unique=key.unique)
            table = replace(table, indexes=(*table.indexes, index))
        else:
            table = _constrained(table, _new(pattern, key))
    return table


def _new(pattern: Pattern, key: Key) -> NewConstraint:
    """Return a change's constraint, with what the catalogue is not compared with."""
    new = NewConstraint(kind=key.kind, name=key.name, columns=key.columns or ())
    match pattern:
        case AddForeignKey() | ReplaceForeignKey():
            parent = Ref(pattern.references, pattern.referenced_schema)
            to = ForeignTo(table=parent, columns=tuple(pattern.referenced_columns))
            return replace(new, to=to)
        case AddCheck() | ReplaceCheck():
            return replace(new, expression=pattern.expression)
        case _:
            return new


def without(table: Table, name: str) -> Table:
    """Return a table without a constraint, and what is behind it."""
    gone = table.constraint(name)
    table = replace(
        table,
        constraints=tuple(c for c in table.constraints if c.name != name),
        indexes=tuple(i for i in table.indexes if i.name != name),
        foreign_keys=tuple(
            k for k in table.foreign_keys if (k.table, k.name) != (table.name, name)
        ),
    )
    table = _with(
        table,
        (c.name for c in table.columns if name in c.checks),
        lambda c: replace(c, checks=tuple(k for k in c.checks if k != name)),
    )
    if gone is not None and gone.kind == "n":
        table = _proved(table, gone.columns, not_null=False)
    return table


def moved(table: Table, to: TableName) -> Table:
    """Return a table under another name."""
    keys = tuple(
        replace(
            k,
            table=to if k.table == table.name else k.table,
            to=to if k.to == table.name else k.to,
        )
        for k in table.foreign_keys
    )
    return replace(table, name=to, foreign_keys=keys)


def _column(new: NewColumn) -> Column:
    serial = types.is_serial(new.type)
    return Column(
        name=new.name,
        type=types.plain(new.type) if serial else types.uncollated(new.type),
        not_null=new.not_null or serial or new.identity is not None,
        default="nextval()" if serial else new.default,
        collation=new.collation,
        generated=new.generated is not None,
        virtual=new.generated == "virtual",
        identity=new.identity is not None,
    )


def _with(
    table: Table, columns: Iterable[str], change: Callable[[Column], Column]
) -> Table:
    """Return a table with some columns changed."""
    wanted = set(columns)
    return replace(
        table,
        columns=tuple(change(c) if c.name in wanted else c for c in table.columns),
    )


def _proved(table: Table, columns: Iterable[str], *, not_null: bool) -> Table:
    return _with(table, columns, lambda c: replace(c, not_null=not_null))


def _constrained(table: Table, new: NewConstraint) -> Table:
    """Return a table with one more constraint, and its index or foreign key."""
    columns = new.columns
    if new.using_index is not None and (old := table.index(new.using_index)):
        columns = tuple(k.name for k in old.keys)
        name = new.name or old.name
        table = _key_renamed(table, old.name, name)
        indexes = tuple(
            replace(i, primary=new.kind == "p", constraints=(name,))
            if i.name == name
            else i
            for i in table.indexes
        )
        table = replace(table, indexes=indexes)
    else:
        name = new.name or _name(table, new)
        if new.kind in "pu":
            index = replace(
                _plain(name, columns, unique=True),
                include=new.include,
                primary=new.kind == "p",
                constraints=(name,),
                columns=(*columns, *new.include),
            )
            table = replace(table, indexes=(*table.indexes, index))
    if new.kind in "pn":
        table = _proved(table, columns, not_null=True)
    if new.kind == "c":
        columns = _mentioned(table, new.expression)
        table = _with(table, columns, lambda c: replace(c, checks=(*c.checks, name)))
    to = new.to
    if to is not None:
        key = ForeignKey(
            name=name,
            table=table.name,
            columns=columns,
            to=named(to.table),
            to_columns=to.columns,
            validated=not new.not_valid,
        )
        table = replace(table, foreign_keys=(*table.foreign_keys, key))
    one = Constraint(
        name=name,
        kind=new.kind,
        definition=f"CHECK ({new.expression})" if new.kind == "c" else new.definition,
        columns=columns,
        validated=not new.not_valid,
        deferrable=new.deferrable is not None,
        deferred=new.deferrable == "deferred",
        references=None if to is None else named(to.table),
        index=name if new.kind in "pu" else None,
    )
    return replace(table, constraints=(*table.constraints, one))


def _name(table: Table, new: NewConstraint) -> str:
    columns = new.columns if new.kind != "p" else ()
    if new.kind == "c":
        found = _mentioned(table, new.expression)
        columns = found if len(found) == 1 else ()
    return names.fitted("_".join((table.name.name, *columns)), _SUFFIX[new.kind])


def _mentioned(table: Table, expression: str) -> tuple[str, ...]:
    found = names.mentioned(expression)
    return tuple(c.name for c in table.columns if c.name in found)


def _plain(name: str, columns: Sequence[str], *, unique: bool) -> Index:
    return Index(
        name=name,
        method="btree",
        keys=tuple(IndexColumn(name=c) for c in columns),
        unique=unique,
        columns=tuple(columns),
    )


def _index(table: Table, new: st.CreateIndex) -> Index:
    keys = tuple(
        IndexColumn(name=k if isinstance(k, str) else k.column) for k in new.keys
    )
    expressions = [k.expression for k in new.keys if not isinstance(k, str)]
    read = _mentioned(table, " ".join(filter(None, (*expressions, new.where))))
    columns = dict.fromkeys(
        (*filter(None, (k.name for k in keys)), *new.include, *read)
    )
    return Index(
        name=new.name
        or names.fitted("_".join((table.name.name, *(k.name for k in keys))), "_idx"),
        method=new.method,
        keys=keys,
        include=new.include,
        unique=new.unique,
        nulls_not_distinct=new.nulls_not_distinct,
        plain=new.where is None and not any(expressions),
        predicate=new.where,
        spelt=_spelt(new),
        columns=tuple(columns),
    )


def _spelt(new: st.CreateIndex) -> str:
    """Return what DDL says behind the table's name, up to the predicate."""
    keys = ", ".join(
        text.name(k) if isinstance(k, str) else render(k.render()) for k in new.keys
    )
    include = ", ".join(map(text.name, new.include))
    return (
        f"USING {new.method} ({keys})"
        + (f" INCLUDE ({include})" if include else "")
        + (" NULLS NOT DISTINCT" if new.nulls_not_distinct else "")
    )


def _without_column(table: Table, name: str) -> Table:
    for constraint in table.constraints:
        if name in constraint.columns:
            table = without(table, constraint.name)
    return replace(
        table,
        columns=tuple(c for c in table.columns if c.name != name),
        indexes=tuple(i for i in table.indexes if name not in i.columns),
        foreign_keys=tuple(
            k
            for k in table.foreign_keys
            if not (k.to == table.name and name in k.to_columns)
        ),
    )


def _renamed(table: Table, name: str, to: str) -> Table:
    def each(given: Iterable[str]) -> tuple[str, ...]:
        return tuple(to if one == name else one for one in given)

    return replace(
        table,
        columns=tuple(
            replace(c, name=to) if c.name == name else c for c in table.columns
        ),
        indexes=tuple(
            replace(
                i,
                keys=tuple(
                    replace(k, name=to) if k.name == name else k for k in i.keys
                ),
                include=each(i.include),
                columns=each(i.columns),
            )
            for i in table.indexes
        ),
        constraints=tuple(
            replace(c, columns=each(c.columns)) for c in table.constraints
        ),
        foreign_keys=tuple(
            replace(
                k,
                columns=each(k.columns) if k.table == table.name else k.columns,
                to_columns=each(k.to_columns) if k.to == table.name else k.to_columns,
            )
            for k in table.foreign_keys
        ),
    )


def _key_renamed(table: Table, name: str, to: str) -> Table:
    """Return a table with another name of a constraint, its index and foreign key."""
    return replace(
        table,
        constraints=tuple(
            replace(c, name=to, index=to if c.index == name else c.index)
            if c.name == name
            else c
            for c in table.constraints
        ),
        indexes=tuple(
            replace(i, name=to) if i.name == name else i for i in table.indexes
        ),
        foreign_keys=tuple(
            replace(k, name=to) if (k.table, k.name) == (table.name, name) else k
            for k in table.foreign_keys
        ),
    )
