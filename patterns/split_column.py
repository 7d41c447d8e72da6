"""Split a column into several while both shapes are in use.

phase     statement                            lock on the table
expand    ADD COLUMN, dual-write trigger       ACCESS EXCLUSIVE, no scan
backfill  UPDATE in chunks                     ROW EXCLUSIVE, per chunk
verify    count of rows out of step            ACCESS SHARE
retire    CREATE INDEX CONCURRENTLY (marks)    SHARE UPDATE EXCLUSIVE
          RENAME COLUMN, trigger swapped       ACCESS EXCLUSIVE, no scan
drop      DROP COLUMN of the retired side      ACCESS EXCLUSIVE, no scan

A split may lose detail each way ("Anna Maria Smith" has two splits): the side
that was written last keeps its own. Going back parks the new columns with it.

Source: PostgreSQL manual, ALTER TABLE, Notes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass

from migrator.errors import Refused
from migrator.facts import Facts
from migrator.kernels.parts import Part
from migrator.kernels.two_shapes import TwoShapes
from migrator.plan import Notice


@dataclass(frozen=True, slots=True)
class SplitColumn(TwoShapes):
    """
    Split `column` of `table` into the columns `into`.

    Example:
        change = SplitColumn(
            "users",
            "name",
            into={
                "first": ("text", "split_part(name, ' ', 1)"),
                "last": ("text", "substr(name, length(split_part(name, ' ', 1)) + 2)"),
            },
            back="first || ' ' || last",
        )

    Args:
        table: the table's name, without its schema.
        column: the column of the old release.
        into: for each column of the new release its type and the SQL expression
            that makes it, e.g. `{"city": ("text", "split_part(place, ', ', 1)")}`.
        back: the SQL expression that makes `column` from the new ones.
        type: the type of `column`, spelt in full, e.g. `character varying(80)`;
            only a downgrade after the drop needs it.
        schema: the table's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    table: str
    column: str
    into: Mapping[str, Sequence[str]]
    back: str
    _: KW_ONLY
    type: str | None = None
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        parts = ", ".join(f'"{name}"' for name in self.into)
        return f'split column "{self.column}" of table "{self.table}" into {parts}'

    def columns(self) -> frozenset[str]:
        """Return the columns of both sides."""
        return frozenset({self.column, *self.into})

    def expressions(self) -> tuple[str, ...]:
        """Return how each shape is made from the other."""
        return (*(text for _, text in self.into.values()), self.back)

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse a split into nothing, and what a second shape could not follow."""
        if not self.into:
            raise Refused(
                f"{self.title}: `into` names no column.", next="name at least one."
            )
        return TwoShapes.check(self, facts)

    def old_parts(self, facts: Facts) -> tuple[Part, ...]:
        """Return the column."""
        return (Part(name=self.column, value=self.back, type=self.type),)

    def new_parts(self, facts: Facts) -> tuple[Part, ...]:
        """Return the columns that it is split into."""
        return tuple(
            Part(name=name, value=made, type=kind, privileges_of=(self.column,))
            for name, (kind, made) in self.into.items()
        )
