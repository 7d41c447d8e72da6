"""
What every revision runs under, also one that knows nothing of the toolkit.

Its waits for locks are short, it is tried again whole while nothing of it has
committed, it does not queue behind a session that keeps its lock, and it does no known
harm to a table that is in use.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

from alembic.operations.base import AbstractOperations
from alembic.operations.ops import ExecuteSQLOp, MigrateOperation
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import event

from migrator.alembic.hazards import Hazards
from migrator.alembic.lock_waits import LockWaits, Wanted
from migrator.alembic.sent import ends, is_of_rows, is_patient, kind_of
from migrator.alembic.shortfall import Shortfall
from migrator.alembic.timeouts import Timeouts
from migrator.alembic.underway import command
from migrator.errors import MigratorError, Refused
from migrator.facts import Blocker
from migrator.lint import sql
from migrator.lint.intercepting import Invoke, flushing, intercepted
from migrator.lint.locks import lock_of
from migrator.lint.operations import statements
from migrator.lint.statements import Other, Statement
from migrator.names import TableName
from migrator.plan import Lock
from migrator.postgres.blocking import move_aside
from migrator.postgres.connection import Connection, configure
from migrator.progress import Progress
from migrator.settings import Settings

# Seconds of the first pause between two tries, doubled up to the last; each is drawn
# at random below its bound, so that two processes do not meet again.
FIRST_PAUSE_S = 0.05
LAST_PAUSE_S = 5.0
# Characters of a statement that an error repeats.
SHOWN = 120

# A lock timeout, and a deadlock: after both the same transaction may be tried again.
LOCK_NOT_AVAILABLE = "55P03"
DEADLOCK = "40P01"


class _Blocked(BaseException):
    """
    A session keeps a lock that is wanted: the revision begins anew when it is gone.

    Not an `Exception`: a revision that swallows those would go on without the
    statement.
    """

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        super().__init__()


@dataclass(slots=True, kw_only=True)
class Guard:
    """
    How the revisions of one command are run.

    Args:
        conn: the guard's own, in autocommit; it holds the lease.
        settings: timeouts, budgets, and what counts as in use.
        progress: told what is waited for.
        allow: codes of lint that the project silences, with their reasons.
        passed: revisions that run as they are, without a guard.
        used: the tables that count as in use; None where all do.
    """

    conn: Connection
    settings: Settings
    progress: Progress
    allow: Mapping[str, str] = field(default_factory=dict[str, str])
    passed: frozenset[str] = frozenset()
    used: frozenset[TableName] | None = None
    #: The revision that is running.
    _now: "Guarded | None" = None

    @contextmanager
    def over_all(self, ctx: MigrationContext) -> Iterator[None]:
        """Stand by the command's connection, which is left as it was."""
        connection = ctx.connection
        assert connection is not None
        listeners: tuple[tuple[str, Callable[..., None]], ...] = (
            ("before_cursor_execute", self._before),
            ("after_cursor_execute", self._after),
            ("commit", self._on_commit),
            ("rollback", self._on_rollback),
        )
        for name, listener in listeners:
            event.listen(connection, name, listener)
        try:
            yield
        finally:
            for name, listener in listeners:
                event.remove(connection, name, listener)

    def _before(self, conn: Any, cursor: Any, statement: str, *_: Any) -> None:
        if self._now is not None:
            self._now.before(statement)

    def _after(self, *_: Any) -> None:
        if self._now is not None:
            self._now.after()

    def _on_commit(self, conn: Any) -> None:
        if self._now is not None:
            self._now.ended(committed=True)

    def _on_rollback(self, conn: Any) -> None:
        if self._now is not None:
            self._now.ended(committed=False)

    def over(self, step: Any, ctx: MigrationContext) -> None:
        """Put the guard over a step of Alembic's, where it is to have one."""
        script = getattr(step, "revision", None)
        if script is None or script.revision in self.passed:
            return
        hazards = Hazards(
            conn=self.conn,
            script=script,
            settings=self.settings,
            allow=self.allow,
            upgrade=step.is_upgrade,
            refuses=command.mode != "complete",
            used=self.used,
        )
        guarded = Guarded(guard=self, ctx=ctx, hazards=hazards)
        original = step.migration_fn

        @wraps(original)
        def run(**kw: Any) -> None:
            guarded.run(original, **kw)

        step.migration_fn = run


