"""Rules about tables: what they find, what they let pass, what they propose."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from migrator.lint import Finding, Linter, Severity
from migrator.lint.statements import Ref
from migrator.plan import Lock
from tests.lint.looking import codes, findings, looking_at, only, shown


def sql_of(*statements: str) -> str:
    """Return a revision's body that runs SQL."""
    return "\n".join(f"op.execute({statement!r})" for statement in statements)


@contextmanager
def prepared(url: str) -> Iterator[Linter]:
    """Give a linter of a database with tables that hold rows."""
    with psycopg.connect(url, autocommit=True) as sql:
        sql.execute("""
        CREATE TABLE users (id bigint PRIMARY KEY, name text, nick text);
        CREATE TABLE orders (id bigint PRIMARY KEY, user_id bigint REFERENCES users);
        CREATE TABLE lines (order_id bigint CONSTRAINT of_order REFERENCES orders,
          bill_id bigint);
        CREATE TABLE nothing (id bigint PRIMARY KEY);
        CREATE TABLE events (id bigint NOT NULL, at date NOT NULL)
          PARTITION BY RANGE (at);
        CREATE INDEX events_id ON events (id);
        CREATE TABLE events_rest (LIKE events);
        CREATE TABLE events_old (LIKE events);
        CREATE TABLE logs (id bigint NOT NULL, at date NOT NULL)
          PARTITION BY RANGE (at);
        CREATE TABLE logs_2025 PARTITION OF logs
          FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
        CREATE TABLE logs_2026 (LIKE logs,
          CHECK (at >= '2026-01-01' AND at < '2027-01-01'));
        CREATE TABLE logs_2027 (LIKE logs);
        CREATE TABLE words (word text, at date) PARTITION BY LIST (word);
        CREATE TABLE words_a (word text, at date, CHECK (word = 'it''s'));
        CREATE TABLE words_b (word text, at date,
          CHECK (word IS NOT NULL AND word = 'it''s'));
        INSERT INTO users SELECT n, 'n', 'n' FROM generate_series(1, 100) n;
        INSERT INTO orders SELECT n, n FROM generate_series(1, 100) n;
        INSERT INTO lines SELECT n FROM generate_series(1, 100) n;
        INSERT INTO events_rest SELECT n, '2020-01-01' FROM generate_series(1, 100) n;
        INSERT INTO events_old SELECT n, '2024-01-01' FROM generate_series(1, 100) n;
        INSERT INTO logs SELECT n, '2025-01-01' FROM generate_series(1, 100) n;
        INSERT INTO logs_2026 SELECT n, '2026-01-01' FROM generate_series(1, 100) n;
        INSERT INTO logs_2027 SELECT n, '2027-01-01' FROM generate_series(1, 100) n;
        INSERT INTO words_a SELECT 'it''s' FROM generate_series(1, 100) n;
        INSERT INTO words_b SELECT 'it''s' FROM generate_series(1, 100) n;
        ALTER TABLE events ATTACH PARTITION events_rest DEFAULT;
    """)
    with looking_at(url) as made:
        yield made


CASES = [
    ("op.drop_table('users')", ["ZD401"]),
    ("op.rename_table('users', 'accounts')", ["ZD403"]),
    (sql_of("ALTER TABLE users SET SCHEMA app"), ["ZD404"]),
    (sql_of("ALTER SCHEMA app RENAME TO web"), ["ZD405"]),
    (sql_of("DROP SCHEMA app CASCADE"), ["ZD406"]),
    (sql_of("DROP SCHEMA app"), []),
    (sql_of("CREATE SCHEMA s; DROP SCHEMA s CASCADE"), []),
    (sql_of("TRUNCATE users"), ["ZD407"]),
    (sql_of("VACUUM FULL users"), ["ZD420"]),
    (sql_of("VACUUM users"), []),
    (sql_of("CLUSTER users USING users_pkey"), ["ZD420"]),
    (sql_of("ALTER TABLE users SET UNLOGGED"), ["ZD420"]),
    (sql_of("ALTER TABLE users SET TABLESPACE fast"), ["ZD420"]),
    (sql_of("ALTER TABLE users SET (fillfactor = 80)"), []),
    (
        sql_of("CREATE TRIGGER g BEFORE INSERT ON users EXECUTE FUNCTION f()"),
        ["ZD430"],
    ),
    (sql_of("ALTER TABLE users DISABLE TRIGGER g"), ["ZD430"]),
    (sql_of("ALTER TABLE users ENABLE ROW LEVEL SECURITY"), ["ZD432"]),
    (sql_of("CREATE POLICY p ON users USING (true)"), ["ZD432"]),
]


def of_tables(found: list[str]) -> list[str]:
    """Return the codes of tables; others are of the statements' surroundings."""
    return [code for code in found if code.startswith("ZD4")]


