"""RenameEnumValue: its text, its life, its locks and its messages."""

from collections.abc import Callable
from dataclasses import replace

import psycopg
import pytest
from locks import holding, taken

from migrator.change import Change
from migrator.errors import Failed, LockBudgetError, Refused
from migrator.facts import Column, Facts, Table
from migrator.names import TableName
from migrator.patterns import RenameEnumValue
from migrator.plan import Autocommit, Lock, Phase, State, Transaction
from migrator.runner import Runner

RENAME = RenameEnumValue("orders", "state", "payed", "paid")
CHANGE = Change(revision="e1", pattern=RENAME)
TRIGGER = f"zzz_migrator_{CHANGE.tag(TableName('public', 'orders'))}"
NOTHING = "\nNothing was changed.\nNext: "
TITLE = 'rename value "payed" of the enum of column "state" of table "orders" to "paid"'


@pytest.fixture(autouse=True)
def _orders(sql: psycopg.Connection) -> None:
    sql.execute(
        "CREATE TYPE state AS ENUM ('new', 'payed', 'lost');"
        "CREATE TABLE orders (id int PRIMARY KEY, state state DEFAULT 'payed',"
        " CHECK (state <> 'lost'));"
        "CREATE INDEX by_state ON orders (id) WHERE state = 'payed';"
        "INSERT INTO orders VALUES (1, 'new'), (2, 'payed'), (3, NULL)"
    )


def states(sql: psycopg.Connection) -> list[object]:
    """Return the word of each row, in the order of values and keys."""
    rows = sql.execute("SELECT state FROM orders ORDER BY state, id").fetchall()
    return [state for (state,) in rows]


def verified(runner: Runner, change: Change = CHANGE) -> None:
    """Carry the change to verified."""
    runner.expand(change)
    assert runner.verify("e1") is State.VERIFIED


# -- text --------------------------------------------------------------------


def test_text_with_hostile_names() -> None:
    """Names and values are quoted, the type stands as the catalogue spells it."""
    column = Column(name='st "ate', type='"my sch"."%s"', values=("o'k",))
    table = Table(name=TableName('my "sch', "or%der"), oid=1, columns=(column,))
    facts = Facts(server_version=180000, tag="0123456789", table=table)
    pattern = RenameEnumValue("or%der", 'st "ate', "o'k", "%s:x")
    translate, add = pattern.expand(facts)
    assert isinstance(translate.work, Transaction)
    name = '"my ""sch"."or%der"'
    lock, function, trigger, always = translate.work.statements
    assert lock == f"LOCK TABLE {name} IN SHARE ROW EXCLUSIVE MODE"
    assert "NEW.\"st \"\"ate\" := ''o''''k'';" in function
    assert trigger == (
        f'CREATE TRIGGER "zzz_migrator_0123456789" BEFORE INSERT OR UPDATE ON {name}'
        ' FOR EACH ROW WHEN (NEW."st ""ate"::pg_catalog.text OPERATOR(pg_catalog.=)'
        """ '%s:x') EXECUTE FUNCTION "migrator"."mirror_0123456789"()"""
    )
    assert always == (
        f'ALTER TABLE {name} ENABLE ALWAYS TRIGGER "zzz_migrator_0123456789"'
    )
    assert isinstance(add.work, Autocommit)
    kind = '"my sch"."%s"'
    assert add.work.statement == f"ALTER TYPE {kind} ADD VALUE '%s:x' AFTER 'o''k'"
    (exchange,) = pattern.retire(facts)
    assert isinstance(exchange.work, Transaction)
    spare = "_migrator_spare_o''k_0123456789"
    assert exchange.work.statements[3:6] == (
        f"ALTER TYPE {kind} RENAME VALUE '%s:x' TO '{spare}'",
        f"ALTER TYPE {kind} RENAME VALUE 'o''k' TO '%s:x'",
        f"ALTER TYPE {kind} RENAME VALUE '{spare}' TO 'o''k'",
    )


# -- life cycle --------------------------------------------------------------


