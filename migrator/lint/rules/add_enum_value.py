"""
ADD VALUE of an enum stays for good, and reaches releases that do not know it.

Source: PostgreSQL manual, ALTER TYPE, Notes: a new value cannot be used before its
transaction is committed; section 8.7.3: a value cannot be removed.
"""

from collections.abc import Iterator

from migrator.lint import statements as st
from migrator.lint import text
from migrator.lint.rule import Finding, Harm, Rule, Safe, Severity, Trial, Work
from migrator.lint.scene import Scene
from migrator.patterns import AddEnumValue as Pattern
from migrator.plan import Lock

_BEFORE = ("CREATE TYPE mood AS ENUM ('good')", "ALTER TABLE t ADD COLUMN m mood")
_ADD = "ALTER TYPE mood ADD VALUE 'bad'"


class AddEnumValue(Rule):
    """A value that an enum gets."""

    code = "ZD502"
    title = "ADD VALUE of an enum stays for good, and reaches releases without it"
    harm = Harm.BREAK
    lock = Lock.NONE
    work = Work.CATALOGUE
    trials = (
        Trial(before=_BEFORE, bad=(_ADD,), good=(_ADD,)),
        Trial(
            before=_BEFORE,
            bad=(_ADD, "ALTER TYPE mood DROP VALUE 'bad'"),
            good=(_ADD,),
            fails=True,
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for a type that was there before."""
        if not isinstance(statement, st.AddEnumValue):
            return
        type_, value = statement.type, statement.value
        if scene.is_created(type_):
            return
        yield from self.found(
            None,
            scene,
            f"ADD VALUE {text.literal(value)} to {type_} stays for good: no statement"
            " takes a value back.",
            "Nothing may use it before the transaction is committed, and the release in"
            " use meets a word that it may not know as soon as a row holds it.",
            safe=Safe(
                why="It stands alone in its revision; rows get the value from a release"
                " whose predecessor can read it.",
                patterns=(Pattern("…", "…", value, schema=type_.schema),),
                decide="the table and its column that have the type.",
            ),
            severity=Severity.NOTE,
        )
