"""The shop of the examples: its page is walked while its releases serve requests."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import httpx
import psycopg
import pytest
from releases import LOCK_MS, SLACK_MS

SHOP = Path(__file__).parent.parent / "examples" / "shop"
CLIENTS = 2
# Pause of a client before each request, s.
PAUSE_S = 0.02
# Requests of each client on what a chapter of the page leaves.
FLOW = 20
# A server imports FastAPI and SQLAlchemy, on a machine that is busy, s.
WAIT_S = 60


def story() -> list[tuple[str, list[str]]]:
    """Return the chapters of the page, each with its commands."""
    found: list[tuple[str, list[str]]] = []
    inside = False
    for line in (SHOP / "README.md").read_text().splitlines():
        if line.startswith("## "):
            found.append((line[3:], []))
        elif line.startswith("```"):
            inside = line == "```sh"
        elif inside:
            found[-1][1].append(line)
    return found


class Shell:
    """The shell of a person who walks the page."""

    def __init__(self, env: dict[str, str], output: Path) -> None:
        self._output = output
        # Answers come by a pipe of their own: servers write to the shell's output.
        answers, given = os.pipe()
        with output.open("w") as out:
            self._bash = subprocess.Popen(
                ["bash"],
                cwd=SHOP,
                env={**env, "ANSWERS": str(given)},
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                pass_fds=[given],
                text=True,
                start_new_session=True,
            )
        os.close(given)
        self._answers: IO[str] = os.fdopen(answers)

    def run(self, command: str) -> str:
        """Run a command, which has to succeed; return what was written meanwhile."""
        before = self._output.stat().st_size
        assert self._bash.stdin is not None
        self._bash.stdin.write(f"{command}\necho $? >&$ANSWERS\n")
        self._bash.stdin.flush()
        code = self._answers.readline().strip()
        said = self._output.read_bytes()[before:].decode()
        assert code == "0", f"{command} gave {code}:\n{said}"
        return said

    def close(self) -> None:
        """End the shell with its servers."""
        os.killpg(self._bash.pid, signal.SIGKILL)
        self._bash.communicate()
        self._answers.close()


@dataclass
class Sale:
    """A user and an order of theirs, as a client wrote them last."""

    order: int
    name: str
    email: str | None
    cents: int

    def user_as(self, release: str) -> dict[str, Any]:
        """Return the user in the words of a release."""
        name = "name" if release == "v1" else "full_name"
        return {name: self.name, "email": self.email}

    def order_as(self, release: str, user: int) -> dict[str, Any]:
        """Return the order in the words of a release."""
        if release == "v3":
            return {"user_id": user, "total_cents": self.cents}
        return {"user_id": user, "total": f"{self.cents / 100:.2f}"}


@dataclass
class Client:
    """Sends requests to a release, in a thread; what it wrote is its own."""

    release: str
    url: str
    sales: dict[int, Sale] = field(default_factory=dict[int, Sale])
    failures: list[str] = field(default_factory=list[str])
    slowest: tuple[float, str] = (0.0, "")
    requests: int = 0
    _rounds: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Send requests until stopped."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the round under way."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        with httpx.Client(base_url=self.url, trust_env=False) as http:
            while not self._stop.is_set():
                self._rounds += 1
                try:
                    self._round(http, self._rounds)
                except (httpx.HTTPError, AssertionError) as error:
                    self.failures.append(f"{self.release}: {error!r}")

    def _round(self, http: httpx.Client, number: int) -> None:
        # Release 1 takes users without an address.
        silent = self.release == "v1" and number % 3 == 0
        email = None if silent else f"{number}@example.com"
        sale = Sale(0, f"{self.release} {number}", email, number * 7)
        given = sale.user_as(self.release)
        if number % 10 == 0 or not self.sales:
            user = self._send(http, "POST", "/users", given)["id"]
            order = sale.order_as(self.release, user)
            sale.order = self._send(http, "POST", "/orders", order)["id"]
        else:
            user = list(self.sales)[number % len(self.sales)]
            sale.order = self.sales[user].order
            self._send(http, "PUT", f"/users/{user}", given)
            order = sale.order_as(self.release, user)
            self._send(http, "PUT", f"/orders/{sale.order}", order)
        self.sales[user] = sale
        self._read(http, self.release, user)

    def _send(
        self, http: httpx.Client, method: str, path: str, body: Any = None
    ) -> Any:
        # No pause once it is stopped, and only reads back.
        self._stop.wait(PAUSE_S)
        self.requests += 1
        began = time.perf_counter()
        answer = http.request(method, path, json=body)
        ms = (time.perf_counter() - began) * 1000
        self.slowest = max(self.slowest, (ms, f"{method} {path} of {self.release}"))
        answer.raise_for_status()
        return answer.json()

    def _read(self, http: httpx.Client, release: str, user: int) -> None:
        sale = self.sales[user]
        found = self._send(http, "GET", f"/users/{user}")
        wanted = {**sale.user_as(release), "id": user}
        if sale.email is None and found["email"] is not None:
            wanted["email"] = f"{user}@unknown.invalid"
        assert found == wanted
        bought = self._send(http, "GET", f"/orders/{sale.order}")
        wanted = {**sale.order_as(release, user), "id": sale.order}
        assert bought == wanted | ({"user": found} if release == "v3" else {})
        if release != "v1":
            assert self._send(http, "GET", f"/users/{user}/orders") == [bought]

    def read_by(self, release: str, url: str) -> None:
        """Read all that this client wrote, by a release that may be another one."""
        with httpx.Client(base_url=url, trust_env=False) as http:
            for user in self.sales:
                self._read(http, release, user)


@dataclass
class Traffic:
    """The releases that are up, each with its clients."""

    up: dict[str, list[Client]] = field(default_factory=dict[str, list[Client]])
    gone: list[Client] = field(default_factory=list[Client])

    def begin(self, release: str, url: str) -> None:
        """Send requests to a release as soon as it is up."""
        until(lambda: answers(url), f"{release} starts")
        self.up[release] = [Client(release, url) for _ in range(CLIENTS)]
        for client in self.up[release]:
            client.start()

    def end(self, release: str) -> None:
        """Send no more requests to a release."""
        clients = self.up.pop(release)
        for client in clients:
            client.stop()
        self.gone += clients

    def flow(self) -> None:
        """Let each client send requests, then each release read what all wrote."""
        clients = [c for release in self.up.values() for c in release]
        goals = [(c, c.requests + FLOW) for c in clients]
        until(lambda: all(c.requests > n for c, n in goals), "requests are answered")
        for client in clients:
            client.stop()
        urls = {release: found[0].url for release, found in self.up.items()}
        for client in clients:
            for release, url in urls.items():
                client.read_by(release, url)
            assert client.failures == []
            client.start()


def until(happens: Callable[[], bool], what: str) -> None:
    """Wait until something happens."""
    end = time.monotonic() + WAIT_S
    while not happens():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.02)


def answers(url: str) -> bool:
    """Tell whether a release answers requests."""
    try:
        return httpx.get(f"{url}/users/1", trust_env=False).is_success
    except httpx.ConnectError:
        return False


def free_ports(number: int) -> list[str]:
    """Return ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    found = [str(s.getsockname()[1]) for s in sockets]
    for one in sockets:
        one.close()
    return found


