"""What lint found as SARIF 2.1.0, which code hosts and editors read."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any
from urllib.parse import quote

from migrator import __version__
from migrator.cli.findings import message, near
from migrator.lint import OWN, RULES, Placed, Rule, Severity

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/"
    "sarif-schema-2.1.0.json"
)
LEVELS = {
    Severity.ERROR: "error",
    Severity.WARNING: "warning",
    Severity.NOTE: "note",
}


def log(found: Sequence[Placed], allow: Mapping[str, str]) -> dict[str, Any]:
    """
    Return findings as a log of one run.

    Args:
        found: all of them, the allowed ones as well.
        allow: codes that the project allows, with their reasons.
    """
    rules = [*map(_rule, RULES), *(_plain_rule(c, t) for c, t in OWN.items())]
    known = {rule["id"] for rule in rules}
    further = sorted({p.finding.code for p in found} - known)
    rules += [_plain_rule(code, code) for code in further]
    index = {rule["id"]: number for number, rule in enumerate(rules)}
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "migrator",
                        "version": __version__,
                        "rules": rules,
                    }
                },
                "columnKind": "unicodeCodePoints",
                "results": [_result(place, index, allow) for place in found],
            }
        ],
    }


def _rule(rule: Rule) -> dict[str, Any]:
    trial = rule.trials[0]
    bad, good = (";\n".join(s) + ";" for s in (trial.bad, trial.good))
    return {
        "id": rule.code,
        "name": type(rule).__name__,
        "shortDescription": {"text": f"{rule.title}."},
        "help": {
            "text": f"Bad:\n{bad}\n\nGood:\n{good}",
            "markdown": f"Bad:\n\n```sql\n{bad}\n```\n\nGood:\n\n```sql\n{good}\n```",
        },
        "defaultConfiguration": {"level": "error"},
        "properties": {
            "harm": rule.harm.value,
            "lock": rule.lock.value,
            "work": rule.work.value,
        },
    }


def _plain_rule(code: str, title: str) -> dict[str, Any]:
    return {"id": code, "shortDescription": {"text": title}}


def _result(
    place: Placed, index: Mapping[str, int], allow: Mapping[str, str]
) -> dict[str, Any]:
    code = place.finding.code
    known = "\0".join((place.revision, code, place.finding.what)).encode()
    found: dict[str, Any] = {
        "ruleId": code,
        "ruleIndex": index[code],
        "level": LEVELS[place.finding.severity],
        "message": {"text": message(place)},
        "partialFingerprints": {"migrator/v1": sha256(known).hexdigest()},
    }
    if place.file is not None:
        found["locations"] = [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": quote(near(place.file))},
                    "region": {"startLine": max(place.line, 1)},
                }
            }
        ]
    if place.allowed:
        kind = "external" if allow.get(code) == place.allowed else "inSource"
        found["suppressions"] = [{"kind": kind, "justification": place.allowed}]
    return found
