"""
ADD COLUMN NOT NULL without a default fails where there are rows.

Source: PostgreSQL manual, ALTER TABLE, ADD COLUMN.
"""

from collections.abc import Iterator

from migrator.lint import added
from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Trial, Work
from migrator.lint.scene import Scene
from migrator.plan import Lock


class ColumnNotNull(Rule):
    """A column that refuses NULL, and has no value for the rows that are there."""

    code = "ZD101"
    title = "ADD COLUMN NOT NULL without a default fails where there are rows"
    harm = Harm.FAIL
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.SCAN
    trials = (
        Trial(
            bad=("ALTER TABLE t ADD COLUMN c integer NOT NULL",),
            good=(
                "ALTER TABLE t ADD COLUMN c integer",
                "UPDATE t SET c = a",
                "ALTER TABLE t ADD CONSTRAINT n CHECK (c IS NOT NULL) NOT VALID",
                "ALTER TABLE t VALIDATE CONSTRAINT n",
                "ALTER TABLE t ALTER COLUMN c SET NOT NULL",
            ),
            fails=True,
        ),
        Trial(
            bad=("ALTER TABLE t ADD COLUMN c integer NOT NULL",),
            good=("ALTER TABLE t ADD COLUMN c integer NOT NULL DEFAULT 0",),
            fails=True,
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for a column without a value."""
        if not isinstance(statement, st.AddColumn):
            return
        table, column = statement.table, statement.column
        if not added.needs_value(column):
            return
        yield from self.found(
            table,
            scene,
            f"ADD COLUMN {table}.{column.name} is NOT NULL and has no default.",
            "It fails at the first row that is there; on an empty table every INSERT of"
            " the release in use fails, which does not know the column.",
            safe=added.safe(
                statement,
                scene,
                "The column comes with a value for each row, and is NOT NULL once all"
                " rows have one.",
            ),
            # It fails at the first row.
            work=Work.CATALOGUE,
        )
