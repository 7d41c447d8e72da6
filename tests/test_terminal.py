"""A backfill in one terminal, words about it from another: what a person reads."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from backfill.live import wait_for
from test_cli import MIGRATOR, run

from migrator.change import Change
from migrator.patterns import RenameColumn
from migrator.runner import Runner

ROWS = 40_000


@dataclass
class Terminal:
    """A program on a terminal of its own, and all that it has shown there."""

    process: subprocess.Popen[bytes]
    fd: int
    shown: str = ""
    reader: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        """Read along."""
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        while True:
            try:
                part = os.read(self.fd, 4096)
            # What Linux says once nobody has the other end any more.
            except OSError:
                return
            if not part:
                return
            self.shown += part.decode(errors="replace")

    def shows(self, pattern: str) -> None:
        """Wait until something is to be read."""
        wait_for(
            f"{pattern} in {self.shown[-2000:]}",
            lambda: re.search(pattern, self.shown) is not None,
        )

    def types(self, key: bytes) -> None:
        """Press a key."""
        os.write(self.fd, key)

    def ends(self) -> int:
        """Return the exit code."""
        code = self.process.wait(60)
        self.reader.join()
        return code


Migrator = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def migrator(database: str, tmp_path: Path) -> Migrator:
    """Give what runs the program elsewhere; it has to end well."""

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        env = {"MIGRATOR_DATABASE_URL": database}
        done = run(*words, cwd=tmp_path, env=env)
        assert done.returncode == 0, done.stderr
        return done

    return call


@pytest.fixture
def terminal(database: str, tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Give what runs the program on a terminal."""
    made: list[Terminal] = []

    def start(*words: str) -> Terminal:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))

        def own() -> None:
            # The terminal's Ctrl-C is for it.
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        process = subprocess.Popen(
            [MIGRATOR, *words],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "MIGRATOR_DATABASE_URL": database},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=own,
        )
        os.close(theirs)
        made.append(Terminal(process, ours))
        return made[-1]

    yield start
    for one in made:
        one.process.kill()
        one.process.wait()
        one.reader.join()
        os.close(one.fd)


@pytest.fixture(autouse=True)
def _expanded(runner: Runner, sql: psycopg.Connection) -> None:
    sql.execute(
        "CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL);"
        "INSERT INTO users SELECT g, 'n' || g"
        f" FROM generate_series(1, {ROWS}) g".encode()
    )
    pattern = RenameColumn("users", "name", "full_name")
    runner.expand(Change(revision="abc123", pattern=pattern))


def filled(sql: psycopg.Connection) -> int:
    """Return how many rows both releases read alike."""
    row = sql.execute("SELECT count(*) FROM users WHERE name = full_name").fetchone()
    assert row is not None
    return int(row[0])


def step(migrator: Migrator) -> dict[str, Any]:
    """Return what `status --json` has of the backfill."""
    (change,) = json.loads(migrator("status", "--json").stdout)["changes"]
    (found,) = (s for s in change["steps"] if s["name"] == "copy_rows")
    return {**change["control"], **found}


def signals(migrator: Migrator) -> Any:
    """Return what `status --json` has of the signals' verdict."""
    (change,) = json.loads(migrator("status", "--json").stdout)["changes"]
    return change["verdict"]


def test_a_backfill_is_led_from_elsewhere(
    migrator: Migrator, terminal: Callable[..., Terminal], sql: psycopg.Connection
) -> None:
    """Rows, rate, time left, waits and why: on its bar, in status, as JSON."""
    told = migrator("throttle", "abc", "--max-rows-per-s", "700").stdout
    assert told == "Limits of abc123, from its next chunk on: 700 rows/s.\n"
    there = terminal("backfill", "abc123")
    there.shows(r"copy_rows: +\d+%.* rows, .* rows/s, .* left, waited \d+% of the time")
    there.shows(r"waiting: limit of 700 rows/s")
    running = ""

    def told_of_left() -> bool:
        nonlocal running
        running = migrator("status").stdout
        return " left" in running

    wait_for("the time left in status", told_of_left)
    assert re.search(
        r"backfill +copy_rows: running, \d+%, [\d,]+ rows, [\d,]+ rows/s, .* left,"
        r" waited \d+% of the time",
        running,
    )
    assert "  Limits: 700 rows/s\n" in running
    assert "  Next: wait until it is through; another process may help:" in running
    data = step(migrator)
    assert 0 < data["rows"] < ROWS
    assert 0 < data["rows_per_s"] < 3000
    assert data["left_s"] > 0
    assert data["waited_share"] > 0.1
    told = migrator("pause", "--reason", "month-end").stdout
    assert told == (
        'abc123 is expanded, and paused by postgres: "month-end".'
        " Next: migrator resume abc123\n"
    )
    there.shows(r'waiting: paused by postgres: "month-end"')
    before = filled(sql)
    data = step(migrator)
    assert (data["mode"], data["reason"]) == ("pause", "month-end")
    assert data["actor"] == "postgres"
    assert data["waiting"] == 'paused by postgres: "month-end"'
    assert (data["rows_per_s"], data["left_s"]) == (None, None)
    held = migrator("status").stdout
    assert 'waits now: paused by postgres: "month-end"\n' in held
    assert '  Held: paused by postgres: "month-end".\n' in held
    assert filled(sql) == before
    migrator("resume", "--reason", "closed")
    migrator("throttle", "--off")
    assert there.ends() == 0
    assert re.search(r"copy_rows: done, 40,000 rows in .* waited \d+%", there.shown)
    assert "abc123 is verified. Next: deploy the new release" in there.shown
    assert filled(sql) == ROWS
    log = migrator("log", "abc123").stdout
    for words in (
        "throttle: 700 rows/s\n",
        "pause: month-end\n",
        "resume: closed\n",
        "throttle: off\n",
    ):
        assert f"postgres  {words}" in log


