"""What a revision makes the server do: data only.

An Alembic operation (`operations.py`) and SQL text (`sql.py`) become the same
statements, so that a rule looks at one form of each.
"""

import re
from dataclasses import dataclass

from migrator.kernels.index_definition import Key
from migrator.pattern import Pattern


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """A name as a revision gives it; without a schema, the search path decides."""

    name: str
    schema: str | None = None

    def __str__(self) -> str:
        """Return it for a person."""
        return f"{self.schema}.{self.name}" if self.schema else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignTo:
    """What a foreign key refers to; no columns stand for the primary key."""

    table: Ref
    columns: tuple[str, ...] = ()
    on_delete: str | None = None
    on_update: str | None = None
    match: str | None = None
    #: "immediate" or "deferred", which is what it is initially.
    deferrable: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewConstraint:
    """
    A constraint that comes, of a table or of a column.

    `kind` is as `pg_constraint.contype` has it: p primary key, u unique, f foreign
    key, c check, x exclusion, n NOT NULL.
    """

    kind: str
    name: str | None = None
    columns: tuple[str, ...] = ()
    #: The condition of a check, as SQL.
    expression: str = ""
    to: ForeignTo | None = None
    not_valid: bool = False
    #: The index that it takes over: nothing is built.
    using_index: str | None = None
    nulls_not_distinct: bool = False
    deferrable: str | None = None
    include: tuple[str, ...] = ()
    #: What follows EXCLUDE, as SQL.
    definition: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewColumn:
    """A column that comes; `type` and `default` are SQL."""

    name: str
    type: str
    not_null: bool = False
    default: str | None = None
    #: "stored", "virtual", or "either": virtual where the server knows that (18+).
    generated: str | None = None
    #: What a generated column is computed by, as SQL, where the revision tells it.
    computed: str = ""
    #: Whether its type is a domain that refuses values, where the revision tells it.
    constrained: bool = False
    #: "always" or "by default".
    identity: str | None = None
    #: Of an identity's sequence, as SQL, where the revision tells them.
    options: str = ""
    collation: str | None = None
    constraints: tuple[NewConstraint, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """
    One thing that the server is made to do.

    Args:
        sql: its text, where it was given as text.
    """

    sql: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Other(Statement):
    """What no rule knows by itself; its text may still tell."""


# -- tables


@dataclass(frozen=True, slots=True, kw_only=True)
class OnTable(Statement):
    """Something that is done to one table."""

    table: Ref


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateTable(OnTable):
    """A table that comes."""

    columns: tuple[NewColumn, ...] = ()
    constraints: tuple[NewConstraint, ...] = ()
    #: The partitioned table that it is a part of.
    partition_of: Ref | None = None
    #: Tables that it inherits from.
    inherits: tuple[Ref, ...] = ()
    temporary: bool = False
    if_not_exists: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DropTable(OnTable):
    """A table that goes."""

    cascade: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameTable(OnTable):
    """A table under another name."""

    to: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveTable(OnTable):
    """A table in another schema."""

    to: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncate(Statement):
    """Tables that are emptied."""

    tables: tuple[Ref, ...]
    cascade: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachPartition(OnTable):
    """A table that becomes a partition; `bounds` is SQL, from FOR VALUES or DEFAULT."""

    partition: Ref
    bounds: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DetachPartition(OnTable):
    """A partition that becomes a table."""

    partition: Ref
    concurrently: bool = False
    finalize: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite(OnTable):
    """
    A table that is written anew.

    `how` is VACUUM FULL, CLUSTER, SET LOGGED, SET UNLOGGED, SET TABLESPACE or SET
    ACCESS METHOD; `to` is what it is set to.
    """

    how: str
    to: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewriteAll(Statement):
    """
    All tables of the database that are the role's, each written anew.

    `how` is VACUUM FULL, or CLUSTER, which takes those that were clustered before.
    """

    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeTrigger(OnTable):
    """A trigger: `how` is CREATE, DROP, RENAME, ENABLE or DISABLE."""

    how: str
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePolicy(OnTable):
    """
    Row security of a table.

    `how` is CREATE POLICY, ALTER POLICY, DROP POLICY, ENABLE, DISABLE, FORCE or
    NO FORCE.
    """

    how: str
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlterTable(OnTable):
    """
    What ALTER TABLE, or ALTER VIEW, does without touching a row or a name.

    Args:
        how: its first words, as OWNER TO, REPLICA IDENTITY or SET STATISTICS.
        options: names of the options that SET ( or RESET ( is about.
    """

    how: str
    options: tuple[str, ...] = ()


# -- columns


@dataclass(frozen=True, slots=True, kw_only=True)
class AddColumn(OnTable):
    """A column that comes."""

    column: NewColumn
    if_not_exists: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OnColumn(OnTable):
    """Something that is done to one column."""

    column: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DropColumn(OnColumn):
    """A column that goes."""

    cascade: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameColumn(OnColumn):
    """A column under another name."""

    to: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeType(OnColumn):
    """A column of another type; `type` and `using` are SQL."""

    type: str
    #: The type before, where the revision tells it.
    old_type: str | None = None
    using: str | None = None
    collation: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetNotNull(OnColumn):
    """A column that refuses NULL from now on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DropNotNull(OnColumn):
    """A column that takes NULL from now on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetDefault(OnColumn):
    """A default for rows to come, as SQL."""

    default: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DropDefault(OnColumn):
    """A default that goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetExpression(OnColumn):
    """Another expression of a generated column, as SQL."""

    expression: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AddIdentity(OnColumn):
    """A column that becomes an identity; `options` are its sequence's, as SQL."""

    always: bool = False
    options: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DropIdentity(OnColumn):
    """An identity that becomes an ordinary column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetGenerated(OnColumn):
    """An identity that takes values of INSERTs, or no longer does."""

    always: bool


# -- constraints


@dataclass(frozen=True, slots=True, kw_only=True)
class AddConstraint(OnTable):
    """A constraint that comes."""

    constraint: NewConstraint


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidateConstraint(OnTable):
    """A constraint that is proved."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DropConstraint(OnTable):
    """A constraint that goes; `kind` as in `NewConstraint`, where it is known."""

    name: str
    kind: str | None = None
    cascade: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameConstraint(OnTable):
    """A constraint under another name."""

    name: str
    to: str


# -- indexes


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateIndex(OnTable):
    """An index that comes; a key is a column's name, or a `Key`."""

    name: str | None
    keys: tuple[str | Key, ...]
    unique: bool = False
    concurrently: bool = False
    if_not_exists: bool = False
    #: Whether it is for a partitioned table alone, without its partitions.
    only: bool = False
    method: str = "btree"
    where: str | None = None
    include: tuple[str, ...] = ()
    nulls_not_distinct: bool = False
    #: Storage parameters and their values.
    storage: tuple[tuple[str, str], ...] = ()
    tablespace: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DropIndex(Statement):
    """An index that goes; `table` where the revision tells it."""

    name: Ref
    table: Ref | None = None
    concurrently: bool = False
    cascade: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reindex(Statement):
    """Indexes that are built anew; `of` is INDEX, TABLE, SCHEMA, DATABASE, SYSTEM."""

    of: str
    name: Ref
    concurrently: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameIndex(Statement):
    """An index under another name."""

    name: Ref
    to: str


# -- types, views, functions


@dataclass(frozen=True, slots=True, kw_only=True)
class AddEnumValue(Statement):
    """A value that an enum gets."""

    type: Ref
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameEnumValue(Statement):
    """A value of an enum under another word."""

    type: Ref
    value: str
    to: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeDomain(Statement):
    """
    A domain that changes.

    `how` is ADD CONSTRAINT, VALIDATE CONSTRAINT, DROP CONSTRAINT, SET NOT NULL,
    DROP NOT NULL, SET DEFAULT or DROP DEFAULT; `name` is the constraint's, and
    `expression` its condition or the default, as SQL.
    """

    domain: Ref
    how: str
    not_valid: bool = False
    name: str | None = None
    expression: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameSchema(Statement):
    """A schema under another name."""

    name: str
    to: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameObject(Statement):
    """
    A type, sequence, function or such, under another name or in another schema.

    `of` is TYPE, SEQUENCE and so on; either `to` or `schema` is given.
    """

    of: str
    name: Ref
    to: str | None = None
    schema: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DropObject(Statement):
    """A view, type, sequence, function or such that goes; `of` says which."""

    of: str
    name: Ref
    cascade: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateView(Statement):
    """A view that comes; `replaces` is CREATE OR REPLACE."""

    view: Ref
    replaces: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshView(Statement):
    """A materialized view that is filled anew."""

    view: Ref
    concurrently: bool = False


# -- rows and transactions


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeRows(OnTable):
    """Rows that are written: `how` is INSERT, UPDATE, DELETE, MERGE or COPY."""

    how: str
    #: Whether it says which rows.
    where: bool = False
    #: Rows that an INSERT names by their values; None where a query gives them.
    values: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Block(Statement):
    """Code that runs by itself: a DO block, or a call of a function or procedure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetParameter(Statement):
    """A setting of the session; `local` ends with the transaction."""

    name: str
    value: str
    local: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction(Statement):
    """BEGIN, COMMIT or ROLLBACK in the text itself: `how` says which."""

    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LockTable(Statement):
    """Tables that are locked by the revision itself, in a mode as SQL spells it."""

    tables: tuple[Ref, ...]
    mode: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried(Statement):
    """A change that the toolkit carries: `zd.upgrade(…)`; `title` names it."""

    title: str
    #: What it is made by; None where that is not known.
    pattern: Pattern | None = None


# Of what has no form here.
_ALONE = re.compile(
    r"\s*(VACUUM|(CREATE|DROP)\s+(DATABASE|TABLESPACE)|ALTER\s+SYSTEM)\b", re.IGNORECASE
)


def is_alone(statement: Statement) -> bool:
    """
    Tell whether a statement refuses to run inside a transaction.

    Source: PostgreSQL manual, the pages of these commands.
    """
    match statement:
        case CreateIndex() | DropIndex() | DetachPartition():
            return statement.concurrently
        case Reindex(of=of):
            return statement.concurrently or of not in ("INDEX", "TABLE")
        case Rewrite(how=how):
            return how == "VACUUM FULL"
        case RewriteAll():
            return True
        case Other():
            return _ALONE.match(statement.sql) is not None
        case _:
            return False
