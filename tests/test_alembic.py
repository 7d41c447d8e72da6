"""Changes inside an ordinary Alembic project, by Alembic's own commands."""

import subprocess
import sys
import textwrap
from pathlib import Path

import psycopg
import pytest
from quick import Quick

MODELS = """
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    {name}: Mapped[str]
"""

FIRST = """
from alembic import op
import sqlalchemy as sa

revision, down_revision = "r1", None


def upgrade():
    op.create_table(
        "users",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
    )


def downgrade():
    op.drop_table("users")
"""

SECOND = """
from migrator import alembic as zd
from migrator.patterns import RenameColumn

revision, down_revision = "r2", "r1"
change = RenameColumn("users", "name", "full_name")


def upgrade():
    zd.upgrade(change)


def downgrade():
    zd.downgrade(change)
"""


@pytest.fixture
def project(database: str, tmp_path: Path) -> Quick:
    """Give a project made by `alembic init` and `migrator init`."""
    made = Quick(tmp_path, database)
    made.run("init", "migrations")
    ini = tmp_path / "alembic.ini"
    lines = ini.read_text().splitlines()
    url = database.replace("postgresql:", "postgresql+psycopg:")
    ini.write_text(
        "\n".join(
            f"sqlalchemy.url = {url}" if line.startswith("sqlalchemy.url") else line
            for line in lines
        )
    )
    env = tmp_path / "migrations" / "env.py"
    env.write_text(
        env.read_text().replace(
            "target_metadata = None",
            "import models\ntarget_metadata = models.Base.metadata",
        )
    )
    (tmp_path / "models.py").write_text(MODELS.format(name="full_name"))
    made.migrator("init")
    made.write("r1", FIRST)
    return made


def first(more: str) -> str:
    """Return the first revision with more at the end of its upgrade."""
    return FIRST.replace("\n\ndef downgrade", f"{more}\n\ndef downgrade")


def second(call: str) -> str:
    """Return the second revision with another change than the rename."""
    text = SECOND.replace('RenameColumn("users", "name", "full_name")', call)
    return text.replace("import RenameColumn", f"import {call.partition('(')[0]}")


def assert_check_stays_clean(project: Quick, *, backfills: bool = True) -> None:
    """Carry the second revision to its drop; `check` is clean in every phase."""
    project.run("upgrade", "head")
    project.run("check")
    if backfills:
        project.migrator("backfill", "r2")
        project.run("check")
    project.migrator("contract", "r2", "--old-release-gone", "test")
    project.run("check")
    project.migrator("--hold", "0s", "contract", "r2", "--drop", "--yes")
    project.run("check")


def test_init_is_done_once(project: Quick) -> None:
    """A second init changes nothing and says so."""
    env = project.folder / "migrations" / "env.py"
    before = env.read_text()
    assert before.count("**zd.options(target_metadata=target_metadata)") == 2
    assert "already" in project.migrator("init").stdout
    assert env.read_text() == before


def test_init_takes_over_what_the_options_have_place_for(project: Quick) -> None:
    """In both calls, whatever one of them has; what it wrote runs."""
    env = project.folder / "migrations" / "env.py"
    taken = "**zd.options(target_metadata=target_metadata)"
    begun = env.read_text().replace("\nfrom migrator import alembic as zd\n", "\n")
    head = "def mine(*given):\n    return True\n\n\ndef run_migrations_offline"
    begun = begun.replace("def run_migrations_offline", head)
    start, _, end = begun.rpartition(taken)
    begun = start.replace(taken, "target_metadata=target_metadata") + (
        "include_object=mine, target_metadata=target_metadata,"
        "\n            process_revision_directives=mine,"
        f"\n            transaction_per_migration=True{end}"
    )
    env.write_text(begun)
    assert (
        "now passes zd.options(…) to Alembic. Look" in project.migrator("init").stdout
    )
    text = env.read_text()
    own = "include_object=mine, process_revision_directives=mine"
    assert text.count(taken) == 1
    assert text.count(f"{taken[:-1]}, {own})") == 1
    assert "transaction_per_migration" not in text
    project.run("current")


def test_init_names_the_calls_that_it_leaves(project: Quick) -> None:
    """By their lines, with what to write, and ends with 1 until that is done."""
    env = project.folder / "migrations" / "env.py"
    taken = "**zd.options(target_metadata=target_metadata)"
    text = env.read_text()
    start, _, end = text.rpartition(taken)
    for given, why in (
        ("target_metadata=target_metadata, **more", "what **more holds is not seen"),
        ("", "it has no target_metadata=…"),
        (
            "target_metadata=target_metadata, transaction_per_migration=False",
            "it has transaction_per_migration=False, and a change needs True",
        ),
    ):
        env.write_text(start + given + end)
        call = start.rindex("context.configure")
        said = project.migrator("init", code=1).stdout
        line = start[:call].count("\n") + 1
        assert f"env.py, line {line} was left as it is: {why}" in said
        assert f"Write {taken} in it" in said
        assert env.read_text() == start + given + end
    env.write_text("from flask_migrate import run\n")
    assert "does not call context.configure" in project.migrator("init", code=1).stdout


