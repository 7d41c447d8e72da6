"""AddUnique: its text, its life, its locks and its messages."""

from dataclasses import replace
from typing import Any

import psycopg
import pytest
from locks import holding, taken

from migrator.change import Change
from migrator.errors import Failed, Held, LockBudgetError, MismatchError, Refused
from migrator.facts import Column, Constraint, Facts, Index, IndexColumn, Table
from migrator.names import TableName
from migrator.patterns import AddUnique
from migrator.plan import (
    Autocommit,
    ChunkedCheck,
    Lock,
    Phase,
    State,
    Transaction,
)
from migrator.runner import Runner

FACTS = Facts(
    server_version=180000,
    tag="0123456789",
    table=Table(
        name=TableName("public", "users"),
        oid=1,
        columns=(
            Column(name="mail", type="text"),
            Column(name="org", type="int", not_null=True),
        ),
        constraints=(Constraint(name="taken", kind="c"),),
    ),
    relation_names=frozenset({"users", "teams"}),
)
PLAIN = AddUnique("users", ["mail"], "users_mail")
KEYS = (
    "SELECT pg_get_constraintdef(oid), convalidated FROM pg_constraint"
    " WHERE conrelid = 'users'::regclass AND conname = 'users_mail'"
)
INDEXES = (
    "SELECT indexrelid::regclass::text FROM pg_index"
    " WHERE indrelid = 'users'::regclass AND NOT indisprimary"
)
TABLE = "CREATE TABLE users (id int PRIMARY KEY, mail text, org int)"


# -- text --------------------------------------------------------------------


def test_text_with_hostile_names() -> None:
    """Every name is quoted, in the question for duplicates as well."""
    long = "é" * 31
    table = replace(
        FACTS.table,
        name=TableName('my "sch', "other"),
        columns=(
            Column(name='a "b', type="text", not_null=True),
            Column(name="%s:x", type="citext", equal='OPERATOR("my ext".=)'),
        ),
    )
    given = replace(FACTS, table=table)
    pattern = AddUnique(
        "other",
        ['a "b', "%s:x"],
        long,
        nulls_not_distinct=True,
        deferrable="deferred",
        include=['a "b'],
    )
    name = '"my ""sch"."other"'
    build, attach, gone = pattern.retire(given)
    assert isinstance(build.work, Autocommit)
    assert build.work.statement == (
        f'CREATE UNIQUE INDEX CONCURRENTLY "{long}" ON {name} USING "btree"'
        ' ("a ""b", "%s:x") INCLUDE ("a ""b") NULLS NOT DISTINCT'
    )
    assert isinstance(attach.work, Transaction)
    assert attach.work.statements == (
        f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE",
        f'ALTER TABLE {name} ADD CONSTRAINT "{long}" UNIQUE USING INDEX "{long}"'
        " DEFERRABLE INITIALLY DEFERRED",
    )
    (index,) = pattern.expand(given)
    assert gone.work == index.reverse[0]
    (again,) = gone.reverse
    assert isinstance(again, Autocommit)
    assert isinstance(index.work, Autocommit)
    # It is done without, once a later change has made the table another one.
    assert (again.done or "").startswith(f"{index.work.done} OR ")
    assert replace(again, done=index.work.done) == index.work
    (count,) = pattern.verify(given)
    assert isinstance(count.work, ChunkedCheck)
    a, b = '"other"."a ""b"', '"other"."%s:x"'
    same = (
        f'FROM {name} AS "another" WHERE "another"."a ""b" OPERATOR(pg_catalog.=) {a}'
    )
    this = '"another".ctid <> "other".ctid OFFSET 0'
    assert count.work.count == (
        f"SELECT count(*) FROM {name} WHERE ctid >= $1::pg_catalog.tid"
        " AND ctid < $2::pg_catalog.tid AND"
        f" (({b} IS DISTINCT FROM NULL AND EXISTS (SELECT {same}"
        f' AND "another"."%s:x" OPERATOR("my ext".=) {b} AND {this}))'
        f" OR ({b} IS NOT DISTINCT FROM NULL AND EXISTS (SELECT {same}"
        f' AND "another"."%s:x" IS NULL AND {this})))'
    )


