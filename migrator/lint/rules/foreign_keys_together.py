"""
Two foreign keys in one transaction lock several tables, one after another.

Source: PostgreSQL manual, ALTER TABLE, ADD table_constraint: SHARE ROW EXCLUSIVE on
both tables; section 13.3.4, Deadlocks.
"""

from collections.abc import Iterator

from migrator.lint import foreign_keys
from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Severity, Trial, Work
from migrator.lint.scene import Scene
from migrator.lint.statements import Ref
from migrator.plan import Lock

_KEYS = (
    "ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES p NOT VALID",
    "ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES q NOT VALID",
)


class ForeignKeysTogether(Rule):
    """A second foreign key that locks one more table."""

    code = "ZD203"
    title = "Two foreign keys in one transaction lock several tables one by one"
    harm = Harm.STALL
    lock = Lock.SHARE_ROW_EXCLUSIVE
    work = Work.CATALOGUE
    trials = (
        Trial(
            before=(
                "CREATE TABLE p (id integer PRIMARY KEY)",
                "CREATE TABLE q (id integer PRIMARY KEY)",
                "INSERT INTO p VALUES (1); INSERT INTO q VALUES (1)",
            ),
            bad=_KEYS,
            good=_KEYS,
            table="p",
            together=True,
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for one more table than an earlier foreign key has locked."""
        now = self._locked([statement], scene)
        before = self._locked(scene.same, scene) if now else []
        if not before:
            return
        for ref in now:
            if any(scene.is_same(ref, held) for held in before):
                continue
            yield from self.found(
                ref,
                scene,
                f"A further foreign key locks {ref} too, while {_list(before)}"
                f" {'is' if len(before) == 1 else 'are'} still locked.",
                "Nobody can write any of them until the last lock is granted; a request"
                " that uses them in another order deadlocks with the revision.",
                safe=Safe(
                    why="One foreign key in each revision locks two tables, for an"
                    " instant.",
                    patterns=tuple(
                        foreign_keys.pattern(table, key, scene)
                        for table, key in foreign_keys.added(statement)
                    ),
                ),
                severity=Severity.WARNING,
            )
            return

    def _locked(self, statements: list[st.Statement], scene: Scene) -> list[Ref]:
        """Return the tables in use that foreign keys lock, each once."""
        found: list[Ref] = []
        for statement in statements:
            for table, key in foreign_keys.added(statement):
                assert key.to is not None
                for ref in (table, key.to.table):
                    if not scene.is_unused(ref) and not any(
                        scene.is_same(ref, one) for one in found
                    ):
                        found.append(ref)
        return found


def _list(refs: list[Ref]) -> str:
    return " and ".join(map(str, refs))
