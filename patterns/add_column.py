"""Add a column: empty, with a default, computed, counted, or computed when it is read.

phase     statement                                      lock on the table
expand    ADD COLUMN, with what gives new rows a value   ACCESS EXCLUSIVE, no scan
backfill  UPDATE in chunks (1)                           ROW EXCLUSIVE, per chunk
verify    count of rows without a value (1)              ACCESS SHARE
retire    CHECK proved, SET NOT NULL (2)                 SHARE UPDATE EXCLUSIVE, then
          end of what computed, or ADD IDENTITY          ACCESS EXCLUSIVE, no scan

(1) where rows that are there have to be given one each: a default that differs from row
to row, an expression over the row, a sequence. (2) where it was asked for.

Going back parks the column under another name, since the values that the new
release wrote have no counterpart; expanding again brings them back.

Source: PostgreSQL manual, ALTER TABLE, ADD COLUMN (a default that is the same in each
row is stored once, without a rewrite); section 5.4 (generated columns).
"""

import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace

from psycopg import sql

from migrator import names
from migrator.errors import Misdeclared, Refused
from migrator.facts import Facts
from migrator.final import Final
from migrator.kernels import (
    direct,
    reading,
    requirements,
    row_types,
    trials,
    trigger_arguments,
)
from migrator.kernels.new_column import (
    IDENTITY,
    SERIAL,
    Counted,
    Derived,
    Drawn,
    NewColumn,
    Virtual,
)
from migrator.pattern import Pattern
from migrator.plan import (
    Footprint,
    Notice,
    Probe,
    State,
    Step,
    Steps,
)

# From here on a column can be computed when it is read.
VIRTUAL_SINCE = 180000
# Defaults of which no server has to be asked whether they are the same in each row.
_LITERAL = re.compile(r"[+-]?[\d.]+|'[^']*'(::[\w ]+)?|true|false|null|now\(\)", re.I)
# The name of the question whether a default is the same in each row.
CONSTANT = "constant"


