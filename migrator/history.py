"""Changes in the order of their revisions: which overlap, and which wait for which.

Without a database. What is in flight by then, the ledger knows: see `waiting`.
"""

import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from migrator.change import DEFAULT_VERSION_TABLE, Change, id_of
from migrator.errors import MigratorError, UsageError
from migrator.pattern import Pattern, Undecided
from migrator.plan import Reach


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """
    One revision.

    Args:
        revision: its id.
        after: the revisions that it follows or depends on.
        changes: what it carries, in this order.
        requires: names of changes that have to be finished before it runs.
    """

    revision: str
    after: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    requires: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """
    Two changes that must not be in flight together, and do not say so.

    Args:
        earlier: the one that comes first, where that is known.
        later: the other one.
        what: what both touch.
        ordered: whether the one's revision comes before the other's.
    """

    earlier: Change
    later: Change
    what: str
    ordered: bool = True


def takes_name(upgrade: Callable[..., Any] | None) -> bool:
    """Tell whether a function has to be given something, as a database's name."""
    return upgrade is not None and any(
        p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        for p in inspect.signature(upgrade).parameters.values()
    )


def required(given: object, revision: str) -> tuple[str, ...]:
    """
    Return what a revision's `requires` names.

    Args:
        given: its value; None where there is none.
        revision: the revision's id, for the error.

    Raises:
        UsageError: it is neither a text nor a list of texts.
    """
    if given is None:
        return ()
    names: tuple[object, ...] = (given,)
    if isinstance(given, list | tuple):
        names = tuple(cast(Sequence[object], given))
    found = tuple(name for name in names if isinstance(name, str) and name)
    if len(found) != len(names):
        raise UsageError(
            f"Revision {revision} has requires = {given!r}, which names no changes.",
            next='write requires = "3f2a1b", the revision of the change that has to be'
            ' finished first; of several ("3f2a1b", "4c5d6e").',
        )
    return found


