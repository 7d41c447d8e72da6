"""
A primary key of integer ends at 2,147,483,647.

Widening it later is a change of every table that refers to it.

Source: PostgreSQL manual, section 8.1.
"""

import re
from collections.abc import Iterator

from migrator.lint import added, types
from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Severity, Trial, Work
from migrator.lint.scene import Scene
from migrator.lint.source import quoted
from migrator.plan import Lock

_SMALL = ("integer", "smallint")


# A check that lets a column have a few values.
_FEW = re.compile(
    r"[\s(]*(?P<name>\w+|\"[^\"]+\")\s*(?:=\s*\d+|IN\s*\([\d\s,]+\))[\s)]*",
    re.IGNORECASE,
)


class IntegerKey(Rule):
    """A table whose key is drawn from too few numbers."""

    code = "ZD130"
    title = "A primary key of integer ends at 2,147,483,647 rows ever made"
    harm = Harm.FAIL
    lock = Lock.NONE
    work = Work.CATALOGUE
    trials = (
        Trial(
            bad=(
                "CREATE TABLE n (id serial PRIMARY KEY)",
                "SELECT setval('n_id_seq', 2147483647)",
                "INSERT INTO n DEFAULT VALUES",
            ),
            good=(
                "CREATE TABLE m (id bigserial PRIMARY KEY)",
                "SELECT setval('m_id_seq', 2147483647)",
                "INSERT INTO m DEFAULT VALUES",
            ),
            fails=True,
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for a key of one column that refers to nothing."""
        if not isinstance(statement, st.CreateTable) or statement.temporary:
            return
        for column in statement.columns:
            kind = types.parsed(column.type)
            if kind.name not in _SMALL or kind.array:
                continue
            if not _is_key(statement, column) or _refers(statement, column):
                continue
            if any(_is_bound(c, column) for c in statement.constraints):
                continue
            # A small table of words has one by choice; a sequence goes on for ever.
            if kind.name == "smallint" and not added.is_drawn(column):
                continue
            yield from self.found(
                # The table is none that somebody uses: its size says nothing.
                None,
                scene,
                f"The primary key {statement.table}.{column.name} is"
                f" {types.plain(column.type).lower()}.",
                "Its numbers end, those of rows that were deleted or rolled back"
                " counted in; from then on every INSERT fails. Widening it later moves"
                " every row of this table and of those that refer to it.",
                safe=Safe(
                    why="bigint costs four bytes a row, often none, and does not end.",
                    code=f"sa.Column({quoted(column.name)}, sa.BigInteger,"
                    " primary_key=True)",
                ),
                severity=Severity.WARNING,
            )


def _is_key(statement: st.CreateTable, column: st.NewColumn) -> bool:
    constraints = (*statement.constraints, *column.constraints)
    keys = [c.columns or (column.name,) for c in constraints if c.kind == "p"]
    return (column.name,) in keys or (
        added.is_drawn(column) and any(column.name in key for key in keys)
    )


def _is_bound(constraint: st.NewConstraint, column: st.NewColumn) -> bool:
    """Tell whether a check names the few values that there are."""
    found = _FEW.fullmatch(constraint.expression)
    return found is not None and found["name"].strip('"') == column.name


def _refers(statement: st.CreateTable, column: st.NewColumn) -> bool:
    constraints = (*statement.constraints, *column.constraints)
    return any(
        c.kind == "f" and (not c.columns or column.name in c.columns)
        for c in constraints
    )
