"""Facts about tables, and who holds a lock, from the catalogue."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any

import psycopg
from psycopg.sql import Identifier

from migrator.errors import Refused
from migrator.facts import (
    Attached,
    Blocker,
    Column,
    Constraint,
    Domain,
    ForeignKey,
    Grant,
    Index,
    IndexColumn,
    Kind,
    Sequence,
    Snapshot,
    Table,
    Trigger,
)
from migrator.names import TableName, checked
from migrator.plan import Lock, Probe
from migrator.postgres.connection import (
    RETRIED,
    Connection,
    ask,
    configure,
    execute_stored,
    said,
)


@cache
def _query(name: str) -> bytes:
    return (files("migrator.postgres") / "queries" / f"{name}.sql").read_bytes()


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
        Refused: there is no such relation, or there can be none.
    """
    checked(name, what)
    if schema is not None:
        checked(schema, "schema")
    row = conn.execute(
        _query("resolve_table"), {"name": name, "schema": schema}
    ).fetchone()
    if row is None:
        where = f'schema "{schema}"' if schema else "the search path"
        hint = (
            f'write ("{name.partition(".")[2]}", schema="{name.partition(".")[0]}").'
            if "." in name
            else "correct the name, or give its schema."
        )
        raise Refused(f'There is no {what} "{name}" in {where}.', next=hint)
    return TableName(row["schema"], row["name"])


def table_of_index(conn: Connection, name: str, schema: str | None) -> TableName | None:
    """
    Return the table that an index is of; None where there is no such index.

    Args:
        conn: its search path counts where no schema is given.
        name: the index's name.
        schema: None means the first of the search path that has the index.
    """
    row = conn.execute(
        _query("table_of_index"), {"name": name, "schema": schema}
    ).fetchone()
    return None if row is None else TableName(row["schema"], row["name"])


def named(conn: Connection, kind: Kind, name: str, schema: str | None) -> TableName:
    """
    Return the whole name of what a change is made on.

    Raises:
        Refused: it has to be there and is not, or there can be none.
    """
    if kind is Kind.DOMAIN:
        return _domain_name(conn, name, schema)
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
    with _full_names(conn):
        row = conn.execute(_query("resolve_function"), {"function": oid}).fetchone()
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


@contextmanager
def _full_names(conn: Connection) -> Iterator[None]:
    """Let the server write names with their schemas: the search path is empty."""
    with conn.transaction(force_rollback=True):
        configure(conn, {"search_path": ""}, local=True)
        yield


def definition(conn: Connection, kind: Kind, name: TableName) -> str | None:
    """Return `Facts.definition`."""
    args: dict[str, str]
    if kind is Kind.VIEW:
        query, args = "view_definition", {"schema": name.schema, "name": name.name}
    elif kind is Kind.FUNCTION:
        query, args = "function_definition", {"function": _signature(name)}
    elif kind is Kind.SETTING and name.schema == "SYSTEM":
        query, args = "system_setting", {"name": name.name}
    elif kind is Kind.SETTING:
        query, args = "scoped_setting", {"name": name.name, "scope": name.schema}
    else:
        return None
    with _full_names(conn):
        row = conn.execute(_query(query), args).fetchone()
    return None if row is None else row["text"]


def attached(conn: Connection, kind: Kind, name: TableName) -> tuple[Attached, ...]:
    """Return `Facts.attached`."""
    args: dict[str, str]
    if kind is Kind.VIEW:
        query, args = "view_attached", {"schema": name.schema, "name": name.name}
    elif kind is Kind.FUNCTION:
        query, args = "function_attached", {"function": _signature(name)}
    else:
        return ()
    with _full_names(conn):
        return tuple(Attached(**row) for row in conn.execute(_query(query), args))


def _signature(name: TableName) -> str:
    return f"{Identifier(name.schema).as_string()}.{name.name}"


def _domain_name(conn: Connection, name: str, schema: str | None) -> TableName:
    args = {"name": checked(name, "domain"), "schema": schema}
    row = conn.execute(_query("domain"), args).fetchone()
    if row is None:
        where = f'schema "{schema}"' if schema else "the search path"
        raise Refused(
            f'There is no domain "{name}" in {where}.',
            next="correct the name, or give its schema.",
        )
    return TableName(row["schema"], row["name"])


