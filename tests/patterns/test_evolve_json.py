"""EvolveJson: its text, documents there and back, consumers, locks and messages."""

import json
from dataclasses import replace

import psycopg
import pytest
from locks import holding

from migrator.change import Change
from migrator.errors import LockBudgetError, Refused
from migrator.facts import Column, Facts, Index, IndexColumn, Table
from migrator.names import TableName
from migrator.patterns import EvolveJson
from migrator.plan import ChunkedUpdate, Phase, State, Transaction
from migrator.runner import Runner

EVOLVE = EvolveJson(
    "events",
    "payload",
    "payload_2",
    rename={"name": "full_name"},
    add={"currency": "'EUR'", "version": "2"},
    remove={"version": "1", "legacy": "true"},
)
CHANGE = Change(revision="j1", pattern=EVOLVE)
OLD = {"name": "Ada", "version": 1, "legacy": True, "own": {"a": [1.50, None]}}
NEW = {"full_name": "Ada", "version": 2, "currency": "EUR", "own": {"a": [1.50, None]}}
NOTHING = "\nNothing was changed.\nNext: "


@pytest.fixture(autouse=True)
def _events(sql: psycopg.Connection) -> None:
    sql.execute(
        "CREATE TABLE events (id int PRIMARY KEY, n int, payload jsonb NOT NULL);"
        "CREATE INDEX by_payload ON events USING gin (payload jsonb_path_ops)"
    )
    put(sql, 1, OLD)


def put(
    sql: psycopg.Connection, id: int, document: object, column: str = "payload"
) -> None:
    """Write a document as a release does that knows one column."""
    sql.execute(
        f"INSERT INTO events (id, {column}) VALUES (%s, %s) ON CONFLICT (id)"
        f" DO UPDATE SET {column} = excluded.{column}".encode(),
        [id, json.dumps(document)],
    )


def got(sql: psycopg.Connection, id: int, column: str = "payload") -> object:
    """Return a document as a release finds it."""
    row = sql.execute(
        f"SELECT {column} FROM events WHERE id = %s".encode(), [id]
    ).fetchone()
    assert row is not None
    return row[0]


def verified(runner: Runner) -> None:
    """Carry the change to verified."""
    runner.expand(CHANGE)
    runner.backfill("j1")
    assert runner.verify("j1") is State.VERIFIED


# -- text --------------------------------------------------------------------


def test_text_with_hostile_names() -> None:
    """Names and keys are quoted, and nothing is looked up in a search path."""
    given = Facts(
        server_version=180000,
        tag="0123456789",
        table=Table(
            name=TableName('my "sch', "or%der"),
            oid=1,
            columns=(Column(name='a "b', type="jsonb"),),
        ),
    )
    pattern = EvolveJson(
        "or%der", 'a "b', ":x é", rename={"it's": "%s"}, schema='my "sch'
    )
    (fill,) = pattern.backfill(given)
    assert isinstance(fill.work, ChunkedUpdate)
    document = '"a ""b"::pg_catalog.jsonb'
    assert fill.work.statement.startswith(
        'UPDATE "my ""sch"."or%der" SET ":x é" = ('
        f"CASE WHEN pg_catalog.jsonb_typeof({document}) = 'object'"
        f" THEN ({document} OPERATOR(pg_catalog.-) ARRAY['it''s']::text[])"
        " OPERATOR(pg_catalog.||)"
        f" CASE WHEN ({document} OPERATOR(pg_catalog.->) 'it''s') IS NOT NULL"
        " THEN pg_catalog.jsonb_build_object('%s',"
        f" ({document} OPERATOR(pg_catalog.->) 'it''s')) ELSE '{{}}' END"
        f" ELSE {document} END) WHERE ctid >= "
    )


# -- life cycle --------------------------------------------------------------


