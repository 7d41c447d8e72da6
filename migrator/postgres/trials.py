"""SQL that is tried out, and leaves nothing behind."""

from typing import Any

import psycopg

from migrator.errors import Refused
from migrator.plan import Probe
from migrator.postgres.connection import (
    RETRIED,
    Connection,
    ask,
    configure,
    execute_stored,
    said,
)


def try_out(conn: Connection, probe: Probe, *, lock_timeout_ms: int) -> None:
    """
    Run a trial in a transaction that is rolled back.

    Args:
        conn: in autocommit.
        probe: the trial.
        lock_timeout_ms: longest wait for each lock.

    Raises:
        Refused: the server refuses the SQL, or the answer is no.
    """
    found = _answer(conn, probe, lock_timeout_ms)
    if isinstance(found, str) and found:
        raise Refused(probe.otherwise.replace("{found}", found), next=probe.next)
    if found is None or found is False:
        raise Refused(probe.otherwise, next=probe.next)


def holds(conn: Connection, probe: Probe, *, lock_timeout_ms: int) -> bool:
    """
    Tell whether a trial succeeds and its answer is yes.

    Args:
        conn: in autocommit.
        probe: the trial.
        lock_timeout_ms: longest wait for each lock.

    Raises:
        psycopg.OperationalError: it could not be tried, which is no answer.
    """
    return bool(reads(conn, probe, lock_timeout_ms=lock_timeout_ms))


def reads(conn: Connection, probe: Probe, *, lock_timeout_ms: int) -> Any:
    """
    Return what a trial answers, None where it does not succeed.

    Args:
        conn: in autocommit.
        probe: the trial.
        lock_timeout_ms: longest wait for each lock.

    Raises:
        psycopg.OperationalError: it could not be tried, which is no answer.
    """
    try:
        return _answer(conn, probe, lock_timeout_ms)
    except Refused as error:
        if isinstance(error.__cause__, psycopg.OperationalError):
            raise error.__cause__ from None
        return None


def _answer(conn: Connection, probe: Probe, lock_timeout_ms: int) -> Any:
    """Return what a trial answers; `Refused` where the server refuses the SQL."""
    conn.execute("BEGIN")
    configure(conn, {"lock_timeout": f"{lock_timeout_ms}ms"}, local=True)
    try:
        # The user's text may not end one statement and begin another: such a one would
        # be taken here, and would run behind the step's own.
        for statement in probe.statements:
            execute_stored(conn, statement, one=True)
        return ask(conn, probe.question, one=True)
    except RETRIED:
        raise
    except psycopg.errors.InsufficientPrivilege as error:
        raise Refused(
            f"{probe.failed or 'The server refuses a trial of the pattern'}:"
            f" {said(error)}.",
            next="grant the privilege, or connect as a role that has it.",
        ) from error
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
