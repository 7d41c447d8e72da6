"""Indexes of partitioned tables: built, attached, dropped, and built again."""

from dataclasses import replace
from typing import Any

import psycopg
import pytest
from locks import holding, taken

from migrator.change import Change
from migrator.errors import Failed, LockBudgetError, Refused
from migrator.facts import Column, Facts, Table
from migrator.kernels import partitioned_index
from migrator.ledger import store
from migrator.names import TableName
from migrator.patterns import CreateIndex, DropIndex, Key, ReplaceIndex
from migrator.plan import Autocommit, Lock, Phase, State, Transaction
from migrator.runner import Runner
from migrator.settings import Settings

SETUP = (
    "CREATE SCHEMA far; CREATE TABLE t (id int, name text) PARTITION BY RANGE (id);"
    " CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (10);"
    " CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (10) TO (20)"
    " PARTITION BY RANGE (id);"
    " CREATE TABLE t_2_1 PARTITION OF t_2 FOR VALUES FROM (10) TO (15);"
    " CREATE TABLE far.t_2_2 PARTITION OF t_2 FOR VALUES FROM (15) TO (20);"
    " INSERT INTO t SELECT g, 'n' || g FROM generate_series(0, 19) g"
)
PATTERN = CreateIndex("t", ["name", "id"], "by_name")
DROP = DropIndex("t", "by_name")
INDEXES = (
    "SELECT i.indrelid::regclass::text, c.relname::text, i.indisvalid"
    " FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
    " WHERE i.indrelid IN (SELECT oid FROM pg_class WHERE relname ~ '^t(_|$)'"
    " AND relkind IN ('r', 'p')) ORDER BY 1, 2"
)
WHOLE = [
    ("far.t_2_2", "t_2_2_by_name", True),
    ("t", "by_name", True),
    ("t_1", "t_1_by_name", True),
    ("t_2", "t_2_by_name", True),
    ("t_2_1", "t_2_1_by_name", True),
]
NOTHING = "\nNothing was changed.\nNext: "
QUICK = Settings(lock_timeout_ms=50, step_budget_s=0.2, build_budget_s=0.3, hold_s=0)


@pytest.fixture
def table(sql: psycopg.Connection) -> psycopg.Connection:
    """Give a table with two levels of partitions, one in another schema."""
    sql.execute(SETUP.encode())
    return sql


def found(sql: psycopg.Connection) -> list[tuple[object, ...]]:
    """Return the indexes of the table and its partitions."""
    return sql.execute(INDEXES.encode()).fetchall()


# -- text --------------------------------------------------------------------


def test_text_with_hostile_names() -> None:
    """Every name is quoted; leaves are attached before what is between."""
    whole = TableName('my "sch', "or der")
    column = Column(name="é%", type="text")
    between = TableName('my "sch', "b")
    parts = (
        Table(
            name=between, oid=2, columns=(column,), kind="p", root=whole, parent=whole
        ),
        Table(
            name=TableName("s", ":x"),
            oid=3,
            columns=(column,),
            root=whole,
            parent=between,
        ),
    )
    facts = Facts(
        server_version=180000,
        tag="0123456789",
        table=Table(name=whole, oid=1, columns=(column,), kind="p", partitions=parts),
    )
    pattern = CreateIndex("or der", ["é%"], 'i "')
    steps = pattern.expand(facts)
    assert [_text(s.work) for s in steps[:-1]] == [
        'CREATE INDEX "i """ ON ONLY "my ""sch"."or der" USING "btree" ("é%")',
        'CREATE INDEX "b_i """ ON ONLY "my ""sch"."b" USING "btree" ("é%")',
        'CREATE INDEX CONCURRENTLY ":x_i """ ON "s".":x" USING "btree" ("é%")',
        'ALTER INDEX "my ""sch"."b_i """ ATTACH PARTITION "s".":x_i """',
        'ALTER INDEX "my ""sch"."i """ ATTACH PARTITION "my ""sch"."b_i """',
    ]
    names = [s.name for s in steps]
    assert names == [
        "create_parent",
        'create_parent "b"',
        'create_index "s".":x"',
        'attach_index "s".":x"',
        'attach_index "b"',
        "check_index",
    ]
    for step in steps:
        if isinstance(step.work, Transaction) and step.work.lock is not Lock.NONE:
            assert step.work.table is not None
            assert step.work.statements[0] == (
                f"LOCK TABLE ONLY {step.work.table} IN {step.work.lock} MODE"
            )


