"""VACUUM in the middle of a backfill, so that freed room is used again.

Reusing the room that moved rows left is cheaper than extending the table
(docs/performance.md), so that the worker waits for it.
"""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

import psycopg

from migrator.ledger import store
from migrator.plan import Upkeep
from migrator.postgres import catalog
from migrator.postgres.connection import (
    Connection,
    ask,
    configure,
    execute_stored,
    is_pooled,
    said,
)

log = logging.getLogger(__name__)

# Seconds between looks whether VACUUM is to be ended.
LOOK_S = 0.2
# VACUUM rests 2 ms after work of this cost (manual, section 20.4.4): at most
# 400 MB/s read into the cache, or made dirty in it 100 pages at a time; ten times
# what autovacuum takes, since a worker waits for it.
COST_DELAY = "2ms"
COST_LIMIT = "2000"

_ROWS = (
    "SELECT reltuples::float8 FROM pg_catalog.pg_class"
    " WHERE oid = pg_catalog.to_regclass($1)"
)
# The oldest transaction that is not over.
_XMIN = (
    "SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::xid::text"
)


@dataclass(slots=True, kw_only=True)
class Keeper:
    """
    Keeps one table small while a worker moves its rows.

    Args:
        conn: the worker's own, outside a transaction.
        change: its id, for the log of events.
        table: its name, as `regclass` reads it.
        upkeep: what is to be run, and how often.
        ended: whether to end at once.
        tell: told what it does.
    """

    conn: Connection
    change: str
    table: str
    upkeep: Upkeep
    ended: Callable[[], bool]
    tell: Callable[[str], None]
    #: When the last mark was passed, and the oldest transaction at that time.
    _since: float = field(default_factory=time.monotonic)
    _xmin: str = field(init=False)

    def __post_init__(self) -> None:
        """Note where it begins."""
        self._xmin = ask(self.conn, _XMIN)

    def after(self, before: int, rows: int) -> None:
        """
        Run VACUUM where a share of the table was moved.

        Of all workers on all machines, the one whose window passes the mark runs
        it.

        Args:
            before: rows of the step before the window.
            rows: with it.
        """
        vacuum = self.upkeep.vacuum
        if vacuum is None:
            return
        mark = float(ask(self.conn, _ROWS, [self.table]) or 0) * self.upkeep.every
        if mark <= 0 or before // mark == rows // mark:
            return
        held = catalog.oldest_snapshot(self.conn)
        since, self._since = self._since, time.monotonic()
        xmin, self._xmin = self._xmin, ask(self.conn, _XMIN)
        if held is not None and held.held_s > time.monotonic() - since:
            self._skip(f"{held.holder} holds a snapshot for {held.held_s:.0f} s")
        elif holder := catalog.xmin_holder(self.conn, xmin):
            self._skip(f"{holder} holds a snapshot (hot_standby_feedback)")
        else:
            self._vacuum(vacuum)

    def _skip(self, why: str) -> None:
        log.warning("no VACUUM of %s: %s", self.table, why)
        store.event(self.conn, self.change, "vacuum", skipped=why)

    def _vacuum(self, statement: str) -> None:
        self.tell(f"VACUUM of {self.table}")
        if not is_pooled(self.conn):
            pace = {"vacuum_cost_delay": COST_DELAY, "vacuum_cost_limit": COST_LIMIT}
            configure(self.conn, pace, local=False)
        began = time.monotonic()
        with ThreadPoolExecutor(1) as thread:
            done = thread.submit(execute_stored, self.conn, statement)
            while True:
                try:
                    done.result(timeout=LOOK_S)
                    break
                except TimeoutError:
                    if self.ended():
                        self.conn.cancel_safe()
                except psycopg.OperationalError as error:
                    if self.conn.broken or self.conn.closed:
                        raise
                    self._skip(said(error))
                    return
                except psycopg.Error as error:
                    self._skip(said(error))
                    return
        seconds = round(time.monotonic() - began, 3)
        # A cancel may come when VACUUM has just ended, and meets this instead.
        with suppress(psycopg.errors.QueryCanceled):
            store.event(self.conn, self.change, "vacuum", seconds=seconds)
