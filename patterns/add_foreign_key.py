"""Add a foreign key without a scan under a lock that stops writers.

phase   statement                        lock on the table     on the referenced one
expand  CREATE INDEX CONCURRENTLY,       SHARE UPDATE          none
          where the columns have none    EXCLUSIVE, two scans
verify  count of rows without a parent   ACCESS SHARE          ACCESS SHARE
retire  ADD CONSTRAINT … NOT VALID       SHARE ROW             SHARE ROW EXCLUSIVE
                                         EXCLUSIVE, no scan
        VALIDATE CONSTRAINT              SHARE UPDATE          ROW SHARE
                                         EXCLUSIVE, full scan

Going back drops the constraint (ACCESS EXCLUSIVE on both, no scan).

Source: PostgreSQL manual, ALTER TABLE, Notes.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Facts, Table
from migrator.final import Final, Key
from migrator.kernels import constraints, indexes, requirements
from migrator.kernels.foreign_key import ForeignKey
from migrator.kernels.rows import comparisons
from migrator.pattern import Pattern
from migrator.plan import Footprint, Lock, Notice, Probe, Reach, State, Step, Steps


@dataclass(frozen=True, slots=True)
class AddForeignKey(Pattern):
    """
    Let columns of `table` refer to a key of another table, or of its own.

    Example:
        change = AddForeignKey("orders", ["user_id"], "users", ["id"], "orders_user")

    Args:
        table: the table's name, without its schema.
        on: its columns, in the key's order.
        references: the referenced table's name, without its schema.
        referenced_columns: the key's columns.
        name: the constraint's name.
        on_delete: "NO ACTION", "RESTRICT", "CASCADE", "SET NULL" or "SET DEFAULT"; of
            some of the columns "SET NULL (a)".
        on_update: the same.
        match: "SIMPLE" or "FULL".
        deferrable: "immediate" or "deferred", which is what it is initially.
        index: whether the columns get an index where they have none; its name, where
            it is not to be the constraint's with "_idx".
        schema: the table's schema; None means the connection's search path.
        referenced_schema: the same of the referenced table.
        assured: why hazards that need a person's word are none here.
    """

    table: str
    on: Sequence[str]
    references: str
    referenced_columns: Sequence[str]
    name: str
    _: KW_ONLY
    on_delete: str | None = None
    on_update: str | None = None
    match: str | None = None
    deferrable: str | None = None
    index: bool | str = True
    schema: str | None = None
    referenced_schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return f'add foreign key "{self.name}" to table "{self.table}"'

    @property
    def admission(self) -> State:
        """From expanded: it says nothing to the new release before retire."""
        return State.EXPANDED

    def columns(self) -> frozenset[str]:
        """Return the referring columns."""
        return frozenset(self.on)

    def beside(self) -> tuple[Reach, ...]:
        """Return the key that is referred to."""
        key = frozenset(self.referenced_columns)
        return (
            Reach(
                table=self.references,
                schema=self.referenced_schema,
                columns=key,
                needed=True,
            ),
        )

    def footprints(self, facts: Facts) -> tuple[Footprint, ...]:
        """Return the columns on both ends."""
        key = Footprint(
            table=facts.others[0].name,
            columns=frozenset(self.referenced_columns),
            needed=True,
        )
        return (*Pattern.footprints(self, facts), key)

    def others(self, known: tuple[Table, ...]) -> tuple[tuple[str, str | None], ...]:
        """Return the referenced table."""
        return ((self.references, self.referenced_schema),)

    def final(self) -> Final:
        """Return the constraint."""
        key = Key(name=self.name, kind="f", columns=tuple(self.on))
        return Final(
            keys=(key,),
            besides=() if self.index is False else (self._index,),
            untold="what it refers to, and its actions",
        )

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse a key that is none, and what PostgreSQL could only scan for."""
        key = self.key(facts)
        key.require()
        notices = (
            Notice(
                text="Nothing is enforced before retire: rows without a parent that"
                " either release writes hold the change at verify."
            ),
            *key.type_notices(),
            *requirements.partition_notices(facts),
        )
        key.require_not_valid()
        builds = constraints.lookup(facts, tuple(self.on), self._index)
        if self.index is False and builds:
            slow = "The columns have no index: each DELETE of a referenced row, and"
            slow += " each UPDATE of its key, will read the whole table."
            return self.assure((*notices, Notice(text=slow)))
        if builds and facts.table.kind == "p":
            raise Refused(
                f"Table {facts.table.name} is partitioned and has no index on the"
                " foreign key's columns: it takes a change of its own.",
                next="build it first, by CreateIndex, or write index=False.",
            )
        if builds:
            constraints.require_free_index(facts, self._index)
        return self.assure(notices)

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return a trial of the foreign key."""
        return (self.key(facts).trial(),)

    def expand(self, facts: Facts) -> Steps:
        """Return the index on the referring columns, where there is none."""
        if self.index is False:
            return ()
        return constraints.lookup(facts, tuple(self.on), self._index)

    def verify(self, facts: Facts) -> Steps:
        """Return the count of rows that refer to nothing."""
        return comparisons(
            facts,
            "count_orphans",
            self.key(facts).orphans(),
            shown=tuple(self.on),
            no_reverse="nothing is changed",
            wrong=f"a reference to no row of {facts.others[0].name}",
        )

    def retire(self, facts: Facts) -> Steps:
        """
        Return the constraint, then its proof.

        Raises:
            Refused: another constraint got its name since.
        """
        constraints.require_none_since(facts, self.name)
        table, parent = facts.table.name, facts.others[0].name
        return (
            Step(
                name="add_constraint",
                work=constraints.add(
                    table,
                    self.name,
                    self.key(facts).definition() + sql.SQL(" NOT VALID"),
                    lock=Lock.SHARE_ROW_EXCLUSIVE,
                    also=parent,
                ),
                reverse=(constraints.drop(table, self.name, also=parent),),
            ),
            constraints.validate(table, self.name, also=parent),
        )

    def rebuild(self, facts: Facts) -> Steps:
        """Return the drop of the constraint, and of the index that came with it."""
        table = facts.table.name
        why = "upgrade again"
        gone = constraints.drop(table, self.name, also=facts.others[0].name)
        steps = (Step(name="drop_constraint", work=gone, no_reverse=why),)
        if self.index is False or facts.table.index(self._index) is None:
            return steps
        index = indexes.drop_index(table.schema, self._index, table)
        return (*steps, Step(name="drop_index", work=index, no_reverse=why))

    @property
    def _index(self) -> str:
        if isinstance(self.index, str):
            return self.index
        return names.fitted(self.name, "_idx")

    def key(self, facts: Facts) -> ForeignKey:
        """Return the key as SQL has it."""
        given = {"on": self.on, "referenced_columns": self.referenced_columns}
        constraints.require_lists(self.title, given)
        return ForeignKey(
            title=self.title,
            name=self.name,
            facts=facts,
            parent=facts.others[0],
            columns=tuple(self.on),
            referenced=tuple(self.referenced_columns),
            match=self.match,
            on_delete=self.on_delete,
            on_update=self.on_update,
            deferrable=self.deferrable,
        )
