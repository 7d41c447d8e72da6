"""AddPrimaryKey: its text, its life, its locks and its messages."""

from dataclasses import replace

import psycopg
import pytest
from locks import holding, taken

from migrator.change import Change
from migrator.errors import LockBudgetError, MismatchError, Refused
from migrator.facts import Column, Constraint, Facts, Table
from migrator.names import TableName
from migrator.patterns import AddPrimaryKey
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
            Column(name="id", type="int"),
            Column(name="org", type="int", not_null=True),
        ),
    ),
    relation_names=frozenset({"users", "teams"}),
)
PLAIN = AddPrimaryKey("users", ["id"], "users_key")
KEYS = (
    "SELECT pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE conrelid = 'users'::regclass AND contype = 'p'"
)
LEFT = (
    "SELECT (SELECT count(*) FROM pg_index WHERE indrelid = 'users'::regclass),"
    " (SELECT count(*) FROM pg_constraint WHERE conrelid = 'users'::regclass),"
    " (SELECT count(*) FROM pg_attribute WHERE attrelid = 'users'::regclass"
    " AND attnotnull AND attnum > 0)"
)


# -- text --------------------------------------------------------------------


def test_text_with_hostile_names() -> None:
    """NOT NULL is proved for each column that needs it, then the key is made."""
    long = "é" * 31
    table = replace(
        FACTS.table,
        name=TableName('my "sch', "or der"),
        columns=(
            Column(name='a "b', type="text", not_null=True),
            Column(name="%s:x", type="text"),
        ),
    )
    given = replace(FACTS, table=table)
    pattern = AddPrimaryKey("or der", ['a "b', "%s:x"], long)
    steps = {s.name: s.work for s in pattern.retire(given)}
    assert list(steps) == [
        "add_check_1",
        "validate_check_1",
        "set_not_null_1",
        "build_index",
        "add_constraint",
        "drop_index",
    ]
    name = '"my ""sch"."or der"'
    last, build, attach = list(steps.values())[2:5]
    assert isinstance(last, Transaction)
    assert last.statements == (
        f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE",
        f'ALTER TABLE {name} ALTER COLUMN "%s:x" SET NOT NULL',
        f'ALTER TABLE {name} DROP CONSTRAINT "_migrator_check_%s:x_0123456789"',
    )
    assert isinstance(build, Autocommit)
    assert build.statement == (
        f'CREATE UNIQUE INDEX CONCURRENTLY "{long}" ON {name} USING "btree"'
        ' ("a ""b", "%s:x")'
    )
    assert isinstance(attach, Transaction)
    assert attach.statements[1] == (
        f'ALTER TABLE {name} ADD CONSTRAINT "{long}" PRIMARY KEY USING INDEX "{long}"'
    )
    (count,) = pattern.verify(given)
    assert isinstance(count.work, ChunkedCheck)
    assert '("%s:x" IS NOT DISTINCT FROM NULL OR (EXISTS' in count.work.count


# -- life cycle --------------------------------------------------------------


