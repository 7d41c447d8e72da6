"""The revisions, by pytest-alembic's own tests: `pytest`."""

import os
from collections.abc import Iterator

import pytest
from pytest_alembic.tests import (
    test_model_definitions_match_ddl,
    test_single_head_revision,
    test_up_down_consistency,
    test_upgrade,
)
from sqlalchemy import Engine, create_engine, make_url, text

__all__ = [
    "test_model_definitions_match_ddl",
    "test_single_head_revision",
    "test_up_down_consistency",
    "test_upgrade",
]


@pytest.fixture(autouse=True)
def complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """Carry each change through at once: no release runs here."""
    monkeypatch.setenv("MIGRATOR_MODE", "complete")


@pytest.fixture
def alembic_config() -> dict[str, str]:
    """Name the project."""
    return {"file": "alembic.ini"}


@pytest.fixture
def alembic_engine() -> Iterator[Engine]:
    """Give an empty database, on the server of DATABASE_URL."""
    url = make_url(os.environ["DATABASE_URL"])
    admin = create_engine(url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text("CREATE DATABASE shop_test"))
        engine = create_engine(url.set(database="shop_test"))
        yield engine
        engine.dispose()
        connection.execute(text("DROP DATABASE shop_test"))
    admin.dispose()
