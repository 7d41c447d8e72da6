"""One table, and what the catalogue has of it: a class for each kind of object."""

from dataclasses import dataclass

from psycopg.sql import Identifier

from migrator.errors import NotThere
from migrator.names import TableName


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """A sequence that goes with a column: a serial's, or an identity's."""

    name: TableName
    type: str
    start: int
    increment: int
    min: int
    max: int
    cache: int
    cycle: bool
    #: Of an identity: whether it is GENERATED ALWAYS; None for a serial.
    always: bool | None = None
    #: Privileges of others than the owner: the word, the role as SQL, and whether
    #: it may pass them on.
    grants: tuple[tuple[str, str, bool], ...] = ()
    #: What else depends on it: defaults of other columns, functions.
    dependents: tuple[str, ...] = ()
    comment: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column; `type` is spelt with its modifiers, as in DDL, and its schema."""

    name: str
    type: str
    #: The same without a schema that the connection's search path has.
    short_type: str = ""
    #: The same as the catalogue has it: `atttypid` and `atttypmod`.
    type_oid: int = 0
    modifier: int = -1
    not_null: bool = False
    #: Whether its NOT NULL is NOT VALID (18+): rows may hold NULL all the same.
    unproved: bool = False
    #: Each name in it with its schema, as in all that an index is spelt with.
    default: str | None = None
    #: The type under a domain, in the end; None where it is none.
    base: str | None = None
    #: The type of an array's elements, with modifiers; None where it is none.
    element: str | None = None
    collation: str | None = None
    generated: bool = False
    #: Of a generated one: whether it is computed when it is read (18+).
    virtual: bool = False
    identity: bool = False
    #: The `=` by which keys of the type are compared, as SQL.
    equal: str = "OPERATOR(pg_catalog.=)"
    #: Whether `=` of the type means "the same image" (btree `equalimage`).
    image_equal: bool = True
    #: The same of the type of an array's elements.
    element_image_equal: bool = True
    #: Objects that depend on the column and that no kernel carries over.
    dependents: tuple[str, ...] = ()
    #: Those of them that hold it by its number, whatever its name is: views, policies,
    #: extended statistics, functions with a body in SQL's own form.
    by_number: tuple[str, ...] = ()
    #: Privileges on it alone: the word, the role as SQL, and whether it may pass them
    #: on.
    grants: tuple[tuple[str, str, bool], ...] = ()
    #: Generated columns whose expression reads the column.
    feeds: tuple[str, ...] = ()
    #: Names of CHECK and exclusion constraints on the column.
    checks: tuple[str, ...] = ()
    #: Names of unique indexes that hold the column.
    unique_indexes: tuple[str, ...] = ()
    #: Foreign keys, on either end of which the column stands.
    foreign_keys: tuple[str, ...] = ()
    #: Whether it decides on a row's partition, on any level.
    partition_key: bool = False
    comment: str | None = None
    #: Statistics target, None where it is the server's.
    statistics: int | None = None
    #: Storage in the words of DDL, None where it is the type's own.
    storage: str | None = None
    #: Compression of its own, None where it is the server's.
    compression: str | None = None
    #: What the planner is told of it (n_distinct), as DDL spells it.
    options: tuple[str, ...] = ()
    #: Sequences that go with the column, as SQL.
    sequences: tuple[str, ...] = ()
    #: What these are like, and that of an identity.
    counters: tuple[Sequence, ...] = ()
    #: The values of an enum, in their order; of a domain over one, none.
    values: tuple[str, ...] = ()

    @property
    def identity_sequence(self) -> TableName | None:
        """The sequence behind an identity."""
        return next((s.name for s in self.counters if s.always is not None), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexColumn:
    """One key or included column of an index, as DDL spells it."""

    name: str
    #: Collation, operator class and order: what follows the column's name.
    options: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """One index of a table."""

    name: str
    method: str
    keys: tuple[IndexColumn, ...]
    include: tuple[str, ...] = ()
    unique: bool = False
    nulls_not_distinct: bool = False
    valid: bool = True
    #: Whether an expression or a predicate takes part: not copied by kernels.
    plain: bool = True
    #: Which rows it holds, as SQL; None where it holds all of them.
    predicate: str | None = None
    #: Columns whose name is a word of the predicate.
    mentions: tuple[str, ...] = ()
    primary: bool = False
    #: Constraints that rest on it, also foreign keys of other tables.
    constraints: tuple[str, ...] = ()
    replica_identity: bool = False
    #: Whether CLUSTER puts the table's rows in its order.
    clustered: bool = False
    #: Statistics targets of its own, by the number of the column: of expressions.
    targets: tuple[tuple[int, int], ...] = ()
    #: What DDL says behind the table's name, up to the tablespace: `USING …`.
    spelt: str = ""
    #: Storage parameters, each as name=value, and where it is if not by default.
    storage: tuple[str, ...] = ()
    tablespace: str | None = None
    comment: str | None = None
    #: How often it was scanned on this server since statistics were reset.
    scans: int = 0
    #: All columns that it depends on, also in expressions and predicates.
    columns: tuple[str, ...] = ()
    oid: int = 0
    #: Whether an exclusion constraint rests on it, or a key over periods.
    exclusion: bool = False
    #: Whether each row is held to it at once; a deferrable key may wait.
    immediate: bool = True
    #: The partitioned index at the top of which it is a part; None where it is none.
    root: str | None = None
    #: Its order's `>` and `<=`, as SQL; "" where the keys have none in common.
    greater: str = "OPERATOR(pg_catalog.>)"
    not_greater: str = "OPERATOR(pg_catalog.<=)"
    #: Of the first key column with the order of rows, from -1 to 1; None where there
    #: are no statistics.
    correlation: float | None = None

    @property
    def definition(self) -> str:
        """What DDL says behind the table's name."""
        space = ""
        if self.tablespace is not None:
            space = f" TABLESPACE {Identifier(self.tablespace).as_string(None)}"
        rows = f" WHERE {self.predicate}" if self.predicate is not None else ""
        return self.spelt + space + rows

    @property
    def arbitrates(self) -> bool:
        """Whether ON CONFLICT may name its keys: one that no two rows share by `=`."""
        return self.unique and self.immediate and not self.exclusion


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignKey:
    """One foreign key, on either end of which a table stands."""

    name: str
    #: The table that has it, and the one that it refers to.
    table: TableName
    columns: tuple[str, ...]
    to: TableName
    to_columns: tuple[str, ...]
    #: What follows its name in DDL, each name with its schema.
    definition: str = ""
    comment: str | None = None
    validated: bool = True
    #: Whether the table that has it is partitioned.
    partitioned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """One constraint of a table."""

    name: str
    #: `pg_constraint.contype`: p primary key, u unique, f foreign key, c check …
    kind: str
    #: What follows its name in DDL, each name with its schema.
    definition: str = ""
    columns: tuple[str, ...] = ()
    validated: bool = True
    deferrable: bool = False
    deferred: bool = False
    #: The table that a foreign key refers to.
    references: TableName | None = None
    #: Whether that one is partitioned.
    to_partitioned: bool = False
    #: The index behind it; of a foreign key, the referenced table's.
    index: str | None = None
    #: What would go with it: foreign keys to it, views that group by it.
    dependents: tuple[str, ...] = ()
    comment: str | None = None
    #: Of a partition's foreign key, that of the whole table which it is a part of.
    root: str | None = None
    #: Of a check, its condition, each name with its schema.
    condition: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """One trigger that is not internal."""

    name: str
    before_row: bool
    #: Whether an UPDATE of an ordinary session fires it.
    on_update: bool = False
    #: Columns named in `UPDATE OF`.
    update_of: tuple[str, ...] = ()
    #: Columns of the table whose name is a word of the function's text.
    mentions: tuple[str, ...] = ()
    #: Columns of the table whose name is one of its arguments.
    arguments: tuple[str, ...] = ()
    #: Whether it fires for rows, and its function's text asks which table it is on.
    names_table: bool = False
    #: Whether it fires behind a row, before a mirror's does, and may write the table
    #: again: its function's text names it, or runs statements that it makes up.
    early: bool = False
    #: `pg_trigger.tgenabled`: O for ordinary sessions, A always, R replica, D not.
    enabled: str = "O"
    #: The statement that makes it, each name with its schema.
    definition: str = ""
    comment: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of a table, but for that which makes a view."""

    name: str
    #: As the server describes it: `rule noted on table people`.
    described: str
    #: Whether an UPDATE of an ordinary session is rewritten by it.
    on_update: bool = False
    #: Whether its action comes in the place of what was sent.
    instead: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One policy of a table, in force or not."""

    name: str
    #: What follows the table's name in DDL, each name with its schema.
    definition: str
    comment: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DependentView:
    """A view that reads a table, or that has a rule which does."""

    name: TableName
    #: How the server describes the view, or its rules, among the table's dependents.
    described: tuple[str, ...]
    #: Whether this role may make it again in its place.
    owned: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RowUser:
    """A function that may count on how many columns a table has."""

    #: With its arguments' types.
    function: str
    #: The trigger of the table that has it; None where it returns rows.
    trigger: str | None = None
    #: Whether its text has a star, by which rows may be returned as they are.
    whole: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtendedStatistics:
    """One object of CREATE STATISTICS."""

    name: TableName
    #: Its kinds as DDL has them, in brackets; "" where there is one expression alone.
    kinds: str
    #: What it is about: columns and expressions, each name with its schema.
    columns: str
    owner: str
    #: Statistics target, None where it is the server's.
    target: int | None = None
    comment: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A publication that a table is part of."""

    name: str
    #: Whether it has all tables, of the database or of the table's schema.
    whole: bool
    #: How the server describes the table in it, among the table's dependents.
    described: str | None = None
    #: Whether this role may change it.
    owned: bool = True
    #: Whether rows of partitions are published as the partitioned table's.
    via_root: bool = False
    #: Whether it has UPDATE or DELETE.
    changes: bool = True
    #: The columns of the table that it has; empty for all.
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Privileges of a role on a table; None stands for all roles."""

    role: str | None
    privileges: tuple[str, ...]
    #: Those of them that the role may pass on.
    passed_on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """
    One table; `rows` and `size_bytes` are estimates of the statistics.

    Of a partitioned table they are sums over its leaves, and what depends on a
    column depends on it in any partition.
    """

    name: TableName
    oid: int
    columns: tuple[Column, ...]
    indexes: tuple[Index, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    #: `pg_class.relkind`: r table, p partitioned, v view, f foreign …
    kind: str = "r"
    is_child: bool = False
    has_children: bool = False
    is_temporary: bool = False
    #: Whether a crash empties it.
    is_unlogged: bool = False
    row_security: bool = False
    rows: int = 0
    size_bytes: int = 0
    #: Percentage to which inserts fill a page (manual, CREATE TABLE).
    fillfactor: int = 100
    #: Share of the pages' room that live rows take, by the statistics; None where
    #: there are none.
    filled: float | None = None
    #: Storage parameters, as DDL spells them.
    options: tuple[str, ...] = ()
    tablespace: str | None = None
    comment: str | None = None
    #: DEFAULT, NOTHING, FULL or INDEX.
    replica_identity: str = "DEFAULT"
    #: Publications that it is part of, by its name, its schema or as all tables are.
    publications: tuple[str, ...] = ()
    #: The same with what they are like; none of a partition.
    published: tuple[Publication, ...] = ()
    #: Whether a subscription of this database fills it.
    subscribed: bool = False
    rules: tuple[Rule, ...] = ()
    #: The type whose columns it has, as SQL (CREATE TABLE … OF); None for its own.
    of_type: str | None = None
    #: The extension that it belongs to; None for none.
    extension: str | None = None
    #: Table access method; "" where the table holds no rows itself.
    method: str = "heap"
    owned: bool = True
    owner: str = ""
    #: Whether no policy applies to the owner, forced or not.
    owner_bypasses: bool = False
    #: What other roles may do with the whole table.
    grants: tuple[Grant, ...] = ()
    #: What the owner took from itself.
    owner_lacks: tuple[str, ...] = ()
    #: Whether policies apply to roles other than its owner, and to the owner too.
    policies: bool = False
    forces_policies: bool = False
    #: What it has of them, whether they apply or not.
    row_policies: tuple[Policy, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    #: Those that it has, or a partition of it, and those that refer to them.
    foreign_keys: tuple[ForeignKey, ...] = ()
    #: Objects that depend on the table and would not go with it.
    dependents: tuple[str, ...] = ()
    #: Those of them that are views which do not name its row type; none of a partition.
    views: tuple[DependentView, ...] = ()
    statistics: tuple[ExtendedStatistics, ...] = ()
    #: What counts on its rows' columns; none of a partition.
    row_users: tuple[RowUser, ...] = ()
    #: All partitions on all levels, parents before their own; those whose kind
    #: is not p are leaves.
    partitions: "tuple[Table, ...]" = ()
    #: The partitioned table at the top; None where it is no partition.
    root: TableName | None = None
    #: The one that it is a partition of, on any level.
    parent: TableName | None = None
    #: How rows find their partition, as DDL spells it; "" where it has none.
    partition_by: str = ""
    #: Which rows it takes as a partition, as DDL spells it, e.g. DEFAULT.
    bounds: str = ""

    @property
    def leaves(self) -> "tuple[Table, ...]":
        """The tables that hold the rows: itself, unless it is partitioned."""
        if self.kind != "p":
            return (self,)
        return tuple(t for t in self.partitions if t.kind != "p")

    def step(self, name: str) -> str:
        """Return a step's name, which tells those of several leaves apart."""
        if self.root is None:
            return name
        # Quoted, so that no leaf's name can look like another's with its schema.
        if self.name.schema == self.root.schema:
            return f"{name} {Identifier(self.name.name).as_string(None)}"
        return f"{name} {self.name}"

    def column(self, name: str) -> Column | None:
        """Return the column of that name, None where there is none."""
        return next((c for c in self.columns if c.name == name), None)

    def index(self, name: str) -> Index | None:
        """Return the index of that name, None where there is none."""
        return next((i for i in self.indexes if i.name == name), None)

    def constraint(self, name: str) -> Constraint | None:
        """Return the constraint of that name, None where there is none."""
        return next((c for c in self.constraints if c.name == name), None)

    def not_null(self, column: str) -> Constraint | None:
        """Return the constraint of a column's NOT NULL; before 18 there is none."""
        return next(
            (c for c in self.constraints if c.kind == "n" and c.columns == (column,)),
            None,
        )

    def require(self, name: str) -> Column:
        """
        Return the column of that name.

        Raises:
            NotThere: the table has no such column.
        """
        found = self.column(name)
        if found is None:
            known = ", ".join(f'"{c.name}"' for c in self.columns)
            raise NotThere(
                f'Table {self.name} has no column "{name}".',
                next=f"correct the name; the table has {known}.",
                name=name,
                known=(c.name for c in self.columns),
                table=self.name.name,
            )
        return found
