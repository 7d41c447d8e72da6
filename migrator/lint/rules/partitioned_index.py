"""
CREATE INDEX on a partitioned table keeps writers of every partition out.

CONCURRENTLY is refused there.

Source: PostgreSQL manual, CREATE INDEX; section 5.12.2.2.
"""

from collections.abc import Iterator

from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Trial, Work
from migrator.lint.rules import create_index
from migrator.lint.scene import Scene
from migrator.plan import Lock

_BEFORE = (
    "CREATE TABLE p (a integer) PARTITION BY RANGE (a)",
    "CREATE TABLE p1 PARTITION OF p DEFAULT",
    "INSERT INTO p SELECT generate_series(1, 1000)",
)
_GOOD = (
    "CREATE INDEX i ON ONLY p (a)",
    "CREATE INDEX CONCURRENTLY i1 ON p1 (a)",
    "ALTER INDEX i ATTACH PARTITION i1",
)


class PartitionedIndex(Rule):
    """An index of a partitioned table with all of its partitions."""

    code = "ZD303"
    title = "CREATE INDEX on a partitioned table keeps writers of every partition out"
    harm = Harm.STALL
    lock = Lock.SHARE
    work = Work.BUILD
    trials = (
        Trial(
            before=_BEFORE,
            bad=("CREATE INDEX i ON p (a)",),
            good=_GOOD,
            table="p1",
        ),
        Trial(
            before=_BEFORE,
            bad=("CREATE INDEX CONCURRENTLY i ON p (a)",),
            good=_GOOD,
            fails=True,
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for one whose table facts know as partitioned."""
        if not isinstance(statement, st.CreateIndex):
            return
        table, known = statement.table, scene.table(statement.table)
        if known is None or known.kind != "p":
            return
        name = create_index.name_of(statement)
        safe = Safe(
            why="It begins at the top, on the table alone; each partition's index is"
            " built concurrently, and attached.",
            patterns=(create_index.pattern(statement),),
        )
        if statement.concurrently:
            yield from self.found(
                table,
                scene,
                f"CREATE INDEX CONCURRENTLY {name} fails: {table} is partitioned.",
                "PostgreSQL builds an index concurrently on one table only.",
                safe=safe,
                lock=Lock.NONE,
                work=Work.CATALOGUE,
                harm=Harm.FAIL,
            )
        elif not statement.only:
            yield from self.found(
                table,
                scene,
                f"CREATE INDEX {name} on {table} keeps the writers of all partitions"
                f" ({len(known.leaves)}) out until the last one's is built.",
                "INSERT, UPDATE and DELETE wait, and behind them the application.",
                safe=safe,
            )
