"""Events: who is told of what, and what listeners can and cannot do."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from socket import gethostname
from typing import Any

import psycopg
import pytest
from backfill.live import wait_for
from projects import NAME, PLAIN, Release

from migrator.change import Change
from migrator.errors import Held, TimeIsUp, UsageError
from migrator.events import GROUP, VARIABLE, Event, EventKind, Listeners
from migrator.guard import Policy
from migrator.guard.policy import policy
from migrator.ledger.control import Limits, Mode
from migrator.patterns import RenameColumn
from migrator.plan import State
from migrator.runner import Runner

#: Appends each event, behind what the environment says of it, to a file.
NOTE = """#!/bin/sh
{ printf '%s %s ' "$MIGRATOR_EVENT" "$MIGRATOR_CHANGE"; cat; } >> "$(dirname "$0")/told"
"""

HEARD: list[Event] = []


def hear(event: Event) -> None:
    """Keep an event: an entry point."""
    HEARD.append(event)


def refuse(event: Event) -> None:
    """Fail of every event: an entry point."""
    raise RuntimeError("the listener is broken")


def hang(event: Event) -> None:
    """Take far too long for an event: an entry point."""
    threading.Event().wait(60)


@pytest.fixture
def heard() -> Iterator[list[Event]]:
    """Give what the entry point hears."""
    HEARD.clear()
    yield HEARD
    HEARD.clear()


def entry(name: str) -> EntryPoint:
    """Return an entry point of this file."""
    return EntryPoint(name, f"test_events:{name}", GROUP)


def listening(runner: Runner, listeners: Listeners) -> Runner:
    """Return the engine with listeners of its own."""
    return replace(runner, listeners=listeners)


def told_all(listeners: Listeners) -> None:
    """Wait until what was told has been heard."""
    thread = listeners._thread
    if thread is not None:
        thread.join(60)


def script(folder: Path, text: str) -> tuple[str]:
    """Write a command."""
    path = folder / "notify.sh"
    path.write_text(text)
    path.chmod(0o755)
    return (str(path),)


def noted(folder: Path) -> list[tuple[str, str, dict[str, Any]]]:
    """Return what the command noted: event and change of the environment, JSON."""
    path = folder / "told"
    # What stands behind the last line's end is being written.
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    parts = (line.split(" ", 2) for line in lines)
    return [(event, change, json.loads(text)) for event, change, text in parts]


@pytest.fixture
def change(sql: psycopg.Connection) -> Change:
    """Give a rename of a small table."""
    sql.execute("CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL)")
    sql.execute("INSERT INTO users SELECT g, 'n' || g FROM generate_series(1, 50) g")
    return Change(revision="c1", pattern=RenameColumn("users", "name", "full_name"))


def test_a_command_is_told_the_life_of_a_change(
    runner: Runner, change: Change, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order, as JSON on standard input; the environment has no password."""
    monkeypatch.setenv("MIGRATOR_DATABASE_URL", "postgresql://u:secret@h/d")
    monkeypatch.setenv("PGPASSWORD", "secret")
    text = NOTE + 'env >> "$(dirname "$0")/env"\n'
    listeners = Listeners(command=script(tmp_path, text))
    engine = listening(runner, listeners)
    engine.expand(change)
    engine.settle("c1")
    engine.retire("c1", old_release_gone="test")
    engine.rollback("c1")
    engine.retire("c1", old_release_gone="test")
    engine.drop("c1")
    told_all(listeners)
    found = noted(tmp_path)
    assert [
        (e, d["detail"].get("phase") or d["detail"].get("state")) for e, _, d in found
    ] == [
        ("before-expand", None),
        ("phase", "expand"),
        ("state", "expanded"),
        ("phase", "backfill"),
        ("progress", "backfill"),
        ("state", "backfilled"),
        ("phase", "verify"),
        ("progress", "verify"),
        ("state", "verified"),
        ("progress", "verify"),
        ("before-retire", None),
        ("phase", "retire"),
        ("state", "retired"),
        ("rollback", None),
        ("state", "verified"),
        ("progress", "verify"),
        ("before-retire", None),
        ("phase", "retire"),
        ("state", "retired"),
        ("before-drop", None),
        ("phase", "drop"),
        ("state", "dropped"),
        ("finished", "dropped"),
    ]
    event, named, data = found[0]
    assert (event, named) == (data["event"], data["change"]) == ("before-expand", "c1")
    assert data["schema"] == 1
    assert data["title"] == change.pattern.title
    assert data["table"] == {"schema": "public", "name": "users"}
    assert data["host"] == gethostname()
    assert "secret" not in (tmp_path / "env").read_text()


