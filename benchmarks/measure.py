"""Run methods in turn on fresh copies of a table."""

import resource
import statistics
import time
from collections.abc import Sequence
from typing import Any

import click
import psycopg

from benchmarks.methods import OURS, Method, Outcome
from benchmarks.shapes import NARROW, Shape
from migrator.kernels.chunking import HELD_S

Runs = dict[str, list[Outcome]]


def measured(
    url: str, shape: Shape, methods: Sequence[Method], rows: int, repeat: int
) -> Runs:
    """
    Run each method `repeat` times on a copy of the table, all in turn.

    Args:
        url: a database of its own.
        shape: the table.
        methods: run one after the other within a repetition.
        rows: of a narrow table.
        repeat: repetitions.
    """
    runs: Runs = {m.name: [] for m in methods}
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("DROP TABLE IF EXISTS base CASCADE")
        conn.execute(shape.sql(rows).encode())
        for number in range(repeat):
            # Turned round each time, so that no method always comes first.
            turn = number % len(methods)
            for method in (*methods[turn:], *methods[:turn]):
                runs[method.name].append(_once(url, conn, shape, method))
                click.echo(
                    f"  {shape.name}, {method.name}:"
                    f" {runs[method.name][-1].seconds:.1f} s",
                    err=True,
                )
        conn.execute("DROP TABLE base CASCADE")
    return runs


def fresh(conn: psycopg.Connection, shape: Shape) -> None:
    """Make `t` a copy of `base`, with its indexes."""
    # pgroll's triggers on DDL go with its schema.
    conn.execute("DROP SCHEMA IF EXISTS pgroll, public_fill CASCADE")
    conn.execute("DROP TABLE IF EXISTS t CASCADE")
    conn.execute(
        f"CREATE TABLE t (LIKE base INCLUDING ALL) {shape.options};"
        " INSERT INTO t SELECT * FROM base".encode()
    )
    for index in shape.indexes:
        conn.execute(index.replace(" base ", " t ").encode())
    conn.execute("VACUUM ANALYZE t")


def _once(url: str, conn: psycopg.Connection, shape: Shape, method: Method) -> Outcome:
    fresh(conn, shape)
    ready = method.prepare(url, conn)
    for statement in shape.later:
        conn.execute(statement.encode())
    conn.execute("CHECKPOINT")
    if shape.held:
        with psycopg.connect(url) as other:
            other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            other.execute("SELECT count(*) FROM t")
            # As it is with one that counts: it is there for a while.
            time.sleep(HELD_S)
            return _run(url, conn, method, ready)
    return _run(url, conn, method, ready)


def _run(url: str, conn: psycopg.Connection, method: Method, ready: Any) -> Outcome:
    lsn = _one(conn, "SELECT pg_current_wal_insert_lsn()")
    began = time.perf_counter()
    longest = method.run(url, conn, ready)
    seconds = time.perf_counter() - began
    wal = _one(conn, f"SELECT pg_current_wal_insert_lsn() - '{lsn}'::pg_lsn")
    column = method.column
    wrong = _one(conn, f"SELECT count(*) FROM t WHERE {column} IS DISTINCT FROM name")
    if wrong:
        raise RuntimeError(f"{method.name} left {wrong} rows")
    return Outcome(
        seconds=seconds,
        wal_bytes=int(str(wal)),
        heap_bytes=int(str(_one(conn, "SELECT pg_table_size('t')"))),
        all_bytes=int(str(_one(conn, "SELECT pg_total_relation_size('t')"))),
        longest_ms=longest,
    )


def _one(conn: psycopg.Connection, query: str) -> object:
    row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def median(runs: Runs, method: Method, what: str) -> float:
    """Return the median of one figure over a method's repetitions."""
    return statistics.median(float(getattr(o, what)) for o in runs[method.name])


def alone(url: str, rows: int, repeat: int) -> tuple[list[Outcome], float]:
    """
    Return runs of ours, and the most memory that the process had by then, in MB.

    For a process of its own, which finds nothing that stands in `__main__`.
    """
    runs = measured(url, NARROW, [OURS], rows, repeat)
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return runs[OURS.name], taken / 1024
