"""Rules about columns: what they find, what they let pass, what they propose."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from migrator.change import Change
from migrator.lint import Harm, Linter, Severity, defaults
from migrator.lint.rules import RULES
from migrator.lint.rules.column_generated import VIRTUAL
from migrator.lint.statements import AddIdentity, Ref, SetExpression
from migrator.patterns import Custom
from migrator.plan import Lock, State
from migrator.runner import Runner
from tests.lint.looking import codes, findings, look, looking_at, of, only, shown

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


@contextmanager
def prepared(url: str) -> Iterator[Linter]:
    """Give a linter of a database with tables that hold rows."""
    with psycopg.connect(url, autocommit=True) as sql:
        sql.execute("""
        CREATE DOMAIN positive AS numeric(8, 2) CHECK (VALUE > 0) NOT NULL;
        CREATE DOMAIN free AS numeric(8, 2);
        CREATE TABLE p (id integer PRIMARY KEY);
        CREATE TABLE t (id bigint PRIMARY KEY, a integer, p integer REFERENCES p,
          short varchar(10) CHECK (short <> ''), long varchar(10), at timestamp,
          filled text NOT NULL DEFAULT '', open text, soft text DEFAULT '',
          amount free, worded varchar(10),
          twice integer GENERATED ALWAYS AS (a * 2) STORED);
        CREATE INDEX t_long ON t (long);
        CREATE INDEX t_worded ON t (lower(worded));
        INSERT INTO p SELECT n FROM generate_series(1, 100) n;
        INSERT INTO t (id, a, p) SELECT n, n, n % 100 + 1
          FROM generate_series(1, 1000) n;
        CREATE TABLE nothing (id bigint PRIMARY KEY, a integer);
    """)
    with looking_at(url) as made:
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
    either = adding("sa.Column('c', sa.Integer, sa.Computed('a'))")
    stored = adding("sa.Column('c', sa.Integer, sa.Computed('a', persisted=True))")
    old, new = (
        Linter(guarded=True, server_version=version)
        for version in (VIRTUAL - 1, VIRTUAL)
    )
    assert codes(tmp_path, virtual, new) == []
    # Without a word it is what the server makes of it.
    assert codes(tmp_path, either, new) == []
    assert codes(tmp_path, either, old) == ["ZD104"]
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
            'AddColumn("t", "c", "INTEGER", default="…", not_null=True)',
            'AddColumn("t", "c", "INTEGER", computed="…", not_null=True)',
        ],
    ),
    (
        "sa.Column('c', sa.UUID, server_default=sa.text('gen_random_uuid()'))",
        "ZD102",
        ['AddColumn("t", "c", "UUID", default="gen_random_uuid()")'],
    ),
    (
        "sa.Column('c', sa.BigInteger, sa.Identity())",
        "ZD103",
        [
            'AddColumn("t", "c", "BIGINT", identity="by default")',
        ],
    ),
    (
        "sa.Column('c', sa.Integer, sa.CheckConstraint('c > 0', name='k'),"
        " server_default='1', nullable=False)",
        "ZD106",
        [
            'AddColumn("t", "c", "INTEGER", default="\'1\'", not_null=True)',
            'AddCheck("t", "k", "c > 0")',
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
            'AddColumn("t", "c", \'TEXT COLLATE "C"\', default="random()",'
            " not_null=True)",
            'AddUnique("t", ["c"], "t_c_key")',
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


CHANGING = [
    ("op.alter_column('t', 'a', new_column_name='c')", ["ZD113"]),
    ("op.alter_column('t', 'filled', nullable=True)", ["ZD114"]),
    ("op.alter_column('t', 'open', nullable=True)", []),
    ("op.alter_column('t', 'a', type_=sa.BigInteger)", ["ZD116", "ZD119"]),
    ("op.alter_column('t', 'short', type_=sa.String(20))", ["ZD117"]),
    ("op.alter_column('t', 'short', type_=sa.String(5))", ["ZD116"]),
    ("op.alter_column('t', 'long', type_=sa.Text)", []),
    ("op.alter_column('t', 'long', type_=sa.Text(collation='POSIX'))", ["ZD118"]),
    ("op.alter_column('t', 'open', type_=sa.Text(collation='POSIX'))", []),
    (
        "op.alter_column('t', 'long', type_=sa.Text, postgresql_using='long::text')",
        [],
    ),
    (
        "op.alter_column('t', 'long', type_=sa.Text, postgresql_using='lower(long)')",
        ["ZD116"],
    ),
    ("op.alter_column('t', 'amount', type_=sa.Numeric(8, 2))", []),
    ("op.alter_column('t', 'worded', type_=sa.Text)", ["ZD118"]),
    ("op.alter_column('t', 'a', server_default='1')", ["ZD122"]),
    ("op.alter_column('t', 'filled', server_default=None)", ["ZD123"]),
    ("op.alter_column('t', 'a', server_default=None)", []),
    ("op.drop_column('t', 'a')", ["ZD112"]),
]


@pytest.mark.parametrize(("body", "expected"), CHANGING, ids=lambda c: str(c)[:70])
def test_a_column_that_changes(
    tmp_path: Path, linter: Linter, body: str, expected: list[str]
) -> None:
    """The database's facts tell what is free, and what is done already."""
    assert codes(tmp_path, body, linter) == expected


