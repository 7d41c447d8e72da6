"""CreateIndex: its text, its life and its messages."""

from dataclasses import replace

import psycopg
import pytest

from migrator.change import Change
from migrator.errors import Failed, Refused
from migrator.facts import Column, Facts, Index, Table
from migrator.names import TableName
from migrator.patterns import CreateIndex
from migrator.plan import Autocommit, State
from migrator.runner import Runner

FACTS = Facts(
    server_version=180000,
    tag="0123456789",
    table=Table(
        name=TableName("public", "users"),
        oid=1,
        columns=(Column(name="name", type="text"),),
    ),
    relation_names=frozenset({"users", "taken"}),
)
VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('by_name')"


# -- text --------------------------------------------------------------------


def test_text_with_hostile_names() -> None:
    """Every name is quoted, the predicate stands as it was written."""
    pattern = CreateIndex(
        "or der",
        ['a "b', "%s", ":x", "select"],
        'i "é%',
        where="\":x\" LIKE 'a%'",
        method="hash",
    )
    table = replace(FACTS.table, name=TableName('my "sch', "or der"))
    (step,) = pattern.expand(replace(FACTS, table=table))
    assert isinstance(step.work, Autocommit)
    assert step.work.statement == (
        'CREATE INDEX CONCURRENTLY "i ""é%" ON "my ""sch"."or der" USING "hash"'
        ' ("a ""b", "%s", ":x", "select") WHERE (":x" LIKE \'a%\')'
    )
    assert step.work.remove == ('DROP INDEX CONCURRENTLY IF EXISTS "my ""sch"."i ""é%"')
    question = (
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_index i"
        " JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid"
        " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = 'my \"sch' AND c.relname = 'i \"é%'"
        " AND i.indisvalid = {})"
    )
    assert step.work.done == question.format("true")
    assert step.work.leftover == question.format("false")


def test_text_of_a_unique_index() -> None:
    """What the old release could violate is built at retire."""
    pattern = CreateIndex("users", ["name"], "by_name", unique=True)
    assert pattern.expand(FACTS) == ()
    (step,) = pattern.retire(FACTS)
    assert isinstance(step.work, Autocommit)
    assert step.work.statement == (
        'CREATE UNIQUE INDEX CONCURRENTLY "by_name" ON "public"."users"'
        ' USING "btree" ("name")'
    )


# -- life cycle --------------------------------------------------------------


def test_life_cycle(runner: Runner, sql: psycopg.Connection) -> None:
    """The index comes, goes and comes again, and no write is refused."""
    sql.execute("CREATE TABLE users (name text)")

    def write() -> None:
        sql.execute("INSERT INTO users VALUES ('same')")

    change = Change(revision="a1", pattern=CreateIndex("users", ["name"], "by_name"))
    write()
    assert runner.expand(change) is State.VERIFIED
    assert runner.change("a1").finished
    assert sql.execute(VALID).fetchall() == [(True,)]
    write()
    assert runner.rollback("a1") is State.PLANNED
    assert sql.execute(VALID).fetchall() == []
    write()
    assert runner.expand(change) is State.VERIFIED
    assert sql.execute(VALID).fetchall() == [(True,)]
    assert runner.drop("a1") is State.VERIFIED
    write()
    runner.rebuild(change)
    assert sql.execute(VALID).fetchall() == []
    assert runner.complete(change) is State.VERIFIED
    assert sql.execute(VALID).fetchall() == [(True,)]


