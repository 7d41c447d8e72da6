"""Constraints that are NOT VALID: rows that are there may violate them.

Whoever updates such a row is refused, whatever is written, and a way back could not
tell it from one that the change has brought.

Source: PostgreSQL manual, ALTER TABLE, ADD table_constraint … NOT VALID.
"""

from migrator import names
from migrator.errors import Refused
from migrator.facts import Facts, Table
from migrator.plan import Notice


def require_not_null(facts: Facts, *columns: str) -> None:
    """
    Refuse columns whose NOT NULL was never proved (18+).

    Args:
        facts: of the table.
        columns: all of the table where none is given.

    Raises:
        Refused: names the constraint.
    """
    for part in (facts.table, *facts.table.partitions):
        for found in part.constraints:
            mine = not columns or not set(columns).isdisjoint(found.columns)
            if found.kind == "n" and not found.validated and mine:
                raise Refused(
                    f'Constraint "{found.name}" of table {part.name}, NOT NULL of'
                    f' column "{found.columns[0]}", is NOT VALID: rows may hold NULL'
                    " all the same, and cannot be updated then.",
                    next="give such rows a value, then ALTER TABLE"
                    f' {part.name} VALIDATE CONSTRAINT "{found.name}", which keeps'
                    " nobody waiting.",
                )


def notices(facts: Facts) -> tuple[Notice, ...]:
    """Return a note on each check that a row may violate that is updated."""
    found = dict.fromkeys(name for leaf in facts.table.leaves for name in _checks(leaf))
    return tuple(
        Notice(
            text=f'Check "{name}" is NOT VALID: the backfill updates each row, and is'
            " cut off at the first one that violates it. Correct such rows and VALIDATE"
            " CONSTRAINT first.",
            needs_assurance=True,
        )
        for name in found
    )


def _checks(table: Table) -> list[str]:
    return [
        k.name
        for k in table.constraints
        if k.kind == "c"
        and not k.validated
        and not k.definition.endswith("NOT ENFORCED")
        # Another change's, of rows that it has brought into order.
        and not k.name.startswith(names.OWNED)
    ]
