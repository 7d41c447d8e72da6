"""What a change is made on: its whole name, whether it is there, and what it is."""

import psycopg
from psycopg.sql import Identifier

from migrator.errors import NotThere, Refused
from migrator.facts import Attached, Constraint, Domain, Kind
from migrator.names import TableName, checked
from migrator.postgres.connection import Connection, ask
from migrator.postgres.queries import full_names, query


def named(conn: Connection, kind: Kind, name: str, schema: str | None) -> TableName:
    """
    Return the whole name of what a change is made on.

    Args:
        conn: its search path counts where no schema is given.
        kind: what it is.
        name: as the user wrote it; of a function, its signature.
        schema: of a parameter, the place where it is set; None leaves it open.

    Raises:
        Refused: it has to be there and is not, or there can be none.
    """
    if kind is Kind.DOMAIN:
        return _domain(conn, name, schema)
    if kind is Kind.NEW_TABLE:
        checked(name, "table")
        if schema is None:
            schema = ask(conn, "SELECT pg_catalog.current_schema()")
        if schema is None:
            raise Refused(
                "The search path of this connection has no schema to make a table in.",
                next="give the schema.",
            )
        return TableName(checked(schema, "schema"), name)
    if kind is Kind.FUNCTION:
        return _function(conn, name, schema)
    if kind is Kind.SETTING:
        return _setting(conn, name, schema)
    return resolve(conn, name, schema, "view" if kind is Kind.VIEW else "table")


def resolve(
    conn: Connection, name: str, schema: str | None, what: str = "table"
) -> TableName:
    """
    Return a table's name with its schema.

    Args:
        conn: its search path counts where no schema is given.
        name: as the user wrote it, never split at a dot.
        schema: None means the first of the search path that has the table.
        what: the word for it in messages.

    Raises:
        NotThere: there is no such relation.
        Refused: there can be none.
    """
    checked(name, what)
    if schema is not None:
        checked(schema, "schema")
    row = conn.execute(
        query("resolve_table"), {"name": name, "schema": schema}
    ).fetchone()
    if row is None:
        where = f'schema "{schema}"' if schema else "the search path"
        hint = (
            f'write ("{name.partition(".")[2]}", schema="{name.partition(".")[0]}").'
            if "." in name
            else "correct the name, or give its schema."
        )
        raise NotThere(
            f'There is no {what} "{name}" in {where}.',
            next=hint,
            name=name,
            known=_relations(conn, schema),
        )
    return TableName(row["schema"], row["name"])


def _relations(conn: Connection, schema: str | None) -> list[str]:
    """Return the names of tables and views of a schema, or of the search path."""
    rows = conn.execute(query("relations"), {"schema": schema})
    return [row["name"] for row in rows]


def table_of_index(conn: Connection, name: str, schema: str | None) -> TableName | None:
    """
    Return the table that an index is of; None where there is no such index.

    Args:
        conn: its search path counts where no schema is given.
        name: the index's name.
        schema: None means the first of the search path that has the index.
    """
    row = conn.execute(
        query("table_of_index"), {"name": name, "schema": schema}
    ).fetchone()
    return None if row is None else TableName(row["schema"], row["name"])


def _domain(conn: Connection, name: str, schema: str | None) -> TableName:
    args = {"name": checked(name, "domain"), "schema": schema}
    row = conn.execute(query("domain"), args).fetchone()
    if row is None:
        where = f'schema "{schema}"' if schema else "the search path"
        raise Refused(
            f'There is no domain "{name}" in {where}.',
            next="correct the name, or give its schema.",
        )
    return TableName(row["schema"], row["name"])


def _function(conn: Connection, signature: str, schema: str | None) -> TableName:
    """Return a function's name, as `Kind.FUNCTION` has it."""
    prefix = f"{Identifier(checked(schema, 'schema')).as_string()}." if schema else ""
    where = f'schema "{schema}"' if schema else "the search path"
    try:
        oid = ask(
            conn,
            "SELECT pg_catalog.to_regprocedure($1)::oid",
            [prefix + signature],
        )
    except psycopg.errors.InvalidTextRepresentation:
        # Servers before 16 raise what later ones answer with NULL.
        oid = None
    if oid is None and not signature.endswith(")"):
        raise Refused(
            f'"{signature}" is no signature of a function.',
            next='write its name and the types of its arguments: "total(integer)".',
        )
    if oid is None:
        raise Refused(
            f"There is no function {signature} in {where}.",
            next="correct the name and the types of its arguments, or give its schema;"
            " `\\df` in psql lists them.",
        )
    with full_names(conn):
        row = conn.execute(query("resolve_function"), {"function": oid}).fetchone()
    assert row is not None
    return TableName(row["schema"], row["name"])


