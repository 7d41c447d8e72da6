"""What revisions that are written have to require of those before them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from alembic.script import ScriptDirectory
from alembic.util import CommandError, to_tuple

from migrator.alembic.project import history_of
from migrator.alembic.writing import Written
from migrator.change import Change
from migrator.history import History, Node

#: What a revision follows, as Alembic takes it.
After = str | Sequence[str] | None


@dataclass(slots=True)
class Requiring:
    """
    Knows a project's revisions, and those that are about to be written.

    Args:
        script: where they are.
    """

    script: ScriptDirectory
    _history: History | None = None

    def add(
        self, revision: str, after: After, written: Written | None = None
    ) -> Written | None:
        """
        Take in a revision that comes behind all others that were taken in.

        Args:
            revision: its id.
            after: what it follows or depends on; names such as "head" as well.
            written: the change that it carries; None where it carries none.

        Returns:
            The change with what it requires.
        """
        history = self._history or history_of(self.script)
        known = {node.revision for node in history.nodes}
        before = self._resolved(after, known)
        patterns = [p for way in written.ways for p in way.patterns] if written else []
        requires = tuple(history.for_new(before, patterns))
        node = Node(
            revision=revision,
            after=before,
            # Which of several ways is taken is not known: its revision stands for all.
            changes=tuple(Change(revision=revision, pattern=p) for p in patterns),
            requires=requires,
        )
        self._history = History([*history.nodes, node])
        return written and replace(written, requires=requires)

    def _resolved(self, after: After, known: set[str]) -> tuple[str, ...]:
        found: list[str] = []
        for one in to_tuple(after, default=()):
            if one in known:
                found.append(one)
                continue
            try:
                found += [r.revision for r in self.script.get_revisions(one) if r]
            except CommandError:
                # Whoever writes the file says what is wrong with it.
                continue
        return tuple(dict.fromkeys(found))