def test_init_says_where_the_guard_may_begin(project: Quick) -> None:
    """What it names is what pyproject.toml takes, and lint passes over them."""
    env = project.folder / "migrations" / "env.py"
    options = "**zd.options(target_metadata=target_metadata)"
    env.write_text(env.read_text().replace(options, "target_metadata=target_metadata"))
    done = project.migrator("init")
    assert done.stdout.endswith('    [tool.migrator]\n    start-after = "r1"\n')
    assert options in env.read_text()
    project.write("r2", FIRST.replace('"r1", None', '"r2", None'))
    assert "in 2 revisions" in project.migrator("lint").stdout
    settings = "[tool.migrator]\nstart-after = {}\n"
    for given, left in (('"r1"', "1 revision"), ('["r1", "r2"]', "0 revisions")):
        (project.folder / "pyproject.toml").write_text(settings.format(given))
        linted = project.migrator("lint")
        assert f"in {left}." in linted.stdout
        # Its runs on paper are no migrations.
        assert "Generating static SQL" not in linted.stderr


def test_a_plan_says_what_comes_before(project: Quick) -> None:
    """On a database that lacks revisions it names the way to its beginning."""
    project.write("r2", SECOND)
    told = project.migrator("plan", code=1)
    assert (
        "Next: bring this database to where the change begins: `alembic upgrade r1`"
        " (1 revision is missing)." in told.stderr
    )
    project.run("upgrade", "r1")
    project.migrator("plan")
    # No upgrade cures a parameter that is none.
    project.run("stamp", "base")
    wrong = SECOND.replace('RenameColumn("users", "name",', 'AddUnique("users", [],')
    project.write("r2", wrong.replace("RenameColumn", "AddUnique"))
    assert "Next: write on=" in project.migrator("plan", code=1).stderr
    project.write("r2", SECOND)
    project.run("stamp", "r1")
    project.run("downgrade", "base")
    with psycopg.connect(project.url) as conn:
        conn.execute("DROP TABLE IF EXISTS users")
    project.run("stamp", "r1")
    assert "where the change begins" not in project.migrator("plan", code=1).stderr


def test_live_upgrade_only_expands_and_check_stays_clean(project: Quick) -> None:
    """On a live table `upgrade head` expands; `check` is clean in every phase."""
    project.run("upgrade", "r1")
    project.fill()
    project.write("r2", SECOND)
    project.run("upgrade", "head")
    assert project.columns() == ["id", "name", "full_name"]
    assert "r2 (head)" in project.run("current").stdout
    project.run("check")
    project.run("upgrade", "head")
    project.migrator("backfill", "r2")
    project.run("check")
    assert "old release" in project.migrator("contract", "r2", code=3).stderr
    project.migrator("contract", "r2", "--old-release-gone", "test")
    project.run("check")
    project.migrator("contract", "r2", "--drop", "--yes", code=3)
    project.migrator("--hold", "0s", "contract", "r2", "--drop", "--yes")
    project.run("check")
    assert project.columns() == ["id", "full_name"]
    refused = project.run("downgrade", "r1", code=None)
    assert refused.returncode != 0
    assert "there is no way back" in refused.stderr + refused.stdout
    assert "r2 (head)" in project.run("current").stdout


def test_indexes_take_their_new_names_along(project: Quick) -> None:
    """`index=True` in the model: `check` is clean in every phase, and back."""
    (project.folder / "models.py").write_text(
        MODELS.format(name="full_name").replace(
            "Mapped[str]", "Mapped[str] = mapped_column(index=True)"
        )
    )
    project.write("r1", FIRST.replace("nullable=False", "nullable=False, index=True"))
    project.run("upgrade", "r1")
    project.fill()
    project.write("r2", SECOND)
    hint = 'indexes={"ix_users_name": "…"}'
    assert hint in project.migrator("plan").stdout
    given = '"full_name", indexes={"ix_users_name": "ix_users_full_name"}'
    project.write("r2", SECOND.replace('"full_name"', given))
    assert hint not in project.migrator("plan").stdout
    project.run("upgrade", "head")
    project.run("check")
    project.migrator("backfill", "r2")
    project.run("check")
    project.migrator("contract", "r2", "--old-release-gone", "test")
    project.run("check")
    project.migrator("rollback", "r2")
    project.run("check")
    project.migrator("contract", "r2", "--old-release-gone", "test")
    project.migrator("--hold", "0s", "contract", "r2", "--drop", "--yes")
    project.run("check")


