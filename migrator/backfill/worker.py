"""One worker: takes windows, and does them chunk by chunk."""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg

from migrator.backfill.bounds import Bounds, bounds
from migrator.backfill.brake import LOOK_S, Brake, Reading
from migrator.backfill.keeper import Keeper
from migrator.backfill.order import Chunk, Order, Place, order_of
from migrator.backfill.pace import Pace, gentle_ms
from migrator.backfill.patience import Patience
from migrator.backfill.statements import run, unguarded
from migrator.errors import Failed, Fenced
from migrator.guard import Verdict
from migrator.kernels.chunking import HELD_S
from migrator.ledger import control, failures, mismatches, samples, windows
from migrator.ledger.control import Limits
from migrator.ledger.lease import Lease
from migrator.ledger.mismatches import Mismatch
from migrator.ledger.store import StepRow
from migrator.ledger.windows import Advance, Window
from migrator.plan import GONE, ChunkedCheck, ChunkedUpdate, Upkeep
from migrator.postgres import blocking, catalog
from migrator.postgres.connection import (
    RETRIED,
    Connection,
    ask,
    execute_stored,
    said,
    told,
    transaction,
    translated,
)
from migrator.settings import Settings


@dataclass(frozen=True, slots=True)
class Report:
    """
    What a worker tells: a committed chunk, or what it waits for.

    `size` counts blocks, or rows where it goes by keys; a share of them where a
    window is gone over several times. `seconds` is how long the chunk took,
    `waited_s` how long it waits now.
    `workers` is how many of them the process may have by now, None where that was
    not read.
    `paused` is why the change was paused: too many chunks failed. `failed` is what
    a chunk failed of, which is tried again.
    """

    size: float = 0
    rows: int = 0
    seconds: float = 0.0
    waiting: str = ""
    waited_s: float = 0.0
    paused: str = ""
    failed: str = ""
    workers: int | None = None
    mismatches: tuple[Mismatch, ...] = ()


