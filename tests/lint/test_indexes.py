"""Rules about indexes, without and with a database."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from migrator.lint import Finding, Linter, Severity
from migrator.lint import statements as st
from migrator.lint.database import reader
from migrator.lint.rules import RULES
from migrator.lint.source import call
from migrator.lint.statements import Ref
from migrator.plan import Lock
from migrator.postgres.connection import Target, connect
from tests.lint.looking import look
from tests.lint.test_lint import revision

INDEXES = [rule for rule in RULES if rule.code.startswith("ZD3")]

SCHEMA = """
CREATE TABLE t (id bigint, a integer, b integer);
INSERT INTO t SELECT n, n, n FROM generate_series(1, 1000) n;
CREATE INDEX ix_a ON t (a);
CREATE INDEX broken ON t (b);
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'broken'::regclass;
CREATE TABLE p (a integer) PARTITION BY RANGE (a);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
CREATE TABLE p2 PARTITION OF p DEFAULT;
INSERT INTO p SELECT generate_series(1, 100);
CREATE INDEX ix_p ON p (a);
CREATE TABLE empty (id bigint);
CREATE INDEX ix_empty ON empty (id);
ANALYZE;
"""

OFFLINE = Linter(rules=INDEXES)
T = Ref("t")


@contextmanager
def prepared(url: str) -> Iterator[Linter]:
    """Give a linter of a database with a table, a partitioned and an empty one."""
    with psycopg.connect(url, autocommit=True) as sql:
        sql.execute(SCHEMA)
    with connect(Target.from_url(url), "lint") as conn:
        yield Linter(
            rules=INDEXES, read=reader(conn), server_version=conn.info.server_version
        )


def lint(linter: Linter, folder: Path, body: str) -> list[Finding]:
    """Return what is found in a revision whose `upgrade()` has a body."""
    return [p.finding for p in linter.lint("r1", revision(folder, body))]


def codes(found: list[Finding]) -> list[str]:
    """Return the codes of findings."""
    return [f.code for f in found]


def safe(finding: Finding) -> list[str]:
    """Return the code of a finding's patterns."""
    assert finding.safe is not None
    return [call(p) for p in (*finding.safe.patterns, *finding.safe.then)]


def block(body: str) -> str:
    """Return an autocommit block."""
    return f"with op.get_context().autocommit_block():\n    {body}\n"


def test_an_index_goes_into_its_pattern_whole() -> None:
    """Predicate, storage and all else of a plain build become arguments."""
    (one,) = look(
        OFFLINE,
        st.CreateIndex(
            table=T,
            name="i",
            keys=("a",),
            unique=True,
            where="a > 0",
            storage=(("fillfactor", "70"),),
        ),
    )
    assert one.code == "ZD301"
    assert safe(one) == [
        'change = CreateIndex(\n    "t",\n    ["a"],\n    "i",\n    unique=True,\n'
        '    where="a > 0",\n    storage={"fillfactor": "70"},\n)'
    ]


def test_a_partitioned_table_is_indexed_leaf_by_leaf(
    linter: Linter, tmp_path: Path
) -> None:
    """Facts tell that it is one: a plain build stops all, a concurrent one fails."""
    body = 'op.create_index("i", "p", ["a"]{})'
    (plain,) = lint(linter, tmp_path, body.format(""))
    assert (plain.code, plain.lock) == ("ZD303", Lock.SHARE)
    assert plain.what == (
        "CREATE INDEX i on p keeps the writers of all partitions (2) out until the last"
        " one's is built."
    )
    assert safe(plain) == ['change = CreateIndex("p", ["a"], "i")']
    concurrent = block(body.format(", postgresql_concurrently=True"))
    (fails,) = lint(linter, tmp_path, concurrent)
    assert (fails.code, fails.severity) == ("ZD303", Severity.ERROR)
    assert fails.what == "CREATE INDEX CONCURRENTLY i fails: p is partitioned."
    top = st.CreateIndex(table=Ref("p"), name="i", keys=("a",), only=True)
    assert look(linter, top) == []
    assert look(OFFLINE, top) == []


