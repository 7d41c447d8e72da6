"""Rows out of step: named, repaired, and when repair does not help."""

import json
import threading
import time
from typing import Any

import psycopg
import pytest

from backfill.live import number, wait_for
from migrator import phases
from migrator.change import Change
from migrator.errors import Held, MigratorError, MismatchError
from migrator.guard import Policy
from migrator.ledger.control import Mode
from migrator.patterns import RenameColumn
from migrator.plan import State
from migrator.progress import Silent
from migrator.runner import Runner
from migrator.settings import Settings

CHANGE = Change(revision="c", pattern=RenameColumn("t", "name", "label"))


class Heard(Silent):
    """A progress that keeps rows out of step, and what is waited for."""

    def __init__(self) -> None:
        self.rows: list[tuple[Any, Any, bool]] = []
        self.waits: list[str] = []

    def waiting(self, reason: str, seconds: float = 0.0) -> None:
        """Keep it."""
        self.waits.append(reason)

    def mismatch(
        self, key: str, given: str | None, *, repaired: bool, wrong: str = ""
    ) -> None:
        """Keep it."""
        self.rows.append((json.loads(key), given and json.loads(given), repaired))


@pytest.fixture
def verified(runner: Runner, sql: psycopg.Connection) -> Runner:
    """Give an engine with a change that is verified."""
    sql.execute(
        'CREATE TABLE t ("a b" int, id text, name text, PRIMARY KEY ("a b", id));'
        "INSERT INTO t SELECT g, 'k' || g, 'n' || g FROM generate_series(1, 1000) g"
    )
    runner.settings = Settings(hold_s=0)
    runner.expand(CHANGE)
    runner.backfill("c")
    runner.verify("c")
    runner.progress = Heard()
    return runner


def apart(sql: psycopg.Connection, text: str) -> None:
    """Write past the dual write."""
    with sql.transaction():
        sql.execute("ALTER TABLE t DISABLE TRIGGER USER")
        sql.execute(text.encode())
        name = sql.execute(
            "SELECT tgname FROM pg_trigger WHERE tgrelid = 't'::regclass"
        ).fetchone()
        assert name is not None
        sql.execute(f'ALTER TABLE t ENABLE ALWAYS TRIGGER "{name[0]}"'.encode())


def test_rows_are_named_by_key_and_repaired(
    verified: Runner, sql: psycopg.Connection
) -> None:
    """Values are told where asked for, and never enter the ledger."""
    apart(sql, "UPDATE t SET name = 'secret-' || name WHERE \"a b\" IN (7, 8)")
    assert verified.verify("c") is State.VERIFIED
    assert isinstance(verified.progress, Heard)
    keys = [{"a b": "7", "id": "k7"}, {"a b": "8", "id": "k8"}]
    rows = sorted(verified.progress.rows, key=str)
    assert rows == [(key, None, True) for key in keys]
    assert sorted(m.key for m in verified.mismatches("c")) == [
        '{"a b" : "7", "id" : "k7"}',
        '{"a b" : "8", "id" : "k8"}',
    ]
    verified.progress.rows.clear()
    verified.settings = Settings(show_values=True)
    apart(sql, "UPDATE t SET name = 'secret-again' WHERE \"a b\" = 9")
    verified.verify("c")
    values = {"name": "secret-again", "label": "n9"}
    assert verified.progress.rows == [({"a b": "9", "id": "k9"}, values, True)]
    for (table,) in sql.execute(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'migrator'"
    ).fetchall():
        found = sql.execute(
            f"SELECT count(*) FROM migrator.{table} x WHERE x::text ~ 'secret'".encode()
        )
        assert found.fetchone() == (0,), table
    assert sql.execute("SELECT count(*) FROM t WHERE name <> label").fetchone() == (0,)


def test_the_last_comparison_alone(verified: Runner, sql: psycopg.Connection) -> None:
    """What an earlier one repaired is in the record, and no longer in the way."""
    apart(sql, "UPDATE t SET name = 'x' WHERE \"a b\" = 7")
    verified.verify("c")
    assert len(verified.mismatches("c", last=True)) == 1
    verified.verify("c")
    assert verified.mismatches("c", last=True) == []
    assert len(verified.mismatches("c")) == 1


