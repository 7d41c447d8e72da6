"""A pattern that is edited while its change is in flight: every command says so."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from projects import NAME, change
from quick import Quick
from test_midflight import CARRY, project, started

from migrator.change import Change
from migrator.edits import compared
from migrator.ledger.store import ChangeRow
from migrator.names import TableName
from migrator.pattern import Pattern
from migrator.patterns import AddColumn, CreateIndex, RenameColumn, SetNotNull
from migrator.plan import State

__all__ = ["project"]

EDITED = NAME.replace("full_name", "whole_name")
RUNS = 'the ledger runs what was recorded (rename column "name" of table "users" to'
SAYS = 'the file now says something else (rename column "name" of table "users" to'


def edited(project: Quick, *phases: str) -> Quick:
    """Bring r2 through phases, and edit it."""
    project.write("r2", NAME)
    started(project)
    project.migrator("expand")
    for phase in phases:
        project.migrator(*CARRY[phase])
    project.write("r2", EDITED)
    return project


def state(project: Quick) -> str:
    """Return where r2 stands."""
    (found,) = json.loads(project.migrator("status", "--json").stdout)["changes"]
    return str(found["state"])


@pytest.mark.parametrize(
    ("phases", "words"),
    [
        ((), ("expand", "r2")),
        ((), ("plan", "r2")),
        ((), ("backfill",)),
        (("verified",), ("verify",)),
        (("verified",), ("contract", "--old-release-gone", "test")),
        (("verified", "retired"), ("--hold", "0", "contract", "--drop", "--yes")),
    ],
    ids=lambda value: "-".join(value),
)
def test_a_command_that_would_carry_it_on_refuses(
    project: Quick, phases: tuple[str, ...], words: tuple[str, ...]
) -> None:
    """It says what runs, what the file says and the way out, and changes nothing."""
    edited(project, *phases)
    before = state(project)
    error = project.migrator(*words, code=1).stderr
    assert f"The pattern of r2 was edited while it is {before}: {RUNS}" in error
    assert SAYS in error
    assert "`migrator reconcile r2` shows both" in error
    assert "`migrator rollback r2 --to planned`" in error
    assert error.count("was edited") == 1
    assert state(project) == before
    project.write("r2", NAME)
    project.migrator(*words)


def test_commands_that_show_it_say_so(project: Quick) -> None:
    """What only looks, and what is about other changes, goes on beside the note."""
    edited(project, "verified")
    told = project.migrator("status")
    assert "  Edited: its pattern was edited while it is verified: the ledger runs" in (
        told.stdout
    )
    assert "  Next: put the file back as it was (`migrator reconcile r2`" in told.stdout
    # The table shows what runs.
    assert 'to "full_name"  verified' in told.stdout
    (found,) = json.loads(project.migrator("status", "--json").stdout)["changes"]
    assert found["edited"] == {
        "ledger": 'rename column "name" of table "users" to "full_name"',
        "file": 'rename column "name" of table "users" to "whole_name"',
    }
    for words in (("plan",), ("expand",)):
        done = project.migrator(*words)
        assert RUNS in done.stderr
        assert done.stderr.count("was edited") == 1
    done = project.run("upgrade", "head")
    assert done.stderr.count("was edited") == 1
    assert SAYS in done.stderr
    project.write("r3", change("r3", "r2", "AddColumn", '"users", "age", "int"'))
    # The note comes once, also where the command runs Alembic's own.
    assert project.migrator("expand").stderr.count("was edited") == 1
    project.write("r4", change("r4", "r3", "AddColumn", '"users", "size", "int"'))
    assert project.run("upgrade", "head").stderr.count("was edited") == 1
    project.write("r2", NAME)
    done = project.migrator("status")
    assert "Edited" not in done.stdout
    assert "was edited" not in project.run("upgrade", "head").stderr


def test_rollback_is_the_way_out(project: Quick) -> None:
    """What the ledger ran is taken back; then the file's pattern begins."""
    edited(project, "verified")
    done = project.migrator("rollback", "--to", "planned")
    assert RUNS in done.stderr
    assert "What the ledger ran is taken back." in done.stderr
    assert project.columns() == ["id", "name"]
    project.migrator("expand", "r2")
    assert project.columns() == ["id", "name", "whole_name"]
    assert "Edited" not in project.migrator("status").stdout


def test_a_deployment_is_held_before_anything_runs(project: Quick) -> None:
    """Neither the change nor what comes after it is touched by its hooks."""
    project.migrator("hook", "pre-deploy", "--release", "v0")
    edited(project)
    project.write("r3", change("r3", "r2", "AddColumn", '"users", "age", "int"'))
    hook = ("hook", "pre-deploy", "--release", "v1")
    found = json.loads(project.migrator(*hook, "--json", code=3).stdout)
    verdict: dict[str, Any] = found["changes"][0]
    assert RUNS in verdict["reason"]
    assert "`migrator rollback r2 --to planned`" in verdict["next"]
    text = project.migrator(*hook, code=3).stdout
    assert text.endswith("v1 may not be let in; nothing was run.\n")
    assert state(project) == "expanded"
    assert project.columns() == ["id", "name", "full_name"]
    project.write("r2", NAME)
    project.migrator(*hook)
    project.write("r2", EDITED)
    after = ("hook", "post-deploy", "--release", "v1", "--retire", "now", "--json")
    found = json.loads(project.migrator(*after, code=3).stdout)
    assert RUNS in found["changes"][0]["reason"]
    assert found["changes"][0]["state"] == "verified"


