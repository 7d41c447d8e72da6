"""A table that another one takes the place of, under the same name.

The other one is made empty, filled and kept in step while it is out of sight; at retire
they exchange names in one transaction of the catalogue, and the mirror runs from the
new table to the former one, so that going back loses nothing. What hangs on the table
goes over: defaults, sequences, constraints, indexes, triggers, foreign keys in both
directions, comments, storage, grants and owner.

Until the drop foreign keys of other tables refer to both: the former one, which is in
step, holds them to what it always did while the new one's is proved.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import LiteralString

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Constraint, Facts, ForeignKey, Index, Table, Trigger
from migrator.kernels import direct, indexes, requirements
from migrator.kernels.chunking import unique_index
from migrator.kernels.mirror_table.facade import granted
from migrator.kernels.mirror_table.shadow import KeyColumn, Shadow, Value, shadow_of
from migrator.names import TableName
from migrator.plan import (
    Action,
    Autocommit,
    Lock,
    Step,
    Steps,
    TableLock,
    Transaction,
    render,
    type_name,
)

_LIKE = (
    "LIKE {} INCLUDING COMMENTS INCLUDING COMPRESSION INCLUDING CONSTRAINTS INCLUDING"
    " DEFAULTS INCLUDING GENERATED INCLUDING IDENTITY INCLUDING STATISTICS INCLUDING"
    " STORAGE"
)


def former(table: TableName, tag: str) -> TableName:
    """Return the name that a table has once another one took its place."""
    return TableName(table.schema, names.owned("former", table.name, tag))


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """
    A table and its successor.

    Args:
        facts: of the table, or of its successor once it has the name.
        key: columns of a unique key that both have.
        primary: the columns of the successor's primary key; None leaves it as it is.
        partition_by: what `PARTITION BY` says; None for none.
        made: further statements that give the successor its shape, each about the
            table that it is given the name of.
        values: SQL expressions over the row for columns that are not taken over as they
            are, and their types.
    """

    facts: Facts
    key: Sequence[str]
    primary: Sequence[str] | None = None
    partition_by: str | None = None
    made: tuple[sql.Composable, ...] = ()
    values: Mapping[str, Value]

    @property
    def name(self) -> TableName:
        """The name that both have, one after the other."""
        return self.facts.table.name

    @property
    def shadow_name(self) -> TableName:
        """The successor's name before."""
        return shadow_of(self.name, self.facts.tag)

    @property
    def former_name(self) -> TableName:
        """The former table's name afterwards."""
        return former(self.name, self.facts.tag)

    @property
    def _old(self) -> Table:
        """The former table, whichever name it has."""
        return self.facts.made.get(self.former_name, self.facts.table)

    # -- mirrors ---------------------------------------------------------

    def _shadow(
        self,
        target: TableName,
        key: Sequence[str],
        values: Mapping[str, Value],
        found_by: Sequence[str] = (),
    ) -> Shadow:
        table, source = self._old, self.name
        keys = (table.require(c) for c in key)
        return Shadow(
            source=source,
            target=target,
            tag=self.facts.tag,
            key={
                c.name: KeyColumn(
                    column=c.name,
                    type=values[c.name].type if c.name in values else c.type,
                    equal=c.equal,
                    image_equal=c.image_equal,
                )
                for c in keys
            },
            values={
                c.name: values.get(
                    c.name,
                    Value(expression=sql.Identifier(source.name, c.name), type=c.type),
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
        return self._shadow(self.shadow_name, self.key, self.values)

    def back(self) -> Shadow:
        """Return the mirror of the successor in the former table."""
        index = unique_index(self.facts.of(self._old))
        key = [k.name for k in index.keys] if index else []
        return self._shadow(self.former_name, key, {}, found_by=self.key)

    # -- phases ----------------------------------------------------------

    def expand(self) -> Steps:
        """Return the successor, empty, with its dual write."""
        drop = sql.SQL("DROP TABLE IF EXISTS {}").format(self.shadow_name.identifier)
        shadow = self.shadow()
        also = tuple(
            c.references
            for c in self._foreign_keys()
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
                    *self._create(),
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
                indexes.build_as(f"build_index_{number}", target, self._copy(i), i)
                for number, i in enumerate(self._later(), 1)
            ),
            *(
                step
                for number, c in enumerate(self._foreign_keys(), 1)
                for step in _foreign_key(
                    f"{number}", self.shadow_name, c.name, c.definition, c.references
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
        own = (c for c in self._old.constraints if self._refers_to_itself(c))
        others = (k for k in self._old.foreign_keys if k.table != self.name)
        steps = [
            *(
                step
                for number, c in enumerate(own, 1)
                for step in _foreign_key(
                    f"own_{number}", self.name, c.name, c.definition, None
                )
            ),
            *(
                step
                for number, k in enumerate(others, 1)
                for step in _foreign_key(
                    f"to_{number}",
                    k.table,
                    self._second(k),
                    k.definition,
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
        shadow = self._shadow(self.shadow_name, primary, {})
        bare = shadow.bare()
        move = direct.catalogue_step(
            self.name,
            sql.SQL("DROP TABLE {}").format(self.name.identifier),
            sql.SQL("ALTER TABLE {} RENAME TO {}").format(
                self.shadow_name.identifier, sql.Identifier(self.name.name)
            ),
            *(
                sql.SQL("ALTER INDEX {} RENAME TO {}").format(
                    sql.Identifier(self.name.schema, self._copy(i)),
                    sql.Identifier(i.name),
                )
                for i in self.facts.table.indexes
            ),
            *granted(self.name, self._old.owner, self._old.grants),
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
                    self.name, *plain._create(), *sequences, lock=Lock.ACCESS_EXCLUSIVE
                ),
                no_reverse="upgrade again",
            ),
            *shadow.copy(self.facts, name="copy_rows", guarded=False),
            *(
                replace(step, reverse=(), no_reverse="upgrade again")
                for step in (
                    indexes.build_as(f"build_index_{n}", bare, self._copy(i), i)
                    for n, i in enumerate(self._later(), 1)
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
                    also=(old,),
                ),
                no_reverse="the former table is gone",
                loses=True,
            ),
        )

    # -- the exchange ----------------------------------------------------

    def _exchange(self) -> Transaction:
        table = self.facts.table
        return direct.catalogue_step(
            self.name,
            *self.shadow().off(),
            *self._renames(self.former_name, self.shadow_name),
            *self._index_names(forward=True),
            *self._sequences(self.former_name, self.name),
            *self._identities(forward=True),
            *(
                _trigger(self.former_name, t.name, "DISABLE TRIGGER")
                for t in self._triggers()
            ),
            *(
                statement
                for t in self._triggers()
                for statement in (
                    type_name(t.definition),
                    *([] if t.enabled == "O" else [_enabled(self.name, t)]),
                )
            ),
            *granted(self.name, table.owner, table.grants),
            *self.back().on(),
            also=(self.shadow_name,),
        )

    def _exchange_back(self) -> Transaction:
        return direct.catalogue_step(
            self.name,
            *self.back().off(),
            *(
                sql.SQL("DROP TRIGGER {} ON {}").format(
                    sql.Identifier(t.name), self.name.identifier
                )
                for t in self._triggers()
            ),
            *self._renames(self.shadow_name, self.former_name),
            *self._index_names(forward=False),
            *self._sequences(self.shadow_name, self.name),
            *self._identities(forward=False),
            *(_enabled(self.name, t) for t in self._triggers()),
            *self.shadow().on(),
            also=(self.former_name,),
        )

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
            for statement in self._names("INDEX", i.name, self._copy(i), forward)
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
                "SEQUENCE", c.identity_sequence.name, to.name, forward
            )
        )

    def _names(
        self, kind: LiteralString, name: str, successor: str, forward: bool
    ) -> tuple[sql.Composable, sql.Composable]:
        """Return the renames that give a name from the one's object to the other's."""
        away = names.owned("former", name, self.facts.tag)
        leaves, comes = (away, successor) if forward else (successor, away)

        def renamed(given: str, wanted: str) -> sql.Composable:
            return sql.SQL("ALTER {} {} RENAME TO {}").format(
                sql.SQL(kind),
                sql.Identifier(self.name.schema, given),
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

    # -- parts -----------------------------------------------------------

    def _create(self) -> tuple[sql.Composable, ...]:
        table, old = self.shadow_name.identifier, self.facts.table
        by = f" PARTITION BY {self.partition_by}" if self.partition_by else ""
        space = f" TABLESPACE {old.tablespace}" if old.tablespace else ""
        alter = sql.SQL("ALTER TABLE {} ").format(table)
        found: list[sql.Composable] = [
            sql.SQL("CREATE TABLE {} (").format(table)
            + sql.SQL(_LIKE).format(old.name.identifier)
            + sql.SQL("){}{}").format(type_name(by), type_name(space)),
            alter + sql.SQL("OWNER TO {}").format(sql.Identifier(old.owner)),
        ]
        if old.options and not self.partition_by:
            found.append(
                alter + sql.SQL("SET ({})").format(type_name(", ".join(old.options)))
            )
        if old.comment is not None:
            found.append(
                sql.SQL("COMMENT ON TABLE {} IS {}").format(
                    table, sql.Literal(old.comment)
                )
            )
        found += [
            alter
            + sql.SQL("ALTER COLUMN {} SET STATISTICS {}").format(
                sql.Identifier(c.name), sql.Literal(c.statistics)
            )
            for c in old.columns
            if c.statistics is not None
        ]
        found += self.made
        found += [
            alter
            + sql.SQL("ADD CONSTRAINT {} {}").format(
                sql.Identifier(self._copy(index)), self._constraint(constraint)
            )
            for index, constraint in self._keyed()
        ]
        if self.partition_by:
            found += [
                indexes.created_as(self.shadow_name, self._copy(i), i)
                for i in self._later()
            ]
            found += [
                alter
                + sql.SQL("ADD CONSTRAINT {} {}").format(
                    sql.Identifier(c.name), type_name(c.definition)
                )
                for c in self._foreign_keys()
            ]
        found += self._replica_identity()
        return tuple(found)

    def _replica_identity(self) -> list[sql.Composable]:
        old = self.facts.table
        alter = sql.SQL("ALTER TABLE {} REPLICA IDENTITY ").format(
            self.shadow_name.identifier
        )
        if old.replica_identity in ("FULL", "NOTHING"):
            return [alter + type_name(old.replica_identity)]
        return [
            alter + sql.SQL("USING INDEX {}").format(sql.Identifier(self._copy(i)))
            for i, _ in self._keyed()
            if i.replica_identity
        ]

    def _keyed(self) -> list[tuple[Index, Constraint]]:
        """Return indexes that constraints rest on, with these."""
        table = self.facts.table
        return [
            (index, c)
            for c in table.constraints
            if c.kind in ("p", "u") and (index := table.index(c.index or c.name))
        ]

    def _constraint(self, constraint: Constraint) -> sql.Composable:
        if constraint.kind == "p" and self.primary is not None:
            columns = sql.SQL(", ").join(map(sql.Identifier, self.primary))
            return sql.SQL("PRIMARY KEY ({})").format(columns)
        return type_name(constraint.definition)

    def _later(self) -> list[Index]:
        """Return indexes that no constraint rests on."""
        keyed = {i.name for i, _ in self._keyed()}
        return [i for i in self.facts.table.indexes if i.name not in keyed]

    def _copy(self, index: Index) -> str:
        return names.owned("index", index.name, self.facts.tag)

    def _refers_to_itself(self, constraint: Constraint) -> bool:
        return constraint.kind == "f" and constraint.references in (
            self.name,
            self.former_name,
        )

    def _foreign_keys(self) -> list[Constraint]:
        """Return foreign keys to other tables."""
        return [
            c
            for c in self.facts.table.constraints
            if c.kind == "f" and not self._refers_to_itself(c)
        ]

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
            ),
            no_reverse="the foreign key that had the name is gone",
            loses=True,
        )


def require_swappable(facts: Facts, title: str) -> None:
    """
    Refuse a table that no other one could take the place of.

    Raises:
        Refused: something hangs on it that stays with the former table.
    """
    requirements.require_table(facts)
    requirements.require_mirrored(facts)
    requirements.require_all_rows_visible(facts)
    table = facts.table
    used = [
        *table.dependents,
        *(
            d
            for c in table.columns
            for d in c.dependents
            # Triggers go over.
            if not any(d.startswith(f"trigger {t.name} on ") for t in table.triggers)
        ),
        *(f"publication {p}" for p in table.publications),
    ]
    if used:
        raise Refused(
            f"{title}: table {table.name} is used by {'; '.join(dict.fromkeys(used))},"
            " which would stay with the former table.",
            next="drop what depends on it first, and make it again afterwards.",
        )
    for c in table.constraints:
        if c.kind not in ("p", "u", "f", "c", "n") or not c.validated:
            raise Refused(
                f'{title}: constraint "{c.name}" of table {table.name}'
                + (" cannot go over." if c.validated else " is not valid."),
                next="drop it by a change of its own first."
                if c.validated
                else "validate it first.",
            )
    if unique_index(facts) is None:
        raise Refused(
            f"{title}: table {table.name} has no unique index over NOT NULL columns, by"
            " which a row could be found in the new table.",
            next="give it a primary key first.",
        )


def _foreign_key(
    name: str,
    table: TableName,
    constraint: str,
    definition: str,
    parent: TableName | None,
) -> Steps:
    """Return the steps that add a foreign key and prove it."""
    ident, also = sql.Identifier(constraint), (parent,) if parent else ()
    alter = sql.SQL("ALTER TABLE {} ").format(table.identifier)
    add = alter + sql.SQL("ADD CONSTRAINT {} {} NOT VALID").format(
        ident, type_name(definition)
    )
    drop = alter + sql.SQL("DROP CONSTRAINT IF EXISTS {}").format(ident)
    reverse: tuple[Action, ...] = (direct.catalogue_step(table, drop, also=also),)
    return (
        Step(
            name=f"add_foreign_key_{name}",
            work=direct.catalogue_step(
                table, add, lock=Lock.SHARE_ROW_EXCLUSIVE, also=also
            ),
            reverse=reverse,
        ),
        Step(
            name=f"validate_foreign_key_{name}",
            work=Autocommit(
                statement=render(
                    alter, sql.SQL("VALIDATE CONSTRAINT {}").format(ident)
                ),
                lock=Lock.SHARE_UPDATE_EXCLUSIVE,
                table=table,
                scans=True,
                also=tuple(TableLock(table=t, lock=Lock.ROW_SHARE) for t in also),
            ),
            no_reverse="the proof goes with the foreign key",
        ),
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
