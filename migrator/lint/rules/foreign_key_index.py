"""
A foreign key without an index makes each DELETE of a parent read the whole table.

Source: PostgreSQL manual, section 5.5.5, Foreign Keys.
"""

from collections.abc import Iterator

from migrator import names
from migrator.lint import foreign_keys
from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Severity, Trial, Work
from migrator.lint.scene import Scene
from migrator.patterns import CreateIndex
from migrator.plan import Lock

_ADD = "ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES p ON DELETE CASCADE NOT VALID"
_BEFORE = (
    "CREATE TABLE p (n integer PRIMARY KEY)",
    "INSERT INTO p SELECT generate_series(0, 99)",
)


class ForeignKeyIndex(Rule):
    """A foreign key whose columns no index begins with."""

    code = "ZD205"
    title = "A foreign key without an index: deletes of a parent read the whole table"
    harm = Harm.STALL
    lock = Lock.ROW_EXCLUSIVE
    work = Work.SCAN
    trials = (
        Trial(
            before=_BEFORE,
            bad=(_ADD, "DELETE FROM p WHERE n = 1"),
            good=(
                "CREATE INDEX CONCURRENTLY i ON t (a)",
                _ADD,
                "DELETE FROM p WHERE n = 2",
            ),
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for one that facts know, and the revision, to have none."""
        for table, key in foreign_keys.added(statement):
            assert key.to is not None
            parent, columns = key.to.table, key.columns
            if scene.is_unused(parent):
                continue
            if foreign_keys.is_indexed(table, columns, scene) is not False:
                continue
            yield from self.found(
                table,
                scene,
                f"No index of {table} begins with ({', '.join(columns)}), which refers"
                f" to {parent}.",
                f"Each DELETE from {parent}, and each UPDATE of its key, reads all of"
                f" {table}, and holds its locks so long.",
                safe=Safe(
                    why="The index is built concurrently, in a revision before the"
                    " foreign key; AddForeignKey builds it as well.",
                    patterns=(
                        CreateIndex(
                            table.name,
                            list(columns),
                            names.fitted(f"ix_{'_'.join((table.name, *columns))}", ""),
                            schema=table.schema,
                        ),
                    ),
                ),
                severity=Severity.WARNING,
            )
