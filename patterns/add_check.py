"""Add a check without a scan under a lock that stops anybody.

phase   statement                    lock on the table
expand  NOT VALID, if enforce_early  ACCESS EXCLUSIVE, no scan
verify  count of violating rows      ACCESS SHARE
retire  ADD CONSTRAINT … NOT VALID   ACCESS EXCLUSIVE, no scan
        VALIDATE CONSTRAINT          SHARE UPDATE EXCLUSIVE, full scan

Going back drops it (ACCESS EXCLUSIVE, no scan).

Source: PostgreSQL manual, ALTER TABLE, Notes; section 5.5.1 (NULL passes).
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass

from psycopg import sql

from migrator import names
from migrator.facts import Facts
from migrator.final import Final, Key
from migrator.kernels import constraints, reading, requirements, trials
from migrator.kernels.rows import comparisons
from migrator.pattern import Pattern
from migrator.plan import Notice, Probe, State, Step, Steps, expression, render


@dataclass(frozen=True, slots=True)
class AddCheck(Pattern):
    """
    Hold the rows of `table` to a condition.

    Example:
        change = AddCheck("orders", "price_positive", "price > 0")

    Args:
        table: the table's name, without its schema.
        name: the constraint's name.
        expression: SQL condition over the row; where it is NULL, the row passes.
        enforce_early: whether new rows are held to it from expand on, also those of
            the old release.
        schema: the table's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    table: str
    name: str
    expression: str
    _: KW_ONLY
    enforce_early: bool = False
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return f'add check "{self.name}" to table "{self.table}"'

    @property
    def admission(self) -> State:
        """From expanded: it says nothing to a release that keeps to it."""
        return State.EXPANDED

    def columns(self) -> frozenset[str] | None:
        """Return the words of the condition, and its name; None for a whole row."""
        read = names.read_by(self.table, self.expression)
        return None if read is None else read | {self.name}

    def readings(self, facts: Facts) -> Mapping[str, Probe]:
        """Return the question which functions whoever writes a row has to call."""
        return reading.asked(facts, self.expression, by_name=False)

    def final(self) -> Final:
        """Return the constraint."""
        key = Key(name=self.name, kind="c")
        return Final(keys=(key,), untold="its expression")

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse a name that is taken."""
        requirements.require_table(facts)
        requirements.require_all_rows_visible(facts)
        constraints.require_free_name(facts, self.name)
        if self.enforce_early:
            when = Notice(
                text="From expand on, each write of the old release to a row that"
                " violates the check is refused, also one that leaves the violation as"
                " it was.",
                needs_assurance=True,
            )
        else:
            when = Notice(
                text="Nothing is enforced before retire: violating rows that either"
                " release writes hold the change at verify."
            )
        return self.assure((when, *requirements.partition_notices(facts)))

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return trials of the check: that it is one, and that it can be computed."""
        # Bears the table's own name, which the expression may use; but where it is
        # read for each partition under that one's name.
        partitioned = facts.table.kind == "p"
        name = "migrator_trial" if partitioned else facts.table.name.name
        trial = sql.Identifier("pg_temp", name)
        made = render(
            sql.SQL("CREATE TEMP TABLE {} (LIKE {})").format(
                sql.Identifier(name), facts.table.name.identifier
            )
        )
        added = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} CHECK {}").format(
            trial, sql.Identifier(self.name), expression(self.expression)
        )
        return (
            Probe(
                statements=(made, render(added)), question="SELECT true", otherwise=""
            ),
            trials.depends_on_row(self.title, made, trial, self.expression),
            trials.computes_on_rows(made, facts, trial, self.expression),
        )

    def expand(self, facts: Facts) -> Steps:
        """Return the constraint, where it is to be enforced early."""
        return (self._add(facts),) if self.enforce_early else ()

    def verify(self, facts: Facts) -> Steps:
        """Return the count of violating rows."""
        return comparisons(
            facts,
            "count_violations",
            sql.SQL("NOT {}").format(expression(self.expression)),
            shown=tuple(c.name for c in facts.table.columns),
            no_reverse="nothing is changed",
            wrong="a violation of the check",
        )

    def retire(self, facts: Facts) -> Steps:
        """
        Return the constraint, then its proof.

        Raises:
            Refused: another constraint got its name since.
        """
        proof = constraints.validate(facts.table.name, self.name)
        if self.enforce_early:
            return (proof,)
        constraints.require_none_since(facts, self.name)
        return (self._add(facts), proof)

    def rebuild(self, facts: Facts) -> Steps:
        """Return the drop of the constraint."""
        return (constraints.drop_check(facts.table.name, self.name),)

    def _add(self, facts: Facts) -> Step:
        condition = expression(self.expression)
        return constraints.add_check(facts.table.name, self.name, condition)
