"""Constraints and unique indexes that go over to a column of another type."""

import re

import psycopg
import pytest
from snapshots import same, snapshot
from test_claims import ROLE, as_role
from test_interleavings import CrashError, crash_at, fresh, go

from migrator.change import Change
from migrator.errors import Failed, LockBudgetError, Refused
from migrator.names import TableName
from migrator.patterns import ChangeColumnType
from migrator.plan import State

FORWARD = ("expand", "backfill", "verify", "retire")
SETUP = """
CREATE TABLE p (id int PRIMARY KEY);
INSERT INTO p SELECT generate_series(0, 200);
CREATE TABLE t (
  id int PRIMARY KEY, n int NOT NULL DEFAULT 0, a int,
  CONSTRAINT t_n_key UNIQUE (n) DEFERRABLE,
  CONSTRAINT t_both UNIQUE NULLS NOT DISTINCT (n, a),
  CONSTRAINT "n's" CHECK (n >= 0 AND n < coalesce(a, 999) AND 'n' <> 'm'),
  CONSTRAINT "N fk" FOREIGN KEY (n) REFERENCES p ON UPDATE CASCADE ON DELETE CASCADE
);
CREATE UNIQUE INDEX t_n_u ON t (n DESC) INCLUDE (a) WITH (fillfactor = 80);
CREATE INDEX t_n_i ON t (n);
CREATE INDEX t_n_some ON t (n, a) WHERE a IS NULL;
CREATE UNIQUE INDEX t_n_few ON t (n) WHERE a > 5;
CREATE INDEX t_n_next ON t ((n + 1) DESC, a) WITH (fillfactor = 70)
  WHERE n > 5 AND 'n' <> 'm';
CREATE UNIQUE INDEX t_n_sum ON t ((n * 2), (coalesce(a, n)) int4_ops) WHERE n <> 6;
CREATE UNIQUE INDEX t_a_n ON t (a) WHERE n IS NOT NULL;
ALTER INDEX t_n_next ALTER COLUMN 1 SET STATISTICS 77;
ALTER INDEX t_n_sum ALTER COLUMN 1 SET STATISTICS 78;
COMMENT ON INDEX t_n_next IS 'next';
COMMENT ON INDEX t_n_sum IS 'sum';
ALTER TABLE t ADD CONSTRAINT given_unproved CHECK (n <> 3) NOT VALID;
COMMENT ON CONSTRAINT "n's" ON t IS 'it''s';
COMMENT ON CONSTRAINT "N fk" ON t IS 'fk';
COMMENT ON CONSTRAINT t_n_key ON t IS 'key';
COMMENT ON INDEX t_n_u IS 'index';
INSERT INTO t SELECT g, g FROM generate_series(4, 100) g;
"""


def change(type: str, to: str | None = None, table: str = "t") -> Change:
    """Return the change of column n."""
    pattern = ChangeColumnType(table, "n", type, to=to, assured="tried")
    return Change(revision="a1", pattern=pattern)


def carry(url: str, given: Change, *steps: str) -> None:
    """Run commands one after the other."""
    for step in steps:
        go(url, given, step)


