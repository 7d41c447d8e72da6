"""Deployments of releases: their marks, and who may still run an earlier one."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from migrator.errors import Held
from migrator.ledger import installation, store
from migrator.postgres.connection import Connection

# Key of the transaction-level lock under which a mark is set: the letters "depl".
# Held for milliseconds, so that pods that come at the same instant set one mark.
MARK_KEY = 0x6465706C


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """
    One deployment of a release.

    Args:
        id: grows from one deployment to the next.
        release: its name; a release may be deployed again later.
        changes: ids of the changes that the release knows.
        begun_at: when the first `pre-deploy` of it was run.
        ended_at: when `post-deploy` said that all of the application runs it.
    """

    id: int
    release: str
    changes: frozenset[str]
    begun_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A session of the application; `age_s` is None where that is hidden."""

    pid: int
    application: str
    age_s: float | None


def known(conn: Connection) -> list[Deployment]:
    """Return all deployments, the oldest first; none where no ledger is."""
    if not installation.exists(conn, "deployments"):
        return []
    rows = conn.execute(
        "SELECT id, release, changes, begun_at, ended_at FROM migrator.deployments"
        " ORDER BY id"
    )
    return [Deployment(**{**row, "changes": frozenset(row["changes"])}) for row in rows]


def begin(conn: Connection, release: str, changes: Sequence[str]) -> Deployment:
    """
    Mark that the deployment of a release begins; once, however often it is said.

    It is another deployment where another release's stands between, or where the
    release has ended its own and knows other changes since.

    Args:
        conn: outside a transaction.
        release: its name.
        changes: ids of the changes that it knows.
    """
    with conn.transaction():
        last = _locked(conn)
        if last is None or last.release != release:
            return _added(conn, release, changes)
        if last.ended_at is None:
            _knows(conn, last, changes)
        elif last.changes != frozenset(changes):
            return _added(conn, release, changes)
        return known(conn)[-1]


def end(conn: Connection, release: str, changes: Sequence[str]) -> Deployment:
    """
    Mark that all of the application runs a release; once, as `begin`.

    Raises:
        Held: the deployment of another release has begun since.
    """
    with conn.transaction():
        last = _locked(conn)
        found = last
        if found is None or found.release != release:
            if found is not None and any(d.release == release for d in known(conn)):
                raise Held(
                    f"The deployment of {found.release} has begun since that of"
                    f" {release}, so that the end of {release} cannot be told now.",
                    next=f"end that of {found.release}; or, where {release} was brought"
                    f" back, run `migrator hook pre-deploy --release {release}` first.",
                )
            found = _added(conn, release, changes)
        if found.ended_at is None:
            _knows(conn, found, changes)
            conn.execute(
                "UPDATE migrator.deployments SET ended_at = clock_timestamp()"
                " WHERE id = %s",
                (found.id,),
            )
            store.event(conn, "", "deployment", release=release, mark="ended")
        return known(conn)[-1]


def _locked(conn: Connection) -> Deployment | None:
    """Keep other processes from setting a mark meanwhile; return the last one."""
    conn.execute("SELECT pg_catalog.pg_advisory_xact_lock(%s)", (MARK_KEY,))
    return next(reversed(known(conn)), None)


def _knows(conn: Connection, mark: Deployment, changes: Sequence[str]) -> None:
    conn.execute(
        "UPDATE migrator.deployments SET changes = %s WHERE id = %s",
        (list(changes), mark.id),
    )


def _added(conn: Connection, release: str, changes: Sequence[str]) -> Deployment:
    conn.execute(
        "INSERT INTO migrator.deployments (release, changes) VALUES (%s, %s)",
        (release, list(changes)),
    )
    store.event(conn, "", "deployment", release=release, mark="begun")
    return known(conn)[-1]


def expanded_at(conn: Connection, change: str) -> datetime | None:
    """Return when a change was last expanded, None where it never was."""
    row = conn.execute(
        "SELECT max(at) AS at FROM migrator.events WHERE change = %s"
        " AND kind = 'state' AND detail->>'state' = 'expanded'",
        (change,),
    ).fetchone()
    return row["at"] if row else None


def sessions_before(conn: Connection, mark: datetime) -> list[Session]:
    """
    Return the application's sessions on this database that are older than a mark.

    One whose age the server hides from this role counts as older.
    """
    rows = conn.execute(
        "SELECT pid, application_name AS application, extract(epoch FROM"
        " clock_timestamp() - backend_start)::float8 AS age_s"
        " FROM pg_catalog.pg_stat_activity"
        " WHERE datname = pg_catalog.current_database()"
        " AND pid <> pg_catalog.pg_backend_pid()"
        " AND NOT pg_catalog.starts_with(application_name, 'migrator:')"
        # Of others' sessions a role without pg_read_all_stats sees neither type nor
        # age; what has no user is the server's own.
        " AND (backend_type = 'client backend'"
        " OR backend_type IS NULL AND usesysid IS NOT NULL)"
        " AND (backend_start < %s OR backend_start IS NULL)"
        " ORDER BY backend_start NULLS LAST",
        (mark,),
    )
    return [Session(**row) for row in rows]
