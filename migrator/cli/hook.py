"""What a deployment calls: before a release is let in, after it, and at a gate.

Each command ends with one answer, for a person or as one line of JSON, and with the
exit code that stands in it.
"""

import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from json import dumps

import click

from migrator import waiting
from migrator.alembic.telling import words
from migrator.change import Change
from migrator.cli import output
from migrator.cli.app import App, Seconds, example, json_option, pass_app
from migrator.cli.report import JSON_SCHEMA, exit_code, failed, note_return, told
from migrator.deployment import Retire
from migrator.errors import Failed, Held, MigratorError, Overlaps, Waits
from migrator.plan import State
from migrator.verdicts import UNEXPANDED, Verdict, behind, holding
from migrator.words import several

# Exit code while a release may not be let in, or a change waits: that of Held.
WAITS = 3
# Columns of the word in front of a change, so that those of two answers line up.
WIDE = 5


@dataclass(slots=True)
class Answer:
    """
    What a hook has to say.

    Args:
        hook: the command.
        release: the release's name.
        yes: what is said where nothing speaks against it.
        no: what is said where something does.
        verdicts: of the changes.
        reasons: what speaks against it that is not of one change.
        error: what failed; its exit code is the hook's.
    """

    hook: str
    release: str = ""
    yes: str = ""
    no: str = ""
    verdicts: tuple[Verdict, ...] = ()
    reasons: tuple[str, ...] = ()
    error: MigratorError | None = None

    @property
    def code(self) -> int:
        """The exit code."""
        if self.error is not None:
            return exit_code(self.error)
        return 0 if all(v.ok for v in self.verdicts) and not self.reasons else WAITS

    def add(self, failures: Iterable[MigratorError]) -> None:
        """Take over what failed; what only waits is told by its change."""
        found = [e for e in failures if not isinstance(e, Held)]
        self.error = self.error or next(iter(found), None)

    def as_json(self) -> str:
        """Return one line of JSON."""
        return dumps(
            {
                "schema": JSON_SCHEMA,
                "hook": self.hook,
                "release": self.release,
                "ok": self.code == 0,
                "exit_code": self.code,
                "reasons": list(self.reasons),
                "changes": [
                    {
                        "change": v.change,
                        "title": v.title,
                        "state": v.state,
                        "needs": v.needs,
                        "ok": v.ok,
                        "retired": v.retired,
                        "reason": v.reason or None,
                        "next": v.next or None,
                    }
                    for v in self.verdicts
                ],
                "error": None if self.error is None else told(self.error),
            }
        )

    def show(self) -> None:
        """Print it for a person."""
        told: set[str] = set()
        wide = max((len(_word(v)) for v in self.verdicts), default=0)
        for verdict in self.verdicts:
            _told(_line(verdict, max(wide, WIDE)), 4)
            if verdict.next and not verdict.ok:
                told.add(verdict.next)
                _told(f"    Next: {verdict.next}", 4)
        for reason in self.reasons:
            what, _, road = reason.partition(" Next: ")
            _told(what)
            if road and road not in told:
                _told(f"    Next: {road}", 4)
        if self.error is not None:
            failed(self.error, self.code, json=False)
        elif self.release:
            click.secho(self.no if self.code else self.yes, bold=True)


def _told(text: str, indent: int = 0) -> None:
    """Print a line, which on a terminal goes on behind the indent."""
    first = text.lstrip()
    begun = len(text) - len(first)
    click.echo(text[:begun] + output.prose(first, " " * indent, begun=begun))


def _word(verdict: Verdict) -> str:
    if verdict.ok:
        return "ok"
    return "blocked" if verdict.blocked else "waits"


def _line(verdict: Verdict, wide: int) -> str:
    state = verdict.state or "not expanded"
    what = "retired now" if verdict.retired else state
    why = f": {verdict.reason}" if verdict.reason else ""
    return f"  {_word(verdict):<{wide}} {verdict.change} ({what}){why}"


def _answered(hook: str, json: bool, work: Callable[[Answer], None]) -> None:
    """Do a hook's work; print its answer and exit with its code."""
    answer = Answer(hook)
    try:
        work(answer)
    except Held as error:
        answer.reasons += (f"{error.what} Next: {error.next}",)
    except MigratorError as error:
        answer.error = error
    # A deployment gets its answer whatever happens. The error's words may hold what is
    # secret; where it was raised does not, nor do some of them.
    except Exception as error:
        traceback.print_tb(error.__traceback__)
        answer.error = Failed(
            f"An unexpected {words(error)}.",
            state="What was committed before stays.",
            next="read the traceback on standard error.",
        )
    if json:
        click.echo(answer.as_json())
    else:
        answer.show()
    sys.exit(answer.code)


#: Stands among the commands of `migrator.cli.main`.
group = click.Group(
    "hook",
    help="Do a deployment's part; the exit code tells if it may go on.",
    **example("migrator hook pre-deploy --release v42"),
)
release_option = click.option(
    "--release",
    envvar="MIGRATOR_RELEASE",
    help="Its name; by default the last revisions of the project.",
)


