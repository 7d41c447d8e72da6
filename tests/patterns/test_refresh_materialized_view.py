"""RefreshMaterializedView: its text, its life, its lock and its messages."""

import threading
import time
from dataclasses import replace

import psycopg
import pytest
from locks import holding, taken

from migrator.change import Change
from migrator.errors import ConnectionLost, Failed, LockBudgetError, Refused
from migrator.facts import Facts, Table
from migrator.names import TableName
from migrator.patterns import RefreshMaterializedView
from migrator.plan import Autocommit, Lock, State
from migrator.runner import Runner
from migrator.settings import Settings

VIEW = Table(name=TableName("public", "months"), oid=1, columns=(), kind="m")
REFRESH = RefreshMaterializedView("months")
CHANGE = Change(revision="a1", pattern=REFRESH)
NOTHING = "\nNothing was changed.\nNext: "


def facts(table: Table = VIEW, **answers: bool) -> Facts:
    """Return facts about a materialized view."""
    return Facts(server_version=180000, tag="0123456789", table=table, answers=answers)


@pytest.fixture
def view(sql: psycopg.Connection) -> psycopg.Connection:
    """Give a view whose query takes as long as a table says."""
    sql.execute(
        "CREATE TABLE sales (month int, total int, naps float8 DEFAULT 0);"
        "INSERT INTO sales VALUES (1, 10), (2, 20);"
        "CREATE MATERIALIZED VIEW months AS SELECT month, total, pg_sleep(naps)::text"
        " AS slept FROM sales;"
        "CREATE UNIQUE INDEX ON months (month)"
    )
    return sql


def rows(sql: psycopg.Connection) -> list[tuple[object, ...]]:
    """Return what the view holds."""
    return sql.execute("SELECT month, total FROM months ORDER BY 1").fetchall()


# -- text --------------------------------------------------------------------


def test_text_with_hostile_names() -> None:
    """Names are quoted; the statement stands alone, and reads pass its lock."""
    name = 'mo "nths %s:x'
    table = replace(VIEW, name=TableName("my sch", name))
    (step,) = RefreshMaterializedView(name).expand(facts(table))
    assert isinstance(step.work, Autocommit)
    assert step.work.statement == (
        'REFRESH MATERIALIZED VIEW CONCURRENTLY "my sch"."mo ""nths %s:x"'
    )
    assert step.work.lock is Lock.EXCLUSIVE
    assert step.work.scans
    assert step.loses
    assert step.no_reverse == (
        "the rows that it replaced came from tables that have changed since; refreshed"
        " again, it is up to date"
    )


# -- life cycle --------------------------------------------------------------


def test_life_cycle(runner: Runner, view: psycopg.Connection) -> None:
    """It is up to date after it, a second time as well; a rollback leaves it."""
    view.execute("UPDATE sales SET total = 11 WHERE month = 1")
    view.execute("DELETE FROM sales WHERE month = 2")
    assert rows(view) == [(1, 10), (2, 20)]
    assert runner.expand(CHANGE) is State.VERIFIED
    assert runner.change("a1").finished
    assert rows(view) == [(1, 11)]
    assert runner.rollback("a1") is State.PLANNED
    assert rows(view) == [(1, 11)]
    view.execute("INSERT INTO sales VALUES (3, 30)")
    assert runner.expand(CHANGE) is State.VERIFIED
    assert rows(view) == [(1, 11), (3, 30)]


def test_readers_pass_and_a_run_cut_off_is_run_again(
    runner: Runner, view: psycopg.Connection
) -> None:
    """Its session is ended half-way: the old rows stay, and the next run does it."""
    view.execute("UPDATE sales SET total = 11, naps = 30 WHERE month = 1")
    failed: list[BaseException] = []

    def expand() -> None:
        try:
            runner.expand(CHANGE)
        except ConnectionLost as error:
            failed.append(error)

    work = threading.Thread(target=expand)
    work.start()
    busy = (
        "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        " AND datname = current_database()"
    )
    end = time.monotonic() + 20
    while not (found := view.execute(busy.encode()).fetchall()):
        assert time.monotonic() < end
        time.sleep(0.02)
    began = time.monotonic()
    assert rows(view) == [(1, 10), (2, 20)]
    assert time.monotonic() - began < 1
    view.execute("SELECT pg_terminate_backend(%s)", found[0])
    work.join()
    assert len(failed) == 1
    assert [s.status for s in runner.steps("a1")] == ["running"]
    assert rows(view) == [(1, 10), (2, 20)]
    view.execute("UPDATE sales SET naps = 0")
    assert runner.expand(CHANGE) is State.VERIFIED
    assert rows(view) == [(1, 11), (2, 20)]


