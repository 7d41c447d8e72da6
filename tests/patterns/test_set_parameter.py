"""SetParameter: its text, its life, its traps and its messages."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import psycopg
import pytest

from migrator.change import Change
from migrator.errors import Failed, MigratorError, Refused
from migrator.facts import Facts, Table
from migrator.kernels import parameters
from migrator.names import TableName
from migrator.patterns import SetParameter
from migrator.plan import Autocommit, Lock, State, Transaction
from migrator.postgres.connection import Target
from migrator.postgres.embedded import Server
from migrator.runner import Runner
from migrator.settings import Settings

MEM = SetParameter("work_mem", "64MB")
NOTHING = "\nNothing was changed.\nNext: "
WORD = (
    f'{NOTHING}look into it, then write assured="why it is safe here" into the pattern.'
)


def facts(pattern: SetParameter, **given: object) -> Facts:
    """Return facts about the parameter of a pattern."""
    name, scope = pattern.subject
    table = Table(name=TableName(scope or 'DATABASE "my db"', name), oid=0, columns=())
    return replace(Facts(server_version=180000, tag="0123456789", table=table), **given)


def texts(pattern: SetParameter, old: str | None) -> tuple[str, str]:
    """Return what sets the parameter, and what puts it back."""
    step = pattern.expand(facts(pattern, definition=old))[0]
    work, back = step.work, step.reverse[0]
    if isinstance(work, Autocommit):
        assert isinstance(back, Autocommit)
        return work.statement, back.statement
    assert isinstance(work, Transaction)
    assert isinstance(back, Transaction)
    assert work.lock is Lock.NONE
    return work.statements[0], back.statements[-1]


# -- text --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "scope"),
    [
        ({}, 'DATABASE "my db"'),
        ({"database": 'a"b %s:x'}, 'DATABASE "a""b %s:x"'),
        ({"role": "r o"}, 'ROLE "r o"'),
        ({"role": "r", "database": "d"}, 'ROLE "r" IN DATABASE "d"'),
        ({"system": True}, "SYSTEM"),
    ],
)
def test_text_of_every_scope(given: dict[str, object], scope: str) -> None:
    """Names are quoted, and what was there before comes back."""
    pattern = replace(MEM, **given)
    forth, back = f"ALTER {scope} SET \"work_mem\" = '64MB'", f"ALTER {scope} RESET"
    assert texts(pattern, None) == (forth, f'{back} "work_mem"')
    assert texts(pattern, "3 'kB'") == (
        forth,
        f"ALTER {scope} SET \"work_mem\" = '3 ''kB'''",
    )
    none = replace(pattern, value=None)
    assert texts(none, "1GB")[0] == f'{back} "work_mem"'


def test_text_of_one_of_an_applications_own() -> None:
    """Each part of its name stands in quotes."""
    own = SetParameter("app.li mit", "a, b")
    assert texts(own, None)[0] == (
        'ALTER DATABASE "my db" SET "app"."li mit" = \'a, b\''
    )


def test_text_for_the_whole_server() -> None:
    """The file tells whether it is done; the configuration is read anew each way."""
    pattern = SetParameter("Search_Path", '"$user", b', system=True)
    first, last = pattern.expand(facts(pattern))
    assert isinstance(first.work, Autocommit)
    assert first.work.done is not None
    assert "ARRAY['$user', 'b']" in first.work.done
    reload = Transaction(statements=("SELECT pg_catalog.pg_reload_conf()",))
    assert last.work == first.reverse[1] == reload
    assert last.no_reverse == "the step before reloads as it is taken back"


@pytest.mark.parametrize(
    ("name", "value", "items"),
    [
        ("search_path", '"$user", public', ("$user", "public")),
        ("search_path", ' MiX , "M""i, X" ', ("mix", 'M"i, X')),
        ("search_path", "", ("",)),
        ("search_path", '""', ("",)),
        ("session_preload_libraries", "Lib, 'x'", ("Lib", "'x'")),
        ("work_mem", "a, b", ("a, b",)),
    ],
)
def test_items_of_a_list(name: str, value: str, items: tuple[str, ...]) -> None:
    """A list is no single name with a comma in it."""
    assert parameters.items(name, value) == items


# -- life cycle --------------------------------------------------------------


@pytest.fixture
def role(sql: psycopg.Connection) -> Iterator[str]:
    """Give a role of the test's own, with a name in need of quotes."""
    name = f"r {sql.info.dbname[-12:]}"
    sql.execute(f'CREATE ROLE "{name}" LOGIN SUPERUSER'.encode())
    yield name
    sql.execute(f'DROP ROLE "{name}"'.encode())


