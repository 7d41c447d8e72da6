"""Merge columns into one while both shapes are in use.

phase     statement                            lock on the table
expand    ADD COLUMN, dual-write trigger       ACCESS EXCLUSIVE, no scan
backfill  UPDATE in chunks                     ROW EXCLUSIVE, per chunk
verify    count of rows out of step            ACCESS SHARE
retire    CREATE INDEX CONCURRENTLY (marks)    SHARE UPDATE EXCLUSIVE
          RENAME COLUMN, trigger swapped       ACCESS EXCLUSIVE, no scan
drop      DROP COLUMN of the retired side      ACCESS EXCLUSIVE, no scan

The mirror image of SplitColumn. What `back` cannot tell apart again, the old
columns keep until the new release writes the row.

Source: PostgreSQL manual, ALTER TABLE, Notes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field

from migrator.errors import Refused
from migrator.facts import Facts
from migrator.kernels.column_definition import in_common
from migrator.kernels.parts import Part
from migrator.kernels.two_shapes import TwoShapes
from migrator.plan import Notice


@dataclass(frozen=True, slots=True)
class MergeColumns(TwoShapes):
    """
    Merge `merged` of `table` into the column `into`.

    Example:
        change = MergeColumns(
            "people",
            ["first", "last"],
            "name",
            "text",
            "first || ' ' || last",
            back={
                "first": "split_part(name, ' ', 1)",
                "last": "substr(name, strpos(name, ' ') + 1)",
            },
        )

    Args:
        table: the table's name, without its schema.
        merged: the columns of the old release.
        into: the column of the new release.
        type: its type in SQL.
        expression: the SQL expression that makes it, e.g. `"first || ' ' || last"`.
        back: for each of `merged` the SQL expression that makes it from `into`,
            e.g. `{"first": "split_part(name, ' ', 1)"}`.
        types: the types of `merged`, as the server spells them; only a downgrade
            after the drop needs them.
        schema: the table's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    table: str
    merged: Sequence[str]
    into: str
    type: str
    expression: str
    back: Mapping[str, str]
    _: KW_ONLY
    types: Mapping[str, str] = field(default_factory=dict[str, str])
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        parts = ", ".join(f'"{name}"' for name in self.merged)
        return f'merge columns {parts} of table "{self.table}" into "{self.into}"'

    def columns(self) -> frozenset[str]:
        """Return the columns of both sides."""
        return frozenset({*self.merged, self.into})

    def expressions(self) -> tuple[str, ...]:
        """Return how each shape is made from the other."""
        return (self.expression, *self.back.values())

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse columns without a way back, and what no second shape could follow."""
        if not self.merged or isinstance(self.merged, str):
            raise Refused(
                f"{self.title}: the merged columns must be a list of one or more.",
                next='write ["first", "last"].',
            )
        odd = set(self.merged).symmetric_difference(self.back)
        if odd or len(set(self.merged)) < len(self.merged):
            listed = ", ".join(f'"{name}"' for name in sorted(odd or self.merged))
            raise Refused(
                f"{self.title}: `back` must make each merged column once; {listed}"
                " stands on one side alone, or twice.",
                next="give one expression for each column.",
            )
        return TwoShapes.check(self, facts)

    def old_parts(self, facts: Facts) -> tuple[Part, ...]:
        """Return the columns that are merged."""
        return tuple(
            Part(name=name, value=self.back[name], type=self.types.get(name))
            for name in self.merged
            # `check` refuses a declaration that leaves one out.
            if name in self.back
        )

    def new_parts(self, facts: Facts) -> tuple[Part, ...]:
        """Return the column into which they go."""
        merged = tuple(self.merged)
        return (
            Part(
                name=self.into,
                value=self.expression,
                type=self.type,
                privileges_of=merged,
            ),
        )

    def remarks(self, facts: Facts) -> tuple[Notice, ...]:
        """Return a note on roles that may use some of the columns alone."""
        found = [facts.table.require(name) for name in self.merged]
        common = {(word, role) for word, role, _ in in_common(found)}
        partly = {
            (word, role)
            for c in found
            for word, role, _ in c.grants
            if (word, role) not in common
        }
        return tuple(
            Notice(
                text=f"Role {role} has {word} on some of the columns alone, and gets"
                f' it on "{self.into}" by no privilege on a column.',
                needs_assurance=True,
            )
            for word, role in sorted(partly)
        )
