"""Add a column: nullable, with a constant default, or computed from its row.

phase     statement                            lock on the table
expand    ADD COLUMN (+ trigger if computed)   ACCESS EXCLUSIVE, no scan
backfill  UPDATE in chunks (computed)          ROW EXCLUSIVE, per chunk
verify    count of rows to fill (computed)     ACCESS SHARE
retire    DROP TRIGGER (computed)              ACCESS EXCLUSIVE, no scan

Going back parks the column under another name, since the values that the new
release wrote have no counterpart; expanding again brings them back.

Source: PostgreSQL manual, ALTER TABLE, ADD COLUMN (constant defaults are
stored once, without a rewrite).
"""

from dataclasses import KW_ONLY, dataclass

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Facts
from migrator.kernels import direct, requirements, trials
from migrator.kernels.mirror_columns import Fill
from migrator.pattern import Pattern
from migrator.plan import (
    Notice,
    Probe,
    State,
    Step,
    Steps,
    expression,
    render,
    type_name,
)


@dataclass(frozen=True, slots=True)
class AddColumn(Pattern):
    """
    Add `column` of `type` to `table`.

    Example:
        change = AddColumn("orders", "cents", "bigint", computed="amount * 100")

    Args:
        table: the table's name, without its schema.
        column: the new column.
        type: its type in SQL, e.g. `"numeric(12, 2)"`.
        default: constant SQL expression, e.g. `"'new'"`.
        computed: SQL expression over the row's other columns.
        schema: the table's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    table: str
    column: str
    type: str
    _: KW_ONLY
    default: str | None = None
    computed: str | None = None
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return f'add column "{self.column}" {self.type} to table "{self.table}"'

    @property
    def admission(self) -> State:
        """From expanded, unless the new release reads computed values."""
        return State.EXPANDED if self.computed is None else State.VERIFIED

    def columns(self) -> frozenset[str]:
        """Return the new column."""
        return frozenset({self.column})

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse a name that is taken and a default beside an expression."""
        computed = self.computed is not None
        requirements.require_table(facts)
        if computed:
            requirements.require_all_rows_visible(facts)
        names.checked(self.column, "column")
        requirements.require_free_column(facts, self.column)
        if computed and self.default is not None:
            raise Refused(
                f"{self.title}: both a default and an expression are given; the"
                " default would keep rows from being computed.",
                next="give one of them.",
            )
        notices = [
            Notice(text="Rolling back parks the column; it is dropped after the hold."),
            *requirements.partition_notices(facts),
        ]
        if computed:
            notices += requirements.backfill_notices(facts, self.column)
            notices.append(
                Notice(
                    text=f'Until retire a NULL in "{self.column}" means "not computed'
                    ' yet" and is filled, also where the new release wrote it. From'
                    " retire on nothing computes it: the new release writes it itself."
                )
            )
        return self.assure(tuple(notices))

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return trials of the type, the default and the expression."""
        probes = [trials.bare_type(self.title, self.type)]
        if self.default is not None:
            probes.append(
                trials.bare_type(
                    self.title,
                    self.type,
                    self.default,
                    f"{self.title}: the default {self.default} is not constant;"
                    " PostgreSQL would rewrite the table under ACCESS EXCLUSIVE.",
                )
            )
        if self.computed is not None:
            probes.append(
                Probe(
                    statements=(
                        "CREATE TEMP TABLE migrator_trial (first int)",
                        render(
                            sql.SQL(
                                "ALTER TABLE migrator_trial ADD COLUMN trial {}"
                            ).format(type_name(self.type))
                        ),
                        render(
                            sql.SQL(
                                "INSERT INTO migrator_trial (trial)"
                                " SELECT {} FROM {} LIMIT 100"
                            ).format(
                                expression(self.computed), facts.table.name.identifier
                            )
                        ),
                    ),
                    question="SELECT true",
                    otherwise="",
                )
            )
            probes += trials.reads_no_generated(self.title, facts, self.computed)
        return tuple(probes)

    def expand(self, facts: Facts) -> Steps:
        """Return the column, or its return from where a rollback parked it."""
        table = facts.table.name
        parked = names.owned("parked", self.column, facts.tag)
        ident = sql.Identifier(self.column)
        if facts.table.column(parked) is not None:
            make = sql.SQL("ALTER TABLE {} RENAME COLUMN {} TO {}").format(
                table.identifier, sql.Identifier(parked), ident
            )
        else:
            default = sql.SQL(" DEFAULT ") + expression(self.default or "NULL")
            make = sql.SQL("ALTER TABLE {} ADD COLUMN {} {}{}").format(
                table.identifier,
                ident,
                type_name(self.type),
                default if self.default is not None else sql.SQL(""),
            )
        fill = self._fill(facts)
        park = sql.SQL("ALTER TABLE {} RENAME COLUMN {} TO {}").format(
            table.identifier, ident, sql.Identifier(parked)
        )
        return (
            Step(
                name="add_column",
                work=direct.catalogue_step(table, make, *(fill.on() if fill else ())),
                reverse=(
                    direct.catalogue_step(
                        table, *(fill.remove() if fill else ()), park
                    ),
                ),
                parked=direct.catalogue_step(
                    table,
                    sql.SQL("ALTER TABLE {} DROP COLUMN IF EXISTS {}").format(
                        table.identifier, sql.Identifier(parked)
                    ),
                ),
            ),
        )

    def backfill(self, facts: Facts) -> Steps:
        """Return the fill of existing rows, where there is an expression."""
        fill = self._fill(facts)
        if fill is None:
            return ()
        why = "the values are parked with the column"
        return fill.backfill(facts, name="fill_rows", no_reverse=why)

    def verify(self, facts: Facts) -> Steps:
        """Return the count of rows that are not filled."""
        fill = self._fill(facts)
        return fill.verify(facts) if fill else ()

    def retire(self, facts: Facts) -> Steps:
        """Return the end of the fill: the new release writes the column itself."""
        fill = self._fill(facts)
        if fill is None:
            return ()
        return (Step(name="drop_fill", work=fill.off(), reverse=(fill.back_on(),)),)

    def rebuild(self, facts: Facts) -> Steps:
        """Return the plain drop of the column."""
        table = facts.table.name
        return (
            Step(
                name="drop_column",
                work=direct.catalogue_step(
                    table,
                    sql.SQL("ALTER TABLE {} DROP COLUMN {}").format(
                        table.identifier, sql.Identifier(self.column)
                    ),
                ),
                no_reverse="upgrade again",
            ),
        )

    def _fill(self, facts: Facts) -> Fill | None:
        if self.computed is None:
            return None
        column = facts.table.column(self.column)
        return Fill(
            table=facts.table.name,
            tag=facts.tag,
            column=self.column,
            expression=self.computed,
            # Before the column exists its type is not known: images are the
            # comparison that is right for every type.
            image_equal=column.image_equal if column else False,
            type=self.type,
            path=facts.path,
            follow=True,
        )