@pytest.mark.parametrize("to", [None, "m"])
def test_all_stays(database: str, sql: psycopg.Connection, to: str | None) -> None:
    """Each binds in each state, comes back with it, and ends as by plain DDL."""
    sql.execute(SETUP)
    before = snapshot(sql)
    given = change("bigint", to)
    for number in range(1, len(FORWARD) + 1):
        carry(database, given, *FORWARD[:number])
        name = to if to and number == len(FORWARD) else "n"
        for value, error in (
            ("-1", psycopg.errors.CheckViolation),
            ("3", psycopg.errors.CheckViolation),
            ("8", psycopg.errors.UniqueViolation),
            ("201", psycopg.errors.ForeignKeyViolation),
        ):
            with pytest.raises(error):
                sql.execute(f"UPDATE t SET {name} = {value} WHERE id = 7".encode())
        # The foreign key's actions reach both columns.
        sql.execute("UPDATE p SET id = 150 + 100 WHERE id = 9")
        query = f"SELECT id, {name} FROM t WHERE id IN (9, 10) ORDER BY 1".encode()
        assert sql.execute(query).fetchall() == [(9, 250), (10, 10)]
        sql.execute("UPDATE p SET id = 9 WHERE id = 250")
        if number == len(FORWARD):
            go(database, given, "rollback")
        fresh(database).rollback("a1", to=State.PLANNED)
        fresh(database).drop_parked("a1", at_once=True)
        same(snapshot(sql), before)
    carry(database, given, *FORWARD, "drop")
    after = snapshot(sql)
    sql.execute("DROP TABLE t, p")
    sql.execute(SETUP.encode())
    sql.execute(
        "ALTER TABLE t ALTER n TYPE bigint, ALTER n SET DEFAULT (0)::bigint"
        + (f"; ALTER TABLE t RENAME n TO {to}" if to else "")
        # These the server forgets.
        + "; ALTER INDEX t_n_next ALTER COLUMN 1 SET STATISTICS 77"
        "; ALTER INDEX t_n_sum ALTER COLUMN 1 SET STATISTICS 78"
    )
    same(after, snapshot(sql))


PARTED = """
CREATE TABLE t (id int, n int, a int, PRIMARY KEY (id),
  CONSTRAINT "n's" CHECK (n > 0 OR 'n' = 'm'), CONSTRAINT both_ CHECK (n < a))
  PARTITION BY RANGE (id);
CREATE TABLE t_low PARTITION OF t FOR VALUES FROM (0) TO (50);
CREATE TABLE t_rest PARTITION OF t DEFAULT PARTITION BY LIST (id);
CREATE TABLE t_all PARTITION OF t_rest DEFAULT;
ALTER TABLE t ADD CONSTRAINT unproved CHECK (n <> 3) NOT VALID;
COMMENT ON CONSTRAINT "n's" ON t IS 'it''s';
INSERT INTO t SELECT g, g, g + 1 FROM generate_series(4, 100) g;
"""


@pytest.mark.parametrize("to", [None, "m"])
def test_checks_of_a_partitioned_table(
    database: str, sql: psycopg.Connection, to: str | None
) -> None:
    """They bind in each state, on each partition, and end as by plain DDL."""
    sql.execute(PARTED)
    before = snapshot(sql)
    given = change("bigint", to)
    for number in range(1, len(FORWARD) + 1):
        carry(database, given, *FORWARD[:number])
        name = to if to and number == len(FORWARD) else "n"
        for row, value in ((7, -1), (70, 0), (70, 3), (7, 99)):
            with pytest.raises(psycopg.errors.CheckViolation):
                sql.execute(f"UPDATE t SET {name} = {value} WHERE id = {row}".encode())
        if number == len(FORWARD):
            go(database, given, "rollback")
        fresh(database).rollback("a1", to=State.PLANNED)
        fresh(database).drop_parked("a1", at_once=True)
        same(snapshot(sql), before)
    carry(database, given, *FORWARD, "drop")
    after = snapshot(sql)
    sql.execute("DROP TABLE t")
    sql.execute(PARTED.encode())
    sql.execute(
        "ALTER TABLE t ALTER n TYPE bigint"
        + (f"; ALTER TABLE t RENAME n TO {to}" if to else "")
    )
    same(after, snapshot(sql))


def test_a_wider_varchar_under_a_check(database: str, sql: psycopg.Connection) -> None:
    """The server would scan the table for the check, under ACCESS EXCLUSIVE."""
    setup = "CREATE TABLE t (id int PRIMARY KEY, n varchar(9) UNIQUE CHECK (n <> ''))"
    sql.execute(setup.encode())
    carry(database, change("varchar(20)"), *FORWARD, "drop")
    after = snapshot(sql)
    sql.execute("DROP TABLE t")
    sql.execute(setup.encode())
    sql.execute("ALTER TABLE t ALTER n TYPE varchar(20)")
    same(after, snapshot(sql))


