"""How large the next chunk is."""

from dataclasses import dataclass

# A chunk grows by this factor at most, so that one quick chunk over empty blocks
# does not make the next one far too long.
GROWTH = 2.0

# Share of a pass's time that one chunk takes at most. A request that updates a row of
# the table meets a chunk that holds it with this probability: half of the hundredth
# that a 99th percentile leaves out.
HELD_SHARE = 0.005
# Below this, in ms, the round trips of a chunk count beside its work.
SHORTEST_MS = 10.0


def gentle_ms(target_ms: float, whole_ms: float) -> float:
    """
    Return the length of a chunk that few requests have to wait for.

    Args:
        target_ms: the longest that is wanted.
        whole_ms: what the whole pass takes.
    """
    return min(target_ms, max(SHORTEST_MS, whole_ms * HELD_SHARE))


@dataclass(slots=True)
class Pace:
    """
    The size of the next chunk, from how long the last one took.

    Args:
        target_ms: wanted length of a chunk's transaction.
        most: size of a chunk at most.
        size: blocks of the next chunk, or rows where it goes by keys.
    """

    target_ms: float
    most: int
    size: int

    def took(self, size: int, ms: float, besides_ms: float = 0.0) -> None:
        """
        Fit the size to the target after a chunk.

        Half of the target at least is for what grows with the size: over a slow line
        nothing else would make a chunk shorter, and it would shrink for ever.

        Args:
            size: of the chunk.
            ms: that it took.
            besides_ms: of them, what a chunk of any size takes: to begin, to ask what
                holds, to commit.
        """
        wanted_ms = max(self.target_ms - besides_ms, self.target_ms / 2)
        wanted = size * wanted_ms / max(ms - besides_ms, 0.1)
        # A chunk cut short by its window's end says nothing against the size.
        grown = max(self.size, size * GROWTH)
        self.size = max(1, min(int(wanted), int(grown), self.most))

    def bound(self, size: int, took: float, most: float) -> None:
        """Keep a chunk to an amount, where one of `size` took so much of it."""
        if took > most:
            self.size = max(1, min(self.size, int(size * most / took)))

    def split(self) -> None:
        """Halve the size after a chunk that was too long or met a lock."""
        self.size = max(1, self.size // 2)
