"""
Rows that are changed in a transaction which has locked a table keep it locked.

Source: PostgreSQL manual, section 13.3.1: a lock is held to the transaction's end.
"""

from collections.abc import Iterator

from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Severity, Trial, Work
from migrator.lint.rules import change_rows
from migrator.lint.safe import ALONE, alone
from migrator.lint.scene import Scene
from migrator.lint.statements import Ref
from migrator.plan import Lock

_ADD = "ALTER TABLE t ADD COLUMN c integer"


class RowsBesideDdl(Rule):
    """Rows changed under a lock that stops requests."""

    code = "ZD603"
    title = "Rows are changed while the revision's DDL keeps a table locked"
    harm = Harm.STALL
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.ROWS
    trials = (
        Trial(
            bad=(_ADD, "UPDATE t SET c = a"),
            good=(_ADD, "UPDATE t SET c = a WHERE id <= 10"),
            together=True,
        ),
        Trial(
            before=("CREATE TABLE o (a integer)",),
            bad=(_ADD, "INSERT INTO o SELECT a FROM t"),
            good=(_ADD, "INSERT INTO o SELECT a FROM t WHERE id <= 10"),
            together=True,
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for UPDATE, DELETE, MERGE or INSERT … SELECT behind a strong lock."""
        if not isinstance(statement, st.ChangeRows):
            return
        how, changed = statement.how.upper(), statement.table
        held = scene.held()
        if not held:
            return
        if how == "INSERT" and statement.values is None:
            yield from self._copies(statement, scene, held)
        if how not in change_rows.CHANGES or scene.is_unused(changed):
            return
        table = max(held, key=lambda ref: (held[ref].rank, scene.is_same(ref, changed)))
        wait = "use" if held[table] is Lock.ACCESS_EXCLUSIVE else "write"
        yield from self.found(
            table,
            scene,
            f"{how} changes rows of {changed} while the transaction holds"
            f" {held[table].value} on {table}.",
            f"Nobody can {wait} {table} until all of them are changed and the revision"
            " is committed.",
            safe=change_rows.safe(statement, scene),
            severity=change_rows.severity(statement, scene),
            lock=held[table],
            done_on=changed,
        )

    def _copies(
        self, statement: st.ChangeRows, scene: Scene, held: dict[Ref, Lock]
    ) -> Iterator[Finding]:
        """Look for rows that come from a table in use: a new one was empty."""
        source = statement.reads
        if source is not None and scene.is_unused(source):
            return
        table = max(held, key=lambda ref: held[ref].rank)
        wait = "use" if held[table] is Lock.ACCESS_EXCLUSIVE else "write"
        whence = "those that a query gives" if source is None else f"rows of {source}"
        yield from self.found(
            table,
            scene,
            f"INSERT writes {whence} into {statement.table} while the transaction"
            f" holds {held[table].value} on {table}.",
            f"Nobody can {wait} {table} until all of them are written and the revision"
            " is committed.",
            safe=Safe(
                why="Rows are written before anything is locked, some at a time: in a"
                " revision of its own, or an autocommit block.",
                code=alone(statement.sql) if statement.sql else ALONE,
            ),
            severity=Severity.WARNING
            if source is None
            else change_rows.severity(statement, scene, source),
            lock=held[table],
            done_on=source,
        )
