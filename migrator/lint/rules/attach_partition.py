"""
ATTACH PARTITION reads every row of the table, unless a check proves the bounds.

What the parent has and the table lacks, indexes and foreign keys, is made under the
same lock. A DEFAULT partition is read as well, for rows that now belong elsewhere.

Source: PostgreSQL manual, ALTER TABLE, ATTACH PARTITION.
"""

from collections.abc import Iterator

from migrator.facts import Table
from migrator.kernels import partitions
from migrator.lint import bounds
from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Trial, Work
from migrator.lint.scene import Scene
from migrator.lint.statements import Ref
from migrator.patterns import AttachPartition as Pattern
from migrator.plan import Lock


class AttachPartition(Rule):
    """A table with rows that becomes a partition."""

    code = "ZD410"
    title = "ATTACH PARTITION reads every row of the table, and of a DEFAULT partition"
    harm = Harm.STALL
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.SCAN
    trials = (
        Trial(
            before=("CREATE TABLE p (LIKE t) PARTITION BY RANGE (id)",),
            bad=("ALTER TABLE p ATTACH PARTITION t FOR VALUES FROM (1) TO (5000)",),
            good=(
                "ALTER TABLE t ADD CONSTRAINT k CHECK (id >= 1 AND id < 5000)"
                " NOT VALID",
                "ALTER TABLE t VALIDATE CONSTRAINT k",
                "ALTER TABLE p ATTACH PARTITION t FOR VALUES FROM (1) TO (5000)",
            ),
        ),
        Trial(
            before=(
                "CREATE TABLE p (LIKE t) PARTITION BY RANGE (id)",
                "CREATE INDEX ON p (a)",
            ),
            bad=("ALTER TABLE p ATTACH PARTITION t FOR VALUES FROM (1) TO (5000)",),
            good=(
                "CREATE INDEX CONCURRENTLY ON t (a)",
                "ALTER TABLE t ADD CONSTRAINT k CHECK (id >= 1 AND id < 5000)"
                " NOT VALID",
                "ALTER TABLE t VALIDATE CONSTRAINT k",
                "ALTER TABLE p ATTACH PARTITION t FOR VALUES FROM (1) TO (5000)",
            ),
            work=Work.BUILD,
        ),
        Trial(
            before=(
                "CREATE TABLE p (LIKE t) PARTITION BY RANGE (id)",
                "ALTER TABLE p ATTACH PARTITION t DEFAULT",
            ),
            bad=(
                "CREATE TABLE n (LIKE p)",
                "ALTER TABLE p ATTACH PARTITION n FOR VALUES FROM (5000) TO (6000)",
            ),
            good=(
                "CREATE TABLE n (LIKE p)",
                "ALTER TABLE t ADD CONSTRAINT k CHECK"
                " (NOT (id IS NOT NULL AND id >= bigint '5000' AND id < bigint '6000'))"
                " NOT VALID",
                "ALTER TABLE t VALIDATE CONSTRAINT k",
                "ALTER TABLE p ATTACH PARTITION n FOR VALUES FROM (5000) TO (6000)",
            ),
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for rows that have to be read, in either table."""
        if not isinstance(statement, st.AttachPartition):
            return
        table, partition = statement.table, statement.partition
        parent, part = scene.table(table), scene.table(partition)
        values = bounds.bare(statement.bounds)
        work, reasons = _work(parent, part, partition, values, scene)
        safe = Safe(
            why="A check proves the bounds beside the traffic, missing indexes are"
            " built concurrently; then nothing is read.",
            patterns=(
                Pattern(table.name, partition.name, values, schema=table.schema),
            ),
        )
        if work is not Work.CATALOGUE:
            yield from self.found(
                partition,
                scene,
                f"ATTACH PARTITION {partition} to {table} {' and '.join(reasons)} under"
                f" ACCESS EXCLUSIVE on {partition}.",
                f"No request can read or write {partition} meanwhile; on {table} a"
                " SHARE UPDATE EXCLUSIVE lock keeps out other changes and vacuum.",
                safe=safe if values else None,
                work=work,
            )
        default = None if parent is None else partitions.default_of(parent)
        if default is None or parent is None:
            return
        ref = Ref(default.name.name, default.name.schema)
        if bounds.are_named(bounds.checks(ref, scene), bounds.key(parent), values):
            return
        yield from self.found(
            ref,
            scene,
            f"ATTACH PARTITION {partition} to {table} reads every row of its DEFAULT"
            f" partition {ref} under ACCESS EXCLUSIVE.",
            f"Requests to {table} that reach {ref} wait: all whose condition does not"
            " name a partition.",
            safe=safe if values else None,
        )


def _work(
    parent: Table | None, part: Table | None, name: Ref, values: str, scene: Scene
) -> tuple[Work, list[str]]:
    """Return what is done to the partition, at most, and why."""
    if parent is None:
        # Nothing tells the key: a check just made for it is taken for one.
        proved = bounds.are_named(bounds.checks(name, scene), (), values)
        reasons = [] if proved else ["reads every row, to prove the bounds,"]
        return (Work.SCAN if reasons else Work.CATALOGUE), reasons
    known, key = bounds.checks(name, scene), bounds.key(parent)
    work, reasons = Work.CATALOGUE, list[str]()
    if not (
        bounds.are_named(known, key, values) and bounds.is_never_null(part, known, key)
    ):
        work = Work.SCAN
        reasons.append("reads every row, to prove the bounds,")
    if part is None:
        return work, reasons
    made = sum(isinstance(s, st.CreateIndex) and s.table == name for s in scene.earlier)
    missing = partitions.missing_indexes(parent, part)
    if len(missing) > made:
        work = Work.BUILD
        reasons.append(f"builds like {', '.join(i.name for i in missing)}")
    if keys := partitions.missing_foreign_keys(parent, part):
        work = max(work, Work.SCAN, key=list(Work).index)
        reasons.append(f"proves {', '.join(k.name for k in keys)}")
    return work, reasons
