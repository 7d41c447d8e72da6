"""What a project is told of its changes: a command, and Python callables.

An event is told after its commit, by a thread of its own, in order; what listens
never stops the engine. Only before a phase begins (`before-…`) is an answer waited
for, which may hold it.
"""

import json
import logging
import os
import shlex
import subprocess
import threading
import tomllib
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from signal import SIGKILL
from socket import gethostname
from tempfile import TemporaryFile
from typing import Any

from migrator.errors import UsageError

log = logging.getLogger(__name__)

#: Entry points of this group are callables that take an `Event`.
GROUP = "migrator.events"
# The form of an event's JSON; grows when a key changes its meaning.
SCHEMA = 1
# Seconds that a listener gets for one event. A message to a chat takes one; a
# backup before a drop is made by a command that was given more.
TIME_LIMIT_S = 30.0
# Seconds between two events that tell how far a backfill is: often enough to be looked
# at, and some hundred in a backfill of hours.
PROGRESS_EVERY_S = 60.0
# Events that wait to be told; above it a listener is too slow to be of use, and
# later ones are left out.
WAITING = 1000
# Of the environment, what holds the database's password by custom.
SECRET = ("MIGRATOR_DATABASE_URL", "DATABASE_URL", "PGPASSWORD")
#: Overrides `command`; empty, no command is run.
VARIABLE = "MIGRATOR_EVENTS_COMMAND"


class EventKind(StrEnum):
    """What happened; the first three wait for an answer."""

    BEFORE_EXPAND = "before-expand"
    BEFORE_RETIRE = "before-retire"
    BEFORE_DROP = "before-drop"
    PHASE = "phase"
    STATE = "state"
    FINISHED = "finished"
    ROLLBACK = "rollback"
    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    THROTTLE = "throttle"
    PROGRESS = "progress"
    RETRY = "retry"
    HELD = "held"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """
    Something that happened to a change.

    Args:
        kind: what.
        change: the change's id.
        title: the change in one line, "" where that is not at hand.
        table: schema and name of what is changed; None where that is not at hand.
        detail: what else there is to say: texts and numbers.
        at: when, by this machine's clock.
        host: this machine's name.
    """

    kind: EventKind
    change: str
    title: str = ""
    table: tuple[str, str] | None = None
    detail: Mapping[str, Any] = field(default_factory=dict[str, Any])
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    host: str = field(default_factory=gethostname)

    def as_json(self) -> str:
        """Return one line of JSON."""
        return json.dumps(
            {
                "schema": SCHEMA,
                "event": self.kind,
                "change": self.change,
                "title": self.title,
                "table": self.table
                and dict(zip(("schema", "name"), self.table, strict=True)),
                "at": self.at.isoformat(),
                "host": self.host,
                "detail": dict(self.detail),
            }
        )


#: Given an event and why a listener failed of it.
Record = Callable[[Event, str], None]
#: Says what happened to the change at hand.
Tell = Callable[[EventKind, Mapping[str, Any]], None]


def untold(kind: EventKind, detail: Mapping[str, Any]) -> None:
    """Tell nobody."""


