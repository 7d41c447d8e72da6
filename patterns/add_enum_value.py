"""Add a value to the enum of a column.

phase     statement             lock on the table
expand    ALTER TYPE ADD VALUE  none, no scan

It stands alone: before its commit nobody may use the value. There is no way back,
since PostgreSQL drops no value of an enum; one that nobody writes does no harm.

Source: PostgreSQL manual, ALTER TYPE, ADD VALUE and Notes.
"""

from dataclasses import KW_ONLY, dataclass, replace
from typing import ClassVar

from psycopg import sql

from migrator.errors import Refused
from migrator.facts import Facts
from migrator.kernels import enums
from migrator.pattern import Pattern
from migrator.plan import Notice, Probe, State, Steps, render


@dataclass(frozen=True, slots=True)
class AddEnumValue(Pattern):
    """
    Add `value` to the enum that is the type of `column` of `table`.

    Example:
        change = AddEnumValue("orders", "state", "refunded", after="paid")

    Args:
        table: the table's name, without its schema.
        column: a column of that type; the value is there for all of them.
        value: the new value, e.g. `"refunded"`.
        before: the value that it is to stand before.
        after: the value that it is to stand after; at the end where neither is given.
        schema: the table's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    reversible: ClassVar[str] = "never, an unused value stays"

    table: str
    column: str
    value: str
    _: KW_ONLY
    before: str | None = None
    after: str | None = None
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return (
            f'add value "{self.value}" to the enum of column "{self.column}" of table'
            f' "{self.table}"'
        )

    @property
    def admission(self) -> State:
        """From expanded, which adds it."""
        return State.EXPANDED

    def columns(self) -> frozenset[str]:
        """Return the column."""
        return frozenset({self.column})

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse a column that is no enum, and a place that there is not."""
        if self.before is not None and self.after is not None:
            raise Refused(
                f"{self.title}: both `before` and `after` are given.",
                next="give one of them.",
            )
        enums.require_enum(facts, self.column, self.before, self.after)
        enums.require_label(self.title, self.value)
        text = (
            "The old release may meet the value as soon as the new one writes it: where"
            " it reads it into an enum of its own, write it from retire on only."
        )
        return (Notice(text=text),)

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return the trial that the type is the role's."""
        return (enums.type_is_owned(self.title, facts.table.name, self.column),)

    def expand(self, facts: Facts) -> Steps:
        """Return the value; one that is there already stays where it is."""
        place = ""
        if self.before is not None:
            place = render(sql.SQL("BEFORE {}").format(sql.Literal(self.before)))
        elif self.after is not None:
            place = render(sql.SQL("AFTER {}").format(sql.Literal(self.after)))
        column = facts.table.require(self.column)
        step = enums.add_value(facts.table.name, column, self.value, place)
        return (replace(step, loses=True),)
