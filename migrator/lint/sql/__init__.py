"""SQL text as statements.

`tokens.py` has the lexical rules, the other files the forms. What has no form here, or
one that is not known, becomes `Other`: nothing in a text is an error.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from migrator.kernels.index_definition import Key
from migrator.lint.sql.cursor import Cursor, UnreadError
from migrator.lint.sql.forms import read
from migrator.lint.sql.keys import read_key
from migrator.lint.sql.tokens import Comment, Lexer, Span
from migrator.lint.statements import Other, Statement

__all__ = ["Comment", "Read", "Text", "key", "parse", "statements"]


@dataclass(frozen=True, slots=True)
class Read:
    """
    One SQL statement, as far as its semicolon.

    Args:
        statements: what it does; an ALTER TABLE does one thing with each action.
        start: where it begins in the text.
        sql: its text.
    """

    statements: tuple[Statement, ...]
    start: int
    sql: str


@dataclass(frozen=True, slots=True)
class Text:
    """A text that is read: its statements, and the comments beside them."""

    read: tuple[Read, ...]
    comments: tuple[Comment, ...]


def statements(text: str) -> list[Statement]:
    """
    Return what a text makes the server do, in its order.

    Args:
        text: SQL: any number of statements.
    """
    return [s for one in parse(text).read for s in one.statements]


def key(text: str) -> str | Key:
    """
    Return one key of an index: a column's name where it is no more than that.

    Args:
        text: SQL; what is no key as an index has it is taken for an expression.
    """
    try:
        return read_key(Cursor(tuple(Lexer(text).tokens())))
    except UnreadError:
        return Key(expression=text)


def parse(text: str) -> Text:
    """Return the statements of a text, with their places."""
    lexer = Lexer(text)
    read = tuple(_read(span, text) for span in lexer.spans())
    return Text(read, tuple(lexer.comments))


def _read(span: Span, text: str) -> Read:
    sql = text[span.start : span.end]
    return Read(tuple(_statements(span, sql)), span.start, sql)


def _statements(span: Span, sql: str) -> Sequence[Statement]:
    try:
        found = list(read(Cursor(span.tokens)))
    except UnreadError:
        found = []
    if len(found) == 1 or not all(s.sql for s in found):
        found = [replace(s, sql=sql) for s in found]
    return found or [Other(sql=sql)]
