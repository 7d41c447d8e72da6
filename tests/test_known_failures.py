"""What other tools for changes of a schema are known to lose, tried on ours."""

import psycopg
import pytest

from migrator.change import Change
from migrator.pattern import Pattern
from migrator.patterns import (
    MoveToSchema,
    PartitionTable,
    RebuildTable,
    RenameTable,
)
from migrator.plan import State
from migrator.runner import Runner

#: Each with the names under which releases know the table in the window, and after.
SWAPPED: dict[str, tuple[Pattern, list[str], list[str]]] = {
    "rename": (
        RenameTable("t", "u", assured="tried"),
        ["public.t", "public.u"],
        ["public.u"],
    ),
    "move": (
        MoveToSchema("t", "other", assured="tried"),
        ["public.t", "other.t"],
        ["other.t"],
    ),
    "rebuild": (RebuildTable("t", assured="tried"), ["public.t"], ["public.t"]),
    "partition": (
        PartitionTable(
            "t", "HASH", ["id"], ["t_0", "t_1"], key=["id"], assured="tried"
        ),
        ["public.t"],
        ["public.t"],
    ),
}


@pytest.mark.parametrize("name", SWAPPED)
def test_columns_keep_their_order(
    runner: Runner, sql: psycopg.Connection, name: str
) -> None:
    """Of tables and views: an INSERT without names, and COPY, go by it."""
    pattern, window, after = SWAPPED[name]
    sql.execute(
        "CREATE SCHEMA other; CREATE TABLE t (z text, gone int, b text,"
        " id int PRIMARY KEY, a text); ALTER TABLE t DROP gone;"
        "INSERT INTO t VALUES ('z', 'b', 1, 'a'); CREATE VIEW seen AS SELECT * FROM t"
    )

    def ordered(*places: str) -> None:
        for place in (*places, "public.seen"):
            row = sql.execute(
                "SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute"
                " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
                [place],
            ).fetchone()
            assert row == (["z", "b", "id", "a"],)
            read = sql.execute(f"SELECT * FROM {place} WHERE id = 1".encode())
            assert read.fetchone() == ("z", "b", 1, "a")

    runner.expand(Change(revision="a", pattern=pattern))
    ordered(*window)
    runner.settle("a")
    for number, place in enumerate(window, 2):
        sql.execute(f"INSERT INTO {place} VALUES ('y', 'c', {number}, 'd')".encode())
    ordered(*window)
    runner.retire("a", old_release_gone="test")
    ordered(*after)
    runner.rollback("a", to=State.VERIFIED)
    ordered(*window)
    runner.retire("a", old_release_gone="test")
    runner.drop("a")
    ordered(*after)
    rows = sql.execute(f"SELECT z, b, a FROM {after[0]} ORDER BY id".encode())
    assert rows.fetchall() == [("z", "b", "a")] + [("y", "c", "d")] * len(window)
