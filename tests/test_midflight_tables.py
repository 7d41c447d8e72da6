"""Alembic's own commands while whole tables, their keys and partitions change."""

from collections.abc import Iterator

import psycopg
import pytest
from quick import Quick
from test_histories import bring, shape
from test_midflight import change, project, set_env

from migrator.plan import State
from migrator.postgres.connection import Target
from migrator.runner import Runner
from migrator.settings import Settings

__all__ = ["project"]

#: What the first revision makes.
TABLES = """
CREATE TABLE keyless (id int, name text);
INSERT INTO keyless SELECT g, 'n' || g FROM generate_series(1, 50) g;

CREATE TABLE stays (id serial PRIMARY KEY, during int4range NOT NULL);
INSERT INTO stays (during) SELECT int4range(g, g + 1) FROM generate_series(1, 50) g;

CREATE TABLE heaps (id serial PRIMARY KEY, name text NOT NULL);
CREATE INDEX ix_heaps_name ON heaps (name);
INSERT INTO heaps (name) SELECT 'n' || g FROM generate_series(1, 50) g;

CREATE TABLE events (id serial PRIMARY KEY, at date NOT NULL);
CREATE INDEX ix_events_at ON events (at);
INSERT INTO events (at) SELECT date '2025-12-20' + g FROM generate_series(1, 50) g;

CREATE TABLE logs (id int NOT NULL, at date NOT NULL) PARTITION BY RANGE (at);
CREATE INDEX ix_logs_at ON logs (at);
CREATE TABLE logs_2026 (id int NOT NULL, at date NOT NULL);
INSERT INTO logs_2026 SELECT g, date '2026-01-01' + g FROM generate_series(1, 50) g;

CREATE TABLE books (id int NOT NULL, at date NOT NULL) PARTITION BY RANGE (at);
CREATE INDEX ix_books_at ON books (at);
CREATE TABLE books_2020 PARTITION OF books
  FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
INSERT INTO books SELECT g, date '2020-01-01' + g FROM generate_series(1, 50) g;

CREATE SCHEMA billing;
CREATE TABLE invoices (id serial PRIMARY KEY, name text NOT NULL);
CREATE INDEX ix_invoices_name ON invoices (name);
INSERT INTO invoices (name) SELECT 'n' || g FROM generate_series(1, 50) g;

CREATE TABLE people (id serial PRIMARY KEY, town text NOT NULL);
INSERT INTO people (town) SELECT 't' || g % 5 FROM generate_series(1, 50) g;

CREATE TABLE members (id serial PRIMARY KEY, name text NOT NULL);
CREATE TABLE profiles (member_id int PRIMARY KEY REFERENCES members, bio text);
CREATE INDEX ix_profiles_bio ON profiles (bio);
INSERT INTO members (name) SELECT 'n' || g FROM generate_series(1, 50) g;
INSERT INTO profiles SELECT id, 'b' FROM members;

CREATE TABLE counted (id serial PRIMARY KEY);
INSERT INTO counted SELECT FROM generate_series(1, 50);
"""

CALLS = {
    "key": 'AddPrimaryKey("keyless", ["id"], "keyless_pkey")',
    "apart": 'AddExclusion("stays", [("during", "&&")], "apart", assured="tested")',
    "rebuilt": 'RebuildTable("heaps", alter=["SET (fillfactor = 70)"],'
    ' assured="tested")',
    "partitioned": 'PartitionTable("events", "RANGE", ["at"],'
    """ {"events_2026": "FROM ('2026-01-01') TO ('2027-01-01')"},"""
    ' rest="events_rest", key=["id", "at"], assured="tested")',
    "attached": 'AttachPartition("logs", "logs_2026",'
    """ "FROM ('2026-01-01') TO ('2027-01-01')")""",
    "detached": 'DetachPartition("books", "books_2020")',
    "moved": 'MoveToSchema("invoices", "billing")',
    "extracted": 'ExtractTable("people", "towns", ["town"], reference="town_id",'
    ' index="ix_people_town_id", assured="tested")',
    "merged": 'MergeTables("profiles", "members", ["bio"], key={"member_id": "id"},'
    ' indexes={"ix_profiles_bio": "ix_members_bio"}, assured="tested")',
    "own": 'Custom("counted", "own",'
    ' at_expand=[Sql("ALTER TABLE counted ADD COLUMN n int",'
    ' reverse="ALTER TABLE counted DROP COLUMN n")])',
}

