"""Changes in flight at the same time: which is held, by which, and which are not."""

from threading import Barrier, Thread

import psycopg
import pytest
from releases import Scenario
from test_releases import SCENARIOS

from migrator.change import Change
from migrator.errors import Held, Overlaps, Refused
from migrator.pattern import Pattern
from migrator.patterns import (
    AddCheck,
    AddColumn,
    AddForeignKey,
    AddPrimaryKey,
    AddUnique,
    ChangeColumnType,
    CreateIndex,
    CreateTable,
    DropColumn,
    DropConstraint,
    DropIndex,
    MoveToSchema,
    PartitionTable,
    RebuildTable,
    RenameColumn,
    RenameConstraint,
    RenameTable,
    ReplaceFunction,
    SetDefault,
    SetNotNull,
    SplitColumn,
)
from migrator.plan import State
from migrator.runner import Runner


def held(runner: Runner, pattern: Pattern) -> None:
    """Assert that a change is held, and that the other one is named."""
    first = runner.change("first")
    with pytest.raises(Held) as caught:
        runner.expand(Change(revision="second", pattern=pattern))
    assert str(caught.value).startswith(
        f"second touches what first ({first.title}) is changing; that one is"
        f" {first.state}.\nNothing was changed.\nNext: finish or roll back first first:"
    )
    assert "second" not in [c.id for c in runner.changes()]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name)
def test_each_pattern_in_flight(
    scenario: Scenario, runner: Runner, sql: psycopg.Connection
) -> None:
    """What touches the same is held; another table, or another column, is not."""
    scenario.make_small(sql)
    sql.execute("CREATE TABLE apart (id int PRIMARY KEY)")
    pattern = scenario.pattern
    runner.expand(Change(revision="first", pattern=pattern))
    first = runner.change("first")
    assert first.in_flight is not first.finished
    if first.in_flight:
        held(runner, pattern)
    runner.expand(Change(revision="apart", pattern=AddColumn("apart", "n", "int")))
    beside = AddColumn("t", "beside", "int")
    if first.in_flight and pattern.subject[0] == "t" and pattern.columns() is None:
        held(runner, beside)
    else:
        runner.expand(Change(revision="beside", pattern=beside))
        row = sql.execute("SELECT count(beside) FROM t").fetchone()
        assert row == (0,)
    assert sql.execute("SELECT count(n) FROM apart").fetchone() == (0,)


