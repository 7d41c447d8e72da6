"""RenameTable: its text, its life, its locks, what a view does not do, its messages."""

from dataclasses import replace

import psycopg
import pytest
from locks import holding, taken

from migrator.change import Change
from migrator.errors import LockBudgetError, Refused
from migrator.facts import Column, Facts, Table, Trigger
from migrator.names import TableName
from migrator.patterns import AddColumn, RenameTable
from migrator.plan import Lock, State, Transaction
from migrator.runner import Runner
from migrator.settings import Settings

OLD = TableName("public", "old")
TABLE = Table(name=OLD, oid=1, columns=(Column(name="id", type="int"),))
RENAME = RenameTable("old", "new")
CHANGE = Change(revision="a1", pattern=RENAME)
NOTHING = "\nNothing was changed.\nNext: "


def facts(table: Table = TABLE, **answers: bool) -> Facts:
    """Return facts about a table, and what the catalogue answered."""
    return Facts(server_version=180000, tag="0123456789", table=table, answers=answers)


# -- text --------------------------------------------------------------------


@pytest.mark.parametrize("retired", [False, True])
def test_text_with_hostile_names(*, retired: bool) -> None:
    """The text is the same whether the facts are of before or after retire."""
    name, to = TableName("my sch", 'or "der %s:x'), 'a "%b" :c'
    now = replace(name, name=to) if retired else name
    columns = (Column(name='c "%s', type="int"), Column(name=":d", type="int"))
    given = replace(facts(Table(name=now, oid=1, columns=columns)), origin=name)
    pattern = RenameTable(name.name, to)
    old, new = '"my sch"."or ""der %s:x"', '"my sch"."a ""%b"" :c"'

    def view(name: str, table: str) -> tuple[str, ...]:
        return (
            f"CREATE VIEW {name} WITH (security_invoker = true) AS"
            f' SELECT "c ""%s", ":d" FROM {table}',
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO PUBLIC",
        )

    def exchange(table: str, view_name: str, to: str) -> tuple[str, ...]:
        return (
            f"LOCK TABLE {view_name}, {table} IN ACCESS EXCLUSIVE MODE",
            f"DROP VIEW {view_name}",
            f"ALTER TABLE {table} RENAME TO {to}",
            *view(table, view_name),
        )

    (made,) = pattern.expand(given)
    (swapped,) = pattern.retire(given)
    (gone,) = pattern.drop(given)
    share = "LOCK TABLE {} IN ACCESS SHARE MODE"
    for step, forward, back in (
        (made, (share.format(old), *view(new, old)), (f"DROP VIEW IF EXISTS {new}",)),
        (
            swapped,
            exchange(old, new, '"a ""%b"" :c"'),
            exchange(new, old, '"or ""der %s:x"'),
        ),
        (gone, (f"DROP VIEW IF EXISTS {old}",), (share.format(new), *view(old, new))),
    ):
        (reverse,) = step.reverse
        assert isinstance(step.work, Transaction)
        assert isinstance(reverse, Transaction)
        assert step.work.statements == forward
        assert reverse.statements == back


# -- life cycle --------------------------------------------------------------

SETUP = (
    "CREATE TABLE old (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
    " gone int, name text DEFAULT 'none', n int, twice int GENERATED ALWAYS AS (n * 2)"
    " STORED, UNIQUE (id, n)){}; ALTER TABLE old DROP gone;"
    " CREATE VIEW report AS SELECT count(*) AS n FROM old"
)


