"""DropIndex: its text, its life, its locks and its messages."""

from dataclasses import replace

import psycopg
import pytest
from hanging import roles
from snapshots import same, snapshot

from migrator.change import Change
from migrator.errors import LockBudgetError, Refused
from migrator.facts import Facts, Index, Table
from migrator.names import TableName
from migrator.patterns import DropConstraint, DropIndex, ReplaceIndex
from migrator.plan import Autocommit, State, Transaction
from migrator.runner import Runner
from migrator.settings import Settings

INDEX = Index(
    name="by_name", method="btree", keys=(), spelt="USING btree (name)", scans=7
)
USERS = Table(name=TableName("public", "users"), oid=1, columns=(), indexes=(INDEX,))
DROP = DropIndex("users", "by_name")
DEFINED = "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = {}"
SCAN = (
    "SET enable_seqscan = off; SELECT * FROM users WHERE name = 'x';"
    " SELECT pg_stat_force_next_flush(); RESET enable_seqscan"
)
NOTHING = "\nNothing was changed.\nNext: "
#: A table, plain or of two partitions, with all that an index may have.
MARKED = """
CREATE TABLE people (id int CONSTRAINT one PRIMARY KEY, n int, name text) {of};
CREATE INDEX loud ON people ((n + 1), name) WITH (fillfactor = 55) TABLESPACE {r}_space
  WHERE n > 3;
COMMENT ON INDEX loud IS 'l';
COMMENT ON INDEX one IS 'o'; COMMENT ON CONSTRAINT one ON people IS 'key';
ALTER TABLE people REPLICA IDENTITY USING INDEX one;
"""
#: What is said of a partitioned index reaches its parts.
TARGET = "ALTER INDEX loud ALTER COLUMN 1 SET STATISTICS 44;"
PARTS = """
CREATE TABLE a PARTITION OF people FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE b PARTITION OF people FOR VALUES WITH (MODULUS 2, REMAINDER 1);
COMMENT ON INDEX a_expr_name_idx IS 'part'; ALTER INDEX b_pkey SET (fillfactor = 66);
COMMENT ON INDEX b_pkey IS 'b';
ALTER INDEX b_pkey SET TABLESPACE {r}_space; ALTER TABLE a CLUSTER ON a_pkey;
"""


def facts(table: Table = USERS) -> Facts:
    """Return facts about a table."""
    return Facts(server_version=180000, tag="0123456789", table=table)


# -- text --------------------------------------------------------------------


def test_text_with_hostile_names() -> None:
    """Every name is quoted; the definition stands as the catalogue spells it."""
    index = replace(INDEX, name='i "é%', unique=True)
    table = replace(USERS, name=TableName('my "sch', "or der"), indexes=(index,))
    pattern = DropIndex("or der", 'i "é%', assured="yes")
    assert pattern.expand(facts(table)) == ()
    (note,) = pattern.retire(facts(table))
    assert isinstance(note.work, Transaction)
    assert note.work.statements == ("SELECT 7",)
    (drop,) = pattern.drop(facts(table))
    assert isinstance(drop.work, Autocommit)
    statement = 'DROP INDEX CONCURRENTLY IF EXISTS "my ""sch"."i ""é%"'
    assert drop.work.statement == statement
    assert drop.work.refusals == ()
    (build,) = drop.reverse
    assert isinstance(build, Autocommit)
    assert build.statement == (
        'CREATE UNIQUE INDEX CONCURRENTLY "i ""é%" ON "my ""sch"."or der"'
        " USING btree (name)"
    )
    assert build.remove == statement


# -- life cycle --------------------------------------------------------------


