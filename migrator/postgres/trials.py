"""SQL that is tried out, and leaves nothing behind."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

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


def try_out(
    conn: Connection,
    probe: Probe,
    *,
    lock_timeout_ms: int,
    given: Mapping[str, Any] | None = None,
) -> None:
    """
    Run a trial in a transaction that is rolled back.

    Args:
        conn: in autocommit.
        probe: the trial.
        lock_timeout_ms: longest wait for each lock.
        given: the pattern's parameters, of which the one that fails is named.

    Raises:
        Refused: the server refuses the SQL, or the answer is no.
    """
    found = _answer(conn, probe, lock_timeout_ms, given or {})
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
        return _answer(conn, probe, lock_timeout_ms, {})
    except Refused as error:
        cause = error.__cause__
        # What an object is not ready for is an answer, though of that class.
        unready = isinstance(cause, psycopg.errors.ObjectNotInPrerequisiteState)
        if isinstance(cause, psycopg.OperationalError) and not unready:
            raise cause from None
        return None


def _answer(
    conn: Connection, probe: Probe, lock_timeout_ms: int, given: Mapping[str, Any]
) -> Any:
    """Return what a trial answers; `Refused` where the server refuses the SQL."""
    conn.execute("BEGIN")
    configure(conn, {"lock_timeout": f"{lock_timeout_ms}ms"}, local=True)
    statement = ""
    try:
        # The user's text may not end one statement and begin another: such a one would
        # be taken here, and would run behind the step's own.
        for statement in probe.statements:
            execute_stored(conn, statement, one=True)
        statement = probe.question
        return ask(conn, statement, one=True)
    except RETRIED:
        raise
    except psycopg.errors.InsufficientPrivilege as error:
        raise Refused(
            f"{probe.failed or 'The server refuses a trial of the pattern'}:"
            f" {said(error)}.",
            next="grant the privilege, or connect as a role that has it.",
        ) from error
    except psycopg.errors.ReadOnlySqlTransaction as error:
        raise Refused(
            "Nothing can be tried out here, since the server takes no writes: it is a"
            " standby, or read-only by setting.",
            next="connect to the primary.",
        ) from error
    except psycopg.Error as error:
        what, cure = probe.failed, probe.next
        if not probe.failed:
            what, cure = "The server refuses an expression of the pattern", _SQL
            if (error.sqlstate or "").startswith(_OF_A_ROW):
                what += _named(given, statement)
                cure = "correct it in the revision: a value does not suit it."
        raise Refused(f"{what}: {said(error)}.", next=cure) from error
    finally:
        conn.execute("ROLLBACK")


_SQL = (
    "correct it in the revision; it is SQL, in which a text stands in quotes:"
    " \"'text'\", and a function or type of another schema with it."
)


# A value that an expression cannot take, or makes and no column can; a function's own
# error (manual, appendix A).
_OF_A_ROW = ("22", "23", "P0")
# Parameters that are names, which an expression may consist of.
_NAMES = ("schema", "table", "column", "to", "name")


def _named(given: Mapping[str, Any], statement: str) -> str:
    """Return which parameters' expressions stand in a statement."""
    found = [
        f"`{name}`"
        for name, value in given.items()
        if name not in _NAMES
        and any(f"({text})" in statement for text in _texts(value))
    ]
    return f" ({' or '.join(found)})" if found else ""


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in cast("Mapping[str, Any]", value).values():
            yield from _texts(one)
    elif isinstance(value, list | tuple):
        for one in cast("Sequence[Any]", value):
            yield from _texts(one)
