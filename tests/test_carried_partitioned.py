"""Foreign keys of a partitioned table that go over to a column of another type."""

import psycopg
import pytest
from snapshots import same, snapshot
from test_carried import FORWARD, carry, change
from test_interleavings import CrashError, crash_at, fresh, go

from migrator.change import Change
from migrator.errors import LockBudgetError, Refused
from migrator.patterns import ChangeColumnType, TransformColumn
from migrator.plan import State

SETUP = """
CREATE TABLE p (id int PRIMARY KEY);
INSERT INTO p SELECT generate_series(0, 200);
CREATE TABLE q (a int, b int, PRIMARY KEY (a, b));
INSERT INTO q SELECT g, g + 1 FROM generate_series(0, 200) g;
CREATE TABLE t (id int, n int DEFAULT 0, a int,
  CONSTRAINT "N fk" FOREIGN KEY (n) REFERENCES p ON UPDATE CASCADE ON DELETE CASCADE,
  CONSTRAINT both_ FOREIGN KEY (n, a) REFERENCES q MATCH FULL
    ON UPDATE CASCADE ON DELETE SET NULL (n, a) DEFERRABLE)
  PARTITION BY RANGE (id);
CREATE TABLE t_low PARTITION OF t FOR VALUES FROM (0) TO (50);
CREATE TABLE t_rest PARTITION OF t DEFAULT PARTITION BY LIST (id);
CREATE SCHEMA other;
CREATE TABLE other."all" (id int, n int DEFAULT 0, a int,
  CONSTRAINT "it's" FOREIGN KEY (n) REFERENCES p ON UPDATE CASCADE ON DELETE CASCADE);
ALTER TABLE t_rest ATTACH PARTITION other."all" DEFAULT;
COMMENT ON CONSTRAINT "N fk" ON t IS 'fk';
COMMENT ON CONSTRAINT "it's" ON other."all" IS 'it''s 100 %';
INSERT INTO t SELECT g, g, g + 1 FROM generate_series(4, 100) g;
"""
VIOLATING = (
    "UPDATE t SET {} = 201, a = 202 WHERE id = 7",
    "UPDATE t SET {} = 201, a = 202 WHERE id = 70",
    "UPDATE t SET {} = 8 WHERE id = 7",
    "UPDATE t SET {} = NULL WHERE id = 70",
)

PARTS = (
    "SELECT conrelid::regclass, conname, convalidated FROM pg_constraint"
    " WHERE contype = 'f' AND conrelid::regclass::text !~ 'migrator'"
)


def refused(sql: psycopg.Connection, name: str) -> None:
    """Assert that no row may refer to nothing, and that actions reach the rows."""
    for text in VIOLATING:
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            sql.execute(text.format(name).encode())
    sql.execute("UPDATE q SET b = 500 WHERE a = 9")
    query = f"SELECT id, {name}, a FROM t WHERE id IN (9, 10) ORDER BY 1".encode()
    assert sql.execute(query).fetchall() == [(9, 9, 500), (10, 10, 11)]
    sql.execute("UPDATE q SET b = 10 WHERE a = 9")


def snapshots(sql: psycopg.Connection) -> dict[str, str]:
    """Return what there is in both schemas."""
    return snapshot(sql, "public", "other")


@pytest.mark.parametrize("to", [None, "m"])
def test_all_stays(database: str, sql: psycopg.Connection, to: str | None) -> None:
    """Each binds in each state, comes back with it, and ends as by plain DDL."""
    sql.execute(SETUP)
    before = snapshots(sql)
    given = change("bigint", to)
    for number in range(1, len(FORWARD) + 1):
        carry(database, given, *FORWARD[:number])
        refused(sql, to if to and number == len(FORWARD) else "n")
        if number == len(FORWARD):
            go(database, given, "rollback")
            refused(sql, "n")
        fresh(database).rollback("a1", to=State.PLANNED)
        fresh(database).drop_parked("a1", at_once=True)
        same(snapshots(sql), before)
    carry(database, given, *FORWARD, "drop")
    refused(sql, to or "n")
    after = snapshots(sql)
    sql.execute("DROP TABLE t, p, q; DROP SCHEMA other CASCADE")
    sql.execute(SETUP.encode())
    sql.execute(
        "ALTER TABLE t ALTER n TYPE bigint, ALTER n SET DEFAULT (0)::bigint"
        + (f"; ALTER TABLE t RENAME n TO {to}" if to else "")
        # What a part is called the server forgets.
        + '; ALTER TABLE other."all" RENAME CONSTRAINT "N fk" TO "it\'s"'
        + "; COMMENT ON CONSTRAINT \"it's\" ON other.\"all\" IS 'it''s 100 %'"
    )
    same(after, snapshots(sql))


