"""What is told of errors that are not ours."""

import asyncio
from pathlib import Path

import pytest
from projects import PLAIN, Release
from sqlalchemy import create_engine, exc, text
from sqlalchemy.ext.asyncio import create_async_engine

from migrator.alembic.telling import words

SETUP = "CREATE TABLE t (id int CONSTRAINT key PRIMARY KEY, secret text)"
TWICE = "INSERT INTO t VALUES (4711, 'hidden'), (4711, 'hidden')"
#: What fails, and what is told of it.
CASES = (
    (
        TWICE,
        "UniqueViolation (23505): duplicate key value violates unique constraint"
        ' "key" (table t)',
    ),
    (
        "INSERT INTO t VALUES ('hidden4711')",
        'InvalidTextRepresentation (22P02): invalid input syntax for type integer: "…"',
    ),
    (
        "INSERT INTO t VALUES ('a\nhidden\" 4711')",
        'InvalidTextRepresentation (22P02): invalid input syntax for type integer: "…"',
    ),
    ("SELECT 1 'hidden'", 'SyntaxError (42601): syntax error at or near "…"'),
    ("DO 'BEGIN RAISE ''hidden 4711''; END'", "RaiseException (P0001)"),
)


def test_a_servers_error_is_told_without_values(shared_database: str) -> None:
    """Its code, message and names, by either driver; of values of rows nothing."""
    url = shared_database.replace("postgresql:", "postgresql+psycopg:")
    engine = create_engine(url)
    with engine.begin() as conn:
        conn.execute(text(SETUP))
    for statement, told in CASES:
        with engine.connect() as conn, pytest.raises(exc.DBAPIError) as caught:
            conn.execute(text(statement))
        assert words(caught.value) == told
    engine.dispose()

    async def twice() -> None:
        other = create_async_engine(url.replace("psycopg", "asyncpg"))
        try:
            async with other.connect() as conn:
                await conn.execute(text(TWICE))
        finally:
            await other.dispose()

    with pytest.raises(exc.DBAPIError) as caught:
        asyncio.run(twice())
    assert words(caught.value) == CASES[0][1].replace(" (23", "Error (23")


def test_errors_of_code_are_told_by_their_names(
    shared_database: str, tmp_path: Path
) -> None:
    """A module, a name, a line that Python cannot read; other words stay away."""
    with pytest.raises(ImportError) as caught:
        exec("from os import nothing_such")
    assert words(caught.value).startswith(
        "ImportError: cannot import name 'nothing_such' from 'os'"
    )
    with pytest.raises(NameError) as unknown:
        exec("nothing_such")
    assert words(unknown.value) == "NameError: name 'nothing_such' is not defined"
    assert words(RuntimeError("postgresql://u:hidden@h/d")) == "RuntimeError"
    made = Release.make("v1", tmp_path, shared_database, PLAIN)
    env = made.folder / "migrations" / "env.py"
    env.write_text(env.read_text().replace("import os", "import os, broken_models", 1))
    (made.folder / "broken_models.py").write_text("x = 1\ny = = 2\n")
    (made.folder / "alembic.ini").write_text(
        "[alembic]\nscript_location = migrations\nprepend_sys_path = .\n"
        "path_separator = os\n"
    )
    what = made.hook("gate", code=2)["error"]["what"]
    assert "broken_models.py, line 2: SyntaxError: invalid syntax" in what
