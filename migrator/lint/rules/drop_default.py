"""
DROP DEFAULT breaks INSERTs that rely on it.

Source: PostgreSQL manual, ALTER TABLE, SET/DROP DEFAULT.
"""

from collections.abc import Iterator

from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Severity, Trial, Work
from migrator.lint.scene import Scene
from migrator.patterns import DropDefault as Pattern
from migrator.plan import Lock


class DropDefault(Rule):
    """A default that goes."""

    code = "ZD123"
    title = "DROP DEFAULT breaks INSERTs of the release in use that rely on it"
    harm = Harm.BREAK
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.CATALOGUE
    trials = (
        Trial(
            before=("ALTER TABLE t ALTER COLUMN b SET DEFAULT ''",),
            bad=("ALTER TABLE t ALTER COLUMN b DROP DEFAULT",),
            good=(
                "ALTER TABLE t ADD COLUMN c integer DEFAULT 0",
                "ALTER TABLE t ALTER COLUMN c DROP DEFAULT",
            ),
        ),
        Trial(
            bad=(
                "ALTER TABLE t ADD COLUMN c integer NOT NULL DEFAULT 0",
                "ALTER TABLE t ALTER COLUMN c DROP DEFAULT",
                "INSERT INTO t (id, b) VALUES (0, '')",
            ),
            good=(
                "ALTER TABLE t ADD COLUMN c integer NOT NULL DEFAULT 0",
                "INSERT INTO t (id, b) VALUES (0, '')",
            ),
            fails=True,
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for a default that somebody may rely on."""
        if not isinstance(statement, st.DropDefault):
            return
        table, column = statement.table, statement.column
        new = scene.added(table, column)
        known = scene.table(table)
        found = None if known is None else known.column(column)
        if new is not None:
            # The release in use does not know the column: it leaves it out.
            if not new.not_null or new.default is None:
                return
            harm, severity = "fail: they do not know the new column", Severity.ERROR
        elif found is None:
            harm, severity = "store NULL, or fail", Severity.ERROR
        elif found.default is None:
            return
        elif found.not_null:
            harm, severity = "fail: the column is NOT NULL", Severity.ERROR
        else:
            harm, severity = "store NULL", Severity.WARNING
        yield from self.found(
            table,
            scene,
            f"DROP DEFAULT on {table}.{column} takes it from INSERTs of the release in"
            " use.",
            f"Those that leave the column out {harm}.",
            safe=Safe(
                why="The default goes when no old release is left, by a change of its"
                " own.",
                patterns=(Pattern(table.name, column, schema=table.schema),),
            ),
            severity=severity,
        )
