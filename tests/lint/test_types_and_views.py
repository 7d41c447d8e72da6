"""Rules about types, views and code, without and with a database."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg

from migrator.lint import Finding, Linter, Severity
from migrator.lint import statements as st
from migrator.lint.database import domain_reader, reader
from migrator.lint.rules import RULES
from migrator.lint.source import call
from migrator.lint.statements import Ref
from migrator.plan import Lock
from migrator.postgres.connection import Target, connect
from tests.lint.looking import look
from tests.lint.test_lint import revision

#: Without that of a value that comes, which is a note beside others.
TYPES = [r for r in RULES if r.code.startswith("ZD5") and r.code != "ZD502"]
OFFLINE = Linter(rules=TYPES)

SCHEMA = """
CREATE DOMAIN price AS integer;
CREATE DOMAIN unused AS integer;
CREATE TABLE small (p price);
CREATE TABLE large (p price, q price);
CREATE TABLE empty (p price, u unused);
INSERT INTO small VALUES (1);
INSERT INTO large SELECT n, n FROM generate_series(1, 10000) n;
CREATE MATERIALIZED VIEW totals AS SELECT sum(p) FROM large;
CREATE MATERIALIZED VIEW bare AS SELECT 1 AS one WITH NO DATA;
ANALYZE;
"""


@contextmanager
def prepared(url: str) -> Iterator[Linter]:
    """Give a linter of a database with a domain and a materialized view."""
    with psycopg.connect(url, autocommit=True) as sql:
        sql.execute(SCHEMA)
    with connect(Target.from_url(url), "lint") as conn:
        yield Linter(
            rules=TYPES,
            read=reader(conn),
            read_domain=domain_reader(conn),
            server_version=conn.info.server_version,
        )


def lint(folder: Path, body: str) -> list[Finding]:
    """Return what is found in a revision whose `upgrade()` has a body."""
    return [p.finding for p in OFFLINE.lint("r1", revision(folder, body))]


def safe(finding: Finding) -> list[str]:
    """Return the code of a finding's patterns."""
    assert finding.safe is not None
    return [call(p) for p in finding.safe.patterns]


ADD = st.AddEnumValue(type=Ref("mood"), value="it's")
USE = st.ChangeRows(
    table=Ref("t"), how="UPDATE", sql="UPDATE t SET m = 'it''s'", where=True
)


def test_a_new_value_waits_for_its_commit() -> None:
    """Naming it in the same transaction is found, by its literal alone."""
    (one,) = look(OFFLINE, ADD, USE)
    assert (one.code, one.severity, one.table) == (
        "ZD501",
        Severity.ERROR,
        Ref("t"),
    )
    assert one.what == "It uses 'it''s', which the same transaction has added to mood."
    assert one.safe is not None
    assert one.safe.code == (
        "with op.get_context().autocommit_block():\n"
        "    op.execute('ALTER TYPE \"mood\" ADD VALUE \\'it\\'\\'s\\'')\n"
    )
    assert look(OFFLINE, ADD, USE, autocommit=True) == []
    assert look(OFFLINE, USE, ADD) == []
    other = st.ChangeRows(table=Ref("t"), how="UPDATE", sql="UPDATE t SET m = 'its'")
    assert look(OFFLINE, ADD, other) == []


def test_a_new_value_is_there_for_good(tmp_path: Path) -> None:
    """It is noted of a type in use, whatever else is done with it."""
    everything = replace(OFFLINE, rules=RULES)
    (one,) = look(everything, ADD)
    assert (one.code, one.severity, one.lock) == ("ZD502", Severity.NOTE, Lock.NONE)
    assert one.what == (
        "ADD VALUE 'it''s' to mood stays for good: no statement takes a value back."
    )
    assert safe(one) == ['change = AddEnumValue("…", "…", "it\'s")']
    assert look(everything, st.Other(sql="CREATE TYPE mood AS ENUM ()"), ADD) == []


def test_a_new_value_as_a_default_has_a_pattern() -> None:
    """The column is known there; the text of the revision itself is taken elsewhere."""
    default = st.SetDefault(table=Ref("t", "s"), column="m", default="'it''s'")
    (one,) = look(OFFLINE, ADD, default)
    assert safe(one) == ['change = AddEnumValue("t", "m", "it\'s", schema="s")']
    text = "ALTER TYPE s.mood ADD VALUE 'it''s' AFTER 'x'"
    given = st.AddEnumValue(type=Ref("mood", "s"), value="it's", sql=text)
    (two,) = look(OFFLINE, given, USE)
    assert two.safe is not None
    assert "AFTER" in two.safe.code


def test_a_value_of_a_new_type_may_be_used() -> None:
    """A type of the same transaction takes new values at once."""
    created = st.Other(sql="CREATE TYPE s.mood AS ENUM ('good')")
    assert look(OFFLINE, created, ADD, USE) == []
    other = st.Other(sql="CREATE TYPE moods AS ENUM ('good')")
    assert [f.code for f in look(OFFLINE, other, ADD, USE)] == ["ZD501"]


def test_a_renamed_value_breaks_the_old_release() -> None:
    """It is found, unless the revision made the type."""
    renamed = st.RenameEnumValue(type=Ref("mood", "s"), value="payed", to="paid")
    (one,) = look(OFFLINE, renamed)
    assert (one.code, one.severity) == ("ZD503", Severity.ERROR)
    assert one.what == (
        "RENAME VALUE 'payed' of s.mood to 'paid' takes the word from the release in"
        " use."
    )
    assert safe(one) == [
        'change = RenameEnumValue("…", "…", "payed", "paid", schema="s")'
    ]
    created = st.Other(sql="create type mood as enum ('payed')")
    assert look(OFFLINE, created, renamed) == []


