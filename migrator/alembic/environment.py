"""
What `env.py` passes to `context.configure`, and the lease around a command.

What a command may not need, from patterns to the guard and autogenerate with all of
lint, is imported where it is needed: a database that is made anew by old revisions does
without.
"""

import inspect
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

from alembic import context
from alembic.autogenerate.api import RevisionContext
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.exc import SAWarning

from migrator.alembic import applied, comparing, revision
from migrator.alembic.underway import Options, command, target_of, told, uncollected
from migrator.configuration import allowed, configured, pyproject
from migrator.errors import Refused, UsageError
from migrator.ledger import installation
from migrator.ledger.lease import held
from migrator.postgres.connection import (
    Connection,
    Target,
    connect,
    is_same_database,
)

log = logging.getLogger("migrator.alembic")

# Seconds that a pod waits for another one that expands.
QUEUE_WAIT_S = 600.0

MODES = ("live", "complete")

# Alembic's words where one of the database's revisions is behind another one.
OVERLAPS = "overlaps with other requested revisions"


def options(
    *,
    target_metadata: Any = None,
    include_object: Callable[..., bool] | None = None,
    process_revision_directives: Callable[..., None] | None = None,
    mode: str | None = None,
    start_after: str | Sequence[str] | None = None,
    compare_checks: bool = True,
    compare_enums: bool = True,
) -> Options:
    """
    Return the options for `context.configure` in `env.py`.

    Args:
        target_metadata: as for `context.configure`.
        include_object: the project's own filter, asked as well.
        process_revision_directives: the project's own, which runs first.
        mode: `live`, or `complete` where no other release runs; None reads
            `-x migrator_mode=…`, then MIGRATOR_MODE, then means live.
        start_after: this revision and all before it run without the guard, as
            they always did; of several branches, one of each. None reads it from
            `[tool.migrator]`.
        compare_checks: whether autogenerate compares CHECK constraints of tables,
            which Alembic does not.
        compare_enums: whether it compares the values of enums, where the package
            alembic-postgresql-enum does not.

    Raises:
        UsageError: the mode is neither.
    """
    chosen = mode or _mode_given()
    if chosen not in MODES:
        raise UsageError(
            f'The mode "{chosen}" is neither live nor complete.',
            next="correct MIGRATOR_MODE or -x migrator_mode=…",
        )
    command.mode = chosen
    command.active = True
    command.config = getattr(getattr(context, "_proxy", None), "config", None)
    _let_log()
    found: Options = {
        "target_metadata": target_metadata,
        # Alembic reads it in its constructor, so a later line cannot set it.
        "transaction_per_migration": True,
        "include_object": _hiding(include_object),
        "process_revision_directives": _directives(process_revision_directives),
        comparing.CHECKS: compare_checks,
        comparing.ENUMS: compare_enums,
    }
    _require_before_purge(start_after)
    original = _migrations_function()
    if original is not None:
        found["fn"] = _leased(original, start_after)
    return found


def _hiding(own: Callable[..., bool] | None) -> Callable[..., bool]:
    """Return the filter of what is compared, which few commands do."""
    found: list[Callable[..., bool]] = []

    def include(*args: Any) -> bool:
        if not found:
            from migrator.alembic.hiding import hiding

            found.append(hiding(own))
        return found[0](*args)

    return include


def _directives(own: Callable[..., None] | None) -> Callable[..., None]:
    """Return what autogenerate asks, which few commands do."""

    def process(ctx: MigrationContext, revision: Any, found: list[Any]) -> None:
        from migrator.alembic.autogenerate import revisions

        revisions(own)(ctx, revision, found)

    return process


def _let_log() -> None:
    """Let our loggers speak, which `fileConfig` in env.py disables as it finds them."""
    for name, logger in logging.root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and name.partition(".")[0] == "migrator":
            logger.disabled = False


def _mode_given() -> str:
    given = context.get_x_argument(as_dictionary=True)
    assert isinstance(given, dict)
    return str(given.get("migrator_mode") or os.environ.get("MIGRATOR_MODE") or "live")


