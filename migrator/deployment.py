"""Deployments: what a release needs of its changes, and what is due after it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

from migrator import edits, waiting
from migrator.change import Change
from migrator.errors import Busy, Held, MigratorError, Overlaps, TimeIsUp
from migrator.events import EventKind
from migrator.ledger import deployments, installation, lease, revisions
from migrator.ledger.control import Mode
from migrator.ledger.deployments import Deployment, Session
from migrator.ledger.store import ChangeRow
from migrator.plan import State
from migrator.postgres.connection import Connection, require_primary
from migrator.runner import Runner
from migrator.verdicts import UNEXPANDED, Verdict, behind, holding

# Sessions that a reason names; the others are counted.
NAMED = 3


class Retire(StrEnum):
    """Which changes `post-deploy` retires."""

    EARLIER = "earlier"
    NOW = "now"
    NEVER = "never"


@dataclass(slots=True)
class Deployer(Runner):
    """A runner that knows of deployments."""

    def begin(self, release: str, changes: Sequence[Change]) -> Deployment:
        """
        Mark that the deployment of a release begins; once, however often it is said.

        Args:
            release: its name.
            changes: those of the project's revisions.
        """
        with self._installed("migrator:hook") as conn:
            return deployments.begin(conn, release, [c.id for c in changes])

    def end(self, release: str, changes: Sequence[Change]) -> Deployment:
        """
        Mark that all of the application runs a release.

        Raises:
            Held: the deployment of another release has begun since.
        """
        with self._installed("migrator:hook") as conn:
            return deployments.end(conn, release, [c.id for c in changes])

    def is_begun(self, release: str) -> bool:
        """Tell whether a release was let in, now or before."""
        with self._connected("migrator:hook") as conn:
            return any(m.release == release for m in deployments.known(conn))

    def ran(self, version_table: str) -> set[str]:
        """Return the revisions of a version table that are known to have run."""
        with self._connected("migrator:hook") as conn:
            return revisions.ran(conn, version_table)

    def note_ran(
        self, version_table: str, there: Sequence[str], *, reason: str = ""
    ) -> None:
        """
        Enter that revisions have run.

        Args:
            version_table: Alembic's.
            there: the revisions.
            reason: a person's word for it; "" where the version table tells it.
        """
        with self._installed("migrator:hook") as conn:
            revisions.note(conn, version_table, there, reason=reason)

    @contextmanager
    def _installed(self, name: str) -> Iterator[Connection]:
        with self._connected(name) as conn:
            require_primary(conn)
            installation.install(conn)
            yield conn

    @contextmanager
    def alone(self, scope: str) -> Iterator[None]:
        """
        Let one process after the other do something.

        Args:
            scope: what is done.

        Raises:
            Busy: another one does it until the time limit.
        """
        wait_s = self.settings.left_s
        with (
            self._installed("migrator:hook") as conn,
            lease.held(
                self.target,
                conn,
                scope,
                seconds=self.settings.lease_s,
                wait_s=float("inf") if wait_s is None else wait_s,
                tell=self.progress.waiting,
            ),
        ):
            yield

    # -- before ----------------------------------------------------------

    def admit(self, changes: Sequence[Change]) -> dict[str, MigratorError]:
        """
        Backfill and verify what a release needs, first what keeps it out.

        Args:
            changes: those of the project's revisions.

        Returns:
            For each change that could not be carried on, why.
        """
        failures: dict[str, MigratorError] = {}
        rows = {row.id: row for row in self.changes()}
        mine = [(c, rows[c.id]) for c in changes if c.id in rows]
        # Where the new release does not wait for a change, others come first.
        mine.sort(key=lambda one: one[1].state.rank >= one[0].pattern.admission.rank)
        for change, row in mine:
            if row.finished or not row.begun:
                continue
            try:
                state = self.settle(row.id)
                if state is State.VERIFIED and self.is_compared(row.id) is False:
                    self.verify(row.id)
            except TimeIsUp as error:
                failures[change.id] = error
                break
            except MigratorError as error:
                failures[change.id] = error
        return failures

    def gate(
        self, changes: Sequence[Change], *, ahead: bool = False, applied: bool = False
    ) -> tuple[Verdict, ...]:
        """
        Tell of each change whether it lets a release go out.

        Args:
            changes: those of the release's revisions.
            ahead: whether the database is at a revision that the release does not
                know; then what it does not know must not be retired.
            applied: whether all of the release's revisions are applied.
        """
        every = self.changes()
        rows = {row.id: row for row in every}
        missing = {c.id: self._waits_for(c, every) for c in changes}
        waits = {change: found for change, found in missing.items() if found}
        held: Change | None = None
        mine: list[Verdict] = []
        for change in changes:
            verdict = self._admits(change, rows.pop(change.id, None), applied)
            if verdict.reason == UNEXPANDED:
                stopped = None if waits or held else self._stopped(change)
                verdict = self._unexpanded(verdict, change, waits, held, stopped)
                held = change if stopped else held
            mine.append(verdict)
        if not ahead:
            return tuple(mine)
        return (*mine, *(self._kept(row) for row in rows.values() if row.begun))

    def _unexpanded(
        self,
        verdict: Verdict,
        change: Change,
        waits: Mapping[str, Sequence[ChangeRow]],
        held: Change | None,
        stopped: Overlaps | None,
    ) -> Verdict:
        """
        Return the verdict on a change that is not expanded, with what is before it.

        Args:
            verdict: without that.
            change: the one that it is on.
            waits: for each of the release's changes that wait, what is missing.
            held: the first one that another change keeps from being expanded.
            stopped: what keeps this one from it.
        """
        if missing := waits.get(change.id):
            reason, road = self._until_finished(change, missing)
            return replace(verdict, reason=reason, next=road)
        if held is not None:
            return behind(held.id, verdict)
        if waits:
            why = f"{UNEXPANDED}; {next(iter(waits))}, which waits, may come before it"
            return replace(verdict, reason=why)
        return verdict if stopped is None else holding(stopped, verdict)

    def _waits_for(self, change: Change, every: Sequence[ChangeRow]) -> list[ChangeRow]:
        """Return what a change that has not begun requires, as far as it is missing."""
        if any(row.id == change.id and row.begun for row in every):
            return []
        return waiting.unfinished(every, change.requires, change.version_table)

    def _stopped(self, change: Change) -> Overlaps | None:
        """Return what keeps a change from being expanded, as far as that is known."""
        try:
            return self.held_by(change)
        except MigratorError:
            # Told by the run that expands it, perhaps behind revisions before it.
            return None

    def _until_finished(
        self, change: Change, missing: Sequence[ChangeRow]
    ) -> tuple[str, str]:
        """Return why a release with a change that waits is kept out, and what to do."""
        first = missing[0]
        reason = f"it waits until {waiting.told(missing)}"
        if first.state.rank >= State.RETIRED.rank:
            return reason, waiting.road(first, self.settings.hold_s)
        with self._connected("migrator:hook") as conn:
            marks = deployments.known(conn)
            mark = brought_in(first.id, marks, deployments.expanded_at(conn, first.id))
        without = f"a release that has {first.id} and not {change.id}"
        drop = f"after the hold, `migrator contract {first.id} --drop`"
        if mark is None or first.state is not State.VERIFIED:
            return (
                f"{reason}: {without} has to be deployed before this one",
                f"deploy {without}; the post-deploy of the release after it retires"
                f" {first.id}, its own with --retire now; {drop}",
            )
        return (
            f"{reason}; {mark.release} brought it in",
            f"`migrator hook post-deploy --release {marks[-1].release} --retire now`,"
            f" after which the release before {mark.release} cannot come back; or"
            f" deploy {without}, whose post-deploy retires it; {drop}",
        )

    def _admits(self, change: Change, row: ChangeRow | None, applied: bool) -> Verdict:
        needs = change.pattern.admission
        verdict = Verdict(
            change=change.id,
            title=change.pattern.title,
            state=row.state if row else None,
            needs=needs,
        )
        if row is None and applied:
            return replace(
                verdict,
                ok=False,
                reason="its revision is applied, but the ledger does not know it: the"
                " database was stamped, or restored without the schema migrator",
                next=f"migrator reconcile {change.id}",
            )
        if edit := edits.edited(change, row):
            return replace(verdict, ok=False, reason=edit.reason, next=edit.next)
        if row is not None and row.going_back is not None:
            return replace(
                verdict,
                ok=False,
                reason=f"it is on its way back to {row.going_back}",
                next=waiting.command(row),
            )
        if row is None or row.state is State.PLANNED:
            return replace(
                verdict,
                ok=False,
                reason=UNEXPANDED,
                next="migrator hook pre-deploy",
            )
        if row.state.rank < needs.rank:
            said = self.said(row.id)
            halted = said.mode is not Mode.RUN
            return replace(
                verdict,
                ok=False,
                reason=f"it is {row.state}, and the release needs it {needs}"
                + (f"; it is held: {said.said}" if halted else self._share(row)),
                next=f"migrator resume {row.id}"
                if halted
                else "migrator hook pre-deploy, which goes on",
            )
        if row.state is State.VERIFIED and self.is_compared(row.id) is False:
            return replace(
                verdict,
                ok=False,
                reason="it was not compared since it was taken back from retired",
                next=f"migrator verify {row.id}",
            )
        return verdict

    def _share(self, row: ChangeRow) -> str:
        """Return how far the step under way is, for a reason."""
        shares = [
            f"; {s.step.name} is at {s.done_share:.0%}"
            for s in self.steps(row.id)
            if s.status == "running" and s.done_share is not None
        ]
        return shares[-1] if shares else ""

    def known_as(self, release: str, changes: Sequence[Change]) -> str:
        """
        Return the name that the marks have for a release which nobody named.

        Args:
            release: that by its last revisions, kept where no mark fits better.
            changes: those of its revisions; the last mark is its own where it knew
                exactly these.
        """
        with self._connected("migrator:hook") as conn:
            marks = deployments.known(conn)
        fits = marks and marks[-1].changes == {c.id for c in changes}
        named = any(m.release == release for m in marks)
        return marks[-1].release if fits and not named else release

    def gate_old(
        self, release: str, changes: Sequence[Change]
    ) -> tuple[Deployment | None, tuple[Verdict, ...]]:
        """
        Tell of each change whether it lets the release before be brought back.

        Args:
            release: the one that is deployed, is to be deployed, or was.
            changes: those of its revisions.

        Returns:
            The deployment of the release before, None where no mark tells of one;
            then each change counts as unknown to it.
        """
        with self._connected("migrator:hook") as conn:
            marks = deployments.known(conn)
        own = [n for n, m in enumerate(marks) if m.release == release]
        marks = marks[: own[-1]] if own else marks
        ended = [m for m in marks if m.ended_at is not None and m.release != release]
        before = ended[-1] if ended else None
        knew = before.changes if before else frozenset[str]()
        mine = {c.id for c in changes}
        return before, tuple(
            self._kept(row)
            for row in self.changes()
            # What neither release holds is of a squash, or of another project.
            if row.begun and row.id in mine and row.id not in knew
        )

    def _kept(self, row: ChangeRow) -> Verdict:
        """Tell whether a release that does not know a change can still work."""
        verdict = Verdict(change=row.id, title=row.title, state=row.state)
        if row.state.rank < State.RETIRED.rank:
            return verdict
        lost = self.is_lost(row.id)
        return replace(
            verdict,
            ok=False,
            blocked=lost,
            reason=f"it is {row.state}, and that release needs what it {row.state}",
            next="there is no way back; write a new change"
            if lost
            else f"migrator rollback {row.id}",
        )

    # -- after -----------------------------------------------------------

    def retire_due(
        self, current: Deployment, changes: Sequence[Change], which: Retire
    ) -> tuple[tuple[Verdict, ...], dict[str, MigratorError]]:
        """
        Retire what no release needs any more that may still run, or be brought back.

        Args:
            current: the deployment that has ended.
            changes: those of the project's revisions.
            which: changes that an earlier deployment brought in, also those of this
                one, or none.

        Returns:
            What was done with each change in flight, and what failed.
        """
        verdicts: list[Verdict] = []
        failures: dict[str, MigratorError] = {}
        rows = {row.id: row for row in self.changes()}
        for change in changes:
            row = rows.get(change.id)
            if row is None or not row.in_flight or row.state.rank > State.VERIFIED.rank:
                continue
            verdict = Verdict(change=row.id, title=row.title, state=row.state)
            if edit := edits.edited(change, row):
                verdicts.append(
                    replace(verdict, ok=False, reason=edit.reason, next=edit.next)
                )
                continue
            waits, mark = self._waits(row, current, which)
            try:
                if waits:
                    verdict = replace(verdict, reason=waits)
                elif mark is not None:
                    self._require_nobody_before(row, mark)
                    state = self._retire(row, current)
                    verdict = replace(verdict, state=state, retired=True)
            except Held as error:
                state = self.change(row.id).state
                verdict = replace(
                    verdict, state=state, ok=False, reason=error.what, next=error.next
                )
            except MigratorError as error:
                failures[row.id] = error
                verdict = replace(verdict, ok=False, reason=error.what, next=error.next)
            verdicts.append(verdict)
        return tuple(verdicts), failures

    def _waits(
        self, row: ChangeRow, current: Deployment, which: Retire
    ) -> tuple[str, datetime | None]:
        """Return why a change is not due, or since when no old session may be."""
        if which is Retire.NEVER:
            return "left alone: --retire never", None
        with self._connected("migrator:hook") as conn:
            marks = [m for m in deployments.known(conn) if m.id <= current.id]
            expanded_at = deployments.expanded_at(conn, row.id)
        mark = brought_in(row.id, marks, expanded_at)
        if mark is None:
            return "no deployment that has ended brought it in", None
        if mark.id < current.id:
            # Until its end, pods of the release before opened sessions.
            return "", mark.ended_at
        if which is Retire.NOW:
            return "", mark.begun_at
        return (
            f"{mark.release} brought it in; it is due after the next deployment, so"
            f" that the release before {mark.release} can be brought back until then",
            None,
        )

    def _require_nobody_before(self, row: ChangeRow, mark: datetime) -> None:
        with self._connected("migrator:hook") as conn:
            found = deployments.sessions_before(conn, mark)
        if not found:
            return
        named = ", ".join(map(_named, found[:NAMED]))
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        hidden = any(s.age_s is None for s in found)
        grant = "grant pg_read_all_stats to this role; " if hidden else ""
        self._tell(EventKind.HELD, row, {"error": f"older sessions: {named}{more}"})
        raise Held(
            f"{row.id} is not retired: sessions are older than the deployment that"
            f" brought it in, and may be of a release that needs the old shape:"
            f" {named}{more}.",
            next=f"{grant}end them, or let them end, then run the same command again;"
            f" where they do not matter, `migrator contract {row.id}"
            ' --old-release-gone "reason"`.',
        )

    def _retire(self, row: ChangeRow, current: Deployment) -> State:
        assert current.ended_at is not None
        ended = f"{current.ended_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
        reason = f"deployment of {current.release} ended at {ended}; no older session"
        while True:
            try:
                return self.retire(row.id, old_release_gone=reason)
            except Busy:
                # Another pod is at it; the change is retired once it is through.
                self.settings.require_time(f"{row.id} is not retired")
                self.progress.waiting("for the process that retires it")


def brought_in(
    change: str, marks: Sequence[Deployment], expanded_at: datetime | None
) -> Deployment | None:
    """
    Return the deployment since which every release knows a change.

    Args:
        change: its id.
        marks: all deployments, the oldest first.
        expanded_at: when it was last expanded: what ended before does not count.

    Returns:
        The first one that has ended of those; None where none has.
    """
    found: Deployment | None = None
    for mark in reversed(marks):
        early = mark.ended_at and expanded_at and mark.ended_at < expanded_at
        if change not in mark.changes or early:
            break
        if mark.ended_at is not None:
            found = mark
    return found


def _named(session: Session) -> str:
    age = "of an age hidden from this role"
    if session.age_s is not None:
        age = f"{session.age_s:,.0f} s old"
    return f'pid {session.pid} (application "{session.application}", {age})'
