"""
ADD COLUMN with REFERENCES locks both tables, and reads every row of a default.

Rows that are NULL in the new column are not looked at.

Source: PostgreSQL manual, ALTER TABLE, ADD FOREIGN KEY (SHARE ROW EXCLUSIVE on the
referenced table).
"""

from collections.abc import Iterator

from migrator.lint import added
from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Trial, Work
from migrator.lint.scene import Scene
from migrator.plan import Lock


class ColumnForeignKey(Rule):
    """A column that comes with a foreign key."""

    code = "ZD109"
    title = "ADD COLUMN with REFERENCES keeps writers out of the other table as well"
    harm = Harm.STALL
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.CATALOGUE
    trials = (
        Trial(
            before=("CREATE TABLE p (id integer PRIMARY KEY)",),
            bad=("ALTER TABLE t ADD COLUMN c integer REFERENCES p",),
            good=(
                "ALTER TABLE t ADD COLUMN c integer",
                "ALTER TABLE t ADD CONSTRAINT k FOREIGN KEY (c) REFERENCES p NOT VALID",
                "ALTER TABLE t VALIDATE CONSTRAINT k",
            ),
        ),
        Trial(
            before=("CREATE TABLE p (id integer PRIMARY KEY)",),
            bad=("ALTER TABLE t ADD COLUMN c integer REFERENCES p",),
            good=(
                "ALTER TABLE t ADD COLUMN c integer",
                "ALTER TABLE t ADD CONSTRAINT k FOREIGN KEY (c) REFERENCES p NOT VALID",
                "ALTER TABLE t VALIDATE CONSTRAINT k",
            ),
            table="p",
            lock=Lock.SHARE_ROW_EXCLUSIVE,
        ),
        Trial(
            before=(
                "CREATE TABLE p (id integer PRIMARY KEY)",
                "INSERT INTO p VALUES (1)",
            ),
            bad=("ALTER TABLE t ADD COLUMN c integer DEFAULT 1 REFERENCES p",),
            good=(
                "ALTER TABLE t ADD COLUMN c integer DEFAULT 1",
                "ALTER TABLE t ADD CONSTRAINT k FOREIGN KEY (c) REFERENCES p NOT VALID",
                "ALTER TABLE t VALIDATE CONSTRAINT k",
            ),
            work=Work.SCAN,
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for a foreign key within the column."""
        if not isinstance(statement, st.AddColumn):
            return
        table, column = statement.table, statement.column
        for constraint in column.constraints:
            if constraint.kind != "f" or constraint.to is None:
                continue
            parent = constraint.to.table
            filled = column.default is not None and not constraint.not_valid
            yield from self.found(
                table,
                scene,
                f"ADD COLUMN {table}.{column.name} REFERENCES {parent} takes ACCESS"
                f" EXCLUSIVE on {table} and SHARE ROW EXCLUSIVE on {parent}"
                + (", and tests the default on every row." if filled else "."),
                f"Whoever uses {table} or writes {parent} waits for both locks; two"
                " such statements may deadlock with requests that take them the other"
                " way round.",
                safe=added.safe(
                    statement,
                    scene,
                    "The column comes alone; the foreign key follows with an index,"
                    " without a look at the rows, and is validated beside the traffic.",
                ),
                work=Work.SCAN if filled else Work.CATALOGUE,
            )