def of_a_schema(body: str) -> list[str]:
    """Return the codes of what is done to a schema as a whole."""
    words = {"SCHEMA app RENAME": "ZD405", "SCHEMA app CASCADE": "ZD406"}
    return [code for said, code in words.items() if said in body]


@pytest.mark.parametrize(("body", "expected"), CASES, ids=lambda c: str(c)[:50])
def test_a_table_that_is_in_use(tmp_path: Path, body: str, expected: list[str]) -> None:
    """Each form is found by its rule alone."""
    assert of_tables(codes(tmp_path, body)) == expected


@pytest.mark.parametrize(("body", "_"), CASES, ids=lambda c: str(c)[:50])
def test_a_table_that_is_empty(
    tmp_path: Path, linter: Linter, body: str, _: list[str]
) -> None:
    """Nothing of a table without rows is found, but for a whole schema."""
    found = of_tables(codes(tmp_path, body.replace("users", "nothing"), linter))
    assert found == of_a_schema(body)


@pytest.mark.parametrize(("body", "_"), CASES, ids=lambda c: str(c)[:50])
def test_a_table_that_the_revision_made(
    tmp_path: Path, body: str, _: list[str]
) -> None:
    """Nothing of a table is found that nobody knows yet."""
    made = "op.create_table('users', sa.Column('id', sa.BigInteger, primary_key=True))"
    found = of_tables(codes(tmp_path, f"{made}\n{body}"))
    assert found == of_a_schema(body)


def test_a_table_that_goes(tmp_path: Path, linter: Linter) -> None:
    """Tables at the other end of foreign keys are named; keys to it go first."""
    found = only(findings(tmp_path, "op.drop_table('lines')", linter), "ZD401")
    assert found.severity is Severity.ERROR
    assert found.what == (
        "DROP TABLE lines takes the table from the release in use, under ACCESS"
        " EXCLUSIVE on it and on public.orders, to which it refers."
    )
    assert shown(found.safe) == ['DropTable("lines")']
    found = only(findings(tmp_path, "op.drop_table('orders')", linter), "ZD401")
    assert shown(found.safe) == [
        'DropConstraint("lines", "of_order", schema="public")',
        'DropTable("orders")',
    ]
    key = "op.drop_constraint('of_order', 'lines')"
    (after,) = findings(tmp_path, f"{key}\nop.drop_table('lines')", linter)
    assert after.what.endswith("under ACCESS EXCLUSIVE on it.")
    unknown = only(findings(tmp_path, "op.drop_table('gone')", linter), "ZD401")
    assert unknown.what.endswith(
        "EXCLUSIVE on it and on each table that its foreign keys refer to."
    )
    (cascade, *_) = findings(tmp_path, sql_of("DROP TABLE lines CASCADE"), linter)
    assert cascade.why.endswith("Foreign keys and views of others go along, unseen.")


def test_a_table_that_goes_may_be_one_that_comes(
    tmp_path: Path, linter: Linter
) -> None:
    """A drop beside a new table of most of its columns is a rename, or two changes."""
    new = (
        "op.create_table('{}', sa.Column('order_id', sa.BigInteger, primary_key=True),"
        " sa.Column('{}', sa.BigInteger))\nop.drop_table('lines')"
    )
    same = findings(tmp_path, new.format("items", "bill_id"), linter)
    found = only(same, "ZD401")
    assert shown(found.safe) == ['DropTable("lines")', 'RenameTable("lines", "items")']
    assert found.safe is not None
    assert found.safe.decide
    other = only(findings(tmp_path, new.format("items", "x"), linter), "ZD401")
    assert shown(other.safe) == ['DropTable("lines")']


def test_names_that_change_stay_for_the_old_release(tmp_path: Path) -> None:
    """A rename, another schema and a schema's rename each have their pattern."""
    body = "op.rename_table('users', 'accounts', schema='app')\n" + sql_of(
        "ALTER TABLE app.bills SET SCHEMA web", "ALTER SCHEMA app RENAME TO b"
    )
    found = findings(tmp_path, body)
    assert shown(only(found, "ZD403").safe) == [
        'RenameTable("users", "accounts", schema="app")'
    ]
    assert shown(only(found, "ZD404").safe) == [
        'MoveToSchema("bills", "web", schema="app")'
    ]
    schema = only(found, "ZD405")
    assert (schema.lock, schema.table) == (Lock.NONE, None)
    assert shown(schema.safe) == ['MoveToSchema("…", "b", schema="app")']