def test_without_a_key_rows_are_named_by_their_place(
    verified: Runner, sql: psycopg.Connection
) -> None:
    """That is where a person finds them until they move."""
    sql.execute("ALTER TABLE t DROP CONSTRAINT t_pkey")
    apart(sql, 'UPDATE t SET label = NULL WHERE "a b" = 5')
    place = sql.execute('SELECT ctid FROM t WHERE "a b" = 5').fetchone()
    assert place is not None
    verified.verify("c")
    assert isinstance(verified.progress, Heard)
    assert verified.progress.rows == [({"ctid": place[0]}, None, True)]


def test_what_repair_cannot_explain_pauses_the_change(
    verified: Runner, sql: psycopg.Connection
) -> None:
    """It is verified no more, nothing goes on, and a person's word lets it."""
    sql.execute(
        "CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN NEW.label := ''mine''; RETURN NEW; END';"
        "CREATE TRIGGER zzzz BEFORE UPDATE ON t FOR EACH ROW"
        ' WHEN (NEW."a b" = 3) EXECUTE FUNCTION meddle();'
        "UPDATE t SET name = 'x' WHERE \"a b\" = 3"
    )
    with pytest.raises(MismatchError) as caught:
        verified.verify("c")
    assert str(caught.value) == (
        'Verification of c found 1 row of table "public"."t" that is not in step'
        " and could not be repaired.\nThe change is backfilled; both releases go on.\n"
        "Next: look at these rows (`migrator status c` lists them), then"
        " `migrator resume c` and `migrator verify c`."
    )
    (found,) = verified.mismatches("c")
    assert (json.loads(found.key), found.repaired) == ({"a b": "3", "id": "k3"}, False)
    assert verified.change("c").state is State.BACKFILLED
    for held in (
        lambda: verified.verify("c"),
        lambda: verified.retire("c", old_release_gone="yes"),
    ):
        with pytest.raises(Held):
            held()
    sql.execute("DROP TRIGGER zzzz ON t")
    verified.say("c", Mode.RUN, "dropped it")
    assert verified.verify("c") is State.VERIFIED


