"""MergeTables: its text, its life, what it keeps, and its messages."""

from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
import pytest
from locks import holding, taken
from tables import Between, Requests, backfill_behind, rows, texts_of, unique_index

from migrator.change import Change
from migrator.errors import Failed, LockBudgetError, MismatchError, Refused
from migrator.facts import (
    Column,
    Constraint,
    Facts,
    ForeignKey,
    Index,
    IndexColumn,
    Table,
    Trigger,
)
from migrator.ledger import installation
from migrator.ledger.control import Mode
from migrator.names import TableName
from migrator.patterns import MergeTables
from migrator.plan import Lock, State, Transaction
from migrator.postgres.connection import connect
from migrator.progress import Silent
from migrator.runner import Runner

ROWS = 3000
SETUP = (
    "CREATE TABLE users (id int PRIMARY KEY, name text);"
    "CREATE TABLE profiles (bio text, user_id int PRIMARY KEY REFERENCES users,"
    " hits int DEFAULT 7, extra json);"
    "COMMENT ON COLUMN profiles.bio IS 'about';"
    "CREATE INDEX profiles_bio ON profiles (bio);"
    f"INSERT INTO users SELECT g, 'n' || g FROM generate_series(1, {ROWS}) g;"
    "INSERT INTO profiles SELECT CASE WHEN g % 3 > 0 THEN 'b' || g END, g, g % 5,"
    f" '{{\"a\": 1}}' FROM generate_series(1, {ROWS}) g WHERE g % 10 > 0"
)
PATTERN = MergeTables(
    "profiles",
    "users",
    {"bio": "bio", "hits": "hits", "extra": "more"},
    key={"user_id": "id"},
    assured="no ON CONFLICT",
)
CHANGE = Change(revision="m", pattern=PATTERN)
OLD = "SELECT user_id, bio, hits, extra::text FROM profiles ORDER BY user_id"
NEW = (
    "SELECT id, bio, hits, more::text FROM users"
    " WHERE num_nonnulls(bio, hits, more) > 0 ORDER BY id"
)


def former(sql: psycopg.Connection) -> str:
    """Return the name of the table behind the view."""
    ((name,),) = rows(
        sql, "SELECT relname FROM pg_class WHERE relname LIKE '_migrator_retired%'"
    )
    return f'"{name}"'


# -- life ------------------------------------------------------------------------


def test_life_cycle(runner: Runner, sql: psycopg.Connection) -> None:
    """Both releases write throughout; the schema at the end is that of the model."""
    sql.execute(SETUP.encode())
    before = rows(sql, OLD)
    assert runner.expand(CHANGE) is State.EXPANDED
    sql.execute("INSERT INTO users VALUES (9001, 'old'), (9002, 'old')")
    sql.execute("INSERT INTO profiles VALUES ('x', 9001, 7), (NULL, 9002, NULL)")
    sql.execute("UPDATE profiles SET hits = hits + 7 WHERE user_id = 5")
    sql.execute("UPDATE profiles SET bio = NULL WHERE user_id = 7")
    sql.execute("DELETE FROM profiles WHERE user_id = 8")
    sql.execute("UPDATE profiles SET user_id = 10 WHERE user_id = 9")
    assert rows(sql, "SELECT bio, hits FROM users WHERE id = 10") == [(None, 4)]
    assert runner.backfill("m") is State.BACKFILLED
    assert rows(sql, NEW) == [r for r in rows(sql, OLD) if r[0] != 9002]
    sql.execute("DELETE FROM profiles WHERE user_id = 11")
    wanted = rows(sql, OLD)
    assert runner.verify("m") is State.VERIFIED
    assert rows(sql, OLD) == wanted
    assert rows(
        sql, "SELECT relkind::text FROM pg_class WHERE relname = 'profiles'"
    ) == [("v",)]
    # The old release.
    sql.execute("INSERT INTO users VALUES (9003, 'old')")
    assert rows(
        sql,
        "INSERT INTO profiles (user_id, bio) VALUES (9003, 'y') RETURNING bio, hits",
    ) == [("y", 7)]
    sql.execute("UPDATE profiles SET hits = hits + 1 WHERE user_id = 12")
    sql.execute("UPDATE profiles SET bio = 'was empty' WHERE user_id = 9002")
    sql.execute("INSERT INTO users VALUES (9006, 'old')")
    sql.execute("INSERT INTO profiles VALUES (NULL, 9006, NULL)")
    assert rows(sql, "SELECT hits FROM profiles WHERE user_id = 9006") == [(None,)]
    sql.execute("UPDATE profiles SET bio = 'was empty' WHERE user_id = 9006")
    sql.execute("DELETE FROM profiles WHERE user_id = 13")
    # The new one.
    sql.execute("INSERT INTO users (id, bio) VALUES (9004, 'new'), (9005, NULL)")
    sql.execute("UPDATE users SET bio = 'late' WHERE id = 20")
    sql.execute("DELETE FROM users WHERE id = 14")
    assert rows(sql, OLD) == rows(sql, NEW)
    assert rows(sql, OLD.replace("profiles", former(sql))) == rows(sql, NEW)
    assert runner.verify("m") is State.VERIFIED
    assert runner.retire("m", old_release_gone="test") is State.RETIRED
    sql.execute("UPDATE users SET bio = 'retired' WHERE id = 30")
    wanted = rows(sql, NEW)
    assert rows(sql, OLD.replace("profiles", former(sql))) == wanted
    assert runner.drop("m") is State.DROPPED
    assert rows(sql, NEW) == wanted
    assert len(before) > 0
    assert rows(
        sql,
        "SELECT attname::text, attnotnull, pg_get_expr(adbin, adrelid),"
        " col_description(attrelid, attnum) FROM pg_attribute LEFT JOIN pg_attrdef"
        " ON adrelid = attrelid AND adnum = attnum"
        " WHERE attrelid = 'users'::regclass AND attnum > 0 AND NOT attisdropped"
        " ORDER BY attnum",
    ) == [
        ("id", True, None, None),
        ("name", False, None, None),
        ("bio", False, None, "about"),
        ("hits", False, None, None),
        ("more", False, None, None),
    ]
    assert rows(
        sql,
        "SELECT indexrelid::regclass::text, indrelid::regclass::text FROM pg_index"
        " WHERE indexrelid = 'profiles_bio'::regclass",
    ) == [("profiles_bio", "users")]
    assert not rows(
        sql,
        "SELECT tgname FROM pg_trigger WHERE tgname LIKE '%migrator%' UNION ALL"
        " SELECT proname FROM pg_proc WHERE pronamespace = 'migrator'::regnamespace"
        " AND proname LIKE 'mirror%' UNION ALL SELECT relname FROM pg_class"
        " WHERE relname LIKE '\\_migrator%' OR relname = 'profiles'",
    )


def ready(runner: Runner, sql: psycopg.Connection, *more: str) -> None:
    """Bring a change as far as the new release may come in."""
    sql.execute(SETUP.encode())
    for statement in more:
        sql.execute(statement.encode())
    runner.expand(CHANGE)
    assert runner.settle("m") is State.VERIFIED


