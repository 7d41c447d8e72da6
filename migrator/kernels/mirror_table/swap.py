"""A table that another one takes the place of, under the same name.

The other one is made empty, filled and kept in step while it is out of sight; at retire
they exchange names in one transaction of the catalogue, and the mirror runs from the
new table to the former one, so that going back loses nothing. What hangs on the table
goes over: defaults, sequences, constraints, indexes, triggers, foreign keys in both
directions, comments, storage, extended statistics, policies, grants and owner. Views
over it, and its place in publications, are bound to the table that has the name.

Until the drop foreign keys of other tables refer to both: the former one, which is in
step, holds them to what it always did while the new one's is proved.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import LiteralString

from psycopg import sql

from migrator import names
from migrator.facts import ForeignKey, Trigger
from migrator.kernels import direct, foreign_key, indexes
from migrator.kernels.chunking import unique_index
from migrator.kernels.column_definition import granted as column_granted
from migrator.kernels.mirror_table.bound import MADE_AGAIN, rebound, spelt
from migrator.kernels.mirror_table.columns import KeyColumn, Value
from migrator.kernels.mirror_table.facade import granted
from migrator.kernels.mirror_table.shadow import Shadow
from migrator.kernels.mirror_table.successor import Successor
from migrator.names import TableName
from migrator.plan import (
    Lock,
    Step,
    Steps,
    Transaction,
    type_name,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap(Successor):
    """A table and its successor, in each phase."""

    # -- mirrors ---------------------------------------------------------

    def _shadow(
        self,
        target: TableName,
        key: Sequence[str],
        found_by: Sequence[str] = (),
    ) -> Shadow:
        table, source = self.old, self.name
        return Shadow(
            source=source,
            target=target,
            tag=self.facts.tag,
            key={c: KeyColumn.of(table.require(c)) for c in key},
            values={
                c.name: Value(
                    expression=sql.Identifier(source.name, c.name), type=c.type
                )
                for c in table.columns
                if c.name not in key and not c.generated
            },
            found_by={c: table.require(c).equal for c in found_by},
            overriding=any(c.identity for c in table.columns),
            path=self.facts.path,
            owner=table.owner if self.facts.superuser else None,
        )

    def shadow(self) -> Shadow:
        """Return the mirror of the table in its successor."""
        return self._shadow(self.shadow_name, self.key)

    def back(self) -> Shadow:
        """Return the mirror of the successor in the former table."""
        index = unique_index(self.facts.of(self.old))
        key = [k.name for k in index.keys] if index else []
        return self._shadow(self.former_name, key, found_by=self.key)

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
        return (
            Step(
                name="create_shadow",
                work=direct.catalogue_step(
                    self.name,
                    sql.SQL("SET LOCAL search_path = {}").format(
                        direct.pinned_path(self.facts.path, self.name.schema)
                    ),
                    *self.create(),
                    *shadow.on(),
                    lock=Lock.SHARE_ROW_EXCLUSIVE,
                    also=also,
                ),
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
            *(
                step
                for number, c in enumerate(self.foreign_keys(), 1)
                for step in foreign_key.steps(
                    f"_{number}",
                    self.shadow_name,
                    c.name,
                    type_name(c.definition),
                    c.references or self.name,
                )
            ),
        )

    def verify(self) -> Steps:
        """Return the comparison of both tables."""
        shadow = self.shadow()
        target = self.facts.made.get(self.shadow_name, shadow.bare())
        return shadow.verify(self.facts, target)

    def retire(self) -> Steps:
        """Return the exchange of names, and foreign keys to the new table."""
        own = (c for c in self.old.constraints if self.refers_to_itself(c))
        others = (k for k in self.old.foreign_keys if k.table != self.name)
        steps = [
            *(
                step
                for number, c in enumerate(own, 1)
                for step in foreign_key.steps(
                    f"_own_{number}",
                    self.name,
                    c.name,
                    type_name(c.definition),
                    self.name,
                )
            ),
            *(
                step
                for number, k in enumerate(others, 1)
                for step in foreign_key.steps(
                    f"_to_{number}",
                    k.table,
                    self._second(k),
                    type_name(k.definition),
                    self.name,
                )
            ),
        ]
        return (
            Step(
                name="exchange_tables",
                work=self.shadow().needs_on(self._exchange()),
                reverse=(self.back().needs_on(self._exchange_back()),),
            ),
            *steps,
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
        shadow = self._shadow(self.shadow_name, primary)
        bare = shadow.bare()
        move = direct.catalogue_step(
            self.name,
            *spelt(self.name, self.former_name),
            *self._renames(self.former_name, self.shadow_name),
            MADE_AGAIN,
            sql.SQL("DROP TABLE {}").format(self.former_name.identifier),
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
            *self._made_alike(),
            also=(self.shadow_name,),
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
                    indexes.build_as(f"build_index_{n}", bare, self.copy_of(i), i)
                    for n, i in enumerate(self.later(), 1)
                )
            ),
            Step(name="drop_partitions", work=move, no_reverse="upgrade again"),
        )

    def drop(self) -> Steps:
        """Return the drop of the former table, its foreign keys one by one before."""
        old = self.former_name
        keys = self.facts.made[old].foreign_keys if old in self.facts.made else ()
        steps: list[Step] = []
        for number, key in enumerate(keys, 1):
            if key.table == key.to:
                continue
            steps.append(direct.drop_foreign_key(key, f"drop_foreign_key_{number}"))
            if key.table != old:
                steps.append(self._renamed(key, number))
        return (
            *steps,
            Step(
                name="drop_former_table",
                work=direct.catalogue_step(
                    self.name,
                    *self.back().off(),
                    sql.SQL("DROP TABLE {}").format(old.identifier),
                    *(
                        _remark(self.name, c.name, c.comment)
                        for c in self.old.constraints
                        if c.comment is not None and self.refers_to_itself(c)
                    ),
                    also=(old,),
                ),
                no_reverse="the former table is gone",
                loses=True,
            ),
        )

    # -- the exchange ----------------------------------------------------

    def _exchange(self) -> Transaction:
        work = direct.catalogue_step(
            self.name,
            *self.shadow().off(),
            *self.create_statistics(),
            *self._renames(self.former_name, self.shadow_name),
            *self._index_names(forward=True),
            *self._statistics_names(forward=True),
            *self._sequences(self.former_name, self.name),
            *self._identities(forward=True),
            *(
                _trigger(self.former_name, t.name, "DISABLE TRIGGER")
                for t in self._triggers()
            ),
            *self._made_alike(),
            *self._counters(),
            *self.back().on(),
            also=(self.shadow_name,),
        )
        return rebound(work, self.facts.table, self.former_name)

    def _made_alike(self) -> Iterator[sql.Composable]:
        """Yield what the table of the name gets of what hung on the former one."""
        table = self.facts.table
        for t in self._triggers():
            yield type_name(t.definition)
            if t.enabled != "O":
                yield _enabled(self.name, t)
        yield from granted(self.name, table.owner, table.grants)
        for column in table.columns:
            yield from column_granted(self.name, column.name, column)
        for index in self.loose():
            # It may not have been there when the table was made.
            if index.replica_identity:
                yield sql.SQL("ALTER TABLE {} REPLICA IDENTITY USING INDEX {}").format(
                    self.name.identifier, sql.Identifier(index.name)
                )
        yield from self._policies()
        yield from self._remarks()

    def _counters(self) -> Iterator[sql.Composable]:
        """Yield what makes an identity's sequence like the former one."""
        for column in self.facts.table.columns:
            for counter in column.counters:
                if counter.always is None:
                    continue
                # LIKE makes it bigint.
                yield sql.SQL("ALTER SEQUENCE {} AS {}").format(
                    counter.name.identifier, type_name(counter.type)
                )
                for word, role, passed_on in counter.grants:
                    yield sql.SQL("GRANT {} ON SEQUENCE {} TO {}{}").format(
                        type_name(word),
                        counter.name.identifier,
                        type_name(role),
                        sql.SQL(" WITH GRANT OPTION" if passed_on else ""),
                    )

    def _policies(self) -> Iterator[sql.Composable]:
        """Yield the policies, and what puts them in force."""
        table = self.facts.table
        for policy in table.row_policies:
            yield sql.SQL("CREATE POLICY {} ON {}{}").format(
                sql.Identifier(policy.name),
                self.name.identifier,
                type_name(policy.definition),
            )
            if policy.comment is not None:
                yield sql.SQL("COMMENT ON POLICY {} ON {} IS {}").format(
                    sql.Identifier(policy.name),
                    self.name.identifier,
                    sql.Literal(policy.comment),
                )
        if table.policies:
            yield sql.SQL("ALTER TABLE {} ENABLE ROW LEVEL SECURITY").format(
                self.name.identifier
            )
        if table.forces_policies:
            yield sql.SQL("ALTER TABLE {} FORCE ROW LEVEL SECURITY").format(
                self.name.identifier
            )

    def _remarks(self) -> Iterator[sql.Composable]:
        """Yield the comments on what is there at the exchange."""
        table = self.facts.table
        for index in table.indexes:
            if index.comment is not None:
                yield sql.SQL("COMMENT ON INDEX {} IS {}").format(
                    sql.Identifier(self.name.schema, index.name),
                    sql.Literal(index.comment),
                )
        for found in table.constraints:
            if found.comment is not None and not self.refers_to_itself(found):
                yield _remark(self.name, found.name, found.comment)
        for trigger in self._triggers():
            if trigger.comment is not None:
                yield sql.SQL("COMMENT ON TRIGGER {} ON {} IS {}").format(
                    sql.Identifier(trigger.name),
                    self.name.identifier,
                    sql.Literal(trigger.comment),
                )

    def _exchange_back(self) -> Transaction:
        work = direct.catalogue_step(
            self.name,
            *self.back().off(),
            *(
                sql.SQL("DROP TRIGGER {} ON {}").format(
                    sql.Identifier(t.name), self.name.identifier
                )
                for t in self._triggers()
            ),
            *(
                sql.SQL("DROP POLICY {} ON {}").format(
                    sql.Identifier(p.name), self.name.identifier
                )
                for p in self.facts.table.row_policies
            ),
            *self._renames(self.shadow_name, self.former_name),
            *self._index_names(forward=False),
            *self._statistics_names(forward=False),
            *self._sequences(self.shadow_name, self.name),
            *self._identities(forward=False),
            *(_enabled(self.name, t) for t in self._triggers()),
            *self.shadow().on(),
            also=(self.former_name,),
        )
        return rebound(work, self.facts.table, self.shadow_name)

    def _renames(
        self, leaves: TableName, comes: TableName
    ) -> tuple[sql.Composable, ...]:
        rename = sql.SQL("ALTER TABLE {} RENAME TO {}")
        return (
            rename.format(self.name.identifier, sql.Identifier(leaves.name)),
            rename.format(comes.identifier, sql.Identifier(self.name.name)),
        )

    def _index_names(self, *, forward: bool) -> tuple[sql.Composable, ...]:
        """Return the renames of indexes, and with them of the constraints on them."""
        return tuple(
            statement
            for i in self.facts.table.indexes
            for statement in self._names(
                "INDEX", self.name.schema, i.name, self.copy_of(i), forward
            )
        )

    def _statistics_names(self, *, forward: bool) -> tuple[sql.Composable, ...]:
        """Return the renames of extended statistics."""
        return tuple(
            statement
            for one in self.facts.table.statistics
            for statement in self._names(
                "STATISTICS",
                one.name.schema,
                one.name.name,
                self.copy_of_statistics(one).name,
                forward,
            )
        )

    def _identities(self, *, forward: bool) -> tuple[sql.Composable, ...]:
        """Return the renames of the sequences behind identities."""
        new = self.facts.made.get(self.shadow_name)
        if new is None:
            # Not there yet: a plan is read, and their names are the server's choice.
            return ()
        return tuple(
            statement
            for c in self.facts.table.columns
            if c.identity_sequence and (to := new.require(c.name).identity_sequence)
            for statement in self._names(
                "SEQUENCE",
                c.identity_sequence.schema,
                c.identity_sequence.name,
                to.name,
                forward,
            )
        )

    def _names(
        self,
        kind: LiteralString,
        schema: str,
        name: str,
        successor: str,
        forward: bool,
    ) -> tuple[sql.Composable, sql.Composable]:
        """Return the renames that give a name from the one's object to the other's."""
        away = names.owned("former", name, self.facts.tag)
        leaves, comes = (away, successor) if forward else (successor, away)

        def renamed(given: str, wanted: str) -> sql.Composable:
            return sql.SQL("ALTER {} {} RENAME TO {}").format(
                sql.SQL(kind),
                sql.Identifier(schema, given),
                sql.Identifier(wanted),
            )

        return renamed(name, leaves), renamed(comes, name)

    def _sequences(
        self, leaves: TableName, comes: TableName
    ) -> tuple[sql.Composable, ...]:
        """Return the statements after which sequences go on for the other table."""
        found: list[sql.Composable] = []
        for column in self.facts.table.columns:
            ident = sql.Identifier(column.name)
            found += [
                sql.SQL("ALTER SEQUENCE {} OWNED BY {}.{}").format(
                    type_name(sequence), comes.identifier, ident
                )
                for sequence in column.sequences
            ]
            if column.identity:
                found.append(_carried_on(leaves, comes, column.name))
        return tuple(found)

    def _triggers(self) -> tuple[Trigger, ...]:
        """Return the application's triggers."""
        return tuple(
            t
            for t in self.facts.table.triggers
            if not t.name.startswith(names.TRIGGER_PREFIX)
        )

    def _second(self, key: ForeignKey) -> str:
        """Return the name of another table's foreign key to the new table."""
        return names.owned("key", key.name, self.facts.tag)

    def _renamed(self, key: ForeignKey, number: int) -> Step:
        return Step(
            name=f"rename_foreign_key_{number}",
            work=direct.catalogue_step(
                key.table,
                sql.SQL("ALTER TABLE {} RENAME CONSTRAINT {} TO {}").format(
                    key.table.identifier,
                    sql.Identifier(self._second(key)),
                    sql.Identifier(key.name),
                ),
                *(
                    [_remark(key.table, key.name, key.comment)]
                    if key.comment is not None
                    else []
                ),
            ),
            no_reverse="the foreign key that had the name is gone",
            loses=True,
        )


