"""The URL by which env.py connects: what it may be, and what is wrong with one."""

import os
from collections.abc import Iterator
from configparser import InterpolationError
from pathlib import Path
from traceback import walk_tb
from types import CodeType, FrameType

from alembic.config import Config
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InvalidRequestError,
    NoSuchModuleError,
)

from migrator.errors import MigratorError, Refused, UsageError
from migrator.postgres.connection import reach

#: Its driver comes along with the toolkit.
EXAMPLE = "postgresql+psycopg://user@host:port/database"

_CANNOT = "env.py cannot use the database URL"
# The dialect of the URL that `alembic init` writes, for a person to replace.
_PLACEHOLDER = "driver"
_READ_ENVIRONMENT: CodeType = type(os.environ).__getitem__.__code__


def for_sqlalchemy(url: str, own: str | None) -> str:
    """
    Return a URL with a driver, since SQLAlchemy's own choice may not be installed.

    Args:
        url: `postgresql://`, `postgres://` or `postgresql+driver://`; any other one
            comes back as it is.
        own: the one in whose place it is put; its driver is what env.py is made for.
    """
    scheme, found, rest = url.partition("://")
    base, plus, driver = scheme.partition("+")
    if not found or base not in ("postgresql", "postgres"):
        return url
    if not plus:
        mine, _, _ = (own or "").partition("://")
        known = mine.partition("+")[0] == "postgresql"
        return f"{mine if known else 'postgresql+psycopg'}://{rest}"
    return f"postgresql+{driver}://{rest}"


def wrong(error: Exception, config: Config) -> MigratorError | None:
    """
    Return what is wrong with the URL, None where something else is.

    Its words are ours, or hold no more of the URL than its dialect: what else a
    driver or SQLAlchemy says may be a part of the password.

    Args:
        error: what env.py raised.
        config: what env.py was given.
    """
    ini = Path(config.config_file_name or "alembic.ini").name
    give = (
        f"write it into {ini} as {EXAMPLE}, or set MIGRATOR_DATABASE_URL (which plain"
        " `alembic` does not read)."
    )
    last = list(_frames(error))[-1:]
    match error:
        case InterpolationError():
            return UsageError(
                f'In {ini}, the value of "{error.option}" in [{error.section}] has a %'
                " that is taken for a %(name)s.",
                next="write %% for each %, as in p%%40ss.",
            )
        case KeyError() if last and last[0].f_code is _READ_ENVIRONMENT:
            return UsageError(
                f"env.py reads {error.args[0]} from the environment, where it is not"
                " set.",
                next=f"set it, to {EXAMPLE} where it is the database's URL.",
            )
        case KeyError(args=("url",)) if last and _is_of(last[0], "sqlalchemy"):
            return UsageError(
                f"No database is given: there is no sqlalchemy.url in {ini}.", next=give
            )
        case NoSuchModuleError():
            return _no_dialect(str(error).rpartition(":")[2], ini, give)
        case ArgumentError() if str(error).endswith("got None"):
            return UsageError(
                "No database is given: env.py passes None in place of a URL.",
                next="set what it reads the URL from (an environment variable, or"
                f" sqlalchemy.url in {ini}), to {EXAMPLE}.",
            )
        case ArgumentError() if _configured(config) == "":
            return UsageError(
                f"No database is given: sqlalchemy.url in {ini} is empty.", next=give
            )
        case ArgumentError():
            return UsageError(
                f"{_CANNOT}: SQLAlchemy cannot read it.",
                next=f"write it as {EXAMPLE}, special characters percent-encoded.",
            )
        case ModuleNotFoundError() if _is_driver(error):
            return UsageError(
                f"{_CANNOT}: its driver, {error.name}, is not installed.",
                next="install it, or write postgresql+psycopg://…, whose driver is.",
            )
        case InvalidRequestError() if "async driver" in str(error):
            return UsageError(
                f"{_CANNOT}: {str(error).splitlines()[0]}",
                next="write postgresql+psycopg://… or postgresql+asyncpg://….",
            )
        case DBAPIError():
            # The driver's words name host and user, never the password.
            return _no_connection(error.orig)
        case _ if any(_is_of(f, "asyncpg.connect_utils") for f in _frames(error)):
            # Neither asyncpg nor SQLAlchemy makes one kind of all that is raised there.
            return _no_connection(error)
        case _:
            return None


def _configured(config: Config) -> str | None:
    section = config.config_ini_section
    return config.file_config.get(section, "sqlalchemy.url", raw=True, fallback=None)


def _no_dialect(name: str, ini: str, give: str) -> UsageError:
    if name == _PLACEHOLDER:
        return UsageError(
            f"No database is given: sqlalchemy.url in {ini} is still what `alembic"
            " init` wrote.",
            next=give,
        )
    dialect = name.replace(".", "+")
    return UsageError(
        f'{_CANNOT}: SQLAlchemy knows no dialect "{dialect}".',
        next="write postgresql+psycopg://….",
    )


def _no_connection(said: object) -> Refused:
    return Refused(
        f"No connection to the database of env.py: {said}",
        next=reach(str(said)),
    )


def _is_driver(error: Exception) -> bool:
    """Tell whether it was SQLAlchemy's dialect that imported the module."""
    return any(
        f.f_code.co_name == "import_dbapi" and _is_of(f, "sqlalchemy")
        for f in _frames(error)
    )


def _frames(error: Exception) -> Iterator[FrameType]:
    return (frame for frame, _ in walk_tb(error.__traceback__))


def _is_of(frame: FrameType, package: str) -> bool:
    name = str(frame.f_globals.get("__name__"))
    return name == package or name.startswith(f"{package}.")
