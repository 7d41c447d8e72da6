"""SQL text as statements."""

import random

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as some

from migrator.kernels.index_definition import Key
from migrator.lint import sql
from migrator.lint.statements import (
    AddColumn,
    AddConstraint,
    AddEnumValue,
    AddIdentity,
    AlterTable,
    AttachPartition,
    Block,
    ChangeDomain,
    ChangePolicy,
    ChangeRows,
    ChangeTrigger,
    ChangeType,
    CreateIndex,
    CreateTable,
    CreateView,
    DetachPartition,
    DropColumn,
    DropConstraint,
    DropDefault,
    DropIdentity,
    DropIndex,
    DropNotNull,
    DropObject,
    DropTable,
    ForeignTo,
    LockTable,
    MoveTable,
    NewColumn,
    NewConstraint,
    Other,
    Ref,
    RefreshView,
    Reindex,
    RenameColumn,
    RenameConstraint,
    RenameEnumValue,
    RenameIndex,
    RenameObject,
    RenameSchema,
    RenameTable,
    Rewrite,
    RewriteAll,
    SetDefault,
    SetExpression,
    SetGenerated,
    SetNotNull,
    SetParameter,
    Statement,
    Transaction,
    Truncate,
    ValidateConstraint,
)

T = Ref("t")
U = Ref("u", "s")
HOSTILE = 'a "b" %s :x;--\''
QUOTED = '"' + HOSTILE.replace('"', '""') + '"'