@pytest.mark.parametrize(
    "index",
    [
        "by_name ON users (name)",
        "by_name ON users USING hash (name)",
        'by_name ON users (lower(name) text_pattern_ops, "a %s:x" DESC)'
        " INCLUDE (id) WITH (fillfactor='70') WHERE name <> 'a%b:c'",
        'by_name ON users (name COLLATE "C" DESC NULLS LAST) NULLS NOT DISTINCT',
    ],
)
def test_life_cycle(index: str, runner: Runner, sql: psycopg.Connection) -> None:
    """It goes after the hold, and comes back just as it was."""
    sql.execute('CREATE TABLE users (id int, name text, "a %s:x" int)')
    unique = "UNIQUE " if "NULLS NOT" in index else ""
    sql.execute(f"CREATE {unique}INDEX {index}".encode())
    defined = DEFINED.format("'users'::regclass").encode()
    before = sql.execute(defined).fetchall()
    change = Change(revision="a1", pattern=replace(DROP, assured="for the test"))

    def both() -> None:
        sql.execute("INSERT INTO users SELECT count(*), count(*)::text FROM users")

    assert runner.expand(change) is State.VERIFIED
    both()
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert sql.execute(defined).fetchall() == before
    assert runner.rollback("a1") is State.VERIFIED
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert runner.drop("a1") is State.DROPPED
    assert sql.execute(defined).fetchall() == []
    both()
    assert runner.rollback("a1") is State.VERIFIED
    assert sql.execute(defined).fetchall() == before
    both()
    assert runner.complete(change) is State.DROPPED
    assert sql.execute(defined).fetchall() == []
    assert runner.rollback("a1", to=State.PLANNED) is State.PLANNED
    assert sql.execute(defined).fetchall() == before


