"""Commands of a project in processes that are forked from one that is warm."""

import multiprocessing
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg

# Each command is a process of its own, but imports nothing that is imported already:
# most of a short command's time.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        *("__main__", "quick", "sqlalchemy.orm", "sqlalchemy.dialects.postgresql"),
        *("alembic.config", "migrator.alembic.autogenerate"),
        *("migrator.alembic.guarded", "migrator.cli.main"),
    ]
)
# Seconds after which a command hangs.
LONGEST_S = 120


def command(
    module: str,
    words: tuple[str, ...],
    folder: str,
    output: str,
    environ: dict[str, str],
) -> None:
    """Run a command; called in the forked process."""
    os.chdir(folder)
    # Those of the test, not of when the forkserver began.
    os.environ.clear()
    os.environ.update(environ)
    # What "." on the path was by then is another folder.
    sys.path_importer_cache.clear()
    for number, name in ((1, "stdout"), (2, "stderr")):
        with (Path(output) / name).open("w") as file:
            os.dup2(file.fileno(), number)
    sys.argv = [module, *words]
    if module == "alembic":
        from alembic.config import main
    else:
        from migrator.cli import main
    main()


def run(
    folder: Path,
    *words: str,
    module: str = "alembic",
    environ: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """
    Run a command of Alembic's, or of ours.

    Args:
        folder: where.
        words: its arguments.
        module: `alembic` or `migrator`.
        environ: put over this process's variables.
    """
    output = folder / ".output"
    output.mkdir(exist_ok=True)
    process = FORKS.Process(
        target=command,
        args=(
            *(module, words, str(folder), str(output)),
            {**os.environ, **(environ or {})},
        ),
    )
    process.start()
    process.join(LONGEST_S)
    if process.exitcode is None:
        process.kill()
        process.join()
    assert process.exitcode is not None
    return subprocess.CompletedProcess(
        [module, *words],
        process.exitcode,
        *((output / name).read_text() for name in ("stdout", "stderr")),
    )


@dataclass(frozen=True)
class Quick:
    """An Alembic project in a folder, and the commands run in it."""

    folder: Path
    url: str

    def run(
        self, *words: str, code: int | None = 0, module: str = "alembic"
    ) -> subprocess.CompletedProcess[str]:
        """Run a command; `code` is the exit code it must give."""
        done = run(self.folder, *words, module=module)
        if code is not None:
            assert done.returncode == code, done.stdout + done.stderr
        return done

    def migrator(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run one of our commands."""
        return self.run(*words, code=code, module="migrator")

    def columns(self) -> list[str]:
        """Return the columns of users, in order."""
        with psycopg.connect(self.url) as conn:
            rows = conn.execute(
                "SELECT attname FROM pg_attribute WHERE attnum > 0 AND NOT"
                " attisdropped AND attrelid = 'users'::regclass ORDER BY attnum"
            )
            return [row[0] for row in rows]

    def fill(self, rows: int = 500) -> None:
        """Put rows into users."""
        with psycopg.connect(self.url) as conn:
            conn.execute(
                "INSERT INTO users (name) SELECT 'n' || g"
                " FROM generate_series(1, %s) g",
                (rows,),
            )

    def write(self, name: str, text: str) -> None:
        """Write a revision."""
        path = self.folder / "migrations" / "versions" / f"{name}.py"
        path.write_text(textwrap.dedent(text))
