"""
ADD FOREIGN KEY reads the whole table while writers of both tables wait.

Source: PostgreSQL manual, ALTER TABLE, ADD table_constraint and Notes.
"""

from collections.abc import Iterator

from migrator.kernels.foreign_key import NOT_VALID_ON_PARTITIONED
from migrator.lint import foreign_keys
from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Trial, Work
from migrator.lint.scene import Scene
from migrator.lint.statements import Ref
from migrator.plan import Lock
from migrator.words import counted

_BEFORE = (
    "CREATE TABLE p (n integer PRIMARY KEY)",
    "INSERT INTO p SELECT generate_series(0, 99)",
)
_TO = "FOREIGN KEY (a) REFERENCES p"


class AddForeignKey(Rule):
    """A foreign key that is checked for all rows at once."""

    code = "ZD201"
    title = "ADD FOREIGN KEY reads every row while writers of both tables wait"
    harm = Harm.STALL
    lock = Lock.SHARE_ROW_EXCLUSIVE
    work = Work.SCAN
    trials = (
        Trial(
            before=_BEFORE,
            bad=(f"ALTER TABLE t ADD {_TO}",),
            good=(
                f"ALTER TABLE t ADD CONSTRAINT c {_TO} NOT VALID",
                "ALTER TABLE t VALIDATE CONSTRAINT c",
            ),
        ),
        Trial(
            before=_BEFORE,
            bad=(f"ALTER TABLE t ADD {_TO}",),
            good=(
                f"ALTER TABLE t ADD CONSTRAINT c {_TO} NOT VALID",
                "ALTER TABLE t VALIDATE CONSTRAINT c",
            ),
            table="p",
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for one that is not NOT VALID."""
        if not isinstance(statement, st.AddConstraint):
            return
        table, key = statement.table, statement.constraint
        if key.to is None:
            return
        parent = key.to.table
        known = scene.table(table)
        version = scene.server_version or NOT_VALID_ON_PARTITIONED
        early = (
            known is not None
            and known.kind == "p"
            and version < NOT_VALID_ON_PARTITIONED
        )
        if key.not_valid:
            if early:
                yield from self._too_early(table, key, scene, version)
            return
        rows = scene.rows(parent)
        size = f" ({counted(rows)})" if rows else ""
        decide = ""
        if foreign_keys.parent_columns(key, scene) == foreign_keys.UNKNOWN:
            decide = f"which columns of {parent} it refers to: its primary key."
        if early:
            decide = (
                "when nobody writes either table: before PostgreSQL 18 a partitioned"
                " table takes no foreign key NOT VALID, so that the pattern refuses it."
            )
        name = foreign_keys.name_of(table, key)
        yield from self.found(
            table,
            scene,
            f"ADD FOREIGN KEY {name} reads every row of {table} under SHARE ROW"
            f" EXCLUSIVE on {table} and on {parent}.",
            f"Nobody can write {table} or {parent}{size} meanwhile; a row without a"
            " parent makes it fail.",
            safe=Safe(
                why="Rows without a parent are counted first; then it is added NOT"
                " VALID, and validated while both tables are written.",
                patterns=(foreign_keys.pattern(table, key, scene),),
                decide=decide,
            ),
        )

    def _too_early(
        self, table: Ref, key: st.NewConstraint, scene: Scene, version: int
    ) -> Iterator[Finding]:
        yield from self.found(
            table,
            scene,
            f"ADD FOREIGN KEY {foreign_keys.name_of(table, key)} NOT VALID fails:"
            f" {table} is partitioned, and PostgreSQL {version // 10000} takes none"
            " there.",
            "It came with 18; before, each partition may get one by itself.",
            harm=Harm.FAIL,
            lock=Lock.NONE,
            work=Work.CATALOGUE,
            always=True,
        )