def test_downgrade_takes_back_what_ran(project: Quick) -> None:
    """`downgrade` after the backfill leaves the old shape and every row."""
    project.run("upgrade", "r1")
    project.fill()
    project.write("r2", SECOND)
    project.run("upgrade", "head")
    project.migrator("backfill", "r2")
    project.run("downgrade", "-1")
    assert project.columns() == ["id", "name"]
    project.run("upgrade", "head")
    assert project.columns() == ["id", "name", "full_name"]


def test_fresh_database_goes_all_the_way_and_back(project: Quick) -> None:
    """On an empty database each change is completed, and downgrade rebuilds."""
    project.write("r2", SECOND)
    project.run("upgrade", "head")
    assert project.columns() == ["id", "full_name"]
    project.run("check")
    project.run("downgrade", "-1")
    assert project.columns() == ["id", "name"]
    project.run("upgrade", "head")
    project.run("downgrade", "base")
    project.run("upgrade", "head")
    assert project.columns() == ["id", "full_name"]


def test_complete_mode_completes_a_table_with_rows(project: Quick) -> None:
    """`-x migrator_mode=complete` carries a filled table through, and back."""
    project.run("upgrade", "r1")
    project.fill()
    project.write("r2", SECOND)
    project.run("-x", "migrator_mode=complete", "upgrade", "head")
    assert project.columns() == ["id", "full_name"]
    project.run("-x", "migrator_mode=complete", "downgrade", "-1")
    assert project.columns() == ["id", "name"]


LATER = SECOND.replace('"r2", "r1"', '"r3", "r2"').replace(
    '"name", "full_name"', '"full_name", "whole"'
)
REQUIRING = LATER.replace("change =", 'requires = "r2"\nchange =')


def test_rows_of_a_fresh_database_are_nobodys(project: Quick) -> None:
    """Seeds of a revision do not keep a change from being carried through."""
    seeds = """op.execute("INSERT INTO users (name) VALUES ('n')")"""
    project.write("r1", first(f"    {seeds}"))
    project.write("r2", SECOND)
    project.write("r3", REQUIRING)
    project.run("upgrade", "head")
    assert project.columns() == ["id", "whole"]


@pytest.mark.parametrize("text", [REQUIRING, LATER], ids=["requires", "overlaps"])
def test_complete_mode_finishes_what_is_in_the_way(project: Quick, text: str) -> None:
    """A change in flight that a later one waits for, or that touches the same."""
    project.write("r2", SECOND)
    project.run("upgrade", "r1")
    project.fill()
    project.run("upgrade", "r2")
    project.write("r3", text)
    said = project.run("upgrade", "head", code=None).stderr
    assert ("MIGRATOR_MODE=complete" in said) is (text == REQUIRING)
    project.run("-x", "migrator_mode=complete", "upgrade", "head")
    assert project.columns() == ["id", "whole"]


def test_sql_mode_is_refused_and_prints_no_contract(project: Quick) -> None:
    """`--sql` refuses a revision with a change; nothing of it is printed."""
    project.write("r2", SECOND)
    done = project.run("upgrade", "r1:r2", "--sql", code=None)
    assert done.returncode != 0
    assert "migrator plan" in done.stderr + done.stdout
    assert "ALTER TABLE" not in done.stdout


def test_change_that_does_not_come_first_is_refused(project: Quick) -> None:
    """A revision that has written before zd.upgrade is refused whole."""
    project.run("upgrade", "r1")
    project.fill()
    project.write(
        "r2",
        SECOND.replace(
            "    zd.upgrade(change)",
            "    from alembic import op\n"
            '    op.execute("CREATE TABLE extra (id int)")\n'
            "    zd.upgrade(change)",
        ),
    )
    done = project.run("upgrade", "head", code=None)
    assert "has written already" in done.stderr + done.stdout
    assert project.columns() == ["id", "name"]
    assert "r1" in project.run("current").stdout


def test_env_without_options_is_refused(project: Quick) -> None:
    """Without zd.options the refusal says what to add."""
    env = project.folder / "migrations" / "env.py"
    env.write_text(
        env.read_text().replace(
            "**zd.options(target_metadata=target_metadata)",
            "target_metadata=target_metadata",
        )
    )
    project.write("r2", SECOND)
    done = project.run("upgrade", "head", code=None)
    assert "zd.options" in done.stderr + done.stdout


