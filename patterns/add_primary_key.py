"""Add a primary key without a scan or build under a lock that stops writers.

phase   statement                             lock on the table
expand  CREATE INDEX CONCURRENTLY, where      SHARE UPDATE EXCLUSIVE, two scans
          none finds duplicates
verify  count of NULLs and duplicates         ACCESS SHARE
retire  for each column that may be NULL:
        ADD CHECK NOT VALID                   ACCESS EXCLUSIVE, no scan
        VALIDATE CONSTRAINT                   SHARE UPDATE EXCLUSIVE, full scan
        SET NOT NULL, drop check              ACCESS EXCLUSIVE, no scan (12+)
        then:
        CREATE UNIQUE INDEX CONCURRENTLY      SHARE UPDATE EXCLUSIVE, two scans
        ADD PRIMARY KEY USING INDEX           ACCESS EXCLUSIVE, no scan
        DROP INDEX CONCURRENTLY (of expand)   SHARE UPDATE EXCLUSIVE

Of a partitioned table NOT NULL is proved and set on all partitions at once; then the
key is added to it ONLY (ACCESS EXCLUSIVE on it alone, no scan), each leaf's index is
built concurrently, and its key added over it and attached (ACCESS EXCLUSIVE on the
leaf, no scan), as `AddUnique` does.

Source: PostgreSQL manual, ALTER TABLE, ADD table_constraint_using_index.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace

from psycopg import sql

from migrator import names
from migrator.errors import Refused
from migrator.facts import Facts
from migrator.final import Final, Key
from migrator.kernels import (
    constraints,
    direct,
    indexes,
    not_null,
    partitioned_index,
    requirements,
    unique_key,
    unproved,
)
from migrator.kernels.index_definition import require_partition_key
from migrator.kernels.partitioned_index import Part
from migrator.kernels.rows import comparisons
from migrator.pattern import Pattern
from migrator.plan import Notice, Probe, State, Step, Steps, missing, render


@dataclass(frozen=True, slots=True)
class AddPrimaryKey(Pattern):
    """
    Make columns of `table` its primary key.

    Example:
        change = AddPrimaryKey("users", ["id"], "users_pkey")

    Args:
        table: the table's name, without its schema.
        on: the columns, in order.
        name: the constraint's name, and its index's.
        schema: the table's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    table: str
    on: Sequence[str]
    name: str
    _: KW_ONLY
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return f'add primary key "{self.name}" to table "{self.table}"'

    @property
    def admission(self) -> State:
        """From expanded: it says nothing to the new release before retire."""
        return State.EXPANDED

    def columns(self) -> frozenset[str]:
        """Return the key's columns."""
        return frozenset(self.on)

    def final(self) -> Final:
        """Return the constraint."""
        key = Key(name=self.name, kind="p", columns=tuple(self.on))
        return Final(keys=(key,))

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse a second primary key and a name that is taken."""
        requirements.require_table(facts)
        requirements.require_all_rows_visible(facts)
        constraints.require_lists(self.title, {"on": self.on})
        requirements.require_stored(facts, *self.on)
        unproved.require_not_null(facts, *self.on)
        for part in (facts.table, *facts.table.partitions):
            there = next((k for k in part.constraints if k.kind == "p"), None)
            if there is not None:
                how = (
                    "by a change of its own (DropConstraint)"
                    if part.root is None
                    else "with plain SQL"
                )
                raise Refused(
                    f'Table {part.name} has a primary key already: "{there.name}".',
                    next="keep it, and make these columns unique (AddUnique); or drop"
                    f" it first, {how}.",
                )
        notices = [
            Notice(
                text="Nothing is enforced before retire: NULLs and duplicates that"
                " either release writes hold the change at verify."
            )
        ]
        if facts.table.kind == "p":
            require_partition_key(self.title, facts, self.on)
            partitioned_index.require_free(facts, self._parts(facts))
            notices.append(partitioned_index.KEY_NOTICE)
            notices += [
                notice
                for column in unique_key.may_be_null(facts.table, self.on)
                for notice in not_null.stricter(facts, column)
            ]
        constraints.require_free_name(facts, self.name, indexed=True)
        return self.assure(tuple(notices))

    def probes(self, facts: Facts) -> tuple[Probe, ...]:
        """Return a trial of the key on an empty table of that shape."""
        statements = (
            sql.SQL("CREATE TEMP TABLE migrator_trial (LIKE {})").format(
                facts.table.name.identifier
            ),
            sql.SQL("ALTER TABLE migrator_trial ADD PRIMARY KEY ({})").format(
                self._listed
            ),
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
        """Return the count of rows that the key would refuse."""
        nulls = [
            missing(sql.Identifier(c))
            for c in unique_key.may_be_null(facts.table, self.on)
        ]
        # Rows that are equal are in one leaf, which the key tells.
        return tuple(
            step
            for leaf in facts.leaves
            for step in comparisons(
                leaf,
                "count_without_key",
                sql.SQL(" OR ").join(
                    [*nulls, unique_key.duplicates(leaf, tuple(self.on))]
                ),
                shown=tuple(self.on),
                key=tuple(self.on),
                no_reverse="nothing is changed",
                wrong=f"NULL or a duplicate in ({', '.join(self.on)})",
            )
        )

    def retire(self, facts: Facts) -> Steps:
        """
        Return NOT NULL with its proofs, the unique index, and the key.

        Raises:
            Refused: another constraint, or index, got its name since.
        """
        constraints.require_none_since(facts, self.name, indexed=True)
        nullable = unique_key.may_be_null(facts.table, self.on)
        steps = (self._not_null(facts, c, n) for n, c in enumerate(nullable, 1))
        return (
            *(step for part in steps for step in part),
            *self._key(facts),
            *constraints.lookup_gone(facts, tuple(self.on), self._lookup(facts)),
        )

    def rebuild(self, facts: Facts) -> Steps:
        """Return the drop of the key; its columns stay NOT NULL."""
        gone = constraints.drop(facts.table.name, self.name)
        return (Step(name="drop_constraint", work=gone, no_reverse="upgrade again"),)

    def _key(self, facts: Facts) -> Steps:
        when = sql.SQL("")
        if facts.table.kind == "p":
            return partitioned_index.build_key(
                self._parts(facts),
                sql.SQL("PRIMARY KEY ({})").format(self._listed),
                lambda index: unique_key.over_index("p", index, when),
            )
        return unique_key.steps(facts, "p", self.name, self._listed, when)

    def _parts(self, facts: Facts) -> tuple[Part, ...]:
        text = indexes.definition(method="btree", keys=self._listed)
        return partitioned_index.declared(facts, self.name, text)

    def _not_null(self, facts: Facts, column: str, number: int) -> Steps:
        table = facts.table.name
        add, validate, last = not_null.not_null_by_check(
            table, column, names.owned("check", column, facts.tag)
        )
        # A partition's own key makes NOT NULL its own as well, from 18 on.
        parts = (p for p in facts.table.partitions if not p.require(column).not_null)
        nullable = (
            sql.SQL("ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL").format(
                name.identifier, sql.Identifier(column)
            )
            for name in (table, *(p.name for p in parts))
        )
        return (
            replace(add, name=f"add_check_{number}"),
            replace(validate, name=f"validate_check_{number}"),
            Step(
                name=f"set_not_null_{number}",
                work=last,
                reverse=(direct.catalogue_step(table, *nullable),),
            ),
        )

    def _lookup(self, facts: Facts) -> str:
        return names.owned("index", self.name, facts.tag)

    @property
    def _listed(self) -> sql.Composable:
        return sql.SQL(", ").join(map(sql.Identifier, self.on))
