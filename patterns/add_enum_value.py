"""Add a value to the enum of a column.

phase     statement             lock on the table
expand    ALTER TYPE ADD VALUE  none, no scan

It stands alone: before its commit nobody may use the value. There is no way back,
since PostgreSQL drops no value of an enum; one that nobody writes does no harm.

Source: PostgreSQL manual, ALTER TYPE, ADD VALUE and Notes.
"""

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from psycopg import sql

from migrator.errors import Refused
from migrator.facts import Facts
from migrator.kernels import requirements
from migrator.names import MAX_NAME_BYTES
from migrator.pattern import Pattern
from migrator.plan import (
    Autocommit,
    Lock,
    Notice,
    State,
    Step,
    Steps,
    render,
    type_name,
)


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
        requirements.require_table(facts)
        column = facts.table.require(self.column)
        where = f'Column "{self.column}" of table {facts.table.name}'
        if not column.values:
            raise Refused(
                f"{where} is of type {column.type}, which is no enum with values.",
                next="name a column whose type is the enum itself.",
            )
        if self.before is not None and self.after is not None:
            raise Refused(
                f"{self.title}: both `before` and `after` are given.",
                next="give one of them.",
            )
        place = self.before if self.before is not None else self.after
        if place is not None and place not in column.values:
            known = ", ".join(f'"{v}"' for v in column.values)
            raise Refused(
                f'{where} has no value "{place}" in its enum.',
                next=f"correct it; there are {known}.",
            )
        # The server refuses longer ones (manual, section 8.7.4).
        if not 0 < len(self.value.encode()) <= MAX_NAME_BYTES:
            raise Refused(
                f"{self.title}: the value has {len(self.value.encode())} bytes.",
                next=f"give one of 1 to {MAX_NAME_BYTES} bytes.",
            )
        text = (
            "The old release may meet the value as soon as the new one writes it: where"
            " it reads it into an enum of its own, write it from retire on only."
        )
        return (Notice(text=text),)

    def expand(self, facts: Facts) -> Steps:
        """Return the value; one that is there already stays where it is."""
        kind = facts.table.require(self.column).type
        place: sql.Composable = sql.SQL("")
        if self.before is not None:
            place = sql.SQL(" BEFORE {}").format(sql.Literal(self.before))
        elif self.after is not None:
            place = sql.SQL(" AFTER {}").format(sql.Literal(self.after))
        add = sql.SQL("ALTER TYPE {} ADD VALUE {}{}").format(
            type_name(kind), sql.Literal(self.value), place
        )
        done = sql.SQL(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_enum"
            " WHERE enumtypid = {}::pg_catalog.regtype AND enumlabel = {})"
        ).format(sql.Literal(kind), sql.Literal(self.value))
        return (
            Step(
                name="add_value",
                work=Autocommit(
                    statement=render(add),
                    lock=Lock.NONE,
                    table=facts.table.name,
                    done=render(done),
                ),
                no_reverse="PostgreSQL drops no value of an enum; unused, it stays",
                loses=True,
            ),
        )
