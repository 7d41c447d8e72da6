"""What breaks, or stops, with a table's number of columns is told of every pattern."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psycopg
import pytest
from test_plan import PATTERNS, facts_of

from migrator.change import Change
from migrator.facts import Facts, Kind, RowUser, Table
from migrator.pattern import Pattern
from migrator.patterns import (
    AddColumn,
    ChangeColumnType,
    ChangePrimaryKey,
    MergeTables,
    RebuildTable,
    RenameColumn,
    ReplaceView,
)
from migrator.plan import Autocommit, Phase, State, Transaction
from migrator.runner import Runner

#: What changes a row of a table, with the phase in which it matters to readers.
CHANGES = re.compile(
    r"""ALTER TABLE (?:ONLY )?("\S+?"\."\S+?") .*?"""
    r"(ADD COLUMN|RENAME COLUMN|DROP COLUMN)",
    re.DOTALL,
)


def _changes(pattern: Pattern, facts: Facts) -> Iterator[tuple[Phase, str, str]]:
    """Give the phase, the table and how a pattern changes its columns."""
    for phase in Phase:
        for step in pattern.steps(phase, facts):
            work = step.work
            made = work.statements if isinstance(work, Transaction) else ()
            if isinstance(work, Autocommit):
                made = (work.statement,)
            for statement in made:
                for table, how in CHANGES.findall(statement):
                    yield phase, table, how


def _used(table: Table) -> Table:
    users = (RowUser(function="keep()", trigger="keep"), RowUser(function="few()"))
    return replace(table, row_users=users, publications=("pub",))


@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
def test_a_plan_tells_who_has_whole_rows(pattern: Pattern) -> None:
    """Subscribers, functions of row types, triggers with OLD.*, prepared SELECT *."""
    if pattern.kind is not Kind.TABLE:
        return
    facts = facts_of(pattern)
    # A table that goes as a whole is refused where it is published.
    stays = facts.table if isinstance(pattern, MergeTables) else _used(facts.table)
    facts = replace(facts, table=stays, others=tuple(map(_used, facts.others)))
    known = {str(t.name): t for t in (facts.table, *facts.others)}
    changes = [c for c in _changes(pattern, facts) if c[1] in known]
    if not changes:
        return
    notices = replace(pattern, assured="tried").check(facts)
    texts = [n.text for n in notices]
    asked = [n.text for n in notices if n.needs_assurance]

    def told(what: str, among: list[str] = asked) -> None:
        assert any(what in text for text in among), (what, texts)

    for phase, table, how in changes:
        told(f"Table {table} is published")
        told("Prepared SELECT *", texts)
        if how != "RENAME COLUMN":
            told('of trigger "keep", keep(), takes rows apart')
            told(f"few() returns rows of {table}")
        if (phase, how) == (Phase.EXPAND, "ADD COLUMN"):
            told("fires it breaks at expand")


def test_a_table_that_is_written_anew_with_a_further_column() -> None:
    """Its triggers go over to it at retire, and meet the column there."""
    plain = RebuildTable("users", assured="tried")
    wider = replace(plain, alter=["ADD COLUMN n int GENERATED ALWAYS AS (1) STORED"])
    facts = facts_of(plain)
    facts = replace(facts, table=replace(_used(facts.table), publications=()))
    told = "every write that fires it breaks at retire"
    assert not any(told in n.text for n in plain.check(facts))
    assert any(told in n.text for n in wider.check(facts))


ROWS = """
CREATE TABLE o (id int PRIMARY KEY, st text);
CREATE TABLE kept (LIKE o);
CREATE TABLE told (what text);
CREATE VIEW v AS SELECT id FROM o;
INSERT INTO o VALUES (1, 'a');
CREATE FUNCTION viewed() RETURNS SETOF v LANGUAGE sql AS 'SELECT id FROM o';
"""
#: Bodies of trigger functions, and whether a further column breaks them.
APART = {
    "INSERT INTO kept SELECT OLD.*": True,
    "INSERT INTO kept VALUES (OLD . *)": True,
    "INSERT INTO kept SELECT (new).*": True,
    "IF NEW.* IS DISTINCT FROM OLD.* THEN INSERT INTO told VALUES (NEW.id); END IF": (
        False
    ),
    "IF ROW(NEW.*) IS NOT DISTINCT FROM ROW(OLD.*) THEN RETURN NEW; END IF": False,
    "INSERT INTO told VALUES (to_jsonb(OLD.*)), (NEW::text)": False,
    "INSERT INTO kept (id, st) VALUES (OLD.id, NEW.st)": False,
}
#: Functions with their signatures, and whether a further column breaks them; None where
#: a word is not asked for.
RETURNS = {
    "f_one() RETURNS o LANGUAGE sql AS 'SELECT id, st FROM o'": True,
    "f_few() RETURNS SETOF o LANGUAGE plpgsql AS"
    " 'BEGIN RETURN QUERY SELECT id, st FROM o; END'": True,
    "f_cast() RETURNS text LANGUAGE sql AS 'SELECT (ROW(1, ''b'')::o).st'": True,
    "f_body() RETURNS SETOF o BEGIN ATOMIC SELECT * FROM o; END": True,
    "f_out(OUT r o) LANGUAGE plpgsql AS 'BEGIN SELECT * INTO r FROM o; END'": None,
    "f_whole() RETURNS SETOF o LANGUAGE sql AS 'SELECT * FROM o'": None,
    "f_null() RETURNS text LANGUAGE sql AS 'SELECT (NULL::o).st'": False,
    "f_takes(r o) RETURNS text LANGUAGE sql AS 'SELECT r.st'": False,
}


def test_who_has_whole_rows_is_found(runner: Runner, sql: psycopg.Connection) -> None:
    """Those that a further column breaks, and no comparison or call with a row."""
    made = [ROWS]
    for n, body in enumerate(APART):
        made.append(
            f"CREATE FUNCTION t{n}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" {body}; RETURN NEW; END $$; CREATE TRIGGER t{n} BEFORE UPDATE ON o FOR"
            f" EACH ROW EXECUTE FUNCTION t{n}();"
        )
    made += [f"CREATE FUNCTION {function};" for function in RETURNS]
    sql.execute("".join(made).encode())
    sql.execute("UPDATE o SET st = 'b'")
    add = AddColumn("o", "more", "text", assured="tried")
    plan = runner.plan(Change(revision="a1", pattern=add))
    texts = [n.text for n in plan.notices if n.needs_assurance]
    rename = RenameColumn("o", "st", "state", assured="tried")
    renamed = runner.plan(Change(revision="a2", pattern=rename)).notices
    # The others break at expand already.
    (late,) = (n.text for n in renamed if n.text.startswith("The text of"))
    assert late.startswith("The text of f_cast(), f_null() has")
    view = ReplaceView("v", "SELECT id, st FROM o", assured="tried")
    shown = runner.plan(Change(revision="v1", pattern=view)).notices
    assert any("Function viewed() returns rows" in n.text for n in shown)
    runner.expand(Change(revision="a1", pattern=add))
    for n, (body, breaks) in enumerate(APART.items()):
        sql.execute("ALTER TABLE o DISABLE TRIGGER USER")
        sql.execute(f"ALTER TABLE o ENABLE TRIGGER t{n}".encode())
        assert _fails(sql, "UPDATE o SET st = st || 'c'") is breaks, body
        assert any(f"t{n}()" in text for text in texts) is breaks, body
    for function, breaks in RETURNS.items():
        name = function[: function.index("(")]
        if name != "f_takes":
            assert _fails(sql, f"SELECT {name}()") is bool(breaks), function
        assert any(f"{name}()" in text for text in texts) is bool(breaks), function
        told = any(f"{name}(" in n.text for n in plan.notices)
        assert told is (breaks is not False), function


def _fails(sql: psycopg.Connection, statement: str) -> bool:
    try:
        sql.execute(statement.encode())
    except psycopg.Error:
        return True
    return False


@pytest.mark.parametrize(
    "pattern",
    [
        ChangePrimaryKey("t", "id", assured="tried"),
        ChangeColumnType("t", "n", "bigint", assured="tried"),
        ChangeColumnType("t", "word", "text", assured="tried"),
        RenameColumn("t", "few", "some", assured="tried"),
    ],
    ids=["key", "second column", "in place", "of a domain"],
)
def test_a_session_goes_on_with_triggers_that_it_ran(
    runner: Runner, sql: psycopg.Connection, pattern: Pattern
) -> None:
    """PL/pgSQL would keep expressions with the type that the column had there."""
    sql.execute(
        "CREATE DOMAIN few AS int CHECK (value < 9);"
        "CREATE TABLE t (id int PRIMARY KEY, n int, word varchar(9), few few);"
        "CREATE TABLE noted (id bigint, n bigint, word text);"
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN"
        " IF to_jsonb(NEW) ? ''some'' THEN NEW.n := NEW.n + coalesce(NEW.some, 0);"
        " END IF; INSERT INTO noted (id, n, word) VALUES (NEW.id, NEW.n, NEW.word);"
        " RETURN NULL; END';"
        "CREATE TRIGGER note AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION note()"
    )
    change = Change(revision="a1", pattern=pattern)

    def write(id: int) -> None:
        sql.execute("INSERT INTO t (id, n, word) VALUES (%s, 1, 'a')", [id])

    write(1)
    runner.expand(change)
    runner.settle("a1")
    write(2)
    runner.retire("a1", old_release_gone="test")
    write(3)
    runner.rollback("a1")
    write(4)
    assert sql.execute("SELECT count(*) FROM noted").fetchone() == (4,)


def test_a_function_that_another_session_changes_is_waited_for(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """The server would refuse to change it a second time, and all is tried again."""
    sql.execute(
        "CREATE TABLE t (id int PRIMARY KEY); CREATE FUNCTION f() RETURNS trigger"
        " LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER f BEFORE INSERT"
        " ON t FOR EACH ROW EXECUTE FUNCTION f()"
    )
    runner.expand(
        Change(revision="a1", pattern=ChangePrimaryKey("t", "id", assured="x"))
    )
    runner.settle("a1")
    waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = %s"
    with (
        psycopg.connect(database) as other,
        ThreadPoolExecutor(max_workers=1) as pool,
    ):
        other.execute("ALTER FUNCTION f() COST 7")
        retired = pool.submit(runner.retire, "a1", old_release_gone="test")
        while not retired.done():
            if sql.execute(waits, ["transactionid"]).fetchone() != (0,):
                other.commit()
        assert retired.result() is State.RETIRED
    cost = sql.execute("SELECT procost FROM pg_proc WHERE proname = 'f'").fetchone()
    assert cost == (7,)
