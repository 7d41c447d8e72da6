"""Who would wait for a lock, by the traffic of a table."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from migrator.cli.findings import message
from migrator.lint.traffic import measured
from migrator.postgres.connection import Target, connect
from tests.lint.looking import looking_at
from tests.lint.revisions import code, loaded, project


@contextmanager
def used(url: str) -> Iterator[None]:
    """Write to table t, and read it, all the time."""
    stop = threading.Event()

    def work() -> None:
        with psycopg.connect(url, autocommit=True) as conn:
            while not stop.is_set():
                conn.execute("INSERT INTO t (a) VALUES (1)")
                conn.execute("SELECT FROM t WHERE id = 1")
                conn.execute("SELECT pg_stat_force_next_flush()")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("parted", [False, True])
def test_who_would_wait_is_told(
    database: str, sql: psycopg.Connection, tmp_path: Path, parted: bool
) -> None:
    """Beside a lock that lasts, on a table that is in use just now."""
    for table in ("t", "idle"):
        sql.execute(
            f"CREATE TABLE {table} (id bigserial PRIMARY KEY, a int)"
            f" {'PARTITION BY RANGE (id)' if parted else ''}".encode()
        )
        if parted:
            sql.execute(f"CREATE TABLE {table}_1 PARTITION OF {table} DEFAULT".encode())
        sql.execute(
            f"INSERT INTO {table} (a) SELECT 1 FROM generate_series(1, 10000)".encode()
        )
    (file,) = project(
        tmp_path,
        code(
            "r0",
            'op.create_index("i", "t", ["a"])\n'
            '    op.alter_column("t", "a", nullable=False)\n'
            '    op.alter_column("idle", "a", nullable=False)\n',
        ),
    )
    with (
        looking_at(database) as linter,
        connect(Target.from_url(database), "lint") as conn,
        used(database),
    ):
        found = measured(conn, linter.lint("r0", loaded(file)))
    told = {}
    for place in found:
        if place.finding.code in {"ZD301", "ZD303", "ZD108"}:
            key = str(place.finding.table), place.finding.code
            told[key] = place.traffic_per_s, message(place)
    index = "ZD303" if parted else "ZD301"
    writes, text = told["t", index]
    assert writes
    assert " rows written would wait" in text
    requests, text = told["t", "ZD108"]
    assert requests
    assert requests > writes
    assert " scans and inserts would wait" in text
    nothing, text = told["idle", "ZD108"]
    assert nothing == 0
    assert "would wait" not in text
