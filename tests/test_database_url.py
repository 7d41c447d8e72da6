"""The database that commands go to, and what can be wrong with its URL."""

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from quick import Quick
from test_alembic import FIRST, SECOND
from test_alembic import project as plain_project

from migrator.alembic.url import for_sqlalchemy
from migrator.errors import Refused
from migrator.postgres.connection import Target, connect, reach
from migrator.postgres.embedded import Server

__all__ = ["plain_project"]


@pytest.fixture
def project(plain_project: Quick) -> Quick:
    """Give a project whose commands start at once."""
    return Quick(plain_project.folder, plain_project.url)


def configure(project: Quick, line: str) -> None:
    """Write the line of alembic.ini that has the URL."""
    ini = project.folder / "alembic.ini"
    lines = [
        line if old.startswith("sqlalchemy.url") else old
        for old in ini.read_text().splitlines()
    ]
    ini.write_text("\n".join(lines))


def engine(project: Quick, made_by: str) -> None:
    """Let env.py make its engine by other code."""
    env = project.folder / "migrations" / "env.py"
    text = env.read_text()
    start = text.index("connectable = engine_from_config(")
    end = text.index("    with connectable.connect()")
    env.write_text(f"import os\n{text[:start]}connectable = {made_by}\n\n{text[end:]}")


PLACEHOLDER = "sqlalchemy.url = driver://user:secret@localhost/dbname"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "No database is given: there is no sqlalchemy.url in alembic.ini."),
        ("sqlalchemy.url =", "No database is given: sqlalchemy.url in alembic.ini is"),
        (PLACEHOLDER, "in alembic.ini is still what `alembic init` wrote."),
        (
            "sqlalchemy.url = postgres://u:secret@h/d",
            'SQLAlchemy knows no dialect "postgres".',
        ),
        (
            "sqlalchemy.url = postgresql+pg8000://u:secret@h/d",
            "its driver, pg8000, is not installed.",
        ),
        ("sqlalchemy.url = u:secret@h/d", "SQLAlchemy cannot read it."),
        (
            "sqlalchemy.url = postgresql+psycopg://u:sec%40ret@h/d",
            'the value of "sqlalchemy.url" in [alembic] has a %',
        ),
        ("sqlalchemy.url = sqlite:///x.db", "env.py connects to sqlite; migrator"),
    ],
)
def test_a_url_that_leads_nowhere(line: str, said: str, project: Quick) -> None:
    """It is told what is wrong with it and what to do, and no password."""
    configure(project, line)
    told = project.migrator("status", code=2)
    assert said in told.stderr
    assert "Next: " in told.stderr
    for secret in ("secret", "sec%", "40ret", "Traceback"):
        assert secret not in told.stderr + told.stdout


@pytest.mark.parametrize(
    "words",
    [
        "plan",
        "lint",
        "expand",
        "backfill",
        "hook pre-deploy",
        "reconcile",
        "revision --autogenerate -m x",
    ],
)
def test_every_command_tells_it(words: str, project: Quick) -> None:
    """None of them ends by a traceback."""
    configure(project, PLACEHOLDER)
    told = project.migrator(*words.split(), code=2)
    assert "No database is given" in told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize(
    ("made_by", "said"),
    [
        (
            'sa.create_engine(os.environ["APP_URL"])',
            "env.py reads APP_URL from the environment, where it is not set.",
        ),
        (
            'sa.create_engine(os.environ.get("APP_URL"))',
            "No database is given: env.py passes None in place of a URL.",
        ),
        (
            'create_async_engine("postgresql+psycopg2://u:secret@h/d")',
            "The asyncio extension requires an async driver",
        ),
        (
            "__import__('app_settings').engine",
            "No module named 'app_settings'.",
        ),
    ],
)
def test_a_url_that_env_py_finds_elsewhere(
    made_by: str, said: str, project: Quick
) -> None:
    """What it reads, and what it may be, is told as well."""
    imports = (
        "import sqlalchemy as sa\n"
        "from sqlalchemy.ext.asyncio import create_async_engine\n"
    )
    engine(project, made_by)
    env = project.folder / "migrations" / "env.py"
    env.write_text(imports + env.read_text())
    told = project.migrator("status", code=2)
    assert said in told.stderr
    assert "secret" not in told.stderr


ASYNC = """
import asyncio
from alembic import context
from sqlalchemy.ext.asyncio import create_async_engine
from migrator import alembic as zd

def configured(connection):
    context.configure(connection=connection, **zd.options())
    with context.begin_transaction():
        context.run_migrations()

async def main():
    made = create_async_engine("postgresql+asyncpg://u:secret@127.0.0.1:1/d")
    async with made.connect() as connection:
        await connection.run_sync(configured)

asyncio.run(main())
"""


def test_asyncpg_that_reaches_no_server(project: Quick) -> None:
    """Its own kinds of errors are told like those of other drivers."""
    (project.folder / "migrations" / "env.py").write_text(ASYNC)
    told = project.migrator("status", code=1)
    assert "No connection to the database of env.py" in told.stderr
    assert "secret" not in told.stderr