def test_a_table_that_is_emptied(tmp_path: Path, linter: Linter) -> None:
    """Each table is a finding, and CASCADE tells what goes along."""
    found = findings(tmp_path, sql_of("TRUNCATE users, nothing CASCADE"), linter)
    emptied = only(found, "ZD407")
    assert emptied.what == (
        "TRUNCATE users CASCADE, with public.orders, takes all rows at once, under"
        " ACCESS EXCLUSIVE."
    )
    assert shown(emptied.safe) == [
        "DELETE FROM users WHERE ctid = ANY (ARRAY(SELECT ctid FROM users LIMIT 5000));"
        "  -- again, until no row is left"
    ]


def attach(parent: str, part: str, bounds: str, *before: str) -> str:
    """Return a revision's body that attaches a partition."""
    return sql_of(*before, f"ALTER TABLE {parent} ATTACH PARTITION {part} {bounds}")


IN_2027 = "FOR VALUES FROM ('2027-01-01') TO ('2028-01-01')"
LIKE_2027 = "at >= '2027-01-01' AND at < '2028-01-01'"


@pytest.mark.parametrize(
    ("body", "tables"),
    [
        (attach("logs", "logs_2027", IN_2027), ["logs_2027"]),
        (
            attach(
                "logs",
                "logs_2026",
                "FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
            ),
            [],
        ),
        (
            attach(
                "logs",
                "logs_2026",
                "FOR VALUES FROM ('2026-01-01') TO ('2028-01-01')",
            ),
            ["logs_2026"],
        ),
        (
            attach(
                "logs",
                "logs_2027",
                IN_2027,
                f"ALTER TABLE logs_2027 ADD CONSTRAINT k CHECK ({LIKE_2027}) NOT VALID",
            ),
            ["logs_2027"],
        ),
        (
            attach(
                "logs",
                "logs_2027",
                IN_2027,
                f"ALTER TABLE logs_2027 ADD CONSTRAINT k CHECK ({LIKE_2027}) NOT VALID",
                "ALTER TABLE logs_2027 VALIDATE CONSTRAINT k",
            ),
            [],
        ),
        (attach("logs", "logs_new", IN_2027, "CREATE TABLE logs_new (LIKE logs)"), []),
        (attach("words", "words_a", "FOR VALUES IN ('it''s')"), ["words_a"]),
        (attach("words", "words_b", "FOR VALUES IN ('it''s')"), []),
        (
            attach(
                "events",
                "events_old",
                "FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')",
            ),
            ["events_old", "public.events_rest"],
        ),
        (attach("logs", "logs_2027", "DEFAULT"), ["logs_2027"]),
        (attach("unknown", "logs_2027", IN_2027), ["logs_2027"]),
    ],
)
def test_a_table_that_becomes_a_partition(
    tmp_path: Path, linter: Linter, body: str, tables: list[str]
) -> None:
    """A check of the bounds spares the scan; a DEFAULT partition is read too."""
    found = [f for f in findings(tmp_path, body, linter) if f.code == "ZD410"]
    assert [str(f.table) for f in found] == tables


def test_what_a_partition_lacks_is_built(tmp_path: Path, linter: Linter) -> None:
    """Missing indexes are named; the pattern has the bounds, but none of a DEFAULT."""
    bounds = "FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')"
    part, rest = (
        f
        for f in findings(tmp_path, attach("events", "events_old", bounds), linter)
        if f.code == "ZD410"
    )
    assert part.what == (
        "ATTACH PARTITION events_old to events reads every row, to prove the bounds,"
        " and builds like events_id under ACCESS EXCLUSIVE on events_old."
    )
    assert rest.lock is Lock.ACCESS_EXCLUSIVE
    assert rest.seconds
    assert shown(part.safe) == [
        'AttachPartition("events", "events_old",'
        " \"FROM ('2024-01-01') TO ('2025-01-01')\")"
    ]
    default = only(
        findings(tmp_path, attach("logs", "logs_2027", "DEFAULT"), linter), "ZD410"
    )
    assert default.safe is None


def test_a_partition_that_is_made_in_place(tmp_path: Path, linter: Linter) -> None:
    """The parent is locked; a DEFAULT partition is read besides."""
    make = "CREATE TABLE {0}_27 PARTITION OF {0} " + IN_2027
    found = only(findings(tmp_path, sql_of(make.format("logs")), linter), "ZD411")
    assert (found.table, found.severity) == (Ref("logs"), Severity.WARNING)
    assert found.what == (
        "CREATE TABLE logs_27 PARTITION OF logs takes ACCESS EXCLUSIVE on logs."
    )
    assert shown(found.safe) == [
        'op.execute("CREATE TABLE logs_27 (LIKE logs INCLUDING DEFAULTS INCLUDING'
        ' CONSTRAINTS)")',
        'op.execute("ALTER TABLE logs ATTACH PARTITION logs_27 FOR VALUES …")',
    ]
    found = only(findings(tmp_path, sql_of(make.format("events")), linter), "ZD411")
    assert found.table == Ref("events_rest", "public")
    assert found.seconds
    assert found.safe is not None
    assert "AttachPartition" in found.safe.decide
    new = sql_of("CREATE TABLE logs (at date) PARTITION BY RANGE (at)")
    assert codes(tmp_path, f"{new}\n{sql_of(make.format('logs'))}") == []


