"""RenameColumn: its text, its life and its messages."""

from dataclasses import replace

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from migrator.change import Change
from migrator.errors import Refused
from migrator.facts import Column, Facts, Index, IndexColumn, Table, Trigger
from migrator.names import TableName
from migrator.patterns import RenameColumn
from migrator.plan import Autocommit, ChunkedCheck, ChunkedUpdate, State, Transaction
from migrator.runner import Runner

USERS = TableName("public", "users")
RENAME = RenameColumn("users", "name", "full_name")
CHANGE = Change(revision="a1", pattern=RENAME)
NAME = Column(name="name", type="text")


def facts(
    *columns: Column,
    table: TableName = USERS,
    indexes: tuple[Index, ...] = (),
    triggers: tuple[Trigger, ...] = (),
) -> Facts:
    """Return facts about a plain table with these columns."""
    made = Table(name=table, oid=1, columns=columns, indexes=indexes, triggers=triggers)
    return Facts(server_version=180000, tag="0123456789", table=made)


# -- text --------------------------------------------------------------------


def test_text_of_expand() -> None:
    """Expand adds the copy and the dual write under one lock."""
    (step,) = RENAME.expand(facts(NAME))
    assert isinstance(step.work, Transaction)
    assert step.work.statements == (
        'LOCK TABLE "public"."users" IN ACCESS EXCLUSIVE MODE',
        'ALTER TABLE "public"."users" ADD COLUMN "full_name" text',
        'CREATE FUNCTION "migrator"."mirror_0123456789"() RETURNS trigger'
        " LANGUAGE plpgsql AS '"
        """
BEGIN
  IF """
        'pg_catalog.record_image_ne(ROW(NEW."full_name")::pg_catalog.record,'
        """ ROW(OLD."full_name")::pg_catalog.record) THEN
    NEW."name" := NEW."full_name";
  ELSE
    NEW."full_name" := NEW."name";
  END IF;
  RETURN NEW;
END
'""",
        'CREATE TRIGGER "zzz_migrator_0123456789" BEFORE INSERT OR UPDATE ON'
        ' "public"."users" FOR EACH ROW WHEN'
        ' (NEW."name" IS DISTINCT FROM NEW."full_name")'
        ' EXECUTE FUNCTION "migrator"."mirror_0123456789"()',
        'ALTER TABLE "public"."users" ENABLE ALWAYS TRIGGER "zzz_migrator_0123456789"',
    )
    (back,) = step.reverse
    assert isinstance(back, Transaction)
    assert back.statements == (
        'LOCK TABLE "public"."users" IN ACCESS EXCLUSIVE MODE',
        'DROP TRIGGER IF EXISTS "zzz_migrator_0123456789" ON "public"."users"',
        'DROP FUNCTION IF EXISTS "migrator"."mirror_0123456789"()',
        'ALTER TABLE "public"."users" DROP COLUMN IF EXISTS "full_name"',
    )


def test_text_with_hostile_names() -> None:
    """Every name is quoted, and stands in the plan as it stands in the catalogue."""
    table = TableName('my "sch', "or der")
    pattern = RenameColumn("or der", 'a "b%', ":x é select", schema='my "sch')
    fill, *_ = pattern.backfill(facts(Column(name='a "b%', type="text"), table=table))
    (check,) = pattern.verify(facts(Column(name='a "b%', type="text"), table=table))
    (retire,) = pattern.retire(facts(Column(name='a "b%', type="text"), table=table))
    assert isinstance(fill.work, ChunkedUpdate)
    rows = (
        "WHERE ctid >= $1::pg_catalog.tid AND ctid < $2::pg_catalog.tid"
        ' AND (":x é select" IS DISTINCT FROM "a ""b%")'
    )
    update = f'UPDATE "my ""sch"."or der" SET ":x é select" = "a ""b%" {rows}'
    assert fill.work.statement == update
    assert fill.work.guard == (
        "SELECT NOT EXISTS (WITH RECURSIVE part (oid) AS (SELECT "
        """'"my ""sch"."or der"'::pg_catalog.regclass::oid UNION ALL"""
        " SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN part"
        " ON part.oid = i.inhparent WHERE NOT i.inhdetachpending)"
        " SELECT oid FROM part WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_trigger"
        " WHERE tgrelid = part.oid AND tgname = 'zzz_migrator_0123456789'"
        " AND tgenabled = 'A'))"
    )
    assert isinstance(check.work, ChunkedCheck)
    assert check.work.count == f'SELECT count(*) FROM "my ""sch"."or der" {rows}'
    assert check.work.repair is not None
    assert check.work.repair.startswith(f"{update} RETURNING CASE WHEN (")
    assert isinstance(retire.work, Transaction)
    assert retire.work.statements[3:5] == (
        'ALTER TABLE "my ""sch"."or der" RENAME COLUMN ":x é select" TO'
        ' "_migrator_retired_a ""b%_0123456789"',
        'ALTER TABLE "my ""sch"."or der" RENAME COLUMN "a ""b%" TO ":x é select"',
    )


