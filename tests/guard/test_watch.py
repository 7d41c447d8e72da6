"""Verdicts reach a backfill that runs, with their reasons."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import psycopg
import pytest
from backfill.live import running, wait_for

from migrator.backfill import brake
from migrator.change import Change
from migrator.errors import Held, TimeIsUp
from migrator.events import Event, EventKind, Listeners, Record
from migrator.guard import Action, Entry, Policy, Thresholds, watch
from migrator.guard.signal import Subject
from migrator.guard.signals import Query
from migrator.ledger.control import Limits, Mode
from migrator.patterns import AddColumn
from migrator.plan import State
from migrator.postgres.connection import Connection
from migrator.progress import Silent
from migrator.runner import Runner
from migrator.settings import Settings

CHANGE = Change(revision="c", pattern=AddColumn("t", "n", "int", computed="id * 2"))
ROWS = 40_000


def guarded(sql: str, **bounds: float) -> Policy:
    """Return a policy with one signal, a query of the user's."""
    return Policy(
        thresholds={"load": Thresholds(**bounds)},
        own=((Query, {"name": "load", "sql": sql}),),
        interval_s=0.05,
    )


@pytest.fixture
def expanded(runner: Runner, sql: psycopg.Connection) -> Runner:
    """Give an engine with a change that is expanded, and the table `load`."""
    sql.execute(
        "CREATE TABLE t (id int PRIMARY KEY, pad text);"
        f"INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, {ROWS}) g;"
        "CREATE TABLE load (n int); INSERT INTO load VALUES (0)"
    )
    runner.settings = Settings(target_ms=5, hold_s=0)
    runner.expand(CHANGE)
    return runner


def filled(sql: psycopg.Connection) -> int:
    """Return how many rows are filled."""
    row = sql.execute("SELECT count(*) FROM t WHERE n = id * 2").fetchone()
    assert row is not None
    return int(row[0])


def verdicts(runner: Runner) -> list[str]:
    """Return the actions that the log has."""
    return [e["detail"]["action"] for e in runner.events("c") if e["kind"] == "guard"]


def test_pause_until_the_figure_falls(
    expanded: Runner, sql: psycopg.Connection
) -> None:
    """Nothing is written meanwhile, and nobody has to say resume."""
    expanded.guard = guarded("SELECT n FROM load", pause=5)
    sql.execute("UPDATE load SET n = 9")
    thread = threading.Thread(target=expanded.backfill, args=("c",))
    thread.start()
    wait_for(
        "the pause",
        lambda: any(
            s.waiting == "load is 9, pause from 5" for s in expanded.steps("c")
        ),
    )
    # Not even a first chunk.
    assert filled(sql) == 0
    sql.execute("UPDATE load SET n = 0")
    thread.join(timeout=30)
    assert filled(sql) == ROWS
    assert verdicts(expanded)[:2] == ["pause", "go"]
    reason = next(e for e in expanded.events("c") if e["kind"] == "guard")["detail"]
    assert reason["reason"] == "load is 9, pause from 5"


def test_throttle_slows_down(expanded: Runner, sql: psycopg.Connection) -> None:
    """It rests as long as it works, and longer the longer the figure stays."""
    expanded.guard = guarded("SELECT n FROM load", throttle=1)
    sql.execute("UPDATE load SET n = 1")

    def waited() -> float:
        steps = (s for s in expanded.steps("c") if s.step.name == "fill_rows")
        return next((s.waited_share for s in steps if s.rows), 0.0)

    with running(expanded) as run:
        wait_for("long rests", lambda: waited() > 0.75 or run.ended)
        assert filled(sql) < ROWS
        sql.execute("UPDATE load SET n = 0")
    assert run.error is None
    assert filled(sql) == ROWS
    assert verdicts(expanded) == ["throttle", "go"]


def test_a_comparison_waits_as_well(expanded: Runner, sql: psycopg.Connection) -> None:
    """Verification reads rows under the same signals, and goes on where it was."""
    expanded.backfill("c")
    expanded.guard = guarded("SELECT n FROM load", pause=5)
    sql.execute("UPDATE load SET n = 9")
    states: list[State] = []
    thread = threading.Thread(target=lambda: states.append(expanded.verify("c")))
    thread.start()

    def waiting() -> bool:
        return any(s.waiting == "load is 9, pause from 5" for s in expanded.steps("c"))

    wait_for("the pause", waiting)
    assert states == []
    sql.execute("UPDATE load SET n = 0")
    thread.join(timeout=30)
    assert states == [State.VERIFIED]


