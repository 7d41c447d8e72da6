"""ReplaceView: its text, its life, its locks, its traps and its messages."""

from dataclasses import replace

import psycopg
import pytest
from locks import holding

from migrator.change import Change
from migrator.errors import LockBudgetError, Refused
from migrator.facts import Attached, Facts, Table
from migrator.names import TableName
from migrator.patterns import ReplaceView
from migrator.plan import Lock, Phase, State, Transaction
from migrator.runner import Runner
from migrator.settings import Settings

SALES = TableName("public", "sales")
VIEW = Table(name=SALES, oid=1, columns=(), kind="v", owner="me")
REPLACE = ReplaceView("sales", "SELECT 1 AS a")
NOTHING = "\nNothing was changed.\nNext: "
WORD = (
    f'{NOTHING}look into it, then write assured="why it is safe here" into the pattern.'
)


def facts(table: Table = VIEW, **given: object) -> Facts:
    """Return facts about a view."""
    return replace(
        Facts(
            server_version=180000,
            tag="0123456789",
            table=table,
            path=("my sch",),
            definition=" SELECT 0 AS a;",
        ),
        **given,
    )


def change(definition: str, **given: str) -> Change:
    """Return a change of the view."""
    return Change(revision="a1", pattern=ReplaceView("sales", definition, **given))


@pytest.fixture
def view(sql: psycopg.Connection) -> psycopg.Connection:
    """Give a view with all that may hang on one."""
    sql.execute(
        "DO $$ BEGIN IF to_regrole('reader') IS NULL THEN CREATE ROLE reader;"
        ' END IF; IF to_regrole(\'"se ller"\') IS NULL THEN CREATE ROLE "se ller";'
        " END IF; END $$;"
        "CREATE TABLE orders (id int PRIMARY KEY, total int, paid date);"
        "INSERT INTO orders VALUES (1, 10, '2020-01-01'), (2, -1, NULL);"
        "CREATE VIEW sales WITH (security_barrier, check_option = local) AS"
        " SELECT id, total FROM orders WHERE total > 0;"
        "GRANT SELECT ON sales TO PUBLIC;"
        "GRANT SELECT, UPDATE (total) ON sales TO reader WITH GRANT OPTION;"
        "COMMENT ON VIEW sales IS 'what''s \\ sold';"
        "COMMENT ON COLUMN sales.total IS 'in cents';"
        "ALTER VIEW sales ALTER COLUMN total SET DEFAULT 7;"
        'ALTER VIEW sales OWNER TO "se ller"; GRANT ALL ON orders TO "se ller";'
        'REVOKE TRUNCATE ON sales FROM "se ller"'
    )
    return sql


# What a view is, with what hangs on it, but for its OID.
STATE = """
SELECT pg_get_viewdef('sales'::regclass), c.reloptions, c.relacl::text,
       c.relowner::regrole::text, obj_description(c.oid), col_description(c.oid, 2),
       (SELECT array_agg(attname::text || COALESCE(attacl::text, '') ORDER BY attnum)
          FROM pg_attribute WHERE attrelid = c.oid),
       (SELECT array_agg(pg_get_expr(adbin, adrelid)) FROM pg_attrdef
         WHERE adrelid = c.oid),
       (SELECT array_agg(pg_get_triggerdef(oid) || obj_description(oid, 'pg_trigger'))
          FROM pg_trigger WHERE tgrelid = c.oid)
  FROM pg_class c WHERE oid = 'sales'::regclass
"""


def state(sql: psycopg.Connection) -> tuple[object, ...]:
    """Return the view as it is."""
    row = sql.execute(STATE.encode()).fetchone()
    assert row is not None
    return row


# -- text --------------------------------------------------------------------


