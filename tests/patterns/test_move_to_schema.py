"""MoveToSchema: its text, its life, what goes along, its messages."""

from dataclasses import replace

import psycopg
import pytest

from migrator.change import Change
from migrator.errors import Refused
from migrator.facts import Column, Facts, Table
from migrator.names import TableName
from migrator.patterns import MoveToSchema
from migrator.plan import State, Transaction
from migrator.runner import Runner

OLD = TableName("public", "bills")
TABLE = Table(name=OLD, oid=1, columns=(Column(name="id", type="int"),))
MOVE = MoveToSchema("bills", "books")
CHANGE = Change(revision="a1", pattern=MOVE)
NOTHING = "\nNothing was changed.\nNext: "


def facts(table: Table = TABLE, **answers: bool) -> Facts:
    """Return facts about a table, and what the catalogue answered."""
    return Facts(server_version=180000, tag="0123456789", table=table, answers=answers)


@pytest.mark.parametrize("retired", [False, True])
def test_text_with_hostile_names(*, retired: bool) -> None:
    """The schema is another, the name stays; the text is the same after retire."""
    origin = TableName("my sch", 'or "der %s:x')
    now = replace(origin, schema='b "%') if retired else origin
    given = replace(facts(replace(TABLE, name=now)), origin=origin)
    old, new = '"my sch"."or ""der %s:x"', '"b ""%"."or ""der %s:x"'
    (step,) = MoveToSchema(origin.name, 'b "%').retire(given)
    (back,) = step.reverse
    assert isinstance(step.work, Transaction)
    assert isinstance(back, Transaction)
    for action, table, view, schema in (
        (step.work, old, new, '"b ""%"'),
        (back, new, old, '"my sch"'),
    ):
        assert action.statements == (
            f"LOCK TABLE {view}, {table} IN ACCESS EXCLUSIVE MODE",
            f"DROP VIEW {view}",
            f"ALTER TABLE {table} SET SCHEMA {schema}",
            f"CREATE VIEW {table} WITH (security_invoker = true) AS"
            f' SELECT "id" FROM {view}',
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO PUBLIC",
        )


SETUP = (
    "CREATE SCHEMA books; CREATE TABLE bills (id serial PRIMARY KEY, n int UNIQUE);"
    " CREATE TABLE lines (bill int REFERENCES bills);"
)


@pytest.mark.parametrize("back_from", [State.RETIRED, State.DROPPED])
def test_life_cycle(back_from: State, runner: Runner, sql: psycopg.Connection) -> None:
    """Both places hold the same rows; indexes and sequences go along, and back."""
    sql.execute(SETUP)
    number = 0

    def works(*schemas: str) -> None:
        nonlocal number
        for schema in schemas:
            number += 1
            sql.execute(f"SET search_path = {schema}".encode())
            sql.execute("INSERT INTO bills (n) VALUES (%s)", [number], prepare=True)
            row = sql.execute("SELECT max(id), count(*) FROM bills").fetchone()
            assert row == (number, number)
        sql.execute("INSERT INTO public.lines VALUES (%s)", [number])

    def stands() -> set[str]:
        rows = sql.execute(
            "SELECT relnamespace::regnamespace::text FROM pg_class WHERE relname IN"
            " ('bills_pkey', 'bills_n_key', 'bills_id_seq') OR relname = 'bills'"
            " AND relkind = 'r'"
        ).fetchall()
        assert len(rows) == 4
        return {schema for (schema,) in rows}

    works("public")
    assert runner.expand(CHANGE) is State.VERIFIED
    works("books", "public")
    assert stands() == {"public"}
    runner.retire("a1", old_release_gone="test")
    works("books", "public")
    assert stands() == {"books"}
    if back_from is State.DROPPED:
        assert runner.drop("a1") is State.DROPPED
        works("books")
    assert runner.rollback("a1", to=State.PLANNED) is State.PLANNED
    works("public")
    assert stands() == {"public"}
    views = "SELECT count(*) FROM pg_views WHERE viewname = 'bills'"
    assert sql.execute(views.encode()).fetchone() == (0,)


SEEN = 'look into it, then write assured="why it is safe here" into the pattern.'


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            "DROP SCHEMA books",
            'move table "bills" to schema "books": there is no schema "books" in which'
            f" this role may create.{NOTHING}create it, or grant CREATE on it.",
        ),
        (
            "CREATE TABLE books.bills_n_key (id int)",
            'move table "bills" to schema "books": schema "books" has a relation or'
            ' type of the name "books"."bills", or of an index or sequence that goes'
            f" along.{NOTHING}choose another name, or rename that one first.",
        ),
        ("CREATE SEQUENCE books.bills_id_seq", "or of an index or sequence"),
        ("CREATE DOMAIN books.bills AS int", "or of an index or sequence"),
        (
            "GRANT SELECT ON bills TO pg_monitor",
            'move table "bills" to schema "books": A role that has rights on the table'
            ' may not use schema "books": there it does not find the table (GRANT USAGE'
            f" ON SCHEMA).{NOTHING}{SEEN}",
        ),
        ("GRANT SELECT ON bills TO PUBLIC", "A role that has rights on the table"),
    ],
)
def test_message(
    made: str, message: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """What stands in the way is named, and the way out."""
    sql.execute(SETUP)
    sql.execute(made.encode())
    with pytest.raises(Refused) as caught:
        runner.expand(CHANGE)
    assert message in str(caught.value)


def test_a_role_that_may_use_the_schema_is_none_to_tell(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """A grant to everybody counts for each role."""
    sql.execute(SETUP)
    sql.execute(
        "GRANT SELECT ON bills TO pg_monitor, PUBLIC;"
        " GRANT USAGE ON SCHEMA books TO PUBLIC"
    )
    assert runner.expand(CHANGE) is State.VERIFIED


def test_notices() -> None:
    """A reviewer reads what goes along, and what does not."""
    table = replace(
        TABLE, kind="p", columns=(Column(name="id", type="int", identity=True),)
    )
    texts = [n.text for n in MOVE.check(facts(table))]
    assert texts[2:] == [
        "Sequences of the table go along at retire: a release that names one, as in"
        " nextval('…'), has to find it in the other schema from then on.",
        "Partitions stay in the schema that they are in.",
    ]
