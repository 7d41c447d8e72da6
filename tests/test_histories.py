"""The same history in production's order and on a fresh database; lives between."""

import json
import subprocess
from collections.abc import Mapping
from functools import partial

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from quick import Quick
from test_autogenerate import SHAPE, Shape
from test_midflight import CARRY, PLAIN, change, project, set_env

from migrator.plan import State
from migrator.postgres.connection import Target
from migrator.postgres.embedded import Server
from migrator.runner import Runner
from migrator.settings import Settings

__all__ = ["project"]

History = tuple[tuple[str, str | tuple[str, ...], str], ...]

#: Revision, the one before it, and the change or table that it holds.
LINE: History = (
    ("r2", "r1", 'RenameColumn("users", "name", "full_name")'),
    ("r3", "r2", "orders"),
    ("r4", "r3", 'AddColumn("users", "age", "int", default="0")'),
    ("r5", "r4", 'CreateIndex("users", ["age"], "ix_users_age")'),
    ("r6", "r5", 'SetNotNull("users", "age", fill="0")'),
)
#: Two branches that come together.
BRANCHED: History = (
    ("r2", "r1", 'RenameColumn("users", "name", "full_name")'),
    ("s2", "r1", "orders"),
    ("s3", "s2", 'CreateIndex("orders", ["id"], "ix_orders_id")'),
    ("r3", ("r2", "s3"), 'AddColumn("users", "age", "int", default="0")'),
)


#: Changes that are in flight together, and such that may not be.
WAITING: History = (
    ("r2", "r1", 'RenameColumn("users", "name", "full_name")'),
    ("r3", "r2", 'AddColumn("users", "age", "int", computed="0")'),
    ("r4", "r3", 'SetNotNull("users", "age", fill="0")'),
    ("r5", "r4", "orders"),
    ("r6", "r5", 'RenameColumn("users", "full_name", "label")'),
)
#: Two branches that touch the same, in whatever order; the merge waits for both.
MERGED: History = (
    ("r2", "r1", 'AddColumn("users", "age", "int", computed="0")'),
    ("s2", "r1", 'AddCheck("users", "positive", "id > 0 OR users IS NOT NULL")'),
    ("m3", ("r2", "s2"), "orders"),
    ("t4", "m3", 'SetNotNull("users", "age", fill="0")'),
)
REQUIRES: Mapping[str, str | tuple[str, ...]] = {
    "r4": "r3",
    "r6": "r2",
    "m3": ("r2", "s2"),
}


def write(
    project: Quick,
    history: History,
    requires: Mapping[str, str | tuple[str, ...]] | None = None,
) -> None:
    """Write a history's revisions."""
    for revision, down, what in history:
        if what.isidentifier():
            text = PLAIN.format(revision=revision, down="DOWN", table=what)
            text = text.replace('"DOWN"', repr(down))
        else:
            text = change(revision, "DOWN", what).replace("'DOWN'", repr(down))
        named = (requires or {}).get(revision)
        if named is not None:
            text = text.replace("\n\n\n", f"\nrequires = {named!r}\n\n\n", 1)
        project.write(revision, text)


def changes(history: History) -> list[str]:
    """Return the revisions that hold changes."""
    return [revision for revision, _, what in history if not what.isidentifier()]


def dump(server: Server, url: str, *words: str) -> str:
    """Return a database's schema, without the ledger and Alembic's own table."""
    tool = server.bindir / "pg_dump"
    if not tool.exists():
        pytest.skip(f"no pg_dump beside the server in {server.bindir}")
    done = subprocess.run(
        [tool, "--no-owner", "--no-privileges", *words, url],
        capture_output=True,
        text=True,
        check=True,
    )
    # Newer ones write a key that is another each time.
    return "\n".join(
        line for line in done.stdout.splitlines() if "restrict" not in line
    )


def schema(server: Server, url: str) -> str:
    """Return the application's schema."""
    return dump(server, url, "--schema-only", "-N", "migrator", "-T", "alembic_version")