def test_text_with_hostile_names() -> None:
    """Names are quoted, the definition stands to the letter, options come again."""
    name = 'sa "les %s:x'
    table = replace(VIEW, name=TableName("my sch", name), owner='o"wner')
    hung = (
        Attached("ALTER VIEW ", " SET (security_barrier = 'true')", stays=False),
        Attached("GRANT SELECT ON ", ' TO "se ller"'),
    )
    given = facts(table, attached=hung)
    pattern = ReplaceView(name, "SELECT 'a%b:c' AS a;")
    (step,) = pattern.expand(given)
    (back,) = step.reverse
    assert isinstance(step.work, Transaction)
    assert isinstance(back, Transaction)
    quoted = '"my sch"."sa ""les %s:x"'
    option = f"ALTER VIEW {quoted} SET (security_barrier = 'true')"
    lock = f'ALTER VIEW {quoted} OWNER TO "o""wner"'
    assert step.work.statements == (
        lock,
        'SET LOCAL search_path = "my sch"',
        f"CREATE OR REPLACE VIEW {quoted} AS SELECT 'a%b:c' AS a",
        option,
    )
    assert back.statements == (
        lock,
        "SET LOCAL search_path = pg_catalog",
        f"CREATE OR REPLACE VIEW {quoted} AS SELECT 0 AS a",
        option,
    )
    assert pattern.retire(given) == pattern.drop(given) == ()


def test_text_of_a_view_with_further_columns() -> None:
    """Back goes a new view of the old text, with all that hung on the old one."""
    hung = (Attached("GRANT SELECT ON ", " TO PUBLIC"),)
    given = facts(attached=hung, answers={"in_place": True, "same_columns": False})
    (step,) = REPLACE.expand(given)
    (back,) = step.reverse
    assert isinstance(back, Transaction)
    assert back.statements[2:] == (
        'DROP VIEW "public"."sales"',
        'CREATE VIEW "public"."sales" AS SELECT 0 AS a',
        'GRANT SELECT ON "public"."sales" TO PUBLIC',
    )
    assert len(back.refusals) == 1


@pytest.mark.parametrize("new_name", ["new sales", None])
def test_text_of_a_view_beside_it(new_name: str | None) -> None:
    """The new one is made at expand, the old one kept from retire to drop."""
    hung = (
        Attached("GRANT SELECT (b) ON ", " TO reader", column="b"),
        Attached("GRANT SELECT ON ", " TO PUBLIC"),
    )
    answers = {"in_place": False, "column b": False}
    given = facts(attached=hung, answers=answers)
    pattern = replace(REPLACE, new_name=new_name)
    beside = new_name or "_migrator_view_sales_0123456789"
    (made,) = pattern.expand(given)
    (gone,) = pattern.retire(given)
    (last,) = pattern.drop(given)
    assert isinstance(made.work, Transaction)
    assert made.work.lock is Lock.NONE
    assert made.work.statements == (
        'SET LOCAL search_path = "my sch"',
        f'CREATE VIEW "public"."{beside}" AS SELECT 1 AS a',
        f'GRANT SELECT ON "public"."{beside}" TO PUBLIC',
    )
    old = '"public"."_migrator_retired_sales_0123456789"'
    assert isinstance(gone.work, Transaction)
    (back,) = gone.reverse
    assert isinstance(back, Transaction)
    move = (
        'ALTER VIEW "public"."sales" RENAME TO "_migrator_retired_sales_0123456789"',
    )
    kept = (f'ALTER VIEW {old} RENAME TO "sales"',)
    if new_name is None:
        move += (f'ALTER VIEW "public"."{beside}" RENAME TO "sales"',)
        kept = (f'ALTER VIEW "public"."sales" RENAME TO "{beside}"', *kept)
    assert gone.work.statements[-len(move) :] == move
    assert back.statements[-len(kept) :] == kept
    assert isinstance(last.work, Transaction)
    assert last.work.statements[-1] == f"DROP VIEW {old}"
    assert isinstance(last.reverse[0], Transaction)
    # What hung on the old one's columns comes back with them.
    assert last.reverse[0].statements == (
        "SET LOCAL search_path = pg_catalog",
        f"CREATE VIEW {old} AS SELECT 0 AS a",
        f"GRANT SELECT (b) ON {old} TO reader",
        f"GRANT SELECT ON {old} TO PUBLIC",
    )


# -- life cycle --------------------------------------------------------------


