"""How a backfill goes over a table, chosen from facts.

An update that changes no indexed column can stay in its page (heap-only tuple,
HOT) where the page has room: no index entry, little bloat, about 0.6 of the WAL.
A full page has none, unless it is updated in several passes, each making room
for the next: strides, over windows that stay in the server's cache meanwhile. The
order of blocks needs neither a key nor statistics, reads each page once, and is
never slower than the order of keys on a heap; that one visits a page for each row
where the rows stand in another order. Keys are for tables that are no heap, and for
those that are rewritten meanwhile. Source: PostgreSQL manual,
section 66.7 (HOT); the figures are in docs/performance.md.
"""

from psycopg import sql

from migrator.errors import Refused, UsageError
from migrator.facts import Facts, Index, Table
from migrator.plan import Chunking, Keyset, Upkeep, render, type_name
from migrator.words import counted, size

# Passes over a window: 1/8 of a page's rows fit into what the pass before freed.
STRIDE = 8
# With more indexes HOT is worth more than the visits of a page cost.
STRIDE_MANY_INDEXES = 16
MANY_INDEXES = 5
# Share: from here down a page has room for a second version of all its rows.
ROOMY = 0.55
# Bytes of a block, unless the server was built otherwise.
BLOCK_BYTES = 8192
# Blocks of a window: 16 MB. Pages that one pass has visited are still in memory for the
# next, and a chunk's round trips are small beside its work.
WINDOW_BLOCKS = 2048
# Share of the server's cache that windows may take between their passes. The other
# part is for their index pages and for the application. At 8 MB of cache each block of
# the table was read 8 times with windows of 16 MB, and 2 times with a quarter of the
# cache, hardly less with an eighth; at 2 MB it was the same, and one pass, whose rows
# move to other pages, read twice as much as small windows.
OF_CACHE = 0.25
# Blocks of a window at least: to claim and to finish one takes a transaction each.
LEAST_BLOCKS = 32
# From here on rows count as standing in the order of a key.
IN_ORDER = 0.9

# Seconds from which on a snapshot outlasts the passes over a window, so that none
# of them makes room for the next one.
HELD_S = 2.0

# Share of the table after which VACUUM makes room for what follows, where one pass
# leaves a dead version of each row behind. Strides prune theirs themselves: with
# VACUUM in between they took an eighth longer, and saved 5 % of the table.
VACUUM_EVERY = 0.1

KINDS = ("strides", "blocks", "keys")


def chosen(facts: Facts, written: frozenset[str]) -> Chunking:
    """
    Return how to go over the table of a backfill.

    Args:
        facts: of the table; `facts.chunking` is what the user asked for.
        written: the columns that the backfill writes.

    Raises:
        UsageError: the user asked for a kind that there is not.
        Refused: only keys would do, and no unique index is usable.
    """
    table = facts.table
    if facts.chunking not in (None, *KINDS):
        raise UsageError(
            f'"{facts.chunking}" is no way of chunking.',
            next=f"give one of {', '.join(KINDS)}.",
        )
    room = _room(facts)
    many = len(table.indexes) >= MANY_INDEXES
    stride = STRIDE_MANY_INDEXES if many else STRIDE
    if facts.chunking == "keys":
        return by_keys(facts, "as asked for")
    if table.method != "heap":
        return by_keys(facts, f"access method {table.method} has no blocks to go by")
    if facts.chunking == "strides":
        return Chunking(stride=stride, room_blocks=room, reason="strides, as asked for")
    if facts.chunking == "blocks":
        return Chunking(stride=1, reason="one pass, as asked for")
    holding = [i.name for i in table.indexes if not written.isdisjoint(i.columns)]
    if holding:
        return Chunking(
            stride=1,
            reason=f'one pass: index "{holding[0]}" holds the written column, so that'
            f" no update can stay in its page's chain{_not_keys(facts)}",
        )
    filled = _filled(table)
    if filled <= ROOMY:
        return Chunking(
            stride=1,
            reason=f"one pass: pages are filled to {filled * 100:.0f} % and have room"
            f" for the new versions{_not_keys(facts)}",
        )
    indexes = counted(
        len(table.indexes), "index stays untouched", "indexes stay untouched"
    )
    held = facts.oldest_snapshot
    now = held is not None and held.held_s >= HELD_S
    return Chunking(
        stride=stride,
        room_blocks=room,
        reason=f"{stride} passes over each window{_cached(facts, room)}: new versions"
        " stay in their pages,"
        f" {indexes if table.indexes else 'the table stays small'}; one pass while a"
        f" snapshot is held{f', as now by {held.holder}' if held and now else ''}"
        f"{_not_keys(facts)}",
    )


