"""ReplaceFunction: its text, its life, its traps and its messages."""

from dataclasses import replace

import psycopg
import pytest

from migrator.change import Change
from migrator.errors import Refused
from migrator.facts import Attached, Facts, Table
from migrator.names import TableName
from migrator.patterns import ReplaceFunction
from migrator.plan import Lock, State, Transaction
from migrator.runner import Runner

OLD = "CREATE OR REPLACE FUNCTION public.f(integer) …"
ONE = ReplaceFunction("f(integer)", "CREATE OR REPLACE FUNCTION f(int) …;")
OTHER = replace(ONE, new_function="f(text)")
NOTHING = "\nNothing was changed.\nNext: "
WORD = (
    f'{NOTHING}look into it, then write assured="why it is safe here" into the pattern.'
)


def facts(**given: object) -> Facts:
    """Return facts about a function."""
    table = Table(name=TableName("public", "f(integer)"), oid=0, columns=())
    made = Facts(server_version=180000, tag="0123456789", table=table, definition=OLD)
    return replace(made, **given)


def text(body: str, head: str = "f(a int)", more: str = "") -> str:
    """Return the statement that makes a function."""
    return (
        f"CREATE OR REPLACE FUNCTION {head} RETURNS int LANGUAGE sql {more}"
        f" AS $$ {body} $$"
    )


def change(definition: str, **given: str) -> Change:
    """Return a change of the function."""
    return Change(
        revision="a1", pattern=ReplaceFunction("f(integer)", definition, **given)
    )


@pytest.fixture
def function(sql: psycopg.Connection) -> psycopg.Connection:
    """Give a function with all that may hang on one, and a table that it reads."""
    sql.execute(
        "DO $$ BEGIN IF to_regrole('caller') IS NULL THEN CREATE ROLE caller;"
        " END IF; END $$;"
        "CREATE TABLE t (n int); INSERT INTO t VALUES (40);"
        "GRANT SELECT ON t TO caller"
    )
    sql.execute(text("SELECT n + a FROM t").encode())
    sql.execute(
        "REVOKE ALL ON FUNCTION f FROM PUBLIC;"
        " GRANT EXECUTE ON FUNCTION f TO pg_monitor WITH GRANT OPTION;"
        " COMMENT ON FUNCTION f IS 'what''s \\ told';"
        " ALTER FUNCTION f OWNER TO caller"
    )
    return sql


def state(sql: psycopg.Connection, name: str = "f(int)") -> tuple[object, ...]:
    """Return a function as it is."""
    row = sql.execute(
        "SELECT proacl::text, proowner::regrole::text, obj_description(oid, 'pg_proc'),"
        " pg_get_functiondef(oid) FROM pg_proc WHERE oid = to_regprocedure(%s)",
        [name],
    ).fetchone()
    assert row is not None
    return row


def told(sql: psycopg.Connection, call: str = "f(2)") -> object:
    """Return what a call returns."""
    row = sql.execute(f"SELECT {call}".encode()).fetchone()
    assert row is not None
    return row[0]


# -- text --------------------------------------------------------------------


def test_text_in_place() -> None:
    """Both texts stand to the letter; the old one's body is not looked into."""
    (step,) = replace(ONE, definition="CREATE … 'a%b:c';").expand(
        facts(path=("my sch",))
    )
    (back,) = step.reverse
    assert isinstance(step.work, Transaction)
    assert isinstance(back, Transaction)
    assert step.work.lock is Lock.NONE
    assert step.work.statements == (
        'SET LOCAL search_path = "my sch"',
        "CREATE … 'a%b:c'",
    )
    assert back.statements == (
        "SET LOCAL search_path = pg_catalog",
        "SET LOCAL check_function_bodies = off",
        OLD,
    )
    assert ONE.retire(facts()) == ONE.drop(facts()) == ()