@dataclass(slots=True)
class Listeners:
    """
    Who is told.

    Args:
        command: run for each event, with its JSON on standard input.
        folder: where the command runs.
        time_limit_s: for one event; then the command is killed.
        callables: entry points, each called with the event.
        progress_every_s: between two events that tell how far a backfill is.
    """

    command: tuple[str, ...] = ()
    folder: Path = field(default_factory=Path)
    time_limit_s: float = TIME_LIMIT_S
    callables: tuple[EntryPoint, ...] = ()
    progress_every_s: float = PROGRESS_EVERY_S
    _waiting: deque[tuple[Event, Record]] = field(
        default_factory=deque[tuple[Event, Record]]
    )
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _thread: threading.Thread | None = None

    @classmethod
    def of_project(cls) -> "Listeners":
        """
        Return the listeners that `[tool.migrator.events]` and entry points name.

        Raises:
            UsageError: the section holds what there is not.
        """
        path = Path("pyproject.toml").absolute()
        stamp = path.stat().st_mtime_ns if path.is_file() else 0
        key = path, stamp, os.environ.get(VARIABLE)
        # One for all engines of a process, so that events stay in order.
        if key not in _KNOWN:
            _KNOWN[key] = _configured(path)
        return _KNOWN[key]

    def tell(self, event: Event, record: Record) -> None:
        """
        Tell an event soon, behind those told before; returns at once.

        Args:
            event: what happened, and is committed.
            record: called where a listener fails, from another thread.
        """
        if not self._anyone:
            return
        with self._changed:
            if len(self._waiting) >= WAITING:
                log.warning("%s of %s is left out", event.kind, event.change)
                return
            self._waiting.append((event, record))
            if self._thread is None:
                # Not a daemon: the process waits until all is told.
                self._thread = threading.Thread(target=self._work)
                self._thread.start()

    def ask(self, event: Event, record: Record) -> str | None:
        """
        Tell an event, behind those told before, and wait for the answer.

        Returns:
            Why the first listener says no, None where none does.
        """
        if not self._anyone:
            return None
        with self._changed:
            self._changed.wait_for(lambda: self._thread is None)
        return next(iter(self._told(event, record)), None)

    @property
    def _anyone(self) -> bool:
        return bool(self.command or self.callables)

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    self._thread = None
                    self._changed.notify_all()
                    return
                event, record = self._waiting.popleft()
            self._told(event, record)

    def _told(self, event: Event, record: Record) -> list[str]:
        """Tell all listeners; return what each that failed says."""
        answers = [self._run(event)] if self.command else []
        answers += [self._call(listener, event) for listener in self.callables]
        failures = [a for a in answers if a is not None]
        for failure in failures:
            log.warning("%s of %s: %s", event.kind, event.change, failure)
            try:
                record(event, failure)
            # Not to be recorded must not end the thread that tells.
            except Exception as error:
                log.warning("not recorded: %s", error)
        return failures

    def _run(self, event: Event) -> str | None:
        """Run the command; files, so that what it starts and leaves holds no pipe."""
        name = self.command[0]
        env = {k: v for k, v in os.environ.items() if k not in SECRET}
        env |= {"MIGRATOR_EVENT": event.kind, "MIGRATOR_CHANGE": event.change}
        with TemporaryFile() as given, TemporaryFile() as errors:
            given.write(f"{event.as_json()}\n".encode())
            given.seek(0)
            try:
                process = subprocess.Popen(
                    self.command,
                    cwd=self.folder,
                    env=env,
                    stdin=given,
                    # Standard output is for the answer of the command line.
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    start_new_session=True,
                )
            except OSError as error:
                return f"{name} cannot be run: {error.strerror}"
            try:
                code = process.wait(self.time_limit_s)
            except BaseException as error:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, SIGKILL)
                process.wait()
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                return f"{name} took longer than {self.time_limit_s:g} s"
            if code == 0:
                return None
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip().splitlines()
        return said[-1] if said else f"{name} ended with {code}"

    def _call(self, listener: EntryPoint, event: Event) -> str | None:
        """Call a listener in a thread, since nothing else ends one that hangs."""
        failures: list[str] = []

        def call() -> None:
            try:
                listener.load()(event)
            # Whatever somebody else's code raises.
            except Exception as error:
                failures.append(f"{listener.name}: {error or type(error).__name__}")

        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        thread.join(self.time_limit_s)
        if thread.is_alive():
            return f"{listener.name} took longer than {self.time_limit_s:g} s"
        return failures[0] if failures else None


_KNOWN: dict[tuple[Path, int, str | None], Listeners] = {}


def _configured(path: Path) -> Listeners:
    found: dict[str, Any] = {}
    if path.is_file():
        with suppress(tomllib.TOMLDecodeError):
            # The command line says what is wrong with the file.
            whole = tomllib.loads(path.read_text())
            found = whole.get("tool", {}).get("migrator", {}).get("events", {})
    given = os.environ.get(VARIABLE, found.pop("command", ""))
    seconds = {"time-limit-s": TIME_LIMIT_S, "progress-every-s": PROGRESS_EVERY_S}
    for name in seconds:
        value = found.pop(name, seconds[name])
        if not isinstance(value, int | float) or value <= 0:
            raise _wrong(f"a {name} that is no number of seconds")
        seconds[name] = float(value)
    if found:
        raise _wrong(f"a setting {next(iter(found))!r} that there is not")
    try:
        command = shlex.split(given)
    except (AttributeError, ValueError):
        raise _wrong("a command that cannot be read") from None
    return Listeners(
        command=tuple(command),
        folder=path.parent,
        time_limit_s=seconds["time-limit-s"],
        callables=tuple(entry_points(group=GROUP)),
        progress_every_s=seconds["progress-every-s"],
    )


def _wrong(what: str) -> UsageError:
    return UsageError(
        f"[tool.migrator.events] has {what}.",
        next='write command = "./notify.sh" and, if need be, time-limit-s = 60.',
    )
