"""Reads signals from a connection of its own, and keeps the worst verdict."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import psycopg

from migrator.errors import MigratorError
from migrator.events import EventKind, Tell, untold
from migrator.guard import record
from migrator.guard.policy import Action, Policy, Thresholds, Verdict
from migrator.guard.record import Entry
from migrator.guard.signal import Signal, Subject, UnavailableError, finite
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


def _read(conn: Connection, signal: Signal, subject: Subject) -> tuple[float, str]:
    """
    Read a signal, whatever may go wrong with it.

    Raises:
        UnavailableError: it cannot be read, or its figure is no finite number.
        psycopg.Error: the connection is lost.
    """
    try:
        value, behind = signal.read(conn, subject)
    except UnavailableError:
        raise
    except psycopg.Error as error:
        if conn.closed or conn.broken:
            raise
        raise UnavailableError(said(error)) from error
    # What nobody thought of is no reason to go on unguarded. Its text is not told: it
    # may repeat what the user configured.
    except Exception as error:
        raise UnavailableError(f"reading it fails: {type(error).__name__}") from error
    return finite(value, "its figure"), behind


def unavailable(
    conn: Connection, policy: Policy, subject: Subject
) -> list[tuple[str, str]]:
    """Return the signals that cannot be read here, each with the reason."""
    found: list[tuple[str, str]] = []
    for signal in policy.signals():
        try:
            with _briefly(conn, signal.name):
                _read(conn, signal, subject)
        except UnavailableError as error:
            found.append((signal.name, str(error)))
    return found


@dataclass(slots=True)
class Watch:
    """
    Watches while a run goes over tables, one step after another.

    It keeps what signals remember, which of them were readable and the last verdict
    from step to step, and looks while a step is at work.

    A signal that was readable and no longer is pauses the work, and so does a look
    that does not come to its end. The pause ends once it can be read again, or by a
    person's `resume`, from which on it is left out. One that never was readable is
    left out from the start: the plan names it, and the log where it was not so by
    then.

    Args:
        target: for a connection of its own.
        policy: what is watched.
        change: its id, for the log of events.
        tell: given what a verdict does to the change.
    """

    target: Target
    policy: Policy
    change: str
    tell: Tell = untold
    _signals: list[Signal] = field(init=False)
    _verdict: Verdict = field(default_factory=Verdict)
    _mode: control.Mode = control.Mode.RUN
    #: Names of signals that were readable.
    _known: set[str] = field(default_factory=set[str])
    #: The signal that is being read, and when the last look ended.
    _at: str = ""
    _looked: float = field(default_factory=time.monotonic)
    #: The last verdict that the log has, None before it was looked for, and those that
    #: it has not yet: there was no connection.
    _entered: Entry | None = None
    _unsaid: list[Verdict] = field(default_factory=list[Verdict])
    #: Why the last look failed, which is told once; "" where it did not.
    _failed: str = ""
    #: Whether the log has what is not watched.
    _named: bool = False

    def __post_init__(self) -> None:
        """Make the signals."""
        self._signals = self.policy.signals()

    @contextmanager
    def over(self, subject: Subject) -> Iterator[None]:
        """
        Look once, then go on looking while a step goes over its table.

        Args:
            subject: the table.
        """
        stop, ready = threading.Event(), threading.Event()
        self._looked = time.monotonic()
        thread = threading.Thread(
            target=self._work, args=(subject, stop, ready), daemon=True
        )
        thread.start()
        try:
            # What hangs is told by the verdict.
            ready.wait(self._patience_s)
        except BaseException:
            # Ctrl-C: nobody waits for a read that hangs.
            stop.set()
            raise
        try:
            yield
        finally:
            stop.set()
            thread.join(READ_MS / 1000)
            if thread.is_alive():
                # A read that hangs is left to its connection's end, with its signals.
                self._signals = self.policy.signals()

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
        return self._seen(
            Verdict(
                action=Action.PAUSE,
                signal=self._at or "signals",
                reason=f"no signal was read for {passed:.0f} s"
                + (f", as {self._at} does not answer" if self._at else ""),
                unread=True,
            )
        )

    def _seen(self, verdict: Verdict) -> Verdict:
        """Return a verdict with whether it is only observed."""
        observed = self.policy.observe and verdict.action is not Action.GO
        return replace(verdict, observed=observed)

    def _work(
        self, subject: Subject, stop: threading.Event, ready: threading.Event
    ) -> None:
        conn: Connection | None = None
        try:
            while not stop.is_set():
                try:
                    conn = conn or self._connected()
                    self._look(conn, subject, stop)
                    self._failed = ""
                except Exception as error:
                    if conn is not None:
                        conn.close()
                    conn = None
                    if not stop.is_set():
                        why = _why(error)
                        if why != self._failed:
                            log.warning("the guard lost its connection: %s", why)
                        self._failed = why
                        self._take(_unread("signals", why))
                ready.set()
                stop.wait(self.policy.interval_s)
        finally:
            ready.set()
            if conn is not None:
                conn.close()

    def _connected(self) -> Connection:
        conn = connect(self.target, "migrator:guard")
        if not is_pooled(conn):
            # Behind a pooler the age of the last look tells.
            configure(conn, {"statement_timeout": str(READ_MS)}, local=False)
        return conn

    def _look(self, conn: Connection, subject: Subject, stop: threading.Event) -> None:
        if self._entered is None:
            # An earlier run may have left a pause there.
            self._entered = record.last(conn, self.change)
        unread: dict[str, str] = {}
        worst = Verdict()
        for signal in tuple(self._signals):
            found = self._of(conn, signal, subject, unread)
            # By then another look may be at work.
            if stop.is_set():
                return
            worst = max(worst, found, key=lambda v: v.action.rank)
        if late := self._stale():
            self._unsaid.append(late)
        self._take(worst)
        while self._unsaid:
            self._enter(conn, self._entered, self._unsaid[0])
            del self._unsaid[0]
        self._mode = control.read(conn, self.change).mode
        if not self._named:
            self._left_out(conn, unread)
            self._named = True

    def _left_out(self, conn: Connection, unread: dict[str, str]) -> None:
        """Enter what is not watched, once: a plan of long ago may not have it."""
        if not unread:
            return
        events = store.events(conn, self.change, "unwatched")
        known = [e["detail"] for e in events]
        for name, why in unread.items():
            if {"signal": name, "why": why} not in known:
                store.event(conn, self.change, "unwatched", signal=name, why=why)

    def _of(
        self,
        conn: Connection,
        signal: Signal,
        subject: Subject,
        unread: dict[str, str],
    ) -> Verdict:
        self._at = signal.name
        try:
            value, behind = _read(conn, signal, subject)
        except UnavailableError as error:
            if signal.name in self._known and not self._is_let_go(conn, signal):
                ends = f"waits until it can, or until `migrator resume {self.change}`"
                return _unread(signal.name, f"{error} ({ends})")
            unread[signal.name] = str(error)
            return Verdict()
        self._known.add(signal.name)
        bounds = self.policy.thresholds.get(signal.name, Thresholds())
        return bounds.verdict(signal, value, behind)

    def _is_let_go(self, conn: Connection, signal: Signal) -> bool:
        """Tell whether a person resumed what paused since a signal was not read."""
        entered = self._entered
        if entered is None or not record.is_resumed(conn, self.change, entered):
            return False
        verdict = entered.verdict
        if not verdict.unread or verdict.signal != signal.name:
            return False
        self._known.discard(signal.name)
        self._signals = [
            new if new.name == signal.name else old
            for old, new in zip(self._signals, self.policy.signals(), strict=True)
        ]
        self._named = False
        return True

    def _take(self, verdict: Verdict) -> None:
        """Take over what a look found; it is entered once there is a connection."""
        verdict = self._verdict = self._seen(verdict)
        self._at, self._looked = "", time.monotonic()
        entered = Verdict() if self._entered is None else self._entered.verdict
        if not verdict.is_as(self._unsaid[-1] if self._unsaid else entered):
            self._unsaid.append(verdict)

    def _enter(self, conn: Connection, last: Entry, verdict: Verdict) -> None:
        """Enter a verdict, and tell what it does to the change."""
        observe = self.policy.observe
        self._entered = record.enter(conn, self.change, verdict, observe=observe)
        if verdict.action is Action.ABORT and not observe:
            control.say(conn, self.change, control.Mode.ABORT, verdict.reason)
        detail = {"by": "signal", "signal": verdict.signal, "reason": verdict.reason}
        if not observe:
            self.tell(_TOLD[verdict.action], detail)
        elif last.verdict.action is not Action.GO and not last.verdict.observed:
            # An earlier run acted on it.
            self.tell(EventKind.RESUME, detail)


_TOLD = {
    Action.GO: EventKind.RESUME,
    Action.THROTTLE: EventKind.THROTTLE,
    Action.PAUSE: EventKind.PAUSE,
    Action.ABORT: EventKind.ABORT,
}


def _unread(name: str, why: str) -> Verdict:
    return Verdict(
        action=Action.PAUSE,
        signal=name,
        reason=f"{name} could be read and no longer can: {why}",
        unread=True,
    )


def _why(error: Exception) -> str:
    """Return why a look failed; of what nobody thought of, only its name."""
    if isinstance(error, psycopg.Error | MigratorError):
        return str(error).split("\n")[0]
    return type(error).__name__