def _room(facts: Facts) -> int | None:
    """Return blocks that windows may take of the cache; None for the whole table."""
    if facts.cache_bytes is None:
        return None
    room = facts.cache_bytes * OF_CACHE
    if facts.table.size_bytes <= room:
        return None
    return max(int(room / BLOCK_BYTES), LEAST_BLOCKS)


def _sizes(facts: Facts) -> str:
    return (
        f"table {size(facts.table.size_bytes)},"
        f" shared_buffers {size(facts.cache_bytes or 0)}"
    )


def _cached(facts: Facts, room: int | None) -> str:
    """Tell that windows stay in the cache, and which they are."""
    if facts.cache_bytes is None:
        return ""
    if room is None:
        return f" (cached whole: {_sizes(facts)})"
    window = min(WINDOW_BLOCKS, room) * BLOCK_BYTES
    return f" of {size(window)}, which stays cached between them ({_sizes(facts)})"


def _not_keys(facts: Facts) -> str:
    """Tell where keys would do as well, and why they are the worse way."""
    index = _index_of_keys(facts)
    if index is None or index.correlation is None or _in_order(index):
        return ""
    return f'; not by keys, as {_order(index)} of index "{index.name}"'


def _in_order(index: Index) -> bool:
    return index.correlation is None or abs(index.correlation) >= IN_ORDER


def _order(index: Index) -> str:
    stand = "stand" if _in_order(index) else "do not stand"
    return f"rows {stand} in the order (correlation {index.correlation:.2f})"


def _filled(table: Table) -> float:
    """Return the share of a page that rows take."""
    return min(table.fillfactor / 100, table.filled or 1.0)


def kept(facts: Facts, chunking: Chunking, written: frozenset[str]) -> Upkeep:
    """
    Return what keeps the table small and its statistics fresh meanwhile.

    VACUUM is for one pass over pages without room: where new versions stay in their
    pages, what is dead is pruned by whoever comes next. TRUNCATE is off, since it
    needs ACCESS EXCLUSIVE.

    Source: PostgreSQL manual, VACUUM and ANALYZE.
    """
    table = facts.table.name.identifier
    columns = sql.SQL(", ").join(map(sql.Identifier, sorted(written)))
    held = any(not written.isdisjoint(i.columns) for i in facts.table.indexes)
    moves = held or _filled(facts.table) > ROOMY
    dead = facts.table.method == "heap" and chunking.stride == 1 and moves
    vacuum = sql.SQL(
        "VACUUM (SKIP_LOCKED, TRUNCATE false, INDEX_CLEANUP auto) {}"
    ).format(table)
    return Upkeep(
        statistics=render(sql.SQL("ANALYZE (SKIP_LOCKED) {}").format(table)),
        analyze=render(sql.SQL("ANALYZE (SKIP_LOCKED) {} ({})").format(table, columns)),
        vacuum=render(vacuum) if dead else None,
        every=VACUUM_EVERY,
    )


def compared(facts: Facts) -> Chunking:
    """Return how to go over the table of a comparison: it reads each row once."""
    if facts.table.method != "heap":
        return by_keys(facts, f"access method {facts.table.method}")
    return Chunking(reason="one pass")


def by_keys(facts: Facts, why: str) -> Chunking:
    """
    Return the way by the keys of the table's shortest unique index.

    Of several that are as short, the one in whose order the rows stand: elsewhere a
    chunk reads a page for each of its rows, and from disk where the table is larger
    than the cache.

    Raises:
        Refused: no unique index has all rows under keys that are not NULL.
    """
    index = _index_of_keys(facts)
    if index is None:
        raise Refused(
            f"Table {facts.table.name} has no unique btree index over columns that"
            " are NOT NULL, in their default order; it cannot be gone over by keys.",
            next="give it a primary key, or leave --chunking out.",
        )
    return Chunking(
        reason=f'keys of index "{index.name}": {why}{_visits(facts, index)}',
        keyset=_keyset(facts, index),
    )


