"""Give a foreign key another definition under the name that it has.

phase   statement                      lock on the table     on the referenced one
verify  count of rows without a parent ACCESS SHARE          ACCESS SHARE
retire  ADD CONSTRAINT … NOT VALID     SHARE ROW             SHARE ROW EXCLUSIVE
                                       EXCLUSIVE, no scan
        VALIDATE CONSTRAINT            SHARE UPDATE          ROW SHARE
                                       EXCLUSIVE, full scan
        DROP and RENAME CONSTRAINT     ACCESS EXCLUSIVE,     ACCESS EXCLUSIVE
                                       no scan

The new one is added and proved under a name of the change, beside the old one, so that
rows are never without a foreign key. Going back adds the old one NOT VALID and proves
it before the new one goes.

Source: PostgreSQL manual, ALTER TABLE, Notes.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace

from migrator import names
from migrator.errors import Refused
from migrator.facts import Facts, Table
from migrator.final import Final, Key
from migrator.kernels import constraints, direct, requirements
from migrator.kernels.foreign_key import ForeignKey
from migrator.pattern import Pattern
from migrator.patterns.add_foreign_key import AddForeignKey
from migrator.patterns.drop_constraint import DropConstraint
from migrator.plan import (
    Autocommit,
    Footprint,
    Notice,
    Probe,
    Reach,
    State,
    Step,
    Steps,
    render,
)


@dataclass(frozen=True, slots=True)
class ReplaceForeignKey(Pattern):
    """
    Give the foreign key `name` of `table` another definition.

    Example:
        change = ReplaceForeignKey(
            "orders", ["user_id"], "users", ["id"], "orders_user", on_delete="CASCADE"
        )

    Args:
        table: the table's name, without its schema.
        on: its columns, in the key's order.
        references: the referenced table's name, without its schema.
        referenced_columns: the key's columns.
        name: the constraint's name, before and after.
        on_delete: "NO ACTION", "RESTRICT", "CASCADE", "SET NULL" or "SET DEFAULT".
        on_update: the same.
        match: "SIMPLE" or "FULL".
        deferrable: "immediate" or "deferred", which is what it is initially.
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
    schema: str | None = None
    referenced_schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return f'replace foreign key "{self.name}" of table "{self.table}"'

    @property
    def admission(self) -> State:
        """From expanded, as long as it keeps to the old one until retire."""
        return State.EXPANDED

    def columns(self) -> frozenset[str] | None:
        """Return None: which columns the old one is on is the server's to say."""
        return None

    def beside(self) -> tuple[Reach, ...]:
        """Return the key that is referred to."""
        return self._new(self.name).beside()

    def footprints(self, facts: Facts) -> tuple[Footprint, ...]:
        """Return the table, and the key that is referred to."""
        key = Footprint(
            table=facts.others[0].name,
            columns=frozenset(self.referenced_columns),
            needed=True,
        )
        return (*Pattern.footprints(self, facts), key)

    def others(self, known: tuple[Table, ...]) -> tuple[tuple[str, str | None], ...]:
        """Return the referenced table."""
        return self._new(self.name).others(known)

    def final(self) -> Final:
        """Return the constraint."""
        key = Key(name=self.name, kind="f", columns=tuple(self.on))
        return Final(keys=(key,), untold="what it refers to, and its actions")

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse what is no foreign key, and what PostgreSQL could only scan for."""
        requirements.require_table(facts)
        found = constraints.require(facts, self.name)
        if found.kind != "f":
            raise Refused(
                f'Constraint "{self.name}" of table {facts.table.name} is no foreign'
                " key.",
                next="name a foreign key.",
            )
        for end in (facts.table, facts.others[0]):
            if end.kind == "p":
                raise Refused(
                    f"Table {end.name} is partitioned: a foreign key that takes another"
                    " one's name leaves its own to those of the partitions.",
                    next="drop the old one by DropConstraint, and add the new one under"
                    " another name by AddForeignKey.",
                )
        key = self._key(facts)
        key.require()
        return self.assure(
            (
                Notice(
                    text="Until retire the old foreign key holds, also its actions, for"
                    " both releases; rows of either that the new one would refuse hold"
                    " the change at verify. Going back counts the rows that violate the"
                    " old one, and is refused while there are any."
                ),
                *key.type_notices(),
                *requirements.partition_notices(facts),
            )
        )

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return a trial of the foreign key."""
        return (self._key(facts).trial(),)

    def expand(self, facts: Facts) -> Steps:
        """Return nothing: the old release keeps to the old one alone."""
        return ()

    def verify(self, facts: Facts) -> Steps:
        """Return the count of rows that refer to nothing."""
        return self._made(facts).verify(facts)

    def retire(self, facts: Facts) -> Steps:
        """Return the new foreign key, its proof, and the exchange."""
        table, made = facts.table.name, self._made(facts)
        old = constraints.require(facts, self.name)
        again = DropConstraint(self.table, self.name, schema=self.schema).again(
            facts, old
        )
        # Orphans are counted before anything of the way back runs.
        counted = 1 if old.validated else 0
        count = (
            replace(action, done=constraints.is_there(table, made.name))
            for action in again[:counted]
        )
        named = render(constraints.renamed(table, made.name, self.name))
        rest = tuple(
            replace(action, withdraw=(*action.withdraw, named))
            if isinstance(action, Autocommit)
            else action
            for action in again[counted:]
        )
        # Both hold from here on, until the first step's way back drops the new one.
        away = replace(
            direct.catalogue_step(
                table, constraints.renamed(table, self.name, made.name)
            ),
            done=constraints.is_there(table, made.name),
        )
        exchange = constraints.exchanged(
            table,
            old,
            made.name,
            done=f"SELECT NOT ({constraints.is_there(table, made.name)})",
            also=old.references,
        )
        return (
            *made.retire(facts),
            Step(
                name="exchange_constraints",
                work=exchange,
                reverse=(*count, away, *rest),
            ),
        )

    def _key(self, facts: Facts) -> ForeignKey:
        """Return the new key, as what is said of it names this change."""
        constraints.require_lists(
            self.title, {"on": self.on, "referenced_columns": self.referenced_columns}
        )
        return replace(self._made(facts).key(facts), title=self.title)

    def _made(self, facts: Facts) -> AddForeignKey:
        """Return the new key under the name that it has until the exchange."""
        return self._new(names.owned("key", self.name, facts.tag))

    def _new(self, name: str) -> AddForeignKey:
        return AddForeignKey(
            self.table,
            self.on,
            self.references,
            self.referenced_columns,
            name,
            on_delete=self.on_delete,
            on_update=self.on_update,
            match=self.match,
            deferrable=self.deferrable,
            index=False,
            schema=self.schema,
            referenced_schema=self.referenced_schema,
        )
