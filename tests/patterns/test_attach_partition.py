"""AttachPartition: its text, its life, that nothing is scanned, its messages."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import psycopg
import pytest
from locks import holding, taken

from migrator.change import Change
from migrator.errors import Failed, LockBudgetError, Refused
from migrator.facts import Facts, Index, IndexColumn, Table
from migrator.names import TableName
from migrator.patterns import AttachPartition
from migrator.plan import Autocommit, Lock, Phase, State, Step, Transaction
from migrator.runner import Runner
from migrator.settings import Settings

ATTACH = AttachPartition("events", "part", "FROM ('2026-01-01') TO ('2026-02-01')")
CHANGE = Change(revision="a1", pattern=ATTACH)
EMPTY = replace(CHANGE, pattern=replace(ATTACH, assured="nothing comes before"))
NOTHING = "\nNothing was changed.\nNext: "
SETUP = (
    "CREATE TABLE users (id int PRIMARY KEY); INSERT INTO users VALUES (1);"
    " CREATE TABLE events (id bigint, at timestamptz, n int CHECK (n > 0),"
    " by_user int REFERENCES users, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);"
    " CREATE INDEX ON events (lower(n::text)) WHERE n > 1;"
    " CREATE TABLE events_old PARTITION OF events"
    " FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');"
    " CREATE TABLE part (LIKE events INCLUDING CONSTRAINTS,"
    " FOREIGN KEY (by_user) REFERENCES users);"
    " INSERT INTO part SELECT g, '2026-01-02', g, 1 FROM generate_series(1, 50) g;"
)
DEFAULT = SETUP + "CREATE TABLE rest PARTITION OF events DEFAULT;"


# -- text --------------------------------------------------------------------


def test_text_with_hostile_names() -> None:
    """The server's condition and the user's bounds are kept to the letter."""
    table, part = TableName("my sch", 'p "%s'), TableName("my sch", 'c "%s:x')
    rest = Table(
        name=TableName("my sch", "rest"),
        oid=3,
        columns=(),
        parent=table,
        bounds="DEFAULT",
    )
    index = Index(
        name="i",
        method="btree",
        keys=(IndexColumn(name="a"),),
        spelt="USING btree (a)",
        columns=("a",),
    )
    given = Facts(
        server_version=180000,
        tag="0123456789",
        table=Table(
            name=table,
            oid=1,
            columns=(),
            kind="p",
            partition_by="LIST (a)",
            partitions=(rest,),
            indexes=(index,),
        ),
        others=(Table(name=part, oid=2, columns=()),),
        texts={"check": "(a = '%s:x'::text)"},
    )
    pattern = AttachPartition(table.name, part.name, "IN ('%s:x')")
    child, parent = '"my sch"."c ""%s:x"', '"my sch"."p ""%s"'
    holds = '"_migrator_check_c ""%s:x_0123456789"'
    lacks = '"_migrator_default_c ""%s:x_0123456789"'
    steps = pattern.expand(given)
    assert [statements(step)[-1] for step in steps[:-1]] == [
        f"ALTER TABLE {child} ADD CONSTRAINT {holds}"
        " CHECK (((a = '%s:x'::text))) NOT VALID",
        f"ALTER TABLE {child} VALIDATE CONSTRAINT {holds}",
        f'CREATE INDEX CONCURRENTLY "c ""%s:x_a_1_0123456789" ON {child}'
        " USING btree (a)",
        f'ALTER TABLE "my sch"."rest" ADD CONSTRAINT {lacks}'
        " CHECK (NOT (((a = '%s:x'::text)))) NOT VALID",
        f'ALTER TABLE "my sch"."rest" VALIDATE CONSTRAINT {lacks}',
    ]
    assert statements(steps[-1]) == (
        f'LOCK TABLE {child}, "my sch"."rest" IN ACCESS EXCLUSIVE MODE',
        f"LOCK TABLE ONLY {parent} IN SHARE UPDATE EXCLUSIVE MODE",
        f"ALTER TABLE {parent} ATTACH PARTITION {child} FOR VALUES IN ('%s:x')",
        f"ALTER TABLE {child} DROP CONSTRAINT {holds}",
        f'ALTER TABLE "my sch"."rest" DROP CONSTRAINT {lacks}',
    )
    (back,) = steps[-1].reverse
    assert isinstance(back, Transaction)
    assert back.statements[1] == f"ALTER TABLE {parent} DETACH PARTITION {child}"


def statements(step: Step) -> tuple[str, ...]:
    """Return what a step runs."""
    if isinstance(step.work, Autocommit):
        return (step.work.statement,)
    assert isinstance(step.work, Transaction)
    return step.work.statements


# -- life cycle --------------------------------------------------------------


def shape(sql: psycopg.Connection) -> list[tuple[object, ...]]:
    """Return constraints and indexes of the table and its partitions."""
    return sql.execute(
        "SELECT conrelid::regclass::text, conname::text, pg_get_constraintdef(oid),"
        " convalidated, coninhcount FROM pg_constraint"
        " WHERE conrelid::regclass::text IN ('part', 'rest', 'events')"
        " UNION ALL SELECT indrelid::regclass::text, indexrelid::regclass::text,"
        " pg_get_indexdef(indexrelid), indisvalid, NULL FROM pg_index"
        " WHERE indrelid::regclass::text IN ('part', 'rest', 'events') ORDER BY 1, 2, 3"
    ).fetchall()


@pytest.mark.parametrize("setup", [SETUP, DEFAULT], ids=["alone", "default"])
def test_life_cycle(setup: str, runner: Runner, sql: psycopg.Connection) -> None:
    """It is part of the table, indexes and keys are its parent's; and it goes again."""
    sql.execute(setup.encode())
    change = EMPTY if setup is DEFAULT else CHANGE
    before = shape(sql)
    count = "SELECT count(*) FROM events WHERE at >= '2026-01-01'"
    for _ in range(2):
        assert runner.expand(change) is State.VERIFIED
        assert runner.change("a1").finished
        assert sql.execute(count.encode()).fetchone() == (50,)
        sql.execute("INSERT INTO events VALUES (99, '2026-01-31 23:00+00', 9, 1)")
        for wrong in ("(1, '2026-01-02', 1, 1)", "(1, '2026-01-03', 1, 2)"):
            with pytest.raises(psycopg.errors.IntegrityError):
                sql.execute(f"INSERT INTO events VALUES {wrong}".encode())
        attached = (
            "SELECT count(*) FROM pg_inherits WHERE inhrelid IN"
            " (SELECT indexrelid FROM pg_index WHERE indrelid = 'part'::regclass)"
        )
        assert sql.execute(attached.encode()).fetchone() == (2,)
        checks = (
            "SELECT count(*) FROM pg_constraint WHERE conname LIKE '%migrator_check%'"
            " OR conname LIKE '%migrator_default%'"
        )
        assert sql.execute(checks.encode()).fetchone() == (0,)
        assert runner.rollback("a1", to=State.PLANNED) is State.PLANNED
        assert sql.execute(count.encode()).fetchone() == (0,)
        assert sql.execute("DELETE FROM part WHERE id = 99").rowcount == 1
        assert shape(sql) == before


