"""Rules about rows and transactions, without and with a database."""

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from migrator.alembic.project import Project
from migrator.lint import Finding, Linter, Severity
from migrator.lint import statements as st
from migrator.lint.database import reader
from migrator.lint.rules import RULES
from migrator.lint.source import call, indented
from migrator.lint.statements import Ref
from migrator.plan import Lock
from migrator.postgres.connection import Target, connect
from tests.lint.looking import look
from tests.lint.revisions import project
from tests.lint.test_lint import revision

ROWS = [rule for rule in RULES if rule.code.startswith("ZD6")]
OFFLINE = Linter(rules=ROWS, guarded=True)
ALONE = "with op.get_context().autocommit_block():\n"

SCHEMA = """
CREATE TABLE users (id bigint PRIMARY KEY, email text);
CREATE TABLE orders (id bigint PRIMARY KEY, state text);
CREATE TABLE empty (id bigint PRIMARY KEY);
INSERT INTO users SELECT n, 'e' FROM generate_series(1, 1000) n;
INSERT INTO orders SELECT n, 's' FROM generate_series(1, 5000) n;
CREATE INDEX ix_email ON users (email);
ANALYZE;
"""


def test_rows_of_a_bulk_insert_need_no_types(tmp_path: Path) -> None:
    """They are followed, as is what comes behind them."""
    body = (
        "op.bulk_insert(sa.table('users', sa.column('name')), [{'name': 'x'}])\n"
        "op.execute('DELETE FROM users')"
    )
    assert codes(lint(OFFLINE, tmp_path, body)) == ["ZD601"]


@contextmanager
def prepared(url: str) -> Iterator[Linter]:
    """Give a linter of a database with users and orders."""
    with psycopg.connect(url, autocommit=True) as sql:
        sql.execute(SCHEMA)
    with connect(Target.from_url(url), "lint") as conn:
        yield Linter(
            rules=ROWS,
            guarded=True,
            read=reader(conn),
            server_version=conn.info.server_version,
        )


def lint(linter: Linter, folder: Path, body: str) -> list[Finding]:
    """Return what is found in a revision whose `upgrade()` has a body."""
    return [p.finding for p in linter.lint("r1", revision(folder, body))]


def codes(found: list[Finding]) -> list[str]:
    """Return the codes of findings."""
    return [f.code for f in found]


def safe(finding: Finding) -> list[str]:
    """Return the code of a finding's patterns."""
    assert finding.safe is not None
    return [call(p) for p in finding.safe.patterns]


def code(finding: Finding) -> str:
    """Return the code of a finding's safe form that is no pattern."""
    assert finding.safe is not None
    return finding.safe.code


UPDATE = st.ChangeRows(table=Ref("users"), how="UPDATE")
SOME = replace(UPDATE, where=True)
DELETE = st.ChangeRows(table=Ref("users", "s"), how="DELETE")
COLUMN = st.AddColumn(
    table=Ref("users"), column=st.NewColumn(name="cents", type="BIGINT")
)


def test_rows_are_changed_in_chunks(linter: Linter) -> None:
    """All rows are an error, some are a warning; of a small or empty table less."""
    (every,) = look(OFFLINE, UPDATE)
    assert (every.code, every.severity, every.lock) == (
        "ZD601",
        Severity.ERROR,
        Lock.ROW_EXCLUSIVE,
    )
    assert every.what == "UPDATE changes every row of users in one transaction."
    (some,) = look(OFFLINE, SOME)
    assert some.severity is Severity.WARNING
    assert some.what == (
        "UPDATE changes the rows that it finds of users in one transaction."
    )
    (small,) = look(linter, UPDATE)
    assert small.severity is Severity.WARNING
    (few,) = look(linter, SOME)
    assert few.severity is Severity.NOTE
    linter.short_s = 1e-6
    assert [f.severity for f in look(linter, UPDATE)] == [Severity.ERROR]
    assert [f.severity for f in look(linter, SOME)] == [Severity.WARNING]
    empty = st.ChangeRows(table=Ref("empty"), how="UPDATE")
    assert look(linter, empty) == []
    insert = st.ChangeRows(table=Ref("users"), how="INSERT", values=3)
    assert look(OFFLINE, insert) == []


