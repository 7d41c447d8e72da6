"""An autovacuum in the way of a step: moved aside, or named."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import psycopg
import pytest

from migrator.change import Change
from migrator.errors import LockBudgetError
from migrator.patterns import AddColumn
from migrator.plan import State
from migrator.postgres import blocking
from migrator.postgres.connection import Target
from migrator.postgres.embedded import Server
from migrator.runner import Runner

CHANGE = Change(revision="v1", pattern=AddColumn("t", "extra", "int"))
# Seconds for the launcher to start a worker; it looks once a second.
START_S = 60.0

# A page takes 100 ms: minutes for a table of a few thousand.
SLOW = (
    "CREATE TABLE t (id int, body text) WITH (autovacuum_vacuum_cost_delay = 100,"
    " autovacuum_vacuum_cost_limit = 1, autovacuum_vacuum_threshold = 0,"
    " autovacuum_vacuum_scale_factor = 0, autovacuum_enabled = off)"
)
FILL = "INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(1, 20000) g"
WORKER = (
    "SELECT pid FROM pg_stat_activity WHERE backend_type = 'autovacuum worker'"
    " AND query LIKE 'autovacuum: VACUUM%public.t%'"
)
# As many transactions as autovacuum_freeze_max_age has at least.
AGE = """DO $$ BEGIN
  FOR i IN 1..110000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP;
END $$"""


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Iterator[Server]:
    """Give a server whose autovacuum is watchful."""
    with start_server(
        autovacuum_naptime="1s", autovacuum_freeze_max_age="100000"
    ) as made:
        yield made


@pytest.fixture
def owner(database: str, sql: psycopg.Connection, runner: Runner) -> Runner:
    """Give an engine whose role owns the table and may do nothing else."""
    name = database.rpartition("/")[2]
    sql.execute("CREATE ROLE own LOGIN PASSWORD 'x'")
    sql.execute(f"GRANT CREATE ON DATABASE {name} TO own".encode())
    sql.execute(SLOW)
    sql.execute("ALTER TABLE t OWNER TO own")
    sql.execute("GRANT ALL ON SCHEMA public TO own")
    params = {**Target.from_url(database).params, "user": "own", "password": "x"}
    return Runner(Target(params), runner.settings)


def began(sql: psycopg.Connection) -> int:
    """Wait for the table's autovacuum, and return its process."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        row = sql.execute(WORKER).fetchone()
        if row is not None:
            return int(row[0])
        time.sleep(0.1)
    raise AssertionError("no autovacuum began")


def dead(sql: psycopg.Connection) -> int:
    """Fill the table with dead rows, and wait for its autovacuum."""
    sql.execute(FILL)
    sql.execute("UPDATE t SET id = -id")
    sql.execute("ALTER TABLE t SET (autovacuum_enabled = on)")
    return began(sql)


def test_it_gives_way_to_a_role_that_may_set_deadlock_timeout(
    owner: Runner, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step's own wait for its lock ends it."""
    monkeypatch.setattr(blocking, "move_aside", lambda *_: False)
    sql.execute("GRANT SET ON PARAMETER deadlock_timeout TO own")
    dead(sql)
    assert owner.expand(CHANGE) is State.VERIFIED


def test_it_gives_way_to_the_owner(owner: Runner, sql: psycopg.Connection) -> None:
    """A weak lock that may wait for longer ends it."""
    dead(sql)
    assert owner.expand(CHANGE) is State.VERIFIED


def test_it_is_named(owner: Runner, sql: psycopg.Connection) -> None:
    """Where there was no time to move it aside, the error says what helps."""
    pid = dead(sql)
    owner.settings = replace(owner.settings, step_budget_s=0.0)
    with pytest.raises(LockBudgetError) as caught:
        owner.expand(CHANGE)
    assert str(caught.value) == (
        'Step \'add_column\' on table "public"."t" got no lock within 200 ms'
        " (1 attempt).\n"
        "This step changed nothing; steps before it stay.\n"
        f"Held by pid {pid} (autovacuum).\n"
        "Next: as a superuser, or from 18 on with pg_signal_autovacuum_worker, end it"
        " by pg_cancel_backend and run the same command again. GRANT SET ON PARAMETER"
        " deadlock_timeout lets this role move it aside."
    )


@pytest.mark.parametrize("who", ["owner", "superuser"])
def test_one_that_prevents_wraparound_is_waited_for(
    who: str, owner: Runner, runner: Runner, sql: psycopg.Connection
) -> None:
    """The server does not end it for a lock; the error says so."""
    sql.execute(FILL)
    sql.execute(AGE)
    pid = began(sql)
    engine = owner if who == "owner" else runner
    with pytest.raises(LockBudgetError) as caught:
        engine.expand(CHANGE)
    text = str(caught.value)
    assert f"Held by pid {pid} (autovacuum that prevents wraparound" in text
    assert text.endswith(
        "Next: wait until that autovacuum is through, then run the same command again:"
        " the server ends it for no lock, and begins it again when a person does."
    )