def _migrations_function() -> Callable[..., Any] | None:
    """Return the function of the command under way, None outside of one."""
    proxy = getattr(context, "_proxy", None)
    opts: Mapping[str, Any] = getattr(proxy, "context_opts", {})
    found = opts.get("fn")
    # An env.py that configures one database after the other finds the one of before.
    return None if found is None else inspect.unwrap(found)


@contextmanager
def _checks_not_proved() -> Iterator[None]:
    """
    Keep a comparison from warning of each check that is NOT VALID.

    SQLAlchemy 2.1 gives what it reads of such a check to `CheckConstraint` as it is,
    which takes `dialect_options` for an option of a dialect.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Can't validate argument 'dialect_options'", SAWarning
        )
        yield


def _require_before_purge(start_after: str | Sequence[str] | None) -> None:
    """
    Look at what would stop a stamp that empties the version table first.

    Raises:
        CommandError: `start_after` names no revision.
    """
    proxy: Any = getattr(context, "_proxy", None)
    purges = bool(getattr(proxy, "context_opts", {}).get("purge"))
    command.purged = False
    if purges:
        with told():
            _passed(proxy.script, start_after or pyproject().get("start_after"))
    command.purged = purges


def _leased(
    original: Callable[..., Any], start_after: str | Sequence[str] | None
) -> Callable[..., Iterator[Any]]:
    """Return the command's function, its steps guarded and under a lease."""

    @wraps(original)
    def steps(heads: tuple[str, ...], ctx: MigrationContext) -> Iterator[Any]:
        changing = "destination_rev" in ctx.opts and not ctx.opts.get("dont_mutate")
        comparing = _is_comparing(ctx)
        with told():
            if (changing or comparing) and not ctx.as_sql:
                _require_known(heads, ctx)
            if comparing and not ctx.as_sql:
                _require_up_to_date(heads, ctx)
            with _checks_not_proved():
                todo = _planned(original, heads, ctx)
        forward = all(step.is_upgrade for step in todo)
        live = changing and not ctx.as_sql and _is_postgresql(ctx)
        # Our own commands say it themselves.
        if live and forward and heads and revision.settings is None:
            with told():
                _tell_edits(ctx)
        if todo and changing:
            with told():
                _require_one_database(todo)
        if not todo or not changing or ctx.as_sql or not _is_postgresql(ctx):
            yield from _noted(todo, lambda _: None)
            return
        assert ctx.connection is not None
        _end_transaction(ctx)
        with told(), ExitStack() as stack:
            project = pyproject()
            settings = revision.settings or configured()
            assert ctx.script is not None
            passed = _passed(ctx.script, start_after or project.get("start_after"))
            allow = allowed(project)
            target = target_of(ctx.connection)
            _end_transaction(ctx)
            if revision.settings is None:
                _compare_with_ours(target)
            conn = connect(target, "migrator:alembic")
            stack.callback(conn.close)
            # A new database has no changes, and as long as its revisions have none it
            # needs no more of the ledger than the lease.
            (installation.install if heads else installation.install_lease)(conn)
            stack.enter_context(
                held(
                    target,
                    conn,
                    f"alembic {ctx.version_table_schema or ''} {ctx.version_table}",
                    seconds=settings.lease_s,
                    wait_s=QUEUE_WAIT_S,
                )
            )
            now = ctx.get_current_heads()
            _end_transaction(ctx)
            command.fresh = not now
            command.filled = applied.filled(conn, ctx) if command.fresh else frozenset()
            command.carried = 0
            # Another release may have been here while this one waited.
            _require_known(now, ctx)
            # Where a stamp has emptied the version table, that tells of no revision.
            if not command.purged:
                applied.note(conn, ctx, revision.version_table(ctx), now)
            guard = None
            if command.fresh and not command.filled:
                # Nobody is there to be kept waiting: revisions run as they are.
                stack.enter_context(uncollected())
            else:
                from migrator.alembic.guarded import Guard

                installation.install(conn)
                guard = Guard(
                    conn=conn,
                    settings=settings,
                    progress=revision.progress,
                    allow=allow,
                    passed=passed,
                    used=command.filled if command.fresh else None,
                )
                stack.enter_context(guard.over_all(ctx))

            def before(step: Any) -> None:
                script = getattr(step, "revision", None)
                if script is not None and step.is_upgrade:
                    _require_finished(script, ctx, conn, settings.hold_s)
                if guard is not None:
                    guard.over(step, ctx)

            if now != heads:
                # Another process migrated while this one waited: start over,
                # with the lease in hand.
                ctx._migrations_fn = lambda at, c: _noted(
                    _planned(original, at, c), before
                )
                ctx.run_migrations()
            else:
                yield from _noted(todo, before)
            now = ctx.get_current_heads()
            _end_transaction(ctx)
            applied.note(conn, ctx, revision.version_table(ctx), now)

    return steps


