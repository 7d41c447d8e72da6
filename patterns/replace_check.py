"""Give a check another condition under the name that it has.

phase   statement                     lock on the table
verify  count of violating rows       ACCESS SHARE
retire  ADD CONSTRAINT … NOT VALID    ACCESS EXCLUSIVE, no scan
        VALIDATE CONSTRAINT           SHARE UPDATE EXCLUSIVE, full scan
        DROP and RENAME CONSTRAINT    ACCESS EXCLUSIVE, no scan

The new one is added and proved under a name of the change, beside the old one, so that
rows are never without a check. Going back adds the old one NOT VALID and validates it
before the new one goes.

Source: PostgreSQL manual, ALTER TABLE, Notes; section 5.5.1 (NULL passes).
"""

from dataclasses import KW_ONLY, dataclass, replace

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Constraint, Facts
from migrator.final import Final, Key
from migrator.kernels import constraints, direct, requirements
from migrator.pattern import Pattern
from migrator.patterns.add_check import AddCheck
from migrator.patterns.drop_constraint import DropConstraint
from migrator.plan import (
    Action,
    Notice,
    Probe,
    State,
    Step,
    Steps,
    expression,
    render,
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
        """From expanded, as long as it keeps to the old condition until retire."""
        return State.EXPANDED

    def columns(self) -> frozenset[str] | None:
        """Return None: which columns the conditions read is the server's to say."""
        return None

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
        notice = Notice(
            text="Until retire rows are held to the old condition, also those of the"
            " new release; rows of either release that violate the new one hold the"
            " change at verify. Going back counts the rows that violate the old one,"
            " and is refused while there are any."
        )
        return self.assure((notice, *requirements.partition_notices(facts)))

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return trials of the new condition."""
        return self._new(self.name).probes(facts)

    def expand(self, facts: Facts) -> Steps:
        """Return nothing: the old release keeps to the old condition alone."""
        return ()

    def verify(self, facts: Facts) -> Steps:
        """Return the count of rows that violate the new condition."""
        return self._new(self.name).verify(facts)

    def retire(self, facts: Facts) -> Steps:
        """Return the new check, its proof, and the exchange."""
        table, made = facts.table.name, self._made(facts)
        return (
            constraints.add_check(table, made, expression(self.expression)),
            constraints.validate(table, made),
            self._exchange(facts, constraints.require(facts, self.name)),
        )

    def _exchange(self, facts: Facts, old: Constraint) -> Step:
        table, made = facts.table.name, self._made(facts)
        gone = sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(
            table.identifier, sql.Identifier(self.name)
        )
        comments = [constraints.comment(table, old)] if old.comment is not None else []
        exchanged = direct.catalogue_step(
            table, gone, self._renamed(facts, made, self.name), *comments
        )
        there = constraints.is_there(table, made)
        back: tuple[Action, ...] = (
            # Both hold from here on, until the first step's way back drops the new one.
            replace(
                direct.catalogue_step(table, self._renamed(facts, self.name, made)),
                done=there,
            ),
            *DropConstraint(self.table, self.name, schema=self.schema).again(
                facts, old
            ),
        )
        return Step(
            name="exchange_checks",
            work=replace(
                exchanged,
                done=render(
                    sql.SQL(
                        "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_constraint"
                        " WHERE conrelid = {}::pg_catalog.regclass AND conname = {})"
                    ).format(sql.Literal(str(table)), sql.Literal(made))
                ),
            ),
            reverse=back,
        )

    def _renamed(self, facts: Facts, old: str, new: str) -> sql.Composable:
        return sql.SQL("ALTER TABLE {} RENAME CONSTRAINT {} TO {}").format(
            facts.table.name.identifier, sql.Identifier(old), sql.Identifier(new)
        )

    def _made(self, facts: Facts) -> str:
        """Return the new check's name until the exchange."""
        return names.owned("check", self.name, facts.tag)

    def _new(self, name: str) -> AddCheck:
        return AddCheck(self.table, name, self.expression, schema=self.schema)
