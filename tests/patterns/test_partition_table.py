"""PartitionTable: its life, its way back, and its messages."""

from dataclasses import replace
from typing import Any

import psycopg
import pytest
from locks import taken
from snapshots import same, snapshot
from tables import Requests, rows

from migrator.change import Change
from migrator.errors import Refused
from migrator.facts import (
    Column,
    Constraint,
    Facts,
    ForeignKey,
    Index,
    IndexColumn,
    Publication,
    Table,
)
from migrator.names import TableName
from migrator.patterns import PartitionTable
from migrator.plan import Lock, Phase, State, Transaction
from migrator.runner import Runner

SETUP = (
    "CREATE TABLE towns (id int PRIMARY KEY); INSERT INTO towns VALUES (1);"
    "CREATE TABLE events (id bigserial CONSTRAINT one PRIMARY KEY, at date NOT NULL,"
    " town int DEFAULT 1 CONSTRAINT home REFERENCES towns, note text CONSTRAINT short"
    " CHECK (length(note) < 99), CONSTRAINT once UNIQUE (note, at));"
    "CREATE INDEX events_town ON events (town);"
    "CREATE TABLE audit (what text);"
    "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS"
    " 'BEGIN INSERT INTO audit VALUES (TG_OP); RETURN NULL; END';"
    "INSERT INTO events (at, note) SELECT date '2024-01-01' + g, 'n' || g"
    " FROM generate_series(0, 2999) g;"
    "CREATE TRIGGER a_audit AFTER INSERT OR DELETE ON events FOR EACH ROW"
    " EXECUTE FUNCTION note()"
)
PATTERN = PartitionTable(
    "events",
    "RANGE",
    ["at"],
    {
        "events_2024": "FROM ('2024-01-01') TO ('2025-01-01')",
        "events_2025": "FROM ('2025-01-01') TO ('2026-01-01')",
    },
    rest="events_rest",
    key=["id", "at"],
    old_key=["id"],
    assured="test",
)
CHANGE = Change(revision="p", pattern=PATTERN)
ALL = "SELECT id, at, town, note FROM events ORDER BY id"
BEHIND = "SELECT relname FROM pg_class WHERE relname LIKE '_migrator%'"


def test_life_cycle(runner: Runner, sql: psycopg.Connection) -> None:
    """Rows go to their partitions, and back where that is asked for."""
    sql.execute(SETUP.encode())
    assert runner.expand(CHANGE) is State.EXPANDED
    sql.execute("UPDATE events SET at = at + 700 WHERE id = 5")
    runner.settle("p")
    everything = rows(sql, ALL)
    runner.retire("p", old_release_gone="test")
    assert rows(sql, ALL) == everything
    sql.execute("UPDATE events SET at = '2025-05-05', note = 'moved' WHERE id = 6")
    sql.execute("INSERT INTO events (at, note) VALUES ('2030-01-01', 'late')")
    sql.execute("DELETE FROM events_2025 WHERE id = 400")
    assert rows(sql, "SELECT DISTINCT what FROM audit ORDER BY 1") == [
        ("DELETE",),
        ("INSERT",),
    ]
    everything = rows(sql, ALL)
    assert runner.rollback("p") is State.VERIFIED
    assert rows(sql, ALL) == everything
    assert rows(
        sql,
        "SELECT relkind::text FROM pg_class WHERE relname = 'events'"
        " AND relnamespace = 'public'::regnamespace",
    ) == [("r",)]
    runner.retire("p", old_release_gone="test")
    assert runner.drop("p") is State.DROPPED
    assert rows(sql, ALL) == everything
    assert not rows(sql, BEHIND)
    assert rows(
        sql,
        "SELECT tableoid::regclass::text FROM events WHERE id IN (6, 3001) ORDER BY 1",
    ) == [("events_2025",), ("events_rest",)]
    assert rows(
        sql,
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conrelid = 'events'::regclass AND contype <> 'n' ORDER BY 1",
    ) == [
        ("home", "FOREIGN KEY (town) REFERENCES towns(id)"),
        ("once", "UNIQUE (note, at)"),
        ("one", "PRIMARY KEY (id, at)"),
        ("short", "CHECK ((length(note) < 99))"),
    ]
    assert rows(sql, "SELECT pg_get_serial_sequence('events', 'id')") == [
        ("public.events_id_seq",)
    ]
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        sql.execute("INSERT INTO events (at, town) VALUES ('2025-01-01', 9)")


