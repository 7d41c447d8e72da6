"""What a person has said is none: a hazard on a line, in a block, or in the project."""

import re
import tokenize
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO

from migrator.errors import UsageError
from migrator.lint import sql

_CODE = r"(?:ZD\d+|squawk:[\w-]+)"
#: `# migrator: allow ZD301 the table has ten rows`, on the line or the one above; in
#: SQL, a comment with the same words.
_COMMENT = re.compile(
    rf"\s*migrator:\s*allow\s+(?P<codes>{_CODE}(?:\s*,\s*{_CODE})*)\b[\s:,-]*"
    r"(?P<reason>.*)"
)


@dataclass(frozen=True, slots=True)
class Allowed:
    """A comment that silences rules, with its reason; `line` is its own, from 1."""

    line: int
    codes: tuple[str, ...]
    reason: str
    #: Whether it has a line for itself: then it is about the one below.
    alone: bool


def comments(text: str) -> list[Allowed]:
    """Return all comments of a file that silence rules."""
    if "migrator:" not in text:
        return []
    found: list[Allowed] = []
    for token in tokenize.generate_tokens(StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        said = _COMMENT.match(token.string.lstrip("#"))
        if said is None:
            continue
        alone = not token.line[: token.start[1]].strip()
        found.append(_allowed(said, token.start[0], alone=alone))
    return found


def sql_comments(text: str) -> list[Allowed]:
    """Return all comments of a file of SQL that silence rules."""
    if "migrator:" not in text:
        return []
    found: list[Allowed] = []
    for comment in sql.parse(text).comments:
        said = _COMMENT.match(comment.text)
        if said is None:
            continue
        before = text[: comment.start]
        alone = not before.rpartition("\n")[2].strip()
        found.append(_allowed(said, before.count("\n") + 1, alone=alone))
    return found


def _allowed(said: re.Match[str], line: int, *, alone: bool) -> Allowed:
    codes = tuple(c.strip() for c in said["codes"].split(","))
    return Allowed(line, codes, said["reason"].strip(), alone)


#: Reasons of the blocks that are open, the innermost last.
_open: list[str] = []


@contextmanager
def assured(reason: str) -> Iterator[None]:
    """
    Let pass what a revision does in a block, on a person's word.

    Args:
        reason: why it is no hazard here; whoever reads it later is told.

    Raises:
        UsageError: there is none.
    """
    if not reason.strip():
        raise UsageError(
            "assured(…) is given no reason.", next="write why it is no hazard here."
        )
    _open.append(reason.strip())
    try:
        yield
    finally:
        _open.pop()


def assurance() -> str:
    """Return the reason of the block that is open, "" where none is."""
    return _open[-1] if _open else ""
