"""`migrator revision`, and revisions that wait for a decision, by the command line."""

import json
import re
import textwrap
from pathlib import Path

import psycopg
import pytest
from quick import Quick
from test_alembic import FIRST, MODELS, project

__all__ = ["project"]


def newest(project: Quick) -> Path:
    """Return the file of the revision that was written last."""
    files = (project.folder / "migrations" / "versions").glob("*.py")
    return max(files, key=lambda f: f.stat().st_mtime_ns)


def change_in(file: Path) -> str:
    """Return what stands between the identifiers and `upgrade()`."""
    found = re.search(r"^depends_on.*\n\n((?s:.*?))\n\n\ndef", file.read_text(), re.M)
    assert found is not None
    return found[1]


@pytest.mark.parametrize(
    ("words", "title", "change"),
    [
        (
            ["--rename", "users.name:full_name"],
            "rename column name of table users to full_name",
            'change = RenameColumn("users", "name", "full_name")',
        ),
        (
            ["--rename", "app.users.name:full_name"],
            "rename column name of table users to full_name",
            'change = RenameColumn("users", "name", "full_name", schema="app")',
        ),
        (
            ["--rename-table", "users:accounts"],
            "rename table users to accounts",
            'change = RenameTable("users", "accounts")',
        ),
        (
            ["--rename-table", "app.users:accounts", "-m", "accounts"],
            "accounts",
            'change = RenameTable("users", "accounts", schema="app")',
        ),
    ],
)
def test_one_change(words: list[str], title: str, change: str, project: Quick) -> None:
    """The file is at the head, its path is told, and it carries the change."""
    done = project.migrator("revision", *words)
    file = newest(project)
    near = file.relative_to(project.folder)
    assert done.stdout == f"{near}\nNext: review, then run `migrator plan`.\n"
    assert file.read_text().startswith(f'"""{title}\n')
    assert "down_revision: Union[str, Sequence[str], None] = 'r1'" in file.read_text()
    assert change_in(file) == change


def test_a_column_that_is_not_there_is_told_before(project: Quick) -> None:
    """Where its table is there, and nothing that is still to run makes it."""
    project.run("upgrade", "head")
    versions = project.folder / "migrations" / "versions"
    before = set(versions.iterdir())
    said = project.migrator("revision", "--rename", "users.nmae:title", code=1).stderr
    assert 'has no column "nmae"' in said
    assert '"name" is the nearest' in said
    assert set(versions.iterdir()) == before
    project.migrator("revision", "--split", "users.name:first,last")
    split = newest(project)
    # The database tells what a downgrade after the drop has to know.
    assert '#     type="' in split.read_text(), split.read_text()
    split.unlink()
    chain = ("--rename", "users.name:title", "--rename", "users.title:label")
    said = project.migrator("revision", *chain).stdout
    # The second one alone, behind its file.
    assert said.count("It waits, with all behind it, until") == 1
    project.migrator("revision", "--rename", "users.label:name")


def test_several_changes_are_a_chain(project: Quick) -> None:
    """Each has a file of its own; as JSON, with what is open in each."""
    done = project.migrator(
        "revision",
        "-m",
        "names",
        "--rename",
        "users.id:key",
        "--split",
        "users.name:first,last",
        "--json",
    )
    told = json.loads(done.stdout)["revisions"]
    assert [t["message"] for t in told] == [
        "names: rename column id of table users to key",
        "names: split column name of table users into first, last",
    ]
    choice = "which expressions make the new columns, and the old one from them"
    assert [t["undecided"] for t in told] == [[], [choice]]
    assert (
        f"down_revision: Union[str, Sequence[str], None] = '{told[0]['revision']}'"
        in ((project.folder / told[1]["file"]).read_text())
    )
    assert change_in(project.folder / told[1]["file"]) == textwrap.dedent(
        """\
        # Decide which expressions make the new columns, and the old one from them.
        #
        # This cuts at spaces, the rest to the last column, and joins with them.
        # change = SplitColumn(
        #     "users",
        #     "name",
        #     {
        #         "first": ("text", "split_part(name, ' ', 1)"),
        #         "last": ("text", "regexp_replace(name, '^[^ ]* ?', '')"),
        #     },
        #     "rtrim(first || ' ' || last)",
        # )
        change = zd.undecided(
            "which expressions make the new columns, and the old one from them"
        )"""
    )