@pytest.mark.parametrize(
    ("asked", "before", "go"),
    [
        ("before-expand", "planned", lambda r, c: r.expand(c)),
        (
            "before-retire",
            "verified",
            lambda r, c: r.retire(c.id, old_release_gone="x"),
        ),
        ("before-drop", "retired", lambda r, c: r.drop(c.id)),
    ],
)
def test_a_command_holds_a_phase_before_it_begins(
    runner: Runner,
    change: Change,
    tmp_path: Path,
    asked: str,
    before: str,
    go: Callable[[Runner, Change], State],
) -> None:
    """Its last line says why; nothing of the phase ran, and the next try asks again."""
    steps: list[Callable[[], object]] = [
        lambda: runner.expand(change),
        lambda: runner.settle("c1"),
        lambda: runner.retire("c1", old_release_gone="x"),
    ]
    for step in steps[: {"planned": 0, "verified": 2, "retired": 3}[before]]:
        step()
    text = (
        f'#!/bin/sh\nif [ "$MIGRATOR_EVENT" = {asked} ]; then\n'
        "  echo looking >&2; echo 'no backup is there' >&2; exit 7\nfi\n"
    )
    listeners = Listeners(command=script(tmp_path, text))
    engine = listening(runner, listeners)
    with pytest.raises(Held) as held:
        go(engine, change)
    assert held.value.what == (
        f"c1 is held by a listener, asked {asked}: no backup is there"
    )
    assert runner.change("c1").state.value == before
    script(tmp_path, "#!/bin/sh\n")
    assert go(engine, change).value != before


def test_what_fails_or_hangs_never_stops_the_engine(
    runner: Runner, change: Change, tmp_path: Path
) -> None:
    """A command that hangs is ended each time; the change goes on, the log has it."""
    hanging = (
        "#!/bin/sh\ncase $MIGRATOR_EVENT in before-*) exit 0;; esac\n"
        'sleep 60 &\necho $! >> "$(dirname "$0")/started"\nwait\n'
    )
    listeners = Listeners(command=script(tmp_path, hanging), time_limit_s=0.2)
    began = time.monotonic()
    engine = listening(runner, listeners)
    engine.expand(change)
    assert engine.settle("c1") is State.VERIFIED
    told_all(listeners)
    assert time.monotonic() - began < 30
    failures = [e for e in engine.events("c1") if e["kind"] == "listener"]
    assert len(failures) == 8
    # What the command started is ended with it.
    for pid in (tmp_path / "started").read_text().split():
        status = Path(f"/proc/{pid}/stat")
        assert not status.exists() or status.read_text().split()[2] == "Z"
    said = failures[0]["detail"]
    assert said["event"] == "phase"
    assert said["error"].endswith("notify.sh took longer than 0.2 s")


def test_callables_are_called_each_on_its_own(
    runner: Runner, change: Change, heard: list[Event]
) -> None:
    """One that is broken does not keep the others from hearing."""
    listeners = Listeners(
        callables=(entry("refuse"), entry("hang"), entry("hear")), time_limit_s=0.2
    )
    listeners.tell(
        Event(kind=EventKind.STATE, change="c1"), lambda event, why: said.append(why)
    )
    said: list[str] = []
    told_all(listeners)
    assert [e.kind for e in heard] == ["state"]
    assert said == ["refuse: the listener is broken", "hang took longer than 0.2 s"]


def test_a_callable_holds_a_phase_by_raising(runner: Runner, change: Change) -> None:
    """Before a phase, an exception is a no; so is an entry point that is not there."""
    engine = listening(runner, Listeners(callables=(entry("refuse"),)))
    with pytest.raises(Held, match="the listener is broken"):
        engine.expand(change)
    missing = EntryPoint("gone", "no_such_module:hear", GROUP)
    engine = listening(runner, Listeners(callables=(missing,)))
    with pytest.raises(Held, match="no_such_module"):
        engine.expand(change)