def test_two_pods_upgrade_at_once(project: Quick) -> None:
    """Two processes that upgrade at the same time both succeed, once."""
    project.run("upgrade", "r1")
    project.fill()
    project.write("r2", SECOND)
    command = [Path(sys.executable).parent / "alembic", "upgrade", "head"]
    pods = [
        subprocess.Popen(
            command,
            cwd=project.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for _ in range(2)
    ]
    for pod in pods:
        out, _ = pod.communicate(timeout=60)
        assert pod.returncode == 0, out.decode()
    assert project.columns() == ["id", "name", "full_name"]


def test_commands_of_a_deployment_may_run_again(project: Quick) -> None:
    """Where nothing is left to do, they say so and succeed."""
    project.run("upgrade", "r1")
    project.fill()
    project.write("r2", SECOND)
    for _ in range(2):
        project.migrator("expand")
        project.migrator("backfill")
    assert "Nothing to expand" in project.migrator("expand").stdout
    assert "Nothing to plan" in project.migrator("plan").stdout
    project.migrator("contract", "--old-release-gone", "test")
    drop = project.migrator("--hold", "0s", "contract", "--drop", code=2)
    assert "give --yes" in drop.stderr
    for _ in range(2):
        project.migrator("--hold", "0s", "contract", "--drop", "--yes")
    assert "Nothing to backfill" in project.migrator("backfill").stdout
    assert "No change is in flight" in project.migrator("rollback", code=2).stderr


def test_a_change_that_cannot_work_does_not_hide_the_others(project: Quick) -> None:
    """Plan names it, shows the rest, and does not succeed."""
    project.run("upgrade", "r1")
    project.fill()
    project.write("r2", SECOND.replace('"name", "full_name"', '"nope", "x"'))
    project.write("r3", SECOND.replace('"r2", "r1"', '"r3", "r2"'))
    for words in (("status", "r3"), ("backfill", "r3")):
        done = project.migrator(*words, code=2)
        assert done.stderr == (
            'Error: r3 (rename column "name" of table "users" to "full_name") is not'
            " expanded yet.\nNothing was changed.\nNext: `migrator expand r3`\n"
        )
    done = project.migrator("plan", code=1)
    assert "r2 cannot work:" in done.stdout
    assert 'has no column "nope"' in done.stdout
    assert "mirror_column: one transaction" in done.stdout


def test_check_after_a_rollback(project: Quick) -> None:
    """It fails while the model needs what was taken back, and no longer."""
    project.run("upgrade", "r1")
    project.fill()
    project.write("r2", SECOND)
    project.migrator("expand")
    project.run("check")
    project.migrator("rollback", "r2", "--to", "planned")
    assert "'add_column'" in project.run("check", code=None).stdout
    models = project.folder / "models.py"
    models.write_text(MODELS.format(name="name"))
    project.run("check")
    models.write_text(MODELS.format(name="full_name"))
    project.migrator("expand")
    project.run("check")


def test_a_change_rolled_back_does_not_stop_the_others(project: Quick) -> None:
    """What it touched is gone by hand: the next revision is expanded all the same."""
    project.run("upgrade", "r1")
    project.fill()
    project.write("r2", SECOND)
    project.migrator("expand")
    project.migrator("rollback", "r2", "--to", "planned")
    with psycopg.connect(project.url) as conn:
        conn.execute("ALTER TABLE users RENAME name TO other")
    third = SECOND.replace('"r2", "r1"', '"r3", "r2"')
    project.write("r3", third.replace('"name", "full_name"', '"other", "label"'))
    done = project.migrator("expand", code=1)
    assert "r3 is expanded" in done.stdout
    assert done.stderr.startswith("r2 was rolled back on 20")
    assert 'r2 cannot be expanded: Table "public"."users" has no column "name"' in (
        done.stderr
    )


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            'RenameColumn("users")',
            "line 6: RenameColumn() missing 2 required positional arguments:"
            " 'column' and 'to'.",
        ),
        (
            'RenameColumn("users", "name", "n", index={})',
            "line 6: RenameColumn() got an unexpected keyword argument 'index'.",
        ),
        ("RenameColum()", "line 6: NameError: name 'RenameColum' is not defined."),
        ("RenameColumn(", "line 6: '(' was never closed."),
    ],
)
def test_a_wrong_call_in_a_revision(call: str, said: str, project: Quick) -> None:
    """It is told with file and line, not by a traceback."""
    text = SECOND.replace('RenameColumn("users", "name", "full_name")', call)
    project.write("r2", text)
    done = project.migrator("plan", code=2)
    assert done.stderr == (
        f"Error: {project.folder}/migrations/versions/r2.py, {said}\n"
        "Nothing was changed.\n"
        "Next: correct the revision; `migrator patterns NAME` shows what a pattern"
        " takes.\n"
    )


