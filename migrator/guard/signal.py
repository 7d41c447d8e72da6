"""What a signal is: one figure of the server's health, read again and again."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite
from typing import Any

from migrator.names import TableName
from migrator.postgres.connection import Connection, ask


class Unit(StrEnum):
    """What a signal's figure counts."""

    SECONDS = "s"
    BYTES = "bytes"
    BYTES_PER_S = "bytes/s"
    COUNT = ""
    #: 1 is the whole, or as much as usual.
    SHARE = "%"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is watched: the table that a backfill writes."""

    table: TableName


class UnavailableError(Exception):
    """The signal cannot be read on this server, or by this role; says why."""


class Signal(ABC):
    """
    One figure, read again and again by one run.

    An instance may remember what it read; then it says what.

    `read` returns the figure in the signal's unit, the larger the worse, with
    words on where it comes from.
    """

    name: str
    unit: Unit

    @abstractmethod
    def read(self, conn: Connection, subject: Subject) -> tuple[float, str]:
        """
        Read the figure.

        Returns:
            The figure, and what stands behind it ("standby a", "pid 12"), or "".

        Raises:
            UnavailableError: it cannot be read here.
        """


def finite(value: Any, source: str) -> float:
    """
    Return a figure that somebody else made up.

    NaN is below each bound, and hides what stands beside it.

    Args:
        value: what was read; it is not repeated where it is no number.
        source: where it comes from.

    Raises:
        UnavailableError: it is no finite number.
    """
    try:
        found = float(value)
    except (TypeError, ValueError, ArithmeticError):
        raise UnavailableError(f"{source} is no number") from None
    if not isfinite(found):
        raise UnavailableError(f"{source} is {found}, no finite number")
    return found


def require_all_statistics(conn: Connection) -> None:
    """
    Refuse a role from which the server hides what other sessions do.

    Such a figure would be small because it is not seen (manual, section 27.2.3).

    Raises:
        UnavailableError: the role has not the privileges of pg_read_all_stats.
    """
    if not ask(conn, "SELECT pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE')"):
        raise UnavailableError("the role lacks pg_monitor, or pg_read_all_stats")


def shown(value: float, unit: Unit) -> str:
    """Return a figure for a person."""
    if unit is Unit.SHARE:
        return f"{value * 100:.0f} %"
    if unit in (Unit.BYTES, Unit.BYTES_PER_S):
        return f"{value / 1e6:,.1f} MB" + ("/s" if unit is Unit.BYTES_PER_S else "")
    return f"{value:,.1f} s" if unit is Unit.SECONDS else f"{value:,.0f}"
