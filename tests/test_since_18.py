"""What tables have since PostgreSQL 18, under patterns that know no more of it."""

import psycopg
import pytest

from migrator.change import Change
from migrator.errors import Refused
from migrator.pattern import Pattern
from migrator.patterns import (
    AddPrimaryKey,
    AddUnique,
    ChangeColumnType,
    CreateIndex,
    DropConstraint,
    Key,
    RenameConstraint,
    SplitTable,
)
from migrator.plan import State
from migrator.runner import Runner

WORD = "before a word"


def change(pattern: Pattern, revision: str = "a1") -> Change:
    """Return the change that a pattern declares."""
    return Change(revision=revision, pattern=pattern)


@pytest.fixture(autouse=True)
def new(sql: psycopg.Connection) -> None:
    """Skip on earlier servers."""
    if sql.info.server_version < 180000:
        pytest.skip("18 and later")


def test_keys_without_overlaps(runner: Runner, sql: psycopg.Connection) -> None:
    """The index is none that is built beside the traffic; a range covers others."""
    sql.execute(
        "CREATE TABLE p (id int4range, d daterange, PRIMARY KEY (id, d WITHOUT"
        " OVERLAPS), CONSTRAINT u UNIQUE (id, d WITHOUT OVERLAPS));"
        "CREATE TABLE c (id int4range, d daterange,"
        " CONSTRAINT fk FOREIGN KEY (id, PERIOD d) REFERENCES p (id, PERIOD d));"
        "INSERT INTO p VALUES ('[1,2)', '[2020-01-01,2021-01-01)');"
        "INSERT INTO c VALUES ('[1,2)', '[2020-02-01,2020-03-01)')"
    )
    drop = change(DropConstraint("c", "fk"))
    runner.expand(drop)
    runner.retire("a1", old_release_gone="test")
    assert runner.rollback("a1") is State.VERIFIED
    back = sql.execute("SELECT convalidated FROM pg_constraint WHERE conname = 'fk'")
    assert back.fetchall() == [(True,)]
    sql.execute("DROP TABLE c")
    with pytest.raises(Refused, match=r'"u" of table .* is WITHOUT OVERLAPS'):
        runner.plan(change(DropConstraint("p", "u", assured=WORD), "b"))
    to_text = ChangeColumnType("p", "id", "text", to="number", assured=WORD)
    with pytest.raises(Refused, match=r'is under "u", which'):
        runner.plan(change(to_text, "c"))


def test_columns_that_are_not_stored(runner: Runner, sql: psycopg.Connection) -> None:
    """No index is on them, nor on what reads them."""
    sql.execute(
        "CREATE TABLE t (a int, v int GENERATED ALWAYS AS (a * 2) VIRTUAL,"
        " w int GENERATED ALWAYS AS (a * 3) STORED);"
        "INSERT INTO t SELECT generate_series(1, 9)"
    )
    for pattern in (
        CreateIndex("t", ["v"], "i"),
        AddUnique("t", ["v"], "i"),
        AddPrimaryKey("t", ["v"], "i"),
    ):
        with pytest.raises(Refused, match=r'"v" of table .* is generated and not'):
            runner.plan(change(pattern))
    for pattern in (
        CreateIndex("t", [Key(expression="v + 1")], "i"),
        CreateIndex("t", ["a"], "i", where="v > 1"),
    ):
        with pytest.raises(Refused, match="indexes on virtual generated columns"):
            runner.plan(change(pattern))
    stored = CreateIndex("t", ["w", Key(expression="w + 1")], "i")
    assert runner.expand(change(stored)) is State.VERIFIED


def test_names_of_not_null(runner: Runner, sql: psycopg.Connection) -> None:
    """A partition may have another one for the same, which the server does not find."""
    sql.execute(
        "CREATE TABLE t (id int CONSTRAINT given NOT NULL) PARTITION BY LIST (id);"
        "CREATE TABLE p (id int CONSTRAINT own NOT NULL);"
        "ALTER TABLE t ATTACH PARTITION p FOR VALUES IN (1)"
    )
    rename = change(RenameConstraint("t", "given", "wanted"))
    with pytest.raises(Refused, match=r'partition "public"."p" constraint "given" has'):
        runner.plan(rename)
    sql.execute("ALTER TABLE t DETACH PARTITION p")
    assert runner.expand(rename) is State.VERIFIED


def test_names_of_not_null_in_a_new_table(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Those that somebody gave go along, with their comments; others are its own."""
    sql.execute(
        "CREATE TABLE users (id int PRIMARY KEY, bio text CONSTRAINT given NOT NULL,"
        " word text NOT NULL); COMMENT ON CONSTRAINT given ON users IS 'why';"
        "INSERT INTO users VALUES (1, 'b', 'w')"
    )
    split = SplitTable(
        "users", "profiles", {"bio": "bio", "word": "said"}, key=["id"], assured="test"
    )
    runner.expand(change(split))
    runner.settle("a1")
    runner.retire("a1", old_release_gone="test")
    runner.drop("a1")
    found = sql.execute(
        "SELECT conname, obj_description(oid) FROM pg_constraint"
        " WHERE conrelid = 'profiles'::regclass AND contype = 'n' ORDER BY conname"
    )
    assert found.fetchall() == [
        ("given", "why"),
        ("profiles_id_not_null", None),
        ("profiles_said_not_null", None),
    ]
