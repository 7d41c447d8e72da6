"""Changes that run as they were recorded, while their file says something else by now.

What is said of them, and the way out, stands here alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from migrator.change import Change
from migrator.errors import Refused
from migrator.ledger.store import ChangeRow
from migrator.plan import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """
    A change whose pattern was edited after it began.

    Args:
        change: as its revision's file has it.
        row: as the ledger runs it.
        parameters: those that differ, with their values in the ledger and in the file;
            none where the file has another pattern.
    """

    change: Change
    row: ChangeRow
    parameters: Mapping[str, tuple[Any, Any]] = field(
        default_factory=dict[str, tuple[Any, Any]]
    )

    @property
    def then(self) -> str:
        """What the ledger runs."""
        if self.row.title != self.change.pattern.title:
            return self.row.title
        given = [f"{name}={then!r}" for name, (then, _) in self.parameters.items()]
        return ", ".join([self.row.title, *(given or [self.row.pattern])])

    @property
    def now(self) -> str:
        """What the file says."""
        pattern = self.change.pattern
        if self.row.title != pattern.title:
            return pattern.title
        given = [f"{name}={now!r}" for name, (_, now) in self.parameters.items()]
        return ", ".join(given or [type(pattern).__name__])

    @property
    def reason(self) -> str:
        """Why the change is held, to follow its name."""
        return (
            f"its pattern was edited while it is {self.row.state}: the ledger runs what"
            f" was recorded ({self.then}), and the file now says something else"
            f" ({self.now})"
        )

    @property
    def what(self) -> str:
        """The same as a sentence of its own."""
        return f"The pattern of {self.row.id}{self.reason.removeprefix('its pattern')}."

    @property
    def next(self) -> str:
        """The way out."""
        return self.way_out(f" (`migrator reconcile {self.row.id}` shows both)")

    def way_out(self, shown: str = "") -> str:
        """
        Return what to do.

        Args:
            shown: where both are seen; "" where they are.
        """
        id_ = self.row.id
        back = f"put the file back as it was{shown}"
        if self.row.finished:
            return f"{back}, and write what is wanted now as a new change."
        used = self.row.state.rank >= State.VERIFIED.rank
        gone = ", once the new release is gone," if used else ""
        return (
            f"{back}; or roll it back first{gone} with `migrator rollback {id_} --to"
            f" planned`, after which `migrator expand {id_}` runs what the file says."
        )

    def refusal(self) -> Refused:
        """Return the error of a command that would carry it on."""
        return Refused(self.what, next=self.next)


def compared(change: Change, row: ChangeRow) -> Edit | None:
    """Return how a change differs from what the ledger has; None where it does not."""
    pattern = change.pattern
    if row.digest == pattern.digest():
        return None
    if row.pattern != type(pattern).__name__:
        return Edit(change=change, row=row)
    found = pattern.differences(row.parameters)
    # A later release of the toolkit may only know more parameters.
    return Edit(change=change, row=row, parameters=found) if found else None


def edited(change: Change, row: ChangeRow | None) -> Edit | None:
    """Return the edit of a change in flight; None where there is none."""
    return compared(change, row) if row is not None and row.in_flight else None


def among(changes: Iterable[Change], rows: Iterable[ChangeRow]) -> list[Edit]:
    """
    Return the changes in flight that were edited.

    Args:
        changes: those of the revisions' files.
        rows: all of the ledger.
    """
    known = {row.id: row for row in rows}
    found = (edited(change, known.get(change.id)) for change in changes)
    return [one for one in found if one is not None]
