"""Make an existing column NOT NULL.

phase     statement                          lock on the table
expand    trigger that fills NULL            SHARE ROW EXCLUSIVE, no scan
backfill  UPDATE in chunks                   ROW EXCLUSIVE, per chunk
verify    count of NULLs                     ACCESS SHARE
retire    ADD CHECK NOT VALID                ACCESS EXCLUSIVE, no scan
          VALIDATE CONSTRAINT                SHARE UPDATE EXCLUSIVE, full scan
          SET NOT NULL, drop check, trigger  ACCESS EXCLUSIVE, no scan (12+)

Source: PostgreSQL manual, ALTER TABLE, Notes.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Facts
from migrator.final import Final
from migrator.kernels import (
    direct,
    not_null,
    reading,
    requirements,
    trials,
    unproved,
)
from migrator.kernels.mirror_columns import Fill
from migrator.kernels.rows import comparisons
from migrator.pattern import Pattern
from migrator.plan import (
    Footprint,
    Notice,
    Probe,
    Step,
    Steps,
    missing,
)

# Rows among which the trial looks for some that are NULL: a few ms.
_LOOKED_AT = 10_000


@dataclass(frozen=True, slots=True)
class SetNotNull(Pattern):
    """
    Make `column` of `table` NOT NULL.

    Example:
        change = SetNotNull("users", "email", fill="'unknown'")

    Args:
        table: the table's name, without its schema.
        column: the column.
        fill: SQL expression over the row, for rows that are NULL; without one,
            NULLs are only counted, and retire is refused while there are any.
        schema: the table's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    table: str
    column: str
    _: KW_ONLY
    fill: str | None = None
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return f'make column "{self.column}" of table "{self.table}" NOT NULL'

    def columns(self) -> frozenset[str]:
        """Return the column."""
        return frozenset({self.column})

    def expressions(self) -> tuple[str, ...]:
        """Return the fill."""
        return (self.fill,) if self.fill is not None else ()

    def readings(self, facts: Facts) -> Mapping[str, Probe]:
        """Return the question what the fill reads."""
        return reading.asked(facts, *self.expressions())

    def footprints(self, facts: Facts) -> tuple[Footprint, ...]:
        """Return the column, and what the fill reads besides."""
        own = Pattern.footprints(self, facts)
        return (*own, *reading.footprints(facts, self))

    def final(self) -> Final:
        """Return the column with its constraint."""
        return Final(not_null=(self.column,))

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse a column that is NOT NULL already or cannot be filled."""
        requirements.require_table(facts)
        requirements.require_all_rows_visible(facts)
        column = facts.table.require(self.column)
        unproved.require_not_null(facts, self.column)
        if column.not_null:
            raise Refused(
                f'Column "{self.column}" of table {facts.table.name} is NOT NULL'
                " already.",
                next="remove the change from the revision.",
            )
        if self.fill is None:
            text = (
                "There is no fill: rows that are NULL hold the change at verify, and"
                " writes of NULL stay possible until retire."
            )
            return self.assure((Notice(text=text), *self._partition_notices(facts)))
        requirements.require_not_key(facts, column)
        if column.generated:
            raise Refused(
                f'Column "{self.column}" of table {facts.table.name} is generated:'
                " it cannot be filled.",
                next="change its expression instead.",
            )
        text = (
            "From expand on, a NULL that the old release writes is stored as the"
            " fill; rows that are filled keep the value after a rollback. A row for"
            " which the fill fails is stored, and holds the change until it is"
            " corrected."
        )
        notes = (
            *self._partition_notices(facts),
            *requirements.backfill_notices(facts, self.column),
        )
        return self.assure((Notice(text=text), *notes))

    def _partition_notices(self, facts: Facts) -> tuple[Notice, ...]:
        """Return notes on partitions, and on those stricter than their parent."""
        stricter = not_null.stricter(facts, self.column)
        return (*requirements.partition_notices(facts), *stricter)

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return a trial of the fill, on rows that are NULL."""
        if self.fill is None:
            return ()
        table, column = facts.table, facts.table.require(self.column)
        rows = sql.SQL("(SELECT * FROM {} LIMIT {}) AS {} WHERE {} LIMIT 100").format(
            table.name.identifier,
            sql.Literal(_LOOKED_AT),
            sql.Identifier(table.name.name),
            missing(sql.Identifier(table.name.name, self.column)),
        )
        return (
            trials.computes(column.type, self.fill, rows),
            *trials.reads_no_generated(self.title, facts, self.fill),
        )

    def expand(self, facts: Facts) -> Steps:
        """Return the trigger that fills NULL."""
        fill = self._fill(facts)
        if fill is None:
            return ()
        return (Step(name="fill_nulls", work=fill.back_on(), reverse=(fill.off(),)),)

    def backfill(self, facts: Facts) -> Steps:
        """Return the fill of existing rows."""
        fill = self._fill(facts)
        why = "which rows were NULL is not recorded; they keep the fill"
        if fill is None:
            return ()
        return fill.backfill(facts, name="fill_rows", no_reverse=why)

    def verify(self, facts: Facts) -> Steps:
        """Return the count of NULLs, which the fill repairs."""
        fill = self._fill(facts)
        return comparisons(
            facts,
            "count_nulls",
            missing(sql.Identifier(self.column)),
            shown=(self.column,),
            repair=fill.repair() if fill else None,
            no_reverse="nothing but NULLs is changed",
            wrong=f'NULL in "{self.column}"',
        )

    def retire(self, facts: Facts) -> Steps:
        """Return the proof by a check, then NOT NULL without a scan."""
        table = facts.table.name
        fill = self._fill(facts)
        add, validate, last = not_null.not_null_by_check(
            table,
            self.column,
            names.owned("check", self.column, facts.tag),
            fill.remove() if fill else (),
        )
        nullable = sql.SQL("ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL").format(
            table.identifier, sql.Identifier(self.column)
        )
        back = (
            fill.back_on(nullable) if fill else direct.catalogue_step(table, nullable)
        )
        return (add, validate, Step(name="set_not_null", work=last, reverse=(back,)))

    def rebuild(self, facts: Facts) -> Steps:
        """Return the plain DROP NOT NULL."""
        table = facts.table.name
        return (
            Step(
                name="drop_not_null",
                work=direct.catalogue_step(
                    table,
                    sql.SQL("ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL").format(
                        table.identifier, sql.Identifier(self.column)
                    ),
                ),
                no_reverse="upgrade again",
            ),
        )

    def _fill(self, facts: Facts) -> Fill | None:
        if self.fill is None:
            return None
        column = facts.table.require(self.column)
        return Fill(
            table=facts.table.name,
            tag=facts.tag,
            column=self.column,
            expression=self.fill,
            image_equal=column.image_equal,
            type=column.type,
            path=facts.path,
        )