def test_what_a_command_starts_and_leaves_is_not_waited_for(tmp_path: Path) -> None:
    """A command that goes into the background has answered by then."""
    listeners = Listeners(command=script(tmp_path, "#!/bin/sh\nsleep 60 &\n"))
    began = time.monotonic()
    event = Event(kind=EventKind.BEFORE_DROP, change="c1")
    assert listeners.ask(event, lambda event, why: None) is None
    assert time.monotonic() - began < 30


def test_an_answer_comes_behind_what_was_told_before(
    tmp_path: Path, heard: list[Event]
) -> None:
    """Also where those before are told by the thread of their own."""
    listeners = Listeners(callables=(entry("hear"),))
    for number in range(20):
        event = Event(kind=EventKind.STATE, change=str(number))
        listeners.tell(event, lambda event, why: None)
    listeners.ask(
        Event(kind=EventKind.BEFORE_DROP, change="last"), lambda event, why: None
    )
    assert [e.change for e in heard] == [*map(str, range(20)), "last"]


def test_people_and_signals_are_told(
    runner: Runner, change: Change, heard: list[Event], sql: psycopg.Connection
) -> None:
    """Pause, resume, throttle and abort, with who said so and why."""
    listeners = Listeners(callables=(entry("hear"),))
    engine = listening(runner, listeners)
    runner.expand(change)
    engine.say("c1", Mode.PAUSE, "closing")
    engine.say("c1", Mode.RUN, "")
    engine.limit("c1", Limits(max_rows_per_s=5.0))
    engine.limit("c1", None)
    sql.execute("CREATE TABLE load (n int); INSERT INTO load VALUES (100)")
    found: Policy = policy(
        {"query": {"load": {"sql": "SELECT n FROM load", "abort": 10}}}
    )
    with pytest.raises(Held):
        replace(engine, guard=found).settle("c1")
    with pytest.raises(Held):
        engine.settle("c1")
    told_all(listeners)
    kinds = [e.kind.value for e in heard]
    assert kinds[:4] == ["pause", "resume", "throttle", "throttle"]
    assert heard[0].detail == {"by": sql.info.user, "reason": "closing"}
    assert heard[2].detail["max_rows_per_s"] == 5.0
    assert heard[3].detail["off"] is True
    aborts = [e for e in heard if e.kind is EventKind.ABORT]
    assert aborts[0].detail["signal"] == "load"
    assert kinds[-1] == "held"


def progress(heard: list[Event]) -> list[Mapping[str, Any]]:
    """Return what was told of how far a step is."""
    return [e.detail for e in heard if e.kind is EventKind.PROGRESS]


def test_how_far_a_backfill_is_is_told(
    runner: Runner, change: Change, heard: list[Event], sql: psycopg.Connection
) -> None:
    """At its beginning, with the rows that there are, and from time to time."""
    sql.execute("ANALYZE users")
    listeners = Listeners(callables=(entry("hear"),), progress_every_s=0.2)
    engine = listening(runner, listeners)
    engine.expand(change)
    runner.limit("c1", Limits(max_rows_per_s=1.0))
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(engine.settle, "c1")
        try:
            wait_for("progress", lambda: len(progress(heard)) >= 3 or done.done())
        finally:
            runner.limit("c1", None)
        assert done.result() is State.VERIFIED
    told_all(listeners)
    told = progress(heard)
    backfill = [d for d in told if d["phase"] == "backfill"]
    assert backfill[0]["table_rows"] == 50
    assert [d["rows"] for d in backfill[:3]] == [0, 50, 50]
    assert backfill[2]["waiting"] == "limit of 1 row/s"
    assert told[-1]["phase"] == "verify"


def test_too_many_failures_are_told(
    runner: Runner, change: Change, heard: list[Event], sql: psycopg.Connection
) -> None:
    """A change that is paused since its chunks fail says so."""
    listeners = Listeners(callables=(entry("hear"),))
    engine = replace(
        listening(runner, listeners),
        guard=policy({"error-budget": 2}),
        settings=replace(runner.settings, until_s=time.monotonic() + 3),
    )
    runner.expand(change)
    with psycopg.connect(sql.info.dsn) as other:
        # Rows that are locked let each chunk fail.
        other.execute("SELECT FROM users FOR UPDATE")
        with pytest.raises(TimeIsUp):
            engine.settle("c1")
    told_all(listeners)
    (retry,) = (e for e in heard if e.kind is EventKind.RETRY)
    assert "lock timeout" in retry.detail["error"]
    assert retry.detail["chunks"] == 1
    (pause,) = (e for e in heard if e.kind is EventKind.PAUSE)
    assert pause.detail["reason"].startswith("2 chunks failed within 10 minutes")


