"""Reading and writing the ledger's tables."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import sql

from migrator import names
from migrator.errors import UsageError
from migrator.ledger.installation import exists
from migrator.names import TableName
from migrator.plan import Footprint, Phase, State, Step, Steps
from migrator.postgres.connection import Connection
from migrator.stored import (
    footprint_from_dict,
    footprint_to_dict,
    step_from_dict,
    step_to_dict,
)
from migrator.words import several

_CHANGES = (
    "SELECT c.*, c.state <> 'planned' OR EXISTS (SELECT FROM migrator.steps s"
    " WHERE s.change = c.id AND s.status IN ('pending', 'running', 'done')) AS begun"
    " FROM migrator.changes c"
)

# Key of the transaction-level lock under which a change begins: the letters "chan".
# Held for milliseconds, so that of two that touch the same one sees the other.
BEGIN_KEY = 0x6368616E

#: Statuses of steps that count; the others are history.
ACTIVE = ("pending", "running", "done")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeRow:
    """A change as the ledger knows it."""

    id: str
    tag: str
    table: TableName
    footprints: tuple[Footprint, ...]
    title: str
    pattern: str
    parameters: Mapping[str, Any]
    digest: str
    state: State
    state_at: datetime
    finished: bool
    #: Whether it left planned, be it without a step, or a step of it was entered
    #: and not taken back.
    begun: bool = False
    #: Where a way back leads that has taken back a step of a phase, and not all of it.
    going_back: State | None = None

    @property
    def stands(self) -> str:
        """Its state for a person, and where it is going back to."""
        if self.going_back is None:
            return self.state.value
        return f"{self.state}, on its way back to {self.going_back}"

    @property
    def in_flight(self) -> bool:
        """Whether steps of it are still to be run or taken back."""
        return self.begun and not self.finished

    def overlaps(self, footprints: tuple[Footprint, ...]) -> bool:
        """Tell whether it touches a column of what is given."""
        return any(mine.overlaps(f) for mine in self.footprints for f in footprints)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow:
    """A step as the ledger knows it."""

    id: int
    phase: Phase
    step: Step
    status: str
    status_at: datetime
    #: End of the last window that was given out; None before the pass.
    next_block: int | None
    end_block: int | None
    file_node: int | None
    #: Blocks, or rows where it goes by keys, that are done.
    done_blocks: float
    rows: int
    mismatches: int
    #: Time of all workers, at work and waiting; why one of them waits now.
    busy_ms: float
    waited_ms: float
    waiting: str
    #: Size of the last chunks, in blocks or rows; None before the first window.
    chunk: int | None

    @property
    def done_share(self) -> float | None:
        """How much of a chunked step is done, None where that is not counted."""
        if not self.end_block:
            return None
        return min(self.done_blocks / self.end_block, 1.0)

    @property
    def waited_share(self) -> float:
        """Share of the workers' time that they waited."""
        return self.waited_ms / max(self.busy_ms + self.waited_ms, 1.0)


def _change(row: Mapping[str, Any]) -> ChangeRow:
    values = dict(row)
    table = TableName(values.pop("table_schema"), values.pop("table_name"))
    footprints = tuple(map(footprint_from_dict, values.pop("footprints")))
    # One of an earlier form has no such column.
    back = values.pop("going_back", None)
    begun = values.pop("begun") or back is not None
    finished = values.pop("finished") and back is None
    return ChangeRow(
        table=table,
        footprints=footprints,
        state=State(values.pop("state")),
        begun=begun,
        finished=finished,
        going_back=back and State(back),
        **values,
    )


def changes(conn: Connection) -> list[ChangeRow]:
    """Return all changes, oldest first."""
    if not exists(conn):
        return []
    rows = conn.execute(_CHANGES + " ORDER BY c.state_at")
    return [_change(row) for row in rows]


def locked_changes(conn: Connection) -> list[ChangeRow]:
    """Keep other changes from beginning until the transaction ends; return all."""
    conn.execute("SELECT pg_catalog.pg_advisory_xact_lock(%s)", (BEGIN_KEY,))
    return changes(conn)


def find(conn: Connection, change: str) -> ChangeRow | None:
    """Return a change by its whole id, None where the ledger has none."""
    if not exists(conn):
        return None
    row = conn.execute(_CHANGES + " WHERE c.id = %s", (change,)).fetchone()
    return _change(row) if row else None


