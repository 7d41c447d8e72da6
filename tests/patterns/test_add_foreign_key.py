"""AddForeignKey: its text, its life, its locks and its messages."""

from dataclasses import replace
from typing import Any

import psycopg
import pytest
from locks import holding, taken

from migrator.change import Change
from migrator.errors import Failed, Held, LockBudgetError, MismatchError, Refused
from migrator.execution import Execution
from migrator.facts import Column, Constraint, Facts, Index, IndexColumn, Table
from migrator.names import TableName
from migrator.patterns import AddForeignKey, PartitionTable, RenameColumn
from migrator.plan import Autocommit, ChunkedCheck, Lock, Phase, State, Transaction
from migrator.runner import Runner

PARENT = Table(
    name=TableName("public", "users"),
    oid=2,
    columns=(
        Column(name="id", type="bigint", not_null=True),
        Column(name="org", type="bigint"),
    ),
    indexes=(
        Index(
            name="users_pkey",
            method="btree",
            keys=(IndexColumn(name="id"),),
            unique=True,
        ),
    ),
)
FACTS = Facts(
    server_version=180000,
    tag="0123456789",
    table=Table(
        name=TableName("public", "orders"),
        oid=1,
        columns=(
            Column(name="user_id", type="bigint"),
            Column(name="org", type="bigint"),
        ),
        constraints=(Constraint(name="taken", kind="c"),),
    ),
    others=(PARENT,),
    relation_names=frozenset({"orders", "users", "taken_idx"}),
)
PLAIN = AddForeignKey("orders", ["user_id"], "users", ["id"], "orders_user")
TABLES = (
    "CREATE TABLE users (id bigint PRIMARY KEY);"
    "CREATE TABLE orders (id bigint PRIMARY KEY, user_id bigint);"
    "INSERT INTO users SELECT generate_series(1, 9);"
    "INSERT INTO orders SELECT g, g FROM generate_series(1, 9) g"
)
KEYS = (
    "SELECT conname, convalidated, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE conrelid = 'orders'::regclass AND contype = 'f'"
)
INDEX = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('{}')"


# -- text --------------------------------------------------------------------


def test_text_with_hostile_names() -> None:
    """Every name is quoted; both tables are locked by one statement, in order."""
    long = "é" * 31
    child, parent = TableName('my "sch', "or der"), TableName("%s", ":p'")
    table = replace(
        FACTS.table,
        name=child,
        columns=(Column(name='a "b', type="text"), Column(name=long, type="text")),
    )
    key = replace(
        PARENT,
        name=parent,
        columns=(
            Column(name="%x", type="text", equal='OPERATOR("cit ""ext".=)'),
            Column(name="select", type="text", collation='pg_catalog."C"'),
        ),
    )
    given = replace(FACTS, table=table, others=(key,))
    pattern = AddForeignKey(
        "or der",
        ['a "b', long],
        ":p'",
        ["%x", "select"],
        long,
        match="full",
        on_delete="set null",
        on_update="cascade",
        deferrable="deferred",
    )
    mine, theirs = '"my ""sch"."or der"', '"%s".":p\'"'
    (index,) = pattern.expand(given)
    assert isinstance(index.work, Autocommit)
    assert index.work.statement == (
        f'CREATE INDEX CONCURRENTLY "{"é" * 29}_idx" ON {mine} USING "btree"'
        f' ("a ""b", "{long}")'
    )
    add, validate = pattern.retire(given)
    assert isinstance(add.work, Transaction)
    assert add.work.statements == (
        f"LOCK TABLE {theirs}, {mine} IN SHARE ROW EXCLUSIVE MODE",
        f'ALTER TABLE {mine} ADD CONSTRAINT "{long}" FOREIGN KEY ("a ""b", "{long}")'
        f' REFERENCES {theirs} ("%x", "select") MATCH FULL ON DELETE SET NULL'
        " ON UPDATE CASCADE DEFERRABLE INITIALLY DEFERRED NOT VALID",
    )
    (back,) = add.reverse
    assert isinstance(back, Transaction)
    assert back.statements == (
        f"LOCK TABLE {theirs}, {mine} IN ACCESS EXCLUSIVE MODE",
        f'ALTER TABLE {mine} DROP CONSTRAINT IF EXISTS "{long}"',
    )
    assert isinstance(validate.work, Autocommit)
    assert validate.work.statement == (
        f'ALTER TABLE {mine} VALIDATE CONSTRAINT "{long}"'
    )
    (count,) = pattern.verify(given)
    assert isinstance(count.work, ChunkedCheck)
    a, b = '"or der"."a ""b"', f'"or der"."{long}"'
    assert count.work.count == (
        f"SELECT count(*) FROM {mine} WHERE ctid >= $1::pg_catalog.tid"
        " AND ctid < $2::pg_catalog.tid AND"
        f" (({a} IS DISTINCT FROM NULL OR {b} IS DISTINCT FROM NULL)"
        f" AND NOT ({a} IS DISTINCT FROM NULL AND {b} IS DISTINCT FROM NULL"
        f' AND EXISTS (SELECT FROM {theirs} AS "other" WHERE'
        f' "other"."%x" OPERATOR("cit ""ext".=) {a}'
        f' AND "other"."select" OPERATOR(pg_catalog.=) {b} COLLATE pg_catalog."C"'
        " OFFSET 0)))"
    )
    assert count.work.repair is None