def test_rows_out_of_step_and_failures_are_told(
    runner: Runner, change: Change, heard: list[Event], sql: psycopg.Connection
) -> None:
    """A verification that found rows tells the state, the pause and the failure."""
    listeners = Listeners(callables=(entry("hear"),))
    engine = listening(runner, listeners)
    runner.expand(change)
    runner.backfill("c1")
    # A trigger of the application that puts the sides apart on each write.
    sql.execute(
        "CREATE FUNCTION apart() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " NEW.full_name := 'x'; RETURN NEW; END $$"
    )
    sql.execute(
        "CREATE TRIGGER zzzz_apart BEFORE UPDATE ON users FOR EACH ROW"
        " EXECUTE FUNCTION apart()"
    )
    sql.execute("UPDATE users SET name = name || '!' WHERE id = 1")
    with pytest.raises(Exception, match="not in step"):
        engine.verify("c1")
    told_all(listeners)
    assert [e.kind.value for e in heard] == [
        *("phase", "progress", "state", "pause", "failed"),
    ]
    assert "out of step after repair" in heard[3].detail["reason"]


def test_an_event_is_told_after_its_commit(
    database: str, runner: Runner, change: Change
) -> None:
    """Whoever hears of a state finds it in the ledger already."""
    found: list[tuple[str, str]] = []

    class Looking(Listeners):
        def _told(self, event: Event, record: Any) -> list[str]:
            if event.kind is EventKind.STATE:
                with psycopg.connect(database) as conn:
                    row = conn.execute(
                        "SELECT count(*) FROM migrator.events WHERE kind = 'state'"
                        " AND detail->>'state' = %s",
                        (event.detail["state"],),
                    ).fetchone()
                assert row is not None
                found.append((event.detail["state"], row[0]))
            return []

    listeners = Looking(command=("unused",))
    engine = listening(runner, listeners)
    engine.expand(change)
    engine.settle("c1")
    told_all(listeners)
    assert found == [("expanded", 1), ("backfilled", 1), ("verified", 1)]


def test_a_project_names_its_command(database: str, tmp_path: Path) -> None:
    """Plain `alembic upgrade` tells it too; the environment can put it out."""
    release = Release.make("v2", tmp_path, database, PLAIN, NAME)
    script(release.folder, NOTE)
    (release.folder / "pyproject.toml").write_text(
        '[tool.migrator.events]\ncommand = "./notify.sh"\n'
    )
    release.alembic("upgrade", "r1")
    release.fill()
    release.alembic("upgrade", "head")
    events = [event for event, _, _ in noted(release.folder)]
    assert events == ["before-expand", "phase", "state"]
    release.run("pause", "r2")
    wait_for("the pause", lambda: noted(release.folder)[-1][0] == "pause")
    quiet = replace(release, more=((VARIABLE, ""),))
    quiet.run("resume", "r2")
    assert noted(release.folder)[-1][0] == "pause"


@pytest.mark.parametrize(
    ("section", "wrong"),
    [
        ('comand = "x"', "a setting 'comand' that there is not"),
        ("command = 5", "a command that cannot be read"),
        ('command = "\'"', "a command that cannot be read"),
        ('time-limit-s = "10s"', "a time-limit-s that is no number of seconds"),
        ("progress-every-s = 0", "a progress-every-s that is no number of seconds"),
    ],
)
def test_a_section_that_is_wrong_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: str, wrong: str
) -> None:
    """The error names what is wrong in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    Path("pyproject.toml").write_text(f"[tool.migrator.events]\n{section}\n")
    with pytest.raises(UsageError) as error:
        Listeners.of_project()
    assert error.value.what == f"[tool.migrator.events] has {wrong}."


def test_a_command_that_cannot_be_run_is_named(tmp_path: Path) -> None:
    """One that is not there says so, and holds a phase."""
    listeners = Listeners(command=("./no-such",), folder=tmp_path)
    event = Event(kind=EventKind.BEFORE_DROP, change="c1")
    assert listeners.ask(event, lambda event, why: None) == (
        "./no-such cannot be run: No such file or directory"
    )
