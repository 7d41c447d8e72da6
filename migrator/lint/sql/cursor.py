"""A place among the tokens of a statement, and what can be read from there on."""

from collections.abc import Callable, Sequence

from migrator.lint.sql.tokens import Kind, Token
from migrator.lint.statements import Ref

_OPEN = {"(": ")", "[": "]"}
_CLOSE = frozenset(_OPEN.values())


class UnreadError(Exception):
    """The statement has a form that is not known here."""


class Cursor:
    """
    Reads a statement from left to right.

    Args:
        tokens: of the statement.
        at: the first token that is not read yet.
    """

    def __init__(self, tokens: Sequence[Token], at: int = 0) -> None:
        self.tokens = tokens
        self.at = at
        last = tokens[-1].end if tokens else 0
        self._end = Token(Kind.END, "", last)

    @property
    def token(self) -> Token:
        """The next token."""
        return self.ahead(0)

    @property
    def done(self) -> bool:
        """Whether all is read."""
        return self.at >= len(self.tokens)

    def ahead(self, count: int) -> Token:
        """Return a token further on."""
        at = self.at + count
        return self.tokens[at] if at < len(self.tokens) else self._end

    def sees(self, words: str) -> bool:
        """Tell whether words follow, as they stand: `IF NOT EXISTS`, `( SELECT`."""
        return all(
            self.ahead(n).word == word for n, word in enumerate(words.split(" "))
        )

    def take(self, *phrases: str) -> str:
        """Go past the first of some phrases that follows, and return it; or ""."""
        for words in phrases:
            if self.sees(words):
                self.at += words.count(" ") + 1
                return words
        return ""

    def expect(self, words: str) -> None:
        """
        Go past words.

        Raises:
            UnreadError: others follow.
        """
        if not self.take(words):
            raise UnreadError

    def name(self) -> str:
        """
        Go past a name and return it.

        Raises:
            UnreadError: none follows.
        """
        token = self.token
        if token.kind not in (Kind.WORD, Kind.NAME):
            raise UnreadError
        self.at += 1
        return token.value

    def ref(self) -> Ref:
        """
        Go past the name of a table or such, with its schema, and return it.

        Raises:
            UnreadError: none follows.
        """
        parts = [self.name()]
        while self.take("."):
            parts.append(self.name())
        # A third part, in front, can only be the database's own name.
        return Ref(parts[-1], parts[-2] if len(parts) > 1 else None)

    def string(self) -> str:
        """
        Go past a string and return its value.

        Raises:
            UnreadError: none follows.
        """
        if self.token.kind is not Kind.STRING:
            raise UnreadError
        self.at += 1
        return self.tokens[self.at - 1].value

    def skip(self) -> None:
        """Go past a token, or past all that is in parentheses with it."""
        if self.token.word not in _OPEN:
            self.at += 1
            return
        closed = [_OPEN[self.token.word]]
        self.at += 1
        while closed and not self.done:
            word = self.token.word
            if word in _OPEN:
                closed.append(_OPEN[word])
            elif word in _CLOSE:
                closed.pop()
            self.at += 1

    def group(self) -> "Cursor":
        """
        Go past parentheses, and return what reads within.

        Raises:
            UnreadError: none follow.
        """
        if self.token.word != "(":
            raise UnreadError
        first = self.at + 1
        self.skip()
        last = self.at - 1 if self.tokens[self.at - 1].word == ")" else self.at
        return Cursor(self.tokens[first : max(first, last)])

    def items(self) -> "list[Cursor]":
        """Go to the end, and return what reads each part between commas."""
        found: list[Cursor] = []
        while not self.done:
            first = self.at
            self.upto(lambda: self.token.word == ",")
            found.append(Cursor(self.tokens[first : self.at]))
            self.take(",")
        return found

    def names(self) -> tuple[str, ...]:
        """
        Go past names in parentheses and return them.

        Raises:
            UnreadError: there is something else.
        """
        return tuple(item.name() for item in self.group().items())

    def refs(self) -> tuple[Ref, ...]:
        """
        Go past names of tables and return them: `ONLY a, b *`.

        Raises:
            UnreadError: none follows.
        """
        found: list[Ref] = []
        while True:
            self.take("ONLY")
            found.append(self.ref())
            self.take("*")
            if not self.take(","):
                return tuple(found)

    def upto(self, stop: Callable[[], bool], least: int = 0) -> str:
        """
        Go on until something is met outside parentheses; return the text passed.

        Args:
            stop: tells whether the next token is it.
            least: tokens that are passed in any case.
        """
        first, cases = self.at, 0
        while not self.done and (cases or self.at < first + least or not stop()):
            # Within CASE … END the words of a condition stop nothing.
            if self.token.word == "CASE":
                cases += 1
            elif self.token.word == "END":
                cases = max(cases - 1, 0)
            self.skip()
        return self.text(first, self.at)

    def upto_words(self, *phrases: str, least: int = 0) -> str:
        """Go on until one of some phrases; return the text passed."""
        return self.upto(lambda: any(map(self.sees, phrases)), least)

    def rest(self) -> str:
        """Go to the end; return the text passed."""
        return self.upto(lambda: False)

    def passes(self, words: str) -> bool:
        """Tell whether a phrase is met outside parentheses, up to the end."""
        before = self.at
        self.upto_words(words)
        met = not self.done
        self.at = before
        return met

    def text(self, first: int = 0, last: int | None = None) -> str:
        """Return tokens as text, without comments, its spaces made single."""
        tokens = self.tokens[first:last]
        parts: list[str] = []
        for before, token in zip((None, *tokens), tokens, strict=False):
            if before is not None and before.end != token.start:
                both = before.kind is token.kind is Kind.STRING
                # Strings in a row are one only where they stand on lines of their own.
                parts.append("\n" if both else " ")
            parts.append(token.text)
        return "".join(parts)
