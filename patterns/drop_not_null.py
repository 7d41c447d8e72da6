"""Let a column hold NULL.

phase     statement               lock on the table
expand    DROP NOT NULL, `early`  ACCESS EXCLUSIVE, no scan
retire    DROP NOT NULL           ACCESS EXCLUSIVE, no scan

The old release may not cope with NULL, so that it is lifted once that one is gone.
Going back counts NULLs, then proves NOT NULL by a check that is validated under
SHARE UPDATE EXCLUSIVE.

Source: PostgreSQL manual, ALTER TABLE, DROP NOT NULL.
"""

from dataclasses import KW_ONLY, dataclass

from migrator import names
from migrator.errors import Refused
from migrator.facts import Facts
from migrator.final import Final
from migrator.kernels import dropping, not_null, requirements, unproved
from migrator.pattern import Pattern
from migrator.plan import Notice, State, Steps


@dataclass(frozen=True, slots=True)
class DropNotNull(Pattern):
    """
    Lift NOT NULL of `column` of `table`.

    Example:
        change = DropNotNull("users", "email")

    Args:
        table: the table's name, without its schema.
        column: the column.
        early: at expand, where the old release copes with NULL as well.
        schema: the table's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    table: str
    column: str
    _: KW_ONLY
    early: bool = False
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return f'let column "{self.column}" of table "{self.table}" hold NULL'

    @property
    def admission(self) -> State:
        """From expanded; it writes no NULL before it is lifted."""
        return State.EXPANDED

    def columns(self) -> frozenset[str]:
        """Return the column."""
        return frozenset({self.column})

    def final(self) -> Final:
        """Return the column without its constraint."""
        return Final(nullable=(self.column,))

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse a column that may hold NULL already, or never."""
        requirements.require_table(facts)
        requirements.require_all_rows_visible(facts)
        column = facts.table.require(self.column)
        requirements.require_plain(facts, column)
        unproved.require_not_null(facts, self.column)
        if not column.not_null:
            raise Refused(
                f'Column "{self.column}" of table {facts.table.name} may hold NULL'
                " already.",
                next="remove the change from the revision.",
            )
        way = "make another primary key first."
        dropping.require_not_primary(facts, column, way)
        early = "From expand on the old release may read NULL in this column."
        late = (
            "Until retire a NULL is refused, also one of the new release. With"
            " early=True it is lifted at expand."
        )
        text = early if self.early else late
        return self.assure((Notice(text=text, needs_assurance=self.early),))

    def expand(self, facts: Facts) -> Steps:
        """Return the lift, where the old release copes with NULL."""
        return self._lift(facts) if self.early else ()

    def retire(self, facts: Facts) -> Steps:
        """Return the lift, once no old release is left."""
        return () if self.early else self._lift(facts)

    def _lift(self, facts: Facts) -> Steps:
        check = names.owned("check", self.column, facts.tag)
        why = "written since it was lifted"
        return (not_null.nullable(facts, self.column, check, why),)
