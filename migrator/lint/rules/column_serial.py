"""
ADD COLUMN of a serial or identity numbers every row, and writes it anew.

Source: PostgreSQL manual, ALTER TABLE, Notes; section 8.1.4.
"""

from collections.abc import Iterator

from migrator.lint import added
from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Trial, Work
from migrator.lint.scene import Scene
from migrator.plan import Lock


class ColumnSerial(Rule):
    """A column that draws its values from a sequence of its own."""

    code = "ZD103"
    title = "ADD COLUMN of a serial or identity writes every row anew"
    harm = Harm.STALL
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.REWRITE
    trials = (
        Trial(
            bad=("ALTER TABLE t ADD COLUMN c bigserial",),
            good=(
                "CREATE SEQUENCE t_c_seq",
                "ALTER TABLE t ADD COLUMN c bigint",
                "ALTER TABLE t ALTER COLUMN c SET DEFAULT nextval('t_c_seq')",
                "UPDATE t SET c = nextval('t_c_seq') WHERE c IS NULL",
                "ALTER TABLE t ADD CONSTRAINT n CHECK (c IS NOT NULL) NOT VALID",
                "ALTER TABLE t VALIDATE CONSTRAINT n",
                "ALTER TABLE t ALTER COLUMN c SET NOT NULL",
            ),
        ),
        Trial(
            bad=("ALTER TABLE t ADD COLUMN c bigint GENERATED ALWAYS AS IDENTITY",),
            good=("ALTER TABLE t ADD COLUMN c bigint",),
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for one."""
        if not isinstance(statement, st.AddColumn):
            return
        table, column = statement.table, statement.column
        if not added.is_drawn(column):
            return
        kind = "an identity" if column.identity else f"a {column.type.lower()}"
        yield from self.found(
            table,
            scene,
            f"ADD COLUMN {table}.{column.name}, {kind}, numbers and writes every row"
            " anew under ACCESS EXCLUSIVE.",
            "No request can read or write the table meanwhile, and each index of it is"
            " built again.",
            safe=added.safe(
                statement,
                scene,
                "New rows are numbered by a default, those that are there in chunks;"
                " the column is NOT NULL, and an identity, at retire.",
            ),
        )