def shape(sql: psycopg.Connection) -> list[tuple[object, ...]]:
    """Return what is there of either table."""
    return rows(
        sql,
        "SELECT c.relname::text, c.relkind::text, a.attname::text,"
        " format_type(a.atttypid, a.atttypmod) FROM pg_class c JOIN pg_attribute a"
        " ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
        " WHERE c.relnamespace = 'public'::regnamespace"
        " UNION ALL SELECT conname, contype::text, pg_get_constraintdef(oid),"
        " convalidated::text FROM pg_constraint"
        " WHERE connamespace = 'public'::regnamespace"
        " UNION ALL SELECT tgname, tgenabled::text, tgrelid::regclass::text, ''"
        " FROM pg_trigger WHERE NOT tgisinternal UNION ALL SELECT proname, 'f', '', ''"
        " FROM pg_proc WHERE pronamespace = 'migrator'::regnamespace"
        " AND proname LIKE 'mirror%' ORDER BY 1, 2, 3",
    )


@pytest.mark.parametrize(
    "state", [State.EXPANDED, State.BACKFILLED, State.VERIFIED, State.RETIRED]
)
def test_the_way_back_loses_nothing(
    runner: Runner, sql: psycopg.Connection, state: State
) -> None:
    """From each state, with what either release wrote until then."""
    sql.execute(SETUP.encode())
    with connect(runner.target, "migrator:test") as conn:
        installation.install(conn)
    before = shape(sql)
    runner.expand(CHANGE)
    for wanted, go in (
        (State.BACKFILLED, lambda: runner.backfill("m")),
        (State.VERIFIED, lambda: runner.verify("m")),
        (State.RETIRED, lambda: runner.retire("m", old_release_gone="test")),
    ):
        if wanted.rank <= state.rank:
            go()
    if state.rank >= State.VERIFIED.rank:
        sql.execute("UPDATE users SET bio = 'new' WHERE id = 1")
        sql.execute("INSERT INTO users (id, bio) VALUES (9001, 'new')")
        sql.execute("DELETE FROM users WHERE id = 2")
    if state.rank <= State.VERIFIED.rank:
        sql.execute("UPDATE profiles SET bio = 'old' WHERE user_id = 3")
        sql.execute("DELETE FROM profiles WHERE user_id = 4")
    wanted = rows(sql, NEW if state is State.RETIRED else OLD)
    if state is State.RETIRED:
        assert runner.rollback("m") is State.VERIFIED
        assert rows(sql, OLD) == wanted
        sql.execute("UPDATE profiles SET bio = 'old' WHERE user_id = 3")
        wanted = rows(sql, OLD)
    assert runner.rollback("m", to=State.PLANNED) is State.PLANNED
    assert rows(sql, OLD) == wanted
    assert shape(sql) == before
    assert runner.expand(CHANGE) is State.EXPANDED
    assert runner.settle("m") is State.VERIFIED
    assert rows(sql, OLD) == wanted


