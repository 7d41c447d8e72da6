"""RebuildTable: its life, and what goes over to the new table."""

from dataclasses import replace

import psycopg
import pytest
from locks import taken
from snapshots import same, snapshot
from tables import rows

from migrator.change import Change
from migrator.errors import Refused
from migrator.ledger import installation
from migrator.patterns import RebuildTable
from migrator.plan import Lock, Phase, State, Transaction
from migrator.postgres.connection import connect
from migrator.runner import Runner

SETUP = (
    "CREATE TABLE towns (id int PRIMARY KEY); INSERT INTO towns VALUES (1), (2);"
    "CREATE TABLE events (id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT one"
    " PRIMARY KEY, number serial, town int NOT NULL DEFAULT 1 CONSTRAINT home"
    " REFERENCES towns ON DELETE CASCADE, parent bigint CONSTRAINT up REFERENCES"
    ' events DEFERRABLE, note text COLLATE "C" CONSTRAINT short CHECK'
    " (length(note) < 99), loud text GENERATED ALWAYS AS (upper(note)) STORED,"
    " CONSTRAINT numbered UNIQUE (town, number)) WITH (fillfactor = 90);"
    "CREATE TABLE likes (event bigint CONSTRAINT liked REFERENCES events"
    " ON DELETE CASCADE);"
    "CREATE INDEX events_note ON events (lower(note) DESC) WHERE note <> '';"
    "COMMENT ON TABLE events IS 'all'; COMMENT ON COLUMN events.note IS 'text';"
    "ALTER TABLE events ALTER note SET STATISTICS 7, ALTER note SET STORAGE EXTERNAL;"
    "CREATE TABLE audit (what text);"
    "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS"
    " 'BEGIN INSERT INTO audit VALUES (TG_OP); RETURN NULL; END';"
    "CREATE TRIGGER a_audit AFTER INSERT OR UPDATE OF note ON events FOR EACH ROW"
    " EXECUTE FUNCTION note(); ALTER TABLE events ENABLE ALWAYS TRIGGER a_audit;"
    "CREATE TRIGGER b_off AFTER DELETE ON events FOR EACH ROW"
    " EXECUTE FUNCTION note(); ALTER TABLE events DISABLE TRIGGER b_off;"
    "INSERT INTO events (note) SELECT 'n' || g FROM generate_series(1, 3000) g;"
    "UPDATE events SET parent = id - 1 WHERE id % 2 = 0;"
    "INSERT INTO likes SELECT id FROM events WHERE id % 3 = 0;"
    "TRUNCATE audit"
)
PATTERN = RebuildTable("events", alter=["SET (fillfactor = 50)"], assured="test")
CHANGE = Change(revision="r", pattern=PATTERN)
ALL = "SELECT * FROM events ORDER BY id"
SHAPE = (
    "SELECT 'c', attname::text, format_type(atttypid, atttypmod), attnotnull::text,"
    " pg_get_expr(adbin, adrelid), concat(attidentity, attgenerated, attstorage,"
    " attstattarget, attcollation, col_description(attrelid, attnum)) FROM pg_attribute"
    " LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum"
    " WHERE attrelid = 'events'::regclass AND attnum > 0 AND NOT attisdropped"
    " UNION ALL SELECT 'i', indexrelid::regclass::text, pg_get_indexdef(indexrelid),"
    " indisvalid::text, indisprimary::text, '' FROM pg_index"
    " WHERE indrelid = 'events'::regclass"
    " UNION ALL SELECT 'k', conname, pg_get_constraintdef(oid), convalidated::text,"
    " conrelid::regclass::text, '' FROM pg_constraint"
    " WHERE 'events'::regclass IN (conrelid, confrelid)"
    " UNION ALL SELECT 't', tgname, pg_get_triggerdef(oid), tgenabled::text, '', ''"
    " FROM pg_trigger WHERE tgrelid = 'events'::regclass AND NOT tgisinternal"
    " UNION ALL SELECT 's', relname, relkind::text, pg_get_serial_sequence("
    "'events', 'number'), '', '' FROM pg_class WHERE relkind = 'S'"
    " AND relnamespace = 'public'::regnamespace UNION ALL"
    " SELECT 'r', relname, obj_description(oid), relacl::text, relreplident::text, ''"
    " FROM pg_class WHERE oid = 'events'::regclass"
    " UNION ALL SELECT 'f', proname, '', '', '', '' FROM pg_proc"
    " WHERE proname LIKE 'mirror%%' ORDER BY 1, 2, 3"
).replace("%%", "%")


