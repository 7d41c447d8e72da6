"""Constraints that are NOT VALID, and rows that violate them: known before a change."""

from dataclasses import replace

import psycopg
import pytest

from migrator.change import Change
from migrator.errors import Refused
from migrator.pattern import Pattern
from migrator.patterns import (
    AddPrimaryKey,
    AttachPartition,
    CreateIndex,
    DropColumn,
    DropNotNull,
    RenameColumn,
    SetNotNull,
)
from migrator.plan import State
from migrator.runner import Runner

WORD = "before a word"


def change(pattern: Pattern) -> Change:
    """Return the change that a pattern declares."""
    return Change(revision="a1", pattern=pattern)


def test_a_check_that_cuts_a_backfill_off(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """An update of a row that violates it fails, whatever the update writes."""
    sql.execute(
        "CREATE TABLE t (id int PRIMARY KEY, name text, a int);"
        "INSERT INTO t SELECT g, 'n', g FROM generate_series(1, 9) g;"
        "ALTER TABLE t ADD CONSTRAINT ck CHECK (a > 3) NOT VALID"
    )
    rename = RenameColumn("t", "name", "full_name")
    with pytest.raises(Refused, match='Check "ck" is NOT VALID: the backfill'):
        runner.plan(change(rename))
    runner.plan(change(replace(rename, assured=WORD)))
    sql.execute("DELETE FROM t WHERE a < 4; ALTER TABLE t VALIDATE CONSTRAINT ck")
    runner.plan(change(rename))
    if sql.info.server_version >= 180000:
        # Holds no row to anything.
        sql.execute("ALTER TABLE t ADD CONSTRAINT no CHECK (a > 99) NOT ENFORCED")
        runner.plan(change(rename))


def test_a_not_null_that_was_never_proved(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Rows may hold NULL: no key rests on it, and no way back brings it again."""
    if sql.info.server_version < 180000:
        pytest.skip("NOT NULL … NOT VALID: 18 and later")
    sql.execute(
        "CREATE TABLE t (id int, name text, z int UNIQUE);"
        "INSERT INTO t SELECT g, 'n', NULLIF(g, 3) FROM generate_series(1, 9) g;"
        "ALTER TABLE t ADD CONSTRAINT nn NOT NULL z NOT VALID"
    )
    for pattern in (
        SetNotNull("t", "z"),
        DropNotNull("t", "z"),
        DropColumn("t", "z"),
        AddPrimaryKey("t", ["z"], "t_pk"),
        RenameColumn("t", "name", "full_name"),
    ):
        with pytest.raises(Refused) as caught:
            runner.plan(change(replace(pattern, assured=WORD)))
        assert str(caught.value) == (
            'Constraint "nn" of table "public"."t", NOT NULL of column "z", is NOT'
            " VALID: rows may hold NULL all the same, and cannot be updated then."
            "\nNothing was changed.\nNext: give such rows a value, then ALTER TABLE"
            ' "public"."t" VALIDATE CONSTRAINT "nn", which keeps nobody waiting.'
        )
    # A column that may be left out goes as it is, and comes back as it was.
    filled = Change(revision="b1", pattern=DropColumn("t", "z", fill="0", assured=WORD))
    assert runner.expand(filled) is State.VERIFIED
    sql.execute("INSERT INTO t (id, name) VALUES (10, 'n')")
    runner.retire("b1", old_release_gone="test")
    assert runner.rollback("b1", to=State.PLANNED) is State.PLANNED
    assert sql.execute(
        "SELECT convalidated FROM pg_constraint WHERE conname = 'nn'"
    ).fetchone() == (False,)
    # Of the rows that it is tried on none is NULL.
    assert runner.expand(change(CreateIndex("t", ["z"], "t_z"))) is State.VERIFIED


def test_a_partition_that_does_not_fit_as_it_stands(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """What a copy of a table has not is looked for in the table itself."""
    sql.execute(
        "CREATE TABLE t (id int, a int, CONSTRAINT ck CHECK (a > 0))"
        " PARTITION BY RANGE (id);"
        "CREATE TABLE n (id int, a int);"
        "ALTER TABLE n ADD CONSTRAINT ck CHECK (a > 0) NOT VALID"
    )
    attach = change(AttachPartition("t", "n", "FROM (0) TO (9)"))
    with pytest.raises(Refused, match='has "ck" NOT VALID, where its parent has'):
        runner.plan(attach)
    sql.execute(
        "ALTER TABLE n VALIDATE CONSTRAINT ck;"
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql"
        " AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER g AFTER INSERT ON n REFERENCING NEW TABLE AS new"
        " FOR EACH ROW EXECUTE FUNCTION f()"
    )
    with pytest.raises(Refused, match='a trigger "g" for each row with a transition'):
        runner.plan(attach)
    sql.execute(
        "DROP TABLE n; CREATE TYPE y AS (id int, a int);"
        "CREATE TABLE n OF y (CONSTRAINT ck CHECK (a > 0))"
    )
    with pytest.raises(Refused, match="is a typed one, of y"):
        runner.plan(attach)
    sql.execute("ALTER TABLE n NOT OF")
    assert runner.expand(attach) is State.VERIFIED