@pytest.mark.parametrize("more", ["", ", paid"])
def test_life_in_place(more: str, runner: Runner, view: psycopg.Connection) -> None:
    """What hangs on the view is there after it, and again after the way back."""
    before = state(view)
    made = change(f"SELECT id, total{more} FROM orders WHERE total >= 10")
    assert runner.expand(made) is State.VERIFIED
    assert runner.change("a1").finished
    after = state(view)
    assert "total >= 10" in str(after[0])
    assert after[1:6] == before[1:6]
    assert after[7:] == before[7:]
    view.execute("SET ROLE reader")
    view.execute("UPDATE sales SET total = 11 WHERE id = 1")
    view.execute("RESET ROLE")
    assert runner.rollback("a1") is State.PLANNED
    assert state(view) == before
    assert runner.expand(made) is State.VERIFIED
    assert state(view) == after


@pytest.mark.parametrize("owner", ["se ller", None])
def test_life_under_one_name(
    owner: str | None, runner: Runner, view: psycopg.Connection
) -> None:
    """Columns in another order come at retire, in one transaction; then back."""
    if owner is None:
        view.execute("ALTER VIEW sales OWNER TO CURRENT_USER")
    view.execute(
        "CREATE FUNCTION kept() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN"
        " INSERT INTO orders VALUES (NEW.id, 5, now()); RETURN NEW; END';"
        ' CREATE TRIGGER "a ON b" INSTEAD OF INSERT OR UPDATE ON sales'
        " FOR EACH ROW EXECUTE FUNCTION kept('x');"
        "COMMENT ON TRIGGER \"a ON b\" ON sales IS 'its ''own'"
    )
    before = state(view)
    made = change("SELECT total, id FROM orders WHERE total > 0", assured="copes")
    assert runner.expand(made) is State.VERIFIED
    assert state(view) == before
    assert runner.rollback("a1") is State.PLANNED
    assert state(view) == before
    runner.expand(made)
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    after = state(view)
    assert [str(c).split("{")[0] for c in after[6]] == ["total", "id"]
    assert after[1:5] == before[1:5]
    assert after[8] == before[8]
    view.execute("INSERT INTO sales (id) VALUES (9)")
    assert runner.rollback("a1") is State.VERIFIED
    assert state(view) == before
    runner.retire("a1", old_release_gone="test")
    assert state(view) == after
    assert runner.drop("a1") is State.DROPPED
    assert state(view) == after
    left = "SELECT count(*) FROM pg_class WHERE relname LIKE '\\_migrator%'"
    assert view.execute(left.encode()).fetchone() == (0,)
    assert runner.rollback("a1", to=State.PLANNED) is State.PLANNED
    assert state(view) == before


def test_privileges_that_came_since(runner: Runner, view: psycopg.Connection) -> None:
    """Who was given some, or lost them, while both views stood there, is known."""
    made = change("SELECT total, id, paid FROM orders", assured="copes")
    runner.expand(made)
    view.execute("REVOKE ALL ON sales FROM PUBLIC; REVOKE SELECT ON sales FROM reader")
    view.execute("GRANT INSERT, UPDATE (id) ON sales TO reader WITH GRANT OPTION")
    acl = (
        "SELECT c.relacl::text, array_agg(attname || attacl::text ORDER BY attname)"
        " FROM pg_class c JOIN pg_attribute ON attrelid = c.oid AND attacl IS NOT NULL"
        " WHERE c.oid = 'sales'::regclass GROUP BY 1"
    )
    given = view.execute(acl.encode()).fetchone()
    assert "=r/" not in str(given)
    runner.retire("a1", old_release_gone="test")
    assert view.execute(acl.encode()).fetchone() == given
    view.execute(
        "GRANT SELECT ON sales TO PUBLIC; GRANT UPDATE (paid) ON sales TO reader"
    )
    view.execute("REVOKE UPDATE (id) ON sales FROM reader")
    now = view.execute("SELECT relacl::text FROM pg_class WHERE relname = 'sales'")
    given = now.fetchone()
    assert runner.rollback("a1") is State.VERIFIED
    now = view.execute("SELECT relacl::text FROM pg_class WHERE relname = 'sales'")
    assert now.fetchone() == given


