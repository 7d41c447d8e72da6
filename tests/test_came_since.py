"""What others put on a shape in mid-flight is found before it is taken away."""

from dataclasses import dataclass, replace
from threading import Timer
from typing import Any

import psycopg
import pytest
from test_interleavings import CrashError, crash_at, fresh

from migrator.change import Change
from migrator.errors import Refused
from migrator.execution import Execution
from migrator.pattern import Pattern
from migrator.patterns import (
    AddCheck,
    AddExclusion,
    AddForeignKey,
    AddPrimaryKey,
    AddUnique,
    ChangeDomain,
    ChangePrimaryKey,
    CreateIndex,
    DropColumn,
    DropConstraint,
    DropIndex,
    DropTable,
    ExtractTable,
    Key,
    MergeTables,
    MoveColumn,
    RemoveEnumValue,
    SplitTable,
)
from migrator.plan import Phase, State
from migrator.runner import Runner

SETUP = """
CREATE TABLE t (id bigint PRIMARY KEY, name text);
CREATE TABLE n (id bigint PRIMARY KEY REFERENCES t, note text);
CREATE TABLE log (name text);
CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
INSERT INTO t SELECT g, 'n' || g FROM generate_series(1, 9) g;
INSERT INTO n SELECT id FROM t;
"""
#: What reads `name`: how it is made, how it is told, and how it goes.
READERS = {
    "view": ("CREATE VIEW late AS SELECT {} AS x FROM t", "view late", "VIEW late"),
    "rule": (
        "CREATE RULE late AS ON INSERT TO t DO ALSO INSERT INTO log VALUES (NEW.{})",
        "rule late on table t",
        "RULE late ON t",
    ),
    "function": (
        "CREATE FUNCTION late() RETURNS bigint BEGIN ATOMIC SELECT count({}) FROM t;"
        " END",
        "function late()",
        "FUNCTION late",
    ),
    "policy": (
        "CREATE POLICY late ON t USING ({} = '')",
        "policy late on table t",
        "POLICY late ON t",
    ),
    "publication": (
        "CREATE PUBLICATION late FOR TABLE t (id, {})",
        "publication of table t in publication late",
        "PUBLICATION late",
    ),
    "generated": (
        "ALTER TABLE t ADD late bool GENERATED ALWAYS AS ({} = '') STORED",
        'generated column "late"',
        "",
    ),
    "trigger": (
        "CREATE TRIGGER late BEFORE UPDATE OF {} ON t FOR EACH ROW"
        " EXECUTE FUNCTION pass()",
        "trigger late on table t",
        "TRIGGER late ON t",
    ),
}


@dataclass(frozen=True)
class Case:
    """A pattern that takes `name` away, and what comes before retire, and drop."""

    pattern: Pattern
    before_retire: str
    before_drop: str


CASES = {
    "drop_column": Case(DropColumn("t", "name"), "view", "rule"),
    "move_column": Case(
        MoveColumn("t", "name", to="n", key={"id": "id"}, assured="tried"),
        "function",
        "publication",
    ),
    "split_table": Case(
        SplitTable("t", "m", ["name"], key=["id"], assured="tried"), "policy", "view"
    ),
    "extract_table": Case(
        ExtractTable("t", "m", ["name"], reference="m_id", assured="tried"),
        "generated",
        "trigger",
    ),
}


def steps(runner: Runner) -> list[str]:
    """Return the steps of retire and drop that were entered."""
    late = (Phase.RETIRE, Phase.DROP)
    return [s.step.name for s in runner.steps("two") if s.phase in late]


def carried_on(runner: Runner) -> State:
    """Begin the next phase."""
    if runner.change("two").state is State.VERIFIED:
        return runner.retire("two", old_release_gone="test")
    return runner.drop("two")