def test_text_of_another_one_with_hostile_names() -> None:
    """Names are quoted by who writes the signature; what hung on the old one comes."""
    name = TableName('my "sch', '"f %s:x"(integer)')
    table = Table(name=name, oid=0, columns=())
    hung = (Attached("GRANT EXECUTE ON ROUTINE ", " TO bob"),)
    given = facts(table=table, attached=hung)
    pattern = ReplaceFunction('"f %s:x"(int)', "CREATE …", new_function='"g %"(text)')
    (made,) = pattern.expand(given)
    (gone,) = pattern.drop(given)
    assert isinstance(made.work, Transaction)
    assert isinstance(made.reverse[0], Transaction)
    new, old = '"my ""sch"."g %"(text)', '"my ""sch"."f %s:x"(integer)'
    empty = "SET LOCAL search_path = ''"
    assert made.work.statements == (
        empty,
        "CREATE …",
        f"GRANT EXECUTE ON ROUTINE {new} TO bob",
    )
    assert made.reverse[0].statements == (empty, f"DROP ROUTINE {new}")
    assert isinstance(gone.work, Transaction)
    assert isinstance(gone.reverse[0], Transaction)
    assert gone.work.statements == (empty, f"DROP ROUTINE {old}")
    assert gone.reverse[0].statements[2:] == (
        OLD,
        f"GRANT EXECUTE ON ROUTINE {old} TO bob",
    )


# -- life cycle --------------------------------------------------------------


def test_life_in_place(
    runner: Runner, function: psycopg.Connection, database: str
) -> None:
    """Owner and privileges stay; no table is locked; back comes the old text."""
    before = state(function)
    made = change(text("SELECT n - a FROM t"))
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE t IN EXCLUSIVE MODE")
        assert runner.expand(made) is State.VERIFIED
    assert runner.change("a1").finished
    assert told(function) == 38
    assert state(function)[:3] == before[:3]
    assert runner.rollback("a1") is State.PLANNED
    assert state(function) == before
    assert told(function) == 42
    assert runner.expand(made) is State.VERIFIED
    assert told(function) == 38


def test_life_of_another_one(runner: Runner, function: psycopg.Connection) -> None:
    """Both are there until the drop, with the same privileges; then back."""
    before = state(function)
    made = change(text("SELECT 7", "f(a int, b text)"), new_function="f(int, text)")
    assert runner.expand(made) is State.VERIFIED
    assert state(function) == before
    assert state(function, "f(int, text)")[:3] == before[:3]
    assert (told(function), told(function, "f(2, '')")) == (42, 7)
    assert runner.rollback("a1") is State.PLANNED
    with pytest.raises(psycopg.errors.UndefinedFunction):
        told(function, "f(2, '')")
    runner.expand(made)
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert told(function) == 42
    function.execute("CREATE VIEW v AS SELECT f(1)")
    with pytest.raises(Refused) as caught:
        runner.drop("a1")
    assert str(caught.value) == (
        "Step 'drop_function' is refused: 1 other object depends on function"
        " f(integer).\nNothing was changed.\nNext: let them use the other one, then run"
        " the same command again."
    )
    function.execute("DROP VIEW v")
    assert runner.drop("a1") is State.DROPPED
    with pytest.raises(psycopg.errors.UndefinedFunction):
        told(function)
    assert runner.rollback("a1", to=State.PLANNED) is State.PLANNED
    assert state(function) == before
    assert told(function) == 42


