"""Numbers in sentences."""

from migrator.words import counted, filled


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


def test_filled() -> None:
    """A text of the ledger may have either form."""
    text = "{count:row holds|rows hold} NULL"
    assert filled(text, 1) == "1 row holds NULL"
    assert filled(text, 3) == "3 rows hold NULL"
    assert filled("{count} rows hold NULL", 3) == "3 rows hold NULL"
