"""Values of enums, as we compare them, or the plugin alembic-postgresql-enum.

Alembic itself sees no value of a named enum. PostgreSQL drops none: what is taken out
of use stays in the type, so that a comparison finds it ever after.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from alembic.operations import ops

from migrator.alembic.author import Author
from migrator.alembic.writing import Way, Written
from migrator.lint.statements import Ref
from migrator.pattern import OPEN
from migrator.patterns import AddEnumValue, RemoveEnumValue, RenameEnumValue

#: The classes of our own comparison and of the plugin, which need not be installed.
_SETS = ("EnumValuesOp", "SyncEnumValuesOp")
_CLASSES = ("AddEnumValuesOp", *_SETS)

#: Patterns after which the type still has a value that the model has not.
TAKE_OUT = (RemoveEnumValue.__name__, RenameEnumValue.__name__)

#: Values that come, each with the one that it comes before or after.
_Places = Mapping[str, tuple[str | None, str | None]]


def is_of_values(operation: Any) -> bool:
    """Tell whether an operation is about values of an enum."""
    return type(operation).__name__ in _CLASSES


def places(
    old: Sequence[str], new: Sequence[str], unsure: Collection[str] = ()
) -> dict[str, tuple[str | None, str | None]]:
    """
    Return values that come, in order: each with the one that it comes before or after.

    Args:
        old: the values that are there.
        new: those that are to be there.
        unsure: of these, those that may not come, so that nothing is told by them.

    Returns:
        Before and after; neither where a value comes at the end.
    """
    found: dict[str, tuple[str | None, str | None]] = {}
    known = set(old)
    for at, value in enumerate(new):
        if value in known:
            continue
        ahead = [v for v in new[:at] if v in known]
        behind = [v for v in new[at + 1 :] if v in known]
        found[value] = (None, None)
        if behind:
            found[value] = (None, ahead[-1]) if ahead else (behind[0], None)
        if value not in unsure:
            known.add(value)
    return found


def changes(operation: Any, author: Author) -> Iterator[Written]:
    """Return the changes in place of an operation; none where it is about others."""
    if not is_of_values(operation):
        return
    before, after = list(operation.old_values), list(operation.new_values)
    uses = _uses(operation)
    if not uses:
        return
    gone = {
        value: left
        for value in before
        if value not in after
        # One that is kept out of a column stays in the type for good.
        and (left := [u for u in uses if not _is_kept_out(u, value, author)])
    }
    new = [v for v in after if v not in before]
    pairs = _pairs(before, after, gone, new)
    at = places(before, after, unsure=pairs.values())
    for value in new:
        if value not in pairs.values():
            yield author.decided(_added(uses[0], value, at))
    for value, to in pairs.items():
        yield _exchanged(uses, gone[value], value, to, at, author)
    for value, left in gone.items():
        for use in left if value not in pairs else ():
            yield author.decided(
                _removed(use, value),
                f'what rows get that hold "{value}": `instead`, another value, or None'
                " for NULL",
            )


def _pairs(
    before: Sequence[str], after: Sequence[str], gone: Collection[str], new: list[str]
) -> dict[str, str]:
    """Return values that go, each with one that comes in its place."""
    if len(gone) == 1 and len(new) == 1:
        return dict(zip(gone, new, strict=True))
    found: dict[str, str] = {}
    matched = SequenceMatcher(None, before, after, autojunk=False)
    for tag, a, b, c, d in matched.get_opcodes():
        if tag == "replace" and b - a == d - c:
            ones = zip(before[a:b], after[c:d], strict=True)
            found |= {one: to for one, to in ones if one in gone and to in new}
    return found


def _exchanged(
    uses: Sequence["_Use"],
    left: Sequence["_Use"],
    gone: str,
    new: str,
    at: _Places,
    author: Author,
) -> Written:
    use = uses[0]
    renamed, points = author.weighed(
        RenameEnumValue(use.table, use.column, gone, new, schema=use.schema)
    )
    points = points[:1].upper() + points[1:]
    comes, goes = _added(use, new, at), [_removed(u, gone) for u in left]
    return Written(
        title=renamed.title,
        ways=(
            Way((renamed,), f"It is the same value by another word. {points}"),
            Way((comes, *goes), "It is not: one comes, the other is used no more."),
        ),
        choice=f'whether "{new}" is "{gone}" by another word',
    )


def _added(use: "_Use", value: str, at: _Places) -> AddEnumValue:
    """Return a value that comes, in the model's place for it."""
    before, after = at[value]
    return AddEnumValue(
        use.table, use.column, value, before=before, after=after, schema=use.schema
    )


def _removed(use: "_Use", value: str) -> RemoveEnumValue:
    return RemoveEnumValue(
        use.table, use.column, value, instead=OPEN, schema=use.schema
    )


class _Use:
    """A column of the type; `schema` is None where the search path finds it."""

    def __init__(self, given: Any) -> None:
        self.table: str = given.table_name
        self.column: str = given.column_name
        named = given.table_schema
        self.schema = named if isinstance(named, str) and named != "public" else None


def _uses(operation: Any) -> list[_Use]:
    return [_Use(given) for given in operation.affected_columns]


def may_be_settled(operation: Any) -> bool:
    """Tell whether an operation is of a kind that a change may have settled."""
    if isinstance(operation, ops.DropConstraintOp):
        return operation.constraint_type == "check"
    return is_of_values(operation)


def settled(operation: Any, author: Author) -> bool:
    """
    Tell whether an operation asks for what a change has done, or is doing.

    Also the check that keeps a value out has not to go, though no model has it.
    """
    if isinstance(operation, ops.DropConstraintOp):
        return _keeps_out(operation, author)
    if type(operation).__name__ not in _SETS:
        return False
    old, new = operation.old_values, operation.new_values
    gone = [v for v in old if v not in new]
    kept = [v for v in old if v not in gone]
    # The order is a difference for the plugin alone.
    is_ours = type(operation).__name__ == _SETS[0]
    same = set(new) == set(kept) if is_ours else list(new) == kept
    return same and all(
        _is_kept_out(use, value, author) for use in _uses(operation) for value in gone
    )


def _is_kept_out(use: _Use, value: str, author: Author) -> bool:
    if (use.table, use.column, value) in author.words:
        return True
    table = author.scene.table(Ref(use.table, use.schema))
    if table is None:
        return False
    check = table.constraint(_removed(use, value).check_name)
    return check is not None and check.validated


def _keeps_out(operation: ops.DropConstraintOp, author: Author) -> bool:
    table = author.scene.table(Ref(operation.table_name, operation.schema))
    names = {
        RemoveEnumValue(operation.table_name, c.name, value, instead=None).check_name
        for c in (table.columns if table else ())
        for value in c.values
    }
    return operation.constraint_name in names