def test_life_of_a_procedure_with_a_hostile_name(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """A signature is resolved in its schema, and stands for procedures too."""
    sql.execute(
        'CREATE SCHEMA "my sch"; CREATE DOMAIN "my sch"."k ind" AS int;'
        ' CREATE PROCEDURE "my sch"."do ""it %s:x"(a "my sch"."k ind")'
        " LANGUAGE sql AS 'SELECT 1'"
    )
    name = '"do ""it %s:x"'
    pattern = ReplaceFunction(
        f'{name}("my sch"."k ind")',
        f"CREATE PROCEDURE \"my sch\".{name}(text) LANGUAGE sql AS 'SELECT 2'",
        new_function=f"{name}(text)",
        schema="my sch",
        assured="test",
    )
    made = Change(revision="a1", pattern=pattern)
    runner.expand(made)
    runner.rollback("a1")
    runner.expand(made)
    runner.retire("a1", old_release_gone="test")
    runner.drop("a1")
    left = "SELECT oid::regprocedure::text FROM pg_proc WHERE proname LIKE 'do \"%'"
    assert sql.execute(left.encode()).fetchall() == [(f'"my sch".{name}(text)',)]
    runner.rollback("a1", to=State.PLANNED)
    assert sql.execute(left.encode()).fetchall() == [
        (f'"my sch".{name}("my sch"."k ind")',)
    ]


# -- traps -------------------------------------------------------------------


def test_the_old_text_comes_back_though_its_table_is_elsewhere(
    runner: Runner, function: psycopg.Connection
) -> None:
    """It was written in another search path; its body is not looked into."""
    runner.expand(change(text("SELECT 1")))
    function.execute("CREATE SCHEMA other; ALTER TABLE t SET SCHEMA other")
    runner.rollback("a1")
    function.execute("SET search_path = public, other")
    assert told(function) == 42


def test_what_somebody_wrote_since_is_not_overwritten(
    runner: Runner, function: psycopg.Connection
) -> None:
    """The way back tells what is there; it goes on once the change's text is back."""
    before, made = state(function), text("SELECT n - a FROM t")
    runner.expand(change(made))
    function.execute(text("SELECT n - a - 1 FROM t").encode())
    with pytest.raises(Refused) as caught:
        runner.rollback("a1")
    assert str(caught.value) == (
        "Step 'replace_function' is refused: function f(integer) of schema public is"
        " no more as this change wrote it: CREATE OR REPLACE FUNCTION"
        " public.f(a integer) RETURNS integer LANGUAGE sql AS $function$ SELECT n - a"
        " - 1 FROM t"
        f" $function$ .{NOTHING}take back the later change that did so, or run the"
        " statement of this one's definition, or of the one before it, again, where the"
        " other text may go; then the same command again. Where it has to stay, leave"
        " this change as it is."
    )
    assert told(function) == 37
    function.execute("DROP FUNCTION f")
    with pytest.raises(
        Refused, match="of schema public is no more as this change wrote it: it is gone"
    ):
        runner.rollback("a1")
    function.execute(made.encode())
    function.execute("ALTER FUNCTION f COST 7")
    with pytest.raises(Refused, match="COST 7"):
        runner.rollback("a1")
    function.execute(before[3].encode())
    assert runner.rollback("a1") is State.PLANNED
    assert told(function) == 42


def test_a_body_that_the_server_spells_otherwise_since(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """What the change made cannot be run again by then; what was before it can."""
    atomic = (
        "CREATE OR REPLACE FUNCTION f(a integer) RETURNS integer LANGUAGE sql"
        " BEGIN ATOMIC SELECT {} FROM t; END"
    )
    before = atomic.format("a")
    sql.execute(f"CREATE TABLE t (n int); INSERT INTO t VALUES (1); {before}".encode())
    runner.expand(change(atomic.format("t.n")))
    sql.execute(b"ALTER TABLE t RENAME n TO m")
    with pytest.raises(Refused, match="or of the one before it, again"):
        runner.rollback("a1")
    sql.execute(before.encode())
    assert runner.rollback("a1") is State.PLANNED
    assert sql.execute(b"SELECT f(42)").fetchone() == (42,)


def test_another_one_that_somebody_changed_since_is_not_dropped(
    runner: Runner, function: psycopg.Connection
) -> None:
    """Its text is nowhere else; one with a type of the search path is known again."""
    function.execute("CREATE DOMAIN k AS int")
    made = text("SELECT 7", "f(a k, b text)")
    runner.expand(change(made, new_function="f(k, text)"))
    function.execute(text("SELECT 8", "f(a k, b text)").encode())
    with pytest.raises(Refused, match=r"function f\(k, text\) of"):
        runner.rollback("a1")
    assert told(function, "f(2::k, '')") == 8
    function.execute(made.encode())
    assert runner.rollback("a1") is State.PLANNED


def test_a_function_that_got_the_name_of_a_dropped_one_stays(
    runner: Runner, function: psycopg.Connection
) -> None:
    """The way back of the drop tells which one it is."""
    made = text("SELECT 7", "f(a int, b text)")
    runner.expand(change(made, new_function="f(int, text)"))
    runner.retire("a1", old_release_gone="test")
    runner.drop("a1")
    function.execute(text("SELECT 9").encode())
    with pytest.raises(Refused, match=r"f\(integer\) of schema .* SELECT 9 "):
        runner.rollback("a1", to=State.VERIFIED)
    assert told(function) == 9
    function.execute("DROP FUNCTION f(int)")
    assert runner.rollback("a1", to=State.VERIFIED) is State.VERIFIED
    assert told(function) == 42


def test_attributes_that_a_new_text_has_otherwise_are_told(
    runner: Runner, function: psycopg.Connection
) -> None:
    """CREATE OR REPLACE takes all of them from the new text."""
    function.execute("ALTER FUNCTION f STABLE STRICT PARALLEL SAFE COST 5")
    plan = runner.plan(change(text("SELECT 1", more="SECURITY DEFINER")))
    assert [notice.text for notice in plan.notices] == [
        "Both releases call the new text from expand on.",
        "The new text has other attributes: STABLE becomes VOLATILE, STRICT becomes"
        " CALLED ON NULL INPUT, SECURITY INVOKER becomes SECURITY DEFINER, PARALLEL"
        " SAFE becomes PARALLEL UNSAFE, COST 5 becomes COST 100.",
    ]
    function.execute(text("SELECT n + a FROM t").encode())
    plan = runner.plan(change(text("SELECT 1")))
    assert len(plan.notices) == 1


def test_what_is_stored_by_it_needs_a_word(
    runner: Runner, function: psycopg.Connection
) -> None:
    """An index, a check, a generated column or a partition would hold old results."""
    function.execute(text("SELECT a", more="IMMUTABLE").encode())
    made = change(text("SELECT a + 1", more="IMMUTABLE"))
    for also, gone in (
        ("CREATE INDEX i ON t (f(n))", "DROP INDEX i"),
        ("CREATE INDEX i ON t (n) WHERE f(n) > 0", "DROP INDEX i"),
        (
            "ALTER TABLE t ADD CHECK (f(n) > 0)",
            "ALTER TABLE t DROP CONSTRAINT t_n_check",
        ),
        (
            "ALTER TABLE t ADD COLUMN i int GENERATED ALWAYS AS (f(n)) STORED",
            "ALTER TABLE t DROP COLUMN i",
        ),
        ("CREATE TABLE i (n int) PARTITION BY RANGE (f(n))", "DROP TABLE i"),
    ):
        function.execute(also.encode())
        with pytest.raises(Refused, match="is not computed anew"):
            runner.expand(made)
        function.execute(gone.encode())
    function.execute("ALTER TABLE t ALTER COLUMN n SET DEFAULT f(1)")
    function.execute("CREATE VIEW v AS SELECT f(n) FROM t")
    assert runner.expand(made) is State.VERIFIED


@pytest.mark.parametrize("lost", ["SECURITY DEFINER", "SET search_path = public"])
def test_what_makes_it_safe_is_not_lost_without_a_word(
    lost: str, runner: Runner, function: psycopg.Connection
) -> None:
    """CREATE OR REPLACE takes it from the new text alone."""
    function.execute(f"ALTER FUNCTION f {lost}".encode())
    with pytest.raises(Refused, match="It loses SECURITY DEFINER, or a parameter"):
        runner.expand(change(text("SELECT 1")))
    assert runner.expand(change(text("SELECT 1", more=lost))) is State.VERIFIED


@pytest.mark.parametrize(
    ("head", "new", "apart"),
    [
        ("f(a text)", "f(text)", False),
        ("f(a int, b int DEFAULT 1)", "f(int, int)", False),
        ("f(VARIADIC a int[])", "f(int[])", False),
        ("f()", "f()", True),
        ("f(a int, b int)", "f(int, int)", True),
    ],
)
def test_calls_that_may_mean_the_new_one_need_a_word(
    head: str, new: str, apart: bool, runner: Runner, function: psycopg.Connection
) -> None:
    """A call with a bare literal goes to the one that takes text."""
    made = change(text("SELECT 1", head), new_function=new)
    if apart:
        assert runner.expand(made) is State.VERIFIED
        return
    with pytest.raises(Refused, match="may come to mean the new one"):
        runner.expand(made)


# -- messages ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("definition", "given", "message"),
    [
        (
            text("SELECT nothing"),
            {},
            "replace function f(integer): the server refuses its definition: column"
            ' "nothing" does not exist.',
        ),
        (
            text("SELECT 1", "f(a text)"),
            {},
            "replace function f(integer): its definition makes another function than"
            f" f(integer) of schema public.{NOTHING}write the name that it makes, with"
            " its schema; where the arguments are others, give"
            ' new_function="name(types)".',
        ),
        (
            text("SELECT 1", "f(a int DEFAULT 3)"),
            {},
            "replace function f(integer): it could not be taken back: cannot remove"
            f" parameter defaults from existing function.{NOTHING}leave arguments"
            " without a name or default as they are; or let it make another function,"
            " and give new_function=….",
        ),
        (
            "CREATE OR REPLACE FUNCTION f(a int) RETURNS text LANGUAGE sql AS"
            " 'SELECT $$$$'",
            {},
            "replace function f(integer): the server refuses its definition: cannot"
            " change return type of existing function.",
        ),
        (
            text("SELECT 1", "g()"),
            {"new_function": "f(text)"},
            "replace function f(integer) by f(text): its definition makes another"
            " function than f(text) of schema public.",
        ),
    ],
)
def test_message_of_a_definition(
    definition: str,
    given: dict[str, str],
    message: str,
    runner: Runner,
    function: psycopg.Connection,
) -> None:
    """It is tried out, and so is the way back; nothing is left of it."""
    before = state(function)
    with pytest.raises(Refused) as caught:
        runner.expand(change(definition, **given))
    assert str(caught.value).startswith(message)
    assert state(function) == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "g(int)",
            "There is no function g(int) in the search path."
            f"{NOTHING}correct the name and the types of its arguments, or give its"
            r" schema; `\df` in psql lists them.",
        ),
        (
            "f",
            '"f" is no signature of a function.'
            f"{NOTHING}write its name and the types of its arguments:"
            ' "total(integer)".',
        ),
        (
            "pg_catalog.sum(int)",
            "sum(integer) is an aggregate, or no function any more."
            f"{NOTHING}name a function or a procedure.",
        ),
    ],
)
def test_message_about_a_name(name: str, message: str, runner: Runner) -> None:
    """What it may be is told."""
    pattern = ReplaceFunction(name, text("SELECT 1"))
    with pytest.raises(Refused) as caught:
        runner.expand(Change(revision="a1", pattern=pattern))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("pattern", "lost", "message"),
    [
        (
            ONE,
            "unstored",
            "An index, a constraint, a generated column or a partition was computed by"
            " it: what is stored is not computed anew.",
        ),
        (
            ONE,
            "secure",
            "It loses SECURITY DEFINER, or a parameter that is SET for it: both are"
            " taken from the new text alone.",
        ),
        (
            OTHER,
            "apart",
            "Calls of f(integer) whose arguments have no type of their own, or another"
            " one, may come to mean the new one.",
        ),
    ],
)
def test_message_where_a_word_is_needed(
    pattern: ReplaceFunction, lost: str, message: str
) -> None:
    """A person has to say that it is none here."""
    with pytest.raises(Refused) as caught:
        pattern.check(facts(answers={lost: False}))
    assert str(caught.value) == f"{pattern.title}: {message}{WORD}"
    replace(pattern, assured="fine").check(facts(answers={lost: False}))


def test_notices() -> None:
    """A reviewer reads who calls what."""
    (one,) = ONE.check(facts())
    (other,) = OTHER.check(facts())
    assert one.text == "Both releases call the new text from expand on."
    assert other.text == (
        "The new release calls f(text). Functions that call f(integer) by its name are"
        " not known: they fail after the drop."
    )