def test_a_chunk_in_a_block_passes(tmp_path: Path) -> None:
    """A LIMIT keeps it short where it is a transaction of its own, and only there."""
    text = "DELETE FROM users WHERE id IN (SELECT id FROM users LIMIT 500)"
    chunk = f'op.execute("{text}")'
    assert lint(OFFLINE, tmp_path, ALONE + f"    {chunk}") == []
    assert codes(lint(OFFLINE, tmp_path, chunk)) == ["ZD601"]
    every = ALONE + '    op.execute("DELETE FROM users")'
    assert codes(lint(OFFLINE, tmp_path, every)) == ["ZD601"]


def test_the_safe_form_follows_what_the_rows_are_changed_for() -> None:
    """A column that the revision adds is computed; else a person chooses."""
    (one,) = look(OFFLINE, COLUMN, UPDATE, autocommit=True)
    assert safe(one) == ['change = AddColumn("users", "cents", "bigint", computed="…")']
    other = replace(COLUMN, column=replace(COLUMN.column, name="pence"))
    named = replace(UPDATE, sql="UPDATE users SET cents = 1")
    (one,) = look(OFFLINE, COLUMN, other, named, autocommit=True)
    assert safe(one) == ['change = AddColumn("users", "cents", "bigint", computed="…")']
    (two,) = look(OFFLINE, UPDATE)
    assert safe(two) == [
        'change = SetNotNull("users", "…", fill="…")',
        'change = TransformColumn("users", "…", "…", "…", "…", "…")',
    ]
    assert two.safe is not None
    assert two.safe.decide.startswith("what it is for.")
    (gone,) = look(OFFLINE, DELETE)
    assert safe(gone) == []
    assert code(gone).startswith(
        f'{ALONE}    op.execute("""DO $$ BEGIN LOOP\n'
        '    DELETE FROM "s"."users" WHERE ctid = ANY (ARRAY(\n'
    )
    # A line within a string is no line of code: it stays where it is.
    assert "\n    DELETE FROM" in indented(code(gone), 4)
    (some,) = look(OFFLINE, replace(DELETE, where=True))
    assert "WHERE … LIMIT 1000" in code(some)


def test_the_block_that_deletes_in_chunks_runs(
    sql: psycopg.Connection, own: Linter
) -> None:
    """It is code to paste, and ends with no row left."""
    (one,) = look(OFFLINE, replace(DELETE, table=Ref("users")))
    call_ = code(one).removeprefix(ALONE).strip()
    text = ast.literal_eval(call_.removeprefix("op.execute(").removesuffix(")"))
    sql.execute(text.replace("\\:", ":").encode())
    row = sql.execute("SELECT count(*) FROM users").fetchone()
    assert row == (0,)


def test_rows_beside_ddl_keep_the_table_locked(linter: Linter, tmp_path: Path) -> None:
    """The lock and its table are named, the size is that of the rows' table."""
    (one,) = look(OFFLINE, COLUMN, UPDATE)
    assert (one.code, one.severity, one.lock) == (
        "ZD603",
        Severity.ERROR,
        Lock.ACCESS_EXCLUSIVE,
    )
    assert one.what == (
        "UPDATE changes rows of users while the transaction holds ACCESS EXCLUSIVE on"
        " users."
    )
    assert one.why == (
        "Nobody can use users until all of them are changed and the revision is"
        " committed."
    )
    assert safe(one) == ['change = AddColumn("users", "cents", "bigint", computed="…")']
    other = replace(UPDATE, table=Ref("orders"))
    (two,) = look(OFFLINE, COLUMN, other)
    assert two.table == Ref("users")
    assert "rows of orders while the transaction holds ACCESS EXCLUSIVE on users" in (
        two.what
    )
    (known,), (by_itself,) = look(linter, COLUMN, other), look(linter, other)
    assert (known.code, known.seconds) == ("ZD603", by_itself.seconds)
    index = st.CreateIndex(table=Ref("users"), name="i", keys=("a",))
    (three,) = look(OFFLINE, index, UPDATE)
    assert three.lock is Lock.SHARE
    assert three.why.startswith("Nobody can write users")
    assert codes(look(OFFLINE, UPDATE, COLUMN)) == ["ZD601"]
    assert codes(look(OFFLINE, COLUMN, UPDATE, autocommit=True)) == ["ZD601"]
    made = st.CreateTable(table=Ref("users"))
    assert look(OFFLINE, made, COLUMN, UPDATE) == []
    on_empty = replace(COLUMN, table=Ref("empty"))
    assert codes(look(linter, on_empty, UPDATE)) == ["ZD601"]
    assert [f.severity for f in look(linter, COLUMN, SOME)] == [Severity.NOTE]


