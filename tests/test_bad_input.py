"""Wrong and unusual input: a clear error and no change, or a full life."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from sqlalchemy import BigInteger

from migrator.change import Change
from migrator.errors import Failed, Held, Refused, UsageError
from migrator.pattern import Pattern
from migrator.patterns import (
    AddCheck,
    AddColumn,
    AddExclusion,
    ChangeColumnType,
    CreateIndex,
    DropColumn,
    DropConstraint,
    Key,
    RebuildTable,
    RenameColumn,
    SetDefault,
    SetNotNull,
    SplitColumn,
)
from migrator.plan import State
from migrator.postgres import connection
from migrator.postgres.connection import Target
from migrator.runner import Runner
from migrator.settings import Settings

SETUP = """
CREATE TABLE t (
  id int PRIMARY KEY, name text, taken text, must text NOT NULL,
  made text GENERATED ALWAYS AS (upper(must)) STORED,
  auto int GENERATED ALWAYS AS IDENTITY, key int UNIQUE, seen text,
  parent int REFERENCES t (id)
);
CREATE TABLE child (k int REFERENCES t (key));
CREATE VIEW v AS SELECT seen FROM t;
CREATE TABLE parted (id int, name text, part int) PARTITION BY LIST (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1)
  PARTITION BY LIST (lower(name));
