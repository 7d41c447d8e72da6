"""
VALIDATE in the transaction that added the constraint reads under its strong lock.

Source: PostgreSQL manual, ALTER TABLE, Notes: a lock is held to the transaction's end.
"""

from collections.abc import Iterator

from migrator.lint import foreign_keys
from migrator.lint import statements as st
from migrator.lint.locks import lock_of
from migrator.lint.rule import Finding, Harm, Rule, Safe, Trial, Work
from migrator.lint.scene import Scene
from migrator.pattern import Pattern
from migrator.patterns import AddCheck
from migrator.plan import Lock

_ADD = "ALTER TABLE t ADD CONSTRAINT c CHECK (a >= 0) NOT VALID"
_FOREIGN = "ALTER TABLE t ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES p NOT VALID"
_VALIDATE = "ALTER TABLE t VALIDATE CONSTRAINT c"


class ValidateTogether(Rule):
    """A constraint that is added NOT VALID and validated in one transaction."""

    code = "ZD213"
    title = (
        "NOT VALID and VALIDATE in one transaction: the strong lock is held meanwhile"
    )
    harm = Harm.STALL
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.SCAN
    trials = (
        Trial(bad=(_ADD, _VALIDATE), good=(_ADD, _VALIDATE), together=True),
        Trial(
            before=(
                "CREATE TABLE p (n integer PRIMARY KEY)",
                "INSERT INTO p SELECT generate_series(0, 99)",
            ),
            bad=(_FOREIGN, _VALIDATE),
            good=(_FOREIGN, _VALIDATE),
            together=True,
            lock=Lock.SHARE_ROW_EXCLUSIVE,
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for a constraint that the same transaction added."""
        if not isinstance(statement, st.ValidateConstraint):
            return
        table, name = statement.table, statement.name
        for s in scene.same:
            if (
                not isinstance(s, st.AddConstraint)
                or s.constraint.name != name
                or not scene.is_same(s.table, table)
            ):
                continue
            lock = lock_of(s)[s.table]
            wait = "use" if lock is Lock.ACCESS_EXCLUSIVE else "write"
            yield from self.found(
                table,
                scene,
                f"VALIDATE CONSTRAINT {name} reads every row of {table} in the"
                f" transaction that added it, which holds {lock.value}.",
                f"Nobody can {wait} the table meanwhile: NOT VALID has spared nothing.",
                safe=Safe(
                    why="It is added and validated in two transactions, each with a"
                    " lock_timeout of its own.",
                    patterns=_patterns(s, scene),
                ),
                lock=lock,
            )


def _patterns(added: st.AddConstraint, scene: Scene) -> tuple[Pattern, ...]:
    table, constraint = added.table, added.constraint
    if constraint.to is not None:
        return (foreign_keys.pattern(table, constraint, scene),)
    return (
        AddCheck(
            table.name,
            str(constraint.name),
            constraint.expression,
            schema=table.schema,
        ),
    )
