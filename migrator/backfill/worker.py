"""One worker: takes windows, and does them chunk by chunk."""

import random
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from migrator.backfill.brake import LOOK_S, Brake, Reading
from migrator.backfill.order import Chunk, Order, Place, order_of
from migrator.backfill.pace import Pace
from migrator.errors import Failed, Fenced, LockBudgetError
from migrator.guard import Verdict
from migrator.ledger import control, windows
from migrator.ledger.control import Limits
from migrator.ledger.lease import Lease
from migrator.ledger.store import StepRow
from migrator.ledger.windows import Window
from migrator.plan import ChunkedCheck, ChunkedUpdate
from migrator.postgres.connection import (
    RETRIED,
    Connection,
    ask,
    execute_stored,
    transaction,
    translated,
)
from migrator.settings import Settings

# Times the target after which a chunk is ended by the server and split. With the
# wait for a lock, 200 + 4 x 100 ms, it stays under deadlock_timeout (1 s unless
# configured), so that the application is not the victim of a deadlock with it.
LATE = 4.0
# Seconds between two tries of a chunk that met a lock: doubled up to the second.
FIRST_PAUSE_S = 0.02
LAST_PAUSE_S = 2.0


@dataclass(frozen=True, slots=True)
class Report:
    """
    What a worker tells: a committed chunk, or why it waits.

    `size` counts blocks, or rows where it goes by keys. `workers` is how many of
    them the change may have, None where nobody said.
    """

    size: int = 0
    rows: int = 0
    waiting: str = ""
    workers: int | None = None


# What is read with each chunk; $2 is the change, $3 the step.
_READ = (
    f"({control.QUESTION}) AS control, (SELECT count(*) FROM migrator.windows"
    " WHERE step = $3::bigint) AS workers,"
    " pg_catalog.pg_current_wal_insert_lsn() - '0/0' AS wal"
)


def _reading(row: Mapping[str, Any]) -> Reading:
    return Reading(
        control=control.from_json(row["control"]),
        workers=int(row["workers"]),
        wal_bytes=int(row["wal"]),
        at_s=time.monotonic(),
    )


class _ReplacedError(Exception):
    """The table's file is another one: blocks mean nothing any more."""


