"""
ADD COLUMN of a STORED generated column writes every row anew.

A VIRTUAL one (18+) is computed when it is read: nothing is written.

Source: PostgreSQL manual, section 5.4; ALTER TABLE, Notes.
"""

from collections.abc import Iterator
from dataclasses import replace

from migrator.lint import added, text
from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Severity, Trial, Work
from migrator.lint.scene import Scene
from migrator.pattern import OPEN
from migrator.plan import Lock

#: `server_version_num` of the first server with virtual generated columns.
VIRTUAL = 180000


class ColumnGenerated(Rule):
    """A column that is computed and stored."""

    code = "ZD104"
    title = "ADD COLUMN of a STORED generated column writes every row anew"
    harm = Harm.STALL
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.REWRITE
    trials = (
        Trial(
            bad=(
                "ALTER TABLE t ADD COLUMN c integer GENERATED ALWAYS AS (a * 2) STORED",
            ),
            good=("ALTER TABLE t ADD COLUMN c integer", "UPDATE t SET c = a * 2"),
        ),
        Trial(
            bad=(
                "ALTER TABLE t ADD COLUMN c integer GENERATED ALWAYS AS (a * 2) STORED",
            ),
            good=(
                "ALTER TABLE t ADD COLUMN c integer GENERATED ALWAYS AS (a * 2)"
                " VIRTUAL",
            ),
            since=VIRTUAL,
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for a stored one, and for a virtual one that the server lacks."""
        if not isinstance(statement, st.AddColumn):
            return
        table, column = statement.table, statement.column
        version = scene.server_version
        if column.generated == "virtual":
            if version is not None and version < VIRTUAL:
                yield from self.found(
                    table,
                    scene,
                    f"ADD COLUMN {table}.{column.name} is generated and VIRTUAL, which"
                    f" PostgreSQL {version // 10000} does not know.",
                    "The revision fails; virtual columns came with 18.",
                    safe=self._safe(statement, scene, virtual=False),
                    severity=Severity.ERROR,
                    work=Work.CATALOGUE,
                )
            return
        if column.generated is None or (
            column.generated == "either" and version is not None and version >= VIRTUAL
        ):
            return
        yield from self.found(
            table,
            scene,
            f"ADD COLUMN {table}.{column.name} GENERATED … STORED computes and writes"
            " every row anew under ACCESS EXCLUSIVE.",
            "No request can read or write the table meanwhile, and each index of it is"
            " built again.",
            safe=self._safe(
                statement, scene, virtual=version is None or version >= VIRTUAL
            ),
        )

    def _safe(self, statement: st.AddColumn, scene: Scene, *, virtual: bool) -> Safe:
        column = statement.column
        found = added.safe(
            statement,
            scene,
            "The column is an ordinary one, computed by a trigger and filled in chunks;"
            " from contract on the application writes it.",
            "whether the application, or a trigger of your own, computes it from then"
            " on" + ("; or a VIRTUAL column, from PostgreSQL 18 on" if virtual else ""),
        )
        if not virtual:
            return found
        collation = (
            f" COLLATE {text.name(column.collation)}" if column.collation else ""
        )
        return replace(
            found,
            code=text.execute(
                f"ALTER TABLE {text.name(statement.table)} ADD COLUMN"
                f" {text.name(column.name)} {column.type}{collation}"
                f" GENERATED ALWAYS AS ({column.computed or OPEN}) VIRTUAL"
            ),
        )