def test_an_expand_that_was_cut_off_is_held_too(
    project: Quick, sql: psycopg.Connection
) -> None:
    """Its revision is not applied yet, and its first step stands."""
    edited(project)
    project.run("stamp", "r1")
    sql.execute("UPDATE migrator.changes SET state = 'planned'")
    found = json.loads(project.migrator("hook", "pre-deploy", "--json", code=3).stdout)
    assert RUNS in found["changes"][0]["reason"]
    assert RUNS in project.run("upgrade", "head", code=255).stdout


def test_lint_finds_it_at_its_line(project: Quick) -> None:
    """Also without its revision being asked for, since that is applied."""
    edited(project)
    found = json.loads(project.migrator("lint", "--json", code=1).stdout)["findings"]
    assert [(f["code"], f["severity"]) for f in found] == [("ZD906", "error")]
    lines = (project.folder / found[0]["file"]).read_text().splitlines()
    assert lines[found[0]["line"] - 1].startswith("change = RenameColumn(")
    assert project.migrator("lint", "--offline", "r2").returncode == 0
    assert "ZD906" not in project.migrator("lint", "r1").stdout
    assert "ZD906" in project.migrator("lint", "r2", code=1).stdout
    project.write("r2", NAME)
    assert project.migrator("lint").stdout == "Nothing was found in 0 revisions.\n"


def test_reconcile_shows_which_is_which(project: Quick) -> None:
    """The file's pattern and the ledger's, each as code, also of what is finished."""
    edited(project, "verified", "retired")
    text = project.migrator("reconcile", "r2").stdout
    assert (
        "  In the ledger, which goes by it (retired):\n"
        '      change = RenameColumn("users", "name", "full_name")\n'
        "  In the file:\n"
        '      change = RenameColumn("users", "name", "whole_name")\n'
    ) in text
    assert "once the new release is gone" in " ".join(text.split())
    project.write("r2", NAME)
    project.migrator(*CARRY["dropped"])
    project.write("r2", EDITED)
    text = project.migrator("reconcile", "r2").stdout
    assert "dropped, another pattern" in text
    assert "write what is wanted now as a new change" in " ".join(text.split())
    (found,) = json.loads(project.migrator("reconcile", "--json").stdout)["changes"]
    assert found["ledger_title"].endswith('to "full_name"')
    assert found["title"].endswith('to "whole_name"')
    assert found["edited"]["file"] == found["title"]
    # What is over holds nothing.
    project.migrator("status")
    project.migrator("hook", "gate")


def test_a_file_that_cannot_be_read_keeps_nobody_from_going_back(
    project: Quick,
) -> None:
    """Whether it was edited is not known, and that is said."""
    edited(project)
    project.write("r2", "1 +")
    for words in (("status",), ("rollback",)):
        done = project.migrator(*words)
        assert "r2.py, line 1" in done.stderr
        assert "was edited since it began is not known" in done.stderr
    assert project.columns() == ["id", "name"]


def test_nothing_to_plan(project: Quick) -> None:
    """No change at all is told from one that has begun."""
    project.run("upgrade", "r1")
    assert "No change has begun yet." in project.migrator("status").stdout
    text = project.migrator("plan").stdout
    assert text.startswith("Nothing to plan: the revisions hold no changes. Next: ")
    project.write("r2", NAME)
    project.migrator("expand")
    text = project.migrator("plan").stdout
    assert text.startswith("Nothing to plan: every change of the revisions has begun")


def recorded(pattern: Pattern) -> ChangeRow:
    """Return what the ledger of an earlier release of the toolkit has of a change."""
    return ChangeRow(
        id="r2",
        tag="",
        table=TableName("public", "t"),
        footprints=(),
        title=pattern.title,
        pattern=type(pattern).__name__,
        parameters=json.loads(json.dumps(pattern.parameters())),
        digest="of other parameters",
        state=State.EXPANDED,
        state_at=datetime.now(UTC),
        finished=False,
        begun=True,
    )


@pytest.mark.parametrize(
    "pattern",
    [
        AddColumn("t", "a", "int"),
        CreateIndex("t", "ix", ["a", "b"], include=["c"]),
        RenameColumn("t", "a", "b", indexes={"x": "y"}),
    ],
    ids=repr,
)
def test_a_parameter_that_came_later_is_no_edit(pattern: Pattern) -> None:
    """A release of the toolkit that knows more does not hold what is in flight."""
    row = recorded(pattern)
    known = {k: v for k, v in row.parameters.items() if k not in ("assured", "schema")}
    change = Change(revision="r2", pattern=pattern)
    assert compared(change, replace(row, parameters=known)) is None


def test_what_differs_is_told_where_titles_do_not() -> None:
    """A parameter with both values, or the name of the pattern."""
    row = recorded(SetNotNull("t", "a", fill="'x'"))
    change = Change(revision="r2", pattern=SetNotNull("t", "a", fill="'y'"))
    edit = compared(change, row)
    assert edit is not None
    assert edit.then == f"""{row.title}, fill="'x'\""""
    assert edit.now == """fill="'y'\""""
    edit = compared(change, replace(row, pattern="Former"))
    assert edit is not None
    assert (edit.then, edit.now) == (f"{row.title}, Former", "SetNotNull")
