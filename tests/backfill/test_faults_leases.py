"""Processes that hang, and clocks that jump: a row is filled by one of two workers."""

import glob
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from conftest import start

from backfill.live import ROWS, SETUP, AfterRows, assert_whole, number, wait_for
from migrator.backfill import order
from migrator.change import Change
from migrator.errors import ConnectionLost, Fenced, MigratorError, OutcomeUnknown
from migrator.ledger import windows
from migrator.ledger.control import Limits
from migrator.ledger.lease import held
from migrator.patterns import AddColumn
from migrator.postgres import connection
from migrator.postgres.connection import Target, connect
from migrator.runner import Runner
from migrator.settings import Settings

# Each row tells which session filled it: its name has the lease's token.
CHANGE = Change(
    revision="c",
    pattern=AddColumn("t", "n", "text", computed="current_setting('application_name')"),
)
IN_STEP = "n LIKE 'migrator:%:%'"
# Blocks of a window, so that there are some for each worker.
WINDOW_BLOCKS = 64

# A backfill that stops itself, all threads of it, in the N-th chunk, when its data
# are written and not yet entered; or after that chunk.
HANGING = """
import os, signal, sys
from migrator.backfill import brake, order
from migrator.ledger import windows
from migrator.postgres.connection import Target
from migrator.runner import Runner
from migrator.settings import Settings

url, where, at, blocks = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
order.WINDOW_BLOCKS = blocks
count = 0


def hanging(real):
    def call(*args, **kwargs):
        global count
        count += 1
        if count == at:
            print("hangs", flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)
        return real(*args, **kwargs)

    return call


if where == "in a chunk":
    windows.advance = hanging(windows.advance)
else:
    brake.Brake.after = hanging(brake.Brake.after)
settings = Settings(chunking="blocks", target_ms=5, lease_s=1.5)
Runner(Target.from_url(url), settings).backfill("c")
"""


@dataclass
class Hung:
    """A process that hangs in a backfill."""

    process: subprocess.Popen[str]
    sql: psycopg.Connection
    token: int

    def filled(self) -> int:
        """Return how many rows its sessions have filled."""
        return number(
            self.sql, f"SELECT count(*) FROM t WHERE n LIKE 'migrator:%:{self.token}'"
        )

    def wake(self) -> str:
        """Let it go on to its end, which is an error; return what it says."""
        before = self.filled()
        self.process.send_signal(signal.SIGCONT)
        _, err = self.process.communicate(timeout=30)
        assert self.process.returncode == 1, err
        # What it was about to commit it did not commit.
        assert self.filled() == before
        return err


def token(sql: psycopg.Connection) -> int:
    """Return the token of the change's lease."""
    return number(sql, "SELECT token FROM migrator.leases WHERE scope = 'c'")