def test_text_where_an_index_is_there() -> None:
    """No second one is built to find duplicates, and none is dropped."""
    there = Index(name="i", method="btree", keys=(IndexColumn(name="mail"),))
    given = replace(FACTS, table=replace(FACTS.table, indexes=(there,)))
    assert PLAIN.expand(given) == ()
    assert [s.name for s in PLAIN.retire(given)] == ["build_index", "add_constraint"]
    partial = replace(there, plain=False)
    given = replace(FACTS, table=replace(FACTS.table, indexes=(partial,)))
    assert [s.name for s in PLAIN.expand(given)] == ["create_index"]


# -- life cycle --------------------------------------------------------------


def test_life_cycle(runner: Runner, sql: psycopg.Connection) -> None:
    """The old release may write duplicates until retire, and none afterwards."""
    sql.execute(TABLE)
    sql.execute("INSERT INTO users VALUES (1, 'a'), (2, NULL), (3, NULL)")
    change = Change(revision="a1", pattern=PLAIN)

    def duplicate() -> None:
        sql.execute("INSERT INTO users VALUES (9, 'a')")
        sql.execute("DELETE FROM users WHERE id = 9")

    duplicate()
    assert runner.expand(change) is State.BACKFILLED
    assert len(sql.execute(INDEXES).fetchall()) == 1
    duplicate()
    assert runner.rollback("a1") is State.PLANNED
    assert sql.execute(INDEXES).fetchall() == []
    duplicate()
    assert runner.expand(change) is State.BACKFILLED
    sql.execute("INSERT INTO users VALUES (4, 'b'), (5, 'b')")
    with pytest.raises(MismatchError, match="first: a duplicate in"):
        runner.verify("a1")
    with pytest.raises(Held, match="correct the rows that `migrator status a1`"):
        runner.retire("a1", old_release_gone="test")
    keys = {(m.key, m.wrong.partition(" in ")[0]) for m in runner.mismatches("a1")}
    assert keys == {('{"id" : "4"}', "a duplicate"), ('{"id" : "5"}', "a duplicate")}
    sql.execute("DELETE FROM users WHERE id = 5")
    assert runner.verify("a1") is State.VERIFIED
    duplicate()
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert runner.change("a1").finished
    assert sql.execute(KEYS).fetchall() == [("UNIQUE (mail)", True)]
    assert sql.execute(INDEXES).fetchall() == [("users_mail",)]
    with pytest.raises(psycopg.errors.UniqueViolation):
        duplicate()
    assert runner.rollback("a1") is State.VERIFIED
    assert sql.execute(KEYS).fetchall() == []
    (index,) = sql.execute(INDEXES).fetchall()
    assert index[0].startswith("_migrator_index_")
    duplicate()
    assert runner.verify("a1") is State.VERIFIED
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert runner.rollback("a1", to=State.PLANNED) is State.PLANNED
    assert sql.execute(INDEXES).fetchall() == []
    duplicate()


