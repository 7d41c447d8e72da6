"""Changes that wait for one another: by Alembic, by our commands, in deployments."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from projects import NAME, PLAIN, Release, change
from quick import Quick
from test_midflight import CARRY, project

from migrator.change import Change
from migrator.errors import Held, Refused, Waits
from migrator.patterns import AddColumn, RenameColumn, RenameTable, SetNotNull
from migrator.plan import State
from migrator.runner import Runner

__all__ = ["project"]

FILLED = '"users", "full_name", fill="\'\'"'
#: Waits for r2; what is behind it waits as well, and has nothing to do with it.
WAITING = change("r3", "r2", "SetDefault", '"users", "full_name", "\'nobody\'"')
WAITING = WAITING.replace("\nchange", '\nrequires = "r2"\nchange')
BEHIND = change("r4", "r3", "RenameColumn", '"users", "mail", "address"')


@pytest.fixture
def releases(database: str, tmp_path: Path) -> tuple[Release, Release, Release]:
    """Give three releases: v2 renames a column, and v3 needs what v2 leaves."""
    v1 = Release.make("v1", tmp_path, database, PLAIN)
    v2 = Release.make("v2", tmp_path, database, PLAIN, NAME)
    v3 = Release.make("v3", tmp_path, database, PLAIN, NAME, WAITING, BEHIND)
    v1.hook("pre-deploy")
    v1.hook("post-deploy")
    v1.fill()
    return v1, v2, v3


def told(release: Release, *words: str) -> dict[str, tuple[str | None, str, str]]:
    """Return what a hook that holds says of each change: state, reason, what to do."""
    found = release.hook(*words, code=3)
    assert found["error"] is None
    return {
        c["change"]: (c["state"], c["reason"] or "", c["next"] or "")
        for c in found["changes"]
    }


# -- the engine --------------------------------------------------------------


def test_a_change_waits_until_what_it_requires_is_finished(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """In each state the error says what is missing, and the commands up to there."""
    sql.execute("CREATE TABLE t (a int)")
    sql.execute("INSERT INTO t VALUES (1)")
    first = Change(revision="a1", pattern=RenameColumn("t", "a", "b"))
    second = Change(
        revision="b2", pattern=SetNotNull("t", "b", fill="0"), requires=("a1",)
    )
    everywhere = "run a release that has a1, and nothing that waits for it, everywhere"
    retire = '`migrator contract a1 --old-release-gone "reason"`'
    drop = "after the hold, where there is something to drop, the same with --drop"
    again = "; then run the same command again."

    def waits() -> str:
        with pytest.raises(Waits) as caught:
            runner.expand(second)
        assert f"b2 ({second.pattern.title}) waits until a1 (" in caught.value.what
        assert sql.execute("SELECT FROM migrator.changes").rowcount == 1
        return caught.value.next

    runner.expand(first)
    road = f"{everywhere}; {retire}; {drop}{again}"
    assert waits() == f"`migrator backfill a1`; {road}"
    with pytest.raises(Waits, match=r"b2 .* waits until a1 .*, which is expanded"):
        runner.expand(replace(second, requires=("a1:1",)))
    runner.rollback("a1")
    assert waits() == f"`migrator expand a1`; `migrator backfill a1`; {road}"
    runner.expand(first)
    runner.settle("a1")
    assert waits() == road
    runner.retire("a1", old_release_gone="test")
    assert waits() == f"`migrator contract a1 --drop`{again}"
    runner.drop("a1")
    assert runner.expand(second) is State.EXPANDED


def test_what_the_ledger_does_not_know_is_waited_for_by_nobody(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """It was stamped, so that nothing of it is in flight."""
    sql.execute("CREATE TABLE t (a int)")
    pattern = AddColumn("t", "b", "int")
    runner.expand(Change(revision="b2", pattern=pattern, requires=("a1", "a1:2")))
    assert runner.change("b2").finished


def test_a_requirement_is_of_the_same_version_table(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """Another project on the database may have a revision of that name."""
    sql.execute("CREATE TABLE t (a int)")
    theirs = RenameColumn("t", "a", "b")
    runner.expand(Change(revision="a1", pattern=theirs, version_table="theirs"))
    pattern = AddColumn("t", "c", "int")
    runner.expand(Change(revision="b2", pattern=pattern, requires=("a1",)))
    mine = Change(
        revision="b3", pattern=pattern, requires=("a1",), version_table="theirs"
    )
    with pytest.raises(Waits, match=r"theirs/b3 .* until theirs/a1"):
        runner.expand(mine)


def test_the_plan_of_a_change_that_waits(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """It tells that it waits; where it needs what comes first, it has no plan yet."""
    sql.execute("CREATE TABLE t (a int, c int)")
    runner.expand(Change(revision="a1", pattern=RenameColumn("t", "a", "b")))
    beside = Change(
        revision="b2", pattern=RenameColumn("t", "c", "d"), requires=("a1",)
    )
    texts = [n.text for n in runner.plan(beside).notices]
    assert any(t.startswith("It waits until a1 (") for t in texts)
    later = Change(revision="b3", pattern=RenameColumn("t", "z", "y"), requires=("a1",))
    with pytest.raises(Waits, match=r'has no column "z"\): it waits until a1'):
        runner.plan(later)
    with pytest.raises(Refused, match='has no column "z"'):
        runner.plan(Change(revision="b3", pattern=later.pattern))


def test_an_overlap_that_nobody_declared_says_how(
    runner: Runner, sql: psycopg.Connection
) -> None:
    """The ledger holds it all the same, and names the way out."""
    sql.execute("CREATE TABLE t (a int)")
    runner.expand(Change(revision="a1", pattern=RenameColumn("t", "a", "b")))
    beside = Change(revision="b2", pattern=SetNotNull("t", "b"))
    with pytest.raises(Held) as caught:
        runner.expand(beside)
    told = f"{caught.value.what} Next: {caught.value.next}"
    assert told in [notice.text for notice in runner.plan(beside).notices]
    assert caught.value.next.startswith("finish or roll back a1 first: ")
    assert "its revision says so with `requires`" in caught.value.next
    sql.execute("ALTER TABLE t ADD c int")
    runner.expand(Change(revision="b2", pattern=RenameColumn("t", "c", "d")))
    with pytest.raises(Held) as caught:
        runner.expand(Change(revision="c3", pattern=RenameTable("t", "u")))
    for said in ("a1 (rename", "; b2 (rename"):
        assert said in caught.value.what
    assert caught.value.next.startswith("finish or roll back a1 and b2 first: ")


# -- Alembic -----------------------------------------------------------------


def carried(project: Quick, revision: str) -> None:
    """Bring a change that is expanded to its end."""
    for words in CARRY.values():
        options = words[:2] if words[0] == "--hold" else ()
        command, *more = words[len(options) :]
        project.migrator(*options, command, revision, *more)


def test_upgrade_stops_before_a_revision_that_waits(project: Quick) -> None:
    """What comes behind it waits as well; then the same command goes on."""
    project.run("upgrade", "head")
    project.fill()
    for name, text in (("r2", NAME), ("r3", WAITING)):
        project.write(name, text)
    behind = change("r4", "r3", "AddColumn", '"users", "age", "int"')
    project.write("r4", behind)
    done = project.run("upgrade", "head", code=255)
    assert (
        'FAILED: r3 (set the default of column "full_name" of table "users"'
        in done.stdout
    )
    assert ') waits until r2 (rename column "name" of table "users" to' in done.stdout
    assert (
        "This revision changed nothing; 1 revision that this command ran before"
        in done.stdout
    )
    assert "r2" in project.run("current").stdout
    error = project.migrator("expand", "r4", code=3).stderr
    assert "waits until r2 (rename column" in error
    assert "which is expanded, is finished" in error
    assert "`migrator backfill r2`" in error
    assert project.columns() == ["id", "name", "full_name"]
    carried(project, "r2")
    late = project.folder / "migrations" / "versions" / "r3.py"
    late.write_text(WAITING.replace('requires = "r2"\n', ""))
    assert project.migrator("lint").stdout.startswith("Nothing was found in ")
    assert project.migrator("lint", "--offline", code=1).stdout.count("ZD904") == 1
    project.run("upgrade", "head")
    assert "r4 (head)" in project.run("current").stdout
    assert "age" in project.columns()


def test_a_revision_without_a_change_may_wait(project: Quick) -> None:
    """A merge of two branches, and one of plain operations."""
    project.run("upgrade", "head")
    project.fill()
    project.write("r2", NAME)
    plain = PLAIN.replace('"r1", None', '"r3", "r2"').replace("users", "notes")
    project.write("r3", plain.replace("\n\n\n", '\nrequires = ["r2"]\n\n\n', 1))
    error = project.migrator("expand", code=0)
    assert "r2 is expanded" in error.stdout
    done = project.run("upgrade", "head", code=255)
    assert "FAILED: r3 waits until r2 (rename column" in done.stdout
    carried(project, "r2")
    project.run("upgrade", "head")


@pytest.mark.parametrize(
    ("requires", "said"),
    [
        ('"nope"', 'Revision r3 requires "nope", which is no revision of this project'),
        ('"r"', 'Revision r3 requires "r", which is no revision of this project'),
        ("5", "Revision r3 has requires = 5, which names no changes"),
    ],
)
def test_a_requirement_that_names_nothing(
    requires: str, said: str, project: Quick
) -> None:
    """It is refused before its revision, with what to write."""
    project.run("upgrade", "head")
    project.fill()
    project.write("r2", NAME)
    project.write("r3", WAITING.replace('requires = "r2"', f"requires = {requires}"))
    done = project.run("upgrade", "head", code=255)
    assert said in done.stdout


def test_after_a_squash_the_ledger_knows_what_is_required(project: Quick) -> None:
    """The revision that is gone from the files is still waited for."""
    project.run("upgrade", "head")
    project.fill()
    project.write("r2", NAME)
    project.run("upgrade", "head")
    versions = project.folder / "migrations" / "versions"
    squashed = (versions / "r1.py").read_text().replace('"name"', '"full_name"')
    (versions / "r2.py").unlink()
    (versions / "r1.py").write_text(squashed.replace('"r1", None', '"r2x", None'))
    project.write("r3", WAITING.replace('"r3", "r2"', '"r3", "r2x"'))
    project.run("stamp", "--purge", "r2x")
    done = project.run("upgrade", "head", code=255)
    assert "waits until r2 (" in done.stdout


# -- what is written ---------------------------------------------------------


def written(project: Quick, done: str) -> str:
    """Return the text of the revision that a command wrote."""
    (found,) = json.loads(done)["revisions"]
    return (project.folder / found["file"]).read_text()


def test_a_revision_is_written_with_what_it_requires(project: Quick) -> None:
    """By `migrator revision` and by autogenerate, where it touches the same."""
    project.write("r2", NAME)
    done = project.migrator("revision", "--rename", "users.full_name:label", "--json")
    text = written(project, done.stdout)
    assert (
        "# What touches the same has to be finished first.\n"
        'requires = "r2"\n\nchange = RenameColumn("users", "full_name", "label")'
    ) in text
    done = project.migrator("revision", "--rename", "users.id:key", "--json")
    assert "requires" not in written(project, done.stdout)
    done = project.migrator(
        "revision", "--rename", "users.key:no", "--rename", "users.no:nr", "--json"
    )
    first, second = json.loads(done.stdout)["revisions"]
    text = (project.folder / second["file"]).read_text()
    assert f'requires = "{first["revision"]}"' in text
    assert lint(project) == []


def test_autogenerate_writes_what_a_revision_requires(project: Quick) -> None:
    """Of revisions before, and of those that the same comparison writes."""
    text = change("r2", "r1", "SetNotNull", '"users", "mail", fill="\'\'"')
    add = change("r1b", "r1", "AddColumn", '"users", "mail", "varchar"')
    project.write("r1b", add)
    project.write("r2", text.replace('"r2", "r1"', '"r2", "r1b"'))
    models = project.folder / "models.py"
    models.write_text(
        models.read_text()
        .replace("full_name", "name")
        .replace("import DeclarativeBase", "import DeclarativeBase as Declarative")
        .replace("(DeclarativeBase)", "(Declarative)")
        + "    mail: Mapped[str] = mapped_column(unique=True)\n"
    )
    project.run("upgrade", "head")
    done = project.migrator("revision", "--autogenerate", "--json")
    text = written(project, done.stdout)
    assert 'requires = "r2"\n' in text
    assert 'AddUnique("users", ["mail"]' in text


# -- lint --------------------------------------------------------------------


def lint(project: Quick, *words: str, code: int = 0) -> list[dict[str, Any]]:
    """Return what lint finds in what revisions require."""
    done = project.migrator("lint", "--offline", "--json", *words, code=code)
    found = json.loads(done.stdout)["findings"]
    return [f for f in found if f["code"] in ("ZD904", "ZD905")]


def test_lint_finds_what_does_not_wait(project: Quick) -> None:
    """With the line to paste; a comment with a reason lets it pass."""
    project.write("r2", NAME)
    open_ = change("r3", "r2", "SetNotNull", FILLED)
    project.write("r3", open_)
    (found,) = lint(project, code=1)
    assert (found["code"], found["revision"], found["severity"]) == (
        "ZD904",
        "r3",
        "error",
    )
    assert found["what"] == (
        'Make column "full_name" of table "users" NOT NULL touches "full_name" of'
        ' "users", as r2 (rename column "name" of table "users" to "full_name") does,'
        " and does not wait for it."
    )
    assert found["safe"]["code"] == ['requires = "r2"']
    line = (project.folder / found["file"]).read_text().splitlines()[found["line"] - 1]
    assert line == f"change = SetNotNull({FILLED})"
    assert lint(project, "--fix") == []
    fixed = 'revision, down_revision = "r3", "r2"\nrequires = "r2"\nchange = '
    assert fixed in (project.folder / found["file"]).read_text()
    # A change that touches what two before it do is told once; of two changes each
    # has the line, and the file gets it once.
    project.write("r3", change("r3", "r2", "RenameColumn", '"users", "mail", "post"'))
    key = change("r4", "r3", "AddUnique", '"users", ["full_name", "post"], "key"')
    project.write("r4", key)
    (one,) = lint(project, code=1)
    line = 'requires = ("r3", "r2")'
    assert one["safe"]["code"] == [line]
    assert '"post" of "users", as r3 (' in one["what"]
    assert '; "full_name" of "users", as r2 (' in one["what"]
    assert one["what"].endswith(" does, and does not wait for any of them.")
    key = key.replace(', "post"]', "]").replace(
        "AddUnique\n", "AddUnique, DropNotNull\n"
    )
    key = key.replace("\nchange", "\nother = DropNotNull('users', 'post')\nchange")
    project.write("r4", key.replace("(change)", "(change); zd.upgrade(other)", 1))
    two = lint(project, code=1)
    assert [f["safe"]["code"] for f in two] == [[line]] * 2
    assert lint(project, "--fix") == []
    file = project.folder / two[0]["file"]
    assert file.read_text().count(line) == 1
    file.unlink()
    project.write("r3", open_.replace("\nchange", '\nrequires = "r1"\nchange'))
    codes = {f["code"]: f for f in lint(project, code=1)}
    assert set(codes) == {"ZD904", "ZD905"}
    assert codes["ZD905"]["what"] == (
        'It requires "r1", which is no change of a revision before it.'
    )
    allowed = "zd.upgrade(change)  # migrator: allow ZD904 it is free here"
    project.write("r3", open_.replace("zd.upgrade(change)", allowed))
    assert lint(project)[0]["allowed"] == "it is free here"


def test_lint_of_branches_and_of_one_revision(project: Quick) -> None:
    """What to write is told where it belongs: into the branch, the merge, another."""
    project.write("r2", NAME)
    branch = change("s2", "r1", "SetDefault", '"users", "name", "\'x\'"')
    project.write("s2", branch)

    def findings() -> list[tuple[str, list[str]]]:
        found = lint(project, code=1)
        assert all(f["line"] and f["code"] == "ZD904" for f in found)
        return [(f["revision"], f["safe"]["code"]) for f in found]

    (only,) = findings()
    assert only in [
        (a, [f'depends_on = "{b}"\nrequires = "{b}"'])
        for a, b in (("s2", "r2"), ("r2", "s2"))
    ]
    merge = (
        'revision, down_revision = "m3", ("r2", "s2")\n\n\n'
        "def upgrade():\n    pass\n\n\ndef downgrade():\n    pass\n"
    )
    project.write("m3", merge)
    ((revision, (line,)),) = findings()
    assert revision == "m3"
    assert line in ('requires = ("r2", "s2")', 'requires = ("s2", "r2")')
    project.write("m3", merge.replace("\n\n\n", f"\n{line}\n\n\n", 1))
    assert lint(project) == []
    two = change("r4", "m3", "SetNotNull", '"users", "age", fill="0"')
    two = two.replace(
        "change = SetNotNull",
        'first = RenameColumn("users", "years", "age")\nchange = SetNotNull',
    ).replace("import SetNotNull", "import RenameColumn, SetNotNull")
    project.write("r4", two.replace("    zd.", "    zd.upgrade(first)\n    zd.", 1))
    assert findings() == [("r4", [])]


# -- deployments -------------------------------------------------------------


def test_two_releases_are_needed(
    releases: tuple[Release, ...], sql: psycopg.Connection
) -> None:
    """The one that needs the first change alone has to be deployed before."""
    _, v2, v3 = releases
    sql.close()
    found = told(v3, "pre-deploy")
    assert found["r2"][:2] == ("verified", "")
    state, reason, road = found["r3"]
    assert state is None
    assert reason == (
        'it waits until r2 (rename column "name" of table "users" to "full_name"),'
        " which is verified, is finished: a release that has r2 and not r3 has to be"
        " deployed before this one"
    )
    assert road == (
        "deploy a release that has r2 and not r3; the post-deploy of the release"
        " after it retires r2, its own with --retire now; after the hold, `migrator"
        " contract r2 --drop`"
    )
    assert found["r4"][1] == (
        "it is not expanded yet; r3, which waits, may come before it"
    )
    assert told(v3, "gate") == found
    # It was not let in, so that it is not in the way of the one before.
    v2.hook("pre-deploy")
    v2.hook("post-deploy")
    state, reason, road = told(v3, "pre-deploy")["r3"]
    assert reason.endswith("is finished; v2 brought it in")
    assert road == (
        "`migrator hook post-deploy --release v2 --retire now`, after which the"
        " release before v2 cannot come back; or deploy a release that has r2 and not"
        " r3, whose post-deploy retires it; after the hold, `migrator contract r2"
        " --drop`"
    )
    # As it says, also from the new release's own files.
    v3.run("hook", "post-deploy", "--release", "v2", "--retire", "now")
    state, reason, road = told(v3, "pre-deploy")["r3"]
    assert "which is retired" in reason
    assert road.startswith("from 20")
    assert road.endswith(" UTC on, `migrator contract r2 --drop`")
    v3.run("--hold", "0s", "contract", "r2", "--drop", "--yes")
    found_now = v3.hook("pre-deploy")
    assert {c["change"]: c["state"] for c in found_now["changes"]} == {
        "r2": "dropped",
        "r3": "verified",
        "r4": "verified",
    }
    v3.hook("post-deploy")
    text = v3.run("hook", "gate", "--release", "v3")
    assert text.splitlines()[-1] == "v3 may go out."


def test_a_plain_revision_that_waits_keeps_a_release_out(
    releases: tuple[Release, ...], sql: psycopg.Connection
) -> None:
    """The hook tells of it as of a change."""
    v1, v2, _ = releases
    sql.close()
    plain = PLAIN.replace('"r1", None', '"r3", "r2"').replace("users", "notes")
    plain = plain.replace("\n\n\n", '\nrequires = "r2"\n\n\n', 1)
    v3 = Release.make("plain", v1.folder.parent, v1.url, PLAIN, NAME, plain)
    for words in ("pre-deploy", "gate"):
        found = v3.hook(words, code=3)
        assert "The database is at revision r2" in found["reasons"][0]
        wanted = "r3 waits until r2 (rename column"
        assert found["reasons"][1].startswith(wanted)
        assert len(found["reasons"]) == 2
    v2.hook("pre-deploy")


def test_an_empty_database_waits_for_nothing(database: str, tmp_path: Path) -> None:
    """Each change is finished before the next one begins."""
    v3 = Release.make("v3", tmp_path, database, PLAIN, NAME, WAITING, BEHIND)
    found = v3.hook("pre-deploy")
    assert {c["state"] for c in found["changes"]} == {"dropped", "verified"}
