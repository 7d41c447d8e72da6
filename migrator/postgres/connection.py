"""Connections of the engine, and driver errors translated to ours."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import conninfo
from psycopg.rows import dict_row

from migrator.errors import (
    ConnectionLost,
    Failed,
    OutcomeUnknown,
    Refused,
    UsageError,
)
from migrator.postgres.masking import masked

# The oldest release that upstream still supports.
OLDEST_SERVER = 150000

# How often a backend looks whether its client is still there, in ms. A killed
# client's statement ends after about this time (manual, 20.3.2).
CLIENT_CHECK_MS = 1000

# Seconds to wait for a connection.
CONNECT_TIMEOUT_S = 10

# A session may be silent for as long as a statement runs, and what stands between may
# forget it meanwhile: load balancers do so after 240 s or more. Probes keep it known,
# and after 30 + 3 * 10 s tell that the server is gone, instead of waiting for hours.
# In seconds, but for the last, which is in ms and for what was sent (manual, 32.1.2).
KEEPALIVE = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}

Row = dict[str, Any]
Connection = psycopg.Connection[Row]


@dataclass(frozen=True, slots=True)
class Target:
    """Where the database is. Its password never shows in `repr` or `str`."""

    params: Mapping[str, Any] = field(repr=False)

    def __str__(self) -> str:
        """Return host, port and database."""
        p = self.params
        host = p.get("host", "local socket")
        return f"{p.get('dbname', '?')} on {host}:{p.get('port', 5432)}"

    @classmethod
    def from_url(cls, url: str) -> "Target":
        """
        Read a URL: `postgresql://`, `postgres://` or `postgresql+driver://`.

        Raises:
            UsageError: it is not one of these; the URL itself is not repeated,
                since it may hold a password.
        """
        scheme, found, rest = url.partition("://")
        base, _, _ = scheme.partition("+")
        if not found or base not in ("postgresql", "postgres"):
            raise UsageError(
                "The database URL does not start with postgresql://.",
                next="give postgresql://user@host:port/database.",
            )
        try:
            params = conninfo.conninfo_to_dict(f"postgresql://{rest}")
        except psycopg.ProgrammingError:
            raise UsageError(
                "The database URL cannot be read.",
                next="give postgresql://user@host:port/database, special"
                " characters percent-encoded.",
            ) from None
        return cls(dict(params))


# How values are written as text, whatever the database or the role has set: keys
# of a backfill are kept so, and the driver reads no other form of a time.
FORM = {"datestyle": "ISO", "intervalstyle": "postgres", "extra_float_digits": "1"}


def connect(target: Target, application_name: str) -> Connection:
    """
    Open a connection of the engine.

    Args:
        target: where to.
        application_name: shown in pg_stat_activity; carries the token.

    Raises:
        Refused: the server cannot be reached, is too old, or is a standby.
    """
    try:
        conn = Connection.connect(
            conninfo.make_conninfo(
                "",
                **{
                    "connect_timeout": CONNECT_TIMEOUT_S,
                    **KEEPALIVE,
                    **target.params,
                    "application_name": application_name,
                },
            ),
            row_factory=dict_row,
            autocommit=True,
            # A statement that the server prepared would tie a session down,
            # which a pooler in transaction mode does not keep.
            prepare_threshold=None,
        )
    except psycopg.OperationalError as error:
        secret = str(target.params.get("password") or "")
        text = str(error).strip()
        if secret:
            text = text.replace(secret, "********")
        raise Refused(
            f"No connection to {target}: {text}",
            next=reach(text),
        ) from None
    if conn.info.server_version < OLDEST_SERVER:
        version = conn.info.parameter_status("server_version")
        conn.close()
        raise Refused(
            f"The server is PostgreSQL {version}; the oldest that is supported"
            f" is {OLDEST_SERVER // 10000}.",
            next="upgrade the server.",
        )
    if not (conn.info.parameter_status("DateStyle") or "").startswith("ISO"):
        # The driver reads times of no other style. Poolers keep track of this one.
        configure(conn, {"datestyle": "ISO"}, local=False)
    if conn.info.parameter_status("standard_conforming_strings") != "on":
        # Else a backslash is none in our own text; poolers keep track of it too.
        configure(conn, {"standard_conforming_strings": "on"}, local=False)
    if not is_pooled(conn):
        configure(conn, _session(conn.info.server_version), local=False)
    return conn


#: Words of a server that takes no session just now, and what to do. At a connection
#: libpq gives no code beside them; a server of another language is not known by them.
_NOT_NOW: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("is starting up", "not yet accepting connections", "in recovery mode"),
        "the server is starting: wait until it is up, then run the same command again.",
    ),
    (
        ("is shutting down",),
        "the server is going down: wait until it is up again, then run the same"
        " command again.",
    ),
    (
        ("too many clients", "remaining connection slots", "too many connections"),
        "the server is full: end sessions that are not needed, or raise the limit,"
        " then run the same command again.",
    ),
)


def reach(said: str) -> str:
    """Return what to do where no connection was made, by what the driver said."""
    return next(
        (road for words, road in _NOT_NOW if any(word in said for word in words)),
        "check the URL, the server and its pg_hba.conf.",
    )


#: A server that runs, and a database of it: no two have both.
_WHERE = (
    "SELECT pg_catalog.pg_postmaster_start_time() AS server, oid AS database"
    " FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()"
)


def is_same_database(one: Target, other: Target) -> bool:
    """
    Tell whether two addresses lead to one database, as a server's and a pooler's may.

    Raises:
        Refused: one of them cannot be reached.
    """
    if str(one) == str(other):
        return True
    found: list[Row | None] = []
    for target in (one, other):
        with connect(target, "migrator:look") as conn:
            found.append(conn.execute(_WHERE).fetchone())
    return found[0] == found[1]


def _session(server_version: int) -> dict[str, str]:
    """
    Return the parameters of the engine's sessions, whatever the role's own are.

    Sessions may be idle for as long as a pass takes; what is to end in time says
    so in its transaction.
    """
    off = [
        "statement_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
        "idle_session_timeout",
    ]
    if server_version >= 170000:
        off.append("transaction_timeout")
    return {
        "client_connection_check_interval": str(CLIENT_CHECK_MS),
        "row_security": "off",
        **FORM,
        "default_transaction_isolation": "read committed",
        **dict.fromkeys(off, "0"),
    }


def is_pooled(conn: Connection) -> bool:
    """
    Tell whether a pooler stands between: the session is not ours alone.

    A pooler makes up the key it gives to its clients, so that the process id in
    it is not that of the backend.
    """
    row = conn.execute("SELECT pg_catalog.pg_backend_pid() AS pid").fetchone()
    assert row is not None
    return bool(row["pid"] != conn.info.backend_pid)


def require_session(conn: Connection, what: str) -> None:
    """Refuse what needs a session of its own where a pooler stands between."""
    if is_pooled(conn):
        raise Refused(
            f"{what} needs a direct connection, and a pooler stands between.",
            next="give the server's own address.",
        )


def require_primary(conn: Connection) -> None:
    """Refuse a server that takes no writes."""
    row = conn.execute(
        "SELECT pg_catalog.pg_is_in_recovery()"
        " OR current_setting('default_transaction_read_only')::bool AS readonly"
    ).fetchone()
    assert row is not None
    if row["readonly"]:
        raise Refused(
            "The server takes no writes: it is a standby, or read-only by setting.",
            next="connect to the primary.",
        )


def configure(conn: Connection, values: Mapping[str, str], *, local: bool) -> None:
    """Set parameters for the transaction, or for the session."""
    # In one round trip.
    conn.execute(
        "SELECT pg_catalog.set_config(name, value, %s)"
        " FROM ROWS FROM (pg_catalog.unnest(%s::text[]), pg_catalog.unnest(%s::text[]))"
        " AS given (name, value)",
        (local, list(values), list(values.values())),
    )


def execute_stored(
    conn: Connection,
    text: str,
    params: Sequence[Any] | None = None,
    *,
    one: bool = False,
) -> psycopg.RawCursor[Row]:
    """
    Execute a plan's text to the letter; parameters stand as `$1`, `$2`.

    The one place where text, rendered by `migrator.plan.render`, is run.

    Args:
        conn: where.
        text: SQL.
        params: its parameters.
        one: whether the server is to refuse text of several statements.
    """
    cursor = psycopg.RawCursor(conn, row_factory=dict_row)
    # The extended protocol, which takes one, is used for binary results alone where
    # there are no parameters.
    cursor.execute(text.encode(), params, binary=one or None)
    return cursor


def ask(
    conn: Connection,
    question: str,
    params: Sequence[Any] | None = None,
    *,
    one: bool = False,
) -> Any:
    """Return the one value that a plan's question asks for; `one` as above."""
    row = execute_stored(conn, question, params, one=one).fetchone()
    return None if row is None else next(iter(row.values()))


