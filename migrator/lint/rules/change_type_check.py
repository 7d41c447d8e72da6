"""
A free change of type tests each CHECK that names the column again.

Source: `ATPostAlterTypeCleanup` in the server makes the constraints anew.
"""

from collections.abc import Iterator

from migrator.facts import Table
from migrator.lint import casts, text
from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Trial, Work
from migrator.lint.rules.change_type_used import readers
from migrator.lint.scene import Scene
from migrator.plan import Lock


class ChangeTypeCheck(Rule):
    """A column whose rows stay as they are, and are read for a CHECK."""

    code = "ZD117"
    title = "ALTER COLUMN TYPE tests a CHECK on every row, though the cast is free"
    harm = Harm.STALL
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.SCAN
    trials = (
        Trial(
            before=(
                "ALTER TABLE t ADD COLUMN c varchar(10)",
                "ALTER TABLE t ADD CONSTRAINT k CHECK (c <> '')",
            ),
            bad=("ALTER TABLE t ALTER COLUMN c TYPE varchar(20)",),
            good=(
                "ALTER TABLE t DROP CONSTRAINT k, ALTER COLUMN c TYPE varchar(20),"
                " ADD CONSTRAINT k CHECK (c <> '') NOT VALID",
                "ALTER TABLE t VALIDATE CONSTRAINT k",
            ),
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for a CHECK on the column, in the database."""
        if not isinstance(statement, st.ChangeType):
            return
        cast = casts.cast(statement, scene)
        gone = tuple(
            s.name
            for s in scene.earlier
            if isinstance(s, st.DropConstraint) and s.table == statement.table
        )
        checks = [name for name in cast.checks if name not in gone]
        if not checks or cast.table is None or readers(statement, scene):
            return
        table, column = statement.table, statement.column
        named = ", ".join(checks)
        yield from self.found(
            table,
            scene,
            f"ALTER COLUMN {table}.{column} TYPE {cast.new} tests {named} on every row"
            " under ACCESS EXCLUSIVE.",
            "The cast itself is free, but each CHECK that names the column is made"
            " anew; no request can read or write the table meanwhile.",
            safe=Safe(
                why="The check goes and comes back in one statement, without a look at"
                " the rows, and is validated beside the traffic in a transaction of"
                " its own.",
                code=_code(statement, cast, cast.table, checks),
            ),
        )


def _code(
    statement: st.ChangeType, cast: casts.Cast, table: Table, checks: list[str]
) -> str:
    alter = f"ALTER TABLE {text.name(statement.table)}"
    found = [table.constraint(name) for name in checks]
    known = [check for check in found if check is not None]
    parts = [
        *(f"DROP CONSTRAINT {text.name(c.name)}" for c in known),
        casts.clause(statement),
        *(
            f"ADD CONSTRAINT {text.name(c.name)}"
            f" {c.definition.removesuffix(' NOT VALID')} NOT VALID"
            for c in known
        ),
    ]
    return "\n".join(
        (
            text.execute(f"{alter} {', '.join(parts)}"),
            *(
                text.execute_alone(f"{alter} VALIDATE CONSTRAINT {text.name(c.name)}")
                for c in known
                if c.validated
            ),
        )
    )
