"""Hooks of a deployment: exit codes, marks, evidence, several pods at once."""

import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from projects import MAIL, NAME, PLAIN, Release, answer, change
from test_interleavings import CrashError, crash_at, fresh

from migrator.change import Change
from migrator.deployment import Deployer, Retire, brought_in
from migrator.errors import Held
from migrator.ledger.deployments import Deployment
from migrator.ledger.lease import held
from migrator.patterns import RenameColumn
from migrator.plan import State
from migrator.postgres.connection import Target, connect
from migrator.progress import Silent
from migrator.settings import Settings

#: Plain revisions: of a release made from v1 while v2 is out, and what joins both.
HOT = """
from alembic import op
import sqlalchemy as sa

revision, down_revision = "hot", "r1"


def upgrade():
    op.add_column("users", sa.Column("hot", sa.String))
"""
MERGE = (
    HOT[: HOT.index("revision,")]
    + """
revision, down_revision = "m", ("r2", "hot")


def upgrade():
    pass
"""
)
CHANGE = Change(revision="r2", pattern=RenameColumn("users", "name", "full_name"))


class Noticing(Silent):
    """A progress that tells what is waited for between two tries."""

    def __init__(self, notice: Callable[[str], None]) -> None:
        self._notice = notice

    def waiting(self, reason: str, seconds: float = 0.0) -> None:
        """Tell of the wait for another process's retire."""
        if "retires" in reason:
            self._notice(reason)


@pytest.fixture
def releases(database: str, tmp_path: Path) -> tuple[Release, Release, Release]:
    """Give three releases; the first is deployed, and its table has rows."""
    v1 = Release.make("v1", tmp_path, database, PLAIN)
    v2 = Release.make("v2", tmp_path, database, PLAIN, NAME)
    v3 = Release.make("v3", tmp_path, database, PLAIN, NAME, MAIL)
    v1.hook("pre-deploy")
    v1.hook("post-deploy")
    v1.fill()
    return v1, v2, v3


def deploy(release: Release, **options: str) -> dict[str, Any]:
    """Deploy a release; return the answer of its end."""
    release.hook("pre-deploy")
    return release.hook("post-deploy", *(f"--{k}={v}" for k, v in options.items()))


def states(found: dict[str, Any]) -> dict[str, str]:
    """Return what an answer says of each change's state."""
    return {c["change"]: c["state"] for c in found["changes"]}


def reason(found: dict[str, Any], change: str) -> str:
    """Return what an answer says of why a change waits."""
    return next(c["reason"] or "" for c in found["changes"] if c["change"] == change)


def marks(sql: psycopg.Connection) -> list[tuple[str, bool]]:
    """Return all deployments: the release, and whether it has ended."""
    return sql.execute(
        "SELECT release, ended_at IS NOT NULL FROM migrator.deployments ORDER BY id"
    ).fetchall()


def test_a_release_is_let_in_once_its_changes_are_verified(
    releases: tuple[Release, ...], sql: psycopg.Connection
) -> None:
    """Before it is held; `pre-deploy` carries it on, and may run again."""
    _, v2, _ = releases
    found = v2.hook("gate", code=3)
    assert reason(found, "r2") == "it is not expanded yet"
    assert "the release needs r2" in found["reasons"][0]
    for _ in range(2):
        assert states(v2.hook("pre-deploy")) == {"r2": "verified"}
    v2.hook("gate")
    assert marks(sql) == [("v1", True), ("v2", False)]
    text = v2.run("hook", "gate", "--release", "v2")
    assert text.splitlines() == ["  ok    r2 (verified)", "v2 may go out."]


def test_a_release_is_named_by_its_revisions_where_nobody_names_it(
    releases: tuple[Release, ...], sql: psycopg.Connection
) -> None:
    """The heads of the project are the name; the environment may give another."""
    v2 = releases[1]
    v2.run("hook", "pre-deploy", "--json")
    assert marks(sql)[-1] == ("r2", False)


