"""Take columns of a table out into a table of their own.

phase     statement                               lock on the table
expand    DROP NOT NULL of columns that go        ACCESS EXCLUSIVE, no scan
          CREATE TABLE, dual-write triggers       SHARE ROW EXCLUSIVE, no scan
          CREATE VIEW under the new name          ACCESS SHARE
backfill  INSERT … SELECT … FOR KEY SHARE         ROW SHARE, per chunk
          CREATE INDEX CONCURRENTLY, new table    none
verify    both tables compared                    ACCESS SHARE
retire    ADD FOREIGN KEY … NOT VALID, new table  SHARE ROW EXCLUSIVE, no scan
          VALIDATE CONSTRAINT, new table          ROW SHARE
          RENAME COLUMN, functions swapped        ACCESS EXCLUSIVE, no scan
drop      DROP VIEW, RENAME TABLE, DROP COLUMN    ACCESS EXCLUSIVE, no scan

Until the drop the columns are written in one place, where they always were: the new
release sees them through a view under the new table's name. Two tables that are both
written, each mirrored in the other, would let requests of the two releases deadlock.
The drop exchanges the view for a table that has followed all the while.

Source: PostgreSQL manual, CREATE VIEW, Updatable Views; section 41.4 (INSTEAD OF).
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import ClassVar

from migrator import names
from migrator.errors import Refused
from migrator.facts import Column, Facts
from migrator.kernels import (
    along,
    constraints,
    dropping,
    mentions,
    requirements,
    row_types,
    trigger_arguments,
)
from migrator.kernels.column_definition import constant_default
from migrator.kernels.mirror_table import Split, shadow_of
from migrator.names import TableName
from migrator.pattern import Pattern
from migrator.plan import Footprint, Notice, Probe, Reach, State, Steps


@dataclass(frozen=True, slots=True)
class SplitTable(Pattern):
    """
    Take the columns `move` of `table` out into a new table.

    Example:
        change = SplitTable(
            "users",
            "profiles",
            ["bio", "avatar"],
            key=["id"],
            assured="no upsert into profiles",
        )

    Args:
        table: the table's name, without its schema.
        into: the new table's name; it comes into the same schema.
        move: the columns that go; a mapping gives them other names.
        key: the columns that name a row, and stay: the new table's primary key, which
            refers to them; a mapping gives them other names there.
        indexes: new names of indexes that go along, old to new.
        schema: the table's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    compares_before_drop: ClassVar[bool] = True

    table: str
    into: str
    move: Mapping[str, str] | Sequence[str]
    _: KW_ONLY
    key: Mapping[str, str] | Sequence[str]
    indexes: Mapping[str, str] = field(default_factory=dict[str, str])
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return f'split table "{self.into}" off table "{self.table}"'

    @property
    def admission(self) -> State:
        """From expanded: what the new release reads is what the old one wrote."""
        return State.EXPANDED

    def columns(self) -> frozenset[str]:
        """Return the columns that go, and the key."""
        return frozenset({*self.move, *self.key})

    def beside(self) -> tuple[Reach, ...]:
        """Return the new table."""
        return (Reach(table=self.into, schema=self.schema),)

    def footprints(self, facts: Facts) -> tuple[Footprint, ...]:
        """Return the columns, and the new table."""
        into = TableName(facts.table.name.schema, self.into)
        made = Footprint(table=into, columns=None, made=True)
        return (*Pattern.footprints(self, facts), made)

    def makes(self, table: TableName, tag: str) -> tuple[TableName, ...]:
        """Return the new table, and its shadow before."""
        into = TableName(table.schema, self.into)
        return (into, shadow_of(into, tag))

    def readings(self, facts: Facts) -> Mapping[str, Probe]:
        """Return the question which functions read columns that go."""
        return mentions.functions_that_read(facts.known_as, self.move)

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse columns whose move would break what hangs on them."""
        constraints.require_lists(
            self.title, {"move": list(self.move), "key": list(self.key)}
        )
        requirements.require_table(facts)
        requirements.require_mirrored(facts)
        requirements.require_logged(facts)
        primary = names.fitted(self.into, "_pkey")
        for name in (self.into, primary, *self.indexes.values()):
            names.checked(name, "table")
            if name in facts.relation_names:
                raise Refused(
                    f'Schema "{facts.table.name.schema}" has a relation "{name}"'
                    " already.",
                    next="choose another name, or drop it first.",
                )
        self._check_key(facts)
        for column in self.move:
            self._check_column(facts, facts.table.require(column))
        along = self._split(facts).carried()
        if any(i.unique for i in along):
            requirements.require_mirror_first(facts, self.title)
        carried = [i.name for i in along]
        for name in self.indexes:
            if name not in carried:
                known = ", ".join(carried) or "none"
                raise Refused(
                    f'{self.title}: index "{name}" does not go along.',
                    next=f"correct `indexes`; there go {known}.",
                )
        lost = [
            i.name
            for i in facts.table.indexes
            if not frozenset(self.move).isdisjoint(i.columns) and i.name not in carried
        ]
        return self.assure(
            (
                Notice(
                    text="Until the drop the new table is a view: INSERT … ON CONFLICT,"
                    " MERGE … UPDATE and COPY … TO of the new release fail on it, and"
                    " no foreign key can refer to it.",
                    needs_assurance=True,
                ),
                Notice(
                    text="TRUNCATE of the new table fails until the drop, since it is a"
                    f' view. TRUNCATE of "{self.table}" empties both up to retire; from'
                    " then on a foreign key refers to it, so that it needs CASCADE,"
                    " which until the drop its owner alone may say. DELETE does the"
                    " same throughout.",
                    needs_assurance=True,
                ),
                *(
                    Notice(text=f'Index "{name}" goes with the columns at the drop.')
                    for name in lost
                ),
                *self._grant_notices(facts),
                *requirements.publication_notices(
                    facts, *self.makes(facts.table.name, facts.tag)
                ),
                *row_types.goes(facts),
                *mentions.trigger_notices(facts, *self.move),
                *mentions.function_notices(facts, self.move),
            )
        )

    def _grant_notices(self, facts: Facts) -> tuple[Notice, ...]:
        columns = (facts.table.require(c) for c in (*self.key, *self.move))
        if not any(c.grants for c in columns):
            return ()
        return (
            Notice(
                text="Privileges on columns go along. Until the drop the new table is a"
                " view that asks for the right to read all its columns: a role that has"
                " it on some of them alone reads nothing through it.",
                needs_assurance=True,
            ),
        )

    def _check_key(self, facts: Facts) -> None:
        found = [facts.table.require(c) for c in self.key]
        if not any(
            i.unique and i.valid and i.plain and set(i.columns) == set(self.key)
            for i in facts.table.indexes
        ) or not all(c.not_null for c in found):
            raise Refused(
                f"{self.title}: the key ({', '.join(self.key)}) is no unique key of"
                " NOT NULL columns.",
                next="name the primary key.",
            )
        both = sorted({*self.move} & {*self.key})
        if both:
            raise Refused(
                f'{self.title}: column "{both[0]}" both goes and stays.',
                next="leave it out of `move`.",
            )

    def _check_column(self, facts: Facts, column: Column) -> None:
        requirements.require_plain(facts, column)
        dropping.require_droppable(facts, column)
        dropping.require_no_identity(facts, column)
        where = f'Column "{column.name}" of table {facts.table.name}'
        for c in facts.table.constraints:
            if column.name not in c.columns or c.kind == "n":
                continue
            renamed = any(_mapping(self.move).get(n, "") != n for n in c.columns)
            if c.kind not in ("c", "f") or renamed or not c.validated:
                raise Refused(
                    f'{where} is in constraint "{c.name}", which cannot go along.',
                    next="drop it by a change of its own first, and add it to the new"
                    " table afterwards."
                    if c.validated
                    else "validate it first.",
                )

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return the trials that defaults are the same in each row."""
        found = (facts.table.require(c) for c in self.move)
        return tuple(
            constant_default(facts.table, c) for c in found if c.default is not None
        )

    def expand(self, facts: Facts) -> Steps:
        """Return the view, and the table behind it that follows."""
        return self._split(facts).expand()

    def backfill(self, facts: Facts) -> Steps:
        """Return the copy of the rows."""
        return self._split(facts).backfill()

    def verify(self, facts: Facts) -> Steps:
        """Return the comparison of both tables."""
        return self._split(facts).verify()

    def retire(self, facts: Facts) -> Steps:
        """Return the renames of the columns, out of the old release's sight."""
        view = TableName(facts.table.name.schema, self.into)
        dropping.require_unread(facts, *_mapping(self.move), view=view)
        steps = along.kept(self._split(facts).retire(), facts, *self.move)
        return trigger_arguments.held(
            steps, facts.table.name, *self.move, assured=self.assured
        )

    def drop(self, facts: Facts) -> Steps:
        """Return the exchange of the view for the table."""
        view = TableName(facts.table.name.schema, self.into)
        dropping.require_unread(facts, *_mapping(self.move), view=view)
        steps = self._split(facts).drop()
        table = facts.table.name
        return trigger_arguments.held(
            steps, table, *self.move, late=True, assured=self.assured
        )

    def rebuild(self, facts: Facts) -> Steps:
        """Return the columns, filled from the new table."""
        return self._split(facts).rebuild()

    def _split(self, facts: Facts) -> Split:
        return Split(
            facts=facts,
            into=TableName(facts.table.name.schema, self.into),
            key=_mapping(self.key),
            columns=_mapping(self.move),
            indexes=self.indexes,
        )


def _mapping(given: Mapping[str, str] | Sequence[str]) -> Mapping[str, str]:
    return given if isinstance(given, Mapping) else {name: name for name in given}
