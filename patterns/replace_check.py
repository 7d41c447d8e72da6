"""Give a check another condition under the name that it has.

phase   statement                     lock on the table
expand  DROP CONSTRAINT, ADD          ACCESS EXCLUSIVE, no scan
        CONSTRAINT … NOT VALID
verify  count of violating rows       ACCESS SHARE
retire  ADD CONSTRAINT … NOT VALID    ACCESS EXCLUSIVE, no scan
        VALIDATE CONSTRAINT           SHARE UPDATE EXCLUSIVE, full scan
        DROP and RENAME CONSTRAINT    ACCESS EXCLUSIVE, no scan

Each release keeps to a condition of its own, so that between expand and retire a row
passes that meets either: NULL where one is NULL and the other false, as PostgreSQL has
`OR`, and so passes as well. The new condition alone is added and proved under a name of
the change beside that one, and takes its place: rows are never without a check. Going
back to before expand does the same with the old condition.

Source: PostgreSQL manual, ALTER TABLE, Notes; section 5.5.1 (NULL passes), 9.1 (OR).
"""

from dataclasses import KW_ONLY, dataclass

from migrator import names
from migrator.errors import Refused
from migrator.facts import Facts
from migrator.final import Final, Key
from migrator.kernels import constraints, requirements
from migrator.pattern import Pattern
from migrator.patterns.add_check import AddCheck
from migrator.patterns.drop_constraint import DropConstraint
from migrator.plan import Notice, Probe, State, Steps, expression


@dataclass(frozen=True, slots=True)
class ReplaceCheck(Pattern):
    """
    Hold the rows of `table` to another condition by the check `name`.

    Example:
        change = ReplaceCheck("orders", "price_positive", "price >= 0")

    Args:
        table: the table's name, without its schema.
        name: the constraint's name, before and after.
        expression: SQL condition over the row; where it is NULL, the row passes.
        schema: the table's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    table: str
    name: str
    expression: str
    _: KW_ONLY
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return f'replace check "{self.name}" of table "{self.table}"'

    @property
    def admission(self) -> State:
        """From expanded: what it writes passes from there on."""
        return State.EXPANDED

    def columns(self) -> frozenset[str] | None:
        """Return None: which columns the conditions read is the server's to say."""
        return None

    def readings(self, facts: Facts) -> Mapping[str, Probe]:
        """Return the question which functions whoever writes a row has to call."""
        return self._new.readings(facts)

    def final(self) -> Final:
        """Return the constraint."""
        key = Key(name=self.name, kind="c")
        return Final(keys=(key,), untold="its expression")

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse what is no check of this table."""
        requirements.require_table(facts)
        requirements.require_all_rows_visible(facts)
        found = constraints.require(facts, self.name)
        if found.kind != "c":
            raise Refused(
                f'Constraint "{self.name}" of table {facts.table.name} is no check.',
                next="name a check.",
            )
        tail = found.definition.rpartition(")")[2].removesuffix("NOT VALID").strip()
        if tail:
            raise Refused(
                f'Check "{self.name}" of table {facts.table.name} is {tail}: a'
                " condition that either release meets would hold more rows to it.",
                next="drop it by DropConstraint, and add the new one by AddCheck.",
            )
        notice = Notice(
            text="Between expand and retire a row passes that meets the old or the new"
            " condition; rows that violate the new one hold the change at verify. Going"
            " back to planned counts rows that violate the old one, and is refused"
            " while there are any."
        )
        return self.assure((notice, *requirements.partition_notices(facts)))

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return trials of the new condition."""
        return self._new.probes(facts)

    def expand(self, facts: Facts) -> Steps:
        """Return the exchange of the old condition for either one."""
        old = constraints.require(facts, self.name)
        either = self._either(facts, old)
        return (
            Step(
                name="allow_both_conditions",
                work=direct.catalogue_step(facts.table.name, *either),
                reverse=self._old_again(facts, old),
            ),
        )

    def verify(self, facts: Facts) -> Steps:
        """Return the count of rows that violate the new condition."""
        return self._new.verify(facts)

    def retire(self, facts: Facts) -> Steps:
        """Return the new check, its proof, and the exchange."""
        table = facts.table.name
        made = names.owned("check", self.name, facts.tag)
        old = constraints.require(facts, self.name)
        again = DropConstraint(self.table, self.name, schema=self.schema).again(
            facts, old
        )
        return (
            constraints.add_check(table, made, expression(self.expression)),
            constraints.validate(table, made),
            constraints.exchanged(table, old, made, again),
        )

    @property
    def _new(self) -> AddCheck:
        return AddCheck(self.table, self.name, self.expression, schema=self.schema)
