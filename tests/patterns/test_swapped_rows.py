"""What statements do to a table that another one takes the place of, and to others."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psycopg
import pytest
from backfill.live import wait_for
from tables import rows, waits

from migrator.change import Change
from migrator.errors import LockBudgetError, Refused
from migrator.pattern import Pattern
from migrator.patterns import MergeTables, PartitionTable, RebuildTable
from migrator.plan import State
from migrator.runner import Runner

USERS = """
CREATE TABLE users (id bigserial PRIMARY KEY, email text NOT NULL UNIQUE,
  code int NOT NULL UNIQUE,
  up bigint REFERENCES users ON UPDATE CASCADE ON DELETE CASCADE);
CREATE TABLE orders (id int PRIMARY KEY,
  user_id bigint REFERENCES users ON UPDATE CASCADE ON DELETE CASCADE,
  email text REFERENCES users (email) ON UPDATE CASCADE ON DELETE SET NULL,
  code int REFERENCES users (code),
  late bigint CONSTRAINT late REFERENCES users DEFERRABLE);
INSERT INTO users SELECT g, 'e' || g, 100 + g, NULLIF(g - 1, 0)
  FROM generate_series(1, 9) g;
INSERT INTO orders SELECT g, g, 'e' || g, CASE WHEN g > 8 THEN 100 + g END
  FROM generate_series(1, 9) g;
"""
STATEMENTS = (
    "UPDATE users SET email = email || 'x' WHERE id IN (2, 3)",
    "UPDATE users SET code = code + 50 WHERE id = 2",
    "UPDATE users SET code = 1 WHERE id = 9",
    "UPDATE users SET id = id + 30 WHERE id IN (3, 4)",
    "UPDATE users SET id = id - 30 WHERE id > 30",
    "DELETE FROM users WHERE id = 9",
    "DELETE FROM users WHERE id = 7",
    "BEGIN; SET CONSTRAINTS late DEFERRED; INSERT INTO orders (id, late) VALUES"
    " (50, 51); INSERT INTO users VALUES (51, 'm', 3); COMMIT",
    "INSERT INTO orders (id, late) VALUES (60, 61)",
    "DELETE FROM orders WHERE id = 50; DELETE FROM users WHERE id = 51",
    "BEGIN; TRUNCATE users, orders CASCADE; ROLLBACK",
    # Refused where the table out of sight refers to users.
    "BEGIN; TRUNCATE users, orders; ROLLBACK",
)
ITEMS = """
CREATE TABLE items (id int PRIMARY KEY, pos int UNIQUE DEFERRABLE, during int4range,
  number int GENERATED ALWAYS AS IDENTITY, slot int UNIQUE,
  EXCLUDE USING gist (during WITH &&) DEFERRABLE);
CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  insert into items (id, slot) VALUES (old.id + 100, old.slot); RETURN NULL; END $$;
CREATE TRIGGER again AFTER DELETE ON items FOR EACH ROW EXECUTE FUNCTION again();
INSERT INTO items (id, pos, during, slot)
  SELECT g, g, int4range(g, g + 1), g FROM generate_series(1, 9) g;
"""
# Each unique key has the partition key.
PARTED = """
CREATE TABLE items (id int, part int, pos int, during int4range,
  PRIMARY KEY (id, part), UNIQUE (pos, part) DEFERRABLE);
