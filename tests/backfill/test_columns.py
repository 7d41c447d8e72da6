"""Kinds of columns and tables beside plain ones: they work, or are refused."""

from collections.abc import Iterator

import psycopg
import pytest

from migrator.change import Change
from migrator.errors import MigratorError, Refused
from migrator.pattern import Pattern
from migrator.patterns import (
    AddColumn,
    ChangeColumnType,
    RenameColumn,
    SetNotNull,
    SplitColumn,
)
from migrator.plan import State
from migrator.postgres.connection import Target
from migrator.runner import Runner
from migrator.settings import Settings

RENAME = RenameColumn("t", "old", "new", assured="tried")
SPLIT = SplitColumn(
    "t",
    "old",
    {"head": ("text", "left(old, 1)"), "rest": ("text", "substr(old, 2)")},
    "head || rest",
)
GENERATED = ["STORED", "VIRTUAL"]


def carried(runner: Runner, pattern: Pattern, *, to: State = State.VERIFIED) -> None:
    """Carry a change to a state, and find every row in step where it is compared."""
    runner.expand(Change(revision="v", pattern=pattern))
    if to.rank >= State.BACKFILLED.rank:
        runner.backfill("v")
    if to.rank >= State.VERIFIED.rank:
        assert mismatches(runner) == 0


def mismatches(runner: Runner) -> int:
    """Compare, and return how many rows were out of step."""
    runner.verify("v")
    return runner.steps("v")[-1].rows


def rows(sql: psycopg.Connection, columns: str, table: str = "t") -> list[object]:
    """Return rows as text, in the order of `id`."""
    query = f"SELECT concat_ws('|', {columns}) FROM {table} ORDER BY id"
    return [row[0] for row in sql.execute(query.encode())]


def table(sql: psycopg.Connection, kind: str) -> None:
    """Create a table with generated columns on the mirrored one and beside it."""
    if kind == "VIRTUAL" and sql.info.server_version < 180000:
        pytest.skip("the server is older than 18, which made virtual columns")
    sql.execute(
        "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, k int,"
        " old text DEFAULT 'd',"
        f" loud text GENERATED ALWAYS AS (upper(old)) {kind},"
        f" twice int GENERATED ALWAYS AS (k * 2) {kind});"
        "INSERT INTO t (k, old) VALUES (1, 'ab'), (2, NULL)".encode()
    )


@pytest.mark.parametrize("kind", GENERATED)
def test_generated_columns_follow_a_rename(
    runner: Runner, sql: psycopg.Connection, kind: str
) -> None:
    """Built on the renamed column or beside it, they show what either name got."""
    table(sql, kind)
    carried(runner, RENAME)
    sql.execute("UPDATE t SET new = 'cd' WHERE id = 1; UPDATE t SET old = 'e', k = 5")
    sql.execute("INSERT INTO t (k, new) VALUES (3, 'f')")
    assert rows(sql, "old, new, loud, twice") == ["e|e|E|10", "e|e|E|10", "f|f|F|6"]
    runner.retire("v", old_release_gone="test")
    sql.execute("UPDATE t SET new = 'g' WHERE id = 1")
    runner.rollback("v")
    assert rows(sql, "old, new, loud") == ["g|g|G", "e|e|E", "f|f|F"]
    runner.retire("v", old_release_gone="test")
    runner.drop("v")
    assert rows(sql, "new, loud, twice") == ["g|G|10", "e|E|10", "f|F|6"]


@pytest.mark.parametrize("kind", GENERATED)
@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (RenameColumn("t", "loud", "new"), 'Column "loud" .* is generated'),
        (
            ChangeColumnType("t", "id", "text", "new"),
            'Column "id" .* is an identity column',
        ),
        (SPLIT, 'is read by generated column "loud", which would go with it'),
        (
            AddColumn("t", "n", "int", computed="twice + 1"),
            'reads a generated column .*"loud", "twice"',
        ),
        (SetNotNull("t", "old", fill="loud"), "reads a generated column"),
    ],
    ids=["of generated", "of identity", "split", "computed", "fill"],
)
def test_generated_columns_are_refused_where_a_trigger_lacks_them(
    runner: Runner, sql: psycopg.Connection, kind: str, pattern: Pattern, words: str
) -> None:
    """They have no value yet when the dual write is computed."""
    table(sql, kind)
    with pytest.raises(Refused, match=words):
        runner.plan(Change(revision="v", pattern=pattern))


