"""SQL text as tokens, by PostgreSQL's lexical rules.

Source: PostgreSQL manual, section 4.1, and `psql`, for where a statement ends.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from itertools import pairwise

from migrator.names import MAX_NAME_BYTES


class Kind(Enum):
    """What a token is."""

    #: A keyword, or a name without quotes.
    WORD = auto()
    #: A name in quotes.
    NAME = auto()
    STRING = auto()
    NUMBER = auto()
    #: A value that is passed beside the text: `:x`, `%(x)s`, `%s`, `$1`.
    PARAMETER = auto()
    SYMBOL = auto()
    END = auto()


@dataclass(frozen=True, slots=True)
class Token:
    """
    One token.

    Args:
        kind: what it is.
        text: as it is written.
        start: where it begins in the text.
        word: in capitals where it has no quotes, the symbol itself; "" for others.
        value: a name as the server knows it; a string without its quotes.
    """

    kind: Kind
    text: str
    start: int
    word: str = ""
    value: str = ""

    @property
    def end(self) -> int:
        """Where it ends in the text."""
        return self.start + len(self.text)


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment, without its marks."""

    text: str
    start: int


@dataclass(frozen=True, slots=True)
class Span:
    """One statement of a text: its tokens, without the semicolon."""

    tokens: tuple[Token, ...]

    @property
    def start(self) -> int:
        """Where it begins in the text."""
        return self.tokens[0].start

    @property
    def end(self) -> int:
        """Where it ends in the text."""
        return self.tokens[-1].end


