"""What commands share: the project, the database, settings and options."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, TypeVar

import click
from alembic import command as alembic_command
from alembic.util import CommandError

from migrator import edits, names, waiting
from migrator.alembic import revision as alembic_revision
from migrator.alembic.applied import behind
from migrator.alembic.project import Project, label, patterns_of, requires_of
from migrator.alembic.underway import UNTOUCHED
from migrator.change import DEFAULT_VERSION_TABLE, Change
from migrator.cli.bars import Bars
from migrator.configuration import seconds
from migrator.deployment import Deployer
from migrator.edits import Edit
from migrator.errors import MigratorError, Misdeclared, Refused, UsageError, Waits
from migrator.events import Listeners
from migrator.guard import Policy
from migrator.ledger.store import ChangeRow
from migrator.plan import Plan, State
from migrator.postgres.connection import Target, is_same_database
from migrator.reconciling import Reconciler
from migrator.runner import Runner
from migrator.settings import Settings
from migrator.words import counted, several

Engine = TypeVar("Engine", bound=Runner)


@dataclass(slots=True)
class App:
    """What the group's options say; commands take from it what they need."""

    config: str
    url: str | None
    x: tuple[str, ...]
    settings: Settings
    guard: Policy = field(default_factory=Policy)
    #: The section of the configuration.
    name: str = "alembic"
    _target: Target | None = None
    _version_table: str = DEFAULT_VERSION_TABLE
    _heads: tuple[str, ...] = ()
    _known: bool = False
    _changes: list[Change] | None = None

    def project(self) -> Project:
        """Return the Alembic project."""
        return Project.load(self.config, name=self.name, url=self.url, x=self.x)

    def _look(self) -> None:
        if self._known:
            return
        given = None if self.url is None else Target.from_url(self.url)
        if Project.is_at(self.config):
            found = self.project().database()
            self._target, self._version_table, self._heads = found
            if given is not None and not is_same_database(given, found[0]):
                raise UsageError(
                    f"env.py goes to {found[0]}, and the URL that is given leads to"
                    f" {given}: revisions would run on one, and all else on the other.",
                    next="give env.py the same one; it has the URL that is given by"
                    ' config.get_main_option("sqlalchemy.url").',
                )
        self._target = given or self._target
        self._known = True

    def has_database(self) -> bool:
        """Tell whether a database is given, or an Alembic project that may have one."""
        return self.url is not None or Project.is_at(self.config)

    def target(self) -> Target:
        """
        Return the database.

        Raises:
            UsageError: none is given.
        """
        self._look()
        if self._target is None:
            raise UsageError(
                "No database is given.",
                next="set MIGRATOR_DATABASE_URL, give --database-url, or run this"
                " where alembic.ini is.",
            )
        return self._target

    def runner(self) -> Runner:
        """Return an engine on the database."""
        return self._engine(Runner)

    def deployer(self) -> Deployer:
        """Return an engine that knows of deployments."""
        return self._engine(Deployer)

    def reconciler(self) -> Reconciler:
        """Return an engine that enters what it has not run."""
        return self._engine(Reconciler)

    def _engine(self, kind: type[Engine]) -> Engine:
        return kind(
            self.target(),
            settings=self.settings,
            progress=Bars(),
            guard=self.guard,
            listeners=Listeners.of_project(),
        )

    def changes(self) -> list[Change]:
        """Return the changes of the project's revisions."""
        self._look()
        return self.project().changes(self._version_table)

    def edits(self) -> list[Edit]:
        """Return the changes in flight whose pattern was edited in its file."""
        rows = [row for row in self.runner().changes() if row.in_flight]
        return edits.among(self._written(), rows) if rows else []

    def edit_of(self, row: ChangeRow) -> Edit | None:
        """Return how a change in flight was edited; None where it was not."""
        if not row.in_flight:
            return None
        return next(iter(edits.among(self._written(), [row])), None)

    def _written(self) -> list[Change]:
        """Return the changes as their files have them, read once; none without."""
        if self._changes is None:
            self._changes = []
            if Project.is_at(self.config):
                try:
                    self._changes = self.changes()
                except MigratorError as error:
                    # The ledger goes on without files; that is how a way back is had.
                    click.secho("Note: ", fg="yellow", nl=False, err=True)
                    click.echo(
                        f"{error.what} Whether a pattern was edited since it began is"
                        " not known.",
                        err=True,
                    )
        return self._changes

    def require_unedited(self, *changes: str) -> None:
        """
        Refuse to carry on what its file tells otherwise by now.

        Args:
            changes: ids in the ledger.

        Raises:
            Refused: one of them was edited.
        """
        found = [edit for edit in self.edits() if edit.row.id in changes]
        if found:
            raise found[0].refusal()

    def heads(self) -> tuple[str, ...]:
        """Return the revisions that the database is at."""
        self._look()
        return self._heads

    def plan(self, change: Change) -> Plan:
        """
        Return a change's plan.

        Raises:
            Refused: it cannot work; or not yet, where revisions before it are left.
        """
        try:
            return self.runner().plan(change)
        except Misdeclared:
            # No upgrade would help.
            raise
        except Refused as error:
            left = self.left()
            before = [
                script.revision
                for script in self.project().revisions((f":{change.revision}",))
                if script.revision in left and script.revision != change.revision
            ]
            if not before:
                raise
            counted = "1 revision is" if len(before) == 1 else f"{len(before)} are"
            raise type(error)(
                error.what,
                state=error.state,
                next=f"bring this database to where the change begins:"
                f" `alembic upgrade {before[-1]}` ({counted} missing). Where that is"
                f" done: {error.next}",
            ) from error

    def left(self) -> set[str]:
        """Return the revisions that Alembic has still to run on the database."""
        found = self.project().revisions(applied=self.heads())
        return {revision.revision for revision in found}

    def kept_back(self) -> list[Waits]:
        """Return what says why revisions without a change cannot run yet."""
        rows = self.runner().changes()
        found: list[Waits] = []
        for script in self.project().revisions(applied=self.heads()):
            missing = waiting.unfinished(
                rows, requires_of(script), self.version_table()
            )
            if missing and not patterns_of(script.module):
                hold_s = self.settings.hold_s
                found.append(waiting.error(label(script), missing, hold_s))
        return found

    def version_table(self) -> str:
        """Return Alembic's version table, with its schema if it has one."""
        self._look()
        return self._version_table

    def look_again(self) -> tuple[str, ...]:
        """Return the revisions that the database is at by now."""
        self._known = False
        return self.heads()

    def ahead(self) -> bool:
        """Tell whether the database is at a revision that the project does not hold."""
        return self.project().lacks(self.heads())

    def not_run(self, changes: Sequence[Change]) -> tuple[list[str], bool]:
        """
        Return the project's last revisions of which nothing tells that they ran.

        Args:
            changes: those of its revisions.

        Returns:
            With them, whether any other of its revisions is known to have run.
        """
        deployer = self.deployer()
        begun = {row.id for row in deployer.changes() if row.begun}
        known = deployer.ran(self.version_table())
        known |= {change.revision for change in changes if change.id in begun}
        known |= behind(self.project().script(), self.heads())
        every = {script.revision for script in self.project().revisions()}
        missing = [head for head in self.project().heads() if head not in known]
        return missing, not known.isdisjoint(every)

    def note_ran(self, reason: str = "") -> None:
        """Enter that all of the project's revisions ran."""
        there = [script.revision for script in self.project().revisions()]
        self.deployer().note_ran(self.version_table(), there, reason=reason)

    def upgrade(self, revision: str) -> None:
        """
        Run the Alembic revisions up to one of them.

        Raises:
            UsageError: Alembic refused, with its words.
            MigratorError: a change in them was refused or failed, or their code did.
        """
        alembic_revision.settings = self.settings
        try:
            alembic_command.upgrade(self.project().config, revision)
        except CommandError as error:
            if isinstance(error.__cause__, MigratorError):
                raise error.__cause__ from None
            raise UsageError(f"Alembic: {error}") from error
        except MigratorError:
            raise
        except Exception as error:
            # Whatever the code of a revision, or of env.py, raises.
            raise self.project().failure(error) from error

    @contextmanager
    def told_apart(self) -> Iterator[None]:
        """Say of an error what the same command did before it, since that stays."""
        before = self._ran()
        try:
            yield
        except MigratorError as error:
            try:
                expanded, left = self._ran()
            except MigratorError:
                raise error from None
            fresh = sorted(expanded - before[0])
            mine = {c.revision for c in self.changes() if c.id in fresh}
            plain = len(before[1] - left - mine)
            was = "was" if len(fresh) == 1 else "were"
            done = [f"{several(fresh)} {was} expanded"] if fresh else []
            if plain:
                done.append(counted(plain, "revision was run", "revisions were run"))
            if not done:
                raise
            state = error.state
            if state == Refused("").state or state.startswith(UNTOUCHED):
                state = "Nothing further was changed."
            stays = f"Before it {' and '.join(done)}, which stays."
            raise error.staying(" ".join(filter(None, (state, stays)))) from error

    def _ran(self) -> tuple[set[str], set[str]]:
        """Return the changes that are not planned, and the revisions left to run."""
        self.look_again()
        rows = self.runner().changes()
        return {r.id for r in rows if r.state is not State.PLANNED}, self.left()

    def named(self, name: str | None) -> list[Change]:
        """
        Return the change that a name means; without one, those not expanded yet.

        Raises:
            UsageError: the name means none or several.
        """
        known = self.changes()
        if name is None:
            ledger = {c.id: c for c in self.runner().changes()}
            left = self.left()
            return [
                c
                for c in known
                if (
                    ledger[c.id].state is State.PLANNED
                    if c.id in ledger
                    # Stamped: Alembic will not run it.
                    else c.revision in left
                )
            ]
        means = names.meant(name, (c.id for c in known))
        found = [c for c in known if c.id in means]
        if len(found) == 1:
            return found
        listed = several([c.id for c in reversed(found or known)])
        count = counted(len(found), "change") if found else "no change"
        raise UsageError(
            f'"{name}" means {count} of the revisions; they hold {listed}.',
            next="give the id of one; it is its revision's.",
        )

    def row(self, name: str) -> ChangeRow:
        """
        Return the change in the ledger that a name means.

        Raises:
            UsageError: it means none or several; or one that is not expanded yet.
        """
        try:
            return self.runner().change(name)
        except UsageError as error:
            first = name.removesuffix(names.FIRST)
            written = [c for c in self._written() if first in (c.id, c.revision)]
            if not written:
                raise
            change = written[0]
            raise UsageError(
                f"{change.id} ({change.pattern.title}) is not expanded yet.",
                next=f"`migrator expand {change.id}`",
            ) from error

    def only(self, name: str | None) -> str:
        """
        Return the id of a change in the ledger; the one in flight by default.

        Raises:
            UsageError: no name is given and not just one is in flight.
        """
        if name is not None:
            return self.row(name).id
        flying = [c.id for c in self.runner().changes() if c.in_flight]
        if len(flying) == 1:
            return flying[0]
        if not flying:
            raise UsageError(
                "No change is in flight.",
                next="`migrator expand` begins one; `migrator status` lists all.",
            )
        raise UsageError(
            f"{len(flying)} changes are in flight: {', '.join(flying)}.",
            next=f"give the id of one: `{_called(flying[0])}`.",
        )

    def in_flight(self, name: str | None, *states: State) -> list[str]:
        """Return the id that a name means; without one, those in given states."""
        if name is not None:
            return [self.only(name)]
        known = self.runner().changes()
        return [c.id for c in known if c.in_flight and c.state in states]