ADD = 'op.add_column("{}", sa.Column("n", sa.Integer))\n'


def test_a_build_under_a_lock_keeps_readers_out_too(
    linter: Linter, tmp_path: Path
) -> None:
    """What a statement locks as strongly itself is for its own rule."""
    index = 'op.create_index("i", "users", ["n"])'
    (one,) = lint(OFFLINE, tmp_path, ADD.format("users") + index)
    assert (one.code, one.severity, one.lock) == (
        "ZD605",
        Severity.ERROR,
        Lock.ACCESS_EXCLUSIVE,
    )
    assert one.what == (
        "The server builds an index of users while the transaction holds ACCESS"
        " EXCLUSIVE on users."
    )
    assert one.why == (
        "Nobody can use users until it is done and the revision is committed."
    )
    assert safe(one) == ['change = CreateIndex("users", ["n"], "i")']
    (small,) = lint(linter, tmp_path, ADD.format("users") + index)
    assert small.severity is Severity.WARNING
    block = ALONE + f"    {index[:-1]}, postgresql_concurrently=True)"
    assert lint(OFFLINE, tmp_path, ADD.format("users") + block) == []
    not_null = 'op.alter_column("users", "n", nullable=False)'
    assert lint(OFFLINE, tmp_path, ADD.format("users") + not_null) == []
    (other,) = lint(OFFLINE, tmp_path, ADD.format("orders") + not_null)
    assert other.what == (
        "The server reads every row of users while the transaction holds ACCESS"
        " EXCLUSIVE on orders."
    )