def domain_facts(conn: Connection, domain: TableName) -> Domain | None:
    """Return what is known of a domain, None where it is gone."""
    with _full_names(conn):
        args = {"name": domain.name, "schema": domain.schema}
        row = conn.execute(_query("domain"), args).fetchone()
        if row is None:
            return None
        by_oid = {"domain": row["oid"]}
        checks = conn.execute(_query("domain_checks"), by_oid).fetchall()
        uses = conn.execute(_query("domain_uses"), by_oid).fetchall()
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


def exists(conn: Connection, table: TableName) -> bool:
    """Tell whether there is a table of that name."""
    args = {"schema": table.schema, "name": table.name}
    return conn.execute(_query("table"), args).fetchone() is not None


def stands(conn: Connection, kind: Kind, name: TableName) -> bool:
    """Tell whether there is a view of that name, or a table that is none."""
    args = {"schema": name.schema, "name": name.name}
    row = conn.execute(_query("table"), args).fetchone()
    wanted = ("v", "m") if kind is Kind.VIEW else ("r", "p", "f")
    return row is not None and row["kind"] in wanted


def kind_of(conn: Connection, table: TableName) -> str:
    """Return the word for what has a table's name: a view has one as well."""
    kind = ask(
        conn,
        "SELECT c.relkind::text FROM pg_catalog.pg_class c"
        " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = $1 AND c.relname = $2",
        [table.schema, table.name],
    )
    return {"v": "view", "m": "materialized view"}.get(kind, "table")


def table_facts(conn: Connection, table: TableName) -> Table:
    """
    Return what is known of a table, and of its partitions.

    Raises:
        Refused: the table is gone.
    """
    found = _table(conn, table)
    if found is None:
        raise Refused(f"There is no table {table}.", next="correct the name.")
    used = conn.execute(_query("table_dependents"), {"table": found.oid})
    found = replace(
        found,
        foreign_keys=_foreign_keys(conn, found),
        dependents=tuple(row["what"] for row in used),
    )
    if found.kind != "p":
        return found
    names = conn.execute(_query("partitions"), {"table": found.oid}).fetchall()
    parts = (_table(conn, TableName(n["schema"], n["name"])) for n in names)
    # One that was dropped in between is none any more.
    found = replace(found, partitions=tuple(p for p in parts if p is not None))
    return replace(
        found,
        rows=sum(leaf.rows for leaf in found.leaves),
        size_bytes=sum(leaf.size_bytes for leaf in found.leaves),
    )