# Every character outside ASCII may stand in a name, spaces of Unicode as well.
_LETTER = r"A-Za-z_\x80-\U0010ffff"
_TOKEN = re.compile(
    rf"""
    (?P<space>[ \t\n\r\f\v]+)
    | (?P<line>--[^\n\r]*)
    | (?P<block>/\*)
    | (?P<unicode_name>[uU]&"(?P<un>[^"]*+(?:""[^"]*+)*+)"?)
    | (?P<unicode_string>[uU]&'(?P<us>[^']*+(?:''[^']*+)*+)'?)
    | (?P<escaped>[eE]'(?P<es>(?:[^'\\]++|''|\\.)*+)\\?'?)
    | (?P<string>[bBxXnN]?'(?P<ss>[^']*+(?:''[^']*+)*+)'?)
    | (?P<name>"(?P<qn>[^"]*+(?:""[^"]*+)*+)"?)
    | (?P<word>[{_LETTER}][{_LETTER}0-9$]*+)
    | (?P<dollar>\$(?:[{_LETTER}][{_LETTER}0-9]*+)?\$)
    | (?P<number>(?:[0-9][0-9_]*+(?:\.(?!\.)[0-9_]*+)?+|\.[0-9][0-9_]*+)
        (?:[eE][+-]?[0-9]+)?+[{_LETTER}0-9]*+)
    | (?P<parameter>\$[0-9]+ | %\([^)]*\)s | %s(?![{_LETTER}0-9])
        | (?<!:):[{_LETTER}][{_LETTER}0-9]*+)
    | (?P<symbol>::|:=|=>|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_UNICODE = re.compile(r"\\(?:\\|\+([0-9A-Fa-f]{6})|([0-9A-Fa-f]{4}))")
_ESCAPE = re.compile(
    r"''|\\(?:x([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([0-7]{1,3})|(.))",
    re.DOTALL,
)
_LETTERS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_UPPER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")
_COMMENT_MARK = re.compile(r"/\*|\*/")


def folded(word: str) -> str:
    """Return a name without quotes as the server knows it: ASCII in lower case."""
    return word.lower() if word.isascii() else word.translate(_UPPER)


def cut(name: str) -> str:
    """Return a name as the server keeps it: its first 63 bytes."""
    if len(name) * 4 <= MAX_NAME_BYTES:
        return name
    kept = name.encode(errors="surrogatepass")[:MAX_NAME_BYTES]
    return kept.decode(errors="ignore")


def _character(code: str, base: int) -> str:
    number = int(code, base)
    return chr(number) if 0 < number <= 0x10FFFF else "\ufffd"


def _unicode(text: str, quote: str) -> str:
    def one(found: re.Match[str]) -> str:
        code = found[1] or found[2]
        return _character(code, 16) if code else "\\"

    return _UNICODE.sub(one, text.replace(quote * 2, quote))


def _escapes(text: str) -> str:
    def one(found: re.Match[str]) -> str:
        for code in found.group(1, 2, 3):
            if code:
                return _character(code, 16)
        if found[4]:
            return _character(found[4], 8)
        if found[5]:
            return _LETTERS.get(found[5], found[5])
        return "'"

    return _ESCAPE.sub(one, text)


class Lexer:
    """
    Reads a text, token by token.

    What has no end (a string, a comment) ends with the text.

    Args:
        text: SQL.
    """

    def __init__(self, text: str) -> None:
        self.comments: list[Comment] = []
        self._text = text
        self._at = 0

    def tokens(self) -> Iterator[Token]:
        """Return all tokens; comments are kept beside them."""
        while (token := self._next()) is not None:
            yield token

    def _next(self) -> Token | None:
        text = self._text
        while (found := _TOKEN.match(text, self._at)) is not None:
            start, self._at = self._at, found.end()
            written = found[0]
            match found.lastgroup:
                case "space":
                    continue
                case "line":
                    self.comments.append(Comment(written[2:], start))
                    continue
                case "block":
                    self._at = self._comment_end(start)
                    inner = text[start + 2 : self._at].removesuffix("*/")
                    self.comments.append(Comment(inner, start))
                    continue
                case "word":
                    name = cut(folded(written))
                    return Token(Kind.WORD, written, start, written.upper(), name)
                case "name":
                    name = cut(found["qn"].replace('""', '"'))
                    return Token(Kind.NAME, written, start, value=name)
                case "unicode_name":
                    name = cut(_unicode(found["un"], '"'))
                    return Token(Kind.NAME, written, start, value=name)
                case "string":
                    value = found["ss"].replace("''", "'")
                    return Token(Kind.STRING, written, start, value=value)
                case "unicode_string":
                    value = _unicode(found["us"], "'")
                    return Token(Kind.STRING, written, start, value=value)
                case "escaped":
                    value = _escapes(found["es"])
                    return Token(Kind.STRING, written, start, value=value)
                case "dollar":
                    return self._dollar_quoted(written, start)
                case "number":
                    return Token(Kind.NUMBER, written, start)
                case "parameter":
                    return Token(Kind.PARAMETER, written, start)
                case _:
                    return Token(Kind.SYMBOL, written, start, written)
        return None

    def _comment_end(self, start: int) -> int:
        """Return where a comment ends that may hold others."""
        depth, at = 1, start + 2
        while depth:
            mark = _COMMENT_MARK.search(self._text, at)
            if mark is None:
                return len(self._text)
            depth += 1 if mark[0] == "/*" else -1
            at = mark.end()
        return at

    def _dollar_quoted(self, tag: str, start: int) -> Token:
        close = self._text.find(tag, self._at)
        inner = self._text[self._at : len(self._text) if close < 0 else close]
        self._at = len(self._text) if close < 0 else close + len(tag)
        return Token(Kind.STRING, self._text[start : self._at], start, value=inner)

    def spans(self) -> Iterator[Span]:
        """
        Return the statements, each as far as its semicolon.

        A semicolon within parentheses ends none (rules), nor does one within the
        body of a function that is written out: BEGIN ATOMIC … END.
        """
        found: list[Token] = []
        depth = blocks = 0
        while (token := self._next()) is not None:
            match token.word:
                case "(":
                    depth += 1
                case ")":
                    depth = max(depth - 1, 0)
                case "BEGIN" | "CASE" if not depth and _has_body(found, blocks):
                    blocks += 1
                case "END" if blocks and not depth:
                    blocks -= 1
                case "\\" if not found:
                    # A command to psql, up to the end of its line.
                    self._skip_line()
                    continue
                case ";" if not depth and not blocks:
                    if found:
                        yield Span(tuple(found))
                        if _is_copy_from_stdin(found):
                            self._skip_data()
                    found = []
                    continue
                case _:
                    pass
            found.append(token)
        if found:
            yield Span(tuple(found))

    def _skip_line(self) -> None:
        end = self._text.find("\n", self._at)
        self._at = len(self._text) if end < 0 else end + 1

    def _skip_data(self) -> None:
        """Skip rows that follow COPY … FROM STDIN, where there are any."""
        end = re.compile(r"^\\\.\s*$", re.MULTILINE).search(self._text, self._at)
        if end is not None:
            self._at = end.end()


def _has_body(found: list[Token], blocks: int) -> bool:
    """Tell whether BEGIN or CASE opens a block that holds semicolons."""
    if blocks:
        return True
    words = [t.word for t in found[:4]]
    if words[:1] != ["CREATE"]:
        return False
    if words[1:3] == ["OR", "REPLACE"]:
        words = [words[0], *words[3:]]
    return words[1:2] in (["FUNCTION"], ["PROCEDURE"])


def _is_copy_from_stdin(found: list[Token]) -> bool:
    words = [t.word for t in found]
    return words[0] == "COPY" and ("FROM", "STDIN") in pairwise(words)