def test_life_cycle(runner: Runner, sql: psycopg.Connection) -> None:
    """Each release finds its own shape at every stop, and keys of neither stay."""
    put(sql, 2, [OLD])
    put(sql, 3, "name")
    verified(runner)
    assert got(sql, 1, "payload_2") == NEW
    # The new release's own key outlives what the old one writes.
    put(sql, 1, {**NEW, "currency": "CHF", "more": 1}, "payload_2")
    assert got(sql, 1) == {**OLD, "more": 1}
    put(sql, 1, {**OLD, "name": "Eva"})
    assert got(sql, 1, "payload_2") == {**NEW, "full_name": "Eva", "currency": "CHF"}
    put(sql, 4, OLD)
    put(sql, 5, NEW, "payload_2")
    assert (got(sql, 4, "payload_2"), got(sql, 5)) == (NEW, OLD)
    # Nothing to be moved in an array or a scalar.
    assert (got(sql, 2, "payload_2"), got(sql, 3, "payload_2")) == ([OLD], "name")
    runner.rollback("j1")
    put(sql, 4, {**OLD, "name": "Bo"})
    verified(runner)
    assert got(sql, 4, "payload_2") == {**NEW, "full_name": "Bo"}
    runner.retire("j1", old_release_gone="test")
    put(sql, 4, {**NEW, "full_name": "Cy"}, "payload_2")
    put(sql, 6, {"else": 1}, "payload_2")
    assert runner.rollback("j1") is State.VERIFIED
    assert got(sql, 4) == {**OLD, "name": "Cy"}
    assert got(sql, 6) == {"else": 1, "legacy": True, "version": 1}
    runner.retire("j1", old_release_gone="test")
    assert runner.drop("j1") is State.DROPPED
    index = sql.execute("SELECT pg_get_indexdef('by_payload'::regclass)").fetchone()
    assert index == (
        "CREATE INDEX by_payload ON public.events USING gin (payload_2 jsonb_path_ops)",
    )
    typed = replace(EVOLVE, old_type="jsonb")
    runner.rebuild(Change(revision="j1", pattern=typed))
    assert got(sql, 4) == {**OLD, "name": "Cy"}


def test_documents_of_json(runner: Runner, sql: psycopg.Connection) -> None:
    """A column of json goes over to jsonb; its text stays as long as it is in step."""
    sql.execute(
        "DROP INDEX by_payload; ALTER TABLE events ALTER payload TYPE json;"
        """UPDATE events SET payload = ' {"name" :1, "version":1,"legacy":true}'"""
    )
    verified(runner)
    sql.execute("UPDATE events SET n = 1")
    text = sql.execute("SELECT payload::text, payload_2::text FROM events").fetchone()
    assert text == (
        ' {"name" :1, "version":1,"legacy":true}',
        '{"version": 2, "currency": "EUR", "full_name": 1}',
    )
    put(sql, 1, NEW, "payload_2")
    assert got(sql, 1) == OLD


