"""Each rule's claims, held against a server."""

import psycopg
import pytest

from migrator.lint import RULES, Rule
from migrator.lint.rule import Trial
from tests.lint import trials

TRIALS = [(rule, trial) for rule in RULES for trial in rule.trials]
NAMES = [f"{rule.code}-{n}" for n, (rule, _) in enumerate(TRIALS)]


def _prepare(sql: psycopg.Connection, trial: Trial) -> None:
    if sql.info.server_version < trial.since:
        pytest.skip(f"PostgreSQL {trial.since // 10000} has it first")
    trials.prepare(sql, trial)


@pytest.mark.parametrize(("rule", "trial"), TRIALS, ids=NAMES)
def test_the_server_does_what_a_rule_says(
    sql: psycopg.Connection, rule: Rule, trial: Trial
) -> None:
    """The bad form's last statement takes the lock and does the work claimed."""
    _prepare(sql, trial)
    for statement in trial.bad[:-1]:
        trials.run(sql, statement, trial.table)
    if trial.fails:
        with pytest.raises(psycopg.Error):
            trials.run(sql, trial.bad[-1], trial.table)
        return
    seen = trials.run(sql, trial.bad[-1], trial.table)
    assert (seen.lock, seen.work) == (trial.lock or rule.lock, trial.work or rule.work)


@pytest.mark.parametrize(("rule", "trial"), TRIALS, ids=NAMES)
def test_the_safe_form_lets_nobody_wait_for_a_scan(
    sql: psycopg.Connection, rule: Rule, trial: Trial
) -> None:
    """No statement of the good form does work under a lock that stops writers."""
    _prepare(sql, trial)
    for statement in trial.good:
        assert not trials.run(sql, statement, trial.table).stalls, statement


def test_codes_are_stable_and_in_order() -> None:
    """Each rule has a code of its own, and the list is in their order."""
    codes = [rule.code for rule in RULES]
    assert codes == sorted(set(codes))


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.code)
def test_a_rule_says_what_it_is(rule: Rule) -> None:
    """Each rule has a title of one line and at least one trial."""
    assert rule.title
    assert "\n" not in rule.title
    assert rule.trials
