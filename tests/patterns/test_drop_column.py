"""DropColumn: its text, its life, its locks and its messages."""

from dataclasses import replace
from typing import Any

import psycopg
import pytest

from migrator.change import Change
from migrator.errors import Held, LockBudgetError, Refused
from migrator.facts import Column, Facts, ForeignKey, Index, Table, Trigger
from migrator.names import TableName
from migrator.patterns import DropColumn
from migrator.plan import Autocommit, State, Transaction
from migrator.runner import Runner
from migrator.settings import Settings

NAME = Column(name="name", type="text")
STRICT = replace(NAME, not_null=True)
USERS = TableName("public", "users")
DROP = DropColumn("users", "name")


def facts(*columns: Column, name: TableName = USERS, **table: Any) -> Facts:
    """Return facts about a table with columns."""
    return Facts(
        server_version=180000,
        tag="0123456789",
        table=Table(name=name, oid=1, columns=columns, **table),
        path=("public",),
    )


# -- text --------------------------------------------------------------------


def test_text_with_hostile_names() -> None:
    """Every name is quoted; NOT NULL comes back by a check that is validated."""
    pattern = DropColumn('or "der', "a %s:x")
    column = replace(STRICT, name="a %s:x")
    given = facts(column, name=TableName('my "sch', 'or "der'))
    table, name = '"my ""sch"."or ""der"', '"a %s:x"'
    lock = f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"
    retired = '"_migrator_retired_a %s:x_0123456789"'
    check = '"_migrator_check_a %s:x_0123456789"'
    (lift,) = pattern.expand(given)
    assert isinstance(lift.work, Transaction)
    assert lift.work.statements == (
        lock,
        f"ALTER TABLE {table} ALTER COLUMN {name} DROP NOT NULL",
    )
    add, validate, again = lift.reverse
    assert isinstance(add, Autocommit)
    assert add.statement == (
        f"ALTER TABLE {table} ADD CONSTRAINT {check}"
        f" CHECK ({name} IS DISTINCT FROM NULL) NOT VALID"
    )
    assert add.refusals[0].count == (
        f"SELECT count(*) FROM {table} WHERE {name} IS NOT DISTINCT FROM NULL"
    )
    assert isinstance(validate, Autocommit)
    assert validate.statement == f"ALTER TABLE {table} VALIDATE CONSTRAINT {check}"
    assert isinstance(again, Transaction)
    assert again.statements == (
        lock,
        f"ALTER TABLE {table} ALTER COLUMN {name} SET NOT NULL",
        f"ALTER TABLE {table} DROP CONSTRAINT {check}",
    )
    (retire,) = pattern.retire(given)
    assert isinstance(retire.work, Transaction)
    assert retire.work.statements == (
        lock,
        f"ALTER TABLE {table} RENAME COLUMN {name} TO {retired}",
    )
    (back,) = retire.reverse
    assert isinstance(back, Transaction)
    assert back.statements == (
        lock,
        f"ALTER TABLE {table} RENAME COLUMN {retired} TO {name}",
    )
    (drop,) = pattern.drop(given)
    assert isinstance(drop.work, Transaction)
    assert drop.work.statements == (lock, f"ALTER TABLE {table} DROP COLUMN {retired}")
    assert drop.loses


def test_text_of_a_fill() -> None:
    """A fill becomes the default, under the path under which it was written."""
    (step,) = DropColumn("users", "name", fill="'é'").expand(facts(STRICT))
    lock = 'LOCK TABLE "public"."users" IN ACCESS EXCLUSIVE MODE'
    path = 'SET LOCAL search_path = "pg_catalog", "public"'
    column = 'ALTER TABLE "public"."users" ALTER COLUMN "name"'
    assert isinstance(step.work, Transaction)
    assert step.work.statements == (lock, path, f"{column} SET DEFAULT ('é')")
    (back,) = step.reverse
    assert isinstance(back, Transaction)
    assert back.statements == (lock, path, f"{column} DROP DEFAULT")


@pytest.mark.parametrize(
    "column",
    [
        NAME,
        replace(STRICT, default="'x'::text"),
        replace(STRICT, identity=True),
        replace(STRICT, generated=True),
    ],
)
def test_nothing_at_expand_where_an_insert_may_leave_it_out(column: Column) -> None:
    """Nothing is in the new release's way."""
    assert DROP.expand(facts(column)) == ()