@dataclass(slots=True)
class History:
    """
    The revisions of a project.

    Args:
        nodes: the revisions, the oldest first.
        settled: names of changes of which a database has nothing in flight.
    """

    nodes: Sequence[Node]
    settled: frozenset[str] = frozenset()
    #: Sets of revisions, and of changes, as the bits of a number.
    _at: dict[str, int] = field(default_factory=dict[str, int])
    _before: dict[str, int] = field(default_factory=dict[str, int])
    #: Changes that are finished whenever a revision runs.
    _over: dict[str, int] = field(default_factory=dict[str, int])
    _changes: list[Change] = field(default_factory=list[Change])
    _reached: dict[str, list[int]] = field(default_factory=dict[str, list[int]])

    def __post_init__(self) -> None:
        """Look at the revisions once, from the oldest on."""
        for number, node in enumerate(self.nodes):
            self._at[node.revision] = number
            before, over = self._behind(node.after)
            self._before[node.revision] = before
            self._over[node.revision] = over | self._closed(node.requires, before)
            for change in node.changes:
                for table in {r.table for r in _reaches(change.pattern)}:
                    self._reached.setdefault(table, []).append(len(self._changes))
                self._changes.append(change)

    def requiring(self, revision: str, names: tuple[str, ...]) -> "History":
        """Return the same revisions, of which one requires other changes."""
        if self.node(revision).requires == names:
            return self
        return History(
            [
                replace(node, requires=names) if node.revision == revision else node
                for node in self.nodes
            ],
            self.settled,
        )

    def beside(
        self,
        in_flight: Collection[str],
        finished: Collection[str],
        ahead: Collection[str],
        version_table: str = DEFAULT_VERSION_TABLE,
    ) -> "History":
        """
        Return the same revisions, as a database has them.

        What has run and is not in its ledger was stamped: nothing of it is in flight.

        Args:
            in_flight: ids of changes that its ledger has in flight.
            finished: those that it has finished.
            ahead: revisions that it does not have yet.
            version_table: Alembic's, with its schema if it has one.
        """
        ids = {c.name: id_of(c.name, version_table) for c in self._changes}
        settled = frozenset(
            change.name
            for change in self._changes
            if ids[change.name] in finished
            or (change.revision not in ahead and ids[change.name] not in in_flight)
        )
        return History(self.nodes, settled)

    def finished(self, revisions: Collection[str]) -> "History":
        """Return the same revisions, of which nothing of some is in flight any more."""
        settled = (c.name for c in self._changes if c.revision in revisions)
        return History(self.nodes, self.settled | frozenset(settled))

    def node(self, revision: str) -> Node:
        """Return a revision by its id."""
        return self.nodes[self._at[revision]]

    def wrong(self, revision: str) -> list[str]:
        """Return the names in a revision's `requires` that no change before it has."""
        node = self.node(revision)
        before = self._before[revision]
        return [n for n in node.requires if not list(self._named(n, before))]

    def undeclared(self, revision: str) -> list[Overlap]:
        """
        Return the overlaps that a revision has to declare, the latest first.

        Those of two branches belong to the revision that brings them together, or to
        the later one as long as there is none.
        """
        node = self.node(revision)
        found: list[Overlap] = []
        for change in node.changes:
            if change.name in self.settled:
                continue
            found += self._missing(change, self._before[revision], self._over[revision])
            found += self._within(node, change)
            found += (
                overlap
                for overlap in self._beside(change)
                if self._meeting(overlap) is None
            )
        if len(node.after) > 1:
            found += self._met(revision)
        return found

    def for_new(self, after: Sequence[str], patterns: Sequence[Pattern]) -> list[str]:
        """
        Return what a revision that is to be written has to require.

        Args:
            after: the revisions that it follows or depends on.
            patterns: what it will carry, or might.
        """
        before, over = self._behind(after)
        found: list[str] = []
        for pattern in patterns:
            change = Change(revision="", pattern=pattern)
            for overlap in self._missing(change, before, over):
                over |= self._closed([overlap.earlier.name], before)
                found.append(overlap.earlier.name)
        return list(dict.fromkeys(found))

    # -- sets ------------------------------------------------------------

    def _behind(self, after: Iterable[str]) -> tuple[int, int]:
        """Return the revisions before one, and the changes finished by then."""
        before = over = 0
        for parent in after:
            if parent in self._at:
                before |= self._before[parent] | 1 << self._at[parent]
                over |= self._over[parent]
        return before, over

    def _named(self, name: str, before: int) -> Iterator[int]:
        """Return which of the changes before a revision have a name."""
        for number, change in enumerate(self._changes):
            if before >> self._at[change.revision] & 1 and name in (
                change.revision,
                change.name,
                f"{change.revision}:{change.ordinal}",
            ):
                yield number

    def _closed(self, names: Iterable[str], before: int) -> int:
        over = 0
        for name in names:
            for number in self._named(name, before):
                over |= 1 << number
        return over

    # -- overlaps --------------------------------------------------------

    def _missing(self, later: Change, before: int, over: int) -> Iterator[Overlap]:
        """Return the changes before one that its revision should require."""
        for number in self._candidates(later):
            earlier = self._changes[number]
            if over >> number & 1 or not before >> self._at[earlier.revision] & 1:
                continue
            if what := shared(earlier, later):
                yield Overlap(earlier=earlier, later=later, what=what)

    def _candidates(self, change: Change) -> list[int]:
        tables = {r.table for r in _reaches(change.pattern)}
        found = {number for t in tables for number in self._reached.get(t, ())}
        left = (n for n in found if self._changes[n].name not in self.settled)
        return sorted(left, reverse=True)

    def _within(self, node: Node, change: Change) -> Iterator[Overlap]:
        """Return the changes of the same revision that come before one."""
        for earlier in node.changes[: node.changes.index(change)]:
            if earlier.name in self.settled:
                continue
            if what := shared(earlier, change):
                yield Overlap(earlier=earlier, later=change, what=what)

    def _beside(self, change: Change) -> Iterator[Overlap]:
        """Return the changes on other branches, as far as they are listed before."""
        mine = self._at[change.revision]
        for number in self._candidates(change):
            other = self._changes[number]
            at = self._at[other.revision]
            if at >= mine or self._before[change.revision] >> at & 1:
                continue
            what = shared(other, change) or shared(change, other)
            if what:
                yield Overlap(earlier=other, later=change, what=what, ordered=False)

    def _meeting(self, overlap: Overlap) -> str | None:
        """Return the first revision that comes after both changes."""
        both = 1 << self._at[overlap.earlier.revision]
        both |= 1 << self._at[overlap.later.revision]
        return next(
            (r for r, before in self._before.items() if before & both == both), None
        )

    def _met(self, revision: str) -> Iterator[Overlap]:
        """Return the overlaps of branches that a revision brings together."""
        for number, change in enumerate(self._changes):
            if not self._before[revision] >> self._at[change.revision] & 1:
                continue
            if change.name in self.settled:
                continue
            for overlap in self._beside(change):
                both = 1 << number | 1 << self._changes.index(overlap.earlier)
                if (
                    self._meeting(overlap) == revision
                    and self._over[revision] & both != both
                ):
                    yield overlap


def shared(earlier: Change, later: Change) -> str:
    """Return what a change and an earlier one, that is in flight, both touch."""
    if earlier.pattern.ends_at_expand:
        return ""
    return next(
        (
            what
            for mine in _reaches(earlier.pattern)
            for theirs in _reaches(later.pattern)
            if (what := mine.shared(theirs))
        ),
        "",
    )


def _reaches(pattern: Pattern) -> tuple[Reach, ...]:
    """Return what a pattern touches; nothing where its declaration makes no sense."""
    if isinstance(pattern, Undecided):
        return ()
    try:
        return pattern.reaches()
    except (MigratorError, AttributeError, TypeError, ValueError):
        # What is wrong with it is told by who checks it, with its name.
        return ()