def test_a_split_reads_no_generated_column(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Beside a generated column a split works; through one, either way, it does not."""
    sql.execute(
        "CREATE TABLE t (id int, old text, n int GENERATED ALWAYS AS (id - id + 1)"
        " STORED); INSERT INTO t VALUES (1, 'abc')"
    )
    for up, down in (("left(old, n)", "part"), ("old", "left(part, n)")):
        through = SplitColumn("t", "old", {"part": ("text", up)}, down)
        with pytest.raises(Refused, match="reads a generated column"):
            runner.plan(Change(revision="v", pattern=through))
    carried(runner, SPLIT)
    sql.execute("INSERT INTO t (id, old) VALUES (2, 'xy')")
    assert rows(sql, "old, n, head, rest") == ["abc|1|a|bc", "xy|1|x|y"]


DOMAINS = (
    "CREATE DOMAIN given AS text DEFAULT 'd'; CREATE DOMAIN must AS text NOT NULL;"
    "CREATE DOMAIN sure AS text CHECK (value IS NOT NULL)"
)


@pytest.mark.parametrize(
    ("column", "pattern", "words"),
    [
        ("must", RENAME, "left out of an INSERT .* does not allow null values"),
        ("sure", RENAME, 'left out of an INSERT .* constraint "sure_check"'),
        ("must", SPLIT, "left out of an INSERT .* does not allow null values"),
        ("text", AddColumn("t", "n", "given", computed="old"), "a default .* its own"),
        ("text", SplitColumn("t", "old", {"n": ("given", "old")}, "n"), "of its own"),
    ],
    ids=["must", "sure", "split", "computed", "split into"],
)
def test_domains_that_speak_for_a_release_are_refused(
    runner: Runner, sql: psycopg.Connection, column: str, pattern: Pattern, words: str
) -> None:
    """What refuses NULL fails an INSERT; a default passes for a written value."""
    sql.execute(f"{DOMAINS}; CREATE TABLE t (id int, old {column})".encode())
    with pytest.raises(Refused, match=words):
        runner.expand(Change(revision="v", pattern=pattern))


def test_a_renamed_domain_checks_what_either_name_gets(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """The copy is of the type underneath; the original still refuses."""
    sql.execute("CREATE DOMAIN small AS int CHECK (value < 9)")
    sql.execute("CREATE TABLE t (id int, old small); INSERT INTO t VALUES (1, 1)")
    carried(runner, RENAME)
    for column in ("old", "new"):
        with pytest.raises(psycopg.errors.CheckViolation, match="small_check"):
            sql.execute(f"UPDATE t SET {column} = 9".encode())
    assert rows(sql, "old, new") == ["1|1"]


PAIR = "CREATE TYPE pair AS (a int, b text)"


def test_a_row_of_nulls_is_a_value(runner: Runner, sql: psycopg.Connection) -> None:
    """`IS NULL` asks for a row's fields; a computed row with NULLs is stored."""
    sql.execute(f"{PAIR}; CREATE TABLE t (id int, a int, b text)".encode())
    sql.execute("INSERT INTO t VALUES (1, 1, 'x'), (2, 1, NULL), (3, NULL, NULL)")
    carried(runner, AddColumn("t", "n", "pair", computed="ROW(a, b)::pair"))
    sql.execute("INSERT INTO t VALUES (4, NULL, NULL)")
    assert rows(sql, "n") == ["(1,x)", "(1,)", "(,)", "(,)"]


def test_not_null_lets_a_row_of_nulls_be(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Only NULL itself is filled, and NOT NULL is proven of the rest."""
    sql.execute(f"{PAIR}; CREATE TABLE t (id int, c pair)".encode())
    sql.execute("INSERT INTO t VALUES (1, '(1,)'), (2, '(,)'), (3, NULL)")
    carried(runner, SetNotNull("t", "c", fill="ROW(0, NULL)::pair"))
    sql.execute("INSERT INTO t VALUES (4, '(,)'), (5, NULL)")
    runner.retire("v", old_release_gone="test")
    assert rows(sql, "c") == ["(1,)", "(,)", "(0,)", "(,)", "(0,)"]
    with pytest.raises(psycopg.errors.NotNullViolation):
        sql.execute("INSERT INTO t VALUES (6, NULL)")


@pytest.mark.parametrize(
    ("old", "new", "up", "down", "value"),
    [
        # Each loses detail on the way back: only new = up(old) is in step.
        ("text", "pair", "ROW(1, upper(old))::pair", "(n).b", "repeat('ab', 3000)"),
        ("text", "pair[]", "ARRAY[ROW(1, upper(old))::pair]", "n[1].b", "'x'"),
        ("text", "text[]", "string_to_array(old, ',')", "n[1]", "'a,,b'"),
        ("text", "jsonb", "old::jsonb", "n::text", """'{"b": 1.0, "a":1}'"""),
        ("text", "numeric(9, 2)", "old::numeric", "n::text", "'1.5'"),
        ("text", "char(3)", "old", "n", "'ab   '"),
        ("float8", "float4", "old", "n", "0.1"),
        ("timestamp", "timestamp(0)", "old", "n", "'2026-01-01 00:00:00.7'"),
        ("numrange", "numeric", "lower(old)", "numrange(n, NULL)", "'[1.0,2]'"),
    ],
    ids=lambda word: word,
)
def test_a_side_of_another_type(
    runner: Runner,
    sql: psycopg.Connection,
    old: str,
    new: str,
    up: str,
    down: str,
    value: str,
) -> None:
    """The trigger and the backfill make the same image of the same value."""
    sql.execute(f"{PAIR}; CREATE TABLE t (id int, k int, old {old})".encode())
    sql.execute(f"INSERT INTO t VALUES (1, 0, {value})".encode())
    carried(runner, SplitColumn("t", "old", {"n": (new, up)}, down))
    sql.execute(f"INSERT INTO t VALUES (2, 0, {value})".encode())
    before = rows(sql, "old, n")
    sql.execute("UPDATE t SET k = k + 1")
    assert rows(sql, "old, n") == before
    assert before[0] == before[1] != value
    assert mismatches(runner) == 0


@pytest.mark.parametrize(
    ("pattern", "columns", "wanted"),
    [
        (
            AddColumn("t", "n", "text", computed="slug(old)", schema="app"),
            "n",
            ["A", "B"],
        ),
        (
            AddColumn("t", "n", "boolean", computed="key = 'x'", schema="app"),
            "n",
            ["t", "t"],
        ),
        (
            SplitColumn(
                "t", "mood", {"m": ("text", "mood::text")}, "m::mood", schema="app"
            ),
            "mood, m",
            ["sad|sad", "ok|ok"],
        ),
    ],
    ids=["function", "operator", "type"],
)
def test_an_expression_means_the_same_in_trigger_and_backfill(
    runner: Runner,
    sql: psycopg.Connection,
    pattern: Pattern,
    columns: str,
    wanted: list[str],
) -> None:
    """It is looked up where it was tried out, not in the table's schema alone."""
    sql.execute(
        "CREATE SCHEMA app; CREATE EXTENSION citext;"
        "CREATE TYPE mood AS ENUM ('sad', 'ok');"
        "CREATE FUNCTION slug(text) RETURNS text LANGUAGE sql AS 'SELECT upper($1)';"
        "CREATE TABLE app.t (id int, old text, key citext, mood mood);"
        "INSERT INTO app.t VALUES (1, 'a', 'X', 'sad')"
    )
    carried(runner, pattern)
    # The application looks elsewhere, and knows nothing of it.
    sql.execute("SET search_path = app")
    sql.execute("INSERT INTO t VALUES (2, 'b', 'X', 'ok')")
    assert rows(sql, columns) == wanted
    assert mismatches(runner) == 0


def test_a_time_zone_of_the_session_changes_no_value(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """A day is made of a time as by the engine, whichever session writes."""
    sql.execute("CREATE TABLE t (id int, n int, old timestamptz)")
    sql.execute("INSERT INTO t VALUES (1, 0, '2026-01-01 20:00+00')")
    into = {"day": ("date", "old::date"), "said": ("text", "old::text")}
    carried(runner, SplitColumn("t", "old", into, "said::timestamptz"))
    for zone in ("Asia/Tokyo", "America/New_York"):
        sql.execute(f"SET timezone = '{zone}'; SET datestyle = 'German'".encode())
        sql.execute("INSERT INTO t VALUES (2, 0, '2026-01-01 20:00+00')")
        sql.execute("UPDATE t SET n = n + 1")
    assert mismatches(runner) == 0
    sql.execute("RESET timezone")
    assert set(rows(sql, "day, said")) == {"01.01.2026|2026-01-01 20:00:00+00"}


@pytest.fixture
def owner(database: str, sql: psycopg.Connection) -> Iterator[Runner]:
    """Give an engine whose role owns the table and is no superuser."""
    role = f"owner_{sql.info.dbname}"
    sql.execute(
        f"CREATE ROLE {role} LOGIN; GRANT CREATE ON DATABASE {sql.info.dbname}"
        f" TO {role}; CREATE TABLE t (id int, old text);"
        "INSERT INTO t SELECT g, 'x' FROM generate_series(1, 9) g;"
        f"ALTER TABLE t OWNER TO {role};"
        "CREATE POLICY low ON t USING (id < 5)".encode()
    )
    target = Target({**Target.from_url(database).params, "user": role})
    try:
        yield Runner(target, Settings(hold_s=0))
    finally:
        sql.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


SECURE = "ALTER TABLE t ENABLE ROW LEVEL SECURITY"
FORCE = f"{SECURE}; ALTER TABLE t FORCE ROW LEVEL SECURITY"


@pytest.mark.parametrize("bypass", [False, True])
@pytest.mark.parametrize("policy", [SECURE, FORCE], ids=["owner exempt", "forced"])
def test_row_security(
    owner: Runner, sql: psycopg.Connection, policy: str, bypass: bool
) -> None:
    """A role that sees all rows moves all rows; one that does not is refused."""
    sql.execute(policy.encode())
    if bypass:
        sql.execute(f"ALTER ROLE owner_{sql.info.dbname} BYPASSRLS".encode())
    if policy == FORCE and not bypass:
        with pytest.raises(Refused, match="Row-level security applies"):
            owner.expand(Change(revision="v", pattern=RENAME))
        return
    carried(owner, RENAME)
    assert set(rows(sql, "old, new")) == {"x|x"}
    owner.retire("v", old_release_gone="test")
    assert owner.rollback("v", to=State.PLANNED) is State.PLANNED


@pytest.mark.parametrize("way", [None, "keys"])
@pytest.mark.parametrize("reached", [State.EXPANDED, State.BACKFILLED])
def test_row_security_that_comes_later_stops_the_work(
    owner: Runner, sql: psycopg.Connection, reached: State, way: str | None
) -> None:
    """Rows that a policy hides are never passed over as if they were not there."""
    sql.execute("ALTER TABLE t ADD PRIMARY KEY (id)")
    owner.settings = Settings(hold_s=0, chunking=way)
    carried(owner, RENAME, to=reached)
    sql.execute(FORCE.encode())
    go = owner.backfill if reached is State.EXPANDED else owner.verify
    with pytest.raises(MigratorError, match="row-level security policy"):
        go("v")
    assert owner.change("v").state is reached
    sql.execute("ALTER TABLE t NO FORCE ROW LEVEL SECURITY")
    go("v")
    assert owner.verify("v") is State.VERIFIED
    assert set(rows(sql, "old, new")) == {"x|x"}
