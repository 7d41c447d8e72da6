"""Live signals that throttle, pause or abort a backfill."""

from migrator.guard.policy import Action, Policy, Thresholds, Verdict
from migrator.guard.record import Entry
from migrator.guard.watch import Watch

__all__ = ["Action", "Entry", "Policy", "Thresholds", "Verdict", "Watch"]
