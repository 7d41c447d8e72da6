"""What is known before SQL is rendered: data only.

`migrator.postgres.catalog` reads facts, patterns turn them into steps. What a table
has is in `table.py`, what else a change is made on in `subject.py`, and what goes on
in the database just now in `moment.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from migrator.errors import Refused
from migrator.facts.moment import Blocker, Snapshot
from migrator.facts.subject import Attached, Domain, Kind
from migrator.facts.table import (
    Column,
    Constraint,
    DependentView,
    ExtendedStatistics,
    ForeignKey,
    Grant,
    Index,
    IndexColumn,
    Policy,
    Publication,
    RowUser,
    Rule,
    Sequence,
    Table,
    Trigger,
)
from migrator.names import TableName

__all__ = [
    "Attached",
    "Blocker",
    "Column",
    "Constraint",
    "DependentView",
    "Domain",
    "ExtendedStatistics",
    "Facts",
    "ForeignKey",
    "Grant",
    "Index",
    "IndexColumn",
    "Kind",
    "Policy",
    "Publication",
    "RowUser",
    "Rule",
    "Sequence",
    "Snapshot",
    "Table",
    "Trigger",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that a pattern may know when it renders its steps."""

    #: `server_version_num`, e.g. 180006.
    server_version: int
    table: Table
    #: The further tables that the pattern asks for, in its order; of a domain, the
    #: tables that have columns of it.
    others: tuple[Table, ...] = ()
    #: Tables and views that the change makes, as far as they are there.
    made: Mapping[TableName, Table] = field(default_factory=dict[TableName, Table])
    #: Whether the role of the connection is a superuser.
    superuser: bool = False
    #: Whether it may create in the schema of what is changed.
    may_create: bool = True
    #: Roles to which it gives by default privileges on the tables or sequences that it
    #: makes there; None stands for all.
    default_grantees: tuple[str | None, ...] = ()
    #: What a change of a domain is made on; None for other changes, or where it is
    #: gone.
    domain: Domain | None = None
    #: The change's tag, part of every generated name.
    tag: str
    #: How the user wants a backfill to go over the table; None leaves it open.
    chunking: str | None = None
    #: What keeps dead rows from being pruned just now.
    oldest_snapshot: Snapshot | None = None
    #: Size of the server's own cache (`shared_buffers`); None where it is not known.
    cache_bytes: int | None = None
    #: Schemas in which expressions are looked up, as the connection has it.
    path: tuple[str, ...] = ()
    #: The name under which the change was planned, where it stands under another.
    origin: TableName | None = None
    #: What the pattern asked, and the answers; an error is a no.
    answers: Mapping[str, bool] = field(default_factory=dict[str, bool])
    #: What the pattern had the server spell; nothing where that failed.
    texts: Mapping[str, str] = field(default_factory=dict[str, str])
    #: Names of relations (tables, indexes …) of the table's schema.
    relation_names: frozenset[str] = frozenset()
    #: What is there of a view, function or setting now: the text that makes it, its
    #: names with their schemas, or the value; None where nothing is.
    definition: str | None = None
    #: What hangs on a view or function, in the order in which to give it on.
    attached: tuple[Attached, ...] = ()

    def of(self, table: Table) -> "Facts":
        """Return the same with another table."""
        return replace(self, table=table)

    @property
    def known_as(self) -> TableName:
        """The name under which the change was planned."""
        return self.origin or self.table.name

    @property
    def leaves(self) -> "tuple[Facts, ...]":
        """
        The same for each table that holds rows of the table.

        Raises:
            Refused: one of them is not on this server.
        """
        for leaf in self.table.leaves:
            if leaf.kind == "f":
                raise Refused(
                    f"Partition {leaf.name} of table {self.table.name} is a foreign"
                    " table: its rows cannot be gone over, and the table behind it"
                    " does not change along.",
                    next="detach it, or move its rows into a partition of this"
                    " database.",
                )
        return tuple(replace(self, table=leaf) for leaf in self.table.leaves)
