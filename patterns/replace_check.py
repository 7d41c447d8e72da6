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

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Constraint, Facts
from migrator.final import Final, Key
from migrator.kernels import constraints, direct, requirements
from migrator.pattern import Pattern
from migrator.patterns.add_check import AddCheck
from migrator.plan import (
    Action,
    Notice,
    Probe,
    State,
    Step,
    Steps,
    Transaction,
    expression,
    render,
    type_name,
)


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
        table, made = facts.table.name, self._made(facts)
        either = self._either(facts, constraints.require(facts, self.name))
        # Both hold from here on, until the first step's way back drops the new one.
        back = direct.catalogue_step(
            table, constraints.renamed(table, self.name, made), *either[1:]
        )
        # What a way back to planned left that was not gone to its end.
        left = sql.SQL("ALTER TABLE {} DROP CONSTRAINT IF EXISTS {}").format(
            table.identifier, sql.Identifier(self._again(facts))
        )
        exchange = self._exchange(facts, made)
        return (
            constraints.add_check(table, made, expression(self.expression)),
            constraints.validate(table, made),
            Step(
                name="exchange_checks",
                work=replace(exchange, statements=(*exchange.statements, render(left))),
                reverse=(replace(back, done=constraints.is_there(table, made)),),
            ),
        )

    def _either(self, facts: Facts, found: Constraint) -> tuple[sql.Composable, ...]:
        """
        Return what puts the check that either release meets in the place of one.

        Of that check itself it makes one that means the same.
        """
        table = facts.table.name
        added = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} CHECK ({} OR {}) NOT VALID")
        return (
            self._gone(facts),
            added.format(
                table.identifier,
                sql.Identifier(self.name),
                expression(found.condition or "true"),
                expression(self.expression),
            ),
            *constraints.comments(table, found),
        )

    def _old_again(self, facts: Facts, old: Constraint) -> tuple[Action, ...]:
        """Return what brings the old condition back, once no row violates it."""
        table = facts.table.name
        definition = type_name(old.definition)
        if not old.validated:
            # It was never proved, and says so.
            added = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {}").format(
                table.identifier, sql.Identifier(self.name), definition
            )
            statements = (self._gone(facts), added, *constraints.comments(table, old))
            return (direct.catalogue_step(table, *statements),)
        refusal = constraints.violated(
            facts,
            self.name,
            sql.SQL("NOT {}").format(expression(old.condition or "true")),
            since="it holds rows to either condition",
        )
        again = self._again(facts)
        is_beside = constraints.is_there(table, again)
        beside = constraints.add(table, again, definition + sql.SQL(" NOT VALID"))
        return (
            constraints.counted(table, refusal, done=is_beside),
            beside,
            replace(
                constraints.validated(table, again),
                refusals=(refusal,),
                withdraw=(constraints.withdrawn(table, again),),
            ),
            self._exchange(facts, again),
        )

    def _exchange(self, facts: Facts, made: str) -> Transaction:
        """Return what gives a proved check the place and name of the one for both."""
        table, found = facts.table.name, constraints.require(facts, self.name)
        done = f"SELECT NOT ({constraints.is_there(table, made)})"
        return constraints.exchanged(table, found, made, done=done)

    def _gone(self, facts: Facts) -> sql.Composable:
        return sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(
            facts.table.name.identifier, sql.Identifier(self.name)
        )

    def _made(self, facts: Facts) -> str:
        """Return the new condition's name while it is proved."""
        return names.owned("check", self.name, facts.tag)

    def _again(self, facts: Facts) -> str:
        """Return the old condition's name while it is proved on the way back."""
        return names.owned("again", self.name, facts.tag)

    @property
    def _new(self) -> AddCheck:
        return AddCheck(self.table, self.name, self.expression, schema=self.schema)