def test_what_earlier_revisions_did_is_told(project: Quick) -> None:
    """That nothing was changed is said of one revision only."""
    project.run("upgrade", "r1")
    project.fill()
    project.write("r2", SECOND)
    third = SECOND.replace('"r2", "r1"', '"r3", "r2"')
    project.write("r3", third.replace('"name", "full_name"', '"nope", "x"'))
    stays = "Nothing further was changed. Before it r2 was expanded, which stays.\n"
    assert stays in project.migrator("expand", code=1).stderr
    project.run("downgrade", "r1")
    hook = project.migrator("hook", "pre-deploy", "--release", "v2", code=1)
    assert stays in hook.stderr
    assert "Before it" not in project.migrator("expand", code=1).stderr
    project.run("downgrade", "r1")
    done = project.run("upgrade", "head", code=None)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "Nothing was changed" not in said
    assert "1 revision that this command ran before it stays" in said
    assert "r2" in project.run("current").stdout


@pytest.mark.parametrize(
    ("url", "message", "code"),
    [
        ("postgresql+psycopg://u:secret@127.0.0.1:1/x", "No connection", 1),
        ("mysql://x/y", "cannot use the database URL", 2),
        ("nonsense", "cannot use the database URL", 2),
    ],
)
def test_a_database_that_cannot_be_reached(
    project: Quick, url: str, message: str, code: int
) -> None:
    """Inside a project too it is a message, without the password."""
    ini = project.folder / "alembic.ini"
    lines = [
        f"sqlalchemy.url = {url}" if line.startswith("sqlalchemy.url") else line
        for line in ini.read_text().splitlines()
    ]
    ini.write_text("\n".join(lines))
    done = project.migrator("status", code=code)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "words", ["status", "lint", "hook gate", "revision --autogenerate -m x"]
)
def test_an_error_of_the_projects_own_code(words: str, project: Quick) -> None:
    """What env.py raises is told with its line, without words that may be secret."""
    env = project.folder / "migrations" / "env.py"
    env.write_text("raise RuntimeError('postgresql://u:secret@h/d')\n")
    told = project.run(*words.split(), module="migrator", code=2)
    assert "env.py, line 1: RuntimeError." in told.stderr
    assert "secret" not in told.stderr + told.stdout


FAILS = """
from alembic import op

revision, down_revision = "r2", "r1"


def upgrade():
    op.execute("INSERT INTO users (id, name) VALUES (1, 'secret')")
    op.execute("INSERT INTO users (id, name) VALUES (1, 'secret')")


def downgrade():
    pass
"""


@pytest.mark.parametrize("words", ["expand r3", "hook pre-deploy"])
def test_an_error_of_a_revision(words: str, project: Quick) -> None:
    """It is told with its line and what the server says, without any values."""
    project.write("r2", FAILS)
    project.write("r3", SECOND.replace('"r2", "r1"', '"r3", "r2"'))
    told = project.migrator(*words.split(), code=1)
    assert "r2.py, line 9: UniqueViolation (23505): duplicate key" in told.stderr
    assert "secret" not in told.stderr + told.stdout
    assert "r1" in project.run("current").stdout


def test_check_stays_clean_with_an_index_on_a_retired_column(project: Quick) -> None:
    """A split's retired column keeps its index; autogenerate does not see it."""
    model = MODELS.format(name="first: Mapped[str | None]\n    last")
    (project.folder / "models.py").write_text(
        model.replace("last: Mapped[str]", "last: Mapped[str | None]")
    )
    project.write("r1", FIRST.replace("nullable=False", "nullable=False, index=True"))
    project.run("upgrade", "r1")
    project.fill()
    call = (
        'SplitColumn("users", "name", {"first": ("varchar", "left(name, 1)"),'
        ' "last": ("varchar", "substr(name, 2)")}, "first || last")'
    )
    project.write("r2", second(call))
    project.migrator("expand")
    project.run("check")
    project.migrator("backfill")
    project.migrator("contract", "--old-release-gone", "test")
    project.run("check")
    project.migrator("--hold", "0s", "contract", "--drop", "--yes")
    project.run("check")


@pytest.mark.parametrize(
    ("made", "call"),
    [
        ('op.create_table("old", sa.Column("id", sa.Integer))', 'DropTable("old")'),
        (
            'op.create_index("by_id", "users", ["id", "name"])',
            'DropIndex("users", "by_id")',
        ),
        (
            'op.add_column("users", sa.Column("nick", sa.String))',
            'DropColumn("users", "nick")',
        ),
    ],
)
def test_check_stays_clean_while_something_is_dropped(
    made: str, call: str, project: Quick
) -> None:
    """What the model has no more is hidden from `upgrade` to the drop."""
    (project.folder / "models.py").write_text(MODELS.format(name="name"))
    project.write("r1", first(f"    {made}"))
    project.run("upgrade", "r1")
    project.fill()
    if "old" in call:
        with psycopg.connect(project.url) as conn:
            conn.execute("INSERT INTO old VALUES (1)")
    project.write("r2", second(call))
    assert_check_stays_clean(project, backfills=False)
    # An index can be built again.
    lost = "DropIndex" not in call
    done = project.run("downgrade", "r1", code=None)
    assert (done.returncode != 0) == lost
    assert ("there is no way back" in done.stderr + done.stdout) == lost
    # Alembic's version stays where it is refused.
    assert ("r2" in project.run("current").stdout) == lost


