"""What the tests of rules share: findings of a revision or of a statement."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from migrator.lint import Finding, Linter, Safe
from migrator.lint.database import domain_reader, reader
from migrator.lint.linter import looked
from migrator.lint.rules import RULES
from migrator.lint.source import call
from migrator.lint.statements import Statement
from migrator.postgres.connection import Target, connect
from tests.lint.test_lint import revision


def findings(folder: Path, body: str, linter: Linter | None = None) -> list[Finding]:
    """Return what is found in a revision with a body."""
    module = revision(folder, body)
    return [p.finding for p in (linter or Linter(guarded=True)).lint("r1", module)]


def codes(folder: Path, body: str, linter: Linter | None = None) -> list[str]:
    """Return the codes of what is found in a revision with a body."""
    return sorted({f.code for f in findings(folder, body, linter)})


def of(statement: Statement, linter: Linter | None = None) -> list[Finding]:
    """Return what is found in a statement that stands alone."""
    return looked(statement, (linter or Linter(guarded=True)).scene(), RULES)


def only(found: list[Finding], code: str) -> Finding:
    """Return the one finding of a code."""
    (one,) = (f for f in found if f.code == code)
    return one


def shown(safe: Safe | None) -> list[str]:
    """Return the code of a safe form: its choices, what follows, and the rest."""
    assert safe is not None
    made = [call(p).removeprefix("change = ") for p in (*safe.patterns, *safe.then)]
    flat = [
        " ".join(m.split()).replace("( ", "(").replace(", )", ")").replace(",)", ")")
        for m in made
    ]
    return [*flat, *safe.code.splitlines()]


@contextmanager
def looking_at(database: str) -> Iterator[Linter]:
    """Give a linter of a database."""
    with connect(Target.from_url(database), "lint") as conn:
        yield Linter(
            guarded=True,
            read=reader(conn),
            read_domain=domain_reader(conn),
            time_zone=conn.info.parameter_status("TimeZone"),
            server_version=conn.info.server_version,
        )


def look(linter: Linter, *done: Statement, autocommit: bool = False) -> list[Finding]:
    """
    Return what is found in a revision that does these, in their order.

    Args:
        linter: with its rules, and what it knows of a database.
        done: in one transaction, unless `autocommit`.
        autocommit: whether each is a transaction of its own.
    """
    return list(_look(linter, done, autocommit))


def _look(
    linter: Linter, done: tuple[Statement, ...], autocommit: bool
) -> Iterator[Finding]:
    scene = linter.scene()
    scene.whole = done
    scene.autocommit = autocommit
    for statement in done:
        yield from looked(statement, scene, linter.rules)
        scene.passed(statement)
