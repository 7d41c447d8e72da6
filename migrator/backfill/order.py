"""The order in which a table is gone over: of its blocks, or of an index's keys.

Blocks mean nothing once the table's file is another one (CLUSTER, TRUNCATE, a
restore); keys do, and they are there under every table access method.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from psycopg.sql import SQL

from migrator.errors import Failed
from migrator.kernels.chunking import LEAST_BLOCKS, WINDOW_BLOCKS
from migrator.kernels.direct import belongs
from migrator.ledger.windows import Cut, Key, Window
from migrator.names import TableName
from migrator.plan import GONE, ChunkedCheck, ChunkedUpdate, Keyset, render
from migrator.postgres.connection import Connection, ask, execute_stored

#: Where a chunk begins or ends: a block, or a key.
Place = int | Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """
    One chunk: what its statements take, and where it ends.

    `size` counts blocks or rows, as the pace does.
    """

    params: list[Any]
    stop: Place
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(ABC):
    """
    How a pass goes over a table.

    Args:
        table: the table.
        strides: passes over each window.
        workers: of this process.
        root: the partitioned table of which it is a leaf.
    """

    table: TableName
    strides: int = 1
    workers: int = 1
    root: TableName | None = None

    #: Size of the first chunk.
    first: ClassVar[int]
    #: SQL of a number that changes with the table's file; `$1` is the table.
    number: ClassVar[str]

    @property
    def file(self) -> str:
        """The number, or GONE where the table is a leaf no longer."""
        if self.root is None:
            return self.number
        there = render(belongs(SQL("$1::text"), self.root))
        return f"COALESCE((SELECT {self.number} WHERE {there}), {GONE})"

    def end(self, conn: Connection) -> tuple[int, Key | None]:
        """
        Return the size of the whole, and its last key where it has keys.

        A leaf that is gone has none: what is said of its rows is not ours.
        """
        if self.root and ask(conn, f"SELECT {self.file}", [str(self.table)]) == GONE:
            return 0, None
        return self.whole(conn)

    @property
    @abstractmethod
    def most(self) -> int:
        """Size of a chunk at most."""

    @abstractmethod
    def window(self, end: int) -> int:
        """Return the size of a window, of a pass that ends at `end`."""

    @abstractmethod
    def whole(self, conn: Connection) -> tuple[int, Key | None]:
        """Return the size of the whole, and its last key where it has keys."""

    def cut(self, conn: Connection, size: int) -> Cut | None:
        """Return what finds a window's end; None where blocks are counted."""
        return None

    @abstractmethod
    def start(self, window: Window) -> Place:
        """Return where a window's first chunk begins."""

    @abstractmethod
    def ends(self, window: Window, at: Place) -> bool:
        """Tell whether nothing of a window is left behind a place."""

    @abstractmethod
    def name(self, window: Window, at: Place, size: int) -> str:
        """Return what a chunk is called in messages; the table is not asked."""

    def told(self, window: Window, at: Place, size: int) -> str:
        """Return the same for errors of the server's, which have no keys."""
        return f"A chunk of table {self.table}"

    @abstractmethod
    def chunk(self, conn: Connection, window: Window, at: Place, size: int) -> Chunk:
        """Return the chunk of a size that begins at a place."""


