"""Stands between a revision and Alembic, and tells which of its lines is running."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from alembic import context as environment
from alembic import op
from alembic.config import Config
from alembic.operations import Operations
from alembic.operations.base import AbstractOperations
from alembic.operations.batch import BatchOperationsImpl
from alembic.operations.ops import MigrateOperation
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext

Invoke = Callable[[AbstractOperations, MigrateOperation], Any]


@contextmanager
def intercepted(invoke: Callable[[Invoke], Invoke]) -> Iterator[None]:
    """
    Let a function stand before each operation that is carried out.

    Also those of `batch_alter_table` come this way, and of other `Operations`.

    Args:
        invoke: is given Alembic's own, and returns what is called instead.
    """
    original: Invoke = AbstractOperations.invoke
    with _replaced(AbstractOperations, "invoke", invoke(original)):
        yield


@contextmanager
def _replaced(owner: type, name: str, function: Callable[..., Any]) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, function)
    try:
        yield
    finally:
        setattr(owner, name, original)


@contextmanager
def working_in(context: MigrationContext) -> Iterator[None]:
    """
    Let `alembic.op` and `alembic.context` work in a context.

    Then they work in those of before, if any.
    """
    proxies: list[Operations | EnvironmentContext | None] = [
        getattr(op, "_proxy", None),
        getattr(environment, "_proxy", None),
    ]
    none: Any = None
    around = EnvironmentContext(Config(), none)
    around._migration_context = context
    try:
        with around, Operations.context(context):
            yield
    finally:
        for before in proxies:
            if before is not None:
                before._install_proxy()


def line_in(file: str | None) -> int:
    """Return the line of a file whose code is running, from 1; 0 where none is."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename == file:
            return frame.f_lineno
        frame = frame.f_back
    return 0


@contextmanager
def flushing(before: Callable[[], None], after: Callable[[], None]) -> Iterator[None]:
    """Let functions run around what a batch sends: its operations were met before."""
    original: Any = BatchOperationsImpl.flush

    def flush(batch: BatchOperationsImpl) -> None:
        before()
        try:
            original(batch)
        finally:
            after()

    with _replaced(BatchOperationsImpl, "flush", flush):
        yield
