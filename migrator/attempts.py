"""One try of a step: the locks that it takes, who is in the way, and what is told."""

import logging
from dataclasses import replace
from itertools import takewhile
from typing import Any

import psycopg

from migrator.errors import LockBudgetError
from migrator.facts import Blocker
from migrator.kernels.direct import locked
from migrator.names import TableName
from migrator.plan import Action, Autocommit, Lock, Transaction
from migrator.postgres import blocking
from migrator.postgres.connection import RETRIED, Connection, ask
from migrator.settings import Settings
from migrator.words import counted

log = logging.getLogger(__name__)


def blockers(conn: Connection, action: Action) -> list[Blocker]:
    """Return who is in an action's way: by a lock, or by what it has to outlive."""
    if action.table is None or action.lock is Lock.NONE:
        return []
    found = blocking.blockers_of(conn, action.table, action.lock)
    others = action.also
    if isinstance(action, Autocommit) and action.outlives:
        others += action.outlives
        if action.leftover is None:
            # A drop waits for no snapshot.
            found = [b for b in found if b.table is not None]
    for other in others:
        found += blocking.blockers_of(conn, other.table, other.lock)
    return list({(b.pid, b.prepared): b for b in found}.values())


def no_lock(
    conn: Connection,
    settings: Settings,
    action: Action,
    what: str,
    *,
    attempts: int,
    found: list[Blocker],
) -> LockBudgetError:
    """Return the error that tells who is in the way, and what was done by then."""
    got = (
        f"{what} got no lock within {settings.lock_timeout_ms} ms"
        f" ({counted(attempts, 'attempt')})."
    )
    state = "This step changed nothing; steps before it stay."
    if action.withdraw and is_withdrawable(conn, action):
        state = (
            "What this way back built stays, and refuses values that it does not allow"
            " until the way back is through, or the change dropped; to go on without,"
            f" run `{'; '.join(action.withdraw)}`."
        )
    if isinstance(action, Autocommit) and action.outlives:
        if waits(action):
            got = (
                f"{what} waited {settings.build_budget_s:g} s for transactions"
                " that began before it."
            )
        looked = (action.leftover, action.done)
        if action.leftover is None or any(q and ask(conn, q) for q in looked):
            state = (
                "This step is half done, and the next try goes on from there: an"
                " index that is half built or dropped serves no query, and is"
                " written all the same. Steps before it stay."
                if waits(action)
                else "This step is half done, and the next try goes on from there;"
                " steps before it stay."
            )
    return LockBudgetError(
        got,
        state=f"{state}\n{blocking.held_by(found)}",
        next=blocking.advice(found),
    )


def is_withdrawable(conn: Connection, action: Action) -> bool:
    """Tell whether there is anything of what an action withdraws."""
    return action.withdrawable is None or ask(conn, action.withdrawable)


def waits(action: Autocommit) -> bool:
    """Tell whether a statement may wait in one go: nobody waits behind it."""
    weak = action.lock.rank <= Lock.SHARE_UPDATE_EXCLUSIVE.rank
    return weak and bool(action.leftover or action.outlives)


def removal(action: Autocommit) -> Autocommit:
    """Return an action as its removal of what was left: a drop outlives all users."""
    outlives = (replace(o, lock=Lock.ACCESS_EXCLUSIVE) for o in action.outlives)
    return replace(action, leftover=None, outlives=tuple(outlives))


def leaves_nothing(conn: Connection, action: Autocommit) -> bool:
    """Tell whether a statement that failed is known to have changed nothing."""
    if action.done is None or (action.outlives and action.leftover is None):
        # A concurrent drop, or a detach, is half done by then.
        return False
    try:
        return not any(q and ask(conn, q) for q in (action.leftover, action.done))
    except psycopg.Error:
        return False


# What statements begin with that take locks; a block takes those of tables that may be
# gone by then, and is spelt otherwise where a name has a backslash.
_LOCKING = (
    "LOCK TABLE ",
    "DO 'BEGIN LOCK TABLE ",
    "DO  E'BEGIN LOCK TABLE ",
)


def locks(action: Transaction) -> tuple[str, ...]:
    """Return the statements that take a transaction's locks: the first, or more."""
    more = takewhile(lambda s: s.startswith(_LOCKING), action.statements[1:])
    return (*action.statements[:1], *more)


def without_gone(conn: Connection, action: Transaction) -> Transaction:
    """Return a transaction that does not lock tables that it can do without."""
    there = tuple(a for a in action.also if not a.if_there or _is_there(conn, a.table))
    if action.table is None or there == action.also:
        return action
    first, *rest = action.statements
    if first == locked(action.table, action.lock, *(a.table for a in action.also)):
        first = locked(action.table, action.lock, *(a.table for a in there))
    return replace(action, statements=(first, *rest), also=there)


def _is_there(conn: Connection, table: TableName) -> bool:
    row = conn.execute(
        "SELECT pg_catalog.to_regclass(%s) IS NOT NULL AS there", (str(table),)
    ).fetchone()
    return row is not None and bool(row["there"])


def turned(action: Transaction, given: tuple[str, ...]) -> tuple[str, ...]:
    """
    Return the statements that take a transaction's locks, in the other order.

    Where requests without a pause between them take two tables in one order, a lock
    on the second is held against one of them at any time: it waits for us, we for it.
    The other order lets those that have begun come to their end.
    """
    others = [t.table for t in action.also]
    if action.table is None or given != (locked(action.table, action.lock, *others),):
        return given[::-1]
    return (locked(action.table, action.lock, *others, turned=True),)


class Attempt:
    """One try; swallows the errors after which another one is made."""

    __slots__ = ("failed", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.failed = False

    def __enter__(self) -> "Attempt":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if isinstance(error, RETRIED):
            log.info("no lock: %s", error)
            self.failed = True
            return True
        return False
