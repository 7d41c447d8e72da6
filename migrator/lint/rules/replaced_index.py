"""
An index that is dropped before its replacement is built leaves queries without one.

In one transaction nobody can use the table until the new one is built.

Source: PostgreSQL manual, DROP INDEX; CREATE INDEX, Building Indexes Concurrently.
"""

from collections.abc import Iterator

from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Trial, Work
from migrator.lint.rules import create_index
from migrator.lint.rules.drop_index import table_of
from migrator.lint.scene import Scene
from migrator.patterns import DropIndex, ReplaceIndex
from migrator.plan import Lock

_BEFORE = ("CREATE INDEX i ON t (a)",)
_GOOD = (
    "CREATE INDEX CONCURRENTLY n ON t (a, id)",
    "DROP INDEX CONCURRENTLY i",
    "ALTER INDEX n RENAME TO i",
)


class ReplacedIndex(Rule):
    """An index that the revision has dropped, built otherwise."""

    code = "ZD317"
    title = "An index is dropped before its replacement is built"
    harm = Harm.STALL
    lock = Lock.SHARE_UPDATE_EXCLUSIVE
    work = Work.BUILD
    trials = (
        Trial(
            before=_BEFORE,
            bad=("DROP INDEX i", "CREATE INDEX CONCURRENTLY i ON t (a, id)"),
            good=_GOOD,
        ),
        Trial(
            before=_BEFORE,
            bad=("DROP INDEX i", "CREATE INDEX i ON t (a, id)"),
            good=_GOOD,
            together=True,
            lock=Lock.ACCESS_EXCLUSIVE,
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for a build behind the drop of an index like it."""
        if not isinstance(statement, st.CreateIndex):
            return
        gone = dropped_for(statement, scene)
        if gone is None:
            return
        table, name = statement.table, create_index.name_of(statement)
        old = gone.name.name
        if gone in scene.same:
            lock = Lock.ACCESS_EXCLUSIVE
            why = (
                "The transaction that dropped it holds ACCESS EXCLUSIVE: nobody can use"
                " the table until the new one is built."
            )
        else:
            lock = Lock.SHARE_UPDATE_EXCLUSIVE if statement.concurrently else Lock.SHARE
            why = (
                "Queries that used it read the whole table until the new one is built,"
                " and load the server as they do."
            )
        yield from self.found(
            table,
            scene,
            f"Index {old} on {table} is gone while {name} is built in its place.",
            why,
            safe=_safe(statement, old),
            lock=lock,
        )


def _safe(statement: st.CreateIndex, old: str) -> Safe:
    built = create_index.pattern(statement)
    if statement.name != old:
        return Safe(
            why="The new one is built first, concurrently; the old one goes after it.",
            patterns=(built,),
            then=(DropIndex(built.table, old, schema=built.schema),),
        )
    return Safe(
        why="The new one is built beside the old one, which stays until the drop; they"
        " exchange names in between.",
        patterns=(
            ReplaceIndex(
                built.table,
                built.name,
                built.on,
                unique=built.unique,
                where=built.where,
                method=built.method,
                include=built.include,
                nulls_not_distinct=built.nulls_not_distinct,
                storage=built.storage,
                schema=built.schema,
            ),
        ),
    )


def dropped_for(statement: st.CreateIndex, scene: Scene) -> st.DropIndex | None:
    """
    Return the index that the revision dropped before it builds one in its place.

    It has the same name, or by facts begins with the same column.
    """
    first = statement.keys[0] if statement.keys else None
    for s in reversed(scene.earlier):
        if not isinstance(s, st.DropIndex):
            continue
        table = table_of(s, scene)
        if table is not None and not scene.is_same(table, statement.table):
            continue
        if s.name.name == statement.name:
            return s
        known = scene.table(table) if table is not None else None
        index = known.index(s.name.name) if known is not None else None
        if index is not None and index.keys[0].name == first:
            return s
    return None
