"""
COMMIT in a revision's text ends the transaction that Alembic has begun.

Source: PostgreSQL manual, COMMIT; BEGIN (in a transaction it only warns).
"""

from collections.abc import Iterator

from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Severity, Trial, Work
from migrator.lint.safe import ALONE
from migrator.lint.scene import Scene
from migrator.plan import Lock

_ADD = "ALTER TABLE t ADD COLUMN c integer"


class TransactionText(Rule):
    """BEGIN, COMMIT or ROLLBACK outside of an autocommit block."""

    code = "ZD615"
    title = "BEGIN, COMMIT or ROLLBACK in a revision that is a transaction"
    harm = Harm.FAIL
    lock = Lock.NONE
    work = Work.CATALOGUE
    trials = (
        Trial(
            # What was committed is there in spite of the ROLLBACK, and in the way.
            bad=(_ADD, "COMMIT", "ROLLBACK", _ADD),
            good=(_ADD,),
            together=True,
            fails=True,
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for each of them; in an autocommit block they are the revision's own."""
        if not isinstance(statement, st.Transaction):
            return
        if scene.autocommit or not scene.begun:
            return
        how = statement.how.upper()
        if how == "BEGIN":
            what = "BEGIN does nothing: the revision is a transaction already."
            severity = Severity.WARNING
        else:
            what = (
                f"{how} ends the transaction that Alembic has begun for the revision."
            )
            severity = Severity.ERROR
        yield from self.found(
            None,
            scene,
            what,
            "If a later statement fails, what was committed stays, and the version"
            " table says that the revision did not run: it cannot be tried again.",
            safe=Safe(
                why="An autocommit block commits what stands before it, and what stands"
                " in it, statement by statement.",
                code=ALONE,
            ),
            severity=severity,
        )
