"""Every form of a statement, sent to a change under way and to a plain table.

A shape is a pattern on table `t (id, p_id, v, other, c, j, m)`, whose rows go with
those of `p`. Each release has a side: a table or view, and its columns there. What is
sent to the shape is sent to a twin, a table of the same form that no change is made on.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg

from migrator.change import Change
from migrator.pattern import Pattern
from migrator.plan import State
from migrator.postgres.connection import Target
from migrator.runner import Runner
from migrator.settings import Settings

#: Types whose values are equal and look different, or have no `=` at all: the n-th
#: value of each, as SQL.
TYPES = {
    "citext": "CASE {n} % 2 WHEN 0 THEN 'Bob' ELSE 'bob' END",
    "json": "json_build_object('n', {n})",
    "numeric": "CASE {n} % 2 WHEN 0 THEN 1.0 ELSE 1.00 END",
}
#: Columns of these types, which both releases write beside what is changed.
BESIDE = {"c": TYPES["citext"], "j": TYPES["json"], "m": TYPES["numeric"]}
VALUE = "'v' || {n}"


@dataclass(frozen=True)
class Side:
    """Where a release has the value: a table or view, its key, and the column."""

    table: str
    column: str
    #: What a row holds, comparable with the other side's; the column by default.
    shown: tuple[str, ...] = ()
    #: Whether it is a view in the window: what a view cannot take is left out.
    view: bool = False
    #: Whether rows come and go with those of another table.
    owned: bool = False
    #: What is read, where it is not the table.
    read: str = ""
    #: The n-th value, where it is not the shape's.
    value: str = ""
    #: Further columns with their values; `BESIDE` where rows are its own.
    also: Mapping[str, str] | None = field(default=None, hash=False)
    #: The twin's table, where it has another name.
    twin: str = ""
    #: The column that refers to `p`.
    parent: str = "p_id"
    #: What a release sends behind each statement.
    after: str = ""
    #: The first of its keys.
    keys_from: int = 0
    #: Forms that it cannot take.
    without: frozenset[str] = frozenset()

    def values(self, shape: "Shape", n: object) -> dict[str, str]:
        """Return the columns that it writes, with the n-th value of each."""
        also = self.also
        if also is None:
            also = {} if self.owned else BESIDE
        given = {self.column: self.value or shape.value, **also}
        return {column: value.format(n=n) for column, value in given.items()}


@dataclass(frozen=True)
class Shape:
    """A pattern on table `t`, where each release has `v`."""

    name: str
    pattern: Pattern
    old: Side
    new: Side
    #: The DDL after which a table without a change takes what the new release sends.
    plain: str
    #: What runs behind the table; {type} is the type of `v`.
    setup: str = ""
    #: What the type needs, before the table.
    needs: str = ""
    type: str = "text"
    #: The n-th value, as SQL.
    value: str = VALUE
    #: When the DDL is run. In `VERIFIED` it takes the old shape away: the old release
    #: is not sent there any more.
    plain_at: State = State.VERIFIED
    #: What holds for each row of `t` while both releases run, where it is not that
    #: both show the same.
    holds: str = ""
    #: The new release's side from retire on.
    later: Side | None = None

    @property
    def two(self) -> bool:
        """Whether the releases have sides of their own, which are in step."""
        return self.plain_at is State.VERIFIED


NULL = frozenset({"update to null"})
#: Rows 1 to 9 are there; {a} and {b} are keys of new ones, {v} and {w} values.
#: Those in which rows come are for a side that has rows of its own.
COME = {
    "several rows": "INSERT INTO {t} (id, {c}) VALUES ({a}, {v}), ({b}, {w})",
    "from a query": "INSERT INTO {t} (id, {c}) SELECT g, {v} FROM"
    " generate_series({a}, {b}) g",
    "returning": "INSERT INTO {t} (id, {c}) VALUES ({a}, {v}) RETURNING {c}",
    "a common table expression": "WITH made AS (INSERT INTO {t} (id, {c}) VALUES"
    " ({a}, {v}) RETURNING id) UPDATE {t} SET {set} WHERE id = {low} + 1"
    " AND EXISTS (SELECT FROM made)",
    "on conflict update": "INSERT INTO {t} (id, {c}) VALUES ({low} + 2, {v}),"
    " ({a}, {w}) ON CONFLICT (id) DO UPDATE SET {excluded}",
    "on conflict nothing": "INSERT INTO {t} (id, {c}) VALUES ({low} + 2, {v}),"
    " ({a}, {w}) ON CONFLICT (id) DO NOTHING",
    "merge": "MERGE INTO {t} AS m USING (VALUES ({low} + 3), ({a})) AS s (id)"
    " ON m.id = s.id WHEN MATCHED THEN UPDATE SET {set}"
    " WHEN NOT MATCHED THEN INSERT (id, {c}) VALUES (s.id, {w})",
    "copy": "COPY {t} (id, {c}) FROM STDIN",
}
CHANGE = {
    "update returning": "UPDATE {t} SET {set} WHERE id = {low} + 4 RETURNING {c}",
    "update from": "UPDATE {t} SET {set} FROM (VALUES ({low} + 5), ({low} + 6))"
    " AS s (id) WHERE {t}.id = s.id",
    "update to null": "UPDATE {t} SET {null} WHERE id = {low} + 7",
    "of an own key": "UPDATE {t} SET id = {a} WHERE id = {low} + 8",
    "of a referenced key": "UPDATE p SET id = {a} WHERE id = 1",
    "delete using": "DELETE FROM {t} USING (VALUES ({b}), ({low} + 9)) AS s (id)"
    " WHERE {t}.id = s.id",
    "delete that cascades": "DELETE FROM p WHERE id = 2",
}
#: What is sent where ordinary triggers and foreign keys do not fire, as by the apply
#: worker of a subscription.
APPLIED = ("several rows", "update returning", "update from", "update to null")
#: What PostgreSQL refuses on a view, and up to which version.
NOT_ON_A_VIEW = {"copy": 99, "merge": 16}
#: The keys of a moved or split row belong to the other table.
NOT_ON_OWNED = {"of an own key", "delete using"}

# What a session of an application may have: operators that hide the server's and know
# no two values to be alike, and other forms of text.
HOSTILE = """
CREATE SCHEMA hostile;
CREATE FUNCTION hostile.no(text, text) RETURNS bool LANGUAGE sql AS 'SELECT false';
CREATE FUNCTION hostile.no(text[], text[]) RETURNS bool LANGUAGE sql AS 'SELECT false';
CREATE FUNCTION hostile.no(jsonb, jsonb) RETURNS bool LANGUAGE sql AS 'SELECT false';
CREATE FUNCTION hostile.no(numeric, numeric) RETURNS bool LANGUAGE sql
  AS 'SELECT false';