def test_abort_holds_the_change(expanded: Runner, sql: psycopg.Connection) -> None:
    """As if a person had said so; the reason is the signal's."""
    expanded.guard = guarded("SELECT n FROM load", abort=5)
    sql.execute("UPDATE load SET n = 9")
    with pytest.raises(Held, match="load is 9, abort from 5"):
        expanded.backfill("c")
    sql.execute("UPDATE load SET n = 0")
    with pytest.raises(Held, match="migrator resume c"):
        expanded.backfill("c")
    assert filled(sql) < ROWS


def test_observe_records_without_acting(
    expanded: Runner, sql: psycopg.Connection
) -> None:
    """What would have happened is in the log."""
    policy = guarded("SELECT n FROM load", abort=5)
    expanded.guard = replace(policy, observe=True)
    sql.execute("UPDATE load SET n = 9")
    assert expanded.backfill("c") is State.BACKFILLED
    assert verdicts(expanded)[0] == "abort"


def test_what_was_acted_on_is_taken_back_where_it_is_observed(
    expanded: Runner, sql: psycopg.Connection
) -> None:
    """The log tells which verdicts are only observed, and which had been acted on."""
    acting = guarded("SELECT n FROM load", pause=5)
    sql.execute("UPDATE load SET n = 9")
    cut_off(replace(expanded, guard=acting))
    heard: list[Event] = []
    watching = replace(expanded, guard=replace(acting, observe=True))
    watching.limit("c", Limits(max_rows_per_s=10_000))
    watching.listeners = listening(heard)
    with running(watching) as run:

        def seen() -> Entry:
            return watching.verdict("c") or Entry()

        wait_for("the verdict", lambda: seen().verdict.observed or run.ended)
        assert seen().verdict.action is Action.PAUSE
        watching.limit("c", None)
    assert filled(sql) == ROWS
    assert watching.verdict("c") is None
    told = [e["detail"] for e in expanded.events("c") if e["kind"] == "guard"]
    assert [(d["mode"], d["action"]) for d in told] == [
        ("act", "pause"),
        ("observe", "pause"),
    ]
    said = [e for e in heard if e.detail.get("by") == "signal"]
    assert [e.kind for e in said] == [EventKind.RESUME]


def cut_off(runner: Runner) -> None:
    """Run a backfill that a signal lets wait, until its time is up."""
    hurried = replace(runner.settings, until_s=time.monotonic() + 1.0)
    with pytest.raises(TimeIsUp):
        replace(runner, settings=hurried).backfill("c")


def listening(heard: list[Event]) -> Listeners:
    """Return listeners that keep what they are told, at once."""

    class Now(Listeners):
        def tell(self, event: Event, untold: Record) -> None:
            heard.append(event)

    return Now()


def test_a_pause_of_an_earlier_run_ends(
    expanded: Runner, sql: psycopg.Connection
) -> None:
    """Where the figure fell between two runs, log, status and listeners are told."""
    expanded.guard = guarded("SELECT n FROM load", pause=5)
    heard: list[Event] = []
    expanded.listeners = listening(heard)
    sql.execute("UPDATE load SET n = 9")
    cut_off(expanded)
    assert verdicts(expanded) == ["pause"]
    # A further run finds the same, and has nothing new to say.
    cut_off(expanded)
    assert verdicts(expanded) == ["pause"]
    assert expanded.verdict("c") is None
    sql.execute("UPDATE load SET n = 0")
    expanded.limit("c", Limits(max_rows_per_s=20_000))
    heard.clear()
    with running(expanded) as run:
        wait_for("some rows", lambda: filled(sql) > 0 or run.ended)
        entry = expanded.verdict("c")
        assert entry is not None
        assert entry.verdict.action is Action.GO
        assert entry.at is not None
        expanded.limit("c", None)
    assert verdicts(expanded) == ["pause", "go"]
    said = [e.kind for e in heard if e.detail.get("by") == "signal"]
    assert said == [EventKind.RESUME]


