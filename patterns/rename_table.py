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

from dataclasses import KW_ONLY, dataclass, replace

from migrator.facts import Facts
from migrator.kernels.renamed import Renaming
from migrator.names import TableName
from migrator.plan import Notice


@dataclass(frozen=True, slots=True)
class RenameTable(Renaming):
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

    table: str
    to: str
    _: KW_ONLY
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return f'rename table "{self.table}" to "{self.to}"'

    def renamed(self, table: TableName) -> TableName:
        """Return the new name in the same schema."""
        return replace(table, name=self.to)

    def remarks(self, facts: Facts) -> tuple[Notice, ...]:
        """Tell what keeps its name."""
        return (
            Notice(
                text="Indexes, constraints, sequences and partitions keep their names."
            ),
        )