def test_the_time_limit_ends_a_backfill_which_then_goes_on(
    releases: tuple[Release, ...], sql: psycopg.Connection
) -> None:
    """Exit 3 after the limit, with what is missing; the next run does the rest."""
    _, v2, _ = releases
    v2.fill(20_000)
    v2.run("expand")
    v2.run("throttle", "r2", "--max-rows-per-s", "2000", "--target-ms", "5")
    found = v2.hook("pre-deploy", "--time-limit", "2s", code=3)
    assert "The time limit was reached" in reason(found, "r2")
    assert found["error"] is None
    done = sql.execute("SELECT count(full_name) FROM users").fetchone()
    assert done is not None
    assert done[0] < 20_500
    kinds = sql.execute("SELECT kind FROM migrator.events").fetchall()
    assert {"failed", "held"}.isdisjoint(k for (k,) in kinds)
    v2.run("throttle", "r2", "--off")
    assert states(v2.hook("pre-deploy")) == {"r2": "verified"}


def test_a_pod_that_is_killed_leaves_the_rest_to_the_next_one(
    releases: tuple[Release, ...], sql: psycopg.Connection
) -> None:
    """Kill -9 in the middle of the backfill: the same command goes on from there."""
    _, v2, _ = releases
    v2.fill(20_000)
    v2.run("expand")
    v2.run("throttle", "r2", "--max-rows-per-s", "2000", "--target-ms", "5")
    pod = v2.start(*v2.words("pre-deploy"))
    filled = 0
    while not filled:
        assert pod.poll() is None
        (filled,) = sql.execute("SELECT count(full_name) FROM users").fetchone() or (0,)
    pod.kill()
    pod.communicate()
    v2.run("throttle", "r2", "--off")
    assert states(v2.hook("pre-deploy")) == {"r2": "verified"}
    assert marks(sql) == [("v1", True), ("v2", False)]


def test_a_paused_change_keeps_a_release_out(releases: tuple[Release, ...]) -> None:
    """Exit 3 names who paused it, and why; `resume` lets the next run go on."""
    _, v2, _ = releases
    v2.run("expand")
    v2.run("pause", "r2", "--reason", "month-end closing")
    found = v2.hook("pre-deploy", code=3)
    assert "month-end closing" in reason(found, "r2")
    assert "month-end closing" in reason(v2.hook("gate", code=3), "r2")
    v2.run("resume", "r2")
    v2.hook("pre-deploy")


def test_an_error_has_its_own_exit_code(releases: tuple[Release, ...]) -> None:
    """A change that cannot work is no gate; what it is told by is in the answer."""
    v1, _, _ = releases
    bad = change("r2", "r1", "RenameColumn", '"users", "nope", "x"')
    wrong = Release.make("wrong", v1.folder.parent, v1.url, PLAIN, bad)
    found = wrong.hook("pre-deploy", code=1)
    assert found["error"]["kind"] == "NotThere"
    assert 'has no column "nope"' in found["error"]["what"]
    broken = change("r2", "r1", "RenameColumn", '"users", "name", "full_name"')
    broken = broken.replace("zd.upgrade(change)", "raise KeyError('nope')")
    wrong = Release.make("broken", v1.folder.parent, v1.url, PLAIN, broken)
    what = wrong.hook("pre-deploy", code=1)["error"]["what"]
    line = broken[: broken.index("raise")].count("\n") + 1
    assert what.endswith(f"r2.py, line {line}: KeyError.")
    (wrong.folder / "alembic.ini").unlink()
    assert wrong.hook("gate", code=2)["error"]["kind"] == "UsageError"


def test_pods_that_come_at_the_same_instant_are_all_let_in(
    database: str, tmp_path: Path, sql: psycopg.Connection
) -> None:
    """Three processes, from an empty database on: each exits 0, one mark is set."""
    v2 = Release.make("v2", tmp_path, database, PLAIN, NAME)
    pods = [v2.start(*v2.words("pre-deploy")) for _ in range(3)]
    for pod in pods:
        out, err = pod.communicate(timeout=120)
        assert pod.returncode == 0, out + err
        answer(out, 0)
    assert marks(sql) == [("v2", False)]