def test_a_duplicate_after_the_last_look(
    runner: Runner, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The build finds it and leaves nothing; once corrected, it goes on."""
    sql.execute(TABLE)
    sql.execute("INSERT INTO users VALUES (1, 'a')")
    runner.expand(Change(revision="a1", pattern=PLAIN))
    runner.verify("a1")
    again = type(runner)._verify_again

    def late(*args: Any) -> None:
        again(*args)
        sql.execute("INSERT INTO users VALUES (2, 'a')")

    monkeypatch.setattr(type(runner), "_verify_again", late)
    with pytest.raises(Failed) as caught:
        runner.retire("a1", old_release_gone="test")
    assert str(caught.value) == (
        'Step \'build_index\' on table "public"."users": could not create unique'
        ' index "users_mail": rows have the same key.\nWhat ran before stays.\n'
        "Next: correct these rows (`SELECT mail, count(*) FROM public.users WHERE"
        " mail IS NOT NULL GROUP BY mail HAVING count(*) > 1` lists them), then run"
        " the same command again."
    )
    assert ("users_mail",) not in sql.execute(INDEXES).fetchall()
    sql.execute("DELETE FROM users WHERE id = 2")
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert sql.execute(KEYS).fetchall() == [("UNIQUE (mail)", True)]


@pytest.mark.parametrize("nulls_not_distinct", [False, True])
def test_verification_counts_what_the_server_refuses(
    nulls_not_distinct: bool, runner: Runner, sql: psycopg.Connection
) -> None:
    """Of all pairs of keys, verification names those that the server refuses."""
    sql.execute(TABLE)
    sql.execute("CREATE TABLE trial (LIKE users)")
    clause = "NULLS NOT DISTINCT" if nulls_not_distinct else ""
    sql.execute(f"ALTER TABLE trial ADD UNIQUE {clause} (mail, org)".encode())
    values: list[tuple[str | None, int | None]] = [
        (mail, org) for mail in (None, "a", "b") for org in (None, 1)
    ]
    rows = [*values, values[0], values[2], values[3]]
    wanted: set[str] = set()
    for number, row in enumerate(rows):
        sql.execute("INSERT INTO users VALUES (%s, %s, %s)", (number, *row))
        try:
            sql.execute("INSERT INTO trial VALUES (%s, %s, %s)", (number, *row))
        except psycopg.errors.UniqueViolation:
            pair = {number, rows.index(row)}
            wanted |= {f'{{"id" : "{n}"}}' for n in pair}
    pattern = replace(PLAIN, on=["mail", "org"], nulls_not_distinct=nulls_not_distinct)
    runner.expand(Change(revision="a1", pattern=pattern))
    with pytest.raises(MismatchError):
        runner.verify("a1")
    assert {m.key for m in runner.mismatches("a1")} == wanted
    assert len(wanted) == (6 if nulls_not_distinct else 2)


def test_options(runner: Runner, sql: psycopg.Connection) -> None:
    """The constraint is what was asked for."""
    sql.execute(TABLE)
    pattern = replace(
        PLAIN, nulls_not_distinct=True, deferrable="immediate", include=["org"]
    )
    runner.complete(Change(revision="a1", pattern=pattern))
    assert sql.execute(KEYS).fetchall() == [
        ("UNIQUE NULLS NOT DISTINCT (mail) INCLUDE (org) DEFERRABLE", True)
    ]


def test_what_a_failed_build_left_is_replaced(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """An invalid index of that name is not taken for the index."""
    sql.execute(TABLE)
    sql.execute("INSERT INTO users VALUES (1, 'a'), (2, 'a')")
    with pytest.raises(psycopg.errors.UniqueViolation):
        sql.execute("CREATE UNIQUE INDEX CONCURRENTLY users_mail ON users (mail)")
    sql.execute("DELETE FROM users WHERE id = 2")
    runner.expand(Change(revision="a1", pattern=PLAIN))
    runner.verify("a1")
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert sql.execute(KEYS).fetchall() == [("UNIQUE (mail)", True)]


# -- locks -------------------------------------------------------------------


def test_no_step_locks_more_than_it_claims(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Writers wait for catalogue changes only."""
    sql.execute(TABLE)
    steps = runner.plan(Change(revision="a1", pattern=PLAIN)).steps(Phase.RETIRE)
    build, attach, gone = (s.work for s in steps)
    assert isinstance(attach, Transaction)
    for work in (build, gone):
        assert isinstance(work, Autocommit)
        assert " CONCURRENTLY " in work.statement
        assert work.lock is Lock.SHARE_UPDATE_EXCLUSIVE
    sql.execute("CREATE UNIQUE INDEX users_mail ON users (mail)")
    assert taken(sql, attach, "users") == {"users": Lock.ACCESS_EXCLUSIVE}


def test_a_lock_on_the_table(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """The build gives up on time, names the holder and leaves nothing."""
    quick = replace(runner.settings, build_budget_s=2.0)
    runner = replace(runner, settings=quick)
    sql.execute(TABLE)
    runner.expand(Change(revision="a1", pattern=PLAIN))
    runner.verify("a1")
    with (
        holding(database, "users", "SHARE"),
        pytest.raises(LockBudgetError) as caught,
    ):
        runner.retire("a1", old_release_gone="test")
    assert str(caught.value).startswith(
        'Step \'build_index\' on table "public"."users" waited 2 s for'
    )
    assert '(application "billing"' in str(caught.value)
    assert sql.execute(KEYS).fetchall() == []
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED


# -- messages ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            replace(PLAIN, on="mail"),
            'add unique constraint "users_mail" to table "users": `on` must be a list'
            ' of one column or more.\nNothing was changed.\nNext: write on=["column"].',
        ),
        (
            replace(PLAIN, include=["no"]),
            'Table "public"."users" has no column "no".\nNothing was changed.\n'
            'Next: correct the name; the table has "mail", "org".',
        ),
        (
            replace(PLAIN, name="taken"),
            'Table "public"."users" has a constraint "taken" already.\n'
            "Nothing was changed.\nNext: choose another name, or drop it first.",
        ),
        (
            replace(PLAIN, name="teams"),
            'Schema "public" has a relation "teams" already.\n'
            "Nothing was changed.\nNext: choose another name, or drop it first.",
        ),
        (
            replace(PLAIN, deferrable="no"),
            'add unique constraint "users_mail" to table "users": deferrable is \'no\'.'
            '\nNothing was changed.\nNext: write "immediate" or "deferred", which is'
            " what it is initially.",
        ),
    ],
    ids=repr,
)
def test_message(pattern: AddUnique, message: str) -> None:
    """What cannot work is refused with the reason and a way out."""
    with pytest.raises(Refused) as caught:
        pattern.check(FACTS)
    assert str(caught.value) == message


