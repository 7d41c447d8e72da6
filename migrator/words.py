"""Numbers and times in sentences."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

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


def several(words: Sequence[str], most: int = 5) -> str:
    """Return words as a person lists them; those behind the first few are counted."""
    if len(words) > most:
        return f"{', '.join(words[:most])} and {len(words) - most} more"
    *first, last = words or ("none",)
    return f"{', '.join(first)} and {last}" if first else last


def size(count: float) -> str:
    """Return a number of bytes for a person, in powers of 1024."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} TB"


def duration(seconds: float) -> str:
    """Return a time for a person, in its two largest units."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02} min"
    days, hours = divmod(round(seconds / 3600), 24)
    return counted(days, "day") + (f" {hours} h" if hours else "")


def moment(at: datetime) -> str:
    """Return a moment for a person, to the minute."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def filled(text: str, number: int, *, at_least: bool = False) -> str:
    """
    Return a text with a number for "{count}" or "{count:row is|rows are}".

    Args:
        text: the text.
        number: the number.
        at_least: whether there may be more.
    """
    more = "at least " if at_least else ""
    worded = _COUNT.sub(lambda found: more + counted(number, found[1], found[2]), text)
    return worded.replace("{count}", f"{more}{number}")


def uncounted(text: str) -> str:
    """Return such a text for a number that is not known."""
    return _COUNT.sub(lambda found: found[2], text).replace("{count}", "any")