def died(url: str, given: Change, step: str, where: str) -> int:
    """Run a command that dies at each call of the ledger, one further each time."""
    crashes = 0
    while True:
        try:
            with crash_at(where, crashes):
                go(url, given, step)
            return crashes
        except CrashError:
            crashes += 1


@pytest.mark.parametrize("keep", [None, (), ("N fk",)])
def test_crashes_at_every_status(
    database: str, sql: psycopg.Connection, keep: tuple[str, ...] | None
) -> None:
    """Retire and its way back are taken up where they died, also of what is lifted."""
    sql.execute(SETUP)
    before = snapshots(sql)
    given = change("bigint", "m")
    if keep is not None:
        pattern = TransformColumn(
            "t", "n", "m", "bigint", "n", "m", keep=keep, default="0", assured="tried"
        )
        given = Change(revision="a1", pattern=pattern)
    carry(database, given, *FORWARD[:3])
    for step in ("retire", "rollback"):
        # Between the actions of a way back no status is entered.
        for where in ("set_status", "status_of"):
            assert died(database, given, step, where) > 1
            if step == "retire":
                kept = {None: 8, (): 0, ("N fk",): 4}[keep]
                assert len(sql.execute(PARTS.encode()).fetchall()) == kept
            if where == "set_status":
                go(database, given, "rollback" if step == "retire" else "retire")
    refused(sql, "n")
    fresh(database).rollback("a1", to=State.PLANNED)
    fresh(database).drop_parked("a1", at_once=True)
    same(snapshots(sql), before)


def reads(sql: psycopg.Connection, statements: list[str]) -> int:
    """Run statements and take them back; return how many rows of tables they read."""
    with sql.transaction(force_rollback=True):
        for statement in statements:
            sql.execute(statement.encode())
        row = sql.execute(
            "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::int"
            " FROM pg_stat_xact_user_tables WHERE schemaname <> 'migrator'"
        ).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("step", ["retire", "rollback"])
def test_no_row_is_read_under_the_lock(
    database: str, sql: psycopg.Connection, step: str
) -> None:
    """The key of the whole table takes those of leaves by the catalogue alone."""
    sql.execute(SETUP)
    given = change("bigint", "m")
    carry(database, given, *FORWARD[:3])
    if step == "rollback":
        go(database, given, "retire")
    likes = f"SELECT convalidated FROM ({PARTS}) p WHERE conname LIKE '%like%'".encode()
    ready, crashes = {"retire": 4, "rollback": 2}[step], 0
    while sql.execute(likes).fetchall() != [(True,)] * ready:
        with crash_at("status_of", crashes), pytest.raises(CrashError):
            go(database, given, step)
        crashes += 1
    row = sql.execute(
        "SELECT step #> CASE %s WHEN 'retire' THEN '{work,statements}'"
        " ELSE '{reverse,-1,statements}' END::text[] FROM migrator.steps"
        " WHERE step ->> 'name' = 'exchange_shapes'",
        [step],
    ).fetchone()
    assert row is not None
    assert reads(sql, row[0]) == 0
    assert reads(sql, ["SELECT FROM t"]) > 0


