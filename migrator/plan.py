"""Phases, steps and plans: data only.

A plan is what a person reviews, what the runner carries out and what the ledger
stores: the same text in all three. Nothing here executes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from psycopg import sql

from migrator.names import TableName

#: Stands for the file of a leaf that is no longer part of its partitioned table.
GONE = -1


class Phase(StrEnum):
    """The phases of a change, in running order."""

    EXPAND = "expand"
    BACKFILL = "backfill"
    VERIFY = "verify"
    RETIRE = "retire"
    DROP = "drop"

    @property
    def reaches(self) -> "State":
        """The state of a change when this phase is done."""
        return _REACHES[self]


class State(StrEnum):
    """Where a change stands, in the order in which it goes through."""

    PLANNED = "planned"
    EXPANDED = "expanded"
    BACKFILLED = "backfilled"
    VERIFIED = "verified"
    RETIRED = "retired"
    DROPPED = "dropped"

    @property
    def rank(self) -> int:
        """Position in the life of a change, 0 for planned."""
        return list(State).index(self)


_REACHES = {
    Phase.EXPAND: State.EXPANDED,
    Phase.BACKFILL: State.BACKFILLED,
    Phase.VERIFY: State.VERIFIED,
    Phase.RETIRE: State.RETIRED,
    Phase.DROP: State.DROPPED,
}


class Lock(StrEnum):
    """Table-level lock modes (manual, section 13.3.1), weakest first."""

    NONE = "none"
    ACCESS_SHARE = "ACCESS SHARE"
    ROW_SHARE = "ROW SHARE"
    ROW_EXCLUSIVE = "ROW EXCLUSIVE"
    SHARE_UPDATE_EXCLUSIVE = "SHARE UPDATE EXCLUSIVE"
    SHARE = "SHARE"
    SHARE_ROW_EXCLUSIVE = "SHARE ROW EXCLUSIVE"
    EXCLUSIVE = "EXCLUSIVE"
    ACCESS_EXCLUSIVE = "ACCESS EXCLUSIVE"

    @property
    def rank(self) -> int:
        """Position by strength, 0 for none."""
        return _RANKS[self]


_RANKS = {lock: number for number, lock in enumerate(Lock)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """
    A condition under which a transaction is not run.

    `count` is a query with one integer that must be 0, in a transaction answered
    from catalogues or an index; `why` tells it as "{count}" or
    as "{count:row is|rows are}". `listed` is a query with one text, which `why` tells
    as "{listed}": what was counted, by name. `count` ends at `most` where that is
    not 0.
    """

    count: str
    why: str
    next: str
    listed: str = ""
    most: int = 0

    @property
    def counts_rows(self) -> bool:
        """Whether rows are counted, and not what a catalogue has."""
        return "{count:row" in self.why


@dataclass(frozen=True, slots=True, kw_only=True)
class TableLock:
    """
    A lock on a further table that a step takes.

    `first` tells that it comes before the step's own, since requests that write both
    tables take them in that order. One with `if_there` is left out where it is gone.
    """

    table: TableName
    lock: Lock
    first: bool = False
    if_there: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """One short catalogue-only transaction; its strongest lock comes first."""

    statements: tuple[str, ...]
    lock: Lock = Lock.NONE
    table: TableName | None = None
    #: Query with one boolean: true where the effect is there already.
    done: str | None = None
    #: Conditions read once the lock is held, before anything is changed.
    refusals: tuple[Refusal, ...] = ()
    #: Conditions read before a step first runs: from then on, what they refuse may be
    #: the step's own. A way back has none.
    at_first: tuple[Refusal, ...] = ()
    also: tuple[TableLock, ...] = ()
    #: As of `Autocommit`.
    withdraw: tuple[str, ...] = ()
    withdrawable: str | None = None
    #: Whether it shows rows that were copied under the name of those they are copies
    #: of: to a snapshot from before the copy there are none, so it is waited for.
    shows_copies: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Autocommit:
    """One statement outside a transaction: a concurrent build, a validation."""

    statement: str
    lock: Lock
    table: TableName | None = None
    done: str | None = None
    #: Query (one boolean) that tells whether a failed earlier try left something, and
    #: the statement that removes it, or finishes it. What has it may be tried for as
    #: long as a build.
    leftover: str | None = None
    remove: str | None = None
    #: Whether it reads the whole table.
    scans: bool = False
    #: Conditions read before it runs; nothing is locked then, so they may scan.
    refusals: tuple[Refusal, ...] = ()
    #: As of `Transaction`.
    at_first: tuple[Refusal, ...] = ()
    also: tuple[TableLock, ...] = ()
    #: Locks that it does not take: it waits for the end of transactions that hold what
    #: conflicts with them, and keeps nobody waiting meanwhile.
    outlives: tuple[TableLock, ...] = ()
    #: Statements that take back what came before it on a way back, run where one of its
    #: conditions refuses that: else it would be held against the release that goes on.
    withdraw: tuple[str, ...] = ()
    #: Query (one boolean) that tells whether there is any of that; None where it is so.
    withdrawable: str | None = None
    #: Whether `done` is asked once more behind it: it may have run in vain.
    in_vain: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyset:
    """
    The unique index in whose order a table is gone over.

    Keys are arrays of text, one element for each column of the index; the empty
    one stands before all. `last` asks for the last key. `bound` asks, of the rows
    after key `$1` and up to key `$2`, for the `$3`-th key, or the last where there
    are fewer (`key`), and for how many rows that are (`rows`).
    """

    index: str
    last: str
    bound: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunking:
    """
    How a table is gone over, and why so.

    `stride` is the number of passes over each window of blocks; each pass but
    the last takes every `stride`-th row of a page, so that what one leaves dead
    makes room in the page for the next. 1 is one pass over all rows. `keyset`
    is given where it goes by keys instead of blocks. `room_blocks` is what the windows
    of a process's workers may take of the server's cache, all together; None where
    they are not bounded by it.
    """

    stride: int = 1
    room_blocks: int | None = None
    reason: str = ""
    keyset: Keyset | None = None

    @property
    def kind(self) -> str:
        """`keys`, `strides` or `blocks`."""
        if self.keyset is not None:
            return "keys"
        return "strides" if self.stride > 1 else "blocks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Upkeep:
    """
    What keeps a table small and its statistics fresh while rows are moved.

    `vacuum` runs each time a share `every` of the rows was moved; None where dead
    rows are none of the engine's business. `statistics` is for a table that was
    never analysed, `analyze` for the written columns, after the last chunk. Each
    is one statement outside a transaction that skips a locked table.
    """

    statistics: str
    analyze: str
    vacuum: str | None = None
    every: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkedUpdate:
    """
    Rows brought across, one chunk per transaction.

    `statement` takes two `tid` parameters, `$1` (from) and `$2` (up to, not
    included), or two keys, `$1` (not included) and `$2` (included); `strided` a
    third, the pass, counted from 0. `guard` is a query with one boolean that must be
    true in every chunk's transaction: the dual write is on. `guard_tables` are those
    whose triggers it asks about, where they are not `table` alone. `root` is the
    partitioned table of which `table` is a leaf: a leaf that is no longer part of it is
    done.
    """

    statement: str
    table: TableName
    strided: str
    chunking: Chunking
    upkeep: Upkeep | None = None
    guard: str | None = None
    guard_tables: tuple[TableName, ...] = ()
    lock: Lock = Lock.ROW_EXCLUSIVE
    root: TableName | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkedCheck:
    """
    Rows compared, one chunk per statement, and repaired.

    `count` returns the rows of a chunk that are out of step; `repair` is the
    statement of the backfill, which may tell the keys of rows that it took out of the
    chunk and left out of step, in a column `apart`. Both take the parameters of a
    `ChunkedUpdate`.
    `listing` returns the first `$3` of these rows: `key` and `given`, objects of
    columns and values as JSON text; the second is NULL where `$4` is false.
    `wrong` says what such a row is where there is no other shape: "a duplicate".
    """

    count: str
    listing: str
    repair: str | None
    table: TableName
    chunking: Chunking = Chunking()
    guard: str | None = None
    guard_tables: tuple[TableName, ...] = ()
    lock: Lock = Lock.ACCESS_SHARE
    root: TableName | None = None
    wrong: str = ""


Action = Transaction | Autocommit
Work = Transaction | Autocommit | ChunkedUpdate | ChunkedCheck


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """
    One step of a change, with its way back.

    Args:
        name: short, unique within its phase.
        work: what runs.
        reverse: what takes it back, in running order; empty where nothing has
            to be taken back, which `no_reverse` then explains.
        no_reverse: why there is no reverse.
        loses: whether going back is impossible, not merely needless.
    """

    name: str
    work: Work
    reverse: tuple[Action, ...] = ()
    no_reverse: str = ""
    loses: bool = False
    #: Drops for good what the reverse parked, after the hold.
    parked: Transaction | None = None
    #: Makes again what goes along at the drop, once the rest of the old shape was
    #: rebuilt, where no release runs.
    along: tuple[Action, ...] = ()

    def __post_init__(self) -> None:
        """Hold every step to a reverse or to a reason."""
        if bool(self.reverse) == bool(self.no_reverse):
            raise ValueError(f"step {self.name!r} needs a reverse or a reason")
        if any(a.done is None for a in self.reverse[:-1]):
            # The step's status tells of its last action alone.
            raise ValueError(f"step {self.name!r}: `done` is missing in its reverse")


Steps = tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """
    A trial before anything is changed: always rolled back.

    `statements` touch temporary objects only; `question` returns one boolean,
    and where it is false the change is refused with `otherwise`; or a text, which
    has to be empty and which `otherwise` tells as "{found}". An error of
    either refuses the change with the server's words: behind `failed` and with
    `next` where that is given, as one of the pattern's expression where not. `notice`
    tells a text as "{found}" to the reviewer, and refuses nothing.
    """

    statements: tuple[str, ...]
    question: str
    otherwise: str
    next: str = ""
    failed: str = ""
    notice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """
    Something a reviewer should know.

    `needs_assurance` refuses the change until the pattern carries
    `assured="reason"`.
    """

    text: str
    needs_assurance: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """
    Columns of a table that a change touches; None stands for all.

    `made` tells that the change brings a table under that name: a model has it before
    the database does. `needed` tells that it only has to stay as it is: several changes
    may need the same.
    """

    table: TableName
    columns: frozenset[str] | None
    made: bool = False
    needed: bool = False

    def overlaps(self, other: "Footprint") -> bool:
        """Tell whether both touch one column, and one of them changes it."""
        if self.table != other.table or (self.needed and other.needed):
            return False
        if self.columns is None or other.columns is None:
            return True
        return not self.columns.isdisjoint(other.columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """
    What a declaration names, without a database: columns of a table, None for all.

    Facts may add to it: see `Footprint`. Without a schema it is the first of the search
    path, which most projects leave at "public".
    """

    table: str
    schema: str | None = None
    columns: frozenset[str] | None = None
    needed: bool = False

    def shared(self, other: "Reach") -> str:
        """Return what both touch, for a person; "" where they do not overlap."""
        same = (self.schema or "public") == (other.schema or "public")
        if self.table != other.table or not same or (self.needed and other.needed):
            return ""
        if self.columns is None or other.columns is None:
            return f'"{self.table}"'
        both = sorted(self.columns & other.columns)
        return ", ".join(f'"{c}"' for c in both) + f' of "{self.table}"' if both else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A change as a reviewer sees it: all phases, from one set of facts."""

    change: str
    title: str
    table: TableName
    rows: int
    size_bytes: int
    admission: State
    #: What `table` names, in the words of `facts.Kind`.
    kind: str = "table"
    notices: tuple[Notice, ...] = ()
    #: Rows of further tables, as far as statistics know them.
    others: Mapping[TableName, int] = field(default_factory=dict[TableName, int])
    phases: Mapping[Phase, Steps] = field(default_factory=dict[Phase, Steps])

    def steps(self, phase: Phase) -> Steps:
        """Return the steps of a phase, none where it is empty."""
        return self.phases.get(phase, ())


