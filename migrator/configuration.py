"""Settings of a project: what its pyproject.toml and the environment say."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from migrator.errors import UsageError
from migrator.settings import Settings

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> float | None:
    """Return a time such as 90s, 15m, 12h, 7d or 0 in seconds; None for others."""
    if text == "0":
        # No time is the same in every unit.
        return 0.0
    number, unit = text[:-1], text[-1:]
    if unit in UNITS and number.replace(".", "", 1).isdecimal():
        return float(number) * UNITS[unit]
    return None


def pyproject() -> dict[str, Any]:
    """
    Return `[tool.migrator]` of the pyproject.toml in the current folder.

    Raises:
        UsageError: it cannot be read, or holds a database URL.
    """
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


def allowed(project: Mapping[str, Any]) -> dict[str, str]:
    """
    Return codes of lint that a project silences, with their reasons.

    Args:
        project: `[tool.migrator]`.

    Raises:
        UsageError: it is no table of codes with reasons.
    """
    given = project.get("lint", {}).get("allow", {})
    if not isinstance(given, dict) or not all(
        isinstance(v, str) and v.strip() for v in given.values()
    ):
        raise UsageError(
            "[tool.migrator.lint] allow is not a table of codes with their reasons.",
            next='write allow = { ZD301 = "every table is small" }.',
        )
    return given


def configured() -> Settings:
    """
    Return what plain `alembic` runs with: MIGRATOR_… first, then pyproject.toml.

    Raises:
        UsageError: one of them is no number, or no time.
    """
    project = pyproject()
    found: dict[str, Any] = {}
    for name in ("lock_timeout_ms", "target_ms", "guard_rows"):
        if (value := _given(project, name)) is not None:
            if not value.isdecimal():
                raise UsageError(
                    f"The setting {name.replace('_', '-')} is {value!r}, no number.",
                    next="correct it in the environment or in pyproject.toml.",
                )
            found[name] = int(value)
    for name in ("step_budget", "build_budget", "hold"):
        if (value := _given(project, name)) is not None:
            time = seconds(value)
            if time is None:
                raise UsageError(
                    f"The setting {name.replace('_', '-')} is {value!r}, no time.",
                    next="write a number with its unit, 90s, 15m, 12h or 7d; or 0.",
                )
            found[f"{name}_s"] = time
    return Settings(**found)


def _given(project: Mapping[str, Any], name: str) -> str | None:
    value = os.environ.get(f"MIGRATOR_{name.upper()}", project.get(name))
    return None if value is None else str(value)
