"""CreateIndex: its text, its life and its messages."""

import json
from dataclasses import replace

import psycopg
import pytest

from migrator.change import Change
from migrator.errors import Failed, Refused
from migrator.facts import Column, Facts, Index, Table
from migrator.names import TableName
from migrator.patterns import CreateIndex, Key
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
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indexrelid ="
        ' pg_catalog.to_regclass(\'"my ""sch"."i ""é%"\') AND i.indrelid ='
        ' pg_catalog.to_regclass(\'"my ""sch"."or der"\') AND {}i.indisvalid)'
    )
    assert step.work.done == question.format("")
    assert step.work.leftover == question.format("NOT ")


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


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (
            CreateIndex(
                "users",
                [
                    Key(expression="lower(name)", operators="text_pattern_ops"),
                    Key("name", collation='"C"', order="desc", nulls="last"),
                    Key("name", order="asc", nulls="first"),
                ],
                "by_name",
            ),
            '"btree" ((lower(name)) text_pattern_ops,'
            ' "name" COLLATE "C" DESC NULLS LAST, "name" ASC NULLS FIRST)',
        ),
        (
            CreateIndex(
                "users",
                ["name"],
                "by_name",
                include=['a "b'],
                nulls_not_distinct=True,
                storage={"fillfactor": 70, "deduplicate_items": False, "x": "Y"},
                where="name > ''",
            ),
            '"btree" ("name") INCLUDE ("a ""b") NULLS NOT DISTINCT WITH'
            " (\"fillfactor\" = '70', \"deduplicate_items\" = 'false', \"x\" = 'Y')"
            " WHERE (name > '')",
        ),
    ],
)
def test_text_of_keys_and_options(pattern: CreateIndex, text: str) -> None:
    """Each stands where DDL has it."""
    (step,) = pattern.expand(FACTS)
    assert isinstance(step.work, Autocommit)
    assert step.work.statement == (
        f'CREATE INDEX CONCURRENTLY "by_name" ON "public"."users" USING {text}'
    )


def test_keys_come_back_from_the_ledger() -> None:
    """They are plain data there, and the same declaration afterwards."""
    keys = ["name", Key(expression="lower(name)"), Key("name", order="desc")]
    pattern = CreateIndex("users", keys, "by_name")
    pattern.require_plain()
    kept = json.loads(json.dumps(pattern.parameters()))
    assert CreateIndex(**kept).on == keys
    assert CreateIndex(**kept).digest() == pattern.digest()


def test_columns() -> None:
    """Words of an expression or a predicate, any of which may be one, and its name."""
    plain = CreateIndex("users", ["name", Key("id")], "by_name", include=["mail"])
    assert plain.columns() == {"name", "id", "mail"}
    assert replace(plain, where="size > 0").columns() == (
        {"name", "id", "mail", "size", "by_name"}
    )
    lower = replace(plain, on=[Key(expression="lower(name)")], include=())
    assert lower.columns() == {"name", "by_name"}
    whole = [Key(expression="age(users)")]
    assert replace(plain, on=whole).columns() is None


