"""A way back or a rebuild that died half-way goes on, and nothing goes over it."""

import psycopg
import pytest
from snapshots import same, snapshot
from test_interleavings import CrashError, crash_at, fresh, go

from migrator.change import Change
from migrator.errors import Failed, Held, LockBudgetError, Refused
from migrator.pattern import Pattern
from migrator.patterns import (
    AddForeignKey,
    AddUnique,
    ChangeColumnType,
    CreateIndex,
    DropIndex,
    RebuildTable,
    SetNotNull,
    SplitTable,
    TransformColumn,
)
from migrator.plan import State

SETUP = (
    "CREATE TABLE p (id int PRIMARY KEY); INSERT INTO p VALUES (1);"
    "CREATE TABLE t (id int PRIMARY KEY, a int UNIQUE CHECK (a > 0) REFERENCES p,"
    " p int REFERENCES p); INSERT INTO t VALUES (1, 1, 1);"
    "CREATE TABLE u (id int PRIMARY KEY, p int); INSERT INTO u VALUES (1, 1)"
)
CHANGES: dict[str, Pattern] = {
    "a foreign key": AddForeignKey("u", ["p"], "p", ["id"], name="u_p"),
    "NOT NULL": SetNotNull("t", "a"),
    "a key": AddUnique("u", ["p"], name="u_key"),
    "an index": CreateIndex("u", ["p"], name="u_i"),
    "a type": ChangeColumnType("t", "a", "bigint", to="b", assured="tried"),
    "a table": RebuildTable("t", alter=["SET (fillfactor = 80)"], assured="tried"),
}
FORWARD = ("expand", "backfill", "verify", "retire")


def held(url: str, change: Change) -> set[str]:
    """Run each command that goes forward; return those that the way back holds."""
    found: set[str] = set()
    for step in FORWARD:
        try:
            go(url, change, step)
        except Held as error:
            if "on its way back to planned" in error.what:
                found.add(step)
    return found


def died_at(url: str, where: str, skip: int) -> bool:
    """Take a change back, and die at a call of the ledger, if it comes to that."""
    try:
        with crash_at(where, skip):
            fresh(url).rollback("a1", to=State.PLANNED)
    except CrashError:
        return True
    return False


@pytest.mark.parametrize(
    ("state", "where"),
    [
        *((state, "set_status") for state in FORWARD),
        ("retire", "set_going_back"),
        ("retire", "set_state"),
    ],
)
@pytest.mark.parametrize("name", CHANGES)
def test_nothing_goes_forward_over_what_is_gone(
    database: str, sql: psycopg.Connection, name: str, state: str, where: str
) -> None:
    """Within a phase the rest is taken back first; behind it all is run again."""
    sql.execute(SETUP)
    before = snapshot(sql)
    change = Change(revision="a1", pattern=CHANGES[name])
    for step in FORWARD:
        go(database, change, step)
    wanted = snapshot(sql)
    fresh(database).rollback("a1", to=State.PLANNED)
    skip, within = 0, 0
    while True:
        for step in FORWARD[: FORWARD.index(state) + 1]:
            go(database, change, step)
        died = died_at(database, where, skip)
        if stopped := held(database, change):
            assert stopped == {*FORWARD}
            assert fresh(database).change("a1").going_back is State.PLANNED
            within += 1
        else:
            # A unique index for the way back stays until that, or the drop.
            there = {k: v for k, v in snapshot(sql).items() if "_like_" not in k}
            same(there, wanted)
        assert fresh(database).rollback("a1", to=State.PLANNED) is State.PLANNED
        fresh(database).drop_parked("a1", at_once=True)
        same(snapshot(sql), before)
        if not died:
            break
        skip += 1
    # Of these each phase has several steps from there on.
    assert (
        within
        or where == "set_state"
        or (name, state)
        not in (
            ("a type", "backfill"),
            ("a type", "retire"),
            ("a table", "retire"),
            ("a foreign key", "retire"),
        )
    )


