"""Rules about columns: what they find, what they let pass, what they propose."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from migrator.lint import Harm, Linter, Severity, defaults
from migrator.lint.rules import RULES
from migrator.lint.rules.column_generated import VIRTUAL
from migrator.plan import Lock
from tests.lint.looking import codes, findings, looking_at, only, shown

COMING = [
    ("sa.Column('c', sa.Integer)", []),
    ("sa.Column('c', sa.Integer, server_default='1', nullable=False)", []),
    ("sa.Column('c', sa.DateTime, server_default=sa.func.now())", []),
    ("sa.Column('c', sa.Text, server_default=sa.text(\"'random()'\"))", []),
    (
        "sa.Column('c', sa.Numeric(8, 2), server_default=sa.text('0::numeric(8, 2)'))",
        [],
    ),
    ("sa.Column('c', sa.Integer, nullable=False)", ["ZD101"]),
    ("sa.Column('c', sa.UUID, server_default=sa.text('gen_random_uuid()'))", ["ZD102"]),
    ("sa.Column('c', sa.UUID, server_default=sa.text('app.new_id()'))", ["ZD102"]),
    ("sa.Column('c', sa.Integer, sa.Identity())", ["ZD103"]),
    ("sa.Column('c', sa.Integer, sa.Computed('a * 2', persisted=True))", ["ZD104"]),
    ("sa.Column('c', sa.Integer, sa.Computed('a * 2', persisted=False))", []),
    ("sa.Column('c', DOMAIN('d', sa.Integer, check='VALUE > 0'))", ["ZD105"]),
    ("sa.Column('c', DOMAIN('d', sa.Integer))", []),
    ("sa.Column('c', sa.Integer, sa.CheckConstraint('c > 0'))", ["ZD106"]),
    ("sa.Column('c', sa.Integer, unique=True)", ["ZD107"]),
    ("sa.Column('c', sa.Integer, sa.ForeignKey('p.id'))", ["ZD109"]),
    ("sa.Column('c', sa.JSON)", ["ZD110"]),
    ("sa.Column('c', JSONB)", []),
    (
        "sa.Column('c', sa.Integer, sa.ForeignKey('p.id'), nullable=False)",
        [
            "ZD101",
            "ZD109",
        ],
    ),
]

IMPORTS = "from sqlalchemy.dialects.postgresql import DOMAIN, JSONB\n"


def adding(column: str) -> str:
    """Return a revision's body that adds a column to `t`."""
    return f"{IMPORTS}op.add_column('t', {column})"


@pytest.mark.parametrize(("column", "expected"), COMING, ids=lambda c: str(c)[:60])
def test_a_column_that_comes(tmp_path: Path, column: str, expected: list[str]) -> None:
    """Each form is found by its rule alone, and what the server does at once passes."""
    assert codes(tmp_path, adding(column)) == expected


@pytest.mark.parametrize(("column", "_"), COMING, ids=lambda c: str(c)[:60])
def test_a_column_of_a_new_table_stalls_nobody(
    tmp_path: Path, column: str, _: list[str]
) -> None:
    """What is added to a table that the revision made is not found."""
    body = "op.create_table('t', sa.Column('id', sa.BigInteger, primary_key=True))"
    assert codes(tmp_path, f"{body}\n{adding(column)}") == []


@pytest.fixture
def linter(database: str, sql: psycopg.Connection) -> Iterator[Linter]:
    """Give a linter of a database with tables that hold rows."""
    sql.execute("""
        CREATE DOMAIN positive AS numeric(8, 2) CHECK (VALUE > 0) NOT NULL;
        CREATE DOMAIN free AS numeric(8, 2);
        CREATE TABLE p (id integer PRIMARY KEY);
        CREATE TABLE t (id bigint PRIMARY KEY, a integer, p integer REFERENCES p,
          short varchar(10) CHECK (short <> ''), long varchar(10), at timestamp,
          filled text NOT NULL DEFAULT '', open text);
        CREATE INDEX t_long ON t (long);
        INSERT INTO p SELECT n FROM generate_series(1, 100) n;
        INSERT INTO t (id, a, p) SELECT n, n, n % 100 + 1
          FROM generate_series(1, 1000) n;
        CREATE TABLE nothing (id bigint PRIMARY KEY, a integer);
    """)
    with looking_at(database) as made:
        yield made


