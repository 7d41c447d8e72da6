"""
What a DO block or a procedure does is not seen before it runs.

Source: PostgreSQL manual, DO; CALL.
"""

import re
from collections.abc import Iterator

from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Severity, Trial, Work
from migrator.lint.scene import Scene
from migrator.plan import Lock

# What changes a schema, or may be anything.
_CHANGES = re.compile(
    r"\b(ALTER|CREATE|DROP|TRUNCATE|REINDEX|CLUSTER|REFRESH|LOCK|EXECUTE)\b",
    re.IGNORECASE,
)
_DO = re.compile(r"\s*DO\b", re.IGNORECASE)


class CodeBlock(Rule):
    """Code that runs on the server, where no rule looks."""

    code = "ZD509"
    title = "DDL in a DO block or a procedure is seen by no rule"
    harm = Harm.FAIL
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.SCAN
    trials = (
        Trial(
            bad=("DO 'BEGIN EXECUTE ''ALTER TABLE t ALTER a SET NOT NULL''; END'",),
            good=(
                "ALTER TABLE t ADD CONSTRAINT c CHECK (a IS NOT NULL) NOT VALID",
                "ALTER TABLE t VALIDATE CONSTRAINT c",
                "ALTER TABLE t ALTER COLUMN a SET NOT NULL",
            ),
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for a block with a word that changes a schema, and for any call."""
        if not isinstance(statement, st.Block):
            return
        found = _CHANGES.search(statement.sql)
        if _DO.match(statement.sql):
            if found is None:
                return
            what = f"A DO block has {found[0].upper()} in it, which no rule looks at."
            severity = Severity.WARNING
        else:
            what = "What a procedure does is seen by no rule."
            severity = Severity.NOTE
        yield from self.found(
            None,
            scene,
            what,
            "It may lock any table, and keep it locked to the revision's end.",
            safe=Safe(
                why="Written in the revision itself, its statements are looked at; or"
                " run it on a copy of the database, and look at pg_locks before its"
                " commit.",
            ),
            severity=severity,
            lock=Lock.NONE,
            work=Work.CATALOGUE,
        )
