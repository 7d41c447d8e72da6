"""
Row security and its policies take ACCESS EXCLUSIVE, and rows from who may not.

Source: PostgreSQL manual, CREATE POLICY; ALTER TABLE, ROW LEVEL SECURITY; section 5.9.
"""

from collections.abc import Iterator

from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Trial, Work
from migrator.lint.rules.change_trigger import carried
from migrator.lint.scene import Scene
from migrator.plan import Lock


class ChangePolicy(Rule):
    """Row security that comes or goes."""

    code = "ZD432"
    title = "Row security waits for a lock that requests wait behind, and hides rows"
    harm = Harm.STALL
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.CATALOGUE
    trials = (
        Trial(
            bad=("CREATE POLICY o ON t USING (a = 1)",),
            good=("CREATE VIEW v AS SELECT id FROM t WHERE a = 1",),
        ),
        Trial(
            bad=("ALTER TABLE t ENABLE ROW LEVEL SECURITY",),
            good=("CREATE VIEW v AS SELECT id FROM t WHERE a = 1",),
        ),
        Trial(
            before=("CREATE POLICY o ON t USING (a = 1)",),
            bad=("DROP POLICY o ON t",),
            good=("CREATE VIEW v AS SELECT id FROM t WHERE a = 1",),
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for one on a table that was there before the revision."""
        if not isinstance(statement, st.ChangePolicy):
            return
        table, how = statement.table, statement.how
        what = f"{how} {statement.name}" if statement.name else f"{how} ROW SECURITY"
        hides = how in ("ENABLE", "FORCE")
        yield from self.found(
            table,
            scene,
            f"{what} takes ACCESS EXCLUSIVE on {table}.",
            "It is held for a moment, but every request waits behind it until all"
            " transactions that use the table end."
            + (
                " From then on roles see only rows that a policy lets through; with"
                " none, the release in use sees nothing."
                if hides
                else ""
            ),
            safe=carried(statement, self.lock),
        )
