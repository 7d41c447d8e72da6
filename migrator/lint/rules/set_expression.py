"""
SET EXPRESSION computes and writes every row anew.

Of a VIRTUAL column (18+) only the catalogue changes.

Source: PostgreSQL manual, ALTER TABLE, SET EXPRESSION (17+).
"""

from collections.abc import Iterator

from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Severity, Trial, Work
from migrator.lint.rules.column_generated import VIRTUAL
from migrator.lint.scene import Scene
from migrator.pattern import OPEN
from migrator.patterns import AddColumn, DropColumn
from migrator.plan import Lock

#: `server_version_num` of the first server that knows it.
SINCE = 170000


class SetExpression(Rule):
    """A stored generated column that is computed otherwise."""

    code = "ZD120"
    title = "SET EXPRESSION writes every row anew while nobody can use the table"
    harm = Harm.STALL
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.REWRITE
    trials = (
        Trial(
            before=(
                "ALTER TABLE t ADD COLUMN c integer GENERATED ALWAYS AS (a) STORED",
            ),
            bad=("ALTER TABLE t ALTER COLUMN c SET EXPRESSION AS (a * 2)",),
            good=("ALTER TABLE t ADD COLUMN d integer", "UPDATE t SET d = a * 2"),
            since=SINCE,
        ),
        Trial(
            before=(
                "ALTER TABLE t ADD COLUMN c integer GENERATED ALWAYS AS (a) STORED",
                "ALTER TABLE t ADD COLUMN d integer GENERATED ALWAYS AS (a) VIRTUAL",
            ),
            bad=("ALTER TABLE t ALTER COLUMN c SET EXPRESSION AS (a * 2)",),
            good=("ALTER TABLE t ALTER COLUMN d SET EXPRESSION AS (a * 2)",),
            since=VIRTUAL,
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for one on a column that is not virtual."""
        if not isinstance(statement, st.SetExpression):
            return
        table, column = statement.table, statement.column
        known = scene.table(table)
        found = None if known is None else known.column(column)
        safe = Safe(
            why="Another column is computed by a trigger and filled in chunks; the old"
            " one goes when no release reads it.",
            patterns=(
                AddColumn(
                    table.name,
                    OPEN,
                    OPEN if found is None else found.type,
                    computed=statement.expression,
                    schema=table.schema,
                ),
            ),
            then=(DropColumn(table.name, column, schema=table.schema),),
            decide="the column's name in the new release"
            + (", and its type" if found is None else ""),
        )
        version = scene.server_version
        if version is not None and version < SINCE:
            yield from self.found(
                table,
                scene,
                f"SET EXPRESSION on {table}.{column} is not known to PostgreSQL"
                f" {version // 10000}.",
                "The revision fails; it came with 17.",
                safe=safe,
                severity=Severity.ERROR,
                work=Work.CATALOGUE,
            )
            return
        if found is not None and found.virtual:
            return
        yield from self.found(
            table,
            scene,
            f"SET EXPRESSION on {table}.{column} computes and writes every row anew"
            " under ACCESS EXCLUSIVE.",
            "No request can read or write the table meanwhile, and the release in use"
            " reads other values from then on.",
            safe=safe,
        )