def test_what_repair_moves_behind_the_end_is_counted(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Its page is full, so that who looks at the chunk again does not see it."""
    sql.execute(
        "CREATE TABLE t (id int PRIMARY KEY, name text, pad text);"
        "ALTER TABLE t ALTER pad SET STORAGE PLAIN;"
        "INSERT INTO t SELECT g, 'n' || g, repeat('x', 2600)"
        " FROM generate_series(1, 6) g"
    )
    pattern = RenameColumn("t", "name", "label", assured="test")
    runner.expand(Change(revision="c", pattern=pattern))
    runner.settle("c")
    sql.execute(
        "CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN NEW.label := ''mine''; RETURN NEW; END';"
        "CREATE TRIGGER zzzz BEFORE UPDATE ON t FOR EACH ROW"
        " WHEN (NEW.id = 3) EXECUTE FUNCTION meddle();"
        "UPDATE t SET name = 'x' WHERE id = 3"
    )
    sql.execute("VACUUM FULL t")
    assert number(sql, "SELECT pg_relation_size('t') / 8192") == 2
    with pytest.raises(MismatchError, match="found 1 row of"):
        runner.verify("c")
    assert number(sql, "SELECT pg_relation_size('t') / 8192") == 3
    (found,) = runner.mismatches("c")
    assert (json.loads(found.key), found.repaired) == ({"id": "3"}, False)


def test_a_paused_change_is_not_retired(verified: Runner) -> None:
    """A word to wait holds every phase."""
    verified.say("c", Mode.PAUSE, "month-end")
    with pytest.raises(Held, match="month-end"):
        verified.retire("c", old_release_gone="yes")
    assert verified.change("c").state is State.VERIFIED


def test_watch_until_contract(
    verified: Runner, runner: Runner, sql: psycopg.Connection
) -> None:
    """It stays verified all the while, finds what goes wrong, and ends."""
    ended: list[State] = []
    watcher = Runner(runner.target, Settings(), Heard())
    thread = threading.Thread(
        target=lambda: ended.append(watcher.watch("c", every_s=0.05))
    )
    thread.start()
    apart(sql, "UPDATE t SET label = 'lost' WHERE \"a b\" = 4")
    deadline = time.monotonic() + 20
    while not verified.mismatches("c") and time.monotonic() < deadline:
        assert verified.change("c").state is State.VERIFIED
        time.sleep(0.02)
    assert [json.loads(m.key)["a b"] for m in verified.mismatches("c")] == ["4"]
    verified.retire("c", old_release_gone="yes")
    thread.join(timeout=20)
    assert ended == [State.RETIRED]


def test_watch_keeps_what_it_found_and_the_last_round(
    verified: Runner, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger does not grow by rounds, nor the log by those that find nothing."""

    def kept() -> tuple[int, int, int]:
        counts = ("steps WHERE phase = 'verify'", "samples", "mismatches")
        found = (number(sql, f"SELECT count(*) FROM migrator.{c}") for c in counts)
        return (next(found), next(found), next(found))

    monkeypatch.setattr(phases, "KEPT_ROUNDS", 2)
    verified._verified("c", repeats=True)
    before, log = kept(), len(verified.events("c"))
    for _ in range(3):
        verified._verified("c", repeats=True)
    assert kept() == before
    assert len(verified.events("c")) == log
    found = before
    for key in range(1, 5):
        apart(sql, f"UPDATE t SET label = 'lost' WHERE \"a b\" = {key}")
        verified._verified("c", repeats=True)
        found = kept()
    # Two of those before, and the last one, which has a place of its own.
    assert [json.loads(m.key)["a b"] for m in verified.mismatches("c")] == list("432")
    assert found[0] == before[0] + 2
    assert len(verified.events("c")) > log


def test_watch_waits_for_others_and_for_people(
    verified: Runner, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It outlasts a pause and a contract that takes long; an abort ends it."""
    monkeypatch.setattr(Runner, "_lease_wait_s", 0.0)
    heard = Heard()
    watcher = Runner(runner.target, Settings(), heard)
    ended: list[BaseException] = []

    def watch() -> None:
        try:
            watcher.watch("c", every_s=0.05)
        except MigratorError as error:
            ended.append(error)

    thread = threading.Thread(target=watch)
    with verified._held("c"):
        thread.start()
        wait_for("it waits", lambda: any("carries it on" in w for w in heard.waits))
    verified.say("c", Mode.PAUSE, "month-end")
    wait_for("it is paused", lambda: any("month-end" in w for w in heard.waits))
    assert not ended
    verified.say("c", Mode.ABORT, "enough")
    thread.join(timeout=20)
    (error,) = ended
    assert isinstance(error, Held)


def test_too_many_failed_chunks_pause_the_change(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """The reason is told; after a word it starts from a full budget."""
    sql.execute(
        "CREATE TABLE t (id int PRIMARY KEY, name text);"
        "INSERT INTO t SELECT g, 'n' || g FROM generate_series(1, 100) g"
    )
    runner.settings = Settings(lock_timeout_ms=10)
    runner.guard = Policy(error_budget=3)
    runner.expand(CHANGE)
    thread = threading.Thread(target=runner.backfill, args=("c",))
    with psycopg.connect(database) as other:
        other.execute("SELECT FROM t WHERE id = 50 FOR UPDATE")
        thread.start()
        deadline = time.monotonic() + 20
        while runner.said("c").mode is Mode.RUN and time.monotonic() < deadline:
            time.sleep(0.02)
    said = runner.said("c")
    assert said.mode is Mode.PAUSE
    assert said.reason == (
        "3 chunks failed within 10 minutes, the last one of: canceling statement due"
        " to lock timeout"
    )
    before = sql.execute("SELECT count(label) FROM t").fetchone()
    assert before is not None
    assert before[0] < 100
    runner.say("c", Mode.RUN, "the lock is gone")
    thread.join(timeout=20)
    assert sql.execute("SELECT count(label) FROM t").fetchone() == (100,)
