"""What knows a table by its number, when another one takes that one's place."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import psycopg
import pytest
from backfill.live import wait_for
from locks import taken
from snapshots import same, snapshot
from tables import Requests, rows, waits

from migrator.change import Change
from migrator.errors import LockBudgetError, Refused
from migrator.facts import Column, Facts, Index, IndexColumn, Table
from migrator.kernels.mirror_table import require_swappable
from migrator.ledger import installation
from migrator.names import TableName
from migrator.pattern import Pattern
from migrator.patterns import PartitionTable, RebuildTable
from migrator.plan import Lock, Phase, State, Transaction
from migrator.postgres.connection import Target, connect
from migrator.postgres.embedded import Server
from migrator.runner import Runner
from migrator.settings import Settings

SETUP = """
CREATE TABLE towns (id int PRIMARY KEY, name text);
CREATE TABLE events (id int PRIMARY KEY, town int, note text, number int DEFAULT 0);
INSERT INTO events SELECT g, g % 5, 'n' || g FROM generate_series(1, 500) g;
"""
VIEWS = """
CREATE VIEW every AS SELECT * FROM events;
CREATE VIEW few (key, said) WITH (security_barrier) AS
  SELECT id, note FROM events WHERE id < 1000 WITH LOCAL CHECK OPTION;
COMMENT ON VIEW few IS 'few'; COMMENT ON COLUMN few.said IS 'words';
ALTER VIEW few ALTER said SET DEFAULT 'quiet';
GRANT SELECT, UPDATE (said) ON few TO PUBLIC;
CREATE VIEW "odd %s ""name"" x" WITH (security_invoker = true) AS
  SELECT e.id AS "id :x", row_to_json(e) AS whole FROM events e JOIN few ON key = id
   WHERE e.note <> 'events';
CREATE VIEW grouped AS SELECT id, note, count(*) FROM events GROUP BY id;
CREATE VIEW over AS SELECT said FROM few;
CREATE MATERIALIZED VIEW kept AS SELECT * FROM every;
CREATE VIEW written AS SELECT * FROM towns;
CREATE RULE "put %s" AS ON INSERT TO written DO INSTEAD
  INSERT INTO events (id, note) VALUES (NEW.id, NEW.name);
