"""Rows that verification found out of step, by their keys; never their values."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from migrator.postgres.connection import Connection

# Keys that are kept of one step: more of them tell a person nothing new.
KEPT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """
    A row that was out of step.

    Args:
        key: a JSON object of the key's columns, or of `ctid`.
        repaired: whether it is in step now.
        given: a JSON object of both sides' values, where a person asked for them.
        at: when the ledger heard of it.
        wrong: what the row is, where it is not out of step with another shape.
    """

    key: str
    repaired: bool
    given: str | None = None
    at: datetime | None = None
    wrong: str = ""


def add(conn: Connection, step: int, found: Sequence[Mismatch]) -> None:
    """Enter rows by their keys, in the transaction of their chunk."""
    if not found:
        return
    # In one statement: rows that were repaired are locked meanwhile.
    conn.execute(
        "INSERT INTO migrator.mismatches (step, key, repaired)"
        " SELECT %(step)s, u.key::json, u.repaired"
        " FROM unnest(%(keys)s::text[], %(repaired)s::bool[]) AS u (key, repaired)"
        " LIMIT greatest(%(kept)s - (SELECT count(*) FROM migrator.mismatches"
        " WHERE step = %(step)s), 0)",
        {
            "step": step,
            "keys": [one.key for one in found],
            "repaired": [one.repaired for one in found],
            "kept": KEPT,
        },
    )


def of(conn: Connection, change: str, *, last: bool = False) -> list[Mismatch]:
    """
    Return the rows that a change's verifications found, the latest first.

    Args:
        conn: any.
        change: its id.
        last: whether to leave out what an earlier comparison found.
    """
    rows = conn.execute(
        "SELECT m.key::text AS key, m.repaired, m.at,"
        # Ledgers of earlier releases do not have it.
        " COALESCE(s.step #>> '{work,wrong}', '') AS wrong FROM migrator.mismatches m"
        " JOIN migrator.steps s ON s.id = m.step WHERE s.change = %(change)s"
        # Each comparison enters its steps anew, under the same names.
        " AND (NOT %(last)s OR NOT EXISTS (SELECT FROM migrator.steps later"
        " WHERE later.change = s.change AND later.phase = s.phase"
        " AND later.name = s.name AND later.id > s.id)) ORDER BY m.at DESC",
        {"change": change, "last": last},
    )
    return [Mismatch(**row) for row in rows]