CREATE OPERATOR hostile.= (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.no);
CREATE OPERATOR hostile.= (LEFTARG = text[], RIGHTARG = text[], FUNCTION = hostile.no);
CREATE OPERATOR hostile.= (LEFTARG = jsonb, RIGHTARG = jsonb, FUNCTION = hostile.no);
CREATE OPERATOR hostile.= (LEFTARG = numeric, RIGHTARG = numeric,
  FUNCTION = hostile.no);
CREATE FUNCTION hostile.upper(text) RETURNS text LANGUAGE sql AS 'SELECT NULL::text';
CREATE FUNCTION hostile.substr(text, int) RETURNS text LANGUAGE sql
  AS 'SELECT NULL::text';
"""
SESSION = """
SET search_path = hostile, pg_catalog, {schema}, public;
SET datestyle = 'German, DMY';
SET intervalstyle = 'sql_standard';
SET extra_float_digits = 0;
SET timezone = 'Asia/Kolkata';
"""
TABLES = """
CREATE TABLE p (id int PRIMARY KEY);
INSERT INTO p VALUES (1), (2), (3);
CREATE TABLE t (id int PRIMARY KEY, p_id int DEFAULT 3 REFERENCES p
  ON UPDATE CASCADE ON DELETE CASCADE, v {type}, other int,
  c citext, j json, m numeric);
INSERT INTO t (id, p_id, v, c, j, m)
  SELECT g, 1 + g % 3, {v}, {c}, {j}, {m} FROM generate_series(1, 9) g;
