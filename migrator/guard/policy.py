"""From figures to verdicts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from math import isfinite
from types import MappingProxyType
from typing import Any, cast

from migrator.errors import UsageError
from migrator.guard.signal import Signal, Unit, shown
from migrator.guard.signals import SIGNALS, Prometheus, Query
from migrator.guard.signals.prometheus import address


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
    """
    What a backfill does now, and why.

    Args:
        action: what it does.
        signal: the name of the signal that asks for it; "" where none does.
        reason: the figure and its bound, or why there is none.
        observed: whether it is recorded without acting on it.
        unread: whether it follows from a signal that cannot be read.
    """

    action: Action = Action.GO
    signal: str = ""
    reason: str = ""
    observed: bool = False
    unread: bool = False

    def is_as(self, other: "Verdict") -> bool:
        """Tell whether another one asks for the same, be its figures others."""
        return self.action is other.action and (
            self.action is Action.GO
            or (self.signal, self.observed, self.unread)
            == (other.signal, other.observed, other.unread)
        )


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


# Seconds between two looks at least.
SHORTEST_S = 0.1
_SIZES = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
_TIMES = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_FORM = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([a-zA-Z%]*)")
_UNITS: Mapping[Unit, Mapping[str, float]] = {
    Unit.SECONDS: _TIMES,
    Unit.BYTES: _SIZES,
    Unit.BYTES_PER_S: _SIZES,
    Unit.SHARE: {"%": 0.01},
    Unit.COUNT: {"": 1.0},
}
# What a table of a signal may say, mildest bound first.
_BOUNDS = ("throttle", "pause", "abort")
_PLAIN = ("mode", "interval", "error-budget")
#: What the user's own signals need.
_WANTED: Mapping[str, tuple[type[Signal], tuple[str, ...]]] = {
    "query": (Query, ("sql",)),
    "prometheus": (Prometheus, ("url", "promql")),
}


def _refused(what: str, next: str) -> UsageError:
    return UsageError(f"[tool.migrator.guard] {what}.", next=next)


def _figure(where: str, given: Any, unit: Unit, what: str) -> float:
    """Return an amount as a number in the signal's unit."""
    plain = isinstance(given, int | float) and not isinstance(given, bool)
    if plain and isfinite(given) and given >= 0:
        return float(given)
    found = _FORM.fullmatch(given) if isinstance(given, str) else None
    units = _UNITS[unit]
    if found is None or found[2] not in units:
        kinds = ", ".join(u for u in units if u)
        raise _refused(
            f"has {where} = {given!r}, which is no {what}",
            f"write a number with one of these units: {kinds}."
            if kinds
            else "write a number.",
        )
    return float(found[1]) * units[found[2]]


def _table(where: str, given: Any, like: str) -> Mapping[str, Any]:
    """Return a table of the settings."""
    if not isinstance(given, Mapping):
        raise _refused(f"has {where} = {given!r}, which is no table", f"write {like}.")
    return cast(Mapping[str, Any], given)


def _thresholds(
    where: str, given: Mapping[str, Any], unit: Unit, words: tuple[str, ...] = ()
) -> Thresholds:
    """Return a signal's bounds; `words` are what else its table may say."""
    known = (*words, *_BOUNDS)
    if unknown := sorted(set(given) - set(known)):
        raise _refused(
            f'{where} has a key "{unknown[0]}"',
            f"use {', '.join(known[:-1])} and {known[-1]}.",
        )
    bounds = {
        k: _figure(f"{where}.{k}", given[k], unit, "threshold of that signal")
        for k in _BOUNDS
        if k in given
    }
    for milder, stronger in pairwise(bounds):
        if bounds[milder] > bounds[stronger]:
            raise _refused(
                f"has {where}.{milder} = {given[milder]!r} above"
                f" {where}.{stronger} = {given[stronger]!r}",
                f"let {milder} begin first.",
            )
    return Thresholds(**bounds)


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
    for key, value in _table("guard", given, "[tool.migrator.guard]").items():
        if key in _PLAIN:
            continue
        if key in units:
            table = _table(key, value, "{ throttle = …, pause = …, abort = … }")
            thresholds[key] = _thresholds(key, table, units[key])
        elif key in _WANTED:
            cls, words = _WANTED[key]
            named = _table(key, value, f"[tool.migrator.guard.{key}.NAME]")
            for name, found in named.items():
                where = f"{key}.{name}"
                if name in units or name in (n["name"] for _, n in own):
                    raise _refused(
                        f"has {where}, and another signal of that name",
                        "give it another one.",
                    )
                table = _table(where, found, f"[tool.migrator.guard.{where}]")
                thresholds[name] = _thresholds(where, table, cls.unit, words)
                own.append((cls, {"name": name, **_words(where, table, words)}))
        else:
            known = ", ".join((*_PLAIN, *units, *_WANTED))
            raise _refused(f'has a key "{key}"', f"use {known}.")
    mode = given.get("mode", "act")
    if mode not in ("act", "observe"):
        raise _refused(f'has mode = "{mode}"', 'write "act" or "observe".')
    return Policy(
        thresholds=thresholds,
        own=tuple(own),
        observe=mode == "observe",
        error_budget=_budget(given.get("error-budget", Policy().error_budget)),
        interval_s=_interval(given.get("interval", Policy().interval_s)),
    )


def _interval(given: Any) -> float:
    interval_s = _figure("interval", given, Unit.SECONDS, "time")
    if interval_s < SHORTEST_S:
        raise _refused(
            f"has interval = {given!r}: each look takes some queries",
            f"write {SHORTEST_S * 1000:.0f}ms or more.",
        )
    return interval_s


def _budget(given: Any) -> int | None:
    if not isinstance(given, int) or isinstance(given, bool) or given < 0:
        raise _refused(
            f"has error-budget = {given!r}",
            "write a number of chunks, or 0 for no bound.",
        )
    return given or None


def _words(
    where: str, table: Mapping[str, Any], wanted: tuple[str, ...]
) -> dict[str, str]:
    for word in wanted:
        if not isinstance(table.get(word), str):
            raise _refused(f"{where} has no {word}", f"give {' and '.join(wanted)}.")
    if "url" in wanted:
        try:
            address(table["url"])
        except ValueError as error:
            raise _refused(
                f"{where}: {error}",
                "write http://HOST:PORT, special characters of a user or password"
                " percent-encoded.",
            ) from None
    return {word: table[word] for word in wanted}
