"""Whether a table's checks prove the bounds of a partition, as far as texts tell."""

import re
from collections.abc import Sequence

from migrator.facts import Table
from migrator.lint import statements as st
from migrator.lint.scene import Scene
from migrator.lint.statements import Ref

_VALUE = re.compile(r"'(?P<text>(?:[^']|'')*)'|(?P<number>-?\b\d[\d.]*)")
_FOR_VALUES = re.compile(r"\s*FOR\s+VALUES\s+", re.IGNORECASE)


def bare(bounds: str) -> str:
    """Return bounds without FOR VALUES; "" for those of a DEFAULT partition."""
    found = _FOR_VALUES.match(bounds)
    return bounds[found.end() :].strip() if found else ""


def checks(ref: Ref, scene: Scene) -> list[str]:
    """Return the conditions of a table's valid CHECKs, also of those made just now."""
    known = scene.table(ref)
    found = [] if known is None else known.constraints
    valid = [c.definition for c in found if c.kind == "c" and c.validated]
    validated = {
        s.name
        for s in scene.earlier
        if isinstance(s, st.ValidateConstraint) and scene.is_same(s.table, ref)
    }
    valid += [
        s.constraint.expression
        for s in scene.earlier
        if isinstance(s, st.AddConstraint)
        and scene.is_same(s.table, ref)
        and s.constraint.kind == "c"
        and (not s.constraint.not_valid or s.constraint.name in validated)
    ]
    return valid


def key(parent: Table) -> list[str]:
    """Return the columns that decide on a row's partition."""
    return [c.name for c in parent.columns if c.partition_key]


def are_named(conditions: Sequence[str], columns: Sequence[str], bounds: str) -> bool:
    """
    Tell whether a condition names all columns of the key, and all values of bounds.

    Which of the two follows from the other is the server's to say; a check with all
    of these was written for these bounds.

    Args:
        conditions: of valid checks.
        columns: of the partition key.
        bounds: without FOR VALUES.
    """
    values = [
        found["text"].replace("''", "'") if found["text"] is not None else found[0]
        for found in _VALUE.finditer(bounds)
    ]
    return bool(values) and any(
        all(value in text.replace("''", "'") for value in values)
        and all(re.search(rf"\b{re.escape(name)}\b", text) for name in columns)
        for text in conditions
    )


def is_never_null(
    part: Table | None, conditions: Sequence[str], columns: Sequence[str]
) -> bool:
    """Tell whether the columns of a partition key are proved to be NOT NULL."""

    def is_set(name: str) -> bool:
        found = None if part is None else part.column(name)
        if found is not None and found.not_null:
            return True
        pattern = rf"\b{re.escape(name)}\b\"?\s+IS\s+NOT\s+NULL"
        return any(re.search(pattern, text, re.IGNORECASE) for text in conditions)

    return all(map(is_set, columns))
