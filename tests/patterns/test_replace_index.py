"""ReplaceIndex: its text, its life, its locks and its messages."""

from dataclasses import replace

import psycopg
import pytest
from locks import taken

from migrator.change import Change
from migrator.errors import Failed, Refused
from migrator.facts import Column, Facts, Index, IndexColumn, Table
from migrator.names import TableName
from migrator.patterns import Key, ReplaceIndex
from migrator.plan import Autocommit, Lock, State, Transaction
from migrator.runner import Runner

INDEX = Index(
    name="by_name",
    method="btree",
    keys=(IndexColumn(name="name"),),
    spelt="USING btree (name)",
)
USERS = Table(
    name=TableName("public", "users"),
    oid=1,
    columns=(Column(name="name", type="text"), Column(name="id", type="int")),
    indexes=(INDEX,),
)
REPLACE = ReplaceIndex("users", "by_name", ["id", "name"])
SETUP = "CREATE TABLE users (id int, name text); CREATE INDEX by_name ON users (name)"
INDEXES = (
    "SELECT c.relname, indisvalid, pg_get_indexdef(indexrelid) FROM pg_index"
    " JOIN pg_class c ON c.oid = indexrelid WHERE indrelid = 'users'::regclass"
    " ORDER BY 1"
)
NOTHING = "\nNothing was changed.\nNext: "


def facts(table: Table = USERS) -> Facts:
    """Return facts about a table."""
    return Facts(server_version=180000, tag="0123456789", table=table)


def unique(*names: str, **given: bool) -> Facts:
    """Return facts about a table whose index is unique."""
    keys = tuple(IndexColumn(name=n) for n in names)
    index = replace(INDEX, unique=True, keys=keys, **given)
    return facts(replace(USERS, indexes=(index,)))


# -- text --------------------------------------------------------------------


def test_text_with_hostile_names() -> None:
    """Every name is quoted, in what is built, renamed and dropped."""
    index = replace(INDEX, name='i "é%')
    table = replace(USERS, name=TableName('my "sch', "or der"), indexes=(index,))
    pattern = ReplaceIndex("or der", 'i "é%', ['a "b', Key(expression="lower(':x')")])
    new, old = (f'_migrator_{kind}_i ""é%_0123456789' for kind in ("index", "retired"))
    (build,) = pattern.expand(facts(table))
    assert isinstance(build.work, Autocommit)
    assert build.work.statement == (
        f'CREATE INDEX CONCURRENTLY "{new}" ON "my ""sch"."or der" USING "btree"'
        ' ("a ""b", (lower(\':x\')))'
    )
    (exchange,) = pattern.retire(facts(table))
    assert isinstance(exchange.work, Transaction)
    assert exchange.work.statements == (
        f'ALTER INDEX "my ""sch"."i ""é%" RENAME TO "{old}"',
        f'ALTER INDEX "my ""sch"."{new}" RENAME TO "i ""é%"',
    )
    (back,) = exchange.reverse
    assert isinstance(back, Transaction)
    assert back.statements == (
        f'ALTER INDEX "my ""sch"."i ""é%" RENAME TO "{new}"',
        f'ALTER INDEX "my ""sch"."{old}" RENAME TO "i ""é%"',
    )
    (drop,) = pattern.drop(facts(table))
    assert isinstance(drop.work, Autocommit)
    assert drop.work.statement == (
        f'DROP INDEX CONCURRENTLY IF EXISTS "my ""sch"."{old}"'
    )
    (again,) = drop.reverse
    assert isinstance(again, Autocommit)
    assert again.statement == (
        f'CREATE INDEX CONCURRENTLY "{old}" ON "my ""sch"."or der" USING btree (name)'
    )


# -- life cycle --------------------------------------------------------------


@pytest.mark.parametrize("is_unique", [False, True])
def test_life_cycle(
    runner: Runner, sql: psycopg.Connection, *, is_unique: bool
) -> None:
    """One name, two definitions; each way back brings the former one."""
    sql.execute(SETUP.encode())
    before = sql.execute(INDEXES.encode()).fetchall()
    pattern = replace(REPLACE, unique=is_unique, include=["name"], on=["id"])
    change = Change(revision="a1", pattern=pattern)

    def write() -> None:
        sql.execute("INSERT INTO users SELECT count(*), 'x' FROM users")

    def current() -> str:
        row = sql.execute("SELECT pg_get_indexdef('by_name'::regclass)").fetchone()
        assert row is not None
        return str(row[0])

    write()
    assert runner.expand(change) is State.VERIFIED
    assert len(sql.execute(INDEXES.encode()).fetchall()) == 1 + (not is_unique)
    assert current().endswith("(name)")
    assert runner.rollback("a1") is State.PLANNED
    assert sql.execute(INDEXES.encode()).fetchall() == before
    assert runner.expand(change) is State.VERIFIED
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert current().endswith("(id) INCLUDE (name)")
    write()
    assert runner.rollback("a1") is State.VERIFIED
    assert current().endswith("(name)")
    write()
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert runner.drop("a1") is State.DROPPED
    ((name, valid, text),) = sql.execute(INDEXES.encode()).fetchall()
    assert (name, valid) == ("by_name", True)
    assert text.endswith("(id) INCLUDE (name)")
    assert ("UNIQUE" in text) is is_unique
    write()
    assert runner.rollback("a1", to=State.PLANNED) is State.PLANNED
    assert sql.execute(INDEXES.encode()).fetchall() == before
    assert runner.complete(change) is State.DROPPED
    assert current().endswith("(id) INCLUDE (name)")


