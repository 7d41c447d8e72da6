"""An environment of several databases, as Alembic's template `multidb` has it."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from quick import Quick
from test_alembic import MODELS

from migrator.postgres.embedded import Server

#: Revisions as the template has them: a function for each database.
HEAD = """
from alembic import op
import sqlalchemy as sa
from migrator import alembic as zd
from migrator.patterns import RenameColumn

revision, down_revision = "{revision}", {down!r}


def upgrade(engine_name):
    globals()["upgrade_%s" % engine_name]()


def downgrade(engine_name):
    globals()["downgrade_%s" % engine_name]()


def downgrade_one():
    pass


def downgrade_two():
    pass

"""
FIRST = (
    HEAD.format(revision="r1", down=None)
    + """
def upgrade_one():
    op.execute("CREATE TABLE users (id serial PRIMARY KEY, name varchar NOT NULL)")


def upgrade_two():
    op.execute("CREATE TABLE other (id serial PRIMARY KEY, name varchar)")
"""
)
PLAIN = (
    HEAD.format(revision="r2", down="r1")
    + """
def upgrade_one():
    op.add_column("users", sa.Column("mail", sa.Text))


def upgrade_two():
    op.alter_column("other", "name", new_column_name="title")
"""
)
CHANGE = (
    HEAD.format(revision="r3", down="r2")
    + """
change = RenameColumn("users", "name", "full_name")


def upgrade_one():
    zd.upgrade(change)


def upgrade_two():
    op.execute("DROP TABLE other")
