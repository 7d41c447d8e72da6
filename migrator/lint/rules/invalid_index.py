"""
IF NOT EXISTS takes an invalid index for the one that is wanted.

A concurrent build that was cut off leaves an index that no query uses and that every
write keeps up to date.

Source: PostgreSQL manual, CREATE INDEX, IF NOT EXISTS; Building Indexes Concurrently.
"""

from collections.abc import Iterator

from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Severity, Trial, Work
from migrator.lint.rules import create_index
from migrator.lint.scene import Scene
from migrator.plan import Lock


class InvalidIndex(Rule):
    """A concurrent build that passes over what an earlier try left."""

    code = "ZD313"
    title = "CREATE INDEX CONCURRENTLY IF NOT EXISTS takes an invalid index for done"
    harm = Harm.FAIL
    lock = Lock.SHARE_UPDATE_EXCLUSIVE
    # Nothing is built: that is the hazard.
    work = Work.CATALOGUE
    trials = (
        Trial(
            before=(
                "CREATE INDEX i ON t (a)",
                "UPDATE pg_index SET indisvalid = false"
                " WHERE indexrelid = 'i'::regclass",
            ),
            bad=("CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON t (a)",),
            good=(
                "DROP INDEX CONCURRENTLY IF EXISTS i",
                "CREATE INDEX CONCURRENTLY i ON t (a)",
            ),
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for one that no DROP INDEX stands before, and no look at the index."""
        if not isinstance(statement, st.CreateIndex) or not statement.concurrently:
            return
        table, name = statement.table, create_index.name_of(statement)
        if any(
            isinstance(s, st.DropIndex) and s.name.name == name for s in scene.earlier
        ):
            return
        if any("indisvalid" in s.sql for s in scene.earlier):
            # The revision looks for itself, and drops what it finds.
            return
        known = scene.table(table)
        index = known.index(name) if known is not None else None
        severity: Severity | None = None
        if index is not None and not index.valid:
            what = (
                f"Index {name} on {table} is there and invalid, left by a build that"
                " was cut off: "
            )
            what += (
                "it stays so." if statement.if_not_exists else "the statement fails."
            )
        elif statement.if_not_exists and index is None:
            severity = Severity.WARNING
            what = (
                f"Where a build of {name} on {table} is cut off, the next try passes"
                " over what it left."
            )
        else:
            return
        yield from self.found(
            table,
            scene,
            what,
            "An invalid index is used by no query and kept up to date by every write;"
            " a unique one still refuses duplicates.",
            safe=Safe(
                why="What a cut-off build left is dropped concurrently, and the index"
                " built again until it is valid.",
                patterns=(create_index.pattern(statement),),
            ),
            severity=severity,
        )
