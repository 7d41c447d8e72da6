"""ChangePrimaryKey: its text, its life, its locks and its messages."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from locks import holding, taken

from migrator import execution as module
from migrator.change import Change
from migrator.errors import (
    Failed,
    Held,
    LockBudgetError,
    MigratorError,
    MismatchError,
    Refused,
)
from migrator.facts import (
    Column,
    Constraint,
    Facts,
    ForeignKey,
    Index,
    IndexColumn,
    Table,
)
from migrator.ledger.control import Mode
from migrator.names import TableName
from migrator.patterns import ChangePrimaryKey
from migrator.plan import Autocommit, Footprint, Lock, Phase, State, Transaction
from migrator.runner import Runner

PLAIN = ChangePrimaryKey("users", "id", assured="tried")
CHANGE = Change(revision="a1", pattern=PLAIN)

# What hangs on a key: itself, referring columns of all kinds, and what refers to them.
SHAPE = """
CREATE TABLE users (
  id {int} GENERATED ALWAYS AS IDENTITY (START WITH 7 CACHE 3) PRIMARY KEY,
  name text, boss {int} REFERENCES users ON DELETE SET NULL,
  CONSTRAINT other_one CHECK (boss <> id) NO INHERIT, UNIQUE (name, id));
COMMENT ON COLUMN users.id IS 'the one';
ALTER TABLE users ALTER id SET STATISTICS 77;
GRANT SELECT, USAGE ON SEQUENCE users_id_seq TO pg_monitor;
GRANT UPDATE ON SEQUENCE users_id_seq TO pg_read_all_data WITH GRANT OPTION;
CREATE TABLE orders (
  id serial PRIMARY KEY, no int,
  user_id {int} CONSTRAINT is_given NOT NULL DEFAULT 7
    CONSTRAINT ordered REFERENCES users ON DELETE CASCADE ON UPDATE CASCADE
    DEFERRABLE INITIALLY DEFERRED,
  UNIQUE (user_id, no) DEFERRABLE);
CREATE INDEX orders_even ON orders (user_id) WHERE no % 2 = 0;
CREATE UNIQUE INDEX orders_one ON orders (user_id) WHERE no = 0;
CREATE INDEX orders_next ON orders ((user_id + 1) DESC) WHERE user_id > 9 AND no > 0;
CREATE UNIQUE INDEX users_double ON users ((id * 2)) WHERE boss <> id;
ALTER INDEX users_double ALTER COLUMN 1 SET STATISTICS 78;
COMMENT ON INDEX orders_next IS 'what comes';
CREATE INDEX orders_hash ON orders USING hash (user_id);
CREATE INDEX orders_no ON orders (no DESC, user_id DESC NULLS LAST) INCLUDE (id)
  WITH (fillfactor = 70, deduplicate_items = off);
CREATE TABLE profiles (user_id {int} PRIMARY KEY REFERENCES users ON UPDATE CASCADE,
  at int DEFAULT 1);
ALTER TABLE profiles ADD CONSTRAINT late CHECK (user_id < 3000000000) NOT VALID;
CREATE TABLE pages (profile {int} REFERENCES profiles ON UPDATE CASCADE, n int,
  PRIMARY KEY (profile, n));
COMMENT ON CONSTRAINT users_pkey ON users IS 'all that it takes';
COMMENT ON CONSTRAINT ordered ON orders IS 'by whom';
COMMENT ON INDEX orders_even IS 'what is even';
CREATE SCHEMA other;
CREATE TABLE other.orders (user_id {int}, name text,
  FOREIGN KEY (name, user_id) REFERENCES users (name, id) MATCH FULL NOT VALID);
CREATE TABLE wide (user_id bigint REFERENCES users);
CREATE INDEX wide_user ON wide (user_id)
"""
INT, BIGINT = SHAPE.format(int="int"), SHAPE.format(int="bigint")
SERIAL = """
CREATE TABLE users (id {serial} PRIMARY KEY, org int);
CREATE TABLE orders (user_id {int} REFERENCES users)
"""
ROWS = """
INSERT INTO users (name) SELECT 'n' || g FROM generate_series(1, 300) g;
UPDATE users SET boss = 7 + id % 10;
INSERT INTO orders (user_id, no) SELECT 7 + g % 300, g FROM generate_series(1, 900) g;
INSERT INTO profiles SELECT id FROM users;
INSERT INTO pages SELECT user_id, n FROM profiles, generate_series(1, 2) n;
INSERT INTO other.orders SELECT id, name FROM users;
INSERT INTO wide SELECT id FROM users
"""


def shape(sql: psycopg.Connection) -> list[tuple[Any, ...]]:
    """Return all that the catalogue says of the tables but for columns' order."""
    with sql.transaction(force_rollback=True):
        sql.execute("SET LOCAL search_path = ''")
        return sql.execute(
            "WITH made AS (SELECT c.oid FROM pg_catalog.pg_class c"
            " WHERE relkind = 'r' AND relnamespace::regnamespace::text"
            " IN ('public', 'other'))"
            " SELECT 'c', attrelid::regclass::text, attname,"
            " format_type(atttypid, atttypmod), attnotnull::text, attidentity::text,"
            " pg_get_expr(adbin, adrelid), col_description(attrelid, attnum),"
            " NULLIF(attstattarget, -1)::text"
            " FROM pg_attribute LEFT JOIN pg_attrdef"
            " ON adrelid = attrelid AND adnum = attnum WHERE attrelid IN"
            " (SELECT oid FROM made) AND attnum > 0 AND NOT attisdropped"
            " UNION ALL SELECT 'i', indexrelid::regclass::text,"
            " pg_get_indexdef(indexrelid), indisvalid::text, indisprimary::text,"
            " indimmediate::text, obj_description(indexrelid, 'pg_class'), NULL,"
            " NULL"
            " FROM pg_index WHERE indrelid IN (SELECT oid FROM made)"
            " UNION ALL SELECT 'k', conrelid::regclass::text, conname,"
            " pg_get_constraintdef(oid), convalidated::text,"
            " conindid::regclass::text, obj_description(oid, 'pg_constraint'), NULL,"
            " NULL"
            " FROM pg_constraint WHERE conrelid IN (SELECT oid FROM made)"
            " UNION ALL SELECT 't', tgrelid::regclass::text, tgname, NULL, NULL, NULL,"
            " NULL, NULL, NULL FROM pg_trigger WHERE tgrelid IN (SELECT oid FROM made)"
            " AND NOT tgisinternal"
            " UNION ALL SELECT 's', seqrelid::regclass::text, seqtypid::regtype::text,"
            " concat_ws(' ', seqstart, seqincrement, seqmax, seqmin, seqcache,"
            " seqcycle), relacl::text, refobjid::regclass::text || '.'"
            " || attname || ' ' || deptype::text, NULL, NULL, NULL FROM pg_sequence"
            " JOIN pg_class c ON c.oid = seqrelid"
            " LEFT JOIN pg_depend ON classid = 'pg_class'::regclass"
            " AND objid = seqrelid AND deptype IN ('a', 'i') LEFT JOIN pg_attribute"
            " ON attrelid = refobjid AND attnum = refobjsubid"
            " WHERE relnamespace::regnamespace::text IN ('public', 'other')"
            " ORDER BY 1, 2, 3, 4"
        ).fetchall()


