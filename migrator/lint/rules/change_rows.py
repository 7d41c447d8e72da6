"""
UPDATE or DELETE of many rows keeps them locked until the revision ends.

Each row leaves a dead version behind, and the table grows; who writes one of the rows
waits for the commit.

Source: PostgreSQL manual, section 13.3.2, Row-Level Locks; section 24.1.2.
"""

import re
from collections.abc import Iterator

from psycopg import sql

from migrator.lint import statements as st
from migrator.lint.rule import (
    BYTES_PER_S,
    Finding,
    Harm,
    Rule,
    Safe,
    Severity,
    Trial,
    Work,
)
from migrator.lint.safe import alone
from migrator.lint.scene import Scene
from migrator.lint.statements import Ref
from migrator.names import mentioned
from migrator.pattern import Pattern
from migrator.patterns import AddColumn, SetNotNull, TransformColumn
from migrator.plan import Lock, render

#: Statements that change rows which are there.
CHANGES = ("UPDATE", "DELETE", "MERGE")

# Rows of a chunk: some milliseconds each.
CHUNK_ROWS = 1000

# A chunk, as people write it.
_LIMITED = re.compile(r"\b(LIMIT|FETCH\s+(FIRST|NEXT))\b", re.IGNORECASE)

# A block that may commit, since it stands alone: each round is a transaction.
_CHUNKS = """\
DO $$ BEGIN LOOP
    DELETE FROM {table} WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM {table}{where} LIMIT {rows}));
    EXIT WHEN NOT FOUND;
    COMMIT;
END LOOP; END $$"""


class ChangeRows(Rule):
    """A statement that changes many rows at once."""

    code = "ZD601"
    title = "UPDATE or DELETE of many rows locks them until the revision ends"
    harm = Harm.STALL
    lock = Lock.ROW_EXCLUSIVE
    work = Work.ROWS
    trials = (
        Trial(
            bad=("UPDATE t SET a = a + 1",),
            good=(
                "SET client_min_messages = warning",
                "DO $$ BEGIN FOR n IN 0..9 LOOP"
                " UPDATE t SET a = a + 1 WHERE id % 10 = n; COMMIT; END LOOP; END $$",
            ),
        ),
        Trial(
            bad=("DELETE FROM t WHERE id > 10",),
            good=(
                "SET client_min_messages = warning",
                _CHUNKS.format(table="t", where=" WHERE id > 10", rows=300),
            ),
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for one on a table in use, beside which nothing else is locked."""
        if not isinstance(statement, st.ChangeRows):
            return
        how, table = statement.how.upper(), statement.table
        if how not in CHANGES or scene.held():
            # Under a lock it is the hazard of `rows_beside_ddl`.
            return
        if scene.autocommit and _LIMITED.search(statement.sql):
            # A loop around it goes on, one transaction each time.
            return
        which = "the rows that it finds" if statement.where else "every row"
        yield from self.found(
            table,
            scene,
            f"{how} changes {which} of {table} in one transaction.",
            "Who writes one of these rows waits until the revision is committed, and"
            " each leaves a dead version that bloats the table.",
            safe=safe(statement, scene),
            severity=severity(statement, scene),
        )


def severity(
    statement: st.ChangeRows, scene: Scene, table: Ref | None = None
) -> Severity | None:
    """
    Return what a condition makes of it: it may find a few rows or all.

    Args:
        statement: what changes rows.
        scene: where it stands.
        table: that the condition is about; None means the one that is changed.
    """
    if statement.how.upper() == "MERGE" or not statement.where:
        return None
    size = scene.size_bytes(table or statement.table)
    if size is not None and size / BYTES_PER_S[Work.ROWS] <= scene.short_s:
        return Severity.NOTE
    return Severity.WARNING


def safe(statement: st.ChangeRows, scene: Scene) -> Safe:
    """Return the change that does the same in chunks."""
    table = statement.table
    if statement.how.upper() == "DELETE":
        return Safe(
            why="Each chunk is a transaction of its own, so that nobody waits longer"
            " than for one.",
            decide="the condition, in place of …." if statement.where else "",
            code=alone(
                _CHUNKS.format(
                    table=render(_identifier(table)),
                    where=" WHERE …" if statement.where else "",
                    rows=CHUNK_ROWS,
                )
            ),
        )
    new = [
        s.column
        for s in reversed(scene.earlier)
        if isinstance(s, st.AddColumn) and scene.is_same(s.table, table)
    ]
    # Of several the one that it names.
    named = mentioned(statement.sql)
    added = next((c for c in new if c.name in named), next(iter(new), None))
    patterns: tuple[Pattern, ...]
    if added is not None:
        patterns = (
            AddColumn(
                table.name,
                added.name,
                added.type.lower(),
                computed="…",
                schema=table.schema,
            ),
        )
        decide = "the expression that it is computed by: `computed`."
    else:
        patterns = (
            SetNotNull(table.name, "…", fill="…", schema=table.schema),
            TransformColumn(
                table.name,
                "…",
                "…",
                "…",
                up="…",
                down="…",
                schema=table.schema,
            ),
        )
        decide = (
            "what it is for. NULLs are filled by SetNotNull, and a column gets another"
            " content beside the old one by TransformColumn; else let the application"
            " change the rows, some at a time."
        )
    return Safe(
        why="Rows are changed in chunks of a short time each, throttled by the server's"
        " load, and a trigger does the same to those that are written meanwhile.",
        patterns=patterns,
        decide=decide,
    )


def _identifier(ref: Ref) -> sql.Identifier:
    parts = (ref.schema, ref.name) if ref.schema else (ref.name,)
    return sql.Identifier(*parts)
