"""Sessions that hold a lock which somebody waits for, and what to do about them."""

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import psycopg
from psycopg.sql import SQL, Literal

from migrator.facts import Blocker
from migrator.names import TableName
from migrator.plan import Lock, render
from migrator.postgres.connection import (
    Connection,
    ask,
    execute_stored,
    said,
    transaction,
)
from migrator.postgres.queries import query

log = logging.getLogger(__name__)

# ms beyond `deadlock_timeout` in which the server ends an autovacuum and it goes away.
GONE_MS = 1000


def blockers_of(conn: Connection, table: TableName, lock: Lock) -> list[Blocker]:
    """
    Return who holds what conflicts with a lock on a table.

    Args:
        conn: the connection.
        table: the table; sessions that lock a partition of it count.
        lock: the lock that is wanted.

    Source: PostgreSQL manual, section 13.3.1 (conflicts), 54.12 (pg_locks).
    """
    rows = conn.execute(
        query("blockers"),
        {"schema": table.schema, "name": table.name, "mode": lock.value},
    ).fetchall()
    return [Blocker(table=_relation(row), **row) for row in rows]


def old_snapshots(conn: Connection, at: datetime) -> dict[str, Blocker]:
    """
    Return whose snapshot may be from before a time, by the transaction's number.

    Args:
        conn: the connection.
        at: the time, by the server's clock.

    Source: PostgreSQL manual, section 13.2.2 (Repeatable Read).
    """
    rows = conn.execute(query("old_snapshots"), {"at": at}).fetchall()
    return {row.pop("number"): Blocker(table=None, **row) for row in rows}


def _relation(row: dict[str, Any]) -> TableName | None:
    schema, name = row.pop("schema"), row.pop("name")
    return TableName(schema, name) if name is not None else None


def move_aside(conn: Connection, blockers: Sequence[Blocker]) -> bool:
    """
    Have the server end autovacuums, and tell whether one was.

    It ends one that a lock waits for, once that lock has waited for
    `deadlock_timeout`: longer than ours may. This one waits so long, and stops
    neither readers nor writers meanwhile.
    """
    moved = False
    for table in {b.table for b in blockers if b.autovacuum and not b.forced}:
        assert table is not None
        what = f"Autovacuum of table {table}"
        look_ms = deadlock_timeout_ms(conn)
        lock = SQL("LOCK TABLE ONLY {} IN SHARE UPDATE EXCLUSIVE MODE")
        try:
            with transaction(
                conn,
                lock_timeout_ms=look_ms + GONE_MS,
                statement_timeout_ms=look_ms + 2 * GONE_MS,
                what=what,
            ):
                execute_stored(conn, render(lock.format(table.identifier)))
            moved = True
        except psycopg.Error as error:
            # Of a materialized view, or for want of rights, it goes on.
            if conn.closed or conn.broken:
                raise
            log.info("%s goes on: %s", what, said(error))
    return moved


def deadlock_timeout_ms(conn: Connection) -> int:
    """Return after how long a lock looks what is in its way."""
    return int(
        ask(
            conn,
            "SELECT setting FROM pg_catalog.pg_settings"
            " WHERE name = 'deadlock_timeout'",
        )
    )


def held_by(blockers: Sequence[Blocker]) -> str:
    """Return a sentence that says who stands in the way."""
    names = "; ".join(map(str, blockers))
    return f"Held by {names}." if names else "Nobody holds it just now."


def advice(blockers: Sequence[Blocker]) -> str:
    """Return what a person does about them."""
    prepared = list(dict.fromkeys(b.prepared for b in blockers if b.prepared))
    if prepared:
        ends = "; ".join(
            SQL("COMMIT PREPARED {0} or ROLLBACK PREPARED {0}")
            .format(Literal(gid))
            .as_string(None)
            for gid in prepared
        )
        return (
            "have its transaction manager end it, or, where none does, end it as its"
            f" owner or a superuser: {ends}; then run the same command again."
        )
    if any(b.forced for b in blockers):
        return (
            "wait until that autovacuum is through, then run the same command"
            " again: the server ends it for no lock, and begins it again when a"
            " person does."
        )
    if any(b.autovacuum for b in blockers):
        return (
            "as a superuser, or from 18 on with pg_signal_autovacuum_worker, end"
            " it by pg_cancel_backend and run the same command again. GRANT SET ON"
            " PARAMETER deadlock_timeout lets this role move it aside."
        )
    return "end that session, then run the same command again."