CREATE TABLE parted_1_a (part int, name text, id int);
ALTER TABLE parted_1 ATTACH PARTITION parted_1_a FOR VALUES IN ('a');
CREATE VIEW of_leaf AS SELECT part FROM parted_1_a;
CREATE FOREIGN DATA WRAPPER w;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER w;
CREATE TABLE spread (id int, name text) PARTITION BY LIST (id);
CREATE FOREIGN TABLE far PARTITION OF spread FOR VALUES IN (1) SERVER elsewhere;
CREATE TABLE heir (extra int) INHERITS (child);
"""


def catalogue(sql: psycopg.Connection) -> list[tuple[Any, ...]]:
    """Return what a change could leave behind, outside of the ledger."""
    return sql.execute(
        "SELECT c.relname, c.relkind::text, a.attname, a.attnotnull"
        " FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid"
        "  AND a.attnum > 0 AND NOT a.attisdropped"
        " WHERE c.relnamespace = 'public'::regnamespace"
        " UNION ALL SELECT tgname, 'trigger', NULL, NULL FROM pg_trigger"
        "  WHERE NOT tgisinternal AND tgname <> 'append_only'"
        " UNION ALL SELECT conname, 'constraint', NULL, NULL FROM pg_constraint"
        "  WHERE connamespace = 'public'::regnamespace"
        " UNION ALL SELECT proname, 'function', NULL, NULL FROM pg_proc"
        "  WHERE proname LIKE 'mirror%' ORDER BY 1, 2, 3"
    ).fetchall()


@contextmanager
def refused(sql: psycopg.Connection, words: str) -> Iterator[None]:
    """Expect an error with these words, and nothing changed."""
    before = catalogue(sql)
    with pytest.raises(Refused) as caught:
        yield
    assert words in str(caught.value)
    assert catalogue(sql) == before


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (RenameColumn("nope", "a", "b"), 'There is no table "nope" in the search path'),
        (RenameColumn("t", "name", "x", schema="no"), 'no table "t" in schema "no"'),
        (RenameColumn("public.t", "name", "x"), '("t", schema="public")'),
        (RenameColumn("t", "nope", "x"), 'has no column "nope"'),
        (RenameColumn("t", "name", "taken"), 'has a column "taken" already'),
        (RenameColumn("t", "name", "name"), 'has a column "name" already'),
        (RenameColumn("t", "name", "é" * 32), "64 bytes"),
        (RenameColumn("t", "name", "a\0b"), "NUL"),
        (RenameColumn("t", "name", ""), "is empty"),
        (RenameColumn("t", "made", "x"), "is generated"),
        (ChangeColumnType("t", "auto", "int", "x"), "is an identity column"),
        (ChangeColumnType("t", "parent", "text", "x"), "refuses foreign key"),
        (RenameColumn("child", "k", "x"), "inheritance"),
        (ChangeColumnType("t", "key", "int", "x"), "takes part in foreign key"),
        (DropColumn("t", "seen"), "view v"),
        (RenameColumn("parted", "id", "x"), 'Column "id" is in the partition key'),
        (RenameColumn("parted", "name", "x"), 'Column "name" is in the partition key'),
        (DropColumn("parted", "part"), "view of_leaf"),
        (
            SplitColumn("parted", "id", into={"x": ("text", "id::text")}, back="1"),
            'Column "id" is in the partition key',
        ),
        (SetNotNull("parted", "name", fill="'x'"), '"name" is in the partition key'),
        (RenameColumn("parted_1_a", "part", "x"), 'name the parent: "parted", schema='),
        (RenameColumn("parted_1", "part", "x"), 'name the parent: "parted", schema='),
        (AddColumn("spread", "x", "text"), 'Partition "public"."far" of table'),
        (RenameColumn("spread", "name", "x"), "is a foreign table"),
        (RenameColumn("heir", "k", "x"), "inheritance"),
        (RenameColumn("v", "seen", "x"), "is not a table"),
        (AddColumn("t", "name", "text"), 'has a column "name" already'),
        (AddColumn("t", "x", "float8", default="random("), "syntax error"),
        (AddColumn("t", "x", "int", not_null=True), "keeps rows from being NULL"),
        (AddColumn("t", "x", "nope"), 'type "nope" does not exist'),
        (AddColumn("t", "x", "text", computed="nope"), 'column "nope" does not'),
        (AddColumn("t", "x", "text", computed="1 +"), "syntax error"),
        (SetNotNull("t", "must"), "is NOT NULL already"),
        (RenameColumn("t", "name", "n2", indexes={"no": "x"}), 'has no index "no"'),
        (RenameColumn("t", "name", "n2", indexes={"t_pkey": "t"}), '"t" is taken'),
        (SetNotNull("t", "name", fill="nope()"), "function nope() does not exist"),
        (CreateIndex("t", ["nope"], "i"), 'has no column "nope"'),
        (CreateIndex("t", ["name"], "t"), 'has a relation "t" already'),
    ],
    ids=repr,
)
def test_input_is_refused(
    runner: Runner, sql: psycopg.Connection, pattern: Pattern, words: str
) -> None:
    """What cannot work is refused by the plan and by expand alike."""
    sql.execute(SETUP.encode())
    change = Change(revision="a1", pattern=pattern)
    with refused(sql, words):
        runner.plan(change)
    with refused(sql, words):
        runner.expand(change)


def test_a_constant_default_may_be_now(runner: Runner, sql: psycopg.Connection) -> None:
    """The time of the statement is stored once for all rows."""
    sql.execute("CREATE TABLE t (id int); INSERT INTO t VALUES (1)")
    pattern = AddColumn("t", "at", "timestamptz", default="now()")
    assert runner.expand(Change(revision="a1", pattern=pattern)) is State.VERIFIED


@pytest.mark.parametrize(
    "kind", ["positive", "chance", "plain", "int UNIQUE", "int NOT NULL"]
)
def test_a_type_that_would_scan_or_rewrite(
    runner: Runner, sql: psycopg.Connection, kind: str
) -> None:
    """A constraint reads all rows; a domain's default passes for a value given."""
    sql.execute(
        "CREATE DOMAIN positive AS int CHECK (value > 0);"
        "CREATE DOMAIN chance AS float8 DEFAULT random();"
        "CREATE DOMAIN plain AS text DEFAULT 'd';"
        "CREATE TABLE t (id int); INSERT INTO t VALUES (1)"
    )
    change = Change(revision="a1", pattern=AddColumn("t", "x", kind))
    with refused(sql, ""):
        runner.expand(change)


def test_a_unique_column_needs_a_word(runner: Runner, sql: psycopg.Connection) -> None:
    """Without one it is refused, with one it goes on."""
    sql.execute("CREATE TABLE t (a int UNIQUE)")
    with refused(sql, "assured="):
        runner.expand(Change(revision="a1", pattern=RenameColumn("t", "a", "b")))
    sure = RenameColumn("t", "a", "b", assured="no ON CONFLICT")
    assert runner.expand(Change(revision="a1", pattern=sure)) is State.EXPANDED


