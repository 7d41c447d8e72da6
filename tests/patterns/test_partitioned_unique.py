"""AddUnique on partitioned tables: each leaf's constraint, and that of the whole."""

import json
from typing import Any

import psycopg
import pytest
from locks import taken
from snapshots import same, snapshot

from migrator.change import Change
from migrator.errors import Failed, MismatchError, Refused
from migrator.facts import Facts
from migrator.patterns import AddPrimaryKey, AddUnique, CreateIndex, DropConstraint
from migrator.plan import Autocommit, Lock, Phase, State, Step, Transaction
from migrator.runner import Runner

SETUP = (
    'CREATE SCHEMA far; CREATE TABLE "t %" (id int, name text) PARTITION BY RANGE (id);'
    ' CREATE TABLE t_1 PARTITION OF "t %" FOR VALUES FROM (0) TO (10);'
    ' CREATE TABLE t_2 PARTITION OF "t %" FOR VALUES FROM (10) TO (20)'
    " PARTITION BY RANGE (id);"
    " CREATE TABLE t_2_1 PARTITION OF t_2 FOR VALUES FROM (10) TO (15);"
    " CREATE TABLE far.t_2_2 PARTITION OF t_2 FOR VALUES FROM (15) TO (20);"
    " INSERT INTO \"t %\" SELECT g, 'n' || g FROM generate_series(0, 19) g"
)
PATTERN = AddUnique("t %", ["name", "id"], "one")
SHAPE = (
    "SELECT c.relname::text, i.indisvalid, k.conname::text FROM pg_index i"
    " JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid"
    " LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid"
    " AND k.contype IN ('p', 'u') WHERE t.relname ~ '^t[ _]' ORDER BY 1"
)
WHOLE = [
    ("one", True, "one"),
    ("t_1_one", True, "t_1_one"),
    ("t_2_1_one", True, "t_2_1_one"),
    ("t_2_2_one", True, "t_2_2_one"),
    ("t_2_one", True, "t_2_one"),
]
UPSERT = "INSERT INTO \"t %\" VALUES (12, 'n12') ON CONFLICT (id, name) DO NOTHING"
NOTHING = "\nNothing was changed.\nNext: "


@pytest.fixture
def table(sql: psycopg.Connection) -> psycopg.Connection:
    """Give a table with two levels of partitions, one in another schema."""
    sql.execute(SETUP.encode())
    return sql


def shape(sql: psycopg.Connection) -> list[tuple[object, ...]]:
    """Return the indexes of the table and its partitions, with their constraints."""
    return sql.execute(SHAPE.encode()).fetchall()


def verified(runner: Runner) -> None:
    """Carry the change to where it can be retired."""
    runner.expand(Change(revision="a1", pattern=PATTERN))
    runner.verify("a1")


@pytest.mark.parametrize("covered", [False, True])
def test_life_cycle(
    runner: Runner, table: psycopg.Connection, *, covered: bool
) -> None:
    """Duplicates are named first; then all partitions hold it, also new ones."""
    if covered:
        table.execute('CREATE INDEX own ON "t %" (id, name)')
    before = shape(table)
    change = Change(revision="a1", pattern=PATTERN)
    table.execute("INSERT INTO \"t %\" VALUES (12, 'n12'), (1, NULL), (1, NULL)")
    assert runner.expand(change) is State.BACKFILLED
    assert len(shape(table)) == 5
    with pytest.raises(MismatchError):
        runner.verify("a1")
    found = [json.loads(m.key) for m in runner.mismatches("a1")]
    assert len(found) == 2
    table.execute("DELETE FROM t_2 WHERE id = 12")
    assert runner.verify("a1") is State.VERIFIED
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert [s for s in shape(table) if s not in before] == WHOLE
    table.execute(UPSERT.encode())
    table.execute(UPSERT.encode())
    table.execute('CREATE TABLE t_3 PARTITION OF "t %" DEFAULT')
    table.execute("INSERT INTO t_3 VALUES (30, 'x')")
    with pytest.raises(psycopg.errors.UniqueViolation):
        table.execute("INSERT INTO \"t %\" VALUES (30, 'x')")
    table.execute("DROP TABLE t_3")
    assert runner.rollback("a1") is State.VERIFIED
    assert len(shape(table)) == 5
    assert not [s for s in shape(table) if s[2]]
    table.execute("INSERT INTO \"t %\" VALUES (12, 'n12')")
    assert runner.rollback("a1", to=State.PLANNED) is State.PLANNED
    assert shape(table) == before
    table.execute("DELETE FROM t_2 WHERE id = 12")
    runner.complete(change)
    assert [s for s in shape(table) if s not in before] == WHOLE
    runner.rebuild(change)
    assert shape(table) == before


