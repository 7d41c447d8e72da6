"""
A change of collation, or a free cast, builds indexes anew.

An index stays where its operator class and collation do, and it has no expression.

Source: `CheckIndexCompatible` in the server; PostgreSQL manual, ALTER TABLE, Notes.
"""

from collections.abc import Iterator

from migrator.facts import Index
from migrator.lint import casts, text
from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Trial, Work
from migrator.lint.rules.change_type_used import readers
from migrator.lint.scene import Scene
from migrator.lint.statements import Ref
from migrator.lint.types import Effect
from migrator.pattern import OPEN
from migrator.patterns import ChangeColumnType
from migrator.plan import Lock


class ChangeTypeIndex(Rule):
    """A column whose rows stay as they are, but not its indexes."""

    code = "ZD118"
    title = "ALTER COLUMN TYPE builds indexes anew, though the rows stay"
    harm = Harm.STALL
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.BUILD
    trials = (
        Trial(
            before=(
                "ALTER TABLE t ADD COLUMN c text",
                "CREATE INDEX i ON t (c)",
            ),
            bad=('ALTER TABLE t ALTER COLUMN c TYPE text COLLATE "POSIX"',),
            good=(
                "DROP INDEX CONCURRENTLY i",
                'ALTER TABLE t ALTER COLUMN c TYPE text COLLATE "POSIX"',
                "CREATE INDEX CONCURRENTLY i ON t (c)",
            ),
        ),
        Trial(
            before=(
                "ALTER TABLE t ADD COLUMN c varchar(10)",
                "CREATE INDEX i ON t (lower(c))",
                "CREATE INDEX plain ON t (c)",
            ),
            bad=("ALTER TABLE t ALTER COLUMN c TYPE text",),
            good=(
                "DROP INDEX CONCURRENTLY i",
                "ALTER TABLE t ALTER COLUMN c TYPE text",
                "CREATE INDEX CONCURRENTLY i ON t (lower(c))",
            ),
        ),
        Trial(
            before=(
                "ALTER TABLE t ADD COLUMN c timestamp",
                "CREATE INDEX i ON t (c)",
            ),
            bad=(
                "SET timezone = 'UTC'",
                "ALTER TABLE t ALTER COLUMN c TYPE timestamptz",
            ),
            good=(
                "SET timezone = 'UTC'",
                "DROP INDEX CONCURRENTLY i",
                "ALTER TABLE t ALTER COLUMN c TYPE timestamptz",
                "CREATE INDEX CONCURRENTLY i ON t (c)",
            ),
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for indexes that would not stay; without a database, for the reason."""
        if not isinstance(statement, st.ChangeType):
            return
        cast = casts.cast(statement, scene)
        # What the server refuses builds nothing.
        if cast.effect is Effect.REWRITE or readers(statement, scene):
            return
        if cast.table is None and not (
            cast.recollated or cast.effect is Effect.INDEXES
        ):
            return
        gone = {s.name.name for s in scene.earlier if isinstance(s, st.DropIndex)}
        indexes = [i for i in cast.indexes if i.name not in gone]
        if cast.table is not None and not indexes:
            return
        table, column = statement.table, statement.column
        named = ", ".join(i.name for i in indexes) or "each index on it"
        reason = "its collation changes" if cast.recollated else "the rows stay"
        yield from self.found(
            table,
            scene,
            f"ALTER COLUMN {table}.{column} TYPE {cast.new} builds {named} anew"
            f" under ACCESS EXCLUSIVE; {reason}.",
            "No request can read or write the table meanwhile.",
            safe=_safe(statement, cast, indexes),
        )


def _safe(statement: st.ChangeType, cast: casts.Cast, indexes: list[Index]) -> Safe:
    table, column = statement.table, statement.column
    plain = all(i.plain and not i.unique for i in indexes)
    second = ChangeColumnType(
        table.name,
        column,
        cast.new,
        to=OPEN,
        collation=(
            None if statement.collation is None else text.name(statement.collation)
        ),
        old_type=cast.old,
        schema=table.schema,
    )
    alter = f"ALTER TABLE {text.name(table)} {casts.clause(statement)}"
    code = ""
    if indexes and not any(i.constraints for i in indexes):
        schema = cast.table.name.schema if cast.table is not None else None
        names = (text.name(Ref(i.name, schema)) for i in indexes)
        drops = (f"DROP INDEX CONCURRENTLY IF EXISTS {name}" for name in names)
        builds = (
            f"CREATE {'UNIQUE ' if i.unique else ''}INDEX CONCURRENTLY"
            f" {text.name(i.name)} ON {text.name(table)} {i.definition}"
            for i in indexes
        )
        code = "\n".join(
            (
                *map(text.execute_alone, drops),
                text.execute(alter),
                *map(text.execute_alone, builds),
            )
        )
    # The drop comes first, as it has to: IF EXISTS lets all of it run again.
    asked = []
    if plain:
        asked.append("the column's name in the new release (`to`)")
    if code:
        asked.append("whether queries can do without the index until it is there again")
    return Safe(
        why="No index is built under the lock: a second column gets one concurrently,"
        " or the index goes before and comes after."
        if plain
        else "The index goes before, and is built concurrently after.",
        patterns=(second,) if plain else (),
        decide=", or ".join(asked),
        code=code,
    )