@pytest.mark.parametrize(("body", "_"), CHANGING, ids=lambda c: str(c)[:70])
def test_a_column_of_the_revision_itself_may_change(
    tmp_path: Path, body: str, _: list[str]
) -> None:
    """A column of a table that the revision made is in nobody's use."""
    made = "op.create_table('t', sa.Column('id', sa.BigInteger, primary_key=True))"
    assert codes(tmp_path, f"{made}\n{body}") == []


def typed(new: str, old: str = "", *, more: str = "") -> str:
    """Return a revision's body that changes a column's type."""
    existing = f", existing_type={old}" if old else ""
    return f"op.alter_column('t', 'c', type_={new}{existing}{more})"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (typed("sa.String(20)", "sa.String(10)"), []),
        (typed("sa.Text()", "sa.String(10)"), []),
        (typed("sa.String(10)", "sa.String(20)"), ["ZD116"]),
        (typed("sa.BigInteger()", "sa.Integer()"), ["ZD116"]),
        (typed("sa.Numeric(12, 2)", "sa.Numeric(8, 2)"), []),
        (typed("sa.DateTime(True)", "sa.DateTime()"), ["ZD116"]),
        (
            "op.execute('SELECT 1')\n" + typed("sa.Text(collation='C')", "sa.Text()"),
            ["ZD118"],
        ),
        (typed("sa.Text()"), ["ZD116"]),
        (typed("sa.Text()", "sa.types.NullType()"), ["ZD116"]),
    ],
)
def test_a_type_without_a_database(
    tmp_path: Path, body: str, expected: list[str]
) -> None:
    """The type before is the revision's word; without one, nothing counts as free."""
    assert codes(tmp_path, body) == expected


def test_a_type_that_the_revision_does_not_tell(tmp_path: Path) -> None:
    """A cast from an unknown type says what to add to the revision."""
    unknown = only(findings(tmp_path, typed("sa.Text()")), "ZD116")
    assert "does not say what the type was (`existing_type`)" in unknown.why
    told = only(findings(tmp_path, typed("sa.Integer()", "sa.Text()")), "ZD116")
    assert told.why == (
        "No request can read or write the table meanwhile."
        " A value that the new type does not take makes it fail."
    )