"""
)


@pytest.fixture
def project(database: str, server: Server, tmp_path: Path) -> Iterator[Quick]:
    """Give a project with two databases, whose env.py `migrator init` has changed."""
    second = f"{database.rpartition('/')[2]}_2"
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {second}".encode())
        made = Quick(tmp_path, database)
        made.run("init", "--template", "multidb", "migrations")
        ini = tmp_path / "alembic.ini"
        text = ini.read_text().replace("engine1", "one").replace("engine2", "two")
        for name, url in (("dbname2", server.url(second)), ("dbname", database)):
            url = url.replace("postgresql:", "postgresql+psycopg:")
            text = text.replace(f"driver://user:pass@localhost/{name}", url)
        ini.write_text(text)
        (tmp_path / "models.py").write_text(MODELS.format(name="name"))
        made.migrator("init")
        made.write("r1", FIRST)
        yield made
        admin.execute(f"DROP DATABASE {second} WITH (FORCE)".encode())


def said(project: Quick, *words: str, module: str = "alembic", code: int = 255) -> str:
    """Return all that a command says that fails."""
    done = project.run(*words, module=module, code=code)
    return done.stdout + done.stderr


def there(project: Quick, number: int) -> set[str]:
    """Return the tables of a database, and its revision."""
    url = project.url + ("_2" if number == 2 else "")
    with psycopg.connect(url) as conn:
        names = conn.execute(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'i')"
            " AND relnamespace = 'public'::regnamespace UNION ALL"
            " SELECT version_num FROM alembic_version"
        ).fetchall()
    return {name for (name,) in names}


def test_plain_revisions_run_and_are_guarded(project: Quick) -> None:
    """Each database gets its own, and a hazard in the second one takes back both."""
    project.run("upgrade", "head")
    project.write("r2", PLAIN)
    assert "r1" in project.run("current").stdout
    with psycopg.connect(project.url + "_2") as conn:
        conn.execute("INSERT INTO other SELECT generate_series(1, 20000)")
    with psycopg.connect(project.url + "_2", autocommit=True) as conn:
        conn.execute("ANALYZE other")
    assert "RENAME COLUMN other.name" in said(project, "upgrade", "head")
    assert "r1" in there(project, 1) & there(project, 2)
    empty = PLAIN.replace(
        'op.alter_column("other", "name", new_column_name="title")', "pass"
    )
    project.write("r2", empty)
    project.run("upgrade", "head")
    assert "r2" in there(project, 1) & there(project, 2)
    project.run("downgrade", "-1")
    assert "r1" in there(project, 1) & there(project, 2)


def test_a_change_is_refused_before_anything_ran(project: Quick) -> None:
    """Neither database is changed, not by the plain revision before it either."""
    project.run("upgrade", "head")
    before = there(project, 1), there(project, 2)
    project.write("r2", PLAIN)
    project.write("r3", CHANGE)
    told = said(project, "upgrade", "head")
    assert "Revision r3 is of several databases" in told
    assert "Nothing was changed." in told
    assert "an environment of its own" in told
    assert (there(project, 1), there(project, 2)) == before
    project.run("upgrade", "r2")


def test_commands_say_that_they_are_about_one(project: Quick) -> None:
    """None takes the first database for all; lint needs none, and follows both."""
    project.run("upgrade", "head")
    for words in ("status", "expand", "hook gate", "lint"):
        told = said(project, *words.split(), module="migrator", code=2)
        assert "env.py goes to several databases" in told
    project.write("r2", PLAIN)
    told = project.migrator("lint", "--offline", "r2", code=1).stdout
    assert "ZD113" in told
    assert "ZD901" not in told
    one = PLAIN.replace('op.add_column("users", sa.Column("mail", sa.Text))', "pass")
    project.write("r2", one)
    fixed = project.migrator("lint", "--offline", "--fix", "r2", code=1)
    assert "is told in which database it runs" in fixed.stderr


def test_autogenerate_is_alembics_own(project: Quick) -> None:
    """It writes what Alembic writes, in one revision, and says so once."""
    project.run("upgrade", "head")
    env = project.folder / "migrations" / "env.py"
    env.write_text(
        env.read_text().replace(
            "target_metadata = {}",
            "import models\n"
            "import sqlalchemy as sa\n"
            "target_metadata = {\n"
            '    "one": models.Base.metadata, "two": sa.MetaData()\n'
            "}\n"
            'sa.Table("other", target_metadata["two"],\n'
            '    sa.Column("id", sa.Integer, primary_key=True),\n'
            '    sa.Column("name", sa.String, index=True))\n',
        )
    )
    done = project.run("revision", "--autogenerate", "--rev-id", "r2", "-m", "x")
    assert done.stderr.count("Several databases in one revision") == 1
    (file,) = (project.folder / "migrations" / "versions").glob("r2_*.py")
    text = file.read_text()
    assert "op.create_index(op.f('ix_other_name'), 'other', ['name']" in text
    assert "zd." not in text
    project.run("upgrade", "head")
    project.run("check")


def test_a_database_of_another_kind_is_left_to_alembic(project: Quick) -> None:
    """Its revisions run as they are, and commands are about the other one."""
    ini = project.folder / "alembic.ini"
    text = ini.read_text()
    start = text.index("sqlalchemy.url", text.index("\n[two]"))
    end = text.index("\n", start)
    ini.write_text(f"{text[:start]}sqlalchemy.url = sqlite:///two.db{text[end:]}")
    project.run("upgrade", "head")
    with sqlite3.connect(project.folder / "two.db") as conn:
        assert conn.execute("SELECT * FROM alembic_version").fetchall() == [("r1",)]
        conn.execute("INSERT INTO other VALUES (1, 'x')")
    assert "No change has begun" in project.migrator("status").stdout
    project.write("r2", PLAIN)
    project.run("upgrade", "head")
    with sqlite3.connect(project.folder / "two.db") as conn:
        assert conn.execute("SELECT title FROM other").fetchall() == [("x",)]
    project.run("downgrade", "base")


def test_one_of_several_databases_gets_an_environment(project: Quick) -> None:
    """As docs/deployment.md says: behind what it shared, it has changes of its own."""
    project.run("upgrade", "head")
    with psycopg.connect(project.url) as conn:
        conn.execute("INSERT INTO users (name) VALUES ('x')")
    project.run("init", "one")
    ini = project.folder / "alembic.ini"
    url = project.url.replace("postgresql:", "postgresql+psycopg:")
    # The template's section of that database becomes the environment's.
    text = ini.read_text()
    start = text.index("sqlalchemy.url", text.index("\n[one]"))
    own = f"script_location = one\nsqlalchemy.url = {url}"
    ini.write_text(f"{text[:start]}{own}{text[text.index(chr(10), start) :]}")
    project.migrator("-n", "one", "init")
    project.run("-n", "one", "revision", "--rev-id", "r1", "-m", "what multidb did")
    done = project.migrator("-n", "one", "revision", "--rename", "users.name:full_name")
    assert done.stdout.startswith("one/versions/")
    project.migrator("-n", "one", "expand")
    project.migrator("-n", "one", "backfill")
    assert "verified" in project.migrator("-n", "one", "status").stdout
    assert project.columns() == ["id", "name", "full_name"]
    assert "r1" in there(project, 2)
