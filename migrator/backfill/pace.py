"""How many blocks the next chunk takes."""

from dataclasses import dataclass

# Blocks of the first chunk: 128 kB, some thousand rows at most, a few ms.
FIRST_BLOCKS = 16
# A chunk grows by this factor at most, so that one quick chunk over empty blocks
# does not make the next one far too long.
GROWTH = 2.0


@dataclass(slots=True)
class Pace:
    """
    The size of the next chunk, from how long the last one took.

    Args:
        target_ms: wanted length of a chunk's transaction.
        most: blocks of a chunk at most.
    """

    target_ms: float
    most: int
    blocks: int = FIRST_BLOCKS

    def took(self, blocks: int, ms: float) -> None:
        """Fit the size to the target after a chunk of `blocks`."""
        wanted = blocks * self.target_ms / max(ms, 0.1)
        # A chunk cut short by its window's end says nothing against the size.
        grown = max(self.blocks, blocks * GROWTH)
        self.blocks = max(1, min(int(wanted), int(grown), self.most))

    def split(self) -> None:
        """Halve the size after a chunk that was too long or met a lock."""
        self.blocks = max(1, self.blocks // 2)