def test_the_url_given_stands_in_for_the_one_of_alembic_ini(project: Quick) -> None:
    """With it the placeholder may stay, and revisions go to its database."""
    project.run("upgrade", "head")
    project.fill()
    configure(project, PLACEHOLDER)
    project.write("r2", SECOND)
    url = ("--database-url", project.url)
    assert "RENAME COLUMN" in project.migrator(*url, "plan").stdout
    project.migrator(*url, "expand")
    assert "r2" in project.migrator(*url, "status").stdout


@pytest.mark.parametrize(
    ("url", "own", "wanted"),
    [
        ("postgres://h/d", None, "postgresql+psycopg://h/d"),
        ("postgresql://h/d", "driver://h/d", "postgresql+psycopg://h/d"),
        ("postgresql://h/d", "postgresql+asyncpg://x/y", "postgresql+asyncpg://h/d"),
        ("postgresql://h/d", "postgresql://x/y", "postgresql://h/d"),
        ("postgres+psycopg2://h/d", None, "postgresql+psycopg2://h/d"),
        ("mysql://h/d", "postgresql://x/y", "mysql://h/d"),
    ],
)
def test_a_url_of_libpq_gets_a_driver(url: str, own: str | None, wanted: str) -> None:
    """That of env.py's own URL, or the one that is installed."""
    assert for_sqlalchemy(url, own) == wanted


def test_an_env_py_that_goes_elsewhere_is_refused(
    project: Quick, server: Server
) -> None:
    """Another address of the same database is none."""
    other = server.url().replace("127.0.0.1", "localhost")
    told = project.migrator("--database-url", other, "status", code=0)
    own = project.url.replace("postgresql:", "postgresql+psycopg:")
    engine(project, f"__import__('sqlalchemy').create_engine({own!r})")
    told = project.migrator("--database-url", other, "status", code=2)
    assert "revisions would run on one, and all else on the other" in told.stderr
    same = project.url.replace("127.0.0.1", "localhost")
    project.migrator("--database-url", same, "status")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("other", "MIGRATOR_DATABASE_URL, to postgres on 127.0.0.1:"),
        ("same", ""),
        ("postgresql://u:secret@127.0.0.1:1/d", "which cannot be reached, counts"),
        ("mysql://u:secret@h/d", "which cannot be read, counts for migrator alone"),
    ],
)
def test_alembic_says_that_it_goes_by_env_py(
    given: str, said: str, project: Quick, server: Server
) -> None:
    """Where the variable leads elsewhere, and only there."""
    url = {"other": server.url(), "same": project.url.replace("127.0.0.1", "localhost")}
    done = subprocess.run(
        [Path(sys.executable).parent / "alembic", "upgrade", "head"],
        cwd=project.folder,
        env={**os.environ, "MIGRATOR_DATABASE_URL": url.get(given, given)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert said in done.stderr
    assert ("alembic goes by env.py, to test_" in done.stderr) is bool(said)
    assert "secret" not in done.stderr


@pytest.mark.parametrize("words", [(), ("-c", "pyproject.toml")])
def test_a_project_that_is_configured_by_pyproject(
    words: tuple[str, ...], database: str, tmp_path: Path
) -> None:
    """Alembic's template of that name works like the generic one."""
    made = Quick(tmp_path, database)
    made.run("init", "--template", "pyproject", "migrations")
    configure(
        made,
        "sqlalchemy.url = " + database.replace("postgresql:", "postgresql+psycopg:"),
    )
    made.migrator(*words, "init")
    made.write("r1", FIRST)
    made.write("r2", SECOND)
    made.run("upgrade", "r1")
    made.fill()
    made.migrator(*words, "expand")
    assert "r2" in made.migrator(*words, "status").stdout


def test_a_configuration_that_cannot_be_read(project: Quick) -> None:
    """No section, no script_location, no ini file: each is told in a sentence."""
    ini = project.folder / "alembic.ini"
    told = project.migrator("-n", "billing", "status", code=2)
    assert "There is no section [billing] in alembic.ini." in told.stderr
    text = ini.read_text()
    ini.write_text(text.replace("script_location", "# script_location"))
    for words in ("status", "init", "lint --offline", "revision --rename a.b:c"):
        told = project.migrator(*words.split(), code=2)
        assert "Alembic: No 'script_location' key found" in told.stderr
    ini.write_text(f"password = secret\n{text}")
    told = project.migrator("status", code=2)
    assert "alembic.ini cannot be read: MissingSectionHeaderError." in told.stderr
    assert "secret" not in told.stderr


def test_a_server_that_takes_no_session_just_now(server: Server) -> None:
    """It is to be waited for, or room is to be made: its URL is right."""
    url = server.url()
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("CREATE ROLE crowded LOGIN CONNECTION LIMIT 0")
        with pytest.raises(Refused, match="too many connections for role") as caught:
            connect(Target.from_url(url.replace("postgres@", "crowded@")), "test")
        admin.execute("DROP ROLE crowded")
    assert caught.value.next.startswith("the server is full: end sessions")
    for words in (
        "the database system is starting up",
        "the database system is not yet accepting connections",
        "the database system is in recovery mode",
    ):
        assert reach(f"FATAL:  {words}").startswith("the server is starting: wait")
    assert reach("FATAL:  the database system is shutting down").startswith(
        "the server is going down: wait"
    )
    assert reach("Connection refused").startswith("check the URL")