def test_what_is_built_on_the_view_holds_what_takes_it_away(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """The message counts it; on it goes once that is gone."""
    ready(runner, sql)
    sql.execute("CREATE VIEW report AS SELECT bio FROM profiles")
    with pytest.raises(Refused, match="1 view depends on the view"):
        runner.retire("m", old_release_gone="test")
    with pytest.raises(Refused, match="1 view depends on the view"):
        runner.rollback("m", to=State.PLANNED)
    sql.execute("DROP VIEW report")
    assert runner.rollback("m", to=State.PLANNED) is State.PLANNED
    runner.expand(CHANGE)
    runner.settle("m")
    assert runner.retire("m", old_release_gone="test") is State.RETIRED


def test_the_name_is_free_once_it_is_retired(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Who takes it holds the way back."""
    ready(runner, sql)
    runner.retire("m", old_release_gone="test")
    sql.execute("CREATE TABLE profiles (id int)")
    with pytest.raises(Refused, match="was given to another relation"):
        runner.rollback("m")
    sql.execute("DROP TABLE profiles")
    assert runner.rollback("m") is State.VERIFIED


def test_complete_and_rebuild(runner: Runner, sql: psycopg.Connection) -> None:
    """Where no other release runs it goes through at once, and back."""
    sql.execute(SETUP.encode())
    before = rows(sql, OLD)
    assert runner.complete(CHANGE) is State.DROPPED
    assert rows(sql, NEW) == before
    runner.rebuild(CHANGE)
    assert rows(sql, OLD) == before
    assert rows(
        sql,
        "SELECT attname::text FROM pg_attribute WHERE attrelid = 'users'::regclass"
        " AND attnum > 0 AND NOT attisdropped",
    ) == [("id",), ("name",)]


# -- rows that are there, or not ---------------------------------------------------

EMPTY = "UPDATE profiles SET bio = NULL, hits = NULL, extra = NULL WHERE user_id = {}"


def test_a_row_of_nulls_stays_in_sight(runner: Runner, sql: psycopg.Connection) -> None:
    """Whichever release wrote it first, and whichever leaves nothing but NULLs."""
    ready(runner, sql)
    # Rows of the new release, of which the table had none.
    sql.execute("UPDATE users SET bio = 'new' WHERE id = 10")
    sql.execute("INSERT INTO users (id, hits) VALUES (9001, 1)")
    sql.execute(
        "INSERT INTO users (id) VALUES (20) ON CONFLICT (id) DO UPDATE SET bio = 'c'"
    )
    sql.execute("SET session_replication_role = replica")
    sql.execute("UPDATE users SET bio = 'replica' WHERE id = 30")
    sql.execute("RESET session_replication_role")
    sql.execute(
        b"CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN"
        b" new.bio := ''filled''; RETURN new; END';"
        b"CREATE TRIGGER z BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION fill();"
        b"INSERT INTO users VALUES (9002, 'new'); DROP TRIGGER z ON users"
    )
    for key in (10, 9001, 20, 30, 9002):
        assert sql.execute(EMPTY.format(key).encode()).rowcount == 1
        # As an application that keeps it in memory would go on.
        assert sql.execute(EMPTY.format(key).encode()).rowcount == 1
    # One that the new release empties, and one that comes and goes.
    sql.execute("UPDATE users SET bio = NULL, hits = NULL, more = NULL WHERE id = 1")
    with pytest.raises(psycopg.errors.UniqueViolation):
        sql.execute("INSERT INTO profiles VALUES ('taken', 1)")
    for key in (10, 2):
        sql.execute(f"DELETE FROM profiles WHERE user_id = {key}".encode())
        assert sql.execute(EMPTY.format(key).encode()).rowcount == 0
        sql.execute(f"INSERT INTO profiles VALUES (NULL, {key}, NULL)".encode())
        assert sql.execute(EMPTY.format(key).encode()).rowcount == 1
    sql.execute("UPDATE profiles SET hits = hits + 1, bio = 'old' WHERE user_id = 20")
    wanted = rows(sql, OLD)
    assert runner.verify("m") is State.VERIFIED
    assert not runner.mismatches("m")
    runner.retire("m", old_release_gone="test")
    sql.execute("UPDATE users SET bio = 'retired' WHERE id = 40")
    assert runner.rollback("m") is State.VERIFIED
    assert sql.execute(EMPTY.format(40).encode()).rowcount == 1
    assert runner.rollback("m", to=State.PLANNED) is State.PLANNED
    assert rows(sql, OLD) == sorted([*wanted, (40, None, None, None)])


NEEDED = (
    "CREATE TABLE users (id int PRIMARY KEY);"
    "CREATE TABLE profiles (user_id int PRIMARY KEY REFERENCES users ON DELETE CASCADE,"
    " email text NOT NULL, theme text NOT NULL DEFAULT 'dark', bio text);"
    "ALTER TABLE profiles ADD CONSTRAINT profiles_email UNIQUE (email);"
    "CREATE UNIQUE INDEX profiles_bio ON profiles (user_id, bio DESC);"
    "INSERT INTO users SELECT generate_series(1, 9);"
    "INSERT INTO profiles SELECT g, 'e' || g, 't', 'b' FROM generate_series(1, 7) g"
)
WHOLE = replace(CHANGE, pattern=replace(PATTERN, move=["email", "theme", "bio"]))


def test_a_row_is_there_where_it_has_what_it_must_have(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """A part of it is refused until retire, and counted on the way back from there."""
    sql.execute(NEEDED.encode())
    runner.expand(WHOLE)
    assert runner.settle("m") is State.VERIFIED
    count = "SELECT count(*) FROM profiles"
    assert rows(sql, count) == [(7,)]
    with pytest.raises(psycopg.errors.CheckViolation):
        sql.execute("UPDATE users SET bio = 'x' WHERE id = 8")
    sql.execute("UPDATE users SET email = 'e8', theme = 'x' WHERE id = 8")
    with pytest.raises(psycopg.errors.UniqueViolation):
        sql.execute("UPDATE users SET email = 'e8' WHERE id = 7")
    assert rows(sql, "INSERT INTO profiles VALUES (9, 'e9') RETURNING theme") == [
        ("dark",)
    ]
    with pytest.raises(psycopg.errors.CheckViolation):
        sql.execute("UPDATE profiles SET email = NULL WHERE user_id = 9")
    gone = "UPDATE profiles SET email = NULL, theme = NULL, bio = NULL"
    with pytest.raises(psycopg.errors.WithCheckOptionViolation):
        sql.execute(gone.encode())
    sql.execute("INSERT INTO users VALUES (10)")
    for values in ("(10)", "(10, NULL, NULL)", "(10, 'e', NULL)"):
        with pytest.raises(psycopg.errors.NotNullViolation, match='of relation "prof'):
            sql.execute(f"INSERT INTO profiles VALUES {values}".encode())
    assert rows(sql, count) == [(9,)]
    sql.execute("UPDATE users SET email = NULL, theme = NULL, bio = NULL WHERE id = 9")
    assert rows(sql, count) == [(8,)]
    runner.retire("m", old_release_gone="test")
    sql.execute("UPDATE users SET bio = 'part' WHERE id = 9")
    with pytest.raises(Refused, match="1 row has values in columns that"):
        runner.rollback("m")
    # The check is not there yet.
    sql.execute("UPDATE users SET bio = 'part' WHERE id = 9")
    sql.execute("UPDATE users SET email = 'e9', theme = 'y' WHERE id = 9")
    assert runner.rollback("m") is State.VERIFIED
    assert rows(sql, "SELECT bio FROM profiles WHERE user_id = 9") == [("part",)]
    runner.retire("m", old_release_gone="test")
    assert runner.drop("m") is State.DROPPED
    assert rows(
        sql,
        "SELECT indexrelid::regclass::text, indisunique FROM pg_index"
        " WHERE indrelid = 'users'::regclass ORDER BY 1",
    ) == [("profiles_bio", True), ("profiles_email", True), ("users_pkey", True)]
    assert rows(
        sql,
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conname = 'profiles_email'",
    ) == [("UNIQUE (email)",)]


def test_checks_and_foreign_keys_go_along(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """They hold for both releases from the exchange on, and are there at retire."""
    sql.execute(SETUP.encode())
    sql.execute(
        b"CREATE TABLE counts (hits int PRIMARY KEY);"
        b"INSERT INTO counts SELECT generate_series(0, 9);"
        b"ALTER TABLE profiles ADD CONSTRAINT known FOREIGN KEY (hits) REFERENCES"
        b" counts, ADD CONSTRAINT told CHECK (bio <> '')"
    )
    runner.expand(CHANGE)
    runner.settle("m")

    def holds() -> None:
        for statement, error in (
            ("UPDATE users SET bio = '' WHERE id = 1", psycopg.errors.CheckViolation),
            ("UPDATE users SET hits = 11", psycopg.errors.ForeignKeyViolation),
            ("DELETE FROM counts", psycopg.errors.ForeignKeyViolation),
        ):
            with pytest.raises(error):
                sql.execute(statement.encode())

    holds()
    with pytest.raises(psycopg.errors.CheckViolation):
        sql.execute("UPDATE profiles SET bio = '' WHERE user_id = 1")
    runner.retire("m", old_release_gone="test")
    assert runner.rollback("m") is State.VERIFIED
    runner.retire("m", old_release_gone="test")
    holds()
    runner.drop("m")
    holds()
    assert rows(
        sql,
        "SELECT conname::text, convalidated FROM pg_constraint"
        " WHERE conrelid = 'users'::regclass AND contype IN ('c', 'f') ORDER BY 1",
    ) == [("known", True), ("told", True)]


def test_message_about_a_check_that_refuses_nulls(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """The server is asked."""
    sql.execute(SETUP.encode())
    sql.execute("ALTER TABLE profiles ADD CONSTRAINT one CHECK (hits IS NOT NULL)")
    with pytest.raises(Refused, match=r'Constraint "one" of .* refuses NULLs'):
        runner.expand(CHANGE)


def test_a_value_that_goes_to_another_row_is_unique_all_the_while(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """While the row that had it is behind, the other table has it twice."""
    sql.execute(NEEDED.encode())
    runner.expand(WHOLE)
    runner.backfill("m")
    with psycopg.connect(database) as other:
        other.execute("SELECT FROM users WHERE id = 1 FOR UPDATE")
        sql.execute("UPDATE profiles SET email = 'other' WHERE user_id = 1")
        sql.execute("UPDATE profiles SET email = 'e1' WHERE user_id = 2")
    assert runner.verify("m") is State.VERIFIED
    assert rows(sql, "SELECT email FROM users WHERE id < 3 ORDER BY id") == [
        ("other",),
        ("e1",),
    ]
    assert rows(
        sql,
        "SELECT indisvalid FROM pg_index WHERE indrelid = 'users'::regclass"
        " AND NOT indisprimary",
    ) == [(True,), (True,)]


def test_a_key_of_two_columns(runner: Runner, sql: psycopg.Connection) -> None:
    """A row is found by both, whatever their order on either side."""
    sql.execute(
        b"CREATE TABLE users (a int, b text, PRIMARY KEY (a, b));"
        b"CREATE TABLE profiles (y text, bio text, x int, PRIMARY KEY (y, x),"
        b" FOREIGN KEY (x, y) REFERENCES users (a, b) ON UPDATE CASCADE);"
        b"INSERT INTO users SELECT g % 3, g::text FROM generate_series(1, 9) g;"
        b"INSERT INTO profiles SELECT b, 'b' || b, a FROM users"
    )
    pattern = replace(PATTERN, move=["bio"], key={"x": "a", "y": "b"})
    runner.expand(Change(revision="m", pattern=pattern))
    sql.execute("UPDATE users SET a = 5 WHERE b = '3'")
    assert runner.settle("m") is State.VERIFIED
    sql.execute("UPDATE users SET bio = 'u' WHERE b = '4'")
    sql.execute("UPDATE profiles SET bio = 'p' WHERE y = '5'")
    sql.execute("UPDATE users SET a = 7, bio = 'moved' WHERE b = '6'")
    assert rows(sql, "SELECT x, bio FROM profiles ORDER BY y LIMIT 6") == [
        (1, "b1"),
        (2, "b2"),
        (5, "b3"),
        (1, "u"),
        (2, "p"),
        (7, "moved"),
    ]
    runner.retire("m", old_release_gone="test")
    assert runner.drop("m") is State.DROPPED


def test_names_that_meet(runner: Runner, sql: psycopg.Connection) -> None:
    """Tables and columns of the same words: each statement reads the right one."""
    sql.execute(
        b'CREATE TABLE "bio" (id int PRIMARY KEY, "id:x" text);'
        b'CREATE TABLE "id" (id int PRIMARY KEY REFERENCES bio, bio text, "%s" text);'
        b"INSERT INTO bio SELECT g FROM generate_series(1, 9) g;"
        b"INSERT INTO id SELECT g, 'b' || g, 'x' FROM generate_series(1, 8) g"
    )
    pattern = MergeTables(
        "id", "bio", {"bio": "bio", "%s": 'q "x'}, key={"id": "id"}, assured="tried"
    )
    runner.expand(Change(revision="m", pattern=pattern))
    sql.execute("UPDATE id SET bio = 'u' WHERE id = 1")
    assert runner.settle("m") is State.VERIFIED
    sql.execute("UPDATE bio SET bio = 'p' WHERE id = 2")
    sql.execute("INSERT INTO id VALUES (9, 'nine', 'y')")
    runner.retire("m", old_release_gone="test")
    assert runner.drop("m") is State.DROPPED
    assert rows(sql, 'SELECT bio, "q ""x" FROM bio WHERE id IN (1, 2, 9)') == [
        ("u", "x"),
        ("p", "x"),
        ("nine", "y"),
    ]


# -- what requests meet --------------------------------------------------------------

# Requests of each kind in the test under load: far more than any rare error needs.
ENOUGH = 300
# How long a request of a release may wait that has nothing to wait for.
SOON = "2s"


def test_nobody_waits_for_a_row_of_the_other_table(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """It is noted, and brought up before the exchange, or under its lock."""
    sql.execute(SETUP.encode())
    runner.expand(CHANGE)
    runner.backfill("m")
    sql.execute(f"SET statement_timeout = '{SOON}'".encode())

    def met(key: int) -> None:
        with psycopg.connect(database) as other:
            other.execute(f"UPDATE users SET name = 'x' WHERE id = {key}".encode())
            sql.execute(f"UPDATE profiles SET bio = 'y' WHERE user_id = {key}".encode())
            sql.execute(f"DELETE FROM profiles WHERE user_id = {key + 1}".encode())
            other.execute(f"UPDATE users SET name = 'x' WHERE id = {key + 1}".encode())
            sql.execute(f"INSERT INTO profiles VALUES ('z', {key + 1}, 1)".encode())
            # As one of the old release would go on.
            other.execute(
                f"UPDATE profiles SET hits = 1 WHERE user_id = {key}".encode()
            )

    met(1)
    ((noted,),) = rows(
        sql,
        "SELECT relname FROM pg_class WHERE relname LIKE '\\_migrator\\_behind%'"
        " AND relkind = 'r'",
    )
    assert rows(sql, f'SELECT id FROM "{noted}" ORDER BY id') == [(1,), (2,)]
    runner.progress = Between(
        {"compare_values": lambda: met(21), "catch_up": lambda: met(31)}
    )
    assert runner.verify("m") is State.VERIFIED
    assert not runner.mismatches("m")
    assert rows(sql, NEW) == rows(sql, OLD)
    for key in (1, 21, 31):
        assert rows(sql, f"SELECT bio, hits FROM users WHERE id = {key}") == [("y", 1)]
        assert rows(sql, f"SELECT bio FROM users WHERE id = {key + 1}") == [("z",)]


def test_many_rows_that_are_behind_are_brought_up_in_chunks(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """TRUNCATE notes all: under the exchange's lock that would take too long."""
    sql.execute(SETUP.encode())
    runner.expand(CHANGE)
    runner.backfill("m")
    runner.progress = Between({"catch_up": lambda: sql.execute("TRUNCATE profiles")})
    with pytest.raises(
        Refused, match=r"2,700 rows of .* have to be brought up to what"
    ):
        runner.verify("m")
    assert runner.change("m").state is State.BACKFILLED
    assert runner.verify("m") is State.VERIFIED
    assert rows(sql, NEW) == []
    assert rows(sql, OLD) == []


def test_what_stays_out_of_step_is_not_exchanged(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """The table stays where it is, and what follows the comparison is left."""
    sql.execute(SETUP.encode())
    sql.execute(
        b"CREATE FUNCTION other() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN"
        b" new.bio = ''other''; RETURN new; END';"
    )
    runner.expand(CHANGE)
    sql.execute(
        b"CREATE TRIGGER a BEFORE UPDATE ON users FOR EACH ROW WHEN (new.id = 5)"
        b" EXECUTE FUNCTION other()"
    )
    runner.backfill("m")
    with pytest.raises(MismatchError, match="found 1 row of table"):
        runner.verify("m")
    assert runner.change("m").state is State.BACKFILLED
    assert rows(
        sql, "SELECT relkind::text FROM pg_class WHERE relname = 'profiles'"
    ) == [("r",)]
    sql.execute("DROP TRIGGER a ON users")
    runner.say("m", Mode.RUN, "the trigger is gone")
    assert runner.verify("m") is State.VERIFIED
    assert rows(sql, NEW) == rows(sql, OLD)


def test_an_exchange_that_got_no_lock_is_tried_again(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """By the same command, which compares again: a trigger may have been off."""
    sql.execute(SETUP.encode())
    runner.expand(CHANGE)
    runner.backfill("m")
    runner.settings = replace(runner.settings, step_budget_s=0.3)
    with holding(database, "profiles", "ROW SHARE"):
        with pytest.raises(LockBudgetError, match="exchange_for_view"):
            runner.verify("m")
        found = rows(sql, "SELECT tgname FROM pg_trigger WHERE tgname ~ '^zzz'")
        with sql.transaction():
            for verb in ("DISABLE", "ENABLE ALWAYS"):
                sql.execute("UPDATE profiles SET bio = bio || 'y' WHERE user_id = 1")
                for (name,) in found:
                    change = f'ALTER TABLE profiles {verb} TRIGGER "{name}"'
                    sql.execute(change.encode())
    assert runner.verify("m") is State.VERIFIED
    assert rows(sql, "SELECT bio FROM users WHERE id = 1") == [("b1yy",)]


@pytest.mark.parametrize(
    "step",
    ["copy_values", "compare_values", "catch_up", "exchange_for_view", "copy_index_1"],
)
def test_a_run_that_ends_behind_a_step_goes_on(
    runner: Runner, sql: psycopg.Connection, step: str
) -> None:
    """Forward, and back from there."""
    for goal in (State.PLANNED, State.VERIFIED):
        if goal is State.PLANNED:
            sql.execute(NEEDED.encode())
        runner.expand(WHOLE)

        def end() -> None:
            raise KeyboardInterrupt

        runner.progress = Between({step: end})
        with pytest.raises(KeyboardInterrupt):
            runner.settle("m")
        sql.execute("UPDATE profiles SET bio = bio || 'x' WHERE user_id = 1")
        sql.execute("DELETE FROM profiles WHERE user_id = 2")
        sql.execute("INSERT INTO profiles VALUES (2, 'e2', 't')")
        if goal is State.PLANNED:
            assert runner.rollback("m") is goal
        else:
            assert runner.settle("m") is goal
        assert rows(sql, "SELECT * FROM profiles WHERE user_id < 3 ORDER BY 1") == [
            (1, "e1", "t", "bx" if goal is State.PLANNED else "bxx"),
            (2, "e2", "t", None),
        ]
    assert rows(sql, "SELECT bio FROM users WHERE id < 3 ORDER BY id") == [
        ("bxx",),
        (None,),
    ]
    assert runner.rollback("m") is State.PLANNED


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE users SET id = id + 100000 WHERE id % 10 = 0",
        "UPDATE profiles SET bio = 'x', hits = hits + 1",
        "UPDATE profiles SET extra = '{\"a\":1}' WHERE user_id < 9",
        "UPDATE profiles SET user_id = user_id + 1 WHERE user_id % 10 = 9",
        "DELETE FROM profiles WHERE user_id > 2990",
        "WITH gone AS (DELETE FROM profiles WHERE user_id = 1 RETURNING *)"
        " INSERT INTO profiles SELECT 'again', 10, 3, extra FROM gone"
        " ON CONFLICT DO NOTHING",
        "INSERT INTO profiles VALUES ('x', 1, 1), ('y', 10, 1)"
        " ON CONFLICT (user_id) DO UPDATE SET bio = EXCLUDED.bio",
        "MERGE INTO profiles p USING (VALUES (1), (10)) v (id) ON p.user_id = v.id"
        " WHEN MATCHED THEN DELETE"
        " WHEN NOT MATCHED THEN INSERT VALUES ('m', v.id, 1)",
        "WITH a AS (UPDATE users SET name = 'a' WHERE id = 1)"
        " UPDATE profiles SET bio = 'a' WHERE user_id = 1",
        "TRUNCATE profiles",
        "DELETE FROM profiles WHERE user_id = 1; DELETE FROM users WHERE id = 1",
    ],
)
def test_whatever_statement_writes_the_columns_follow(
    runner: Runner, sql: psycopg.Connection, statement: str
) -> None:
    """Before the exchange; of rows whose keys change, vanish and come back too."""
    sql.execute(SETUP.encode())
    runner.expand(CHANGE)
    runner.backfill("m")
    sql.execute(statement.encode())
    if statement != "TRUNCATE profiles":
        assert rows(sql, NEW) == rows(sql, OLD)
    sql.execute("SET session_replication_role = replica")
    sql.execute("UPDATE profiles SET bio = 'replica' WHERE user_id < 100")
    if statement != "TRUNCATE profiles":
        assert rows(sql, NEW) == rows(sql, OLD)
    assert runner.verify("m") is State.VERIFIED
    assert rows(sql, NEW) == rows(sql, OLD)


def test_a_row_that_a_trigger_of_the_application_updates_again(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """The last event in line is not of the last state."""
    sql.execute(SETUP.encode())
    runner.expand(CHANGE)
    runner.backfill("m")
    sql.execute(
        b"CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN"
        b" UPDATE profiles SET hits = hits + 100 WHERE user_id = new.user_id;"
        b" RETURN NULL; END';"
        b"CREATE TRIGGER a_touch AFTER UPDATE OF bio ON profiles FOR EACH ROW"
        b" EXECUTE FUNCTION touch()"
    )
    sql.execute("UPDATE profiles SET bio = 'y' WHERE user_id = 5")
    assert rows(sql, "SELECT bio, hits FROM users WHERE id = 5") == [("y", 100)]


# In the last block, so that no later chunk meets the row's new version.
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE profiles SET bio = 'newer' WHERE user_id = 2999",
        "DELETE FROM profiles WHERE user_id = 2999",
        "UPDATE profiles SET user_id = 3000 WHERE user_id = 2999",
        "INSERT INTO profiles VALUES ('came', 3000, 1)",
        "UPDATE users SET name = 'x' WHERE id = 2999",
    ],
)
def test_the_copy_waits_for_who_writes_the_row(
    runner: Runner, sql: psycopg.Connection, database: str, statement: str
) -> None:
    """And then writes what the table holds by then, not what its snapshot has."""
    sql.execute(SETUP.encode())
    # A row that is there for the copy, and one for which it has nothing.
    sql.execute("DELETE FROM users WHERE id > 3000")
    runner.expand(CHANGE)
    meets = "3000, 1" not in statement
    backfill_behind(runner, database, "m", statement, meets=meets)
    assert rows(sql, NEW) == rows(sql, OLD)


@pytest.mark.parametrize("turned", [False, True])
def test_many_requests_on_a_few_rows(
    runner: Runner, sql: psycopg.Connection, database: str, *, turned: bool
) -> None:
    """None is refused, in whichever order a release writes; each addition counts."""
    sql.execute(SETUP.encode())
    sql.execute("UPDATE profiles SET hits = 0 WHERE user_id < 4")
    one, other = (
        "UPDATE profiles SET hits = hits + 1 WHERE user_id = {0}",
        "UPDATE users SET name = '' WHERE id = {0}",
    )
    both = f"{one}; {other}" if turned else f"{other}; {one}"
    old = (one, both, both, other)
    new = ("UPDATE users SET hits = hits + 1, name = '' WHERE id = {0}",) * 2
    runner.expand(CHANGE)
    # Our own wait for a lock ends before a request looks for a deadlock, as it does
    # where servers have their usual second.
    requests = Requests(database, ENOUGH, deadlock_timeout="1s")
    try:
        requests.begin(*old)
        requests.meet()
        runner.settle("m")
        requests.begin(*new)
        requests.meet()
    finally:
        requests.end()
    assert not requests.failed
    ((total,),) = rows(sql, "SELECT sum(hits)::int FROM users WHERE id < 4")
    assert total == sum(requests.counted) - requests.counted[3]
    assert rows(sql, OLD) == rows(sql, NEW)
    assert rows(sql, OLD.replace("profiles", former(sql))) == rows(sql, NEW)


# -- the view ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("INSERT INTO profiles VALUES ('x', 1)", psycopg.errors.UniqueViolation),
        ("INSERT INTO profiles VALUES ('x', -1)", psycopg.errors.ForeignKeyViolation),
        (
            "INSERT INTO profiles VALUES ('x', 1) ON CONFLICT (user_id) DO NOTHING",
            psycopg.Error,
        ),
        # It would change the key of the other table.
        ("UPDATE profiles SET user_id = 99999 WHERE user_id = 1", psycopg.Error),
        ("TRUNCATE profiles", psycopg.Error),
    ],
)
def test_the_view_refuses_what_the_table_would(
    runner: Runner,
    sql: psycopg.Connection,
    statement: str,
    error: type[psycopg.Error],
) -> None:
    """A key that is taken, a row that is not there; and what `plan` tells of."""
    ready(runner, sql)
    before = rows(sql, OLD)
    with pytest.raises(error):
        sql.execute(statement.encode())
    assert rows(sql, OLD) == before


