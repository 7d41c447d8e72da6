"""What autogenerate found, as revisions that can be run beside the traffic.

Operations without a hazard stay as they are, together in one revision. Each other one
becomes a revision of its own that carries a pattern, or a choice that a person has to
make first. Alembic's own directive stays whole until files are written, so that
`alembic check` names all that was found, in Alembic's words.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from alembic import util
from alembic.autogenerate.api import RevisionContext
from alembic.operations import ops
from alembic.runtime.migration import MigrationContext
from alembic.script import Script

from migrator.alembic import enums, revision, writing
from migrator.alembic.author import Author
from migrator.alembic.normal import leaves
from migrator.alembic.order import Piece, in_order, later_last
from migrator.alembic.rephrase import Rephrased
from migrator.alembic.requiring import Requiring
from migrator.alembic.underway import target_of, told
from migrator.alembic.writing import CarryOp, Written
from migrator.change import Change
from migrator.ledger import store
from migrator.lint import RULES
from migrator.lint.database import domain_reader, reader
from migrator.lint.scene import Scene
from migrator.pattern import Pattern
from migrator.postgres.connection import Target, connect
from migrator.runner import Runner

#: As Alembic calls it: the context, the revisions, and what is to be written.
Hook = Callable[[MigrationContext, Any, list[ops.MigrationScript]], None]

log = logging.getLogger(__name__)

_SEVERAL = (
    "Several databases in one revision: what autogenerate found stays as it is, and"
    " `migrator lint --offline` tells what is dangerous."
)


def revisions(own: Hook | None) -> Hook:
    """
    Return what `process_revision_directives` is set to.

    Args:
        own: the project's hook, which runs first.
    """

    def process(
        ctx: MigrationContext, at: Any, found: list[ops.MigrationScript]
    ) -> None:
        if own is not None:
            own(ctx, at, found)
        context: RevisionContext | None = ctx.opts.get("revision_context")
        if context is None or not context.command_args["autogenerate"]:
            return
        # The databases come one by one; the first shows by the place that it has.
        several = ctx.opts.get("upgrade_token", "upgrades") != "upgrades"
        if several or any(len(d.upgrade_ops_list) > 1 for d in found):
            if any(len(d.upgrade_ops_list) == 1 for d in found):
                log.warning(_SEVERAL)
            context.__dict__.pop("generate_scripts", None)
            return
        assert ctx.connection is not None
        place = _Place(target_of(ctx.connection), ctx.opts.get("target_metadata"))
        with told():
            settled = [d for d in found if _settled(d, place)]
        _generate(context, place, settled)

    return process


@dataclass(frozen=True, slots=True)
class _Place:
    """What the models are compared with; read by connections of our own."""

    target: Target
    metadata: Any

    @contextmanager
    def author(self) -> Iterator[Author]:
        """Give what writes safe forms by this database and these models."""
        with connect(self.target, "migrator:alembic") as conn:
            runner = Runner(self.target)

            def change(pattern: Pattern) -> Change:
                return Change(revision="autogenerate", pattern=pattern)

            yield Author(
                # A developer's database says nothing of the size of those in use.
                scene=Scene(
                    server_version=conn.info.server_version,
                    read=reader(conn),
                    read_domain=domain_reader(conn),
                    time_zone=conn.info.parameter_status("TimeZone"),
                    sized=False,
                ),
                rules=RULES,
                tables=_tables(self.metadata),
                try_out=lambda p: runner.plan(change(p)),
                refusal=lambda p: runner.refusal(change(p)),
                words=frozenset(
                    (row.table.name, row.parameters["column"], row.parameters["value"])
                    for row in store.changes(conn)
                    if row.begun and row.pattern in enums.TAKE_OUT
                ),
            )


def _tables(metadata: Any) -> Mapping[tuple[str | None, str], sa.Table]:
    every: Sequence[sa.MetaData] = util.to_list(metadata, default=[])
    return {(t.schema, t.name): t for m in every for t in m.tables.values()}


def _parts(
    directive: ops.MigrationScript,
    author: Author,
    changes: dict[str, Written],
    requiring: Requiring,
    *,
    settled: bool,
) -> Iterator[ops.MigrationScript]:
    """
    Return the revisions in place of one, in their order; none where it is empty.

    Args:
        directive: as Alembic has it.
        author: writes the safe forms.
        changes: is filled with what each revision carries, by its id.
        requiring: knows what each has to require.
        settled: whether something was taken out of it.
    """
    upgrade, downgrade = directive.upgrade_ops, directive.downgrade_ops
    if upgrade is None or downgrade is None:
        return
    if not list(leaves(upgrade.ops)):
        return
    batches = later_last(list(in_order(Rephrased(author, upgrade.ops).pieces())))
    if not settled and not any(p.written or p.instead for b in batches for p in b):
        directive._needs_render = True
        yield directive
        return
    # SQL of the project's own hook: no operation knows that it is its way back.
    rest = [o for o in leaves(downgrade.ops) if isinstance(o, ops.ExecuteSQLOp)]
    above = directive.head
    for number, batch in enumerate(batches):
        last = number == len(batches) - 1
        written = batch[0].written
        mine = [] if written else rest
        rest = rest if written else []
        text = directive.message
        if written is not None and (len(batches) > 1 or not text):
            title = writing.message(written.title)
            text = f"{text}: {title}" if text else title
        part = ops.MigrationScript(
            # Its id stands for all, so that what refers to it comes after all.
            rev_id=directive.rev_id if last else util.rev_id(),
            message=text,
            imports=set(directive.imports),
            upgrade_ops=ops.UpgradeOps(
                _upgrade(batch), upgrade_token=upgrade.upgrade_token
            ),
            downgrade_ops=ops.DowngradeOps(
                [*_downgrade(batch), *mine], downgrade_token=downgrade.downgrade_token
            ),
            head=above,
            splice=None if number else directive.splice,
            branch_label=None if number else directive.branch_label,
            depends_on=None if number else directive.depends_on,
            version_path=directive.version_path,
        )
        part._needs_render = True
        assert part.rev_id is not None
        after = (*util.to_tuple(above, ()), *util.to_tuple(part.depends_on, ()))
        carried = requiring.add(part.rev_id, after, written)
        if carried is not None:
            changes[part.rev_id] = carried
        above = part.rev_id
        yield part


def _settled(directive: ops.MigrationScript, place: _Place) -> bool:
    """Take out what is done, though the comparison finds it; tell whether there was."""
    upgrade = directive.upgrade_ops
    if upgrade is None or not any(map(enums.may_be_settled, leaves(upgrade.ops))):
        return False
    with place.author() as author:
        return _taken_out(upgrade, author)


def _taken_out(container: ops.OpContainer, author: Author) -> bool:
    found = False
    for operation in list(container.ops):
        if isinstance(operation, ops.OpContainer):
            found |= _taken_out(operation, author)
        elif enums.settled(operation, author):
            container.ops.remove(operation)
            found = True
    return found


def _upgrade(batch: Sequence[Piece]) -> list[ops.MigrateOperation]:
    return [
        operation
        for piece in batch
        for operation in (
            piece.operations if piece.written is None else (CarryOp(piece.written),)
        )
    ]


def _downgrade(batch: Sequence[Piece]) -> list[ops.MigrateOperation]:
    return [
        operation
        for piece in reversed(batch)
        for operation in (
            piece.back
            if piece.written is None
            else (CarryOp(piece.written, back=True),)
        )
    ]


def _generate(
    context: RevisionContext, place: _Place, settled: list[ops.MigrationScript]
) -> None:
    """
    Let the command write other revisions than its directives, or none.

    Args:
        context: of the command.
        place: by which they are written.
        settled: directives of which something was taken out.
    """
    original = RevisionContext.generate_scripts

    def generate() -> Iterator[Script | None]:
        parts: list[ops.MigrationScript] = []
        changes: dict[str, Written] = {}
        with told(), place.author() as author:
            requiring = Requiring(context.script_directory)
            for directive in context.generated_revisions:
                done = any(directive is d for d in settled)
                parts += _parts(directive, author, changes, requiring, settled=done)
        if not parts:
            context.config.print_stdout("Nothing to do: no revision was written.")
        context.generated_revisions[:] = parts
        writing.hook_into(context.script_directory, changes)
        yield from original(context)
        if revision.settings is not None:
            # Our own command says it, with the files.
            return
        for id_, written in changes.items():
            if written.choice:
                context.config.print_stdout(f"  Decide {written.choice}.")
            if waits := [name for name in written.requires if name in changes]:
                context.config.print_stdout(
                    f"  {id_} waits until {', '.join(waits)}"
                    f" {'is' if len(waits) == 1 else 'are'} finished: unless that is at"
                    " expand, it belongs into a later release."
                )

    # On this one object: `alembic check` reads the directive, and has to find it whole.
    context.generate_scripts = generate  # type: ignore[method-assign]
