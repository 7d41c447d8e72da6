"""The catalogue as users read it: pages, README, examples and `migrator patterns`."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

import pytest
from test_plan import PATTERNS, facts_of

import migrator.patterns
from migrator.cli import output
from migrator.cli.patterns import Entry
from migrator.pattern import Pattern
from migrator.patterns import (
    CATALOGUE,
    AddExclusion,
    Custom,
    RefreshMaterializedView,
)
from migrator.plan import Lock, Phase

TOP = Path(__file__).parent.parent
MIGRATOR = Path(sys.executable).parent / "migrator"

each = pytest.mark.parametrize("pattern", CATALOGUE, ids=lambda p: p.__name__)


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command where there is no project and no database."""
    return subprocess.run(
        [MIGRATOR, "patterns", *words],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )


@each
def test_a_pattern_has_a_page_with_a_bad_and_a_good_form(
    pattern: type[Pattern],
) -> None:
    """The page shows the plain SQL, the example of the docstring, and what locks."""
    entry = Entry.of(pattern)
    assert entry.bad.startswith("```sql\n")
    assert entry.good.startswith(f"```python\n{entry.example}\n```")
    for text in (entry.bad, entry.good):
        assert text.rpartition("```")[2].strip()


def test_there_is_no_page_without_a_pattern() -> None:
    """A pattern that goes takes its page along."""
    stems = {p.__module__.rpartition(".")[2] for p in CATALOGUE}
    assert {p.stem for p in (TOP / "docs" / "patterns").iterdir()} == stems


@each
def test_a_pattern_has_a_row_in_the_readme(pattern: type[Pattern]) -> None:
    """A newcomer finds every pattern in the table."""
    assert f"\n| `{pattern.__name__}(" in (TOP / "README.md").read_text()


@each
def test_the_example_of_a_pattern_can_be_pasted(pattern: type[Pattern]) -> None:
    """It makes an instance, under the name that the README's revision uses."""
    found: dict[str, object] = {}
    exec(Entry.of(pattern).example, dict(vars(migrator.patterns)), found)
    assert isinstance(found["change"], pattern)


@each
def test_every_parameter_is_explained(pattern: type[Pattern]) -> None:
    """The docstring of the class tells each, and none that there is not."""
    for parameter in Entry.of(pattern).parameters:
        assert parameter.about, parameter.name
    told = (pattern.__doc__ or "").partition("Args:")[2].count("\n        ")
    assert told >= len(Entry.of(pattern).parameters)


@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
def test_the_table_of_a_file_says_what_its_steps_do(pattern: Pattern) -> None:
    """No step takes a phase, or a lock, that the table on top does not tell."""
    entry = Entry.of(type(pattern))
    for phase in Phase:
        locks = [line.strength for line in entry.lines if line.phase is phase]
        strongest = max(locks, key=lambda lock: lock.rank, default=Lock.NONE)
        for step in pattern.steps(phase, facts_of(pattern)):
            assert phase in entry.phases
            assert step.work.lock.rank <= strongest.rank
            assert not step.loses or entry.reversible != "always"


@each
def test_a_lock_that_keeps_writers_waiting_is_brief(pattern: type[Pattern]) -> None:
    """The list says so of each but a few, which are refused where they would not be."""
    line = Entry.of(pattern).strongest
    blocks = line.strength.rank >= Lock.SHARE_ROW_EXCLUSIVE.rank
    # A small table alone; a view that nobody writes; SQL of a person.
    lasting = (AddExclusion, RefreshMaterializedView, Custom)
    assert line.brief or not blocks or pattern in lasting