INSERT INTO items SELECT g, g % 2, g FROM generate_series(1, 9) g;
"""
PARTS = PartitionTable(
    "items", "HASH", ["part"], ["one", "two"], key=["id", "part"], assured="t"
)
MOVES = (
    "UPDATE items SET pos = 10 - pos",
    "UPDATE items SET pos = 1 WHERE id = 5",
    "UPDATE items SET during = int4range(10 - lower(during), 11 - lower(during))",
    "UPDATE items SET during = '[3,4)' WHERE id = 2",
    "BEGIN; SET CONSTRAINTS ALL DEFERRED; UPDATE items SET pos = 3 WHERE id = 2;"
    " UPDATE items SET pos = 40 WHERE id = 3; COMMIT",
    "UPDATE items SET number = DEFAULT WHERE id = 3",
    "BEGIN; UPDATE items SET pos = 50 - pos; TRUNCATE items; ROLLBACK",
    "BEGIN; UPDATE items SET pos = 10 - id; UPDATE items SET pos = id; TRUNCATE items;"
    " ROLLBACK",
    "UPDATE items SET pos = id",
    # Its trigger writes the table again, with what is unique.
    "DELETE FROM items WHERE id = 4",
)


def alike(sql: psycopg.Connection, setup: str, statements: tuple[str, ...]) -> None:
    """Compare what statements do to tables and to a twin of them, then reset both."""
    names = [
        str(name)
        for (name,) in rows(
            sql, "SELECT tablename FROM pg_tables WHERE schemaname = 'twin' ORDER BY 1"
        )
    ]

    def run(schema: str, statement: str) -> object:
        sql.execute(f"SET search_path = {schema}".encode())
        try:
            sql.execute(statement.encode())
        except psycopg.Error as error:
            sql.execute("ROLLBACK")
            return error.sqlstate
        return [sorted(map(str, rows(sql, f"SELECT * FROM {name}"))) for name in names]

    for statement in statements:
        assert run("public", statement) == run("twin", statement), statement
    for schema in ("public", "twin"):
        run(schema, f"TRUNCATE {', '.join(names)} CASCADE")
        run(schema, setup[setup.index("INSERT") :])


@pytest.mark.parametrize(
    ("pattern", "setup", "statements"),
    [
        pytest.param(RebuildTable("users", assured="t"), USERS, STATEMENTS, id="users"),
        pytest.param(
            RebuildTable("orders", assured="t"), USERS, STATEMENTS[:-1], id="orders"
        ),
        pytest.param(RebuildTable("items", assured="t"), ITEMS, MOVES, id="items"),
        pytest.param(PARTS, PARTED, MOVES, id="parts"),
    ],
)
def test_statements_do_what_they_do_without_the_change(
    runner: Runner,
    sql: psycopg.Connection,
    pattern: Pattern,
    setup: str,
    statements: tuple[str, ...],
) -> None:
    """Rows, and what is refused, are those of the same tables in another schema."""
    sql.execute("CREATE SCHEMA twin")
    for schema in ("twin", "public"):
        sql.execute(f"SET search_path = {schema}; {setup}".encode())
    runner.expand(Change(revision="r", pattern=pattern))
    alike(sql, setup, statements)
    runner.settle("r")
    alike(sql, setup, statements)
    runner.retire("r", old_release_gone="test")
    alike(sql, setup, statements)
    runner.rollback("r")
    alike(sql, setup, statements)
    runner.retire("r", old_release_gone="test")
    runner.drop("r")
    alike(sql, setup, statements)


def test_a_snapshot_from_before_the_copy_is_waited_for(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """It would find no row of those that were copied; its session is named."""
    sql.execute(
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY);"
        "CREATE TABLE p (id int PRIMARY KEY REFERENCES a, bio text NOT NULL);"
        "CREATE TABLE c (id int PRIMARY KEY); INSERT INTO a VALUES (1), (2);"
        "INSERT INTO b TABLE a; INSERT INTO c TABLE a;"
        "INSERT INTO p SELECT id, 'b' FROM a"
    )
    runner.settings = replace(runner.settings, step_budget_s=0.3)
    into = MergeTables("p", "a", ["bio"], key={"id": "id"}, assured="test")
    parts = PartitionTable("b", "HASH", ["id"], ["one"], key=["id"], assured="test")
    patterns = {"a": into, "b": parts, "c": RebuildTable("c", assured="test")}
    with psycopg.connect(database, application_name="report") as other:
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT 1")
        for name, pattern in patterns.items():
            runner.expand(Change(revision=name, pattern=pattern))
            runner.backfill(name)
            if name != "a":
                runner.verify(name)
        sql.execute("INSERT INTO b VALUES (3)")
        with pytest.raises(LockBudgetError, match=r"(?s)waited 0\.3 s.*report"):
            runner.verify("a")
        for name in ("b", "c"):
            with pytest.raises(LockBudgetError, match=r"(?s)waited 0\.3 s.*report"):
                runner.retire(name, old_release_gone="test")
            seen = rows(other, "SELECT (SELECT count(*) FROM p), count(*) FROM b")
            assert seen == [(2, 2)]
        # It does not see the copy of the row either.
        other.execute("DELETE FROM c WHERE id = 2")
        other.commit()
        runner.retire("c", old_release_gone="test")
        assert rows(sql, "TABLE c") == [(1,)]
        # One that began since is of no account.
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT 1")
        runner.retire("b", old_release_gone="test")
        assert rows(other, "SELECT count(*) FROM b") == [(3,)]
    runner.verify("a")


def test_a_foreign_key_that_comes_since(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Before retire it goes over; then it holds the way back, by its name."""
    sql.execute("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (a int)")
    runner.expand(Change(revision="r", pattern=RebuildTable("a", assured="test")))
    runner.settle("r")
    sql.execute("ALTER TABLE b ADD CONSTRAINT first FOREIGN KEY (a) REFERENCES a")
    runner.retire("r", old_release_gone="test")
    sql.execute('ALTER TABLE b ADD CONSTRAINT "l%s" FOREIGN KEY (a) REFERENCES a')
    with pytest.raises(Refused, match=r'key "l%s" of b came to refer to'):
        runner.rollback("r")
    sql.execute('ALTER TABLE b DROP CONSTRAINT "l%s"')
    runner.rollback("r")
    keys = "SELECT conname FROM pg_constraint WHERE confrelid = 'a'::regclass"
    assert rows(sql, keys) == [("first",)]