def test_the_time_zone_decides_on_a_timestamp(tmp_path: Path, linter: Linter) -> None:
    """In UTC a timestamp becomes timestamptz as it is, elsewhere it is written."""
    body = "op.alter_column('t', 'at', type_=sa.DateTime(True))"
    linter.time_zone = "Etc/UTC"
    assert codes(tmp_path, body, linter) == []
    linter.time_zone = "Europe/Paris"
    found = only(findings(tmp_path, body, linter), "ZD116")
    assert shown(found.safe) == [
        'ChangeColumnType("t", "at", "TIMESTAMP WITH TIME ZONE", to="…",'
        ' old_type="timestamp without time zone")',
        'ChangeColumnType("t", "at", "TIMESTAMP WITH TIME ZONE",'
        ' old_type="timestamp without time zone", assured="…")',
        "op.execute(\"SET LOCAL timezone = 'UTC'\")",
        'op.execute("ALTER TABLE t ALTER COLUMN at TYPE TIMESTAMP WITH TIME ZONE")',
    ]


@pytest.mark.parametrize(
    ("table", "column", "expected"),
    [
        ("p", "id", ['ChangePrimaryKey("p", "id", old_type="integer")']),
        ("t", "p", ['ChangePrimaryKey("p", "id", old_type="integer")']),
        (
            "t",
            "a",
            [
                'ChangeColumnType("t", "a", "BIGINT", to="…", old_type="integer")',
                'ChangeColumnType("t", "a", "BIGINT", old_type="integer", assured="…")',
            ],
        ),
        (
            "unknown",
            "a",
            [
                'ChangePrimaryKey("unknown", "a")',
                'ChangeColumnType("unknown", "a", "BIGINT", to="…")',
                'ChangeColumnType("unknown", "a", "BIGINT", assured="…")',
            ],
        ),
    ],
)
def test_an_integer_that_grows(
    tmp_path: Path, linter: Linter, table: str, column: str, expected: list[str]
) -> None:
    """A key goes with all that refers to it; a column that refers, by its key."""
    body = f"op.alter_column('{table}', '{column}', type_=sa.BigInteger)"
    assert shown(only(findings(tmp_path, body, linter), "ZD116").safe) == expected


def test_a_cast_of_ones_own_needs_its_way_back(tmp_path: Path) -> None:
    """USING becomes `up`, and a person writes `down`."""
    body = typed(
        "sa.Date()", "sa.Text()", more=", postgresql_using='to_date(c, \"Y\")'"
    )
    found = only(findings(tmp_path, body), "ZD116")
    assert found.safe is not None
    assert "`down`, the expression that makes the old value" in found.safe.decide
    assert shown(found.safe)[0] == (
        'ChangeColumnType("t", "c", "DATE", to="…", up=\'to_date(c, "Y")\','
        ' down="…", old_type="TEXT")'
    )


def test_a_check_on_a_free_cast_comes_back_not_valid(
    tmp_path: Path, own: Linter, sql: psycopg.Connection
) -> None:
    """The code of the safe form is run, and leaves the check valid."""
    body = "op.alter_column('t', 'short', type_=sa.String(20))"
    found = only(findings(tmp_path, body, own), "ZD117")
    assert found.what == (
        "ALTER COLUMN t.short TYPE VARCHAR(20) tests t_short_check on every row under"
        " ACCESS EXCLUSIVE."
    )
    assert found.safe is not None
    safe = found.safe.code
    assert codes(tmp_path, safe, own) == []
    for line in safe.splitlines():
        if "op.execute" in line:
            sql.execute(line.partition('("')[2].removesuffix('")').encode())
    rows = sql.execute(
        "SELECT convalidated, format_type(atttypid, atttypmod) FROM pg_constraint"
        " JOIN pg_attribute ON attrelid = conrelid AND attname = 'short'"
        " WHERE conname = 't_short_check'"
    ).fetchall()
    assert rows == [(True, "character varying(20)")]


