"""How long lint takes."""

import resource
import sys
import time
from pathlib import Path

import pytest

from tests.lint.revisions import code, lint, project

REVISIONS = 1000
BODIES = (
    'op.create_table("t{n}", sa.Column("id", sa.Integer, primary_key=True))\n'
    '    op.create_index("ix_t{n}", "t{n}", ["id"])',
    'op.add_column("t", sa.Column("c{n}", sa.String(50), nullable=True))\n'
    '    op.alter_column("t", "d{n}", existing_type=sa.String(), nullable=False)',
    'with op.batch_alter_table("t") as batch:\n'
    '        batch.drop_column("c{n}")\n'
    '        batch.create_foreign_key("f{n}", "u", ["a"], ["id"])',
    'op.execute("UPDATE t SET c{n} = 1 WHERE c{n} IS NULL; ALTER TABLE t ADD CONSTRAINT'
    ' c{n} CHECK (c{n} > 0) NOT VALID, ALTER c{n} SET DEFAULT 1")\n'
    '    op.execute("CREATE INDEX CONCURRENTLY i{n} ON t (lower(c{n}))")',
)


def test_a_thousand_revisions_are_linted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All are followed to their end, in less than 10 s of a processor."""
    project(
        tmp_path,
        *(
            code(
                f"r{n}",
                BODIES[n % len(BODIES)].format(n=n),
                before=f"r{n - 1}" if n else "",
            )
            for n in range(REVISIONS)
        ),
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.monotonic()
    done = lint(tmp_path, "--offline")
    taken = time.monotonic() - begun
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before.ru_utime
    assert f"in {REVISIONS:,} revisions." in done.stdout, done.stderr
    assert "ZD901" not in done.stdout
    # Of a processor, so that what else the machine does counts for nothing.
    assert used < 10
    with capsys.disabled():
        sys.stdout.write(
            f" {REVISIONS} revisions in {taken:.1f} s, {used:.1f} s of a processor "
        )
