"""docs/backfill.md says what the code does."""

import re
import tomllib
from pathlib import Path

import psycopg
import pytest

from migrator.change import Change
from migrator.cli.app import App
from migrator.cli.report import status_of
from migrator.guard import Policy, Thresholds
from migrator.guard.policy import DEFAULTS, policy
from migrator.guard.signal import Unit
from migrator.guard.signals import SIGNALS
from migrator.patterns import AddColumn
from migrator.runner import Runner

PAGE = (Path(__file__).parents[2] / "docs" / "backfill.md").read_text()
UNITS = {
    Unit.SECONDS: "time",
    Unit.BYTES: "size",
    Unit.BYTES_PER_S: "size",
    Unit.SHARE: "share",
    Unit.COUNT: "number",
}


def cells(name: str) -> list[str]:
    """Return the row of a table that begins with a name."""
    (row,) = re.findall(rf"^\| `{name}` \|.*\|$", PAGE, re.MULTILINE)
    return [cell.strip() for cell in row.strip("|").split("|")]


@pytest.mark.parametrize("cls", SIGNALS, ids=lambda c: c.name)
def test_each_signal_has_a_row(cls: type) -> None:
    """With its unit, and with its default thresholds as one would write them."""
    _, _, unit, throttle, pause, _ = cells(cls.name)
    assert unit == UNITS[cls.unit]
    given = {
        key: text.replace(" ", "")
        for key, text in (("throttle", throttle), ("pause", pause))
        if text != "none"
    }
    if cls.unit is Unit.COUNT:
        assert {k: float(v) for k, v in given.items()} == {
            "throttle": DEFAULTS[cls.name].throttle,
            "pause": DEFAULTS[cls.name].pause,
        }
        return
    assert policy({cls.name: given}).thresholds[cls.name] == DEFAULTS[cls.name]


def test_the_settings_are_read() -> None:
    """The example is whole: it has each key that there is."""
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    given = tomllib.loads(text)["tool"]["migrator"]["guard"]
    found = policy(given)
    plain = Policy()
    assert (found.observe, found.interval_s, found.error_budget) == (
        plain.observe,
        plain.interval_s,
        plain.error_budget,
    )
    assert found.thresholds["latency"] == DEFAULTS["latency"]
    assert found.thresholds["replication-lag"].abort == 20e9
    assert found.thresholds["oldest-snapshot"] == Thresholds()
    assert {cls.__name__ for cls, _ in found.own} == {"Query", "Prometheus"}


def test_status_is_described(
    runner: Runner, sql: psycopg.Connection, database: str
) -> None:
    """Each key of a change's status that is about its backfill is on the page."""
    sql.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    pattern = AddColumn("t", "n", "int", computed="id * 2")
    runner.expand(Change(revision="c", pattern=pattern))
    runner.backfill("c")
    app = App("none.ini", database, (), runner.settings)
    data = status_of(app, runner.change("c"))
    of_the_change = {"tag", "table", "footprints", "pattern", "digest", "begun"}
    keys = {*(data.keys() - of_the_change), *data["control"], *data["steps"][-1]}
    assert [key for key in sorted(keys) if f"`{key}`" not in PAGE] == []
