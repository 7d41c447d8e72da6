"""squawk, a linter of SQL text, as a second look at what a revision has as text.

It is a program of its own: squawk-cli on PyPI, in the extra `lint`.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alembic.operations.ops import ExecuteSQLOp

from migrator.errors import Failed, UsageError
from migrator.lint.recording import Recorded
from migrator.lint.rule import Finding, Severity
from migrator.lint.sql.tokens import Kind, Lexer

# Releases before it take other options, and give another form of JSON.
OLDEST = (2, 70)

# What it says of any text in a revision: a transaction makes a second run safe, and
# time limits are the business of env.py's options.
LEFT_OUT = frozenset(
    {
        "prefer-robust-stmts",
        "require-lock-timeout",
        "require-statement-timeout",
        "require-timeout-settings",
    }
)
UNREAD = "syntax-error"
# Seconds for one revision; it takes some thousandths of one.
PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Squawk:
    """The program that was found."""

    program: str

    @classmethod
    def find(cls) -> "Squawk":
        """
        Return the program of this environment, else the one of the PATH.

        Raises:
            UsageError: there is none, or it is another program or too old.
        """
        beside = Path(sys.executable).parent / "squawk"
        program = str(beside) if beside.is_file() else shutil.which("squawk")
        wanted = ".".join(map(str, OLDEST))
        install = "install 'migrator-pg[lint]', or leave out --squawk."
        if program is None:
            raise UsageError("squawk is not installed.", next=install)
        said = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=PATIENCE_S
        ).stdout
        found = re.fullmatch(r"squawk (\d+)\.(\d+)\S*\s*", said)
        if found is None or (int(found[1]), int(found[2])) < OLDEST:
            shown = said.strip() or "says no version"
            raise UsageError(
                f"{program} is not squawk {wanted} or later: {shown}.", next=install
            )
        return cls(program)

    def look(
        self, done: Sequence[Recorded], server_version: int | None
    ) -> Iterator[tuple[Recorded, Finding]]:
        """
        Return what it finds in the text of a revision, and in which statement.

        Args:
            done: all that the revision does.
            server_version: `server_version_num`; None leaves its own default.

        Raises:
            Failed: it gave no answer.
        """
        texts: list[Recorded] = []
        for one in done:
            if not one.statement.sql or not isinstance(
                one.operation, ExecuteSQLOp | None
            ):
                continue
            # One text may do several things.
            if not texts or (texts[-1].line, texts[-1].statement.sql) != (
                one.line,
                one.statement.sql,
            ):
                texts.append(one)
        while texts:
            by_line = [
                one for one in texts for _ in range(one.statement.sql.count("\n") + 1)
            ]
            text = "".join(f"{_numbered(one.statement.sql)};\n" for one in texts)
            # It counts lines from 0.
            found = [
                (by_line[min(item["line"], len(by_line) - 1)], item)
                for item in self._ask(text, server_version)
                if item["rule_name"] not in LEFT_OUT
            ]
            # What it cannot read keeps it from looking at all the rest.
            unread = [one for one, item in found if item["rule_name"] == UNREAD]
            if not unread:
                yield from ((one, _finding(item)) for one, item in found)
                return
            texts = [one for one in texts if one not in unread]

    def _ask(self, text: str, server_version: int | None) -> list[dict[str, Any]]:
        words = [self.program, "--reporter", "json", "--no-assume-in-transaction"]
        if server_version is not None:
            words += ["--pg-version", f"{server_version // 10000}.0"]
        done = subprocess.run(
            words, input=text, capture_output=True, text=True, timeout=PATIENCE_S
        )
        try:
            found: list[dict[str, Any]] = json.loads(done.stdout)
        except ValueError:
            raise Failed(
                f"squawk gave no answer, but ended with {done.returncode}:"
                f" {done.stderr.strip()}",
                next="leave out --squawk, or correct .squawk.toml.",
            ) from None
        return found


def _numbered(sql: str) -> str:
    """Return a text with its parameters as squawk knows them."""
    found = ""
    at = 0
    for token in Lexer(sql).tokens():
        if token.kind is Kind.PARAMETER:
            found, at = f"{found}{sql[at : token.start]}$1", token.end
    return found + sql[at:]


def _finding(item: Mapping[str, Any]) -> Finding:
    return Finding(
        code=f"squawk:{item['rule_name']}",
        severity=Severity.WARNING,
        what=item["message"],
        why=item["help"] or "",
    )