def test_dollar_signs_in_names(runner: Runner, sql: psycopg.Connection) -> None:
    """Nothing in a name ends the text in which privileges go over."""
    sql.execute(
        "CREATE TABLE orders (id int, paid int);"
        'CREATE VIEW "a$do$ %s" AS SELECT id, paid AS "b$$\\" FROM orders;'
        'GRANT SELECT ("b$$\\") ON "a$do$ %s" TO PUBLIC'
    )
    pattern = ReplaceView(
        "a$do$ %s", 'SELECT paid AS "b$$\\", id FROM orders', assured="copes"
    )
    acl = "SELECT attacl::text FROM pg_attribute WHERE attname = 'b$$\\'"
    runner.expand(Change(revision="a1", pattern=pattern))
    given = sql.execute(acl.encode()).fetchall()
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert set(sql.execute(acl.encode()).fetchall()) == set(given)
    assert runner.rollback("a1") is State.VERIFIED
    assert set(sql.execute(acl.encode()).fetchall()) == set(given)


def test_life_under_a_new_name(runner: Runner, view: psycopg.Connection) -> None:
    """Both are there until retire; what depends on the old one holds it."""
    view.execute("CREATE VIEW top AS SELECT max(total) AS most FROM sales")
    made = change("SELECT paid FROM orders", new_name="paid_sales", assured="r/o")
    assert runner.expand(made) is State.VERIFIED
    view.execute("SELECT paid FROM paid_sales")
    view.execute("SELECT total FROM sales")
    with pytest.raises(Refused) as caught:
        runner.retire("a1", old_release_gone="test")
    assert str(caught.value) == (
        'Step \'retire_view\' on view "public"."sales" is refused: 1 other object'
        ' depends on view "public"."sales": view top.\nNothing was changed.\nNext: let'
        " what depends on it read the new view, then run the same command again."
    )
    view.execute("CREATE OR REPLACE VIEW top AS SELECT 1 AS most")
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    with pytest.raises(psycopg.errors.UndefinedTable):
        view.execute("SELECT total FROM sales")
    view.execute("CREATE VIEW sales AS SELECT 1")
    with pytest.raises(Refused, match="was given to another relation"):
        runner.rollback("a1")
    view.execute("DROP VIEW sales")
    assert runner.rollback("a1") is State.VERIFIED
    runner.retire("a1", old_release_gone="test")
    assert runner.drop("a1") is State.DROPPED
    assert runner.rollback("a1", to=State.PLANNED) is State.PLANNED
    assert view.execute("SELECT total FROM sales").fetchone() == (10,)


# -- traps -------------------------------------------------------------------


@pytest.mark.parametrize("new_name", [None, "paid_sales"])
@pytest.mark.parametrize("more", ["", ", paid"])
def test_what_somebody_wrote_since_is_not_overwritten(
    more: str, new_name: str | None, runner: Runner, view: psycopg.Connection
) -> None:
    """The way back tells what is there; it goes on once the change's text is back."""
    before = state(view)
    text = f"SELECT id, total{more} FROM orders WHERE total > 3"
    assert (
        runner.expand(change(text, new_name=new_name, assured="tried"))
        is State.VERIFIED
    )
    written = f"CREATE OR REPLACE VIEW {new_name or 'sales'} AS {text}"
    view.execute(f"{written} AND id < 1000".encode())
    # Spelt with full names, whatever the session's path.
    view.execute(
        f"ALTER ROLE CURRENT_USER IN DATABASE {view.info.dbname}"
        " SET search_path = pg_temp, public".encode()
    )
    with pytest.raises(Refused, match=r"no more as this change wrote it: .*id < 1000"):
        runner.rollback("a1", to=State.PLANNED)
    view.execute(written.encode())
    assert runner.rollback("a1", to=State.PLANNED) is State.PLANNED
    assert state(view) == before


def test_a_view_that_others_read_keeps_them(
    runner: Runner, view: psycopg.Connection
) -> None:
    """Views over it read the new definition, and the old one after the way back."""
    view.execute("CREATE VIEW top AS SELECT max(total) AS most FROM sales")
    runner.expand(change("SELECT id, total * 100 AS total FROM orders", assured="yes"))
    assert view.execute("SELECT most FROM top").fetchone() == (1000,)
    runner.rollback("a1")
    assert view.execute("SELECT most FROM top").fetchone() == (10,)


