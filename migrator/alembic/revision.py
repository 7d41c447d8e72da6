"""
`zd.upgrade`, `zd.downgrade` and `zd.assured`, called inside a revision.

What a change needs, from its pattern to the engine and lint, is imported where it is
used: old revisions that know nothing of the toolkit, on a database that is made anew,
do not wait for it.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from alembic import op
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from migrator.alembic.underway import command, target_of, told
from migrator.configuration import configured
from migrator.errors import Refused
from migrator.names import TableName
from migrator.progress import Progress, Silent
from migrator.settings import Settings

if TYPE_CHECKING:
    from migrator.change import Change
    from migrator.guard import Policy
    from migrator.ledger.store import ChangeRow
    from migrator.pattern import Pattern, Undecided
    from migrator.runner import Runner

#: What the next command uses; the command line puts its own in place, and plain
#: `alembic` goes by the environment and pyproject.toml.
settings: Settings | None = None
progress: Progress = Silent()
guard: "Policy | None" = None


def upgrade(change: "Pattern | Sequence[Pattern]") -> None:
    """
    Expand a change, or carry it through where no other release runs.

    Args:
        change: bound to a name at the top level of the revision; several are taken
            in their order.

    Raises:
        CommandError: it was refused or failed; the cause says which.
    """
    from migrator.lint.recording import note_change

    for pattern in _each(change):
        if note_change(pattern):
            continue
        with told():
            _upgrade(pattern)


def downgrade(change: "Pattern | Sequence[Pattern]") -> None:
    """
    Take back what the ledger says ran; of several changes the last one first.

    Raises:
        CommandError: it was refused (the change is dropped) or failed.
    """
    for pattern in reversed(_each(change)):
        with told():
            _downgrade(pattern)


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
    from migrator.lint import silence

    with ExitStack() as stack:
        with told():
            stack.enter_context(silence.assured(reason))
        yield


def undecided(choice: str) -> "Undecided":
    """
    Return what stands for a change until a person has chosen one.

    Its revision is read and told like any other, and refuses to run.

    Args:
        choice: what has to be decided, to follow "decide": "whether …", "what …".
    """
    from migrator.pattern import Undecided

    caller = sys._getframe(1)
    return Undecided(choice, caller.f_code.co_filename, caller.f_lineno)


def _each(change: "Pattern | Sequence[Pattern]") -> "Sequence[Pattern]":
    from migrator.pattern import Pattern

    return (change,) if isinstance(change, Pattern) else change


def _upgrade(pattern: "Pattern") -> None:
    ctx, change = _begun(pattern)
    with ctx.autocommit_block():
        runner = _runner(ctx)
        if command.mode == "complete":
            _complete(runner, change)
        elif command.fresh and _is_nobodys(ctx, change):
            runner.complete(change)
        else:
            runner.expand(change)


def _downgrade(pattern: "Pattern") -> None:
    from migrator.plan import State

    ctx, change = _begun(pattern)
    with ctx.autocommit_block():
        runner = _runner(ctx)
        known = runner.change(change.id)
        alone = command.mode == "complete" or _nobody_uses(ctx, change, known)
        if not known.begun:
            if alone:
                # What a downgrade that was held behind the way back left.
                runner.drop_parked(change.id, at_once=True)
            return
        lost = runner.is_lost(change.id)
        if lost and alone:
            runner.rebuild(change)
            return
        if lost:
            raise Refused(
                f"{change.id} ({known.title}) is dropped: there is no way back while"
                " a release may be running.",
                next="write a new change; or, where no release runs, set"
                " MIGRATOR_MODE=complete.",
            )
        runner.rollback(change.id, to=State.PLANNED)
        if alone:
            runner.drop_parked(change.id, at_once=True)


def _begun(pattern: "Pattern") -> "tuple[MigrationContext, Change]":
    """Return the context and the change, if the revision is fit for it."""
    from migrator.alembic.project import changes_of
    from migrator.pattern import Undecided

    if isinstance(pattern, Undecided):
        raise pattern.refusal()
    ctx = op.get_context()
    if not command.active or command.script is None:
        raise Refused(
            "env.py does not pass migrator's options to Alembic.",
            next="run `migrator init`, or add **zd.options(target_metadata=…) to"
            " context.configure(…).",
        )
    revision: str = command.script.revision
    if ctx.dialect.name != "postgresql":
        raise Refused(
            f"Revision {revision} holds a change, and this database is"
            f" {ctx.dialect.name}.",
            next="run it on PostgreSQL.",
        )
    if ctx.as_sql:
        raise Refused(
            f"Revision {revision} holds a change, whose SQL depends on the live"
            " database; --sql has none.",
            next="review it with `migrator plan`, and run it online.",
        )
    if ctx._in_external_transaction or not ctx._transaction_per_migration:
        raise Refused(
            f"Revision {revision} runs inside a larger transaction, but a change"
            " commits in small steps.",
            next="run no SQL before context.configure(…), and keep"
            " transaction_per_migration as zd.options(…) sets it.",
        )
    assert ctx.connection is not None
    wrote = ctx.connection.execute(
        text("SELECT pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL")
    ).scalar()
    if wrote:
        raise Refused(
            f"Revision {revision} has written already when it comes to"
            f" {pattern.title}.",
            next="put zd.upgrade(…) first, and the rest into a revision of its own.",
        )
    known = changes_of(command.script, version_table(ctx))
    mine = [change for change in known if change.pattern == pattern]
    if not mine:
        raise Refused(
            f"Revision {revision} makes a change that has no name at its top level,"
            " so that `migrator plan` could not read it.",
            next="write `change = …` above upgrade(), and pass it.",
        )
    return ctx, mine[0]


def version_table(ctx: MigrationContext) -> str:
    """Return the version table's name, with its schema if it has one."""
    schema = ctx.version_table_schema
    return f"{schema}.{ctx.version_table}" if schema else ctx.version_table


