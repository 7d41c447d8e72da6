"""CreateTable: its text, its life, its locks and its messages."""

from dataclasses import replace

import psycopg
import pytest
from locks import holding, taken

from migrator.change import Change
from migrator.errors import Held, LockBudgetError, Refused
from migrator.facts import Facts, Table
from migrator.names import TableName
from migrator.patterns import CreateTable, RenameTable
from migrator.plan import Lock, State, Transaction
from migrator.runner import Runner
from migrator.settings import Settings

AUDIT = TableName("public", "audit")
CREATE = CreateTable(
    "audit", "id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text"
)
OWNED = CreateTable(
    "audit",
    "id int PRIMARY KEY, up int REFERENCES audit, by_user int REFERENCES users (id)",
    references=["users"],
    assured="users are not deleted",
)
NOTHING = "\nNothing was changed.\nNext: "


def facts(table: TableName = AUDIT, *others: str, taken: str = "") -> Facts:
    """Return facts about a table that is not there yet."""
    return Facts(
        server_version=180000,
        tag="0123456789",
        table=Table(name=table, oid=0, columns=()),
        others=tuple(
            Table(name=TableName("public", o), oid=1, columns=()) for o in others
        ),
        path=("app", "public"),
        relation_names=frozenset({taken} if taken else ()),
    )


# -- text --------------------------------------------------------------------


def test_text_with_hostile_names() -> None:
    """The text is kept as it is given; names of its own are quoted."""
    pattern = CreateTable(
        'or "der %s:x',
        "a text DEFAULT 'a%b:c'",
        options="WITH (fillfactor = 90)",
        references=['u "%s'],
        grants={'ro "le': ["SELECT", "INSERT"]},
    )
    given = facts(TableName("my sch", 'or "der %s:x'), 'u "%s')
    table = '"my sch"."or ""der %s:x"'
    (step,) = pattern.expand(given)
    assert isinstance(step.work, Transaction)
    assert step.work.statements == (
        'LOCK TABLE "public"."u ""%s" IN SHARE ROW EXCLUSIVE MODE',
        'SET LOCAL search_path = "my sch", "app", "public"',
        f"CREATE TABLE {table} (a text DEFAULT 'a%b:c') WITH (fillfactor = 90)",
        f'GRANT SELECT, INSERT ON {table} TO "ro ""le"',
    )
    (back,) = step.reverse
    assert isinstance(back, Transaction)
    assert back.statements[0] == f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"
    parked = back.statements[1].rpartition(" TO ")[2]
    assert parked.startswith('"_migrator_parked_')
    assert step.parked is not None
    assert step.parked.statements == (
        f'LOCK TABLE "public"."u ""%s", "my sch".{parked} IN ACCESS EXCLUSIVE MODE',
        f'DROP TABLE "my sch".{parked}',
    )
    name = parked.strip('"').replace('""', '"')
    again = replace(given, relation_names=frozenset({name}))
    (step,) = pattern.expand(again)
    assert isinstance(step.work, Transaction)
    assert step.work.statements == (
        f'LOCK TABLE "my sch".{parked} IN ACCESS EXCLUSIVE MODE',
        f'ALTER TABLE "my sch".{parked} RENAME TO "or ""der %s:x"',
    )


# -- life cycle --------------------------------------------------------------


def test_life_cycle(runner: Runner, sql: psycopg.Connection) -> None:
    """It comes, goes with its rows, comes back with them, and is dropped."""
    change = Change(revision="a1", pattern=CREATE)
    rows = "SELECT count(*) FROM audit"
    assert runner.expand(change) is State.VERIFIED
    assert runner.change("a1").finished
    sql.execute("INSERT INTO audit (note) VALUES ('a')")
    assert runner.rollback("a1", to=State.PLANNED) is State.PLANNED
    with pytest.raises(psycopg.errors.UndefinedTable):
        sql.execute(rows.encode())
    assert runner.expand(change) is State.VERIFIED
    assert sql.execute(rows.encode()).fetchone() == (1,)
    runner.rollback("a1", to=State.PLANNED)
    other = Change(revision="a1", pattern=replace(CREATE, definition="id int"))
    with pytest.raises(Refused) as caught:
        runner.expand(other)
    left = "SELECT relname::text FROM pg_class WHERE relname LIKE '%migrator_parked%'"
    (name,) = sql.execute(left.encode()).fetchone() or ("",)
    assert str(caught.value) == (
        f'create table "audit": a rollback parked it as "{name}", made by another'
        f" definition.{NOTHING}drop that one, or put the definition back as it was."
    )
    runner.settings = Settings(hold_s=60)
    with pytest.raises(Held, match="What the rollback of a1 parked is held until"):
        runner.drop_parked("a1")
    runner.settings = Settings(hold_s=0)
    assert runner.drop_parked("a1") == 1
    assert runner.expand(other) is State.VERIFIED
    sql.execute("INSERT INTO audit (id) VALUES (1)")