def test_rows_that_the_new_one_refuses_leave_the_old_one(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """The build fails, nothing is renamed; then it goes on."""
    sql.execute(SETUP.encode())
    pattern = replace(REPLACE, unique=True, on=["id"])
    change = Change(revision="a1", pattern=pattern)
    runner.expand(change)
    sql.execute("INSERT INTO users VALUES (1, 'x'), (1, 'y')")
    before = sql.execute(INDEXES.encode()).fetchall()
    with pytest.raises(Failed, match="could not create unique index"):
        runner.retire("a1", old_release_gone="test")
    assert sql.execute(INDEXES.encode()).fetchall() == before
    sql.execute("DELETE FROM users WHERE name = 'y'")
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED


def test_the_old_one_holds_rows_unique_until_the_drop(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """What ON CONFLICT relies on is there until the hold is over."""
    sql.execute(SETUP.replace("CREATE INDEX", "CREATE UNIQUE INDEX").encode())
    change = Change(revision="a1", pattern=replace(REPLACE, assured="none relies"))
    runner.expand(change)
    runner.retire("a1", old_release_gone="test")
    upsert = "INSERT INTO users VALUES (1, 'x') ON CONFLICT (name) DO NOTHING"
    sql.execute(upsert.encode())
    sql.execute(upsert.encode())
    runner.drop("a1")
    with pytest.raises(psycopg.errors.InvalidColumnReference):
        sql.execute(upsert.encode())


# -- locks -------------------------------------------------------------------


def test_a_renaming_locks_the_indexes_alone(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Neither readers, writers nor VACUUM of the table stand in its way."""
    sql.execute(SETUP.encode())
    runner.expand(Change(revision="a1", pattern=REPLACE))
    runner.retire("a1", old_release_gone="test")
    (row,) = [s for s in runner.steps("a1") if s.step.name == "exchange_names"]
    assert row.step.work.lock is Lock.NONE
    assert isinstance(row.step.work, Transaction)
    (back,) = row.step.reverse
    found = taken(sql, back, "users", "by_name")
    assert found == {"users": Lock.NONE, "by_name": Lock.SHARE_UPDATE_EXCLUSIVE}


# -- messages ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "given", "message"),
    [
        (
            replace(REPLACE, name="other"),
            facts(),
            'Table "public"."users" has no index "other".'
            f'{NOTHING}correct the name; the table has "by_name".',
        ),
        (
            replace(REPLACE, on=["nmae"]),
            facts(),
            'Table "public"."users" has no column "nmae".'
            f'{NOTHING}"name" is the nearest; correct the name; the table has "name",'
            ' "id".',
        ),
        (
            REPLACE,
            facts(replace(USERS, indexes=(replace(INDEX, constraints=("k",)),))),
            'Index "by_name" of table "public"."users" carries constraint "k".'
            f"{NOTHING}drop the constraint first; the index of a primary key or unique"
            " constraint goes with it.",
        ),
        (
            REPLACE,
            unique("name"),
            'replace index "by_name" of table "users": Index "by_name" is unique, and'
            " the new one is not on the same columns. Until the drop it holds rows"
            " unique; from then on they may be equal, and ON CONFLICT on its columns"
            f' fails.{NOTHING}look into it, then write assured="why it is safe here"'
            " into the pattern.",
        ),
    ],
)
def test_message(pattern: ReplaceIndex, given: Facts, message: str) -> None:
    """What rests on the index is named, with a way out."""
    with pytest.raises(Refused) as caught:
        pattern.check(given)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("pattern", "given", "fine"),
    [
        (REPLACE, facts(), True),
        (REPLACE, unique("id", "name"), False),
        (replace(REPLACE, unique=True), unique("name", "id"), True),
        (replace(REPLACE, unique=True), unique("name"), False),
        (replace(REPLACE, unique=True, where="id > 0"), unique("id", "name"), False),
        (replace(REPLACE, unique=True), unique("id", "name", plain=False), False),
        (
            replace(REPLACE, unique=True),
            unique("id", "name", nulls_not_distinct=True),
            False,
        ),
    ],
)
def test_what_relied_on_the_old_one_asks_for_a_word(
    pattern: ReplaceIndex, given: Facts, *, fine: bool
) -> None:
    """Only a unique one on the same columns is as good."""
    if fine:
        pattern.check(given)
        return
    with pytest.raises(Refused, match="is unique, and the new one is not"):
        pattern.check(given)
    assert replace(pattern, assured="none does").check(given)


def test_columns() -> None:
    """Words of an expression, any of which may be one; of a whole row, all."""
    assert REPLACE.columns() == {"by_name", "id", "name"}
    lower = replace(REPLACE, on=[Key(expression="lower(name)")])
    assert lower.columns() == {"by_name", "name"}
    whole = [Key(expression="age(users)")]
    assert replace(REPLACE, on=whole).columns() is None
