"""The result of a query without a server: it has no rows, and says when it is read."""

from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy.engine.result import IteratorResult, SimpleResultMetaData


class NoRows(IteratorResult[Any]):
    """
    A result of no rows.

    Args:
        read: is called when the revision looks for rows.
        counted: the same, when it looks for their number alone.
    """

    def __init__(self, read: Callable[[], None], counted: Callable[[], None]) -> None:
        self._read, self._counted = read, counted
        super().__init__(SimpleResultMetaData(["?"]), self._rows())

    def _rows(self) -> Iterator[Any]:
        self._read()
        yield from ()

    @property
    def rowcount(self) -> int:
        """How many rows were written."""
        self._counted()
        return 0
