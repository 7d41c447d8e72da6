"""The Alembic command under way, and where its connection leads."""

import gc
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from alembic.config import Config, MessagingOptions
from alembic.util import CommandError
from sqlalchemy import Connection as SAConnection
from sqlalchemy import text

from migrator.errors import MigratorError, Refused
from migrator.names import TableName
from migrator.postgres.connection import Target
from migrator.words import counted

# What an Alembic option may hold, or a driver; their own stubs say Any.
Options = dict[str, Any]

#: Begins what is told where a revision behind others changed nothing.
UNTOUCHED = "This revision changed nothing"

#: Where a stamp stopped that began as Alembic does it.
PURGED = (
    "--purge came first: the version table is empty by now, and nothing else was"
    " changed. The same stamp enters the revision."
)


@dataclass(slots=True)
class Command:
    """The Alembic command under way."""

    #: Whether the version table was empty when it started.
    fresh: bool = False
    #: Where it was, tables that had rows by then: all others are nobody's yet.
    filled: frozenset[TableName] = frozenset()
    #: The script of the revision that is running.
    script: Any = None
    mode: str = "live"
    active: bool = False
    #: Whether Alembic has emptied the version table before any of ours ran.
    purged: bool = False
    #: Revisions that were carried out in it.
    carried: int = 0
    config: Config | None = None

    @property
    def stays(self) -> str:
        """What remains where a revision behind others changed nothing."""
        before = counted(
            self.carried,
            "revision that this command ran before it stays",
            "revisions that this command ran before it stay",
        )
        return f"{UNTOUCHED}; {before}."


#: One Alembic command runs at a time in a process: its own proxies are global.
command = Command()


def target_of(connection: SAConnection) -> Target:
    """
    Return where an SQLAlchemy connection leads, whatever driver made it.

    What the live connection says counts: it holds what `creator`, events and
    token logins put in.
    """
    raw: Any = connection.connection.dbapi_connection
    info = getattr(raw, "info", None)
    if info is not None and hasattr(info, "get_parameters"):  # psycopg
        params = dict(info.get_parameters())
        params["password"] = info.password
    elif info is not None and hasattr(info, "dsn_parameters"):  # psycopg2
        params = dict(info.dsn_parameters)
        params["password"] = info.password
    else:
        params = _of_asyncpg(raw) or _of_url(connection)
    for name in ("application_name", "fallback_application_name", "replication"):
        params.pop(name, None)
    by_statement = connection.execute(text(_PATH)).scalar()
    if by_statement is not None:
        # As where env.py goes from one tenant's schema to the next.
        found = _as_options({"search_path": by_statement})
        params["options"] = f"{params.get('options') or ''} {found}".strip()
    return Target({k: v for k, v in params.items() if v not in (None, "")})


#: The search path that env.py set on its connection; nobody else's connection has it.
_PATH = (
    "SELECT setting FROM pg_catalog.pg_settings"
    " WHERE name = 'search_path' AND source = 'session'"
)


def _of_asyncpg(raw: Any) -> Options | None:
    """Return what asyncpg connected by, None where it is another driver."""
    driver: Any = getattr(raw, "driver_connection", None)
    given = getattr(driver, "_params", None)
    address = getattr(driver, "_addr", None)
    if given is None or address is None:
        return None
    if isinstance(address, str):
        # The path of a socket.
        folder, _, number = address.rpartition("/.s.PGSQL.")
        address = (folder, number)
    settings = dict(given.server_settings or {})
    settings.pop("application_name", None)
    return {
        "host": address[0],
        "port": address[1],
        "dbname": given.database,
        "user": given.user,
        "password": given.password,
        "options": _as_options(settings),
    }


def _of_url(connection: SAConnection) -> Options:
    url = connection.engine.url
    return {
        "host": url.host,
        "port": url.port,
        "dbname": url.database,
        "user": url.username,
        "password": url.password,
    }


def _as_options(settings: Mapping[str, str]) -> str:
    """Return parameters of a session as libpq's `options`."""
    quoted = {
        name: value.replace("\\", "\\\\").replace(" ", "\\ ")
        for name, value in settings.items()
    }
    return " ".join(f"-c {name}={value}" for name, value in quoted.items())


@contextmanager
def told() -> Iterator[None]:
    """Raise our errors as Alembic's; say so where earlier revisions stay."""
    try:
        yield
    except MigratorError as error:
        if command.carried and error.state == Refused("").state:
            error = error.staying(command.stays)
        elif command.purged and error.state == Refused("").state:
            error = error.staying(PURGED)
        _tell_once()
        raise CommandError(str(error)) from error


def _tell_once() -> None:
    """
    Keep Alembic's command line from printing an error that the console shows already.

    It logs each error and prints it as well, on a terminal as one paragraph, in which
    code to paste is lost.
    """
    config = command.config
    # An application that calls Alembic's commands prints what it likes.
    if config is None or not hasattr(config.cmd_opts, "cmd"):
        return
    logger = logging.getLogger("alembic.util.messaging")
    if logger.isEnabledFor(logging.ERROR) and _has_console(logger):
        config.messaging_opts = MessagingOptions(quiet=True)


def _has_console(logger: logging.Logger) -> bool:
    while True:
        for handler in logger.handlers:
            if (
                isinstance(handler, logging.StreamHandler)
                and handler.stream in (sys.stdout, sys.stderr)
                and handler.level <= logging.ERROR
            ):
                return True
        if not logger.propagate or logger.parent is None:
            return False
        logger = logger.parent


@contextmanager
def uncollected() -> Iterator[None]:
    """
    Leave what is loaded out of the collector's looks.

    It would go through all of the toolkit again and again: half a millisecond for each
    of hundreds of revisions.
    """
    frozen = not gc.get_freeze_count()
    if frozen:
        gc.freeze()
    try:
        yield
    finally:
        if frozen:
            gc.unfreeze()
