"""Which changes come first where nothing else decides."""

from migrator.pattern import Pattern
from migrator.patterns import (
    AddCheck,
    AddColumn,
    AddEnumValue,
    AddExclusion,
    AddForeignKey,
    AddPrimaryKey,
    AddUnique,
    ChangeColumnType,
    ChangePrimaryKey,
    CreateIndex,
    Custom,
    DropColumn,
    DropConstraint,
    DropDefault,
    DropIndex,
    DropNotNull,
    DropTable,
    RemoveEnumValue,
    RenameColumn,
    RenameConstraint,
    RenameEnumValue,
    RenameTable,
    ReplaceCheck,
    ReplaceForeignKey,
    ReplaceFunction,
    ReplaceIndex,
    ReplaceView,
    SetDefault,
    SetNotNull,
)

# Types before values before rules, and what goes after what comes.
_RANKS: tuple[type[Pattern], ...] = (
    AddEnumValue,
    RenameEnumValue,
    RenameTable,
    RenameColumn,
    RenameConstraint,
    AddColumn,
    Custom,
    ChangeColumnType,
    ChangePrimaryKey,
    SetDefault,
    DropDefault,
    DropNotNull,
    SetNotNull,
    CreateIndex,
    ReplaceIndex,
    AddPrimaryKey,
    AddUnique,
    AddForeignKey,
    ReplaceForeignKey,
    AddCheck,
    ReplaceCheck,
    AddExclusion,
    ReplaceFunction,
    ReplaceView,
    DropConstraint,
    DropIndex,
    RemoveEnumValue,
    DropColumn,
    DropTable,
)


def rank_of(pattern: Pattern) -> int:
    """Return a change's place: those with the lower one come first."""
    if isinstance(pattern, CreateIndex) and not pattern.unique:
        # It is finished at expand. Behind a change of its column that waits for a
        # deployment it would keep that deployment waiting.
        return -1
    return _RANKS.index(type(pattern)) if type(pattern) in _RANKS else len(_RANKS)
