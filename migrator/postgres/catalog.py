"""Facts about tables, and about the server they are on."""

from dataclasses import replace
from typing import Any

from psycopg import sql

from migrator.errors import Refused
from migrator.facts import (
    Column,
    Constraint,
    DependentView,
    ExtendedStatistics,
    ForeignKey,
    Grant,
    Index,
    IndexColumn,
    Policy,
    Publication,
    RowUser,
    Rule,
    Sequence,
    Snapshot,
    Table,
    Trigger,
)
from migrator.names import (
    AFTER_TRIGGER_PREFIX,
    LEDGER_SCHEMA,
    OWNED,
    TRIGGER_PREFIXES,
    TableName,
)
from migrator.postgres.connection import Connection, ask
from migrator.postgres.queries import full_names, query


def table_facts(conn: Connection, table: TableName) -> Table:
    """
    Return what is known of a table, and of its partitions.

    Raises:
        Refused: the table is gone.
    """
    found = _table(conn, table)
    if found is None:
        raise Refused(f"There is no table {table}.", next="correct the name.")
    used = conn.execute(query("table_dependents"), {"table": found.oid})
    found = replace(
        found,
        foreign_keys=_foreign_keys(conn, found),
        dependents=tuple(row["what"] for row in used),
        views=_views(conn, found.oid),
        statistics=_statistics(conn, found.oid),
        row_users=_row_users(conn, found.oid),
        published=tuple(
            Publication(columns=tuple(row.pop("columns")), **row)
            for row in conn.execute(query("publications"), {"table": found.oid})
        ),
    )
    if found.kind != "p":
        return found
    names = conn.execute(query("partitions"), {"table": found.oid}).fetchall()
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
            comment=k["comment"],
            validated=k["validated"],
            partitioned=k["partitioned"],
        )
        for k in rows
    )


def _views(conn: Connection, table: int) -> tuple[DependentView, ...]:
    rows = conn.execute(query("dependent_views"), {"table": table})
    return tuple(
        DependentView(
            name=TableName(row["schema"], row["name"]),
            described=tuple(row["described"]),
            owned=row["owned"],
        )
        for row in rows
    )


def _statistics(conn: Connection, table: int) -> tuple[ExtendedStatistics, ...]:
    return tuple(
        ExtendedStatistics(name=TableName(row.pop("schema"), row.pop("name")), **row)
        for row in _definitions(conn, "extended_statistics", table)
    )


def _row_users(conn: Connection, table: int) -> tuple[RowUser, ...]:
    args = {"table": table, "own": list(TRIGGER_PREFIXES), "ledger": LEDGER_SCHEMA}
    return tuple(RowUser(**row) for row in conn.execute(query("row_users"), args))


def _table(conn: Connection, table: TableName) -> Table | None:
    args = {"schema": table.schema, "name": table.name}
    row = conn.execute(query("table"), args).fetchone()
    if row is None:
        return None
    root, parent = _above(row, "root"), _above(row, "parent")
    grants = row.pop("grants")
    spelt = _spelt(conn, row["oid"])
    texts = {c["name"]: c for c in spelt["column_texts"]}
    return Table(
        name=table,
        columns=tuple(
            Column(
                **{
                    **c,
                    **texts[c["name"]],
                    "dependents": tuple(c["dependents"]),
                    "by_number": tuple(c["by_number"]),
                    "grants": tuple(tuple(g) for g in c["grants"]),
                    "options": tuple(c["options"]),
                    "feeds": tuple(c["feeds"]),
                    "values": tuple(c["values"]),
                    "checks": tuple(c["checks"]),
                    "unique_indexes": tuple(c["unique_indexes"]),
                    "foreign_keys": tuple(c["foreign_keys"]),
                    "sequences": tuple(c["sequences"]),
                    "counters": tuple(map(_sequence, c["counters"])),
                }
            )
            for c in conn.execute(query("columns"), {"table": row["oid"]})
            # One that came in between is none yet.
            if c["name"] in texts
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
                clustered=i["clustered"],
                targets=tuple(tuple(t) for t in i["targets"]),
                spelt=i["spelt"],
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
                immediate=i["immediate"],
                root=i["root"],
                correlation=i["correlation"],
                greater=i["greater"],
                not_greater=i["not_greater"],
            )
            for i in spelt["indexes"]
        ),
        triggers=tuple(
            Trigger(
                **{
                    **t,
                    "update_of": tuple(t["update_of"]),
                    "mentions": tuple(t["mentions"]),
                    "arguments": tuple(t["arguments"]),
                }
            )
            for t in spelt["triggers"]
        ),
        row_policies=tuple(Policy(**p) for p in spelt["policies"]),
        constraints=_constraints(spelt["constraints"]),
        root=root,
        parent=parent,
        options=tuple(row.pop("options")),
        owner_lacks=tuple(row.pop("owner_lacks")),
        publications=tuple(row.pop("publications")),
        rules=tuple(Rule(**rule) for rule in row.pop("rules")),
        grants=tuple(
            Grant(
                role=g["role"],
                privileges=tuple(g["privileges"]),
                passed_on=tuple(g["passed_on"]),
            )
            for g in grants
        ),
        **row,
    )


