"""
What every revision runs under, also one that knows nothing of the toolkit.

Its waits for locks are short, it is tried again whole while nothing of it has
committed, it does not queue behind a session that keeps its lock, and it does no known
harm to a table that is in use.
"""

import gc
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

from alembic.operations.base import AbstractOperations
from alembic.operations.ops import ExecuteSQLOp, MigrateOperation
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import event, text
from sqlalchemy.exc import SQLAlchemyError

from migrator.alembic.hazards import Hazards
from migrator.alembic.underway import command, told
from migrator.errors import LockBudgetError, MigratorError, Refused
from migrator.facts import Blocker
from migrator.lint import silence, sql
from migrator.lint.locks import is_strong, lock_of
from migrator.lint.operations import statements
from migrator.lint.recording import Invoke, flushing, intercepted
from migrator.lint.statements import (
    CreateIndex,
    DropIndex,
    Other,
    Reindex,
    Statement,
    Transaction,
)
from migrator.names import TableName
from migrator.plan import Lock
from migrator.postgres import catalog
from migrator.postgres.blocking import advice, held_by, move_aside
from migrator.postgres.connection import LOOK_MS, Connection, configure
from migrator.progress import Progress
from migrator.settings import Settings
from migrator.words import counted

log = logging.getLogger("migrator.alembic")

# Seconds of the first pause between two tries, doubled up to the last; each is drawn
# at random below its bound, so that two processes do not meet again.
FIRST_PAUSE_S = 0.05
LAST_PAUSE_S = 5.0
# Seconds between two looks at a session that keeps its lock. A look is one query, and
# holds nothing.
LOOK_S = 0.2
# Characters of a statement that an error repeats.
SHOWN = 120

# A lock timeout, and a deadlock: after both the same transaction may be tried again.
LOCK_NOT_AVAILABLE = "55P03"
DEADLOCK = "40P01"

# The session's own timeout counts where it is shorter, and the one that the revision
# has set itself in any case. As in the engine's transactions, a deadlock is looked for
# soon, where the role may ask for that: the application is not its victim then.
_BEGIN = text(
    "SELECT now.lock AS session, now.path, now.pid,"
    " CASE WHEN now.lock = COALESCE(given.known, now.lock)"
    "   AND NOT now.lock::interval BETWEEN '1 ms' AND given.lock::interval"
    " THEN pg_catalog.set_config('lock_timeout', given.lock, true) END,"
    " CASE WHEN pg_catalog.has_parameter_privilege('deadlock_timeout', 'SET')"
    "   AND now.deadlock::interval > given.deadlock::interval"
    " THEN pg_catalog.set_config('deadlock_timeout', given.deadlock, true) END"
    " FROM (SELECT CAST(:known AS text) AS known, CAST(:limit AS text) AS lock,"
    "   CAST(:look AS text) AS deadlock) AS given,"
    " (SELECT pg_catalog.current_setting('lock_timeout') AS lock,"
    "   pg_catalog.current_setting('deadlock_timeout') AS deadlock,"
    "   pg_catalog.current_setting('search_path') AS path,"
    "   pg_catalog.pg_backend_pid() AS pid) AS now"
)
_SESSION = text(
    "SELECT pg_catalog.set_config('lock_timeout', CAST(:limit AS text), false)"
    " WHERE pg_catalog.current_setting('lock_timeout') = CAST(:known AS text)"
)


@contextmanager
def assured(reason: str) -> Iterator[None]:
    """
    Let hazards in a block pass, on a person's word, which is kept in the log.

    In a revision::

        with zd.assured("the table is read by nobody before March"):
            op.drop_column("users", "nick")

    Args:
        reason: why it is no hazard here.

    Raises:
        CommandError: there is no reason.
    """
    with ExitStack() as stack:
        with told():
            stack.enter_context(silence.assured(reason))
        yield


#: Locks that a statement waits for: the strongest on each table.
Wanted = Mapping[TableName, Lock]


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
        fresh: whether the database is made anew: nobody uses it, so that nobody is
            kept waiting, and revisions run as they are.
    """

    conn: Connection
    settings: Settings
    progress: Progress
    allow: Mapping[str, str] = field(default_factory=dict[str, str])
    passed: frozenset[str] = frozenset()
    fresh: bool = False
    #: The revision that is running.
    _now: "Guarded | None" = None

    @contextmanager
    def over_all(self, ctx: MigrationContext) -> Iterator[None]:
        """Stand by the command's connection, which is left as it was."""
        connection = ctx.connection
        assert connection is not None
        if self.fresh:
            with _uncollected():
                yield
            return
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
        if self.fresh or script is None or script.revision in self.passed:
            return
        hazards = Hazards(
            conn=self.conn,
            script=script,
            settings=self.settings,
            allow=self.allow,
            upgrade=step.is_upgrade,
            refuses=command.mode != "complete",
        )
        guarded = Guarded(guard=self, ctx=ctx, hazards=hazards)
        original = step.migration_fn

        @wraps(original)
        def run(**kw: Any) -> None:
            guarded.run(original, **kw)

        step.migration_fn = run


