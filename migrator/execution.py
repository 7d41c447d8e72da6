"""Runs one step of a change, or takes it back; the runner says which.

A transaction commits with its bookkeeping and is tried again whole. A statement
outside a transaction is looked for before it runs, since its bookkeeping cannot
commit with it.
"""

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg

from migrator import attempts, waiting
from migrator.backfill.walk import Walk
from migrator.errors import Failed, LockBudgetError, Refused
from migrator.events import EventKind
from migrator.facts import Blocker
from migrator.guard import Policy, Watch
from migrator.kernels.direct import locked
from migrator.ledger import store
from migrator.ledger.lease import Lease
from migrator.ledger.store import ChangeRow, StepRow
from migrator.plan import (
    Action,
    Autocommit,
    ChunkedCheck,
    ChunkedUpdate,
    Lock,
    Refusal,
    State,
    Transaction,
)
from migrator.postgres import blocking, catalog, subjects
from migrator.postgres.connection import (
    RETRIED,
    Connection,
    Target,
    ask,
    configure,
    execute_stored,
    require_session,
    said,
    transaction,
    translated,
)
from migrator.progress import Progress
from migrator.settings import Settings
from migrator.words import filled

log = logging.getLogger(__name__)

# Seconds of the first pause between two tries of a step, doubled up to the last;
# each is drawn at random below its bound, so that two runs do not meet again.
FIRST_PAUSE_S = 0.05
LAST_PAUSE_S = 5.0
# A catalogue statement that holds a strong lock may run for this long in ms;
# they take a few ms, so that one in trouble is ended before it becomes a stall.
CATALOGUE_STATEMENT_MS = 1000

#: What to do after a run was cut off.
AGAIN = "run the same command again; it goes on from there."


def reason(conn: Connection, refusal: Refusal) -> str | None:
    """Return why an action is refused just now, None where it is not."""
    found = ask(conn, refusal.count)
    if not found:
        return None
    why = filled(refusal.why, found, at_least=0 < refusal.most <= found)
    if refusal.listed:
        why = why.replace("{listed}", ask(conn, refusal.listed) or "")
    return why


def _only_adds(action: Autocommit, status: str | None) -> bool:
    """
    Tell whether a way back goes on behind an action that took nothing back yet.

    A count, or an index beside what is there: who goes forward instead may leave it.
    """
    return status is None and (action.lock is Lock.NONE or action.leftover is not None)


def _is_first(row: StepRow, status: str | None) -> bool:
    """Tell whether a step goes forward that has not run before."""
    return row.status == "pending" and status == "done"


@dataclass(slots=True)
class Run:
    """
    One process at work on one change: its connection and its lease.

    `watches` is what it watches while rows are moved, by the change, made with the
    step that moves some; further runs of the same command share it. Of one that
    `repeats` a comparison the log has only what it finds. `back_to` is where a way back
    leads, `back_begun` tells whether that was entered with the step it is at.
    """

    target: Target
    conn: Connection
    lease: Lease
    change: ChangeRow
    watches: dict[str, Watch] = field(default_factory=dict[str, Watch])
    repeats: bool = False
    back_to: State | None = None
    back_begun: bool = False


