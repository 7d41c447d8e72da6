"""Databases that were made without the ledger, and how it learns of them."""

import json
import subprocess
from typing import Any

import psycopg
import pytest
from projects import NAME, change
from quick import Quick
from test_histories import dump, other
from test_midflight import CARRY, project
from test_plan import PATTERNS, facts_of

from migrator.facts import Column, Constraint, Index, IndexColumn, Table
from migrator.final import Final, Key
from migrator.names import TableName
from migrator.pattern import Pattern
from migrator.patterns import CreateIndex
from migrator.patterns import Key as IndexKey
from migrator.postgres.embedded import Server

__all__ = ["project"]

AGAIN = change("r3", "r2", "RenameColumn", '"users", "full_name", "label"')
AGE = change("r3", "r2", "AddColumn", '"users", "age", "int"')


def made(project: Quick, *columns: str) -> None:
    """Make the table as `create_all` does, and stamp the head."""
    with psycopg.connect(project.url) as conn:
        given = ", ".join(f"{c} varchar NOT NULL" for c in columns)
        conn.execute(f"CREATE TABLE users (id serial PRIMARY KEY, {given})".encode())
        row = ", ".join(["'x'"] * len(columns))
        named = ", ".join(columns)
        conn.execute(f"INSERT INTO users ({named}) VALUES ({row})".encode())
    project.run("stamp", "head")


def told(project: Quick, *words: str, code: int = 0) -> dict[str, dict[str, Any]]:
    """Return what is said of each change."""
    done = project.migrator("reconcile", *words, "--json", code=code)
    return {c["change"]: c for c in json.loads(done.stdout)["changes"]}


def refusal(project: Quick, *words: str, code: int = 1) -> str:
    """Return why a change is not entered; nothing is."""
    before = project.migrator("status", "--json").stdout
    done = project.migrator("reconcile", *words, code=code)
    assert project.migrator("status", "--json").stdout == before
    return done.stderr


def test_the_final_shape_is_entered_as_dropped(project: Quick) -> None:
    """The gate lets the release go out then; there is no way back from there."""
    project.write("r2", NAME)
    made(project, "full_name")
    assert "migrator reconcile r2" in project.migrator("expand", "r2", code=1).stderr
    assert "migrator reconcile r2" in project.migrator("hook", "gate", code=3).stdout
    found = told(project)["r2"]
    assert (found["ledger"], found["shape"]) == (None, "final")
    assert found["next"] == "`migrator reconcile r2 --as dropped`"
    error = refusal(project, "r2", "--as", "planned")
    assert 'r2 (rename column "name" of table "users" to "full_name")' in error
    assert 'has no column "name"' in error
    text = project.migrator("reconcile", "r2", "--as", "dropped").stdout
    assert text.splitlines()[-1] == "Nothing to reconcile."
    status = json.loads(project.migrator("status", "--json").stdout)["changes"]
    assert [(c["id"], c["state"], c["finished"]) for c in status] == [
        ("r2", "dropped", True)
    ]
    assert "reconciled: dropped" in project.migrator("log", "r2").stdout
    project.migrator("hook", "gate")
    project.run("check")
    done = project.run("downgrade", "-1", code=255)
    assert "is dropped: there is no way back" in done.stdout
    error = project.migrator("rollback", "r2", code=1).stderr
    assert "r2 was not run here, but entered as dropped" in error
    assert "is dropped by the ledger, which ran it" in refusal(
        project, "r2", "--as", "dropped"
    )


def test_the_old_shape_is_entered_as_planned_and_expanded(project: Quick) -> None:
    """The revision was stamped too early: the change has its whole life before it."""
    project.write("r2", NAME)
    made(project, "name")
    found = told(project)["r2"]
    assert found["shape"] == "old"
    assert found["differences"] == [
        'column "full_name" is not there',
        'column "name" is there',
    ]
    error = refusal(project, "r2", "--as", "dropped")
    assert 'not entered as dropped: column "full_name" is not there; column' in error
    assert "give --as planned" in error
    project.migrator("reconcile", "r2", "--as", "planned")
    project.migrator("expand", "r2")
    for words in CARRY.values():
        project.migrator(*words)
    assert project.columns() == ["id", "full_name"]