@dataclass(frozen=True, slots=True)
class AddColumn(Pattern):
    """
    Add `column` of `type` to `table`.

    Example:
        change = AddColumn("orders", "cents", "bigint", computed="amount * 100")

    Args:
        table: the table's name, without its schema.
        column: the new column.
        type: its type in SQL, e.g. `"numeric(12, 2)"`, or `"bigserial"`.
        default: SQL expression, e.g. `"'new'"` or `"gen_random_uuid()"`.
        computed: SQL expression over the row's other columns, kept up to retire.
        virtual: SQL expression over the row's other columns, for a generated column
            that is computed when it is read (PostgreSQL 18).
        identity: "always" or "by default", for an identity column.
        not_null: whether it ends as NOT NULL; serials and identities do anyhow.
        schema: the table's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    table: str
    column: str
    type: str
    _: KW_ONLY
    default: str | None = None
    computed: str | None = None
    virtual: str | None = None
    identity: str | None = None
    not_null: bool = False
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return f'add column "{self.column}" {self.type} to table "{self.table}"'

    @property
    def admission(self) -> State:
        """From expanded, unless the new release reads values that are to be made."""
        made = self._is_counted or self.computed is not None or self.default is not None
        return State.VERIFIED if made else State.EXPANDED

    @property
    def ends_at_expand(self) -> bool:
        """Without a value of each row there is nothing to fill."""
        same = self.default is None or _LITERAL.fullmatch(self.default.strip())
        return same is not None and self.computed is None and not self._is_counted

    def columns(self) -> frozenset[str]:
        """Return the new column."""
        return frozenset({self.column})

    def expressions(self) -> tuple[str, ...]:
        """Return what it is computed by."""
        return tuple(e for e in (self.computed, self.virtual) if e is not None)

    def readings(self, facts: Facts) -> Mapping[str, Probe]:
        """Return the question what the expression reads."""
        if facts.table.column(self.column) is not None:
            return {}
        return reading.asked(facts, *self.expressions())

    def footprints(self, facts: Facts) -> tuple[Footprint, ...]:
        """Return the column, and what the expression reads besides."""
        own = Pattern.footprints(self, facts)
        return (*own, *reading.footprints(facts, self))

    @property
    def _is_counted(self) -> bool:
        return self.identity is not None or self.type.lower() in SERIAL

    def final(self) -> Final:
        """Return the column."""
        return Final(columns=(self.column,), untold="its type and its default")

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse a name that is taken, and values from more than one place."""
        requirements.require_table(facts)
        names.checked(self.column, "column")
        requirements.require_free_column(facts, self.column)
        self._require_one_source()
        self._require_server(facts)
        notices = [
            *requirements.partition_notices(facts),
            *requirements.publication_notices(facts),
            *row_types.comes(facts),
        ]
        if all(requirements.COLUMN_GRANTS in c.dependents for c in facts.table.columns):
            text = (
                f"Each column of table {facts.table.name} is granted by itself: a role"
                " that may read all of them, and not the table, is refused SELECT *"
                f' from expand on, until it is granted SELECT ("{self.column}").'
            )
            notices.append(Notice(text=text, needs_assurance=True))
        if self.virtual is not None:
            text = (
                "Rows are not looked at: where the expression is an error for one of"
                " them, every SELECT that reads its new column is, of the old release"
                " too (SELECT *)."
            )
            return self.assure((Notice(text=text), *notices))
        notices.insert(
            0,
            Notice(text="Rolling back parks the column; it is dropped after the hold."),
        )
        if self._new(facts).repair() is None:
            return self.assure(tuple(notices))
        requirements.require_all_rows_visible(facts)
        notices += requirements.backfill_notices(facts, self.column)
        text = (
            f'Until retire a NULL in "{self.column}" means "not made yet" and is'
            " filled, also where the new release wrote it."
        )
        if self.computed is not None:
            text += " From retire on nothing computes it: the new release writes it"
            text += " itself. A row for which the expression fails is stored, and holds"
            text += " the change until it is corrected."
        if self._is_counted:
            text += " Rows that are there are counted in no order of their own."
        return self.assure((*notices, Notice(text=text)))

    def _require_one_source(self) -> None:
        given = {
            "default": self.default is not None,
            "computed": self.computed is not None,
            "virtual": self.virtual is not None,
            "identity": self.identity is not None,
            f"type {self.type}": self.type.lower() in SERIAL,
        }
        sources = [name for name, there in given.items() if there]
        if len(sources) > 1:
            raise Refused(
                f"{self.title}: {' and '.join(sources)} are given; values would come"
                " from more than one place.",
                next="give one of them.",
            )
        if self.identity not in (None, *IDENTITY):
            raise Misdeclared(
                f'{self.title}: identity is "{self.identity}".',
                next=f"give one of {', '.join(IDENTITY)}.",
            )
        if self.not_null and (not sources or self.virtual is not None):
            raise Refused(
                f"{self.title}: nothing keeps rows from being NULL.",
                next="give default=… or computed=…, or leave not_null out.",
            )

    def _require_server(self, facts: Facts) -> None:
        if self.virtual is not None and facts.server_version < VIRTUAL_SINCE:
            raise Refused(
                f"{self.title}: the server is older than PostgreSQL"
                f" {VIRTUAL_SINCE // 10000}, and has no virtual columns.",
                next="use computed=… for a column of its own, or a view.",
            )
        if self.identity is not None and facts.table.kind == "p":
            raise Refused(
                f"{self.title}: table {facts.table.name} is partitioned; an identity"
                " does not reach partitions on every server.",
                next='give the type "bigserial".',
            )

    def questions(self, facts: Facts) -> Mapping[str, Probe]:
        """Return whether the default is the same in each row."""
        if self.default is None:
            return {}
        asked = trials.bare_type(self.title, self.type, self.default)
        # Beside stored rows of the table it is filled as any other default.
        stored = f"{asked.question} AND {row_types.not_stored(facts)}"
        return {CONSTANT: replace(asked, question=stored)}

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return trials of the type, and of what the values are made by."""
        return tuple(self._new(facts).probes(self.title))

    def expand(self, facts: Facts) -> Steps:
        """Return the column, or its return from where a rollback parked it."""
        first, *others = self._new(facts).expand()
        table = facts.table.name
        first = trigger_arguments.held_back(first, table, self.column)
        return (first, *others)

    def backfill(self, facts: Facts) -> Steps:
        """Return the fill of existing rows, where each has to be given a value."""
        return self._new(facts).backfill()

    def verify(self, facts: Facts) -> Steps:
        """Return the count of rows that are not filled."""
        return self._new(facts).verify()

    def retire(self, facts: Facts) -> Steps:
        """Return the end of the fill, and NOT NULL."""
        return self._new(facts).retire()

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

    def _new(self, facts: Facts) -> NewColumn:
        """Return the kind of column that the arguments, and the server, say."""
        if self._is_counted:
            return Counted.of(facts, self.column, self.type, self.identity)
        name, kind, strict = self.column, self.type, self.not_null
        if self.computed is not None:
            return Derived(
                facts=facts,
                column=name,
                type=kind,
                not_null=strict,
                computed=self.computed,
            )
        if self.virtual is not None:
            return Virtual(facts=facts, column=name, type=kind, virtual=self.virtual)
        if self.default is not None and not facts.answers.get(CONSTANT, True):
            return Drawn(
                facts=facts, column=name, type=kind, not_null=strict, each=self.default
            )
        return NewColumn(
            facts=facts, column=name, type=kind, not_null=strict, default=self.default
        )
