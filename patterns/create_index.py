"""Build an index without blocking reads or writes.

phase     statement                            lock on the table
expand    CREATE INDEX CONCURRENTLY            SHARE UPDATE EXCLUSIVE, two scans
          partitioned: CREATE INDEX … ON ONLY  SHARE ROW EXCLUSIVE, no scan
          partitioned: ATTACH PARTITION        ACCESS EXCLUSIVE, no scan, on each leaf
retire    all that for UNIQUE                  SHARE UPDATE EXCLUSIVE, two scans
          partitioned: ATTACH PARTITION        ACCESS EXCLUSIVE, no scan, on each leaf

Of a partitioned table the index is built concurrently on each leaf. A unique index is
built at retire, since the old release could violate it. Going back drops an index
concurrently; that of a partitioned table in one transaction that locks all partitions
(ACCESS EXCLUSIVE, no scan), since PostgreSQL knows no other way.

Source: PostgreSQL manual, CREATE INDEX, Building Indexes Concurrently; section
5.12.2.2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace

from migrator import names
from migrator.facts import Facts
from migrator.final import Final, Key
from migrator.kernels import (
    constraints,
    direct,
    indexes,
    partitioned_index,
    requirements,
)
from migrator.kernels.index_definition import IndexPattern, Keys
from migrator.kernels.partitioned_index import Part
from migrator.names import TableName
from migrator.plan import Autocommit, Notice, Probe, Step, Steps


@dataclass(frozen=True, slots=True)
class CreateIndex(IndexPattern):
    """
    Build an index on columns of `table`.

    Example:
        change = CreateIndex("users", ["email"], "ix_users_email")

    Args:
        table: the table's name, without its schema.
        on: the columns, in order; a `Key` where one is an expression, or has an
            operator class, a collation or an order.
        name: the index's name.
        unique: whether it is unique; then it is built at retire.
        where: SQL predicate of a partial index.
        method: the access method.
        include: further columns that it holds.
        nulls_not_distinct: whether NULL is a value like others.
        storage: storage parameters and their values, as {"fillfactor": 70}.
        schema: the table's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    table: str
    on: Keys
    name: str
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
        return f'create index "{self.name}" on table "{self.table}"'

    @property
    def ends_at_expand(self) -> bool:
        """A unique one is built at retire."""
        return not self.unique

    def columns(self) -> frozenset[str] | None:
        """Return what it is on; None where an expression reads a whole row."""
        columns = self.definition.columns(self.table)
        # By its name it is known that has no column alone.
        own = {self.name} if self.definition.texts() else set[str]()
        return None if columns is None else columns | own

    def final(self) -> Final:
        """Return the index; what is more than columns is not compared."""
        columns = tuple(k for k in self.on if isinstance(k, str))
        plain = columns == tuple(self.on) and self.method == "btree"
        more = (self.where, self.include, self.nulls_not_distinct, self.storage)
        key = Key(
            name=self.name,
            kind="i",
            columns=columns if plain else None,
            unique=self.unique,
        )
        whole = plain and not any(more)
        return Final(keys=(key,), untold="" if whole else "its whole definition")

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse a name that is taken and columns that are not there."""
        requirements.require_table(facts)
        names.checked(self.name, "index")
        self.definition.check(facts)
        notices: tuple[Notice, ...] = ()
        if facts.table.kind == "p":
            partitioned_index.require_free(facts, self._parts(facts))
            notices = partitioned_index.notices(facts)
        else:
            constraints.require_free_index(facts, self.name)
        return self.assure((_UNIQUE, *notices) if self.unique else notices)

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return a trial of the same index on an empty table of that shape."""
        more = partitioned_index.probes(
            self.title, self._parts(facts), unique=self.unique
        )
        return (self.definition.probe(facts), *more)

    def expand(self, facts: Facts) -> Steps:
        """Return the build, unless the index is unique."""
        return () if self.unique else self._build(facts)

    def retire(self, facts: Facts) -> Steps:
        """Return the build of a unique index."""
        return self._build(facts) if self.unique else ()

    def rebuild(self, facts: Facts) -> Steps:
        """Return the drop of the index."""
        table = facts.table.name
        gone = (
            partitioned_index.gone(self._parts(facts)[0])
            if facts.table.kind == "p"
            else indexes.drop_index(table.schema, self.name, table)
        )
        return (Step(name="drop_index", work=gone, no_reverse="upgrade again"),)

    def _build(self, facts: Facts) -> Steps:
        if facts.table.kind == "p":
            return partitioned_index.build(self._parts(facts), unique=self.unique)
        built, table = self.definition.render(), facts.table
        step = indexes.build(
            "create_index", table, self.name, built, unique=self.unique
        )
        (back,) = step.reverse
        assert isinstance(back, Autocommit)
        moved = direct.moved(table, TableName(table.name.schema, self.name))
        return (
            replace(step, reverse=(replace(back, refusals=(*back.refusals, moved)),)),
        )

    def _parts(self, facts: Facts) -> tuple[Part, ...]:
        return partitioned_index.declared(facts, self.name, self.definition.render())


_UNIQUE = Notice(
    text="The unique index is built at retire: before, the old release could violate"
    " it. Rows that are equal by then make the build fail, and nothing is changed."
)