def test_an_index_that_a_cast_builds_anew(tmp_path: Path, linter: Linter) -> None:
    """Indexes are named, and the safe form is a second column, or goes without."""
    body = "op.alter_column('t', 'long', type_=sa.Text(collation='POSIX'))"
    found = only(findings(tmp_path, body, linter), "ZD118")
    assert found.what == (
        "ALTER COLUMN t.long TYPE TEXT builds t_long anew under ACCESS EXCLUSIVE; its"
        " collation changes."
    )
    block = "with op.get_context().autocommit_block():"
    assert shown(found.safe) == [
        'ChangeColumnType("t", "long", "TEXT", to="…", collation=\'"POSIX"\','
        ' old_type="character varying(10)")',
        block,
        '    op.execute("DROP INDEX CONCURRENTLY IF EXISTS public.t_long")',
        "op.execute('ALTER TABLE t ALTER COLUMN long TYPE TEXT COLLATE \"POSIX\"')",
        block,
        '    op.execute("CREATE INDEX CONCURRENTLY t_long ON t USING btree (long)")',
    ]
    words = "op.alter_column('t', 'worded', type_=sa.Text)"
    found = only(findings(tmp_path, words, linter), "ZD118")
    assert found.safe is not None
    assert not found.safe.patterns


def test_a_default_that_goes(tmp_path: Path, linter: Linter) -> None:
    """What INSERTs do afterwards follows from the column."""
    gone = "op.alter_column('t', '{}', server_default=None)"
    found = only(findings(tmp_path, gone.format("filled"), linter), "ZD123")
    assert found.severity is Severity.ERROR
    assert found.why == "Those that leave the column out fail: the column is NOT NULL."
    assert shown(found.safe) == ['DropDefault("t", "filled")']
    lifted = "op.alter_column('t', 'filled', nullable=True)\n" + gone.format("filled")
    found = only(findings(tmp_path, lifted, linter), "ZD123")
    assert found.why == "Those that leave the column out store NULL."
    found = only(findings(tmp_path, gone.format("soft"), linter), "ZD123")
    assert found.severity is Severity.WARNING
    new = "op.add_column('t', sa.Column('c', sa.Integer{}))\n" + gone.format("c")
    bare = new.format(", server_default='1'")
    assert codes(tmp_path, bare) == codes(tmp_path, bare, linter) == []
    filled = new.format(", server_default='1', nullable=False")
    found = only(findings(tmp_path, filled, linter), "ZD123")
    assert found.severity is Severity.ERROR
    assert found.why == (
        "Those that leave the column out fail: they do not know the new column."
    )


IDENTITY = "op.alter_column('t', 'id', server_default=sa.Identity({}){})"
NUMBERED = [
    (IDENTITY.format("always=True, start=9", ""), Severity.ERROR),
    (IDENTITY.format("start=9", ""), None),
    (IDENTITY.format("", ""), Severity.ERROR),
    (IDENTITY.format("", "") + "\nop.execute(\"SELECT setval('s', 9)\")", None),
    (
        IDENTITY.format("always=True", ", existing_server_default=sa.Identity()"),
        Severity.WARNING,
    ),
    (IDENTITY.format("", ", existing_server_default=sa.Identity()"), None),
    (
        "op.alter_column('t', 'id', server_default=None)\n"
        + IDENTITY.format("always=True, start=9", ""),
        Severity.WARNING,
    ),
    (
        "op.add_column('t', sa.Column('id', sa.Integer))\n"
        + IDENTITY.format("always=True", ""),
        None,
    ),
]


@pytest.mark.parametrize(("body", "severity"), NUMBERED)
def test_a_column_that_becomes_an_identity(
    tmp_path: Path, body: str, severity: Severity | None
) -> None:
    """It is told where numbers begin below those of rows, or values are refused."""
    found = [f.severity for f in findings(tmp_path, body) if f.code == "ZD125"]
    assert found == ([] if severity is None else [severity])


def test_the_guard_does_not_know_where_numbers_will_begin() -> None:
    """A setval() may come behind it, so that it refuses no more than is certain."""
    numbered = AddIdentity(table=Ref("t"), column="id")
    assert only(of(numbered), "ZD125").severity is Severity.WARNING
    always = replace(numbered, always=True)
    assert only(of(always), "ZD125").severity is Severity.ERROR


