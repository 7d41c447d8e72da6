"""Looks for hazards in revisions, and names the safe form of each."""

from migrator.lint.linter import Linter, Placed
from migrator.lint.rule import Finding, Harm, Rule, Safe, Severity, Work
from migrator.lint.rules import RULES

__all__ = [
    "RULES",
    "Finding",
    "Harm",
    "Linter",
    "Placed",
    "Rule",
    "Safe",
    "Severity",
    "Work",
]