def test_going_back_from_retired(runner: Runner, sql: psycopg.Connection) -> None:
    """Nothing of it stays."""
    sql.execute(SETUP.encode())
    everything = rows(sql, ALL)
    runner.expand(CHANGE)
    runner.settle("p")
    runner.retire("p", old_release_gone="test")
    runner.rollback("p", to=State.PLANNED)
    assert rows(sql, ALL) == everything
    assert not rows(sql, BEHIND)
    assert rows(sql, "SELECT to_regclass('events_rest') IS NULL") == [(True,)]


def test_foreign_keys_that_refer_to_it(runner: Runner, sql: psycopg.Connection) -> None:
    """They go over, back and over again; rows that they bind move and go with them."""
    sql.execute(
        "CREATE TABLE events (id int, at int NOT NULL, PRIMARY KEY (id, at));"
        "CREATE TABLE likes (event int, at int, CONSTRAINT liked FOREIGN KEY"
        " (at, event) REFERENCES events (at, id) ON DELETE CASCADE DEFERRABLE);"
        "COMMENT ON CONSTRAINT liked ON likes IS 'why';"
        "CREATE TABLE stars (at int, event int, CONSTRAINT seen FOREIGN KEY (event, at)"
        " REFERENCES events ON UPDATE CASCADE ON DELETE CASCADE);"
        "INSERT INTO events SELECT g, g % 20 FROM generate_series(1, 300) g;"
        "INSERT INTO likes SELECT id, at FROM events WHERE id % 2 = 0;"
        "INSERT INTO stars SELECT at, id FROM events WHERE id % 2 = 1"
    )
    itself = sql.info.server_version >= 180000
    if itself:
        sql.execute(
            "ALTER TABLE events ADD up int, ADD CONSTRAINT upwards FOREIGN KEY (up, at)"
            " REFERENCES events; COMMENT ON CONSTRAINT upwards ON events IS 'tree';"
            "UPDATE events SET up = id + 20 WHERE id = 50"
        )
    before = snapshot(sql)
    pattern = PartitionTable(
        "events",
        "RANGE",
        ["at"],
        {"events_low": "FROM (0) TO (10)"},
        rest="events_rest",
        key=["id", "at"],
        old_key=["id", "at"],
        assured="test",
    )
    change = Change(revision="f", pattern=pattern)
    wrong = psycopg.errors.ForeignKeyViolation

    def used(number: int) -> None:
        with pytest.raises(wrong):
            sql.execute(f"INSERT INTO likes VALUES ({number}, 99)".encode())
        if itself:
            with pytest.raises(wrong):
                sql.execute("DELETE FROM events WHERE id = 70")
            with pytest.raises(wrong):
                sql.execute("UPDATE events SET up = 999 WHERE id = 51")
        # One and the other partition, of rows to which others refer.
        with pytest.raises(wrong):
            sql.execute(f"UPDATE events SET at = 12 WHERE id = {20 + number}".encode())
        sql.execute(f"UPDATE events SET at = at + 10 WHERE id = {21 + number}".encode())
        sql.execute(f"DELETE FROM events WHERE id IN ({number}, {number + 1})".encode())
        assert rows(sql, "SELECT count(*) FROM likes") == [(150 - number // 2,)]
        assert rows(sql, "SELECT count(*) FROM stars") == [(150 - number // 2,)]
        moved = f"SELECT at FROM stars WHERE event = {21 + number}"
        assert rows(sql, moved) == [((21 + number) % 20 + 10,)]

    runner.expand(change)
    runner.settle("f")
    used(2)
    (exchange, *_) = runner.plan(change).steps(Phase.RETIRE)
    assert isinstance(exchange.work, Transaction)
    named = {a.table.name: a.lock for a in exchange.work.also} | {"events": Lock.NONE}
    for name, lock in taken(sql, exchange.work, "events", "likes", "stars").items():
        assert name in named
        assert lock is Lock.ACCESS_EXCLUSIVE
    runner.retire("f", old_release_gone="test")
    used(4)
    runner.rollback("f")
    used(6)
    runner.rollback("f", to=State.PLANNED)
    same(snapshot(sql), before)
    runner.expand(change)
    runner.settle("f")
    runner.retire("f", old_release_gone="test")
    runner.drop("f")
    used(8)
    assert not rows(sql, BEHIND)
    runner.rebuild(change)
    used(10)
    same(snapshot(sql), before)


def test_requests_while_foreign_keys_go_over(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """Those that take both tables, in one order or the other, all come through."""
    sql.execute(
        "CREATE TABLE events (id int, at int, note text, PRIMARY KEY (id, at));"
        "CREATE TABLE likes (event int, at int, FOREIGN KEY (event, at) REFERENCES"
        " events ON DELETE CASCADE); CREATE INDEX ON likes (event);"
        "INSERT INTO events SELECT g, g % 20 FROM generate_series(1, 300) g"
    )
    pattern = PartitionTable(
        "events",
        "HASH",
        ["id"],
        ["events_0", "events_1"],
        key=["id", "at"],
        assured="test",
    )
    change = Change(revision="f", pattern=pattern)
    requests = Requests(database, 5, deadlock_timeout="1s")
    try:
        runner.expand(change)
        runner.settle("f")
        requests.begin(
            "INSERT INTO likes VALUES ({0}, {0})",
            "WITH gone AS (DELETE FROM likes WHERE event = {0}) UPDATE events SET note"
            " = random()::text WHERE id = {0}",
            "WITH gone AS (DELETE FROM events WHERE id = 10 + {0} RETURNING *)"
            " SELECT count(*) FROM gone",
            "INSERT INTO events VALUES (10 + {0}, 0) ON CONFLICT DO NOTHING",
        )
        for _ in range(2):
            requests.meet()
            runner.retire("f", old_release_gone="test")
            requests.meet()
            runner.rollback("f")
    finally:
        requests.end()
    assert not requests.failed


def test_complete_and_rebuild(runner: Runner, sql: psycopg.Connection) -> None:
    """Where no release runs it goes through at once, and back to one table."""
    sql.execute(SETUP.encode())
    everything = rows(sql, ALL)
    assert runner.complete(CHANGE) is State.DROPPED
    runner.rebuild(CHANGE)
    assert rows(sql, ALL) == everything
    assert not rows(sql, BEHIND)
    assert rows(
        sql, "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'one'"
    ) == [("PRIMARY KEY (id)",)]


@pytest.mark.parametrize("identity", ["FULL", "NOTHING"])
def test_partitions_are_replicated_as_the_table_was(
    runner: Runner, sql: psycopg.Connection, identity: str
) -> None:
    """A partition's own replica identity counts, and no partition has its parent's."""
    sql.execute(SETUP.encode())
    sql.execute(f"ALTER TABLE events REPLICA IDENTITY {identity}".encode())
    runner.complete(CHANGE)
    assert rows(
        sql,
        "SELECT DISTINCT relreplident::text FROM pg_class"
        " WHERE oid IN (SELECT relid FROM pg_partition_tree('events'))",
    ) == [(identity[0].lower(),)]


def test_hash(runner: Runner, sql: psycopg.Connection) -> None:
    """The bounds follow from the number of partitions."""
    sql.execute(SETUP.encode())
    pattern = PartitionTable(
        "events",
        "HASH",
        ["id"],
        ["events_0", "events_1", "events_2"],
        key=["id"],
        assured="test",
    )
    sql.execute("ALTER TABLE events DROP CONSTRAINT once")
    everything = rows(sql, ALL)
    assert runner.complete(Change(revision="h", pattern=pattern)) is State.DROPPED
    assert rows(sql, ALL) == everything
    assert len(rows(sql, "SELECT DISTINCT tableoid FROM events")) == 3


def test_partitions_that_the_server_refuses(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """They are tried out before anything is changed."""
    sql.execute(SETUP.encode())
    wrong = replace(PATTERN, partitions={"events_x": "FROM ('x') TO ('y')"})
    with pytest.raises(Refused, match="the server refuses a partition"):
        runner.expand(Change(revision="p", pattern=wrong))
    assert not rows(sql, BEHIND)


TABLE = Table(
    name=TableName("public", "events"),
    oid=1,
    columns=(
        Column(name="id", type="bigint", not_null=True),
        Column(name="at", type="date", not_null=True),
        Column(name="note", type="text"),
    ),
    indexes=(
        Index(
            name="one",
            method="btree",
            keys=(IndexColumn(name="id"),),
            unique=True,
            primary=True,
            columns=("id",),
        ),
    ),
)
FACTS = Facts(
    server_version=160000,
    table=TABLE,
    tag="0123456789",
    relation_names=frozenset({"events", "taken"}),
)
FEED = Publication(name="feed", whole=False, via_root=True)
LIKED = ForeignKey(
    name="liked",
    table=TableName("public", "likes"),
    columns=("event", "at"),
    to=TABLE.name,
    to_columns=("at", "id"),
)


def referred(key: ForeignKey) -> Table:
    """Return the table with a foreign key to it."""
    return replace(TABLE, foreign_keys=(key,))


MESSAGES: list[tuple[Table, dict[str, Any], str]] = [
    (TABLE, {"by": "SIZE"}, "by is 'SIZE'"),
    (
        TABLE,
        {"by": "list", "rest": ""},
        "rows that fit into no partition would be refused",
    ),
    (TABLE, {"by": "HASH", "rest": ""}, "`partitions` has bounds of HASH"),
    (TABLE, {"rest": "taken"}, 'has a relation "taken" already'),
    (TABLE, {"on": ["note"]}, 'column "note" takes NULL'),
    (TABLE, {"key": ["id"]}, "has not all columns of the partition key (at)"),
    (TABLE, {"assured": ""}, "ON CONFLICT has to name (id, at)"),
    (
        replace(
            TABLE,
            indexes=(
                *TABLE.indexes,
                Index(
                    name="u",
                    method="btree",
                    keys=(IndexColumn(name="id"),),
                    unique=True,
                ),
            ),
        ),
        {},
        'unique index "u" has not all columns',
    ),
    (
        referred(replace(LIKED, columns=("event",), to_columns=("id",))),
        {},
        'foreign key "liked" of table "public"."likes" refers to (id), which nothing',
    ),
    (
        referred(replace(LIKED, partitioned=True)),
        {},
        'foreign key "liked" of the partitioned table "public"."likes" refers to it',
    ),
    (
        referred(replace(LIKED, validated=False)),
        {},
        'foreign key "liked" of table "public"."likes" is not valid',
    ),
    (
        referred(replace(LIKED, name="after", table=TABLE.name)),
        {},
        'foreign key "after" refers to the table itself',
    ),
    (
        replace(
            TABLE,
            columns=(replace(TABLE.columns[0], identity=True), *TABLE.columns[1:]),
        ),
        {},
        "which a partitioned table has from PostgreSQL 17 on",
    ),
    (
        replace(TABLE, published=(Publication(name="feed", whole=False),)),
        {},
        'publication "feed" has it, and publishes rows of a partitioned table under',
    ),
    (
        replace(TABLE, published=(replace(FEED, columns=("id", "note")),)),
        {},
        'publication "feed" has not the column "at", which the replica identity',
    ),
    (
        replace(TABLE, published=(FEED,), replica_identity="INDEX"),
        {},
        "its replica identity is an index",
    ),
    (
        replace(
            TABLE,
            constraints=(
                Constraint(
                    name="one",
                    kind="p",
                    columns=("id",),
                    index="one",
                    dependents=("rule _RETURN on view v",),
                ),
            ),
        ),
        {},
        'rule _RETURN on view v groups by the primary key "one"',
    ),
    (
        replace(
            TABLE,
            indexes=(
                *TABLE.indexes,
                Index(
                    name="two",
                    method="btree",
                    keys=(IndexColumn(name="id"), IndexColumn(name="at")),
                    unique=True,
                ),
            ),
            constraints=(Constraint(name="one", kind="p", deferrable=True),),
        ),
        {},
        'primary key "one" is deferrable; the new one',
    ),
    (
        replace(TABLE, constraints=(Constraint(name="apart", kind="x"),)),
        {},
        'exclusion constraint "apart" cannot go over',
    ),
    (
        replace(
            TABLE,
            constraints=(
                Constraint(
                    name="alone", kind="c", definition="CHECK ((id > 0)) NO INHERIT"
                ),
            ),
        ),
        {},
        'constraint "alone" is NO INHERIT',
    ),
    (replace(TABLE, dependents=("view v",)), {}, "is used by view v"),
    (replace(TABLE, indexes=()), {}, "has no unique index over NOT NULL columns"),
]


@pytest.mark.parametrize(("table", "given", "message"), MESSAGES)
def test_message(table: Table, given: dict[str, Any], message: str) -> None:
    """What cannot work is refused before anything is changed."""
    with pytest.raises(Refused) as caught:
        replace(PATTERN, **given).check(replace(FACTS, table=table))
    assert message in str(caught.value)