FORMS: list[tuple[str, Statement]] = [
    # Tables.
    (
        "CREATE TABLE IF NOT EXISTS s.u (id serial PRIMARY KEY, at timestamptz(3)"
        " NOT NULL DEFAULT now() CHECK (at > '-infinity'), n decimal(5, 2)[],"
        ' b "Odd", UNIQUE (n, b), LIKE z INCLUDING ALL) INHERITS (p, s.q)',
        CreateTable(
            table=U,
            columns=(
                NewColumn(name="id", type="SERIAL", not_null=True),
                NewColumn(
                    name="at",
                    type="TIMESTAMP(3) WITH TIME ZONE",
                    not_null=True,
                    default="now()",
                ),
                NewColumn(name="n", type="NUMERIC(5, 2)[]"),
                NewColumn(name="b", type='"Odd"'),
            ),
            constraints=(
                NewConstraint(kind="p", columns=("id",)),
                NewConstraint(kind="c", columns=("at",), expression="at > '-infinity'"),
                NewConstraint(kind="u", columns=("n", "b")),
            ),
            inherits=(Ref("p"), Ref("q", "s")),
            copies=True,
            if_not_exists=True,
        ),
    ),
    (
        "CREATE UNLOGGED TABLE t PARTITION OF s.u FOR VALUES FROM (1) TO (2)",
        CreateTable(table=T, partition_of=U),
    ),
    (
        "CREATE LOCAL TEMP TABLE t AS SELECT 1",
        CreateTable(table=T, temporary=True),
    ),
    ("CREATE TABLE t (a, b) AS VALUES (1, 2)", CreateTable(table=T)),
    ("SELECT a, b INTO TEMP t FROM u", CreateTable(table=T, temporary=True)),
    ("DROP TABLE IF EXISTS s.u CASCADE", DropTable(table=U, cascade=True)),
    ("ALTER TABLE t RENAME TO v", RenameTable(table=T, to="v")),
    ("ALTER VIEW t RENAME TO v", RenameTable(table=T, to="v")),
    ("ALTER TABLE IF EXISTS t SET SCHEMA v", MoveTable(table=T, to="v")),
    (
        "TRUNCATE TABLE ONLY t, s.u * RESTART IDENTITY CASCADE",
        Truncate(tables=(T, U), cascade=True),
    ),
    (
        "ALTER TABLE t ATTACH PARTITION s.u FOR VALUES IN ('a', 'b')",
        AttachPartition(table=T, partition=U, bounds="FOR VALUES IN ('a', 'b')"),
    ),
    (
        "ALTER TABLE t DETACH PARTITION s.u CONCURRENTLY",
        DetachPartition(table=T, partition=U, concurrently=True),
    ),
    (
        "ALTER TABLE t DETACH PARTITION s.u FINALIZE",
        DetachPartition(table=T, partition=U, finalize=True),
    ),
    ("VACUUM FULL t", Rewrite(table=T, how="VACUUM FULL")),
    ("VACUUM (FREEZE, FULL) t", Rewrite(table=T, how="VACUUM FULL")),
    ("VACUUM FULL", RewriteAll(how="VACUUM FULL")),
    ("VACUUM (FULL, ANALYZE)", RewriteAll(how="VACUUM FULL")),
    ("CLUSTER", RewriteAll(how="CLUSTER")),
    ("CLUSTER (VERBOSE)", RewriteAll(how="CLUSTER")),
    ("CLUSTER VERBOSE t USING i", Rewrite(table=T, how="CLUSTER", to="i")),
    ("CLUSTER i ON t", Rewrite(table=T, how="CLUSTER", to="i")),
    ("ALTER TABLE t SET UNLOGGED", Rewrite(table=T, how="SET UNLOGGED")),
    (
        "ALTER TABLE t SET TABLESPACE fast",
        Rewrite(table=T, how="SET TABLESPACE", to="fast"),
    ),
    (
        "ALTER TABLE t SET ACCESS METHOD heap",
        Rewrite(table=T, how="SET ACCESS METHOD", to="heap"),
    ),
    (
        "CREATE OR REPLACE TRIGGER g BEFORE INSERT OR UPDATE OF a ON s.u FOR EACH ROW"
        " EXECUTE FUNCTION f()",
        ChangeTrigger(table=U, how="CREATE", name="g"),
    ),
    (
        "DROP TRIGGER IF EXISTS g ON t",
        ChangeTrigger(table=T, how="DROP", name="g"),
    ),
    (
        "ALTER TABLE t ENABLE ALWAYS TRIGGER g",
        ChangeTrigger(table=T, how="ENABLE", name="g"),
    ),
    (
        "CREATE POLICY p ON t USING (true)",
        ChangePolicy(table=T, how="CREATE POLICY", name="p"),
    ),
    (
        "ALTER TABLE t NO FORCE ROW LEVEL SECURITY",
        ChangePolicy(table=T, how="NO FORCE"),
    ),
    # Columns.
    (
        "ALTER TABLE ONLY t ADD COLUMN IF NOT EXISTS c varchar ( 10 ) COLLATE"
        " \"de_DE\" DEFAULT 'x'::text NOT NULL CONSTRAINT f REFERENCES s.u (id)"
        " ON DELETE SET NULL",
        AddColumn(
            table=T,
            column=NewColumn(
                name="c",
                type="VARCHAR(10)",
                collation="de_DE",
                default="'x'::text",
                not_null=True,
                constraints=(
                    NewConstraint(
                        kind="f",
                        name="f",
                        columns=("c",),
                        to=ForeignTo(table=U, columns=("id",), on_delete="SET NULL"),
                    ),
                ),
            ),
            if_not_exists=True,
        ),
    ),
    (
        "ALTER TABLE t ADD c int GENERATED ALWAYS AS (a * 2) STORED UNIQUE",
        AddColumn(
            table=T,
            column=NewColumn(
                name="c",
                type="INTEGER",
                generated="stored",
                computed="a * 2",
                constraints=(NewConstraint(kind="u", columns=("c",)),),
            ),
        ),
    ),
    (
        "ALTER TABLE t ADD c int8 GENERATED BY DEFAULT AS IDENTITY (START 5)",
        AddColumn(
            table=T, column=NewColumn(name="c", type="BIGINT", identity="by default")
        ),
    ),
    (
        "ALTER TABLE t ADD c text DEFAULT CASE WHEN now() IS NOT NULL THEN 'a' END"
        " NOT NULL",
        AddColumn(
            table=T,
            column=NewColumn(
                name="c",
                type="TEXT",
                default="CASE WHEN now() IS NOT NULL THEN 'a' END",
                not_null=True,
            ),
        ),
    ),
    (
        "ALTER TABLE t DROP COLUMN IF EXISTS c CASCADE",
        DropColumn(table=T, column="c", cascade=True),
    ),
    ("ALTER TABLE t DROP c", DropColumn(table=T, column="c")),
    ("ALTER TABLE t RENAME c TO d", RenameColumn(table=T, column="c", to="d")),
    (
        'ALTER TABLE t RENAME COLUMN "to" TO d',
        RenameColumn(table=T, column="to", to="d"),
    ),
    (
        "ALTER TABLE t ALTER c SET DATA TYPE timestamp with time zone COLLATE x"
        " USING c AT TIME ZONE 'UTC'",
        ChangeType(
            table=T,
            column="c",
            type="TIMESTAMP WITH TIME ZONE",
            collation="x",
            using="c AT TIME ZONE 'UTC'",
        ),
    ),
    ("ALTER TABLE t ALTER COLUMN c SET NOT NULL", SetNotNull(table=T, column="c")),
    ("ALTER TABLE t ALTER c DROP NOT NULL", DropNotNull(table=T, column="c")),
    (
        "ALTER TABLE t ALTER c SET DEFAULT 1 + 2",
        SetDefault(table=T, column="c", default="1 + 2"),
    ),
    ("ALTER TABLE t ALTER c DROP DEFAULT", DropDefault(table=T, column="c")),
    (
        "ALTER TABLE t ALTER c SET EXPRESSION AS (a + 1)",
        SetExpression(table=T, column="c", expression="a + 1"),
    ),
    (
        "ALTER TABLE t ALTER c ADD GENERATED ALWAYS AS IDENTITY",
        AddIdentity(table=T, column="c", always=True),
    ),
    (
        "ALTER TABLE t ALTER c ADD GENERATED BY DEFAULT AS IDENTITY (START 7 CACHE 2)",
        AddIdentity(table=T, column="c", options="START 7 CACHE 2"),
    ),
    (
        "ALTER TABLE t ALTER COLUMN c SET GENERATED ALWAYS",
        SetGenerated(table=T, column="c", always=True),
    ),
    (
        "ALTER TABLE t ALTER c SET GENERATED BY DEFAULT RESTART",
        SetGenerated(table=T, column="c", always=False),
    ),
    (
        "ALTER TABLE t ALTER c DROP IDENTITY IF EXISTS",
        DropIdentity(table=T, column="c"),
    ),
    (
        "ALTER TABLE t SET (fillfactor = 70, toast.autovacuum_enabled = off)",
        AlterTable(table=T, how="SET", options=("fillfactor", "toast")),
    ),
    (
        "ALTER VIEW IF EXISTS s.u RESET (security_barrier)",
        AlterTable(table=U, how="RESET", options=("security_barrier",)),
    ),
    ("ALTER TABLE t OWNER TO x", AlterTable(table=T, how="OWNER TO")),
    (
        "ALTER TABLE t SET WITHOUT CLUSTER",
        AlterTable(table=T, how="SET WITHOUT CLUSTER"),
    ),
    # Constraints.
    (
        "ALTER TABLE t ADD CONSTRAINT k CHECK (a > ')' OR b) NO INHERIT NOT VALID",
        AddConstraint(
            table=T,
            constraint=NewConstraint(
                kind="c", name="k", expression="a > ')' OR b", not_valid=True
            ),
        ),
    ),
    (
        "ALTER TABLE t ADD FOREIGN KEY (a, b) REFERENCES s.u MATCH FULL ON UPDATE"
        " CASCADE DEFERRABLE INITIALLY DEFERRED",
        AddConstraint(
            table=T,
            constraint=NewConstraint(
                kind="f",
                columns=("a", "b"),
                to=ForeignTo(
                    table=U, match="FULL", on_update="CASCADE", deferrable="deferred"
                ),
                deferrable="deferred",
            ),
        ),
    ),
    (
        "ALTER TABLE t ADD UNIQUE NULLS NOT DISTINCT (a) INCLUDE (b) WITH (fillfactor"
        " = 70)",
        AddConstraint(
            table=T,
            constraint=NewConstraint(
                kind="u", columns=("a",), include=("b",), nulls_not_distinct=True
            ),
        ),
    ),
    (
        "ALTER TABLE t ADD CONSTRAINT k PRIMARY KEY USING INDEX i",
        AddConstraint(
            table=T, constraint=NewConstraint(kind="p", name="k", using_index="i")
        ),
    ),
    (
        "ALTER TABLE t ADD EXCLUDE USING gist (r WITH &&) WHERE (a)",
        AddConstraint(
            table=T,
            constraint=NewConstraint(
                kind="x", definition="USING gist (r WITH &&) WHERE (a)"
            ),
        ),
    ),
    (
        "ALTER TABLE t ADD CONSTRAINT k NOT NULL a NOT VALID",
        AddConstraint(
            table=T,
            constraint=NewConstraint(
                kind="n", name="k", columns=("a",), not_valid=True
            ),
        ),
    ),
    ("ALTER TABLE t VALIDATE CONSTRAINT k", ValidateConstraint(table=T, name="k")),
    ("ALTER TABLE t DROP CONSTRAINT k", DropConstraint(table=T, name="k")),
    (
        "ALTER TABLE t RENAME CONSTRAINT k TO l",
        RenameConstraint(table=T, name="k", to="l"),
    ),
    # Indexes.
    (
        "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON ONLY t USING gin"
        ' (lower(a) text_ops DESC NULLS LAST, (a || b), c COLLATE "C", d,'
        " e s.ops (siglen = 4)) INCLUDE (f) NULLS NOT DISTINCT WITH (fillfactor = 70)"
        " TABLESPACE x WHERE a IS NOT NULL",
        CreateIndex(
            table=T,
            name="i",
            keys=(
                Key(
                    expression="lower(a)",
                    operators="text_ops",
                    order="desc",
                    nulls="last",
                ),
                Key(expression="a || b"),
                Key("c", collation='"C"'),
                "d",
                Key("e", operators="s.ops (siglen = 4)"),
            ),
            unique=True,
            concurrently=True,
            if_not_exists=True,
            only=True,
            method="gin",
            where="a IS NOT NULL",
            include=("f",),
            nulls_not_distinct=True,
            storage=(("fillfactor", "70"),),
            tablespace="x",
        ),
    ),
    ("CREATE INDEX ON t (a)", CreateIndex(table=T, name=None, keys=("a",))),
    (
        "DROP INDEX CONCURRENTLY IF EXISTS s.u",
        DropIndex(name=U, concurrently=True),
    ),
    ("REINDEX INDEX i", Reindex(of="INDEX", name=Ref("i"))),
    (
        "REINDEX (VERBOSE, CONCURRENTLY) TABLE t",
        Reindex(of="TABLE", name=T, concurrently=True),
    ),
    ("REINDEX DATABASE", Reindex(of="DATABASE", name=Ref(""))),
    ("ALTER INDEX i RENAME TO j", RenameIndex(name=Ref("i"), to="j")),
    # Types, views, functions.
    (
        "ALTER TYPE s.u ADD VALUE IF NOT EXISTS 'o''k' BEFORE 'x'",
        AddEnumValue(type=U, value="o'k"),
    ),
    (
        r"ALTER TYPE t RENAME VALUE E'a\'\n\x41' TO U&'\0062'",
        RenameEnumValue(type=T, value="a'\nA", to="b"),
    ),
    (
        "ALTER DOMAIN t ADD CONSTRAINT k CHECK (VALUE > 0) NOT VALID",
        ChangeDomain(
            domain=T,
            how="ADD CONSTRAINT",
            not_valid=True,
            name="k",
            expression="VALUE > 0",
        ),
    ),
    ("ALTER DOMAIN t SET NOT NULL", ChangeDomain(domain=T, how="SET NOT NULL")),
    ("ALTER SCHEMA a RENAME TO b", RenameSchema(name="a", to="b")),
    (
        "ALTER FUNCTION s.u(int, text) RENAME TO g",
        RenameObject(of="FUNCTION", name=U, to="g"),
    ),
    ("ALTER TYPE t SET SCHEMA g", RenameObject(of="TYPE", name=T, schema="g")),
    (
        "DROP MATERIALIZED VIEW s.u",
        DropObject(of="MATERIALIZED VIEW", name=U),
    ),
    (
        "CREATE OR REPLACE TEMP RECURSIVE VIEW s.u (a) AS SELECT 1",
        CreateView(view=U, replaces=True),
    ),
    (
        "CREATE MATERIALIZED VIEW IF NOT EXISTS s.u AS SELECT 1",
        CreateView(view=U),
    ),
    (
        "REFRESH MATERIALIZED VIEW CONCURRENTLY s.u WITH DATA",
        RefreshView(view=U, concurrently=True),
    ),
    # Rows and transactions.
    (
        "INSERT INTO s.u (a) VALUES (1), ((2)) ON CONFLICT DO NOTHING",
        ChangeRows(table=U, how="INSERT", values=2),
    ),
    ("INSERT INTO t DEFAULT VALUES", ChangeRows(table=T, how="INSERT", values=1)),
    ("INSERT INTO t SELECT 1", ChangeRows(table=T, how="INSERT", values=1)),
    (
        "INSERT INTO t (SELECT 1 FROM ONLY s.u WHERE a)",
        ChangeRows(table=T, how="INSERT", reads=U, where=True),
    ),
    ("INSERT INTO t TABLE s.u", ChangeRows(table=T, how="INSERT", reads=U)),
    ("INSERT INTO t SELECT 1 FROM f(1)", ChangeRows(table=T, how="INSERT")),
    (
        "UPDATE ONLY t SET a = (SELECT 1 WHERE true)",
        ChangeRows(table=T, how="UPDATE"),
    ),
    ("DELETE FROM t WHERE a", ChangeRows(table=T, how="DELETE", where=True)),
    (
        "MERGE INTO t USING u ON a WHEN MATCHED THEN DELETE",
        ChangeRows(table=T, how="MERGE"),
    ),
    ("COPY t (a) FROM STDIN", ChangeRows(table=T, how="COPY")),
    ("DO $x$ BEGIN DROP TABLE t; END $x$", Block()),
    ("CALL f(1)", Block()),
    (
        "SET LOCAL lock_timeout = '2s'",
        SetParameter(name="lock_timeout", value="2s", local=True),
    ),
    ("SET a.b TO x, y", SetParameter(name="a.b", value="x, y")),
    ("RESET lock_timeout", SetParameter(name="lock_timeout", value="DEFAULT")),
    (
        "SELECT pg_catalog.set_config('Lock_Timeout', '2s', true)",
        SetParameter(name="lock_timeout", value="2s", local=True),
    ),
    ("START TRANSACTION", Transaction(how="BEGIN")),
    ("END", Transaction(how="COMMIT")),
    ("ROLLBACK AND CHAIN", Transaction(how="ROLLBACK")),
    ("LOCK t", LockTable(tables=(T,), mode="ACCESS EXCLUSIVE")),
    (
        "LOCK TABLE ONLY t, s.u IN share row exclusive MODE NOWAIT",
        LockTable(tables=(T, U), mode="SHARE ROW EXCLUSIVE"),
    ),
    # Names.
    (f"DROP TABLE {QUOTED}.{QUOTED}", DropTable(table=Ref(HOSTILE, HOSTILE))),
    ("DROP TABLE ÄB.Cd$1", DropTable(table=Ref("cd$1", "Äb"))),
    (r'DROP TABLE U&"d\0061t\+000061"', DropTable(table=Ref("data"))),
    (f"DROP TABLE {'é' * 40}", DropTable(table=Ref("é" * 31))),
    ("DROP/*a;/*b*/;*/TABLE--;\n t", DropTable(table=T)),
    # What has no form.
    ("SELECT 1", Other()),
    ("SELECT f(set_config('a', 'b', true))", Other()),
    ("VACUUM t", Other()),
    ("VACUUM", Other()),
    ("COPY t TO STDOUT", Other()),
    ("SET ROLE x", Other()),
    ("ROLLBACK TO SAVEPOINT x", Other()),
    ("COMMENT ON TABLE t IS 'DROP TABLE t;'", Other()),
    ("DROP", Other()),
    ("gibberish ( 'x", Other()),
]


