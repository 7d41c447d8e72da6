"""Ctrl-C at any moment ends a run as Ctrl-C, and the next one goes on."""

import _thread
import signal
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest

from backfill.live import CHANGE, SETUP, assert_whole
from migrator.ledger import lease
from migrator.runner import Runner


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let SIGINT interrupt, which a shell's background job ignores."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


# A connection that is interrupted while it is made is closed by its collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("after_ms", range(5, 245, 12))
def test_interrupts(
    runner: Runner,
    sql: psycopg.Connection,
    after_ms: int,
    interruptible: None,
) -> None:
    """Whatever statement is under way, no error of it takes the word."""
    sql.execute(SETUP.encode())
    runner.expand(CHANGE)

    def interrupt() -> None:
        time.sleep(after_ms / 1000)
        _thread.interrupt_main()

    def run() -> None:
        runner.backfill("c")
        # It was over before; the interrupt comes here.
        time.sleep(5)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run()
    thread.join()
    assert_whole(runner, sql)


def test_interrupt_while_the_heartbeat_starts(
    runner: Runner, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No heartbeat stays behind that keeps the lease from the next run."""
    sql.execute(SETUP.encode())
    runner.expand(CHANGE)

    class Interrupted(threading.Thread):
        def start(self) -> None:
            super().start()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(lease.threading, "Thread", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            runner.backfill("c")
    assert not [t for t in threading.enumerate() if isinstance(t, Interrupted)]
    assert_whole(runner, sql)
