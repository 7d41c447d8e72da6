"""Alembic projects whose revisions are linted without a server."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

MIGRATOR = Path(sys.executable).parent / "migrator"
HEAD = '''\
"""Says what it is for."""

from alembic import op
import sqlalchemy as sa

# revision identifiers, used by Alembic.
revision = {name!r}
down_revision = {before!r}


'''


def code(name: str, upgrade: str, downgrade: str = "pass", before: str = "") -> str:
    """Return the text of a revision, whose bodies are indented already or one line."""
    return (
        HEAD.format(name=name, before=before or None)
        + f"def upgrade() -> None:\n    {upgrade}\n\n\n"
        + f"def downgrade() -> None:\n    {downgrade}\n"
    )


def project(folder: Path, *texts: str) -> list[Path]:
    """Make an Alembic project with revisions r0, r1 and so on."""
    (folder / "alembic.ini").write_text("[alembic]\nscript_location = %(here)s/m\n")
    versions = folder / "m" / "versions"
    versions.mkdir(parents=True)
    (folder / "m" / "env.py").write_text(
        "from migrator import alembic as zd\nzd.options()\n"
    )
    found: list[Path] = []
    for number, text in enumerate(texts):
        found.append(versions / f"r{number}.py")
        found[-1].write_text(text)
    return found


def loaded(file: Path) -> ModuleType:
    """Return a revision's module."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lint(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `migrator lint` in a folder, without a server."""
    return subprocess.run(
        [MIGRATOR, "lint", *words],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
    )
