"""
Every transaction of every pattern locks what its plan says, and no table more.

All of it is run by a role that owns the tables, and has no rights but to create
tables, indexes and functions beside them: what a team's migrations are run by.
"""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from locks import MODES
from releases import MAKE_APP, Scenario
from test_releases import SCENARIOS

from migrator.change import Change
from migrator.execution import Execution
from migrator.plan import Lock, State, Transaction
from migrator.postgres.connection import Connection, Target
from migrator.runner import Runner
from migrator.settings import Settings

ROLE = "migrator_test_owner"
#: What these are made on takes more: a schema, a setting of the database.
OWNS_DATABASE = {"move_to_schema", "parameter"}

# Tables by their numbers, under the names that they and what they are part of have.
TABLES = """
SELECT c.oid::bigint AS oid, c.oid::regclass::text AS name,
       pg_partition_root(c.oid)::regclass::text AS root
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'm') AND n.nspname !~ '^(pg_|information_schema$)'
   AND n.nspname <> 'migrator'
"""
LOCKS = """
SELECT relation::bigint AS oid, mode FROM pg_locks
 WHERE pid = pg_backend_pid() AND locktype = 'relation' AND granted
"""


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give the list of what was locked more strongly than was said."""
    found: list[str] = []
    run = Execution._statements

    def statements(
        self: Execution, conn: Connection, action: Transaction, *more: Any
    ) -> None:
        conn.execute("SET LOCAL search_path = ''")
        before = {r["oid"]: r for r in conn.execute(TABLES)}
        conn.execute("RESET search_path")
        run(self, conn, action, *more)
        claimed = {str(a.table).replace('"', ""): a.lock for a in action.also}
        if action.table is not None:
            claimed[str(action.table).replace('"', "")] = action.lock
        for held in conn.execute(LOCKS):
            if (table := before.get(held["oid"])) is None:
                continue
            names = [n.replace('"', "") for n in (table["name"], table["root"]) if n]
            # Out of sight of both releases.
            if "._migrator_" in names[-1]:
                continue
            said = max((claimed.get(n, Lock.NONE) for n in names), key=lambda k: k.rank)
            lock = MODES[held["mode"]]
            if lock.rank > max(said.rank, Lock.ACCESS_SHARE.rank):
                found.append(f"{lock} on {names[0]}, said {said}: {action.statements}")

    monkeypatch.setattr(Execution, "_statements", statements)
    return found


@pytest.fixture
def owner(
    database: str, sql: psycopg.Connection, scenario: Scenario
) -> Iterator[psycopg.Connection]:
    """Give a connection of the plain role, as which the engine connects as well."""
    sql.execute(MAKE_APP.encode())
    sql.execute(
        f"DO $$ BEGIN IF to_regrole('{ROLE}') IS NULL THEN"
        f" CREATE ROLE {ROLE} LOGIN; END IF; END $$".encode()
    )
    sql.execute(f"CREATE SCHEMA migrator AUTHORIZATION {ROLE}".encode())
    sql.execute(f"GRANT CREATE ON SCHEMA public TO {ROLE}".encode())
    if scenario.name in OWNS_DATABASE:
        name = urlsplit(database).path.strip("/")
        sql.execute(f"ALTER DATABASE {name} OWNER TO {ROLE}".encode())
    with psycopg.connect(as_role(database), autocommit=True) as conn:
        yield conn
    sql.execute(f"REASSIGN OWNED BY {ROLE} TO CURRENT_USER".encode())


def as_role(url: str) -> str:
    """Return the URL of the same database, for the plain role."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{ROLE}@{place}"))


@pytest.fixture
def runner(database: str) -> Runner:
    """Give the engine of the plain role."""
    return Runner(
        Target.from_url(as_role(database)),
        Settings(hold_s=0, step_budget_s=3.0, lease_s=5.0),
    )


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name)
def test_locks_are_those_that_are_claimed(
    scenario: Scenario, runner: Runner, owner: psycopg.Connection, watched: list[str]
) -> None:
    """Forward, back from retired, and on to the drop, by an owner of no more rights."""
    scenario.make_small(owner)
    # What a rollback leaves may need a word.
    pattern = type(scenario.pattern)(
        **{**scenario.pattern.parameters(), "assured": "tried"}
    )
    change = Change(revision="two", pattern=pattern)
    for _ in range(2):
        runner.expand(change)
        runner.settle("two")
        runner.retire("two", old_release_gone="test")
        if not runner.change("two").finished:
            runner.rollback("two", to=State.PLANNED)
            runner.drop_parked("two", at_once=True)
    assert not watched, "\n".join(watched)
