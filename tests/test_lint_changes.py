"""What lint says of changes: names that are not there, open choices, in silence."""

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from projects import change
from quick import Quick
from test_alembic import project

__all__ = ["project"]

MAIL = change("r3", "r2", "SetNotNull", '"users", "mail", fill="\'\'"')
PLAIN = """
from alembic import op
import sqlalchemy as sa

revision, down_revision = "r2", "r1"


def upgrade():
    {body}


def downgrade():
    pass
"""
UNDECIDED = """
from migrator import alembic as zd

revision, down_revision = "r2", "r1"
change = zd.undecided(
    "whether it is the same column"
)


def upgrade():
    zd.upgrade(change)
"""


@pytest.fixture
def quick(project: Quick) -> Quick:
    """Give a project with Alembic's own env.py, at its first revision."""
    made = Quick(project.folder, project.url)
    made.run("upgrade", "r1")
    return made


def found(quick: Quick, *words: str, code: int = 1) -> dict[str, Any]:
    """Return the one finding."""
    done = quick.migrator("lint", "--json", *words, code=code)
    (one,) = json.loads(done.stdout)["findings"]
    return dict(one)


def line(quick: Quick, finding: dict[str, Any]) -> str:
    """Return the line that a finding is about."""
    lines = (quick.folder / Path(finding["file"])).read_text().splitlines()
    return lines[finding["line"] - 1]


@pytest.mark.parametrize(
    ("call", "what", "nearest"),
    [
        (
            '"RenameColumn", "users", "nmae", "full_name"',
            'Table "public"."users" has no column "nmae".',
            '"name" is the nearest; correct the name; the table has "id", "name".',
        ),
        (
            '"DropColumn", "user", "name"',
            'There is no table "user" in the search path.',
            '"users" is the nearest; correct the name, or give its schema.',
        ),
        (
            '"DropIndex", "users", "user_pkey"',
            'Table "public"."users" has no index "user_pkey".',
            '"users_pkey" is the nearest; correct the name; the table has'
            ' "users_pkey".',
        ),
        (
            '"DropColumn", "users", "zzz"',
            'Table "public"."users" has no column "zzz".',
            'Correct the name; the table has "id", "name".',
        ),
    ],
)
def test_a_name_that_is_not_there(
    quick: Quick, call: str, what: str, nearest: str
) -> None:
    """The finding stands at the change, with the nearest name that there is."""
    pattern, _, parameters = call.partition(", ")
    quick.write("r2", change("r2", "r1", pattern.strip('"'), parameters))
    one = found(quick)
    assert (one["code"], one["severity"], one["what"]) == ("ZD907", "error", what)
    assert one["safe"]["why"] == nearest
    assert line(quick, one).startswith("change = ")
    offline = quick.migrator("lint", "r2", "--offline", "--json").stdout
    assert json.loads(offline)["findings"] == []


def test_a_plan_tells_the_nearest_name_too(quick: Quick) -> None:
    """As every command that is refused for it."""
    quick.write("r2", change("r2", "r1", "RenameColumn", '"users", "nmae", "x"'))
    error = quick.migrator("plan", code=1).stderr
    assert 'Next: "name" is the nearest; correct the name' in error


@pytest.mark.parametrize(
    "before",
    [
        change("r2", "r1", "AddColumn", '"users", "mail", "text"'),
        PLAIN.format(body='op.add_column("users", sa.Column("mail", sa.Text))'),
        PLAIN.format(body='op.execute(f"ALTER TABLE users ADD {chr(109)}ail text")'),
    ],
    ids=["pattern", "operation", "text"],
)
def test_a_name_that_an_earlier_revision_makes(quick: Quick, before: str) -> None:
    """Of one that has not run yet the database knows nothing."""
    quick.write("r2", before)
    quick.write("r3", MAIL)
    done = quick.migrator("lint", "r3", "--json", code=0)
    assert json.loads(done.stdout)["findings"] == []
    quick.write("r2", before.replace("mail", "size").replace("}ail", "}axi"))
    assert found(quick, "r3")["code"] == "ZD907"


@pytest.mark.parametrize(
    "before",
    [
        PLAIN.format(body='op.create_table("mails", sa.Column("mail", sa.Text))'),
        PLAIN.format(body="pass  # the mail of users").replace(
            "    pass\n", '    op.drop_column("users", "mail")\n'
        ),
        change("r2", "r1", "RenameColumn", '"users", "name", "a_mail"'),
    ],
    ids=["another table", "not run", "another name"],
)
def test_a_name_that_an_earlier_revision_only_mentions(
    quick: Quick, before: str
) -> None:
    """A comment, a way back, a column of another table make no column of this one."""
    quick.write("r2", before)
    quick.write("r3", MAIL)
    assert found(quick, "r3")["code"] == "ZD907"


def test_a_change_that_would_be_refused(quick: Quick) -> None:
    """As the plan says it; what may come from a revision before it is left to that."""
    text = change("r2", "r1", "ChangeColumnType", '"users", "name", "varchar(9)"')
    quick.write("r2", text)
    one = found(quick)
    assert (one["code"], line(quick, one)[:9]) == ("ZD908", "change = ")
    assert one["what"] in " ".join(quick.migrator("plan", code=1).stderr.split())
    made = 'op.execute("ALTER TABLE users ALTER COLUMN name SET STATISTICS 9")'
    quick.write("r2", PLAIN.format(body=made))
    quick.write("r3", text.replace('"r2", "r1"', '"r3", "r2"'))
    done = quick.migrator("lint", "r3", "--json")
    assert json.loads(done.stdout)["findings"] == []


