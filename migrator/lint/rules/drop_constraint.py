"""
DROP CONSTRAINT lets in what the release in use relies on being kept out.

So does DROP INDEX of a unique one. Foreign keys, which lock two tables, have a rule of
their own.

Source: PostgreSQL manual, ALTER TABLE, DROP CONSTRAINT; INSERT, ON CONFLICT.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Severity, Trial, Work
from migrator.lint.rules.drop_index import goes, table_of
from migrator.lint.scene import Scene
from migrator.pattern import OPEN
from migrator.patterns import DropConstraint as Pattern
from migrator.patterns import DropIndex
from migrator.plan import Lock

_KEYS = {"p": "primary key", "u": "unique constraint"}
_UPSERT = "INSERT INTO t VALUES (0, 0, 'row 1') ON CONFLICT (b) DO NOTHING"
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
                _UPSERT,
            ),
            good=(_UPSERT,),
            fails=True,
        ),
        Trial(
            before=("CREATE UNIQUE INDEX i ON t (b)",),
            bad=("DROP INDEX CONCURRENTLY i", _UPSERT),
            good=(_UPSERT,),
            fails=True,
        ),
        Trial(
            before=("CREATE UNIQUE INDEX i ON t (b)",),
            bad=("DROP INDEX i",),
            good=(
                "CREATE UNIQUE INDEX CONCURRENTLY n ON t (b)",
                "DROP INDEX CONCURRENTLY i",
                "ALTER INDEX n RENAME TO i",
            ),
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for one that was there before the revision, and says something."""
        if isinstance(statement, st.DropIndex):
            yield from self._index(statement, scene)
        if not isinstance(statement, st.DropConstraint):
            return
        table, name = statement.table, statement.name
        if scene.constraint(table, name) is not None or scene.is_spent(table, name):
            return
        known = scene.table(table)
        found = known.constraint(name) if known is not None else None
        kind = found.kind if found is not None else statement.kind
        change = Pattern(table.name, name, schema=table.schema)
        said = (_KEYS | _OTHERS).get(kind or "", "")
        what = (
            f"DROP CONSTRAINT {name} lets rows into {table} that the {said} kept out."
        )
        if kind in _KEYS:
            again = found is not None and _is_again(statement, found.columns, scene)
            if again and _comes_back(statement, scene):
                return
            why = (
                "ON CONFLICT of the release in use that names it, or its columns, fails"
                " from then on; the index goes along, and queries that used it are"
                " slow."
            )
            if again:
                what = f"DROP CONSTRAINT {name} on {table} takes its name from queries."
                why = "ON CONFLICT ON CONSTRAINT of the release in use fails."
            safe = Safe(
                why="It goes when no old release is left; its index is built"
                " concurrently on the way back.",
                patterns=(replace(change, assured=OPEN),),
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
            what,
            why,
            safe=safe,
            severity=Severity.WARNING,
        )

    def _index(self, statement: st.DropIndex, scene: Scene) -> Iterator[Finding]:
        name, table = statement.name, table_of(statement, scene)
        if table is None or name.name in scene.made.indexes or goes(table, scene):
            return
        known = scene.table(table)
        index = None if known is None else known.index(name.name)
        if index is None or not index.unique or index.constraints:
            return
        columns = [k.name for k in index.keys]
        if _is_again(statement, columns, scene, where=index.predicate):
            return
        yield from self.found(
            table,
            scene,
            f"DROP INDEX {name} lets rows into {table} that the unique index kept out.",
            "ON CONFLICT of the release in use over its columns fails from then on;"
            " queries that used it are slow.",
            safe=Safe(
                why="It goes when no old release is left, after a hold in which nobody"
                " scanned it, and is built concurrently on the way back.",
                # It asks for the reason why no query names its columns.
                patterns=(
                    DropIndex(
                        table.name,
                        name.name,
                        schema=name.schema or table.schema,
                        assured=OPEN,
                    ),
                ),
            ),
            severity=Severity.WARNING,
        )


def _is_again(
    gone: st.DropConstraint | st.DropIndex,
    columns: Sequence[str],
    scene: Scene,
    *,
    where: str | None = None,
) -> bool:
    """Tell whether columns are unique by something else, or again at the commit."""
    table = gone.table if isinstance(gone, st.DropConstraint) else table_of(gone, scene)
    for s in scene.earlier if scene.autocommit else scene.whole:
        match s:
            case st.CreateIndex(unique=True, keys=keys):
                same = (s.where is None) is (where is None)
                names = [k if isinstance(k, str) else k.column for k in keys]
            case st.AddConstraint(constraint=one) if one.kind in _KEYS:
                same, names = where is None, [*one.columns]
            case _:
                continue
        same = same and sorted(names) == sorted(columns)
        if same and table is not None and scene.is_same(s.table, table):
            return True
    return False


def _comes_back(gone: st.DropConstraint, scene: Scene) -> bool:
    """Tell whether the revision adds a constraint of that name again."""
    return any(
        isinstance(s, st.AddConstraint)
        and s.constraint.name == gone.name
        and scene.is_same(s.table, gone.table)
        for s in scene.whole
    )