def kept(sql: psycopg.Connection) -> list[tuple[object, ...]]:
    """Return what is set for the database, and for roles."""
    return sql.execute(
        "SELECT setdatabase <> 0, setrole <> 0, unnest(setconfig) FROM"
        " pg_db_role_setting LEFT JOIN pg_roles r ON r.oid = setrole WHERE setdatabase"
        " = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " OR rolname LIKE 'r %' ORDER BY 3"
    ).fetchall()


@pytest.mark.parametrize("scope", ["", "database", "role", "both"])
@pytest.mark.parametrize("before", [None, '"$user", b'])
def test_life(
    scope: str,
    before: str | None,
    runner: Runner,
    sql: psycopg.Connection,
    role: str,
    database: str,
) -> None:
    """New sessions have it; the value before comes back as it was stored."""
    name = sql.info.dbname
    where = {
        "": {},
        "database": {"database": name},
        "role": {"role": role},
        "both": {"role": role, "database": name},
    }[scope]
    pattern = SetParameter("search_path", '"A,b", PUBLIC', assured="test", **where)
    scoped = pattern.subject[1] or f'DATABASE "{name}"'
    sql.execute(f"ALTER {scoped} SET work_mem = '7MB'".encode())
    if before is not None:
        sql.execute(f"ALTER {scoped} SET search_path = {before}".encode())
    start = kept(sql)
    change = Change(revision="a1", pattern=pattern)

    def told() -> object:
        with psycopg.connect(database, user=role) as other:
            row = other.execute("SHOW search_path").fetchone()
            assert row is not None
            return row[0]

    was = told()
    assert runner.expand(change) is State.VERIFIED
    assert runner.change("a1").finished
    assert told() == '"A,b", public'
    assert runner.rollback("a1") is State.PLANNED
    assert kept(sql) == start
    assert told() == was
    assert runner.expand(change) is State.VERIFIED
    assert told() == '"A,b", public'
    runner.rollback("a1")


