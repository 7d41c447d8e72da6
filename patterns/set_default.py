"""Give a column another default, for rows to come.

phase     statement    lock on the table
expand    SET DEFAULT  ACCESS EXCLUSIVE, no scan

Rows that are there keep what they have. The new release may rely on the default
from expand on.

Source: PostgreSQL manual, ALTER TABLE, SET DEFAULT.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass

from migrator.facts import Facts
from migrator.kernels import direct, reading, requirements, trials
from migrator.pattern import Pattern
from migrator.plan import Notice, Probe, State, Steps


@dataclass(frozen=True, slots=True)
class SetDefault(Pattern):
    """
    Make `default` the default of `column` of `table`.

    Example:
        change = SetDefault("orders", "state", "'new'")

    Args:
        table: the table's name, without its schema.
        column: the column.
        default: SQL expression without columns, e.g. `"'new'"` or `"now()"`.
        schema: the table's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    table: str
    column: str
    default: str
    _: KW_ONLY
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return (
            f'set the default of column "{self.column}" of table "{self.table}" to'
            f" {self.default}"
        )

    @property
    def admission(self) -> State:
        """From expanded, which sets it."""
        return State.EXPANDED

    def columns(self) -> frozenset[str]:
        """Return the column."""
        return frozenset({self.column})

    def readings(self, facts: Facts) -> Mapping[str, Probe]:
        """Return the question which functions whoever inserts has to call."""
        return reading.asked(facts, self.default, by_name=False)

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse a column that can have no default."""
        requirements.require_table(facts)
        column = facts.table.require(self.column)
        requirements.require_plain(facts, column)
        before = "NULL" if column.default is None else column.default
        return (
            Notice(
                text=f"From expand on an INSERT that leaves the column out, also one of"
                f" the old release, stores {self.default} instead of {before}."
            ),
            Notice(
                text="ORMs that insert every column do not use it: give the model the"
                " same default."
            ),
            *requirements.default_notices(facts, column),
        )

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return the trial that it is a default of that type, and no NULL."""
        column = facts.table.require(self.column)
        return (trials.default_gives_value(self.title, column, self.default),)

    def expand(self, facts: Facts) -> Steps:
        """Return the default."""
        column = facts.table.require(self.column)
        return (direct.set_default(facts, column, self.default),)
