"""One pass over a table, by one worker or several.

The table is gone over in windows up to an end that is fixed at the start; rows
behind it were written with the dual write on. A window is given to one worker at
a time, which goes over it once or, in strides, several times, chunk by chunk. A
chunk's data and its bookkeeping commit together. A window whose worker died is
given to another and done again: rows in step are not touched twice.
"""

import logging
import queue
import threading
import time
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from math import inf

import psycopg

from migrator.backfill.order import Order, order_of
from migrator.backfill.patience import Patience
from migrator.backfill.statements import unguarded
from migrator.backfill.worker import Report, Worker
from migrator.errors import Failed, Refused, TimeIsUp
from migrator.events import PROGRESS_EVERY_S, EventKind, Tell, untold
from migrator.guard import Watch
from migrator.guard.signal import Subject
from migrator.ledger import samples, store, windows
from migrator.ledger.lease import Lease
from migrator.ledger.store import StepRow
from migrator.plan import GONE, ChunkedCheck, ChunkedUpdate
from migrator.postgres.connection import (
    RETRIED,
    Connection,
    Target,
    ask,
    connect,
    execute_stored,
    said,
    transaction,
)
from migrator.progress import Progress
from migrator.settings import Settings

log = logging.getLogger(__name__)

# Question whether a table was never analysed (manual, section 52.11).
_UNKNOWN = (
    "SELECT reltuples < 0 FROM pg_catalog.pg_class"
    " WHERE oid = pg_catalog.to_regclass($1)"
)
# Rows that a table is thought to have.
_ROWS = (
    "SELECT reltuples::bigint FROM pg_catalog.pg_class"
    " WHERE oid = pg_catalog.to_regclass($1)"
)
# Seconds between looks at windows that another process works on.
POLL_S = 1.0
# Seconds until a further worker asks for a connection again that it did not get.
AGAIN_S = 10.0
# Seconds between looks at what all processes have done.
LOOK_S = 2.0
# A statement of the pass's own bookkeeping may run for this long in ms; it takes a
# few, and blocks no more than a chunk may.
SHORT_MS = 400


@dataclass(frozen=True, slots=True)
class _Ended:
    """
    A worker went: since nothing is left to be given out, or was dismissed.

    One that got no connection beside others is `refused`.
    """

    number: int
    dismissed: bool
    refused: bool = False


#: What workers tell the thread that started them.
_News = queue.SimpleQueue[Report | BaseException | _Ended]