@pytest.mark.parametrize(
    ("columns", "by", "bounds", "row"),
    [
        ("a text, b int", "LIST (a)", "IN ('x', NULL)", "NULL, 1"),
        (
            "a int, b date",
            "RANGE (a, b)",
            "FROM (1, MINVALUE) TO (2, '2026-01-01')",
            "1, '2027-01-01'",
        ),
        ('a varchar(9) COLLATE "C", b int', "LIST (lower(a))", "IN ('x')", "'X', 1"),
        ("a numeric, b int", "RANGE ((a + 1))", "FROM (1) TO (3)", "1, 1"),
    ],
)
def test_nothing_is_scanned(
    columns: str,
    by: str,
    bounds: str,
    row: str,
    runner: Runner,
    sql: psycopg.Connection,
) -> None:
    """The server says itself that the checks imply the bounds, by whatever key."""
    sql.execute(
        f"CREATE TABLE p ({columns}) PARTITION BY {by}; CREATE INDEX ON p (b);"
        f" CREATE TABLE rest PARTITION OF p DEFAULT; CREATE TABLE c ({columns});"
        f" INSERT INTO c VALUES ({row})".encode()
    )
    pattern = AttachPartition("p", "c", bounds, assured="tried")
    words = said(runner, sql, Change(revision="a1", pattern=pattern))
    assert [w for w in words if "implied by existing" in w] == [
        'partition constraint for table "c" is implied by existing constraints',
        'updated partition constraint for default partition "rest" is implied by'
        " existing constraints",
    ]
    assert not [w for w in words if w.startswith(("verifying", "building"))]
    assert sql.execute("SELECT count(*) FROM p").fetchone() == (1,)


