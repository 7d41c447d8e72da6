"""Sessions that meet: two that wait for one another, and many at once."""

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import psycopg
from backfill.live import wait_for

# Seconds that all go on after what happens among them.
AFTER_S = 0.5
#: What a request on few rows may meet, as it would without a change.
MET = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.UniqueViolation,
    psycopg.errors.ForeignKeyViolation,
)


@dataclass
class Sessions:
    """Two sessions: the first holds its transaction, the second waits for it."""

    database: str
    sql: psycopg.Connection
    in_step: Callable[[], bool]
    failed: list[BaseException] = field(default_factory=list[BaseException])

    def run(self, first: str, second: str, *then: str) -> None:
        """Run both; `then` is what the first does while the second waits."""
        with (
            psycopg.connect(self.database) as one,
            psycopg.connect(self.database, autocommit=True) as two,
        ):
            one.execute(first.encode())

            def send() -> None:
                try:
                    two.execute(second.encode())
                except BaseException as error:
                    self.failed.append(error)

            waiting = threading.Thread(target=send)
            waiting.start()
            waits = (
                "SELECT FROM pg_locks WHERE NOT granted"
                f" AND pid = {two.info.backend_pid}"
            )
            wait_for(
                "a request that waits",
                lambda: self.sql.execute(waits.encode()).rowcount > 0,
            )
            for statement in then:
                one.execute(statement.encode())
            one.commit()
            waiting.join()
        assert not self.failed
        assert self.in_step()


def during(
    database: str, *sides: tuple[str, ...], go: Callable[[], object] = lambda: None
) -> None:
    """
    Let a client for each side send its statements, at random, while something happens.

    Args:
        database: where.
        sides: statements of each client; `{0}` is below 20, `{1}` below 100.
        go: what happens meanwhile.
    """
    stop = threading.Event()
    done: list[int] = []
    failed: list[BaseException] = []

    def work(statements: tuple[str, ...], seed: int) -> None:
        chosen = random.Random(seed)
        number = 0
        try:
            with psycopg.connect(database, autocommit=True) as conn:
                while not stop.is_set():
                    statement = chosen.choice(statements)
                    args = chosen.randrange(20), chosen.randrange(100)
                    with suppress(*MET):
                        conn.execute(statement.format(*args).encode())
                        number += 1
        except BaseException as error:
            failed.append(error)
        done.append(number)

    workers = [
        threading.Thread(target=work, args=(side, seed))
        for seed, side in enumerate(sides)
    ]
    for worker in workers:
        worker.start()
    try:
        go()
        time.sleep(AFTER_S)
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    assert not failed
    assert min(done) > 0
