"""
VACUUM FULL, CLUSTER and changes of storage write a table anew.

Source: PostgreSQL manual, VACUUM, CLUSTER, ALTER TABLE.
"""

from collections.abc import Iterator

from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Trial, Work
from migrator.lint.scene import Scene
from migrator.patterns import RebuildTable
from migrator.plan import Lock

# What writes a table anew as it is; the others say what becomes of it.
_AGAIN = ("VACUUM FULL", "CLUSTER")


class RewriteTable(Rule):
    """A table that is written anew while nobody can use it."""

    code = "ZD420"
    title = "VACUUM FULL, CLUSTER, SET LOGGED, TABLESPACE … write every row anew"
    harm = Harm.STALL
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.REWRITE
    trials = (
        Trial(bad=("VACUUM FULL t",), good=("VACUUM t",)),
        Trial(bad=("VACUUM FULL",), good=("VACUUM",)),
        Trial(
            bad=("CLUSTER t USING t_pkey",), good=("ALTER TABLE t CLUSTER ON t_pkey",)
        ),
        Trial(
            bad=("ALTER TABLE t SET UNLOGGED",),
            good=("CREATE UNLOGGED TABLE u (LIKE t)",),
        ),
        Trial(
            bad=("ALTER TABLE t SET UNLOGGED", "ALTER TABLE t SET LOGGED"),
            good=("CREATE TABLE u (LIKE t)",),
        ),
        Trial(
            before=("CREATE ACCESS METHOD h TYPE TABLE HANDLER heap_tableam_handler",),
            bad=("ALTER TABLE t SET ACCESS METHOD h",),
            good=("CREATE TABLE u (LIKE t) USING h",),
        ),
        Trial(
            before=(
                "SET allow_in_place_tablespaces = on",
                "DROP TABLESPACE IF EXISTS migrator_lint",
                "CREATE TABLESPACE migrator_lint LOCATION ''",
            ),
            bad=("ALTER TABLE t SET TABLESPACE migrator_lint",),
            good=("CREATE TABLE u (LIKE t) TABLESPACE migrator_lint",),
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for one, or for all of them at once."""
        if isinstance(statement, st.RewriteAll):
            which = "" if statement.how == "VACUUM FULL" else " that was clustered"
            yield from self.found(
                None,
                scene,
                f"{statement.how} without a table writes every table{which} of the"
                " database anew, one after the other, each under ACCESS EXCLUSIVE.",
                "No request can read or write the one that is written.",
                safe=Safe(
                    why="What needs it is written anew by itself, beside the traffic.",
                    patterns=(RebuildTable("…"),),
                    decide="which table it is.",
                ),
            )
        if not isinstance(statement, st.Rewrite):
            return
        table, how = statement.table, statement.how
        shown = f"{how} {statement.to}".strip() if how not in _AGAIN else how
        yield from self.found(
            table,
            scene,
            f"{shown} of {table} writes every row and every index anew under ACCESS"
            " EXCLUSIVE.",
            "No request can read or write the table meanwhile.",
            safe=_safe(statement, shown),
        )


def _safe(statement: st.Rewrite, shown: str) -> Safe | None:
    if statement.how in ("SET LOGGED", "SET UNLOGGED"):
        return None
    table = statement.table
    order = (
        " Rows come in the order that they have: the next writes would undo another."
        if statement.how == "CLUSTER"
        else ""
    )
    return Safe(
        why="A new table is filled beside the old one, compared, and takes its name in"
        f" a moment.{order}",
        patterns=(
            RebuildTable(
                table.name,
                alter=() if statement.how in _AGAIN else (shown,),
                schema=table.schema,
            ),
        ),
    )
