"""What has run on a database, for releases that do not hold its last revision."""

from collections.abc import Iterable

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from migrator.ledger import revisions
from migrator.postgres.connection import Connection


def behind(script: ScriptDirectory, heads: Iterable[str]) -> set[str]:
    """
    Return revisions and all that come before them or that they depend on.

    Args:
        script: holds them; what it does not hold is left out.
        heads: whole ids.
    """
    down = {r.revision: r._all_down_revisions for r in script.walk_revisions()}
    left, found = list(heads), set[str]()
    while left:
        one = left.pop()
        if one in down and one not in found:
            found.add(one)
            left += down[one]
    return found


def note(
    conn: Connection, ctx: MigrationContext, version_table: str, heads: Iterable[str]
) -> None:
    """Enter into the log what a database at some revisions has behind it."""
    assert ctx.script is not None
    there = behind(ctx.script, heads)
    every = {r.revision for r in ctx.script.walk_revisions()}
    revisions.note(conn, version_table, there, every - there)