def test_partitions_come_and_go(database: str, sql: psycopg.Connection) -> None:
    """What came behind retire is held to it as well when that is taken back."""
    sql.execute(SETUP)
    given = change("bigint", "m")
    carry(database, given, *FORWARD[:3])
    sql.execute("CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (200) TO (300)")
    go(database, given, "retire")
    sql.execute("CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (300) TO (400)")
    sql.execute(
        "INSERT INTO t (id, m, a)"
        " SELECT g, g % 9, g % 9 + 1 FROM generate_series(200, 399) g"
    )
    sql.execute("ALTER TABLE t DETACH PARTITION t_low; DROP TABLE t_1")
    go(database, given, "rollback")
    found = sql.execute(
        PARTS.replace("conrelid::regclass", "conrelid::regclass::text")
        + " AND conparentid <> 0 ORDER BY 1, 2"
    ).fetchall()
    assert found == [
        ('other."all"', "both_", True),
        ('other."all"', "it's", True),
        ("t_2", "N fk", True),
        ("t_2", "both_", True),
        ("t_rest", "N fk", True),
        ("t_rest", "both_", True),
    ]
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        sql.execute("UPDATE t SET n = 201, a = 202 WHERE id = 301")


def test_a_partition_that_comes_during_retire(
    database: str, sql: psycopg.Connection
) -> None:
    """Its rows would be looked up under the lock."""
    sql.execute(SETUP)
    given = change("bigint")
    carry(database, given, *FORWARD[:3])
    likes = f"{PARTS} AND conname LIKE '%like%'".encode()
    crashes = 0
    while len(sql.execute(likes + b" AND convalidated").fetchall()) < 4:
        with crash_at("status_of", crashes), pytest.raises(CrashError):
            go(database, given, "retire")
        crashes += 1
    sql.execute("CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (200) TO (300)")
    with pytest.raises(Refused, match="1 partition has no proved foreign key"):
        go(database, given, "retire")
    fresh(database).rollback("a1", to=State.VERIFIED)
    assert not sql.execute(likes).fetchall()
    go(database, given, "retire")
    refused(sql, "n")


def test_leaves_are_proved_one_by_one(database: str, sql: psycopg.Connection) -> None:
    """What is proved stays so where the next one is locked, and is locked no more."""
    sql.execute(SETUP)
    sql.execute("ALTER TABLE t DROP CONSTRAINT both_")
    given = change("bigint")
    carry(database, given, *FORWARD[:3])
    likes = f"SELECT FROM ({PARTS}) p WHERE conname LIKE '%like%'".encode()
    crashes = 0
    while not sql.execute(likes).fetchall():
        fresh(database).rollback("a1", to=State.VERIFIED)
        with crash_at("set_status", crashes), pytest.raises(CrashError):
            go(database, given, "retire")
        crashes += 1
    with psycopg.connect(database, application_name="billing") as other:
        other.execute('LOCK TABLE other."all" IN SHARE UPDATE EXCLUSIVE MODE')
        with pytest.raises(LockBudgetError, match='application "billing"'):
            go(database, given, "retire")
    assert len(sql.execute(likes + b" AND convalidated").fetchall()) == 1
    go(database, given, "retire")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        sql.execute("UPDATE t SET n = 201 WHERE id = 7")


def test_values_that_a_foreign_key_refuses(
    database: str, sql: psycopg.Connection
) -> None:
    """They are counted each way, before anything binds a release to it."""
    sql.execute(
        "CREATE TABLE p (id numeric PRIMARY KEY); INSERT INTO p VALUES (1.2), (1.25);"
        "CREATE TABLE t (id int, n numeric(9,1) CONSTRAINT fk REFERENCES p)"
        " PARTITION BY RANGE (id);"
        "CREATE TABLE t_all PARTITION OF t DEFAULT"
    )
    given = change("numeric(9,2)", "m")
    carry(database, given, *FORWARD)
    sql.execute("INSERT INTO t (id, m) VALUES (1, 1.25)")
    with pytest.raises(Refused, match='1 row violates the constraint "fk" by the val'):
        go(database, given, "rollback")
    assert fresh(database).change("a1").going_back is None
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        sql.execute("INSERT INTO t (id, m) VALUES (1, 1.3)")
    sql.execute("INSERT INTO t (id, m) VALUES (2, 1.25)")
    go(database, given, "drop")
    less = ChangeColumnType("t", "m", "numeric(9,1)", to="l", assured="tried")
    again = Change(revision="b1", pattern=less)
    go(database, again, "expand")
    fresh(database).settle("b1")
    with pytest.raises(Refused, match='2 rows violate the constraint "fk" by their'):
        go(database, again, "retire")
    sql.execute("INSERT INTO t (id, m) VALUES (3, 1.25)")
    sql.execute("UPDATE t SET m = 1.2")
    go(database, again, "retire")


