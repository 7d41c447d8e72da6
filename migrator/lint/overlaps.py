"""Changes that must not be in flight together, and a revision that does not say so."""

from collections.abc import Iterator, Sequence

from migrator.change import Change
from migrator.history import History, Overlap
from migrator.lint.rule import Finding, Safe, Severity
from migrator.lint.source import assignment

#: Overlapping changes of which neither waits for the other, and a requirement that
#: names nothing.
UNDECLARED = "ZD904"
UNKNOWN = "ZD905"

_WHY = (
    "Two changes in flight must not touch the same, so that this one is held until the"
    " other is finished, which takes a release of its own."
)


def look(history: History, revision: str) -> Iterator[tuple[Change | None, Finding]]:
    """
    Return what is wrong with what a revision requires.

    Args:
        history: all revisions of the project.
        revision: the id of one.

    Returns:
        Findings, each with the change that it is about, if it is about one.
    """
    node = history.node(revision)
    for name in history.wrong(revision):
        yield (
            None,
            Finding(
                code=UNKNOWN,
                severity=Severity.ERROR,
                what=f'It requires "{name}", which is no change of a revision before'
                " it.",
                why="`upgrade` would refuse it, or wait for what comes later.",
                safe=Safe(
                    why="Write the whole id of the change's revision; one that is on"
                    " another branch has to come first by depends_on as well."
                ),
            ),
        )
    found = history.undeclared(revision)
    own = {c.name for c in node.changes}
    ordered = [o for o in found if o.ordered and o.earlier.name not in own]
    names = list(dict.fromkeys((*node.requires, *(o.earlier.name for o in ordered))))
    for later in dict.fromkeys(o.later.name for o in ordered):
        mine = [o for o in ordered if o.later.name == later]
        touched = [f"{o.what}, as {_shown(o.earlier)} does" for o in mine]
        them = "it" if len(mine) == 1 else "any of them"
        yield (
            mine[0].later,
            _finding(
                f"{_begin(mine[0].later)} touches {'; '.join(touched)}, and does not"
                f" wait for {them}.",
                Safe(
                    why="The revision says so: `upgrade` stops before it until then,"
                    " and tells what to do.",
                    # One line for all changes of the revision.
                    code=assignment(names),
                ),
            ),
        )
    for overlap in found:
        if overlap.ordered and overlap.earlier.name in own:
            yield (
                overlap.later,
                _finding(
                    f"{_begin(overlap.later)} touches {overlap.what}, as"
                    f" {overlap.earlier.pattern.title} does, in the same revision.",
                    Safe(
                        why="Put it into a revision of its own, with"
                        f" {assignment([overlap.earlier.name])}."
                    ),
                ),
            )
        elif not overlap.ordered:
            yield _of_branches(overlap, node.requires, revision)


def _of_branches(
    overlap: Overlap, requires: Sequence[str], revision: str
) -> tuple[Change | None, Finding]:
    one, other = overlap.earlier, overlap.later
    what = (
        f"{_begin(one)} ({one.name}) and {other.pattern.title} ({other.name}) both"
        f" touch {overlap.what}, on branches of which neither comes first."
    )
    after = f'depends_on = "{one.revision}"', assignment([one.name])
    if revision == other.revision:
        safe = Safe(
            why="One comes after the other one.",
            decide="which; one that has run somewhere stays as it is, and where both"
            " have, the revision that merges the branches requires both.",
            code="\n".join(after),
        )
        return other, _finding(what, safe)
    safe = Safe(
        why="The merge waits until both are finished.",
        decide=f"whether it does, or {other.revision} comes after {one.revision}:"
        f" where it has not run anywhere yet, {' and '.join(after)} in it let what"
        " comes behind the merge go on.",
        code=assignment(list(dict.fromkeys((*requires, one.name, other.name)))),
    )
    return None, _finding(what, safe)


def _finding(what: str, safe: Safe) -> Finding:
    return Finding(
        code=UNDECLARED, severity=Severity.ERROR, what=what, why=_WHY, safe=safe
    )


def _begin(change: Change) -> str:
    title = change.pattern.title
    return title[:1].upper() + title[1:]


def _shown(change: Change) -> str:
    return f"{change.name} ({change.pattern.title})"
