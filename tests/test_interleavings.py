"""Writes, phases, ways back and crashes in any order: no write is lost."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from psycopg.sql import SQL, Composable

from migrator.change import Change
from migrator.errors import Held
from migrator.kernels.mirror_columns import Twin
from migrator.ledger import store, windows
from migrator.patterns import DropNotNull, RenameColumn, SetNotNull
from migrator.plan import State
from migrator.postgres.connection import Target
from migrator.runner import Runner
from migrator.settings import Settings

KEYS = st.integers(1, 4)
VALUES = st.sampled_from([None, "a", "A", ""])
STEPS = ("expand", "backfill", "verify", "retire", "drop", "rollback")


class CrashError(BaseException):
    """What stands for the death of the process."""


@contextmanager
def crash_at(name: str, skip: int) -> Iterator[None]:
    """Die at a call of the ledger, after some that pass."""
    module = windows if name == "advance" else store
    real: Callable[..., Any] = getattr(module, name)
    calls = 0

    def dying(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == skip + 1:
            raise CrashError
        return real(*args, **kwargs)

    with mock.patch.object(module, name, dying):
        yield


def fresh(url: str) -> Runner:
    """Return the engine of another process."""
    return Runner(Target.from_url(url), Settings(hold_s=0, step_budget_s=3))


def go(url: str, change: Change, step: str) -> State:
    """Run one command as a new process would."""
    runner = fresh(url)
    if step == "expand":
        return runner.expand(change)
    if step == "retire":
        return runner.retire(change.id, old_release_gone="test")
    command: Callable[[str], State] = getattr(runner, step)
    return command(change.id)


def check_interleavings(
    url: str, conn: psycopg.Connection, *, shrink: bool = True
) -> None:
    """Let hypothesis look for an order that loses a write."""

    class Machine(RuleBasedStateMachine):
        """A rename with a model of its rows."""

        number = 0

        def __init__(self) -> None:
            super().__init__()
            Machine.number += 1
            self.table = f"t{Machine.number}"
            self.change = Change(
                revision=self.table, pattern=RenameColumn(self.table, "old", "new")
            )
            conn.execute(
                f"CREATE TABLE {self.table} (id int, n int, old text);"
                f"INSERT INTO {self.table} VALUES (1, 0, 'a'), (2, 0, NULL)".encode()
            )
            self.model: dict[int, str | None] = {1: "a", 2: None}
            self.state = State.PLANNED

        @initialize(steps=st.sampled_from([0, 1, 3, 3, 3, 4]))
        def begin(self, steps: int) -> None:
            """Begin somewhere on the way: most windows open late."""
            for step in STEPS[:steps]:
                self.state = go(url, self.change, step)

        def write(self, column: str, key: int, value: str | None) -> None:
            """Update a row, or insert it."""
            done = conn.execute(
                f"UPDATE {self.table} SET {column} = %s WHERE id = %s".encode(),
                [value, key],
            )
            if not done.rowcount:
                conn.execute(
                    f"INSERT INTO {self.table} (id, {column}) VALUES (%s, %s)".encode(),
                    [key, value],
                )
            self.model[key] = value

        @precondition(lambda self: self.state.rank < State.RETIRED.rank)
        @rule(key=KEYS, value=VALUES)
        def old_write(self, key: int, value: str | None) -> None:
            """Write as the old release, in its window."""
            self.write("old", key, value)

        @precondition(lambda self: self.state.rank >= State.VERIFIED.rank)
        @rule(key=KEYS, value=VALUES)
        def new_write(self, key: int, value: str | None) -> None:
            """Write as the new release, in its window."""
            self.write("new", key, value)

        @rule(key=KEYS)
        def other_write(self, key: int) -> None:
            """Write a column that is not renamed."""
            conn.execute(
                f"UPDATE {self.table} SET n = n + 1 WHERE id = %s".encode(), [key]
            )

        @rule(key=KEYS)
        def delete(self, key: int) -> None:
            """Delete a row."""
            conn.execute(f"DELETE FROM {self.table} WHERE id = %s".encode(), [key])
            self.model.pop(key, None)

        def allowed(self, step: str) -> bool:
            """Tell whether a command goes on from here."""
            if step == "expand":
                return self.state.rank < State.RETIRED.rank
            if self.state is State.PLANNED or self.state is State.DROPPED:
                return False
            return step != "drop" or self.state is State.RETIRED

        @rule(step=st.sampled_from(STEPS))
        def command(self, step: str) -> None:
            """Run a command; one that comes too early is held."""
            if self.allowed(step):
                try:
                    self.state = go(url, self.change, step)
                except Held:
                    assert self.state is not State.VERIFIED

        @rule(
            step=st.sampled_from(STEPS),
            where=st.sampled_from(["set_status", "set_state", "advance", "add_steps"]),
            skip=st.integers(0, 2),
        )
        def crash_and_resume(self, step: str, where: str, skip: int) -> None:
            """Die in a command, then run it again."""
            if self.allowed(step):
                try:
                    with crash_at(where, skip):
                        self.state = go(url, self.change, step)
                except CrashError:
                    self.state = go(url, self.change, step)
                except Held:
                    assert self.state is not State.VERIFIED

        @invariant()
        def nothing_is_lost(self) -> None:
            """Each release reads what either wrote, in its window."""
            columns = ["old"] if self.state.rank < State.RETIRED.rank else []
            if self.state.rank >= State.VERIFIED.rank:
                columns.append("new")
            for column in columns:
                rows = conn.execute(f"SELECT id, {column} FROM {self.table}".encode())
                assert dict(rows.fetchall()) == self.model, (column, self.state)

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=25,
            stateful_step_count=20,
            deadline=None,
            derandomize=True,
            phases=[Phase.generate, *([Phase.shrink] if shrink else [])],
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_no_write_is_lost_in_any_order(database: str, sql: psycopg.Connection) -> None:
    """Whatever runs, dies and is taken back, both releases read every write."""
    check_interleavings(database, sql)


@pytest.mark.parametrize("lost", ["new to old", "old to new"])
def test_mutant_a_direction_dropped(
    database: str,
    sql: psycopg.Connection,
    lost: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The machine finds an order that a dual write of one direction loses in."""
    create = Twin.create

    def one_way(
        self: Twin, body: Composable, when: Composable | None, **given: bool
    ) -> Any:
        old, new = self.old, self.new
        left, right = (old, new) if lost == "new to old" else (new, old)
        text = body.as_string(None).replace(f'NEW."{left}" := NEW."{right}";', "NULL;")
        return create(self, SQL(text), when, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(Twin, "create", one_way)
    with pytest.raises(AssertionError):
        check_interleavings(database, sql, shrink=False)


@pytest.fixture
def half_expanded(database: str, sql: psycopg.Connection) -> Change:
    """Give a change whose first run died between its step and its state."""
    sql.execute("CREATE TABLE t (id int, old text); INSERT INTO t VALUES (1, 'a')")
    change = Change(revision="a1", pattern=RenameColumn("t", "old", "new"))
    with pytest.raises(CrashError), crash_at("set_state", 0):
        go(database, change, "expand")
    return change


def columns(sql: psycopg.Connection) -> set[str]:
    """Return the columns of the table."""
    rows = sql.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = 't'::regclass"
        " AND attnum > 0 AND NOT attisdropped"
    )
    return {name for (name,) in rows}


