"""DropTable: its text, its life, its locks and its messages."""

from dataclasses import replace

import psycopg
import pytest

from migrator.change import Change
from migrator.errors import LockBudgetError, Refused
from migrator.facts import Facts, ForeignKey, Table
from migrator.names import TableName
from migrator.patterns import DropTable
from migrator.plan import State, Transaction
from migrator.runner import Runner
from migrator.settings import Settings

OLD = TableName("public", "old")
TABLE = Table(name=OLD, oid=1, columns=())
DROP = DropTable("old")
NOTHING = "\nNothing was changed.\nNext: "


def facts(table: Table = TABLE) -> Facts:
    """Return facts about a table."""
    return Facts(server_version=180000, tag="0123456789", table=table)


# -- text --------------------------------------------------------------------


@pytest.mark.parametrize("retired", [False, True])
def test_text_with_hostile_names(*, retired: bool) -> None:
    """The text is the same whether the facts are of before or after retire."""
    name, hidden = 'or "der %s:x', '_migrator_retired_or "der %s:x_0123456789'
    now = TableName("my sch", hidden if retired else name)
    key = ForeignKey(
        name="k", table=now, columns=(), to=TableName("p", "q"), to_columns=()
    )
    given = facts(Table(name=now, oid=1, columns=(), foreign_keys=(key,)))
    pattern = DropTable(name)
    table = '"my sch"."or ""der %s:x"'
    gone = '"my sch"."_migrator_retired_or ""der %s:x_0123456789"'
    lock = "LOCK TABLE {} IN ACCESS EXCLUSIVE MODE"
    assert pattern.expand(given) == ()
    (step,) = pattern.retire(given)
    (back,) = step.reverse
    assert isinstance(step.work, Transaction)
    assert isinstance(back, Transaction)
    assert step.work.statements == (
        lock.format(table),
        f'ALTER TABLE {table} RENAME TO "_migrator_retired_or ""der %s:x_0123456789"',
    )
    assert back.statements == (
        lock.format(gone),
        f'ALTER TABLE {gone} RENAME TO "or ""der %s:x"',
    )
    first, last = pattern.drop(given)
    assert isinstance(first.work, Transaction)
    assert isinstance(last.work, Transaction)
    assert first.work.statements == (
        lock.format(f'"p"."q", {gone}'),
        f'ALTER TABLE {gone} DROP CONSTRAINT "k"',
    )
    assert last.work.statements == (lock.format(gone), f"DROP TABLE {gone}")


# -- life cycle --------------------------------------------------------------


@pytest.mark.parametrize("parts", ["", " PARTITION BY RANGE (id)"])
def test_life_cycle(parts: str, runner: Runner, sql: psycopg.Connection) -> None:
    """The old release uses it up to retire; then the name is free."""
    sql.execute("CREATE TABLE parent (id int PRIMARY KEY)")
    sql.execute("INSERT INTO parent VALUES (1)")
    columns = "id int REFERENCES parent, up int, made serial"
    sql.execute(f"CREATE TABLE old ({columns}){parts}".encode())
    if parts:
        sql.execute("CREATE TABLE part PARTITION OF old DEFAULT")
    change = Change(revision="a1", pattern=replace(DROP, assured="for the test"))

    def old() -> None:
        sql.execute("INSERT INTO old VALUES (1)")

    def new() -> None:
        sql.execute("UPDATE parent SET id = id")

    assert runner.expand(change) is State.VERIFIED
    old()
    new()
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    new()
    with pytest.raises(psycopg.errors.UndefinedTable):
        old()
    assert runner.rollback("a1") is State.VERIFIED
    old()
    new()
    assert sql.execute("SELECT count(*) FROM old").fetchone() == (2,)
    assert runner.rollback("a1") is State.PLANNED
    assert runner.expand(change) is State.VERIFIED
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    sql.execute("CREATE TABLE old (other int)")
    with pytest.raises(Refused) as caught:
        runner.rollback("a1")
    assert 'the name "public"."old" was given to another relation' in str(caught.value)
    assert runner.drop("a1") is State.DROPPED
    new()
    left = "SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'p')"
    mine = f"{left} AND relnamespace = 'public'::regnamespace ORDER BY 1"
    assert sql.execute(mine.encode()).fetchall() == [("old",), ("parent",)]
    names = [s.step.name for s in runner.steps("a1")]
    assert names == ["retire_table", "drop_foreign_key_1", "drop_table"]


