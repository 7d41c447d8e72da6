"""
RENAME COLUMN breaks a release that still uses the old name.

Source: PostgreSQL manual, ALTER TABLE, RENAME: catalogue only.
"""

from collections.abc import Iterator

from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Trial, Work
from migrator.lint.scene import Scene
from migrator.patterns import RenameColumn as Pattern
from migrator.plan import Lock


class RenameColumn(Rule):
    """A column under another name."""

    code = "ZD113"
    title = "RENAME COLUMN breaks a release that still uses the old name"
    harm = Harm.BREAK
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.CATALOGUE
    trials = (
        Trial(
            bad=("ALTER TABLE t RENAME COLUMN a TO c",),
            good=("ALTER TABLE t ADD COLUMN c integer",),
        ),
        Trial(
            bad=("ALTER TABLE t RENAME COLUMN a TO c", "SELECT a FROM t"),
            good=("ALTER TABLE t ADD COLUMN c integer", "SELECT a FROM t"),
            fails=True,
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for a column that was there before the revision."""
        if not isinstance(statement, st.RenameColumn):
            return
        table, column = statement.table, statement.column
        if scene.is_added(table, column):
            return
        yield from self.found(
            table,
            scene,
            f"RENAME COLUMN {table}.{column} TO {statement.to} takes the old name from"
            " the release in use.",
            "Each of its requests that names the column fails, and the new release"
            " fails until this has run: no order of the two is right.",
            safe=Safe(
                why="Both names are there and in step until no release uses the old"
                " one.",
                patterns=(
                    Pattern(table.name, column, statement.to, schema=table.schema),
                ),
            ),
        )
