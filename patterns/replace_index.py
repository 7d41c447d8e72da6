"""Give an index another definition under the name that it has.

phase     statement                       lock on the table
expand    CREATE INDEX CONCURRENTLY       SHARE UPDATE EXCLUSIVE, two scans
          partitioned: ATTACH PARTITION   ACCESS EXCLUSIVE, no scan, on each leaf
retire    the same for UNIQUE             SHARE UPDATE EXCLUSIVE, two scans
          partitioned: ATTACH PARTITION   ACCESS EXCLUSIVE, no scan, on each leaf
          ALTER INDEX … RENAME TO, twice  none, no scan
          COMMENT ON INDEX, if it has any none, no scan
          CLUSTER ON, if it was marked    SHARE UPDATE EXCLUSIVE, no scan
drop      DROP INDEX CONCURRENTLY         SHARE UPDATE EXCLUSIVE, no scan
          partitioned: DROP INDEX         ACCESS EXCLUSIVE, no scan

Both are there until the drop, so that no query is without its index. Names and comment
lock the indexes alone, by SHARE UPDATE EXCLUSIVE, which queries and writes pass. Going
back exchanges the names again; from the drop the old one is built again as it was.

Of a partitioned table the new one is made on the table ONLY, built leaf by leaf and
attached; all parts exchange their names in one transaction. The drop locks the table
and all partitions (ACCESS EXCLUSIVE, no scan): PostgreSQL drops no part concurrently.

Source: PostgreSQL manual, ALTER INDEX, RENAME; CREATE INDEX, Building Indexes
Concurrently.
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import ClassVar

from psycopg import sql

from migrator import names
from migrator.facts import Facts, Table
from migrator.kernels import direct, indexes, partitioned_index, requirements
from migrator.kernels.index_definition import IndexPattern, Keys
from migrator.kernels.partitioned_index import Part
from migrator.names import TableName
from migrator.plan import Lock, Notice, Probe, Step, Steps, Transaction, render


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
        columns = self.definition.columns(self.table)
        return None if columns is None else columns | {self.name}

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse an index on which something rests."""
        requirements.require_table(facts)
        self.definition.check(facts)
        old = indexes.require(facts, self.name)
        indexes.require_unused(facts, old)
        notices: list[Notice] = []
        if facts.table.kind == "p":
            partitioned_index.require_free(facts, self._made(facts))
            notices += partitioned_index.notices(facts)
            notices.append(partitioned_index.DROP_NOTICE)
        if self.unique:
            notices.append(_UNIQUE)
        if old.clustered and not self.definition.orders:
            notices.append(
                Notice(
                    text=f'Index "{self.name}" has the mark of CLUSTER, which the new'
                    " one cannot have: from the drop on the table has none."
                )
            )
        bare = [
            f'"{own.name}"'
            for table in facts.table.partitions
            for own in table.indexes
            if own.root == old.name
            and (own.comment is not None or own.clustered or own.targets)
        ]
        if bare:
            notices.append(
                Notice(
                    text=f"On partitions {', '.join(bare)} have a comment, the mark of"
                    " CLUSTER or statistics targets, which those of the new one do not"
                    " get."
                )
            )
        if old.targets:
            notices.append(
                Notice(
                    text=f'Expressions of index "{self.name}" have statistics targets,'
                    " which those of the new one do not get: ALTER INDEX … ALTER COLUMN"
                    " … SET STATISTICS, then ANALYZE."
                )
            )
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
        more = partitioned_index.probes(
            self.title, self._made(facts), unique=self.unique
        )
        return (self.definition.probe(facts), *more)

    def expand(self, facts: Facts) -> Steps:
        """Return the build, unless the new index is unique."""
        return () if self.unique else self._build(facts)

    def retire(self, facts: Facts) -> Steps:
        """Return the build of a unique index, and the exchange of the names."""
        renames = self._renames(facts)
        back = ((b, a) for a, b in reversed(renames))
        exchange = Step(
            name="exchange_names",
            work=self._with_looks(facts, self._renamed(facts, *renames)),
            reverse=(self._marked(facts, self._renamed(facts, *back)),),
        )
        return (*self._build(facts), exchange) if self.unique else (exchange,)

    def drop(self, facts: Facts) -> Steps:
        """Return the drop of the old index."""
        table, name = facts.table, self._old(facts)
        old = table.index(name) or table.index(self.name)
        if old is None:
            return ()
        if table.kind != "p":
            return (indexes.drop_index_step(table, old, name=name),)
        parts = partitioned_index.found(facts, old)
        if old.name != name:
            # Not renamed yet: a plan is read.
            parts = tuple(replace(p, index=_called(p.table, name)) for p in parts)
        return (partitioned_index.drop_parts(parts, unique=old.unique),)

    def _build(self, facts: Facts) -> Steps:
        if facts.table.kind == "p":
            return partitioned_index.build(self._made(facts), unique=self.unique)
        return (
            indexes.build(
                "create_index",
                facts.table,
                self._new(facts),
                self._text(facts),
                unique=self.unique,
            ),
        )

    def _made(self, facts: Facts) -> tuple[Part, ...]:
        """Return the parts of the new index as they are made."""
        return partitioned_index.declared(facts, self._new(facts), self._text(facts))

    def _text(self, facts: Facts) -> sql.Composable:
        """Return the new index's definition; it is where the old one is."""
        old = facts.table.index(self.name) or facts.table.index(self._old(facts))
        space = None if old is None else old.tablespace
        return replace(self.definition, tablespace=space).render()

    def _renames(self, facts: Facts) -> list[tuple[TableName, TableName]]:
        """Return the names that the parts of both have, and those that they get."""
        table = facts.table
        old, new = table.index(self.name), table.index(self._new(facts))
        # Those of partitions that came since are of the server's choice.
        came = partitioned_index.found(facts, new) if new else self._made(facts)
        went = partitioned_index.found(facts, old) if old else ()
        given = {p.table.name: p.name for p in went}
        found: list[tuple[TableName, TableName]] = []
        for part in came:
            name = part.name
            wanted = replace(name, name=_called(part.table, self.name))
            if former := given.get(part.table.name):
                away = _called(part.table, self._old(facts))
                found.append((former, replace(former, name=away)))
                wanted = former
            found.append((name, wanted))
        return found

    def _renamed(
        self, facts: Facts, *pairs: tuple[TableName, TableName]
    ) -> Transaction:
        # A partition may be gone by then, and its parts with it.
        there = "IF EXISTS " if facts.table.kind == "p" else ""
        return Transaction(
            statements=tuple(
                render(
                    sql.SQL("ALTER INDEX {}{} RENAME TO {}").format(
                        sql.SQL(there),
                        given.identifier,
                        sql.Identifier(wanted.name),
                    )
                )
                for given, wanted in pairs
            ),
            table=facts.table.name,
        )

    def _with_looks(self, facts: Facts, work: Transaction) -> Transaction:
        """Return the exchange, with what the new index gets of the old one."""
        old = facts.table.index(self.name)
        if old is None:
            return work
        bare = replace(old, clustered=False, targets=())
        looks = indexes.index_looks(facts.table.name, self.name, bare)
        work = replace(work, statements=(*work.statements, *map(render, looks)))
        return self._marked(facts, work) if self.definition.orders else work

    def _marked(self, facts: Facts, work: Transaction) -> Transaction:
        """Return the work, with the mark of CLUSTER for what has the name then."""
        old = facts.table.index(self.name)
        if old is None or not old.clustered:
            return work
        bare = replace(old, comment=None, targets=())
        looks = indexes.index_looks(facts.table.name, self.name, bare)
        lock = Lock.SHARE_UPDATE_EXCLUSIVE
        first = direct.locked(facts.table.name, lock)
        return replace(
            work, statements=(first, *work.statements, *map(render, looks)), lock=lock
        )

    def _new(self, facts: Facts) -> str:
        return names.owned("index", self.name, facts.tag)

    def _old(self, facts: Facts) -> str:
        return names.owned("retired", self.name, facts.tag)


def _called(table: Table, name: str) -> str:
    """Return the name of an index's part, or of the whole."""
    return name if table.root is None else partitioned_index.part_name(table.name, name)


_UNIQUE = Notice(
    text="The new index is built at retire: before, the old release could violate it."
    " Rows that are equal by then make the build fail, and nothing is changed; ON"
    " CONFLICT finds it from then on."
)