def test_a_foreign_key_that_nobody_proved(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """It goes over and back as it is, with the rows that it would refuse."""
    sql.execute(
        "CREATE TABLE a (id int PRIMARY KEY, b int); CREATE TABLE b (id int PRIMARY"
        " KEY, a int); INSERT INTO a VALUES (1, 9); INSERT INTO b VALUES (1, 9)"
    )
    runner.expand(Change(revision="r", pattern=RebuildTable("a", assured="test")))
    runner.settle("r")
    sql.execute(
        "ALTER TABLE b ADD FOREIGN KEY (a) REFERENCES a NOT VALID; ALTER TABLE a ADD"
        " FOREIGN KEY (b) REFERENCES b ON DELETE CASCADE NOT VALID"
    )
    keys = (
        "SELECT conname, convalidated FROM pg_constraint WHERE contype = 'f'"
        " AND confrelid IN ('a'::regclass, 'b'::regclass) ORDER BY conname"
    )
    runner.retire("r", old_release_gone="test")
    assert rows(sql, keys) == [("a_b_fkey", False), ("b_a_fkey", False)]
    runner.rollback("r")
    assert rows(sql, keys) == [("a_b_fkey", False), ("b_a_fkey", False)]


@pytest.mark.parametrize(
    ("ddl", "said"),
    [
        ("ADD COLUMN more int", 'column "more" of "public"."a" came'),
        ("RENAME COLUMN word TO text", 'column "text" of .*, column "word" of'),
        ("ALTER COLUMN word TYPE varchar(9)", 'column "word" of "public"."a" came'),
    ],
)
def test_a_column_that_comes_before_the_other_table(
    runner: Runner, sql: psycopg.Connection, database: str, ddl: str, said: str
) -> None:
    """The step waits for who makes it, and its triggers would not know it."""
    sql.execute("CREATE TABLE a (id int PRIMARY KEY, word varchar(5))")
    change = Change(revision="r", pattern=RebuildTable("a", assured="test"))
    with psycopg.connect(database) as other, ThreadPoolExecutor() as pool:
        other.execute("LOCK TABLE a IN ROW EXCLUSIVE MODE")
        expanding = pool.submit(runner.expand, change)
        wait_for("a step that waits", lambda: waits(sql))
        other.execute(f"ALTER TABLE a {ddl}".encode())
        other.commit()
        with pytest.raises(Refused, match=said):
            expanding.result()
    runner.expand(change)
    sql.execute("INSERT INTO a VALUES (1, 'word')")
    assert runner.settle("r") is State.VERIFIED


def test_an_expand_that_got_no_lock_is_written_anew(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """What came onto the table since goes along; its trigger knows the column."""
    sql.execute("CREATE TABLE a (id int PRIMARY KEY)")
    change = Change(revision="r", pattern=RebuildTable("a", assured="test"))
    budget, runner.settings = runner.settings, replace(runner.settings, step_budget_s=0)
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE a IN ROW EXCLUSIVE MODE")
        with pytest.raises(LockBudgetError):
            runner.expand(change)
    runner.settings = budget
    sql.execute("ALTER TABLE a ADD COLUMN more int")
    runner.expand(change)
    sql.execute("INSERT INTO a VALUES (1, 2)")
    runner.settle("r")
    sql.execute("UPDATE a SET more = 3")
    runner.retire("r", old_release_gone="test")
    assert rows(sql, "TABLE a") == [(1, 3)]


def test_foreign_keys_that_went_since(runner: Runner, sql: psycopg.Connection) -> None:
    """Dropped with their table or alone they stay away; a renamed one has to go."""
    sql.execute(
        "CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (1);"
        "CREATE TABLE b (x int CONSTRAINT kept REFERENCES a,"
        " y int CONSTRAINT gone REFERENCES a, z int CONSTRAINT named REFERENCES a,"
        ' w int CONSTRAINT "other%s" REFERENCES a);'
        "CREATE TABLE c (a int REFERENCES a); INSERT INTO b VALUES (1, 1, 1)"
    )
    runner.expand(Change(revision="r", pattern=RebuildTable("a", assured="test")))
    runner.settle("r")
    runner.retire("r", old_release_gone="test")
    sql.execute(
        "ALTER TABLE b DROP CONSTRAINT gone; DROP TABLE c; UPDATE b SET y = 2;"
        "ALTER TABLE b RENAME CONSTRAINT named TO other;"
        'ALTER TABLE b DROP CONSTRAINT "other%s", ADD CONSTRAINT "other%s" FOREIGN KEY'
        " (w) REFERENCES a ON DELETE CASCADE DEFERRABLE NOT VALID;"
        """COMMENT ON CONSTRAINT "other%s" ON b IS 'it''s %s'"""
    )
    with pytest.raises(Refused, match=r'key "other" of b came to refer to'):
        runner.rollback("r")
    sql.execute("ALTER TABLE b DROP CONSTRAINT other")
    runner.rollback("r")
    keys = (
        "SELECT conname, pg_get_constraintdef(oid), obj_description(oid)"
        " FROM pg_constraint WHERE contype = 'f' AND confrelid = 'a'::regclass"
        " ORDER BY conname"
    )
    changed = "FOREIGN KEY (w) REFERENCES a(id) ON DELETE CASCADE DEFERRABLE"
    assert rows(sql, keys) == [
        ("kept", "FOREIGN KEY (x) REFERENCES a(id)", None),
        ("other%s", changed, "it's %s"),
    ]


def test_what_comes_onto_the_table_is_not_left_with_the_other_one(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """It goes along, or is refused by its name, there and back."""
    sql.execute(
        "CREATE TABLE b (id int PRIMARY KEY);"
        "CREATE TABLE a (id int PRIMARY KEY, word text); CREATE FUNCTION f() RETURNS"
        " trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        "CREATE TRIGGER first BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION f();"
        "CREATE POLICY one ON a"
    )
    runner.settings = replace(runner.settings, step_budget_s=0.3)
    runner.expand(Change(revision="r", pattern=RebuildTable("a", assured="test")))
    runner.settle("r")
    sql.execute(
        "ALTER TABLE a ADD CONSTRAINT few CHECK (id < 9), ALTER word SET NOT NULL,"
        " ADD CONSTRAINT known FOREIGN KEY (id) REFERENCES b"
    )
    unlike = r'"word", constraint "few", constraint "known" of .* is not alike'
    with pytest.raises(Refused, match=unlike):
        runner.retire("r", old_release_gone="test")
    sql.execute(
        "ALTER TABLE a DROP CONSTRAINT few, ALTER word DROP NOT NULL,"
        " DROP CONSTRAINT known"
    )
    with psycopg.connect(database) as other:
        other.execute("SELECT FROM a")
        with pytest.raises(LockBudgetError):
            runner.retire("r", old_release_gone="test")
    sql.execute(
        "DROP TRIGGER first ON a;"
        "CREATE TRIGGER second AFTER INSERT ON a FOR EACH ROW EXECUTE FUNCTION f()"
    )
    runner.retire("r", old_release_gone="test")
    triggers = (
        "SELECT tgname FROM pg_trigger WHERE tgrelid = 'a'::regclass"
        " AND NOT tgisinternal AND tgname NOT LIKE '%migrator%'"
    )
    assert rows(sql, triggers) == [("second",)]
    sql.execute(
        "CREATE TRIGGER third AFTER INSERT ON a FOR EACH ROW EXECUTE FUNCTION f();"
        "CREATE POLICY two ON a; ALTER TABLE a ADD COLUMN more int"
    )
    came = 'column "more", policy "two", trigger "third" came onto'
    with pytest.raises(Refused, match=came):
        runner.rollback("r")
    sql.execute(
        "DROP TRIGGER third ON a; DROP POLICY two ON a; ALTER TABLE a DROP COLUMN more;"
        "DROP TRIGGER second ON a; DROP POLICY one ON a"
    )
    runner.rollback("r")


def test_keys_that_were_made_for_the_other_table_are_kept(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """One that acts makes its neighbours go over: with it gone, they would not."""
    sql.execute(
        "CREATE TABLE b (id int PRIMARY KEY); CREATE TABLE a (id int PRIMARY KEY,"
        " x int CONSTRAINT acts REFERENCES b ON DELETE CASCADE,"
        " y int CONSTRAINT plain REFERENCES b);"
    )
    runner.expand(Change(revision="r", pattern=RebuildTable("a", assured="test")))
    runner.settle("r")
    sql.execute("ALTER TABLE a DROP CONSTRAINT acts")
    with pytest.raises(Refused, match=r'constraint "plain" of .* is not alike'):
        runner.retire("r", old_release_gone="test")
    sql.execute("ALTER TABLE a ADD CONSTRAINT acts FOREIGN KEY (x) REFERENCES b")
    with pytest.raises(Refused, match=r'constraint "acts", constraint "plain" of'):
        runner.retire("r", old_release_gone="test")
    sql.execute(
        "ALTER TABLE a DROP CONSTRAINT acts, ADD CONSTRAINT acts"
        " FOREIGN KEY (x) REFERENCES b ON DELETE CASCADE"
    )
    runner.retire("r", old_release_gone="test")
    keys = "SELECT conname FROM pg_constraint WHERE conrelid = 'a'::regclass"
    assert rows(sql, f"{keys} AND contype = 'f' AND convalidated ORDER BY 1") == [
        ("acts",),
        ("plain",),
    ]


def test_a_new_table_may_have_another_collation(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """What it was asked to have is no difference that came since."""
    sql.execute("CREATE TABLE a (id int PRIMARY KEY, word text)")
    alter = ['ALTER word TYPE text COLLATE "C"', "ALTER word SET DEFAULT 'x'"]
    pattern = RebuildTable("a", alter=alter, assured="test")
    runner.expand(Change(revision="r", pattern=pattern))
    runner.settle("r")
    runner.retire("r", old_release_gone="test")
    sql.execute("INSERT INTO a VALUES (1)")
    assert rows(sql, "SELECT word, pg_collation_for(word) FROM a") == [("x", '"C"')]
    runner.rollback("r")
    assert rows(sql, "SELECT word FROM a") == [("x",)]


def test_a_cascade_meets_a_request(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """Who deletes a parent waits for who holds a row, and neither is ended."""
    sql.execute(
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY, a int"
        " CONSTRAINT out REFERENCES a ON DELETE CASCADE, n int); INSERT INTO a"
        " SELECT generate_series(1, 9); INSERT INTO b SELECT id, id FROM a"
    )
    sql.execute("COMMENT ON CONSTRAINT out ON b IS 'said'")
    runner.expand(Change(revision="r", pattern=RebuildTable("b", assured="test")))
    runner.settle("r")

    def meet(row: int) -> None:
        with (
            psycopg.connect(database) as holds,
            psycopg.connect(database, autocommit=True) as deletes,
            ThreadPoolExecutor(1) as pool,
        ):
            holds.execute("SELECT FROM b WHERE id = %s FOR UPDATE", (row,))
            gone = pool.submit(deletes.execute, "DELETE FROM a WHERE id = %s", (row,))
            wait_for("the delete waits", lambda: waits(sql))
            holds.execute("UPDATE b SET n = 1 WHERE id = %s", (row,))
            holds.commit()
            gone.result()
        assert rows(sql, f"SELECT count(*) FROM b WHERE id = {row}") == [(0,)]

    meet(1)
    runner.retire("r", old_release_gone="test")
    meet(2)
    runner.rollback("r")
    meet(3)
    key = (
        "SELECT convalidated, obj_description(oid) FROM pg_constraint"
        " WHERE conrelid = 'b'::regclass AND conname = 'out'"
    )
    assert rows(sql, key) == [(True, "said")]


def test_a_plan_names_what_is_otherwise(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Keys of the table out of sight, triggers that ask where they are, and COPY."""
    sql.execute(
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY,"
        " a int CONSTRAINT out REFERENCES a, b int CONSTRAINT own REFERENCES b);"
        "CREATE FUNCTION told() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN RAISE NOTICE ''%'', tg_Table_Name; RETURN NULL; END';"
        "CREATE FUNCTION mute() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN RAISE NOTICE ''%'', TG_TABLE_SCHEMA; RETURN NULL; END';"
        'CREATE TRIGGER "each %s" AFTER INSERT ON b FOR EACH ROW EXECUTE FUNCTION'
        " told(); CREATE TRIGGER once AFTER INSERT ON b EXECUTE FUNCTION told();"
        "CREATE TRIGGER other AFTER INSERT ON b FOR EACH ROW EXECUTE FUNCTION mute()"
    )
    out = '("out" to "public"."a")'

    def told(pattern: Pattern) -> str:
        notices = runner.plan(Change(revision="r", pattern=pattern)).notices
        return "\n".join(n.text for n in notices if n.needs_assurance)

    text = told(RebuildTable("b", assured="test"))
    assert f"has the foreign keys too {out}" in text
    assert "TG_TABLE_NAME" not in text
    sql.execute("ALTER TABLE b DROP CONSTRAINT own")
    parts = PartitionTable("b", "HASH", ["id"], ["one"], key=["id"], assured="test")
    text = told(parts)
    assert f"has the foreign keys too {out}" in text
    assert 'triggers for rows; "each %s" reads one.' in text
    assert "write COPY (SELECT * FROM b) TO" in text