def test_text_of_foreign_keys() -> None:
    """Each goes in a transaction of its own, which locks both tables first."""
    key = ForeignKey(
        name="k", table=USERS, columns=("name",), to=TableName("p", "q"), to_columns=()
    )
    first, last = DROP.drop(facts(NAME, foreign_keys=(key,)))
    assert isinstance(first.work, Transaction)
    assert first.work.statements == (
        'LOCK TABLE "p"."q", "public"."users" IN ACCESS EXCLUSIVE MODE',
        'ALTER TABLE "public"."users" DROP CONSTRAINT "k"',
    )
    assert (first.name, last.name) == ("drop_foreign_key_1", "drop_column")


# -- life cycle --------------------------------------------------------------

SETUP = "CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL, age int)"


class Releases:
    """The old release writes the column, the new one does not know it."""

    def __init__(self, sql: psycopg.Connection) -> None:
        self.sql = sql
        self.last = 0

    def old(self) -> None:
        """Insert, and read what was inserted."""
        self.last += 1
        self.sql.execute("INSERT INTO users VALUES (%s, %s)", [self.last, "x"])
        found = self.sql.execute("SELECT name FROM users WHERE id = %s", [self.last])
        assert found.fetchall() == [("x",)]

    def new(self) -> None:
        """Insert without the column."""
        self.last += 1
        self.sql.execute("INSERT INTO users (id, age) VALUES (%s, 1)", [self.last])


def test_life_cycle_with_a_fill(runner: Runner, sql: psycopg.Connection) -> None:
    """NOT NULL stays through all states, the old release never reads NULL."""
    sql.execute(SETUP)
    sql.execute("CREATE INDEX by_name ON users (name)")
    app = Releases(sql)
    change = Change(revision="a1", pattern=DropColumn("users", "name", fill="'none'"))
    app.old()
    with pytest.raises(psycopg.errors.NotNullViolation):
        app.new()
    assert runner.expand(change) is State.VERIFIED
    app.old()
    app.new()
    assert runner.rollback("a1") is State.PLANNED
    with pytest.raises(psycopg.errors.NotNullViolation):
        app.new()
    assert runner.expand(change) is State.VERIFIED
    app.new()
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    app.new()
    with pytest.raises(psycopg.errors.UndefinedColumn):
        sql.execute("SELECT name FROM users")
    assert runner.rollback("a1") is State.VERIFIED
    app.old()
    app.new()
    nulls = sql.execute("SELECT count(*) FROM users WHERE name IS NULL").fetchone()
    assert nulls == (0,)
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert runner.drop("a1") is State.DROPPED
    app.new()
    left = sql.execute(
        "SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute"
        " WHERE attrelid = 'users'::regclass AND attnum > 0 AND NOT attisdropped"
    ).fetchone()
    assert left == (["id", "age"],)
    assert sql.execute("SELECT to_regclass('by_name')").fetchone() == (None,)


def test_life_cycle_without_a_fill(runner: Runner, sql: psycopg.Connection) -> None:
    """NULLs of the new release are counted, and hold the way back to NOT NULL."""
    sql.execute(SETUP)
    app = Releases(sql)
    pattern = DropColumn("users", "name", assured="reads cope with NULL")
    change = Change(revision="a1", pattern=pattern)
    assert runner.expand(change) is State.VERIFIED
    app.old()
    assert runner.rollback("a1") is State.PLANNED
    with pytest.raises(psycopg.errors.NotNullViolation):
        app.new()
    assert runner.expand(change) is State.VERIFIED
    app.new()
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    app.new()
    assert runner.rollback("a1") is State.VERIFIED
    app.old()
    app.new()
    with pytest.raises(Refused) as caught:
        runner.rollback("a1")
    assert str(caught.value) == (
        'Step \'lift_not_null\' on table "public"."users" is refused: 3 rows hold NULL'
        ' in "name", from the new release.\nNothing was changed.\n'
        'Next: give them a value (UPDATE … WHERE "name" IS NULL), then run the same'
        " command again; or keep the new release."
    )
    app.new()
    app.old()
    sql.execute("UPDATE users SET name = 'x' WHERE name IS NULL")
    assert runner.rollback("a1") is State.PLANNED
    app.old()
    with pytest.raises(psycopg.errors.NotNullViolation):
        app.new()
    checks = "SELECT count(*) FROM pg_constraint WHERE conname LIKE '\\_migrator%'"
    assert sql.execute(checks.encode()).fetchone() == (0,)


