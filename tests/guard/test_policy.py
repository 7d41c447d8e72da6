"""Figures become verdicts, and settings become figures."""

import re
from typing import Any

import pytest

from migrator.errors import UsageError
from migrator.guard import Action, Policy, Thresholds
from migrator.guard.policy import policy
from migrator.guard.signals.oldest_snapshot import OldestSnapshot
from migrator.guard.signals.replication_lag import ReplicationLag


@pytest.mark.parametrize(
    ("value", "action"),
    [(9, "go"), (10, "throttle"), (19, "throttle"), (20, "pause"), (31, "abort")],
)
def test_the_worst_bound_counts(value: float, action: str) -> None:
    """From each threshold on its action, with the figure and the bound as reason."""
    bounds = Thresholds(throttle=10, pause=20, abort=30)
    verdict = bounds.verdict(OldestSnapshot(), value, "pid 7, psql")
    assert verdict.action == action
    if action == "pause":
        assert verdict.reason == (
            "oldest-snapshot is 20.0 s (pid 7, psql), pause from 20.0 s"
        )


def test_settings_are_read_with_their_units() -> None:
    """Sizes, times, shares and plain numbers."""
    found = policy(
        {
            "mode": "observe",
            "interval": "500ms",
            "replication-lag": {"throttle": "10MB", "pause": "1GB"},
            "oldest-snapshot": {"pause": "5m"},
            "connections": {"throttle": "80%"},
            "latency": {},
            "rollbacks": {"throttle": 0, "pause": 0.5},
            "query": {"jobs": {"sql": "SELECT 1", "abort": 7}},
            "prometheus": {"errors": {"url": "http://p", "promql": "x", "pause": 1}},
        }
    )
    assert found.observe
    assert found.interval_s == 0.5
    assert found.thresholds["replication-lag"] == Thresholds(throttle=10e6, pause=1e9)
    assert found.thresholds["oldest-snapshot"] == Thresholds(pause=300)
    assert found.thresholds["connections"] == Thresholds(throttle=0.8)
    # Of a share a bare number is times, not per cent.
    assert found.thresholds["rollbacks"] == Thresholds(throttle=0, pause=0.5)
    assert found.thresholds["jobs"] == Thresholds(abort=7)
    names = {s.name for s in found.signals()}
    assert {"jobs", "errors", "replication-lag"} <= names
    assert "latency" not in names
    assert ReplicationLag.name in {s.name for s in Policy().signals()}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lagg": {}}, 'has a key "lagg"'),
        ({"mode": "watch"}, 'has mode = "watch"'),
        (
            {"replication-lag": {"throttl": "1MB"}},
            'replication-lag has a key "throttl"',
        ),
        ({"error-budget": "many"}, "has error-budget = 'many'"),
        ({"replication-lag": {"pause": "10s"}}, "no threshold of that signal"),
        ({"oldest-snapshot": {"pause": "1GB"}}, "no threshold of that signal"),
        ({"replication-lag": {"pause": "1.2.3MB"}}, "no threshold of that signal"),
        ({"replication-lag": {"pause": -1}}, "no threshold of that signal"),
        ({"rollbacks": {"pause": float("nan")}}, "no threshold of that signal"),
        ({"rollbacks": {"pause": True}}, "no threshold of that signal"),
        ({"replication-lag": "32MB"}, "replication-lag = '32MB', which is no table"),
        ({"query": {"jobs": "SELECT 1"}}, "query.jobs = 'SELECT 1', which is no table"),
        ({"query": "SELECT 1"}, "query = 'SELECT 1', which is no table"),
        ({"latency": {"sql": "SELECT 1"}}, 'latency has a key "sql"'),
        (
            {"replication-lag": {"throttle": "1GB", "pause": "256MB"}},
            "replication-lag.throttle = '1GB' above replication-lag.pause = '256MB'",
        ),
        (
            {"connections": {"throttle": 0.9, "abort": "80%"}},
            "connections.throttle = 0.9 above connections.abort = '80%'",
        ),
        ({"interval": "1x"}, "interval = '1x', which is no time"),
        ({"interval": 0}, "interval = 0: each look takes some queries"),
        ({"query": {"jobs": {"pause": 1}}}, "query.jobs has no sql"),
        ({"query": {"jobs": {"sql": 7}}}, "query.jobs has no sql"),
        ({"query": {"latency": {"sql": "x"}}}, "query.latency, and another signal"),
        ({"prometheus": {"p": {"url": "http://x"}}}, "prometheus.p has no promql"),
        (
            {
                "query": {"p": {"sql": "x"}},
                "prometheus": {"p": {"url": "http://x", "promql": "x"}},
            },
            "prometheus.p, and another signal of that name",
        ),
        (
            {"prometheus": {"p": {"url": "ftp://me:s3cret@x", "promql": "x"}}},
            "prometheus.p: its url is neither http",
        ),
        (
            {"prometheus": {"p": {"url": "http://me:s3cret/@x", "promql": "x"}}},
            "prometheus.p: its url cannot be read",
        ),
    ],
)
def test_bad_settings_are_refused(given: dict[str, Any], message: str) -> None:
    """The message names the key, and repeats no password."""
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        policy(given)
    assert "cret" not in str(caught.value)


def test_settings_are_a_table() -> None:
    """A word where a table belongs is refused as the rest is."""
    given: Any = "observe"
    with pytest.raises(UsageError, match="guard = 'observe', which is no table"):
        policy(given)


def test_actions_are_ordered() -> None:
    """The worst of several signals counts."""
    assert [a.rank for a in (Action.GO, Action.THROTTLE, Action.PAUSE)] == [0, 1, 2]