def test_life_cycle_of_a_unique_index(runner: Runner, sql: psycopg.Connection) -> None:
    """Equal rows make the build fail and leave nothing; then it succeeds."""
    sql.execute("CREATE TABLE users (name text)")

    def old() -> None:
        sql.execute("INSERT INTO users VALUES ('same')")

    change = Change(
        revision="a1", pattern=CreateIndex("users", ["name"], "by_name", unique=True)
    )
    assert runner.expand(change) is State.VERIFIED
    old()
    old()
    with pytest.raises(Failed) as caught:
        runner.retire("a1", old_release_gone="test")
    assert str(caught.value) == (
        'Step \'create_index\' on table "public"."users": could not create unique'
        ' index "by_name"\nWhat ran before stays.\n'
        "Next: run the same command again; it goes on from there."
    )
    assert sql.execute(VALID).fetchall() == []
    old()
    sql.execute("TRUNCATE users")
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    old()
    with pytest.raises(psycopg.errors.UniqueViolation):
        old()
    assert runner.rollback("a1") is State.VERIFIED
    old()
    sql.execute("TRUNCATE users")
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert sql.execute(VALID).fetchall() == [(True,)]
    assert runner.rollback("a1", to=State.PLANNED) is State.PLANNED
    assert sql.execute(VALID).fetchall() == []


def test_what_a_failed_build_left_is_replaced(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """An invalid index of that name is not taken for the index."""
    sql.execute("CREATE TABLE users (name text)")
    sql.execute("INSERT INTO users VALUES ('same'), ('same')")
    with pytest.raises(psycopg.errors.UniqueViolation):
        sql.execute("CREATE UNIQUE INDEX CONCURRENTLY by_name ON users (name)")
    assert sql.execute(VALID).fetchall() == [(False,)]
    change = Change(revision="a1", pattern=CreateIndex("users", ["name"], "by_name"))
    assert runner.expand(change) is State.VERIFIED
    assert sql.execute(VALID).fetchall() == [(True,)]


# -- messages ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            CreateIndex("users", [], "by_name"),
            'create index "by_name" on table "users": `on` must be a list of one'
            ' column or more.\nNothing was changed.\nNext: write on=["column"].',
        ),
        (
            CreateIndex("users", "name", "by_name"),
            'create index "by_name" on table "users": `on` must be a list of one'
            ' column or more.\nNothing was changed.\nNext: write on=["column"].',
        ),
        (
            CreateIndex("users", ["nmae"], "by_name"),
            'Table "public"."users" has no column "nmae".\nNothing was changed.\n'
            'Next: correct the name; the table has "name".',
        ),
        (
            CreateIndex("users", ["name"], "taken"),
            'Schema "public" has a relation "taken" already.\n'
            "Nothing was changed.\nNext: choose another name, or drop it first.",
        ),
        (
            CreateIndex("users", ["name"], "é" * 32),
            f'The index name "{"é" * 32}" has 64 bytes; PostgreSQL would cut it at'
            " 63 without an error.\nNothing was changed.\n"
            "Next: choose a shorter name.",
        ),
    ],
    ids=repr,
)
def test_message(pattern: CreateIndex, message: str) -> None:
    """What cannot work is refused with the reason and a way out."""
    with pytest.raises(Refused) as caught:
        pattern.check(FACTS)
    assert str(caught.value) == message


def test_an_index_of_another_name_may_be_left_over() -> None:
    """An invalid index of this table is no reason to refuse."""
    left = Index(name="taken", method="btree", keys=(), valid=False)
    table = replace(FACTS.table, indexes=(left,))
    pattern = CreateIndex("users", ["name"], "taken")
    assert pattern.check(replace(FACTS, table=table)) == ()


def test_message_about_a_predicate_that_the_server_refuses(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """The server's own words tell what is wrong with the predicate."""
    sql.execute("CREATE TABLE users (name text)")
    pattern = CreateIndex("users", ["name"], "by_name", where="nmae = ''")
    with pytest.raises(Refused) as caught:
        runner.expand(Change(revision="a1", pattern=pattern))
    assert str(caught.value) == (
        'The server refuses an expression of the pattern: column "nmae" does not'
        " exist.\nNothing was changed.\nNext: correct it in the revision; it is SQL,"
        " in which a text stands in quotes: \"'text'\", and a function or type of"
        " another schema with it."
    )


def test_notices() -> None:
    """A reviewer reads when a unique index is built."""
    (notice,) = CreateIndex("users", ["name"], "by_name", unique=True).check(FACTS)
    assert notice.text == (
        "The unique index is built at retire: before, the old release could violate"
        " it. Rows that are equal by then make the build fail, and nothing is"
        " changed."
    )
