"""Each rule's claims, held against a server."""

import psycopg
import pytest

from migrator.lint import RULES, Finding, Linter, Rule, Severity
from migrator.lint.rule import Trial
from migrator.lint.sql import statements
from migrator.lint.statements import Transaction
from tests.lint import trials
from tests.lint.looking import looking_at

TRIALS = [(rule, trial) for rule in RULES for trial in rule.trials]
NAMES = [f"{rule.code}-{n}" for n, (rule, _) in enumerate(TRIALS)]


@pytest.fixture(scope="module")
def database(shared_database: str) -> str:
    """Give one database for all trials: each begins by clearing it."""
    return shared_database


def _prepare(sql: psycopg.Connection, trial: Trial) -> None:
    if sql.info.server_version < trial.since:
        pytest.skip(f"PostgreSQL {trial.since // 10000} has it first")
    trials.prepare(sql, trial)


def _found(
    linter: Linter,
    rule: Rule,
    texts: tuple[str, ...],
    *,
    together: bool,
    sized: bool,
) -> list[Finding]:
    """Return what a rule finds in SQL."""
    found: list[Finding] = []
    linter.guarded = False
    scene = linter.scene()
    scene.sized = sized
    scene.autocommit = not together
    scene.whole = [s for text in texts for s in statements(text)]
    for statement in scene.whole:
        found += rule.look(statement, scene)
        scene.passed(statement)
        if isinstance(statement, Transaction):
            scene.autocommit = statement.how != "BEGIN"
    return found


@pytest.mark.parametrize(("rule", "trial"), TRIALS, ids=NAMES)
def test_the_server_does_what_a_rule_says(
    database: str, sql: psycopg.Connection, rule: Rule, trial: Trial
) -> None:
    """
    The bad form's last statement takes the lock and does the work claimed.

    As SQL, it is found by its rule, and no more than noted in the good form.
    """
    _prepare(sql, trial)
    with looking_at(database) as linter:
        # A table that a trial made is one in use, also where it has no rows.
        bad = _found(linter, rule, trial.bad, together=trial.together, sized=False)
        assert rule.code in {f.code for f in bad}
        good = _found(linter, rule, trial.good, together=False, sized=True)
        assert {f.severity for f in good} <= {Severity.NOTE}
    if trial.fails:
        with pytest.raises(psycopg.Error):
            trials.bad(sql, trial)
        return
    seen = trials.bad(sql, trial)
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
