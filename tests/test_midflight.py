"""Alembic's own commands in projects of every kind, with a change in each phase."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from quick import Quick
from test_alembic import FIRST, MODELS, SECOND, second

ENV = """
import models
from alembic import context
from sqlalchemy import create_engine, pool
from migrator import alembic as zd
{top}

engine = create_engine("{url}", poolclass=pool.NullPool)
with engine.connect() as connection:
    context.configure(
        connection=connection,
        **zd.options(target_metadata=models.Base.metadata),
        {more}
    )
    with context.begin_transaction():
        context.run_migrations()
"""
ENV_ASYNC = """
import asyncio
import models
from alembic import context
from sqlalchemy import pool
from sqlalchemy.ext.asyncio import create_async_engine
from migrator import alembic as zd
{top}


def run(connection):
    context.configure(
        connection=connection,
        **zd.options(target_metadata=models.Base.metadata),
        {more}
    )
    with context.begin_transaction():
        context.run_migrations()


async def main():
    engine = create_async_engine("{url}", poolclass=pool.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(run)
    await engine.dispose()


asyncio.run(main())
"""
# What leads to the database stands in no URL.
AT = 'engine = create_engine("{url}", poolclass=pool.NullPool)'
ENV_CREATOR = ENV.replace(
    AT,
    """import psycopg
engine = create_engine(
    "postgresql+psycopg://",
    creator=lambda: psycopg.connect("{url}".replace("+psycopg", "")),
    poolclass=pool.NullPool,
)""",
)
ENV_TOKEN = ENV.replace(
    AT,
    """from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import event
engine = create_engine("postgresql+psycopg://nobody@nowhere", poolclass=pool.NullPool)


@event.listens_for(engine, "do_connect")
def login(dialect, record, arguments, given):
    given.update(conninfo_to_dict("{url}".replace("+psycopg", "")), password="a token")
""",
)
PLAIN = """
from alembic import op
import sqlalchemy as sa

revision, down_revision = "{revision}", "{down}"


def upgrade():
    op.create_table("{table}", sa.Column("id", sa.Integer, primary_key=True))


def downgrade():
    op.drop_table("{table}")
"""
#: What one phase leads to the next by, after the first.
CARRY = {
    "verified": ("backfill",),
    "retired": ("contract", "--old-release-gone", "test"),
    "dropped": ("--hold", "0s", "contract", "--drop", "--yes"),
}


@pytest.fixture
def project(database: str, tmp_path: Path) -> Quick:
    """Give a project at its first revision."""
    made = Quick(tmp_path, database)
    made.run("init", "migrations")
    set_env(made)
    (tmp_path / "models.py").write_text(MODELS.format(name="full_name"))
    made.write("r1", FIRST)
    return made


def set_env(
    project: Quick,
    text: str = ENV,
    driver: str = "psycopg",
    *,
    more: str = "",
    top: str = "",
) -> None:
    """Give the project another env.py."""
    url = project.url.replace("postgresql:", f"postgresql+{driver}:")
    path = project.folder / "migrations" / "env.py"
    path.write_text(text.format(url=url, more=more, top=top))


def phases(project: Quick) -> Iterator[str]:
    """Bring the only change from its revision to dropped; stop in each phase."""
    project.migrator("expand")
    yield "expanded"
    for phase, words in CARRY.items():
        project.migrator(*words)
        yield phase


def change(revision: str, down: str | None, call: str, **more: str) -> str:
    """Return a revision that holds a change."""
    text = second(call).replace('"r2", "r1"', f'"{revision}", {down!r}')
    return text.replace(
        "\n\n\n", "".join(f"\n{k} = {v}" for k, v in more.items()) + "\n\n\n", 1
    )


def started(project: Quick) -> None:
    """Bring the project to r1, with rows."""
    project.run("upgrade", "r1")
    project.fill()


@pytest.mark.parametrize(
    ("text", "driver"),
    [
        (ENV, "psycopg2"),
        (ENV_ASYNC, "psycopg_async"),
        (ENV_ASYNC, "asyncpg"),
        (ENV_CREATOR, "psycopg"),
        (ENV_TOKEN, "psycopg"),
    ],
    ids=["psycopg2", "psycopg_async", "asyncpg", "creator", "token"],
)
def test_other_drivers(project: Quick, text: str, driver: str) -> None:
    """A project on another driver, an async one, or one that logs in by itself."""
    set_env(project, text, driver)
    started(project)
    project.write("r2", SECOND)
    for phase in phases(project):
        project.run("check")
        if phase == "retired":
            break
    project.run("downgrade", "-1")
    assert project.columns() == ["id", "name"]
    assert "r1" in project.run("current").stdout


FIRST_IN_APP = """
from alembic import op

revision, down_revision = "r1", None


def upgrade():
    for schema in ("app", "public"):
        op.execute(
            f"CREATE TABLE {schema}.users (id serial PRIMARY KEY,"
            " name varchar NOT NULL)"
        )
        op.execute(
            f"INSERT INTO {schema}.users (name)"
            " SELECT 'n' || generate_series(1, 500)"
        )
"""


def test_schemas(project: Quick) -> None:
    """Tables and versions in a schema, all schemas compared, a namesake elsewhere."""
    set_env(project, more='include_schemas=True, version_table_schema="app"')
    there = MODELS.format(name="full_name") + '    __table_args__ = {"schema": "app"}\n'
    other = MODELS.format(name="name").replace("class User", "class Other")
    (project.folder / "models.py").write_text(
        there + other[other.index("class Other") :]
    )
    with psycopg.connect(project.url) as conn:
        conn.execute("CREATE SCHEMA app")
    project.write("r1", FIRST_IN_APP)
    project.run("upgrade", "head")
    project.write(
        "r2",
        change("r2", "r1", 'RenameColumn("users", "name", "full_name", schema="app")'),
    )
    for phase in phases(project):
        project.run("check")
        assert "r2 (head)" in project.run("current").stdout
        if phase == "expanded":
            # The other table of that name is nobody's, and nothing of it hidden.
            models = project.folder / "models.py"
            text = models.read_text()
            models.write_text(text.replace("    name:", "    full_name:"))
            project.run("check", code=255)
            models.write_text(text)
    project.migrator("status", "r2")


# Of a project that goes from one tenant's schema to the next, as Alembic's cookbook
# has it; and of one whose driver is told where to look, and how to log in.
TENANT = """
    connection.execute(text('SET search_path TO "the app"'))
    connection.commit()
    connection.dialect.default_schema_name = "the app"
"""
TOLD = """
    engine = create_async_engine(
        "postgresql+asyncpg://",
        connect_args={{
            "host": "{host}", "port": {port}, "database": "{database}",
            "user": "postgres", "server_settings": {{"search_path": '"the app"'}},
        }},
    )
"""


@pytest.mark.parametrize("way", ["by a statement", "by the driver"])
def test_another_search_path(project: Quick, way: str) -> None:
    """A table is looked for where env.py's own connection would find it."""
    if way == "by a statement":
        top = "from sqlalchemy import text"
        at = "    context.configure("
        set_env(project, ENV.replace(at, f"{TENANT}{at}"), top=top)
    else:
        parts = conninfo_to_dict(project.url)
        told = TOLD.format(
            host=parts["host"], port=parts["port"], database=parts["dbname"]
        )
        at = "    engine = create_async_engine"
        lines = ENV_ASYNC.splitlines(keepends=True)
        set_env(
            project,
            "".join(
                told.replace("{", "{{").replace("}", "}}")
                if line.startswith(at)
                else line
                for line in lines
            ),
        )
    text = FIRST_IN_APP.replace('("app", "public")', '(\'"the app"\', "public")')
    project.write("r1", text)
    with psycopg.connect(project.url) as conn:
        conn.execute('CREATE SCHEMA "the app"')
    project.run("upgrade", "r1")
    project.write("r2", SECOND)
    for phase in phases(project):
        project.run("check")
        if phase == "retired":
            break
    assert project.columns() == ["id", "name"]
    with psycopg.connect(project.url) as conn:
        conn.execute('SELECT full_name FROM "the app".users')
    project.run("downgrade", "r1")


def test_a_second_autogenerate(project: Quick) -> None:
    """It writes nothing in any phase; an empty revision by hand can be applied."""
    started(project)
    project.write("r2", SECOND)
    head = "r2"
    for phase in phases(project):
        project.run("revision", "--autogenerate", "--rev-id", phase, "-m", "again")
        versions = project.folder / "migrations" / "versions"
        assert not list(versions.glob(f"{phase}_*.py"))
        project.run("revision", "--rev-id", phase, "-m", "again")
        project.run("upgrade", "+1")
        head = phase
    assert f"{head} (head)" in project.run("current").stdout


def test_one_revision_an_invocation(project: Quick) -> None:
    """`upgrade +1` passes what is disjoint, and stops before what is not."""
    started(project)
    project.write("r2", SECOND)
    project.write("r3", PLAIN.format(revision="r3", down="r2", table="extra"))
    project.write(
        "r4", change("r4", "r3", 'RenameColumn("users", "full_name", "title")')
    )
    for wanted in ("r2", "r3"):
        project.run("upgrade", "+1")
        assert wanted in project.run("current").stdout
    for words in CARRY.values():
        done = project.run("upgrade", "+1", code=255)
        assert "r4 touches what r2" in done.stdout + done.stderr
        assert "r3" in project.run("current").stdout
        project.migrator(*words)
    project.run("upgrade", "+1")
    assert project.columns() == ["id", "full_name", "title"]


def test_a_stamp_does_not_move_a_change(project: Quick) -> None:
    """Stamped back and upgraded again, a change stays where it is, in each phase."""
    started(project)
    project.write("r2", SECOND)
    for phase in phases(project):
        project.run("stamp", "r1")
        assert phase in project.migrator("status", "r2").stdout
        project.run("upgrade", "head")
        assert phase in project.migrator("status", "r2").stdout
        project.run("check")


def test_a_database_that_was_stamped(project: Quick) -> None:
    """Made by create_all and stamped, it has no change to carry on."""
    with psycopg.connect(project.url) as conn:
        conn.execute(
            "CREATE TABLE users (id serial PRIMARY KEY, full_name varchar NOT NULL)"
        )
    project.write("r2", SECOND)
    project.run("stamp", "head")
    project.run("check")
    assert "Nothing to plan" in project.migrator("plan").stdout
    assert "Nothing to expand" in project.migrator("expand").stdout
    assert "was never run on it" in project.migrator("expand", "r2", code=1).stderr
    assert "Nothing to backfill" in project.migrator("backfill").stdout
    project.migrator("status")


def test_branches(project: Quick) -> None:
    """Two branches each with a change, their merge, and the way back."""
    started(project)
    project.write(
        "left", change("left", "r1", 'RenameColumn("users", "name", "full_name")')
    )
    project.write(
        "right",
        change(
            "right",
            "r1",
            'CreateTable("audit", "id serial PRIMARY KEY")',
            branch_labels='"side"',
        ),
    )
    (project.folder / "models.py").write_text(
        MODELS.format(name="full_name") + "\n\nclass Audit(Base):\n"
        '    __tablename__ = "audit"\n'
        "    id: Mapped[int] = mapped_column(primary_key=True)\n"
    )
    project.run("upgrade", "heads")
    project.run("check")
    project.migrator("backfill", "left")
    project.run("merge", "heads", "--rev-id", "both", "-m", "both")
    project.run("upgrade", "head")
    project.run("check")
    project.migrator("contract", "left", "--old-release-gone", "test")
    project.run("check")
    assert "both (head)" in project.run("current").stdout
    project.run("downgrade", "r1")
    assert project.columns() == ["id", "name"]


def test_branches_that_meet(project: Quick) -> None:
    """Two branches on one column are refused, and so is what depends on neither."""
    started(project)
    project.write(
        "left", change("left", "r1", 'RenameColumn("users", "name", "full_name")')
    )
    project.write(
        "right", change("right", "r1", 'RenameColumn("users", "name", "title")')
    )
    done = project.run("upgrade", "heads", code=255)
    assert "touches what" in done.stdout + done.stderr
    assert project.run("current").stdout.count("(head)") == 1


def test_depends_on(project: Quick) -> None:
    """A branch of its own that depends on a change finds it expanded."""
    started(project)
    project.write("r2", SECOND)
    project.write(
        "other",
        change(
            "other",
            None,
            'CreateIndex("users", ["full_name"], "by_name")',
            depends_on='"r2"',
            branch_labels='"apart"',
        ),
    )
    done = project.run("upgrade", "apart@head", code=255)
    assert "touches what r2" in done.stdout + done.stderr
    for words in CARRY.values():
        project.migrator(*words)
    project.run("upgrade", "apart@head")
    assert "other (head)" in project.run("current").stdout


def test_offline(project: Quick) -> None:
    """`--sql` prints what is plain and refuses a change, whatever its phase."""
    started(project)
    project.write("r2", SECOND)
    project.write("r3", PLAIN.format(revision="r3", down="r2", table="extra"))
    project.run("upgrade", "r2")
    for words in CARRY.values():
        told = project.run("upgrade", "r2:r3", "--sql").stdout
        assert "CREATE TABLE extra" in told
        assert "migrator" not in told
        for way in (("upgrade", "r1:r3"), ("downgrade", "r2:r1")):
            done = project.run(*way, "--sql", code=255)
            assert "--sql has none" in done.stdout + done.stderr
            assert "ALTER TABLE" not in done.stdout
        assert "UPDATE alembic_version" in project.run("stamp", "r2:r3", "--sql").stdout
        project.migrator(*words)


PLUGINS = """
from alembic_postgresql_enum import Config, set_configuration
from alembic_utils.pg_function import PGFunction
from alembic_utils.pg_trigger import PGTrigger
from alembic_utils.pg_view import PGView
from alembic_utils.replaceable_entity import register_entities

register_entities(
    [
        PGView("public", "two", "SELECT 2 AS id"),
        PGFunction(
            "public", "one()", "RETURNS integer LANGUAGE sql AS $$ SELECT 1 $$"
        ),
    ],
    entity_types=[PGFunction, PGTrigger, PGView],
)
"""
FIRST_WITH_PLUGINS = """
from alembic import op

revision, down_revision = "r1", None


def upgrade():
    op.execute("CREATE TYPE kind AS ENUM ('a', 'b')")
    op.execute(
        "CREATE TABLE users (id serial PRIMARY KEY, name varchar NOT NULL,"
        " kind kind NOT NULL DEFAULT 'a')"
    )
    op.execute("CREATE VIEW two AS SELECT 2 AS id")
    op.execute(
        "CREATE FUNCTION one() RETURNS integer LANGUAGE sql AS $$ SELECT 1 $$"
    )
"""


# A value that leaves the model stays in the type, where its plugin sees it.
LEFT_OUT = 'set_configuration(Config(include_name=lambda name: name != "kind"))'


@pytest.mark.parametrize(
    ("call", "name", "kinds", "more"),
    [
        ('RenameColumn("users", "name", "full_name")', "full_name", "a b", ""),
        ('AddEnumValue("users", "kind", "c")', "name", "a b c", ""),
        ('RenameEnumValue("users", "kind", "b", "c")', "name", "a c", LEFT_OUT),
    ],
)
def test_plugins(project: Quick, call: str, name: str, kinds: str, more: str) -> None:
    """Beside alembic-utils and alembic-postgresql-enum nothing is proposed."""
    set_env(project, top=PLUGINS + more)
    (project.folder / "models.py").write_text(
        "from enum import Enum\n"
        + MODELS.format(name=name)
        + f'    kind: Mapped[Enum("kind", "{kinds}")] ='
        ' mapped_column(server_default="a")\n'
    )
    project.write("r1", FIRST_WITH_PLUGINS)
    started(project)
    project.write("r2", change("r2", "r1", call))
    for _ in phases(project):
        project.run("check")
    # Each plugin is at work: it finds what the model has not.
    with psycopg.connect(project.url) as conn:
        conn.execute("CREATE VIEW other AS SELECT id FROM users")
        conn.execute("CREATE TYPE state AS ENUM ('new')")
    found = project.run("check", code=255)
    assert "drop_entity" in found.stdout + found.stderr
    assert "drop_enum" in found.stdout + found.stderr


@pytest.mark.parametrize(
    ("call", "old", "new"),
    [
        ('RenameTable("users", "accounts")', '"users"', '"accounts"'),
        (
            'ReplaceView("two", "SELECT 2 AS id, 3 AS more")',
            "2 AS id",
            "2 AS id, 3 AS more",
        ),
        (
            'ReplaceFunction("one()", "CREATE OR REPLACE FUNCTION one() RETURNS integer'
            ' LANGUAGE sql AS $$ SELECT 2 $$")',
            "SELECT 1",
            "SELECT 2",
        ),
    ],
)
def test_entities_in_flight(project: Quick, call: str, old: str, new: str) -> None:
    """What alembic-utils knows by its new definition is not proposed meanwhile."""
    models = MODELS.format(name="name") + '    kind: Mapped[Enum("kind", "a b")]\n'
    models = "from enum import Enum\n" + models
    project.write("r1", FIRST_WITH_PLUGINS)
    set_env(project, top=PLUGINS.replace(old, new))
    (project.folder / "models.py").write_text(models.replace(old, new))
    started(project)
    project.write("r2", change("r2", "r1", call))
    for _ in phases(project):
        project.run("check")


@pytest.mark.parametrize(("text", "driver"), [(ENV, "psycopg"), (ENV_ASYNC, "asyncpg")])
def test_plugins_write_beside_a_change(project: Quick, text: str, driver: str) -> None:
    """A view and a value of theirs and a pattern in one go, versions elsewhere."""
    with psycopg.connect(project.url) as conn:
        conn.execute("CREATE SCHEMA app")
    more = 'version_table_schema="app"'
    set_env(project, text, driver, top=PLUGINS, more=more)
    models = "from enum import Enum\n" + MODELS.format(name="full_name")
    kind = '    kind: Mapped[Enum("kind", "{}")] = mapped_column(server_default="a")\n'
    (project.folder / "models.py").write_text(models + kind.format("a b"))
    project.write("r1", FIRST_WITH_PLUGINS)
    started(project)
    project.write("r2", SECOND)
    project.run("upgrade", "head")
    view = '        PGView("public", "three", "SELECT 3 AS id"),\n'
    top = PLUGINS.replace("    [\n", f"    [\n{view}", 1)
    top = top.replace("SELECT 2 AS id", "SELECT 2 AS id, 'a:b' AS more")
    top = top.replace("SELECT 1", "SELECT 2")
    set_env(project, text, driver, top=top, more=more)
    (project.folder / "models.py").write_text(
        models
        + kind.format("a b c")
        + "    mail: Mapped[str | None] = mapped_column(index=True)\n"
    )
    project.run("revision", "--autogenerate", "--rev-id", "last", "-m", "x")
    versions = project.folder / "migrations" / "versions"
    written = "".join(p.read_text() for p in versions.glob("*_x*.py"))
    for found in (
        "op.create_entity(public_three)",
        "op.add_column('users', sa.Column('mail', sa.String(), nullable=True))",
        'change = AddEnumValue("users", "kind", "c")',
        'change = CreateIndex("users", ["mail"], "ix_users_mail")',
        """change = ReplaceView("two", "SELECT 2 AS id, 'a:b' AS more", schema=""",
        'change = ReplaceFunction(\n    "one()",\n',
    ):
        assert written.count(found) == 1, found
    assert "full_name" not in written
    project.run("upgrade", "head")
    project.run("check")
    for words in (CARRY["verified"], CARRY["retired"]):
        project.migrator(words[0], "r2", *words[1:])
        project.run("check")
    with psycopg.connect(project.url) as conn:
        assert conn.execute("SELECT version_num FROM app.alembic_version").fetchall()
        assert conn.execute("SELECT id FROM three").fetchone() == (3,)
        assert conn.execute("SELECT id, more, one() FROM two").fetchone() == (
            2,
            "a:b",
            2,
        )


#: Patterns by the name of their tables: what a table has beside its key `id`, the
#: arguments of the pattern behind the table, and what the model has in the end.
COLUMNS = {
    "AddCheck": (
        "n int",
        '"positive", "n > 0"',
        'n: Mapped[int | None]; __table_args__ = (CheckConstraint("n>0", "positive"),)',
    ),
    "AddColumn": ("", '"n", "int"', "n: Mapped[int | None]"),
    "AddForeignKey": (
        "n int",
        '["n"], "AddColumn", ["id"], "fk", index="ix_AddForeignKey_n"',
        'n: Mapped[int | None] = mapped_column(ForeignKey("AddColumn.id"), index=True)',
    ),
    "AddUnique": (
        "n int",
        '["n"], "uq"',
        'n: Mapped[int | None]; __table_args__ = (UniqueConstraint("n", name="uq"),)',
    ),
    "ChangeColumnType": (
        "n int NOT NULL, m int",
        '"n", "bigint", to="o", assured="tested"',
        "m: Mapped[int | None]; o: Mapped[int] = mapped_column(BigInteger)",
    ),
    "ChangePrimaryKey": (
        "n int",
        '"id", assured="tested"',
        "n: Mapped[int | None]",
    ),
    "CreateIndex": (
        "n int",
        '["n"], "ix_CreateIndex_n", unique=True',
        "n: Mapped[int | None] = mapped_column(index=True, unique=True)",
    ),
    "DropConstraint": (
        "n int CONSTRAINT dropped UNIQUE",
        '"dropped", assured="tested"',
        "n: Mapped[int | None]",
    ),
    "DropDefault": ("n int DEFAULT 1", '"n"', "n: Mapped[int | None]"),
    "DropNotNull": ("n int NOT NULL", '"n"', "n: Mapped[int | None]"),
    "EvolveJson": (
        "a json",
        '"a", "b", rename={"x": "y"}',
        "b: Mapped[object] = mapped_column(JSONB, nullable=True)",
    ),
    "MergeColumns": (
        "a text, b text",
        """["a", "b"], "c", "text", "a || '-' || b","""
        """ back={"a": "split_part(c, '-', 1)", "b": "split_part(c, '-', 2)"}""",
        "c: Mapped[str | None] = mapped_column(Text)",
    ),
    "RenameConstraint": (
        "n int CONSTRAINT one UNIQUE",
        '"one", "two", assured="tested"',
        'n: Mapped[int | None]; __table_args__ = (UniqueConstraint("n", name="two"),)',
    ),
    "ReplaceCheck": (
        "n int CONSTRAINT kept CHECK (n > 0)",
        '"kept", "n >= 0"',
        'n: Mapped[int | None]; __table_args__ = (CheckConstraint("n>=0", "kept"),)',
    ),
    "ReplaceIndex": (
        "n int, m int",
        '"replaced", ["n", "m"]',
        "n: Mapped[int | None]; m: Mapped[int | None];"
        ' __table_args__ = (Index("replaced", "n", "m"),)',
    ),
    "SetDefault": (
        "n int",
        '"n", "1"',
        'n: Mapped[int | None] = mapped_column(server_default="1")',
    ),
    "SetNotNull": ("n int", '"n", fill="0"', "n: Mapped[int]"),
    "TransformColumn": (
        "n int NOT NULL",
        '"n", "o", "int", up="n * 2", down="o / 2"',
        "o: Mapped[int]",
    ),
}


def filled(name: str) -> str:
    """Return what a row of a table is made by."""
    needs = "NOT NULL" in COLUMNS[name][0]
    return "(n) VALUES (1)" if needs else "DEFAULT VALUES"


def test_check_is_clean_with_every_pattern(project: Quick) -> None:
    """All in flight at once: nothing is proposed in any phase, nor after the drop."""
    set_env(project, more="compare_server_default=True")
    (project.folder / "models.py").write_text(
        "from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Text\n"
        "from sqlalchemy import UniqueConstraint\n"
        "from sqlalchemy.dialects.postgresql import JSONB\n"
        "from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column\n\n\n"
        "class Base(DeclarativeBase):\n    pass\n\n\n"
        + "\n\n".join(
            f'class {name}(Base):\n    __tablename__ = "{name}"\n'
            f"    id: Mapped[int] = mapped_column({key}primary_key=True)\n    {model}\n"
            for name, (_, _, model) in COLUMNS.items()
            for key in ["BigInteger, " if name == "ChangePrimaryKey" else ""]
        )
    )
    with psycopg.connect(project.url) as conn:
        for name, (columns, _, _) in COLUMNS.items():
            more = f", {columns}" if columns else ""
            conn.execute(
                f'CREATE TABLE "{name}" (id serial PRIMARY KEY{more})'.encode()
            )
            conn.execute(f'INSERT INTO "{name}" {filled(name)}'.encode())
        conn.execute('CREATE INDEX replaced ON "ReplaceIndex" (n)')
    project.run("stamp", "r1")
    before = "r1"
    for name, (_, arguments, _) in COLUMNS.items():
        call = f'{name}("{name}", {arguments})'
        project.write(name, change(name, before, call))
        before = name
    project.run("upgrade", "head")
    project.run("check")
    project.migrator("backfill")
    project.run("check")
    for name in COLUMNS:
        project.migrator("contract", name, "--old-release-gone", "test")
    project.run("check")
    for name in COLUMNS:
        project.migrator("--hold", "0s", "contract", name, "--drop", "--yes")
    project.run("check")


NEW_COLUMNS = {
    "token": (
        '"uuid", default="gen_random_uuid()", not_null=True',
        'token: Mapped[UUID] = mapped_column(server_default=text("gen_random_uuid()"))',
    ),
    "state": (
        '"text", default="\'new\'", not_null=True',
        "state: Mapped[str] = mapped_column(Text, server_default=\"'new'\")",
    ),
    "upper": (
        '"text", computed="upper(name)", not_null=True',
        "upper: Mapped[str] = mapped_column(Text)",
    ),
    "number": (
        '"int", identity="always"',
        "number: Mapped[int] = mapped_column(Identity(always=True))",
    ),
    "other": (
        '"bigserial"',
        # Alembic takes the default of a serial for a part of its type.
        "other: Mapped[int] = mapped_column(BigInteger)",
    ),
}


def test_check_is_clean_with_every_new_column(project: Quick) -> None:
    """Whatever gives it its values: nothing is proposed in any phase, nor after."""
    set_env(project, more="compare_server_default=True")
    (project.folder / "models.py").write_text(
        "from uuid import UUID\n"
        "from sqlalchemy import BigInteger, Identity, Text, text\n"
        "from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column\n\n\n"
        "class Base(DeclarativeBase):\n    pass\n\n\n"
        'class Users(Base):\n    __tablename__ = "users"\n'
        "    id: Mapped[int] = mapped_column(primary_key=True)\n"
        "    name: Mapped[str] = mapped_column(Text)\n"
        + "".join(f"    {model}\n" for _, model in NEW_COLUMNS.values())
    )
    with psycopg.connect(project.url) as conn:
        conn.execute("CREATE TABLE users (id serial PRIMARY KEY, name text NOT NULL)")
        conn.execute("INSERT INTO users (name) VALUES ('a')")
    project.run("stamp", "r1")
    before = "r1"
    for name, (arguments, _) in NEW_COLUMNS.items():
        call = f'AddColumn("users", "{name}", {arguments})'
        project.write(name, change(name, before, call))
        before = name
    project.run("upgrade", "head")
    project.run("check")
    project.migrator("backfill")
    project.run("check")
    waiting = [n for n in NEW_COLUMNS if n != "state"]
    for name in waiting:
        project.migrator("contract", name, "--old-release-gone", "test")
    project.run("check")