def test_a_signal_that_becomes_text_pauses(
    expanded: Runner, sql: psycopg.Connection
) -> None:
    """What is no number is not safe either; it goes on once it is one again."""
    expanded.guard = guarded("SELECT n FROM load", pause=5)
    expanded.limit("c", Limits(max_rows_per_s=20_000))
    with running(expanded) as run:
        wait_for("some rows", lambda: filled(sql) > 0 or run.ended)
        sql.execute("ALTER TABLE load ALTER n TYPE text USING 'many'")
        why = (
            "load could be read and no longer can: what the query returns is no number"
        )
        wait_for(
            "the pause",
            lambda: any(s.waiting.startswith(why) for s in expanded.steps("c")),
        )
        before = filled(sql)
        time.sleep(0.3)
        assert filled(sql) == before < ROWS
        sql.execute("ALTER TABLE load ALTER n TYPE int USING 0")
        expanded.limit("c", None)
    assert run.error is None
    assert filled(sql) == ROWS


class Faulty(Query):
    """A signal that fails of what nobody thought of, once the table is not empty."""

    made = 0

    def __init__(self, **given: str) -> None:
        super().__init__(**given)
        type(self).made += 1

    def read(self, conn: Connection, subject: Subject) -> tuple[float, str]:
        """Fail, or return the figure."""
        figure, behind = Query.read(self, conn, subject)
        if figure:
            raise RuntimeError("s3cret")
        return figure, behind


