"""The command line: help, exit codes, output, secrets."""

import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from test_interleavings import CrashError, crash_at, fresh

from migrator.change import Change
from migrator.cli.main import cli
from migrator.cli.report import EXITS, event
from migrator.cli.sections import SECTIONS
from migrator.errors import (
    Failed,
    Held,
    LockBudgetError,
    MismatchError,
    Refused,
    UsageError,
)
from migrator.kernels.mirror_columns import marks
from migrator.ledger.control import Limits
from migrator.patterns import (
    AddColumn,
    ChangeColumnType,
    DropDefault,
    DropNotNull,
    RenameColumn,
)
from migrator.plan import State
from migrator.runner import Runner
from migrator.words import moment

MIGRATOR = Path(sys.executable).parent / "migrator"
TOP = Path(__file__).parent.parent


def run(
    *words: str, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the program in a folder, with an environment of its own."""
    return subprocess.run(
        [MIGRATOR, *words],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "HOME": str(cwd), **(env or {})},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def change(runner: Runner, sql: psycopg.Connection) -> Change:
    """Give an expanded rename of a small table."""
    sql.execute("CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL)")
    sql.execute("INSERT INTO users SELECT g, 'n' || g FROM generate_series(1, 50) g")
    made = Change(revision="abc123", pattern=RenameColumn("users", "name", "full_name"))
    runner.expand(made)
    return made


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_help_of_every_command_has_an_example(name: str, tmp_path: Path) -> None:
    """`--help` works without a project and shows how to call the command."""
    done = run(name, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert f"Example: migrator {name}" in done.stdout


def test_help_lists_every_command_once(tmp_path: Path) -> None:
    """In the order in which a change meets them, with words that are not cut off."""
    listed = run("--help", cwd=tmp_path).stdout.partition("\nWrite:\n")[2]
    names = [name for names in SECTIONS.values() for name in names]
    assert sorted(names) == sorted(cli.commands)
    assert re.findall(r"^  ([a-z]+) ", listed, re.MULTILINE) == names
    assert "..." not in listed


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_readme_names_every_command(name: str) -> None:
    """A command that the README does not name is not there for a newcomer."""
    assert f"migrator {name}" in (TOP / "README.md").read_text()


def test_exit_codes() -> None:
    """Each family of errors has its documented exit code."""
    wanted = {
        Refused: 1,
        Failed: 1,
        UsageError: 2,
        Held: 3,
        MismatchError: 4,
        LockBudgetError: 5,
    }
    for kind, code in wanted.items():
        assert next(c for k, c in EXITS if issubclass(kind, k)) == code


def test_several_changes_are_one_json_document(
    runner: Runner, sql: psycopg.Connection, database: str, tmp_path: Path
) -> None:
    """What a command did to each of several changes is one answer."""
    for name in "ab":
        sql.execute(f"CREATE TABLE {name} (id int, old text)".encode())
        pattern = RenameColumn(name, "old", "new")
        runner.expand(Change(revision=name, pattern=pattern))
    done = run(
        "backfill", "--json", cwd=tmp_path, env={"MIGRATOR_DATABASE_URL": database}
    )
    assert [c["state"] for c in json.loads(done.stdout)["changes"]] == ["verified"] * 2


def test_phases_by_command_and_json(
    change: Change, database: str, tmp_path: Path
) -> None:
    """Backfill to drop through the program; standard output is JSON alone."""
    env = {"MIGRATOR_DATABASE_URL": database}
    done = run("backfill", "abc", "--json", cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert data["schema"] == 1
    assert (data["id"], data["state"]) == ("abc123", "verified")
    held = run("contract", cwd=tmp_path, env=env)
    assert held.returncode == 3
    assert "--old-release-gone" in held.stderr
    assert held.stdout == ""
    told = run("contract", "--json", cwd=tmp_path, env=env)
    assert (told.returncode, told.stderr) == (3, "")
    error = json.loads(told.stdout)["error"]
    assert error["kind"] == "Held"
    assert "--old-release-gone" in error["next"]
    paused = json.loads(run("pause", "--json", cwd=tmp_path, env=env).stdout)
    assert paused["next"] == "migrator resume abc123"
    run("resume", cwd=tmp_path, env=env)
    gone = ("--old-release-gone", "scaled to 0")
    done = run("--hold", "36h", "contract", *gone, cwd=tmp_path, env=env)
    assert done.returncode == 0
    assert done.stdout.endswith(", migrator --hold 36h contract abc123 --drop\n")
    assert run("contract", "--drop", "--yes", cwd=tmp_path, env=env).returncode == 3
    status = json.loads(run("status", "--json", cwd=tmp_path, env=env).stdout)
    assert status["changes"][0]["state"] == "retired"
    assert run("rollback", cwd=tmp_path, env=env).returncode == 0
    assert run("rollback", cwd=tmp_path, env=env).returncode == 0
    assert "planned" in run("status", cwd=tmp_path, env=env).stdout
    log = json.loads(run("log", "--json", cwd=tmp_path, env=env).stdout)
    assert {"gate", "rollback", "state"} <= {e["kind"] for e in log["events"]}
    told = run("log", cwd=tmp_path, env=env).stdout
    assert "phase: expand, mirror_column\n" in told
    assert "gate: scaled to 0\n" in told


def test_verify_and_rollback_say_what_was_compared(
    change: Change, database: str, tmp_path: Path
) -> None:
    """A change that is retired is not compared, nor is it by being taken back."""
    env = {"MIGRATOR_DATABASE_URL": database}
    run("backfill", cwd=tmp_path, env=env)
    assert "Nothing" not in run("verify", cwd=tmp_path, env=env).stdout
    run("contract", "--old-release-gone", "x", cwd=tmp_path, env=env)
    done = run("verify", cwd=tmp_path, env=env)
    assert (done.returncode, done.stdout.split("\n")[0]) == (
        0,
        "Nothing was compared: abc123 is retired; both sides are compared until"
        " contract.",
    )
    back = run("rollback", cwd=tmp_path, env=env)
    assert back.stdout == (
        "abc123 is verified, but not compared since it was retired."
        " Next: migrator verify abc123\n"
    )
    status = json.loads(run("status", "--json", cwd=tmp_path, env=env).stdout)
    assert status["changes"][0]["compared"] is False
    done = run("verify", cwd=tmp_path, env=env)
    assert done.stdout.startswith("abc123 is verified. Next: deploy the new release")


def test_a_way_back_that_died_is_told(
    change: Change, sql: psycopg.Connection, database: str, tmp_path: Path
) -> None:
    """Status and each command that goes forward say what finishes it."""
    env = {"MIGRATOR_DATABASE_URL": database}
    sql.execute("CREATE INDEX ON users (name)")
    run("backfill", cwd=tmp_path, env=env)
    # Behind the copy of the index, before that of the rows.
    with crash_at("set_status", 2), pytest.raises(CrashError):
        fresh(database).rollback(change.id)
    status = run("status", "--json", cwd=tmp_path, env=env).stdout
    (found,) = json.loads(status)["changes"]
    back = "migrator rollback abc123 --to planned"
    assert (found["state"], found["going_back"]) == ("backfilled", "planned")
    assert (found["in_flight"], found["next"]) == (True, back)
    told = run("status", cwd=tmp_path, env=env).stdout
    assert "backfilled, on its way back to planned" in told
    for words in (
        ("backfill", "abc123"),
        ("verify",),
        ("contract", "--old-release-gone", "x"),
        ("contract", "--drop", "--yes"),
        ("rollback", "--to", "verified"),
    ):
        held = run(*words, cwd=tmp_path, env=env)
        assert (held.returncode, back in held.stderr) == (3, True), words
    done = run("rollback", cwd=tmp_path, env=env)
    assert done.stdout.startswith("abc123 is planned. Next: migrator expand abc123")


def test_status_counts_what_does_not_fit(
    runner: Runner,
    sql: psycopg.Connection,
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the way back is refused for is told before anybody asks for it."""
    env = {"MIGRATOR_DATABASE_URL": database}
    monkeypatch.setattr(marks, "MOST_COUNTED", 10)
    sql.execute("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1)")
    pattern = ChangeColumnType("t", "n", "bigint", "total")
    runner.expand(Change(revision="a1", pattern=pattern))
    runner.settle("a1")
    runner.retire("a1", old_release_gone="test")
    assert "Reversible" not in run("status", "a1", cwd=tmp_path, env=env).stdout
    sql.execute("UPDATE t SET total = 3000000000")
    why = "1 row holds values of the new release that do not fit the old side"

    def status() -> tuple[str, dict[str, Any]]:
        found = json.loads(run("status", "a1", "--json", cwd=tmp_path, env=env).stdout)
        return run("status", "a1", cwd=tmp_path, env=env).stdout, found["changes"][0]

    told, data = status()
    when = moment(runner.change("a1").state_at)
    assert f"  Reversible: no, since {why} (retired on {when}).\n" in told
    assert data["held_back"] == [f"{why} (retired on {when})"]
    assert data["reversible"] is False
    assert data["unfit"] == []
    # So many that nobody waits for their number.
    sql.execute(
        "INSERT INTO t (id, total) SELECT g, 3000000000 FROM generate_series(2, 19) g"
    )
    many = why.replace("1 row holds", "at least 10 rows hold")
    assert runner.way_back("a1").reasons[0].startswith(many)
    sql.execute("DELETE FROM t WHERE id > 1")
    runner.drop("a1")
    told, data = status()
    when = moment(runner.change("a1").state_at)
    assert f"  Reversible: no, since it was dropped on {when}.\n" in told
    assert f"  At its drop: {why}.\n" in told
    assert data["held_back"] == [f"it was dropped on {when}"]
    assert data["unfit"] == [why]
    (kept,) = [e for e in runner.events("a1") if e["kind"] == "unfit"]
    assert event(kept["kind"], kept["detail"]) == f"unfit: {why}"


def test_status_tells_what_it_has_no_time_to_count(
    runner: Runner, sql: psycopg.Connection, database: str, tmp_path: Path
) -> None:
    """A count that no index answers ends, and the answer is not taken for a yes."""
    env = {"MIGRATOR_DATABASE_URL": database}
    sql.execute("CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL)")
    runner.complete(Change(revision="a1", pattern=DropNotNull("t", "n")))
    sql.execute("INSERT INTO t VALUES (1, NULL)")
    with sql.transaction():
        # As if there were more rows than can be looked at.
        sql.execute("LOCK TABLE t")
        told = run("status", "a1", cwd=tmp_path, env=env).stdout
        why = 'it takes more than 0.5 s to count: rows hold NULL in "n"'
        assert f"  Reversible: not known, since {why}" in told
        assert runner.way_back("a1").open is None
    assert '1 row holds NULL in "n"' in runner.way_back("a1").reasons[0]
    sql.execute("DROP TABLE t")
    assert runner.way_back("a1").open is None
    assert '"public.t" does not exist): rows hold' in runner.way_back("a1").reasons[0]


def test_status_of_a_backfill_that_died(
    change: Change, runner: Runner, database: str, tmp_path: Path
) -> None:
    """A step that nobody works on is stopped, whatever the ledger has of it."""
    env = {"MIGRATOR_DATABASE_URL": database}
    runner.limit(change.id, Limits(max_rows_per_s=1))
    with subprocess.Popen(
        [MIGRATOR, "backfill"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", **env},
        stderr=subprocess.DEVNULL,
    ) as process:
        while not any(s.rows for s in runner.steps(change.id)):
            time.sleep(0.1)
        working = run("status", cwd=tmp_path, env=env).stdout
        process.kill()
    assert ": running, " in working
    stopped = run("status", cwd=tmp_path, env=env).stdout
    assert ": stopped, " in stopped
    assert "`migrator backfill abc123` goes on from here\n" in stopped
    status = json.loads(run("status", "--json", cwd=tmp_path, env=env).stdout)
    assert status["changes"][0]["at_work"] is False


def test_verify_of_what_has_no_two_sides(
    runner: Runner, sql: psycopg.Connection, database: str, tmp_path: Path
) -> None:
    """It says that there was nothing to compare."""
    sql.execute("CREATE TABLE t (id int PRIMARY KEY, name text DEFAULT 'x')")
    runner.expand(Change(revision="d1", pattern=DropDefault("t", "name")))
    done = run("verify", cwd=tmp_path, env={"MIGRATOR_DATABASE_URL": database})
    assert done.returncode == 0
    assert done.stdout.startswith("Nothing was compared: d1 (drop the default")


def test_drop_asks_first(change: Change, database: str, tmp_path: Path) -> None:
    """Without --yes and without an answer nothing is dropped."""
    env = {"MIGRATOR_DATABASE_URL": database}
    run("backfill", cwd=tmp_path, env=env)
    run("contract", "--old-release-gone", "x", cwd=tmp_path, env=env)
    done = run("--hold", "0s", "contract", "--drop", cwd=tmp_path, env=env)
    assert done.returncode != 0
    status = json.loads(run("status", "--json", cwd=tmp_path, env=env).stdout)
    assert status["changes"][0]["state"] == "retired"


def test_a_drop_is_looked_at_before_anybody_is_asked(
    change: Change, runner: Runner, database: str, tmp_path: Path
) -> None:
    """Until when it is held, in days and as a date; or which phase is missing."""
    env = {"MIGRATOR_DATABASE_URL": database}
    drop = ("contract", "--drop")
    done = run(*drop, cwd=tmp_path, env=env)
    assert (done.returncode, done.stderr) == (
        3,
        "Error: abc123 is expanded; `migrator contract --drop` needs it retired.\n"
        "Nothing was changed.\n"
        "Next: `migrator backfill abc123`, then the same command again.\n",
    )
    runner.settle(change.id)
    runner.retire(change.id, old_release_gone="test")
    until = runner.change(change.id).state_at.astimezone(UTC) + timedelta(days=7)
    done = run(*drop, cwd=tmp_path, env=env)
    assert (done.returncode, done.stderr) == (
        3,
        f"Error: What abc123 retired is held until {until:%Y-%m-%d %H:%M} UTC,"
        " 7 days left.\n"
        "Nothing was changed.\n"
        "Next: run the same command again then; a shorter hold is `migrator --hold 1h"
        " contract abc123 --drop`.\n",
    )
    # The log is of everything.
    events = [e for e in runner.events(change.id) if e["kind"] == "held"]
    logged = [e["detail"]["error"] for e in events]
    assert [what[:17] for what in logged] == ["abc123 is expande", "What abc123 retir"]
    status = run("status", cwd=tmp_path, env=env).stdout
    assert (
        f"  Next: after the hold (until {until:%Y-%m-%d %H:%M} UTC), migrator contract"
        " abc123 --drop\n"
    ) in status
    done = run("--hold", "0", *drop, cwd=tmp_path, env=env)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: Drop what abc123 (rename column")
    assert "give --yes" in done.stderr
    assert run("--hold", "0", *drop, "--yes", cwd=tmp_path, env=env).returncode == 0
    assert runner.change(change.id).state is State.DROPPED


def test_what_is_parked_is_looked_at_before_anybody_is_asked(
    runner: Runner, sql: psycopg.Connection, database: str, tmp_path: Path
) -> None:
    """Where nothing is, that is said; where the hold is not over, until when it is."""
    env = {"MIGRATOR_DATABASE_URL": database}
    sql.execute("CREATE TABLE t (id int)")
    runner.expand(Change(revision="a1", pattern=AddColumn("t", "age", "int")))
    sql.execute("INSERT INTO t VALUES (1, 2)")
    drop = ("rollback", "a1", "--drop")
    done = run(*drop, cwd=tmp_path, env=env)
    assert done.returncode == 0
    assert done.stdout.startswith("Nothing of a1 is parked.\n")
    runner.rollback("a1")
    done = run(*drop, cwd=tmp_path, env=env)
    assert done.returncode == 3
    assert "What the rollback of a1 parked is held until " in done.stderr
    assert "migrator --hold 1h rollback a1 --drop`" in done.stderr
    assert [e["kind"] for e in runner.events("a1")][-1] == "held"
    assert run("--hold", "0", *drop, "--yes", cwd=tmp_path, env=env).returncode == 0


def test_next_names_the_command_with_the_change(
    change: Change,
    runner: Runner,
    sql: psycopg.Connection,
    database: str,
    tmp_path: Path,
) -> None:
    """What is missing before verify and contract; which of several is meant."""
    env = {"MIGRATOR_DATABASE_URL": database}
    for words in (("verify",), ("contract", "--old-release-gone", "x")):
        done = run(*words, cwd=tmp_path, env=env)
        assert done.returncode == 3
        assert "Next: `migrator backfill abc123`, then" in done.stderr
    runner.settle(change.id)
    done = run("contract", cwd=tmp_path, env=env)
    assert (
        'Next: once it is, `migrator contract abc123 --old-release-gone "reason"`;'
    ) in done.stderr
    sql.execute("CREATE TABLE t (a int)")
    runner.expand(Change(revision="b2", pattern=RenameColumn("t", "a", "b")))
    done = run("verify", cwd=tmp_path, env=env)
    assert "Next: give the id of one: `migrator verify abc123`.\n" in done.stderr
    done = run("contract", "--drop", "--yes", cwd=tmp_path, env=env)
    assert "`migrator contract abc123 --drop`.\n" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("status",), "No database is given"),
        (("plan",), "No database is given"),
        (("init",), "There is no alembic.ini here"),
        (("--database-url", "mysql://u:geheim@h/d", "status"), "postgresql://"),
        (("--hold", "soon", "status"), "90s, 15m, 12h or 7d; or 0"),
        (("--hold", "7", "status"), "'7' is not a time: write a number with its unit"),
        (("--hold", "²d", "status"), "'²d' is not a time"),
        (("--target-ms", "nan", "status"), "nan is no number to go by"),
        (("throttle", "--max-rows-per-s", "inf"), "inf is no number to go by"),
        (("nonsense",), "No such command"),
    ],
)
def test_wrong_calls_exit_2(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    """A wrong call says what is wrong and exits with 2."""
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "geheim" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_ctrl_c_while_the_command_is_loaded() -> None:
    """It says that nothing was begun, and shows no traceback."""
    code = (
        "import sys\n"
        "class Stop:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'migrator.runner':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Stop())\n"
        "import migrator.cli"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (130, "Stopped; nothing was begun.\n")


def test_password_never_shows(tmp_path: Path) -> None:
    """A server that cannot be reached is named without the password."""
    url = "postgresql://user:geheim@127.0.0.1:1/db"
    done = run("--database-url", url, "status", cwd=tmp_path)
    assert done.returncode == 1
    assert "127.0.0.1" in done.stderr
    assert "geheim" not in done.stderr + done.stdout


def test_url_in_pyproject_is_refused(tmp_path: Path) -> None:
    """A database URL in pyproject.toml is refused, other settings are taken."""
    path = tmp_path / "pyproject.toml"
    path.write_text('[tool.migrator]\ndatabase-url = "postgresql://u:geheim@h/d"\n')
    done = run("status", cwd=tmp_path)
    assert done.returncode == 2
    assert "MIGRATOR_DATABASE_URL" in done.stderr
    assert "geheim" not in done.stderr
    for wrong in ('hold = "wrong"', "hold = 7"):
        path.write_text(f"[tool.migrator]\n{wrong}\n")
        assert "7d" in run("status", cwd=tmp_path).stderr
    path.write_text("[tool.migrator\n")
    done = run("status", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: pyproject.toml cannot be read: ")


def test_demo_runs_on_a_given_server(database: str, tmp_path: Path) -> None:
    """The demo succeeds, and leaves no schema of its own behind."""
    done = run(
        "--database-url", database, "demo", "--rows", "5000", "--json", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert data["rows"] == 5000
    assert data["failed_requests"] == data["mismatched_rows"] == 0
    assert min(data["old_requests"], data["new_requests"]) > 100
    assert [p["name"] for p in data["phases"]] == [
        "expand",
        "backfill",
        "verify",
        "contract (retire)",
        "rollback",
        "contract again",
        "drop",
    ]
    keys = {"max_stall_ms", "p99_ms_before", "p99_ms_during", "backfill_rows_per_s"}
    assert keys <= set(data)
    with psycopg.connect(database) as conn:
        left = conn.execute(
            "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'migrator_demo%'"
        ).fetchone()
    assert left == (0,)


# Moments after the start, in seconds: making the cluster, the table, the story.
@pytest.mark.parametrize(
    ("after_s", "sent"),
    [
        *((s, signal.SIGINT) for s in (0.4, 0.7, 2.5, 5.0)),
        (2.5, signal.SIGHUP),
        (2.5, signal.SIGTERM),
    ],
)
def test_demo_cleans_up(after_s: float, sent: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C, or a closed terminal, ends every process and removes the folder."""
    process = subprocess.Popen(
        [MIGRATOR, "demo", "--rows", "20000"],
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        # A shell's background job, as a test runner may be, ignores SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent != Path(tempfile.gettempdir()) and parent.owner() == tmp_path.owner():
            parent.chmod(parent.stat().st_mode | 0o011)
        if parent == Path(tempfile.gettempdir()):
            break
    time.sleep(after_s)
    process.send_signal(sent)
    _, err = process.communicate(timeout=30)
    # While Python still imports, the signal itself ends it: 130 to a shell too.
    assert process.returncode in (130, -sent), err.decode()
    assert list(tmp_path.iterdir()) == []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert str(tmp_path) not in entry.read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
