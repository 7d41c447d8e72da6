"""Checks and values of enums: edits of the models, what follows, and its life."""

import enum
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic.script import Script
from sqlalchemy.dialects import postgresql
from test_autogenerate import (
    ENV,
    Model,
    Project,
    both,
    changes_of,
    decide,
    formatted,
    text_of,
    users,
    ways_of,
)

#: Nothing but what the options bring, which a test may add to.
PLAIN_ENV = ENV.replace(
    '            "alembic.ext.checkconstraint_byname",\n', ""
).replace(
    '            process_revision_directives=given.get("hook"),\n',
    '            **given.get("options", {}),\n',
)


@pytest.fixture
def project(database: str, tmp_path: Path) -> Project:
    """Give a project whose environment has no plugin for checks."""
    made = Project.make(tmp_path, database)
    (tmp_path / "migrations" / "env.py").write_text(PLAIN_ENV)
    return made


def table(name: str, *items: Any) -> Model:
    """Return a model of a table with a key, a number, a word, and more."""
    return users(
        lambda: [sa.Column("n", sa.Integer), sa.Column("w", sa.String(20)), *items],
        name=name,
    )


def ck(condition: Any, name: str | None = None) -> sa.CheckConstraint:
    """Return a check."""
    return sa.CheckConstraint(condition, name=name)


def create(project: Project, *models: Model) -> None:
    """Put models in place, and make what they have."""
    project.model(both(*models))
    engine = sa.create_engine(project.url.replace("postgresql:", "postgresql+psycopg:"))
    project.attributes["metadata"].create_all(engine)
    engine.dispose()
    project.check()


def written(scripts: list[Script]) -> list[str]:
    """Return the changes of revisions, without what they wait for."""
    return [changes_of(s).rpartition("\n\n")[2] for s in scripts]


def carried(project: Project) -> None:
    """Carry all changes through; each phase is clean."""
    project.upgrade()
    project.check()
    runner = project.runner
    for step in (
        runner.settle,
        lambda change: runner.retire(change, old_release_gone="test"),
        runner.drop,
    ):
        for change in runner.changes():
            if not change.finished:
                step(change.id)
        project.check()
    assert project.autogenerate() == []


# -- checks ------------------------------------------------------------------


def typed(*words: str) -> list[sa.Column[Any]]:
    """Return columns with types that have a check, one of them here."""
    kind = sa.Enum(*words, native_enum=False, create_constraint=True, name="kind")
    return [
        sa.Column("k", kind),
        sa.Column("b", sa.Boolean(create_constraint=True)),
    ]


#: By table: the checks before, those after, and the change.
CHECKS: dict[str, tuple[list[Any], list[Any], str]] = {
    "named_otherwise": (
        [ck("n > 0", "positive")],
        [ck("0 < n"), ck("n > 0", "above_zero")],
        'RenameConstraint("named_otherwise", "positive", "above_zero")',
    ),
    "comes": (
        [],
        [ck(sa.column("w").in_(["x", "y:z%"]), "words")],
        'AddCheck("comes", "words", "w IN (\'x\', \'y:z%\')")',
    ),
    "nameless_comes": (
        [ck("n > 0")],
        [ck("n > 0"), ck("n < 9")],
        'AddCheck("nameless_comes", "nameless_comes_n_check1", "n < 9")',
    ),
    "reads_what_comes": (
        [],
        [sa.Column("m", sa.Integer), ck("m > n")],
        'AddCheck("reads_what_comes", "reads_what_comes_check", "m > n")',
    ),
    "changes": (
        [ck("n > 0", "positive")],
        [ck("n >= 0", "positive")],
        'ReplaceCheck("changes", "positive", "n >= 0")',
    ),
    "nameless_changes": (
        [ck("n > 0"), ck("w <> ''")],
        [ck("n > 1"), ck("w <> ''")],
        'ReplaceCheck("nameless_changes", "nameless_changes_n_check", "n > 1")',
    ),
    "loses_a_column": (
        [sa.Column("m", sa.Integer), ck("n > 0 AND m > 0", "both")],
        [ck("n > 0", "both")],
        'ReplaceCheck("loses_a_column", "both", "n > 0")',
    ),
    "typed": (
        [*typed("a", "b")],
        [*typed("a", "c")],
        'ReplaceCheck("typed", "kind", "k IN (\'a\', \'c\')")',
    ),
    "goes": (
        [ck("n > 0", "positive")],
        [],
        'DropConstraint("goes", "positive", touches=["n"])',
    ),
    # The same, spelt otherwise than the server has it.
    "same": (
        [ck("n>0"), ck("w IN ('a', 'b:c')", "words"), ck("same.w <> '%'"), *typed("a")],
        [ck("(0 < n)"), ck("w in ('a','b:c')", "words"), ck("w != '%'"), *typed("a")],
        "",
    ),
}
# `0 < n` is another condition than `n > 0` for the server.
CHECKS["same"][1][0] = ck("( n > 0 )")
CHECKS["named_otherwise"][1].pop(0)


