"""What the pages of patterns show runs as it stands, and locks what they say."""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

import migrator.patterns
from migrator.change import Change
from migrator.cli.patterns import Entry
from migrator.pattern import Pattern
from migrator.patterns import CATALOGUE
from migrator.plan import Lock, Transaction
from migrator.runner import Runner

DOCS = Path(__file__).parent.parent / "docs" / "patterns"
#: The longest first: one mode's name may end as another one's does.
NAMES = sorted((k.value for k in Lock if k is not Lock.NONE), key=len, reverse=True)
MODES = {
    f"{''.join(w.capitalize() for w in lock.value.split())}Lock": lock for lock in Lock
}
USERS = (
    "CREATE TABLE users (id int PRIMARY KEY, email text, name text, nickname text,"
    " mail text, tenant int); INSERT INTO users VALUES (1, 'A@b', 'An Na', 'a', 'm', 1)"
)
ORDERS = (
    "CREATE TABLE orders (id int PRIMARY KEY, user_id int, price numeric, amount int,"
    " customer int, customer_name text, customer_email text, refunded bool, total int,"
    " paid_at date); INSERT INTO orders VALUES (1, 1, 2, 3, 1, 'n', 'e')"
)
REFERRING = (
    f"{USERS}; {ORDERS};"
    " ALTER TABLE orders ADD CONSTRAINT orders_user FOREIGN KEY (user_id)"
    " REFERENCES users"
)
STATED = (
    f"{ORDERS}; CREATE TYPE order_state AS ENUM ({{}});"
    " ALTER TABLE orders ADD state order_state"
)
INDEXED = f"{USERS}; CREATE INDEX ix_users_email ON users (email)"
PROFILES = "CREATE TABLE profiles (user_id int PRIMARY KEY REFERENCES users"
EVENTS = (
    "CREATE TABLE events (id int, at date NOT NULL, payload jsonb, PRIMARY KEY (id));"
    " INSERT INTO events VALUES (1, '2026-02-03', '{\"name\": 1, \"version\": 1}')"
)
PARTED = (
    "CREATE TABLE events (year int) PARTITION BY LIST (year);"
    " CREATE TABLE events_2020 PARTITION OF events FOR VALUES IN (2020);"
    " CREATE TABLE events_2025 (year int)"
)
STAYS = (
    "CREATE EXTENSION btree_gist;"
    " CREATE TABLE stays (id int PRIMARY KEY, room int, during tsrange)"
)


@dataclass(frozen=True)
class Page:
    """
    The tables of a page.

    Args:
        setup: what makes them.
        fails: what the server says to the Bad form.
    """

    setup: str
    fails: type[psycopg.Error] | None = None


