"""What commands share: the project, the database, settings and options."""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from migrator.alembic.project import Project
from migrator.change import DEFAULT_VERSION_TABLE, Change
from migrator.cli.bars import Bars
from migrator.errors import UsageError
from migrator.guard import Policy
from migrator.plan import State
from migrator.postgres.connection import Target
from migrator.runner import Runner
from migrator.settings import Settings


@dataclass(slots=True)
class App:
    """What the group's options say; commands take from it what they need."""

    config: str
    url: str | None
    x: tuple[str, ...]
    settings: Settings
    guard: Policy = field(default_factory=Policy)
    _target: Target | None = None
    _version_table: str = DEFAULT_VERSION_TABLE
    _heads: tuple[str, ...] = ()
    _known: bool = False

    def project(self) -> Project:
        """Return the Alembic project."""
        return Project.load(self.config, url=self.url, x=self.x)

    def _look(self) -> None:
        if self._known:
            return
        if Path(self.config).is_file():
            found = self.project().database()
            self._target, self._version_table, self._heads = found
        if self.url is not None:
            self._target = Target.from_url(self.url)
        self._known = True

    def has_database(self) -> bool:
        """Tell whether a database is given, or an Alembic project that may have one."""
        return self.url is not None or Path(self.config).is_file()

    def target(self) -> Target:
        """
        Return the database.

        Raises:
            UsageError: none is given.
        """
        self._look()
        if self._target is None:
            raise UsageError(
                "No database is given.",
                next="set MIGRATOR_DATABASE_URL, give --database-url, or run this"
                " where alembic.ini is.",
            )
        return self._target

    def runner(self) -> Runner:
        """Return an engine on the database."""
        return Runner(
            self.target(),
            settings=self.settings,
            progress=Bars(),
            guard=self.guard,
        )

    def changes(self) -> list[Change]:
        """Return the changes of the project's revisions."""
        self._look()
        return self.project().changes(self._version_table)

    def heads(self) -> tuple[str, ...]:
        """Return the revisions that the database is at."""
        self._look()
        return self._heads

    def named(self, name: str | None) -> list[Change]:
        """
        Return the change that a name means; without one, those not expanded yet.

        Raises:
            UsageError: the name means none or several.
        """
        known = self.changes()
        if name is None:
            ledger = {c.id: c for c in self.runner().changes()}
            return [
                c
                for c in known
                if c.id not in ledger or ledger[c.id].state is State.PLANNED
            ]
        found = [c for c in known if c.id == name] or [
            c for c in known if c.id.startswith(name)
        ]
        if len(found) == 1:
            return found
        listed = ", ".join(c.id for c in found or known) or "none"
        raise UsageError(
            f'"{name}" means {len(found)} changes of the revisions; they hold'
            f" {listed}.",
            next="give the id of one; it is its revision's.",
        )

    def only(self, name: str | None) -> str:
        """
        Return the id of a change in the ledger; the one in flight by default.

        Raises:
            UsageError: no name is given and not just one is in flight.
        """
        if name is not None:
            return self.runner().change(name).id
        flying = [c.id for c in self.runner().changes() if c.in_flight]
        if len(flying) == 1:
            return flying[0]
        if not flying:
            raise UsageError(
                "No change is in flight.",
                next="`migrator expand` begins one; `migrator status` lists all.",
            )
        raise UsageError(
            f"{len(flying)} changes are in flight: {', '.join(flying)}.",
            next="give the id of one.",
        )

    def in_flight(self, name: str | None, *states: State) -> list[str]:
        """Return the id that a name means; without one, those in given states."""
        if name is not None:
            return [self.only(name)]
        known = self.runner().changes()
        return [c.id for c in known if c.in_flight and c.state in states]


def pyproject() -> dict[str, Any]:
    """Return `[tool.migrator]` of the project's pyproject.toml."""
    path = Path("pyproject.toml")
    if not path.is_file():
        return {}
    try:
        data = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise UsageError(
            f"pyproject.toml cannot be read: {error}.", next="correct it."
        ) from None
    found = data.get("tool", {}).get("migrator", {})
    if any("url" in key for key in found):
        raise UsageError(
            "pyproject.toml holds a database URL under [tool.migrator].",
            next="keep it in MIGRATOR_DATABASE_URL: passwords do not belong there.",
        )
    return {key.replace("-", "_"): value for key, value in found.items()}


UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Seconds(click.ParamType[float]):
    """A time such as 90s, 15m, 12h or 7d."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Return seconds."""
        if isinstance(value, float):
            return value
        text = str(value)
        number, unit = text[:-1], text[-1:]
        if unit in UNITS and number.replace(".", "", 1).isdigit():
            return float(number) * UNITS[unit]
        self.fail(f"{value!r} is not a time; write 90s, 15m, 12h or 7d", param, ctx)


def example(line: str) -> dict[str, Any]:
    """Return what shows a line of use under a command's help."""
    return {"epilog": f"Example: {line}"}


json_option = click.option("--json", "json", is_flag=True, help="Print JSON.")
change_argument = click.argument("change", required=False)
pass_app: Callable[..., Any] = click.pass_obj