def test_a_signal_that_fails_unthought_of_pauses(
    expanded: Runner, sql: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread that watches goes on; the error's text is told to nobody."""
    policy = guarded("SELECT n FROM load", pause=5)
    own = ((Faulty, policy.own[0][1]),)
    expanded.guard = replace(policy, own=own)
    expanded.limit("c", Limits(max_rows_per_s=20_000))
    with running(expanded) as run:
        wait_for("some rows", lambda: filled(sql) > 0 or run.ended)
        sql.execute("UPDATE load SET n = 1")
        why = "load could be read and no longer can: reading it fails: RuntimeError"
        wait_for(
            "the pause",
            lambda: any(s.waiting.startswith(why) for s in expanded.steps("c")),
        )
        notices = [n.text for n in expanded.plan(CHANGE).notices]
        assert (
            'Signal "load" is not watched: reading it fails: RuntimeError.' in notices
        )
        sql.execute("UPDATE load SET n = 0")
        expanded.limit("c", None)
    assert run.error is None
    assert filled(sql) == ROWS
    assert "s3cret" not in caplog.text + str(expanded.events("c"))


@dataclass
class AfterStep(Silent):
    """A progress that does something once, when the first step is done."""

    act: Callable[[], object]
    acted: bool = False

    def done(self, name: str) -> None:
        """A step is done."""
        if not self.acted:
            self.acted = True
            self.act()


def test_one_watch_for_all_steps_of_a_run(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """What vanishes between two partitions pauses; signals remember what they read."""
    sql.execute(
        "CREATE TABLE t (id int PRIMARY KEY, pad text) PARTITION BY RANGE (id);"
        "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (1000);"
        "CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (1000) TO (2000);"
        "CREATE TABLE t3 PARTITION OF t FOR VALUES FROM (2000) TO (3000);"
        "INSERT INTO t SELECT g, 'x' FROM generate_series(1, 2999) g;"
        "CREATE TABLE load (n int); INSERT INTO load VALUES (0)"
    )
    runner.expand(CHANGE)
    policy = guarded("SELECT n FROM load", pause=5)
    runner.guard = replace(policy, own=((Faulty, policy.own[0][1]),))
    runner.progress = AfterStep(lambda: sql.execute("ALTER TABLE load RENAME TO gone"))
    Faulty.made = 0
    why = 'load could be read and no longer can: relation "load" does not exist'
    with running(runner) as run:
        wait_for(
            "the pause",
            lambda: (
                run.ended or any(s.waiting.startswith(why) for s in runner.steps("c"))
            ),
        )
        assert not run.ended
        assert 0 < filled(sql) < 2999
        sql.execute("ALTER TABLE gone RENAME TO load")
    assert run.error is None
    assert filled(sql) == 2999
    assert Faulty.made == 1


def test_one_watch_for_backfill_and_verification(
    expanded: Runner, sql: psycopg.Connection
) -> None:
    """What vanishes between the runs of one command pauses the next of them."""
    expanded.guard = guarded("SELECT n FROM load", pause=5)

    class Between(Silent):
        def phase(self, change: str, phase: str) -> None:
            if phase == "verify":
                sql.execute("ALTER TABLE load RENAME TO gone")

    expanded.progress = Between()
    states: list[State] = []
    thread = threading.Thread(target=lambda: states.append(expanded.settle("c")))
    thread.start()
    wait_for("the pause", lambda: bool(states) or verdicts(expanded) == ["pause"])
    assert states == []
    sql.execute("ALTER TABLE gone RENAME TO load")
    thread.join(timeout=30)
    assert states == [State.VERIFIED]
    (paused, _) = (e for e in expanded.events("c") if e["kind"] == "guard")
    assert paused["detail"]["reason"].startswith("load could be read and no longer can")


def test_a_query_that_writes_is_not_run(
    expanded: Runner, sql: psycopg.Connection
) -> None:
    """It would write each second; the plan says that it is not watched."""
    writes = "UPDATE load SET n = n + 1 RETURNING n"
    expanded.guard = guarded(writes, pause=1e9)
    notices = [notice.text for notice in expanded.plan(CHANGE).notices]
    why = "cannot execute UPDATE in a read-only transaction"
    assert notices == [f'Signal "load" is not watched: {why}.']
    expanded.backfill("c")
    assert sql.execute("SELECT n FROM load").fetchone() == (0,)


def test_a_connection_that_is_lost_again_and_again_is_told_once(
    expanded: Runner,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The bar of progress is not drowned in it."""
    failed: list[Exception] = []
    why = watch._why
    monkeypatch.setattr(watch, "_why", lambda e: failed.append(e) or why(e))
    expanded.guard = guarded(
        "SELECT pg_terminate_backend(pg_backend_pid())::int", pause=5
    )
    with running(expanded):
        wait_for("the second time", lambda: len(failed) > 2)
        expanded.say("c", Mode.ABORT, "enough")
    (told,) = [r for r in caplog.records if r.name == "migrator.guard.watch"]
    assert "terminating connection" in told.getMessage()


def test_resume_goes_on_without_a_signal(
    expanded: Runner, sql: psycopg.Connection
) -> None:
    """A person's word ends the wait for one that is gone; the log names it."""
    expanded.guard = guarded("SELECT n FROM load", pause=5)
    expanded.limit("c", Limits(max_rows_per_s=20_000))
    with running(expanded) as run:
        wait_for("some rows", lambda: filled(sql) > 0 or run.ended)
        expanded.say("c", Mode.RUN, "said before")
        sql.execute("DROP TABLE load")
        why = (
            'load could be read and no longer can: relation "load" does not exist'
            " (waits until it can, or until `migrator resume c`)"
        )
        wait_for(
            "the pause", lambda: any(s.waiting == why for s in expanded.steps("c"))
        )
        before = filled(sql)
        # Longer than a worker waits before it looks again.
        time.sleep(2 * brake.LOOK_S)
        assert filled(sql) == before < ROWS
        expanded.say("c", Mode.RUN, "it is gone for good")
        expanded.limit("c", None)
    assert run.error is None
    assert filled(sql) == ROWS
    assert verdicts(expanded) == ["pause", "go"]
    left_out = [e["detail"] for e in expanded.events("c") if e["kind"] == "unwatched"]
    assert left_out == [{"signal": "load", "why": 'relation "load" does not exist'}]


def test_a_signal_that_vanishes_pauses(
    expanded: Runner, sql: psycopg.Connection
) -> None:
    """Unknown is not safe, once it was known."""
    expanded.guard = guarded("SELECT n FROM load", pause=5)
    expanded.limit("c", Limits(max_rows_per_s=20_000))

    def told() -> bool:
        reasons = [e["detail"].get("reason", "") for e in expanded.events("c")]
        return any("load could be read and no longer can" in r for r in reasons)

    thread = threading.Thread(target=expanded.backfill, args=("c",))
    thread.start()
    wait_for("some rows", lambda: filled(sql) > 0)
    sql.execute("ALTER TABLE load RENAME TO gone")
    wait_for("it pauses", told)
    # The chunks under way end.
    time.sleep(0.3)
    before = filled(sql)
    time.sleep(0.5)
    assert filled(sql) == before < ROWS
    sql.execute("ALTER TABLE gone RENAME TO load")
    expanded.limit("c", None)
    thread.join(timeout=60)
    assert filled(sql) == ROWS


@pytest.mark.parametrize(
    ("read_ms", "stale_s", "reason"),
    [
        (200, 60.0, "load could be read and no longer can: canceling statement due"),
        (60_000, 0.5, "no signal was read for 1 s, as load does not answer"),
    ],
)
def test_a_signal_that_hangs_pauses(
    expanded: Runner,
    sql: psycopg.Connection,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
    read_ms: int,
    stale_s: float,
    reason: str,
) -> None:
    """A verdict of long ago is none; the log has why, once it can be entered."""
    monkeypatch.setattr(watch, "READ_MS", read_ms)
    monkeypatch.setattr(watch, "STALE_S", stale_s)
    expanded.guard = guarded("SELECT n FROM load", pause=5)
    expanded.limit("c", Limits(max_rows_per_s=20_000))
    with running(expanded) as run, psycopg.connect(database) as other:
        wait_for("some rows", lambda: filled(sql) > 0 or run.ended)
        other.execute("LOCK TABLE load")

        def held() -> str:
            return next((s.waiting for s in expanded.steps("c") if s.waiting), "")

        wait_for("the pause", lambda: held().startswith(reason[:20]))
        before = filled(sql)
        time.sleep(0.3)
        assert filled(sql) == before < ROWS
        other.rollback()
        expanded.limit("c", None)
    assert run.error is None
    assert filled(sql) == ROWS
    told = [e["detail"] for e in expanded.events("c") if e["kind"] == "guard"]
    assert [d["action"] for d in told[:2]] == ["pause", "go"]
    assert told[0]["reason"].startswith(reason)


def test_a_signal_that_hangs_from_the_start(
    expanded: Runner,
    sql: psycopg.Connection,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is written before the first look, and the reason is told."""
    monkeypatch.setattr(watch, "READ_MS", 60_000)
    monkeypatch.setattr(watch, "STALE_S", 0.3)
    expanded.guard = guarded("SELECT n FROM load", pause=5)
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE load")
        with running(expanded) as run:
            wait_for(
                "the pause",
                lambda: any(
                    "does not answer" in s.waiting for s in expanded.steps("c")
                ),
            )
            assert filled(sql) == 0
            other.rollback()
    assert run.error is None
    assert filled(sql) == ROWS


def test_the_log_names_what_is_not_watched(
    expanded: Runner, sql: psycopg.Connection
) -> None:
    """Once, where it could be read when the plan was made and cannot in the run."""
    expanded.guard = guarded("SELECT n FROM load", pause=5)
    sql.execute("DROP TABLE load")
    assert expanded.settle("c") is State.VERIFIED
    left_out = [e["detail"] for e in expanded.events("c") if e["kind"] == "unwatched"]
    assert left_out == [
        {"signal": "load", "why": 'relation "load" does not exist'},
    ]


def test_the_plan_names_what_is_not_watched(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """A signal that was never readable does not hold the work up."""
    sql.execute("CREATE TABLE t (id int PRIMARY KEY)")
    runner.guard = guarded("SELECT n FROM nowhere", pause=5)
    found = 'Signal "load" is not watched: relation "nowhere" does not exist.'

    def told() -> list[str]:
        return [n.text for n in runner.plan(CHANGE).notices]

    assert found in told()
    runner.expand(CHANGE)
    # Nor is it forgotten once it is expanded, until nothing is left to be compared.
    assert told() == [found]
    assert runner.backfill("c") is State.BACKFILLED
    assert told() == [found]
    assert runner.verify("c") is State.VERIFIED
    assert told() == []
