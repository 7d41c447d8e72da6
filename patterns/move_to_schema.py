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

from psycopg import sql

from migrator.facts import Facts
from migrator.kernels.renamed import Renaming
from migrator.names import TableName
from migrator.plan import Notice, Probe, render


@dataclass(frozen=True, slots=True)
class MoveToSchema(Renaming):
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

    table: str
    to: str
    _: KW_ONLY
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return f'move table "{self.table}" to schema "{self.to}"'

    def renamed(self, table: TableName) -> TableName:
        """Return the name in the other schema."""
        return replace(table, schema=self.to)

    def remarks(self, facts: Facts) -> tuple[Notice, ...]:
        """Tell what goes along, what does not, and who may not follow."""
        found: list[Notice] = []
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
        return tuple(found)

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
            **Renaming.questions(self, facts),
            "usable": Probe(statements=(), question=render(usable), otherwise=""),
        }
