"""What revisions before the one that is looked at did, as their statements tell it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pytest

from migrator.facts import Table
from migrator.lint import Finding, Linter, Severity, types
from migrator.lint.database import reader
from migrator.lint.run import Run
from migrator.lint.sql import statements
from migrator.lint.statements import Carried, Ref
from migrator.pattern import Pattern
from migrator.patterns import AddForeignKey, ReplaceCheck, ReplaceForeignKey
from migrator.postgres.connection import Target, connect
from tests.lint.revisions import code, loaded, project
from tests.lint.revisions import lint as cli

PARENT = "CREATE TABLE p (id bigserial PRIMARY KEY, code varchar(8) UNIQUE)"
CHILD = (
    "CREATE TABLE t (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a integer"
    " NOT NULL, b text DEFAULT 'x' CHECK (b <> ''), p_id bigint REFERENCES p,"
    " CONSTRAINT odd CHECK (a > 0 OR b IS NULL), UNIQUE (a, b))"
)
INDEX = "CREATE UNIQUE INDEX i ON t (a DESC, lower(b)) WHERE b IS NOT NULL"
BOTH = (PARENT, CHILD, INDEX)

#: Statements, one after the other, and the tables that they are about.
HISTORIES: tuple[tuple[str, ...], ...] = (
    BOTH,
    (
        *BOTH,
        "ALTER TABLE t ADD COLUMN c numeric(5, 2) NOT NULL DEFAULT 0, ADD d timestamptz"
        " UNIQUE, ADD e bigint CONSTRAINT to_p REFERENCES p (id), ADD f serial",
        "ALTER TABLE t ALTER a DROP NOT NULL, ALTER b SET NOT NULL, ALTER b DROP"
        " DEFAULT, ALTER a TYPE bigint, ALTER a SET DEFAULT 1",
        "ALTER TABLE t ALTER id DROP IDENTITY",
    ),
    (
        *BOTH,
        "ALTER TABLE t RENAME COLUMN a TO z",
        "ALTER TABLE t RENAME CONSTRAINT t_a_b_key TO together",
        "ALTER INDEX i RENAME TO j",
        "ALTER TABLE p RENAME TO parents",
        "ALTER TABLE parents RENAME COLUMN id TO n",
        "ALTER TABLE t SET SCHEMA s",
    ),
    (*BOTH, "ALTER TABLE t DROP COLUMN a"),
    (*BOTH, "ALTER TABLE p DROP COLUMN id CASCADE"),
    (
        *BOTH,
        "ALTER TABLE t DROP CONSTRAINT odd, DROP CONSTRAINT t_a_b_key, DROP CONSTRAINT"
        " t_p_id_fkey",
        "DROP INDEX i",
    ),
    (
        *BOTH,
        "ALTER TABLE t ADD CONSTRAINT k FOREIGN KEY (a) REFERENCES p NOT VALID, ADD"
        " CONSTRAINT c CHECK (a IS NOT NULL) NOT VALID, ADD CHECK (a < 10)",
        "ALTER TABLE t VALIDATE CONSTRAINT c",
        "ALTER TABLE t DROP CONSTRAINT t_pkey",
        "CREATE UNIQUE INDEX n ON t (a)",
        "ALTER TABLE t ADD CONSTRAINT key PRIMARY KEY USING INDEX n",
    ),
    (*BOTH, "DROP TABLE p CASCADE", "CREATE TABLE p (x uuid, y json) "),
    (*BOTH, "DROP TABLE t", "DROP INDEX IF EXISTS i"),
    (*BOTH, "CREATE TABLE IF NOT EXISTS t (other integer)"),
    (
        "CREATE TABLE p (id integer, at date NOT NULL) PARTITION BY RANGE (at)",
        "CREATE INDEX i ON p (at) INCLUDE (id)",
    ),
)
TABLES = ("p", "t", "parents", "s.t")


def shown(table: Table | None) -> dict[str, Any]:
    """Return what rules ask of a table, in a form that tells no spelling."""
    if table is None:
        return {}
    return {
        "kind": table.kind,
        "columns": [
            (
                c.name,
                types.parsed(c.type),
                c.not_null,
                c.default is not None,
                c.identity,
                c.generated,
            )
            for c in table.columns
        ],
        # A NOT NULL is the column's; PostgreSQL 18 makes a constraint of it as well.
        "constraints": {
            (c.name, c.kind, frozenset(c.columns), c.validated)
            for c in table.constraints
            if c.kind != "n"
        },
        "indexes": {
            (i.name, i.unique, i.primary, i.plain, frozenset(i.columns), len(i.keys))
            for i in table.indexes
        },
        "keys": {
            (k.name, k.table.name, k.columns, k.to.name, k.to_columns, k.validated)
            for k in table.foreign_keys
        },
        "checks": {(c.name, frozenset(c.checks)) for c in table.columns},
    }


def ref(name: str) -> Ref:
    """Return a name that may have a schema."""
    schema, _, last = name.rpartition(".")
    return Ref(last, schema or None)


def gone(run: Run, *texts: str) -> None:
    """Let a run pass revisions, one of each text."""
    for number, text in enumerate((*texts, "SELECT 1")):
        run.at(str(number), ModuleType("r"))
        run.does(statements(text))


@pytest.fixture
def clean(shared_database: str, sql: psycopg.Connection) -> Iterator[str]:
    """Give a database without tables."""
    sql.execute("DROP SCHEMA IF EXISTS public, s CASCADE; CREATE SCHEMA public")
    sql.execute("CREATE SCHEMA s")
    yield shared_database
    sql.execute("DROP SCHEMA s CASCADE")


@pytest.fixture(scope="module")
def database(shared_database: str) -> str:
    """Give one database for all of the module."""
    return shared_database


@pytest.mark.parametrize("history", HISTORIES, ids=lambda h: h[-1][:40])
@pytest.mark.parametrize("known", [0, 3], ids=["made", "read"])
def test_what_statements_tell_is_what_the_server_has(
    clean: str, sql: psycopg.Connection, history: tuple[str, ...], known: int
) -> None:
    """Of tables that revisions made, and of those that a database had before them."""
    for text in history[:known]:
        sql.execute(text.encode())
    with connect(Target.from_url(clean), "lint") as conn:
        asked = (*TABLES, "i", "public.p", "public.t")
        before = {name: reader(conn)(ref(name)) for name in asked}
        run = Run(read=(lambda r: before.get(str(r))) if known else None)
        gone(run, *history[known:])
        for text in history[known:]:
            sql.execute(text.encode())
        for name in TABLES:
            assert shown(run.table(ref(name))) == shown(reader(conn)(ref(name))), name
        if "DROP INDEX" not in history[-1] and "t_a_b_key" not in str(history):
            found, other = run.table(Ref("i")), reader(conn)(Ref("i"))
            assert shown(found) == shown(other)


#: A day after the other.
DAYS = [f"2026-01-{day:02} 10:00:00.000001" for day in range(1, 32)]


def lint(
    folder: Path,
    *bodies: str,
    linter: Linter | None = None,
    dates: Sequence[str] = DAYS,
) -> list[Finding]:
    """Return what is found in the last of some revisions, made at these times."""
    linter = linter or Linter(guarded=True, run=Run())
    found: list[Finding] = []
    for number, (body, date) in enumerate(zip(bodies, dates, strict=False)):
        file = folder / f"r{number}.py"
        text = code(f"r{number}", body)
        file.write_text(text.replace("for.", f"for.\n\nCreate Date: {date}\n", 1))
        found = [p.finding for p in linter.lint(f"r{number}", loaded(file))]
    return found


def codes(
    folder: Path,
    *bodies: str,
    linter: Linter | None = None,
    dates: Sequence[str] = DAYS,
) -> list[str]:
    """Return the codes of it."""
    return sorted({f.code for f in lint(folder, *bodies, linter=linter, dates=dates)})


TABLE = (
    'op.create_table("t", sa.Column("id", sa.BigInteger, primary_key=True),'
    ' sa.Column("a", sa.Integer), sa.Column("n", sa.Integer, nullable=False),'
    ' sa.Column("b", sa.String(10), unique=True),'
    ' sa.CheckConstraint("n > 0", name="c"))'
)
NOT_NULL = 'op.alter_column("t", "a", nullable=False)'
UNIQUE = f'{TABLE}\n    op.create_index("i", "t", ["a"], unique=True)'
GONE = 'op.drop_index("i", "t")'
INDEX_OF = 'op.create_index("j", "t", ["{}"], unique={})'
KEY = 'op.drop_constraint("t_pkey", "t")'
KEY_OF = 'op.create_primary_key("t_pkey", "t", ["{}"])'
INSERT = 'op.execute("INSERT INTO {} {}")'
ADD = 'op.add_column("t", sa.Column("c", sa.Integer))'
DROP = 'op.drop_column("t", "c")'
MADE = 'op.create_table("u", sa.Column("a", sa.Integer))'
OTHER = 'op.add_column("o", sa.Column("c", sa.Integer))'


@pytest.mark.parametrize(
    ("bodies", "expected"),
    [
        ((TABLE, NOT_NULL), ["ZD108"]),
        ((TABLE, NOT_NULL, f"{OTHER}\n    {NOT_NULL}"), ["ZD605"]),
        ((TABLE, f"{OTHER}\n    {NOT_NULL}"), ["ZD108", "ZD605"]),
        ((TABLE, 'op.alter_column("t", "n", nullable=False)'), []),
        ((TABLE, 'op.alter_column("t", "a", nullable=True)'), []),
        ((TABLE, 'op.alter_column("t", "n", nullable=True)'), ["ZD114"]),
        # Of what kind it is, only the first revision says.
        ((TABLE, 'op.drop_constraint("t_b_key", "t")'), ["ZD233"]),
        ((TABLE, 'op.drop_constraint("c", "t")'), ["ZD233"]),
        ((TABLE, 'op.execute("ALTER TABLE t ALTER b TYPE varchar(20)")'), []),
        ((TABLE, 'op.execute("ALTER TABLE t ALTER b TYPE varchar(5)")'), ["ZD116"]),
        (
            (
                TABLE,
                'op.execute("ALTER TABLE t ADD CHECK (a IS NOT NULL) NOT VALID")',
                'op.execute("ALTER TABLE t VALIDATE CONSTRAINT t_a_check")',
                NOT_NULL,
            ),
            [],
        ),
        (
            (TABLE, 'op.create_foreign_key("f", "t", "p", ["a"], ["id"])'),
            ["ZD201", "ZD205"],
        ),
        (
            (
                TABLE,
                'op.create_index("i", "t", ["a"])',
                'op.create_foreign_key("f", "t", "p", ["a"], ["id"])',
            ),
            ["ZD201"],
        ),
        ((TABLE, 'op.drop_table("t")', TABLE, NOT_NULL), ["ZD108"]),
        ((TABLE, 'op.drop_column("t", "a")'), ["ZD112"]),
        # The column was told of under its old name.
        (
            (
                TABLE,
                'op.alter_column("t", "n", new_column_name="m", nullable=True)\n'
                '    op.alter_column("t", "m", nullable=True)',
            ),
            ["ZD113", "ZD114"],
        ),
        (
            (
                TABLE,
                'op.alter_column("t", "a", new_column_name="m")\n'
                '    op.alter_column("t", "m", nullable=True)',
            ),
            ["ZD113"],
        ),
    ],
)
def test_earlier_revisions_tell(
    tmp_path: Path, bodies: tuple[str, ...], expected: list[str]
) -> None:
    """Without a database, what they did to a table counts, whoever released them."""
    assert codes(tmp_path, *bodies) == expected


@pytest.mark.parametrize(
    ("bodies", "code_of", "told"),
    [
        # The same is unique by the commit, or not.
        ((UNIQUE, GONE), "ZD233", True),
        ((UNIQUE, f"{GONE}; {INDEX_OF.format('a', True)}"), "ZD233", False),
        ((UNIQUE, f"{GONE}; {INDEX_OF.format('n', True)}"), "ZD233", True),
        ((UNIQUE, f"{GONE}; {INDEX_OF.format('a', False)}"), "ZD233", True),
        ((TABLE, INDEX_OF.format("a", False), 'op.drop_index("j")'), "ZD233", False),
        ((TABLE, f"{KEY}; {KEY_OF.format('id')}"), "ZD233", False),
        ((TABLE, f"{KEY}; {KEY_OF.format('a')}"), "ZD233", True),
        ((TABLE, f"{KEY}; {KEY_OF.format('id').replace('pkey', 'k')}"), "ZD233", True),
        ((UNIQUE, f"{GONE}; op.drop_table('t')"), "ZD233", False),
        ((UNIQUE, f"{GONE}; op.drop_table('t')"), "ZD305", False),
        ((UNIQUE, GONE), "ZD305", True),
        # One that the revision itself made is on a table in use all the same.
        ((TABLE, f"{INDEX_OF.format('n', False)}; op.drop_index('j')"), "ZD305", True),
        # Rows that a table in use gives, under a lock.
        ((TABLE, f"{ADD}; {INSERT.format('u', 'SELECT a FROM t')}"), "ZD603", True),
        ((TABLE, f"{ADD}; {INSERT.format('u', '(SELECT a FROM w)')}"), "ZD603", True),
        ((TABLE, f"{ADD}; {INSERT.format('u', 'TABLE w')}"), "ZD603", True),
        ((TABLE, f"{ADD}; {INSERT.format('t', 'SELECT 1')}"), "ZD603", False),
        ((TABLE, f"{ADD}; {INSERT.format('t', 'VALUES (1)')}"), "ZD603", False),
        ((TABLE, INSERT.format("u", "SELECT a FROM t")), "ZD603", False),
        ((f"{MADE}; {ADD}; {INSERT.format('t', 'TABLE u')}",), "ZD603", False),
    ],
)
def test_what_else_a_revision_does_counts(
    tmp_path: Path, bodies: tuple[str, ...], code_of: str, told: bool
) -> None:
    """What comes or goes beside a statement makes it a hazard, or none."""
    assert (code_of in codes(tmp_path, *bodies)) is told


@pytest.mark.parametrize(
    ("gone", "again", "change"),
    [
        ("c", "CHECK (n > 1)", "ReplaceCheck"),
        ("other", "CHECK (n > 1)", "AddCheck"),
        ("c", "FOREIGN KEY (a) REFERENCES p (id)", "ReplaceForeignKey"),
        ("other", "FOREIGN KEY (a) REFERENCES p (id)", "AddForeignKey"),
    ],
)
def test_what_comes_back_under_its_name_is_replaced(
    tmp_path: Path, gone: str, again: str, change: str
) -> None:
    """The safe form of a constraint that was dropped before is one for both."""
    both = f"ALTER TABLE t DROP CONSTRAINT {gone}, ADD CONSTRAINT c {again}"
    found = lint(tmp_path, f'op.execute("{both}")')
    forms = {type(p).__name__ for f in found if f.safe for p in f.safe.patterns}
    assert change in forms


def test_what_goes_out_together_is_in_nobodys_use(tmp_path: Path) -> None:
    """Revisions are of one release where none has them yet, or one hour made them."""
    assert codes(tmp_path, TABLE, ADD, DROP) == ["ZD112"]
    unreleased = Linter(guarded=True, run=Run(unreleased=True))
    assert codes(tmp_path, ADD, DROP, linter=unreleased) == []
    first = "2026-01-01 10:00:00+02:00"
    at_once, later = (first, "2026-01-01 11:00:00"), (first, "2026-01-01 11:00:01")
    assert codes(tmp_path, ADD, DROP, dates=at_once) == []
    assert codes(tmp_path, ADD, DROP, dates=later) == ["ZD112"]
    assert codes(tmp_path, ADD, DROP, dates=(first, "some day")) == ["ZD112"]


def test_a_revision_looked_at_again_counts_once(tmp_path: Path) -> None:
    """What it did before it was rewritten is forgotten."""
    linter = Linter(guarded=True, run=Run(unreleased=True))
    assert codes(tmp_path, ADD, linter=linter) == []
    assert codes(tmp_path, DROP, linter=linter) == ["ZD112"]
    assert codes(tmp_path, ADD, DROP, linter=linter) == []


def test_what_a_database_lacks_is_known_of_its_revisions(
    tmp_path: Path, clean: str, sql: psycopg.Connection
) -> None:
    """Its tables count with what earlier revisions of the run do to them."""
    sql.execute("CREATE TABLE t AS SELECT n AS a FROM generate_series(1, 999999) n")
    with connect(Target.from_url(clean), "lint") as conn:

        def linter() -> Linter:
            run = Run(read=reader(conn), unreleased=True)
            return Linter(guarded=True, read=reader(conn), run=run, server_version=1)

        (found,) = lint(tmp_path, NOT_NULL, linter=linter())
        assert (found.code, found.severity) == ("ZD108", Severity.WARNING)
        assert found.seconds
        assert codes(tmp_path, NOT_NULL, NOT_NULL, linter=linter()) == []
        assert codes(tmp_path, ADD, DROP, linter=linter()) == []
        made = 'op.create_table("u", sa.Column("id", sa.BigInteger, primary_key=True))'
        index = 'op.create_index("i", "u", ["id"])'
        assert codes(tmp_path, index, linter=linter()) == ["ZD301"]
        assert codes(tmp_path, made, index, linter=linter()) == []


def test_the_command_line_knows_what_came_before(tmp_path: Path) -> None:
    """Also where one revision alone is asked for; `--start-after` says what is out."""
    folder = project(
        tmp_path,
        *(
            code(f"r{n}", body, before=f"r{n - 1}" if n else "")
            for n, body in enumerate((TABLE, NOT_NULL, NOT_NULL, ADD, DROP))
        ),
    )
    assert len(folder) == 5
    assert "Nothing" in cli(tmp_path, "--offline", "r2").stdout
    assert "ZD108" in cli(tmp_path, "--offline", "r1:r2").stdout
    assert "ZD112" in cli(tmp_path, "--offline", "r4").stdout
    assert "ZD112" in cli(tmp_path, "--offline", "--start-after", "r3").stdout
    assert "Nothing" in cli(tmp_path, "--offline", "--start-after", "r2").stdout


ASKS = """\
seen = sa.inspect(op.get_bind())
    columns = {c["name"]: c for c in seen.get_columns("t")}
    assert list(columns) == ["id", "a", "n", "b"]
    assert isinstance(columns["b"]["type"], sa.String)
    assert columns["b"]["type"].length == 10
    assert (columns["a"]["nullable"], columns["n"]["nullable"]) == (True, False)
    assert seen.get_pk_constraint("t")["constrained_columns"] == ["id"]
    assert [c["name"] for c in seen.get_unique_constraints("t")] == ["t_b_key"]
    assert [c["name"] for c in seen.get_check_constraints("t")] == ["c"]
    assert [i["name"] for i in seen.get_indexes("t")] == ["t_b_key", "i"]
    assert seen.get_foreign_keys("t")[0]["referred_table"] == "p"
    assert seen.has_table("t") and not seen.has_table("u")
    assert seen.has_table("half") and "half" in seen.get_table_names()
    assert seen.has_table("t", schema=seen.default_schema_name)
    table = sa.Table("t", sa.MetaData(), autoload_with=op.get_bind())
    assert [k.name for k in table.foreign_key_constraints] == ["f"]
    assert [c.name for c in table.primary_key] == ["id"]
    assert [c.name for c in table.c if c.nullable] == ["a", "b"]
    if "u" not in seen.get_table_names():
        op.create_table("u", sa.Column("x", sa.Integer))
    assert seen.has_table("u") and "x" in {c["name"] for c in seen.get_columns("u")}
    op.drop_table("t")
    assert "t" not in seen.get_table_names()
    op.drop_column("v", "a")"""


def test_an_inspector_is_answered(tmp_path: Path) -> None:
    """What revisions made is told, also what this one has done so far."""
    before = (
        TABLE,
        'op.create_index("i", "t", ["a"]);'
        ' op.create_foreign_key("f", "t", "p", ["a"], ["id"]);'
        ' op.execute("CREATE TABLE half AS SELECT 1")',
    )
    assert codes(tmp_path, *before, ASKS) == ["ZD112", "ZD401", "ZD605"]


def test_the_usual_schema_is_named_or_not(tmp_path: Path) -> None:
    """A table and its index are found in either spelling; a key tells the other end."""
    before = (
        'op.create_table("p", sa.Column("id", sa.BigInteger, primary_key=True),'
        ' schema="public"); op.create_index("i", "p", ["id"], schema="public")',
        'op.create_table("t", sa.Column("id", sa.BigInteger, primary_key=True),'
        ' sa.Column("a", sa.BigInteger, sa.ForeignKey("p.id")), schema="s")',
        'op.create_table("t", sa.Column("a", sa.BigInteger, sa.ForeignKey("s.t.id")))',
        'op.create_table("gone", sa.Column("a", sa.Integer), schema="public");'
        ' op.drop_table("gone"); op.execute("DROP INDEX i")',
        'op.create_table("new", sa.Column("a", sa.Integer), schema="public");'
        ' op.drop_table("new"); op.create_table("new", sa.Column("b", sa.Integer));'
        ' op.add_column("new", sa.Column("c", sa.Integer))',
    )
    body = """seen = sa.inspect(op.get_bind())
    assert seen.has_table("p") and seen.has_table("p", schema="public")
    assert seen.has_table("t", schema="public") and not seen.has_table("p", schema="s")
    assert set(seen.get_table_names()) == set(seen.get_table_names("public"))
    assert set(seen.get_table_names()) == {"new", "p", "t"}
    assert not seen.has_index("p", "i") and not seen.has_table("gone", schema="public")
    assert seen.get_foreign_keys("t", "s")[0]["referred_schema"] is None
    assert seen.get_foreign_keys("t")[0]["referred_schema"] == "s"
    table = sa.Table("t", sa.MetaData(), schema="s", autoload_with=op.get_bind())
    assert [k.target_fullname for k in table.foreign_keys] == ["p.id"]
    assert [c["name"] for c in seen.get_columns("new", "public")] == ["b", "c"]
    op.drop_column("v", "a")"""
    assert codes(tmp_path, *before, body) == ["ZD112"]


def test_a_change_before_leaves_one_constraint_of_a_name() -> None:
    """What is replaced is gone, and tables at either end know a foreign key."""
    run = Run()
    gone(
        run,
        "CREATE TABLE p (id bigint PRIMARY KEY)",
        "CREATE TABLE q (id bigint PRIMARY KEY)",
        "CREATE TABLE t (a bigint, b bigint CONSTRAINT c CHECK (b > 0))",
    )

    def told(change: Pattern) -> tuple[list[str], ...]:
        run.follow(Carried(title="", pattern=change))
        tables = [run.table(Ref(name)) for name in "tpq"]
        assert tables[0] is not None
        held = [f"{c.name} {c.columns}" for c in tables[0].constraints]
        return (held, *([k.name for k in t.foreign_keys] for t in tables if t))

    replaced = ["c ('a',)"]
    assert told(ReplaceCheck("t", "c", "a > 1")) == (replaced, [], [], [])
    added = [*replaced, "k ('a',)"]
    key = AddForeignKey("t", ["a"], "p", ["id"], "k")
    assert told(key) == (added, ["k"], ["k"], [])
    other = ReplaceForeignKey("t", ["b"], "q", ["id"], "k")
    assert told(other) == ([*replaced, "k ('b',)"], ["k"], [], ["k"])


@pytest.mark.parametrize(
    "asked",
    [
        'seen.get_columns("unknown")',
        'seen.get_columns("half")',
        "seen.get_view_names()",
        'list(sa.Table("half", sa.MetaData(), autoload_with=op.get_bind()).c)',
    ],
)
def test_what_nobody_knows_is_told(tmp_path: Path, asked: str) -> None:
    """Also where the revision goes on in spite of it."""
    body = f"""seen = sa.inspect(op.get_bind())
    try:
        {asked}
    except Exception:
        pass
    op.drop_column("v", "a")"""
    before = f'{TABLE}; op.execute("CREATE TABLE half AS SELECT 1")'
    assert codes(tmp_path, before, body) == ["ZD112", "ZD901"]


def test_an_inspector_of_a_database_is_answered_by_it(
    tmp_path: Path, clean: str, sql: psycopg.Connection
) -> None:
    """Its tables are there, as revisions ahead leave them; all are not listed."""
    sql.execute("CREATE TABLE t (a integer NOT NULL)")
    body = """seen = sa.inspect(op.get_bind())
    assert "t" in seen.get_table_names() and "u" not in seen.get_table_names()
    assert [c["name"] for c in seen.get_columns("t")] == ["a", "c"]
    {}"""
    with connect(Target.from_url(clean), "lint") as conn:
        for last, expected in (("pass", []), ("[*seen.get_table_names()]", ["ZD901"])):
            run = Run(read=reader(conn), unreleased=True)
            linter = Linter(guarded=True, read=reader(conn), run=run)
            assert codes(tmp_path, ADD, body.format(last), linter=linter) == expected