def refused(runner: Runner, sql: psycopg.Connection, reader: str) -> None:
    """Assert that a reader holds the next phase, which runs nothing; take it away."""
    _, told, what = READERS[reader]
    before, entered = runner.change("two").state, steps(runner)
    with pytest.raises(Refused) as caught:
        carried_on(runner)
    assert str(caught.value) == (
        f'Column "name" of table "public"."t" is used by {told}.\nNothing was changed.'
        "\nNext: drop these, or make them again without the column; then run the same"
        " command again."
    )
    assert (runner.change("two").state, steps(runner)) == (before, entered)
    gone = f"DROP {what}" if what else "ALTER TABLE t DROP COLUMN late"
    sql.execute(gone.encode())


@pytest.mark.parametrize("name", CASES)
def test_a_reader_of_a_column(
    name: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """It is named before retire and before the drop, and both pass without it."""
    sql.execute(SETUP.encode())
    case = CASES[name]
    runner.expand(Change(revision="two", pattern=case.pattern))
    sql.execute(READERS[case.before_retire][0].format("name").encode())
    # It is no business of a comparison, which lets the new release in.
    assert runner.settle("two") is State.VERIFIED
    assert not runner.change("two").finished
    refused(runner, sql, case.before_retire)
    assert runner.retire("two", old_release_gone="test") is State.RETIRED
    retired = sql.execute(
        "SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = 't'::regclass"
        " AND attname LIKE '%retired%'"
    ).fetchone()
    assert retired is not None
    sql.execute(READERS[case.before_drop][0].format(retired[0]).encode())
    refused(runner, sql, case.before_drop)
    assert runner.drop("two") is State.DROPPED


#: What comes onto a table that goes into another one, and would go with it: how it is
#: made, and how it goes.
ON_TABLE = {
    'Column "late" of table "public"."n" is neither in': (
        "ALTER TABLE n ADD late int",
        "ALTER TABLE n DROP late",
    ),
    "is used by view late": (
        "CREATE VIEW late AS SELECT note FROM n",
        "DROP VIEW late",
    ),
    "is used by rule late": (
        "CREATE RULE late AS ON INSERT TO n DO ALSO INSERT INTO log VALUES (NEW.note)",
        "DROP RULE late ON n",
    ),
    "has row-level security": (
        "ALTER TABLE n ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE n DISABLE ROW LEVEL SECURITY",
    ),
    "is used by publication late": (
        "CREATE PUBLICATION late FOR TABLE n",
        "DROP PUBLICATION late",
    ),
    'has a trigger "late"': (
        "CREATE TRIGGER late BEFORE UPDATE ON n FOR EACH ROW EXECUTE FUNCTION pass()",
        "DROP TRIGGER late ON n",
    ),
    'is referred to by foreign key "late"': (
        "CREATE TABLE child (id bigint CONSTRAINT late REFERENCES n)",
        "DROP TABLE child",
    ),
    'Constraint "late" of table "public"."n" cannot go along': (
        "ALTER TABLE n ADD CONSTRAINT late CHECK (id > 0)",
        "ALTER TABLE n DROP CONSTRAINT late",
    ),
}


def test_what_comes_onto_a_table_that_is_merged(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """It holds the exchange for a view, the drop of that, and the drop of the table."""
    sql.execute(SETUP.encode())
    pattern = MergeTables("n", "t", ["note"], key={"id": "id"}, assured="tried")
    runner.expand(Change(revision="two", pattern=pattern))
    runner.backfill("two")
    for told, (made, gone) in ON_TABLE.items():
        sql.execute(made.encode())
        with pytest.raises(Refused, match=told):
            runner.verify("two")
        sql.execute(gone.encode())
    runner.verify("two")
    former = next(
        t
        for (t,) in sql.execute(
            "SELECT relname FROM pg_class WHERE relname LIKE '%retired_n%'"
            " AND relkind = 'r'"
        )
    )
    view = f'CREATE VIEW late AS SELECT note FROM "{former}"'
    for reached in (State.RETIRED, State.DROPPED):
        sql.execute(view.encode())
        with pytest.raises(Refused, match="is used by view late"):
            carried_on(runner)
        sql.execute("DROP VIEW late")
        assert carried_on(runner) is reached


def test_what_comes_onto_a_key_or_a_table_that_goes(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """A reader of the former key, and a foreign key to the table, hold retire."""
    sql.execute(SETUP.replace("bigint", "int").encode())
    wider = ChangePrimaryKey("t", "id", assured="tried")
    runner.expand(Change(revision="two", pattern=wider))
    sql.execute("CREATE VIEW late AS SELECT id FROM n")
    runner.settle("two")
    with pytest.raises(Refused, match="is used by view late"):
        carried_on(runner)
    sql.execute("CREATE TABLE gone (id int PRIMARY KEY)")
    runner.expand(Change(revision="gone", pattern=DropTable("gone")))
    sql.execute("CREATE TABLE child (id int CONSTRAINT late REFERENCES gone)")
    with pytest.raises(Refused, match='is referred to by foreign key "late"'):
        runner.retire("gone", old_release_gone="test")


NAMED = {
    "check": (AddCheck("t", "k", "a > 0"), "CHECK (a <> 17)"),
    "unique": (AddUnique("t", ["a"], "k"), "UNIQUE (b)"),
    "index": (AddUnique("t", ["a"], "k"), ""),
    "primary_key": (AddPrimaryKey("t", ["a"], "k"), "UNIQUE (b)"),
    "foreign_key": (AddForeignKey("t", ["a"], "o", ["id"], "k"), "CHECK (a <> 17)"),
    "exclusion": (
        AddExclusion("t", [(Key(expression="int4range(a, a + 1)"), "&&")], "k"),
        "CHECK (a <> 17)",
    ),
    "enum": (RemoveEnumValue("t", "e", "no", instead="yes", name="k"), "UNIQUE (b)"),
    "domain": (
        ChangeDomain("price", add_check="VALUE > 0", name="k"),
        "CHECK (VALUE <> 17)",
    ),
}


@pytest.mark.parametrize("kind", NAMED)
def test_another_constraint_of_the_name(
    kind: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """It does not count as made by the change, and no way back takes it along."""
    sql.execute(
        "CREATE DOMAIN price AS int; CREATE TABLE o (id int PRIMARY KEY);"
        "INSERT INTO o SELECT generate_series(1, 9);"
        "CREATE TYPE answer AS ENUM ('yes', 'no');"
        "CREATE TABLE t (a int NOT NULL, b int, c price, e answer);"
        "INSERT INTO t SELECT g, g, g FROM generate_series(1, 9) g"
    )
    pattern, other = NAMED[kind]
    pattern = replace(pattern, assured="tried")
    runner.expand(Change(revision="two", pattern=pattern))
    runner.settle("two")
    on, found = (
        ("DOMAIN price", "contypid <> 0")
        if kind == "domain"
        else (
            "TABLE t",
            "conrelid = 't'::regclass",
        )
    )
    made = (
        f"ALTER {on} ADD CONSTRAINT k {other}" if other else "CREATE INDEX k ON t (b)"
    )
    gone = f"ALTER {on} DROP CONSTRAINT k" if other else "DROP INDEX k"
    named = f"SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE {found}"
    before = sql.execute(named.encode()).fetchall()
    sql.execute(made.encode())
    with pytest.raises(
        Refused, match=r'a (check|constraint|relation) "k" already'
    ) as e:
        runner.retire("two", old_release_gone="test")
    assert e.value.next == (
        "rename that one, or drop it; then run the same command again."
    )
    assert steps(runner) == []
    sql.execute(gone.encode())
    assert runner.retire("two", old_release_gone="test") is State.RETIRED
    assert sql.execute(named.encode()).fetchall() != before
    assert runner.rollback("two") is State.VERIFIED
    assert sql.execute(named.encode()).fetchall() == before


@pytest.mark.parametrize("kind", ["check", "unproved", "foreign_key", "domain"])
def test_another_constraint_of_a_name_that_went(
    kind: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """It does not count as the one that comes back, which holds the way back."""
    unproved = " NOT VALID" if kind == "unproved" else ""
    sql.execute(
        b"CREATE DOMAIN price AS int; CREATE TABLE o (id int PRIMARY KEY);"
        b"INSERT INTO o SELECT generate_series(1, 9); CREATE TABLE t (a int, c price);"
        b"INSERT INTO t SELECT g, g FROM generate_series(1, 9) g"
    )
    made, other = {
        "domain": ("CHECK (VALUE > 0)", "CHECK (VALUE <> 17)"),
        "foreign_key": ("FOREIGN KEY (a) REFERENCES o", "CHECK (a <> 17)"),
    }.get(kind, (f"CHECK (a > 0){unproved}", "CHECK (a <> 17)"))
    on = "DOMAIN price" if kind == "domain" else "TABLE t"
    sql.execute(f"ALTER {on} ADD CONSTRAINT k {made}".encode())
    told = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'k'"
    before = sql.execute(told.encode()).fetchall()
    pattern: Pattern = DropConstraint("t", "k", assured="tried")
    if kind == "domain":
        pattern = ChangeDomain("price", drop_check="k")
    runner.expand(Change(revision="two", pattern=pattern))
    runner.settle("two")
    runner.retire("two", old_release_gone="test")
    sql.execute(f"ALTER {on} ADD CONSTRAINT k {other}".encode())
    with pytest.raises(Refused, match=r'another (check|constraint) .* the name "k"'):
        runner.rollback("two")
    sql.execute(f"ALTER {on} DROP CONSTRAINT k".encode())
    assert runner.rollback("two") is State.VERIFIED
    after = sql.execute(told.encode()).fetchall()
    assert [str(t).replace(" NOT VALID", "") for t in after] == [
        str(t).replace(" NOT VALID", "") for t in before
    ]


#: What goes: how it is made, and the pattern by which it does.
GONE: dict[str, tuple[str, Pattern]] = {
    "index": (
        "CREATE INDEX k ON t (f(a), b) WHERE f(b) > 0",
        DropIndex("t", "k", assured="tried"),
    ),
    "unique": (
        "ALTER TABLE t ADD CONSTRAINT k UNIQUE (a)",
        DropConstraint("t", "k", assured="tried"),
    ),
}


@pytest.mark.parametrize("of", ["", "PARTITION BY RANGE (a)"])
@pytest.mark.parametrize("kind", GONE)
def test_another_index_of_a_name_that_went(
    kind: str, of: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """Only the same one counts as what comes back, whoever has made it."""
    sql.execute(
        b"CREATE FUNCTION f(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';"
        b"CREATE TABLE o (a int)"
    )
    sql.execute(f"CREATE TABLE t (a int, b int) {of}".encode())
    if of:
        sql.execute(b"CREATE TABLE p PARTITION OF t FOR VALUES FROM (0) TO (99)")
    sql.execute(b"INSERT INTO t SELECT g, g FROM generate_series(1, 9) g")
    made, pattern = GONE[kind]
    sql.execute(made.encode())
    told = "SELECT pg_get_indexdef('k'::regclass)"
    before = sql.execute(told.encode()).fetchall()
    runner.complete(Change(revision="two", pattern=pattern))
    for other, gone in (
        ("CREATE INDEX k ON t (b)", "DROP INDEX k"),
        ("CREATE UNIQUE INDEX k ON t (a, b)", "DROP INDEX k"),
        ("CREATE INDEX k ON o (a)", "DROP INDEX k"),
        ("CREATE VIEW k AS SELECT 1", "DROP VIEW k"),
    ):
        sql.execute(other.encode())
        with pytest.raises(Refused, match=r'"k" was given to another relation'):
            runner.rollback("two", to=State.VERIFIED)
        sql.execute(gone.encode())
    if kind == "index":
        sql.execute(made.encode())
    assert runner.rollback("two", to=State.VERIFIED) is State.VERIFIED
    assert sql.execute(told.encode()).fetchall() == before


#: What makes an index called k, with the phase of that.
BUILT: dict[str, tuple[Pattern, Phase]] = {
    "index": (CreateIndex("t", ["a"], "k"), Phase.EXPAND),
    "unique": (CreateIndex("t", ["a"], "k", unique=True), Phase.RETIRE),
    "foreign key": (
        AddForeignKey("t", ["a"], "o", ["a"], "key", index="k"),
        Phase.EXPAND,
    ),
    "key": (AddUnique("t", ["a"], "k"), Phase.RETIRE),
}
_OTHERS = ("INDEX k ON t (b)", "INDEX k ON o (a)", "VIEW k AS SELECT 1")


@pytest.mark.parametrize(
    ("kind", "of"),
    [
        (kind, of)
        for kind in BUILT
        for of in ("", "PARTITION BY RANGE (a)")
        # A partitioned table has to have the index of a foreign key before.
        if not (of and kind == "foreign key")
    ],
)
def test_a_name_that_is_taken_between_the_look_and_the_build(
    kind: str, of: str, runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """It is somebody else's: no step counts it as its own, and no way back drops it."""
    sql.execute(b"CREATE TABLE o (a int PRIMARY KEY)")
    sql.execute(f"CREATE TABLE t (a int, b int) {of}".encode())
    if of:
        sql.execute(b"CREATE TABLE p PARTITION OF t FOR VALUES FROM (0) TO (99)")
    pattern, phase = BUILT[kind]
    change = Change(revision="two", pattern=pattern)

    def build() -> None:
        runner.expand(change)
        runner.settle("two")
        if phase is Phase.RETIRE:
            runner.retire("two", old_release_gone="test")

    if phase is Phase.RETIRE:
        runner.expand(change)
        runner.settle("two")
    for other in _OTHERS:
        with psycopg.connect(database) as conn:
            # Nobody sees it before the commit, which the build waits for.
            conn.execute(f"CREATE {other}".encode())
            conn.execute(b"LOCK TABLE t IN SHARE MODE")
            timer = Timer(0.7, conn.commit)
            timer.start()
            with pytest.raises(Refused, match=r'k"? .*was given|relation "k" already'):
                build()
            timer.join()
            with pytest.raises(Refused, match=r'k"? .*was given|relation "k" already'):
                build()
            assert runner.rollback("two", to=State.PLANNED) is State.PLANNED
            there = sql.execute("SELECT to_regclass('k') IS NOT NULL").fetchone()
            assert there == (True,)
            sql.execute(f"DROP {other.split()[0]} k".encode())
    build()
    assert runner.rollback("two", to=State.PLANNED) is State.PLANNED
    assert sql.execute("SELECT to_regclass('k')").fetchone() == (None,)


def test_a_crash_before_a_name_that_is_taken_is_told(
    runner: Runner,
    sql: psycopg.Connection,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who goes on does not take it for what the dead one has built."""
    sql.execute("CREATE TABLE t (a int, b int)")
    forward = Execution.forward

    def late(*given: Any) -> None:
        monkeypatch.undo()
        sql.execute("CREATE INDEX k ON t (b)")
        with crash_at("set_status", 1):
            forward(*given)

    monkeypatch.setattr(Execution, "forward", late)
    change = Change(revision="two", pattern=CreateIndex("t", ["a"], "k"))
    with pytest.raises((Refused, CrashError)):
        runner.expand(change)
    with pytest.raises(Refused, match='"k" already'):
        fresh(database).expand(change)
