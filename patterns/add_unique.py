"""Add a unique constraint without a build under a lock that stops writers.

phase   statement                             lock on the table
expand  CREATE INDEX CONCURRENTLY, where      SHARE UPDATE EXCLUSIVE, two scans
          none finds duplicates
verify  count of duplicates                   ACCESS SHARE
retire  CREATE UNIQUE INDEX CONCURRENTLY      SHARE UPDATE EXCLUSIVE, two scans
        ADD CONSTRAINT … USING INDEX          ACCESS EXCLUSIVE, no scan
        DROP INDEX CONCURRENTLY (of expand)   SHARE UPDATE EXCLUSIVE

Of a partitioned table the constraint is added to it ONLY (ACCESS EXCLUSIVE on it alone,
no scan), so that partitions that come have theirs; each leaf's index is built
concurrently, then its constraint is added over it and attached (ACCESS EXCLUSIVE on the
leaf, no scan). The index that finds duplicates is a partitioned one as well.

Going back drops the constraint with its index (ACCESS EXCLUSIVE, no scan).

Source: PostgreSQL manual, ALTER TABLE, ADD table_constraint_using_index.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Facts
from migrator.final import Final, Key
from migrator.kernels import (
    constraints,
    indexes,
    partitioned_index,
    requirements,
    unique_key,
)
from migrator.kernels.index_definition import require_partition_key
from migrator.kernels.partitioned_index import Part
from migrator.kernels.rows import comparisons
from migrator.pattern import Pattern
from migrator.plan import Notice, Probe, State, Step, Steps, render


@dataclass(frozen=True, slots=True)
class AddUnique(Pattern):
    """
    Hold columns of `table` to be unique.

    Example:
        change = AddUnique("users", ["mail"], "users_mail")

    Args:
        table: the table's name, without its schema.
        on: the columns, in order.
        name: the constraint's name, and its index's.
        nulls_not_distinct: whether NULL is a value like others.
        deferrable: "immediate" or "deferred", which is what it is initially.
        include: further columns of the index.
        schema: the table's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    table: str
    on: Sequence[str]
    name: str
    _: KW_ONLY
    nulls_not_distinct: bool = False
    deferrable: str | None = None
    include: Sequence[str] = ()
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return f'add unique constraint "{self.name}" to table "{self.table}"'

    @property
    def admission(self) -> State:
        """From expanded: it says nothing to the new release before retire."""
        return State.EXPANDED

    def columns(self) -> frozenset[str]:
        """Return the columns of its index."""
        return frozenset((*self.on, *self.include))

    def final(self) -> Final:
        """Return the constraint."""
        key = Key(name=self.name, kind="u", columns=tuple(self.on))
        return Final(keys=(key,))

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse a name that is taken and columns that are not there."""
        requirements.require_table(facts)
        requirements.require_all_rows_visible(facts)
        constraints.require_lists(self.title, {"on": self.on})
        requirements.require_stored(facts, *self.on, *self.include)
        if facts.table.kind == "p":
            require_partition_key(self.title, facts, self.on)
            partitioned_index.require_free(facts, self._parts(facts))
        constraints.require_free_name(facts, self.name, indexed=True)
        constraints.deferrable(self.title, self.deferrable)
        nullable = unique_key.may_be_null(facts.table, self.on)
        if self.nulls_not_distinct and len(nullable) > unique_key.MOST_NULLABLE:
            listed = ", ".join(f'"{c}"' for c in nullable)
            raise Refused(
                f"{self.title}: more than {unique_key.MOST_NULLABLE} of its columns"
                f" may be NULL ({listed}); duplicates among them cannot be looked up"
                " in time.",
                next="make some of them NOT NULL first, or leave nulls_not_distinct"
                " out.",
            )
        notices = [
            Notice(
                text="Nothing is enforced before retire, nor can ON CONFLICT name it:"
                " duplicates that either release writes hold the change at verify."
            )
        ]
        if self.expand(facts):
            notices.append(
                Notice(
                    text="An index finds the duplicates from expand on, beside which"
                    " the unique one is built at retire; it is dropped then."
                )
            )
        if facts.table.kind == "p":
            notices.append(partitioned_index.KEY_NOTICE)
        return self.assure(tuple(notices))

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return a trial of the constraint on an empty table of that shape."""
        statements = (
            sql.SQL("CREATE TEMP TABLE migrator_trial (LIKE {})").format(
                facts.table.name.identifier
            ),
            sql.SQL("ALTER TABLE migrator_trial ADD ") + self._definition,
        )
        return (
            Probe(
                statements=tuple(render(s) for s in statements),
                question="SELECT true",
                otherwise="",
                failed=f"{self.title}: the server refuses it",
                next="leave out columns whose type has no order.",
            ),
            *partitioned_index.probes(self.title, self._parts(facts), unique=True),
        )

    def expand(self, facts: Facts) -> Steps:
        """Return the index that finds duplicates, where there is none."""
        return constraints.lookup(facts, tuple(self.on), self._lookup(facts))

    def verify(self, facts: Facts) -> Steps:
        """Return the count of duplicates."""
        # Rows that are equal are in one leaf, which the key tells.
        return tuple(
            step
            for leaf in facts.leaves
            for step in comparisons(
                leaf,
                "count_duplicates",
                unique_key.duplicates(
                    leaf, tuple(self.on), nulls_not_distinct=self.nulls_not_distinct
                ),
                shown=tuple(self.on),
                no_reverse="nothing is changed",
                wrong=f"a duplicate in ({', '.join(self.on)})",
            )
        )

    def retire(self, facts: Facts) -> Steps:
        """
        Return the unique index, its constraint, and the end of the other index.

        Raises:
            Refused: another constraint, or index, got its name since.
        """
        constraints.require_none_since(facts, self.name, indexed=True)
        gone = constraints.lookup_gone(facts, tuple(self.on), self._lookup(facts))
        return (*self._key(facts), *gone)

    def rebuild(self, facts: Facts) -> Steps:
        """Return the drop of the constraint."""
        gone = constraints.drop(facts.table.name, self.name)
        return (Step(name="drop_constraint", work=gone, no_reverse="upgrade again"),)

    def _key(self, facts: Facts) -> Steps:
        when = constraints.deferrable(self.title, self.deferrable)
        if facts.table.kind == "p":
            return partitioned_index.build_key(
                self._parts(facts),
                self._definition,
                lambda index: unique_key.over_index("u", index, when),
            )
        return unique_key.steps(
            facts,
            "u",
            self.name,
            self._listed(self.on),
            when,
            include=tuple(self.include),
            nulls_not_distinct=self.nulls_not_distinct,
        )

    def _parts(self, facts: Facts) -> tuple[Part, ...]:
        text = indexes.definition(
            method="btree",
            keys=self._listed(self.on),
            include=self.include,
            nulls_not_distinct=self.nulls_not_distinct,
        )
        return partitioned_index.declared(facts, self.name, text)

    @property
    def _definition(self) -> sql.Composable:
        """The constraint where it makes its own index."""
        included: sql.Composable = sql.SQL("")
        if self.include:
            included = sql.SQL(" INCLUDE ({})").format(self._listed(self.include))
        return sql.SQL("UNIQUE{} ({}){}{}").format(
            sql.SQL(" NULLS NOT DISTINCT" if self.nulls_not_distinct else ""),
            self._listed(self.on),
            included,
            constraints.deferrable(self.title, self.deferrable),
        )

    def _lookup(self, facts: Facts) -> str:
        return names.owned("index", self.name, facts.tag)

    @staticmethod
    def _listed(columns: Sequence[str]) -> sql.Composable:
        return sql.SQL(", ").join(map(sql.Identifier, columns))