def test_equal_by_the_new_type(database: str, sql: psycopg.Connection) -> None:
    """Nothing holds the old release to the new type's =; retire names the rows."""
    sql.execute(
        "CREATE EXTENSION citext; CREATE TABLE t (id int PRIMARY KEY, n text UNIQUE);"
        "INSERT INTO t VALUES (1, 'bob')"
    )
    given = change("citext", "m")
    carry(database, given, *FORWARD[:2])
    sql.execute("INSERT INTO t VALUES (2, 'Bob')")
    go(database, given, "verify")
    with pytest.raises(Failed, match="rows have the same key"):
        go(database, given, "retire")
    sql.execute("INSERT INTO t VALUES (3, 'BOB'); DELETE FROM t WHERE id > 1")
    go(database, given, "retire")
    with pytest.raises(psycopg.errors.UniqueViolation):
        sql.execute("INSERT INTO t (id, m) VALUES (2, 'Bob')")


def test_equal_by_the_old_type(database: str, sql: psycopg.Connection) -> None:
    """What the retired column cannot tell apart is stored, and holds the way back."""
    sql.execute("CREATE TABLE t (id int PRIMARY KEY, n int UNIQUE)")
    given = change("numeric", "m")
    carry(database, given, *FORWARD)
    sql.execute("INSERT INTO t (id, m) VALUES (1, 1.1), (2, 1.2)")
    with pytest.raises(Failed, match="rows have the same key"):
        go(database, given, "rollback")
    assert fresh(database).change("a1").going_back is None
    sql.execute("UPDATE t SET m = 2 WHERE id = 2")
    go(database, given, "rollback")
    with pytest.raises(psycopg.errors.UniqueViolation):
        sql.execute("INSERT INTO t (id, n) VALUES (3, 2)")


def test_a_way_back_that_is_refused_leaves_no_index(
    database: str, sql: psycopg.Connection
) -> None:
    """Nor binds the release that goes on; where it got no lock, that is told."""
    sql.execute(
        "CREATE TABLE t (id int PRIMARY KEY, n int);"
        "CREATE UNIQUE INDEX a ON t (n, id); CREATE UNIQUE INDEX b ON t (n)"
    )
    given = change("numeric", "m")
    carry(database, given, *FORWARD)
    sql.execute("INSERT INTO t (id, m) VALUES (1, 1.1), (2, 1.2)")
    like, tag = '"public"."_migrator_like_', given.tag(TableName("public", "t"))
    stays = (
        "What this way back built stays, and refuses values that it does not allow"
        " until the way back is through, or the change dropped; to go on without, run"
        f' `DROP INDEX IF EXISTS {like}a_{tag}"; DROP INDEX IF EXISTS {like}b_{tag}"`.'
        "\nHeld by pid "
    )
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE t IN ACCESS SHARE MODE")
        # Rows refuse it, and the lock what takes it back.
        with pytest.raises(LockBudgetError) as caught:
            go(database, given, "rollback")
    assert caught.value.state.startswith(stays)
    with pytest.raises(Failed, match="rows have the same key"):
        go(database, given, "rollback")
    assert "_like_" not in "".join(snapshot(sql))
    sql.execute("DELETE FROM t WHERE id = 2")
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE t IN ACCESS SHARE MODE")
        with pytest.raises(LockBudgetError) as caught:
            go(database, given, "rollback")
    assert caught.value.state.startswith(stays)
    sql.execute("INSERT INTO t (id, m) VALUES (3, 5000000000)")
    with pytest.raises(Refused, match="is refused: 1 row holds values of the new"):
        go(database, given, "rollback")
    assert "_like_" not in "".join(snapshot(sql))
    assert fresh(database).change("a1").going_back is None
    sql.execute("INSERT INTO t (id, m) VALUES (4, 2.1), (5, 2.2)")
    go(database, given, "drop")


