"""Move a table to another schema while both of its names are in use.

phase   statement                            lock on the table
expand  CREATE VIEW in the new schema        ACCESS SHARE
retire  DROP VIEW, SET SCHEMA, CREATE VIEW   ACCESS EXCLUSIVE, no scan
drop    DROP VIEW in the old schema          none; ACCESS EXCLUSIVE on the view, no scan

Indexes, constraints and the sequences of its columns go along. There is one table all
the time, so that nothing is copied and going back loses nothing, also after the drop.

Source: PostgreSQL manual, ALTER TABLE, SET SCHEMA; CREATE VIEW, Updatable Views.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import ClassVar

from psycopg import sql

from migrator.facts import Facts
from migrator.kernels.renamed import Renamed
from migrator.names import TableName
from migrator.pattern import Pattern
from migrator.plan import Footprint, Notice, Probe, State, Steps, render


@dataclass(frozen=True, slots=True)
class MoveToSchema(Pattern):
    """
    Move `table` to the schema `to`.

    Example:
        change = MoveToSchema("invoices", "billing")

    Args:
        table: the table's name, without its schema.
        to: the schema in which the new release looks for it; it has to be there.
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
        return f'move table "{self.table}" to schema "{self.to}"'

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
        return (replace(table, schema=self.to), table)

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse what cannot be moved; tell what a view does not do."""
        found = [*self._renamed(facts).check(facts)]
        if any(c.sequences or c.identity for c in facts.table.columns):
            found.append(
                Notice(
                    text="Sequences of the table go along at retire: a release that"
                    " names one, as in nextval('…'), has to find it in the other"
                    " schema from then on."
                )
            )
        if facts.table.kind == "p":
            found.append(Notice(text="Partitions stay in the schema that they are in."))
        if not facts.answers.get("usable", True):
            found.append(
                Notice(
                    text="A role that has rights on the table may not use schema"
                    f' "{self.to}": there it does not find the table (GRANT USAGE ON'
                    " SCHEMA).",
                    needs_assurance=True,
                )
            )
        return self.assure(tuple(found))

    def questions(self, facts: Facts) -> Mapping[str, Probe]:
        """Return what the catalogue is asked; of roles, who may use the schema."""
        usable = sql.SQL(
            "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_namespace n,"
            " pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a"
            " ON a.attrelid = c.oid CROSS JOIN LATERAL (SELECT grantee FROM"
            " pg_catalog.aclexplode(c.relacl) UNION SELECT grantee FROM"
            " pg_catalog.aclexplode(a.attacl)) AS g"
            " LEFT JOIN pg_catalog.pg_roles r ON r.oid = g.grantee"
            " WHERE n.nspname = {} AND c.oid = pg_catalog.to_regclass({}) AND NOT"
            " pg_catalog.has_schema_privilege(COALESCE(r.rolname, 'public'), n.oid,"
            " 'USAGE'))"
        ).format(sql.Literal(self.to), sql.Literal(str(facts.table.name)))
        return {
            **self._renamed(facts).questions(),
            "usable": Probe(statements=(), question=render(usable), otherwise=""),
        }

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return the trial that the names are free in the other schema."""
        return self._renamed(facts).probes()

    def expand(self, facts: Facts) -> Steps:
        """Return the view in the new schema."""
        return (self._renamed(facts).expand(),)

    def retire(self, facts: Facts) -> Steps:
        """Return the exchange of table and view."""
        return (self._renamed(facts).retire(),)

    def drop(self, facts: Facts) -> Steps:
        """Return the drop of the view in the old schema."""
        return (self._renamed(facts).drop(),)

    def _renamed(self, facts: Facts) -> Renamed:
        old = facts.known_as
        return Renamed(
            title=self.title,
            old=old,
            new=replace(old, schema=self.to),
            columns=tuple(c.name for c in facts.table.columns),
        )