def copied(items: list[Any]) -> list[Any]:
    """Return columns and checks for a table of their own."""
    return [item._copy() for item in items]


def test_edits_of_checks(project: Project) -> None:
    """Each becomes its change, the rest nothing; then both agree."""
    create(project, *(table(n, *copied(b)) for n, (b, _, _) in CHECKS.items()))
    assert project.autogenerate() == []
    # So it is after a restore of a dump.
    project.execute(
        "DO $$ DECLARE made text; BEGIN SELECT pg_get_constraintdef(oid) INTO made"
        " FROM pg_constraint WHERE conname = 'words'; EXECUTE"
        " 'ALTER TABLE same DROP CONSTRAINT words, ADD CONSTRAINT words ' || made;"
        " END $$"
    )
    project.model(both(*(table(n, *copied(a)) for n, (_, a, _) in CHECKS.items())))
    stays, *scripts = project.autogenerate()
    assert "sa.Column('m', sa.Integer(), nullable=True)" in text_of(stays)
    formatted(*scripts)
    found = written(scripts)
    # By the database of now the check still reads it.
    assert found.pop().endswith('goes into `assured`")')
    decide(scripts[-1], 0, assured="the check is another one by then")
    wanted = [f"change = {change}" for _, _, change in CHECKS.values() if change]
    joined = [" ".join(f.split()).replace("( ", "(").replace(", )", ")") for f in found]
    assert sorted(joined) == sorted(wanted)
    project.upgrade(mode="complete")
    project.check()
    assert project.autogenerate() == []


def test_a_column_that_comes_with_a_check(project: Project) -> None:
    """That of its type is a change behind it; one of a type of ours comes along."""

    def kind(name: str, made: Any = sa.Enum) -> Any:
        return made("a", "b", name=name, native_enum=False, create_constraint=True)

    create(project, table("users"))
    project.execute("INSERT INTO users SELECT g, g FROM generate_series(1, 9) g")
    project.model(
        table(
            "users",
            sa.Column("one", kind("one_of"), server_default="a"),
            sa.Column("two", kind("two_of"), default="a", nullable=False),
            sa.Column("three", kind("three_of", Text)),
        )
    )
    stays, two, *checks = project.autogenerate()
    assert text_of(stays).count("create_constraint=True") == 1
    assert "AddColumn(" in text_of(two)
    assert written(checks) == [
        'change = AddCheck("users", "one_of", "one IN (\'a\', \'b\')")',
        'change = AddCheck("users", "two_of", "two IN (\'a\', \'b\')")',
    ]
    models = "import sqlalchemy as sa\nimport test_comparing"
    file = Path(stays.path)
    file.write_text(file.read_text().replace("import sqlalchemy as sa", models))
    project.upgrade(mode="complete")
    project.check()


