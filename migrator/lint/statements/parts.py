"""What statements are made of: names, columns, constraints, and what each is."""

from dataclasses import dataclass

from migrator.names import TableName


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """A name as a revision gives it; without a schema, the search path decides."""

    name: str
    schema: str | None = None

    def __str__(self) -> str:
        """Return it for a person."""
        return f"{self.schema}.{self.name}" if self.schema else self.name


def ref_of(name: TableName) -> Ref:
    """Return a name of facts as a revision gives it."""
    return Ref(name.name, name.schema or None)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class OnTable(Statement):
    """Something that is done to one table."""

    table: Ref