def test_a_way_back_that_a_check_refuses(
    database: str, sql: psycopg.Connection
) -> None:
    """It leaves no index over the retired column, and the change may go on."""
    sql.execute("CREATE TABLE t (id int PRIMARY KEY, n int UNIQUE CHECK (n <> 1))")
    given = change("numeric", "m")
    carry(database, given, *FORWARD)
    sql.execute("INSERT INTO t (id, m) VALUES (1, 1.3)")
    with pytest.raises(Refused, match='1 row violates the constraint "t_n_check"'):
        go(database, given, "rollback")
    sql.execute("INSERT INTO t (id, m) VALUES (2, 5.1), (3, 5.2)")
    go(database, given, "drop")


def test_values_that_a_foreign_key_refuses(
    database: str, sql: psycopg.Connection
) -> None:
    """They are counted each way, before anything binds a release to it."""
    sql.execute(
        "CREATE TABLE p (id numeric PRIMARY KEY); INSERT INTO p VALUES (1.2), (1.25);"
        "CREATE TABLE t (id int PRIMARY KEY, n numeric(9,1) CONSTRAINT fk REFERENCES p)"
    )
    given = change("numeric(9,2)", "m")
    carry(database, given, *FORWARD)
    sql.execute("INSERT INTO t (id, m) VALUES (1, 1.25)")
    with pytest.raises(Refused, match='1 row violates the constraint "fk" by the val'):
        go(database, given, "rollback")
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


def test_values_that_a_check_refuses(database: str, sql: psycopg.Connection) -> None:
    """They are counted before the new column is held to it."""
    sql.execute("CREATE TABLE t (id int PRIMARY KEY, n numeric(9,2) CHECK (n <> 1.3))")
    given = change("numeric(9,1)", "m")
    carry(database, given, *FORWARD[:3])
    sql.execute("INSERT INTO t (id, n) VALUES (1, 1.25)")
    go(database, given, "verify")
    with pytest.raises(Refused, match='1 row violates the constraint "t_n_check" by'):
        go(database, given, "retire")
    sql.execute("INSERT INTO t (id, n) VALUES (2, 1.25); UPDATE t SET n = 1.1")
    go(database, given, "retire")
    with pytest.raises(psycopg.errors.CheckViolation):
        sql.execute("UPDATE t SET m = 1.3")


def test_a_type_that_a_foreign_key_cannot_have(
    database: str, sql: psycopg.Connection
) -> None:
    """It is tried on empty tables, before anything is changed."""
    sql.execute(
        "CREATE TABLE p (id int PRIMARY KEY);"
        "CREATE TABLE t (id int PRIMARY KEY, n int CONSTRAINT fk REFERENCES p)"
    )
    with pytest.raises(Refused, match='refuses foreign key "fk" to '):
        go(database, change("text", "m"), "expand")


def test_a_type_that_a_check_cannot_have(
    database: str, sql: psycopg.Connection
) -> None:
    """The check is named, also where it calls a function of the old type."""
    sql.execute(
        "CREATE FUNCTION fine(int) RETURNS bool LANGUAGE sql IMMUTABLE RETURN $1 > 0;"
        'CREATE TABLE t (id int PRIMARY KEY, n int CONSTRAINT "it\'s" CHECK (fine(n)))'
    )
    with pytest.raises(Refused, match='refuses check "it\'s" of a column of type big'):
        go(database, change("bigint", "m"), "expand")


