"""ReplaceForeignKey: its text, its life, its locks and its messages."""

from dataclasses import replace

import psycopg
import pytest
from locks import taken

from migrator.change import Change
from migrator.errors import MigratorError, MismatchError, Refused
from migrator.facts import Column, Constraint, Facts, Index, IndexColumn, Table
from migrator.names import TableName
from migrator.patterns import ReplaceForeignKey
from migrator.plan import Autocommit, Lock, Phase, State, Transaction
from migrator.runner import Runner

PARENT = TableName("public", "users")
FACTS = Facts(
    server_version=170000,
    tag="0123456789",
    table=Table(
        name=TableName("public", "orders"),
        oid=1,
        columns=(Column(name="user_id", type="int"),),
        constraints=(
            Constraint(
                name="whose",
                kind="f",
                definition="FOREIGN KEY (user_id) REFERENCES public.users(id)",
                references=PARENT,
            ),
            Constraint(name="priced", kind="c"),
        ),
    ),
    others=(
        Table(
            name=PARENT,
            oid=2,
            columns=(Column(name="id", type="int"),),
            indexes=(
                Index(
                    name="users_pkey",
                    method="btree",
                    unique=True,
                    keys=(IndexColumn(name="id"),),
                ),
            ),
        ),
    ),
)
PLAIN = ReplaceForeignKey(
    "orders", ["user_id"], "users", ["id"], "whose", on_delete="cascade"
)
KEYS = (
    "SELECT conname, confdeltype, convalidated, obj_description(oid, 'pg_constraint')"
    " FROM pg_constraint WHERE conrelid = 'orders'::regclass AND contype = 'f'"
)
OLD = [("whose", "a", True, "kept")]
NEW = [("whose", "c", True, "kept")]
SETUP = (
    "CREATE TABLE users (id int PRIMARY KEY);"
    "CREATE TABLE orders (id int, user_id int CONSTRAINT whose REFERENCES users);"
    "COMMENT ON CONSTRAINT whose ON orders IS 'kept';"
    "INSERT INTO users VALUES (1), (2); INSERT INTO orders VALUES (1, 1), (2, NULL)"
)


def test_text() -> None:
    """The new one has a name of the change until the names are exchanged."""
    add, validate, exchange = PLAIN.retire(FACTS)
    both = 'LOCK TABLE "public"."orders", "public"."users" IN'
    alter = 'ALTER TABLE "public"."orders"'
    made = "_migrator_key_whose_0123456789"
    assert isinstance(add.work, Transaction)
    assert add.work.statements == (
        f"{both} SHARE ROW EXCLUSIVE MODE",
        f'{alter} ADD CONSTRAINT "{made}" FOREIGN KEY ("user_id") REFERENCES'
        ' "public"."users" ("id") ON DELETE CASCADE NOT VALID',
    )
    assert isinstance(validate.work, Autocommit)
    assert validate.work.statement == f'{alter} VALIDATE CONSTRAINT "{made}"'
    assert isinstance(exchange.work, Transaction)
    assert exchange.work.statements == (
        f"{both} ACCESS EXCLUSIVE MODE",
        f'{alter} DROP CONSTRAINT "whose"',
        f'{alter} RENAME CONSTRAINT "{made}" TO "whose"',
    )
    _, _, again, proof = exchange.reverse
    assert isinstance(again, Transaction)
    assert again.statements == (
        f"{both} SHARE ROW EXCLUSIVE MODE",
        f'{alter} ADD CONSTRAINT "whose" FOREIGN KEY (user_id) REFERENCES'
        " public.users(id) NOT VALID",
    )
    assert isinstance(proof, Autocommit)
    assert proof.statement == f'{alter} VALIDATE CONSTRAINT "whose"'


