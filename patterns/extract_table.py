"""Make rows of a new table of columns that repeat, and refer to them.

phase     statement                               lock on the table
expand    CREATE TABLE, ADD COLUMN, FOREIGN KEY   ACCESS EXCLUSIVE, no scan
          NOT VALID, dual-write triggers
backfill  UPDATE in chunks                        ROW EXCLUSIVE, per chunk
          CREATE INDEX CONCURRENTLY, reference    SHARE UPDATE EXCLUSIVE, two scans
          VALIDATE CONSTRAINT                     SHARE UPDATE EXCLUSIVE, full scan
verify    rows compared with what they refer to   ACCESS SHARE
retire    ADD CHECK NOT VALID, where NOT NULL     ACCESS EXCLUSIVE, no scan
          VALIDATE CONSTRAINT                     SHARE UPDATE EXCLUSIVE, full scan
          RENAME COLUMN, functions swapped        ACCESS EXCLUSIVE, no scan
drop      DROP TRIGGER, on the new table          none
          DROP COLUMN                             ACCESS EXCLUSIVE, no scan

Writers of the new table wait for retire (SHARE ROW EXCLUSIVE) and for the drop of its
trigger (ACCESS EXCLUSIVE). While both releases run, two tables are written and follow
each other; `check` tells which requests may deadlock by that, and asks for a word.

Source: PostgreSQL manual, INSERT, ON CONFLICT Clause; sections 13.3.2 and 13.3.4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass

from migrator import names
from migrator.errors import Refused
from migrator.facts import Column, Facts
from migrator.kernels import constraints, requirements
from migrator.kernels.mirror_columns.base import require_last_trigger
from migrator.kernels.mirror_table import Extract
from migrator.names import TableName
from migrator.pattern import Pattern
from migrator.plan import Footprint, Notice, Reach, Steps


@dataclass(frozen=True, slots=True)
class ExtractTable(Pattern):
    """
    Make each distinct combination of columns of `table` a row of a new table.

    Example:
        change = ExtractTable(
            "orders",
            "customers",
            {"customer_name": "name", "customer_email": "email"},
            reference="customer_id",
        )

    Args:
        table: the table's name, without its schema.
        into: the new table's name; it comes into the same schema.
        move: the columns that go; a mapping gives them other names there.
        reference: the new column that refers to the new table.
        key: the new table's primary key, a bigint and an identity.
        index: the name of the index on `reference`, where it is not to be the table's
            and the column's with "_idx".
        schema: the table's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    table: str
    into: str
    move: Mapping[str, str] | Sequence[str]
    _: KW_ONLY
    reference: str
    key: str = "id"
    index: str | None = None
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return f'extract table "{self.into}" from table "{self.table}"'

    def columns(self) -> frozenset[str]:
        """Return the columns that go, and the one that comes."""
        return frozenset({*self.move, self.reference})

    def beside(self) -> tuple[Reach, ...]:
        """Return the new table."""
        return (Reach(table=self.into, schema=self.schema),)

    def footprints(self, facts: Facts) -> tuple[Footprint, ...]:
        """Return the columns, and the new table."""
        into = TableName(facts.table.name.schema, self.into)
        made = Footprint(table=into, columns=None, made=True)
        return (*Pattern.footprints(self, facts), made)

    def makes(self, table: TableName, tag: str) -> tuple[TableName, ...]:
        """Return the new table."""
        return (TableName(table.schema, self.into),)

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse columns whose move would break what hangs on them."""
        constraints.require_lists(self.title, {"move": list(self.move)})
        self._check_table(facts)
        extract = self._extract(facts)
        self._check_names(facts, extract)
        for column in self.move:
            self._check_column(facts, facts.table.require(column))
        require_last_trigger(facts)
        moved = extract.moved().values()
        return self.assure(
            (
                *self._hazards(facts),
                *self._smaller(facts),
                *(n for c in moved for n in requirements.goes_along(facts, c)),
                *requirements.mention_notices(facts, *self.move),
                *requirements.backfill_notices(facts, self.reference),
            )
        )

    def _check_table(self, facts: Facts) -> None:
        requirements.require_table(facts)
        requirements.require_all_rows_visible(facts)
        table = facts.table
        if table.kind == "p":
            raise Refused(
                f"Table {table.name} is partitioned: its foreign key could not be added"
                " without a scan on each server that is supported.",
                next="make the change with plain SQL, in a maintenance window.",
            )
        if table.policies:
            raise Refused(
                f"Table {table.name} has row-level security: its policies would not"
                " hold for the new table.",
                next="make the change with plain SQL, in a maintenance window.",
            )

    def _check_names(self, facts: Facts, extract: Extract) -> None:
        to = [self.key, *extract.columns.values()]
        twice = sorted({name for name in to if to.count(name) > 1})
        if twice:
            raise Refused(
                f'{self.title}: "{twice[0]}" is the name of two of its columns.',
                next="give one of them another name, by `move` or `key`.",
            )
        for name in (*to, self.reference):
            names.checked(name, "column")
        requirements.require_free_column(facts, self.reference)
        constraints.require_free_name(facts, extract.foreign_key)
        constraints.require_free_index(facts, extract.index)
        for other in sorted(facts.relation_names - {extract.parked.name}):
            if other.startswith("_migrator_parked_") and other.endswith(facts.tag):
                raise Refused(
                    f'{self.title}: a rollback parked the table as "{other}", made of'
                    " other columns.",
                    next="drop that one, or put `move` and `key` back as they were.",
                )
        back = extract.parked.name in facts.relation_names
        for name in (self.into, *(() if back else extract.keys)):
            names.checked(name, "table")
            if name in facts.relation_names:
                raise Refused(
                    f'Schema "{facts.table.name.schema}" has a relation "{name}"'
                    " already.",
                    next="choose another name, or drop it first.",
                )

    def _check_column(self, facts: Facts, column: Column) -> None:
        requirements.require_plain(facts, column)
        requirements.require_droppable(facts, column)
        where = f'Column "{column.name}" of table {facts.table.name}'
        if requirements.COLUMN_GRANTS in column.dependents:
            raise Refused(
                f"{where} has grants of its own.",
                next="grant the table instead; the new table takes its grants.",
            )
        if not column.image_equal:
            raise Refused(
                f"{where} is of a type with values that are equal and look different:"
                " rows that share one would lose their own look.",
                next="extract a column made of it, e.g. its text, by TransformColumn.",
            )
        for c in facts.table.constraints:
            if column.name in c.columns and c.kind != "n":
                raise Refused(
                    f'{where} is in constraint "{c.name}", which cannot go along.',
                    next="drop it by a change of its own first, and add it to the new"
                    " table afterwards.",
                )
        if column.unique_indexes:
            raise Refused(
                f'{where} is in unique index "{column.unique_indexes[0]}": rows would'
                " not share what they refer to.",
                next="take the columns out by SplitTable; or drop the index first.",
            )

    def _hazards(self, facts: Facts) -> tuple[Notice, ...]:
        """Return what nobody can know but who knows the application."""
        table = facts.table.name
        listed = ", ".join(self._mapping().values())
        found = (
            f"Each combination of ({listed}) is one row of table {self.into}, kept so"
            " by a unique constraint: the new release has to get or create it (INSERT"
            " … ON CONFLICT … DO NOTHING, then SELECT), and an UPDATE that makes two"
            " rows alike is refused.",
            f"Until the drop, an UPDATE of a row of table {self.into} updates and locks"
            f" all rows of table {table} that refer to it, in the order of their key;"
            " it waits for requests that wrote one of them, and they for it.",
            "These may deadlock because of it (40P01 for one of the two, to be tried"
            " again): it and a request that updates several of these rows in another"
            " order; it and a request that updated one of them and then writes the"
            " combination that is changed, before or after.",
            "Until retire, the old release's requests create rows of table"
            f" {self.into}: two that write the same new combinations in different"
            " order, within one transaction, may deadlock.",
        )
        return tuple(Notice(text=text, needs_assurance=True) for text in found)

    def _smaller(self, facts: Facts) -> tuple[Notice, ...]:
        moved = [facts.table.require(c) for c in self.move]
        strict = [c.name for c in moved if c.not_null]
        given = [c.name for c in moved if c.default is not None]
        found = [
            "Rows that nothing refers to any more stay; so do those of an INSERT that"
            " ON CONFLICT passed over.",
            "A combination that is too long for an index, about 2700 bytes, is stored"
            " with no reference, and holds the change at its verification.",
            "Rolling back parks the new table with its rows; it is dropped after the"
            " hold.",
        ]
        if strict:
            found.append(
                f'Since column "{strict[0]}" is NOT NULL, each row has to refer to one'
                " of the new table: before retire by that column, from retire on by"
                " NOT NULL of its own."
            )
        if given:
            found.append(
                f'Column "{given[0]}" has a default: before retire, a row that the new'
                " release inserts without a reference gets one by it."
            )
        return tuple(Notice(text=text) for text in found)

    def expand(self, facts: Facts) -> Steps:
        """Return the new table, and the column that refers to it."""
        return self._extract(facts).expand()

    def backfill(self, facts: Facts) -> Steps:
        """Return the references of the rows that are there."""
        return self._extract(facts).backfill()

    def verify(self, facts: Facts) -> Steps:
        """Return the comparison of columns and references."""
        return self._extract(facts).verify()

    def retire(self, facts: Facts) -> Steps:
        """Return the renames of the columns, out of the old release's sight."""
        return self._extract(facts).retire()

    def drop(self, facts: Facts) -> Steps:
        """Return the drop of the columns, and of what kept them in step."""
        return self._extract(facts).drop()

    def rebuild(self, facts: Facts) -> Steps:
        """Return the columns, filled from the new table."""
        return self._extract(facts).rebuild()

    def _mapping(self) -> Mapping[str, str]:
        if isinstance(self.move, Mapping):
            return self.move
        return {name: name for name in self.move}

    def _extract(self, facts: Facts) -> Extract:
        return Extract(
            facts=facts,
            into=TableName(facts.table.name.schema, self.into),
            columns=self._mapping(),
            key=self.key,
            reference=self.reference,
            given_index=self.index,
        )
