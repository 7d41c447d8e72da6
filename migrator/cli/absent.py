"""Why a database would refuse a change, as far as that is sure."""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from alembic.script import Script

from migrator.alembic.project import changes_of, patterns_of
from migrator.change import Change
from migrator.cli.app import App
from migrator.errors import NotThere, Refused
from migrator.lint.recording import record
from migrator.lint.statements import Carried
from migrator.pattern import Pattern
from migrator.runner import Runner

_WORD = re.compile(r"\w+")
# Words of an error, or of how a statement is told, that are no names.
_PLAIN = frozenset(
    _WORD.findall(
        "a and as at by column constraint default for foreign from has in index is it"
        " key not of on or primary public schema sql table text that the to trigger"
        " type unique used view with which would"
    )
)

# Seconds for which a look at what a change names may wait for a locked table.
LOOK_S = 5.0


def quick(app: App) -> Runner:
    """Return an engine that gives up soon on a table that stays locked."""
    runner = app.runner()
    runner.settings = replace(runner.settings, step_budget_s=LOOK_S)
    return runner


@dataclass(frozen=True, slots=True)
class Absent:
    """
    Looks for what keeps changes from working in a database as it is.

    What they name may come from a revision before them.

    Args:
        runner: an engine on the database.
        ahead: the revisions that the database does not have yet, oldest first.
        version_table: Alembic's version table, with its schema if it has one.
        known: ids of changes that the ledger has begun: they were let through.
    """

    runner: Runner
    ahead: Sequence[Script]
    version_table: str
    known: Collection[str] = ()

    def __call__(self, revision: str, pattern: Pattern) -> Refused | None:
        """
        Return what keeps a change from working; None where that is not sure.

        Args:
            revision: its revision's id.
            pattern: the change.
        """
        before: list[Script] = []
        for script in self.ahead:
            if script.revision == revision:
                break
            before.append(script)
        else:
            # What has run is judged by what it did.
            return None
        mine = changes_of(script, self.version_table)
        change = next((c for c in mine if c.pattern == pattern), None)
        if change is None or change.id in self.known:
            return None
        error = self.runner.refusal(change)
        if error is not None and not isinstance(error, NotThere):
            # What is required may leave something else; so may the revision itself.
            own = record(script.module).done
            first = own[0].statement if own else None
            sure = (
                isinstance(first, Carried)
                and first.pattern == pattern
                and not change.requires
                and not any(_may_clear(s, pattern, error) for s in before)
            )
            return error if sure else None
        if error is None or not error.name:
            return None
        said = (*_of_changes(script, pattern), *chain.from_iterable(map(_said, before)))
        return None if _is_made(error, said) else error


def columns(
    runner: Runner, ahead: Sequence[Script], patterns: Sequence[Pattern]
) -> NotThere | None:
    """
    Return a column that changes name, and nothing makes, of a table that is there.

    Args:
        runner: an engine on the database.
        ahead: the revisions that the database does not have yet.
        patterns: what revisions behind all of them are to carry, in this order.
    """
    said: list[str] | None = None
    for number, pattern in enumerate(patterns):
        error = runner.refusal(Change(revision="new", pattern=pattern))
        if not isinstance(error, NotThere) or not error.table:
            continue
        if said is None:
            said = [text for script in ahead for text in _said(script)]
        if not _is_made(error, [*said, *map(_told, patterns[:number])]):
            return error
    return None


def _is_made(error: NotThere, said: Iterable[str]) -> bool:
    """
    Tell whether what is missing may be made by what is said.

    Whoever says the name may make it, or what it stands for; a column, together with
    its table.
    """
    words = [
        re.compile(rf"(?<!\w){re.escape(name)}(?!\w)")
        for name in (error.name, error.table)
        if name
    ]
    return any(all(word.search(text) for word in words) for text in said)


def _words(value: Any) -> Iterator[str]:
    """Return the words of all that a statement or pattern is given."""
    if isinstance(value, Carried):
        # Its title is prose.
        value = value.pattern
    if isinstance(value, str):
        yield from _WORD.findall(value)
    elif isinstance(value, Mapping):
        for pair in value.items():
            yield from _words(pair)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _words(item)
    elif is_dataclass(value) and not isinstance(value, type):
        for item in fields(value):
            yield from _words(getattr(value, item.name))


def _told(pattern: Pattern) -> str:
    return json.dumps(pattern.parameters(), default=repr)


def _of_changes(script: Script, last: Pattern) -> list[str]:
    """Return what a revision's changes before one of them say, each for itself."""
    patterns = patterns_of(script.module)
    earlier = patterns[: patterns.index(last)]
    return [_told(p) for p in earlier]


def _may_clear(script: Script, pattern: Pattern, error: Refused) -> bool:
    """
    Tell whether a revision may do away with what keeps a later change from working.

    It does where it says a name that the error tells besides the change's own, or is
    about the same columns of the table.
    """
    done = record(script.module)
    if done.unread:
        return True
    columns = pattern.columns() or frozenset()
    table = pattern.subject[0]
    told = frozenset(_WORD.findall(error.what))
    own = frozenset({table, *_words(pattern)})
    for said in (frozenset(_words(one.statement)) for one in done.done):
        if said & (told - own - _PLAIN) or (table in said and columns & said):
            return True
    return False


def _said(script: Script) -> list[str]:
    """
    Return what each statement of a revision says.

    Its comments, and what it would take back, make nothing; where its code cannot be
    followed to the end, its whole text may.
    """
    done = record(script.module)
    said = [repr(one.statement) for one in done.done]
    return [*said, Path(script.path).read_text("utf-8")] if done.unread else said