@contextmanager
def hung(url: str, sql: psycopg.Connection, where: str) -> Iterator[Hung]:
    """Start a process that hangs in its third chunk; it is gone after the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", HANGING, url, where, "3", str(WINDOW_BLOCKS)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "hangs\n"
        yield Hung(process, sql, token(sql))
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def expanded(
    runner: Runner, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> Runner:
    """Give an engine whose change is expanded; windows are small."""
    monkeypatch.setattr(order, "WINDOW_BLOCKS", WINDOW_BLOCKS)
    sql.execute(SETUP.encode())
    runner.settings = Settings(chunking="blocks", target_ms=5, lease_s=5, hold_s=0)
    runner.expand(CHANGE)
    return runner


@pytest.mark.parametrize("where", ["in a chunk", "between chunks"])
def test_a_hung_process_is_taken_over(
    expanded: Runner, sql: psycopg.Connection, database: str, where: str
) -> None:
    """Continued while the other one is at work, it commits nothing more."""
    with hung(database, sql, where) as other:
        said: list[str] = []
        taking = AfterRows(1, lambda: said.append(other.wake()))
        expanded.progress = taking
        expanded.backfill("c")
        assert taking.acted
        assert any(e in said[0] for e in ("ConnectionLost", "Fenced", "OutcomeUnknown"))
        assert 0 < other.filled() < ROWS
    assert_whole(expanded, sql, in_step=IN_STEP)


def test_a_window_is_taken_from_a_hung_process(
    expanded: Runner, sql: psycopg.Connection, database: str
) -> None:
    """A helper does what was left of it; the continued process is told so."""
    # As slow as a large table would be, so that the lease runs out meanwhile.
    expanded.limit("c", Limits(max_rows_per_s=6_000))
    with hung(database, sql, "between chunks") as other:
        left = f"SELECT count(*) FROM migrator.windows WHERE token = {other.token}"
        assert number(sql, left) == 1
        said: list[str] = []

        def wake() -> None:
            wait_for("its window taken", lambda: number(sql, left) == 0)
            said.append(other.wake())
            expanded.limit("c", None)

        expanded.progress = AfterRows(1, wake)
        assert expanded.join("c")
        assert "Fenced" in said[0]
        assert "was given to another worker" in said[0]
    assert_whole(expanded, sql, in_step=IN_STEP)


def test_two_claim_at_the_same_time(
    expanded: Runner, sql: psycopg.Connection, database: str
) -> None:
    """Each window, new or left by a dead worker, goes to one of them."""
    expanded.progress = AfterRows(0, _die)
    with pytest.raises(_DeadError):
        expanded.backfill("c")
    step = number(sql, "SELECT id FROM migrator.steps WHERE name = 'fill_rows'")
    target, rounds, size = Target.from_url(database), 5, 40
    gate = threading.Barrier(2)
    taken: list[list[int]] = [[], []]

    def claim(number: int) -> None:
        with (
            connect(target, "test") as conn,
            held(target, conn, f"w{number}", seconds=30, wait_s=0) as lease,
        ):
            for _ in range(rounds):
                gate.wait()
                while True:
                    with conn.transaction():
                        found = windows.claim(conn, step, 1, lease.token)
                    if found is None:
                        break
                    taken[number].append(found.start)
                gate.wait()
                if number == 0:
                    # All of them are left by workers that are gone.
                    conn.execute("UPDATE migrator.windows SET token = 0")

    sql.execute("DELETE FROM migrator.windows")
    sql.execute(
        f"UPDATE migrator.steps SET next_block = 0, end_block = {size}"
        f" WHERE id = {step}".encode()
    )
    threads = [threading.Thread(target=claim, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(taken[0] + taken[1]) == sorted(list(range(size)) * rounds)
    sql.execute("UPDATE migrator.steps SET next_block = NULL, end_block = NULL")
    assert_whole(expanded, sql, in_step=IN_STEP)


class _DeadError(Exception):
    """What stands for the death of a process."""


def _die() -> None:
    raise _DeadError


LIBRARY = os.environ.get("MIGRATOR_TEST_FAKETIME") or next(
    iter(glob.glob("/usr/lib/*/faketime/libfaketime.so.1")), ""
)


@pytest.fixture(params=["ledger", "clock"])
def jumping(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, Callable[[str], None]]]:
    """Give a database, and what makes its clock jump by some hours."""
    if request.param == "ledger":
        url: str = request.getfixturevalue("database")

        def shift(hours: str) -> None:
            with psycopg.connect(url, autocommit=True) as conn:
                conn.execute(
                    "UPDATE migrator.leases SET expires_at ="
                    " expires_at - make_interval(hours => %s)",
                    [int(hours)],
                )

        yield url, shift
        return
    if not LIBRARY:
        pytest.skip("there is no libfaketime on this machine (Debian: libfaketime)")
    # Not in pytest's folder, into which the server's user cannot look.
    clock = Path("/dev/shm") / f"migrator-clock-{os.getpid()}"
    clock.write_text("+0h\n")
    with monkeypatch.context() as patch:
        for name, value in {
            "LD_PRELOAD": LIBRARY,
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }.items():
            patch.setenv(name, value)
        server = start()

    def jump(hours: str) -> None:
        with psycopg.connect(server.url(), autocommit=True) as conn:
            clock_hour = "SELECT extract(epoch FROM clock_timestamp())::bigint / 3600"
            before = number(conn, clock_hour)
            # Whoever reads an empty file in between is ended by the library.
            new = clock.with_suffix(".new")
            new.write_text(f"{hours}h\n")
            new.replace(clock)
            assert abs(number(conn, clock_hour) - before - int(hours)) <= 1

    try:
        yield server.url(), jump
    finally:
        server.remove()
        clock.unlink()


@pytest.mark.parametrize("hours", ["+5", "-5"])
def test_the_clock_jumps(
    jumping: tuple[str, Callable[[str], None]],
    hours: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A lease that looks expired is taken once; one that does not is respected."""
    url, jump = jumping
    monkeypatch.setattr(order, "WINDOW_BLOCKS", WINDOW_BLOCKS)
    # A signal that meets the library while it reads its file sees the true time, at
    # which timeouts set since a jump backwards are over. Others are tried again.
    monkeypatch.setattr(connection, "IDLE_MS", 0)
    settings = Settings(chunking="blocks", target_ms=5, lease_s=10, hold_s=0)
    first, second = (Runner(Target.from_url(url), settings) for _ in range(2))
    errors: list[BaseException] = []

    def run() -> None:
        try:
            first.backfill("c")
        except MigratorError as error:
            errors.append(error)

    with psycopg.connect(url, autocommit=True) as sql:
        sql.execute(SETUP.encode())
        first.expand(CHANGE)
        first.limit("c", Limits(max_rows_per_s=8_000))
        thread = threading.Thread(target=run)
        thread.start()
        some = "SELECT count(*) FROM t WHERE n IS NOT NULL"
        wait_for("some rows", lambda: number(sql, some) > 0)
        old = token(sql)
        by_old = f"SELECT count(*) FROM t WHERE n LIKE 'migrator:%:{old}'"
        seen: list[int] = []

        def end_of_first() -> None:
            thread.join(timeout=30)
            seen.append(number(sql, by_old))
            second.limit("c", None)

        second.progress = AfterRows(1, end_of_first)
        jump(hours)
        if hours.startswith("-"):
            # It is not over by far: nobody takes it, and the first one goes on.
            first.limit("c", None)
            thread.join(timeout=30)
            assert errors == []
            assert token(sql) == old
        else:
            second.backfill("c")
            assert token(sql) > old
            assert isinstance(errors[0], Fenced | ConnectionLost | OutcomeUnknown)
            assert 0 < number(sql, by_old) == seen[0] < ROWS
        assert not thread.is_alive()
        assert_whole(second, sql, in_step=IN_STEP)
