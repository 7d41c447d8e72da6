"""The long queries of the catalogue: each is a file, which says what it gives."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files

from migrator.postgres.connection import Connection, configure


@cache
def query(name: str) -> bytes:
    """Return a query by its file's name, without the ending."""
    return (files("migrator.postgres.queries") / f"{name}.sql").read_bytes()


@contextmanager
def full_names(conn: Connection) -> Iterator[None]:
    """Let the server write names with their schemas: the search path is empty."""
    with conn.transaction(force_rollback=True):
        configure(conn, {"search_path": ""}, local=True)
        yield
