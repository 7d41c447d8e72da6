"""Numbers and times in sentences."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from migrator.words import counted, duration, filled, moment, several


def test_counted() -> None:
    """One is one, whatever stands behind the point; all else is several."""
    assert [counted(n) for n in (0, 1, 1.2, 2, 1500)] == [
        "0 rows",
        "1 row",
        "1 row",
        "2 rows",
        "1,500 rows",
    ]
    assert counted(2, "index", "indexes") == "2 indexes"


def test_several() -> None:
    """The first few are named, the rest is counted."""
    assert several("a") == "a"
    assert several("abc") == "a, b and c"
    assert several("abcdefg") == "a, b, c, d, e and 2 more"
    assert several("") == "none"


def test_filled() -> None:
    """A text of the ledger may have either form."""
    text = "{count:row holds|rows hold} NULL"
    assert filled(text, 1) == "1 row holds NULL"
    assert filled(text, 3) == "3 rows hold NULL"
    assert filled("{count} rows hold NULL", 3) == "3 rows hold NULL"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (4.2, "4 s"),
        (61, "1 min"),
        (59.6 * 60, "1 h 00 min"),
        (23.5 * 3600, "23 h 30 min"),
        (24 * 3600, "1 day"),
        (7 * 86400 - 50 * 60, "6 days 23 h"),
        (7 * 86400 - 5, "7 days"),
    ],
)
def test_duration(seconds: float, told: str) -> None:
    """Two units at most, and days from one day on."""
    assert duration(seconds) == told


def test_moment() -> None:
    """It is told in UTC, whatever zone it comes in."""
    there = timezone(timedelta(hours=5, minutes=30))
    at = datetime(2026, 12, 3, 14, 5, tzinfo=UTC).astimezone(there)
    assert moment(at) == "2026-12-03 14:05 UTC"
