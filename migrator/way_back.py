"""Whether a change can be taken back just now, and what was in the way at its drop."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from migrator.errors import Refused
from migrator.execution import reason
from migrator.ledger import store
from migrator.ledger.store import ChangeRow, StepRow
from migrator.plan import Autocommit, Phase, Refusal, State, render
from migrator.postgres.connection import Connection, ask, configure, said
from migrator.words import moment, uncounted

#: How long rows are counted for a person who asks how a change stands. An index on the
#: mark answers in less; what has none is a scan, which a large table would be asked for
#: with each look.
COUNTED_MS = 500
#: How long before a drop, which is run once: what was in the way cannot be asked later.
COUNTED_AT_DROP_MS = 5000
# Under which the log keeps what did not fit the old side when it was dropped.
_UNFIT = "unfit"
_NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class WayBack:
    """
    Whether there is one.

    Args:
        open: None where it is not known, since counting took too long.
        reasons: what keeps the change from going back, or what was not counted.
        unfit: of a dropped one, what did not fit the old side then.
    """

    open: bool | None
    reasons: tuple[str, ...] = ()
    unfit: tuple[str, ...] = ()


def is_lost(row: ChangeRow, steps: Iterable[StepRow]) -> bool:
    """
    Tell whether a change is dropped, and what it dropped is gone for good.

    Args:
        row: the change.
        steps: what ran of it.
    """
    # Of one that was reconciled nothing is known that could be taken back.
    known = list(steps)
    return row.state is State.DROPPED and (not known or _has_lost(known))


_RENAMED = sql.SQL(
    "WITH bears (name) AS (SELECT conname FROM pg_catalog.pg_constraint"
    " WHERE conrelid = pg_catalog.to_regclass({table}) UNION ALL"
    " SELECT c.relname FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c"
    " ON c.oid = i.indexrelid WHERE i.indrelid = pg_catalog.to_regclass({table}))"
    " SELECT EXISTS (SELECT FROM bears WHERE name = {to})"
    " AND NOT EXISTS (SELECT FROM bears WHERE name = {name})"
)


def require_names(
    conn: Connection,
    row: ChangeRow,
    made: Sequence[str],
    others: Iterable[tuple[ChangeRow, Mapping[str, str]]],
) -> None:
    """
    Refuse a way back that would look in vain for what another change has renamed.

    A constraint or an index that is gone is passed over, so that it would stay.

    Args:
        conn: a connection.
        row: the change that is to be taken back.
        made: names of constraints and indexes that it leaves behind.
        others: further changes, and what they rename.

    Raises:
        Refused: names the other one.
    """
    for other, renames in others:
        if other.table != row.table or other.state is State.PLANNED:
            continue
        for name in made:
            to = renames.get(name)
            if to is not None and ask(
                conn,
                render(
                    _RENAMED.format(
                        table=sql.Literal(str(row.table)),
                        name=sql.Literal(name),
                        to=sql.Literal(to),
                    )
                ),
            ):
                raise Refused(
                    f'{row.id} made "{name}" of table {row.table}, which {other.id}'
                    f' ({other.title}) has renamed to "{to}".',
                    next=f"take {other.id} back first (`migrator rollback {other.id}"
                    " --to planned`), or give it its former name by hand; then run the"
                    " same command again.",
                )


def asked(conn: Connection, row: ChangeRow) -> WayBack:
    """
    Ask whether a change could be taken back: from retire, else from expand.

    Rows that do not fit the old side are told, by how many there are, and a dual write
    that is off. What a catalogue or an index does not answer is counted in the table
    itself for half a second at most; what takes longer, the way back counts.
    """
    steps = store.steps(conn, row.id)
    if row.state is State.PLANNED:
        return WayBack(open=True)
    if is_lost(row, steps):
        how = "dropped" if steps else "entered as dropped"
        kept = store.last_event(conn, row.id, _UNFIT)
        unfit = () if kept is None else tuple(kept["detail"]["values"])
        return WayBack(
            open=False,
            reasons=(f"it was {how} on {moment(row.state_at)}",),
            unfit=tuple(why for why in unfit if why != _NOTHING),
        )
    if row.state is State.DROPPED:
        return WayBack(open=True)
    if _has_lost(s for s in steps if s.status != "pending"):
        return WayBack(open=False, reasons=("its drop has begun",))
    retired = row.state is State.RETIRED
    refusals = _refusals(steps, retired=retired)
    when = f" (retired on {moment(row.state_at)})" if retired else ""
    known, unknown = _told(conn, refusals, within_ms=COUNTED_MS)
    if known:
        return WayBack(open=False, reasons=tuple(f"{why}{when}" for why in known))
    return WayBack(open=None if unknown else True, reasons=tuple(unknown))


def keep_unfit(conn: Connection, row: ChangeRow) -> None:
    """Enter into the log what does not fit the old side, before that is dropped."""
    refusals = [
        r
        for r in _refusals(store.steps(conn, row.id), retired=True)
        # What only a catalogue knows says nothing of what is dropped.
        if r.counts_rows
    ]
    known, unknown = _told(conn, refusals, within_ms=COUNTED_AT_DROP_MS)
    found = [*known, *unknown]
    # A drop that was refused may have entered some, which were corrected since.
    if found or store.last_event(conn, row.id, _UNFIT):
        store.event(conn, row.id, _UNFIT, values=found or [_NOTHING])


def _has_lost(steps: Iterable[StepRow]) -> bool:
    return any(s.step.loses for s in steps if s.phase is Phase.DROP)


def _refusals(steps: Iterable[StepRow], *, retired: bool) -> list[Refusal]:
    """Return the conditions of the ways back of retire, or of what was before it."""
    return [
        refusal
        for step in steps
        if step.status == "done" and (step.phase is Phase.RETIRE) is retired
        for action in step.step.reverse
        # Before retire, who uses a view comes and goes.
        if retired or isinstance(action, Autocommit)
        for refusal in action.refusals
    ]


def _told(
    conn: Connection, refusals: Iterable[Refusal], *, within_ms: int
) -> tuple[list[str], list[str]]:
    """Return what is in the way, and what was not counted in time."""
    known: dict[str, None] = {}
    unknown: dict[str, None] = {}
    for refusal in refusals:
        with conn.transaction():
            configure(conn, {"statement_timeout": f"{within_ms}ms"}, local=True)
            try:
                with conn.transaction():
                    if why := reason(conn, refusal):
                        known[why] = None
            except psycopg.errors.QueryCanceled:
                took = f"it takes more than {within_ms / 1000:g} s to count"
                unknown[f"{took}: {uncounted(refusal.why)}"] = None
            except psycopg.ProgrammingError as error:
                # A privilege that this role has not, or a table that went.
                took = f"the server refuses to count ({said(error)})"
                unknown[f"{took}: {uncounted(refusal.why)}"] = None
    return list(known), list(unknown)
