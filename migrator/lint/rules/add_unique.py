"""
ADD UNIQUE builds an index under ACCESS EXCLUSIVE.

Over an index that is there (USING INDEX) nothing is built.

Source: PostgreSQL manual, ALTER TABLE, ADD table_constraint_using_index.
"""

from collections.abc import Iterator

from migrator import names
from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Trial, Work
from migrator.lint.scene import Scene
from migrator.patterns import AddUnique as Pattern
from migrator.plan import Lock


class AddUnique(Rule):
    """A unique constraint that builds its index."""

    code = "ZD221"
    title = "ADD UNIQUE builds an index while nobody can use the table"
    harm = Harm.STALL
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.BUILD
    trials = (
        Trial(
            bad=("ALTER TABLE t ADD UNIQUE (b)",),
            good=(
                "CREATE UNIQUE INDEX CONCURRENTLY u ON t (b)",
                "ALTER TABLE t ADD CONSTRAINT u UNIQUE USING INDEX u",
            ),
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for one that takes over no index."""
        if not isinstance(statement, st.AddConstraint):
            return
        table, one = statement.table, statement.constraint
        if one.kind != "u" or one.using_index is not None:
            return
        columns = ", ".join(one.columns)
        stem = "_".join((table.name, *one.columns))
        yield from self.found(
            table,
            scene,
            f"ADD UNIQUE ({columns}) on {table} builds an index under ACCESS"
            " EXCLUSIVE.",
            "No request can read or write the table meanwhile; duplicates make it fail,"
            " and the old release may still write some.",
            safe=Safe(
                why="Duplicates are counted first; then the index is built"
                " concurrently, and the constraint takes it over without a scan.",
                patterns=(
                    Pattern(
                        table.name,
                        list(one.columns),
                        one.name or names.fitted(stem, "_key"),
                        nulls_not_distinct=one.nulls_not_distinct,
                        deferrable=one.deferrable,
                        include=one.include,
                        schema=table.schema,
                    ),
                ),
            ),
        )
