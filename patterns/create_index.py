"""Build an index without blocking reads or writes.

phase     statement                  lock on the table
expand    CREATE INDEX CONCURRENTLY  SHARE UPDATE EXCLUSIVE, two scans
retire    the same for UNIQUE        SHARE UPDATE EXCLUSIVE, two scans

A unique index is built at retire, since the old release could violate it.

Source: PostgreSQL manual, CREATE INDEX, Building Indexes Concurrently.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Facts
from migrator.kernels import indexes, requirements
from migrator.pattern import Pattern
from migrator.plan import Notice, Probe, State, Step, Steps, expression, render


@dataclass(frozen=True, slots=True)
class CreateIndex(Pattern):
    """
    Build an index on columns of `table`.

    Example:
        change = CreateIndex("users", ["email"], "ix_users_email")

    Args:
        table: the table's name, without its schema.
        on: the columns, in order.
        name: the index's name.
        unique: whether it is unique; then it is built at retire.
        where: SQL predicate of a partial index.
        method: the access method.
        schema: the table's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    table: str
    on: Sequence[str]
    name: str
    _: KW_ONLY
    unique: bool = False
    where: str | None = None
    method: str = "btree"
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return f'create index "{self.name}" on table "{self.table}"'

    @property
    def admission(self) -> State:
        """From expanded; a unique index says nothing to the new release before."""
        return State.EXPANDED

    def columns(self) -> frozenset[str]:
        """Return the indexed columns."""
        return frozenset(self.on)

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse a name that is taken and columns that are not there."""
        requirements.require_table(facts)
        if facts.table.kind == "p":
            raise Refused(
                f"Table {facts.table.name} is partitioned: PostgreSQL builds no index"
                " concurrently on all partitions.",
                next="CREATE INDEX … ON ONLY the table, then CONCURRENTLY on each"
                " partition, then ALTER INDEX … ATTACH PARTITION.",
            )
        names.checked(self.name, "index")
        if not self.on or isinstance(self.on, str):
            raise Refused(
                f"{self.title}: `on` must be a list of one column or more.",
                next='write on=["column"].',
            )
        for column in self.on:
            facts.table.require(column)
        # An invalid index of that name on this table is what a failed build
        # of the same change leaves; anything else is somebody's.
        mine = facts.table.index(self.name)
        if self.name in facts.relation_names and (mine is None or mine.valid):
            raise Refused(
                f'Schema "{facts.table.name.schema}" has a relation "{self.name}"'
                " already.",
                next="choose another name, or drop it first.",
            )
        if not self.unique:
            return ()
        return self.assure(
            (
                Notice(
                    text="The unique index is built at retire: before, the old"
                    " release could violate it. Rows that are equal by then make the"
                    " build fail, and nothing is changed."
                ),
            )
        )

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return a trial of the same index on an empty table of that shape."""
        where = (
            sql.SQL("")
            if self.where is None
            else sql.SQL(" WHERE ") + expression(self.where)
        )
        # Bears the table's own name, which the predicate may use.
        trial = sql.Identifier("pg_temp", facts.table.name.name)
        return (
            Probe(
                statements=(
                    render(
                        sql.SQL("CREATE TEMP TABLE {} (LIKE {})").format(
                            sql.Identifier(facts.table.name.name),
                            facts.table.name.identifier,
                        )
                    ),
                    render(
                        sql.SQL("CREATE {}INDEX ON {} USING {} ({}){}").format(
                            sql.SQL("UNIQUE " if self.unique else ""),
                            trial,
                            sql.Identifier(self.method),
                            self._keys(),
                            where,
                        )
                    ),
                ),
                question="SELECT true",
                otherwise="",
            ),
        )

    def expand(self, facts: Facts) -> Steps:
        """Return the build, unless the index is unique."""
        return () if self.unique else (self._build(facts),)

    def retire(self, facts: Facts) -> Steps:
        """Return the build of a unique index."""
        return (self._build(facts),) if self.unique else ()

    def rebuild(self, facts: Facts) -> Steps:
        """Return the drop of the index."""
        return (
            Step(
                name="drop_index",
                work=indexes.drop_index(
                    facts.table.name.schema, self.name, facts.table.name
                ),
                no_reverse="upgrade again",
            ),
        )

    def _build(self, facts: Facts) -> Step:
        return indexes.build_index(
            "create_index",
            facts.table,
            self.name,
            method=self.method,
            keys=self._keys(),
            unique=self.unique,
            where=self.where,
        )

    def _keys(self) -> sql.Composable:
        return sql.SQL(", ").join(map(sql.Identifier, self.on))