def test_an_index_is_dropped_concurrently(linter: Linter, tmp_path: Path) -> None:
    """Facts name its table; one that is concurrent, new or of no use passes."""
    (known,) = lint(linter, tmp_path, 'op.drop_index("ix_a")')
    assert (known.code, known.severity, known.lock) == (
        "ZD305",
        Severity.WARNING,
        Lock.ACCESS_EXCLUSIVE,
    )
    assert known.what == "DROP INDEX ix_a locks public.t by ACCESS EXCLUSIVE."
    assert safe(known) == ['change = DropIndex("t", "ix_a", schema="public")']
    (offline,) = lint(OFFLINE, tmp_path, 'op.drop_index("ix_a")')
    assert offline.what == "DROP INDEX ix_a locks its table by ACCESS EXCLUSIVE."
    assert offline.safe is not None
    assert offline.safe.decide == "which table it is on."
    (named,) = lint(OFFLINE, tmp_path, 'op.drop_index("ix_a", "t")')
    assert safe(named) == ['change = DropIndex("t", "ix_a")']
    concurrent = block('op.drop_index("ix_a", "t", postgresql_concurrently=True)')
    assert lint(linter, tmp_path, concurrent) == []
    assert lint(linter, tmp_path, 'op.drop_index("ix_empty")') == []
    own = 'op.create_index("i", "empty", ["a"])\nop.drop_index("i")'
    assert lint(linter, tmp_path, own) == []


def test_an_index_of_a_partitioned_table_is_not(linter: Linter, tmp_path: Path) -> None:
    """Concurrently the server refuses."""
    (one,) = lint(
        linter,
        tmp_path,
        block('op.drop_index("ix_p", "p", postgresql_concurrently=True)'),
    )
    assert (one.code, one.severity) == ("ZD305", Severity.ERROR)
    assert one.what == "DROP INDEX CONCURRENTLY ix_p fails: p is partitioned."


def test_a_reindex_is_concurrent(linter: Linter) -> None:
    """Of an index, facts name the table; of a schema, it is a statement alone."""

    def found(linter: Linter, of: str, name: str) -> Finding:
        done = st.Reindex(of=of, name=Ref(name))
        return next(f for f in look(linter, done) if f.code == "ZD307")

    index = found(linter, "INDEX", "ix_a")
    assert index.what == (
        "REINDEX INDEX ix_a keeps every writer of public.t out, and locks each index by"
        " ACCESS EXCLUSIVE while it is built."
    )
    assert index.severity is Severity.WARNING
    assert safe(index) == ['change = Reindex("t", name="ix_a", schema="public")']
    unknown = found(OFFLINE, "INDEX", "ix_a")
    assert safe(unknown) == ['change = Reindex("…", name="ix_a")']
    assert safe(found(OFFLINE, "TABLE", "t")) == ['change = Reindex("t")']
    schema = found(OFFLINE, "SCHEMA", 'o"d')
    assert schema.safe is not None
    assert schema.safe.code == (
        "with op.get_context().autocommit_block():\n"
        '    op.execute(\'REINDEX SCHEMA CONCURRENTLY "o""d"\')\n'
    )
    database = found(OFFLINE, "DATABASE", "")
    assert database.safe is not None
    assert '"REINDEX DATABASE CONCURRENTLY"' in database.safe.code
    system = found(OFFLINE, "SYSTEM", "d")
    assert system.safe is not None
    assert system.safe.code == ""
    done = st.Reindex(of="TABLE", name=T, concurrently=True)
    assert look(linter, done, autocommit=True) == []
    empty = st.Reindex(of="TABLE", name=Ref("empty"))
    assert look(linter, empty) == []


CONCURRENT = 'op.create_index("i", "{}", ["a"], postgresql_concurrently=True{})'


