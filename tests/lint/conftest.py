"""Databases that tests of rules share."""

import os
from collections.abc import Iterator

import psycopg
import pytest

from migrator.postgres.embedded import Server


@pytest.fixture(scope="module")
def shared(server: Server, request: pytest.FixtureRequest) -> Iterator[str]:
    """Give the URL of a database of a module's own: its tests only look at it."""
    name = f"lint_{os.getpid()}_{abs(hash(request.node.nodeid)):x}"
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
        yield server.url(name)
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