def test_what_another_one_stands_on_is_not_taken_back(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """A finished change stays while one in flight reads what it brought."""
    sql.execute("CREATE TABLE t (id int PRIMARY KEY)")
    runner.expand(Change(revision="first", pattern=AddColumn("t", "v", "text")))
    assert runner.change("first").finished
    retyped = ChangeColumnType("t", "v", "int", to="n")
    runner.expand(Change(revision="second", pattern=retyped))
    runner.expand(Change(revision="beside", pattern=AddColumn("t", "b", "int")))
    with pytest.raises(Overlaps) as caught:
        runner.rollback("first")
    assert str(caught.value) == (
        "first is not taken back while others in flight touch the same: second"
        f" ({retyped.title}), which is expanded.\nNothing was changed.\nNext:"
        " `migrator rollback second --to planned`, or finish second; then run the same"
        " command again."
    )
    sql.execute("INSERT INTO t VALUES (1, '1')")
    runner.rollback("second")
    assert runner.rollback("first") is State.PLANNED
    sql.execute("INSERT INTO t VALUES (2)")


def test_of_two_that_begin_at_once_one_is_held(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Neither was in flight when the other one looked."""
    sql.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    found: dict[str, object] = {}
    both = Barrier(2)

    def expand(revision: str, pattern: Pattern) -> None:
        both.wait()
        try:
            found[revision] = runner.expand(Change(revision=revision, pattern=pattern))
        except Overlaps as error:
            found[revision] = error

    given = {
        "first": RenameColumn("t", "v", "w"),
        "second": ChangeColumnType("t", "v", "varchar(9)", to="x"),
    }
    threads = [Thread(target=expand, args=one) for one in given.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (begun,) = (c.id for c in runner.changes() if c.in_flight)
    (other,) = given.keys() - {begun}
    assert found[begun] is State.EXPANDED
    assert isinstance(found[other], Overlaps)
    runner.rollback(begun)


#: Of changes of two tables, one that touches the other one.
ELSEWHERE: dict[str, Pattern] = {
    "foreign_key": RenameColumn("p", "id", "x"),
    "move_column": RenameColumn("n", "id", "x"),
    "merge_tables": RenameColumn("t", "id", "x"),
    "wider_key": SetDefault("c", "t_id", "1"),
    "split_table": CreateTable("n", "id int"),
    "extract_table": CreateTable("n", "id int"),
    "extract_many": CreateTable("l", "id int"),
    "rename_table": CreateTable("people", "id int"),
    "move_to_schema": CreateTable("t", "id int", schema="other"),
    "detach_partition": AddColumn("high", "x", "int"),
    "domain": RenameColumn("t", "amount", "x"),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_the_other_table_is_touched_as_well(
    name: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """A change of that one is held, and told by which."""
    (scenario,) = (s for s in SCENARIOS if s.name == name)
    scenario.make_small(sql)
    runner.expand(Change(revision="first", pattern=scenario.pattern))
    held(runner, ELSEWHERE[name])


TOLD = (
    "CREATE OR REPLACE FUNCTION told(text) RETURNS text LANGUAGE sql IMMUTABLE AS"
    " 'SELECT {}($1)'"
)
#: Changes whose expressions read `name`, or `id`, and call a function.
READING: dict[str, tuple[Pattern, Pattern]] = {
    "computed": (
        AddColumn("t", "up", "text", computed="told(name)"),
        RenameColumn("t", "name", "x"),
    ),
    "fill": (
        SetNotNull("t", "word", fill="told('no ' || id)"),
        RenameColumn("t", "id", "x"),
    ),
    "two shapes": (
        SplitColumn("t", "word", {"a": ("text", "told(word || id)")}, "a || name"),
        RenameColumn("t", "name", "x"),
    ),
}


#: What is made under a name, and what gives that away afterwards.
RENAMED: dict[str, tuple[Pattern, Pattern]] = {
    "check": (AddCheck("t", "k", "n > 0"), RenameConstraint("t", "k", "k2")),
    "foreign_key": (
        AddForeignKey("t", ["n"], "o", ["id"], name="k", index=False),
        RenameConstraint("t", "k", "k2"),
    ),
    "unique": (
        AddUnique("t", ["n"], "k", assured="tried"),
        RenameConstraint("t", "k", "k2", assured="tried"),
    ),
    "primary_key": (
        AddPrimaryKey("t", ["n"], "k", assured="tried"),
        RenameConstraint("t", "k", "k2", assured="tried"),
    ),
    "index of a foreign key": (
        AddForeignKey("t", ["n"], "o", ["id"], name="f", index="k"),
        RenameColumn("t", "n", "m", indexes={"k": "k2"}, assured="tried"),
    ),
    "index": (
        CreateIndex("t", ["n"], "k"),
        RenameColumn("t", "n", "m", indexes={"k": "k2"}, assured="tried"),
    ),
}


@pytest.mark.parametrize("kind", RENAMED)
def test_what_a_later_one_renamed_is_not_passed_over(
    kind: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """The way back would not find it, and leave it in force; by hand is as good."""
    sql.execute(
        b"CREATE TABLE o (id int PRIMARY KEY); INSERT INTO o VALUES (1);"
        b"CREATE TABLE t (n int NOT NULL); INSERT INTO t VALUES (1)"
    )
    first, later = RENAMED[kind]
    runner.complete(Change(revision="first", pattern=first))
    runner.complete(Change(revision="later", pattern=later))
    with pytest.raises(Refused) as caught:
        runner.rollback("first", to=State.PLANNED)
    assert str(caught.value) == (
        'first made "k" of table "public"."t", which later'
        f' ({later.title}) has renamed to "k2".\nNothing was changed.\nNext: take later'
        " back first (`migrator rollback later --to planned`), or give it its former"
        " name by hand; then run the same command again."
    )
    if kind.startswith("index"):
        sql.execute(b"ALTER INDEX k2 RENAME TO k")
    else:
        runner.rollback("later", to=State.PLANNED)
    assert runner.rollback("first", to=State.PLANNED) is State.PLANNED
    left = (
        "SELECT conname FROM pg_constraint WHERE conrelid = 't'::regclass"
        " AND contype <> 'n' UNION ALL"
        " SELECT relname FROM pg_class WHERE relname IN ('k', 'k2')"
    )
    assert sql.execute(left.encode()).fetchall() == []


def test_a_name_that_an_earlier_one_gave_up(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Who is to take it may go back before that has come about."""
    sql.execute(b"CREATE TABLE t (n int, m int CONSTRAINT k UNIQUE)")
    rename = RenameConstraint("t", "k", "k2", assured="tried")
    runner.complete(Change(revision="earlier", pattern=rename))
    given = Change(revision="g", pattern=AddUnique("t", ["n"], "k", assured="tried"))
    runner.expand(given)
    assert runner.rollback("g", to=State.PLANNED) is State.PLANNED
    runner.complete(given)
    assert runner.rollback("g") is State.VERIFIED
    assert runner.rollback("g", to=State.PLANNED) is State.PLANNED
    left = "SELECT conname FROM pg_constraint WHERE conrelid = 't'::regclass"
    assert sql.execute(left.encode()).fetchall() == [("k2",)]


def test_an_index_that_moved_along_is_not_passed_over(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Its way back asks for the table as well, and works where that has a new name."""
    sql.execute(b"CREATE SCHEMA other; CREATE TABLE t (n int)")
    runner.expand(Change(revision="first", pattern=CreateIndex("t", ["n"], "k")))
    move = MoveToSchema("t", "other", assured="tried")
    runner.complete(Change(revision="later", pattern=move))
    with pytest.raises(Refused, match=r"its index .* along: other\."):
        runner.rollback("first")
    assert sql.execute(b"SELECT to_regclass('other.k') IS NULL").fetchall() == [
        (False,)
    ]
    runner.rollback("later", to=State.PLANNED)
    rename = RenameTable("t", "t2", assured="tried")
    runner.complete(Change(revision="again", pattern=rename))
    assert runner.rollback("first") is State.PLANNED
    assert sql.execute(b"SELECT to_regclass('k') IS NULL").fetchall() == [(True,)]


def test_an_index_of_another_schema_did_not_move(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """A table that is gone has one that is called like it elsewhere."""
    sql.execute(
        b"CREATE SCHEMA other; CREATE TABLE other.t (n int);"
        b"CREATE INDEX k ON other.t (n); CREATE TABLE t (n int)"
    )
    runner.expand(Change(revision="first", pattern=CreateIndex("t", ["n"], "k")))
    sql.execute(b"DROP TABLE t")
    assert runner.rollback("first") is State.PLANNED


#: What has an index of a table that is partitioned afterwards, and what is told of it;
#: by hand goes on.
PARTITIONED: dict[str, tuple[Pattern, str, str]] = {
    "index": (CreateIndex("t", ["n"], "k"), "does not drop", "DROP INDEX k"),
    "foreign_key": (
        AddForeignKey("t", ["p"], "o", ["id"], name="f", index="k"),
        "does not drop",
        "DROP INDEX k",
    ),
    "unique": (AddUnique("t", ["p", "id"], "k", assured="tried"), "", ""),
    "dropped": (DropIndex("t", "old"), "builds no", "CREATE INDEX old ON t (n)"),
    "dropped_key": (
        DropConstraint("t", "one", assured="tried"),
        "builds no",
        "ALTER TABLE t ADD CONSTRAINT one UNIQUE (n, id)",
    ),
}


@pytest.mark.parametrize("kind", PARTITIONED)
def test_an_index_of_a_table_that_a_later_one_partitioned(
    kind: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """What no server does concurrently is told, with the way to go on."""
    sql.execute(
        b"CREATE TABLE o (id int PRIMARY KEY); INSERT INTO o VALUES (1);"
        b"CREATE TABLE t (id int PRIMARY KEY, n int, p int,"
        b" CONSTRAINT one UNIQUE (n, id)); CREATE INDEX old ON t (n);"
        b"INSERT INTO t VALUES (1, 1, 1)"
    )
    first, told, by_hand = PARTITIONED[kind]
    runner.complete(Change(revision="first", pattern=first))
    parts = {"t_1": "FROM (0) TO (9)"}
    later = PartitionTable(
        "t", "RANGE", ["id"], parts, rest="t_rest", key=["id"], assured="tried"
    )
    runner.complete(Change(revision="later", pattern=later))
    if told:
        with pytest.raises(Refused, match=f"partitioned (table )?by now, .* {told}"):
            runner.rollback("first", to=State.PLANNED)
        sql.execute(by_hand.encode())
    assert runner.rollback("first", to=State.PLANNED) is State.PLANNED
    made = sql.execute(b"SELECT to_regclass('k') IS NULL").fetchall()
    assert made == [(True,)]


def test_a_key_whose_column_a_later_one_renamed(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Its way back goes on without the index that finds rows of equal columns."""
    sql.execute(b"CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
    first = AddUnique("t", ["n"], "k", assured="tried")
    runner.complete(Change(revision="first", pattern=first))
    later = RenameColumn("t", "n", "m", assured="tried")
    runner.complete(Change(revision="later", pattern=later))
    assert runner.rollback("first", to=State.PLANNED) is State.PLANNED
    left = "SELECT count(*) FROM pg_index WHERE indrelid = 't'::regclass"
    assert sql.execute(left.encode()).fetchall() == [(0,)]


@pytest.mark.parametrize("name", READING)
def test_what_expressions_read_stays(
    name: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """Columns that they read, and functions that they call, are not changed beside."""
    sql.execute(TOLD.format("upper").encode())
    sql.execute("CREATE TABLE t (id int PRIMARY KEY, name text, word text, n int)")
    first, column = READING[name]
    runner.expand(Change(revision="first", pattern=first))
    held(runner, column)
    held(runner, ReplaceFunction("told(text)", TOLD.format("lower")))


def test_two_mirrors_of_a_table(runner: Runner, sql: psycopg.Connection) -> None:
    """Whichever trigger fires first, both are carried on; they may read the same."""
    sql.execute("CREATE TABLE t (id int PRIMARY KEY, a text, b text, c text, d text)")
    sql.execute("INSERT INTO t SELECT g, 'a', 'b', NULL FROM generate_series(1, 9) g")
    given: dict[str, Pattern] = {
        "one": RenameColumn("t", "a", "a_2"),
        "two": RenameColumn("t", "b", "b_2"),
        "three": SetNotNull("t", "c", fill="'c' || id"),
        "four": SetNotNull("t", "d", fill="'d' || id"),
    }
    for revision, pattern in given.items():
        runner.expand(Change(revision=revision, pattern=pattern))
        runner.settle(revision)
    sql.execute("UPDATE t SET a_2 = 'x', b_2 = 'y', c = NULL, d = NULL WHERE id = 2")
    row = sql.execute("SELECT a, b, c, d FROM t WHERE id = 2").fetchone()
    assert row == ("x", "y", "c2", "d2")
    for revision in given:
        runner.retire(revision, old_release_gone="test")


READERS = (
    AddColumn("t", "loud", "text", computed="upper(t.name) || 'size'"),
    SetNotNull("t", "mail", fill="name || '@x'"),
)


@pytest.mark.parametrize("reader", READERS, ids=["computed", "fill"])
def test_a_reader_comes_before_or_after(
    reader: Pattern, runner: Runner, sql: psycopg.Connection
) -> None:
    """A trigger names the column, so that every write would fail without it."""
    sql.execute("CREATE TABLE t (id int, name text, mail text, size int)")
    runner.expand(Change(revision="first", pattern=reader))
    held(runner, RenameColumn("t", "name", "full_name"))
    held(runner, DropColumn("t", "name"))
    runner.expand(Change(revision="beside", pattern=DropColumn("t", "size")))
    runner.rollback("first")
    runner.rollback("beside")
    renamed = RenameColumn("t", "name", "full_name")
    runner.expand(Change(revision="first", pattern=renamed))
    held(runner, reader)


def test_what_a_rollback_parked_waits_for_a_mirror_of_it(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Its drop is held while the column is one that another change's trigger writes."""
    sql.execute("CREATE TABLE t (id int PRIMARY KEY)")
    runner.expand(Change(revision="a", pattern=AddColumn("t", "x", "int")))
    sql.execute("INSERT INTO t VALUES (1, 1)")
    runner.rollback("a")
    runner.expand(Change(revision="b", pattern=RebuildTable("t", assured="test")))
    said = r"(?s)rollback of a parked may be part of what b \(.*roll back b first"
    for asked in (runner.drop_parked, runner.require_parked_due):
        with pytest.raises(Held, match=said):
            asked("a")
    sql.execute("INSERT INTO t VALUES (2)")
    runner.settle("b")
    runner.retire("b", old_release_gone="test")
    runner.drop("b")
    assert runner.drop_parked("a") == 1
    assert sorted(sql.execute("TABLE t")) == [(1,), (2,)]