def test_what_refuses_a_transaction_stands_alone(
    linter: Linter, tmp_path: Path
) -> None:
    """It fails on any table, also an empty one; in a block it passes."""
    for table in ("t", "empty"):
        (one,) = lint(linter, tmp_path, CONCURRENT.format(table, ""))
        assert (one.code, one.severity) == ("ZD311", Severity.ERROR)
        assert one.what == (
            "CREATE INDEX CONCURRENTLY fails in a transaction, and a revision is one."
        )
        assert one.safe is not None
        assert one.safe.code.startswith("with op.get_context().autocommit_block():\n")
    assert lint(linter, tmp_path, block(CONCURRENT.format("t", ""))) == []


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        (
            st.DropIndex(name=Ref("i"), table=T, concurrently=True),
            "DROP INDEX CONCURRENTLY",
        ),
        (
            st.Reindex(of="TABLE", name=T, concurrently=True),
            "REINDEX TABLE CONCURRENTLY",
        ),
        (
            st.DetachPartition(table=T, partition=Ref("x"), concurrently=True),
            "DETACH PARTITION CONCURRENTLY",
        ),
        (st.Rewrite(table=T, how="VACUUM FULL"), "VACUUM FULL"),
        (st.RewriteAll(how="CLUSTER"), "CLUSTER"),
        (st.Other(sql="\n  vacuum (analyze) t"), "VACUUM"),
        (st.Other(sql="ALTER  SYSTEM SET work_mem = '1MB'"), "ALTER SYSTEM"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_that_refuses_is_known(statement: st.Statement, what: str) -> None:
    """Each is found in a transaction, and none outside of one."""
    (one,) = look(OFFLINE, statement)
    assert one.code == "ZD311"
    assert one.what.startswith(f"{what} fails")
    assert look(OFFLINE, statement, autocommit=True) == []


def test_text_that_stands_alone_can_be_pasted() -> None:
    """A colon of the text is no parameter."""
    (one,) = look(OFFLINE, st.Other(sql="ALTER SYSTEM SET x.y = 'a:b'"))
    assert one.safe is not None
    assert one.safe.code == (
        "with op.get_context().autocommit_block():\n"
        "    op.execute(\"ALTER SYSTEM SET x.y = 'a\\\\:b'\")\n"
    )


def test_an_invalid_index_is_not_taken_for_done(linter: Linter, tmp_path: Path) -> None:
    """A warning where it could be, an error where it is, none behind a DROP."""
    again = block(CONCURRENT.format("t", ", if_not_exists=True"))
    (maybe,) = lint(OFFLINE, tmp_path, again)
    assert (maybe.code, maybe.severity) == ("ZD313", Severity.WARNING)
    assert maybe.what == (
        "Where a build of i on t is cut off, the next try passes over what it left."
    )
    assert safe(maybe) == ['change = CreateIndex("t", ["a"], "i")']
    there = again.replace('"i"', '"broken"')
    (left,) = lint(linter, tmp_path, there)
    assert left.severity is Severity.ERROR
    assert left.what == (
        "Index broken on t is there and invalid, left by a build that was cut off: it"
        " stays so."
    )
    (fails,) = lint(linter, tmp_path, there.replace(", if_not_exists=True", ""))
    assert fails.what.endswith("the statement fails.")
    assert lint(linter, tmp_path, again.replace('"i"', '"ix_a"')) == []
    gone = block('op.drop_index("broken", "t", postgresql_concurrently=True)')
    assert "ZD313" not in codes(lint(linter, tmp_path, gone + there))
    looks = (
        "if not op.get_context().as_sql and op.get_bind().exec_driver_sql("
        '"SELECT FROM pg_index WHERE NOT indisvalid").first():\n'
        '    op.drop_index("broken", "t", postgresql_concurrently=True)\n'
    )
    assert codes(lint(linter, tmp_path, looks + there)) == ["ZD901"]


def test_a_replacement_is_built_first(linter: Linter, tmp_path: Path) -> None:
    """A build behind the drop of an index like it is found; the other way round not."""
    drop = block('op.drop_index("ix_a", "t", postgresql_concurrently=True)')
    create = block(
        'op.create_index("{}", "t", ["a", "b"], postgresql_concurrently=True)'
    )
    (same,) = lint(OFFLINE, tmp_path, drop + create.format("ix_a"))
    assert (same.code, same.lock) == ("ZD317", Lock.SHARE_UPDATE_EXCLUSIVE)
    assert same.what == "Index ix_a on t is gone while ix_a is built in its place."
    assert safe(same) == ['change = ReplaceIndex("t", "ix_a", ["a", "b"])']
    assert lint(OFFLINE, tmp_path, drop + create.format("ix_a_b")) == []
    (like,) = lint(linter, tmp_path, drop + create.format("ix_a_b"))
    assert safe(like) == [
        'change = CreateIndex("t", ["a", "b"], "ix_a_b")',
        'change = DropIndex("t", "ix_a")',
    ]
    assert lint(linter, tmp_path, create.format("ix_a_b") + drop) == []


def test_a_replacement_in_one_transaction_locks_all_out(tmp_path: Path) -> None:
    """The drop's lock is held while the new one is built."""
    found = lint(
        OFFLINE,
        tmp_path,
        'op.drop_index("ix_a", "t")\nop.create_index("ix_a", "t", ["a", "b"])',
    )
    assert codes(found) == ["ZD305", "ZD301", "ZD317"]
    assert found[-1].lock is Lock.ACCESS_EXCLUSIVE
    assert found[-1].why == (
        "The transaction that dropped it holds ACCESS EXCLUSIVE: nobody can use the"
        " table until the new one is built."
    )