def test_an_edit_in_flight_is_refused(runner: Runner, sql: psycopg.Connection) -> None:
    """The ledger holds what runs; an edited pattern is another change."""
    sql.execute("CREATE TABLE t (a int)")
    runner.expand(Change(revision="a1", pattern=RenameColumn("t", "a", "b")))
    with refused(sql, "was edited while it is expanded"):
        runner.expand(Change(revision="a1", pattern=RenameColumn("t", "a", "c")))
    with refused(sql, "was edited while it is expanded"):
        runner.plan(Change(revision="a1", pattern=RenameColumn("t", "a", "c")))


def test_an_overlap_is_held(runner: Runner, sql: psycopg.Connection) -> None:
    """The message names the other change."""
    sql.execute("CREATE TABLE t (a int)")
    runner.expand(Change(revision="a1", pattern=RenameColumn("t", "a", "b")))
    with pytest.raises(Held, match=r"a1 .*; that one is expanded"):
        runner.expand(Change(revision="b2", pattern=SetNotNull("t", "a")))


@pytest.mark.parametrize(
    ("grants", "words"),
    [
        ("GRANT ALL ON t TO {0}", "does not own table"),
        ("ALTER TABLE t OWNER TO {0}", "which this role may not create"),
        (
            "ALTER TABLE t OWNER TO {0}; ALTER TABLE t ENABLE ROW LEVEL SECURITY;"
            "ALTER TABLE t FORCE ROW LEVEL SECURITY;"
            "DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO {0}',"
            " current_database()); END $$",
            "Row-level security applies",
        ),
    ],
)
def test_a_role_without_the_privilege(
    database: str, sql: psycopg.Connection, grants: str, words: str
) -> None:
    """The role needs to own the table, see all rows and make the ledger."""
    row = sql.execute("SELECT 'role_' || current_database()").fetchone()
    assert row is not None
    sql.execute(f"CREATE TABLE t (a int); CREATE ROLE {row[0]} LOGIN".encode())
    try:
        sql.execute(grants.format(row[0]).encode())
        target = Target({**Target.from_url(database).params, "user": row[0]})
        runner = Runner(target, Settings())
        with refused(sql, words):
            change = Change(revision="a1", pattern=RenameColumn("t", "a", "b"))
            if "own table" in words:
                runner.plan(change)
            runner.expand(change)
    finally:
        sql.execute(f"DROP OWNED BY {row[0]}; DROP ROLE {row[0]}".encode())


@pytest.mark.parametrize(
    "name", ['a "b"', "50%", "%s", ":x", "größe", "select", "Old", "a'b", "$1"]
)
def test_hostile_names_have_a_full_life(
    runner: Runner, sql: psycopg.Connection, name: str
) -> None:
    """A rename and a computed column work whatever the names, without a key."""
    table, old = Identifier(name), Identifier(f"{name} old")
    new, made = Identifier(f"{name} new"), Identifier(f"{name} made")
    sql.execute(SQL("CREATE TABLE {} ({} text)").format(table, old))
    sql.execute(SQL("INSERT INTO {} VALUES ('a')").format(table))
    rename = RenameColumn(name, f"{name} old", f"{name} new")
    expression = SQL("upper({})").format(new).as_string(sql)
    add = AddColumn(name, f"{name} made", "text", computed=expression)
    for revision, pattern in (("a1", rename), ("b2", add)):
        change = Change(revision=revision, pattern=pattern)
        runner.expand(change)
        runner.rollback(revision)
        runner.expand(change)
        runner.backfill(revision)
        runner.verify(revision)
        runner.retire(revision, old_release_gone="test")
        runner.rollback(revision)
        runner.retire(revision, old_release_gone="test")
        runner.drop(revision)
    read = SQL("SELECT {}, {} FROM {}").format(new, made, table)
    assert sql.execute(read).fetchall() == [("a", "A")]


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:hunter2@localhost/d",
        "hunter2",
        "postgresql://u:hunter2@[::1/d",
        "postgresql://u:hunter2@127.0.0.1:1/d",
    ],
)
def test_a_wrong_url_does_not_show_its_password(url: str) -> None:
    """The message helps without the secret."""
    with pytest.raises(Refused) as caught:
        Runner(Target.from_url(url), Settings()).changes()
    assert "hunter2" not in str(caught.value) + repr(caught.value)
    assert caught.value.next