def test_text_compares_images_where_equality_does_not() -> None:
    """A type that calls unlike values equal, or has no equality, is compared raw."""
    price = Column(name="price", type="numeric", image_equal=False)
    (step,) = RenameColumn("users", "price", "cost").verify(facts(price))
    assert isinstance(step.work, ChunkedCheck)
    assert step.work.count.endswith(
        ' AND (pg_catalog.record_image_ne(ROW("cost")::pg_catalog.record,'
        ' ROW("price")::pg_catalog.record))'
    )


def test_text_keeps_type_and_collation() -> None:
    """The copy has the modifiers and the collation of the original."""
    name = replace(NAME, type="character varying(20)", collation='pg_catalog."C"')
    (step,) = RENAME.expand(facts(name))
    assert isinstance(step.work, Transaction)
    assert step.work.statements[1] == (
        'ALTER TABLE "public"."users" ADD COLUMN "full_name"'
        ' character varying(20) COLLATE pg_catalog."C"'
    )


def test_text_of_copied_indexes() -> None:
    """Valid indexes with the column are copied, if the server spells what reads it."""
    keys = (IndexColumn(name="id"), IndexColumn(name="name", options="DESC"))
    indexes = (
        Index(
            name="both",
            method="btree",
            keys=keys,
            include=("name",),
            unique=True,
            columns=("id", "name"),
        ),
        Index(name="broken", method="btree", keys=keys, valid=False, columns=("name",)),
        Index(name="other", method="btree", keys=(IndexColumn(name="id"),)),
        Index(
            name="partial",
            method="btree",
            keys=keys,
            plain=False,
            mentions=("name",),
            columns=("name",),
        ),
        Index(
            name="by", method="btree", keys=(IndexColumn(name=""),), columns=("name",)
        ),
    )
    _, *steps = RENAME.backfill(
        facts(Column(name="id", type="int"), NAME, indexes=indexes)
    )
    (step,) = steps
    assert step.name == "copy_index_1"
    assert isinstance(step.work, Autocommit)
    assert step.work.statement == (
        'CREATE UNIQUE INDEX CONCURRENTLY "_migrator_index_both_0123456789" ON'
        ' "public"."users" USING "btree" ("id", "full_name" DESC)'
        ' INCLUDE ("full_name")'
    )
    assert step.work.remove == (
        'DROP INDEX CONCURRENTLY IF EXISTS "public"."_migrator_index_both_0123456789"'
    )


# -- life cycle --------------------------------------------------------------


class Releases:
    """The statements of the old and of the new release, and what they read."""

    def __init__(self, conn: psycopg.Connection) -> None:
        self.conn = conn
        self.model: dict[int, str | None] = {}

    def write(self, column: str, value: str) -> None:
        """Insert a row, and update it and the first one."""
        found = self.conn.execute(
            SQL("INSERT INTO users ({}) VALUES (%s) RETURNING id").format(
                Identifier(column)
            ),
            [value],
        ).fetchone()
        assert found is not None
        self.model[found[0]] = value
        for key, text in ((found[0], f"{value}, again"), (1, f"{value}, first")):
            self.conn.execute(
                SQL("UPDATE users SET {} = %s WHERE id = %s").format(
                    Identifier(column)
                ),
                [text, key],
            )
            self.model[key] = text

    def check(self, *columns: str) -> None:
        """Read every row by each name."""
        for column in columns:
            rows = self.conn.execute(
                SQL("SELECT id, {} FROM users").format(Identifier(column))
            )
            assert dict(rows.fetchall()) == self.model, column


