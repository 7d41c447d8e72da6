"""Looks at revisions: follows each, and lets every rule look at what it does."""

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import ModuleType

from migrator.change import Change
from migrator.edits import Edit
from migrator.errors import Misdeclared, NotThere, Refused
from migrator.history import History, required
from migrator.lint import overlaps, sql
from migrator.lint.recording import Record, Recorded, line_of, record, record_text
from migrator.lint.rule import Finding, Rule, Safe, Severity
from migrator.lint.rules import RULES
from migrator.lint.run import Run
from migrator.lint.scene import DomainReader, Reader, Scene
from migrator.lint.silence import Allowed, comments, sql_comments
from migrator.lint.squawk import Squawk
from migrator.lint.statements import Carried, Statement
from migrator.pattern import OPEN, Pattern, Undecided

#: A revision that cannot be followed, a comment that gives no reason, and a choice
#: that nobody has made yet.
UNREAD = "ZD901"
NO_REASON = "ZD902"
UNDECIDED = "ZD903"
#: A change in flight that its file tells otherwise by now, one that names what is not
#: there, and one that cannot work for another reason.
EDITED = "ZD906"
MISSING = "ZD907"
REFUSED = "ZD908"
#: What is found in a revision besides what rules look for.
OWN = {
    UNREAD: "the revision could not be followed to its end",
    NO_REASON: "a hazard is allowed without a reason",
    UNDECIDED: "a choice is open that a person has to make",
    overlaps.UNDECLARED: "changes overlap, and neither waits for the other",
    overlaps.UNKNOWN: "a revision requires what is no change before it",
    EDITED: "the pattern of a change in flight was edited",
    MISSING: "a change names what the database does not have",
    REFUSED: "a change would be refused, as the database is",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """
    A finding, and where it is.

    Args:
        finding: what is wrong.
        revision: its revision's id.
        file: its revision's file; None where there is none.
        line: of the file, from 1; 0 where it is not known.
        allowed: why a person said it is none; "" where nobody did.
        recorded: the statement; None where it is about the revision.
        traffic_per_s: what would wait for a lock that lasts: rows written in a second,
            or where readers wait too, scans and rows inserted; None where that was
            not looked at.
    """

    finding: Finding
    revision: str
    file: Path | None
    line: int
    allowed: str = ""
    recorded: Recorded | None = None
    traffic_per_s: float | None = None


@dataclass(slots=True, kw_only=True)
class Linter:
    """
    Lints revisions, each for itself.

    Args:
        rules: which look.
        allow: codes that the project silences, with their reasons.
        server_version: `server_version_num`; None without a database.
        read: reads facts of tables; None without a database.
        read_domain: reads facts of domains; None without a database.
        time_zone: of a session that sets none; None without a database.
        short_s: seconds for which requests may wait.
        guarded: whether `env.py` runs revisions with the toolkit's options.
        history: all revisions of the project; None where there is none.
        run: what revisions before did, and its `read` reads tables; None where each is
            looked at for itself.
        squawk: looks at text as well; None where nobody asked for it.
        refusal: tells what keeps a change of a revision from working: what it names and
            nothing makes, or anything else; None without a database.
    """

    rules: Sequence[Rule] = RULES
    allow: Mapping[str, str] = field(default_factory=dict[str, str])
    server_version: int | None = None
    read: Reader | None = None
    read_domain: DomainReader | None = None
    time_zone: str | None = None
    short_s: float = 0.2
    guarded: bool = False
    history: History | None = None
    run: Run | None = None
    squawk: Squawk | None = None
    refusal: Callable[[str, Pattern], Refused | None] | None = None
    #: Tells why the database as it is would refuse a pattern; None without one.
    try_out: Callable[[Pattern], Refused | None] | None = None

    def lint(self, revision: str, module: ModuleType) -> list[Placed]:
        """
        Return what is wrong with a revision, in the order of its lines.

        Args:
            revision: its id.
            module: its code; `upgrade()` is run, without a server.
        """
        file = Path(module.__file__) if module.__file__ else None
        done = self.record(revision, module)
        if self.history is not None:
            # It may have been rewritten since.
            names = required(getattr(module, "requires", None), revision)
            self.history = self.history.requiring(revision, names)
        found = [
            *self._lint(revision, file, done, module=module),
            *self._carried(revision, module, done),
            *self._waits(revision, module, done),
        ]
        return sorted(found, key=lambda place: place.line)

    def passed(self, revision: str, module: ModuleType, *, released: bool) -> None:
        """
        Note what a revision does that is not looked at.

        Args:
            revision: its id.
            module: its code; `upgrade()` is run, without a server.
            released: whether the releases in use have it.
        """
        if self.run is not None:
            self.run.at(revision, module, released=released)
            done = record(module, self.run.fork()).done
            self.run.does([one.statement for one in done])

    def record(self, revision: str, module: ModuleType) -> Record:
        """
        Return what a revision does.

        Args:
            revision: its id; its tables are as those before it left them.
            module: its code; `upgrade()` is run, without a server.
        """
        if self.run is None:
            return record(module, Run(read=self.read) if self.read else None)
        self.run.at(revision, module)
        return record(module, self.run.fork())

    def edited(self, edit: Edit, module: ModuleType) -> Placed:
        """
        Return what is said of a change in flight that was edited.

        Args:
            edit: the change.
            module: its revision's code.
        """
        finding = Finding(
            code=EDITED,
            severity=Severity.ERROR,
            what=edit.what,
            why="Databases in which it is in flight would end otherwise than those that"
            " are made anew.",
            safe=Safe(why=f"{edit.next[:1].upper()}{edit.next[1:]}"),
        )
        return self._of_change(
            finding, edit.change.revision, module, edit.change.pattern
        )

    def _carried(
        self, revision: str, module: ModuleType, done: Record
    ) -> Iterator[Placed]:
        """Return what is wrong with the changes that a revision carries."""
        for one in done.done:
            if not isinstance(one.statement, Carried) or one.statement.pattern is None:
                continue
            pattern = one.statement.pattern
            if isinstance(pattern, Undecided):
                yield self._of_change(_undecided(pattern), revision, module, pattern)
                continue
            if finding := _open(pattern):
                yield self._of_change(finding, revision, module, pattern)
            error = self.refusal and self.refusal(revision, pattern)
            if error and OPEN not in error.what:
                yield self._of_change(_refused(error), revision, module, pattern)

    def _of_change(
        self, finding: Finding, revision: str, module: ModuleType, pattern: Pattern
    ) -> Placed:
        file = Path(module.__file__) if module.__file__ else None
        line = line_of(module, pattern)
        place = Placed(finding=finding, revision=revision, file=file, line=line)
        return self._weighed(place, Said(file))

    def lint_sql(self, file: Path) -> list[Placed]:
        """
        Return what is wrong with a file of SQL, in the order of its lines.

        Args:
            file: what one revision does; its name stands for the revision's id.
        """
        done = record_text(file.read_text())
        return self._lint(file.stem, file, done)

    def _lint(
        self,
        revision: str,
        file: Path | None,
        done: Record,
        *,
        module: ModuleType | None = None,
    ) -> list[Placed]:
        said = Said(file)
        placed = partial(Placed, revision=revision, file=file)
        found: list[Placed] = []
        scene = self.scene()
        # A file of SQL begins its own transaction.
        scene.begun = module is not None
        transaction = 0
        scene.whole = [one.statement for one in done.done]
        if self.run is not None and module is not None:
            scene.made = self.run.does(scene.whole)
        for one in done.done:
            if one.transaction != transaction:
                scene.committed()
                transaction = one.transaction
            scene.autocommit = one.autocommit
            here = [
                self._weighed(placed(finding=f, line=one.line, recorded=one), said)
                for f in map(self._advised, looked(one.statement, scene, self.rules))
            ]
            found += self._told(here)
            scene.passed(one.statement)
        if self.squawk is not None:
            ours = {place.line for place in found}
            for one, finding in self.squawk.look(done.done, self.server_version):
                if one.line not in ours:
                    place = placed(finding=finding, line=one.line, recorded=one)
                    found.append(self._weighed(place, said))
        if done.unread:
            found.append(placed(finding=_unread(done.unread), line=done.unread_line))
        for comment in said.without_reason():
            found.append(placed(finding=_no_reason(comment), line=comment.line))
        return sorted(found, key=lambda place: place.line)

    def _advised(self, finding: Finding) -> Finding:
        """Return a finding whose forms the database has seen: what they lack here."""
        safe, look = finding.safe, self.try_out
        if safe is None or look is None:
            return finding
        asked: list[str] = []
        stuck: list[str] = []

        def seen(pattern: Pattern) -> Pattern:
            error = look(pattern)
            if error is None or isinstance(error, NotThere) or OPEN in error.what:
                return pattern
            said = error.what.removeprefix(f"{pattern.title}: ").rstrip(".")
            assured: Pattern = replace(pattern, assured=OPEN)  # type: ignore[type-var]
            if not pattern.assured and look(assured) is None:
                asked.append(said)
                return assured
            stuck.append(said)
            return pattern

        patterns = tuple(map(seen, safe.patterns))
        if not (asked or stuck):
            return finding
        why = safe.why
        if stuck:
            named = "; ".join(dict.fromkeys(stuck))
            why += f" As the database is, it would be refused: {named}."
        decide = [safe.decide.rstrip(".")] if safe.decide else []
        if asked:
            named = "; ".join(dict.fromkeys(asked))
            decide.append(f"why this is safe here (`assured`): {named}")
        new = replace(safe, patterns=patterns, why=why, decide="; ".join(decide))
        return replace(finding, safe=new)

    def _waits(self, revision: str, module: ModuleType, done: Record) -> list[Placed]:
        """Return what is wrong with what a revision waits for."""
        if self.history is None:
            return []
        file = Path(module.__file__) if module.__file__ else None
        found = list(overlaps.look(self.history, revision))
        said = Said(file) if found else None
        places: list[Placed] = []
        for change, finding in found:
            one = _carried(change, done) if change is not None else None
            carried = one.line if one is not None else 0
            own = line_of(module, change.pattern) if change is not None else 0
            place = Placed(
                finding=finding,
                revision=revision,
                file=file,
                line=own or carried or _line_of_requires(file),
                recorded=one,
            )
            assert said is not None
            # A person may say so where it is made, or where it is carried.
            allowed = said.reason(finding.code, carried)
            place = replace(place, allowed=allowed)
            places.append(place if allowed else self._weighed(place, said))
        return places

    def scene(self) -> Scene:
        """Return where a revision begins."""
        return Scene(
            server_version=self.server_version,
            read=self.read if self.run is None else self.run.table,
            # What revisions tell of a table does not tell how large it is.
            sized=self.read is not None,
            read_domain=self.read_domain,
            time_zone=self.time_zone,
            short_s=self.short_s,
            guarded=self.guarded,
        )

    def _told(self, here: list[Placed]) -> list[Placed]:
        """Return what is said of a statement."""
        alone = {rule.code for rule in self.rules if rule.alone}
        others = [place for place in here if place.finding.code not in alone]
        return others if any(not place.allowed for place in others) else here

    def _weighed(self, place: Placed, said: "Said") -> Placed:
        code = place.finding.code
        reason = self.allow.get(code) or said.reason(code, place.line)
        if not reason and place.recorded is not None:
            reason = place.recorded.assured
        return replace(place, allowed=reason) if reason else place


def once(found: Sequence[Placed]) -> list[Placed]:
    """Return a revision's findings without those that a loop makes again of a line."""
    marked = {
        (p.line, p.finding.code, p.finding.what, p.finding.severity): p
        for p in reversed(found)
    }
    return list(reversed(marked.values()))


def _carried(change: Change, done: Record) -> Recorded | None:
    """Return where a revision carries a change, None where it does not."""
    for one in done.done:
        if isinstance(one.statement, Carried) and (
            one.statement.title == change.pattern.title
        ):
            return one
    return None


def _line_of_requires(file: Path | None) -> int:
    """Return the line of what a revision requires, or follows; 0 without either."""
    lines = {
        target.id: node.lineno
        for node in (ast.parse(file.read_text()).body if file is not None else [])
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in _targets(node)
    }
    return lines.get("requires", lines.get("down_revision", 0))


def _targets(node: ast.Assign | ast.AnnAssign) -> list[ast.Name]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [n for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]


def looked(statement: Statement, scene: Scene, rules: Sequence[Rule]) -> list[Finding]:
    """Return what rules find in a statement."""
    return [f for rule in rules for f in rule.look(statement, scene)]


def _refused(error: Refused) -> Finding:
    why = "`upgrade` would refuse the change on this database."
    if isinstance(error, NotThere):
        why = "No revision before this one makes it; `upgrade` would refuse the change."
    then = f"{error.next[:1].upper()}{error.next[1:]}"
    return Finding(
        code=MISSING if isinstance(error, NotThere) else REFUSED,
        severity=Severity.ERROR,
        what=error.what,
        why=why,
        safe=Safe(why=then) if then else None,
    )


def _open(pattern: Pattern) -> Finding | None:
    """Return what is said of a form that was pasted and not completed."""
    try:
        pattern.require_whole()
    except Misdeclared as error:
        return Finding(
            code=UNDECIDED,
            severity=Severity.ERROR,
            what=error.what,
            why="Every command refuses the change until it is complete.",
            safe=Safe(why=f"{error.next[:1].upper()}{error.next[1:]}"),
        )
    return None


def _undecided(change: Undecided) -> Finding:
    return Finding(
        code=UNDECIDED,
        severity=Severity.ERROR,
        what=f"Nobody has decided yet {change.choice}.",
        why="The revision refuses to run until the alternative that is meant stands in"
        " place of zd.undecided(…).",
    )


def _unread(error: str) -> Finding:
    return Finding(
        code=UNREAD,
        severity=Severity.WARNING,
        what=f"The revision could not be followed: {error}.",
        why="It reads a database, or needs one; of what depends on this line, not all"
        " was looked at.",
        safe=Safe(
            why="Read by hand what it does there; the guard that zd.options() puts over"
            " it in env.py looks at each statement as it is sent."
        ),
    )


def _no_reason(comment: Allowed) -> Finding:
    return Finding(
        code=NO_REASON,
        severity=Severity.ERROR,
        what=f"{', '.join(comment.codes)} is allowed without a reason.",
        why="Whoever reads the revision later cannot tell whether it still holds; write"
        " it behind the code.",
    )


class Said:
    """The comments of a file, and the lines of its statements."""

    def __init__(self, file: Path | None) -> None:
        text = file.read_text() if file is not None and file.is_file() else ""
        is_sql = file is not None and file.suffix == ".sql"
        find, spans = (sql_comments, _sql_spans) if is_sql else (comments, _spans)
        self._comments: list[Allowed] = find(text)
        self._spans = spans(text) if self._comments else {}

    def reason(self, code: str, line: int) -> str:
        """Return why a code is allowed on a line; "" where it is not."""
        first, last = self._spans.get(line, (line, line))
        for one in self._comments:
            if code in one.codes and (
                first <= one.line <= last or (one.alone and one.line == first - 1)
            ):
                return one.reason
        return ""

    def without_reason(self) -> list[Allowed]:
        """Return comments that give none."""
        return [one for one in self._comments if not one.reason]


def _spans(text: str) -> dict[int, tuple[int, int]]:
    """Return for each line the first and last one of the simple statement on it."""
    found: dict[int, tuple[int, int]] = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr | ast.Assign | ast.AnnAssign | ast.Return):
            span = (node.lineno, node.end_lineno or node.lineno)
            for line in range(span[0], span[1] + 1):
                found.setdefault(line, span)
    return found


def _sql_spans(text: str) -> dict[int, tuple[int, int]]:
    """Return for each line the first and last one of the SQL statement on it."""
    found: dict[int, tuple[int, int]] = {}
    for one in sql.parse(text).read:
        first = text.count("\n", 0, one.start) + 1
        span = (first, first + one.sql.count("\n"))
        for line in range(span[0], span[1] + 1):
            found.setdefault(line, span)
    return found