def test_a_read_only_server(runner: Runner, sql: psycopg.Connection) -> None:
    """A database that takes no writes is refused before anything is tried."""
    sql.execute("CREATE TABLE t (a int)")
    row = sql.execute("SELECT current_database()").fetchone()
    assert row is not None
    sql.execute(
        f"ALTER DATABASE {row[0]} SET default_transaction_read_only = on".encode()
    )
    with refused(sql, "The server takes no writes"):
        runner.expand(Change(revision="a1", pattern=RenameColumn("t", "a", "b")))
    with refused(sql, "Nothing can be tried out here"):
        runner.plan(Change(revision="a1", pattern=AddCheck("t", "c", "a > 0")))


def test_an_event_trigger_that_refuses(runner: Runner, sql: psycopg.Connection) -> None:
    """Its words may hold anything; where they are, and what it was on, is told."""
    sql.execute("CREATE TABLE t (a int CONSTRAINT c CHECK (a > 0))")
    change = Change(revision="a1", pattern=DropConstraint("t", "c"))
    runner.expand(change)
    sql.execute(
        "CREATE FUNCTION no() RETURNS event_trigger LANGUAGE plpgsql"
        " AS 'BEGIN RAISE ''hidden''; END';"
        "CREATE EVENT TRIGGER no ON sql_drop EXECUTE FUNCTION no()"
    )
    with pytest.raises(Failed, match="event trigger's; the server's log") as caught:
        runner.retire("a1", old_release_gone="test")
    assert 'Step \'drop_constraint\' on table "public"."t"' in str(caught.value)
    assert "hidden" not in str(caught.value)
    sql.execute("DROP EVENT TRIGGER no")
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED


def test_backslashes_that_are_none(runner: Runner, sql: psycopg.Connection) -> None:
    """A database whose strings are read as they once were changes no text of ours."""
    sql.execute("CREATE TABLE t (a int)")
    name = sql.info.dbname
    sql.execute(f"ALTER DATABASE {name} SET standard_conforming_strings = off".encode())
    pattern = AddCheck("t", "c", "a::text <> E'\\\\'")
    assert runner.complete(Change(revision="a1", pattern=pattern)).rank > 0
    sql.execute("INSERT INTO t VALUES (1)")


