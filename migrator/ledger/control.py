"""What people say to a change while it runs: pause, resume, abort, throttle.

A row that every worker reads with each chunk, so that it works from any machine.
"""

from dataclasses import dataclass, fields
from enum import StrEnum
from math import inf
from typing import Any

from migrator.errors import Held, UsageError
from migrator.ledger import store
from migrator.postgres.connection import Connection


class Mode(StrEnum):
    """What a change's workers are to do."""

    RUN = "run"
    PAUSE = "pause"
    ABORT = "abort"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """
    What a backfill may take; None leaves it to the run's own settings.

    Args:
        max_rows_per_s: rows changed in a second, by all workers.
        max_wal_bytes_per_s: WAL that the server may write in a second, by
            anyone: above it the backfill waits.
        target_ms: wanted length of a chunk's transaction.
        workers: connections of each process.

    Raises:
        UsageError: one of them is 0 or less, or no finite number.
    """

    max_rows_per_s: float | None = None
    max_wal_bytes_per_s: float | None = None
    target_ms: float | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        """Refuse a limit under which nothing could go on."""
        for limit in fields(self):
            value = getattr(self, limit.name)
            if value is not None and not 0 < value < inf:
                raise UsageError(
                    f"A limit is a number above 0, and {limit.name} is {value:g}.",
                    next="pause the change, where it is to stand still.",
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """The row as workers read it."""

    mode: Mode = Mode.RUN
    reason: str = ""
    actor: str = ""
    limits: Limits = Limits()

    @property
    def said(self) -> str:
        """Who said so, and why."""
        why = f': "{self.reason}"' if self.reason else ""
        return f"{_SAID[self.mode]} by {self.actor}{why}"


_SAID = {Mode.RUN: "resumed", Mode.PAUSE: "paused", Mode.ABORT: "aborted"}
_LIMITS = tuple(f.name for f in fields(Limits))

#: Query of one column with the row as JSON, NULL where there is none; `$2` is
#: the change's id.
QUESTION = (
    "SELECT pg_catalog.to_jsonb(c) FROM migrator.control c WHERE c.change = $2::text"
)


def from_json(row: dict[str, Any] | None) -> Control:
    """Return the control that `QUESTION` read."""
    if row is None:
        return Control()
    return Control(
        mode=Mode(row["mode"]),
        reason=row["reason"],
        actor=row["actor"],
        limits=Limits(**{name: row[name] for name in _LIMITS}),
    )


def read(conn: Connection, change: str) -> Control:
    """Return what is said to a change."""
    row = conn.execute(
        "SELECT to_jsonb(c) AS row FROM migrator.control c WHERE change = %s",
        (change,),
    ).fetchone()
    return from_json(row["row"] if row else None)


def say(conn: Connection, change: str, mode: Mode, reason: str) -> None:
    """Enter a mode, with an event."""
    with conn.transaction():
        conn.execute(
            "INSERT INTO migrator.control (change, mode, reason) VALUES (%s, %s, %s)"
            " ON CONFLICT (change) DO UPDATE SET mode = EXCLUDED.mode,"
            " reason = EXCLUDED.reason, actor = session_user, at = clock_timestamp()",
            (change, mode.value, reason),
        )
        store.event(conn, change, mode.value, reason=reason)


def limit(conn: Connection, change: str, limits: Limits) -> None:
    """Enter limits; those that are None stay as they were."""
    given = {n: v for n in _LIMITS if (v := getattr(limits, n)) is not None}
    with conn.transaction():
        conn.execute(
            "INSERT INTO migrator.control (change) VALUES (%s) ON CONFLICT DO NOTHING",
            (change,),
        )
        conn.execute(
            "UPDATE migrator.control SET"
            " max_rows_per_s = COALESCE(%(max_rows_per_s)s, max_rows_per_s),"
            " max_wal_bytes_per_s ="
            " COALESCE(%(max_wal_bytes_per_s)s, max_wal_bytes_per_s),"
            " target_ms = COALESCE(%(target_ms)s, target_ms),"
            " workers = COALESCE(%(workers)s, workers),"
            " actor = session_user, at = clock_timestamp() WHERE change = %(change)s",
            {**dict.fromkeys(_LIMITS), **given, "change": change},
        )
        store.event(conn, change, "throttle", **given)


def unlimited(conn: Connection, change: str) -> None:
    """Take all limits back, with an event."""
    with conn.transaction():
        conn.execute(
            "UPDATE migrator.control SET max_rows_per_s = NULL,"
            " max_wal_bytes_per_s = NULL, target_ms = NULL, workers = NULL,"
            " actor = session_user, at = clock_timestamp() WHERE change = %s",
            (change,),
        )
        store.event(conn, change, "throttle", off=True)


def require_running(conn: Connection, change: str) -> None:
    """
    Refuse to start what somebody paused or aborted.

    Raises:
        Held: names who did, and why.
    """
    found = read(conn, change)
    if found.mode is not Mode.RUN:
        raise Held(
            f"{change} is held: {found.said}.",
            next=f"`migrator resume {change}` lets it run again.",
        )