def outline(conn: Connection, table: TableName) -> Table | None:
    """Return a table's size and no more, which is read whoever has locked it."""
    row = conn.execute(
        "SELECT c.oid::bigint AS oid, c.relkind::text AS kind,"
        " (SELECT COALESCE(sum(GREATEST(p.reltuples, 0)), 0)::bigint"
        "    FROM pg_catalog.pg_class p WHERE p.oid = ANY (l.oids)) AS rows,"
        " (SELECT COALESCE(sum(p.relpages::bigint), 0)::bigint"
        "    FROM pg_catalog.pg_class p WHERE p.oid = ANY (l.oids))"
        "   * current_setting('block_size')::bigint AS size_bytes"
        " FROM pg_catalog.pg_class c"
        " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " CROSS JOIN LATERAL (WITH RECURSIVE part (oid) AS (SELECT c.oid UNION ALL"
        "   SELECT i.inhrelid FROM pg_catalog.pg_inherits i"
        "     JOIN part ON part.oid = i.inhparent)"
        "   SELECT pg_catalog.array_agg(oid) AS oids FROM part) l"
        " WHERE n.nspname = %s AND c.relname = %s",
        (table.schema, table.name),
    ).fetchone()
    return None if row is None else Table(name=table, columns=(), **row)


def has_rows(conn: Connection, rows: int) -> bool:
    """Tell whether the database has a table of so many rows, about."""
    return bool(
        ask(
            conn,
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c"
            " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relkind IN ('r', 'm') AND c.reltuples >= $1"
            " AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'migrator')"
            " AND n.nspname !~ '^pg_')",
            [float(rows)],
        )
    )


def _foreign_keys(conn: Connection, table: Table) -> tuple[ForeignKey, ...]:
    rows = _definitions(conn, "foreign_keys", table.oid)
    return tuple(
        ForeignKey(
            name=k["name"],
            definition=k["definition"],
            table=TableName(k["schema"], k["table"]),
            columns=tuple(k["columns"]),
            to=TableName(k["to_schema"], k["to_table"]),
            to_columns=tuple(k["to_columns"]),
        )
        for k in rows
    )


def _table(conn: Connection, table: TableName) -> Table | None:
    args = {"schema": table.schema, "name": table.name}
    row = conn.execute(_query("table"), args).fetchone()
    if row is None:
        return None
    by_oid = {"table": row["oid"]}
    root, parent = _above(row, "root"), _above(row, "parent")
    grants = row.pop("grants")
    return Table(
        name=table,
        columns=tuple(
            Column(
                **{
                    **c,
                    "dependents": tuple(c["dependents"]),
                    "feeds": tuple(c["feeds"]),
                    "values": tuple(c["values"]),
                    "checks": tuple(c["checks"]),
                    "unique_indexes": tuple(c["unique_indexes"]),
                    "foreign_keys": tuple(c["foreign_keys"]),
                    "sequences": tuple(c["sequences"]),
                    "counters": tuple(map(_sequence, c["counters"])),
                }
            )
            for c in conn.execute(_query("columns"), by_oid)
        ),
        indexes=tuple(
            Index(
                name=i["name"],
                method=i["method"],
                keys=tuple(IndexColumn(**k) for k in i["keys"]),
                include=tuple(i["include"]),
                unique=i["unique"],
                nulls_not_distinct=i["nulls_not_distinct"],
                valid=i["valid"],
                primary=i["primary"],
                constraints=tuple(i["constraints"]),
                replica_identity=i["replica_identity"],
                definition=i["definition"],
                storage=tuple(i["storage"]),
                tablespace=i["tablespace"],
                comment=i["comment"],
                scans=i["scans"],
                plain=i["plain"],
                predicate=i["predicate"],
                mentions=tuple(i["mentions"]),
                columns=tuple(i["columns"]),
                oid=i["oid"],
                exclusion=i["exclusion"],
                root=i["root"],
                greater=i["greater"],
                not_greater=i["not_greater"],
            )
            for i in conn.execute(_query("indexes"), by_oid)
        ),
        triggers=tuple(
            Trigger(
                **{
                    **t,
                    "update_of": tuple(t["update_of"]),
                    "mentions": tuple(t["mentions"]),
                }
            )
            for t in _definitions(conn, "triggers", row["oid"])
        ),
        constraints=_constraints(conn, row["oid"]),
        root=root,
        parent=parent,
        options=tuple(row.pop("options")),
        publications=tuple(row.pop("publications")),
        grants=tuple(
            Grant(role=g["role"], privileges=tuple(g["privileges"])) for g in grants
        ),
        **row,
    )


def _definitions(conn: Connection, query: str, table: int) -> list[dict[str, Any]]:
    """Return rows with texts of DDL, which leave out what the search path has."""
    with _full_names(conn):
        return conn.execute(_query(query), {"table": table}).fetchall()


def _above(row: dict[str, Any], which: str) -> TableName | None:
    schema, name = row.pop(f"{which}_schema"), row.pop(f"{which}_name")
    return TableName(schema, name) if name is not None else None


def _sequence(row: dict[str, Any]) -> Sequence:
    schema, name = row.pop("schema"), row.pop("name")
    row["grants"] = tuple(tuple(g) for g in row["grants"])
    row["dependents"] = tuple(row["dependents"])
    return Sequence(**row, name=TableName(schema, name))


def _constraints(conn: Connection, table: int) -> tuple[Constraint, ...]:
    rows = _definitions(conn, "constraints", table)
    found: list[Constraint] = []
    for row in rows:
        schema, name = row.pop("parent_schema"), row.pop("parent_name")
        row["columns"] = tuple(row["columns"])
        row["dependents"] = tuple(row["dependents"])
        references = TableName(schema, name) if name is not None else None
        found.append(Constraint(**row, references=references))
    return tuple(found)


def relation_names(conn: Connection, schema: str) -> frozenset[str]:
    """Return the names that a new index or table of the schema cannot have."""
    rows = conn.execute(
        "SELECT c.relname AS name FROM pg_catalog.pg_class c"
        " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s",
        (schema,),
    )
    return frozenset(row["name"] for row in rows)


def search_path(conn: Connection) -> tuple[str, ...]:
    """Return the schemas of the connection's search path that there are."""
    names = ask(conn, "SELECT pg_catalog.current_schemas(false)::text[]")
    return tuple(n for n in names if not n.startswith("pg_temp"))


def blockers(conn: Connection, table: TableName, lock: Lock) -> list[Blocker]:
    """
    Return who holds what conflicts with a lock on a table.

    Source: PostgreSQL manual, section 13.3.1 (conflicts), 54.12 (pg_locks).
    """
    rows = conn.execute(
        _query("blockers"),
        {"schema": table.schema, "name": table.name, "mode": lock.value},
    ).fetchall()
    return [Blocker(table=_relation(row), **row) for row in rows]


def _relation(row: dict[str, Any]) -> TableName | None:
    schema, name = row.pop("schema"), row.pop("name")
    return TableName(schema, name) if name is not None else None


def try_out(conn: Connection, probe: Probe, *, lock_timeout_ms: int) -> None:
    """
    Run a trial in a transaction that is rolled back.

    Raises:
        Refused: the server refuses the SQL, or the answer is no.
    """
    found = _answer(conn, probe, lock_timeout_ms)
    if isinstance(found, str) and found:
        raise Refused(probe.otherwise.replace("{found}", found), next=probe.next)
    if found is None or found is False:
        raise Refused(probe.otherwise, next=probe.next)


def _answer(conn: Connection, probe: Probe, lock_timeout_ms: int) -> Any:
    """Return what a trial answers; `Refused` where the server refuses the SQL."""
    conn.execute("BEGIN")
    configure(conn, {"lock_timeout": f"{lock_timeout_ms}ms"}, local=True)
    try:
        for statement in probe.statements:
            execute_stored(conn, statement)
        return ask(conn, probe.question)
    except RETRIED:
        raise
    except psycopg.Error as error:
        raise Refused(
            f"{probe.failed or 'The server refuses an expression of the pattern'}:"
            f" {said(error)}.",
            next=probe.next
            if probe.failed
            else "correct it in the revision; it is SQL, in which a text stands in"
            " quotes: \"'text'\", and a function or type of another schema with it.",
        ) from error
    finally:
        conn.execute("ROLLBACK")


def holds(conn: Connection, probe: Probe, *, lock_timeout_ms: int) -> bool:
    """
    Tell whether a trial succeeds and its answer is yes.

    Raises:
        psycopg.OperationalError: it could not be tried, which is no answer.
    """
    return bool(reads(conn, probe, lock_timeout_ms=lock_timeout_ms))


def reads(conn: Connection, probe: Probe, *, lock_timeout_ms: int) -> Any:
    """
    Return what a trial answers, None where it does not succeed.

    Raises:
        psycopg.OperationalError: it could not be tried, which is no answer.
    """
    try:
        return _answer(conn, probe, lock_timeout_ms)
    except Refused as error:
        if isinstance(error.__cause__, psycopg.OperationalError):
            raise error.__cause__ from None
        return None


def is_superuser(conn: Connection) -> bool:
    """Tell whether the role of the connection is a superuser."""
    return bool(ask(conn, "SELECT pg_catalog.current_setting('is_superuser')::bool"))


def duplicates(conn: Connection, schema: str, index: str) -> str | None:
    """
    Return a query for the keys that a unique index found twice, None if it is gone.

    Args:
        conn: outside a transaction.
        schema: the index's.
        index: its name; an invalid one that a build left will do.
    """
    with _full_names(conn):
        row = conn.execute(
            _query("duplicates"), {"schema": schema, "name": index}
        ).fetchone()
    return row["query"] if row else None


def deadlock_timeout_ms(conn: Connection) -> int:
    """Return after how long a lock looks what is in its way."""
    return int(
        ask(
            conn,
            "SELECT setting FROM pg_catalog.pg_settings"
            " WHERE name = 'deadlock_timeout'",
        )
    )


def oldest_snapshot(conn: Connection) -> Snapshot | None:
    """Return what keeps dead rows from being pruned, None where nothing does."""
    row = conn.execute(_query("oldest_snapshot")).fetchone()
    return Snapshot(**row) if row else None


def end_sessions(conn: Connection, prefix: str, below: int) -> list[int]:
    """
    End the engine's sessions of older tokens; return those still there.

    Args:
        conn: not itself one of them.
        prefix: what the names of a scope's sessions begin with.
        below: the token from which on sessions stay.
    """
    rows = conn.execute(_query("end_sessions"), {"prefix": prefix, "below": below})
    return [row["pid"] for row in rows]