def test_life_cycle(runner: Runner, sql: psycopg.Connection) -> None:
    """All that hangs on the table is there again, at retire and after the drop."""
    sql.execute(SETUP.encode())
    shape = rows(sql, SHAPE)
    assert runner.expand(CHANGE) is State.EXPANDED
    assert runner.backfill("r") is State.BACKFILLED
    sql.execute("INSERT INTO events (note) VALUES ('between')")
    sql.execute("DELETE FROM events WHERE id = 3000")
    assert runner.verify("r") is State.VERIFIED
    everything = rows(sql, ALL)
    assert runner.retire("r", old_release_gone="test") is State.RETIRED
    assert rows(sql, ALL) == everything
    assert rows(sql, "SELECT what, count(*) FROM audit GROUP BY 1") == [("INSERT", 1)]
    sql.execute("INSERT INTO events (note, parent) VALUES ('after', 5)")
    assert rows(sql, "SELECT id, number FROM events WHERE note = 'after'") == [
        (3002, 3002)
    ]
    sql.execute("DELETE FROM events WHERE id = 2994")
    assert rows(sql, "SELECT what, count(*) FROM audit GROUP BY 1") == [("INSERT", 2)]
    assert runner.rollback("r") is State.VERIFIED
    assert rows(sql, "SELECT count(*) FROM events WHERE note IN ('after')") == [(1,)]
    assert rows(sql, "SELECT count(*) FROM events WHERE id = 2994") == [(0,)]
    sql.execute("INSERT INTO events (note) VALUES ('again')")
    assert rows(sql, "SELECT id FROM events WHERE note = 'again'") == [(3003,)]
    assert runner.retire("r", old_release_gone="test") is State.RETIRED
    everything = rows(sql, ALL)
    assert runner.drop("r") is State.DROPPED
    assert rows(sql, ALL) == everything
    now = rows(sql, SHAPE)
    assert (set(now) - set(shape), set(shape) - set(now)) == (set(), set())
    assert rows(
        sql, "SELECT reloptions FROM pg_class WHERE oid = 'events'::regclass"
    ) == [(["fillfactor=50"],)]
    assert not rows(sql, "SELECT relname FROM pg_class WHERE relname LIKE '_migrator%'")