@pytest.mark.parametrize("parts", ["", " PARTITION BY RANGE (id)"])
def test_life_cycle(parts: str, runner: Runner, sql: psycopg.Connection) -> None:
    """Both names read and write the same rows in each state, and back from each."""
    # Identity on a partitioned table is newer than the oldest server.
    setup = SETUP.replace(" GENERATED ALWAYS AS IDENTITY", "") if parts else SETUP
    setup = setup.replace("id bigint", "id bigserial") if parts else setup
    sql.execute(setup.format(parts).encode())
    if parts:
        sql.execute("CREATE TABLE part PARTITION OF old DEFAULT")
    number = 0

    def works(*names: str) -> None:
        nonlocal number
        for name in names:
            number += 1
            text = (
                f"INSERT INTO {name} (n) VALUES (%s)"
                " RETURNING name, twice, (SELECT n FROM report)"
            )
            row = sql.execute(text.encode(), [number], prepare=True).fetchone()
            assert row == ("none", number * 2, number - 1)
            text = f"UPDATE {name} SET name = 'x' WHERE n = %s RETURNING n"
            assert len(sql.execute(text.encode(), [number]).fetchall()) == 1
            for other in names:
                text = f"SELECT * FROM {other} WHERE n = %s"
                found = sql.execute(text.encode(), [number], prepare=True).fetchone()
                assert found is not None
                assert found[1:] == ("x", number, number * 2)

    works("old")
    for back_from in (State.VERIFIED, State.RETIRED, State.DROPPED, None):
        assert runner.expand(CHANGE) is State.VERIFIED
        works("old", "new")
        if back_from is not State.VERIFIED:
            assert runner.retire("a1", old_release_gone="test") is State.RETIRED
            # Somebody is late.
            works("new", "old")
            # It is the table that is planned for, not the view.
            assert runner.plan(CHANGE).size_bytes > 0
        if back_from in (State.DROPPED, None):
            assert runner.drop("a1") is State.DROPPED
            works("new")
            with pytest.raises(psycopg.errors.UndefinedTable):
                works("old")
            number -= 1
        if back_from is State.DROPPED:
            assert runner.rollback("a1", to=State.VERIFIED) is State.VERIFIED
            works("old", "new")
        if back_from is not None:
            assert runner.rollback("a1", to=State.PLANNED) is State.PLANNED
            works("old")
            kind = "SELECT relkind::text FROM pg_class WHERE oid = 'old'::regclass"
            assert sql.execute(kind.encode()).fetchone() == ("p" if parts else "r",)
            with pytest.raises(psycopg.errors.UndefinedTable):
                works("new")
            number -= 1