@pytest.mark.parametrize(("text", "wanted"), FORMS, ids=lambda v: str(v)[:60])
def test_a_form_becomes_its_statement(text: str, wanted: Statement) -> None:
    """Each form is read as what the server would do, and keeps its text."""
    (found,) = sql.statements(text)
    assert found.sql == text
    assert found == type(wanted)(
        **{f: getattr(wanted, f) for f in wanted.__dataclass_fields__} | {"sql": text}
    )


#: Forms that PostgreSQL 15 does not know yet, by what they hold.
LATER = ("REINDEX DATABASE", "SET EXPRESSION", "NOT NULL a NOT VALID")
#: What is no SQL, or would end a transaction.
NONE = ("DROP", "gibberish", "END", "ROLLBACK")


def test_the_forms_are_sql_to_the_server(sql: psycopg.Connection) -> None:
    """The server's own parser takes each of them; a failed transaction runs none."""
    old = sql.info.server_version < 180000
    sql.execute("BEGIN")
    with pytest.raises(psycopg.errors.UndefinedTable):
        sql.execute("SELECT FROM nothing")
    for text, _ in FORMS:
        if (text in NONE or text.split()[0] in NONE[1:]) or (
            old and any(form in text for form in LATER)
        ):
            continue
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            sql.execute(text.encode())


