"""One writer at a time per scope, by a row that a crash cannot leave locked.

No session-level lock is taken, so that it works behind a pooler in transaction
mode and never deadlocks with a concurrent index build.
"""

import logging
import os
import platform
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg

from migrator import names
from migrator.errors import Busy, Failed, Fenced, MigratorError
from migrator.postgres.connection import Connection, Target, connect
from migrator.postgres.sessions import end_sessions

log = logging.getLogger(__name__)

# Seconds between looks at a lease that another process holds.
POLL_S = 0.2
# Seconds that ended sessions get to go away.
END_S = 10.0


def _host() -> str:
    """Return what tells this machine's process ids from another's."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    space = Path("/proc/self/ns/pid")
    parts = [socket.gethostname() or platform.node()]
    if boot.exists():
        parts.append(boot.read_text().strip())
    if space.exists():
        parts.append(str(space.readlink()))
    return " ".join(parts)


def _is_gone(host: str, pid: int) -> bool:
    """Tell whether a process of this machine has ended."""
    if host != _host():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def session_prefix(scope: str) -> str:
    """Return what the application names of a scope's sessions begin with."""
    return f"migrator:{names.tag(scope)}:"


@dataclass(slots=True)
class Lease:
    """A held lease; `token` grows with every holder."""

    scope: str
    token: int
    lost: bool = False

    @property
    def application_name(self) -> str:
        """The name of this holder's sessions."""
        return f"{session_prefix(self.scope)}{self.token}"

    def check(self, conn: Connection) -> None:
        """
        Hold the lease until the end of the transaction.

        Raises:
            Fenced: another process holds it now.
        """
        row = conn.execute(
            "SELECT FROM migrator.leases WHERE scope = %s AND token = %s FOR KEY SHARE",
            (self.scope, self.token),
        ).fetchone()
        self.require(row is not None)

    @property
    def question(self) -> str:
        """An expression: whether the lease is held, until the transaction's end."""
        return (
            "(SELECT count(*) = 1 FROM (SELECT FROM migrator.leases"
            f" WHERE token = {self.token} FOR KEY SHARE) AS l)"
        )

    def require(self, held: bool) -> None:
        """
        Take the answer to `question`.

        Raises:
            Fenced: another process holds it now.
        """
        if not held or self.lost:
            raise Fenced(
                f"Another process has taken over {self.scope}.",
                state="This process's open transaction was rolled back.",
                next="leave it to the other one; `migrator status` shows it.",
            )


def _try_take(conn: Connection, scope: str, seconds: float) -> Lease | str:
    """Return the lease, or who holds it."""
    row = conn.execute(
        "SELECT token, host, pid, expires_at < clock_timestamp() AS expired"
        " FROM migrator.leases WHERE scope = %s",
        (scope,),
    ).fetchone()
    values = {
        "scope": scope,
        "host": _host(),
        "pid": os.getpid(),
        "s": seconds,
        "seen": row["token"] if row else None,
    }
    if row is None:
        taken = conn.execute(
            "INSERT INTO migrator.leases (scope, token, host, pid, expires_at)"
            " VALUES (%(scope)s, nextval('migrator.tokens'), %(host)s, %(pid)s,"
            " clock_timestamp() + make_interval(secs => %(s)s))"
            " ON CONFLICT (scope) DO NOTHING RETURNING token",
            values,
        ).fetchone()
    elif row["expired"] or _is_gone(row["host"], row["pid"]):
        # Ends that holder's sessions first: one of them may hold the row. A
        # third process may take the lease meanwhile; its token is higher.
        end_sessions(conn, session_prefix(scope), row["token"] + 1)
        taken = conn.execute(
            "UPDATE migrator.leases SET token = nextval('migrator.tokens'),"
            " host = %(host)s, pid = %(pid)s,"
            " expires_at = clock_timestamp() + make_interval(secs => %(s)s)"
            " WHERE scope = %(scope)s AND token = %(seen)s RETURNING token",
            values,
        ).fetchone()
    else:
        return f"process {row['pid']} on {str(row['host']).split()[0]}"
    return Lease(scope, taken["token"]) if taken else "another process"


def is_held(conn: Connection, scope: str) -> bool:
    """Tell whether a process that is alive, as far as one can see, holds a lease."""
    return _alive(conn, (scope,))


