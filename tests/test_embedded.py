"""The embedded server: of the demo, of the tests, and of `migrator server`."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from migrator.postgres import embedded
from migrator.postgres.embedded import Server

MIGRATOR = Path(sys.executable).parent / "migrator"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder that everybody may go down to."""
    made = Path(tempfile.mkdtemp(prefix="migrator-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def test_restart_keeps_committed_rows_and_remove_leaves_nothing(
    private_server: Server,
) -> None:
    """A crash keeps what was committed; removal leaves no process and no folder."""
    with psycopg.connect(private_server.url(), autocommit=True) as conn:
        conn.execute("SET synchronous_commit = on")
        conn.execute("CREATE TABLE kept (id int)")
    private_server.restart(immediate=True)
    with psycopg.connect(private_server.url()) as conn:
        assert conn.execute("SELECT count(*) FROM kept").fetchone() == (0,)
        row = conn.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    private_server.remove()
    assert not private_server.folder.exists()
    assert not Path(f"/proc/{row[0]}").exists()


def test_server_of_root_runs_unprivileged(server: Server) -> None:
    """As root the server's process belongs to nobody, else to the user."""
    wanted = embedded.NOBODY if os.geteuid() == 0 else os.geteuid()
    first = (server.folder / "data" / "postmaster.pid").read_text().split()[0]
    assert Path(f"/proc/{first}").stat().st_uid == wanted


def test_a_server_for_a_project(folder: Path) -> None:
    """It says its URL, ends politely, and has its data when it is started again."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    words = [MIGRATOR, "server", str(folder / "pg"), "--port", port]
    for number in range(2):
        running = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert running.stdout is not None
        url = running.stdout.readline().strip().replace("+psycopg", "")
        assert url == f"postgresql://postgres@127.0.0.1:{port}/postgres"
        with psycopg.connect(url, autocommit=True) as conn:
            if number == 0:
                conn.execute("CREATE TABLE kept AS SELECT 1 AS id")
            assert conn.execute("SELECT id FROM kept").fetchone() == (1,)
        second = subprocess.run(words, capture_output=True, text=True)
        assert (second.returncode, second.stdout) == (1, "")
        assert f"Port {port} is taken" in second.stderr
        running.send_signal(signal.SIGTERM)
        _, said = running.communicate(timeout=60)
        assert running.returncode == 0
        assert "keeps its data" in said


def test_a_server_takes_no_folder_of_others(folder: Path) -> None:
    """What is in a folder stays as it is."""
    (folder / "models.py").touch()
    done = subprocess.run(
        [MIGRATOR, "server", str(folder)], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "holds something else than a server's data." in done.stderr
    assert [p.name for p in folder.iterdir()] == ["models.py"]
