"""
DROP NOT NULL lets the release in use meet NULL.

Source: PostgreSQL manual, ALTER TABLE, SET/DROP NOT NULL.
"""

from collections.abc import Iterator

from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Severity, Trial, Work
from migrator.lint.scene import Scene
from migrator.patterns import DropNotNull as Pattern
from migrator.plan import Lock


class DropNotNull(Rule):
    """A column that takes NULL from now on."""

    code = "ZD114"
    title = "DROP NOT NULL lets the release in use meet NULL"
    harm = Harm.BREAK
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.CATALOGUE
    trials = (
        Trial(
            bad=("ALTER TABLE t ALTER COLUMN b DROP NOT NULL",),
            good=("ALTER TABLE t ALTER COLUMN a DROP NOT NULL",),
        ),
        Trial(
            bad=("ALTER TABLE t DROP CONSTRAINT t_b_not_null",),
            good=("ALTER TABLE t ALTER COLUMN a DROP NOT NULL",),
            since=180000,
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for a column that was NOT NULL before the revision."""
        match statement:
            case st.DropNotNull(table=table, column=column):
                known = scene.table(table)
            case st.DropConstraint(table=table, name=name):
                known = scene.table(table)
                constraint = None if known is None else known.constraint(name)
                if constraint is None or constraint.kind != "n":
                    return
                (column,) = constraint.columns
            case _:
                return
        before = scene.former(table, column)
        if any(
            isinstance(s, st.DropNotNull)
            and s.column in {column, before}
            and scene.is_same(s.table, table)
            for s in scene.earlier
        ):
            # Once is told.
            return
        found = None if known is None else known.column(before)
        if scene.is_added(table, column) or (found is not None and not found.not_null):
            return
        yield from self.found(
            table,
            scene,
            f"DROP NOT NULL on {table}.{column} lets rows come in which it is NULL.",
            "The release in use was written for a column that never is: it may fail on"
            " rows of the new release.",
            safe=Safe(
                why="NOT NULL is lifted when no old release is left, and proved again"
                " on the way back.",
                patterns=(Pattern(table.name, column, schema=table.schema),),
                decide="whether the release in use copes with NULL: then early=True"
                " lifts it at expand.",
            ),
            severity=Severity.WARNING,
        )