def is_at_work(conn: Connection, change: str) -> bool:
    """Tell whether a process carries a change on, or helps with its backfill."""
    held = conn.execute(
        "SELECT scope FROM migrator.leases WHERE pg_catalog.starts_with(scope, %s)",
        (helper(change),),
    )
    return _alive(conn, (change, *(row["scope"] for row in held)))


def helper(change: str, name: str = "") -> str:
    """Return the scope of a process that helps, or what all of them begin with."""
    return f"{change} helper {name}"


def _alive(conn: Connection, scopes: Sequence[str]) -> bool:
    rows = conn.execute(
        "SELECT host, pid FROM migrator.leases"
        " WHERE scope = ANY (%s) AND expires_at > clock_timestamp()",
        (list(scopes),),
    )
    return any(not _is_gone(row["host"], row["pid"]) for row in rows)


def forget(conn: Connection, scope: str) -> None:
    """Remove the lease of a scope that does not come again."""
    conn.execute("DELETE FROM migrator.leases WHERE scope = %s", (scope,))


def _end_older_sessions(conn: Connection, lease: Lease) -> None:
    """End what an older holder left running on the server, and wait for it."""
    deadline = time.monotonic() + END_S
    while left := end_sessions(conn, session_prefix(lease.scope), lease.token):
        if time.monotonic() > deadline:
            raise Failed(
                f"Sessions {left} of an earlier run of {lease.scope} did not end.",
                state="They may still change the database.",
                next="end them with pg_terminate_backend, then run it again.",
            )
        time.sleep(POLL_S)


def _beat(target: Target, lease: Lease, seconds: float, stop: threading.Event) -> None:
    """Keep the lease alive from a connection of its own."""
    conn: Connection | None = None
    while not stop.wait(seconds / 5):
        try:
            if conn is None:
                conn = connect(target, lease.application_name)
            done = conn.execute(
                "UPDATE migrator.leases SET expires_at ="
                " clock_timestamp() + make_interval(secs => %s)"
                " WHERE scope = %s AND token = %s",
                (seconds, lease.scope, lease.token),
            )
            lease.lost = done.rowcount != 1
        except (psycopg.Error, MigratorError) as error:
            # The next beat tries again; a lease that has run out is noticed by
            # `Lease.check`, in the transaction that it matters to.
            log.warning("heartbeat of %s failed: %s", lease.scope, error)
            conn = None
    if conn is not None:
        conn.close()


@contextmanager
def held(
    target: Target,
    conn: Connection,
    scope: str,
    *,
    seconds: float,
    wait_s: float,
    tell: Callable[[str], None] | None = None,
) -> Iterator[Lease]:
    """
    Hold the lease of a scope, once older holders are gone.

    Args:
        target: for the heartbeat's own connection.
        conn: takes the lease; renamed to the lease's application name.
        scope: a change's id, or the version table for Alembic's commands.
        seconds: how long the lease lives without a heartbeat.
        wait_s: how long to wait for another holder.
        tell: told whom it waits for.

    Raises:
        Busy: another process holds it and goes on.
    """
    deadline = time.monotonic() + wait_s
    while isinstance(lease := _try_take(conn, scope, seconds), str):
        if time.monotonic() > deadline:
            raise Busy(
                f"{scope} is being changed by {lease}.",
                next="wait for it; `migrator status` shows how far it is, `migrator"
                " abort` ends a backfill.",
            )
        if tell is not None:
            tell(f"{scope} is being changed by {lease}")
        time.sleep(POLL_S)
    stop = threading.Event()
    beat = threading.Thread(
        target=_beat, args=(target, lease, seconds, stop), daemon=True
    )
    # Ctrl-C may come while the thread starts: it has to be stopped then as well, or it
    # keeps a lease alive that nobody works under.
    try:
        conn.execute(
            "SELECT pg_catalog.set_config('application_name', %s, false)",
            (lease.application_name,),
        )
        beat.start()
        _end_older_sessions(conn, lease)
        yield lease
    finally:
        stop.set()
        with suppress(RuntimeError):  # it was not started
            beat.join(timeout=END_S)
        # Ctrl-C may have left a statement under way. A lease that is not given back
        # runs out, and a process of this machine sees at once that its holder is gone;
        # so that no commit has to wait for the disk here.
        with suppress(psycopg.Error):
            conn.execute(
                "UPDATE migrator.leases SET expires_at = '-infinity'"
                " WHERE scope = %s AND token = %s AND"
                " pg_catalog.set_config('synchronous_commit', 'off', true) = 'off'",
                (scope, lease.token),
            )