def _named(app: App, release: str | None) -> str:
    return release or "+".join(app.project().heads()) or "base"


@group.command("pre-deploy", **example("migrator hook pre-deploy --release v42"))
@release_option
@click.option(
    "--time-limit",
    type=Seconds(),
    default="15m",
    show_default=True,
    help="After it nothing further is begun; run it again to go on.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Connections that share a backfill.",
)
@click.option(
    "--revisions-ran",
    default="",
    metavar="REASON",
    help="Why a release's revisions count as run that no record tells of.",
)
@json_option
@pass_app
def pre_deploy(
    app: App,
    release: str | None,
    time_limit: float,
    workers: int,
    revisions_ran: str,
    json: bool,
) -> None:
    """Expand, backfill and verify what a release needs before it is let in."""

    def work(answer: Answer) -> None:
        app.settings = replace(
            app.settings, workers=workers, until_s=time.monotonic() + time_limit
        )
        changes = app.changes()
        answer.release = _named(app, release)
        answer.yes = f"{answer.release} may be let in."
        answer.no = f"{answer.release} may not be let in yet; run this again to go on."
        if app.edits():
            # The release was written for what the database will not have.
            answer.no = f"{answer.release} may not be let in; nothing was run."
            answer.verdicts = _gate(app, changes, answer)
            return
        ahead = app.ahead()
        if revisions_ran:
            if ahead and app.not_run(changes)[0]:
                app.note_ran(revisions_ran)
            else:
                _tell_not_needed(ahead=ahead)
        stopped = None if ahead else _expand(app, changes, answer)
        failures = app.deployer().admit(changes)
        answer.add(failures.values())
        if stopped is not None:
            # The others may have been carried on since it was raised.
            stopped = _still(app, stopped)
            if stopped is not None:
                answer.reasons += (f"{stopped.what} Next: {stopped.next}",)
                answer.no = (
                    f"{answer.release} may not be let in yet; run this again once"
                    f" {stopped.change} may be expanded."
                )
        held = {change: error.what for change, error in failures.items()}
        verdicts = tuple(
            v if v.ok or v.change not in held else replace(v, reason=held[v.change])
            for v in _gate(app, changes, answer)
        )
        answer.verdicts = verdicts if stopped is None else _behind(stopped, verdicts)
        if answer.code == 0:
            # One that is kept out is not being deployed: those before it may end.
            app.deployer().begin(answer.release, changes)
            if not ahead:
                app.note_ran()

    _answered("pre-deploy", json, work)


def _tell_not_needed(*, ahead: bool) -> None:
    """Say that a person's word on the revisions that ran was not entered."""
    why = (
        "the record has the last revisions of this project."
        if ahead
        else "the database is at no revision of another release; those of this project"
        " that did not run run now."
    )
    click.echo(
        output.prose(
            f"--revisions-ran is not needed, and was not entered: {why}", err=True
        ),
        err=True,
    )


def _still(app: App, stopped: Overlaps) -> Overlaps | None:
    """Return what stopped the revisions as it stands now; None where it is over."""
    rows = [r for r in app.runner().changes() if r.in_flight and r.id in stopped.others]
    hold_s = app.settings.hold_s
    return waiting.overlaps(stopped.change, rows, hold_s) if rows else None


def _behind(stopped: Overlaps, verdicts: Iterable[Verdict]) -> tuple[Verdict, ...]:
    """Say of changes that no run would expand what does, in place of another run."""
    return tuple(
        holding(stopped, v)
        if v.change == stopped.change
        else behind(stopped.change, v)
        if v.reason == UNEXPANDED
        else v
        for v in verdicts
    )


def _expand(app: App, changes: list[Change], answer: Answer) -> Overlaps | None:
    """
    Run the project's revisions, one pod after the other; note what keeps them.

    Returns:
        What is in the way of a change that does not say that it waits.
    """
    deployer = app.deployer()
    try:
        with deployer.alone(f"hook {app.version_table()}"), app.told_apart():
            at = app.look_again()
            ahead = {r.revision for r in app.project().revisions(applied=at)}
            known = {row.id: row for row in deployer.changes()}
            for change in changes:
                row = known.get(change.id)
                back = row is not None and row.state is State.PLANNED
                # Rolled back, while its revision stays applied: Alembic would pass it.
                if back and change.revision not in ahead:
                    note_return(app, change.id)
                    deployer.expand(change)
            app.upgrade("heads")
    except Waits:
        # The gate says of every revision whether it waits, and for what.
        pass
    except Overlaps as error:
        return error
    except Held as error:
        answer.reasons += (f"{error.what} Next: {error.next}",)
    except MigratorError as error:
        answer.add([error])
    return None


