"""
DROP SCHEMA … CASCADE takes all tables of the schema along, unseen.

Source: PostgreSQL manual, DROP SCHEMA; each table is locked as by DROP TABLE.
"""

from collections.abc import Iterator

from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Trial, Work
from migrator.lint.scene import Scene
from migrator.pattern import OPEN
from migrator.patterns import DropTable
from migrator.plan import Lock


class DropSchema(Rule):
    """A schema that goes with what is in it."""

    code = "ZD406"
    title = "DROP SCHEMA … CASCADE breaks a release that uses a table of it"
    harm = Harm.BREAK
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.CATALOGUE
    trials = (
        Trial(
            before=("CREATE SCHEMA s", "CREATE TABLE s.t (id integer)"),
            bad=("DROP SCHEMA s CASCADE",),
            good=("ALTER TABLE s.t RENAME TO _retired_t",),
            table="s.t",
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for one with CASCADE: without, the server refuses one that holds any."""
        match statement:
            case st.DropObject(of="SCHEMA", cascade=True, name=name):
                pass
            case _:
                return
        if scene.is_created(name):
            return
        yield from self.found(
            None,
            scene,
            f"DROP SCHEMA {name} CASCADE takes all of its tables, views, types and"
            " functions from the release in use, under ACCESS EXCLUSIVE on each table.",
            "Each request that names one fails; rows are lost, and foreign keys and"
            " views of other schemas go along, unseen.",
            safe=Safe(
                why="Each table is out of sight at retire, and dropped after the hold;"
                " the schema goes last, without CASCADE.",
                patterns=(DropTable(OPEN, schema=name.name),),
                decide="the tables, one change for each; a schema that nobody uses any"
                " more goes by `zd.assured(…)`.",
            ),
        )
