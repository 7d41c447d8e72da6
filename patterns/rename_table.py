"""Rename a table while both names are in use.

phase   statement                            lock on the table
expand  CREATE VIEW under the new name       ACCESS SHARE
retire  DROP VIEW, RENAME TO, CREATE VIEW    ACCESS EXCLUSIVE, no scan
drop    DROP VIEW under the old name         none; ACCESS EXCLUSIVE on the view, no scan

There is one table all the time, so that nothing is copied and going back loses nothing,
also after the drop. Until retire the new release writes through the view, from then on
what is left of the old one does.

Source: PostgreSQL manual, CREATE VIEW, Updatable Views.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import ClassVar

from migrator.facts import Facts
from migrator.kernels.renamed import Renamed
from migrator.names import TableName
from migrator.pattern import Pattern
from migrator.plan import Footprint, Notice, Probe, State, Steps


@dataclass(frozen=True, slots=True)
class RenameTable(Pattern):
    """
    Rename `table` to `to`.

    Example:
        change = RenameTable("users", "accounts")

    Args:
        table: the table's name in the old release, without its schema.
        to: the name in the new release, in the same schema.
        schema: the table's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    reversible: ClassVar[str] = "always"

    table: str
    to: str
    _: KW_ONLY
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return f'rename table "{self.table}" to "{self.to}"'

    @property
    def admission(self) -> State:
        """From expanded, which makes the view."""
        return State.EXPANDED

    def columns(self) -> None:
        """Return None: all of it."""
        return

    def footprints(self, facts: Facts) -> tuple[Footprint, ...]:
        """Return both names."""
        return self._renamed(facts).footprints

    def places(self, table: TableName, tag: str) -> tuple[TableName, ...]:
        """Return the new name, then the old one."""
        return (replace(table, name=self.to), table)

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse what cannot be renamed; tell what a view does not do."""
        found = self._renamed(facts).check(facts)
        kept = Notice(
            text="Indexes, constraints, sequences and partitions keep their names."
        )
        return self.assure((*found, kept))

    def questions(self, facts: Facts) -> Mapping[str, Probe]:
        """Return what the catalogue is asked."""
        return self._renamed(facts).questions()

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return the trial that the name is free."""
        return self._renamed(facts).probes()

    def expand(self, facts: Facts) -> Steps:
        """Return the view under the new name."""
        return (self._renamed(facts).expand(),)

    def retire(self, facts: Facts) -> Steps:
        """Return the exchange of table and view."""
        return (self._renamed(facts).retire(),)

    def drop(self, facts: Facts) -> Steps:
        """Return the drop of the view under the old name."""
        return (self._renamed(facts).drop(),)

    def _renamed(self, facts: Facts) -> Renamed:
        old = facts.known_as
        return Renamed(
            title=self.title,
            old=old,
            new=replace(old, name=self.to),
            columns=tuple(c.name for c in facts.table.columns),
        )
