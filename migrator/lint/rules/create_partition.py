"""
CREATE TABLE … PARTITION OF locks the partitioned table; ATTACH PARTITION does not.

A DEFAULT partition is read for rows that now belong elsewhere.

Source: PostgreSQL manual, CREATE TABLE, PARTITION OF; section 5.12.2.2.
"""

from collections.abc import Iterator

from migrator.kernels import partitions
from migrator.lint import statements as st
from migrator.lint import text
from migrator.lint.rule import Finding, Harm, Rule, Safe, Trial, Work
from migrator.lint.scene import Scene
from migrator.lint.statements import Ref
from migrator.pattern import OPEN
from migrator.plan import Lock


class CreatePartition(Rule):
    """A partition that is made in its place."""

    code = "ZD411"
    title = "CREATE TABLE … PARTITION OF keeps everybody out of the partitioned table"
    harm = Harm.STALL
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.CATALOGUE
    trials = (
        Trial(
            before=(
                "CREATE TABLE p (LIKE t) PARTITION BY RANGE (id)",
                "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (1) TO (2)",
                "INSERT INTO p VALUES (1, 1, 'one')",
            ),
            bad=("CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (2) TO (3)",),
            good=(
                "CREATE TABLE p2 (LIKE p INCLUDING DEFAULTS INCLUDING CONSTRAINTS)",
                "ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (2) TO (3)",
            ),
            table="p",
        ),
        Trial(
            before=(
                "CREATE TABLE p (LIKE t) PARTITION BY RANGE (id)",
                "ALTER TABLE p ATTACH PARTITION t DEFAULT",
            ),
            bad=("CREATE TABLE n PARTITION OF p FOR VALUES FROM (5000) TO (6000)",),
            good=(
                "CREATE TABLE n (LIKE p INCLUDING DEFAULTS INCLUDING CONSTRAINTS)",
                "ALTER TABLE t ADD CONSTRAINT k CHECK"
                " (NOT (id IS NOT NULL AND id >= bigint '5000' AND id < bigint '6000'))"
                " NOT VALID",
                "ALTER TABLE t VALIDATE CONSTRAINT k",
                "ALTER TABLE p ATTACH PARTITION n FOR VALUES FROM (5000) TO (6000)",
            ),
            work=Work.SCAN,
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for a partition of a table that was there before the revision."""
        if not isinstance(statement, st.CreateTable) or statement.partition_of is None:
            return
        parent, part = statement.partition_of, statement.table
        known = scene.table(parent)
        default = None if known is None else partitions.default_of(known)
        where, read, work = parent, "", Work.CATALOGUE
        if default is not None and default.size_bytes:
            where, work = Ref(default.name.name, default.name.schema), Work.SCAN
            read = f", and reads every row of its DEFAULT partition {where}"
        yield from self.found(
            where,
            scene,
            f"CREATE TABLE {part} PARTITION OF {parent} takes ACCESS EXCLUSIVE on"
            f" {parent}{read}.",
            f"Every request to {parent} waits for a lock that waits for every running"
            " one.",
            safe=Safe(
                why=f"A table of its own becomes a partition by ATTACH PARTITION, under"
                f" SHARE UPDATE EXCLUSIVE on {parent}: requests go on.",
                code=text.execute(
                    f"CREATE TABLE {text.name(part)} (LIKE {text.name(parent)}"
                    " INCLUDING DEFAULTS INCLUDING CONSTRAINTS)",
                    f"ALTER TABLE {text.name(parent)} ATTACH PARTITION"
                    f" {text.name(part)} FOR VALUES {OPEN}",
                ),
                decide="the bounds"
                + (
                    f", and a check on {where} first which says that it has no row"
                    " within them: AttachPartition does that for a table that is there."
                    if read
                    else "."
                ),
            ),
            work=work,
        )
