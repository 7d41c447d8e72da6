"""
DROP COLUMN breaks a release that still names the column.

Source: PostgreSQL manual, ALTER TABLE, DROP COLUMN: catalogue only, indexes and
constraints on the column go with it.
"""

from collections.abc import Iterator

from migrator.lint import statements as st
from migrator.lint import types
from migrator.lint.rule import Finding, Harm, Rule, Safe, Trial, Work
from migrator.lint.scene import Scene
from migrator.patterns import DropColumn as Pattern
from migrator.patterns import RenameColumn
from migrator.plan import Lock


class DropColumn(Rule):
    """A column that goes."""

    code = "ZD112"
    title = "DROP COLUMN breaks a release that still reads the column"
    harm = Harm.BREAK
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.CATALOGUE
    trials = (
        Trial(
            bad=("ALTER TABLE t DROP COLUMN a",),
            good=("ALTER TABLE t RENAME COLUMN a TO _retired_a",),
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for a column that was there before."""
        if not isinstance(statement, st.DropColumn):
            return
        table, column = statement.table, statement.column
        if scene.is_added(table, column):
            return
        facts = scene.table(table)
        known = None if facts is None else facts.column(column)
        renamed = tuple(
            RenameColumn(table.name, column, new, schema=table.schema)
            for new in _taking_over(statement, scene)
        )
        yield from self.found(
            table,
            scene,
            f"DROP COLUMN {table}.{column} takes the column from the release in use.",
            "An ORM names every column, so that each request fails;"
            " what the column held is lost, and its indexes go with it.",
            safe=Safe(
                why="The column is out of sight at retire, kept for the hold, and"
                " dropped when no release reads it.",
                patterns=(
                    Pattern(
                        table.name,
                        column,
                        type=None if known is None else known.type,
                        schema=table.schema,
                    ),
                    *renamed,
                ),
                decide="whether the column goes, or is the one that the revision adds"
                " under another name."
                if renamed
                else "",
            ),
        )


def _taking_over(statement: st.DropColumn, scene: Scene) -> list[str]:
    """Return columns of the same table and type that the revision added before."""
    known = scene.table(statement.table)
    found = None if known is None else known.column(statement.column)
    return [
        s.column.name
        for s in scene.earlier
        if isinstance(s, st.AddColumn)
        and s.table == statement.table
        and (found is None or types.parsed(s.column.type) == types.parsed(found.type))
    ]
