"""
DROP DEFAULT breaks INSERTs that rely on it.

Source: PostgreSQL manual, ALTER TABLE, SET/DROP DEFAULT.
"""

from collections.abc import Iterator

from migrator.lint import statements as st
from migrator.lint import text
from migrator.lint.rule import Finding, Harm, Rule, Safe, Severity, Trial, Work
from migrator.lint.scene import Scene
from migrator.patterns import Custom, Sql
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
        Trial(
            before=(
                "ALTER TABLE t ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (START"
                " WITH 5000)",
            ),
            bad=(
                "ALTER TABLE t ALTER COLUMN id DROP IDENTITY",
                "INSERT INTO t (b) VALUES ('')",
            ),
            good=("INSERT INTO t (b) VALUES ('')",),
            fails=True,
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for a default, or an identity, that somebody may rely on."""
        if isinstance(statement, st.DropIdentity):
            yield from self._identity(statement, scene)
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
        elif found.not_null and not _is_lifted(statement, scene):
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

    def _identity(self, statement: st.DropIdentity, scene: Scene) -> Iterator[Finding]:
        table, column = statement.table, statement.column
        known = scene.table(table)
        found = None if known is None else known.column(column)
        if scene.is_added(table, column) or (found is not None and not found.identity):
            return
        alter = f"ALTER TABLE {text.name(table)} ALTER COLUMN {text.name(column)}"
        yield from self.found(
            table,
            scene,
            f"DROP IDENTITY on {table}.{column} takes its numbers from INSERTs of the"
            " release in use.",
            "Those that leave the column out fail: the column is NOT NULL.",
            safe=Safe(
                why="The identity goes when no old release is left, by a change of its"
                " own.",
                patterns=(
                    Custom(
                        table.name,
                        f"drop identity of {column}",
                        at_retire=[
                            Sql(
                                f"{alter} DROP IDENTITY",
                                no_reverse="its sequence is gone, with the number that"
                                " would be next",
                            )
                        ],
                        touches=[column],
                        schema=table.schema,
                    ),
                ),
            ),
        )


def _is_lifted(statement: st.DropDefault, scene: Scene) -> bool:
    """Tell whether the revision has let the column be NULL before."""
    return any(
        isinstance(s, st.DropNotNull)
        and s.column == statement.column
        and scene.is_same(s.table, statement.table)
        for s in scene.earlier
    )
