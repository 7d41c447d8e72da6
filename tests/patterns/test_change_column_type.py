"""ChangeColumnType: in place or by a second column, its life and its messages."""

from dataclasses import replace

import psycopg
import pytest

from migrator.change import Change
from migrator.errors import Failed, LockBudgetError, MismatchError, Refused
from migrator.facts import Column, Facts, Index, IndexColumn, Table
from migrator.names import TableName
from migrator.patterns import ChangeColumnType
from migrator.plan import Autocommit, Phase, State, Transaction
from migrator.runner import Runner

ITEMS = TableName("public", "items")
TAG = Change(revision="c1", pattern=ChangeColumnType("items", "n", "bigint")).tag(ITEMS)
RETIRED = f"_migrator_retired_n_{TAG}"
MARK = f"_migrator_mark_no_counterpart_{TAG}"
OTHER = ChangeColumnType("items", "n", "bigint", "big", old_type="integer")
SAME = ChangeColumnType("items", "n", "bigint", old_type="integer", assured="tried")


def change(pattern: ChangeColumnType) -> Change:
    """Return the change of that pattern."""
    return Change(revision="c1", pattern=pattern)


@pytest.fixture(autouse=True)
def _items(sql: psycopg.Connection) -> None:
    sql.execute(
        "CREATE TABLE items (id int PRIMARY KEY, k int DEFAULT 0,"
        " n int NOT NULL DEFAULT 7, word varchar(10) DEFAULT 'w');"
        "CREATE INDEX items_n ON items (n DESC, id); CREATE INDEX ON items (word);"
        "COMMENT ON COLUMN items.n IS 'how many''s';"
        "ALTER TABLE items ALTER n SET STATISTICS 500;"
        "INSERT INTO items (id, n) VALUES (1, 10), (2, 20)"
    )


def verified(runner: Runner, pattern: ChangeColumnType) -> None:
    """Carry the change to where both releases work."""
    runner.expand(change(pattern))
    runner.backfill("c1")
    assert runner.verify("c1") is State.VERIFIED


def shape(sql: psycopg.Connection) -> list[tuple[object, ...]]:
    """Return columns with what hangs on them, indexes and constraints."""
    return sql.execute(
        "SELECT attname::text, format_type(atttypid, atttypmod), attnotnull,"
        " pg_get_expr(adbin, adrelid), col_description(attrelid, attnum),"
        " NULLIF(attstattarget, -1), attstorage::text, attcollation::regcollation::text"
        " FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid"
        " AND adnum = attnum WHERE attrelid = 'items'::regclass AND attnum > 0"
        " AND NOT attisdropped UNION ALL SELECT pg_get_indexdef(indexrelid), NULL,"
        " indisvalid, NULL, NULL, NULL, NULL, NULL FROM pg_index"
        " WHERE indrelid = 'items'::regclass UNION ALL"
        " SELECT pg_get_constraintdef(oid), NULL, convalidated, NULL, NULL, NULL,"
        " NULL, NULL FROM pg_constraint WHERE conrelid = 'items'::regclass"
        " UNION ALL SELECT tgname, NULL, NULL, NULL, NULL, NULL, NULL, NULL"
        " FROM pg_trigger WHERE tgrelid = 'items'::regclass ORDER BY 1, 2"
    ).fetchall()


def altered(sql: psycopg.Connection, *actions: str) -> list[tuple[object, ...]]:
    """Return the shape that plain DDL makes, but for how the default is spelt."""
    with sql.transaction(force_rollback=True):
        sql.execute("ALTER TABLE items ALTER n SET DEFAULT (7)::bigint")
        for action in actions:
            sql.execute(f"ALTER TABLE items {action}".encode())
        return shape(sql)


def rows(sql: psycopg.Connection, columns: str) -> list[tuple[object, ...]]:
    """Return columns of all rows."""
    return sql.execute(f"SELECT {columns} FROM items ORDER BY id".encode()).fetchall()


# -- text --------------------------------------------------------------------