@dataclass(slots=True, kw_only=True)
class Walk:
    """
    A pass for one step, by this process's workers.

    Args:
        target: where workers connect to.
        conn: for the pass's own bookkeeping.
        lease: under which windows are taken.
        change: its id.
        row: the step, as the ledger has it.
        work: what is done in each chunk.
        settings: pace, budgets, number of workers.
        progress: told of each chunk.
        watch: the run's, which looks at signals meanwhile.
        repeats: whether the log has the step's end only where it found rows.
        tell: given what signals, or failures, do to the change, and how far it is.
        tell_every_s: between two times that it is told how far it is.
    """

    target: Target
    conn: Connection
    lease: Lease
    change: str
    row: StepRow
    work: ChunkedUpdate | ChunkedCheck
    settings: Settings
    progress: Progress
    watch: Watch
    repeats: bool = False
    tell: Tell = untold
    tell_every_s: float = PROGRESS_EVERY_S
    #: When it was told how far it is; None for a process that helps.
    _told_at: float | None = None
    #: Chunks that failed since that was told, and when that was.
    _failed: int = 0
    _failed_at: float = -inf
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """
        Go from where the ledger says to the end, and enter the step as done.

        Raises:
            Failed: the dual write is off, or the server refused a chunk.
            LockBudgetError: a chunk found rows locked for the whole budget.
            Fenced: another process has taken over.
            Held: somebody aborted the change, or the time limit is reached.
        """
        if self.row.next_block is None or not self._is_same_file():
            self._begin()
        self.row = self._now()
        self._progress()
        self._announce()
        with self._watched():
            while True:
                self._work()
                self.row = self._now()
                while (same := self._is_same_file()) and self._waits():
                    self.settings.require_time(self._cut_off)
                    self._progress_at_times()
                    time.sleep(POLL_S)
                if not same:
                    self._begin()
                    self.row = self._now()
                    self._announce()
                elif not windows.is_open(self.conn, self.row.id):
                    break
        self._end()

    def _is_same_file(self) -> bool:
        """Tell whether the pass was begun on the table's file of now."""
        return self.row.file_node == self._file_node()

    def _waits(self) -> bool:
        """Tell whether all that is left is in the hands of other processes."""
        step = self.row.id
        return windows.is_open(self.conn, step) and not windows.is_claimable(
            self.conn, step
        )

    def _end(self) -> None:
        """Enter the step as done; its new values become known to the planner."""
        if isinstance(self.work, ChunkedUpdate) and self.work.upkeep:
            self._statistics(self.work.upkeep.analyze)
        with self._short("end of the pass"):
            self.lease.check(self.conn)
            # Each chunk asks; a table without blocks has none.
            if self.row.file_node != GONE and not ask(
                self.conn, self.work.guard or "SELECT true"
            ):
                raise unguarded(self.conn, self.work)
            samples.take(self.conn, self.row.id)
            told = not self.repeats or self.row.rows > 0
            store.set_status(self.conn, self.change, self.row, "done", told=told)

    def _statistics(self, statement: str) -> None:
        """Run ANALYZE; the backfill is right without it."""
        try:
            execute_stored(self.conn, statement)
        except psycopg.DatabaseError as error:
            if self.conn.broken or self.conn.closed:
                raise
            log.warning("no statistics of %s: %s", self.work.table, said(error))

    def help(self) -> None:
        """Work on windows until none is left to be given out; errors as in `run`."""
        self.row = self._now()
        self._announce()
        with self._watched():
            self._work()

    def _watched(self) -> AbstractContextManager[None]:
        return self.watch.over(Subject(table=self.work.table))

    def _announce(self) -> None:
        self.progress.step(
            self.row.step.name,
            self.row.end_block or 0,
            compares=isinstance(self.work, ChunkedCheck),
        )

    def _work(self) -> None:
        self.row = self._now()
        self._stand(self.row)
        news: _News = queue.SimpleQueue()
        threads: dict[int, threading.Thread] = {}
        failure: BaseException | None = None
        wanted, left, looked = self.settings.workers, True, time.monotonic()
        most, again = wanted, -inf
        try:
            while True:
                if time.monotonic() >= again:
                    most = wanted
                if left and failure is None:
                    for number in range(min(wanted, most)):
                        if number not in threads:
                            threads[number] = self._started(number, news)
                if not threads:
                    break
                try:
                    told = self._next(news, failure)
                except TimeIsUp as error:
                    told = error
                if isinstance(told, _Ended):
                    threads.pop(told.number).join()
                    if told.refused:
                        most = min(most, told.number)
                        again = time.monotonic() + AGAIN_S
                    elif told.dismissed:
                        # What others read may be older.
                        wanted = min(wanted, told.number)
                    else:
                        left = False
                elif isinstance(told, BaseException):
                    # The first failure is told; the others end at their chunk.
                    failure = failure or told
                    self._stop.set()
                else:
                    wanted = told.workers or wanted
                    self._told(told)
                if time.monotonic() - looked > LOOK_S and failure is None:
                    self._stand(self._now())
                    looked = time.monotonic()
        finally:
            self._stop.set()
            for thread in threads.values():
                thread.join()
            self._stop.clear()
        if failure is not None:
            raise failure
        self._stand(self._now())

    def _stand(self, row: StepRow) -> None:
        if row.done_blocks:
            self.progress.stands(row.done_blocks, row.rows)

    def _next(
        self, news: "_News", failure: BaseException | None
    ) -> "Report | BaseException | _Ended":
        """Return what a worker tells; until the time limit, where all goes well."""
        while failure is None:
            self.settings.require_time(self._cut_off)
            with suppress(queue.Empty):
                return news.get(timeout=self.settings.left_s)
        return news.get()

    @property
    def _cut_off(self) -> str:
        return f"step '{self.row.step.name}' on table {self.work.table} is not done"

    def _started(self, number: int, news: "_News") -> threading.Thread:
        thread = threading.Thread(target=self._thread, args=(number, news), daemon=True)
        thread.start()
        return thread

    def _thread(self, number: int, news: "_News") -> None:
        dismissed = refused = False
        try:
            try:
                conn = connect(self.target, self.lease.application_name)
            except Refused as error:
                if not number:
                    raise
                # The server may have no room for one more; the others go on.
                refused = True
                log.warning("one worker less: %s", error.what)
                return
            try:
                dismissed = Worker(
                    conn=conn,
                    number=number,
                    change=self.change,
                    lease=self.lease,
                    row=self.row,
                    work=self.work,
                    settings=self.settings,
                    error_budget=self.watch.policy.error_budget,
                    tell=news.put,
                    stop=self._stop,
                    verdict=lambda: self.watch.verdict,
                    halted=lambda: self.watch.halted,
                ).run()
            finally:
                conn.close()
        # Whatever it is, the coordinating thread raises it.
        except BaseException as error:
            news.put(error)
        finally:
            news.put(_Ended(number, dismissed, refused))

    def _told(self, report: Report) -> None:
        wrong = self.work.wrong if isinstance(self.work, ChunkedCheck) else ""
        for row in report.mismatches:
            self.progress.mismatch(
                row.key, row.given, repaired=row.repaired, wrong=wrong
            )
        self._progress_at_times()
        if report.paused:
            self.tell(EventKind.PAUSE, {"reason": report.paused})
        elif report.failed:
            self._retries(report.failed)
        elif report.waiting:
            self.progress.waiting(report.waiting, report.waited_s)
        else:
            self.progress.advance(report.size, report.rows, report.seconds)

    def _retries(self, reason: str) -> None:
        """Tell that a chunk failed, with those since that was told last."""
        self._failed += 1
        now = time.monotonic()
        if now - self._failed_at >= self.tell_every_s:
            self.tell(EventKind.RETRY, {"error": reason, "chunks": self._failed})
            self._failed, self._failed_at = 0, now

    def _progress_at_times(self) -> None:
        """Tell how far the step is, where that was told long ago."""
        told_at = self._told_at
        if told_at is not None and time.monotonic() - told_at >= self.tell_every_s:
            self._progress()

    def _progress(self) -> None:
        """Tell how far the step is."""
        self._told_at = time.monotonic()
        row = self._now()
        speed = samples.speed(self.conn, row.id)
        left_s = None if speed is None else speed.left_s
        table_rows = ask(self.conn, _ROWS, [str(self.work.table)])
        self.tell(
            EventKind.PROGRESS,
            {
                "phase": row.phase.value,
                "step": row.step.name,
                "table_rows": max(int(table_rows or 0), 0),
                "rows": row.rows,
                "mismatches": row.mismatches,
                "done_share": None
                if row.done_share is None
                else round(row.done_share, 3),
                "rows_per_s": None if speed is None else round(speed.rows_per_s),
                "left_s": None if left_s is None else round(left_s),
                "waiting": row.waiting or None,
            },
        )

    def _short(self, what: str) -> AbstractContextManager[None]:
        return transaction(
            self.conn,
            lock_timeout_ms=self.settings.lock_timeout_ms,
            # A statement's time includes its waits for locks.
            statement_timeout_ms=self.settings.lock_timeout_ms + SHORT_MS,
            what=what,
        )

    @property
    def _order(self) -> Order:
        return order_of(self.work, self.settings.workers)

    def _file_node(self) -> int:
        return int(ask(self.conn, f"SELECT {self._order.file}", [str(self.work.table)]))

    def _begin(self) -> None:
        """Begin a pass; the end is fixed now."""
        if (
            isinstance(self.work, ChunkedUpdate)
            and self.work.upkeep
            and ask(self.conn, _UNKNOWN, [str(self.work.table)])
        ):
            self._statistics(self.work.upkeep.statistics)
        patience = Patience(
            self.row.step.name,
            self.settings.step_budget_s,
            self.progress.waiting,
            self._stop,
        )
        while True:
            try:
                with self._short("start of the pass"):
                    self.lease.check(self.conn)
                    # In this order: a file that is exchanged in between, or a leaf
                    # that is detached, is noticed.
                    node = self._file_node()
                    end, last = self._order.end(self.conn)
                    windows.begin(self.conn, self.row.id, end, node, last)
                return
            # With keys, the last one may stand behind many dead entries of its index.
            except (*RETRIED, psycopg.errors.QueryCanceled) as error:
                patience.pause(error, f"the whole table {self.work.table}")

    def _now(self) -> StepRow:
        row = store.step(self.conn, self.change, self.row.id)
        if row is None:
            raise Failed(
                f"Step '{self.row.step.name}' of {self.change} is gone from the"
                " ledger.",
                state="Committed chunks stay.",
                next="look at `migrator log`.",
            )
        return row