def _is_comparing(ctx: MigrationContext) -> bool:
    """Tell whether the command compares models with the database."""
    found: RevisionContext | None = ctx.opts.get("revision_context")
    return found is not None and bool(found.command_args["autogenerate"])


def _require_known(heads: Sequence[str], ctx: MigrationContext) -> None:
    """
    Refuse what Alembic would refuse, with a way on: another release was here.

    Raises:
        Refused: the database is at a revision that the project does not hold.
    """
    assert ctx.script is not None
    missing = applied.unknown(ctx.script, heads)
    if missing:
        raise applied.not_held(ctx.script, missing)


def _planned(
    original: Callable[..., Any], heads: tuple[str, ...], ctx: MigrationContext
) -> list[Any]:
    """
    Return the steps of the command.

    Raises:
        Refused: the database is at revisions of which one comes before another.
    """
    try:
        return list(original(heads, ctx))
    except CommandError as error:
        if ctx.script is None or OVERLAPS not in str(error) or len(heads) < 2:
            raise
        raise applied.in_line(ctx.script, heads) from error


def _require_up_to_date(heads: tuple[str, ...], ctx: MigrationContext) -> None:
    """
    Refuse what Alembic would refuse, with a way on: revisions have not run yet.

    Raises:
        Refused: models would be compared with a database that is behind.
    """
    assert ctx.script is not None
    wanted = ctx.script.get_heads()
    if set(ctx.script.get_revisions(heads)) != set(ctx.script.get_revisions(wanted)):
        raise Refused(
            "Target database is not up to date: it is at"
            f" {', '.join(heads) or 'no revision'}, the project at"
            f" {', '.join(wanted)}. A comparison would find again what lies between.",
            next="run `alembic upgrade head` on the database with which you compare,"
            " then this again.",
        )


def _compare_with_ours(target: Target) -> None:
    """Warn where the database given to the toolkit is not the one of env.py."""
    given = os.environ.get("MIGRATOR_DATABASE_URL")
    if not given:
        return
    try:
        ours = Target.from_url(given)
    except UsageError:
        shown = "which cannot be read,"
    else:
        shown = f"to {ours},"
        try:
            if is_same_database(ours, target):
                return
        except Refused:
            shown = f"to {ours}, which cannot be reached,"
    log.warning(
        "alembic goes by env.py, to %s. MIGRATOR_DATABASE_URL, %s counts for migrator"
        " alone.",
        target,
        shown,
    )


def _tell_edits(ctx: MigrationContext) -> None:
    """Say which changes in flight run otherwise than their files have them by now."""
    from migrator import edits
    from migrator.alembic.project import changes_of
    from migrator.ledger import store

    assert ctx.connection is not None
    assert ctx.script is not None
    _end_transaction(ctx)
    conn = connect(target_of(ctx.connection), "migrator:alembic")
    try:
        rows = [row for row in store.changes(conn) if row.in_flight]
    finally:
        conn.close()
    _end_transaction(ctx)
    table = revision.version_table(ctx)
    scripts = ctx.script.walk_revisions() if rows else ()
    for script in scripts:
        for edit in edits.among(changes_of(script, table), rows):
            log.warning("%s Next: %s", edit.what, edit.next)