CREATE FUNCTION gone() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN DELETE FROM events WHERE id = OLD.key; RETURN OLD; END';
CREATE TRIGGER away INSTEAD OF DELETE ON few FOR EACH ROW EXECUTE FUNCTION gone();
"""
CHANGE = Change(revision="r", pattern=RebuildTable("events", assured="test"))
PARTITIONED = PartitionTable(
    "events",
    "RANGE",
    ["number"],
    {"events_low": "FROM (0) TO (5)"},
    rest="events_rest",
    key=["id", "number"],
    assured="test",
)
# Views and rules that still depend on what stands out of sight.
LEFT = (
    "SELECT w.ev_class::regclass::text FROM pg_depend d JOIN pg_rewrite w"
    " ON w.oid = d.objid AND d.classid = 'pg_rewrite'::regclass"
    " JOIN pg_class c ON c.oid = d.refobjid AND c.relname LIKE '_migrator%'"
)


@pytest.fixture
def role(sql: psycopg.Connection) -> Iterator[str]:
    """Give a role that may create in the schema."""
    name = f"role_of_{sql.info.dbname}"
    sql.execute(f"CREATE ROLE {name}; GRANT ALL ON SCHEMA public TO {name}".encode())
    yield name
    sql.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}".encode())


def ready(runner: Runner) -> None:
    """Carry the change to where names may be exchanged."""
    runner.expand(CHANGE)
    runner.settle("r")


def used(sql: psycopg.Connection, key: int) -> None:
    """Write and read through views, a rule and a trigger."""
    sql.execute(f"INSERT INTO few VALUES ({key})".encode())
    assert rows(sql, f"SELECT note FROM events WHERE id = {key}") == [("quiet",)]
    with pytest.raises(psycopg.errors.WithCheckOptionViolation):
        sql.execute("INSERT INTO few VALUES (1001, 'x')")
    sql.execute(f"DELETE FROM few WHERE key = {key}".encode())
    sql.execute(f"INSERT INTO written VALUES ({key}, 'ruled')".encode())
    assert rows(sql, f"SELECT note FROM every WHERE id = {key}") == [("ruled",)]
    assert not rows(sql, LEFT)


def published(found: dict[str, str]) -> dict[str, str]:
    """Return what a snapshot tells of publications."""
    return {k: v for k, v in found.items() if k.startswith("publication")}


# -- views -----------------------------------------------------------------------


def test_views_are_those_of_the_table_that_has_the_name(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """They keep all that hangs on them at retire, on the way back and in the end."""
    sql.execute((SETUP + VIEWS).encode())
    before = snapshot(sql)
    ready(runner)
    used(sql, 601)
    runner.retire("r", old_release_gone="test")
    used(sql, 602)
    runner.rollback("r")
    used(sql, 603)
    runner.rollback("r", to=State.PLANNED)
    same(snapshot(sql), before)
    ready(runner)
    runner.retire("r", old_release_gone="test")
    runner.drop("r")
    used(sql, 604)
    same(snapshot(sql), before)
    assert rows(sql, "SELECT count(*) FROM events") == [(504,)]


def test_views_over_a_table_that_is_partitioned(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """They read the partitions, and the one table again after a downgrade."""
    sql.execute((SETUP + VIEWS.replace(" GROUP BY id", " GROUP BY id, note")).encode())
    sql.execute(
        "CREATE STATISTICS known ON town, note FROM events; CREATE POLICY mine ON"
        " events USING (id > 0); CREATE TRIGGER none AFTER TRUNCATE ON events"
        " EXECUTE FUNCTION suppress_redundant_updates_trigger()"
    )
    before = snapshot(sql)
    pattern = PartitionTable(
        "events",
        "RANGE",
        ["town"],
        {"events_low": "FROM (0) TO (3)"},
        rest="events_rest",
        key=["id", "town"],
        old_key=["id"],
        assured="test",
    )
    sql.execute(
        "ALTER TABLE events ALTER town SET NOT NULL, ALTER town SET DEFAULT 1,"
        " SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01,"
        " toast.autovacuum_vacuum_threshold = 70)"
    )
    before = snapshot(sql)
    change = Change(revision="r", pattern=pattern)
    runner.expand(change)
    runner.settle("r")
    runner.retire("r", old_release_gone="test")
    used(sql, 601)
    runner.drop("r")
    used(sql, 602)
    kind = "SELECT relkind::text FROM pg_class WHERE oid = 'events'::regclass"
    assert rows(sql, kind) == [("p",)]
    runner.rebuild(change)
    used(sql, 603)
    same(snapshot(sql), before)


def test_what_is_made_while_both_tables_are_there_goes_along(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """On the way back as well, whatever the plan knew when it was stored."""
    sql.execute((SETUP + VIEWS).encode())
    ready(runner)
    sql.execute("CREATE VIEW between AS SELECT id FROM events")
    runner.retire("r", old_release_gone="test")
    sql.execute(
        "CREATE VIEW late AS SELECT note FROM events; CREATE PUBLICATION later FOR"
        " TABLE events (id, note) WHERE (id > 5); DROP VIEW between;"
        "CREATE OR REPLACE VIEW every AS SELECT *, 1 AS more FROM events"
    )
    then = snapshot(sql)
    views = {k: v for k, v in then.items() if v.startswith("v,")}
    runner.rollback("r")
    now = snapshot(sql)
    assert not rows(sql, LEFT)
    same({k: v for k, v in now.items() if v.startswith("v,")}, views)
    same(published(now), published(then))
    sql.execute("CREATE MATERIALIZED VIEW stays AS SELECT id FROM events")
    with pytest.raises(Refused, match="materialized view stays would stay with the"):
        runner.retire("r", old_release_gone="test")
    sql.execute("DROP MATERIALIZED VIEW stays")
    runner.retire("r", old_release_gone="test")
    sql.execute("CREATE MATERIALIZED VIEW stays AS SELECT id FROM events")
    assert "materialized view stays" in str(runner.way_back("r"))
    with pytest.raises(Refused, match="materialized view stays would stay with the"):
        runner.rollback("r")
    assert runner.change("r").state is State.RETIRED


def test_readers_of_views_wait_no_longer_than_others(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """Requests come through both ways, and none of them is ended as a deadlock."""
    sql.execute((SETUP + VIEWS).encode())
    requests = Requests(database, 5, deadlock_timeout="1s")
    try:
        ready(runner)
        requests.begin(
            'SELECT count(*) FROM few JOIN "odd %s ""name"" x" ON key = "id :x"',
            "UPDATE few SET said = 'u' WHERE key = {0}",
            "UPDATE events SET note = 'v' WHERE id = {0}",
            "SELECT count(*) FROM over",
        )
        for _ in range(3):
            requests.meet()
            runner.retire("r", old_release_gone="test")
            requests.meet()
            runner.rollback("r")
    finally:
        requests.end()
    assert not requests.failed


def test_requests_that_use_the_table_before_a_view(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """At any time one of them has the table; the other order lets the exchange in."""
    sql.execute((SETUP + VIEWS).encode())
    requests = Requests(database, 5, deadlock_timeout="1s")
    both = "UPDATE events SET note = 'v' WHERE id = {0}; SELECT pg_sleep(0.02);"
    try:
        ready(runner)
        requests.begin(*[f"{both} SELECT count(*) FROM few"] * 4)
        for _ in range(2):
            requests.meet()
            runner.retire("r", old_release_gone="test")
            requests.meet()
            runner.rollback("r")
    finally:
        requests.end()
    assert not requests.failed


def test_locks_are_those_that_are_claimed(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Views are locked with the table and are said to be; what they read is not."""
    sql.execute((SETUP + VIEWS).encode())
    with connect(runner.target, "migrator:test") as conn:
        installation.install(conn)
    ready(runner)
    views = ("every", "few", "grouped", "written", 'odd %s ""name"" x')
    (step, *_) = runner.plan(CHANGE).steps(Phase.RETIRE)
    assert isinstance(step.work, Transaction)
    weak = ("public.over", "public.kept", "public.towns")
    found = taken(sql, step.work, *(f'public."{view}"' for view in views), *weak)
    claimed = {a.table.name for a in step.work.also}
    for view in views:
        assert found[f'public."{view}"'] is Lock.ACCESS_EXCLUSIVE
        assert view.replace('""', '"') in claimed
    assert {found[table] for table in weak} == {Lock.NONE}


