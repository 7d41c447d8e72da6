"""
ADD PRIMARY KEY builds an index, and looks for NULL, under ACCESS EXCLUSIVE.

Over an index that is there (USING INDEX) only columns that may be NULL are looked
through; a valid CHECK that proves them spares that (12+).

Source: PostgreSQL manual, ALTER TABLE, ADD table_constraint_using_index.
"""

from collections.abc import Iterator

from migrator import names
from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Trial, Work
from migrator.lint.scene import Scene
from migrator.patterns import AddPrimaryKey as Pattern
from migrator.plan import Lock

_BEFORE = ("CREATE TABLE n AS SELECT n FROM generate_series(1, 1000) n",)
_INDEX = "CREATE UNIQUE INDEX CONCURRENTLY i ON n (n)"
_USING = "ALTER TABLE n ADD CONSTRAINT i PRIMARY KEY USING INDEX i"
_GOOD = (
    "ALTER TABLE n ADD CONSTRAINT c CHECK (n IS NOT NULL) NOT VALID",
    "ALTER TABLE n VALIDATE CONSTRAINT c",
    "ALTER TABLE n ALTER COLUMN n SET NOT NULL",
    _INDEX,
    _USING,
)


class AddPrimaryKey(Rule):
    """A primary key that builds its index, or has columns that may be NULL."""

    code = "ZD223"
    title = "ADD PRIMARY KEY builds an index while nobody can use the table"
    harm = Harm.STALL
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.BUILD
    trials = (
        Trial(
            before=_BEFORE,
            bad=("ALTER TABLE n ADD PRIMARY KEY (n)",),
            good=_GOOD,
            table="n",
        ),
        Trial(
            before=_BEFORE,
            bad=(_INDEX, _USING),
            good=_GOOD,
            table="n",
            work=Work.SCAN,
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for a build, and for columns that nothing proves."""
        if not isinstance(statement, st.AddConstraint):
            return
        table, one = statement.table, statement.constraint
        if one.kind != "p":
            return
        columns, work = one.columns, self.work
        doing = f"builds an index on {table}"
        if one.using_index is not None:
            known = scene.table(table)
            index = known.index(one.using_index) if known is not None else None
            if index is not None:
                columns = tuple(k.name for k in index.keys)
            columns = columns or _created(one.using_index, scene)
            nullable = [c for c in columns if not scene.is_proved(table, c)]
            if known is None or not nullable:
                return
            work = Work.SCAN
            doing = f"reads every row of {table} for NULL in {', '.join(nullable)}"
        yield from self.found(
            table,
            scene,
            f"ADD PRIMARY KEY ({', '.join(columns)}) {doing} under ACCESS EXCLUSIVE.",
            "No request can read or write the table meanwhile; duplicates and NULL make"
            " it fail.",
            safe=Safe(
                why="NULLs and duplicates are counted first; NOT NULL is proved and the"
                " index built concurrently, and the key takes it over without a scan.",
                patterns=(
                    Pattern(
                        table.name,
                        list(columns),
                        one.name or names.fitted(table.name, "_pkey"),
                        schema=table.schema,
                    ),
                ),
            ),
            work=work,
        )


def _created(index: str, scene: Scene) -> tuple[str, ...]:
    """Return the columns of an index that the revision itself made."""
    for s in scene.earlier:
        if isinstance(s, st.CreateIndex) and s.name == index:
            return tuple(k for k in s.keys if isinstance(k, str))
    return ()
