"""One pass over a table's blocks, by one worker or several.

The table is gone over in windows up to an end that is fixed at the start; rows
behind it were written with the dual write on. A window is given to one worker at
a time, which goes over it once or, in strides, several times, chunk by chunk. A
chunk's data and its bookkeeping commit together. A window whose worker died is
given to another and done again: rows in step are not touched twice.
"""

import queue
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from migrator.backfill.worker import Chunk, Worker
from migrator.errors import Failed
from migrator.ledger import store, windows
from migrator.ledger.lease import Lease
from migrator.ledger.store import StepRow
from migrator.plan import ChunkedCheck, ChunkedUpdate
from migrator.postgres.connection import Connection, Target, ask, connect, transaction
from migrator.progress import Progress
from migrator.settings import Settings

# Seconds between looks at windows that another process works on.
POLL_S = 0.2


@dataclass(slots=True, kw_only=True)
class Walk:
    """
    A pass for one step, by this process's workers.

    Args:
        target: where further workers connect to.
        conn: of the first worker.
        lease: under which windows are taken.
        change: its id.
        row: the step, as the ledger has it.
        work: what is done in each chunk.
        settings: pace, budgets, number of workers.
        progress: told of each chunk.
    """

    target: Target
    conn: Connection
    lease: Lease
    change: str
    row: StepRow
    work: ChunkedUpdate | ChunkedCheck
    settings: Settings
    progress: Progress
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """
        Go from where the ledger says to the end, and enter the step as done.

        Raises:
            Failed: the dual write is off, or the server refused a chunk.
            LockBudgetError: a chunk found rows locked for the whole budget.
            Fenced: another process has taken over.
        """
        if self.row.next_block is None or self.row.file_node != self._file_node():
            self._begin()
        while True:
            self.help()
            self.row = self._now()
            if self.row.file_node == self._file_node():
                with self._short("end of the pass"):
                    self.lease.check(self.conn)
                    if not windows.is_open(self.conn, self.row.id):
                        store.set_status(self.conn, self.change, self.row, "done")
                        return
                time.sleep(POLL_S)
            else:
                self._begin()

    def help(self) -> None:
        """Work on windows until none is left to be given out; errors as in `run`."""
        self.row = self._now()
        end, start = self.row.end_block or 0, self.row.next_block or 0
        self.progress.step(self.row.step.name, max(end - start, 0))
        if self.settings.workers == 1:
            self._worker(self.conn, self._told).run()
        else:
            self._workers()

    def _workers(self) -> None:
        told: queue.SimpleQueue[Chunk | BaseException | None] = queue.SimpleQueue()
        threads = [
            threading.Thread(target=self._thread, args=(told,), daemon=True)
            for _ in range(self.settings.workers)
        ]
        for thread in threads:
            thread.start()
        failure: BaseException | None = None
        try:
            for _ in threads:
                while (news := told.get()) is not None:
                    if isinstance(news, BaseException):
                        # The first failure is told; the others end at their chunk.
                        failure = failure or news
                        self._stop.set()
                    else:
                        self._told(news)
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
        if failure is not None:
            raise failure

    def _thread(self, told: "queue.SimpleQueue[Chunk | BaseException | None]") -> None:
        try:
            conn = connect(self.target, self.lease.application_name)
            try:
                self._worker(conn, told.put).run()
            finally:
                conn.close()
        # Whatever it is, the coordinating thread raises it.
        except BaseException as error:
            told.put(error)
        finally:
            told.put(None)

    def _worker(self, conn: Connection, tell: Callable[[Chunk], None]) -> Worker:
        return Worker(
            conn=conn,
            lease=self.lease,
            row=self.row,
            work=self.work,
            settings=self.settings,
            tell=tell,
            stop=self._stop,
        )

    def _told(self, chunk: Chunk) -> None:
        if chunk.waiting:
            self.progress.waiting(chunk.waiting)
        else:
            self.progress.advance(chunk.blocks, chunk.rows)

    def _short(self, what: str) -> AbstractContextManager[None]:
        return transaction(
            self.conn,
            lock_timeout_ms=self.settings.lock_timeout_ms,
            statement_timeout_ms=int(self.settings.target_ms),
            what=what,
        )

    def _file_node(self) -> int:
        return int(
            ask(
                self.conn,
                "SELECT pg_catalog.pg_relation_filenode($1::pg_catalog.regclass)",
                [str(self.work.table)],
            )
        )

    def _begin(self) -> None:
        """Begin a pass; the end is fixed now."""
        with self._short("start of the pass"):
            self.lease.check(self.conn)
            size = ask(
                self.conn,
                "SELECT pg_catalog.pg_relation_size($1::pg_catalog.regclass)"
                " / current_setting('block_size')::int",
                [str(self.work.table)],
            )
            windows.begin(self.conn, self.row.id, int(size), self._file_node())

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
