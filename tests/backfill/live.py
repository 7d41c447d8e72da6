"""What tests of a running backfill share: the run, waits, and a check of its end."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg

from migrator.change import Change
from migrator.ledger.store import StepRow
from migrator.patterns import AddColumn
from migrator.plan import State
from migrator.progress import Silent
from migrator.runner import Runner

CHANGE = Change(revision="c", pattern=AddColumn("t", "n", "int", computed="id * 2"))
IN_STEP = "n = id * 2"
ROWS = 20_000
# Rows of some 150 bytes, so that the table has some 400 blocks.
SETUP = (
    "CREATE TABLE t (id int PRIMARY KEY, pad text);"
    "INSERT INTO t SELECT g, repeat('x', 120)"
    f" FROM generate_series(1, {ROWS}) g"
)
# Seconds until a wait for a state gives up: far more than any of them takes.
DEADLINE_S = 20.0
POLL_S = 0.02


def wait_for(what: str, seen: Callable[[], bool]) -> None:
    """Wait until something is seen."""
    deadline = time.monotonic() + DEADLINE_S
    while not seen():
        assert time.monotonic() < deadline, f"not seen: {what}"
        time.sleep(POLL_S)


def number(sql: psycopg.Connection, query: str) -> int:
    """Return the one number that a query asks for."""
    row = sql.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])


def filled(sql: psycopg.Connection, in_step: str = IN_STEP) -> int:
    """Return how many rows are filled as they should be."""
    return number(sql, f"SELECT count(*) FROM t WHERE {in_step}")


def fill_step(runner: Runner) -> StepRow:
    """Return the step that fills rows."""
    (found,) = (s for s in runner.steps("c") if s.step.name == "fill_rows")
    return found


def assert_whole(
    runner: Runner,
    sql: psycopg.Connection,
    *,
    rows: int = ROWS,
    counted: int | None = ROWS,
    in_step: str = IN_STEP,
) -> None:
    """
    Assert that the same command, run again, leaves every row in step.

    Args:
        runner: the engine.
        sql: of the owner.
        rows: of the table.
        counted: rows that the ledger has counted; None where a pass began anew.
        in_step: condition of a row that is in step.
    """
    assert runner.backfill("c") is State.BACKFILLED
    assert number(sql, "SELECT count(*) FROM t") == rows
    assert filled(sql, in_step) == rows
    step = fill_step(runner)
    assert step.status == "done"
    if counted is not None:
        assert step.rows == counted
    assert number(sql, "SELECT count(*) FROM migrator.windows") == 0
    assert runner.verify("c") is State.VERIFIED
    (compared,) = (s for s in runner.steps("c") if s.step.name == "compare_rows")
    assert (compared.rows, compared.mismatches) == (0, 0)
    assert number(sql, "SELECT count(*) FROM migrator.windows") == 0


@dataclass
class AfterRows(Silent):
    """
    A progress that does something once, when a number of rows was done.

    Where that is 0, before the first window is given out.
    """

    rows: int
    act: Callable[[], object]
    acted: bool = False
    seen: int = 0

    def step(self, name: str, total: int | None, *, compares: bool = False) -> None:
        """A step starts."""
        self._look()

    def advance(self, done: float, rows: int, seconds: float) -> None:
        """Count a chunk's rows."""
        self.seen += rows
        self._look()

    def _look(self) -> None:
        if self.seen >= self.rows and not self.acted:
            self.acted = True
            self.act()


@dataclass
class Running:
    """A backfill in a thread."""

    runner: Runner
    error: BaseException | None = None
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        """Start it."""
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    @property
    def ended(self) -> bool:
        """Whether it is over, well or not."""
        return not self.thread.is_alive()

    def _run(self) -> None:
        try:
            self.runner.backfill("c")
        except BaseException as error:
            self.error = error


@contextmanager
def running(runner: Runner) -> Iterator[Running]:
    """Run a backfill while the block does."""
    made = Running(runner)
    try:
        yield made
    finally:
        made.thread.join(timeout=60)
        assert not made.thread.is_alive()