MODELS = """
from datetime import date

from sqlalchemy import BigInteger, ForeignKey, Index, Text
from sqlalchemy.dialects.postgresql import INT4RANGE, ExcludeConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Keyless(Base):
    __tablename__ = "keyless"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(Text)


class Stay(Base):
    __tablename__ = "stays"
    __table_args__ = (ExcludeConstraint(("during", "&&"), name="apart"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    during: Mapped[object] = mapped_column(INT4RANGE, nullable=False)


class Heap(Base):
    __tablename__ = "heaps"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text, index=True)


class Event(Base):
    __tablename__ = "events"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[date] = mapped_column(primary_key=True, index=True)


class Log(Base):
    __tablename__ = "logs"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[date] = mapped_column(index=True)


class Book(Base):
    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[date] = mapped_column(index=True)


class OldBook(Base):
    __tablename__ = "books_2020"
    __table_args__ = (Index("books_2020_at_idx", "at"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[date]


class Invoice(Base):
    __tablename__ = "invoices"
    __table_args__ = (Index("ix_invoices_name", "name"), {"schema": "billing"})
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text)


class Town(Base):
    __tablename__ = "towns"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    town: Mapped[str] = mapped_column(Text, unique=True)


class Person(Base):
    __tablename__ = "people"
    id: Mapped[int] = mapped_column(primary_key=True)
    town_id: Mapped[int] = mapped_column(ForeignKey("towns.id"), index=True)


class Member(Base):
    __tablename__ = "members"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    bio: Mapped[str | None] = mapped_column(Text, index=True)


class Counted(Base):
    __tablename__ = "counted"
    id: Mapped[int] = mapped_column(primary_key=True)
    n: Mapped[int | None]
"""

FIRST = """
from alembic import op

revision, down_revision = "r1", None


def upgrade():
    op.execute('''{tables}''')
"""


@pytest.fixture
def tables(project: Quick) -> Quick:
    """Give a project whose tables have rows, and a revision for each change."""
    set_env(project, more="include_schemas=True")
    (project.folder / "models.py").write_text(MODELS)
    project.write("r1", FIRST.format(tables=TABLES))
    project.run("upgrade", "r1")
    before = "r1"
    for name, call in CALLS.items():
        text = change(name, before, call)
        project.write(name, text.replace("import Custom", "import Custom, Sql"))
        before = name
    return project


def engine(project: Quick) -> Runner:
    """Return an engine that holds nothing back."""
    return Runner(Target.from_url(project.url), Settings(hold_s=0))


def phases(project: Quick, last: State = State.DROPPED) -> Iterator[State]:
    """Bring all changes from their revisions to a phase; stop in each."""
    project.run("upgrade", "head")
    yield State.EXPANDED
    for state in (State.VERIFIED, State.RETIRED, State.DROPPED):
        for name in CALLS:
            bring(engine(project), name, state)
        yield state
        if state is last:
            return


def test_nothing_is_proposed_in_any_phase(tables: Quick) -> None:
    """All in flight at once: forward, back from retired, and on to the drop."""
    for phase in phases(tables):
        tables.run("check")
        if phase is State.RETIRED:
            engine(tables).rollback("moved")
            engine(tables).rollback("partitioned")
            tables.run("revision", "--autogenerate", "--rev-id", "more", "-m", "more")
            versions = tables.folder / "migrations" / "versions"
            assert not list(versions.glob("more*"))
            assert f"{list(CALLS)[-1]} (head)" in tables.run("current").stdout
            engine(tables).retire("moved", old_release_gone="test")
            engine(tables).retire("partitioned", old_release_gone="test")
    # What the project has in no model is still found.
    with psycopg.connect(tables.url) as conn:
        conn.execute("CREATE TABLE other (id int)")
    assert "Table('other'" in tables.run("check", code=255).stdout


def test_downgrade_finds_back_from_retired(tables: Quick) -> None:
    """Each change is taken back whole, and can be made again."""
    before = shape(tables.url)
    for _ in phases(tables, last=State.RETIRED):
        pass
    tables.run("downgrade", "r1")
    assert "r1" in tables.run("current").stdout
    found = shape(tables.url)
    # The server's own check of a detached partition stays.
    found[3][:] = [row for row in found[3] if row[0] != "books_2020_at_check"]
    assert found == before
    tables.run("upgrade", "head")
    tables.run("check")