def test_ctrl_c(
    migrator: Migrator, terminal: Callable[..., Terminal], sql: psycopg.Connection
) -> None:
    """It says that what was done stays, and how to go on; and so it does."""
    migrator("throttle", "abc123", "--max-rows-per-s", "5000")
    there = terminal("backfill", "abc123")
    there.shows(r"waiting: limit of")
    there.types(b"\x03")
    assert there.ends() == 130
    said = "Stopped; what was committed stays. Run the same command again to go on."
    assert said in there.shown
    assert "Traceback" not in there.shown
    assert 0 < filled(sql) < ROWS
    assert "`migrator backfill abc123` goes on from here" in migrator("status").stdout
    migrator("throttle", "abc123", "--off")
    again = migrator("backfill", "abc123")
    assert "of them by this run" in again.stderr
    assert filled(sql) == ROWS


def test_abort(
    migrator: Migrator, terminal: Callable[..., Terminal], sql: psycopg.Connection
) -> None:
    """The run ends with who said so, and why; a further one is held."""
    migrator("throttle", "abc123", "--max-rows-per-s", "5000")
    there = terminal("backfill", "abc123")
    there.shows(r"waiting: limit of")
    migrator("abort", "abc123", "--reason", "wrong")
    assert there.ends() == 3
    assert 'abc123 was aborted by postgres: "wrong"' in there.shown
    assert "migrator resume abc123" in there.shown
    status = migrator("status").stdout
    assert ": stopped, " in status
    assert "goes on from here" not in status
    assert '  Held: aborted by postgres: "wrong".\n' in status
    further = terminal("backfill", "abc123")
    assert further.ends() == 3
    migrator("resume", "abc123")
    migrator("throttle", "abc123", "--off")
    migrator("backfill", "abc123", "--workers", "2")
    assert filled(sql) == ROWS


def test_a_signal_of_the_projects(
    migrator: Migrator,
    terminal: Callable[..., Terminal],
    sql: psycopg.Connection,
    tmp_path: Path,
) -> None:
    """pyproject.toml says where it pauses; bar, status, JSON and log say why."""
    (tmp_path / "pyproject.toml").write_text(
        '[tool.migrator.guard]\ninterval = "200ms"\n'
        "[tool.migrator.guard.query.jobs]\n"
        'sql = "SELECT n FROM jobs"\npause = 5\n'
    )
    sql.execute("CREATE TABLE jobs (n int); INSERT INTO jobs VALUES (9)")
    there = terminal("backfill", "abc123")
    why = "jobs is 9, pause from 5"
    there.shows(f"waiting: {why}")
    assert f"  Signals: {why}\n" in migrator("status").stdout
    assert step(migrator)["waiting"] == why
    assert f"guard: act, pause, {why}\n" in migrator("log").stdout
    verdict = signals(migrator)
    since = verdict.pop("since")
    assert verdict == {
        "action": "pause",
        "signal": "jobs",
        "reason": why,
        "observed": False,
    }
    assert datetime.fromisoformat(since).tzinfo is not None
    there.types(b"\x03")
    assert there.ends() == 130
    # Nobody waits any more.
    assert "Signals" not in migrator("status").stdout
    assert signals(migrator) is None
    settings = tmp_path / "pyproject.toml"
    guard = "[tool.migrator.guard]\n"
    settings.write_text(
        settings.read_text().replace(guard, f'{guard}mode = "observe"\n')
    )
    migrator("throttle", "abc123", "--max-rows-per-s", "500")
    there = terminal("backfill", "abc123")
    there.shows(r"waiting: limit of")
    wait_for("the verdict", lambda: (signals(migrator) or {}).get("observed", False))
    assert f"  Signals (only observed): {why}\n" in migrator("status").stdout
    migrator("throttle", "abc123", "--off")
    assert there.ends() == 0
    assert filled(sql) == ROWS
    assert f"guard: observe, pause, {why}\n" in migrator("log").stdout


def test_watched_until_contract(
    migrator: Migrator, terminal: Callable[..., Terminal], sql: psycopg.Connection
) -> None:
    """`verify --watch` compares again, names what it repairs, and ends with retire."""
    migrator("backfill", "abc123")
    there = terminal("verify", "abc123", "--watch", "--every", "1s", "--values")
    there.shows(r"compare_rows: done, 0 rows out of step")
    with sql.transaction():
        sql.execute("ALTER TABLE users DISABLE TRIGGER USER")
        sql.execute("UPDATE users SET name = 'lost' WHERE id = 7")
        (name,) = sql.execute(
            "SELECT tgname FROM pg_trigger WHERE tgrelid = 'users'::regclass"
        ).fetchall()
        sql.execute(f'ALTER TABLE users ENABLE ALWAYS TRIGGER "{name[0]}"'.encode())
    there.shows(r'row \{"id" : "7"\} was out of step and is repaired \(it was .*lost')
    migrator("contract", "abc123", "--old-release-gone", "scaled to 0")
    assert there.ends() == 0
    assert "abc123 is retired. Next: after the hold" in there.shown
