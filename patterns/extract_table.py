"""Make rows of a new table of values that repeat, and refer to them.

phase     statement                               lock on the table
expand    CREATE TABLE, ADD COLUMN, FOREIGN KEY   ACCESS EXCLUSIVE, no scan
            NOT VALID, dual-write triggers
          N:M: SET DEFAULT '{}', where NOT NULL   ACCESS EXCLUSIVE, no scan
          N:M: CREATE TABLE twice, triggers       SHARE ROW EXCLUSIVE, no scan
backfill  UPDATE in chunks                        ROW EXCLUSIVE, per chunk
          N:M: INSERT in chunks, FOR NO KEY       ROW SHARE, per chunk
            UPDATE
          N:M: ADD FOREIGN KEY, on the new ones   SHARE ROW EXCLUSIVE, no scan
          CREATE INDEX CONCURRENTLY, reference    SHARE UPDATE EXCLUSIVE, two scans
          VALIDATE CONSTRAINT                     SHARE UPDATE EXCLUSIVE, full scan
verify    rows compared with what they refer to   ACCESS SHARE
retire    ADD CHECK NOT VALID, where NOT NULL     ACCESS EXCLUSIVE, no scan
          VALIDATE CONSTRAINT                     SHARE UPDATE EXCLUSIVE, full scan
          N:M: ADD FOREIGN KEY … NOT VALID        SHARE ROW EXCLUSIVE, no scan
          N:M: VALIDATE CONSTRAINT                ROW SHARE
          RENAME COLUMN, functions swapped        ACCESS EXCLUSIVE, no scan
drop      DROP TRIGGER, on the new tables         none
          DROP COLUMN                             ACCESS EXCLUSIVE, no scan

Writers of the new table wait for retire (SHARE ROW EXCLUSIVE; of an N:M, ACCESS
EXCLUSIVE on both) and for the drop of its trigger (ACCESS EXCLUSIVE). While both
releases run, all tables are written and follow each other; `check` tells which requests
may deadlock by that, and asks for a word.

Source: PostgreSQL manual, INSERT, ON CONFLICT Clause; sections 13.3.2 and 13.3.4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace

from migrator.errors import Refused
from migrator.facts import Facts
from migrator.kernels import (
    along,
    constraints,
    dropping,
    mentions,
    trigger_arguments,
)
from migrator.kernels.mirror_table import Extract, ExtractMany, extractable, linkable
from migrator.names import TableName
from migrator.pattern import Pattern
from migrator.plan import Footprint, Notice, Probe, Reach, Steps


@dataclass(frozen=True, slots=True)
class ExtractTable(Pattern):
    """
    Make each distinct combination of columns of `table` a row of a new table.

    Or each distinct element of an array, linked by a third table (N:M):
    `ExtractTable("posts", "tags", {"tags": "name"}, through="post_tags")`.

    Example:
        change = ExtractTable(
            "orders",
            "customers",
            {"customer_name": "name", "customer_email": "email"},
            reference="customer_id",
            assured="gets or creates customers, retries 40P01",
        )

    Args:
        table: the table's name, without its schema.
        into: the new table's name; it comes into the same schema.
        move: the columns that go; a mapping gives them other names there.
        reference: the new column that refers to the new table: of `table`, or of
            `through`, where it is by default named after the new table and its key, as
            "tag_id".
        through: the table that links `table` to the new one: then the one column that
            goes is an array.
        back_reference: the columns of `through` that refer to the primary key of
            `table`; by default named after both, as "post_id".
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
    reference: str | None = None
    through: str | None = None
    back_reference: str | Sequence[str] | None = None
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
        comes = () if self.through or not self.reference else (self.reference,)
        return frozenset({*self.move, *comes})

    def beside(self) -> tuple[Reach, ...]:
        """Return the new tables."""
        made = (self.into, self.through) if self.through else (self.into,)
        return tuple(Reach(table=name, schema=self.schema) for name in made)

    def footprints(self, facts: Facts) -> tuple[Footprint, ...]:
        """Return the columns, and the new tables; of an N:M, the key as well."""
        table, columns = facts.table.name, self.columns()
        if self.through:
            columns |= {*linkable.primary_key(facts.table)}
        return (
            Footprint(table=table, columns=columns),
            *(
                Footprint(table=made, columns=None, made=True)
                for made in self.makes(table, facts.tag)
            ),
        )

    def makes(self, table: TableName, tag: str) -> tuple[TableName, ...]:
        """Return the new tables."""
        made = (self.into, *([self.through] if self.through else []))
        return tuple(TableName(table.schema, name) for name in made)

    def readings(self, facts: Facts) -> Mapping[str, Probe]:
        """Return the question which functions read columns that go."""
        comes = not self.through
        return mentions.functions_that_read(facts.known_as, self.move, comes=comes)

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse columns whose move would break what hangs on them."""
        constraints.require_lists(self.title, {"move": list(self.move)})
        extract = self._extract(facts)
        if isinstance(extract, ExtractMany):
            return self.assure(linkable.check(self.title, extract))
        return self.assure(extractable.check(self.title, extract))

    def expand(self, facts: Facts) -> Steps:
        """Return the new table, and the column that refers to it."""
        extract = self._extract(facts)
        if not isinstance(extract, Extract):
            return extract.expand()
        return trigger_arguments.all_held_back(
            extract.expand(), facts.table.name, extract.reference
        )

    def backfill(self, facts: Facts) -> Steps:
        """Return the references of the rows that are there."""
        return self._extract(facts).backfill()

    def verify(self, facts: Facts) -> Steps:
        """Return the comparison of columns and references."""
        return self._extract(facts).verify()

    def retire(self, facts: Facts) -> Steps:
        """Return the renames of the columns, out of the old release's sight."""
        dropping.require_unread(facts, *self._mapping())
        comes = [self.reference] if self.reference and not self.through else []
        steps = self._extract(facts).retire()
        steps = along.kept(steps, facts, *self.move, without=comes)
        return trigger_arguments.held(
            steps, facts.table.name, *self.move, assured=self.assured
        )

    def drop(self, facts: Facts) -> Steps:
        """Return the drop of the columns, and of what kept them in step."""
        dropping.require_unread(facts, *self._mapping())
        steps = self._extract(facts).drop()
        table = facts.table.name
        return trigger_arguments.held(
            steps, table, *self.move, late=True, assured=self.assured
        )

    def rebuild(self, facts: Facts) -> Steps:
        """Return the columns, filled from the new table."""
        return self._extract(facts).rebuild()

    def _mapping(self) -> Mapping[str, str]:
        if isinstance(self.move, Mapping):
            return self.move
        return {name: name for name in self.move}

    def _extract(self, facts: Facts) -> Extract | ExtractMany:
        into = TableName(facts.table.name.schema, self.into)
        columns = self._mapping()
        if self.through:
            return ExtractMany(
                facts=facts,
                into=into,
                columns=columns,
                key=self.key,
                through=replace(into, name=self.through),
                referring=linkable.referring(facts.table, self.back_reference),
                reference=self.reference or linkable.named_after(into, self.key),
                given_index=self.index,
            )
        if self.reference is None:
            raise Refused(
                f"{self.title}: it is not said what refers to the new table.",
                next='write reference="column", or, of an array, through="table".',
            )
        return Extract(
            facts=facts,
            into=into,
            columns=columns,
            key=self.key,
            reference=self.reference,
            given_index=self.index,
        )