@pytest.mark.parametrize(
    ("words", "change"),
    [
        (
            ["--merge", "people.order,Last:name"],
            """\
# Decide which expressions make the new column, and the old ones from it.
#
# This joins with spaces, and cuts at them; NULL needs a coalesce(…).
# change = MergeColumns(
#     "people",
#     ["order", "Last"],
#     "name",
#     "text",
#     '"order" || \\' \\' || "Last"',
#     {
#         "order": "split_part(name, ' ', 1)",
#         "Last": "regexp_replace(name, '^[^ ]* ?', '')",
#     },
# )
change = zd.undecided("which expressions make the new column, and the old ones from it")
""",
        ),
        (
            ["--move", "app.users.bio:profiles.about"],
            """\
# Decide by what rows of "profiles" refer to those of "users" (`key`), and why a
# deadlock of two requests that write both does no harm (`assured`).
#
# change = MoveColumn(
#     "users",
#     "bio",
#     to="profiles",
#     key={"id": "user_id"},
#     name="about",
#     schema="app",
#     assured="…",
# )
change = zd.undecided(
    'by what rows of "profiles" refer to those of "users" (`key`), and why a deadlock'
    " of two requests that write both does no harm (`assured`)"
)""",
        ),
        (
            ["--extract", "posts.tags:tags"],
            """\
# Decide whether column "tags" holds a value or an array, how it is called in "tags",
# and why the deadlocks that `migrator patterns ExtractTable` lists do no harm
# (`assured`).
#
# It holds a value: each one becomes a row, referred to.
# change = ExtractTable(
#     "posts",
#     "tags",
#     {"tags": "name"},
#     reference="tag_id",
#     assured="…",
# )
#
# It holds an array: each element becomes a row, and a third table links them (N:M).
# change = ExtractTable(
#     "posts",
#     "tags",
#     {"tags": "name"},
#     through="post_tags",
#     assured="…",
# )
change = zd.undecided(
    'whether column "tags" holds a value or an array, how it is called in "tags", and'
    " why the deadlocks that `migrator patterns ExtractTable` lists do no harm"
    " (`assured`)"
)""",
        ),
        (
            ["--extract", "app.orders.customer_name,customer_city,note:customers"],
            """\
# Decide how each column is called in "customers", and why the deadlocks that `migrator
# patterns ExtractTable` lists do no harm (`assured`).
#
# change = ExtractTable(
#     "orders",
#     "customers",
#     {"customer_name": "name", "customer_city": "city", "note": "note"},
#     reference="customer_id",
#     schema="app",
#     assured="…",
# )
change = zd.undecided(
    'how each column is called in "customers", and why the deadlocks that `migrator'
    " patterns ExtractTable` lists do no harm (`assured`)"
)""",
        ),
    ],
    ids=["merge", "move", "extract an array", "extract"],
)
def test_a_change_that_is_a_sketch(
    words: list[str], change: str, project: Quick
) -> None:
    """The file holds what is guessed, refuses to run, and is told as open."""
    done = project.migrator("revision", *words)
    assert "\n  Decide " in done.stdout
    assert change_in(newest(project)) == change.strip()


LIVES = """
CREATE TABLE people (id int PRIMARY KEY, first text NOT NULL, last text NOT NULL);
INSERT INTO people VALUES (1, 'Ada', 'Lovelace'), (2, 'Carl Philipp', 'Bach');
CREATE TABLE authors (id int PRIMARY KEY, bio text, tags text[]);
CREATE TABLE profiles (author_id int PRIMARY KEY REFERENCES authors);
INSERT INTO authors VALUES (1, 'b', '{x,y}'); INSERT INTO profiles VALUES (1);
"""


