"""Linters of the database that a module of rules prepares."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from migrator.lint.linter import Linter


@pytest.fixture(scope="module")
def looking(shared_database: str, request: pytest.FixtureRequest) -> Iterator[Linter]:
    """Give the linter of a database that nobody changes, as the module prepares it."""
    with request.module.prepared(shared_database) as found:
        yield found


@pytest.fixture
def linter(looking: Linter) -> Linter:
    """Give it to one test, which may set it otherwise."""
    return replace(looking)


@pytest.fixture
def own(database: str, request: pytest.FixtureRequest) -> Iterator[Linter]:
    """Give the linter of a database of the test's own."""
    with request.module.prepared(database) as found:
        yield found