def test_a_shape_in_between_is_refused(
    project: Quick, server: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Of a schema that was copied in mid-change it is told what was left there."""
    project.write("r2", NAME)
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
    found = told(copied)["r2"]
    assert found["shape"] == "between"
    (left,) = found["left_over"]
    assert left.startswith("trigger public.users.zzz_migrator_")
    for state in ("dropped", "planned"):
        error = refusal(copied, "r2", "--as", state)
        assert f"it left {left}" in error


def test_what_the_catalogue_does_not_tell_needs_a_word(project: Quick) -> None:
    """It is kept in the log."""
    project.write("r2", NAME)
    project.write("r3", AGE)
    made(project, "full_name", "age")
    found = told(project, "r3")["r3"]
    assert (found["shape"], found["untold"]) == ("untold", "its type and its default")
    error = refusal(project, "r3", "--as", "dropped", code=3)
    assert "the catalogue does not tell its type and its default" in error
    project.migrator("reconcile", "r3", "--as", "dropped", "--assured", "create_all")
    assert "reconciled: dropped, create_all" in project.migrator("log", "r3").stdout
    # What is neither the one nor the other stays as it is.
    assert told(project)["r2"]["ledger"] is None


def test_all_at_once_with_what_came_after(project: Quick) -> None:
    """A change whose shape is gone was finished before the one that took it away."""
    project.write("r2", NAME)
    project.write("r3", AGAIN)
    made(project, "label")
    found = told(project)
    assert [c["shape"] for c in found.values()] == ["neither", "final"]
    error = refusal(project, "r2", "--as", "dropped")
    assert 'column "full_name" is not there' in error
    found = told(project, "--as", "dropped")
    assert [c["ledger"] for c in found.values()] == ["dropped", "dropped"]
    log = project.migrator("log", "--json").stdout
    (event,) = [
        e
        for e in json.loads(log)["events"]
        if e["change"] == "r2" and e["kind"] == "reconciled"
    ]
    assert event["detail"]["superseded"] == "r3"


def test_what_is_not_applied_is_not_entered(project: Quick) -> None:
    """Its revision brings it; what the ledger has run is its own."""
    project.write("r2", NAME)
    project.run("upgrade", "r1")
    project.fill()
    assert "its revision is not applied" in refusal(project, "r2", "--as", "dropped")
    assert told(project, "--as", "dropped")["r2"]["shape"] is None
    project.run("upgrade", "head")
    assert "is expanded by the ledger" in refusal(project, "r2", "--as", "planned")
    text = project.migrator("reconcile").stdout
    assert text.splitlines()[-1] == "Nothing to reconcile."


USERS = Table(
    name=TableName("public", "users"),
    oid=1,
    columns=(
        Column(name="a", type="int", not_null=True),
        Column(name="b", type="int", default="1"),
    ),
    indexes=(
        Index(name="i", method="btree", keys=(IndexColumn(name="a"),), unique=True),
        Index(name="broken", method="btree", keys=(), valid=False),
    ),
    constraints=(
        Constraint(name="u", kind="u", columns=("a",)),
        Constraint(name="open", kind="c", validated=False),
    ),
)


@pytest.mark.parametrize(
    ("final", "differences"),
    [
        (Final(columns=("a",), gone=("c",), not_null=("a",), nullable=("b",)), []),
        (Final(columns=("c",)), ['column "c" is not there']),
        (Final(gone=("a",)), ['column "a" is there']),
        (Final(gone=("u",)), ['constraint "u" is there']),
        (Final(gone=("i",)), ['index "i" is there']),
        (Final(not_null=("b",)), ['column "b" may hold NULL']),
        (Final(nullable=("a",)), ['column "a" is NOT NULL']),
        (Final(no_default=("a", "b")), ['column "b" has a default']),
        (Final(there=False), ["the table is there"]),
        (Final(keys=(Key(name="u", kind="u", columns=("a",)),)), []),
        (Final(keys=(Key(name="i", kind="i", columns=("a",), unique=True),)), []),
        (Final(keys=(Key(name="i", kind="i"),)), ['index "i" is unique']),
        (
            Final(keys=(Key(name="i", kind="i", columns=("b",), unique=True),)),
            ['index "i" has other columns'],
        ),
        (Final(keys=(Key(name="no", kind="i"),)), ['index "no" is not there']),
        (Final(keys=(Key(name="broken", kind="i"),)), ['index "broken" is not valid']),
        (Final(keys=(Key(name="no", kind="u"),)), ['constraint "no" is not there']),
        (Final(keys=(Key(name="u", kind="p"),)), ['constraint "u" is of another kind']),
        (
            Final(keys=(Key(name="open", kind="c"),)),
            ['constraint "open" is not validated'],
        ),
        (
            Final(keys=(Key(name="u", kind="u", columns=("b",)),)),
            ['constraint "u" has other columns'],
        ),
    ],
)
def test_what_is_otherwise(final: Final, differences: list[str]) -> None:
    """Each difference is told, and none that there is not."""
    assert final.differences(USERS) == differences


def test_an_index_by_what_is_more_than_its_columns() -> None:
    """Order, predicate and options are left to a person."""
    plain = CreateIndex("users", ["a"], "i", unique=True).final()
    assert (plain.untold, plain.differences(USERS)) == ("", [])
    for index in (
        CreateIndex("users", ["a"], "i", unique=True, where="a > 0"),
        CreateIndex("users", [IndexKey("a", order="desc")], "i", unique=True),
    ):
        assert index.final().untold == "its whole definition"
        assert index.final().differences(USERS) == []


@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
def test_the_old_shape_is_not_the_final_one(pattern: Pattern) -> None:
    """What a pattern says of its end is not so at its beginning, where it tells all."""
    final = pattern.final()
    if final is not None and not final.untold:
        assert final.differences(facts_of(pattern).table)


def test_a_table_that_is_gone() -> None:
    """That may be what is wanted."""
    assert Final(columns=("a",)).differences(None) == ["the table is not there"]
    assert Final(there=False).differences(None) == []


def test_a_change_whose_table_is_gone_ends(project: Quick) -> None:
    """By a person's word; what takes the table's name is free then."""
    project.write("r2", NAME)
    project.run("upgrade", "r1")
    project.fill()
    project.migrator("expand", "r2")
    with psycopg.connect(project.url, autocommit=True) as conn:
        conn.execute("DROP TABLE users")
        for words in (("backfill", "r2"), ("rollback", "r2")):
            error = project.migrator(*words, code=1).stderr
            assert "`migrator reconcile" in error
        assert told(project)["r2"]["shape"] == "gone"
        text = project.migrator("reconcile", "r2").stdout
        assert 'Table "public"."users" is gone.' in text
        assert "is gone" in refusal(project, "r2", "--as", "dropped", code=3)
        assert "give --as dropped" in refusal(project, "r2", "--as", "planned")
        words = ("--as", "dropped", "--assured", "an old table")
        project.migrator("reconcile", "r2", *words)
        row = conn.execute(
            "SELECT state, finished, (SELECT count(*) FROM pg_proc"
            " WHERE proname LIKE 'mirror%') FROM migrator.changes"
        ).fetchone()
        assert row == ("dropped", True, 0)
        assert "an old table" in project.migrator("log", "r2").stdout
        assert "not known" in project.migrator("rollback", "r2", code=1).stderr
        conn.execute("CREATE TABLE users (id int)")
        assert told(project)["r2"]["shape"] is None