def test_a_person_may_know_better(quick: Quick) -> None:
    """A comment with a reason on the change lets it pass."""
    text = change("r2", "r1", "DropColumn", '"users", "mail"')
    allowed = '"mail")  # migrator: allow ZD907 a trigger of the server makes it'
    quick.write("r2", text.replace('"mail")', allowed))
    assert found(quick, code=0)["allowed"] == "a trigger of the server makes it"


def test_an_open_choice_is_told_at_its_line(quick: Quick) -> None:
    """Where it has to be made, and not where the change is carried."""
    quick.write("r2", UNDECIDED)
    one = found(quick, "--offline", "r2")
    assert (one["code"], line(quick, one)) == ("ZD903", "change = zd.undecided(")


def test_a_line_of_several_changes(quick: Quick) -> None:
    """Each has its own."""
    first = "DropColumn('users', 'name', assured='tried')"
    quick.write(
        "r2",
        change("r2", "r1", "DropColumn", '"users", "zzz"')
        .replace("change = ", f"changes = [\n    {first},\n    ")
        .replace('"zzz")', '"zzz"),\n]')
        .replace("zd.upgrade(change)", "zd.upgrade(changes)"),
    )
    assert line(quick, found(quick)) == '    DropColumn("users", "zzz"),'


def test_alembic_logs_nothing_of_a_look(quick: Quick) -> None:
    """Its words of a run, also those of the revision's code, are of none here."""
    body = 'import logging; logging.getLogger("alembic").info("at work")'
    quick.write("r2", PLAIN.format(body=body))
    done = quick.migrator("lint")
    assert done.stderr == ""
    assert "INFO" in quick.run("upgrade", "head").stderr


def test_a_form_that_was_pasted_as_it_stands(quick: Quick) -> None:
    """Lint says so without a database, the plan and the upgrade refuse it."""
    quick.write("r2", change("r2", "r1", "DropColumn", '"users", "name", assured="…"'))
    one = found(quick, "--offline", "r2")
    assert (one["code"], line(quick, one)[:9]) == ("ZD903", "change = ")
    told = 'DropColumn: assured still has the "…" of a form, in place of a value.'
    assert one["what"] == told
    assert told in " ".join(quick.migrator("plan", code=1).stderr.split())
    assert told in " ".join(quick.run("upgrade", "r2", code=None).stderr.split())
    keyed = '"users", "x", into={"…": ("text", "1")}, back="1"'
    quick.write("r2", change("r2", "r1", "SplitColumn", keyed))
    assert "into still has" in found(quick, "--offline", "r2")["what"]


def test_a_change_in_the_middle_that_would_be_refused(quick: Quick) -> None:
    """Others before it have nothing to do with what is in its way; one of them may."""
    with psycopg.connect(quick.url) as conn:
        conn.execute("CREATE VIEW called AS SELECT name FROM users")
    made = 'op.add_column("users", sa.Column("mail", sa.Text))'
    quick.write("r2", PLAIN.format(body=made))
    drop = change("r3", "r2", "DropColumn", '"users", "name", assured="tried"')
    quick.write("r3", drop)
    one = found(quick)
    assert (one["code"], one["file"][-5:]) == ("ZD908", "r3.py")
    assert "view called" in one["what"]
    quick.write("r2", PLAIN.format(body='op.execute("DROP VIEW called")'))
    assert json.loads(quick.migrator("lint", "--json").stdout)["findings"] == []
    wider = 'op.alter_column("users", "name", type_=sa.Text)'
    quick.write("r2", PLAIN.format(body=wider))
    one = found(quick, "r2")
    assert (one["code"], one["severity"]) == ("ZD119", "error")


def test_what_is_left_out_is_finished(quick: Quick) -> None:
    """Without a database, a change before --start-after has not to be required."""
    quick.write("r2", change("r2", "r1", "SetNotNull", '"users", "name"'))
    quick.write("r3", change("r3", "r2", "SetDefault", '"users", "name", "\'\'"'))
    assert found(quick, "--offline", "r3")["code"] == "ZD904"
    left = quick.migrator("lint", "--offline", "--start-after", "r2", "--json", code=0)
    assert json.loads(left.stdout)["findings"] == []


def test_a_form_that_the_database_would_refuse(quick: Quick) -> None:
    """It asks for `assured` where the pattern would, or says what is in the way."""
    with psycopg.connect(quick.url) as conn:
        conn.execute("CREATE VIEW called AS SELECT name FROM users")
        conn.execute("INSERT INTO users (name) VALUES ('a')")
    body = 'op.drop_column("users", "name")'
    quick.write("r2", PLAIN.format(body=body))
    one = found(quick)
    assert "would be refused: " in one["safe"]["why"]
    assert "view called" in one["safe"]["why"]
    body = 'op.alter_column("users", "size", nullable=False)'
    with psycopg.connect(quick.url) as conn:
        conn.execute("ALTER TABLE users ADD size integer")
        conn.execute(
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN END'"
        )
        conn.execute(
            "CREATE TRIGGER t AFTER UPDATE ON users FOR EACH ROW EXECUTE FUNCTION f()"
        )
    quick.write("r2", PLAIN.format(body=body))
    done = json.loads(quick.migrator("lint", "--json", code=None).stdout)
    (key,) = [f for f in done["findings"] if f["code"] == "ZD108"]
    assert 'assured="…"' in key["safe"]["code"][0]
    assert "(`assured`)" in key["safe"]["decide"]