def test_check_stays_clean_while_a_table_is_split(project: Quick) -> None:
    """The model has the new table; the database a view, and later the table."""
    (project.folder / "models.py").write_text(
        MODELS.replace("    {name}: Mapped[str]\n", "")
        + textwrap.dedent(
            """
            from sqlalchemy import ForeignKey


            class Profile(Base):
                __tablename__ = "profiles"
                user_id: Mapped[int] = mapped_column(
                    ForeignKey("users.id", ondelete="CASCADE", onupdate="CASCADE"),
                    primary_key=True,
                )
                name: Mapped[str] = mapped_column(index=True)
            """
        )
    )
    project.write("r1", FIRST.replace("nullable=False", "nullable=False, index=True"))
    project.run("upgrade", "r1")
    project.fill()
    pattern = (
        'SplitTable("users", "profiles", ["name"], key={"id": "user_id"},'
        ' indexes={"ix_users_name": "ix_profiles_name"}, assured="no ON CONFLICT")'
    )
    project.write("r2", second(pattern))
    assert_check_stays_clean(project)
    assert project.columns() == ["id"]


def test_check_stays_clean_while_a_table_is_extracted(project: Quick) -> None:
    """The model has both tables from the start; the old column is no part of it."""
    (project.folder / "models.py").write_text(
        MODELS.replace(
            "    {name}: Mapped[str]\n",
            "    team_id: Mapped[int] ="
            " mapped_column(ForeignKey('teams.id'), index=True)\n",
        )
        + textwrap.dedent(
            """
            class Team(Base):
                __tablename__ = "teams"
                id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
                name: Mapped[str] = mapped_column(unique=True)
            """
        )
    )
    models = project.folder / "models.py"
    given = "from sqlalchemy import BigInteger, ForeignKey\n"
    models.write_text(given + models.read_text())
    project.write("r1", FIRST.replace("nullable=False", "nullable=False, index=True"))
    project.run("upgrade", "r1")
    project.fill()
    pattern = (
        'ExtractTable("users", "teams", ["name"], reference="team_id",'
        ' index="ix_users_team_id", assured="tried")'
    )
    project.write("r2", second(pattern))
    assert_check_stays_clean(project)
    assert project.columns() == ["id", "team_id"]


def test_check_stays_clean_while_an_array_is_extracted(project: Quick) -> None:
    """The model has the new tables from the start, and no array."""
    (project.folder / "models.py").write_text(
        "from sqlalchemy import BigInteger, Column, ForeignKey, Table\n"
        + MODELS.replace("    {name}: Mapped[str]\n", "")
        + textwrap.dedent(
            """
            class Team(Base):
                __tablename__ = "teams"
                id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
                name: Mapped[str] = mapped_column(unique=True)


            def to(key):
                return ForeignKey(key, onupdate="CASCADE", ondelete="CASCADE")


            Table(
                "user_teams",
                Base.metadata,
                Column("user_id", to("users.id"), primary_key=True),
                Column("team_id", to("teams.id"), primary_key=True, index=True),
            )
            """
        )
    )
    project.write("r1", FIRST.replace("sa.String", "sa.ARRAY(sa.String)"))
    project.run("upgrade", "r1")
    pattern = (
        'ExtractTable("users", "teams", ["name"], through="user_teams",'
        ' index="ix_user_teams_team_id", assured="tried")'
    )
    text = SECOND.replace("RenameColumn", "ExtractTable", 1)
    project.write(
        "r2", text.replace('RenameColumn("users", "name", "full_name")', pattern)
    )
    project.run("upgrade", "head")
    project.run("check")
    project.migrator("backfill", "r2")
    project.run("check")
    project.migrator("contract", "r2", "--old-release-gone", "test")
    project.run("check")
    project.migrator("--hold", "0s", "contract", "r2", "--drop", "--yes")
    project.run("check")
    assert project.columns() == ["id"]


RENAMED = """
from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "accounts"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(index=True)


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[int] = mapped_column(ForeignKey("accounts.id"))
"""


