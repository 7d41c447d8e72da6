"""A table that another one takes the place of, under the same name.

The other one is made empty, filled and kept in step while it is out of sight; at retire
they exchange names in one transaction of the catalogue, and the mirror runs from the
new table to the former one, so that going back loses nothing. What hangs on the table
goes over: defaults, sequences, constraints, indexes, triggers, foreign keys in both
directions, comments, storage, extended statistics, policies, grants and owner. Views
over it, and its place in publications, are bound to the table that has the name.

Foreign keys to the table go over in the exchange, and back in the one back, so that
each is there once; both tables are in step, and the proof follows behind it:
`Exchange.moved_keys`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from psycopg import sql

from migrator.facts import ForeignKey
from migrator.kernels import constraints, direct, foreign_key, indexes, sequences
from migrator.kernels.altered import altered
from migrator.kernels.mirror_table.bound import MADE_AGAIN, spelt
from migrator.kernels.mirror_table.exchange import Exchange
from migrator.plan import Lock, Step, Steps, render, type_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap(Exchange):
    """A table and its successor, in each phase."""

    # -- phases ----------------------------------------------------------

    def expand(self) -> Steps:
        """Return the successor, empty, with its dual write."""
        drop = sql.SQL("DROP TABLE IF EXISTS {}").format(self.shadow_name.identifier)
        shadow = self.shadow()
        also = tuple(
            c.references
            for c in self.foreign_keys()
            if self.partition_by and c.references
        )
        work = direct.catalogue_step(
            self.name,
            sql.SQL("SET LOCAL search_path = {}").format(
                direct.pinned_path(self.facts.path, self.name.schema)
            ),
            *self.create(),
            *shadow.on(),
            lock=Lock.SHARE_ROW_EXCLUSIVE,
            also=also,
        )
        return (
            Step(
                name="create_shadow",
                work=replace(work, refusals=(altered(self.facts.table),)),
                reverse=(
                    direct.catalogue_step(self.name, *shadow.off(), drop, also=also),
                ),
            ),
        )

    def backfill(self) -> Steps:
        """Return the copy of the rows, then what is cheaper behind them."""
        steps = self.shadow().copy(self.facts, name="copy_rows")
        if self.partition_by:
            return steps
        target = self.shadow().bare()
        return (
            *steps,
            *(
                indexes.build_as(f"build_index_{number}", target, self.copy_of(i), i)
                for number, i in enumerate(self.later(), 1)
            ),
            *indexes.analyzed(
                self.shadow_name,
                [(self.copy_of(i), i) for i in self.later()],
                no_reverse="the new table goes",
            ),
            *self._referring(),
        )

    def _referring(self) -> Steps:
        """Return its foreign keys to other tables, added and proved."""
        return tuple(
            step
            for number, c in enumerate(self.foreign_keys(), 1)
            for step in foreign_key.steps(
                f"_{number}",
                self.shadow_name,
                c.name,
                type_name(c.definition),
                c.references or self.name,
            )
        )

    def verify(self) -> Steps:
        """Return the comparison of both tables."""
        shadow = self.shadow()
        target = self.facts.made.get(self.shadow_name, shadow.bare())
        return shadow.verify(self.facts, target)

    def retire(self) -> Steps:
        """Return the exchange of names, and proofs of foreign keys to the new table."""
        proofs = [
            replace(
                constraints.validated(k.table, k.name, k.to),
                done=_proved_or_gone(k),
            )
            for k in self.moved_keys()
            # One that came since, and has not been proved, stays so.
            if k.validated
        ]
        return (
            Step(
                name="exchange_tables",
                work=self.shadow().needs_on(self.exchange()),
                reverse=(self.back().needs_on(self.exchange_back()), *proofs),
            ),
            *(
                Step(
                    name=f"validate_foreign_key_to_{number}",
                    work=proof,
                    no_reverse="going back proves it against the former table",
                )
                for number, proof in enumerate(proofs, 1)
            ),
        )

    def rebuild(self, primary: Sequence[str]) -> Steps:
        """
        Return the way back to a table that is not partitioned.

        Args:
            primary: the columns of its primary key.
        """
        plain = replace(
            self, partition_by=None, primary=primary, made=(), facts=self.facts
        )
        shadow = self.mirror(self.shadow_name, primary)
        bare = shadow.bare()
        move = direct.catalogue_step(
            self.name,
            *spelt(self.name, self.former_name),
            *self.unreferred(),
            *self.stopped(),
            *self.renames(self.former_name, self.shadow_name),
            MADE_AGAIN,
            sql.SQL("DROP TABLE {}").format(self.former_name.identifier),
            *self._counters_named(),
            *self.counters(),
            *(
                sql.SQL("ALTER INDEX {} RENAME TO {}").format(
                    sql.Identifier(self.name.schema, self.copy_of(i)),
                    sql.Identifier(i.name),
                )
                for i in self.facts.table.indexes
            ),
            *(
                sql.SQL("ALTER STATISTICS {} RENAME TO {}").format(
                    self.copy_of_statistics(one).identifier,
                    sql.Identifier(one.name.name),
                )
                for one in self.facts.table.statistics
            ),
            *self.made_alike(),
            *self.referred(),
            also=(self.shadow_name, *self.beside()),
        )
        table = self.facts.table
        sequences = (
            sql.SQL("ALTER SEQUENCE {} OWNED BY {}.{}").format(
                type_name(s), self.shadow_name.identifier, sql.Identifier(c.name)
            )
            for c in table.columns
            for s in c.sequences
        )
        return (
            Step(
                name="create_table",
                work=direct.catalogue_step(
                    self.name, *plain.create(), *sequences, lock=Lock.ACCESS_EXCLUSIVE
                ),
                no_reverse="upgrade again",
            ),
            *shadow.copy(self.facts, name="copy_rows", guarded=False),
            *(
                replace(step, reverse=(), no_reverse="upgrade again")
                for step in (
                    *(
                        indexes.build_as(f"build_index_{n}", bare, self.copy_of(i), i)
                        for n, i in enumerate(self.later(), 1)
                    ),
                    *self._referring(),
                )
            ),
            Step(name="drop_partitions", work=move, no_reverse="upgrade again"),
            *(
                Step(
                    name=f"validate_foreign_key_to_{number}",
                    work=constraints.validated(key.table, key.name, key.to),
                    no_reverse="upgrade again",
                )
                for number, key in enumerate(self.moved_keys(), 1)
            ),
        )

    def drop(self) -> Steps:
        """Return the drop of the former table, its foreign keys one by one before."""
        old = self.former_name
        keys = self.facts.made[old].foreign_keys if old in self.facts.made else ()
        return (
            *(
                direct.drop_foreign_key(key, f"drop_foreign_key_{number}")
                for number, key in enumerate(keys, 1)
                if key.table != key.to
            ),
            Step(
                name="drop_former_table",
                work=direct.catalogue_step(
                    self.name,
                    *self.back().off(),
                    sql.SQL("DROP TABLE {}").format(old.identifier),
                    also=(old,),
                ),
                no_reverse="the former table is gone",
                loses=True,
            ),
        )

    def _counters_named(self) -> Iterator[sql.Composable]:
        """Yield what gives sequences of identities the names that are free again."""
        for column in self.facts.table.columns:
            if (known := column.identity_sequence) is None:
                continue
            # The server chose its name, after this was rendered.
            body = sql.SQL(
                "BEGIN EXECUTE pg_catalog.format('ALTER SEQUENCE %s RENAME TO %I',"
                " pg_catalog.pg_get_serial_sequence({}, {}), {}); END"
            ).format(*map(sql.Literal, (str(self.name), column.name, known.name)))
            yield sql.SQL("DO {}").format(sql.Literal(render(body)))
            yield sequences.goes_on(known)


def _proved_or_gone(key: ForeignKey) -> str:
    """Return the question whether nothing of a foreign key is to be proved."""
    return render(
        sql.SQL(
            "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_constraint"
            " WHERE conrelid = pg_catalog.to_regclass({}) AND conname = {}"
            " AND contype = 'f' AND NOT convalidated)"
        ).format(sql.Literal(str(key.table)), sql.Literal(key.name))
    )