def get(conn: Connection, change: str) -> ChangeRow:
    """
    Return a change by its id or by the beginning of it.

    Raises:
        UsageError: none begins so, or several do.
    """
    exact = find(conn, change)
    if exact is not None:
        return exact
    known = changes(conn)
    means = names.meant(change, (c.id for c in known))
    found = [c for c in known if c.id in means]
    if len(found) == 1:
        return found[0]
    # The latest are the likeliest to be meant.
    listed = several([c.id for c in reversed(found or known)])
    count = f"names {len(found)} changes" if found else "names no change"
    raise UsageError(
        f'"{change}" {count} of the ledger; it has {listed}.',
        next="give the whole id; `migrator status` lists them.",
    )


def add(conn: Connection, row: ChangeRow) -> None:
    """Enter a change that is not there yet, or one that was rolled back."""
    conn.execute(
        "INSERT INTO migrator.changes (id, tag, table_schema, table_name, footprints,"
        " title, pattern, parameters, digest, state) VALUES"
        " (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (id) DO UPDATE SET title = EXCLUDED.title,"
        " footprints = EXCLUDED.footprints, pattern = EXCLUDED.pattern,"
        " parameters = EXCLUDED.parameters, digest = EXCLUDED.digest",
        (
            row.id,
            row.tag,
            row.table.schema,
            row.table.name,
            json.dumps([footprint_to_dict(f) for f in row.footprints]),
            row.title,
            row.pattern,
            json.dumps(row.parameters),
            row.digest,
            row.state.value,
        ),
    )


def set_state(
    conn: Connection,
    change: str,
    state: State,
    *,
    finished: bool,
    told: bool = True,
    **detail: Any,
) -> None:
    """
    Enter a change's new state, with an event.

    Args:
        conn: in the transaction of what led to it.
        change: its id.
        state: the new state.
        finished: whether nothing is left to do.
        told: whether the log has it: not of one that a way back passes.
        detail: what the event tells besides.
    """
    conn.execute(
        "UPDATE migrator.changes SET state = %s, finished = %s, going_back = NULL,"
        " state_at = clock_timestamp() WHERE id = %s",
        (state.value, finished, change),
    )
    if told:
        event(conn, change, "state", state=state.value, **detail)


def set_going_back(conn: Connection, change: str, to: State | None) -> bool:
    """
    Enter where a way back leads that takes back a step, until a state is entered.

    Args:
        conn: in the transaction that takes it back, or before a statement that does.
        change: its id.
        to: where the way back leads; None where it took back nothing after all.

    Returns:
        Whether something else was entered before.
    """
    goal = to and to.value
    done = conn.execute(
        "UPDATE migrator.changes SET going_back = %s"
        " WHERE id = %s AND going_back IS DISTINCT FROM %s",
        (goal, change, goal),
    )
    return done.rowcount > 0


def event(conn: Connection, change: str, kind: str, **detail: Any) -> int:
    """
    Append to the event log.

    Args:
        conn: the connection.
        change: the change's id, or a revision's.
        kind: what happened.
        detail: plain data, stored as JSON.

    Returns:
        The event's id; a later one has a larger one.
    """
    row = conn.execute(
        "INSERT INTO migrator.events (change, kind, detail) VALUES (%s, %s, %s)"
        " RETURNING id",
        (change, kind, json.dumps(detail)),
    ).fetchone()
    assert row is not None
    return int(row["id"])


def events(
    conn: Connection, change: str | None, kind: str | None = None
) -> list[dict[str, Any]]:
    """Return the event log, oldest first; of one change and kind, or of all."""
    if not exists(conn):
        return []
    return list(
        conn.execute(
            "SELECT at, change, kind, actor, detail FROM migrator.events"
            " WHERE (%(change)s::text IS NULL OR change = %(change)s)"
            " AND (%(kind)s::text IS NULL OR kind = %(kind)s) ORDER BY id",
            {"change": change, "kind": kind},
        )
    )


def last_event(conn: Connection, change: str, kind: str) -> dict[str, Any] | None:
    """Return a change's last event of a kind, with its id; None where none is."""
    return conn.execute(
        "SELECT id, at, detail FROM migrator.events WHERE change = %s AND kind = %s"
        " ORDER BY id DESC LIMIT 1",
        (change, kind),
    ).fetchone()