# What is read with each chunk; $2 is the change, $3 the step.
_READ = (
    f"({control.QUESTION}) AS control, ({windows.AT_WORK}) AS workers,"
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


class _LateError(Exception):
    """A chunk was ended by the server since it took too long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Done:
    """
    A chunk that is committed.

    Args:
        chunk: what it was.
        report: what is told of it.
        work_s: how long its own statements took.
        wal_bytes: WAL written meanwhile.
    """

    chunk: Chunk
    report: Report
    work_s: float
    wal_bytes: int


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
        error_budget: chunks that may fail within ten minutes; None sets no bound.
        tell: called after each chunk.
        stop: ends the work after the chunk under way.
        verdict: of the live signals.
        halted: whether signals or people let the change wait.
    """

    conn: Connection
    number: int
    change: str
    lease: Lease
    row: StepRow
    work: ChunkedUpdate | ChunkedCheck
    settings: Settings
    error_budget: int | None
    tell: Callable[[Report], None]
    stop: threading.Event
    verdict: Callable[[], Verdict]
    halted: Callable[[], bool]
    _reading: Reading = field(default_factory=Reading)
    #: After how many ms a session of the server looks for deadlocks.
    _deadlock_ms: int = field(init=False)
    _order: Order = field(init=False)
    _pace: Pace = field(init=False)
    _brake: Brake = field(init=False)
    _keeper: Keeper | None = field(init=False)
    _window: Window | None = None
    #: Since the last chunk that was committed.
    _busy_ms: float = 0.0
    _waited_ms: float = 0.0
    _said: str = ""
    #: Of all its chunks, in ms, and in blocks or rows.
    _done_ms: float = 0.0
    _done_size: float = 0.0
    _sampled: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        """Find out how to go over the table."""
        self._order = order_of(self.work, self.settings.workers)
        # What the last run found out, less what may have changed since.
        first = max(self._order.first, (self.row.chunk or 0) // 2)
        most = self._order.most
        self._deadlock_ms = blocking.deadlock_timeout_ms(self.conn)
        self._pace = Pace(self._bounds.target_ms, most, min(first, most))
        self._brake = Brake(self.change, self.stop, self._waits, self.verdict)
        upkeep = self.work.upkeep if isinstance(self.work, ChunkedUpdate) else None
        self._keeper = None if upkeep is None else self._kept(upkeep)

    def _kept(self, upkeep: Upkeep) -> Keeper:
        return Keeper(
            conn=self.conn,
            change=self.change,
            table=str(self.work.table),
            upkeep=upkeep,
            ended=lambda: self.stop.is_set() or self.halted(),
            tell=lambda what: self.tell(Report(waiting=what)),
        )

    def run(self) -> bool:
        """
        Take windows until none is left to be given out.

        Returns:
            Whether it went since people want fewer workers; not where nothing is left,
            or where the table's file was replaced, so that a new pass is needed.

        Raises:
            Failed: the dual write is off, or the server refused a chunk.
            LockBudgetError: a chunk found rows locked for the whole budget.
            Fenced: another process has taken over.
            Held: somebody aborted the change.
        """
        self._reading = self._look()
        try:
            while not self.stop.is_set() and not self._dismissed:
                self._window = self._claim()
                if self._window is None:
                    return False
                self._work(self._window)
        except _ReplacedError:
            return False
        return self._dismissed

    @property
    def _limits(self) -> Limits:
        return self._reading.control.limits

    @property
    def _wanted(self) -> int:
        """How many workers the process may have."""
        return self._limits.workers or self.settings.workers

    @property
    def _dismissed(self) -> bool:
        """Whether people want fewer workers than there are with this one."""
        return self.number >= self._wanted

    def _claim(self) -> Window | None:
        size = self._order.window(self.row.end_block or 0)
        patience = self._patience()
        while not self.stop.is_set():
            try:
                with self._transaction("the next window"):
                    self.lease.check(self.conn)
                    return windows.claim(
                        self.conn,
                        self.row.id,
                        size,
                        self.lease.token,
                        self._order.cut(self.conn, size),
                    )
            # In the order of keys the window's end is read from the table.
            except (*RETRIED, psycopg.errors.QueryCanceled) as error:
                patience.pause(error, f"the next window of table {self.work.table}")
                size = max(1, size // 2)
        return None

    def _patience(self) -> Patience:
        return Patience(
            self.row.step.name, self.settings.step_budget_s, self._waits, self.stop
        )

    def _work(self, window: Window) -> None:
        """Go over a window, in all its passes."""
        if not self._done_size:
            # What people or signals say before the first chunk holds for it as well.
            self._reading = self._brake.after(0, 0.0, self._look(), self._look)
        strides = self._strides()
        for stride in strides:
            self._pass(window, stride, 1 / len(strides))
        if self._dismissed:
            windows.give_back(self.conn, window)
            return
        patience = self._patience()
        while not self.stop.is_set():
            try:
                rows = self._finish(window)
            # Another worker's claim holds the step's row while it waits.
            except RETRIED as error:
                patience.pause(error, f"the end of a window of {self.work.table}")
                continue
            if self._keeper is not None and windows.is_open(self.conn, self.row.id):
                self._keeper.after(*rows)
            return

    def _finish(self, window: Window) -> tuple[int, int]:
        """Enter a window's end; return the step's rows before and after it."""
        with self._transaction("the end of a window"):
            self.lease.check(self.conn)
            last = Advance(
                busy_ms=self._busy_ms,
                waited_ms=self._waited_ms,
                size=self._pace.size,
            )
            rows = windows.finish(self.conn, window, last)
            if rows is None:
                raise self._taken(window)
        self._busy_ms = self._waited_ms = 0.0
        return rows

    def _strides(self) -> range:
        """Return all passes; the last alone where a snapshot is held for long."""
        count = self._order.strides
        held = catalog.oldest_snapshot(self.conn) if count > 1 else None
        return range(count - 1 if held and held.held_s >= HELD_S else 0, count)

    def _pass(self, window: Window, stride: int, share: float) -> None:
        """Go over a window once; each chunk is tried again where it meets locks."""
        at, patience = self._order.start(window), self._patience()
        while not (
            self._order.ends(window, at) or self.stop.is_set() or self._dismissed
        ):
            began = time.monotonic()
            try:
                done = self._chunk(window, at, stride, share)
            except (*RETRIED, _LateError) as error:
                self._busy_ms += (time.monotonic() - began) * 1000
                self._note(error)
                if isinstance(error, _LateError) and self._pace.size == 1:
                    raise self._slow() from error
                patience.pause(error, self._order.name(window, at, self._pace.size))
                self._pace.split()
                asked = time.monotonic()
                self._reading = self._brake.after(0, 0.0, self._look(), self._look)
                if time.monotonic() - asked > LOOK_S:
                    # A person, or a signal, let it wait meanwhile.
                    patience = self._patience()
                continue
            seconds = time.monotonic() - began
            self._busy_ms, self._waited_ms = seconds * 1000, 0.0
            self._done_ms += seconds * 1000
            self._done_size += done.report.size
            self._fit(done, seconds)
            self.tell(replace(done.report, seconds=seconds))
            self._reading = self._brake.after(
                done.report.rows, seconds, self._reading, self._look
            )
            at, patience = done.chunk.stop, self._patience()

    def _fit(self, done: _Done, seconds: float) -> None:
        """Fit the next chunk to the target, and to a second's share of limits."""
        limits, size, rows = self._limits, done.chunk.size, done.report.rows
        self._pace.target_ms = (
            self._bounds.target_ms if limits.target_ms else self._target_ms
        )
        self._pace.took(size, seconds * 1000, (seconds - done.work_s) * 1000)
        if limits.max_rows_per_s is not None:
            share = limits.max_rows_per_s / max(self._reading.workers, 1)
            self._pace.bound(size, rows, share)
        if limits.max_wal_bytes_per_s is not None:
            self._pace.bound(size, done.wal_bytes, limits.max_wal_bytes_per_s)

    @property
    def _bounds(self) -> Bounds:
        """How long a chunk may take, as settings and people have it now."""
        target_ms = self._limits.target_ms or self.settings.target_ms
        return bounds(target_ms, self.settings.lock_timeout_ms, self._deadlock_ms)

    @property
    def _target_ms(self) -> float:
        """The wanted length of a chunk; a comparison holds no rows."""
        target_ms = self._bounds.target_ms
        if isinstance(self.work, ChunkedCheck) or not self._done_size:
            return target_ms
        passed = self._done_size / max(self.row.end_block or 0, 1)
        whole_ms = self._done_ms / passed / self.settings.workers
        return gentle_ms(target_ms, whole_ms)

    def _waits(self, reason: str, seconds: float) -> None:
        """Tell why it waits; in the ledger too, where it takes longer."""
        self.tell(Report(waiting=reason, waited_s=seconds))
        self._waited_ms += seconds * 1000
        if seconds >= LOOK_S and reason != self._said and self._window is not None:
            windows.waits(self.conn, self._window, reason)
            self._said = reason

    def _chunk(self, window: Window, at: Place, stride: int, share: float) -> _Done:
        """Do the chunk that begins at a place, with its bookkeeping."""
        what = self._order.told(window, at, self._pace.size)
        try:
            with (
                translated(
                    what,
                    "Earlier chunks are committed.",
                    "run the same command again; it goes on from there.",
                ),
                self._transaction(what),
            ):
                self._require_ready()
                began = time.monotonic()
                chunk = self._order.chunk(self.conn, window, at, self._pace.size)
                done = run(
                    self.conn,
                    self.work,
                    chunk.params,
                    stride=stride,
                    values=self.settings.show_values,
                )
                work_s = time.monotonic() - began
                advance = Advance(
                    rows=done.rows,
                    mismatches=done.left,
                    done=chunk.size * share,
                    busy_ms=self._busy_ms,
                    waited_ms=self._waited_ms,
                )
                wal = windows.advance(self.conn, window, advance)
                if wal is None:
                    raise self._taken(window)
                mismatches.add(self.conn, self.row.id, done.found)
                if time.monotonic() - self._sampled > samples.EVERY_S:
                    samples.take(self.conn, self.row.id)
                    self._sampled = time.monotonic()
        except Failed as error:
            if isinstance(error.__cause__, psycopg.errors.QueryCanceled):
                raise _LateError(said(error.__cause__)) from error
            if not self.conn.broken and self._is_gone():
                raise _ReplacedError from error
            raise
        self._said = ""
        report = Report(
            size=chunk.size * share,
            rows=done.rows,
            workers=self._wanted,
            mismatches=tuple(done.found),
        )
        return _Done(
            chunk=chunk,
            report=report,
            work_s=work_s,
            wal_bytes=wal - self._reading.wal_bytes,
        )

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
            raise unguarded(self.conn, self.work)

    def _is_gone(self) -> bool:
        """Tell whether the table is a leaf no longer: it may be dropped by now."""
        if self.work.root is None or self.conn.closed:
            return False
        file = ask(self.conn, f"SELECT {self._order.file}", [str(self.work.table)])
        return bool(file == GONE)

    def _look(self) -> Reading:
        """Read what people say, between chunks."""
        row = execute_stored(
            self.conn,
            f"SELECT $1::text AS of, {_READ}",
            ["", self.change, self.row.id],
        ).fetchone()
        assert row is not None
        return _reading(row)

    def _note(self, error: Exception) -> None:
        """Enter a failed chunk: the error budget counts it."""
        reason = told(error) if isinstance(error, psycopg.Error) else str(error)
        paused = failures.note(self.conn, self.change, reason, self.error_budget)
        self.tell(Report(failed=reason))
        if paused:
            self.tell(Report(paused=paused))

    def _taken(self, window: Window) -> Fenced:
        return Fenced(
            f"A window of table {self.work.table} was given to another worker.",
            state="This chunk was rolled back.",
            next="leave it to the other one.",
        )

    def _slow(self) -> Failed:
        unit = "row" if self.work.chunking.keyset else "block"
        may = self._bounds
        more = "give more time with --target-ms, or "
        if may.at_most:
            more = (
                f"a server whose deadlock_timeout is {self._deadlock_ms} ms leaves a"
                " chunk no more time, or a request could be ended for it; "
            )
        return Failed(
            f"Step '{self.row.step.name}': a single {unit} of table"
            f" {self.work.table} takes longer than the {may.statement_ms} ms that a"
            " chunk may.",
            state="Earlier chunks are committed; it goes on from here.",
            next=f"{more}look at what the step's expression and the table's triggers"
            " do.",
        )

    def _transaction(self, what: str) -> AbstractContextManager[None]:
        may = self._bounds
        return transaction(
            self.conn,
            lock_timeout_ms=may.lock_ms,
            statement_timeout_ms=may.statement_ms,
            what=what,
            # Data and bookkeeping go together, and the end of the pass waits.
            durable=False,
        )
