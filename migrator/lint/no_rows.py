"""The result of a query without a server: it has no rows, and says when it is read."""

from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy.engine.result import IteratorResult, SimpleResultMetaData


class NoRows(IteratorResult[Any]):
    """
    A result of no rows.

    Args:
        read: is called when the revision looks for rows, or for their number.
    """

    def __init__(self, read: Callable[[], None]) -> None:
        self._read = read
        super().__init__(SimpleResultMetaData(["?"]), self._rows())

    def _rows(self) -> Iterator[Any]:
        self._read()
        yield from ()

    @property
    def rowcount(self) -> int:
        """How many rows were written."""
        self._read()
        return 0
