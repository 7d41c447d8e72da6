"""`migrator lint`: what is dangerous in revisions, and what to write instead."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import click
from alembic.script import Script

from migrator.change import Change
from migrator.cli import findings, output, rules, sarif
from migrator.cli.absent import Absent, quick
from migrator.cli.app import App, example, json_option, pass_app
from migrator.configuration import allowed, pyproject
from migrator.errors import UsageError
from migrator.lint import Linter, Placed, Severity, Squawk
from migrator.lint.database import domain_reader, reader
from migrator.lint.fixing import fix
from migrator.lint.linter import once
from migrator.lint.run import Run
from migrator.lint.traffic import measured
from migrator.postgres.connection import Connection, connect

#: Its command stands beside those of `migrator.cli.main`.
group = click.Group()

FORMATS = ("text", "json", "sarif", "github")


@group.command(**example("migrator lint migrations/versions/3f2a1b_add_email.py"))
@click.argument("what", nargs=-1)
@click.option("--offline", is_flag=True, help="Ask no database.")
@click.option(
    "--start-after",
    metavar="REVISION",
    help="Leave out this revision and all before it.",
)
@click.option("--format", type=click.Choice(FORMATS), default="text", show_default=True)
@json_option
@click.option("--squawk", is_flag=True, help="Let squawk look at text of SQL too.")
@click.option(
    "--fix", "fixes", is_flag=True, help="Write safe forms that leave no choice."
)
@click.option("--rules", "listed", is_flag=True, help="List all rules.")
@click.option("--explain", metavar="CODE", help="Tell of one rule, with its example.")
@pass_app
def lint(
    app: App,
    what: tuple[str, ...],
    offline: bool,
    start_after: str | None,
    format: str,
    json: bool,
    squawk: bool,
    fixes: bool,
    listed: bool,
    explain: str | None,
) -> None:
    """
    Look for hazards in revisions, each with its safe form.

    WHAT are revisions, ranges (a1b2:c3d4), their files, or files of SQL; without any,
    those that the database does not have yet, or all with --offline.
    """
    chosen = "json" if json else format
    if listed or explain:
        if explain:
            rules.explain(explain, json=chosen == "json")
        else:
            rules.listed(json=chosen == "json")
        return
    files = [Path(one) for one in what if one.endswith(".sql")]
    named = tuple(one for one in what if not one.endswith(".sql"))
    if files and not named and not app.has_database() and not offline:
        click.echo("No database is given: how large tables are is not known.", err=True)
        offline = True
    settled = pyproject()
    wanted: list[Script] = []
    # What comes before those, as far as the database does not tell of it.
    line: list[Script] = []
    new: set[str] | None = None
    ahead: list[Script] = []
    guarded = False
    after: str | Sequence[str] | None = None
    if named or not files:
        project = app.project()
        heads = () if offline else app.heads()
        after = start_after or settled.get("start_after")
        wanted = project.revisions(named, after=after, applied=heads)
        guarded = project.is_guarded()
        if offline:
            line = project.revisions()
        else:
            line = ahead = project.revisions(applied=heads)
            new = {r.revision for r in ahead}
    conn: Connection | None = None
    with ExitStack() as stack:
        linter = Linter(
            allow=allowed(settled),
            short_s=app.settings.lock_timeout_ms / 1000,
            guarded=guarded,
            history=app.project().history() if wanted else None,
        )
        if offline and after and linter.history is not None:
            # Without a database, what is left out is taken for done long ago.
            left = {r.revision for r in app.project().revisions(after=after)}
            done = {r.revision for r in line} - left
            linter.history = linter.history.finished(done)
        if squawk:
            linter.squawk = Squawk.find()
        if not offline:
            conn = connect(app.target(), "migrator:lint")
            stack.callback(conn.close)
            linter.read = reader(conn)
            linter.read_domain = domain_reader(conn)
            linter.time_zone = conn.info.parameter_status("TimeZone")
            linter.server_version = conn.info.server_version
        found: list[Placed] = []
        edited: list[Placed] = []
        if not offline and (named or not files):
            rows = app.runner().changes()
            known = {row.id for row in rows if row.begun or row.finished}
            table = app.version_table()
            runner = quick(app)
            linter.refusal = Absent(runner, ahead, table, known)
            linter.try_out = lambda pattern: runner.refusal(
                Change(revision="lint", pattern=pattern)
            )
            if linter.history is not None:
                linter.history = linter.history.beside(
                    {row.id for row in rows if row.in_flight},
                    {row.id for row in rows if row.finished},
                    {r.revision for r in ahead},
                    table,
                )
            only = {r.revision for r in wanted} if named else None
            edited = _edited(app, linter, only)
            found += edited
        unreleased = not offline or start_after is not None
        before = Before(linter, line, wanted, unreleased=unreleased)
        for r in wanted:
            before.upto(r)
            here = linter.lint(r.revision, r.module)
            if fixes and any(map(findings.counts, here)):
                if new is None or r.revision in new:
                    here = _fixed(linter, r, here)
                else:
                    _say(Path(r.path), "left as it is: the database has it already")
            found += once(here)
        for file in files:
            if not file.is_file():
                raise UsageError(f"There is no {file}.", next="check the name.")
            here = linter.lint_sql(file)
            if fixes and any(map(findings.counts, here)):
                _say(file, "left as it is: it is no revision of Alembic")
            found += here
        if conn is not None:
            found = measured(conn, found)
    looked_at = {r.revision for r in wanted} | {place.revision for place in edited}
    _print(found, len(looked_at) + len(files), chosen, linter)
    if any(findings.counts(p) and p.finding.severity is Severity.ERROR for p in found):
        sys.exit(1)


class Before:
    """
    Lets a linter know what revisions do before those that it looks at.

    Args:
        linter: with what it knows of a database.
        line: all revisions that the database does not have, oldest first; without a
            database, all that there are.
        wanted: those that are looked at, oldest first.
        unreleased: whether no release in use has any of these.
    """

    def __init__(
        self,
        linter: Linter,
        line: list[Script],
        wanted: list[Script],
        *,
        unreleased: bool,
    ) -> None:
        self._linter = linter
        self._known = {r.revision for r in line}
        self._left = iter(line)
        self._run = Run(read=linter.read, unreleased=unreleased)
        # Without a database, what nobody asked about is taken for released.
        first = {r.revision for r in wanted}
        self._new = self._known if linter.read is not None else first

    def upto(self, script: Script) -> None:
        """Go on to a revision that is to be looked at."""
        if script.revision not in self._known:
            # The database tells of all that it did.
            self._linter.run = None
            return
        self._linter.run = self._run
        for r in self._left:
            if r.revision == script.revision:
                return
            self._linter.passed(
                r.revision, r.module, released=r.revision not in self._new
            )


def _edited(app: App, linter: Linter, only: set[str] | None) -> list[Placed]:
    """Return the changes in flight that were edited, of some revisions or of all."""
    edits = [e for e in app.edits() if only is None or e.change.revision in only]
    modules = {r.revision: r.module for r in app.project().revisions()} if edits else {}
    return [linter.edited(edit, modules[edit.change.revision]) for edit in edits]


def _fixed(linter: Linter, revision: Script, found: list[Placed]) -> list[Placed]:
    """Write safe forms into a revision's file; return what is wrong with it now."""
    file = Path(revision.path)
    done = fix(linter, revision.revision, file, found)
    _say(file, f"left as it is: {done.left}" if done.left else "rewritten")
    return done.found


def _say(file: Path, what: str) -> None:
    click.echo(f"{findings.near(file)}: {what}.", err=True)


def _print(found: list[Placed], revisions: int, format: str, linter: Linter) -> None:
    match format:
        case "json":
            findings.as_json(found, revisions)
        case "sarif":
            output.as_json(sarif.log(found, linter.allow))
        case "github":
            findings.as_annotations(found)
        case _:
            findings.as_text(found, revisions)