def test_a_check_in_flight(project: Project) -> None:
    """Nothing is proposed of what is changed, nor of what reads a renamed column."""
    create(
        project,
        table("one", ck("n > 0", "positive")),
        table("two", ck("n > 0", "positive")),
    )
    # A table without rows would be changed at once.
    insert = "INSERT INTO {} SELECT g, g FROM generate_series(1, 9) g"
    project.execute(*(insert.format(name) for name in ("one", "two")))
    project.model(
        both(
            table("one", ck("n > 0 AND n < 100", "positive")),
            users(
                lambda: [
                    sa.Column("number", sa.Integer),
                    sa.Column("w", sa.String(20)),
                    ck("number > 0", "positive"),
                ],
                name="two",
            ),
        )
    )
    renamed, replaced = project.autogenerate()
    decide(renamed, 0)
    assert "ReplaceCheck" in text_of(replaced)
    carried(project)


def test_what_has_no_part_in_it(project: Project) -> None:
    """Checks of domains and partitions, filters of the project, and the options."""
    project.execute(
        "CREATE DOMAIN positive AS integer CHECK (VALUE > 0)",
        "CREATE TABLE parts (id serial, n integer, w varchar(20),"
        " CONSTRAINT positive CHECK (n > 0), PRIMARY KEY (id)) PARTITION BY RANGE (id)",
        "CREATE TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (9)",
        "CREATE TYPE kind AS ENUM ('a')",
        "CREATE TABLE users (id serial PRIMARY KEY, n integer, w varchar(20), k kind,"
        " CONSTRAINT mine CHECK (n > 0), CONSTRAINT yours CHECK (n > 0))",
    )
    asked: list[tuple[Any, ...]] = []

    def include(item: Any, name: Any, kind: str, reflected: bool, to: Any) -> bool:
        if kind == "check_constraint":
            asked.append((name, reflected, to is not None))
        return name != "yours" and name != "new"

    kind = sa.Column("k", sa.Enum("a", "b", name="kind"))
    here = table("users", kind, ck("n > 1", "mine"), ck("n > 9", "new"))
    project.model(both(here, table("parts", ck("n > 0", "positive")), table("part")))
    project.attributes["options"] = {"include_object": include}
    assert project.diffs() == [
        "add_constraint",
        "change_enum_values",
        "remove_constraint",
    ]
    assert sorted(asked) == [
        ("mine", False, True),
        ("new", False, False),
        ("yours", True, False),
    ]
    project.attributes["options"]["compare_checks"] = False
    assert project.diffs() == ["change_enum_values"]
    project.attributes["options"]["compare_enums"] = False
    project.check()


