"""
ADD COLUMN of type json breaks DISTINCT, GROUP BY and UNION over the table.

The type has no `=`; jsonb has one.

Source: PostgreSQL manual, section 8.14.
"""

from collections.abc import Iterator
from dataclasses import replace

from migrator.lint import added, types
from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Severity, Trial, Work
from migrator.lint.scene import Scene
from migrator.plan import Lock


class ColumnJson(Rule):
    """A column whose values cannot be compared."""

    code = "ZD110"
    title = "ADD COLUMN of type json breaks DISTINCT, GROUP BY and UNION"
    harm = Harm.BREAK
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.CATALOGUE
    trials = (
        Trial(
            bad=("ALTER TABLE t ADD COLUMN c json", "SELECT DISTINCT * FROM t"),
            good=("ALTER TABLE t ADD COLUMN c jsonb", "SELECT DISTINCT * FROM t"),
            fails=True,
        ),
        Trial(
            bad=("ALTER TABLE t ADD COLUMN c json",),
            good=("ALTER TABLE t ADD COLUMN c jsonb",),
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for a column of type json."""
        if not isinstance(statement, st.AddColumn):
            return
        table, column = statement.table, statement.column
        kind = types.parsed(column.type)
        if kind.name != "json" or kind.array:
            return
        yield from self.found(
            table,
            scene,
            f"ADD COLUMN {table}.{column.name} is of type json, which has no `=`.",
            "SELECT DISTINCT *, GROUP BY and UNION over all columns of the table fail"
            " from then on, also those of the release in use.",
            safe=added.safe(
                replace(statement, column=replace(column, type="jsonb")),
                scene,
                "jsonb can be compared and indexed, and is read faster. It keeps"
                " neither the order of keys nor those that come twice.",
            ),
            severity=Severity.WARNING,
        )