def test_rights_are_those_of_the_table(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """A role has through the view what it has on the table, of rows too."""
    sql.execute("CREATE TABLE old (id int, secret int, owner name)")
    roles = [f"{kind}_{database.rpartition('_')[2]}" for kind in ("reader", "nobody")]
    reader, nobody = roles
    for role in roles:
        sql.execute(f"CREATE ROLE {role}".encode())
    try:
        sql.execute(
            f"GRANT SELECT, INSERT ON old TO {reader};"
            f" INSERT INTO old VALUES (1, 1, '{reader}'), (2, 2, '{nobody}');"
            " ALTER TABLE old ENABLE ROW LEVEL SECURITY;"
            " CREATE POLICY own ON old USING (owner = current_user)".encode()
        )
        runner.expand(CHANGE)
        for retired in (False, True):
            if retired:
                runner.retire("a1", old_release_gone="test")
            for name in ("old", "new"):
                sql.execute(f"SET ROLE {reader}".encode())
                seen = sql.execute(f"SELECT id FROM {name}".encode()).fetchall()
                assert seen == [(1,)]
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    sql.execute(f"UPDATE {name} SET id = 3".encode())
                sql.execute(f"SET ROLE {nobody}".encode())
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    sql.execute(f"SELECT id FROM {name}".encode())
                sql.execute("RESET ROLE")
        # What is granted on the table counts at once.
        sql.execute(f"GRANT SELECT ON new TO {nobody}; SET ROLE {nobody}".encode())
        assert sql.execute("SELECT id FROM old").fetchall() == [(2,)]
        # Rights on some columns are too few, which a notice tells.
        sql.execute("RESET ROLE")
        sql.execute(f"REVOKE SELECT ON new FROM {nobody}".encode())
        sql.execute(f"GRANT SELECT (id) ON new TO {nobody}".encode())
        sql.execute(f"SET ROLE {nobody}".encode())
        assert sql.execute("SELECT id FROM new").fetchall() == [(2,)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            sql.execute("SELECT id FROM old")
    finally:
        sql.execute("RESET ROLE")
        for role in roles:
            sql.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


NOT_DONE = {
    "TRUNCATE": "TRUNCATE new",
    "COPY, but of a query": "COPY new TO '/dev/null'",
    "MERGE": "MERGE INTO new USING (VALUES (1)) AS v (a) ON v.a = id"
    " WHEN MATCHED THEN DELETE",
    "ON CONFLICT ON CONSTRAINT": "INSERT INTO new VALUES (1)"
    " ON CONFLICT ON CONSTRAINT old_pkey DO NOTHING",
    "GROUP BY of the key alone": "SELECT id, name FROM new GROUP BY id",
    "ctid and other system columns": "SELECT ctid FROM new",
    "WHERE CURRENT OF": "BEGIN; DECLARE c CURSOR FOR SELECT * FROM new FOR UPDATE;"
    " FETCH c; DELETE FROM new WHERE CURRENT OF c",
    "TABLESAMPLE": "SELECT * FROM new TABLESAMPLE system (1)",
    "pg_get_serial_sequence": "SELECT 1 / count(pg_get_serial_sequence('new', 'id'))",
    "a foreign key, an index or a trigger on it": "CREATE TABLE r"
    " (a int REFERENCES new (id))",
    "a function of the table's row type": "SELECT f(new) FROM new",
}


def test_what_a_view_does_not_do(runner: Runner, sql: psycopg.Connection) -> None:
    """Each item of the notice fails through the view, and works on the table."""
    sql.execute(
        "CREATE TABLE old (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,"
        " name text); INSERT INTO old (name) VALUES ('a');"
        " CREATE FUNCTION f(r old) RETURNS int LANGUAGE sql AS 'SELECT r.id'"
    )
    notices = runner.plan(CHANGE).notices
    listed = notices[0].text.rpartition(": ")[2].rstrip(".")
    left = listed
    runner.expand(CHANGE)
    for retired in (False, True):
        if retired:
            runner.retire("a1", old_release_gone="test")
        for what, statement in NOT_DONE.items():
            if what not in listed:
                assert what == "MERGE"
                assert sql.info.server_version >= 170000
                continue
            left = left.replace(what, "")
            if retired:
                sql.execute(f"BEGIN; {statement}; ROLLBACK".encode())
            else:
                with pytest.raises(psycopg.Error):
                    sql.execute(statement.encode())
            sql.execute("ROLLBACK")
    assert left.replace(",", "").strip() == ""


def test_what_a_view_does(runner: Runner, sql: psycopg.Connection) -> None:
    """What applications do every day works under the new name from expand on."""
    sql.execute(
        "CREATE TABLE old (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
        " name text UNIQUE DEFAULT 'd', n int CHECK (n > 0), CHECK (n < 100));"
        " CREATE TABLE items (id int REFERENCES old ON DELETE CASCADE)"
    )
    runner.expand(CHANGE)
    for statement in (
        "INSERT INTO new VALUES (DEFAULT, DEFAULT, 1), (DEFAULT, 'e', 2) RETURNING id",
        "INSERT INTO new (id, n) OVERRIDING USER VALUE VALUES (9, 1)"
        " ON CONFLICT (name) DO UPDATE SET n = EXCLUDED.n RETURNING *",
        "INSERT INTO new AS o (name) VALUES ('e') ON CONFLICT DO NOTHING",
        "UPDATE new AS o SET n = p.n FROM new AS p WHERE p.id = o.id",
        "SELECT * FROM new WHERE id = 1 FOR NO KEY UPDATE SKIP LOCKED",
        "INSERT INTO items SELECT id FROM new",
        "WITH d AS (DELETE FROM new RETURNING *) SELECT count(*) FROM d",
        "COPY (SELECT * FROM new) TO '/dev/null'",
        "BEGIN; LOCK TABLE new IN SHARE ROW EXCLUSIVE MODE; COMMIT",
        "SELECT 1 / (1 - count(*)) FROM items",
    ):
        sql.execute(statement.encode())
    with pytest.raises(psycopg.errors.CheckViolation):
        sql.execute("INSERT INTO new (n) VALUES (-1)")


# -- overlaps ----------------------------------------------------------------


def test_nothing_else_changes_the_table_meanwhile(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """A column would not be in the view; the change is refused under either name."""
    sql.execute("CREATE TABLE old (id int)")
    runner.expand(CHANGE)
    for name in ("old", "new"):
        if name == "new":
            runner.retire("a1", old_release_gone="test")
        other = Change(revision="a2", pattern=AddColumn(name, "c", "int"))
        with pytest.raises(Exception, match="touches what a1"):
            runner.expand(other)
    runner.drop("a1")
    runner.expand(Change(revision="a2", pattern=AddColumn("new", "c", "int")))


# -- locks -------------------------------------------------------------------


def test_locks_are_those_claimed(runner: Runner, sql: psycopg.Connection) -> None:
    """Reads and writes stop for the exchange alone, and the view is locked first."""
    sql.execute("CREATE TABLE old (id int)")
    runner.expand(CHANGE)
    plan = runner.plan(CHANGE)
    (made,) = plan.phases[next(iter(plan.phases))]
    assert made.work.lock is Lock.ACCESS_SHARE
    (reverse,) = made.reverse
    assert taken(sql, reverse, "old")["old"] is Lock.NONE
    given = facts()
    (swap,) = RENAME.retire(given)
    assert isinstance(swap.work, Transaction)
    both = taken(sql, replace(swap.work, statements=swap.work.statements[:1]), "new")
    assert both["new"] is Lock.ACCESS_EXCLUSIVE
    assert taken(sql, swap.work, "old", "new")["new"] is Lock.ACCESS_EXCLUSIVE
    runner.retire("a1", old_release_gone="test")
    (gone,) = RENAME.drop(given)
    assert isinstance(gone.work, Transaction)
    assert taken(sql, gone.work, "new")["new"] is Lock.NONE


@pytest.mark.parametrize("held", ["old", "new"])
def test_a_request_makes_retire_give_up(
    held: str, runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """Whoever holds the table or the view is named; the next try goes through."""
    sql.execute("CREATE TABLE old (id int)")
    runner.expand(CHANGE)
    runner.settings = Settings(lock_timeout_ms=50, step_budget_s=0.2, hold_s=0)
    with (
        holding(database, held, "ACCESS SHARE"),
        pytest.raises(LockBudgetError, match="exchange_names") as caught,
    ):
        runner.retire("a1", old_release_gone="test")
    assert 'application "billing"' in str(caught.value)
    kind = "SELECT relkind::text FROM pg_class WHERE oid = 'new'::regclass"
    assert sql.execute(kind.encode()).fetchone() == ("v",)
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED


# -- messages ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            "CREATE TABLE new (id int)",
            'rename table "old" to "new": schema "public" has a relation or type of the'
            ' name "public"."new", or of an index or sequence that goes along.'
            f"{NOTHING}choose another name, or rename that one first.",
        ),
        ("CREATE INDEX new ON old (id)", "has a relation or type of the name"),
        ("CREATE TYPE new AS ENUM ('a')", "has a relation or type of the name"),
        (
            "CREATE FUNCTION f() RETURNS bigint LANGUAGE sql AS"
            " 'SELECT count(*) FROM OLD'",
            'rename table "old" to "new": The text of a function has the word "old":'
            ' one that means "public"."old" fails from the drop on.'
            f'{NOTHING}look into it, then write assured="why it is safe here" into the'
            " pattern.",
        ),
        (
            "CREATE PUBLICATION p FOR TABLE old",
            'rename table "old" to "new": Table "public"."old" is published: from'
            ' retire on a subscriber stops that has no table "public"."new".'
            f'{NOTHING}look into it, then write assured="why it is safe here" into the'
            " pattern.",
        ),
        (
            "GRANT SELECT (id) ON old TO pg_monitor",
            "The view asks for the right to read all columns of the table: a role that"
            " has rights on some of them alone cannot read through it.",
        ),
        ("CREATE TABLE heir () INHERITS (old)", "takes part in inheritance"),
    ],
)
# The server says that a publication would need another wal_level.
@pytest.mark.filterwarnings("ignore")
def test_message(
    made: str, message: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """What stands in the way is named, and the way out."""
    sql.execute("CREATE TABLE old (id int)")
    sql.execute("CREATE FUNCTION g() RETURNS int LANGUAGE sql AS 'SELECT 1 AS olden'")
    sql.execute(made.encode())
    with pytest.raises(Refused) as caught:
        runner.expand(CHANGE)
    assert message in str(caught.value)
    assert sql.execute("SELECT count(*) FROM pg_views WHERE viewname = 'new'")


def test_message_of_the_same_name() -> None:
    """The new name has to be another one, and one that the server keeps whole."""
    with pytest.raises(Refused) as caught:
        RenameTable("old", "old").check(facts())
    assert str(caught.value) == (
        f'rename table "old" to "old": that is its name.{NOTHING}give another one.'
    )
    with pytest.raises(Refused, match="has 64 bytes"):
        RenameTable("old", "n" * 64).check(facts())


def test_message_of_a_view_over_the_view(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """What was made over a view that goes is counted, and nothing is cascaded to."""
    sql.execute("CREATE TABLE old (id int)")
    runner.expand(CHANGE)
    sql.execute("CREATE VIEW v AS SELECT id FROM new; CREATE TABLE t (r new)")
    with pytest.raises(Refused) as caught:
        runner.retire("a1", old_release_gone="test")
    assert str(caught.value) == (
        'Step \'exchange_names\' on table "public"."old" is refused: 2 objects were'
        ' made over view "public"."new", which goes.'
        f"{NOTHING}drop them, run the same command again, and make them again over the"
        " table."
    )
    sql.execute("DROP VIEW v; DROP TABLE t")
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED


def test_message_of_a_name_that_was_given_away(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """After the drop the old name is free, and going back needs it."""
    sql.execute("CREATE TABLE old (id int)")
    runner.expand(CHANGE)
    runner.retire("a1", old_release_gone="test")
    runner.drop("a1")
    sql.execute("CREATE TABLE old (other int)")
    with pytest.raises(Refused) as caught:
        runner.rollback("a1", to=State.PLANNED)
    assert 'the name "public"."old" was given to another relation' in str(caught.value)
    sql.execute("DROP TABLE old")
    assert runner.rollback("a1", to=State.PLANNED) is State.PLANNED
    sql.execute("INSERT INTO old (id) VALUES (1)")


def test_notices() -> None:
    """A reviewer reads what triggers see."""
    table = replace(TABLE, triggers=(Trigger(name="t", before_row=True),))
    texts = [n.text for n in RENAME.check(facts(table))]
    assert texts[1:] == [
        'Rights are those of the table: grant on "public"."old" until retire, on'
        ' "public"."new" from then on. What is granted on the view goes with it.',
        "Triggers of the table read its new name in TG_TABLE_NAME and TG_TABLE_SCHEMA"
        " from retire on, whichever name a release writes to.",
        "Indexes, constraints, sequences and partitions keep their names.",
    ]