def test_names_of_parts_fit() -> None:
    """What is cut away still tells two of them apart."""
    long = ["é" * 30 + end for end in ("a", "b")]
    made = {partitioned_index.part_name(TableName("s", n), "by_name") for n in long}
    assert len(made) == 2
    assert all(len(n.encode()) <= 63 for n in made)


def _text(action: object) -> str:
    if isinstance(action, Transaction):
        return action.statements[-1]
    assert isinstance(action, Autocommit)
    return action.statement


# -- life cycle --------------------------------------------------------------


@pytest.mark.parametrize("is_unique", [False, True])
def test_life_cycle(
    runner: Runner, table: psycopg.Connection, *, is_unique: bool
) -> None:
    """It is valid on all levels, and leaves nothing on the way back."""
    pattern = replace(PATTERN, unique=is_unique)
    change = Change(revision="a1", pattern=pattern)

    def through() -> None:
        assert runner.expand(change) is State.VERIFIED
        if is_unique:
            assert found(table) == []
            runner.retire("a1", old_release_gone="test")

    through()
    assert found(table) == WHOLE
    table.execute("INSERT INTO t VALUES (3, 'x'), (13, 'x')")
    table.execute("CREATE TABLE t_3 PARTITION OF t FOR VALUES FROM (20) TO (30)")
    assert len(found(table)) == 6
    assert runner.rollback("a1", to=State.PLANNED) is State.PLANNED
    assert found(table) == []
    table.execute("DROP TABLE t_3")
    through()
    assert found(table) == WHOLE
    runner.rebuild(change)
    assert found(table) == []
    runner.complete(change)
    assert found(table) == WHOLE


@pytest.mark.parametrize("is_unique", [False, True])
def test_one_in_the_place_of_another(
    runner: Runner, table: psycopg.Connection, *, is_unique: bool
) -> None:
    """All parts exchange their names, on the way back too, whatever came or went."""
    table.execute(
        "CREATE INDEX by_name ON t (name); ALTER INDEX t_1_name_idx RENAME TO x"
    )
    before = found(table)
    keys = (
        "SELECT bool_and(pg_get_indexdef(i.indexrelid) LIKE '%(id, name)'), count(*)"
        " FROM pg_index i WHERE i.indexrelid IN (SELECT relid FROM"
        " pg_partition_tree('by_name'))"
    )
    change = Change(
        revision="a1",
        pattern=ReplaceIndex("t", "by_name", ["id", "name"], unique=is_unique),
    )
    runner.expand(change)
    table.execute("CREATE TABLE t_3 PARTITION OF t FOR VALUES FROM (20) TO (30)")
    runner.retire("a1", old_release_gone="test")
    assert table.execute(keys.encode()).fetchone() == (True, 6)
    assert set(before) < set(found(table))
    table.execute("DROP TABLE t_3; INSERT INTO t VALUES (3, 'x'), (13, 'x')")
    runner.rollback("a1", to=State.PLANNED)
    assert found(table) == before
    runner.expand(change)
    runner.retire("a1", old_release_gone="test")
    runner.drop("a1")
    assert found(table) == before
    assert table.execute(keys.encode()).fetchone() == (True, 5)
    runner.rollback("a1", to=State.PLANNED)
    assert found(table) == before
    assert table.execute(keys.encode()).fetchone() == (False, 5)
    wrong = replace(change.pattern, on=["name"], unique=True)
    with pytest.raises(Refused, match='column "id" decides on the partition'):
        runner.expand(Change(revision="a2", pattern=wrong))


def test_an_expression_on_each_leaf(runner: Runner, table: psycopg.Connection) -> None:
    """Parts have all that the whole has, or they could not be attached."""
    keys = [Key(expression="lower(name)", operators="text_pattern_ops", order="desc")]
    pattern = CreateIndex("t", keys, "by_name", where="id > 3", include=["id"])
    runner.complete(Change(revision="a1", pattern=pattern))
    assert found(table) == WHOLE


def test_a_build_that_is_cut_off_is_resumed_or_taken_back(
    runner: Runner, table: psycopg.Connection, database: str
) -> None:
    """Half of the leaves are done; either way is open, and none builds twice."""
    change = Change(revision="a1", pattern=PATTERN)
    for back in (True, False):
        runner.settings = QUICK
        busy = holding(database, "far.t_2_2", "ROW EXCLUSIVE")
        with busy, pytest.raises(LockBudgetError):
            runner.expand(change)
        assert ("t", "by_name", False) in found(table)
        assert ("t_1", "t_1_by_name", True) in found(table)
        runner.settings = Settings(hold_s=0)
        if back:
            assert runner.rollback("a1") is State.PLANNED
            assert found(table) == []
    assert runner.expand(change) is State.VERIFIED
    assert found(table) == WHOLE