def test_a_partition_that_goes(tmp_path: Path, linter: Linter) -> None:
    """A detachment is found unless it is concurrent, or ends one that was."""
    detach = "ALTER TABLE logs DETACH PARTITION logs_2025"
    found = only(findings(tmp_path, sql_of(detach), linter), "ZD412")
    assert (found.lock, found.severity) == (Lock.ACCESS_EXCLUSIVE, Severity.WARNING)
    assert shown(found.safe) == ['DetachPartition("logs", "logs_2025")']
    for word in ("CONCURRENTLY", "FINALIZE"):
        assert not of_tables(codes(tmp_path, sql_of(f"{detach} {word}"), linter))


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("VACUUM (FULL) users", ['RebuildTable("users")']),
        ("CLUSTER users USING users_pkey", ['RebuildTable("users")']),
        (
            "ALTER TABLE app.users SET TABLESPACE fast",
            ['RebuildTable("users", alter=("SET TABLESPACE fast"), schema="app")'],
        ),
        (
            "ALTER TABLE users SET ACCESS METHOD columnar",
            ['RebuildTable("users", alter=("SET ACCESS METHOD columnar"))'],
        ),
    ],
)
def test_a_table_that_is_written_anew(
    tmp_path: Path, statement: str, expected: list[str]
) -> None:
    """The safe form is another table that takes its name, with the same clause."""
    found = only(findings(tmp_path, sql_of(statement)), "ZD420")
    assert shown(found.safe) == expected


def test_unlogged_has_no_safe_form(tmp_path: Path, linter: Linter) -> None:
    """No pattern switches the log of a table; severity follows its size."""
    body = sql_of("ALTER TABLE users SET UNLOGGED")
    found = only(findings(tmp_path, body, linter), "ZD420")
    assert (found.safe, found.severity) == (None, Severity.WARNING)
    linter.short_s = 1e-9
    assert only(findings(tmp_path, body, linter), "ZD420").severity is Severity.ERROR


TRIGGER = "CREATE TRIGGER g BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION f()"


@pytest.mark.parametrize(
    ("statement", "lock", "expected"),
    [
        (
            TRIGGER,
            Lock.SHARE_ROW_EXCLUSIVE,
            f'Custom("users", "create trigger g", at_expand=(Sql("{TRIGGER}",'
            ' reverse="DROP TRIGGER g ON users", lock="SHARE ROW EXCLUSIVE")))',
        ),
        (
            "ALTER TABLE users DISABLE TRIGGER g",
            Lock.SHARE_ROW_EXCLUSIVE,
            'Custom("users", "disable trigger g",'
            ' at_retire=(Sql("ALTER TABLE users DISABLE TRIGGER g",'
            ' reverse="ALTER TABLE users ENABLE TRIGGER g",'
            ' lock="SHARE ROW EXCLUSIVE")))',
        ),
        (
            "DROP TRIGGER g ON users",
            Lock.ACCESS_EXCLUSIVE,
            'Custom("users", "drop trigger g",'
            ' at_retire=(Sql("DROP TRIGGER g ON users", reverse="…")))',
        ),
        (
            "CREATE POLICY own ON users USING (true)",
            Lock.ACCESS_EXCLUSIVE,
            'Custom("users", "create policy own",'
            ' at_expand=(Sql("CREATE POLICY own ON users USING (true)",'
            ' reverse="DROP POLICY own ON users")))',
        ),
        (
            "ALTER TABLE users ENABLE ROW LEVEL SECURITY",
            Lock.ACCESS_EXCLUSIVE,
            'Custom("users", "enable row security",'
            ' at_retire=(Sql("ALTER TABLE users ENABLE ROW LEVEL SECURITY",'
            ' reverse="ALTER TABLE users DISABLE ROW LEVEL SECURITY")))',
        ),
    ],
)
def test_triggers_and_policies_are_carried_as_they_stand(
    tmp_path: Path, statement: str, lock: Lock, expected: str
) -> None:
    """A short strong lock is a warning; the toolkit runs the statement as it is."""
    found = _only(findings(tmp_path, sql_of(statement)), "ZD430", "ZD432")
    assert (found.lock, found.severity) == (lock, Severity.WARNING)
    assert shown(found.safe) == [expected]


def _only(found: list[Finding], *wanted: str) -> Finding:
    (one,) = (f for f in found if f.code in wanted)
    return one
