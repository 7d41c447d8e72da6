"""
DROP INDEX locks the table against everybody.

Source: PostgreSQL manual, DROP INDEX.
"""

from collections.abc import Iterator

from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Trial, Work
from migrator.lint.scene import Scene
from migrator.lint.statements import Ref, ref_of
from migrator.patterns import DropIndex as Pattern
from migrator.plan import Lock

_PARTITIONED = (
    "CREATE TABLE p (a integer) PARTITION BY RANGE (a)",
    "CREATE INDEX i ON p (a)",
)


class DropIndex(Rule):
    """An index that is not dropped concurrently."""

    code = "ZD305"
    title = "DROP INDEX locks the table against everybody"
    harm = Harm.STALL
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.CATALOGUE
    trials = (
        Trial(
            before=("CREATE INDEX i ON t (a)",),
            bad=("DROP INDEX i",),
            good=("DROP INDEX CONCURRENTLY i",),
        ),
        Trial(
            bad=("CREATE INDEX CONCURRENTLY i ON t (a)", "DROP INDEX i"),
            good=(
                "CREATE INDEX CONCURRENTLY i ON t (a)",
                "DROP INDEX CONCURRENTLY i",
            ),
        ),
        Trial(
            before=_PARTITIONED,
            bad=("DROP INDEX CONCURRENTLY i",),
            good=(
                "SET lock_timeout = '200ms'",
                "DROP INDEX i",
                "RESET lock_timeout",
            ),
            fails=True,
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for an index of a table that stays, also one that was made just now."""
        if not isinstance(statement, st.DropIndex):
            return
        name = statement.name
        table = table_of(statement, scene)
        if table is not None and goes(table, scene):
            return
        known = scene.table(table or name)
        partitioned = known is not None and known.kind == "p"
        if statement.concurrently and not partitioned:
            return
        brief = scene.guarded or scene.parameter("lock_timeout") is not None
        if partitioned and not statement.concurrently and brief:
            return
        safe = Safe(
            why="It is dropped concurrently, after a hold in which nobody scanned it,"
            " and can be built again; one of a partitioned table with a short"
            " lock_timeout, since it cannot be dropped so.",
            patterns=(
                Pattern(
                    table.name if table is not None else "…",
                    name.name,
                    schema=name.schema or (table.schema if table is not None else None),
                ),
            ),
            decide="" if table is not None else "which table it is on.",
        )
        if statement.concurrently:
            yield from self.found(
                table,
                scene,
                f"DROP INDEX CONCURRENTLY {name} fails: {table} is partitioned.",
                "PostgreSQL drops an index concurrently on one table only.",
                safe=safe,
                lock=Lock.NONE,
                harm=Harm.FAIL,
            )
        else:
            yield from self.found(
                table,
                scene,
                f"DROP INDEX {name} locks {table or 'its table'} by ACCESS EXCLUSIVE.",
                "It is short, but waits for every transaction that uses the table, and"
                " all requests queue behind it; queries that used the index are slow"
                " from then on.",
                safe=safe,
            )


def table_of(statement: st.DropIndex, scene: Scene) -> Ref | None:
    """Return the index's table: by the revision, or by facts."""
    if statement.table is not None:
        return statement.table
    made = scene.made.indexes.get(statement.name.name)
    if made is not None:
        return made.table
    known = scene.table(statement.name)
    return None if known is None else ref_of(known.name)


def goes(table: Ref, scene: Scene) -> bool:
    """Tell whether the revision drops the table as well: then that is the hazard."""
    return any(
        isinstance(s, st.DropTable) and scene.is_same(s.table, table)
        for s in scene.whole
    )
