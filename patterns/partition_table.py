"""Turn a table into a partitioned one.

phase     statement                               lock on the table
expand    CREATE TABLE … PARTITION BY, triggers   SHARE ROW EXCLUSIVE, no scan
backfill  INSERT … SELECT … FOR KEY SHARE         ROW SHARE, per chunk
verify    both tables compared                    ACCESS SHARE
retire    names exchanged, triggers swapped       ACCESS EXCLUSIVE, no scan
          foreign keys of others made anew        the same on their tables, no scan
          CREATE OR REPLACE VIEW, those over it   the same, each view before it
          VALIDATE CONSTRAINT (those)             ROW SHARE, full scan of the others
drop      DROP CONSTRAINT, DROP TABLE (former)    ACCESS EXCLUSIVE, no scan

Rows are copied to a partitioned table, which takes the name of the former one. Each
unique key has to hold the partition key, also the primary key.

Source: PostgreSQL manual, section 5.12 (partitioning), CREATE TABLE.
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass

from psycopg import sql

from migrator import names
from migrator.errors import Misdeclared, Refused
from migrator.facts import Facts
from migrator.kernels import constraints
from migrator.kernels.foreign_key import NOT_VALID_ON_PARTITIONED
from migrator.kernels.mirror_table import (
    Swap,
    accessed,
    former,
    require_swappable,
    shadow_of,
    swap_notices,
)
from migrator.kernels.privileges import nothing_by_default
from migrator.names import TableName
from migrator.pattern import Pattern
from migrator.plan import Notice, Probe, State, Steps, render, type_name

# Identity columns of partitioned tables came with this server.
_IDENTITY = 170000
# Up to here COPY takes no partitioned table's rows.
_COPIED = 190000
_REFERRED = (
    "A partition to whose rows foreign keys refer cannot be dropped, truncated or"
    " detached."
)


@dataclass(frozen=True, slots=True)
class PartitionTable(Pattern):
    """
    Partition `table`; both releases use it under its name throughout.

    Example:
        change = PartitionTable(
            "events",
            "RANGE",
            ["at"],
            {"events_2026": "FROM ('2026-01-01') TO ('2027-01-01')"},
            rest="events_rest",
            key=["id", "at"],
            assured="nothing says ON CONFLICT (id)",
        )

    Args:
        table: the table's name, without its schema.
        by: "RANGE", "LIST" or "HASH".
        on: the columns of the partition key, which are NOT NULL.
        partitions: for each partition its bounds, as CREATE TABLE has them behind
            FOR VALUES; of HASH a list of their names.
        rest: the name of the default partition, but for HASH: without one, rows that
            fit nowhere would be refused.
        key: the columns of the primary key, which has those of the partition key.
        old_key: those that it has now; only a downgrade after the drop needs it.
        schema: the table's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    table: str
    by: str
    on: Sequence[str]
    partitions: Mapping[str, str] | Sequence[str]
    _: KW_ONLY
    rest: str = ""
    key: Sequence[str]
    old_key: Sequence[str] = ()
    schema: str | None = None
    assured: str = ""

    def __post_init__(self) -> None:
        """Take SQL's words in any case."""
        object.__setattr__(self, "by", str(self.by).upper())

    @property
    def title(self) -> str:
        """One line that names the change."""
        return f'partition table "{self.table}"'

    @property
    def admission(self) -> State:
        """From expanded: it sees no difference."""
        return State.EXPANDED

    @property
    def _names(self) -> tuple[str, ...]:
        """The partitions' names."""
        return (*self.partitions, *([self.rest] if self.rest else []))

    def columns(self) -> None:
        """Return None: all of it."""
        return

    def makes(self, table: TableName, tag: str) -> tuple[TableName, ...]:
        """Return the new table before retire, and the former one after."""
        return (shadow_of(table, tag), former(table, tag))

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse a table whose keys could not stay, and rows that would fit nowhere."""
        constraints.require_lists(self.title, {"on": self.on, "key": self.key})
        require_swappable(facts, self.title)
        self._check_partitions(facts)
        self._check_keys(facts)
        self._check_published(facts)
        if facts.server_version < _IDENTITY:
            for c in facts.table.columns:
                if c.identity:
                    raise Refused(
                        f'{self.title}: column "{c.name}" is an identity, which a'
                        " partitioned table has from PostgreSQL 17 on.",
                        next="give it a sequence and a default instead.",
                    )
        return self.assure(
            (
                Notice(
                    text="At retire the partitioned table takes the name. ON CONFLICT"
                    f" has to name ({', '.join(self.key)}) from then on, no foreign key"
                    " refers to less, and nothing holds the former key to be unique.",
                    needs_assurance=True,
                ),
                Notice(
                    text="Until the drop, TRUNCATE, DROP and DETACH of a partition do"
                    " not reach the former table: going back would bring its rows back."
                ),
                *(
                    [Notice(text=_REFERRED)]
                    if any(k.to == facts.table.name for k in facts.table.foreign_keys)
                    else []
                ),
                *self._table_notices(facts),
                *swap_notices(facts, partitions=True),
            )
        )

    def _table_notices(self, facts: Facts) -> list[Notice]:
        """Return what is otherwise with rows that stand in several tables."""
        table, found = facts.table, list[Notice]()
        if facts.server_version < _COPIED:
            found.append(
                Notice(
                    text=f"From retire on COPY {self.table} TO fails, as of every"
                    f" partitioned table: write COPY (SELECT * FROM {self.table}) TO.",
                    needs_assurance=True,
                )
            )
        named = [f'"{t.name}"' for t in table.triggers if t.names_table]
        if named:
            found.append(
                Notice(
                    text="From retire on TG_TABLE_NAME, TG_RELNAME and TG_RELID are the"
                    f" partition's in triggers for rows; {', '.join(named)} reads one.",
                    needs_assurance=True,
                )
            )
        return found

    def _check_partitions(self, facts: Facts) -> None:
        if self.by not in ("RANGE", "LIST", "HASH"):
            raise Misdeclared(
                f"{self.title}: by is {self.by!r}.",
                next='write "RANGE", "LIST" or "HASH".',
            )
        if (self.by == "HASH") == bool(self.rest):
            raise Refused(
                f"{self.title}: rows that fit into no partition would be refused, to"
                " the old release too."
                if self.by != "HASH"
                else f"{self.title}: HASH has no default partition.",
                next='write rest="…", the name of the default partition.'
                if self.by != "HASH"
                else "leave `rest` out.",
            )
        if (self.by == "HASH") == isinstance(self.partitions, Mapping):
            raise Refused(
                f"{self.title}: `partitions` has bounds of HASH, or none of {self.by}.",
                next='write {"name": "FROM (…) TO (…)"}, of HASH ["name", …].',
            )
        for name in self._names:
            names.checked(name, "partition")
            if name in facts.relation_names:
                raise Refused(
                    f'Schema "{facts.table.name.schema}" has a relation "{name}"'
                    " already.",
                    next="choose another name for the partition.",
                )

    def _check_keys(self, facts: Facts) -> None:
        table, on = facts.table, set(self.on)
        for column in (*self.on, *self.key):
            if not table.require(column).not_null:
                raise Refused(
                    f'{self.title}: column "{column}" takes NULL.',
                    next="make it NOT NULL by a change of its own first.",
                )
        if not on <= set(self.key):
            raise Refused(
                f"{self.title}: the key ({', '.join(self.key)}) has not all columns of"
                f" the partition key ({', '.join(self.on)}).",
                next="add them to `key`.",
            )
        unique = [i for i in table.indexes if i.unique and not i.primary]
        for index in unique:
            if not on <= {k.name for k in index.keys}:
                raise Refused(
                    f'{self.title}: unique index "{index.name}" has not all columns of'
                    " the partition key; across partitions nothing can hold to it.",
                    next="drop it, or make it again with them, by a change of its own.",
                )
        early = facts.server_version < NOT_VALID_ON_PARTITIONED
        kept = [{*self.key}, *({k.name for k in i.keys} for i in unique if i.plain)]
        for key in table.foreign_keys:
            if key.to != table.name:
                continue
            if key.table == table.name and early:
                raise Refused(
                    f'{self.title}: foreign key "{key.name}" refers to the table'
                    " itself. PostgreSQL adds one to a partitioned table without a scan"
                    " under a strong lock from 18 on.",
                    next=f'drop it first: DropConstraint("{self.table}",'
                    f' "{key.name}").',
                )
            if {*key.to_columns} not in kept:
                listed = ", ".join(key.to_columns)
                raise Refused(
                    f'{self.title}: foreign key "{key.name}" of table {key.table}'
                    f" refers to ({listed}), which nothing holds to be unique across"
                    f" partitions; ({', '.join(self.key)}) is.",
                    next=f"make ({', '.join(self.key)}) unique by AddUnique, give"
                    f" {key.table} the columns that it lacks and AddForeignKey to them,"
                    " then drop this one by DropConstraint; or drop it and do without.",
                )
        for c in table.constraints:
            if c.kind == "x":
                raise Refused(
                    f'{self.title}: exclusion constraint "{c.name}" cannot go over:'
                    " nothing holds rows of several partitions apart.",
                    next="drop it with plain SQL first.",
                )
            if c.kind == "c" and c.definition.endswith(" NO INHERIT"):
                raise Refused(
                    f'{self.title}: constraint "{c.name}" is NO INHERIT, and would hold'
                    " for no partition: a partitioned table has none such.",
                    next="drop it, and make it again without that, first.",
                )
            if c.kind == "p" and c.deferrable:
                raise Refused(
                    f'{self.title}: primary key "{c.name}" is deferrable; the new one,'
                    " by which a row is found, cannot be.",
                    next="make it NOT DEFERRABLE by a change of its own first.",
                )
            if c.kind == "p" and c.dependents and not set(self.key) <= {*c.columns}:
                raise Refused(
                    f"{self.title}: {'; '.join(c.dependents)} groups by the primary key"
                    f' "{c.name}", which will have further columns.',
                    next="name the other columns in its GROUP BY first.",
                )

    def _check_published(self, facts: Facts) -> None:
        table = facts.table
        for one in table.published:
            if not one.via_root:
                raise Refused(
                    f'{self.title}: publication "{one.name}" has it, and publishes rows'
                    " of a partitioned table under the names of its partitions, which"
                    " no subscriber has.",
                    next=f'ALTER PUBLICATION "{one.name}" SET'
                    " (publish_via_partition_root = true) first, where it has no"
                    " partitioned table yet; else put the table into a publication of"
                    " its own.",
                )
            lacking = [c for c in self.key if one.columns and c not in one.columns]
            if lacking and one.changes:
                raise Refused(
                    f'{self.title}: publication "{one.name}" has not the column'
                    f' "{lacking[0]}", which the replica identity of each partition'
                    " has: the server would refuse every UPDATE and DELETE.",
                    next="add it to the publication's columns first, and to the table"
                    " of each subscriber before.",
                )
        if table.published and table.replica_identity == "INDEX":
            raise Refused(
                f"{self.title}: publications have it, and its replica identity is an"
                " index. Partitions do not have it from the partitioned table.",
                next=f"ALTER TABLE {table.name} REPLICA IDENTITY DEFAULT, or FULL, by a"
                " change of its own first.",
            )

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return the trial of the partitions, and of rows in them."""
        trial = TableName("pg_temp", "migrator_trial")
        create = sql.SQL("CREATE TEMP TABLE migrator_trial (LIKE {}) {}").format(
            facts.table.name.identifier, type_name(f"PARTITION BY {self._by()}")
        )
        return (
            Probe(
                statements=(
                    render(create),
                    *(render(p) for p in self._partitions(trial, "migrator_trial_")),
                    render(
                        sql.SQL(
                            "INSERT INTO migrator_trial SELECT * FROM {} LIMIT 100"
                        ).format(facts.table.name.identifier)
                    ),
                ),
                question="SELECT true",
                otherwise="",
                failed=f"{self.title}: the server refuses a partition",
                next="correct `by`, `on` and the bounds.",
            ),
        )

    def expand(self, facts: Facts) -> Steps:
        """Return the partitioned table, with its dual write."""
        return self._swap(facts).expand()

    def backfill(self, facts: Facts) -> Steps:
        """Return the copy of the rows."""
        return self._swap(facts).backfill()

    def verify(self, facts: Facts) -> Steps:
        """Return the comparison of both tables."""
        return self._swap(facts).verify()

    def retire(self, facts: Facts) -> Steps:
        """Return the exchange of both tables."""
        return self._swap(facts).retire()

    def drop(self, facts: Facts) -> Steps:
        """Return the drop of the former table."""
        return self._swap(facts).drop()

    def rebuild(self, facts: Facts) -> Steps:
        """Return the way back to one table."""
        if not self.old_key:
            raise Refused(
                f"{self.title}: the former primary key is not known.",
                next='write old_key=["column"] into the pattern.',
            )
        return self._swap(facts).rebuild(self.old_key)

    def _by(self) -> str:
        columns = sql.SQL(", ").join(map(sql.Identifier, self.on))
        return f"{self.by} ({columns.as_string(None)})"

    def _partitions(
        self, parent: TableName, prefix: str = "", method: str = ""
    ) -> tuple[sql.Composable, ...]:
        count = len(self.partitions)
        bounds = (
            self.partitions
            if isinstance(self.partitions, Mapping)
            else {
                name: f"WITH (MODULUS {count}, REMAINDER {number})"
                for number, name in enumerate(self.partitions)
            }
        )
        found = {name: f"FOR VALUES {text}" for name, text in bounds.items()}
        if self.rest:
            found[self.rest] = "DEFAULT"
        return tuple(
            sql.SQL("CREATE {}TABLE {} PARTITION OF {} {}{}").format(
                sql.SQL("TEMP " if prefix else ""),
                sql.Identifier(f"{prefix}{number}")
                if prefix
                else sql.Identifier(parent.schema, name),
                parent.identifier,
                type_name(text),
                type_name(method),
            )
            for number, (name, text) in enumerate(found.items())
        )

    def _given_on(self, facts: Facts) -> tuple[sql.Composable, ...]:
        """Return what partitions do not have from their parent, but from the table."""
        table = facts.table
        said = [f"OWNER TO {sql.Identifier(table.owner).as_string(None)}"]
        if table.options:
            said.append(f"SET ({', '.join(table.options)})")
        if table.replica_identity in ("FULL", "NOTHING"):
            said.append(f"REPLICA IDENTITY {table.replica_identity}")
        schema = table.name.schema
        return tuple(
            statement
            for name in self._names
            for statement in (
                *nothing_by_default(facts.default_grantees, TableName(schema, name)),
                *(
                    sql.SQL("ALTER TABLE {} {}").format(
                        sql.Identifier(schema, name), type_name(text)
                    )
                    for text in said
                ),
            )
        )

    def _swap(self, facts: Facts) -> Swap:
        return Swap(
            facts=facts,
            key=self.key,
            primary=self.key,
            partition_by=self._by(),
            made=(
                *self._partitions(
                    shadow_of(facts.table.name, facts.tag),
                    method=accessed(facts.table),
                ),
                *self._given_on(facts),
            ),
        )