def test_life_cycle(runner: Runner, sql: psycopg.Connection) -> None:
    """The old actions hold until retire, the new ones from there; no orphan comes."""
    sql.execute(SETUP)
    change = Change(revision="a1", pattern=PLAIN)
    runner.expand(change)
    assert runner.rollback("a1") is State.PLANNED
    runner.expand(change)
    runner.verify("a1")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        sql.execute("DELETE FROM users WHERE id = 1")
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert runner.change("a1").finished
    assert sql.execute(KEYS).fetchall() == NEW
    sql.execute("DELETE FROM users WHERE id = 1")
    assert sql.execute("SELECT id FROM orders").fetchall() == [(2,)]
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        sql.execute("INSERT INTO orders VALUES (3, 3)")
    assert runner.rollback("a1") is State.VERIFIED
    assert sql.execute(KEYS).fetchall() == OLD
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert runner.rollback("a1", to=State.PLANNED) is State.PLANNED
    assert runner.complete(change) is State.RETIRED
    assert sql.execute(KEYS).fetchall() == NEW


def test_another_key(runner: Runner, sql: psycopg.Connection) -> None:
    """Rows are counted by the new one at verify, and by the old one going back."""
    sql.execute(SETUP)
    sql.execute("CREATE TABLE people (id int PRIMARY KEY); INSERT INTO people SELECT 7")
    pattern = replace(PLAIN, references="people")
    change = Change(revision="a1", pattern=pattern)
    runner.expand(change)
    with pytest.raises(MismatchError, match="found 1 row"):
        runner.verify("a1")
    sql.execute("UPDATE orders SET user_id = NULL")
    runner.verify("a1")
    runner.retire("a1", old_release_gone="test")
    sql.execute("UPDATE orders SET user_id = 7")
    with pytest.raises(MigratorError, match='2 rows violate the constraint "whose"'):
        runner.rollback("a1")
    # Nothing of the way back has run.
    assert [row[0] for row in sql.execute(KEYS)] == ["whose"]
    sql.execute("UPDATE orders SET user_id = NULL")
    assert runner.rollback("a1") is State.VERIFIED
    assert sql.execute(KEYS).fetchall() == OLD


def test_locks(runner: Runner, sql: psycopg.Connection) -> None:
    """What pg_locks shows is what the plan says."""
    sql.execute(SETUP)
    steps = runner.plan(Change(revision="a1", pattern=PLAIN)).steps(Phase.RETIRE)
    add, validate, exchange = (s.work for s in steps)
    assert isinstance(add, Transaction)
    assert isinstance(validate, Autocommit)
    assert isinstance(exchange, Transaction)
    both = ("orders", "users")
    weak, strong = Lock.SHARE_ROW_EXCLUSIVE, Lock.ACCESS_EXCLUSIVE
    assert taken(sql, add, *both) == dict.fromkeys(both, weak)
    for statement in add.statements[1:]:
        sql.execute(statement.encode())
    assert taken(sql, validate, *both) == {
        "orders": Lock.SHARE_UPDATE_EXCLUSIVE,
        "users": Lock.ROW_SHARE,
    }
    assert taken(sql, exchange, *both) == dict.fromkeys(both, strong)


def test_messages() -> None:
    """Only a foreign key that is there can be replaced, and proved beside writers."""
    with pytest.raises(Refused) as caught:
        replace(PLAIN, name="priced").check(FACTS)
    assert str(caught.value) == (
        'Constraint "priced" of table "public"."orders" is no foreign key.\n'
        "Nothing was changed.\nNext: name a foreign key."
    )
    parted = replace(FACTS, table=replace(FACTS.table, kind="p"))
    with pytest.raises(Refused, match="is partitioned: a foreign key"):
        PLAIN.check(parted)
    (notice,) = PLAIN.check(FACTS)
    assert notice.text == (
        "Until retire the old foreign key holds, also its actions, for both releases;"
        " rows of either that the new one would refuse hold the change at verify. Going"
        " back counts the rows that violate the old one, and is refused while there"
        " are any."
    )