def test_pods_share_a_live_release(
    releases: tuple[Release, ...], sql: psycopg.Connection
) -> None:
    """Two processes expand and backfill a table with rows, once."""
    _, v2, _ = releases
    v2.fill(20_000)
    pods = [v2.start(*v2.words("pre-deploy")) for _ in range(2)]
    for pod in pods:
        out, err = pod.communicate(timeout=120)
        assert pod.returncode == 0, out + err
        assert states(answer(out, 0)) == {"r2": "verified"}
    expanded = sql.execute(
        "SELECT count(*) FROM migrator.events WHERE change = 'r2' AND kind = 'state'"
        " AND detail->>'state' IN ('expanded', 'verified')"
    ).fetchone()
    assert expanded == (2,)
    assert marks(sql) == [("v1", True), ("v2", False)]


def test_a_pod_waits_while_another_one_runs_the_revisions(
    releases: tuple[Release, ...], sql: psycopg.Connection
) -> None:
    """Until its own time limit; then it is not let in yet, and names the other one."""
    _, v2, _ = releases
    target = Target.from_url(v2.url)
    with Deployer(target).alone("hook alembic_version"):
        found = v2.hook("pre-deploy", "--time-limit", "1s", code=3)
    assert "hook alembic_version is being changed by process" in found["reasons"][0]
    assert reason(found, "r2") == "it is not expanded yet"


