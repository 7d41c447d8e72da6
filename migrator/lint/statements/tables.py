"""What is done to tables, their columns, constraints and indexes."""

from dataclasses import dataclass

from migrator.kernels.index_definition import Key
from migrator.lint.statements.parts import (
    NewColumn,
    NewConstraint,
    OnTable,
    Ref,
    Statement,
)

# -- tables


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateTable(OnTable):
    """A table that comes."""

    columns: tuple[NewColumn, ...] = ()
    constraints: tuple[NewConstraint, ...] = ()
    #: The partitioned table that it is a part of.
    partition_of: Ref | None = None
    #: Tables that it inherits from.
    inherits: tuple[Ref, ...] = ()
    #: Whether it has columns besides: those of a table that it is made like.
    copies: bool = False
    #: Whether its rows are in partitions.
    partitioned: bool = False
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
