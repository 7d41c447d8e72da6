"""Values of the enum that is a column's type.

Source: PostgreSQL manual, ALTER TYPE; section 8.7, Enumerated Types.
"""

from psycopg import sql

from migrator.errors import NotThere, Refused
from migrator.facts import Column, Facts
from migrator.kernels import requirements
from migrator.kernels.direct import members
from migrator.names import MAX_NAME_BYTES, TableName
from migrator.plan import Autocommit, Lock, Probe, Step, render, type_name


def require_enum(facts: Facts, name: str, *values: str | None) -> Column:
    """
    Return a column whose type is an enum.

    Args:
        facts: of the table.
        name: the column's.
        values: those that its enum has to have; None for none.

    Raises:
        Refused: it is of another type.
        NotThere: it lacks one of them.
    """
    requirements.require_table(facts)
    column = facts.table.require(name)
    where = f'Column "{name}" of table {facts.table.name}'
    if not column.values:
        raise Refused(
            f"{where} is of type {column.type}, which is no enum with values.",
            next="name a column whose type is the enum itself.",
        )
    for value in values:
        if value is not None and value not in column.values:
            known = ", ".join(f'"{v}"' for v in column.values)
            raise NotThere(
                f'{where} has no value "{value}" in its enum.',
                next=f"correct it; there are {known}.",
                name=value,
                known=column.values,
            )
    return column


def require_label(title: str, value: str) -> None:
    """Refuse a value that the server would refuse (manual, section 8.7.4)."""
    if not 0 < len(value.encode()) <= MAX_NAME_BYTES:
        raise Refused(
            f"{title}: the value has {len(value.encode())} bytes.",
            next=f"give one of 1 to {MAX_NAME_BYTES} bytes.",
        )


def is_value(column: sql.Composable, value: str) -> sql.Composable:
    """Return the condition that a column holds a value, which there need not be."""
    # As text: a literal of the type would have to be one of its values.
    return sql.SQL("{}::pg_catalog.text OPERATOR(pg_catalog.=) {}").format(
        column, sql.Literal(value)
    )


def add_value(table: TableName, column: Column, value: str, place: str = "") -> Step:
    """
    Return the step that adds a value; one that is there already stays where it is.

    It stands alone: before its commit nobody may use the value.

    Args:
        table: the table.
        column: the column; the value is there for all of its type.
        value: the new value.
        place: "BEFORE 'other'" or "AFTER 'other'", as SQL; at the end without.
    """
    add = sql.SQL("ALTER TYPE {} ADD VALUE {}{}").format(
        type_name(column.type), sql.Literal(value), type_name(place and f" {place}")
    )
    done = sql.SQL(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_enum"
        " WHERE enumtypid = {}::pg_catalog.regtype AND enumlabel = {})"
    ).format(sql.Literal(column.type), sql.Literal(value))
    return Step(
        name="add_value",
        work=Autocommit(
            statement=render(add), lock=Lock.NONE, table=table, done=render(done)
        ),
        no_reverse="PostgreSQL drops no value of an enum; unused, it stays",
    )


def swapped(
    column: Column, one: str, other: str, spare: str
) -> tuple[sql.Composable, ...]:
    """
    Return the statements by which two values exchange their words.

    Rows, defaults, checks and indexes hold a value by its number: each says the
    other word from then on, and nothing is written.

    Args:
        column: of the enum.
        one: a value of it.
        other: another one.
        spare: a word that no value has.
    """
    return tuple(
        sql.SQL("ALTER TYPE {} RENAME VALUE {} TO {}").format(
            type_name(column.type), sql.Literal(given), sql.Literal(wanted)
        )
        for given, wanted in ((other, spare), (one, other), (spare, one))
    )


def type_is_owned(title: str, table: TableName, column: str) -> Probe:
    """Return the trial that the role may alter the type."""
    return Probe(
        statements=(),
        question=render(
            sql.SQL(
                "SELECT pg_catalog.pg_has_role(t.typowner, 'USAGE')"
                " FROM pg_catalog.pg_type t WHERE t.oid = {}"
            ).format(_type_of(table, column))
        ),
        otherwise=f"{title}: the role of this connection does not own the enum.",
        next="connect as its owner, or as a member of the owner's role.",
    )


def further_uses(table: TableName, column: str) -> sql.Composable:
    """
    Return the query of what else can hold values of a column's type (`what`).

    Views and materialized views hold none that their tables do not.
    """
    return sql.SQL(
        "SELECT DISTINCT pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid)"
        " AS what FROM pg_catalog.pg_type t JOIN pg_catalog.pg_depend d"
        " ON d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass"
        " AND d.refobjid IN (t.oid, t.typarray) AND d.deptype = 'n'"
        " LEFT JOIN pg_catalog.pg_attribute a"
        " ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass"
        " AND a.attrelid = d.objid AND a.attnum = d.objsubid"
        " LEFT JOIN pg_catalog.pg_class c ON c.oid = a.attrelid WHERE t.oid = {type}"
        " AND (d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass"
        " OR c.relkind IN ('r', 'p', 'f', 'c')"
        " AND NOT (a.attrelid IN ({members}) AND a.attname = {column}))"
    ).format(
        type=_type_of(table, column),
        members=members(table),
        column=sql.Literal(column),
    )


def _type_of(table: TableName, column: str) -> sql.Composable:
    return sql.SQL(
        "(SELECT atttypid FROM pg_catalog.pg_attribute WHERE attrelid ="
        " {}::pg_catalog.regclass AND attname = {} AND NOT attisdropped)"
    ).format(sql.Literal(str(table)), sql.Literal(column))