@pytest.mark.parametrize("mode", ["live", "fresh", "complete"])
def test_a_renamed_table(mode: str, project: Quick) -> None:
    """`check` is clean under the new name in every state; `downgrade` goes back."""
    (project.folder / "models.py").write_text(RENAMED)
    made = """op.create_index("ix_accounts_name", "users", ["name"])
    op.create_table("items", sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("owner", sa.Integer, sa.ForeignKey("users.id"), nullable=False))
"""
    project.write("r1", first(f"    {made}"))
    project.write(
        "r2",
        SECOND.replace("RenameColumn", "RenameTable").replace(
            '"name", "full_name"', '"accounts"'
        ),
    )
    if mode == "fresh":
        project.run("upgrade", "head")
    else:
        project.run("upgrade", "r1")
        project.fill()
    if mode == "complete":
        project.run("-x", "migrator_mode=complete", "upgrade", "head")
    if mode == "live":
        project.run("upgrade", "head")
        project.run("check")
        project.migrator("contract", "r2", "--old-release-gone", "test")
        project.run("check")
        project.migrator("plan")
        project.migrator("--hold", "0s", "contract", "r2", "--drop", "--yes")
    project.run("check")
    assert "Nothing to plan" in project.migrator("plan").stdout
    project.run("downgrade", "r1")
    assert project.columns() == ["id", "name"]
    assert project.run("check", code=None).returncode != 0
    project.run("upgrade", "head")
    project.run("check")


@pytest.mark.parametrize("rows", [0, 1])
def test_a_new_table(rows: int, project: Quick) -> None:
    """`check` is clean; `downgrade` drops an empty one, and keeps one with rows."""
    (project.folder / "models.py").write_text(
        MODELS.format(name="name") + "\n\nclass Audit(Base):\n"
        '    __tablename__ = "audit"\n'
        "    id: Mapped[int] = mapped_column(primary_key=True)\n"
    )
    project.run("upgrade", "r1")
    project.fill()
    call = 'CreateTable("audit", "id serial PRIMARY KEY")'
    text = SECOND.replace('RenameColumn("users", "name", "full_name")', call)
    project.write("r2", text.replace("RenameColumn", "CreateTable"))
    project.run("upgrade", "head")
    project.run("check")
    with psycopg.connect(project.url, autocommit=True) as conn:
        conn.execute(f"INSERT INTO audit SELECT {rows} WHERE {rows} > 0".encode())
        project.run("downgrade", "-1")
        assert "r1" in project.run("current").stdout
        parked = "SELECT count(*) FROM pg_class WHERE relname ~ 'parked.*audit_[^_]*$'"
        assert conn.execute(parked.encode()).fetchone() == (rows,)
        project.run("upgrade", "head")
        count = conn.execute("SELECT count(*) FROM audit").fetchone()
        assert count == (rows,)
    project.run("check")


def test_an_unknown_setting_is_refused(project: Quick) -> None:
    """A typo in a safety setting must not pass for the setting."""
    (project.folder / "pyproject.toml").write_text("[tool.migrator]\nlock-timeout = 3")
    assert "'lock_timeout'" in project.migrator("status", code=2).stderr


def test_guard_settings_are_read(project: Quick) -> None:
    """A wrong one is named; a right one is taken."""
    path = project.folder / "pyproject.toml"
    path.write_text("[tool.migrator.guard]\nlagg = { pause = 1 }")
    assert 'has a key "lagg"' in project.migrator("status", code=2).stderr
    path.write_text('[tool.migrator.guard]\nmode = "observe"')
    project.migrator("status")


MERGED = 'MergeTables("profiles", "users", ["bio"], key={"user_id": "id"}, assured="x")'
OLD_PROFILES = (
    "CREATE TABLE profiles (user_id int PRIMARY KEY REFERENCES users, bio text)"
)


@pytest.mark.parametrize("filled", [False, True])
@pytest.mark.parametrize(
    "call",
    [MERGED, f'DropTable("profiles", create="{OLD_PROFILES}", assured="x")'],
    ids=["merged", "dropped"],
)
def test_a_table_that_is_gone(project: Quick, call: str, *, filled: bool) -> None:
    """An empty database goes back to its base; one with rows may be in use."""
    project.write("r1", first(PROFILES.format('sa.Column("bio", sa.String),')))
    text = FIRST.partition("\n\ndef downgrade")[2]
    path = project.folder / "migrations" / "versions" / "r1.py"
    dropped = text.replace('("users")', '("profiles")\n    op.drop_table("users")')
    path.write_text(path.read_text().replace(text, dropped))
    project.write("r2", second(call))
    project.run("upgrade", "head")
    if filled:
        project.fill()
        refused = project.run("downgrade", "base", code=255)
        assert "there is no way back" in refused.stderr
    else:
        project.run("downgrade", "base")
        project.run("upgrade", "head")


@pytest.mark.parametrize("dropped", [False, True])
def test_a_new_table_with_rows_of_an_empty_one(
    project: Quick, *, dropped: bool
) -> None:
    """Its rows are in use: `downgrade` keeps them."""
    project.write(
        "r2",
        second(
            'ExtractTable("users", "people", ["name"], reference="who", assured="x")'
        ),
    )
    project.run("upgrade", "head" if dropped else "r1")
    if not dropped:
        project.run("upgrade", "head")
    with psycopg.connect(project.url, autocommit=True) as conn:
        conn.execute("INSERT INTO people (name) VALUES ('a')")
        if dropped:
            refused = project.run("downgrade", "-1", code=255)
            assert "there is no way back" in refused.stderr
        else:
            project.run("downgrade", "-1")
            project.run("upgrade", "head")
        assert conn.execute("SELECT count(*) FROM people").fetchone() == (1,)