def test_list(tmp_path: Path) -> None:
    """One row for each, without a project or a database."""
    done = run(cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.splitlines()
    assert head.split("  ")[0] == "pattern"
    assert [row.split()[0] for row in rows] == [p.__name__ for p in CATALOGUE]
    (row,) = [row for row in rows if row.startswith("RenameColumn ")]
    assert row.split()[-4:] == ["EXCLUSIVE,", "briefly", "until", "drop"]
    assert "Rename a column while both names are in use." in row
    data = json.loads(run("--json", cwd=tmp_path).stdout)
    assert data["schema"] == 1
    (found,) = [p for p in data["patterns"] if p["name"] == "CreateIndex"]
    assert found == {
        "name": "CreateIndex",
        "about": "Build an index without blocking reads or writes.",
        "phases": ["expand", "retire"],
        "strongest_lock": "SHARE UPDATE EXCLUSIVE",
        "brief": False,
        "partitioned": {"strongest_lock": "ACCESS EXCLUSIVE", "brief": True},
        "reversible": "always",
    }
    readme = (TOP / "README.md").read_text()
    assert [key for key in found if f"`{key}`" not in readme] == []
    told = "; partitioned: ACCESS EXCLUSIVE, briefly"
    assert [row.split()[0] for row in rows if told in row] == [
        "CreateIndex",
        "DropIndex",
        "ReplaceIndex",
    ]
    (other,) = [p for p in data["patterns"] if p["name"] == "AddUnique"]
    assert other["partitioned"] is None


@pytest.mark.parametrize("name", ["SetNotNull", "set_not_null", "set-not-null"])
def test_one(name: str, tmp_path: Path) -> None:
    """Its parameters, an example to paste, and the plain SQL beside it."""
    done = run(name, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "SetNotNull: Make an existing column NOT NULL.\nWay back: always.\n"
    )
    for wanted in (
        'change = SetNotNull("users", "email", fill="\'unknown\'")',
        "ALTER TABLE users ALTER COLUMN email SET NOT NULL;",
        "from migrator.patterns import SetNotNull",
    ):
        assert wanted in done.stdout
    data = json.loads(run(name, "--json", cwd=tmp_path).stdout)
    assert [(p["name"], p["type"], p["default"]) for p in data["parameters"]] == [
        ("table", "str", None),
        ("column", "str", None),
        ("fill", "str | None", "None"),
        ("schema", "str | None", "None"),
        ("assured", "str", "''"),
    ]
    assert data["parameters"][0]["about"] == "the table's name, without its schema."
    assert data["steps"][-1] == {
        "phase": "retire",
        "statement": "SET NOT NULL, drop check, trigger",
        "lock": "ACCESS EXCLUSIVE, no scan (12+)",
    }


def shown(name: str, columns: int, cwd: Path, *, code: int = 0) -> list[str]:
    """Return the lines that a terminal shows of a pattern, or of all."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    with subprocess.Popen(
        [MIGRATOR, "patterns", *name.split()],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "NO_COLOR": "1", "TERM": "dumb"},
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        text = b""
        # What Linux says once nobody has the other end any more.
        with suppress(OSError):
            while part := os.read(ours, 4096):
                text += part
        os.close(ours)
    assert process.returncode == code, text
    plain = re.sub(r"\x1b\[\d*m", "", text.decode())
    return plain.replace("\r\n", "\n").splitlines()


def test_a_phase_stands_once(tmp_path: Path) -> None:
    """Its lines follow one another; what took two lines in the source is one step."""
    head, *rows = shown("AddForeignKey", 200, tmp_path)[3:9]
    assert head.split() == ["phase", "statement", "lock"]
    assert [row[:8].strip() for row in rows] == ["expand", "verify", "retire", "", ""]
    assert rows[0].split("  ", 1)[1].lstrip() == (
        "CREATE INDEX CONCURRENTLY, where the columns have none"
        "  SHARE UPDATE EXCLUSIVE, two scans"
    )
    assert rows[2].endswith(
        "SHARE ROW EXCLUSIVE, no scan; SHARE ROW EXCLUSIVE on the referenced one"
    )


@pytest.mark.parametrize("columns", [80, 120])
def test_tables_fit_a_terminal(columns: int, tmp_path: Path) -> None:
    """What is too wide goes on below, in its own column."""
    for name in ("", "AddForeignKey", "ExtractTable", "ChangeColumnType"):
        lines = shown(name, columns, tmp_path)
        tables = lines[: lines.index("Example")] if name else lines
        assert max(map(len, tables)) <= columns
    text = shown("RenameColumn", 80, tmp_path)
    start = next(n for n, line in enumerate(text) if line.startswith("indexes "))
    assert text[start].split()[:2] == ["indexes", "Mapping[str,"]
    assert text[start + 1][:9].strip() == ""


def test_words_fit_a_terminal(tmp_path: Path) -> None:
    """What is said goes on below; for a program, paragraphs are lines."""
    lines = shown("nonsense", 60, tmp_path, code=2)
    assert 50 < max(map(len, lines)) <= 60
    assert " ".join(lines).split() == run("nonsense", cwd=tmp_path).stderr.split()


def test_what_is_copied_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands, SQL and names in quotes are not cut, nor is code behind an indent."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    text = 'Next: run `migrator contract 3f2a1b --drop` on "an odd name of 30 letters".'
    code = "    op.execute('SELECT 1 FROM a_table_with_a_long_name')"
    assert output.prose(f"{text}\n{code}", "  ", begun=4).split("\n") == [
        "Next: run",
        "  `migrator contract 3f2a1b --drop` on",
        '  "an odd name of 30 letters".',
        code,
    ]


def test_message_about_a_pattern_that_there_is_not(tmp_path: Path) -> None:
    """A wrong name is answered with those that there are."""
    done = run("nonsense", cwd=tmp_path)
    assert done.returncode == 2
    known = ", ".join(p.__name__ for p in CATALOGUE)
    assert done.stderr == (
        'Error: There is no pattern "nonsense".\nNothing was changed.\n'
        f"Next: take one of these: {known}.\n"
    )
