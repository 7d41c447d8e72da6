"""Split a column into several while both shapes are in use.

phase     statement                            lock on the table
expand    ADD COLUMN, dual-write trigger       ACCESS EXCLUSIVE, no scan
backfill  UPDATE in chunks                     ROW EXCLUSIVE, per chunk
verify    count of rows out of step            ACCESS SHARE
retire    CREATE INDEX CONCURRENTLY (marks)    SHARE UPDATE EXCLUSIVE
          RENAME COLUMN, trigger swapped       ACCESS EXCLUSIVE, no scan
drop      DROP COLUMN of the retired side      ACCESS EXCLUSIVE, no scan

A split may lose detail each way ("Anna Maria Smith" has two splits): the side
that was written last keeps its own. Going back parks the new columns with it.

Source: PostgreSQL manual, ALTER TABLE, Notes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Column, Facts
from migrator.kernels import direct
from migrator.kernels.mirror_columns import Pair, Side, require_mirrorable
from migrator.kernels.rows import updates
from migrator.pattern import Pattern
from migrator.plan import (
    Notice,
    Probe,
    Step,
    Steps,
    expression,
    render,
    type_name,
)


@dataclass(frozen=True, slots=True)
class SplitColumn(Pattern):
    """
    Split `column` of `table` into the columns `into`.

    Example:
        change = SplitColumn(
            "users",
            "name",
            into={
                "first": ("text", "split_part(name, ' ', 1)"),
                "last": ("text", "substr(name, length(split_part(name, ' ', 1)) + 2)"),
            },
            back="first || ' ' || last",
        )

    Args:
        table: the table's name, without its schema.
        column: the column of the old release.
        into: for each column of the new release its type and the SQL expression
            that makes it, e.g. `{"city": ("text", "split_part(place, ', ', 1)")}`.
        back: the SQL expression that makes `column` from the new ones.
        type: the type of `column`, spelt in full, e.g. `character varying(80)`;
            only a downgrade after the drop needs it.
        schema: the table's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    table: str
    column: str
    into: Mapping[str, Sequence[str]]
    back: str
    _: KW_ONLY
    type: str | None = None
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        parts = ", ".join(f'"{name}"' for name in self.into)
        return f'split column "{self.column}" of table "{self.table}" into {parts}'

    def columns(self) -> frozenset[str]:
        """Return the columns of both sides."""
        return frozenset({self.column, *self.into})

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse what a second shape could not follow."""
        direct.require_table(facts)
        direct.require_all_rows_visible(facts)
        column = facts.table.require(self.column)
        if not self.into:
            raise Refused(
                f"{self.title}: `into` names no column.", next="name at least one."
            )
        for name in self.into:
            names.checked(name, "column")
            direct.require_free_column(facts, name)
        require_mirrorable(facts, column)
        self._require_loose(facts, column)
        notices = [
            Notice(
                text="Prepared SELECT *, INSERT … SELECT * and COPY without a column"
                " list see more columns."
            ),
            Notice(
                text="Until retire a value of the new release that has no counterpart"
                f' in "{self.column}" is refused; afterwards it is stored, and its'
                " row marked."
            ),
            Notice(
                text=f'A value of "{self.column}" for which an expression fails is'
                " stored, and holds the change until it is corrected."
            ),
        ]
        notices += direct.partition_notices(facts)
        notices += direct.backfill_notices(facts, *self.into)
        if column.default is not None:
            notices.append(
                Notice(
                    text=f'Column "{self.column}" has a default: explicit NULLs'
                    " inserted by the new release become that default until retire."
                )
            )
        return self.assure(tuple(notices))

    def _require_loose(self, facts: Facts, column: Column) -> None:
        """Refuse what the retired column could violate, or what says otherwise."""
        where = f'Column "{self.column}" of table {facts.table.name}'
        if column.feeds:
            raise Refused(
                f'{where} is read by generated column "{column.feeds[0]}", which'
                " would go with it.",
                next="drop that column first, and generate it from the new ones"
                " afterwards.",
            )
        strict = (*column.checks, *column.unique_indexes)
        if strict:
            raise Refused(
                f'{where} is under "{strict[0]}", which values made from the new'
                " columns could violate.",
                next="drop it first, and put its like on the new columns afterwards.",
            )
        for part in facts.table.partitions:
            if part.require(self.column).not_null and not column.not_null:
                raise Refused(
                    f"{where} is NOT NULL on partition {part.name} alone, where the"
                    " retired column must be able to hold NULL.",
                    next="make it NOT NULL on the parent, or lift it on the partition.",
                )
        if self.type not in (None, column.type):
            raise Refused(
                f"{where} is of type {column.type}, the change says {self.type}.",
                next=f'write type="{column.type}".',
            )

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return trials of the types, and of both expressions on some rows."""
        trial = sql.Identifier("pg_temp", facts.table.name.name)
        made = sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(name), expression(part[1]))
            for name, part in self.into.items()
        )
        added = sql.SQL(", ").join(
            sql.SQL("ADD COLUMN {} {}").format(sql.Identifier(name), type_name(part[0]))
            for name, part in self.into.items()
        )
        column = sql.Identifier(self.column)
        statements = (
            sql.SQL("CREATE TEMP TABLE {} (LIKE {})").format(
                sql.Identifier(facts.table.name.name), facts.table.name.identifier
            ),
            sql.SQL("INSERT INTO {} SELECT * FROM {} LIMIT 100").format(
                trial, facts.table.name.identifier
            ),
            sql.SQL("ALTER TABLE {} {}").format(trial, added),
        )
        tried = (
            sql.SQL("UPDATE {} SET {}").format(trial, made),
            sql.SQL("UPDATE {} SET {} = {}").format(
                trial, column, expression(self.back)
            ),
            # After retire the old column is not there to be read.
            sql.SQL("ALTER TABLE {} DROP COLUMN {}").format(trial, column),
        )
        return (
            *(direct.bare_type(self.title, part[0]) for part in self.into.values()),
            *direct.takes_null(facts, self.column),
            *direct.reads_no_generated(
                self.title,
                facts,
                self.back,
                *(part[1] for part in self.into.values()),
                trial=tuple(render(s) for s in statements),
            ),
            Probe(
                statements=tuple(render(s) for s in (*statements, *tried)),
                question=render(
                    sql.SQL("SELECT count({}) >= 0 FROM {}").format(
                        expression(self.back), trial
                    )
                ),
                otherwise="",
            ),
        )

    def expand(self, facts: Facts) -> Steps:
        """Return the new columns with the dual write."""
        return (self._pair(facts).expand(facts),)

    def backfill(self, facts: Facts) -> Steps:
        """Return the split of existing rows."""
        return self._pair(facts).backfill(
            facts,
            name="compute_rows",
            no_reverse="the values go with the new side",
        )

    def verify(self, facts: Facts) -> Steps:
        """Return the comparison."""
        return self._pair(facts).verify(facts)

    def retire(self, facts: Facts) -> Steps:
        """Return the exchange of shapes."""
        return self._pair(facts).retire(facts)

    def drop(self, facts: Facts) -> Steps:
        """Return the drop of the retired column."""
        return (self._pair(facts).drop(),)

    def rebuild(self, facts: Facts) -> Steps:
        """Return the old column, made from the new ones; nullable, no indexes."""
        if self.type is None:
            raise Refused(
                f"{self.title}: the type of the dropped column is not known.",
                next="write type=… into the pattern.",
            )
        table = facts.table.name
        column = sql.Identifier(self.column)
        return (
            Step(
                name="add_old_column",
                work=direct.catalogue_step(
                    table,
                    sql.SQL("ALTER TABLE {} ADD COLUMN {} {}").format(
                        table.identifier, column, type_name(self.type)
                    ),
                ),
                no_reverse="upgrade again",
            ),
            *updates(
                facts,
                "compute_rows",
                {self.column: expression(self.back)},
                sql.SQL("true"),
                no_reverse="upgrade again",
            ),
            Step(
                name="drop_new_columns",
                work=direct.catalogue_step(
                    table,
                    *(
                        sql.SQL("ALTER TABLE {} DROP COLUMN {}").format(
                            table.identifier, sql.Identifier(name)
                        )
                        for name in self.into
                    ),
                ),
                no_reverse="upgrade again",
                loses=True,
            ),
        )

    def _pair(self, facts: Facts) -> Pair:
        retired = names.owned("retired", self.column, facts.tag)
        column = (
            facts.table.column(self.column)
            or facts.table.column(retired)
            or Column(name=self.column, type=self.type or "text")
        )
        # Until they exist, images are compared, which is right for every type.
        made = {
            name: facts.table.column(name)
            or Column(name=name, type=part[0], image_equal=False)
            for name, part in self.into.items()
        }
        return Pair(
            table=facts.table.name,
            tag=facts.tag,
            path=facts.path,
            old=(
                Side(
                    name=self.column,
                    retired=retired,
                    type=column.type,
                    value=self.back,
                    collation=column.collation,
                    image_equal=column.image_equal,
                    not_null=column.not_null,
                ),
            ),
            new=tuple(
                Side(
                    name=name,
                    retired=names.owned("parked", name, facts.tag),
                    type=self.into[name][0],
                    value=self.into[name][1],
                    image_equal=column.image_equal,
                )
                for name, column in made.items()
            ),
        )
