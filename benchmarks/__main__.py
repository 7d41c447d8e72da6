"""Run the benchmarks: `python -m benchmarks`, or `make bench`."""

import json as json_module
import statistics
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import click
import psycopg

from benchmarks import report, triggers
from benchmarks.foreground import p99_ms
from benchmarks.measure import Runs, alone, measured, median
from benchmarks.methods import (
    BLOCKS,
    GIANT,
    OURS,
    PGROLL,
    READING,
    REAL_PGROLL,
    RENAME,
    REWRITE,
    TWO,
    Method,
)
from benchmarks.report import Row
from benchmarks.shapes import NARROW, SHAPES, SIX_INDEXES
from migrator.postgres.embedded import Server
from migrator.settings import Settings

# Two cores, and a table that fits into memory: the settings of a small server.
SERVER = {
    "shared_buffers": "2GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "15min",
    "fsync": "on",
    "synchronous_commit": "on",
}


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rows: int
    repeat: int


FULL = Size(2_000_000, 3)
QUICK = Size(200_000, 1)


def speed(
    measure: str, runs: Runs, ours: Method, rival: Method, rows: int, goal: float
) -> Row:
    """Return rows per second of ours against a rival's."""
    mine, other = median(runs, ours, "seconds"), median(runs, rival, "seconds")
    return Row(
        measure=measure,
        ours=f"{rows / mine / 1000:.0f} krows/s",
        rival=f"{rows / other / 1000:.0f} krows/s",
        ratio=other / mine,
        goal=goal,
    )


def narrow(url: str, size: Size) -> Iterator[Row]:
    """Measure the narrow table."""
    methods = [GIANT, OURS, RENAME, TWO, BLOCKS, PGROLL, REWRITE]
    if REAL_PGROLL is not None:
        methods.append(REAL_PGROLL)
    runs = measured(url, NARROW, methods, size.rows, size.repeat)
    n = size.rows
    yield speed("1 worker / giant UPDATE", runs, OURS, GIANT, n, 1.6)
    yield speed("dual write on / giant UPDATE", runs, RENAME, GIANT, n, 1.4)
    goal = 3.0 if REAL_PGROLL is None else 0.0
    yield speed("dual write on / pgroll's statements", runs, RENAME, PGROLL, n, goal)
    if REAL_PGROLL is not None:
        yield speed("dual write on / pgroll", runs, RENAME, REAL_PGROLL, n, 3.0)
    yield speed("2 workers / giant UPDATE", runs, TWO, GIANT, n, 2.5)
    yield speed("one pass in blocks / giant UPDATE", runs, BLOCKS, GIANT, n, 0.0)
    wal = median(runs, OURS, "wal_bytes"), median(runs, GIANT, "wal_bytes")
    yield Row(
        measure="WAL / giant UPDATE",
        ours=f"{wal[0] / 1e6:.0f} MB",
        rival=f"{wal[1] / 1e6:.0f} MB",
        ratio=wal[0] / wal[1],
        goal=0.7,
        less=True,
    )
    for name, method in (("1 worker", OURS), ("2 workers", TWO)):
        taken = median(runs, method, "all_bytes"), median(runs, REWRITE, "all_bytes")
        yield Row(
            measure=f"table and indexes / rewritten, {name}",
            ours=f"{taken[0] / 1e6:.0f} MB",
            rival=f"{taken[1] / 1e6:.0f} MB",
            ratio=taken[0] / taken[1],
            goal=1.15,
            less=True,
        )
    longest = max(o.longest_ms for o in runs[RENAME.name])
    yield longest_chunk("longest chunk / target", longest)


def longest_chunk(measure: str, longest_ms: float) -> Row:
    """Return the longest transaction of a chunk against the target of its settings."""
    target_ms = Settings().target_ms
    return Row(
        measure=measure,
        ours=f"{longest_ms:.0f} ms",
        rival=f"{target_ms:.0f} ms",
        ratio=longest_ms / target_ms,
        goal=2.0,
        less=True,
    )