def said(runner: Runner, sql: psycopg.Connection, change: Change) -> list[str]:
    """Run a change's steps by hand; return what the server says of the last one."""
    *steps, last = runner.plan(change).phases[Phase.EXPAND]
    for step in steps:
        with conn_of(sql, step):
            for statement in statements(step):
                sql.execute(statement.encode())
    words: list[str] = []
    sql.add_notice_handler(lambda told: words.append(told.message_primary or ""))
    with sql.transaction():
        sql.execute("SET LOCAL client_min_messages = debug1")
        for statement in statements(last):
            sql.execute(statement.encode())
    return words


def conn_of(
    sql: psycopg.Connection, step: Step
) -> AbstractContextManager[object, bool | None]:
    """Return what a step's statements run in."""
    alone = isinstance(step.work, Autocommit)
    return nullcontext() if alone else sql.transaction()


def test_nothing_is_read_for_keys(runner: Runner, sql: psycopg.Connection) -> None:
    """A foreign key has its like; a unique index is none of a key's."""
    sql.execute(SETUP)
    sql.execute("CREATE UNIQUE INDEX ON part (id, at)")
    words = said(runner, sql, CHANGE)
    assert not [w for w in words if w.startswith(("verifying", "building", "valid"))]
    assert sql.execute(
        "SELECT count(*) FROM pg_constraint WHERE conrelid = 'part'::regclass"
        " AND contype = 'f' AND conparentid <> 0"
    ).fetchone() == (1,)


# -- locks -------------------------------------------------------------------


def test_locks_are_those_claimed(runner: Runner, sql: psycopg.Connection) -> None:
    """The parent and what it refers to are read all the time."""
    sql.execute(DEFAULT)
    *steps, last = runner.plan(EMPTY).phases[Phase.EXPAND]
    for step in steps:
        if isinstance(step.work, Autocommit):
            assert step.work.lock is Lock.SHARE_UPDATE_EXCLUSIVE
        with conn_of(sql, step):
            for statement in statements(step):
                sql.execute(statement.encode())
    assert isinstance(last.work, Transaction)
    claimed = {str(a.table): a.lock for a in last.work.also}
    claimed[str(last.work.table)] = last.work.lock
    tables = ("part", "rest", "events", "users", "events_old")
    found = taken(sql, last.work, *tables)
    assert found.pop("events_old") is Lock.NONE
    assert claimed == {f'"public"."{name}"': lock for name, lock in found.items()}
    assert found["events"] is Lock.SHARE_UPDATE_EXCLUSIVE
    (back,) = last.reverse
    assert isinstance(back, Transaction)
    for statement in statements(last):
        with sql.transaction():
            sql.execute(statement.encode())
    found = taken(sql, back, "events", "users")
    assert {str(a.table): a.lock for a in back.also} == {
        '"public"."users"': found["users"]
    }
    assert found["events"] is back.lock is Lock.ACCESS_EXCLUSIVE


