"""Carry a column over into another by an expression each way, with both in use.

phase     statement                            lock on the table
expand    ADD COLUMN, dual-write trigger       ACCESS EXCLUSIVE, no scan
backfill  UPDATE in chunks                     ROW EXCLUSIVE, per chunk
          CREATE INDEX CONCURRENTLY (copies)   SHARE UPDATE EXCLUSIVE
          ANALYZE (copies by expressions)      SHARE UPDATE EXCLUSIVE, a sample
verify    count of rows out of step            ACCESS SHARE
retire    CREATE INDEX CONCURRENTLY (marks)    SHARE UPDATE EXCLUSIVE
          CREATE UNIQUE INDEX CONCURRENTLY     SHARE UPDATE EXCLUSIVE
          ADD CHECK, FOREIGN KEY NOT VALID     ACCESS EXCLUSIVE, no scan
          VALIDATE CONSTRAINT                  SHARE UPDATE EXCLUSIVE, full scan
          RENAME COLUMN, trigger swapped       ACCESS EXCLUSIVE, no scan
drop      DROP COLUMN of the retired side      ACCESS EXCLUSIVE, no scan

For another unit, another code, a normal form; ChangeColumnType is the same with
casts for expressions. What hangs on the old column goes over to the new one; what it is
held to does so where the change says that it holds of that one too.

Source: PostgreSQL manual, ALTER TABLE, Notes.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

from migrator.errors import Misdeclared, NotThere
from migrator.facts import Facts
from migrator.kernels.parts import Part
from migrator.kernels.two_shapes import TwoShapes
from migrator.plan import Notice


@dataclass(frozen=True, slots=True)
class TransformColumn(TwoShapes):
    """
    Make of `column` of `table` the column `to`.

    Example:
        change = TransformColumn(
            "bills",
            "price",
            "cents",
            "bigint",
            up="price * 100",
            down="cents / 100",
            default="0",
        )

    Args:
        table: the table's name, without its schema.
        column: the column of the old release.
        to: the column of the new release.
        type: its type in SQL.
        up: the SQL expression that makes `to`, e.g. `"lower(email)"`.
        down: the SQL expression that makes `column`, from `to`.
        keep: checks, foreign keys, unique constraints and unique indexes of `column`
            that hold of `to` as well, e.g. `["users_email_key"]`; retire lifts others.
        collation: of `to`, in SQL; None means its type's own.
        default: SQL expression, of `to` from retire on; asked for where `column`
            has a default.
        old_type: the type of `column`, as the server spells it; only a downgrade
            after the drop needs it.
        schema: the table's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    table: str
    column: str
    to: str
    type: str
    up: str
    down: str
    _: KW_ONLY
    keep: Sequence[str] = ()
    collation: str | None = None
    default: str | None = None
    old_type: str | None = None
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return (
            f'transform column "{self.column}" of table "{self.table}" into "{self.to}"'
        )

    def columns(self) -> frozenset[str]:
        """Return both columns."""
        return frozenset({self.column, self.to})

    def expressions(self) -> tuple[str, ...]:
        """Return how each shape is made from the other."""
        return (self.up, self.down)

    def keeps(self) -> Sequence[str]:
        """Return what the declaration says."""
        return self.keep

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse to keep what is not there, and what no second shape could follow."""
        if isinstance(self.keep, str):
            raise Misdeclared(
                f"{self.title}: `keep` must be a list of names.",
                next=f'write keep=["{self.keep}"].',
            )
        column = facts.table.require(self.column)
        held = (*column.checks, *column.unique_indexes, *column.foreign_keys)
        for name in self.keep:
            if name not in held:
                known = ", ".join(f'"{n}"' for n in held) or "none"
                raise NotThere(
                    f'Column "{self.column}" of table {facts.table.name} is in no'
                    f' check, foreign key, unique constraint or unique index "{name}".',
                    next=f"correct `keep`; the column is in {known}.",
                    name=name,
                    known=held,
                )
        return TwoShapes.check(self, facts)

    def old_parts(self, facts: Facts) -> tuple[Part, ...]:
        """Return the column of the old release."""
        return (Part(name=self.column, value=self.down, type=self.old_type),)

    def new_parts(self, facts: Facts) -> tuple[Part, ...]:
        """Return the column of the new release, in the old one's place."""
        return (
            Part(
                name=self.to,
                value=self.up,
                type=self.type,
                collation=self.collation,
                heir_of=self.column,
                default=self.default,
            ),
        )
