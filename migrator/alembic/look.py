"""What an operation of Alembic's is about, and what it waits for."""

from collections.abc import Iterator
from dataclasses import replace
from difflib import SequenceMatcher
from typing import Any

import sqlalchemy as sa
from alembic.operations import ops

from migrator.alembic.order import Token
from migrator.lint import operations as lint
from migrator.lint import statements as st

# Share of two names that is the same, from which on another type does not speak against
# a rename.
ALIKE = 0.6


def place(operation: Any) -> tuple[str | None, str]:
    """Return schema and name of the table that an operation is on."""
    if isinstance(operation, ops.CreateForeignKeyOp):
        return operation.kw.get("source_schema"), operation.source_table
    schema = getattr(operation, "schema", None)
    return schema, getattr(operation, "table_name", None) or ""


def referred(operation: Any) -> tuple[str | None, str] | None:
    """Return schema and name of the table that a foreign key refers to."""
    if isinstance(operation, ops.DropConstraintOp):
        operation = operation._reverse
    if not isinstance(operation, ops.CreateForeignKeyOp):
        return None
    return operation.kw.get("referent_schema"), operation.referent_table


def columns(operation: Any) -> list[str]:
    """Return the columns that an operation names on its table."""
    match operation:
        case ops.AddColumnOp():
            return [operation.column.name]
        case ops.AlterColumnOp():
            return [operation.column_name]
        case ops.CreateIndexOp():
            return [c.name for c in operation.to_index().columns]
        case ops.CreateForeignKeyOp():
            return list(operation.local_cols)
        case ops.CreateUniqueConstraintOp() | ops.CreatePrimaryKeyOp():
            return list(operation.columns)
        case _:
            return []


def names(operation: Any) -> set[str]:
    """Return the names of what an operation is about, also of a plugin's."""
    target = getattr(operation, "target", None)
    given = (
        getattr(operation, "column_name", None),
        getattr(operation, "constraint_name", None),
        getattr(operation, "index_name", None),
        getattr(target, "signature", None),
    )
    return {str(n) for n in (place(operation)[1], *given, *columns(operation)) if n}


def is_drop_index(operation: Any, table: str) -> bool:
    """Tell whether an index of a table goes."""
    return isinstance(operation, ops.DropIndexOp) and operation.table_name == table


def is_create_index(operation: Any, table: str) -> bool:
    """Tell whether an index of a table comes."""
    return isinstance(operation, ops.CreateIndexOp) and operation.table_name == table


def type_of(column: "sa.Column[Any]") -> str:
    """Return a column's type as SQL."""
    return lint.type_sql(column.type)


def may_be_one(gone: "sa.Column[Any]", new: "sa.Column[Any]") -> bool:
    """Tell whether a column that comes may be one that goes."""
    if any(c.computed is not None or c.identity is not None for c in (gone, new)):
        return False
    return type_of(gone) == type_of(new) or ratio(gone.name, new.name) > ALIKE


def ratio(one: str, other: str) -> float:
    """Return the share of two names that is the same."""
    return SequenceMatcher(None, one, other).ratio()


def likeness(gone: ops.DropColumnOp, new: ops.AddColumnOp) -> tuple[bool, float]:
    """Return how like two columns are: the type first, then the name."""
    same = type_of(gone.to_column()) == type_of(new.column)
    return same, ratio(gone.column_name, new.column.name)


def same_index(gone: ops.DropIndexOp, new: ops.CreateIndexOp) -> bool:
    """Tell whether two indexes differ in nothing but their names."""
    both = []
    for index in (gone.to_index(), new.to_index()):
        statement = lint.statements(ops.CreateIndexOp.from_index(index))[0]
        assert isinstance(statement, st.CreateIndex)
        both.append(replace(statement, name=None))
    return both[0] == both[1]


def same_key(gone: Any, new: ops.CreateUniqueConstraintOp) -> bool:
    """Tell whether two unique constraints differ in nothing but their names."""
    return [c.name for c in gone.columns] == list(new.columns)


