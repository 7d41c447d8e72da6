"""
CONCURRENTLY and VACUUM refuse to run in a transaction.

Source: PostgreSQL manual, CREATE INDEX, DROP INDEX, REINDEX, VACUUM, ALTER TABLE
(DETACH PARTITION), each under CONCURRENTLY or Notes.
"""

import re
from collections.abc import Iterator

from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Trial, Work
from migrator.lint.safe import ALONE, alone
from migrator.lint.scene import Scene
from migrator.lint.statements import Ref
from migrator.plan import Lock

_ALONE_TEXT = re.compile(
    r"\s*(?P<words>VACUUM|ALTER\s+SYSTEM|(?:CREATE|DROP)\s+(?:DATABASE|TABLESPACE))\b",
    re.IGNORECASE,
)
_BUILD = "CREATE INDEX CONCURRENTLY i ON t (a)"


class NotInTransaction(Rule):
    """A statement that has to stand alone, in the revision's transaction."""

    code = "ZD311"
    title = "CONCURRENTLY in a transaction: the statement fails"
    harm = Harm.FAIL
    lock = Lock.NONE
    work = Work.CATALOGUE
    trials = (
        Trial(bad=("SELECT 1", _BUILD), good=(_BUILD,), together=True, fails=True),
        Trial(
            bad=("SELECT 1", "VACUUM t"), good=("VACUUM t",), together=True, fails=True
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for one outside of an autocommit block."""
        if scene.autocommit:
            return
        what, table = _alone(statement)
        if not what:
            return
        more = ""
        if isinstance(statement, st.CreateIndex):
            more = " A cut-off build leaves an invalid index; CreateIndex of"
            more += " migrator.patterns cleans it up and goes on."
        yield from self.found(
            table,
            scene,
            f"{what} fails in a transaction, and a revision is one.",
            "The revision ends there, with what stands before it rolled back, or"
            " committed where an autocommit block stands between.",
            safe=Safe(
                why="In an autocommit block it stands alone; what comes before it is"
                f" committed.{more}",
                code=alone(statement.sql) if statement.sql else ALONE,
                replaces=True,
            ),
            always=True,
        )


def _alone(statement: st.Statement) -> tuple[str, Ref | None]:
    """Return what a statement is that has to stand alone, and its table."""
    match statement:
        case st.CreateIndex(table=table, concurrently=True):
            return "CREATE INDEX CONCURRENTLY", table
        case st.DropIndex(table=table, concurrently=True):
            return "DROP INDEX CONCURRENTLY", table
        case st.Reindex(of=of, concurrently=True):
            return f"REINDEX {of} CONCURRENTLY", None
        case st.Reindex(of=of) if of.upper() not in {"INDEX", "TABLE"}:
            return f"REINDEX {of}", None
        case st.DetachPartition(table=table, concurrently=True):
            return "DETACH PARTITION CONCURRENTLY", table
        case st.Rewrite(table=table, how="VACUUM FULL"):
            return "VACUUM FULL", table
        case st.RewriteAll(how=how):
            return how, None
        case st.Other(sql=text):
            found = _ALONE_TEXT.match(text)
            return (" ".join(found["words"].upper().split()) if found else ""), None
        case _:
            return "", None
