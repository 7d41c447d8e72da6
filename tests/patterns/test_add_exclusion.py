"""AddExclusion: its text, its life, what it counts, its locks and its messages."""

import json
from dataclasses import replace
from typing import Any, cast

import psycopg
import pytest
from locks import taken
from snapshots import same, snapshot

from migrator.change import Change
from migrator.errors import Failed, MismatchError, Refused
from migrator.facts import Column, Facts, Table
from migrator.names import TableName
from migrator.patterns import AddExclusion, Key, PartitionTable, add_exclusion
from migrator.plan import Autocommit, ChunkedCheck, Lock, State, Transaction
from migrator.runner import Runner

BOOKINGS = Table(
    name=TableName("public", "bookings"),
    oid=1,
    columns=(Column(name="room", type="int"), Column(name="during", type="tstzrange")),
    rows=1000,
)
APART = AddExclusion(
    "bookings", [("during", "&&")], "apart", where="room > 0", assured="small"
)
SETUP = (
    "CREATE TABLE bookings (id int PRIMARY KEY, room int, during int4range);"
    " INSERT INTO bookings SELECT g, 1, int4range(g, g + 1)"
    " FROM generate_series(1, 100) g"
)
NOTHING = "\nNothing was changed.\nNext: "
LARGE = (
    f'{NOTHING}use RebuildTable("bookings", alter=[\'ADD CONSTRAINT "apart" EXCLUDE'
    ' USING "gist" ("during" WITH &&) WHERE (room > 0)\'], assured="…"), which makes it'
    " on a new, empty table. From its expand on no release can write rows that"
    " conflict, and those that are there end its backfill: correct them first."
)
TITLE = 'add exclusion constraint "apart" to table "bookings"'


def facts(table: Table = BOOKINGS) -> Facts:
    """Return facts about a table."""
    return Facts(
        server_version=180000,
        tag="0123456789",
        table=table,
        relation_names=frozenset({"taken"}),
    )


def keys(runner: Runner) -> set[int]:
    """Return the keys of rows that conflict."""
    found = runner.mismatches("a1")
    return {int(value) for m in found for value in json.loads(m.key).values()}


# -- text --------------------------------------------------------------------


def test_text_with_hostile_names() -> None:
    """Every name is quoted; expressions and operators stand as they were written."""
    columns = (Column(name='a "b', type="text"), Column(name="other_1", type="text"))
    table = replace(BOOKINGS, name=TableName('my "sch', "other"), columns=columns)
    pattern = AddExclusion(
        "other",
        [
            (Key('a "b', collation='"C"'), "="),
            (Key(expression="f(':x%')", operators="range_ops"), "OPERATOR(s.&&)"),
        ],
        'i "é%',
        where="':y' <> ''",
        deferrable="deferred",
    )
    (lookup,) = pattern.expand(facts(table))
    assert isinstance(lookup.work, Autocommit)
    assert lookup.work.statement == (
        'CREATE INDEX CONCURRENTLY "_migrator_index_i ""é%_0123456789" ON'
        ' "my ""sch"."other" USING "gist" ("a ""b" COLLATE "C", (f(\':x%\')) range_ops)'
        " WHERE (':y' <> '')"
    )
    (count,) = pattern.verify(facts(table))
    assert isinstance(count.work, ChunkedCheck)
    assert (
        '((\':y\' <> \'\') AND EXISTS (SELECT FROM (SELECT ("a ""b" COLLATE "C") AS'
        ' "other_2", (f(\':x%\')) AS "other_3", ctid AS "other_0" FROM'
        ' "my ""sch"."other" WHERE (\':y\' <> \'\')) AS "another" WHERE'
        ' "another"."other_2" = ("a ""b" COLLATE "C") AND "another"."other_3"'
        " OPERATOR(s.&&) (f(':x%')) AND"
        ' "another"."other_0" <> "other".ctid OFFSET 0))'
    ) in count.work.count
    add, drop = pattern.retire(facts(table))
    assert isinstance(add.work, Transaction)
    assert add.work.statements == (
        'LOCK TABLE "my ""sch"."other" IN ACCESS EXCLUSIVE MODE',
        'ALTER TABLE "my ""sch"."other" ADD CONSTRAINT "i ""é%" EXCLUDE USING "gist"'
        ' ("a ""b" COLLATE "C" WITH =, (f(\':x%\')) range_ops WITH OPERATOR(s.&&))'
        " WHERE (':y' <> '') DEFERRABLE INITIALLY DEFERRED",
    )
    assert isinstance(drop.work, Autocommit)
    (again,) = drop.reverse
    assert isinstance(again, Autocommit)
    assert again.statement == lookup.work.statement


