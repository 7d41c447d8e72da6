"""The run-time guard: plain revisions by Alembic's own command, beside traffic."""

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import quick

# Longest wait for a lock in ms that the revisions here are given.
LOCK_MS = 200
# ms that a request may take beyond that on a busy machine.
MARGIN_MS = 250

INI = """
[alembic]
script_location = migrations
sqlalchemy.url = {url}
"""

ENV = """
import logging, sys
from alembic import context
from sqlalchemy import create_engine
from migrator import alembic as zd

logging.basicConfig(level=logging.INFO, stream=sys.stderr)
engine = create_engine(context.config.get_main_option("sqlalchemy.url"))
with engine.connect() as connection:
    context.configure(connection=connection, **zd.options({options}))
    with context.begin_transaction():
        context.run_migrations()
"""

HEAD = """
import sqlalchemy as sa
from alembic import op
from migrator import alembic as zd

revision, down_revision = {revision!r}, {before!r}


def upgrade():
{upgrade}


def downgrade():
{downgrade}
"""

TABLES = """
op.create_table(
    "users", sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.Text)
)
op.create_table("items", sa.Column("id", sa.Integer, primary_key=True))
"""


@dataclass
class Project:
    """An Alembic project in a folder, at its first revision, with rows."""

    folder: Path
    url: str
    environ: dict[str, str] = field(default_factory=dict)

    def write(
        self, name: str, upgrade: str, *, before: str | None, down: str = "pass"
    ) -> None:
        """Write a revision."""
        path = self.folder / "migrations" / "versions" / f"{name}.py"
        path.write_text(
            HEAD.format(
                revision=name,
                before=before,
                upgrade=textwrap.indent(textwrap.dedent(upgrade).strip(), "    "),
                downgrade=textwrap.indent(textwrap.dedent(down).strip(), "    "),
            )
        )

    def env(self, options: str = "", text: str = ENV) -> None:
        """Write env.py."""
        path = self.folder / "migrations" / "env.py"
        path.write_text(text.replace("{options}", options))

    def start(self, *words: str, module: str = "alembic") -> subprocess.Popen[str]:
        """Start a command."""
        return subprocess.Popen(
            [Path(sys.executable).parent / module, *words],
            cwd=self.folder,
            env={**os.environ, **self.environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, fails: bool = False, module: str = "alembic") -> str:
        """Run a command to its end, and return what it says."""
        done = quick.run(self.folder, *words, module=module, environ=self.environ)
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stderr + done.stdout

    def upgrade(self, *, fails: bool = False) -> str:
        """Run `alembic upgrade head`."""
        return self.run("upgrade", "head", fails=fails)


@pytest.fixture
def project(database: str, tmp_path: Path, sql: psycopg.Connection) -> Project:
    """Give a project whose two tables have 5,000 rows each."""
    (tmp_path / "migrations" / "versions").mkdir(parents=True)
    (tmp_path / "migrations" / "script.py.mako").touch()
    url = database.replace("postgresql:", "postgresql+psycopg:")
    (tmp_path / "alembic.ini").write_text(INI.format(url=url))
    made = Project(tmp_path, database)
    made.env()
    made.write("r1", TABLES, before=None)
    made.upgrade()
    for table in ("users", "items"):
        sql.execute(
            f"INSERT INTO {table} (id) SELECT generate_series(1, 5000)".encode()
        )
    sql.execute("UPDATE users SET name = 'n'")
    sql.execute("VACUUM ANALYZE")
    return made


@dataclass
class Lines:
    """What a command says, as it says it."""

    process: subprocess.Popen[str]
    seen: list[str] = field(default_factory=list)

    def until(self, words: str) -> str:
        """Read on to the line that has some words."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.seen.append(line)
            if words in line:
                return line
        raise AssertionError("".join(self.seen))

    def end(self) -> str:
        """Read on to the end, which must be a success."""
        out, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, "".join(self.seen) + err + out
        return "".join(self.seen) + err + out


@contextmanager
def holding(url: str, statement: str) -> Iterator[psycopg.Connection]:
    """Hold what a statement locks, in a transaction that stays open."""
    with psycopg.connect(url, application_name="report") as conn:
        conn.execute(statement.encode())
        # Old enough not to pass for a request.
        with psycopg.connect(url, autocommit=True) as look:
            while not _aged(look, conn.info.backend_pid):
                time.sleep(0.02)
        yield conn


def _aged(conn: psycopg.Connection, pid: int) -> bool:
    row = conn.execute(
        "SELECT clock_timestamp() - xact_start > interval '300 ms'"
        " FROM pg_stat_activity WHERE pid = %s",
        (pid,),
    ).fetchone()
    assert row is not None
    return bool(row[0])


@dataclass
class Traffic:
    """Requests on a table, one after the other, on several connections."""

    url: str
    statement: str
    longest_ms: float = 0.0
    count: int = 0
    errors: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> "Traffic":
        self._threads = [threading.Thread(target=self._run) for _ in range(3)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as conn:
            while not self._stop.is_set():
                begun = time.monotonic()
                try:
                    conn.execute(self.statement.encode())
                except psycopg.Error as error:
                    self.errors.append(str(error))
                taken = (time.monotonic() - begun) * 1000
                self.longest_ms = max(self.longest_ms, taken)
                self.count += 1
                time.sleep(0.002)

    def more(self, count: int = 300) -> None:
        """Wait for so many further requests."""
        wanted = self.count + count
        while self.count < wanted:
            time.sleep(0.01)


def columns(sql: psycopg.Connection, table: str = "users") -> list[str]:
    """Return the columns of a table, in order."""
    rows = sql.execute(
        "SELECT attname::text FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped"
        " AND attrelid = %s::regclass ORDER BY attnum",
        (table,),
    )
    return [row[0] for row in rows]


def version(sql: psycopg.Connection) -> str:
    """Return Alembic's version."""
    row = sql.execute("SELECT version_num FROM alembic_version").fetchone()
    assert row is not None
    return str(row[0])


def assured(sql: psycopg.Connection) -> list[tuple[str, str, str]]:
    """Return what the log has of hazards that passed: revision, code, reason."""
    rows = sql.execute(
        "SELECT change, detail ->> 'code', detail ->> 'reason'"
        " FROM migrator.events WHERE kind = 'assured' ORDER BY id"
    )
    return list(rows)


ADD = 'op.add_column("users", sa.Column("nick", sa.Text))'
IN_BLOCK = 'op.execute("DO $$ BEGIN ALTER TABLE users ADD COLUMN nick text; END $$")'


@pytest.mark.parametrize("statement", [ADD, IN_BLOCK], ids=["seen", "unseen"])
def test_requests_never_wait_behind_a_long_transaction(
    project: Project, sql: psycopg.Connection, statement: str
) -> None:
    """A plain revision goes through when it ends, and nobody queued for longer."""
    project.write("r2", statement, before="r1")
    requests = Traffic(project.url, "SELECT count(*) FROM users WHERE id = 7")
    with requests:
        with holding(project.url, "SELECT FROM users"):
            lines = Lines(project.start("upgrade", "head"))
            lines.until("waits")
            requests.more()
            assert version(sql) == "r1"
        lines.end()
    assert version(sql) == "r2"
    assert columns(sql) == ["id", "name", "nick"]
    assert not requests.errors
    assert requests.longest_ms < LOCK_MS + MARGIN_MS
    said = "".join(lines.seen)
    if statement == ADD:
        assert "does not queue" in said
        assert 'application "report", idle in transaction' in said


CHANGE = """
from migrator import alembic as zd
from migrator.patterns import RenameColumn

revision, down_revision = "r3", "r2"
change = RenameColumn("users", "name", "full_name")


def upgrade():
    zd.upgrade(change)
"""


def test_our_own_command_tells_a_wait_once(
    project: Project, sql: psycopg.Connection
) -> None:
    """Its progress says it, so that the log of env.py has it as information only."""
    project.env(text=ENV.replace("level=logging.INFO", "level=logging.WARNING"))
    project.write("r2", ADD, before="r1")
    (project.folder / "migrations" / "versions" / "r3.py").write_text(CHANGE)
    with holding(project.url, "SELECT FROM users"):
        lines = Lines(project.start("expand", "r3", module="migrator"))
        lines.until("does not queue")
    assert lines.process.stderr is not None
    # To its end: what is read ahead by now would be lost to `end`.
    lines.seen += lines.process.stderr
    assert lines.end().count("does not queue") == 1
    assert version(sql) == "r3"


@pytest.mark.parametrize("statement", [ADD, IN_BLOCK], ids=["seen", "unseen"])
def test_a_retry_leaves_nothing_half_done(
    project: Project, sql: psycopg.Connection, statement: str
) -> None:
    """Where the third operation meets a lock, the first two are taken back."""
    before = """
    op.create_table("extra", sa.Column("id", sa.Integer))
    op.add_column("items", sa.Column("size", sa.Integer))
    """
    project.write("r2", textwrap.dedent(before) + statement, before="r1")
    requests = Traffic(project.url, "UPDATE items SET id = id WHERE id = 7")
    with requests:
        with holding(project.url, "SELECT FROM users"):
            lines = Lines(project.start("upgrade", "head"))
            lines.until("waits")
            lines_seen = sql.execute("SELECT to_regclass('extra')").fetchone()
            requests.more()
        lines.end()
    assert lines_seen == (None,)
    assert requests.longest_ms < LOCK_MS + MARGIN_MS
    assert columns(sql, "items") == ["id", "size"]
    assert columns(sql) == ["id", "name", "nick"]
    assert version(sql) == "r2"


@pytest.mark.parametrize("statement", [ADD, IN_BLOCK], ids=["seen", "unseen"])
def test_an_error_says_who_holds_the_lock(
    project: Project, sql: psycopg.Connection, statement: str
) -> None:
    """Beyond the budget it ends, with nothing changed."""
    project.environ["MIGRATOR_STEP_BUDGET"] = "1s"
    project.write("r2", statement, before="r1")
    with holding(project.url, "SELECT FROM users") as conn:
        pid = conn.info.backend_pid
        said = project.upgrade(fails=True)
    assert version(sql) == "r1"
    if statement == ADD:
        assert (
            'Revision r2 waited 1 s for a lock on table "public"."users" that is kept,'
            " and did not queue for it.\nNothing was changed.\n"
            f'Held by pid {pid} (application "report", idle in transaction for'
        ) in said
        assert "Next: end that session, then run the same command again." in said
    else:
        assert "Revision r2 got no lock within 200 ms (" in said
        assert "`DO $$ BEGIN ALTER TABLE users ADD COLUMN nick text; END $$`" in said


def test_the_command_line_gives_its_code_for_locks(
    project: Project, sql: psycopg.Connection
) -> None:
    """`migrator expand` ends with 5 where a plain revision before it got no lock."""
    project.environ["MIGRATOR_STEP_BUDGET"] = "1s"
    project.write("r2", ADD, before="r1")
    project.write("r3", "zd.upgrade(change)", before="r2")
    path = project.folder / "migrations" / "versions" / "r3.py"
    change = 'change = RenameColumn("users", "name", "full_name")'
    path.write_text(
        f"from migrator.patterns import RenameColumn\n{change}\n{path.read_text()}"
    )
    with holding(project.url, "SELECT FROM users"):
        done = project.start("expand", module="migrator")
        _, err = done.communicate(timeout=60)
    assert done.returncode == 5, err
    assert "Revision r2 waited 1 s" in err
    assert version(sql) == "r1"


def test_a_deadlock_is_tried_again(project: Project, sql: psycopg.Connection) -> None:
    """The application is not its victim, and the revision goes through."""
    project.write(
        "r2",
        """
        op.execute("DO $$ BEGIN LOCK TABLE users; END $$")
        op.execute("SELECT pg_sleep(0.3)")
        op.execute("DO $$ BEGIN LOCK TABLE items; END $$")
        """,
        before="r1",
    )
    lines = Lines(project.start("upgrade", "head"))
    with psycopg.connect(project.url) as conn:
        conn.execute("LOCK TABLE items IN ROW EXCLUSIVE MODE")
        while not sql.execute(
            "SELECT pid FROM pg_locks WHERE relation = 'users'::regclass AND granted"
            " AND mode = 'AccessExclusiveLock'"
        ).fetchone():
            time.sleep(0.01)
        conn.execute("SELECT FROM users LIMIT 1")
    said = lines.end()
    assert "got no lock, and is tried again" in said
    assert version(sql) == "r2"


def test_nothing_is_tried_again_once_it_has_committed(
    project: Project, sql: psycopg.Connection
) -> None:
    """An autocommit block commits what was before it, and the error says so."""
    project.write(
        "r2",
        """
        op.create_table("extra", sa.Column("id", sa.Integer))
        with op.get_context().autocommit_block():
            op.execute("SELECT 1")
        op.add_column("items", sa.Column("size", sa.Integer))
        op.execute("DO $$ BEGIN ALTER TABLE users ADD COLUMN nick text; END $$")
        """,
        before="r1",
    )
    with holding(project.url, "SELECT FROM users"):
        said = project.upgrade(fails=True)
    assert "is not tried again, since a part of it has committed" in said
    assert "What the revision committed before stays" in said
    assert version(sql) == "r1"
    assert columns(sql, "extra") == ["id"]
    assert columns(sql, "items") == ["id"]


@pytest.mark.parametrize("how", ["text", "connection"])
def test_a_commit_by_the_revision_itself_counts(
    project: Project, sql: psycopg.Connection, how: str
) -> None:
    """It is seen however it is made: nothing runs twice."""
    commit = {
        "text": 'with zd.assured("an old idiom"):\n    op.execute("COMMIT")',
        "connection": "op.get_bind().get_transaction().commit()\nop.get_bind().begin()",
    }[how]
    project.write(
        "r2",
        f'op.execute("INSERT INTO items VALUES (-1)")\n{commit}\n{IN_BLOCK}',
        before="r1",
    )
    with holding(project.url, "SELECT FROM users"):
        said = project.upgrade(fails=True)
    assert "a part of it has committed" in said
    assert sql.execute("SELECT count(*) FROM items WHERE id < 0").fetchone() == (1,)


def test_locks_are_short_behind_an_autocommit_block_too(
    project: Project, sql: psycopg.Connection
) -> None:
    """In it and behind it, the timeouts are what they should be."""
    show = "op.execute(\"INSERT INTO seen VALUES (current_setting('lock_timeout'))\")"
    sql.execute("CREATE TABLE seen (value text, id serial)")
    project.write(
        "r2",
        f"""
        {show}
        with op.get_context().autocommit_block():
            {show}
            op.create_index("i", "users", ["name"], postgresql_concurrently=True)
            {show}
        {show}
        """,
        before="r1",
    )
    # The index build's own budget is seen by an event trigger.
    sql.execute(
        "CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN"
        # The ledger's own indexes are made by this command as well.
        " IF current_query() ~ 'CONCURRENTLY' THEN"
        " INSERT INTO seen VALUES ('build ' || current_setting('lock_timeout'));"
        " END IF; END $$"
    )
    sql.execute(
        "CREATE EVENT TRIGGER note ON ddl_command_start WHEN TAG IN ('CREATE INDEX')"
        " EXECUTE FUNCTION note()"
    )
    project.upgrade()
    rows = sql.execute("SELECT value FROM seen ORDER BY id").fetchall()
    assert [row[0] for row in rows] == [
        "200ms",
        "200ms",
        "build 10min",
        "200ms",
        "200ms",
    ]


@pytest.mark.parametrize("local", ["", "LOCAL "])
def test_a_revision_keeps_its_own_lock_timeout(
    project: Project, sql: psycopg.Connection, local: str
) -> None:
    """It is not set anew where the revision has, and does not reach the next one."""
    show = "op.execute(\"INSERT INTO seen VALUES (current_setting('lock_timeout'))\")"
    sql.execute("CREATE TABLE seen (value text, id serial)")
    project.write(
        "r2",
        f"""
        op.execute("SET {local}lock_timeout = '7s'")
        {show}
        with op.get_context().autocommit_block():
            {show}
        {show}
        """,
        before="r1",
    )
    project.write("r3", show, before="r2")
    project.upgrade()
    rows = sql.execute("SELECT value FROM seen ORDER BY id").fetchall()
    kept = "7s" if not local else "200ms"
    assert [row[0] for row in rows] == ["7s", kept, kept, "200ms"]


NOT_NULL = 'op.alter_column("users", "name", nullable=False)'


def test_a_hazard_is_refused(project: Project, sql: psycopg.Connection) -> None:
    """With its place, the reason and the safe form, before anything changes."""
    project.write("r2", ADD, before="r1")
    project.write("r3", 'op.drop_column("users", "name")', before="r2")
    said = project.upgrade(fails=True)
    assert (
        "Revision r3 (line 10) is refused: DROP COLUMN users.name takes the column from"
        " the release in use."
    ) in said
    assert "Table users has about 5,000 rows. [ZD112]" in said
    assert (
        "This revision changed nothing; 1 revision that this command ran before" in said
    )
    assert '    change = DropColumn("users", "name", type="text")' in said
    assert 'Or put `with zd.assured("reason"):` around it' in said
    assert version(sql) == "r2"
    assert columns(sql) == ["id", "name", "nick"]


def test_a_swallowed_refusal_is_one(project: Project, sql: psycopg.Connection) -> None:
    """A revision that catches every error does not go on without its statement."""
    project.write(
        "r2",
        """
        try:
            op.drop_column("users", "name")
        except Exception:
            pass
        """,
        before="r1",
    )
    assert "Revision r2 (line 11) is refused" in project.upgrade(fails=True)
    assert version(sql) == "r1"


def test_a_hazard_behind_an_autocommit_block_is_refused_before_it(
    project: Project, sql: psycopg.Connection
) -> None:
    """The block would commit what is before it."""
    project.write(
        "r2",
        """
        op.create_table("extra", sa.Column("id", sa.Integer))
        with op.get_context().autocommit_block():
            op.create_index("i", "users", ["name"], postgresql_concurrently=True)
        op.drop_column("users", "name")
        """,
        before="r1",
    )
    said = project.upgrade(fails=True)
    assert "Revision r2 (line 13) is refused: DROP COLUMN users.name" in said
    assert "Nothing was changed." in said
    assert sql.execute("SELECT to_regclass('extra')").fetchone() == (None,)


@pytest.mark.parametrize(
    ("upgrade", "reason"),
    [
        (
            'with zd.assured("nobody reads it"):\n    op.drop_column("users", "name")',
            "nobody reads it",
        ),
        (
            '# migrator: allow ZD112 gone since v3\nop.drop_column("users", "name")',
            "gone since v3",
        ),
        (
            'op.drop_column(\n    "users",  # migrator: allow ZD112 gone since v3\n'
            '    "name",\n)',
            "gone since v3",
        ),
    ],
    ids=["block", "above", "within"],
)
def test_what_a_person_assures_passes(
    project: Project, sql: psycopg.Connection, upgrade: str, reason: str
) -> None:
    """And it is in the log, once; what was no hazard is not."""
    harmless = 'with zd.assured("harmless"):\n    ' + ADD
    project.write("r2", f"{harmless}\n{upgrade}", before="r1")
    project.upgrade()
    assert columns(sql) == ["id", "nick"]
    assert assured(sql) == [("r2", "ZD112", reason)]
    said = project.run("log", "r2", module="migrator")
    assert "assured: ZD112" in said
    assert reason in said


def test_what_the_project_allows_passes(
    project: Project, sql: psycopg.Connection
) -> None:
    """As lint has it, with the same reason."""
    (project.folder / "pyproject.toml").write_text(
        '[tool.migrator.lint]\nallow = { ZD112 = "we stop for migrations" }\n'
    )
    project.write("r2", 'op.drop_column("users", "name")', before="r1")
    project.upgrade()
    assert assured(sql) == [("r2", "ZD112", "we stop for migrations")]


def test_an_assurance_needs_a_reason(project: Project, sql: psycopg.Connection) -> None:
    """Without one it is refused."""
    project.write("r2", 'with zd.assured(" "):\n    pass', before="r1")
    assert "assured(…) is given no reason." in project.upgrade(fails=True)
    assert version(sql) == "r1"


@pytest.mark.parametrize("how", ["option", "file", "small", "mode"])
def test_what_is_not_refused(
    project: Project, sql: psycopg.Connection, how: str
) -> None:
    """Old revisions, tables that are not in use, and where no release runs."""
    project.write("r2", 'op.drop_column("users", "name")', before="r1")
    project.write("r3", NOT_NULL.replace("name", "id"), before="r2")
    toml = project.folder / "pyproject.toml"
    if how == "option":
        project.env('start_after="r2"')
    elif how == "file":
        toml.write_text('[tool.migrator]\nstart-after = "r2"\n')
    elif how == "small":
        toml.write_text("[tool.migrator]\nguard-rows = 5001\n")
    else:
        project.environ["MIGRATOR_MODE"] = "complete"
    project.upgrade()
    assert columns(sql) == ["id"]
    assert assured(sql) == []


def test_a_start_that_there_is_not(project: Project, sql: psycopg.Connection) -> None:
    """It is named, and nothing runs."""
    project.env('start_after="nope"')
    project.write("r2", ADD, before="r1")
    said = project.upgrade(fails=True)
    assert "start_after names no revision of this project" in said
    assert version(sql) == "r1"
    # It is seen before Alembic empties the version table.
    said = project.run("stamp", "--purge", "r2", fails=True)
    assert "Nothing was changed." in said
    assert version(sql) == "r1"
    # What stops it later says that Alembic has done so.
    project.env()
    sql.execute(
        "CREATE TABLE migrator.upgrades (version int, at timestamptz);"
        "INSERT INTO migrator.upgrades (version) VALUES (99)"
    )
    said = project.run("stamp", "--purge", "r2", fails=True)
    assert "--purge came first: the version table is empty by now" in said
    assert sql.execute("SELECT FROM alembic_version").rowcount == 0


def test_a_fresh_install_is_not_refused(database: str, project: Project) -> None:
    """All revisions run on an empty database, hazards or not, for a lease alone."""
    rows = 'op.execute("INSERT INTO users (id) SELECT generate_series(1, 5000)")'
    project.write("r2", f'{rows}\nop.drop_column("users", "name")', before="r1")
    with psycopg.connect(database, autocommit=True) as sql:
        sql.execute("DROP TABLE users, items, alembic_version")
        sql.execute("DROP SCHEMA migrator CASCADE")
        project.upgrade()
        assert columns(sql) == ["id"]
        of_the_ledger = "SELECT tablename FROM pg_tables WHERE schemaname = 'migrator'"
        assert sql.execute(of_the_ledger).fetchall() == [("leases",)]


def test_an_empty_version_table_beside_rows_is_no_fresh_install(
    project: Project, sql: psycopg.Connection
) -> None:
    """What had rows is in use; what the same command makes is nobody's."""
    rows = "INSERT INTO tags SELECT g, 'n' FROM generate_series(1, 5000) g"
    made = TABLES.replace("users", "tags").replace("items", "others")
    project.write("r1", f'{made}\nop.execute("{rows}")', before=None)
    project.write("r2", 'op.drop_column("tags", "name")', before="r1")
    project.write("r3", 'op.drop_column("users", "name")', before="r2")
    sql.execute("DELETE FROM alembic_version")
    assert "Revision r3 (line 10) is refused" in project.upgrade(fails=True)
    assert version(sql) == "r2"
    assert columns(sql, "tags") == ["id"]


def test_going_back_is_refused_only_where_it_stalls(
    project: Project, sql: psycopg.Connection
) -> None:
    """Dropping what the revision added is what `downgrade` is for."""
    project.write("r2", ADD, before="r1", down='op.drop_column("users", "nick")')
    stalls = 'op.create_index("i", "users", ["name"])'
    project.write("r3", "pass", before="r2", down=stalls)
    sql.execute("INSERT INTO users SELECT g, 'n' FROM generate_series(5001, 400000) g")
    sql.execute("ANALYZE users")
    project.environ["MIGRATOR_LOCK_TIMEOUT_MS"] = "20"
    project.upgrade()
    assert "Revision r3 (line 14) is refused: CREATE INDEX" in project.run(
        "downgrade", "-1", fails=True
    )
    project.run("stamp", "r2")
    project.run("downgrade", "-1")
    assert columns(sql) == ["id", "name"]


WITH_BEGIN = ENV.replace("engine.connect()", "engine.begin()")
WHOLE = ENV.replace(
    "**zd.options({options})",
    '**{**zd.options({options}), "transaction_per_migration": False}',
)


@pytest.mark.parametrize("text", [WITH_BEGIN, WHOLE], ids=["begin", "whole"])
def test_an_env_that_begins_the_transaction_itself(
    project: Project, sql: psycopg.Connection, text: str
) -> None:
    """Its revisions run; what gets no lock ends with the reason, all taken back."""
    project.env(text=text)
    project.write("r2", 'op.add_column("items", sa.Column("a", sa.Text))', before="r1")
    project.write("r3", IN_BLOCK, before="r2")
    with holding(project.url, "SELECT FROM users"):
        said = project.upgrade(fails=True)
    assert "is not tried again, since env.py began its transaction" in said
    assert "keep transaction_per_migration as zd.options(…) sets it" in said
    assert version(sql) == "r1"
    assert columns(sql, "items") == ["id"]
    project.upgrade()
    assert columns(sql) == ["id", "name", "nick"]


ASYNC = """
import asyncio, logging, sys
from alembic import context
from sqlalchemy.ext.asyncio import create_async_engine
from migrator import alembic as zd

logging.basicConfig(level=logging.INFO, stream=sys.stderr)


def run(connection):
    context.configure(connection=connection, **zd.options({options}))
    with context.begin_transaction():
        context.run_migrations()


async def main():
    engine = create_async_engine(context.config.get_main_option("sqlalchemy.url"))
    async with engine.connect() as connection:
        await connection.run_sync(run)
    await engine.dispose()


asyncio.run(main())
"""


@pytest.mark.parametrize("driver", ["psycopg2", "asyncpg", "psycopg"])
def test_any_driver(project: Project, sql: psycopg.Connection, driver: str) -> None:
    """What got no lock is seen, tried again and told, and a hazard refused."""
    if driver != "psycopg":
        pytest.importorskip(driver)
    text = ENV if driver == "psycopg2" else ASYNC
    project.env(
        text=text.replace(
            'get_main_option("sqlalchemy.url")',
            f'get_main_option("sqlalchemy.url").replace("+psycopg", "+{driver}")',
        )
    )
    project.write(
        "r2",
        """
        op.add_column("items", sa.Column("a", sa.Text))
        with op.get_context().autocommit_block():
            op.create_index("i", "items", ["a"], postgresql_concurrently=True)
        """,
        before="r1",
    )
    project.write("r3", IN_BLOCK, before="r2")
    project.write("r4", 'op.drop_column("users", "name")', before="r3")
    with holding(project.url, "SELECT FROM users"):
        lines = Lines(project.start("upgrade", "r3"))
        lines.until("got no lock, and is tried again")
    lines.end()
    assert columns(sql) == ["id", "name", "nick"]
    assert "Revision r4 (line 10) is refused" in project.upgrade(fails=True)
    assert version(sql) == "r3"


def test_two_pods_and_a_plain_revision(
    project: Project, sql: psycopg.Connection
) -> None:
    """The second one waits for the first, and finds nothing left to do."""
    project.write("r2", f"{ADD}\nop.execute('SELECT pg_sleep(1)')", before="r1")
    pods = [project.start("upgrade", "head") for _ in range(2)]
    said = [pod.communicate(timeout=60)[1] for pod in pods]
    assert [pod.returncode for pod in pods] == [0, 0], said
    assert sorted("Running upgrade r1 -> r2" in text for text in said) == [False, True]
    assert version(sql) == "r2"


def test_names_mean_what_they_mean_to_the_revision(
    project: Project, sql: psycopg.Connection
) -> None:
    """With a search path that env.py sets, its tables are looked at, not others."""
    sql.execute("CREATE SCHEMA tenant")
    sql.execute("CREATE TABLE tenant.users AS SELECT * FROM users LIMIT 10")
    sql.execute("CREATE TABLE tenant.alembic_version AS TABLE alembic_version")
    sql.execute("ANALYZE")
    path = 'create_engine(context.config.get_main_option("sqlalchemy.url")'
    project.env(
        text=ENV.replace(
            path, f'{path}, connect_args={{"options": "-c search_path=tenant"}}'
        )
    )
    project.write("r2", 'op.drop_column("users", "name")', before="r1")
    project.upgrade()
    assert columns(sql, "tenant.users") == ["id"]
    assert columns(sql) == ["id", "name"]


def test_a_batch_is_looked_at_once(project: Project, sql: psycopg.Connection) -> None:
    """`batch_alter_table` is an operation like the others."""
    project.write(
        "r2",
        """
        with zd.assured("nobody reads it"), op.batch_alter_table("users") as batch:
            batch.drop_column("name")
            batch.add_column(sa.Column("nick", sa.Text))
        """,
        before="r1",
    )
    project.upgrade()
    assert columns(sql) == ["id", "nick"]
    assert assured(sql) == [("r2", "ZD112", "nobody reads it")]


def test_lint_knows_that_env_is_guarded(project: Project) -> None:
    """It asks for no lock_timeout where the guard sets one."""
    project.write("r2", ADD, before="r1")
    assert "ZD611" not in project.run("lint", "--offline", "r2", module="migrator")
    project.env(text="")
    assert "ZD611" in project.run("lint", "--offline", "r2", module="migrator")


LOOP = """
from migrator.alembic.hazards import Hazards
seen, refuse = [], Hazards.refuse
Hazards.refuse = lambda self, s: (seen.append(s.sql.split()[0]), refuse(self, s))[1]
op.execute("CREATE TABLE other (id int)")
for n in (1, 2, 3):
    op.get_bind().execute(sa.text("SELECT name FROM users WHERE id = :id"), {"id": n})
    op.execute(f"UPDATE users SET name = '{n}' WHERE id = {n}")
    op.get_bind().execute(sa.text(f"INSERT INTO other VALUES ({n})"))
op.execute("UPDATE users SET name = 'x' WHERE id = 4")
op.execute("CREATE TABLE third (id int)")
op.execute(f"COMMENT ON TABLE third IS '{' '.join(seen)}'")
"""


def test_a_loop_over_rows_is_looked_at_once(
    project: Project, sql: psycopg.Connection
) -> None:
    """Its locks are held; looking again would take longer with each row."""
    project.write("r2", LOOP, before="r1")
    project.upgrade()
    words = "CREATE SELECT UPDATE INSERT UPDATE CREATE"
    seen = sql.execute("SELECT obj_description('third'::regclass)").fetchone()
    assert seen == (words,)
    assert sql.execute("SELECT count(*) FROM other").fetchone() == (3,)
    assert sql.execute("SELECT name FROM users WHERE id = 3").fetchone() == ("3",)