def test_the_old_text_means_the_same_under_another_search_path(
    runner: Runner, view: psycopg.Connection
) -> None:
    """It is read with full names, so that a table of another schema is none of it."""
    runner.expand(change("SELECT id, total FROM orders WHERE total < 0"))
    view.execute("CREATE SCHEMA other; CREATE TABLE other.orders ()")
    database = view.info.dbname
    view.execute(f"ALTER DATABASE {database} SET search_path = other, public".encode())
    runner.rollback("a1")
    assert view.execute("SELECT id FROM sales").fetchall() == [(1,)]


def test_the_new_text_is_read_as_the_connection_reads_it(
    runner: Runner, view: psycopg.Connection
) -> None:
    """The trial and the step find the same table."""
    view.execute("CREATE SCHEMA other; CREATE TABLE other.sold AS SELECT 5 id, 6 total")
    database = view.info.dbname
    view.execute(f"ALTER DATABASE {database} SET search_path = public, other".encode())
    made = change("SELECT id, total FROM sold", assured="writes nothing")
    with pytest.raises(Refused) as caught:
        runner.expand(made)
    assert str(caught.value) == (
        'replace view "sales": role "se ller", which owns the view, may not read all'
        f" that its definition reads.{NOTHING}grant it SELECT on that."
    )
    view.execute('GRANT USAGE ON SCHEMA other TO "se ller"')
    view.execute('GRANT SELECT (id, total) ON other.sold TO "se ller"')
    runner.expand(made)
    assert view.execute("SELECT id FROM sales").fetchall() == [(5,)]


def test_what_reads_the_view_with_further_columns_holds_the_way_back(
    runner: Runner, view: psycopg.Connection
) -> None:
    """A view that came since would have to go: that is told, and nothing happens."""
    runner.expand(change("SELECT id, total, paid FROM orders"))
    view.execute("CREATE VIEW late AS SELECT paid FROM sales")
    with pytest.raises(Refused, match=r'1 other object depends on view "public"\.'):
        runner.rollback("a1")
    view.execute("SELECT paid FROM late")
    view.execute("DROP VIEW late")
    assert runner.rollback("a1") is State.PLANNED


def test_rules_stay_where_the_view_does(
    runner: Runner, view: psycopg.Connection
) -> None:
    """They are not given on to another view, be it on the way back."""
    view.execute("CREATE RULE mute AS ON DELETE TO sales DO INSTEAD NOTHING")
    for definition in ("SELECT id, total, paid FROM orders", "SELECT paid FROM orders"):
        with pytest.raises(Refused, match="has rules, which are not given on"):
            runner.expand(change(definition, assured="test"))
    runner.expand(change("SELECT id, total FROM orders"))
    runner.rollback("a1")
    view.execute("DELETE FROM sales")
    assert view.execute("SELECT total FROM sales").fetchall() == [(10,)]


def test_further_columns_of_a_view_that_others_read(
    runner: Runner, view: psycopg.Connection
) -> None:
    """They do not come off again, which takes a word; beside it there is a way."""
    view.execute("CREATE VIEW top AS SELECT max(total) AS most FROM sales")
    longer = "SELECT id, total, paid FROM orders"
    with pytest.raises(Refused, match="depends on it \\(view top\\):"):
        runner.expand(change(longer))
    made = change(longer, new_name="sold")
    runner.expand(made)
    runner.rollback("a1")
    runner.expand(replace(made, revision="a2"))
    runner.rollback("a2")
    stays = Change(
        revision="a3", pattern=ReplaceView("sales", longer, assured="no way back")
    )
    for _ in range(2):
        runner.expand(stays)
        runner.rollback("a3")
        assert view.execute("SELECT paid FROM sales").fetchall()
        assert view.execute("SELECT most FROM top").fetchone() == (10,)


def test_a_view_that_reads_as_its_reader(
    runner: Runner, view: psycopg.Connection
) -> None:
    """Its owner needs no privilege for it; the option is there after it."""
    view.execute("ALTER VIEW sales SET (security_invoker = true)")
    view.execute('REVOKE ALL ON orders FROM "se ller"')
    before = state(view)
    runner.expand(change("SELECT id, total FROM orders"))
    assert state(view)[1] == before[1]
    runner.rollback("a1")
    assert state(view) == before


