"""In which order what autogenerate found is carried out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from alembic.operations import ops

from migrator.alembic.writing import Written
from migrator.change import Change
from migrator.history import shared

#: What one piece brings and another one waits for: a word, then names.
Token = tuple[object, ...]


@dataclass(slots=True, eq=False, kw_only=True)
class Piece:
    """
    One thing that is done: operations that stay as they are, or a change.

    Args:
        operations: as Alembic has them; none for a change.
        back: what takes them back, last first.
        written: the change; None for operations.
        instead: whether the operations stand for others that Alembic has.
        rank: of changes, those with the lower one come first.
        makes: what is there, or free, after it.
        needs: what has to be before it, if another piece makes it.
    """

    operations: tuple[ops.MigrateOperation, ...] = ()
    back: tuple[ops.MigrateOperation, ...] = ()
    written: Written | None = None
    instead: bool = False
    rank: int = 0
    makes: frozenset[Token] = frozenset()
    needs: frozenset[Token] = frozenset()


def in_order(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """
    Return the pieces of each revision, in the order of revisions.

    Operations come first, together, but for those that need what a change makes; they
    come, together again, after the changes that do not wait for them.

    Args:
        pieces: in Alembic's order.
    """
    plain = [p for p in pieces if p.written is None]
    changes = sorted((p for p in pieces if p.written is not None), key=_rank)
    left = [*plain, *changes]
    while left:
        batch: list[Piece] = []
        while found := _next(left, plain):
            left.remove(found)
            batch.append(found)
        if batch:
            yield batch
        any_change = False
        while found := _next(left, changes):
            left.remove(found)
            any_change = True
            yield [found]
        if left and not batch and not any_change:
            # They wait for each other: as Alembic has them.
            yield from ([p] for p in left if p.written is not None)
            rest = [p for p in left if p.written is None]
            if rest:
                yield rest
            return


def later_last(batches: Sequence[list[Piece]]) -> list[list[Piece]]:
    """
    Return the pieces of revisions, at the end those that one release cannot deploy.

    What touches the same as a change before it waits until that one is finished. All
    that stands behind it would wait as well.

    Args:
        batches: of each revision, in their order.
    """
    early: list[list[Piece]] = []
    late: list[list[Piece]] = []
    before: list[Change] = []
    for batch in batches:
        own = [
            Change(revision="", pattern=pattern)
            for piece in batch
            if piece.written is not None
            for way in piece.written.ways
            for pattern in way.patterns
        ]
        waits = any(shared(one, other) for one in before for other in own) or any(
            piece.needs & other.makes
            for piece in batch
            for held in late
            for other in held
        )
        (late if waits else early).append(batch)
        before += own
    return [*early, *late]


def _rank(piece: Piece) -> int:
    return piece.rank


def _next(left: Sequence[Piece], among: Sequence[Piece]) -> Piece | None:
    """Return the first that waits for nothing that is left."""
    for piece in among:
        if piece in left and not any(
            piece.needs & other.makes for other in left if other is not piece
        ):
            return piece
    return None