PAGES = {
    "AddCheck": Page(ORDERS),
    "AddColumn": Page(f"{ORDERS}; ALTER TABLE orders DROP total"),
    "AddEnumValue": Page(
        STATED.format("'payed', 'paid'"),
        # "unsafe use of new value"
        psycopg.errors.UnsafeNewEnumValueUsage,
    ),
    "AddExclusion": Page(STAYS),
    "AddForeignKey": Page(f"{USERS}; {ORDERS}"),
    "AddPrimaryKey": Page(f"{USERS}; ALTER TABLE users DROP CONSTRAINT users_pkey"),
    "AddUnique": Page(USERS),
    "AttachPartition": Page(PARTED),
    "ChangeColumnType": Page(
        "CREATE TABLE items (id int PRIMARY KEY, amount int);"
        " CREATE TABLE logs (id int PRIMARY KEY, at timestamp)"
    ),
    "ChangeDomain": Page(
        f"CREATE DOMAIN price AS int; {ORDERS}; ALTER TABLE orders ADD cost price"
        " DEFAULT 1"
    ),
    "ChangePrimaryKey": Page(REFERRING),
    "CreateIndex": Page(USERS),
    "CreateTable": Page(USERS),
    "Custom": Page(
        f"{ORDERS}; CREATE FUNCTION count_orders() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN RETURN NULL; END'"
    ),
    "DetachPartition": Page(PARTED),
    "DropColumn": Page(USERS),
    "DropConstraint": Page(REFERRING),
    "DropDefault": Page(f"{ORDERS}; ALTER TABLE orders ADD state text DEFAULT 'x'"),
    "DropIndex": Page(INDEXED),
    "DropNotNull": Page(f"{USERS}; ALTER TABLE users ALTER email SET NOT NULL"),
    "DropTable": Page("CREATE TABLE old_orders (id int PRIMARY KEY)"),
    "EvolveJson": Page(EVENTS),
    "ExtractTable": Page(
        f"{ORDERS}; CREATE TABLE posts (id int PRIMARY KEY, tags text[])"
    ),
    "MergeColumns": Page(
        "CREATE TABLE people (id int PRIMARY KEY, first text, last text)"
    ),
    "MergeTables": Page(f"{USERS}; {PROFILES}, bio text, age int)"),
    "MoveColumn": Page(f"{USERS}; ALTER TABLE users ADD bio text; {PROFILES})"),
    "MoveToSchema": Page("CREATE SCHEMA billing; CREATE TABLE invoices (id int)"),
    "PartitionTable": Page(EVENTS.replace("(id))", "(id, at))")),
    "RebuildTable": Page(EVENTS),
    "RefreshMaterializedView": Page(
        f"{ORDERS}; CREATE MATERIALIZED VIEW sales_by_month AS SELECT paid_at,"
        " sum(total) FROM orders GROUP BY paid_at;"
        " CREATE UNIQUE INDEX ON sales_by_month (paid_at)"
    ),
    "Reindex": Page(INDEXED),
    "RemoveEnumValue": Page(STATED.format("'lost', 'cancelled'")),
    "RenameColumn": Page(USERS),
    "RenameConstraint": Page(
        f"{ORDERS}; ALTER TABLE orders ADD CONSTRAINT orders_check CHECK (price > 0)"
    ),
    "RenameEnumValue": Page(STATED.format("'payed', 'lost'")),
    "RenameTable": Page(USERS),
    "ReplaceCheck": Page(
        f"{ORDERS}; ALTER TABLE orders ADD CONSTRAINT price_positive CHECK (price > 0)"
    ),
    "ReplaceForeignKey": Page(REFERRING),
    "ReplaceFunction": Page(
        f"{ORDERS}; CREATE FUNCTION total(customer integer) RETURNS bigint LANGUAGE sql"
        " AS 'SELECT 1::bigint'"
    ),
    "ReplaceIndex": Page(INDEXED),
    "ReplaceView": Page(f"{ORDERS}; CREATE VIEW sales AS SELECT id, total FROM orders"),
    "SetDefault": Page(f"{ORDERS}; ALTER TABLE orders ADD state text"),
    "SetNotNull": Page(USERS),
    # Neither statement runs in a transaction of a test.
    "SetParameter": Page("", psycopg.errors.ActiveSqlTransaction),
    "SplitColumn": Page(USERS),
    "SplitTable": Page(f"{USERS}; ALTER TABLE users ADD bio text, ADD avatar bytea"),
    "TransformColumn": Page(
        f"{USERS}; CREATE TABLE bills (id int PRIMARY KEY, price numeric DEFAULT 0)"
    ),
}


@pytest.fixture(scope="module")
def place(shared_database: str) -> Iterator[psycopg.Connection]:
    """Give a connection to a database that all pages share, and a role of one."""
    with psycopg.connect(shared_database, autocommit=True) as sql:
        sql.execute("CREATE ROLE reports; SET allow_in_place_tablespaces = on")
        sql.execute("CREATE TABLESPACE fast LOCATION ''")
        yield sql
        sql.execute("DROP TABLESPACE fast")
        sql.execute("DROP ROLE reports")


@pytest.fixture
def database(shared_database: str) -> str:
    """Give the module's database to the engine."""
    return shared_database


def named(text: str) -> set[Lock]:
    """Return the lock modes that a text has."""
    return {Lock(name) for name in re.findall("|".join(NAMES), " ".join(text.split()))}