def test_text_of_a_table_that_refers_to_itself() -> None:
    """It is locked once, and its other rows bear another name."""
    table = replace(PARENT, name=TableName("public", "other"))
    pattern = AddForeignKey("other", ["org"], "other", ["id"], "other_org")
    given = replace(FACTS, table=table, others=(table,))
    add, validate = pattern.retire(given)
    assert isinstance(add.work, Transaction)
    assert add.work.statements[0] == (
        'LOCK TABLE "public"."other" IN SHARE ROW EXCLUSIVE MODE'
    )
    assert add.work.also == ()
    assert isinstance(validate.work, Autocommit)
    assert validate.work.also == ()
    (count,) = pattern.verify(given)
    assert isinstance(count.work, ChunkedCheck)
    assert count.work.count.endswith(
        ' AND ("other"."org" IS DISTINCT FROM NULL AND NOT EXISTS (SELECT FROM'
        ' "public"."other" AS "another" WHERE "another"."id" OPERATOR(pg_catalog.=)'
        ' "other"."org" OFFSET 0))'
    )


@pytest.mark.parametrize(
    ("keys", "builds"),
    [((), True), (("org", "user_id"), True), (("user_id", "org"), False)],
    ids=str,
)
def test_text_of_the_index(keys: tuple[str, ...], builds: bool) -> None:
    """One is built where none begins with the columns."""
    there = Index(
        name="i", method="btree", keys=tuple(IndexColumn(name=k) for k in keys)
    )
    table = replace(FACTS.table, indexes=(there,) if keys else ())
    given = replace(FACTS, table=table)
    assert bool(PLAIN.expand(given)) is builds
    assert replace(PLAIN, index=False).expand(given) == ()
    named = replace(PLAIN, index="ix_mine").expand(given)
    assert [s.work.statement for s in named if isinstance(s.work, Autocommit)] == [
        'CREATE INDEX CONCURRENTLY "ix_mine" ON "public"."orders"'
        ' USING "btree" ("user_id")'
    ][: len(named)]


# -- life cycle --------------------------------------------------------------


