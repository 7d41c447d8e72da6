"""A small Alembic project, release by release, as its pods see it."""

import json
import os
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psycopg

from migrator.cli import main

BIN = Path(sys.executable).parent

INI = """
[alembic]
script_location = migrations
"""

ENV = """
import os

from alembic import context
from sqlalchemy import create_engine, pool

from migrator import alembic as zd

engine = create_engine(os.environ["DATABASE_URL"], poolclass=pool.NullPool)
with engine.connect() as connection:
    context.configure(connection=connection, **zd.options())
    with context.begin_transaction():
        context.run_migrations()
"""

#: The revisions of four releases; each holds those of the one before.
PLAIN = """
from alembic import op
import sqlalchemy as sa

revision, down_revision = "r1", None


def upgrade():
    op.create_table(
        "users",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("mail", sa.String),
    )


def downgrade():
    op.drop_table("users")
"""

CHANGE = """
from migrator import alembic as zd
from migrator.patterns import {pattern}

revision, down_revision = "{revision}", "{down}"
change = {pattern}({parameters})


def upgrade():
    zd.upgrade(change)


def downgrade():
    zd.downgrade(change)
"""


def change(revision: str, down: str, pattern: str, parameters: str) -> str:
    """Return the text of a revision with a change."""
    return CHANGE.format(
        revision=revision, down=down, pattern=pattern, parameters=parameters
    )


NAME = change("r2", "r1", "RenameColumn", '"users", "name", "full_name"')
MAIL = change("r3", "r2", "RenameColumn", '"users", "mail", "address"')


@dataclass(frozen=True)
class Release:
    """One release: a folder with an Alembic project, on a database."""

    name: str
    folder: Path
    url: str
    #: Further variables of its environment.
    more: tuple[tuple[str, str], ...] = ()

    @classmethod
    def make(cls, name: str, top: Path, url: str, *revisions: str) -> "Release":
        """Write a release's project; revisions are the texts of their files."""
        made = cls(name, top / name, url)
        versions = made.folder / "migrations" / "versions"
        versions.mkdir(parents=True)
        (made.folder / "alembic.ini").write_text(INI)
        (made.folder / "migrations" / "env.py").write_text(ENV)
        for number, text in enumerate(revisions, 1):
            (versions / f"r{number}.py").write_text(text)
        return made

    @property
    def env(self) -> dict[str, str]:
        """The environment of its pods."""
        url = self.url.replace("postgresql:", "postgresql+psycopg:")
        return {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.folder),
            "DATABASE_URL": url,
            **dict(self.more),
        }

    def start(self, *words: str, program: str = "migrator") -> "subprocess.Popen[str]":
        """Start one of our commands, or another program."""
        return subprocess.Popen(
            [BIN / program, *words],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, code: int = 0) -> str:
        """
        Run one of our commands to its exit code; return what it prints.

        In this process, since most of a short command's time is its imports.
        """
        out, err, found = StringIO(), StringIO(), 0
        with (
            chdir(self.folder),
            patch.dict(os.environ, self.env, clear=True),
            patch.object(sys, "argv", ["migrator", *words]),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            try:
                main()
            except SystemExit as stop:
                found = int(stop.code or 0)
        assert found == code, out.getvalue() + err.getvalue()
        return out.getvalue()

    def alembic(self, *words: str) -> None:
        """Run one of Alembic's commands."""
        process = self.start(*words, program="alembic")
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, out + err

    def hook(self, *words: str, code: int = 0) -> dict[str, Any]:
        """Run a hook of this release; return its answer."""
        return answer(self.run(*self.words(*words), code=code), code)

    def words(self, *words: str) -> tuple[str, ...]:
        """Return the words of a hook's call."""
        return ("hook", *words, "--release", self.name, "--json")

    def fill(self, rows: int = 500) -> None:
        """Put rows into users, through the old names."""
        with psycopg.connect(self.url) as conn:
            conn.execute(
                "INSERT INTO users (name, mail) SELECT 'n' || g, 'm' || g"
                " FROM generate_series(1, %s) g",
                (rows,),
            )


def answer(out: str, code: int) -> dict[str, Any]:
    """Return a hook's answer: one line of JSON with the exit code in it."""
    assert out.count("\n") == 1, out
    found: dict[str, Any] = json.loads(out)
    assert (found["schema"], found["exit_code"]) == (1, code)
    assert found["ok"] is (code == 0)
    return found
