"""
A new value of an enum cannot be used in the transaction that adds it.

Source: PostgreSQL manual, ALTER TYPE, Notes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from psycopg import sql

from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Trial, Work
from migrator.lint.safe import alone
from migrator.lint.scene import Scene
from migrator.lint.statements import Ref
from migrator.patterns import AddEnumValue as Pattern
from migrator.plan import Lock, render

_ADD = "ALTER TYPE mood ADD VALUE 'bad'"
_USE = "UPDATE t SET m = 'bad' WHERE id = 1"


class EnumValueUsed(Rule):
    """A statement that names a value which its transaction has added."""

    code = "ZD501"
    title = "A value of an enum is used in the transaction that adds it: it fails"
    harm = Harm.FAIL
    lock = Lock.NONE
    work = Work.CATALOGUE
    trials = (
        Trial(
            before=(
                "CREATE TYPE mood AS ENUM ('good')",
                "ALTER TABLE t ADD COLUMN m mood",
            ),
            bad=(_ADD, _USE),
            good=(_ADD, _USE),
            together=True,
            fails=True,
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for the value as a literal in any text of the statement."""
        for added in scene.same:
            if not isinstance(added, st.AddEnumValue):
                continue
            if scene.is_created(added.type, scene.same):
                # Of a type that is as new as its value it may be used.
                continue
            literal = render(sql.Literal(added.value))
            if not any(literal in text for text in _texts(statement)):
                continue
            table = statement.table if isinstance(statement, st.OnTable) else None
            yield from self.found(
                table,
                scene,
                f"It uses {literal}, which the same transaction has added to"
                f" {added.type}.",
                "PostgreSQL refuses a new value until the transaction that added it is"
                " committed; the revision fails here.",
                safe=_safe(added, statement),
                always=True,
            )


def _safe(added: st.AddEnumValue, statement: st.Statement) -> Safe:
    if isinstance(statement, st.SetDefault):
        return Safe(
            why="The value is added by a revision of its own, before this one.",
            patterns=(
                Pattern(
                    statement.table.name,
                    statement.column,
                    added.value,
                    schema=statement.table.schema,
                ),
            ),
        )
    text = added.sql or render(
        sql.SQL("ALTER TYPE {} ADD VALUE {}").format(
            _identifier(added.type), sql.Literal(added.value)
        )
    )
    return Safe(
        why="The value is added and committed first; so is all that stands before it.",
        code=alone(text),
    )


def _identifier(ref: Ref) -> sql.Identifier:
    parts = (ref.schema, ref.name) if ref.schema else (ref.name,)
    return sql.Identifier(*parts)


def _texts(value: Any) -> Iterator[str]:
    """Give all texts that a statement holds."""
    if isinstance(value, str):
        yield value
    elif is_dataclass(value):
        for item in fields(value):
            yield from _texts(getattr(value, item.name))
    elif isinstance(value, tuple | list | Mapping):
        for item in value:
            yield from _texts(item)