def other(
    project: Quick, server: Server, folders: pytest.TempPathFactory, name: str
) -> Quick:
    """Return the same project on an empty database of its own."""
    database = f"{conninfo_to_dict(project.url)['dbname']}_{name}"
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {database}".encode())
    made = Quick(folders.mktemp(name), server.url(database))
    for path in project.folder.rglob("*"):
        part = path.relative_to(project.folder)
        if path.is_file() and "__pycache__" not in part.parts:
            (made.folder / part).parent.mkdir(parents=True, exist_ok=True)
            (made.folder / part).write_bytes(path.read_bytes())
    set_env(made)
    return made


def carried(project: Quick, revisions: list[str]) -> None:
    """Bring changes that are expanded to their end, one after the other."""
    for revision in revisions:
        for words in CARRY.values():
            options = words[:2] if words[0] == "--hold" else ()
            command, *more = words[len(options) :]
            project.migrator(*options, command, revision, *more)


@pytest.mark.parametrize("history", [LINE, BRANCHED], ids=["line", "branches"])
def test_production_and_a_fresh_database_end_alike(
    history: History,
    project: Quick,
    server: Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Whatever the order: release by release, all at once, one by one, down and up."""
    write(project, history)
    fresh = other(project, server, tmp_path_factory, "fresh")
    single = other(project, server, tmp_path_factory, "single")
    skipped = other(project, server, tmp_path_factory, "skipped")

    project.run("upgrade", "r1")
    project.fill()
    for revision, _, what in history:
        project.run("upgrade", revision)
        if not what.isidentifier():
            carried(project, [revision])
    wanted = schema(server, project.url)

    fresh.run("upgrade", "head")
    assert schema(server, fresh.url) == wanted
    fresh.run("downgrade", "base")
    assert "CREATE TABLE" not in schema(server, fresh.url)
    fresh.run("upgrade", "head")
    assert schema(server, fresh.url) == wanted

    if history is LINE:
        # Only the first command finds a fresh database.
        single.run("upgrade", "+1")
        for revision, _, what in history:
            single.run("upgrade", "+1")
            if not what.isidentifier():
                carried(single, [revision])
        assert schema(server, single.url) == wanted

    # From the first release to the last one: what touches other columns is
    # expanded together, the rest when its turn comes.
    skipped.run("upgrade", "r1")
    skipped.fill()
    for revision in changes(history):
        skipped.run("upgrade", "head", code=None)
        carried(skipped, [revision])
    skipped.run("upgrade", "head")
    carried(skipped, changes(history))
    assert schema(server, skipped.url) == wanted


@pytest.mark.parametrize("history", [LINE, BRANCHED], ids=["line", "branches"])
def test_a_live_database_goes_down_and_up_again(
    history: History,
    project: Quick,
    server: Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """From each phase, with rows; from dropped it is refused, and stays as it is."""
    write(project, history)
    fresh = other(project, server, tmp_path_factory, "fresh")
    fresh.run("upgrade", "head")
    wanted = schema(server, fresh.url)

    project.run("upgrade", "r1")
    project.fill()
    before = shape(project.url)
    runner = Runner(Target.from_url(project.url), Settings(hold_s=0))
    for state in (State.EXPANDED, State.VERIFIED, State.RETIRED):
        # What meets a change in flight waits for it.
        project.run("upgrade", "head", code=None)
        bring(runner, "r2", state)
        project.run("downgrade", "r1")
        assert shape(project.url) == before
    for revision in changes(history):
        project.run("upgrade", "head", code=None)
        bring(runner, revision, State.DROPPED)
    assert schema(server, project.url) == wanted

    done = project.run("downgrade", "r1", code=255)
    assert "there is no way back while a release may be" in done.stdout + done.stderr
    project.run("upgrade", "head")
    for revision in changes(history):
        bring(runner, revision, State.DROPPED)
    assert schema(server, project.url) == wanted
    with psycopg.connect(project.url) as conn:
        assert conn.execute("SELECT count(full_name) FROM users").fetchone() == (500,)


def bring(runner: Runner, revision: str, state: State) -> None:
    """Carry a change that is expanded to a state, if it is not there."""
    ways = {
        State.VERIFIED: runner.settle,
        State.RETIRED: partial(runner.retire, old_release_gone="test"),
        State.DROPPED: runner.drop,
    }
    for reached, way in ways.items():
        if runner.change(revision).state.rank < reached.rank <= state.rank:
            way(revision)


def shape(url: str) -> Shape:
    """Return what the application sees of its tables."""
    with psycopg.connect(url) as conn:
        return tuple(conn.execute(q.encode()).fetchall() for q in SHAPE)


@pytest.mark.parametrize("history", [WAITING, MERGED], ids=["line", "branches"])
def test_changes_that_wait_end_as_on_a_fresh_database(
    history: History,
    project: Quick,
    server: Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Two that are disjoint run together; one that waits, once the other is over."""
    write(project, history, REQUIRES)
    project.migrator("lint", "--offline")
    fresh = other(project, server, tmp_path_factory, "fresh")
    fresh.run("upgrade", "head")

    project.run("upgrade", "r1")
    project.fill()
    order: list[list[str]] = []
    while project.run("upgrade", "head", code=None).returncode:
        flying = in_flight(project)
        order.append(flying)
        # The one that came last is finished first.
        carried(project, flying[::-1])
    order.append(in_flight(project))
    carried(project, order[-1])
    assert order == (
        [["r2", "r3"], ["r4", "r6"]]
        if history is WAITING
        else [[first] for first in (*order[0], *order[1], "t4")]
    )
    assert schema(server, project.url) == schema(server, fresh.url)


def in_flight(project: Quick) -> list[str]:
    """Return the changes that are in flight, in the order of their beginning."""
    told = json.loads(project.migrator("status", "--json").stdout)["changes"]
    return [c["id"] for c in told if c["in_flight"]]


def test_a_restore_in_mid_change_goes_on(
    project: Quick, server: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A backup taken while rows are moved is carried to its end where it is."""
    write(project, LINE[:1])
    project.run("upgrade", "r1")
    project.fill(5_000)
    project.run("upgrade", "head")
    project.migrator("throttle", "r2", "--max-rows-per-s", "1")
    project.migrator("abort", "r2", "--reason", "a backup")
    project.migrator("backfill", "r2", code=3)
    restored = other(project, server, tmp_path_factory, "restored")
    text = dump(server, project.url)
    with psycopg.connect(restored.url, autocommit=True) as conn:
        subprocess.run(
            [server.bindir / "psql", "-q", "-v", "ON_ERROR_STOP=1", restored.url],
            input=text,
            text=True,
            check=True,
            capture_output=True,
        )
        restored.migrator("throttle", "r2", "--off")
        restored.migrator("resume", "r2")
        carried(restored, ["r2"])
        rows = conn.execute("SELECT count(*), count(full_name) FROM users").fetchone()
    assert rows == (5_000, 5_000)
    assert "dropped" in restored.migrator("status").stdout


def test_a_squash_in_mid_change(project: Quick, server: Server) -> None:
    """What is in flight is finished from the ledger, without its revision."""
    write(project, LINE[:1])
    project.run("upgrade", "r1")
    project.fill()
    project.run("upgrade", "head")
    versions = project.folder / "migrations" / "versions"
    squashed = (versions / "r1.py").read_text().replace('"name"', '"full_name"')
    (versions / "r2.py").unlink()
    (versions / "r1.py").write_text(squashed.replace('"r1", None', '"r2", None'))
    carried(project, ["r2"])
    assert "dropped" in project.migrator("status").stdout
    project.run("check")
    with psycopg.connect(project.url) as conn:
        assert conn.execute("SELECT count(full_name) > 0 FROM users").fetchone() == (
            True,
        )


def test_a_schema_without_its_ledger_is_left_alone(
    project: Quick, server: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A schema alone, copied in mid-change, is told and not worked on."""
    write(project, LINE[:1])
    project.run("upgrade", "r1")
    project.fill()
    project.run("upgrade", "head")
    copied = other(project, server, tmp_path_factory, "copied")
    subprocess.run(
        [server.bindir / "psql", "-q", "-v", "ON_ERROR_STOP=1", copied.url],
        input=dump(server, project.url, "--schema-only"),
        text=True,
        check=True,
        capture_output=True,
    )
    copied.run("stamp", "head")
    before = schema(server, copied.url)
    told = copied.migrator("expand", "r2", code=1)
    assert "was never run on it" in told.stderr
    assert schema(server, copied.url) == before