def test_going_back_from_retired_leaves_no_trace(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """The schema and the rows are those of before."""
    sql.execute(SETUP.encode())
    shape, everything = rows(sql, SHAPE), rows(sql, ALL)
    runner.expand(CHANGE)
    runner.settle("r")
    runner.retire("r", old_release_gone="test")
    runner.rollback("r", to=State.PLANNED)
    now = rows(sql, SHAPE)
    assert (set(now) - set(shape), set(shape) - set(now)) == (set(), set())
    assert rows(sql, ALL) == everything
    assert not rows(sql, "SELECT relname FROM pg_class WHERE relname LIKE '_migrator%'")


def test_a_stored_generated_column_comes_at_retire(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Rows are computed as they are copied; releases that know it not write on."""
    sql.execute(
        "CREATE TABLE orders (id int PRIMARY KEY, amount int);"
        "INSERT INTO orders SELECT g, g FROM generate_series(1, 500) g"
    )
    add = "ADD COLUMN cents bigint GENERATED ALWAYS AS (amount * 100) STORED"
    pattern = RebuildTable("orders", alter=[add], assured="test")
    runner.expand(Change(revision="r", pattern=pattern))
    runner.backfill("r")
    sql.execute("UPDATE orders SET amount = 7 WHERE id = 1")
    runner.verify("r")
    runner.retire("r", old_release_gone="test")
    apart = "SELECT count(*) FROM orders WHERE cents IS DISTINCT FROM amount * 100"
    sql.execute("INSERT INTO orders VALUES (501, 5)")
    assert rows(sql, apart) == [(0,)]
    assert rows(sql, "SELECT cents FROM orders WHERE id IN (1, 501)") == [
        (700,),
        (500,),
    ]
    runner.rollback("r", to=State.VERIFIED)
    assert rows(sql, "SELECT count(*), sum(amount) FROM orders") == [(501, 125261)]
    runner.retire("r", old_release_gone="test")
    runner.drop("r")
    assert rows(sql, apart) == [(0,)]


def test_policies_hold_on_either_table(runner: Runner, sql: psycopg.Connection) -> None:
    """Who sees some rows sees the same ones before, after and on the way back."""
    sql.execute(SETUP.encode())
    role = f"app_of_{sql.info.dbname}"
    sql.execute(
        f"CREATE ROLE {role}; GRANT SELECT, UPDATE ON events TO {role};"
        f"GRANT INSERT ON audit TO {role};"
        "ALTER TABLE events ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON events"
        f" TO {role} USING (id < 5)".encode()
    )

    def seen() -> int:
        with sql.transaction():
            sql.execute(f"SET LOCAL ROLE {role}".encode())
            return sql.execute("UPDATE events SET note = note || '.'").rowcount

    try:
        runner.expand(CHANGE)
        assert seen() == 4
        runner.settle("r")
        runner.retire("r", old_release_gone="test")
        assert seen() == 4
        runner.rollback("r")
        assert seen() == 4
        assert rows(sql, "SELECT note FROM events WHERE id = 1") == [("n1...",)]
        runner.retire("r", old_release_gone="test")
        runner.drop("r")
        assert seen() == 4
        assert len(rows(sql, ALL)) == 3000
    finally:
        sql.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}".encode())


def test_a_stored_generated_column(runner: Runner, sql: psycopg.Connection) -> None:
    """It is there from retire on, for rows of both tables, and gone on the way back."""
    sql.execute(SETUP.encode())
    shape = rows(sql, SHAPE)
    column = "ADD COLUMN size int GENERATED ALWAYS AS (length(note)) STORED"
    change = replace(CHANGE, pattern=replace(PATTERN, alter=[column]))
    runner.expand(change)
    runner.settle("r")
    sql.execute("UPDATE events SET note = 'longer' WHERE id = 1")
    runner.retire("r", old_release_gone="test")
    sql.execute("INSERT INTO events (note) VALUES ('after')")
    read = "SELECT count(*) FROM events WHERE size IS DISTINCT FROM length(note)"
    assert rows(sql, read) == [(0,)]
    runner.rollback("r", to=State.PLANNED)
    now = rows(sql, SHAPE)
    assert (set(now) - set(shape), set(shape) - set(now)) == (set(), set())
    runner.expand(change)
    runner.settle("r")
    runner.retire("r", old_release_gone="test")
    runner.drop("r")
    assert rows(sql, read) == [(0,)]
    assert rows(sql, "SELECT size FROM events WHERE note = 'after'") == [(5,)]


def test_an_exclusion_constraint(runner: Runner, sql: psycopg.Connection) -> None:
    """It comes with a new table, however large it is, and goes over to the next one."""
    sql.execute(
        "CREATE TABLE stays (id int PRIMARY KEY, during int4range);"
        "INSERT INTO stays SELECT g, int4range(g, g + 1) FROM generate_series(1, 500) g"
    )
    before = snapshot(sql)
    add = "ADD CONSTRAINT apart EXCLUDE USING gist (during WITH &&) WHERE (id > 0)"
    pattern = RebuildTable("stays", alter=[add], assured="rows do not conflict")
    change = Change(revision="r", pattern=pattern)
    wrong = psycopg.errors.ExclusionViolation

    def used(number: int) -> None:
        with pytest.raises(wrong):
            sql.execute(f"INSERT INTO stays VALUES ({number}, '[5,6)')".encode())
        # Downwards, in the order of the rows: each to where another one was.
        sql.execute("UPDATE stays SET during = int4range(id - 1, id) WHERE id > 500")
        sql.execute(
            f"INSERT INTO stays SELECT g, int4range(g, g + 1) FROM (SELECT {number})"
            " AS g (g)".encode()
        )
        sql.execute(f"INSERT INTO stays VALUES (-{number}, '[5,6)')".encode())

    runner.expand(change)
    runner.settle("r")
    used(601)
    runner.retire("r", old_release_gone="test")
    used(602)
    runner.rollback("r", to=State.PLANNED)
    same(snapshot(sql), before)
    runner.expand(change)
    runner.settle("r")
    runner.retire("r", old_release_gone="test")
    runner.drop("r")
    sql.execute("COMMENT ON CONSTRAINT apart ON stays IS 'why'")
    before = snapshot(sql)
    change = Change(revision="n", pattern=replace(pattern, alter=[]))
    runner.expand(change)
    used(603)
    runner.settle("n")
    used(604)
    runner.retire("n", old_release_gone="test")
    used(605)
    runner.rollback("n")
    used(606)
    runner.retire("n", old_release_gone="test")
    runner.drop("n")
    same(snapshot(sql), before)
    used(607)


def test_complete_and_rebuild(runner: Runner, sql: psycopg.Connection) -> None:
    """Where no release runs it goes through at once; a downgrade leaves it so."""
    sql.execute(SETUP.encode())
    everything = rows(sql, ALL)
    assert runner.complete(CHANGE) is State.DROPPED
    runner.rebuild(CHANGE)
    assert rows(sql, ALL) == everything
    assert runner.change("r").state is State.PLANNED


def test_a_rename_of_the_former_table_needs_the_dual_write(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """What one of the two may have missed is not exchanged for the other."""
    sql.execute(SETUP.encode())
    runner.expand(CHANGE)
    runner.settle("r")
    runner.retire("r", old_release_gone="test")
    off = "ALTER TABLE events DISABLE TRIGGER USER"
    sql.execute(off.encode())
    with pytest.raises(Refused, match="may have missed writes"):
        runner.rollback("r")


def test_locks_are_those_that_are_claimed(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Each transaction, and each way back, locks no table more than it says."""
    sql.execute(SETUP.encode())
    with connect(runner.target, "migrator:test") as conn:
        installation.install(conn)
    tables = ("events", "towns", "likes")
    for phase, go in (
        (Phase.EXPAND, lambda: runner.expand(CHANGE)),
        (Phase.BACKFILL, lambda: runner.settle("r")),
        (Phase.RETIRE, lambda: runner.retire("r", old_release_gone="test")),
        (Phase.DROP, lambda: runner.drop("r")),
    ):
        work = [s.work for s in runner.plan(CHANGE).steps(phase)]
        for action in work[:1]:
            if isinstance(action, Transaction):
                claimed = {str(action.table): action.lock} | {
                    str(a.table): a.lock for a in action.also
                }
                for table, lock in taken(sql, action, *tables).items():
                    told = claimed.get(f'"public"."{table}"', Lock.ACCESS_SHARE)
                    assert lock.rank <= told.rank, (phase, table)
        go()


@pytest.mark.parametrize(
    ("prepare", "alter", "message"),
    [
        (
            "",
            [
                "ALTER COLUMN town TYPE bigint",
                "ALTER COLUMN id TYPE numeric(9,1) USING id",
                "DROP COLUMN note",
                'ADD COLUMN "mo%s re" int',
                "ALTER COLUMN number DROP NOT NULL",
                "ADD CONSTRAINT few CHECK (town < 9)",
            ],
            'AddCheck("events", "few", …), ChangePrimaryKey("events", "id",'
            ' "numeric(9,1)"), AddColumn("events", "mo%s re", "integer"),'
            ' DropColumn("events", "note"), DropNotNull("events", "number"),'
            ' ChangeColumnType("events", "town", "bigint").',
        ),
        ("", ["SET (nonsense = 1)"], "the server refuses a clause"),
        (
            "DROP TABLE likes CASCADE; ALTER TABLE events SET UNLOGGED",
            [],
            'Table "public"."events" is unlogged: a crash would empty it',
        ),
        (
            "CREATE RULE kept AS ON DELETE TO events DO INSTEAD NOTHING",
            [],
            "is used by rule kept on table events, which would stay",
        ),
        (
            "CREATE CONSTRAINT TRIGGER seen AFTER DELETE ON events FOR EACH ROW"
            " EXECUTE FUNCTION note()",
            [],
            'constraint "seen" of table "public"."events" cannot go over',
        ),
        (
            "ALTER TABLE events ADD CONSTRAINT late CHECK (town > 0) NOT VALID",
            [],
            'constraint "late" of table "public"."events" is not valid',
        ),
    ],
)
def test_message(
    runner: Runner,
    sql: psycopg.Connection,
    prepare: str,
    alter: list[str],
    message: str,
) -> None:
    """What cannot go over is refused before anything is changed."""
    sql.execute(SETUP.encode())
    if prepare:
        sql.execute(prepare.encode())
    pattern = replace(PATTERN, alter=alter)
    with pytest.raises(Refused) as caught:
        runner.expand(replace(CHANGE, pattern=pattern))
    assert message in str(caught.value)
