"""A change: a pattern with its identity."""

from dataclasses import dataclass

from migrator import names
from migrator.names import TableName
from migrator.pattern import Pattern

DEFAULT_VERSION_TABLE = "alembic_version"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """
    One use of a pattern in one revision.

    Args:
        revision: the Alembic revision, or any name where there is none.
        pattern: what is changed.
        ordinal: position among the revision's changes, from 1.
        version_table: Alembic's version table, with its schema if it has one.
        requires: names of changes that have to be finished before it begins.
    """

    revision: str
    pattern: Pattern
    ordinal: int = 1
    version_table: str = DEFAULT_VERSION_TABLE
    requires: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name by which `requires` calls the change."""
        suffix = f":{self.ordinal}" if self.ordinal > 1 else ""
        return f"{self.revision}{suffix}"

    @property
    def id(self) -> str:
        """The name under which commands know the change."""
        return id_of(self.name, self.version_table)

    def tag(self, table: TableName) -> str:
        """Return the tag that generated names carry."""
        return names.tag(self.id, table.schema, table.name)


def id_of(name: str, version_table: str) -> str:
    """Return the id of a change, by its name within the revisions of a table."""
    own = version_table != DEFAULT_VERSION_TABLE
    return f"{version_table}/{name}" if own else name