def test_life_cycle(runner: Runner, sql: psycopg.Connection) -> None:
    """Either release may write orphans until retire, and none afterwards."""
    sql.execute(TABLES)
    change = Change(revision="a1", pattern=replace(PLAIN, on_delete="cascade"))
    last = 100

    def orphan() -> None:
        nonlocal last
        last += 1
        sql.execute("INSERT INTO orders VALUES (%s, 77)", [last])
        sql.execute("UPDATE orders SET user_id = 78 WHERE id = %s", [last])
        sql.execute("DELETE FROM orders WHERE id = %s", [last])

    orphan()
    assert runner.expand(change) is State.BACKFILLED
    assert sql.execute(INDEX.format("orders_user_idx").encode()).fetchall() == [(True,)]
    orphan()
    assert runner.rollback("a1") is State.PLANNED
    assert sql.execute(INDEX.format("orders_user_idx").encode()).fetchall() == []
    orphan()
    assert runner.expand(change) is State.BACKFILLED
    assert runner.verify("a1") is State.VERIFIED
    orphan()
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert runner.change("a1").finished
    assert sql.execute(KEYS).fetchall() == [
        (
            "orders_user",
            True,
            "FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE",
        )
    ]
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        orphan()
    sql.execute("DELETE FROM users WHERE id = 9")
    assert sql.execute("SELECT count(*) FROM orders").fetchone() == (8,)
    assert runner.rollback("a1") is State.VERIFIED
    assert sql.execute(KEYS).fetchall() == []
    orphan()
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert runner.drop("a1") is State.RETIRED
    runner.rebuild(change)
    assert sql.execute(KEYS).fetchall() == []
    assert sql.execute(INDEX.format("orders_user_idx").encode()).fetchall() == []
    orphan()
    assert runner.complete(change) is State.RETIRED
    assert len(sql.execute(KEYS).fetchall()) == 1


