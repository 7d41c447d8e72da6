"""Give an index another definition under the name that it has.

phase     statement                       lock on the table
expand    CREATE INDEX CONCURRENTLY       SHARE UPDATE EXCLUSIVE, two scans
retire    the same for UNIQUE             SHARE UPDATE EXCLUSIVE, two scans
          ALTER INDEX … RENAME TO, twice  none, no scan
drop      DROP INDEX CONCURRENTLY         SHARE UPDATE EXCLUSIVE, no scan

Both are there until the drop, so that no query is without its index. A renaming locks
the indexes alone, by SHARE UPDATE EXCLUSIVE, which queries and writes pass. Going back
exchanges the names again; from the drop the old one is built again as it was.

Source: PostgreSQL manual, ALTER INDEX, RENAME; CREATE INDEX, Building Indexes
Concurrently.
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import ClassVar

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Facts
from migrator.kernels import indexes, requirements
from migrator.kernels.index_definition import IndexPattern, Keys
from migrator.plan import Notice, Probe, Step, Steps, Transaction, render


@dataclass(frozen=True, slots=True)
class ReplaceIndex(IndexPattern):
    """
    Give the index `name` of `table` another definition.

    Example:
        change = ReplaceIndex("users", "ix_users_email", ["tenant", "email"])

    Args:
        table: the table's name, without its schema.
        name: the index's name, before and after.
        on: the columns of the new one, in order; a `Key` where one is an expression,
            or has an operator class, a collation or an order.
        unique: whether the new one is unique; then it is built at retire.
        where: its SQL predicate, of a partial index.
        method: its access method.
        include: further columns that it holds.
        nulls_not_distinct: whether NULL is a value like others.
        storage: its storage parameters and their values.
        schema: the table's schema; None means the connection's search path.
        assured: why what relied on the old one being unique does no more.
    """

    reversible: ClassVar[str] = "always, by a build"

    table: str
    name: str
    on: Keys
    _: KW_ONLY
    unique: bool = False
    where: str | None = None
    method: str = "btree"
    include: Sequence[str] = ()
    nulls_not_distinct: bool = False
    storage: Mapping[str, str | int] = field(default_factory=dict[str, str | int])
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return f'replace index "{self.name}" of table "{self.table}"'

    def columns(self) -> frozenset[str] | None:
        """Return the index, and what the new one is on."""
        columns = self.definition.columns()
        return None if columns is None else columns | {self.name}

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse an index on which something rests."""
        requirements.require_table(facts)
        if facts.table.kind == "p":
            raise Refused(
                f"Table {facts.table.name} is partitioned: the parts of its indexes"
                " cannot be exchanged one by one.",
                next="make an index of another name by CreateIndex, then drop this one"
                " by DropIndex.",
            )
        self.definition.check(facts)
        old = indexes.require(facts, self.name)
        indexes.require_unused(facts, old)
        notices: list[Notice] = []
        if self.unique:
            notices.append(_UNIQUE)
        if old.unique and not self.definition.keeps(old):
            notices.append(
                Notice(
                    text=f'Index "{self.name}" is unique, and the new one is not on the'
                    " same columns. Until the drop it holds rows unique; from then on"
                    " they may be equal, and ON CONFLICT on its columns fails.",
                    needs_assurance=True,
                )
            )
        return self.assure(tuple(notices))

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return a trial of the new index on an empty table of that shape."""
        return (self.definition.probe(facts),)

    def expand(self, facts: Facts) -> Steps:
        """Return the build, unless the new index is unique."""
        return () if self.unique else (self._build(facts),)

    def retire(self, facts: Facts) -> Steps:
        """Return the build of a unique index, and the exchange of the names."""
        new, old = self._new(facts), self._old(facts)
        exchange = Step(
            name="exchange_names",
            work=self._renamed(facts, (self.name, old), (new, self.name)),
            reverse=(self._renamed(facts, (self.name, new), (old, self.name)),),
        )
        return (self._build(facts), exchange) if self.unique else (exchange,)

    def drop(self, facts: Facts) -> Steps:
        """Return the drop of the old index."""
        old = facts.table.index(self._old(facts)) or facts.table.index(self.name)
        if old is None:
            return ()
        return (indexes.drop_index_step(facts.table, old, name=self._old(facts)),)

    def _build(self, facts: Facts) -> Step:
        return indexes.build(
            "create_index",
            facts.table,
            self._new(facts),
            self.definition.render(),
            unique=self.unique,
        )

    def _renamed(self, facts: Facts, *pairs: tuple[str, str]) -> Transaction:
        table = facts.table.name
        return Transaction(
            statements=tuple(
                render(
                    sql.SQL("ALTER INDEX {} RENAME TO {}").format(
                        sql.Identifier(table.schema, given), sql.Identifier(wanted)
                    )
                )
                for given, wanted in pairs
            ),
            table=table,
        )

    def _new(self, facts: Facts) -> str:
        return names.owned("index", self.name, facts.tag)

    def _old(self, facts: Facts) -> str:
        return names.owned("retired", self.name, facts.tag)


_UNIQUE = Notice(
    text="The new index is built at retire: before, the old release could violate it."
    " Rows that are equal by then make the build fail, and nothing is changed; ON"
    " CONFLICT finds it from then on."
)
