"""
ADD COLUMN with a volatile default writes every row anew.

A default that is the same for all rows, also now(), is kept in the catalogue (11+).

Source: PostgreSQL manual, ALTER TABLE, Notes.
"""

from collections.abc import Iterator

from migrator.lint import added, defaults
from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Trial, Work
from migrator.lint.scene import Scene
from migrator.plan import Lock


class ColumnVolatileDefault(Rule):
    """A column whose default is worked out for each row."""

    code = "ZD102"
    title = "ADD COLUMN with a volatile default writes every row anew"
    harm = Harm.STALL
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.REWRITE
    trials = (
        Trial(
            bad=("ALTER TABLE t ADD COLUMN c uuid DEFAULT gen_random_uuid()",),
            good=(
                "ALTER TABLE t ADD COLUMN c uuid",
                "ALTER TABLE t ALTER COLUMN c SET DEFAULT gen_random_uuid()",
                "UPDATE t SET c = gen_random_uuid() WHERE c IS NULL",
            ),
        ),
        Trial(
            bad=("ALTER TABLE t ADD COLUMN c timestamptz DEFAULT clock_timestamp()",),
            good=("ALTER TABLE t ADD COLUMN c timestamptz DEFAULT now()",),
        ),
        Trial(
            before=(
                "CREATE FUNCTION f() RETURNS integer LANGUAGE plpgsql AS"
                " 'BEGIN RETURN 1; END'",
            ),
            bad=("ALTER TABLE t ADD COLUMN c integer DEFAULT f()",),
            good=(
                "ALTER TABLE t ADD COLUMN c integer",
                "ALTER TABLE t ALTER COLUMN c SET DEFAULT f()",
            ),
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for a default that calls a volatile function, or one not known."""
        if not isinstance(statement, st.AddColumn):
            return
        table, column = statement.table, statement.column
        if column.default is None or column.generated or column.identity:
            return
        kind = defaults.kind(column.default)
        if kind is defaults.Kind.ONCE:
            return
        unless = (
            ", unless its function is declared STABLE or IMMUTABLE"
            if kind is defaults.Kind.UNKNOWN
            else ""
        )
        yield from self.found(
            table,
            scene,
            f"ADD COLUMN {table}.{column.name} DEFAULT {column.default} writes every"
            f" row and every index anew under ACCESS EXCLUSIVE{unless}.",
            "No request can read or write the table meanwhile.",
            safe=added.safe(
                statement,
                scene,
                "New rows get the default, and those that are there a value each in"
                " chunks.",
            ),
        )
