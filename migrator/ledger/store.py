"""Reading and writing the ledger's tables."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from typing import Any

from psycopg import sql

from migrator import names
from migrator.errors import Refused, UsageError
from migrator.names import TableName
from migrator.plan import Footprint, Phase, State, Step, Steps
from migrator.postgres.connection import Connection, ask, execute_stored
from migrator.stored import (
    footprint_from_dict,
    footprint_to_dict,
    step_from_dict,
    step_to_dict,
)

# Key of the transaction-level lock under which the ledger is made or upgraded:
# the letters "migr". Held for milliseconds and never while anything waits for a
# concurrent build.
INSTALL_KEY = 0x6D696772

VERSIONS = (1, 2, 3, 4, 5, 6, 7, 8)

_CHANGES = (
    "SELECT c.*, c.state <> 'planned' OR EXISTS (SELECT FROM migrator.steps s"
    " WHERE s.change = c.id AND s.status IN ('pending', 'running', 'done')) AS begun"
    " FROM migrator.changes c"
)

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


#: The ledger's tables, of all forms.
TABLES = (
    "upgrades",
    "changes",
    "steps",
    "leases",
    "events",
    "windows",
    "control",
    "samples",
    "mismatches",
    "failures",
    "deployments",
)


def exists(conn: Connection, table: str = "upgrades") -> bool:
    """Tell whether the database has a ledger, with a table of a later form."""
    # A query of the catalogue's tables: to_regclass answers from a cache, which a
    # transaction that waited for another's install may find outdated.
    row = conn.execute(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c"
        " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = 'migrator' AND c.relname = %s) AS there",
        (table,),
    ).fetchone()
    return bool(row and row["there"])


def install(conn: Connection) -> None:
    """
    Make the ledger on first use, or bring it to this release's form.

    Raises:
        Refused: it was made by a newer release.
    """
    if exists(conn) and _version(conn) == VERSIONS[-1]:
        return
    with conn.transaction():
        conn.execute("SELECT pg_catalog.pg_advisory_xact_lock(%s)", (INSTALL_KEY,))
        there = _version(conn) if exists(conn) else 0
        if not there:
            _clear_empty(conn)
        if there > VERSIONS[-1]:
            raise Refused(
                f"The ledger has form {there}; this release knows up to"
                f" {VERSIONS[-1]}.",
                next="use the release that made it, or a newer one.",
            )
        _make_schema(conn)
        for version in VERSIONS:
            if version > there:
                name = f"{version:03}.sql"
                text = (files("migrator.ledger") / "sql" / name).read_text()
                execute_stored(conn, text)
                conn.execute(
                    "INSERT INTO migrator.upgrades (version) VALUES (%s)", (version,)
                )


def _make_schema(conn: Connection) -> None:
    """
    Make the ledger's schema, unless a person with more rights has.

    Raises:
        Refused: this role may not.
    """
    # IF NOT EXISTS asks for the privilege also where it is there.
    there = "SELECT pg_catalog.to_regnamespace('migrator') IS NOT NULL"
    may = (
        "SELECT pg_catalog.has_database_privilege("
        "pg_catalog.current_database(), 'CREATE')"
    )
    if ask(conn, there):
        return
    if not ask(conn, may):
        who = sql.Identifier(ask(conn, "SELECT current_user::text")).as_string(None)
        raise Refused(
            'The ledger is a schema "migrator" of the database, which this role may'
            " not create.",
            next=f"have CREATE SCHEMA migrator AUTHORIZATION {who} run once by the"
            " database's owner, or grant this role CREATE on the database.",
        )
    conn.execute("CREATE SCHEMA migrator")


def _clear_empty(conn: Connection) -> None:
    """
    Drop tables that were copied without their rows: of which form is not known.

    Raises:
        Refused: there are rows in them.
    """
    if exists(conn, "changes") and ask(
        conn, "SELECT EXISTS (SELECT FROM migrator.changes)"
    ):
        raise Refused(
            "The ledger holds changes, but table migrator.upgrades does not say of"
            " which form it is.",
            next="restore that table as well.",
        )
    owned = sql.SQL(", ").join(sql.Identifier("migrator", t) for t in TABLES)
    conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(owned))
    conn.execute("DROP SEQUENCE IF EXISTS migrator.tokens")
    conn.execute("DROP FUNCTION IF EXISTS migrator.refuse_edit()")


def _version(conn: Connection) -> int:
    row = conn.execute(
        "SELECT COALESCE(max(version), 0) AS v FROM migrator.upgrades"
    ).fetchone()
    assert row is not None
    return int(row["v"])


def _change(row: Mapping[str, Any]) -> ChangeRow:
    values = dict(row)
    table = TableName(values.pop("table_schema"), values.pop("table_name"))
    footprints = tuple(map(footprint_from_dict, values.pop("footprints")))
    return ChangeRow(
        table=table,
        footprints=footprints,
        state=State(values.pop("state")),
        **values,
    )


def changes(conn: Connection) -> list[ChangeRow]:
    """Return all changes, oldest first."""
    if not exists(conn):
        return []
    rows = conn.execute(_CHANGES + " ORDER BY c.state_at")
    return [_change(row) for row in rows]


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
    listed = ", ".join(c.id for c in (found or known)) or "none"
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
    conn: Connection, change: str, state: State, *, finished: bool, **detail: Any
) -> None:
    """
    Enter a change's new state, with an event.

    Args:
        conn: in the transaction of what led to it.
        change: its id.
        state: the new state.
        finished: whether nothing is left to do.
        detail: what the event tells besides.
    """
    conn.execute(
        "UPDATE migrator.changes SET state = %s, finished = %s,"
        " state_at = clock_timestamp() WHERE id = %s",
        (state.value, finished, change),
    )
    event(conn, change, "state", state=state.value, **detail)


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