def test_an_index_that_is_scanned_in_the_hold_stays(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Scans before retire do not count, those after it do."""
    sql.execute("CREATE TABLE users (name text); CREATE INDEX by_name ON users (name)")
    sql.execute(SCAN)
    change = Change(revision="a1", pattern=DROP)
    runner.expand(change)
    runner.retire("a1", old_release_gone="test")
    sql.execute(SCAN)
    sql.execute(SCAN)
    with pytest.raises(Refused) as caught:
        runner.drop("a1")
    assert str(caught.value) == (
        'Step \'drop_index\' on table "public"."users" is refused: index'
        ' "by_name" was scanned 2 times since retire.'
        f"{NOTHING}keep it (`migrator rollback`); or roll back to planned and write"
        ' assured="why it may go" into the pattern.'
    )
    assert runner.rollback("a1") is State.VERIFIED
    runner.retire("a1", old_release_gone="nobody scans it now")
    assert runner.drop("a1") is State.DROPPED


@pytest.mark.parametrize("parts", [False, True], ids=["plain", "partitioned"])
def test_another_search_path(
    parts: bool, runner: Runner, sql: psycopg.Connection
) -> None:
    """It comes back over the function of its path, and is known by that."""
    sql.execute(
        "CREATE SCHEMA one; CREATE SCHEMA two; CREATE FUNCTION one.fold(text)"
        " RETURNS text IMMUTABLE RETURN pg_catalog.lower($1);"
        " CREATE FUNCTION two.fold(text) RETURNS text IMMUTABLE RETURN $1;"
        "CREATE TABLE users (id int, name text)"
        + (
            " PARTITION BY RANGE (id); CREATE TABLE a PARTITION OF users DEFAULT;"
            if parts
            else ";"
        )
        + " CREATE INDEX by_name ON users (one.fold(name)) WHERE one.fold(name) > ''"
    )
    defined = DEFINED.format("'users'::regclass").encode()
    before = sql.execute(defined).fetchall()
    path = f"ALTER DATABASE {sql.info.dbname} SET search_path ="
    sql.execute(f"{path} one, public".encode())
    runner.expand(Change(revision="a1", pattern=DROP))
    runner.retire("a1", old_release_gone="test")
    assert runner.drop("a1") is State.DROPPED
    sql.execute(f"{path} two, public".encode())
    sql.execute("CREATE INDEX by_name ON users (two.fold(name))")
    with pytest.raises(Refused, match="was given to another relation"):
        runner.rollback("a1")
    sql.execute("DROP INDEX by_name")
    # As a way back leaves it that is cut off behind the build.
    sql.execute(before[0][0].replace("ONLY ", "").encode())
    assert runner.rollback("a1", to=State.PLANNED) is State.PLANNED
    assert sql.execute(defined).fetchall() == before
    change = Change(revision="b2", pattern=DROP)
    assert runner.complete(change) is State.DROPPED
    sql.execute(f"{path} one, public".encode())
    assert runner.rollback("b2", to=State.PLANNED) is State.PLANNED
    assert sql.execute(defined).fetchall() == before


# -- locks -------------------------------------------------------------------


def test_a_lock_in_the_way_makes_it_give_up(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """Behind a lock that is not given, the drop ends in time; the index is valid."""
    sql.execute("CREATE TABLE users (name text); CREATE INDEX by_name ON users (name)")
    change = Change(revision="a1", pattern=DROP)
    runner.expand(change)
    runner.retire("a1", old_release_gone="test")
    runner.settings = Settings(lock_timeout_ms=50, build_budget_s=0.2, hold_s=0)
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE users IN SHARE UPDATE EXCLUSIVE MODE")
        with pytest.raises(LockBudgetError):
            runner.drop("a1")
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'by_name'::regclass"
    assert sql.execute(valid.encode()).fetchall() == [(True,)]
    assert runner.drop("a1") is State.DROPPED


# -- messages ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            replace(USERS, indexes=(replace(INDEX, name="other"),)),
            'Table "public"."users" has no index "by_name".'
            f'{NOTHING}correct the name; the table has "other".',
        ),
        (
            replace(USERS, indexes=(replace(INDEX, constraints=("k",)),)),
            'Index "by_name" of table "public"."users" carries constraint "k".'
            f"{NOTHING}drop the constraint first; the index of a primary key or unique"
            " constraint goes with it.",
        ),
        (
            replace(USERS, indexes=(replace(INDEX, replica_identity=True),)),
            'Index "by_name" of table "public"."users" is the table\'s replica'
            " identity: without it its updates cannot be replicated."
            f"{NOTHING}give the table another one first (ALTER TABLE … REPLICA"
            " IDENTITY).",
        ),
        (
            replace(USERS, indexes=(replace(INDEX, unique=True),)),
            'drop index "by_name" of table "users": Index "by_name" is unique: without'
            " it rows may be equal, and ON CONFLICT on its columns fails."
            f'{NOTHING}look into it, then write assured="why it is safe here" into the'
            " pattern.",
        ),
    ],
)
def test_message(table: Table, message: str) -> None:
    """What rests on the index is named, with a way out."""
    with pytest.raises(Refused) as caught:
        DROP.check(facts(table))
    assert str(caught.value) == message


def test_what_rests_on_an_index_is_read(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """A constraint, a foreign key elsewhere and the replica identity are seen."""
    sql.execute(
        "CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL, code int);"
        " CREATE UNIQUE INDEX by_name ON users (name);"
        " CREATE UNIQUE INDEX by_code ON users (code);"
        " CREATE TABLE orders (code int CONSTRAINT k REFERENCES users (code));"
        " ALTER TABLE users REPLICA IDENTITY USING INDEX by_name"
    )
    for name, said in (
        ("users_pkey", 'carries constraint "users_pkey"'),
        ("by_code", 'carries constraint "k"'),
        ("by_name", "replica identity"),
    ):
        with pytest.raises(Refused, match=said):
            runner.expand(Change(revision=name, pattern=DropIndex("users", name)))


def test_notice() -> None:
    """A reviewer reads how often it was used."""
    (notice,) = DROP.check(facts())
    assert notice.text == (
        "It was scanned 7 times on this server since statistics were reset; scans of"
        " standbys are not known here. Once it was scanned between retire and drop, the"
        ' drop is refused without assured="reason".'
    )


@pytest.mark.parametrize("parts", ["", PARTS], ids=["plain", "partitioned"])
def test_an_index_comes_back_as_it_was(
    parts: str, runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """Behind its drop it is built again with its marks, comment and tablespace."""
    more = parts or "ALTER TABLE people CLUSTER ON one;"
    of = "PARTITION BY HASH (id)" if parts else ""
    with roles(database) as role:
        made = f"{MARKED}{more}{TARGET}".format(of=of, r=role)
        sql.execute(made.encode())
        go_and_come_back(runner, sql)


def go_and_come_back(runner: Runner, sql: psycopg.Connection) -> None:
    """Drop what there is, and take that back."""
    before = snapshot(sql)
    for number, pattern in enumerate(
        (
            DropConstraint("people", "one", assured="tried"),
            DropIndex("people", "loud", assured="tried"),
            ReplaceIndex("people", "loud", ["n"], assured="tried"),
        )
    ):
        name = f"a{number}"
        runner.expand(Change(revision=name, pattern=pattern))
        runner.settle(name)
        runner.retire(name, old_release_gone="test")
        if number:
            assert runner.drop(name) is State.DROPPED
        assert snapshot(sql) != before
        runner.rollback(name, to=State.PLANNED)
        same(snapshot(sql), before)