def _definitions(conn: Connection, file: str, table: int) -> list[dict[str, Any]]:
    """Return rows with texts of DDL, which leave out what the search path has."""
    with full_names(conn):
        return conn.execute(query(file), {"table": table}).fetchall()


def _spelt(conn: Connection, table: int) -> dict[str, list[dict[str, Any]]]:
    """Return the same of all that each partition has as well, by their files."""
    files = ("column_texts", "indexes", "triggers", "policies", "constraints")
    given = {"table": table, "mirror": AFTER_TRIGGER_PREFIX}
    with full_names(conn):
        return {f: conn.execute(query(f), given).fetchall() for f in files}


def _above(row: dict[str, Any], which: str) -> TableName | None:
    schema, name = row.pop(f"{which}_schema"), row.pop(f"{which}_name")
    return TableName(schema, name) if name is not None else None


def _sequence(row: dict[str, Any]) -> Sequence:
    schema, name = row.pop("schema"), row.pop("name")
    row["grants"] = tuple(tuple(g) for g in row["grants"])
    row["dependents"] = tuple(row["dependents"])
    return Sequence(**row, name=TableName(schema, name))


def _constraints(rows: list[dict[str, Any]]) -> tuple[Constraint, ...]:
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


def may_create(conn: Connection, schema: str) -> bool:
    """Tell whether the role of the connection may create in a schema, if there is."""
    return bool(
        ask(
            conn,
            "SELECT COALESCE(pg_catalog.has_schema_privilege("
            "(SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1), 'CREATE'),"
            " true)",
            [schema],
        )
    )


def default_grantees(conn: Connection, schema: str) -> tuple[str | None, ...]:
    """
    Return who gets privileges by default on what this role makes in a schema.

    Source: PostgreSQL manual, ALTER DEFAULT PRIVILEGES; of tables and sequences.
    """
    rows = conn.execute(
        "SELECT DISTINCT CASE WHEN a.grantee <> 0 THEN"
        " pg_catalog.pg_get_userbyid(a.grantee)::text END AS role"
        " FROM pg_catalog.pg_default_acl d"
        " CROSS JOIN LATERAL pg_catalog.aclexplode(d.defaclacl) a"
        " LEFT JOIN pg_catalog.pg_namespace n ON n.oid = d.defaclnamespace"
        " WHERE d.defaclobjtype IN ('r', 'S') AND a.grantee <> d.defaclrole"
        " AND d.defaclrole = pg_catalog.to_regrole(quote_ident(current_user))"
        " AND (d.defaclnamespace = 0 OR n.nspname = %s) ORDER BY 1",
        (schema,),
    )
    return tuple(row["role"] for row in rows)


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
    with full_names(conn):
        row = conn.execute(
            query("duplicates"), {"schema": schema, "name": index}
        ).fetchone()
    return row["query"] if row else None


def oldest_snapshot(conn: Connection) -> Snapshot | None:
    """Return what keeps dead rows from being pruned, None where nothing does."""
    row = conn.execute(query("oldest_snapshot")).fetchone()
    return Snapshot(**row) if row else None


def cache_bytes(conn: Connection) -> int:
    """Return the size of the cache that the server's sessions share."""
    size = ask(
        conn,
        "SELECT pg_catalog.pg_size_bytes(pg_catalog.current_setting('shared_buffers'))",
    )
    return int(size)


def left_over(conn: Connection, tag: str) -> list[str]:
    """Return what a change owned for a while and is still there, by its tag."""
    args = {"tag": tag, "owned": OWNED, "triggers": list(TRIGGER_PREFIXES)}
    return [row["what"] for row in conn.execute(query("left_over"), args)]


def functions(conn: Connection, tag: str) -> list[sql.Identifier]:
    """Return the functions of a change's triggers, by its tag."""
    rows = conn.execute(
        "SELECT p.proname::text AS name FROM pg_catalog.pg_proc p"
        " JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace"
        " WHERE n.nspname = %s AND p.pronargs = 0"
        " AND pg_catalog.right(p.proname, pg_catalog.length(%s)) = %s",
        (LEDGER_SCHEMA, tag, tag),
    )
    return [sql.Identifier(LEDGER_SCHEMA, row["name"]) for row in rows]


def xmin_holder(conn: Connection, since: str) -> str | None:
    """
    Return the standby or slot behind which dead rows stay, None where none does.

    Args:
        conn: asked.
        since: the transaction (`xid`) since which the rows died.
    """
    row = conn.execute(query("xmin_holder"), {"since": since}).fetchone()
    return row["holder"] if row else None