def test_life_with_foreign_keys(runner: Runner, sql: psycopg.Connection) -> None:
    """Those to itself and to others are the real ones; the parked table has them."""
    sql.execute(
        "CREATE SCHEMA app; CREATE TABLE app.users (id int PRIMARY KEY);"
        " INSERT INTO app.users VALUES (1), (2)"
    )
    name = (sql.execute("SELECT current_database()").fetchone() or ("",))[0]
    sql.execute(f"ALTER DATABASE {name} SET search_path = public, app".encode())
    change = Change(revision="a1", pattern=OWNED)
    assert runner.expand(change) is State.VERIFIED
    sql.execute("INSERT INTO public.audit VALUES (1, 1, 1)")
    for wrong in ("(2, 9, 1)", "(2, 1, 9)"):
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            sql.execute(f"INSERT INTO public.audit VALUES {wrong}".encode())
    runner.rollback("a1", to=State.PLANNED)
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        sql.execute("DELETE FROM app.users WHERE id = 1")
    assert runner.drop_parked("a1") == 1
    sql.execute("DELETE FROM app.users WHERE id = 1")


def test_what_it_refers_to_stays_meanwhile(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """A table that is on its way to another name is not referred to."""
    sql.execute("CREATE TABLE users (id int PRIMARY KEY)")
    runner.expand(Change(revision="a1", pattern=RenameTable("users", "people")))
    with pytest.raises(Held, match="touches what a1"):
        runner.expand(Change(revision="a2", pattern=OWNED))


# -- locks -------------------------------------------------------------------


def test_locks_are_those_claimed(runner: Runner, sql: psycopg.Connection) -> None:
    """Writers of the other table wait for it, readers do not."""
    sql.execute("CREATE TABLE users (id int PRIMARY KEY)")
    plan = runner.plan(Change(revision="a1", pattern=OWNED))
    (step,) = next(iter(plan.phases.values()))
    assert isinstance(step.work, Transaction)
    lock = taken(sql, step.work, "users")["users"]
    assert lock is step.work.lock is Lock.SHARE_ROW_EXCLUSIVE


def test_a_request_makes_it_give_up(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """It waits for the other table no longer than it may, and leaves nothing."""
    sql.execute("CREATE TABLE users (id int PRIMARY KEY)")
    runner.settings = Settings(lock_timeout_ms=50, step_budget_s=0.2)
    change = Change(revision="a1", pattern=OWNED)
    with (
        holding(database, "users", "ROW EXCLUSIVE"),
        pytest.raises(LockBudgetError, match='application "billing"'),
    ):
        runner.expand(change)
    there = "SELECT to_regclass('audit') IS NULL"
    assert sql.execute(there.encode()).fetchone() == (True,)
    assert runner.expand(change) is State.VERIFIED


# -- messages ----------------------------------------------------------------

SERVER = "correct it; a table that it refers to has to stand in `references`, and in"


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            CreateTable("users", "id int"),
            'Schema "public" has a relation "users" already.'
            f"{NOTHING}choose another name, or rename that one first.",
        ),
        (
            CreateTable("audit", "id nonsense"),
            'create table "audit": the server refuses it: type "nonsense" does not'
            f" exist.{NOTHING}{SERVER} the definition without its schema.",
        ),
        (
            CreateTable("audit", "id int REFERENCES users"),
            "constraints on temporary tables may reference only temporary tables",
        ),
        (
            CreateTable("audit", "id int", grants={"nobody here": ["SELECT"]}),
            'role "nobody here" does not exist',
        ),
        (
            CreateTable("audit", "id int", grants={"app": ["READ"]}),
            'create table "audit": the grants of role "app" are [\'READ\'].'
            f"{NOTHING}give a list of these: SELECT, INSERT, UPDATE, DELETE, TRUNCATE,"
            " REFERENCES, TRIGGER, ALL.",
        ),
        (
            CreateTable("audit", "a int", options="INHERITS (users)"),
            'create table "audit": it inherits from another table.'
            f"{NOTHING}use plain SQL.",
        ),
        (
            CreateTable("audit", "id int", references=["nope"]),
            'There is no table "nope" in the search path.',
        ),
        (
            replace(OWNED, assured=""),
            'create table "audit": From expand on, rows of the new release hold rows of'
            ' table "public"."users": a DELETE of the old release is refused, or takes'
            " them along, as the foreign key says. That goes for a parked table too."
            f'{NOTHING}look into it, then write assured="why it is safe here" into the'
            " pattern.",
        ),
        (CreateTable("n" * 64, "id int"), "has 64 bytes"),
    ],
)
def test_message(
    pattern: CreateTable, message: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """Each is refused before anything is changed, with the way out."""
    sql.execute("CREATE TABLE users (id int PRIMARY KEY)")
    with pytest.raises(Refused) as caught:
        runner.expand(Change(revision="a1", pattern=pattern))
    assert message in str(caught.value)
    made = "SELECT count(*) FROM pg_class WHERE relname IN ('audit', 'a')"
    assert sql.execute(made.encode()).fetchone() == (0,)