def kinds(text: str) -> list[str]:
    """Return the names of the statements of a text."""
    return [type(s).__name__ for s in sql.statements(text)]


def test_actions_of_one_statement_are_statements_each() -> None:
    """Each action has a text that would do it alone."""
    found = sql.statements(
        'ALTER TABLE ONLY "T" DROP a, -- why\n ADD CHECK (b IN (1, 2)), VALIDATE'
    )
    assert [(type(s), s.sql) for s in found] == [
        (DropColumn, 'ALTER TABLE ONLY "T" DROP a'),
        (AddConstraint, 'ALTER TABLE ONLY "T" ADD CHECK (b IN (1, 2))'),
        (Other, 'ALTER TABLE ONLY "T" VALIDATE'),
    ]


def test_several_names_are_statements_each() -> None:
    """What one DROP or VACUUM does to several things is seen for each."""
    assert kinds(
        "DROP TABLE a, b; DROP INDEX a, b; DROP VIEW a, b; VACUUM FULL a, b;"
    ) == [
        *["DropTable"] * 2,
        *["DropIndex"] * 2,
        *["DropObject"] * 2,
        *["Rewrite"] * 2,
    ]


def test_queries_of_with_write_too() -> None:
    """DELETE within WITH is seen, and so is what follows."""
    text = (
        "WITH a AS (DELETE FROM t WHERE x RETURNING *), b AS (SELECT 1)"
        " UPDATE u SET c = 1"
    )
    assert [
        (s.table.name, s.how, s.where)
        for s in sql.statements(text)
        if isinstance(s, ChangeRows)
    ] == [
        ("t", "DELETE", True),
        ("u", "UPDATE", False),
    ]
    assert kinds("WITH a AS (SELECT 1) SELECT * FROM a") == ["Other"]


