"""The engine behind a pooler in transaction mode."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from backfill.live import number, wait_for
from test_cli import MIGRATOR

from migrator.change import Change
from migrator.errors import Held, Refused
from migrator.ledger import installation
from migrator.ledger.control import Limits, Mode
from migrator.ledger.lease import held
from migrator.ledger.store import StepRow
from migrator.patterns import CreateIndex, RenameColumn
from migrator.plan import State
from migrator.postgres.connection import Target, connect, is_pooled
from migrator.postgres.embedded import NOBODY, Server
from migrator.runner import Runner

PGBOUNCER = shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin:/usr/bin")

pytestmark = pytest.mark.skipif(
    PGBOUNCER is None,
    reason="there is no pgbouncer on this machine (Debian: pgbouncer)",
)


@pytest.fixture
def pooled(server: Server, database: str) -> Iterator[str]:
    """Give the database's URL through a pgbouncer in transaction mode."""
    assert PGBOUNCER is not None
    name = database.rsplit("/", 1)[1]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "users.txt").write_text('"postgres" ""\n')
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\n{name} = host=127.0.0.1 port={server.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
            "auth_type = trust\nunix_socket_dir =\npool_mode = transaction\n"
            f"auth_file = {folder}/users.txt\ndefault_pool_size = 5\n"
        )
        user: dict[str, int] = {}
        if os.geteuid() == 0:
            user = {"user": NOBODY, "group": NOBODY}
            for path in (folder, *folder.iterdir()):
                os.chown(path, NOBODY, NOBODY)
        process = subprocess.Popen(
            [PGBOUNCER, "-q", folder / "pgbouncer.ini"],
            stderr=subprocess.DEVNULL,
            **user,
        )
        url = f"postgresql://postgres@127.0.0.1:{port}/{name}"
        for _ in range(100):
            try:
                psycopg.connect(url).close()
                break
            except psycopg.OperationalError:
                time.sleep(0.05)
        yield url
        process.terminate()
        process.wait(10)


@pytest.fixture
def table(sql: psycopg.Connection) -> None:
    """Make a table of some thousand rows, with no index on the column."""
    sql.execute("CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL)")
    sql.execute("INSERT INTO users SELECT g, 'n' || g FROM generate_series(1, 5000) g")


@pytest.mark.usefixtures("table")
def test_whole_life_behind_a_pooler(pooled: str, runner: Runner) -> None:
    """What needs no session of its own works: a rename, there and back."""
    with connect(Target.from_url(pooled), "migrator:test") as conn:
        assert is_pooled(conn)
    through = replace(runner, target=Target.from_url(pooled))
    change = Change(revision="p1", pattern=RenameColumn("users", "name", "full_name"))
    through.expand(change)
    through.backfill(change.id)
    assert through.verify(change.id) is State.VERIFIED
    assert through.retire(change.id, old_release_gone="test") is State.RETIRED
    assert through.rollback(change.id, to=State.PLANNED) is State.PLANNED


@pytest.mark.usefixtures("table")
def test_a_backfill_behind_a_pooler(
    pooled: str, runner: Runner, sql: psycopg.Connection, tmp_path: Path
) -> None:
    """Two workers obey a pause; killed, the same command goes on, and counts right."""
    sql.execute("INSERT INTO users SELECT g, 'n' FROM generate_series(5001, 30000) g")
    change = Change(revision="p3", pattern=RenameColumn("users", "name", "full_name"))
    through = replace(runner, target=Target.from_url(pooled))
    through.expand(change)
    runner.limit("p3", Limits(max_rows_per_s=5_000))

    def step() -> StepRow | None:
        return next((s for s in runner.steps("p3") if s.step.name == "copy_rows"), None)

    def filled() -> int:
        return number(sql, "SELECT count(*) FROM users WHERE name = full_name")

    with subprocess.Popen(
        [MIGRATOR, "backfill", "--workers", "2"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "MIGRATOR_DATABASE_URL": pooled},
        stderr=subprocess.DEVNULL,
    ) as process:
        wait_for("some rows", lambda: filled() > 0)
        runner.say("p3", Mode.PAUSE, "closing")
        wait_for(
            "the pause",
            lambda: (found := step()) is not None and "closing" in found.waiting,
        )
        # The other one's chunk comes to its end.
        time.sleep(0.5)
        before = filled()
        time.sleep(0.3)
        assert filled() == before < 30_000
        runner.say("p3", Mode.RUN, "")
        wait_for("more rows", lambda: filled() > before)
        process.kill()
    runner.limit("p3", None)
    assert through.settle("p3") is State.VERIFIED
    found = step()
    assert found is not None
    assert (filled(), found.rows) == (30_000, 30_000)


@pytest.mark.usefixtures("table")
def test_concurrent_build_behind_a_pooler_is_refused(
    pooled: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """A build needs a session of its own: refused by name, and nothing is left."""
    through = replace(runner, target=Target.from_url(pooled))
    change = Change(revision="p2", pattern=CreateIndex("users", ["name"], "by_name"))
    with pytest.raises(Refused, match="needs a direct connection"):
        through.expand(change)
    assert sql.execute("SELECT to_regclass('by_name')").fetchone() == (None,)


def test_one_writer_behind_a_pooler(pooled: str) -> None:
    """A lease that one process holds through the pooler is not given to another."""
    target = Target.from_url(pooled)
    with connect(target, "migrator:a") as first, connect(target, "migrator:b") as other:
        installation.install(first)
        with (
            held(target, first, "one", seconds=10, wait_s=0) as lease,
            pytest.raises(Held, match="is being changed by process"),
            held(target, other, "one", seconds=10, wait_s=0.5),
        ):
            pass
        assert lease.token > 0
        with held(target, other, "one", seconds=10, wait_s=0.5) as later:
            assert later.token > lease.token
