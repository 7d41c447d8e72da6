"""
ADD COLUMN with a CHECK reads every row.

Source: PostgreSQL manual, ALTER TABLE, Notes: a new constraint is tested on all rows.
"""

from collections.abc import Iterator

from migrator.lint import added
from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Trial, Work
from migrator.lint.scene import Scene
from migrator.plan import Lock


class ColumnCheck(Rule):
    """A column that comes with a CHECK."""

    code = "ZD106"
    title = "ADD COLUMN with a CHECK reads every row while nobody can use the table"
    harm = Harm.STALL
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.SCAN
    trials = (
        Trial(
            bad=("ALTER TABLE t ADD COLUMN c integer CHECK (c > 0)",),
            good=(
                "ALTER TABLE t ADD COLUMN c integer",
                "ALTER TABLE t ADD CONSTRAINT k CHECK (c > 0) NOT VALID",
                "ALTER TABLE t VALIDATE CONSTRAINT k",
            ),
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for a CHECK within the column."""
        if not isinstance(statement, st.AddColumn):
            return
        table, column = statement.table, statement.column
        if not any(c.kind == "c" and not c.not_valid for c in column.constraints):
            return
        yield from self.found(
            table,
            scene,
            f"ADD COLUMN {table}.{column.name} with a CHECK tests it on every row under"
            " ACCESS EXCLUSIVE.",
            "No request can read or write the table meanwhile.",
            safe=added.safe(
                statement,
                scene,
                "The column comes alone; the check is added without a look at the rows,"
                " and validated beside the traffic.",
            ),
        )
