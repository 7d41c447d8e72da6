"""What `lock_of` says, held against the server."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest

from migrator.lint import statements as st
from migrator.lint.database import reader
from migrator.lint.locks import is_strong, lock_of
from migrator.lint.scene import Reader
from migrator.lint.statements import Ref
from migrator.plan import Lock
from migrator.postgres.connection import Target, connect
from migrator.postgres.embedded import Server

SCHEMA = """
CREATE TABLE p (id bigint PRIMARY KEY);
CREATE TABLE t (id bigint PRIMARY KEY, a integer NOT NULL, p_id bigint,
    CONSTRAINT t_p FOREIGN KEY (p_id) REFERENCES p);
ALTER TABLE t ADD CONSTRAINT t_p2 FOREIGN KEY (p_id) REFERENCES p NOT VALID;
ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0) NOT VALID;
CREATE INDEX i ON t (a);
CREATE TABLE k (id bigint REFERENCES t);
CREATE TABLE s (at date) PARTITION BY RANGE (at);
CREATE TABLE s1 PARTITION OF s FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE s2 (at date);
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f();
CREATE MATERIALIZED VIEW m AS SELECT 1 AS id;
CREATE UNIQUE INDEX m_id ON m (id);
CREATE TYPE mood AS ENUM ('good');
CREATE SCHEMA other;
"""

T, P, K, INDEX = Ref("t"), Ref("p"), Ref("k"), Ref("i")
COLUMN = {"table": T, "column": "a"}
FOREIGN = st.NewConstraint(
    kind="f", columns=("p_id",), to=st.ForeignTo(table=P), not_valid=True
)

CASES: list[tuple[str, st.Statement]] = [
    (
        "CREATE TABLE n (p_id bigint REFERENCES p)",
        st.CreateTable(
            table=Ref("n"),
            columns=(st.NewColumn(name="p_id", type="bigint", constraints=(FOREIGN,)),),
        ),
    ),
    (
        "CREATE TABLE s3 PARTITION OF s DEFAULT",
        st.CreateTable(table=Ref("s3"), partition_of=Ref("s")),
    ),
    (
        "CREATE TABLE h () INHERITS (p)",
        st.CreateTable(table=Ref("h"), inherits=(P,)),
    ),
    ("DROP TABLE k", st.DropTable(table=K)),
    ("DROP TABLE t CASCADE", st.DropTable(table=T, cascade=True)),
    ("ALTER TABLE t RENAME TO u", st.RenameTable(table=T, to="u")),
    ("ALTER TABLE t SET SCHEMA other", st.MoveTable(table=T, to="other")),
    ("TRUNCATE k", st.Truncate(tables=(K,))),
    ("TRUNCATE p CASCADE", st.Truncate(tables=(P,), cascade=True)),
    (
        "ALTER TABLE s ATTACH PARTITION s2 FOR VALUES FROM ('2022-01-01') TO"
        " ('2023-01-01')",
        st.AttachPartition(table=Ref("s"), partition=Ref("s2"), bounds=""),
    ),
    (
        "ALTER TABLE s DETACH PARTITION s1",
        st.DetachPartition(table=Ref("s"), partition=Ref("s1")),
    ),
    ("ALTER TABLE k SET UNLOGGED", st.Rewrite(table=K, how="SET UNLOGGED")),
    (
        "CREATE TRIGGER h BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()",
        st.ChangeTrigger(table=T, how="CREATE TRIGGER", name="h"),
    ),
    (
        "ALTER TABLE t DISABLE TRIGGER g",
        st.ChangeTrigger(table=T, how="DISABLE TRIGGER", name="g"),
    ),
    ("DROP TRIGGER g ON t", st.ChangeTrigger(table=T, how="DROP TRIGGER", name="g")),
    (
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
        st.ChangePolicy(table=T, how="ENABLE ROW LEVEL SECURITY"),
    ),
    ("CREATE POLICY y ON t", st.ChangePolicy(table=T, how="CREATE POLICY", name="y")),
    (
        "ALTER TABLE t ADD COLUMN z bigint REFERENCES p",
        st.AddColumn(
            table=T,
            column=st.NewColumn(name="z", type="bigint", constraints=(FOREIGN,)),
        ),
    ),
    ("ALTER TABLE t DROP COLUMN a", st.DropColumn(**COLUMN)),
    (
        "ALTER TABLE t DROP COLUMN p_id",
        st.DropColumn(table=T, column="p_id"),
    ),
    ("ALTER TABLE t RENAME COLUMN a TO z", st.RenameColumn(**COLUMN, to="z")),
    (
        "ALTER TABLE t ALTER COLUMN a TYPE bigint",
        st.ChangeType(**COLUMN, type="bigint"),
    ),
    ("ALTER TABLE t ALTER COLUMN a SET NOT NULL", st.SetNotNull(**COLUMN)),
    ("ALTER TABLE t ALTER COLUMN a DROP NOT NULL", st.DropNotNull(**COLUMN)),
    ("ALTER TABLE t ALTER COLUMN a SET DEFAULT 1", st.SetDefault(**COLUMN, default="")),
    ("ALTER TABLE t ALTER COLUMN a DROP DEFAULT", st.DropDefault(**COLUMN)),
    (
        "ALTER TABLE t ALTER COLUMN a ADD GENERATED ALWAYS AS IDENTITY",
        st.AddIdentity(**COLUMN),
    ),
    (
        "ALTER TABLE t ADD FOREIGN KEY (p_id) REFERENCES p NOT VALID",
        st.AddConstraint(table=T, constraint=FOREIGN),
    ),
    (
        "ALTER TABLE t ADD UNIQUE (a)",
        st.AddConstraint(table=T, constraint=st.NewConstraint(kind="u")),
    ),
    (
        "ALTER TABLE t ADD CHECK (a > 1) NOT VALID",
        st.AddConstraint(table=T, constraint=st.NewConstraint(kind="c")),
    ),
    (
        "ALTER TABLE t VALIDATE CONSTRAINT c",
        st.ValidateConstraint(table=T, name="c"),
    ),
    (
        "ALTER TABLE t VALIDATE CONSTRAINT t_p2",
        st.ValidateConstraint(table=T, name="t_p2"),
    ),
    ("ALTER TABLE t DROP CONSTRAINT c", st.DropConstraint(table=T, name="c")),
    ("ALTER TABLE t DROP CONSTRAINT t_p", st.DropConstraint(table=T, name="t_p")),
    (
        "ALTER TABLE t DROP CONSTRAINT t_pkey CASCADE",
        st.DropConstraint(table=T, name="t_pkey", cascade=True),
    ),
    (
        "ALTER TABLE t RENAME CONSTRAINT c TO d",
        st.RenameConstraint(table=T, name="c", to="d"),
    ),
    ("CREATE INDEX j ON t (a)", st.CreateIndex(table=T, name="j", keys=("a",))),
    ("DROP INDEX i", st.DropIndex(name=INDEX)),
    ("REINDEX TABLE t", st.Reindex(of="TABLE", name=T)),
    ("REINDEX INDEX i", st.Reindex(of="INDEX", name=INDEX)),
    ("ALTER INDEX i RENAME TO j", st.RenameIndex(name=INDEX, to="j")),
    (
        "ALTER TYPE mood ADD VALUE 'bad'",
        st.AddEnumValue(type=Ref("mood"), value="bad"),
    ),
    ("REFRESH MATERIALIZED VIEW m", st.RefreshView(view=Ref("m"))),
    (
        "REFRESH MATERIALIZED VIEW CONCURRENTLY m",
        st.RefreshView(view=Ref("m"), concurrently=True),
    ),
    ("UPDATE t SET a = 1", st.ChangeRows(table=T, how="UPDATE")),
    (
        "LOCK TABLE t, k IN SHARE MODE",
        st.LockTable(tables=(T, K), mode="SHARE"),
    ),
]


@dataclass(frozen=True)
class Place:
    """A database with the tables of all cases, and what each is called."""

    conn: psycopg.Connection
    read: Reader
    names: dict[int, str]


@pytest.fixture(scope="module")
def place(server: Server) -> Iterator[Place]:
    """Give a database that each case leaves as it was."""
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE locks")
    url = server.url("locks")
    with (
        psycopg.connect(url, autocommit=True) as conn,
        connect(Target.from_url(url), "lint") as reading,
    ):
        conn.execute(SCHEMA)
        names = conn.execute(
            "SELECT oid::bigint, relname FROM pg_class WHERE relkind IN"
            " ('r', 'p', 'm') AND relnamespace = 'public'::regnamespace"
        ).fetchall()
        yield Place(conn, reader(reading), dict(names))


@pytest.mark.parametrize(("text", "statement"), CASES, ids=[c[0] for c in CASES])
def test_locks_are_those_that_the_server_takes(
    place: Place, text: str, statement: st.Statement
) -> None:
    """Each named relation is locked so, and none is locked strongly besides."""
    said = lock_of(statement, place.read)
    with place.conn.transaction(force_rollback=True):
        place.conn.execute(text.encode())
        held = _held(place.conn, place.names)
    tables = place.names.values()
    named = {ref.name: lock for ref, lock in said.items() if ref.name in tables}
    assert {n: held.get(n) for n in named} == named
    assert {n for n, lock in held.items() if is_strong(lock)} <= set(named)


def test_an_index_stands_for_its_table_where_that_is_not_known() -> None:
    """Without facts an index that goes is named itself, weaker when concurrently."""
    assert lock_of(st.DropIndex(name=INDEX)) == {INDEX: Lock.ACCESS_EXCLUSIVE}
    assert lock_of(st.DropIndex(name=INDEX, concurrently=True)) == {
        INDEX: Lock.SHARE_UPDATE_EXCLUSIVE
    }
    assert lock_of(st.Reindex(of="SCHEMA", name=Ref("s"))) == {}


def _held(conn: psycopg.Connection, oids: dict[int, str]) -> dict[str, Lock]:
    found: dict[str, Lock] = {}
    for oid, mode in conn.execute(
        "SELECT relation::bigint, mode FROM pg_locks WHERE pid = pg_backend_pid()"
        " AND locktype = 'relation'"
    ):
        word = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", mode).upper()
        lock = Lock(word.removesuffix(" LOCK"))
        name = oids.get(oid)
        if name and lock.rank > found.get(name, Lock.NONE).rank:
            found[name] = lock
    return found
