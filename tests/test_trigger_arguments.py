"""Triggers that have columns by name among their arguments are found in time."""

import psycopg
import pytest

from migrator.change import Change
from migrator.errors import Refused
from migrator.pattern import Pattern
from migrator.patterns import (
    ChangeColumnType,
    DropColumn,
    ExtractTable,
    MergeTables,
    MoveColumn,
    RenameColumn,
    SplitColumn,
    SplitTable,
)
from migrator.plan import State
from migrator.runner import Runner

DOCS = """
CREATE TABLE docs (id int PRIMARY KEY, title text, body text, tsv tsvector);
CREATE TABLE more (doc_id int PRIMARY KEY REFERENCES docs);
CREATE TRIGGER tsv BEFORE INSERT OR UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION
  tsvector_update_trigger(tsv, 'pg_catalog.english', title, body);
INSERT INTO docs SELECT g, 'cats', 'dogs' FROM generate_series(1, 3) g;
"""
AGAIN = (
    "CREATE OR REPLACE TRIGGER tsv BEFORE INSERT OR UPDATE ON docs FOR EACH ROW"
    " EXECUTE FUNCTION tsvector_update_trigger(tsv, 'pg_catalog.english', {})"
)
#: The column that goes, and the change by which it does.
CHANGES = (
    ("body", DropColumn("docs", "body")),
    ("tsv", DropColumn("docs", "tsv")),
    ("title", RenameColumn("docs", "title", "headline")),
    ("body", ChangeColumnType("docs", "body", "varchar(9)", to="text")),
    ("title", SplitColumn("docs", "title", {"a": ("text", "title")}, "a")),
    ("body", SplitTable("docs", "bodies", ["body"], key=["id"])),
    ("body", ExtractTable("docs", "bodies", ["body"], reference="body_id")),
    ("body", MoveColumn("docs", "body", to="more", key={"id": "doc_id"})),
)


def test_a_plan_names_trigger_and_column(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Each change that takes the column away asks for a word, and tells the way out."""
    sql.execute(DOCS.encode())
    for column, pattern in CHANGES:
        with pytest.raises(Refused) as caught:
            runner.plan(Change(revision="a1", pattern=pattern))
        told = f'Trigger "tsv" has "{column}" among its arguments'
        assert told in str(caught.value), pattern.title
        assert "CREATE OR REPLACE TRIGGER" in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "column", "kept"),
    [
        (DropColumn("docs", "body", assured="made again"), "body", "title"),
        (
            RenameColumn("docs", "title", "headline", assured="made again"),
            "title",
            "headline, body",
        ),
        (
            SplitTable("docs", "m", ["body"], key=["id"], assured="made again"),
            "body",
            "title",
        ),
        (
            SplitColumn(
                "docs",
                "title",
                {"first": ("text", "title")},
                "first",
                assured="made again",
            ),
            "title",
            "first, body",
        ),
    ],
    ids=lambda p: type(p).__name__ if isinstance(p, Pattern) else "",
)
def test_retire_waits_for_the_trigger(
    pattern: Pattern, column: str, kept: str, runner: Runner, sql: psycopg.Connection
) -> None:
    """It is held by name until the trigger does without; then every write goes on."""
    sql.execute(DOCS.encode())
    runner.expand(Change(revision="a1", pattern=pattern))
    runner.settle("a1")
    with pytest.raises(Refused, match=f"{column} of trigger tsv"):
        runner.retire("a1", old_release_gone="test")
    sql.execute("INSERT INTO docs (id) VALUES (4)")
    sql.execute(AGAIN.format(kept).encode())
    if isinstance(pattern, RenameColumn | SplitColumn):
        # Taken back, it would lack the column that comes.
        with pytest.raises(Refused, match=f"{kept.split(',')[0]} of trigger tsv"):
            runner.rollback("a1", to=State.PLANNED)
        runner.expand(Change(revision="a1", pattern=pattern))
        runner.settle("a1")
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    sql.execute("INSERT INTO docs (id) VALUES (5)")
    assert runner.drop("a1") is State.DROPPED
    sql.execute("INSERT INTO docs (id) VALUES (6)")


def test_a_word_lifts_the_hold_of_a_label(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """What another function takes for a text does not hold what was assured."""
    sql.execute(
        "CREATE TABLE docs (id int PRIMARY KEY, body text);"
        "CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER audit AFTER INSERT ON docs FOR EACH ROW"
        " EXECUTE FUNCTION audit('body')"
    )
    pattern = DropColumn("docs", "body", assured="a label")
    plan = runner.plan(Change(revision="a1", pattern=pattern))
    assert any(", before retire." in n.text for n in plan.notices)
    runner.expand(Change(revision="a1", pattern=pattern))
    runner.settle("a1")
    assert runner.retire("a1", old_release_gone="test") is State.RETIRED
    assert runner.drop("a1") is State.DROPPED


def test_the_way_back_waits_for_a_trigger_on_a_further_table(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """What a trigger has by name since is not dropped; nothing is half taken back."""
    sql.execute(
        "CREATE TABLE docs (id int PRIMARY KEY, body text);"
        "CREATE TABLE more (doc_id int PRIMARY KEY REFERENCES docs, note text);"
        "CREATE FUNCTION read() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN RETURN NULL; END'"
    )
    keys, said = {"doc_id": "id"}, "test"
    patterns: tuple[tuple[Pattern, str, str], ...] = (
        (
            MoveColumn("docs", "body", to="more", key={"id": "doc_id"}, assured=said),
            "more",
            "body",
        ),
        (
            MergeTables("more", "docs", ["note"], key=keys, assured=said),
            "docs",
            "note",
        ),
        (
            ExtractTable("docs", "bodies", ["body"], reference="body_id", assured=said),
            "docs",
            "body_id",
        ),
    )
    for number, (pattern, table, column) in enumerate(patterns):
        name = f"a{number}"
        runner.expand(Change(revision=name, pattern=pattern))
        sql.execute(
            f"CREATE TRIGGER since AFTER INSERT ON {table} FOR EACH ROW"
            f" EXECUTE FUNCTION read('{column}')".encode()
        )
        before = "SELECT count(*) FROM pg_trigger"
        there = sql.execute(before).fetchone()
        with pytest.raises(Refused, match=f"{column} of trigger since"):
            runner.rollback(name, to=State.PLANNED)
        assert sql.execute(before).fetchone() == there, pattern.title
        sql.execute(f"DROP TRIGGER since ON {table}".encode())
        runner.rollback(name, to=State.PLANNED)