def test_life_cycle(runner: Runner, sql: psycopg.Connection) -> None:
    """Each release reads what either wrote, at every stop and on every way back."""
    sql.execute(
        "CREATE TABLE users (id int GENERATED ALWAYS AS IDENTITY, name text UNIQUE);"
        "INSERT INTO users (name) SELECT 'n' || i FROM generate_series(1, 500) i;"
        "COMMENT ON COLUMN users.name IS 'kept'"
    )
    change = Change(revision="a1", pattern=replace(RENAME, assured="no ON CONFLICT"))
    both = Releases(sql)
    both.model = dict(sql.execute("SELECT id, name FROM users").fetchall())

    def old(value: str) -> None:
        both.write("name", value)
        both.check("name")

    def new(value: str) -> None:
        both.write("full_name", value)
        both.check("name", "full_name")

    assert runner.plan(change).admission is State.VERIFIED
    old("planned")
    assert runner.expand(change) is State.EXPANDED
    old("expanded")
    assert runner.rollback("a1") is State.PLANNED
    old("rolled back")
    assert runner.expand(change) is State.EXPANDED
    old("expanded again")
    assert runner.backfill("a1") is State.BACKFILLED
    old("backfilled")
    assert runner.verify("a1") is State.VERIFIED
    old("verified, old")
    new("verified, new")
    assert runner.rollback("a1") is State.PLANNED
    old("rolled back from verified")
    runner.expand(change)
    runner.backfill("a1")
    runner.verify("a1")
    new("verified again")
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    both.write("full_name", "retired")
    both.check("full_name")
    assert runner.rollback("a1") is State.VERIFIED
    old("back from retired, old")
    new("back from retired, new")
    runner.retire("a1", old_release_gone="test")
    both.write("full_name", "retired again")
    assert runner.drop("a1") is State.DROPPED
    both.write("full_name", "dropped")
    both.check("full_name")
    columns = sql.execute(
        "SELECT attname, col_description(attrelid, attnum) FROM pg_attribute"
        " WHERE attrelid = 'users'::regclass AND attnum > 0 AND NOT attisdropped"
    ).fetchall()
    assert columns == [("id", None), ("full_name", "kept")]
    left = sql.execute(
        "SELECT (SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal"
        "         AND tgrelid = 'users'::regclass),"
        " (SELECT count(*) FROM pg_index WHERE indrelid = 'users'::regclass),"
        " (SELECT count(*) FROM pg_proc WHERE proname LIKE 'mirror%')"
    ).fetchone()
    assert left == (0, 1, 0)


