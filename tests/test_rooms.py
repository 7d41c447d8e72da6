"""The rooms, and what each may import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
DATA = {"errors", "names", "facts", "final", "plan", "pattern", "words"}
ENGINE = DATA | {
    *("change", "settings", "progress", "events", "postgres", "ledger", "kernels"),
    *("waiting", "edits"),
}

#: Room → the rooms of the project that it may import, besides itself.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "words": set(),
    "names": {"errors"},
    "facts": {"errors", "names"},
    "plan": {"names", "errors"},
    "stored": {"plan", "names"},
    "final": {"facts"},
    "pattern": {"facts", "final", "plan", "names", "errors"},
    "change": {"pattern", "names"},
    "settings": {"errors"},
    "configuration": {"errors", "settings"},
    "history": {"change", "pattern", "plan", "errors"},
    "waiting": {"change", "ledger", "names", "plan", "errors", "words"},
    "edits": {"change", "ledger", "plan", "errors"},
    "progress": {"errors"},
    "events": {"errors"},
    "kernels": DATA,
    "patterns": DATA | {"kernels"},
    "postgres": {"facts", "plan", "names", "errors"},
    "ledger": {"postgres", "plan", "stored", "names", "errors", "words"},
    "guard": {"ledger", "postgres", "events", "names", "errors"},
    "backfill": ENGINE | {"guard"},
    "attempts": {"errors", "facts", "kernels", "names", "plan", "postgres"}
    | {"settings", "words"},
    "execution": ENGINE | {"attempts", "backfill", "guard"},
    "way_back": {"errors", "execution", "ledger", "plan", "postgres", "words"},
    "engine": ENGINE | {"execution", "guard", "patterns"},
    "inspection": ENGINE | {"backfill", "engine", "guard"},
    "phases": ENGINE | {"engine", "execution", "inspection", "way_back"},
    "transitions": ENGINE | {"execution", "phases", "way_back"},
    "runner": ENGINE | {"transitions"},
    "lint": DATA | {"change", "edits", "history", "patterns", "kernels", "postgres"},
    "verdicts": {"plan", "errors"},
    "deployment": ENGINE | {"runner", "verdicts"},
    "reconciling": ENGINE | {"execution", "history", "runner"},
    "alembic": ENGINE
    | {"configuration", "engine", "guard", "history", "lint", "patterns", "runner"},
    "demo": ENGINE | {"runner", "patterns"},
    "cli": ENGINE
    | {"runner", "deployment", "reconciling", "alembic", "demo", "backfill"}
    | {"guard", "lint", "verdicts"}
    | {"configuration", "patterns", "stored"},
}


def _files() -> list[Path]:
    found = [p for p in (TOP / "migrator").rglob("*.py") if "patterns" not in p.parts]
    return sorted([*found, *(TOP / "patterns").glob("*.py")])


def _room(path: Path) -> str:
    parts = path.relative_to(TOP).with_suffix("").parts
    return parts[0] if parts[0] == "patterns" else parts[1]


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "migrator":
            found |= {f"migrator.{a.name}" for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
        elif isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
    return {
        name.split(".")[1]
        for name in found
        if name.startswith("migrator.") and name != "migrator.__version__"
    }


@pytest.mark.parametrize("path", _files(), ids=lambda p: str(p.relative_to(TOP)))
def test_a_room_imports_only_what_the_table_allows(path: Path) -> None:
    """Every import of a file is of its own room or of one that it may import."""
    room = _room(path)
    if room == "__init__":
        return
    assert _imports(path) - {room} <= ALLOWED[room]


@pytest.mark.parametrize(
    "path",
    [p for p in _files() if _room(p) != "cli"],
    ids=lambda p: str(p.relative_to(TOP)),
)
def test_only_the_command_line_prints_or_exits(path: Path) -> None:
    """No file outside of cli calls print, exit or click.echo."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"print", "sys.exit", "exit", "click.echo"}


def test_the_engine_names_no_single_pattern() -> None:
    """It takes patterns from the list and knows none by name."""
    engine = ("engine", "inspection", "phases", "transitions", "runner", "execution")
    files = (*engine, "deployment")
    text = "".join((TOP / "migrator" / f"{f}.py").read_text() for f in files)
    assert text.count("from migrator.patterns import") == 1
    for path in (TOP / "patterns").glob("*.py"):
        name = "".join(w.capitalize() for w in path.stem.split("_"))
        assert path.stem == "__init__" or name not in text


def test_env_py_loads_what_every_command_needs_alone() -> None:
    """Plain revisions on a new database wait for no patterns, facts, engine or lint."""
    code = "import sys; from migrator import alembic; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    loaded = {n.split(".")[1] for n in done.stdout.split() if "migrator." in n}
    few = {"alembic", "configuration", "errors", "ledger", "names", "postgres"}
    assert loaded <= few | {"progress", "settings", "words"}