def test_the_view_is_like_the_table(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """To statements that were prepared before, to COPY, and to a plan by its key."""
    with psycopg.connect(database, autocommit=True) as old:
        sql.execute(SETUP.encode())
        statements = {
            "SELECT * FROM profiles WHERE user_id = %s": 5,
            "UPDATE profiles SET hits = hits + 1 WHERE user_id = %s RETURNING *": 6,
            "DELETE FROM profiles WHERE user_id = %s": 7,
        }

        def run() -> list[object]:
            found: list[object] = []
            for statement, key in statements.items():
                done = old.execute(statement.encode(), (key,), prepare=True)
                found.append(done.fetchall() if done.description else done.rowcount)
            return found

        assert run()[2] == 1
        before = run()
        runner.expand(CHANGE)
        runner.settle("m")
        after = run()
        assert after[0] == before[0]
        assert after[2] == 0
        with old.cursor().copy("COPY profiles (user_id, bio) FROM STDIN") as copy:
            copy.write_row((7, "copied"))
            copy.write_row((10, "copied"))
        assert run()[2] == 1
    sql.execute("SET enable_seqscan = off")
    plan = rows(
        sql,
        "EXPLAIN (COSTS off) SELECT name FROM profiles JOIN users u ON u.id = user_id"
        " WHERE user_id = 3",
    )
    assert not any("Filter: (CASE" in str(line) for (line,) in plan)
    assert sum("Index Cond: (id = 3)" in str(line) for (line,) in plan) == 2


def test_whoever_may_use_the_table_may_use_the_view(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """And needs no rights on the other table; nobody else may."""
    sql.execute(SETUP.encode())
    role = f"owner_{sql.info.dbname}"
    sql.execute(f"CREATE ROLE {role}; CREATE ROLE {role}_app".encode())
    try:
        for statement in (
            f"GRANT ALL ON SCHEMA public TO {role}",
            f"ALTER TABLE users OWNER TO {role}",
            f"ALTER TABLE profiles OWNER TO {role}",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON profiles TO {role}_app",
        ):
            sql.execute(statement.encode())
        runner.expand(CHANGE)
        as_app = f"SET ROLE {role}_app"
        for go in (None, lambda: runner.settle("m")):
            if go is not None:
                go()
            sql.execute(as_app.encode())
            sql.execute("UPDATE profiles SET bio = bio || 'x' WHERE user_id = 1")
            sql.execute("DELETE FROM profiles WHERE user_id = 2")
            sql.execute("INSERT INTO profiles VALUES ('y', 2)")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                sql.execute("SELECT FROM users")
            sql.execute("RESET ROLE")
        assert rows(sql, "SELECT bio FROM users WHERE id < 3 ORDER BY id") == [
            ("b1xx",),
            ("y",),
        ]
        assert rows(sql, OLD.replace("profiles", former(sql))) == rows(sql, NEW)
        owners = (
            "SELECT DISTINCT pg_get_userbyid(relowner)::text FROM pg_class WHERE"
            " relnamespace = 'public'::regnamespace UNION"
            " SELECT pg_get_userbyid(proowner)::text FROM pg_proc WHERE prosecdef"
        )
        assert rows(sql, owners) == [(role,)]
        runner.rollback("m", to=State.PLANNED)
        assert rows(sql, owners) == [(role,)]
    finally:
        sql.execute(f"DROP OWNED BY {role}, {role}_app CASCADE".encode())
        sql.execute(f"DROP ROLE {role}, {role}_app".encode())


@pytest.mark.parametrize("event", ["_row", "_update", "_truncate"])
def test_nothing_is_exchanged_while_the_dual_write_is_off(
    runner: Runner, sql: psycopg.Connection, event: str
) -> None:
    """Each chunk asks for all triggers, and the exchange for what came since."""
    sql.execute(SETUP.encode())
    runner.expand(CHANGE)
    runner.backfill("m")
    ((trigger,),) = rows(
        sql, f"SELECT tgname FROM pg_trigger WHERE tgname LIKE 'zzz%{event}'"
    )
    off = f'ALTER TABLE profiles DISABLE TRIGGER "{trigger}"'.encode()
    runner.progress = Between({"catch_up": lambda: sql.execute(off)})
    with pytest.raises(Refused, match="may have missed writes"):
        runner.verify("m")
    with pytest.raises(Failed, match=r'on table "public"."profiles" is missing'):
        runner.verify("m")
    sql.execute(f'ALTER TABLE profiles ENABLE ALWAYS TRIGGER "{trigger}"'.encode())
    assert runner.verify("m") is State.VERIFIED


def test_rows_of_the_table_behind_the_view_are_repaired(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """After the exchange it is the one that follows."""
    ready(runner, sql)
    name = former(sql)
    sql.execute(f"UPDATE {name} SET bio = 'apart' WHERE user_id = 1".encode())
    sql.execute(f"DELETE FROM {name} WHERE user_id = 2".encode())
    assert runner.verify("m") is State.VERIFIED
    assert {m.key for m in runner.mismatches("m")} == {'{"id" : "1"}', '{"id" : "2"}'}
    assert rows(sql, OLD.replace("profiles", name)) == rows(sql, NEW)


# -- text, locks, messages -------------------------------------------------------------


@dataclass
class Tried(Silent):
    """Runs each transaction, or the way back from it, and takes that back at once."""

    sql: psycopg.Connection
    runner: Runner
    back: bool = False
    seen: list[str] = field(default_factory=list[str])

    def step(self, name: str, total: int | None, *, compares: bool = False) -> None:
        """Assert that tables are locked no more than it says."""
        (step,) = (s.step for s in self.runner.steps("m") if s.step.name == name)
        for action in step.reverse if self.back else (step.work,):
            if isinstance(action, Transaction):
                self.seen.append(name)
                assert action.table is not None
                claimed = {action.table: action.lock}
                claimed |= {a.table: a.lock for a in action.also}
                # A table may be renamed on the way.
                ours = {
                    TableName("public", str(table)): str(oid)
                    for table, oid in rows(
                        self.sql,
                        "SELECT relname, oid FROM pg_class WHERE relkind = 'r' AND"
                        " relnamespace = 'public'::regnamespace"
                        " AND relname NOT LIKE '\\_migrator\\_behind%'",
                    )
                }
                found = taken(self.sql, action, *ours.values())
                for table, oid in ours.items():
                    # Names are looked up; rows are not.
                    allowed = claimed.get(table, Lock.ACCESS_SHARE)
                    assert found[oid].rank <= allowed.rank


def test_locks_are_those_that_are_claimed(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Each step, and each way back, locks either table as its plan says, or less."""
    sql.execute(NEEDED.encode())
    there = runner.progress = Tried(sql, runner)
    runner.expand(WHOLE)
    runner.settle("m")
    runner.retire("m", old_release_gone="test")
    back = runner.progress = Tried(sql, runner, back=True)
    runner.rollback("m", to=State.PLANNED)
    assert there.seen == [
        "add_columns",
        "mirror_rows",
        "exchange_for_view",
        "drop_view",
        "lift_check",
    ]
    assert back.seen == ["drop_view", "exchange_for_view", "mirror_rows", "add_columns"]
    runner.progress = there
    there.seen.clear()
    runner.expand(WHOLE)
    runner.settle("m")
    runner.retire("m", old_release_gone="test")
    runner.drop("m")
    assert there.seen[-1] == "drop_table"


USERS, PROFILES = TableName("public", "users"), TableName("public", "profiles")


INTO = Table(
    name=USERS,
    oid=1,
    owner="boss",
    columns=(
        Column(name="id", type="bigint", not_null=True),
        Column(name="name", type="text"),
    ),
    indexes=(unique_index("users_pkey", "id"),),
)
OWNED = ForeignKey(
    name="owned", table=PROFILES, columns=("user_id",), to=USERS, to_columns=("id",)
)
TABLE = Table(
    name=PROFILES,
    oid=2,
    owner="boss",
    columns=(
        Column(name="user_id", type="bigint", not_null=True),
        Column(name="bio", type="text"),
    ),
    indexes=(
        unique_index("profiles_pkey", "user_id"),
        Index(name="upper_bio", method="btree", keys=(), plain=False, columns=("bio",)),
        Index(
            name="profiles_bio",
            method="btree",
            keys=(IndexColumn(name="bio"),),
            columns=("bio",),
        ),
    ),
    constraints=(
        Constraint(name="profiles_pkey", kind="p", columns=("user_id",)),
        Constraint(
            name="owned",
            kind="f",
            columns=("user_id",),
            references=USERS,
            definition="FOREIGN KEY (user_id) REFERENCES public.users(id)",
        ),
    ),
    foreign_keys=(OWNED,),
)
FACTS = Facts(
    server_version=180000,
    table=TABLE,
    others=(INTO,),
    tag="0123456789",
    relation_names=frozenset({"users", "profiles", "taken"}),
)
ONE = replace(PATTERN, move=["bio"])


def with_table(**given: Any) -> Facts:
    """Return the facts with another table."""
    return replace(FACTS, table=replace(TABLE, **given))


def with_column(**given: Any) -> Facts:
    """Return the facts with another `bio`."""
    bio = replace(TABLE.require("bio"), **given)
    return with_table(columns=(TABLE.columns[0], bio))


def with_constraint(**given: Any) -> Facts:
    """Return the facts with a constraint more, or another foreign key."""
    if "name" not in given:
        owned = replace(TABLE.constraints[1], **given)
        return with_table(constraints=(TABLE.constraints[0], owned))
    return with_table(constraints=(*TABLE.constraints, Constraint(**given)))


def test_text_with_hostile_names() -> None:
    """Every name is quoted, and a default stands as the catalogue spells it."""
    table, into = TableName('s "1', "t%s"), TableName('s "1', "n'")
    facts = replace(
        FACTS,
        table=replace(
            TABLE,
            name=table,
            columns=(
                Column(name='c "x', type="text", default="'a''b'::text"),
                Column(name=":k", type="bigint", not_null=True),
            ),
            indexes=(unique_index("p", ":k"),),
            constraints=(
                replace(TABLE.constraints[0], columns=(":k",)),
                replace(TABLE.constraints[1], name="f%k", columns=(":k",)),
            ),
            foreign_keys=(
                ForeignKey(
                    name="f%k",
                    table=table,
                    columns=(":k",),
                    to=into,
                    to_columns=("%i",),
                ),
            ),
        ),
        others=(
            replace(
                INTO,
                name=into,
                columns=(Column(name="%i", type="bigint", not_null=True),),
                indexes=(unique_index("i", "%i"),),
            ),
        ),
    )
    pattern = MergeTables(
        "t%s", "n'", {'c "x': "d'y"}, key={":k": "%i"}, assured="hostile"
    )
    pattern.check(facts)
    texts = texts_of(pattern, facts)
    assert (
        'CREATE VIEW "s ""1"."t%s" AS SELECT "d\'y" AS "c ""x", CASE WHEN true THEN'
        ' "%i" ELSE "%i" END AS ":k" FROM "s ""1"."n\'" WHERE ("n\'"."d\'y" IS'
        ' DISTINCT FROM NULL OR "n\'"."_migrator_row_t%s_0123456789" IS DISTINCT FROM'
        " NULL) WITH LOCAL CHECK OPTION"
    ) in texts
    assert (
        'CREATE TRIGGER "zzz_migrator_0123456789_present" BEFORE INSERT OR UPDATE ON'
        ' "s ""1"."n\'" FOR EACH ROW WHEN (new."_migrator_row_t%s_0123456789" IS NOT'
        ' DISTINCT FROM NULL AND (new."d\'y" IS DISTINCT FROM NULL)) EXECUTE FUNCTION'
        ' "migrator"."mirror_0123456789_present"()'
    ) in texts
    assert (
        'ALTER VIEW "s ""1"."t%s" ALTER COLUMN "c ""x" SET DEFAULT'
        " ('a''b'::text)::text"
    ) in texts
    assert (
        'ALTER TABLE "s ""1"."_migrator_retired_t%s_0123456789" ALTER CONSTRAINT "f%k"'
        " DEFERRABLE INITIALLY DEFERRED"
    ) in texts
    assert (
        'CREATE TABLE "s ""1"."_migrator_behind_t%s_0123456789" ("%i" bigint NOT NULL)'
    ) in [
        statement
        for step in pattern.expand(facts)
        for statement in getattr(step.work, "statements", ())
    ]


MESSAGES = [
    (FACTS, {"into": "profiles"}, "is named twice"),
    (FACTS, {"move": []}, "`move` must be a list of one column or more"),
    (FACTS, {"key": {}}, "`key` must be a list of one column or more"),
    (FACTS, {"key": {"bio": "id"}}, "are no unique key of NOT NULL columns"),
    (FACTS, {"move": ["bio", "nope"]}, 'has no column "nope"'),
    (FACTS, {"move": ["bio", "user_id"]}, "both goes and is in the key"),
    (FACTS, {"move": {"bio": "name"}}, 'has a column "name" already'),
    (
        with_table(columns=(*TABLE.columns, Column(name="born", type="date"))),
        {},
        'Column "born" of table "public"."profiles" is neither in `move` nor in `key`',
    ),
    (
        with_table(columns=(*TABLE.columns, Column(name="born", type="text"))),
        {"move": {"bio": "b", "born": "b"}},
        'two columns would be named "b"',
    ),
    (with_table(kind="p"), {}, "is partitioned"),
    (with_table(policies=True), {}, "row-level security"),
    (replace(FACTS, others=(replace(INTO, kind="p"),)), {}, "is partitioned"),
    (replace(FACTS, others=(replace(INTO, owner="x"),)), {}, "could not write the"),
    (with_table(foreign_keys=()), {}, "has no foreign key of (user_id) to (id)"),
    (
        replace(
            FACTS,
            others=(
                replace(INTO, columns=(replace(INTO.columns[0], type="integer"),)),
            ),
        ),
        {},
        'of type bigint, column "id" of table "public"."users" of type integer',
    ),
    (
        with_constraint(
            definition="FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE RESTRICT"
        ),
        {},
        'Foreign key "owned" of table "public"."profiles" says ON DELETE RESTRICT',
    ),
    (
        with_constraint(
            definition="FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE SET NULL"
        ),
        {},
        "says ON DELETE SET NULL",
    ),
    (
        with_constraint(
            name="profiles_bio", kind="u", columns=("bio",), deferrable=True
        ),
        {},
        'Constraint "profiles_bio" of table "public"."profiles" cannot go along',
    ),
    (
        with_table(
            indexes=(
                *TABLE.indexes,
                replace(
                    TABLE.indexes[2], name="u", unique=True, nulls_not_distinct=True
                ),
            )
        ),
        {},
        'Unique index "u" of table "public"."profiles" cannot go along',
    ),
    (
        with_constraint(name="c1", kind="c", columns=("bio",)),
        {"move": {"bio": "about"}},
        'Constraint "c1" of table "public"."profiles" cannot go along',
    ),
    (
        with_constraint(name="c1", kind="c", columns=("bio", "user_id")),
        {},
        'Constraint "c1" of table "public"."profiles" cannot go along',
    ),
    *(
        (
            with_constraint(
                name="c1",
                kind="f",
                columns=("bio",),
                definition=f"FOREIGN KEY (bio) REFERENCES public.b(b) {acts}",
            ),
            {},
            'Constraint "c1" of table "public"."profiles" cannot go along',
        )
        for acts in ("ON DELETE CASCADE", "ON DELETE SET NULL (bio)")
    ),
    (
        replace(
            with_constraint(name="c1", kind="c", columns=("bio",)),
            others=(replace(INTO, constraints=(Constraint(name="c1", kind="c"),)),),
        ),
        {},
        'Table "public"."users" has a constraint "c1" already',
    ),
    (
        with_table(
            foreign_keys=(
                OWNED,
                replace(
                    OWNED,
                    name="likes",
                    table=TableName("public", "likes"),
                    to=PROFILES,
                    to_columns=("user_id",),
                ),
            )
        ),
        {},
        'is referred to by foreign key "likes"',
    ),
    (with_column(generated=True), {}, "is generated"),
    (with_column(base="text", type="words"), {}, "is of domain words"),
    (with_column(dependents=("view v",)), {}, "used by view v"),
    (with_table(dependents=("view v",)), {}, "is used by view v"),
    (with_table(publications=("p",)), {}, "is used by publication p"),
    (
        with_table(triggers=(Trigger(name="t", before_row=True),)),
        {},
        'has a trigger "t", which a view would not fire',
    ),
    (
        with_table(
            indexes=(
                *TABLE.indexes,
                replace(TABLE.indexes[1], name="u", unique=True),
            )
        ),
        {},
        'Unique index "u" of table "public"."profiles" cannot go along',
    ),
    (FACTS, {"indexes": {"upper_bio": "x"}}, 'index "upper_bio" does not go along'),
    (FACTS, {"indexes": {"profiles_bio": "taken"}}, 'The name "taken" is taken'),
    (FACTS, {"assured": ""}, "INSERT … ON CONFLICT, MERGE"),
    (
        replace(
            FACTS,
            others=(
                replace(
                    INTO,
                    triggers=(Trigger(name="t", before_row=True, on_update=True),),
                ),
            ),
        ),
        {"assured": ""},
        'Trigger "t" fires for the rows that the backfill updates',
    ),
]


@pytest.mark.parametrize(("facts", "given", "message"), MESSAGES)
def test_message(facts: Facts, given: dict[str, Any], message: str) -> None:
    """What cannot work is refused before anything is changed."""
    if given.get("into") == "profiles":
        facts = replace(facts, others=(TABLE,))
    with pytest.raises(Refused) as caught:
        replace(ONE, **given).check(facts)
    assert message in str(caught.value)


def test_the_plan_counts_rows_that_are_none_afterwards(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Of a sample: those with nothing but NULLs, and no others."""
    sql.execute(SETUP.encode())

    def told() -> list[str]:
        texts = (n.text for n in runner.plan(CHANGE).notices)
        return [text for text in texts if "of a sample" in text]

    assert told() == []
    sql.execute(EMPTY.format("5 OR user_id = 6").encode())
    sql.execute("UPDATE profiles SET bio = NULL, hits = NULL WHERE user_id = 7")
    sql.execute("DELETE FROM profiles WHERE user_id > 9")
    (text,) = told()
    assert text.startswith('2 of 9 rows of a sample of "public"."profiles" hold noth')


def test_notices() -> None:
    """What has to be NOT NULL is named, and an index that cannot go along."""
    texts = [n.text for n in ONE.check(FACTS)]
    assert 'Index "upper_bio" goes with the table at the drop.' in texts
    assert not any("profiles_bio" in text for text in texts)
    assert any("had a value in one of the columns, or" in text for text in texts)
    assert not any("look different" in text for text in texts)
    (key, bio) = TABLE.columns
    cased = with_table(columns=(replace(key, image_equal=False), bio))
    assert any("look different" in n.text for n in ONE.check(cased))
    texts = [n.text for n in ONE.check(with_column(not_null=True))]
    assert any("where it has bio. Until retire" in text for text in texts)
