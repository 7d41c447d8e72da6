"""Rename a column while both names are in use.

phase     statement                            lock on the table
expand    ADD COLUMN, dual-write trigger       ACCESS EXCLUSIVE, no scan
backfill  UPDATE in chunks                     ROW EXCLUSIVE, per chunk
          CREATE INDEX CONCURRENTLY (copies)   SHARE UPDATE EXCLUSIVE
          ANALYZE (copies by expressions)      SHARE UPDATE EXCLUSIVE, a sample
verify    count of rows out of step            ACCESS SHARE
retire    two RENAME COLUMN, trigger swapped   ACCESS EXCLUSIVE, no scan
drop      DROP COLUMN of the retired copy      ACCESS EXCLUSIVE, no scan

The column that ends up with the new name is the original: indexes, defaults,
constraints, foreign keys from and to it, its identity, views, policies, grants and
comments stay on it and are never made again.

Source: PostgreSQL manual, ALTER TABLE, Notes.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace

from psycopg import sql

from migrator import names
from migrator.errors import NotThere, Refused
from migrator.facts import Facts
from migrator.final import Final
from migrator.kernels import (
    direct,
    index_copies,
    mentions,
    requirements,
    row_types,
    trials,
    trigger_arguments,
)
from migrator.kernels.altered import altered
from migrator.kernels.mirror_columns import Twin, require_mirrorable
from migrator.pattern import Pattern
from migrator.plan import Notice, Probe, Step, Steps, Transaction


@dataclass(frozen=True, slots=True)
class RenameColumn(Pattern):
    """
    Rename `column` of `table` to `to`.

    Example:
        change = RenameColumn("users", "name", "full_name")

    Args:
        table: the table's name, without its schema.
        column: the name in the old release.
        to: the name in the new release.
        indexes: indexes and unique constraints that are renamed at retire, old
            name to new name, e.g. `{"ix_users_name": "ix_users_full_name"}`.
        schema: the table's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    table: str
    column: str
    to: str
    _: KW_ONLY
    indexes: Mapping[str, str] = field(default_factory=dict[str, str])
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return f'rename column "{self.column}" of table "{self.table}" to "{self.to}"'

    def columns(self) -> frozenset[str]:
        """Return both names."""
        return frozenset({self.column, self.to})

    def final(self) -> Final:
        """Return the column under its new name."""
        return Final(columns=(self.to,), gone=(self.column,))

    def renames(self) -> Mapping[str, str]:
        """Return the indexes that are renamed at retire."""
        return self.indexes

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse what a copy beside the original could not follow."""
        requirements.require_table(facts)
        requirements.require_all_rows_visible(facts)
        names.checked(self.to, "column")
        column = facts.table.require(self.column)
        requirements.require_free_column(facts, self.to)
        require_mirrorable(
            facts,
            column,
            is_key=True,
            kept=(*column.by_number, requirements.COLUMN_GRANTS),
        )
        self._check_indexes(facts)
        notices = [
            Notice(text=f'A join with another table\'s "{self.to}" must qualify it.'),
            *requirements.partition_notices(facts),
            *requirements.publication_notices(facts),
            *row_types.comes(facts),
        ]
        notices += requirements.backfill_notices(facts, self.to)
        notices += mentions.trigger_notices(facts, self.column, to=self.to)
        notices += mentions.function_notices(facts, [self.column])
        if column.by_number:
            notices.append(
                Notice(
                    text=f"{'; '.join(column.by_number)}: what reads the column by its"
                    " number goes on reading it. A view goes on showing it under its"
                    " own name for it."
                )
            )
        notices += [
            Notice(
                text=f'Index "{i.name}" is not copied for the window, since the server'
                " does not spell it for another column; it serves the new name from"
                " retire on."
            )
            for i in index_copies.of_column(facts.table, self.column)
            if index_copies.over(facts, i, self._copied) is None
        ]
        if facts.table.kind == "p" and any(
            self.column in i.columns for i in facts.table.indexes
        ):
            notices.append(
                Notice(
                    text="Each partition gets copies of its indexes for the window,"
                    " the parent none: a partition that is made in the window has"
                    " none until retire."
                )
            )
        # ON CONFLICT takes none of these.
        held_later = {i.name for i in facts.table.indexes if not i.arbitrates}
        notices += [
            Notice(text=self._conflict(facts, name), needs_assurance=True)
            for name in column.unique_indexes
            if name not in held_later
        ]
        notices += [
            Notice(
                text=f'Index "{i.name}" keeps its name. Where the model derives names'
                " of indexes from columns, give the new one:"
                f' indexes={{"{i.name}": "…"}}.'
            )
            for i in facts.table.indexes
            if self.column in i.name and i.name not in self.indexes
        ]
        if column.base is not None:
            notices.append(
                Notice(
                    text=f'Column "{self.column}" is of domain {column.type}, and its'
                    f' copy of the type underneath: "{self.to}" changes its type at'
                    " retire, so that a prepared statement of the new release that"
                    " returns it fails in each session until it is prepared anew"
                    ' ("cached plan must not change result type").',
                    needs_assurance=True,
                )
            )
        if column.default is not None:
            notices.append(
                Notice(
                    text=f'Column "{self.column}" has a default: an explicit NULL'
                    " inserted by the new release becomes that default until retire."
                )
            )
        return self.assure(tuple(notices))

    def readings(self, facts: Facts) -> Mapping[str, Probe]:
        """Return the questions which functions read the old name, and of indexes."""
        named = mentions.functions_that_read(
            facts.table.name, [self.column], comes=True
        )
        return {**named, **index_copies.asked(facts, self._copied)}

    @property
    def _copied(self) -> Mapping[str, str]:
        return {self.column: self.to}

    def _conflict(self, facts: Facts, index: str) -> str:
        where = f'Column "{self.column}" is part of unique index "{index}": an'
        if facts.table.kind == "p":
            return (
                f'{where} INSERT … ON CONFLICT that names "{self.to}" is refused by'
                " the server between verified and retire, since only the partitions"
                " have copies of it."
            )
        return (
            f"{where} INSERT … ON CONFLICT on it may meet a violation of the other"
            " copy's index between verified and retire."
        )

    def _check_indexes(self, facts: Facts) -> None:
        for old, new in self.indexes.items():
            names.checked(new, "index")
            if facts.table.index(old) is None:
                known = ", ".join(f'"{i.name}"' for i in facts.table.indexes) or "none"
                raise NotThere(
                    f'Table {facts.table.name} has no index "{old}".',
                    next=f"correct `indexes`; the table has {known}.",
                    name=old,
                    known=(i.name for i in facts.table.indexes),
                )
            if new in facts.relation_names:
                raise Refused(
                    f'The name "{new}" is taken in schema "{facts.table.name.schema}".',
                    next="choose another name for the index.",
                )

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return the trial that a row may come without the old column."""
        return trials.takes_null(facts, self.column)

    def expand(self, facts: Facts) -> Steps:
        """Return the copy with its dual write."""
        step, table = self._twin(facts).expand(), facts.table.name
        assert isinstance(step.work, Transaction)
        refusals = (*step.work.refusals, altered(facts.table, [self.column]))
        step = replace(step, work=replace(step.work, refusals=refusals))
        return (trigger_arguments.held_back(step, table, self.to),)

    def backfill(self, facts: Facts) -> Steps:
        """Return the copy of rows, then of indexes: so that updates stay HOT."""
        rows = self._twin(facts).backfill(
            facts, name="copy_rows", no_reverse="the copied values go with the copy"
        )
        return (*rows, *index_copies.copied(facts, self.column, self.to))

    def verify(self, facts: Facts) -> Steps:
        """Return the comparison."""
        return self._twin(facts).verify(facts)

    def retire(self, facts: Facts) -> Steps:
        """Return the exchange of names."""
        exchange = self._twin(facts).retire(self.indexes)
        return trigger_arguments.held(
            (exchange,), facts.table.name, self.column, assured=self.assured
        )

    def drop(self, facts: Facts) -> Steps:
        """Return the drop of the copy."""
        gone, table = self._twin(facts).drop(), facts.table.name
        return trigger_arguments.held(
            (gone,), table, self.column, late=True, assured=self.assured
        )

    def rebuild(self, facts: Facts) -> Steps:
        """Return the plain rename back."""
        table = facts.table.name
        return (
            Step(
                name="rename_back",
                work=direct.catalogue_step(
                    table,
                    sql.SQL("ALTER TABLE {} RENAME COLUMN {} TO {}").format(
                        table.identifier,
                        sql.Identifier(self.to),
                        sql.Identifier(self.column),
                    ),
                    *(
                        sql.SQL("ALTER INDEX {} RENAME TO {}").format(
                            sql.Identifier(table.schema, new), sql.Identifier(old)
                        )
                        for old, new in self.indexes.items()
                    ),
                ),
                no_reverse="upgrade again",
            ),
        )

    def _twin(self, facts: Facts) -> Twin:
        return Twin.of(facts, self.column, self.to)
