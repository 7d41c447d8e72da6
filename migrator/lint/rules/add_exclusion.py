"""
EXCLUDE builds an index under ACCESS EXCLUSIVE.

There is neither NOT VALID nor USING INDEX for it.

Source: PostgreSQL manual, ALTER TABLE, ADD table_constraint.
"""

import re
from collections.abc import Iterator

from migrator import names
from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Trial, Work
from migrator.lint.scene import Scene
from migrator.pattern import OPEN
from migrator.patterns import AddExclusion as Pattern
from migrator.patterns import Key
from migrator.plan import Lock

# `USING gist (room WITH =, during WITH &&) WHERE (held)`, as far as it is that simple.
_DEFINITION = re.compile(
    r'\s*(?:USING\s+(?P<method>\w+)\s*)?\((?P<elements>[\w\s"=<>&|@~,^!*+/-]+)\)\s*'
    r"(?:WHERE\s*\((?P<where>.*)\)\s*)?",
    re.IGNORECASE | re.DOTALL,
)
_ELEMENT = re.compile(
    r'\s*(?:(?P<plain>\w+)|"(?P<quoted>[^"]+)")\s+WITH\s+(?P<operator>\S+)\s*',
    re.IGNORECASE,
)
_UNREAD: list[tuple[str | Key, str]] = [("…", "…")]


class AddExclusion(Rule):
    """An exclusion constraint."""

    code = "ZD225"
    title = "EXCLUDE builds an index while nobody can use the table"
    harm = Harm.STALL
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.BUILD
    trials = (
        Trial(
            bad=("ALTER TABLE t ADD EXCLUDE USING btree (id WITH =)",),
            good=(
                "CREATE TABLE n (LIKE t)",
                "ALTER TABLE n ADD EXCLUDE USING btree (id WITH =)",
                "INSERT INTO n SELECT * FROM t",
            ),
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for any on a table that has rows."""
        if not isinstance(statement, st.AddConstraint):
            return
        table, one = statement.table, statement.constraint
        if one.kind != "x":
            return
        elements, method, where = _read(one.definition)
        name = one.name or names.fitted(table.name, "_excl")
        decide = (
            "whether the table is small enough (`assured` says so): the pattern refuses"
            " more than 20,000 rows. A larger one is written anew beside itself, with"
            " the constraint in place (a shadow table), or gets it in a maintenance"
            " window."
        )
        if elements is _UNREAD:
            decide = f"the elements and operators of {one.definition}; and " + decide
        yield from self.found(
            table,
            scene,
            f"ADD EXCLUDE {name} on {table} builds an index under ACCESS EXCLUSIVE.",
            "No request can read or write the table meanwhile, and PostgreSQL knows no"
            " other way; rows in conflict make it fail.",
            safe=Safe(
                why="Conflicts are counted first, beside the traffic; the build is"
                " refused where it would take long.",
                patterns=(
                    Pattern(
                        table.name,
                        elements,
                        name,
                        where=where,
                        method=method,
                        deferrable=one.deferrable,
                        schema=table.schema,
                        assured=OPEN,
                    ),
                ),
                decide=decide,
            ),
        )


def _read(definition: str) -> tuple[list[tuple[str | Key, str]], str, str | None]:
    """Return elements, method and predicate of a definition, as far as it is plain."""
    found = _DEFINITION.fullmatch(definition)
    if found is None:
        return _UNREAD, "gist", None
    elements: list[tuple[str | Key, str]] = []
    for text in found["elements"].split(","):
        one = _ELEMENT.fullmatch(text)
        if one is None:
            return _UNREAD, "gist", None
        elements.append((one["quoted"] or one["plain"], one["operator"]))
    return elements, (found["method"] or "btree").lower(), found["where"]