def facts(column: Column, *indexes: Index, answers: tuple[str, ...] = ()) -> Facts:
    """Return facts about a table with hostile names."""
    table = TableName('my "sch', "or%der")
    made = Table(name=table, oid=1, columns=(column,), indexes=indexes)
    given = dict.fromkeys(("there", "free", "back"), False)
    return Facts(
        server_version=180000,
        tag="0123456789",
        table=made,
        answers=given | dict.fromkeys(answers, True),
    )


HOSTILE = ChangeColumnType("or%der", 'a "b', "varchar(5)", ":x é", schema='my "sch')
WORD = Column(name='a "b', type="text", not_null=True, default="'%'::text", comment="'")


def test_text_of_a_second_column() -> None:
    """Names are quoted, casts cut nothing, and the heir gets what it can have."""
    keys = (IndexColumn(name='a "b', options="DESC"),)
    given = facts(
        WORD, Index(name="by word", method="btree", keys=keys, columns=('a "b',))
    )
    (add,) = HOSTILE.expand(given)
    assert isinstance(add.work, Transaction)
    assert add.work.statements[:3] == (
        'LOCK TABLE "my ""sch"."or%der" IN ACCESS EXCLUSIVE MODE',
        'ALTER TABLE "my ""sch"."or%der" ADD COLUMN ":x é" varchar(5)',
        """COMMENT ON COLUMN "my ""sch"."or%der".":x é" IS ''''""",
    )
    function = add.work.statements[3]
    assert '(SELECT ("a ""b"::varchar) FROM (SELECT NEW.*) AS "or%der")' in function
    assert '(SELECT (":x é"::text) FROM (SELECT NEW.*) AS "or%der")' in function
    _, copy = HOSTILE.backfill(given)
    assert isinstance(copy.work, Autocommit)
    assert copy.work.statement == (
        'CREATE INDEX CONCURRENTLY "_migrator_index_by word_0123456789" ON'
        ' "my ""sch"."or%der" USING "btree" (":x é" DESC)'
    )
    *_, check, validate, exchange = HOSTILE.retire(given)
    assert (check.name, validate.name) == ("add_check", "validate_check")
    assert isinstance(exchange.work, Transaction)
    lines = [s for s in exchange.work.statements if s.startswith("ALTER TABLE")]
    table, name = 'ALTER TABLE "my ""sch"."or%der"', '":x é"'
    assert lines[:5] == [
        f'{table} ALTER COLUMN "a ""b" DROP NOT NULL',
        f'{table} RENAME COLUMN "a ""b" TO "_migrator_retired_a ""b_0123456789"',
        f"{table} ALTER COLUMN {name} SET NOT NULL",
        f'{table} DROP CONSTRAINT "_migrator_check_:x é_0123456789"',
        f"{table} ALTER COLUMN {name} SET DEFAULT (('%'::text)::varchar)",
    ]


def test_text_in_place() -> None:
    """A free change is one statement under its lock, and one for statistics."""
    pattern = ChangeColumnType(
        "or%der", 'a "b', "text", schema='my "sch', assured="tried"
    )
    given = facts(replace(WORD, type="character varying(5)"), answers=("free", "back"))
    alter, analyze = pattern.steps(Phase.EXPAND, given)
    assert isinstance(alter.work, Transaction)
    *statements, compiled = alter.work.statements
    assert statements == [
        'LOCK TABLE "my ""sch"."or%der" IN ACCESS EXCLUSIVE MODE',
        'ALTER TABLE "my ""sch"."or%der" ALTER COLUMN "a ""b" TYPE text',
    ]
    assert compiled.startswith("DO ")
    back, again = alter.reverse
    assert isinstance(back, Transaction)
    assert back.statements[1] == (
        'ALTER TABLE "my ""sch"."or%der" ALTER COLUMN "a ""b" TYPE character varying(5)'
    )
    assert isinstance(analyze.work, Autocommit)
    assert analyze.work == again
    assert analyze.work.statement == 'ANALYZE "my ""sch"."or%der" ("a ""b")'
    assert not any(pattern.steps(p, given) for p in list(Phase)[1:])


# -- life cycle --------------------------------------------------------------