@pytest.mark.parametrize(
    "inner",
    [
        "';'",
        "E'\\';'",
        "$$;$$",
        "$x$;$$;$x$",
        '";"',
        "/* ; /* ; */ ; */",
        "-- ;\n",
        "(;)",
        "U&';'",
    ],
)
def test_a_semicolon_within_ends_nothing(inner: str) -> None:
    """Quotes, comments and parentheses hide a semicolon."""
    text = f"SELECT {inner} + 1"
    assert [s.sql for s in sql.statements(f"{text};DROP TABLE t")] == [
        text,
        "DROP TABLE t",
    ]


def test_a_body_that_is_written_out_is_one_statement() -> None:
    """BEGIN ATOMIC … END holds semicolons, CASE … END within it."""
    body = "BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END"
    text = f"CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql {body}"
    assert kinds(f"{text}; DROP TABLE t") == ["Other", "DropTable"]
    assert kinds("BEGIN; DROP TABLE t; END; DROP TABLE t") == [
        "Transaction",
        "DropTable",
        "Transaction",
        "DropTable",
    ]


def test_what_psql_alone_knows_goes_by() -> None:
    """Its commands, and the rows of COPY, are no statements."""
    assert kinds("\\connect x; y\nCOPY t FROM stdin;\n1;\t2'\n\\.\nDROP TABLE t") == [
        "ChangeRows",
        "DropTable",
    ]


