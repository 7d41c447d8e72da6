"""One worker: takes windows, and does them chunk by chunk."""

import random
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from migrator.backfill.brake import LOOK_S, Brake, Reading
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

# Blocks of a window: 16 MB. Pages that one stride has visited are still in memory
# for the next, and a chunk's round trips are small beside its work.
WINDOW_BLOCKS = 2048
# Blocks of a window, and of a chunk of it, where workers share the table: the
# time between two visits of a page has to be longer than another worker's chunk,
# or its snapshot keeps the first visit's dead rows from being pruned.
SHARED_WINDOW_BLOCKS = 8192
SHARED_CHUNK_BLOCKS = 512
# Windows for each worker at least, so that none is idle for long at the end.
WINDOWS_PER_WORKER = 4
# Times the target after which a chunk is ended by the server and split. With the
# wait for a lock, 200 + 4 x 100 ms, it stays under deadlock_timeout (1 s unless
# configured), so that the application is not the victim of a deadlock with it.
LATE = 4.0
# Seconds between two tries of a chunk that met a lock: doubled up to the second.
FIRST_PAUSE_S = 0.02
LAST_PAUSE_S = 2.0


@dataclass(frozen=True, slots=True)
class Chunk:
    """
    What a worker tells: a committed chunk, or why it waits.

    `workers` is how many of them the change may have, None where nobody said.
    """

    blocks: int = 0
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
    tell: Callable[[Chunk], None]
    stop: threading.Event
    verdict: Callable[[], Verdict]
    _reading: Reading = field(default_factory=Reading)

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
            lambda reason: self.tell(Chunk(waiting=reason)),
            self.verdict,
        )
        most = SHARED_CHUNK_BLOCKS if self._shared else WINDOW_BLOCKS
        pace = Pace(self.settings.target_ms, most)
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

    def _strides(self) -> int:
        if isinstance(self.work, ChunkedUpdate):
            return self.work.chunking.stride
        return 1

    @property
    def _shared(self) -> bool:
        return self.settings.workers > 1 and self._strides() > 1

    def _window_blocks(self) -> int:
        if not self._shared:
            return WINDOW_BLOCKS
        windows = self.settings.workers * WINDOWS_PER_WORKER
        share = (self.row.end_block or 0) // windows
        return min(max(share, WINDOW_BLOCKS), SHARED_WINDOW_BLOCKS)

    def _claim(self) -> Window | None:
        with self._transaction("the next window"):
            self.lease.check(self.conn)
            return windows.claim(
                self.conn, self.row.id, self._window_blocks(), self.lease.token
            )

    @property
    def _limits(self) -> Limits:
        return self._reading.control.limits

    def _window(self, window: Window, pace: Pace, brake: Brake) -> None:
        for stride in range(self._strides()):
            self._pass(window, stride, pace, brake)
        with self._transaction("the end of a window"):
            self.lease.check(self.conn)
            if not self.stop.is_set() and not windows.finish(self.conn, window):
                raise self._taken(window)

    def _pass(self, window: Window, stride: int, pace: Pace, brake: Brake) -> None:
        """Go over a window once; each chunk is tried again where it meets locks."""
        last = stride == self._strides() - 1
        start, pause, since = window.start, FIRST_PAUSE_S, time.monotonic()
        while start < window.stop and not self.stop.is_set():
            blocks = min(pace.blocks, window.stop - start)
            began = time.monotonic()
            try:
                rows = self._chunk(window, start, start + blocks, stride)
            except RETRIED as error:
                if time.monotonic() - since > self.settings.step_budget_s:
                    raise self._locked(start, start + blocks) from error
                pace.split()
                self.tell(Chunk(waiting="rows are locked"))
                time.sleep(random.uniform(0, pause))
                pause = min(pause * 2, LAST_PAUSE_S)
                continue
            except Failed as error:
                if "statement timeout" not in str(error) or blocks == 1:
                    raise
                pace.split()
                continue
            seconds = time.monotonic() - began
            self._fit(pace, blocks, rows, seconds)
            done = blocks if last else 0
            self.tell(Chunk(done, rows, workers=self._limits.workers))
            self._reading = brake.after(rows, seconds, self._reading, self._look)
            start, pause, since = start + blocks, FIRST_PAUSE_S, time.monotonic()

    def _fit(self, pace: Pace, blocks: int, rows: int, seconds: float) -> None:
        """Fit the next chunk to the target, and to a second's share of a limit."""
        pace.target_ms = self._limits.target_ms or self.settings.target_ms
        pace.took(blocks, seconds * 1000)
        if self._limits.max_rows_per_s is not None:
            share = self._limits.max_rows_per_s / max(self._reading.workers, 1)
            if rows > share:
                pace.blocks = max(1, int(blocks * share / rows))

    def _chunk(self, window: Window, start: int, stop: int, stride: int) -> int:
        """
        Do blocks `start` to `stop` (not included), with their bookkeeping.

        Returns:
            Rows changed, or found out of step.
        """
        what = f"Blocks {start} to {stop} of table {self.work.table}"
        with (
            translated(
                what,
                "Earlier chunks are committed.",
                "run the same command again; it goes on from here.",
            ),
            self._transaction(what),
        ):
            self._require_ready()
            rows, mismatches = self._done([f"({start},0)", f"({stop},0)"], stride)
            if not windows.advance(self.conn, window, rows, mismatches):
                raise self._taken(window)
            return rows

    def _done(self, blocks: list[str], stride: int) -> tuple[int, int]:
        """Run a chunk's statements; return rows touched, and rows left apart."""
        work = self.work
        if isinstance(work, ChunkedUpdate):
            if stride == work.chunking.stride - 1:
                return execute_stored(self.conn, work.statement, blocks).rowcount, 0
            params = [*blocks, stride]
            return execute_stored(self.conn, work.strided, params).rowcount, 0
        found = int(ask(self.conn, work.count, blocks))
        if not found or work.repair is None:
            return found, found
        execute_stored(self.conn, work.repair, blocks)
        return found, int(ask(self.conn, work.count, blocks))

    def _require_ready(self) -> None:
        """Read what must hold in each chunk, in one question."""
        guard = self.work.guard or "SELECT true"
        ready = execute_stored(
            self.conn,
            "SELECT pg_catalog.pg_relation_filenode($1::pg_catalog.regclass) AS node,"
            f" ({guard}) AS guarded, {self.lease.question} AS held, {_READ}",
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
            f"Blocks {window.start} to {window.stop} of table {self.work.table} were"
            " given to another worker.",
            state="This chunk was rolled back.",
            next="leave it to the other one.",
        )

    def _locked(self, start: int, stop: int) -> LockBudgetError:
        return LockBudgetError(
            f"Step '{self.row.step.name}' on table {self.work.table} found rows of"
            f" blocks {start} to {stop} locked for"
            f" {self.settings.step_budget_s:.0f} s.",
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