def strongest(locks: set[Lock]) -> Lock:
    """Return the strongest of some."""
    return max(locks, key=lambda lock: lock.rank, default=Lock.NONE)


def taken(sql: psycopg.Connection, statements: str) -> Lock:
    """Run statements, take them back, and return the strongest lock they took."""
    was = sql.execute(
        "SELECT array_agg(oid) FROM pg_class"
        " WHERE relnamespace = 'public'::regnamespace"
    ).fetchone()
    with sql.transaction(force_rollback=True):
        for statement in statements.split(";\n"):
            # A vacuum stands alone, and a test's transaction is one already.
            if not re.match(r"(BEGIN|COMMIT|VACUUM)\b", statement):
                sql.execute(statement.encode())
        found = sql.execute(
            "SELECT mode FROM pg_locks WHERE pid = pg_backend_pid()"
            " AND relation = ANY (%s)",
            was,
        ).fetchall()
    return strongest({MODES[mode] for (mode,) in found})


def made(sql: psycopg.Connection, page: Page) -> None:
    """Make the tables of a page, and nothing else."""
    sql.execute("DROP SCHEMA public CASCADE; DROP SCHEMA IF EXISTS billing CASCADE")
    sql.execute("CREATE SCHEMA public")
    sql.execute(page.setup.encode())


each = pytest.mark.parametrize("pattern", CATALOGUE, ids=lambda p: p.__name__)


@each
def test_the_bad_form_locks_what_the_page_says(
    pattern: type[Pattern], place: psycopg.Connection
) -> None:
    """It runs as it stands, and its strongest lock is the strongest that is named."""
    page, bad = PAGES[pattern.__name__], Entry.of(pattern).bad
    made(place, page)
    _, text, told = bad.split("```")
    statements = text.removeprefix("sql\n").strip()
    if page.fails is not None:
        with pytest.raises(page.fails):
            taken(place, statements)
        return
    found = taken(place, statements)
    if said := named(told):
        assert found is strongest(said)
    else:
        # What writes rows is told by the rows that it holds; ACCESS SHARE is no lock
        # that anybody waits for.
        assert found.rank <= Lock.ACCESS_SHARE.rank or "no lock" not in told.lower()


def examples(pattern: type[Pattern]) -> Iterator[Pattern]:
    """Yield what the Python of a page makes, each of it."""
    stem = pattern.__module__.rpartition(".")[2]
    text = (DOCS / f"{stem}.md").read_text()
    blocks = re.findall(r"^ *```python\n(.*?)^ *```$", text, re.M | re.S)
    for block in map(textwrap.dedent, blocks):
        for one in re.split(r"^(?:change = )?(?=\w+\()", block, flags=re.M):
            if one.strip():
                yield eval(one, dict(vars(migrator.patterns)))


@each
def test_the_good_form_locks_what_the_page_says(
    pattern: type[Pattern], place: psycopg.Connection, runner: Runner
) -> None:
    """Each example is taken as it stands, and the page names its strongest lock."""
    page = PAGES[pattern.__name__]
    stem = pattern.__module__.rpartition(".")[2]
    text = (DOCS / f"{stem}.md").read_text()
    made(place, page)
    for given in examples(pattern):
        if "virtual" in repr(given) and place.info.server_version < 180000:
            continue
        plan = runner.plan(Change(revision="a1", pattern=given))
        locks: set[Lock] = set()
        for phase in plan.phases.values():
            for step in phase:
                work = step.work
                locks.add(work.lock)
                if isinstance(work, Transaction):
                    locks |= {a.lock for a in work.also}
        found = strongest(locks)
        assert found is Lock.NONE or found in named(text.partition("## Good")[2])
        assert found.rank <= Entry.of(pattern).strongest.strength.rank


def test_no_page_is_left_out() -> None:
    """A pattern that is added to the catalogue has to be added above."""
    assert {*PAGES} == {p.__name__ for p in CATALOGUE}