def gone(sql: psycopg.Connection) -> None:
    """Drop what was made."""
    sql.execute("DROP SCHEMA public CASCADE")
    sql.execute("CREATE SCHEMA public")
    sql.execute("DROP SCHEMA IF EXISTS other CASCADE")


def to(runner: Runner, state: State, change: Change = CHANGE) -> State:
    """Carry a change to a state."""
    steps = (
        lambda: runner.expand(change),
        lambda: runner.backfill(change.id),
        lambda: runner.verify(change.id),
        lambda: runner.retire(change.id, old_release_gone="test"),
        lambda: runner.drop(change.id),
    )
    for go in steps[: state.rank]:
        reached = go()
    return reached


def apart(sql: psycopg.Connection) -> int:
    """Return how many rows hold something else in a column than behind it."""
    pairs = sql.execute(
        "SELECT b.attrelid::regclass::text, quote_ident(a.attname),"
        " quote_ident(b.attname) FROM pg_attribute a JOIN pg_attribute b"
        " ON b.attrelid = a.attrelid AND b.attname ~ ('^_migrator_(shadow|retired)_'"
        " || a.attname || '_[0-9a-f]{10}$')"
        " WHERE NOT a.attisdropped AND NOT b.attisdropped AND b.attrelid IN"
        " (SELECT oid FROM pg_class WHERE relkind = 'r')"
    ).fetchall()
    assert pairs
    found = 0
    for table, column, behind in pairs:
        row = sql.execute(
            f"SELECT count(*) FROM {table} WHERE {column} IS DISTINCT FROM"
            f" {behind}".encode()
        ).fetchone()
        assert row is not None
        found += row[0]
    return found


# -- text --------------------------------------------------------------------


def test_text_with_hostile_names() -> None:
    """The exchange frees, renames and gives back, over both tables."""
    parent, child = TableName('my "sch', "u s%s"), TableName("b", "or:x")
    fk = ForeignKey(
        name="f k",
        table=child,
        columns=('of "u',),
        to=parent,
        to_columns=("i %d",),
    )
    index = Index(
        name="p k",
        method="btree",
        keys=(IndexColumn(name="i %d"),),
        unique=True,
        columns=("i %d",),
    )
    facts = Facts(
        server_version=180000,
        tag="0123456789",
        path=("a b",),
        table=Table(
            name=parent,
            oid=1,
            columns=(Column(name="i %d", type="integer", not_null=True),),
            indexes=(index,),
            constraints=(
                Constraint(name="p k", kind="p", columns=("i %d",), index="p k"),
            ),
            foreign_keys=(fk,),
        ),
        others=(
            Table(
                name=child,
                oid=2,
                columns=(Column(name='of "u', type="smallint", default="f(':x')"),),
                constraints=(Constraint(name="f k", kind="f", definition="FOREIGN …"),),
                foreign_keys=(fk,),
            ),
        ),
    )
    pattern = ChangePrimaryKey("u s%s", "i %d", to="int8", assured="tried")
    steps = {s.name: s for s in pattern.retire(facts)}
    assert list(steps) == [
        "index_marks",
        "add_check_1",
        "validate_check_1",
        'index_marks "b"."or:x"',
        "build_index_1",
        "exchange_columns",
        "validate_constraint_1",
    ]
    work = steps["exchange_columns"].work
    assert isinstance(work, Transaction)
    p, c = '"my ""sch"."u s%s"', '"b"."or:x"'
    fn = [s.split("(")[0] for s in work.statements if s.startswith("CREATE FUNCTION")]
    own, other = (name.removeprefix("CREATE FUNCTION ") for name in fn)
    assert own == '"migrator"."mirror_0123456789"'
    shown = [s for s in work.statements if "TRIGGER" not in s and "FUNCTION" not in s]
    assert shown == [
        f"LOCK TABLE {c}, {p} IN ACCESS EXCLUSIVE MODE",
        'SET LOCAL search_path = "pg_catalog", "a b"',
        f'ALTER TABLE {c} DROP CONSTRAINT "f k"',
        f'ALTER TABLE {p} DROP CONSTRAINT "p k"',
        f'ALTER TABLE {p} ALTER COLUMN "i %d" DROP NOT NULL',
        f'ALTER TABLE {c} ALTER COLUMN "of ""u" DROP DEFAULT',
        f'ALTER TABLE {p} RENAME COLUMN "i %d" TO "_migrator_retired_i %d_0123456789"',
        f'ALTER TABLE {p} RENAME COLUMN "_migrator_shadow_i %d_0123456789" TO "i %d"',
        f'ALTER TABLE {p} ALTER COLUMN "i %d" SET NOT NULL',
        f'ALTER TABLE {p} DROP CONSTRAINT "_migrator_check_i %d_0123456789"',
        f'ALTER TABLE {c} RENAME COLUMN "of ""u"'
        ' TO "_migrator_retired_of ""u_0123456789"',
        f'ALTER TABLE {c} RENAME COLUMN "_migrator_shadow_of ""u_0123456789"'
        ' TO "of ""u"',
        f'ALTER TABLE {c} ALTER COLUMN "of ""u" SET DEFAULT (f(\':x\'))',
        f'ALTER TABLE {p} ADD CONSTRAINT "p k" PRIMARY KEY USING INDEX'
        ' "_migrator_index_p k_0123456789"',
        f'ALTER TABLE {c} ADD CONSTRAINT "f k" FOREIGN … NOT VALID',
    ]
    (trigger,) = [
        s for s in work.statements if s.startswith(f"CREATE FUNCTION {other}")
    ]
    assert (
        'NEW."_migrator_retired_of ""u_0123456789" := CASE WHEN NEW."of ""u"'
        ' BETWEEN  -32768 AND 32767 THEN NEW."of ""u" END;' in trigger
    )
    assert pattern.footprints(facts) == (
        Footprint(table=parent, columns=frozenset({"i %d"})),
        Footprint(table=child, columns=frozenset({'of "u'})),
    )


