"""What the exchange of a table and its successor says, and what says it back.

What hangs on the table goes over in the transaction that exchanges their names:
sequences, triggers, policies, grants, comments, names of indexes and statistics. Views
over it, and its place in publications, are bound to the table that has the name.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import LiteralString

from psycopg import sql

from migrator import names
from migrator.facts import Sequence as Counter
from migrator.facts import Trigger
from migrator.kernels import direct, indexes, sequences
from migrator.kernels.chunking import unique_index
from migrator.kernels.column_definition import granted as column_granted
from migrator.kernels.mirror_table.alike import came, unlike
from migrator.kernels.mirror_table.bound import rebound
from migrator.kernels.mirror_table.columns import KeyColumn, Value
from migrator.kernels.mirror_table.facade import granted
from migrator.kernels.mirror_table.moved_keys import MovedKeys, remark
from migrator.kernels.mirror_table.shadow import Shadow
from migrator.kernels.privileges import nothing_by_default
from migrator.names import TableName
from migrator.plan import Transaction, render, type_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange(MovedKeys):
    """A table and its successor, and the two transactions in which they exchange."""

    # -- mirrors ---------------------------------------------------------

    def mirror(
        self,
        target: TableName,
        key: Sequence[str],
        found_by: Sequence[str] = (),
    ) -> Shadow:
        """
        Return the mirror of the table that has the name in another one.

        Args:
            target: the other one.
            key: the columns of a unique key of it.
            found_by: columns by which a trigger finds its row; empty for those of
                the key.
        """
        table, source = self.old, self.name

        def named(index: str) -> str:
            if target == self.shadow_name:
                return names.owned("index", index, self.facts.tag)
            return names.owned("former", index, self.facts.tag)

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
            fixed={
                c.name: c.equal
                for c in table.columns
                if c.name not in key and any(s.always for s in c.counters)
            },
            late=tuple(
                sql.Identifier(self.name.schema, named(index.name))
                for index, constraint in self.keyed()
                if constraint.deferrable
            ),
            path=self.facts.path,
            owner=table.owner if self.facts.superuser else None,
        )

    def shadow(self) -> Shadow:
        """Return the mirror of the table in its successor."""
        return self.mirror(self.shadow_name, self.key)

    def back(self) -> Shadow:
        """Return the mirror of the successor in the former table."""
        index = unique_index(self.facts.of(self.old))
        key = [k.name for k in index.keys] if index else []
        return self.mirror(self.former_name, key, found_by=self.key)

    # -- the exchange ----------------------------------------------------

    def exchange(self) -> Transaction:
        """Return the transaction in which the successor takes the name."""
        work = direct.catalogue_step(
            self.name,
            *self.shadow().off(),
            *self.unreferred(),
            *self.stopped(),
            *self.create_statistics(),
            *self.renames(self.former_name, self.shadow_name),
            *self._index_names(forward=True),
            *self._statistics_names(forward=True),
            *self._sequences(self.name),
            *self._identities(forward=True),
            *(
                _trigger(self.former_name, t.name, "DISABLE TRIGGER")
                for t in self._triggers()
            ),
            *self.made_alike(),
            *self.counters(),
            *self.referred(),
            *self.back().on(),
            also=(self.shadow_name, *self.beside()),
        )
        alike = unlike(
            self.name,
            self.shadow_name,
            moved=self.given(),
            altered=bool(self.made) and not self.partition_by,
        )
        refusals = (self.later_keys(), alike)
        work = replace(work, shows_copies=True, refusals=refusals)
        return rebound(work, self.facts.table, self.former_name)

    def made_alike(self) -> Iterator[sql.Composable]:
        """Yield what the table of the name gets of what hung on the former one."""
        table = self.facts.table
        for t in self._triggers():
            yield type_name(t.definition)
            if t.enabled != "O":
                yield _enabled(self.name, t)
        yield from granted(self.name, table.owner, table.grants)
        for column in table.columns:
            yield from column_granted(self.name, column.name, column)
        yield from self._policies()
        yield from self._remarks()

    def counters(self) -> Iterator[sql.Composable]:
        """Yield what makes an identity's sequence like the former one."""
        for counter in self._identity_counters():
            # LIKE makes it bigint.
            yield sql.SQL("ALTER SEQUENCE {} AS {}").format(
                counter.name.identifier, type_name(counter.type)
            )
            yield from nothing_by_default(
                self.facts.default_grantees,
                counter.name,
                owner=self.facts.table.owner,
                sequence=True,
            )
            yield from sequences.looks(counter)

    def _identity_counters(self) -> list[Counter]:
        return [
            counter
            for column in self.facts.table.columns
            for counter in column.counters
            if counter.always is not None
        ]

    def stopped(self) -> Iterator[sql.Composable]:
        """Yield what stops the sequences of identities, and notes where they stand."""
        for counter in self._identity_counters():
            yield from sequences.noted(counter.name, counter.cache)

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
        """Yield the comments on what is there at the exchange, and the like."""
        table = self.facts.table
        for index in table.indexes:
            # CLUSTER takes no index of a partitioned table.
            one = replace(index, clustered=False) if self.partition_by else index
            yield from indexes.index_looks(self.name, index.name, one)
        for found in table.constraints:
            moves = self.refers_to_itself(found) or self.goes_over(found)
            if found.comment is not None and not moves:
                yield remark(self.name, found.name, found.comment)
        for trigger in self._triggers():
            if trigger.comment is not None:
                yield sql.SQL("COMMENT ON TRIGGER {} ON {} IS {}").format(
                    sql.Identifier(trigger.name),
                    self.name.identifier,
                    sql.Literal(trigger.comment),
                )

    def exchange_back(self) -> Transaction:
        """Return the transaction in which the former table takes it again."""
        work = direct.catalogue_step(
            self.name,
            *self.back().off(),
            *self.unreferred_since(),
            *self.stopped(),
            *(
                sql.SQL("DROP TRIGGER IF EXISTS {} ON {}").format(
                    sql.Identifier(t.name), self.name.identifier
                )
                for t in self._triggers()
            ),
            *(
                sql.SQL("DROP POLICY IF EXISTS {} ON {}").format(
                    sql.Identifier(p.name), self.name.identifier
                )
                for p in self.facts.table.row_policies
            ),
            *self.renames(self.shadow_name, self.former_name),
            *self._index_names(forward=False),
            *self._statistics_names(forward=False),
            *self._sequences(self.name),
            *self._identities(forward=False),
            *(_enabled(self.name, t) for t in self._triggers()),
            *self.referred_since(),
            *self.shadow().on(),
            also=(self.former_name, *self.beside()),
        )
        gone = sql.SQL("SELECT pg_catalog.to_regclass({}) IS NULL").format(
            sql.Literal(str(self.former_name))
        )
        refusals = (self.later_keys(), came(self.name, self.former_name))
        back = replace(work, done=render(gone), refusals=refusals)
        return rebound(
            back, self.facts.table, self.shadow_name, may_be_gone=self.beside()
        )

    def renames(
        self, leaves: TableName, comes: TableName
    ) -> tuple[sql.Composable, ...]:
        """
        Return the renames of both tables.

        Args:
            leaves: the name that the one gets that has the name.
            comes: the name of the one that gets it.
        """
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
        return (
            *(
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
            ),
            *(sequences.goes_on(c.name) for c in self._identity_counters()),
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

    def _sequences(self, comes: TableName) -> tuple[sql.Composable, ...]:
        """Return the statements after which sequences go on for the other table."""
        return tuple(
            sql.SQL("ALTER SEQUENCE {} OWNED BY {}.{}").format(
                type_name(sequence), comes.identifier, sql.Identifier(column.name)
            )
            for column in self.facts.table.columns
            for sequence in column.sequences
        )

    def _triggers(self) -> tuple[Trigger, ...]:
        """Return the application's triggers."""
        return tuple(
            t
            for t in self.facts.table.triggers
            if not t.name.startswith(names.TRIGGER_PREFIXES)
        )


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