def _is_postgresql(ctx: MigrationContext) -> bool:
    """Tell whether there is anything here for the toolkit to do."""
    return ctx.dialect.name == "postgresql"


def _require_one_database(todo: Sequence[Any]) -> None:
    """
    Refuse a change in a revision of several databases, before any revision has run.

    Raises:
        Refused: a change is one database's, and so are its phases and its commands.
    """
    if "migrator.pattern" not in sys.modules:
        # Revisions are loaded by now, and none has a change.
        return
    from migrator.alembic.project import is_of_several, patterns_of

    for step in todo:
        script = getattr(step, "revision", None)
        if script is None or not is_of_several(script.module):
            continue
        if patterns_of(script.module):
            raise Refused(
                f"Revision {script.revision} is of several databases, since its"
                " upgrade() is told for which one it runs, and holds a change, which is"
                " one database's.",
                next="give that database an environment of its own (`alembic -n NAME`,"
                " with a script_location of its own), and put the change there;"
                " docs/deployment.md, Several databases, says how.",
            )


def _passed(
    script: ScriptDirectory, start_after: str | Sequence[str] | None
) -> frozenset[str]:
    """Return revisions, and all before them."""
    if not start_after:
        return frozenset()
    given = (start_after,) if isinstance(start_after, str) else tuple(start_after)
    try:
        last = tuple(r.revision for r in script.get_revisions(given) if r)
    except CommandError as error:
        raise UsageError(
            f"start_after names no revision of this project: {error}",
            next="correct it in env.py or in pyproject.toml.",
        ) from error
    return frozenset(one.revision for one in script.iterate_revisions(last, "base"))


def _end_transaction(ctx: MigrationContext) -> None:
    """End what SQLAlchemy began by itself to read or make the version table."""
    connection = ctx.connection
    assert connection is not None
    # Where env.py had Alembic begin one for all revisions, that is not ours to end.
    own = ctx._in_external_transaction or ctx._transaction is not None
    if connection.in_transaction() and not own:
        connection.commit()


def _noted(todo: list[Any], before: Callable[[Any], None]) -> Iterator[Any]:
    """Give the steps of a command, noting which one runs; `before` is called first."""
    for step in todo:
        command.script = getattr(step, "revision", None)
        before(step)
        yield step
        command.carried += 1
    command.script = None


def _require_finished(
    script: Script, ctx: MigrationContext, conn: Connection, hold_s: float
) -> None:
    """
    Stop before a revision until the changes that it requires are finished.

    Raises:
        Waits: one is not.
        UsageError: it requires what nobody knows.
    """
    if getattr(script.module, "requires", None) is None:
        return
    from migrator import waiting
    from migrator.alembic.project import label, requires_of
    from migrator.ledger import store

    requires = requires_of(script)
    if not requires:
        return
    rows = store.changes(conn)
    table = revision.version_table(ctx)
    for name in requires:
        # After a squash the ledger alone may know it.
        if not waiting.known(rows, name, table) and not _has(ctx, name):
            raise UsageError(
                f'Revision {script.revision} requires "{name}", which is no revision of'
                " this project.",
                next="write the whole id of a revision before it; if that one is gone"
                " since revisions were squashed, remove it from `requires`.",
            )
    missing = waiting.unfinished(rows, requires, table)
    if command.mode == "complete":
        revision.finish(ctx, [row for row in missing if row.in_flight])
        missing = [row for row in missing if not row.in_flight]
    if missing:
        error = waiting.error(label(script), missing, hold_s)
        error.next += (
            " Where no release runs, MIGRATOR_MODE=complete with that command finishes"
            " what it waits for."
        )
        raise error


def _has(ctx: MigrationContext, name: str) -> bool:
    """Tell whether the project has the revision of a change's name."""
    wanted = name.partition(":")[0]
    assert ctx.script is not None
    try:
        found = ctx.script.get_revision(wanted)
    except CommandError:
        return False
    # The beginning of an id is enough for Alembic.
    return found is not None and found.revision == wanted