@dataclass(slots=True, kw_only=True)
class Guarded:
    """
    One revision under the guard.

    Args:
        guard: what it is run with.
        ctx: Alembic's.
        hazards: what is looked for.
    """

    guard: Guard
    ctx: MigrationContext
    hazards: Hazards
    timeouts: Timeouts = field(init=False)
    lock_waits: LockWaits = field(init=False)
    #: Whether some of it has committed, so that it cannot be tried again.
    _committed: bool = False
    #: Whether anything was sent in the transaction: locks may be held.
    _dirty: bool = False
    #: Whether what was set until the end of the transaction is gone with it.
    _ended: bool = False
    _autocommit: bool = False
    #: Whether an operation of Alembic's sends SQL, which was looked at before.
    _inside: bool = False
    #: What was sent last.
    _statement: str = ""
    _sent: Sequence[Statement] = ()
    #: What reads and writes rows, and was looked at since the transaction began or
    #: anything else was sent, with the revision's line: a loop sends it again.
    _written: set[tuple[Sequence[Statement], int]] = field(
        default_factory=set[tuple[Sequence[Statement], int]]
    )
    _refused: Refused | None = None
    _blocked: _Blocked | None = None

    def __post_init__(self) -> None:
        """Begin with nothing waited for."""
        self.timeouts = Timeouts(ctx=self.ctx, settings=self.guard.settings)
        self.lock_waits = LockWaits(
            conn=self.guard.conn,
            settings=self.guard.settings,
            progress=self.guard.progress,
            revision=self.hazards.script.revision,
        )

    def run(self, original: Callable[..., Any], **kw: Any) -> None:
        """
        Run the revision's function.

        Raises:
            CommandError: it was refused, or got no lock; the cause says which.
        """
        pause, attempts = FIRST_PAUSE_S, 0
        refused = self.hazards.refuse_beforehand()
        if refused is not None:
            raise _told(self._placed(refused))
        while True:
            attempts += 1
            try:
                with self._watched():
                    original(**kw)
                # It may have swallowed what kept a statement from running.
                if self._refused is not None:
                    raise _told(self._refused)
                if self._blocked is None:
                    return
                raise self._blocked
            except _Blocked as blocked:
                self._roll_back()
                self.lock_waits.wait(blocked.wanted, self._kept_too_long)
            except Exception as error:
                if not _is_about_locks(error):
                    raise
                if not self._repeatable():
                    raise _told(
                        self._shortfall().stopped(committed=self._committed)
                    ) from error
                self._roll_back()
                held = self.lock_waits.in_the_way()
                if self.lock_waits.is_late(pause):
                    raise _told(self._shortfall().no_lock(attempts, held)) from error
                what = f"{self._shown()} got no lock, and is tried again"
                self.lock_waits.tell(what, held)
                if not move_aside(self.guard.conn, held):
                    time.sleep(random.uniform(pause / 2, pause))
                pause = min(pause * 2, LAST_PAUSE_S)
                self.lock_waits.wait(self.lock_waits.wanted, self._kept_too_long)
            self._begin_again()

    # -- transactions

    def _repeatable(self) -> bool:
        """Tell whether the whole revision can be taken back and run again."""
        return not self._committed and self._alone()

    def _alone(self) -> bool:
        """Tell whether the transaction is the revision's own."""
        ctx = self.ctx
        return (
            ctx._transaction is not None
            and ctx._transaction_per_migration
            and not ctx._in_external_transaction
        )

    def _roll_back(self) -> None:
        assert self.ctx._transaction is not None
        self.ctx._transaction.rollback()

    def _begin_again(self) -> None:
        """Begin the transaction that Alembic will commit."""
        assert self.ctx.connection is not None
        self.ctx._transaction = self.ctx.connection.begin()
        self._blocked = None
        self.hazards.again()

    def _begin(self) -> None:
        """Set what holds until the end of the transaction."""
        self._dirty = self._ended = False
        self._written.clear()
        path = self.timeouts.begin()
        self.lock_waits.pid = self.timeouts.pid
        # Names without a schema mean what they mean to the revision.
        configure(self.guard.conn, {"search_path": path}, local=False)

    @contextmanager
    def _block(
        self, original: Callable[[], AbstractContextManager[None]]
    ) -> Iterator[None]:
        """Stand around an autocommit block, which commits what was before it."""
        self._committed = True
        self.hazards.scene.committed()
        # Behind it, a transaction begins in which nothing is set: see `before`.
        with original(), self._by_itself():
            yield

    @contextmanager
    def _by_itself(self) -> Iterator[None]:
        """Count each statement as a transaction, under a timeout of the session."""
        self._autocommit = self.hazards.scene.autocommit = True
        try:
            with self.timeouts.by_itself():
                yield
        finally:
            self._autocommit = self.hazards.scene.autocommit = False

    # -- what it sends

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Look at all that the revision sends, from its first statement on."""
        ctx, connection = self.ctx, self.ctx.connection
        assert connection is not None
        block = ctx.autocommit_block
        ctx.autocommit_block = lambda: self._block(block)  # type: ignore[method-assign]
        self.guard._now = self
        try:
            with ExitStack() as stack:
                stack.enter_context(intercepted(self._standing))
                stack.enter_context(flushing(self._enter, self._leave))
                self._begin()
                if getattr(connection.connection, "autocommit", False):
                    # The engine commits each statement.
                    self._committed = True
                    stack.enter_context(self._by_itself())
                yield
        finally:
            self.guard._now = None
            self._inside = False
            ctx.autocommit_block = block  # type: ignore[method-assign]

    def _enter(self) -> None:
        self._inside = True

    def _leave(self) -> None:
        self._inside = False

    def _standing(self, original: Invoke) -> Invoke:
        """Return what stands before each operation."""

        def invoke(operations: AbstractOperations, operation: MigrateOperation) -> Any:
            # What is known by its text, or not at all, is seen in what it sends.
            if self._inside or isinstance(operation, ExecuteSQLOp):
                return original(operations, operation)
            found = statements(operation)
            if found == [Other(sql=type(operation).__name__)]:
                return original(operations, operation)
            self._written.clear()
            self._ready(found)
            self._inside = True
            try:
                result = original(operations, operation)
            finally:
                self._inside = False
            self._passed(found)
            return result

        return invoke

    def before(self, statement: str) -> None:
        """Look at a text before it is sent."""
        if self.timeouts.asking:
            return
        if self._ended and not self._autocommit:
            # The revision has ended the transaction itself.
            self._begin()
        self._statement, self._sent = statement, ()
        if not self._inside:
            found = tuple(sql.statements(statement))
            again = tuple(map(kind_of, found)), self.hazards.line()
            if again not in self._written:
                self._sent = found
                self._ready(found)
                self._committed = self._committed or ends(found)
                if self._autocommit or not all(map(is_of_rows, found)):
                    self._written.clear()
                else:
                    # Its locks are held by now.
                    self._written.add(again)
        self._dirty = True

    def after(self) -> None:
        """Note what was sent."""
        if self.timeouts.asking:
            return
        self._passed(self._sent)
        self._ended = self._ended or ends(self._sent)

    def ended(self, *, committed: bool) -> None:
        """Note that the transaction has ended, be it by the revision itself."""
        self._ended = True
        self._committed = self._committed or committed

    def _passed(self, found: Sequence[Statement]) -> None:
        for statement in found:
            self.hazards.scene.passed(statement)

    def _ready(self, found: Sequence[Statement]) -> None:
        """
        Look at what is to be done next.

        Raises:
            CommandError: it is a hazard, or a lock is kept for too long.
            _Blocked: the revision has to begin anew.
        """
        if self._autocommit:
            # It waits for old snapshots, and keeps nobody waiting meanwhile.
            patient = bool(found) and all(map(is_patient, found))
            used = self.guard.settings
            self.timeouts.limit(
                used.build_budget_s * 1000 if patient else used.lock_timeout_ms
            )
        for statement in found:
            refused = self.hazards.refuse(statement)
            if refused is not None:
                self._refused = self._placed(refused)
                raise _told(self._refused)
        wanted = self.lock_waits.wanted = self._wanted_by(found)
        if not self.lock_waits.keeping(wanted):
            return
        if self._repeatable():
            self._blocked = _Blocked(wanted)
            raise self._blocked
        if self._autocommit or not self._dirty:
            self.lock_waits.wait(wanted, self._kept_too_long)

    def _wanted_by(self, found: Sequence[Statement]) -> dict[TableName, Lock]:
        """Return the locks that statements take on tables that were there before."""
        scene, wanted = self.hazards.scene, dict[TableName, Lock]()
        for statement in found:
            for ref, lock in lock_of(statement, scene.table).items():
                name = None if scene.is_made(ref) else self.hazards.name(ref)
                if name is not None and lock.rank > wanted.get(name, Lock.NONE).rank:
                    wanted[name] = lock
        return wanted

    # -- errors

    def _shown(self) -> str:
        words = " ".join(self._statement.split())
        return f"`{words if len(words) <= SHOWN else words[: SHOWN - 1] + '…'}`"

    def _stays(self) -> str:
        """Say what remains of the revision, and of those before it."""
        if not self._alone():
            return (
                "Nothing was changed: env.py's own transaction takes back all that"
                " this command did."
            )
        if self._committed:
            return (
                "What the revision committed before stays, the rest was rolled back;"
                " Alembic's version is the one before it."
            )
        if command.carried:
            return command.stays
        return "Nothing was changed."

    def _placed(self, refused: Refused) -> Refused:
        return type(refused)(refused.what, state=self._stays(), next=refused.next)

    def _kept_too_long(self, held: Sequence[Blocker]) -> CommandError:
        return _told(self._shortfall().kept_too_long(held))

    def _shortfall(self) -> Shortfall:
        return Shortfall(
            waits=self.lock_waits, statement=self._shown(), stays=self._stays()
        )


def _told(error: MigratorError) -> CommandError:
    """Return one of our errors as Alembic's, which it tells without a traceback."""
    raised = CommandError(str(error))
    raised.__cause__ = error
    return raised


def _is_about_locks(error: BaseException) -> bool:
    """Tell whether an error is a lock timeout or a deadlock, whatever the driver."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MigratorError):
            return False
        for one in (seen, getattr(seen, "orig", None)):
            code = getattr(one, "sqlstate", None) or getattr(one, "pgcode", None)
            if code in (LOCK_NOT_AVAILABLE, DEADLOCK):
                return True
        seen = seen.__cause__
    return False
