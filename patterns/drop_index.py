"""Drop an index that nobody uses, after a hold.

phase     statement                  lock on the table
retire    SELECT, the scans so far   none
drop      DROP INDEX CONCURRENTLY    SHARE UPDATE EXCLUSIVE, no scan
          partitioned: DROP INDEX    ACCESS EXCLUSIVE, no scan

The index of a partitioned table cannot be dropped concurrently, nor can its parts: it
goes in one transaction that locks the table and all partitions (ACCESS EXCLUSIVE, no
scan), and comes back as it is built, leaf by leaf.

Whether an index is needed shows only without it, or by nobody scanning it for a
while: the scans are noted at retire, and counted again after the hold. Going back
from the drop builds it again, as the catalogue defined it.

Source: PostgreSQL manual, DROP INDEX, CONCURRENTLY.
"""

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from psycopg import sql

from migrator import names
from migrator.facts import Facts, Index
from migrator.final import Final
from migrator.kernels import direct, indexes, partitioned_index, requirements
from migrator.names import TableName
from migrator.pattern import Pattern
from migrator.plan import Notice, Refusal, State, Step, Steps, Transaction, render
from migrator.words import counted


@dataclass(frozen=True, slots=True)
class DropIndex(Pattern):
    """
    Drop the index `name` of `table`.

    Example:
        change = DropIndex("users", "ix_users_email")

    Args:
        table: the table's name, without its schema.
        name: the index's name.
        schema: the table's schema; None means the connection's search path.
        assured: why it may go although it is unique, or was scanned in the hold.
    """

    reversible: ClassVar[str] = "always, by a build"

    table: str
    name: str
    _: KW_ONLY
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return f'drop index "{self.name}" of table "{self.table}"'

    @property
    def admission(self) -> State:
        """From expanded: it is there until the drop."""
        return State.EXPANDED

    def columns(self) -> frozenset[str]:
        """Return the index."""
        return frozenset({self.name})

    def final(self) -> Final:
        """Return that it is gone."""
        return Final(gone=(self.name,))

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse an index on which something rests."""
        requirements.require_table(facts)
        index = indexes.require(facts, self.name)
        indexes.require_unused(facts, index)
        notices = [
            Notice(
                text=f"It was scanned {counted(_scans(facts, index), 'time')} on this"
                " server since statistics were reset; scans of standbys are not known"
                " here."
                " Once it was scanned between retire and drop, the drop is refused"
                ' without assured="reason".'
            )
        ]
        if facts.table.kind == "p":
            notices.append(partitioned_index.DROP_NOTICE)
        if index.unique:
            notices.append(
                Notice(
                    text=f'Index "{self.name}" is unique: without it rows may be equal,'
                    " and ON CONFLICT on its columns fails.",
                    needs_assurance=True,
                )
            )
        return self.assure(tuple(notices))

    def expand(self, facts: Facts) -> Steps:
        """Return nothing: it stays for both releases."""
        return ()

    def retire(self, facts: Facts) -> Steps:
        """Return the note of the scans, as text of the step that the ledger keeps."""
        index = facts.table.index(self.name)
        scans = render(sql.SQL("SELECT {}").format(sql.Literal(_scans(facts, index))))
        return (
            Step(
                name="note_scans",
                work=Transaction(statements=(scans,), table=facts.table.name),
                no_reverse="nothing is changed",
            ),
        )

    def drop(self, facts: Facts) -> Steps:
        """Return the drop, unless it was scanned since retire."""
        index = facts.table.index(self.name)
        if index is None:
            return ()
        whole = TableName(facts.table.name.schema, self.name)
        used = Refusal(
            count=render(
                sql.SQL(
                    "SELECT GREATEST((SELECT pg_catalog.sum("
                    "pg_catalog.pg_stat_get_numscans(oid)) FROM ({parts}) AS parts)"
                    "::bigint - (SELECT"
                    " pg_catalog.substr(s.step -> 'work' -> 'statements' ->> 0,"
                    " 8)::bigint FROM {ledger}.steps s JOIN {ledger}.changes k"
                    " ON k.id = s.change WHERE k.tag = {tag}"
                    " AND s.name = 'note_scans' AND s.status = 'done'), 0)"
                ).format(
                    parts=direct.members(whole),
                    ledger=sql.Identifier(names.LEDGER_SCHEMA),
                    tag=sql.Literal(facts.tag),
                )
            ),
            why=f'index "{self.name}" was scanned {{count:time|times}} since retire',
            next="keep it (`migrator rollback`); or roll back to planned and write"
            ' assured="why it may go" into the pattern.',
        )
        refusals = () if self.assured else (used,)
        if facts.table.kind == "p":
            return (partitioned_index.drop(facts, index, *refusals),)
        return (indexes.drop_index_step(facts.table, index, *refusals),)


def _scans(facts: Facts, index: Index | None) -> int:
    """Return how often an index was scanned, of a partitioned one all its parts."""
    if index is None:
        return 0
    return index.scans + sum(
        own.scans
        for table in facts.table.partitions
        for own in table.indexes
        if own.root == index.name
    )