@pytest.mark.parametrize(
    ("statement", "works"),
    [
        (
            st.ValidateConstraint(table=Ref("users"), name="c"),
            "reads every row of users",
        ),
        (st.RefreshView(view=Ref("totals")), "writes anew totals"),
        (
            st.AddConstraint(
                table=Ref("users"),
                constraint=st.NewConstraint(
                    kind="f", columns=("a",), to=st.ForeignTo(table=Ref("orders"))
                ),
            ),
            "reads every row of users",
        ),
        (
            st.AddConstraint(table=Ref("users"), constraint=st.NewConstraint(kind="u")),
            "builds an index of users",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_work_under_a_lock_is_known(statement: st.Statement, works: str) -> None:
    """Scans, builds and refreshes are found behind a lock on another table."""
    before = replace(COLUMN, table=Ref("orders"))
    (one,) = look(OFFLINE, before, statement)
    assert one.code == "ZD605"
    assert one.what == (
        f"The server {works} while the transaction holds ACCESS EXCLUSIVE on orders."
    )
    assert look(OFFLINE, statement) == []


def test_a_further_lock_makes_a_convoy(linter: Linter, tmp_path: Path) -> None:
    """Two tables in one transaction are found once, two on one table not."""
    two = ADD.format("users") + ADD.format("orders")
    (one,) = lint(OFFLINE, tmp_path, two)
    assert (one.code, one.severity) == ("ZD605", Severity.WARNING)
    assert one.what == (
        "orders is locked by ACCESS EXCLUSIVE while the transaction holds ACCESS"
        " EXCLUSIVE on users."
    )
    assert one.why == (
        "As long as it waits for orders, requests on users wait behind it; one that"
        " uses the tables in another order deadlocks with the revision."
    )
    assert code(one) == ALONE + "    ...  # the statement as it stands, alone\n"
    assert len(lint(OFFLINE, tmp_path, two + ADD.format("items"))) == 1
    assert lint(OFFLINE, tmp_path, ADD.format("users") * 2) == []
    assert lint(linter, tmp_path, ADD.format("users") + ADD.format("empty")) == []
    qualified = ADD.format("users")[:-2] + ', schema="public")\n'
    assert lint(linter, tmp_path, ADD.format("users") + qualified) == []
    apart = ADD.format("users") + ALONE + f"    {ADD.format('orders')}"
    assert lint(OFFLINE, tmp_path, apart) == []


def test_a_renamed_table_stays_the_same(linter: Linter, tmp_path: Path) -> None:
    """What is done under its new name, or in its new schema, is no further lock."""
    renamed = 'op.rename_table("users", "people")\n'
    for one in (OFFLINE, linter):
        assert lint(one, tmp_path, renamed + ADD.format("people")) == []
    moved = look(
        linter,
        st.MoveTable(table=Ref("users"), to="s"),
        replace(COLUMN, table=Ref("users", "s")),
        replace(UPDATE, table=Ref("users", "s")),
    )
    assert codes(moved) == ["ZD603"]
    assert moved[0].seconds


def test_foreign_keys_alone_are_for_their_own_rule(tmp_path: Path) -> None:
    """They are found here only behind another lock."""
    key = (
        'op.create_foreign_key("f{0}", "orders", "{0}", ["a"], ["id"],'
        " postgresql_not_valid=True)\n"
    )
    keys = key.format("users") + key.format("teams")
    assert lint(OFFLINE, tmp_path, keys) == []
    (one,) = lint(OFFLINE, tmp_path, ADD.format("orders") + keys)
    assert one.what == (
        "users is locked by SHARE ROW EXCLUSIVE while the transaction holds ACCESS"
        " EXCLUSIVE on orders."
    )


def test_an_index_replaced_at_once_is_for_its_own_rule(tmp_path: Path) -> None:
    """The drop's lock under the build is told by the rule of replaced indexes."""
    body = 'op.drop_index("i", "users")\nop.create_index("i", "users", ["a"])'
    assert lint(OFFLINE, tmp_path, body) == []


def test_a_strong_lock_asks_for_a_lock_timeout(linter: Linter, tmp_path: Path) -> None:
    """It is told once, unless one is set, or env.py sets it, or nobody can wait."""
    linter.guarded = False
    (one,) = lint(linter, tmp_path, ADD.format("users") * 2)
    assert (one.code, one.severity) == ("ZD611", Severity.WARNING)
    assert one.what == (
        "The revision waits for ACCESS EXCLUSIVE on users without a lock_timeout."
    )
    assert code(one) == "op.execute(\"SET LOCAL lock_timeout = '200ms'\")\n"
    (alone,) = lint(linter, tmp_path, ALONE + f"    {ADD.format('users')}")
    assert code(alone) == "op.execute(\"SET lock_timeout = '200ms'\")\n"
    assert lint(linter, tmp_path, ADD.format("empty")) == []
    concurrent = 'op.create_index("i", "users", ["id"], postgresql_concurrently=True)'
    assert lint(linter, tmp_path, ALONE + f"    {concurrent}") == []
    (share,) = lint(linter, tmp_path, 'op.create_index("i", "users", ["id"])')
    assert "waits for SHARE on users" in share.what


def test_a_lock_timeout_is_asked_for_where_nothing_else_is(tmp_path: Path) -> None:
    """The safe form of what is found has one; what is allowed has none."""
    linter = Linter()
    body = 'op.create_index("i", "t", ["a"])'
    assert codes(lint(linter, tmp_path, body)) == ["ZD301"]
    allowed = linter.lint(
        "r1", revision(tmp_path, body + "  # migrator: allow ZD301 ten rows")
    )
    assert [p.finding.code for p in allowed] == ["ZD301", "ZD611"]


def test_an_environment_with_the_options_is_guarded(tmp_path: Path) -> None:
    """The text of env.py tells, without running it."""
    project(tmp_path)
    env = tmp_path / "m" / "env.py"
    made = Project.load(str(tmp_path / "alembic.ini"))
    assert made.is_guarded()
    env.write_text("from migrator.alembic import options\nf(**options())\n")
    assert made.is_guarded()
    env.write_text("from alembic import context\ncontext.options()\n")
    assert not made.is_guarded()
    env.write_text("from migrator import alembic as zd\ncontext.configure()\n")
    assert not made.is_guarded()
    env.unlink()
    assert not made.is_guarded()


def test_a_lock_timeout_counts_as_long_as_it_is_set() -> None:
    """SET LOCAL ends with its transaction, and 0 or DEFAULT is none."""
    linter = Linter(rules=ROWS)
    local = st.SetParameter(name="lock_timeout", value="1s", local=True)
    session = replace(local, local=False)
    assert look(linter, local, COLUMN) == []
    assert look(linter, session, COLUMN, autocommit=True) == []
    assert codes(look(linter, local, COLUMN, autocommit=True)) == ["ZD611"]
    assert codes(look(linter, replace(local, value="0"), COLUMN)) == ["ZD611"]
    # The guard does not set one over what the revision says.
    guarded = replace(linter, guarded=True)
    for value, there in (("0", True), ("'0ms'", True), ("5s", False)):
        found = look(guarded, replace(local, value=value), COLUMN)
        assert codes(found) == (["ZD611"] if there else [])
    unset = replace(session, value="DEFAULT")
    assert codes(look(linter, session, COLUMN, unset, COLUMN)) == ["ZD611"]


def test_a_statement_alone_shares_no_transaction() -> None:
    """What stands before an autocommit block is committed when it begins."""
    scene = OFFLINE.scene()
    scene.passed(COLUMN)
    assert (scene.same, scene.held()) == (
        [COLUMN],
        {Ref("users"): Lock.ACCESS_EXCLUSIVE},
    )
    scene.autocommit = True
    assert (scene.same, scene.held(), scene.holders()) == ([], {}, [])
    assert scene.was_strong


def test_a_lock_of_the_revision_itself_is_told() -> None:
    """A strong mode is found on each table in use, a weak one is not."""
    locked = st.LockTable(tables=(Ref("users"), Ref("orders")), mode="ACCESS EXCLUSIVE")
    users, orders = (f for f in look(OFFLINE, locked) if f.code == "ZD613")
    assert (users.lock, users.severity) == (Lock.ACCESS_EXCLUSIVE, Severity.WARNING)
    assert orders.table == Ref("orders")
    assert users.what == (
        "LOCK TABLE takes ACCESS EXCLUSIVE on users until the revision is committed."
    )
    assert safe(users) == [
        'change = Custom("users", "…", at_expand=(Sql("…", reverse="…"),))'
    ]
    (share,) = look(OFFLINE, replace(locked, tables=(Ref("users"),), mode="share"))
    assert share.why.startswith("Nobody can write the table")
    assert 'lock="SHARE"' in safe(share)[0]
    weak = replace(locked, mode="ROW EXCLUSIVE")
    assert look(OFFLINE, weak) == []


@pytest.mark.parametrize("how", ["COMMIT", "ROLLBACK"])
def test_a_revision_ends_no_transaction(how: str) -> None:
    """COMMIT and ROLLBACK are errors, BEGIN a warning; in a block none is."""
    (one,) = look(OFFLINE, st.Transaction(how=how))
    assert (one.code, one.severity) == ("ZD615", Severity.ERROR)
    assert one.what == (
        f"{how} ends the transaction that Alembic has begun for the revision."
    )
    (begin,) = look(OFFLINE, st.Transaction(how="BEGIN"))
    assert begin.severity is Severity.WARNING
    assert look(OFFLINE, st.Transaction(how=how), autocommit=True) == []