def _gate(app: App, changes: list[Change], answer: Answer) -> tuple[Verdict, ...]:
    """Return the verdicts; note where revisions of the project are not applied."""
    at, wanted = app.look_again(), app.project().heads()
    ahead = app.ahead()
    if ahead:
        missing, others = app.not_run(changes)
        if missing:
            return _never_run(app, changes, missing, answer, squashed=not others)
    applied = set(wanted) <= set(at)
    if not ahead and not applied:
        answer.reasons += (
            f"The database is at revision {', '.join(at) or 'none'}; the release needs"
            f" {', '.join(wanted)}.",
        )
        answer.reasons += tuple(f"{e.what} Next: {e.next}" for e in app.kept_back())
    verdicts = app.deployer().gate(changes, ahead=ahead, applied=applied)
    if not ahead:
        return verdicts
    held = several([head for head in at if app.project().lacks((head,))])
    # Rolled back; pre-deploy of this release runs no revision.
    return tuple(
        replace(
            v,
            next=f"migrator expand {v.change} in the release that holds {held}",
        )
        if v.reason.startswith(UNEXPANDED)
        else v
        for v in verdicts
    )


def _never_run(
    app: App,
    changes: list[Change],
    missing: list[str],
    answer: Answer,
    *,
    squashed: bool,
) -> tuple[Verdict, ...]:
    """Keep a release out whose own revisions the database does not have."""
    what = several(missing)
    it = "it" if len(missing) == 1 else "they"
    held = [head for head in app.heads() if app.project().lacks((head,))]
    road = (
        f"where {it} took the place of revisions that ran here (a squash), `alembic"
        f" stamp --purge {' '.join(missing)}`"
        if squashed
        else f"bring {what} into the release that holds {several(held)} (`alembic merge"
        " heads` there), run pre-deploy of that one, then this again"
    )
    road += (
        f". Where {it} did run here, `migrator hook pre-deploy --revisions-ran"
        ' "reason"` enters that.'
    )
    be = "is" if len(missing) == 1 else "are"
    answer.reasons += (
        f"{what} {be} not known to have run here, and cannot run: the database is at"
        f" {several(held)}, which this project does not hold. Next: {road}",
    )
    if answer.hook != "post-deploy":
        answer.no = (
            f"{answer.release} may not be let in; none of its revisions was run."
        )
    verdicts = app.deployer().gate(changes)
    return tuple(
        replace(v, next="") if v.reason.startswith(UNEXPANDED) else v for v in verdicts
    )


@group.command("post-deploy", **example("migrator hook post-deploy --release v42"))
@release_option
@click.option(
    "--retire",
    type=click.Choice([r.value for r in Retire]),
    default=Retire.EARLIER.value,
    show_default=True,
    help="Changes that an earlier deployment brought in, also this one's, or none.",
)
@json_option
@pass_app
def post_deploy(app: App, release: str | None, retire: str, json: bool) -> None:
    """Mark that every pod runs a release, and retire what is due."""

    def work(answer: Answer) -> None:
        changes = app.changes()
        answer.release = _named(app, release)
        answer.no = f"The deployment of {answer.release} is not marked as ended."
        deployer = app.deployer()
        if not deployer.is_begun(answer.release):
            answer.verdicts = _gate(app, changes, answer)
            if answer.code:
                # Its pods cannot be there: pre-deploy did not let them in.
                answer.no += (
                    " Nothing was retired. Next: migrator hook pre-deploy --release"
                    f" {answer.release}"
                )
                return
        mark = deployer.end(answer.release, changes)
        answer.yes = f"The deployment of {answer.release} has ended."
        answer.no = f"{answer.yes} Not all that is due is retired: run this again."
        answer.verdicts, failures = deployer.retire_due(mark, changes, Retire(retire))
        answer.add(failures.values())

    _answered("post-deploy", json, work)


@group.command("gate", **example("migrator hook gate --old"))
@release_option
@click.option(
    "--old", is_flag=True, help="Ask about the release before, to bring it back."
)
@json_option
@pass_app
def gate(app: App, release: str | None, old: bool, json: bool) -> None:
    """Say whether a release may go out, or the one before it be brought back."""

    def work(answer: Answer) -> None:
        changes = app.changes()
        answer.release = _named(app, release)
        if old:
            how = ""
            if not release:
                guess = answer.release
                answer.release = app.deployer().known_as(guess, changes)
                by_marks = answer.release != guess
                what = "its changes" if by_marks else "the project's last revisions"
                how = f" (by {what})"
            before, answer.verdicts = app.deployer().gate_old(answer.release, changes)
            now = f"{answer.release}{how}"
            name = f"The release before {now}"
            if before:
                name = f"{before.release}, the release before {now},"
            answer.yes = f"{name} may be brought back."
            answer.no = f"{name} may not be brought back."
            return
        answer.yes = f"{answer.release} may go out."
        answer.no = f"{answer.release} may not go out yet."
        answer.verdicts = _gate(app, changes, answer)

    _answered("gate", json, work)
