"""`migrator revision`, and revisions that wait for a decision, by the command line."""

import json
import re
import textwrap
from pathlib import Path

import psycopg
import pytest
from test_alembic import FIRST, MODELS, Project, project

__all__ = ["project"]


def newest(project: Project) -> Path:
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
def test_one_change(
    words: list[str], title: str, change: str, project: Project
) -> None:
    """The file is at the head, its path is told, and it carries the change."""
    done = project.migrator("revision", *words)
    file = newest(project)
    near = file.relative_to(project.folder)
    assert done.stdout == f"{near}\nNext: review, then run `migrator plan`.\n"
    assert file.read_text().startswith(f'"""{title}\n')
    assert "down_revision: Union[str, Sequence[str], None] = 'r1'" in file.read_text()
    assert change_in(file) == change


def test_several_changes_are_a_chain(project: Project) -> None:
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
        # This cuts at spaces, and joins with them.
        # change = SplitColumn(
        #     "users",
        #     "name",
        #     {
        #         "first": ("text", "split_part(name, ' ', 1)"),
        #         "last": ("text", "split_part(name, ' ', 2)"),
        #     },
        #     "first || ' ' || last",
        # )
        change = zd.undecided(
            "which expressions make the new columns, and the old one from them"
        )"""
    )


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
        (["--rename", "a.b:c", "--head", "nope"], "Can't locate revision"),
    ],
)
def test_wrong_calls(words: list[str], said: str, project: Project) -> None:
    """They are told, and write nothing."""
    assert said in project.migrator("revision", *words, code=2).stderr
    assert newest(project).name == "r1.py"


def test_a_decision_is_waited_for(project: Project) -> None:
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


def test_autogenerate_that_finds_nothing(project: Project) -> None:
    """It succeeds, and writes no file."""
    (project.folder / "models.py").write_text(MODELS.format(name="name"))
    project.run("upgrade", "head")
    done = project.migrator("revision", "--autogenerate", "--json")
    assert json.loads(done.stdout)["revisions"] == []
    assert newest(project).name == "r1.py"
    assert "Nothing to do" in project.run("revision", "--autogenerate").stdout


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
def test_values_of_an_enum(values: str, change: str, project: Project) -> None:
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