def test_default_privileges_come_off_the_new_view(
    runner: Runner, view: psycopg.Connection
) -> None:
    """It has the privileges of the old one, and no others."""
    view.execute("ALTER DEFAULT PRIVILEGES GRANT DELETE ON TABLES TO reader")
    before = state(view)
    made = change("SELECT total, id FROM orders WHERE total > 0", assured="copes")
    runner.expand(made)
    runner.retire("a1", old_release_gone="test")
    assert state(view)[2] == before[2]


LOCKS = (
    "SELECT relkind::text, mode FROM pg_locks JOIN pg_class c ON c.oid = relation"
    " WHERE pid = pg_backend_pid() AND relnamespace = 'public'::regnamespace"
)


# -- locks -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("definition", "new_name"),
    [
        ("SELECT id, total FROM orders", None),
        ("SELECT id, total, paid FROM orders", None),
        ("SELECT paid FROM orders", "paid_sales"),
        ("SELECT paid FROM orders", None),
    ],
)
def test_locks_taken_are_those_claimed(
    definition: str, new_name: str | None, runner: Runner, view: psycopg.Connection
) -> None:
    """The table behind the view is locked as a reader locks it."""
    made = Change(
        revision="a1",
        pattern=ReplaceView("sales", definition, new_name=new_name, assured="test"),
    )

    def check(phase: Phase, *, back: bool) -> None:
        for row in runner.steps("a1"):
            if row.phase is phase:
                action = row.step.reverse[0] if back else row.step.work
                assert isinstance(action, Transaction)
                rows: list[tuple[str, str]] = []
                with view.transaction(force_rollback=True):
                    for statement in action.statements:
                        view.execute(statement.encode())
                        rows += view.execute(LOCKS.encode()).fetchall()
                assert {m for k, m in rows if k != "v"} <= {"AccessShareLock"}
                strongest = "AccessExclusiveLock" in {m for _, m in rows}
                assert strongest or action.lock is Lock.NONE

    runner.expand(made)
    check(Phase.EXPAND, back=True)
    if not runner.change("a1").finished:
        runner.retire("a1", old_release_gone="test")
        check(Phase.RETIRE, back=True)
        runner.rollback("a1")
        check(Phase.RETIRE, back=False)
    runner.rollback("a1")


def test_a_reader_makes_it_give_up(
    runner: Runner, view: psycopg.Connection, database: str
) -> None:
    """It waits for the view no longer than it may, and changes nothing."""
    before = state(view)
    runner.settings = Settings(lock_timeout_ms=50, step_budget_s=0.2, hold_s=0)
    with psycopg.connect(database, application_name="billing") as reader:
        reader.execute("SELECT * FROM sales")
        with pytest.raises(LockBudgetError, match="billing"):
            runner.expand(change("SELECT id, total FROM orders"))
    assert state(view) == before
    with holding(database, "orders", "ROW EXCLUSIVE"):
        assert runner.expand(change("SELECT id, total FROM orders")) is State.VERIFIED


