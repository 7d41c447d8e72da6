"""Verdicts in the log of events: entered by who watches, read by who asks."""

from dataclasses import dataclass, field
from datetime import datetime

from migrator.guard.policy import Action, Verdict
from migrator.ledger import store
from migrator.ledger.control import Mode
from migrator.postgres.connection import Connection

KIND = "guard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """
    A verdict as the log has it.

    Args:
        verdict: go where there is none.
        id: the event's; 0 where there is none.
        at: since when, by the server's clock; None where there is none.
    """

    verdict: Verdict = field(default_factory=Verdict)
    id: int = 0
    at: datetime | None = None


def enter(conn: Connection, change: str, verdict: Verdict, *, observe: bool) -> Entry:
    """
    Enter a verdict.

    Args:
        conn: the connection.
        change: the change's id.
        verdict: what follows from the signals now.
        observe: whether verdicts are recorded without acting on them.
    """
    unread = {"unread": True} if verdict.unread else {}
    entered = store.event(
        conn,
        change,
        KIND,
        action=verdict.action.value,
        signal=verdict.signal,
        reason=verdict.reason,
        mode="observe" if observe else "act",
        **unread,
    )
    return Entry(verdict=verdict, id=entered)


def last(conn: Connection, change: str) -> Entry:
    """Return a change's last verdict."""
    found = store.last_event(conn, change, KIND)
    if found is None:
        return Entry()
    detail = found["detail"]
    action = Action(detail["action"])
    return Entry(
        verdict=Verdict(
            action=action,
            # Earlier releases did not enter it.
            signal=detail.get("signal", ""),
            reason=detail["reason"],
            observed=detail["mode"] == "observe" and action is not Action.GO,
            unread=detail.get("unread", False),
        ),
        id=found["id"],
        at=found["at"],
    )


def is_resumed(conn: Connection, change: str, entry: Entry) -> bool:
    """Tell whether a person said `resume` after a verdict was entered."""
    found = store.last_event(conn, change, Mode.RUN.value)
    return found is not None and found["id"] > entry.id
