"""
TRUNCATE takes all rows from every reader, also those of older snapshots.

Source: PostgreSQL manual, TRUNCATE: not MVCC-safe; CASCADE empties all tables that
refer to the table.
"""

from collections.abc import Iterator

from migrator.lint import statements as st
from migrator.lint import text
from migrator.lint.rule import Finding, Harm, Rule, Safe, Trial, Work
from migrator.lint.scene import Scene
from migrator.lint.statements import Ref, ref_of
from migrator.plan import Lock

# Rows that go in one transaction: some ten milliseconds.
_CHUNK_ROWS = 5000


class Truncate(Rule):
    """A table that is emptied at once."""

    code = "ZD407"
    title = "TRUNCATE empties a table for every reader at once, with what refers to it"
    harm = Harm.BREAK
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.CATALOGUE
    trials = (
        Trial(
            bad=("TRUNCATE t",),
            good=(
                "DELETE FROM t WHERE ctid = ANY (ARRAY(SELECT ctid FROM t LIMIT 500))",
            ),
        ),
        Trial(
            before=("CREATE TABLE c (id bigint REFERENCES t)",),
            bad=("TRUNCATE t CASCADE",),
            good=("DELETE FROM c", "DELETE FROM t WHERE id < 500"),
            table="c",
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for tables that somebody may read."""
        if not isinstance(statement, st.Truncate):
            return
        for table in statement.tables:
            name = text.name(table)
            yield from self.found(
                table,
                scene,
                f"TRUNCATE {table}{_with(statement, table, scene)} takes all rows at"
                " once, under ACCESS EXCLUSIVE.",
                "Requests wait for a lock that waits for every running one, and read"
                " nothing afterwards, also in transactions that began before; no"
                " trigger sees the rows go.",
                safe=Safe(
                    why="Rows go in chunks, each a transaction of its own, from a job"
                    " outside of the revision: nobody waits.",
                    code=f"DELETE FROM {name} WHERE ctid = ANY"
                    f" (ARRAY(SELECT ctid FROM {name} LIMIT {_CHUNK_ROWS}));"
                    "  -- again, until no row is left",
                    decide="whether the release in use can do without the rows.",
                ),
            )


def _with(statement: st.Truncate, table: Ref, scene: Scene) -> str:
    if not statement.cascade:
        return ""
    known = scene.table(table)
    if known is None:
        return " CASCADE, with every table that refers to it,"
    others = {
        str(ref_of(k.table))
        for k in known.foreign_keys
        if k.to == known.name != k.table
    }
    return f" CASCADE, with {', '.join(sorted(others))}," if others else ""
