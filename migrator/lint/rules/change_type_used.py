"""
The server refuses a change of type of a column that something else reads.

Views, rules, triggers on the column, policies, functions with a body of SQL and
generated columns hold it. Indexes, CHECKs and foreign keys do not: they are made anew.

Source: `ATExecAlterColumnType` in the server.
"""

from collections.abc import Iterator

from migrator.kernels.dropping import blocks_drop
from migrator.lint import casts
from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Severity, Trial, Work
from migrator.lint.scene import Scene
from migrator.pattern import OPEN
from migrator.patterns import ChangeColumnType
from migrator.plan import Lock


class ChangeTypeUsed(Rule):
    """A column whose type the server lets nobody change."""

    code = "ZD119"
    title = "ALTER COLUMN TYPE fails where a view or a generated column reads it"
    harm = Harm.FAIL
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.CATALOGUE
    trials = (
        Trial(
            before=(
                "ALTER TABLE t ADD COLUMN c varchar(10)",
                "CREATE VIEW v AS SELECT c FROM t",
            ),
            bad=("ALTER TABLE t ALTER COLUMN c TYPE varchar(20)",),
            good=(
                "DROP VIEW v",
                "ALTER TABLE t ALTER COLUMN c TYPE varchar(20)",
                "CREATE VIEW v AS SELECT c FROM t",
            ),
            fails=True,
        ),
        Trial(
            before=(
                "ALTER TABLE t ADD COLUMN c varchar(10)",
                "ALTER TABLE t ADD COLUMN d integer"
                " GENERATED ALWAYS AS (length(c)) STORED",
            ),
            bad=("ALTER TABLE t ALTER COLUMN c TYPE varchar(20)",),
            good=(
                "ALTER TABLE t DROP COLUMN d",
                "ALTER TABLE t ALTER COLUMN c TYPE varchar(20)",
            ),
            fails=True,
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look in the database for what reads the column."""
        if not isinstance(statement, st.ChangeType):
            return
        used = readers(statement, scene)
        if not used:
            return
        table, column = statement.table, statement.column
        cast = casts.cast(statement, scene)
        yield from self.found(
            table,
            scene,
            f"ALTER COLUMN {table}.{column} TYPE {cast.new} fails: it is read by"
            f" {', '.join(used)}.",
            "The server refuses to change the type of a column that these read; the"
            " revision fails, on an empty table too.",
            safe=Safe(
                why="What reads the column goes in a revision before, or is made again"
                " without it, and comes back in one behind: a view in plain SQL, with"
                " its privileges; a generated column as one that AddColumn computes"
                " (`computed`), and DropColumn.",
                patterns=(
                    ChangeColumnType(
                        table.name,
                        column,
                        cast.new,
                        old_type=cast.old,
                        schema=table.schema,
                        assured=OPEN,
                    ),
                ),
                decide=f"what becomes of {', '.join(used)}, before the type can be"
                " changed",
            ),
            severity=Severity.ERROR,
            always=True,
        )


def readers(statement: st.ChangeType, scene: Scene) -> list[str]:
    """Return what keeps a column's type, as the server describes it."""
    known = scene.table(statement.table)
    column = None if known is None else known.column(statement.column)
    if column is None:
        return []
    held = [
        *blocks_drop(column),
        *(f'generated column "{name}"' for name in column.feeds),
    ]
    return [what for what in held if not scene.is_gone(what)]
