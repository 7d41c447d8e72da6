"""Revisions looked at, without and with a database."""

import importlib.util
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import psycopg
import pytest

from migrator.alembic.project import patterns_of
from migrator.kernels.index_definition import Key
from migrator.lint import Finding, Harm, Linter, Rule, Severity, Work
from migrator.lint.database import reader
from migrator.lint.linter import once
from migrator.lint.recording import record, record_text
from migrator.lint.scene import Scene
from migrator.lint.statements import (
    AddConstraint,
    Carried,
    ChangeRows,
    CreateIndex,
    CreateTable,
    DropColumn,
    DropIndex,
    Other,
    Statement,
)
from migrator.plan import Lock
from migrator.postgres.connection import Target, connect

HEAD = """\
from alembic import op
import sqlalchemy as sa
from migrator import alembic as zd
from migrator.patterns import RenameColumn

revision, down_revision = "r1", None
change = RenameColumn("users", "name", "full_name")


def upgrade():
"""


def revision(folder: Path, body: str) -> ModuleType:
    """Return the module of a revision whose `upgrade()` has a body."""
    file = folder / "r1.py"
    file.write_text(HEAD + textwrap.indent(textwrap.dedent(body), "    "))
    spec = importlib.util.spec_from_file_location("r1", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


#: The line of a body's first statement.
FIRST = HEAD.count("\n") + 1


def test_a_revision_is_followed_through_its_own_code(tmp_path: Path) -> None:
    """Loops, batches, autocommit blocks, changes and text are all seen, by line."""
    done = record(
        revision(
            tmp_path,
            """\
            for table in ("a", "b"):
                op.create_index(f"ix_{table}", table, ["x"])
            with op.batch_alter_table("c") as batch:
                batch.drop_column("x")
            with op.get_context().autocommit_block():
                op.execute("VACUUM t")
            zd.upgrade(change)
            op.get_bind().execute(sa.text("SELECT 1"))
            """,
        )
    )
    assert not done.unread
    assert [(type(d.statement), d.line - FIRST, d.autocommit) for d in done.done] == [
        (CreateIndex, 1, False),
        (CreateIndex, 1, False),
        (DropColumn, 3, False),
        (Other, 5, True),
        (Carried, 6, False),
        (Other, 7, False),
    ]


def test_a_revision_that_reads_the_database_says_where(tmp_path: Path) -> None:
    """What cannot be followed is a finding at its line, and no crash."""
    module = revision(
        tmp_path,
        'op.drop_column("users", "nick")\n'
        'op.get_bind().execute(sa.text("SELECT 1")).scalar()',
    )
    found = Linter(guarded=True).lint("r1", module)
    assert [(p.finding.code, p.line - FIRST) for p in found] == [
        ("ZD112", 0),
        ("ZD901", 1),
    ]


def test_a_revision_that_reads_rows_is_followed_on(tmp_path: Path) -> None:
    """Where no rows are found, what comes behind is seen, and where was told."""
    done = record(
        revision(
            tmp_path,
            """\
            bind = op.get_bind()
            while True:
                written = bind.execute(sa.text("UPDATE t SET a = 1"))
                if written.rowcount < 1:
                    break
            for row in bind.execute(sa.text("SELECT 1")).mappings():
                op.drop_column("t", row["a"])
            ids = bind.execute(sa.text("SELECT 1")).scalars().all()
            op.drop_column("t", "b")
            """,
        )
    )
    assert done.unread == "it asks the database for rows"
    # The number of rows ends a loop, and hides nothing.
    assert done.unread_line == FIRST + 5
    assert [type(d.statement) for d in done.done] == [
        ChangeRows,
        Other,
        Other,
        DropColumn,
    ]


def test_what_stands_behind_a_failure_is_seen(tmp_path: Path) -> None:
    """Statements behind one that needs the database are followed, as far as they go."""
    done = record(
        revision(
            tmp_path,
            """\
            table = "t"
            metadata = sa.MetaData()
            metadata.reflect(op.get_bind())
            users = metadata.tables["users"]
            for row in op.get_bind().execute(sa.select(users.c.id)):
                op.drop_column("t", "a")
            op.drop_index("i", table)
            with op.batch_alter_table(table) as batch:
                batch.drop_column("b")
            with op.get_context().autocommit_block():
                op.execute("VACUUM t")
            return
            op.drop_column("t", "c")
            """,
        )
    )
    assert done.unread_line == FIRST + 2
    assert (
        done.unread
        == "it asks the database for more than rows, as an inspector or a session does"
    )
    assert [(type(d.statement), d.line - FIRST, d.autocommit) for d in done.done] == [
        (DropIndex, 6, False),
        (DropColumn, 8, False),
        (Other, 10, True),
    ]


@pytest.mark.parametrize(
    ("condition", "apart"),
    [
        ("op.get_bind().execute(sa.text('SELECT 1')).all()", True),
        ("op.get_bind().execute(sa.text('SELECT 1')).fetchone()[0]", True),
        ("[]", False),
    ],
)
def test_an_autocommit_block_that_rows_lead_into_commits(
    tmp_path: Path, condition: str, apart: bool
) -> None:
    """What is behind one that paper never entered holds no locks from before it."""
    done = record(
        revision(
            tmp_path,
            f"""\
            op.create_index("i", "t", ["a"])
            rows = {condition}
            if rows:
                with op.get_context().autocommit_block():
                    op.execute("UPDATE t SET a = 1")
            op.drop_column("t", "b")
            """,
        )
    ).done
    assert isinstance(done[-1].statement, DropColumn)
    assert (done[0].transaction != done[-1].transaction) is apart


def test_what_public_revisions_do_is_followed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table with its index in one call, Alembic's context, and a word on the way."""
    done = record(
        revision(
            tmp_path,
            """\
            from alembic import context
            print("one moment")
            op.create_table(
                "t",
                sa.Column("a", sa.Integer),
                sa.Column("b", sa.Integer, index=True),
                sa.Index("i", "a", sa.text("lower(b)"), unique=True),
            )
            if context.get_bind().dialect.name == "postgresql":
                op.drop_column("u", "a")
            if not context.is_offline_mode():
                op.drop_column("u", "b")
            """,
        )
    )
    assert not done.unread
    assert [type(d.statement) for d in done.done] == [
        CreateTable,
        CreateIndex,
        CreateIndex,
        DropColumn,
        DropColumn,
    ]
    given = done.done[2].statement
    assert isinstance(given, CreateIndex)
    assert (given.name, given.keys, given.unique) == (
        "i",
        ("a", Key(expression="lower(b)")),
        True,
    )
    assert capsys.readouterr().out == ""


class Lazy:
    """Stands for what is looked up where a database is."""

    @property
    def __class__(self) -> type:  # type: ignore[override]
        """Look it up."""
        raise NameError


def test_an_object_that_stands_for_another_is_left_alone() -> None:
    """Who looks through a revision for changes asks none what it is."""
    module = ModuleType("r")
    module.__dict__["kind"] = Lazy()
    assert patterns_of(module) == []


def test_what_a_loop_does_is_told_once(tmp_path: Path) -> None:
    """The same of one line is one finding, another table's is another."""
    body = """\
    for table in ("t", "t", "u"):
        op.drop_column(table, "a")
    """
    found = Linter(guarded=True).lint("r1", revision(tmp_path, body))
    told = [p.finding.what for p in once(found) if p.finding.code == "ZD112"]
    assert [what.split()[2] for what in told] == ["t.a", "u.a"]


def test_a_failure_is_told_in_words(tmp_path: Path) -> None:
    """What its code wanted, and what to do; no more of the paper than that."""
    body = "sa.inspect(op.get_bind()).get_table_names()"
    (found,) = Linter(guarded=True).lint("r1", revision(tmp_path, body))
    assert found.finding.what == (
        "The revision could not be followed: it asks the database for more than rows,"
        " as an inspector or a session does."
    )
    assert found.finding.safe is not None
    (own,) = Linter(guarded=True).lint("r1", revision(tmp_path, "[].pop()"))
    assert own.finding.what.endswith(
        "its code failed without a database, by IndexError: pop from empty list."
    )


def test_a_number_of_rows_that_decides_hides_something(tmp_path: Path) -> None:
    """Other than one that only ends a loop."""
    done = record(
        revision(
            tmp_path,
            """\
            if op.get_bind().execute(sa.text("UPDATE t SET a = 1")).rowcount:
                op.drop_column("t", "a")
            """,
        )
    )
    assert done.unread_line == FIRST


def test_a_table_whose_key_is_added_later(tmp_path: Path) -> None:
    """A key with use_alter is none of CREATE TABLE."""
    body = (
        'op.create_table("t", sa.Column("a", sa.Integer), sa.ForeignKeyConstraint('
        '["a"], ["u.id"], name="f", use_alter=True))'
    )
    (one,) = record(revision(tmp_path, body)).done
    assert isinstance(one.statement, CreateTable)
    assert [c.kind for c in one.statement.constraints] == []


def test_a_revision_that_waits_for_rows_ends(tmp_path: Path) -> None:
    """What would ask for ever without a server is left."""
    done = record(
        revision(
            tmp_path,
            """\
            while not op.get_bind().execute(sa.text("SELECT 1")).scalar():
                pass
            """,
        )
    )
    assert done.unread


def test_a_hazard_is_silenced_with_a_reason(tmp_path: Path) -> None:
    """A comment on the statement or above it counts, one without a reason is told."""
    module = revision(
        tmp_path,
        """\
        op.drop_column("users", "a")  # migrator: allow ZD112 never read
        # migrator: allow ZD112 nor this
        op.drop_column("users", "b")
        op.drop_column(
            "users",
            "c",  # migrator: allow ZD112, ZD301 within the call
        )
        op.drop_column("users", "d")  # migrator: allow ZD112
        """,
    )
    found = Linter(guarded=True).lint("r1", module)
    assert [(p.finding.code, p.allowed) for p in found] == [
        ("ZD112", "never read"),
        ("ZD112", "nor this"),
        ("ZD112", "within the call"),
        ("ZD112", ""),
        ("ZD902", ""),
    ]


def test_a_project_silences_a_rule(tmp_path: Path) -> None:
    """A code that the project allows is found and allowed."""
    module = revision(tmp_path, 'op.drop_column("users", "a")')
    (one,) = Linter(guarded=True, allow={"ZD112": "one release"}).lint("r1", module)
    assert one.allowed == "one release"


@pytest.fixture
def linter(database: str, sql: psycopg.Connection) -> Iterator[Linter]:
    """Give a linter of a database with a table `users`."""
    sql.execute("CREATE TABLE users (id bigint PRIMARY KEY, email text, nick text)")
    with connect(Target.from_url(database), "lint") as conn:
        yield Linter(
            guarded=True, read=reader(conn), server_version=conn.info.server_version
        )


def test_severity_follows_the_table(
    linter: Linter, tmp_path: Path, sql: psycopg.Connection
) -> None:
    """Nothing on an empty table, a warning on a small one, an error on a large one."""
    module = revision(tmp_path, 'op.alter_column("users", "email", nullable=False)\n')
    assert linter.lint("r1", module) == []
    sql.execute("INSERT INTO users SELECT n, 'e' FROM generate_series(1, 1000) n")
    (small,) = linter.lint("r1", module)
    assert small.finding.severity is Severity.WARNING
    assert small.finding.seconds is not None
    linter.short_s = small.finding.seconds / 2
    (large,) = linter.lint("r1", module)
    assert large.finding.severity is Severity.ERROR


def test_a_proof_that_is_there_counts(
    linter: Linter, tmp_path: Path, sql: psycopg.Connection
) -> None:
    """A valid CHECK that proves NOT NULL leaves nothing to be found."""
    sql.execute("INSERT INTO users SELECT n, 'e' FROM generate_series(1, 1000) n")
    sql.execute("ALTER TABLE users ADD CHECK (email IS NOT NULL)")
    module = revision(tmp_path, 'op.alter_column("users", "email", nullable=False)\n')
    assert linter.lint("r1", module) == []


def test_a_table_of_the_revision_itself_is_in_nobodys_use(tmp_path: Path) -> None:
    """What is done to a table that the revision made stalls nobody."""
    module = revision(
        tmp_path,
        """\
        op.create_table("n", sa.Column("id", sa.BigInteger, primary_key=True))
        op.create_index("ix_n", "n", ["id"])
        """,
    )
    assert Linter(guarded=True).lint("r1", module) == []


def test_text_is_seen_wherever_it_is_executed(tmp_path: Path) -> None:
    """Plain text, its parameters, and what goes past Alembic are read as SQL."""
    done = record(
        revision(
            tmp_path,
            r"""
            op.execute(r"ALTER TABLE t DROP a, DROP b; SELECT '1'\:\:text")
            op.execute(sa.text("UPDATE t SET a = :x").bindparams(x=object()))
            bind = op.get_bind()
            bind.execute(sa.text("DELETE FROM t WHERE a = :x"), {"x": 1})
            bind.exec_driver_sql("DROP TABLE t")
            sa.Table("n", sa.MetaData(), sa.Column("c", sa.Text)).create(bind)
            op.execute(sa.table("t", sa.column("a")).delete())
            op.get_context().execute("DROP TABLE u")
            """,
        )
    )
    assert not done.unread
    assert [(type(d.statement).__name__, d.line - FIRST) for d in done.done] == [
        ("DropColumn", 1),
        ("DropColumn", 1),
        ("Other", 1),
        ("ChangeRows", 2),
        ("ChangeRows", 4),
        ("DropTable", 5),
        ("CreateTable", 6),
        ("ChangeRows", 7),
        ("DropTable", 8),
    ]
    assert done.done[2].statement.sql == "SELECT '1'::text"


class Held(Rule):
    """Notes how many statements the transaction has done before each."""

    code = "ZD999"
    title = "for a test"
    harm = Harm.STALL
    lock = Lock.NONE
    work = Work.CATALOGUE
    trials = ()

    def __init__(self) -> None:
        self.counts: list[int] = []

    def look(self, statement: Statement, scene: Scene) -> Iterator[Finding]:
        """Find nothing."""
        self.counts.append(len(scene.same))
        yield from ()


def test_what_is_sent_together_is_one_transaction(tmp_path: Path) -> None:
    """In an autocommit block each operation is alone, two statements of a text not."""
    module = revision(
        tmp_path,
        """\
        op.execute("SELECT 1")
        op.execute("SELECT 2; SELECT 3")
        with op.get_context().autocommit_block():
            op.execute("SELECT 4; SELECT 5")
            op.execute("SELECT 6")
            op.execute("SELECT 7; SELECT 8")
        op.execute("SELECT 9")
        """,
    )
    groups: dict[int, list[bool]] = {}
    for one in record(module).done:
        groups.setdefault(one.transaction, []).append(one.autocommit)
    assert list(groups.values()) == [
        [False] * 3,
        [False] * 2,
        [True],
        [False] * 2,
        [False],
    ]
    held = Held()
    assert Linter(rules=[held]).lint("r1", module) == []
    assert held.counts == [0, 1, 2, 0, 1, 0, 0, 1, 0]


def test_a_condition_keeps_its_percent_signs(tmp_path: Path) -> None:
    """What a revision gives as text is not changed for a driver."""
    done = record(
        revision(tmp_path, """op.create_check_constraint("c", "t", "a LIKE '%'")""")
    )
    (one,) = done.done
    assert isinstance(one.statement, AddConstraint)
    assert one.statement.constraint.expression == "a LIKE '%'"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ('"a"', "a"),
        ('sa.text("a")', "a"),
        ('sa.text("a DESC NULLS LAST")', Key("a", order="desc", nulls="last")),
        ('sa.text("lower(a) DESC")', Key(expression="lower(a)", order="desc")),
        ('sa.text("a || b")', Key(expression="a || b")),
        ('sa.func.lower(sa.column("a"))', Key(expression="lower(a)")),
        ('sa.column("A b").desc()', Key("A b", order="desc")),
        ('sa.text("c")', Key("c", operators="text_ops")),
    ],
)
def test_a_key_of_an_index_is_read(
    given: str, wanted: str | Key, tmp_path: Path
) -> None:
    """However a key is given, its parts are known."""
    ops = 'postgresql_ops={"c": "text_ops"}'
    done = record(revision(tmp_path, f'op.create_index("i", "t", [{given}], {ops})'))
    (one,) = done.done
    assert isinstance(one.statement, CreateIndex)
    assert one.statement.keys == (wanted,)