# -- life cycle --------------------------------------------------------------


def test_the_schema_is_that_of_tables_made_with_bigint(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """All that hangs on the columns is there again, in both directions."""
    sql.execute(BIGINT.encode())
    wanted = shape(sql)
    gone(sql)
    sql.execute(f"{INT};{ROWS}".encode())
    before = shape(sql)
    assert to(runner, State.RETIRED) is State.RETIRED
    assert apart(sql) == 0
    assert runner.rollback("a1", to=State.PLANNED) is State.PLANNED
    assert shape(sql) == before
    assert to(runner, State.DROPPED) is State.DROPPED
    assert shape(sql) == wanted
    # The session that drew the last numbers kept two more for itself.
    insert = "INSERT INTO users (name) VALUES ('new') RETURNING id"
    assert sql.execute(insert.encode()).fetchone() == (307,)
    left = sql.execute(
        "SELECT count(*) FROM pg_proc WHERE pronamespace = 'migrator'::regnamespace"
        " AND proname LIKE 'mirror%'"
    ).fetchone()
    assert left == (0,)


@pytest.mark.parametrize(
    ("serial", "before"), [("serial", "integer"), ("smallserial", "smallint")]
)
def test_a_serial(
    serial: str, before: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """Its sequence becomes bigint and goes along, and comes back."""
    sql.execute(SERIAL.format(serial="bigserial", int="bigint").encode())
    wanted = shape(sql)
    gone(sql)
    sql.execute(SERIAL.format(serial=serial, int=before).encode())
    sql.execute("INSERT INTO users (org) SELECT generate_series(1, 100)")
    original = shape(sql)
    change = replace(CHANGE, pattern=replace(PLAIN, to="INT8"))
    to(runner, State.RETIRED, change)
    assert runner.rollback("a1", to=State.PLANNED) is State.PLANNED
    assert shape(sql) == original
    to(runner, State.DROPPED, change)
    assert shape(sql) == wanted
    insert = "INSERT INTO users (org) VALUES (1) RETURNING id"
    assert sql.execute(insert.encode()).fetchone() == (101,)
    sql.execute("SELECT setval('users_id_seq', 3000000000)")
    assert sql.execute(insert.encode()).fetchone() == (3000000001,)


def test_a_key_without_a_default(runner: Runner, sql: psycopg.Connection) -> None:
    """Smallint to integer; nothing refers to it."""
    sql.execute("CREATE TABLE users (id smallint PRIMARY KEY)")
    sql.execute("INSERT INTO users SELECT generate_series(1, 50)")
    change = replace(CHANGE, pattern=replace(PLAIN, to="integer"))
    assert to(runner, State.RETIRED, change) is State.RETIRED
    sql.execute("INSERT INTO users (id) VALUES (40000)")
    with pytest.raises(Refused, match=r"1 row holds .* smallint cannot hold"):
        runner.rollback("a1")


def test_complete_and_rebuild(runner: Runner, sql: psycopg.Connection) -> None:
    """Without another release all phases run, and a downgrade rewrites."""
    for text in (INT, SERIAL.format(serial="serial", int="int")):
        gone(sql)
        sql.execute(text.encode())
        before = shape(sql)
        change = replace(
            CHANGE,
            revision=f"c{len(text)}",
            pattern=replace(PLAIN, old_type="int"),
        )
        assert runner.complete(change) is State.DROPPED
        runner.rebuild(change)
        assert [r for r in shape(sql) if r not in before] == (
            # Was bigint before; nothing tells.
            [r for r in shape(sql) if r[1:3] == ("public.wide", "user_id")]
        )


def test_foreign_keys_act_in_their_order(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """A CASCADE goes on to come before a check of the same table by another name."""
    sql.execute(
        "CREATE TABLE users (id int PRIMARY KEY); CREATE TABLE orders (user_id int"
        " REFERENCES users ON DELETE CASCADE, by_id int REFERENCES users);"
        "INSERT INTO users VALUES (1), (2); INSERT INTO orders VALUES (1, 1)"
    )
    sql.execute("BEGIN; DELETE FROM users WHERE id = 1; ROLLBACK")
    runner.complete(CHANGE)
    sql.execute("DELETE FROM users WHERE id = 1")


# -- values that do not fit --------------------------------------------------


def test_values_that_do_not_fit_hold_the_way_back(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """They are stored after retire, counted by an index, and then there is a way."""
    sql.execute(f"{INT};{ROWS}".encode())
    to(runner, State.RETIRED)
    big = 2**31
    sql.execute(
        "INSERT INTO users (id, name) OVERRIDING SYSTEM VALUE"
        " VALUES (%s, 'big'), (%s, 'bigger')",
        [big, big + 1],
    )
    sql.execute("INSERT INTO orders (user_id) VALUES (%s)", [big])
    sql.execute("UPDATE users SET boss = %s WHERE id < 10", [big])
    names = sql.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'users'::regclass"
        " AND attname LIKE '%retired%' AND NOT attisdropped ORDER BY attname"
    ).fetchall()
    known = ", ".join(f'"{name}"' for (name,) in reversed(names))
    with pytest.raises(Refused) as caught:
        runner.rollback("a1")
    assert str(caught.value) == (
        'Step \'exchange_columns\' on table "public"."users" is refused: 5 rows'
        ' hold values in table "public"."users" that integer cannot hold.\n'
        "Nothing was changed.\n"
        f"Next: give these rows values that fit ({known} IS NULL finds them), then"
        " run it again; or keep the new type."
    )
    with sql.transaction(force_rollback=True):
        sql.execute("SET LOCAL enable_seqscan = off")
        plan = sql.execute(
            "EXPLAIN SELECT count(*) FROM users WHERE"
            f' "{names[1][0]}" IS NULL OR ("{names[0][0]}" IS NULL'
            " AND boss IS NOT NULL)".encode()
        ).fetchall()
    assert "_migrator_marks_users" in str(plan)
    sql.execute("UPDATE users SET boss = NULL WHERE id < 10")
    sql.execute("DELETE FROM users WHERE name = 'bigger'")
    with pytest.raises(Refused, match=r'1 row holds a value in table "public"."users"'):
        runner.rollback("a1")
    sql.execute("DELETE FROM users WHERE name = 'big'")
    sql.execute("SELECT setval('users_id_seq', %s)", [big])
    with pytest.raises(Refused, match=r"sequence .* has left what integer holds"):
        runner.rollback("a1")
    # Asked before the check that would refuse it to the release that goes on.
    sql.execute("INSERT INTO users (name) VALUES ('next')")
    assert runner.change("a1").going_back is None
    sql.execute("DELETE FROM users WHERE name = 'next'")
    sql.execute("SELECT setval('users_id_seq', 1000)")
    assert runner.rollback("a1") is State.VERIFIED
    assert apart(sql) == 0
    with pytest.raises(psycopg.errors.NumericValueOutOfRange):
        sql.execute("INSERT INTO orders (user_id) VALUES (%s::bigint)", [big])
    assert to(runner, State.DROPPED) is State.DROPPED


def test_a_value_that_comes_while_going_back(
    runner: Runner, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What passes by the foreign key is seen under the exchange's lock, and kept."""
    sql.execute(SERIAL.format(serial="serial", int="int").encode())
    to(runner, State.RETIRED)
    with cut_off(monkeypatch, after=3), pytest.raises(Failed, match="crashed"):
        runner.rollback("a1")
    sql.execute("SET session_replication_role = replica")
    sql.execute("INSERT INTO orders (user_id) VALUES (3000000000)")
    with pytest.raises(Refused, match=r'1 row holds .* table "public"."orders"'):
        runner.rollback("a1")
    sql.execute("DELETE FROM orders")
    assert runner.rollback("a1") is State.VERIFIED


# -- cascades ----------------------------------------------------------------

CASCADES = """
UPDATE users SET id = DEFAULT WHERE id = {n};
DELETE FROM users WHERE id = {n} + 1;
DELETE FROM pages WHERE profile = {n} + 2;
DELETE FROM profiles WHERE user_id = {n} + 2;
DELETE FROM other.orders WHERE user_id = {n} + 2;
DELETE FROM wide WHERE user_id = {n} + 2;
DELETE FROM users WHERE id = {n} + 2;
UPDATE orders SET user_id = {n} + 3 WHERE no = {n};
INSERT INTO users (name, boss) VALUES ('c{n}', {n} + 3);
INSERT INTO orders (user_id) SELECT id FROM users WHERE name = 'c{n}'
"""


def test_cascades_at_each_state(runner: Runner, sql: psycopg.Connection) -> None:
    """What a foreign key's action writes reaches the columns behind as well."""
    sql.execute(f"{INT};{ROWS}".encode())
    sql.execute(
        "DELETE FROM pages; DELETE FROM profiles WHERE user_id % 5 > 0;"
        " DELETE FROM other.orders; DELETE FROM wide"
    )
    sql.execute("DELETE FROM profiles WHERE user_id % 10 = 0")

    def cascade(n: int) -> None:
        for statement in CASCADES.format(n=n).split(";"):
            if "SET id" in statement:
                sql.execute("UPDATE users SET id = DEFAULT WHERE id = %s", [n])
            else:
                sql.execute(statement.encode())

    runner.expand(CHANGE)
    cascade(21)
    runner.backfill("a1")
    assert apart(sql) == 0
    cascade(31)
    runner.verify("a1")
    assert apart(sql) == 0
    runner.retire("a1", old_release_gone="test")
    cascade(41)
    assert apart(sql) == 0
    runner.rollback("a1")
    cascade(51)
    assert apart(sql) == 0
    runner.verify("a1")
    assert runner.mismatches("a1") == []
    runner.retire("a1", old_release_gone="test")
    runner.drop("a1")
    cascade(61)


def test_cascades_beside_the_backfill(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """Chunks and cascades over the same rows lose nothing and fail nobody."""
    sql.execute(SERIAL.format(serial="serial", int="int").encode())
    sql.execute(
        "ALTER TABLE orders DROP CONSTRAINT orders_user_id_fkey, ADD FOREIGN KEY"
        " (user_id) REFERENCES users ON UPDATE CASCADE ON DELETE CASCADE"
    )
    sql.execute("CREATE INDEX ON orders (user_id)")
    sql.execute("INSERT INTO users (org) SELECT generate_series(1, 20000)")
    sql.execute("INSERT INTO orders SELECT id FROM users, generate_series(1, 2)")
    stop, failures = threading.Event(), list[str]()

    def work() -> None:
        with psycopg.connect(database, autocommit=True) as conn:
            n = 0
            while not stop.is_set():
                n += 7
                try:
                    conn.execute("UPDATE users SET id = id + 100000 WHERE id = %s", [n])
                    conn.execute("DELETE FROM users WHERE id = %s", [20000 - n])
                    conn.execute(
                        "INSERT INTO orders SELECT id FROM users WHERE id = %s",
                        [n + 100000],
                    )
                except psycopg.Error as error:
                    failures.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        to(runner, State.VERIFIED)
    finally:
        stop.set()
        thread.join()
    assert failures == []
    assert runner.mismatches("a1") == []
    assert apart(sql) == 0


# -- crashes -----------------------------------------------------------------


@contextmanager
def cut_off(monkeypatch: pytest.MonkeyPatch, after: int) -> Iterator[list[str]]:
    """Let the process fail when it has run some actions, before it notes the last."""
    seen: list[str] = []
    transaction = module.Execution._statements
    statement = module.Execution._checked_statement

    def counted(real: Any) -> Any:
        def call(self: Any, *args: Any, **given: Any) -> None:
            real(self, *args, **given)
            seen.append("ran")
            if len(seen) == after:
                raise Failed("crashed")

        return call

    with monkeypatch.context() as patch:
        patch.setattr(module.Execution, "_statements", counted(transaction))
        patch.setattr(module.Execution, "_checked_statement", counted(statement))
        yield seen


def test_crashes_at_every_action(
    runner: Runner, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is found done or undone by the next run, there and back."""
    sql.execute(f"{INT};{ROWS}".encode())
    before = shape(sql)
    to(runner, State.VERIFIED)
    ways = (
        lambda: runner.retire("a1", old_release_gone="test"),
        lambda: runner.rollback("a1"),
    )
    for way in ways:
        crashes = 0
        # What ran before is found, and one action more comes about each time.
        while True:
            with cut_off(monkeypatch, after=2):
                try:
                    way()
                    break
                except Failed as error:
                    if not str(error).startswith("crashed"):
                        raise
                    crashes += 1
        assert crashes > 10
        assert apart(sql) == 0
        assert not sql.execute(
            "SELECT conname FROM pg_constraint WHERE NOT convalidated"
            " AND conname NOT IN ('orders_name_user_id_fkey', 'late')"
        ).fetchall()
    runner.rollback("a1", to=State.PLANNED)
    assert shape(sql) == before


# A command whose process is killed where a step gets a status.
KILLED = """
import os, signal, sys
from migrator.ledger import store
from migrator.postgres.connection import Target
from migrator.runner import Runner
from migrator.settings import Settings

url, command, name, wanted = sys.argv[1:]
real = store.set_status


def dying(conn, change, row, status, **told):
    if (row.step.name, status) == (name, wanted):
        os.kill(os.getpid(), signal.SIGKILL)
    real(conn, change, row, status, **told)


store.set_status = dying
runner = Runner(Target.from_url(url), Settings(hold_s=0, lease_s=1))
if command == "retire":
    runner.retire("a1", old_release_gone="test")
else:
    runner.rollback("a1")
"""


def test_a_process_killed_about_the_exchange(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """In its transaction, right behind it, and when it was taken back."""
    sql.execute(f"{INT};{ROWS}".encode())
    before = shape(sql)
    to(runner, State.VERIFIED)
    for words in (
        ("retire", "exchange_columns", "done"),
        ("retire", "validate_constraint_1", "running"),
        ("rollback", "exchange_columns", "reversed"),
    ):
        if words[0] == "rollback":
            assert runner.retire("a1", old_release_gone="test") is State.RETIRED
        done = subprocess.run(
            [sys.executable, "-c", KILLED, database, *words],
            capture_output=True,
            text=True,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
    with pytest.raises(Held, match="on its way back to verified"):
        runner.drop("a1")
    assert runner.rollback("a1") is State.VERIFIED
    assert apart(sql) == 0
    assert runner.rollback("a1", to=State.PLANNED) is State.PLANNED
    assert shape(sql) == before


@pytest.mark.parametrize("after", [2, 5, 6, 7])
def test_going_back_from_half_a_retire(
    after: int,
    runner: Runner,
    sql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before, in and behind the exchange; the way back may be cut off as well."""
    sql.execute(SERIAL.format(serial="serial", int="int").encode())
    sql.execute("INSERT INTO users (org) SELECT generate_series(1, 100)")
    sql.execute("INSERT INTO orders SELECT id FROM users")
    before = shape(sql)
    to(runner, State.VERIFIED)
    with cut_off(monkeypatch, after), pytest.raises(Failed, match="crashed"):
        runner.retire("a1", old_release_gone="test")
    with cut_off(monkeypatch, 3), pytest.raises(Failed, match="crashed"):
        runner.rollback("a1", to=State.PLANNED)
    assert runner.rollback("a1", to=State.PLANNED) is State.PLANNED
    assert shape(sql) == before
    assert to(runner, State.DROPPED) is State.DROPPED


# -- locks -------------------------------------------------------------------


def test_the_exchange_scans_nothing(runner: Runner, sql: psycopg.Connection) -> None:
    """It locks all tables and only changes the catalogue; so does its way back."""
    sql.execute(f"{INT};{ROWS}".encode())
    to(runner, State.VERIFIED)
    steps = runner.plan(CHANGE).steps(Phase.RETIRE)
    said: list[str] = []
    sql.add_notice_handler(lambda d: said.append(d.message_primary or ""))
    sql.execute("SET client_min_messages = debug1")
    tables = ("users", "orders", "profiles", "pages", "other.orders", "wide")
    for step in steps:
        if isinstance(step.work, Autocommit):
            assert step.work.lock is Lock.SHARE_UPDATE_EXCLUSIVE
            is_sampled = step.work.statement.startswith("ANALYZE")
            assert step.work.scans is not is_sampled
            sql.execute(step.work.statement.encode())
            continue
        assert isinstance(step.work, Transaction)
        if step.name != "exchange_columns":
            for statement in step.work.statements:
                if not statement.startswith("LOCK"):
                    sql.execute(statement.encode())
            continue
        said.clear()
        found = taken(sql, step.work, *tables)
        assert set(found.values()) == {Lock.ACCESS_EXCLUSIVE}
        assert {step.work.table, *(a.table for a in step.work.also)} == {
            TableName("other", "orders"),
            *(TableName("public", t) for t in tables if "." not in t),
        }
        words = ("rewriting", "verifying", "validating", "building")
        assert not [text for text in said if text.startswith(words)]
        break


def test_a_lock_on_a_referring_table(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """The exchange gives up on time, names who holds it, and changes nothing."""
    sql.execute(SERIAL.format(serial="serial", int="int").encode())
    to(runner, State.VERIFIED)
    with (
        holding(database, "orders", "ROW SHARE"),
        pytest.raises(LockBudgetError) as caught,
    ):
        runner.retire("a1", old_release_gone="test")
    assert '(application "billing"' in str(caught.value)
    sql.execute("INSERT INTO users (org) VALUES (1)")
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED


def test_a_session_that_drew_a_number(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """It is waited for within the budget; nobody draws a number twice."""
    sql.execute(INT.encode())
    to(runner, State.VERIFIED)
    with psycopg.connect(database) as other:
        other.execute("SELECT nextval('users_id_seq')")
        with pytest.raises(LockBudgetError):
            runner.retire("a1", old_release_gone="test")
        other.execute("INSERT INTO users (name) VALUES ('x')")
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    sql.execute("INSERT INTO users (name) VALUES ('y')")
    assert sql.execute("SELECT count(DISTINCT id) FROM users").fetchone() == (2,)


def test_no_number_is_drawn_while_an_identity_is_made(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """From where the sequence is read until the new one is there, it is locked."""
    sql.execute(INT.encode())
    to(runner, State.VERIFIED)
    exchange = next(
        s for s in runner.plan(CHANGE).steps(Phase.RETIRE) if "exchange" in s.name
    )
    assert isinstance(exchange.work, Transaction)
    read = next(n for n, s in enumerate(exchange.work.statements) if "last_value" in s)
    with psycopg.connect(database) as other, sql.transaction(force_rollback=True):
        for statement in exchange.work.statements[: read + 1]:
            sql.execute(statement.encode())
        other.execute("SET lock_timeout = '50ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            other.execute("SELECT nextval('users_id_seq')")


# -- what comes or goes meanwhile --------------------------------------------


def test_a_foreign_key_that_comes_after_expand(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """It holds the change, which says so, and goes on without it."""
    sql.execute(SERIAL.format(serial="serial", int="int").encode())
    runner.expand(CHANGE)
    sql.execute("CREATE TABLE late (user_id int CONSTRAINT late REFERENCES users)")
    with pytest.raises(Refused) as caught:
        runner.backfill("a1")
    assert str(caught.value) == (
        'change the primary key "id" of table "users" to bigint, with what refers to'
        ' it: table "public"."late" refers to the key since the change was expanded,'
        " and has no wider column.\nNothing was changed.\n"
        "Next: drop that foreign key until the change is through, or roll the change"
        " back and expand it again."
    )
    sql.execute("ALTER TABLE late DROP CONSTRAINT late")
    to(runner, State.RETIRED)
    sql.execute("CREATE TABLE later (user_id int CONSTRAINT later REFERENCES users)")
    with pytest.raises(Refused, match="1 foreign key came to refer to the key since"):
        runner.rollback("a1")
    sql.execute("ALTER TABLE later DROP CONSTRAINT later")
    assert runner.rollback("a1") is State.VERIFIED
    to(runner, State.RETIRED)
    sql.execute(
        "ALTER TABLE later ADD CONSTRAINT later FOREIGN KEY (user_id) REFERENCES users"
    )
    assert runner.drop("a1") is State.DROPPED


def test_a_foreign_key_that_comes_in_retire(
    runner: Runner, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exchange looks once more, under its lock."""
    sql.execute(SERIAL.format(serial="serial", int="int").encode())
    to(runner, State.VERIFIED)
    with cut_off(monkeypatch, after=6), pytest.raises(Failed, match="crashed"):
        runner.retire("a1", old_release_gone="test")
    sql.execute("CREATE TABLE late (user_id int CONSTRAINT late REFERENCES users)")
    with pytest.raises(Refused) as caught:
        runner.retire("a1", old_release_gone="test")
    assert str(caught.value) == (
        'Step \'exchange_columns\' on table "public"."users" is refused: 1 foreign key'
        " came to refer to the key since.\nNothing was changed.\nNext: drop them, then"
        " run the same command again; add them afterwards."
    )
    sql.execute("ALTER TABLE late DROP CONSTRAINT late")
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED


def test_what_comes_onto_the_columns(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """Either exchange names it, since it would go; what was dropped comes back."""
    sql.execute(
        "CREATE TABLE users (id int PRIMARY KEY, CONSTRAINT c CHECK (id > 0));"
        "CREATE TABLE orders (user_id int CONSTRAINT fk REFERENCES users);"
        "CREATE INDEX i ON orders (user_id)"
    )
    to(runner, State.VERIFIED)
    with holding(database, "users", "ACCESS SHARE"), pytest.raises(LockBudgetError):
        runner.retire(CHANGE.id, old_release_gone="test")
    for came, name, gone in (
        ("CREATE INDEX late ON orders (user_id)", "late", "DROP INDEX late"),
        (
            "ALTER TABLE users ADD CONSTRAINT late CHECK (id < 9)",
            "late",
            "ALTER TABLE users DROP CONSTRAINT late",
        ),
        (
            "ALTER TABLE orders ALTER user_id SET NOT NULL",
            '"NOT NULL"',
            "ALTER TABLE orders ALTER user_id DROP NOT NULL",
        ),
    ):
        sql.execute(came.encode())
        with pytest.raises(Refused, match=f"since retire began: {name}"):
            runner.retire(CHANGE.id, old_release_gone="test")
        sql.execute(gone.encode())
    runner.retire(CHANGE.id, old_release_gone="test")
    sql.execute(
        "ALTER TABLE users DROP CONSTRAINT c; ALTER TABLE orders DROP CONSTRAINT fk;"
        "DROP INDEX i; CREATE TABLE other (a int); CREATE INDEX i ON other (a)"
    )
    with pytest.raises(
        Refused, match="took a name that goes over, since retire began: i"
    ):
        runner.rollback(CHANGE.id)
    assert "_check_" not in str(shape(sql))
    sql.execute("DROP TABLE other")
    runner.rollback(CHANGE.id)
    runner.rollback(CHANGE.id, to=State.PLANNED)
    found = sql.execute(
        "SELECT conname FROM pg_constraint WHERE contype <> 'n' AND conrelid IN"
        " ('users'::regclass, 'orders'::regclass) ORDER BY 1"
    ).fetchall()
    assert found == [("c",), ("fk",), ("users_pkey",)]
    assert sql.execute("SELECT to_regclass('i')::text").fetchall() == [("i",)]


def test_a_foreign_key_that_goes_after_expand(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Its wider column would be left behind: the change is held before retire."""
    sql.execute(SERIAL.format(serial="serial", int="int").encode())
    to(runner, State.VERIFIED)
    sql.execute("ALTER TABLE orders DROP CONSTRAINT orders_user_id_fkey")
    with pytest.raises(Refused, match="1 table has a wider column from the expand"):
        runner.retire("a1", old_release_gone="test")
    assert runner.rollback("a1", to=State.PLANNED) is State.PLANNED
    assert to(runner, State.DROPPED) is State.DROPPED


def test_a_trigger_that_is_off(runner: Runner, sql: psycopg.Connection) -> None:
    """That of a referring table counts as well."""
    sql.execute(SERIAL.format(serial="serial", int="int").encode())
    to(runner, State.VERIFIED)
    row = sql.execute(
        "SELECT tgname FROM pg_trigger WHERE tgrelid = 'orders'::regclass"
        " AND tgname LIKE 'zzz%'"
    ).fetchone()
    assert row is not None
    sql.execute(f"ALTER TABLE orders DISABLE TRIGGER {row[0]}".encode())
    with pytest.raises(MigratorError, match=r'"public"."orders" is missing or not'):
        runner.retire("a1", old_release_gone="test")


def test_rows_that_stay_out_of_step(runner: Runner, sql: psycopg.Connection) -> None:
    """The message names the table that they are in, and the first one lets be."""
    sql.execute(SERIAL.format(serial="serial", int="int").encode())
    sql.execute("INSERT INTO users (org) VALUES (1); INSERT INTO orders VALUES (1)")
    runner.expand(CHANGE)
    row = sql.execute(
        "SELECT quote_ident(attname) FROM pg_attribute"
        " WHERE attrelid = 'orders'::regclass AND attname LIKE '%shadow%'"
    ).fetchone()
    assert row is not None
    sql.execute(
        "CREATE FUNCTION undo() RETURNS trigger LANGUAGE plpgsql AS"
        f" 'BEGIN NEW.{row[0]} := NULL; RETURN NEW; END';"
        " CREATE TRIGGER zzzz BEFORE UPDATE ON orders FOR EACH ROW"
        " EXECUTE FUNCTION undo()".encode()
    )
    with pytest.raises(MismatchError) as caught:
        to(runner, State.VERIFIED)
    assert str(caught.value).startswith(
        'Verification of a1 found 1 row of table "public"."orders" that is not in step'
    )


def test_a_reference_to_nothing_holds_the_change(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Written past a key that counts as proved, it would be in the way of its proof."""
    sql.execute(
        "CREATE TABLE users (id int PRIMARY KEY);"
        "CREATE TABLE orders (id int PRIMARY KEY, user_id int REFERENCES users);"
        "SET session_replication_role = replica; INSERT INTO orders VALUES (1, 7);"
        "RESET session_replication_role"
    )
    runner.expand(CHANGE)
    runner.backfill("a1")
    with pytest.raises(MismatchError, match=r"no row of \"public\".\"users\""):
        runner.verify("a1")
    sql.execute("INSERT INTO users VALUES (7)")
    runner.say("a1", Mode.RUN, "corrected")
    assert runner.verify("a1") is State.VERIFIED
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED


def test_changes_that_share_an_index_follow_one_another(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Each would make the index again without knowing of the other's column."""
    sql.execute(
        "CREATE TABLE users (id int PRIMARY KEY); CREATE TABLE goods (id int"
        " PRIMARY KEY); CREATE TABLE items (user_id int REFERENCES users,"
        " good_id int REFERENCES goods, UNIQUE (user_id, good_id))"
    )
    other = Change(revision="b1", pattern=replace(PLAIN, table="goods"))
    runner.expand(CHANGE)
    with pytest.raises(Held, match="b1 touches what a1"):
        runner.expand(other)
    assert to(runner, State.DROPPED) is State.DROPPED
    assert to(runner, State.DROPPED, other) is State.DROPPED
    assert (
        sql.execute(
            "SELECT pg_get_constraintdef(oid), format_type(atttypid, -1)"
            " FROM pg_constraint JOIN pg_attribute ON attrelid = conrelid"
            " AND attnum = ANY (conkey) WHERE conname = 'items_user_id_good_id_key'"
        ).fetchall()
        == [("UNIQUE (user_id, good_id)", "bigint")] * 2
    )


# -- messages ----------------------------------------------------------------

MANY = "CREATE TABLE users (id int PRIMARY KEY, a int, b int)"


@pytest.mark.parametrize(
    ("setup", "given", "message"),
    [
        (
            MANY,
            {"column": "a"},
            'Column "a" of table "public"."users" is in no primary or unique key of'
            " the table.\nNothing was changed.\nNext: use ChangeColumnType.",
        ),
        (
            MANY,
            {"to": "int"},
            'Column "id" of table "public"."users" is of type integer, which integer'
            ' does not widen.\nNothing was changed.\nNext: write to="bigint", or leave'
            " the column as it is.",
        ),
        (
            MANY,
            {"to": "uuid"},
            'change the primary key "id" of table "users" to uuid, with what refers to'
            " it: uuid is no wider integer type.\nNothing was changed.\nNext: write"
            ' to="bigint".',
        ),
        (
            "CREATE TABLE users (id text PRIMARY KEY)",
            {},
            'Column "id" of table "public"."users" is of type text; only smallint and'
            " integer become wider.\nNothing was changed.\nNext: make a key of a"
            " further column of that type: AddColumn, AddUnique, DropConstraint and"
            " AddPrimaryKey, each a change of its own.",
        ),
        (
            f"{MANY}; CREATE TABLE t (u int REFERENCES users) PARTITION BY LIST (u)",
            {},
            'Table "public"."t" is partitioned, or a partition: PostgreSQL builds no'
            " unique index concurrently on all partitions.\nNothing was changed.\n"
            "Next: make the change in a maintenance window.",
        ),
        (
            f"{MANY}; CREATE TABLE t (u int REFERENCES users,"
            " EXCLUDE USING hash (u WITH =))",
            {},
            'Column "u" of table "public"."t" is under exclusion constraint'
            ' "t_u_excl", whose index cannot be built while others write.\nNothing was'
            " changed.\nNext: drop it first (DropConstraint), and add it again in a"
            " maintenance window.",
        ),
        (
            f"{MANY}; CREATE FUNCTION f(int) RETURNS bool IMMUTABLE LANGUAGE sql"
            " RETURN true; CREATE TABLE t (u int REFERENCES users CHECK (f(u)))",
            {},
            'change the primary key "id" of table "users" to bigint, with what refers'
            ' to it: an index or a check of table "public"."t" cannot be made over'
            " bigint: function public.f(bigint) does not exist.\nNothing was changed.\n"
            "Next: drop it first, and make its like afterwards.",
        ),
        (
            f"{MANY}; CREATE TABLE t (u int REFERENCES users,"
            " UNIQUE NULLS NOT DISTINCT (u))",
            {},
            'Index "t_u_key" of table "public"."t" is NULLS NOT DISTINCT: values that'
            " the former type cannot hold would be the same there.\nNothing was"
            " changed.\nNext: make it NULLS DISTINCT first, or change the key in a"
            " maintenance window.",
        ),
        (
            f"{MANY}; ALTER TABLE users REPLICA IDENTITY USING INDEX users_pkey",
            {},
            'Index "users_pkey" of table "public"."users" is the table\'s replica'
            " identity, which goes with its former column.\nNothing was changed.\n"
            "Next: set another one first: ALTER TABLE … REPLICA IDENTITY.",
        ),
        (
            f"{MANY}; CREATE TABLE p (id int PRIMARY KEY);"
            " CREATE TABLE t (u int REFERENCES users REFERENCES p)",
            {},
            'Column "u" of table "public"."t" refers to "id" of table "public"."p" as'
            ' well, by foreign key "t_u_fkey1"; that one does not become wider.\n'
            "Nothing was changed.\nNext: change the type of that key first, by a change"
            " of its own, or drop the foreign key.",
        ),
        (
            f"{MANY}; CREATE TABLE t (u int REFERENCES users);"
            " CREATE VIEW v AS SELECT u FROM t",
            {},
            'Column "u" of table "public"."t" is used by view v.\n'
            "Nothing was changed.\nNext: drop what depends on it first, and make it"
            " again afterwards.",
        ),
        (
            f"{MANY}; CREATE PUBLICATION p FOR TABLE users (id, a)",
            {},
            'Column "id" of table "public"."users" is used by publication of table'
            " users in publication p.\nNothing was changed.\nNext: drop what depends"
            " on it first, and make it again afterwards.",
        ),
        (
            f"{MANY}; ALTER TABLE users ADD g int GENERATED ALWAYS AS (id + 1) STORED",
            {},
            'Column "id" of table "public"."users" is read by generated column "g",'
            " which would go with it.\nNothing was changed.\nNext: drop that column"
            " first, and generate it from the new ones afterwards.",
        ),
        (
            f"{MANY}; CREATE TRIGGER g BEFORE UPDATE OF id ON users FOR EACH ROW"
            " EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            {},
            'Column "id" of table "public"."users" is used by trigger g on table users.'
            "\nNothing was changed.\nNext: drop what depends on it first, and make it"
            " again afterwards.",
        ),
        (
            f"{MANY}; CREATE TABLE t (u int REFERENCES users);"
            " CREATE TRIGGER zzzz BEFORE UPDATE ON t FOR EACH ROW"
            " EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            {},
            'Trigger "zzzz" on table "public"."t" would fire after the dual write and'
            " could leave the two sides apart.\nNothing was changed.\nNext: rename it"
            ' to sort before "zzz_migrator_".',
        ),
        (
            "CREATE TABLE users (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY);"
            " CREATE TABLE t (n int DEFAULT nextval('users_id_seq'))",
            {},
            'The sequence "public"."users_id_seq" of column "id" of table'
            ' "public"."users", an identity, is used by default value for column n of'
            " table t.\nNothing was changed.\nNext: give that a sequence of its own"
            " first.",
        ),
        (
            f"{MANY}; CREATE INDEX i ON users USING brin (id int4_minmax_multi_ops)",
            {},
            'change the primary key "id" of table "users" to bigint, with what refers'
            ' to it: an index or a check of table "public"."users" cannot be made over'
            " bigint:"
            ' operator class "int4_minmax_multi_ops" does not accept data'
            " type bigint.\nNothing was changed.\nNext: drop it first, and make its"
            " like afterwards.",
        ),
        (
            MANY,
            {"assured": ""},
            'change the primary key "id" of table "users" to bigint, with what refers'
            ' to it: The name "id" stays: both releases read integer until retire and'
            " bigint afterwards, and a prepared statement that returns such a column"
            " fails in each session until it is prepared anew"
            ' ("cached plan must not change result type").'
            " A function that returns it as integer fails until it is made anew."
            " From retire on these columns are the last of their tables: SELECT * and"
            " COPY without a column list see another order, and an INSERT without one"
            " puts values elsewhere. While retire builds and exchanges, each key has"
            " two unique indexes: of two sessions that INSERT … ON CONFLICT the same"
            " new key at once, one may fail with a unique violation.\nNothing was"
            ' changed.\nNext: look into it, then write assured="why it is safe here"'
            " into the pattern.",
        ),
    ],
)
def test_refusals(
    setup: str,
    given: dict[str, Any],
    message: str,
    runner: Runner,
    sql: psycopg.Connection,
) -> None:
    """Each says what stands in the way, on which object, and the way out."""
    for statement in setup.split("; "):
        sql.execute(statement.encode())
    change = replace(CHANGE, pattern=replace(PLAIN, **given))
    with pytest.raises(Refused) as caught:
        runner.plan(change)
    assert str(caught.value) == message
    with pytest.raises(Refused):
        runner.expand(change)


def test_a_key_without_overlaps() -> None:
    """Only from 18 on is there one; it cannot be built like a plain one."""
    index = Index(
        name="k",
        method="gist",
        keys=(IndexColumn(name="id"), IndexColumn(name="at")),
        unique=True,
        columns=("id", "at"),
    )
    table = Table(
        name=TableName("public", "users"),
        oid=1,
        columns=(Column(name="id", type="integer", not_null=True),),
        indexes=(index,),
        constraints=(Constraint(name="k", kind="p", columns=("id",), index="k"),),
    )
    with pytest.raises(Refused) as caught:
        PLAIN.check(Facts(server_version=180000, table=table, tag="0123456789"))
    assert str(caught.value) == (
        'Index "k" of table "public"."users" is unique by gist (WITHOUT OVERLAPS), and'
        " is not carried over.\nNothing was changed.\nNext: change the key in a"
        " maintenance window."
    )


def test_a_downgrade_asks_for_the_type_before(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """After the drop nothing tells it."""
    sql.execute(MANY.encode())
    runner.complete(CHANGE)
    with pytest.raises(Refused) as caught:
        runner.rebuild(CHANGE)
    assert str(caught.value).endswith(
        "the type before is not known.\nNothing was changed.\n"
        "Next: write old_type=… into the pattern."
    )


def test_the_plan_names_what_goes_along(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """A reviewer sees each column, and the triggers that the backfill fires."""
    sql.execute(INT.encode())
    sql.execute(
        "CREATE TRIGGER touch AFTER UPDATE ON orders FOR EACH ROW"
        " EXECUTE FUNCTION suppress_redundant_updates_trigger()"
    )
    notices = [n.text for n in runner.plan(CHANGE).notices]
    assert notices[0] == (
        'Wider become with it: "boss" of table "public"."users", "user_id" of table'
        ' "other"."orders", "user_id" of table "public"."orders", "profile" of table'
        ' "public"."pages", "user_id" of table "public"."profiles".'
    )
    assert any(n.startswith('Trigger "touch" fires for the rows') for n in notices)
    assert any(n.startswith('Key "orders_user_id_no_key"') for n in notices)
