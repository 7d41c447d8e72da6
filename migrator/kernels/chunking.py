"""How a backfill goes over a table, chosen from facts.

An update that changes no indexed column can stay in its page (heap-only tuple,
HOT) where the page has room: no index entry, little bloat, about 0.6 of the WAL.
A full page has none, unless it is updated in several passes, each making room
for the next: strides. Source: PostgreSQL manual, section 66.7 (HOT); the figures
are in docs/performance.md.
"""

from migrator.errors import UsageError
from migrator.facts import Facts
from migrator.plan import Chunking

# Passes over a window: 1/8 of a page's rows fit into what the pass before freed.
STRIDE = 8
# With more indexes HOT is worth more than the visits of a page cost.
STRIDE_MANY_INDEXES = 16
MANY_INDEXES = 5
# Percent: from here down a page has room for a second version of all its rows.
ROOMY_FILLFACTOR = 55

KINDS = ("strides", "blocks")


def chosen(facts: Facts, written: frozenset[str]) -> Chunking:
    """
    Return how to go over the table of a backfill.

    Args:
        facts: of the table; `facts.chunking` is what the user asked for.
        written: the columns that the backfill writes.

    Raises:
        UsageError: the user asked for a kind that there is not.
    """
    table = facts.table
    if facts.chunking not in (None, *KINDS):
        raise UsageError(
            f'"{facts.chunking}" is no way of chunking.',
            next=f"give one of {', '.join(KINDS)}.",
        )
    many = len(table.indexes) >= MANY_INDEXES
    stride = STRIDE_MANY_INDEXES if many else STRIDE
    if facts.chunking == "strides":
        return Chunking(stride=stride, reason="strides, as asked for")
    if facts.chunking == "blocks":
        return Chunking(stride=1, reason="one pass, as asked for")
    holding = [i.name for i in table.indexes if not written.isdisjoint(i.columns)]
    if holding:
        return Chunking(
            stride=1,
            reason=f'one pass: index "{holding[0]}" holds the written column, so that'
            " no update can stay in its page's chain",
        )
    if table.fillfactor <= ROOMY_FILLFACTOR:
        return Chunking(
            stride=1,
            reason=f"one pass: with fillfactor {table.fillfactor} each page has room"
            " for the new versions",
        )
    indexes = f"{len(table.indexes)} indexes stay untouched"
    return Chunking(
        stride=stride,
        reason=f"{stride} passes over each window: new versions stay in their pages,"
        f" {indexes if table.indexes else 'the table stays small'}",
    )
