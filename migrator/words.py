"""Numbers in sentences."""

import re

#: Stands in a text for a number and the words that follow one, or several.
_COUNT = re.compile(r"\{count:([^|{}]*)\|([^|{}]*)\}")


def counted(number: float, one: str = "row", many: str = "") -> str:
    """
    Return a number with its noun.

    Args:
        number: how many.
        one: the word for one, with its verb where it has one.
        many: the words for any other number; `one` with an s by default.
    """
    return f"{number:,.0f} {one if round(number) == 1 else many or f'{one}s'}"


def filled(text: str, number: int) -> str:
    """Return a text with a number for "{count}" or "{count:row is|rows are}"."""
    worded = _COUNT.sub(lambda found: counted(number, found[1], found[2]), text)
    return worded.replace("{count}", str(number))
