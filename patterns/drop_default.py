"""Take a column's default away, once nobody relies on it.

phase     statement     lock on the table
retire    DROP DEFAULT  ACCESS EXCLUSIVE, no scan

The old release may leave the column out of its INSERTs, so that nothing happens
before it is gone. Rows that are there keep what they have.

Source: PostgreSQL manual, ALTER TABLE, DROP DEFAULT.
"""

from dataclasses import KW_ONLY, dataclass

from migrator.errors import Refused
from migrator.facts import Facts
from migrator.final import Final
from migrator.kernels import direct, requirements
from migrator.pattern import Pattern
from migrator.plan import Notice, State, Steps


@dataclass(frozen=True, slots=True)
class DropDefault(Pattern):
    """
    Drop the default of `column` of `table`.

    Example:
        change = DropDefault("orders", "state")

    Args:
        table: the table's name, without its schema.
        column: the column, which every INSERT of the new release names.
        schema: the table's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    table: str
    column: str
    _: KW_ONLY
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return f'drop the default of column "{self.column}" of table "{self.table}"'

    @property
    def admission(self) -> State:
        """From expanded: it does not rely on the default."""
        return State.EXPANDED

    def columns(self) -> frozenset[str]:
        """Return the column."""
        return frozenset({self.column})

    def final(self) -> Final:
        """Return the column without it."""
        return Final(no_default=(self.column,))

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse a column without a default."""
        requirements.require_table(facts)
        column = facts.table.require(self.column)
        requirements.require_plain(facts, column)
        if column.default is None:
            raise Refused(
                f'Column "{self.column}" of table {facts.table.name} has no default.',
                next="remove the change from the revision.",
            )
        after = "is refused" if column.not_null else "stores NULL"
        return (
            Notice(
                text="From retire on an INSERT that leaves the column out"
                f" {after} instead of storing {column.default}."
            ),
            *requirements.default_notices(facts, column),
        )

    def expand(self, facts: Facts) -> Steps:
        """Return nothing: the old release may rely on the default."""
        return ()

    def retire(self, facts: Facts) -> Steps:
        """Return the drop of the default."""
        column = facts.table.require(self.column)
        return (direct.set_default(facts, column, None),)