@dataclass(slots=True, kw_only=True)
class Worker:
    """
    One connection at work on a step's windows.

    Args:
        conn: its own.
        number: among this process's workers, from 0.
        change: its id.
        lease: under which windows are taken.
        row: the step.
        work: what is done in each chunk.
        settings: pace and budgets.
        tell: called after each chunk.
        stop: ends the work after the chunk under way.
        verdict: of the live signals.
    """

    conn: Connection
    number: int
    change: str
    lease: Lease
    row: StepRow
    work: ChunkedUpdate | ChunkedCheck
    settings: Settings
    tell: Callable[[Report], None]
    stop: threading.Event
    verdict: Callable[[], Verdict]
    _reading: Reading = field(default_factory=Reading)
    _order: Order = field(init=False)

    def __post_init__(self) -> None:
        """Find out how to go over the table."""
        self._order = order_of(self.work, self.settings.workers)

    def run(self) -> None:
        """
        Take windows until none is left to be given out.

        Returns also where the table's file was replaced: a new pass is needed.

        Raises:
            Failed: the dual write is off, or the server refused a chunk.
            LockBudgetError: a chunk found rows locked for the whole budget.
            Fenced: another process has taken over.
            Held: somebody aborted the change.
        """
        brake = Brake(
            self.change,
            self.stop,
            lambda reason: self.tell(Report(waiting=reason)),
            self.verdict,
        )
        pace = Pace(self.settings.target_ms, self._order.most, self._order.first)
        try:
            while not self.stop.is_set():
                if self.number >= (self._limits.workers or self.settings.workers):
                    if not windows.is_open(self.conn, self.row.id):
                        return
                    self.stop.wait(LOOK_S)
                    self._reading = self._look()
                    continue
                window = self._claim()
                if window is None:
                    return
                self._window(window, pace, brake)
        except _ReplacedError:
            return

    def _claim(self) -> Window | None:
        size = self._order.window(self.row.end_block or 0)
        with self._transaction("the next window"):
            self.lease.check(self.conn)
            return windows.claim(
                self.conn,
                self.row.id,
                size,
                self.lease.token,
                self._order.cut(self.conn, size),
            )

    @property
    def _limits(self) -> Limits:
        return self._reading.control.limits

    def _window(self, window: Window, pace: Pace, brake: Brake) -> None:
        for stride in range(self._order.strides):
            self._pass(window, stride, pace, brake)
        with self._transaction("the end of a window"):
            self.lease.check(self.conn)
            if not self.stop.is_set() and not windows.finish(self.conn, window):
                raise self._taken(window)

    def _pass(self, window: Window, stride: int, pace: Pace, brake: Brake) -> None:
        """Go over a window once; each chunk is tried again where it meets locks."""
        last = stride == self._order.strides - 1
        at, pause, since = self._order.start(window), FIRST_PAUSE_S, time.monotonic()
        while not self._order.ends(window, at) and not self.stop.is_set():
            began = time.monotonic()
            try:
                chunk, rows = self._chunk(window, at, pace.size, stride)
            except RETRIED as error:
                if time.monotonic() - since > self.settings.step_budget_s:
                    raise self._locked(window, at, pace.size) from error
                pace.split()
                self.tell(Report(waiting="rows are locked"))
                time.sleep(random.uniform(0, pause))
                pause = min(pause * 2, LAST_PAUSE_S)
                continue
            except Failed as error:
                if "statement timeout" not in str(error) or pace.size == 1:
                    raise
                pace.split()
                continue
            seconds = time.monotonic() - began
            self._fit(pace, chunk.size, rows, seconds)
            done = chunk.size if last else 0
            self.tell(Report(done, rows, workers=self._limits.workers))
            self._reading = brake.after(rows, seconds, self._reading, self._look)
            at, pause, since = chunk.stop, FIRST_PAUSE_S, time.monotonic()

    def _fit(self, pace: Pace, size: int, rows: int, seconds: float) -> None:
        """Fit the next chunk to the target, and to a second's share of a limit."""
        pace.target_ms = self._limits.target_ms or self.settings.target_ms
        pace.took(size, seconds * 1000)
        if self._limits.max_rows_per_s is not None:
            share = self._limits.max_rows_per_s / max(self._reading.workers, 1)
            if rows > share:
                pace.size = max(1, int(size * share / rows))

    def _chunk(
        self, window: Window, at: Place, size: int, stride: int
    ) -> tuple[Chunk, int]:
        """
        Do the chunk of a size that begins at a place, with its bookkeeping.

        Returns:
            The chunk, and its rows that were changed or found out of step.
        """
        what = f"A chunk of table {self.work.table}"
        with (
            translated(
                what,
                "Earlier chunks are committed.",
                "run the same command again; it goes on from here.",
            ),
            self._transaction(what),
        ):
            self._require_ready()
            chunk = self._order.chunk(self.conn, window, at, size)
            rows, mismatches = self._done(chunk.params, stride)
            if not windows.advance(self.conn, window, rows, mismatches):
                raise self._taken(window)
            return chunk, rows

    def _done(self, given: list[Any], stride: int) -> tuple[int, int]:
        """Run a chunk's statements; return rows touched, and rows left apart."""
        work = self.work
        if isinstance(work, ChunkedUpdate):
            if stride == work.chunking.stride - 1:
                return execute_stored(self.conn, work.statement, given).rowcount, 0
            params = [*given, stride]
            return execute_stored(self.conn, work.strided, params).rowcount, 0
        found = int(ask(self.conn, work.count, given))
        if not found or work.repair is None:
            return found, found
        execute_stored(self.conn, work.repair, given)
        return found, int(ask(self.conn, work.count, given))

    def _require_ready(self) -> None:
        """Read what must hold in each chunk, in one question."""
        guard = self.work.guard or "SELECT true"
        ready = execute_stored(
            self.conn,
            f"SELECT {self._order.file} AS node, ({guard}) AS guarded,"
            f" {self.lease.question} AS held, {_READ}",
            [str(self.work.table), self.change, self.row.id],
        ).fetchone()
        assert ready is not None
        self.lease.require(ready["held"])
        self._reading = _reading(ready)
        if ready["node"] != self.row.file_node:
            raise _ReplacedError
        if not ready["guarded"]:
            raise Failed(
                f"The dual-write trigger on table {self.work.table} is missing or not"
                " enabled ALWAYS: writes may be lost between the two sides.",
                state="Earlier chunks are committed; nothing runs on.",
                next="roll the change back, then expand again.",
            )

    def _look(self) -> Reading:
        """Read what people say, between chunks."""
        row = execute_stored(
            self.conn,
            f"SELECT $1::text AS of, {_READ}",
            ["", self.change, self.row.id],
        ).fetchone()
        assert row is not None
        return _reading(row)

    def _taken(self, window: Window) -> Fenced:
        return Fenced(
            f"A window of table {self.work.table} was given to another worker.",
            state="This chunk was rolled back.",
            next="leave it to the other one.",
        )

    def _locked(self, window: Window, at: Place, size: int) -> LockBudgetError:
        chunk = self._order.chunk(self.conn, window, at, size)
        return LockBudgetError(
            f"Step '{self.row.step.name}' found rows locked for"
            f" {self.settings.step_budget_s:.0f} s: {chunk.name}.",
            state="Earlier chunks are committed; it goes on from here.",
            next="end the transaction that holds them, then run the same command"
            " again.",
        )

    def _transaction(self, what: str) -> AbstractContextManager[None]:
        return transaction(
            self.conn,
            lock_timeout_ms=self.settings.lock_timeout_ms,
            # A statement's time includes its waits for locks.
            statement_timeout_ms=self.settings.lock_timeout_ms
            + int(self.settings.target_ms * LATE),
            what=what,
            # Data and bookkeeping go together, and the end of the pass waits.
            durable=False,
        )
