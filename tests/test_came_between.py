"""What comes between a look and what rests on it: rows, and changes of a table."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import psycopg
import pytest

from migrator.change import Change
from migrator.errors import Failed, Refused
from migrator.execution import Execution, Run
from migrator.ledger.store import StepRow
from migrator.pattern import Pattern
from migrator.patterns import (
    DropConstraint,
    DropNotNull,
    ExtractTable,
    MoveColumn,
    RenameColumn,
    ReplaceCheck,
    ReplaceForeignKey,
    SplitTable,
    TransformColumn,
)
from migrator.plan import State
from migrator.runner import Runner

TABLES = (
    "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE q (id int PRIMARY KEY);"
    "INSERT INTO p VALUES (1), (9); INSERT INTO q VALUES (1), (7);"
    "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL CONSTRAINT ck CHECK (a < 5),"
    " b int CONSTRAINT fk REFERENCES p);"
    "INSERT INTO t VALUES (1, 1, 1)"
)
WAITS = (
    "SELECT count(*) FROM pg_locks WHERE NOT granted AND database ="
    " (SELECT oid FROM pg_database WHERE datname = current_database())"
)


@dataclass(frozen=True, slots=True)
class Race:
    """What is dropped or replaced, and what only the new release writes."""

    pattern: Pattern
    row: str
    told: str
    retired: bool = True


RACES = (
    Race(DropNotNull("t", "a"), "NULL, 1", "holds NULL"),
    Race(DropConstraint("t", "ck"), "7, 1", "violates the constraint"),
    Race(DropConstraint("t", "fk"), "1, 2", "violates the constraint"),
    Race(
        ReplaceForeignKey("t", ["b"], "q", ["id"], "fk"),
        "1, 7",
        "violates the constraint",
    ),
    # Its way back from before retire is the one that proves.
    Race(ReplaceCheck("t", "ck", "a < 9"), "7, 1", "violates", retired=False),
)


def test_what_came_between(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """Going back is refused behind its constraint, which goes: nobody is held to it."""
    runner.settings = replace(runner.settings, lock_timeout_ms=5000)
    for number, race in enumerate(RACES):
        sql.execute(f"DROP TABLE IF EXISTS t, p, q; {TABLES}".encode())
        before = f"r{number}"
        change = Change(revision=before, pattern=replace(race.pattern, assured="x"))
        runner.expand(change)
        if race.retired:
            if runner.change(before).state is State.EXPANDED:
                runner.backfill(before)
            if runner.change(before).state is State.BACKFILLED:
                runner.verify(before)
            runner.retire(before, old_release_gone="test")
        state = runner.change(before).state
        with psycopg.connect(database) as new, ThreadPoolExecutor() as pool:
            # Not to be counted yet, and there once the lock is given.
            new.execute(f"INSERT INTO t VALUES (2, {race.row})".encode())
            back = pool.submit(runner.rollback, before)
            while sql.execute(WAITS.encode()).fetchone() == (0,):
                assert not back.done()
            new.commit()
            with pytest.raises(Refused, match=f"1 row {race.told}"):
                back.result()
            new.execute(f"INSERT INTO t VALUES (3, {race.row})".encode())
        assert runner.change(before).state is state
        sql.execute("DELETE FROM t WHERE id > 1")
        runner.rollback(before, to=State.PLANNED)
        with pytest.raises(psycopg.errors.IntegrityError):
            sql.execute(f"INSERT INTO t VALUES (2, {race.row})".encode())


def test_half_a_key_that_is_to_be_given_whole(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """A row that MATCH FULL refuses is counted before the way back adds anything."""
    sql.execute(
        "CREATE TABLE p (a int, b int, PRIMARY KEY (a, b));"
        "CREATE TABLE t (id int PRIMARY KEY, a int, b int,"
        " CONSTRAINT fk FOREIGN KEY (a, b) REFERENCES p MATCH FULL)"
    )
    runner.expand(Change(revision="r", pattern=DropConstraint("t", "fk")))
    runner.retire("r", old_release_gone="test")
    sql.execute("INSERT INTO t VALUES (1, 1, NULL)")
    with pytest.raises(Refused, match="1 row violates the constraint"):
        runner.rollback("r")
    sql.execute("INSERT INTO t VALUES (2, 1, NULL); DELETE FROM t")
    assert runner.rollback("r") is State.VERIFIED


def test_a_key_over_periods_that_the_server_refuses(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """No count tells that a period is covered: its proof does, and it goes again."""
    if sql.info.server_version < 180000:
        pytest.skip("PERIOD is of 18 and later")
    sql.execute(
        "CREATE TABLE p (id int4range, d daterange,"
        " PRIMARY KEY (id, d WITHOUT OVERLAPS));"
        "CREATE TABLE t (id int4range, d daterange,"
        " CONSTRAINT fk FOREIGN KEY (id, PERIOD d) REFERENCES p (id, PERIOD d))"
    )
    runner.expand(Change(revision="r", pattern=DropConstraint("t", "fk")))
    runner.retire("r", old_release_gone="test")
    sql.execute("INSERT INTO t VALUES ('[1,2)', '[2020-01-01,2021-01-01)')")
    with pytest.raises(Failed, match="violates foreign key"):
        runner.rollback("r")
    # It does not hold for the release that goes on.
    sql.execute("INSERT INTO t VALUES ('[2,3)', '[2020-01-01,2021-01-01)')")
    sql.execute("DELETE FROM t")
    assert runner.rollback("r") is State.VERIFIED


#: What writes a column of `t` into another place from expand on.
MIRRORED: dict[str, Pattern] = {
    "split": SplitTable("t", "made", ["b"], key=["id"], assured="x"),
    "extract": ExtractTable("t", "made", {"b": "b"}, reference="made_id", assured="x"),
    "extract_many": ExtractTable("t", "made", {"c": "c"}, through="links", assured="x"),
    "rename": RenameColumn("t", "b", "d"),
    "transform": TransformColumn("t", "b", "d", "text", "b::text", "length(d)"),
    "move": MoveColumn("t", "b", to="o", key={"id": "t_id"}, assured="x"),
}


@pytest.mark.parametrize("kind", MIRRORED)
def test_a_column_that_is_changed_before_it_is_mirrored(
    kind: str,
    runner: Runner,
    sql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No trigger is made of what it was: each write of the application would fail."""
    sql.execute(
        b"CREATE TABLE t (id int PRIMARY KEY, b int, c int[]);"
        b"CREATE TABLE o (t_id int PRIMARY KEY REFERENCES t)"
    )
    forward = Execution.forward

    def later(self: Execution, run: Run, row: StepRow) -> None:
        monkeypatch.setattr(Execution, "forward", forward)
        sql.execute(b"ALTER TABLE t ALTER b TYPE text, ALTER c TYPE text[]")
        forward(self, run, row)

    monkeypatch.setattr(Execution, "forward", later)
    change = Change(revision="r", pattern=MIRRORED[kind])
    with pytest.raises(
        Refused, match=r'column "[bc]".* was changed since the step was'
    ):
        runner.expand(change)
    sql.execute(b"INSERT INTO t VALUES (1, 'one', '{one}')")
    assert runner.expand(change) is State.EXPANDED
    sql.execute(b"INSERT INTO t VALUES (2, 'two', '{two}')")