def _called(change: str) -> str:
    """Return the command under way for a change, with the flags that it was given."""
    ctx = click.get_current_context()
    flags = [
        option.opts[0]
        for option in ctx.command.params
        if ctx.params.get(option.name or "") is True
        and option.name not in ("json", "yes")
    ]
    return " ".join((ctx.command_path, change, *flags))


class Finite(click.FloatRange):
    """A number within bounds; NaN is within all of them."""

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Return the number."""
        found = float(super().convert(value, param, ctx))
        if not isfinite(found):
            self.fail(f"{found} is no number to go by.", param, ctx)
        return found


class Seconds(click.ParamType[float]):
    """A time such as 90s, 15m, 12h or 7d, or 0."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Return seconds."""
        if isinstance(value, float):
            return value
        found = seconds(str(value))
        if found is not None:
            return found
        self.fail(
            f"{str(value)!r} is not a time: write a number with its unit, 90s, 15m, 12h"
            " or 7d; or 0",
            param,
            ctx,
        )


def example(line: str) -> dict[str, Any]:
    """Return what shows a line of use under a command's help."""
    return {"epilog": f"Example: {line}"}


json_option = click.option("--json", "json", is_flag=True, help="Print JSON.")
change_argument = click.argument("change", required=False)
pass_app: Callable[..., Any] = click.pass_obj