def test_a_primary_key(runner: Runner, table: psycopg.Connection) -> None:
    """NULLs and duplicates hold it; then each partition has it, with NOT NULL."""
    missing = (
        "SELECT count(*) FROM pg_attribute WHERE NOT attnotnull AND attnum > 0"
        " AND attrelid IN (SELECT relid FROM pg_partition_tree('\"t %\"'))"
    )
    before = shape(table)
    change = Change(revision="k1", pattern=AddPrimaryKey("t %", ["name", "id"], "one"))
    table.execute("INSERT INTO \"t %\" VALUES (12, 'n12'), (1, NULL)")
    runner.expand(change)
    with pytest.raises(MismatchError, match="found 3 rows"):
        runner.verify("k1")
    table.execute('DELETE FROM "t %" WHERE id = 12 OR name IS NULL')
    runner.verify("k1")
    runner.retire("k1", old_release_gone="test")
    assert shape(table) == WHOLE
    assert table.execute(missing.encode()).fetchone() == (0,)
    table.execute(UPSERT.encode())
    table.execute('CREATE TABLE t_3 PARTITION OF "t %" DEFAULT')
    table.execute("INSERT INTO t_3 VALUES (30, 'x')")
    with pytest.raises(psycopg.errors.UniqueViolation):
        table.execute("INSERT INTO \"t %\" VALUES (30, 'x')")
    table.execute("DROP TABLE t_3")
    runner.rollback("k1", to=State.PLANNED)
    assert shape(table) == before
    assert table.execute(missing.encode()).fetchone() == (10,)
    table.execute('ALTER TABLE t_2_1 ADD CONSTRAINT "own" PRIMARY KEY (id)')
    with pytest.raises(Refused, match='t_2_1" has a primary key already: "own"'):
        runner.expand(change)
    table.execute("ALTER TABLE t_2_1 DROP CONSTRAINT own")
    wrong = AddPrimaryKey("t %", ["name"], "one")
    with pytest.raises(Refused, match='column "id" decides on the partition'):
        runner.expand(Change(revision="k2", pattern=wrong))


@pytest.mark.parametrize("kind", ["PRIMARY KEY", "UNIQUE"])
def test_a_key_that_is_dropped(
    runner: Runner, table: psycopg.Connection, kind: str
) -> None:
    """It comes back leaf by leaf, with all parts under the names that they had."""
    table.execute(
        f'ALTER TABLE "t %" ADD CONSTRAINT one {kind} (name, id) INCLUDE (id)'
        " DEFERRABLE; COMMENT ON CONSTRAINT one ON \"t %\" IS 'why'".encode()
    )
    before = snapshot(table, "public", "far")
    change = Change(revision="d1", pattern=DropConstraint("t %", "one", assured="test"))
    runner.expand(change)
    runner.retire("d1", old_release_gone="test")
    assert shape(table) == []
    table.execute("INSERT INTO \"t %\" VALUES (12, 'n12')")
    with pytest.raises(Refused, match='1 key of "one" is held by several rows'):
        runner.rollback("d1")
    table.execute('DELETE FROM "t %" WHERE id = 12')
    runner.rollback("d1", to=State.PLANNED)
    same(snapshot(table, "public", "far"), before)
    runner.complete(change)
    assert shape(table) == []


@pytest.mark.parametrize("options", [{"nulls_not_distinct": True}, {"include": ["x"]}])
def test_options(options: Any, runner: Runner, table: psycopg.Connection) -> None:
    """Parts have all that the whole has, or they could not be attached."""
    table.execute('ALTER TABLE "t %" ADD x int')
    pattern = AddUnique("t %", ["id", "name"], "one", deferrable="deferred", **options)
    runner.complete(Change(revision="a1", pattern=pattern))
    assert shape(table) == WHOLE
    row = table.execute(
        "SELECT bool_and(condeferrable AND condeferred), count(*) FROM pg_constraint"
        " WHERE contype = 'u' AND conname LIKE '%one'"
    ).fetchone()
    assert row == (True, 5)


