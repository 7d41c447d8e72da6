"""Rules about constraints, without and with a database."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
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

CONSTRAINTS = [rule for rule in RULES if rule.code.startswith("ZD2")]

SCHEMA = """
CREATE TABLE users (id bigint PRIMARY KEY, code numeric UNIQUE);
CREATE TABLE teams (id bigint PRIMARY KEY, small integer UNIQUE);
CREATE TABLE orders (id bigint NOT NULL, user_id bigint, old_id integer, code integer,
    price integer, team_id bigint, ref bigint,
    CONSTRAINT orders_team FOREIGN KEY (team_id) REFERENCES teams);
INSERT INTO users SELECT n, n FROM generate_series(1, 1000) n;
INSERT INTO teams VALUES (1);
INSERT INTO orders SELECT n, n, n, n, n FROM generate_series(1, 1000) n;
CREATE UNIQUE INDEX orders_id ON orders (id);
CREATE UNIQUE INDEX orders_ref ON orders (ref);
CREATE INDEX orders_price ON orders (price) WHERE price > 0;
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'orders_ref'::regclass;
CREATE INDEX orders_team ON orders (team_id);
CREATE TABLE empty (id bigint PRIMARY KEY, user_id bigint);
ANALYZE;
"""

OFFLINE = Linter(rules=CONSTRAINTS)


@contextmanager
def prepared(url: str) -> Iterator[Linter]:
    """Give a linter of a database with orders of users."""
    with psycopg.connect(url, autocommit=True) as sql:
        sql.execute(SCHEMA)
    with connect(Target.from_url(url), "lint") as conn:
        yield Linter(
            rules=CONSTRAINTS,
            read=reader(conn),
            server_version=conn.info.server_version,
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
    return [call(p) for p in finding.safe.patterns]


FOREIGN_KEY = (
    'op.create_foreign_key("orders_user", "orders", "users", ["user_id"], ["id"],'
    ' ondelete="CASCADE", initially="DEFERRED", deferrable=True{more})'
)


def test_a_foreign_key_says_what_it_locks(tmp_path: Path) -> None:
    """Its message names both tables, its pattern has all of its arguments."""
    (one,) = lint(OFFLINE, tmp_path, FOREIGN_KEY.format(more=""))
    assert (one.code, one.severity, one.lock) == (
        "ZD201",
        Severity.ERROR,
        Lock.SHARE_ROW_EXCLUSIVE,
    )
    assert one.what == (
        "ADD FOREIGN KEY orders_user reads every row of orders under SHARE ROW"
        " EXCLUSIVE on orders and on users."
    )
    assert one.why == (
        "Nobody can write orders or users meanwhile; a row without a parent makes it"
        " fail."
    )
    assert safe(one) == [
        "change = AddForeignKey(\n"
        '    "orders",\n    ["user_id"],\n    "users",\n    ["id"],\n'
        '    "orders_user",\n    on_delete="CASCADE",\n    deferrable="deferred",\n)'
    ]


def test_a_foreign_key_that_is_not_valid_yet_passes(tmp_path: Path) -> None:
    """NOT VALID reads no row."""
    more = ", postgresql_not_valid=True"
    assert lint(OFFLINE, tmp_path, FOREIGN_KEY.format(more=more)) == []


def test_a_foreign_key_without_a_name_or_columns_is_completed(linter: Linter) -> None:
    """The name is the server's own, the columns are the parent's primary key."""
    added = st.AddConstraint(
        table=Ref("orders"),
        constraint=st.NewConstraint(
            kind="f", columns=("team_id",), to=st.ForeignTo(table=Ref("teams"))
        ),
    )
    (one,) = look(linter, added)
    assert safe(one) == [
        'change = AddForeignKey("orders", ["team_id"], "teams", ["id"],'
        ' "orders_team_id_fkey")'
    ]
    assert one.severity is Severity.WARNING
    assert "orders or teams (1 row) meanwhile" in one.why
    (offline,) = look(OFFLINE, added)
    assert offline.safe is not None
    assert offline.safe.decide == (
        "which columns of teams it refers to: its primary key."
    )
    assert look(linter, st.CreateTable(table=Ref("orders")), added) == []


def test_a_partitioned_table_takes_none_before_18(
    own: Linter, tmp_path: Path, sql: psycopg.Connection
) -> None:
    """The pattern is named with what it refuses."""
    sql.execute(
        "CREATE TABLE logs (user_id bigint) PARTITION BY RANGE (user_id);"
        "CREATE TABLE logs1 PARTITION OF logs DEFAULT; CREATE INDEX ON logs (user_id);"
        "INSERT INTO logs VALUES (1)"
    )
    own.server_version = 170004
    body = 'op.create_foreign_key("f", "logs", "users", ["user_id"], ["id"])'
    (one,) = lint(own, tmp_path, body)
    assert one.safe is not None
    assert one.safe.decide.startswith("when nobody writes either table")
    weak = body.replace("])", "], postgresql_not_valid=True)")
    (two,) = lint(own, tmp_path, weak)
    assert two.severity is Severity.ERROR
    assert two.what == (
        "ADD FOREIGN KEY f NOT VALID fails: logs is partitioned, and PostgreSQL 17"
        " takes none there."
    )
    own.server_version = 180000
    assert lint(own, tmp_path, weak) == []
    add = "ALTER TABLE logs ADD FOREIGN KEY (user_id) REFERENCES users NOT VALID"
    refused = pytest.raises(psycopg.errors.WrongObjectType)
    with refused if sql.info.server_version < 180000 else nullcontext():
        sql.execute(add)


def test_foreign_keys_together_lock_one_more_table(tmp_path: Path) -> None:
    """The second one is found where it locks a further table, not in a block alone."""
    first = FOREIGN_KEY.format(more=", postgresql_not_valid=True")
    other = 'op.create_foreign_key("{}", "orders", "{}", ["a"], ["id"], {})'
    more = "postgresql_not_valid=True"
    (one,) = lint(OFFLINE, tmp_path, f"{first}\n{other.format('x', 'teams', more)}")
    assert (one.code, one.severity) == ("ZD203", Severity.WARNING)
    assert one.what == (
        "A further foreign key locks teams too, while orders and users are still"
        " locked."
    )
    assert safe(one) == [
        'change = AddForeignKey("orders", ["a"], "teams", ["id"], "x")'
    ]
    again = f"{first}\n{other.format('x', 'users', more)}"
    assert lint(OFFLINE, tmp_path, again) == []
    apart = (
        f"{first}\nwith op.get_context().autocommit_block():\n"
        f"    {other.format('x', 'teams', more)}"
    )
    assert lint(OFFLINE, tmp_path, apart) == []


INDEX = 'op.create_index("ix_o", "orders", ["user_id"])'


def test_a_foreign_key_asks_for_an_index(linter: Linter, tmp_path: Path) -> None:
    """One of the database or of the revision counts, before or after."""
    body = FOREIGN_KEY.format(more=", postgresql_not_valid=True")
    (one,) = lint(linter, tmp_path, body)
    assert (one.code, one.severity) == ("ZD205", Severity.WARNING)
    assert (
        one.what == "No index of orders begins with (user_id), which refers to users."
    )
    assert safe(one) == [
        'change = CreateIndex("orders", ["user_id"], "ix_orders_user_id")'
    ]
    assert lint(linter, tmp_path, f"{body}\n{INDEX}") == []
    assert lint(linter, tmp_path, f"{INDEX}\n{body}") == []
    partial = INDEX[:-1] + ', postgresql_where="user_id > 7")'
    assert codes(lint(linter, tmp_path, f"{body}\n{partial}")) == ["ZD205"]
    for useless in ("price", "ref"):
        other = body.replace('["user_id"]', f'["{useless}"]')
        assert "ZD205" in codes(lint(linter, tmp_path, other))
    indexed = body.replace('["user_id"]', '["team_id"]')
    assert lint(linter, tmp_path, indexed) == []
    assert lint(linter, tmp_path, body.replace('"orders"', '"empty"')) == []


def test_a_foreign_key_of_another_type(linter: Linter, tmp_path: Path) -> None:
    """A narrower number runs out, another type finds no index, a wider one passes."""

    def added(column: str, to: str) -> str:
        return (
            f'op.create_foreign_key("f", "orders", "users", ["{column}"], ["{to}"],'
            " postgresql_not_valid=True)\n"
            f'op.create_index("i", "orders", ["{column}"])'
        )

    (narrow,) = lint(linter, tmp_path, added("old_id", "id"))
    assert narrow.code == "ZD207"
    assert narrow.what == (
        "orders.old_id is integer, and refers to users.id, which is bigint."
    )
    assert narrow.why == (
        "Rows of users whose key is beyond integer can have none that refer to them:"
        " such an INSERT fails."
    )
    assert safe(narrow) == [
        'change = ChangeColumnType("orders", "old_id", "bigint", to="…")'
    ]
    (other,) = lint(linter, tmp_path, added("code", "code"))
    assert other.why == (
        "It is compared as numeric, for which no index on the column serves: each"
        " DELETE from users reads the whole table."
    )
    new = 'op.add_column("orders", sa.Column("n", {}))\n' + added("n", "id")
    (int_,) = lint(linter, tmp_path, new.format("sa.Integer"))
    assert int_.code == "ZD207"
    assert lint(linter, tmp_path, new.format("sa.BigInteger")) == []
    wide = added("id", "small").replace('"users"', '"teams"')
    assert codes(lint(linter, tmp_path, wide)) == []


def test_a_check_is_added_in_two_steps(tmp_path: Path) -> None:
    """Its condition goes into the pattern; NOT VALID passes."""
    body = 'op.create_check_constraint("positive", "orders", "price > 0"{})'
    (one,) = lint(OFFLINE, tmp_path, body.format(""))
    assert (one.code, one.lock) == ("ZD211", Lock.ACCESS_EXCLUSIVE)
    assert one.what == (
        "ADD CHECK (price > 0) on orders reads every row under ACCESS EXCLUSIVE."
    )
    assert safe(one) == ['change = AddCheck("orders", "positive", "price > 0")']
    assert lint(OFFLINE, tmp_path, body.format(", postgresql_not_valid=True")) == []


CHECK = st.AddConstraint(
    table=Ref("orders"),
    constraint=st.NewConstraint(
        kind="c", name="positive", expression="price > 0", not_valid=True
    ),
)
VALIDATE = st.ValidateConstraint(table=Ref("orders"), name="positive")


def test_a_validation_stands_apart(linter: Linter) -> None:
    """In one transaction it reads under the lock that adding took."""
    (one,) = look(OFFLINE, CHECK, VALIDATE)
    assert (one.code, one.lock) == ("ZD213", Lock.ACCESS_EXCLUSIVE)
    assert one.what == (
        "VALIDATE CONSTRAINT positive reads every row of orders in the transaction that"
        " added it, which holds ACCESS EXCLUSIVE."
    )
    assert (
        one.why == "Nobody can use the table meanwhile: NOT VALID has spared nothing."
    )
    assert safe(one) == ['change = AddCheck("orders", "positive", "price > 0")']
    assert look(OFFLINE, CHECK, VALIDATE, autocommit=True) == []
    assert look(OFFLINE, VALIDATE) == []
    named = st.ValidateConstraint(table=Ref("orders", "public"), name="positive")
    assert codes(look(linter, CHECK, named)) == ["ZD213"]


def test_a_validated_foreign_key_stops_writers_only() -> None:
    """Its lock is the weaker one that adding took."""
    key = st.NewConstraint(
        kind="f",
        name="positive",
        columns=("a",),
        to=st.ForeignTo(table=Ref("users"), columns=("id",)),
        not_valid=True,
    )
    added = st.AddConstraint(table=Ref("orders"), constraint=key)
    (one,) = look(OFFLINE, added, VALIDATE)
    assert one.lock is Lock.SHARE_ROW_EXCLUSIVE
    assert one.why.startswith("Nobody can write the table")
    assert safe(one) == [
        'change = AddForeignKey("orders", ["a"], "users", ["id"], "positive")'
    ]


def test_a_unique_constraint_takes_an_index_over(tmp_path: Path) -> None:
    """One that builds is found, with its name and options; one that takes over not."""
    (one,) = lint(
        OFFLINE,
        tmp_path,
        'op.create_unique_constraint(None, "orders", ["a", "b"],'
        " postgresql_nulls_not_distinct=True)",
    )
    assert (one.code, one.lock) == ("ZD221", Lock.ACCESS_EXCLUSIVE)
    assert one.what == (
        "ADD UNIQUE (a, b) on orders builds an index under ACCESS EXCLUSIVE."
    )
    assert safe(one) == [
        'change = AddUnique("orders", ["a", "b"], "orders_a_b_key",'
        " nulls_not_distinct=True)"
    ]
    over = st.NewConstraint(kind="u", name="u", using_index="u")
    assert look(OFFLINE, st.AddConstraint(table=Ref("orders"), constraint=over)) == []


def test_a_primary_key_takes_an_index_over(linter: Linter, tmp_path: Path) -> None:
    """One that builds is found, and one over columns that may be NULL."""
    body = 'op.create_primary_key("orders_pkey", "orders", ["id"])'
    (one,) = lint(OFFLINE, tmp_path, body)
    assert (one.code, one.lock) == ("ZD223", Lock.ACCESS_EXCLUSIVE)
    assert one.what == (
        "ADD PRIMARY KEY (id) builds an index on orders under ACCESS EXCLUSIVE."
    )
    assert safe(one) == ['change = AddPrimaryKey("orders", ["id"], "orders_pkey")']

    def over(index: str) -> st.AddConstraint:
        key = st.NewConstraint(kind="p", name="k", using_index=index)
        return st.AddConstraint(table=Ref("orders"), constraint=key)

    assert look(linter, over("orders_id")) == []
    (scan,) = look(linter, over("orders_ref"))
    assert scan.what == (
        "ADD PRIMARY KEY (ref) reads every row of orders for NULL in ref under ACCESS"
        " EXCLUSIVE."
    )
    assert look(OFFLINE, over("orders_ref")) == []


def test_an_exclusion_constraint_is_read_where_it_is_plain(tmp_path: Path) -> None:
    """Elements, method and predicate become the pattern's, or are left to a person."""
    (one,) = lint(
        OFFLINE,
        tmp_path,
        'op.create_exclude_constraint("apart", "stays", ("room", "="),'
        ' ("during", "&&"), using="gist", where=sa.text("held"))',
    )
    assert (one.code, one.lock) == ("ZD225", Lock.ACCESS_EXCLUSIVE)
    assert one.what == (
        "ADD EXCLUDE apart on stays builds an index under ACCESS EXCLUSIVE."
    )
    (held,) = safe(one)
    assert held.split("\n")[2:] == [
        '    [("room", "="), ("during", "&&")],',
        '    "apart",',
        '    where="held",',
        '    assured="…",',
        ")",
    ]
    text = "USING gist (tsrange(a, b) WITH &&)"
    odd = st.NewConstraint(kind="x", name="apart", definition=text)
    (two,) = look(OFFLINE, st.AddConstraint(table=Ref("stays"), constraint=odd))
    assert two.safe is not None
    assert two.safe.decide.startswith(f"the elements and operators of {text}; and ")
    (unread,) = safe(two)
    assert '[("…", "…")], "apart", assured="…")' in unread