def back(operation: Any) -> Iterator[ops.MigrateOperation]:
    """Return what takes an operation back, as far as it is known."""
    try:
        yield operation.reverse()
    except (NotImplementedError, ValueError):
        # SQL of the project's own, of which nobody knows the way back.
        return


def values(column: "sa.Column[Any]") -> set[Token]:
    """Return the values of the enum that a column has: its default may be one."""
    kind: Any = getattr(column.type, "item_type", column.type)
    name = getattr(kind, "name", None)
    return {("values", name)} if name else set()


def tokens(operation: Any) -> tuple[frozenset[Token], frozenset[Token]]:
    """Return what is there after an operation, and what has to be before it."""
    schema, table = place(operation)
    makes: set[Token] = set()
    needs: set[Token] = {("table", schema, table)}
    match operation:
        case ops.CreateTableOp():
            made = operation.to_table()
            makes = {("table", schema, table), ("columns", schema, table)}
            makes |= {("column", schema, table, c.name) for c in made.columns}
            needs = {v for c in made.columns for v in values(c)}
            for foreign in made.foreign_key_constraints:
                elements = [e.target_fullname.split(".") for e in foreign.elements]
                to = (".".join(elements[0][:-2]) or None, elements[0][-2])
                if to != (schema, table):
                    names = tuple(sorted(e[-1] for e in elements))
                    needs |= {("table", *to), ("key", *to, names)}
                    needs |= {("column", *to, c) for c in names}
        case ops.AddColumnOp():
            name = operation.column.name
            makes = {("column", schema, table, name), ("columns", schema, table)}
            needs |= values(operation.column)
        case ops.AlterColumnOp():
            name = operation.column_name
            needs.add(("column", schema, table, name))
            steps = ("modify_type", "modify_server_default", "modify_nullable")
            for step in steps:
                value = getattr(operation, step)
                if value is not None and (
                    value is not False or step == "modify_nullable"
                ):
                    makes.add((step, schema, table, name))
                    break
                needs.add((step, schema, table, name))
        case ops.CreateIndexOp():
            on = columns(operation)
            needs |= {("column", schema, table, c) for c in on}
            needs |= {("columns", schema, table)}
            # The index of a constraint has its name until that goes.
            needs.add(("gone", schema, table, str(operation.index_name)))
            if operation.unique:
                makes = {("key", schema, table, tuple(sorted(on)))}
        case ops.CreateForeignKeyOp():
            to = (operation.kw.get("referent_schema"), operation.referent_table)
            key = tuple(sorted(operation.remote_cols))
            needs |= {("column", schema, table, c) for c in operation.local_cols}
            needs |= {("column", *to, c) for c in operation.remote_cols}
            needs |= {("table", *to), ("key", *to, key)}
            needs.add(("gone", schema, table, str(operation.constraint_name)))
        case ops.AddConstraintOp():
            on = columns(operation)
            needs |= {("columns", schema, table)}
            needs.add(("gone", schema, table, constraint_name(operation)))
            if on:
                makes = {("key", schema, table, tuple(sorted(on)))}
        case ops.DropConstraintOp():
            makes = {("gone", schema, table, constraint_name(operation))}
            parent = referred(operation)
            if parent is not None:
                makes.add(("free", *parent))
            elif operation.constraint_type in ("unique", "primary"):
                needs.add(("free", schema, table))
        case ops.DropTableOp():
            needs = {("free", schema, table)}
            for foreign in operation.to_table().foreign_key_constraints:
                parts = foreign.elements[0].target_fullname.split(".")
                to = (".".join(parts[:-2]) or None, parts[-2])
                if to != (schema, table):
                    makes.add(("free", *to))
        case _ if type(operation).__name__ == "DropEnumOp":
            needs = {("columns gone",)}
        case _ if type(operation).__name__ == "EnumValuesOp":
            makes = {("values", operation.name)}
        case ops.DropColumnOp():
            makes = {("columns gone",)}
        case _:
            pass
    return frozenset(makes), frozenset(needs)


def constraint_name(operation: Any) -> str:
    """Return the name of an operation's constraint."""
    return str(getattr(operation, "constraint_name", None))
