"""Looks for hazards in revisions, and names the safe form of each."""

from migrator.lint.linter import OWN, Linter, Placed
from migrator.lint.rule import Finding, Harm, Rule, Safe, Severity, Work
from migrator.lint.rules import RULES
from migrator.lint.squawk import Squawk

__all__ = [
    "OWN",
    "RULES",
    "Finding",
    "Harm",
    "Linter",
    "Placed",
    "Rule",
    "Safe",
    "Severity",
    "Squawk",
    "Work",
]
