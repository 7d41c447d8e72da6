"""A release of an application: a process that reads and writes one column."""

import multiprocessing
import random
import signal
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Pipe
from typing import Any

import psycopg
from psycopg import sql

# Requests a second of one client: enough to meet every lock that is held for
# 10 ms, and little enough that two of them leave the server's cores free.
RATE_PER_S = 250
# Shares of the kinds of request; the rest are SELECTs.
UPDATE_SHARE = 0.4
INSERT_SHARE = 0.05
# Seconds that a client gets to answer.
ANSWER_S = 30.0


@dataclass(slots=True)
class Tally:
    """What a client saw in one span of time."""

    latencies_ms: list[float] = field(default_factory=list[float])
    failures: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Which column a release knows, and which rows it writes."""

    name: str
    url: str
    schema: str
    column: str
    rows: int
    #: Its rows are those with `id % 2 = share`, so that it can tell what became
    #: of each of its writes.
    share: int


class Client:
    """A release at work in a process of its own."""

    def __init__(self, release: Release) -> None:
        context = multiprocessing.get_context("spawn")
        self.release = release
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_work, args=(release, theirs), daemon=True
        )
        self._process.start()
        self._answer()

    def start(self) -> None:
        """Let it send requests."""
        self._pipe.send("run")
        self._answer()

    def pause(self) -> Tally:
        """Let it finish its request, and return what it saw since the start."""
        self._pipe.send("pause")
        found: Tally = self._answer()
        return found

    def lost(self) -> int:
        """Return how many of its rows do not hold what it wrote last."""
        self._pipe.send("check")
        return int(self._answer())

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join(ANSWER_S)

    def _answer(self) -> Any:
        if not self._pipe.poll(ANSWER_S):
            raise TimeoutError(f"the {self.release.name} does not answer")
        return self._pipe.recv()


def _work(release: Release, pipe: Pipe) -> None:
    # A terminal's Ctrl-C is for the parent, which then ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with psycopg.connect(
        release.url, autocommit=True, application_name=f"demo {release.name}"
    ) as conn:
        worker = _Worker(release, conn)
        pipe.send("ready")
        while True:
            wanted = pipe.recv()
            if wanted == "check":
                pipe.send(worker.lost())
                continue
            pipe.send("running")
            tally = Tally()
            due = time.perf_counter()
            while not pipe.poll():
                worker.request(tally)
                due += 1 / RATE_PER_S
                time.sleep(max(0.0, due - time.perf_counter()))
            pipe.recv()
            pipe.send(tally)


class _Worker:
    def __init__(self, release: Release, conn: psycopg.Connection[Any]) -> None:
        self.release = release
        self.conn = conn
        self.written: dict[int, str] = {}
        parts = {
            "table": sql.Identifier(release.schema, "users"),
            "column": sql.Identifier(release.column),
        }
        self.select = sql.SQL("SELECT {column} FROM {table} WHERE id = %s").format(
            **parts
        )
        self.update = sql.SQL("UPDATE {table} SET {column} = %s WHERE id = %s").format(
            **parts
        )
        self.insert = sql.SQL(
            "INSERT INTO {table} ({column}) VALUES (%s) RETURNING id"
        ).format(**parts)
        self.count = 0

    def request(self, tally: Tally) -> None:
        """Send one request; a write is remembered once it is answered."""
        own = random.randrange(self.release.rows // 2) * 2 + self.release.share + 1
        self.count += 1
        value = f"{self.release.name} {self.count}"
        kind = random.random()
        began = time.perf_counter()
        try:
            if kind < UPDATE_SHARE:
                self.conn.execute(self.update, (value, own), prepare=True)
                self.written[own] = value
            elif kind < UPDATE_SHARE + INSERT_SHARE:
                row = self.conn.execute(self.insert, (value,), prepare=True).fetchone()
                assert row is not None
                self.written[row[0]] = value
            else:
                self.conn.execute(self.select, (own,), prepare=True).fetchone()
        except psycopg.Error as error:
            tally.failures.append(str(error).strip().split("\n")[0])
        tally.latencies_ms.append((time.perf_counter() - began) * 1000)

    def lost(self) -> int:
        """Count rows that do not hold what was written last."""
        lost = 0
        for key, value in self.written.items():
            row = self.conn.execute(self.select, (key,), prepare=True).fetchone()
            lost += row is None or row[0] != value
        return lost