@contextmanager
def translated(what: str, state: str, next: str) -> Iterator[None]:
    """
    Turn driver errors into ours, but for those that are tried again.

    Args:
        what: what was being done, and on which object.
        state: what remains if it fails.
        next: what to do then.
    """
    try:
        yield
    except RETRIED:
        raise
    except psycopg.errors.InsufficientPrivilege as error:
        raise Refused(
            f"{what}: {told(error)}",
            state=state,
            next="grant the privilege, or connect as another role.",
        ) from error
    except _MISSING as error:
        raise Failed(
            f"{what}: {told(error)}",
            state=state,
            next=f"put back what was dropped or renamed, then {next} Where the table"
            " is gone for good, `migrator reconcile` tells how the change ends.",
        ) from error
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        raise Failed(
            f"{what}: {told(error)}",
            state=state,
            next=f"correct the rows, or what refuses them, then {next}",
        ) from error
    except psycopg.errors.DependentObjectsStillExist as error:
        # This DETAIL has names of objects, and no values of rows.
        used = "; ".join((error.diag.message_detail or "").splitlines())
        raise Failed(
            f"{what}: {told(error)}: {used}.",
            state=state,
            next="drop these, or make them again without what goes; then run the same"
            " command again.",
        ) from error
    except psycopg.Error as error:
        if _ends_session(error):
            raise ConnectionLost(
                f"{what}: the connection to the server was lost ({told(error)}).",
                state="What had been committed stays; the rest was rolled back.",
                next=next,
            ) from error
        raise Failed(f"{what}: {told(error)}", state=state, next=next) from error