@pytest.mark.parametrize("step", range(11))
def test_going_back_from_each_step(
    step: int,
    runner: Runner,
    table: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever was made by then is gone."""
    verified(runner)
    before = shape(table)
    retire = AddUnique.retire
    broken = Transaction(statements=("SELECT 1 / 0",))

    def upto(self: AddUnique, facts: Facts) -> tuple[Step, ...]:
        steps = retire(self, facts)
        assert len(steps) == 11
        found = steps[step]
        return (
            *steps[:step],
            Step(name=found.name, work=broken, reverse=found.reverse or (broken,))
            if found.reverse
            else Step(name=found.name, work=broken, no_reverse="none"),
            *steps[step + 1 :],
        )

    monkeypatch.setattr(AddUnique, "retire", upto)
    with pytest.raises(Failed):
        runner.retire("a1", old_release_gone="test")
    assert runner.rollback("a1", to=State.VERIFIED) is State.VERIFIED
    assert shape(table) == before


def test_a_duplicate_behind_the_last_look(
    runner: Runner, table: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The build on its leaf fails; it goes on once the row is gone."""
    verified(runner)
    retire = AddUnique.retire

    looks: list[Facts] = []

    def late(self: AddUnique, facts: Facts) -> tuple[Step, ...]:
        looks.append(facts)
        # The first is ahead of the comparison.
        if len(looks) == 2:
            table.execute("INSERT INTO \"t %\" VALUES (12, 'n12')")
        return retire(self, facts)

    monkeypatch.setattr(AddUnique, "retire", late)
    with pytest.raises(Failed, match="could not create unique index"):
        runner.retire("a1", old_release_gone="test")
    assert ("one", False, "one") in shape(table)
    table.execute("DELETE FROM t_2 WHERE id = 12")
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert shape(table) == WHOLE


def test_locks(runner: Runner, table: psycopg.Connection) -> None:
    """No step on the way there locks more than one table strongly."""
    verified(runner)
    steps = runner.plan(Change(revision="a1", pattern=PATTERN)).steps(Phase.RETIRE)
    tables = ('"t %"', "t_1", "t_2", "t_2_1", "far.t_2_2")
    strong: list[list[str]] = []
    for step in steps[:-1]:
        if isinstance(step.work, Autocommit):
            assert step.work.lock is Lock.SHARE_UPDATE_EXCLUSIVE
            table.execute(step.work.statement.encode())
            continue
        assert isinstance(step.work, Transaction)
        locks = taken(table, step.work, *tables)
        strong.append([t for t in tables if locks[t].rank > Lock.ROW_EXCLUSIVE.rank])
        for statement in step.work.statements[1:]:
            table.execute(statement.encode())
    one = ['"t %"', "t_2", "t_1", "far.t_2_2", "t_2_1", "t_2"]
    assert strong == [[t] for t in one] + [[]]


def test_a_row_decided_by_an_expression(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """PostgreSQL holds nothing unique across such partitions: refused early."""
    sql.execute(
        "CREATE TABLE t (id int, name text) PARTITION BY LIST (lower(name));"
        " CREATE TABLE t_1 PARTITION OF t DEFAULT"
    )
    for pattern in (
        AddUnique("t", ["id", "name"], "one"),
        CreateIndex("t", ["id", "name"], "one", unique=True),
    ):
        with pytest.raises(Refused) as caught:
            runner.expand(Change(revision="a1", pattern=pattern))
        assert str(caught.value) == (
            f"{pattern.title}: an expression decides on the partition of a row, so that"
            f" PostgreSQL holds nothing unique across partitions.{NOTHING}partition the"
            " table by columns."
        )


def test_notice(runner: Runner, table: psycopg.Connection) -> None:
    """A reviewer reads what happens to partitions, and what is locked."""
    notices = runner.plan(Change(revision="a1", pattern=PATTERN)).notices
    assert (
        "The constraint is made on the partitioned table first; a partition that is"
        " made or attached behind that gets its own from the server, which builds it"
        " while it is attached. Going back, and the end of the index that finds"
        " duplicates, lock the table and all partitions for an instant."
    ) in [notice.text for notice in notices]
