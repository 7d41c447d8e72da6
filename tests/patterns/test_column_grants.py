"""Privileges on single columns go along with what the columns hold."""

from collections.abc import Iterator

import psycopg
import pytest

from migrator.change import Change
from migrator.errors import Refused
from migrator.pattern import Pattern
from migrator.patterns import (
    AddColumn,
    ExtractTable,
    MergeColumns,
    MergeTables,
    MoveColumn,
)
from migrator.runner import Runner

SETUP = """
CREATE TABLE t (id bigint PRIMARY KEY, name text, first text, last text);
CREATE TABLE n (id bigint PRIMARY KEY REFERENCES t, note text);
INSERT INTO t SELECT g, 'n' || g, 'a', 'b' FROM generate_series(1, 9) g;
INSERT INTO n SELECT id, 'x' FROM t;
GRANT USAGE ON SCHEMA public TO {role};
GRANT SELECT (id, name, first, last), UPDATE (name, first, last) ON t TO {role};
GRANT SELECT (id, note), UPDATE (note) ON n TO {role} WITH GRANT OPTION;
"""
MERGED = MergeColumns(
    "t",
    ["first", "last"],
    "whole",
    "text",
    "first || ' ' || last",
    back={
        "first": "split_part(whole, ' ', 1)",
        "last": "split_part(whole, ' ', 2)",
    },
)
BOTH = ["SELECT", "UPDATE"]
PASSED_ON = ["SELECT*", "UPDATE*"]
#: What the role has while both releases work, and at the end, where it is something
#: that the change makes.
CASES: dict[str, tuple[Pattern, dict[str, list[str]], dict[str, list[str]]]] = {
    "merge_columns": (MERGED, {"t.whole": BOTH}, {"t.whole": BOTH}),
    "move_column": (
        MoveColumn("t", "name", to="n", key={"id": "id"}, assured="tried"),
        {"n.name": BOTH},
        {"n.name": BOTH},
    ),
    "extract_table": (
        ExtractTable("t", "m", ["name"], reference="m_id", assured="tried"),
        {"m.id": ["SELECT"], "m.name": BOTH, "t.m_id": BOTH},
        {"m.id": ["SELECT"], "m.name": BOTH, "t.m_id": BOTH},
    ),
    "merge_tables": (
        MergeTables("n", "t", ["note"], key={"id": "id"}, assured="tried"),
        {"n.id": ["SELECT*"], "n.note": PASSED_ON, "t.note": PASSED_ON},
        {"t.note": PASSED_ON},
    ),
}


@pytest.fixture
def role(sql: psycopg.Connection) -> Iterator[str]:
    """Give a role that may use some columns."""
    name = f"few_{sql.info.dbname}"
    sql.execute(f"CREATE ROLE {name}".encode())
    yield name
    sql.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())


def granted(sql: psycopg.Connection, role: str) -> dict[str, list[str]]:
    """Return what the role may do, by table and column; * is what it may pass on."""
    rows = sql.execute(
        "SELECT table_name || '.' || column_name, array_agg(privilege_type ||"
        " CASE is_grantable WHEN 'YES' THEN '*' ELSE '' END ORDER BY 1)"
        " FROM information_schema.column_privileges WHERE grantee = %s"
        " AND table_name !~ '^_migrator' GROUP BY 1",
        (role,),
    )
    return {name: sorted(words) for name, words in rows}


@pytest.mark.parametrize("name", CASES)
def test_they_go_along(
    name: str, runner: Runner, sql: psycopg.Connection, role: str
) -> None:
    """Who may read or write the old shape may do so with the new one, at once."""
    sql.execute(SETUP.format(role=role).encode())
    pattern, meanwhile, finally_ = CASES[name]
    runner.expand(Change(revision="two", pattern=pattern))
    runner.settle("two")
    assert meanwhile.items() <= granted(sql, role).items()
    with sql.transaction():
        sql.execute(f"SET LOCAL ROLE {role}".encode())
        for place in meanwhile:
            table, column = place.split(".")
            sql.execute(f"SELECT {column} FROM {table}".encode())
    runner.retire("two", old_release_gone="test")
    runner.drop("two")
    assert finally_.items() <= granted(sql, role).items()


def test_a_privilege_on_some_of_merged_columns_takes_a_word(
    runner: Runner, sql: psycopg.Connection, role: str
) -> None:
    """What a role has on one of them alone it does not get on the whole."""
    sql.execute(SETUP.format(role=role).encode())
    sql.execute(f"REVOKE UPDATE (last) ON t FROM {role}".encode())
    with pytest.raises(Refused, match="has UPDATE on some of the columns alone"):
        runner.expand(Change(revision="two", pattern=MERGED))


def test_a_column_that_nobody_is_granted_yet(
    role: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """Who may read each column, and not the table, meets it in SELECT *."""
    sql.execute(SETUP.format(role=role).encode())
    change = Change(revision="a1", pattern=AddColumn("t", "more", "int"))
    with pytest.raises(Refused, match=r'SELECT \* .* granted SELECT \("more"\)'):
        runner.plan(change)
    sql.execute(f"REVOKE SELECT (id) ON t FROM {role}".encode())
    runner.plan(change)
