"""
DROP TABLE breaks a release that uses the table, and locks those it refers to.

Source: PostgreSQL manual, DROP TABLE; the foreign keys' triggers go from both tables.
"""

from collections.abc import Iterator

from migrator.facts import ForeignKey, Table
from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Trial, Work
from migrator.lint.scene import Scene
from migrator.lint.statements import ref_of
from migrator.patterns import DropConstraint, RenameTable
from migrator.patterns import DropTable as Pattern
from migrator.plan import Lock


class DropTable(Rule):
    """A table that goes."""

    code = "ZD401"
    title = "DROP TABLE breaks a release that still uses the table"
    harm = Harm.BREAK
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.CATALOGUE
    trials = (
        Trial(
            bad=("DROP TABLE t",),
            good=("ALTER TABLE t RENAME TO _retired_t",),
        ),
        Trial(
            before=(
                "CREATE TABLE p (id integer PRIMARY KEY)",
                "ALTER TABLE t ADD CONSTRAINT k FOREIGN KEY (a) REFERENCES p NOT VALID",
            ),
            bad=("DROP TABLE t",),
            good=("ALTER TABLE t RENAME TO _retired_t",),
            table="p",
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for a table that was there before the revision."""
        if not isinstance(statement, st.DropTable):
            return
        table = statement.table
        known = scene.table(table)
        incoming = _incoming(known)
        also = ""
        if known is None:
            also = " and on each table that its foreign keys refer to"
        elif parents := {str(ref_of(k.to)) for k in _left(known, statement, scene)}:
            also = f" and on {', '.join(sorted(parents))}, to which it refers"
        yield from self.found(
            table,
            scene,
            f"DROP TABLE {table} takes the table from the release in use, under ACCESS"
            f" EXCLUSIVE on it{also}.",
            "Each request that names the table fails; its rows are lost."
            + (
                " Foreign keys and views of others go along, unseen."
                if statement.cascade
                else ""
            ),
            safe=_safe(statement, scene, incoming),
        )


def _outgoing(table: Table) -> list[ForeignKey]:
    return [k for k in table.foreign_keys if k.table == table.name != k.to]


def _left(table: Table, statement: st.DropTable, scene: Scene) -> list[ForeignKey]:
    """Return the foreign keys that the revision has not dropped before."""
    gone = [s for s in scene.earlier if isinstance(s, st.DropTable | st.DropConstraint)]
    return [
        k
        for k in _outgoing(table)
        if not any(
            scene.is_same(s.table, statement.table) and s.name == k.name
            if isinstance(s, st.DropConstraint)
            else scene.is_same(s.table, ref_of(k.to))
            for s in gone
        )
    ]


def _incoming(table: Table | None) -> list[ForeignKey]:
    if table is None:
        return []
    return [k for k in table.foreign_keys if k.to == table.name != k.table]


def _safe(statement: st.DropTable, scene: Scene, incoming: list[ForeignKey]) -> Safe:
    table = statement.table
    drop = Pattern(table.name, schema=table.schema)
    keys = tuple(
        DropConstraint(k.table.name, k.name, schema=k.table.schema or None)
        for k in incoming
    )
    renamed = tuple(
        RenameTable(table.name, new, schema=table.schema)
        for new in _taking_over(statement, scene)
    )
    why = (
        "The table is out of sight at retire, kept for the hold, and dropped when no"
        " release uses it; its foreign keys go one by one."
    )
    if keys:
        return Safe(
            why=f"Foreign keys to it go first. {why}",
            patterns=keys[:1],
            then=(*keys[1:], drop),
        )
    return Safe(
        why=why,
        patterns=(drop, *renamed),
        decide="whether the table goes, or is the one that the revision makes under"
        " another name."
        if renamed
        else "",
    )


def _taking_over(statement: st.DropTable, scene: Scene) -> list[str]:
    """Return tables that the revision made, which have most of the columns."""
    known = scene.table(statement.table)
    if known is None:
        return []
    columns = {c.name for c in known.columns}
    return [
        s.table.name
        for s in scene.earlier
        if isinstance(s, st.CreateTable)
        and s.table.schema == statement.table.schema
        and 2 * len(columns.intersection(c.name for c in s.columns)) > len(columns)
    ]