def shapes(url: str, size: Size) -> Iterator[Row]:
    """Measure tables of other shapes."""
    for shape in (SIX_INDEXES, *SHAPES):
        runs = measured(url, shape, [GIANT, OURS], size.rows // 2, size.repeat)
        rows = int(size.rows // 2 * shape.share)
        goal = 2.3 if shape is SIX_INDEXES else 0.0
        yield speed(f"{shape.name}, 1 worker / giant", runs, OURS, GIANT, rows, goal)


def foreground(server: Server, size: Size) -> Iterator[Row]:
    """Measure the application's latency during a backfill."""
    shape, rows = NARROW, size.rows // 2
    with psycopg.connect(server.url("bench"), autocommit=True) as conn:
        conn.execute("DROP TABLE IF EXISTS base CASCADE")
        conn.execute(shape.sql(rows).encode())
    # Each in turn, as often as all else: the traffic alone varies threefold.
    methods: tuple[Method, ...] = (RENAME, GIANT, PGROLL, READING)
    taken: dict[str, list[float]] = {}
    for _ in range(size.repeat):
        for method in (None, *methods):
            name = "none" if method is None else method.name
            found = p99_ms(server, shape, method, rows, "bench")
            taken.setdefault(name, []).append(found)
    quiet = statistics.median(taken["none"])
    for method in methods:
        p99 = statistics.median(taken[method.name])
        yield Row(
            measure=f"foreground p99, {method.name} / none",
            ours=f"{p99:.1f} ms",
            rival=f"{quiet:.1f} ms",
            ratio=p99 / quiet,
            goal=1.5 if method is RENAME else 0.0,
            less=True,
        )


def scale(url: str, size: Size) -> Iterator[Row]:
    """Measure ten times the rows: throughput, and memory of a process for each."""
    rows = size.rows // 4
    found: list[tuple[float, float, float]] = []
    for many in (rows, rows * 10):
        # The most that a process ever had says nothing of what came later in it.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            runs, memory = process.submit(alone, url, many, size.repeat).result()
        rate = many / statistics.median(r.seconds for r in runs)
        found.append((rate, memory, max(r.longest_ms for r in runs)))
    (before, small, _), (after, large, longest) = found
    yield longest_chunk("longest chunk, 10 x the rows / target", longest)
    yield Row(
        measure="throughput at 10 x the rows",
        ours=f"{after / 1000:.0f} krows/s",
        rival=f"{before / 1000:.0f} krows/s",
        ratio=after / before,
        goal=0.9,
    )
    yield Row(
        measure="memory at 10 x the rows",
        ours=f"{large:.0f} MB",
        rival=f"{small:.0f} MB",
        ratio=large / small,
        goal=1.05,
        less=True,
    )


@click.command()
@click.option("--quick", is_flag=True, help="Small tables, one repetition.")
@click.option("--json", is_flag=True, help="Print JSON.")
@click.option("--docs", type=Path, help="Write the tables and the plot there.")
@click.option("--triggers", "only", is_flag=True, help="What a dual write costs alone.")
def main(quick: bool, json: bool, docs: Path | None, only: bool) -> None:
    """Measure the backfill and the dual write, on a server of its own."""
    size = QUICK if quick else FULL
    felt = triggers.QUICK if quick else triggers.FULL
    rows: list[Row] = []
    with Server.start(settings=SERVER) as server:
        with psycopg.connect(server.url(), autocommit=True) as conn:
            conn.execute("CREATE DATABASE bench")
        url = server.url("bench")
        if not only:
            rows += narrow(url, size)
            rows += shapes(url, size)
            rows += foreground(server, size)
            rows += scale(url, size)
        # A quick run of everything ends within three minutes, without them.
        costs = list(triggers.triggers(server, felt)) if only or not quick else []
        with psycopg.connect(url) as conn:
            version = conn.info.parameter_status("server_version") or ""
    if json:
        found = [{**asdict(r), "met": r.met} for r in (*rows, *costs)]
        click.echo(json_module.dumps(found))
    else:
        click.echo(report.table((*rows, *costs)))
    if docs is None:
        return
    if rows:
        report.write(
            docs,
            "results",
            f"PostgreSQL {version}, {size.rows:,} rows, medians of {size.repeat}"
            " interleaved repetitions.",
            report.table(rows),
        )
        report.plot(docs / "performance.svg", rows)
    if costs:
        report.write(
            docs,
            "triggers",
            f"PostgreSQL {version}, {felt.rows:,} rows, medians of {felt.repeat}"
            " interleaved repetitions.",
            report.table(costs),
        )


if __name__ == "__main__":
    main()
