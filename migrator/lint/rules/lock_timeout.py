"""
A strong lock without a lock_timeout: all requests queue behind who waits for it.

Source: PostgreSQL manual, section 19.11.1, lock_timeout; the queue by a test.
"""

from collections.abc import Iterator

from migrator.lint import statements as st
from migrator.lint.rule import Finding, Harm, Rule, Safe, Severity, Trial, Work
from migrator.lint.scene import Scene
from migrator.plan import Lock

_ADD = "ALTER TABLE t ADD COLUMN c integer"


class LockTimeout(Rule):
    """The first strong lock of a revision that waits for as long as it takes."""

    code = "ZD611"
    title = "A strong lock without a lock_timeout"
    harm = Harm.STALL
    lock = Lock.ACCESS_EXCLUSIVE
    work = Work.CATALOGUE
    # What else is found has a safe form that locks with a lock_timeout.
    alone = True
    trials = (
        Trial(
            bad=(_ADD,),
            good=("SET lock_timeout = '200ms'", _ADD, "RESET lock_timeout"),
        ),
    )

    def look(self, statement: st.Statement, scene: Scene) -> Iterator[Finding]:
        """Look for the first lock that stops requests on a table in use."""
        limit = scene.parameter("lock_timeout")
        # The guard sets one, but for a revision that says another.
        if scene.guarded if limit is None else not _is_endless(limit):
            return
        strong = scene.strong(statement)
        if not strong:
            return
        if self._is_told(scene):
            return
        table = max(strong, key=lambda ref: strong[ref].rank)
        lock = strong[table]
        local = "" if scene.autocommit else "LOCAL "
        yield from self.found(
            table,
            scene,
            f"The revision waits for {lock.value} on {table} without a lock_timeout.",
            "As long as a transaction that uses the table goes on, it waits, and every"
            " request on the table queues behind it.",
            safe=Safe(
                why="It gives up soon, and can be tried again; with zd.options() in"
                " env.py each revision is.",
                code=f"op.execute(\"SET {local}lock_timeout = '200ms'\")\n",
            ),
            severity=Severity.WARNING,
            lock=lock,
        )

    def _is_told(self, scene: Scene) -> bool:
        """Tell whether an earlier statement was found, as far as none was set since."""
        if any(
            isinstance(s, st.SetParameter) and s.name.lower() == "lock_timeout"
            for s in scene.earlier
        ):
            return False
        return scene.was_strong


def _is_endless(limit: str) -> bool:
    """Tell whether a timeout is none: 0, in whatever unit."""
    number = limit.strip("' ").rstrip("abcdefghijklmnopqrstuvwxyz ")
    return number.isdigit() and not int(number)
