"""The changes that bring a column step by step, with all that it was to have."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from migrator import names
from migrator.lint import statements as st
from migrator.lint import text, types
from migrator.lint.rule import Safe
from migrator.lint.scene import Scene
from migrator.lint.statements import Ref
from migrator.pattern import OPEN, Pattern
from migrator.patterns import (
    AddCheck,
    AddColumn,
    AddForeignKey,
    AddPrimaryKey,
    AddUnique,
)


@dataclass(frozen=True, slots=True)
class Steps:
    """Changes that bring a column: one of `first`, then all of `then`."""

    first: tuple[Pattern, ...]
    then: tuple[Pattern, ...]


def safe(statement: st.AddColumn, scene: Scene, why: str, decide: str = "") -> Safe:
    """
    Return the column brought by changes, one after the other.

    Args:
        statement: that brings it at once.
        scene: where it stands.
        why: as in `Safe`; it goes on with what the changes do.
        decide: as in `Safe`, where more has to be decided than the changes ask.
    """
    found = _steps(statement, scene)
    asked = [decide, *_asked(statement, scene)]
    return Safe(
        why=why,
        patterns=found.first,
        then=found.then,
        decide="; ".join(filter(None, asked)),
    )


def _asked(statement: st.AddColumn, scene: Scene) -> Iterator[str]:
    column = statement.column
    if needs_value(column):
        yield (
            "what rows that are there get, and those that the release in use goes on"
            " inserting: a constant (`default`), or an expression over the row"
            " (`computed`)"
        )
    elif is_drawn(column):
        yield "whether bigint is the better type; nothing widens it as cheaply later"
    if (domain := _domain(column, scene)) is not None:
        yield (
            "the domain's condition over the column in place of VALUE:"
            f" {' and '.join(domain[1]) or OPEN}"
        )


def needs_value(column: st.NewColumn) -> bool:
    """Tell whether a new column refuses rows that are there, having none for them."""
    return (
        (column.not_null or _has(column, "p"))
        and column.default is None
        and column.generated is None
        and not is_drawn(column)
    )


def is_drawn(column: st.NewColumn) -> bool:
    """Tell whether a column draws its values from a sequence that comes with it."""
    return column.identity is not None or types.is_serial(column.type)


def ref(name: str) -> Ref:
    """Return the name of a type as SQL has it, taken apart."""
    schema, dot, last = name.rpartition(".")
    return Ref(last.strip('"'), schema.strip('"') if dot else None)


def _has(column: st.NewColumn, kind: str) -> bool:
    return any(c.kind == kind for c in column.constraints)


def _domain(column: st.NewColumn, scene: Scene) -> tuple[str, list[str]] | None:
    """Return the type under a domain that refuses values, and its conditions."""
    if types.parsed(column.type).known:
        return None
    known = scene.domain(ref(column.type))
    if known is None:
        return (OPEN, []) if column.constrained else None
    if not known.checks and not known.not_null:
        return None
    return known.type, [check.definition for check in known.checks]


def refuses(column: st.NewColumn, scene: Scene) -> bool:
    """Tell whether a column's type is a domain that refuses values."""
    return _domain(column, scene) is not None


def _steps(statement: st.AddColumn, scene: Scene) -> Steps:
    table, column = statement.table, statement.column
    domain = _domain(column, scene)
    kind = domain[0] if domain is not None else types.plain(column.type)
    if column.collation and "COLLATE" not in kind:
        kind += f" COLLATE {text.name(column.collation)}"

    strict = column.not_null and not _has(column, "p")
    plain = AddColumn(table.name, column.name, kind, schema=table.schema)
    filled = replace(plain, not_null=strict)
    first: tuple[Pattern, ...]
    if column.identity is not None:
        first = (replace(plain, identity=column.identity),)
    elif is_drawn(column):
        first = (replace(plain, type=column.type),)
    elif column.generated is not None:
        first = (replace(filled, computed=column.computed or OPEN),)
    elif column.default is not None:
        first = (replace(filled, default=column.default),)
    elif needs_value(column):
        first = (replace(filled, default=OPEN), replace(filled, computed=OPEN))
    else:
        first = (plain,)
    then: list[Pattern] = []
    if domain is not None:
        for number in range(len(domain[1]) or 1):
            suffix = f"_check{number or ''}"
            name = names.fitted(f"{table.name}_{column.name}", suffix)
            then.append(AddCheck(table.name, name, OPEN, schema=table.schema))
    then += _constraints(statement, scene)
    return Steps(first, tuple(then))


def _constraints(statement: st.AddColumn, scene: Scene) -> Iterator[Pattern]:
    for constraint in statement.column.constraints:
        found = of_constraint(statement.table, statement.column.name, constraint, scene)
        if found is not None:
            yield found


def of_constraint(
    table: Ref, column: str, constraint: st.NewConstraint, scene: Scene
) -> Pattern | None:
    """
    Return the change that brings a constraint of a column; None for other kinds.

    A constraint without a name gets the one that the server would give it.
    """
    on = [column]
    match constraint.kind:
        case "p":
            name = constraint.name or names.fitted(table.name, "_pkey")
            return AddPrimaryKey(table.name, on, name, schema=table.schema)
        case "u":
            return AddUnique(
                table.name,
                on,
                constraint.name or names.fitted(f"{table.name}_{column}", "_key"),
                nulls_not_distinct=constraint.nulls_not_distinct,
                deferrable=constraint.deferrable,
                schema=table.schema,
            )
        case "c":
            return AddCheck(
                table.name,
                constraint.name or names.fitted(f"{table.name}_{column}", "_check"),
                constraint.expression,
                schema=table.schema,
            )
        case "f" if constraint.to is not None:
            to = constraint.to
            return AddForeignKey(
                table.name,
                on,
                to.table.name,
                list(to.columns or _key(to.table, scene)),
                constraint.name or names.fitted(f"{table.name}_{column}", "_fkey"),
                on_delete=to.on_delete,
                on_update=to.on_update,
                match=to.match,
                deferrable=to.deferrable,
                schema=table.schema,
                referenced_schema=to.table.schema,
            )
        case _:
            return None


def _key(table: Ref, scene: Scene) -> tuple[str, ...]:
    """Return the columns of a table's primary key."""
    known = scene.table(table)
    if known is not None:
        for constraint in known.constraints:
            if constraint.kind == "p":
                return constraint.columns
    return (OPEN,)