def _visits(facts: Facts, index: Index) -> str:
    """Tell what the order of keys costs."""
    if index.correlation is None:
        return ""
    cost = "" if _in_order(index) else ", each may read another page"
    sizes = "" if facts.cache_bytes is None else f"; {_sizes(facts)}"
    return f"; {_order(index)}{cost}{sizes}"


def unique_index(facts: Facts) -> Index | None:
    """
    Return the unique index whose keys name the rows, if any: the primary key's.

    Its values change least. Where it has not each row, or is checked late, which ON
    CONFLICT takes none of, it is the shortest other one.
    """
    late = {
        c.index or c.name
        for c in facts.table.constraints
        if c.deferrable and c.kind in ("p", "u")
    }
    return min(
        _usable(facts),
        key=lambda i: (i.name in late, not i.primary, len(i.keys), i.name),
        default=None,
    )


def _index_of_keys(facts: Facts) -> Index | None:
    """Return the same; of those as short, one in whose order the rows stand."""
    return min(
        _usable(facts),
        key=lambda i: (len(i.keys), not _in_order(i), i.name),
        default=None,
    )


def _usable(facts: Facts) -> list[Index]:
    """Return the unique indexes that have each row under a key."""

    def usable(index: Index) -> bool:
        found = [facts.table.column(key.name) for key in index.keys]
        return (
            index.unique
            and index.valid
            and index.plain
            and index.method == "btree"
            and all(key.options == "" for key in index.keys)
            # The server would look a bare `>` up in the search path, and there
            # find another order than the index has, or none.
            and "" not in (index.greater, index.not_greater)
            # A key that is NULL would come in no chunk.
            and all(c is not None and c.not_null and not c.unproved for c in found)
        )

    return list(filter(usable, facts.table.indexes))


def _row(index: Index) -> sql.Composable:
    return sql.SQL("ROW({})").format(
        sql.SQL(", ").join(sql.Identifier(key.name) for key in index.keys)
    )


def _key(facts: Facts, index: Index, parameter: int) -> sql.Composable:
    """Return a key that is given as an array of text."""
    parts = [
        sql.SQL("(${}::text[])[{}]::{}").format(
            sql.Literal(parameter),
            sql.Literal(number),
            type_name(facts.table.require(key.name).type),
        )
        for number, key in enumerate(index.keys, 1)
    ]
    return sql.SQL("ROW({})").format(sql.SQL(", ").join(parts))


def _between(facts: Facts, index: Index) -> sql.Composable:
    # The server folds the first condition away: it is known when it plans.
    return sql.SQL(
        "($1::text[] = '{{}}' OR {row} {greater} {after})"
        " AND {row} {not_greater} {upto}"
    ).format(
        row=_row(index),
        greater=type_name(index.greater),
        not_greater=type_name(index.not_greater),
        after=_key(facts, index, 1),
        upto=_key(facts, index, 2),
    )


def _keyset(facts: Facts, index: Index) -> Keyset:
    names = [sql.Identifier(key.name) for key in index.keys]
    text = sql.SQL("ARRAY[{}]").format(
        sql.SQL(", ").join(sql.SQL("{}::text").format(n) for n in names)
    )
    order = sql.SQL(", ").join(names)
    backwards = sql.SQL(", ").join(sql.SQL("{} DESC").format(n) for n in names)
    table = facts.table.name.identifier
    last = sql.SQL("SELECT {} FROM {} ORDER BY {} LIMIT 1").format(
        text, table, backwards
    )
    bound = sql.SQL(
        "SELECT key, rows FROM (SELECT {text} AS key, row_number() OVER"
        " (ORDER BY {order}) AS rows FROM {table} WHERE {between} ORDER BY {order}"
        " LIMIT $3) AS part ORDER BY rows DESC LIMIT 1"
    ).format(text=text, order=order, table=table, between=_between(facts, index))
    return Keyset(index=index.name, last=render(last), bound=render(bound))


def span(facts: Facts, chunking: Chunking) -> sql.Composable:
    """Return the condition of a chunk's rows."""
    if chunking.keyset is None:
        return sql.SQL("ctid >= $1::pg_catalog.tid AND ctid < $2::pg_catalog.tid")
    index = facts.table.index(chunking.keyset.index)
    assert index is not None
    return _between(facts, index)