@pytest.mark.parametrize(
    "call",
    [
        'CreateTable("people", "name text")',
        'ExtractTable("users", "people", ["name"], reference="who", assured="x")',
    ],
    ids=["created", "extracted"],
)
def test_what_a_rollback_parked_has_rows(project: Quick, call: str) -> None:
    """A downgrade behind it keeps them for the hold, as one in its place does."""
    project.run("upgrade", "r1")
    project.write("r2", second(call))
    project.run("upgrade", "head")
    with psycopg.connect(project.url, autocommit=True) as conn:
        conn.execute("INSERT INTO people (name) VALUES ('a')")
        project.migrator("rollback", "r2", "--to", "planned")
        project.run("downgrade", "-1")
        project.run("upgrade", "head")
        assert conn.execute("SELECT count(*) FROM people").fetchone() == (1,)


OF_DOMAIN = """
from alembic import op

revision, down_revision = "r1", None


def upgrade():
    op.execute("CREATE DOMAIN price AS int")
    op.execute("CREATE TABLE users (id serial, name text, price price)")
"""


@pytest.mark.parametrize("filled", [False, True])
def test_a_domain(project: Quick, *, filled: bool) -> None:
    """It is carried through on a fresh database, and later goes step by step."""
    rows = '    op.execute("INSERT INTO users (price) VALUES (1)")\n' if filled else ""
    project.write("r1", OF_DOMAIN + rows)
    if filled:
        project.run("upgrade", "head")
    call = 'ChangeDomain("price", add_check="VALUE > 0", name="positive")'
    project.write("r2", second(call))
    project.run("upgrade", "head")
    with psycopg.connect(project.url, autocommit=True) as conn:
        there = "SELECT count(*) FROM pg_constraint WHERE conname = 'positive'"
        assert conn.execute(there).fetchone() == (int(not filled),)
        if filled:
            told = project.migrator("status").stdout
            assert "backfilled; nothing had to run so far" in told
            assert "Next: migrator verify r2" in told
            project.migrator("verify", "r2")
            project.migrator("contract", "r2", "--old-release-gone", "test")
            assert conn.execute(there).fetchone() == (1,)
        project.run("downgrade", "r1")
        assert conn.execute(there).fetchone() == (0,)


PROFILES = """
    op.create_table(
        "profiles",
        sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id"), primary_key=True),
        {}
    )
"""


def test_check_stays_clean_while_a_column_moves(project: Quick) -> None:
    """The model has it in the other table, NOT NULL and indexed, from the start."""
    (project.folder / "models.py").write_text(
        MODELS.replace("    {name}: Mapped[str]\n", "")
        + textwrap.dedent(
            """
            from sqlalchemy import ForeignKey


            class Profile(Base):
                __tablename__ = "profiles"
                user_id: Mapped[int] = mapped_column(
                    ForeignKey("users.id"), primary_key=True
                )
                name: Mapped[str] = mapped_column(index=True, server_default="")
            """
        )
    )
    given = 'nullable=False, index=True, server_default=""'
    made = PROFILES.format("")
    project.write("r1", first(made).replace("nullable=False", given))
    project.run("upgrade", "r1")
    project.fill()
    with psycopg.connect(project.url) as conn:
        conn.execute("INSERT INTO profiles SELECT id FROM users")
    pattern = (
        'MoveColumn("users", "name", to="profiles", key={"id": "user_id"},'
        ' indexes={"ix_users_name": "ix_profiles_name"}, assured="tried again")'
    )
    project.write("r2", second(pattern))
    assert_check_stays_clean(project)
    assert project.columns() == ["id"]


def test_check_stays_clean_while_tables_are_merged(project: Quick) -> None:
    """The model has one table from the start; the other one is no part of it."""
    bio = "    bio: Mapped[str | None] = mapped_column(index=True)"
    (project.folder / "models.py").write_text(MODELS.format(name="name") + bio)
    bio = 'sa.Column("bio", sa.String, index=True),'
    project.write("r1", first(PROFILES.format(bio)))
    project.run("upgrade", "r1")
    project.fill()
    with psycopg.connect(project.url) as conn:
        conn.execute("INSERT INTO profiles SELECT id, 'b' FROM users")
    pattern = (
        'MergeTables("profiles", "users", ["bio"], key={"user_id": "id"},'
        ' indexes={"ix_profiles_bio": "ix_users_bio"}, assured="no ON CONFLICT")'
    )
    project.write("r2", second(pattern))
    assert_check_stays_clean(project)
    assert project.columns() == ["id", "name", "bio"]
