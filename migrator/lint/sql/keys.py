"""The keys of an index."""

from migrator.kernels.index_definition import Key
from migrator.lint.sql.cursor import Cursor, UnreadError
from migrator.lint.sql.tokens import Kind


def keys(c: Cursor) -> tuple[str | Key, ...]:
    """
    Read the keys of an index.

    Args:
        c: reads within their parentheses.

    Raises:
        UnreadError: there are none, or one is not known.
    """
    found = tuple(read_key(item) for item in c.items())
    if not found:
        raise UnreadError
    return found


def read_key(c: Cursor) -> str | Key:
    """
    Read one key of an index.

    Args:
        c: reads it alone.

    Raises:
        UnreadError: it is none.
    """
    name = expression = ""
    if c.sees("("):
        expression = c.group().text()
    elif c.ahead(1).word in ("(", "."):
        # A function, of which the name may be qualified.
        first = c.at
        c.ref()
        c.group()
        expression = c.text(first, c.at)
    else:
        name = c.name()
    order = nulls = operators = collated = ""
    if c.take("COLLATE"):
        first = c.at
        c.ref()
        collated = c.text(first, c.at)
    if c.token.kind in (Kind.WORD, Kind.NAME) and c.token.word not in (
        "ASC",
        "DESC",
        "NULLS",
    ):
        first = c.at
        c.ref()
        if c.sees("("):
            c.group()
        operators = c.text(first, c.at)
    order = c.take("ASC", "DESC").lower()
    if c.take("NULLS"):
        nulls = c.take("FIRST", "LAST").lower()
    if not c.done:
        raise UnreadError
    key = Key(
        name,
        expression=expression,
        collation=collated,
        operators=operators,
        order=order,
        nulls=nulls,
    )
    return name if name and key == Key(name) else key


def storage(c: Cursor) -> tuple[tuple[str, str], ...]:
    """
    Read parameters and their values.

    Args:
        c: reads within their parentheses.

    Raises:
        UnreadError: something else stands there.
    """
    found: list[tuple[str, str]] = []
    for item in c.items():
        name = item.name()
        found.append((name, item.rest() if item.take("=") else "true"))
    return tuple(found)
