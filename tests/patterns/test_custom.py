"""Custom: its text, its life, its locks and its messages."""

import json
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from migrator.change import Change
from migrator.errors import Failed, LockBudgetError, Refused
from migrator.facts import Facts, Table
from migrator.names import TableName
from migrator.patterns import Custom, Sql
from migrator.plan import Autocommit, Lock, State, Transaction
from migrator.runner import Runner
from migrator.settings import Settings

FACTS = Facts(
    server_version=180000,
    tag="0123456789",
    table=Table(name=TableName('my "sch', "or der"), oid=1, columns=()),
)
NOTHING = "\nNothing was changed.\nNext: "
THERE = (
    "SELECT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass('by_id')"
    " AND indisvalid)"
)
BUILD = Sql(
    "CREATE INDEX CONCURRENTLY by_id ON orders (id)",
    reverse="DROP INDEX CONCURRENTLY by_id",
    lock="SHARE UPDATE EXCLUSIVE",
    done=THERE,
    alone=True,
)
CHECK = Sql(
    "ALTER TABLE orders ADD CONSTRAINT k CHECK (note <> 'a%b:x') NOT VALID",
    reverse="ALTER TABLE orders DROP CONSTRAINT k",
)
PATTERN = Custom(
    "orders",
    "own",
    at_expand=[BUILD],
    at_retire=[CHECK],
    at_drop=[Sql("ALTER TABLE orders DROP COLUMN old", no_reverse="it is gone")],
    touches=["old"],
)


# -- text --------------------------------------------------------------------


def test_text() -> None:
    """Statements stand as they were written, behind the declared lock."""
    weak = Sql("SELECT '%s'", reverse="SELECT ':x'", lock="SHARE ROW EXCLUSIVE")
    none = Sql("SELECT 1", no_reverse="nothing to do", lock="none")
    pattern = Custom("or der", "own", at_expand=[weak, none], at_drop=[none])
    first, second = pattern.expand(FACTS)
    lock = 'LOCK TABLE "my ""sch"."or der" IN SHARE ROW EXCLUSIVE MODE'
    assert isinstance(first.work, Transaction)
    assert first.work.statements == (lock, "SELECT '%s'")
    (back,) = first.reverse
    assert isinstance(back, Transaction)
    assert back.statements == (lock, "SELECT ':x'")
    assert isinstance(second.work, Transaction)
    assert second.work.statements == ("SELECT 1",)
    assert (second.no_reverse, second.loses) == ("nothing to do", False)
    assert [s.name for s in (first, second)] == ["own_1", "own_2"]
    (last,) = pattern.drop(FACTS)
    assert last.loses


def test_text_of_a_statement_that_stands_alone() -> None:
    """Both directions can tell whether they ran."""
    (step,) = PATTERN.expand(FACTS)
    (back,) = step.reverse
    assert isinstance(step.work, Autocommit)
    assert isinstance(back, Autocommit)
    assert (step.work.statement, step.work.done) == (BUILD.statement, THERE)
    assert step.work.lock is Lock.SHARE_UPDATE_EXCLUSIVE
    assert (back.statement, back.done) == (BUILD.reverse, f"SELECT NOT ({THERE})")


def test_declaration_comes_back_from_the_ledger() -> None:
    """Its plain data makes the same pattern, with the same digest."""
    stored = json.loads(json.dumps(PATTERN.parameters()))
    again = Custom(**stored)
    assert again.expand(FACTS) == PATTERN.expand(FACTS)
    assert again.drop(FACTS) == PATTERN.drop(FACTS)
    assert again.digest() == PATTERN.digest()
    other = Custom("orders", "own", at_expand=[BUILD], at_retire=[CHECK])
    assert other.digest() != PATTERN.digest()


# -- life cycle --------------------------------------------------------------


