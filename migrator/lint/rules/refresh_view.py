"""
REFRESH MATERIALIZED VIEW keeps readers away until the view is filled.

Source: PostgreSQL manual, REFRESH MATERIALIZED VIEW.
"""

from collections.abc import Iterator

from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Trial, Work
from migrator.lint.scene import Scene
from migrator.patterns import RefreshMaterializedView
from migrator.plan import Lock


class RefreshView(Rule):
    """A materialized view that is not filled concurrently."""

    code = "ZD507"
    title = "REFRESH MATERIALIZED VIEW keeps readers away until it is filled"
    harm = Harm.STALL
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.REWRITE
    trials = (
        Trial(
            before=(
                "CREATE MATERIALIZED VIEW m AS SELECT id FROM t",
                "CREATE UNIQUE INDEX m_id ON m (id)",
            ),
            bad=("REFRESH MATERIALIZED VIEW m",),
            good=("REFRESH MATERIALIZED VIEW CONCURRENTLY m",),
            table="m",
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for a view that was there before."""
        if not isinstance(statement, st.RefreshView) or statement.concurrently:
            return
        view = statement.view
        if scene.is_created(view):
            return
        yield from self.found(
            view,
            scene,
            f"REFRESH MATERIALIZED VIEW {view} locks it by ACCESS EXCLUSIVE while its"
            " query runs.",
            "No request can read the view until it is filled; the query may take longer"
            " than the view's size tells.",
            safe=Safe(
                why="It is filled concurrently, beside those who read it.",
                patterns=(RefreshMaterializedView(view.name, schema=view.schema),),
                decide="which columns tell its rows apart, where it has no unique index"
                " yet: CONCURRENTLY needs one.",
            ),
        )