def render(*parts: sql.Composable) -> str:
    """Return SQL as text; the only way from composed SQL into a plan."""
    return sql.SQL("").join(parts).as_string(None)


def expression(text: str) -> sql.Composable:
    """Take a user's SQL expression into composed SQL, in parentheses."""
    # The user's own SQL is the one text that is meant to be run as it stands.
    return sql.Composed([sql.SQL("("), _Verbatim(text), sql.SQL(")")])


def missing(value: sql.Composable) -> sql.Composable:
    """
    Return the condition that a value is NULL.

    `IS NULL` of a row asks for its fields (manual, section 9.2): it is true of
    `ROW(NULL)`, and neither it nor `IS NOT NULL` is of `ROW(1, NULL)`.
    """
    return sql.SQL("{} IS NOT DISTINCT FROM NULL").format(value)


def present(value: sql.Composable) -> sql.Composable:
    """Return the condition that a value is not NULL, be it a row of NULLs."""
    return sql.SQL("{} IS DISTINCT FROM NULL").format(value)


def type_name(text: str) -> sql.Composable:
    """Take a type's name, as the catalogue or the user spells it."""
    return _Verbatim(text)


class _Verbatim(sql.Composable):
    """SQL text from the user or the catalogue, kept to the letter."""

    def __init__(self, text: str) -> None:
        self._obj = text

    def as_bytes(self, context: Any = None) -> bytes:
        return str(self._obj).encode()

    def as_string(self, context: Any = None) -> str:
        return str(self._obj)