#: Something that a statement names is not there.
_MISSING = (
    psycopg.errors.InvalidSchemaName,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.UndefinedObject,
    psycopg.errors.UndefinedTable,
)


def _ends_session(error: psycopg.Error) -> bool:
    """
    Tell whether a session is over after an error.

    The class does not tell: a full disk is an `OperationalError` as well. The
    server's severity does (manual, section 19.8, Message Severity Levels); what
    the client says itself has none.
    """
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError)
    # Class 08, connection exceptions: what a pooler says of the server behind it.
    fatal = error.diag.severity_nonlocalized in ("FATAL", "PANIC")
    return fatal or error.sqlstate.startswith("08")


#: Errors after which the whole transaction is tried again. The last is that of an
#: update whose row went to another partition while it waited for the row's lock.
RETRIED = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
)


def said(error: psycopg.Error) -> str:
    """Return the server's words without its context lines."""
    return error.diag.message_primary or str(error).strip().split("\n")[0]


def told(error: psycopg.Error) -> str:
    """Return of the server's words what holds no value of a row."""
    code = error.sqlstate or ""
    return masked(code, said(error)) or (
        f"{type(error).__name__} ({code}), raised by a function of the database, be it"
        " a trigger's or an event trigger's; the server's log has its words"
    )


# What a role has switched off is switched on, what it asks of standbys stays.
_DURABLE = (
    " SELECT pg_catalog.set_config('synchronous_commit', 'local', true)"
    " WHERE pg_catalog.current_setting('synchronous_commit') = 'off'"
)
# A lock that waited for so many ms looks what is in its way: an autovacuum is ended
# then, and of a deadlock whoever looked first (manual, 24.1.6 and 19.12). The server
# itself looks after 1 s, when a step has long given up.
LOOK_MS = 50
_EAGER = (
    "; SELECT pg_catalog.set_config('deadlock_timeout', '{ms}ms', true)"
    " WHERE pg_catalog.has_parameter_privilege('deadlock_timeout', 'SET')"
    " AND pg_catalog.current_setting('deadlock_timeout')::interval"
    " > interval '{ms} ms'"
)
# Between two statements of a transaction the engine computes for milliseconds.
IDLE_MS = 10_000


@contextmanager
def transaction(
    conn: Connection,
    *,
    lock_timeout_ms: int,
    statement_timeout_ms: int,
    what: str,
    durable: bool = True,
    eager: bool = False,
) -> Iterator[None]:
    """
    Run one transaction with its own timeouts.

    A process that hangs in it is disconnected by the server, so that its locks
    do not outlive its lease.

    Args:
        conn: in autocommit.
        lock_timeout_ms: longest wait for each lock.
        statement_timeout_ms: longest run of each statement.
        what: what is done and on which object, for errors.
        durable: whether COMMIT waits for the disk. Where it does not, a crash of
            the server may take the last ones back, whole and in order (manual,
            section 28.4); a later commit that waits makes them durable too.
        eager: whether its locks soon move an autovacuum aside, where the role may
            set that.

    Raises:
        OutcomeUnknown: the connection was lost while the commit was under way.
    """
    # One round trip: chunks begin thousands of transactions. Under the role's own
    # REPEATABLE READ a row that the application changes would be an error.
    execute_stored(
        conn,
        "BEGIN ISOLATION LEVEL READ COMMITTED;"
        f" SET LOCAL lock_timeout = {int(lock_timeout_ms)};"
        f" SET LOCAL statement_timeout = {int(statement_timeout_ms)};"
        f" SET LOCAL idle_in_transaction_session_timeout = {IDLE_MS};"
        " SET LOCAL row_security = off;"
        + "".join(f" SET LOCAL {name} = {value};" for name, value in FORM.items())
        + (_DURABLE if durable else " SET LOCAL synchronous_commit = off")
        + (_EAGER.format(ms=min(LOOK_MS, lock_timeout_ms // 2 or 1)) if eager else ""),
    )
    try:
        yield
    except BaseException:
        if not conn.closed:
            # Keep the first error where the connection is going away as well.
            try:
                conn.execute("ROLLBACK")
            except psycopg.Error:
                conn.close()
        raise
    try:
        conn.execute("COMMIT")
    except psycopg.OperationalError as error:
        if conn.broken or conn.closed:
            raise OutcomeUnknown(
                f"{what}: the connection was lost while the commit was under way.",
                state="It is either done whole or not at all; the ledger tells.",
                next="run the same command again: it looks before it acts.",
            ) from error
        raise
