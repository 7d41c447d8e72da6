"""Attach a table that is there as a partition, without a scan under a strong lock.

phase   statement                              lock on the table
expand  CHECK of the bounds NOT VALID          ACCESS EXCLUSIVE on partition, no scan
        VALIDATE CONSTRAINT                    SHARE UPDATE EXCLUSIVE on it, full scan
        CREATE INDEX CONCURRENTLY, its keys    SHARE UPDATE EXCLUSIVE on it
        the same checks on the DEFAULT one     as above, on the DEFAULT partition
        ATTACH PARTITION, DROP of the checks   SHARE UPDATE EXCLUSIVE, no scan

The last takes ACCESS EXCLUSIVE on the partition, the DEFAULT one and tables that the
parent's foreign keys refer to. Going back is a plain DETACH PARTITION: ACCESS EXCLUSIVE
on parent and partitions, no scan.

Source: PostgreSQL manual, section 5.12.2.2; ALTER TABLE, ATTACH PARTITION.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass

from psycopg import sql

from migrator import names
from migrator.facts import Facts, Table
from migrator.kernels import partitions
from migrator.pattern import Pattern
from migrator.plan import (
    Footprint,
    Notice,
    Probe,
    Reach,
    State,
    Step,
    Steps,
    expression,
    render,
    type_name,
)


@dataclass(frozen=True, slots=True)
class AttachPartition(Pattern):
    """
    Attach `partition` to `table`.

    Example:
        change = AttachPartition("events", "events_2025", "IN (2025)")

    Args:
        table: the partitioned table's name, without its schema.
        partition: the name of the table that becomes a partition.
        bounds: what stands behind FOR VALUES, e.g. `"FROM ('a') TO ('b')"`.
        schema: the schema of both; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    table: str
    partition: str
    bounds: str
    _: KW_ONLY
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return f'attach partition "{self.partition}" to table "{self.table}"'

    @property
    def admission(self) -> State:
        """From expanded, which attaches it."""
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
        """Refuse what could not be attached without a scan."""
        partitions.require_partitioned(facts)
        partitions.require_not_referred(facts)
        part = _part(facts)
        partitions.require_attachable(facts, part)
        notices = [
            Notice(
                text=f"Both releases see the rows of {part.name} in"
                f" {facts.table.name} from expand on. Going back detaches it with what"
                " was written to it meanwhile."
            )
        ]
        default = partitions.default_of(facts.table)
        if default is not None:
            notices.append(
                Notice(
                    text=f"From the check on {default.name} until the table is"
                    " attached, rows within the bounds are refused, of either release:"
                    " attach it before they come.",
                    needs_assurance=True,
                )
            )
        return self.assure(tuple(notices))

    def readings(self, facts: Facts) -> Mapping[str, Probe]:
        """Return the condition that implies the bounds, as the server spells it."""
        part = _part(facts)
        return {"check": partitions.condition(facts, part, self._bounds)}

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return the trial on empty copies; the DEFAULT partition has to be free."""
        part = _part(facts)
        trial = Probe(
            statements=partitions.trial(facts, part, self._bounds),
            question="SELECT true",
            otherwise="",
            failed=f"Table {part.name} cannot be attached to {facts.table.name}",
            next="make it fit: columns, types, NOT NULL and checks are the parent's,"
            " the bounds those of no other partition.",
        )
        default = partitions.default_of(facts.table)
        if default is None:
            return (trial,)
        free = sql.SQL("SELECT NOT EXISTS (SELECT FROM {} WHERE {})").format(
            default.name.identifier, _condition(facts)
        )
        return (
            trial,
            Probe(
                statements=(),
                question=render(free),
                otherwise=f"Partition {default.name} has rows within the bounds of"
                f" {part.name}.",
                next="move them to the table first.",
            ),
        )

    def expand(self, facts: Facts) -> Steps:
        """Return proof and indexes beside the traffic, then the attachment."""
        part, default = _part(facts), partitions.default_of(facts.table)
        holds = names.owned("check", part.name.name, facts.tag)
        lacks = names.owned("default", part.name.name, facts.tag)
        text = _condition(facts)
        steps = [*partitions.checked(part.name, holds, text, "check")]
        missing = partitions.missing_indexes(facts.table, part)
        for number, index in enumerate(missing, 1):
            steps += partitions.like(facts, part, index, number)
        gone = [(part.name, holds)]
        if default is not None:
            none = sql.SQL("NOT ({})").format(text)
            steps += partitions.checked(default.name, lacks, none, "default_check")
            gone.append((default.name, lacks))
        drops = (
            sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(
                table.identifier, sql.Identifier(name)
            )
            for table, name in gone
        )
        attach = Step(
            name="attach_partition",
            work=partitions.attach(
                facts.table,
                part.name,
                sql.SQL("FOR VALUES {}").format(self._bounds),
                *drops,
                also=(default.name,) if default else (),
            ),
            reverse=(partitions.detach(facts.table, part.name),),
        )
        return (*steps, attach)

    @property
    def _bounds(self) -> sql.Composable:
        return type_name(self.bounds)


def _part(facts: Facts) -> Table:
    return facts.others[0]


def _condition(facts: Facts) -> sql.Composable:
    # Where the server refused to spell it, the trial refuses the change.
    return expression(facts.texts.get("check", "false"))