@pytest.mark.parametrize(
    ("words", "query", "rows"),
    [
        (
            ["--merge", "people.first,last:name"],
            "SELECT name FROM people ORDER BY id",
            [("Ada Lovelace",), ("Carl Philipp Bach",)],
        ),
        (["--move", "authors.bio:profiles"], "SELECT bio FROM profiles", [("b",)]),
        (
            ["--extract", "authors.tags:tags"],
            "SELECT name FROM tags JOIN author_tags ON tag_id = id ORDER BY 1",
            [("x",), ("y",)],
        ),
    ],
    ids=["merge", "move", "extract"],
)
def test_a_sketch_that_is_taken(
    words: list[str], query: str, rows: list[tuple[str]], project: Quick
) -> None:
    """Uncommented, it is a change that runs."""
    with psycopg.connect(project.url) as conn:
        conn.execute(LIVES)
    project.run("stamp", "r1")
    project.migrator("revision", *words)
    file = newest(project)
    text = file.read_text()
    start = text.rindex("# change = ")
    middle, end = text.index("change = zd.", start), text.index("\n\n\ndef", start)
    taken = re.sub(r"^# ", "", text[start:middle], flags=re.M)
    taken = taken.replace('assured="…"', 'assured="tried"')
    if words[0] == "--merge":
        # The database tells what a downgrade after the drop has to know.
        assert 'types={"first": "text", "last": "text"}' in taken
    file.write_text(text[:start] + taken + text[end:])
    project.migrator("expand")
    assert "verified" in project.migrator("backfill").stdout
    with psycopg.connect(project.url) as conn:
        assert conn.execute(query.encode()).fetchall() == rows


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Either --autogenerate or changes are asked for."),
        (
            ["--autogenerate", "--rename", "a.b:c"],
            "Either --autogenerate or changes are asked for.",
        ),
        (["--rename", "users:x"], '"users:x" does not name a column'),
        (["--rename", "a.b.c.d:x"], '"a.b.c.d:x" does not name a column'),
        (["--rename-table", "users"], '"users" says no rename of a table.'),
        (["--rename-table", "users:a.b"], '"users:a.b" says no rename of a table.'),
        (["--split", "users.name:first"], "splits a column into fewer than two"),
        (["--merge", "people.first:name"], "merges fewer than two columns"),
        (["--merge", "people.a,b:c.d"], "merges fewer than two columns, or into none"),
        (["--move", "users.bio"], '"users.bio" does not name a column'),
        (["--move", "users.bio:a.b.c"], "and the table that it goes to"),
        (["--move", "users.a,b:c"], "and the table that it goes to"),
        (["--extract", "users.a,:b"], "and the new table for them"),
        (["--extract", "users.a:app.b"], "and the new table for them"),
        (["--rename", "a.b:c", "--head", "nope"], "Can't locate revision"),
    ],
)
def test_wrong_calls(words: list[str], said: str, project: Quick) -> None:
    """They are told, and write nothing."""
    assert said in project.migrator("revision", *words, code=2).stderr
    assert newest(project).name == "r1.py"


def test_a_decision_is_waited_for(project: Quick) -> None:
    """Every command says which one where, none runs it, and the others go on."""
    project.run("upgrade", "r1")
    project.fill()
    done = project.migrator("revision", "--autogenerate", "-m", "v2")
    file = newest(project)
    line = file.read_text()[: file.read_text().index("zd.undecided(")].count("\n") + 1
    choice = 'whether column "full_name" of table "users" is "name" under another name'
    assert done.stdout.startswith(f"{file.relative_to(project.folder)}\n  Decide")
    revision = file.name.partition("_")[0]
    project.write(
        "r3",
        FIRST.replace('"r1", None', f'"r3", "{revision}"').replace('"users"', '"more"'),
    )
    said = f"{file}, line {line}: nobody has decided yet {choice}."
    for words in (["upgrade", "head"], ["upgrade", revision]):
        refused = project.run(*words, code=None)
        assert refused.returncode != 0
        assert said in refused.stderr + refused.stdout
    assert said in project.migrator("expand", code=1).stderr
    assert said in project.migrator("plan", code=1).stderr
    assert revision in project.run("history").stdout
    assert "r1" in project.run("current").stdout
    found = json.loads(project.migrator("lint", "--json", code=1).stdout)["findings"]
    assert [f["what"] for f in found if f["code"] == "ZD903"] == [
        f"Nobody has decided yet {choice}."
    ]
    text = file.read_text()
    text = re.sub(r"^change = zd\.undecided\(\n.*\n\)\n", "", text, flags=re.M)
    text = text.replace("# change = RenameColumn", "change = RenameColumn")
    file.write_text(text)
    project.migrator("expand")
    assert project.columns() == ["id", "name", "full_name"]
    project.run("upgrade", "head")
    assert "r3 (head)" in project.run("current").stdout


def test_alembic_says_what_is_to_be_decided(project: Quick) -> None:
    """Its own command tells it behind the files, as ours does."""
    project.run("upgrade", "r1")
    done = project.run("revision", "--autogenerate", "-m", "v2")
    assert '\n  Decide whether column "full_name" of table "users" is' in done.stdout
    newest(project).unlink()
    done = project.migrator("revision", "--autogenerate", "-m", "v2")
    assert (done.stdout + done.stderr).count("  Decide whether") == 1