def test_a_parent_of_another_role(database: str, sql: psycopg.Connection) -> None:
    """What retire does to it is asked for before anything is changed."""
    sql.execute(
        "CREATE TABLE p (id int PRIMARY KEY);"
        "CREATE TABLE t (id int PRIMARY KEY, n int CONSTRAINT fk REFERENCES p)"
    )
    sql.execute(
        f"DO $$ BEGIN IF to_regrole('{ROLE}') IS NULL THEN CREATE ROLE {ROLE} LOGIN;"
        f" END IF; END $$; CREATE SCHEMA migrator AUTHORIZATION {ROLE};"
        f" ALTER TABLE t OWNER TO {ROLE}; GRANT SELECT, REFERENCES ON p TO {ROLE};"
        f" GRANT CREATE ON SCHEMA public TO {ROLE}".encode()
    )
    given, url = change("bigint", "m"), as_role(database)
    with pytest.raises(Refused, match='"fk" is made again by retire or its way'):
        go(url, given, "expand")
    sql.execute(f"GRANT UPDATE ON p TO {ROLE}".encode())
    sql.execute("ALTER TABLE p ENABLE ROW LEVEL SECURITY")
    with pytest.raises(Refused, match="row-level security applies to this role on tab"):
        go(url, given, "expand")
    sql.execute("ALTER TABLE p DISABLE ROW LEVEL SECURITY")
    carry(url, given, *FORWARD, "rollback", "retire", "drop")
    sql.execute(f"REASSIGN OWNED BY {ROLE} TO CURRENT_USER".encode())
    sql.execute(f"DROP OWNED BY {ROLE}".encode())


@pytest.mark.parametrize(
    ("column", "also", "words"),
    [
        ("int PRIMARY KEY", "", 'is under "t_pkey"'),
        ("int UNIQUE", "CREATE TABLE c (n int REFERENCES t (n))", "foreign key"),
        ("int", "ALTER TABLE t ADD EXCLUDE USING btree (n WITH =)", 'is under "t_n_ex'),
        (
            "int",
            "CREATE EXTENSION btree_gist; ALTER TABLE t ADD at daterange, ADD UNIQUE"
            " (n, at WITHOUT OVERLAPS)",
            'is under "t_n_at_key"',
        ),
        (
            "int",
            "CREATE EXTENSION btree_gist; ALTER TABLE t ADD at daterange;"
            " CREATE TABLE c (n int, at daterange,"
            " PRIMARY KEY (n, at WITHOUT OVERLAPS)); ALTER TABLE t ADD CONSTRAINT fk"
            " FOREIGN KEY (n, PERIOD at) REFERENCES c (n, PERIOD at)",
            'takes part in foreign key "fk"',
        ),
        (
            "int UNIQUE NOT NULL",
            "ALTER TABLE t REPLICA IDENTITY USING INDEX t_n_key",
            "the table's replica identity",
        ),
    ],
)
def test_what_does_not_go_over(
    database: str, sql: psycopg.Connection, column: str, also: str, words: str
) -> None:
    """It is refused by name, with the way out."""
    if "OVERLAPS" in also and sql.info.server_version < 180000:
        pytest.skip("WITHOUT OVERLAPS: 18 and later")
    sql.execute(f"CREATE TABLE t (n {column}); {also}".encode())
    with pytest.raises(Refused, match=words):
        go(database, change("bigint", "m"), "expand")


def test_what_came_on_a_partition_since(database: str, sql: psycopg.Connection) -> None:
    """The retired column would be held to it there, which the message tells."""
    sql.execute(PARTED.encode())
    given = change("bigint")
    carry(database, given, *FORWARD[:3])
    with crash_at("set_status", 5), pytest.raises(CrashError):
        go(database, given, "retire")
    sql.execute("ALTER TABLE t_all ADD CONSTRAINT late CHECK (n < 1000)")
    with pytest.raises(Refused, match="1 constraint or index came onto column"):
        go(database, given, "retire")
    sql.execute("ALTER TABLE t_all DROP CONSTRAINT late")
    assert go(database, given, "retire") is State.RETIRED