# Blocks of the first chunk: 128 kB, some thousand rows at most, a few ms.
FIRST_BLOCKS = 16
# Blocks of a window, and of a chunk of it, where workers share the table: the
# time between two visits of a page has to be longer than another worker's chunk,
# or its snapshot keeps the first visit's dead rows from being pruned.
SHARED_WINDOW_BLOCKS = 8192
SHARED_CHUNK_BLOCKS = 512
# Windows for each worker at least, so that none is idle for long at the end.
WINDOWS_PER_WORKER = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PhysicalOrder(Order):
    """
    A table in the order of its blocks.

    Args:
        room_blocks: that the windows of all workers may take; None for no bound.
    """

    room_blocks: int | None = None

    first: ClassVar[int] = FIRST_BLOCKS
    # Blocks mean nothing in another file. Where a dump is restored a file may happen to
    # have the same number, but not the ledger's and the table's OIDs as well.
    number: ClassVar[str] = (
        "pg_catalog.hashtextextended(pg_catalog.concat_ws(' ',"
        " 'migrator.steps'::pg_catalog.regclass::pg_catalog.oid,"
        " $1::text::pg_catalog.regclass::pg_catalog.oid,"
        " pg_catalog.pg_relation_filenode($1::text::pg_catalog.regclass)), 0)"
    )

    @property
    def _shared(self) -> bool:
        return self.workers > 1 and self.strides > 1

    @property
    def most(self) -> int:
        """A window, or less of it where workers share the table."""
        if not self._shared:
            return self._kept(WINDOW_BLOCKS)
        return min(SHARED_CHUNK_BLOCKS, self._kept(SHARED_WINDOW_BLOCKS) // 4)

    def window(self, end: int) -> int:
        """Return a length in blocks."""
        if not self._shared:
            return self._kept(WINDOW_BLOCKS)
        share = end // (self.workers * WINDOWS_PER_WORKER)
        return self._kept(min(max(share, WINDOW_BLOCKS), SHARED_WINDOW_BLOCKS))

    def _kept(self, blocks: int) -> int:
        """Return a window that stays in the cache beside those of other workers."""
        if self.room_blocks is None:
            return blocks
        return min(blocks, max(self.room_blocks // self.workers, LEAST_BLOCKS))

    def whole(self, conn: Connection) -> tuple[int, Key | None]:
        """Return the table's length in blocks."""
        size = ask(
            conn,
            "SELECT pg_catalog.pg_relation_size($1::pg_catalog.regclass)"
            " / current_setting('block_size')::int",
            [str(self.table)],
        )
        return int(size), None

    def start(self, window: Window) -> Place:
        """Return a block."""
        return window.start

    def ends(self, window: Window, at: Place) -> bool:
        """Compare blocks."""
        assert isinstance(at, int)
        return at >= window.stop

    def name(self, window: Window, at: Place, size: int) -> str:
        """Return blocks."""
        assert isinstance(at, int)
        return f"blocks {at} to {min(at + size, window.stop)} of table {self.table}"

    def told(self, window: Window, at: Place, size: int) -> str:
        """Return blocks: they find the row that is refused."""
        name = self.name(window, at, size)
        return name[0].upper() + name[1:]

    def chunk(self, conn: Connection, window: Window, at: Place, size: int) -> Chunk:
        """Return blocks."""
        assert isinstance(at, int)
        stop = min(at + size, window.stop)
        return Chunk(
            params=[f"({at},0)", f"({stop},0)"],
            stop=stop,
            size=stop - at,
        )


# Rows of the first chunk: a few ms.
FIRST_ROWS = 500
# Rows of a chunk, and of a window: finding a window's end reads that many entries
# of the index, some ms.
MOST_ROWS = 20_000
WINDOW_ROWS = 40_000


# Question whether the index is there; a leaf that is gone has none, and is passed over.
_INDEXED = (
    "SELECT pg_catalog.to_regclass($1) IS NULL OR EXISTS (SELECT"
    " FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid"
    " WHERE i.indrelid = pg_catalog.to_regclass($1) AND i.indisvalid"
    " AND x.relname = $2::text)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyOrder(Order):
    """A table in the order of a unique index."""

    keyset: Keyset

    first: ClassVar[int] = FIRST_ROWS
    # Keys outlive the table's file.
    number: ClassVar[str] = "0 * pg_catalog.length($1::text)"

    @property
    def most(self) -> int:
        """A number of rows."""
        return MOST_ROWS

    def window(self, end: int) -> int:
        """Return a number of rows."""
        return WINDOW_ROWS

    def whole(self, conn: Connection) -> tuple[int, Key | None]:
        """Return how many rows there may be, and the last key."""
        rows = ask(
            conn,
            "SELECT reltuples::bigint FROM pg_catalog.pg_class"
            " WHERE oid = $1::pg_catalog.regclass",
            [str(self.table)],
        )
        last: Key | None = ask(conn, self.keyset.last)
        return max(int(rows), 0), last or []

    def cut(self, conn: Connection, size: int) -> Cut | None:
        """
        Return what asks the index.

        Raises:
            Failed: there is none any more.
        """
        if not ask(conn, _INDEXED, [str(self.table), self.keyset.index]):
            raise Failed(
                f'Index "{self.keyset.index}" of table {self.table} is gone, invalid or'
                " has another name: each chunk by its keys would read the whole table.",
                state="Earlier chunks are committed.",
                next="make it again under this name, then run the same command again;"
                " or roll back, and expand and backfill again.",
            )
        return lambda after, upto: self._bound(conn, after, upto, size)

    def _bound(
        self, conn: Connection, after: Key, upto: Key, rows: int
    ) -> tuple[Key, int]:
        found = execute_stored(conn, self.keyset.bound, [after, upto, rows]).fetchone()
        if found is None or found["rows"] < rows:
            return upto, 0 if found is None else int(found["rows"])
        if found["key"] == after:
            raise Failed(
                f"A key of table {self.table} is another one once it was text:"
                f" ({', '.join(after)}).",
                state="Earlier chunks are committed.",
                next="roll back, then expand again with another --chunking.",
            )
        return found["key"], int(found["rows"])

    def start(self, window: Window) -> Place:
        """Return a key."""
        assert window.after is not None
        return window.after

    def ends(self, window: Window, at: Place) -> bool:
        """Compare keys."""
        return at == window.upto

    def name(self, window: Window, at: Place, size: int) -> str:
        """Return the keys that it lies between; its end is not known yet."""
        assert isinstance(at, list)
        assert window.upto is not None
        after = f"after ({', '.join(at)}) " if at else ""
        return f"keys {after}up to ({', '.join(window.upto)}) of table {self.table}"

    def chunk(self, conn: Connection, window: Window, at: Place, size: int) -> Chunk:
        """Return the rows after a key."""
        assert isinstance(at, list)
        assert window.upto is not None
        stop, rows = self._bound(conn, at, window.upto, size)
        return Chunk(
            params=[at, stop],
            stop=stop,
            size=rows,
        )


def order_of(work: ChunkedUpdate | ChunkedCheck, workers: int) -> Order:
    """Return how a step's work goes over its table."""
    if work.chunking.keyset is not None:
        return KeyOrder(
            table=work.table,
            workers=workers,
            root=work.root,
            keyset=work.chunking.keyset,
        )
    strides = work.chunking.stride if isinstance(work, ChunkedUpdate) else 1
    return PhysicalOrder(
        table=work.table,
        strides=strides,
        workers=workers,
        root=work.root,
        room_blocks=work.chunking.room_blocks,
    )
