"""Alembic operations as statements."""

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

from alembic.operations import ops
from sqlalchemy import (
    CheckConstraint,
    Column,
    Computed,
    DefaultClause,
    ForeignKeyConstraint,
    Identity,
    Index,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
    schema,
    types,
)
from sqlalchemy import (
    Sequence as SASequence,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import ExcludeConstraint
from sqlalchemy.exc import CompileError
from sqlalchemy.sql.elements import ClauseElement

from migrator.kernels.index_definition import Key
from migrator.lint import sql
from migrator.lint import statements as st
from migrator.lint.statements import Ref, Statement

#: Alembic's words for kinds of constraints.
_KINDS = {"primary": "p", "unique": "u", "foreignkey": "f", "check": "c"}

_make: Any = postgresql.dialect
# Any other style of parameters would have each % of a text doubled.
_DIALECT = _make(paramstyle="named")
_DDL: Any = _DIALECT.ddl_compiler(_DIALECT, None)


#: How a generated column is kept, by SQLAlchemy's `persisted`; without a word, where
#: SQLAlchemy has none for it either, that is the server's to say.
_GENERATED = {
    True: "stored",
    False: "virtual",
    None: "either"
    if getattr(_DIALECT, "supports_virtual_generated_columns", False)
    else "stored",
}


def statements(operation: ops.MigrateOperation) -> list[Statement]:
    """
    Return what an operation makes the server do, in its order.

    Args:
        operation: one of Alembic's own; others become `Other`.
    """
    return list(_statements(operation))


def _statements(operation: ops.MigrateOperation) -> Iterator[Statement]:
    match operation:
        case ops.OpContainer():
            for inner in operation.ops:
                yield from _statements(inner)
        case ops.CreateTableOp():
            yield from _create_table(operation)
        case ops.DropTableOp():
            yield st.DropTable(table=Ref(operation.table_name, operation.schema))
        case ops.RenameTableOp():
            yield st.RenameTable(
                table=Ref(operation.table_name, operation.schema),
                to=operation.new_table_name,
            )
        case ops.AddColumnOp():
            yield from _add_column(operation)
        case ops.DropColumnOp():
            yield st.DropColumn(
                table=Ref(operation.table_name, operation.schema),
                column=operation.column_name,
            )
        case ops.AlterColumnOp():
            yield from _alter_column(operation)
        case ops.CreateIndexOp():
            yield _create_index(operation)
        case ops.DropIndexOp():
            yield st.DropIndex(
                name=Ref(str(operation.index_name), operation.schema),
                table=(
                    Ref(operation.table_name, operation.schema)
                    if operation.table_name
                    else None
                ),
                concurrently=bool(operation.kw.get("postgresql_concurrently")),
            )
        case ops.AddConstraintOp():
            item: Any = operation.to_constraint()
            yield st.AddConstraint(
                table=Ref(item.table.name, item.table.schema),
                constraint=_constraint(item),
            )
        case ops.DropConstraintOp():
            yield st.DropConstraint(
                table=Ref(operation.table_name, operation.schema),
                name=str(operation.constraint_name),
                kind=_KINDS.get(operation.constraint_type or ""),
            )
        case ops.BulkInsertOp():
            table: Any = operation.table
            yield st.ChangeRows(
                table=Ref(table.name, table.schema),
                how="INSERT",
                values=len(operation.rows),
            )
        case ops.ExecuteSQLOp():
            yield from sql.statements(text_of(operation.sqltext))
        case _:
            yield st.Other(sql=type(operation).__name__)


def _create_table(operation: ops.CreateTableOp) -> Iterator[Statement]:
    # Alembic is to have its indexes as they were given: they know one table only.
    own = copy(operation)
    given = [item for item in operation.columns if isinstance(item, Index)]
    own.columns = [i for i in operation.columns if not isinstance(i, Index)]
    table = own.to_table()
    name = Ref(table.name, table.schema)
    yield st.CreateTable(
        table=name,
        columns=tuple(_column(c) for c in table.columns),
        constraints=tuple(
            _constraint(c)
            # In the order in which they were given: a set has another one each time.
            for c in table._sorted_constraints
            if not (isinstance(c, PrimaryKeyConstraint) and not c.columns)
            # SQLAlchemy leaves it to an ALTER TABLE of its own.
            and not getattr(c, "use_alter", False)
        ),
        partitioned=bool(table.dialect_options["postgresql"]["partition_by"]),
        temporary="TEMPORARY" in (p.upper() for p in table._prefixes),
        if_not_exists=bool(operation.if_not_exists),
    )
    # Alembic builds what `index=True` of a column asks for, in the same breath.
    for index in sorted(table.indexes, key=lambda i: str(i.name)):
        yield st.CreateIndex(
            table=name,
            name=None if index.name is None else str(index.name),
            keys=tuple(c.name for c in index.columns),
            unique=bool(index.unique),
        )
    for item in given:
        yield _create_index(
            ops.CreateIndexOp(
                item.name,
                table.name,
                list(item.expressions),
                schema=table.schema,
                unique=item.unique,
                **item.dialect_kwargs,
            )
        )


def _add_column(operation: ops.AddColumnOp) -> Iterator[Statement]:
    table = Ref(operation.table_name, operation.schema)
    column = operation.column
    constraints: list[st.NewConstraint] = []
    if column.unique:
        constraints.append(st.NewConstraint(kind="u", columns=(column.name,)))
    if operation.kw.get("inline_primary_key") or operation.inline_primary_key:
        constraints.append(st.NewConstraint(kind="p", columns=(column.name,)))
    for key in column.foreign_keys:
        constraints.append(
            st.NewConstraint(
                kind="f",
                name=None if key.name is None else str(key.name),
                columns=(column.name,),
                to=_target(key, [key.target_fullname]),
            )
        )
    for item in column.constraints:
        if isinstance(item, CheckConstraint):
            constraints.append(_constraint(item))
    yield st.AddColumn(
        table=table,
        column=_column(column, tuple(constraints)),
        if_not_exists=bool(operation.if_not_exists),
    )
    if column.index:
        # Alembic builds the index that the column asks for, in the same breath.
        yield st.CreateIndex(
            table=table,
            name=f"ix_{table.name}_{column.name}",
            keys=(column.name,),
            unique=bool(column.unique),
        )


def _alter_column(operation: ops.AlterColumnOp) -> Iterator[Statement]:
    table = Ref(operation.table_name, operation.schema)
    name = operation.column_name
    if operation.modify_nullable is False:
        yield st.SetNotNull(table=table, column=name)
    elif operation.modify_nullable:
        yield st.DropNotNull(table=table, column=name)
    given = operation.modify_server_default
    if given is None and isinstance(operation.existing_server_default, Identity):
        yield st.DropIdentity(table=table, column=name)
    elif given is None:
        yield st.DropDefault(table=table, column=name)
    elif isinstance(given, Computed):
        yield st.SetExpression(
            table=table, column=name, expression=spelt(given.sqltext)
        )
    elif isinstance(given, Identity):
        always = bool(given.always)
        if isinstance(operation.existing_server_default, Identity):
            yield st.SetGenerated(table=table, column=name, always=always)
        else:
            yield st.AddIdentity(
                table=table, column=name, always=always, options=_identity(given)
            )
    elif given is not False:
        yield st.SetDefault(table=table, column=name, default=_default(given))
    if operation.modify_type is not None:
        old = operation.existing_type
        yield st.ChangeType(
            table=table,
            column=name,
            type=type_sql(operation.modify_type),
            old_type=None if old is None else type_sql(old),
            using=_optional(operation.kw.get("postgresql_using")),
            collation=getattr(operation.modify_type, "collation", None),
        )
    if operation.modify_name is not None:
        yield st.RenameColumn(table=table, column=name, to=operation.modify_name)


def _identity(given: Identity) -> str:
    """Return the options of an identity's sequence, as SQL."""
    return str(_DDL.get_identity_options(given))


def _create_index(operation: ops.CreateIndexOp) -> st.CreateIndex:
    kw = operation.kw
    return st.CreateIndex(
        table=Ref(operation.table_name, operation.schema),
        name=None if operation.index_name is None else str(operation.index_name),
        keys=tuple(_key(c, kw.get("postgresql_ops") or {}) for c in operation.columns),
        unique=bool(operation.unique),
        concurrently=bool(kw.get("postgresql_concurrently")),
        if_not_exists=bool(operation.if_not_exists),
        method=kw.get("postgresql_using") or "btree",
        where=_optional(kw.get("postgresql_where")),
        include=tuple(str(c) for c in kw.get("postgresql_include") or ()),
        nulls_not_distinct=bool(kw.get("postgresql_nulls_not_distinct")),
        storage=tuple(
            (name, str(value))
            for name, value in (kw.get("postgresql_with") or {}).items()
        ),
        tablespace=kw.get("postgresql_tablespace"),
    )


def _key(element: Any, operators: Mapping[str, str]) -> str | Key:
    """Return a key of an index: a column's name where it is no more than that."""
    if isinstance(element, Column):
        element = element.name
    if isinstance(element, str):
        found = operators.get(element)
        return Key(element, operators=found) if found else element
    # People write the order into the text: `sa.text("at DESC NULLS LAST")`.
    key = sql.key(spelt(element))
    if isinstance(key, str):
        return _key(key, operators)
    given = operators.get(key.column or key.expression)
    return replace(key, operators=given) if given else key


def _column(
    column: "Column[Any]", constraints: tuple[st.NewConstraint, ...] = ()
) -> st.NewColumn:
    computed, identity = column.computed, column.identity
    generated = None
    if computed is not None:
        generated = _GENERATED[computed.persisted]
    default = column.server_default
    serial = (
        column.table is not None
        and column is column.table._autoincrement_column
        and (default is None or isinstance(default, SASequence))
        and identity is None
    )
    type_ = type_sql(column.type)
    if serial:
        type_ = {"BIGINT": "BIGSERIAL", "SMALLINT": "SMALLSERIAL"}.get(type_, "SERIAL")
    return st.NewColumn(
        name=column.name,
        type=type_,
        not_null=not column.nullable,
        default=(
            _default(default)
            if default is not None and computed is None and identity is None
            else None
        ),
        generated=generated,
        computed="" if computed is None else spelt(computed.sqltext),
        constrained=isinstance(column.type, postgresql.DOMAIN)
        and (column.type.check is not None or bool(column.type.not_null)),
        identity=None
        if identity is None
        else ("always" if identity.always else "by default"),
        options="" if identity is None else _identity(identity),
        collation=getattr(column.type, "collation", None),
        constraints=constraints,
    )


def _constraint(item: Any) -> st.NewConstraint:
    name = None if item.name is None else str(item.name)
    options: dict[str, Any] = dict(item.dialect_options["postgresql"])
    deferrable = None
    if item.deferrable:
        initially = (item.initially or "immediate").lower()
        deferrable = "deferred" if initially == "deferred" else "immediate"
    match item:
        case ForeignKeyConstraint():
            return st.NewConstraint(
                kind="f",
                name=name,
                columns=tuple(item.column_keys),
                to=_target(item, [e.target_fullname for e in item.elements]),
                not_valid=bool(options.get("not_valid")),
            )
        case UniqueConstraint() | PrimaryKeyConstraint():
            return st.NewConstraint(
                kind="u" if isinstance(item, UniqueConstraint) else "p",
                name=name,
                columns=tuple(c.name for c in item.columns),
                nulls_not_distinct=bool(options.get("nulls_not_distinct")),
                deferrable=deferrable,
                include=tuple(str(c) for c in options.get("include") or ()),
            )
        case CheckConstraint():
            return st.NewConstraint(
                kind="c",
                name=name,
                expression=condition(item),
                not_valid=bool(options.get("not_valid")),
            )
        case ExcludeConstraint():
            text: str = _DDL.visit_exclude_constraint(item)
            return st.NewConstraint(
                kind="x", name=name, definition=text.partition("EXCLUDE ")[2]
            )
        case _:
            return st.NewConstraint(kind="?", name=name)


def _target(key: Any, names: Sequence[str]) -> st.ForeignTo:
    parts = [n.split(".") for n in names]
    first = parts[0]
    table = Ref(first[-2], ".".join(first[:-2]) or None) if len(first) > 1 else None
    deferrable = None
    if key.deferrable:
        deferrable = (
            "deferred" if (key.initially or "").lower() == "deferred" else "immediate"
        )
    return st.ForeignTo(
        table=table or Ref(first[0]),
        columns=tuple(p[-1] for p in parts) if len(first) > 1 else (),
        on_delete=_upper(key.ondelete),
        on_update=_upper(key.onupdate),
        match=_upper(key.match),
        deferrable=deferrable,
    )


def _upper(word: str | None) -> str | None:
    """Return a keyword as changes and the statements of SQL text have it."""
    return None if word is None else word.upper()


def type_sql(given: Any) -> str:
    """Return a type as PostgreSQL's DDL spells it."""
    made = given() if isinstance(given, type) else given
    if isinstance(made, types.NullType):
        return "NULL"
    return str(_DIALECT.type_compiler_instance.process(made))


def column_sql(column: "Column[Any]") -> str:
    """
    Return what follows ADD COLUMN.

    Args:
        column: of no table, without constraints of its own.
    """
    Table("t", schema.MetaData(), column)
    return str(_DDL.get_column_specification(column))


def _default(given: Any) -> str:
    """Return a default as SQL."""
    if isinstance(given, SASequence):
        return f"nextval('{given.name}')"
    clause: Any = given.arg if isinstance(given, DefaultClause) else given
    if isinstance(clause, str):
        column: Column[Any] = Column("c", types.Text(), server_default=clause)
        Table("t", schema.MetaData(), column)
        return str(_DDL.get_column_default_string(column))
    return spelt(clause)


def _optional(given: Any) -> str | None:
    return None if given is None else spelt(given)


def spelt(given: Any) -> str:
    """Return an expression or statement as SQL, its values written out."""
    if isinstance(given, str):
        return given
    if isinstance(given, schema.DDLElement | schema.ExecutableDDLElement):
        return str(given.compile(dialect=_DIALECT))
    assert isinstance(given, ClauseElement)
    try:
        made = given.compile(dialect=_DIALECT, compile_kwargs={"literal_binds": True})
    except (CompileError, NotImplementedError):
        # A value that has no form in SQL stays a parameter.
        made = given.compile(dialect=_DIALECT)
    return str(made)


def ddl() -> Any:
    """Return SQLAlchemy's compiler of DDL for PostgreSQL."""
    return _DDL


def condition(check: CheckConstraint) -> str:
    """Return the condition of a check as DDL spells it, of columns by their names."""
    try:
        compiler: Any = _DDL.sql_compiler
        return str(
            compiler.process(check.sqltext, include_table=False, literal_binds=True)
        )
    except (CompileError, NotImplementedError):
        return spelt(check.sqltext)


def text_of(given: Any) -> str:
    """Return what is executed as SQL; in plain text, a colon may have a backslash."""
    return given.replace("\\:", ":") if isinstance(given, str) else spelt(given)
