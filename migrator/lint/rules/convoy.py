"""
More work, or one more lock, while a table is locked: a convoy forms behind it.

Source: PostgreSQL manual, sections 13.3.1 and 13.3.4: a lock is held to the
transaction's end, and who takes several waits for each with those before it held.
"""

from collections.abc import Iterator

from migrator.lint import statements as st
from migrator.lint.locks import lock_of
from migrator.lint.rule import Finding, Harm, Rule, Safe, Severity, Trial, Work
from migrator.lint.rules import create_index
from migrator.lint.rules.replaced_index import dropped_for
from migrator.lint.safe import ALONE, alone
from migrator.lint.scene import Scene
from migrator.lint.statements import Ref, Statement
from migrator.plan import Lock

_ADD = "ALTER TABLE t ADD COLUMN c integer"
_INDEX = "CREATE INDEX i ON t (a)"
_OTHER = "ALTER TABLE o ADD COLUMN c integer"


class Convoy(Rule):
    """A scan, a build or a further lock under a lock that stops requests."""

    code = "ZD605"
    title = "A transaction goes on working, or waits for a lock, with a table locked"
    harm = Harm.STALL
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.BUILD
    trials = (
        Trial(
            bad=(_ADD, _INDEX),
            good=(_ADD, "CREATE INDEX CONCURRENTLY i ON t (a)"),
            together=True,
        ),
        Trial(
            before=("CREATE TABLE o ()",),
            bad=(_ADD, _OTHER),
            good=(_ADD, _OTHER),
            together=True,
            work=Work.CATALOGUE,
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for what makes requests wait longer than the statement by itself."""
        held = scene.held()
        if not held:
            return
        work = _work(statement, scene)
        if work is None:
            yield from self._locks(statement, scene, held)
        else:
            yield from self._works(statement, *work, scene, held)

    def _works(
        self,
        statement: Statement,
        on: Ref,
        work: Work,
        scene: Scene,
        held: dict[Ref, Lock],
    ) -> Iterator[Finding]:
        # What the statement locks as strongly itself is for its own rule.
        own = lock_of(statement)
        worse = [
            ref
            for ref, lock in held.items()
            if not any(scene.is_same(ref, r) and own[r].rank >= lock.rank for r in own)
        ]
        if not worse:
            return
        table = max(worse, key=lambda ref: (held[ref].rank, scene.is_same(ref, on)))
        wait = "use" if held[table] is Lock.ACCESS_EXCLUSIVE else "write"
        yield from self.found(
            table,
            scene,
            f"The server {_DOING[work]} {on} while the transaction holds"
            f" {held[table].value} on {table}.",
            f"Nobody can {wait} {table} until it is done and the revision is"
            " committed.",
            safe=_apart(statement),
            lock=held[table],
            work=work,
            done_on=on,
        )

    def _locks(
        self, statement: Statement, scene: Scene, held: dict[Ref, Lock]
    ) -> Iterator[Finding]:
        if _only_foreign_keys(statement, scene):
            return
        new = [
            (ref, lock)
            for ref, lock in scene.strong(statement).items()
            if not any(scene.is_same(ref, h) for h in held)
        ]
        # Once is enough: the first further table tells what all of them do.
        if not new or _is_told(scene):
            return
        table, lock = max(new, key=lambda each: each[1].rank)
        tables = " and ".join(map(str, held))
        yield from self.found(
            table,
            scene,
            f"{table} is locked by {lock.value} while the transaction holds"
            f" {max(held.values(), key=lambda each: each.rank).value} on {tables}.",
            f"As long as it waits for {table}, requests on {tables} wait behind it; one"
            " that uses the tables in another order deadlocks with the revision.",
            safe=_apart(statement),
            severity=Severity.WARNING,
            lock=lock,
            work=Work.CATALOGUE,
        )


_DOING = {
    Work.SCAN: "reads every row of",
    Work.BUILD: "builds an index of",
    Work.REWRITE: "writes anew",
}


def _work(statement: Statement, scene: Scene) -> tuple[Ref, Work] | None:
    """Return what a statement goes over that takes its time, on a table in use."""
    match statement:
        case st.CreateIndex(table=table, concurrently=False, only=False):
            # In place of an index that the transaction dropped it has its own rule.
            gone = dropped_for(statement, scene)
            found = None if gone is not None and gone in scene.same else Work.BUILD
        case st.ValidateConstraint(table=table, name=name):
            added = (s for s in scene.same if isinstance(s, st.AddConstraint))
            own = any(
                s.constraint.name == name and scene.is_same(s.table, table)
                for s in added
            )
            found = None if own else Work.SCAN
        case st.AddConstraint(table=table, constraint=one) if one.kind in "cf":
            found = None if one.not_valid else Work.SCAN
        case st.AddConstraint(table=table, constraint=one) if one.kind in "upx":
            found = None if one.using_index is not None else Work.BUILD
        case st.SetNotNull(table=table, column=column):
            found = None if scene.is_proved(table, column) else Work.SCAN
        case st.RefreshView(view=table):
            found = None if scene.is_created(table) else Work.REWRITE
        case _:
            return None
    if found is None or scene.is_unused(table):
        return None
    return table, found


def _only_foreign_keys(statement: Statement, scene: Scene) -> bool:
    """Tell whether nothing but foreign keys locks tables: that is another rule's."""
    return all(
        isinstance(s, st.AddConstraint) and s.constraint.kind == "f"
        for s in (*scene.holders(), statement)
    )


def _is_told(scene: Scene) -> bool:
    """Tell whether an earlier statement locked a further table behind another one."""
    first, *others = scene.holders()
    names = {scene.whole_name(ref) for ref in lock_of(first, scene.table)}
    return any(
        scene.whole_name(ref) not in names for s in others for ref in scene.strong(s)
    )


def _apart(statement: Statement) -> Safe:
    if isinstance(statement, st.CreateIndex):
        return Safe(
            why="A revision of its own builds the index concurrently.",
            patterns=(create_index.pattern(statement),),
        )
    return Safe(
        why="In a revision of its own, or an autocommit block, it begins with nothing"
        " locked; what stands before it is committed.",
        code=alone(statement.sql) if statement.sql else ALONE,
    )
