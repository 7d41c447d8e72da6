"""
SET NOT NULL reads every row under ACCESS EXCLUSIVE.

A valid CHECK that proves it spares the scan (12+).

Source: PostgreSQL manual, ALTER TABLE, SET/DROP NOT NULL.
"""

from collections.abc import Iterator

from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Trial, Work
from migrator.lint.scene import Scene
from migrator.patterns import SetNotNull as Pattern
from migrator.plan import Lock


class SetNotNull(Rule):
    """A column that refuses NULL from now on."""

    code = "ZD108"
    title = "SET NOT NULL reads every row while nobody can use the table"
    harm = Harm.STALL
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.SCAN
    trials = (
        Trial(
            bad=("ALTER TABLE t ALTER COLUMN a SET NOT NULL",),
            good=(
                "ALTER TABLE t ADD CONSTRAINT c CHECK (a IS NOT NULL) NOT VALID",
                "ALTER TABLE t VALIDATE CONSTRAINT c",
                "ALTER TABLE t ALTER COLUMN a SET NOT NULL",
            ),
        ),
        Trial(
            bad=("ALTER TABLE t ADD CONSTRAINT c NOT NULL a",),
            good=(
                "ALTER TABLE t ADD CONSTRAINT c NOT NULL a NOT VALID",
                "ALTER TABLE t VALIDATE CONSTRAINT c",
            ),
            since=180000,
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for one that nothing proves."""
        match statement:
            case st.SetNotNull(table=table, column=column):
                pass
            case st.AddConstraint(
                table=table,
                constraint=st.NewConstraint(
                    kind="n", columns=(column,), not_valid=False
                ),
            ):
                pass
            case _:
                return
        if scene.is_proved(table, column):
            return
        yield from self.found(
            table,
            scene,
            f"SET NOT NULL on {table}.{column} reads every row under ACCESS EXCLUSIVE.",
            "No request can read or write the table meanwhile; rows that hold NULL make"
            " it fail, and the old release may still insert some.",
            safe=Safe(
                why="It fills NULLs in chunks, proves the column by a check that is"
                " validated beside the traffic, and only then sets NOT NULL, unseen.",
                patterns=(Pattern(table.name, column, fill="…", schema=table.schema),),
                decide="what rows get that hold NULL: `fill`, an SQL expression; leave"
                " it out where there are none.",
            ),
        )
