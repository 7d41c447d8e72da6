"""What is said of one change: whether it lets a release go out, and why not."""

from dataclasses import dataclass, replace

from migrator.errors import Overlaps
from migrator.plan import State

UNEXPANDED = "it is not expanded yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """
    What is said of one change.

    Args:
        change: its id.
        title: in one line.
        state: where it stands; None where the ledger does not know it.
        needs: the state that the release needs, None where it needs none.
        ok: whether nothing speaks against the release; after a deployment, whether
            nothing was left undone.
        reason: why not, or why it was left alone; "" where there is nothing to say.
        next: what to do.
        retired: whether this run retired it.
        blocked: whether nothing that can be done makes it let the release in.
    """

    change: str
    title: str
    state: State | None
    needs: State | None = None
    ok: bool = True
    reason: str = ""
    next: str = ""
    retired: bool = False
    blocked: bool = False


def holding(stopped: Overlaps, verdict: Verdict) -> Verdict:
    """Return the verdict on a change that touches what another one does."""
    what = stopped.what.removeprefix(f"{stopped.change} ").rstrip(".")
    return replace(verdict, reason=f"it {what}", next=stopped.next)


def behind(held: str, verdict: Verdict) -> Verdict:
    """Return the verdict on a change that no run expands while another one is held."""
    later = f"{UNEXPANDED}; {held}, which is held, may come before it"
    return replace(verdict, reason=later, next="")