def test_a_column_of_an_empty_table_stalls_nobody(
    tmp_path: Path, linter: Linter
) -> None:
    """What is added to a table without rows is not found."""
    for column, _ in COMING:
        if "persisted=False" not in column:
            body = adding(column).replace("'t'", "'nothing'")
            assert codes(tmp_path, body, linter) == [], column


def test_a_domain_is_known_by_the_database(tmp_path: Path, linter: Linter) -> None:
    """A domain counts as constrained where the database says so."""
    kind = "type('D', (sa.types.UserDefinedType,), {'get_col_spec': lambda s: '%s'})"
    body = f"op.add_column('t', sa.Column('c', ({kind})()))"
    assert codes(tmp_path, body % "free", linter) == []
    assert codes(tmp_path, body % "numeric(8, 2)", linter) == []
    found = only(findings(tmp_path, body % "public.positive", linter), "ZD105")
    assert shown(found.safe) == [
        'AddColumn("t", "c", "numeric(8,2)")',
        'AddCheck("t", "t_c_check", "…")',
    ]
    assert found.safe is not None
    assert found.safe.decide == (
        "the domain's condition over the column in place of VALUE:"
        " (VALUE > (0)::numeric)"
    )


def test_a_virtual_column_needs_a_server_that_has_it(tmp_path: Path) -> None:
    """A virtual column is an error before 18, and the proposal from 18 on."""
    virtual = adding("sa.Column('c', sa.Integer, sa.Computed('a', persisted=False))")
    stored = adding("sa.Column('c', sa.Integer, sa.Computed('a', persisted=True))")
    old, new = (
        Linter(guarded=True, server_version=version)
        for version in (VIRTUAL - 1, VIRTUAL)
    )
    assert codes(tmp_path, virtual, new) == []
    found = only(findings(tmp_path, virtual, old), "ZD104")
    assert found.severity is Severity.ERROR
    assert found.what == (
        "ADD COLUMN t.c is generated and VIRTUAL, which PostgreSQL 17 does not know."
    )
    assert shown(found.safe) == ['AddColumn("t", "c", "INTEGER", computed="a")']
    assert shown(only(findings(tmp_path, stored, old), "ZD104").safe) == [
        'AddColumn("t", "c", "INTEGER", computed="a")'
    ]
    assert shown(only(findings(tmp_path, stored, new), "ZD104").safe) == [
        'AddColumn("t", "c", "INTEGER", computed="a")',
        'op.execute("ALTER TABLE t ADD COLUMN c INTEGER GENERATED ALWAYS AS (a)'
        ' VIRTUAL")',
    ]


PROPOSALS = [
    (
        "sa.Column('c', sa.Integer, nullable=False)",
        "ZD101",
        [
            'AddColumn("t", "c", "INTEGER", default="…")',
            'AddColumn("t", "c", "INTEGER", computed="…")',
            'SetNotNull("t", "c")',
        ],
    ),
    (
        "sa.Column('c', sa.UUID, server_default=sa.text('gen_random_uuid()'))",
        "ZD102",
        [
            'AddColumn("t", "c", "UUID", computed="gen_random_uuid()")',
            'SetDefault("t", "c", "gen_random_uuid()")',
        ],
    ),
    (
        "sa.Column('c', sa.BigInteger, sa.Identity())",
        "ZD103",
        [
            'Custom("t", "sequence for c", at_expand=(Sql("CREATE SEQUENCE t_c_seq",'
            ' reverse="DROP SEQUENCE t_c_seq", lock="none")), touches=("c"))',
            'AddColumn("t", "c", "BIGINT", computed="nextval(\'t_c_seq\')")',
            'SetDefault("t", "c", "nextval(\'t_c_seq\')")',
            'SetNotNull("t", "c")',
        ],
    ),
    (
        "sa.Column('c', sa.Integer, sa.CheckConstraint('c > 0', name='k'),"
        " server_default='1', nullable=False)",
        "ZD106",
        [
            'AddColumn("t", "c", "INTEGER", default="\'1\'")',
            'AddCheck("t", "k", "c > 0")',
            'SetNotNull("t", "c")',
        ],
    ),
    (
        "sa.Column('c', sa.Text, unique=True)",
        "ZD107",
        ['AddColumn("t", "c", "TEXT")', 'AddUnique("t", ["c"], "t_c_key")'],
    ),
    (
        "sa.Column('c', sa.Integer, sa.ForeignKey('x.p.id', ondelete='CASCADE'))",
        "ZD109",
        [
            'AddColumn("t", "c", "INTEGER")',
            'AddForeignKey("t", ["c"], "p", ["id"], "t_c_fkey", on_delete="CASCADE",'
            ' referenced_schema="x")',
        ],
    ),
    ("sa.Column('c', sa.JSON)", "ZD110", ['AddColumn("t", "c", "jsonb")']),
    (
        "sa.Column('c', sa.Text(collation='C'), server_default=sa.func.random(),"
        " nullable=False, unique=True)",
        "ZD107",
        [
            'AddColumn("t", "c", \'TEXT COLLATE "C"\', computed="random()")',
            'SetDefault("t", "c", "random()")',
            'AddUnique("t", ["c"], "t_c_key")',
            'SetNotNull("t", "c")',
        ],
    ),
]


