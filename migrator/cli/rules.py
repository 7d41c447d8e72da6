"""The rules of lint: a list of all, and one with its example."""

import sys

import click

from migrator.cli import output
from migrator.cli.report import JSON_SCHEMA
from migrator.errors import UsageError
from migrator.lint import OWN, RULES, Harm, Rule
from migrator.lint.rule import Trial
from migrator.plan import Lock

# What a finding of each kind is, where the table is in use.
WEIGHTS = {
    Harm.STALL: "error, or warning where it is short",
    Harm.BREAK: "error",
    Harm.FAIL: "error",
}


def listed(*, json: bool) -> None:
    """Print all rules."""
    if json:
        output.as_json({"schema": JSON_SCHEMA, "rules": [_plain(r) for r in RULES]})
        return
    output.table(
        ("code", "harm", "lock", "what it looks for"),
        [
            *((r.code, r.harm.value, _lock(r), r.title) for r in RULES),
            *((code, "", "", title) for code, title in OWN.items()),
        ],
    )


def _lock(rule: Rule) -> str:
    return "" if rule.lock is Lock.NONE else rule.lock.value


def _plain(rule: Rule) -> dict[str, object]:
    return {
        "code": rule.code,
        "title": rule.title,
        "harm": rule.harm.value,
        "lock": _lock(rule) or None,
        "work": rule.work.value,
    }


def explain(code: str, *, json: bool) -> None:
    """
    Print one rule.

    Raises:
        UsageError: there is none with this code.
    """
    rule = next((r for r in RULES if r.code == code.upper()), None)
    if rule is None:
        if code.upper() in OWN:
            click.echo(f"{code.upper()}: {OWN[code.upper()]}.")
            return
        raise UsageError(
            f"There is no rule {code}.", next="`migrator lint --rules` lists all."
        )
    trials = [{"before": t.before, "bad": t.bad, "good": t.good} for t in rule.trials]
    if json:
        output.as_json({"schema": JSON_SCHEMA, **_plain(rule), "examples": trials})
        return
    click.secho(f"{rule.code}  {rule.title}", bold=True)
    click.echo(f"{(sys.modules[type(rule).__module__].__doc__ or '').strip()}\n")
    click.echo(f"harm  {rule.harm}: {WEIGHTS[rule.harm]}")
    if _lock(rule):
        click.echo(f"lock  {rule.lock}, {rule.work}")
    for trial in rule.trials:
        _example(trial)
    click.echo(f"\nTo allow it: # migrator: allow {rule.code} because …")


def _example(trial: Trial) -> None:
    for head, statements, colour in (
        ("Given", trial.before, None),
        ("Bad", trial.bad, "red"),
        ("Good", trial.good, "green"),
    ):
        if statements:
            click.echo(f"\n{head}")
        for statement in statements:
            click.secho(f"    {statement};", fg=colour)
