"""
REINDEX keeps writers out, and readers away from the index.

Source: PostgreSQL manual, REINDEX, Notes: the planner locks every index of a table, so
that nearly any query waits.
"""

from collections.abc import Iterator

from psycopg import sql

from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Trial, Work
from migrator.lint.safe import alone
from migrator.lint.scene import Scene
from migrator.lint.statements import Ref, ref_of
from migrator.patterns import Reindex as Pattern
from migrator.plan import Lock, render


class Reindex(Rule):
    """Indexes that are not built anew concurrently."""

    code = "ZD307"
    title = "REINDEX keeps writers out, and nearly all readers, until it is done"
    harm = Harm.STALL
    lock = Lock.SHARE
    work = Work.BUILD
    trials = (
        Trial(
            bad=("REINDEX TABLE t",),
            good=("REINDEX TABLE CONCURRENTLY t",),
        ),
        Trial(
            bad=("REINDEX INDEX t_pkey",),
            good=("REINDEX INDEX CONCURRENTLY t_pkey",),
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for a plain build."""
        if not isinstance(statement, st.Reindex) or statement.concurrently:
            return
        of, name = statement.of.upper(), statement.name
        table: Ref | None = None
        whose = "every table of it" if of != "INDEX" else "its table"
        if of == "TABLE":
            table = name
        elif of == "INDEX":
            known = scene.table(name)
            if known is not None:
                table = ref_of(known.name)
        yield from self.found(
            table,
            scene,
            f"REINDEX {of} {name} keeps every writer of {table or whose} out, and locks"
            " each index by ACCESS EXCLUSIVE while it is built.",
            "INSERT, UPDATE and DELETE wait, and so do queries, since planning one"
            " locks every index of its table.",
            safe=_safe(of, name, table),
        )


def _safe(of: str, name: Ref, table: Ref | None) -> Safe:
    why = "Each index is built anew beside the old one, concurrently"
    if of in {"TABLE", "INDEX"}:
        return Safe(
            why=f"{why}; what cut-off tries left is dropped.",
            patterns=(
                Pattern(
                    table.name if table is not None else "…",
                    name.name if of == "INDEX" else None,
                    schema=table.schema if table is not None else name.schema,
                ),
            ),
            decide="" if table is not None else "which table it is on.",
        )
    if of == "SYSTEM":
        return Safe(
            why="Catalogues cannot be built anew concurrently: it waits for a"
            " maintenance window."
        )
    text = render(
        sql.SQL("REINDEX {} CONCURRENTLY {}").format(
            sql.SQL("SCHEMA" if of == "SCHEMA" else "DATABASE"),
            sql.Identifier(name.name) if name.name else sql.SQL(""),
        )
    )
    return Safe(why=f"{why}.", code=alone(text.strip()), replaces=True)