def add_steps(
    conn: Connection, change: str, phase: Phase, steps: Steps, *, told: bool = True
) -> None:
    """
    Enter the steps of a phase, as they will be run and taken back.

    Args:
        conn: in a transaction.
        change: its id.
        phase: the phase.
        steps: in running order.
        told: whether the log has it.
    """
    for step in steps:
        conn.execute(
            "INSERT INTO migrator.steps (change, phase, name, step)"
            " VALUES (%s, %s, %s, %s)",
            (change, phase.value, step.name, json.dumps(step_to_dict(step))),
        )
    if told:
        event(conn, change, "phase", phase=phase.value, steps=[s.name for s in steps])


def forget_steps(conn: Connection, steps: Iterable[StepRow]) -> None:
    """Remove steps whose place others take, with all that is known of them."""
    gone = [s.id for s in steps]
    for table in ("windows", "samples", "mismatches"):
        conn.execute(
            sql.SQL("DELETE FROM migrator.{} WHERE step = ANY (%s)").format(
                sql.Identifier(table)
            ),
            (gone,),
        )
    conn.execute("DELETE FROM migrator.steps WHERE id = ANY (%s)", (gone,))


def steps(
    conn: Connection, change: str, statuses: tuple[str, ...] = ACTIVE
) -> list[StepRow]:
    """Return a change's steps of the given statuses, in running order."""
    rows = conn.execute(
        "SELECT s.id, s.phase, s.step, s.status, s.status_at, s.next_block,"
        " s.end_block, s.file_node, COALESCE(s.next_block - w.blocks, 0)::float8"
        " AS done_blocks, s.rows + w.rows AS rows,"
        " s.mismatches + w.mismatches AS mismatches,"
        " s.busy_ms + w.busy_ms AS busy_ms, s.waited_ms + w.waited_ms AS waited_ms,"
        " w.waiting, s.chunk FROM migrator.steps s CROSS JOIN LATERAL ("
        "SELECT COALESCE(sum(stop_block - start_block - done), 0) AS blocks,"
        " COALESCE(sum(rows), 0)::bigint AS rows,"
        " COALESCE(sum(mismatches), 0)::bigint AS mismatches,"
        " COALESCE(sum(busy_ms), 0) AS busy_ms,"
        " COALESCE(sum(waited_ms), 0) AS waited_ms,"
        # Not what a worker that is gone waited for.
        " COALESCE(max(waiting) FILTER (WHERE EXISTS (SELECT FROM migrator.leases l"
        " WHERE l.token = w.token AND l.expires_at > clock_timestamp())), '')"
        " AS waiting FROM migrator.windows w WHERE step = s.id) w"
        " WHERE s.change = %s AND s.status = ANY (%s) ORDER BY s.id",
        (change, list(statuses)),
    )
    return [
        StepRow(
            **{
                **row,
                "phase": Phase(row["phase"]),
                "step": step_from_dict(row["step"]),
            }
        )
        for row in rows
    ]


def step(conn: Connection, change: str, id: int) -> StepRow | None:
    """Return one of a change's steps as it is now, None where it is gone."""
    return next((s for s in steps(conn, change) if s.id == id), None)


def status_of(conn: Connection, step: int) -> str:
    """Return a step's status, held until the transaction's end."""
    row = conn.execute(
        "SELECT status FROM migrator.steps WHERE id = %s FOR UPDATE", (step,)
    ).fetchone()
    assert row is not None
    return str(row["status"])


def copied_at(conn: Connection, change: str) -> datetime | None:
    """Return when a change's rows were all copied, or repaired by a comparison."""
    row = conn.execute(
        "SELECT max(status_at) AS at FROM migrator.steps WHERE change = %s"
        " AND CASE step -> 'work' ->> 'kind' WHEN 'chunked_update' THEN status = 'done'"
        " WHEN 'chunked_check' THEN rows > 0 AND status IN ('done', 'reversed') END",
        (change,),
    ).fetchone()
    return row["at"] if row else None


def set_status(
    conn: Connection, change: str, row: StepRow, status: str, *, told: bool = True
) -> None:
    """Enter a step's new status, with an event where that is told."""
    conn.execute(
        "UPDATE migrator.steps SET status = %s, status_at = clock_timestamp()"
        " WHERE id = %s",
        (status, row.id),
    )
    if told:
        event(
            conn,
            change,
            "step",
            phase=row.phase.value,
            step=row.step.name,
            status=status,
        )
