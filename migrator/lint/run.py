"""The revisions before the one that is looked at: what they did, and which go with it.

Rules ask one place for a table, whether a database tells of it or an earlier revision.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import ModuleType

from migrator.facts import ForeignKey, Table
from migrator.lint import sketch
from migrator.lint import statements as st
from migrator.lint.made import Made
from migrator.lint.scene import Reader
from migrator.lint.statements import Ref, Statement, ref_of
from migrator.names import TableName
from migrator.pattern import Pattern, Undecided

# Revisions of so short a time are of one piece of work: no release is between them.
TOGETHER = timedelta(hours=1)

#: Where names without a schema are, on most servers.
USUAL = "public"

# As Alembic writes it above a revision.
_DATE = re.compile(r"^Create Date:\s*(?P<date>\S.*?)\s*$", re.MULTILINE)


@dataclass(slots=True, kw_only=True)
class Run:
    """
    What revisions did, in the order in which they are met.

    Args:
        read: reads facts of tables as they are before the first one; None without a
            database.
        unreleased: whether no release is between them, as where a database has none of
            them yet. Else those are taken for one release that were made together.
    """

    read: Reader | None = None
    unreleased: bool = False
    _tables: dict[TableName, Table | None] = field(
        default_factory=dict[TableName, Table | None]
    )
    #: Those that got another name, which the revision gives without a schema.
    _short: dict[str, TableName] = field(default_factory=dict[str, TableName])
    _indexes: dict[TableName, TableName] = field(
        default_factory=dict[TableName, TableName]
    )
    _found: dict[Ref, Table | None] = field(default_factory=dict[Ref, Table | None])
    #: Tables that are there, and not told whole.
    _half: set[TableName] = field(default_factory=set[TableName])
    #: That of which this one is a continuation.
    _outer: "Run | None" = None
    _made: Made = field(default_factory=Made)
    _began: datetime | None = None
    #: The revision that is looked at, and what it does: it counts from the next one on.
    _now: str = ""
    _doing: Sequence[Statement] = ()
    #: Whether the releases in use have it.
    _is_out: bool = False

    def at(self, revision: str, module: ModuleType, *, released: bool = False) -> None:
        """
        Go on to a revision.

        Args:
            revision: its id; the one of before may come again, changed.
            module: its code.
            released: whether the releases in use have it.
        """
        if revision == self._now:
            return
        for statement in self._doing:
            self.follow(statement)
            self._made.passed(statement)
        self._now, self._doing = revision, ()
        if self._is_out or released:
            # Nothing that was made so far is new to the next one.
            self._made, self._began = Made(), None
        self._is_out = released
        if not self.unreleased:
            self._begin(_date(module))

    def does(self, done: Sequence[Statement]) -> Made:
        """Note what the revision does; return what others of its release made."""
        self._doing = done
        return self._made.copy()

    def fork(self) -> "Run":
        """Return what is known before the revision, to be told what it does."""
        return Run(read=self.table, _outer=self)

    def _begin(self, date: datetime | None) -> None:
        """Begin a release, unless a revision belongs to the one of before."""
        if (
            date is None
            or self._began is None
            or not (timedelta(0) <= date - self._began <= TOGETHER)
        ):
            self._made, self._began = Made(), date

    @property
    def is_whole(self) -> bool:
        """Whether there are no tables but those that revisions made."""
        return self.read is None if self._outer is None else self._outer.is_whole

    def names(self, schema: str | None) -> set[str]:
        """Return the names of the tables that revisions made, in a schema."""
        outer = set[str]() if self._outer is None else self._outer.names(schema)
        mine = {n: t is not None or n in self._half for n, t in self._tables.items()}
        same = {"", USUAL} if schema in {None, USUAL} else {schema}
        here = {n.name: there for n, there in mine.items() if n.schema in same}
        gone = {name for name, there in here.items() if not there}
        return (outer - gone) | (here.keys() - gone)

    def is_there(self, ref: Ref) -> bool:
        """Tell whether there is a table, also one of which no more is known."""
        name = self._name(ref)
        if name.name != ref.name:
            return False
        if name in self._tables:
            return self._tables[name] is not None or name in self._half
        if self._outer is not None:
            return self._outer.is_there(ref)
        return self._before(ref) is not None

    def table(self, ref: Ref) -> Table | None:
        """Return what is known of a table, or of an index's; None for nothing."""
        name = self._name(ref)
        if name not in self._tables:
            return self._before(ref)
        found = self._tables[name]
        if found is not None and name.name != ref.name and not found.index(ref.name):
            # The index is gone by which it was found.
            return None
        return found

    def _before(self, ref: Ref) -> Table | None:
        if ref not in self._found:
            self._found[ref] = None if self.read is None else self.read(ref)
        return self._found[ref]

    def _name(self, ref: Ref) -> TableName:
        """Return a table's full name; for an index, that of its table."""
        name = sketch.named(ref)
        if name in self._tables:
            return name
        if ref.schema is None and ref.name in self._short:
            return self._short[ref.name]
        if name in self._indexes:
            return self._indexes[name]
        known = self._before(ref)
        if known is not None:
            return known.name
        # One revision gives the usual schema, and another one does not.
        usual = _otherwise(name)
        return usual if usual in self._tables else self._indexes.get(usual, name)

    def follow(self, statement: Statement) -> None:
        """Note what a statement makes of tables."""
        match statement:
            case st.CreateTable(table=ref):
                if not (statement.if_not_exists and self.table(ref)):
                    self._create(statement)
            case st.DropTable(table=ref):
                self._drop(self._name(ref))
            case st.RenameTable(table=ref, to=to):
                self._move(ref, Ref(to, ref.schema))
            case st.MoveTable(table=ref, to=to):
                self._move(ref, Ref(ref.name, to))
            case st.DropIndex(name=ref) | st.RenameIndex(name=ref):
                self._change(ref, statement)
            case st.OnTable(table=ref):
                self._change(ref, statement)
            case st.Carried(pattern=pattern) if pattern is not None:
                self._carry(pattern)
            case _:
                pass

    def _create(self, statement: st.CreateTable) -> None:
        name = self._name(statement.table)
        made = sketch.created(statement)
        if made is not None and made.name.name == name.name:
            made = sketch.moved(made, name)
        # Where not all of it is told, no more is known than that it is there.
        self._tables[name] = made
        if made is not None:
            self._put(made)
        elif not statement.temporary:
            self._half.add(name)

    def _drop(self, name: TableName) -> None:
        gone = self._known(name)
        self._tables[name] = None
        self._half.discard(name)
        self._tell(gone, None)

    def _move(self, ref: Ref, to: Ref) -> None:
        table = self.table(ref)
        if table is None:
            return
        self._tables[table.name] = None
        new = TableName(to.schema or table.name.schema, to.name)
        if to.schema is None:
            self._short[new.name] = new
        self._put(sketch.moved(table, new), table)

    def _change(self, ref: Ref, statement: Statement) -> None:
        table = self.table(ref)
        if table is not None:
            self._put(sketch.changed(table, statement), table)

    def _put(self, table: Table, before: Table | None = None) -> None:
        """Note what a table is like now, and those at the other end of its keys."""
        if before is None or table.foreign_keys is not before.foreign_keys:
            keys = tuple(map(self._whole, table.foreign_keys))
            table = replace(table, foreign_keys=keys)
            self._tell(before, table)
        self._tables[table.name] = table
        if before is None or table.indexes is not before.indexes:
            for index in table.indexes:
                self._indexes[TableName(table.name.schema, index.name)] = table.name

    def _tell(self, before: Table | None, table: Table | None) -> None:
        """Let tables at the other end of foreign keys know what became of them."""
        names = {one.name for one in (before, table) if one is not None}
        for other in (_ends(before) | _ends(table)) - names:
            known = self._known(other)
            if known is None:
                continue
            kept = (k for k in known.foreign_keys if names.isdisjoint({k.table, k.to}))
            ends = () if table is None else table.foreign_keys
            keys = (*kept, *(k for k in ends if other in {k.table, k.to}))
            own = {k.name for k in keys if k.table == other}
            constraints = (
                c for c in known.constraints if c.kind != "f" or c.name in own
            )
            self._tables[other] = replace(
                known, foreign_keys=keys, constraints=tuple(constraints)
            )

    def _known(self, name: TableName) -> Table | None:
        if name in self._tables:
            return self._tables[name]
        return self._before(ref_of(name))

    def _whole(self, key: ForeignKey) -> ForeignKey:
        """Return a foreign key with the full name of what it refers to, and columns."""
        to = self._name(ref_of(key.to))
        columns = key.to_columns
        if not columns and (parent := self._known(to)) is not None:
            found = (c.columns for c in parent.constraints if c.kind == "p")
            columns = next(found, ())
        return replace(key, to=to, to_columns=columns)

    def _carry(self, pattern: Pattern) -> None:
        """Note what a change leaves behind, as far as it says that."""
        name = getattr(pattern, "table", None)
        final = None if isinstance(pattern, Undecided) else pattern.final()
        if not isinstance(name, str) or final is None:
            return
        ref = Ref(name, getattr(pattern, "schema", None))
        if not final.there:
            self._drop(self._name(ref))
            return
        if (table := self.table(ref)) is not None:
            self._put(sketch.finished(table, pattern, final), table)


def _otherwise(name: TableName) -> TableName:
    """Return a name with the usual schema where it has none, and the reverse."""
    return replace(name, schema={"": USUAL, USUAL: ""}.get(name.schema, name.schema))


def _ends(table: Table | None) -> set[TableName]:
    """Return the tables at either end of a table's foreign keys."""
    keys = () if table is None else table.foreign_keys
    return {end for key in keys for end in (key.table, key.to)}


def _date(module: ModuleType) -> datetime | None:
    """Return when a revision was made, as it says."""
    found = _DATE.search(module.__doc__ or "")
    if found is None:
        return None
    try:
        # One author's clock: its zone tells nothing.
        return datetime.fromisoformat(found["date"]).replace(tzinfo=None)
    except ValueError:
        return None