def test_life_cycle(runner: Runner, sql: psycopg.Connection) -> None:
    """The old release may write NULLs and duplicates until retire."""
    sql.execute("CREATE TABLE users (id int, org int)")
    sql.execute("INSERT INTO users SELECT g, 1 FROM generate_series(1, 9) g")
    change = Change(
        revision="a1", pattern=AddPrimaryKey("users", ["org", "id"], "users_key")
    )

    def violate() -> None:
        sql.execute("INSERT INTO users VALUES (1, 1), (NULL, 2), (2, NULL)")
        sql.execute("DELETE FROM users WHERE id IS NULL OR org IS NULL")
        sql.execute(
            "DELETE FROM users u WHERE EXISTS (SELECT FROM users o"
            " WHERE o.id = u.id AND o.org = u.org AND o.ctid < u.ctid)"
        )

    violate()
    assert runner.expand(change) is State.BACKFILLED
    violate()
    assert runner.rollback("a1") is State.PLANNED
    assert sql.execute(LEFT).fetchone() == (0, 0, 0)
    violate()
    assert runner.expand(change) is State.BACKFILLED
    sql.execute("INSERT INTO users VALUES (1, 1), (NULL, 3)")
    with pytest.raises(MismatchError, match="found 3 rows"):
        runner.verify("a1")
    found = {m.key.split(', "ctid"')[0] for m in runner.mismatches("a1")}
    assert found == {'{"org" : "1", "id" : "1"', '{"org" : "3", "id" : null'}
    sql.execute("DELETE FROM users WHERE id IS NULL")
    violate()
    assert runner.verify("a1") is State.VERIFIED
    violate()
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert sql.execute(KEYS).fetchall() == [("PRIMARY KEY (org, id)",)]
    with pytest.raises(psycopg.errors.NotNullViolation):
        sql.execute("INSERT INTO users VALUES (NULL, 1)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        sql.execute("INSERT INTO users VALUES (1, 1)")
    assert runner.rollback("a1") is State.VERIFIED
    assert sql.execute(KEYS).fetchall() == []
    violate()
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert runner.rollback("a1", to=State.PLANNED) is State.PLANNED
    assert sql.execute(LEFT).fetchone() == (0, 0, 0)
    violate()


# -- locks -------------------------------------------------------------------


def test_no_step_locks_more_than_it_claims(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Scans and builds let writers go on; the key itself scans nothing."""
    sql.execute("CREATE TABLE users (id int)")
    steps = runner.plan(Change(revision="a1", pattern=PLAIN)).steps(Phase.RETIRE)
    for step in steps:
        if isinstance(step.work, Autocommit):
            assert step.work.lock is Lock.SHARE_UPDATE_EXCLUSIVE
    attach = next(s.work for s in steps if s.name == "add_constraint")
    assert isinstance(attach, Transaction)
    sql.execute("CREATE UNIQUE INDEX users_key ON users (id)")
    sql.execute("ALTER TABLE users ALTER id SET NOT NULL")
    said: list[str] = []
    sql.add_notice_handler(lambda d: said.append(d.message_primary or ""))
    sql.execute("SET client_min_messages = debug1")
    assert taken(sql, attach, "users") == {"users": Lock.ACCESS_EXCLUSIVE}
    assert not [text for text in said if "verifying" in text or "building" in text]


def test_a_lock_on_the_table(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """The step gives up on time, names the holder and leaves nothing."""
    sql.execute("CREATE TABLE users (id int)")
    runner.expand(Change(revision="a1", pattern=PLAIN))
    runner.verify("a1")
    with (
        holding(database, "users", "ROW SHARE"),
        pytest.raises(LockBudgetError) as caught,
    ):
        runner.retire("a1", old_release_gone="test")
    assert str(caught.value).startswith(
        'Step \'add_check_1\' on table "public"."users" got no lock within 200 ms'
    )
    assert '(application "billing"' in str(caught.value)
    assert sql.execute(KEYS).fetchall() == []
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED


# -- messages ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "table", "message"),
    [
        (
            replace(PLAIN, on=[]),
            FACTS.table,
            'add primary key "users_key" to table "users": `on` must be a list of one'
            ' column or more.\nNothing was changed.\nNext: write on=["column"].',
        ),
        (
            PLAIN,
            replace(FACTS.table, constraints=(Constraint(name="old", kind="p"),)),
            'Table "public"."users" has a primary key already: "old".\n'
            "Nothing was changed.\nNext: keep it, and make these columns unique"
            " (AddUnique); or drop it first, by a change of its own (DropConstraint).",
        ),
        (
            replace(PLAIN, name="teams"),
            FACTS.table,
            'Schema "public" has a relation "teams" already.\n'
            "Nothing was changed.\nNext: choose another name, or drop it first.",
        ),
    ],
    ids=range(3),
)
def test_message(pattern: AddPrimaryKey, table: Table, message: str) -> None:
    """What cannot work is refused with the reason and a way out."""
    with pytest.raises(Refused) as caught:
        pattern.check(replace(FACTS, table=table))
    assert str(caught.value) == message


def test_message_about_a_type_without_an_order(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """The server's own words."""
    sql.execute("CREATE TABLE users (id json)")
    with pytest.raises(Refused) as caught:
        runner.expand(Change(revision="a1", pattern=PLAIN))
    assert str(caught.value) == (
        'add primary key "users_key" to table "users": the server refuses it: data'
        ' type json has no default operator class for access method "btree".\n'
        "Nothing was changed.\nNext: leave out columns whose type has no order."
    )


def test_notices() -> None:
    """A reviewer reads when it is enforced."""
    (notice,) = PLAIN.check(FACTS)
    assert notice.text == (
        "Nothing is enforced before retire: NULLs and duplicates that either release"
        " writes hold the change at verify."
    )
