"""Known hazards that a revision is about to be: refused, or let pass on a word."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from migrator.errors import Refused
from migrator.facts import Table
from migrator.ledger import store
from migrator.lint import RULES, Finding, Harm, Severity, silence
from migrator.lint.database import domain_reader, reader
from migrator.lint.intercepting import line_in
from migrator.lint.linter import Linter, Said, looked
from migrator.lint.scene import Scene
from migrator.lint.source import call
from migrator.lint.statements import Ref, Statement
from migrator.names import TableName
from migrator.postgres import catalog, subjects
from migrator.postgres.connection import LOOK_MS, RETRIED, Connection, transaction
from migrator.settings import Settings
from migrator.words import counted

# ms that reading facts of a table may take: the revision's own locks are held
# meanwhile.
READ_MS = 1000

# What a revision with an autocommit block has in its text.
_BLOCK = "autocommit_block"
_HARMS = {rule.code: rule.harm for rule in RULES}


@dataclass(slots=True, kw_only=True)
class Hazards:
    """
    What is looked for in one revision.

    Args:
        conn: of the guard itself, in autocommit.
        script: the revision, as Alembic has it.
        settings: what counts as in use, and as short.
        allow: codes that the project silences, with their reasons.
        upgrade: whether it goes forward. Going back breaks the new release by intent,
            so that only what stalls requests is refused there.
        refuses: whether anything is refused at all.
        used: the tables that count as in use; None where all do.
    """

    conn: Connection
    script: Any
    settings: Settings
    allow: Mapping[str, str]
    upgrade: bool
    refuses: bool
    used: frozenset[TableName] | None = None
    scene: Scene = field(init=False)
    _said: Said = field(init=False)
    _text: str = field(init=False)
    _recorded: set[tuple[str, str, int]] = field(
        default_factory=set[tuple[str, str, int]]
    )
    _in_use: bool | None = None

    def __post_init__(self) -> None:
        # Where nothing is refused, nothing has to be let pass.
        file = Path(self._file) if self.refuses else None
        self._said = Said(file)
        self._text = file.read_text() if file is not None and file.is_file() else ""
        self.again()

    @property
    def _file(self) -> str:
        return str(self.script.module.__file__)

    def line(self) -> int:
        """Return the line of the revision that is running; 0 where none is."""
        return line_in(self._file)

    def again(self) -> None:
        """Begin the revision anew."""
        read = reader(self.conn)
        self.scene = Scene(
            server_version=self.conn.info.server_version,
            read=lambda ref: self._read(read, ref),
            read_domain=domain_reader(self.conn),
            time_zone=self.conn.info.parameter_status("TimeZone"),
            short_s=self.settings.lock_timeout_ms / 1000,
            guarded=True,
        )

    def _read(self, read: Any, ref: Ref) -> Table | None:
        """Return facts of a table; fewer where the revision itself has locked it."""
        try:
            with transaction(
                self.conn,
                lock_timeout_ms=LOOK_MS,
                statement_timeout_ms=READ_MS,
                what=f"Facts of table {ref}",
            ):
                found: Table | None = read(ref)
                return found
        except (*RETRIED, psycopg.errors.QueryCanceled):
            name = self.name(ref)
            return None if name is None else catalog.outline(self.conn, name)

    def name(self, ref: Ref) -> TableName | None:
        """Return the full name of a table that is there, None where it is not."""
        try:
            return subjects.resolve(self.conn, ref.name, ref.schema)
        except Refused:
            return None

    def refuse(self, statement: Statement) -> Refused | None:
        """Return why a statement must not run, None where it may."""
        if not self.refuses:
            return None
        line = self.line()
        for finding in looked(statement, self.scene, RULES):
            if not self._counts(finding):
                continue
            reason = (
                self.allow.get(finding.code)
                or self._said.reason(finding.code, line)
                or silence.assurance()
            )
            if not reason:
                return self._refusal(finding, line)
            self._record(finding, reason, line)
        return None

    def refuse_beforehand(self) -> Refused | None:
        """
        Return why a revision with an autocommit block must not run at all.

        The block commits what is before it, so that a hazard behind it would be
        refused too late: its code is followed on paper first, as lint does.
        """
        module = self.script.module
        if not (self.refuses and self.upgrade) or _BLOCK not in self._text:
            return None
        scene = self.scene
        linter = Linter(
            allow=self.allow,
            server_version=scene.server_version,
            read=scene.read,
            read_domain=scene.read_domain,
            time_zone=scene.time_zone,
            short_s=scene.short_s,
            guarded=True,
        )
        for placed in linter.lint(self.script.revision, module):
            if not placed.allowed and self._counts(placed.finding):
                return self._refusal(placed.finding, placed.line)
        return None

    def _counts(self, finding: Finding) -> bool:
        if finding.severity is not Severity.ERROR:
            return False
        if not self.upgrade and _HARMS.get(finding.code) is not Harm.STALL:
            return False
        if finding.table is None:
            return self._is_in_use()
        if self.used is not None and self.name(finding.table) not in self.used:
            return False
        rows = self.scene.rows(finding.table)
        return rows is not None and rows >= self.settings.guard_rows

    def _is_in_use(self) -> bool:
        """Tell whether any table is: of a hazard to what has no size."""
        if self._in_use is None:
            self._in_use = catalog.has_rows(self.conn, self.settings.guard_rows)
        return self._in_use

    def _record(self, finding: Finding, reason: str, line: int) -> None:
        """Enter into the log what passes on a person's word, before it runs."""
        key = (finding.code, str(finding.table), line)
        if key in self._recorded:
            return
        self._recorded.add(key)
        store.event(
            self.conn,
            self.script.revision,
            "assured",
            code=finding.code,
            what=finding.what,
            reason=reason,
            line=line,
        )

    def _refusal(self, finding: Finding, line: int) -> Refused:
        where = f"Revision {self.script.revision}"
        if line:
            where += f" (line {line})"
        size = ""
        if finding.table is not None:
            rows = counted(self.scene.rows(finding.table) or 0)
            size = f" Table {finding.table} has about {rows}."
        return Refused(
            f"{where} is refused: {finding.what} {finding.why}{size} [{finding.code}]",
            next="\n".join(_safe(finding)),
        )


def _safe(finding: Finding) -> Iterator[str]:
    """Return the lines that say what to write instead."""
    anyway = (
        'put `with zd.assured("reason"):` around it where it is no hazard, or set'
        " MIGRATOR_MODE=complete where no release runs."
    )
    safe = finding.safe
    if safe is None:
        yield anyway
        return
    yield f"write instead, in a revision of its own: {safe.why}"
    if safe.decide:
        yield f"Decide {safe.decide}"
    for code in filter(None, (*map(call, safe.patterns), safe.code)):
        yield from ("", *(f"    {line}" for line in code.splitlines()))
    if safe.then:
        yield from ("", "and in a later one:")
    for code in map(call, safe.then):
        yield from ("", *(f"    {line}" for line in code.splitlines()))
    yield ""
    yield f"Or {anyway}"
