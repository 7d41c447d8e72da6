"""
Dropping a foreign key locks both tables against everybody.

Source: PostgreSQL manual, ALTER TABLE, DROP CONSTRAINT; the referenced table by the
trial.
"""

from collections.abc import Iterator

from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Trial, Work
from migrator.lint.scene import Scene
from migrator.lint.statements import ref_of
from migrator.patterns import DropConstraint
from migrator.plan import Lock


class DropForeignKey(Rule):
    """A foreign key that goes."""

    code = "ZD231"
    title = "Dropping a foreign key locks both tables against everybody"
    harm = Harm.STALL
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.CATALOGUE
    trials = (
        Trial(
            before=(
                "CREATE TABLE p (id integer PRIMARY KEY)",
                "ALTER TABLE t ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES p NOT VALID",
            ),
            bad=("ALTER TABLE t DROP CONSTRAINT c",),
            good=(
                "SET lock_timeout = '200ms'",
                "ALTER TABLE t DROP CONSTRAINT c",
                "RESET lock_timeout",
            ),
            table="p",
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for a constraint that the revision or facts know as a foreign key."""
        if not isinstance(statement, st.DropConstraint):
            return
        table, name = statement.table, statement.name
        if scene.constraint(table, name) is not None:
            return
        if scene.guarded or scene.parameter("lock_timeout") is not None:
            return
        known = scene.table(table)
        found = known.constraint(name) if known is not None else None
        if (found.kind if found is not None else statement.kind) != "f":
            return
        parent = "the table that it refers to"
        if found is not None and found.references is not None:
            parent = str(ref_of(found.references))
        yield from self.found(
            table,
            scene,
            f"Dropping foreign key {name} locks {table} and {parent} by ACCESS"
            " EXCLUSIVE.",
            "It is short, but waits for every transaction that uses either table, and"
            " all requests on both queue behind it.",
            safe=Safe(
                why="It is tried with a short lock_timeout until it is granted, and can"
                " come back without stopping writers.",
                patterns=(DropConstraint(table.name, name, schema=table.schema),),
            ),
        )
