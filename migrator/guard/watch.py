"""Reads signals from a connection of its own, and keeps the worst verdict."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg

from migrator.errors import MigratorError
from migrator.events import EventKind, Tell, untold
from migrator.guard.policy import Action, Policy, Thresholds, Verdict
from migrator.guard.signal import Signal, Subject, UnavailableError
from migrator.ledger import control, store
from migrator.postgres.connection import (
    Connection,
    Target,
    configure,
    connect,
    is_pooled,
    said,
    transaction,
)

log = logging.getLogger(__name__)

# A signal is not readable where it takes longer than this, in ms: the others wait
# for it.
READ_MS = 5000
# Looks that may be missed, and seconds at least, before the last verdict counts no
# more.
MISSED = 10
STALE_S = 10.0


@contextmanager
def _briefly(conn: Connection, name: str) -> Iterator[None]:
    """Read a signal in a transaction of its own, which ends in time."""
    with transaction(
        conn,
        lock_timeout_ms=READ_MS,
        statement_timeout_ms=READ_MS,
        what=f"signal {name}",
    ):
        yield


def unavailable(
    conn: Connection, policy: Policy, subject: Subject
) -> list[tuple[str, str]]:
    """Return the signals that cannot be read here, each with the reason."""
    found: list[tuple[str, str]] = []
    for signal in policy.signals():
        try:
            with _briefly(conn, signal.name):
                signal.read(conn, subject)
        except UnavailableError as error:
            found.append((signal.name, str(error)))
        except psycopg.Error as error:
            if conn.closed or conn.broken:
                raise
            found.append((signal.name, said(error)))
    return found


@dataclass(slots=True)
class Watch:
    """
    Watches while a backfill runs.

    A signal that was readable and no longer is pauses the work, and so does a look
    that does not come to its end; one that never was readable is left out: the plan
    names it, and the log where it was not so by then.

    Args:
        target: for a connection of its own.
        policy: what is watched.
        subject: the table.
        change: its id, for the log of events.
        tell: given what a verdict does to the change.
    """

    target: Target
    policy: Policy
    subject: Subject
    change: str
    tell: Tell = untold
    _verdict: Verdict = field(default_factory=Verdict)
    _mode: control.Mode = control.Mode.RUN
    _known: set[str] = field(default_factory=set[str])
    #: The signal that is being read, and when the last look ended.
    _at: str = ""
    _looked: float = field(default_factory=time.monotonic)
    #: The last verdict that the log has, and those that it has not yet: there was no
    #: connection.
    _entered: Verdict = field(default_factory=Verdict)
    _unsaid: list[Verdict] = field(default_factory=list[Verdict])
    #: Whether the log has what is not watched.
    _begun: bool = False
    _stop: threading.Event = field(default_factory=threading.Event)
    _ready: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> "Watch":
        """Look once, then go on looking."""
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        try:
            # What hangs is told by the verdict.
            self._ready.wait(self._patience_s)
        except BaseException:
            # Ctrl-C: nobody leaves what was not entered.
            self._stop.set()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop looking."""
        self._stop.set()
        if self._thread is not None:
            # A read that hangs is left to its connection's end.
            self._thread.join(READ_MS / 1000)

    @property
    def halted(self) -> bool:
        """Whether signals or people let the change wait, or end it."""
        paused = self.verdict.action.rank >= Action.PAUSE.rank
        return paused or self._mode is not control.Mode.RUN

    @property
    def verdict(self) -> Verdict:
        """What the backfill should do now."""
        if self.policy.observe:
            return Verdict()
        return self._stale() or self._verdict

    @property
    def _patience_s(self) -> float:
        return max(self.policy.interval_s * MISSED, STALE_S)

    def _stale(self) -> Verdict | None:
        """Return what follows where no look has ended for long."""
        passed = time.monotonic() - self._looked
        if passed < self._patience_s:
            return None
        return Verdict(
            action=Action.PAUSE,
            signal=self._at or "signals",
            reason=f"no signal was read for {passed:.0f} s"
            + (f", as {self._at} does not answer" if self._at else ""),
        )

    def _work(self) -> None:
        signals = self.policy.signals()
        conn: Connection | None = None
        try:
            while not self._stop.is_set():
                try:
                    conn = conn or self._connected()
                    self._look(conn, signals)
                except (psycopg.Error, MigratorError) as error:
                    log.warning("the guard lost its connection: %s", error)
                    if conn is not None:
                        conn.close()
                    conn = None
                    self._take(_lost("signals", str(error).split("\n")[0]))
                self._ready.set()
                self._stop.wait(self.policy.interval_s)
        finally:
            self._ready.set()
            if conn is not None:
                conn.close()

    def _connected(self) -> Connection:
        conn = connect(self.target, "migrator:guard")
        if not is_pooled(conn):
            # Behind a pooler the age of the last look tells.
            configure(conn, {"statement_timeout": str(READ_MS)}, local=False)
        return conn

    def _look(self, conn: Connection, signals: list[Signal]) -> None:
        unread: dict[str, str] = {}
        verdicts = [self._of(conn, signal, unread) for signal in signals]
        worst = max(verdicts, key=lambda v: v.action.rank, default=Verdict())
        if self._stop.is_set():
            return
        if late := self._stale():
            self._unsaid.append(late)
        self._take(worst)
        while self._unsaid:
            self._enter(conn, self._unsaid[0])
            del self._unsaid[0]
        self._mode = control.read(conn, self.change).mode
        if not self._begun:
            self._left_out(conn, unread)
            self._begun = True

    def _left_out(self, conn: Connection, unread: dict[str, str]) -> None:
        """Enter what is not watched, once: a plan of long ago may not have it."""
        known = [
            e["detail"]
            for e in store.events(conn, self.change)
            if e["kind"] == "unwatched"
        ]
        for name, why in unread.items():
            if {"signal": name, "why": why} not in known:
                store.event(conn, self.change, "unwatched", signal=name, why=why)

    def _of(self, conn: Connection, signal: Signal, unread: dict[str, str]) -> Verdict:
        self._at = signal.name
        try:
            value, behind = signal.read(conn, self.subject)
        except psycopg.Error as error:
            if conn.closed or conn.broken:
                raise
            why = said(error)
        except UnavailableError as error:
            why = str(error)
        else:
            self._known.add(signal.name)
            bounds = self.policy.thresholds.get(signal.name, Thresholds())
            return bounds.verdict(signal, value, behind)
        if signal.name in self._known:
            return _lost(signal.name, why)
        unread[signal.name] = why
        return Verdict()

    def _take(self, verdict: Verdict) -> None:
        """Take over what a look found; it is entered once there is a connection."""
        self._verdict = verdict
        self._at, self._looked = "", time.monotonic()
        last = self._unsaid[-1] if self._unsaid else self._entered
        if (last.action, last.signal) != (verdict.action, verdict.signal):
            self._unsaid.append(verdict)

    def _enter(self, conn: Connection, verdict: Verdict) -> None:
        """Enter a verdict, and tell what it does to the change."""
        store.event(
            conn,
            self.change,
            "guard",
            action=verdict.action.value,
            reason=verdict.reason,
            mode="observe" if self.policy.observe else "act",
        )
        self._entered = verdict
        if self.policy.observe:
            return
        if verdict.action is Action.ABORT:
            control.say(conn, self.change, control.Mode.ABORT, verdict.reason)
        detail = {"by": "signal", "signal": verdict.signal}
        self.tell(_TOLD[verdict.action], {**detail, "reason": verdict.reason})


_TOLD = {
    Action.GO: EventKind.RESUME,
    Action.THROTTLE: EventKind.THROTTLE,
    Action.PAUSE: EventKind.PAUSE,
    Action.ABORT: EventKind.ABORT,
}


def _lost(name: str, why: str) -> Verdict:
    return Verdict(
        action=Action.PAUSE,
        signal=name,
        reason=f"{name} could be read and no longer can: {why}",
    )