def test_a_check_that_cannot_be_compared_is_told(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    """What reads a column that may be a renamed one waits; so does a broken one."""
    create(project, table("users", ck("n > 0", "positive")))
    w = sa.Column("w", sa.String(20))
    other = [w, sa.Column("m", sa.Integer), ck("m > 0", "positive")]
    project.model(users(lambda: other))
    (script,) = project.autogenerate()
    assert "whether column" in text_of(script)
    assert (
        'Check "positive" of table "users" is not compared: it reads a column that'
        " comes, while one goes." in caplog.text
    )
    Path(script.path).unlink()
    project.model(table("users", ck("nothing(n)", "positive"), ck("x(n)")))
    project.check()
    assert "columns that are there the server could not make it" in caplog.text


def test_names_by_a_convention(project: Project) -> None:
    """It gives the names, also of a schema's; the plugin's findings are not doubled."""

    def model(*items: sa.CheckConstraint) -> None:
        metadata = sa.MetaData(
            naming_convention={"ck": "ck_%(table_name)s_%(constraint_name)s"},
            schema="app",
        )
        sa.Table("users", metadata, sa.Column("n", sa.Integer), *items)
        project.attributes["metadata"] = metadata

    project.execute(
        "CREATE SCHEMA app",
        "CREATE TABLE app.users"
        " (n integer CONSTRAINT ck_users_low CHECK (n > 0), CHECK (n <> 5))",
    )
    project.attributes["schemas"] = True
    project.attributes["plugins"] = ["alembic.ext.checkconstraint_byname"]
    model(ck("n > 0", "low"), ck("n < 9", "high"))
    assert project.diffs() == ["add_constraint", "remove_constraint"]
    assert written(project.autogenerate()) == [
        'change = AddCheck("users", "ck_users_high", "n < 9", schema="app")',
        'change = DropConstraint("users", "users_n_check", touches=["n"],'
        ' schema="app")',
    ]
    project.upgrade(mode="complete")
    project.check()


def test_a_table_of_an_open_transaction_is_left_to_the_plugin(
    project: Project,
) -> None:
    """What is not to be seen from here keeps what was found by names."""
    env = project.folder / "migrations" / "env.py"
    env.write_text(
        env.read_text().replace(
            "        context.run_migrations()",
            "        connection.exec_driver_sql('CREATE TABLE users (id serial"
            " PRIMARY KEY, n integer, w varchar(20))')\n"
            "        context.run_migrations()",
        )
    )
    project.attributes["plugins"] = ["alembic.ext.checkconstraint_byname"]
    project.model(table("users", ck("n > 0", "low")))
    assert project.diffs() == ["add_constraint"]


# -- foreign keys ------------------------------------------------------------


def test_other_actions_of_a_foreign_key(project: Project) -> None:
    """It is never away: the new one is proved before the old one goes."""

    def model(**given: str) -> Model:
        key = sa.ForeignKey("teams.id", **given)
        return both(table("teams"), table("users", sa.Column("team", key)))

    create(project, model())
    project.execute("INSERT INTO users SELECT 1, 1")
    project.model(model(ondelete="CASCADE"))
    (script,) = project.autogenerate()
    formatted(script)
    assert (
        changes_of(script)
        == """\
change = ReplaceForeignKey(
    "users",
    ["team"],
    "teams",
    ["id"],
    "users_team_fkey",
    on_delete="CASCADE",
)"""
    )
    carried(project)


# -- enums -------------------------------------------------------------------


class Color(enum.Enum):
    """The names are the values."""

    red = 1
    green = 2


def coded(codes: type[enum.Enum]) -> list[str]:
    """Return what an enum's members are stored as."""
    return [str(c.value) for c in codes]


def kind(name: str, *values: str, **given: Any) -> sa.Enum:
    """Return an enum of the tests."""
    return sa.Enum(*values, name=name, **given)


def shared(*values: str) -> Model:
    """Return a model of two tables that share an enum of the metadata."""

    def make(metadata: sa.MetaData) -> None:
        one = kind("shared", *values, metadata=metadata)
        for name in ("one", "other"):
            table(name, sa.Column("k", one))(metadata)

    return make


class Text(sa.TypeDecorator[str]):
    """A type of the application's own."""

    impl = sa.Enum
    cache_ok = True


def enums(*given: Any) -> Model:
    """Return a model of tables with a column of each type."""
    return both(*(table(f"t{n}", sa.Column("k", t)) for n, t in enumerate(given)))


def test_edits_of_enums(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    """Each becomes its change, in the model's place; what cannot be done is told."""
    project.execute("CREATE SCHEMA app")
    create(
        project,
        enums(
            kind("comes", "b", "c"),
            kind("goes", "a", "b"),
            kind("A word", "a", "b", "c"),
            kind("by_class", "green"),
            kind("by_code", "1"),
            Text("a", name="decorated"),
            kind("of_a_schema", "a", schema="app"),
            sa.ARRAY(kind("array", "a", "b")),
            kind("moved", "a", "b"),
        ),
        shared("a", "b"),
    )
    project.execute(
        *(f"INSERT INTO {t} VALUES (1, 1, 'x', 'b')" for t in ("t1", "t2", "one"))
    )
    project.model(
        both(
            enums(
                postgresql.ENUM(*["a0", "a", "b", "b1", "c", "d"], name="comes"),
                kind("goes", "a"),
                kind("A word", "a", "B'", "c"),
                sa.Enum(Color, name="by_class"),
                sa.Enum(Color, name="by_code", values_callable=coded),
                Text("a", "b", name="decorated"),
                kind("of_a_schema", "a", "b", schema="app"),
                sa.ARRAY(kind("array", "a:b", "b")),
                kind("moved", "b", "a"),
            ),
            shared("a", "z"),
            table("new", sa.Column("k", kind("of_a_table", "a"))),
        )
    )
    scripts = project.autogenerate()
    stays, *scripts = scripts
    assert r"ADD VALUE IF NOT EXISTS 'a\\:b' BEFORE 'b'" in (
        text_of(stays).replace("\\'", "'")
    )
    formatted(*scripts)
    asked = [s for s in scripts if "zd.undecided" in text_of(s)]
    assert written([s for s in scripts if s not in asked]) == [
        'change = AddEnumValue("t3", "k", "red", before="green")',
        'change = AddEnumValue("t4", "k", "2")',
        'change = AddEnumValue("t0", "k", "a0", before="b")',
        'change = AddEnumValue("t0", "k", "a", after="a0")',
        'change = AddEnumValue("t0", "k", "b1", after="b")',
        'change = AddEnumValue("t0", "k", "d")',
        'change = AddEnumValue("t5", "k", "b")',
        'change = AddEnumValue("t6", "k", "b")',
    ]
    word, both_ways, goes = asked
    assert ways_of(text_of(word)) == [
        'change = RenameEnumValue("t2", "k", "b", "B\'")\n',
        """\
change = [
    AddEnumValue("t2", "k", "B'", after="a"),
    RemoveEnumValue("t2", "k", "b", instead="…"),
]
""",
    ]
    assert "The enum is used by column k of table other as well" in " ".join(
        text_of(both_ways).replace("# ", "").split()
    )
    assert ways_of(text_of(both_ways))[1].count("RemoveEnumValue(") == 2
    assert "has its values in another order in the models: b, a." in caplog.text
    assert 'Enum "array" has values that the models have no more: a.' in caplog.text
    decide(word, 0)
    decide(both_ways, 1, instead="a")
    decide(goes, 0, instead="a")
    carried(project)
    with psycopg.connect(project.url) as conn:
        held = "SELECT t1.k::text || t2.k::text || one.k::text FROM t1, t2, one"
        assert conn.execute(held.encode()).fetchone() == ("aB'a",)
    assert ("comes", ["a0", "a", "b", "b1", "c", "d"]) in project.shape()[4]


def test_a_column_that_comes_with_a_value_that_comes(project: Project) -> None:
    """The value is there before the column whose default it is."""
    create(project, table("one", sa.Column("k", kind("shared", "a"))))
    more = sa.Column("k", kind("shared", "a", "b"), server_default="b")
    one = sa.Column("k", kind("shared", "a", "b"))
    project.model(both(table("one", one), table("two", more)))
    value, comes = project.autogenerate()
    assert "AddEnumValue" in text_of(value)
    assert "op.create_table('two'" in text_of(comes)


def test_a_value_that_is_kept_out_is_no_other_word(project: Project) -> None:
    """It stays in the type for good, wherever, and nothing is asked about it."""
    create(project, table("one", sa.Column("k", kind("shared", "a", "b", "c"))))
    project.execute("ALTER TABLE one ADD CONSTRAINT one_k_not_b CHECK (k <> 'b')")
    project.model(table("one", sa.Column("k", kind("shared", "c", "a"))))
    project.check()
    project.model(table("one", sa.Column("k", kind("shared", "a", "c", "d"))))
    (script,) = project.autogenerate()
    assert changes_of(script) == 'change = AddEnumValue("one", "k", "d")'