def test_actions_of_a_key_are_keywords(tmp_path: Path) -> None:
    """However a revision writes them, a change takes them as SQL has them."""
    words = 'ondelete="cascade", onupdate="set null", match="full"'
    body = f'op.create_foreign_key("f", "t", "u", ["a"], ["id"], {words})'
    (one,) = record(revision(tmp_path, body)).done
    assert isinstance(one.statement, AddConstraint)
    to = one.statement.constraint.to
    assert to is not None
    assert (to.on_delete, to.on_update, to.match) == ("CASCADE", "SET NULL", "FULL")


def test_a_file_of_sql_is_one_revision(tmp_path: Path) -> None:
    """Its statements are found by line, its comments silence, transactions are told."""
    file = tmp_path / "V1.sql"
    file.write_text(
        "-- migrator: allow ZD112 never read\n"
        "ALTER TABLE t DROP a;\n"
        "ALTER TABLE t\n"
        "  DROP b; /* migrator: allow ZD112 nor this */\n"
        "CREATE INDEX i ON t (a); -- migrator: allow ZD112 not this\n"
        "CREATE INDEX CONCURRENTLY j ON t (a);\n"
        "BEGIN; DROP INDEX CONCURRENTLY j; COMMIT; VACUUM t\n"
    )
    assert [
        (p.revision, p.finding.code, p.line, p.allowed)
        for p in Linter(guarded=True).lint_sql(file)
    ] == [
        ("V1", "ZD112", 2, "never read"),
        ("V1", "ZD112", 3, "nor this"),
        ("V1", "ZD301", 5, ""),
        ("V1", "ZD605", 5, ""),
        ("V1", "ZD311", 7, ""),
    ]
    assert [d.autocommit for d in record_text(file.read_text()).done] == [
        *[False] * 3,
        True,
        *[False] * 3,
        True,
    ]
