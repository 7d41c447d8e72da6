"""Chunks in physical order: blocks of the table, one transaction each.

Any table can be gone through so, with a key or without. A row that is moved by
a concurrent UPDATE is not missed: the dual-write trigger fires on every UPDATE,
the end block is fixed at the start, and rows in later blocks were written with
the trigger on. Verification goes over the whole table afterwards.

Source: PostgreSQL manual, section 13.2.1 (a row that was updated meanwhile is
checked again), 5.6 (ctid).
"""

import random
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass

from migrator.errors import Failed, LockBudgetError
from migrator.ledger import store
from migrator.ledger.lease import Lease
from migrator.ledger.store import StepRow
from migrator.plan import ChunkedCheck, ChunkedUpdate
from migrator.postgres.connection import (
    RETRIED,
    Connection,
    ask,
    execute_stored,
    transaction,
    translated,
)
from migrator.progress import Progress
from migrator.settings import Settings

# Blocks of the first chunk: 128 kB, some thousand rows at most, a few ms.
FIRST_BLOCKS = 16
# A chunk grows by this factor at most, so that one quick chunk over empty blocks
# does not make the next one far too long.
GROWTH = 2.0
# Blocks of a chunk at most: 64 MB.
MAX_BLOCKS = 8192
# Times the target after which a chunk is ended by the server and split.
LATE = 4.0
# Seconds between two tries of a chunk that met a lock: doubled up to the second.
FIRST_PAUSE_S = 0.02
LAST_PAUSE_S = 2.0


@dataclass(slots=True)
class Pace:
    """The size of the next chunk, from how long the last one took."""

    target_ms: float
    blocks: int = FIRST_BLOCKS

    def took(self, blocks: int, ms: float) -> None:
        """Fit the size to the target after a chunk of `blocks`."""
        wanted = blocks * self.target_ms / max(ms, 0.1)
        self.blocks = max(1, min(int(wanted), int(blocks * GROWTH), MAX_BLOCKS))

    def split(self) -> None:
        """Halve the size after a chunk that was too long or met a lock."""
        self.blocks = max(1, self.blocks // 2)


@dataclass(slots=True, kw_only=True)
class Walk:
    """One pass over a table's blocks, for one step."""

    conn: Connection
    lease: Lease
    change: str
    row: StepRow
    work: ChunkedUpdate | ChunkedCheck
    settings: Settings
    progress: Progress

    def run(self) -> None:
        """
        Go from where the ledger says to the end.

        Raises:
            Failed: the dual write is off, or the table's file was replaced
                again and again.
            LockBudgetError: a chunk found rows locked for the whole budget.
            Fenced: another process has taken over.
        """
        self._start_or_resume()
        pace = Pace(self.settings.target_ms)
        start, end = self._position()
        self.progress.step(self.row.step.name, max(end - start, 0))
        pause, since = FIRST_PAUSE_S, time.monotonic()
        while start < end:
            stop = min(start + pace.blocks, end)
            began = time.monotonic()
            try:
                rows = self._chunk(start, stop)
            except RETRIED as error:
                pace.split()
                if time.monotonic() - since > self.settings.step_budget_s:
                    raise LockBudgetError(
                        f"Step '{self.row.step.name}' on table {self.work.table}"
                        f" found rows of blocks {start} to {stop} locked for"
                        f" {self.settings.step_budget_s:.0f} s.",
                        state="Earlier chunks are committed; it goes on from here.",
                        next="end the transaction that holds them, then run the same"
                        " command again.",
                    ) from error
                self.progress.waiting("rows are locked")
                time.sleep(random.uniform(0, pause))
                pause = min(pause * 2, LAST_PAUSE_S)
                continue
            except Failed as error:
                late = "statement timeout" in str(error) and pace.blocks > 1
                if not late:
                    raise
                pace.split()
                continue
            if rows is None:
                self._restart()
                start, end = self._position()
                continue
            pace.took(stop - start, (time.monotonic() - began) * 1000)
            self.progress.advance(stop - start, rows)
            start, pause, since = stop, FIRST_PAUSE_S, time.monotonic()
        with self._transaction("end of the pass"):
            self.lease.check(self.conn)
            store.set_status(self.conn, self.change, self.row, "done")

    def _transaction(self, what: str) -> AbstractContextManager[None]:
        return transaction(
            self.conn,
            lock_timeout_ms=self.settings.lock_timeout_ms,
            statement_timeout_ms=int(self.settings.target_ms * LATE),
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

    def _start_or_resume(self) -> None:
        known = self.row.next_block is not None
        if not known or self.row.file_node != self._file_node():
            self._restart()

    def _restart(self) -> None:
        """Begin a pass; the end is fixed now."""
        with self._transaction("start of the pass"):
            self.lease.check(self.conn)
            size = ask(
                self.conn,
                "SELECT pg_catalog.pg_relation_size($1::pg_catalog.regclass)"
                " / current_setting('block_size')::int",
                [str(self.work.table)],
            )
            store.start_chunks(self.conn, self.row.id, int(size), self._file_node())

    def _position(self) -> tuple[int, int]:
        for row in store.steps(self.conn, self.change):
            if row.id == self.row.id:
                assert row.next_block is not None
                assert row.end_block is not None
                self.row = row
                return row.next_block, row.end_block
        raise Failed(
            f"Step '{self.row.step.name}' of {self.change} is gone from the ledger.",
            state="Committed chunks stay.",
            next="look at `migrator log`.",
        )

    def _chunk(self, start: int, stop: int) -> int | None:
        """
        Do blocks `start` to `stop` (not included), with their bookkeeping.

        Returns:
            Rows changed (or found out of step); None where the table's file was
            replaced, so that blocks mean nothing any more.
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
            self.lease.check(self.conn)
            if self._file_node() != self.row.file_node:
                return None
            self._require_guard()
            window = [f"({start},0)", f"({stop},0)"]
            mismatches = 0
            if isinstance(self.work, ChunkedUpdate):
                rows = execute_stored(self.conn, self.work.statement, window).rowcount
            else:
                rows = int(ask(self.conn, self.work.count, window))
                if rows and self.work.repair is not None:
                    execute_stored(self.conn, self.work.repair, window)
                    mismatches = int(ask(self.conn, self.work.count, window))
                else:
                    mismatches = rows
            if not store.advance(self.conn, self.row.id, start, stop, rows, mismatches):
                raise Failed(
                    f"{what} were done by another process meanwhile.",
                    state="This chunk was rolled back.",
                    next="leave it to the other one.",
                )
            return rows

    def _require_guard(self) -> None:
        guard = self.work.guard
        if guard is not None and not ask(self.conn, guard):
            raise Failed(
                f"The dual-write trigger on table {self.work.table} is missing or not"
                " enabled ALWAYS: writes may be lost between the two sides.",
                state="Earlier chunks are committed; nothing runs on.",
                next="roll the change back, then expand again.",
            )
