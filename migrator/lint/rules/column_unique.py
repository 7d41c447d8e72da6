"""
ADD COLUMN with UNIQUE or PRIMARY KEY builds an index.

Source: PostgreSQL manual, ALTER TABLE, ADD table_constraint_using_index.
"""

from collections.abc import Iterator

from migrator.lint import added
from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Trial, Work
from migrator.lint.scene import Scene
from migrator.plan import Lock


class ColumnUnique(Rule):
    """A column that comes with a key of its own."""

    code = "ZD107"
    title = "ADD COLUMN with UNIQUE or PRIMARY KEY builds an index in the way of all"
    harm = Harm.STALL
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.BUILD
    trials = (
        Trial(
            bad=("ALTER TABLE t ADD COLUMN c integer UNIQUE",),
            good=(
                "ALTER TABLE t ADD COLUMN c integer",
                "CREATE UNIQUE INDEX CONCURRENTLY k ON t (c)",
                "ALTER TABLE t ADD CONSTRAINT k UNIQUE USING INDEX k",
            ),
        ),
        Trial(
            before=("ALTER TABLE t DROP CONSTRAINT t_pkey",),
            bad=("ALTER TABLE t ADD COLUMN c bigserial PRIMARY KEY",),
            good=(
                "CREATE UNIQUE INDEX CONCURRENTLY k ON t (id)",
                "ALTER TABLE t ADD CONSTRAINT k PRIMARY KEY USING INDEX k",
            ),
            # The numbers of the new column are written besides.
            work=Work.REWRITE,
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for a key within the column."""
        if not isinstance(statement, st.AddColumn):
            return
        table, column = statement.table, statement.column
        kinds = {c.kind for c in column.constraints if c.using_index is None}
        words = {"p": "PRIMARY KEY", "u": "UNIQUE"}
        for kind in sorted(kinds & words.keys()):
            yield from self.found(
                table,
                scene,
                f"ADD COLUMN {table}.{column.name} {words[kind]} builds an index on"
                " every row under ACCESS EXCLUSIVE.",
                "No request can read or write the table meanwhile.",
                safe=added.safe(
                    statement,
                    scene,
                    "The column comes alone; its index is built concurrently, and the"
                    " key takes it over.",
                ),
            )
