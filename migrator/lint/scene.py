"""What surrounds a statement: what was done before it, and the database."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from migrator.facts import Domain, Table
from migrator.lint.locks import is_strong, lock_of
from migrator.lint.made import Made, word_of
from migrator.lint.statements import (
    CreateView,
    DropConstraint,
    DropIndex,
    MoveTable,
    NewColumn,
    NewConstraint,
    Ref,
    RenameColumn,
    RenameTable,
    SetNotNull,
    SetParameter,
    Statement,
    Transaction,
    ValidateConstraint,
    ref_of,
)
from migrator.plan import Lock

# A condition that is no more than `column IS NOT NULL`, in any spelling of the server's
# or a person's: with its keyword, parentheses and quotes.
_NOT_NULL = re.compile(
    r'\s*(?:CHECK)?[\s(]*(?:"(?P<quoted>(?:[^"]|"")+)"|(?P<plain>\w+))\s+IS\s+NOT\s+NULL'
    r"[\s)]*(?:NOT\s+VALID)?\s*",
    re.IGNORECASE,
)


def _proves(condition: str, column: str) -> bool:
    found = _NOT_NULL.fullmatch(condition)
    if found is None:
        return False
    if found["quoted"] is not None:
        return found["quoted"].replace('""', '"') == column
    return found["plain"].lower() == column


#: Returns facts of a table, None where there is none.
Reader = Callable[[Ref], Table | None]
#: The same of a domain.
DomainReader = Callable[[Ref], Domain | None]


@dataclass(slots=True, kw_only=True)
class Scene:
    """
    Where a statement stands.

    Args:
        server_version: `server_version_num`; None without a database.
        read: reads facts of tables; None without a database.
        read_domain: reads facts of domains; None without a database.
        time_zone: of a session that sets none; None without a database.
        sized: whether the tables of this database are as large as those in use:
            False where it is a developer's own, for autogenerate.
        short_s: seconds for which requests may wait: the lock budget.
        guarded: whether `env.py` runs revisions with the toolkit's options, which set
            a `lock_timeout` and try again.
        begun: whether Alembic has begun a transaction, as for a revision; a file of SQL
            begins its own.
        autocommit: whether the statement is a transaction of its own.
    """

    server_version: int | None = None
    read: Reader | None = None
    read_domain: DomainReader | None = None
    time_zone: str | None = None
    sized: bool = True
    short_s: float = 0.2
    guarded: bool = False
    begun: bool = True
    autocommit: bool = False
    #: What the revision, and those that go out with it, have made so far.
    made: Made = field(default_factory=Made)
    #: All statements of the revision, as far as they are known beforehand.
    whole: Sequence[Statement] = ()
    #: All statements of the revision before this one.
    earlier: list[Statement] = field(default_factory=list[Statement])
    #: Whether one of them took a lock for which requests wait.
    was_strong: bool = False
    _begun: list[Statement] = field(default_factory=list[Statement])
    _strong: list[Statement] = field(default_factory=list[Statement])
    _held: dict[Ref, tuple[Ref, Lock]] = field(
        default_factory=dict[Ref, tuple[Ref, Lock]]
    )
    #: What the revision has renamed or moved: the new name, and the first one.
    _renamed: dict[Ref, Ref] = field(default_factory=dict[Ref, Ref])
    _read: dict[Ref, Table | None] = field(default_factory=dict[Ref, Table | None])

    @property
    def same(self) -> list[Statement]:
        """Those of them that are in the same transaction."""
        # An autocommit block commits what came before it.
        return [] if self.autocommit else self._begun

    def table(self, ref: Ref) -> Table | None:
        """Return what the database knows of a table; None where it is not known."""
        if self.read is None or ref in self.made.tables:
            return None
        ref = self._renamed.get(ref, ref)
        if ref not in self._read:
            self._read[ref] = self.read(ref)
        return self._read[ref]

    def domain(self, ref: Ref) -> Domain | None:
        """Return what the database knows of a domain; None where there is none."""
        return None if self.read_domain is None else self.read_domain(ref)

    def is_made(self, ref: Ref) -> bool:
        """Tell whether the revision itself made a table, or one that goes with it."""
        return ref in self.made.tables

    def is_unused(self, ref: Ref) -> bool:
        """Tell whether no request can meet a table: made just now, or empty."""
        if ref in self.made.tables:
            return True
        if not self.sized:
            return False
        known = self.table(ref)
        if known is None or known.kind == "v":
            return False
        # An estimate of no rows is no proof: a table never analysed has none.
        return not known.size_bytes

    def size_bytes(self, ref: Ref) -> int | None:
        """Return how large a table is; None where that is not known."""
        known = self.table(ref) if self.sized else None
        return None if known is None else known.size_bytes

    def rows(self, ref: Ref) -> int | None:
        """Return how many rows a table has, about; None where that is not known."""
        known = self.table(ref) if self.sized else None
        return None if known is None else known.rows

    def is_created(self, ref: Ref, among: Sequence[Statement] | None = None) -> bool:
        """
        Tell whether the revision's text created a type, domain, schema or view.

        Args:
            ref: its name.
            among: statements that are looked through; None means all before this one.
        """
        if among is None:
            return ref.name in self.made.words
        return ref.name in map(word_of, among)

    def is_gone(self, described: str) -> bool:
        """
        Tell whether something was dropped before.

        Args:
            described: as the server describes it: `view v`, `trigger k on table t`.
        """
        words = re.findall(r"\w+", described.partition(" on table ")[0])
        return bool(words) and words[-1] in self.made.gone

    def is_added(self, ref: Ref, column: str) -> bool:
        """Tell whether the revision added a column, or one that goes with it."""
        return self.added(ref, column) is not None

    def added(self, ref: Ref, column: str) -> NewColumn | None:
        """Return a column that is as new as the revision, by its name."""
        return self.made.columns.get((ref, column))

    def former(self, ref: Ref, column: str) -> str:
        """Return the name that a column had before the revision."""
        for s in reversed(self.earlier):
            if isinstance(s, RenameColumn) and s.to == column:
                column = s.column if self.is_same(s.table, ref) else column
        return column

    def constraint(self, ref: Ref, name: str) -> NewConstraint | None:
        """Return a constraint that is as new as the revision, by its name."""
        return self.made.constraints.get((ref, name))

    def is_proved(self, ref: Ref, column: str) -> bool:
        """
        Tell whether a valid CHECK proves a column NOT NULL, or it is that already.

        Source: PostgreSQL manual, ALTER TABLE, SET NOT NULL (12+).
        """
        known = self.table(ref)
        if known is not None:
            found = known.column(column)
            if found is not None and found.not_null:
                return True
            if any(
                c.kind == "c" and c.validated and _proves(c.definition, column)
                for c in known.constraints
            ):
                return True
        return any(
            (new := self.constraint(ref, s.name)) is not None
            and new.kind == "c"
            and _proves(new.expression, column)
            for s in self.earlier
            if isinstance(s, ValidateConstraint) and s.table == ref
        )

    def comes_back(self, ref: Ref, new: NewConstraint) -> bool:
        """Tell whether the revision dropped one of that name and kind before."""
        return any(
            isinstance(s, DropConstraint)
            and s.name == new.name
            and s.kind in {None, new.kind}
            and self.is_same(s.table, ref)
            for s in self.earlier
        )

    def is_spent(self, ref: Ref, name: str) -> bool:
        """Tell whether a CHECK says no more than that a NOT NULL column is that."""
        known = self.table(ref)
        found = None if known is None else known.constraint(name)
        if known is None or found is None or found.kind != "c":
            return False
        set_now = {
            s.column
            for s in self.earlier
            if isinstance(s, SetNotNull) and self.is_same(s.table, ref)
        }
        return any(
            (c.not_null or c.name in set_now) and _proves(found.definition, c.name)
            for c in known.columns
        )

    def whole_name(self, ref: Ref) -> Ref:
        """
        Return the name that a table had before the revision.

        It has its schema, as far as facts tell that.
        """
        known = self.table(ref)
        if known is not None:
            return ref_of(known.name)
        return self._renamed.get(ref, ref)

    def is_same(self, one: Ref, other: Ref) -> bool:
        """Tell whether two names are of one table, with a schema or without."""
        return one == other or self.whole_name(one) == self.whole_name(other)

    def strong(self, statement: Statement) -> dict[Ref, Lock]:
        """Return the locks of a statement for which requests wait, by table in use."""
        if isinstance(statement, CreateView) and self._is_new(statement.view):
            return {}
        if isinstance(statement, DropIndex) and statement.table is None:
            # The index may be one that no database knows yet.
            made = self.made.indexes.get(statement.name.name)
            statement = replace(statement, table=made.table if made else None)
        found = lock_of(statement, self.table)
        return {
            ref: lock
            for ref, lock in found.items()
            if is_strong(lock) and not self.is_unused(ref)
        }

    def _is_new(self, view: Ref) -> bool:
        """Tell whether the database is known to have no such view."""
        return self.server_version is not None and self.table(view) is None

    def held(self) -> dict[Ref, Lock]:
        """Return the strong locks that the transaction holds so far, as `strong`."""
        return {} if self.autocommit else dict(self._held.values())

    def holders(self) -> list[Statement]:
        """Return the statements of the transaction that took these locks."""
        return [] if self.autocommit else self._strong

    def parameter(self, name: str) -> str | None:
        """Return what the revision has set a parameter to; None where it has not."""
        found = [
            s
            for s in self.earlier
            if isinstance(s, SetParameter)
            and s.name.lower() == name
            and (not s.local or s in self.same)
        ]
        return found[-1].value if found and found[-1].value != "DEFAULT" else None

    def committed(self) -> None:
        """Note that the transaction has ended."""
        self._begun, self._strong, self._held = [], [], {}

    def passed(self, statement: Statement) -> None:
        """Note a statement, before the next one is looked at."""
        strong = self.strong(statement)
        self.was_strong = self.was_strong or bool(strong)
        if self.autocommit or isinstance(statement, Transaction):
            self.committed()
        if not self.autocommit:
            self._begun.append(statement)
            self._hold(statement, strong)
        self.earlier.append(statement)
        is_new = isinstance(statement, CreateView) and self._is_new(statement.view)
        self.made.passed(statement, is_new=is_new)
        match statement:
            case RenameTable(table=table, to=to):
                self._rename(table, Ref(to, table.schema))
            case MoveTable(table=table, to=to):
                self._rename(table, Ref(table.name, to))
            case _:
                pass

    def _rename(self, table: Ref, to: Ref) -> None:
        if table not in self.made.tables:
            self._renamed[to] = self._renamed.pop(table, table)

    def _hold(self, statement: Statement, strong: dict[Ref, Lock]) -> None:
        if strong:
            self._strong.append(statement)
        for ref, lock in strong.items():
            name = self.whole_name(ref)
            given, before = self._held.get(name, (ref, Lock.NONE))
            self._held[name] = (given, lock if lock.rank > before.rank else before)