CHECK = st.ChangeDomain(
    domain=Ref("price"),
    how="ADD CONSTRAINT",
    name="positive",
    expression="VALUE > 0",
)


def test_a_domain_names_the_tables_that_it_stops(linter: Linter) -> None:
    """Facts tell which have rows; the largest one tells for how long."""
    (one,) = look(linter, CHECK)
    assert (one.code, one.lock, one.table) == (
        "ZD505",
        Lock.SHARE,
        Ref("large", "public"),
    )
    assert one.severity is Severity.WARNING
    assert one.what.startswith("ADD CONSTRAINT of domain price reads every row of ")
    assert "public.small" in one.what
    assert "public.empty" not in one.what
    assert safe(one) == [
        'change = ChangeDomain("price", add_check="VALUE > 0", name="positive")'
    ]
    assert look(linter, replace(CHECK, domain=Ref("unused"))) == []
    assert look(linter, replace(CHECK, not_valid=True)) == []


def test_a_domain_without_facts_stops_all_its_tables() -> None:
    """NOT NULL becomes a check; a validation is better left out."""
    (one,) = look(OFFLINE, replace(CHECK, name=None, expression=""))
    assert one.severity is Severity.ERROR
    assert "of every table that has a column of it under SHARE" in one.what
    assert safe(one) == [
        'change = ChangeDomain("price", add_check="…", name="price_check")'
    ]
    (null,) = look(OFFLINE, replace(CHECK, how="SET NOT NULL"))
    assert safe(null) == [
        'change = ChangeDomain("price", add_check="VALUE IS NOT NULL",'
        ' name="price_not_null")'
    ]
    (proved,) = look(OFFLINE, replace(CHECK, how="VALIDATE CONSTRAINT"))
    assert safe(proved) == []
    assert look(OFFLINE, replace(CHECK, how="DROP CONSTRAINT")) == []
    created = st.Other(sql='CREATE DOMAIN "price" AS integer')
    assert look(OFFLINE, created, CHECK) == []


def test_a_view_is_refreshed_beside_its_readers(linter: Linter) -> None:
    """A plain refresh is found, not of a view that is new or was never filled."""
    refresh = st.RefreshView(view=Ref("totals"))
    (one,) = look(linter, refresh)
    assert (one.code, one.lock) == ("ZD507", Lock.ACCESS_EXCLUSIVE)
    assert one.what == (
        "REFRESH MATERIALIZED VIEW totals locks it by ACCESS EXCLUSIVE while its query"
        " runs."
    )
    assert safe(one) == ['change = RefreshMaterializedView("totals")']
    assert look(linter, st.RefreshView(view=Ref("totals"), concurrently=True)) == []
    assert look(linter, st.RefreshView(view=Ref("bare"))) == []
    created = st.Other(sql="CREATE MATERIALIZED VIEW IF NOT EXISTS totals AS SELECT 1")
    assert look(OFFLINE, created, refresh) == []
    assert [f.code for f in look(OFFLINE, refresh)] == ["ZD507"]


def test_a_view_is_locked_as_a_table_is(own: Linter, sql: psycopg.Connection) -> None:
    """What else a transaction locks behind it is told, not behind one that is new."""
    sql.execute("CREATE VIEW seen AS SELECT p FROM large")
    own.rules = RULES
    behind = st.SetDefault(table=Ref("large"), column="q", default="1")

    def codes(*done: st.Statement) -> set[str]:
        return {f.code for f in look(own, *done)}

    seen, fresh = Ref("seen"), Ref("fresh")
    alone = codes(behind)
    told = alone | {"ZD605"}
    assert "ZD605" not in alone
    assert codes(st.DropObject(of="VIEW", name=seen), behind) == told
    assert codes(st.CreateView(view=seen, replaces=True), behind) == told
    assert codes(st.CreateView(view=fresh, replaces=True), behind) == alone
    assert codes(st.CreateView(view=fresh), behind) == alone
    renamed = st.RenameTable(table=seen, to="other")
    assert "ZD403" in codes(renamed)
    assert (
        codes(st.CreateView(view=fresh), st.RenameTable(table=fresh, to="x")) == set()
    )


def test_code_that_no_rule_sees_is_told() -> None:
    """A block with DDL is a warning, a call a note, a block without passes."""
    (block,) = look(
        OFFLINE, st.Block(sql="DO $$ BEGIN alter table t add c int; END $$")
    )
    assert (block.code, block.severity) == ("ZD509", Severity.WARNING)
    assert block.what == "A DO block has ALTER in it, which no rule looks at."
    (call_,) = look(OFFLINE, st.Block(sql="CALL upgrade()"))
    assert call_.severity is Severity.NOTE
    harmless = st.Block(
        sql="do $$ begin perform set_config('a.altered', '1', true); end $$"
    )
    assert look(OFFLINE, harmless) == []


def test_a_revision_of_text_without_a_type_finds_nothing(tmp_path: Path) -> None:
    """Creating a type by SQLAlchemy is no hazard."""
    body = 'sa.Enum("a", name="mood").create(op.get_bind())'
    assert lint(tmp_path, body) == []