def test_message_about_a_partitioned_table() -> None:
    """What decides on the partition has to be among the columns."""
    day = Column(name="day", type="date", partition_key=True)
    table = replace(FACTS.table, kind="p", columns=(*FACTS.table.columns, day))
    with pytest.raises(Refused) as caught:
        PLAIN.check(replace(FACTS, table=table))
    assert str(caught.value) == (
        f'{PLAIN.title}: column "day" decides on the partition of a row, and is no key'
        " of the index: each partition would know its own rows only.\n"
        "Nothing was changed.\nNext: add it to the keys."
    )


def test_message_about_many_columns_that_may_be_null() -> None:
    """Each doubles the question, which an index has to answer."""
    table = replace(
        FACTS.table, columns=tuple(Column(name=n, type="int") for n in "abcde")
    )
    pattern = replace(PLAIN, on=list("abcde"), nulls_not_distinct=True)
    with pytest.raises(Refused) as caught:
        pattern.check(replace(FACTS, table=table))
    assert str(caught.value) == (
        'add unique constraint "users_mail" to table "users": more than 4 of its'
        ' columns may be NULL ("a", "b", "c", "d", "e"); duplicates among them cannot'
        " be looked up in time.\nNothing was changed.\n"
        "Next: make some of them NOT NULL first, or leave nulls_not_distinct out."
    )


def test_message_about_a_type_without_an_order(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """The server's own words."""
    sql.execute("CREATE TABLE users (mail json)")
    with pytest.raises(Refused) as caught:
        runner.expand(Change(revision="a1", pattern=PLAIN))
    assert str(caught.value) == (
        'add unique constraint "users_mail" to table "users": the server refuses it:'
        " data type json has no default operator class for access method"
        ' "btree".\nNothing was changed.\n'
        "Next: leave out columns whose type has no order."
    )


def test_notices() -> None:
    """A reviewer reads when it is enforced, and what stands there until then."""
    when, index = PLAIN.check(FACTS)
    assert when.text == (
        "Nothing is enforced before retire, nor can ON CONFLICT name it: duplicates"
        " that either release writes hold the change at verify."
    )
    assert index.text == (
        "An index finds the duplicates from expand on, beside which the unique one is"
        " built at retire; it is dropped then."
    )
