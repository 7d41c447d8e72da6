"""A dump that is taken while a change is in flight can be restored, and it goes on."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest
from conftest import made_database
from releases import Scenario
from test_interleavings import fresh, go
from test_releases import SCENARIOS

from migrator.change import Change
from migrator.patterns import RenameColumn
from migrator.plan import State
from migrator.postgres.embedded import Server


@pytest.fixture
def copies(server: Server, request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Give URLs of three empty databases."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(made_database(server, f"{request.node.nodeid}{n}"))
            for n in range(3)
        ]


def restore(server: Server, given: str, into: str) -> None:
    """Bring all of a database into another one, without one error."""
    dump, psql = server.bindir / "pg_dump", server.bindir / "psql"
    if not (dump.exists() and psql.exists()):
        pytest.skip(f"no pg_dump and psql beside the server in {server.bindir}")
    dumped = subprocess.run([dump, given], capture_output=True, check=True)
    subprocess.run(
        [psql, "-Xqo", "/dev/null", "-v", "ON_ERROR_STOP=1", into],
        input=dumped.stdout,
        check=True,
    )


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name)
def test_a_change_goes_on_in_a_restored_database(
    scenario: Scenario, server: Server, copies: list[str]
) -> None:
    """Its triggers and what else it made are spelt so that the server reads them."""
    first, second, third = copies
    pattern = type(scenario.pattern)(
        **{**scenario.pattern.parameters(), "assured": "tried"}
    )
    change = Change(revision="two", pattern=pattern)
    with psycopg.connect(first, autocommit=True) as conn:
        scenario.make_small(conn)
    go(first, change, "expand")
    restore(server, first, second)
    runner = fresh(second)
    runner.settle("two")
    runner.retire("two", old_release_gone="test")
    restore(server, second, third)
    runner = fresh(third)
    if not runner.change("two").finished:
        runner.rollback("two", to=State.PLANNED)


@pytest.mark.parametrize("type", ["json", "numeric", "citext", "text"])
def test_triggers_that_compare_images(
    type: str, server: Server, copies: list[str]
) -> None:
    """Also one whose condition compares values that have no `=`, or a wider one."""
    first, second, _ = copies
    with psycopg.connect(first, autocommit=True) as conn:
        conn.execute("CREATE SCHEMA other; CREATE EXTENSION citext SCHEMA other")
        conn.execute("SET search_path = public, other")
        conn.execute(f"CREATE TABLE t (id int PRIMARY KEY, a {type})".encode())
        conn.execute("INSERT INTO t VALUES (1, '1')")
    go(first, Change(revision="a1", pattern=RenameColumn("t", "a", "b")), "expand")
    restore(server, first, second)
    runner = fresh(second)
    runner.settle("a1")
    with psycopg.connect(second, autocommit=True) as conn:
        rows = conn.execute(
            "INSERT INTO t (id, b) VALUES (2, '2') RETURNING a::text, b::text"
        )
        assert rows.fetchall() == [("2", "2")]
        assert conn.execute("SELECT b::text FROM t WHERE id = 1").fetchone() == ("1",)
