"""Write a table anew, with another physical shape.

phase     statement                               lock on the table
expand    CREATE TABLE, dual-write triggers       SHARE ROW EXCLUSIVE, no scan
backfill  INSERT … SELECT … FOR KEY SHARE         ROW SHARE, per chunk
          CREATE INDEX CONCURRENTLY, new table    none
          ADD FOREIGN KEY … NOT VALID, new table  none, SHARE ROW EXCLUSIVE on others
verify    both tables compared                    ACCESS SHARE
retire    names exchanged, triggers swapped       ACCESS EXCLUSIVE, no scan
          CREATE OR REPLACE VIEW, those over it   the same, each view before it
          foreign keys that act, made anew        the same on their tables, no scan
          VALIDATE CONSTRAINT (those)             ROW SHARE, full scan of their tables
drop      DROP CONSTRAINT, DROP TABLE (former)    ACCESS EXCLUSIVE, no scan

What VACUUM FULL, SET TABLESPACE and SET ACCESS METHOD do under ACCESS EXCLUSIVE all the
while: rows are copied to a new table, which takes the name of the former one.

Source: PostgreSQL manual, CREATE TABLE (LIKE), ALTER TABLE, Notes.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

from psycopg import sql

from migrator.facts import Facts
from migrator.kernels import row_types
from migrator.kernels.chunking import unique_index
from migrator.kernels.mirror_table import (
    Swap,
    former,
    require_swappable,
    shadow_of,
    swap_notices,
)
from migrator.names import TableName
from migrator.pattern import Pattern
from migrator.plan import Notice, Probe, State, Steps, render, type_name

# What clauses made of an empty copy, as changes that keep what either release writes.
_APART = (
    "WITH was AS (SELECT a.*, EXISTS (SELECT FROM pg_catalog.pg_index i"
    " WHERE i.indrelid = a.attrelid AND i.indisprimary"
    " AND a.attnum = ANY (i.indkey)) AS keyed"
    " FROM pg_catalog.pg_attribute a WHERE a.attnum > 0 AND NOT a.attisdropped"
    " AND a.attrelid = {table}::pg_catalog.regclass),"
    " now AS (SELECT a.* FROM pg_catalog.pg_attribute a WHERE a.attnum > 0"
    " AND NOT a.attisdropped"
    " AND a.attrelid = 'pg_temp.migrator_trial'::pg_catalog.regclass),"
    " apart (name, change, more) AS (SELECT COALESCE(was.attname, now.attname)::text,"
    " CASE WHEN now.attname IS NULL THEN 'DropColumn'"
    " WHEN was.attname IS NULL THEN 'AddColumn'"
    " WHEN (was.atttypid, was.atttypmod) IS DISTINCT FROM (now.atttypid, now.atttypmod)"
    " THEN CASE WHEN was.keyed THEN 'ChangePrimaryKey' ELSE 'ChangeColumnType' END"
    " WHEN now.attnotnull THEN 'SetNotNull' ELSE 'DropNotNull' END,"
    " CASE WHEN now.attname IS NOT NULL AND (was.atttypid, was.atttypmod)"
    " IS DISTINCT FROM (now.atttypid, now.atttypmod)"
    " THEN pg_catalog.format_type(now.atttypid, now.atttypmod) END"
    " FROM was FULL JOIN now ON was.attname = now.attname"
    " WHERE (was.atttypid, was.atttypmod, was.attnotnull)"
    " IS DISTINCT FROM (now.atttypid, now.atttypmod, now.attnotnull)"
    # What is computed is written by nobody.
    " AND (was.attname IS NOT NULL OR now.attgenerated = '')"
    " UNION ALL SELECT k.conname::text, CASE k.contype WHEN 'c' THEN 'AddCheck'"
    " WHEN 'p' THEN 'AddPrimaryKey' ELSE 'AddUnique' END, '…'"
    " FROM pg_catalog.pg_constraint k WHERE k.contype IN ('c', 'p', 'u')"
    " AND k.conrelid = 'pg_temp.migrator_trial'::pg_catalog.regclass)"
    " SELECT COALESCE(pg_catalog.string_agg(change || '(' || pg_catalog.concat_ws(', ',"
    " pg_catalog.to_json({name}::text), pg_catalog.to_json(name),"
    " CASE WHEN more = '…' THEN more ELSE pg_catalog.to_json(more)::text END) || ')',"
    " ', ' ORDER BY name), '') FROM apart"
)


@dataclass(frozen=True, slots=True)
class RebuildTable(Pattern):
    """
    Write `table` anew; both releases use it under its name throughout.

    Example:
        change = RebuildTable(
            "events",
            alter=["SET (fillfactor = 70)"],
            assured="nothing follows it by its OID",
        )

    Args:
        table: the table's name, without its schema.
        alter: clauses of ALTER TABLE for the new table while it is empty, e.g.
            "SET TABLESPACE fast"; none removes bloat. They leave columns as they are,
            but may add one that is generated, or an exclusion constraint.
        schema: the table's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    table: str
    _: KW_ONLY
    alter: Sequence[str] = ()
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return f'rebuild table "{self.table}"'

    @property
    def admission(self) -> State:
        """From expanded: it sees no difference."""
        return State.EXPANDED

    def columns(self) -> None:
        """Return None: all of it."""
        return

    def makes(self, table: TableName, tag: str) -> tuple[TableName, ...]:
        """Return the new table before retire, and the former one after."""
        return (shadow_of(table, tag), former(table, tag))

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse a table on which something hangs that cannot go over."""
        require_swappable(facts, self.title)
        return self.assure(
            (
                Notice(
                    text="At retire another table takes the name. Statements that are"
                    " under way then keep to the one that they began with, and are"
                    " waited for; functions and replication slots that follow the table"
                    " by its OID stay with the former one.",
                    needs_assurance=True,
                ),
                *swap_notices(facts),
                # The one way in which a table of another shape can be made.
                *(
                    row_types.breaks(facts, "retire")
                    if any("GENERATED" in clause.upper() for clause in self.alter)
                    else ()
                ),
            )
        )

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return the trial of the clauses on an empty copy: its shape is physical."""
        if not self.alter:
            return ()
        name = facts.table.name
        trial = sql.SQL("CREATE TEMP TABLE migrator_trial (LIKE {})").format(
            name.identifier
        )
        return (
            Probe(
                statements=(
                    render(trial),
                    *(f"ALTER TABLE migrator_trial {clause}" for clause in self.alter),
                ),
                question=render(
                    sql.SQL(_APART).format(
                        name=sql.Literal(name.name), table=sql.Literal(str(name))
                    )
                ),
                otherwise=f"{self.title}: releases would write into another shape, for"
                " which this pattern has no way back: {found}.",
                next="make that a change of its own.",
                failed=f"{self.title}: the server refuses a clause",
            ),
        )

    def expand(self, facts: Facts) -> Steps:
        """Return the new table, with its dual write."""
        return self._swap(facts).expand()

    def backfill(self, facts: Facts) -> Steps:
        """Return the copy of the rows, and indexes behind them."""
        return self._swap(facts).backfill()

    def verify(self, facts: Facts) -> Steps:
        """Return the comparison of both tables."""
        return self._swap(facts).verify()

    def retire(self, facts: Facts) -> Steps:
        """Return the exchange of both tables."""
        return self._swap(facts).retire()

    def drop(self, facts: Facts) -> Steps:
        """Return the drop of the former table."""
        return self._swap(facts).drop()

    def _swap(self, facts: Facts) -> Swap:
        shadow = shadow_of(facts.table.name, facts.tag).identifier
        index = unique_index(facts)
        return Swap(
            facts=facts,
            key=[k.name for k in index.keys] if index else [],
            made=tuple(
                sql.SQL("ALTER TABLE {} {}").format(shadow, type_name(clause))
                for clause in self.alter
            ),
        )