def test_life_cycle(runner: Runner, sql: psycopg.Connection) -> None:
    """Each phase runs its own, and what has a reverse is taken back."""
    sql.execute("CREATE TABLE orders (id int, note text, old int)")
    change = Change(revision="a1", pattern=PATTERN)

    def there() -> tuple[Any, ...]:
        row = sql.execute(
            f"SELECT ({THERE}), EXISTS (SELECT FROM pg_constraint WHERE conname = 'k'),"
            " (SELECT count(*)::int FROM pg_attribute WHERE attnum > 0 AND"
            " NOT attisdropped AND attrelid = 'orders'::regclass)".encode()
        ).fetchone()
        assert row is not None
        return row

    def both() -> None:
        sql.execute("INSERT INTO orders (id, note) VALUES (1, 'x')")

    assert runner.expand(change) is State.VERIFIED
    assert there() == (True, False, 3)
    both()
    assert runner.rollback("a1") is State.PLANNED
    assert there() == (False, False, 3)
    both()
    assert runner.expand(change) is State.VERIFIED
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert there() == (True, True, 3)
    both()
    assert runner.rollback("a1") is State.VERIFIED
    assert there() == (True, False, 3)
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert runner.drop("a1") is State.DROPPED
    assert there() == (True, True, 2)
    both()
    with pytest.raises(Refused, match="no way back"):
        runner.rollback("a1")


def test_a_statement_that_ran_is_not_run_again(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """After a crash behind it, `done` tells both ways."""
    sql.execute("CREATE TABLE orders (id int, note text, old int)")
    sql.execute("CREATE INDEX by_id ON orders (id)")
    change = Change(revision="a1", pattern=PATTERN)
    assert runner.expand(change) is State.VERIFIED
    sql.execute("DROP INDEX by_id")
    assert runner.rollback("a1") is State.PLANNED


# -- locks -------------------------------------------------------------------


def test_a_reader_makes_it_give_up(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """Behind a lock that is not given, the step ends in time and leaves nothing."""
    sql.execute("CREATE TABLE orders (id int, note text)")
    runner.settings = Settings(lock_timeout_ms=50, step_budget_s=0.2)
    change = Change(revision="a1", pattern=Custom("orders", "own", at_expand=[CHECK]))
    with psycopg.connect(database) as reader:
        reader.execute("SELECT * FROM orders")
        with pytest.raises(LockBudgetError, match="'own_1'"):
            runner.expand(change)
    found = sql.execute("SELECT count(*) FROM pg_constraint WHERE conname = 'k'")
    assert found.fetchone() == (0,)


# -- messages ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], f"there is no statement.{NOTHING}give one."),
        (
            [Sql("SELECT 1")],
            "the statement 'SELECT 1' needs a reverse, or a reason why it has none."
            f'{NOTHING}write reverse="…", or no_reverse="why".',
        ),
        (
            [Sql("SELECT 1", reverse="SELECT 2", no_reverse="why")],
            "the statement 'SELECT 1' needs a reverse, or a reason why it has none."
            f'{NOTHING}write reverse="…", or no_reverse="why".',
        ),
        (
            [Sql("SELECT 1", reverse="SELECT 2", alone=True)],
            "the statement 'SELECT 1' stands alone, and does not tell whether it is"
            f' done.{NOTHING}write done="SELECT EXISTS (…)".',
        ),
        (
            [Sql("SELECT 1; commit work", reverse="SELECT 2")],
            "'SELECT 1; commit work' says COMMIT. A step is a transaction with its"
            " record, its locks and their timeouts: what stands behind would be in"
            " none, wait for locks without end, and run twice after a crash."
            f"{NOTHING}leave it out; write one Sql for each transaction.",
        ),
        (
            [replace(BUILD, done="SELECT to_regclass('by_id') IS NOT NULL")],
            "the statement 'CREATE INDEX CONCURRENTLY by_id ON orders (id)' builds an"
            " index: one that was cut off leaves an invalid index, which its `done`"
            f" takes for a whole one.{NOTHING}use CreateIndex, which looks; or let"
            " `done` ask pg_index for indisvalid, and drop an invalid one by hand.",
        ),
        (
            [Sql("SELECT 1", reverse="SELECT 2", lock="strong")],
            "the statement 'SELECT 1' names a lock that there is not, 'strong'."
            f"{NOTHING}take one of these: none, ACCESS SHARE, ROW SHARE, ROW EXCLUSIVE,"
            " SHARE UPDATE EXCLUSIVE, SHARE, SHARE ROW EXCLUSIVE, EXCLUSIVE, ACCESS"
            " EXCLUSIVE.",
        ),
    ],
)
def test_message(given: list[Sql], message: str) -> None:
    """A statement that does not say enough is refused, with what to write."""
    with pytest.raises(Refused) as caught:
        Custom("orders", "own", at_retire=given).check(FACTS)
    assert str(caught.value) == f'run "own" on table "orders": {message}'


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("BEGIN; SELECT 1; COMMIT", "BEGIN"),
        ("SELECT 1;\n rollback", "ROLLBACK"),
        ("SELECT 1; END", "END"),
        ("/* x */ start  transaction", "START  TRANSACTION"),
        ("SAVEPOINT a; ROLLBACK TO a; ROLLBACK WORK TO SAVEPOINT a", None),
        (
            "DO $x$ BEGIN COMMIT; END $x$; SELECT '; COMMIT', \"; COMMIT\" -- ; COMMIT",
            None,
        ),
        ("SELECT E'\\'; COMMIT'", None),
        ("SELECT date'\\'; COMMIT; SELECT '", "COMMIT"),
        ("/* a /* b */ ; COMMIT; */ SELECT 1", None),
        ("/* a /* b */ c */ COMMIT", "COMMIT"),
        ("SELECT 1 /* a /* b */ ; COMMIT", None),
        ("SELECT a$b$ FROM t; COMMIT; SELECT 1 AS b$", "COMMIT"),
        ("CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END", None),
    ],
)
def test_control_of_transactions(text: str, word: str | None) -> None:
    """It is known from what stands in strings, bodies and comments."""
    pattern = Custom("orders", "own", at_expand=[Sql(text, no_reverse="why")])
    if word is None:
        pattern.check(FACTS)
        return
    with pytest.raises(Refused, match=rf"says {word}\."):
        pattern.check(FACTS)