def _remark(table: TableName, constraint: str, comment: str) -> sql.Composable:
    return sql.SQL("COMMENT ON CONSTRAINT {} ON {} IS {}").format(
        sql.Identifier(constraint), table.identifier, sql.Literal(comment)
    )


def _carried_on(leaves: TableName, comes: TableName, column: str) -> sql.Composable:
    """Return the statement after which an identity goes on from the other table's."""

    def sequence(table: TableName) -> sql.Composable:
        return sql.SQL(
            "pg_catalog.pg_get_serial_sequence({}, {})::pg_catalog.regclass"
        ).format(sql.Literal(str(table)), sql.Literal(column))

    return sql.SQL(
        "SELECT pg_catalog.setval({}, last) FROM pg_catalog.pg_sequence_last_value({})"
        " AS last WHERE last IS NOT NULL"
    ).format(sequence(comes), sequence(leaves))


def _trigger(table: TableName, name: str, verb: str) -> sql.Composable:
    return sql.SQL("ALTER TABLE {} {} {}").format(
        table.identifier, type_name(verb), sql.Identifier(name)
    )


# What ALTER TABLE says of a trigger's `tgenabled`.
_ENABLED = {
    "O": "ENABLE TRIGGER",
    "A": "ENABLE ALWAYS TRIGGER",
    "R": "ENABLE REPLICA TRIGGER",
    "D": "DISABLE TRIGGER",
}


def _enabled(table: TableName, trigger: Trigger) -> sql.Composable:
    return _trigger(table, trigger.name, _ENABLED[trigger.enabled])