def test_a_server_that_is_too_old(
    runner: Runner, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names both versions."""
    monkeypatch.setattr(connection, "OLDEST_SERVER", 990000)
    with refused(sql, "the oldest that is supported is 99"):
        runner.changes()


def test_a_temporary_table(runner: Runner, sql: psycopg.Connection) -> None:
    """Another session's temporary table is not touched."""
    sql.execute("CREATE TEMP TABLE t (a int)")
    row = sql.execute("SELECT pg_my_temp_schema()::regnamespace::text").fetchone()
    assert row is not None
    pattern = RenameColumn("t", "a", "b", schema=row[0])
    with refused(sql, "is temporary"):
        runner.plan(Change(revision="a1", pattern=pattern))


def test_a_table_of_a_type(runner: Runner, sql: psycopg.Connection) -> None:
    """What the server refuses of it in the midst is refused before; the rest goes."""
    sql.execute(
        "CREATE TYPE kind AS (id int, name varchar(5));"
        "CREATE TABLE t OF kind (PRIMARY KEY (id))"
    )
    for pattern in (
        AddColumn("t", "n", "int", assured="tried"),
        ChangeColumnType("t", "name", "varchar(9)", assured="tried"),
        DropColumn("t", "name", assured="tried"),
        RebuildTable("t", assured="tried"),
        RenameColumn("t", "name", "called", assured="tried"),
    ):
        with refused(sql, "is one of type kind, whose columns it has"):
            runner.expand(Change(revision="a1", pattern=pattern))
    pattern = CreateIndex("t", ["name"], "named", assured="tried")
    assert runner.expand(Change(revision="a1", pattern=pattern)) is State.VERIFIED


def test_a_function_that_who_writes_may_not_call(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """What would fail each write of an application's role is found before."""
    role = f"app_of_{sql.info.dbname}"
    sql.execute(
        f"CREATE ROLE {role}; CREATE TABLE t (id int PRIMARY KEY, name text); CREATE"
        f" SCHEMA util; GRANT INSERT, UPDATE (name) ON t TO {role};"
        "CREATE FUNCTION util.f(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT"
        " upper($1)'; REVOKE ALL ON FUNCTION util.f FROM PUBLIC".encode()
    )
    fill = SetNotNull("t", "name", fill="util.f('x')", assured="tried")
    called = Key(expression="util.f(name)")
    execute = "EXECUTE ON FUNCTION util.f(text)"
    try:
        for pattern in (
            AddCheck("t", "loud", "util.f(name) = name", assured="tried"),
            AddColumn("t", "loud", "text", computed="util.f(name)", assured="tried"),
            AddExclusion("t", [(called, "=")], "loud", method="btree", assured="t"),
            ChangeColumnType(
                "t", "name", "varchar(9)", to="loud", up="util.f(name)", assured="tried"
            ),
            CreateIndex("t", [called], "loud", assured="tried"),
            SetDefault("t", "name", "util.f('x')", assured="tried"),
            fill,
        ):
            with refused(sql, f"and {role} has no {execute}"):
                runner.expand(Change(revision="a1", pattern=pattern))
        sql.execute(f"GRANT {execute} TO {role}".encode())
        # Only a trigger looks its functions up by their names.
        with refused(sql, f"GRANT USAGE ON SCHEMA util TO {role}."):
            runner.expand(Change(revision="a1", pattern=fill))
        pattern = CreateIndex("t", [called], "loud", assured="tried")
        assert runner.expand(Change(revision="a1", pattern=pattern)) is State.VERIFIED
        sql.execute(f"GRANT USAGE ON SCHEMA util TO {role}".encode())
        runner.expand(Change(revision="a2", pattern=fill))
        # A trigger's own function needs no privilege when it fires.
        sql.execute(
            "REVOKE ALL ON ALL FUNCTIONS IN SCHEMA migrator FROM PUBLIC;"
            f"SET ROLE {role}; INSERT INTO t (id) VALUES (1); RESET ROLE".encode()
        )
        assert sql.execute("SELECT name FROM t").fetchall() == [("X",)]
    finally:
        sql.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


def test_a_table_name_that_no_server_stores(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """A NUL in the table's name is refused like one in a column's."""
    with refused(sql, "NUL"):
        runner.plan(Change(revision="a1", pattern=RenameColumn("a\0b", "a", "b")))


def test_a_type_that_is_no_text_is_refused(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """What comes from a model is not what the ledger keeps; nothing is changed."""
    sql.execute("CREATE TABLE t (id int)")
    pattern = AddColumn("t", "n", BigInteger())  # type: ignore[arg-type]
    for what in (runner.plan, runner.expand):
        with pytest.raises(UsageError) as caught:
            what(Change(revision="a1", pattern=pattern))
        assert str(caught.value) == (
            "AddColumn: type is BigInteger(), which is neither text nor a number.\n"
            "Nothing was changed.\n"
            'Next: write types and expressions as SQL text: "bigint", not BigInteger().'
        )
    assert runner.changes() == []


def test_parameters_in_another_order_are_refused(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """A list in the place of a name is told, with where their order stands."""
    sql.execute("CREATE TABLE t (id int)")
    pattern = RenameColumn("t", ["id"], "key")  # type: ignore[arg-type]
    for what in (runner.plan, runner.expand):
        with pytest.raises(UsageError) as caught:
            what(Change(revision="a1", pattern=pattern))
        assert str(caught.value) == (
            "RenameColumn: column is ['id'], and has to be one text.\n"
            "Nothing was changed.\n"
            "Next: `migrator patterns RenameColumn` shows the parameters in their"
            " order, with an example."
        )
