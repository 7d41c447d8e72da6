"""Take a value of an enum out of use: rows moved, then refused by a check.

phase   statement                      lock on the table
retire  UPDATE in chunks               ROW EXCLUSIVE, per chunk
        ADD CONSTRAINT … NOT VALID     ACCESS EXCLUSIVE, no scan
        VALIDATE CONSTRAINT            SHARE UPDATE EXCLUSIVE, full scan

The old release may write the value until retire, so that nothing happens before it is
gone. PostgreSQL drops no value of an enum: it stays in the type, and the check keeps
it out of the column. Going back drops the check; rows stay where they were moved.

Source: PostgreSQL manual, section 8.7.4; ALTER TABLE, Notes.
"""

from dataclasses import KW_ONLY, dataclass

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Facts
from migrator.kernels import constraints, enums, requirements
from migrator.kernels.rows import updates
from migrator.pattern import Pattern
from migrator.plan import Notice, Probe, State, Steps, expression, render


@dataclass(frozen=True, slots=True)
class RemoveEnumValue(Pattern):
    """
    Take `value` of the enum of `column` of `table` out of use.

    Example:
        change = RemoveEnumValue("orders", "state", "lost", instead="cancelled")

    Args:
        table: the table's name, without its schema.
        column: a column whose type is the enum.
        value: the value, which the new release does not write.
        instead: the value that its rows get; None for NULL.
        name: the check's name; made from the others where it is not given.
        schema: the table's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    table: str
    column: str
    value: str
    _: KW_ONLY
    instead: str | None
    name: str | None = None
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return (
            f'take value "{self.value}" of the enum of column "{self.column}" of table'
            f' "{self.table}" out of use'
        )

    @property
    def admission(self) -> State:
        """From expanded: it reads the value until retire, and does not write it."""
        return State.EXPANDED

    def columns(self) -> frozenset[str]:
        """Return the column."""
        return frozenset({self.column})

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse a value that rows cannot leave."""
        column = enums.require_enum(facts, self.column, self.value, self.instead)
        requirements.require_all_rows_visible(facts)
        requirements.require_plain(facts, column)
        requirements.require_not_key(facts, column)
        constraints.require_free_name(facts, self.check_name)
        if self.instead == self.value:
            raise Refused(
                f"{self.title}: its rows would keep it.",
                next="give another value as `instead`.",
            )
        if self.instead is None:
            for table in (facts.table, *facts.table.partitions):
                if table.require(self.column).not_null:
                    raise Refused(
                        f'Column "{self.column}" of table {table.name} is NOT NULL.',
                        next="give the value that the rows get as `instead`.",
                    )
        notices = [
            Notice(
                text=f'Until retire the old release may write "{self.value}": the new'
                " one reads it, and does not write it. Which rows held it is not known"
                " afterwards."
            ),
            Notice(
                text="PostgreSQL drops no value of an enum: it stays in the type, where"
                " the check keeps it out of this column alone."
            ),
            *requirements.partition_notices(facts),
            *requirements.backfill_notices(facts, self.column),
        ]
        notices += [
            Notice(
                text=f'Unique index "{index.name}" may refuse a moved row, which cuts'
                " retire off.",
                needs_assurance=True,
            )
            for table in facts.table.leaves
            for index in table.indexes
            if index.unique and self.column in index.columns
        ]
        return self.assure(tuple(notices))

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return the trial that no default gives the value."""
        tables = (facts.table, *facts.table.partitions)
        return tuple(
            Probe(
                statements=(),
                question=render(
                    sql.SQL("SELECT {}::text IS DISTINCT FROM {}").format(
                        expression(default), sql.Literal(self.value)
                    )
                ),
                otherwise=f"{self.title}: it is the column's default, which the check"
                " would refuse.",
                next="give the column another default first (SetDefault).",
            )
            for default in {table.require(self.column).default for table in tables}
            if default is not None
        )

    def expand(self, facts: Facts) -> Steps:
        """Return nothing: the old release may write the value."""
        return ()

    def retire(self, facts: Facts) -> Steps:
        """
        Return the move of the rows, the check, and its proof.

        Raises:
            Refused: another constraint got its name since.
        """
        constraints.require_none_since(facts, self.check_name)
        column = sql.Identifier(self.column)
        instead = sql.SQL("NULL") if self.instead is None else sql.Literal(self.instead)
        held = sql.SQL("{} OPERATOR(pg_catalog.=) {}").format(
            column, sql.Literal(self.value)
        )
        kept_out = sql.SQL("({} OPERATOR(pg_catalog.<>) {})").format(
            column, sql.Literal(self.value)
        )
        return (
            # First: a row that holds it could not be updated under the check.
            *updates(
                facts,
                "move_rows",
                {self.column: instead},
                held,
                no_reverse="which rows held the value is not known afterwards",
            ),
            constraints.add_check(facts.table.name, self.check_name, kept_out),
            constraints.validate(facts.table.name, self.check_name),
        )

    def rebuild(self, facts: Facts) -> Steps:
        """Return the drop of the check."""
        return (constraints.drop_check(facts.table.name, self.check_name),)

    @property
    def check_name(self) -> str:
        """The check's name."""
        made = names.fitted(f"{self.table}_{self.column}_not_{self.value}", "")
        return self.name or made
