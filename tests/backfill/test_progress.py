"""How far a backfill is, how fast and why it waits: from any machine."""

from collections.abc import Callable

import psycopg
import pytest

from backfill.live import running, wait_for
from migrator.change import Change
from migrator.cli.bars import Bars
from migrator.ledger.control import Limits, Mode
from migrator.ledger.store import StepRow
from migrator.patterns import AddCheck, AddColumn
from migrator.runner import Runner
from migrator.settings import Settings

CHANGE = Change(revision="c", pattern=AddColumn("t", "n", "int", computed="id * 2"))
ROWS = 40_000


@pytest.fixture
def other(runner: Runner, sql: psycopg.Connection) -> Runner:
    """Give the engine of another machine; the change is expanded."""
    sql.execute(
        "CREATE TABLE t (id int PRIMARY KEY, pad text);"
        f"INSERT INTO t SELECT g, repeat('x', 400) FROM generate_series(1, {ROWS}) g"
    )
    runner.settings = Settings(target_ms=10)
    runner.expand(CHANGE)
    return Runner(runner.target, Settings())


def filling(runner: Runner) -> StepRow | None:
    """Return the step as the ledger has it, None before it is entered."""
    return next((s for s in runner.steps("c") if s.step.name == "fill_rows"), None)


def until(runner: Runner, true: Callable[[StepRow], object]) -> StepRow:
    """Wait until something is true of the step; return the step then."""
    found: list[StepRow] = []

    def seen() -> bool:
        found[:] = [s for s in [filling(runner)] if s is not None and true(s)]
        return bool(found)

    wait_for("the step's progress", seen)
    return found[0]


def test_share_rate_and_time_left(runner: Runner, other: Runner) -> None:
    """They follow the limit from the first second on; half a window counts half."""
    other.limit("c", Limits(max_rows_per_s=8_000))
    with running(runner):
        step = until(other, lambda s: s.rows > 12_000)
        assert step.done_share is not None
        assert 0.2 < step.done_share < 0.6
        speed = other.speed(step)
        assert speed is not None
        assert 4_000 < speed.rows_per_s < 12_000
        assert speed.left_s is not None
        assert 1 < speed.left_s < 10
        assert step.waited_share > 0.3
        other.limit("c", None)
    step = until(other, lambda s: s.status == "done")
    assert (step.rows, step.done_share) == (ROWS, 1.0)
    assert step.busy_ms > 0


def test_why_it_waits_is_told_elsewhere(
    runner: Runner, other: Runner, sql: psycopg.Connection
) -> None:
    """Until it goes on."""
    other.limit("c", Limits(max_rows_per_s=8_000))
    with running(runner):
        until(other, lambda s: s.rows)
        other.say("c", Mode.PAUSE, "closing")
        step = until(other, lambda s: s.waiting)
        assert step.waiting.startswith("paused by ")
        assert step.waiting.endswith(': "closing"')
        sql.execute("UPDATE migrator.samples SET at = at - interval '1 hour'")
        other.say("c", Mode.RUN, "")
        # The hour was no time of work.
        assert (speed := other.speed(step)) is None or speed.rows_per_s > 4_000
        until(other, lambda s: not s.waiting)
        other.limit("c", None)
    assert until(other, lambda s: s.status == "done").waited_share > 0


def test_a_phase_without_steps_has_no_heading(
    runner: Runner, sql: psycopg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    """A check that is added has nothing to backfill."""
    sql.execute("CREATE TABLE t (id int)")
    runner.progress = Bars()
    runner.expand(Change(revision="k", pattern=AddCheck("t", "k", "id > 0")))
    assert "backfill" not in capsys.readouterr().err


def test_bars_tell_of_all_processes(capsys: pytest.CaptureFixture[str]) -> None:
    """The share is the step's; what a run did of it is told apart."""
    bars = Bars()
    bars.step("fill_rows", 100)
    bars.stands(40, 4000)
    bars.advance(10, 1000, 0.1)
    bars.stands(100, 10_000)
    bars.done("fill_rows")
    bars.step("fill_rows", 100)
    bars.stands(100, 10_000)
    bars.helped("fill_rows")
    bars.step("fill_rows", 100)
    bars.advance(20, 2000, 0.1)
    bars.helped("fill_rows")
    done, nothing, some = capsys.readouterr().err.splitlines()
    assert done.startswith("  fill_rows: done, 10,000 rows, 1,000 of them by this run,")
    assert nothing == "  fill_rows: nothing is left to take"
    assert some.startswith("  fill_rows: helped with 2,000 rows in ")


def test_bars_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines that a log can keep: what was done, how fast, what was waited for."""
    bars = Bars()
    bars.phase("c", "backfill")
    bars.step("fill_rows", 100)
    bars.advance(50, 500, 0.75)
    bars.waiting("replication-lag is 40.0 MB, throttle from 32.0 MB", 0.25)
    bars.waiting("replication-lag is 41.0 MB, throttle from 32.0 MB", 0.25)
    bars.mismatch('{"id" : "7"}', None, repaired=True)
    bars.mismatch('{"id" : "8"}', '{"n" : "1"}', repaired=False)
    bars.mismatch('{"id" : "9"}', None, repaired=False, wrong="a copy")
    bars.advance(50, 500, 0.75)
    bars.done("fill_rows")
    lines = capsys.readouterr().err.splitlines()
    assert lines[:5] == [
        "backfill c",
        "  fill_rows: waiting: replication-lag is 40.0 MB, throttle from 32.0 MB",
        '  row {"id" : "7"} was out of step and is repaired.',
        '  row {"id" : "8"} stays out of step (it was {"n" : "1"}).',
        '  row {"id" : "9"} is a copy.',
    ]
    assert lines[5].startswith("  fill_rows: done, 1,000 rows in ")
    assert lines[5].endswith(", waited 25% of the time")
