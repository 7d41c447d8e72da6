"""What lint prints: text, JSON, SARIF, annotations; rules; squawk."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from migrator.cli import findings, sarif
from migrator.errors import UsageError
from migrator.lint import OWN, RULES, Finding, Linter, Placed, Severity, Squawk
from tests.lint.revisions import code, lint, loaded, project

TOP = Path(__file__).parent.parent.parent
PAGE = TOP / "docs" / "lint.md"

#: One rule, so that what others find changes nothing here.
ZD301 = [rule for rule in RULES if rule.code == "ZD301"]
INDEX = 'op.create_index("i", "t", ["a"])'
ALLOWED = f"{INDEX}  # migrator: allow ZD301 t is tiny"


@pytest.fixture
def found(tmp_path: Path) -> list[Placed]:
    """Give a finding, and an allowed one."""
    files = project(tmp_path, code("r0", INDEX), code("r1", ALLOWED, before="r0"))
    return [p for f in files for p in Linter(rules=ZD301).lint(f.stem, loaded(f))]


# -- SARIF

# What section 3 of the standard demands of the objects that are written here: for
# each key its type, with the keys that have to be there marked.
RESULT = {
    "ruleId!": str,
    "ruleIndex!": int,
    "level!": ("none", "note", "warning", "error"),
    "message!": {"text!": str},
    "partialFingerprints": dict,
    "locations": [
        {
            "physicalLocation": {
                "artifactLocation!": {"uri!": str},
                "region!": {"startLine!": int},
            }
        }
    ],
    "suppressions": [{"kind!": ("inSource", "external"), "justification": str}],
}
DESCRIPTOR = {
    "id!": str,
    "name": str,
    "shortDescription": {"text!": str},
    "help": {"text!": str, "markdown": str},
    "defaultConfiguration": {"level": ("none", "note", "warning", "error")},
    "properties": dict,
}
LOG = {
    "$schema": str,
    "version!": ("2.1.0",),
    "runs!": [
        {
            "tool!": {"driver!": {"name!": str, "version": str, "rules": [DESCRIPTOR]}},
            "columnKind": ("utf16CodeUnits", "unicodeCodePoints"),
            "results": [RESULT],
        }
    ],
}


def holds(value: Any, form: Any, path: str = "log") -> None:
    """Check a value against a form: a type, some words, a list or an object."""
    match form:
        case type():
            assert isinstance(value, form), path
        case tuple():
            assert value in form, path
        case list():
            assert isinstance(value, list), path
            for number, item in enumerate(value):
                holds(item, form[0], f"{path}[{number}]")
        case _:
            assert isinstance(value, dict), path
            known = {key.rstrip("!"): inner for key, inner in form.items()}
            assert value.keys() <= known.keys(), path
            assert {k[:-1] for k in form if k.endswith("!")} <= value.keys(), path
            for key, item in value.items():
                holds(item, known[key], f"{path}.{key}")


def test_sarif_is_what_the_standard_demands(
    found: list[Placed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results point to rules and to lines; what is allowed is suppressed, and why."""
    monkeypatch.chdir(tmp_path)
    odd = Finding(code="squawk:x", severity=Severity.WARNING, what="w", why="")
    place = Placed(finding=odd, revision="r", file=Path("a b.sql"), line=0)
    log = sarif.log([*found, place], {})
    holds(log, LOG)
    run = log["runs"][0]
    ids = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert len(set(ids)) == len(ids)
    for result in run["results"]:
        assert ids[result["ruleIndex"]] == result["ruleId"]
        region = result["locations"][0]["physicalLocation"]["region"]
        assert region["startLine"] >= 1
    uris = [
        r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        for r in run["results"]
    ]
    assert uris == ["m/versions/r0.py", "m/versions/r1.py", "a%20b.sql"]
    assert [r.get("suppressions") for r in run["results"]] == [
        None,
        [{"kind": "inSource", "justification": "t is tiny"}],
        None,
    ]
    first = run["tool"]["driver"]["rules"][run["results"][0]["ruleIndex"]]
    assert "CREATE INDEX i ON t (a);" in first["help"]["text"]


def test_what_the_project_allows_is_suppressed_from_outside(tmp_path: Path) -> None:
    """A code of pyproject.toml is no comment in the source."""
    (file,) = project(tmp_path, code("r0", INDEX))
    allow = {"ZD301": "small tables"}
    log = sarif.log(Linter(rules=ZD301, allow=allow).lint("r0", loaded(file)), allow)
    (result,) = log["runs"][0]["results"]
    assert result["suppressions"] == [
        {"kind": "external", "justification": "small tables"}
    ]


def test_results_keep_their_fingerprint_when_lines_move(tmp_path: Path) -> None:
    """A line above changes nothing in what a result is known by."""
    (file,) = project(tmp_path, code("r0", INDEX))
    marks: list[Any] = []
    for _ in range(2):
        found = Linter(rules=ZD301).lint("r0", loaded(file))
        (result,) = sarif.log(found, {})["runs"][0]["results"]
        marks.append(result["partialFingerprints"])
        file.write_text("\n" + file.read_text())
    assert marks[0] == marks[1]


# -- annotations


