"""Facts about tables, and who holds a lock, from the catalogue."""

from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any

import psycopg

from migrator.errors import Refused
from migrator.facts import (
    Column,
    Constraint,
    ForeignKey,
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


def resolve(conn: Connection, name: str, schema: str | None) -> TableName:
    """
    Return a table's name with its schema.

    Args:
        conn: its search path counts where no schema is given.
        name: as the user wrote it, never split at a dot.
        schema: None means the first of the search path that has the table.

    Raises:
        Refused: there is no such relation, or there can be none.
    """
    checked(name, "table")
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
        raise Refused(f'There is no table "{name}" in {where}.', next=hint)
    return TableName(row["schema"], row["name"])


def named(conn: Connection, kind: Kind, name: str, schema: str | None) -> TableName:
    """
    Return the whole name of what a change is made on.

    Raises:
        Refused: it has to be there and is not, or there can be none.
    """
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
    return resolve(conn, name, schema)


def exists(conn: Connection, table: TableName) -> bool:
    """Tell whether there is a table of that name."""
    args = {"schema": table.schema, "name": table.name}
    return conn.execute(_query("table"), args).fetchone() is not None


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


def _foreign_keys(conn: Connection, table: Table) -> tuple[ForeignKey, ...]:
    rows = conn.execute(_query("foreign_keys"), {"table": table.oid})
    return tuple(
        ForeignKey(
            name=k["name"],
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
    schema, name = row.pop("root_schema"), row.pop("root_name")
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
            for t in conn.execute(_query("triggers"), by_oid)
        ),
        constraints=_constraints(conn, row["oid"]),
        root=TableName(schema, name) if name is not None else None,
        **row,
    )


def _sequence(row: dict[str, Any]) -> Sequence:
    schema, name = row.pop("schema"), row.pop("name")
    row["grants"] = tuple(tuple(g) for g in row["grants"])
    row["dependents"] = tuple(row["dependents"])
    return Sequence(**row, name=TableName(schema, name))


def _constraints(conn: Connection, table: int) -> tuple[Constraint, ...]:
    with conn.transaction(force_rollback=True):
        # Definitions leave out the schemas that the search path has.
        configure(conn, {"search_path": ""}, local=True)
        rows = conn.execute(_query("constraints"), {"table": table}).fetchall()
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


def blockers(conn: Connection, table: TableName, lock: Lock) -> list[str]:
    """
    Return who holds what conflicts with a lock on a table, one line each.

    Source: PostgreSQL manual, section 13.3.1 (conflicts), 54.12 (pg_locks).
    """
    rows = conn.execute(
        _query("blockers"),
        {"schema": table.schema, "name": table.name, "mode": lock.value},
    )
    return [
        f'pid {r["pid"]} (application "{r["application"]}", {r["activity"]}'
        f" for {r['seconds']:.0f} s)"
        for r in rows
    ]


def try_out(conn: Connection, probe: Probe, *, lock_timeout_ms: int) -> None:
    """
    Run a trial in a transaction that is rolled back.

    Raises:
        Refused: the server refuses the SQL, or the answer is no.
    """
    conn.execute("BEGIN")
    configure(conn, {"lock_timeout": f"{lock_timeout_ms}ms"}, local=True)
    try:
        for statement in probe.statements:
            execute_stored(conn, statement)
        fine = ask(conn, probe.question)
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
    if not fine:
        raise Refused(probe.otherwise, next=probe.next)


def holds(conn: Connection, probe: Probe, *, lock_timeout_ms: int) -> bool:
    """
    Tell whether a trial succeeds and its answer is yes.

    Raises:
        psycopg.OperationalError: it could not be tried, which is no answer.
    """
    try:
        try_out(conn, probe, lock_timeout_ms=lock_timeout_ms)
    except Refused as error:
        if isinstance(error.__cause__, psycopg.OperationalError):
            raise error.__cause__ from None
        return False
    return True


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
