"""
LOCK TABLE in a revision keeps requests waiting until the revision ends.

Source: PostgreSQL manual, LOCK.
"""

from collections.abc import Iterator

from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Trial, Work
from migrator.lint.scene import Scene
from migrator.patterns import Custom, Sql
from migrator.plan import Lock


class LockTable(Rule):
    """A lock that the revision takes by itself."""

    code = "ZD613"
    title = "LOCK TABLE is held until the revision ends"
    harm = Harm.STALL
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.CATALOGUE
    trials = (
        Trial(
            bad=("LOCK TABLE t",),
            good=("LOCK TABLE t IN ROW EXCLUSIVE MODE",),
        ),
        Trial(
            bad=("LOCK TABLE t IN SHARE MODE",),
            good=("LOCK TABLE t IN ROW EXCLUSIVE MODE",),
            lock=Lock.SHARE,
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for one that stops requests on a table in use."""
        if not isinstance(statement, st.LockTable):
            return
        for table, lock in scene.strong(statement).items():
            wait = "use" if lock is Lock.ACCESS_EXCLUSIVE else "write"
            yield from self.found(
                table,
                scene,
                f"LOCK TABLE takes {lock.value} on {table} until the revision is"
                " committed.",
                f"Nobody can {wait} the table while the rest of the revision runs.",
                safe=Safe(
                    why="A pattern locks by itself, for one short step and with a"
                    " lock_timeout; Custom does so for statements of your own.",
                    patterns=(
                        Custom(
                            table.name,
                            "…",
                            at_expand=[Sql("…", reverse="…", lock=lock.value)],
                            schema=table.schema,
                        ),
                    ),
                    decide="what is done under the lock, and what takes it back.",
                ),
                lock=lock,
            )
