"""Every exception of the project.

Three families tell what state the database is in:

- `Refused`: nothing ran, nothing changed.
- `Failed`: something ran and failed; the state is known and told.
- `OutcomeUnknown`: the connection was lost while a commit was under way.

Each error says what happened and on which object, what state remains, and what
to do next. The command line maps each class to an exit code.
"""

from collections.abc import Iterable
from copy import copy
from difflib import get_close_matches
from typing import Self


class MigratorError(Exception):
    """
    Base of every error raised on purpose.

    Args:
        what: what happened, and on which object.
        state: what remains in the database.
        next: what the user can do.
    """

    def __init__(self, what: str, *, state: str = "", next: str = "") -> None:
        self.what = what
        self.state = state
        self.next = next
        super().__init__(what)

    def __str__(self) -> str:
        """Return all of it in lines."""
        road = self.next and f"Next: {self.next}"
        return "\n".join(filter(None, (self.what, self.state, road)))

    def staying(self, state: str) -> Self:
        """Return the same error with what remains told in another way."""
        found = copy(self)
        found.state = state
        return found


class Refused(MigratorError):
    """Nothing ran, because it could not have ended well."""

    def __init__(
        self, what: str, *, state: str = "Nothing was changed.", next: str = ""
    ) -> None:
        super().__init__(what, state=state, next=next)


class NotThere(Refused):
    """
    Something that a change names is not in the database.

    Args:
        name: the name.
        known: the names that there are, of which the nearest is told.
        table: of which it is a column; "" for anything else.
    """

    def __init__(
        self,
        what: str,
        *,
        state: str = "Nothing was changed.",
        next: str = "",
        name: str = "",
        known: Iterable[str] = (),
        table: str = "",
    ) -> None:
        self.name, self.table = name, table
        # What differs by a letter or two is a slip; what differs by more is not meant.
        close = get_close_matches(name, sorted(known), 1, 0.7)
        self.nearest = close[0] if close else ""
        near = f'"{self.nearest}" is the nearest; ' if self.nearest else ""
        super().__init__(what, state=state, next=near + next)


class Misdeclared(Refused):
    """A parameter of a pattern is none that it takes, whatever the database has."""


class UsageError(Refused):
    """The call itself is wrong: a missing setting, an unknown change."""


class Held(Refused):
    """A gate is closed: waiting, or a person's word, is needed first."""


class Waits(Held):
    """A change that is required first is not finished yet."""


class Overlaps(Held):
    """
    Other changes in flight touch what a change touches.

    Args:
        change: its id.
        others: ids of the other changes.
    """

    def __init__(
        self,
        what: str,
        *,
        state: str = "Nothing was changed.",
        next: str = "",
        change: str = "",
        others: Iterable[str] = (),
    ) -> None:
        self.change, self.others = change, frozenset(others)
        super().__init__(what, state=state, next=next)


class TimeIsUp(Held):
    """The time limit of a run is reached; what was committed stays."""


class Busy(Held):
    """Another process holds the lease, and goes on."""


class Failed(MigratorError):
    """Something ran and failed; what remains is known."""


class LockBudgetError(Failed):
    """A step got no lock within its budget."""


class MismatchError(Failed):
    """Verification found rows that repair did not bring into step."""


class Fenced(Failed):
    """Another process took over this change while this one was at work."""


class ConnectionLost(Failed):
    """The connection to the server broke outside a commit."""


class OutcomeUnknown(MigratorError):
    """The connection broke while a commit was under way."""