def test_what_came_since(database: str, sql: psycopg.Connection) -> None:
    """Behind a retire that died it holds the exchange; what came before goes over."""
    sql.execute("CREATE TABLE t (id int PRIMARY KEY, n int CHECK (n > 0))")
    given = change("bigint", "m")
    carry(database, given, *FORWARD[:3])
    sql.execute("ALTER TABLE t ADD CONSTRAINT before CHECK (n > 1)")
    with crash_at("set_status", 5), pytest.raises(CrashError):
        go(database, given, "retire")
    sql.execute("ALTER TABLE t ADD CONSTRAINT since CHECK (n > 2)")
    with pytest.raises(Refused, match="1 constraint or index came onto column"):
        go(database, given, "retire")
    sql.execute("ALTER TABLE t DROP CONSTRAINT since")
    go(database, given, "retire")
    with pytest.raises(psycopg.errors.CheckViolation, match="before"):
        sql.execute("INSERT INTO t (id, m) VALUES (1, 1)")


@pytest.mark.parametrize(
    ("after", "words"),
    [
        ("ALTER TABLE t DROP CONSTRAINT t_n_check, DROP CONSTRAINT t_n_key", ""),
        ("ALTER TABLE t ALTER m SET NOT NULL, ALTER m SET DEFAULT 5", ""),
        ("ALTER TABLE t ADD CONSTRAINT new CHECK (m IS NOT NULL)", "began: new"),
        ("ALTER TABLE t RENAME CONSTRAINT t_n_check TO other", "retire began: other"),
        (
            "ALTER TABLE t DROP CONSTRAINT t_n_check;"
            "ALTER TABLE t ADD CONSTRAINT t_n_check CHECK (id > 0)",
            "took a name that goes over, since retire began: t_n_check",
        ),
        (
            "ALTER TABLE t DROP CONSTRAINT t_n_key;"
            "CREATE TABLE c (n int); CREATE INDEX t_n_key ON c (n)",
            "took a name that goes over, since retire began: t_n_key",
        ),
        ("CREATE TABLE c (n bigint CONSTRAINT fk REFERENCES t (m))", "began: fk"),
        ("CREATE INDEX fine ON t (m)", ""),
    ],
)
def test_what_happens_to_it_after_retire(
    database: str, sql: psycopg.Connection, after: str, words: str
) -> None:
    """What was dropped comes back; nothing that came binds the old release."""
    sql.execute("CREATE TABLE t (id int PRIMARY KEY, n int UNIQUE CHECK (n > 0))")
    before = snapshot(sql)
    given = change("bigint", "m")
    carry(database, given, *FORWARD)
    sql.execute(after.encode())
    if words:
        with pytest.raises(Refused, match=words):
            go(database, given, "rollback")
        assert fresh(database).change("a1").going_back is None
        assert "_like_" not in "".join(snapshot(sql))
        if "DROP CONSTRAINT t_n_key" in after:
            with pytest.raises(Refused, match=r"_t_n_key_.*was dropped since"):
                go(database, given, "drop")
            return
        go(database, given, "drop")
        return
    go(database, given, "rollback")
    sql.execute("INSERT INTO t (id, n) VALUES (1, 1), (2, NULL)")
    assert sql.execute("SELECT n, m FROM t ORDER BY id").fetchall() == [
        (1, 1),
        (None, None),
    ]
    fresh(database).rollback("a1", to=State.PLANNED)
    sql.execute("INSERT INTO t VALUES (3)")
    fresh(database).drop_parked("a1", at_once=True)
    same(snapshot(sql), before)