@pytest.mark.parametrize(
    ("also", "words"),
    [
        ("ALTER TABLE t_low ADD CONSTRAINT own FOREIGN KEY (n) REFERENCES p", "own"),
        (
            "ALTER TABLE t ADD PRIMARY KEY (id); ALTER TABLE t ADD CONSTRAINT self"
            " FOREIGN KEY (n) REFERENCES t",
            "self",
        ),
        (
            "CREATE TABLE r (id int PRIMARY KEY) PARTITION BY RANGE (id);"
            "CREATE TABLE r_1 PARTITION OF r DEFAULT; INSERT INTO r SELECT"
            " generate_series(0, 200); ALTER TABLE t ADD CONSTRAINT parts"
            " FOREIGN KEY (n) REFERENCES r",
            "parts",
        ),
        (
            "ALTER TABLE t ADD CONSTRAINT late FOREIGN KEY (n) REFERENCES p NOT VALID",
            "late",
        ),
    ],
)
def test_what_does_not_go_over(
    database: str, sql: psycopg.Connection, also: str, words: str
) -> None:
    """It is refused by name, with the way out."""
    if "NOT VALID" in also and sql.info.server_version < 180000:
        pytest.skip("NOT VALID of a partitioned table: 18 and later")
    sql.execute(SETUP)
    sql.execute(also.encode())
    with pytest.raises(Refused, match=f'takes part in foreign key .*"{words}'):
        go(database, change("bigint", "m"), "expand")


def test_a_key_to_a_partitioned_table(database: str, sql: psycopg.Connection) -> None:
    """It is told by its own name, not by that of its part alone."""
    sql.execute(
        "CREATE TABLE r (id int PRIMARY KEY) PARTITION BY RANGE (id);"
        "CREATE TABLE r_1 PARTITION OF r DEFAULT;"
        "CREATE TABLE t (id int PRIMARY KEY, n int CONSTRAINT whole REFERENCES r)"
    )
    with pytest.raises(Refused, match=r'takes part in foreign key .*"whole"'):
        go(database, change("bigint", "m"), "expand")


@pytest.mark.parametrize("taken", [False, True])
def test_a_part_of_another_name(
    database: str, sql: psycopg.Connection, *, taken: bool
) -> None:
    """What is attached after retire may bring its key under a name of its own."""
    sql.execute("CREATE TABLE p (id int PRIMARY KEY); INSERT INTO p VALUES (1)")
    sql.execute(
        "CREATE TABLE t (id int, n int CONSTRAINT fk REFERENCES p)"
        " PARTITION BY RANGE (id);"
        "CREATE TABLE t_low PARTITION OF t FOR VALUES FROM (0) TO (50)"
    )
    given = change("bigint", "m")
    carry(database, given, *FORWARD)
    sql.execute(
        "CREATE TABLE more (LIKE t); ALTER TABLE more ADD FOREIGN KEY (m) REFERENCES p;"
        + ("ALTER TABLE more ADD CONSTRAINT fk CHECK (id > 0);" if taken else "")
        + "ALTER TABLE t ATTACH PARTITION more FOR VALUES FROM (50) TO (90)"
    )
    fresh(database).rollback("a1", to=State.PLANNED)
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        sql.execute("INSERT INTO t (id, n) VALUES (60, 2)")
    sql.execute("INSERT INTO t (id, n) VALUES (60, 1), (7, 1)")
    parts = sql.execute(
        "SELECT convalidated FROM pg_constraint WHERE contype = 'f'"
        " AND confrelid = 'p'::regclass"
    ).fetchall()
    assert parts == [(True,)] * 3
