"""What a server really does at a statement: its lock, and its work."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from migrator.lint.rule import Trial, Work
from migrator.plan import Lock

# What every trial starts from: enough rows that nothing is done at sight.
TABLE = """
CREATE TABLE t (id bigint PRIMARY KEY, a integer, b text NOT NULL);
INSERT INTO t SELECT n, n % 100, 'row ' || n FROM generate_series(1, 1000) AS n;
ANALYZE t;
"""

# Words of the server's messages at DEBUG1 (tablecmds.c, index.c), which are internal:
# a version that words one otherwise fails a trial, and is added here.
MESSAGES = (
    (re.compile(r"^rewriting table"), Work.REWRITE),
    # The index of an empty TOAST table, which a wider column may come to need, is none.
    (re.compile(r'^building index "(?!pg_toast_)'), Work.BUILD),
    (re.compile(r"^verifying table|^validating foreign key"), Work.SCAN),
)

# Rows that are many, for a trial's table of a thousand.
MANY_ROWS = 100

# Statements that refuse a transaction: what they hold is not seen from within. Of those
# that ask for ACCESS EXCLUSIVE it is seen from a session that is in their way; what the
# others hold, SHARE UPDATE EXCLUSIVE, tests of the patterns have shown.
ALONE = re.compile(r"\b(CONCURRENTLY|VACUUM)\b|^DO\b.*\bCOMMIT;", re.I | re.S)


@dataclass(frozen=True)
class Seen:
    """The strongest lock on the table, and the most work, of a statement."""

    lock: Lock
    work: Work

    @property
    def stalls(self) -> bool:
        """Whether writers wait while every row is gone over."""
        return self.work is not Work.CATALOGUE and self.lock.rank >= Lock.SHARE.rank


@contextmanager
def _messages(conn: psycopg.Connection) -> Iterator[list[str]]:
    found: list[str] = []

    def note(diagnostic: psycopg.errors.Diagnostic) -> None:
        found.append(diagnostic.message_primary or "")

    conn.add_notice_handler(note)
    try:
        yield found
    finally:
        conn.remove_notice_handler(note)


def _files(conn: psycopg.Connection, table: str) -> dict[int, int]:
    """Return the file of a table and of each of its indexes, by OID."""
    rows = conn.execute(
        "SELECT c.oid::bigint, c.relfilenode::bigint FROM pg_class c WHERE c.oid ="
        " to_regclass(%s) OR c.oid IN (SELECT indexrelid FROM pg_index WHERE indrelid ="
        " to_regclass(%s))",
        [table, table],
    ).fetchall()
    return dict(rows)


def _lock(conn: psycopg.Connection, oid: int | None) -> Lock:
    rows = conn.execute(
        "SELECT mode FROM pg_locks WHERE pid = pg_backend_pid() AND relation = %s",
        [oid],
    ).fetchall()
    words = (re.sub(r"(?<=[a-z])(?=[A-Z])", " ", mode).upper() for (mode,) in rows)
    held = (Lock(word.removesuffix(" LOCK")) for word in words)
    return max(held, key=lambda lock: lock.rank, default=Lock.NONE)


def _changed(cursor: "psycopg.Cursor[tuple[Any, ...]]") -> int:
    """Return how many rows a statement changed."""
    words = (cursor.statusmessage or "").split()
    return int(words[-1]) if words and words[0] in {"INSERT", "UPDATE", "DELETE"} else 0


def _scans(conn: psycopg.Connection, oid: int | None) -> int:
    """Return how often the session has read the table from end to end, of late."""
    row = conn.execute("SELECT pg_stat_get_xact_numscans(%s)", [oid]).fetchone()
    return int(row[0] or 0) if row else 0


def _is_about_nothing(conn: psycopg.Connection, text: str) -> bool:
    """Tell whether a message is of a table without rows: then it was no work."""
    named = re.search(r'table "(?P<name>[^"]+)"', text)
    if named is None:
        return False
    row = conn.execute(
        "SELECT to_regclass(quote_ident(%s))::oid", [named["name"]]
    ).fetchone()
    return row is not None and row[0] is not None and _is_empty(conn, row[0])


def _is_empty(conn: psycopg.Connection, oid: int) -> bool:
    row = conn.execute("SELECT pg_relation_size(%s::oid) = 0", [oid]).fetchone()
    return row is not None and row[0]


def _transaction(conn: psycopg.Connection) -> AbstractContextManager[object]:
    """Return a transaction of its own, none within one that has begun."""
    if conn.info.transaction_status is TransactionStatus.IDLE:
        return conn.transaction()
    # No savepoint either: a COMMIT in the text is to be what it is.
    return nullcontext()


def _alone(conn: psycopg.Connection, statement: str, oid: int | None) -> Lock:
    """Run a statement against a reader, and return the lock that it waits for."""
    asked = Lock.SHARE_UPDATE_EXCLUSIVE
    at = conn.info
    with (
        psycopg.connect(at.dsn, password=at.password) as reader,
        ThreadPoolExecutor(1) as thread,
    ):
        name = reader.execute("SELECT %s::regclass::text", [oid]).fetchone()
        if name is not None and name[0] is not None:
            reader.execute(f"SELECT FROM {name[0]} LIMIT 0".encode())
        done = thread.submit(conn.execute, statement.encode())
        while not done.done():
            waits = reader.execute(
                "SELECT mode FROM pg_locks WHERE pid = %s AND NOT granted",
                [at.backend_pid],
            ).fetchone()
            if waits is not None:
                asked = Lock.ACCESS_EXCLUSIVE if "AccessExcl" in waits[0] else asked
                reader.rollback()
        done.result()
    return asked


def bad(conn: psycopg.Connection, trial: Trial) -> Seen:
    """Run the bad form of a trial, and return what its last statement did."""
    if not trial.together:
        for statement in trial.bad[:-1]:
            run(conn, statement, trial.table)
        return run(conn, trial.bad[-1], trial.table)
    # Not by psycopg's own, which minds a COMMIT in the text.
    conn.execute("BEGIN")
    try:
        for statement in trial.bad[:-1]:
            conn.execute(statement.encode())
        return run(conn, trial.bad[-1], trial.table)
    finally:
        conn.execute("ROLLBACK")


def run(conn: psycopg.Connection, statement: str, table: str) -> Seen:
    """
    Run a statement as a transaction of its own, and return what it did.

    Args:
        conn: in autocommit.
        statement: SQL.
        table: on which locks are looked at.
    """
    row = conn.execute("SELECT to_regclass(%s)::oid", [table]).fetchone()
    oid = row[0] if row else None
    before = _files(conn, table)
    conn.execute("SET client_min_messages = debug1")
    lock = Lock.NONE
    scans = changed = 0
    with _messages(conn) as said:
        try:
            if ALONE.search(statement):
                lock = _alone(conn, statement, oid)
            else:
                with _transaction(conn):
                    scans = -_scans(conn, oid)
                    changed = _changed(conn.execute(statement.encode()))
                    scans += _scans(conn, oid)
                    lock = _lock(conn, oid)
        finally:
            if conn.info.transaction_status is not TransactionStatus.INERROR:
                conn.execute("RESET client_min_messages")
    after = _files(conn, table)
    done = {
        work
        for text in said
        for pattern, work in MESSAGES
        if pattern.search(text) and not _is_about_nothing(conn, text)
    }
    if scans:
        done.add(Work.SCAN)
    if changed >= MANY_ROWS:
        done.add(Work.ROWS)
    if oid is not None and oid in after and after[oid] != before.get(oid):
        if _is_empty(conn, oid):
            # A file exchanged for an empty one: nothing was written.
            return Seen(lock, Work.CATALOGUE)
        done.add(Work.REWRITE)
    if any(after.get(o, f) != f for o, f in before.items()):
        done.add(Work.BUILD)
    order = list(Work)
    return Seen(lock, max(done, key=order.index, default=Work.CATALOGUE))


def prepare(conn: psycopg.Connection, trial: Trial) -> None:
    """Make what a trial starts from, in place of what the last one left."""
    conn.execute(
        "DROP SCHEMA IF EXISTS public, s, s2 CASCADE; CREATE SCHEMA public;"
        " DROP ACCESS METHOD IF EXISTS h"
    )
    conn.execute(TABLE.encode())
    for statement in trial.before:
        conn.execute(statement.encode())
