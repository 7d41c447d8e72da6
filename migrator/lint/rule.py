"""What every rule is: one hazard, how to see it, and its safe form."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from migrator.lint.scene import Scene
from migrator.lint.statements import Ref, Statement
from migrator.pattern import Pattern
from migrator.plan import Lock


class Work(StrEnum):
    """What the server does while it holds the lock; the more, the longer."""

    #: Only the catalogue is written: milliseconds, whatever the table's size.
    CATALOGUE = "catalogue only"
    #: Every row is read.
    SCAN = "reads every row"
    #: Every row is read, and an index is written.
    BUILD = "builds an index"
    #: Every row and every index is written anew.
    REWRITE = "writes every row anew"
    #: Rows are changed one by one, each with its WAL and its dead version.
    ROWS = "changes many rows"


# Bytes of a table in a second that each kind of work does, at least: a scan from a
# disk, not from memory; a rewrite with its WAL, as measured on two cores (605,000 rows
# of 200 bytes); a build with its sort, about as much; an UPDATE of every row,
# 135,000 of 200 bytes. Shown as "about": a server with
# slower disks takes longer.
BYTES_PER_S = {
    Work.SCAN: 300e6,
    Work.BUILD: 120e6,
    Work.REWRITE: 120e6,
    Work.ROWS: 25e6,
}


class Severity(StrEnum):
    """What a finding means for who runs the revision."""

    #: Requests stall or fail, or the revision itself does.
    ERROR = "error"
    #: It is short, or it hurts in some cases only.
    WARNING = "warning"
    #: Nothing happens on this table; a larger one would stall.
    NOTE = "note"


class Harm(StrEnum):
    """Why a hazard is one."""

    #: Requests wait for a lock, as long as the work takes.
    STALL = "stall"
    #: The release that is in use meets an error, or wrong rows.
    BREAK = "break"
    #: The statement fails, or may leave something broken behind.
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Safe:
    """
    The safe form of a statement.

    Args:
        why: what is better about it, in a sentence.
        patterns: changes that do it; where there are several, one has to be chosen.
        then: changes that follow it, in their order, each in a revision of its own.
        decide: what a person has to decide or fill in first; "" for nothing. Where a
            pattern or `code` holds "…", it says what belongs there.
        code: what to write in the revision, where no pattern is needed.
        replaces: whether `code` takes the place of the statement as it stands; a line
            of it that is `...` stands for the statement itself.
    """

    why: str
    patterns: tuple[Pattern, ...] = ()
    then: tuple[Pattern, ...] = ()
    decide: str = ""
    code: str = ""
    replaces: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """
    A hazard that a statement is.

    Args:
        code: the rule's, stable.
        severity: by what would happen on this table.
        what: what the statement does, and to what.
        why: what that does to the application.
        lock: the strongest that is taken on `table`; NONE where no lock is the point.
        table: the one that is locked or changed.
        seconds: for how long, about; None where the table's size is not known.
        safe: what to write instead; None where there is nothing.
    """

    code: str
    severity: Severity
    what: str
    why: str
    lock: Lock = Lock.NONE
    table: Ref | None = None
    seconds: float | None = None
    safe: Safe | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """
    SQL that shows the hazard, and the safe form, on a real server.

    Each statement is a transaction of its own, as autocommit has it, unless `together`.

    Args:
        before: makes what the others need. Table `t (id, a, b)` with rows is there.
        bad: what the rule finds; its last statement takes the rule's lock and does
            the rule's work.
        good: what the rule lets pass, to the same end.
        table: on which the lock is looked at.
        fails: whether `bad` ends in an error.
        together: whether all of `bad` is one transaction; then locks are all that it
            holds by its last statement.
        lock: instead of the rule's, where the rule has forms with several.
        work: the same.
        since: the oldest server that knows these statements, as
            `server_version_num`.
    """

    bad: tuple[str, ...]
    good: tuple[str, ...]
    before: tuple[str, ...] = ()
    table: str = "t"
    fails: bool = False
    together: bool = False
    lock: Lock | None = None
    work: Work | None = None
    since: int = 0


class Rule(ABC):
    """One hazard; subclasses say how a statement is recognised as one."""

    #: Stable: it is named in silencing comments and in reports.
    code: ClassVar[str]
    #: One line, for a list of all rules.
    title: ClassVar[str]
    harm: ClassVar[Harm]
    #: What the server takes and does, as the trial shows.
    lock: ClassVar[Lock]
    work: ClassVar[Work]
    trials: ClassVar[tuple[Trial, ...]]
    #: Whether it is told only where nothing else is wrong with the statement.
    alone: ClassVar[bool] = False

    @abstractmethod
    def look(self, statement: Statement, scene: Scene) -> Iterator[Finding]:
        """
        Return what is wrong with a statement.

        Args:
            statement: one of the revision's, in their order.
            scene: what was done before it, and the database, if there is one.
        """

    def found(
        self,
        table: Ref | None,
        scene: Scene,
        what: str,
        why: str,
        *,
        safe: Safe | None = None,
        severity: Severity | None = None,
        lock: Lock | None = None,
        work: Work | None = None,
        done_on: Ref | None = None,
        harm: Harm | None = None,
        always: bool = False,
    ) -> Iterator[Finding]:
        """
        Return a finding, weighed by what is known of the table.

        Nothing is found on a table that the same revision made, or that is empty.

        Args:
            table: on which it happens; None where that is not known.
            scene: as for `look`.
            what: as in `Finding`.
            why: as in `Finding`.
            safe: as in `Finding`.
            severity: instead of the one that follows from size and harm.
            lock: instead of the rule's own.
            work: instead of the rule's own.
            done_on: the table on which the work is done, where it is another one.
            harm: instead of the rule's own.
            always: whether it happens on a table that nobody uses too.
        """
        if table is not None and not always and scene.is_unused(table):
            return
        work = self.work if work is None else work
        worked = done_on or table
        size = None if worked is None else scene.size_bytes(worked)
        seconds: float | None = None
        if work is Work.CATALOGUE:
            seconds = 0.0
        elif size is not None:
            seconds = size / BYTES_PER_S[work]
        if severity is None:
            short = seconds is not None and seconds <= scene.short_s
            severity = (
                Severity.WARNING
                if (harm or self.harm) is Harm.STALL and short
                else Severity.ERROR
            )
        yield Finding(
            code=self.code,
            severity=severity,
            what=what,
            why=why,
            lock=self.lock if lock is None else lock,
            table=table,
            seconds=seconds,
            safe=safe,
        )