def test_what_only_looks_different_is_told(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """A number's scale, for which jsonb has no word; and what jsonb does not keep."""
    sql.execute("""UPDATE events SET payload = '{"n": 1.50, "own": 1}'""")
    whole = EvolveJson(
        "events",
        "payload",
        "payload_2",
        up="jsonb_set(payload, '{n}', to_jsonb((payload ->> 'n')::float))",
        down="payload_2",
    )
    with pytest.raises(Refused, match=r'1 of 1 rows of a sample, in the keys "n"\.'):
        runner.plan(Change(revision="j1", pattern=whole))
    same = Change(revision="j1", pattern=replace(whole, up="payload"))
    keeps = "jsonb keeps the last value of a key"
    assert not any(keeps in n.text for n in runner.plan(same).notices)
    sql.execute("DROP INDEX by_payload; ALTER TABLE events ALTER payload TYPE json")
    assert any(keeps in n.text for n in runner.plan(same).notices)


def test_both_consumers_of_an_outbox(runner: Runner, sql: psycopg.Connection) -> None:
    """Whoever takes a message finds its own shape, and each is taken once."""
    sql.execute("ALTER TABLE events ALTER id ADD GENERATED ALWAYS AS IDENTITY")
    sql.execute("TRUNCATE events RESTART IDENTITY")
    verified(runner)
    for release in ("payload", "payload_2"):
        for _ in range(2):
            sql.execute(
                f"INSERT INTO events ({release}) VALUES (%s)".encode(),
                [json.dumps(OLD if release == "payload" else NEW)],
            )
    taken: list[object] = []
    for release in ("payload", "payload_2", "payload", "payload_2"):
        taken += sql.execute(
            "DELETE FROM events WHERE id = (SELECT id FROM events ORDER BY id"
            f" FOR UPDATE SKIP LOCKED LIMIT 1) RETURNING id, {release}".encode()
        ).fetchall()
    assert taken == [(1, OLD), (2, NEW), (3, OLD), (4, NEW)]


def test_an_index_by_an_expression_stays_with_the_old_column(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """It serves the old release, is told of, and goes at the drop."""
    sql.execute("CREATE INDEX by_name ON events ((payload ->> 'name'))")
    assert any(
        'Index "by_name" reads the documents by an expression' in n.text
        for n in runner.plan(CHANGE).notices
    )
    verified(runner)
    runner.retire("j1", old_release_gone="test")
    runner.drop("j1")
    assert sql.execute("SELECT to_regclass('by_name')").fetchone() == (None,)


def test_a_partitioned_table(runner: Runner, sql: psycopg.Connection) -> None:
    """The sample is taken of all partitions, and each goes over."""
    sql.execute(
        "DROP TABLE events;"
        "CREATE TABLE events (id int, payload jsonb) PARTITION BY LIST (id);"
        "CREATE TABLE one PARTITION OF events FOR VALUES IN (1);"
        "CREATE TABLE rest PARTITION OF events DEFAULT"
    )
    sql.execute("INSERT INTO events VALUES (1, %s), (2, NULL)", [json.dumps(OLD)])
    sql.execute("""INSERT INTO events VALUES (3, '{"full_name": 1}')""")
    with pytest.raises(Refused, match='1 of 3 rows of a sample, in the keys "'):
        runner.expand(CHANGE)
    sql.execute("DELETE FROM events WHERE id = 3")
    verified(runner)
    assert (got(sql, 1, "payload_2"), got(sql, 2, "payload_2")) == (NEW, None)
    sql.execute("INSERT INTO rest (id, payload_2) VALUES (4, %s)", [json.dumps(NEW)])
    assert got(sql, 4) == OLD


def test_locks(runner: Runner, sql: psycopg.Connection, database: str) -> None:
    """Expand takes what it says, gives up within its budget and leaves nothing."""
    (expand,) = runner.plan(CHANGE).steps(Phase.EXPAND)
    assert isinstance(expand.work, Transaction)
    runner = replace(runner, settings=replace(runner.settings, step_budget_s=0.3))
    with (
        holding(database, "events", "ACCESS SHARE"),
        pytest.raises(LockBudgetError) as caught,
    ):
        runner.expand(CHANGE)
    assert str(caught.value).startswith(
        'Step \'add_new_side\' on table "public"."events" got no lock within 200 ms'
    )
    assert got(sql, 1, "to_jsonb(events)") == {"id": 1, "n": None, "payload": OLD}


# -- messages ----------------------------------------------------------------

TITLE = 'evolve the documents of column "payload" of table "events" into "payload_2"'
EITHER = (
    f"{TITLE}: it takes either keys or two expressions.{NOTHING}"
    "give rename=, add= and remove=, or both up= and down=."
)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            replace(EVOLVE, column="n"),
            'Column "n" of table "public"."events" is of type integer, which is neither'
            f" json nor jsonb.{NOTHING}use TransformColumn, which takes any type.",
        ),
        (EvolveJson("events", "payload", "payload_2"), EITHER),
        (EvolveJson("events", "payload", "payload_2", up="payload"), EITHER),
        (replace(EVOLVE, up="payload", down="payload_2"), EITHER),
        (
            replace(EVOLVE, remove={"name": "1"}),
            f'{TITLE}: the key "name" is named twice.{NOTHING}say once what becomes of'
            " it.",
        ),
        (
            replace(EVOLVE, add={"full_name": "1"}),
            f'{TITLE}: the key "full_name" is named twice.{NOTHING}say once what'
            " becomes of it.",
        ),
        (
            replace(EVOLVE, remove={"version": "1"}, rename={"own": "legacy"}),
            f"{TITLE}: documents do not come back as they were from the way there and"
            ' back, 1 of 2 rows of a sample, in the keys "legacy".'
            f"{NOTHING}let `down` give back all that `up` takes; where the loss is"
            " meant, use TransformColumn, which keeps what either side wrote last.",
        ),
        (
            EvolveJson(
                "events",
                "payload",
                "payload_2",
                up="payload -> 'own'",
                down="payload_2",
            ),
            "The server refuses an expression of the pattern (`down`): null value in"
            ' column "payload" of relation "events" violates not-null constraint.'
            f"{NOTHING}correct it in the revision: a value does not suit it.",
        ),
    ],
    ids=["type", "none", "half", "both", "old", "new", "lost", "null"],
)
def test_messages(
    runner: Runner, sql: psycopg.Connection, pattern: EvolveJson, message: str
) -> None:
    """What cannot go there and back is refused before anything is changed."""
    put(sql, 2, {"version": 1})
    with pytest.raises(Refused) as caught:
        runner.expand(Change(revision="j1", pattern=pattern))
    assert str(caught.value) == message
    assert runner.changes() == []


def test_message_about_a_unique_index_by_an_expression() -> None:
    """Retire lifts it where the server spells it for the way back; else it is named."""
    index = Index(
        name="one",
        method="btree",
        keys=(IndexColumn(name=""),),
        unique=True,
        plain=False,
        columns=("payload",),
    )
    table = Table(
        name=TableName("public", "events"),
        oid=1,
        columns=(Column(name="payload", type="jsonb", unique_indexes=("one",)),),
        indexes=(index,),
    )
    with pytest.raises(Refused, match='is under "one", which values made from'):
        EVOLVE.check(Facts(server_version=180000, tag="0123456789", table=table))
