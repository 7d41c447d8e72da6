"""
RENAME VALUE takes a word of an enum from the release in use.

Source: PostgreSQL manual, ALTER TYPE, RENAME VALUE.
"""

from collections.abc import Iterator

from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Trial, Work
from migrator.lint.scene import Scene
from migrator.patterns import RenameEnumValue as Pattern
from migrator.plan import Lock

_BEFORE = ("CREATE TYPE mood AS ENUM ('good')", "ALTER TABLE t ADD COLUMN m mood")
_RENAME = "ALTER TYPE mood RENAME VALUE 'good' TO 'fine'"


class RenameEnumValue(Rule):
    """A value of an enum under another word."""

    code = "ZD503"
    title = "RENAME VALUE of an enum breaks a release that still says the old word"
    harm = Harm.BREAK
    lock = Lock.NONE
    work = Work.CATALOGUE
    trials = (
        Trial(
            before=_BEFORE,
            bad=(_RENAME,),
            good=("ALTER TYPE mood ADD VALUE 'fine'",),
        ),
        Trial(
            before=_BEFORE,
            bad=(_RENAME, "INSERT INTO t VALUES (0, 0, '', 'good')"),
            good=("INSERT INTO t VALUES (0, 0, '', 'good')",),
            fails=True,
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for a type that was there before."""
        if not isinstance(statement, st.RenameEnumValue):
            return
        type_, value, to = statement.type, statement.value, statement.to
        if scene.is_created(type_):
            return
        yield from self.found(
            None,
            scene,
            f"RENAME VALUE '{value}' of {type_} to '{to}' takes the word from the"
            " release in use.",
            f"Each of its statements that names '{value}' fails from then on, and it"
            f" reads '{to}', which it does not know.",
            safe=Safe(
                why="Both words are taken until retire; then rows, defaults and indexes"
                " say the new one at once.",
                patterns=(Pattern("…", "…", value, to, schema=type_.schema),),
                decide="the table and its column that have the type. Where several have"
                " it, the pattern refuses: add a value instead, and move rows to it.",
            ),
        )