def test_rollback_of_a_half_expanded_change(
    database: str, sql: psycopg.Connection, half_expanded: Change
) -> None:
    """What ran before the state was entered is taken back as well."""
    assert columns(sql) == {"id", "old", "new"}
    fresh(database).rollback(half_expanded.id)
    assert columns(sql) == {"id", "old"}


def test_another_change_meets_a_half_expanded_one(
    database: str, half_expanded: Change
) -> None:
    """A change that has begun holds its columns, whatever its state says."""
    other = Change(revision="b2", pattern=SetNotNull("t", "old"))
    with pytest.raises(Held, match=half_expanded.id):
        fresh(database).expand(other)


def test_a_half_expanded_change_goes_on(
    database: str, sql: psycopg.Connection, half_expanded: Change
) -> None:
    """The same command goes on where the first run died."""
    assert fresh(database).expand(half_expanded) is State.EXPANDED
    assert columns(sql) == {"id", "old", "new"}


def test_a_way_back_that_dies_half_way_is_told(
    database: str, sql: psycopg.Connection
) -> None:
    """Contract does not call retired what is half taken back; rollback goes on."""
    sql.execute("CREATE TABLE t (id int, a text NOT NULL)")
    fresh(database).expand(Change(revision="a1", pattern=DropNotNull("t", "a")))
    fresh(database).retire("a1", old_release_gone="test")
    with crash_at("set_status", 1), pytest.raises(CrashError):
        fresh(database).rollback("a1")
    with pytest.raises(Held, match="on its way back to verified"):
        fresh(database).retire("a1", old_release_gone="test")
    assert fresh(database).rollback("a1") is State.VERIFIED
    with pytest.raises(psycopg.errors.NotNullViolation):
        sql.execute("INSERT INTO t VALUES (1, NULL)")