def test_an_identity_that_goes(
    tmp_path: Path, own: Linter, sql: psycopg.Connection
) -> None:
    """It is waited for until no INSERT relies on it; one that is none is not told."""
    sql.execute("CREATE TABLE n (id int GENERATED ALWAYS AS IDENTITY, a int)")
    sql.execute("INSERT INTO n (a) VALUES (1)")
    body = (
        "op.alter_column('n', '{}', server_default=None,"
        " existing_server_default=sa.Identity())"
    )
    found = only(findings(tmp_path, body.format("id"), own), "ZD123")
    assert found.severity is Severity.ERROR
    assert found.what == (
        "DROP IDENTITY on n.id takes its numbers from INSERTs of the release in use."
    )
    assert found.safe is not None
    (change,) = found.safe.patterns
    assert isinstance(change, Custom)
    assert not change.at_expand
    sql.execute(change.at_retire[0].statement.encode())
    assert codes(tmp_path, body.format("a"), own) == []
    assert codes(tmp_path, body.format("id")) == ["ZD123"]


def test_not_null_goes_by_its_constraint_too(
    tmp_path: Path, own: Linter, sql: psycopg.Connection
) -> None:
    """From 18 on it has a name, by which it can be dropped."""
    gone = "op.drop_constraint('t_filled_not_null', 't')"
    later = sql.info.server_version >= 180000
    assert codes(tmp_path, gone, own) == (["ZD114"] if later else [])


def test_an_identity_takes_the_place_of_a_default(
    tmp_path: Path, own: Linter, sql: psycopg.Connection
) -> None:
    """The default goes in the same statement; both ways run on the server."""
    sql.execute("CREATE TABLE serials (id serial PRIMARY KEY)")
    sql.execute("INSERT INTO serials SELECT generate_series(1, 100)")
    body = IDENTITY.format("always=True, start=500", "").replace("'t'", "'serials'")
    one = only(findings(tmp_path, body, own), "ZD125")
    assert one.what == "serials.id becomes GENERATED ALWAYS AS IDENTITY."
    assert one.why == "INSERTs of the release in use that give the column a value fail."
    assert one.safe is not None
    assert not one.safe.decide
    (change,) = one.safe.patterns
    assert isinstance(change, Custom)
    before = sql.execute("SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef")
    first = before.fetchall()
    for step in (*change.at_expand, *change.at_retire):
        sql.execute(step.statement.encode())
    sql.execute("INSERT INTO serials DEFAULT VALUES")
    assert sql.execute("SELECT max(id) FROM serials").fetchone() == (500,)
    for step in (*change.at_retire, *change.at_expand):
        sql.execute(step.reverse.encode())
    again = sql.execute("SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef")
    assert again.fetchall() == first


def test_a_generated_column_is_computed_otherwise(
    own: Linter, sql: psycopg.Connection
) -> None:
    """SET EXPRESSION is an error before 17, a rewrite since; free where virtual."""
    statement = SetExpression(table=Ref("t"), column="twice", expression="a * 3")
    own.server_version = 160000
    found = only(look(own, statement), "ZD120")
    assert found.severity is Severity.ERROR
    assert found.what == "SET EXPRESSION on t.twice is not known to PostgreSQL 16."
    own.server_version = 170000
    found = only(look(own, statement), "ZD120")
    assert found.seconds
    assert shown(found.safe) == [
        'AddColumn("t", "…", "integer", computed="a * 3")',
        'DropColumn("t", "twice")',
    ]
    if sql.info.server_version >= VIRTUAL:
        sql.execute("ALTER TABLE t ADD v integer GENERATED ALWAYS AS (a) VIRTUAL")
        assert look(own, replace(statement, column="v")) == []


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ("sa.Column('id', sa.Integer, primary_key=True)", ["ZD130"]),
        ("sa.Column('id', sa.BigInteger, primary_key=True)", []),
        # A table of one row, or of a few.
        (
            "sa.Column('id', sa.Integer, primary_key=True),"
            " sa.CheckConstraint('id = 1')",
            [],
        ),
        (
            "sa.Column('id', sa.Integer, primary_key=True),"
            " sa.CheckConstraint('\"id\" IN (1, 2)')",
            [],
        ),
        (
            "sa.Column('id', sa.Integer, primary_key=True),"
            " sa.CheckConstraint('id = 1 OR a')",
            ["ZD130"],
        ),
        ("sa.Column('id', sa.Integer, sa.Identity(), primary_key=True)", ["ZD130"]),
        (
            "sa.Column('id', sa.Integer, nullable=False),"
            " sa.PrimaryKeyConstraint('id')",
            ["ZD130"],
        ),
        ("sa.Column('id', sa.Integer, sa.ForeignKey('p.id'), primary_key=True)", []),
        (
            "sa.Column('a', sa.Integer, primary_key=True),"
            " sa.Column('b', sa.Integer, primary_key=True)",
            [],
        ),
        (
            "sa.Column('id', sa.SmallInteger, primary_key=True, autoincrement=False)",
            [],
        ),
        ("sa.Column('id', sa.UUID, primary_key=True), sa.Column('n', sa.Integer)", []),
    ],
)
def test_a_key_that_ends(tmp_path: Path, columns: str, expected: list[str]) -> None:
    """A new table's own key of integer is found; one that refers elsewhere is not."""
    assert codes(tmp_path, f"op.create_table('n', {columns})") == expected


