"""
CREATE INDEX keeps writers out while it is built.

Source: PostgreSQL manual, CREATE INDEX, Building Indexes Concurrently.
"""

from collections.abc import Iterator

from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Trial, Work
from migrator.lint.scene import Scene
from migrator.patterns import CreateIndex as Pattern
from migrator.plan import Lock


class CreateIndex(Rule):
    """An index that is not built concurrently."""

    code = "ZD301"
    title = "CREATE INDEX keeps writers out until it is built"
    harm = Harm.STALL
    lock = Lock.SHARE
    work = Work.BUILD
    trials = (
        Trial(
            bad=("CREATE INDEX i ON t (a)",),
            good=("CREATE INDEX CONCURRENTLY i ON t (a)",),
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for a plain build."""
        if not isinstance(statement, st.CreateIndex) or statement.concurrently:
            return
        table = statement.table
        known = scene.table(table)
        if statement.only or (known is not None and known.kind == "p"):
            return
        yield from self.found(
            table,
            scene,
            f"CREATE INDEX {name_of(statement)} on {table} keeps every writer out until"
            " it is built.",
            "INSERT, UPDATE and DELETE wait, and behind them the application.",
            safe=Safe(
                why="It is built concurrently, on a partitioned table leaf by leaf, and"
                " a build that was cut off is cleaned up.",
                patterns=(pattern(statement),),
            ),
        )


def name_of(statement: st.CreateIndex) -> str:
    """Return the index's name, or one that it may have."""
    return statement.name or f"ix_{statement.table.name}"


def pattern(statement: st.CreateIndex) -> Pattern:
    """Return the change that builds the index."""
    return Pattern(
        statement.table.name,
        list(statement.keys),
        name_of(statement),
        unique=statement.unique,
        where=statement.where,
        method=statement.method,
        include=statement.include,
        nulls_not_distinct=statement.nulls_not_distinct,
        storage=dict(statement.storage),
        schema=statement.table.schema,
    )
