"""Add an exclusion constraint to a small table.

phase   statement                          lock on the table
expand  CREATE INDEX CONCURRENTLY          SHARE UPDATE EXCLUSIVE, two scans
verify  count of rows that conflict        ACCESS SHARE
retire  ADD CONSTRAINT … EXCLUDE           ACCESS EXCLUSIVE, two scans and a build
        DROP INDEX CONCURRENTLY            SHARE UPDATE EXCLUSIVE

PostgreSQL adds it neither NOT VALID nor over an index that is there: the server builds
its index and compares all rows while nobody reads or writes the table. That is borne
where it takes a moment: a larger table is refused, under the lock once more, and what
takes a second in spite of that is ended by the server and leaves nothing.

Of a partitioned table (17+) the lock is on all partitions, and all rows count together.
The index that finds conflicts is a partitioned one, as of `AddUnique`.

Source: PostgreSQL manual, CREATE TABLE, EXCLUDE; ALTER TABLE, ADD table_constraint.
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar, cast

from psycopg import sql

from migrator import names
from migrator.errors import Misdeclared, Refused
from migrator.facts import Facts
from migrator.kernels import (
    constraints,
    indexes,
    partitioned_index,
    reading,
    requirements,
)
from migrator.kernels.exclusion import Exclusion
from migrator.kernels.index_definition import Definition, Key, as_data, from_data
from migrator.kernels.partitioned_index import Part
from migrator.kernels.rows import comparisons
from migrator.pattern import Pattern
from migrator.plan import Autocommit, Notice, Probe, Refusal, State, Step, Steps, render
from migrator.words import counted

# A GiST index over a number and a range took 0.4 s for as many rows, and grows faster
# than they do.
MOST_ROWS = 20_000
ROW_US = 20


@dataclass(frozen=True, slots=True)
class AddExclusion(Pattern):
    """
    Hold rows of `table` not to conflict with each other.

    Example:
        change = AddExclusion(
            "stays",
            [("room", "="), ("during", "&&")],
            "apart",
            assured="its rows may be locked for a second at contract",
        )

    Args:
        table: the table's name, without its schema.
        on: the elements, each with its operator as SQL: a column, or a `Key`, e.g.
            `(Key(expression="tsrange(starts, ends)"), "&&")`.
        name: the constraint's name, and its index's.
        where: SQL predicate of the rows that count.
        method: the access method.
        deferrable: "immediate" or "deferred", which is what it is initially.
        schema: the table's schema; None means the connection's search path.
        assured: why the table may be locked while the index is built.
    """

    reversible: ClassVar[str] = "always"

    table: str
    on: Sequence[tuple[str | Key, str]]
    name: str
    _: KW_ONLY
    where: str | None = None
    method: str = "gist"
    deferrable: str | None = None
    schema: str | None = None
    assured: str = ""

    def __post_init__(self) -> None:
        """Take elements back that come from the ledger."""
        if self._well_formed:
            keys = from_data([key for key, _ in self.on])
            taken = [(k, o) for k, (_, o) in zip(keys, self.on, strict=True)]
            object.__setattr__(self, "on", taken)

    @property
    def _well_formed(self) -> bool:
        pairs: Any = self.on
        return isinstance(pairs, list | tuple) and all(
            isinstance(e, list | tuple) and len(cast("list[Any]", e)) == 2
            for e in cast("list[Any]", pairs)
        )

    @property
    def title(self) -> str:
        """One line that names the change."""
        return f'add exclusion constraint "{self.name}" to table "{self.table}"'

    @property
    def admission(self) -> State:
        """From expanded: it says nothing to the new release before retire."""
        return State.EXPANDED

    @property
    def exclusion(self) -> Exclusion:
        """The constraint, without its name."""
        definition = Definition(
            title=self.title,
            on=[key for key, _ in self.on],
            unique=False,
            include=(),
            nulls_not_distinct=False,
            where=self.where,
            method=self.method,
            storage=indexes.NO_STORAGE,
        )
        return Exclusion(definition=definition, operators=[o for _, o in self.on])

    def readings(self, facts: Facts) -> Mapping[str, Probe]:
        """Return the question which functions whoever writes a row has to call."""
        texts = self.exclusion.definition.texts()
        return reading.asked(facts, *texts, by_name=False)

    def columns(self) -> frozenset[str] | None:
        """Return its columns; None where an expression takes part."""
        return self.exclusion.definition.columns(self.table)

    def parameters(self) -> dict[str, Any]:
        """Return the declaration as plain data."""
        given = Pattern.parameters(self)
        if self._well_formed:
            given["on"] = [[as_data([key])[0], operator] for key, operator in self.on]
        return given

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse a table that is too large to be locked meanwhile."""
        requirements.require_table(facts)
        requirements.require_all_rows_visible(facts)
        if not self._well_formed or not self.on:
            raise Misdeclared(
                f"{self.title}: `on` must be a list of elements, each with its"
                " operator.",
                next='write on=[("column", "&&")].',
            )
        self.exclusion.check(facts)
        if facts.table.kind == "p":
            self.exclusion.require_partition_key(facts)
            partitioned_index.require_free(facts, self._parts(facts))
        constraints.require_free_name(facts, self.name, indexed=True)
        constraints.deferrable(self.title, self.deferrable)
        self._require_small(facts)
        took = max(1, facts.table.rows * ROW_US // 1000)
        return self.assure(
            (
                Notice(
                    text="At retire nobody reads or writes the table while the server"
                    f" builds the index of the constraint: about {took} ms for"
                    f" {counted(facts.table.rows)}. What takes longer than a second is"
                    " ended, and nothing is changed.",
                    needs_assurance=True,
                ),
                Notice(
                    text="Nothing is enforced before retire: rows that either release"
                    " writes and that conflict hold the change at verify."
                ),
            )
        )

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return trials of the constraint, and of its expressions on rows."""
        name = facts.table.name.name
        statements = (
            sql.SQL("CREATE TEMP TABLE {} (LIKE {})").format(
                sql.Identifier(name), facts.table.name.identifier
            ),
            sql.SQL("ALTER TABLE {} ADD {}").format(
                sql.Identifier("pg_temp", name), self._definition
            ),
        )
        return (
            Probe(
                statements=tuple(render(s) for s in statements),
                question="SELECT true",
                otherwise="",
                failed=f"{self.title}: the server refuses it",
                next="correct elements, operators and method; for numbers and texts"
                " beside ranges CREATE EXTENSION btree_gist.",
            ),
            # Rows of a sample may conflict: they are put into its index alone.
            self.exclusion.definition.probe(facts),
            *partitioned_index.probes(self.title, self._parts(facts), unique=True),
        )

    def expand(self, facts: Facts) -> Steps:
        """Return the index that finds rows that conflict."""
        if facts.table.kind == "p":
            return partitioned_index.build(self._parts(facts), unique=False)
        return (self._lookup(facts),)

    def verify(self, facts: Facts) -> Steps:
        """Return the count of rows that conflict with another one."""
        shown = (k.column for k in self.exclusion.definition.keys if k.column)
        columns = tuple(shown)
        # Rows that conflict are in one leaf, which equal columns tell.
        return tuple(
            step
            for leaf in facts.leaves
            for step in comparisons(
                leaf,
                "count_conflicts",
                self.exclusion.violations(leaf),
                shown=columns,
                no_reverse="nothing is changed",
                wrong="in conflict with another row",
            )
        )

    def retire(self, facts: Facts) -> Steps:
        """
        Return the constraint, and the end of the other index.

        Raises:
            Refused: the table has grown, or something else got the name since.
        """
        self._require_small(facts)
        constraints.require_none_since(facts, self.name, indexed=True)
        table = facts.table.name
        work = constraints.add(table, self.name, self._definition)
        more = sql.SQL(
            "SELECT pg_catalog.count(*) FROM (SELECT FROM {} OFFSET {} LIMIT 1) AS more"
        ).format(table.identifier, sql.Literal(MOST_ROWS))
        grown = Refusal(
            count=render(more),
            why=f"the table has more than {MOST_ROWS:,} rows by now",
            next=self._otherwise(facts),
        )
        return (
            Step(
                name="add_constraint",
                work=replace(work, refusals=(grown,)),
                reverse=(constraints.drop(table, self.name),),
            ),
            self._gone(facts),
        )

    def rebuild(self, facts: Facts) -> Steps:
        """Return the drop of the constraint."""
        gone = constraints.drop(facts.table.name, self.name)
        return (Step(name="drop_constraint", work=gone, no_reverse="upgrade again"),)

    def _require_small(self, facts: Facts) -> None:
        if facts.table.rows > MOST_ROWS:
            raise Refused(
                f"Table {facts.table.name} has about {facts.table.rows:,} rows:"
                " PostgreSQL adds an exclusion constraint only while nobody reads or"
                f" writes the table, which is done up to {MOST_ROWS:,} rows.",
                next=self._otherwise(facts),
            )

    def _otherwise(self, facts: Facts) -> str:
        """Return what makes it on a large table."""
        if facts.table.kind == "p":
            return "add it in a maintenance window."
        clause = render(
            sql.SQL("ADD CONSTRAINT {} {}").format(
                sql.Identifier(self.name), self._definition
            )
        )
        return (
            f'use RebuildTable("{self.table}", alter=[{clause!r}], assured="…"), which'
            " makes it on a new, empty table. From its expand on no release can write"
            " rows that conflict, and those that are there end its backfill: correct"
            " them first."
        )

    def _gone(self, facts: Facts) -> Step:
        """Return the drop of that index; taking it back builds it again."""
        if facts.table.kind == "p":
            return partitioned_index.drop_parts(self._parts(facts), unique=False)
        lookup = self._lookup(facts)
        (gone,) = lookup.reverse
        assert isinstance(lookup.work, Autocommit)
        table = facts.table.name
        named = self.columns() or frozenset[str]()
        known = (c.name for c in facts.table.columns if c.name in named)
        again = constraints.helps(lookup.work, table, *known)
        return Step(name="drop_index", work=gone, reverse=(again,))

    def _parts(self, facts: Facts) -> tuple[Part, ...]:
        name = names.owned("index", self.name, facts.tag)
        text = self.exclusion.definition.render()
        return partitioned_index.declared(facts, name, text)

    def _lookup(self, facts: Facts) -> Step:
        return indexes.build(
            "create_index",
            facts.table,
            names.owned("index", self.name, facts.tag),
            self.exclusion.definition.render(),
        )

    @property
    def _definition(self) -> sql.Composable:
        return self.exclusion.render(
            constraints.deferrable(self.title, self.deferrable)
        )