def test_rows_that_are_there_twice(runner: Runner, view: psycopg.Connection) -> None:
    """The server's words are told; the old rows stay."""
    view.execute("INSERT INTO sales SELECT * FROM sales")
    with pytest.raises(Failed, match="duplicate"):
        runner.expand(CHANGE)
    assert rows(view) == [(1, 10), (2, 20)]
    view.execute("DELETE FROM sales WHERE ctid > '(0,2)'")
    assert runner.expand(CHANGE) is State.VERIFIED


# -- locks -------------------------------------------------------------------


def test_the_lock_taken_is_the_one_claimed(view: psycopg.Connection) -> None:
    """EXCLUSIVE on the view, what it reads as a reader does."""
    (step,) = REFRESH.expand(facts())
    assert isinstance(step.work, Autocommit)
    assert taken(view, step.work, "months", "sales") == {
        "months": Lock.EXCLUSIVE,
        "sales": Lock.ACCESS_SHARE,
    }


def test_another_refresh_makes_it_give_up(
    runner: Runner, view: psycopg.Connection, database: str
) -> None:
    """It waits no longer than it may, and says for whom."""
    runner.settings = Settings(lock_timeout_ms=50, step_budget_s=0.3, hold_s=0)
    with psycopg.connect(database, application_name="billing") as other:
        other.execute("REFRESH MATERIALIZED VIEW CONCURRENTLY months")
        with pytest.raises(LockBudgetError, match='application "billing"'):
            runner.expand(CHANGE)
    with holding(database, "sales", "SHARE ROW EXCLUSIVE"):
        assert runner.expand(CHANGE) is State.VERIFIED


# -- messages ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            facts(replace(VIEW, kind="v")),
            '"public"."months" is no materialized view: there is nothing to refresh.'
            f"{NOTHING}name one.",
        ),
        (
            facts(replace(VIEW, owned=False)),
            'The role of this connection does not own view "public"."months".'
            f"{NOTHING}connect as the owner, or as a member of the owner's role.",
        ),
        (
            facts(filled=False),
            'View "public"."months" was never filled: nobody can read it, and the first'
            f" time it cannot be refreshed beside readers.{NOTHING}run it once: REFRESH"
            ' MATERIALIZED VIEW "public"."months".',
        ),
        (
            facts(unique=False),
            'View "public"."months" has no unique index over columns alone, without'
            f" WHERE: a refresh would lock out its readers.{NOTHING}make one first:"
            ' CREATE UNIQUE INDEX CONCURRENTLY … ON "public"."months" (…).',
        ),
    ],
)
def test_message(given: Facts, message: str) -> None:
    """What cannot be refreshed beside readers is refused, with the way out."""
    with pytest.raises(Refused) as caught:
        REFRESH.check(given)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("index", "fine"),
    [
        ("(month)", True),
        ("(month, total)", True),
        ("((month + 1))", False),
        ("(month, (total + 1))", False),
        ("(month) WHERE month > 0", False),
    ],
)
def test_which_index_will_do(
    index: str, fine: bool, runner: Runner, view: psycopg.Connection
) -> None:
    """The answer is the server's own."""
    view.execute("DROP INDEX months_month_idx")
    view.execute(f"CREATE UNIQUE INDEX ON months {index}".encode())
    if fine:
        assert runner.expand(CHANGE) is State.VERIFIED
        return
    with pytest.raises(Refused, match="has no unique index over columns alone"):
        runner.expand(CHANGE)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        view.execute("REFRESH MATERIALIZED VIEW CONCURRENTLY months")


def test_a_view_that_was_never_filled(runner: Runner, view: psycopg.Connection) -> None:
    """It is refused before the server refuses it."""
    view.execute("REFRESH MATERIALIZED VIEW months WITH NO DATA")
    with pytest.raises(Refused, match="was never filled"):
        runner.expand(CHANGE)


def test_notice() -> None:
    """A reviewer reads what waits for it."""
    (notice,) = REFRESH.check(facts())
    assert notice.text == (
        "What it reads cannot be altered while it runs, and what dies there meanwhile"
        " stays until its end: about as long as its query takes."
    )
