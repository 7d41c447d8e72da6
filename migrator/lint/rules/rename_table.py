"""
RENAME of a table breaks a release that still uses the old name.

Source: PostgreSQL manual, ALTER TABLE, RENAME: catalogue only.
"""

from collections.abc import Iterator

from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Trial, Work
from migrator.lint.scene import Scene
from migrator.patterns import RenameTable as Pattern
from migrator.plan import Lock


class RenameTable(Rule):
    """A table under another name."""

    code = "ZD403"
    title = "RENAME of a table breaks a release that still uses the old name"
    harm = Harm.BREAK
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.CATALOGUE
    trials = (
        Trial(
            bad=("ALTER TABLE t RENAME TO u",),
            good=("CREATE VIEW u AS SELECT id, a, b FROM t",),
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for a table that was there before the revision."""
        if not isinstance(statement, st.RenameTable):
            return
        table = statement.table
        yield from self.found(
            table,
            scene,
            f"RENAME of {table} to {statement.to} takes the old name from the release"
            " in use.",
            "Each of its requests that names the table fails, and the new release fails"
            " until this has run: no order of the two is right.",
            safe=Safe(
                why="A view has the new name, later the old one, so that both releases"
                " write one table.",
                patterns=(Pattern(table.name, statement.to, schema=table.schema),),
            ),
        )