def _runner(ctx: MigrationContext) -> "Runner":
    from migrator.runner import Runner

    assert ctx.connection is not None
    found = Runner(
        target_of(ctx.connection),
        settings=settings or configured(),
        progress=progress,
    )
    if guard is not None:
        found.guard = guard
    return found


def _complete(runner: "Runner", change: "Change") -> None:
    """Carry a change through, and first those in flight that touch the same."""
    from migrator.errors import Overlaps

    while True:
        try:
            runner.complete(change)
        except Overlaps as error:
            for other in sorted(error.others):
                runner.finish(other)
        else:
            return


def finish(ctx: MigrationContext, changes: "Sequence[ChangeRow]") -> None:
    """Carry changes in flight through the rest, where no other release runs."""
    runner = _runner(ctx)
    _end(ctx)
    for change in changes:
        runner.finish(change.id)


def _end(ctx: MigrationContext) -> None:
    """End what SQLAlchemy began by itself, which would keep what is dropped."""
    assert ctx.connection is not None
    if ctx.connection.in_transaction():
        ctx.connection.commit()


def _is_nobodys(ctx: MigrationContext, change: "Change") -> bool:
    """Tell whether no table of a change had rows when the command began."""
    from migrator.facts import Kind

    if not command.filled:
        return True
    pattern = change.pattern
    if pattern.kind is Kind.DOMAIN:
        return not _runner(ctx).is_filled(change)
    tables = {(pattern.table, pattern.schema)}
    tables |= {(reach.table, reach.schema) for reach in pattern.reaches()}
    return command.filled.isdisjoint(_resolved(ctx, *table) for table in tables)


def _resolved(
    ctx: MigrationContext, table: str, schema: str | None
) -> TableName | None:
    """Return the full name of a table, None where it is not there."""
    assert ctx.connection is not None
    row = ctx.connection.execute(
        text(
            "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c"
            " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.oid = pg_catalog.to_regclass(:name)"
        ),
        {"name": _quoted(ctx, table, schema)},
    ).one_or_none()
    return None if row is None else TableName(row[0], row[1])


def _quoted(ctx: MigrationContext, table: str, schema: str | None) -> str:
    preparer = ctx.dialect.identifier_preparer
    name = preparer.quote(table)
    return f"{preparer.quote_schema(schema)}.{name}" if schema else name


def _nobody_uses(ctx: MigrationContext, change: "Change", known: "ChangeRow") -> bool:
    """Tell whether no table that the change writes has rows: so nobody uses it."""
    from migrator.facts import Kind

    pattern = change.pattern
    if pattern.kind is Kind.DOMAIN:
        return not _runner(ctx).is_filled(change)
    places = pattern.places(known.table, known.tag)
    found = (_is_empty(ctx, place.name, place.schema) for place in places)
    mine = next((empty for empty in found if empty is not None), None)
    # What a rollback has parked stands under another name, with its rows.
    steps = (row.step for row in _runner(ctx).steps(known.id) if row.status == "parked")
    parked = (s.parked.table for s in steps if s.parked and s.parked.table)
    if any(_is_empty(ctx, table.name, table.schema) is False for table in parked):
        return False
    if pattern.kind is not Kind.TABLE:
        # What the change makes is not there yet.
        return mine is not False
    beside = (
        _is_empty(ctx, reach.table, reach.schema or known.table.schema)
        for reach in pattern.beside()
        if not reach.needed
    )
    there = [empty for empty in (mine, *beside) if empty is not None]
    # Where all are gone for good, nothing of the change tells who is there.
    return all(there) if there else _has_no_rows(ctx)


def _has_no_rows(ctx: MigrationContext) -> bool:
    """Tell whether no table has rows but Alembic's own."""
    from migrator.alembic import applied
    from migrator.postgres.connection import connect

    assert ctx.connection is not None
    with connect(target_of(ctx.connection), "migrator:look") as conn:
        filled = applied.filled(conn, ctx)
    return filled <= {_resolved(ctx, ctx.version_table, ctx.version_table_schema)}


def _is_empty(ctx: MigrationContext, table: str, schema: str | None) -> bool | None:
    """Tell whether a table has no rows, None where there is no table."""
    assert ctx.connection is not None
    name = _quoted(ctx, table, schema)
    there = ctx.connection.execute(
        text("SELECT pg_catalog.to_regclass(:name) IS NOT NULL"), {"name": name}
    ).scalar()
    if not there:
        return None
    quoted = name.replace(":", "\\:")
    return not ctx.connection.execute(
        text(f"SELECT EXISTS (SELECT FROM {quoted})")
    ).scalar()