def test_places_and_comments_are_kept() -> None:
    """Each statement has its place in the text, and so has each comment."""
    text = " -- a\nSELECT 1;\n/* b /* c */ */ SELECT 2"
    found = sql.parse(text)
    assert [text[one.start :].startswith("SELECT") for one in found.read] == [True] * 2
    assert [c.text for c in found.comments] == [" a", " b /* c */ "]


@pytest.mark.parametrize("parameter", [":x", "%(x)s", "%s", "$1"])
def test_parameters_are_values(parameter: str) -> None:
    """A parameter of any style stands where a value may."""
    text = f"UPDATE t SET a = {parameter}::text WHERE b[1:2] = {parameter}"
    assert sql.statements(text) == [
        ChangeRows(sql=text, table=T, how="UPDATE", where=True)
    ]


# Pieces of SQL, and of what breaks readers of SQL.
PIECES = sorted(
    {word for text, _ in FORMS for word in text.split()}
    | {"'", '"', "$$", "$x$", "/*", "*/", "--", "\n", "\\", "(", ")", "[", ";", ","}
    | {
        "E'\\",
        'U&"\\',
        "U&'\\+11",
        ":",
        "::",
        "%",
        "%(",
        "\0",
        "\ud800",
        "é",
        "1e",
        ".",
    }
)


@settings(max_examples=2000, deadline=None)
@given(some.lists(some.sampled_from(PIECES), max_size=30).map(" ".join) | some.text())
@example("(" * 20_000)
@example("CASE " * 20_000)
@example("/*" * 20_000)
@example("'" * 20_001)
@example("SELECT set_config('a')")
def test_no_text_is_an_error(text: str) -> None:
    """Whatever a text holds, it is read, and each statement has a part of it."""
    for found in sql.statements(text):
        assert found.sql


def test_no_beginning_of_a_form_is_an_error() -> None:
    """A form that is cut off anywhere, or loses a word, is read as something."""
    chance = random.Random(1)
    for text, _ in FORMS:
        for end in range(len(text)):
            sql.statements(text[:end])
        words = text.split()
        for _ in range(20):
            kept = [w for w in words if chance.random() < 0.8]
            sql.statements(" ".join(kept))
