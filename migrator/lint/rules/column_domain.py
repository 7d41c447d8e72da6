"""
ADD COLUMN of a domain that refuses values writes every row anew.

Source: PostgreSQL manual, CREATE DOMAIN; `ATExecAddColumn` in the server, which works
the value out for each row where the domain has a constraint.
"""

from collections.abc import Iterator

from migrator.lint import added
from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Trial, Work
from migrator.lint.scene import Scene
from migrator.plan import Lock


class ColumnDomain(Rule):
    """A column whose type is a domain with a CHECK or NOT NULL."""

    code = "ZD105"
    title = "ADD COLUMN of a constrained domain writes every row anew"
    harm = Harm.STALL
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.REWRITE
    trials = (
        Trial(
            before=("CREATE DOMAIN amount AS integer CHECK (VALUE >= 0)",),
            bad=("ALTER TABLE t ADD COLUMN c amount",),
            good=(
                "ALTER TABLE t ADD COLUMN c integer",
                "ALTER TABLE t ADD CONSTRAINT k CHECK (c >= 0) NOT VALID",
                "ALTER TABLE t VALIDATE CONSTRAINT k",
            ),
        ),
        Trial(
            before=(
                "CREATE DOMAIN amount AS integer CHECK (VALUE >= 0)",
                "CREATE DOMAIN free AS integer",
            ),
            bad=("ALTER TABLE t ADD COLUMN c amount DEFAULT 0",),
            good=("ALTER TABLE t ADD COLUMN c free",),
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for one that the revision or the database knows."""
        if not isinstance(statement, st.AddColumn):
            return
        table, column = statement.table, statement.column
        if not added.refuses(column, scene):
            return
        yield from self.found(
            table,
            scene,
            f"ADD COLUMN {table}.{column.name} is of the domain {column.type}, which"
            " has a constraint: every row is written anew under ACCESS EXCLUSIVE.",
            "No request can read or write the table meanwhile.",
            safe=added.safe(
                statement,
                scene,
                "The column is of the type below the domain, and a check of the table"
                " says what the domain said.",
            ),
        )