def test_life_where_no_other_release_runs(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Rebuild makes the table that the pattern was given."""
    sql.execute("CREATE TABLE old (id int REFERENCES old, PRIMARY KEY (id))")
    pattern = DropTable("old", create="CREATE TABLE old (note text DEFAULT 'a%b')")
    change = Change(revision="a1", pattern=pattern)
    assert runner.complete(change) is State.DROPPED
    runner.rebuild(change)
    row = sql.execute("INSERT INTO old DEFAULT VALUES RETURNING note").fetchone()
    assert row == ("a%b",)
    assert runner.complete(change) is State.DROPPED


# -- locks -------------------------------------------------------------------


def test_a_request_on_the_parent_makes_its_step_give_up(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """The drop of a foreign key waits for the other table no longer than it may."""
    sql.execute(
        "CREATE TABLE parent (id int PRIMARY KEY);"
        " CREATE TABLE old (id int REFERENCES parent)"
    )
    change = Change(revision="a1", pattern=replace(DROP, assured="for the test"))
    runner.expand(change)
    runner.retire("a1", old_release_gone="test")
    runner.settings = Settings(lock_timeout_ms=50, step_budget_s=0.2, hold_s=0)
    with psycopg.connect(database) as reader:
        reader.execute("SELECT * FROM parent")
        with pytest.raises(LockBudgetError, match="drop_foreign_key_1"):
            runner.drop("a1")
    left = "SELECT count(*) FROM pg_constraint WHERE confrelid = 'parent'::regclass"
    assert sql.execute(left.encode()).fetchone() == (1,)
    assert runner.drop("a1") is State.DROPPED


# -- messages ----------------------------------------------------------------

OTHER = ForeignKey(
    name="k",
    table=TableName("public", "orders"),
    columns=("a",),
    to=OLD,
    to_columns=("b",),
)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            replace(TABLE, dependents=("view v", "function f(old)")),
            'Table "public"."old" is used by view v; function f(old).'
            f"{NOTHING}drop what depends on it first, or make it again without it.",
        ),
        (
            replace(TABLE, foreign_keys=(OTHER,)),
            'Table "public"."old" is referred to by foreign key "k" of table'
            f' "public"."orders".{NOTHING}drop that foreign key first, by a change of'
            " its own: it locks both tables.",
        ),
        (
            replace(
                TABLE,
                foreign_keys=(replace(OTHER, table=OLD, to=TableName("public", "p")),),
            ),
            'drop table "old": Foreign key "k" to table "public"."p" stays in force'
            " until the drop: rows that the table refers to are not deleted past it."
            f'{NOTHING}look into it, then write assured="why it is safe here" into the'
            " pattern.",
        ),
    ],
)
def test_message(table: Table, message: str) -> None:
    """What would not go with the table is named, with a way out."""
    with pytest.raises(Refused) as caught:
        DROP.check(facts(table))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("also", "said"),
    [
        ("CREATE VIEW v AS SELECT 1 FROM old", "view v"),
        ("CREATE VIEW v AS SELECT id FROM old", "view v"),
        ("CREATE TABLE other (o old)", "column o of table other"),
        ("CREATE TABLE other (o old[])", "column o of table other"),
        (
            "CREATE FUNCTION f(old) RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "function f",
        ),
        ("CREATE TABLE other (n int DEFAULT nextval('old_made_seq'))", "default value"),
        (
            "ALTER EXTENSION plpgsql ADD TABLE old",
            'Table "public"."old" belongs to extension "plpgsql", and can only be'
            " dropped with that.\nNothing was changed.\nNext: ALTER EXTENSION"
            ' "plpgsql" DROP TABLE "public"."old", where it is not the extension\'s'
            " own work.",
        ),
    ],
)
def test_what_uses_the_table_is_read(
    also: str, said: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """Each is refused; what hangs on the table itself is not."""
    sql.execute(
        "CREATE TABLE old (id int PRIMARY KEY CHECK (id > 0), made serial,"
        " twice int GENERATED ALWAYS AS (id * 2) STORED);"
        " CREATE INDEX ON old ((id + 1)) WHERE id > 7;"
        " CREATE STATISTICS s ON id, made FROM old;"
        " CREATE POLICY p ON old USING (id > 1);"
        " CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN RETURN NEW; END';"
        " CREATE TRIGGER t BEFORE UPDATE OF id ON old FOR EACH ROW"
        " WHEN (NEW.id > 1) EXECUTE FUNCTION t()"
    )
    assert runner.expand(Change(revision="a1", pattern=DROP)) is State.VERIFIED
    runner.rollback("a1")
    sql.execute(also.encode())
    with pytest.raises(Refused, match=said):
        runner.expand(Change(revision="a1", pattern=DROP))


def test_message_without_create() -> None:
    """A downgrade after the drop has to know the shape."""
    with pytest.raises(Refused) as caught:
        DROP.rebuild(facts())
    assert str(caught.value) == (
        'drop table "old": the shape of the dropped table is not known.'
        f'{NOTHING}write create="CREATE TABLE …" into the pattern.'
    )


def test_notice() -> None:
    """A reviewer reads which names are not free."""
    (notice,) = DROP.check(facts())
    assert notice.text == (
        "Names of its indexes, sequences and partitions stay taken until the drop."
    )
