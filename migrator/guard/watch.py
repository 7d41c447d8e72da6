"""Reads signals from a connection of its own, and keeps the worst verdict."""

import logging
import threading
from dataclasses import dataclass, field

import psycopg

from migrator.errors import MigratorError
from migrator.events import EventKind, Tell, untold
from migrator.guard.policy import Action, Policy, Thresholds, Verdict
from migrator.guard.signal import Signal, Subject, UnavailableError
from migrator.ledger import control, store
from migrator.postgres.connection import Connection, Target, connect

log = logging.getLogger(__name__)


def unavailable(
    conn: Connection, policy: Policy, subject: Subject
) -> list[tuple[str, str]]:
    """Return the signals that cannot be read here, each with the reason."""
    found: list[tuple[str, str]] = []
    for signal in policy.signals():
        try:
            signal.read(conn, subject)
        except UnavailableError as error:
            found.append((signal.name, str(error)))
        except psycopg.Error as error:
            found.append((signal.name, str(error).split("\n")[0]))
    return found


@dataclass(slots=True)
class Watch:
    """
    Watches while a backfill runs.

    A signal that was readable and no longer is pauses the work; one that never
    was is left out: the plan names it.

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
    _stop: threading.Event = field(default_factory=threading.Event)
    _ready: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> "Watch":
        """Look once, then go on looking."""
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        try:
            self._ready.wait()
        except BaseException:
            # Ctrl-C: nobody leaves what was not entered.
            self._stop.set()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop looking."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    @property
    def halted(self) -> bool:
        """Whether signals or people let the change wait, or end it."""
        paused = self.verdict.action.rank >= Action.PAUSE.rank
        return paused or self._mode is not control.Mode.RUN

    @property
    def verdict(self) -> Verdict:
        """What the backfill should do now."""
        return Verdict() if self.policy.observe else self._verdict

    def _work(self) -> None:
        signals = self.policy.signals()
        conn: Connection | None = None
        try:
            while not self._stop.is_set():
                try:
                    conn = conn or connect(self.target, "migrator:guard")
                    self._look(conn, signals)
                except (psycopg.OperationalError, MigratorError) as error:
                    log.warning("the guard lost its connection: %s", error)
                    conn = None
                    self._enter(None, _lost("signals", str(error)))
                self._ready.set()
                self._stop.wait(self.policy.interval_s)
        finally:
            self._ready.set()
            if conn is not None:
                conn.close()

    def _look(self, conn: Connection, signals: list[Signal]) -> None:
        verdicts = [self._of(conn, signal) for signal in signals]
        worst = max(verdicts, key=lambda v: v.action.rank, default=Verdict())
        self._enter(conn, worst)
        self._mode = control.read(conn, self.change).mode

    def _of(self, conn: Connection, signal: Signal) -> Verdict:
        try:
            value, behind = signal.read(conn, self.subject)
        except psycopg.OperationalError:
            raise
        except (UnavailableError, psycopg.Error) as error:
            if signal.name in self._known:
                return _lost(signal.name, str(error).split("\n")[0])
            return Verdict()
        self._known.add(signal.name)
        bounds = self.policy.thresholds.get(signal.name, Thresholds())
        return bounds.verdict(signal, value, behind)

    def _enter(self, conn: Connection | None, verdict: Verdict) -> None:
        """Take a verdict over; an event where it differs from the last."""
        before, self._verdict = self._verdict, verdict
        same = (before.action, before.signal) == (verdict.action, verdict.signal)
        if conn is not None and not same:
            store.event(
                conn,
                self.change,
                "guard",
                action=verdict.action.value,
                reason=verdict.reason,
                mode="observe" if self.policy.observe else "act",
            )
            if verdict.action is Action.ABORT and not self.policy.observe:
                control.say(conn, self.change, control.Mode.ABORT, verdict.reason)
            if not self.policy.observe:
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
