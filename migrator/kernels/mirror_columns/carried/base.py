"""What is common to constraints and unique indexes of old columns."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from psycopg import sql

from migrator import names
from migrator.facts import Table
from migrator.kernels.direct import IF_EXISTS
from migrator.names import TableName
from migrator.plan import Action, Refusal, Steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """
    The old columns of a table and their heirs, by all the names that they bear.

    Args:
        table: as facts have it before retire.
        tag: the change's.
        retired: for each old column its name from retire on.
        heirs: for each that has one, the heir's name until retire.
    """

    table: Table
    tag: str
    retired: Mapping[str, str]
    heirs: Mapping[str, str]

    def alter(self, what: sql.Composable) -> sql.Composable:
        """Return an ALTER TABLE."""
        return sql.SQL("ALTER TABLE {} {}").format(self.table.name.identifier, what)

    def without(self, constraint: str, *, if_there: bool = False) -> sql.Composable:
        """
        Return the drop of a constraint.

        Args:
            constraint: its name.
            if_there: whether somebody may have dropped it.
        """
        return self.alter(
            sql.SQL("DROP CONSTRAINT {}{}").format(
                IF_EXISTS[if_there], sql.Identifier(constraint)
            )
        )

    def in_trial(self) -> "Place":
        """Return the same of the table's like in pg_temp."""
        name = TableName("pg_temp", self.table.name.name)
        return replace(self, table=replace(self.table, name=name))

    def renamed(self, given: str, wanted: str) -> sql.Composable:
        """Return the rename of a column."""
        return self.alter(
            sql.SQL("RENAME COLUMN {} TO {}").format(
                sql.Identifier(given), sql.Identifier(wanted)
            )
        )

    def on_heirs(self, *statements: sql.Composable) -> tuple[sql.Composable, ...]:
        """
        Return statements that mean the heirs where their texts name the columns.

        For as long as they take, those bear the names: the server reads the text, and
        no text is edited. Nobody else sees it.
        """
        spare = {old: names.owned("spare", old, self.tag) for old in self.heirs}
        return (
            *(self.renamed(old, spare[old]) for old in self.heirs),
            *(self.renamed(heir, old) for old, heir in self.heirs.items()),
            *statements,
            *(self.renamed(old, heir) for old, heir in self.heirs.items()),
            *(self.renamed(spare[old], old) for old in self.heirs),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried(ABC):
    """
    One of them.

    Args:
        place: whose it is.
        number: of it among all, for the names of its steps.
        kept: whether the heirs get its like; else retire lifts it, and only the way
            back brings it back.
    """

    place: Place
    number: int
    kept: bool

    @property
    @abstractmethod
    def name(self) -> str:
        """The name that it keeps."""

    @property
    def names(self) -> frozenset[str]:
        """That name, and what its parts on partitions are called."""
        return frozenset({self.name})

    @property
    def made(self) -> str:
        """The name of its like until that stands in its place."""
        return names.owned("like", self.name, self.place.tag)

    @property
    def also(self) -> tuple[TableName, ...]:
        """Further tables that are locked as strongly."""
        return ()

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """All columns of the table that it is about."""

    @abstractmethod
    def prepared(self) -> Steps:
        """Return what is made and proved on the heirs before the exchange."""

    @abstractmethod
    def freed(self) -> Iterator[sql.Composable]:
        """Yield the drop of what bears the name, before the columns' renames."""

    @abstractmethod
    def exchanged(self) -> Iterator[sql.Composable]:
        """Yield what makes the like take its place, behind the columns' renames."""

    @abstractmethod
    def freed_again(self) -> Iterator[sql.Composable]:
        """Yield what the way back frees the name by, of what is there of it by then."""

    @abstractmethod
    def given_back(self) -> Iterator[sql.Composable]:
        """Yield what gives it back to the old column, behind the columns' renames."""

    def unproved(self) -> tuple[Refusal, ...]:
        """Return the conditions under which the exchange would have to read rows."""
        return ()

    @abstractmethod
    def before_back(self, over: str, fits: Refusal) -> tuple[Action, ...]:
        """
        Return what the way back does before its exchange.

        Args:
            over: the question whether that has run.
            fits: the condition that all rows have values for the old column.
        """

    def after_back(self) -> tuple[Action, ...]:
        """Return what the way back proves behind its exchange."""
        return ()
