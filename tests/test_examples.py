"""The examples run as they stand."""

import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_example_without_alembic(database: str) -> None:
    """The rename goes there and back, and a write by the new name reaches the old."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / "without_alembic.py"],
        env={**os.environ, "MIGRATOR_DATABASE_URL": database},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "by the old name: ('new',)" in done.stdout
    assert done.stdout.splitlines()[-1] == "rollback: planned"