def test_under_another_name(runner: Runner, sql: psycopg.Connection) -> None:
    """Both types are in use, and all that hung on the old column is on the new."""
    before = shape(sql)
    plain = altered(sql, "ALTER n TYPE bigint", "RENAME n TO big")
    verified(runner, OTHER)
    sql.execute("INSERT INTO items (id, n) VALUES (3, 30)")
    sql.execute("INSERT INTO items (id, big) VALUES (4, 40)")
    sql.execute("INSERT INTO items (id) VALUES (5)")
    sql.execute("UPDATE items SET big = 11 WHERE id = 1; UPDATE items SET k = 1")
    assert rows(sql, "n, big") == [(11, 11), (20, 20), (30, 30), (40, 40), (7, 7)]
    with pytest.raises(psycopg.errors.NumericValueOutOfRange):
        sql.execute("UPDATE items SET big = 3000000000 WHERE id = 1")
    runner.retire("c1", old_release_gone="test")
    sql.execute("UPDATE items SET big = 3000000000 WHERE id = 1")
    sql.execute("INSERT INTO items (id) VALUES (6)")
    with pytest.raises(psycopg.errors.NotNullViolation):
        sql.execute("UPDATE items SET big = NULL WHERE id = 2")
    with pytest.raises(Refused, match=f'1 row holds .*(?s:.)*"{MARK}" set'):
        runner.rollback("c1")
    assert rows(sql, f'id, "{RETIRED}", "{MARK}"')[0] == (1, None, True)
    sql.execute("UPDATE items SET big = 12 WHERE id = 1")
    assert runner.rollback("c1") is State.VERIFIED
    sql.execute("UPDATE items SET n = 13 WHERE id = 1")
    assert rows(sql, "n, big")[0] == (13, 13)
    assert rows(sql, "n, big")[-1] == (7, 7)
    runner.rollback("c1", to=State.PLANNED)
    runner.drop_parked("c1")
    assert shape(sql) == before
    verified(runner, OTHER)
    runner.retire("c1", old_release_gone="test")
    assert runner.drop("c1") is State.DROPPED
    assert shape(sql) == plain


def test_under_the_same_name(runner: Runner, sql: psycopg.Connection) -> None:
    """Names are exchanged at retire; the schema is that of a plain ALTER TYPE."""
    before = shape(sql)
    plain = altered(sql, "ALTER n TYPE bigint")
    verified(runner, SAME)
    sql.execute("INSERT INTO items (id, n) VALUES (3, 30); UPDATE items SET k = 1")
    runner.retire("c1", old_release_gone="test")
    sql.execute("UPDATE items SET n = 3000000000 WHERE id = 1")
    sql.execute("INSERT INTO items (id, n) VALUES (4, 4); UPDATE items SET k = 2")
    assert rows(sql, f'n, "{RETIRED}"') == [
        (3000000000, None),
        (20, 20),
        (30, 30),
        (4, 4),
    ]
    with pytest.raises(Refused, match="1 row holds"):
        runner.rollback("c1")
    sql.execute("UPDATE items SET n = 5 WHERE id = 1")
    runner.rollback("c1")
    assert rows(sql, "n") == [(5,), (20,), (30,), (4,)]
    sql.execute("UPDATE items SET n = n + 1")
    runner.rollback("c1", to=State.PLANNED)
    runner.drop_parked("c1")
    assert shape(sql) == before
    verified(runner, SAME)
    runner.retire("c1", old_release_gone="test")
    assert runner.drop("c1") is State.DROPPED
    assert rows(sql, "n") == [(6,), (21,), (31,), (5,)]
    assert shape(sql) == plain


def test_in_place(runner: Runner, sql: psycopg.Connection) -> None:
    """A free change keeps every file, and leaves statistics; so does its way back."""
    pattern = ChangeColumnType("items", "word", "varchar", assured="no prepared SELECT")
    sql.execute("ALTER TABLE items ALTER word TYPE text")
    before, files = shape(sql), stored(sql)
    assert runner.expand(change(pattern)) is State.VERIFIED
    assert shape(sql)[-1][1] == "character varying"
    sql.execute("INSERT INTO items (id, word) VALUES (3, 'longer than before')")
    kept = sql.execute("SELECT count(*) FROM pg_stats WHERE attname = 'word'")
    assert kept.fetchone() == (1,)
    assert runner.rollback("c1", to=State.PLANNED) is State.PLANNED
    assert (shape(sql), stored(sql)) == (before, files)
    assert runner.expand(change(pattern)) is State.VERIFIED
    assert runner.retire("c1", old_release_gone="test") is State.VERIFIED
    assert stored(sql) == files


