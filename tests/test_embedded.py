"""The temporary server of the demo and of the tests."""

import os
from pathlib import Path

import psycopg

from migrator.postgres import embedded
from migrator.postgres.embedded import Server


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