def _setting(conn: Connection, name: str, scope: str | None) -> TableName:
    """Return a parameter's name, as `Kind.SETTING` has it."""
    known = ask(
        conn,
        "SELECT name FROM pg_catalog.pg_settings WHERE lower(name) = lower($1)",
        [name],
    )
    # One of an application's own has a dot, and may be set nowhere yet.
    if known is None and "." not in name:
        raise Refused(
            f'There is no parameter "{name}" on this server.',
            next="correct the name; `SHOW ALL` lists them. One of your own has a dot"
            ' in its name: "app.limit".',
        )
    if scope is None:
        database = ask(conn, "SELECT pg_catalog.current_database()")
        scope = f"DATABASE {Identifier(database).as_string()}"
    return TableName(scope, known or name)


def exists(conn: Connection, table: TableName) -> bool:
    """Tell whether there is a table of that name."""
    return _relkind(conn, table) is not None


def stands(conn: Connection, kind: Kind, name: TableName) -> bool:
    """Tell whether there is a view of that name, or a table that is none."""
    wanted = ("v", "m") if kind is Kind.VIEW else ("r", "p", "f")
    return _relkind(conn, name) in wanted


def kind_of(conn: Connection, table: TableName) -> str:
    """Return the word for what has a table's name: a view has one as well."""
    words = {"v": "view", "m": "materialized view"}
    return words.get(_relkind(conn, table) or "", "table")


def _relkind(conn: Connection, name: TableName) -> str | None:
    kind: str | None = ask(
        conn,
        "SELECT c.relkind::text FROM pg_catalog.pg_class c"
        " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = $1 AND c.relname = $2",
        [name.schema, name.name],
    )
    return kind


def definition(conn: Connection, kind: Kind, name: TableName) -> str | None:
    """Return `Facts.definition`."""
    args: dict[str, str]
    if kind is Kind.VIEW:
        file, args = "view_definition", {"schema": name.schema, "name": name.name}
    elif kind is Kind.FUNCTION:
        file, args = "function_definition", {"function": _signature(name)}
    elif kind is Kind.SETTING and name.schema == "SYSTEM":
        file, args = "system_setting", {"name": name.name}
    elif kind is Kind.SETTING:
        file, args = "scoped_setting", {"name": name.name, "scope": name.schema}
    else:
        return None
    with full_names(conn):
        row = conn.execute(query(file), args).fetchone()
    return None if row is None else row["text"]


def attached(conn: Connection, kind: Kind, name: TableName) -> tuple[Attached, ...]:
    """Return `Facts.attached`."""
    args: dict[str, str]
    if kind is Kind.VIEW:
        file, args = "view_attached", {"schema": name.schema, "name": name.name}
    elif kind is Kind.FUNCTION:
        file, args = "function_attached", {"function": _signature(name)}
    else:
        return ()
    with full_names(conn):
        return tuple(Attached(**row) for row in conn.execute(query(file), args))


def _signature(name: TableName) -> str:
    return f"{Identifier(name.schema).as_string()}.{name.name}"


def domain_facts(conn: Connection, domain: TableName) -> Domain | None:
    """Return what is known of a domain, None where it is gone."""
    with full_names(conn):
        args = {"name": domain.name, "schema": domain.schema}
        row = conn.execute(query("domain"), args).fetchone()
        if row is None:
            return None
        by_oid = {"domain": row["oid"]}
        checks = conn.execute(query("domain_checks"), by_oid).fetchall()
        uses = conn.execute(query("domain_uses"), by_oid).fetchall()
    return Domain(
        type=row["type"],
        default=row["default"],
        not_null=row["not_null"],
        owned=row["owned"],
        checks=tuple(Constraint(**check) for check in checks),
        columns=tuple(
            (TableName(u["schema"], u["table"]), u["column"])
            for u in uses
            if u["what"] is None
        ),
        hidden=tuple(u["what"] for u in uses if u["what"] is not None),
    )
