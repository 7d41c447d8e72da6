"""What a person has said is none: a hazard on a line, or in the whole project."""

import re
import tokenize
from dataclasses import dataclass
from io import StringIO

#: `# migrator: allow ZD301 the table has ten rows`, on the line or the one above.
_COMMENT = re.compile(
    r"#\s*migrator:\s*allow\s+(?P<codes>ZD\d+(?:\s*,\s*ZD\d+)*)\b[\s:,-]*(?P<reason>.*)"
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
        said = _COMMENT.match(token.string)
        if said is None:
            continue
        codes = tuple(c.strip() for c in said["codes"].split(","))
        alone = not token.line[: token.start[1]].strip()
        found.append(Allowed(token.start[0], codes, said["reason"].strip(), alone))
    return found