@contextmanager
def _uncollected() -> Iterator[None]:
    """
    Leave what is loaded out of the collector's looks.

    It would go through all of the toolkit again and again: half a millisecond for each
    of hundreds of revisions.
    """
    frozen = not gc.get_freeze_count()
    if frozen:
        gc.freeze()
    try:
        yield
    finally:
        if frozen:
            gc.unfreeze()


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
    #: When nothing is waited for any longer; None before anything was.
    _until: float | None = None
    #: Whether some of it has committed, so that it cannot be tried again.
    _committed: bool = False
    #: Whether anything was sent in the transaction: locks may be held.
    _dirty: bool = False
    #: Whether what was set until the end of the transaction is gone with it.
    _ended: bool = False
    _autocommit: bool = False
    #: The backend's process id.
    _pid: int = 0
    #: `lock_timeout` of the session before the revision; None before it is known.
    _session: str | None = None
    #: `lock_timeout` as the guard has set it in an autocommit block; None where the
    #: revision has set its own.
    _set: str | None = None
    #: Whether an operation of Alembic's sends SQL, which was looked at before.
    _inside: bool = False
    #: Whether the guard itself sends SQL.
    _own: bool = False
    #: What was sent last.
    _statement: str = ""
    _sent: Sequence[Statement] = ()
    _wanted: Wanted = field(default_factory=dict[TableName, Lock])
    _refused: Refused | None = None
    _blocked: _Blocked | None = None

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
                self._wait(blocked.wanted)
            except Exception as error:
                if not _is_about_locks(error):
                    raise
                if not self._repeatable():
                    raise self._stopped(attempts) from error
                self._roll_back()
                held = self._in_the_way(self._wanted)
                if self._is_late(pause):
                    raise self._no_lock(attempts, held) from error
                self._tell(f"{self._shown()} got no lock, and is tried again", held)
                if not move_aside(self.guard.conn, held):
                    time.sleep(random.uniform(pause / 2, pause))
                pause = min(pause * 2, LAST_PAUSE_S)
                self._wait(self._wanted)
            self._begin_again()

    def _is_late(self, pause: float = 0.0) -> bool:
        """Tell whether the budget is used up, which counts from the first wait."""
        now = time.monotonic()
        if self._until is None:
            used = self.guard.settings
            self._until = now + used.within(used.step_budget_s)
        return now + pause > self._until

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
        row = self._ask(
            _BEGIN,
            known=self._session,
            limit=f"{self.guard.settings.lock_timeout_ms}ms",
            look=f"{LOOK_MS}ms",
        )
        self._pid = row.pid
        if self._session is None:
            self._session = row.session
        # Names without a schema mean what they mean to the revision.
        configure(self.guard.conn, {"search_path": row.path}, local=False)

    def _ask(self, query: Any, **values: Any) -> Any:
        assert self.ctx.connection is not None
        own, self._own = self._own, True
        try:
            return self.ctx.connection.execute(query, values).fetchone()
        finally:
            self._own = own

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
        """Set the session's timeout, while each statement is a transaction."""
        self._autocommit = self.hazards.scene.autocommit = True
        self._set = self._session
        self._limit(self.guard.settings.lock_timeout_ms)
        try:
            yield
        finally:
            self._autocommit = self.hazards.scene.autocommit = False
            if self._set is not None and self._session is not None:
                # A lost connection has no settings.
                with suppress(SQLAlchemyError):
                    self._ask(_SESSION, limit=self._session, known=self._set)

    def _limit(self, lock_ms: float) -> None:
        """Set `lock_timeout` in an autocommit block, unless the revision has."""
        if self._set is not None:
            row = self._ask(_SESSION, limit=f"{lock_ms:.0f}ms", known=self._set)
            self._set = None if row is None else row[0]

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
        if self._own:
            return
        if self._ended and not self._autocommit:
            # The revision has ended the transaction itself.
            self._begin()
        self._statement, self._sent = statement, ()
        if not self._inside:
            self._sent = sql.statements(statement)
            self._ready(self._sent)
            self._committed = self._committed or _ends(self._sent)
        self._dirty = True

    def after(self) -> None:
        """Note what was sent."""
        if self._own:
            return
        self._passed(self._sent)
        self._ended = self._ended or _ends(self._sent)

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
            patient = bool(found) and all(map(_is_patient, found))
            used = self.guard.settings
            self._limit(used.build_budget_s * 1000 if patient else used.lock_timeout_ms)
        for statement in found:
            refused = self.hazards.refuse(statement)
            if refused is not None:
                self._refused = self._placed(refused)
                raise _told(self._refused)
        self._wanted = self._wanted_by(found)
        strong = {t: lock for t, lock in self._wanted.items() if is_strong(lock)}
        if not self._kept(strong):
            return
        if self._repeatable():
            self._blocked = _Blocked(strong)
            raise self._blocked
        if self._autocommit or not self._dirty:
            self._wait(strong)

    def _wanted_by(self, found: Sequence[Statement]) -> dict[TableName, Lock]:
        """Return the locks that statements take on tables that were there before."""
        scene, wanted = self.hazards.scene, dict[TableName, Lock]()
        for statement in found:
            for ref, lock in lock_of(statement, scene.table).items():
                name = None if scene.is_made(ref) else self.hazards.name(ref)
                if name is not None and lock.rank > wanted.get(name, Lock.NONE).rank:
                    wanted[name] = lock
        return wanted

    # -- who is in the way

    def _in_the_way(self, wanted: Wanted) -> list[Blocker]:
        """Return who holds what conflicts with locks that are wanted."""
        found = {
            blocker.pid: blocker
            for table, lock in wanted.items()
            for blocker in catalog.blockers(self.guard.conn, table, lock)
            if blocker.pid != self._pid
        }
        return list(found.values())

    def _kept(self, wanted: Wanted) -> list[Blocker]:
        """Return who has held it for longer than one would wait in the queue."""
        limit_s = self.guard.settings.lock_timeout_ms / 1000
        return [
            blocker
            for blocker in self._in_the_way(wanted)
            if blocker.autovacuum or blocker.seconds > limit_s
        ]

    def _wait(self, wanted: Wanted) -> None:
        """
        Wait until nobody keeps a lock that is wanted, with nothing held or queued.

        Raises:
            CommandError: somebody keeps it beyond the budget.
        """
        told: list[int] = []
        while kept := self._kept({t: k for t, k in wanted.items() if is_strong(k)}):
            if self._is_late():
                raise self._no_lock(0, kept)
            if told != (told := [blocker.pid for blocker in kept]):
                self._tell("it does not queue for a lock that is kept", kept)
            if not move_aside(self.guard.conn, kept):
                time.sleep(LOOK_S)

    def _tell(self, what: str, held: Sequence[Blocker]) -> None:
        said = " ".join(filter(None, (f"{what}.", self._held(held))))
        log.warning("Revision %s waits: %s", self.hazards.script.revision, said)
        self.guard.progress.waiting(said)

    # -- errors

    def _held(self, held: Sequence[Blocker]) -> str:
        """Say who is in the way, where it is known of what."""
        return held_by(held) if self._wanted else ""

    def _state(self, held: Sequence[Blocker]) -> str:
        return "\n".join(filter(None, (self._stays(), self._held(held))))

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
            return (
                f"This revision changed nothing; the {command.carried} of this command"
                " before it stay as they are now."
            )
        return "Nothing was changed."

    def _placed(self, refused: Refused) -> Refused:
        return type(refused)(refused.what, state=self._stays(), next=refused.next)

    def _no_lock(self, attempts: int, held: Sequence[Blocker]) -> CommandError:
        """Return the error of a revision that changed nothing."""
        where = "".join(f" on table {name}" for name in list(self._wanted)[:1])
        name, used = self.hazards.script.revision, self.guard.settings
        if attempts:
            what = (
                f"Revision {name} got no lock{where} within {used.lock_timeout_ms} ms"
                f" ({counted(attempts, 'attempt')}): {self._shown()}."
            )
        else:
            what = (
                f"Revision {name} waited {used.step_budget_s:g} s for a lock{where}"
                " that is kept, and did not queue for it."
            )
        return _told(
            LockBudgetError(
                what,
                state=self._state(held),
                next=advice(held),
            )
        )

    def _stopped(self, attempts: int) -> CommandError:
        """Return the error of a revision that cannot be tried again."""
        held = self._in_the_way(self._wanted)
        where = "".join(f" on table {name}" for name in list(self._wanted)[:1])
        name, used = self.hazards.script.revision, self.guard.settings
        if self._committed:
            why = "it is not tried again, since a part of it has committed"
            then = (
                "take back by hand what it did, or complete it and `alembic stamp`;"
                " keep one statement in each autocommit block, first in its revision."
            )
        else:
            why = "it is not tried again, since env.py began its transaction"
            then = (
                "run no SQL before context.configure(…), and keep"
                " transaction_per_migration as zd.options(…) sets it."
            )
        return _told(
            LockBudgetError(
                f"Revision {name} got no lock{where} within {used.lock_timeout_ms} ms:"
                f" {self._shown()}; {why}.",
                state=self._state(held),
                next=then,
            )
        )


def _told(error: MigratorError) -> CommandError:
    """Return one of our errors as Alembic's, which it tells without a traceback."""
    raised = CommandError(str(error))
    raised.__cause__ = error
    return raised


def _ends(found: Sequence[Statement]) -> bool:
    """Tell whether statements end the transaction by themselves."""
    return any(isinstance(s, Transaction) and s.how != "BEGIN" for s in found)


def _is_patient(statement: Statement) -> bool:
    """Tell whether a statement may wait long: nobody queues behind it."""
    match statement:
        case CreateIndex() | DropIndex() | Reindex():
            return statement.concurrently
        case _:
            return False


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