def test_annotations_keep_to_one_line(
    capsys: pytest.CaptureFixture[str], found: list[Placed]
) -> None:
    """What would end a command or a property is escaped; no allowed one is shown."""
    odd = Finding(
        code="squawk:x", severity=Severity.NOTE, what="50 %\r\n::error::", why=""
    )
    place = Placed(finding=odd, revision="r,1", file=Path("a,b:c.sql"), line=3)
    findings.as_annotations([*found, place])
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("::error file=")
    assert ",line=12,title=ZD301 in revision r0::CREATE INDEX i on t" in first
    assert '%0Achange = CreateIndex("t", ["a"], "i")' in first
    assert second == (
        "::notice file=a%2Cb%3Ac.sql,line=3,title=squawk%3Ax in revision r%2C1"
        "::50 %25%0D%0A::error::"
    )


# -- the command


def test_the_command_prints_every_format(tmp_path: Path) -> None:
    """Each format is what it says, and all end with 1 where there are errors."""
    project(tmp_path, code("r0", INDEX), code("r1", ALLOWED, before="r0"))
    marks = {"text": "ZD301", "json": "{", "sarif": "{", "github": "::error "}
    for form, mark in marks.items():
        done = lint(tmp_path, "--offline", "--format", form)
        assert done.returncode == 1, done.stderr
        assert mark in done.stdout
    short = json.loads(lint(tmp_path, "--offline", "--json").stdout)
    index = [f["allowed"] for f in short["findings"] if f["code"] == "ZD301"]
    assert index == [None, "t is tiny"]
    assert lint(tmp_path, "--offline", "r1").returncode == 0


def test_files_of_sql_need_no_project(tmp_path: Path) -> None:
    """A file is linted by itself, and is told where it is not there."""
    (tmp_path / "V1.sql").write_text("SELECT 1;\n\nCREATE INDEX i ON t (a);\n")
    done = lint(tmp_path, "V1.sql")
    assert done.returncode == 1
    assert "V1.sql:3  error  ZD301\n" in done.stdout
    assert "how large tables are is not known" in done.stderr
    gone = lint(tmp_path, "--offline", "V2.sql")
    assert (gone.returncode, "There is no V2.sql." in gone.stderr) == (2, True)


def test_rules_are_listed_and_explained(tmp_path: Path) -> None:
    """The list has all of them; one is told with its example; another is none."""
    listed = lint(tmp_path, "--rules").stdout
    assert all(f"\n{code}" in listed for code in [*OWN, *(r.code for r in RULES)])
    told = lint(tmp_path, "--explain", "zd301").stdout
    assert "\nBad\n    CREATE INDEX i ON t (a);\n" in told
    assert "\nGood\n    CREATE INDEX CONCURRENTLY i ON t (a);\n" in told
    data = json.loads(lint(tmp_path, "--rules", "--json").stdout)
    assert [r["code"] for r in data["rules"]] == [r.code for r in RULES]
    assert lint(tmp_path, "--explain", "ZD999").returncode == 2


def test_the_page_lists_every_code() -> None:
    """docs/lint.md has a row for each rule, as `migrator lint --rules` has it."""
    rows = [
        f"| {r.code} | {r.title} | {r.lock.value if r.lock.rank else ''} |"
        for r in RULES
    ] + [f"| {code} | {title} | |" for code, title in OWN.items()]
    wanted = "\n".join(row.replace("|  |", "| |") for row in rows)
    assert wanted in PAGE.read_text(), f"the table of docs/lint.md is\n{wanted}"


# -- squawk


@pytest.fixture
def squawk() -> Squawk:
    """Give the program, where it is installed."""
    try:
        return Squawk.find()
    except UsageError:
        if os.environ.get("CI"):
            raise
        pytest.skip("no squawk")


def test_squawk_adds_what_ours_do_not_find(tmp_path: Path, squawk: Squawk) -> None:
    """It looks at text alone, by line; where ours found something, it is silent."""
    (file,) = project(
        tmp_path,
        code(
            "r0",
            'op.execute("""SELECT 1;\n'
            '    ALTER TABLE t ADD COLUMN a serial""")\n'
            '    op.execute("ALTER TABLE t ADD COLUMN b int")\n'
            "    # migrator: allow squawk:prefer-bigint-over-int it is small\n"
            '    op.execute("ALTER TABLE t ADD COLUMN c int")\n'
            '    op.execute("CREATE INDEX i ON t (a)")\n'
            '    op.add_column("t", sa.Column("d", sa.Integer))\n'
            '    op.execute("UPDATE u SET a = :x WHERE b = %(y)s")\n'
            '    op.execute("no SQL at all")\n',
        ),
    )
    linter = Linter(rules=ZD301, squawk=squawk, server_version=150000)
    found = linter.lint("r0", loaded(file))
    theirs = [p for p in found if p.finding.code.startswith("squawk:")]
    assert {p.finding.severity for p in theirs} <= {Severity.WARNING}
    assert ("squawk:prefer-bigint-over-int", 14, "") in [
        (p.finding.code, p.line, p.allowed) for p in theirs
    ]
    assert ("squawk:prefer-bigint-over-int", 16, "it is small") in [
        (p.finding.code, p.line, p.allowed) for p in theirs
    ]
    assert {p.line for p in theirs} <= {12, 14, 16, 19}
    assert "squawk" not in str(
        [p.finding.code for p in Linter(guarded=True).lint("r0", loaded(file))]
    )


def test_squawk_that_is_missing_or_another_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the program, and with one that only bears its name, the way is told."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="squawk is not installed") as error:
        Squawk.find()
    assert "migrator-pg[lint]" in str(error.value.next)
    other = tmp_path / "squawk"
    other.write_text("#!/bin/sh\necho squawk 1.1.0\n")
    other.chmod(0o755)
    with pytest.raises(UsageError, match=r"not squawk 2\.70 or later: squawk 1\.1\.0"):
        Squawk.find()