def test_an_outer_view_is_locked_before_an_inner_one(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """Who waits for it keeps nobody from what it reads."""
    sql.execute((SETUP + VIEWS).encode())
    ready(runner)
    (step, *_) = runner.plan(CHANGE).steps(Phase.RETIRE)
    assert isinstance(step.work, Transaction)
    first, second, *_ = step.work.statements
    lock = f"{first}; {second}".encode()
    strong = (
        "SELECT relation::regclass::text FROM pg_locks WHERE granted AND relation"
        " IS NOT NULL AND mode = 'AccessExclusiveLock'"
    )
    with psycopg.connect(database) as one, psycopg.connect(database) as other:
        one.execute('COMMENT ON VIEW "odd %s ""name"" x" IS NULL')
        waiting = threading.Thread(target=other.execute, args=(lock,))
        waiting.start()
        wait_for("a lock that waits", lambda: waits(sql))
        assert not rows(sql, strong)
        one.rollback()
        waiting.join()
        assert ("events",) in rows(sql, strong)
        other.rollback()


def test_who_has_the_table_writes_on(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """While names wait to be exchanged, nobody is kept from the other table."""
    sql.execute(SETUP.encode())
    ready(runner)
    (step, *_) = runner.plan(CHANGE).steps(Phase.RETIRE)
    assert isinstance(step.work, Transaction)
    lock = step.work.statements[0].encode()
    with psycopg.connect(database) as one, psycopg.connect(database) as other:
        one.execute("SELECT FROM events LIMIT 0; SET LOCAL lock_timeout = '300ms'")
        waiting = threading.Thread(target=other.execute, args=(lock,))
        waiting.start()
        wait_for("a lock that waits", lambda: waits(sql))
        one.execute("UPDATE events SET note = 'on' WHERE id = 1")
        one.commit()
        waiting.join()
        other.rollback()


def test_who_reads_a_view_holds_the_change(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """Nothing is changed then, and the message names the session."""
    sql.execute((SETUP + VIEWS).encode())
    runner.settings = replace(runner.settings, step_budget_s=0.5, lock_timeout_ms=100)
    ready(runner)
    before = snapshot(sql)
    with psycopg.connect(database, application_name="billing") as other:
        other.execute("SELECT FROM grouped LIMIT 0")
        with pytest.raises(LockBudgetError, match="billing"):
            runner.retire("r", old_release_gone="test")
    same(snapshot(sql), before)
    runner.retire("r", old_release_gone="test")


# -- publications ----------------------------------------------------------------


@pytest.fixture
def publisher(start_server: Callable[..., Server]) -> Iterator[Server]:
    """Give a server whose changes can be replicated."""
    with start_server(wal_level="logical") as made:
        yield made


@pytest.mark.parametrize(
    ("pattern", "columns"),
    [(CHANGE.pattern, "id, note"), (PARTITIONED, "id, note, number")],
    ids=["rebuilt", "partitioned"],
)
def test_a_subscriber_goes_on(
    publisher: Server, pattern: Pattern, columns: str
) -> None:
    """
    It has each row at the end of each phase, and needs to be told nothing.

    Requests write throughout, and one transaction that began before names are
    exchanged writes to the table after that.
    """
    with psycopg.connect(publisher.url(), autocommit=True) as admin:
        for name in ("here", "there"):
            admin.execute(f"CREATE DATABASE {name}".encode())
    with (
        psycopg.connect(publisher.url("here"), autocommit=True) as sql,
        psycopg.connect(publisher.url("there"), autocommit=True) as there,
        ExitStack() as stack,
    ):
        sql.execute(SETUP.encode())
        sql.execute("ALTER TABLE events ALTER number SET NOT NULL")
        sql.execute(
            f"CREATE PUBLICATION feed FOR TABLE events ({columns}) WHERE (id > 5),"
            " towns WITH (publish_via_partition_root = true)".encode()
        )
        sql.execute("SELECT pg_create_logical_replication_slot('feed', 'pgoutput')")
        before = snapshot(sql)
        there.execute(SETUP.split("INSERT")[0].encode())
        there.execute(
            f"CREATE SUBSCRIPTION feed CONNECTION 'host=127.0.0.1 dbname=here"
            f" user=postgres port={publisher.port}' PUBLICATION feed"
            " WITH (create_slot = false, slot_name = 'feed')".encode()
        )

        def follows() -> None:
            query = f"SELECT {columns} FROM events WHERE id > 5 ORDER BY id"
            wanted = rows(sql, query)
            wait_for("rows at the subscriber", lambda: rows(there, query) == wanted)

        def write(number: int) -> None:
            sql.execute(f"INSERT INTO events VALUES ({900 + number}, 1, 'a')".encode())
            sql.execute(f"UPDATE events SET note = 'b{number}' WHERE id > 400".encode())
            sql.execute(f"DELETE FROM events WHERE id = {10 + number}".encode())
            # From partition to partition.
            sql.execute(
                f"UPDATE events SET number = 9 WHERE id = {30 + number}".encode()
            )
            sql.execute(
                f"UPDATE events SET id = {-number} WHERE id = {20 + number}".encode()
            )

        follows()
        runner = Runner(Target.from_url(publisher.url("here")), Settings(hold_s=0))
        write(7)
        runner.expand(replace(CHANGE, pattern=pattern))
        write(1)
        runner.settle("r")
        write(2)
        requests = Requests(publisher.url("here"), 5, deadlock_timeout="1s")
        stack.callback(requests.end)
        requests.begin("UPDATE events SET note = random()::text WHERE id = 100 + {0}")
        for number in (3, 4):
            with psycopg.connect(publisher.url("here")) as long:
                long.execute(f"INSERT INTO towns VALUES ({number}, 'before')".encode())
                requests.meet()
                if number == 3:
                    runner.retire("r", old_release_gone="test")
                else:
                    runner.rollback("r")
                long.execute(f"INSERT INTO events VALUES (-{number}0)".encode())
                long.execute(f"INSERT INTO events VALUES (70{number})".encode())
            write(number)
            requests.meet()
        runner.retire("r", old_release_gone="test")
        write(5)
        requests.meet()
        runner.drop("r")
        write(6)
        requests.end()
        assert not requests.failed
        follows()
        assert rows(there, "SELECT id FROM towns ORDER BY id") == [(3,), (4,)]
        same(published(snapshot(sql)), published(before))
        states = "SELECT srsubstate::text FROM pg_subscription_rel"
        assert rows(there, states) == [("r",), ("r",)]
        failed = "SELECT apply_error_count FROM pg_stat_subscription_stats"
        assert rows(there, failed) == [(0,)]
        # Nor does the table of a subscriber go to another one unnoticed.
        other = Runner(Target.from_url(publisher.url("there")), Settings(hold_s=0))
        with pytest.raises(Refused, match="a subscription fills table"):
            other.expand(CHANGE)
        there.execute("ALTER SUBSCRIPTION feed DISABLE")
        there.execute("ALTER SUBSCRIPTION feed SET (slot_name = NONE)")
        there.execute("DROP SUBSCRIPTION feed")


# -- statistics and policies -----------------------------------------------------


def test_extended_statistics_are_known_at_once(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """The copy's are filled before it takes the name."""
    sql.execute(SETUP.encode())
    sql.execute(
        'CREATE SCHEMA "other %s"; CREATE STATISTICS two (mcv, ndistinct) ON town,'
        ' number FROM events; CREATE STATISTICS "other %s"."of ""all""" ON'
        " (town + number), lower(note), id FROM events; CREATE STATISTICS alone ON"
        " (id % 7) FROM events; ANALYZE events"
    )
    before = snapshot(sql)
    ready(runner)
    # Made in the window: there is no copy of it yet.
    sql.execute("CREATE STATISTICS late ON id, town FROM events")
    runner.retire("r", old_release_gone="test")
    filled = (
        "SELECT stxname::text FROM pg_statistic_ext s JOIN pg_statistic_ext_data d"
        " ON d.stxoid = s.oid WHERE stxrelid = 'events'::regclass ORDER BY 1"
    )
    assert rows(sql, filled) == [("alone",), ('of "all"',), ("two",)]
    runner.rollback("r", to=State.PLANNED)
    sql.execute("DROP STATISTICS late")
    same(snapshot(sql), before)
    ready(runner)
    runner.retire("r", old_release_gone="test")
    runner.drop("r")
    same(snapshot(sql), before)


def test_forced_policies(runner: Runner, sql: psycopg.Connection, role: str) -> None:
    """They go over where they bind nobody who mirrors, and are refused elsewhere."""
    sql.execute(SETUP.encode())
    sql.execute(
        f"ALTER TABLE events OWNER TO {role}; CREATE POLICY odd ON events USING"
        " (id % 2 = 1); ALTER TABLE events ENABLE ROW LEVEL SECURITY,"
        " FORCE ROW LEVEL SECURITY".encode()
    )
    before = snapshot(sql)
    with pytest.raises(Refused, match="forces its row-level security on its owner"):
        runner.expand(CHANGE)
    sql.execute(f"ALTER ROLE {role} BYPASSRLS".encode())
    ready(runner)
    sql.execute("UPDATE events SET note = 'even' WHERE id = 2")
    runner.retire("r", old_release_gone="test")
    sql.execute("UPDATE events SET note = 'even' WHERE id = 4")
    runner.rollback("r")
    even = rows(sql, "SELECT id FROM events WHERE note = 'even' ORDER BY 1")
    assert even == [(2,), (4,)]
    runner.retire("r", old_release_gone="test")
    runner.drop("r")
    same(snapshot(sql), before)
    assert rows(sql, "SELECT count(*) FROM events") == [(500,)]


def test_forced_policies_and_a_role_that_is_no_superuser(
    runner: Runner, sql: psycopg.Connection, database: str, role: str
) -> None:
    """The triggers run as the role of the connection, which no policy binds."""
    sql.execute(SETUP.encode())
    sql.execute(
        f"ALTER TABLE events OWNER TO {role}; CREATE POLICY odd ON events USING"
        " (id % 2 = 1); ALTER TABLE events ENABLE ROW LEVEL SECURITY,"
        f" FORCE ROW LEVEL SECURITY; CREATE ROLE {role}_engine LOGIN BYPASSRLS IN ROLE"
        f" {role}; GRANT CREATE ON DATABASE {sql.info.dbname} TO {role}_engine".encode()
    )
    before = snapshot(sql)
    url = database.replace("postgres@", f"{role}_engine@")
    try:
        own = Runner(Target.from_url(url), runner.settings)
        ready(own)
        sql.execute("UPDATE events SET note = 'even' WHERE id = 2")
        own.retire("r", old_release_gone="test")
        sql.execute("UPDATE events SET note = 'even' WHERE id = 4")
        own.rollback("r")
        even = rows(sql, "SELECT id FROM events WHERE note = 'even' ORDER BY 1")
        assert even == [(2,), (4,)]
        own.retire("r", old_release_gone="test")
        own.drop("r")
        same(snapshot(sql), before)
    finally:
        sql.execute("DROP SCHEMA IF EXISTS migrator CASCADE")
        sql.execute(f"DROP OWNED BY {role}_engine; DROP ROLE {role}_engine".encode())


def test_a_unique_index_that_is_the_replica_identity(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """It is the identity of the new table too, which is found by it from the start."""
    sql.execute(
        "CREATE TABLE events (id int NOT NULL); CREATE UNIQUE INDEX one ON events (id);"
        "ALTER TABLE events REPLICA IDENTITY USING INDEX one; INSERT INTO events"
        " SELECT generate_series(1, 9)"
    )
    before = snapshot(sql)
    runner.expand(CHANGE)
    sql.execute("INSERT INTO events VALUES (10)")
    runner.settle("r")
    runner.retire("r", old_release_gone="test")
    runner.drop("r")
    same(snapshot(sql), before)


# -- foreign keys of partitioned tables ------------------------------------------


def test_a_partitioned_table_that_refers(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Its partitions keep the names of their constraints; before 18 it is refused."""
    sql.execute(SETUP.encode())
    sql.execute(
        "CREATE TABLE likes (event int CONSTRAINT liked REFERENCES events ON DELETE"
        " CASCADE) PARTITION BY HASH (event); CREATE TABLE likes_0 PARTITION OF likes"
        " FOR VALUES WITH (MODULUS 1, REMAINDER 0); INSERT INTO likes SELECT id FROM"
        " events"
    )
    before = snapshot(sql)
    if sql.info.server_version < 180000:
        with pytest.raises(Refused, match='foreign key "liked" of the partitioned'):
            runner.expand(CHANGE)
        return
    ready(runner)
    runner.retire("r", old_release_gone="test")
    sql.execute("DELETE FROM events WHERE id = 1")
    runner.rollback("r", to=State.PLANNED)
    same(snapshot(sql), before)
    ready(runner)
    runner.retire("r", old_release_gone="test")
    runner.drop("r")
    sql.execute("DELETE FROM events WHERE id = 2")
    same(snapshot(sql), before)
    assert rows(sql, "SELECT count(*) FROM likes") == [(498,)]


# -- messages --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (
            "CREATE MATERIALIZED VIEW m AS SELECT id FROM events",
            "is used by materialized view m, which would stay with the former table",
        ),
        (
            "CREATE FUNCTION f(e events) RETURNS int LANGUAGE sql AS 'SELECT e.id'",
            "is used by function f(events), which would stay with the former table",
        ),
        (
            "CREATE FUNCTION f() RETURNS bigint LANGUAGE sql BEGIN ATOMIC"
            " SELECT count(*) FROM events; END",
            "is used by function f(), which would stay with the former table",
        ),
        (
            "CREATE VIEW v AS SELECT e FROM events e",
            "is used by column e of view v, which would stay with the former table",
        ),
        (
            "CREATE POLICY p ON towns USING (EXISTS (SELECT FROM events))",
            "is used by policy p on table towns, which would stay",
        ),
        (
            "CREATE RULE r AS ON DELETE TO towns DO ALSO DELETE FROM events",
            "is used by rule r on table towns, which would stay",
        ),
        (
            "ALTER TABLE events DROP CONSTRAINT events_pkey; ALTER TABLE events ADD"
            " CONSTRAINT later PRIMARY KEY (id) DEFERRABLE",
            'constraint "later" of table "public"."events", by which a row is found',
        ),
        (
            "CREATE PUBLICATION p FOR TABLES IN SCHEMA public",
            'publication "p" has all tables, of the database or of the schema',
        ),
        (
            "ALTER TABLE events ADD UNIQUE (number, id);"
            "CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN"
            " INSERT INTO events SELECT new.*; RETURN NULL; END'; CREATE TRIGGER"
            ' "Next" AFTER DELETE ON events FOR EACH ROW EXECUTE FUNCTION again()',
            'ALTER TRIGGER "Next" ON "public"."events" RENAME TO "z_Next"',
        ),
        (
            "REVOKE INSERT ON events FROM CURRENT_USER",
            "has an owner who took INSERT on it from itself, and writes both tables",
        ),
    ],
)
def test_message(
    runner: Runner, sql: psycopg.Connection, prepare: str, message: str
) -> None:
    """What cannot be bound to another table is refused by its name."""
    sql.execute(SETUP.encode())
    sql.execute(prepare.encode())
    before = snapshot(sql)
    with pytest.raises(Refused) as caught:
        runner.expand(CHANGE)
    assert message in str(caught.value)
    same(snapshot(sql), before)


def test_what_the_role_does_not_own(
    runner: Runner, sql: psycopg.Connection, database: str, role: str
) -> None:
    """It is found before anything is changed, not when names are exchanged."""
    sql.execute(SETUP.encode())
    sql.execute(
        f"ALTER TABLE events OWNER TO {role}; ALTER ROLE {role} LOGIN;"
        "CREATE VIEW v AS SELECT id FROM events;"
        f"GRANT CREATE ON DATABASE {sql.info.dbname} TO {role}".encode()
    )
    own = Runner(
        Target.from_url(database.replace("postgres@", f"{role}@")), runner.settings
    )
    try:
        with pytest.raises(Refused, match=r'cannot make view "public"\."v" again'):
            own.expand(CHANGE)
        sql.execute("DROP VIEW v; CREATE PUBLICATION p FOR TABLE events")
        with pytest.raises(Refused, match='does not own publication "p"'):
            own.expand(CHANGE)
    finally:
        sql.execute("DROP SCHEMA IF EXISTS migrator CASCADE")


def test_the_language_of_the_server_does_not_matter() -> None:
    """Which triggers and policies are the table's own is not told by their texts."""
    table = Table(
        name=TableName("public", "events"),
        oid=1,
        columns=(
            Column(
                name="id",
                type="int",
                not_null=True,
                dependents=("Trigger t für Tabelle events", "Policy p für Tabelle"),
            ),
        ),
        indexes=(
            Index(
                name="one",
                method="btree",
                keys=(IndexColumn(name="id"),),
                unique=True,
                columns=("id",),
            ),
        ),
    )
    require_swappable(Facts(server_version=180000, table=table, tag="0"), "rebuild")