# -- messages ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "given", "message"),
    [
        (
            REPLACE,
            facts(replace(VIEW, kind="m")),
            '"public"."sales" is a materialized view: it holds rows, and its definition'
            f" does not change.{NOTHING}make one of another name, with its indexes,"
            " then drop this one.",
        ),
        (
            REPLACE,
            facts(replace(VIEW, kind="r")),
            f'"public"."sales" is no view.{NOTHING}name a view.',
        ),
        (
            REPLACE,
            facts(replace(VIEW, is_temporary=True)),
            'View "public"."sales" is temporary: no other session sees it.'
            f"{NOTHING}use plain SQL.",
        ),
        (
            REPLACE,
            facts(replace(VIEW, owned=False)),
            'The role of this connection does not own view "public"."sales".'
            f"{NOTHING}connect as the owner, or as a member of the owner's role.",
        ),
        (
            replace(REPLACE, new_name="b"),
            facts(relation_names=frozenset({"b"})),
            f'There is a relation "public"."b" already.{NOTHING}choose another name.',
        ),
        (
            REPLACE,
            facts(answers={"same_columns": False, "no_rules": False}),
            'View "public"."sales" has rules, which are not given on to another one.'
            f"{NOTHING}make INSTEAD OF triggers of them first.",
        ),
        (
            REPLACE,
            facts(
                replace(VIEW, dependents=("view d",)), answers={"same_columns": False}
            ),
            'replace view "sales": It gets further columns, which do not come off while'
            " something depends on it (view d): there is no way back. With"
            f' new_name="…" there is one.{WORD}',
        ),
        (
            replace(REPLACE, assured="tried"),
            facts(
                replace(VIEW, dependents=("view d", "function f()")),
                answers={"in_place": False},
            ),
            'View "public"."sales" is used by view d; function f(), which would go on'
            " with the old one: retire could not put another one, with columns that go"
            f" or change, under its name.{NOTHING}"
            'give new_name="…": what reads the view can then be made again over the new'
            " one, each at its time before retire. Or drop what reads it first, and"
            " make it again after retire.",
        ),
        (
            REPLACE,
            facts(answers={"in_place": False}),
            'replace view "sales": Columns of view "public"."sales" go, or change their'
            " type or place: the new release meets the old ones up to retire, and the"
            f" new ones from then on, under one name.{WORD}",
        ),
        (
            REPLACE,
            facts(answers={"writable": False}),
            'replace view "sales": Not all that can be written through the view can be'
            f" through its new definition.{WORD}",
        ),
    ],
)
def test_message(pattern: ReplaceView, given: Facts, message: str) -> None:
    """What cannot work is refused with the reason and a way out."""
    with pytest.raises(Refused) as caught:
        pattern.check(given)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        (
            "SELECT nothing FROM orders",
            'replace view "sales": the server refuses its definition: column "nothing"'
            f" does not exist.{NOTHING}",
        ),
        (
            "SELECT id, total FROM above",
            'replace view "sales": its definition reads the view itself, or one that'
            f" does.{NOTHING}write out what the view reads.",
        ),
        (
            "SELECT id, total FROM orders LIMIT 3",
            'replace view "sales": the server refuses its definition: WITH CHECK OPTION'
            f" is supported only on automatically updatable views.{NOTHING}",
        ),
    ],
)
def test_message_of_a_definition(
    definition: str, message: str, runner: Runner, view: psycopg.Connection
) -> None:
    """It is tried out before anything is changed."""
    view.execute("CREATE VIEW above AS SELECT * FROM sales")
    with pytest.raises(Refused) as caught:
        runner.expand(change(definition, assured="test"))
    assert str(caught.value).startswith(message)


def test_message_about_a_view_that_there_is_not(runner: Runner) -> None:
    """It is called a view."""
    with pytest.raises(Refused) as caught:
        runner.expand(change("SELECT 1"))
    assert str(caught.value) == (
        'There is no view "sales" in the search path.'
        f"{NOTHING}correct the name, or give its schema."
    )


def test_writes_that_are_lost_need_a_word(
    runner: Runner, view: psycopg.Connection
) -> None:
    """A column that is computed takes no writes; one with its trigger does."""
    view.execute("ALTER VIEW sales RESET (check_option)")
    for definition in (
        "SELECT id, total + 0 AS total FROM orders",
        "SELECT DISTINCT id, total FROM orders",
    ):
        with pytest.raises(Refused, match="Not all that can be written"):
            runner.expand(change(definition))
    view.execute(
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN RETURN NEW; END'; CREATE TRIGGER t INSTEAD OF INSERT OR UPDATE OR"
        " DELETE ON sales FOR EACH ROW EXECUTE FUNCTION f()"
    )
    runner.expand(change("SELECT DISTINCT id, total FROM orders"))


@pytest.mark.parametrize(
    ("pattern", "given", "said"),
    [
        (
            REPLACE,
            facts(),
            ["Both releases read the new definition from expand on."],
        ),
        (
            REPLACE,
            facts(answers={"same_columns": False}),
            [
                "Both releases read the new definition from expand on. A prepared"
                " SELECT * of the old release fails once it has further columns."
            ],
        ),
        (
            replace(REPLACE, new_name="b"),
            facts(
                attached=(Attached("a", "b", column="c"),), answers={"column c": False}
            ),
            [
                'The new release reads "public"."b"; what depends on view'
                ' "public"."sales" has to leave it before retire.',
                'What hangs on columns that go, goes along: "c".',
            ],
        ),
    ],
)
def test_notices(pattern: ReplaceView, given: Facts, said: list[str]) -> None:
    """A reviewer reads who meets what, and when."""
    assert [n.text for n in pattern.check(given)] == said