def test_life_cycle(runner: Runner, sql: psycopg.Connection, database: str) -> None:
    """Either word is taken; rows hold one of them, and none is written at retire."""
    verified(runner)
    with psycopg.connect(database, autocommit=True) as session:

        def ask(name: str, text: str) -> Callable[[], object]:
            session.execute(f"PREPARE {name} AS {text}".encode())
            return lambda: session.execute(f"EXECUTE {name}".encode()).rowcount

        found = ask("find", "SELECT FROM orders WHERE state = 'paid'")
        write = ask("put", "UPDATE orders SET state = 'paid' WHERE id = 2")
        assert (found(), write(), found()) == (0, 1, 0)
        sql.execute("INSERT INTO orders VALUES (4, 'payed'), (5, 'paid')")
        assert states(sql) == ["new", "payed", "payed", "payed", None]
        before = sql.execute("SELECT ctid FROM orders").fetchall()
        runner.retire("e1", old_release_gone="test")
        assert sql.execute("SELECT ctid FROM orders").fetchall() == before
        # A session that planned its statements before finds and writes the same.
        assert (found(), write(), found()) == (3, 1, 3)
    sql.execute("INSERT INTO orders VALUES (6, 'payed'), (7, 'paid')")
    sql.execute("INSERT INTO orders VALUES (8)")
    assert states(sql) == ["new", *["paid"] * 6, None]
    assert sql.execute("SELECT pg_get_indexdef('by_state'::regclass)").fetchone() == (
        "CREATE INDEX by_state ON public.orders USING btree (id)"
        " WHERE (state = 'paid'::state)",
    )
    assert runner.rollback("e1") is State.VERIFIED
    sql.execute("INSERT INTO orders VALUES (9, 'payed'), (10, 'paid')")
    assert states(sql) == ["new", *["payed"] * 8, None]
    runner.retire("e1", old_release_gone="test")
    assert runner.drop("e1") is State.DROPPED
    assert states(sql) == ["new", *["paid"] * 8, None]
    # The old word is there, and means another value.
    sql.execute("INSERT INTO orders VALUES (11, 'payed')")
    assert states(sql)[-2:] == ["payed", None]
    runner.rebuild(CHANGE)
    assert states(sql) == ["new", *["payed"] * 9, None]