def test_operators_of_a_session_are_not_taken(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """The dual write means the same under a search path that hides the server's."""
    sql.execute(
        "CREATE TABLE users (id int, name text); INSERT INTO users VALUES (1, 'a');"
        "CREATE SCHEMA other; CREATE FUNCTION other.alike(text, text) RETURNS boolean"
        " LANGUAGE sql AS 'SELECT true'; CREATE OPERATOR other.="
        " (LEFTARG = text, RIGHTARG = text, FUNCTION = other.alike)"
    )
    runner.expand(CHANGE)
    runner.backfill(CHANGE.id)
    sql.execute("SET search_path = other, pg_catalog, public")
    sql.execute("UPDATE users SET full_name = 'b'")
    sql.execute("INSERT INTO users VALUES (2, 'c'), (3, 'd')")
    sql.execute("UPDATE users SET name = 'e' WHERE id > 2")
    both = sql.execute("SELECT name, full_name FROM users ORDER BY id").fetchall()
    assert both == [("b", "b"), ("c", "c"), ("e", "e")]


def test_life_where_no_other_release_runs(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Complete ends like a plain rename, and rebuild takes it back."""
    sql.execute("CREATE TABLE users (name text); INSERT INTO users VALUES ('x')")
    assert runner.complete(CHANGE) is State.DROPPED
    assert sql.execute("SELECT full_name FROM users").fetchall() == [("x",)]
    runner.rebuild(CHANGE)
    assert sql.execute("SELECT name FROM users").fetchall() == [("x",)]
    assert runner.complete(CHANGE) is State.DROPPED


REFERENCES = (
    "CREATE TABLE p (id int PRIMARY KEY); INSERT INTO p VALUES (1), (2), (3);"
    "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, p int REFERENCES"
    " p ON UPDATE CASCADE ON DELETE SET NULL); CREATE TABLE c (t int REFERENCES t"
    " ON UPDATE CASCADE ON DELETE CASCADE);"
    "INSERT INTO t (p) VALUES (1), (2), (3); INSERT INTO c SELECT id FROM t"
)


def test_a_foreign_key_stays_on_its_column(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Its actions reach both names, and it holds either release, in each state."""
    sql.execute(REFERENCES.encode())

    def both(columns: str = "p, owner") -> list[tuple[object, ...]]:
        query = f"SELECT {columns} FROM t ORDER BY id"
        return sql.execute(query.encode()).fetchall()

    runner.expand(Change(revision="a1", pattern=RenameColumn("t", "p", "owner")))
    # Of rows that are not brought across.
    sql.execute("UPDATE p SET id = 10 WHERE id = 1; DELETE FROM p WHERE id = 2")
    assert both() == [(10, 10), (None, None), (3, None)]
    assert runner.settle("a1") is State.VERIFIED
    sql.execute("UPDATE t SET owner = 10 WHERE id = 2")
    sql.execute("UPDATE p SET id = 30 WHERE id = 3")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        sql.execute("UPDATE t SET owner = 4")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        sql.execute("INSERT INTO t (owner) VALUES (4)")
    assert both() == [(10, 10), (10, 10), (30, 30)]
    runner.retire("a1", old_release_gone="test")
    sql.execute("DELETE FROM p WHERE id = 10")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        sql.execute("UPDATE t SET owner = 4")
    runner.rollback("a1")
    assert both() == [(None, None), (None, None), (30, 30)]
    sql.execute("UPDATE p SET id = 31 WHERE id = 30")
    runner.retire("a1", old_release_gone="test")
    runner.drop("a1")
    assert both("owner") == [(None,), (None,), (31,)]


def test_a_key_keeps_its_identity_and_what_refers_to_it(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Rows of either release draw a number, and changes of either name cascade."""
    sql.execute(REFERENCES.encode())
    pattern = RenameColumn("t", "id", "number", assured="no ON CONFLICT")
    runner.expand(Change(revision="a1", pattern=pattern))
    sql.execute("INSERT INTO t (p) VALUES (1)")
    assert runner.settle("a1") is State.VERIFIED
    row = sql.execute("INSERT INTO t (p) VALUES (2) RETURNING id, number").fetchone()
    assert row == (5, 5)
    sql.execute("UPDATE t SET number = 50 WHERE number = 1")
    sql.execute("DELETE FROM t WHERE number = 2")
    children = "SELECT t FROM c ORDER BY t"
    assert sql.execute(children.encode()).fetchall() == [(3,), (50,)]
    runner.retire("a1", old_release_gone="test")
    row = sql.execute("INSERT INTO t (p) VALUES (2) RETURNING number").fetchone()
    assert row == (6,)
    sql.execute("UPDATE t SET p = 1 WHERE number = 50")
    sql.execute("DELETE FROM t WHERE number = 3")
    runner.rollback("a1")
    assert sql.execute(
        "SELECT array_agg(id) FROM c JOIN t ON t.id = c.t"
    ).fetchone() == ([50],)
    runner.retire("a1", old_release_gone="test")
    runner.drop("a1")
    generated = sql.execute(
        "SELECT attidentity FROM pg_attribute WHERE attrelid = 't'::regclass"
        " AND attname = 'number'"
    )
    assert generated.fetchone() == ("a",)


def test_a_view_goes_on_through_a_rename(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """It reads and writes the column that stays, under its own name for it."""
    sql.execute(
        "CREATE TABLE users (id int PRIMARY KEY, name text);"
        "CREATE VIEW v AS SELECT id, name FROM users; INSERT INTO v VALUES (1, 'a')"
    )
    runner.expand(CHANGE)
    sql.execute("UPDATE v SET name = 'b'")
    assert runner.settle("a1") is State.VERIFIED
    sql.execute(
        "INSERT INTO v VALUES (2, 'c'); UPDATE users SET full_name = 'd' WHERE id = 1"
    )
    assert sql.execute("SELECT id, name FROM v ORDER BY 1").fetchall() == [
        (1, "d"),
        (2, "c"),
    ]
    runner.retire("a1", old_release_gone="test")
    sql.execute("UPDATE v SET name = 'e' WHERE id = 1")
    runner.drop("a1")
    assert sql.execute("SELECT name FROM v ORDER BY id").fetchall() == [("e",), ("c",)]


def test_a_key_that_is_checked_later_lets_both_names_pass(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """The copy of a deferrable key's index, or of one over periods, is not unique."""
    sql.execute(
        "CREATE TABLE users (id int PRIMARY KEY, name int4range UNIQUE DEFERRABLE);"
        "INSERT INTO users SELECT g, int4range(g, g + 1) FROM generate_series(1, 3) g"
    )
    if sql.info.server_version >= 180000:
        sql.execute("CREATE EXTENSION btree_gist")
        sql.execute("ALTER TABLE users ADD UNIQUE (id, name WITHOUT OVERLAPS)")
    runner.expand(CHANGE)
    assert runner.settle("a1") is State.VERIFIED
    # Each takes the value of a row that is updated after it.
    sql.execute("UPDATE users SET name = int4range(5 - lower(name), 6 - lower(name))")
    sql.execute("UPDATE users SET full_name = int4range(id + 1, id + 2)")
    runner.retire("a1", old_release_gone="test")
    assert runner.rollback("a1") is State.VERIFIED
    sql.execute("UPDATE users SET name = int4range(id, id + 1)")
    rows = sql.execute("SELECT count(*) FROM users WHERE name = full_name")
    assert rows.fetchone() == (3,)


def test_grants_of_the_column_hold_for_both_names(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """A role that may use the column alone may use the copy, on each partition too."""
    role = f"app_of_{sql.info.dbname}"
    sql.execute(
        "CREATE TABLE users (id int, name text) PARTITION BY LIST (id);"
        "CREATE TABLE one PARTITION OF users FOR VALUES IN (1);"
        "INSERT INTO users VALUES (1, 'a');"
        f"CREATE ROLE {role}; GRANT SELECT (name), UPDATE (name) ON users, one TO"
        f" {role}".encode()
    )
    try:
        runner.expand(CHANGE)
        assert runner.settle("a1") is State.VERIFIED
        with sql.transaction():
            sql.execute(f"SET LOCAL ROLE {role}".encode())
            sql.execute("UPDATE users SET full_name = 'b'; UPDATE one SET name = 'c'")
            rows = sql.execute("SELECT full_name FROM users").fetchall()
            assert rows == sql.execute("SELECT full_name FROM one").fetchall()
            assert rows == [("c",)]
    finally:
        sql.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


def test_what_is_made_on_the_copy_holds_retire(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """It would go with the copy; the message names it, and on it goes without."""
    sql.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    sql.execute("CREATE INDEX by_name ON users (name)")
    runner.expand(CHANGE)
    runner.settle("a1")
    sql.execute(
        "CREATE INDEX later ON users (full_name);"
        "CREATE VIEW v AS SELECT full_name FROM users"
    )
    with pytest.raises(Refused) as caught:
        runner.retire("a1", old_release_gone="test")
    assert str(caught.value) == (
        'Step \'exchange_names\' on table "public"."users" is refused: 2 objects were'
        ' made since on column "full_name", which is a copy until then and goes at the'
        " drop: index later; view v.\nNothing was changed.\nNext: drop it, run the same"
        " command again, and make it anew afterwards, when the column of that name is"
        " the one that stays."
    )
    sql.execute("DROP INDEX later; DROP VIEW v")
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED


def test_copies_have_all_that_the_index_is_spelt_with(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """An operator class has parameters, and a function the schema that it is in."""
    sql.execute(
        "CREATE TABLE users (id int PRIMARY KEY, name tsvector); CREATE SCHEMA other;"
        "CREATE FUNCTION other.lexemes(tsvector) RETURNS text IMMUTABLE LANGUAGE sql"
        " RETURN $1::text; CREATE INDEX i ON users USING gist"
        " (name tsvector_ops (siglen = 100)) WITH (fillfactor = 50);"
        'CREATE INDEX j ON users (other.lexemes(name) COLLATE "C" DESC)'
        " INCLUDE (id) TABLESPACE pg_default WHERE name <> 'name'"
    )
    runner.expand(CHANGE)
    runner.settle("a1")
    found = sql.execute(
        "SELECT pg_get_indexdef(a.indexrelid), pg_get_indexdef(b.indexrelid)"
        " FROM pg_index a JOIN pg_class x ON x.oid = a.indexrelid"
        " JOIN pg_class y ON y.relname LIKE '_migrator_index_' || x.relname || '%'"
        " JOIN pg_index b ON b.indexrelid = y.oid ORDER BY x.relname"
    ).fetchall()
    assert len(found) == 2
    for index, copy in found:
        wanted = index.split(" USING ")[1].replace("(name", "(full_name")
        assert copy.split(" USING ")[1] == wanted


def test_an_index_by_an_expression_serves_both_names(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """The new release's queries and ON CONFLICT find the like of it in the window."""
    sql.execute(
        "CREATE TABLE users (id int PRIMARY KEY, name text);"
        "CREATE UNIQUE INDEX by_name ON users (lower(name)) WHERE name <> 'name'"
    )
    runner.expand(replace(CHANGE, pattern=replace(RENAME, assured="known")))
    runner.settle("a1")
    for column, number in (("name", 1), ("full_name", 2), ("name", 3)):
        sql.execute(
            f"INSERT INTO users (id, {column}) VALUES ({number}, 'Bob') ON CONFLICT"
            f" (lower({column})) WHERE {column} <> 'name'"
            f" DO UPDATE SET id = {number}".encode()
        )
    assert sql.execute("SELECT * FROM users").fetchall() == [(3, "Bob", "Bob")]
    sql.execute("INSERT INTO users (id, full_name) VALUES (4, 'name'), (5, 'name')")
    with sql.transaction():
        sql.execute("SET LOCAL enable_seqscan = off")
        query = "SELECT FROM users WHERE lower(full_name) = 'bob' AND full_name <> "
        plan = sql.execute(f"EXPLAIN {query}'name'".encode()).fetchall()
    assert "_migrator_index_by_name" in str(plan)
    runner.retire("a1", old_release_gone="test")
    runner.drop("a1")
    found = sql.execute("SELECT pg_get_indexdef('by_name'::regclass)").fetchone()
    assert found is not None
    assert "lower(full_name)) WHERE (full_name <> 'name'::text)" in found[0]


# -- messages ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            replace(NAME, generated=True),
            'Column "name" of table "public"."users" is generated: it cannot be'
            " written, so it cannot follow a second column.\nNothing was changed.\n"
            "Next: add a second generated column, then drop the first.",
        ),
        (
            replace(NAME, dependents=("view v", "rule r"), by_number=("view v",)),
            'Column "name" of table "public"."users" is used by rule r.\n'
            "Nothing was changed.\n"
            "Next: drop what depends on it first, and make it again afterwards.",
        ),
        (
            replace(NAME, unique_indexes=("users_pkey",)),
            'rename column "name" of table "users" to "full_name": Column "name" is'
            ' part of unique index "users_pkey": an INSERT … ON CONFLICT on it may'
            " meet a violation of the other copy's index between verified and"
            " retire.\nNothing was changed.\n"
            'Next: look into it, then write assured="why it is safe here" into the'
            " pattern.",
        ),
        (
            replace(NAME, name="other"),
            'Table "public"."users" has no column "name".\nNothing was changed.\n'
            'Next: correct the name; the table has "other".',
        ),
    ],
)
def test_message_about_the_column(column: Column, message: str) -> None:
    """What a copy could not follow is refused with the reason and a way out."""
    with pytest.raises(Refused) as caught:
        RENAME.check(facts(column))
    assert str(caught.value) == message


def test_message_about_a_name_that_is_taken() -> None:
    """The new name has to be free."""
    with pytest.raises(Refused) as caught:
        RENAME.check(facts(NAME, Column(name="full_name", type="text")))
    assert str(caught.value) == (
        'Table "public"."users" has a column "full_name" already.\n'
        "Nothing was changed.\n"
        "Next: choose another name, or drop that column first."
    )


def test_message_about_a_name_of_64_bytes() -> None:
    """PostgreSQL would cut the name without an error."""
    with pytest.raises(Refused) as caught:
        RenameColumn("users", "name", "x" * 64).check(facts(NAME))
    assert str(caught.value) == (
        f'The column name "{"x" * 64}" has 64 bytes; PostgreSQL would cut it at 63'
        " without an error.\nNothing was changed.\nNext: choose a shorter name."
    )


def test_message_about_a_trigger_that_fires_later() -> None:
    """A BEFORE trigger behind the dual write could set the names apart."""
    with pytest.raises(Refused) as caught:
        RENAME.check(facts(NAME, triggers=(Trigger(name="zzzz", before_row=True),)))
    assert str(caught.value) == (
        'Trigger "zzzz" on table "public"."users" would fire after the dual write'
        " and could leave the two sides apart.\nNothing was changed.\n"
        'Next: rename it to sort before "zzz_migrator_".'
    )


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"root": TableName("public", "all users")},
            'Table "public"."users" is a partition of table "public"."all users"; its'
            " columns and triggers are those of all partitions.\n"
            "Nothing was changed.\n"
            'Next: name the parent: "all users", schema="public".',
        ),
        (
            {"kind": "v"},
            '"public"."users" is not a table.\nNothing was changed.\n'
            "Next: name the table behind it.",
        ),
        (
            {"is_child": True},
            'Table "public"."users" takes part in inheritance; a trigger or column on'
            " one member does not reach the others.\n"
            "Nothing was changed.\n"
            "Next: detach it first, or make the change with plain SQL.",
        ),
        (
            {"is_temporary": True},
            'Table "public"."users" is temporary: no other session sees it.\n'
            "Nothing was changed.\nNext: use plain SQL.",
        ),
        (
            {"owned": False},
            "The role of this connection does not own table"
            ' "public"."users".\nNothing was changed.\n'
            "Next: connect as the owner, or as a member of the owner's role.",
        ),
        (
            {"row_security": True},
            "Row-level security applies to this role on table"
            ' "public"."users": backfill and verification would miss the rows it'
            " hides.\nNothing was changed.\n"
            "Next: connect as a role with BYPASSRLS.",
        ),
    ],
)
def test_message_about_the_table(table: dict[str, object], message: str) -> None:
    """A table of another kind is refused with the reason and a way out."""
    plain = facts(NAME)
    given = replace(plain, table=replace(plain.table, **table))
    with pytest.raises(Refused) as caught:
        RENAME.check(given)
    assert str(caught.value) == message