CREATE INDEX t_p ON t (p_id);
"""
# Before each round of statements, so that each finds its rows.
PARENTS = "INSERT INTO p VALUES (1), (2), (3) ON CONFLICT (id) DO NOTHING"
FILL = (
    "DELETE FROM {t} WHERE {t}.id > {low} + 9",
    "INSERT INTO {t} (id, {c}) SELECT id, {v} FROM (SELECT {low} + g AS id"
    " FROM generate_series(1, 9) g) s ON CONFLICT (id) DO UPDATE SET {excluded}",
    "UPDATE {t} SET {parent} = 1 + id % 3",
)
FILL_OWNED = (
    "DELETE FROM t WHERE id > 9",
    "INSERT INTO t (id) SELECT g FROM generate_series(1, 9) g ON CONFLICT DO NOTHING",
    "UPDATE t SET p_id = 1 + id % 3",
    "UPDATE {t} SET {set}",
)


def prepare(url: str) -> None:
    """Make in a database what all shapes share."""
    with psycopg.connect(url, autocommit=True) as sql:
        sql.execute("CREATE EXTENSION citext SCHEMA public")
        sql.execute(HOSTILE.encode())


@contextmanager
def placed(url: str, shape: Shape) -> Iterator["Sender"]:
    """Make a schema for a shape and one for its twin, and give what sends to them."""
    schema = f"s_{shape.name}"
    target = Target(
        {
            **Target.from_url(url).params,
            "options": f"-c search_path={schema},public",
        }
    )
    with (
        psycopg.connect(url, autocommit=True) as sql,
        psycopg.connect(url, autocommit=True) as twin,
    ):
        _make(sql, shape, schema)
        _make(twin, shape, f"{schema}_twin")
        settings = Settings(hold_s=0, step_budget_s=3.0, lease_s=5.0)
        yield Sender(sql, twin, shape, Runner(target, settings), f"{schema}_twin")


def _make(sql: psycopg.Connection, shape: Shape, schema: str) -> None:
    first = {"v": shape.value, **BESIDE}
    values = {column: value.format(n="g") for column, value in first.items()}
    for text in (
        f"CREATE SCHEMA {schema}; SET search_path = {schema}, public",
        shape.needs,
        TABLES.format(type=shape.type, **values),
        shape.setup.replace("{type}", shape.type),
        SESSION.format(schema=schema),
    ):
        if text:
            sql.execute(text.encode())
    # A plan with results that change their type is what no tool can save.
    sql.prepare_threshold = None


@dataclass
class Sender:
    """Sends statements of a release to a shape and its twin, and compares."""

    sql: psycopg.Connection
    twin: psycopg.Connection
    shape: Shape
    runner: Runner
    #: The twin's schema.
    schema: str
    _next: int = 100

    def forms(self, side: Side) -> Iterator[tuple[str, str]]:
        """Return the forms that a release's side can take."""
        for name, form in {**({} if side.owned else COME), **CHANGE}.items():
            version = self.sql.info.server_version // 10_000
            if side.view and version <= NOT_ON_A_VIEW.get(name, 0):
                continue
            if (side.owned and name in NOT_ON_OWNED) or name in side.without:
                continue
            yield name, form

    def send(
        self, to: Sequence[psycopg.Connection], side: Side, form: str, n: str = ""
    ) -> None:
        """
        Send one statement.

        Args:
            to: where.
            side: the release's.
            form: the statement, with names in braces.
            n: whose value it writes; the next one's by default.
        """
        self._next += 10
        number = side.keys_from + self._next
        one = side.values(self.shape, n or number)
        two = side.values(self.shape, number + 1)
        for sql in to:
            table = side.twin if sql is self.twin and side.twin else side.table
            text = form.format(
                t=table,
                parent=side.parent,
                low=side.keys_from,
                c=", ".join(one),
                a=number,
                b=number + 1,
                v=", ".join(one.values()),
                w=", ".join(two.values()),
                set=", ".join(f"{c} = {v}" for c, v in one.items()),
                null=", ".join(f"{c} = NULL" for c in one),
                excluded=", ".join(f"{c} = EXCLUDED.{c}" for c in one),
            )
            if form.startswith("COPY"):
                texts = ", ".join(f"({v})::text" for v in one.values())
                row = sql.execute(f"SELECT {texts}".encode()).fetchone()
                assert row is not None
                with sql.cursor().copy(text.encode()) as copy:
                    copy.write_row((number, *row))
            else:
                written = sql.execute(text.encode()).rowcount
                assert written > 0 or n, f"{text} meets no row"
            if side.after:
                sql.execute(side.after.encode())

    def make_plain(self) -> None:
        """Run the DDL that the change stands for on the twin."""
        self.twin.execute(
            f"SET search_path = {self.schema}, public; {self.shape.plain};"
            f"{SESSION.format(schema=self.schema)}".encode()
        )

    def fill(self, side: Side, *, follows: bool = True) -> Sequence[psycopg.Connection]:
        """Have the rows that statements are about; return where."""
        to = (self.sql, self.twin) if follows else (self.sql,)
        for form in (PARENTS, *(FILL_OWNED if side.owned else FILL)):
            self.send(to, side, form, n="id")
        return to

    def round(self, side: Side, *, in_step: bool = False) -> None:
        """
        Send each form, and compare after each.

        Args:
            side: the release's.
            in_step: whether the other release sees the same.
        """
        to = self.fill(side)
        for name, form in self.forms(side):
            self.send(to, side, form)
            assert self.rows(side) == self.rows(side, self.twin), name
            if in_step:
                self.compare(name)

    def apply(self, side: Side) -> None:
        """Write as the apply worker of a subscription does, and compare."""
        self.sql.execute("SET session_replication_role = replica")
        for name, form in self.forms(side):
            # A row of another table that holds nothing may be none.
            if name in APPLIED and not (side.owned and name in NULL):
                self.send((self.sql,), side, form)
                self.compare(name)
        self.sql.execute("SET session_replication_role = origin")

    def rows(
        self, side: Side, sql: psycopg.Connection | None = None
    ) -> list[tuple[object, ...]]:
        """Return what a release sees, of the shape or of its twin."""
        beside = [c for c in side.values(self.shape, 0) if c != side.column]
        shown = [*(side.shown or [side.column]), *beside]
        table = side.twin if sql is self.twin and side.twin else side.table
        texts = ", ".join(f"({s})::text" for s in shown)
        return (
            (sql or self.sql)
            .execute(
                f"SELECT id, {texts} FROM {side.read or table} ORDER BY id".encode()
            )
            .fetchall()
        )

    def compare(self, name: str) -> None:
        """Compare both sides."""
        shape = self.shape
        if shape.holds:
            row = self.sql.execute(
                f"SELECT count(*) FROM t WHERE ({shape.holds}) IS NOT TRUE".encode()
            ).fetchone()
            assert row == (0,), name
        elif shape.two:
            assert self.rows(shape.old) == self.rows(shape.new), name

    def unrelated(self) -> None:
        """Update a column that the change does not touch, and see what there was."""
        old = self.rows(self.shape.old)
        self.sql.execute("UPDATE t SET other = 1")
        assert self.rows(self.shape.old) == old

    def raw(self) -> list[object]:
        """Return all that is in the tables of both sides, but for one column."""
        tables = dict.fromkeys(("t", self.shape.old.table, self.shape.new.table))
        return [
            self.sql.execute(
                f"SELECT to_jsonb(_r) - 'other' FROM {t} _r ORDER BY id".encode()
            ).fetchall()
            for t in tables
        ]


