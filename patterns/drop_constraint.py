"""Drop a constraint, with a way back that scans under weak locks.

phase   statement        lock on the table              on the one it refers to
retire  DROP CONSTRAINT  ACCESS EXCLUSIVE, no scan      ACCESS EXCLUSIVE

Going back adds a check or foreign key NOT VALID (ACCESS EXCLUSIVE, or SHARE ROW
EXCLUSIVE on both tables; no scan) and validates it (SHARE UPDATE EXCLUSIVE, full
scan); a key's index is built concurrently (two scans), then the key taken over it.

Source: PostgreSQL manual, ALTER TABLE, DROP CONSTRAINT and Notes.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace

from psycopg import sql

from migrator.errors import Misdeclared, Refused
from migrator.facts import Constraint, Facts
from migrator.final import Final
from migrator.kernels import (
    constraints,
    indexes,
    partitioned_index,
    requirements,
    unique_key,
)
from migrator.kernels.foreign_key import NOT_VALID_ON_PARTITIONED, refused_rows
from migrator.pattern import Pattern
from migrator.plan import (
    Action,
    Lock,
    Notice,
    Refusal,
    State,
    Step,
    Steps,
    Transaction,
    expression,
    render,
    type_name,
)

KEYS = ("p", "u")
KINDS = {"c": "check", "f": "foreign key", "p": "primary key", "u": "unique"}


@dataclass(frozen=True, slots=True)
class DropConstraint(Pattern):
    """
    Drop constraint `name` of `table`.

    Example:
        change = DropConstraint("orders", "orders_user")

    Args:
        table: the table's name, without its schema.
        name: the constraint's name.
        touches: the columns that it is on; all of the table unless given. A change of
            another column need not be finished before it then.
        schema: the table's schema; None means the connection's search path.
        assured: why hazards that need a person's word are none here.
    """

    table: str
    name: str
    _: KW_ONLY
    touches: Sequence[str] | None = None
    schema: str | None = None
    assured: str = ""

    @property
    def title(self) -> str:
        """One line that names the change."""
        return f'drop constraint "{self.name}" of table "{self.table}"'

    @property
    def admission(self) -> State:
        """From expanded, as long as it keeps to the constraint until retire."""
        return State.EXPANDED

    def columns(self) -> frozenset[str] | None:
        """Return those that it is said to be on, with its name."""
        return None if self.touches is None else frozenset({*self.touches, self.name})

    def final(self) -> Final:
        """Return that it is gone."""
        return Final(gone=(self.name,))

    def check(self, facts: Facts) -> tuple[Notice, ...]:
        """Refuse what others depend on, and what could not come back."""
        requirements.require_table(facts)
        found = constraints.require(facts, self.name)
        which = f'Constraint "{self.name}" of table {facts.table.name}'
        more = set(found.columns).difference(self.touches or found.columns)
        if more:
            named = ", ".join(f'"{name}"' for name in sorted(more))
            raise Misdeclared(
                f"{which} is on {named} too, which `touches` does not name.",
                next="name all columns that it is on.",
            )
        if found.kind not in KINDS:
            raise Refused(
                f"{which} is none of {', '.join(KINDS.values())}: it could come back"
                " only by a scan or build under a lock that stops writers.",
                next="drop it with plain SQL, or use the pattern for NOT NULL.",
            )
        index = facts.table.index(found.index or "")
        if found.kind in KEYS and index is not None and index.exclusion:
            raise Refused(
                f"{which} is WITHOUT OVERLAPS: it could come back only by a build while"
                " nobody reads or writes the table.",
                next="drop it with plain SQL.",
            )
        if found.dependents:
            raise Refused(
                f"{which} is needed by {'; '.join(found.dependents)}.",
                next="drop what depends on it first, by changes of their own.",
            )
        if found.kind in KEYS and index is not None:
            for part in partitioned_index.found(facts, index):
                # The server refuses each UPDATE of a published table without one.
                if part.table.publications:
                    indexes.require_no_identity(part.table, part.like or index)
        early = facts.server_version < NOT_VALID_ON_PARTITIONED
        if found.kind == "f" and facts.table.kind == "p" and early:
            raise Refused(
                f"{which} is a foreign key of a partitioned table: before PostgreSQL 18"
                " it cannot come back NOT VALID, but by a scan while writers of both"
                " tables wait.",
                next="drop it with plain SQL in a maintenance window.",
            )
        notices = [_NOTICES[found.kind], _UNTIL]
        if found.kind in KEYS and facts.table.kind == "p":
            notices.append(partitioned_index.DROP_NOTICE)
        return self.assure(tuple(notices))

    def expand(self, facts: Facts) -> Steps:
        """Return nothing: the old release may rely on the constraint."""
        return ()

    def retire(self, facts: Facts) -> Steps:
        """Return the drop, with what brings the constraint back."""
        found = constraints.require(facts, self.name)
        return (
            Step(
                name="drop_constraint",
                work=constraints.drop(
                    facts.table.name, self.name, also=found.references
                ),
                reverse=(*_unless_taken(facts, found), *self.again(facts, found)),
            ),
        )

    def rebuild(self, facts: Facts) -> Steps:
        """Return the constraint, from what is known of it while it is there."""
        back = self.again(facts, constraints.require(facts, self.name))
        return tuple(
            Step(name=f"add_{number}", work=action, no_reverse="upgrade again")
            for number, action in enumerate(back, 1)
        )

    def again(self, facts: Facts, found: Constraint) -> tuple[Action, ...]:
        """
        Return what brings the constraint back, once no row violates it.

        Args:
            facts: of the table.
            found: the constraint as it is, or was.
        """
        table = facts.table.name
        if found.kind in KEYS:
            return unique_key.again(facts, found)
        definition = type_name(found.definition)
        if not found.validated:
            # Its definition says so: NOT VALID, or NOT ENFORCED.
            return (self._added(facts, found, definition),)
        refusal = self._violated(facts, found)
        validated = constraints.validated(table, self.name, also=found.references)
        # What is added holds for the new release at once, so that rows are counted
        # before, with nothing locked; those that came since, once more behind it.
        is_there = constraints.is_there(table, self.name)
        return (
            constraints.counted(table, refusal, done=is_there),
            # All partitions of both are locked within one budget.
            self._added(facts, found, definition + sql.SQL(" NOT VALID")),
            replace(
                validated,
                refusals=(refusal,),
                withdraw=(constraints.withdrawn(table, self.name),),
            ),
        )

    @staticmethod
    def _lock(found: Constraint) -> Lock:
        return Lock.SHARE_ROW_EXCLUSIVE if found.kind == "f" else Lock.ACCESS_EXCLUSIVE

    def _violated(self, facts: Facts, found: Constraint) -> Refusal:
        rows = (
            sql.SQL("NOT {}").format(expression(found.condition or "true"))
            if found.kind == "c"
            else refused_rows(facts.table, found)
        )
        return constraints.violated(facts, self.name, rows, since="it was dropped")

    def _added(
        self, facts: Facts, found: Constraint, definition: sql.Composable
    ) -> Transaction:
        table = facts.table.name
        added = constraints.add(
            table,
            self.name,
            definition,
            lock=self._lock(found),
            also=found.references,
        )
        return constraints.with_comment(added, table, found)


def _unless_taken(facts: Facts, found: Constraint) -> tuple[Action, ...]:
    """Return what refuses the way back where another constraint got the name since."""
    if found.kind in KEYS:
        return ()
    table = facts.table.name
    # One that the way back has brought itself is the same, or not proved yet.
    mine = sql.SQL("pg_catalog.pg_get_constraintdef(oid) = {}").format(
        sql.Literal(found.definition)
    )
    if found.references is not None:
        mine = sql.SQL("contype = 'f' AND confrelid = {}::pg_catalog.regclass").format(
            sql.Literal(str(found.references))
        )
    count = sql.SQL(
        "SELECT count(*) FROM pg_catalog.pg_constraint WHERE conrelid ="
        " {}::pg_catalog.regclass AND conname = {} AND convalidated AND NOT ({})"
    ).format(sql.Literal(str(table)), sql.Literal(found.name), mine)
    taken = Refusal(
        count=render(count),
        why=f'another constraint of table {table} got the name "{found.name}" since',
        next=constraints.RENAME_OR_DROP,
    )
    none = render(sql.SQL("SELECT ({}) = 0").format(count))
    return (constraints.counted(table, taken, done=none),)


_UNTIL = Notice(
    text="Until retire the constraint holds for the new release as well; from then on"
    " for none. Going back counts the rows that violate it, and is refused while there"
    " are any."
)
_KEY = "Going back builds its index again, concurrently: two scans of the table."
_NOTICES = {
    "c": Notice(text="Going back reads the whole table once, while it is written."),
    "f": Notice(
        text="Going back reads the whole table once, while both are written. Without"
        " the foreign key nothing cascades, and orphans may be written."
    ),
    "u": Notice(
        text=f"{_KEY} From retire on, ON CONFLICT cannot name its columns.",
        needs_assurance=True,
    ),
    "p": Notice(
        text=f"{_KEY} From retire on, ON CONFLICT cannot name its columns, and where"
        " the table is published, UPDATE and DELETE fail without another replica"
        " identity.",
        needs_assurance=True,
    ),
}
