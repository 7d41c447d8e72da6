"""
SET SCHEMA breaks a release that looks for the table in its old schema.

Source: PostgreSQL manual, ALTER TABLE, SET SCHEMA: indexes, constraints and sequences
of the table go along.
"""

from collections.abc import Iterator

from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Trial, Work
from migrator.lint.scene import Scene
from migrator.patterns import MoveToSchema as Pattern
from migrator.plan import Lock


class MoveTable(Rule):
    """A table in another schema."""

    code = "ZD404"
    title = "SET SCHEMA breaks a release that looks for the table in its old schema"
    harm = Harm.BREAK
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.CATALOGUE
    trials = (
        Trial(
            before=("CREATE SCHEMA s",),
            bad=("ALTER TABLE t SET SCHEMA s",),
            good=("CREATE VIEW s.t AS SELECT id, a, b FROM t",),
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for a table that was there before the revision."""
        if not isinstance(statement, st.MoveTable):
            return
        table = statement.table
        yield from self.found(
            table,
            scene,
            f"SET SCHEMA {statement.to} takes {table} from where the release in use"
            " looks for it.",
            "Its requests fail, unless its search_path has the new schema and its role"
            " may use it; nextval() by the sequence's old name fails too.",
            safe=Safe(
                why="A view stands in the new schema, later in the old one, so that"
                " both releases write one table.",
                patterns=(Pattern(table.name, statement.to, schema=table.schema),),
            ),
        )