def test_a_statement_that_fails_holds_nothing(
    database: str, sql: psycopg.Connection
) -> None:
    """Where a way back took nothing back, the change goes on as it stands."""
    sql.execute("CREATE TABLE t (a int); CREATE UNIQUE INDEX u ON t (a)")
    change = Change(revision="a1", pattern=DropIndex("t", "u", assured="tried"))
    for step in (*FORWARD, "drop"):
        go(database, change, step)
    sql.execute("INSERT INTO t VALUES (1), (1)")
    with pytest.raises(Failed, match="rows have the same key"):
        fresh(database).rollback("a1", to=State.PLANNED)
    row = fresh(database).change("a1")
    assert (row.going_back, row.finished) == (None, True)
    assert go(database, change, "verify") is row.state
    sql.execute("DELETE FROM t")
    assert fresh(database).rollback("a1", to=State.PLANNED) is State.PLANNED


def test_what_was_parked_stays_so_until_it_comes_back(
    database: str, sql: psycopg.Connection
) -> None:
    """An expand that got no lock and is taken back leaves it to be dropped."""
    sql.execute("CREATE TABLE t (id int PRIMARY KEY, a text)")
    change = Change(revision="a1", pattern=ChangeColumnType("t", "a", "int", "b"))
    go(database, change, "expand")
    fresh(database).rollback("a1")
    (parked,) = fresh(database).steps("a1")
    with sql.transaction():
        sql.execute("LOCK TABLE t IN ACCESS SHARE MODE")
        with pytest.raises(LockBudgetError):
            go(database, change, "expand")
    fresh(database).rollback("a1")
    assert parked.id in [s.id for s in fresh(database).steps("a1")]
    assert fresh(database).drop_parked("a1", at_once=True)
    go(database, change, "expand")
    assert not fresh(database).drop_parked("a1", at_once=True)


def test_phases_are_taken_back_in_their_order(
    database: str, sql: psycopg.Connection
) -> None:
    """A comparison that a drop begins with comes behind the steps of retire."""
    sql.execute(SETUP)
    pattern = SplitTable("u", "names", ["p"], key=["id"], assured="tried")
    change = Change(revision="a1", pattern=pattern)
    for step in FORWARD:
        go(database, change, step)
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE u IN ACCESS SHARE MODE")
        with pytest.raises(LockBudgetError):
            go(database, change, "drop")
        with pytest.raises(LockBudgetError):
            fresh(database).rollback("a1", to=State.PLANNED)
    assert fresh(database).change("a1").state is State.RETIRED
    assert fresh(database).rollback("a1") is State.VERIFIED
    assert fresh(database).is_compared("a1") is False


def test_a_way_back_from_before_is_known(
    database: str, sql: psycopg.Connection
) -> None:
    """A ledger of the form before gets the mark with the column."""
    sql.execute(SETUP)
    change = Change(revision="a1", pattern=CHANGES["a foreign key"])
    for step in FORWARD:
        go(database, change, step)
    assert died_at(database, "set_status", 1)
    sql.execute("ALTER TABLE migrator.changes DROP COLUMN going_back")
    sql.execute("DELETE FROM migrator.upgrades WHERE version = 9")
    assert fresh(database).change("a1").going_back is None
    assert held(database, change) == {*FORWARD}


@pytest.mark.parametrize(
    "where", ["add_steps", "set_going_back", "set_status", "set_state"]
)
def test_a_rebuild_goes_on_where_it_died(
    database: str, sql: psycopg.Connection, where: str
) -> None:
    """Whenever it dies, the next one ends as one that ran through."""
    sql.execute(SETUP)
    sql.execute(
        "CREATE INDEX by_p ON u (p); ALTER TABLE u ADD CONSTRAINT n CHECK (p > 0)"
    )
    change = Change(
        revision="a1",
        pattern=TransformColumn(
            "u",
            "p",
            "q",
            "bigint",
            up="p * 10",
            down="q / 10",
            old_type="integer",
            assured="tried",
        ),
    )
    fresh(database).complete(change)
    fresh(database).rebuild(change)
    wanted, skip, died = snapshot(sql), 0, True
    assert {"index public.by_p", "constraint public.u n"} <= wanted.keys()
    while died:
        fresh(database).complete(change)
        died = False
        try:
            with crash_at(where, skip):
                fresh(database).rebuild(change)
        except CrashError:
            died = True
            if where == "set_status" and skip:
                with pytest.raises(Held, match="on its way back to planned"):
                    fresh(database).expand(change)
                with pytest.raises(Refused, match="`alembic downgrade` finishes"):
                    fresh(database).rollback("a1")
            fresh(database).rebuild(change)
        same(snapshot(sql), wanted)
        assert sql.execute("SELECT * FROM u").fetchall() == [(1, 1)]
        skip += 1
    assert skip > 1
