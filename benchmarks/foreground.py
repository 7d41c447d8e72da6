"""What the application feels while a column is filled."""

import signal
import subprocess
import tempfile
import threading
from pathlib import Path

import psycopg

from benchmarks.measure import fresh
from benchmarks.methods import Method
from benchmarks.shapes import Shape
from migrator.postgres.embedded import Server

# Half of what one core would do: the machine is busy, not full.
RATE_PER_S = 400
CLIENTS = 4
# Seconds of traffic without a backfill.
QUIET_S = 8

SCRIPT = """\\set id random(1, {rows})
UPDATE t SET name = 'changed ' || :id WHERE id = :id;
SELECT name FROM t WHERE id = :id;
"""


def p99_ms(
    server: Server, shape: Shape, method: Method | None, rows: int, database: str
) -> float:
    """
    Return the 99th percentile of a transaction's latency, in ms.

    Args:
        server: with pgbench beside it.
        shape: the table; `base` is there already.
        method: what fills the column meanwhile; None for nothing.
        rows: of the table.
        database: its name.
    """
    url = server.url(database)
    with (
        tempfile.TemporaryDirectory() as folder,
        psycopg.connect(url, autocommit=True) as conn,
    ):
        fresh(conn, shape)
        conn.execute("CHECKPOINT")
        ready = method.prepare(url, conn) if method is not None else None
        script = Path(folder) / "script.sql"
        script.write_text(SCRIPT.format(rows=rows))
        bench = subprocess.Popen(
            [
                server.bindir / "pgbench",
                *("-n", "-M", "prepared", "-c", str(CLIENTS), "-R", str(RATE_PER_S)),
                *("-T", "600" if method is not None else str(QUIET_S)),
                *("--log", "--log-prefix", f"{folder}/log", "-f", script),
                url,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if method is not None:
            # The traffic's first seconds are its connections, and not counted.
            threading.Event().wait(2)
            method.run(url, conn, ready)
            # Requests that waited for it end now, and count. The alarm is how
            # pgbench itself ends its time, with its logs written.
            threading.Event().wait(1)
            bench.send_signal(signal.SIGALRM)
        bench.wait()
        # client, transaction, latency in us, script, seconds, microseconds, lag
        lines = [
            line.split()
            for log in Path(folder).glob("log*")
            for line in log.read_text().splitlines()
        ]
    lines = [words for words in lines if len(words) > 5]
    first = min(int(words[4]) for words in lines) + 1
    taken = sorted(int(w[2]) / 1000 for w in lines if int(w[4]) > first)
    return taken[int(len(taken) * 0.99)]