@pytest.fixture
def env(database: str) -> dict[str, str]:
    """Give what the page's set-up leaves: the commands, and a database."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DATABASE_URL": database.replace("postgresql:", "postgresql+psycopg:"),
        "UVICORN_LOG_LEVEL": "warning",
    }


def test_the_story_of_the_shop(
    env: dict[str, str], database: str, tmp_path: Path
) -> None:
    """Every command of the page works, and no request of a client notices one."""
    setup, *chapters = story()
    assert setup[0] == "Set up"
    assert len(chapters) == 10
    traffic = Traffic()
    shell = Shell(env, tmp_path / "output")
    ports = dict(zip(("8001", "8002", "8003"), free_ports(3), strict=True))
    said: dict[str, str] = {}
    try:
        for chapter, commands in chapters:
            for line in commands:
                command = re.sub(r"\b800[123]\b", lambda m: ports[m[0]], line)
                if gone := re.fullmatch(r"kill \$V(\d)", line):
                    traffic.end(f"v{gone[1]}")
                said[chapter] = said.get(chapter, "") + shell.run(command)
                if up := re.match(r"uvicorn (v\d)\.app:app --port (\d+)", command):
                    traffic.begin(up[1], f"http://127.0.0.1:{up[2]}")
            traffic.flow()
    finally:
        for release in list(traffic.up):
            traffic.end(release)
        shell.close()
    assert '"name":"Ada"' in said["Release 2 beside release 1"]
    assert '"full_name":"Grace"' in said["Release 2 beside release 1"]
    assert '"total":"12.50"' in said["Release 3 beside release 2"]
    clients = traffic.gone
    assert [f for client in clients for f in client.failures] == []
    assert max(client.slowest for client in clients) < (LOCK_MS + SLACK_MS, "")
    # Release 1 came twice.
    assert [c.release for c in clients[::CLIENTS]] == ["v1", "v1", "v2", "v3"]
    check(database, clients)


def check(database: str, clients: list[Client]) -> None:
    """Assert that the database holds what was there, and what clients wrote."""
    with psycopg.connect(database) as conn:
        users = conn.execute("SELECT id, full_name, email FROM users").fetchall()
        orders = conn.execute("SELECT id, user_id, total_cents FROM orders").fetchall()
    wanted_users = {n: (f"User {n}", f"user{n}@example.com") for n in range(1, 5001)}
    wanted_orders = {n: (1 + n % 5000, n % 9973) for n in range(1, 20001)}
    # What the page itself sends.
    wanted_users[1] = ("Grace", None)
    wanted_orders[1] = (2, 1250)
    for client in clients:
        for user, sale in client.sales.items():
            wanted_users[user] = (sale.name, sale.email)
            wanted_orders[sale.order] = (user, sale.cents)
    for user, (name, email) in wanted_users.items():
        if email is None or (user <= 5000 and user % 4 == 0):
            wanted_users[user] = (name, f"{user}@unknown.invalid")
    assert {row[0]: row[1:] for row in users} == wanted_users
    assert {row[0]: row[1:] for row in orders} == wanted_orders


def test_the_revisions_pass_the_tests_of_pytest_alembic(env: dict[str, str]) -> None:
    """What the shop has for its revisions passes, and is run."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=SHOP,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout
