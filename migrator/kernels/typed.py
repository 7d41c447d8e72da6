"""A table whose columns are those of a type (CREATE TABLE … OF).

Source: PostgreSQL manual, CREATE TABLE (OF); ALTER TABLE (NOT OF).
"""

from collections.abc import Iterable

from migrator.errors import Refused
from migrator.facts import Facts, Table
from migrator.plan import Step, Transaction

# Actions of ALTER TABLE that the server refuses on such a table.
_ACTIONS = ("ADD COLUMN ", "DROP COLUMN ", "RENAME COLUMN ")


def tables(facts: Facts) -> tuple[Table, ...]:
    """Return those of the change's tables whose columns are those of a type."""
    return tuple(t for t in (facts.table, *facts.others) if t.of_type is not None)


def require_untyped(title: str, facts: Facts, steps: Iterable[Step]) -> None:
    """
    Refuse a change of the columns of such a table, or one that takes its place.

    The server would refuse it in the midst of the change.

    Args:
        title: the change's, for the message.
        facts: of its tables.
        steps: those of all phases.

    Raises:
        Refused: one of them has to be a table of its own.
    """
    known = tables(facts)
    if not known:
        return
    texts = [
        text
        for step in steps
        for work in (step.work, *step.reverse)
        if isinstance(work, Transaction)
        for text in work.statements
    ]
    for table in known:
        name = table.name.identifier.as_string()
        forbidden = (
            *(f"ALTER TABLE {name} {action}" for action in _ACTIONS),
            f"(LIKE {name} ",
        )
        retyped = f"ALTER TABLE {name} ALTER COLUMN "
        if any(
            any(part in text for part in forbidden)
            or (text.startswith(retyped) and " TYPE " in text)
            for text in texts
        ):
            raise Refused(
                f"{title}: table {table.name} is one of type {table.of_type}, whose"
                " columns it has.",
                next=f"make it a table of its own first: ALTER TABLE {name} NOT OF,"
                " which changes its catalogue entry alone.",
            )
