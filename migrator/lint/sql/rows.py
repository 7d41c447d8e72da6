"""Statements that write rows."""

from collections.abc import Iterator

from migrator.lint import statements as st
from migrator.lint.sql.cursor import Cursor, UnreadError
from migrator.lint.statements import Ref, Statement

_WRITES = ("INSERT", "UPDATE", "DELETE", "MERGE")


def change_rows(c: Cursor) -> Iterator[Statement]:
    """
    Read what follows INSERT, UPDATE, DELETE or MERGE.

    Args:
        c: stands behind that word.

    Raises:
        UnreadError: no table is named.
    """
    how = c.tokens[c.at - 1].word
    c.take("INTO", "FROM")
    c.take("ONLY")
    table = c.ref()
    if how == "INSERT":
        values, reads, where = _values(c), None, False
        if values is None:
            query = c.group() if c.sees("(") else c
            where = query.passes("WHERE")
            is_one, reads = _source(query)
            values = 1 if is_one else None
        yield st.ChangeRows(
            table=table, how=how, values=values, reads=reads, where=where
        )
    else:
        yield st.ChangeRows(table=table, how=how, where=c.passes("WHERE"))


def _values(c: Cursor) -> int | None:
    """Return how many rows an INSERT names; None where a query gives them."""
    c.upto_words("VALUES", "DEFAULT VALUES", "SELECT", "WITH", "TABLE", "( SELECT")
    if c.take("DEFAULT VALUES"):
        return 1
    if not c.take("VALUES"):
        return None
    rows = 0
    while c.sees("("):
        c.group()
        rows += 1
        c.take(",")
    return rows


def _source(c: Cursor) -> tuple[bool, Ref | None]:
    """Return whether a query gives one row, and the first table that it names."""
    if not c.take("TABLE"):
        c.upto_words("FROM")
        if not c.take("FROM"):
            return True, None
    c.take("ONLY")
    if c.sees("("):
        return False, None
    table = c.ref()
    # Rows of a function are no table's.
    return False, None if c.sees("(") else table


def copy(c: Cursor) -> Iterator[Statement]:
    """
    Read what follows COPY.

    Args:
        c: stands behind it.

    Raises:
        UnreadError: it writes no rows.
    """
    table = c.ref()
    if c.sees("("):
        c.group()
    c.expect("FROM")
    yield st.ChangeRows(table=table, how="COPY")


def with_queries(c: Cursor) -> Iterator[Statement]:
    """
    Read what follows WITH: its queries may write, and so may what follows them.

    Args:
        c: stands behind it.

    Raises:
        UnreadError: nothing of it writes.
    """
    c.take("RECURSIVE")
    found: list[Statement] = []
    while True:
        c.name()
        if c.sees("("):
            c.group()
        c.expect("AS")
        c.take("NOT MATERIALIZED", "MATERIALIZED")
        inner = c.group()
        if inner.take(*_WRITES):
            found += change_rows(inner)
        c.upto_words(",", "SELECT", "VALUES", "TABLE", "(", *_WRITES)
        if not c.take(","):
            break
    if c.take(*_WRITES):
        found += change_rows(c)
    if not found:
        raise UnreadError
    yield from found