# -- life cycle --------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "definition"),
    [
        (
            CreateIndex(
                "users",
                [Key(expression="lower(name)", operators="text_pattern_ops")],
                "by_name",
                where="name <> 'a%b:c'",
            ),
            "btree (lower(name) text_pattern_ops) WHERE (name <> 'a%b:c'::text)",
        ),
        (
            CreateIndex(
                "users",
                [Key("name", collation='"C"', order="desc", nulls="last")],
                "by_name",
                unique=True,
                include=["name"],
                nulls_not_distinct=True,
                storage={"fillfactor": 70},
            ),
            'btree (name COLLATE "C" DESC NULLS LAST) INCLUDE (name)'
            " NULLS NOT DISTINCT WITH (fillfactor='70')",
        ),
        (
            CreateIndex(
                "users",
                [Key(expression="to_tsvector('english', name)")],
                "by_name",
                method="gin",
                storage={"fastupdate": False},
            ),
            "gin (to_tsvector('english'::regconfig, name)) WITH (fastupdate='false')",
        ),
    ],
)
def test_life_cycle_of_more_than_columns(
    pattern: CreateIndex, definition: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """It is built as it was declared, from the declaration that the ledger keeps."""
    sql.execute("CREATE TABLE users (name text); INSERT INTO users VALUES ('x')")
    change = Change(revision="a1", pattern=pattern)
    runner.complete(change)
    row = sql.execute("SELECT pg_get_indexdef('by_name'::regclass)").fetchone()
    assert row is not None
    assert row[0].partition(" USING ")[2] == definition
    runner.rollback("a1", to=State.PLANNED)
    assert sql.execute(VALID).fetchall() == []


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
        ' index "by_name": rows have the same key.\nWhat ran before stays.\n'
        "Next: correct these rows (`SELECT name, count(*) FROM public.users WHERE"
        " name IS NOT NULL GROUP BY name HAVING count(*) > 1` lists them), then run"
        " the same command again."
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


@pytest.mark.parametrize(
    ("pattern", "listed"),
    [
        (
            CreateIndex("a b", [Key(expression="lower(name)"), "n%"], "two"),
            [("secret", 1, 2)],
        ),
        (
            CreateIndex("a b", ["n%"], "two", where="name ~ '^s'", include=["name"]),
            [(1, 2)],
        ),
        (CreateIndex("a b", ["z"], "two", nulls_not_distinct=True), [(None, 3)]),
    ],
)
def test_duplicates_are_not_told_but_can_be_listed(
    pattern: CreateIndex,
    listed: list[tuple[object, ...]],
    runner: Runner,
    sql: psycopg.Connection,
) -> None:
    """No value of a key reaches the error or the ledger; a query finds them."""
    sql.execute('CREATE TABLE "a b" (name text, "n%%" int, z int)', ())
    sql.execute("INSERT INTO \"a b\" VALUES ('secret', 1), ('Secret', 1), ('x', NULL)")
    sql.execute('UPDATE "a b" SET name = lower(name)')
    runner.expand(Change(revision="a1", pattern=replace(pattern, unique=True)))
    with pytest.raises(Failed) as caught:
        runner.retire("a1", old_release_gone="test")
    assert "secret" not in str(caught.value)
    log = sql.execute("SELECT string_agg(e::text, '') FROM migrator.events e")
    assert "secret" not in str(log.fetchone())
    query = caught.value.next.split("`")[1]
    assert sql.execute(query.encode()).fetchall() == listed


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
            CreateIndex("users", ["name"], "by_name", include="name"),
            'create index "by_name" on table "users": `include` must be a list of'
            ' columns.\nNothing was changed.\nNext: write include=["column"].',
        ),
        (
            CreateIndex("users", [Key("name", expression="1")], "by_name"),
            'create index "by_name" on table "users": a key is either a column or an'
            ' expression.\nNothing was changed.\nNext: write "column",'
            ' Key("column", …) or Key(expression="…", …).',
        ),
        (
            CreateIndex("users", [Key("name", order="down")], "by_name"),
            'create index "by_name" on table "users": order is \'down\'.\n'
            'Nothing was changed.\nNext: write "asc" or "desc".',
        ),
        (
            CreateIndex("users", [Key("name", nulls="no")], "by_name"),
            'create index "by_name" on table "users": nulls is \'no\'.\n'
            'Nothing was changed.\nNext: write "first" or "last".',
        ),
        (
            CreateIndex("users", ["lower(name)"], "by_name"),
            'Table "public"."users" has no column "lower(name)".\nNothing was changed.'
            "\nNext: write an expression as Key(expression='lower(name)').",
        ),
        (
            CreateIndex("users", ["nmae"], "by_name"),
            'Table "public"."users" has no column "nmae".\nNothing was changed.\n'
            'Next: "name" is the nearest; correct the name; the table has "name".',
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
