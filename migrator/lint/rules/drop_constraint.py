"""
DROP CONSTRAINT lets in what the release in use relies on being kept out.

Foreign keys, which lock two tables, have a rule of their own.

Source: PostgreSQL manual, ALTER TABLE, DROP CONSTRAINT; INSERT, ON CONFLICT.
"""

from collections.abc import Iterator

from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Severity, Trial, Work
from migrator.lint.scene import Scene
from migrator.patterns import DropConstraint as Pattern
from migrator.plan import Lock

_KEYS = {"p": "primary key", "u": "unique constraint"}
_OTHERS = {"c": "check", "x": "exclusion constraint"}


class DropConstraint(Rule):
    """A key, a check or an exclusion constraint that goes."""

    code = "ZD233"
    title = "DROP CONSTRAINT lets in what the release in use relies on being kept out"
    harm = Harm.BREAK
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.CATALOGUE
    trials = (
        Trial(
            before=(
                "ALTER TABLE t ADD CONSTRAINT c CHECK (a >= 0)",
                "ALTER TABLE t ADD CONSTRAINT n CHECK (b IS NOT NULL)",
            ),
            bad=("ALTER TABLE t DROP CONSTRAINT c",),
            good=("ALTER TABLE t DROP CONSTRAINT n",),
        ),
        Trial(
            before=("ALTER TABLE t ADD CONSTRAINT c UNIQUE (b)",),
            bad=(
                "ALTER TABLE t DROP CONSTRAINT c",
                "INSERT INTO t VALUES (0, 0, 'row 1') ON CONFLICT (b) DO NOTHING",
            ),
            good=("INSERT INTO t VALUES (0, 0, 'row 1') ON CONFLICT (b) DO NOTHING",),
            fails=True,
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for one that was there before the revision, and says something."""
        if not isinstance(statement, st.DropConstraint):
            return
        table, name = statement.table, statement.name
        if scene.constraint(table, name) is not None or scene.is_spent(table, name):
            return
        known = scene.table(table)
        found = known.constraint(name) if known is not None else None
        kind = found.kind if found is not None else statement.kind
        change = Pattern(table.name, name, schema=table.schema)
        if kind in _KEYS:
            why = (
                "ON CONFLICT of the release in use that names it, or its columns, fails"
                " from then on; the index goes along, and queries that used it are"
                " slow."
            )
            safe = Safe(
                why="It goes when no old release is left; its index is built"
                " concurrently on the way back.",
                patterns=(change,),
                decide="whether a query names it, or its columns, in ON CONFLICT:"
                " `assured` says why that is no harm.",
            )
        elif kind == "c" and not _comes_back(statement, scene):
            why = (
                "The release in use was written for rows that keep to it: it may fail"
                " on those of the new one."
            )
            safe = Safe(
                why="It goes when no old release is left, and is validated beside the"
                " traffic on the way back.",
                patterns=(change,),
            )
        elif kind == "x":
            why = (
                "The release in use was written for rows that keep to it, and it comes"
                " back only by a build while nobody can use the table."
            )
            safe = None
        else:
            return
        yield from self.found(
            table,
            scene,
            f"DROP CONSTRAINT {name} lets rows into {table} that the"
            f" {(_KEYS | _OTHERS)[kind]} kept out.",
            why,
            safe=safe,
            severity=Severity.WARNING,
        )


def _comes_back(gone: st.DropConstraint, scene: Scene) -> bool:
    """Tell whether the revision adds a constraint of that name again."""
    return any(
        isinstance(s, st.AddConstraint)
        and s.constraint.name == gone.name
        and scene.is_same(s.table, gone.table)
        for s in scene.whole
    )