@pytest.mark.parametrize(
    ("done", "message"),
    [
        (
            "SELECT 'missing'::regclass IS NOT NULL",
            'cannot be asked: relation "missing" does not exist.',
        ),
        ("SELECT NULL::bool", "answers NULL."),
    ],
)
def test_message_about_done(
    done: str, message: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """The question is asked before anything is changed."""
    sql.execute("CREATE TABLE orders (id int)")
    given = Sql("SELECT 1", reverse="SELECT 2", done=done)
    pattern = Custom("orders", "own", at_drop=[given])
    with pytest.raises(Refused) as caught:
        runner.expand(Change(revision="a1", pattern=pattern))

    assert str(caught.value) == (
        f'run "own" on table "orders": {done!r} {message}'
        f"{NOTHING}let it answer true or false, also before its step."
    )


def test_what_is_not_done_afterwards_is_told(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """A statement that did nothing is not entered as done, though it succeeded."""
    sql.execute("CREATE TABLE orders (id int); INSERT INTO orders VALUES (1), (1)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        sql.execute("CREATE UNIQUE INDEX CONCURRENTLY by_id ON orders (id)")
    build = "CREATE INDEX CONCURRENTLY IF NOT EXISTS by_id ON orders (id)"
    pattern = Custom("orders", "own", at_expand=[replace(BUILD, statement=build)])
    change = Change(revision="a1", pattern=pattern)
    with pytest.raises(Failed, match="is not done by its own question: SELECT EXISTS"):
        runner.expand(change)
    sql.execute("DROP INDEX by_id")
    assert runner.expand(change) is State.VERIFIED


def test_message_about_a_drop_without_a_reverse() -> None:
    """What the drop destroyed cannot be made again."""
    with pytest.raises(Refused) as caught:
        PATTERN.rebuild(FACTS)
    assert str(caught.value) == (
        'run "own" on table "orders": a statement of its drop has no reverse.'
        f"{NOTHING}write a new change."
    )


def test_notice() -> None:
    """A reviewer reads what nobody has tried."""
    (notice,) = Custom("orders", "own", at_expand=[CHECK]).check(FACTS)
    assert notice.text == (
        "The statements are yours: nothing but their `done` was tried out."
    )