@pytest.mark.parametrize("held", ["part", "rest", "users"])
def test_a_request_makes_it_give_up(
    held: str, runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """Whoever is in the way is named; the next try goes on from there."""
    sql.execute(DEFAULT)
    runner.settings = Settings(lock_timeout_ms=50, step_budget_s=0.2, build_budget_s=1)
    with (
        holding(database, held, "ROW EXCLUSIVE"),
        pytest.raises(LockBudgetError, match='application "billing"'),
    ):
        runner.expand(EMPTY)
    runner.settings = Settings()
    assert runner.expand(EMPTY) is State.VERIFIED


# -- messages ----------------------------------------------------------------

SERVER = 'Table "public"."part" cannot be attached to "public"."events": '
FIT = (
    f"{NOTHING}make it fit: columns, types, NOT NULL and checks are the parent's, the"
    " bounds those of no other partition."
)


@pytest.mark.parametrize(
    ("made", "pattern", "message"),
    [
        (
            "SELECT 1",
            replace(ATTACH, bounds="FROM ('2025-06-01') TO ('2026-02-01')"),
            f'{SERVER}partition "migrator_part" would overlap partition',
        ),
        ("SELECT 1", replace(ATTACH, bounds="nonsense"), f"{SERVER}syntax error"),
        (
            "ALTER TABLE part ALTER id DROP NOT NULL",
            ATTACH,
            'column "id" in child table',
        ),
        ("ALTER TABLE part ADD extra int", ATTACH, "not found in parent"),
        ("ALTER TABLE part DROP CONSTRAINT events_n_check", ATTACH, FIT),
        (
            "ALTER TABLE part DROP CONSTRAINT part_by_user_fkey",
            ATTACH,
            'Table "public"."part" has not the foreign key of its parent'
            ' "events_by_user_fkey" (FOREIGN KEY (by_user) REFERENCES'
            " public.users(id)): the server would look up all rows under ACCESS"
            f" EXCLUSIVE.{NOTHING}add it to the table first, by AddForeignKey.",
        ),
        (
            "CREATE TABLE x (a bigint, b timestamptz, FOREIGN KEY (a, b) REFERENCES"
            " events)",
            ATTACH,
            'Foreign key "x_a_b_fkey" of table "public"."x" refers to'
            ' "public"."events": to detach a partition the server looks up all rows of'
            f" that table, and stops whoever uses it.{NOTHING}drop that foreign key"
            " first, by a change of its own.",
        ),
        (
            "CREATE TABLE rest PARTITION OF events DEFAULT",
            ATTACH,
            'attach partition "part" to table "events": From the check on'
            ' "public"."rest" until the table is attached, rows within the bounds are'
            " refused, of either release: attach it before they come."
            f'{NOTHING}look into it, then write assured="why it is safe here" into the'
            " pattern.",
        ),
        (
            "CREATE TABLE rest PARTITION OF events DEFAULT;"
            " INSERT INTO events VALUES (1, '2026-01-05')",
            replace(ATTACH, assured="none comes"),
            'Partition "public"."rest" has rows within the bounds of "public"."part".'
            f"{NOTHING}move them to the table first.",
        ),
        (
            "SELECT 1",
            replace(ATTACH, table="users"),
            f'Table "public"."users" is not partitioned.{NOTHING}name one that is.',
        ),
        (
            "SELECT 1",
            replace(ATTACH, partition="events_old"),
            'Table "public"."events_old" is a partition of "public"."events" already.'
            f"{NOTHING}name another table, or detach it first.",
        ),
        (
            "CREATE VIEW v AS SELECT 1",
            replace(ATTACH, partition="v"),
            'Table "public"."v" is partitioned, foreign, temporary, a view, or takes'
            f" part in inheritance.{NOTHING}attach it with plain SQL, in a maintenance"
            " window.",
        ),
        (
            "CREATE TABLE h (id int) PARTITION BY HASH (id); CREATE TABLE c (id int)",
            AttachPartition("h", "c", "WITH (MODULUS 2, REMAINDER 0)"),
            'Table "public"."h" is partitioned by hash: a CHECK that implies the bounds'
            f" of one names the parent by its number.{NOTHING}attach it with plain SQL,"
            " in a maintenance window.",
        ),
        (
            "CREATE TABLE deep PARTITION OF events FOR VALUES FROM ('2030-01-01') TO"
            " ('2031-01-01') PARTITION BY RANGE (at)",
            replace(ATTACH, table="deep"),
            'Table "public"."deep" is a partition itself, of "public"."events": what'
            " its partitions take follows from more than its own bounds."
            f"{NOTHING}use plain SQL, with a CHECK over the bounds of all levels.",
        ),
        (
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN RETURN NEW; END'; CREATE TRIGGER f BEFORE INSERT ON events"
            " FOR EACH ROW EXECUTE FUNCTION f(); CREATE TRIGGER f BEFORE INSERT ON part"
            " FOR EACH ROW EXECUTE FUNCTION f()",
            ATTACH,
            'Table "public"."part" has a trigger "f" of its own; that of the parent'
            f" would take its name.{NOTHING}drop it first: rows of a partition fire the"
            " parent's.",
        ),
    ],
)
def test_message(
    made: str,
    pattern: AttachPartition,
    message: str,
    runner: Runner,
    sql: psycopg.Connection,
) -> None:
    """What would need a scan, or does not fit, is refused with the way out."""
    sql.execute(SETUP)
    sql.execute(made.encode())
    with pytest.raises(Refused) as caught:
        runner.expand(Change(revision="a1", pattern=pattern))
    assert message in str(caught.value)


def test_a_row_outside_of_the_bounds(runner: Runner, sql: psycopg.Connection) -> None:
    """The proof fails, nothing is attached, and rollback takes the check off."""
    sql.execute(SETUP)
    sql.execute("INSERT INTO part VALUES (1, '2026-03-01', 1, 1)")
    before = shape(sql)
    with pytest.raises(Failed, match="is violated by some row"):
        runner.expand(CHANGE)
    runner.rollback("a1", to=State.PLANNED)
    assert shape(sql) == before
    sql.execute("DELETE FROM part WHERE at > '2026-02-01'")
    assert runner.expand(CHANGE) is State.VERIFIED
