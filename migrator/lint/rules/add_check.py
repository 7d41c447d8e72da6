"""
ADD CHECK reads every row under ACCESS EXCLUSIVE.

Source: PostgreSQL manual, ALTER TABLE, Notes.
"""

from collections.abc import Iterator

from migrator import names
from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Trial, Work
from migrator.lint.scene import Scene
from migrator.patterns import AddCheck as Pattern
from migrator.patterns import ReplaceCheck
from migrator.plan import Lock


class AddCheck(Rule):
    """A check that all rows are held to at once."""

    code = "ZD211"
    title = "ADD CHECK reads every row while nobody can use the table"
    harm = Harm.STALL
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.SCAN
    trials = (
        Trial(
            bad=("ALTER TABLE t ADD CHECK (a >= 0)",),
            good=(
                "ALTER TABLE t ADD CONSTRAINT c CHECK (a >= 0) NOT VALID",
                "ALTER TABLE t VALIDATE CONSTRAINT c",
            ),
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for one that is not NOT VALID."""
        if not isinstance(statement, st.AddConstraint):
            return
        table, check = statement.table, statement.constraint
        if check.kind != "c" or check.not_valid:
            return
        change = ReplaceCheck if scene.comes_back(table, check) else Pattern
        yield from self.found(
            table,
            scene,
            f"ADD CHECK ({check.expression}) on {table} reads every row under ACCESS"
            " EXCLUSIVE.",
            "No request can read or write the table meanwhile; a row that violates it"
            " makes it fail, and the old release may still write some.",
            safe=Safe(
                why="Rows that violate it are counted first; then it is added NOT"
                " VALID, and validated beside the traffic.",
                patterns=(
                    change(
                        table.name,
                        check.name or names.fitted(table.name, "_check"),
                        check.expression,
                        schema=table.schema,
                    ),
                ),
            ),
        )
