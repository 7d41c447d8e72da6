"""
DETACH PARTITION locks both tables, unless it is CONCURRENTLY.

Source: PostgreSQL manual, ALTER TABLE, DETACH PARTITION.
"""

from collections.abc import Iterator

from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Trial, Work
from migrator.lint.scene import Scene
from migrator.patterns import DetachPartition as Pattern
from migrator.plan import Lock


class DetachPartition(Rule):
    """A partition that becomes a table, while nobody can use either."""

    code = "ZD412"
    title = "DETACH PARTITION keeps everybody out of the partitioned table"
    harm = Harm.STALL
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.CATALOGUE
    trials = tuple(
        Trial(
            before=(
                "CREATE TABLE p (LIKE t) PARTITION BY RANGE (id)",
                "ALTER TABLE p ATTACH PARTITION t FOR VALUES FROM (1) TO (5000)",
            ),
            bad=("ALTER TABLE p DETACH PARTITION t",),
            good=("ALTER TABLE p DETACH PARTITION t CONCURRENTLY",),
            table=table,
        )
        for table in ("p", "t")
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for one that is not concurrent."""
        if not isinstance(statement, st.DetachPartition):
            return
        if statement.concurrently or statement.finalize:
            return
        table, partition = statement.table, statement.partition
        yield from self.found(
            table,
            scene,
            f"DETACH PARTITION {partition} takes ACCESS EXCLUSIVE on {table} and on the"
            " partition.",
            f"Every request to {table} waits for a lock that waits for every running"
            " one; the release in use no longer finds the rows in it.",
            safe=Safe(
                why="It is detached concurrently, when no old release is left, and goes"
                " back without a scan.",
                patterns=(Pattern(table.name, partition.name, schema=table.schema),),
            ),
        )
