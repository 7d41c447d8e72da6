"""Commands of a project in processes that are forked from one that is warm."""

import multiprocessing
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from test_alembic import Project

# Each command is a process of its own, but imports nothing that is imported already.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["__main__", "quick", "alembic.config", "migrator.cli.main", "sqlalchemy.orm"]
)


def command(module: str, words: tuple[str, ...], folder: str, output: str) -> None:
    """Run a command; called in the forked process."""
    os.chdir(folder)
    # What "." on the path was when the forkserver began is another folder.
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


@dataclass(frozen=True)
class Quick(Project):
    """A project whose commands start at once."""

    def run(
        self, *words: str, code: int | None = 0, module: str = "alembic"
    ) -> subprocess.CompletedProcess[str]:
        """Run a command; `code` is the exit code it must give."""
        output = self.folder / ".output"
        output.mkdir(exist_ok=True)
        process = FORKS.Process(
            target=command, args=(module, words, str(self.folder), str(output))
        )
        process.start()
        process.join()
        assert process.exitcode is not None
        done = subprocess.CompletedProcess(
            [module, *words],
            process.exitcode,
            *((output / name).read_text() for name in ("stdout", "stderr")),
        )
        if code is not None:
            assert done.returncode == code, done.stdout + done.stderr
        return done