def test_notices() -> None:
    """A reviewer reads what no check can rule out."""
    partial = Index(
        name="part",
        method="btree",
        keys=(),
        plain=False,
        columns=("name",),
        mentions=("name",),
    )
    column = replace(NAME, dependents=("view v",), by_number=("view v",))
    given = facts(replace(column, default="'x'::text"), indexes=(partial,))
    assert [n.text for n in RENAME.check(given)] == [
        'A join with another table\'s "full_name" must qualify it.',
        "Prepared SELECT *, INSERT … SELECT * and COPY without a column list see more"
        ' columns of table "public"."users": a prepared SELECT * fails in each session'
        ' until it is prepared anew ("cached plan must not change result type").',
        "view v: what reads the column by its number goes on reading it. A view goes on"
        " showing it under its own name for it.",
        'Index "part" is not copied for the window, since the server does not spell'
        " it for another column; it serves the new name from retire on.",
        'Column "name" has a default: an explicit NULL inserted by the new release'
        " becomes that default until retire.",
    ]


def test_a_trigger_that_names_the_column(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """It needs a word, and reads the new name before the old one is gone."""
    sql.execute(
        "CREATE TABLE users (id int PRIMARY KEY, name text, audit text);"
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN NEW.audit := NEW.name; RETURN NEW; END $$;"
        "CREATE TRIGGER t BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION f()"
    )
    with pytest.raises(Refused) as caught:
        runner.expand(CHANGE)
    assert (
        'The function of trigger "t" has the word "name" in it: where that is this'
        " column, every write fails from retire on. Let it read"
        ' "full_name" between verified and retire.' in str(caught.value)
    )
    runner.expand(replace(CHANGE, pattern=replace(RENAME, assured="known")))
    assert runner.settle("a1") is State.VERIFIED
    sql.execute(
        "CREATE OR REPLACE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN NEW.audit := NEW.full_name; RETURN NEW; END $$"
    )
    sql.execute("INSERT INTO users (id, full_name) VALUES (1, 'a')")
    runner.retire("a1", old_release_gone="test")
    sql.execute("INSERT INTO users (id, full_name) VALUES (2, 'b')")
    rows = sql.execute("SELECT full_name, audit FROM users ORDER BY id")
    assert rows.fetchall() == [("a", "a"), ("b", "b")]