def test_a_unique_index_for_rows_with_the_word(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """What ON CONFLICT says finds it under one word alone: the plan asks for a word."""
    told = [n.text for n in runner.plan(CHANGE).notices]
    assert any('Index "by_state" is for rows WHERE' in text for text in told)
    sql.execute("ALTER TABLE orders ADD COLUMN cust int DEFAULT 1")
    sql.execute("CREATE UNIQUE INDEX once ON orders (cust) WHERE state = 'payed'")
    with pytest.raises(Refused, match='Unique index "once" is for rows WHERE'):
        runner.plan(CHANGE)
    runner.expand(replace(CHANGE, pattern=replace(RENAME, assured="tried")))
    once = "INSERT INTO orders VALUES (9, 'paid', 1) ON CONFLICT"
    with pytest.raises(psycopg.errors.InvalidColumnReference):
        sql.execute(f"{once} (cust) WHERE state = 'paid' DO NOTHING".encode())
    sql.execute(f"{once} DO NOTHING".encode())


def test_rollback_to_planned(runner: Runner, sql: psycopg.Connection) -> None:
    """The word stays; the next try asks for a word, and repairs rows that hold it."""
    verified(runner)
    assert runner.rollback("e1") is State.PLANNED
    sql.execute("UPDATE orders SET state = 'paid' WHERE id = 2")
    with pytest.raises(Refused) as caught:
        runner.expand(CHANGE)
    assert str(caught.value) == (
        f'{TITLE}: The enum has a value "paid" already, as a rollback leaves it: rows'
        ' that hold it become "payed" at verify, and which they were is not known'
        f' afterwards.{NOTHING}look into it, then write assured="why it is safe here"'
        " into the pattern."
    )
    verified(runner, replace(CHANGE, pattern=replace(RENAME, assured="rolled back")))
    assert states(sql) == ["new", "payed", None]


def test_another_search_path(runner: Runner, sql: psycopg.Connection) -> None:
    """The way back leaves an enum of the same name alone that the path has first."""
    verified(runner)
    runner.retire("e1", old_release_gone="test")
    sql.execute(
        "CREATE SCHEMA two; CREATE TYPE two.state AS ENUM ('paid', 'payed');"
        f" ALTER DATABASE {sql.info.dbname} SET search_path = two, public".encode()
    )
    assert runner.rollback("e1") is State.VERIFIED
    words = "SELECT enumlabel FROM pg_enum WHERE enumtypid = {}::regtype ORDER BY oid"
    for kind, expected in (("two", ["paid", "payed"]), ("public", ["payed", "paid"])):
        found = sql.execute(words.format(f"'{kind}.state'").encode()).fetchall()
        assert [word for (word,) in found if word in expected] == expected
    assert states(sql) == ["new", "payed", None]


def test_a_partitioned_table(runner: Runner, sql: psycopg.Connection) -> None:
    """Its partitions' columns are of the type as well, and are translated."""
    sql.execute(
        "DROP TABLE orders;"
        "CREATE TABLE orders (id int, state state) PARTITION BY LIST (id);"
        "CREATE TABLE one PARTITION OF orders FOR VALUES IN (1);"
        "CREATE TABLE rest PARTITION OF orders DEFAULT"
    )
    verified(runner)
    sql.execute(
        "INSERT INTO orders VALUES (1, 'paid'); INSERT INTO rest VALUES (2, 'paid')"
    )
    assert states(sql) == ["payed", "payed"]
    runner.retire("e1", old_release_gone="test")
    assert states(sql) == ["paid", "paid"]


def test_retire_refuses_what_came_meanwhile(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """A trigger that is off, or a further column of the type, holds the exchange."""
    verified(runner)
    sql.execute(f"ALTER TABLE orders ENABLE REPLICA TRIGGER {TRIGGER}")
    with pytest.raises(Failed, match="missing or not enabled ALWAYS"):
        runner.retire("e1", old_release_gone="test")
    sql.execute(f"ALTER TABLE orders ENABLE ALWAYS TRIGGER {TRIGGER}")
    sql.execute("ALTER TABLE orders ADD further state[]")
    with pytest.raises(Refused) as caught:
        runner.retire("e1", old_release_gone="test")
    assert (
        "is refused: 1 further column or type came to use the enum, whose words would"
        " change without a translation." in str(caught.value)
    )
    assert states(sql) == ["new", "payed", None]
    sql.execute("ALTER TABLE orders DROP further")
    assert runner.retire("e1", old_release_gone="test") is State.RETIRED


# -- locks -------------------------------------------------------------------


def test_locks(runner: Runner, sql: psycopg.Connection, database: str) -> None:
    """Steps take what they say; one that gets no lock leaves nothing."""
    with (
        holding(database, "orders", "ROW EXCLUSIVE"),
        pytest.raises(LockBudgetError) as caught,
    ):
        runner.expand(CHANGE)
    assert str(caught.value).startswith(
        'Step \'translate\' on table "public"."orders" got no lock within 200 ms'
    )
    assert sql.execute("SELECT enum_range(NULL::state)::text").fetchone() == (
        "{new,payed,lost}",
    )
    # Reads go on at expand, and nothing else is held up by the new value.
    with holding(database, "orders", "ACCESS SHARE"):
        runner.expand(CHANGE)
    (exchange,) = runner.plan(CHANGE).steps(Phase.RETIRE)
    assert isinstance(exchange.work, Transaction)
    assert taken(sql, exchange.work, "orders") == {"orders": Lock.ACCESS_EXCLUSIVE}


# -- messages ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("setup", "pattern", "message"),
    [
        (
            "",
            replace(RENAME, value="paied"),
            'Column "state" of table "public"."orders" has no value "paied" in its'
            f' enum.{NOTHING}"payed" is the nearest; correct it; there are "new",'
            ' "payed", "lost".',
        ),
        (
            "",
            replace(RENAME, column="id"),
            'Column "id" of table "public"."orders" is of type integer, which is no'
            f" enum with values.{NOTHING}name a column whose type is the enum itself.",
        ),
        (
            "",
            replace(RENAME, to="payed"),
            f"{TITLE.replace('paid', 'payed')}: that is its name.{NOTHING}give another"
            " one.",
        ),
        (
            "",
            replace(RENAME, to="é" * 32),
            f"{TITLE.replace('paid', 'é' * 32)}: the value has 64 bytes.{NOTHING}"
            "give one of 1 to 63 bytes.",
        ),
        (
            "CREATE TABLE bills (n int, state state[]);"
            " CREATE VIEW seen AS SELECT state FROM orders",
            RENAME,
            f"{TITLE}: the enum is used by column state of table bills as well, where"
            f" nothing would translate the words.{NOTHING}give the column a type of its"
            " own first (ChangeColumnType).",
        ),
        (
            "CREATE DOMAIN kept AS state CHECK (VALUE <> 'lost')",
            RENAME,
            f"{TITLE}: the enum is used by type kept as well, where nothing would"
            f" translate the words.{NOTHING}give the column a type of its own first"
            " (ChangeColumnType).",
        ),
        (
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN RETURN NEW; END'; CREATE TRIGGER zzzz BEFORE INSERT ON orders"
            " FOR EACH ROW EXECUTE FUNCTION f()",
            RENAME,
            'Trigger "zzzz" on table "public"."orders" would fire after the dual write'
            f" and could leave the two sides apart.{NOTHING}rename it to sort before"
            ' "zzz_migrator_".',
        ),
    ],
)
def test_messages(
    runner: Runner,
    sql: psycopg.Connection,
    setup: str,
    pattern: RenameEnumValue,
    message: str,
) -> None:
    """What no trigger could translate is refused before anything is changed."""
    sql.execute(setup.encode())
    with pytest.raises(Refused) as caught:
        runner.expand(Change(revision="e1", pattern=pattern))
    assert str(caught.value) == message
    assert runner.changes() == []


def test_message_about_the_owner_of_the_type(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """ALTER TYPE is the owner's: that is asked before the trigger is there."""
    role = f"clerk_{sql.info.dbname}"
    sql.execute(
        f"CREATE ROLE {role} LOGIN; ALTER TABLE orders OWNER TO {role};"
        f" GRANT CREATE ON DATABASE {sql.info.dbname} TO {role}".encode()
    )
    target = replace(runner.target, params={**runner.target.params, "user": role})
    with pytest.raises(Refused) as caught:
        replace(runner, target=target).expand(CHANGE)
    assert str(caught.value) == (
        f"{TITLE}: the role of this connection does not own the enum.{NOTHING}connect"
        " as its owner, or as a member of the owner's role."
    )
    sql.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}".encode())