def test_a_foreign_key_goes_by_a_pattern(linter: Linter, tmp_path: Path) -> None:
    """Alembic's word or facts tell that it is one; those of the revision pass."""
    typed = 'op.drop_constraint("orders_team", "orders", type_="foreignkey")'
    (offline,) = lint(OFFLINE, tmp_path, typed)
    assert (offline.code, offline.severity) == ("ZD231", Severity.WARNING)
    assert offline.what == (
        "Dropping foreign key orders_team locks orders and the table that it refers to"
        " by ACCESS EXCLUSIVE."
    )
    bare = 'op.drop_constraint("orders_team", "orders")'
    assert lint(OFFLINE, tmp_path, bare) == []
    (known,) = lint(linter, tmp_path, bare)
    assert "locks orders and public.teams by ACCESS EXCLUSIVE" in known.what
    assert safe(known) == ['change = DropConstraint("orders", "orders_team")']
    own = FOREIGN_KEY.format(more=", postgresql_not_valid=True")
    gone = typed.replace("orders_team", "orders_user")
    assert lint(OFFLINE, tmp_path, f"{own}\n{gone}") == []


def test_a_constraint_that_goes_lets_something_in(
    own: Linter, sql: psycopg.Connection, tmp_path: Path
) -> None:
    """Keys, checks and exclusions are told, not what says no more than NOT NULL."""
    sql.execute(
        "ALTER TABLE orders ADD CONSTRAINT dear CHECK (price > 0),"
        " ADD CONSTRAINT there CHECK (id IS NOT NULL),"
        " ADD CONSTRAINT owned CHECK (user_id IS NOT NULL),"
        " ADD CONSTRAINT once EXCLUDE (old_id WITH =)"
    )
    (check,) = lint(own, tmp_path, 'op.drop_constraint("dear", "orders")')
    assert (check.code, check.severity, check.seconds) == (
        "ZD233",
        Severity.WARNING,
        0.0,
    )
    assert check.what == (
        "DROP CONSTRAINT dear lets rows into orders that the check kept out."
    )
    assert safe(check) == ['change = DropConstraint("orders", "dear")']
    (key,) = lint(own, tmp_path, 'op.drop_constraint("users_code_key", "users")')
    assert "ON CONFLICT of the release in use" in key.why
    assert key.safe is not None
    assert key.safe.decide.startswith("whether a query names it")
    (other,) = lint(own, tmp_path, 'op.drop_constraint("once", "orders")')
    assert other.safe is None
    assert lint(own, tmp_path, 'op.drop_constraint("there", "orders")') == []
    owned = 'op.drop_constraint("owned", "orders")'
    assert codes(lint(own, tmp_path, owned)) == ["ZD233"]
    null = 'op.alter_column("orders", "user_id", nullable=False)'
    assert lint(own, tmp_path, f"{null}\n{owned}") == []
    added = 'op.create_check_constraint("new", "orders", "price > 1")'
    gone = 'op.drop_constraint("new", "orders", type_="check")'
    assert "ZD233" not in codes(lint(own, tmp_path, f"{added}\n{gone}"))
    assert codes(lint(OFFLINE, tmp_path, gone)) == ["ZD233"]
    assert lint(OFFLINE, tmp_path, owned) == []