def test_life_of_a_reset_and_of_an_own_one(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """None takes the value away; one with a dot may be set nowhere yet."""
    name = sql.info.dbname
    sql.execute(f"ALTER DATABASE {name} SET app.\"limit\" = 'old %s'".encode())
    start = kept(sql)
    gone = Change(revision="a1", pattern=SetParameter("app.limit", None))
    runner.expand(gone)
    assert kept(sql) == []
    runner.rollback("a1")
    assert kept(sql) == start
    other = Change(revision="a2", pattern=SetParameter("APP.other", "a\\b"))
    runner.expand(other)
    assert (True, False, "app.other=a\\b") in [
        (d, r, str(c).replace("APP", "app")) for d, r, c in kept(sql)
    ]
    runner.rollback("a2")
    assert kept(sql) == start


@pytest.mark.parametrize("scope", ["", "both"])
def test_a_value_that_came_since(
    scope: str, runner: Runner, sql: psycopg.Connection, role: str
) -> None:
    """What somebody has set meanwhile is not taken away by the way back."""
    where = {"role": role, "database": sql.info.dbname} if scope else {}
    pattern = SetParameter("search_path", '"A,b", PUBLIC', assured="test", **where)
    scoped = pattern.subject[1] or f'DATABASE "{sql.info.dbname}"'
    change = Change(revision="a1", pattern=pattern)
    start = kept(sql)
    runner.expand(change)
    sql.execute(f"ALTER {scoped} SET search_path = 'it''s', c".encode())
    with pytest.raises(Refused) as caught:
        runner.rollback("a1")
    assert str(caught.value).endswith(
        f"is refused: search_path of {scoped} was given another value since:"
        f" '\"it''s\", c'.{NOTHING}where that may go, run ALTER {scoped} SET"
        " \"search_path\" = 'A,b', 'public'; then the same command again."
    )
    sql.execute(f"ALTER {scoped} SET search_path = 'A,b', 'public'".encode())
    assert runner.rollback("a1") is State.PLANNED
    assert kept(sql) == start


def soon(question: Callable[[], object], wanted: object) -> None:
    """Assert that an answer comes: a reload is read by each session in its time."""
    end = time.monotonic() + 10
    while (found := question()) != wanted and time.monotonic() < end:
        time.sleep(0.05)
    assert found == wanted


@pytest.mark.parametrize(
    ("name", "value", "before", "shown"),
    [
        ("work_mem", "64MB", None, "64MB"),
        ("log_checkpoints", "off", "on", "off"),
        ("search_path", '"a b", C', None, '"a b", c'),
    ],
)
def test_life_for_the_whole_server(
    name: str, value: str, before: str | None, shown: str, private_server: Server
) -> None:
    """It is read anew, also after the way back; a step cut off is looked for."""
    target = Target.from_url(private_server.url())
    runner = Runner(target, Settings(hold_s=0, step_budget_s=3.0))
    with psycopg.connect(private_server.url(), autocommit=True) as sql:

        def ask(question: str) -> object:
            row = sql.execute(question.encode()).fetchone()
            return row and row[0]

        written = f"SELECT setting FROM pg_file_settings WHERE name = '{name}' AND"
        mine = f"{written} sourcefile LIKE '%auto.conf'"
        if before is not None:
            sql.execute(f"ALTER SYSTEM SET {name} = '{before}'".encode())
            sql.execute("SELECT pg_reload_conf()")
            soon(lambda: ask(f"SHOW {name}"), before)
        was = ask(f"SHOW {name}")
        pattern = SetParameter(name, value, system=True, assured="test")
        change = Change(revision="a1", pattern=pattern)
        assert runner.expand(change) is State.VERIFIED
        soon(lambda: ask(f"SHOW {name}"), shown)
        assert ask(mine) == shown
        first, last = runner.steps("a1")
        assert (first.step.name, last.step.name) == ("set_parameter", "reload")
        assert isinstance(first.step.work, Autocommit)
        # What a run that is cut off asks before it does it again.
        assert ask(str(first.step.work.done)) is True
        assert ask(str(getattr(first.step.reverse[0], "done", ""))) is False
        assert runner.rollback("a1") is State.PLANNED
        soon(lambda: ask(f"SHOW {name}"), was)
        assert ask(mine) == before
        assert ask(str(getattr(first.step.reverse[0], "done", ""))) is True


def test_a_value_that_only_the_step_looks_at(private_server: Server) -> None:
    """The server refuses it before it writes; nothing of it is left."""
    target = Target.from_url(private_server.url())
    runner = Runner(target, Settings(hold_s=0, step_budget_s=3.0))
    pattern = SetParameter("checkpoint_timeout", "1ms", system=True)
    with pytest.raises(Failed, match=r"invalid value|outside the valid range"):
        runner.expand(Change(revision="a1", pattern=pattern))
    assert runner.rollback("a1") is State.PLANNED
    with psycopg.connect(private_server.url()) as sql:
        row = sql.execute(
            "SELECT count(*) FROM pg_file_settings WHERE name = 'checkpoint_timeout'"
        ).fetchone()
    assert row == (0,)


def test_a_role_that_may_not(sql: psycopg.Connection, database: str) -> None:
    """What it lacks is told, and nothing was tried."""
    name = f"s {sql.info.dbname[-12:]}"
    sql.execute(f'CREATE ROLE "{name}" LOGIN'.encode())
    sql.execute(f'GRANT CREATE ON DATABASE {sql.info.dbname} TO "{name}"'.encode())
    try:
        target = Target({**Target.from_url(database).params, "user": name})
        for pattern in (MEM, replace(MEM, system=True)):
            with pytest.raises(MigratorError, match=r"must be owner|denied|not allow"):
                Runner(target, Settings()).expand(
                    Change(revision="a1", pattern=pattern)
                )
    finally:
        sql.execute(f'DROP OWNED BY "{name}" CASCADE; DROP ROLE "{name}"'.encode())


# -- messages ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            SetParameter("work_memm", "1MB"),
            'There is no parameter "work_memm" on this server.'
            f"{NOTHING}correct the name; `SHOW ALL` lists them. One of your own has a"
            ' dot in its name: "app.limit".',
        ),
        (
            SetParameter("work_mem", "much"),
            "set work_mem to 'much' of this database: the server refuses it: invalid"
            f' value for parameter "work_mem": "much".{NOTHING}correct the value;'
            " pg_settings tells its unit and its bounds.",
        ),
        (
            SetParameter("work_mem", "much", system=True),
            "set work_mem to 'much' of SYSTEM: the server refuses it: invalid value for"
            f' parameter "work_mem": "much".{NOTHING}correct the value; pg_settings'
            " tells its unit and its bounds.",
        ),
        (
            SetParameter("work_mem", "1MB", role="nobody there"),
            "set work_mem to '1MB' of ROLE \"nobody there\": the server refuses it:"
            f' role "nobody there" does not exist.{NOTHING}correct the value;'
            " pg_settings tells its unit and its bounds.",
        ),
        (
            SetParameter("shared_buffers", "1GB"),
            "set shared_buffers to '1GB' of this database: shared_buffers is one of the"
            f" whole server.{NOTHING}give system=True.",
        ),
        (
            SetParameter("checkpoint_timeout", "1h"),
            "set checkpoint_timeout to '1h' of this database: checkpoint_timeout is one"
            f" of the whole server.{NOTHING}give system=True.",
        ),
        (
            SetParameter("session_preload_libraries", "x"),
            "set session_preload_libraries to 'x' of this database: where the server"
            " cannot load one of them, no session begins any more, of a release or to"
            f" take it back.{NOTHING}set it by hand, from a session that stays open,"
            " and try another one at once.",
        ),
        (
            SetParameter("Shared_Preload_Libraries", ' ""', system=True, assured="r"),
            "set Shared_Preload_Libraries to ' \"\"' of SYSTEM: the server keeps an"
            " empty list as a library without a name, and does not start again."
            f"{NOTHING}write None, which resets it to what postgresql.conf says.",
        ),
        (
            SetParameter("block_size", "1", system=True),
            "set block_size to '1' of SYSTEM: block_size is fixed in this server; it"
            f" only tells.{NOTHING}leave it.",
        ),
        (
            SetParameter("Primary_ConnInfo", "x", system=True),
            "Parameter primary_conninfo may hold a secret, which plans and the ledger"
            f" would show.{NOTHING}set it by hand.",
        ),
        (
            SetParameter("app.jwt_Secret", "x"),
            "Parameter app.jwt_secret may hold a secret, which plans and the ledger"
            f" would show.{NOTHING}set it by hand.",
        ),
        (
            SetParameter("default_transaction_read_only", "on"),
            "set default_transaction_read_only to 'on' of this database: then no"
            f" session could write, to take it back either.{NOTHING}set it by hand.",
        ),
        (
            SetParameter("work_mem", "1MB", system=True, role="r"),
            "set work_mem to '1MB' of SYSTEM: it is to hold for the whole server and"
            f" for less.{NOTHING}give system=True, or database= and role=.",
        ),
        (
            SetParameter("shared_buffers", "1GB", system=True),
            "set shared_buffers to '1GB' of SYSTEM: It waits for the next start of the"
            " server, which may fail with a value that does not fit the machine; then"
            f" the line in postgresql.auto.conf has to go by hand.{WORD}",
        ),
        (
            SetParameter("search_path", 'a, "b'),
            "'a, \"b' is no list for search_path: a name in it has a quote alone."
            f"{NOTHING}write names with commas between them, and such in quotes:"
            " '\"a,b\", c'.",
        ),
        (
            SetParameter("search_path", "a"),
            "set search_path to 'a' of this database: Names without a schema mean"
            f" others from then on, also in later changes.{WORD}",
        ),
    ],
)
def test_message(
    pattern: SetParameter, message: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """What cannot work is refused before anything is changed; a secret is not told."""
    with pytest.raises(Refused) as caught:
        runner.expand(Change(revision="a1", pattern=pattern))
    assert str(caught.value) == message
    assert kept(sql) == []


@pytest.mark.parametrize(
    ("pattern", "answers", "said"),
    [
        (
            MEM,
            {"narrower": True},
            [
                "Sessions that begin after it have it, of both releases; those of a"
                " pool stay as they are.",
                "It is set for a role or database as well: that counts.",
            ],
        ),
        (
            replace(MEM, system=True),
            {},
            ["All sessions have it after the reload."],
        ),
    ],
)
def test_notices(
    pattern: SetParameter, answers: dict[str, bool], said: list[str]
) -> None:
    """A reviewer reads which sessions have it."""
    found = pattern.check(facts(pattern, answers=answers))
    assert [n.text for n in found] == said


def test_what_is_set_for_less_is_seen(
    runner: Runner, sql: psycopg.Connection, role: str
) -> None:
    """A role's own value goes before the database's."""
    sql.execute(f'ALTER ROLE "{role}" SET work_mem = 77'.encode())
    plan = runner.plan(Change(revision="a1", pattern=MEM))
    assert "that counts" in plan.notices[-1].text