@pytest.mark.parametrize("step", range(8))
def test_going_back_from_each_step(
    step: int,
    runner: Runner,
    table: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever was made by then is gone."""
    expand = CreateIndex.expand
    broken = Transaction(statements=("SELECT 1 / 0",))

    def upto(self: CreateIndex, facts: Facts) -> tuple[object, ...]:
        steps = expand(self, facts)
        assert len(steps) == 10
        return (*steps[:step], replace(steps[step], work=broken), *steps[step + 1 :])

    monkeypatch.setattr(CreateIndex, "expand", upto)
    with pytest.raises(Failed):
        runner.expand(Change(revision="a1", pattern=PATTERN))
    assert runner.rollback("a1") is State.PLANNED
    assert found(table) == []


def test_rows_that_a_unique_one_refuses(
    runner: Runner, table: psycopg.Connection
) -> None:
    """The build on a leaf fails; it goes on once they are gone."""
    pattern = replace(PATTERN, on=["id"], unique=True)
    runner.expand(Change(revision="a1", pattern=pattern))
    table.execute("INSERT INTO t VALUES (12, 'x')")
    with pytest.raises(Failed, match="could not create unique index"):
        runner.retire("a1", old_release_gone="test")
    table.execute("DELETE FROM t WHERE name = 'x'")
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    with pytest.raises(psycopg.errors.UniqueViolation):
        table.execute("INSERT INTO t VALUES (12, 'x')")


# -- partitions that come and go ----------------------------------------------


@pytest.mark.parametrize(
    "meanwhile",
    [
        "CREATE TABLE t_3 PARTITION OF t FOR VALUES FROM (20) TO (30)",
        "CREATE TABLE t_3 (id int, name text);"
        " ALTER TABLE t ATTACH PARTITION t_3 FOR VALUES FROM (20) TO (30)",
        "ALTER TABLE t_2 DETACH PARTITION far.t_2_2",
        "DROP TABLE far.t_2_2",
        "DROP TABLE t_2",
        "ALTER TABLE t_2 DETACH PARTITION far.t_2_2;"
        " ALTER TABLE t_2 ATTACH PARTITION far.t_2_2 FOR VALUES FROM (15) TO (20)",
    ],
)
def test_partitions_come_and_go(
    meanwhile: str, runner: Runner, table: psycopg.Connection, database: str
) -> None:
    """Once the whole has its index, the server cares for those that come."""
    change = Change(revision="a1", pattern=PATTERN)
    runner.settings = QUICK
    with holding(database, "t_1", "ROW EXCLUSIVE"), pytest.raises(LockBudgetError):
        runner.expand(change)
    table.execute(meanwhile.encode())
    runner.settings = Settings(hold_s=0)
    assert runner.expand(change) is State.VERIFIED
    row = table.execute(
        "SELECT count(*), count(DISTINCT i.indrelid), (SELECT count(*)"
        " FROM pg_partition_tree('by_name')) FROM pg_partition_tree('t') p"
        " LEFT JOIN pg_index i ON i.indrelid = p.relid"
    ).fetchone()
    # One for each, which is part of the whole.
    assert row is not None
    assert row[0] == row[1] == row[2]
    assert ("t", "by_name", True) in found(table)
    assert runner.rollback("a1") is State.PLANNED
    assert [f for f in found(table) if f[0] != "far.t_2_2"] == []


def test_a_partition_that_came_before_the_whole_had_its_index(
    runner: Runner, table: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has none, which is found; the way out works."""
    change = Change(revision="a1", pattern=PATTERN)
    enter = store.add_steps

    def late(*args: Any, **given: Any) -> None:
        """Enter the steps, and attach a partition before the first of them."""
        enter(*args, **given)
        table.execute("CREATE TABLE t_3 PARTITION OF t FOR VALUES FROM (20) TO (30)")

    monkeypatch.setattr(store, "add_steps", late)
    with pytest.raises(Refused) as caught:
        runner.expand(change)
    assert str(caught.value) == (
        'Step \'check_index\' on table "public"."t" is refused: index "by_name" is'
        " not valid, since a partition of the table has none: it was attached before"
        " the index was made, and not known yet. Or the last one that lacked it was"
        f" detached or dropped, which the server does not look at.{NOTHING}build it"
        " there (CREATE INDEX CONCURRENTLY, then ALTER INDEX … ATTACH PARTITION) and"
        " run the same command again. Where none lacks it, `migrator rollback`, and"
        " start anew."
    )
    monkeypatch.undo()
    table.execute("CREATE INDEX CONCURRENTLY own ON t_3 (name, id)")
    table.execute("ALTER INDEX by_name ATTACH PARTITION own")
    assert runner.expand(change) is State.VERIFIED


# -- locks -------------------------------------------------------------------


def test_locks(runner: Runner, table: psycopg.Connection) -> None:
    """No step but the drop locks more than one table strongly."""
    steps = runner.plan(Change(revision="a1", pattern=PATTERN)).steps(Phase.EXPAND)
    by_name = {s.name: s.work for s in steps}
    tables = ("t", "t_1", "t_2", "t_2_1", "far.t_2_2")

    def strongest(action: object) -> dict[str, Lock]:
        assert isinstance(action, Transaction)
        return taken(table, action, *tables)

    none = dict.fromkeys(tables, Lock.NONE)
    assert strongest(by_name["create_parent"]) == {
        **none,
        "t": Lock.SHARE_ROW_EXCLUSIVE,
    }
    runner.expand(Change(revision="a1", pattern=replace(PATTERN, name="other")))
    for name in ("create_parent", 'create_parent "t_2"'):
        work = by_name[name]
        assert isinstance(work, Transaction)
        table.execute(work.statements[-1].encode())
    for name, leaf, above in (
        ('create_index "t_1"', "t_1", "t"),
        ('create_index "far"."t_2_2"', "far.t_2_2", "t_2"),
    ):
        build = by_name[name]
        assert isinstance(build, Autocommit)
        assert build.lock is Lock.SHARE_UPDATE_EXCLUSIVE
        table.execute(build.statement.encode())
        assert strongest(by_name[name.replace("create", "attach")]) == {
            **none,
            leaf: Lock.ACCESS_EXCLUSIVE,
            above: Lock.ACCESS_SHARE,
        }
    assert strongest(by_name['attach_index "t_2"']) == {
        **none,
        "t": Lock.ACCESS_SHARE,
        "t_2": Lock.ACCESS_EXCLUSIVE,
    }
    (back,) = steps[0].reverse
    assert strongest(back) == dict.fromkeys(tables, Lock.ACCESS_EXCLUSIVE)


def test_an_attachment_reaches_one_level(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """From below, so that what makes an index valid locks no table further up."""
    sql.execute(
        "CREATE TABLE t (id int, name text) PARTITION BY RANGE (id);"
        " CREATE TABLE t_a PARTITION OF t DEFAULT PARTITION BY RANGE (id);"
        " CREATE TABLE t_b PARTITION OF t_a DEFAULT PARTITION BY RANGE (id);"
        " CREATE TABLE t_c PARTITION OF t_b DEFAULT"
    )
    tables = ("t", "t_a", "t_b", "t_c")
    strong: list[str] = []
    for step in runner.plan(Change(revision="a1", pattern=PATTERN)).steps(Phase.EXPAND):
        if isinstance(step.work, Autocommit):
            sql.execute(step.work.statement.encode())
        elif step.name != "check_index":
            assert isinstance(step.work, Transaction)
            locks = taken(sql, step.work, *tables)
            strong += [t for t in tables if locks[t] is Lock.ACCESS_EXCLUSIVE]
            sql.execute(step.work.statements[-1].encode())
    assert strong == ["t_c", "t_b", "t_a"]


# -- DropIndex ---------------------------------------------------------------


def test_drop(runner: Runner, table: psycopg.Connection) -> None:
    """It goes with all its parts, and comes back with all of them."""
    table.execute("CREATE INDEX by_name ON t (lower(name)) WITH (fillfactor = 70)")
    table.execute("CREATE INDEX own ON t_1 (name)")
    definitions = (
        "SELECT pg_get_indexdef(indexrelid), indisvalid,"
        " pg_partition_root(indexrelid)::text FROM pg_index"
        " WHERE indrelid::regclass::text ~ '^(far.)?t(_|$)' ORDER BY 1"
    )
    before = table.execute(definitions.encode()).fetchall()
    assert len(before) == 6
    change = Change(revision="a1", pattern=DROP)
    runner.expand(change)
    runner.retire("a1", old_release_gone="test")
    assert table.execute(definitions.encode()).fetchall() == before
    assert runner.drop("a1") is State.DROPPED
    assert found(table) == [("t_1", "own", True)]
    assert runner.rollback("a1") is State.VERIFIED
    assert table.execute(definitions.encode()).fetchall() == before
    assert runner.rollback("a1") is State.PLANNED
    assert table.execute(definitions.encode()).fetchall() == before


def test_scans_of_all_parts_count(runner: Runner, table: psycopg.Connection) -> None:
    """What one partition's queries need is not dropped."""
    table.execute("CREATE INDEX by_name ON t (name)")
    scan = (
        "SET enable_seqscan = off; SELECT * FROM t_2_1 WHERE name = 'x';"
        " SELECT pg_stat_force_next_flush(); RESET enable_seqscan"
    )
    table.execute(scan.encode())
    change = Change(revision="a1", pattern=DROP)
    assert "It was scanned 1 time" in runner.plan(change).notices[0].text
    runner.expand(change)
    runner.retire("a1", old_release_gone="test")
    table.execute(scan.encode())
    with pytest.raises(Refused, match="was scanned 1 time since retire"):
        runner.drop("a1")
    assert len(found(table)) == 5


def test_what_a_part_has_of_its_own(runner: Runner, table: psycopg.Connection) -> None:
    """What those of a new index do not get is said before."""
    table.execute("CREATE INDEX by_name ON t (name)")
    change = Change(revision="a1", pattern=ReplaceIndex("t", "by_name", ["id"]))

    def said() -> list[str]:
        notices = runner.plan(change).notices
        return [n.text for n in notices if n.text.startswith("On partitions")]

    assert said() == []
    table.execute(
        "ALTER TABLE t_1 CLUSTER ON t_1_name_idx;"
        " COMMENT ON INDEX far.t_2_2_name_idx IS 'x'"
    )
    assert said() == [
        'On partitions "t_1_name_idx", "t_2_2_name_idx" have a comment, the mark of'
        " CLUSTER or statistics targets, which those of the new one do not get."
    ]


def test_what_rests_on_a_part(runner: Runner, table: psycopg.Connection) -> None:
    """A partition's replica identity goes with the whole, and is named."""
    table.execute(
        "ALTER TABLE t ALTER id SET NOT NULL; CREATE UNIQUE INDEX by_name ON t (id);"
        " ALTER TABLE t_1 REPLICA IDENTITY USING INDEX t_1_id_idx"
    )
    with pytest.raises(Refused, match=r"t_1_id_idx.*is the table's replica identity"):
        runner.expand(Change(revision="a1", pattern=replace(DROP, assured="yes")))


# -- messages ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "made", "message"),
    [
        (
            PATTERN,
            "CREATE INDEX by_name ON ONLY t (name)",
            'Schema "public" has a relation "by_name" already.'
            f"{NOTHING}choose another name, or drop it first.",
        ),
        (
            PATTERN,
            "CREATE TABLE t_1_by_name ()",
            'Schema "public" has a relation "t_1_by_name" already.'
            f"{NOTHING}choose another name, or drop it first.",
        ),
        (
            PATTERN,
            "CREATE TABLE far.t_2_2_by_name ()",
            'Schema "far" has a relation "t_2_2_by_name" already.'
            f"{NOTHING}choose another name, or drop it first.",
        ),
        (
            replace(PATTERN, on=["name"], unique=True),
            "SELECT 1",
            'create index "by_name" on table "t": column "id" decides on the partition'
            " of a row, and is no key of the index: each partition would know its own"
            f" rows only.{NOTHING}add it to the keys.",
        ),
    ],
)
def test_message(
    pattern: CreateIndex,
    made: str,
    message: str,
    runner: Runner,
    table: psycopg.Connection,
) -> None:
    """What cannot work is refused before anything is changed."""
    table.execute(made.encode())
    with pytest.raises(Refused) as caught:
        runner.expand(Change(revision="a1", pattern=pattern))
    assert str(caught.value) == message


def test_notices(runner: Runner, table: psycopg.Connection) -> None:
    """A reviewer reads what happens to partitions, and what going back locks."""
    (notice,) = runner.plan(Change(revision="a1", pattern=PATTERN)).notices
    assert notice.text == (
        "The index is made on the partitioned table first; a partition that is made or"
        " attached meanwhile gets its own from the server, which builds it while it is"
        " attached. Leaves follow one another: 3. Going back drops all of them in one"
        " transaction, which locks the table and all partitions for an instant."
    )
    table.execute("CREATE INDEX by_name ON t (name)")
    text = runner.plan(Change(revision="a2", pattern=DROP)).notices[1].text
    assert text == (
        "The drop locks the table and all partitions (ACCESS EXCLUSIVE) in one"
        " transaction, for an instant. Going back builds the index again, leaf by leaf."
    )