def test_what_comes_under_the_same_name(database: str, sql: psycopg.Connection) -> None:
    """The other column would not have it, whichever way the exchange goes."""
    sql.execute(
        "CREATE TABLE t (id int PRIMARY KEY, n int, a int,"
        " CONSTRAINT k UNIQUE (a) INCLUDE (n)); CREATE INDEX i ON t (n)"
    )
    given = change("bigint")
    carry(database, given, *FORWARD[:3])
    with crash_at("set_status", 4), pytest.raises(CrashError):
        go(database, given, "retire")
    sql.execute("CREATE INDEX late ON t (n)")
    with pytest.raises(Refused, match="retire began: late"):
        go(database, given, "retire")
    sql.execute("DROP INDEX late; ALTER TABLE t ALTER n SET NOT NULL")
    with pytest.raises(Refused, match='retire began: "NOT NULL"'):
        go(database, given, "retire")
    sql.execute("ALTER TABLE t ALTER n DROP NOT NULL")
    go(database, given, "retire")
    sql.execute("CREATE INDEX late ON t (n)")
    with pytest.raises(Refused, match="retire began: late"):
        go(database, given, "rollback")
    sql.execute("DROP INDEX late")
    go(database, given, "rollback")


def test_what_is_rebuilt(database: str, sql: psycopg.Connection) -> None:
    """A downgrade after the drop makes all of it again, for revisions before it."""
    sql.execute(SETUP)
    before = snapshot(sql)
    given = Change(
        revision="a1",
        pattern=ChangeColumnType(
            "t", "n", "bigint", to="m", old_type="integer", assured="tried"
        ),
    )
    carry(database, given, *FORWARD, "drop")
    fresh(database).rebuild(given)
    after = snapshot(sql)
    held = [k for k in before if k.startswith(("index", "constraint"))]
    assert len(held) > 10
    for name in held:
        # What it is and on what; that rows are proved, comments and targets are not.
        now, then = (state[name].split(", True")[0] for state in (after, before))
        assert now.split(" NOT VALID")[0] == then.split(" NOT VALID")[0]


@pytest.mark.parametrize("when", ["backfill", "retire"])
def test_a_copy_whose_original_is_called_otherwise(
    database: str, sql: psycopg.Connection, when: str
) -> None:
    """The drop names it, and neither loses an index nor leaves a name made up."""
    sql.execute("CREATE TABLE t (id int PRIMARY KEY, n int); CREATE INDEX i ON t (n)")
    given = change("bigint")
    begun = FORWARD.index(when) + 1
    carry(database, given, *FORWARD[:begun])
    sql.execute("ALTER INDEX i RENAME TO j")
    carry(database, given, *FORWARD[begun:])
    if when == "backfill":
        # The renamed one was copied at retire, too.
        with pytest.raises(Refused, match="has another copy by now") as refused:
            go(database, given, "drop")
        statement = re.findall(r"\((DROP INDEX .*)\)", str(refused.value))[0]
        sql.execute(statement.encode())
    go(database, given, "drop")
    indexes = sql.execute(
        "SELECT indexdef FROM pg_indexes WHERE tablename = 't' ORDER BY indexname"
    ).fetchall()
    assert indexes[0] == ("CREATE INDEX j ON public.t USING btree (n)",)
    assert len(indexes) == 2


@pytest.mark.parametrize("order", ["xy", "yx"])
def test_two_changes_copy_one_index(
    database: str, sql: psycopg.Connection, order: str
) -> None:
    """The one's drop names what the other has made a copy of."""
    sql.execute("CREATE TABLE t (id int PRIMARY KEY, x int, y int)")
    sql.execute("CREATE INDEX i ON t (x, y)")
    both = {
        name: Change(
            revision=name,
            pattern=ChangeColumnType("t", name, "bigint", to=f"{name}2", assured="-"),
        )
        for name in "xy"
    }
    for given in both.values():
        carry(database, given, *FORWARD)
    for name in order:
        go(database, both[name], "drop")
    indexes = sql.execute(
        "SELECT indexdef FROM pg_indexes WHERE tablename = 't' ORDER BY indexname"
    ).fetchall()
    assert indexes[0] == ("CREATE INDEX i ON public.t USING btree (x2, y2)",)
    assert len(indexes) == 2
