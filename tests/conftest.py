"""Servers and databases of the tests."""

import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from migrator.errors import Refused
from migrator.postgres.connection import Target
from migrator.postgres.embedded import Server
from migrator.runner import Runner
from migrator.settings import Settings

# Data of a test need not survive a power cut.
QUICK = {
    "fsync": "off",
    "synchronous_commit": "off",
    "max_connections": "200",
    "max_prepared_transactions": "4",
    "max_wal_size": "256MB",
}
# Most tests make a database and drop it again, 300 files each: in memory that takes
# half the time. The room is for the servers of all workers, their WAL included.
MEMORY = Path("/dev/shm")
ROOM_BYTES = 4 << 30

pytest_plugins = ["pytester"]


def pytest_configure() -> None:
    """Put the servers' files into memory, where it has room and nobody chose else."""
    if "TMPDIR" in os.environ or not MEMORY.is_dir():
        return
    if shutil.disk_usage(MEMORY).free > ROOM_BYTES:
        # pytest keeps the folders of its last runs; those stay on the disk.
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None


def start(**settings: str) -> Server:
    """Start a server from the wheel, or from MIGRATOR_TEST_BINDIR."""
    given = os.environ.get("MIGRATOR_TEST_BINDIR")
    try:
        return Server.start(
            bindir=Path(given) if given else None, settings={**QUICK, **settings}
        )
    except Refused as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no server: {error}")


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Give the server that all tests share."""
    with start() as made:
        yield made


@pytest.fixture
def private_server() -> Iterator[Server]:
    """Give a server that the test may kill and restart."""
    with start() as made:
        yield made


@pytest.fixture
def start_server() -> Callable[..., Server]:
    """Give what starts a server with settings of its own."""
    return start


@contextmanager
def made_database(server: Server, of: str) -> Iterator[str]:
    """Make a database and give its URL; `of` tells what it is for."""
    name = f"test_{os.getpid()}_{abs(hash(of)):x}"
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
        yield server.url(name)
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def database(server: Server, request: pytest.FixtureRequest) -> Iterator[str]:
    """Give the URL of a database of the test's own."""
    with made_database(server, request.node.nodeid) as url:
        yield url


@pytest.fixture(scope="module")
def shared_database(server: Server, request: pytest.FixtureRequest) -> Iterator[str]:
    """Give the URL of a database that a module's tests share."""
    with made_database(server, request.node.nodeid) as url:
        yield url


@pytest.fixture
def sql(database: str) -> Iterator[psycopg.Connection]:
    """Give an autocommit connection of the owner."""
    with psycopg.connect(database, autocommit=True) as conn:
        yield conn


@pytest.fixture
def runner(database: str) -> Runner:
    """Give an engine that holds nothing back and gives up soon."""
    return Runner(
        Target.from_url(database), Settings(hold_s=0, step_budget_s=3.0, lease_s=5.0)
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Skip what needs an extension that the server was installed without."""
    try:
        return (yield)
    except psycopg.errors.FeatureNotSupported as error:
        words = error.diag.message_primary or ""
        if os.environ.get("CI") or "extension" not in words:
            raise
        pytest.skip(words)
