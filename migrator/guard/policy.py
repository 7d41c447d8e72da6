"""From figures to verdicts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from migrator.errors import UsageError
from migrator.guard.signal import Signal, Unit, shown
from migrator.guard.signals import SIGNALS, Prometheus, Query


class Action(StrEnum):
    """What a backfill does, mildest first."""

    GO = "go"
    THROTTLE = "throttle"
    PAUSE = "pause"
    ABORT = "abort"

    @property
    def rank(self) -> int:
        """Position by severity, 0 for go."""
        return list(Action).index(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a backfill does now, and why."""

    action: Action = Action.GO
    signal: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """From where on a figure throttles, pauses or aborts; None is never."""

    throttle: float | None = None
    pause: float | None = None
    abort: float | None = None

    def verdict(self, signal: Signal, value: float, behind: str) -> Verdict:
        """
        Return what a figure asks for.

        Args:
            signal: what was read.
            value: in the signal's unit.
            behind: who or what is behind it; "" where nothing tells.
        """
        for action in (Action.ABORT, Action.PAUSE, Action.THROTTLE):
            bound: float | None = getattr(self, action.value)
            if bound is not None and value >= bound:
                of = f" ({behind})" if behind else ""
                return Verdict(
                    action=action,
                    signal=signal.name,
                    reason=f"{signal.name} is {shown(value, signal.unit)}{of},"
                    f" {action} from {shown(bound, signal.unit)}",
                )
        return Verdict()


# Why each: lag and slots, so that a failover loses little and no disk fills up;
# waiters, since a request should never wait for a backfill for long; snapshots,
# since nothing can be pruned behind them; the rest, to leave room for others.
DEFAULTS: Mapping[str, Thresholds] = MappingProxyType(
    {
        "replication-lag": Thresholds(throttle=32e6, pause=256e6),
        "slot-retention": Thresholds(throttle=2e9, pause=8e9),
        "lock-waiters": Thresholds(throttle=1, pause=10),
        "oldest-snapshot": Thresholds(throttle=300, pause=1800),
        # A backfill leaves dead rows itself, until VACUUM has been there.
        "dead-tuples": Thresholds(),
        "wal-rate": Thresholds(),
        "archive-backlog": Thresholds(throttle=16, pause=64),
        "connections": Thresholds(throttle=0.9, pause=0.97),
        "latency": Thresholds(throttle=3.0, pause=10.0),
        "rollbacks": Thresholds(throttle=0.2, pause=0.5),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """
    What is watched, and what follows from it.

    Args:
        thresholds: by the signal's name.
        own: signals of the user's, each with its parameters.
        observe: record verdicts without acting on them.
        interval_s: seconds between two looks.
        error_budget: chunks that may fail within ten minutes before the change is
            paused; None sets no bound. A chunk that meets locks fails every 2 s at
            most, so that 100 of them are a third of that time and more.
    """

    thresholds: Mapping[str, Thresholds] = field(default_factory=lambda: DEFAULTS)
    own: tuple[tuple[type[Signal], Mapping[str, str]], ...] = ()
    observe: bool = False
    interval_s: float = 1.0
    error_budget: int | None = 100

    def signals(self) -> list[Signal]:
        """Return fresh signals, for one run; those without a threshold are off."""
        made: list[Signal] = [
            cls()
            for cls in SIGNALS
            if self.thresholds.get(cls.name, Thresholds()) != Thresholds()
        ]
        return [*made, *(cls(**given) for cls, given in self.own)]


_SIZES = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
_TIMES = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_FORM = re.compile(r"^([0-9.]+)\s*([a-zA-Z%]*)$")


def _figure(where: str, given: Any, unit: Unit) -> float:
    """Return a threshold as a number in the signal's unit."""
    if isinstance(given, int | float) and not isinstance(given, bool):
        return float(given)
    found = _FORM.match(str(given))
    units = {
        Unit.SECONDS: _TIMES,
        Unit.BYTES: _SIZES,
        Unit.BYTES_PER_S: _SIZES,
        Unit.SHARE: {"%": 0.01},
        Unit.COUNT: {"": 1.0},
    }[unit]
    if found is None or found[2] not in units:
        kinds = ", ".join(u or "a number" for u in units)
        raise UsageError(
            f"{where} = {given!r} is no threshold of that signal.",
            next=f"write a number with one of these units: {kinds}.",
        )
    return float(found[1]) * units[found[2]]


def _thresholds(where: str, given: Mapping[str, Any], unit: Unit) -> Thresholds:
    bounds = {"throttle", "pause", "abort"}
    if unknown := sorted(set(given) - bounds - {"sql", "url", "promql"}):
        raise UsageError(
            f'[tool.migrator.guard] {where} has a key "{unknown[0]}".',
            next="use throttle, pause and abort.",
        )
    return Thresholds(
        **{k: _figure(f"{where}.{k}", v, unit) for k, v in given.items() if k in bounds}
    )


_PLAIN = ("mode", "interval", "error-budget")


def policy(given: Mapping[str, Any]) -> Policy:
    """
    Return the policy of `[tool.migrator.guard]`.

    Args:
        given: `mode`, `interval`, `error-budget` (0 for none), a table of thresholds
            for each signal, and under `query` and `prometheus` the user's own by
            their names.

    Raises:
        UsageError: an unknown key, or a threshold in another unit.
    """
    units = {cls.name: cls.unit for cls in SIGNALS}
    thresholds = dict(DEFAULTS)
    own: list[tuple[type[Signal], Mapping[str, str]]] = []
    for key, value in given.items():
        if key in _PLAIN:
            continue
        if key in units:
            found = _thresholds(key, value, units[key]) if value else Thresholds()
            thresholds[key] = found
        elif key in ("query", "prometheus"):
            cls = Query if key == "query" else Prometheus
            for name, table in value.items():
                thresholds[name] = _thresholds(f"{key}.{name}", table, cls.unit)
                own.append((cls, {"name": name, **_words(cls, table, name)}))
        else:
            known = ", ".join((*_PLAIN, *units, "query", "prometheus"))
            raise UsageError(
                f'[tool.migrator.guard] has a key "{key}".', next=f"use {known}."
            )
    mode = given.get("mode", "act")
    if mode not in ("act", "observe"):
        raise UsageError(
            f'[tool.migrator.guard] has mode = "{mode}".',
            next='write "act" or "observe".',
        )
    return Policy(
        thresholds=thresholds,
        own=tuple(own),
        observe=mode == "observe",
        error_budget=_budget(given.get("error-budget", Policy().error_budget)),
        interval_s=_figure("interval", given.get("interval", 1), Unit.SECONDS),
    )


def _budget(given: Any) -> int | None:
    if not isinstance(given, int) or isinstance(given, bool) or given < 0:
        raise UsageError(
            f"[tool.migrator.guard] has error-budget = {given!r}.",
            next="write a number of chunks, or 0 for no bound.",
        )
    return given or None


def _words(cls: type[Signal], table: Mapping[str, Any], name: str) -> dict[str, str]:
    wanted = ("sql",) if cls is Query else ("url", "promql")
    missing = [w for w in wanted if w not in table]
    if missing:
        raise UsageError(
            f'[tool.migrator.guard] "{name}" has no {missing[0]}.',
            next=f"give {' and '.join(wanted)}.",
        )
    return {w: str(table[w]) for w in wanted}