def test_the_referenced_columns_are_part_of_the_footprint(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """They cannot be renamed by another change before the key is there."""
    sql.execute(TABLES.encode())
    runner.expand(Change(revision="k", pattern=PLAIN))
    rename = RenameColumn("users", "id", "user_id", assured="test")
    with pytest.raises(Held, match="r touches what k"):
        runner.expand(Change(revision="r", pattern=rename))


def test_orphans_are_listed_by_key(runner: Runner, sql: psycopg.Connection) -> None:
    """They hold the change until they are corrected; NULLs do not."""
    sql.execute(TABLES)
    sql.execute("INSERT INTO orders VALUES (10, 77), (11, NULL), (12, 78)")
    change = Change(revision="a1", pattern=PLAIN)
    assert runner.expand(change) is State.BACKFILLED
    with pytest.raises(MismatchError) as caught:
        runner.verify("a1")
    assert str(caught.value) == (
        'Verification of a1 found 2 rows of table "public"."orders" that are to be'
        ' corrected first: a reference to no row of "public"."users".\n'
        "The change is backfilled; both releases go on.\n"
        "Next: look at these rows (`migrator status a1` lists them), then"
        " `migrator verify a1`."
    )
    assert {m.key for m in runner.mismatches("a1")} == {
        '{"id" : "10"}',
        '{"id" : "12"}',
    }
    sql.execute("DELETE FROM orders WHERE user_id > 70")
    assert runner.verify("a1") is State.VERIFIED
    sql.execute("INSERT INTO orders VALUES (13, 79)")
    with pytest.raises(MismatchError):
        runner.retire("a1", old_release_gone="test")
    assert sql.execute(KEYS).fetchall() == []
    sql.execute("INSERT INTO users VALUES (79)")
    assert runner.verify("a1") is State.VERIFIED
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED


def test_an_orphan_after_the_last_look(
    runner: Runner, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proof finds it; once it is corrected, the same command goes on."""
    sql.execute(TABLES)
    change = Change(revision="a1", pattern=PLAIN)
    runner.expand(change)
    runner.verify("a1")
    again = type(runner)._verify_again

    def late(*args: Any) -> None:
        again(*args)
        sql.execute("INSERT INTO orders VALUES (10, 77)")

    monkeypatch.setattr(type(runner), "_verify_again", late)
    with pytest.raises(Failed) as caught:
        runner.retire("a1", old_release_gone="test")
    assert str(caught.value) == (
        'Step \'validate_constraint\' on table "public"."orders": insert or update'
        ' on table "orders" violates foreign key constraint "orders_user"\n'
        "What ran before stays.\n"
        "Next: correct the rows, or what refuses them, then run the same command again;"
        " it goes on from there."
    )
    assert [row[1] for row in sql.execute(KEYS)] == [False]
    sql.execute("DELETE FROM orders WHERE id = 10")
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert [row[1] for row in sql.execute(KEYS)] == [True]


@pytest.mark.parametrize("match", ["simple", "full"])
def test_verification_counts_what_the_server_refuses(
    match: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """Of all mixtures of NULLs, verification names those that the proof fails on."""
    sql.execute(
        "CREATE TABLE users (id bigint, org int, PRIMARY KEY (org, id));"
        "INSERT INTO users VALUES (1, 1), (2, 1);"
        "CREATE TABLE orders (id int PRIMARY KEY, user_id int, org bigint)"
    )
    values = (None, 1, 2)
    pairs = [(user, org) for user in values for org in values]
    sql.execute(
        "CREATE TABLE trial (LIKE orders);"
        "ALTER TABLE trial ADD FOREIGN KEY (user_id, org) REFERENCES users (id, org)"
        f" MATCH {match}".encode()
    )
    refused: set[str] = set()
    for number, (user, org) in enumerate(pairs):
        row = (number, user, org)
        sql.execute("INSERT INTO orders VALUES (%s, %s, %s)", row)
        try:
            sql.execute("INSERT INTO trial VALUES (%s, %s, %s)", row)
        except psycopg.errors.ForeignKeyViolation:
            refused.add(f'{{"id" : "{number}"}}')
    pattern = AddForeignKey(
        "orders", ["user_id", "org"], "users", ["id", "org"], "both", match=match
    )
    runner.expand(Change(revision="a1", pattern=pattern))
    with pytest.raises(MismatchError):
        runner.verify("a1")
    assert {m.key for m in runner.mismatches("a1")} == refused
    assert len(refused) == (2 if match == "simple" else 6)


def test_a_table_that_refers_to_itself(runner: Runner, sql: psycopg.Connection) -> None:
    """Verification, constraint and proof work on the one table."""
    sql.execute(
        "CREATE TABLE other (id int PRIMARY KEY, up int);"
        "INSERT INTO other VALUES (1, NULL), (2, 1), (3, 7)"
    )
    pattern = AddForeignKey("other", ["up"], "other", ["id"], "other_up")
    runner.expand(Change(revision="a1", pattern=pattern))
    with pytest.raises(MismatchError):
        runner.verify("a1")
    assert [m.key for m in runner.mismatches("a1")] == ['{"id" : "3"}']
    sql.execute("UPDATE other SET up = 3 WHERE id = 3")
    runner.verify("a1")
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED


def test_collations_that_differ(runner: Runner, sql: psycopg.Connection) -> None:
    """The comparison says which one counts."""
    sql.execute(
        'CREATE TABLE users (id text COLLATE "C" PRIMARY KEY);'
        'CREATE TABLE orders (id int, user_id text COLLATE "POSIX");'
        "INSERT INTO users VALUES ('a');"
        "INSERT INTO orders VALUES (1, 'a')"
    )
    runner.expand(Change(revision="a1", pattern=PLAIN))
    runner.verify("a1")
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED


def test_partitioned_tables(runner: Runner, sql: psycopg.Connection) -> None:
    """From PostgreSQL 18 on either table may be partitioned, before only one."""
    sql.execute(
        "CREATE TABLE users (id bigint PRIMARY KEY) PARTITION BY HASH (id);"
        "CREATE TABLE users_0 PARTITION OF users FOR VALUES WITH (MODULUS 1,"
        " REMAINDER 0); INSERT INTO users VALUES (1);"
        "CREATE TABLE orders (id int, user_id bigint) PARTITION BY LIST (id);"
        "CREATE TABLE orders_1 PARTITION OF orders FOR VALUES IN (1);"
        "CREATE TABLE orders_2 PARTITION OF orders DEFAULT;"
        "CREATE INDEX ON orders (user_id); INSERT INTO orders VALUES (1, 1), (2, 7)"
    )
    change = Change(revision="a1", pattern=PLAIN)
    if sql.info.server_version < 180000:
        with pytest.raises(Refused, match="before PostgreSQL 18"):
            runner.expand(change)
        return
    runner.expand(change)
    with pytest.raises(MismatchError):
        runner.verify("a1")
    sql.execute("UPDATE orders SET user_id = 1")
    runner.verify("a1")
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        sql.execute("INSERT INTO orders VALUES (3, 7)")
    assert runner.rollback("a1", to=State.PLANNED) is State.PLANNED
    sql.execute("INSERT INTO orders VALUES (3, 7)")


def test_the_way_back_of_a_table_that_is_partitioned_by_now(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Where the index is refused, the key is gone already, and that is said."""
    sql.execute(TABLES)
    runner.complete(Change(revision="a1", pattern=PLAIN))
    parts = PartitionTable(
        "orders",
        "RANGE",
        ["id"],
        {"low": "FROM (0) TO (5)"},
        rest="others",
        key=["id"],
        assured="tried",
    )
    runner.complete(Change(revision="b2", pattern=parts))
    for state in (
        "This step changed nothing; what was taken back before stays so.",
        "Nothing was changed.",
    ):
        with pytest.raises(Refused, match="is one of a partitioned table") as caught:
            runner.rollback("a1", to=State.PLANNED)
        assert caught.value.state == state
        assert sql.execute(KEYS).fetchall() == []


# -- locks -------------------------------------------------------------------


def test_no_step_locks_more_than_it_claims(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """What pg_locks shows is what the plan says, on both tables."""
    sql.execute(TABLES)
    plan = runner.plan(Change(revision="a1", pattern=PLAIN))
    add, validate = plan.steps(Phase.RETIRE)
    both = ("orders", "users")
    assert isinstance(add.work, Transaction)
    assert taken(sql, add.work, *both) == dict.fromkeys(both, Lock.SHARE_ROW_EXCLUSIVE)
    assert [a.lock for a in add.work.also] == [Lock.SHARE_ROW_EXCLUSIVE]
    with sql.transaction():
        for statement in add.work.statements:
            sql.execute(statement.encode())
    assert isinstance(validate.work, Autocommit)
    assert taken(sql, validate.work, *both) == {
        "orders": validate.work.lock,
        "users": validate.work.also[0].lock,
    }
    assert validate.work.lock is Lock.SHARE_UPDATE_EXCLUSIVE
    assert validate.work.also[0].lock is Lock.ROW_SHARE
    (back,) = add.reverse
    assert taken(sql, back, *both) == dict.fromkeys(both, Lock.ACCESS_EXCLUSIVE)


@pytest.mark.parametrize("table", ["orders", "users"])
def test_a_lock_on_either_table(
    table: str, runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """The step gives up on time, names the holder and leaves nothing."""
    sql.execute(TABLES)
    runner.expand(Change(revision="a1", pattern=PLAIN))
    runner.verify("a1")
    with (
        holding(database, table, "ROW EXCLUSIVE"),
        pytest.raises(LockBudgetError) as caught,
    ):
        runner.retire("a1", old_release_gone="test")
    assert str(caught.value).startswith(
        'Step \'add_constraint\' on table "public"."orders" got no lock within 200 ms'
    )
    assert '(application "billing"' in str(caught.value)
    assert sql.execute(KEYS).fetchall() == []
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED


def test_a_lock_that_the_proof_meets(
    runner: Runner,
    sql: psycopg.Connection,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The proof gives up on the referenced table's lock, and goes on later."""
    sql.execute(TABLES)
    runner.expand(Change(revision="a1", pattern=PLAIN))
    runner.verify("a1")
    forward = Execution.forward

    def behind(self: Execution, run: Any, row: Any) -> None:
        if row.step.name != "validate_constraint":
            forward(self, run, row)
            return
        with holding(database, "users", "ACCESS EXCLUSIVE"):
            forward(self, run, row)

    monkeypatch.setattr(Execution, "forward", behind)
    with pytest.raises(LockBudgetError) as caught:
        runner.retire("a1", old_release_gone="test")
    assert str(caught.value).startswith("Step 'validate_constraint' on table")
    assert '(application "billing"' in str(caught.value)
    assert [row[1] for row in sql.execute(KEYS)] == [False]
    monkeypatch.undo()
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED


# -- messages ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            replace(PLAIN, on="user_id"),
            'add foreign key "orders_user" to table "orders": `on` must be a list of'
            ' one column or more.\nNothing was changed.\nNext: write on=["column"].',
        ),
        (
            replace(PLAIN, referenced_columns=["id", "org"]),
            'add foreign key "orders_user" to table "orders": `referenced_columns`'
            " must be a list of as many columns as `on`.\nNothing was changed.\n"
            "Next: name 1, in the order of `on`.",
        ),
        (
            replace(PLAIN, on=["usr"]),
            'Table "public"."orders" has no column "usr".\nNothing was changed.\n'
            'Next: correct the name; the table has "user_id", "org".',
        ),
        (
            replace(PLAIN, referenced_columns=["uid"]),
            'Table "public"."users" has no column "uid".\nNothing was changed.\n'
            'Next: "id" is the nearest; correct the name; the table has "id", "org".',
        ),
        (
            replace(PLAIN, referenced_columns=["org"]),
            'No unique index of table "public"."users" that is checked at once is on'
            ' exactly ("org"): a foreign key cannot refer to these columns.\n'
            "Nothing was changed.\n"
            "Next: make them unique first, by a change of its own (AddUnique).",
        ),
        (
            replace(PLAIN, name="taken"),
            'Table "public"."orders" has a constraint "taken" already.\n'
            "Nothing was changed.\nNext: choose another name, or drop it first.",
        ),
        (
            replace(PLAIN, index="taken_idx"),
            'Schema "public" has a relation "taken_idx" already.\n'
            "Nothing was changed.\nNext: choose another name, or drop it first.",
        ),
        (
            replace(PLAIN, name="é" * 32),
            f'The constraint name "{"é" * 32}" has 64 bytes; PostgreSQL would cut it'
            " at 63 without an error.\nNothing was changed.\n"
            "Next: choose a shorter name.",
        ),
        (
            replace(PLAIN, on_delete="remove"),
            'add foreign key "orders_user" to table "orders": on_delete is \'remove\'.'
            '\nNothing was changed.\nNext: write one of "NO ACTION", "RESTRICT",'
            ' "CASCADE", "SET NULL", "SET DEFAULT".',
        ),
        (
            replace(PLAIN, match="partial"),
            'add foreign key "orders_user" to table "orders": match is \'partial\'.\n'
            'Nothing was changed.\nNext: write one of "SIMPLE", "FULL".',
        ),
        (
            replace(PLAIN, deferrable="yes"),
            'add foreign key "orders_user" to table "orders": deferrable is \'yes\'.\n'
            'Nothing was changed.\nNext: write "immediate" or "deferred", which is'
            " what it is initially.",
        ),
    ],
    ids=repr,
)
def test_message(pattern: AddForeignKey, message: str) -> None:
    """What cannot work is refused with the reason and a way out."""
    with pytest.raises(Refused) as caught:
        pattern.check(FACTS)
    assert str(caught.value) == message


def test_a_delete_sets_some_of_the_columns(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """The others keep what they have; a column that is not the key's is refused."""
    sql.execute(
        'CREATE TABLE p (a int, "B" int, PRIMARY KEY (a, "B"));'
        'CREATE TABLE c (a int NOT NULL, "B" int);'
        "INSERT INTO p VALUES (1, 2); INSERT INTO c VALUES (1, 2)"
    )
    key = AddForeignKey(
        "c", ["a", "B"], "p", ["a", "B"], "k", on_delete='set null ("B")'
    )
    wrong = replace(key, on_delete="SET NULL (a, x)")
    with pytest.raises(Refused, match='sets "x", which is none of the foreign key'):
        runner.plan(Change(revision="a1", pattern=wrong))
    runner.expand(Change(revision="a1", pattern=key))
    runner.settle("a1")
    runner.retire("a1", old_release_gone="test")
    sql.execute("DELETE FROM p")
    assert sql.execute("SELECT * FROM c").fetchall() == [(1, None)]


def test_message_about_a_partitioned_table() -> None:
    """Before 18 it is refused, from then on only without an index."""
    table = replace(FACTS.table, kind="p")
    with pytest.raises(Refused) as caught:
        PLAIN.check(replace(FACTS, table=table, server_version=170000))
    assert str(caught.value) == (
        'Table "public"."orders" is partitioned: before PostgreSQL 18 its foreign keys'
        " cannot be NOT VALID, so that adding one reads all rows while writers of both"
        " tables wait.\nNothing was changed.\n"
        "Next: add the foreign key in a maintenance window, or use PostgreSQL 18."
    )
    with pytest.raises(Refused) as caught:
        PLAIN.check(replace(FACTS, table=table))
    assert str(caught.value) == (
        'Table "public"."orders" is partitioned and has no index on the foreign key\'s'
        " columns: it takes a change of its own.\nNothing was changed.\n"
        "Next: build it first, by CreateIndex, or write index=False."
    )
    replace(PLAIN, index=False).check(replace(FACTS, table=table))


def test_message_about_types_without_an_equality(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """The server's own words, beside both types."""
    sql.execute(
        "CREATE TABLE users (id uuid PRIMARY KEY);"
        "CREATE TABLE orders (id int, user_id bigint)"
    )
    with pytest.raises(Refused) as caught:
        runner.expand(Change(revision="a1", pattern=PLAIN))
    assert str(caught.value) == (
        'add foreign key "orders_user" to table "orders", "user_id" bigint to "id"'
        ' uuid: the server refuses it: foreign key constraint "orders_user" cannot be'
        " implemented.\nNothing was changed.\n"
        "Next: give the columns types that have an = in common, and actions that they"
        " can take; change a type by a change of its own first."
    )


def test_a_deferrable_key_is_none() -> None:
    """PostgreSQL refers to keys that are checked at once."""
    late = Constraint(name="k", kind="p", deferrable=True, index="users_pkey")
    parent = replace(PARENT, constraints=(late,))
    with pytest.raises(Refused, match="checked at once"):
        PLAIN.check(replace(FACTS, others=(parent,)))


def test_notices() -> None:
    """A reviewer reads when it is enforced, and what types and indexes cost."""
    (plain,) = PLAIN.check(FACTS)
    assert plain.text == (
        "Nothing is enforced before retire: rows without a parent that either release"
        " writes hold the change at verify."
    )
    columns = (Column(name="user_id", type="integer"),)
    table = replace(FACTS.table, columns=columns)
    _, types, slow = replace(PLAIN, index=False).check(replace(FACTS, table=table))
    assert types.text == (
        'Column "user_id" is integer and refers to "id", which is bigint: what one of'
        " them cannot hold is refused, and joins convert."
    )
    assert slow.text == (
        "The columns have no index: each DELETE of a referenced row, and each UPDATE"
        " of its key, will read the whole table."
    )
