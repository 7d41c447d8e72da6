"""What other tools for changes of a schema are known to lose, tried on ours."""

import ast
from pathlib import Path

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

#: Each by the tests that try it, where it is not tried here.
ELSEWHERE = {
    "a crash in the backfill, then complete": ["test_kill.py::test_sigkill_in_a_chunk"],
    "an error in an expression is ignored": [
        "test_expressions.py::test_it_is_found_before_anything_is_changed"
    ],
    "a trigger is made without a lock timeout": [
        "patterns/test_evolve_json.py::test_locks",
        "patterns/test_rename_enum_value.py::test_locks",
    ],
    "the backfill overwrites the new release": [
        "patterns/test_change_column_type.py"
        "::test_a_release_that_writes_during_the_backfill",
        "patterns/test_merge_tables.py::test_the_copy_waits_for_who_writes_the_row",
        "patterns/test_split_table.py::test_the_copy_waits_for_who_writes_the_row",
    ],
    "an unrelated update sets the old column to NULL": [
        "test_equality.py::test_an_update_of_another_column_touches_neither",
        "test_statements.py::test_every_form_of_a_statement",
    ],
    "a concurrent build is tried again into 'already exists'": [
        "patterns/test_create_index.py::test_what_a_failed_build_left_is_replaced",
        "patterns/test_add_unique.py::test_what_a_failed_build_left_is_replaced",
        "test_kill.py::test_sigkill_while_an_index_build_waits",
    ],
    "a dependent view makes contract fail half-way": [
        "test_readers.py::test_what_was_built_on_the_retired_shape_is_named",
        "test_came_since.py::test_a_reader_of_a_column",
        "test_catalogue.py::test_what_cannot_stay_is_named",
    ],
    "identity columns": [
        "patterns/test_add_column.py::test_life_of_a_counted_column",
        "test_catalogue.py::test_what_hangs_on_a_table_stays",
    ],
    "`updated_at` of every row": [
        "backfill/test_own_triggers.py::test_a_trigger_on_every_update_needs_a_word",
        "backfill/test_own_triggers.py::test_one_that_a_backfill_fires_needs_a_word",
    ],
    "foreign keys are made again without NOT VALID": [
        "test_plan.py::test_a_constraint_is_added_without_a_scan"
    ],
    "the first column of a composite key alone": [
        "backfill/test_chunking.py::test_every_row_is_brought_across_by_keys",
        "patterns/test_add_foreign_key.py"
        "::test_verification_counts_what_the_server_refuses",
        "patterns/test_move_column.py::test_a_key_of_two_columns",
        "patterns/test_merge_tables.py::test_a_key_of_two_columns",
    ],
    "an update to NULL": [
        "test_equality.py::test_writes_of_another_image_arrive",
        "test_statements.py::test_every_form_of_a_statement",
    ],
    "an update of the key": [
        "test_statements.py::test_every_form_of_a_statement",
        "patterns/test_split_table.py"
        "::test_whatever_statement_writes_the_shadow_follows",
        "patterns/test_swapped_rows.py"
        "::test_statements_do_what_they_do_without_the_change",
    ],
    "a row comes back that was deleted meanwhile": [
        "patterns/test_split_table.py::test_the_copy_waits_for_who_writes_the_row"
    ],
    "a new unique key drops rows": [
        "patterns/test_rebuild_table.py::test_message",
        "patterns/test_add_unique.py::test_life_cycle",
        "patterns/test_create_index.py::test_life_cycle_of_a_unique_index",
    ],
    "a check with the column's name in a text": [
        "test_catalogue.py::test_what_hangs_on_a_table_stays"
    ],
}


@pytest.mark.parametrize("failure", ELSEWHERE)
def test_each_is_tried(failure: str) -> None:
    """A test that is renamed or goes takes no failure out of sight."""
    for test in ELSEWHERE[failure]:
        file, _, name = test.partition("::")
        text = (Path(__file__).parent / file).read_text()
        made = ast.parse(text).body
        assert name in [f.name for f in made if isinstance(f, ast.FunctionDef)]


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
