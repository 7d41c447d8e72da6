"""What is said of a revision that got no lock."""

from collections.abc import Sequence
from dataclasses import dataclass

from migrator.alembic.lock_waits import LockWaits
from migrator.errors import LockBudgetError
from migrator.facts import Blocker
from migrator.postgres.blocking import advice
from migrator.words import counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortfall:
    """
    The errors of a revision that got no lock.

    Args:
        waits: what it waited for.
        statement: what it sent last, as it is shown.
        stays: what remains of it, and of those before it.
    """

    waits: LockWaits
    statement: str
    stays: str

    def no_lock(self, attempts: int, held: Sequence[Blocker]) -> LockBudgetError:
        """Return the error of a revision that changed nothing."""
        return self._error(
            f"Revision {self.waits.revision} got no lock{self._where()} within"
            f" {self.waits.settings.lock_timeout_ms} ms"
            f" ({counted(attempts, 'attempt')}): {self.statement}.",
            held,
            advice(held),
        )

    def kept_too_long(self, held: Sequence[Blocker]) -> LockBudgetError:
        """Return the error of a revision that did not even queue."""
        return self._error(
            f"Revision {self.waits.revision} waited"
            f" {self.waits.settings.step_budget_s:g} s for a lock{self._where()} that"
            " is kept, and did not queue for it.",
            held,
            advice(held),
        )

    def stopped(self, *, committed: bool) -> LockBudgetError:
        """Return the error of a revision that cannot be tried again."""
        if committed:
            why = "it is not tried again, since a part of it has committed"
            then = (
                "take back by hand what it did, or complete it and `alembic stamp`;"
                " keep one statement in each autocommit block, first in its revision."
            )
        else:
            why = "it is not tried again, since env.py began its transaction"
            then = (
                "run no SQL before context.configure(…), and keep"
                " transaction_per_migration as zd.options(…) sets it."
            )
        return self._error(
            f"Revision {self.waits.revision} got no lock{self._where()} within"
            f" {self.waits.settings.lock_timeout_ms} ms: {self.statement}; {why}.",
            self.waits.in_the_way(),
            then,
        )

    def _error(self, what: str, held: Sequence[Blocker], next: str) -> LockBudgetError:
        state = "\n".join(filter(None, (self.stays, self.waits.held_by(held))))
        return LockBudgetError(what, state=state, next=next)

    def _where(self) -> str:
        """Say which table the lock is on; "" where that is not known."""
        return "".join(f" on table {name}" for name in list(self.waits.wanted)[:1])