def test_in_place_under_another_search_path(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """The way back finds the type of before, and knows it, by whichever path."""
    sql.execute(
        "CREATE SCHEMA one; CREATE DOMAIN one.word AS text; CREATE SCHEMA two;"
        " CREATE DOMAIN two.word AS text; CREATE TABLE users (name one.word)"
    )
    path = f"ALTER DATABASE {sql.info.dbname} SET search_path ="
    sql.execute(f"{path} one, public".encode())
    pattern = ChangeColumnType("users", "name", "text", assured="tried")
    runner.expand(Change(revision="a1", pattern=pattern))
    runner.settle("a1")
    runner.retire("a1", old_release_gone="test")
    sql.execute(f"{path} two, public".encode())
    assert runner.rollback("a1", to=State.PLANNED) is State.PLANNED
    kind = "SELECT format_type(atttypid, -1) FROM pg_attribute WHERE attname = 'name'"
    row = sql.execute(f"{kind} AND attrelid = 'users'::regclass".encode()).fetchone()
    assert row == ("one.word",)


def test_beside_stored_rows_nothing_is_free(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """The server changes no type of a table whose rows a column holds."""
    sql.execute("CREATE TABLE kept AS SELECT items AS row FROM items")
    pattern = ChangeColumnType("items", "word", "text", assured="no prepared SELECT")
    assert runner.expand(change(pattern)) is State.EXPANDED
    assert runner.settle("c1") is State.VERIFIED


def test_in_place_without_a_way_back(runner: Runner, sql: psycopg.Connection) -> None:
    """Where narrowing would rewrite, the wider type stays, as the plan says."""
    pattern = ChangeColumnType("items", "word", "varchar(20)", assured="tried")
    plan = runner.plan(change(pattern))
    assert plan.notices[-1].text == (
        "Rolling back: the column keeps the new type, which holds all that the old"
        " one does; the way back would rewrite the table under ACCESS EXCLUSIVE, so"
        " make it a change of its own."
    )
    runner.expand(change(pattern))
    assert runner.rollback("c1", to=State.PLANNED) is State.PLANNED
    assert shape(sql)[-1][1] == "character varying(20)"
    assert runner.expand(change(pattern)) is State.VERIFIED


def test_in_place_waits_for_its_lock(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """Within its budget; a reader keeps the change out, and nothing is left."""
    runner = replace(runner, settings=replace(runner.settings, step_budget_s=0.3))
    pattern = ChangeColumnType("items", "word", "text", assured="tried")
    for given in (pattern, SAME):
        before = shape(sql)
        with psycopg.connect(database) as reader:
            reader.execute("SELECT FROM items")
            with pytest.raises(LockBudgetError, match=r"Held by pid \d+"):
                runner.expand(change(given))
        assert shape(sql) == before
        runner.rollback("c1", to=State.PLANNED)


def stored(sql: psycopg.Connection) -> list[tuple[object, ...]]:
    """Return the files of the table and of its indexes."""
    return sql.execute(
        "SELECT relname, relfilenode FROM pg_class"
        " WHERE oid = 'items'::regclass OR oid IN"
        " (SELECT indexrelid FROM pg_index WHERE indrelid = 'items'::regclass)"
        " ORDER BY 1"
    ).fetchall()


@pytest.mark.parametrize(
    ("old", "new", "also", "free"),
    [
        ("varchar(10)", "varchar(20)", "", True),
        ("varchar(10)", "varchar(5)", "", False),
        ("varchar(10)", "text", "", True),
        ("char(4)", "text", "", False),
        ("numeric(6,2)", "numeric(8,2)", "", True),
        ("numeric(6,2)", "numeric(8,3)", "", False),
        ("cidr", "inet", "", True),
        ("int", "bigint", "", False),
        ("timestamp", "timestamptz", "", False),
        ("timestamp", "timestamptz", "DROP INDEX items_was_idx", True),
        (
            "timestamp",
            "timestamptz",
            "DROP INDEX items_was_idx; ALTER ROLE {role} SET timezone = 'Asia/Tokyo'",
            0,
        ),
        ("text", "citext", "DROP INDEX items_was_idx", True),
        ("text", "citext", "", False),
        ("varchar(9)", "varchar(20)", "ALTER TABLE items ADD CHECK (was <> '')", False),
        ("varchar(9)", "text", "CREATE INDEX ON items (lower(was))", False),
        ("varchar(9)", "text", "CREATE INDEX ON items (id) WHERE was > ''", False),
        ("varchar(9)", "text", "CREATE UNIQUE INDEX one ON items (was)", True),
    ],
)
def test_what_is_free(
    runner: Runner,
    sql: psycopg.Connection,
    old: str,
    new: str,
    also: str,
    free: bool,
) -> None:
    """The server says what rewrites nothing; it builds an expression's index anew."""
    sql.execute(f"CREATE EXTENSION citext; ALTER TABLE items ADD was {old}".encode())
    sql.execute("CREATE INDEX items_was_idx ON items (was)")
    role = f"zoned_{sql.info.dbname}"
    sql.execute(f"CREATE ROLE {role}; {also.format(role=role)}".encode())
    pattern = change(ChangeColumnType("items", "was", new, assured="tried"))
    try:
        plan = runner.plan(pattern)
        names = [step.name for step in plan.steps(Phase.EXPAND)]
        assert (names == ["change_type", "analyze_column"]) == bool(free)
        if free:
            files = stored(sql)
            runner.expand(pattern)
            assert stored(sql) == files
    finally:
        sql.execute(f"DROP ROLE {role}".encode())


@pytest.mark.parametrize(
    ("old", "new", "extra", "given", "made"),
    [
        ("text", "int", {}, "'12'", "12"),
        ("text", "mood", {}, "'ok'", "ok"),
        ("int", "bigint", {}, "5", "5"),
        ("varchar(9)", "varchar(3)", {}, "'abc'", "abc"),
        ("varchar(9)", "char(3)", {}, "'ab'", "ab"),
        ("json", "jsonb", {}, """'{"b":1,  "a":2}'""", '{"a": 2, "b": 1}'),
        ("numeric(9,3)", "numeric(9,1)", {}, "1.25", "1.3"),
        ("float8", "numeric(6,2)", {}, "0.1", "0.10"),
        ("text", "text", {"collation": '"C"', "up": "was"}, "'ä'", "ä"),
        ('text COLLATE "C"', "text", {"collation": '"POSIX"', "up": "was"}, "'ä'", "ä"),
        ('text COLLATE "C"', "int", {"collation": ""}, "'3'", "3"),
        (
            "timestamp",
            "timestamptz",
            {"up": "was AT TIME ZONE 'UTC'", "down": "{} AT TIME ZONE 'UTC'"},
            "'2026-01-01 12:00'",
            "2026-01-01 12:00:00+00",
        ),
        (
            "int",
            "text",
            {"up": "was::text || '%'", "down": "trim({}, '%')::int"},
            "3",
            "3%",
        ),
    ],
)
@pytest.mark.parametrize("to", ["now", None])
def test_kinds(
    runner: Runner,
    sql: psycopg.Connection,
    old: str,
    new: str,
    extra: dict[str, str],
    given: str,
    made: str,
    to: str | None,
) -> None:
    """Values and NULL go there and come back, by trigger and by backfill."""
    sql.execute(
        "CREATE TYPE mood AS ENUM ('sad', 'ok');"
        f"ALTER TABLE items ADD was {old}; UPDATE items SET was = {given} WHERE id = 1"
        "".encode()
    )
    extra = {k: v.format(to or "was") for k, v in extra.items()}
    verified(
        runner, ChangeColumnType("items", "was", new, to, **extra, assured="tried")
    )
    sql.execute(f"INSERT INTO items (id, was) VALUES (3, {given}), (4, NULL)".encode())
    name = to or f"_migrator_shadow_was_{TAG}"
    before = rows(sql, f'was::text, "{name}"::text, xmin')
    values = [value for _, value, _ in before]
    assert values == [made, None, made, None]
    sql.execute("UPDATE items SET k = k + 1")
    assert [r[:2] for r in before] == rows(sql, f'was::text, "{name}"::text')
    runner.verify("c1")
    assert sum(s.rows for s in runner.steps("c1") if s.step.name == "compare_rows") == 0
    runner.retire("c1", old_release_gone="test")
    assert rows(sql, f"{to or 'was'}::text") == [(v,) for v in values]
    sql.execute("UPDATE items SET k = k + 1")
    runner.rollback("c1")
    assert [r[0] for r in before] == [v for (v,) in rows(sql, "was::text")]


def test_a_value_that_does_not_fit_holds_the_change(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """What the new type cannot hold is neither cut nor lost, and is named."""
    pattern = ChangeColumnType("items", "word", "varchar(3)", "short")
    runner.expand(change(pattern))
    sql.execute("UPDATE items SET word = 'four' WHERE id = 2")
    assert rows(sql, "word, short") == [("w", None), ("four", None)]
    with pytest.raises(Failed, match="too long for type character varying"):
        runner.backfill("c1")
    sql.execute("UPDATE items SET word = 'two' WHERE id = 2")
    assert runner.backfill("c1") is State.BACKFILLED
    assert rows(sql, "word, short") == [("w", "w"), ("two", "two")]


def test_text_that_a_type_calls_a_syntax_error_is_stored(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """The old release does not notice, whatever the new type's error is called."""
    types = {"tsquery": "'a b'", "regtype": "'nowhere'", "regproc": "'abs'"}
    sql.execute("CREATE TABLE words (id int PRIMARY KEY, tsquery text, regtype text)")
    sql.execute("ALTER TABLE words ADD regproc text")
    for number, kind in enumerate(types):
        made = ChangeColumnType("words", kind, kind, f"as_{kind}")
        runner.expand(Change(revision=f"w{number}", pattern=made))
    names = ", ".join(types)
    given = ", ".join(types.values())
    sql.execute(f"INSERT INTO words (id, {names}) VALUES (1, {given})".encode())
    new = ", ".join(f"as_{kind}" for kind in types)
    found = sql.execute(f"SELECT {new} FROM words".encode())
    assert found.fetchone() == (None, None, None)


def test_a_null_where_none_may_be_holds_the_change(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """An expression that makes NULL of a value is found before retire."""
    pattern = ChangeColumnType(
        "items", "n", "text", "t", up="nullif(n::text, '30')", default="'7'"
    )
    runner.expand(change(pattern))
    sql.execute("INSERT INTO items (id, n) VALUES (3, 30)")
    runner.backfill("c1")
    with pytest.raises(MismatchError, match="found 1 row"):
        runner.verify("c1")


def test_a_release_that_writes_during_the_backfill(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """A value that the new release wrote is not overwritten by the backfill."""
    pattern = ChangeColumnType(
        "items", "n", "numeric", "exact", down="round(exact)::int"
    )
    runner.expand(change(replace(pattern, up="n::numeric", default="7")))
    sql.execute("UPDATE items SET exact = 10.4 WHERE id = 1")
    runner.backfill("c1")
    runner.verify("c1")
    sql.execute("UPDATE items SET k = k + 1")
    assert rows(sql, "n, exact::text") == [(10, "10.4"), (20, "20")]


def test_an_index_that_comes_in_the_window_is_kept(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Under the same name it would go with the retired column."""
    verified(runner, SAME)
    sql.execute(
        "CREATE INDEX later ON items (n DESC) WITH (fillfactor = 70);"
        "COMMENT ON INDEX later IS 'late'"
    )
    read = (
        "SELECT pg_get_indexdef('later'::regclass),"
        " obj_description('later'::regclass, 'pg_class')"
    )
    before = sql.execute(read).fetchone()
    runner.retire("c1", old_release_gone="test")
    runner.drop("c1")
    assert sql.execute(read).fetchone() == before


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (
            "ALTER TABLE items ADD CONSTRAINT c EXCLUDE USING btree (n WITH =)",
            'is under "c", which',
        ),
        ("CREATE VIEW v AS SELECT n FROM items", "is used by view v"),
        ("CREATE MATERIALIZED VIEW v AS SELECT n FROM items", "view go on where a t"),
    ],
)
def test_what_comes_in_the_window_and_would_go_holds_retire(
    runner: Runner, sql: psycopg.Connection, made: str, words: str
) -> None:
    """It is named before the exchange, and nothing is changed."""
    verified(runner, SAME)
    sql.execute(made.encode())
    with pytest.raises(Refused) as caught:
        runner.retire("c1", old_release_gone="test")
    assert words in str(caught.value)
    assert runner.change("c1").state is State.VERIFIED


def test_a_sequence_goes_along(runner: Runner, sql: psycopg.Connection) -> None:
    """A serial column draws from its sequence under its new type, and after drop."""
    sql.execute("ALTER TABLE items ADD num serial")
    pattern = ChangeColumnType("items", "num", "bigint", assured="tried")
    plan = runner.plan(change(pattern))
    assert any("Sequence public.items_num_seq goes" in n.text for n in plan.notices)
    verified(runner, pattern)
    runner.retire("c1", old_release_gone="test")
    runner.drop("c1")
    sql.execute("INSERT INTO items (id) VALUES (3)")
    assert rows(sql, "num") == [(1,), (2,), (3,)]
    owned = sql.execute("SELECT pg_get_serial_sequence('items', 'num')").fetchone()
    assert owned == ("public.items_num_seq",)


@pytest.mark.parametrize("pattern", [SAME, OTHER], ids=["same", "other"])
def test_on_a_partitioned_table(
    runner: Runner, sql: psycopg.Connection, pattern: ChangeColumnType
) -> None:
    """Each partition keeps its index, and a moved row its retired side."""
    sql.execute(
        "DROP TABLE items; CREATE TABLE items (id int, k int, n int NOT NULL)"
        " PARTITION BY LIST (k); CREATE TABLE one PARTITION OF items FOR VALUES IN (1);"
        "CREATE TABLE two PARTITION OF items FOR VALUES IN (2);"
        "CREATE INDEX one_n ON one (n); INSERT INTO items VALUES (1, 1, 10), (2, 2, 20)"
    )
    verified(runner, pattern)
    runner.retire("c1", old_release_gone="test")
    new = pattern.to or "n"
    sql.execute(f"UPDATE items SET {new} = 5000000000 WHERE id = 2".encode())
    sql.execute("UPDATE items SET k = 3 - k")
    assert rows(sql, f'k, {new}, "{RETIRED}"') == [(2, 10, 10), (1, 5000000000, None)]
    with pytest.raises(Refused, match="1 row holds"):
        runner.rollback("c1")
    runner.drop("c1")
    index = sql.execute("SELECT pg_get_indexdef('one_n'::regclass)").fetchone()
    assert index == (f"CREATE INDEX one_n ON public.one USING btree ({new})",)


def test_a_moved_row_keeps_what_the_old_type_held(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Under one name as well: the retired column is told from the new one."""
    sql.execute(
        "DROP TABLE items; CREATE TABLE items (id int, k int, n numeric(9,3))"
        " PARTITION BY LIST (k); CREATE TABLE one PARTITION OF items FOR VALUES IN (1);"
        "CREATE TABLE two PARTITION OF items FOR VALUES IN (2);"
        "INSERT INTO items VALUES (1, 1, 1.251)"
    )
    verified(runner, replace(SAME, type="numeric(9,1)", old_type=None))
    runner.retire("c1", old_release_gone="test")
    sql.execute("UPDATE items SET k = 2")
    assert rows(sql, f'n::text, "{RETIRED}"::text') == [("1.3", "1.251")]
    runner.rollback("c1")
    assert rows(sql, "n::text") == [("1.251",)]


def test_where_no_other_release_runs(runner: Runner, sql: psycopg.Connection) -> None:
    """Complete ends like a plain change of type, and rebuild takes it back."""
    for pattern in (SAME, OTHER):
        before = rows(sql, "n")
        assert runner.complete(change(pattern)) is State.DROPPED
        assert rows(sql, pattern.to or "n") == before
        runner.rebuild(change(pattern))
        assert rows(sql, "n") == before
        assert sql.execute(
            "SELECT pg_typeof(n)::text FROM items LIMIT 1"
        ).fetchone() == ("integer",)


# -- messages ----------------------------------------------------------------


def said(runner: Runner, pattern: ChangeColumnType) -> str:
    """Return what a plan is refused with."""
    with pytest.raises(Refused) as caught:
        runner.plan(change(pattern))
    return str(caught.value)


def test_messages(runner: Runner, sql: psycopg.Connection) -> None:
    """What cannot be carried over is refused, by name and with a way out."""
    title = 'change the type of column "n" of table "items" to bigint'
    assert said(runner, replace(SAME, assured="")) == (
        f'{title}: The name "n" stays: both releases read the old type until retire'
        " and the new one afterwards, and a prepared statement that returns it fails"
        " in each session until it is prepared anew"
        ' ("cached plan must not change result type").\nNothing was changed.\n'
        'Next: look into it, then write assured="why it is safe here" into the'
        " pattern."
    )
    assert said(runner, ChangeColumnType("items", "word", "text")) == (
        'change the type of column "word" of table "items" to text: The change is'
        " free, and is made in place at expand: both releases read the new type of"
        ' "word" from then on, and a prepared statement that returns it fails in each'
        ' session until it is prepared anew ("cached plan must not change result'
        ' type").\nNothing was changed.\nNext: look into it, then write assured="why'
        ' it is safe here" into the pattern.'
    )
    assert said(runner, replace(OTHER, up="n + 1")) == (
        'Column "n" of table "public"."items" has the default 7, which an expression'
        " of the change does not translate.\nNothing was changed.\n"
        'Next: write default="…" for the new column; default="NULL" for none.'
    )
    sql.execute("CREATE INDEX few ON items (id) WHERE n > 3")
    assert said(runner, ChangeColumnType("items", "n", "text", "m")) == (
        'change the type of column "n" of table "items" to text as "m": the server'
        ' refuses the like of index "few" on a column of type text: operator does not'
        " exist: text > integer.\nNothing was changed.\nNext: drop it first"
        " (DropIndex), and build one that suits the new column afterwards"
        " (CreateIndex)."
    )
    sql.execute('ALTER TABLE items ADD c text COLLATE "C", ADD t timestamp')
    assert said(runner, ChangeColumnType("items", "c", "varchar")) == (
        'Column "c" of table "public"."items" has the collation pg_catalog."C", and'
        " the change does not say what becomes of it.\nNothing was changed.\n"
        'Next: write collation=\'pg_catalog."C"\' to keep it, or collation="" for that'
        " of the type."
    )
    assert said(runner, ChangeColumnType("items", "t", "timestamptz", "at")) == (
        'change the type of column "t" of table "items" to timestamptz as "at": A cast'
        " depends on the time zone: that of the engine's connection counts, whatever"
        " the application's sessions have. To be sure, write up and down, e.g. AT TIME"
        " ZONE 'UTC'.\nNothing was changed.\nNext: look into it, then write"
        ' assured="why it is safe here" into the pattern.'
    )
    sql.execute("UPDATE items SET word = 'x'")
    assert 'invalid input syntax for type integer: "x"' in said(
        runner, ChangeColumnType("items", "word", "int", "number")
    )
    sql.execute("DROP INDEX few")
    assert said(runner, replace(OTHER, old_type="int")) == (
        'Column "n" of table "public"."items" is of type integer, the change says'
        " int.\nNothing was changed.\nNext: write integer there."
    )


def test_a_type_that_is_stated_without_its_schema(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """It is the one that the search path has: a rebuild would take that."""
    sql.execute(
        "CREATE SCHEMA o; CREATE TYPE o.mood AS ENUM ('a');"
        "CREATE TYPE mood AS ENUM ('b'); CREATE TABLE t (id int PRIMARY KEY,"
        " x o.mood, y mood)"
    )
    for column, there in (("x", False), ("y", True)):
        pattern = ChangeColumnType("t", column, "text", to="z", old_type="mood")
        change = Change(revision=column, pattern=pattern)
        if there:
            assert runner.expand(change) is State.EXPANDED
            continue
        with pytest.raises(Refused, match=r"is of type o\.mood, the change says mood"):
            runner.expand(change)
