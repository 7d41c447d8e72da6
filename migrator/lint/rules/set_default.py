"""
SET DEFAULT holds for INSERTs that leave the column out, of any release.

Source: PostgreSQL manual, ALTER TABLE, SET/DROP DEFAULT.
"""

from collections.abc import Iterator

from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Severity, Trial, Work
from migrator.lint.scene import Scene
from migrator.patterns import SetDefault as Pattern
from migrator.plan import Lock


class SetDefault(Rule):
    """A default for rows to come."""

    code = "ZD122"
    title = "SET DEFAULT reaches the release in use, and no ORM that names each column"
    harm = Harm.BREAK
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.CATALOGUE
    trials = (
        Trial(
            bad=("ALTER TABLE t ALTER COLUMN a SET DEFAULT 1",),
            good=(
                "ALTER TABLE t ADD COLUMN c integer",
                "ALTER TABLE t ALTER COLUMN c SET DEFAULT 1",
            ),
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for a default of a column that was there before the revision."""
        if not isinstance(statement, st.SetDefault):
            return
        table, column = statement.table, statement.column
        if scene.is_added(table, column):
            return
        yield from self.found(
            table,
            scene,
            f"SET DEFAULT {statement.default} on {table}.{column} changes what INSERTs"
            " of the release in use store.",
            "Those that leave the column out get the new default at once; those of an"
            " ORM that names every column go on storing NULL.",
            safe=Safe(
                why="It is set with a short lock timeout and tried again, and goes back"
                " to what it was.",
                patterns=(
                    Pattern(table.name, column, statement.default, schema=table.schema),
                ),
                decide="whether the release in use may store it; the model gets the"
                " same default first.",
            ),
            severity=Severity.WARNING,
        )