@dataclass(slots=True, frozen=True)
class Execution:
    """
    How steps are run.

    Args:
        settings: timeouts and budgets.
        progress: told what is waited for.
        guard: what is watched while rows are moved.
        tell: given what happens to a change, once it is committed.
        tell_every_s: between two times that it is told how far a backfill is.
    """

    settings: Settings
    progress: Progress
    guard: Policy
    tell: Callable[[EventKind, ChangeRow, Mapping[str, Any]], None]
    tell_every_s: float

    @contextmanager
    def short(self, run: Run, what: str) -> Iterator[None]:
        """
        Run a short transaction that holds the lease until its end.

        Args:
            run: whose connection and lease.
            what: what is done and on which object, for errors.

        Raises:
            Fenced: another process has taken over.
            OutcomeUnknown: the connection was lost during the commit.
        """
        with (
            translated(what, "This step was rolled back.", AGAIN),
            transaction(
                run.conn,
                lock_timeout_ms=self.settings.lock_timeout_ms,
                statement_timeout_ms=self.settings.lock_timeout_ms
                + CATALOGUE_STATEMENT_MS,
                what=what,
                eager=True,
            ),
        ):
            run.lease.check(run.conn)
            yield

    def forward(self, run: Run, row: StepRow) -> None:
        """
        Run a step, or what is left of it.

        Raises:
            LockBudgetError: no lock within the budget.
            Refused: its condition does not hold; nothing was changed.
            Failed: the server refused a statement.
            TimeIsUp: the time limit is reached.
        """
        self.settings.require_time(f"step '{row.step.name}' is not done")
        work = row.step.work
        if isinstance(work, ChunkedUpdate | ChunkedCheck):
            self._walk(run, row, work).run()
        else:
            self.progress.step(row.step.name, None)
            self._action(run, row, work, "done")
        self.progress.done(row.step.name)

    def help(self, run: Run, row: StepRow) -> None:
        """Work on the windows of a step that another process runs."""
        work = row.step.work
        assert isinstance(work, ChunkedUpdate | ChunkedCheck)
        self._walk(run, row, work).help()

    def _walk(self, run: Run, row: StepRow, work: ChunkedUpdate | ChunkedCheck) -> Walk:
        def tell(kind: EventKind, detail: Mapping[str, Any]) -> None:
            self.tell(kind, run.change, detail)

        change = run.change.id
        watch = run.watches.get(change) or Watch(run.target, self.guard, change)
        watch.tell = tell
        run.watches[change] = watch
        return Walk(
            target=run.target,
            conn=run.conn,
            lease=run.lease,
            change=run.change.id,
            row=row,
            work=work,
            settings=self.settings,
            progress=self.progress,
            watch=watch,
            repeats=run.repeats,
            tell=tell,
            tell_every_s=self.tell_every_s,
        )

    def reverse(self, run: Run, row: StepRow) -> None:
        """Take a step back, or what is left of that; errors as in `forward`."""
        run.back_begun = False
        parks = row.step.parked and row.status != "pending"
        final = "parked" if parks else "reversed"
        # What bears the name of what it would have made is somebody else's.
        undone = row.status == "pending" and isinstance(row.step.work, Action)
        actions: tuple[Action, ...] = () if undone else row.step.reverse
        if not actions:
            with self.short(run, row.step.name):
                if row.status == "done":
                    # Its effect stays, so that who goes forward instead may.
                    store.set_status(run.conn, run.change.id, row, "reversed")
                else:
                    self._enter(run, row, "reversed")
            return
        for action in actions[:-1]:
            self._action(run, row, action, None)
        self._action(run, row, actions[-1], final)

    def clear_parked(self, run: Run, row: StepRow) -> None:
        """Drop for good what the step's reverse parked; errors as in `forward`."""
        assert row.step.parked is not None
        self._transaction(run, row, row.step.parked, "cleared")

    def _action(
        self, run: Run, row: StepRow, action: Action, status: str | None
    ) -> None:
        if isinstance(action, Transaction):
            self._transaction(run, row, action, status)
        else:
            self._autocommit(run, row, action, status)

    def _transaction(
        self, run: Run, row: StepRow, action: Transaction, status: str | None
    ) -> None:
        """
        Run a transaction with its bookkeeping, tried again whole.

        `status` is the step's afterwards; None where more of the step follows,
        so that `done` has to tell whether it ran before.
        """
        what = self._named(run.conn, row, action)
        if _is_first(row, status):
            action = replace(action, refusals=(*action.at_first, *action.refusals))
        if action.shows_copies:
            self.outlive_snapshots(run, what)
        for attempt in self._attempts(run, action, what):
            with (
                attempt,
                self._or_withdrawn(run, row, action, what),
                self.short(run, what),
            ):
                if store.status_of(run.conn, row.id) == status:
                    return
                if action.done is None or not ask(run.conn, action.done):
                    self._statements(run.conn, action, what, attempt.number)
                elif _is_first(row, status):
                    self._conditions(run.conn, action.at_first, what)
                self._enter(run, row, status)
            if not attempt.failed:
                return

    def outlive_snapshots(self, run: Run, what: str) -> None:
        """
        Wait until nobody has a snapshot from before the change's rows were copied.

        Raises:
            LockBudgetError: names who has one when the budget is used up.
        """
        budget_s, pause = self.settings.step_budget_s, FIRST_PAUSE_S
        deadline = time.monotonic() + budget_s
        with self.short(run, what):
            at = store.copied_at(run.conn, run.change.id)
        held: dict[str, Blocker] | None = None
        while at is not None:
            with self.short(run, what):
                now = blocking.old_snapshots(run.conn, at)
            # Of those whose age is hidden, some begin meanwhile.
            held = now if held is None else {n: b for n, b in now.items() if n in held}
            if not held:
                return
            if time.monotonic() + pause > deadline:
                raise LockBudgetError(
                    f"{what} waited {budget_s:g} s for a transaction that may see the"
                    " database as it was before rows were copied: it would find none.",
                    state="This step changed nothing; steps before it stay.\n"
                    f"{blocking.held_by([*held.values()])}",
                    next=blocking.advice([*held.values()]),
                )
            self.progress.waiting(
                f"for a snapshot from before the copy of rows, held by"
                f" {next(iter(held.values()))}"
            )
            time.sleep(random.uniform(pause / 2, pause))
            pause = min(pause * 2, LAST_PAUSE_S)

    def _enter(self, run: Run, row: StepRow, status: str | None) -> None:
        """Enter what a step is now; None where it is half taken back."""
        self._enter_back(run)
        if status is not None:
            store.set_status(run.conn, run.change.id, row, status)
        elif store.status_of(run.conn, row.id) == "done":
            # Whoever looks has to see that.
            store.set_status(run.conn, run.change.id, row, "running")

    def _enter_back(self, run: Run) -> bool:
        """
        Enter where a way back leads; tell whether that is new.

        Raises:
            Overlaps: another change began meanwhile, since this one is finished.
        """
        if run.back_to is None:
            return False
        fresh = store.set_going_back(run.conn, run.change.id, run.back_to)
        run.back_begun |= fresh
        if fresh and run.change.finished:
            waiting.require_alone(run.change, store.locked_changes(run.conn))
        return fresh

    def _statements(
        self, conn: Connection, action: Transaction, what: str, attempt: int
    ) -> None:
        """Run a transaction's statements; the condition is read under its locks."""
        action = attempts.without_gone(conn, action)
        locks = attempts.locks(action)
        self._lock(conn, locks if attempt % 2 else attempts.turned(action, locks))
        # Under a strong lock nothing may scan a table: an index answers. Up to 17 a
        # catalogue that has none is scanned at a cost so high that the query would be
        # compiled for a second.
        configure(conn, {"enable_seqscan": "off", "jit": "off"}, local=True)
        self._conditions(conn, action.refusals, what)
        for statement in action.statements[len(locks) :]:
            execute_stored(conn, statement)

    def _lock(self, conn: Connection, locks: tuple[str, ...]) -> None:
        """
        Take locks on several tables within one budget for all of them.

        `lock_timeout` counts anew for each table and partition, while those locked
        before are held already (manual, section 20.11.1).
        """
        lock_ms = self.settings.lock_timeout_ms
        until = time.monotonic() + lock_ms / 1000
        for statement in locks:
            left_ms = max(1, int((until - time.monotonic()) * 1000))
            configure(conn, {"statement_timeout": f"{left_ms}ms"}, local=True)
            try:
                execute_stored(conn, statement)
            except psycopg.errors.QueryCanceled as error:
                raise psycopg.errors.LockNotAvailable(said(error)) from error
        whole = f"{lock_ms + CATALOGUE_STATEMENT_MS}ms"
        configure(conn, {"statement_timeout": whole}, local=True)

    @staticmethod
    def _conditions(conn: Connection, refusals: tuple[Refusal, ...], what: str) -> None:
        for refusal in refusals:
            why = reason(conn, refusal)
            if why is not None:
                raise Refused(f"{what} is refused: {why}.", next=refusal.next)

    def _autocommit(
        self, run: Run, row: StepRow, action: Autocommit, status: str | None
    ) -> None:
        """Run one statement outside a transaction; look before and after."""
        what = self._named(run.conn, row, action)
        require_session(run.conn, what)
        budget_ms = int(self.settings.build_budget_s * 1000)
        lock_ms = budget_ms if attempts.waits(action) else self.settings.lock_timeout_ms
        first = _is_first(row, status)
        if row.status == "pending":
            with self.short(run, what):
                if first:
                    # Who resumes cannot tell another's from what this run has made.
                    self._conditions(run.conn, action.at_first, what)
                store.set_status(run.conn, run.change.id, row, "running")
        for attempt in self._attempts(run, action, what):
            with (
                attempt,
                translated(what, "What ran before stays.", AGAIN),
                self._or_not_begun(run, row, action, what, first=first),
            ):
                configure(run.conn, {"lock_timeout": f"{lock_ms}ms"}, local=False)
                if action.done is None or not ask(run.conn, action.done):
                    if action.leftover is not None and ask(run.conn, action.leftover):
                        assert action.remove is not None
                        self._tell_whom(run, attempts.removal(action))
                        execute_stored(run.conn, action.remove)
                    # To finish what was left may have been all that was to do.
                    if action.done is None or not ask(run.conn, action.done):
                        with self._or_withdrawn(run, row, action, what):
                            self._conditions(run.conn, action.refusals, what)
                            adds = _only_adds(action, status)
                            self._checked_statement(run, action, what, adds=adds)
                        self._require_done(run.conn, action, what)
            if not attempt.failed:
                break
        if _only_adds(action, status):
            return
        with self.short(run, what):
            self._enter(run, row, status)

    @contextmanager
    def _or_not_begun(
        self, run: Run, row: StepRow, action: Autocommit, what: str, *, first: bool
    ) -> Iterator[None]:
        """Where somebody else is in the place of what a step makes, it has not run."""
        try:
            if first:
                self._conditions(run.conn, action.at_first, what)
            yield
        except (Refused, psycopg.errors.DuplicateTable):
            if first and any(reason(run.conn, r) for r in action.at_first):
                with self.short(run, what):
                    store.set_status(run.conn, run.change.id, row, "pending")
                self._conditions(run.conn, action.at_first, what)
            raise

    @contextmanager
    def _or_withdrawn(
        self, run: Run, row: StepRow, action: Action, what: str
    ) -> Iterator[None]:
        """Where rows refuse an action, take back what came before it."""
        try:
            yield
        except (Refused, Failed, psycopg.IntegrityError):
            if (
                action.withdraw
                and not run.conn.closed
                and attempts.is_withdrawable(run.conn, action)
            ):
                self._withdraw(run, row, action, what)
            raise

    def _withdraw(self, run: Run, row: StepRow, action: Action, what: str) -> None:
        assert action.table is not None
        lock = Lock.ACCESS_EXCLUSIVE
        also = tuple(replace(a, lock=lock) for a in action.also)
        first = locked(action.table, lock, *(a.table for a in also))
        work = Transaction(
            statements=(first, *action.withdraw),
            lock=lock,
            table=action.table,
            also=also,
            # Where it gets no lock, that is told with what stays.
            withdraw=action.withdraw,
            withdrawable=action.withdrawable,
        )
        for attempt in self._attempts(run, work, what):
            with attempt, self.short(run, what):
                self._statements(run.conn, work, what, attempt.number)
                if store.status_of(run.conn, row.id) != "done":
                    store.set_status(run.conn, run.change.id, row, "done")
                if run.back_begun:
                    # Nothing is taken back: it may go forward as before.
                    before = run.change.going_back
                    store.set_going_back(run.conn, run.change.id, before)
            if not attempt.failed:
                return

    @staticmethod
    def _require_done(conn: Connection, action: Autocommit, what: str) -> None:
        """Refuse to enter a statement as done that did nothing, by its own question."""
        if action.in_vain and not ask(conn, action.done or "SELECT true"):
            raise Failed(
                f"{what} ran, and is not done by its own question: {action.done}",
                state="What it did stays, and what ran before.",
                next="look at what it made, correct that or the question, then run the"
                " same command again.",
            )

    def _checked_statement(
        self, run: Run, action: Autocommit, what: str, *, adds: bool
    ) -> None:
        """Run the statement; an invalid index that it leaves is removed."""
        with self.short(run, what):
            fresh = not adds and self._enter_back(run)
        try:
            self._statement(run, action, what)
        except Exception:
            if fresh and attempts.leaves_nothing(run.conn, action):
                before = run.change.going_back
                with self.short(run, what):
                    store.set_going_back(run.conn, run.change.id, before)
            raise

    def _tell_whom(self, run: Run, action: Autocommit) -> None:
        """Tell whom a statement waits for that waits in one go."""
        if attempts.waits(action) and (before := attempts.blockers(run.conn, action)):
            self.progress.waiting(f"until those before it are through: {before[0]}")

    def _statement(self, run: Run, action: Autocommit, what: str) -> None:
        self._tell_whom(run, action)
        try:
            execute_stored(run.conn, action.statement)
        except psycopg.errors.DuplicateTable:
            # It has made nothing: what bears the name is somebody else's.
            raise
        except RETRIED:
            self._remove_leftover(run, action)
            raise
        except psycopg.errors.UniqueViolation as error:
            # The server's DETAIL has a key's values, which are nobody's business here.
            at = error.diag.schema_name, error.diag.constraint_name
            query = catalog.duplicates(run.conn, *map(str, at))
            self._remove_leftover(run, action)
            listed = f" (`{query}` lists them)" if query else ""
            raise Failed(
                f"{what}: {said(error)}: rows have the same key.",
                state="What ran before stays.",
                next=f"correct these rows{listed}, then run the same command again.",
            ) from error
        except Exception:
            if not (run.conn.closed or run.conn.broken):
                self._remove_leftover(run, action)
            raise

    def _remove_leftover(self, run: Run, action: Autocommit) -> None:
        """Drop what a build that got no lock left; the next try does it otherwise."""
        if action.leftover is None or not ask(run.conn, action.leftover):
            return
        assert action.remove is not None
        lock_ms = f"{self.settings.lock_timeout_ms}ms"
        configure(run.conn, {"lock_timeout": lock_ms}, local=False)
        with suppress(*RETRIED):
            execute_stored(run.conn, action.remove)

    def _named(self, conn: Connection, row: StepRow, action: Action) -> str:
        step, table = f"Step '{row.step.name}'", action.table
        if table is None:
            return step
        return f"{step} on {subjects.kind_of(conn, table)} {table}"

    def _attempts(
        self, run: Run, action: Action, what: str
    ) -> Iterator[attempts.Attempt]:
        """
        Yield attempts until one succeeds or the budget is used up.

        Backoff doubles from FIRST_PAUSE_S to LAST_PAUSE_S, with full jitter.

        Raises:
            LockBudgetError: names who holds what stands in the way.
        """
        budget = self.settings.step_budget_s
        if isinstance(action, Autocommit) and (action.leftover or action.outlives):
            budget = self.settings.build_budget_s
        deadline = time.monotonic() + budget
        pause, number = FIRST_PAUSE_S, 0
        while True:
            number += 1
            attempt = attempts.Attempt(number)
            yield attempt
            if not attempt.failed:
                return
            blockers = attempts.blockers(run.conn, action)
            if time.monotonic() + pause > deadline:
                raise attempts.no_lock(
                    run.conn,
                    self.settings,
                    action,
                    what,
                    attempts=number,
                    found=blockers,
                )
            held = f", held by {blockers[0]}" if blockers else ""
            named = action.table is not None and action.lock is not Lock.NONE
            wanted = f"{action.lock} on {action.table}" if named else "a lock"
            self.progress.waiting(f"for {wanted}{held}")
            if blocking.move_aside(run.conn, blockers):
                continue
            time.sleep(random.uniform(pause / 2, pause))
            pause = min(pause * 2, LAST_PAUSE_S)
