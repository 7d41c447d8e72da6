"""
A domain's new check, or its NOT NULL, reads all tables of the domain under SHARE.

Source: PostgreSQL manual, ALTER DOMAIN; the lock by the trial (up to PostgreSQL 18).
"""

from collections.abc import Iterator

from migrator import names
from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Trial, Work
from migrator.lint.scene import Scene
from migrator.lint.statements import Ref
from migrator.patterns import ChangeDomain as Pattern
from migrator.plan import Lock

_BEFORE = (
    "CREATE DOMAIN d AS integer DEFAULT 1",
    "ALTER TABLE t ADD COLUMN c d",
)
_NOT_VALID = "ALTER DOMAIN d ADD CONSTRAINT x CHECK (VALUE > 0) NOT VALID"


class ChangeDomain(Rule):
    """A domain that refuses values from now on, and looks for them in its tables."""

    code = "ZD505"
    title = "A domain's check is proved while nobody can write any table of the domain"
    harm = Harm.STALL
    lock = Lock.SHARE
    work = Work.SCAN
    trials = (
        Trial(
            before=_BEFORE,
            bad=("ALTER DOMAIN d ADD CHECK (VALUE > 0)",),
            good=(_NOT_VALID,),
        ),
        Trial(
            before=_BEFORE,
            bad=("ALTER DOMAIN d SET NOT NULL",),
            good=("ALTER DOMAIN d ADD CHECK (VALUE IS NOT NULL) NOT VALID",),
        ),
        Trial(
            before=_BEFORE,
            bad=(_NOT_VALID, "ALTER DOMAIN d VALIDATE CONSTRAINT x"),
            good=(_NOT_VALID,),
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for one whose tables have rows, as far as facts tell."""
        if not isinstance(statement, st.ChangeDomain):
            return
        domain, how = statement.domain, statement.how.upper()
        if statement.not_valid or how not in _HOW or scene.is_created(domain):
            return
        known = scene.domain(domain)
        table: Ref | None = None
        which = "every table that has a column of it"
        if known is not None:
            refs = (Ref(name.name, name.schema) for name, _ in known.columns)
            used = [ref for ref in dict.fromkeys(refs) if not scene.is_unused(ref)]
            if not used:
                return
            table = max(used, key=lambda ref: scene.size_bytes(ref) or 0)
            which = ", ".join(map(str, used))
        yield from self.found(
            table,
            scene,
            f"{how} of domain {domain} reads every row of {which} under SHARE.",
            "Nobody can write these tables until all of them are read; a value that"
            " violates it makes it fail.",
            safe=_safe(statement, how),
        )


_HOW = ("ADD CONSTRAINT", "SET NOT NULL", "VALIDATE CONSTRAINT")


def _safe(statement: st.ChangeDomain, how: str) -> Safe:
    domain = statement.domain
    if how == "VALIDATE CONSTRAINT":
        return Safe(
            why="The check holds for all that is written, validated or not: leave it"
            " NOT VALID; ChangeDomain counts what was there before, without a lock."
        )
    decide = ""
    if how == "SET NOT NULL":
        expression = "VALUE IS NOT NULL"
        name = names.fitted(domain.name, "_not_null")
    else:
        expression = statement.expression or "…"
        name = statement.name or names.fitted(domain.name, "_check")
        if not statement.expression:
            decide = "the condition over VALUE: `add_check`."
    return Safe(
        why="Values that would be refused are counted first, in chunks; the check is"
        " added NOT VALID and holds for all that is written from then on.",
        patterns=(
            Pattern(domain.name, add_check=expression, name=name, schema=domain.schema),
        ),
        decide=decide,
    )