def test_a_column_that_goes_may_be_one_that_comes(
    tmp_path: Path, linter: Linter
) -> None:
    """A drop beside an addition of the same type is a rename, or two changes."""
    body = (
        "op.add_column('t', sa.Column('c', sa.Integer))\n"
        "op.add_column('t', sa.Column('d', sa.Text))\n"
        "op.drop_column('t', 'a')"
    )
    found = only(findings(tmp_path, body, linter), "ZD112")
    assert shown(found.safe) == [
        'DropColumn("t", "a", type="integer")',
        'RenameColumn("t", "a", "c")',
    ]
    assert found.safe is not None
    assert found.safe.decide
    assert len(shown(only(findings(tmp_path, body), "ZD112").safe)) == 3
    alone = only(findings(tmp_path, "op.drop_column('t', 'a')", linter), "ZD112")
    assert alone.safe is not None
    assert not alone.safe.decide


def test_a_rename_keeps_both_names(tmp_path: Path) -> None:
    """The pattern has the table's schema and both names."""
    body = "op.alter_column('t', 'a', new_column_name='c', schema='app')"
    found = only(findings(tmp_path, body), "ZD113")
    assert found.what == (
        "RENAME COLUMN app.t.a TO c takes the old name from the release in use."
    )
    assert found.severity is Severity.ERROR
    assert shown(found.safe) == ['RenameColumn("t", "a", "c", schema="app")']


@pytest.mark.parametrize(
    "column",
    [
        "sa.Column('c', sa.BigInteger, sa.Identity())",
        "sa.Column('c', sa.Text, sa.CheckConstraint(\"c <> ''\"),"
        " server_default=sa.text('gen_random_uuid()::text'), unique=True,"
        " nullable=False)",
    ],
)
def test_the_proposal_is_carried_to_its_end(
    tmp_path: Path,
    own: Linter,
    runner: Runner,
    sql: psycopg.Connection,
    column: str,
) -> None:
    """The changes, one after the other, bring a column that each row has a value in."""
    (first, *_) = findings(tmp_path, adding(column), own)
    assert first.safe is not None
    for pattern in (*first.safe.patterns, *first.safe.then):
        change = Change(revision=type(pattern).__name__, pattern=pattern)
        runner.expand(change)
        runner.backfill(change.id)
        runner.verify(change.id)
        runner.retire(change.id, old_release_gone="a test")
        if runner.change(change.id).state is State.RETIRED:
            runner.drop(change.id)
    sql.execute("INSERT INTO t (id, a, p) VALUES (0, 1, 1)")
    row = sql.execute("SELECT count(DISTINCT c) = count(*) FROM t").fetchone()
    assert row == (True,)
    with pytest.raises(psycopg.errors.NotNullViolation):
        sql.execute("UPDATE t SET c = NULL")
