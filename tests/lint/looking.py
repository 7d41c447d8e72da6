"""What rules find in statements that a test writes down."""

from collections.abc import Iterator

from migrator.lint import Finding, Linter
from migrator.lint.linter import looked
from migrator.lint.statements import Statement


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
