"""
RENAME of a schema breaks a release that uses any table of it.

Source: PostgreSQL manual, ALTER SCHEMA: no lock on its tables is taken.
"""

from collections.abc import Iterator

from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Trial, Work
from migrator.lint.scene import Scene
from migrator.pattern import OPEN
from migrator.patterns import MoveToSchema
from migrator.plan import Lock


class RenameSchema(Rule):
    """A schema under another name."""

    code = "ZD405"
    title = "RENAME of a schema breaks a release that uses a table of it"
    harm = Harm.BREAK
    lock = Lock.NONE
    work = Work.CATALOGUE
    trials = (
        Trial(
            before=("CREATE SCHEMA s", "CREATE TABLE s.t (id integer)"),
            bad=("ALTER SCHEMA s RENAME TO s2",),
            good=(
                "CREATE SCHEMA s2",
                "CREATE VIEW s2.t AS SELECT id FROM s.t",
            ),
            table="s.t",
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for one."""
        if not isinstance(statement, st.RenameSchema):
            return
        yield from self.found(
            None,
            scene,
            f"RENAME of schema {statement.name} to {statement.to} takes all of its"
            " tables, types and functions from the release in use.",
            "Each request that names the schema fails; a search_path that has it passes"
            " over it in silence, and may find a table of the same name elsewhere.",
            safe=Safe(
                why="Both schemas are there; each table stands in one and has a view in"
                " the other, until no release uses the old one.",
                patterns=(MoveToSchema(OPEN, statement.to, schema=statement.name),),
                decide="the tables, one change for each; the new schema has to be there"
                " first (CREATE SCHEMA), with the grants of the old one.",
            ),
        )
