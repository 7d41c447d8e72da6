"""Foreign keys of a revision: what several rules ask about them."""

from collections.abc import Iterator

from migrator import names
from migrator.lint import statements as st
from migrator.lint.scene import Scene
from migrator.lint.statements import NewConstraint, Ref, Statement
from migrator.patterns import AddForeignKey, ReplaceForeignKey

#: What stands for columns that a revision does not name, for a person to fill in.
UNKNOWN = ("…",)


def added(statement: Statement) -> Iterator[tuple[Ref, NewConstraint]]:
    """Give the foreign keys that a statement adds to a table that is there."""
    match statement:
        case st.AddConstraint(table=table, constraint=one) if one.to is not None:
            yield table, one
        case st.AddColumn(table=table, column=column):
            for one in column.constraints:
                if one.to is not None:
                    yield table, one
        case _:
            pass


def parent_columns(constraint: NewConstraint, scene: Scene) -> tuple[str, ...]:
    """Return the columns that it refers to: the primary key, where none are named."""
    assert constraint.to is not None
    if constraint.to.columns:
        return constraint.to.columns
    known = scene.table(constraint.to.table)
    keys = known.constraints if known is not None else ()
    return next((c.columns for c in keys if c.kind == "p"), UNKNOWN)


def name_of(table: Ref, constraint: NewConstraint) -> str:
    """Return its name, or the one that the server would give it."""
    if constraint.name is not None:
        return constraint.name
    return names.fitted("_".join((table.name, *constraint.columns)), "_fkey")


def pattern(
    table: Ref, constraint: NewConstraint, scene: Scene
) -> AddForeignKey | ReplaceForeignKey:
    """Return the change that adds it, or puts it in the place of one of its name."""
    to = constraint.to
    assert to is not None
    again = scene.comes_back(table, constraint)
    change = ReplaceForeignKey if again else AddForeignKey
    return change(
        table.name,
        list(constraint.columns),
        to.table.name,
        list(parent_columns(constraint, scene)),
        name_of(table, constraint),
        on_delete=to.on_delete,
        on_update=to.on_update,
        match=to.match,
        deferrable=to.deferrable,
        schema=table.schema,
        referenced_schema=to.table.schema,
    )


def is_indexed(table: Ref, columns: tuple[str, ...], scene: Scene) -> bool | None:
    """
    Tell whether an index, also one that the revision makes, begins with columns.

    Returns:
        None where the table is not known.
    """
    known = scene.table(table)
    if known is None:
        return None
    begins = [
        tuple(k.name for k in i.keys)
        for i in known.indexes
        if i.valid and i.predicate is None
    ]
    for s in (*scene.earlier, *scene.whole):
        match s:
            case st.CreateIndex(table=of, keys=keys, where=None):
                columns_of = tuple(k if isinstance(k, str) else k.column for k in keys)
            case st.AddConstraint(table=of, constraint=one) if one.kind in "pu":
                columns_of = one.columns
            case _:
                continue
        if scene.is_same(of, table):
            begins.append(columns_of)
    wanted = set(columns)
    return any(set(names[: len(columns)]) == wanted for names in begins)
