"""Rename a constraint, and the index behind it.

phase   statement           lock on the table
expand  RENAME CONSTRAINT   ACCESS EXCLUSIVE, no scan

Going back renames it back.

Source: PostgreSQL manual, ALTER TABLE, RENAME CONSTRAINT.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace

from psycopg import sql

from migrator.errors import Refused
from migrator.facts import Facts
from migrator.final import Final
from migrator.kernels import constraints, direct, requirements
from migrator.pattern import Pattern
from migrator.plan import Notice, State, Step, Steps, Transaction


@dataclass(frozen=True, slots=True)
class RenameConstraint(Pattern):
    """
    Rename constraint `name` of `table`.

    Example:
        change = RenameConstraint("orders", "orders_check", "price_positive")

    Args:
        table: the table's name, without its schema.
        name: the constraint's name.
        to: its new name.
        schema: the table's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    table: str
    name: str
    to: str
    _: KW_ONLY
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return f'rename constraint "{self.name}" of table "{self.table}" to "{self.to}"'

    @property
    def admission(self) -> State:
        """From expanded."""
        return State.EXPANDED

    def columns(self) -> frozenset[str] | None:
        """Return None: which columns it is on is the server's to say."""
        return None

    def final(self) -> Final:
        """Return that the old name is gone."""
        return Final(
            gone=(self.name,), untold=f'whether "{self.to}" is that constraint'
        )

    def renames(self) -> Mapping[str, str]:
        """Return the constraint, and an index that bears its name."""
        return {self.name: self.to}

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse a constraint that is not there, and a name that is taken."""
        requirements.require_table(facts)
        found = constraints.require(facts, self.name)
        for part in facts.table.partitions:
            # What partitions have by inheritance has one name; a key's has not.
            if found.kind in ("c", "n") and part.constraint(self.name) is None:
                raise Refused(
                    f'On partition {part.name} constraint "{self.name}" has another'
                    " name: PostgreSQL renames it on all of them, or not at all.",
                    next="leave its name, or drop it and add it anew.",
                )
        # Of a key the index takes the name as well; a foreign key's is another's.
        indexed = found.kind in ("p", "u", "x")
        constraints.require_free_name(facts, self.to, indexed=indexed)
        if not indexed:
            text = (
                "A release that tells errors apart by the constraint's name sees the"
                " new one from expand on."
            )
            return self.assure((Notice(text=text),))
        text = (
            f'From expand on, ON CONFLICT ON CONSTRAINT finds "{self.to}" alone, and'
            " errors bear that name: a release that says the old one fails."
        )
        return self.assure((Notice(text=text, needs_assurance=True),))

    def expand(self, facts: Facts) -> Steps:
        """Return the rename, with the one back."""
        return (
            Step(
                name="rename_constraint",
                work=self._renamed(facts, self.name, self.to),
                reverse=(self._renamed(facts, self.to, self.name),),
            ),
        )

    def rebuild(self, facts: Facts) -> Steps:
        """Return the rename back."""
        return (
            Step(
                name="rename_back",
                work=self._renamed(facts, self.to, self.name),
                no_reverse="upgrade again",
            ),
        )

    def _renamed(self, facts: Facts, old: str, new: str) -> Transaction:
        table = facts.table.name
        work = direct.catalogue_step(
            table,
            sql.SQL("ALTER TABLE {} RENAME CONSTRAINT {} TO {}").format(
                table.identifier, sql.Identifier(old), sql.Identifier(new)
            ),
        )
        return replace(work, done=constraints.is_there(table, new))