def test_a_retire_is_waited_for_however_long_it_takes(
    releases: tuple[Release, ...],
    sql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another pod's retire outlasts the wait for its lease: that is no failure."""
    _, v2, _ = releases
    sql.close()
    deploy(v2)
    monkeypatch.setattr("migrator.engine.LEASE_WAIT_S", 0.2)
    other = Deployer(Target.from_url(v2.url))
    waits = threading.Event()

    def notice(reason: str) -> None:
        waits.set()

    with ThreadPoolExecutor() as pool:
        with other.alone("r2"):
            ended = pool.submit(lambda: other.end("v2", [CHANGE]))
            mine = replace(other, progress=Noticing(notice))
            done = pool.submit(
                lambda: mine.retire_due(ended.result(), [CHANGE], Retire.NOW)
            )
            assert waits.wait(30)
        verdicts, failures = done.result()
    assert failures == {}
    assert [(v.state, v.retired) for v in verdicts] == [("retired", True)]


def test_changes_are_retired_one_deployment_later(
    releases: tuple[Release, ...], sql: psycopg.Connection
) -> None:
    """So that the release before can be brought back until the next one is out."""
    _, v2, v3 = releases
    sql.close()
    found = deploy(v2)
    assert states(found) == {"r2": "verified"}
    assert "v2 brought it in" in reason(found, "r2")
    v2.hook("gate", "--old")
    found = deploy(v3)
    assert states(found) == {"r2": "retired", "r3": "verified"}
    assert [c["retired"] for c in found["changes"]] == [True, False]
    # Said again, it finds nothing more to do.
    assert states(v3.hook("post-deploy")) == {"r3": "verified"}
    assert states(v3.hook("gate", "--old")) == {"r3": "verified"}
    # Of a release that another one follows by now, it is still the one before it.
    text = v3.run("hook", "gate", "--old", "--release", "v2", code=3)
    assert text.endswith("v1, the release before v2, may not be brought back.\n")
    log = v3.run("log", "r2")
    assert "gate: deployment of v3 ended at 20" in log


def test_a_release_that_is_not_there_is_not_marked(
    releases: tuple[Release, ...], sql: psycopg.Connection
) -> None:
    """Post-deploy ends and retires nothing before revisions and changes are there."""
    v1, v2, _ = releases
    v1.hook("pre-deploy")
    v1.hook("post-deploy")
    found = v2.hook("post-deploy", "--retire", "now", code=3)
    assert found["reasons"] == ["The database is at revision r1; the release needs r2."]
    assert states(found) == {"r2": None}
    v2.run("expand")
    found = v2.hook("post-deploy", "--retire", "now", code=3)
    assert "the release needs it verified" in reason(found, "r2")
    assert marks(sql) == [("v1", True)]
    text = v2.run("hook", "post-deploy", "--release", "v2", code=3)
    assert text.endswith("Next: migrator hook pre-deploy --release v2\n")
    v2.hook("pre-deploy")
    assert v2.hook("post-deploy")["reasons"] == []


def test_a_release_whose_own_revision_never_ran_is_kept_out(
    releases: tuple[Release, ...], sql: psycopg.Connection
) -> None:
    """Made from v1 while v2's revision is there; v1 itself is let in again."""
    v1, v2, _ = releases
    v2.hook("pre-deploy")
    fixed = Release.make("v1.1", v1.folder.parent, v1.url, PLAIN, HOT)
    for hook in ("gate", "pre-deploy"):
        found = fixed.hook(hook, code=3)
        (why,) = found["reasons"]
        assert why.startswith(
            "hot is not known to have run here, and cannot run: the database is at r2,"
        )
        # What it does not know is no matter before its own is there.
        assert found["changes"] == []
    v1.hook("gate")
    v1.hook("pre-deploy")
    both = Release.make("v2.1", v1.folder.parent, v1.url, PLAIN, NAME, HOT, MERGE)
    both.hook("pre-deploy")
    fixed.hook("pre-deploy")
    # Rolled back meanwhile: only a release that holds the last revision expands it.
    v2.run("rollback", "r2", "--to", "planned")
    (told,) = v2.hook("pre-deploy", code=3)["changes"]
    assert told["next"] == "migrator expand r2 in the release that holds m"
    both.run("expand", "r2")
    assert marks(sql)[2:] == [("v1", False), ("v2.1", False), ("v1.1", False)]
    assert "revisions: ran hot" in v1.run("log")


def test_a_squash_that_the_database_was_not_told_of(
    releases: tuple[Release, ...],
) -> None:
    """Each command names the stamp, and no change that ran is in the way."""
    v1, v2, _ = releases
    deploy(v2, retire="now")
    new = Release.make("v9", v1.folder.parent, v1.url, PLAIN.replace('"r1"', '"s1"'))
    found = new.hook("gate", code=3)
    assert found["changes"] == []
    assert "`alembic stamp --purge s1`" in found["reasons"][0]
    assert "merge heads" not in found["reasons"][0]
    for command in ("lint", "plan"):
        process = new.start(command)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 1
        assert "Can't locate revision r2, at which the database is" in said
        assert "`alembic stamp --purge s1` says" in said
    new.alembic("stamp", "--purge", "s1")
    new.hook("gate")


def test_a_branch_put_in_line_after_it_ran_is_told(
    releases: tuple[Release, ...],
) -> None:
    """With the stamp that says so, where Alembic has words without a way on."""
    v1, v2, _ = releases
    v2.alembic("upgrade", "head")
    both = Release.make("v9", v1.folder.parent, v1.url, PLAIN, NAME, HOT)
    both.alembic("upgrade", "heads")
    after = HOT.replace('"hot", "r1"', '"hot", "r2"')
    line = Release.make("v10", v1.folder.parent, v1.url, PLAIN, NAME, after)
    error = line.hook("pre-deploy", code=1)["error"]
    assert error["next"].startswith("`alembic stamp --purge hot`")
    line.alembic("stamp", "--purge", "hot")
    # Emptied by the stamp, the version table was no word of what was taken back.
    assert "taken-back" not in v1.run("log")
    line.hook("pre-deploy")


def test_a_release_that_waited_takes_nothing_back(
    releases: tuple[Release, ...], sql: psycopg.Connection
) -> None:
    """By then the database may be at a revision of a newer one."""
    v1, _, _ = releases
    old = Release.make("v1.1", v1.folder.parent, v1.url, PLAIN, HOT)
    target = Target.from_url(v1.url)
    log = "SELECT detail FROM migrator.events WHERE kind = 'revisions'"
    ran = sql.execute(log).fetchall()
    assert [detail["ran"] for (detail,) in ran] == [["r1"]]
    with (
        connect(target, "test") as conn,
        held(target, conn, "alembic  alembic_version", seconds=60, wait_s=0),
    ):
        process = old.start("upgrade", "head", program="alembic")
        queued = "SELECT FROM pg_stat_activity WHERE application_name LIKE %s"
        while not sql.execute(queued, ("migrator:alembic%",)).fetchall():
            assert process.poll() is None
        sql.execute("UPDATE alembic_version SET version_num = 'r2'")
        sql.commit()
    out, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "Next: run this from the release that holds it" in out + err
    assert sql.execute(log).fetchall() == ran


def test_a_persons_word_lets_a_release_in_of_which_no_record_tells(
    releases: tuple[Release, ...],
) -> None:
    """It is entered, so that the gate and the next run need no word."""
    v1, v2, _ = releases
    words = ("hook", "pre-deploy", "--revisions-ran", "added by hand")
    _, told = v2.start(*words).communicate(timeout=120)
    assert "--revisions-ran is not needed, and was not entered" in told
    fixed = Release.make("v1.1", v1.folder.parent, v1.url, PLAIN, HOT)
    fixed.hook(*words[1:])
    fixed.hook("gate")
    assert "reason added by hand" in v1.run("log")


def test_now_retires_at_once_and_never_leaves_all(
    releases: tuple[Release, ...], sql: psycopg.Connection
) -> None:
    """With `now` the release before cannot be brought back any more."""
    _, v2, v3 = releases
    sql.close()
    assert "left alone" in reason(deploy(v2, retire="never"), "r2")
    assert states(v2.hook("post-deploy", "--retire", "now")) == {"r2": "retired"}
    found = v2.hook("gate", "--old", code=3)
    why = "it is retired, and that release needs what it retired"
    assert reason(found, "r2") == why
    assert found["changes"][0]["next"] == "migrator rollback r2"
    v2.hook("gate")
    old = ("hook", "gate", "--old")
    text = v2.run(*old, "--release", "v2", code=3)
    assert text.startswith("  waits r2 (retired)")
    v2.run("--hold", "0", "contract", "r2", "--drop", "--yes")
    text = v2.run(*old, "--release", "v2", code=3)
    assert text.startswith("  blocked r2 (dropped)")
    assert text.endswith("v1, the release before v2, may not be brought back.\n")
    # Not named, it is the one whose mark has its changes; else a new one.
    said = "v1, the release before v2 (by its changes), may not be brought back.\n"
    assert v2.run(*old, code=3).endswith(said)
    now = "r3 (by the project's last revisions)"
    assert v3.run(*old) == f"v2, the release before {now}, may be brought back.\n"


@pytest.mark.parametrize("which", ["earlier", "now"])
def test_a_session_of_an_earlier_release_holds_a_change(
    releases: tuple[Release, ...], sql: psycopg.Connection, which: str
) -> None:
    """Exit 3 names it; once it has ended, the same command retires."""
    _, v2, v3 = releases
    sql.close()
    with psycopg.connect(v2.url, application_name="billing") as old:
        v2.hook("pre-deploy")
        if which == "earlier":
            v2.hook("post-deploy")
        release = v3 if which == "earlier" else v2
        release.hook("pre-deploy")
        found = release.hook("post-deploy", "--retire", which, code=3)
        assert states(found)["r2"] == "verified"
        named = f'pid {old.info.backend_pid} (application "billing", '
        assert named in reason(found, "r2")
    found = release.hook("post-deploy", "--retire", which)
    assert states(found)["r2"] == "retired"


def test_sessions_of_the_release_itself_hold_nothing(
    releases: tuple[Release, ...], sql: psycopg.Connection
) -> None:
    """Those that began after the roll-out, and our own, say nothing of an old one."""
    _, v2, v3 = releases
    sql.close()
    with psycopg.connect(v2.url, application_name="migrator:guard"):
        deploy(v2)
        with psycopg.connect(v2.url):
            assert states(deploy(v3))["r2"] == "retired"


def test_a_session_of_a_roll_out_may_be_of_either_release(
    releases: tuple[Release, ...], sql: psycopg.Connection
) -> None:
    """One that began between the marks of the deployment holds the change."""
    _, v2, v3 = releases
    sql.close()
    v2.hook("pre-deploy")
    with psycopg.connect(v2.url):
        v2.hook("post-deploy")
        v3.hook("pre-deploy")
        assert states(v3.hook("post-deploy", code=3))["r2"] == "verified"


def test_pods_that_end_a_deployment_at_once_retire_once(
    releases: tuple[Release, ...], sql: psycopg.Connection
) -> None:
    """Two processes: each exits 0, and the change is retired once."""
    _, v2, v3 = releases
    sql.close()
    deploy(v2)
    v3.hook("pre-deploy")
    pods = [v3.start(*v3.words("post-deploy")) for _ in range(2)]
    for pod in pods:
        out, err = pod.communicate(timeout=120)
        assert pod.returncode == 0, out + err
    with psycopg.connect(v2.url) as conn:
        retired = conn.execute(
            "SELECT count(*) FROM migrator.events WHERE change = 'r2'"
            " AND kind = 'state' AND detail->>'state' = 'retired'"
        ).fetchone()
        assert retired == (1,)
        assert marks(conn) == [("v1", True), ("v2", True), ("v3", True)]


def test_an_older_release_is_let_in_while_nothing_it_needs_is_retired(
    releases: tuple[Release, ...], sql: psycopg.Connection
) -> None:
    """Going back is a deployment of the older release, by its own hooks."""
    v1, v2, v3 = releases
    sql.close()
    deploy(v2)
    deploy(v1)
    # The chain is broken: v3 brings in what v2 did, so that v1 can come back.
    found = deploy(v3)
    assert states(found) == {"r2": "verified", "r3": "verified"}
    v3.hook("post-deploy", "--retire", "now")
    found = v1.hook("pre-deploy", code=3)
    assert states(found) == {"r2": "retired", "r3": "retired"}


def test_a_deployment_that_was_overtaken_is_not_ended(
    releases: tuple[Release, ...], sql: psycopg.Connection
) -> None:
    """A late `post-deploy` sets no mark, since another release may be running."""
    _, v2, v3 = releases
    v2.hook("pre-deploy")
    v3.hook("pre-deploy")
    found = v2.hook("post-deploy", code=3)
    assert "The deployment of v3 has begun since that of v2" in found["reasons"][0]
    assert marks(sql) == [("v1", True), ("v2", False), ("v3", False)]
    text = v2.run("hook", "post-deploy", "--release", "v2", code=3)
    assert text.splitlines()[-1] == "The deployment of v2 is not marked as ended."


def test_an_edited_pattern_is_held_at_the_gate(releases: tuple[Release, ...]) -> None:
    """What the database has is not what the release was written for."""
    _, v2, _ = releases
    v2.hook("pre-deploy")
    path = v2.folder / "migrations" / "versions" / "r2.py"
    path.write_text(NAME.replace("full_name", "whole_name"))
    assert "edited" in reason(v2.hook("gate", code=3), "r2")


def test_a_stamped_database_is_no_admission(
    releases: tuple[Release, ...], sql: psycopg.Connection
) -> None:
    """A revision that never ran here is told from one that is still to be run."""
    _, v2, _ = releases
    v2.alembic("stamp", "r2")
    found = v2.hook("pre-deploy", code=3)
    assert "its revision is applied, but the ledger does not" in reason(found, "r2")


def test_a_change_that_overlaps_another_keeps_a_release_out(
    releases: tuple[Release, ...],
) -> None:
    """Exit 3 names the one in flight; the other one is carried on."""
    _, v2, _ = releases
    again = change("r3", "r2", "SetNotNull", '"users", "name", fill="\'\'"')
    last = change("r4", "r3", "RenameColumn", '"users", "mail", "address"')
    v3 = Release.make("overlap", v2.folder.parent, v2.url, PLAIN, NAME, again, last)
    v2.alembic("upgrade", "head")
    # Asked alone, the gate knows what a run would be held by.
    gate = v3.hook("gate", code=3)
    assert reason(gate, "r3").startswith("it touches what r2 (rename")
    assert reason(gate, "r4") == (
        "it is not expanded yet; r3, which is held, may come before it"
    )
    found = v3.hook("pre-deploy", code=3)
    assert states(found) == {"r2": "verified", "r3": None, "r4": None}
    assert "r3 touches what r2" in found["reasons"][0]
    assert "The database is at revision r2" in found["reasons"][1]
    # As it stands behind the verify of the same run, with what leads out of it.
    assert reason(found, "r3").endswith("is changing; that one is verified")
    assert "r3, which is held, may come before it" in reason(found, "r4")
    text = v3.run("hook", "pre-deploy", "--release", "overlap", code=3)
    (road,) = (line for line in text.splitlines() if "Next: " in line)
    assert road.startswith("    Next: finish or roll back r2 first: run a release that")
    assert text.endswith("run this again once r3 may be expanded.\n")


def test_what_was_rolled_back_is_expanded_again(
    releases: tuple[Release, ...], sql: psycopg.Connection
) -> None:
    """With its revision applied at once; after a downgrade behind those before it."""
    v1, v2, _ = releases
    v2.hook("pre-deploy")
    v2.run("rollback", "r2", "--to", "planned")
    assert reason(v2.hook("gate", code=3), "r2") == "it is not expanded yet"
    with v2.start(*v2.words("pre-deploy")) as pod:
        assert pod.stderr is not None
        said = pod.stderr.read()
    assert re.search(r"^r2 was rolled back on 20\S+ \S+ UTC by \S+; it is ", said, re.M)
    notes = PLAIN.replace('"r1", None', '"r2", "r1"').replace("users", "notes")
    name = NAME.replace('"users"', '"notes"').replace('"r2", "r1"', '"r3", "r2"')
    v2.alembic("downgrade", "r1")
    sql.execute("DROP SCHEMA migrator CASCADE")
    other = Release.make("other", v1.folder.parent, v1.url, PLAIN, notes, name)
    other.hook("pre-deploy")
    other.alembic("downgrade", "r1")
    assert states(other.hook("pre-deploy")) == {"r3": "verified"}


def test_a_change_on_its_way_back_keeps_a_release_out(
    releases: tuple[Release, ...], sql: psycopg.Connection
) -> None:
    """Backfilled is what it was: some of its steps are taken back."""
    _, v2, _ = releases
    sql.execute("CREATE INDEX ON users (name)")
    v2.hook("pre-deploy")
    with crash_at("set_status", 2), pytest.raises(CrashError):
        fresh(v2.url).rollback("r2", to=State.PLANNED)
    assert reason(v2.hook("gate", code=3), "r2") == "it is on its way back to planned"
    found = v2.hook("pre-deploy", code=3)
    assert "is on its way back to planned" in reason(found, "r2")
    v2.run("rollback", "r2")
    assert states(v2.hook("pre-deploy")) == {"r2": "verified"}


def test_a_listener_holds_a_deployment(
    releases: tuple[Release, ...], sql: psycopg.Connection
) -> None:
    """Before expand and before retire: exit 3 with what it says, then it goes on."""
    _, v2, _ = releases
    sql.close()
    command = v2.folder / "ask.sh"
    no = '#!/bin/sh\necho "$MIGRATOR_EVENT: not today" >&2; exit 1\n'
    (v2.folder / "pyproject.toml").write_text(
        '[tool.migrator.events]\ncommand = "./ask.sh"\n'
    )
    for said in (no, "#!/bin/sh\n"):
        command.write_text(said)
        command.chmod(0o755)
        found = v2.hook("pre-deploy", code=3 if said is no else 0)
    found = v2.hook("post-deploy", "--retire", "never")
    command.write_text(no)
    found = v2.hook("post-deploy", "--retire", "now", code=3)
    assert "asked before-retire: before-retire: not today" in reason(found, "r2")
    command.write_text("#!/bin/sh\n")
    v2.hook("post-deploy", "--retire", "now")


def test_a_session_of_hidden_age_holds_a_change(
    releases: tuple[Release, ...], sql: psycopg.Connection, database: str
) -> None:
    """A role that may not see how old sessions are is told which right it lacks."""
    _, v2, _ = releases
    v2.hook("pre-deploy")
    role = f"deployer_{sql.info.backend_pid}"
    sql.execute(f"CREATE ROLE {role} LOGIN".encode())
    try:
        sql.execute(f"GRANT ALL ON SCHEMA migrator TO {role}".encode())
        sql.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA migrator TO {role}".encode())
        target = Target({**Target.from_url(database).params, "user": role})
        deployer = Deployer(target)
        row = deployer.change("r2")
        with pytest.raises(Held) as held:
            deployer._require_nobody_before(row, START)
        assert "of an age hidden from this role" in str(held.value)
        assert "grant pg_read_all_stats" in str(held.value)
    finally:
        sql.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


START = datetime(2026, 1, 1, tzinfo=UTC)


def deployments(*told: tuple[str, str, bool]) -> list[Deployment]:
    """Return marks an hour apart: release, its changes, whether it ended."""
    return [
        Deployment(
            id=n,
            release=release,
            changes=frozenset(changes.split()),
            begun_at=START + timedelta(hours=n),
            ended_at=START + timedelta(hours=n, minutes=30) if ended else None,
        )
        for n, (release, changes, ended) in enumerate(told, 1)
    ]


@pytest.mark.parametrize(
    ("told", "expanded_h", "wanted"),
    [
        ((), 0, None),
        ((("v1", "", True), ("v2", "c", True), ("v3", "c", True)), 0, "v2"),
        # One that never ended let the release before go on.
        ((("v1", "", True), ("v2", "c", False), ("v3", "c", True)), 0, "v3"),
        ((("v2", "c", True), ("v1", "", True), ("v3", "c", True)), 0, "v3"),
        ((("v2", "c", True), ("v1", "", False)), 0, None),
        # Rolled back and expanded again after v2 had ended.
        ((("v2", "c", True), ("v3", "c", True)), 2, "v3"),
        ((("v2", "c", False),), 0, None),
    ],
)
def test_which_deployment_brought_a_change_in(
    told: tuple[tuple[str, str, bool], ...], expanded_h: int, wanted: str | None
) -> None:
    """It is the first that ended since which each release knew the change."""
    expanded_at = START + timedelta(hours=expanded_h)
    found = brought_in("c", deployments(*told), expanded_at)
    assert (found and found.release) == wanted


def test_settings_of_a_time_limit() -> None:
    """A wait is cut by what is left, and nothing begins once that is over."""
    settings = Settings(until_s=0.0)
    assert (settings.left_s, settings.within(30)) == (0, 0)
    with pytest.raises(Held, match="The time limit was reached: it is not done"):
        settings.require_time("it is not done")
    unlimited = replace(settings, until_s=None)
    unlimited.require_time("it is not done")
    assert unlimited.within(30) == 30