def test_elements_come_back_from_the_ledger() -> None:
    """They are plain data there, and the same declaration afterwards."""
    on = [("room", "="), (Key(expression="f(during)"), "&&")]
    pattern = replace(APART, on=on)
    pattern.require_plain()
    kept = json.loads(json.dumps(pattern.parameters()))
    assert AddExclusion(**kept) == pattern
    assert AddExclusion(**kept).digest() == pattern.digest()


# -- life cycle --------------------------------------------------------------


def test_life_cycle(runner: Runner, sql: psycopg.Connection) -> None:
    """It holds from retire on, and only there; what conflicts is named before."""
    sql.execute(SETUP.encode())
    sql.execute("INSERT INTO bookings VALUES (0, 0, '[0,1000)')")
    change = Change(revision="a1", pattern=APART)
    conflict = "INSERT INTO bookings VALUES (200, 1, '[5,7)')"
    shape = (
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype"
        " = 'x' UNION ALL SELECT 'index', pg_get_indexdef(indexrelid) FROM pg_index"
        " WHERE indrelid = 'bookings'::regclass ORDER BY 1, 2"
    )
    before = sql.execute(shape.encode()).fetchall()
    assert runner.expand(change) is State.BACKFILLED
    sql.execute(conflict.encode())
    with pytest.raises(MismatchError):
        runner.verify("a1")
    assert keys(runner) == {5, 6, 200}
    sql.execute("DELETE FROM bookings WHERE id = 200")
    assert runner.verify("a1") is State.VERIFIED
    assert runner.rollback("a1") is State.PLANNED
    assert sql.execute(shape.encode()).fetchall() == before
    runner.expand(change)
    runner.verify("a1")
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert runner.change("a1").finished
    with pytest.raises(psycopg.errors.ExclusionViolation):
        sql.execute(conflict.encode())
    assert len(sql.execute(shape.encode()).fetchall()) == len(before) + 2
    assert runner.rollback("a1") is State.VERIFIED
    sql.execute(conflict.encode())
    sql.execute("DELETE FROM bookings WHERE id = 200")
    assert runner.rollback("a1", to=State.PLANNED) is State.PLANNED
    assert sql.execute(shape.encode()).fetchall() == before
    runner.complete(change)
    runner.rebuild(change)
    assert sql.execute(shape.encode()).fetchall() == before


def test_a_number_beside_a_range(runner: Runner, sql: psycopg.Connection) -> None:
    """The probe says what is missing; with it, elements are compared one by one."""
    sql.execute(SETUP.encode())
    sql.execute("INSERT INTO bookings VALUES (0, 2, '[0,1000)')")
    pattern = replace(APART, on=[("room", "="), ("during", "&&")], where=None)
    change = Change(revision="a1", pattern=pattern)
    with pytest.raises(Refused) as caught:
        runner.expand(change)
    assert str(caught.value) == (
        f"{TITLE}: the server refuses it: data type integer has no default operator"
        f' class for access method "gist".{NOTHING}correct elements, operators and'
        " method; for numbers and texts beside ranges CREATE EXTENSION btree_gist."
    )
    sql.execute("CREATE EXTENSION btree_gist")
    assert runner.complete(change) is State.RETIRED


@pytest.mark.parametrize(
    ("on", "method", "rows", "conflicts"),
    [
        ([("b", "=")], "btree", "(1, 'x'), (2, 'x'), (3, NULL), (4, NULL)", {1, 2}),
        ([("b", "=")], "hash", "(1, 'x'), (2, 'X'), (3, 'y'), (4, 'y')", {3, 4}),
        (
            [(Key(expression="lower(b)"), "=")],
            "btree",
            "(1, 'x'), (2, 'X'), (3, 'y')",
            {1, 2},
        ),
        ([(Key("b", collation='"C"'), "=")], "btree", "(1, 'x'), (2, 'x')", {1, 2}),
    ],
)
def test_what_is_counted_is_what_the_server_refuses(
    on: Any,
    method: str,
    rows: str,
    conflicts: set[int],
    runner: Runner,
    sql: psycopg.Connection,
) -> None:
    """NULL conflicts with nothing; an expression is that of each row."""
    sql.execute("CREATE TABLE bookings (a int PRIMARY KEY, b text)")
    sql.execute(f"INSERT INTO bookings VALUES {rows}".encode())
    pattern = replace(APART, on=on, method=method, where=None)
    runner.expand(Change(revision="a1", pattern=pattern))
    with pytest.raises(MismatchError):
        runner.verify("a1")
    assert keys(runner) == conflicts
    for key in sorted(conflicts)[1:]:
        sql.execute("DELETE FROM bookings WHERE a = %s", [key])
    assert runner.verify("a1") is State.VERIFIED
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED


def test_a_conflict_behind_the_last_look(
    runner: Runner, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server refuses the constraint, and nothing is changed."""
    sql.execute(SETUP.encode())
    change = Change(revision="a1", pattern=APART)
    runner.expand(change)
    runner.verify("a1")
    retire = AddExclusion.retire

    looks: list[Facts] = []

    def late(self: AddExclusion, given: Facts) -> Any:
        looks.append(given)
        # The first is ahead of the comparison.
        if len(looks) == 2:
            sql.execute("INSERT INTO bookings VALUES (200, 1, '[5,7)')")
        return retire(self, given)

    monkeypatch.setattr(AddExclusion, "retire", late)
    with pytest.raises(Failed, match=r"could not create exclusion constraint"):
        runner.retire("a1", old_release_gone="test")
    sql.execute("DELETE FROM bookings WHERE id = 200")
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED


def test_the_way_back_of_a_table_that_is_partitioned_by_now(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Which lets no such constraint along, and needs no index to look for conflicts."""
    sql.execute(SETUP.encode())
    before = snapshot(sql)
    runner.complete(Change(revision="a1", pattern=APART))
    sql.execute("ALTER TABLE bookings DROP CONSTRAINT apart")
    assert snapshot(sql) == before
    parts = PartitionTable(
        "bookings",
        "RANGE",
        ["id"],
        {"low": "FROM (0) TO (5)"},
        rest="others",
        key=["id"],
        assured="tried",
    )
    runner.complete(Change(revision="b2", pattern=parts))
    before = snapshot(sql)
    assert runner.rollback("a1", to=State.PLANNED) is State.PLANNED
    assert snapshot(sql) == before


# -- locks -------------------------------------------------------------------


def test_lock(runner: Runner, sql: psycopg.Connection) -> None:
    """The strongest there is, taken before anything is built."""
    sql.execute(SETUP.encode())
    runner.expand(Change(revision="a1", pattern=APART))
    with pytest.raises(Refused, match="only while nobody reads"):
        APART.retire(facts(replace(BOOKINGS, rows=20_001)))
    add, _ = APART.retire(facts())
    assert isinstance(add.work, Transaction)
    assert add.work.lock is Lock.ACCESS_EXCLUSIVE
    assert taken(sql, add.work, "bookings") == {"bookings": Lock.ACCESS_EXCLUSIVE}


def test_a_table_that_has_grown_is_refused_under_the_lock(
    runner: Runner, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the statistics say, rows are counted up to the bound."""
    sql.execute(SETUP.encode())
    change = Change(revision="a1", pattern=APART)
    runner.expand(change)
    runner.verify("a1")
    monkeypatch.setattr(add_exclusion, "MOST_ROWS", 99)
    monkeypatch.setattr(AddExclusion, "_require_small", lambda *_: None)
    with pytest.raises(Refused) as caught:
        runner.retire("a1", old_release_gone="test")
    assert str(caught.value) == (
        'Step \'add_constraint\' on table "public"."bookings" is refused: the table has'
        f" more than 99 rows by now.{LARGE}"
    )
    assert runner.rollback("a1", to=State.PLANNED) is State.PLANNED


def test_a_build_that_takes_long_is_ended_once(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """The server ends it after a second, and it is not tried again."""
    sql.execute(SETUP.encode())
    sql.execute(
        "CREATE FUNCTION slow(r int4range) RETURNS int4range IMMUTABLE LANGUAGE plpgsql"
        " AS $$ BEGIN IF current_query() LIKE 'ALTER%' THEN PERFORM pg_sleep(0.1);"
        " END IF; RETURN r; END $$"
    )
    pattern = replace(
        APART, on=[(Key(expression="public.slow(during)"), "&&")], where=None
    )
    runner.expand(Change(revision="a1", pattern=pattern))
    runner.verify("a1")
    # Tried until the budget is used up it would end as a lock that is not to be had.
    with pytest.raises(Failed, match="statement timeout"):
        runner.retire("a1", old_release_gone="test")
    assert runner.rollback("a1", to=State.PLANNED) is State.PLANNED


# -- partitioned tables ------------------------------------------------------


def test_a_partitioned_table(runner: Runner, sql: psycopg.Connection) -> None:
    """Conflicts are named leaf by leaf; then all partitions hold it, also new ones."""
    sql.execute(
        "CREATE TABLE bookings (room int, slot int) PARTITION BY LIST (room);"
        "CREATE TABLE b_1 PARTITION OF bookings FOR VALUES IN (1);"
        "CREATE TABLE b_2 PARTITION OF bookings DEFAULT PARTITION BY LIST (room);"
        "CREATE TABLE b_3 PARTITION OF b_2 DEFAULT;"
        "INSERT INTO bookings SELECT g % 4, g FROM generate_series(1, 40) g"
    )
    before = snapshot(sql)
    pattern = AddExclusion(
        "bookings",
        [("room", "="), (Key(expression="abs(slot)"), "=")],
        "apart",
        method="btree",
        assured="small",
    )
    change = Change(revision="a1", pattern=pattern)
    if sql.info.server_version < 170000:
        with pytest.raises(Refused, match="of such tables from 17 on"):
            runner.expand(change)
        return
    sql.execute("INSERT INTO bookings VALUES (3, -3)")
    runner.expand(change)
    with pytest.raises(MismatchError, match="found 2 rows"):
        runner.verify("a1")
    sql.execute("DELETE FROM bookings WHERE slot = -3")
    runner.verify("a1")
    runner.retire("a1", old_release_gone="test")
    for slot in (41, 42):
        sql.execute(f"INSERT INTO bookings VALUES (9, {slot})".encode())
        with pytest.raises(psycopg.errors.ExclusionViolation):
            sql.execute(f"INSERT INTO bookings VALUES (9, -{slot})".encode())
        sql.execute("CREATE TABLE b_4 PARTITION OF b_2 FOR VALUES IN (8)")
        sql.execute("DROP TABLE b_4")
    runner.rollback("a1", to=State.PLANNED)
    same(snapshot(sql), before)


# -- messages ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "table", "message"),
    [
        (
            APART,
            replace(BOOKINGS, rows=20_001),
            'Table "public"."bookings" has about 20,001 rows: PostgreSQL adds an'
            " exclusion constraint only while nobody reads or writes the table, which"
            f" is done up to 20,000 rows.{LARGE}",
        ),
        (
            replace(APART, on=cast("Any", ["during"])),
            BOOKINGS,
            f"{TITLE}: `on` must be a list of elements, each with its operator."
            f'{NOTHING}write on=[("column", "&&")].',
        ),
        (
            replace(APART, on=[]),
            BOOKINGS,
            f"{TITLE}: `on` must be a list of elements, each with its operator."
            f'{NOTHING}write on=[("column", "&&")].',
        ),
        (
            replace(APART, on=[("during", "")]),
            BOOKINGS,
            f"{TITLE}: an element has no operator."
            f'{NOTHING}write on=[("column", "&&")].',
        ),
        (
            replace(APART, on=[("rom", "=")]),
            BOOKINGS,
            'Table "public"."bookings" has no column "rom".'
            f'{NOTHING}"room" is the nearest; correct the name; the table has "room",'
            ' "during".',
        ),
        (
            replace(APART, name="taken"),
            BOOKINGS,
            'Schema "public" has a relation "taken" already.'
            f"{NOTHING}choose another name, or drop it first.",
        ),
        (
            replace(APART, assured=""),
            BOOKINGS,
            f"{TITLE}: At retire nobody reads or writes the table while the server"
            " builds the index of the constraint: about 20 ms for 1,000 rows. What"
            " takes longer than a second is ended, and nothing is changed."
            f'{NOTHING}look into it, then write assured="why it is safe here" into the'
            " pattern.",
        ),
        (
            APART,
            replace(
                BOOKINGS,
                kind="p",
                columns=(
                    replace(BOOKINGS.columns[0], partition_key=True),
                    BOOKINGS.columns[1],
                ),
            ),
            f'{TITLE}: column "room" decides on the partition of a row, and is no'
            " element with =: each partition would know its own rows only."
            f'{NOTHING}add ("room", "=") to the elements.',
        ),
    ],
)
def test_message(pattern: AddExclusion, table: Table, message: str) -> None:
    """What cannot work is refused with the reason and a way out."""
    pattern.require_plain()
    with pytest.raises(Refused) as caught:
        pattern.check(facts(table))
    assert str(caught.value) == message
