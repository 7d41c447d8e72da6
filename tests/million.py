"""Patterns that move rows, on a table of a million, while both releases work.

Run it by `make million`. It prints a table, and fails where a request failed, a row was
lost or a request waited longer than the lock budget and what a busy machine adds.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import click
import psycopg
from releases import (
    CLIENTS,
    LOCK_MS,
    OWN_ROWS,
    ROWS,
    SLACK_MS,
    Client,
    Harness,
    Scenario,
)
from test_releases import SCENARIOS

from migrator.change import Change
from migrator.pattern import Pattern
from migrator.patterns import PartitionTable
from migrator.plan import ChunkedCheck
from migrator.postgres.connection import Target
from migrator.postgres.embedded import Server
from migrator.progress import Silent
from migrator.runner import Runner
from migrator.settings import Settings

MILLION = 1_000_000
# Seconds of traffic before the change, for the latency that it is held against, and
# of both releases side by side.
BEFORE_S = 5.0
BESIDE_S = 3.0
# As the benchmarks' server: a commit waits for its disk.
SERVER = {"shared_buffers": "1GB", "max_wal_size": "8GB", "checkpoint_timeout": "15min"}


@dataclass(frozen=True)
class Entry:
    """
    A scenario of the two-release tests that is run with more rows.

    Args:
        name: the scenario's.
        holds: the table that has column `name` of row `id` at the end.
        pattern: in place of the scenario's own.
    """

    name: str
    holds: str
    pattern: Pattern | None = None

    def scenario(self, rows: int) -> Scenario:
        """Return the scenario with so many rows, of about 130 bytes."""
        found = next(s for s in SCENARIOS if s.name == self.name)
        setup = found.setup.replace(f"(1, {ROWS})", f"(1, {rows})")
        assert setup != found.setup
        wide = "; ALTER TABLE t ADD pad text DEFAULT repeat('x', 90)"
        return replace(found, setup=setup + wide, pattern=self.pattern or found.pattern)

    def lost(self, rows: int) -> str:
        """Return the query that counts rows that are not as they were made."""
        first = 2 * CLIENTS * OWN_ROWS + 1
        return (
            f"SELECT count(*) FROM generate_series({first}, {rows}) g"
            f" LEFT JOIN {self.holds} h ON h.id = g WHERE h.id IS NULL OR"
            " h.name IS DISTINCT FROM CASE WHEN g % 10 > 0 THEN 'n' || g END"
        )


ENTRIES = (
    Entry("wider_key", "t"),
    Entry("extract_table", "(SELECT t.id, n.name FROM t LEFT JOIN n ON n.id = t.n_id)"),
    Entry(
        "extract_many",
        "(SELECT t.id, x.name FROM t LEFT JOIN (SELECT l.t_id, n.name FROM l JOIN n"
        " ON n.id = l.n_id AND n.name LIKE 'n%') x ON x.t_id = t.id)",
    ),
    Entry("split_table", "n"),
    Entry("rebuild_table", "t"),
    Entry(
        "partition_table",
        "t",
        PartitionTable(
            "t",
            "RANGE",
            ["id"],
            {
                f"t_{n}": f"FROM ({n * 250_000}) TO ({(n + 1) * 250_000})"
                for n in (0, 1, 2)
            },
            rest="t_rest",
            key=["id"],
            assured="test",
        ),
    ),
)


@dataclass
class Copied(Silent):
    """What the engine tells of chunks that it wrote."""

    rows: int = 0
    seconds: float = 0.0
    _writes: bool = False

    def step(self, name: str, total: int | None, *, compares: bool = False) -> None:
        """Note whether the step writes."""
        counts = compares or name.startswith("count_")
        self._writes = total is not None and not counts

    def advance(self, done: float, rows: int, seconds: float) -> None:
        """Add a chunk."""
        if self._writes:
            self.rows += rows
            self.seconds += seconds


@dataclass
class Run:
    """One entry on a database of its own."""

    entry: Entry
    url: str
    rows: int
    copied: Copied = field(default_factory=Copied)
    #: Begin of each phase, by time.perf_counter, and its seconds.
    phases: dict[str, tuple[float, float]] = field(
        default_factory=dict[str, tuple[float, float]]
    )

    def go(self) -> dict[str, Any]:
        """Carry the change through; return what was measured."""
        settings = Settings(hold_s=0, lock_timeout_ms=LOCK_MS, step_budget_s=20)
        runner = Runner(Target.from_url(self.url), settings, self.copied)
        scenario = self.entry.scenario(self.rows)
        harness = Harness.make(scenario, self.url, runner)
        change = Change(revision="million", pattern=scenario.pattern)
        old, new = harness.old, harness.new
        with harness.at_work(old):
            self._phase("before", lambda: time.sleep(BEFORE_S))
            self._phase("expand", lambda: runner.expand(change))
            self._phase("backfill", lambda: runner.backfill(change.id))
            self._phase("verify", lambda: runner.verify(change.id))
        with harness.at_work(old + new):
            self._phase("beside", lambda: time.sleep(BESIDE_S))
        with psycopg.connect(self.url, autocommit=True) as conn:
            for client in old:
                client.check(conn)
        with harness.at_work(new):
            self._phase(
                "retire", lambda: runner.retire(change.id, old_release_gone="stopped")
            )
            self._phase("drop", lambda: runner.drop(change.id))
        repaired = sum(
            s.rows
            for s in runner.steps(change.id)
            if isinstance(s.step.work, ChunkedCheck)
        )
        with psycopg.connect(self.url, autocommit=True) as conn:
            for client in new:
                client.check(conn)
            row = conn.execute(self.entry.lost(self.rows).encode()).fetchone()
        assert row is not None
        return self._found(old + new, repaired + row[0])

    def _phase(self, name: str, go: Callable[[], object]) -> None:
        began = time.perf_counter()
        go()
        self.phases[name] = (began, time.perf_counter() - began)
        click.echo(f"  {self.entry.name}: {name}", err=True)

    def _found(self, clients: list[Client], apart: int) -> dict[str, Any]:
        took = sorted(t for c in clients for t in c.took)
        change = self.phases["expand"][0]
        stall_at, stall = max(took, key=lambda t: t[1])
        inside = [n for n, (began, _) in self.phases.items() if began <= stall_at]
        failures = [f for c in clients for f in c.failures]
        for failure in failures[:10]:
            click.echo(f"  {failure}", err=True)
        return {
            "pattern": self.entry.name,
            **{
                f"{name} s": f"{seconds:.1f}"
                for name, (_, seconds) in self.phases.items()
                if name not in ("before", "beside")
            },
            "copy krows/s": f"{self.copied.rows / self.copied.seconds / 1000:.0f}",
            "requests": len(took),
            "failed": len(failures),
            "rows apart": apart,
            "longest stall ms": f"{stall:.0f} ({inside[-1] if inside else 'start'})",
            "p99 before ms": f"{_p99([ms for at, ms in took if at < change]):.1f}",
            "p99 during ms": f"{_p99([ms for at, ms in took if at >= change]):.1f}",
            "met": "yes"
            if not failures and not apart and stall < LOCK_MS + SLACK_MS
            else "**no**",
        }


def _p99(ms: list[float]) -> float:
    return sorted(ms)[int(len(ms) * 0.99)]


@click.command()
@click.option("--rows", default=MILLION, show_default=True, help="Of the table.")
@click.option("--only", multiple=True, help="Name of a scenario; may be repeated.")
def main(rows: int, only: tuple[str, ...]) -> None:
    """Carry patterns through on a large table, under traffic; print what it took."""
    found: list[dict[str, Any]] = []
    with Server.start(settings=SERVER) as server:
        for entry in ENTRIES:
            if only and entry.name not in only:
                continue
            with psycopg.connect(server.url(), autocommit=True) as conn:
                conn.execute(f"CREATE DATABASE {entry.name}".encode())
            found.append(Run(entry, server.url(entry.name), rows).go())
    columns = list(found[0])
    click.echo(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in found:
        click.echo(f"| {' | '.join(str(row[c]) for c in columns)} |")
    sys.exit(0 if all(r["met"] == "yes" for r in found) else 1)


if __name__ == "__main__":
    main()