def test_autogenerate_that_finds_nothing(project: Quick) -> None:
    """It succeeds, and writes no file."""
    (project.folder / "models.py").write_text(MODELS.format(name="name"))
    project.run("upgrade", "head")
    done = project.migrator("revision", "--autogenerate", "--json")
    assert json.loads(done.stdout)["revisions"] == []
    assert newest(project).name == "r1.py"
    assert "Nothing to do" in project.run("revision", "--autogenerate").stdout


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("alembic", "revision --autogenerate -m x"),
        ("alembic", "check"),
        ("migrator", "revision --autogenerate -m x"),
    ],
)
def test_a_database_that_is_behind(module: str, words: str, project: Quick) -> None:
    """What comes first is told; so is what to do where it is at what nobody knows."""
    done = project.run(*words.split(), module=module, code=None)
    told = done.stderr + done.stdout
    assert done.returncode not in (0, 2)
    assert (
        "Target database is not up to date: it is at no revision, the project at r1."
        in told
    )
    assert "Next: run `alembic upgrade head`" in told
    with psycopg.connect(project.url) as conn:
        conn.execute("CREATE TABLE IF NOT EXISTS alembic_version (version_num text)")
        conn.execute("INSERT INTO alembic_version VALUES ('other')")
    done = project.run(*words.split(), module=module, code=None)
    told = done.stderr + done.stdout
    assert done.returncode not in (0, 2)
    assert "Can't locate revision other, at which the database is" in told
    assert "`alembic stamp --purge r1`" in told
    assert newest(project).name == "r1.py"


@pytest.mark.parametrize("console", [True, False])
def test_alembic_tells_an_error_once(project: Quick, *, console: bool) -> None:
    """By its log where that is on the console, with its lines kept; else by itself."""
    if not console:
        env = project.folder / "migrations" / "env.py"
        env.write_text(env.read_text().replace("fileConfig(", "bool("))
    done = project.run("check", code=None)
    assert done.returncode != 0
    told = done.stdout + done.stderr
    assert told.count("Target database is not up to date") == 1
    assert "\nNext: run `alembic upgrade head`" in told


ENUM = """
from sqlalchemy import Column, Enum, Integer, MetaData, Table

class Base:
    metadata = MetaData()

Table(
    "orders",
    Base.metadata,
    Column("id", Integer, primary_key=True),
    Column("state", Enum({values}, name="state")),
)
"""


@pytest.mark.parametrize(
    ("values", "change"),
    [
        (
            '"new", "paid", "sent"',
            'change = AddEnumValue("orders", "state", "paid", after="new")',
        ),
        ('"new", "sent", "lost"', 'change = AddEnumValue("orders", "state", "lost")'),
        (
            '"new", "shipped"',
            """\
# Decide whether "shipped" is "sent" by another word.
#
# It is the same value by another word.
# change = RenameEnumValue("orders", "state", "sent", "shipped")
#
# It is not: one comes, the other is used no more.
# change = [
#     AddEnumValue("orders", "state", "shipped"),
#     RemoveEnumValue("orders", "state", "sent", instead="…"),
# ]
change = zd.undecided('whether "shipped" is "sent" by another word')""",
        ),
        (
            '"new"',
            """\
# Decide what rows get that hold "sent": `instead`, another value, or None for NULL.
#
# change = RemoveEnumValue("orders", "state", "sent", instead="…")
change = zd.undecided(
    'what rows get that hold "sent": `instead`, another value, or None for NULL'
)""",
        ),
    ],
)
def test_values_of_an_enum(values: str, change: str, project: Quick) -> None:
    """What alembic-postgresql-enum finds becomes a pattern, and is settled by it."""
    env = project.folder / "migrations" / "env.py"
    env.write_text(f"import alembic_postgresql_enum\n{env.read_text()}")
    models = project.folder / "models.py"
    (project.folder / "migrations" / "versions" / "r1.py").unlink()
    models.write_text(ENUM.format(values='"new", "sent"'))
    project.run("revision", "--autogenerate", "-m", "v1")
    project.run("upgrade", "head")
    with psycopg.connect(project.url) as conn:
        conn.execute("INSERT INTO orders (state) VALUES ('new'), ('sent')")
    models.write_text(ENUM.format(values=values))
    project.run("revision", "--autogenerate", "-m", "v2")
    file = newest(project)
    assert change_in(file) == change
    if "zd.undecided" in change:
        chosen = re.findall(r"^# (change = .*\))$", change, re.M)[0]
        chosen = chosen.replace('"…"', '"new"')
        file.write_text(file.read_text().replace(change, chosen))
    project.run("-x", "migrator_mode=complete", "upgrade", "head")
    project.run("check")