def carry(sender: Sender) -> None:
    """
    Take a change through and back, with every form of a statement in each state.

    Raises:
        AssertionError: what is there is not what it is without a change, the sides
            differ, or what the new release wrote is not there after the way back.
    """
    shape, runner = sender.shape, sender.runner
    old, new = shape.old, shape.new

    def plain(now: State) -> None:
        if shape.plain and shape.plain_at is now:
            sender.make_plain()

    change = Change(revision=shape.name, pattern=shape.pattern)
    state = runner.expand(change)
    plain(State.EXPANDED)
    early = shape.pattern.admission.rank <= State.EXPANDED.rank and not shape.two
    for wanted, go in (
        (State.BACKFILLED, runner.backfill),
        (State.VERIFIED, runner.verify),
    ):
        if state.rank < wanted.rank:
            for side in dict.fromkeys((old, new) if early else (old,)):
                sender.round(side)
            sender.unrelated()
            state = go(change.id)
    assert state.rank >= State.VERIFIED.rank
    sender.round(old, in_step=True)
    plain(State.VERIFIED)
    if shape.two or new != old:
        sender.round(new, in_step=True)
    before = sender.raw()
    sender.unrelated()
    assert sender.raw() == before
    for side in dict.fromkeys((new, old)):
        sender.fill(side, follows=not shape.two)
        sender.apply(side)
        if not shape.two:
            sender.fill(side)
    told = sender.rows(new)
    runner.retire(change.id, old_release_gone="test")
    assert not runner.mismatches(change.id)
    if shape.two:
        assert sender.rows(new) == told
    plain(State.RETIRED)
    sender.round(shape.later or new)
    if shape.later is not None:
        sender.fill(new)
    told = sender.rows(new)
    runner.rollback(change.id, to=State.VERIFIED)
    assert sender.rows(new) == told
    if not shape.holds:
        sender.compare("the way back")
