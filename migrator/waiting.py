"""What waits for a change to be finished, by what the ledger says."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from migrator import names
from migrator.change import DEFAULT_VERSION_TABLE, id_of
from migrator.errors import Held, Overlaps, Waits
from migrator.ledger.store import ChangeRow
from migrator.plan import Footprint, State
from migrator.words import moment


def unfinished(
    rows: Sequence[ChangeRow],
    requires: Sequence[str],
    version_table: str = DEFAULT_VERSION_TABLE,
) -> list[ChangeRow]:
    """
    Return the required changes that are not finished.

    What the ledger does not know is not in flight: it was stamped.

    Args:
        rows: all of the ledger.
        requires: names of changes; a revision's stands for all of its changes.
        version_table: Alembic's version table, with its schema if it has one.
    """
    found = {
        row.id: row for name in requires for row in known(rows, name, version_table)
    }
    return [row for row in found.values() if not row.finished]


def known(
    rows: Sequence[ChangeRow], name: str, version_table: str = DEFAULT_VERSION_TABLE
) -> list[ChangeRow]:
    """Return the changes that a name in `requires` means."""
    one = id_of(name.removesuffix(names.FIRST), version_table)
    if name.endswith(names.FIRST):
        return [row for row in rows if row.id == one]
    return [row for row in rows if row.id == one or row.id.startswith(f"{one}:")]


def error(who: str, missing: Sequence[ChangeRow], hold_s: float) -> Waits:
    """
    Return what says that something waits, and how what it waits for is finished.

    Args:
        who: waits.
        missing: what it waits for, at least one.
        hold_s: how long what was retired is kept.
    """
    first = missing[0]
    return Waits(
        f"{who} waits until {told(missing)}.",
        next=f"{road(first, hold_s)}; then run the same command again.",
    )


def in_the_way(
    rows: Sequence[ChangeRow], change: str, footprints: tuple[Footprint, ...]
) -> list[ChangeRow]:
    """
    Return the changes in flight that touch what another one does.

    Args:
        rows: all of the ledger.
        change: the other one's id.
        footprints: all that it touches.
    """
    return [
        row
        for row in rows
        if row.id != change and row.in_flight and row.overlaps(footprints)
    ]


def overlaps(change: str, others: Sequence[ChangeRow], hold_s: float) -> Overlaps:
    """
    Return what says that a change touches what others do, and how those are finished.

    Args:
        change: its id.
        others: those in flight, at least one, as they stand now.
        hold_s: how long what was retired is kept.
    """
    if len(others) == 1:
        other = others[0]
        touched = f"{other.id} ({other.title}) is changing; that one is {other.stands}"
        road_back = f"finish or roll back {other.id} first: {road(other, hold_s)}"
    else:
        touched = f"others are changing: {'; '.join(_listed(others))}"
        ids = " and ".join(other.id for other in others)
        road_back = f"finish or roll back {ids} first: `migrator status` says how"
    after = others[0].id if len(others) == 1 else "them"
    return Overlaps(
        f"{change} touches what {touched}.",
        next=f"{road_back}. Where {change} comes after {after}, its revision says so"
        " with `requires` (`migrator lint`).",
        change=change,
        others=(other.id for other in others),
    )


def stands_on(change: str, others: Sequence[ChangeRow]) -> Overlaps:
    """
    Return what says that others in flight work on what a way back would take away.

    Args:
        change: its id.
        others: at least one, as they stand now.
    """
    first = others[0]
    finish = "" if first.going_back else f", or finish {first.id}"
    return Overlaps(
        f"{change} is not taken back while others in flight touch the same:"
        f" {'; '.join(_listed(others))}.",
        next=f"`migrator rollback {first.id} --to planned`{finish}; then run the same"
        " command again.",
        change=change,
        others=(other.id for other in others),
    )


def told(missing: Sequence[ChangeRow]) -> str:
    """Return what has to be finished, to follow "until"."""
    each = _listed(missing)
    return f"{' and '.join(each)}, {'is' if len(each) == 1 else 'are'} finished"


def _listed(rows: Sequence[ChangeRow]) -> list[str]:
    return [f"{row.id} ({row.title}), which is {row.stands}" for row in rows]


def require_alone(row: ChangeRow, known: Sequence[ChangeRow]) -> None:
    """
    Refuse the way back of a finished change under the feet of another one.

    One that is finished holds nobody back, so that others may have begun since: their
    triggers read what it would take away, and each write would fail.

    Args:
        row: the finished change.
        known: all of the ledger.

    Raises:
        Overlaps: names them.
    """
    if others := in_the_way(known, row.id, row.footprints):
        raise stands_on(row.id, others)


def require_forward(row: ChangeRow) -> None:
    """
    Refuse to carry a change on that is being taken back.

    Steps that were taken back already would be passed over.

    Raises:
        Held: its way back has begun.
    """
    if row.going_back is not None:
        raise Held(
            f"{row.id} ({row.title}) is on its way back to {row.going_back}, and some"
            " of its steps are taken back.",
            next=f"`{command(row)}` finishes that; then the same command again.",
        )


def command(row: ChangeRow) -> str:
    """Return the command that carries a change on, or finishes its way back."""
    if row.going_back is not None:
        if row.state is State.DROPPED:
            return "alembic downgrade"
        return f"migrator rollback {row.id} --to {row.going_back}"
    return {
        State.PLANNED: f"migrator expand {row.id}",
        State.EXPANDED: f"migrator backfill {row.id}",
        State.BACKFILLED: f"migrator verify {row.id}",
        State.VERIFIED: f'migrator contract {row.id} --old-release-gone "reason"',
        State.RETIRED: f"migrator contract {row.id} --drop",
        State.DROPPED: f"migrator status {row.id}",
    }[row.state]


def held_until(row: ChangeRow, hold_s: float) -> str:
    """
    Return until when what was retired is kept, "" where that is over.

    Args:
        row: a retired change.
        hold_s: how long it is kept.
    """
    until = row.state_at + timedelta(seconds=hold_s)
    return moment(until) if until > datetime.now(UTC) else ""


def road(row: ChangeRow, hold_s: float) -> str:
    """
    Return the commands that finish a change.

    Args:
        row: the change.
        hold_s: how long what was retired is kept.
    """
    if row.going_back is not None:
        return f"`{command(row)}`"
    if row.state is State.RETIRED:
        until = held_until(row, hold_s)
        return f"{until and f'from {until} on, '}`{command(row)}`"
    steps: list[str] = []
    if row.state is State.PLANNED:
        steps.append(f"`migrator expand {row.id}`")
    if row.state.rank < State.VERIFIED.rank:
        steps.append(f"`migrator backfill {row.id}`")
    return "; ".join(
        (
            *steps,
            f"run a release that has {row.id}, and nothing that waits for it,"
            " everywhere",
            f'`migrator contract {row.id} --old-release-gone "reason"`',
            "after the hold, where there is something to drop, the same with --drop",
        )
    )