@pytest.mark.parametrize(("column", "code", "expected"), PROPOSALS, ids=lambda c: c[:5])
def test_the_safe_form_brings_all_of_a_column(
    tmp_path: Path, column: str, code: str, expected: list[str]
) -> None:
    """The changes bring the column with all that it was to have, to be pasted."""
    found = only(findings(tmp_path, adding(column)), code)
    assert shown(found.safe) == expected


def test_a_value_for_old_rows_is_a_persons_to_say(tmp_path: Path) -> None:
    """NOT NULL without a default asks what rows get, and says why it fails."""
    found = only(
        findings(tmp_path, adding("sa.Column('c', sa.Integer, nullable=False)")),
        "ZD101",
    )
    assert found.severity is Severity.ERROR
    assert found.what == "ADD COLUMN t.c is NOT NULL and has no default."
    assert found.safe is not None
    assert found.safe.decide.startswith("what rows that are there get")


def test_a_foreign_key_of_a_column_names_both_locks(
    tmp_path: Path, linter: Linter
) -> None:
    """The key's other table is named; a default makes it read every row."""
    bare = adding("sa.Column('c', sa.Integer, sa.ForeignKey('p.id'))")
    found = only(findings(tmp_path, bare, linter), "ZD109")
    assert found.severity is Severity.WARNING
    assert (found.lock, found.seconds) == (Lock.ACCESS_EXCLUSIVE, 0.0)
    assert "SHARE ROW EXCLUSIVE on p." in found.what
    filled = bare.replace(
        "sa.ForeignKey('p.id')", "sa.ForeignKey('p.id'), server_default='1'"
    )
    found = only(findings(tmp_path, filled, linter), "ZD109")
    assert found.what.endswith("and tests the default on every row.")
    assert found.seconds


def test_the_size_of_the_table_counts(tmp_path: Path, linter: Linter) -> None:
    """A rewrite is a warning on a small table, and an error on a large one."""
    body = adding("sa.Column('c', sa.Integer, sa.Identity())")
    small = only(findings(tmp_path, body, linter), "ZD103")
    assert small.severity is Severity.WARNING
    linter.short_s = 1e-9
    assert only(findings(tmp_path, body, linter), "ZD103").severity is Severity.ERROR


def test_lists_of_functions_are_the_servers(sql: psycopg.Connection) -> None:
    """No function that counts as steady is volatile on the server, nor the reverse."""
    rows = sql.execute(
        "SELECT proname, bool_or(provolatile = 'v'), bool_and(provolatile = 'v')"
        " FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace GROUP BY 1"
    ).fetchall()
    ever = {name for name, some, _ in rows if some}
    always = {name for name, _, every in rows if every}
    assert not defaults.STEADY & ever
    assert defaults.VOLATILE.intersection(name for name, *_ in rows) <= always


def test_every_rule_of_columns_says_why_it_harms() -> None:
    """A rule that stalls has work under a lock for which requests wait."""
    for rule in RULES:
        if rule.code < "ZD2" and rule.harm is Harm.STALL:
            assert rule.lock.rank >= Lock.SHARE.rank, rule.code
