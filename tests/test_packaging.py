"""The wheel, the sdist and the editable install."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
CHECK = (
    "import migrator.patterns, pathlib;"
    "assert len(migrator.patterns.CATALOGUE) >= 4;"
    "print(pathlib.Path(migrator.__file__).parent)"
)


def _run(*words: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist, and from it the wheel."""
    out = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, TOP)
    return out


def test_wheel_holds_one_top_level_package_with_its_data(built: Path) -> None:
    """The wheel, built from the sdist, holds migrator with its SQL, no more."""
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {n.split("/")[0] for n in names if ".dist-info/" not in n}
    assert tops == {"migrator"}
    assert len(names) == len(set(names))
    for wanted in (
        "migrator/py.typed",
        "migrator/patterns/rename_column.py",
        "migrator/pages/rename_column.md",
        "migrator/ledger/sql/ledger.sql",
        "migrator/postgres/queries/columns.sql",
    ):
        assert wanted in names


@pytest.mark.parametrize("kind", ["wheel", "sdist", "editable"])
def test_install_gives_the_patterns(built: Path, tmp_path: Path, kind: str) -> None:
    """Each kind of install can import migrator.patterns, and nothing beside it."""
    # The dependencies come from this environment; only the project is installed.
    _run(sys.executable, "-m", "venv", "--system-site-packages", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    site = _run(python, "-c", "import site; print(site.getsitepackages()[0])")
    mine = _run(
        sys.executable, "-c", "import sysconfig as s;print(s.get_path('purelib'))"
    )
    (Path(site) / "zz_outer.pth").write_text(mine + "\n")
    source = {
        "wheel": [next(built.glob("*.whl"))],
        "sdist": [next(built.glob("*.tar.gz"))],
        "editable": ["--editable", TOP],
    }[kind]
    _run(
        *(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"),
        *("--no-build-isolation", "--force-reinstall", "--disable-pip-version-check"),
        *source,
        cwd=tmp_path,
    )
    where = Path(_run(python, "-c", CHECK, cwd=tmp_path))
    assert where == (TOP / "migrator" if kind == "editable" else Path(site, "migrator"))
    assert not (Path(site) / "patterns").exists()
    assert not (Path(site) / "tests").exists()
