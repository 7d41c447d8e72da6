"""Detach a partition while its table is in use; its rows stay in it.

phase   statement                         lock on the table
retire  DETACH PARTITION … CONCURRENTLY   SHARE UPDATE EXCLUSIVE, no scan; in the end
                                          ACCESS EXCLUSIVE on the partition, no scan

In between it waits for transactions that may still see the partition. Tables that the
parent's foreign keys refer to are locked too: SHARE ROW EXCLUSIVE, and on the way back
ACCESS EXCLUSIVE. That attaches it without a scan, since it keeps a CHECK of its bounds.

Source: PostgreSQL manual, ALTER TABLE, DETACH PARTITION.
"""

from dataclasses import KW_ONLY, dataclass

from migrator.errors import Refused
from migrator.facts import Facts, Table
from migrator.kernels import partitions
from migrator.pattern import Pattern
from migrator.plan import Footprint, Notice, Reach, State, Step, Steps, type_name


@dataclass(frozen=True, slots=True)
class DetachPartition(Pattern):
    """
    Detach `partition` from `table`, and keep it as a table.

    Example:
        change = DetachPartition("events", "events_2020")

    Args:
        table: the partitioned table's name, without its schema.
        partition: the partition's name.
        schema: the schema of both; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    table: str
    partition: str
    _: KW_ONLY
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return f'detach partition "{self.partition}" from table "{self.table}"'

    @property
    def admission(self) -> State:
        """From expanded: the new release reads nothing of it."""
        return State.EXPANDED

    def columns(self) -> None:
        """Return None: all of both tables."""
        return

    def others(self, known: tuple[Table, ...]) -> tuple[tuple[str, str | None], ...]:
        """Return the partition."""
        return ((self.partition, self.schema),)

    def beside(self) -> tuple[Reach, ...]:
        """Return the partition."""
        return (Reach(table=self.partition, schema=self.schema),)

    def footprints(self, facts: Facts) -> tuple[Footprint, ...]:
        """Return both tables."""
        return (
            Footprint(table=facts.table.name, columns=None),
            Footprint(table=_part(facts).name, columns=None),
        )

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse what the server does not detach concurrently."""
        partitions.require_partitioned(facts)
        table, part = facts.table, _part(facts)
        if partitions.own(table, part.name) is None:
            if part.parent == table.name:
                raise Refused(
                    f"Partition {part.name} is being detached from table {table.name}.",
                    next=f"finish that: ALTER TABLE {table.name} DETACH PARTITION"
                    f" {part.name} FINALIZE.",
                )
            known = [str(p.name) for p in table.partitions if p.parent == table.name]
            raise Refused(
                f"Table {part.name} is no partition of table {table.name}.",
                next=f"correct the name; there are {', '.join(known) or 'none'}.",
            )
        default = partitions.default_of(table)
        if default is not None:
            raise Refused(
                f"Table {table.name} has a DEFAULT partition, {default.name}: then"
                " PostgreSQL detaches none concurrently, and rows within the bounds"
                " would go there.",
                next="detach it with plain SQL, in a maintenance window.",
            )
        partitions.require_not_referred(facts)
        return self.assure(
            (
                Notice(
                    text=f"Rows of {part.name} are out of sight of {table.name} from"
                    " retire on, and rows within its bounds are refused."
                ),
                Notice(
                    text="It stays as a table with a CHECK of its bounds, also where it"
                    " is attached again; dropping it is a change of its own."
                ),
            )
        )

    def expand(self, facts: Facts) -> Steps:
        """Return nothing: the old release may read its rows."""
        return ()

    def retire(self, facts: Facts) -> Steps:
        """Return the statement that detaches it."""
        table, part = facts.table, _part(facts)
        return (
            Step(
                name="detach_partition",
                work=partitions.detach_concurrently(table, part.name),
                reverse=(
                    partitions.finished(table, part.name),
                    partitions.attach(table, part.name, type_name(part.bounds)),
                ),
            ),
        )


def _part(facts: Facts) -> Table:
    return facts.others[0]