def test_a_change_without_a_step_at_expand_is_in_flight(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Nobody else changes the column meanwhile, and a rollback ends that."""
    sql.execute("CREATE TABLE users (name text)")
    runner.expand(Change(revision="a1", pattern=DROP))
    assert runner.steps("a1") == []
    assert runner.change("a1").in_flight
    other = Change(revision="b2", pattern=DROP)
    with pytest.raises(Held, match="b2 touches what a1"):
        runner.expand(other)
    runner.rollback("a1")
    assert not runner.change("a1").in_flight
    runner.expand(other)


def test_a_null_that_comes_behind_the_count(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """A rollback that was cut off between check and proof goes on behind it."""
    sql.execute(SETUP)
    app = Releases(sql)
    change = Change(
        revision="a1", pattern=DropColumn("users", "name", assured="for the test")
    )
    runner.expand(change)
    app.new()
    (step,) = runner.steps("a1")
    add = step.step.reverse[0]
    assert isinstance(add, Autocommit)
    sql.execute(add.statement.encode())
    with pytest.raises(Refused, match='1 row holds NULL in "name"'):
        runner.rollback("a1")
    sql.execute("UPDATE users SET name = 'x' WHERE name IS NULL")
    assert runner.rollback("a1") is State.PLANNED
    with pytest.raises(psycopg.errors.NotNullViolation):
        app.new()


@pytest.mark.parametrize(
    "parts",
    [
        "",
        " PARTITION BY RANGE (id);"
        " CREATE TABLE a PARTITION OF users FOR VALUES FROM (0) TO (9)",
    ],
)
def test_foreign_keys_go_first(
    parts: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """The foreign key of the column goes in a step of its own, the check along."""
    sql.execute("CREATE TABLE other (id int PRIMARY KEY)")
    checked = "name int REFERENCES other CHECK (name > 0)"
    sql.execute(f"CREATE TABLE users (id int, {checked}){parts}".encode())
    pattern = DropColumn("users", "name", assured="for the test")
    change = Change(revision="a1", pattern=pattern)
    assert runner.complete(change) is State.DROPPED
    names = [s.step.name for s in runner.steps("a1")]
    assert names == ["retire_column", "drop_foreign_key_1", "drop_column"]


def test_life_on_partitions(runner: Runner, sql: psycopg.Connection) -> None:
    """The parent's column goes on all partitions; defaults of their own come back."""
    sql.execute(
        "CREATE TABLE users (id int, name text NOT NULL) PARTITION BY RANGE (id);"
        " CREATE TABLE a PARTITION OF users FOR VALUES FROM (0) TO (9);"
        " CREATE TABLE b PARTITION OF users FOR VALUES FROM (9) TO (99);"
        " ALTER TABLE b ALTER name SET DEFAULT 'own'"
    )
    change = Change(revision="a1", pattern=DropColumn("users", "name", fill="'none'"))
    default = (
        "SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef"
        " WHERE adrelid = 'b'::regclass"
    )
    runner.expand(change)
    sql.execute("INSERT INTO users (id) VALUES (1), (10)")
    runner.rollback("a1")
    assert sql.execute(default.encode()).fetchall() == [("'own'::text",)]
    assert runner.complete(change) is State.DROPPED
    assert sql.execute("SELECT * FROM users").fetchall() == [(1,), (10,)]


def test_life_where_no_other_release_runs(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Rebuild makes a column of the former shape."""
    sql.execute(SETUP)
    sql.execute("INSERT INTO users VALUES (1, 'x', 1)")
    pattern = DropColumn("users", "name", fill="'none'", type="text")
    change = Change(revision="a1", pattern=pattern)
    assert runner.complete(change) is State.DROPPED
    runner.rebuild(change)
    assert sql.execute("SELECT name FROM users").fetchall() == [("none",)]
    with pytest.raises(psycopg.errors.NotNullViolation):
        sql.execute("INSERT INTO users (id) VALUES (2)")


def test_what_went_along_comes_back(runner: Runner, sql: psycopg.Connection) -> None:
    """Rebuild makes indexes and constraints again; rows need not satisfy them."""
    sql.execute(
        """
        CREATE TABLE teams (id int PRIMARY KEY);
        CREATE TABLE users (
          id int PRIMARY KEY,
          "a team" int CONSTRAINT of_team REFERENCES teams,
          CONSTRAINT known CHECK ("a team" < 7),
          CONSTRAINT once UNIQUE (id, "a team")
        );
        CREATE INDEX by_team ON users ("a team" DESC, id) WHERE "a team" > 1;
        CREATE UNIQUE INDEX one_team ON users (lower("a team"::text));
        INSERT INTO users VALUES (1, NULL), (2, NULL);
        """
    )
    shape = """
        SELECT conname AS name, pg_get_constraintdef(oid) AS is FROM pg_constraint
        WHERE conrelid = 'users'::regclass AND contype <> 'n'
        UNION ALL
        SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'users' ORDER BY 1
    """
    before = sql.execute(shape).fetchall()
    assert len(before) == 8
    pattern = DropColumn("users", "a team", type="integer", assured="a test")
    change = Change(revision="a1", pattern=pattern)
    assert runner.complete(change) is State.DROPPED
    assert len(sql.execute(shape).fetchall()) == 2
    runner.rebuild(change)
    after = sql.execute(shape).fetchall()
    assert [(n, d.removesuffix(" NOT VALID")) for n, d in after] == before


# -- locks -------------------------------------------------------------------


def test_a_reader_makes_retire_give_up(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """Behind a lock that is not given, the step ends in time and leaves nothing."""
    sql.execute(SETUP)
    pattern = DropColumn("users", "name", fill="'none'")
    runner.expand(Change(revision="a1", pattern=pattern))
    runner.settings = Settings(lock_timeout_ms=50, step_budget_s=0.2)
    with psycopg.connect(database) as reader:
        reader.execute("SELECT name FROM users")
        with pytest.raises(LockBudgetError) as caught:
            runner.retire("a1", old_release_gone="test")
        assert str(caught.value).startswith(
            'Step \'retire_column\' on table "public"."users" got no lock'
        )
        reader.execute("SELECT name FROM users")
    sql.execute("SELECT name FROM users")


def test_the_count_of_nulls_holds_no_lock_that_is_in_the_way(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """A reader makes the check of the way back give up, and no check is left."""
    sql.execute(SETUP)
    pattern = DropColumn("users", "name", assured="for the test")
    runner.expand(Change(revision="a1", pattern=pattern))
    runner.settings = Settings(lock_timeout_ms=50, step_budget_s=0.2)
    with psycopg.connect(database) as reader:
        reader.execute("SELECT name FROM users")
        with pytest.raises(LockBudgetError):
            runner.rollback("a1")
    found = sql.execute(
        "SELECT count(*) FROM pg_constraint WHERE conrelid = 'users'::regclass"
        " AND contype = 'c'"
    ).fetchone()
    assert found == (0,)
    Releases(sql).new()


# -- messages ----------------------------------------------------------------

BY_NAME = Index(name="p", method="btree", keys=(), columns=("name",))
KEY = ForeignKey(
    name="k",
    table=TableName("public", "orders"),
    columns=("user",),
    to=USERS,
    to_columns=("name",),
)
NOTHING = "\nNothing was changed.\nNext: "


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            facts(replace(NAME, dependents=("view v", "grants on the column"))),
            'Column "name" of table "public"."users" is used by view v.'
            f"{NOTHING}drop what depends on it first, or make it again without the"
            " column.",
        ),
        (
            facts(replace(NAME, feeds=("full",))),
            'Column "name" of table "public"."users" is read by generated column'
            f' "full".{NOTHING}drop that column first.',
        ),
        (
            facts(replace(NAME, partition_key=True)),
            'Column "name" of table "public"."users" is in the partition key of the'
            f" table or of a partition of it.{NOTHING}move the rows to a new table.",
        ),
        (
            facts(NAME, foreign_keys=(KEY,)),
            'Column "name" of table "public"."users" is referred to by foreign key'
            f' "k" of table "public"."orders".{NOTHING}drop that foreign key first, by'
            " a change of its own.",
        ),
        (
            facts(
                STRICT,
                indexes=(replace(BY_NAME, primary=True),),
            ),
            'Column "name" of table "public"."users" is in the primary key "p": its'
            f' NOT NULL cannot be lifted.{NOTHING}give fill="…", or make another'
            " primary key first.",
        ),
        (
            facts(
                NAME,
                partitions=(
                    Table(name=TableName("public", "a"), oid=2, columns=(STRICT,)),
                ),
            ),
            'Column "name" of table "public"."users" is NOT NULL on partition'
            f' "public"."a" alone.{NOTHING}make it NOT NULL on the parent, or lift it'
            " on the partition.",
        ),
    ],
)
def test_message(given: Facts, message: str) -> None:
    """What would not go with the column is named, with a way out."""
    with pytest.raises(Refused) as caught:
        DROP.check(given)
    assert str(caught.value) == message


def test_message_about_a_fill_beside_a_default() -> None:
    """There is nothing to fill."""
    with pytest.raises(Refused) as caught:
        replace(DROP, fill="''").check(facts(replace(STRICT, default="'a'::text")))
    assert str(caught.value) == (
        'drop column "name" of table "users": it has a default already,'
        f" 'a'::text.{NOTHING}remove `fill`."
    )


def test_message_about_a_fill_that_is_null(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """A NULL is no fill."""
    sql.execute(SETUP)
    change = Change(revision="a1", pattern=DropColumn("users", "name", fill="NULL"))
    with pytest.raises(Refused) as caught:
        runner.expand(change)
    assert str(caught.value) == (
        'drop column "name" of table "users": NULL is NULL.'
        f"{NOTHING}give an expression that is not."
    )


def test_message_about_a_type_that_refuses_null(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """A domain that refuses NULL would refuse the new release's rows."""
    sql.execute(
        "CREATE DOMAIN given AS text NOT NULL; CREATE TABLE users (id int, name given)"
    )
    with pytest.raises(Refused) as caught:
        runner.expand(Change(revision="a1", pattern=DROP))
    assert str(caught.value) == (
        'Column "name" of table "public"."users" cannot be left out of an INSERT by'
        " the new release: domain given does not allow null values."
        f"{NOTHING}take the domain off first: ALTER COLUMN … TYPE text rewrites"
        " nothing."
    )


def test_message_without_a_type() -> None:
    """A downgrade after the drop has to know the type."""
    with pytest.raises(Refused) as caught:
        DROP.rebuild(facts(NAME))
    assert str(caught.value) == (
        'drop column "name" of table "users": the type of the dropped column is not'
        f" known.{NOTHING}write type=… into the pattern."
    )


def test_notices() -> None:
    """A reviewer reads what goes along, and what needs a person's word."""
    index = replace(BY_NAME, name="u", unique=True)
    column = replace(
        STRICT,
        unique_indexes=("u",),
        checks=("c",),
        dependents=("grants on the column",),
    )
    given = facts(
        column,
        indexes=(index,),
        triggers=(Trigger(name="t", before_row=True, mentions=("name",)),),
        foreign_keys=(
            ForeignKey(
                name="k",
                table=USERS,
                columns=("name",),
                to=TableName("public", "names"),
                to_columns=("name",),
            ),
        ),
    )
    notices = replace(DROP, assured="yes").check(given)
    assert [n.text for n in notices if not n.needs_assurance] == [
        "Prepared SELECT *, INSERT … SELECT * and COPY without a column list see a"
        ' column of table "public"."users" under another name from retire on, and one'
        " less from the drop on: after either a prepared SELECT * fails in each session"
        ' until it is prepared anew ("cached plan must not change result type").',
        'With column "name" go, at the drop: index "u", constraint "c", grants on it.',
    ]
    assert [n.text for n in notices if n.needs_assurance] == [
        'Column "name" is NOT NULL without a default. Expand lifts that for the new'
        ' release, so that the old one may read NULL; with fill="…" it would read a'
        " value, and NOT NULL would stay.",
        'Unique index "u" goes with the column, and with it what it says of other'
        " columns; ON CONFLICT on it fails from retire on.",
        'Constraint "c" reads the column: rows of the new release are held to it until'
        " the drop.",
        'Foreign key "k" to table "public"."names" stays in force until the drop: rows'
        " that the column refers to are not deleted past it.",
        'The function of trigger "t" has the word "name" in it: where that is this'
        " column, every write fails from retire on. Change the function first.",
    ]


def test_a_trigger_that_names_the_column_is_seen(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Words of a trigger function's text are read from the catalogue."""
    sql.execute(
        'CREATE TABLE users (id int, name text, names text, "a(c" text, abc text);'
        " CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS"
        ' $$ BEGIN NEW.name := NEW."a(c"; RETURN NEW; END $$;'
        " CREATE TRIGGER t BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION f()"
    )
    with pytest.raises(Refused, match='trigger "t" has the word "name" in it'):
        runner.expand(Change(revision="a1", pattern=DROP))
    with pytest.raises(Refused, match=r'trigger "t" has the word "a\(c" in it'):
        runner.expand(Change(revision="a1", pattern=DropColumn("users", "a(c")))
    for other in ("names", "abc"):
        change = Change(revision=other, pattern=DropColumn("users", other))
        assert runner.expand(change) is State.VERIFIED
